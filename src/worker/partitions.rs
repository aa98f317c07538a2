//! The partitions that a worker owns, with their states and open epochs.

use std::collections::HashMap;
use std::sync::Arc;

use super::feedback::{Coverage, LearningPartition, Unplaced};
use super::part::{Lent, Ownership, Part};
use super::restore::{RestoredPartition, RestoredStates};
use crate::campaign::Stage;
use crate::checkpoint::{Checkpoint, Position};
use crate::engine::{Counters, STATE_BYTES_MIN, State, TABLES};
use crate::feed::{Feed, Feeds};
use crate::millis::rfc3339;
use crate::pipeline::{Epoch, Partition, Pipeline, VerdictOutput};
use crate::port::{Message, SavedRows};
use crate::rule::RuleSet;
use crate::snapshot::{Extent, Marker, ReadError, state_name};
use crate::telemetry::{Health, Metrics};

/// How messages are assigned to states.
#[derive(Clone, Debug)]
pub enum Spread {
    /// One state for all messages, for past events in files.
    Whole(Feed),
    /// One state per partition of a topic that is keyed by subject, for past events in files.
    BySubject(Feed, u16),
    /// One state per partition of each topic.
    ByPartition(HashMap<Arc<str>, Feeds>),
}

/// The partitions, see the module documentation.
pub(super) struct Partitions<R> {
    spread: Spread,
    owned: Vec<Owned<R>>,
    next_ownership: u64,
    /// Buffers for reuse.
    spare: Vec<R>,
    new_rows: Box<dyn Fn() -> R + Send>,
    verdicts: VerdictOutput,
    /// State of a source without partitions and the marker of its snapshot, until its first message.
    restored_whole: Option<(Partition, Marker)>,
    /// Names of the states whose age was reported.
    reported: Vec<String>,
    /// Restored states of partitions. `None`: states are not restored.
    restored: Option<Arc<RestoredStates>>,
    /// Limit of the states of all partitions, which have equal shares of it, bytes.
    memory_max: Option<usize>,
    /// The share of a partition is smaller than a useful state.
    is_short: bool,
}

pub(super) struct Owned<R> {
    ownership: Ownership,
    pub(crate) topic: Arc<str>,
    number: i32,
    partition: Partition,
    unplaced: Unplaced,
    /// Results of messages whose rows are not sealed yet.
    pub(crate) open: Epoch<R>,
    /// Offsets of messages whose rows are in the store and that are not committed yet.
    pub(crate) stored: Checkpoint,
    /// Offsets of messages whose rows are sealed, and of those whose rows are in the store. They are kept.
    sealed: Checkpoint,
    done: Checkpoint,
    /// The last messages were replayed: the state has not reached the committed offset.
    is_behind: bool,
    /// Time of the earliest event in the state, milliseconds since the epoch. `None`: it has none.
    memory_since: Option<i64>,
    /// When the snapshot was written from which the state was restored, wall clock.
    pub(crate) restored_at: Option<i64>,
    /// Counters of the restored state.
    before: Counters,
    /// Counters of the state at the last report, plus those of replayed messages since.
    counted: Counters,
    /// Evictions from each group of tables at the last report.
    evicted: [u64; TABLES],
}

impl<R: SavedRows> Partitions<R> {
    /// `memory_max`: limit of the states of all partitions, bytes.
    pub(super) fn new(
        spread: Spread,
        verdicts: VerdictOutput,
        memory_max: Option<usize>,
        new_rows: impl Fn() -> R + Send + 'static,
    ) -> Self {
        let new_rows = Box::new(new_rows);
        Self {
            spread,
            owned: Vec::new(),
            next_ownership: 0,
            spare: Vec::new(),
            new_rows,
            verdicts,
            restored_whole: None,
            reported: Vec::new(),
            restored: None,
            memory_max,
            is_short: false,
        }
    }

    /// Name of the state of a source without partitions.
    pub(super) const WHOLE: &'static str = "events";

    /// Restores the state of a source without partitions from the records that `next` returns.
    pub(super) fn restore<E>(
        &mut self,
        pipeline: &Pipeline,
        marker: &Marker,
        next: &mut dyn FnMut() -> Result<Option<Vec<u8>>, E>,
    ) -> Result<(), ReadError<E>> {
        let restored = match &self.spread {
            Spread::Whole(feed) => pipeline.restored(*feed, 1, marker.extent, next)?,
            Spread::BySubject(feed, count) => pipeline.restored(*feed, *count, marker.extent, next)?,
            Spread::ByPartition(_) => return Ok(()),
        };
        self.restored_whole = Some((restored, marker.clone()));
        Ok(())
    }

