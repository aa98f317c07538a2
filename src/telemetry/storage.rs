//! Metrics of the store, its spool and the snapshots.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::label::Labels;

/// State of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreState {
    Ok,
    /// The store does not respond, or requests a retry.
    Unavailable,
    /// The store rejects the rows or the credentials.
    Refusing,
}

impl StoreState {
    pub(super) const ALL: [Self; 3] = [Self::Ok, Self::Unavailable, Self::Refusing];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unavailable => "unavailable",
            Self::Refusing => "refusing",
        }
    }
}

/// Metrics of the snapshots.
#[derive(Debug, Default)]
pub(super) struct SnapshotMetrics {
    pub(super) count: Family<Labels<1>, Counter>,
    pub(super) age_seconds: Family<Labels<1>, Gauge>,
    pub(super) bytes: Family<Labels<1>, Gauge>,
    pub(super) pause_seconds: Gauge<f64, AtomicU64>,
    pub(super) restore_seconds: Gauge<f64, AtomicU64>,
}

impl SnapshotMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register("snapshots", "Snapshots of the state, by result", this.count.clone());
        let help = "Age of the newest complete snapshot, by state";
        registry.register("snapshot_age_seconds", help, this.age_seconds.clone());
        registry.register("snapshot_bytes", "Size of the newest complete snapshot, by state", this.bytes.clone());
        let help = "Time for which the last snapshot stopped the worker";
        registry.register("snapshot_pause_seconds", help, this.pause_seconds.clone());
        let help = "Time in which the last state was restored";
        registry.register("snapshot_restore_seconds", help, this.restore_seconds.clone());
        this
    }
}

/// State of the store, and size of the spool.
#[derive(Debug, Default)]
pub(super) struct Spool {
    pub(super) state: Family<Labels<1>, Gauge>,
    pub(super) bytes: Gauge,
    pub(super) rows: Gauge,
    pub(super) oldest_seconds: Gauge,
}

impl Spool {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register("store_state", "1 for the current state of the store, otherwise 0", this.state.clone());
        registry.register("spool_bytes", "Size of the rows in the spool", this.bytes.clone());
        registry.register("spool_rows", "Number of rows in the spool", this.rows.clone());
        let help = "Age of the oldest rows in the spool";
        registry.register("spool_oldest_seconds", help, this.oldest_seconds.clone());
        this
    }
}
