//! Visit: events of one client at one address without a long gap, and the state of detectors during it.

use crate::millis::{HOUR_MS, MINUTE_MS};
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};

use super::blocks::Blocks;
use super::level::{ClientLevel, NetLevel};
use super::usage::Usage;

/// Maximum number of open visits of one baseline.
pub(crate) const VISITS_MAX: usize = 3;

/// A longer gap ends a visit, milliseconds.
pub(crate) const VISIT_GAP_MS: i64 = 30 * MINUTE_MS;

/// A visit that is further ahead of the watermark does not stay at the head of the queue, milliseconds.
const AHEAD_MS: i64 = 6 * HOUR_MS;

/// Maximum number of routes that a visit stores. All further routes count as one.
const ROUTES_MAX: usize = 32;
/// Maximum number of areas that a visit stores. A further area counts as a repeat.
const AREAS_MAX: usize = 16;
/// Number of routes and of areas that need no allocation. Most visits have no more.
const ROUTES_FEW: usize = 8;
const AREAS_FEW: usize = 4;

/// Three cache lines. Aligned, because a read that crosses a cache line after a write waits for both lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[repr(align(64))]
pub(crate) struct Visit {
    pub(crate) core: Core,
    more: Option<Box<More>>,
}

impl Deref for Visit {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl DerefMut for Visit {
    fn deref_mut(&mut self) -> &mut Core {
        &mut self.core
    }
}

/// Fields of every visit, without allocations, so that it can be copied.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Core {
    pub(crate) baseline: u64,
    pub(crate) tenant: u64,
    /// Key of address, user agent and fingerprint.
    pub(crate) key: u64,
    /// Milliseconds since the epoch.
    pub(crate) began: i64,
    pub(crate) last_at: i64,
    pub(crate) calls: u32,
    /// Levels of novelty when it began.
    pub(crate) net_level: NetLevel,
    pub(crate) client_level: ClientLevel,
    /// Evidence of `net` and `client` for the owner. It counts in this visit only.
    pub(crate) net_credit: f32,
    pub(crate) client_credit: f32,
    /// Evidence of `silence`: the earlier holder has stopped.
    pub(crate) silence: f32,
    /// Distance and duration of a travel that is too fast; 0: none.
    pub(crate) travel_km: u16,
    pub(crate) travel_minutes: f32,
    /// Probabilities for the owner, for the signals.
    pub(crate) net_p: f32,
    pub(crate) client_p: f32,
    pub(crate) hour_p: f32,
    /// Evidence of `fan` by application, and by address.
    pub(crate) app_fan: f32,
    pub(crate) ip_fan: f32,
    /// Reduction of the evidence for a shared cause with other users; at most 0.
    pub(crate) together: f32,
    /// Number of users who are new at the same place within two hours.
    pub(crate) arrivals: u8,
    /// Number of areas that were new to the owner.
    pub(crate) new_areas: u8,
    /// Number of calls whose routes were scored.
    pub(crate) weighed: u16,
    /// Of these, calls that were evidence against an owner with a new task.
    pub(crate) task_calls: u8,
    /// Evidence of the calls since the owner's last usual ones: against the owner, and against the owner with a new
    /// task.
    pub(crate) between_owner: f32,
    pub(crate) between_task: f32,
    /// Evidence of change-point detection, which is added to that of `route`.
    pub(crate) between: f32,
    pub(crate) log_odds_max: f32,
    /// Routes in the order of their first calls (0: none), and the number of calls of each.
    routes: [u32; ROUTES_FEW],
    route_calls: [u16; ROUTES_FEW],
    areas: [u32; AREAS_FEW],
    /// Shares of others' calls and visits that are of routes and areas that the baseline stores.
    pub(crate) routes_remembered: Once,
    pub(crate) areas_remembered: Once,
}

/// A number that is calculated once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Once(f32);

impl Once {
    /// Not calculated yet. Calculated numbers are not negative.
    const NEVER: Self = Self(-1.0);

    pub(crate) fn get_or_insert_with(&mut self, calculate: impl FnOnce() -> f32) -> f32 {
        if self.0 < 0.0 {
            self.0 = calculate();
        }
        self.0
    }
}

