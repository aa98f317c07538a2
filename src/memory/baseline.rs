//! Baseline: the history of one grant, or of a token without a grant. Detectors compare events with it.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

use super::activity::Activity;
use super::areas::Areas;
use super::cohort::Kind;
use super::holder::{HOLDERS_MAX, Holder};
use super::hour::{Habits, Hour};
use super::level::LevelCounts;
use super::seen::{Feature, Seen, sixteenths};
use super::sighting::{Sighting, Site};
use super::visit::{VISIT_GAP_MS, VISITS_MAX};
use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};

/// Number of recent places of the token that are stored.
pub(crate) const SITES_MAX: usize = 3;

/// Sum of calls at which all counts are reduced by 1/16: 2,000 calls, in sixteenths.
const CALLS_MAX: u16 = 2_000 * 16;
/// Sum of calls over which rare routes are counted: 100 calls, in sixteenths.
const RARE_CALLS_MAX: u16 = 100 * 16;
/// Unit of the number of rare calls, in sixteenths of a call. It is small, because the number is rounded at each call.
const RARE_UNIT: u16 = 32;

/// Calls of a baseline with which a call of a route is compared, or visits with which a visit to an area is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OwnCalls {
    /// Of this route or area, or of all rare routes.
    pub(crate) of_this: f64,
    /// Of all routes or areas.
    pub(crate) of_all: f64,
    /// Of routes or areas that are not stored by name.
    pub(crate) elsewhere: f64,
}

impl OwnCalls {
    /// Spreads `elsewhere` over the routes or areas that are not stored. `remembered`: share of the stored ones in the
    /// calls of others.
    #[must_use]
    pub(crate) fn spread(self, remembered: f32) -> Self {
        Self { elsewhere: self.elsewhere / (1.0 - f64::from(remembered)).max(0.05), ..self }
    }
}

/// A call of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteCall {
    pub(crate) route: u32,
    pub(crate) is_rare: bool,
    /// Minutes since the epoch.
    pub(crate) minute: u32,
}

/// Habits that only baselines with several visits have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Grown {
    /// Mean residual of each UTC hour's calls, weekdays before weekends, sixteenths of a nat.
    #[serde(with = "BigArray")]
    pub(crate) season: [i8; 48],
    /// Visits by UTC hour at weekends.
    pub(crate) weekend: [u8; 24],
    /// Sums of the phases of visits as unit vectors, with decay, for each of
    /// [`crate::detector::hour::formula::PERIODS_MS`].
    pub(crate) phases: [(f32, f32); 3],
    pub(crate) areas: Areas,
}

impl Grown {
    /// Habits of a baseline that had `visits` visits.
    pub(crate) fn after(visits: u32) -> Self {
        Self { season: [0; 48], weekend: [0; 24], phases: [(0.0, 0.0); 3], areas: Areas::after(visits) }
    }
}

/// A refresh token that was presented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Presented {
    pub(crate) token: u64,
    /// Milliseconds since the epoch; 0: never presented.
    pub(crate) at: i64,
    /// Time at which a successor was issued, or another token of the family was presented; 0: not yet.
    pub(crate) superseded_at: i64,
    pub(crate) address: u32,
    pub(crate) agent: u32,
    /// Time of the first use of a token that was issued in exchange; 0: not yet.
    pub(crate) used_at: i64,
    /// It was presented repeatedly without a successor: it does not rotate.
    pub(crate) lasting: bool,
}

/// Uses of a token with other keys than the known one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OtherKeys {
    /// The known key before the last change; 0: none.
    pub(crate) previous: u32,
    /// Time of the first use of another key since the last use of the known one, minutes.
    pub(crate) since: u32,
    /// Number of hours in which other keys were used since then; 0: none was used.
    pub(crate) hours: u8,
    /// Number of times that the known key came back after another one.
    pub(crate) returns: u8,
}

/// The last refresh tokens of a family, and the other keys with which a token was used. Few baselines have either.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refreshes {
    pub(crate) last: [Presented; 2],
    /// Earlier tokens, 32 bits of the key of each.
    pub(crate) before: [u32; 8],
    /// The provider reports successors. An unknown token is therefore not one of the latest.
    pub(crate) chained: bool,
    pub(crate) other_keys: OtherKeys,
}

