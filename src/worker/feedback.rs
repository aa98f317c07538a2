//! Feedback to incidents: the log, and the place at which each partition learns a record.
//!
//! A member that reads new feedback about one of its partitions writes the offset of the partition's next message to the
//! log, and learns the feedback before that message when the log has the place. After a restart, and in a replay, the
//! feedback is learnt at the same place, so that the state is the same
//! (`docs/decisions/0046-learning-from-feedback.md`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

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
/// Maximum size of their events, bytes. The earliest records beyond it have no effect.
const GIVEN_BYTES_MAX: usize = 64 << 20;
/// Maximum number of places that are written at once.
const PLACES_MAX: usize = 1_000;
/// Time in which the log must acknowledge the places. Detection waits for it.
const PLACE_WAIT: Duration = Duration::from_secs(1);
/// Attempts to write a place.
const PLACE_RETRY: RetryPolicy = RetryPolicy::new(Duration::from_secs(5), Duration::from_secs(60));

/// Feedback about one subject.
#[derive(Debug)]
struct Subject {
    id: FeedbackId,
    key: String,
    given: GivenFeedback,
}

impl Subject {
    /// Size of its events, bytes.
    fn bytes(&self) -> usize {
        self.given.events.iter().map(|event| event.json().len()).sum()
    }
}

/// A place, and its partition.
#[derive(Clone)]
struct Place {
    partition: SourcePartition,
    place: FeedbackPlace,
}

impl Place {
    fn position(&self) -> Position {
        let Self { partition: SourcePartition { topic, partition }, place } = self;
        let topic_id = place.topic_id.unwrap_or(TopicId::NONE);
        Position { topic_id, ..Position::new(topic.as_str(), *partition, place.offset) }
    }

    /// Whether messages after it were processed, if `next` is the next one. A topic that was created again has other
    /// offsets.
    fn is_behind(&self, next: &Position) -> bool {
        let place = self.position();
        place.topic != next.topic || place.topic_id.is_other_than(next.topic_id) || place.offset < next.offset
    }
}

/// The records of the log.
#[derive(Default)]
struct Known {
    /// By time and id.
    given: BTreeMap<(i64, FeedbackId), Arc<Subject>>,
    /// Size of their events.
    bytes: usize,
    /// The last place of each. A file may have it before its feedback.
    placed: HashMap<FeedbackId, Place>,
}

impl Known {
    fn add(&mut self, FeedbackRecord { key, state }: FeedbackRecord) {
        let FeedbackKey { feedback: id, subject, partition } = key;
        match (state, partition) {
            (FeedbackState::Given(given), None) => {
                let subject = Arc::new(Subject { id, key: subject, given });
                self.bytes += subject.bytes();
                let before = self.given.insert((subject.given.at, id), subject);
                self.bytes -= before.map_or(0, |before| before.bytes());
            }
            (FeedbackState::Placed(place), Some(partition)) => {
                self.placed.insert(id, Place { partition, place });
            }
            (FeedbackState::Given(_), Some(_)) | (FeedbackState::Placed(_), None) => {
                tracing::error!(feedback = %id, "a record of feedback has the wrong key and no effect");
            }
        }
        while self.given.len() > GIVEN_MAX || self.bytes > GIVEN_BYTES_MAX {
            let Some((_, first)) = self.given.pop_first() else { break };
            self.bytes -= first.bytes();
            self.placed.remove(&first.id);
            tracing::error!(feedback = %first.id, "too much feedback is stored; the earliest has no effect");
        }
        if self.placed.len() > 2 * GIVEN_MAX {
            let given: HashSet<_> = self.given.keys().map(|(_, id)| *id).collect();
            self.placed.retain(|id, _| given.contains(id));
        }
    }

    /// The feedback about a partition with its place, in the order in which it was given.
    fn of<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = (&'a Arc<Subject>, Option<&'a Place>)> {
        let subjects = self.given.values().filter(|subject| target.contains(&subject.given.source));
        subjects.map(|subject| (subject, self.placed.get(&subject.id)))
    }
}

/// The messages of a state.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Coverage {
    OnePartition,
    /// All of a source without partitions.
    Whole,
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
            Self::One(SourcePartition { topic, partition }) => {
                // Rows of forwarded messages have the topic of the partition, a slash and the original topic. A topic name
                // has no slash.
                let of_source = source.topic.split_once('/').map_or(&*source.topic, |(topic, _)| topic);
                of_source == topic && source.partition == *partition
            }
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

/// Feedback of a partition that has no place, or whose place was passed before it was learnt.
#[derive(Default)]
pub(super) struct Unplaced {
    /// Number of records that the log had when they were last read for the partition. `None`: never.
    version: Option<u64>,
    subjects: Vec<UnplacedSubject>,
}

struct UnplacedSubject {
    subject: Arc<Subject>,
    /// Those of its earlier place.
    thieves: Option<Vec<u32>>,
}