super::touch::touch!(Visit { key, routes[0], weighed });

/// Routes and areas of visits with many of them. The last count is that of all routes that are not stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct More {
    routes: [u32; ROUTES_MAX - ROUTES_FEW],
    route_calls: [u16; ROUTES_MAX - ROUTES_FEW + 1],
    areas: [u32; AREAS_MAX - AREAS_FEW],
}

impl Core {
    const NEW: Self = Self {
        baseline: 0,
        tenant: 0,
        key: 0,
        began: 0,
        last_at: 0,
        calls: 0,
        net_level: NetLevel::KnownAddress,
        client_level: ClientLevel::Known,
        net_credit: 0.0,
        client_credit: 0.0,
        silence: 0.0,
        travel_km: 0,
        travel_minutes: 0.0,
        net_p: 1.0,
        client_p: 1.0,
        hour_p: 1.0,
        app_fan: 0.0,
        ip_fan: 0.0,
        together: 0.0,
        arrivals: 0,
        new_areas: 0,
        weighed: 0,
        task_calls: 0,
        between_owner: 0.0,
        between_task: 0.0,
        between: 0.0,
        log_odds_max: f32::NEG_INFINITY,
        routes: [0; ROUTES_FEW],
        route_calls: [0; ROUTES_FEW],
        areas: [0; AREAS_FEW],
        routes_remembered: Once::NEVER,
        areas_remembered: Once::NEVER,
    };

    /// A visit of `key` that begins at `at`, milliseconds since the epoch.
    #[must_use]
    pub(crate) const fn begun(baseline: u64, key: u64, at: i64) -> Self {
        Self { baseline, key, began: at, last_at: at, ..Self::NEW }
    }

    /// Counts a call of `route`, and returns its calls in this visit, including this one. `None`: it is not among the
    /// first routes, and was not counted.
    pub(crate) fn count_route(&mut self, route: u32) -> Option<u16> {
        let place = find(&self.routes, route)?;
        self.routes[place] = route.max(1);
        self.route_calls[place] = self.route_calls[place].saturating_add(1);
        Some(self.route_calls[place])
    }

    /// Whether an area was called.
    pub(crate) const fn has_areas(&self) -> bool {
        self.areas[0] != 0
    }

    /// Stores `area`, and returns whether it is new to this visit. `None`: it is not among the first areas.
    pub(crate) fn enter_area(&mut self, area: u32) -> Option<bool> {
        let place = find(&self.areas, area)?;
        let is_new = self.areas[place] == 0;
        self.areas[place] = area.max(1);
        Some(is_new)
    }
}

impl Visit {
    const NEW: Self = Self { core: Core::NEW, more: None };

    const fn has_ended(&self, watermark: i64) -> bool {
        self.core.last_at + VISIT_GAP_MS <= watermark
    }

    /// Number of calls of a route that is not among the first of the visit, including this one.
    #[must_use]
    pub(crate) fn further_calls(&self, route: u32) -> u16 {
        self.more.as_ref().map_or(1, |more| more.route_calls[more.place_of(route)].saturating_add(1))
    }

    /// Counts a call of a route that is not among the first of the visit.
    pub(crate) fn count_further(&mut self, route: u32) {
        let more = self.more.get_or_insert_default();
        let place = more.place_of(route);
        if let Some(free) = more.routes.get_mut(place) {
            *free = route.max(1);
        }
        more.route_calls[place] = more.route_calls[place].saturating_add(1);
    }

    /// Whether an area that is not among the first of the visit is new to it.
    #[must_use]
    pub(crate) fn is_further_new(&self, area: u32) -> bool {
        self.more.as_ref().is_none_or(|more| find(&more.areas, area).is_some_and(|place| more.areas[place] == 0))
    }

    /// Stores an area that is not among the first of the visit.
    pub(crate) fn enter_further(&mut self, area: u32) {
        let more = self.more.get_or_insert_default();
        if let Some(place) = find(&more.areas, area) {
            more.areas[place] = area.max(1);
        }
    }
}

