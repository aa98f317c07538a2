//! Alert threshold of each tenant, from the tail of its own visits. A tenant with few visits uses its own and those of
//! all other tenants but the largest ([`crate::memory::shared`]).

use serde::{Deserialize, Serialize};

use crate::memory::Tenant;
use crate::memory::shared::Shared;
use crate::memory::tenants::{BySeat, Seat};
use crate::millis::DAY_MS;

use super::tail::Tail;

/// Minimum of the threshold, and the threshold while the tail is unknown. Nine in ten alerts from here on are correct in the
/// labelled streams (`docs/decisions/0041-weight-of-routes.md`).
const ALERT_FROM: f64 = 2.5;
/// Visits from which the tail is known.
const COLD_VISITS: u64 = 5_000;
/// Visits from which only a tenant's own tail is used.
const OWN_VISITS: u64 = 5_000;
/// Visits between two calculations of a threshold.
const THRESHOLD_VISITS: u64 = 256;

/// The tails of all tenants, and the thresholds that spend the alert budget on them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Thresholds {
    /// New incidents a day and tenant.
    per_day: f64,
    /// The watermark, milliseconds since the epoch; 0: not known.
    watermark: i64,
    /// The day of the watermark; 0: not known.
    day: u32,
    /// Number of days since the start, see [`Self::pass_time`].
    days: u32,
    tenants: BySeat<OfTenant>,
    visits: Shared<1>,
    visits_of_all: u64,
    /// For tenants without a seat.
    strangers: OfTenant,
}

#[derive(Debug, Serialize, Deserialize)]
struct OfTenant {
    own: Tail,
    /// Tail of several tenants, while the tenant has few visits.
    shared: Option<Box<Tail>>,
    alert_from: f64,
    /// Visits when it was calculated.
    calculated_at: u64,
}

impl Default for OfTenant {
    fn default() -> Self {
        Self { own: Tail::default(), shared: None, alert_from: ALERT_FROM, calculated_at: 0 }
    }
}

impl OfTenant {
    fn tail(&self) -> &Tail {
        self.shared.as_deref().unwrap_or(&self.own)
    }

    /// Calculates the threshold that spends the budget, from the number of visits in `days`.
    fn calculate(&mut self, per_day: f64, visits: u64, days: f64) {
        if visits < COLD_VISITS || visits < self.calculated_at + THRESHOLD_VISITS {
            return;
        }
        self.calculated_at = visits;
        self.alert_from = self.tail().quantile(per_day * days / visits as f64).max(ALERT_FROM);
    }
}

impl Thresholds {
    /// `per_day`: new incidents a day and tenant.
    pub(crate) fn new(per_day: u32) -> Self {
        Self {
            per_day: f64::from(per_day),
            watermark: 0,
            day: 0,
            days: 0,
            tenants: BySeat::default(),
            visits: Shared::default(),
            visits_of_all: 0,
            strangers: OfTenant::default(),
        }
    }

    /// Changes the budget of [`Self::new`]. A threshold changes when it is calculated next.
    pub(crate) fn set_budget(&mut self, per_day: u32) {
        self.per_day = f64::from(per_day);
    }

    fn of(&self, tenant: Tenant) -> &OfTenant {
        tenant.seat.and_then(|seat| self.tenants.get(seat)).unwrap_or(&self.strangers)
    }

    /// Log-odds from which an alert of `tenant` is raised now.
    pub(crate) fn alert_from(&self, tenant: Tenant) -> f64 {
        self.of(tenant).alert_from
    }

    /// The same, and the p-value of `log_odds`.
    pub(crate) fn alert_from_and_p_value(&self, tenant: Tenant, log_odds: f64) -> (f64, f64) {
        let of_tenant = self.of(tenant);
        (of_tenant.alert_from, of_tenant.tail().p_value(log_odds))
    }

    /// Number of visits without those of the largest other tenant.
    pub(crate) fn visits(&self, tenant: Tenant) -> f64 {
        self.visits.count(tenant.seat)
    }

    /// Number of days of the stream so far.
    pub(crate) const fn days(&self) -> u32 {
        self.days
    }

    /// `watermark`: milliseconds since the epoch; 0: not known.
    #[inline]
    pub(crate) fn pass_time(&mut self, watermark: i64) {
        // The watermark changes once in some hundred events.
        if watermark == self.watermark {
            return;
        }
        self.watermark = watermark;
        let day = (watermark / DAY_MS) as u32;
        if watermark != 0 && day != self.day {
            // A step of any length counts as one day and a step back as none: the first clock may have been wrong.
            self.days += u32::from(self.day != 0 && day > self.day);
            self.day = day;
        }
    }

