//! Recent events, to detect duplicate deliveries and reused ids.

use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

use super::usage::Usage;

/// Keys of 64 bits per cache line, and of 32 bits.
const WAYS: usize = 8;
const HALF_WAYS: usize = 16;
/// Events stored for each id that is stored: ids are only counted, and their table stays in a cache of the processor.
const EVENTS_PER_ID: usize = 16;

/// About `max` recent events by identity, in sets of eight that the identity selects. The oldest of a set is evicted,
/// so one memory access checks and stores. An event stays until eight others have entered its set: 95 % of those from
/// `max`/2 events ago are left, and all but 10 in a million of those from `max`/8 ago (Poisson distribution).
///
/// Ids are stored separately, only to count their reuse among the last `max`/16 events. Events of one id do not evict
/// each other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Recent {
    events: Vec<Place<u64, WAYS>>,
    ids: Vec<Place<u32, HALF_WAYS>>,
}

/// One cache line.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "K: Serialize", deserialize = "K: Deserialize<'de>"))]
#[repr(align(64))]
struct Place<K, const COUNT: usize>(#[serde(with = "BigArray")] [K; COUNT]);

impl<K: Copy + PartialEq, const COUNT: usize> Place<K, COUNT> {
    #[allow(clippy::needless_bitwise_bool, reason = "without a branch for each key, one instruction compares several")]
    fn contains(&self, key: K) -> bool {
        self.0.iter().fold(false, |found, known| found | (*known == key))
    }

    /// Stores a key that is not stored yet, in place of the oldest.
    fn push(&mut self, key: K) {
        self.0.rotate_right(1);
        self.0[0] = key;
    }
}

impl Recent {
    pub(crate) fn new(max: usize) -> Self {
        let places = |ways: usize| max.div_ceil(ways).next_power_of_two();
        Self {
            events: vec![Place([0; WAYS]); places(WAYS)],
            ids: vec![Place([0; HALF_WAYS]); places(HALF_WAYS * EVENTS_PER_ID)],
        }
    }

    /// Upper limit of the bytes of an event if their number is a power of two, with an eighth of them for attempts.
    pub(super) const BYTES_EACH: usize =
        ((size_of::<u64>() + size_of::<u32>().div_ceil(EVENTS_PER_ID)) * 9).div_ceil(8);

    /// Bytes of the tables.
    pub(crate) fn usage(&self) -> Usage {
        Usage { bytes: size_of_val(&*self.events) + size_of_val(&*self.ids), evicted: 0 }
    }

    /// Changes the number of events to about `max` and keeps those that have room. Ids are forgotten: their reuse is only
    /// counted.
    pub(crate) fn resize(&mut self, max: usize) {
        let new = Self::new(max);
        if new.events.len() == self.events.len() {
            return;
        }
        let Self { events, .. } = std::mem::replace(self, new);
        // The oldest of each set first, because one of the new sets can receive events of several old ones.
        for age in (0..WAYS).rev() {
            for event in events.iter().map(|set| set.0[age]).filter(|event| *event != 0) {
                let at = place(event, &self.events);
                self.events[at].push(event);
            }
        }
    }

    /// Prefetches the sets of an event and its id. The returned value has no meaning.
    pub(crate) fn touch(&self, event: u64, id: u64) -> u64 {
        let (events, ids) = (&self.events[place(event, &self.events)], &self.ids[place(id, &self.ids)]);
        events.0[0] ^ u64::from(ids.0[0])
    }

    /// Whether the event of this identity (a hash) was delivered before.
    pub(crate) fn contains(&self, event: u64) -> bool {
        self.events[place(event, &self.events)].contains(event.max(1))
    }

    /// Stores an event that it does not contain yet, by its identity and its id (hashes). Returns whether another event
    /// had its id.
    pub(crate) fn insert(&mut self, event: u64, id: u64) -> bool {
        // 0 marks an empty entry.
        let (at, event) = (place(event, &self.events), event.max(1));
        self.events[at].push(event);
        let (at, id) = (place(id, &self.ids), ((id >> 32) as u32).max(1));
        let is_reused = self.ids[at].contains(id);
        if !is_reused {
            self.ids[at].push(id);
        }
        is_reused
    }
}

/// Index into a power of two of sets.
const fn place<K, const COUNT: usize>(key: u64, places: &[Place<K, COUNT>]) -> usize {
    key as usize & (places.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Class, KeyHasher};

    fn hash(number: u64) -> u64 {
        KeyHasher::default().numbers(Class::Content, [number])
    }

    #[test]
    fn recent_contains_the_last_events() {
        let mut recent = Recent::new(1 << 12);
        for number in 0..100_000 {
            assert!(!recent.contains(hash(number)), "{number} is new");
            recent.insert(hash(number), hash(number));
            if let Some(before) = number.checked_sub(1 << 8) {
                assert!(recent.contains(hash(before)), "{before} is one of the last 256");
            }
        }
        assert_eq!((recent.events.len() * WAYS, recent.ids.len() * HALF_WAYS), (1 << 12, 1 << 8));
        assert!(!recent.contains(hash(3)), "an old event is evicted");
        assert!(!recent.contains(0));
        recent.insert(0, 0);
        assert!(recent.contains(0));
    }

    #[test]
    fn recent_of_another_size_keeps_the_last_events() {
        for max in [1 << 11, 1 << 12, 1 << 14] {
            let mut recent = Recent::new(1 << 12);
            for number in 0..10_000 {
                recent.insert(hash(number), hash(number));
            }
            recent.resize(max);
            assert_eq!(recent.events.len() * WAYS, max);
            assert!((9_900..10_000).all(|number| recent.contains(hash(number))), "{max}");
        }
    }

    #[test]
    fn recent_keeps_events_of_a_reused_id() {
        let mut recent = Recent::new(1 << 12);
        assert!(!recent.insert(hash(1), hash(1)));
        for number in 100..200 {
            assert!(!recent.contains(hash(number)) && recent.insert(hash(number), hash(1)), "{number}");
        }
        assert!((100..200).chain([1]).all(|number| recent.contains(hash(number))));
    }
}
