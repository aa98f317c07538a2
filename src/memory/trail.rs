//! Trail of a user: the places and areas of all accepted uses, whatever their score. [`crate::campaign`] needs it.

use serde::{Deserialize, Serialize};

use super::users::OfUser;
use crate::millis::{DAY_MS, MINUTE_MS};

/// Places that are stored per user.
const PLACES_MAX: usize = 5;
/// Bits of a set of areas. Each area sets one.
const AREA_BITS: usize = 112;
/// Days with uses after which a set of areas is complete. An area that is not used during the next set is new again, so that
/// no set fills up.
const AREA_DAYS: u16 = 30;
/// Time after the first use of a place in which a call of a new area counts, minutes.
const NEW_FOR: u16 = 120;
/// Minutes are stored as 1 to this number, and begin again after it.
const MINUTES: u16 = u16::MAX;
/// Earlier days with uses that a user needs.
const DAYS_MIN: u16 = 3;
/// Places after the first one that a user may have reached, and days for each further one.
const MOVES_MAX: u16 = 4;
const DAYS_PER_MOVE: u16 = 4;

/// An accepted use, as far as a trail needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    /// Milliseconds since the epoch.
    pub(crate) at: i64,
    /// 0: unknown.
    pub(crate) place: u32,
    pub(crate) area: u32,
}

/// It depends only on the uses of its user and their order. It fits in one cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[repr(align(64))]
pub(crate) struct Trail {
    /// The last places, the latest first. 0: none.
    places: [u32; PLACES_MAX],
    /// Minute of the first use of each, up to [`NEW_FOR`] ago. 0: it is no longer new.
    arrived: [u16; PLACES_MAX],
    /// Areas of the current set, and of the one before.
    areas: [[u16; AREA_BITS / 16]; 2],
    /// Days with uses before the last one.
    days: u16,
    /// Day of the last use, since the epoch.
    last_day: u16,
    /// Number of places that were new, without the first one.
    moves: u16,
}

super::touch::touch!(Trail { days });

impl OfUser for Trail {
    /// Times are learnt by [`Self::follow`].
    fn seen(&mut self, _: i64) {}

    fn retention(&self, now: i64) -> (u16, u16) {
        let months = u32::from(day(now).saturating_sub(self.last_day)) / 30;
        (self.days.checked_shr(months).unwrap_or(0), self.last_day)
    }

    fn touch(&self) -> u64 {
        self.touch()
    }
}

impl Trail {
    /// Learns a use. Returns whether it is the first one in its area, at a place that has been new for at most two hours,
    /// of a user with earlier days who seldom moves.
    #[inline]
    pub(crate) fn follow(&mut self, this: Use) -> bool {
        let (day, minute) = (day(this.at), minute(this.at));
        if day > self.last_day {
            self.begin_day(day, minute);
        }
        let is_new_area = self.enter_area(this.area);
        if this.place == 0 {
            return false;
        }
        if self.places[0] != this.place {
            self.enter(this.place, minute);
        }
        let arrived = self.arrived[0];
        is_new_area
            && arrived != 0
            && distance(minute, arrived) <= NEW_FOR
            && self.days >= DAYS_MIN
            && self.moves <= MOVES_MAX + self.days / DAYS_PER_MOVE
    }

    fn begin_day(&mut self, day: u16, minute: u16) {
        let passed = day - self.last_day;
        for arrived in &mut self.arrived {
            // Before the minutes begin again.
            if passed > 1 || distance(minute, *arrived) > NEW_FOR {
                *arrived = 0;
            }
        }
        if self.last_day != 0 {
            self.days = self.days.saturating_add(1);
            if self.days.is_multiple_of(AREA_DAYS) {
                self.areas = [Default::default(), self.areas[0]];
            }
        }
        self.last_day = day;
    }

    /// Adds an area. Returns whether it is new.
    fn enter_area(&mut self, area: u32) -> bool {
        let bit = area as usize % AREA_BITS;
        let (word, bit) = (bit / 16, 1 << (bit % 16));
        let is_new = self.areas.iter().all(|areas| areas[word] & bit == 0);
        self.areas[0][word] |= bit;
        is_new
    }

    /// Moves `place` to the front, in place of the one that was used least recently if it is new.
    fn enter(&mut self, place: u32, minute: u16) {
        let index = self.places.iter().position(|known| *known == place).unwrap_or_else(|| {
            let is_first = self.places[0] == 0;
            self.places[PLACES_MAX - 1] = place;
            self.arrived[PLACES_MAX - 1] = if is_first { 0 } else { minute };
            self.moves = self.moves.saturating_add(u16::from(!is_first));
            PLACES_MAX - 1
        });
        self.places[..=index].rotate_right(1);
        self.arrived[..=index].rotate_right(1);
    }
}

/// Number of the minute, from 1 to [`MINUTES`].
fn minute(at: i64) -> u16 {
    at.div_euclid(MINUTE_MS).rem_euclid(MINUTES.into()) as u16 + 1
}

