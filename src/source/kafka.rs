//! Messages from Kafka: a member of a consumer group that commits only what is done.
//!
//! A rebalance is noted by its callback and served by the next poll, so that a partition is let go of only after its
//! work has been committed. Where a new partition goes on is looked up by a thread of its own, and the partition is
//! read from when the answer is there: the thread that polls never waits for a broker, except at most 2 s for the last
//! commit before partitions are let go of.

mod check;
mod letters;
mod lookup;
mod member;
mod native;
mod resume;
mod settings;

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::types::RDKafkaConfRes;
use rdkafka::{Offset, TopicPartitionList};

pub use self::check::{Finding, Level, check, create};
use self::letters::DeadLetterTopic;
use self::lookup::{Answer, Found, Lookup, Policy, Wanted};
use self::member::{Member, Rebalance, Snapshot};
use self::native::{Commits, Committed, CommittedOffset};
use self::resume::{First, Left, is_other};
pub use self::settings::{KafkaSettings, Topic};
use crate::checkpoint::{Checkpoint, DeadLetter, LogTime, LogTimeKind, Position, TopicId};
use crate::port::{Condition, Message, OffsetGap, Polled, Source, SourceError, SourceObserver};

/// How long a broker may take to answer before it counts as absent.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Bytes of messages after which a poll ends, so that large ones do not flood an epoch.
const POLL_BYTES_MAX: usize = 8 << 20;
/// How long the last commit may take to be confirmed, before partitions are let go of and at the end.
const CONFIRM_WAIT: Duration = Duration::from_secs(2);
/// How long leaving the group may take at the end.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// How often librdkafka gives its statistics, which also is when failed commits are repeated.
const STATISTICS_INTERVAL_MS: &str = "2000";
/// How often, in statistics, the topics are looked at: every 10 s.
const TOPICS_INTERVAL: u32 = 5;
/// For how many statistics after an offset turned out to be out of range its partition is looked for.
const STALLED_INTERVALS: u32 = 5;
/// How soon new partitions and recreated topics are noticed.
const METADATA_INTERVAL_MS: &str = "30000";

/// A member of the consumer group.
pub struct KafkaSource {
    consumer: Arc<BaseConsumer<Member>>,
    commits: Commits,
    lookup: Lookup,
    dead_letters: DeadLetterTopic,
    observer: Arc<dyn SourceObserver>,
    topics: Vec<Arc<str>>,
    owned: Vec<Owned>,
    /// Of the partition that was asked for last.
    generation: u64,
    /// Revoked or lost, and still to be released.
    leaving: Option<TopicPartitionList>,
    paused: bool,
    /// The group has assigned partitions, if only none.
    joined: bool,
    /// Statistics for which partitions are still looked for that librdkafka has stopped reading: their offsets are not
    /// in the log any more.
    looking_for_stalled: u32,
    commit_failed: bool,
    /// Came although the partitions are paused; the first to be handed over.
    stray: Option<OwnedMessage>,
    /// Statistics seen.
    snapshots: u32,
    reported: Reported,
    /// Of all topics, when it was opened.
    partitions: u32,
    /// Dropped last, so that nothing else holds the consumer any more.
    closer: Closer,
}

/// Closes the consumer, which leaves the group, without waiting longer than [`CLOSE_WAIT`].
struct Closer(Option<Arc<BaseConsumer<Member>>>);

impl Drop for Closer {
    fn drop(&mut self) {
        let Some(consumer) = self.0.take() else { return };
        let (done, closed) = mpsc::channel();
        std::thread::spawn(move || {
            drop(consumer);
            let _ = done.send(());
        });
        if closed.recv_timeout(CLOSE_WAIT).is_err() {
            tracing::warn!("the group was not left in time; partitions move when the session times out");
        }
    }
}

/// What the observer was last told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reported {
    no_partitions: bool,
    rebuilding: bool,
    commit_failed: bool,
}

/// A partition that this member owns.
struct Owned {
    /// Of the message being handed over.
    position: Position,
    /// The offset after the last message handed over.
    next: i64,
    /// Messages before this offset are done.
    live_from: i64,
    /// It is being read. Before, where it goes on is not known yet.
    is_read: bool,
    /// Of the lookup whose answer is waited for.
    asked: Option<u64>,
    /// Messages before `live_from` are still to come.
    rebuilding: bool,
    /// Statistics in a row in which it was not fetched.
    idle: u32,
    /// It was begun anew, and nothing has been committed since.
    gap: bool,
    /// Committed by us: what was sent, and what the brokers confirmed.
    sent: Option<i64>,
    confirmed: Option<i64>,
}

