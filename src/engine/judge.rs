//! One sighting against the past of its baseline: the terms in turn, their sum, and what is learnt of it.

use super::Settings;
use crate::enrichment::EnrichedEvent;
use crate::event::{Kind as EventKind, Scope, TokenType};
use crate::math::{faded, ln, sigma};
use crate::memory::baseline::{Grown, Habit, Hour};
use crate::memory::baselines::{Baselines, Place};
use crate::memory::cohort::Hourly;
use crate::memory::visit::VISIT_GAP_MS;
use crate::memory::{Baseline, Ended, Evidence, Kind, Memory, Nats, Others, Sighting, Sort, User, Visit, Visits};
use crate::place::NetworkClass;
use crate::route;
use crate::term::lifecycle::{Answer, Foreign};
use crate::term::{self, CLIENT_WEIGHT, NET_WEIGHT, client, net};
use crate::verdict::RuleId;

const MINUTE_MS: f64 = 60_000.0;
const DAY_MS: f64 = 86_400_000.0;

/// Visits of one's own after which changes of network count in full: new grants are still being set up.
const SETTLED_VISITS: f64 = 10.0;
/// Visits from which seasons and schedules are looked for, and weekends kept apart.
const GROWN_VISITS: u32 = 24;
const WEEKEND_VISITS: u32 = 200;
/// Events older than the last of their baseline by more than this came out of order.
const ORDER_MS: i64 = 60_000;
/// So many late events in a row, and it was the one before them that was wrong.
const BEHIND_MAX: u8 = 3;
/// The least weight of a sighting in what is counted in full numbers: changes of network, the habits of hours, cohorts
/// and population. What goes on, alarms and all, and is not taken away is the owner's, and must not alarm for ever. The
/// tables of sixteenths cut it to nothing: a place or client that alarms like that is never learnt as the owner's.
const OWNER_MIN: f64 = 0.03;
/// A volume is judged from so many calls an hour on.
pub const CALLS_MIN: u32 = 8;

/// One sighting, in its numbers.
pub struct Scene<'a> {
    pub enriched: &'a EnrichedEvent<'a>,
    pub sighting: Sighting,
    pub scope: Scope,
    /// Keys of its baseline, token and user.
    pub baseline: u64,
    pub token: u64,
    pub user: u64,
    /// Where the baseline is; `None`: it has none yet.
    pub place: Option<Place>,
    /// When its token, family or session was ended.
    pub ended: Ended,
}

/// What judgement found, before it is put into words.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    pub log_odds: f64,
    pub evidence: Evidence,
    pub app_fan: f64,
    pub ip_fan: f64,
    pub sibling: f64,
    /// Users who came new to the same place within two hours, this one among them.
    pub company: usize,
    /// What net and client said for the owner in this visit.
    pub net_credit: f64,
    pub client_credit: f64,
    pub net_level: usize,
    pub client_level: usize,
    pub lifecycle_rule: Option<RuleId>,
    /// The owner's probabilities.
    pub net_p: f64,
    pub client_p: f64,
    pub hour_p: f64,
    /// How far and in how long nobody travels; 0: nothing was said of this visit.
    pub travel_km: f64,
    pub travel_minutes: f64,
    /// Of the running hour.
    pub calls: u32,
    /// Changes of holder that were credited to this one.
    pub switches: u8,
    /// Something was found that the event before did not show.
    pub changed: bool,
    /// It came later than lateness allows.
    pub late: bool,
    /// The owner's visits so far.
    pub visits: u32,
}

impl Judged {
    /// Of a token in its first visit: there is nothing to hold it against.
    pub fn nothing(prior_log_odds: f64) -> Self {
        Self {
            log_odds: prior_log_odds,
            evidence: Evidence::default(),
            app_fan: 0.0,
            ip_fan: 0.0,
            sibling: 0.0,
            company: 0,
            net_credit: 0.0,
            client_credit: 0.0,
            net_level: net::level::KNOWN_ADDRESS,
            client_level: client::level::KNOWN,
            lifecycle_rule: None,
            net_p: 1.0,
            client_p: 1.0,
            hour_p: 1.0,
            travel_km: 0.0,
            travel_minutes: 0.0,
            calls: 0,
            switches: 0,
            changed: false,
            late: false,
            visits: 0,
        }
    }
}

