//! The appearances, and the campaigns in them.

use std::collections::BTreeMap;

use super::evidence::{CampaignKey, USERS_MIN, share};
use super::found::{Campaign, Found, Joining};
use super::held::Held;
use super::window::{Group, qualified};
use crate::appearance::Appearance;
use crate::decide::Budget;
use crate::millis::DAY_MS;
use crate::rule::RuleSet;
use crate::tally::Withheld;
use crate::verdict::{Incident, Mode};

/// Maximum number of victims of all campaigns that are kept. Beyond it, the campaign that changed first is dropped. If it
/// is found again, it has the same number.
const VICTIMS_MAX: usize = 1 << 17;

/// The appearances of one partition of their topic, or of all, and the campaigns in them.
#[derive(Debug)]
pub struct Stage {
    held: Held,
    found: BTreeMap<CampaignKey, Found>,
    /// Number of victims in `found`.
    victims: usize,
    /// Number of the last change.
    changes: u64,
    /// Upper limit of the mode of every rule.
    mode: Mode,
    /// Number of campaigns per day that are reported.
    budget: Budget,
    /// Time of the budget, milliseconds since the epoch.
    now: i64,
    /// Campaigns that were withheld since they were last taken.
    withheld: Withheld,
}

impl Stage {
    /// `mode`: the upper limit of the mode of every rule. `budget`: campaigns that are reported per day, of each known tenant
    /// and of all unknown ones together, and of all tenants beyond that.
    #[must_use]
    pub fn new(mode: Mode, budget: (u32, u32)) -> Self {
        Self {
            held: Held::default(),
            found: BTreeMap::new(),
            victims: 0,
            changes: 0,
            mode,
            budget: Budget::new(budget.0, budget.1),
            now: 0,
            withheld: Withheld::default(),
        }
    }

    /// Adds an appearance. Returns the changes of incidents: one for each new victim, in the order of their events, and
    /// one for a new rule without a new victim. A campaign that the budget withholds has none. If it changes later and is
    /// then reported, it has a change for each victim. `now`: milliseconds since the epoch.
    pub fn add(&mut self, rules: &RuleSet, appearance: Appearance, now: i64) -> Vec<Incident> {
        let Some(appearance) = self.held.add(appearance) else { return Vec::new() };
        // The partitions of a file have different times.
        self.now = if self.now.saturating_sub(now) > DAY_MS { now } else { self.now.max(now) };
        let (network, at) = (appearance.network, appearance.at.millis());
        let mut joining = BTreeMap::<CampaignKey, Joining>::new();
        for group in Group::of(&appearance) {
            let Some(all) = self.held.group(network, group) else { continue };
            let rule = group.rule();
            let fires = |users| users >= USERS_MIN && rules.rule(rule).fires(share(users));
            for ((tenant, day), qualified) in qualified(all, at, &fires) {
                let campaign = CampaignKey { tenant, network, day };
                joining.entry(campaign).or_default().add(rule, qualified);
            }
        }
        let mut changes = Vec::new();
        for (campaign, joining) in joining {
            self.changes += 1;
            let found = self.found.entry(campaign).or_insert_with(|| Found::new(campaign));
            let before = found.victims();
            let of_found = found.join(joining, rules, (self.mode, self.changes));
            self.victims += found.victims() - before;
            if of_found.is_empty() || found.is_reported {
                changes.extend(of_found);
            } else if self.budget.spend(found.known_tenant(), self.now, found.log_odds()) {
                found.is_reported = true;
                changes.extend(found.incidents(rules, self.mode));
            } else {
                let is_first = !std::mem::replace(&mut found.is_withheld, true);
                self.withheld.add(Withheld { alerts: u64::from(is_first), highest: found.log_odds() });
            }
        }
        self.held.fit(&appearance);
        self.forget();
        changes
    }

    /// Campaigns that were withheld since the last call. Each counts once.
    pub(crate) fn take_withheld(&mut self) -> Withheld {
        std::mem::take(&mut self.withheld)
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
        (self.held.len(), self.held.dropped())
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