impl KafkaSource {
    /// Joins the group. Fails where no broker answers, ours are not let in, or a topic does not exist.
    pub fn open(settings: &KafkaSettings, observer: Arc<dyn SourceObserver>) -> Result<Self, SourceError> {
        let mut config = settings.client_config()?;
        config.set("group.id", &settings.group_id);
        for (key, value) in [
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("topic.metadata.refresh.interval.ms", METADATA_INTERVAL_MS),
        ] {
            if config.get(key).is_none() {
                config.set(key, value);
            }
        }
        let first = match config.get("auto.offset.reset") {
            Some("latest" | "largest" | "end") => First::Latest,
            _ => First::Earliest,
        };
        // librdkafka would go on at the earliest or latest message without a word where an offset is out of range.
        config.set("auto.offset.reset", "error");
        // Offsets are committed by us alone, and only after everything they stand for is done.
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
        let member = Member::reporting(Arc::clone(&observer));
        let consumer = Arc::new(BaseConsumer::from_config_and_context(&config, member).map_err(misconfigured)?);
        let partitions = check_topics(&consumer, settings)?;
        let dead_letters = DeadLetterTopic::open(settings, Arc::clone(&observer))?;
        let policy = Policy { remember_messages_max: settings.remember_messages_max.into(), first };
        let lookup = Lookup::start(&consumer, policy)
            .map_err(|error| SourceError::Unavailable(format!("cannot start a thread: {error}")))?;
        let commits = Commits::new(Arc::clone(&consumer))
            .ok_or_else(|| SourceError::Unavailable("librdkafka has no memory for a queue".to_owned()))?;
        let topics: Vec<Arc<str>> = settings.topics.iter().map(|topic| topic.topic.as_str().into()).collect();
        consumer.subscribe(&topics.iter().map(|topic| &**topic).collect::<Vec<_>>()).map_err(misconfigured)?;
        let closer = Closer(Some(Arc::clone(&consumer)));
        let mut source = Self {
            consumer,
            commits,
            lookup,
            dead_letters,
            observer,
            topics,
            owned: Vec::new(),
            generation: 0,
            leaving: None,
            paused: false,
            joined: false,
            looking_for_stalled: 0,
            commit_failed: false,
            stray: None,
            snapshots: 0,
            reported: Reported::default(),
            partitions,
            closer,
        };
        source.report();
        Ok(source)
    }

