//! The retry policy of every call that is tried again: exponential back-off with jitter, computed by the crate `backon`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Failures after which every policy has reached its longest wait.
const FAILURES_MAX: u32 = 32;

/// Waits between the attempts of one operation. The wait doubles from `first` to `last`. Each is reduced by up to half at
/// random, so that processes and items that failed together are not retried together. Only a policy from [`Self::exact`]
/// has no such jitter.
///
/// The number of attempts is not limited: the operation decides when it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    first: Duration,
    last: Duration,
    jitter: bool,
}

impl RetryPolicy {
    pub const fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, jitter: true }
    }

    /// The same wait after every failure.
    pub(crate) const fn every(wait: Duration) -> Self {
        Self::new(wait, wait)
    }

    /// The same wait after every failure, without jitter. For a wait that another time limit depends on.
    pub(crate) const fn exact(wait: Duration) -> Self {
        Self { first: wait, last: wait, jitter: false }
    }

    /// The wait after `failures` consecutive failures, from 1. For a number of failures that is stored.
    pub(crate) fn wait(self, failures: u32) -> Duration {
        let earlier = failures.clamp(1, FAILURES_MAX) - 1;
        self.build().nth(earlier as usize).unwrap_or(self.last)
    }
}

impl BackoffBuilder for RetryPolicy {
    type Backoff = ExponentialBackoff;

    fn build(self) -> ExponentialBackoff {
        // The jitter of `backon` adds between nothing and the whole wait, so that half the wait gives the range above.
        let part = if self.jitter { 2 } else { 1 };
        let builder = ExponentialBuilder::new()
            .with_min_delay(self.first / part)
            .with_max_delay(self.last / part)
            .without_max_times();
        if self.jitter { builder.with_jitter().build() } else { builder.build() }
    }
}

/// Interval between checks for a stop during a wait.
const STOP_CHECK_WAIT: Duration = Duration::from_millis(200);

/// The restarts of a loop in a thread of its own.
#[derive(Debug)]
pub(crate) struct Restarts {
    policy: RetryPolicy,
    /// Time after which the loop counts as recovered, milliseconds.
    recovered_ms: i64,
    failures: u32,
}

impl Restarts {
    pub(crate) const fn new(policy: RetryPolicy, recovered_ms: i64) -> Self {
        Self { policy, recovered_ms, failures: 0 }
    }

    /// Waits before the next start, and ends early at `stop`. `ran_ms`: how long the loop ran before it failed.
    pub(crate) fn wait(&mut self, ran_ms: i64, stop: &AtomicBool) {
        let mut left = self.next(ran_ms);
        while !left.is_zero() && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(STOP_CHECK_WAIT.min(left));
            left = left.saturating_sub(STOP_CHECK_WAIT);
        }
    }

    /// The wait. It begins anew after a recovery.
    fn next(&mut self, ran_ms: i64) -> Duration {
        self.failures = if ran_ms >= self.recovered_ms { 1 } else { self.failures.saturating_add(1) };
        self.policy.wait(self.failures)
    }
}

/// The failures of one operation, and when it is due again. For a loop that does other work meanwhile. Times are
/// milliseconds since the epoch, wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retries {
    policy: RetryPolicy,
    failures: u32,
    failed_at: i64,
    due_at: i64,
}

impl Retries {
    /// The first attempt is due at once.
    pub(crate) const fn new(policy: RetryPolicy) -> Self {
        Self { policy, failures: 0, failed_at: i64::MIN, due_at: i64::MIN }
    }

    /// Also true if the clock went back behind the failure: the wait must not last until the clock is there again.
    pub(crate) const fn is_due(&self, now: i64) -> bool {
        now >= self.due_at || now < self.failed_at
    }

    pub(crate) fn failed(&mut self, now: i64) {
        self.failures = self.failures.saturating_add(1);
        self.failed_at = now;
        self.due_at = now.saturating_add(self.policy.wait(self.failures).as_millis() as i64);
    }

    pub(crate) const fn succeeded(&mut self) {
        *self = Self::new(self.policy);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const POLICY: RetryPolicy = RetryPolicy::new(Duration::from_secs(2), Duration::from_secs(300));

    #[test]
    fn restarts_begin_anew_after_a_recovery() {
        let policy = RetryPolicy { jitter: false, ..RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(60)) };
        let mut restarts = Restarts::new(policy, 10_000);
        let waits = [0, 5_000, 9_999, 10_000, 0].map(|ran| restarts.next(ran).as_secs());
        assert_eq!(waits, [1, 2, 4, 1, 2]);
        restarts.wait(0, &AtomicBool::new(true));
    }

    #[test]
    fn wait_doubles_up_to_its_maximum() {
        for (failures, longest) in [(0, 2), (1, 2), (2, 4), (3, 8), (8, 256), (9, 300), (u32::MAX, 300)] {
            let longest = Duration::from_secs(longest);
            for _ in 0..100 {
                let wait = POLICY.wait(failures);
                assert!((longest / 2..=longest).contains(&wait), "{failures}: {wait:?}");
            }
        }
        let waits: BTreeSet<_> = (0..100).map(|_| POLICY.wait(9)).collect();
        assert!(waits.len() > 90, "{} different waits", waits.len());
    }

    #[test]
    fn every_policy_in_use_reaches_its_maximum() {
        // The shortest first and the longest last wait.
        let policy = RetryPolicy::new(Duration::from_millis(100), Duration::from_secs(86_400));
        assert!(policy.wait(FAILURES_MAX) >= Duration::from_secs(43_200));
    }

    #[test]
    fn constant_policy_has_jitter() {
        let hour = Duration::from_secs(3_600);
        let waits: BTreeSet<_> = (1..100).map(|failures| RetryPolicy::every(hour).wait(failures)).collect();
        assert!(waits.len() > 90 && waits.iter().all(|wait| (hour / 2..=hour).contains(wait)), "{waits:?}");
        assert_eq!([1, 2, 9].map(|failures| RetryPolicy::exact(hour).wait(failures)), [hour; 3]);
    }

    #[test]
    fn retries_are_due_after_the_wait() {
        let mut retries = Retries::new(POLICY);
        assert!(retries.is_due(0), "the first attempt is due at once");
        retries.failed(10_000);
        assert!(!retries.is_due(10_999) && retries.is_due(12_000));
        retries.failed(20_000);
        assert!(!retries.is_due(21_999) && retries.is_due(24_000));
        retries.succeeded();
        assert!(retries.is_due(0));
        retries.failed(30_000);
        assert!(retries.is_due(32_000), "a success resets the wait");
    }

    #[test]
    fn retries_are_due_after_the_clock_goes_back() {
        let mut retries = Retries::new(POLICY);
        retries.failed(3_600_000);
        assert!(retries.is_due(3_599_999), "the clock was set back; the end of the wait is unknown");
        retries.failed(0);
        assert!(!retries.is_due(999) && retries.is_due(4_000), "the next wait is by the new clock");
    }
}
