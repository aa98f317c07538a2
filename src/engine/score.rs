//! One sighting against the past of its baseline: the terms in turn ([`super::turn`]) and their sum. What is learnt of
//! it afterwards is in [`super::learn`].

use std::num::NonZeroU32;

use super::Settings;
use super::failpoint::{Failpoint, failpoint};
use super::learn;
use super::lesson::Lesson;
use super::turn::{Turn, is_new_place, sibling};
use crate::enrichment::EnrichedEvent;
use crate::event::Kind as EventKind;
use crate::memory::baselines::{Place, Seed};
use crate::memory::visit::{Core, VISIT_GAP_MS};
use crate::memory::{
    Baseline, Ended, Evidence, Feature, Holder, Kind, Memory, Nats, Others, Seen, Sighting, Tenant, User, Visits,
};
use crate::place::NetworkClass;
use crate::term::lifecycle::Expiry;
use crate::term::{self, Shares, Term, client, net};
use crate::verdict::RuleId;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// So many late events in a row, and it was the one before them that was wrong.
const BEHIND_MAX: u8 = 3;

/// What a sighting counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A use of the token, or what counts like one: it is learnt.
    Use,
    /// Its credential was not accepted: it is scored and leaves no trace.
    Attempt,
    /// Its time is not believed: it is scored by what needs no time, and teaches nothing but its refresh token.
    Untimed,
}

/// One sighting, in its numbers.
pub(crate) struct Observation<'a> {
    pub enriched: &'a EnrichedEvent<'a>,
    /// At the event's own time where that is believed, else at the stream's.
    pub sighting: &'a Sighting,
    /// The sighting's.
    pub tenant: Tenant,
    pub standing: Standing,
    /// The sighting's time is the event's own.
    pub timed: bool,
    /// The stream's time, and the latest of those that spoke last; milliseconds since the epoch.
    pub now: i64,
    pub newest: i64,
    /// Of the first visit, where the token has no baseline yet.
    pub seed: Option<Seed>,
    /// Keys of its baseline and user.
    pub baseline: u64,
    pub user: u64,
    /// Where the baseline is; `None`: it has none yet.
    pub place: Option<Place>,
    /// When its token, family or session was ended.
    pub ended: Ended,
    pub expiry: Option<Expiry>,
    /// Of an event after its token's expiry: by how much its clock is ahead of others, milliseconds.
    pub ahead: i64,
}

impl Observation<'_> {
    /// Days since the epoch, for what is counted of many baselines together: a clock that is ahead begins no day.
    pub(crate) fn day(&self) -> u32 {
        (self.sighting.at.min(self.now) / DAY_MS) as u32
    }
}

/// Where a holder sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sits {
    /// Where the owner does: in a network that was known when they came, or for long.
    AtHome,
    /// The token of a machine that lives on servers is used where people are, from an address that is not known.
    AmongPeople,
    Elsewhere,
}

impl Sits {
    /// `service`: it is the token of a machine that lives on servers; `class`: of the network, where a file knows it.
    fn of(service: bool, class: Option<NetworkClass>, net_level: usize, is_new_place: bool) -> Self {
        if service && class == Some(NetworkClass::Access) && net_level > net::level::KNOWN_ADDRESS {
            Self::AmongPeople
        } else if is_new_place {
            Self::Elsewhere
        } else {
            Self::AtHome
        }
    }
}

/// The score of one event, and the numbers that its verdict and its reasons need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Score {
    pub log_odds: f64,
    pub shares: Shares,
    /// Evidence of the holder, with the calls amid the owner's in `route`.
    pub evidence: Evidence,
    /// Parts of `fan`: by application, by address, and what is taken off because a whole company came along; at most 0.
    pub app_fan: f64,
    pub ip_fan: f64,
    pub together: f64,
    /// The part of `route` that comes of calls amid the owner's own.
    pub amid: f64,
    pub sits: Sits,
    /// Calls of the visit.
    pub visit_calls: u32,
    /// Users who came new to the same place within two hours, this one among them.
    pub company: usize,
    pub net_level: usize,
    pub client_level: usize,
    pub lifecycle_rule: Option<RuleId>,
    /// Something was found that the event before did not show.
    pub changed: bool,
    /// It came later than lateness allows.
    pub late: bool,
}

/// Terms that tell who the holder is, and not what they do.
const OF_IDENTITY: [Term; 5] = [Term::Net, Term::Client, Term::Hour, Term::Switch, Term::Sibling];