    pub(super) const fn coverage(&self) -> Coverage {
        match &self.spread {
            Spread::Whole(_) | Spread::BySubject(..) => Coverage::Whole,
            Spread::ByPartition(_) => Coverage::OnePartition,
        }
    }

    pub(super) fn restore_from(&mut self, restored: Arc<RestoredStates>) {
        self.restored = Some(restored);
    }

    /// Name of the state of `owned`.
    pub(super) fn name(&self, owned: &Owned<R>) -> String {
        match &self.spread {
            Spread::Whole(_) | Spread::BySubject(..) => Self::WHOLE.to_owned(),
            Spread::ByPartition(_) => state_name(&owned.topic, owned.number),
        }
    }

    pub(super) fn get(&self, ownership: Ownership) -> Option<&Owned<R>> {
        self.owned.iter().find(|owned| owned.ownership == ownership)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Owned<R>> {
        self.owned.iter()
    }

    /// The partition of a message at `position`. A new partition has empty state.
    pub(super) fn of(&mut self, position: &Position, pipeline: &Pipeline) -> &mut Owned<R> {
        let at = match &self.spread {
            Spread::Whole(_) | Spread::BySubject(..) => (!self.owned.is_empty()).then_some(0),
            Spread::ByPartition(_) => {
                self.owned.iter().position(|owned| owned.number == position.partition && owned.topic == position.topic)
            }
        };
        let at = at.unwrap_or_else(|| {
            let restored = self.restored_whole.take().or_else(|| self.restored_partition(position, pipeline));
            let (partition, marker) = match restored {
                Some((partition, marker)) => (partition, Some(marker)),
                None => (self.empty(position, pipeline), None),
            };
            let before = counters(&partition);
            let evicted = evictions(&partition);
            self.owned.push(Owned {
                ownership: Ownership(self.next_ownership),
                topic: Arc::clone(&position.topic),
                number: position.partition,
                partition,
                unplaced: Unplaced::default(),
                open: Epoch::new((self.new_rows)()).with_verdicts(self.verdicts),
                stored: Checkpoint::default(),
                sealed: Checkpoint::default(),
                done: Checkpoint::default(),
                is_behind: false,
                memory_since: marker.as_ref().and_then(|marker| marker.memory_since),
                restored_at: marker.map(|marker| marker.written_at),
                before,
                counted: before,
                evicted,
            });
            self.next_ownership += 1;
            self.share_memory();
            self.owned.len() - 1
        });
        &mut self.owned[at]
    }

    /// Divides the memory among the partitions, and those whose states are restored and have no message yet.
    fn share_memory(&mut self) {
        let waiting = self.restored.as_ref().map_or(0, |restored| restored.waiting_count());
        let partitions = (self.owned.len() + waiting).max(1);
        let share = self.memory_max.map(|bytes| bytes / partitions);
        let is_short = share.is_some_and(|share| share < STATE_BYTES_MIN);
        if is_short && !self.is_short {
            tracing::warn!(
                partitions,
                "the limit of memory is too small for the partitions of this process, and is exceeded: raise \
                 detection.memory_mib_max, or add members"
            );
        }
        self.is_short = is_short;
        self.owned.iter_mut().for_each(|owned| owned.partition.set_memory_max(share));
    }

    fn empty(&self, position: &Position, pipeline: &Pipeline) -> Partition {
        match &self.spread {
            Spread::Whole(feed) => pipeline.partition(*feed),
            Spread::BySubject(feed, count) => pipeline.partitions(*feed, *count),
            Spread::ByPartition(feeds) => match feeds.get(&position.topic) {
                Some(feeds) => pipeline.partition_of(feeds),
                None => pipeline.partition(Feed::default()),
            },
        }
    }

    /// The state that the source has restored for the partition of a message.
    fn restored_partition(&self, position: &Position, pipeline: &Pipeline) -> Option<(Partition, Marker)> {
        let Spread::ByPartition(feeds) = &self.spread else { return None };
        let RestoredPartition { states, marker } = self.restored.as_ref()?.take(&position.topic, position.partition)?;
        let feeds = feeds.get(&position.topic).cloned().unwrap_or_default();
        Some((pipeline.continued(&feeds, 1, states)?, marker))
    }

    /// Sum of the counters since the start, without those of a restored state.
    pub(super) fn counters(&self) -> Counters {
        let since = |owned: &Owned<R>| owned.counters().since(owned.before);
        self.owned.iter().map(since).fold(Counters::default(), Counters::plus)
    }

    /// Number of feedback records that the partitions have not learnt.
    pub(super) fn feedback_left(&self) -> usize {
        self.owned.iter().map(|owned| owned.partition.scheduled()).sum()
    }

    pub(super) fn states(&self) -> impl Iterator<Item = &State> {
        self.owned.iter().flat_map(|owned| owned.partition.states())
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Owned<R>> {
        self.owned.iter_mut()
    }

    /// Open epoch of each partition.
    pub(super) fn open(&self) -> impl Iterator<Item = &Epoch<R>> {
        self.owned.iter().map(|owned| &owned.open)
    }

    pub(super) fn owns(&self, ownership: Ownership) -> bool {
        self.owned.iter().any(|owned| owned.ownership == ownership)
    }

    pub(super) fn remove(&mut self, gone: &[(Arc<str>, i32)]) {
        self.owned.retain(|owned| !owned.is_one_of(gone));
        self.share_memory();
    }

    pub(super) fn remove_all(&mut self) {
        self.owned.clear();
    }

    /// Whether there are messages whose rows are not sealed.
    pub(super) fn has_open(&self) -> bool {
        self.owned.iter().any(Owned::has_open)
    }

    /// Removes and returns the rows that are not sealed. Everything else of their epochs must have been published.
    pub(super) fn seal(&mut self) -> Vec<Part<R>> {
        let Self { owned, spare, new_rows, .. } = self;
        let owned = owned.iter_mut().filter(|owned| owned.has_open());
        let seal = |owned: &mut Owned<R>| Part {
            owner: owned.ownership,
            checkpoint: owned.seal(),
            rows: std::mem::replace(&mut owned.open.rows, spare.pop().unwrap_or_else(&**new_rows)),
        };
        owned.map(seal).collect()
    }

    /// The rows that are not sealed, to be copied before [`Self::clear_open`].
    pub(super) fn lend(&self) -> impl Iterator<Item = Lent<'_, R>> {
        let owned = self.owned.iter().filter(|owned| owned.has_open());
        owned.map(|owned| Lent { owner: owned.ownership, checkpoint: &owned.open.checkpoint, rows: &owned.open.rows })
    }

    pub(super) fn clear_open(&mut self) {
        for owned in &mut self.owned {
            owned.seal();
            owned.open.clear();
        }
    }

    /// Records that the store has the rows of `part`, and keeps the buffer.
    pub(super) fn stored(&mut self, mut part: Part<R>) {
        if let Some(owned) = self.owned.iter_mut().find(|owned| owned.ownership == part.owner) {
            owned.stored.merge(&part.checkpoint);
            owned.done.merge(&part.checkpoint);
        }
        if self.spare.len() < self.owned.len() {
            part.rows.clear();
            self.spare.push(part.rows);
        }
    }

    /// Offsets that can be committed.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        checkpoint.next.extend(self.owned.iter().flat_map(|owned| &owned.stored.next).cloned());
        checkpoint
    }

