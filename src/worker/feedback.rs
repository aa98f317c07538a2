//! Feedback to incidents: the log, and the place at which each partition learns a record.
//!
//! A member that reads new feedback about one of its partitions writes the offset of the partition's next message to the
//! log, and learns the feedback before that message when the log has the place. After a restart, and in a replay, the
//! feedback is learnt at the same place, so that the state is the same
//! (`docs/decisions/0046-learning-from-feedback.md`).

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::checkpoint::{Position, TopicId};
use crate::lock::unpoisoned;
use crate::pipeline::{Partition, Pipeline, Scheduled, Start};
use crate::port::{
    FeedbackId, FeedbackKey, FeedbackPlace, FeedbackRecord, FeedbackState, GivenFeedback, Message, RecordLog,
    RecordObserver, SourcePartition,
};
use crate::retry::{Retries, RetryPolicy};
use crate::telemetry::{Condition, Health};

/// Maximum number of feedback records in memory. The earliest ones beyond it have no effect.
const GIVEN_MAX: usize = 20_000;
/// Attempts to write a place.
const PLACE_RETRY: RetryPolicy = RetryPolicy::new(Duration::from_secs(5), Duration::from_secs(60));

/// Feedback about one subject.
#[derive(Debug)]
struct Subject {
    id: FeedbackId,
    key: String,
    given: GivenFeedback,
}

/// A partition, and a place in it.
type Place = (SourcePartition, FeedbackPlace);

/// The records of the log.
#[derive(Default)]
struct Known {
    /// By time and id.
    given: BTreeMap<(i64, FeedbackId), Arc<Subject>>,
    /// The last place of each.
    placed: HashMap<FeedbackId, Place>,
}

impl Known {
    fn add(&mut self, FeedbackRecord { key, state }: FeedbackRecord) {
        let FeedbackKey { feedback: id, subject, partition } = key;
        match (state, partition) {
            (FeedbackState::Given(given), None) => {
                self.given.insert((given.at, id), Arc::new(Subject { id, key: subject, given }));
            }
            (FeedbackState::Placed(place), Some(partition)) => {
                self.placed.insert(id, (partition, place));
            }
            (FeedbackState::Given(_), Some(_)) | (FeedbackState::Placed(_), None) => {
                tracing::error!(feedback = %id, "a record of feedback has the wrong key and no effect");
            }
        }
        if self.given.len() > GIVEN_MAX
            && let Some((_, first)) = self.given.pop_first()
        {
            tracing::error!(feedback = %first.id, "too much feedback is stored; the earliest has no effect");
        }
    }

    /// The feedback about a partition with its place, in the order in which it was given.
    fn of<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = (&'a Arc<Subject>, Option<&'a Place>)> {
        let subjects = self.given.values().filter(|subject| target.contains(&subject.given.source));
        subjects.map(|subject| (subject, self.placed.get(&subject.id)))
    }
}

/// The partition of a state.
enum Target {
    One(SourcePartition),
    /// The state of a source without partitions.
    Whole,
}

impl Target {
    fn contains(&self, source: &SourcePartition) -> bool {
        match self {
            Self::One(partition) => partition == source,
            Self::Whole => true,
        }
    }
}

/// Follows the log of feedback.
pub struct FeedbackLog {
    log: Arc<dyn RecordLog<FeedbackRecord>>,
    health: Arc<Health>,
    known: Mutex<Known>,
    /// Increases with each record.
    version: AtomicU64,
    is_complete: watch::Sender<bool>,
}

impl FeedbackLog {
    /// Reads the records of `log`, and new ones until the caller drops it.
    pub fn follow(log: Arc<dyn RecordLog<FeedbackRecord>>, health: Arc<Health>) -> Arc<Self> {
        let followed = Arc::new(Self {
            log,
            health,
            known: Mutex::default(),
            version: AtomicU64::new(0),
            is_complete: watch::Sender::new(false),
        });
        followed.log.follow(Arc::clone(&followed) as Arc<dyn RecordObserver<FeedbackRecord>>);
        followed
    }

    /// Waits until the records that existed at the start are read. Returns whether they were read in time.
    pub async fn read(&self, wait: Duration) -> bool {
        let mut complete = self.is_complete.subscribe();
        let read = tokio::time::timeout(wait, complete.wait_for(|complete| *complete)).await;
        read.is_ok_and(|read| read.is_ok())
    }
}

impl RecordObserver<FeedbackRecord> for FeedbackLog {
    fn record(&self, record: FeedbackRecord) {
        unpoisoned(&self.known).add(record);
        self.version.fetch_add(1, Ordering::Release);
    }

    fn all_read(&self) {
        self.is_complete.send_if_modified(|complete| !std::mem::replace(complete, true));
    }

    fn read_failed(&self) {
        self.health.set(Condition::Feedback, true);
    }

    fn read_succeeded(&self) {
        self.health.set(Condition::Feedback, false);
    }
}

/// Feedback of a partition that has no place yet.
#[derive(Default)]
pub(super) struct Unplaced {
    /// Number of records that the log had when they were last read for the partition. `None`: never.
    version: Option<u64>,
    subjects: Vec<Arc<Subject>>,
}

