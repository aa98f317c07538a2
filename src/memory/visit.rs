//! One stay of one client at one address: what detectors run once for, and what they keep while it lasts.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::ops::{Deref, DerefMut};

use super::blocks::Blocks;
use super::level::{ClientLevel, NetLevel};

/// Visits open at a time, of one baseline.
pub const VISITS_MAX: usize = 3;

/// A longer silence ends a visit, milliseconds.
pub const VISIT_GAP_MS: i64 = 30 * 60_000;

/// A visit that is to end so long after the watermark does not wait at the head of the queue.
const AHEAD_MS: i64 = 6 * 3_600_000;

/// Maximum of routes and of areas that a visit stores. A further one counts as a repeat.
const ROUTES_MAX: usize = 32;
const AREAS_MAX: usize = 16;
/// Most visits go to no more than so many of them.
const ROUTES_FEW: usize = 8;
const AREAS_FEW: usize = 4;

/// It is three lines of the processor's cache: what was written across two of them cannot be read before both are there.
#[derive(Clone, Debug, PartialEq)]
#[repr(align(64))]
pub struct Visit {
    pub core: Core,
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

/// All of a visit but what few visits have, so that it is copied as one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Core {
    pub baseline: u64,
    pub tenant: u64,
    /// Of address, agent and fingerprint.
    pub key: u64,
    /// Milliseconds since the epoch.
    pub began: i64,
    pub last_at: i64,
    pub calls: u32,
    /// How foreign network and client were when it began.
    pub net_level: NetLevel,
    pub client_level: ClientLevel,
    /// What net and client said for the owner, which is true of this visit alone.
    pub net_credit: f32,
    pub client_credit: f32,
    /// What the silence of the earlier holder said for the owner.
    pub silence: f32,
    /// How far and in how long nobody travels; 0: there was nothing to say.
    pub travel_km: f32,
    pub travel_minutes: f32,
    /// Of the owner's probabilities: for the signals.
    pub net_p: f32,
    pub client_p: f32,
    pub hour_p: f32,
    /// What the company says that it is in: by application, by address.
    pub app_fan: f32,
    pub ip_fan: f32,
    /// What is taken off place, client and hour because a whole company came along; at most 0.
    pub together: f32,
    /// Users who came new to the same address within two hours.
    pub company: u8,
    /// Calls whose routes were weighed, and of them those that were odd for others too.
    pub weighed: u16,
    pub task_calls: u8,
    /// Sums against the owner, and against the owner with a new task, of the calls since the owner's last usual ones; and
    /// by how much the evidence of `route` is more for them.
    pub between_owner: f32,
    pub between_task: f32,
    pub between: f32,
    pub log_odds_max: f32,
    /// Routes in the order in which they were called first, 0 for none, and how often each was.
    routes: [u32; ROUTES_FEW],
    route_calls: [u16; ROUTES_FEW],
    rare_calls: u16,
    areas: [u32; AREAS_FEW],
    /// What others' calls and visits the owner's remembered routes and areas come to; worked out once.
    pub routes_remembered: Once,
    pub areas_remembered: Once,
}

/// A number that is worked out once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Once(f32);

impl Once {
    /// Not yet. What is worked out is below 0 never.
    const NEVER: Self = Self(-1.0);

    pub fn get_or_insert_with(&mut self, work_out: impl FnOnce() -> f32) -> f32 {
        if self.0 < 0.0 {
            self.0 = work_out();
        }
        self.0
    }
}

super::touch::touch!(Visit { key, routes[0], rare_calls });

/// What only visits to many routes or areas have. All routes that found no place are one, the last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct More {
    routes: [u32; ROUTES_MAX - ROUTES_FEW],
    route_calls: [u16; ROUTES_MAX - ROUTES_FEW + 1],
    areas: [u32; AREAS_MAX - AREAS_FEW],
}