    /// Records that the offsets of [`Self::checkpoint`] are committed.
    pub(super) fn committed(&mut self) {
        self.owned.iter_mut().for_each(|owned| owned.stored.next.clear());
    }

    /// Reports the counters of the states since the last report, without replayed messages, and how far back each state
    /// reaches.
    pub(super) fn report(&mut self, metrics: &Metrics, health: &Health) {
        let baselines = self.states().map(|state| state.counters().baselines).sum();
        metrics.partitions(self.owned.len(), baselines);
        self.report_memory(metrics);
        for owned in &mut self.owned {
            let now = owned.counters();
            metrics.states(&owned.topic, now.since(owned.counted));
            owned.counted = now;
        }
        let memories: Vec<_> = self.owned.iter().map(|owned| (self.name(owned), owned.memory_since)).collect();
        for (name, since) in &memories {
            metrics.memory_since(name, *since);
            health.set_memory_since(name, *since);
        }
        let names = memories.into_iter().map(|(name, _)| name).collect();
        for gone in std::mem::replace(&mut self.reported, names) {
            if !self.reported.contains(&gone) {
                metrics.memory_since(&gone, None);
                health.set_memory_since(&gone, None);
            }
        }
    }
}

impl<R> Partitions<R> {
    /// Reports the bytes of the tables of all states, and the evictions since the last report.
    fn report_memory(&mut self, metrics: &Metrics) {
        let mut tables = [("", 0, 0); TABLES];
        for owned in &mut self.owned {
            let before = std::mem::replace(&mut owned.evicted, evictions(&owned.partition));
            for (table, (now, before)) in tables.iter_mut().zip(owned.evicted.into_iter().zip(before)) {
                table.2 += now.saturating_sub(before);
            }
            for state in owned.partition.states() {
                for (table, (name, usage)) in tables.iter_mut().zip(state.usage()) {
                    (table.0, table.1) = (name, table.1 + usage.bytes);
                }
            }
        }
        for (name, bytes, evictions) in tables.into_iter().filter(|(name, ..)| !name.is_empty()) {
            metrics.memory_of_table(name, bytes, evictions);
        }
    }
}

