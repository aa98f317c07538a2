//! `lifecycle`: uses that an ended, exchanged or key-bound token cannot have. Scored at every event.

pub(crate) mod formula;
pub(crate) mod key;
pub(crate) mod refresh;

use std::num::NonZeroI64;

use self::formula::Foreign;
use self::key::{Binding, Compared, Place, Proof};
use super::words::{Description, Signals, Words, span};
use super::{Case, Detector, DetectorId, Lesson, Observation, Teaching};
use crate::event::{Answer, Kind, TokenType};
use crate::memory::baseline::OtherKeys;
use crate::memory::level::{ClientLevel, NetLevel};
use crate::memory::population::Habit;
use crate::memory::{Ended, Feature, Nats, Review, User};
use crate::millis::{DAY_MS, HOUR_MS};
use crate::verdict::RuleId;

/// Visits from which a prefix is usual.
const USUAL_VISITS: f64 = 3.0;

pub(crate) struct Lifecycle;

impl Detector for Lifecycle {
    const ID: DetectorId = DetectorId::Lifecycle;

    #[inline]
    fn score_event(case: &Case<'_>, lesson: &mut Lesson) {
        if !has_nothing_to_compare(case) {
            score_use(case, lesson);
        }
    }

    #[inline]
    fn learn_event(teaching: &mut Teaching<'_>) {
        let (lesson, baseline) = (teaching.lesson, &mut *teaching.baseline);
        if let Some(refreshes) = &lesson.refreshes {
            **baseline.refreshes.get_or_insert_default() = refreshes.clone();
        }
        (baseline.token, baseline.binding) = (lesson.token, lesson.binding);
        baseline.binding_streak = lesson.binding_streak;
        if let Some(others) = lesson.other_keys {
            baseline.refreshes.get_or_insert_default().other_keys = others;
        }
        if let Some((habit, is_seen)) = lesson.learns.departure {
            learn_habit(teaching, habit, is_seen);
        }
        if let Some(is_seen) = lesson.learns.replaced_key {
            learn_habit(teaching, Habit::ReplacedKey, is_seen);
        }
    }

    #[inline]
    fn learn_visit(teaching: &mut Teaching<'_>, _: &User) {
        let observation = teaching.observation;
        let sighting = observation.sighting;
        if let Some(expiry) = observation.expiry
            && expiry.from_issued_event
            && observation.enriched.event.answer() == Answer::Accepted
        {
            let (outlived, counted) = (expiry.is_over(sighting.at - observation.ahead), teaching.weights().counted);
            let app = (sighting.tenant, sighting.app);
            teaching.population.learn_habit(Habit::Outlived, app, outlived, counted);
        }
    }

    fn explain(words: &Words<'_>, signals: &mut Signals<'_>) {
        let rule = words.score.lifecycle_rule.unwrap_or(RuleId::UseAfterExpiry);
        signals.add(rule, words.score.evidence[Self::ID].get(), || describe(words, rule));
    }
}

fn learn_habit(teaching: &mut Teaching<'_>, habit: Habit, is_seen: bool) {
    let (sighting, counted) = (teaching.observation.sighting, teaching.weights().counted);
    teaching.population.learn_habit(habit, (sighting.tenant, sighting.app), is_seen, counted);
}

#[inline(never)] // Few uses have something to compare.
fn score_use(case: &Case<'_>, lesson: &mut Lesson) {
    let observation = case.observation;
    let (event, at) = (&observation.enriched.event, observation.sighting.at);
    let answer = event.answer();
    let visit = &lesson.visit;
    let foreign = Foreign {
        address: visit.net_level > NetLevel::KnownAddress,
        network: visit.net_level >= NetLevel::UsersNetwork,
        client: visit.client_level >= ClientLevel::UsersFamily,
    };
    let began = visit.began;
    let reuse = reuse(case, lesson, answer);
    let binding = binding(case, lesson);
    let expired = observation.expiry.map_or(0.0, |expiry| {
        let population = &case.others.population;
        let maximum = if expiry.from_issued_event {
            formula::issue_expiry_max(population.habit(
                Habit::Outlived,
                observation.sighting.tenant,
                observation.sighting.app,
            ))
        } else {
            formula::CERTAIN
        };
        let most = if expiry.is_over(at) && place(case, lesson) == Place::Usual {
            maximum.min(formula::AT_USUAL_PLACE)
        } else {
            maximum
        };
        formula::after_expiry(expiry, most, at - observation.ahead, began - observation.ahead, answer)
    });
    let found = [
        (RuleId::RefreshReuse, reuse),
        (RuleId::BindingMismatch, binding),
        (RuleId::UseAfterRevocation, formula::after_revocation(observation.ended, at, answer, foreign)),
        (RuleId::UseAfterSessionEnd, formula::after_session_end(observation.ended, at, answer, foreign)),
        (RuleId::UseAfterExpiry, expired),
    ];
    let holder = &mut lesson.holder;
    for (rule, share) in found {
        if share > 0.0 && Nats::new(share) >= holder.evidence[Lifecycle::ID] {
            lesson.changed |= Nats::new(share) > holder.evidence[Lifecycle::ID];
            holder.evidence[Lifecycle::ID] = Nats::new(share);
            holder.lifecycle_rule = rule as u8;
        }
    }
}

