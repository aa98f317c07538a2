//! Alert budget: number of new incidents that a tenant gets per day.
//!
//! Each known tenant has its own allowance. An allowance is a token bucket: it holds at most one day's budget and
//! refills by rate. Neither a calendar day nor a jump of the clock fills it at once. If it is empty, an alert takes
//! from an allowance that all tenants share. An alert with the highest log-odds of the last 24 hours in its allowance
//! is never withheld.

use serde::{Deserialize, Serialize};

use crate::memory::Generations;
use crate::memory::tenants::KNOWN_MAX;
use crate::millis::DAY_MS;

/// Decides which alerts are reported.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Budget {
    /// New incidents a day and tenant.
    per_day: f64,
    /// Allowances of known tenants with alerts. An allowance that is evicted is full again.
    known: Generations<Allowance>,
    /// Shared by all other tenants, because they can be invented.
    of_newcomers: Allowance,
    /// Shared by all tenants whose allowance is empty.
    beyond: Bucket,
}

/// Allowance of a tenant, with its highest alert of the last 24 hours.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Allowance {
    bucket: Bucket,
    /// Log-odds.
    highest: f64,
    /// Milliseconds since the epoch.
    highest_at: i64,
}

/// A token bucket. It is full at first.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Bucket {
    per_day: f64,
    level: f64,
    /// When it was last refilled, milliseconds since the epoch; `None`: never.
    at: Option<i64>,
}

impl Budget {
    /// `per_day`: new incidents a day and tenant; `total_per_day`: those of all tenants together beyond that.
    pub(crate) fn new(per_day: u32, total_per_day: u32) -> Self {
        Self {
            per_day: f64::from(per_day),
            known: Generations::new(KNOWN_MAX),
            of_newcomers: Allowance::new(f64::from(per_day)),
            beyond: Bucket::new(f64::from(total_per_day)),
        }
    }

    /// Changes the budget of [`Self::new`]. A budget that is changed is full again.
    pub(crate) fn set(&mut self, per_day: u32, total_per_day: u32) {
        let new = Self::new(per_day, total_per_day);
        let budgets = |budget: &Self| [budget.per_day, budget.beyond.per_day].map(f64::to_bits);
        if budgets(&new) != budgets(self) {
            *self = new;
        }
    }

    /// Whether a new incident of a tenant is reported; if not, it is withheld. `known`: the tenant, if it is known
    /// ([`crate::memory::Tenants::is_known`]). `now`: milliseconds since the epoch, in the stream's time.
    pub(crate) fn spend(&mut self, known: Option<u64>, now: i64, log_odds: f64) -> bool {
        let allowance = match known {
            Some(tenant) => self.known.entry(tenant, || Allowance::new(self.per_day)),
            None => &mut self.of_newcomers,
        };
        let ranks_highest = allowance.ranks_highest(now, log_odds);
        let reported = allowance.bucket.spend(now) || ranks_highest || self.beyond.spend(now);
        if reported && ranks_highest {
            (allowance.highest, allowance.highest_at) = (log_odds, now);
        }
        reported
    }
}

impl Allowance {
    const fn new(per_day: f64) -> Self {
        Self { bucket: Bucket::new(per_day), highest: f64::NEG_INFINITY, highest_at: 0 }
    }

    /// Whether no alert of the last 24 hours was as high.
    fn ranks_highest(&self, now: i64, log_odds: f64) -> bool {
        log_odds > self.highest || (now - self.highest_at).abs() > DAY_MS
    }
}

impl Bucket {
    const fn new(per_day: f64) -> Self {
        Self { per_day, level: per_day, at: None }
    }

    fn spend(&mut self, now: i64) -> bool {
        // If the time went back, as after a backfill, nothing is refilled, and the new time counts.
        let passed = self.at.map_or(0, |at| (now - at).max(0));
        self.level = (self.level + self.per_day * passed as f64 / DAY_MS as f64).min(self.per_day);
        self.at = Some(now);
        let enough = self.level >= 1.0;
        self.level -= f64::from(u8::from(enough));
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = DAY_MS / 24;
    const NOON: i64 = 20_000 * DAY_MS + DAY_MS / 2;
    const KNOWN: Option<u64> = Some(7);

    /// How many of `times` equal alerts are reported.
    fn reported(budget: &mut Budget, tenant: Option<u64>, now: i64, times: usize) -> usize {
        (0..times).filter(|_| budget.spend(tenant, now, 5.0)).count()
    }

    #[test]
    fn budget_refills_by_rate() {
        let mut budget = Budget::new(24, 0);
        assert_eq!(reported(&mut budget, KNOWN, NOON, 100), 24);
        assert_eq!(reported(&mut budget, KNOWN, NOON + 12 * HOUR_MS, 100), 12, "midnight fills nothing");
        assert_eq!(reported(&mut budget, KNOWN, NOON + 13 * HOUR_MS, 100), 1);
        assert_eq!(reported(&mut budget, KNOWN, NOON + 400 * DAY_MS, 100), 24, "at most the budget of a day");
        assert_eq!(reported(&mut budget, KNOWN, NOON, 100), 1, "no alert was reported within a day");
        assert_eq!(reported(&mut budget, KNOWN, NOON + HOUR_MS, 100), 1, "it refills from the earlier time");
    }

    #[test]
    fn tenant_spends_its_own_budget_alone() {
        let mut budget = Budget::new(20, 5);
        let shared: usize = (0..1_000).map(|_| reported(&mut budget, None, NOON, 3)).sum();
        assert_eq!(shared, 25, "unknown tenants share one allowance");
        assert_eq!(reported(&mut budget, KNOWN, NOON, 100), 20);
        assert_eq!(reported(&mut budget, Some(8), NOON, 100), 20);
    }

    #[test]
    fn changed_budget_is_full_again() {
        let mut budget = Budget::new(3, 0);
        assert_eq!(reported(&mut budget, KNOWN, NOON, 10), 3);
        budget.set(3, 0);
        assert_eq!(reported(&mut budget, KNOWN, NOON, 10), 0, "the same budget");
        budget.set(5, 0);
        assert_eq!(reported(&mut budget, KNOWN, NOON, 10), 5);
    }

    #[test]
    fn highest_alert_of_a_day_is_never_withheld() {
        let mut budget = Budget::new(3, 0);
        assert_eq!(reported(&mut budget, KNOWN, NOON, 10), 3);
        assert!(budget.spend(KNOWN, NOON, 6.0) && budget.spend(KNOWN, NOON, 9.0));
        assert!(!budget.spend(KNOWN, NOON, 9.0) && !budget.spend(KNOWN, NOON, 8.0));
        let mut none = Budget::new(0, 0);
        assert!(none.spend(KNOWN, NOON, 9.0) && !none.spend(KNOWN, NOON, 9.0));
    }
}
