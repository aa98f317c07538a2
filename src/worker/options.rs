//! Optional parts of a worker.

use std::sync::Arc;

use super::feedback::{FeedbackScheduler, FeedbackSource};
use super::restore::RestoredStates;
use super::snapshots::{SnapshotSettings, Snapshotter};
use super::spool::{Spool, SpoolSettings};
use super::{Environment, Worker};
use crate::campaign::{Campaign, Stage};
use crate::port::{SavedRows, Store};

impl<S: Store + 'static> Worker<S>
where
    S::Rows: SavedRows + 'static,
{
    /// Adds a spool on disk for rows that the store does not accept. Without a spool, the source waits.
    #[must_use]
    pub(crate) fn with_spool(mut self, settings: SpoolSettings) -> Self {
        self.backlog.spool_to(Spool::open(settings));
        self
    }

    /// Saves the states, and restores that of a source without partitions at the start.
    #[must_use]
    pub(crate) fn with_snapshots(mut self, settings: SnapshotSettings) -> Self {
        let Environment { clock, metrics, health, .. } = &self.environment;
        self.snapshotter = Some(Snapshotter::new(settings, Arc::clone(clock), Arc::clone(metrics), Arc::clone(health)));
        self
    }

    /// Learns from feedback.
    #[must_use]
    pub fn with_feedback(mut self, source: FeedbackSource) -> Self {
        self.feedback = Some(FeedbackScheduler::new(source));
        self
    }

    /// Searches for campaigns in this process, over all partitions. The pipeline must collect appearances.
    #[must_use]
    pub(crate) fn with_campaigns(mut self, stage: Stage) -> Self {
        self.campaigns = Some(stage);
        self
    }

    /// The campaigns that were found. Empty without [`Self::with_campaigns`].
    pub(crate) fn campaigns(&self) -> Vec<Campaign> {
        self.campaigns.as_ref().map_or_else(Vec::new, Stage::campaigns)
    }

    /// Begins partitions with the states that the source has restored.
    #[must_use]
    pub(crate) fn with_restored(mut self, restored: Arc<RestoredStates>) -> Self {
        self.partitions.restore_from(restored);
        self
    }
}