/// Fields have the order of their use: first those of every event, then those at the beginning of a visit or an hour.
/// Most events therefore need four of nine cache lines.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[repr(C, align(64))]
pub struct Baseline {
    pub(crate) key: u64,
    /// Milliseconds since the epoch.
    pub(crate) last_at: i64,
    /// Suspected holders.
    pub(crate) holders: Box<[Holder]>,
    pub(crate) grown: Option<Box<Grown>>,
    pub(crate) refreshes: Option<Box<Refreshes>>,
    pub(crate) hour: Hour,
    /// Numbers of the last visits, the latest first. The number of an ended visit can belong to another baseline.
    open: [Option<NonZeroU32>; VISITS_MAX],
    /// 8 bits of the key of each.
    open_keys: [u8; VISITS_MAX],
    pub(crate) kind: Kind,
    /// Network of the last event.
    pub(crate) network: u32,
    /// The access token used last.
    pub(crate) token: u32,
    /// Key of which the requests prove possession; 0: none.
    pub(crate) binding: u32,
    /// Visits so far.
    pub(crate) visits: u32,
    pub(crate) activity: Activity,
    /// Number of networks that were learnt.
    pub(crate) networks: u8,
    /// Of these, hosting networks and anonymisers.
    pub(crate) hosting_networks: u8,
    /// Number of consecutive events long before `last_at`. After several, `last_at` is assumed to be wrong.
    pub(crate) behind: u8,
    /// Number of consecutive uses of one key.
    pub(crate) binding_streak: u8,
    /// Learnt calls of routes by their weights, sixteenths.
    routes: u16,
    /// Of about the last 100 of these, calls of rare routes that were not `seen` yet. 512ths.
    rare_routes: u16,
    /// Visits to areas that were learnt, sixteenths.
    areas: u16,
    /// Day of the last burst; 0: none. 16 bits last until 2149.
    pub(crate) burst_day: u16,
    pub(crate) seen: Seen,
    /// Time of the first event, minutes since the epoch.
    pub(crate) first_minute: u32,
    pub(crate) habits: Habits,
    pub(crate) net_levels: LevelCounts,
    pub(crate) client_levels: LevelCounts,
    /// Visits by UTC hour on weekdays, sixteenths. While there are few visits, those of all days.
    pub(crate) hours: [u16; 24],
    pub(crate) sites: [Site; SITES_MAX],
}

super::touch::touch!(Baseline { key, network, routes, seen.of_calls.ages[11] });
super::touch::touch!(Baseline: touch_beginnings, touched_beginnings {
    seen.of_visits.keys[10],
    seen.of_visits.keys[25],
    seen.of_visits.ages[0],
    hours[0],
    hours[23],
});

impl Baseline {
    pub(crate) fn new(key: u64, kind: Kind, at: i64) -> Self {
        Self {
            key,
            last_at: at,
            holders: Box::default(),
            grown: None,
            refreshes: None,
            hour: Hour::begin(0, 0),
            open: [None; VISITS_MAX],
            open_keys: [0; VISITS_MAX],
            kind,
            network: 0,
            token: 0,
            binding: 0,
            visits: 0,
            activity: Activity::default(),
            networks: 0,
            hosting_networks: 0,
            behind: 0,
            binding_streak: 0,
            routes: 0,
            rare_routes: 0,
            areas: 0,
            burst_day: 0,
            seen: Seen::default(),
            first_minute: (at / MINUTE_MS) as u32,
            habits: Habits::default(),
            net_levels: LevelCounts::default(),
            client_levels: LevelCounts::default(),
            hours: [0; 24],
            sites: [Site::default(); SITES_MAX],
        }
    }

    /// Limits all times to `at`, milliseconds since the epoch. Later ones came from a wrong clock.
    pub(crate) fn limit(&mut self, at: i64) {
        let minute = (at / MINUTE_MS) as u32;
        (self.last_at, self.behind) = (self.last_at.min(at), 0);
        self.first_minute = self.first_minute.min(minute);
        self.hour.number = self.hour.number.min((at / HOUR_MS) as u32);
        self.burst_day = self.burst_day.min((at / (DAY_MS)) as u16);
        self.holders.iter_mut().for_each(|holder| holder.limit(at));
        self.sites.iter_mut().for_each(|site| site.limit(at));
        if let Some(refreshes) = &mut self.refreshes {
            for known in &mut refreshes.last {
                known.at = known.at.min(at);
                known.superseded_at = known.superseded_at.min(at);
                known.used_at = known.used_at.min(at);
            }
        }
    }

    /// Prefetches the holders. The returned value has no meaning.
    pub(crate) fn touch_holders(&self) -> u64 {
        self.holders.iter().fold(0, |touched, holder| touched ^ holder.touch())
    }

    /// Prefetches the refresh tokens. The returned value has no meaning.
    pub(crate) fn touch_refreshes(&self) -> u64 {
        let refreshes = self.refreshes.as_ref();
        refreshes
            .map_or(0, |refreshes| refreshes.last[0].token ^ refreshes.last[1].token ^ u64::from(refreshes.before[7]))
    }

    /// Prefetches the fields that are used at the beginning of a visit or an hour. The returned value has no meaning.
    pub(crate) fn touch_habits(&self) -> u64 {
        let grown = self.grown.as_ref().map_or(0, |grown| grown.season[0] as u64 ^ u64::from(grown.weekend[23]));
        self.touch_beginnings() ^ grown
    }