impl Score {
    /// Of a token in its first visit: there is nothing to hold it against.
    pub(crate) fn nothing(prior_log_odds: f64) -> Self {
        Self {
            log_odds: prior_log_odds,
            shares: Shares::default(),
            evidence: Evidence::default(),
            app_fan: 0.0,
            ip_fan: 0.0,
            together: 0.0,
            amid: 0.0,
            sits: Sits::AtHome,
            visit_calls: 0,
            company: 0,
            net_level: net::level::KNOWN_ADDRESS,
            client_level: client::level::KNOWN,
            lifecycle_rule: None,
            changed: false,
            late: false,
        }
    }

    /// Part of the evidence about who the holder is that company and colleague do not explain; 1: all of it.
    pub(crate) fn unexplained(&self) -> f64 {
        let found = self.shares.of_all(OF_IDENTITY) + self.app_fan + self.ip_fan;
        let explained = self.together + self.shares.of(Term::Colleague);
        if found > 0.0 { ((found + explained) / found).clamp(0.0, 1.0) } else { 1.0 }
    }

    /// Leaves a term out of the sum, to measure what it contributes.
    fn leave_out(&mut self, term: Term) {
        self.shares.set(term, 0.0);
        let evidence = &mut self.evidence;
        let nothing = Nats::default();
        match term {
            Term::Net => evidence.travel = nothing,
            Term::Route => {
                (evidence.route, evidence.sensitive) = (nothing, nothing);
                self.amid = 0.0;
            }
            Term::Area => evidence.area = nothing,
            Term::Switch => evidence.switch = nothing,
            Term::Volume => (evidence.volume, evidence.objects, evidence.bytes) = (nothing, nothing, nothing),
            Term::Lifecycle => evidence.lifecycle = nothing,
            Term::Fan => (self.app_fan, self.ip_fan, self.together) = (0.0, 0.0, 0.0),
            Term::Client | Term::Hour | Term::Credential | Term::Sibling | Term::Colleague => {}
        }
    }
}

/// Scores a sighting of a token that has, or gets, a baseline. Reads memory only. What the event changes is in `lesson`,
/// and changes nothing unless it is learnt.
pub(crate) fn score(
    memory: &Memory,
    settings: &Settings,
    observation: &Observation<'_>,
    lesson: &mut Option<Lesson>,
) -> Score {
    let Observation { sighting, enriched, .. } = observation;
    let event = &enriched.event;
    let at = sighting.at;
    let Memory { baselines, users, visits, others, .. } = memory;
    let fresh = observation.place.is_none().then(|| Box::new(begin_baseline(observation)));
    let baseline = match (&fresh, observation.place) {
        (Some(fresh), _) => fresh,
        (None, Some(place)) => baselines.get(place),
        (None, None) => return Score::nothing(settings.prior_log_odds),
    };
    // The owner's, as the token began: a thief does not choose whom they are compared with.
    let kind = baseline.kind;
    let first = baseline.visits == 0;
    let lesson = Lesson::begin(lesson, baseline, sighting.visit, at);
    lesson.late = observation.timed && keep_time(lesson, at, observation.newest, settings.lateness_ms_max);
    let user = if let Some(number) = find_visit(baseline, visits, sighting) {
        lesson.number = Some(number);
        lesson.visit = visits.get(number).core;
        None
    } else {
        // Only where a visit begins is its user asked for.
        let user = users.known(observation.user);
        let (net_level, client_level) = levels(baseline, &user, others, sighting);
        lesson.visit.tenant = sighting.tenant;
        (lesson.visit.net_level, lesson.visit.client_level) = (net_level as u8, client_level as u8);
        Some(user)
    };
    lesson.visit.last_at = lesson.visit.last_at.max(at);
    lesson.visit.calls = lesson.visit.calls.saturating_add(1);
    let network = holders_network(baseline, sighting);
    let (held, is_new_holder) = baseline.place_of_holder(network, sighting.family);
    lesson.held = held;
    if is_new_holder {
        lesson.holder = Holder::born(network, sighting.family, at, lesson.visit.net_level);
    } else {
        lesson.holder = baseline.holders[held];
        lesson.holder.last_at = lesson.last_at_of(&lesson.holder);
        lesson.holder.fade(at);
    }
    lesson.gone_on = lesson.holder.last_at / HOUR_MS < at / HOUR_MS;
    let mut turn = Turn {
        observation,
        kind,
        // Nothing of its own to be held against, nor of its user's: nothing is said.
        blank: first && user.is_some_and(|user| !user.is_known()),
        changed: user.is_some() || held == baseline.holders.len(),
    };
    if let Some(user) = &user {
        turn.begin_visit(baseline, user, others, lesson);
    }
    failpoint(Failpoint::Terms);
    if event.kind == EventKind::Use && event.endpoint.is_some() {
        let of_visit = |lesson: &Lesson| lesson.number.map(|number| visits.get(number));
        let route = enriched.route.key;
        let calls = lesson.visit.count_route(route).unwrap_or_else(|| {
            lesson.further_route = true;
            of_visit(lesson).map_or(1, |visit| visit.further_calls(route))
        });
        lesson.learns.route = term::route::weight(calls);
        if lesson.learns.route > 0.0 {
            turn.route(baseline, others, lesson);
        }
        let area = enriched.route.area;
        lesson.learns.area = lesson.visit.enter_area(area).unwrap_or_else(|| {
            lesson.further_area = true;
            of_visit(lesson).is_none_or(|visit| visit.is_further_new(area))
        });
        if lesson.learns.area {
            turn.area(baseline, others, lesson);
        }
    }
    turn.switch(baseline, others, lesson);
    turn.volume(baseline, others, lesson);
    turn.lifecycle(baseline, others, lesson);
    if turn.changed {
        turn.fan(others, lesson);
    }
    let score = sum_up(baseline, lesson, &turn, settings);
    failpoint(Failpoint::Sum);
    let colleague = score.shares.of(Term::Colleague);
    // What is said of calls amid the owner's own ends with its visit, and a colleague is no owner.
    lesson.holder.log_odds = Nats::new(score.log_odds - score.amid - colleague);
    lesson.holder.last_at = lesson.holder.last_at.max(at);
    lesson.visit.log_odds_max = lesson.visit.log_odds_max.max(score.log_odds as f32);
    // A company's move explains why many are strange together, and a colleague why one is; neither proves that somebody is
    // the owner.
    lesson.log_odds = score.log_odds - score.together - colleague;
    lesson.fresh = fresh;
    score
}

