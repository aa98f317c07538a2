//! Snapshots of the state: when they are written and completed, and the restoration at the start.
//!
//! The state is written between two polls, and contains all messages up to then. Its snapshot is completed when the rows
//! of these messages are stored. A restart therefore never continues after a message whose rows may be missing.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::part::Ownership;
use super::partitions::{Owned, Partitions};
use crate::checkpoint::Checkpoint;
use crate::engine::STATE_FORMAT;
use crate::pipeline::Pipeline;
use crate::port::{Clock, SavedRows, SnapshotError, SnapshotWriter, Snapshots, Source, StoredSnapshot};
use crate::snapshot::{Marker, ReadError, Unreadable};
use crate::telemetry::{Condition, Health, Metrics};

/// Least time from one snapshot to the next, in multiples of the time for which the first one stopped the worker.
/// Snapshots therefore take at most a twentieth of the worker's time.
const REST: i64 = 20;
/// Time after which a failed snapshot is tried again, milliseconds.
const RETRY_MS: i64 = 60_000;

/// Where and how often the state is saved.
pub(crate) struct SnapshotSettings {
    pub(crate) to: Arc<dyn Snapshots>,
    /// Time between two snapshots. `None`: only at the end.
    pub(crate) interval_ms: Option<i64>,
}

/// Saves and restores the state, see the module documentation.
pub(super) struct Saver {
    settings: SnapshotSettings,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// When the next snapshot is due, wall clock. `None`: only at the end.
    due_at: Option<i64>,
    written: Option<Written>,
    completing: Option<Completing>,
    /// When the last complete snapshot was written, wall clock.
    completed_at: Option<i64>,
}

/// A snapshot that waits until the rows of its messages are stored.
struct Written {
    owner: Ownership,
    reached: Checkpoint,
    writer: Box<dyn SnapshotWriter>,
    marker: Marker,
}

