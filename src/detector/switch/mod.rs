//! `switch`: two holders alternate. Scored at each change of network within 60 minutes. At the beginning of a visit, the
//! silence of the previous holder is scored.

pub(crate) mod formula;

use super::words::{Description, Signals, Words, hundredths};
use super::{Case, Detector, DetectorId, Fading, Lesson, Teaching};
use crate::detector::hour::own_hours;
use crate::detector::teaching::owner;
use crate::memory::level::NetLevel;
use crate::memory::{Evidence, Nats};
use crate::verdict::RuleId;

const MINUTE_MS: f64 = 60_000.0;
const DAY_MS: f64 = 86_400_000.0;
/// Events that are older than the last of their baseline by more than this are out of order.
const ORDER_MS: i64 = 60_000;
/// A gap of this length or longer is a pause, not activity.
const PAUSE_MS: i64 = 30 * 60_000;
/// Maximum activity between two events.
const ACTIVE_MS_MAX: i64 = 10 * 60_000;
/// Visits from which changes of network count in full. Before, the client of a new grant may be in set-up.
const SETTLED_VISITS: f64 = 10.0;
/// Age of a baseline from which the silence of a holder is scored, days.
const BASELINE_DAYS_MIN: f64 = 3.0;

pub(crate) struct Switch;

impl Detector for Switch {
    const ID: DetectorId = DetectorId::Switch;
    const OF_IDENTITY: bool = true;

    #[inline]
    fn score_visit(case: &Case<'_>, lesson: &mut Lesson) {
        lesson.visit.silence = if case.is_in_order(lesson) { silence(case, lesson) as f32 } else { 0.0 };
    }

    #[inline]
    fn score_event(case: &Case<'_>, lesson: &mut Lesson) {
        let (sighting, baseline) = (case.observation.sighting, case.baseline);
        if !case.is_in_order(lesson) || sighting.at < lesson.last_at - ORDER_MS {
            return;
        }
        let gap_ms = (sighting.at - lesson.last_at).max(0);
        lesson.learns.active_ms = if gap_ms < PAUSE_MS { gap_ms.min(ACTIVE_MS_MAX) as u32 } else { 0 };
        let gap = gap_ms as f64 / MINUTE_MS;
        if sighting.has_place()
            && baseline.network != 0
            && baseline.network != sighting.network
            && gap < formula::GAP_MINUTES_MAX
        {
            score_change_of_network(case, lesson, gap);
        }
    }

    #[inline]
    fn evidence(lesson: &Lesson) -> f64 {
        lesson.holder.evidence[Self::ID].get() + f64::from(lesson.visit.silence)
    }

    fn fade(evidence: &mut Evidence, fading: &Fading) {
        evidence[Self::ID] = fading.slow(evidence[Self::ID]);
    }

    #[inline]
    fn learn_event(teaching: &mut Teaching<'_>) {
        let (observation, lesson) = (teaching.observation, teaching.lesson);
        let learns = &lesson.learns;
        if learns.active_ms > 0 || learns.switch.is_some() {
            let switched = learns.switch.unwrap_or(0.0);
            teaching.baseline.activity.learn(switched, learns.active_ms);
            if let Some(cohorts) = &mut teaching.cohorts {
                cohorts.learn_activity(lesson.kind, switched, f64::from(learns.active_ms) / MINUTE_MS);
            }
        }
        if !lesson.late && observation.sighting.has_place() {
            teaching.baseline.network = observation.sighting.network;
        }
    }

    /// One rule reports two alternating holders and rotating proxies: both are concurrent use.
    fn explain(words: &Words<'_>, signals: &mut Signals<'_>) {
        let score = words.score;
        let of_both = score.evidence[Self::ID].get() + score.shares[DetectorId::Sibling];
        signals.add(RuleId::ConcurrentUse, words.unexplained * of_both, || describe(words));
    }
}

/// Scores a change of network, `gap` minutes after the last event of the baseline.
#[inline(never)] // Most events are on the network of the last one.
fn score_change_of_network(case: &Case<'_>, lesson: &mut Lesson, gap: f64) {
    let (sighting, baseline) = (case.observation.sighting, case.baseline);
    let before = lesson.others(baseline).filter(|(_, other)| other.network == baseline.network);
    let before = before.max_by_key(|(_, other)| lesson.last_at_of(other));
    let mut younger = before.filter(|(_, other)| other.born > lesson.holder.born).map(|(at, other)| (at, *other));
    let settled = ((f64::from(baseline.visits) + 2.0) / SETTLED_VISITS).min(1.0);
    let (changes, active) = (baseline.activity.changes(), baseline.activity.minutes());
    let holder = younger.as_mut().map_or(&mut lesson.holder, |(_, other)| other);
    lesson.learns.switch = Some(owner(holder.log_odds.get()));
    if holder.level < NetLevel::KnownNetwork || holder.age_days(sighting.at) > formula::AGE_DAYS_MAX || case.blank {
        return;
    }
    holder.switches = holder.switches.saturating_add(1);
    let cohort = case.cohorts.switches(case.kind);
    let switch = formula::evidence(gap, changes, active, cohort, holder.switches);
    let sum = holder.evidence[Switch::ID].get() + settled * switch.share;
    holder.evidence[Switch::ID] = Nats::new(sum.clamp(-3.0, formula::SUM_MAX));
    lesson.other = younger;
    lesson.changed = true;
}

/// Evidence of the silence of the previous holder, for a holder of less than 10 days.
fn silence(case: &Case<'_>, lesson: &Lesson) -> f64 {
    let (sighting, baseline) = (case.observation.sighting, case.baseline);
    if !sighting.has_place() {
        return 0.0;
    }
    let holder = &lesson.holder;
    let is_young = holder.age_days(sighting.at) < formula::AGE_DAYS_MAX;
    let elsewhere = lesson.others(baseline).filter(|(_, other)| other.network != holder.network);
    let Some(last) = elsewhere.map(|(_, other)| lesson.last_at_of(other)).max() else { return 0.0 };
    let age_days = (sighting.at - i64::from(baseline.first_minute) * 60_000) as f64 / DAY_MS;
    if !is_young || holder.level < NetLevel::KnownNetwork || age_days < BASELINE_DAYS_MIN {
        return 0.0;
    }
    let visits_per_day = f64::from(baseline.visits) / age_days;
    let hours = own_hours(baseline, sighting);
    let total = hours.iter().map(|count| u32::from(*count)).sum::<u32>().max(16);
    // Sum over the hours since the last event, at most one week.
    let hours_since = ((sighting.at - last).max(0) / 3_600_000).min(168);
    let hour = sighting.at / 3_600_000;
    let spanned = (1..=hours_since).map(|back| u32::from(hours[((hour - back) % 24) as usize])).sum::<u32>();
    formula::silence(visits_per_day * f64::from(spanned) / f64::from(total))
}

fn describe(words: &Words<'_>) -> Description {
    let here = words.here();
    let mut digits = itoa::Buffer::new();
    let observed = match words.lesson.holder.switches {
        0 => "several suspicious networks within a day".to_owned(),
        1 => "1 change of network within 60 minutes".to_owned(),
        times => [digits.format(times), " changes of network, each within 60 minutes"].concat(),
    };
    let activity = words.baseline.activity;
    let an_hour = activity.changes() / activity.minutes().max(1.0) * 60.0;
    let expected = [&hundredths(an_hour), " changes of network per hour of activity"].concat();
    let reason = ["possibly two holders: ", &observed, ", last from ", &here, "; usually ", &expected].concat();
    Description { p_value: None, observed, expected, reason }
}
