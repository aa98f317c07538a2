//! Scores one event: finds its visit and holder, and runs the detectors. [`super::learn`] stores the result.

use std::num::NonZeroU32;

use super::failpoint::{Failpoint, failpoint};
use super::settings::Settings;
use crate::detector::{self, Case, Lesson, Observation, Origin, Score, Setting, client, hour, net};
use crate::memory::visit::{Core, VISIT_GAP_MS};
use crate::memory::{Baseline, Holder, Kind, Memory, Nats, NetLevel, Review, Sighting, Thieves, Visit, Visits};

const HOUR_MS: i64 = 3_600_000;
/// After this number of consecutive late events, the time of the event before them is considered wrong.
const BEHIND_MAX: u8 = 3;

/// Scores an event of a token that has a baseline, or gets one. Only reads memory. The changes are in `lesson`, for
/// learning. `score` has no evidence yet; it is written in place, because it is large.
pub(crate) fn score(
    memory: &Memory,
    settings: &Settings,
    observation: &Observation<'_>,
    lesson: &mut Option<Lesson>,
    score: &mut Score,
) {
    let (sighting, at) = (observation.sighting, observation.sighting.at);
    let Memory { baselines, users, visits, others, thieves, .. } = memory;
    let fresh = observation.index.is_none().then(|| Box::new(begin_baseline(observation)));
    let baseline = match (&fresh, observation.index) {
        (Some(fresh), _) => fresh,
        (None, Some(index)) => baselines.get(index),
        (None, None) => return,
    };
    let (number, visit) = find_visit(baseline, visits, sighting).unzip();
    // Borrowed, because it is large: it is copied once, into the lesson.
    let begun;
    let core = if let Some(visit) = visit {
        &visit.core
    } else {
        begun = Core::begun(baseline.key, sighting.visit, at);
        &begun
    };
    let lesson = Lesson::begin(lesson, baseline, core, at);
    lesson.number = number;
    lesson.late = observation.timed && check_lateness(lesson, at, observation.newest, settings.lateness_ms_max);
    // The user is read at the beginning of a visit only.
    let user = visit.is_none().then(|| users.known(observation.user));
    if let Some(user) = &user {
        lesson.visit.tenant = sighting.tenant;
        lesson.visit.net_level = net::level(baseline, user, sighting);
        lesson.visit.client_level = client::level(baseline, user, &others.population, sighting);
    }
    lesson.visit.last_at = lesson.visit.last_at.max(at);
    lesson.visit.calls = lesson.visit.calls.saturating_add(1);
    find_holder(baseline, sighting, lesson);
    lesson.changed = user.is_some() || lesson.holder_index == baseline.holders.len();
    if lesson.changed {
        review(thieves, observation.user, baseline, lesson);
    }
    if lesson.holder.review == Review::Thief {
        net::set_thief_evidence(&mut lesson.holder);
    }
    let case = Case {
        observation,
        baseline,
        user: user.as_ref(),
        visit,
        others,
        cohorts: others.cohorts.of(observation.tenant.seat),
        kind: baseline.kind,
        prior_log_odds: settings.prior_log_odds,
        blank: lesson.learns.first && user.is_some_and(|user| !user.is_known()),
    };
    if user.is_some() && !case.blank {
        detector::score_visit(&case, lesson);
    }
    failpoint(Failpoint::Detectors);
    detector::score_event(&case, lesson);
    sum_up(&case, lesson, settings, score);
    failpoint(Failpoint::Sum);
    // `between` counts in its visit only.
    lesson.holder.log_odds = Nats::new(score.log_odds - score.between);
    lesson.holder.last_at = lesson.holder.last_at.max(at);
    lesson.visit.log_odds_max = lesson.visit.log_odds_max.max(score.log_odds as f32);
    // A shared cause explains the evidence, but does not prove that the holder is the owner. Learning therefore ignores
    // the reduction.
    lesson.log_odds = score.log_odds - score.together;
    lesson.fresh = fresh;
}

/// The score from the evidence of all detectors.
fn sum_up(case: &Case<'_>, lesson: &Lesson, settings: &Settings, score: &mut Score) {
    let observation = case.observation;
    let setting = Setting::of(Origin {
        machine_on_servers: case.kind.is_machine() && case.baseline.lives_on_servers(),
        class: observation.enriched.network.as_ref().map(|network| network.class),
        level: lesson.visit.net_level,
        new_holder: lesson.holder_is_new(observation.sighting.at),
    });
    *score = Score::of(lesson, setting, settings.prior_log_odds);
    detector::sum_up(lesson, score, &settings.without);
}

