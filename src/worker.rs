//! The worker: a thread that reads messages of the partitions it owns, and publishes and stores their results.
//!
//! Messages are scored as they arrive. Their results leave in three steps. No step waits for a later one:
//!
//! 1. **publish**: incidents go to the outbox, at most 250 ms after their event was scored. Dead letters go to the source,
//!    and counts to the metrics.
//! 2. **seal**: about once a second, or after 50,000 messages, rows go to the store in one insert per table (`backlog`).
//!    If the store does not accept them, later rows collect in memory and, beyond a limit, on disk (`spool`).
//! 3. **commit**: the offsets of messages whose rows are in the store are committed to the source.
//!
//! An offset is committed only if the incidents of all messages before it are in the outbox on disk and their rows in the store.
//! After a crash, the process therefore reads every message again that was not committed.

mod backlog;
mod environment;
mod error;
mod feedback;
mod handover;
mod limits;
mod notices;
mod options;
mod outage;
mod outbox;
mod part;
mod partitions;
mod restore;
mod snapshots;
mod spool;
mod warnings;
mod withheld;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::backlog::Backlog;
pub use self::environment::{Environment, Reload};
pub(crate) use self::error::WorkerError;
pub use self::feedback::{FeedbackLog, FeedbackSource};
use self::feedback::{FeedbackScheduler, Moment};
pub use self::limits::Limits;
use self::notices::Notices;
use self::outage::{Outage, Trouble};
use self::partitions::Partitions;
pub use self::partitions::Spread;
pub(crate) use self::restore::RestoredStates;
pub(crate) use self::snapshots::SnapshotSettings;
use self::snapshots::Snapshotter;
pub(crate) use self::spool::SpoolSettings;
use self::warnings::Warnings;
pub(crate) use self::withheld::WithheldNotice;
use crate::campaign::Stage;
use crate::checkpoint::{Checkpoint, DeadLetter};
use crate::engine;
use crate::kill_point::{Step, reach};
use crate::pipeline::{Appeared, Epoch, Group, Pipeline, VerdictOutput};
use crate::port::{INCIDENTS_AT_ONCE, Message, Polled, ResultRecord, SavedRows, Source, SourceError, Store};
use crate::retry::{Retries, RetryPolicy};
use crate::tally::Tally;
use crate::telemetry::Condition;
use crate::verdict::Incident;
use crate::wire;

/// Maximum number of messages per poll.
const POLL_MESSAGES_MAX: usize = 1_000;
/// Time that a poll waits for the first message.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// Incidents are collected for this time before one write to the outbox on disk.
const INCIDENTS_WAIT_MS: i64 = 250;
/// Commits, and dead letters that the source did not take.
const SOURCE_RETRY: RetryPolicy = RetryPolicy::every(Duration::from_secs(1));
/// Writes to the outbox.
const OUTBOX_RETRY: RetryPolicy = RetryPolicy::every(Duration::from_secs(1));
/// Time that a stop waits until results are stored. A stop does not wait for a store that is unavailable.
const STOP_WAIT_MS: i64 = 4_000;
/// Maximum number of dead letters that wait for their topic. Beyond it, the oldest are stored only in the table.
const LETTERS_MAX: usize = 1_000;

/// The worker of one thread, see the module documentation.
pub struct Worker<S: Store>
where
    S::Rows: SavedRows,
{
    pipeline: Pipeline,
    partitions: Partitions<S::Rows>,
    /// Messages that are not processed yet. Empty between two polls.
    group: Group,
    /// Receives the results of replayed messages, which are discarded.
    discarded: Epoch<S::Rows>,
    /// Number of messages since rows were last sealed, and the time of the first of them, wall clock.
    taken: u64,
    taken_at: i64,
    /// Time of the last publish, wall clock.
    published_at: i64,
    /// Incidents that are not in the outbox yet.
    incidents: Vec<Incident>,
    /// Dead letters that are not sent yet.
    letters: Vec<DeadLetter>,
    backlog: Backlog<S>,
    notices: Notices,
    commit_retries: Retries,
    letter_retries: Retries,
    outbox_retries: Retries,
    /// Time from which on the outbox takes no incidents over, wall clock.
    outbox_failed_at: Option<i64>,
    /// The outbox cannot be written to disk.
    outbox_trouble: Option<Trouble>,
    /// Files that the source could not read to the end.
    faults: Vec<String>,
    warnings: Warnings,
    /// `None`: the state is not saved.
    snapshotter: Option<Snapshotter>,
    /// `None`: detection does not learn from feedback.
    feedback: Option<FeedbackScheduler>,
    /// `None`: campaigns are not searched for, or elsewhere.
    campaigns: Option<Stage>,
    environment: Environment<S>,
}

