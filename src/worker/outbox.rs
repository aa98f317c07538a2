//! Failures of the outbox.

use super::outage::Trouble;
use super::{Worker, WorkerError};
use crate::port::{SavedRows, Store};
use crate::telemetry::Condition;

impl<S: Store + 'static> Worker<S>
where
    S::Rows: SavedRows + 'static,
{
    /// The outbox takes no incidents over, because too many deliveries wait. Nothing of their epochs is published until it
    /// does.
    pub(super) fn outbox_refused(&mut self, error: std::io::Error, now: i64) -> Result<(), WorkerError> {
        let since = *self.outbox_failed_at.get_or_insert(now);
        if self.environment.limits.wait_ms_max.is_some_and(|max| now - since >= max) {
            return Err(WorkerError::Outbox(error));
        }
        if since == now {
            tracing::error!(%error, "the outbox takes no incidents; the source waits");
        }
        self.environment.health.set(Condition::Outbox, true);
        self.outbox_retries.failed(now);
        Ok(())
    }

    pub(super) fn outbox_accepted(&mut self) {
        self.outbox_retries.succeeded();
        if self.outbox_failed_at.take().is_some() {
            tracing::info!("the outbox takes incidents again");
            self.environment.health.set(Condition::Outbox, false);
        }
    }

    /// Writes the outbox to disk, if that failed before.
    pub(super) fn persist_outbox(&mut self, now: i64) -> Result<(), WorkerError> {
        let Some(outbox) = &self.environment.outbox else { return Ok(()) };
        let persisted = outbox.persist();
        if let Some(snapshotter) = &mut self.snapshotter {
            snapshotter.hold(persisted.is_err());
        }
        let Err(error) = persisted else {
            if self.outbox_trouble.take().is_some() {
                tracing::info!("the outbox is on disk again");
                self.environment.health.set(Condition::OutboxDisk, false);
            }
            return Ok(());
        };
        if Trouble::note(&mut self.outbox_trouble, true, now) {
            let what =
                "the outbox cannot be written to disk; deliveries continue from memory, and offsets are not committed";
            tracing::error!(%error, "{what}");
            self.environment.health.set(Condition::OutboxDisk, true);
        }
        let since = self.outbox_trouble.map_or(now, |trouble| trouble.since);
        if self.environment.limits.wait_ms_max.is_some_and(|max| now - since >= max) {
            return Err(WorkerError::Outbox(error));
        }
        Ok(())
    }
}