/// Judges a sighting of a token that has, or gets, a baseline, and learns from it.
pub fn judge(memory: &mut Memory, settings: &Settings, scene: &Scene<'_>) -> Judged {
    let Scene { sighting, enriched, .. } = scene;
    let event = &enriched.event;
    let at = sighting.at;
    let Memory { baselines, users, visits, others, .. } = memory;
    let baseline = match scene.place {
        Some(place) => baselines.at(place),
        None => begin_baseline(baselines, scene),
    };
    // The owner's, as the token began: a thief does not choose whom they are compared with.
    let kind = baseline.kind;
    let late = keep_time(baseline, at, settings.lateness_ms_max);
    let first = baseline.visits == 0;
    let (number, mut user) = if let Some(number) = find_visit(baseline, visits, sighting) {
        (number, None)
    } else {
        // Only where a visit begins is its user asked for.
        let user = users.entry(scene.user, User::default);
        let mut visit = Visit::begin(scene.baseline, sighting.visit, at);
        let (net_level, client_level) = levels(baseline, user, others, sighting);
        (visit.net_level, visit.client_level) = (net_level as u8, client_level as u8);
        let number = visits.open(visit);
        baseline.open.rotate_right(1);
        baseline.open[0] = Some(number);
        (number, Some(user))
    };
    let visit = visits.get_mut(number);
    visit.last_at = visit.last_at.max(at);
    visit.calls = visit.calls.saturating_add(1);
    let before = baseline.contexts.len();
    let held = baseline.context(sighting.network, sighting.family, at, visit.net_level);
    let mut turn = Turn {
        scene,
        kind,
        held,
        // Nothing of its own to be held against, nor of its user's: nothing is said.
        blank: first && user.as_deref().is_some_and(|user| !user.is_known()),
        changed: user.is_some() || before != baseline.contexts.len(),
    };
    if let Some(user) = &mut user {
        turn.begin_visit(baseline, visit, user, others);
    }
    let mut learns = Learns { first, ..Learns::default() };
    if event.kind == EventKind::Use && event.endpoint.is_some() {
        learns.route = term::route::weight(visit.count_route(enriched.route.key));
        if learns.route > 0.0 {
            turn.route(baseline, visit, others, &mut learns);
        }
        learns.area = visit.enter_area(enriched.route.area);
        if learns.area {
            turn.area(baseline, others);
        }
    }
    if at >= baseline.last_at - ORDER_MS {
        turn.switch(baseline, others, &mut learns);
    }
    turn.volume(baseline, others);
    turn.lifecycle(baseline, visit);
    if turn.changed {
        turn.fan(baseline, visit, others);
    }
    let (changed, blank) = (turn.changed, turn.blank);
    let sibling = if blank { 0.0 } else { sibling(baseline, held, at, settings.prior_log_odds) };
    let context = &mut baseline.contexts[held];
    let evidence = context.evidence;
    let log_odds = sum(&evidence, visit, sibling, settings.prior_log_odds);
    context.log_odds = Nats::new(log_odds);
    context.last_at = context.last_at.max(at);
    visit.log_odds_max = visit.log_odds_max.max(log_odds as f32);
    let judged = Judged {
        log_odds,
        evidence,
        app_fan: f64::from(visit.app_fan),
        ip_fan: f64::from(visit.ip_fan),
        sibling,
        company: usize::from(visit.company),
        net_credit: f64::from(visit.net_credit),
        client_credit: f64::from(visit.client_credit),
        net_level: usize::from(visit.net_level),
        client_level: usize::from(visit.client_level),
        lifecycle_rule: RuleId::ALL.get(usize::from(context.lifecycle_rule)).copied(),
        net_p: f64::from(visit.net_p),
        client_p: f64::from(visit.client_p),
        hour_p: f64::from(visit.hour_p),
        travel_km: f64::from(visit.travel_km),
        travel_minutes: f64::from(visit.travel_minutes),
        calls: baseline.hour.calls,
        switches: context.switches,
        changed,
        late,
        visits: baseline.visits,
    };
    learn(baseline, user, visit, others, scene, kind, sigma(-log_odds).max(OWNER_MIN), learns);
    judged
}

/// From the seed of its first visit, where there is one.
fn begin_baseline<'m>(baselines: &'m mut Baselines, scene: &Scene<'_>) -> &'m mut Baseline {
    let Scene { sighting, enriched, .. } = scene;
    let Some(seed) = baselines.seeds.remove(scene.baseline) else {
        return baselines.grow(scene.baseline, Kind::new(enriched.event.token_type, sighting.device), sighting.at);
    };
    let baseline = baselines.grow(scene.baseline, seed.kind, seed.first_at);
    // The first visit is the owner's: there was nothing to hold it against.
    learn_times(baseline, &seed.sighting(sighting), 1.0);
    baseline.learn_place(&seed.sighting(sighting), 1.0);
    baseline.visits = 1;
    baseline.last_at = seed.last_at;
    baseline
}

/// `z = π + .8 net + .85 client + hour + route + area + switch + volume + lifecycle + credential + fan + sibling`.
fn sum(evidence: &Evidence, visit: &Visit, sibling: f64, prior: f64) -> f64 {
    let others = [
        evidence.hour,
        evidence.route,
        evidence.area,
        evidence.switch,
        evidence.volume,
        evidence.lifecycle,
        evidence.credential,
    ];
    prior
        + NET_WEIGHT * (evidence.net.get() + f64::from(visit.net_credit))
        + CLIENT_WEIGHT * (evidence.client.get() + f64::from(visit.client_credit))
        + others.into_iter().map(Nats::get).sum::<f64>()
        + term::volume::BYTES_WEIGHT * evidence.bytes.get()
        + f64::from(visit.silence)
        + f64::from(visit.app_fan)
        + f64::from(visit.ip_fan)
        + sibling
}