impl Core {
    /// Of a visit that nothing is known of.
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
        travel_km: 0.0,
        travel_minutes: 0.0,
        net_p: 1.0,
        client_p: 1.0,
        hour_p: 1.0,
        app_fan: 0.0,
        ip_fan: 0.0,
        together: 0.0,
        company: 0,
        weighed: 0,
        task_calls: 0,
        between_owner: 0.0,
        between_task: 0.0,
        between: 0.0,
        log_odds_max: f32::NEG_INFINITY,
        routes: [0; ROUTES_FEW],
        route_calls: [0; ROUTES_FEW],
        rare_calls: 0,
        areas: [0; AREAS_FEW],
        routes_remembered: Once::NEVER,
        areas_remembered: Once::NEVER,
    };

    /// Of a visit of `key` that begins at `at`, milliseconds since the epoch.
    #[must_use]
    pub const fn begun(baseline: u64, key: u64, at: i64) -> Self {
        Self { baseline, key, began: at, last_at: at, ..Self::NEW }
    }

    /// How often `route` has been called in this visit, this time included; `None`: it is not among the first routes.
    pub fn count_route(&mut self, route: u32) -> Option<u16> {
        let place = find(&self.routes, route)?;
        self.routes[place] = route.max(1);
        self.route_calls[place] = self.route_calls[place].saturating_add(1);
        Some(self.route_calls[place])
    }

    /// Counts a scored call of a rare route, and returns the number in this visit, including this one.
    pub const fn count_rare(&mut self) -> u16 {
        self.rare_calls = self.rare_calls.saturating_add(1);
        self.rare_calls
    }

    /// Whether `area` is new to this visit; `None`: it is not among the first areas.
    pub fn enter_area(&mut self, area: u32) -> Option<bool> {
        let place = find(&self.areas, area)?;
        let is_new = self.areas[place] == 0;
        self.areas[place] = area.max(1);
        Some(is_new)
    }
}

impl Visit {
    /// One that nothing is known of.
    const NEW: Self = Self { core: Core::NEW, more: None };

    const fn has_ended(&self, watermark: i64) -> bool {
        self.core.last_at + VISIT_GAP_MS <= watermark
    }

    /// How often a route that is not among the first of the visit has been called, this time included.
    #[must_use]
    pub fn further_calls(&self, route: u32) -> u16 {
        self.more.as_ref().map_or(1, |more| more.route_calls[more.place_of(route)].saturating_add(1))
    }

    /// Counts a call of a route that is not among the first of the visit.
    pub fn count_further(&mut self, route: u32) {
        let more = self.more.get_or_insert_default();
        let place = more.place_of(route);
        if let Some(free) = more.routes.get_mut(place) {
            *free = route.max(1);
        }
        more.route_calls[place] = more.route_calls[place].saturating_add(1);
    }

    /// Whether an area that is not among the first of the visit is new to it.
    #[must_use]
    pub fn is_further_new(&self, area: u32) -> bool {
        self.more.as_ref().is_none_or(|more| find(&more.areas, area).is_some_and(|place| more.areas[place] == 0))
    }

    /// Stores an area that is not among the first of the visit.
    pub fn enter_further(&mut self, area: u32) {
        let more = self.more.get_or_insert_default();
        if let Some(place) = find(&more.areas, area) {
            more.areas[place] = area.max(1);
        }
    }
}

impl More {
    /// Beyond so many routes all others count as one: a walk over ever more of them says less and less, as repeats do.
    fn place_of(&self, route: u32) -> usize {
        find(&self.routes, route).unwrap_or(self.routes.len())
    }
}

/// Where `key` is, or would be; `None`: there is no room for it.
fn find(keys: &[u32], key: u32) -> Option<usize> {
    // 0 stands for an empty place.
    keys.iter().position(|known| *known == key.max(1) || *known == 0)
}

/// The open visits of all baselines, each in a place that its baseline knows by number: idle baselines need not hold
/// room for them.
#[derive(Debug)]
pub struct Visits {
    places: Blocks<Visit>,
    free: Vec<NonZeroU32>,
    /// Number and last known time of each open visit, in the order in which they are looked at again.
    queue: VecDeque<(i64, NonZeroU32)>,
    max: usize,
}