impl More {
    /// Index of the count of `route`. All routes that are not stored share the last one: like repeats, they are less
    /// evidence each time.
    fn place_of(&self, route: u32) -> usize {
        find(&self.routes, route).unwrap_or(self.routes.len())
    }
}

/// Index of `key`, or the free index for it. `None`: the table is full.
fn find(keys: &[u32], key: u32) -> Option<usize> {
    // 0 marks a free index.
    keys.iter().position(|known| *known == key.max(1) || *known == 0)
}

/// The open visits of all baselines. A baseline stores the numbers of its visits, so idle baselines need no room for
/// them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Visits {
    places: Blocks<Visit>,
    free: Vec<NonZeroU32>,
    /// Number and last known time of each open visit, in the order in which they are checked next.
    queue: VecDeque<(i64, NonZeroU32)>,
    max: usize,
    /// Number of visits that ended early.
    evicted: u64,
}

impl Visits {
    /// Upper limit of the bytes of an open visit: itself with many routes, and the lists while they grow.
    pub(crate) const BYTES_EACH: usize = size_of::<Visit>()
        + size_of::<More>()
        + 2 * size_of::<u64>()
        + 3 * (size_of::<(i64, NonZeroU32)>() + size_of::<NonZeroU32>());

    /// Above `max` open visits, the one that was checked first ends early.
    #[must_use]
    pub(crate) fn new(max: usize) -> Self {
        Self { places: Blocks::default(), free: Vec::new(), queue: VecDeque::new(), max, evicted: 0 }
    }

    /// Changes the limit of [`Self::new`]. Above it, visits end early as events are scored.
    pub(crate) const fn limit(&mut self, max: usize) {
        self.max = max;
    }

    /// Bytes of all places of visits and of the lists, and number of visits that ended early.
    pub(crate) fn usage(&self) -> Usage {
        let lists =
            self.free.capacity() * size_of::<NonZeroU32>() + self.queue.capacity() * size_of::<(i64, NonZeroU32)>();
        Usage { bytes: self.places.bytes() + lists, evicted: self.evicted }
    }

    /// Stores a new visit, and returns its number.
    pub(crate) fn open(&mut self, core: &Core) -> NonZeroU32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.places.push(Visit::NEW);
            NonZeroU32::new(self.places.len() as u32).unwrap_or(NonZeroU32::MAX)
        });
        self.get_mut(number).core = *core;
        self.queue.push_back((core.began, number));
        number
    }

    #[must_use]
    pub(crate) fn get(&self, number: NonZeroU32) -> &Visit {
        &self.places[place(number)]
    }

    pub(crate) fn get_mut(&mut self, number: NonZeroU32) -> &mut Visit {
        &mut self.places[place(number)]
    }

    /// Whether [`Self::next_ended`] has something to do. Usually, no visit may have ended.
    #[must_use]
    #[inline]
    pub(crate) fn is_due(&self, watermark: i64) -> bool {
        let waits = |since: i64| since + VISIT_GAP_MS > watermark && since <= watermark + AHEAD_MS;
        self.len() > self.max || self.queue.front().is_some_and(|(since, _)| !waits(*since))
    }

    /// Checks one visit, and returns its number if it has ended by `watermark` or there are too many. It remains stored
    /// until [`Self::close`].
    pub(crate) fn next_ended(&mut self, watermark: i64) -> Option<NonZeroU32> {
        let full = self.len() > self.max;
        let &(since, number) = self.queue.front()?;
        if !full && since + VISIT_GAP_MS > watermark {
            if since > watermark + AHEAD_MS {
                // A visit with a clock that is ahead does not delay others.
                self.queue.rotate_left(1);
            }
            return None;
        }
        self.queue.pop_front();
        self.evicted += u64::from(full);
        let visit = self.get(number);
        if full || visit.has_ended(watermark) {
            return Some(number);
        }
        let last_at = visit.last_at;
        self.queue.push_back((last_at, number));
        None
    }

    /// Prefetches the visits that the next `looks` calls of [`Self::next_ended`] check, and the places of `begin` new
    /// visits. The returned value has no meaning.
    #[must_use]
    pub(crate) fn touch(&self, watermark: i64, looks: usize, begin: usize) -> u64 {
        let due = self.queue.iter().take(looks).take_while(|(since, _)| since + VISIT_GAP_MS <= watermark);
        let due = due.map(|(_, number)| self.get(*number));
        // New visits get the places of those that end first.
        let touched = due.clone().fold(0, |touched, visit| touched ^ visit.last_at as u64);
        let ended = due.filter(|visit| visit.has_ended(watermark));
        let free = self.free.iter().rev().map(|number| self.get(*number));
        let places = free.take(begin.saturating_sub(ended.clone().count()));
        ended.chain(places).fold(touched, |touched, visit| touched ^ visit.touch())
    }

    /// Frees the place of a visit. Its baseline may still store the number, and detects by the visit's fields that it
    /// is not its own any more.
    pub(crate) fn close(&mut self, number: NonZeroU32) {
        let visit = self.get_mut(number);
        (visit.core.baseline, visit.core.key, visit.more) = (0, 0, None);
        self.free.push(number);
    }

    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

