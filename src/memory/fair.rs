//! A bounded table that tenants share. If it is full, the tenant with the most entries loses one of its own.
//!
//! Invented keys of one tenant, or of several that act together, therefore do not evict entries of other tenants: a
//! tenant needs more entries than the tenant whose entry it evicts. All tenants without a seat count as one.

use serde::{Deserialize, Serialize};

use super::blocks::Blocks;
use super::generations::{Map, index_bytes};
use super::tenants::{BySeat, Seat};
use super::usage::Usage;

/// Number of entries that are compared if one must be evicted.
const COMPARED: usize = 16;
/// Number of entries that are checked for expiry when one is made. With two, the table does not grow while entries
/// expire as fast as others are made.
const CHECKS: usize = 2;

/// Index of an entry. Another entry may take it when one is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slot(u32);

/// Tenant and time of a write.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Write {
    /// The tenant to which a new entry belongs; `None`: tenants without a seat.
    pub(crate) owner: Option<Seat>,
    /// The stream's time, seconds since the epoch.
    pub(crate) second: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Held<V> {
    key: u64,
    by: Write,
    value: V,
}

/// At most `max` values, by keys that are hashes. No result depends on the order of hashes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Fair<V> {
    slots: Map<u64, Slot>,
    held: Blocks<Held<V>>,
    /// Numbers of entries of each tenant with a seat.
    by_seat: BySeat<usize>,
    /// Number of entries of all other tenants.
    by_strangers: usize,
    /// Next entry that is checked or compared.
    next: usize,
    max: usize,
    /// Seconds after which an entry that is not written expires.
    lifetime: u32,
    /// Number of entries that were evicted before they expired.
    evicted: u64,
}

impl<V> Fair<V> {
    pub(crate) fn new(max: usize, lifetime: u32) -> Self {
        Self {
            slots: Map::default(),
            held: Blocks::default(),
            by_seat: BySeat::default(),
            by_strangers: 0,
            next: 0,
            max: max.max(1),
            lifetime,
            evicted: 0,
        }
    }

    /// Upper limit of the bytes of `max` values, without what they allocate: the entries, and the index while it grows.
    pub(crate) const fn bytes_of(max: usize) -> usize {
        max * (size_of::<Held<V>>() + index_bytes::<Slot>())
    }

    /// Changes the maximum number of values. Takes a time that is proportional to the values if there are more.
    pub(crate) fn limit(&mut self, max: usize) {
        self.max = max.max(1);
        if self.held.len() > self.max {
            while self.held.len() > self.max {
                let Some(last) = self.held.swap_remove(self.held.len() - 1) else { return };
                self.slots.remove(&last.key);
                decrement(entries_of(&mut self.by_seat, &mut self.by_strangers, last.by.owner));
                self.evicted += 1;
            }
            self.next = 0;
            self.slots.shrink_to_fit();
        }
    }

    /// Bytes of the entries and the index, without what values allocate, and number of evictions.
    pub(crate) fn usage(&self) -> Usage {
        Usage { bytes: self.held.bytes() + self.slots.allocation_size(), evicted: self.evicted }
    }

    pub(crate) fn find(&self, key: u64) -> Option<Slot> {
        self.slots.get(&key).copied()
    }

    pub(crate) fn at(&self, slot: Slot) -> &V {
        &self.held[slot.0 as usize].value
    }

    pub(crate) fn get(&self, key: u64) -> Option<&V> {
        self.find(key).map(|slot| self.at(slot))
    }

    /// The value of `key` for changes; made if it does not exist.
    pub(crate) fn entry(&mut self, key: u64, by: Write, make: impl FnOnce() -> V) -> &mut V {
        let slot = self.find(key).unwrap_or_else(|| self.make(key, by, make));
        self.write(slot, by)
    }

    /// The same for a key that was found at `slot` before, while no limit was lowered. The slot need not be valid any more.
    pub(crate) fn entry_at(&mut self, key: u64, slot: Option<Slot>, by: Write, make: impl FnOnce() -> V) -> &mut V {
        match slot.filter(|slot| self.held[slot.0 as usize].key == key) {
            Some(slot) => self.write(slot, by),
            None => self.entry(key, by, make),
        }
    }

