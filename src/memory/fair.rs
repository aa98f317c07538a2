//! A bounded table that tenants share. If it is full, the tenant with the most entries loses one of its own.
//!
//! Entries of other tenants are therefore kept however many keys one tenant, or several that act together, invent:
//! each of them needs more entries than the tenant whose entry it evicts. All tenants without a seat count as one.

use super::blocks::Blocks;
use super::generations::Map;
use super::tenants::{BySeat, Seat};

/// Entries that are compared if one must be evicted.
const COMPARED: usize = 16;
/// Entries that are checked for expiry for each entry made: two, so that the table does not grow while entries expire as
/// fast as others are made.
const CHECKS: usize = 2;

/// Place of an entry. Another entry may take it when one is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

/// What an entry is written with.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// The tenant to which a new entry belongs; `None`: tenants without a seat.
    pub owner: Option<Seat>,
    /// The stream's time, seconds since the epoch.
    pub second: u32,
}

#[derive(Debug)]
struct Held<V> {
    key: u64,
    by: Write,
    value: V,
}

/// At most `max` values, by keys that are hashes. No result depends on the order of hashes.
#[derive(Debug)]
pub struct Fair<V> {
    places: Map<u64, Place>,
    held: Blocks<Held<V>>,
    /// Numbers of entries.
    by_seat: BySeat<usize>,
    by_strangers: usize,
    /// Next entry that is checked or compared.
    next: usize,
    max: usize,
    /// Seconds after which an entry that is not written expires.
    lifetime: u32,
}

impl<V> Fair<V> {
    #[must_use]
    pub fn new(max: usize, lifetime: u32) -> Self {
        Self {
            places: Map::default(),
            held: Blocks::default(),
            by_seat: BySeat::default(),
            by_strangers: 0,
            next: 0,
            max: max.max(1),
            lifetime,
        }
    }

    #[must_use]
    pub fn find(&self, key: u64) -> Option<Place> {
        self.places.get(&key).copied()
    }

    #[must_use]
    pub fn at(&self, place: Place) -> &V {
        &self.held[place.0 as usize].value
    }

    #[must_use]
    pub fn get(&self, key: u64) -> Option<&V> {
        self.find(key).map(|place| self.at(place))
    }

    /// The value of `key` for changes; made if it does not exist.
    pub fn entry(&mut self, key: u64, by: Write, make: impl FnOnce() -> V) -> &mut V {
        let place = self.find(key).unwrap_or_else(|| self.make(key, by, make));
        self.write(place, by)
    }

    /// The same for a key that was found at `place` before. The place need not be valid any more.
    pub fn entry_at(&mut self, key: u64, place: Option<Place>, by: Write, make: impl FnOnce() -> V) -> &mut V {
        match place.filter(|place| self.held[place.0 as usize].key == key) {
            Some(place) => self.write(place, by),
            None => self.entry(key, by, make),
        }
    }

    fn write(&mut self, place: Place, by: Write) -> &mut V {
        let Self { held, by_seat, by_strangers, .. } = self;
        let held = &mut held[place.0 as usize];
        held.by.second = by.second;
        if held.by.owner.is_none() && by.owner.is_some() {
            // A stranger who came first keeps no entry of a tenant with a seat among its own.
            held.by.owner = by.owner;
            count((by_seat, by_strangers), None, false);
            count((by_seat, by_strangers), by.owner, true);
        }
        &mut held.value
    }

    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.held.len()
    }

    fn make(&mut self, key: u64, by: Write, make: impl FnOnce() -> V) -> Place {
        let new = Held { key, by, value: make() };
        self.count(by.owner, true);
        let freed = self.expired(by.second).or_else(|| (self.held.len() >= self.max).then(|| self.least(by.second)));
        let place = if let Some(place) = freed {
            let old = std::mem::replace(&mut self.held[place], new);
            self.places.remove(&old.key);
            self.count(old.by.owner, false);
            place
        } else {
            self.held.push(new);
            self.held.len() - 1
        };
        let place = Place(place as u32);
        self.places.insert(key, place);
        place
    }

    fn count(&mut self, owner: Option<Seat>, is_more: bool) {
        count((&mut self.by_seat, &mut self.by_strangers), owner, is_more);
    }

    /// Moves on to the next entry, and returns the current one.
    fn step(&mut self) -> usize {
        let place = self.next;
        self.next = if place + 1 < self.held.len() { place + 1 } else { 0 };
        place
    }

    fn has_expired(&self, place: usize, second: u32) -> bool {
        self.held[place].by.second.abs_diff(second) > self.lifetime
    }

    fn expired(&mut self, second: u32) -> Option<usize> {
        (0..CHECKS.min(self.held.len())).find_map(|_| {
            let place = self.step();
            self.has_expired(place, second).then_some(place)
        })
    }

    /// Of some entries the oldest of the tenant with most entries. A tenant that has lost its seat comes first. They are
    /// spread over the table, because neighbours are often of one tenant.
    fn least(&mut self, second: u32) -> usize {
        let (first, len) = (self.step(), self.held.len());
        let mut least = (first, None);
        for number in 0..COMPARED.min(len) {
            let place = (first + number * len / COMPARED.min(len)) % len;
            let by = self.held[place].by;
            let entries = match by.owner {
                Some(seat) => self.by_seat.get(seat).copied().unwrap_or(usize::MAX),
                None => self.by_strangers,
            };
            let worth = Some((entries, by.second.abs_diff(second)));
            if worth > least.1 {
                least = (place, worth);
            }
        }
        least.0
    }
}

