//! The entries in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::lock::unpoisoned;
use crate::port::{Clock, Denial, DeniedKey, DenylistRecord};
use crate::verdict::Target;

/// Entries from which expired ones are looked for at each new one.
const SWEEP_FROM: usize = 1_024;

/// The entries of a log.
pub(crate) struct Denylist {
    clock: Arc<dyn Clock>,
    entries: Mutex<Entries>,
    is_complete: AtomicBool,
}

#[derive(Default)]
struct Entries {
    /// End of each denial, milliseconds since the epoch.
    until: HashMap<DeniedKey, i64>,
    /// Number of entries at which expired ones are removed.
    sweep_at: usize,
}

impl Denylist {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, entries: Mutex::default(), is_complete: AtomicBool::new(false) }
    }

    /// Whether the entries that existed at the start are read.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }

    /// The entries that existed at the start are read.
    pub(crate) fn complete(&self) {
        self.is_complete.store(true, Ordering::Release);
    }

    /// Whether one of `targets` of a tenant is denied.
    pub(crate) fn denies(&self, tenant_id: &str, targets: impl IntoIterator<Item = Target>) -> bool {
        let now = self.clock.now_millis();
        let entries = unpoisoned(&self.entries);
        targets.into_iter().any(|target| {
            let key = DeniedKey { tenant_id: tenant_id.to_owned(), target };
            entries.until.get(&key).is_some_and(|until| *until > now)
        })
    }

    /// Number of entries, of which some may have expired.
    pub(crate) fn len(&self) -> usize {
        unpoisoned(&self.entries).until.len()
    }

    /// Applies a record of the log.
    pub(crate) fn record(&self, DenylistRecord { key, denial }: DenylistRecord) {
        let now = self.clock.now_millis();
        let mut entries = unpoisoned(&self.entries);
        match denial {
            Denial::Denied { until, .. } if until > now => _ = entries.until.insert(key, until),
            Denial::Denied { .. } | Denial::Lifted { .. } => {
                entries.until.remove(&key);
                return;
            }
        }
        // Amortized: the number of entries must double before the next pass over all of them.
        if entries.until.len() >= entries.sweep_at.max(SWEEP_FROM) {
            entries.until.retain(|_, until| *until > now);
            entries.sweep_at = 2 * entries.until.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{At, denied, lifted};
    use super::*;

    fn grant() -> Target {
        Target::Family("g-1".to_owned())
    }

    #[test]
    fn denial_is_of_one_tenant_and_kind() {
        let list = Denylist::new(Arc::new(At::default()));
        list.record(denied("acme", grant(), 1_000));
        assert!(list.denies("acme", [Target::Token("t".to_owned()), grant()]));
        assert!(!list.denies("other", [grant()]), "another tenant with the same id");
        assert!(!list.denies("", [grant()]));
        assert!(!list.denies("acme", [Target::Token("g-1".to_owned())]), "a token with the id of the grant");
    }

    #[test]
    fn denial_ends_by_time_or_by_record() {
        let clock = Arc::new(At::default());
        let list = Denylist::new(Arc::clone(&clock) as _);
        list.record(denied("", grant(), 1_000));
        clock.0.store(999, Ordering::Relaxed);
        assert!(list.denies("", [grant()]));
        clock.0.store(1_000, Ordering::Relaxed);
        assert!(!list.denies("", [grant()]), "expired");
        list.record(denied("", grant(), 5_000));
        assert!(list.denies("", [grant()]));
        list.record(lifted("", grant()));
        assert!(!list.denies("", [grant()]), "lifted");
        assert_eq!(list.len(), 0);
    }

    #[test]
    fn expired_entries_are_removed() {
        let clock = Arc::new(At::default());
        let list = Denylist::new(Arc::clone(&clock) as _);
        for number in 0..SWEEP_FROM as i64 {
            list.record(denied("", Target::Token(number.to_string()), 10));
        }
        clock.0.store(10, Ordering::Relaxed);
        for number in 0..=SWEEP_FROM as i64 {
            list.record(denied("", Target::Token(format!("later-{number}")), 20));
        }
        assert!(list.len() <= SWEEP_FROM + 1, "{}", list.len());
    }

    #[test]
    fn list_is_ready_when_it_was_read_once() {
        let list = Denylist::new(Arc::new(At::default()));
        assert!(!list.is_ready());
        list.complete();
        assert!(list.is_ready());
    }
}