/// A snapshot whose end is being written.
struct Completing {
    written_at: i64,
    thread: JoinHandle<io::Result<u64>>,
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Stored(#[from] SnapshotError),
    #[error("{0}")]
    Read(#[from] ReadError<io::Error>),
    #[error("it was written with another key for names; set privacy.token_key_file to the key of its installation")]
    Key,
}

impl Saver {
    pub(super) fn new(
        settings: SnapshotSettings,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> Self {
        let due_at = settings.interval_ms.map(|interval| clock.now_millis() + interval);
        Self { settings, clock, metrics, health, due_at, written: None, completing: None, completed_at: None }
    }

    /// Restores the state of a source without partitions, and moves the source to its place. Without a usable snapshot the
    /// state stays empty, and the source is read from its beginning.
    pub(super) fn restore<R: SavedRows>(
        &mut self,
        partitions: &mut Partitions<R>,
        pipeline: &Pipeline,
        source: &mut dyn Source,
    ) {
        let name = Partitions::<R>::WHOLE;
        let began = self.clock.now_millis();
        match self.usable(name, partitions, pipeline) {
            Ok(None) => tracing::info!("there is no snapshot of the state; starting without memory"),
            Ok(Some(StoredSnapshot { marker, bytes, .. })) => {
                let took = self.clock.now_millis() - began;
                self.completed_at = Some(marker.written_at);
                self.metrics.snapshot_restored(bytes, took);
                if marker.rules != pipeline.rules_version() || marker.geoip != pipeline.enricher.versions() {
                    tracing::info!("the rules or the GeoIP files have changed since the snapshot was written");
                }
                let age_s = (began - marker.written_at) / 1_000;
                let Marker { baselines, build, bookmarks, .. } = marker;
                tracing::info!(baselines, age_s, took_ms = took, build, "restored the memory from a snapshot");
                source.resume(bookmarks);
            }
            Err(reason) => {
                let reason = reason.to_string();
                tracing::error!(reason, "the snapshot cannot be used; rebuilding the memory from the whole source");
            }
        }
    }

    /// The newest snapshot, after its state was restored.
    fn usable<R: SavedRows>(
        &self,
        name: &str,
        partitions: &mut Partitions<R>,
        pipeline: &Pipeline,
    ) -> Result<Option<StoredSnapshot>, Refusal> {
        let Some(mut stored) = self.settings.to.newest(name)? else { return Ok(None) };
        let Marker { format, key, extent, .. } = stored.marker;
        if format != STATE_FORMAT {
            let reason = Unreadable::Format { found: format, expected: STATE_FORMAT };
            return Err(ReadError::Unreadable(reason).into());
        }
        if key != pipeline.key_check() {
            return Err(Refusal::Key);
        }
        partitions.restore(pipeline, extent, &mut || stored.records.next())?;
        Ok(Some(stored))
    }

    /// Completes a snapshot whose rows are stored, and writes one if it is due.
    pub(super) fn advance<R: SavedRows>(
        &mut self,
        partitions: &Partitions<R>,
        pipeline: &Pipeline,
        source: &dyn Source,
    ) {
        self.complete(partitions);
        if self.completing.as_ref().is_some_and(|completing| completing.thread.is_finished()) {
            self.take_result();
        }
        let now = self.clock.now_millis();
        if let Some(completed_at) = self.completed_at {
            self.metrics.snapshot_age(now - completed_at);
        }
        if self.written.is_none() && self.completing.is_none() && self.due_at.is_some_and(|due_at| now >= due_at) {
            self.write(partitions, pipeline, source);
        }
    }

    /// Writes and completes a last snapshot. The rows of all messages must be stored.
    pub(super) fn end<R: SavedRows>(&mut self, partitions: &Partitions<R>, pipeline: &Pipeline, source: &dyn Source) {
        self.written = None;
        self.take_result();
        self.write(partitions, pipeline, source);
        self.complete(partitions);
        self.take_result();
    }

    /// Writes the state, if there is one.
    fn write<R: SavedRows>(&mut self, partitions: &Partitions<R>, pipeline: &Pipeline, source: &dyn Source) {
        let Some(owned) = partitions.whole() else { return };
        let began = self.clock.now_millis();
        let marker = Marker {
            format: STATE_FORMAT,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            written_at: began,
            bookmarks: source.bookmarks(),
            baselines: owned.baselines(),
            key: pipeline.key_check(),
            rules: pipeline.rules_version(),
            geoip: pipeline.enricher.versions(),
            ..Marker::default()
        };
        let saved = self.save(owned, marker);
        let took = self.clock.now_millis() - began;
        self.metrics.snapshot_written(took);
        self.due_at = self.settings.interval_ms.map(|interval| began + took + interval.max(took * REST));
        match saved {
            Ok(written) => self.written = Some(written),
            Err(error) => self.failed(&error),
        }
    }

    fn save<R: SavedRows>(&self, owned: &Owned<R>, marker: Marker) -> io::Result<Written> {
        let mut writer = self.settings.to.begin(Partitions::<R>::WHOLE)?;
        let extent = owned.save(&mut |record| writer.write(record))?;
        let reached = owned.reached();
        let next = reached.next.iter().map(|next| (next.topic.to_string(), next.partition, next.offset)).collect();
        Ok(Written { owner: owned.ownership(), reached, writer, marker: Marker { extent, next, ..marker } })
    }

    /// Completes the written snapshot, if the rows of its messages are stored.
    fn complete<R: SavedRows>(&mut self, partitions: &Partitions<R>) {
        let is_stored = |written: &mut Written| {
            partitions
                .whole()
                .is_some_and(|owned| owned.ownership() == written.owner && owned.has_stored(&written.reached))
        };
        if let Some(Written { writer, marker, .. }) = self.written.take_if(is_stored) {
            self.completing = Some(Completing { written_at: marker.written_at, thread: writer.finish(marker) });
        }
    }

    /// Waits for the end of the snapshot that is being completed, if there is one.
    fn take_result(&mut self) {
        let Some(Completing { written_at, thread }) = self.completing.take() else { return };
        let panicked = |_| Err(io::Error::other("the thread that writes it has panicked"));
        match thread.join().unwrap_or_else(panicked) {
            Ok(bytes) => {
                self.completed_at = Some(written_at);
                self.metrics.snapshot_stored(bytes);
                self.health.set(Condition::Snapshot, false);
                tracing::debug!(bytes, "stored a snapshot of the state");
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &io::Error) {
        tracing::error!(%error, "the snapshot of the state was not stored; the one before it stays");
        self.metrics.snapshot_failed();
        self.health.set(Condition::Snapshot, true);
        let retry = self.clock.now_millis() + RETRY_MS;
        self.due_at = self.due_at.map(|due_at| due_at.min(retry));
    }
}
