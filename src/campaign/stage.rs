//! The appearances, and the campaigns in them.

use std::collections::BTreeMap;

use super::evidence::{CampaignKey, USERS_MIN, order_of, share};
use super::found::{Campaign, Found, Joining};
use super::quotas::Quotas;
use super::window::{Group, qualified};
use crate::appearance::Appearance;
use crate::rule::RuleSet;
use crate::verdict::{Incident, Mode};

/// Maximum number of victims of all campaigns that are kept. Beyond it, the campaign that changed first is dropped. If it
/// is found again, it has the same number.
const VICTIMS_MAX: usize = 1 << 17;

/// The appearances of one partition of their topic, or of all, and the campaigns in them.
#[derive(Debug, Default)]
pub struct Stage {
    networks: BTreeMap<u32, BTreeMap<(i64, u64), Appearance>>,
    quotas: Quotas,
    found: BTreeMap<CampaignKey, Found>,
    /// Number of victims in `found`.
    victims: usize,
    /// Number of the last change.
    changes: u64,
    /// Upper limit of the mode of every rule.
    mode: Mode,
}

impl Stage {
    /// `mode`: the upper limit of the mode of every rule.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self { mode, ..Self::default() }
    }

    /// Adds an appearance. Returns the changes of incidents: one for each new victim, in the order of their events, and
    /// one for a new rule without a new victim.
    pub fn add(&mut self, rules: &RuleSet, appearance: Appearance) -> Vec<Incident> {
        let (network, key) = (appearance.network, order_of(&appearance));
        if self.networks.get(&network).is_some_and(|known| known.contains_key(&key)) {
            return Vec::new();
        }
        if !self.quotas.add(&appearance) {
            return Vec::new();
        }
        let (app, address) = (appearance.app, appearance.address);
        self.networks.entry(network).or_default().insert(key, appearance);
        while let Some((network, key)) = self.quotas.evict() {
            if let Some(known) = self.networks.get_mut(&network) {
                known.remove(&key);
                if known.is_empty() {
                    self.networks.remove(&network);
                }
            }
        }
        let Some(known) = self.networks.get(&network) else { return Vec::new() };
        let groups = [app.map(Group::App), Some(Group::Address(address))];
        let mut joining = BTreeMap::<CampaignKey, Joining>::new();
        for group in groups.into_iter().flatten() {
            let rule = group.rule();
            let fires = |users| users >= USERS_MIN && rules.rule(rule).fires(share(users));
            for ((tenant, day), qualified) in qualified(known, group, key.0, &fires) {
                let campaign = CampaignKey { tenant, network, day };
                joining.entry(campaign).or_default().add(rule, qualified);
            }
        }
        let mut changes = Vec::new();
        for (campaign, joining) in joining {
            self.changes += 1;
            let found = self.found.entry(campaign).or_insert_with(|| Found::new(campaign));
            let before = found.victims();
            changes.extend(found.join(joining, rules, (self.mode, self.changes)));
            self.victims += found.victims() - before;
        }
        self.forget();
        changes
    }

    /// All campaigns, by the time of their first victim.
    #[must_use]
    pub fn campaigns(&self) -> Vec<Campaign> {
        let mut campaigns: Vec<_> = self.found.values().map(Found::campaign).collect();
        campaigns.sort_by_key(|campaign| (campaign.opened_at, campaign.id));
        campaigns
    }

    /// Number of appearances, and of those that were dropped because a limit was reached.
    #[must_use]
    pub const fn appearances(&self) -> (usize, u64) {
        (self.quotas.len(), self.quotas.dropped())
    }

    fn forget(&mut self) {
        while self.victims > VICTIMS_MAX && self.found.len() > 1 {
            let Some(first) = self.found.iter().min_by_key(|(_, found)| found.changed()).map(|(key, _)| *key) else {
                return;
            };
            if let Some(gone) = self.found.remove(&first) {
                self.victims -= gone.victims();
            }
        }
    }
}