    fn write(&mut self, slot: Slot, by: Write) -> &mut V {
        let Self { held, by_seat, by_strangers, .. } = self;
        let held = &mut held[slot.0 as usize];
        held.by.second = by.second;
        if held.by.owner.is_none() && by.owner.is_some() {
            // The first tenant with a seat that writes the entry becomes its owner.
            held.by.owner = by.owner;
            decrement(entries_of(by_seat, by_strangers, None));
            increment(entries_of(by_seat, by_strangers, by.owner));
        }
        &mut held.value
    }

    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.held.len()
    }

    fn make(&mut self, key: u64, by: Write, make: impl FnOnce() -> V) -> Slot {
        let new = Held { key, by, value: make() };
        increment(entries_of(&mut self.by_seat, &mut self.by_strangers, by.owner));
        let freed = self.expired(by.second).or_else(|| {
            let is_full = self.held.len() >= self.max;
            self.evicted += u64::from(is_full);
            is_full.then(|| self.least(by.second))
        });
        let index = if let Some(index) = freed {
            let old = std::mem::replace(&mut self.held[index], new);
            self.slots.remove(&old.key);
            decrement(entries_of(&mut self.by_seat, &mut self.by_strangers, old.by.owner));
            index
        } else {
            self.held.push(new);
            self.held.len() - 1
        };
        let slot = Slot(index as u32);
        self.slots.insert(key, slot);
        slot
    }

    /// Moves on to the next entry, and returns the current one.
    fn step(&mut self) -> usize {
        let index = self.next;
        self.next = if index + 1 < self.held.len() { index + 1 } else { 0 };
        index
    }

    fn has_expired(&self, index: usize, second: u32) -> bool {
        self.held[index].by.second.abs_diff(second) > self.lifetime
    }

    fn expired(&mut self, second: u32) -> Option<usize> {
        (0..CHECKS.min(self.held.len())).find_map(|_| {
            let index = self.step();
            self.has_expired(index, second).then_some(index)
        })
    }

    /// Index of the entry to evict: of some entries, the oldest of the tenant with the most entries. Entries of tenants
    /// that have lost their seat come first. The compared entries are spread over the table, because neighbours are
    /// often of one tenant.
    fn least(&mut self, second: u32) -> usize {
        let (first, len) = (self.step(), self.held.len());
        let mut least = (first, None);
        for number in 0..COMPARED.min(len) {
            let index = (first + number * len / COMPARED.min(len)) % len;
            let by = self.held[index].by;
            let entries = match by.owner {
                Some(seat) => self.by_seat.get(seat).copied().unwrap_or(usize::MAX),
                None => self.by_strangers,
            };
            let rank = Some((entries, by.second.abs_diff(second)));
            if rank > least.1 {
                least = (index, rank);
            }
        }
        least.0
    }
}

/// Number of entries of `owner`. `None`: the tenant has lost its seat.
fn entries_of<'a>(
    by_seat: &'a mut BySeat<usize>,
    by_strangers: &'a mut usize,
    owner: Option<Seat>,
) -> Option<&'a mut usize> {
    match owner {
        Some(seat) => by_seat.get_mut(seat),
        None => Some(by_strangers),
    }
}

fn increment(entries: Option<&mut usize>) {
    if let Some(entries) = entries {
        *entries += 1;
    }
}

