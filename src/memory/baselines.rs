//! Bounded table of all baselines of a partition, and of the seeds from which they grow.

use serde::{Deserialize, Serialize};

use super::baseline::{Baseline, Refreshes};
use super::blocks::Blocks;
use super::cohort::Kind;
use super::generations::{Generations, Map, index_bytes};
use super::limits::Limits;
use super::pools::{Part, Pool, Pools, Size};
use super::sighting::{Sighting, Site};
use super::usage::Usage;
use super::visit::VISIT_GAP_MS;
use crate::millis::MINUTE_MS;
use crate::place::NetworkClass;

/// Number of events in the first visit at which a token gets a baseline.
const SEED_EVENTS_MAX: u8 = 4;

/// Visits from which a baseline is established. A flood of new tokens does not evict it.
const ESTABLISHED_VISITS: u32 = 4;

/// Number of baselines that are compared if one of them must be evicted.
const CANDIDATES: u64 = 8;

/// Baselines that are evicted at most after one event. With two, a table that is too large becomes smaller.
const EVICTED_PER_EVENT: usize = 2;

/// Divisor: the part of the limit that is reserved for tenants that are not known. All known tenants together have the
/// rest.
const STRANGERS_PART: u64 = 16;

/// Bytes of a baseline outside of it: the index while it grows and is written to a snapshot, its place in the pools, and the
/// headers of its allocations.
pub(super) const BYTES_BESIDE: usize = index_bytes::<u32>() + 76;

/// A token that was seen in one short visit only. A flood of new ids stores nothing larger.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Seed {
    pub(crate) kind: Kind,
    /// Milliseconds since the epoch.
    pub(crate) first_at: i64,
    pub(crate) last_at: i64,
    pub(crate) visit: u64,
    pub(crate) events: u8,
    pub(crate) hosting: bool,
    address: u32,
    is_wide: bool,
    prefix: u32,
    network: u32,
    country: u32,
    agent: u32,
    version: u32,
    family: u32,
    fingerprint: u32,
    pub(crate) site: Site,
}

impl Seed {
    pub(crate) fn new(kind: Kind, sighting: &Sighting) -> Self {
        let &Sighting {
            at,
            visit,
            address,
            is_wide,
            prefix,
            network,
            country,
            agent,
            version,
            family,
            fingerprint,
            ..
        } = sighting;
        let hosting = sighting.class != NetworkClass::Access;
        Self {
            kind,
            first_at: at,
            last_at: at,
            visit,
            events: 1,
            hosting,
            address,
            is_wide,
            prefix,
            network,
            country,
            agent,
            version,
            family,
            fingerprint,
            site: sighting.site(),
        }
    }

    /// Counts an event. Returns whether this is still the first short visit of the token.
    pub(crate) fn goes_on(&mut self, sighting: &Sighting) -> bool {
        self.events += 1;
        let same = self.visit == sighting.visit && (sighting.at - self.last_at).abs() < VISIT_GAP_MS;
        self.last_at = self.last_at.max(sighting.at);
        same && self.events < SEED_EVENTS_MAX
    }

    /// The sighting of the seed, as far as a baseline learns from it, without its [`Self::site`]. `like` gives the fields
    /// that the seed does not store.
    pub(crate) const fn sighting(&self, like: &Sighting) -> Sighting {
        Sighting {
            at: self.first_at,
            address: self.address,
            is_wide: self.is_wide,
            prefix: self.prefix,
            network: self.network,
            class: if self.hosting { NetworkClass::Hosting } else { NetworkClass::Access },
            country: self.country,
            agent: self.agent,
            version: self.version,
            family: self.family,
            fingerprint: self.fingerprint,
            coordinates: None,
            visit: self.visit,
            ..*like
        }
    }
}

/// Index of a baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BaselineIndex(u32);

/// All baselines of a partition.
///
/// A baseline belongs to the pool of its tenant. A new one evicts a baseline of its own pool: first a young one, then an
/// established one. As long as a known tenant has less than its equal share of the limit, it evicts a young one of the
/// largest tenant instead. It therefore never evicts an established baseline of another known tenant. Tenants that are not
/// known have one pool, and evict only each other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Baselines {
    indexes: Map<u64, u32>,
    held: Blocks<Baseline>,
    pub(crate) seeds: Generations<Seed>,
    pools: Pools,
    max: Size,
    /// Limit of the baselines of all known tenants.
    known_max: Size,
    evicted: u64,
}

