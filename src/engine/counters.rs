//! Counters of the engine.

use serde::{Deserialize, Serialize};

/// Counters of one partition, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub(crate) events: u64,
    pub duplicates: u64,
    /// Events whose id was used before by another event of the tenant. They are scored and stored.
    pub ids_reused: u64,
    pub late: u64,
    pub(crate) baselines: u64,
    pub(crate) baselines_evicted: u64,
    pub(crate) incidents: u64,
    /// Events whose time is rejected: too far ahead of the stream time, or behind it.
    pub ahead: u64,
    pub behind: u64,
    /// Requests whose credential was not accepted.
    pub attempts: u64,
    /// Confirmations by owners and analysts, and those of holders above the alert threshold.
    pub confirmed: u64,
    pub confirmed_alarms: u64,
    /// Feedback records that were learnt.
    pub feedback: u64,
}

impl Counters {
    /// Sum of two sets of counters.
    #[must_use]
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            duplicates: self.duplicates + other.duplicates,
            ids_reused: self.ids_reused + other.ids_reused,
            late: self.late + other.late,
            baselines: self.baselines + other.baselines,
            baselines_evicted: self.baselines_evicted + other.baselines_evicted,
            incidents: self.incidents + other.incidents,
            ahead: self.ahead + other.ahead,
            behind: self.behind + other.behind,
            attempts: self.attempts + other.attempts,
            confirmed: self.confirmed + other.confirmed,
            confirmed_alarms: self.confirmed_alarms + other.confirmed_alarms,
            feedback: self.feedback + other.feedback,
        }
    }

    /// Increase of each counter since `earlier`.
    #[must_use]
    pub(crate) const fn since(self, earlier: Self) -> Self {
        Self {
            events: self.events.saturating_sub(earlier.events),
            duplicates: self.duplicates.saturating_sub(earlier.duplicates),
            ids_reused: self.ids_reused.saturating_sub(earlier.ids_reused),
            late: self.late.saturating_sub(earlier.late),
            baselines: self.baselines.saturating_sub(earlier.baselines),
            baselines_evicted: self.baselines_evicted.saturating_sub(earlier.baselines_evicted),
            incidents: self.incidents.saturating_sub(earlier.incidents),
            ahead: self.ahead.saturating_sub(earlier.ahead),
            behind: self.behind.saturating_sub(earlier.behind),
            attempts: self.attempts.saturating_sub(earlier.attempts),
            confirmed: self.confirmed.saturating_sub(earlier.confirmed),
            confirmed_alarms: self.confirmed_alarms.saturating_sub(earlier.confirmed_alarms),
            feedback: self.feedback.saturating_sub(earlier.feedback),
        }
    }
}
