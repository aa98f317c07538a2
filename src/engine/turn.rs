//! The terms in their turn: what of memory each is asked with, and where its answer is kept.

use super::learn::{WEEKEND_VISITS, begin_hour, end_hour, owner, season_bin};
use super::lesson::{Came, Lesson};
use super::score::{Observation, Standing};
use crate::enrichment::Keys;
use crate::event::{Kind as EventKind, TokenType};
use crate::math::{faded, ln};
use crate::memory::baseline::Hour;
use crate::memory::cohort::Hourly;
use crate::memory::fleet::Member;
use crate::memory::population::Callers;
use crate::memory::visit::Core;
use crate::memory::{Baseline, Cohorts, Feature, Holder, Kind, Nats, Others, Population, Sighting, Tenant, User};
use crate::place::NetworkClass;
use crate::route;
use crate::term::lifecycle::{Answer, Foreign};
use crate::term::volume::Burst;
use crate::term::{self, Term, client, net};
use crate::verdict::RuleId;

const MINUTE_MS: f64 = 60_000.0;
const DAY_MS: f64 = 86_400_000.0;

/// Events older than the last of their baseline by more than this came out of order.
const ORDER_MS: i64 = 60_000;
/// A silence of so long is a pause.
const PAUSE_MS: i64 = 30 * 60_000;
/// Of a shorter silence so much counts as activity at the most.
const ACTIVE_MS_MAX: i64 = 10 * 60_000;

/// Visits of one's own after which changes of network count in full: new grants are still being set up.
const SETTLED_VISITS: f64 = 10.0;
/// So long a holder's place and client are news, and again after so long an absence: who has gone on for longer, and was
/// neither taken for a thief nor for the owner by anybody, is less and less likely to be one. One call of a thief's makes no
/// old acquaintance.
const NEWS_DAYS: f64 = 7.0;
/// Visits from a prefix that make it a usual one.
const USUAL_VISITS: f64 = 3.0;
/// Calls and objects are scored from so many calls an hour on; bytes from the first.
pub(crate) const CALLS_MIN: u32 = 8;

/// One event's turn over the terms.
pub(crate) struct Turn<'a> {
    pub observation: &'a Observation<'a>,
    pub kind: Kind,
    pub blank: bool,
    pub changed: bool,
}