    /// Partitions of all topics together, whoever of the group owns them, as they were when it was opened.
    #[must_use]
    pub const fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Accepts newly assigned partitions, and asks where each goes on. They are read from when that is known.
    fn accept(&mut self, partitions: &TopicPartitionList) -> Result<(), SourceError> {
        let none = TopicPartitionList::new();
        let done =
            if self.is_incremental() { self.consumer.incremental_assign(&none) } else { self.consumer.assign(&none) };
        done.map_err(|error| self.unavailable(&error))?;
        for element in partitions.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let topic = self.topics.iter().find(|known| ***known == *topic).map_or_else(|| topic.into(), Arc::clone);
            self.owned.retain(|owned| !owned.is(&topic, partition));
            self.owned.push(Owned::new(Position::new(topic, partition, 0)));
        }
        self.joined = true;
        self.ask();
        Ok(())
    }

    /// Asks for each partition that is not read yet where it goes on.
    fn ask(&mut self) {
        let mut wanted = Vec::new();
        for owned in self.owned.iter_mut().filter(|owned| !owned.is_read && owned.asked.is_none()) {
            wanted.push(owned.want(&mut self.generation, None));
        }
        if !wanted.is_empty() {
            self.lookup.want(wanted);
        }
    }

    /// Takes what the lookups have found, and starts to read those partitions.
    fn take_answers(&mut self) -> Result<(), SourceError> {
        if self.leaving.is_some() || self.consumer.context().is_rebalancing() || self.consumer.assignment_lost() {
            return Ok(());
        }
        let (mut started, mut again) = (TopicPartitionList::new(), TopicPartitionList::new());
        let mut gaps = Vec::new();
        while let Some(answer) = self.lookup.answer() {
            match answer {
                Answer::Topic { topic, found } => self.look_at_topic(&topic, found),
                Answer::Partition(found) => {
                    let Wanted { topic, partition, generation, .. } = &found.wanted;
                    let Some(owned) = self.owned.iter_mut().find(|owned| owned.asked == Some(*generation)) else {
                        continue;
                    };
                    if owned.is_read {
                        again.add_partition(topic, *partition);
                        self.stray.take_if(|stray| stray.topic() == &**topic && stray.partition() == *partition);
                    }
                    gaps.extend(owned.begin(&found));
                    started
                        .add_partition_offset(topic, *partition, Offset::Offset(found.resume.from))
                        .map_err(misconfigured)?;
                }
            }
        }
        self.report_gaps(gaps);
        if started.count() == 0 {
            return Ok(());
        }
        self.read_from(&started, &again).map_err(|error| self.unavailable(&error))
    }

    /// Reads `started` from their offsets; those in `again` are being read already.
    fn read_from(&self, started: &TopicPartitionList, again: &TopicPartitionList) -> KafkaResult<()> {
        if self.is_incremental() {
            if again.count() > 0 {
                self.consumer.incremental_unassign(again)?;
            }
            self.consumer.incremental_assign(started)?;
        } else {
            let mut all = started.clone();
            for owned in self.owned.iter().filter(|owned| owned.is_read) {
                let (topic, partition) = (&owned.position.topic, owned.position.partition);
                if started.find_partition(topic, partition).is_none() {
                    all.add_partition_offset(topic, partition, Offset::Offset(owned.next))?;
                }
            }
            self.consumer.assign(&all)?;
        }
        if self.paused { self.consumer.pause(&self.consumer.assignment()?) } else { Ok(()) }
    }

    /// Logs and reports the partitions that are begun anew, together by topic and kind.
    fn report_gaps(&self, mut gaps: Vec<OffsetGap>) {
        gaps.sort_by(|one, other| {
            (&one.topic, one.kind, one.partition).cmp(&(&other.topic, other.kind, other.partition))
        });
        for gap in &gaps {
            let OffsetGap { kind, topic, partition, expected, resumed, end } = gap;
            let (topic, kind, lost) = (&**topic, kind.name(), gap.lost());
            tracing::error!(
                topic,
                partition,
                kind,
                expected,
                resumed,
                end,
                lost,
                "read from the earliest message again"
            );
            self.observer.condition(Condition::OffsetGap, &part(topic, *partition), true);
        }
        for alike in gaps.chunk_by(|one, other| one.topic == other.topic && one.kind == other.kind) {
            self.observer.gaps(alike);
        }
    }

    /// Notices topics that are gone, and those that are others than when their partitions were taken over.
    fn look_at_topic(&mut self, topic: &Arc<str>, found: Result<TopicId, RDKafkaErrorCode>) {
        if let Err(code) = found {
            tracing::debug!(topic = &**topic, %code, "topic not described");
        }
        self.observer.condition(Condition::SourceTopic, topic, found.is_err());
        let Ok(id) = found else { return };
        let mut wanted = Vec::new();
        for owned in &mut self.owned {
            let position = &owned.position;
            if owned.is_read && owned.asked.is_none() && position.topic == *topic && is_other(position.topic_id, id) {
                let left = Left { offset: owned.next, topic_id: position.topic_id };
                wanted.push(owned.want(&mut self.generation, Some(left)));
            }
        }
        if !wanted.is_empty() {
            self.lookup.want(wanted);
        }
    }

    /// Serves what librdkafka's statistics say.
    fn look_at(&mut self, snapshot: &Snapshot) {
        self.snapshots = self.snapshots.wrapping_add(1);
        self.joined |= snapshot.steady;
        let mut wanted = Vec::new();
        for owned in &mut self.owned {
            let fetching = snapshot.partitions.iter().find(|fetching| owned.is(&fetching.topic, fetching.partition));
            let Some(fetching) = fetching.filter(|_| owned.is_read) else { continue };
            // The last messages before `live_from` may be missing: compacted, or the markers of transactions.
            owned.rebuilding &= fetching.handed_over < owned.live_from;
            // A partition that was assigned just now is not fetched for a moment either.
            owned.idle = if fetching.idle { owned.idle + 1 } else { 0 };
            if self.looking_for_stalled > 0 && owned.idle >= 2 && owned.asked.is_none() {
                let left = Left { offset: owned.next, topic_id: owned.position.topic_id };
                wanted.push(owned.want(&mut self.generation, Some(left)));
            }
        }
        if !self.owned.iter().any(|owned| owned.idle > 0) {
            self.looking_for_stalled = self.looking_for_stalled.saturating_sub(1);
        }
        if !wanted.is_empty() {
            self.lookup.want(wanted);
        }
        self.ask();
        if self.snapshots.is_multiple_of(TOPICS_INTERVAL) {
            self.lookup.ask_topics(self.topics.clone());
        }
        if self.commit_failed {
            self.commit_again();
        }
    }

    /// Notes the answers to commits that have come.
    fn take_commits(&mut self) {
        while let Some(answer) = self.commits.answer(Duration::ZERO) {
            self.note_commit(answer);
        }
    }

    fn note_commit(&mut self, Committed { error, offsets }: Committed) {
        let mut failed = error;
        for CommittedOffset { topic, partition, offset, error: refused } in offsets {
            let Some(owned) = self.owned.iter_mut().find(|owned| owned.is(&topic, partition)) else { continue };
            failed = failed.or(refused);
            if error.is_none() && refused.is_none() {
                owned.confirmed = Some(offset);
                if std::mem::take(&mut owned.gap) {
                    self.observer.condition(Condition::OffsetGap, &part(&topic, partition), false);
                }
            }
        }
        if self.is_confirmed() {
            // Offsets of partitions that have gone are no longer ours to commit.
            self.commit_failed = false;
        } else if let Some(code) = failed
            && !std::mem::replace(&mut self.commit_failed, true)
        {
            tracing::warn!(%code, "offsets not committed; trying again");
        }
    }

    /// Whether the brokers have all offsets that were sent to them.
    fn is_confirmed(&self) -> bool {
        self.owned.iter().all(|owned| owned.sent == owned.confirmed)
    }

    /// Commits what the brokers have not confirmed.
    fn commit_again(&mut self) {
        let mut offsets = TopicPartitionList::new();
        for owned in self.owned.iter().filter(|owned| owned.sent != owned.confirmed) {
            if let Some(offset) = owned.sent
                && let Err(error) = add(&mut offsets, &owned.position, offset)
            {
                tracing::error!(%error, "an offset cannot be committed");
            }
        }
        if offsets.count() == 0 {
            self.commit_failed = false;
        } else if self.consumer.assignment_lost() {
            // They are their next owner's to commit.
        } else if let Err(error) = self.commits.commit(&offsets) {
            tracing::debug!(%error, "offsets not committed");
        }
    }

    /// Tells the observer what has changed.
    fn report(&mut self) {
        let now = Reported {
            no_partitions: !self.joined || self.owned.iter().any(|owned| !owned.is_read),
            rebuilding: self.owned.iter().any(|owned| owned.rebuilding),
            commit_failed: self.commit_failed,
        };
        let before = std::mem::replace(&mut self.reported, now);
        for (condition, part, before, now) in [
            (Condition::NoPartitions, "", before.no_partitions, now.no_partitions),
            (Condition::Rebuilding, "", before.rebuilding, now.rebuilding),
            // Of its own, since a commit that is accepted here may still be refused there.
            (Condition::Commit, "brokers", before.commit_failed, now.commit_failed),
        ] {
            if before != now {
                self.observer.condition(condition, part, now);
            }
        }
    }

    fn set_paused(&mut self, paused: bool) -> Result<(), SourceError> {
        if self.paused != paused {
            let owned = self.consumer.assignment().map_err(|error| self.unavailable(&error))?;
            let done = if paused { self.consumer.pause(&owned) } else { self.consumer.resume(&owned) };
            done.map_err(|error| self.unavailable(&error))?;
            self.paused = paused;
        }
        Ok(())
    }

    /// Waits for the answers to the last commits, at most for [`CONFIRM_WAIT`]. Whether they have come.
    fn confirm(&mut self) -> bool {
        const SLICES: u32 = 20;
        for _ in 0..SLICES {
            if self.commits.outstanding() == 0 {
                return true;
            }
            if let Some(answer) = self.commits.answer(CONFIRM_WAIT / SLICES) {
                self.note_commit(answer);
            }
        }
        tracing::warn!("the last offsets were not confirmed; messages may be read again");
        false
    }

    /// Whether assignments are changed by differences (cooperative rebalancing), not replaced.
    fn is_incremental(&self) -> bool {
        matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::Cooperative)
    }

    /// The error with what librdkafka said last, which often is the cause.
    fn unavailable(&self, error: &KafkaError) -> SourceError {
        SourceError::Unavailable(self.consumer.context().told(&error.to_string()))
    }
}

