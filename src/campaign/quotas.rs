//! Limits of the number of appearances, so that no tenant evicts those of another.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{WINDOW_MS, order_of};
use crate::appearance::Appearance;

/// Maximum number of appearances.
const APPEARANCES_MAX: usize = 1 << 16;
/// Maximum number of appearances of one tenant on one network within two hours.
const OF_NETWORK_MAX: usize = 256;
/// Room of all tenants whose names may be invented.
const UNKNOWN: u64 = 0;

/// The appearances by tenant. All unknown tenants count as one. At the limit, the earliest appearance of the tenant with the
/// most is evicted.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    entries: BTreeMap<u64, BTreeSet<(i64, u64, u32)>>,
    /// Number of appearances by tenant, network and period of two hours.
    counts: BTreeMap<(u64, u32, i64), usize>,
    len: usize,
    dropped: u64,
}

impl Quotas {
    /// Adds an appearance. Returns `false` if its tenant has too many on its network.
    pub(super) fn add(&mut self, appearance: &Appearance) -> bool {
        let tenant = if appearance.tenant_is_known { appearance.tenant } else { UNKNOWN };
        let (at, event) = order_of(appearance);
        let network = appearance.network;
        let count = self.counts.entry((tenant, network, at.div_euclid(WINDOW_MS))).or_default();
        if *count >= OF_NETWORK_MAX {
            self.dropped += 1;
            return false;
        }
        *count += 1;
        self.len += 1;
        self.entries.entry(tenant).or_default().insert((at, event, network));
        true
    }

    /// Removes an appearance if there are too many. Returns its network, time and event.
    pub(super) fn evict(&mut self) -> Option<(u32, (i64, u64))> {
        if self.len <= APPEARANCES_MAX {
            return None;
        }
        let (tenant, entries) = self.entries.iter_mut().max_by_key(|(_, entries)| entries.len())?;
        let (tenant, (at, event, network)) = (*tenant, entries.pop_first()?);
        if entries.is_empty() {
            self.entries.remove(&tenant);
        }
        let period = (tenant, network, at.div_euclid(WINDOW_MS));
        if let Some(count) = self.counts.get_mut(&period) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&period);
            }
        }
        self.len -= 1;
        self.dropped += 1;
        Some((network, (at, event)))
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }
}
