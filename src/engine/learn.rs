//! What is learnt of an event, by the probability that it was the owner's: a thief teaches little.

use super::lesson::{Came, EndedHour, Learns, Lesson};
use super::score::Observation;
use crate::math::{ln, sigma};
use crate::memory::baseline::{Grown, Habit, Hour};
use crate::memory::cohort::Hourly;
use crate::memory::seen::sixteenths;
use crate::memory::{
    Baseline, Evidence, Feature, Kind, Memory, Nats, Others, Population, Sighting, User, Visit, Visits,
};
use crate::place::NetworkClass;
use crate::term::{self, lifecycle, net};

/// Visits from which seasons and schedules are looked for, and weekends kept apart.
const GROWN_VISITS: u32 = 24;
pub(crate) const WEEKEND_VISITS: u32 = 200;

/// The least weight of a sighting: what goes on, alarms and all, and is neither taken away nor confirmed is the owner's,
/// and must not alarm for ever. A place is known after some seventeen visits of a holder, in as many hours of the clock:
/// a crowd of clients in one minute has gone on for no longer than one of them.
const OWNER_MIN: f64 = 0.03;

/// Probability by which a sighting is learnt as the owner's.
pub(crate) fn owner(log_odds: f64) -> f64 {
    Weights::of(log_odds, false).counted
}

/// Probability that an event was the owner's: for what is counted in full numbers, and for what then is known.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Weights {
    counted: f64,
    known: f64,
}

impl Weights {
    fn of(log_odds: f64, gone_on: bool) -> Self {
        let sure = sigma(-log_odds);
        let counted = sure.max(OWNER_MIN);
        Self { counted, known: if gone_on { counted } else { sure } }
    }
}

/// Bin of the season: the UTC hour, weekdays before weekends.
pub(crate) const fn season_bin(hour: u32) -> usize {
    let weekend = matches!((hour / 24 + 4) % 7, 0 | 6);
    (hour % 24) as usize + if weekend { 24 } else { 0 }
}

/// Evidence of volume that is left in the next hour.
pub(crate) fn begin_hour(evidence: &mut Evidence) {
    for evidence in [&mut evidence.volume, &mut evidence.objects, &mut evidence.bytes] {
        *evidence = Nats::new(evidence.get() * term::volume::LATER_HOUR);
    }
}

/// The hour that is over, now that `next` (hours since the epoch) has begun, and what is learnt of it.
pub(crate) fn end_hour(baseline: &Baseline, hour: &Hour, next: u32) -> Option<EndedHour> {
    if hour.calls == 0 {
        return None;
    }
    let weight = owner(hour.log_odds_max.get());
    let mut habits = baseline.habits;
    let mut hourly = [None; 3];
    let mut learn = |what: Hourly, habit: &mut Habit, count: f64, off: f64, hours_max: f64| {
        if count > 0.0 {
            let value = ln(count) - off;
            let mean = if habit.hours > 0.0 { f64::from(habit.mean) } else { value };
            hourly[what as usize] = Some((value, mean));
            habit.learn(value, weight, hours_max);
        }
    };
    let bin = season_bin(hour.number);
    let before = baseline.grown.as_ref().map_or(0.0, |grown| f64::from(grown.season[bin]) / 16.0);
    let value = ln(f64::from(hour.calls));
    let mean = f64::from(habits.calls.mean);
    learn(Hourly::Calls, &mut habits.calls, f64::from(hour.calls), before, term::volume::CALL_HOURS_MAX);
    learn(Hourly::Objects, &mut habits.objects, hour.objects(), 0.0, term::volume::OBJECT_HOURS_MAX);
    learn(Hourly::Bytes, &mut habits.bytes, f64::from(hour.kilobytes), before, term::volume::CALL_HOURS_MAX);
    let season = (baseline.grown.is_some() && habits.calls.hours > 8.0).then(|| {
        // The season forgets a tenth (at weekends, which are rarer, a seventh) at each such hour, and begins at nothing.
        let rate = weight * if bin >= 24 { 0.15 } else { 0.1 };
        let season = before + rate * (value - mean - before);
        (bin, libm::round(season * 16.0) as i8)
    });
    habits.reads = (0.98 * f64::from(habits.reads) + weight * f64::from(hour.reads)) as f32;
    habits.all_calls = (0.98 * f64::from(habits.all_calls) + weight * f64::from(hour.calls)) as f32;
    let is_burst = f64::from(hour.burst) >= term::volume::BURST && weight > 0.5;
    let burst_day = if is_burst { (hour.number / 24) as u16 } else { baseline.burst_day };
    let reads = f64::from(hour.reads) / f64::from(hour.calls);
    Some(EndedHour { habits, burst_day, season, hourly, reads, weight, last_of_day: hour.number / 24 != next / 24 })
}