impl Visits {
    /// Beyond `max` open visits the one looked at longest ago ends early.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { places: Blocks::default(), free: Vec::new(), queue: VecDeque::new(), max }
    }

    /// Begins a visit, in its place.
    pub fn open(&mut self, core: &Core) -> NonZeroU32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.places.push(Visit::NEW);
            NonZeroU32::new(self.places.len() as u32).unwrap_or(NonZeroU32::MAX)
        });
        self.get_mut(number).core = *core;
        self.queue.push_back((core.began, number));
        number
    }

    #[must_use]
    pub fn get(&self, number: NonZeroU32) -> &Visit {
        &self.places[place(number)]
    }

    pub fn get_mut(&mut self, number: NonZeroU32) -> &mut Visit {
        &mut self.places[place(number)]
    }

    /// Looks at one visit: it is returned if it has ended by `watermark`, or if there are too many and it is the one looked
    /// at longest ago. It keeps its place until [`Self::close`].
    #[inline] // Between two steps of the watermark there is mostly none, and the first comparison tells.
    pub fn next_ended(&mut self, watermark: i64) -> Option<NonZeroU32> {
        let full = self.len() > self.max;
        let &(since, number) = self.queue.front()?;
        if !full && since + VISIT_GAP_MS > watermark {
            if since > watermark + AHEAD_MS {
                // A clock that is ahead holds nobody up.
                self.queue.rotate_left(1);
            }
            return None;
        }
        self.queue.pop_front();
        let visit = self.get(number);
        if full || visit.has_ended(watermark) {
            return Some(number);
        }
        let last_at = visit.last_at;
        self.queue.push_back((last_at, number));
        None
    }

    /// Fetches what the next `looks` of [`Self::next_ended`] look at, and the places of `begin` visits that begin
    /// meanwhile. What it returns has no meaning.
    #[must_use]
    pub fn touch(&self, watermark: i64, looks: usize, begin: usize) -> u64 {
        let due = self.queue.iter().take(looks).take_while(|(since, _)| since + VISIT_GAP_MS <= watermark);
        let due = due.map(|(_, number)| self.get(*number));
        // A line of each tells which of them end; those that begin get the places of these first.
        let told = due.clone().fold(0, |touched, visit| touched ^ visit.last_at as u64);
        let ended = due.filter(|visit| visit.has_ended(watermark));
        let free = self.free.iter().rev().map(|number| self.get(*number));
        let places = free.take(begin.saturating_sub(ended.clone().count()));
        ended.chain(places).fold(told, |touched, visit| touched ^ visit.touch())
    }

    /// Gives its place back. Its baseline may hold its number still, and finds there that the visit is no longer its own.
    pub fn close(&mut self, number: NonZeroU32) {
        let visit = self.get_mut(number);
        (visit.core.baseline, visit.core.key, visit.more) = (0, 0, None);
        self.free.push(number);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

const fn place(number: NonZeroU32) -> usize {
    number.get() as usize - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As scoring and learning do it.
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
    fn touching_it_leaves_out_none_of_its_cache_lines() {
        crate::memory::tests::assert_no_line_is_left_out(&Visit::NEW.touched(), 0, size_of::<Visit>());
        assert_eq!(size_of::<Visit>(), 3 * 64);
    }

    #[test]
    fn a_visit_ends_when_it_has_been_silent_and_no_sooner() {
        let mut visits = Visits::new(10);
        let number = visits.open(&Core::begun(1, 1, 0));
        assert_eq!(visits.next_ended(VISIT_GAP_MS - 1), None);
        visits.get_mut(number).last_at = 1_000;
        assert_eq!(visits.next_ended(VISIT_GAP_MS), None, "it went on");
        assert_eq!(visits.next_ended(VISIT_GAP_MS + 1_000), Some(number));
        visits.close(number);
        assert!(visits.is_empty());
    }

    #[test]
    fn a_clock_that_is_ahead_holds_no_other_visit_open() {
        let mut visits = Visits::new(10);
        visits.open(&Core::begun(1, 1, 24 * 3_600_000));
        let honest = visits.open(&Core::begun(2, 1, 0));
        assert_eq!([0, 1].map(|_| visits.next_ended(VISIT_GAP_MS)), [None, Some(honest)]);
    }

    #[test]
    fn there_are_never_many_more_open_visits_than_allowed() {
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
    fn a_usual_round_over_many_routes_counts_each_as_new_once() {
        let mut visit = Visit::NEW;
        assert_eq!([5, 5, 6, 5].map(|route| count(&mut visit, route)), [1, 2, 1, 3]);
        for round in 1..=9 {
            assert!((100..130).all(|route| count(&mut visit, route) == round), "thirty routes and the two before");
        }
        let beyond: Vec<u16> = (200..300).map(|route| count(&mut visit, route)).collect();
        assert_eq!(beyond, (1..=100).collect::<Vec<_>>(), "a walk over ever more is told, less and less");
    }

    #[test]
    fn an_area_is_entered_once_a_visit() {
        let mut visit = Visit::NEW;
        assert!(enter(&mut visit, 3) && !enter(&mut visit, 3) && enter(&mut visit, 4) && !enter(&mut visit, 3));
        assert_eq!((100..200).filter(|area| enter(&mut visit, *area)).count(), AREAS_MAX - 2);
    }
}
