//! Snapshots of the states: when they are written and completed, and the restoration at the start.
//!
//! A state is written between two polls, and contains all messages up to then. Its snapshot is completed when the rows of
//! these messages are stored and their offsets committed. A restart therefore never continues after a message whose rows
//! may be missing.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::error::WorkerError;
use super::feedback::Coverage;
use super::part::Ownership;
use super::partitions::{Owned, Partitions};
use super::restore::{Refusal, usable};
use crate::checkpoint::Checkpoint;
use crate::engine::STATE_FORMAT;
use crate::kill_point::{Step, reach};
use crate::millis::MINUTE_MS;
use crate::pipeline::Pipeline;
use crate::port::{Clock, SavedRows, SnapshotWriter, Snapshots, Source, StoredSnapshot};
use crate::snapshot::{Marker, Reached};
use crate::telemetry::{Condition, Health, Metrics};

/// Least time from one snapshot to the next, in multiples of the time for which the first one stopped the worker.
/// Snapshots therefore take at most a twentieth of the worker's time.
const REST: i64 = 20;
/// Time after which a failed snapshot is tried again, milliseconds.
const RETRY_MS: i64 = 60_000;
/// Time after which no further snapshot is begun at the end or before partitions are handed over, milliseconds.
const LAST_MS_MAX: i64 = 3_000;
/// Maximum time to wait for the storage of each of these snapshots.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// Maximum time that a snapshot waits until the rows of its messages are stored, milliseconds. A transaction in Kafka must
/// not stay open for longer.
const STORED_MS_MAX: i64 = 5 * MINUTE_MS;

/// Interval in which the end of a snapshot is looked for.
const LOOK_WAIT: Duration = Duration::from_millis(2);

/// Where and how often states are saved.
pub(crate) struct SnapshotSettings {
    pub(crate) to: Arc<dyn Snapshots>,
    /// Time between two snapshots of a state. `None`: only at the end.
    pub(crate) interval_ms: Option<i64>,
}

/// Saves and restores states, see the module documentation. It writes one snapshot at a time.
pub(super) struct Snapshotter {
    settings: SnapshotSettings,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    schedules: HashMap<Ownership, Schedule>,
    /// Time before which no snapshot begins, wall clock.
    rests_until: i64,
    written: Option<Written>,
    completing: Option<Completing>,
    /// When the last complete snapshot of each state was written, wall clock.
    completed_at: HashMap<String, i64>,
    /// States whose last snapshot failed.
    failing: BTreeSet<String>,
    /// No snapshot is completed: incidents of its messages may be in memory only.
    is_held: bool,
}

/// Snapshots of one state.
struct Schedule {
    /// When the next one is due, wall clock.
    due_at: i64,
    /// Content of the last complete one.
    saved: Checkpoint,
}

/// A snapshot that waits until the rows of its messages are stored and their offsets committed.
struct Written {
    owner: Ownership,
    name: String,
    reached: Checkpoint,
    writer: Box<dyn SnapshotWriter>,
    marker: Marker,
}

/// A snapshot whose end is being written.
struct Completing {
    owner: Ownership,
    name: String,
    reached: Checkpoint,
    written_at: i64,
    thread: JoinHandle<io::Result<u64>>,
}