    /// Numbers of the visits that may belong to `key` and be open at `at`. There is rarely more than one.
    pub(crate) fn visits_of(&self, key: u64, at: i64) -> impl Iterator<Item = NonZeroU32> {
        let may_go_on = at < self.last_at + VISIT_GAP_MS;
        let open = self.open.iter().zip(self.open_keys).filter(move |(_, open)| may_go_on && *open == key as u8);
        open.filter_map(|(number, _)| *number)
    }

    /// Whether an event at `at` begins a new hour.
    pub(crate) const fn begins_hour(&self, at: i64) -> bool {
        at / HOUR_MS > self.hour.number as i64
    }

    /// Stores the number of a visit of `key` that has begun.
    pub(crate) fn begin_visit(&mut self, key: u64, number: NonZeroU32) {
        self.open.rotate_right(1);
        self.open_keys.rotate_right(1);
        (self.open[0], self.open_keys[0]) = (Some(number), key as u8);
    }

    /// Size including all allocations, bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.holders)
            + self.grown.as_ref().map_or(0, |_| size_of::<Grown>())
            + self.refreshes.as_ref().map_or(0, |_| size_of::<Refreshes>())
    }

    /// Index of the holder of this network and client family, and whether it is new. A new holder gets the next index,
    /// or that of the longest unused holder.
    pub(crate) fn place_of_holder(&self, network: u32, family: u32) -> (usize, bool) {
        if let Some(found) = self.find_holder(network, family) {
            return (found, false);
        }
        let count = self.holders.len();
        let oldest = || (0..HOLDERS_MAX).min_by_key(|place| self.holders[*place].last_at).unwrap_or(0);
        (if count < HOLDERS_MAX { count } else { oldest() }, true)
    }

    /// Stores a holder at an index of [`Self::place_of_holder`].
    pub(crate) fn put_holder(&mut self, place: usize, holder: Holder) {
        if let Some(known) = self.holders.get_mut(place) {
            *known = holder;
            return;
        }
        // Grows by one, because most baselines have one or two holders.
        let mut holders = std::mem::take(&mut self.holders).into_vec();
        holders.reserve_exact(1);
        holders.push(holder);
        self.holders = holders.into_boxed_slice();
    }

    pub(crate) fn find_holder(&self, network: u32, family: u32) -> Option<usize> {
        self.holders.iter().position(|holder| holder.network == network && holder.family == family)
    }

    /// Learns the place of a visit. `weight`: probability that it was the owner's.
    pub(crate) fn learn_place(&mut self, sighting: &Sighting, weight: f64) {
        let minute = sighting.minute();
        let mut learn = |feature, key| {
            if key != 0 {
                self.seen.learn(feature, key, weight, minute);
            }
        };
        learn(Feature::Address, sighting.address_in(sighting.country));
        learn(Feature::Prefix, sighting.prefix_in(sighting.country));
        learn(Feature::Network, sighting.network);
        learn(Feature::Country, sighting.country);
    }

    /// Learns the client of a visit with the same weight.
    pub(crate) fn learn_client(&mut self, sighting: &Sighting, weight: f64) {
        let minute = sighting.minute();
        let mut learn = |feature, key| {
            if key != 0 {
                self.seen.learn(feature, key, weight, minute);
            }
        };
        learn(Feature::Agent, sighting.agent);
        learn(Feature::Version, sighting.version);
        learn(Feature::Family, sighting.family);
        learn(Feature::Fingerprint, sighting.fingerprint);
    }

    /// Own calls of `route`.
    pub(crate) fn own_route(&self, route: u32) -> OwnCalls {
        let of_all = f64::from(self.routes) / 16.0;
        let rare = self.own_rare_routes();
        let share_of_rare = if rare.of_all > 0.0 { rare.of_this / rare.of_all } else { 0.0 };
        // The table stores only the most frequent routes.
        let elsewhere = of_all * (1.0 - share_of_rare) - self.seen.total(Feature::Route);
        OwnCalls { of_this: self.seen.count(Feature::Route, route), of_all, elsewhere: elsewhere.max(0.0) }
    }

    /// Own calls of rare routes, among the last 100 calls.
    pub(crate) fn own_rare_routes(&self) -> OwnCalls {
        let of_all = f64::from(self.routes.min(RARE_CALLS_MAX)) / 16.0;
        let of_this = f64::from(self.rare_routes) / f64::from(16 * RARE_UNIT);
        OwnCalls { of_this: of_this.min(of_all), of_all, elsewhere: 0.0 }
    }

    /// Learns a call of a route.
    ///
    /// `weight` counts towards the calls, and `known_weight` towards the route.
    pub(crate) fn learn_route(&mut self, call: RouteCall, weight: f64, known_weight: f64) {
        let RouteCall { route, is_rare, minute } = call;
        if self.routes >= CALLS_MAX {
            self.routes -= self.routes / 16;
            self.seen.fade(Feature::Route);
        }
        let sixteenths = sixteenths(weight, self.routes.into(), minute);
        self.routes += sixteenths;
        if is_rare && self.seen.count(Feature::Route, route) <= 0.0 {
            self.rare_routes = self.rare_routes.saturating_add(sixteenths * RARE_UNIT);
        }
        if self.routes > RARE_CALLS_MAX {
            let forgotten = u32::from(self.rare_routes) * u32::from(sixteenths);
            self.rare_routes -= forgotten.div_ceil(RARE_CALLS_MAX.into()) as u16;
        }
        self.seen.learn(Feature::Route, route, known_weight, minute);
    }

    /// Own visits to `area`.
    pub(crate) fn own_area(&self, area: u32) -> OwnCalls {
        let of_all = f64::from(self.areas) / 16.0;
        let elsewhere = (of_all - self.seen.total(Feature::Area)).max(0.0);
        OwnCalls { of_this: self.seen.count(Feature::Area, area), of_all, elsewhere }
    }

    /// Whether the token has called `area` lately.
    pub(crate) fn knows_area(&self, area: u32) -> bool {
        self.seen.knows(Feature::Area, area) || self.grown.as_ref().is_some_and(|grown| grown.areas.knows(area))
    }

    /// Learns a visit to an area.
    pub(crate) fn learn_area(&mut self, area: u32, weight: f64, known_weight: f64, minute: u32) {
        if self.areas >= CALLS_MAX {
            self.areas -= self.areas / 16;
            self.seen.fade(Feature::Area);
        }
        self.areas += sixteenths(weight, self.areas.into(), minute);
        self.seen.learn(Feature::Area, area, known_weight, minute);
    }

    /// Whether at least half of its networks are hosting networks. The others may be those of employees.
    pub(crate) const fn lives_on_servers(&self) -> bool {
        self.hosting_networks > 0 && 2 * self.hosting_networks as u16 >= self.networks as u16
    }

    /// Value in the choice of the baseline to evict: visits, halved for each week without an event.
    pub(crate) fn retention(&self, now: i64) -> u64 {
        let idle_weeks = (now - self.last_at).max(0) / (7 * DAY_MS);
        (u64::from(self.visits.min(1 << 20)) << 8) >> idle_weeks.min(40)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baseline_touch_reads_every_cache_line() {
        let baseline =
            Baseline::new(1, Kind::new(crate::event::TokenType::ApiKey, crate::enrichment::Device::Machine), 0);
        let of_visits = std::mem::offset_of!(Baseline, seen) + std::mem::offset_of!(Seen, of_visits);
        crate::memory::tests::assert_every_line_is_touched(&baseline.touched(), 0, of_visits);
        let beginnings = of_visits.next_multiple_of(64);
        let size = size_of::<Baseline>();
        crate::memory::tests::assert_every_line_is_touched(&baseline.touched_beginnings(), beginnings, size);
    }

    #[test]
    fn rare_routes_count_among_the_last_calls() {
        let kind = Kind::new(crate::event::TokenType::ApiKey, crate::enrichment::Device::Machine);
        let mut baseline = Baseline::new(1, kind, 0);
        let mut call = |route, is_rare| {
            baseline.learn_route(RouteCall { route, is_rare, minute: 0 }, 1.0, 1.0);
            let own = baseline.own_rare_routes();
            own.of_this / own.of_all
        };
        // All routes are rare while a service is new.
        let at_first = (100..150).map(|route| call(route, true)).last();
        assert_eq!(at_first, Some(1.0));
        let later = (0..150).map(|_| call(7, false)).last();
        assert!(later.is_some_and(|share| (0.1..0.4).contains(&share)), "{later:?}");
        let at_last = (0..1_000).map(|_| call(7, false)).last();
        assert_eq!(at_last, Some(0.0));
        let mostly_usual = (0..5_000).map(|number| call(1_000 + number, number % 50 == 0)).last();
        assert!(mostly_usual.is_some_and(|share| (0.01..0.03).contains(&share)), "{mostly_usual:?}");
    }

    #[test]
    fn baseline_on_servers_has_half_its_networks_there() {
        let kind = Kind::new(crate::event::TokenType::ApiKey, crate::enrichment::Device::Machine);
        let lives = |networks, hosting_networks| {
            Baseline { networks, hosting_networks, ..Baseline::new(1, kind, 0) }.lives_on_servers()
        };
        assert!(lives(1, 1) && lives(2, 1) && !lives(3, 1));
        assert!(!lives(0, 0) && !lives(2, 0), "no network is known");
    }
}