/// Takes in an event. From the first line on it counts, whatever becomes of the rest.
pub(crate) fn learn(memory: &mut Memory, observation: &Observation<'_>, lesson: &mut Lesson) {
    let Memory { baselines, users, visits, others, .. } = memory;
    let kind = lesson.kind;
    let (fresh, begins_visit) = (lesson.fresh.take(), lesson.begins_visit());
    let is_new = fresh.is_some();
    let place = match fresh {
        Some(fresh) => {
            baselines.seeds.remove(observation.baseline);
            baselines.insert(*fresh)
        }
        None => match observation.place {
            Some(place) => place,
            None => return,
        },
    };
    let baseline = baselines.at(place);
    let visit = learn_scored(baseline, visits, observation, lesson);
    learn_of_others(others, observation, lesson);
    let hour = &mut baseline.hour;
    hour.log_odds_max = hour.log_odds_max.max(Nats::new(lesson.log_odds));
    // Most events are repeats, which show nothing to be weighed.
    let learns = &lesson.learns;
    if learns.route > 0.0 || learns.area || begins_visit {
        let weights = Weights::of(lesson.log_odds, lesson.gone_on);
        learn_call(baseline, others, (observation, lesson), weights);
        if begins_visit {
            let user = users.entry(observation.user, observation.sighting.at.min(observation.now));
            learn_visit(baseline, user, others, (observation, lesson, visit), weights);
        }
    }
    if learns.active_ms > 0 || learns.switch.is_some() {
        let switched = learns.switch.unwrap_or(0.0);
        baseline.activity.learn(switched, learns.active_ms);
        if let Some(cohorts) = others.cohorts.of_mut(observation.tenant.seat) {
            cohorts.learn_activity(kind, switched, f64::from(learns.active_ms) / 60_000.0);
        }
    }
    baseline.last_at = baseline.last_at.max(observation.sighting.at);
    if !lesson.late && observation.sighting.has_place() {
        baseline.network = observation.sighting.network;
    }
    if is_new {
        baselines.fit(observation.sighting.at);
    }
}

/// Stores what scoring found of the holder, the hour and the visit.
fn learn_scored<'a>(
    baseline: &mut Baseline,
    visits: &'a mut Visits,
    observation: &Observation<'_>,
    lesson: &Lesson,
) -> &'a Visit {
    (baseline.last_at, baseline.behind) = (lesson.last_at, lesson.behind);
    if let Some((place, other)) = lesson.other {
        baseline.holders[place] = other;
    }
    if lesson.latest != i64::MAX {
        for holder in &mut *baseline.holders {
            holder.last_at = lesson.last_at_of(holder);
        }
    }
    if lesson.hour_begins {
        baseline.holders.iter_mut().for_each(|holder| begin_hour(&mut holder.evidence));
    }
    baseline.put_holder(lesson.held, lesson.holder);
    baseline.hour = lesson.hour;
    if let Some(ended) = &lesson.ended_hour {
        (baseline.habits, baseline.burst_day) = (ended.habits, ended.burst_day);
        if let (Some(grown), Some((bin, mean))) = (&mut baseline.grown, ended.season) {
            grown.season[bin] = mean;
        }
    }
    if let Some(refreshes) = &lesson.refreshes {
        **baseline.refreshes.get_or_insert_default() = refreshes.clone();
    }
    (baseline.token, baseline.binding) = (lesson.token, lesson.binding);
    baseline.binding_streak = lesson.binding_streak;
    let number = if let Some(number) = lesson.number {
        visits.get_mut(number).core = lesson.visit;
        number
    } else {
        let number = visits.open(&lesson.visit);
        baseline.begin_visit(lesson.visit.key, number);
        number
    };
    let visit = visits.get_mut(number);
    if lesson.further_route {
        visit.count_further(observation.enriched.route.key);
    }
    if lesson.further_area {
        visit.enter_further(observation.enriched.route.area);
    }
    visit
}

