//! One worker: a thread, the partitions it owns, and the epochs in which their work reaches the outside.
//!
//! An epoch collects for about a second, or 50,000 messages. Closed, it goes out in this order: its incidents to the
//! outbox (so that an alert never waits for a store that is down), its rows to the store, then its dead letters and
//! offsets to the source. While one epoch is under way the next is being collected; if that is full too, the source
//! waits. A process that dies at any point therefore reads again what was not committed, and nothing is missing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::checkpoint::Position;
use crate::engine;
use crate::feed::Feed;
use crate::pipeline::{Epoch, Group, Note, Partition, Pipeline, Tally};
use crate::port::{Clock, Message, Outbox, Polled, Rows as _, Source, SourceError, Store, StoreError};
use crate::rule::RuleSet;
use crate::telemetry::{Condition, Health, Metrics};
use crate::verdict::Incident;

/// Messages taken between two looks at everything else.
const POLL_MESSAGES_MAX: usize = 1_000;
/// How long a poll waits for the first message.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// Waiting times between two attempts to write to the store double from the first to the second of these.
const RETRY_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long the source is left alone when it did not take a commit.
const COMMIT_RETRY_MS: i64 = 1_000;
/// How long the outbox is left alone when it did not take incidents.
const OUTBOX_RETRY_MS: i64 = 1_000;
/// How long a stop may take to bring the last epoch out.
const STOP_WAIT_MS: i64 = 8_000;
/// How long another member is kept waiting for its partitions: well below Kafka's `max.poll.interval.ms` (5 min).
const HANDOVER_WAIT_MS: i64 = 60_000;

/// When an epoch is closed, and how long the store is waited for.
#[derive(Clone, Debug)]
pub struct Limits {
    pub epoch_messages_max: u64,
    pub epoch_bytes_max: usize,
    /// `None` closes by count alone, so that the same input gives the same epochs.
    pub epoch_age_ms_max: Option<i64>,
    /// How long a write to the store, or to the outbox, is tried again; `None` is for ever.
    pub wait_ms_max: Option<i64>,
}

impl Limits {
    /// For a service: prompt, and patient with its store.
    pub const LIVE: Self = Self {
        epoch_messages_max: 50_000,
        epoch_bytes_max: 64 << 20,
        epoch_age_ms_max: Some(1_000),
        wait_ms_max: None,
    };
    /// For past events, with somebody waiting.
    pub const REPLAY: Self = Self { epoch_age_ms_max: None, wait_ms_max: Some(30_000), ..Self::LIVE };
}

/// How messages are spread over states.
#[derive(Clone, Debug)]
pub enum Spread {
    /// One state for all: past events in files.
    Whole(Feed),
    /// As many states as a topic keyed by subject has partitions: past events in files.
    BySubject(Feed, u16),
    /// One for each partition of each topic.
    ByPartition(HashMap<Arc<str>, Feed>),
}

/// Why a worker ended before its source or its stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the outbox cannot be written: {0}")]
    Outbox(std::io::Error),
    /// From the observer: the place where results go.
    #[error("{0}")]
    Output(std::io::Error),
    #[error("the program failed: {0}")]
    Broken(String),
}

/// See the module's text.
pub struct Worker<S: Store> {
    pipeline: Pipeline,
    partitions: Partitions,
    /// Messages on their way into an epoch; empty between two polls.
    group: Group,
    /// Collects what is new.
    open: Epoch<S::Rows>,
    /// When the first message came into the open epoch, milliseconds since the epoch, wall clock.
    opened_at: Option<i64>,
    /// Takes what is read again only to remember, and is thrown away.
    mute: Epoch<S::Rows>,
    flight: Flight<S::Rows>,
    /// Not to be committed before this; wall clock.
    commit_at: i64,
    /// Not to be put into the outbox before this, and since when it refuses; wall clock.
    outbox_at: i64,
    outbox_failed_at: Option<i64>,
    /// What the source could not read to its end.
    faults: Vec<String>,
    /// What the log has of each topic: each once, so that no producer fills it.
    warned: HashSet<(Arc<str>, Note)>,
    outside: Outside<S>,
}