impl Owned {
    fn new(position: Position) -> Self {
        Self {
            position,
            next: 0,
            live_from: 0,
            is_read: false,
            asked: None,
            rebuilding: false,
            idle: 0,
            gap: false,
            sent: None,
            confirmed: None,
        }
    }

    fn is(&self, topic: &str, partition: i32) -> bool {
        self.position.partition == partition && *self.position.topic == *topic
    }

    /// What is to be looked up for it. An older answer is not taken any more.
    fn want(&mut self, generation: &mut u64, stalled: Option<Left>) -> Wanted {
        *generation += 1;
        self.asked = Some(*generation);
        let Position { topic, partition, .. } = &self.position;
        Wanted { topic: Arc::clone(topic), partition: *partition, generation: *generation, stalled }
    }

    /// Goes on where `found` says. Returns the gap, if there is one.
    fn begin(&mut self, found: &Found) -> Option<OffsetGap> {
        let Found { left, log, resume, .. } = found;
        self.position.topic_id = log.topic_id;
        self.next = resume.from;
        self.live_from = resume.live_from;
        self.rebuilding = resume.from < resume.live_from;
        self.is_read = true;
        self.asked = None;
        self.idle = 0;
        self.gap |= resume.gap.is_some();
        // What was committed of a log that is gone says nothing about this one.
        (self.sent, self.confirmed) = (None, None);
        let Position { topic, partition, .. } = &self.position;
        if resume.gap.is_none() {
            let (committed, from) = (left, resume.from);
            tracing::info!(topic = &**topic, partition, committed, from, end = log.high, "partition taken over");
        }
        Some(OffsetGap {
            kind: resume.gap?,
            topic: Arc::clone(topic),
            partition: *partition,
            expected: left.unwrap_or(resume.from),
            resumed: resume.from,
            end: log.high,
        })
    }
}

