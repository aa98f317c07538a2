//! Popularity of the keys of a feature, and the preferences of a thief, who chooses by popularity.

use serde::{Deserialize, Serialize};

use super::super::generations::Map;
use super::super::shared::{Contribution, Shared, Sums, Values};
use super::super::tenants::{BySeat, Seat};
use crate::math::{exp, ln};

/// Maximum number of keys of a table.
pub(super) const KEYS_MAX: usize = 1 << 16;

/// Popularity of each key of a feature, and the preferences of a thief, who chooses by popularity.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Popularity {
    users: Map<u32, Shared<1>>,
    /// Number of keys that each tenant was the first to use.
    made: BySeat<usize>,
    sums: Sums<3>,
    preference: Preference,
}

/// The thief's preference for a key, by its number of users.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Preference {
    /// `(users + 0.1)^0.6`
    Network,
    /// `(users + 0.5)^0.5`
    Family,
}

impl Preference {
    pub(super) fn of(self, users: f64) -> f64 {
        match self {
            Self::Network => exp(0.6 * ln(users + 0.1)),
            Self::Family => libm::sqrt(users + 0.5),
        }
    }
}

impl Popularity {
    pub(super) fn new(preference: Preference) -> Self {
        Self { users: Map::default(), made: BySeat::default(), sums: Sums::default(), preference }
    }

    #[must_use]
    pub(crate) fn users(&self, seat: Option<Seat>, key: u32) -> f64 {
        self.users.get(&key).map_or(0.0, |users| users.count(seat))
    }

    /// Sums of users and of the thief's preferences, and number of keys.
    #[must_use]
    pub(crate) fn sums(&self, seat: Option<Seat>) -> [f64; 3] {
        self.sums.read(seat)
    }

    /// The thief's probability of `key`. `unknown`: assumed number of keys without users.
    #[must_use]
    pub(crate) fn thief(&self, seat: Option<Seat>, key: u32, unknown: f64) -> f64 {
        let [_, preferences, _] = self.sums(seat);
        self.preference.of(self.users(seat, key)) / (preferences + unknown * self.preference.of(0.0))
    }

    /// Learns users of `key`. Returns the values of their count before and after. `None`: there is no room.
    pub(super) fn learn(&mut self, key: u32, contribution: &Contribution) -> Option<(Values<3>, Values<3>)> {
        if !self.users.contains_key(&key) {
            // A tenant leaves as much room as it takes.
            let made = self.made.get_mut(contribution.seat)?;
            if *made + self.users.len() >= KEYS_MAX {
                return None;
            }
            *made += 1;
        }
        let preference = self.preference;
        let value = |users: f64| [users, preference.of(users), 1.0];
        let users = self.users.entry(key).or_default();
        let before = users.values(value);
        users.learn(contribution);
        let after = users.values(value);
        self.sums.change(&before, &after);
        Some((before, after))
    }
}