/// What was put off until the event counts: hours, bursts and company.
fn learn_of_others(others: &mut Others, observation: &Observation<'_>, lesson: &Lesson) {
    let Others { cohorts, fleets, bursts, .. } = others;
    let (&Sighting { app, at, .. }, tenant) = (observation.sighting, observation.tenant);
    if let &Some(EndedHour { hourly, reads, weight, last_of_day, .. }) = &lesson.ended_hour {
        if let Some(cohorts) = cohorts.of_mut(tenant.seat) {
            for (what, counted) in [Hourly::Calls, Hourly::Objects, Hourly::Bytes].into_iter().zip(hourly) {
                if let Some((value, mean)) = counted {
                    cohorts.learn_hourly(lesson.kind, what, value, mean, weight);
                }
            }
            cohorts.learn_reads(lesson.kind, reads, weight);
        }
        if last_of_day {
            bursts.token_day(tenant.seat);
        }
    }
    if let Some((from, to)) = lesson.learns.burst {
        bursts.learn(tenant, observation.day(), from, to);
    }
    match &lesson.learns.came {
        Came::Nowhere => {}
        Came::Home => fleets.at_home(app, tenant, at.min(observation.now)),
        &Came::Among { member, groups } => {
            groups.into_iter().flatten().for_each(|group| fleets.join(group, member, observation.now));
        }
    }
}