impl Source for KafkaSource {
    fn poll(
        &mut self,
        max: usize,
        timeout: Duration,
        take: &mut dyn FnMut(Message<'_>),
    ) -> Result<Polled, SourceError> {
        self.take_commits();
        if let Some(snapshot) = self.consumer.context().take_snapshot() {
            self.look_at(&snapshot);
        }
        self.take_answers()?;
        self.report();
        self.set_paused(max == 0)?;
        let (mut count, mut bytes) = (0, 0);
        if max > 0
            && let Some(stray) = self.stray.take()
        {
            hand_over(&mut self.owned, &stray, take);
            count = 1;
        }
        while count < max.max(1) && bytes < POLL_BYTES_MAX {
            let wait = if count == 0 { timeout } else { Duration::ZERO };
            match self.consumer.poll(wait) {
                Some(Ok(message)) if max == 0 => {
                    self.stray = Some(message.detach());
                    break;
                }
                Some(Ok(message)) => {
                    hand_over(&mut self.owned, &message, take);
                    count += 1;
                    bytes += message.payload_len();
                }
                Some(Err(error)) => {
                    if is_final(&error) {
                        return Err(self.unavailable(&error));
                    }
                    if let KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) = error {
                        self.looking_for_stalled = STALLED_INTERVALS;
                    }
                    // Of anything else the client tries again by itself, and its log has told why.
                    tracing::debug!(%error, "kafka");
                    break;
                }
                None => break,
            }
        }
        match self.consumer.context().take_rebalance() {
            Some(Rebalance::Assigned(partitions)) => self.accept(&partitions)?,
            Some(Rebalance::Revoked(partitions)) => {
                let names = partitions.elements().iter().map(|e| (e.topic().into(), e.partition())).collect();
                self.leaving = Some(partitions);
                return Ok(Polled::Revoked(names));
            }
            Some(Rebalance::Lost(partitions)) => {
                tracing::warn!("the group gave our partitions to others; what was not committed is theirs to do");
                self.leaving = Some(partitions);
                self.joined = false;
                self.report();
                return Ok(Polled::Lost);
            }
            None => {}
        }
        self.report();
        Ok(Polled::Messages(count))
    }

