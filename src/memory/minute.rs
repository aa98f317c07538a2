//! Calls of a grant in the running minute, for policies on calls per minute.

use serde::{Deserialize, Serialize};

use crate::millis::MINUTE_MS;

/// If a call is this many minutes earlier, the later minute came from a wrong clock.
const BEHIND_MAX: i64 = 15;

/// The calls of one clock minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Minute {
    /// Minutes since the epoch.
    number: i64,
    calls: u32,
}

impl Minute {
    /// Counts a call at `at`, milliseconds since the epoch, and returns the calls of its minute, including this one. A
    /// late call is not counted and returns 0.
    pub(crate) const fn count(&mut self, at: i64) -> u32 {
        let number = at.div_euclid(MINUTE_MS);
        if number > self.number || self.number - number > BEHIND_MAX {
            *self = Self { number, calls: 0 };
        } else if number < self.number {
            return 0;
        }
        self.calls = self.calls.saturating_add(1);
        self.calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_clock_minute() {
        let mut minute = Minute::default();
        let noon = 1_790_000_040_000;
        let counts = [0, 1, 59_999, MINUTE_MS, 59_999, 60_001].map(|after| minute.count(noon + after));
        assert_eq!(counts, [1, 2, 3, 1, 0, 2], "a late call is not counted with the next minute");
    }

    #[test]
    fn clock_far_ahead_does_not_stop_the_count() {
        let mut minute = Minute::default();
        let noon = 1_790_000_040_000;
        assert_eq!(minute.count(7_258_000_000_000), 1);
        assert_eq!((minute.count(noon), minute.count(noon)), (1, 2));
    }
}