/// All that a worker needs of the world around it.
pub struct Outside<S> {
    pub store: Arc<S>,
    /// `None`: nothing is sent or revoked.
    pub outbox: Option<Arc<dyn Outbox>>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub runtime: Handle,
    pub limits: Limits,
    /// `None` keeps the first rules and GeoIP files.
    pub reload: Option<Reload>,
}

/// Newer rules and GeoIP files, to be taken between two polls.
pub struct Reload {
    pub rules: watch::Receiver<Arc<RuleSet>>,
    /// Set: look at the GeoIP files now. They are watched anyway.
    pub look_at_files: Arc<AtomicBool>,
}

/// The closed epoch on its way out.
enum Flight<R> {
    /// None is; this one's memory waits to be used again.
    Idle(Epoch<R>),
    /// Its incidents are not in the outbox yet: a full disk, say. Nothing of it is visible outside.
    Closed(Epoch<R>),
    Storing(JoinHandle<(Epoch<R>, Result<(), StoreError>)>),
    /// In the store, not yet committed.
    Stored(Epoch<R>),
    /// Between two of the above.
    Changing,
}

impl<S: Store + 'static> Worker<S>
where
    S::Rows: 'static,
{
    /// `verdicts`: whether epochs carry verdict lines for the observer.
    pub fn new(pipeline: Pipeline, spread: Spread, verdicts: bool, outside: Outside<S>) -> Self {
        let epoch = |verdicts| Epoch::new(outside.store.new_rows(), verdicts);
        Self {
            pipeline,
            partitions: Partitions { spread, owned: Vec::new(), counted: engine::Counters::default() },
            group: Group::default(),
            open: epoch(verdicts),
            opened_at: None,
            mute: epoch(false),
            flight: Flight::Idle(epoch(verdicts)),
            commit_at: 0,
            outbox_at: 0,
            outbox_failed_at: None,
            faults: Vec::new(),
            warned: HashSet::new(),
            outside,
        }
    }

    /// Works until the source ends, `stop` is set, or something cannot go on. `observe` sees every epoch once it is
    /// done. Returns the counts of all that is done.
    pub fn run(
        &mut self,
        source: &mut dyn Source,
        stop: &AtomicBool,
        observe: &mut dyn FnMut(&Epoch<S::Rows>) -> std::io::Result<()>,
    ) -> Result<Tally, WorkerError> {
        let mut total = Tally::default();
        let mut observe = |epoch: &Epoch<S::Rows>| {
            total.add(&epoch.tally);
            observe(epoch)
        };
        while !stop.load(Ordering::Relaxed) {
            self.refresh();
            self.advance(source, &mut observe, false)?;
            let room = self.room();
            if room == 0 {
                self.await_flight(POLL_WAIT);
            }
            let polled = match self.poll(source, room) {
                Err(SourceError::Unusable(fault)) => {
                    // The rest of one file; the source goes on with the next.
                    self.faults.push(fault);
                    continue;
                }
                Err(error) => {
                    self.drain(source, &mut observe, Some(STOP_WAIT_MS))?;
                    return Err(error.into());
                }
                Ok(polled) => polled,
            };
            match polled {
                Polled::Messages(_) => {}
                Polled::Revoked(partitions) => {
                    if !self.drain(source, &mut observe, Some(HANDOVER_WAIT_MS))? {
                        let reason =
                            "store or outbox did not take what was done while partitions were to be handed over";
                        return Err(StoreError::Retriable(reason.to_owned()).into());
                    }
                    self.partitions.remove(&partitions);
                    self.partitions.count(&self.outside.metrics);
                    source.release()?;
                }
                Polled::Lost => {
                    self.abandon();
                    self.partitions.count(&self.outside.metrics);
                    source.release()?;
                }
                Polled::End => {
                    self.drain(source, &mut observe, None)?;
                    return Ok(total);
                }
            }
        }
        if !self.drain(source, &mut observe, Some(STOP_WAIT_MS))? {
            self.abandon();
            tracing::warn!("stopped before the last epoch was stored; it will be read again");
        }
        Ok(total)
    }

    /// The state of each partition that is owned now.
    pub fn states(&self) -> impl Iterator<Item = &engine::State> {
        self.partitions.owned.iter().flat_map(|owned| owned.partition.states())
    }

    /// What the source could not read to its end, and why.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Swaps in rules and GeoIP files that have changed: between two polls, never within a message.
    fn refresh(&mut self) {
        let Some(reload) = &mut self.outside.reload else { return };
        if reload.rules.has_changed().unwrap_or(false) {
            self.pipeline.rules = reload.rules.borrow_and_update().clone();
        }
        if reload.look_at_files.swap(false, Ordering::Relaxed) {
            self.pipeline.enricher.check_files();
        }
        self.pipeline.enricher.refresh();
    }

    /// Messages that the open epoch may still take.
    fn room(&self) -> usize {
        let limits = &self.outside.limits;
        if self.open.bytes() >= limits.epoch_bytes_max {
            return 0;
        }
        usize::try_from(limits.epoch_messages_max.saturating_sub(self.open.tally.messages)).unwrap_or(usize::MAX)
    }

    fn poll(&mut self, source: &mut dyn Source, room: usize) -> Result<Polled, SourceError> {
        let Self { pipeline, partitions, group, open, mute, opened_at, outside, .. } = self;
        // One reading of the clock serves a whole poll: it stamps rows, and nothing is judged by it.
        let now = outside.clock.now_millis();
        outside.health.beat(now);
        let wait = if room == 0 { Duration::ZERO } else { POLL_WAIT };
        let mut take = |messages: &[Message<'_>]| {
            let Some(first) = messages.first() else { return };
            let partition = partitions.of(first.position, pipeline);
            let epoch = if first.replayed { &mut *mute } else { &mut *open };
            pipeline.process(partition, messages, now, epoch);
        };
        let polled = source.poll(room.min(POLL_MESSAGES_MAX), wait, &mut |message| {
            group.add(&message, &mut take);
        });
        group.hand_over(&mut take);
        mute.clear();
        if opened_at.is_none() && !open.is_empty() {
            *opened_at = Some(now);
        }
        polled
    }

    /// Takes the epoch on its way out as far as it goes without waiting, and sends the open one after it when it is
    /// due, or in any case when `all`.
    fn advance(
        &mut self,
        source: &mut dyn Source,
        observe: &mut dyn FnMut(&Epoch<S::Rows>) -> std::io::Result<()>,
        all: bool,
    ) -> Result<(), WorkerError> {
        self.flight = match std::mem::replace(&mut self.flight, Flight::Changing) {
            Flight::Storing(task) if task.is_finished() => {
                let (epoch, stored) =
                    self.outside.runtime.block_on(task).map_err(|error| WorkerError::Broken(error.to_string()))?;
                stored?;
                Flight::Stored(epoch)
            }
            other => other,
        };
        if let Flight::Stored(epoch) = &mut self.flight
            && self.outside.clock.now_millis() >= self.commit_at
        {
            match source.commit(&epoch.checkpoint, &epoch.letters) {
                Ok(()) => {
                    self.outside.health.set(Condition::Commit, false);
                    self.outside.metrics.epoch_done(&epoch.tally);
                    warn(&mut self.warned, &epoch.tally);
                    self.partitions.count(&self.outside.metrics);
                    self.outside.metrics.geoip_problems(self.pipeline.enricher.problems().len());
                    observe(epoch).map_err(WorkerError::Output)?;
                    epoch.clear();
                    self.flight = match std::mem::replace(&mut self.flight, Flight::Changing) {
                        Flight::Stored(epoch) => Flight::Idle(epoch),
                        other => other,
                    };
                }
                Err(SourceError::Unavailable(reason)) => {
                    tracing::warn!(reason, "the source does not take what is done; trying again");
                    self.outside.health.set(Condition::Commit, true);
                    self.commit_at = self.outside.clock.now_millis() + COMMIT_RETRY_MS;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let due = match &self.flight {
            Flight::Idle(_) => !self.open.is_empty() && (all || self.is_due()),
            Flight::Closed(_) => self.outside.clock.now_millis() >= self.outbox_at,
            _ => false,
        };
        if due {
            self.close()?;
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        let age_max = self.outside.limits.epoch_age_ms_max;
        let old = match (age_max, self.opened_at) {
            (Some(max), Some(opened)) => self.outside.clock.now_millis() - opened >= max,
            _ => false,
        };
        old || self.room() == 0
    }

    /// Sends the open epoch on its way, or the closed one that waits for the outbox.
    fn close(&mut self) -> Result<(), WorkerError> {
        let epoch = match std::mem::replace(&mut self.flight, Flight::Changing) {
            Flight::Idle(spare) => {
                self.opened_at = None;
                std::mem::replace(&mut self.open, spare)
            }
            Flight::Closed(epoch) => epoch,
            other => {
                self.flight = other;
                return Ok(());
            }
        };
        if let Err(error) = self.hand_over(&epoch.incidents) {
            self.flight = Flight::Closed(epoch);
            return self.outbox_refused(error);
        }
        let store = Arc::clone(&self.outside.store);
        let clock = Arc::clone(&self.outside.clock);
        let metrics = Arc::clone(&self.outside.metrics);
        let health = Arc::clone(&self.outside.health);
        let wait_ms_max = self.outside.limits.wait_ms_max;
        self.flight = Flight::Storing(self.outside.runtime.spawn(async move {
            let stored = write(&*store, &epoch.rows, wait_ms_max, &*clock, &metrics, &health).await;
            (epoch, stored)
        }));
        Ok(())
    }

    fn hand_over(&mut self, incidents: &[Incident]) -> std::io::Result<()> {
        let Some(outbox) = &self.outside.outbox else { return Ok(()) };
        if incidents.is_empty() {
            return Ok(());
        }
        outbox.take(incidents)?;
        if self.outbox_failed_at.take().is_some() {
            tracing::info!("the outbox takes incidents again");
            self.outside.health.set(Condition::Outbox, false);
        }
        Ok(())
    }

    /// An alert is never lost: until the outbox takes it, its epoch is neither stored nor committed.
    fn outbox_refused(&mut self, error: std::io::Error) -> Result<(), WorkerError> {
        let now = self.outside.clock.now_millis();
        let since = *self.outbox_failed_at.get_or_insert(now);
        if self.outside.limits.wait_ms_max.is_some_and(|max| now - since >= max) {
            return Err(WorkerError::Outbox(error));
        }
        if since == now {
            tracing::error!(%error, "the outbox cannot be written; the source waits until it can");
        }
        self.outside.health.set(Condition::Outbox, true);
        self.outbox_at = now + OUTBOX_RETRY_MS;
        Ok(())
    }

    /// Brings everything out that was taken; `false` where `wait_ms_max` did not suffice.
    fn drain(
        &mut self,
        source: &mut dyn Source,
        observe: &mut dyn FnMut(&Epoch<S::Rows>) -> std::io::Result<()>,
        wait_ms_max: Option<i64>,
    ) -> Result<bool, WorkerError> {
        let began = self.outside.clock.now_millis();
        loop {
            self.advance(source, observe, true)?;
            if self.open.is_empty() && matches!(self.flight, Flight::Idle(_)) {
                return Ok(true);
            }
            if wait_ms_max.is_some_and(|max| self.outside.clock.now_millis() - began >= max) {
                return Ok(false);
            }
            self.await_flight(POLL_WAIT);
        }
    }

    /// Waits until the write under way ends, at most for `wait`.
    fn await_flight(&mut self, wait: Duration) {
        let runtime = self.outside.runtime.clone();
        match &mut self.flight {
            Flight::Storing(task) => runtime.block_on(async {
                let until_done = async {
                    while !task.is_finished() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                let _ = tokio::time::timeout(wait, until_done).await;
            }),
            _ => runtime.block_on(async { tokio::time::sleep(wait).await }),
        }
    }

    /// Forgets everything that is not committed, and all states with it.
    fn abandon(&mut self) {
        if let Flight::Storing(task) = &self.flight {
            task.abort();
        }
        self.flight = Flight::Idle(Epoch::new(self.outside.store.new_rows(), self.open.verdicts.is_some()));
        self.open.clear();
        self.opened_at = None;
        self.partitions.owned.clear();
        self.partitions.counted = engine::Counters::default();
    }
}

/// Logs what a topic's producers should know of, once for each topic.
fn warn(warned: &mut HashSet<(Arc<str>, Note)>, tally: &Tally) {
    for (topic, note, _) in &tally.noted {
        if !warned.insert((Arc::clone(topic), *note)) {
            continue;
        }
        let topic = &**topic;
        match note {
            Note::Unreadable(field) => {
                tracing::warn!(topic, field, "a field of some events cannot be read and counts as absent");
            }
            // Some formats have no addresses at all: the metric and the documentation are enough.
            Note::WithoutAddress => {}
            Note::ConfirmedIgnored => tracing::warn!(
                topic,
                "`confirmed` events are stored and ignored; set confirmed = true for this source to believe them"
            ),
            Note::Redacted => tracing::warn!(
                topic,
                "a producer sends bearer values instead of ids; they are replaced by keyed hashes"
            ),
        }
    }
}

/// Writes `rows`, again and again while the store says that it may help.
async fn write<S: Store>(
    store: &S,
    rows: &S::Rows,
    wait_ms_max: Option<i64>,
    clock: &dyn Clock,
    metrics: &Metrics,
    health: &Health,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let began = clock.now_millis();
    let mut wait = RETRY_WAIT.0;
    loop {
        match store.write(rows).await {
            Ok(()) => {
                health.set(Condition::Store, false);
                metrics.store_took(clock.now_millis() - began);
                return Ok(());
            }
            Err(StoreError::Retriable(reason)) if wait_ms_max.is_none_or(|max| clock.now_millis() - began < max) => {
                tracing::warn!(reason, "the store is unavailable; trying again");
                metrics.store_retried();
                health.set(Condition::Store, true);
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_WAIT.1);
    }
}

/// The partitions that this worker owns, each with its state.
struct Partitions {
    spread: Spread,
    owned: Vec<Owned>,
    /// What the states' counters stood at when they were last told.
    counted: engine::Counters,
}

struct Owned {
    topic: Arc<str>,
    number: i32,
    partition: Partition,
    /// Events with a time ahead of the stream's, and behind it, counted so far.
    skewed: [u64; 2],
}

impl Partitions {
    /// The partition of a message at `position`; new ones remember nothing.
    fn of(&mut self, position: &Position, pipeline: &Pipeline) -> &mut Partition {
        let at = match &self.spread {
            Spread::Whole(_) | Spread::BySubject(..) => (!self.owned.is_empty()).then_some(0),
            Spread::ByPartition(_) => {
                self.owned.iter().position(|owned| owned.number == position.partition && owned.topic == position.topic)
            }
        };
        let at = at.unwrap_or_else(|| {
            let partition = match &self.spread {
                Spread::Whole(feed) => pipeline.partition(*feed),
                Spread::BySubject(feed, count) => pipeline.partitions(*feed, *count),
                Spread::ByPartition(feeds) => {
                    pipeline.partition(feeds.get(&position.topic).copied().unwrap_or_default())
                }
            };
            self.owned.push(Owned {
                topic: Arc::clone(&position.topic),
                number: position.partition,
                partition,
                skewed: [0; 2],
            });
            self.owned.len() - 1
        });
        &mut self.owned[at].partition
    }

    fn remove(&mut self, gone: &[(Arc<str>, i32)]) {
        self.owned.retain(|owned| !gone.iter().any(|(topic, number)| *number == owned.number && *topic == owned.topic));
        self.counted = self.counters();
    }

    fn counters(&self) -> engine::Counters {
        let mut sum = engine::Counters::default();
        for state in self.owned.iter().flat_map(|owned| owned.partition.states()) {
            let counters = state.counters();
            sum.late += counters.late;
            sum.baselines += counters.baselines;
            sum.baselines_evicted += counters.baselines_evicted;
            sum.attempts += counters.attempts;
            sum.confirmed += counters.confirmed;
            sum.confirmed_alarms += counters.confirmed_alarms;
        }
        sum
    }

    /// Counts what the states did since they were last counted.
    fn count(&mut self, metrics: &Metrics) {
        let now = self.counters();
        metrics.states(self.owned.len(), now, self.counted);
        self.counted = now;
        for owned in &mut self.owned {
            let mut skewed = [0; 2];
            for counters in owned.partition.states().map(engine::State::counters) {
                skewed = [skewed[0] + counters.ahead, skewed[1] + counters.behind];
            }
            for (direction, (now, before)) in ["ahead", "behind"].into_iter().zip(skewed.into_iter().zip(owned.skewed))
            {
                if now > before {
                    metrics.clock_skewed(&owned.topic, direction, now - before);
                }
            }
            owned.skewed = skewed;
        }
    }
}

#[cfg(test)]
mod tests;