/// What happens with feedback whose place is before the next message, and that is not learnt.
#[derive(Clone, Copy)]
enum Passed {
    /// It is learnt before the first message: the state is rebuilt from messages after the place.
    LearnFirst,
    /// It gets another place, so that a later restart learns it at the same place as this process.
    PlaceAnew,
}

/// A partition that may have to learn feedback.
pub(super) struct LearningPartition<'a> {
    pub(super) partition: &'a mut Partition,
    pub(super) unplaced: &'a mut Unplaced,
    pub(super) coverage: Coverage,
}

/// The runtime, and the wall clock of a poll in milliseconds since the epoch.
#[derive(Clone, Copy)]
pub(super) struct Moment<'a> {
    pub(super) runtime: &'a Handle,
    pub(super) now: i64,
}

/// Schedules feedback in the partitions of a worker.
pub(super) struct FeedbackScheduler {
    source: FeedbackSource,
    retries: Retries,
    /// Appends that the log has not acknowledged in time. Until they end, no other place is written, because the last
    /// place in the log counts.
    late: Option<JoinHandle<Vec<Result<(), String>>>>,
    /// Places were written in this poll. The others wait for the next one, so that a poll waits only once.
    has_waited: bool,
}

/// Where a worker gets feedback.
pub enum FeedbackSource {
    Log(Arc<FeedbackLog>),
    /// Records of the past, for a replay. No place is written.
    Past(Vec<FeedbackRecord>),
}

impl FeedbackScheduler {
    pub(super) const fn new(source: FeedbackSource) -> Self {
        Self { source, retries: Retries::new(PLACE_RETRY), late: None, has_waited: false }
    }

    pub(super) const fn begin_poll(&mut self) {
        self.has_waited = false;
    }

    /// Schedules the feedback of the partition before it processes messages from `first` on. Without a new record, it only
    /// compares a number. It waits for the log, at most for a second in a poll, only if feedback has no place yet.
    pub(super) fn prepare(
        &mut self,
        learning: &mut LearningPartition<'_>,
        first: &Message<'_>,
        pipeline: &mut Pipeline,
        moment: Moment<'_>,
    ) {
        let log = match &self.source {
            FeedbackSource::Past(records) => {
                if learning.unplaced.version.replace(0).is_none() {
                    schedule_past(records, learning, pipeline);
                }
                return;
            }
            FeedbackSource::Log(log) => Arc::clone(log),
        };
        let version = log.version.load(Ordering::Acquire);
        let before = learning.unplaced.version.replace(version);
        if before != Some(version) {
            let passed = if before.is_none() && first.replayed { Passed::LearnFirst } else { Passed::PlaceAnew };
            learning.look_up(&log, first.position, passed, pipeline);
        }
        if !first.replayed && !learning.unplaced.subjects.is_empty() && self.may_place(moment.now) {
            self.place(&log, learning, first.position, pipeline, moment);
        }
    }

    fn may_place(&mut self, now: i64) -> bool {
        if self.late.as_ref().is_some_and(JoinHandle::is_finished) {
            self.late = None;
        }
        self.late.is_none() && !self.has_waited && self.retries.is_due(now)
    }

    /// Writes the places of feedback, all at once: before the message at `next`.
    fn place(
        &mut self,
        log: &FeedbackLog,
        learning: &mut LearningPartition<'_>,
        next: &Position,
        pipeline: &mut Pipeline,
        moment: Moment<'_>,
    ) {
        self.has_waited = true;
        let subjects = &mut learning.unplaced.subjects;
        let drafts: Vec<_> = subjects
            .drain(..subjects.len().min(PLACES_MAX))
            .map(|subject| Draft::of(subject, learning.partition, next, pipeline, moment.now))
            .collect();
        let records: Vec<_> = drafts.iter().map(|draft| draft.record.clone()).collect();
        let topic = Arc::clone(&log.log);
        let mut appends =
            moment.runtime.spawn(async move { join_all(records.into_iter().map(|record| topic.append(record))).await });
        let waited = moment.runtime.block_on(async { tokio::time::timeout(PLACE_WAIT, &mut appends).await });
        let answers = match waited {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => vec![Err(error.to_string()); drafts.len()],
            Err(_) => {
                self.late = Some(appends);
                vec![Err(format!("not acknowledged within {} s", PLACE_WAIT.as_secs())); drafts.len()]
            }
        };
        let mut problem = None;
        for (draft, answer) in drafts.into_iter().zip(answers) {
            match answer {
                Ok(()) => learning.partition.schedule(draft.scheduled),
                Err(reason) => {
                    problem = Some(reason);
                    learning.unplaced.subjects.push(draft.subject);
                }
            }
        }
        match problem {
            None => self.retries.succeeded(),
            Some(reason) => {
                tracing::error!(reason, "the place of feedback cannot be written; trying again");
                self.retries.failed(moment.now);
            }
        }
    }
}

/// A place before it is written, and the feedback that is scheduled afterwards.
struct Draft {
    subject: UnplacedSubject,
    record: FeedbackRecord,
    scheduled: Scheduled,
}