/// Whether `at` is later than lateness allows; and how far the baseline has come. A time far ahead that others of the
/// same token do not follow was a clock's mistake.
fn keep_time(baseline: &mut Baseline, at: i64, lateness_ms_max: i64) -> bool {
    let late = at < baseline.last_at - lateness_ms_max;
    baseline.behind = if late { baseline.behind + 1 } else { 0 };
    if baseline.behind >= BEHIND_MAX {
        baseline.last_at = at;
        baseline.behind = 0;
        for context in &mut baseline.contexts {
            context.last_at = context.last_at.min(at);
        }
        return false;
    }
    late
}

fn find_visit(baseline: &Baseline, visits: &Visits, sighting: &Sighting) -> Option<std::num::NonZeroU32> {
    baseline.open.iter().flatten().copied().find(|number| {
        let visit = visits.get(*number);
        let near = sighting.at < visit.last_at + VISIT_GAP_MS && sighting.at > visit.began - VISIT_GAP_MS;
        visit.key == sighting.visit && visit.baseline == baseline.key && near
    })
}

/// How foreign network and client are to the owner.
fn levels(baseline: &Baseline, user: &User, others: &Others, sighting: &Sighting) -> (usize, usize) {
    let seen = &baseline.seen;
    let knows_countries = seen.knows_any(Sort::Country) || user.has_countries();
    let net = if seen.knows(Sort::Address, sighting.address) {
        net::level::KNOWN_ADDRESS
    } else if seen.knows(Sort::Prefix, sighting.prefix) {
        net::level::KNOWN_PREFIX
    } else if seen.knows(Sort::Network, sighting.network) {
        net::level::KNOWN_NETWORK
    } else if user.has_network(sighting.network) {
        net::level::USERS_NETWORK
    } else if sighting.country != 0
        && knows_countries
        && !seen.knows(Sort::Country, sighting.country)
        && !user.has_country(sighting.country)
    {
        net::level::NEW_COUNTRY
    } else {
        net::level::NEW_NETWORK
    };
    let borrowed = sighting.fingerprint != 0 && others.population.is_borrowed(sighting.fingerprint, sighting.family);
    let client = if borrowed && !seen.knows(Sort::Fingerprint, sighting.fingerprint) {
        client::level::NEW_FAMILY
    } else if seen.knows(Sort::Agent, sighting.agent) {
        let new = sighting.fingerprint != 0
            && seen.knows_any(Sort::Fingerprint)
            && !seen.knows(Sort::Fingerprint, sighting.fingerprint);
        if new { client::level::NEW_FINGERPRINT } else { client::level::KNOWN }
    } else if seen.knows(Sort::Version, sighting.version) {
        client::level::NEW_TEXT
    } else if seen.knows(Sort::Family, sighting.family) {
        client::level::NEW_VERSION
    } else if user.has_family(sighting.family) {
        client::level::USERS_FAMILY
    } else {
        client::level::NEW_FAMILY
    };
    (net, client)
}

/// What one event gives to learn, by which of the terms ran.
#[derive(Clone, Copy, Debug, Default)]
struct Learns {
    first: bool,
    /// Weight of the route's call; 0: a repeat.
    route: f64,
    promise: f64,
    area: bool,
    /// A change of network, and the probability that it was the owner's.
    switch: Option<f64>,
    /// Minutes of activity since the event before.
    active_minutes: f64,
}

/// One event's turn over the terms.
struct Turn<'a> {
    scene: &'a Scene<'a>,
    kind: Kind,
    /// Place of the holder among the baseline's contexts.
    held: usize,
    blank: bool,
    changed: bool,
}