impl<R: SavedRows> Owned<R> {
    /// Processes new messages into the open epoch.
    pub(super) fn take(&mut self, pipeline: &mut Pipeline, messages: &[Message<'_>], now: i64) {
        pipeline.process(&mut self.partition, messages, now, &mut self.open);
        self.note_first_event();
        if std::mem::take(&mut self.is_behind) {
            let (topic, partition, since) = (&*self.topic, self.number, self.memory_since.map(rfc3339));
            tracing::info!(topic, partition, since, "the state is rebuilt");
        }
    }

    /// Adds the open appearances to `stage`, and its changes of incidents to the open epoch.
    pub(super) fn find_campaigns(&mut self, stage: &mut Stage, rules: &RuleSet) {
        let now = self.partition.states().map(State::scored_at).max().unwrap_or_default();
        for appeared in std::mem::take(&mut self.open.appearances) {
            for incident in stage.add(rules, *appeared.appearance, now) {
                self.open.add_incident(incident);
            }
        }
        self.open.tally.withheld.add(stage.take_withheld());
    }

    /// The partition, to learn feedback.
    pub(super) const fn learning(&mut self, coverage: Coverage) -> LearningPartition<'_> {
        LearningPartition { partition: &mut self.partition, unplaced: &mut self.unplaced, coverage }
    }

    /// Notes the time of the first event, after the messages of one group.
    fn note_first_event(&mut self) {
        if self.memory_since.is_none() {
            self.memory_since = self.partition.states().map(State::scored_at).filter(|at| *at != 0).min();
        }
    }

    /// Processes messages that change only the state. `discarded` receives the results.
    pub(super) fn remember(&mut self, pipeline: &mut Pipeline, messages: &[Message<'_>], discarded: &mut Epoch<R>) {
        let before = self.counters();
        // The ingestion time is 0, because the rows are discarded.
        pipeline.process(&mut self.partition, messages, 0, discarded);
        discarded.clear();
        self.note_first_event();
        self.is_behind = true;
        self.counted = self.counted.plus(self.counters().since(before));
    }

    pub(super) fn is_one_of(&self, partitions: &[(Arc<str>, i32)]) -> bool {
        partitions.iter().any(|(topic, number)| *number == self.number && *topic == self.topic)
    }

    fn has_open(&self) -> bool {
        !self.open.checkpoint.next.is_empty()
    }

    /// Removes and returns the offsets of the open epoch, whose rows are sealed now.
    fn seal(&mut self) -> Checkpoint {
        let checkpoint = std::mem::take(&mut self.open.checkpoint);
        self.sealed.merge(&checkpoint);
        checkpoint
    }

    /// Whether the state contains messages beyond those that were done before the start, so that a snapshot is of use.
    pub(super) fn has_news(&self) -> bool {
        !self.is_behind && !self.reached().next.is_empty()
    }

    pub(super) const fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// Offsets of the messages that the state contains, without those of a restored state.
    pub(super) fn reached(&self) -> Checkpoint {
        let mut reached = self.sealed.clone();
        reached.merge(&self.open.checkpoint);
        reached
    }

    /// Whether the rows of all messages before `reached` are in the store.
    pub(super) fn has_stored(&self, reached: &Checkpoint) -> bool {
        reached.next.iter().all(|next| self.done.contains(next))
    }

    /// Writes the state in records, each of which `take` receives.
    pub(super) fn save<E>(&self, take: &mut dyn FnMut(Vec<u8>) -> Result<(), E>) -> Result<Extent, E> {
        self.partition.save(take)
    }

    /// Time of the earliest event in the state, milliseconds since the epoch.
    pub(super) const fn memory_since(&self) -> Option<i64> {
        self.memory_since
    }

    pub(super) fn baselines(&self) -> u64 {
        self.counters().baselines
    }

    fn counters(&self) -> Counters {
        counters(&self.partition)
    }
}

/// Evictions from each group of tables of all states.
fn evictions(partition: &Partition) -> [u64; TABLES] {
    partition.states().fold([0; TABLES], |mut sums, state| {
        sums.iter_mut().zip(state.usage()).for_each(|(sum, (_, usage))| *sum += usage.evicted);
        sums
    })
}

fn counters(partition: &Partition) -> Counters {
    partition.states().map(State::counters).fold(Counters::default(), Counters::plus)
}
