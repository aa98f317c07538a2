//! `volume`: calls, objects and bytes of the running hour. Calls and objects are scored at 8, 12, 16, 24, 32 … calls, and
//! bytes when they have doubled to more than the usual number.

pub(crate) mod formula;

use self::formula::{Causes, Reads};
use super::words::{Description, Signals, Words, whole};
use super::{Case, Detector, DetectorId, Fading, Lesson, Score, Standing, Teaching};
use crate::detector::lesson::EndedHour;
use crate::detector::teaching::owner;
use crate::math::{exp, ln};
use crate::memory::cohort::Hourly;
use crate::memory::hour::{Habit, Hour};
use crate::memory::{Baseline, Cohorts, Evidence, Nats};
use crate::millis::month_begins;
use crate::verdict::RuleId;

/// Calls per hour from which calls and objects are scored. Bytes are scored from the first call.
const CALLS_MIN: u32 = 8;

pub(crate) struct Volume;

impl Detector for Volume {
    const ID: DetectorId = DetectorId::Volume;

    /// Attempts are not counted.
    #[inline]
    fn score_event(case: &Case<'_>, lesson: &mut Lesson) {
        if !case.is_in_order(lesson) || case.observation.standing == Standing::Attempt {
            return;
        }
        let number = case.observation.sighting.hour_number();
        if number > lesson.hour.number {
            begin_hour(case, lesson, number);
        } else if number < lesson.hour.number {
            return;
        }
        let enriched = case.observation.enriched;
        let hour = &mut lesson.hour;
        hour.calls = hour.calls.saturating_add(1);
        hour.reads += u32::from(enriched.route.reads);
        let before = hour.kilobytes;
        hour.kilobytes += enriched.event.bytes_out.map_or(0.0, |bytes| bytes as f32 / 1024.0);
        if let Some(object) = case.observation.route.object {
            hour.touch(object);
        }
        if case.blank {
            return;
        }
        let doublings = Hour::doublings(hour.kilobytes);
        // A single response may be as large as those of a day, so bytes need no minimum number of calls.
        if doublings > Hour::doublings(before) && doublings >= hour.doublings_usual {
            score_bytes(case, lesson);
        }
        if is_scored(lesson.hour.calls) {
            score_calls(case, lesson);
        }
    }

    #[inline]
    fn evidence(lesson: &Lesson) -> f64 {
        let evidence = &lesson.holder.evidence;
        evidence[Self::ID].get() + formula::BYTES_WEIGHT * evidence.bytes.get()
    }

    fn leave_out(score: &mut Score) {
        let evidence = &mut score.evidence;
        (evidence[Self::ID], evidence.objects, evidence.bytes) = (Nats::default(), Nats::default(), Nats::default());
    }

    fn fade(evidence: &mut Evidence, fading: &Fading) {
        evidence[Self::ID] = fading.against_holder(evidence[Self::ID]);
        evidence.objects = fading.against_holder(evidence.objects);
        evidence.bytes = fading.against_holder(evidence.bytes);
    }

    #[inline]
    fn learn_event(teaching: &mut Teaching<'_>) {
        let (observation, lesson) = (teaching.observation, teaching.lesson);
        teaching.baseline.hour = lesson.hour;
        teaching.baseline.hour.log_odds_max = lesson.hour.log_odds_max.max(Nats::new(lesson.log_odds));
        if lesson.hour_begins {
            learn_beginning(teaching);
        }
        if let Some((from, to)) = lesson.learns.burst {
            teaching.bursts.learn(observation.tenant, observation.day(), from, to);
        }
    }

    fn explain(words: &Words<'_>, signals: &mut Signals<'_>) {
        let evidence = &words.score.evidence;
        let calls = evidence[Self::ID].get() - evidence.objects.get();
        signals.add(RuleId::VolumeSpike, calls, || describe_calls(words, calls));
        let objects = evidence.objects.get();
        signals.add(RuleId::Enumeration, objects, || describe_objects(words, objects));
        let bytes = evidence.bytes.get() * formula::BYTES_WEIGHT;
        signals.add(RuleId::BytesSpike, bytes, || describe_bytes(words, bytes));
    }
}