const fn place(number: NonZeroU32) -> usize {
    number.get() as usize - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::millis::DAY_MS;

    /// Counts a call like scoring and learning.
    fn count(visit: &mut Visit, route: u32) -> u16 {
        visit.core.count_route(route).unwrap_or_else(|| {
            let calls = visit.further_calls(route);
            visit.count_further(route);
            calls
        })
    }

    fn enter(visit: &mut Visit, area: u32) -> bool {
        visit.core.enter_area(area).unwrap_or_else(|| {
            let is_new = visit.is_further_new(area);
            visit.enter_further(area);
            is_new
        })
    }

    #[test]
    fn visit_touch_reads_every_cache_line() {
        crate::memory::tests::assert_every_line_is_touched(&Visit::NEW.touched(), 0, size_of::<Visit>());
        assert_eq!(size_of::<Visit>(), 3 * 64);
    }

    #[test]
    fn visit_ends_after_the_gap() {
        let mut visits = Visits::new(10);
        let number = visits.open(&Core::begun(1, 1, 0));
        assert_eq!(visits.next_ended(VISIT_GAP_MS - 1), None);
        visits.get_mut(number).last_at = 1_000;
        assert_eq!(visits.next_ended(VISIT_GAP_MS), None, "it had another event");
        assert_eq!(visits.next_ended(VISIT_GAP_MS + 1_000), Some(number));
        visits.close(number);
        assert_eq!(visits.len(), 0);
    }

    #[test]
    fn visit_ahead_of_time_delays_no_other() {
        let mut visits = Visits::new(10);
        visits.open(&Core::begun(1, 1, DAY_MS));
        let honest = visits.open(&Core::begun(2, 1, 0));
        assert_eq!([0, 1].map(|_| visits.next_ended(VISIT_GAP_MS)), [None, Some(honest)]);
    }

    #[test]
    fn visits_keep_their_maximum() {
        let mut visits = Visits::new(10);
        for baseline in 0..1_000 {
            visits.open(&Core::begun(baseline, 1, 0));
            if let Some(number) = visits.next_ended(0) {
                visits.close(number);
            }
            assert!(visits.len() <= 11);
        }
    }

    #[test]
    fn visit_counts_calls_of_each_route() {
        let mut visit = Visit::NEW;
        assert_eq!([5, 5, 6, 5].map(|route| count(&mut visit, route)), [1, 2, 1, 3]);
        for round in 1..=9 {
            assert!((100..130).all(|route| count(&mut visit, route) == round), "32 routes");
        }
        let beyond: Vec<u16> = (200..300).map(|route| count(&mut visit, route)).collect();
        assert_eq!(beyond, (1..=100).collect::<Vec<_>>(), "further routes count as one");
    }

    #[test]
    fn visit_enters_an_area_once() {
        let mut visit = Visit::NEW;
        assert!(enter(&mut visit, 3) && !enter(&mut visit, 3) && enter(&mut visit, 4) && !enter(&mut visit, 3));
        assert_eq!((100..200).filter(|area| enter(&mut visit, *area)).count(), AREAS_MAX - 2);
    }
}