impl Draft {
    fn of(
        unplaced: UnplacedSubject,
        partition: &Partition,
        next: &Position,
        pipeline: &mut Pipeline,
        now: i64,
    ) -> Self {
        let Subject { id, key, given } = &*unplaced.subject;
        let mut feedback = pipeline.feedback(*id, given, unplaced.thieves.clone());
        let thieves = feedback.thieves.take().unwrap_or_else(|| partition.find_thieves(&feedback));
        feedback.thieves = Some(thieves.clone());
        let place = FeedbackPlace {
            offset: next.offset,
            topic_id: Some(next.topic_id).filter(|id| *id != TopicId::NONE),
            after: partition.last_event(),
            thieves,
            at: now,
        };
        let source = SourcePartition { topic: next.topic.to_string(), partition: next.partition };
        let key = FeedbackKey { feedback: *id, subject: key.clone(), partition: Some(source) };
        let record = FeedbackRecord { key, state: FeedbackState::Placed(place) };
        let scheduled = Scheduled { feedback, start: Start::Before(next.clone()), given_at: given.at };
        Self { subject: unplaced, record, scheduled }
    }
}

impl LearningPartition<'_> {
    /// Schedules the feedback that has a place, and keeps the feedback without a place in `unplaced`.
    fn look_up(&mut self, log: &FeedbackLog, next: &Position, passed: Passed, pipeline: &mut Pipeline) {
        let target = match self.coverage {
            Coverage::Whole => Target::Whole,
            Coverage::OnePartition => {
                Target::One(SourcePartition { topic: next.topic.to_string(), partition: next.partition })
            }
        };
        let known = unpoisoned(&log.known);
        self.partition.unschedule();
        self.unplaced.subjects.clear();
        for (subject, place) in known.of(&target) {
            if self.partition.has_learnt(subject.id.0) {
                continue;
            }
            match (place, passed) {
                (Some(place), Passed::PlaceAnew) if place.is_behind(next) => {
                    let thieves = Some(place.place.thieves.clone());
                    self.unplaced.subjects.push(UnplacedSubject { subject: Arc::clone(subject), thieves });
                }
                (Some(place), _) => {
                    let start = Start::Before(place.position());
                    self.partition.schedule(scheduled(subject, Some(place), start, pipeline));
                }
                (None, _) => {
                    let subject = Arc::clone(subject);
                    self.unplaced.subjects.push(UnplacedSubject { subject, thieves: None });
                }
            }
        }
    }
}

fn scheduled(subject: &Subject, place: Option<&Place>, start: Start, pipeline: &mut Pipeline) -> Scheduled {
    let thieves = place.map(|place| place.place.thieves.clone());
    let feedback = pipeline.feedback(subject.id, &subject.given, thieves);
    Scheduled { feedback, start, given_at: subject.given.at }
}

/// Schedules feedback after the event after which a member has learnt it, else by the time at which it was given.
fn schedule_past(records: &[FeedbackRecord], learning: &mut LearningPartition<'_>, pipeline: &mut Pipeline) {
    let mut known = Known::default();
    records.iter().cloned().for_each(|record| known.add(record));
    for (subject, place) in known.of(&Target::Whole) {
        let start = match place.map(|place| place.place.after) {
            Some(None) => Start::AfterTime(i64::MIN),
            Some(Some(event)) => Start::After(event),
            None => Start::AfterTime(subject.given.at),
        };
        if !learning.partition.has_learnt(subject.id.0) {
            learning.partition.schedule(scheduled(subject, place, start, pipeline));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::StoredEvent;
    use crate::verdict::{IncidentId, Judgement};

    #[test]
    fn memory_of_feedback_is_bounded_in_bytes() {
        let event = StoredEvent::new(&"x".repeat(1 << 20)).expect("JSON");
        let source = SourcePartition { topic: "t".to_owned(), partition: 0 };
        let record = |id: u64, partition, state| {
            let key = FeedbackKey { feedback: FeedbackId(id), subject: "u".to_owned(), partition };
            FeedbackRecord { key, state }
        };
        let mut known = Known::default();
        for id in 0..100 {
            let (incident, by) = (IncidentId(1), "ana".to_owned());
            let (source, events, judgement) = (source.clone(), vec![event.clone()], Judgement::Benign);
            let given = GivenFeedback { incident, judgement, by, at: id as i64, source, since: 0, until: 0, events };
            known.add(record(id, None, FeedbackState::Given(given)));
            let place = FeedbackPlace { offset: 0, topic_id: None, after: None, thieves: Vec::new(), at: 0 };
            let partition = SourcePartition { topic: "t".to_owned(), partition: 0 };
            known.add(record(id, Some(partition), FeedbackState::Placed(place)));
        }
        let kept: Vec<_> = known.given.keys().map(|(_, FeedbackId(id))| *id).collect();
        // Each event has two quotation marks more than 1 MiB.
        assert_eq!(kept, (37..100).collect::<Vec<_>>());
        assert_eq!((known.bytes, known.placed.len()), (63 * ((1 << 20) + 2), 63));
    }
}