    fn commit(&mut self, checkpoint: &Checkpoint, letters: &[DeadLetter]) -> Result<(), SourceError> {
        self.dead_letters.park(letters);
        let mut offsets = TopicPartitionList::with_capacity(checkpoint.next.len());
        for next in &checkpoint.next {
            let Some(owned) = self.owned.iter_mut().find(|owned| owned.is(&next.topic, next.partition)) else {
                continue;
            };
            // Of a log that has lost its end or was replaced, and is being read anew.
            if next.offset > owned.next || is_other(next.topic_id, owned.position.topic_id) {
                continue;
            }
            owned.sent = Some(next.offset);
            add(&mut offsets, &owned.position, next.offset).map_err(misconfigured)?;
        }
        // A commit that comes late, under a membership that has ended, fences a static member for good.
        if offsets.count() == 0 || self.consumer.assignment_lost() {
            return Ok(());
        }
        // Not waited for: that would take most of a minute without a broker. `take_commits` sees what comes of it.
        self.commits
            .commit(&offsets)
            .map_err(|code| SourceError::Unavailable(self.consumer.context().told(&code.to_string())))
    }

    fn release(&mut self) -> Result<(), SourceError> {
        let Some(leaving) = self.leaving.take() else { return Ok(()) };
        // The next owner of the partitions must find what was committed. What was lost is theirs already.
        if !self.consumer.assignment_lost() {
            self.confirm();
        }
        let mut read = TopicPartitionList::new();
        for element in leaving.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let Some(at) = self.owned.iter().position(|owned| owned.is(topic, partition)) else { continue };
            let owned = self.owned.swap_remove(at);
            if owned.is_read {
                read.add_partition(topic, partition);
            }
            self.lookup.forget(&owned.position.topic, partition);
            if owned.gap {
                self.observer.condition(Condition::OffsetGap, &part(topic, partition), false);
            }
            tracing::info!(topic, partition, "partition released");
        }
        if let Some(stray) = &self.stray
            && leaving.find_partition(stray.topic(), stray.partition()).is_some()
        {
            self.stray = None;
        }
        let done =
            if self.is_incremental() { self.consumer.incremental_unassign(&read) } else { self.consumer.unassign() };
        done.map_err(|error| self.unavailable(&error))?;
        if self.owned.is_empty() {
            self.commit_failed = false;
        }
        self.report();
        Ok(())
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        // Closing the consumer revokes its partitions once more, with nobody left to serve that.
        self.consumer.context().closing.store(true, Ordering::Relaxed);
        self.dead_letters.stop();
        if !self.confirm() {
            // Closing waits for the answer to the last commit, without a broker for a minute. The process ends anyway.
            std::mem::forget(self.closer.0.take());
        }
    }
}