/// Takes in what was called.
fn learn_call(
    baseline: &mut Baseline,
    others: &mut Others,
    (observation, lesson): (&Observation<'_>, &Lesson),
    weights: Weights,
) {
    let &Lesson { kind, ref learns, .. } = lesson;
    let Observation { sighting, enriched, .. } = observation;
    let tenant = observation.tenant;
    let Others { population, cohorts, .. } = others;
    let mut cohorts = cohorts.of_mut(tenant.seat);
    let Weights { counted, known } = weights;
    let minute = sighting.minute();
    if learns.route > 0.0 {
        let weight = learns.route / term::route::weight(1);
        let route = enriched.route.key;
        if learns.route >= term::route::weight(1)
            && baseline.visits > 3
            && let Some(cohorts) = &mut cohorts
        {
            cohorts.learn_route(kind, !baseline.seen.knows(Feature::Route, route), learns.nobodys, counted);
        }
        baseline.learn_route(route, learns.nobodys, counted * weight, known * weight, minute);
        population.learn_route(tenant, sighting.app, sighting.family, route, learns.promise, counted * weight);
    }
    if learns.area {
        let area = enriched.route.area;
        let new = !baseline.seen.knows(Feature::Area, area);
        baseline.learn_area(area, counted, known, minute);
        population.learn_area(sighting.tenant, area, counted);
        if baseline.visits > 3
            && let Some(cohorts) = cohorts
        {
            cohorts.learn_area(kind, new, counted);
        }
    }
}

/// Takes those who held the token up to `at` for the owner: nothing is held against them any more, nor that their
/// network and client are new, so that what they do from then on is learnt in full.
pub(crate) fn confirm(baseline: &mut Baseline, at: i64) {
    for holder in baseline.holders.iter_mut().filter(|holder| i64::from(holder.born) * 60_000 <= at) {
        holder.confirm();
    }
}

/// Takes in where, when and with what a visit took place.
fn learn_visit(
    baseline: &mut Baseline,
    user: &mut User,
    others: &mut Others,
    (observation, lesson, visit): (&Observation<'_>, &Lesson, &Visit),
    Weights { counted, known }: Weights,
) {
    let &Lesson { kind, learns: Learns { first, .. }, .. } = lesson;
    let Others { population, cohorts, .. } = others;
    let (sighting, seat) = (observation.sighting, observation.tenant.seat);
    let mut cohorts = cohorts.of_mut(seat);
    let (net_level, client_level) = (usize::from(visit.net_level), usize::from(visit.client_level));
    let hosting = sighting.class != NetworkClass::Access;
    if (!first || user.is_known())
        && let Some(cohorts) = &mut cohorts
    {
        let net_level = sighting.has_place().then_some(net_level);
        cohorts.learn_visit(kind, baseline.visits, net_level, client_level, counted);
    }
    if !first {
        if sighting.has_place() {
            baseline.net_levels.learn(net_level, known, sighting.minute());
        }
        baseline.client_levels.learn(client_level, known, sighting.minute());
        if net_level >= net::level::NEW_NETWORK
            && sighting.class != NetworkClass::Anonymiser
            && let Some(journey) = net::journey(&baseline.sites, &sighting.site)
        {
            population.fast_travel[usize::from(hosting)].learn(seat, journey.too_fast(), counted);
        }
    }
    if sighting.has_place() && !baseline.seen.knows(Feature::Network, sighting.network) && counted > 0.5 {
        baseline.networks = baseline.networks.saturating_add(1);
        baseline.hosting_networks = baseline.hosting_networks.saturating_add(u8::from(hosting));
        if let Some(cohorts) = cohorts {
            cohorts.learn_network(kind, hosting, counted);
        }
    }
    if sighting.fingerprint != 0 && !baseline.seen.knows(Feature::Fingerprint, sighting.fingerprint) {
        population.learn_fingerprint(sighting.fingerprint, sighting.family, counted);
    }
    baseline.learn_place(sighting, known);
    learn_times(baseline, sighting, known);
    population.learn_hour(observation.tenant, sighting.hour(), counted);
    let event = &observation.enriched.event;
    if let Some(expiry) = observation.expiry
        && expiry.said_at_issue
        && lifecycle::Answer::of(event.status, false) == lifecycle::Answer::Accepted
    {
        population.learn_outlived(
            sighting.tenant,
            sighting.app,
            expiry.is_over(sighting.at - observation.ahead),
            counted,
        );
    }
    let recent = user.days_since_change(sighting.at).is_some_and(|days| days <= term::credential::DAYS_MAX);
    population.after_change.learn(seat, recent, counted);
    learn_user(user, population, observation, kind, counted);
    baseline.visits = baseline.visits.saturating_add(1);
    if baseline.visits == GROWN_VISITS {
        baseline.grown = Some(Box::new(Grown::default()));
    }
}

/// Takes in a visit as one of its user's.
pub(crate) fn learn_user(
    user: &mut User,
    population: &mut Population,
    observation: &Observation<'_>,
    kind: Kind,
    owner: f64,
) {
    let Observation { sighting, tenant, .. } = observation;
    let token_type = kind.token_type();
    if sighting.has_place() && !user.has_network(sighting.network) {
        population.learn_network(*tenant, sighting.network, sighting.country, user.is_known(), owner);
    }
    if !user.has_family(sighting.family) {
        population.learn_family(*tenant, sighting.app, token_type, sighting.family, owner);
    }
    if owner > 0.5 {
        user.learn(sighting.network, sighting.family, sighting.country);
    }
}

/// Takes in when a visit began, and where it was then.
pub(crate) fn learn_times(baseline: &mut Baseline, sighting: &Sighting, owner: f64) {
    let hour = sighting.hour();
    let weekend = baseline.visits >= WEEKEND_VISITS && sighting.is_weekend();
    if let Some(grown) = &mut baseline.grown {
        for (sum, period) in grown.phases.iter_mut().zip(term::hour::PERIODS_MS) {
            let (x, y) = term::hour::vector(sighting.at, period);
            let fade = |before: f32, new: f64| (f64::from(before) * term::hour::PHASE_FADE + owner * new) as f32;
            *sum = (fade(sum.0, x), fade(sum.1, y));
        }
        if sighting.is_weekend() && owner > 0.5 {
            grown.weekend[hour] = grown.weekend[hour].saturating_add(1);
        }
    }
    if !weekend {
        // 400 visits: then the older half of them counts half.
        if baseline.hours.iter().map(|count| u32::from(*count)).sum::<u32>() > 400 * 16 {
            baseline.hours = baseline.hours.map(|count| count / 2);
        }
        baseline.hours[hour] = baseline.hours[hour].saturating_add(sixteenths(owner, hour as u32, sighting.minute()));
    }
    if sighting.site.exists() && owner > 0.5 {
        let same = baseline.sites.iter().position(|site| site.exists() && site.distance_km(&sighting.site) < 50.0);
        // The eldest makes room.
        let place = same.unwrap_or(baseline.sites.len() - 1);
        baseline.sites[..=place].rotate_right(1);
        baseline.sites[0] = sighting.site;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_weight_makes_known_only_who_has_gone_on() {
        // Log-odds of 10: e^−10 for the owner.
        assert_eq!(Weights::of(10.0, true), Weights { counted: OWNER_MIN, known: OWNER_MIN });
        assert!(Weights::of(10.0, false).known < 1e-4, "a crowd of clients in one minute");
        let Weights { counted, known } = Weights::of(-7.0, false);
        assert!((counted - known).abs() < 1e-12 && known > 0.99, "an owner is learnt at once");
    }
}