/// All that the turn has found of a holder.
fn sum_up(baseline: &Baseline, lesson: &Lesson, turn: &Turn<'_>, settings: &Settings) -> Score {
    let (sighting, holder, visit) = (turn.observation.sighting, &lesson.holder, &lesson.visit);
    let sibling = if turn.blank { 0.0 } else { sibling(baseline, lesson, sighting.at, settings.prior_log_odds) };
    // What is called amid the owner's calls is said in its visit only, and as one with the route term.
    let mut route = holder.evidence.route;
    if visit.amid > 0.0 {
        route = Nats::new(route.get() + f64::from(visit.amid));
    }
    let evidence = Evidence { route, ..holder.evidence };
    let (app_fan, ip_fan, together) = (visit.app_fan.into(), visit.ip_fan.into(), visit.together.into());
    let mut score = Score {
        log_odds: settings.prior_log_odds,
        shares: shares(&evidence, visit, sibling),
        evidence,
        app_fan,
        ip_fan,
        together,
        amid: f64::from(visit.amid),
        sits: Sits::of(
            turn.kind.is_machine() && baseline.lives_on_servers(),
            turn.observation.enriched.network.as_ref().map(|network| network.class),
            usize::from(visit.net_level),
            is_new_place(holder, sighting.at),
        ),
        visit_calls: visit.calls,
        company: usize::from(visit.company),
        net_level: usize::from(visit.net_level),
        client_level: usize::from(visit.client_level),
        lifecycle_rule: RuleId::ALL.get(usize::from(holder.lifecycle_rule)).copied(),
        changed: turn.changed,
        late: lesson.late,
    };
    for term in &settings.without {
        score.leave_out(*term);
    }
    if score.sits == Sits::AmongPeople && !settings.without.contains(&Term::Colleague) {
        // Of what a company that came along has left of it.
        let strange = score.shares.of_all(OF_IDENTITY) + score.together;
        score.shares.set(Term::Colleague, term::colleague::explained(strange) - strange);
    }
    score.log_odds += score.shares.sum();
    score
}

