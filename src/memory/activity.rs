//! How long the owner was active, and how often the network changed meanwhile.

use serde::{Deserialize, Serialize};

use crate::millis::MINUTE_MS;

/// Number of changes of network, and duration of the activity.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Activity {
    /// An integer, because a float would lose the milliseconds of a busy token after days of activity.
    ms: u32,
    changes: f32,
}

impl Activity {
    /// Learns the time since the previous event, and a change of network. `changed`: probability that the change was
    /// the owner's, otherwise 0. Both sums are halved after 25 days of activity.
    pub(crate) fn learn(&mut self, changed: f64, ms: u32) {
        self.ms = self.ms.saturating_add(ms);
        self.changes += changed as f32;
        if self.ms > u32::MAX / 2 {
            self.ms /= 2;
            self.changes /= 2.0;
        }
    }

    pub(crate) fn minutes(self) -> f64 {
        f64::from(self.ms) / MINUTE_MS as f64
    }

    pub(crate) fn changes(self) -> f64 {
        f64::from(self.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activity_counts_short_intervals() {
        const TEN_MINUTES: u32 = 600_000;
        let mut activity = Activity::default();
        for _ in 0..1_000 {
            activity.learn(0.01, TEN_MINUTES);
        }
        for _ in 0..60_000 {
            activity.learn(0.0, 1);
        }
        assert!((activity.minutes() - 10_001.0).abs() < 1e-9, "{}", activity.minutes());
        for _ in 0..100_000 {
            activity.learn(0.01, TEN_MINUTES);
        }
        let rate = activity.changes() / activity.minutes();
        assert!((rate - 0.001).abs() < 1e-5, "halving keeps the rate: {rate}");
    }
}
