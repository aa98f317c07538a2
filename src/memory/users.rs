//! Bounded tables with a value for each user of a partition.

use serde::{Deserialize, Serialize};

use super::blocks::Blocks;
use super::generations::{Map, index_bytes};
use super::usage::Usage;

/// Number of users that are compared if one must be evicted.
const NEIGHBOURS: usize = 16;

/// A value for each user.
pub(crate) trait OfUser: Copy + Default {
    /// Records an access at `at`, milliseconds since the epoch.
    fn seen(&mut self, at: i64);
    /// Value in the choice of the user to evict, and the day of the last access.
    fn retention(&self, now: i64) -> (u16, u16);
    /// Prefetches it. The returned value has no meaning.
    fn touch(&self) -> u64;
}

/// Each user has a fixed index, so that it can be prefetched before it is needed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PerUser<V> {
    indexes: Map<u64, u32>,
    held: Blocks<V>,
    /// Keys by index.
    keys: Blocks<u64>,
    /// Index at which the next search for a user to evict begins.
    next: usize,
    max: usize,
    /// Number of evicted users.
    evicted: u64,
}

impl<V: OfUser> PerUser<V> {
    /// Upper limit of the bytes of a user: itself, its key, and the index while it grows.
    pub(crate) const BYTES_EACH: usize =
        size_of::<V>() + size_of::<u64>() + index_bytes::<u32>() + size_of::<(u64, u64)>();

    /// Above `max` users one of some neighbours is evicted.
    pub(crate) fn new(max: usize) -> Self {
        let max = max.max(1);
        Self { indexes: Map::default(), held: Blocks::default(), keys: Blocks::default(), next: 0, max, evicted: 0 }
    }

    /// Changes the limit of [`Self::new`]. Takes a time that is proportional to the users if there are more. `now`:
    /// milliseconds since the epoch.
    pub(crate) fn limit(&mut self, max: usize, now: i64) {
        self.max = max.max(1);
        if self.held.len() <= self.max {
            return;
        }
        while self.held.len() > self.max {
            let index = self.least(now);
            self.held.swap_remove(index);
            if let Some(gone) = self.keys.swap_remove(index) {
                self.indexes.remove(&gone);
            }
            if index < self.keys.len() {
                self.indexes.insert(self.keys[index], index as u32);
            }
            self.evicted += 1;
        }
        self.next = 0;
        self.indexes.shrink_to_fit();
    }

    /// Bytes of all users with their index, and number of evictions.
    pub(crate) fn usage(&self) -> Usage {
        let bytes = self.held.bytes() + self.keys.bytes() + self.indexes.allocation_size();
        Usage { bytes, evicted: self.evicted }
    }

    /// Index of the user of `key`. It is valid until the next user is made.
    pub(crate) fn find(&self, key: u64) -> Option<u32> {
        self.indexes.get(&key).copied()
    }

    /// Prefetches a user. The returned value has no meaning.
    pub(crate) fn touch(&self, index: u32) -> u64 {
        self.held[index as usize].touch()
    }

    /// The user of `key`, or an empty one.
    pub(crate) fn known(&self, key: u64) -> V {
        self.find(key).map_or_else(V::default, |index| self.held[index as usize])
    }

    /// The user of `key`; created if there is none. Records the access.
    pub(crate) fn entry(&mut self, key: u64, at: i64) -> &mut V {
        let index = self.find(key).map_or_else(|| self.make(key, at), |index| index as usize);
        let user = &mut self.held[index];
        user.seen(at);
        user
    }

    fn make(&mut self, key: u64, at: i64) -> usize {
        let index = if self.held.len() < self.max {
            self.held.push(V::default());
            self.keys.push(key);
            self.held.len() - 1
        } else {
            let index = self.least(at);
            self.evicted += 1;
            self.indexes.remove(&self.keys[index]);
            (self.held[index], self.keys[index]) = (V::default(), key);
            index
        };
        self.indexes.insert(key, index as u32);
        index
    }

    /// The least valuable of the next neighbours. In a flood of new users each replaces an earlier one of the flood.
    fn least(&mut self, now: i64) -> usize {
        let len = self.held.len();
        let begin = if self.next < len { self.next } else { 0 };
        let neighbours = begin..(begin + NEIGHBOURS).min(len);
        self.next = if neighbours.end == len { 0 } else { neighbours.end };
        neighbours.clone().min_by_key(|index| self.held[*index].retention(now)).unwrap_or(neighbours.start)
    }
}

#[cfg(test)]
mod tests {
    use super::super::User;
    use super::*;
    use crate::millis::DAY_MS;

    type Users = PerUser<User>;

    const MONDAY: i64 = 1_790_000_000_000;

    #[test]
    fn flood_of_new_users_evicts_few_known_ones() {
        let mut users = Users::new(1_000);
        for day in 0..20 {
            for key in 0..800 {
                users.entry(key, MONDAY + day * DAY_MS).learn(7, 7, 7);
            }
            for key in 0..10_000 {
                users.entry(1_000_000 * (day as u64 + 1) + key, MONDAY + day * DAY_MS).learn(8, 8, 8);
            }
        }
        assert_eq!((users.held.len(), users.indexes.len()), (1_000, 1_000));
        let left = (0..800).filter(|key| users.find(*key).is_some()).count();
        assert!(left >= 750, "{left} of 800 users are left");
        for (key, index) in users.indexes.iter() {
            assert_eq!(users.keys[*index as usize], *key, "the index is correct");
        }
    }

    #[test]
    fn lower_limit_evicts_users_with_few_visits() {
        let mut users = Users::new(100_000);
        for key in 0..1_000 {
            (0..5).for_each(|day| users.entry(key, MONDAY + day * DAY_MS).learn(7, 7, 7));
        }
        (1_000..50_000).for_each(|key| users.entry(key, MONDAY).learn(8, 8, 8));
        users.limit(5_000, MONDAY + 5 * DAY_MS);
        assert_eq!((users.held.len(), users.keys.len(), users.indexes.len()), (5_000, 5_000, 5_000));
        assert_eq!(users.usage().evicted, 45_000);
        assert!(users.usage().bytes <= 5_000 * Users::BYTES_EACH);
        let left = (0..1_000).filter(|key| users.find(*key).is_some()).count();
        assert!(left >= 900, "{left}");
        for (key, index) in users.indexes.iter() {
            assert_eq!(users.keys[*index as usize], *key, "the index is correct");
        }
        (60_000..70_000).for_each(|key| users.entry(key, MONDAY).learn(8, 8, 8));
        assert_eq!(users.held.len(), 5_000);
    }

    #[test]
    fn users_without_recent_visits_are_evicted() {
        let mut users = Users::new(100);
        for day in 0..50 {
            (0..100).for_each(|key| users.entry(key, MONDAY + day * DAY_MS).learn(7, 7, 7));
        }
        for day in 0..20 {
            let later = MONDAY + (300 + day) * DAY_MS;
            (1_000..1_090).for_each(|key| users.entry(key, later).learn(8, 8, 8));
        }
        assert_eq!((1_000..1_090).filter(|key| users.find(*key).is_some()).count(), 90);
    }
}
