//! Learns what people have found out about incidents (`docs/decisions/0046-learning-from-feedback.md`).

use super::occurrence::baseline_key;
use super::state::State;
use crate::detector::{DetectorId, net};
use crate::enrichment::EnrichedEvent;
use crate::event::Kind;
use crate::memory::baseline::RouteCall;
use crate::memory::thieves::is_own;
use crate::memory::{Baseline, Feature, Holder, Memory, Nats, NetLevel, Review, Sighting, Thieves, User};
use crate::millis::{DAY_MS, MINUTE_MS};
use crate::place::NetworkClass;
use crate::verdict::{IncidentId, Judgement};

/// Features of the place and of the client of a visit.
const OF_PLACE: [Feature; 4] = [Feature::Address, Feature::Prefix, Feature::Network, Feature::Country];
const OF_CLIENT: [Feature; 4] = [Feature::Agent, Feature::Version, Feature::Family, Feature::Fingerprint];
/// Detectors with evidence of calls. It stays if the holder was used after the events of the feedback.
const OF_CALLS: [DetectorId; 4] = [DetectorId::Route, DetectorId::Area, DetectorId::Volume, DetectorId::Lifecycle];

/// Maximum time from the first to the last event of feedback.
const INCIDENT_MS_MAX: i64 = 7 * DAY_MS;
/// Visits from which a value is the owner's, although the holder began less than a day before the incident.
const OFTEN_VISITS: f64 = 8.0;

/// The verdict of a person on an incident, and events of one subject that the incident contains.
#[derive(Clone, Debug)]
pub struct Feedback<'a> {
    /// Identity of the feedback: it is learnt once.
    pub id: u64,
    pub incident: IncidentId,
    pub judgement: Judgement,
    /// Times of the first and the last event of the subject in the incident, milliseconds since the epoch.
    pub since: i64,
    pub until: i64,
    /// One event of each place, client and route.
    pub events: Vec<EnrichedEvent<'a>>,
}

/// Whether a state has learnt the feedback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learnt {
    Now,
    /// Nothing changes.
    Before,
}

/// Learns feedback, with its place in the order of the events. The same feedback at the same place gives the same state.
///
/// After `benign` and `false`, places, clients and routes of its events are known as the owner's, and the incident is
/// closed. After `true`, they are not the owner's, and uses of the same user, network and client are evidence of theft.
pub fn learn_feedback(state: &mut State, feedback: &Feedback<'_>) -> Learnt {
    if state.feedback.insert(feedback.id, ()) {
        return Learnt::Before;
    }
    state.counters.feedback += 1;
    // A time in the future, or long before the other events, came from a wrong clock.
    let newest = state.clock.newest().unwrap_or(i64::MAX);
    let until = feedback.until.min(newest);
    let since = feedback.since.clamp(until.saturating_sub(INCIDENT_MS_MAX), until);
    for event in feedback.events.iter().filter(|event| !event.event.is_attempt()) {
        let Some(sighting) = Sighting::of(event, event.event.timestamp.millis().min(newest)) else { continue };
        match feedback.judgement {
            Judgement::Benign | Judgement::False => learn_owner(&mut state.memory, event, &sighting, until),
            Judgement::True => learn_thief(&mut state.memory, event, &sighting, (since, until)),
        }
    }
    if feedback.judgement != Judgement::True {
        state.incidents.close(feedback.incident);
    }
    Learnt::Now
}

/// Learns that an event was the owner's. `until`: time of the last event of the feedback, milliseconds since the epoch.
fn learn_owner(memory: &mut Memory, event: &EnrichedEvent<'_>, sighting: &Sighting, until: i64) {
    let key = baseline_key(&event.keys, memory);
    let user = event.keys.user.unwrap_or(key);
    let Memory { baselines, users, visits, others, thieves, .. } = memory;
    let pair = Holder::born(sighting.network, sighting.family, sighting.at, NetLevel::KnownAddress);
    thieves.remove(user, &pair);
    learn_user(users.entry(user, sighting.at), sighting);
    let Some(baseline) = baselines.get_mut(key) else { return };
    if sighting.has_place() && !baseline.seen.knows(Feature::Network, sighting.network) {
        baseline.networks = baseline.networks.saturating_add(1);
        let is_hosting = sighting.class != NetworkClass::Access;
        baseline.hosting_networks = baseline.hosting_networks.saturating_add(u8::from(is_hosting));
    }
    for feature in OF_PLACE.into_iter().chain(OF_CLIENT) {
        let key = value(feature, sighting);
        if key != 0 {
            baseline.seen.confirm(feature, key, sighting.minute());
        }
    }
    net::learn_site(baseline, sighting.site());
    if event.event.kind == Kind::Use && event.event.endpoint.is_some() {
        let route = others.templates.resolve(&event.route);
        learn_route(baseline, (route.key, route.area), sighting.minute());
    }
    let holders = baseline.holders.iter_mut();
    for holder in holders.filter(|holder| holder.network == pair.network && holder.family == pair.family) {
        acquit(holder, until);
    }
    let open: Vec<_> = baseline.visits_of(sighting.visit, baseline.last_at).collect();
    for number in open {
        let visit = visits.get_mut(number);
        if visit.key == sighting.visit && visit.baseline == baseline.key {
            (visit.silence, visit.app_fan, visit.ip_fan) = (0.0, 0.0, 0.0);
            (visit.between, visit.between_owner, visit.between_task) = (0.0, 0.0, 0.0);
        }
    }
}