    /// Counts a visit that has ended, by its highest log-odds.
    pub(crate) fn learn(&mut self, tenant: Tenant, log_odds: f64) {
        let Some(seat) = tenant.seat else { return };
        let Some(of_tenant) = self.tenants.get_mut(seat) else { return };
        let is_updated = of_tenant.own.learn(log_odds, Tail::honest(log_odds));
        let own = of_tenant.own.visits();
        self.visits.teach(seat, &[own as f64], &[1.0]);
        self.visits_of_all += 1;
        let days = f64::from(self.days.max(1));
        let visits = self.visits(tenant) as u64;
        let has_enough = own >= OWN_VISITS;
        let is_shared = !has_enough && is_updated && visits > own;
        let shared = is_shared.then(|| Box::new(self.shared(Some(seat))));
        if let Some(of_tenant) = self.tenants.get_mut(seat) {
            if has_enough || is_updated {
                of_tenant.shared = shared;
            }
            if self.day != 0 {
                of_tenant.calculate(self.per_day, visits, days);
            }
        }
        if self.visits_of_all.is_multiple_of(THRESHOLD_VISITS) {
            self.strangers.shared = Some(Box::new(self.shared(None)));
            let visits = self.visits.count(None) as u64;
            self.strangers.calculate(self.per_day, visits, days);
        }
    }

    /// The tail of a tenant and all others but the largest.
    fn shared(&self, seat: Option<Seat>) -> Tail {
        let others = || self.tenants.others(seat).map(|other| &other.own);
        // If several are equal, the last one.
        let largest = others().enumerate().max_by_key(|(_, other)| other.visits()).map(|(at, _)| at);
        let others = others().enumerate().filter(|(at, _)| Some(*at) != largest).map(|(_, other)| other);
        let own = seat.and_then(|seat| self.tenants.get(seat)).map(|own| &own.own);
        Tail::of_all(own.into_iter().chain(others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tenants::seated;

    const STRANGER: Tenant = Tenant { key: 1, seat: None };

    fn thresholds(per_day: u32) -> Thresholds {
        let mut thresholds = Thresholds::new(per_day);
        (20_000..=20_010).for_each(|day| thresholds.pass_time(day * DAY_MS));
        thresholds
    }

    /// One visit in 100 lies evenly between −2 and 8.
    fn log_odds(number: u32) -> f64 {
        if number.is_multiple_of(100) { -2.0 + f64::from(number / 100 % 100) / 10.0 } else { -8.0 }
    }

    #[test]
    fn threshold_spends_the_budget() {
        let mut thresholds = Thresholds::new(2);
        thresholds.pass_time(0);
        assert_eq!((thresholds.day, thresholds.days), (0, 0), "the watermark is not known");
        thresholds.pass_time(20_000 * DAY_MS);
        let tenant = seated(0);
        assert!((thresholds.alert_from(tenant) - ALERT_FROM).abs() < 1e-12);
        (20_001..=20_010).for_each(|day| thresholds.pass_time(day * DAY_MS));
        (0..100_000).for_each(|number| thresholds.learn(tenant, log_odds(number)));
        // 10,000 visits a day, 40 of them above 4. Each of these has a weight of about 1/20.
        let alert_from = thresholds.alert_from(tenant);
        assert!((3.5..5.0).contains(&alert_from), "{alert_from}");
        assert!(
            (thresholds.alert_from(STRANGER) - ALERT_FROM).abs() < 1e-12,
            "visits of one tenant do not count for others"
        );
    }

    #[test]
    fn threshold_survives_a_wrong_first_day() {
        let alert_from = |wrong: Option<i64>| {
            let mut thresholds = Thresholds::new(2);
            let days = wrong.map(|days| 20_000 + days).into_iter().chain(20_000..20_030);
            days.for_each(|day| thresholds.pass_time(day * DAY_MS));
            (0..100_000).for_each(|number| thresholds.learn(seated(0), log_odds(number)));
            thresholds.alert_from(seated(0))
        };
        let right = alert_from(None);
        for wrong in [400, 29, -29, -400] {
            assert!((alert_from(Some(wrong)) - right).abs() < 0.3, "{wrong}: {right}");
        }
    }

    #[test]
    fn threshold_is_not_raised_by_another_tenant() {
        for visits in [900, 20_000] {
            let alert_from = |flood: u32| {
                let mut thresholds = thresholds(20);
                let mut floods = 0..flood;
                for number in 0..visits {
                    thresholds.learn(seated(0), log_odds(number));
                    thresholds.learn(seated(1), log_odds(number + 7));
                    thresholds.learn(seated(2), log_odds(number + 13));
                    floods.by_ref().take(70).for_each(|_| thresholds.learn(seated(3), 12.0));
                }
                [seated(0), seated(1), STRANGER].map(|tenant| {
                    let (alert_from, p_value) = thresholds.alert_from_and_p_value(tenant, 5.0);
                    (alert_from, p_value, thresholds.visits(tenant))
                })
            };
            let (before, after) = (alert_from(0), alert_from(50_000));
            for (before, after) in before.into_iter().zip(after) {
                assert!((after.0 - before.0).abs() < 0.5, "{visits}: {before:?} {after:?}");
                assert!(after.1 < 2.0 * before.1 + 1e-3, "{visits}: {before:?} {after:?}");
                assert!(after.2 <= 3.0 * f64::from(visits), "{visits}: {before:?} {after:?}");
            }
        }
    }
}