/// Counts an entry of `owner` more or less.
fn count((by_seat, by_strangers): (&mut BySeat<usize>, &mut usize), owner: Option<Seat>, is_more: bool) {
    let entries = match owner {
        Some(seat) => by_seat.get_mut(seat),
        None => Some(by_strangers),
    };
    if let Some(entries) = entries {
        *entries = if is_more { *entries + 1 } else { entries.saturating_sub(1) };
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

    /// The numbers of entries are those of what is held.
    fn assert_counted<V>(table: &Fair<V>) {
        assert_eq!(table.places.len(), table.held.len());
        assert!(table.places.iter().all(|(key, place)| table.held[place.0 as usize].key == *key));
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
        assert_eq!(table.get(7), Some(&2), "a flood of strangers evicts their own");
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
        assert!(table.get(50_999).is_some() && table.get(1_000).is_none(), "the oldest go");
        // A tenant alone has all of it.
        (0..5_000).for_each(|number| _ = table.entry(1 << 40 | number, by(seated(0), 600), || 0));
        assert!(table.by_seat.get(seated(0).seat.expect("it has one")).is_some_and(|entries| *entries > 200));
        assert_counted(&table);
    }

    #[test]
    fn expired_entries_are_replaced() {
        let mut table = Fair::new(100_000, HOUR);
        for number in 0..20_000_u32 {
            table.entry(u64::from(number), by(seated(0), 36 * number), || 0);
            table.entry(u64::MAX, by(seated(1), 36 * number), || 0);
        }
        assert!(table.len() < 400, "one hundred are written in an hour: {}", table.len());
        assert!(table.get(u64::MAX).is_some() && table.get(19_950).is_some() && table.get(0).is_none());
        assert_counted(&table);
        // The clock was wrong, and is right again.
        (0..500).for_each(|number| _ = table.entry(1 << 40 | number, by(seated(0), 7), || 0));
        assert_eq!(table.get(19_950), None);
        assert_counted(&table);
    }

    #[test]
    fn place_that_another_entry_has_taken_is_not_used() {
        let mut table = Fair::new(1, HOUR);
        *table.entry(7, by(stranger(), 0), || 1) += 1;
        let place = table.find(7);
        assert_eq!(*table.entry_at(7, place, by(stranger(), 0), || 0), 2);
        table.entry(8, by(stranger(), 0), || 5);
        assert_eq!(*table.entry_at(7, place, by(stranger(), 0), || 3), 3);
        assert_eq!((table.len(), table.get(8)), (1, None));
    }

    #[test]
    fn entries_of_a_tenant_without_its_seat_go_first() {
        let mut table = Fair::new(16, HOUR);
        let (old, new) = (seated(2), successor(seated(2)));
        (0..4).for_each(|key| _ = table.entry(key, by(old, 9), || 0));
        (10..22).for_each(|key| _ = table.entry(key, by(new, 0), || 0));
        (30..34).for_each(|key| _ = table.entry(key, by(new, 9), || 0));
        assert!((0..4).all(|key| table.get(key).is_none()) && (10..22).all(|key| table.get(key).is_some()));
    }
}
