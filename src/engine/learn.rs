//! Learns an event after it is scored.

use crate::detector::{self, Lesson, Observation, Teaching};
use crate::memory::baseline::Grown;
use crate::memory::population::NewNetwork;
use crate::memory::{Baseline, Kind, Memory, Population, User, Visits};
use crate::millis::MINUTE_MS;

/// Visits from which a baseline stores seasons, schedules and areas.
const GROWN_VISITS: u32 = 24;

/// Learns an event. From the first write on, the event counts as learnt, even if a later step fails.
pub(crate) fn learn(memory: &mut Memory, observation: &Observation<'_>, lesson: &mut Lesson) {
    let Memory { baselines, users, visits, others, .. } = memory;
    let index = match lesson.fresh.take() {
        Some(fresh) => {
            baselines.seeds.remove(observation.baseline);
            baselines.insert(*fresh, others.tenants.pool(observation.sighting.tenant))
        }
        None => match observation.index {
            Some(index) => index,
            None => return,
        },
    };
    let baseline = baselines.at(index);
    let bytes_before = baseline.bytes();
    store(baseline, observation, lesson);
    store_visit(baseline, visits, observation, lesson);
    let mut teaching = Teaching::new(observation, lesson, baseline, others);
    detector::learn_event(&mut teaching);
    if lesson.begins_visit() {
        let user = users.entry(observation.user, observation.sighting.at.min(observation.now));
        detector::learn_visit(&mut teaching, user);
        let owner = teaching.weights().counted;
        learn_user(user, &mut others.population, observation, lesson.kind, owner);
        baseline.visits = baseline.visits.saturating_add(1);
        if baseline.visits == GROWN_VISITS {
            baseline.grown = Some(Box::new(Grown::after(baseline.visits)));
        }
        baselines.visited(index, others.tenants.pool(observation.sighting.tenant));
    } else if baseline.bytes() != bytes_before {
        baselines.resized(index);
    }
}

/// Stores the times and holders of the baseline.
fn store(baseline: &mut Baseline, observation: &Observation<'_>, lesson: &Lesson) {
    baseline.last_at = lesson.last_at.max(observation.sighting.at);
    baseline.behind = lesson.behind;
    if let Some((index, other)) = lesson.other {
        baseline.holders[index] = other;
    }
    if lesson.latest != i64::MAX {
        for holder in &mut *baseline.holders {
            holder.last_at = lesson.last_at_of(holder);
        }
    }
    baseline.put_holder(lesson.holder_index, lesson.holder);
}

/// Stores the visit.
fn store_visit(baseline: &mut Baseline, visits: &mut Visits, observation: &Observation<'_>, lesson: &Lesson) {
    let number = if let Some(number) = lesson.number {
        visits.get_mut(number).core = lesson.visit;
        number
    } else {
        let number = visits.open(&lesson.visit);
        baseline.begin_visit(lesson.visit.key, number);
        number
    };
    if lesson.further_route {
        visits.get_mut(number).count_further(observation.route.key);
    }
    if lesson.further_area {
        visits.get_mut(number).enter_further(observation.route.area);
    }
}

/// Learns network, client family and country of a visit for its user.
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
        let network =
            NewNetwork { network: sighting.network, country: sighting.country, is_known_user: user.is_known() };
        population.learn_network(*tenant, network, owner);
    }
    if !user.has_family(sighting.family) {
        population.learn_family(*tenant, sighting.app, token_type, sighting.family, owner);
    }
    if owner > 0.5 {
        user.learn(sighting.network, sighting.family, sighting.country);
    }
}

/// Confirms the holders up to `at` (milliseconds since the epoch) as the owner: their evidence is removed, also that of
/// new network and client. Their further events are learnt in full.
pub(crate) fn confirm(baseline: &mut Baseline, at: i64) {
    for holder in baseline.holders.iter_mut().filter(|holder| i64::from(holder.born) * MINUTE_MS <= at) {
        holder.confirm();
    }
}