/// Whether calls and objects are scored at this call of the hour: at 8, 12, 16, 24, 32 and so on.
fn is_scored(calls: u32) -> bool {
    calls >= CALLS_MIN && (calls.is_power_of_two() || calls.is_multiple_of(3) && (calls / 3).is_power_of_two())
}

/// Ends the running hour and begins the hour `number` (hours since the epoch).
#[inline(never)] // Most events continue an hour.
fn begin_hour(case: &Case<'_>, lesson: &mut Lesson, number: u32) {
    let baseline = case.baseline;
    lesson.ended_hour = end_hour(baseline, &lesson.hour, number);
    let past = u64::from(baseline.first_minute) << 32 | u64::from(baseline.visits);
    lesson.hour = Hour::begin(number, past);
    let (mean, variance, hours) = hourly((baseline, lesson), case.cohorts, Hourly::Bytes, number);
    lesson.hour.doublings_usual = Hour::doublings(formula::usual(mean, variance, hours) as f32);
    lesson.hour_begins = true;
    keep_for_next_hour(&mut lesson.holder.evidence);
}

/// Learns that an hour has begun, and the one that has ended.
#[inline(never)] // Most events continue an hour.
fn learn_beginning(teaching: &mut Teaching<'_>) {
    let lesson = teaching.lesson;
    let others = teaching.baseline.holders.iter_mut().enumerate().filter(|(index, _)| *index != lesson.holder_index);
    others.for_each(|(_, holder)| keep_for_next_hour(&mut holder.evidence));
    let Some(ended) = &lesson.ended_hour else { return };
    let baseline = &mut *teaching.baseline;
    (baseline.habits, baseline.burst_day) = (ended.habits, ended.burst_day);
    if let (Some(grown), Some((bin, mean))) = (&mut baseline.grown, ended.season) {
        grown.season[bin] = mean;
    }
    if let Some(cohorts) = &mut teaching.cohorts {
        let hourly = [Hourly::Calls, Hourly::Objects, Hourly::Bytes].into_iter().zip(ended.hourly);
        for (what, (value, mean)) in hourly.filter_map(|(what, counted)| Some((what, counted?))) {
            cohorts.learn_hourly(lesson.kind, what, value, mean, ended.weight);
        }
        cohorts.learn_reads(lesson.kind, ended.reads, ended.weight);
    }
    if ended.last_of_day {
        teaching.bursts.token_day(teaching.observation.tenant.seat);
    }
}

/// Reduces the evidence of volume for the next hour.
fn keep_for_next_hour(evidence: &mut Evidence) {
    let later = |evidence: Nats| Nats::new(evidence.get() * formula::LATER_HOUR);
    evidence[Volume::ID] = later(evidence[Volume::ID]);
    (evidence.objects, evidence.bytes) = (later(evidence.objects), later(evidence.bytes));
}

/// Evidence of a burst, reduced for shared causes.
fn unshared(case: &Case<'_>, lesson: &Lesson, ratio: f64) -> f64 {
    if ratio <= 0.0 {
        // Most hours are no bursts.
        return 0.0;
    }
    let (tenant, day, bursts) = (case.observation.tenant, case.observation.day(), &case.others.bursts);
    let burst_day = lesson.ended_hour.as_ref().map_or(case.baseline.burst_day, |ended| ended.burst_day);
    let causes = Causes {
        usual: bursts.usual(tenant.seat, ratio),
        excess: bursts.excess(tenant, day),
        by_date: if formula::is_recurring(day, u32::from(burst_day)) {
            formula::RECURRING
        } else if month_begins(case.observation.sighting.at) {
            formula::MONTH_BEGINS
        } else {
            0.0
        },
    };
    formula::shared(ratio, &causes)
}

fn score_bytes(case: &Case<'_>, lesson: &mut Lesson) {
    let bytes = burst((case.baseline, lesson), case.cohorts, Hourly::Bytes);
    let bytes = Nats::new(unshared(case, lesson, bytes.ratio));
    let evidence = &mut lesson.holder.evidence;
    evidence.bytes = evidence.bytes.max(bytes);
}