/// A partition that may have to learn feedback.
pub(super) struct Pupil<'a> {
    pub(super) partition: &'a mut Partition,
    pub(super) unplaced: &'a mut Unplaced,
    pub(super) is_whole: bool,
}

/// Schedules feedback in the partitions of a worker.
pub(super) struct Teacher {
    source: FeedbackSource,
    retries: Retries,
}

/// Where a worker gets feedback.
pub enum FeedbackSource {
    Log(Arc<FeedbackLog>),
    /// Records of the past, for a replay. No place is written.
    Past(Vec<FeedbackRecord>),
}

impl Teacher {
    pub(super) const fn new(source: FeedbackSource) -> Self {
        Self { source, retries: Retries::new(PLACE_RETRY) }
    }

    /// Schedules the feedback of the partition before it processes messages from `first` on. Usually, there is none that is
    /// new. Waits for the log only if there is. `now`: milliseconds since the epoch, wall clock.
    pub(super) fn prepare(
        &mut self,
        pupil: &mut Pupil<'_>,
        first: &Message<'_>,
        pipeline: &mut Pipeline,
        (runtime, now): (&Handle, i64),
    ) {
        let log = match &self.source {
            FeedbackSource::Past(records) => {
                if pupil.unplaced.version.replace(0).is_none() {
                    schedule_past(records, pupil, pipeline);
                }
                return;
            }
            FeedbackSource::Log(log) => Arc::clone(log),
        };
        let version = log.version.load(Ordering::Acquire);
        if pupil.unplaced.version.replace(version) != Some(version) {
            pupil.look_up(&log, first.position, pipeline);
        }
        if !first.replayed && !pupil.unplaced.subjects.is_empty() && self.retries.is_due(now) {
            self.place(&log, pupil, first.position, pipeline, (runtime, now));
        }
    }

    /// Writes the places of new feedback: before the message at `next`.
    fn place(
        &mut self,
        log: &FeedbackLog,
        pupil: &mut Pupil<'_>,
        next: &Position,
        pipeline: &mut Pipeline,
        (runtime, now): (&Handle, i64),
    ) {
        let mut subjects = std::mem::take(&mut pupil.unplaced.subjects).into_iter();
        while let Some(subject) = subjects.next() {
            let Subject { id, key, .. } = &*subject;
            let topic_id = if next.topic_id == TopicId::NONE { String::new() } else { next.topic_id.to_string() };
            let place = FeedbackPlace { offset: next.offset, topic_id, after: pupil.partition.last_event(), at: now };
            let partition = SourcePartition { topic: next.topic.to_string(), partition: next.partition };
            let key = FeedbackKey { feedback: *id, subject: key.clone(), partition: Some(partition) };
            let record = FeedbackRecord { key, state: FeedbackState::Placed(place) };
            if let Err(reason) = runtime.block_on(log.log.append(record)) {
                tracing::error!(feedback = %id, reason, "the place of feedback cannot be written; trying again");
                self.retries.failed(now);
                pupil.unplaced.subjects = std::iter::once(subject).chain(subjects).collect();
                return;
            }
            self.retries.succeeded();
            pupil.schedule(&subject, Start::Before(next.clone()), pipeline);
        }
    }
}

impl Pupil<'_> {
    /// Schedules the feedback that has a place, and notes the other one.
    fn look_up(&mut self, log: &FeedbackLog, next: &Position, pipeline: &mut Pipeline) {
        let target = if self.is_whole {
            Target::Whole
        } else {
            Target::One(SourcePartition { topic: next.topic.to_string(), partition: next.partition })
        };
        let known = unpoisoned(&log.known);
        self.partition.unschedule();
        self.unplaced.subjects.clear();
        for (subject, place) in known.of(&target) {
            if self.partition.has_learnt(subject.id.0) {
                continue;
            }
            let Some(place) = place else {
                self.unplaced.subjects.push(Arc::clone(subject));
                continue;
            };
            let (SourcePartition { topic, partition }, place) = place;
            let topic_id = place.topic_id.parse().unwrap_or(TopicId::NONE);
            let start = Position { topic_id, ..Position::new(topic.as_str(), *partition, place.offset) };
            self.schedule(subject, Start::Before(start), pipeline);
        }
    }

    fn schedule(&mut self, subject: &Subject, start: Start, pipeline: &mut Pipeline) {
        let feedback = pipeline.feedback(subject.id, &subject.given);
        self.partition.schedule(Scheduled { feedback, start, given_at: subject.given.at });
    }
}

/// Schedules feedback after the event after which a member has learnt it, else by the time at which it was given.
fn schedule_past(records: &[FeedbackRecord], pupil: &mut Pupil<'_>, pipeline: &mut Pipeline) {
    let mut known = Known::default();
    records.iter().cloned().for_each(|record| known.add(record));
    for (subject, place) in known.of(&Target::Whole) {
        let start = match place.map(|(_, place)| place.after) {
            Some(0) => Start::AfterTime(i64::MIN),
            Some(event) => Start::After(event),
            None => Start::AfterTime(subject.given.at),
        };
        if !pupil.partition.has_learnt(subject.id.0) {
            pupil.schedule(subject, start, pipeline);
        }
    }
}