impl Turn<'_> {
    /// Net, client, hour and credential: once a visit.
    fn begin_visit(&mut self, baseline: &mut Baseline, visit: &mut Visit, user: &User, others: &Others) {
        let sighting = &self.scene.sighting;
        if self.blank {
            return;
        }
        let held = &baseline.contexts[self.held];
        let days = (sighting.at - held.last_at).max(0) as f64 / DAY_MS;
        let (hour_before, level) = (held.evidence.hour.get() * faded(days, 1.0), usize::from(visit.net_level));

        let net = self.net(baseline, user, others, level);
        let client = self.client(baseline, others, usize::from(visit.client_level));
        let everybody = others.population.hours();
        let hours = own_hours(baseline, sighting);
        let of_phase = baseline.grown.as_ref().map_or(0.0, |grown| {
            term::hour::phase(sighting.at, &grown.phases, term::hour::remembered(baseline.visits))
        });
        let shift = if level == net::level::NEW_COUNTRY { hours_east(baseline, sighting) } else { 0 };
        let hour = term::hour::judge(sighting.hour(), &hours, &everybody, of_phase, shift);

        visit.silence = self.silence(baseline, &hours) as f32;
        let held = &mut baseline.contexts[self.held];
        let evidence = &mut held.evidence;
        if net.sum() >= 0.0 {
            if net.sum() >= evidence.net.get() {
                evidence.net = Nats::new(net.sum());
                evidence.travel = Nats::new(net.travel);
            }
        } else {
            visit.net_credit = net.sum() as f32;
        }
        if client.ratio >= 0.0 {
            evidence.client = evidence.client.max(Nats::new(client.ratio));
        } else {
            visit.client_credit = client.ratio as f32;
        }
        evidence.hour = Nats::new(term::hour::carried(hour_before, faded(days, 1.0), hour.sum()));
        if let Some(journey) = net.journey.filter(net::Journey::too_fast) {
            (visit.travel_km, visit.travel_minutes) = (journey.km as f32, journey.minutes as f32);
        }
        visit.net_p = net.p_value as f32;
        visit.client_p = client.p_value as f32;
        visit.hour_p = hour.p_value as f32;

        let days_since_change = user.days_since_change(sighting.at);
        let is_old = i64::from(baseline.first_minute) * 60_000 < user.changed_at();
        let born_after = i64::from(held.born) * 60_000 >= user.changed_at();
        if days_since_change.is_some_and(|days| days <= term::credential::DAYS_MAX)
            && is_old
            && born_after
            && usize::from(held.level) >= net::level::KNOWN_NETWORK
        {
            let rate = others.population.after_change;
            evidence.credential = Nats::new(term::credential::judge(rate.chances(), rate.happened()));
        }
    }

    /// For a young holder: whether the one before has left, by the visits that were to be expected since.
    fn silence(&self, baseline: &Baseline, hours: &[f64; 24]) -> f64 {
        let sighting = &self.scene.sighting;
        let held = &baseline.contexts[self.held];
        let is_young = held.age_days(sighting.at) < term::switch::AGE_DAYS_MAX;
        let elsewhere = baseline.contexts.iter().filter(|other| other.network != held.network);
        let Some(last) = elsewhere.map(|other| other.last_at).max() else { return 0.0 };
        let lived = (sighting.at - i64::from(baseline.first_minute) * 60_000) as f64 / DAY_MS;
        if !is_young || usize::from(held.level) < net::level::KNOWN_NETWORK || lived < 3.0 {
            return 0.0;
        }
        let a_day = f64::from(baseline.visits) / lived;
        let total: f64 = hours.iter().sum::<f64>().max(1.0);
        // Hour by hour, a week at the most.
        let hours_since = ((sighting.at - last).max(0) / 3_600_000).min(168);
        let spanned = (1..=hours_since).map(|back| hours[((sighting.at / 3_600_000 - back) % 24) as usize] / total);
        term::switch::silence(a_day * spanned.sum::<f64>())
    }

    fn net(&self, baseline: &Baseline, user: &User, others: &Others, level: usize) -> net::Net {
        let sighting = &self.scene.sighting;
        let cohorts = &others.cohorts;
        let hosting = sighting.class != NetworkClass::Access;
        let own = f64::from(baseline.hosting_networks) + 3.0 * cohorts.hosting(self.kind);
        // Relays and anonymisers say nothing of where the client is.
        let travels = sighting.class != NetworkClass::Anonymiser && level >= net::level::NEW_NETWORK;
        let travel = travels.then(|| net::journey(&baseline.sites, &sighting.site)).flatten();
        net::judge(&net::Question {
            level,
            own: &baseline.net_levels.get(),
            cohort: &cohorts.net(self.kind, baseline.visits),
            which: if level >= net::level::NEW_NETWORK {
                self.which_network(baseline, user, others)
            } else {
                (1.0, 1.0)
            },
            hosting,
            own_hosting: own / (f64::from(baseline.networks) + 3.0),
            travel: travel.map(|journey| (journey, fast_travel(others, hosting))),
        })
    }

    /// Probabilities of this network among others, as a thief's and as the owner's.
    fn which_network(&self, baseline: &Baseline, user: &User, others: &Others) -> (f64, f64) {
        let sighting = &self.scene.sighting;
        let mut known: Vec<u32> = baseline.seen.known(Sort::Country).chain(user.countries()).collect();
        known.sort_unstable();
        known.dedup();
        others.population.chooses(sighting.tenant, sighting.network, sighting.country, &known)
    }

    fn client(&self, baseline: &Baseline, others: &Others, level: usize) -> term::LevelRatio {
        let sighting = &self.scene.sighting;
        let token_type = self.kind.token_type();
        let which = (
            others.population.families.thief(sighting.family, 2.0),
            others.population.has_family(sighting.app, token_type, sighting.family),
        );
        client::judge(level, &baseline.client_levels.get(), &others.cohorts.client(self.kind, baseline.visits), which)
    }

    /// Route: at its first call in a visit, and when its calls have doubled.
    fn route(&mut self, baseline: &mut Baseline, visit: &Visit, others: &Others, learns: &mut Learns) {
        let route = self.scene.enriched.route;
        let endpoint = self.scene.enriched.event.endpoint.as_deref().unwrap_or_default();
        let population = &others.population;
        learns.promise = population
            .promise(route.key)
            .unwrap_or_else(|| term::route::promise(&route::template(endpoint), route.reads));
        if self.blank {
            return;
        }
        let sighting = &self.scene.sighting;
        let own = baseline.seen.count(Sort::Route, route.key);
        let b = population.takes_route(sighting.family, self.kind.number(), route.key);
        let thief = population.tempts(route.key, learns.promise);
        let call = term::route::judge(own, f64::from(baseline.routes_total), b, thief);
        let new_client = usize::from(visit.client_level) >= client::level::USERS_FAMILY;
        let evidence = &mut baseline.contexts[self.held].evidence;
        let (against_owner, against_task) = (
            evidence.route_owner.get() + learns.route * call.against_owner,
            evidence.route_task.get() + learns.route * call.against_task,
        );
        (evidence.route_owner, evidence.route_task) = (Nats::new(against_owner), Nats::new(against_task));
        let after = Nats::new(term::route::holder(against_owner, against_task, new_client));
        self.changed |= after > evidence.route;
        if learns.promise > 1.0 && call.against_owner > 0.0 {
            let share = (learns.route * 0.6 * ln(learns.promise)).min(after.get().max(0.0));
            evidence.sensitive = Nats::new((evidence.sensitive.get() + share).min(after.get().max(0.0)));
        }
        evidence.route = after;
    }

    /// Area: at its first call in a visit.
    fn area(&mut self, baseline: &mut Baseline, others: &Others) {
        if self.blank {
            return;
        }
        let area = self.scene.enriched.route.area;
        let own = baseline.seen.count(Sort::Area, area);
        let (_, once) = baseline.seen.variety(Sort::Area);
        let tenant = others.population.touches(self.scene.sighting.tenant, area, own);
        let total = f64::from(baseline.areas_total).max(own);
        let (share, _) = term::area::judge(own, total, once as f64, others.cohorts.new_areas(self.kind), tenant);
        let evidence = &mut baseline.contexts[self.held].evidence;
        evidence.area = Nats::new(term::area::carried(evidence.area.get(), share));
        self.changed |= share > 0.0;
    }

    /// Switch: at a change of network within an hour.
    fn switch(&mut self, baseline: &mut Baseline, others: &Others, learns: &mut Learns) {
        let sighting = &self.scene.sighting;
        let gap = (sighting.at - baseline.last_at).max(0) as f64 / MINUTE_MS;
        // A pause is no activity; what lies between two calls of one sitting is.
        learns.active_minutes = if gap < 30.0 { gap.min(10.0) } else { 0.0 };
        if baseline.network == 0 || baseline.network == sighting.network || gap >= term::switch::GAP_MINUTES_MAX {
            return;
        }
        let other = (0..baseline.contexts.len())
            .filter(|place| baseline.contexts[*place].network == baseline.network)
            .max_by_key(|place| baseline.contexts[*place].last_at);
        let younger = match other {
            Some(other) if baseline.contexts[other].born > baseline.contexts[self.held].born => other,
            _ => self.held,
        };
        let settled = ((f64::from(baseline.visits) + 2.0) / SETTLED_VISITS).min(1.0);
        let (changes, active) = (f64::from(baseline.switches), f64::from(baseline.active_minutes));
        let context = &mut baseline.contexts[younger];
        learns.switch = Some(sigma(-context.log_odds.get()).max(OWNER_MIN));
        if usize::from(context.level) < net::level::KNOWN_NETWORK
            || context.age_days(sighting.at) > term::switch::AGE_DAYS_MAX
            || self.blank
        {
            return;
        }
        context.switches = context.switches.saturating_add(1);
        let cohort = others.cohorts.switches(self.kind);
        let switch = term::switch::judge(gap, changes, active, cohort, context.switches);
        let sum = context.evidence.switch.get() + settled * switch.share;
        context.evidence.switch = Nats::new(sum.clamp(-3.0, term::switch::SUM_MAX));
        self.changed = true;
    }

    /// Volume: when a count of the running hour has doubled.
    fn volume(&mut self, baseline: &mut Baseline, others: &mut Others) {
        let sighting = &self.scene.sighting;
        let enriched = self.scene.enriched;
        let number = sighting.hour_number();
        if number > baseline.hour.number {
            end_hour(baseline, others, self.kind, number);
            baseline.hour = Hour::begin(number);
            for context in &mut baseline.contexts {
                for evidence in
                    [&mut context.evidence.volume, &mut context.evidence.objects, &mut context.evidence.bytes]
                {
                    *evidence = Nats::new(evidence.get() * term::volume::LATER_HOUR);
                }
            }
        } else if number < baseline.hour.number {
            return;
        }
        let hour = &mut baseline.hour;
        hour.calls = hour.calls.saturating_add(1);
        hour.reads += u32::from(enriched.route.reads);
        hour.kilobytes += enriched.event.bytes_out.map_or(0.0, |bytes| bytes as f32 / 1024.0);
        if let Some(object) = enriched.route.object {
            hour.touch(object);
        }
        if hour.calls < CALLS_MIN || !hour.calls.is_power_of_two() || self.blank {
            return;
        }
        let Others { cohorts, bursts, .. } = others;
        let season = season(baseline, sighting);
        let burst = |what: Hourly, count: f64, season: f64| {
            let (mean, variance, hours) = habit(baseline, what).with(cohorts.hourly(self.kind, what));
            term::volume::judge(count, mean + season, variance, hours)
        };
        let calls = burst(Hourly::Calls, f64::from(baseline.hour.calls), season);
        let objects = burst(Hourly::Objects, baseline.hour.objects(), 0.0);
        let bytes = burst(Hourly::Bytes, f64::from(baseline.hour.kilobytes), season);
        let day = sighting.day();
        let returns = term::volume::returns(day, u32::from(baseline.burst_day));
        let excess = bursts.excess(sighting.tenant, day);
        let alone = |ratio: f64| term::volume::shared(ratio, bursts.usual(ratio), excess, returns);
        let reads = term::volume::reads(
            f64::from(baseline.hour.reads),
            f64::from(baseline.hour.calls),
            f64::from(baseline.reads),
            f64::from(baseline.all_calls),
            cohorts.reads(self.kind),
        );
        let (of_calls, of_objects) = (alone(calls.ratio), alone(objects.ratio));
        let volume = Nats::new(term::volume::sum(of_calls, of_objects, reads));
        let evidence = &mut baseline.contexts[self.held].evidence;
        if volume > evidence.volume {
            evidence.volume = volume;
            // What objects add beyond calls: a walk over many of them.
            let by_calls = term::volume::sum(of_calls, 0.0, reads);
            evidence.objects = Nats::new((volume.get() - by_calls).max(0.0));
            self.changed = true;
        }
        evidence.bytes = evidence.bytes.max(Nats::new(alone(bytes.ratio)));
        let largest = calls.ratio.max(objects.ratio);
        if largest > f64::from(baseline.hour.burst) && largest >= term::volume::BURST {
            bursts.learn(sighting.tenant, day, f64::from(baseline.hour.burst), largest);
            baseline.hour.burst = largest as f32;
        }
    }

    /// Life cycle: at every event, for it needs no past.
    fn lifecycle(&mut self, baseline: &mut Baseline, visit: &Visit) {
        let Scene { sighting, enriched, scope, token, ended, .. } = self.scene;
        let event = &enriched.event;
        let at = sighting.at;
        let answer = Answer::of(event.status, event.kind == EventKind::Refreshed);
        let foreign = Foreign {
            address: usize::from(visit.net_level) > net::level::KNOWN_ADDRESS,
            network: usize::from(visit.net_level) >= net::level::USERS_NETWORK,
            client: usize::from(visit.client_level) >= client::level::USERS_FAMILY,
        };
        let mut reuse = 0.0;
        if event.kind == EventKind::Refreshed {
            let refreshes = baseline.refreshes.get_or_insert_default();
            reuse = term::lifecycle::refresh(refreshes, *token, at, sighting.address, sighting.agent);
        } else if answer == Answer::Accepted
            && event.token_type != TokenType::Refresh
            && baseline.token != *token as u32
        {
            // A token that the family had not used before, and that works: the answer that brought it has arrived.
            if let Some(refreshes) = &mut baseline.refreshes {
                term::lifecycle::successor_used(refreshes, at);
            }
            baseline.token = *token as u32;
        }
        let shown = event.binding.as_deref().map_or(0, |key| scope.key(b'k', key) as u32 | 1);
        let binding = term::lifecycle::binding(&mut baseline.binding, &mut baseline.binding_streak, shown);
        let expires_at = event.expires_at.map(crate::event::Timestamp::millis);
        let found = [
            (RuleId::RefreshReuse, reuse),
            (RuleId::BindingMismatch, binding),
            (RuleId::UseAfterRevocation, term::lifecycle::after_revocation(*ended, at, answer, foreign)),
            (RuleId::UseAfterSessionEnd, term::lifecycle::after_session_end(*ended, at, answer, foreign)),
            (RuleId::UseAfterExpiry, term::lifecycle::after_expiry(expires_at, at, visit.began, answer)),
        ];
        for (rule, share) in found {
            let context = &mut baseline.contexts[self.held];
            if share > 0.0 && Nats::new(share) >= context.evidence.lifecycle {
                self.changed |= Nats::new(share) > context.evidence.lifecycle;
                context.evidence.lifecycle = Nats::new(share);
                context.lifecycle_rule = rule as u8;
            }
        }
    }

    /// Fan: when what is odd about the holder has changed.
    fn fan(&self, baseline: &Baseline, visit: &mut Visit, others: &mut Others) {
        let sighting = &self.scene.sighting;
        let level = usize::from(visit.net_level);
        let fleets = &mut others.fleets;
        if level == net::level::KNOWN_ADDRESS {
            fleets.at_home(sighting.app, sighting.at);
            return;
        }
        let evidence = &baseline.contexts[self.held].evidence;
        let client = evidence.client.get() + f64::from(visit.client_credit);
        let oddness = evidence.route.get() + 0.5 * client + evidence.hour.get();
        let mut users = 0;
        let mut fan = |group: u64| {
            let company = fleets.join(group, self.scene.user, sighting.at, oddness);
            users = users.max(company.users);
            term::fan::judge(company, fleets.home_share(sighting.app, sighting.at))
        };
        let by_prefix = fan(sighting.app ^ (u64::from(sighting.prefix) << 8 | 1));
        let by_network = if level >= net::level::USERS_NETWORK {
            fan(sighting.app ^ (u64::from(sighting.network) << 8 | 2))
        } else {
            0.0
        };
        let by_address = fan(u64::from(sighting.address) << 8 | 3);
        let strongest = |a: f64, b: f64| if a.abs() > b.abs() { a } else { b };
        visit.company = users as u8;
        visit.app_fan = strongest(by_prefix, by_network) as f32;
        // One company counts once: by address only what it says beyond the application's.
        visit.ip_fan = (by_address - f64::from(visit.app_fan).max(0.0)).max(0.0) as f32;
    }
}

