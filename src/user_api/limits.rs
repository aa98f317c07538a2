//! Limits of requests per minute, of one user, of one tenant and of all.

use std::collections::HashMap;
use std::sync::Mutex;

use super::caller::Caller;
use crate::lock::unpoisoned;
use crate::millis::{MINUTE_MS, seconds_left_in_minute};

/// Counts within the current minute. One tenant has at most half of the limit of all. The number of users is at most the limit of all.
pub(super) struct Limits {
    of_user: u32,
    total: u32,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    minute: i64,
    total: u32,
    of_tenant: HashMap<String, u32>,
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
        let of_tenant = counts.of_tenant.get(&caller.tenant).copied().unwrap_or_default();
        if counts.total >= self.total || of_tenant >= self.total / 2 || of_user >= self.of_user {
            return Err(seconds_left_in_minute(now));
        }
        counts.total += 1;
        counts.of_tenant.insert(caller.tenant.clone(), of_tenant + 1);
        counts.of_user.insert((caller.tenant.clone(), caller.user.clone()), of_user + 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::caller::Via;
    use super::*;

    fn caller(tenant: &str, user: &str) -> Caller {
        Caller::new(tenant.to_owned(), user.to_owned(), Via::Jwt).expect("a caller")
    }

    #[test]
    fn limits_are_per_user_and_in_total() {
        let limits = Limits::new(2, 5);
        assert_eq!(limits.count(&caller("acme", "ana"), 1_000), Ok(()));
        assert_eq!(limits.count(&caller("acme", "ana"), 2_000), Ok(()));
        assert_eq!(limits.count(&caller("acme", "ana"), 3_000), Err(58));
        for tenant in ["b", "c", "d"] {
            assert_eq!(limits.count(&caller(tenant, "ana"), 3_000), Ok(()), "another tenant");
        }
        assert_eq!(limits.count(&caller("e", "ana"), 3_000), Err(58), "all");
        assert_eq!(limits.count(&caller("acme", "ana"), MINUTE_MS), Ok(()));
    }

    #[test]
    fn tenant_has_half_of_the_limit_of_all() {
        let limits = Limits::new(1, 4);
        assert_eq!(limits.count(&caller("acme", "ana"), 0), Ok(()));
        assert_eq!(limits.count(&caller("acme", "bob"), 0), Ok(()));
        assert!(limits.count(&caller("acme", "carl"), 0).is_err());
        assert_eq!(limits.count(&caller("other", "carl"), 0), Ok(()));
    }
}
