//! A bounded map that evicts the entries that were not written for longest, one generation at a time.

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use hashbrown::HashMap;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::usage::Usage;

/// Maximum number of entries for which memory is reserved before they are read.
const RESERVED_MAX: usize = 1 << 12;

/// Hasher for keys that are hashes already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn write_u32(&mut self, key: u32) {
        // The table uses the upper bits for its tag and the lower ones for the position: both must vary.
        self.0 = u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// A map by keys that are hashes. It is serialized in the order of its keys.
#[derive(Debug)]
pub(crate) struct Map<K, V>(HashMap<K, V, BuildHasherDefault<AsItIs>>);

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K, V> Deref for Map<K, V> {
    type Target = HashMap<K, V, BuildHasherDefault<AsItIs>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<K, V> DerefMut for Map<K, V> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<V> Map<u64, V> {
    /// Removes entries until about `max` are left, chosen by their keys, and frees the memory.
    fn thin_out(&mut self, max: usize) {
        if self.len() > max {
            let kept = u64::MAX / self.len() as u64 * max as u64;
            self.retain(|key, _| key.wrapping_mul(0x9e37_79b9_7f4a_7c15) <= kept);
            self.shrink_to_fit();
        }
    }
}

impl<K: Copy + Ord + Serialize, V: Serialize> Serialize for Map<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Keys are copied, because comparing them where they are costs a cache miss each.
        let mut entries: Vec<_> = self.0.iter().map(|(key, value)| (*key, value)).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        serializer.collect_map(entries)
    }
}

impl<'de, K: Eq + Hash + Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Map<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<K, V>(PhantomData<(K, V)>);
        impl<'de, K: Eq + Hash + Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
            type Value = Map<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                // The announced length is not trusted with more memory than this.
                let reserved = entries.size_hint().unwrap_or(0).min(RESERVED_MAX);
                let mut map = HashMap::with_capacity_and_hasher(reserved, BuildHasherDefault::default());
                while let Some((key, value)) = entries.next_entry()? {
                    map.insert(key, value);
                }
                Ok(Map(map))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// Upper limit of the bytes of an entry in a map whose entries are removed and inserted all the time. Such a map is at least
/// 7/32 full, because the places of removed entries count as used. While it grows, there are one and a half maps.
pub(super) const fn index_bytes<V>() -> usize {
    ((size_of::<(u64, V)>() + 1) * 48).div_ceil(7)
}

/// At most `max` values, by keys that are hashes. When the younger half is full, the older half is evicted. An entry
/// that is written moves to the younger half. It is never iterated, so no verdict depends on the order of hashes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Generations<V> {
    young: Map<u64, V>,
    old: Map<u64, V>,
    half: usize,
    /// Number of evicted values.
    evicted: u64,
}

impl<V> Generations<V> {
    pub(crate) fn new(max: usize) -> Self {
        let mut new = Self { young: Map::default(), old: Map::default(), half: 0, evicted: 0 };
        new.limit(max);
        new
    }

    /// Upper limit of the bytes of `max` values, without what they allocate. A table is at least 7/16 full, and while the
    /// younger half grows, there are two and a half tables.
    pub(crate) const fn bytes_of(max: usize) -> usize {
        (max * (size_of::<(u64, V)>() + 1) * 20).div_ceil(7)
    }

    /// Changes the maximum number of values. Takes a time that is proportional to the values if there are more.
    pub(crate) fn limit(&mut self, max: usize) {
        self.half = (max / 2).max(1);
        let before = self.young.len() + self.old.len();
        self.young.thin_out(self.half);
        self.old.thin_out(self.half);
        self.evicted += (before - self.young.len() - self.old.len()) as u64;
    }

    /// Bytes of the tables, without what the values allocate, and number of evictions.
    pub(crate) fn usage(&self) -> Usage {
        Usage { bytes: self.young.allocation_size() + self.old.allocation_size(), evicted: self.evicted }
    }

    pub(crate) fn get(&self, key: u64) -> Option<&V> {
        self.young.get(&key).or_else(|| self.old.get(&key))
    }

