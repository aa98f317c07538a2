//! `client`: novelty of the client software. Scored once per visit.

pub(crate) mod formula;

use super::words::{Description, Signals, Words, both, family_name};
use super::{Case, Detector, DetectorId, Lesson, Teaching};
use crate::memory::level::ClientLevel;
use crate::memory::{Baseline, Feature, Nats, Population, Review, Sighting, User};
use crate::verdict::RuleId;

/// Reason for evidence of a client that became known after the holder began.
const RECENT_CLIENT: &str = "used with a client that was new recently";

pub(crate) struct Client;

impl Detector for Client {
    const ID: DetectorId = DetectorId::Client;
    const WEIGHT: f64 = 0.85;
    const OF_IDENTITY: bool = true;

    #[inline]
    fn score_visit(case: &Case<'_>, lesson: &mut Lesson) {
        let sighting = case.observation.sighting;
        let client = find(case, lesson.visit.client_level);
        let credits_client = case.credits_client(lesson);
        let novelty_weight = case.novelty_weight(lesson, Feature::Family, sighting.family);
        let (holder, visit) = (&mut lesson.holder, &mut lesson.visit);
        if client.ratio >= 0.0 {
            if holder.review != Review::Owner {
                holder.evidence[Self::ID] = holder.evidence[Self::ID].max(Nats::new(novelty_weight * client.ratio));
            }
        } else {
            visit.client_credit = if credits_client { client.ratio as f32 } else { 0.0 };
            // Once place and client are known, a confirmed holder needs no exception for its next place.
            if holder.review == Review::Owner && lesson.usual_network {
                holder.review = Review::Unknown;
            }
        }
        visit.client_p = client.p_value as f32;
    }

    #[inline]
    fn evidence(lesson: &Lesson) -> f64 {
        lesson.holder.evidence[Self::ID].get() + f64::from(lesson.visit.client_credit)
    }

    #[inline]
    fn learn_visit(teaching: &mut Teaching<'_>, user: &User) {
        let (sighting, lesson, weights) = (teaching.observation.sighting, teaching.lesson, teaching.weights());
        let (kind, level, visits) = (lesson.kind, lesson.visit.client_level, teaching.baseline.visits);
        if (!lesson.learns.first || user.is_known())
            && let Some(cohorts) = &mut teaching.cohorts
        {
            cohorts.learn_client(kind, visits, level, weights.counted);
        }
        let baseline = &mut *teaching.baseline;
        if !lesson.learns.first {
            baseline.client_levels.learn(level as usize, weights.known, sighting.minute());
        }
        if sighting.fingerprint != 0 && !baseline.seen.knows(Feature::Fingerprint, sighting.fingerprint) {
            let population = &mut *teaching.population;
            population.learn_fingerprint(sighting.fingerprint, sighting.family, weights.counted);
        }
        baseline.learn_client(sighting, weights.known);
    }

    fn explain(words: &Words<'_>, signals: &mut Signals<'_>) {
        let share = words.unexplained * words.score.shares[Self::ID];
        signals.add(RuleId::NewClient, share, || describe(words));
    }
}

/// Level of novelty of the client.
pub(crate) fn level(baseline: &Baseline, user: &User, population: &Population, sighting: &Sighting) -> ClientLevel {
    let seen = &baseline.seen;
    let is_new = sighting.fingerprint != 0 && !seen.knows(Feature::Fingerprint, sighting.fingerprint);
    if is_new && population.is_borrowed(sighting.fingerprint, sighting.family) {
        ClientLevel::NewFamily
    } else if seen.knows(Feature::Agent, sighting.agent) {
        let is_new = is_new && seen.knows_any(Feature::Fingerprint);
        if is_new { ClientLevel::NewFingerprint } else { ClientLevel::Known }
    } else if seen.knows(Feature::Version, sighting.version) {
        ClientLevel::NewText
    } else if seen.knows(Feature::Family, sighting.family) {
        ClientLevel::NewVersion
    } else if user.has_family(sighting.family) {
        ClientLevel::UsersFamily
    } else {
        ClientLevel::NewFamily
    }
}

fn find(case: &Case<'_>, level: ClientLevel) -> super::levels::LevelRatio {
    let (sighting, tenant) = (case.observation.sighting, case.observation.tenant);
    let population = &case.others.population;
    let which = if level >= ClientLevel::UsersFamily {
        (
            population.families.thief(tenant.seat, sighting.family, 2.0),
            population.has_family(tenant, sighting.app, case.kind.token_type(), sighting.family),
        )
    } else {
        (1.0, 1.0)
    };
    let cohort = case.cohorts.client(case.kind, case.baseline.visits);
    formula::evidence(level, &case.baseline.client_levels.get(), &cohort, which)
}

fn describe(words: &Words<'_>) -> Description {
    let client = &words.observation.enriched.client;
    let level = words.score.client_level;
    let observed = both(&client.family, &client.version);
    let usual = words.baseline.seen.most(Feature::Family).map(|(family, _)| family);
    let name = usual.and_then(|family| words.names.get(family_name(family)));
    let expected = name.map_or_else(|| "the clients of the user's other tokens".to_owned(), ToString::to_string);
    let what = match level {
        ClientLevel::NewFingerprint => "used with the usual user agent and a new fingerprint",
        ClientLevel::NewText => "used with a new user agent text",
        ClientLevel::NewVersion => "used with a new version of the client",
        ClientLevel::UsersFamily => "used with a client that is known only from the user's other tokens",
        ClientLevel::Known => RECENT_CLIENT,
        ClientLevel::NewFamily => "used with a new client",
    };
    // The evidence of the holder remains after the client has become known.
    let learnt = level >= ClientLevel::UsersFamily && usual == Some(words.observation.sighting.family);
    let reason = if learnt {
        [RECENT_CLIENT, ": ", &observed].concat()
    } else {
        let mut digits = itoa::Buffer::new();
        let (visits, noun) = match words.baseline.visits {
            1 => ("1", " visit"),
            visits => (digits.format(visits), " visits"),
        };
        [what, ": ", &observed, "; usually ", &expected, " (", visits, noun, " so far)"].concat()
    };
    Description { p_value: Some(f64::from(words.lesson.visit.client_p)), observed, expected, reason }
}