/// Receives each epoch when it is published.
type Observer<'a, R> = dyn FnMut(&Epoch<R>) -> std::io::Result<()> + 'a;

impl<S: Store + 'static> Worker<S>
where
    S::Rows: SavedRows + 'static,
{
    /// `verdicts`: lines are for the observer, records for the source.
    pub fn new(pipeline: Pipeline, spread: Spread, verdicts: VerdictOutput, environment: Environment<S>) -> Self {
        let store = Arc::clone(&environment.store);
        let backlog = Backlog::new(
            Arc::clone(&store),
            environment.runtime.clone(),
            Arc::clone(&environment.metrics),
            Arc::clone(&environment.health),
            environment.limits.wait_ms_max,
        );
        let memory_max = pipeline.memory_max();
        Self {
            pipeline,
            discarded: Epoch::new(store.new_rows()),
            partitions: Partitions::new(spread, verdicts, memory_max, move || store.new_rows()),
            group: Group::default(),
            taken: 0,
            taken_at: 0,
            published_at: 0,
            incidents: Vec::new(),
            letters: Vec::new(),
            backlog,
            notices: Notices::new(environment.outbox.clone()),
            commit_retries: Retries::new(SOURCE_RETRY),
            letter_retries: Retries::new(SOURCE_RETRY),
            outbox_retries: Retries::new(OUTBOX_RETRY),
            outbox_failed_at: None,
            outbox_trouble: None,
            faults: Vec::new(),
            warnings: Warnings::default(),
            snapshotter: None,
            feedback: None,
            campaigns: None,
            environment,
        }
    }

    /// Runs until the source ends, `stop` is set, or an error is permanent. `observe` receives each epoch after its
    /// incidents are in the outbox. Returns the sum of all counts.
    pub fn run(
        &mut self,
        source: &mut dyn Source,
        stop: &AtomicBool,
        observe: &mut Observer<'_, S::Rows>,
    ) -> Result<Tally, WorkerError> {
        let mut total = Tally::default();
        let mut observe = |epoch: &Epoch<S::Rows>| {
            total.add(&epoch.tally);
            observe(epoch)
        };
        if let Some(snapshotter) = &mut self.snapshotter {
            snapshotter.restore(&mut self.partitions, &self.pipeline, source)?;
        }
        let mut ended = false;
        while !ended && !stop.load(Ordering::Relaxed) {
            self.refresh();
            self.advance(source, &mut observe, false)?;
            if let Some(snapshotter) = &mut self.snapshotter {
                snapshotter.advance(&self.partitions, &self.pipeline, source);
            }
            let room = self.room();
            if room == 0 {
                self.backlog.wait(POLL_WAIT);
            }
            match self.poll(source, room) {
                Ok(Polled::Messages(_)) => {}
                Ok(Polled::Revoked(gone)) => {
                    self.hand_over(source, &mut observe, &gone, stop)?;
                    source.release()?;
                }
                Ok(Polled::Lost) => {
                    self.lose();
                    source.release()?;
                }
                Ok(Polled::End) => {
                    self.drain(source, &mut observe, |_, _| !stop.load(Ordering::Relaxed))?;
                    ended = true;
                }
                // The rest of one file is skipped; the source continues with the next file.
                Err(SourceError::Unusable(fault)) => self.faults.push(fault),
                Err(error) => {
                    self.drain(source, &mut observe, Self::is_worth_a_stop)?;
                    return Err(error.into());
                }
            }
        }
        if !self.drain(source, &mut observe, Self::is_worth_a_stop)? {
            tracing::warn!("stopped before all rows were stored; their messages will be read again");
        } else if let Some(snapshotter) = &mut self.snapshotter {
            snapshotter.finish(&self.partitions, &self.pipeline, source, |_| true);
        }
        self.notices.report_withheld(self.now());
        Ok(total)
    }

    /// Sum of the counters of the owned partitions since the start.
    pub(crate) fn counters(&self) -> engine::Counters {
        self.partitions.counters()
    }

    /// Number of feedback records that were not learnt, because their place was not reached.
    pub(crate) fn feedback_left(&self) -> usize {
        self.partitions.feedback_left()
    }

    /// Files that the source could not read to the end, with the reason.
    pub(crate) fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Loads changed rules and GeoIP files. Called between two polls, so that a message is processed with one version.
    fn refresh(&mut self) {
        let Some(reload) = &mut self.environment.reload else { return };
        if reload.rules.has_changed().unwrap_or(false) {
            self.pipeline.rules = reload.rules.borrow_and_update().clone();
        }
        if reload.look_at_files.swap(false, Ordering::Relaxed) {
            self.pipeline.enricher.check_files();
        }
        self.pipeline.enricher.refresh();
    }

    fn now(&self) -> i64 {
        self.environment.clock.now_millis()
    }

    /// Whether a stop continues to wait for results to be stored.
    fn is_worth_a_stop(&self, waited_ms: i64) -> bool {
        let is_outbox_away = self.outbox_failed_at.is_some() || self.outbox_trouble.is_some();
        waited_ms < STOP_WAIT_MS && !self.backlog.is_store_away() && !is_outbox_away
    }

    /// Number of messages that may be read now.
    fn room(&self) -> usize {
        let limits = &self.environment.limits;
        if self.open_bytes() >= limits.epoch_bytes_max {
            0
        } else if self.backlog.has_spool() {
            POLL_MESSAGES_MAX
        } else {
            usize::try_from(limits.epoch_messages_max.saturating_sub(self.taken)).unwrap_or(usize::MAX)
        }
    }

    fn open_bytes(&self) -> usize {
        self.partitions.open().map(Epoch::bytes).sum()
    }

    fn poll(&mut self, source: &mut dyn Source, room: usize) -> Result<Polled, SourceError> {
        let Self { pipeline, partitions, group, discarded, taken, taken_at, environment, feedback, campaigns, .. } =
            self;
        // The clock is read once per poll. It is the ingestion time of rows and does not affect verdicts.
        let now = environment.clock.now_millis();
        environment.health.beat(now);
        let wait = if room == 0 { Duration::ZERO } else { POLL_WAIT };
        let moment = Moment { runtime: &environment.runtime, now };
        if let Some(feedback) = feedback {
            feedback.begin_poll();
        }
        let mut take = |messages: &[Message<'_>]| {
            let Some(first) = messages.first() else { return };
            let coverage = partitions.coverage();
            let owned = partitions.of(first.position, pipeline);
            if let Some(feedback) = feedback {
                feedback.prepare(&mut owned.learning(coverage), first, pipeline, moment);
            }
            if first.replayed {
                owned.remember(pipeline, messages, discarded);
                return;
            }
            if *taken == 0 {
                *taken_at = now;
            }
            *taken += messages.len() as u64;
            owned.take(pipeline, messages, now);
            if let Some(stage) = campaigns {
                owned.find_campaigns(stage, &pipeline.rules);
            }
        };
        let polled = source.poll(room.min(POLL_MESSAGES_MAX), wait, &mut |message| {
            group.add(&message, &mut take);
        });
        group.hand_over(&mut take);
        polled
    }

    /// Publishes, seals and commits what is due, or everything if `all`, as far as possible without waiting.
    fn advance(
        &mut self,
        source: &mut dyn Source,
        observe: &mut Observer<'_, S::Rows>,
        all: bool,
    ) -> Result<(), WorkerError> {
        let now = self.now();
        for part in self.backlog.advance(now)? {
            self.partitions.stored(part);
        }
        self.persist_outbox(now)?;
        self.commit(source, now)?;
        self.notices.report(&Outage { outbox: self.outbox_trouble, ..self.backlog.outage() }, now);
        let limits = &self.environment.limits;
        let is_full = self.open_bytes() >= limits.epoch_bytes_max;
        let is_due = self.taken > 0
            && (all
                || is_full
                || self.taken >= limits.epoch_messages_max
                || limits.epoch_age_ms_max.is_some_and(|max| now - self.taken_at >= max));
        let can_seal = self.backlog.is_idle() || (is_full && self.backlog.has_spool());
        if (is_due && can_seal) || self.is_to_be_published(now) {
            self.publish(source, observe, now)?;
        }
        if is_due && can_seal && self.incidents.is_empty() {
            self.seal(now);
        }
        Ok(())
    }

    /// Whether incidents or counts are due before rows are sealed.
    fn is_to_be_published(&self, now: i64) -> bool {
        let Some(age_max) = self.environment.limits.epoch_age_ms_max else { return false };
        let waited = now - self.published_at;
        let found = || !self.incidents.is_empty() || self.partitions.open().any(|open| !open.incidents.is_empty());
        waited >= age_max || (waited >= INCIDENTS_WAIT_MS && found())
    }

    /// Publishes incidents, dead letters, verdicts and counts of the open epochs. Until the outbox accepts the incidents,
    /// nothing else of their epochs is published, so that no alert is lost.
    fn publish(
        &mut self,
        source: &mut dyn Source,
        observe: &mut Observer<'_, S::Rows>,
        now: i64,
    ) -> Result<(), WorkerError> {
        if !self.outbox_retries.is_due(now) {
            return Ok(());
        }
        self.published_at = now;
        self.incidents.extend(self.partitions.iter_mut().flat_map(|owned| owned.open.incidents.drain(..)));
        if let Some(outbox) = &self.environment.outbox
            && !self.incidents.is_empty()
        {
            reach(Step::BeforeOutbox);
            while !self.incidents.is_empty() {
                let count = self.incidents.len().min(INCIDENTS_AT_ONCE);
                if let Err(error) = outbox.take(&self.incidents[..count]) {
                    return self.outbox_refused(error, now);
                }
                self.incidents.drain(..count);
            }
            reach(Step::AfterOutbox);
            self.outbox_accepted();
        }
        self.incidents.clear();
        for owned in self.partitions.iter_mut().filter(|owned| owned.open.tally.messages > 0) {
            self.environment.metrics.epoch_done(&owned.open.tally);
            self.warnings.log(&owned.topic, &owned.open.tally);
            self.notices.withheld(owned.open.tally.withheld, now);
            observe(&owned.open).map_err(WorkerError::Output)?;
            self.letters.append(&mut owned.open.letters);
            if let Some(records) = &mut owned.open.records {
                source.publish(records);
            }
            if !owned.open.appearances.is_empty() {
                let key = self.pipeline.key_check();
                source.announce(&mut owned.open.appearances.drain(..).map(|found| sighting(&found, key)).collect());
            }
            owned.open.clear_published();
        }
        self.report();
        self.environment.metrics.geoip_problems(self.pipeline.enricher.problems().len());
        Ok(())
    }

    /// Writes the rows of the open epochs to the store, or to the spool if the epochs are full. Everything else has been
    /// published.
    fn seal(&mut self, now: i64) {
        if self.backlog.is_idle() {
            let parts = self.partitions.seal();
            self.backlog.write(parts, now);
        } else if self.open_bytes() >= self.environment.limits.epoch_bytes_max
            && self.backlog.spool(self.partitions.lend(), self.taken_at, now)
        {
            self.partitions.clear_open();
        } else {
            return;
        }
        self.taken = 0;
    }

    /// Passes dead letters, and the offsets of stored messages, to the source. While the outbox cannot be written to disk, no
    /// offset is committed, so that a restart reads the messages of its incidents again.
    fn commit(&mut self, source: &mut dyn Source, now: i64) -> Result<(), WorkerError> {
        if !self.letters.is_empty() && self.letter_retries.is_due(now) {
            match source.commit(&Checkpoint::default(), &self.letters) {
                Ok(()) => {
                    self.letters.clear();
                    self.letter_retries.succeeded();
                }
                Err(SourceError::Unavailable(reason)) => {
                    tracing::warn!(reason, "dead letters cannot be sent; retrying");
                    self.letters.drain(..self.letters.len().saturating_sub(LETTERS_MAX));
                    self.letter_retries.failed(now);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let checkpoint = self.partitions.checkpoint();
        if checkpoint.next.is_empty() || self.outbox_trouble.is_some() || !self.commit_retries.is_due(now) {
            return Ok(());
        }
        reach(Step::BeforeCommit);
        match source.commit(&checkpoint, &[]) {
            Ok(()) => {
                reach(Step::AfterCommit);
                self.partitions.committed();
                self.commit_retries.succeeded();
                self.environment.health.set(Condition::Commit, false);
            }
            Err(SourceError::Unavailable(reason)) => {
                tracing::warn!(reason, "offsets cannot be committed; retrying");
                self.environment.health.set(Condition::Commit, true);
                self.commit_retries.failed(now);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Publishes, stores and commits everything, while `is_worth_waiting`, called with the milliseconds waited. Returns
    /// whether everything is committed.
    fn drain(
        &mut self,
        source: &mut dyn Source,
        observe: &mut Observer<'_, S::Rows>,
        is_worth_waiting: impl Fn(&Self, i64) -> bool,
    ) -> Result<bool, WorkerError> {
        let began = self.now();
        loop {
            self.advance(source, observe, true)?;
            if self.taken == 0 && self.backlog.is_idle() && self.partitions.checkpoint().next.is_empty() {
                return Ok(true);
            }
            if !is_worth_waiting(self, self.now() - began) {
                return Ok(false);
            }
            self.backlog.wait(POLL_WAIT);
        }
    }
}

/// The appearance as a message of the topic of sightings.
fn sighting(appeared: &Appeared, key: u64) -> ResultRecord {
    let Appeared { position, index, appearance } = appeared;
    ResultRecord {
        position: position.clone(),
        index: *index,
        // All appearances on one network are in one partition.
        key: appearance.network.to_string(),
        json: wire::sighting::encode(appearance, key),
    }
}

#[cfg(test)]
mod tests;
