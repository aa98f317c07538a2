//! The tenants to which baselines belong, for the choice of a baseline to evict.
//!
//! Baselines of one pool evict each other: those of a known tenant, or of all tenants that are not known. Every operation
//! takes the same time, whatever the number of baselines.

use serde::{Deserialize, Serialize};

use super::blocks::Blocks;

/// Number of pools. Beyond that many known tenants, some share a pool.
const POOLS_MAX: u32 = 1 << 12;

/// A pool of baselines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pool(u16);

impl Pool {
    /// The pool of all tenants that are not known, because they can be invented.
    pub(crate) const STRANGERS: Self = Self(0);

    /// The pool of the known tenant with this number.
    pub(crate) const fn of_known(number: u32) -> Self {
        Self(1 + (number % (POOLS_MAX - 1)) as u16)
    }
}

/// Part of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Baselines with few visits.
    Young,
    Established,
}

/// Number and bytes of baselines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) count: usize,
}

impl Size {
    fn add(&mut self, bytes: u16) {
        self.bytes += u64::from(bytes);
        self.count += 1;
    }

    fn remove(&mut self, bytes: u16) {
        self.bytes -= u64::from(bytes);
        self.count -= 1;
    }

    /// Whether one of the two is more than that of `max`.
    pub(super) const fn exceeds(&self, max: &Self) -> bool {
        self.bytes > max.bytes || self.count > max.count
    }
}

/// Where the pools contain one baseline.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Place {
    pool: Pool,
    bytes: u16,
    /// Index in [`Members::indexes`].
    at: u32,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Members {
    /// Indexes of baselines: first the young ones, then the established ones.
    indexes: Vec<u32>,
    young: usize,
    bytes: u64,
}

/// All pools.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pools {
    /// By the index of the baseline.
    places: Blocks<Place>,
    members: Vec<Members>,
    all: Size,
    of_known: Size,
    /// Number of pools of known tenants that have baselines.
    used: usize,
    /// The largest known pool that was found so far, and the next one that is compared with it.
    largest: Pool,
    next: u16,
}

impl Default for Pools {
    fn default() -> Self {
        Self {
            places: Blocks::default(),
            members: vec![Members::default()],
            all: Size::default(),
            of_known: Size::default(),
            used: 0,
            largest: Pool::of_known(0),
            next: 1,
        }
    }
}

impl Pools {
    /// Size of all baselines.
    pub(super) const fn all(&self) -> Size {
        self.all
    }

    /// Size of the baselines of known tenants.
    pub(super) const fn of_known(&self) -> Size {
        self.of_known
    }

    pub(super) fn size_of(&self, pool: Pool) -> Size {
        let members = self.members.get(usize::from(pool.0));
        members.map_or_else(Size::default, |members| Size { bytes: members.bytes, count: members.indexes.len() })
    }

    /// Equal share of a known pool in `max`.
    pub(super) fn share_of(&self, max: &Size) -> Size {
        let pools = self.used.max(1);
        Size { bytes: max.bytes / pools as u64, count: max.count / pools }
    }

    /// Adds a young baseline at the next index.
    pub(super) fn push(&mut self, pool: Pool, bytes: u16) {
        let index = self.places.len() as u32;
        self.places.push(Place { pool, bytes, at: 0 });
        self.add(index, Part::Young);
    }

    /// Removes the baseline at `index`. The last one gets its index.
    pub(super) fn swap_remove(&mut self, index: usize) {
        self.take(index as u32);
        self.places.swap_remove(index);
        if index < self.places.len() {
            let Place { pool, at, .. } = self.places[index];
            self.members[usize::from(pool.0)].indexes[at as usize] = index as u32;
        }
    }

    /// Records the size of a baseline.
    pub(super) fn resize(&mut self, index: u32, bytes: u16) {
        let place = &mut self.places[index as usize];
        let before = std::mem::replace(&mut place.bytes, bytes);
        let pool = place.pool;
        let change = |sum: &mut u64| *sum = *sum + u64::from(bytes) - u64::from(before);
        change(&mut self.all.bytes);
        change(&mut self.members[usize::from(pool.0)].bytes);
        if pool != Pool::STRANGERS {
            change(&mut self.of_known.bytes);
        }
    }

    /// Records the pool of a baseline, and the part of the pool.
    pub(super) fn settle(&mut self, index: u32, pool: Pool, part: Part) {
        let Place { pool: before, at, .. } = self.places[index as usize];
        let was_young = (at as usize) < self.members[usize::from(before.0)].young;
        if pool != before || was_young != (part == Part::Young) {
            self.take(index);
            self.places[index as usize].pool = pool;
            self.add(index, part);
        }
    }

    /// The known pool that is to lose a baseline if none of the pool of the new one can: approximately the largest.
    pub(super) fn largest(&mut self) -> Pool {
        let other = Pool(self.next);
        self.next = if usize::from(self.next) + 1 < self.members.len() { self.next + 1 } else { 1 };
        if self.size_of(other) > self.size_of(self.largest) {
            self.largest = other;
        }
        self.largest
    }

    /// Indexes of `count` baselines of a part of a pool, chosen by `seed`. Some may be equal.
    pub(super) fn sample(&self, pool: Pool, part: Part, count: u64, seed: u64) -> impl Iterator<Item = usize> {
        let members = self.members.get(usize::from(pool.0));
        let of_part = members.map_or(&[][..], |members| match part {
            Part::Young => &members.indexes[..members.young],
            Part::Established => &members.indexes[members.young..],
        });
        let spread = move |step: u64| (seed * count + step).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
        let steps = if of_part.is_empty() { 0 } else { count };
        (0..steps).map(move |step| of_part[spread(step) as usize % of_part.len()] as usize)
    }