/// Minutes between two numbers, whichever is earlier.
fn distance(one: u16, other: u16) -> u16 {
    let distance = one.abs_diff(other);
    distance.min(MINUTES - distance)
}

/// Days since the epoch, up to 179 years; at least 1, because 0 means none.
fn day(at: i64) -> u16 {
    u16::try_from(at / DAY_MS).unwrap_or(u16::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY: i64 = 20_780 * DAY_MS;

    /// A user who calls area 1 at place 7 on `days` days.
    fn at_home(days: i64) -> Trail {
        let mut trail = Trail::default();
        for day in 0..days {
            assert!(!trail.follow(Use { at: MONDAY + day * DAY_MS, place: 7, area: 1 }));
        }
        trail
    }

    fn at(day: i64, minutes: i64) -> i64 {
        MONDAY + day * DAY_MS + minutes * 60_000
    }

    #[test]
    fn trail_has_one_cache_line() {
        assert_eq!((size_of::<Trail>(), align_of::<Trail>()), (64, 64));
        super::super::tests::assert_every_line_is_touched(&Trail::default().touched(), 0, size_of::<Trail>());
    }

    #[test]
    fn new_area_at_a_new_place_is_an_appearance() {
        let mut trail = at_home(4);
        assert!(!trail.follow(Use { at: at(4, 0), place: 8, area: 1 }), "a usual area");
        assert!(trail.follow(Use { at: at(4, 119), place: 8, area: 2 }));
        assert!(!trail.follow(Use { at: at(4, 119), place: 8, area: 2 }), "the second call");
        assert!(!trail.follow(Use { at: at(4, 119), place: 0, area: 3 }), "without a place");
        assert!(!trail.follow(Use { at: at(4, 121), place: 8, area: 4 }), "two hours later");
        assert!(!trail.follow(Use { at: at(4, 122), place: 7, area: 5 }), "at home");
    }

    #[test]
    fn owner_may_return_between_two_calls() {
        let mut trail = at_home(4);
        assert!(!trail.follow(Use { at: at(4, 0), place: 8, area: 1 }));
        assert!(!trail.follow(Use { at: at(4, 5), place: 7, area: 1 }));
        assert!(trail.follow(Use { at: at(4, 60), place: 8, area: 2 }));
    }

    #[test]
    fn new_user_makes_no_appearance() {
        for (days, appears) in [(1, false), (2, false), (3, true)] {
            assert_eq!(at_home(days).follow(Use { at: at(days, 0), place: 8, area: 2 }), appears, "{days} days");
        }
    }

    #[test]
    fn user_who_often_moves_makes_no_appearance() {
        let mut trail = at_home(4);
        for place in 8..12 {
            assert!(!trail.follow(Use { at: at(4, i64::from(place)), place, area: 1 }));
        }
        assert!(!trail.follow(Use { at: at(5, 0), place: 8, area: 1 }), "a known place");
        let mut again = trail;
        assert!(again.follow(Use { at: at(5, 0), place: 12, area: 2 }), "five moves in five days");
        assert!(!again.follow(Use { at: at(5, 1), place: 13, area: 3 }), "six");
    }

    #[test]
    fn area_without_uses_is_new_again() {
        let mut trail = at_home(4);
        for area in 0..1_000 {
            trail.follow(Use { at: at(4, 0), place: 7, area });
        }
        let mut full = trail;
        assert!(!full.follow(Use { at: at(5, 0), place: 8, area: 50 }), "each bit is set");
        for day in 5..65 {
            trail.follow(Use { at: at(day, 0), place: 7, area: 1 });
        }
        let mut usual = trail;
        assert!(!usual.follow(Use { at: at(65, 0), place: 8, area: 1 }), "an area of each day");
        assert!(trail.follow(Use { at: at(65, 0), place: 8, area: 50 }));
    }

    /// The numbers of minutes begin again after 45 days.
    #[test]
    fn place_stays_known_when_the_minutes_begin_again() {
        let later = 3 * i64::from(MINUTES);
        for days in [1, 2, 40] {
            let mut trail = at_home(4);
            assert!(trail.follow(Use { at: at(4, 0), place: 8, area: 2 }));
            trail.follow(Use { at: at(4 + days, 0), place: 7, area: 1 });
            assert!(!trail.follow(Use { at: at(4, later), place: 8, area: 3 }), "{days}");
        }
        let midnight = at(5, -1);
        let mut trail = at_home(4);
        assert!(trail.follow(Use { at: midnight, place: 8, area: 2 }));
        assert!(trail.follow(Use { at: midnight + 119 * 60_000, place: 8, area: 3 }), "the next day");
    }

    #[test]
    fn extreme_times_do_not_panic() {
        let mut trail = at_home(4);
        for at in [0, -1, i64::MAX, i64::MIN, 7_258_118_399_999] {
            trail.follow(Use { at, place: 9, area: 9 });
        }
        let _ = trail.retention(i64::MAX);
    }
}
