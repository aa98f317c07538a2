//! Areas that a baseline has called lately, and how many new ones its visits call.

use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

/// Number of areas that are stored.
const STORED: usize = 40;
/// Number of levels: 1, 2, 4, … 64 new areas in a visit.
pub(crate) const LEVELS: usize = 7;
/// Number of visits at which all counts are halved.
const VISITS_MAX: u8 = 60;

/// Level of the `number`-th new area of a visit. `None`: the number is between two levels, or above the last one.
pub(crate) const fn level(number: u8) -> Option<usize> {
    let level = number.trailing_zeros() as usize;
    if number.is_power_of_two() && level < LEVELS { Some(level) } else { None }
}

/// Number of new areas of a level.
pub(crate) fn number_at(level: usize) -> f64 {
    (1_u32 << level).into()
}

/// Memory of one baseline. An area that is called again keeps its place. Of all areas, the one that was entered first is
/// replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Areas {
    #[serde(with = "BigArray")]
    keys: [u32; STORED],
    next: u8,
    /// Visits with a call of an area.
    visits: u8,
    /// Of these, visits that reached each level.
    reached: [u8; LEVELS],
}

impl Areas {
    /// Memory of a baseline whose `visits` visits had no new areas, as far as is known.
    pub(crate) fn after(visits: u32) -> Self {
        let visits = visits.min(u32::from(VISITS_MAX)) as u8;
        Self { keys: [0; STORED], next: 0, visits, reached: [0; LEVELS] }
    }

    pub(crate) fn knows(&self, area: u32) -> bool {
        self.keys.contains(&area.max(1))
    }

    /// Stores an area that is not known.
    pub(crate) const fn enter(&mut self, area: u32) {
        self.keys[self.next as usize] = if area == 0 { 1 } else { area };
        self.next = (self.next + 1) % STORED as u8;
    }

    /// Counts a visit that calls its first area.
    pub(crate) fn count_visit(&mut self) {
        if self.visits >= VISITS_MAX {
            self.visits /= 2;
            self.reached = self.reached.map(|visits| visits / 2);
        }
        self.visits += 1;
    }

    /// Counts a visit that reaches `level`.
    pub(crate) const fn count_level(&mut self, level: usize) {
        self.reached[level] = self.reached[level].saturating_add(1);
    }

    /// Number of visits that reached `level`, and of all visits.
    pub(crate) fn reached(&self, level: usize) -> (f64, f64) {
        (self.reached[level].into(), self.visits.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_forget_the_first_entered() {
        let mut areas = Areas::after(0);
        for area in 0..=STORED as u32 {
            assert!(!areas.knows(area + 10));
            areas.enter(area + 10);
            assert!(areas.knows(area + 10));
        }
        assert!(!areas.knows(10) && areas.knows(11));
        assert!(!areas.knows(0), "a free place is not an area");
        areas.enter(0);
        assert!(areas.knows(0));
    }

    #[test]
    fn areas_halve_their_counts() {
        let mut areas = Areas::after(1_000);
        assert_eq!(areas.reached(0), (0.0, f64::from(VISITS_MAX)));
        for _ in 0..300 {
            areas.count_level(0);
        }
        areas.count_visit();
        assert_eq!(areas.reached(0), (127.0, f64::from(VISITS_MAX / 2 + 1)));
    }

    #[test]
    fn levels_are_powers_of_two() {
        let levels: Vec<_> = (0..=255).filter_map(|number| level(number).map(|level| (number, level))).collect();
        assert_eq!(levels, [(1, 0), (2, 1), (4, 2), (8, 3), (16, 4), (32, 5), (64, 6)]);
    }
}