fn score_calls(case: &Case<'_>, lesson: &mut Lesson) {
    let cohorts = case.cohorts;
    let [calls, objects] = [Hourly::Calls, Hourly::Objects].map(|what| burst((case.baseline, lesson), cohorts, what));
    let (of_calls, of_objects) = (unshared(case, lesson, calls.ratio), unshared(case, lesson, objects.ratio));
    let (hour, habits) = (&lesson.hour, lesson.habits(case.baseline));
    let reads = if of_calls.max(of_objects) > 0.0 {
        let of_hour = Reads { reads: hour.reads.into(), calls: hour.calls.into() };
        let own = Reads { reads: habits.reads.into(), calls: habits.all_calls.into() };
        formula::reads(of_hour, own, cohorts.reads(case.kind))
    } else {
        // The share of reads counts together with a burst only.
        0.0
    };
    let volume = Nats::new(formula::sum(of_calls, of_objects, reads));
    let evidence = &mut lesson.holder.evidence;
    if volume > evidence[Volume::ID] {
        evidence[Volume::ID] = volume;
        // The excess of objects over calls is reported as enumeration.
        let by_calls = formula::sum(of_calls, 0.0, reads);
        evidence.objects = Nats::new((volume.get() - by_calls).max(0.0));
        lesson.changed = true;
    }
    let largest = calls.ratio.max(objects.ratio);
    if largest > f64::from(lesson.hour.burst) && largest >= formula::BURST {
        lesson.learns.burst = Some((f64::from(lesson.hour.burst), largest));
        lesson.hour.burst = largest as f32;
    }
}

/// Bin of the season: the UTC hour of weekdays (0 to 23) or of weekends (24 to 47).
const fn season_bin(hour: u32) -> usize {
    let weekend = matches!((hour / 24 + 4) % 7, 0 | 6);
    (hour % 24) as usize + if weekend { 24 } else { 0 }
}

/// The ended hour with its contribution to habits and season. `next`: the hour that begins, hours since the epoch.
fn end_hour(baseline: &Baseline, hour: &Hour, next: u32) -> Option<EndedHour> {
    if hour.calls == 0 {
        return None;
    }
    let weight = owner(hour.log_odds_max.get());
    let mut habits = baseline.habits;
    let mut hourly = [None; 3];
    let mut learn = |what: Hourly, habit: &mut Habit, value: Option<f64>, hours_max: f64| {
        if let Some(value) = value {
            let mean = if habit.hours > 0.0 { f64::from(habit.mean) } else { value };
            hourly[what as usize] = Some((value, mean));
            habit.learn(value, weight, hours_max);
        }
    };
    let bin = season_bin(hour.number);
    let before = baseline.grown.as_ref().map_or(0.0, |grown| f64::from(grown.season[bin]) / 16.0);
    let value = ln(f64::from(hour.calls));
    let mean = f64::from(habits.calls.mean);
    let ln_of = |count: f64| (count > 0.0).then(|| ln(count));
    let (objects, bytes) = (ln_of(hour.objects()), ln_of(hour.kilobytes.into()));
    learn(Hourly::Calls, &mut habits.calls, Some(value - before), formula::CALL_HOURS_MAX);
    learn(Hourly::Objects, &mut habits.objects, objects, formula::OBJECT_HOURS_MAX);
    learn(Hourly::Bytes, &mut habits.bytes, bytes.map(|bytes| bytes - before), formula::CALL_HOURS_MAX);
    let season = (baseline.grown.is_some() && habits.calls.hours > 8.0).then(|| {
        // Exponential average with the rate 0.1, or 0.15 at weekends, because they are rarer. It begins at 0.
        let rate = weight * if bin >= 24 { 0.15 } else { 0.1 };
        let season = before + rate * (value - mean - before);
        (bin, libm::round(season * 16.0) as i8)
    });
    habits.reads = (0.98 * f64::from(habits.reads) + weight * f64::from(hour.reads)) as f32;
    habits.all_calls = (0.98 * f64::from(habits.all_calls) + weight * f64::from(hour.calls)) as f32;
    let is_burst = f64::from(hour.burst) >= formula::BURST && weight > 0.5;
    let burst_day = if is_burst { (hour.number / 24) as u16 } else { baseline.burst_day };
    let reads = f64::from(hour.reads) / f64::from(hour.calls);
    Some(EndedHour { habits, burst_day, season, hourly, reads, weight, last_of_day: hour.number / 24 != next / 24 })
}

