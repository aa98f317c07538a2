//! The log of the denylist: tokens and grants that a gateway must reject although they have not expired.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::verdict::Target;

/// A token or grant of one tenant. Two tenants can have grants with the same id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeniedKey {
    /// Empty for events without a tenant.
    pub tenant_id: String,
    pub target: Target,
}

/// What is recorded of a token or grant. Times are milliseconds since the epoch, wall clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denial {
    Denied {
        at: i64,
        until: i64,
    },
    /// A person has ended the denial.
    Lifted {
        at: i64,
        by: String,
        reason: String,
    },
}

/// A record of the log. A later record replaces an earlier one with the same key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenylistRecord {
    #[serde(flatten)]
    pub key: DeniedKey,
    pub denial: Denial,
}

/// Receives the records of a log in order, on a thread of the log.
pub trait DenylistObserver: Send + Sync {
    fn record(&self, record: DenylistRecord);
    /// All records that existed when the log was opened have been passed.
    fn all_read(&self);
    /// The log cannot be read now. Records may be missing until it can.
    fn read_failed(&self);
    /// The log could be read, after an error too.
    fn read_succeeded(&self);
}

/// Stores the records, and passes those of all processes to an observer.
#[async_trait]
pub trait DenylistLog: Send + Sync {
    /// Appends a record. Returns when it is stored. The error is the reason, without values of the record.
    async fn append(&self, record: DenylistRecord) -> Result<(), String>;
    /// Passes all records, and later ones as they are appended, to `observer`, until the caller drops it.
    fn follow(&self, observer: Arc<dyn DenylistObserver>);
}