impl Turn<'_> {
    /// Net, client, hour and credential: once a visit.
    pub(crate) fn begin_visit(&mut self, baseline: &Baseline, user: &User, others: &Others, lesson: &mut Lesson) {
        let sighting = self.observation.sighting;
        if self.blank {
            return;
        }
        let (held, visit) = (&lesson.holder, &lesson.visit);
        let days = (sighting.at - held.last_at).max(0) as f64 / DAY_MS;
        let left_of_hour = faded(days, 1.0);
        let (hour_before, level) = (held.evidence.hour.get() * left_of_hour, usize::from(visit.net_level));

        let net = if sighting.has_place() { self.net(baseline, user, others, level) } else { net::Net::NOTHING };
        let client = self.client(baseline, others, usize::from(visit.client_level));
        let hours = own_hours(baseline, sighting);
        let of_phase = baseline.grown.as_ref().map_or(0.0, |grown| {
            term::hour::phase(sighting.at, &grown.phases, term::hour::remembered(baseline.visits))
        });
        let shift = if level == net::level::NEW_COUNTRY { hours_east(baseline, sighting) } else { 0 };
        let everybody = others.population.share_of_hour(self.observation.tenant);
        let hour =
            self.observation.timed.then(|| term::hour::judge(sighting.hour(), &hours, everybody, of_phase, shift));

        let silence = if self.in_order(lesson) { self.silence(baseline, lesson, &hours) as f32 } else { 0.0 };
        let (knows_place, knows_client) = self.vouched(baseline, lesson);
        let (held, visit) = (&mut lesson.holder, &mut lesson.visit);
        visit.silence = silence;
        // Once it is known, it need not be taken at its word any more, from wherever it comes next.
        held.confirmed &= net.sum() >= 0.0 || client.ratio >= 0.0;
        // Only of what makes this a holder of its own: what is new within the owner's network, or program, is news.
        let left = if days > NEWS_DAYS { 1.0 } else { NEWS_DAYS / held.age_days(sighting.at).max(NEWS_DAYS) };
        let news = |feature, key| if baseline.seen.knows(feature, key) { 1.0 } else { left };
        let place_is_news = news(Feature::Network, sighting.network);
        let client_is_news = news(Feature::Family, sighting.family);
        let evidence = &mut held.evidence;
        if net.sum() >= 0.0 {
            let told = place_is_news * net.sum();
            if told >= evidence.net.get() && !held.confirmed {
                evidence.net = Nats::new(told);
                evidence.travel = Nats::new(place_is_news * net.travel);
            }
        } else {
            visit.net_credit = if knows_place { net.sum() as f32 } else { 0.0 };
        }
        if client.ratio >= 0.0 {
            if !held.confirmed {
                evidence.client = evidence.client.max(Nats::new(client_is_news * client.ratio));
            }
        } else {
            visit.client_credit = if knows_client { client.ratio as f32 } else { 0.0 };
        }
        if let Some(hour) = hour {
            evidence.hour = Nats::new(term::hour::carried(hour_before, left_of_hour, hour.sum()));
            visit.hour_p = hour.p_value as f32;
        }
        if let Some(journey) = net.journey.filter(net::Journey::too_fast) {
            (visit.travel_km, visit.travel_minutes) = (journey.km as f32, journey.minutes as f32);
        }
        visit.net_p = net.p_value as f32;
        visit.client_p = client.p_value as f32;

        let days_since_change = user.days_since_change(sighting.at);
        let is_old = i64::from(baseline.first_minute) * 60_000 < user.changed_at();
        let born_after = i64::from(held.born) * 60_000 >= user.changed_at();
        if self.observation.timed
            && days_since_change.is_some_and(|days| days <= term::credential::DAYS_MAX)
            && is_old
            && born_after
            && usize::from(held.level) >= net::level::KNOWN_NETWORK
        {
            let rate = others.population.after_change.read(self.observation.tenant.seat);
            evidence.credential = Nats::new(term::credential::judge(rate.chances(), rate.happened()));
        }
    }

    /// Whether the event's place among those of its baseline is known.
    const fn in_order(&self, lesson: &Lesson) -> bool {
        self.observation.timed && !lesson.late
    }

    /// Whether place and client became known by another holder than this one. A returning thief has a known address and a
    /// known client, just as an owner who has moved.
    fn vouched(&self, baseline: &Baseline, lesson: &Lesson) -> (bool, bool) {
        let held = &lesson.holder;
        let is_new = is_new_place(held, self.observation.sighting.at) && !held.confirmed;
        let same_client = |other: &Holder| other.family == held.family && other.born < held.born;
        (!is_new, !is_new || lesson.others(baseline).any(|(_, other)| same_client(other)))
    }

    /// For a young holder: whether the one before has left, by the visits that were to be expected since.
    fn silence(&self, baseline: &Baseline, lesson: &Lesson, hours: &[u16; 24]) -> f64 {
        let sighting = self.observation.sighting;
        if !sighting.has_place() {
            return 0.0;
        }
        let held = &lesson.holder;
        let is_young = held.age_days(sighting.at) < term::switch::AGE_DAYS_MAX;
        let elsewhere = lesson.others(baseline).filter(|(_, other)| other.network != held.network);
        let Some(last) = elsewhere.map(|(_, other)| lesson.last_at_of(other)).max() else { return 0.0 };
        let lived = (sighting.at - i64::from(baseline.first_minute) * 60_000) as f64 / DAY_MS;
        if !is_young || usize::from(held.level) < net::level::KNOWN_NETWORK || lived < 3.0 {
            return 0.0;
        }
        let a_day = f64::from(baseline.visits) / lived;
        let total = hours.iter().map(|count| u32::from(*count)).sum::<u32>().max(16);
        // Hour by hour, a week at the most.
        let hours_since = ((sighting.at - last).max(0) / 3_600_000).min(168);
        let hour = sighting.at / 3_600_000;
        let spanned = (1..=hours_since).map(|back| u32::from(hours[((hour - back) % 24) as usize])).sum::<u32>();
        term::switch::silence(a_day * f64::from(spanned) / f64::from(total))
    }

    fn net(&self, baseline: &Baseline, user: &User, others: &Others, level: usize) -> net::Net {
        let sighting = self.observation.sighting;
        let cohorts = others.cohorts.of(self.observation.tenant.seat);
        let hosting = sighting.class != NetworkClass::Access;
        let own = f64::from(baseline.hosting_networks) + 3.0 * cohorts.hosting(self.kind);
        // Relays and anonymisers say nothing of where the client is.
        let travels =
            self.observation.timed && sighting.class != NetworkClass::Anonymiser && level >= net::level::NEW_NETWORK;
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
            travel: travel.map(|journey| (journey, fast_travel(others, self.observation.tenant, hosting))),
        })
    }

    /// Probabilities of this network among others, as a thief's and as the owner's.
    fn which_network(&self, baseline: &Baseline, user: &User, others: &Others) -> (f64, f64) {
        let sighting = self.observation.sighting;
        let mut known: Vec<u32> = baseline.seen.known(Feature::Country).chain(user.countries()).collect();
        known.sort_unstable();
        known.dedup();
        let (thief, owner) =
            others.population.chooses(self.observation.tenant, sighting.network, sighting.country, &known);
        let is_known = baseline.seen.knows(Feature::Network, sighting.network) || user.has_network(sighting.network);
        let stays = if is_known { net::STAYS } else { 0.0 };
        (thief, stays + (1.0 - stays) * owner)
    }

    fn client(&self, baseline: &Baseline, others: &Others, level: usize) -> term::LevelRatio {
        let (sighting, tenant) = (self.observation.sighting, self.observation.tenant);
        let token_type = self.kind.token_type();
        let which = if level >= client::level::USERS_FAMILY {
            (
                others.population.families.thief(tenant.seat, sighting.family, 2.0),
                others.population.has_family(tenant, sighting.app, token_type, sighting.family),
            )
        } else {
            (1.0, 1.0)
        };
        let cohort = others.cohorts.of(tenant.seat).client(self.kind, baseline.visits);
        client::judge(level, &baseline.client_levels.get(), &cohort, which)
    }

    /// Route: at its first call in a visit, and whenever there are four times as many.
    pub(crate) fn route(&mut self, baseline: &Baseline, others: &Others, lesson: &mut Lesson) {
        let Lesson { holder: held, visit, learns, .. } = lesson;
        let route = self.observation.enriched.route;
        let endpoint = self.observation.enriched.event.endpoint.as_deref().unwrap_or_default();
        let (population, tenant) = (&others.population, self.observation.tenant);
        let used = population.route(tenant, route.key).unwrap_or_else(|| {
            population.own_route(tenant, route.key, term::route::promise(&route::template(endpoint), route.reads))
        });
        learns.promise = f64::from(used.promise);
        if self.blank {
            return;
        }
        let sighting = self.observation.sighting;
        let own = baseline.own_route(route.key);
        let calls = f64::from(visit.calls);
        learns.nobodys = population.is_nobodys(tenant, used);
        let (mut call, weight) = if learns.nobodys && own.of_this <= 0.0 {
            let cohort = others.cohorts.of(tenant.seat).nobodys_routes(self.kind);
            let call = term::route::nobodys(&baseline.own_nobodys(), cohort, used.lure(), calls);
            (call, term::route::weight(visit.count_nobodys()))
        } else {
            let callers = population.callers(tenant, sighting.app, sighting.family);
            let likely = population.calls(&callers, route.key, used);
            let mut remembered = || self.routes_remembered(baseline, visit, &callers, population);
            let own = if own.of_this > 0.0 { own } else { own.spread(remembered()) };
            (term::route::judge(&own, likely.others, likely.thief, calls), learns.route)
        };
        if weight <= 0.0 {
            return;
        }
        if call.against_task > 0.0 {
            visit.task_calls = visit.task_calls.saturating_add(1);
            call.against_task = term::route::of_one_task(call.against_task, visit.task_calls.into());
        }
        let new_client = usize::from(visit.client_level) >= client::level::USERS_FAMILY;
        let rate = others.cohorts.of(tenant.seat).new_routes(self.kind);
        visit.weighed = visit.weighed.saturating_add(1);
        let settled = held.age_days(sighting.at) > term::route::SETTLED_DAYS;
        let evidence = &mut held.evidence;
        let (against_owner, against_task) = (
            evidence.route_owner.get() + weight * call.against_owner,
            evidence.route_task.get() + weight * call.against_task,
        );
        (evidence.route_owner, evidence.route_task) = (Nats::new(against_owner), Nats::new(against_task));
        let of_holder = term::route::holder(against_owner, against_task, term::route::new_task(rate, new_client));
        let before = evidence.route.get() + f64::from(visit.amid);
        visit.amid = 0.0;
        if settled {
            let sums = (f64::from(visit.amid_owner), f64::from(visit.amid_task));
            let (owner, task) = term::route::amid(sums, &call, weight);
            (visit.amid_owner, visit.amid_task) = (owner as f32, task as f32);
            if owner > 0.0 {
                let of_guest = term::route::holder(owner, task, term::route::new_task(rate, new_client))
                    - ln(f64::from(visit.weighed));
                visit.amid = if of_guest > 0.0 { (of_guest - of_holder).max(0.0) as f32 } else { 0.0 };
            }
        }
        let after = of_holder + f64::from(visit.amid);
        self.changed |= Nats::new(after) > Nats::new(before);
        if learns.promise > 1.0 && call.against_owner > 0.0 {
            let share = (weight * 0.6 * ln(learns.promise)).min(after.max(0.0));
            evidence.sensitive = Nats::new((evidence.sensitive.get() + share).min(after.max(0.0)));
        }
        evidence.route = Nats::new(of_holder);
    }

    /// Others' share of calls to the routes that the owner's memory holds.
    fn routes_remembered(
        &self,
        baseline: &Baseline,
        visit: &mut Core,
        callers: &Callers,
        population: &Population,
    ) -> f32 {
        let used = |route| population.route(self.observation.tenant, route).unwrap_or_default();
        let share = |(route, _)| population.calls(callers, route, used(route)).others;
        visit.routes_remembered.get_or_insert_with(|| baseline.seen.each(Feature::Route).map(share).sum::<f64>() as f32)
    }

    /// The same of visits to areas.
    fn areas_remembered(&self, baseline: &Baseline, visit: &mut Core, others: &Others) -> f32 {
        let share = |(area, own)| others.population.touches(self.observation.sighting.tenant, area, own);
        visit.areas_remembered.get_or_insert_with(|| baseline.seen.each(Feature::Area).map(share).sum::<f64>() as f32)
    }

    /// Area: at its first call in a visit.
    pub(crate) fn area(&mut self, baseline: &Baseline, others: &Others, lesson: &mut Lesson) {
        if self.blank {
            return;
        }
        let area = self.observation.enriched.route.area;
        let own = baseline.own_area(area);
        let own = if own.of_this > 0.0 {
            own
        } else {
            own.spread(self.areas_remembered(baseline, &mut lesson.visit, others))
        };
        let (_, once) = baseline.seen.variety(Feature::Area);
        let tenant = others.population.touches(self.observation.sighting.tenant, area, own.of_this);
        let new_areas = others.cohorts.of(self.observation.tenant.seat).new_areas(self.kind);
        let (share, _) = term::area::judge(&own, once as f64, new_areas, tenant);
        let evidence = &mut lesson.holder.evidence;
        evidence.area = Nats::new(term::area::carried(evidence.area.get(), share));
        self.changed |= share > 0.0;
    }

    /// Switch: at a change of network within an hour.
    pub(crate) fn switch(&mut self, baseline: &Baseline, others: &Others, lesson: &mut Lesson) {
        let sighting = self.observation.sighting;
        if !self.in_order(lesson) || sighting.at < lesson.last_at - ORDER_MS {
            return;
        }
        let gap_ms = (sighting.at - lesson.last_at).max(0);
        // A pause is no activity; what lies between two calls of one sitting is.
        lesson.learns.active_ms = if gap_ms < PAUSE_MS { gap_ms.min(ACTIVE_MS_MAX) as u32 } else { 0 };
        let gap = gap_ms as f64 / MINUTE_MS;
        if !sighting.has_place()
            || baseline.network == 0
            || baseline.network == sighting.network
            || gap >= term::switch::GAP_MINUTES_MAX
        {
            return;
        }
        let before = lesson.others(baseline).filter(|(_, other)| other.network == baseline.network);
        let before = before.max_by_key(|(_, other)| lesson.last_at_of(other));
        let mut younger = before.filter(|(_, other)| other.born > lesson.holder.born).map(|(at, other)| (at, *other));
        let settled = ((f64::from(baseline.visits) + 2.0) / SETTLED_VISITS).min(1.0);
        let (changes, active) = (baseline.activity.changes(), baseline.activity.minutes());
        let holder = younger.as_mut().map_or(&mut lesson.holder, |(_, other)| other);
        lesson.learns.switch = Some(owner(holder.log_odds.get()));
        if usize::from(holder.level) < net::level::KNOWN_NETWORK
            || holder.age_days(sighting.at) > term::switch::AGE_DAYS_MAX
            || self.blank
        {
            return;
        }
        holder.switches = holder.switches.saturating_add(1);
        let cohort = others.cohorts.of(self.observation.tenant.seat).switches(self.kind);
        let switch = term::switch::judge(gap, changes, active, cohort, holder.switches);
        let sum = holder.evidence.switch.get() + settled * switch.share;
        holder.evidence.switch = Nats::new(sum.clamp(-3.0, term::switch::SUM_MAX));
        lesson.other = younger;
        self.changed = true;
    }

    /// Volume: when calls of the running hour have doubled, or bytes to more than is usual. What was refused was no call.
    pub(crate) fn volume(&mut self, baseline: &Baseline, others: &Others, lesson: &mut Lesson) {
        let sighting = self.observation.sighting;
        let enriched = self.observation.enriched;
        if !self.in_order(lesson) || self.observation.standing == Standing::Attempt {
            return;
        }
        let number = sighting.hour_number();
        if number > lesson.hour.number {
            lesson.ended_hour = end_hour(baseline, &lesson.hour, number);
            let past = u64::from(baseline.first_minute) << 32 | u64::from(baseline.visits);
            lesson.hour = Hour::begin(number, past);
            let (mean, variance, hours) =
                hourly((baseline, lesson), others.cohorts.of(self.observation.tenant.seat), Hourly::Bytes, number);
            lesson.hour.doublings_usual = Hour::doublings(term::volume::usual(mean, variance, hours) as f32);
            lesson.hour_begins = true;
            begin_hour(&mut lesson.holder.evidence);
        } else if number < lesson.hour.number {
            return;
        }
        let hour = &mut lesson.hour;
        hour.calls = hour.calls.saturating_add(1);
        hour.reads += u32::from(enriched.route.reads);
        let before = hour.kilobytes;
        hour.kilobytes += enriched.event.bytes_out.map_or(0.0, |bytes| bytes as f32 / 1024.0);
        let doublings = Hour::doublings(hour.kilobytes);
        let more_bytes = doublings > Hour::doublings(before) && doublings >= hour.doublings_usual;
        let more_calls = hour.calls >= CALLS_MIN && hour.calls.is_power_of_two();
        if let Some(object) = enriched.route.object {
            hour.touch(object);
        }
        if !(more_calls || more_bytes) || self.blank {
            return;
        }
        let (tenant, day) = (self.observation.tenant, self.observation.day());
        let (cohorts, bursts) = (others.cohorts.of(tenant.seat), &others.bursts);
        let burst_day = lesson.ended_hour.as_ref().map_or(baseline.burst_day, |ended| ended.burst_day);
        let returns = term::volume::returns(day, u32::from(burst_day));
        let alone = |ratio: f64| {
            // Hardly an hour is a burst, and only for one are others asked.
            let excess = if ratio > 0.0 { bursts.excess(tenant, day) } else { 1.0 };
            term::volume::shared(ratio, bursts.usual(tenant.seat, ratio), excess, returns)
        };
        // A single answer may be as large as all of a day; a few calls are no burst.
        if more_bytes {
            let bytes = burst((baseline, lesson), cohorts, Hourly::Bytes, number);
            let evidence = &mut lesson.holder.evidence;
            evidence.bytes = evidence.bytes.max(Nats::new(alone(bytes.ratio)));
        }
        if !more_calls {
            return;
        }
        let [calls, objects] =
            [Hourly::Calls, Hourly::Objects].map(|what| burst((baseline, lesson), cohorts, what, number));
        let (of_calls, of_objects) = (alone(calls.ratio), alone(objects.ratio));
        let (hour, habits) = (&lesson.hour, lesson.habits(baseline));
        let reads = if of_calls.max(of_objects) > 0.0 {
            term::volume::reads(
                f64::from(hour.reads),
                f64::from(hour.calls),
                f64::from(habits.reads),
                f64::from(habits.all_calls),
                cohorts.reads(self.kind),
            )
        } else {
            // Where nothing is large it has nothing to go with.
            0.0
        };
        let volume = Nats::new(term::volume::sum(of_calls, of_objects, reads));
        let evidence = &mut lesson.holder.evidence;
        if volume > evidence.volume {
            evidence.volume = volume;
            // What objects add beyond calls: a walk over many of them.
            let by_calls = term::volume::sum(of_calls, 0.0, reads);
            evidence.objects = Nats::new((volume.get() - by_calls).max(0.0));
            self.changed = true;
        }
        let largest = calls.ratio.max(objects.ratio);
        if largest > f64::from(lesson.hour.burst) && largest >= term::volume::BURST {
            lesson.learns.burst = Some((f64::from(lesson.hour.burst), largest));
            lesson.hour.burst = largest as f32;
        }
    }

    /// Whether the owner's own machine seems to be at work: the holder was there from the beginning or is an old one, at a
    /// usual prefix, with a client that is known and not made to look so. By what is known now: a visit may last for weeks.
    fn at_home(&self, baseline: &Baseline, lesson: &Lesson, others: &Others) -> bool {
        let sighting = self.observation.sighting;
        let (held, seen) = (&lesson.holder, &baseline.seen);
        let is_new = is_new_place(held, sighting.at) && !held.confirmed && held.born != baseline.first_minute;
        let prefix = sighting.prefix_in(sighting.country);
        let is_usual = !sighting.has_place()
            || seen.count(Feature::Prefix, prefix) >= USUAL_VISITS
            || seen.most(Feature::Prefix).is_some_and(|(most, _)| most == prefix);
        let borrowed = !seen.knows(Feature::Fingerprint, sighting.fingerprint)
            && others.population.is_borrowed(sighting.fingerprint, sighting.family);
        !is_new && is_usual && seen.knows(Feature::Family, sighting.family) && !borrowed
    }

    /// Life cycle: at every event.
    pub(crate) fn lifecycle(&mut self, baseline: &Baseline, others: &Others, lesson: &mut Lesson) {
        let (visit, gone_on) = (&lesson.visit, lesson.gone_on);
        let Observation { sighting, enriched, ended, expiry, ahead, .. } = self.observation;
        let (event, Keys { token, .. }) = (&enriched.event, &enriched.keys);
        let at = sighting.at;
        let answer = Answer::of(event.status, event.kind == EventKind::Refreshed);
        let foreign = Foreign {
            address: usize::from(visit.net_level) > net::level::KNOWN_ADDRESS,
            network: usize::from(visit.net_level) >= net::level::USERS_NETWORK,
            client: usize::from(visit.client_level) >= client::level::USERS_FAMILY,
        };
        let new_token = baseline.token != *token as u32;
        let mut reuse = 0.0;
        if event.reuse_reported {
            // The provider has compared the tokens itself.
            reuse = term::lifecycle::CERTAIN;
        } else if event.kind == EventKind::Refreshed {
            let mut refreshes = baseline.refreshes.as_deref().cloned().unwrap_or_default();
            reuse = term::lifecycle::refresh(&mut refreshes, *token, at, sighting.address, sighting.agent);
            lesson.refreshes = Some(refreshes);
        } else if answer == Answer::Accepted && event.token_type != TokenType::Refresh && new_token {
            // A token that the family had not used before, and that works: the answer that brought it has arrived.
            if let Some(refreshes) = baseline.refreshes.as_deref() {
                term::lifecycle::successor_used(lesson.refreshes.insert(refreshes.clone()), at);
            }
            lesson.token = *token as u32;
        }
        let shown = enriched.keys.binding;
        let at_home = || self.at_home(baseline, lesson, others);
        let (mut key, mut streak) = (baseline.binding, baseline.binding_streak);
        let mut binding = term::lifecycle::binding(&mut key, &mut streak, shown, new_token, gone_on, at_home);
        if !self.in_order(lesson) {
            // It may be the key of before a change.
            (binding, key, streak) = (binding.min(term::lifecycle::AT_HOME), baseline.binding, baseline.binding_streak);
        }
        let expired = expiry.map_or(0.0, |expiry| {
            let at_issue = || term::lifecycle::said_at_issue(others.population.outlives(sighting.tenant, sighting.app));
            let said = if expiry.said_at_issue { at_issue() } else { term::lifecycle::CERTAIN };
            let most = if expiry.is_over(at) && at_home() { said.min(term::lifecycle::AT_HOME) } else { said };
            term::lifecycle::after_expiry(expiry, most, at - ahead, visit.began - ahead, answer)
        });
        (lesson.binding, lesson.binding_streak) = (key, streak);
        let found = [
            (RuleId::RefreshReuse, reuse),
            (RuleId::BindingMismatch, binding),
            (RuleId::UseAfterRevocation, term::lifecycle::after_revocation(*ended, at, answer, foreign)),
            (RuleId::UseAfterSessionEnd, term::lifecycle::after_session_end(*ended, at, answer, foreign)),
            (RuleId::UseAfterExpiry, expired),
        ];
        for (rule, share) in found {
            let holder = &mut lesson.holder;
            if share > 0.0 && Nats::new(share) >= holder.evidence.lifecycle {
                self.changed |= Nats::new(share) > holder.evidence.lifecycle;
                holder.evidence.lifecycle = Nats::new(share);
                holder.lifecycle_rule = rule as u8;
            }
        }
    }

    /// Fan: when what is odd about the holder has changed.
    pub(crate) fn fan(&self, others: &Others, lesson: &mut Lesson) {
        let Lesson { holder, visit, learns, .. } = lesson;
        let sighting = self.observation.sighting;
        let level = usize::from(visit.net_level);
        let fleets = &others.fleets;
        if !self.observation.timed {
            return;
        }
        if !sighting.has_place() {
            return;
        }
        if level == net::level::KNOWN_ADDRESS {
            learns.came = Came::Home;
            return;
        }
        let evidence = &holder.evidence;
        let client = evidence.client.get() + f64::from(visit.client_credit);
        let oddness = evidence.route.get() + 0.5 * client + evidence.hour.get();
        let (Sighting { app, at, .. }, tenant) = (*sighting, self.observation.tenant);
        // Of a tenant's tokens of no application each is a thing of its own; where no tenant is named, who knows whose.
        let event = &self.observation.enriched.event;
        let own_app = if event.app_id.is_none() && event.tenant_id.is_some() { self.observation.user } else { app };
        let member = Member::new(self.observation.user, tenant, own_app, at, oddness);
        let mut users = 0;
        let mut groups = [None; 3];
        let mut fan = |key: u64| {
            let group = fleets.group(key);
            if let Some(place) = groups.iter_mut().find(|place| place.is_none()) {
                *place = Some(group);
            }
            let company = fleets.company(group, &member);
            users = users.max(company.users);
            (term::fan::judge(company, || fleets.home_share(app, tenant, at)), company)
        };
        let (by_prefix, _) = fan(sighting.app ^ (u64::from(sighting.prefix) << 8 | 1));
        let by_network = if level >= net::level::USERS_NETWORK {
            fan(sighting.app ^ (u64::from(sighting.network) << 8 | 2)).0
        } else {
            0.0
        };
        let (by_address, company) = fan(u64::from(sighting.address) << 8 | 3);
        learns.came = Came::Among { member, groups };
        let strongest = |a: f64, b: f64| if a.abs() > b.abs() { a } else { b };
        visit.company = users as u8;
        visit.app_fan = strongest(by_prefix, by_network) as f32;
        // One company counts once: by address only what it says beyond the application's.
        visit.ip_fan = (by_address - f64::from(visit.app_fan).max(0.0)).max(0.0) as f32;
        let strange = Term::Net.weight() * (evidence.net.get() + f64::from(visit.net_credit))
            + Term::Client.weight() * client
            + evidence.hour.get()
            + f64::from(visit.app_fan)
            + f64::from(visit.ip_fan);
        let of_tenant = || fleets.tenant_share(app, tenant, at);
        visit.together = (term::fan::together(strange, company, of_tenant) - strange) as f32;
    }
}

