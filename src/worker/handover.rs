//! The end of an ownership: other members of the group take partitions over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Observer, Worker, WorkerError};
use crate::port::{SavedRows, Source, Store};

/// Time that the rows of a hand-over may take: well below Kafka's `max.poll.interval.ms` (5 min).
const HANDOVER_WAIT_MS: i64 = 10_000;

impl<S: Store + 'static> Worker<S>
where
    S::Rows: SavedRows + 'static,
{
    /// Stores and commits the work of all partitions, and saves the states of those that are `gone`, so that their next
    /// owner continues with them.
    pub(super) fn hand_over(
        &mut self,
        source: &mut dyn Source,
        observe: &mut Observer<'_, S::Rows>,
        gone: &[(Arc<str>, i32)],
        stop: &AtomicBool,
    ) -> Result<(), WorkerError> {
        let is_worth_waiting = |worker: &Self, waited| {
            let is_behind = worker.backlog.is_behind() || worker.outbox_trouble.is_some();
            waited < HANDOVER_WAIT_MS && !is_behind && !stop.load(Ordering::Relaxed)
        };
        if !self.drain(source, observe, is_worth_waiting)? {
            tracing::warn!("rows of revoked partitions are not stored; the new owner reads their messages again");
        } else if let Some(snapshotter) = &mut self.snapshotter {
            snapshotter.finish(&self.partitions, &self.pipeline, source, |owned| owned.is_one_of(gone));
        }
        self.report();
        self.partitions.remove(gone);
        self.forget_gone();
        Ok(())
    }

    /// Discards the work of all partitions, which other members own already.
    pub(super) fn lose(&mut self) {
        self.partitions.remove_all();
        self.incidents.clear();
        self.letters.clear();
        self.forget_gone();
    }

    /// Discards rows of partitions that another member owns now. The new owner reads their messages again.
    fn forget_gone(&mut self) {
        self.backlog.retain(|ownership| self.partitions.owns(ownership));
        self.environment.store.partitions_changed();
        if let Some(snapshotter) = &mut self.snapshotter {
            snapshotter.forget_gone(&self.partitions);
        }
        if !self.partitions.has_open() {
            self.taken = 0;
        }
        self.report();
    }

    pub(super) fn report(&mut self) {
        self.partitions.report(&self.environment.metrics, &self.environment.health);
    }
}