fn fast_travel(others: &Others, hosting: bool) -> f64 {
    let assumed = if hosting { 0.2 } else { 0.02 };
    others.population.fast_travel[usize::from(hosting)].get(assumed, 20.0)
}

/// The worst of the baseline's other holders of the last day: those that were there before, by another network. One
/// address with several clients is a console, or somebody's desk.
fn sibling(baseline: &Baseline, held: usize, at: i64, prior: f64) -> f64 {
    let own = &baseline.contexts[held];
    let others = baseline.contexts.iter().enumerate().filter(|(place, other)| {
        *place != held
            && other.network != own.network
            && other.born <= own.born
            && usize::from(own.level) >= net::level::KNOWN_NETWORK
            && (at - other.last_at).abs() < DAY_MS as i64
    });
    others.map(|(_, other)| term::sibling::judge(other.log_odds.get(), prior)).fold(0.0, f64::max)
}

/// Time zones between here and the place of the owner's that is farthest from it.
fn hours_east(baseline: &Baseline, sighting: &Sighting) -> i32 {
    let home = baseline.sites.iter().filter(|site| site.exists());
    let home = home.max_by(|a, b| a.distance_km(&sighting.site).total_cmp(&b.distance_km(&sighting.site)));
    match home {
        Some(home) if sighting.site.exists() => sighting.site.hours_east_of(home),
        _ => 0,
    }
}

