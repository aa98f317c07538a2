//! Learns the verdicts of people on incidents (`docs/decisions/0046-learning-from-feedback.md`).

use super::occurrence::baseline_key;
use super::state::State;
use crate::detector::{DetectorId, net};
use crate::enrichment::EnrichedEvent;
use crate::event::Kind;
use crate::memory::baseline::RouteCall;
use crate::memory::thieves::is_own;
use crate::memory::{Baseline, Feature, Holder, Memory, Nats, NetLevel, Review, Sighting, User};
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
    pub events: Vec<FeedbackEvent<'a>>,
    /// After `true`, the indexes of the events whose network and client family are a thief's, as [`find_thieves`] found
    /// them when the place of the feedback was written. `None`: they are found when the feedback is learnt.
    pub thieves: Option<Vec<u32>>,
}

/// An event of feedback.
#[derive(Clone, Debug)]
pub struct FeedbackEvent<'a> {
    /// Index in the record, which may have events that cannot be read.
    pub index: u32,
    pub event: EnrichedEvent<'a>,
}

impl FeedbackEvent<'_> {
    /// The values to learn. `None` if nothing is learnt: requests whose credential was not accepted, or perhaps not
    /// checked, can be sent without it.
    fn sighting(&self, newest: i64) -> Option<Sighting> {
        let event = &self.event.event;
        let is_accepted = !event.is_attempt() && !event.is_unchecked();
        Sighting::of(&self.event, event.timestamp.millis().min(newest)).filter(|_| is_accepted)
    }
}

/// Whether a state has learnt the feedback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learnt {
    Now,
    /// Nothing changes.
    Before,
}

/// Times of the first and the last event of feedback, milliseconds since the epoch.
#[derive(Clone, Copy)]
struct Span {
    since: i64,
    until: i64,
}

impl Span {
    /// A time after `newest`, or long before the other events, came from a wrong clock.
    fn of(feedback: &Feedback<'_>, newest: i64) -> Self {
        let until = feedback.until.min(newest);
        Self { since: feedback.since.clamp(until.saturating_sub(INCIDENT_MS_MAX), until), until }
    }
}

/// Learns feedback, with its place in the order of the events. The same feedback at the same place gives the same state.
///
/// After `benign` and `false`, places, clients and routes of its events are known as the owner's, and the incident is
/// closed. After `true`, they are not the owner's, and uses of the same user, network and client are evidence of theft.
pub fn learn_feedback(state: &mut State, feedback: &Feedback<'_>) -> Learnt {
    // Found before anything is learnt, because learning removes values.
    let found = if feedback.thieves.is_none() { find_thieves(state, feedback) } else { Vec::new() };
    if state.feedback.insert(feedback.id, ()) {
        return Learnt::Before;
    }
    state.counters.feedback += 1;
    let newest = state.clock.newest().unwrap_or(i64::MAX);
    let span = Span::of(feedback, newest);
    let thieves = feedback.thieves.as_ref().unwrap_or(&found);
    for reviewed in &feedback.events {
        let (memory, event) = (&mut state.memory, &reviewed.event);
        let Some(sighting) = reviewed.sighting(newest) else { continue };
        match feedback.judgement {
            Judgement::Benign | Judgement::False => learn_owner(memory, event, &sighting, span.until),
            Judgement::True => {
                forget_thief(memory, event, &sighting, span.since);
                if thieves.contains(&reviewed.index) {
                    mark_thief(memory, event, &sighting, span.until);
                }
            }
        }
    }
    if feedback.judgement != Judgement::True {
        state.incidents.close(feedback.incident);
    }
    Learnt::Now
}

