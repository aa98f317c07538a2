//! States of partitions, restored when the source starts to read them.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::checkpoint::Position;
use crate::engine::{STATE_FORMAT, State};
use crate::port::{Clock, Recall, SnapshotError, Snapshots, StoredSnapshot};
use crate::snapshot::{self, Marker, ReadError, Unreadable, state_name};
use crate::telemetry::Metrics;
use crate::token::TokenHasher;

/// Restored states that no message has reached yet. The source fills it on a thread of its own, and the worker empties
/// it.
pub(crate) struct Recalled {
    snapshots: Arc<dyn Snapshots>,
    /// Recognises the key of names.
    key: u64,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    waiting: Mutex<HashMap<String, Restored>>,
}

/// The restored states of one partition.
pub(super) struct Restored {
    pub(super) states: Vec<State>,
    /// When the snapshot was written, milliseconds since the epoch, wall clock.
    pub(super) written_at: i64,
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0}")]
    Stored(#[from] SnapshotError),
    #[error("{0}")]
    Read(#[from] ReadError<io::Error>),
    #[error("it was written with another key for names; set privacy.token_key_file to the key of its installation")]
    Key,
    #[error("the topic was deleted and created again")]
    Topic,
}

/// The newest snapshot of the state `name`, if this build and installation can use it.
pub(super) fn usable(snapshots: &dyn Snapshots, name: &str, key: u64) -> Result<Option<StoredSnapshot>, Refusal> {
    let Some(stored) = snapshots.newest(name)? else { return Ok(None) };
    let Marker { format, key: of_marker, .. } = stored.marker;
    if format != STATE_FORMAT {
        let reason = Unreadable::Format { found: format, expected: STATE_FORMAT };
        return Err(ReadError::Unreadable(reason).into());
    }
    if of_marker == key { Ok(Some(stored)) } else { Err(Refusal::Key) }
}

impl Recalled {
    /// `hasher`: that of the pipeline.
    pub(crate) fn new(
        snapshots: Arc<dyn Snapshots>,
        hasher: &TokenHasher,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { snapshots, key: hasher.key_hasher().check(), clock, metrics, waiting: Mutex::default() }
    }

    /// Removes and returns the restored state of a partition.
    pub(super) fn take(&self, topic: &str, partition: i32) -> Option<Restored> {
        self.waiting().remove(&state_name(topic, partition))
    }

    fn read(&self, name: &str, position: &Position) -> Result<Option<(Vec<State>, i64, StoredSnapshot)>, Refusal> {
        let Some(mut stored) = usable(&*self.snapshots, name, self.key)? else { return Ok(None) };
        let reached = stored.marker.next.iter();
        let mut reached = reached.filter(|next| next.partition == position.partition && *next.topic == *position.topic);
        let reached = reached.next().ok_or(ReadError::Unreadable(Unreadable::Length))?;
        if reached.is_of_other_topic(position) {
            return Err(Refusal::Topic);
        }
        let offset = reached.next;
        let states = snapshot::read(STATE_FORMAT, stored.marker.extent, &mut || stored.records.next())?;
        Ok(Some((states, offset, stored)))
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Restored>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recall for Recalled {
    fn load(&self, position: &Position) -> Option<i64> {
        let Position { topic, partition, .. } = position;
        let (topic, partition) = (&**topic, *partition);
        self.forget(topic, partition);
        let name = state_name(topic, partition);
        let began = self.clock.now_millis();
        match self.read(&name, position) {
            Ok(None) => {
                tracing::info!(topic, partition, "there is no snapshot of the state");
                None
            }
            Ok(Some((states, offset, StoredSnapshot { marker, bytes, .. }))) => {
                let took_ms = self.clock.now_millis() - began;
                self.metrics.snapshot_restored(&name, bytes, took_ms);
                let Marker { baselines, build, written_at, .. } = marker;
                tracing::info!(topic, partition, offset, baselines, took_ms, build, "read a snapshot of the state");
                self.waiting().insert(name, Restored { states, written_at });
                Some(offset)
            }
            Err(reason) => {
                let reason = reason.to_string();
                tracing::error!(
                    topic,
                    partition,
                    reason,
                    "the snapshot cannot be used; rebuilding from earlier messages"
                );
                None
            }
        }
    }

    fn forget(&self, topic: &str, partition: i32) {
        self.waiting().remove(&state_name(topic, partition));
    }
}