fn own_hours(baseline: &Baseline, sighting: &Sighting) -> [f64; 24] {
    match &baseline.grown {
        Some(grown) if baseline.visits >= WEEKEND_VISITS && sighting.is_weekend() => grown.weekend.map(f64::from),
        _ => baseline.hours.map(|count| f64::from(count) / 16.0),
    }
}

/// Bin of the season: the UTC hour, weekdays before weekends.
const fn season_bin(hour: u32) -> usize {
    let weekend = matches!((hour / 24 + 4) % 7, 0 | 6);
    (hour % 24) as usize + if weekend { 24 } else { 0 }
}

/// What this hour of the day usually has more of than others, nats.
fn season(baseline: &Baseline, sighting: &Sighting) -> f64 {
    let grown = baseline.grown.as_ref();
    grown.map_or(0.0, |grown| f64::from(grown.season[season_bin(sighting.hour_number())]) / 16.0)
}

const fn habit(baseline: &Baseline, what: Hourly) -> &Habit {
    match what {
        Hourly::Calls => &baseline.calls,
        Hourly::Objects => &baseline.objects,
        Hourly::Bytes => &baseline.bytes,
    }
}

/// Learns the hour that is over, now that `next` (hours since the epoch) has begun.
fn end_hour(baseline: &mut Baseline, others: &mut Others, kind: Kind, next: u32) {
    let hour = baseline.hour;
    if hour.calls == 0 {
        return;
    }
    let Others { cohorts, bursts, .. } = others;
    let weight = f64::from(hour.weight);
    let mut learn = |what: Hourly, habit: &mut Habit, count: f64, off: f64, hours_max: f64| {
        if count > 0.0 {
            let value = ln(count) - off;
            let mean = if habit.hours > 0.0 { f64::from(habit.mean) } else { value };
            cohorts.learn_hourly(kind, what, value, mean, weight);
            habit.learn(value, weight, hours_max);
        }
    };
    let bin = season_bin(hour.number);
    let before = baseline.grown.as_ref().map_or(0.0, |grown| f64::from(grown.season[bin]) / 16.0);
    let value = ln(f64::from(hour.calls));
    let mean = f64::from(baseline.calls.mean);
    learn(Hourly::Calls, &mut baseline.calls, f64::from(hour.calls), before, term::volume::CALL_HOURS_MAX);
    learn(Hourly::Objects, &mut baseline.objects, hour.objects(), 0.0, term::volume::OBJECT_HOURS_MAX);
    learn(Hourly::Bytes, &mut baseline.bytes, f64::from(hour.kilobytes), before, term::volume::CALL_HOURS_MAX);
    if let Some(grown) = &mut baseline.grown
        && baseline.calls.hours > 8.0
    {
        // The season forgets a tenth (at weekends, which are rarer, a seventh) at each such hour, and begins at nothing.
        let rate = weight * if bin >= 24 { 0.15 } else { 0.1 };
        let season = before + rate * (value - mean - before);
        grown.season[bin] = libm::round(season * 16.0) as i8;
    }
    baseline.reads = (0.98 * f64::from(baseline.reads) + weight * f64::from(hour.reads)) as f32;
    baseline.all_calls = (0.98 * f64::from(baseline.all_calls) + weight * f64::from(hour.calls)) as f32;
    cohorts.learn_reads(kind, f64::from(hour.reads) / f64::from(hour.calls), weight);
    if f64::from(hour.burst) >= term::volume::BURST && weight > 0.5 {
        baseline.burst_day = (hour.number / 24) as u16;
    }
    if hour.number / 24 != next / 24 {
        bursts.token_day();
    }
}

