//! Settings of scoring.

use crate::detector::DetectorId;
use crate::verdict::Mode;

/// What the operator configures about scoring and verdicts.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// π: log-odds of theft before looking (natural log); −7 is 1 token in 1,100.
    pub prior_log_odds: f64,
    /// New incidents a day and tenant, and a day of all tenants together beyond that.
    pub alert_budget_per_day: u32,
    pub alert_budget_total_per_day: u32,
    /// Events older than the newest of their baseline by more than this are scored only with what needs no order.
    pub lateness_ms_max: i64,
    /// An event whose time lies farther than this from the stream's moves no time, and is scored by what needs none.
    pub clock_skew_ms_max: i64,
    /// Ceiling over every rule's own mode.
    pub mode: Mode,
    /// Added to the log-odds that a behavioural revocation needs.
    pub revoke_margin: f64,
    /// Baselines kept, and users; beyond it a new one of few visits goes, else one of those least worth; counted.
    pub baselines_max: usize,
    /// Recent events kept to recognise duplicate deliveries.
    pub recent_event_ids_max: usize,
    /// Whether `confirmed` events are believed.
    pub confirmed: bool,
    /// Detectors that are left out of the sum, to measure what they contribute.
    pub without: Vec<DetectorId>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prior_log_odds: -7.0,
            alert_budget_per_day: 20,
            alert_budget_total_per_day: 20,
            lateness_ms_max: 900_000,
            clock_skew_ms_max: 86_400_000,
            mode: Mode::Shadow,
            revoke_margin: 3.0,
            baselines_max: 10_000_000,
            recent_event_ids_max: 1 << 20,
            confirmed: false,
            without: Vec::new(),
        }
    }
}

impl Settings {
    /// For one of so many partitions, which share the alert budget evenly, rounded up: none waits for what another has
    /// spent, so that each judges as if it were alone.
    #[must_use]
    pub fn for_one_of(&self, partitions: u32) -> Self {
        let share = |budget: u32| budget.div_ceil(partitions.max(1));
        Self {
            alert_budget_per_day: share(self.alert_budget_per_day),
            alert_budget_total_per_day: share(self.alert_budget_total_per_day),
            ..self.clone()
        }
    }
}