/// Whether all evidence of the event is 0, and nothing of it is stored: most uses.
fn has_nothing_to_compare(case: &Case<'_>) -> bool {
    let Observation { enriched, sighting, ended, expiry, ahead, .. } = case.observation;
    let (event, keys) = (&enriched.event, &enriched.keys);
    event.kind == Kind::Use
        && !event.reuse_reported
        && keys.binding == 0
        && case.baseline.binding_streak < key::BINDING_STREAK
        && !expiry.is_some_and(|expiry| expiry.is_over(sighting.at - ahead))
        && *ended == Ended::default()
        && case.baseline.token == keys.token as u32
}

/// Evidence of a refresh token that was presented again.
fn reuse(case: &Case<'_>, lesson: &mut Lesson, answer: Answer) -> f64 {
    let (observation, baseline) = (case.observation, case.baseline);
    let (event, token) = (&observation.enriched.event, observation.enriched.keys.token);
    let sighting = observation.sighting;
    if event.reuse_reported {
        // The provider compared the tokens.
        return formula::CERTAIN;
    }
    if event.kind == Kind::Refreshed {
        let mut refreshes = baseline.refreshes.as_deref().cloned().unwrap_or_default();
        let reuse = refresh::refresh(&mut refreshes, token, sighting.at, sighting.address, sighting.agent);
        lesson.refreshes = Some(refreshes);
        return reuse;
    }
    if answer == Answer::Accepted && event.token_type != TokenType::Refresh && baseline.token != token as u32 {
        // The first accepted use of a token proves that the response of the last exchange arrived.
        if let Some(refreshes) = baseline.refreshes.as_deref() {
            refresh::successor_used(lesson.refreshes.insert(refreshes.clone()), sighting.at);
        }
        lesson.token = token as u32;
    }
    0.0
}

/// Evidence of another key than that of earlier requests.
fn binding(case: &Case<'_>, lesson: &mut Lesson) -> f64 {
    let (baseline, sighting) = (case.baseline, case.observation.sighting);
    let (event, keys) = (&case.observation.enriched.event, &case.observation.enriched.keys);
    let others = baseline.refreshes.as_deref().filter(|_| keys.binding != 0);
    let others = others.map_or_else(OtherKeys::default, |stored| stored.other_keys);
    let mut known = Binding { key: baseline.binding, streak: baseline.binding_streak, others };
    let lasts = matches!(event.token_type, TokenType::ApiKey | TokenType::Personal);
    let proof = Proof {
        key: keys.binding,
        new_token: baseline.token != keys.token as u32,
        inseparable: !lasts && event.binding.as_deref().is_some_and(|key| key.starts_with("jkt:")),
        minute: sighting.minute(),
        begins_hour: baseline.begins_hour(sighting.at),
        owners_hour: keys.binding != baseline.binding && is_owners_hour(case),
    };
    let is_first = lesson.begins_visit() || proof.new_token;
    let departure = known.departure(proof).filter(|_| is_first && case.is_in_order(lesson));
    let rate = |habit| case.others.population.habit(habit, sighting.tenant, sighting.app);
    // At the usual place, malware would also have the key.
    let departs = |(_, is_seen): &(_, bool)| *is_seen && place(case, lesson) != Place::Usual;
    let departed = departure.filter(departs).map_or(0.0, |(habit, _)| key::departed(habit, rate(habit)));
    let Compared { evidence, replaced } =
        known.compare(proof, || place(case, lesson), || key::replaced(rate(Habit::ReplacedKey)));
    let evidence = evidence.max(departed);
    if !case.is_in_order(lesson) {
        // The event may be older than a change of the key.
        return evidence.min(formula::AT_USUAL_PLACE);
    }
    if replaced && lesson.holder.lifecycle_rule == RuleId::BindingMismatch as u8 {
        lesson.holder.evidence[Lifecycle::ID] = Nats::default();
    }
    let could_be_replaced = departure == Some((Habit::NoKey, false));
    lesson.learns.departure = departure;
    lesson.learns.replaced_key = (replaced || could_be_replaced).then_some(replaced);
    (lesson.binding, lesson.binding_streak) = (known.key, known.streak);
    lesson.other_keys = (known.others != others).then_some(known.others);
    evidence
}