/// Takes in an event by the probability that it was the owner's.
#[expect(clippy::too_many_arguments, reason = "all that learns, each lent for itself")]
fn learn(
    baseline: &mut Baseline,
    user: Option<&mut User>,
    visit: &Visit,
    others: &mut Others,
    scene: &Scene<'_>,
    kind: Kind,
    owner: f64,
    learns: Learns,
) {
    let Scene { sighting, enriched, .. } = scene;
    let Others { population, cohorts, .. } = others;
    let day = sighting.day();
    baseline.hour.weight = baseline.hour.weight.min(owner as f32);
    if learns.route > 0.0 {
        let weight = owner * learns.route / term::route::weight(1);
        let route = enriched.route.key;
        baseline.seen.learn(Sort::Route, route, weight, day);
        baseline.routes_total = (f64::from(baseline.routes_total) + weight).min(2_000.0) as f32;
        population.learn_route(sighting.family, kind.number(), route, learns.promise, weight);
    }
    if learns.area {
        let area = enriched.route.area;
        let new = !baseline.seen.knows(Sort::Area, area);
        baseline.seen.learn(Sort::Area, area, owner, day);
        baseline.areas_total = (f64::from(baseline.areas_total) + owner).min(2_000.0) as f32;
        population.learn_area(sighting.tenant, area, owner);
        if baseline.visits > 3 {
            cohorts.learn_area(kind, new, owner);
        }
    }
    if let Some(switched) = learns.switch {
        baseline.switches += switched as f32;
    }
    baseline.active_minutes += learns.active_minutes as f32;
    if learns.active_minutes > 0.0 || learns.switch.is_some() {
        cohorts.learn_activity(kind, learns.switch.unwrap_or(0.0), learns.active_minutes);
    }
    if let Some(user) = user {
        learn_visit(baseline, user, visit, population, cohorts, scene, kind, owner, learns.first);
    }
    baseline.last_at = baseline.last_at.max(sighting.at);
    baseline.network = sighting.network;
}