    /// Bytes of the pools themselves.
    pub(super) fn own_bytes(&self) -> usize {
        let members: usize = self.members.iter().map(|members| members.indexes.capacity() * size_of::<u32>()).sum();
        members + self.places.bytes() + self.members.capacity() * size_of::<Members>()
    }

    /// Adds a baseline, whose place names the pool, to a part of it.
    fn add(&mut self, index: u32, part: Part) {
        let Place { pool, bytes, .. } = self.places[index as usize];
        let number = usize::from(pool.0);
        if self.members.len() <= number {
            self.members.resize_with(number + 1, Members::default);
        }
        let members = &mut self.members[number];
        let is_first = members.indexes.is_empty();
        members.bytes += u64::from(bytes);
        members.indexes.push(index);
        let last = members.indexes.len() - 1;
        let at = if part == Part::Young {
            members.indexes.swap(members.young, last);
            members.young += 1;
            members.young - 1
        } else {
            last
        };
        let moved = members.indexes[last];
        self.places[moved as usize].at = last as u32;
        self.places[index as usize].at = at as u32;
        self.all.add(bytes);
        if pool != Pool::STRANGERS {
            self.of_known.add(bytes);
            self.used += usize::from(is_first);
        }
    }

    /// Removes a baseline from its pool. Its place stays.
    fn take(&mut self, index: u32) {
        let Place { pool, bytes, at } = self.places[index as usize];
        let members = &mut self.members[usize::from(pool.0)];
        members.bytes -= u64::from(bytes);
        let mut free = at as usize;
        if free < members.young {
            members.young -= 1;
            let moved = members.indexes[members.young];
            members.indexes[free] = moved;
            self.places[moved as usize].at = free as u32;
            free = members.young;
        }
        if let Some(moved) = members.indexes.pop()
            && free < members.indexes.len()
        {
            members.indexes[free] = moved;
            self.places[moved as usize].at = free as u32;
        }
        self.all.remove(bytes);
        if pool != Pool::STRANGERS {
            self.of_known.remove(bytes);
            self.used -= usize::from(members.indexes.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assert_consistent(pools: &Pools, expected: &[(Pool, Part, u16)]) {
        assert_eq!(pools.places.len(), expected.len());
        let size = |of: &dyn Fn(Pool) -> bool| {
            let mut size = Size::default();
            expected.iter().filter(|(pool, ..)| of(*pool)).for_each(|(_, _, bytes)| size.add(*bytes));
            size
        };
        assert_eq!(pools.all(), size(&|_| true));
        assert_eq!(pools.of_known(), size(&|pool| pool != Pool::STRANGERS));
        for (number, members) in (0..).zip(&pools.members) {
            assert_eq!(members.bytes, size(&|pool| pool == Pool(number)).bytes);
            assert_eq!(members.indexes.len(), size(&|pool| pool == Pool(number)).count);
        }
        for (index, (pool, part, bytes)) in expected.iter().enumerate() {
            let place = pools.places[index];
            let members = &pools.members[usize::from(pool.0)];
            assert_eq!((place.pool, place.bytes), (*pool, *bytes));
            assert_eq!(members.indexes[place.at as usize], index as u32);
            assert_eq!((place.at as usize) < members.young, *part == Part::Young);
        }
        let used = pools.members.iter().skip(1).filter(|members| !members.indexes.is_empty()).count();
        assert_eq!(pools.used, used);
    }

    proptest! {
        #[test]
        fn pools_count_what_they_contain(steps in proptest::collection::vec((0..5_u8, any::<u32>(), 0..4_u16, 600..1_400_u16), 1..300)) {
            let (mut pools, mut expected) = (Pools::default(), Vec::new());
            for (step, at, pool, bytes) in steps {
                let (pool, index) = (Pool(pool), at as usize % expected.len().max(1));
                if step == 0 || expected.is_empty() {
                    pools.push(pool, bytes);
                    expected.push((pool, Part::Young, bytes));
                } else if step == 1 {
                    pools.swap_remove(index);
                    expected.swap_remove(index);
                } else if step == 2 {
                    pools.resize(index as u32, bytes);
                    expected[index].2 = bytes;
                } else {
                    let part = if step == 3 { Part::Young } else { Part::Established };
                    pools.settle(index as u32, pool, part);
                    (expected[index].0, expected[index].1) = (pool, part);
                }
                assert_consistent(&pools, &expected);
            }
        }
    }

    #[test]
    fn sample_is_of_one_part_of_one_pool() {
        let mut pools = Pools::default();
        let (tenant, other) = (Pool::of_known(0), Pool::of_known(1));
        (0..100).for_each(|_| pools.push(tenant, 700));
        (0..100).for_each(|_| pools.push(other, 700));
        (0..50).for_each(|index| pools.settle(index, tenant, Part::Established));
        let sample = |pool, part| pools.sample(pool, part, 64, 3).collect::<std::collections::BTreeSet<_>>();
        assert!(sample(tenant, Part::Established).range(50..).next().is_none());
        assert!(sample(tenant, Part::Young).iter().all(|index| (50..100).contains(index)));
        assert!(sample(tenant, Part::Young).len() > 16, "it is spread");
        assert!(sample(Pool::STRANGERS, Part::Young).is_empty() && sample(other, Part::Established).is_empty());
    }

    #[test]
    fn largest_known_pool_is_found_within_one_turn() {
        let mut pools = Pools::default();
        for number in 0..50 {
            (0..10 + u32::from(number == 37) * 10).for_each(|_| pools.push(Pool::of_known(number), 700));
        }
        (0..1_000).for_each(|_| pools.push(Pool::STRANGERS, 700));
        assert_eq!((0..51).map(|_| pools.largest()).last(), Some(Pool::of_known(37)));
    }
}