/// Whether a holder is young, and came from a network that was new.
pub(crate) fn is_new_place(held: &Holder, at: i64) -> bool {
    held.age_days(at) < term::switch::AGE_DAYS_MAX && usize::from(held.level) >= net::level::NEW_NETWORK
}

fn fast_travel(others: &Others, tenant: Tenant, hosting: bool) -> f64 {
    let assumed = if hosting { 0.2 } else { 0.02 };
    others.population.fast_travel[usize::from(hosting)].read(tenant.seat).get(assumed, 20.0)
}

/// The worst of the baseline's other holders of the last day: those that were there before, by another network. One
/// address with several clients is a console, or somebody's desk.
pub(crate) fn sibling(baseline: &Baseline, lesson: &Lesson, at: i64, prior: f64) -> f64 {
    let own = &lesson.holder;
    let others = lesson.others(baseline).filter(|(_, other)| {
        other.network != own.network
            && other.born <= own.born
            && usize::from(own.level) >= net::level::KNOWN_NETWORK
            && (at - lesson.last_at_of(other)).abs() < DAY_MS as i64
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

/// Past visits by UTC hour, in sixteenths.
fn own_hours(baseline: &Baseline, sighting: &Sighting) -> [u16; 24] {
    match &baseline.grown {
        Some(grown) if baseline.visits >= WEEKEND_VISITS && sighting.is_weekend() => {
            grown.weekend.map(|count| u16::from(count) * 16)
        }
        _ => baseline.hours,
    }
}

/// The running hour, `number` since the epoch, against what the owner's hours are like.
pub(crate) fn burst((baseline, lesson): (&Baseline, &Lesson), cohorts: &Cohorts, what: Hourly, number: u32) -> Burst {
    let count = match what {
        Hourly::Calls => f64::from(lesson.hour.calls),
        Hourly::Objects => lesson.hour.objects(),
        Hourly::Bytes => f64::from(lesson.hour.kilobytes),
    };
    let (mean, variance, hours) = hourly((baseline, lesson), cohorts, what, number);
    term::volume::judge(count, mean, variance, hours)
}

/// Mean, variance and number of the owner's hours, for the hour `number`, which has a season of its own.
fn hourly((baseline, lesson): (&Baseline, &Lesson), cohorts: &Cohorts, what: Hourly, number: u32) -> (f64, f64, f64) {
    let bin = season_bin(number);
    let changed = lesson.ended_hour.as_ref().and_then(|ended| ended.season).filter(|(of, _)| *of == bin);
    // What this hour of the day usually has more of than others, nats.
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