    /// The value of `key`, moved to the younger half; created if it does not exist.
    pub(crate) fn entry(&mut self, key: u64, make: impl FnOnce() -> V) -> &mut V {
        let mut kept = None;
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            kept = self.old.remove(&key);
            self.turn_over();
        }
        let old = &mut self.old;
        self.young.entry(key).or_insert_with(|| kept.or_else(|| old.remove(&key)).unwrap_or_else(make))
    }

    /// The value of `key` for changes, moved to the younger half.
    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key)?;
            self.insert(key, value);
        }
        self.young.get_mut(&key)
    }

    /// Returns whether `key` existed before.
    pub(crate) fn insert(&mut self, key: u64, value: V) -> bool {
        let was_old = self.old.remove(&key).is_some();
        if self.young.len() >= self.half {
            self.turn_over();
        }
        self.young.insert(key, value).is_some() || was_old
    }

    /// Makes the younger half the older one. The memory of the evicted half is reused.
    pub(crate) fn turn_over(&mut self) {
        std::mem::swap(&mut self.old, &mut self.young);
        self.evicted += self.young.len() as u64;
        self.young.clear();
    }

    /// Whether `key` is in the younger half.
    pub(crate) fn is_young(&self, key: u64) -> bool {
        self.young.contains_key(&key)
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<V> {
        let (young, old) = (self.young.remove(&key), self.old.remove(&key));
        young.or(old)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }
}

impl Generations<f64> {
    /// Adds to a count that starts at 0, and returns it.
    pub(crate) fn add(&mut self, key: u64, weight: f64) -> f64 {
        let count = match self.young.get_mut(&key) {
            Some(count) => count,
            None => self.begin(key),
        };
        *count += weight;
        *count
    }

    /// The count of a key that is not in the younger half. Few are not.
    #[cold]
    #[inline(never)]
    fn begin(&mut self, key: u64) -> &mut f64 {
        self.entry(key, || 0.0)
    }

    pub(crate) fn count(&self, key: u64) -> f64 {
        self.get(key).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_that_is_written_is_kept() {
        let mut map = Generations::new(100);
        map.insert(0, 0);
        for key in 1..1_000_u64 {
            assert!(!map.insert(key, 1));
            *map.get_mut(0).expect("it is written in each step") += 1;
            assert!(map.young.len() + map.old.len() <= 100);
        }
        assert_eq!(map.get(0), Some(&999));
        assert_eq!(map.get(1), None);
        assert!(map.insert(999, 2), "it existed");
        assert_eq!(map.remove(999), Some(2));
        assert_eq!(map.get(999), None);
    }

    #[test]
    fn lower_limit_evicts_at_once() {
        let mut map = Generations::new(1 << 16);
        let key = |number: u64| (number ^ 0x55).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (0..1 << 16).for_each(|number| _ = map.insert(key(number), number));
        let before = map.usage();
        map.limit(1 << 12);
        let left = map.young.len() + map.old.len();
        assert!((3_600..4_600).contains(&left), "{left}");
        assert!(map.usage().bytes < before.bytes / 8 && map.usage().evicted == (1 << 16) - left as u64);
        (0..1 << 16).for_each(|number| _ = map.insert(key(number), number));
        assert!(map.young.len() + map.old.len() <= 1 << 12);
        assert!(map.usage().bytes <= Generations::<u64>::bytes_of(1 << 12));
    }

    #[test]
    fn written_entry_survives_its_own_turnover() {
        let mut map = Generations::new(4);
        for key in 1..=4 {
            map.entry(key, || key);
        }
        assert_eq!(*map.entry(1, || 99), 1, "it was in the older half");
        let mut map = Generations::new(4);
        assert!((1..=4).all(|key| !map.insert(key, key)));
        assert!(map.insert(1, 5), "it existed");
    }

    #[test]
    fn large_count_still_adds_small_weights() {
        let mut counts = Generations::new(100);
        counts.add(7, f64::from(1_u32 << 26));
        for _ in 0..1_000 {
            counts.add(7, 0.25);
        }
        assert!((counts.count(7) - f64::from((1_u32 << 26) + 250)).abs() < 1e-6, "{}", counts.count(7));
    }
}