/// Share of each term but `colleague`, from the evidence against the holder and the evidence that belongs to the visit.
fn shares(evidence: &Evidence, visit: &Core, sibling: f64) -> Shares {
    let mut shares = Shares::default();
    shares.set(Term::Net, evidence.net.get() + f64::from(visit.net_credit));
    shares.set(Term::Client, evidence.client.get() + f64::from(visit.client_credit));
    shares.set(Term::Hour, evidence.hour.get());
    shares.set(Term::Route, evidence.route.get());
    shares.set(Term::Area, evidence.area.get());
    shares.set(Term::Switch, evidence.switch.get() + f64::from(visit.silence));
    shares.set(Term::Volume, evidence.volume.get() + term::volume::BYTES_WEIGHT * evidence.bytes.get());
    shares.set(Term::Lifecycle, evidence.lifecycle.get());
    shares.set(Term::Credential, evidence.credential.get());
    shares.set(Term::Fan, f64::from(visit.app_fan) + f64::from(visit.ip_fan) + f64::from(visit.together));
    shares.set(Term::Sibling, sibling);
    shares
}

/// The network that the holder of a sighting is known by. Without an address it is that of the latest holder with the same
/// client, if there is one.
fn holders_network(baseline: &Baseline, sighting: &Sighting) -> u32 {
    if sighting.has_place() {
        return sighting.network;
    }
    let same_client = baseline.holders.iter().filter(|holder| holder.family == sighting.family);
    same_client.max_by_key(|holder| holder.last_at).map_or(sighting.network, |holder| holder.network)
}

/// From the seed of its first visit, where there is one.
fn begin_baseline(observation: &Observation<'_>) -> Baseline {
    let Observation { sighting, enriched, .. } = observation;
    let Some(seed) = observation.seed else {
        let kind = Kind::new(enriched.event.token_type, sighting.device);
        return Baseline::new(observation.baseline, kind, sighting.at);
    };
    let mut baseline = Baseline::new(observation.baseline, seed.kind, sighting.at);
    // The first visit is the owner's: there was nothing to hold it against.
    let first = seed.sighting(sighting);
    learn::learn_times(&mut baseline, &first, 1.0);
    baseline.learn_place(&first, 1.0);
    (baseline.networks, baseline.hosting_networks) = (1, u8::from(seed.hosting));
    let mut holder = Holder::born(first.network, first.family, seed.first_at, net::level::KNOWN_ADDRESS as u8);
    holder.last_at = seed.last_at;
    baseline.put_holder(0, holder);
    baseline.visits = 1;
    baseline.last_at = seed.last_at;
    baseline
}

