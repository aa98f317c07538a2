//! Parts that the tests of this module share.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::lock::unpoisoned;
use crate::port::{Clock, Denial, DeniedKey, DenylistRecord, RecordLog, RecordObserver};
use crate::verdict::Target;

/// A clock that tests set.
#[derive(Default)]
pub(super) struct At(pub(super) AtomicI64);

impl Clock for At {
    fn now_millis(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn denied(tenant: &str, target: Target, until: i64) -> DenylistRecord {
    let key = DeniedKey { tenant_id: tenant.to_owned(), target };
    DenylistRecord { key, denial: Denial::Denied { at: 0, until } }
}

pub(super) fn lifted(tenant: &str, target: Target) -> DenylistRecord {
    let denial = Denial::Lifted { at: 1, by: "ana".to_owned(), reason: "a false alarm".to_owned() };
    DenylistRecord { denial, ..denied(tenant, target, 0) }
}

/// A log in memory.
#[derive(Default)]
pub(super) struct TestLog {
    records: Mutex<Vec<DenylistRecord>>,
    removed: Mutex<Vec<DeniedKey>>,
    pub(super) fails: AtomicBool,
    pub(super) hangs: AtomicBool,
    pub(super) attempts: AtomicU32,
}

impl TestLog {
    pub(super) fn appended(&self) -> Vec<DenylistRecord> {
        unpoisoned(&self.records).clone()
    }

    pub(super) fn removed(&self) -> Vec<DeniedKey> {
        unpoisoned(&self.removed).clone()
    }

    async fn attempt(&self) -> Result<(), String> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.fails.load(Ordering::Relaxed) { Err("no broker answers".to_owned()) } else { Ok(()) }
    }
}

#[async_trait]
impl RecordLog<DenylistRecord> for TestLog {
    async fn append(&self, record: DenylistRecord) -> Result<(), String> {
        self.attempt().await?;
        unpoisoned(&self.records).push(record);
        Ok(())
    }

    async fn remove(&self, key: &DeniedKey) -> Result<(), String> {
        self.attempt().await?;
        unpoisoned(&self.removed).push(key.clone());
        Ok(())
    }

    fn follow(&self, _: Arc<dyn RecordObserver<DenylistRecord>>) {}
}