fn hand_over(owned: &mut [Owned], message: &impl rdkafka::Message, take: &mut dyn FnMut(Message<'_>)) {
    let mut candidates = owned.iter_mut().filter(|owned| owned.is(message.topic(), message.partition()));
    // Not ours any more: its next owner reads it.
    let Some(owned) = candidates.next().filter(|owned| owned.is_read) else { return };
    owned.position.offset = message.offset();
    owned.next = message.offset() + 1;
    let replayed = message.offset() < owned.live_from;
    if owned.rebuilding {
        owned.rebuilding = owned.next < owned.live_from;
    }
    take(Message {
        position: &owned.position,
        key: Some(message.key().unwrap_or_default()),
        payload: message.payload().unwrap_or_default(),
        logged_at: log_time(message.timestamp()),
        replayed,
    });
}

/// Adds the offset to be committed, and of which topic it is.
fn add(offsets: &mut TopicPartitionList, position: &Position, offset: i64) -> KafkaResult<()> {
    let mut element = offsets.add_partition(&position.topic, position.partition);
    element.set_offset(Offset::Offset(offset))?;
    element.set_metadata(lookup::metadata(position.topic_id));
    Ok(())
}

/// A partition's name in reports.
fn part(topic: &str, partition: i32) -> String {
    format!("{topic}/{partition}")
}

/// The record's timestamp; negative is Kafka's "none".
fn log_time(timestamp: rdkafka::Timestamp) -> Option<LogTime> {
    let (millis, kind) = match timestamp {
        rdkafka::Timestamp::NotAvailable => return None,
        rdkafka::Timestamp::CreateTime(millis) => (millis, LogTimeKind::Create),
        rdkafka::Timestamp::LogAppendTime(millis) => (millis, LogTimeKind::Append),
    };
    (millis >= 0).then_some(LogTime { millis, kind })
}

/// Whether waiting cannot help. A topic that we may not read any more is reported, and the others go on.
fn is_final(error: &KafkaError) -> bool {
    match error {
        KafkaError::MessageConsumptionFatal(_) => true,
        KafkaError::MessageConsumption(code) => matches!(
            code,
            RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::Fatal
        ),
        _ => false,
    }
}

fn misconfigured(error: KafkaError) -> SourceError {
    let reason = match error {
        // The reason repeats the value, which may be a secret.
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_INVALID, _, key, _) => {
            format!("source.kafka.properties, `{key}`: librdkafka does not take its value")
        }
        KafkaError::ClientConfig(_, reason, key, _) => format!("source.kafka.properties, `{key}`: {reason}"),
        other => other.to_string(),
    };
    SourceError::Misconfigured(reason)
}

/// Asks for every topic, so that a wrong name, address or password is told at once and clearly. Returns the number of
/// their partitions.
fn check_topics(consumer: &BaseConsumer<Member>, settings: &KafkaSettings) -> Result<u32, SourceError> {
    let mut partitions = 0;
    if settings.topics.is_empty() {
        return Err(SourceError::Misconfigured("source.kafka.topics is empty; name at least one topic".to_owned()));
    }
    for topic in &settings.topics {
        let metadata = ask(consumer, &topic.topic, &settings.brokers)?;
        let found = metadata.topics().iter().find(|t| t.name() == topic.topic);
        partitions += found.map_or(0, |topic| topic.partitions().len() as u32);
        let error = found.and_then(MetadataTopic::error);
        match error.map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Err(SourceError::Unavailable(format!(
                    "Kafka at {} has no topic `{}`; create it or correct source.kafka.topics",
                    settings.brokers, topic.topic
                )));
            }
            Some(code) => {
                return Err(SourceError::Unavailable(format!("Kafka refuses topic `{}`: {code}", topic.topic)));
            }
        }
    }
    Ok(partitions)
}

/// Metadata of `topic`, or why there is none: a refused login is told without waiting for the whole time.
fn ask(consumer: &BaseConsumer<Member>, topic: &str, brokers: &str) -> Result<Metadata, SourceError> {
    let slice = Duration::from_secs(1);
    let mut waited = Duration::ZERO;
    loop {
        match consumer.fetch_metadata(Some(topic), slice) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => {
                // Errors, with their reasons, come by polling, behind log lines and statistics.
                while consumer.poll(Duration::from_millis(50)).is_some() {}
                waited += slice;
                let context = consumer.context();
                let refused = context.refused.load(Ordering::Relaxed);
                if refused || waited >= ANSWER_WAIT {
                    let what = if refused {
                        "does not let us in (source.kafka.properties)"
                    } else {
                        "does not answer (source.kafka.brokers)"
                    };
                    let told = context.told(&error.to_string());
                    return Err(SourceError::Unavailable(format!("Kafka at {brokers} {what}: {told}")));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_time_names_the_clock_and_is_never_negative() {
        let of = |millis, kind| Some(LogTime { millis, kind });
        assert_eq!(log_time(rdkafka::Timestamp::LogAppendTime(7)), of(7, LogTimeKind::Append));
        assert_eq!(log_time(rdkafka::Timestamp::CreateTime(7)), of(7, LogTimeKind::Create));
        assert_eq!(log_time(rdkafka::Timestamp::CreateTime(-1)), None);
        assert_eq!(log_time(rdkafka::Timestamp::NotAvailable), None);
    }
}
