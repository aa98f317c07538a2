//! Logs that every member reads as a whole, such as the denylist and the silences.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::millis::DAY_MS;

/// Time for which records are kept: at most in a log, and in its topic.
pub(crate) const KEPT_MS: i64 = 400 * DAY_MS;

/// A record of a log. A later record replaces an earlier one with the same key.
pub trait LogRecord: Clone + Send + Sync + Serialize + DeserializeOwned + 'static {
    type Key: Serialize + DeserializeOwned + Eq + Send + Sync;
    type Value: Serialize + DeserializeOwned;
    /// Name of the log: that of its topic after the prefix, and of its file.
    const NAME: &'static str;
    /// Consequence if the log loses records early, for people.
    const IF_LOST: &'static str;

    fn of(key: Self::Key, value: Self::Value) -> Self;
    fn key(&self) -> &Self::Key;
    fn value(&self) -> &Self::Value;
    /// Whether a rewritten log has it. `now`: milliseconds since the epoch.
    fn is_kept(&self, now: i64) -> bool;
}

/// Receives the records of a log in order, on a thread of the log.
pub trait RecordObserver<R: LogRecord>: Send + Sync {
    fn record(&self, record: R);
    /// The log no longer has a record of `key`.
    fn removed(&self, _key: R::Key) {}
    /// All records that existed when the log was opened have been passed.
    fn all_read(&self);
    /// The log cannot be read now. Records may be missing until it can.
    fn read_failed(&self);
    /// The log could be read, after an error too.
    fn read_succeeded(&self);
}

/// Stores the records, and passes those of all processes to an observer.
#[async_trait]
pub trait RecordLog<R: LogRecord>: Send + Sync {
    /// Appends a record. Returns when it is stored. The error is the reason, without values of the record.
    async fn append(&self, record: R) -> Result<(), String>;
    /// Requests that the record of `key` is removed. A log that is compacted at its start keeps it until then. The error is
    /// the reason, without the key.
    async fn remove(&self, key: &R::Key) -> Result<(), String>;
    /// Passes all records, and later ones as they are appended, to `observer`, until the caller drops it.
    fn follow(&self, observer: Arc<dyn RecordObserver<R>>);
}
