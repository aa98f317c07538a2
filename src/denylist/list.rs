//! The entries in memory.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::try_join_all;

use crate::lock::unpoisoned;
use crate::millis::HOUR_MS;
use crate::port::{Clock, Denial, DeniedKey, DenylistRecord, RecordLog};
use crate::verdict::Target;

/// Time after the end of a denial after which it is removed from the log.
const REMOVED_AFTER_MS: i64 = HOUR_MS;
/// Maximum number of entries that are removed or written again in one pass.
const CHANGES_MAX: usize = 500;

/// The entries of a log. Only their end, or a person who lifts them, ends them.
pub(crate) struct Denylist {
    clock: Arc<dyn Clock>,
    entries: Mutex<Entries>,
    is_complete: AtomicBool,
}

/// A denial. Times are milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    at: i64,
    until: i64,
}

#[derive(Default)]
struct Entries {
    /// Expired ones too, until they are removed from the log.
    denied: HashMap<DeniedKey, Entry>,
    /// The log no longer has these entries, or has shorter ones.
    lost: HashSet<DeniedKey>,
    /// The entries that people lifted. If another member writes one again, it has no effect.
    lifted: HashMap<DeniedKey, Entry>,
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
            entries.denied.get(&key).is_some_and(|entry| entry.until > now)
        })
    }

    /// Number of entries, of which some may have expired.
    pub(crate) fn len(&self) -> usize {
        unpoisoned(&self.entries).denied.len()
    }

    /// Applies a record of the log. A later denial that ends earlier does not shorten an entry.
    pub(crate) fn record(&self, DenylistRecord { key, denial }: DenylistRecord) {
        let now = self.clock.now_millis();
        let mut entries = unpoisoned(&self.entries);
        match denial {
            Denial::Denied { at, until } => {
                let entry = Entry { at, until };
                if entries.lifted.get(&key) == Some(&entry) {
                    return;
                }
                let longer = entries.denied.get(&key).filter(|old| old.until > now && old.until > until);
                if longer.is_some() {
                    entries.lost.insert(key);
                } else {
                    entries.lost.remove(&key);
                    entries.denied.insert(key, entry);
                }
            }
            Denial::Lifted { .. } => {
                entries.lost.remove(&key);
                if let Some(entry) = entries.denied.remove(&key) {
                    entries.lifted.insert(key, entry);
                }
            }
        }
    }

    /// The log has removed the record of `key`.
    pub(crate) fn removed(&self, key: DeniedKey) {
        let now = self.clock.now_millis();
        let mut entries = unpoisoned(&self.entries);
        match entries.denied.get(&key) {
            // A member removed an expired entry while another one denied the same target again.
            Some(entry) if entry.until > now => _ = entries.lost.insert(key),
            Some(_) => _ = entries.denied.remove(&key),
            None => {}
        }
    }

    /// Removes expired entries from the log, and writes those again that it has lost. The error is the reason, without
    /// values of a record. What is left is done in the next pass.
    pub(crate) async fn maintain(&self, log: &dyn RecordLog<DenylistRecord>) -> Result<(), String> {
        let (lost, expired) = self.due();
        try_join_all(lost.iter().cloned().map(|record| log.append(record))).await?;
        for record in lost {
            unpoisoned(&self.entries).lost.remove(&record.key);
        }
        try_join_all(expired.iter().map(|key| log.remove(key))).await?;
        for key in expired {
            self.removed(key);
        }
        Ok(())
    }

    fn due(&self) -> (Vec<DenylistRecord>, Vec<DeniedKey>) {
        let now = self.clock.now_millis();
        let entries = unpoisoned(&self.entries);
        let lost = entries.lost.iter().filter_map(|key| {
            let Entry { at, until } = *entries.denied.get(key)?;
            Some(DenylistRecord { key: key.clone(), denial: Denial::Denied { at, until } })
        });
        let expired = entries.denied.iter().filter(|(_, entry)| now - entry.until >= REMOVED_AFTER_MS);
        (lost.take(CHANGES_MAX).collect(), expired.map(|(key, _)| key.clone()).take(CHANGES_MAX).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::testing::{At, TestLog, denied, lifted};
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
        list.record(denied("", grant(), 5_000));
        assert!(!list.denies("", [grant()]), "another member wrote the lifted entry again");
        list.record(denied("", grant(), 5_001));
        assert!(list.denies("", [grant()]), "a new denial");
    }

    #[tokio::test]
    async fn expired_entry_is_removed_from_the_log_once() {
        let (clock, log) = (Arc::new(At::default()), TestLog::default());
        let list = Denylist::new(Arc::clone(&clock) as _);
        let token = Target::Token("t".to_owned());
        list.record(denied("acme", grant(), 10));
        list.record(denied("", token.clone(), 2 * HOUR_MS));
        clock.0.store(10 + HOUR_MS - 1, Ordering::Relaxed);
        list.maintain(&log).await.expect("nothing is due");
        assert!(log.removed().is_empty());
        clock.0.store(10 + HOUR_MS, Ordering::Relaxed);
        log.fails.store(true, Ordering::Relaxed);
        list.maintain(&log).await.expect_err("the log cannot be written");
        assert_eq!(list.len(), 2, "it is removed in the next pass");
        log.fails.store(false, Ordering::Relaxed);
        list.maintain(&log).await.expect("the log is written");
        list.maintain(&log).await.expect("the log is written");
        assert_eq!(log.removed(), [denied("acme", grant(), 0).key], "the other one has not expired");
        assert!(list.len() == 1 && list.denies("", [token]));
    }

    #[tokio::test]
    async fn log_that_loses_an_entry_gets_it_again() {
        let (clock, log) = (Arc::new(At::default()), TestLog::default());
        let list = Denylist::new(Arc::clone(&clock) as _);
        let entry = denied("", grant(), 5_000);
        list.record(entry.clone());
        list.record(denied("", grant(), 100));
        clock.0.store(4_999, Ordering::Relaxed);
        assert!(list.denies("", [grant()]), "a shorter denial does not shorten it");
        list.maintain(&log).await.expect("the log is written");
        assert_eq!(log.appended(), std::slice::from_ref(&entry), "a member that starts later has it");
        list.record(entry.clone());
        list.removed(entry.key.clone());
        assert!(list.denies("", [grant()]), "a removal does not end it");
        list.maintain(&log).await.expect("the log is written");
        list.maintain(&log).await.expect("the log is written");
        assert_eq!(log.appended(), [entry.clone(), entry.clone()]);
        list.removed(entry.key.clone());
        list.record(lifted("", grant()));
        list.maintain(&log).await.expect("the log is written");
        assert_eq!(log.appended().len(), 2, "a lifted entry stays lifted");
    }

    #[test]
    fn list_is_ready_when_it_was_read_once() {
        let list = Denylist::new(Arc::new(At::default()));
        assert!(!list.is_ready());
        list.complete();
        assert!(list.is_ready());
    }
}
