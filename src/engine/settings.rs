//! Settings of scoring.

use crate::detector::DetectorId;
use crate::millis::DAY_MS;
use crate::verdict::Mode;

/// Configuration of scoring and verdicts.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Prior log-odds of theft (natural log). −7: 1 token in 1,100.
    pub prior_log_odds: f64,
    /// New incidents per day and tenant, and the further ones per day of all tenants.
    pub alert_budget_per_day: u32,
    pub alert_budget_total_per_day: u32,
    /// Events older than the newest of their baseline by more than this are scored only by order-independent evidence.
    pub lateness_ms_max: i64,
    /// An event time farther than this from the stream time is rejected: the event is scored by evidence without time.
    pub clock_skew_ms_max: i64,
    /// Upper limit of the mode of every rule.
    pub mode: Mode,
    /// Added to the log-odds that a behavioural revocation needs.
    pub revoke_margin: f64,
    /// Maximum number of baselines and of users. Then a new one with few visits is evicted, else one of least value.
    pub baselines_max: usize,
    /// Number of recent event ids that are stored to deduplicate.
    pub recent_event_ids_max: usize,
    /// Bytes of the state. `None`: only the numbers above and those in the code limit it.
    pub memory_bytes_max: Option<usize>,
    /// Whether `confirmed` events are applied.
    pub confirmed: bool,
    /// Whether appearances are collected, from which [`crate::campaign`] finds campaigns.
    pub campaigns: bool,
    /// Detectors that are excluded from the sum, to measure their contribution.
    pub without: Vec<DetectorId>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prior_log_odds: -7.0,
            alert_budget_per_day: 20,
            alert_budget_total_per_day: 20,
            lateness_ms_max: 900_000,
            clock_skew_ms_max: DAY_MS,
            mode: Mode::Shadow,
            revoke_margin: 1.0,
            baselines_max: 10_000_000,
            recent_event_ids_max: 1 << 20,
            memory_bytes_max: None,
            confirmed: false,
            campaigns: false,
            without: Vec::new(),
        }
    }
}

impl Settings {
    /// Campaigns that are reported per day: of each known tenant, and of all tenants beyond that.
    pub(crate) const fn campaign_budget(&self) -> (u32, u32) {
        (self.alert_budget_per_day, self.alert_budget_total_per_day)
    }

    /// Settings of one of `partitions`: the alert budget is divided evenly, rounded up. Partitions are independent, so
    /// they do not share a counter.
    #[must_use]
    pub(crate) fn for_one_of(&self, partitions: u32) -> Self {
        let share = |budget: u32| budget.div_ceil(partitions.max(1));
        Self {
            alert_budget_per_day: share(self.alert_budget_per_day),
            alert_budget_total_per_day: share(self.alert_budget_total_per_day),
            ..self.clone()
        }
    }
}