/// Indexes of the events whose network and client family are a thief's, after feedback `true`. Without the baseline, none
/// is found: the owner may have used them.
#[must_use]
pub fn find_thieves(state: &State, feedback: &Feedback<'_>) -> Vec<u32> {
    if feedback.judgement != Judgement::True {
        return Vec::new();
    }
    let newest = state.clock.newest().unwrap_or(i64::MAX);
    let span = Span::of(feedback, newest);
    let is_thief = |reviewed: &&FeedbackEvent<'_>| {
        let sighting = reviewed.sighting(newest).filter(Sighting::has_place);
        sighting.is_some_and(|sighting| is_thief(&state.memory, &reviewed.event, &sighting, span.since))
    };
    feedback.events.iter().filter(is_thief).map(|reviewed| reviewed.index).collect()
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
        clear_evidence(holder, until);
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
fn clear_evidence(holder: &mut Holder, until: i64) {
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

/// Whether the network and the client family of an event are a thief's. `since`: time of the first event of the feedback,
/// milliseconds since the epoch.
fn is_thief(memory: &Memory, event: &EnrichedEvent<'_>, sighting: &Sighting, since: i64) -> bool {
    let key = baseline_key(&event.keys, memory);
    let Some(index) = memory.baselines.find(key) else { return false };
    let baseline = memory.baselines.get(index);
    let Unusual { network, client } = unusual_for_owner(baseline, sighting, since);
    (network || client) && !is_users(&memory.users.known(event.keys.user.unwrap_or(key)), baseline, sighting)
}

/// Whether other tokens of the user had the network before this one, and any had the client family. In doubt, they are the
/// user's: every use with them would be an alert.
fn is_users(user: &User, baseline: &Baseline, sighting: &Sighting) -> bool {
    let had_network = baseline.find_holder(sighting.network, sighting.family).is_none_or(|index| {
        let holder = &baseline.holders[index];
        match holder.level {
            // Earlier feedback has made it the owner's. The last feedback counts.
            _ if holder.review == Review::Owner => false,
            NetLevel::NewNetwork => false,
            // The user may have had the network in another country. The three values are learnt together.
            NetLevel::NewCountry => !user.has_country(sighting.country),
            NetLevel::KnownAddress | NetLevel::KnownPrefix | NetLevel::KnownNetwork | NetLevel::UsersNetwork => true,
        }
    });
    had_network && user.has_network(sighting.network) && user.has_family(sighting.family)
}

/// Removes what the baseline has learnt from an event of a thief. `since`: time of the first event of the feedback,
/// milliseconds since the epoch.
fn forget_thief(memory: &mut Memory, event: &EnrichedEvent<'_>, sighting: &Sighting, since: i64) {
    let key = baseline_key(&event.keys, memory);
    let Memory { baselines, others, .. } = memory;
    let Some(baseline) = baselines.get_mut(key) else { return };
    let unusual = unusual_for_owner(baseline, sighting, since);
    for (features, is_unusual) in [(OF_PLACE, unusual.network), (OF_CLIENT, unusual.client)] {
        for feature in features {
            let key = value(feature, sighting);
            // The owner may be in the same country.
            let is_thiefs = is_unusual && feature != Feature::Country;
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
}

/// Stores the user with the network and client family of a thief. `until`: time of the last event of the feedback,
/// milliseconds since the epoch.
fn mark_thief(memory: &mut Memory, event: &EnrichedEvent<'_>, sighting: &Sighting, until: i64) {
    let key = baseline_key(&event.keys, memory);
    let pair = Holder::born(sighting.network, sighting.family, sighting.at, NetLevel::NewNetwork);
    memory.thieves.insert(event.keys.user.unwrap_or(key), &pair, (until / MINUTE_MS) as u32);
    let Some(baseline) = memory.baselines.get_mut(key) else { return };
    let holders = baseline.holders.iter_mut();
    for holder in holders.filter(|holder| holder.network == pair.network && holder.family == pair.family) {
        holder.review = Review::Thief;
    }
}

/// Which values of an event are not the owner's.
struct Unusual {
    network: bool,
    client: bool,
}

/// Whether the network, and whether the client family, of an event are not the owner's. They are the owner's if another
/// holder had them a day before the theft, if this one did and they have the weight of two visits, or if they have the
/// weight of eight.
fn unusual_for_owner(baseline: &Baseline, sighting: &Sighting, since: i64) -> Unusual {
    let &Sighting { network, family, .. } = sighting;
    let is_older = |holder: &Holder| i64::from(holder.born) * MINUTE_MS < since - DAY_MS;
    let holder = baseline.find_holder(network, family).map(|index| &baseline.holders[index]);
    let is_young = holder.is_some_and(|holder| !is_older(holder));
    let of_others = |is_same: &dyn Fn(&Holder) -> bool| {
        let differs = |other: &Holder| other.network != network || other.family != family;
        baseline.holders.iter().any(|other| differs(other) && is_older(other) && is_same(other))
    };
    let is_unusual = |feature, key| {
        is_young && baseline.seen.count(feature, key) < OFTEN_VISITS || !is_own(&baseline.seen, feature, key)
    };
    Unusual {
        network: is_unusual(Feature::Network, network) && !of_others(&|other| other.network == network),
        client: is_unusual(Feature::Family, family) && !of_others(&|other| other.family == family),
    }
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