/// Takes in where, when and with what a visit took place.
#[expect(clippy::too_many_arguments, reason = "all that learns, each lent for itself")]
fn learn_visit(
    baseline: &mut Baseline,
    user: &mut User,
    visit: &Visit,
    population: &mut crate::memory::Population,
    cohorts: &mut crate::memory::Cohorts,
    scene: &Scene<'_>,
    kind: Kind,
    owner: f64,
    first: bool,
) {
    let sighting = &scene.sighting;
    let (net_level, client_level) = (usize::from(visit.net_level), usize::from(visit.client_level));
    let hosting = sighting.class != NetworkClass::Access;
    if !first || user.is_known() {
        cohorts.learn_visit(kind, baseline.visits, net_level, client_level, owner);
    }
    if !first {
        baseline.net_levels.learn(net_level, owner);
        baseline.client_levels.learn(client_level, owner);
        if net_level >= net::level::NEW_NETWORK
            && sighting.class != NetworkClass::Anonymiser
            && let Some(journey) = net::journey(&baseline.sites, &sighting.site)
        {
            population.fast_travel[usize::from(hosting)].learn(journey.too_fast(), owner);
        }
    }
    if !baseline.seen.knows(Sort::Network, sighting.network) && owner > 0.5 {
        baseline.networks = baseline.networks.saturating_add(1);
        baseline.hosting_networks = baseline.hosting_networks.saturating_add(u8::from(hosting));
        cohorts.learn_network(kind, hosting, owner);
    }
    if sighting.fingerprint != 0 && !baseline.seen.knows(Sort::Fingerprint, sighting.fingerprint) {
        population.learn_fingerprint(sighting.fingerprint, sighting.family, owner);
    }
    baseline.learn_place(sighting, owner);
    learn_times(baseline, sighting, owner);
    population.learn_hour(sighting.hour(), owner);
    let recent = user.days_since_change(sighting.at).is_some_and(|days| days <= term::credential::DAYS_MAX);
    population.after_change.learn(recent, owner);
    learn_user(user, population, sighting, kind, owner);
    baseline.visits = baseline.visits.saturating_add(1);
    if baseline.visits == GROWN_VISITS {
        baseline.grown = Some(Box::new(Grown::default()));
    }
}

/// Takes in a visit as one of its user's.
pub fn learn_user(
    user: &mut User,
    population: &mut crate::memory::Population,
    sighting: &Sighting,
    kind: Kind,
    owner: f64,
) {
    let token_type = kind.token_type();
    if !user.has_network(sighting.network) {
        population.learn_network(sighting.tenant, sighting.network, sighting.country, user.is_known(), owner);
    }
    if !user.has_family(sighting.family) {
        population.learn_family(sighting.app, token_type, sighting.family, owner);
    }
    if owner > 0.5 {
        user.learn(sighting.network, sighting.family, sighting.country);
    }
}

/// Takes in when a visit began, and where it was then.
fn learn_times(baseline: &mut Baseline, sighting: &Sighting, owner: f64) {
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
        baseline.hours[hour] = baseline.hours[hour].saturating_add((owner * 16.0 + 0.5) as u16);
    }
    if sighting.site.exists() && owner > 0.5 {
        let same = baseline.sites.iter().position(|site| site.exists() && site.distance_km(&sighting.site) < 50.0);
        // The eldest makes room.
        let place = same.unwrap_or(baseline.sites.len() - 1);
        baseline.sites[..=place].rotate_right(1);
        baseline.sites[0] = sighting.site;
    }
}