fn learn_user(user: &mut User, sighting: &Sighting) {
    let &Sighting { network, family, country, .. } = sighting;
    let is_new = |key: u32, is_known: bool| key != 0 && !is_known;
    if is_new(network, user.has_network(network))
        || is_new(family, user.has_family(family))
        || is_new(country, user.has_country(country))
    {
        user.learn(network, family, country);
    }
}

fn learn_route(baseline: &mut Baseline, (route, area): (u32, u32), minute: u32) {
    if !baseline.seen.knows(Feature::Route, route) {
        baseline.learn_route(RouteCall { route, is_rare: false, minute }, 1.0, 1.0);
        baseline.seen.confirm(Feature::Route, route, minute);
    }
    if !baseline.knows_area(area)
        && let Some(grown) = &mut baseline.grown
    {
        grown.areas.enter(area);
    }
    if !baseline.seen.knows(Feature::Area, area) {
        baseline.learn_area(area, 1.0, 1.0, minute);
        baseline.seen.confirm(Feature::Area, area, minute);
    }
}

/// Removes the evidence against a holder. If it was used after `until`, the evidence of its calls stays: the feedback is
/// not about the later calls.
fn acquit(holder: &mut Holder, until: i64) {
    let before = *holder;
    holder.confirm();
    holder.level = NetLevel::KnownAddress;
    if before.last_at > until {
        let of_calls = OF_CALLS.map(|detector| (detector, before.evidence[detector]));
        holder.evidence = before.evidence;
        holder.evidence.travel = Nats::default();
        holder.evidence.sums = Default::default();
        for (detector, nats) in of_calls {
            holder.evidence[detector] = nats;
        }
        holder.lifecycle_rule = before.lifecycle_rule;
    }
}

/// Learns that an event was a thief's, and removes what was learnt from it. `since` and `until`: times of the first and the
/// last event of the feedback, milliseconds since the epoch.
fn learn_thief(memory: &mut Memory, event: &EnrichedEvent<'_>, sighting: &Sighting, (since, until): (i64, i64)) {
    let key = baseline_key(&event.keys, memory);
    let user = event.keys.user.unwrap_or(key);
    let Memory { baselines, others, thieves, .. } = memory;
    let pair = Holder::born(sighting.network, sighting.family, sighting.at, NetLevel::NewNetwork);
    let minute = (until / MINUTE_MS) as u32;
    let Some(baseline) = baselines.get_mut(key) else {
        if sighting.has_place() {
            thieves.insert(user, &pair, minute);
        }
        return;
    };
    let (place, client) = strange(baseline, &pair, since);
    for (features, is_strange) in [(OF_PLACE, place), (OF_CLIENT, client)] {
        for feature in features {
            let key = value(feature, sighting);
            // The owner may be in the same country.
            let is_thiefs = is_strange && feature != Feature::Country;
            if is_thiefs || !is_own(&baseline.seen, feature, key) {
                baseline.seen.forget(feature, key);
            }
        }
    }
    let route = others.templates.resolve(&event.route);
    for (feature, key) in [(Feature::Route, route.key), (Feature::Area, route.area)] {
        if !is_own(&baseline.seen, feature, key) {
            baseline.seen.forget(feature, key);
        }
    }
    if sighting.has_place() && (place || client) {
        accuse(thieves, user, baseline, &pair, minute);
    }
}

fn accuse(thieves: &mut Thieves, user: u64, baseline: &mut Baseline, pair: &Holder, minute: u32) {
    thieves.insert(user, pair, minute);
    let holders = baseline.holders.iter_mut();
    for holder in holders.filter(|holder| holder.network == pair.network && holder.family == pair.family) {
        holder.review = Review::Thief;
    }
}

/// Whether the network, and whether the client family, of a thief are not the owner's. They are the owner's if another
/// holder had them a day before the theft, if this one did and they have the weight of two visits, or if they have the
/// weight of eight.
fn strange(baseline: &Baseline, pair: &Holder, since: i64) -> (bool, bool) {
    let is_older = |holder: &Holder| i64::from(holder.born) * MINUTE_MS < since - DAY_MS;
    let holder = baseline.find_holder(pair.network, pair.family).map(|index| &baseline.holders[index]);
    let is_young = holder.is_some_and(|holder| !is_older(holder));
    let of_others = |is_same: fn(&Holder, &Holder) -> bool| {
        let differs = |other: &Holder| other.network != pair.network || other.family != pair.family;
        baseline.holders.iter().any(|other| differs(other) && is_older(other) && is_same(other, pair))
    };
    let is_strange = |feature, key| {
        is_young && baseline.seen.count(feature, key) < OFTEN_VISITS || !is_own(&baseline.seen, feature, key)
    };
    let place = is_strange(Feature::Network, pair.network) && !of_others(|one, other| one.network == other.network);
    let client = is_strange(Feature::Family, pair.family) && !of_others(|one, other| one.family == other.family);
    (place, client)
}

/// Key of a feature of a visit. 0: unknown.
const fn value(feature: Feature, sighting: &Sighting) -> u32 {
    match feature {
        Feature::Address => sighting.address_in(sighting.country),
        Feature::Prefix => sighting.prefix_in(sighting.country),
        Feature::Network => sighting.network,
        Feature::Country => sighting.country,
        Feature::Agent => sighting.agent,
        Feature::Version => sighting.version,
        Feature::Family => sighting.family,
        Feature::Fingerprint => sighting.fingerprint,
        // They are not features of a visit.
        Feature::Route | Feature::Area => 0,
    }
}
