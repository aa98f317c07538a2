//! Limits of requests per minute, of one user and of all.

use std::collections::HashMap;
use std::sync::Mutex;

use super::caller::Caller;
use crate::lock::unpoisoned;
use crate::millis::MINUTE_MS;

/// Counts within the current minute. The number of users is at most the limit of all.
pub(super) struct Limits {
    of_user: u32,
    total: u32,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    minute: i64,
    total: u32,
    of_user: HashMap<(String, String), u32>,
}

impl Limits {
    pub(super) fn new(of_user: u32, total: u32) -> Self {
        Self { of_user, total, counts: Mutex::default() }
    }

    /// Counts a request at `now`, milliseconds since the epoch. The error is the number of seconds to wait.
    pub(super) fn count(&self, caller: &Caller, now: i64) -> Result<(), i64> {
        let mut counts = unpoisoned(&self.counts);
        let minute = now.div_euclid(MINUTE_MS);
        if counts.minute != minute {
            *counts = Counts { minute, ..Counts::default() };
        }
        let of_user = counts.of_user.get(&(caller.tenant.clone(), caller.user.clone())).copied().unwrap_or_default();
        if counts.total >= self.total || of_user >= self.of_user {
            return Err(((minute + 1) * MINUTE_MS - now).div_euclid(1_000) + 1);
        }
        counts.total += 1;
        counts.of_user.insert((caller.tenant.clone(), caller.user.clone()), of_user + 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::caller::Via;
    use super::*;

    #[test]
    fn limits_are_per_user_and_in_total() {
        let caller = |tenant: &str| Caller::new(tenant.to_owned(), "ana".to_owned(), Via::Jwt).expect("a caller");
        let limits = Limits::new(2, 3);
        assert_eq!(limits.count(&caller("acme"), 1_000), Ok(()));
        assert_eq!(limits.count(&caller("acme"), 2_000), Ok(()));
        assert_eq!(limits.count(&caller("acme"), 3_000), Err(58));
        assert_eq!(limits.count(&caller("other"), 3_000), Ok(()), "another tenant");
        assert_eq!(limits.count(&caller("third"), 3_000), Err(58), "all");
        assert_eq!(limits.count(&caller("acme"), MINUTE_MS), Ok(()));
    }
}