/// Evidence of the running hour against the owner's hours.
fn burst((baseline, lesson): (&Baseline, &Lesson), cohorts: &Cohorts, what: Hourly) -> formula::Burst {
    let count = match what {
        Hourly::Calls => f64::from(lesson.hour.calls),
        Hourly::Objects => lesson.hour.objects(),
        Hourly::Bytes => f64::from(lesson.hour.kilobytes),
    };
    let (mean, variance, hours) = hourly((baseline, lesson), cohorts, what, lesson.hour.number);
    formula::evidence(count, mean, variance, hours)
}

/// Mean, variance and number of the owner's hours. The mean includes the season of the hour `number`.
fn hourly((baseline, lesson): (&Baseline, &Lesson), cohorts: &Cohorts, what: Hourly, number: u32) -> (f64, f64, f64) {
    let bin = season_bin(number);
    let changed = lesson.ended_hour.as_ref().and_then(|ended| ended.season).filter(|(of, _)| *of == bin);
    // Usual excess of this hour of the day over other hours, nats.
    let season = baseline
        .grown
        .as_ref()
        .map_or(0.0, |grown| f64::from(changed.map_or(grown.season[bin], |(_, mean)| mean)) / 16.0);
    let habits = lesson.habits(baseline);
    let (habit, season) = match what {
        Hourly::Calls => (&habits.calls, season),
        Hourly::Objects => (&habits.objects, 0.0),
        Hourly::Bytes => (&habits.bytes, season),
    };
    let (mean, variance, hours) = habit.with(cohorts.hourly(baseline.kind, what));
    (mean + season, variance, hours)
}

/// The owner's probability of an hour at least as large as the running one. `None` if the evidence comes from another
/// hour.
fn p_value(words: &Words<'_>, what: Hourly, share: f64) -> Option<f64> {
    let hour = &words.lesson.hour;
    let runs =
        hour.number == words.observation.sighting.hour_number() && (hour.calls >= CALLS_MIN || what == Hourly::Bytes);
    runs.then(|| burst((words.baseline, words.lesson), words.cohorts, what).p_value().min(exp(-share)))
}

fn usual(mean: f32) -> u64 {
    whole(exp(f64::from(mean)))
}

fn describe_calls(words: &Words<'_>, share: f64) -> Description {
    let (mut digits, mut of_hours) = (itoa::Buffer::new(), itoa::Buffer::new());
    let (calls, habit) = (words.lesson.hour.calls, &words.lesson.habits(words.baseline).calls);
    let observed = if calls < CALLS_MIN {
        "many calls in an earlier hour".to_owned()
    } else {
        [digits.format(calls), " calls this hour"].concat()
    };
    let mean = digits.format(usual(habit.mean));
    let expected = match whole(f64::from(habit.hours)) {
        0 => "few, as for similar tokens".to_owned(),
        1 => ["about ", mean, " (1 hour known)"].concat(),
        hours => ["about ", mean, " per hour (", of_hours.format(hours), " hours known)"].concat(),
    };
    let reason = ["unusually many calls: ", &observed, "; usually ", &expected].concat();
    Description { p_value: p_value(words, Hourly::Calls, share), observed, expected, reason }
}

fn describe_objects(words: &Words<'_>, share: f64) -> Description {
    let mut digits = itoa::Buffer::new();
    let objects = digits.format(whole(words.lesson.hour.objects()));
    let observed = ["about ", objects, " different objects this hour"].concat();
    let mean = words.lesson.habits(words.baseline).objects.mean;
    let expected = ["about ", digits.format(usual(mean)), " per hour"].concat();
    let reason = ["unusually many objects: ", &observed, "; usually ", &expected].concat();
    Description { p_value: p_value(words, Hourly::Objects, share), observed, expected, reason }
}

fn describe_bytes(words: &Words<'_>, share: f64) -> Description {
    let mut digits = itoa::Buffer::new();
    let kilobytes = digits.format(whole(f64::from(words.lesson.hour.kilobytes)));
    let observed = [kilobytes, " kB read this hour"].concat();
    let mean = words.lesson.habits(words.baseline).bytes.mean;
    let expected = ["about ", digits.format(usual(mean)), " kB per hour"].concat();
    let reason = ["unusually many bytes: ", &observed, "; usually ", &expected].concat();
    Description { p_value: p_value(words, Hourly::Bytes, share), observed, expected, reason }
}