fn decrement(entries: Option<&mut usize>) {
    if let Some(entries) = entries {
        *entries = entries.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tenants::{Tenant, seated, successor};

    const HOUR: u32 = 3_600;

    fn by(tenant: Tenant, second: u32) -> Write {
        Write { owner: tenant.seat, second }
    }

    fn stranger() -> Tenant {
        Tenant { key: 1, seat: None }
    }

    /// Asserts that the numbers of entries are correct.
    fn assert_counted<V>(table: &Fair<V>) {
        assert_eq!(table.slots.len(), table.held.len());
        assert!(table.slots.iter().all(|(key, slot)| table.held[slot.0 as usize].key == *key));
        let of = |owner| table.held.iter().filter(|held| held.by.owner == owner).count();
        assert_eq!(of(None), table.by_strangers);
        for seat in (0..8).filter_map(|number| seated(number).seat) {
            assert_eq!(of(Some(seat)), table.by_seat.get(seat).copied().unwrap_or_default());
        }
    }

    #[test]
    fn entry_of_a_stranger_passes_to_a_tenant() {
        let mut table = Fair::new(1_000, HOUR);
        *table.entry(7, by(stranger(), 0), || 0) += 1;
        *table.entry(7, by(seated(0), 0), || 0) += 1;
        assert_counted(&table);
        for key in 100..50_000 {
            *table.entry(key, by(stranger(), 0), || 0) += 1;
        }
        assert_counted(&table);
        assert_eq!(table.get(7), Some(&2), "strangers evict their own entries");
    }

    #[test]
    fn flooding_tenants_evict_their_own_entries() {
        let mut table = Fair::new(1_000, HOUR);
        for key in 0..100 {
            *table.entry(key, by(seated(0), 0), || 0) += 1;
        }
        for number in 0..50_000 {
            let flooder = if number % 3 == 0 { stranger() } else { seated(1 + number as u16 % 3) };
            table.entry(1_000 + number, by(flooder, number as u32 / 100), || 0);
            assert!(table.len() <= 1_000);
        }
        assert_counted(&table);
        let left = (0..100).filter(|key| table.get(*key) == Some(&1)).count();
        assert_eq!(left, 100);
        assert!(table.get(50_999).is_some() && table.get(1_000).is_none(), "the oldest entries are evicted");
        // A single tenant can fill the table.
        (0..5_000).for_each(|number| _ = table.entry(1 << 40 | number, by(seated(0), 600), || 0));
        assert!(table.by_seat.get(seated(0).seat.expect("it has one")).is_some_and(|entries| *entries > 200));
        assert_counted(&table);
    }

    #[test]
    fn lower_limit_evicts_entries_at_once() {
        let mut table = Fair::new(10_000, HOUR);
        (0..10_000).for_each(|key| _ = table.entry(key, by(seated(key as u16 % 3), 0), || 0));
        table.limit(1_000);
        assert_counted(&table);
        assert_eq!((table.len(), table.usage().evicted), (1_000, 9_000));
        (0..5_000).for_each(|key| _ = table.entry(1 << 40 | key, by(stranger(), 0), || 0));
        assert_eq!(table.len(), 1_000);
        assert!(table.usage().bytes <= Fair::<i32>::bytes_of(1_000));
        assert_counted(&table);
    }

    #[test]
    fn expired_entries_are_replaced() {
        let mut table = Fair::new(100_000, HOUR);
        for number in 0..20_000_u32 {
            table.entry(u64::from(number), by(seated(0), 36 * number), || 0);
            table.entry(u64::MAX, by(seated(1), 36 * number), || 0);
        }
        assert!(table.len() < 400, "100 entries are written in an hour: {}", table.len());
        assert!(table.get(u64::MAX).is_some() && table.get(19_950).is_some() && table.get(0).is_none());
        assert_counted(&table);
        // The clock is set back.
        (0..500).for_each(|number| _ = table.entry(1 << 40 | number, by(seated(0), 7), || 0));
        assert_eq!(table.get(19_950), None);
        assert_counted(&table);
    }

    #[test]
    fn place_of_another_entry_is_not_used() {
        let mut table = Fair::new(1, HOUR);
        *table.entry(7, by(stranger(), 0), || 1) += 1;
        let slot = table.find(7);
        assert_eq!(*table.entry_at(7, slot, by(stranger(), 0), || 0), 2);
        table.entry(8, by(stranger(), 0), || 5);
        assert_eq!(*table.entry_at(7, slot, by(stranger(), 0), || 3), 3);
        assert_eq!((table.len(), table.get(8)), (1, None));
    }

    #[test]
    fn entries_of_an_unseated_tenant_are_evicted_first() {
        let mut table = Fair::new(16, HOUR);
        let (old, new) = (seated(2), successor(seated(2)));
        (0..4).for_each(|key| _ = table.entry(key, by(old, 9), || 0));
        (10..22).for_each(|key| _ = table.entry(key, by(new, 0), || 0));
        (30..34).for_each(|key| _ = table.entry(key, by(new, 9), || 0));
        assert!((0..4).all(|key| table.get(key).is_none()) && (10..22).all(|key| table.get(key).is_some()));
    }
}
