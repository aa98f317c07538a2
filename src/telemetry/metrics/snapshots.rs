//! Metrics of snapshots and of restored memory.

use super::Metrics;

impl Metrics {
    /// Sets the time since the newest complete snapshot of `state`, milliseconds. `None` if another member has the state.
    pub(crate) fn snapshot_age(&self, state: &str, age_ms: Option<i64>) {
        let labels = [("state", state.to_owned().into())];
        if let Some(age_ms) = age_ms {
            self.snapshots.age_seconds.get_or_create(&labels).set(age_ms / 1_000);
        } else {
            self.snapshots.age_seconds.remove(&labels);
            self.snapshots.bytes.remove(&labels);
        }
    }

    /// Sets the time for which a snapshot stopped the worker, milliseconds.
    pub(crate) fn snapshot_written(&self, took_ms: i64) {
        self.snapshots.pause_seconds.set(took_ms as f64 / 1_000.0);
    }

    /// Counts a complete snapshot and sets its size.
    pub(crate) fn snapshot_stored(&self, state: &str, bytes: u64) {
        self.snapshots.count.get_or_create(&[("result", "stored".into())]).inc();
        self.snapshots.bytes.get_or_create(&[("state", state.to_owned().into())]).set(bytes as i64);
    }

    pub(crate) fn snapshot_failed(&self) {
        self.snapshots.count.get_or_create(&[("result", "failed".into())]).inc();
    }

    /// Sets the size of the restored snapshot and the time of its restoration, milliseconds.
    pub(crate) fn snapshot_restored(&self, state: &str, bytes: u64, took_ms: i64) {
        self.snapshots.bytes.get_or_create(&[("state", state.to_owned().into())]).set(bytes as i64);
        self.snapshots.restore_seconds.set(took_ms as f64 / 1_000.0);
    }

    /// Sets the time of the earliest event in a state, milliseconds since the epoch. `None` if another member has the state.
    pub(crate) fn memory_since(&self, state: &str, since: Option<i64>) {
        let labels = [("state", state.to_owned().into())];
        match since {
            Some(since) => _ = self.memory_since.get_or_create(&labels).set(since / 1_000),
            None => _ = self.memory_since.remove(&labels),
        }
    }
}
