//! `hour`: the hour of the day and the phase of a schedule. Scored once per visit.

pub(crate) mod formula;

use super::words::{Description, Signals, Words, hours_text};
use super::{Case, Detector, DetectorId, Fading, Lesson, Teaching};
use crate::math::faded;
use crate::memory::level::NetLevel;
use crate::memory::seen::sixteenths;
use crate::memory::{Baseline, Evidence, Nats, Sighting, User};
use crate::verdict::RuleId;

/// Visits from which weekends have separate hours.
const WEEKEND_VISITS: u32 = 200;
/// When the visits exceed this number, all counts are halved.
const VISITS_MAX: u32 = 400;
/// If the owner's probability of the hour is higher, the evidence comes from an earlier visit.
const ORDINARY_P: f64 = 0.2;

pub(crate) struct Hour;

impl Detector for Hour {
    const ID: DetectorId = DetectorId::Hour;
    const OF_IDENTITY: bool = true;

    #[inline]
    fn score_visit(case: &Case<'_>, lesson: &mut Lesson) {
        let Case { observation, baseline, others, .. } = *case;
        let sighting = observation.sighting;
        if !observation.timed {
            return;
        }
        let of_phase = baseline.grown.as_ref().map_or(0.0, |grown| {
            formula::phase(sighting.at, &grown.phases, formula::effective_visits(baseline.visits))
        });
        let shift = if lesson.visit.net_level == NetLevel::NewCountry { hours_east(baseline, sighting) } else { 0 };
        let population = others.population.share_of_hour(observation.tenant);
        let own = own_hours(baseline, sighting);
        let hour = formula::evidence(sighting.hour(), &own, population, of_phase, shift);
        let left = faded(case.days_away(lesson), 1.0);
        let before = lesson.holder.evidence[Self::ID].get() * left;
        lesson.holder.evidence[Self::ID] = Nats::new(formula::carried(before, left, hour.sum()));
        lesson.visit.hour_p = hour.p_value as f32;
    }

    fn fade(_: &mut Evidence, _: &Fading) {
        // `score_visit` decays it.
    }

    #[inline]
    fn learn_visit(teaching: &mut Teaching<'_>, _: &User) {
        let (observation, weights) = (teaching.observation, teaching.weights());
        learn_time(teaching.baseline, observation.sighting, weights.known);
        teaching.population.learn_hour(observation.tenant, observation.sighting.hour(), weights.counted);
    }

    fn explain(words: &Words<'_>, signals: &mut Signals<'_>) {
        let share = words.unexplained * words.score.shares[Self::ID];
        signals.add(RuleId::UnusualTime, share, || describe(words));
    }
}

/// Learns the time of a visit with the weight `owner`, the probability that the visit was the owner's.
pub(crate) fn learn_time(baseline: &mut Baseline, sighting: &Sighting, owner: f64) {
    let hour = sighting.hour();
    let weekend = baseline.visits >= WEEKEND_VISITS && sighting.is_weekend();
    if let Some(grown) = &mut baseline.grown {
        for (sum, period) in grown.phases.iter_mut().zip(formula::PERIODS_MS) {
            let (x, y) = formula::vector(sighting.at, period);
            let fade = |before: f32, new: f64| (f64::from(before) * formula::PHASE_FADE + owner * new) as f32;
            *sum = (fade(sum.0, x), fade(sum.1, y));
        }
        if sighting.is_weekend() && owner > 0.5 {
            grown.weekend[hour] = grown.weekend[hour].saturating_add(1);
        }
    }
    if !weekend {
        if baseline.hours.iter().map(|count| u32::from(*count)).sum::<u32>() > VISITS_MAX * 16 {
            baseline.hours = baseline.hours.map(|count| count / 2);
        }
        baseline.hours[hour] = baseline.hours[hour].saturating_add(sixteenths(owner, hour as u32, sighting.minute()));
    }
}

/// Past visits by UTC hour, in sixteenths.
pub(crate) fn own_hours(baseline: &Baseline, sighting: &Sighting) -> [u16; 24] {
    match &baseline.grown {
        Some(grown) if baseline.visits >= WEEKEND_VISITS && sighting.is_weekend() => {
            grown.weekend.map(|count| u16::from(count) * 16)
        }
        _ => baseline.hours,
    }
}

/// Number of time zones by which this place lies to the east of the owner's farthest place.
fn hours_east(baseline: &Baseline, sighting: &Sighting) -> i32 {
    let here = sighting.site();
    let home = baseline.sites.iter().filter(|site| site.exists());
    let home = home.max_by(|a, b| a.distance_km(&here).total_cmp(&b.distance_km(&here)));
    match home {
        Some(home) if here.exists() => here.hours_east_of(home),
        _ => 0,
    }
}

fn describe(words: &Words<'_>) -> Description {
    let hour = words.observation.sighting.hour();
    let expected = usual_hours(words.baseline);
    let hour_p = f64::from(words.lesson.visit.hour_p);
    let (observed, reason) = if hour_p > ORDINARY_P {
        let reason = ["used at unusual hours in earlier visits; usually ", &expected].concat();
        ("unusual hours in earlier visits".to_owned(), reason)
    } else {
        let observed = hours_text(hour, (hour + 1) % 24);
        let reason = ["used at an unusual time, ", &observed, "; usually ", &expected].concat();
        (observed, reason)
    };
    Description { p_value: Some(hour_p), observed, expected, reason }
}

/// The shortest range of hours with at least 90 % of the visits: `08:00 to 17:00 UTC`.
fn usual_hours(baseline: &Baseline) -> String {
    let hours = &baseline.hours;
    let total: u32 = hours.iter().map(|count| u32::from(*count)).sum();
    if total == 0 {
        return "the hours of the user's other tokens".to_owned();
    }
    // Two pointers on two days: for each first hour, the end of the shortest range that holds 90 %.
    let at: [u32; 48] = std::array::from_fn(|hour| hours[hour % 24].into());
    let (mut end, mut visits) = (0, 0);
    let ranges = (0..24).map(|start| {
        while visits * 10 < total * 9 {
            visits += at[end];
            end += 1;
        }
        visits -= at[start];
        (end - start, start)
    });
    match ranges.min() {
        Some((length @ ..24, start)) => hours_text(start, (start + length) % 24),
        _ => "any hour".to_owned(),
    }
}