/// Whether `at` is later than lateness allows; and how far the baseline has come. A time ahead of the stream's that other
/// events of the same token do not follow came of a wrong clock.
fn keep_time(lesson: &mut Lesson, at: i64, newest: i64, lateness_ms_max: i64) -> bool {
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

fn find_visit(baseline: &Baseline, visits: &Visits, sighting: &Sighting) -> Option<NonZeroU32> {
    baseline.visits_of(sighting.visit, sighting.at).find(|number| {
        let visit = visits.get(*number);
        let near = sighting.at < visit.last_at + VISIT_GAP_MS && sighting.at > visit.began - VISIT_GAP_MS;
        visit.key == sighting.visit && visit.baseline == baseline.key && near
    })
}

/// How foreign network and client are to the owner.
fn levels(baseline: &Baseline, user: &User, others: &Others, sighting: &Sighting) -> (usize, usize) {
    let seen = &baseline.seen;
    let knows_countries = seen.knows_any(Feature::Country) || user.has_countries();
    // A network that spans countries is known in those where the owner was.
    let new_country = sighting.country != 0
        && knows_countries
        && !seen.knows(Feature::Country, sighting.country)
        && !user.has_country(sighting.country);
    // Where nothing is known of the place, nothing is said of it.
    let net = if !sighting.has_place() || knows_here(seen, sighting, Feature::Address, Sighting::address_in) {
        net::level::KNOWN_ADDRESS
    } else if knows_here(seen, sighting, Feature::Prefix, Sighting::prefix_in) {
        net::level::KNOWN_PREFIX
    } else if !new_country && seen.knows(Feature::Network, sighting.network) {
        net::level::KNOWN_NETWORK
    } else if !new_country && user.has_network(sighting.network) {
        net::level::USERS_NETWORK
    } else if new_country {
        net::level::NEW_COUNTRY
    } else {
        net::level::NEW_NETWORK
    };
    let new_fingerprint = sighting.fingerprint != 0 && !seen.knows(Feature::Fingerprint, sighting.fingerprint);
    let client = if new_fingerprint && others.population.is_borrowed(sighting.fingerprint, sighting.family) {
        client::level::NEW_FAMILY
    } else if seen.knows(Feature::Agent, sighting.agent) {
        let new = new_fingerprint && seen.knows_any(Feature::Fingerprint);
        if new { client::level::NEW_FINGERPRINT } else { client::level::KNOWN }
    } else if seen.knows(Feature::Version, sighting.version) {
        client::level::NEW_TEXT
    } else if seen.knows(Feature::Family, sighting.family) {
        client::level::NEW_VERSION
    } else if user.has_family(sighting.family) {
        client::level::USERS_FAMILY
    } else {
        client::level::NEW_FAMILY
    };
    (net, client)
}

/// Whether an address or prefix is known where it lies: in the country of this sighting, or where one of the two has no
/// country.
fn knows_here(seen: &Seen, sighting: &Sighting, feature: Feature, key_in: fn(&Sighting, u32) -> u32) -> bool {
    let knows = |country| seen.knows(feature, key_in(sighting, country));
    knows(sighting.country) || if sighting.country == 0 { seen.known(Feature::Country).any(knows) } else { knows(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_spans_countries_is_known_where_the_owner_was() {
        let (others, mut user) = (Others::default(), User::default());
        let home = crate::memory::tests::sighting();
        let mut baseline = Baseline::new(1, Kind::new(crate::event::TokenType::ApiKey, home.device), 0);
        baseline.learn_place(&home, 1.0);
        let level = |user: &User, network, country| {
            let elsewhere = Sighting { address: 77, prefix: 78, network, country, ..home };
            levels(&baseline, user, &others, &elsewhere).0
        };
        let abroad = u32::from(b'A') << 8 | u32::from(b'U');
        assert_eq!(level(&user, home.network, home.country), net::level::KNOWN_NETWORK);
        assert_eq!(level(&user, home.network, abroad), net::level::NEW_COUNTRY, "another region of the same cloud");
        assert_eq!(level(&user, home.network, 0), net::level::KNOWN_NETWORK, "no file knows the country");
        user.learn(1221, 1, abroad);
        assert_eq!(level(&user, home.network, abroad), net::level::KNOWN_NETWORK, "the user has been there");
        assert_eq!(level(&user, 1221, abroad), net::level::USERS_NETWORK);
    }

    #[test]
    fn known_prefix_abroad_is_no_known_place() {
        let (others, user) = (Others::default(), User::default());
        let home = crate::memory::tests::sighting();
        let (abroad, nowhere) = (u32::from(b'A') << 8 | u32::from(b'U'), 0);
        let level = |learnt: &Sighting, sighting: Sighting| {
            let mut baseline = Baseline::new(1, Kind::new(crate::event::TokenType::ApiKey, home.device), 0);
            baseline.learn_place(learnt, 1.0);
            levels(&baseline, &user, &others, &sighting).0
        };
        let (known, near) = (net::level::KNOWN_ADDRESS, net::level::KNOWN_PREFIX);
        let neighbour = Sighting { address: 77, ..home };
        assert_eq!((level(&home, home), level(&home, neighbour)), (known, near));
        assert_eq!(level(&home, Sighting { country: abroad, ..neighbour }), net::level::NEW_COUNTRY);
        assert_eq!(level(&home, Sighting { country: abroad, ..home }), known, "an IPv4 address is one place");
        let wide = Sighting { is_wide: true, ..home };
        assert_eq!(level(&wide, wide), known);
        assert_eq!(level(&wide, Sighting { country: abroad, ..wide }), net::level::NEW_COUNTRY);
        for (learnt, now) in [(home.country, nowhere), (nowhere, abroad), (nowhere, nowhere)] {
            let learnt = Sighting { country: learnt, ..wide };
            assert_eq!(level(&learnt, Sighting { country: now, ..wide }), known);
            assert_eq!(level(&learnt, Sighting { country: now, address: 77, ..wide }), near);
        }
    }

    #[test]
    fn a_visit_is_told_by_its_whole_key() {
        let (home, mut visits) = (crate::memory::tests::sighting(), Visits::new(10));
        let mut baseline = Baseline::new(1, Kind::new(crate::event::TokenType::ApiKey, home.device), home.at);
        let number = visits.open(&Core::begun(1, home.visit, home.at));
        baseline.begin_visit(home.visit, number);
        assert_eq!(find_visit(&baseline, &visits, &home), Some(number));
        let alike = Sighting { visit: home.visit + 256, ..home };
        assert_eq!(baseline.visits_of(alike.visit, alike.at).next(), Some(number), "eight bits are the same");
        assert_eq!(find_visit(&baseline, &visits, &alike), None);
    }

    #[test]
    fn a_machines_token_among_people_may_be_in_a_colleagues_hands() {
        let (new, known) = (net::level::NEW_NETWORK, net::level::KNOWN_ADDRESS);
        let (access, hosting) = (Some(NetworkClass::Access), Some(NetworkClass::Hosting));
        assert_eq!(Sits::of(true, access, new, true), Sits::AmongPeople);
        assert_eq!(Sits::of(true, access, new, false), Sits::AmongPeople, "and after weeks");
        assert_eq!(Sits::of(true, access, known, false), Sits::AtHome, "their own desk, by now");
        assert_eq!(Sits::of(true, hosting, new, true), Sits::Elsewhere);
        assert_eq!(Sits::of(true, None, new, true), Sits::Elsewhere, "no file knows where");
        assert_eq!(Sits::of(false, access, new, true), Sits::Elsewhere, "a person's, or a command line's");

        let mut shares = Shares::default();
        for (term, evidence) in [(Term::Net, 10.0), (Term::Client, 5.0), (Term::Route, 3.0), (Term::Switch, -0.5)] {
            shares.set(term, evidence);
        }
        let strange = 8.0 + 4.25 - 0.5;
        assert!((shares.of_all(OF_IDENTITY) - strange).abs() < 1e-9, "what they call is no part of it");
        let halved = Score { shares, together: -0.5 * strange, ..Score::nothing(-7.0) };
        assert!((halved.unexplained() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn shares_hold_all_evidence_and_nothing_else() {
        let evidence = Evidence {
            net: Nats::new(1.0),
            travel: Nats::new(0.5),
            client: Nats::new(2.0),
            hour: Nats::new(0.25),
            route: Nats::new(4.0),
            sensitive: Nats::new(0.5),
            area: Nats::new(0.75),
            switch: Nats::new(1.5),
            volume: Nats::new(3.0),
            objects: Nats::new(1.0),
            bytes: Nats::new(2.0),
            lifecycle: Nats::new(14.0),
            credential: Nats::new(2.5),
            ..Evidence::default()
        };
        let mut visit = Core::begun(1, 1, 0);
        (visit.net_credit, visit.client_credit, visit.silence) = (-0.25, -0.5, -0.5);
        (visit.app_fan, visit.ip_fan, visit.together) = (5.0, 1.0, -2.0);
        let mut shares = shares(&evidence, &visit, 3.5);
        shares.set(Term::Colleague, -1.0);
        let bytes = term::volume::BYTES_WEIGHT * 2.0;
        let expected = [0.8 * 0.75, 0.85 * 1.5, 0.25, 4.0, 0.75, 1.0, 3.0 + bytes, 14.0, 2.5, 4.0, 3.5, -1.0];
        for (term, expected) in Term::all().zip(expected) {
            let share = shares.of(term);
            assert!((share - expected).abs() < 1e-9, "{}: {share} instead of {expected}", term.name());
        }
        assert!((shares.sum() - expected.iter().sum::<f64>()).abs() < 1e-9, "nothing else is in the sum");
    }

    #[test]
    fn left_out_term_has_no_share_and_no_parts() {
        let evidence = Evidence {
            travel: Nats::new(0.5),
            route: Nats::new(4.0),
            sensitive: Nats::new(0.5),
            area: Nats::new(0.75),
            switch: Nats::new(1.5),
            volume: Nats::new(3.0),
            objects: Nats::new(1.0),
            bytes: Nats::new(2.0),
            lifecycle: Nats::new(14.0),
            ..Evidence::default()
        };
        let mut shares = Shares::default();
        Term::all().enumerate().for_each(|(number, term)| shares.set(term, 1.0 + number as f64));
        let mut score = Score { shares, evidence, app_fan: 5.0, ip_fan: 1.0, amid: 1.0, ..Score::nothing(-7.0) };
        let mut left = shares.sum();
        for term in Term::all() {
            score.leave_out(term);
            left -= shares.of(term);
            assert!((score.shares.sum() - left).abs() < 1e-9, "{}", term.name());
        }
        assert_eq!(score.evidence, Evidence::default());
        assert!(score.app_fan + score.ip_fan + score.amid <= 0.0);
    }
}