impl Baselines {
    pub(crate) fn new(limits: &Limits) -> Self {
        let mut new = Self {
            indexes: Map::default(),
            held: Blocks::default(),
            seeds: Generations::new(limits.seeds),
            pools: Pools::default(),
            max: Size::default(),
            known_max: Size::default(),
            evicted: 0,
        };
        new.set_max(limits.baselines);
        new
    }

    /// Changes the limits, and evicts all baselines above them.
    pub(crate) fn limit(&mut self, limits: &Limits, now: i64, has_incident: &dyn Fn(u64) -> bool) {
        self.seeds.limit(limits.seeds);
        self.set_max(limits.baselines);
        let before = self.evicted;
        while self.is_over() {
            let pool = self.pools.largest();
            if !self.evict(pool, now, has_incident) {
                break;
            }
        }
        if self.evicted > before {
            self.indexes.shrink_to_fit();
        }
    }

    fn set_max(&mut self, max: Size) {
        self.max = Size { bytes: max.bytes, count: max.count.max(1) };
        let Size { bytes, count } = self.max;
        self.known_max = Size { bytes: bytes - bytes / STRANGERS_PART, count: count - count / STRANGERS_PART as usize };
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut Baseline> {
        self.find(key).map(|index| self.at(index))
    }

    /// Index of the baseline of `key`. It is valid until the next baseline is made.
    pub(crate) fn find(&self, key: u64) -> Option<BaselineIndex> {
        self.indexes.get(&key).map(|index| BaselineIndex(*index))
    }

    /// Time at which the token of `key` was first seen, if stored: milliseconds since the epoch, at most a minute
    /// early. `index`: that of its baseline, if it has one.
    pub(crate) fn first_seen(&self, key: u64, index: Option<BaselineIndex>) -> Option<i64> {
        match index {
            Some(index) => Some(i64::from(self.get(index).first_minute) * MINUTE_MS),
            None => self.seeds.get(key).map(|seed| seed.first_at),
        }
    }

    pub(crate) fn get(&self, index: BaselineIndex) -> &Baseline {
        &self.held[index.0 as usize]
    }

    pub(crate) fn at(&mut self, index: BaselineIndex) -> &mut Baseline {
        &mut self.held[index.0 as usize]
    }

    /// Stores a baseline of a tenant with this pool, whose key has none.
    pub(crate) fn insert(&mut self, baseline: Baseline, pool: Pool) -> BaselineIndex {
        let index = BaselineIndex(self.held.len() as u32);
        self.indexes.insert(baseline.key, index.0);
        self.pools.push(pool, bytes_of(&baseline));
        self.held.push(baseline);
        index
    }

    /// The refresh tokens of the baseline of `key`; created if it has none.
    pub(crate) fn refreshes_mut(&mut self, key: u64) -> Option<&mut Refreshes> {
        let index = self.find(key)?;
        if self.get(index).refreshes.is_none() {
            self.at(index).refreshes = Some(Box::default());
            self.resized(index);
        }
        self.at(index).refreshes.as_deref_mut()
    }

    /// Records the size of a baseline.
    pub(crate) fn resized(&mut self, index: BaselineIndex) {
        self.pools.resize(index.0, bytes_of(self.get(index)));
    }

    /// Records a new visit of a baseline of a tenant with this pool, with its size.
    pub(crate) fn visited(&mut self, index: BaselineIndex, pool: Pool) {
        self.resized(index);
        let part = if self.get(index).visits < ESTABLISHED_VISITS { Part::Young } else { Part::Established };
        self.pools.settle(index.0, pool, part);
    }

    /// Whether [`Self::fit`] has something to do.
    #[inline]
    pub(crate) const fn is_over(&self) -> bool {
        self.pools.all().exceeds(&self.max) || self.pools.of_known().exceeds(&self.known_max)
    }

    /// Evicts a baseline or two if there are too many, but not the one that was made last. Indexes may change. `pool`: of
    /// the tenant of the last event. `has_incident`: whether a baseline has an open incident; it is evicted last.
    pub(crate) fn fit(&mut self, pool: Pool, now: i64, has_incident: &dyn Fn(u64) -> bool) {
        for _ in 0..EVICTED_PER_EVENT {
            if !self.is_over() || !self.evict(pool, now, has_incident) {
                return;
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Number of evicted baselines.
    pub(crate) const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Bytes of all baselines with their index and pools, without seeds and without free room in the last block, and the
    /// number of evictions.
    pub(crate) fn usage(&self) -> Usage {
        let Size { bytes, count } = self.pools.all();
        let own = bytes as usize - count * BYTES_BESIDE;
        Usage { bytes: own + self.indexes.allocation_size() + self.pools.own_bytes(), evicted: self.evicted }
    }

    /// Returns whether there was one to evict.
    fn evict(&mut self, pool: Pool, now: i64, has_incident: &dyn Fn(u64) -> bool) -> bool {
        // The last one was made last.
        let last = self.held.len() - 1;
        let seed = self.evicted;
        let Self { pools, held, .. } = self;
        for (pool, part) in pools_to_shrink(pools, pool, &self.known_max) {
            let candidates = pools.sample(pool, part, CANDIDATES, seed).filter(|index| *index != last);
            let value = |index: &usize| {
                let baseline = &held[*index];
                (has_incident(baseline.key), baseline.retention(now), baseline.last_at)
            };
            if let Some(least) = candidates.min_by_key(value) {
                self.remove(least);
                return true;
            }
        }
        false
    }

    fn remove(&mut self, index: usize) {
        let Some(gone) = self.held.swap_remove(index) else { return };
        self.indexes.remove(&gone.key);
        self.pools.swap_remove(index);
        if index < self.held.len() {
            self.indexes.insert(self.held[index].key, index as u32);
        }
        self.evicted += 1;
    }
}

/// Size with which a baseline counts.
fn bytes_of(baseline: &Baseline) -> u16 {
    (baseline.bytes() + BYTES_BESIDE) as u16
}

/// Parts of pools of which a baseline is evicted after an event of a tenant with `pool`: of the first one that has any.
fn pools_to_shrink(pools: &mut Pools, pool: Pool, known_max: &Size) -> [(Pool, Part); 5] {
    use Part::{Established, Young};
    let largest = pools.largest();
    let strangers = [(Pool::STRANGERS, Young), (Pool::STRANGERS, Established)];
    let [young, established] = [(largest, Young), (largest, Established)];
    if !pools.of_known().exceeds(known_max) {
        // Tenants that are not known have more than what is reserved for them.
        return [strangers[0], strangers[1], (pool, Young), young, established];
    }
    if pool == Pool::STRANGERS {
        // A tenant became known, with its baselines.
        return [young, established, young, strangers[0], strangers[1]];
    }
    let first = if pools.size_of(pool).exceeds(&pools.share_of(known_max)) { pool } else { largest };
    [(first, Young), (pool, Young), (pool, Established), young, established]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrichment::Device;
    use crate::event::TokenType;

    const ACME: Pool = Pool::of_known(0);
    const GLOBEX: Pool = Pool::of_known(1);

    fn baselines(max: usize) -> Baselines {
        Baselines::new(&Limits::by_number(max, 64))
    }

    /// A baseline with this number of visits.
    fn grown(baselines: &mut Baselines, key: u64, pool: Pool, visits: u32) {
        let kind = Kind::new(TokenType::Access, Device::Desktop);
        let index = baselines.insert(Baseline::new(key, kind, i64::from(visits)), pool);
        baselines.at(index).visits = visits;
        baselines.visited(index, pool);
        baselines.fit(pool, 0, &|_| false);
        assert!(baselines.find(key).is_some(), "the newest one is not evicted");
    }

    fn left(baselines: &Baselines, keys: std::ops::Range<u64>) -> usize {
        keys.filter(|key| baselines.find(*key).is_some()).count()
    }

    fn assert_indexed(baselines: &Baselines) {
        assert_eq!(baselines.indexes.len(), baselines.len());
        assert!(baselines.indexes.iter().all(|(key, index)| baselines.held[*index as usize].key == *key));
    }

    #[test]
    fn flood_of_new_ids_evicts_no_established_baseline() {
        for pool in [ACME, Pool::STRANGERS] {
            let mut baselines = baselines(1_000);
            (0..500).for_each(|key| grown(&mut baselines, key, ACME, 20));
            (10_000..100_000).for_each(|key| grown(&mut baselines, key, pool, 1));
            assert_eq!(left(&baselines, 0..500), 500);
            assert!(baselines.len() > 900 && baselines.len() as u64 + baselines.evicted() == 90_500);
            (200_000..200_600).for_each(|key| grown(&mut baselines, key, ACME, 20));
            assert!((900..=1_000).contains(&baselines.len()), "established baselines replace each other");
            assert_indexed(&baselines);
        }
    }

    #[test]
    fn flood_of_a_tenant_evicts_its_own_baselines() {
        // Also with ids that have enough visits to be established.
        for visits in [1, 20] {
            let mut baselines = baselines(1_000);
            (0..700).for_each(|key| grown(&mut baselines, key, ACME, 4));
            (700..750).for_each(|key| grown(&mut baselines, key, Pool::STRANGERS, 4));
            (10_000..60_000).for_each(|key| grown(&mut baselines, key, GLOBEX, visits));
            assert_eq!(left(&baselines, 0..700), 700, "{visits}");
            assert!(left(&baselines, 10_000..60_000) > 200);
            assert_indexed(&baselines);
        }
    }

    #[test]
    fn strangers_keep_a_part_of_the_table() {
        let mut baselines = baselines(1_600);
        (0..5_000).for_each(|key| grown(&mut baselines, key, ACME, 20));
        assert_eq!(baselines.len(), 1_500);
        (10_000..20_000).for_each(|key| grown(&mut baselines, key, Pool::STRANGERS, 20));
        assert_eq!((left(&baselines, 0..5_000), left(&baselines, 10_000..20_000)), (1_500, 100));
        (20_000..30_000).for_each(|key| grown(&mut baselines, key, ACME, 20));
        assert_eq!(left(&baselines, 10_000..20_000), 100);
    }

    #[test]
    fn new_tenant_gets_its_share_from_the_young_of_the_largest() {
        let mut baselines = baselines(1_600);
        (0..1_000).for_each(|key| grown(&mut baselines, key, ACME, 20));
        (1_000..2_000).for_each(|key| grown(&mut baselines, key, ACME, 1));
        (10_000..10_400).for_each(|key| grown(&mut baselines, key, GLOBEX, 1));
        assert_eq!(left(&baselines, 10_000..10_400), 400);
        assert_eq!(left(&baselines, 0..1_000), 1_000);
        (20_000..30_000).for_each(|key| grown(&mut baselines, key, GLOBEX, 1));
        assert_eq!(left(&baselines, 0..1_000), 1_000);
    }

    #[test]
    fn baselines_with_an_incident_are_evicted_last() {
        let mut baselines = baselines(100);
        let kind = Kind::new(TokenType::Access, Device::Desktop);
        for key in 0..10_000 {
            let index = baselines.insert(Baseline::new(key, kind, 0), ACME);
            baselines.visited(index, ACME);
            baselines.fit(ACME, 0, &|key| key < 50);
        }
        assert_eq!(left(&baselines, 0..50), 50);
    }

    #[test]
    fn baselines_stay_within_their_bytes() {
        let mut limits = Limits::by_number(usize::MAX / 2, 64);
        limits.baselines.bytes = 2 << 20;
        limits.seeds = 16;
        let mut baselines = Baselines::new(&limits);
        for key in 0..20_000 {
            grown(&mut baselines, key, ACME, 1);
            // One of the older ones grows.
            if let Some(index) = baselines.find(key / 2) {
                baselines.at(index).refreshes.get_or_insert_default();
                baselines.resized(index);
                baselines.fit(ACME, 0, &|_| false);
            }
            assert!(baselines.usage().bytes < 2 << 20);
        }
        assert!(baselines.usage().bytes > 3 << 19, "{:?}", baselines.usage());
        limits.baselines.bytes = 1 << 20;
        baselines.limit(&limits, 0, &|_| false);
        assert!(baselines.usage().bytes < 1 << 20 && baselines.len() > 500);
        assert_indexed(&baselines);
    }

    /// Number of baselines that one event compares.
    #[test]
    fn eviction_compares_a_fixed_number_of_baselines() {
        let compared = |max: usize| {
            let mut baselines = baselines(max);
            (0..2 * max as u64).for_each(|key| grown(&mut baselines, key, ACME, 20));
            let compared = std::cell::Cell::new(0);
            let index =
                baselines.insert(Baseline::new(u64::MAX, Kind::new(TokenType::Access, Device::Desktop), 0), ACME);
            baselines.visited(index, ACME);
            baselines.fit(ACME, 0, &|_| {
                compared.set(compared.get() + 1);
                false
            });
            compared.get()
        };
        assert!(compared(100) <= 16 && compared(20_000) <= 16);
    }

    #[test]
    fn seed_has_at_most_96_bytes() {
        assert!(size_of::<(u64, Seed)>() <= 96, "{}", size_of::<(u64, Seed)>());
    }
}
