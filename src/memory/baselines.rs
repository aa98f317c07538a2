//! Bounded table of all baselines of a partition, and of the seeds from which they grow.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::baseline::Baseline;
use super::blocks::Blocks;
use super::cohort::Kind;
use super::generations::{Generations, Map};
use super::sighting::{Sighting, Site};
use super::visit::VISIT_GAP_MS;
use crate::millis::MINUTE_MS;
use crate::place::NetworkClass;

/// Number of events in the first visit at which a token gets a baseline.
const SEED_EVENTS_MAX: u8 = 4;

/// Visits from which a baseline is established. A flood of new tokens does not evict it.
const ESTABLISHED_VISITS: u32 = 4;

/// Number of established baselines that are compared if one of them must be evicted.
const CANDIDATES: usize = 8;

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

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Baselines {
    indexes: Map<u64, u32>,
    held: Blocks<Baseline>,
    pub(crate) seeds: Generations<Seed>,
    /// Keys of baselines that were not established at the last check, oldest first.
    young: VecDeque<u64>,
    max: usize,
    evicted: u64,
}

impl Baselines {
    /// Above `max` baselines the oldest that is not established is evicted, otherwise the least valuable of some
    /// candidates. Above twice as many seeds the older half is evicted.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            indexes: Map::default(),
            held: Blocks::default(),
            seeds: Generations::new(max.saturating_mul(2)),
            young: VecDeque::new(),
            max: max.max(1),
            evicted: 0,
        }
    }

    /// Changes the limit of [`Self::new`], but not below the number of baselines.
    pub(crate) fn limit(&mut self, max: usize) {
        self.max = max.max(self.held.len()).max(1);
        self.seeds.limit(max.saturating_mul(2));
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

    /// Stores a baseline whose key has none. Call [`Self::fit`] afterwards.
    pub(crate) fn insert(&mut self, baseline: Baseline) -> BaselineIndex {
        let index = BaselineIndex(self.held.len() as u32);
        self.young.push_back(baseline.key);
        self.indexes.insert(baseline.key, index.0);
        self.held.push(baseline);
        index
    }

    /// Evicts one baseline if there are too many, but not the one that was made last. Indexes may change.
    pub(crate) fn fit(&mut self, now: i64) {
        if self.held.len() > self.max {
            self.evict(now);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Number of evicted baselines.
    pub(crate) const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Bytes of all baselines, their index and the queue of young ones, without free room in the last block and without
    /// seeds.
    pub(crate) fn bytes(&self) -> usize {
        let indexes = self.indexes.capacity() * (size_of::<(u64, u32)>() + 1);
        let young = self.young.capacity() * size_of::<u64>();
        let own: usize = self.held.iter().map(Baseline::bytes).sum();
        indexes + young + own
    }

    fn evict(&mut self, now: i64) {
        let last = self.held.len() - 1;
        // The last in the queue is the one that was made last.
        while self.young.len() > 1
            && let Some(key) = self.young.pop_front()
        {
            let Some(index) = self.indexes.get(&key).map(|index| *index as usize) else { continue };
            if self.held[index].visits < ESTABLISHED_VISITS {
                self.remove(index);
                return;
            }
        }
        // Spread over the whole table, because neighbours have a similar age.
        let spread = |step: u64| (self.evicted * CANDIDATES as u64 + step).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
        let candidates = (0..CANDIDATES as u64).map(|step| spread(step) as usize % last.max(1));
        if let Some(least) = candidates.min_by_key(|index| self.held[*index].retention(now)) {
            self.remove(least);
        }
    }

    fn remove(&mut self, index: usize) {
        let Some(gone) = self.held.swap_remove(index) else { return };
        self.indexes.remove(&gone.key);
        if index < self.held.len() {
            self.indexes.insert(self.held[index].key, index as u32);
        }
        self.evicted += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrichment::Device;
    use crate::event::TokenType;

    fn grown(baselines: &mut Baselines, key: u64, kind: Kind, at: i64) -> &mut Baseline {
        baselines.insert(Baseline::new(key, kind, at));
        baselines.fit(at);
        baselines.get_mut(key).expect("the newest one is not evicted")
    }

    #[test]
    fn flood_of_new_ids_evicts_no_established_baseline() {
        let kind = Kind::new(TokenType::Access, Device::Desktop);
        let mut baselines = Baselines::new(1_000);
        for key in 0..500 {
            grown(&mut baselines, key, kind, 0).visits = 20;
        }
        for key in 10_000..100_000 {
            grown(&mut baselines, key, kind, 1_000).visits = 1;
        }
        assert_eq!(baselines.len(), 1_000);
        assert_eq!(baselines.evicted(), 89_500);
        let left = (0..500).filter(|key| baselines.get_mut(*key).is_some()).count();
        assert_eq!(left, 500);
        for key in 200_000..200_600 {
            grown(&mut baselines, key, kind, 2_000).visits = 20;
        }
        assert_eq!(baselines.len(), 1_000, "established baselines replace each other");
        for key in 99_990..100_000 {
            assert!(baselines.get_mut(key).is_none_or(|baseline| baseline.key == key), "the index is correct");
        }
    }

    #[test]
    fn seed_has_at_most_96_bytes() {
        assert!(size_of::<(u64, Seed)>() <= 96, "{}", size_of::<(u64, Seed)>());
    }
}