/// Whether the owner has at least half as many visits at this hour of the day as at an average one.
fn is_owners_hour(case: &Case<'_>) -> bool {
    let hours = &case.baseline.hours;
    let of_day = case.observation.sighting.at.rem_euclid(DAY_MS) / HOUR_MS;
    let all: u32 = hours.iter().map(|visits| u32::from(*visits)).sum();
    2 * 24 * u32::from(hours[of_day as usize]) >= all
}

/// Where the event comes from, compared with the current baseline, because a visit may last for weeks. The place is
/// usual or familiar if the holder is the first one or an old one, the client family is known, and the fingerprint is not
/// borrowed. It is usual if the prefix is, and familiar if the network is known.
fn place(case: &Case<'_>, lesson: &Lesson) -> Place {
    let (sighting, baseline) = (case.observation.sighting, case.baseline);
    let (holder, seen) = (&lesson.holder, &baseline.seen);
    let is_new = match holder.review {
        Review::Owner => false,
        Review::Thief => true,
        Review::Unknown => lesson.holder_is_new(sighting.at) && holder.born != baseline.first_minute,
    };
    let borrowed = || {
        !seen.knows(Feature::Fingerprint, sighting.fingerprint)
            && case.others.population.is_borrowed(sighting.fingerprint, sighting.family)
    };
    if is_new || !seen.knows(Feature::Family, sighting.family) || borrowed() {
        return Place::Foreign;
    }
    let prefix = sighting.prefix_in(sighting.country);
    let is_usual = !sighting.has_place()
        || seen.count(Feature::Prefix, prefix) >= USUAL_VISITS
        || seen.most(Feature::Prefix).is_some_and(|(most, _)| most == prefix);
    if is_usual {
        Place::Usual
    } else if seen.knows(Feature::Network, sighting.network) {
        Place::Familiar
    } else {
        Place::Foreign
    }
}

fn describe(words: &Words<'_>, rule: RuleId) -> Description {
    let (event, ended) = (&words.observation.enriched.event, words.observation.ended);
    let at = words.observation.sighting.at;
    let answer = match event.status {
        Some(status) => format!("status {status}"),
        None if event.outcome_unclear => "an unclear outcome".to_owned(),
        None => "no status".to_owned(),
    };
    let since = |moment: Option<NonZeroI64>| {
        moment.map_or_else(|| "time unknown".to_owned(), |moment| format!("{} later", span(at - moment.get())))
    };
    let (observed, expected, reason) = match rule {
        RuleId::RefreshReuse => (
            "a superseded refresh token".to_owned(),
            "each refresh token presented once",
            "a refresh token was presented again after its exchange: copied, or the new one was lost".to_owned(),
        ),
        RuleId::BindingMismatch => {
            let has_key = words.observation.enriched.keys.binding != 0;
            let observed =
                if has_key { "proof of possession of another key" } else { "no proof of possession of a key" };
            let reason = if has_key {
                "used with a key other than that of earlier requests: copied, or the key was replaced"
            } else {
                "used without the key of earlier requests: copied, or the key is no longer reported"
            };
            (observed.to_owned(), "the key of earlier requests", reason.to_owned())
        }
        RuleId::UseAfterRevocation => (
            format!("{answer}, {}", since(ended.revoked_at)),
            "no use after revocation",
            format!("used after its revocation ({answer}, {}), from {}", since(ended.revoked_at), words.here()),
        ),
        RuleId::UseAfterSessionEnd => (
            format!("{answer}, {}", since(ended.session_ended_at)),
            "no use after the end of the session",
            format!("accepted after the end of its session ({})", since(ended.session_ended_at)),
        ),
        _ => {
            let (observed, reason) = describe_expiry(words, &answer);
            (observed, "no use after expiry", reason)
        }
    };
    Description { p_value: None, observed, expected: expected.to_owned(), reason }
}

/// The observation and the reason.
fn describe_expiry(words: &Words<'_>, answer: &str) -> (String, String) {
    let expiry = words.observation.expiry;
    let late = expiry.map_or(0, |expiry| words.observation.sighting.at - expiry.at);
    if late <= 0 {
        // The evidence of an earlier event of this holder.
        return (
            "an earlier use after expiry".to_owned(),
            "accepted after its expiry, earlier from this network and client".to_owned(),
        );
    }
    let stated = if expiry.is_some_and(|expiry| expiry.from_issued_event) {
        "the expiry stated at its issue"
    } else {
        "its expiry"
    };
    (format!("{answer}, {} late", span(late)), format!("accepted {} after {stated}", span(late)))
}