impl Snapshotter {
    pub(super) fn new(
        settings: SnapshotSettings,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> Self {
        Self {
            settings,
            clock,
            metrics,
            health,
            schedules: HashMap::new(),
            rests_until: 0,
            written: None,
            completing: None,
            completed_at: HashMap::new(),
            failing: BTreeSet::new(),
            is_held: false,
        }
    }

    /// Completes no snapshot while the outbox is not on disk. A source without commits continues from its snapshot, and
    /// would not read the messages of these incidents again.
    pub(super) fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    /// Restores the state of a source without partitions, and moves the source to its place. Without a usable snapshot the
    /// state stays empty, and the source is read from its beginning. Fails if the storage cannot be read: it may contain a
    /// usable snapshot, which the next one would replace.
    pub(super) fn restore<R: SavedRows>(
        &mut self,
        partitions: &mut Partitions<R>,
        pipeline: &Pipeline,
        source: &mut dyn Source,
    ) -> Result<(), WorkerError> {
        if partitions.coverage() != Coverage::Whole {
            return Ok(());
        }
        let began = self.clock.now_millis();
        match self.restored(partitions, pipeline) {
            Ok(None) => tracing::info!("there is no snapshot of the state; starting without memory"),
            Ok(Some(StoredSnapshot { marker, bytes, .. })) => {
                let took = self.clock.now_millis() - began;
                self.completed_at.insert(Partitions::<R>::WHOLE.to_owned(), marker.written_at);
                self.metrics.snapshot_restored(Partitions::<R>::WHOLE, bytes, took);
                if marker.rules != pipeline.rules_version() || marker.geoip != pipeline.enricher.versions() {
                    tracing::info!("the rules or the GeoIP files have changed since the snapshot was written");
                }
                let age_s = (began - marker.written_at) / 1_000;
                let Marker { baselines, build, bookmarks, .. } = marker;
                tracing::info!(baselines, age_s, took_ms = took, build, "restored the memory from a snapshot");
                source.resume(bookmarks);
            }
            Err(reason) if reason.may_pass() => return Err(WorkerError::Snapshot(reason.to_string())),
            Err(reason) => {
                let reason = reason.to_string();
                tracing::error!(reason, "the snapshot cannot be used; rebuilding the memory from the whole source");
            }
        }
        Ok(())
    }

    fn restored<R: SavedRows>(
        &self,
        partitions: &mut Partitions<R>,
        pipeline: &Pipeline,
    ) -> Result<Option<StoredSnapshot>, Refusal> {
        let stored = usable(&*self.settings.to, Partitions::<R>::WHOLE, pipeline.key_check())?;
        let Some(mut stored) = stored else { return Ok(None) };
        partitions.restore(pipeline, &stored.marker, &mut || stored.records.next())?;
        Ok(Some(stored))
    }

    /// Completes a snapshot whose messages are done, and writes one if it is due.
    pub(super) fn advance<R: SavedRows>(
        &mut self,
        partitions: &Partitions<R>,
        pipeline: &Pipeline,
        source: &dyn Source,
    ) {
        let Some(interval) = self.settings.interval_ms else { return };
        self.complete(partitions, source);
        self.give_up();
        if self.completing.as_ref().is_some_and(|completing| completing.thread.is_finished()) {
            self.take_result();
        }
        let now = self.clock.now_millis();
        for (name, completed_at) in &self.completed_at {
            self.metrics.snapshot_age(name, Some(now - completed_at));
        }
        if self.written.is_some() || self.completing.is_some() || now < self.rests_until {
            return;
        }
        let mut next: Option<(i64, &Owned<R>)> = None;
        for owned in partitions.iter() {
            let schedule = self.schedules.entry(owned.ownership()).or_insert_with(|| {
                if let Some(restored_at) = owned.restored_at {
                    self.completed_at.insert(partitions.name(owned), restored_at);
                }
                Schedule { due_at: now + interval, saved: Checkpoint::default() }
            });
            if now < schedule.due_at || !owned.has_news() {
                continue;
            }
            if owned.reached() == schedule.saved {
                // No message has come since, so the last snapshot is as good as a new one.
                schedule.due_at = now + interval;
                self.completed_at.insert(partitions.name(owned), now);
            } else if next.is_none_or(|(earliest, _)| schedule.due_at < earliest) {
                next = Some((schedule.due_at, owned));
            }
        }
        if let Some((_, owned)) = next {
            self.write(owned, partitions.name(owned), pipeline, source);
        }
    }

    /// Writes and completes last snapshots of the states for which `is_wanted`. The rows of all messages must be stored.
    pub(super) fn finish<R: SavedRows>(
        &mut self,
        partitions: &Partitions<R>,
        pipeline: &Pipeline,
        source: &mut dyn Source,
        is_wanted: impl Fn(&Owned<R>) -> bool,
    ) {
        let began = self.clock.now_millis();
        source.confirm();
        self.written = None;
        self.wait_for_result();
        for owned in partitions.iter().filter(|owned| owned.has_news() && is_wanted(owned)) {
            if self.schedules.get(&owned.ownership()).is_some_and(|schedule| schedule.saved == owned.reached()) {
                continue;
            }
            if self.clock.now_millis() - began > LAST_MS_MAX {
                tracing::warn!("not all states could be saved in time; the next owner reads more messages again");
                return;
            }
            self.write(owned, partitions.name(owned), pipeline, source);
            self.complete(partitions, source);
            // A snapshot of messages whose commit is not confirmed is discarded.
            self.written = None;
            self.wait_for_result();
        }
    }

    /// Waits for the result of the snapshot that is being completed, at most [`LAST_WAIT`].
    fn wait_for_result(&mut self) {
        let mut waited = Duration::ZERO;
        while self.completing.as_ref().is_some_and(|completing| !completing.thread.is_finished()) {
            if waited >= LAST_WAIT {
                // Its thread goes on. In Kafka it fails if the partition is handed over meanwhile.
                self.completing = None;
                tracing::warn!("a last snapshot was not completed in time; the next owner reads more messages again");
                return;
            }
            std::thread::sleep(LOOK_WAIT);
            waited += LOOK_WAIT;
        }
        self.take_result();
    }

    /// Forgets states that another member owns now.
    pub(super) fn forget_gone<R: SavedRows>(&mut self, partitions: &Partitions<R>) {
        self.written.take_if(|written| !partitions.owns(written.owner));
        self.completing.take_if(|completing| !partitions.owns(completing.owner));
        self.schedules.retain(|owner, _| partitions.owns(*owner));
        let names: Vec<_> = partitions.iter().map(|owned| partitions.name(owned)).collect();
        self.completed_at.retain(|name, _| {
            let is_ours = names.contains(name);
            if !is_ours {
                self.metrics.snapshot_age(name, None);
            }
            is_ours
        });
        self.failing.retain(|name| {
            let is_ours = names.contains(name);
            if !is_ours {
                self.health.set_of(Condition::Snapshot, name, false);
            }
            is_ours
        });
    }

    fn write<R: SavedRows>(&mut self, owned: &Owned<R>, name: String, pipeline: &Pipeline, source: &dyn Source) {
        let began = self.clock.now_millis();
        let reached = owned.reached();
        let marker = Marker {
            format: STATE_FORMAT,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            written_at: began,
            next: reached.next.iter().map(Reached::of).collect(),
            bookmarks: source.bookmarks(),
            baselines: owned.baselines(),
            memory_since: owned.memory_since(),
            key: pipeline.key_check(),
            rules: pipeline.rules_version(),
            geoip: pipeline.enricher.versions(),
            ..Marker::default()
        };
        let saved = self.settings.to.begin(&name).and_then(|mut writer| {
            let extent = owned.save(&mut |record| writer.write(record))?;
            reach(Step::InSnapshot);
            Ok((writer, Marker { extent, ..marker }))
        });
        let now = self.clock.now_millis();
        self.metrics.snapshot_written(now - began);
        self.rests_until = now + (now - began) * REST;
        let ownership = owned.ownership();
        if let Some((schedule, interval)) = self.schedules.get_mut(&ownership).zip(self.settings.interval_ms) {
            schedule.due_at = now + interval;
        }
        match saved {
            Ok((writer, marker)) => self.written = Some(Written { owner: ownership, name, reached, writer, marker }),
            Err(error) => self.failed(ownership, &name, &error),
        }
    }

    /// Completes the written snapshot, if its messages are done.
    fn complete<R: SavedRows>(&mut self, partitions: &Partitions<R>, source: &dyn Source) {
        if self.is_held && !source.has_commits() {
            return;
        }
        let is_done = |Written { owner, reached, .. }: &mut Written| {
            let is_stored = partitions.get(*owner).is_some_and(|owned| owned.has_stored(reached));
            is_stored && source.is_committed(reached)
        };
        if let Some(Written { owner, name, reached, writer, marker }) = self.written.take_if(is_done) {
            let written_at = marker.written_at;
            self.completing = Some(Completing { owner, name, reached, written_at, thread: writer.finish(marker) });
        }
    }

    /// Discards the written snapshot, if its messages are not stored in time.
    fn give_up(&mut self) {
        let now = self.clock.now_millis();
        let is_late = |Written { marker, .. }: &mut Written| now - marker.written_at > STORED_MS_MAX;
        if let Some(Written { owner, name, .. }) = self.written.take_if(is_late) {
            let error = io::Error::new(io::ErrorKind::TimedOut, "its rows were not stored and committed in time");
            self.failed(owner, &name, &error);
        }
    }

    /// Takes the result of the snapshot that is being completed, if there is one. Waits for it.
    fn take_result(&mut self) {
        let Some(Completing { owner, name, reached, written_at, thread }) = self.completing.take() else { return };
        let panicked = |_| Err(io::Error::other("the thread that writes it has panicked"));
        match thread.join().unwrap_or_else(panicked) {
            Ok(bytes) => {
                tracing::debug!(state = name, bytes, "stored a snapshot");
                self.metrics.snapshot_stored(&name, bytes);
                self.health.set_of(Condition::Snapshot, &name, false);
                self.failing.remove(&name);
                self.completed_at.insert(name, written_at);
                if let Some(schedule) = self.schedules.get_mut(&owner) {
                    schedule.saved = reached;
                }
            }
            Err(error) => self.failed(owner, &name, &error),
        }
    }

    fn failed(&mut self, owner: Ownership, name: &str, error: &io::Error) {
        tracing::error!(state = name, %error, "the snapshot was not stored; the one before it stays");
        self.metrics.snapshot_failed();
        self.health.set_of(Condition::Snapshot, name, true);
        self.failing.insert(name.to_owned());
        let retry = self.clock.now_millis() + RETRY_MS;
        if let Some(schedule) = self.schedules.get_mut(&owner) {
            schedule.due_at = retry.min(schedule.due_at);
        }
    }
}
