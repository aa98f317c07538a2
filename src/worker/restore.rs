//! States of partitions, restored when the source starts to read them.

use std::collections::HashMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::checkpoint::Position;
use crate::engine::{STATE_FORMAT, State};
use crate::kill_point::{Step, reach};
use crate::lock::unpoisoned;
use crate::port::{Clock, Restoration, SnapshotError, Snapshots, StateRestorer, StoredSnapshot, is_damage};
use crate::snapshot::{self, Marker, ReadError, Unreadable, state_name};
use crate::telemetry::{Condition, Health, Metrics};
use crate::token::TokenHasher;

/// Restored states that no message has reached yet. The source fills it on threads of its own, and the worker empties
/// it.
pub(crate) struct RestoredStates {
    snapshots: Arc<dyn Snapshots>,
    /// Recognises the key of names.
    key: u64,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    waiting: Mutex<HashMap<String, Waiting>>,
}

struct Waiting {
    ticket: u64,
    restored: RestoredPartition,
}

/// The restored states of one partition.
pub(super) struct RestoredPartition {
    pub(super) states: Vec<State>,
    /// The snapshot.
    pub(super) marker: Marker,
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
    #[error(
        "it continues at offset {offset}, but only a snapshot between the earliest message ({earliest}) and the committed \
         offset ({committed}) can be used"
    )]
    Offset { offset: i64, earliest: i64, committed: i64 },
}

impl Refusal {
    /// Whether the storage does not answer, so that there may be a usable snapshot.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Stored(SnapshotError::Storage(error)) | Self::Read(ReadError::Source(error)) => !is_damage(error),
            _ => false,
        }
    }
}

/// The newest snapshot of the state `name`, if this build and installation can use it.
pub(super) fn usable(snapshots: &dyn Snapshots, name: &str, key: u64) -> Result<Option<StoredSnapshot>, Refusal> {
    let Some(stored) = snapshots.newest(name)? else { return Ok(None) };
    stored.marker.check_format(STATE_FORMAT).map_err(ReadError::Unreadable)?;
    if stored.marker.key == key { Ok(Some(stored)) } else { Err(Refusal::Key) }
}

/// A restored state and where it continues.
struct Found {
    restored: RestoredPartition,
    offset: i64,
    bytes: u64,
}

impl RestoredStates {
    /// `hasher`: that of the pipeline.
    pub(crate) fn new(
        snapshots: Arc<dyn Snapshots>,
        hasher: &TokenHasher,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> Self {
        Self { snapshots, key: hasher.key_hasher().check(), clock, metrics, health, waiting: Mutex::default() }
    }

    /// Removes and returns the restored state of a partition.
    pub(super) fn take(&self, topic: &str, partition: i32) -> Option<RestoredPartition> {
        self.waiting().remove(&state_name(topic, partition)).map(|waiting| waiting.restored)
    }

    /// Number of restored states that no message has reached yet.
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting().len()
    }

    fn read(&self, name: &str, position: &Position, usable_at: RangeInclusive<i64>) -> Result<Option<Found>, Refusal> {
        let Some(StoredSnapshot { marker, bytes, mut records }) = usable(&*self.snapshots, name, self.key)? else {
            return Ok(None);
        };
        let reached = marker.next.iter();
        let mut reached = reached.filter(|next| next.partition == position.partition && *next.topic == *position.topic);
        let reached = reached.next().ok_or(ReadError::Unreadable(Unreadable::Length))?;
        if reached.is_of_other_topic(position) {
            return Err(Refusal::Topic);
        }
        let offset = reached.next;
        if !usable_at.contains(&offset) {
            let (earliest, committed) = usable_at.into_inner();
            return Err(Refusal::Offset { offset, earliest, committed });
        }
        let states = snapshot::read(STATE_FORMAT, marker.extent, &mut || records.next())?;
        Ok(Some(Found { restored: RestoredPartition { states, marker }, offset, bytes }))
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        unpoisoned(&self.waiting)
    }
}

impl StateRestorer for RestoredStates {
    fn restore(&self, position: &Position, usable: RangeInclusive<i64>, ticket: u64) -> Restoration {
        let Position { topic, partition, .. } = position;
        let (topic, partition) = (&**topic, *partition);
        let name = state_name(topic, partition);
        let began = self.clock.now_millis();
        let found = self.read(&name, position, usable);
        let is_unavailable = found.as_ref().is_err_and(Refusal::may_pass);
        self.health.set_of(Condition::StateUnavailable, &name, is_unavailable);
        match found {
            Ok(None) => {
                tracing::info!(topic, partition, "there is no snapshot of the state");
                Restoration::Nothing
            }
            Ok(Some(Found { restored, offset, bytes })) => {
                reach(Step::AfterRestoration);
                let took_ms = self.clock.now_millis() - began;
                self.metrics.snapshot_restored(&name, bytes, took_ms);
                let Marker { baselines, build, .. } = &restored.marker;
                tracing::info!(topic, partition, offset, baselines, took_ms, build, "read a snapshot of the state");
                let mut waiting = self.waiting();
                if waiting.get(&name).is_none_or(|other| other.ticket < ticket) {
                    waiting.insert(name, Waiting { ticket, restored });
                }
                Restoration::Continue(offset)
            }
            Err(reason) if is_unavailable => {
                let reason = reason.to_string();
                tracing::warn!(topic, partition, reason, "the snapshot cannot be read now; trying again");
                Restoration::Unavailable
            }
            Err(reason) => {
                let reason = reason.to_string();
                tracing::error!(
                    topic,
                    partition,
                    reason,
                    "the snapshot cannot be used; rebuilding from earlier messages"
                );
                Restoration::Nothing
            }
        }
    }

    fn discard(&self, topic: &str, partition: i32, ticket: u64) {
        let name = state_name(topic, partition);
        let mut waiting = self.waiting();
        if waiting.get(&name).is_some_and(|found| found.ticket <= ticket) {
            waiting.remove(&name);
        }
        self.health.set_of(Condition::StateUnavailable, &name, false);
    }
}