/// Copies the holder of the event, decayed to its time, into the lesson.
fn find_holder(baseline: &Baseline, sighting: &Sighting, lesson: &mut Lesson) {
    let network = holders_network(baseline, sighting);
    let (index, is_new) = baseline.place_of_holder(network, sighting.family);
    lesson.holder_index = index;
    if is_new {
        lesson.holder = Holder::born(network, sighting.family, sighting.at, lesson.visit.net_level);
    } else {
        lesson.holder = baseline.holders[index];
        lesson.holder.last_at = lesson.last_at_of(&lesson.holder);
        detector::fade(&mut lesson.holder, sighting.at);
    }
    lesson.seen_in_earlier_hour = lesson.holder.last_at / HOUR_MS < sighting.at / HOUR_MS;
}

/// Whether a person has reported the holder as a thief. Looked up at the beginning of a visit, because the holder may be
/// new, or of another grant of the user.
fn review(thieves: &Thieves, user: u64, baseline: &Baseline, lesson: &mut Lesson) {
    let holder = &mut lesson.holder;
    if thieves.contains(user, holder, &baseline.seen) {
        holder.review = Review::Thief;
    } else if holder.review == Review::Thief {
        holder.review = Review::Unknown;
    }
}

/// The network that identifies the holder. An event without an address belongs to the latest holder with the same
/// client, if there is one.
fn holders_network(baseline: &Baseline, sighting: &Sighting) -> u32 {
    if sighting.has_place() {
        return sighting.network;
    }
    let same_client = baseline.holders.iter().filter(|holder| holder.family == sighting.family);
    same_client.max_by_key(|holder| holder.last_at).map_or(sighting.network, |holder| holder.network)
}

/// A new baseline, from the seed of the first visit if there is one.
fn begin_baseline(observation: &Observation<'_>) -> Baseline {
    let Observation { sighting, enriched, .. } = observation;
    let Some(seed) = observation.seed else {
        let kind = Kind::new(enriched.event.token_type, sighting.device);
        return Baseline::new(observation.baseline, kind, sighting.at);
    };
    let mut baseline = Baseline::new(observation.baseline, seed.kind, sighting.at);
    // The first visit counts as the owner's, because there was nothing to compare it with.
    let first = seed.sighting(sighting);
    hour::learn_time(&mut baseline, &first, 1.0);
    net::learn_place(&mut baseline, &first, seed.site, 1.0);
    baseline.learn_client(&first, 1.0);
    (baseline.networks, baseline.hosting_networks) = (1, u8::from(seed.hosting));
    let mut holder = Holder::born(first.network, first.family, seed.first_at, NetLevel::KnownAddress);
    holder.last_at = seed.last_at;
    baseline.put_holder(0, holder);
    baseline.visits = 1;
    baseline.last_at = seed.last_at;
    baseline
}

/// Whether `at` is later than the allowed lateness. An event ahead of the stream time had a wrong clock if the next three
/// events of the baseline are late. The time of the baseline is then set back to `at`.
fn check_lateness(lesson: &mut Lesson, at: i64, newest: i64, lateness_ms_max: i64) -> bool {
    let late = at < lesson.last_at - lateness_ms_max;
    let after_wrong_clock = late && lesson.last_at > newest + lateness_ms_max;
    lesson.behind = if after_wrong_clock { lesson.behind + 1 } else { 0 };
    if lesson.behind >= BEHIND_MAX {
        (lesson.last_at, lesson.latest) = (at, at);
        lesson.behind = 0;
        lesson.hour.number = lesson.hour.number.min((at / HOUR_MS) as u32);
        return false;
    }
    late
}

/// The visit that the event continues, with its number.
fn find_visit<'a>(baseline: &Baseline, visits: &'a Visits, sighting: &Sighting) -> Option<(NonZeroU32, &'a Visit)> {
    let mut open = baseline.visits_of(sighting.visit, sighting.at).map(|number| (number, visits.get(number)));
    open.find(|(_, visit)| {
        let near = sighting.at < visit.last_at + VISIT_GAP_MS && sighting.at > visit.began - VISIT_GAP_MS;
        visit.key == sighting.visit && visit.baseline == baseline.key && near
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visit_is_found_by_its_whole_key() {
        let (home, mut visits) = (crate::memory::tests::sighting(), Visits::new(10));
        let mut baseline = Baseline::new(1, Kind::new(crate::event::TokenType::ApiKey, home.device), home.at);
        let number = visits.open(&Core::begun(1, home.visit, home.at));
        baseline.begin_visit(home.visit, number);
        assert_eq!(find_visit(&baseline, &visits, &home).map(|(number, _)| number), Some(number));
        let alike = Sighting { visit: home.visit + 256, ..home };
        assert_eq!(baseline.visits_of(alike.visit, alike.at).next(), Some(number), "eight bits of the key are equal");
        assert!(find_visit(&baseline, &visits, &alike).is_none());
    }
}
