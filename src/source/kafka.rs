//! Messages from Kafka: a member of a consumer group that commits only processed messages.
//!
//! The callback records a rebalance, and the next poll processes it, so that a partition is released only after its
//! work has been committed. A separate thread looks up the start offset of a new partition, and reading begins with its
//! answer. The polling thread never waits for a broker, except at most 2 s for the last commit before partitions are
//! released.

mod alert_topic;
mod answer;
mod assignment;
mod check;
mod commit;
mod connect;
mod events;
mod letters;
mod lookup;
mod member;
mod membership;
mod native;
mod origin;
mod own_topic;
mod owned;
mod record_topic;
pub mod rekey;
mod restore;
mod results;
mod resume;
mod sample;
mod settings;
mod sightings;
mod state;
mod state_log;

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message as _, OwnedMessage};

pub use self::alert_topic::AlertTopic;
pub use self::check::{Finding, Level, check, create};
use self::connect::{check_topics, is_final, misconfigured};
pub use self::events::EventTopic;
use self::letters::DeadLetterTopic;
use self::lookup::{Lookup, Policy, add};
use self::member::{Member, Rebalance, Role};
use self::native::Commits;
use self::origin::Origins;
use self::owned::{Owned, hand_over, part};
pub use self::record_topic::RecordTopic;
use self::results::{ResultKind, ResultTopic};
use self::resume::First;
pub(crate) use self::sample::sample;
pub use self::settings::KafkaSettings;
pub use self::settings::StateTopicUse;
pub use self::settings::Topic;
pub use self::state::{Permitted, StateTopic};
use crate::checkpoint::{Checkpoint, DeadLetter, Position};
use crate::port::{Condition, Message, Polled, ResultRecord, Source, SourceError, SourceObserver, StateRestorer};

/// Bytes of messages after which a poll ends, to bound an epoch of large messages.
const POLL_BYTES_MAX: usize = 8 << 20;
/// Time limit for leaving the group at the end.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// Interval of librdkafka's statistics, and of retries of failed commits.
const STATISTICS_INTERVAL_MS: &str = "2000";
/// After an offset out of range, the number of statistics in which its partition is searched.
const STALLED_INTERVALS: u32 = 5;
/// Maximum delay until new partitions and recreated topics are noticed.
const METADATA_INTERVAL_MS: &str = "30000";

/// A member of the consumer group.
pub struct KafkaSource {
    consumer: Arc<BaseConsumer<Member>>,
    commits: Commits,
    lookup: Lookup,
    /// `None`: states are not restored.
    restorer: Option<Arc<dyn StateRestorer>>,
    /// `None`: the member scores nothing.
    dead_letters: Option<DeadLetterTopic>,
    /// `None`: no message was forwarded.
    origins: Option<Origins>,
    /// Topics to which results are sent.
    results: Vec<ResultTopic>,
    observer: Arc<dyn SourceObserver>,
    topics: Vec<Arc<str>>,
    owned: Vec<Owned>,
    /// Generation of the last requested partition.
    generation: u64,
    /// Revoked or lost, but not yet released.
    leaving: Option<TopicPartitionList>,
    paused: bool,
    /// The group has completed an assignment, possibly of no partitions.
    joined: bool,
    /// Number of further statistics in which to search for partitions that librdkafka stopped reading because their
    /// offsets are no longer in the log.
    looking_for_stalled: u32,
    commit_failed: bool,
    /// A message that arrived although the partitions are paused; returned first.
    stray: Option<OwnedMessage>,
    /// Number of statistics processed.
    statistics_seen: u32,
    reported: Reported,
    /// Number of partitions of all topics at the start.
    partitions: u32,
    /// Dropped last, after all other references to the consumer.
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

/// The last report to the observer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reported {
    no_partitions: bool,
    rebuilding: bool,
    commit_failed: bool,
}

impl KafkaSource {
    /// Joins the group. Fails if no broker answers, the login is refused, or a topic does not exist.
    pub fn open(settings: &KafkaSettings, observer: Arc<dyn SourceObserver>) -> Result<Self, SourceError> {
        Self::restoring(settings, observer, None, None)
    }

    /// As [`Self::open`]. `restorer` restores the states of partitions before they are read. Snapshots in `state` are
    /// completed only while this is a member of the group.
    pub fn restoring(
        settings: &KafkaSettings,
        observer: Arc<dyn SourceObserver>,
        restorer: Option<Arc<dyn StateRestorer>>,
        state: Option<&StateTopic>,
    ) -> Result<Self, SourceError> {
        Self::join(settings, Role::Scorer, observer, restorer, state)
    }

    fn join(
        settings: &KafkaSettings,
        role: Role,
        observer: Arc<dyn SourceObserver>,
        restorer: Option<Arc<dyn StateRestorer>>,
        state: Option<&StateTopic>,
    ) -> Result<Self, SourceError> {
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
        if settings.rekey || role == Role::Forwarder {
            // Copies and offsets of unfinished transactions are not read.
            config.set("isolation.level", "read_committed");
        }
        let first = match config.get("auto.offset.reset") {
            // All messages of the topic of forwarded messages are ours.
            Some("latest" | "largest" | "end") if !settings.rekey => First::Latest,
            _ => First::Earliest,
        };
        // Otherwise librdkafka silently continues at the earliest or latest message if an offset is out of range.
        config.set("auto.offset.reset", "error");
        // Offsets are committed only by us, after all work for their messages is done.
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
        let member = Member::reporting(Arc::clone(&observer), role);
        let consumer = Arc::new(BaseConsumer::from_config_and_context(&config, member).map_err(misconfigured)?);
        if let Some(state) = state {
            state.bind(&consumer);
        }
        let partitions = check_topics(&consumer, settings)?;
        let is_scorer = role == Role::Scorer;
        let dead_letters = is_scorer.then(|| DeadLetterTopic::open(settings, Arc::clone(&observer))).transpose()?;
        let kinds = [
            settings.verdicts_topic.then_some(ResultKind::Verdicts),
            settings.sightings_topic.then_some(ResultKind::Sightings),
        ];
        let open = |kind| ResultTopic::open(kind, settings, Arc::clone(&observer));
        let results = kinds.into_iter().flatten().map(open).collect::<Result<_, _>>()?;
        let policy = Policy { remember_messages_max: settings.remember_messages_max.into(), first };
        let lookup = Lookup::start(&consumer, policy, restorer.as_ref())
            .map_err(|error| SourceError::Unavailable(format!("cannot start a thread: {error}")))?;
        let commits = Commits::new(Arc::clone(&consumer))
            .ok_or_else(|| SourceError::Unavailable("librdkafka has no memory for a queue".to_owned()))?;
        let topics: Vec<Arc<str>> = settings.scored_topics().into_iter().map(Into::into).collect();
        consumer.subscribe(&topics.iter().map(|topic| &**topic).collect::<Vec<_>>()).map_err(misconfigured)?;
        let closer = Closer(Some(Arc::clone(&consumer)));
        let mut source = Self {
            consumer,
            commits,
            lookup,
            restorer,
            dead_letters,
            origins: settings.rekey.then(|| Origins::new(settings)),
            results,
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
            statistics_seen: 0,
            reported: Reported::default(),
            partitions,
            closer,
        };
        source.report();
        Ok(source)
    }

    /// Number of partitions of all topics when the source was opened, of all members of the group.
    pub(crate) const fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Reports changes to the observer.
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
            // A separate condition, because the broker may refuse a commit that the client accepted.
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

    /// Whether assignments are changed by differences (cooperative rebalancing), not replaced.
    fn is_incremental(&self) -> bool {
        matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::Cooperative)
    }

    /// Sends results to their topic. Without one, they are dropped.
    fn send(&mut self, kind: ResultKind, records: &mut Vec<ResultRecord>) {
        let Some(topic) = self.results.iter_mut().find(|topic| topic.kind() == kind) else { return records.clear() };
        for record in records.drain(..) {
            let Position { topic: name, partition, offset, .. } = record.position.clone();
            let number = topic.queue(record);
            if let Some(owned) = self.owned.iter_mut().find(|owned| owned.is(&name, partition)) {
                owned.unacknowledged.add(kind, number, offset);
            }
        }
        self.send_results();
    }

    /// The error with librdkafka's last log line, which often is the cause.
    fn unavailable(&self, error: &KafkaError) -> SourceError {
        SourceError::Unavailable(self.consumer.context().explained(&error.to_string()))
    }

    /// As [`Source::poll`]. `take` returns whether the poll continues.
    fn poll_while(
        &mut self,
        max: usize,
        timeout: Duration,
        take: &mut dyn FnMut(Message<'_>) -> ControlFlow<()>,
    ) -> Result<Polled, SourceError> {
        self.take_commits();
        self.send_results();
        if let Some(status) = self.consumer.context().take_status() {
            self.look_at(&status);
        }
        self.take_answers()?;
        self.report();
        self.set_paused(max == 0)?;
        let (mut count, mut bytes) = (0, 0);
        let goes_on = Cell::new(true);
        let mut take = |message: Message<'_>| goes_on.set(take(message).is_continue());
        if max > 0
            && let Some(stray) = self.stray.take()
        {
            hand_over(&mut self.owned, self.origins.as_ref(), &stray, &mut take);
            count = 1;
        }
        while goes_on.get() && count < max.max(1) && bytes < POLL_BYTES_MAX {
            let wait = if count == 0 { timeout } else { Duration::ZERO };
            match self.consumer.poll(wait) {
                Some(Ok(message)) if max == 0 => {
                    self.stray = Some(message.detach());
                    break;
                }
                Some(Ok(message)) => {
                    hand_over(&mut self.owned, self.origins.as_ref(), &message, &mut take);
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
                    // The client retries other errors and has logged the reason.
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
                tracing::warn!(
                    "the group assigned our partitions to other members; they process what was not committed"
                );
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
}

impl Source for KafkaSource {
    fn poll(
        &mut self,
        max: usize,
        timeout: Duration,
        take: &mut dyn FnMut(Message<'_>),
    ) -> Result<Polled, SourceError> {
        self.poll_while(max, timeout, &mut |message| {
            take(message);
            ControlFlow::Continue(())
        })
    }

    fn commit(&mut self, checkpoint: &Checkpoint, letters: &[DeadLetter]) -> Result<(), SourceError> {
        if let Some(topic) = &self.dead_letters {
            topic.park(letters);
        }
        let mut offsets = TopicPartitionList::with_capacity(checkpoint.next.len());
        for next in &checkpoint.next {
            let Some(owned) = self.owned.iter_mut().find(|owned| owned.is(&next.topic, next.partition)) else {
                continue;
            };
            // Part of a log that was truncated or replaced, and is being read again.
            if next.offset > owned.next || next.topic_id.is_other_than(owned.position.topic_id) {
                continue;
            }
            let until = owned.unacknowledged.done_before(next.offset);
            owned.held = (until < next.offset).then_some(next.offset);
            if owned.held.is_some() && owned.sent.is_some_and(|sent| sent >= until) {
                continue;
            }
            owned.sent = Some(until);
            add(&mut offsets, &owned.position, until).map_err(misconfigured)?;
        }
        // A late commit under an ended membership permanently fences a static member.
        if offsets.count() == 0 || self.consumer.assignment_lost() {
            return Ok(());
        }
        // Does not wait, because without a broker that takes most of a minute. `take_commits` processes the result.
        self.commits
            .commit(&offsets)
            .map_err(|code| SourceError::Unavailable(self.consumer.context().explained(&code.to_string())))
    }

    fn publish(&mut self, verdicts: &mut Vec<ResultRecord>) {
        self.send(ResultKind::Verdicts, verdicts);
    }

    fn announce(&mut self, sightings: &mut Vec<ResultRecord>) {
        self.send(ResultKind::Sightings, sightings);
    }

    fn has_commits(&self) -> bool {
        true
    }

    fn is_committed(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint.next.iter().all(|next| {
            let mut owned = self.owned.iter().filter(|owned| owned.is(&next.topic, next.partition));
            owned.next().and_then(|owned| owned.confirmed).is_some_and(|confirmed| confirmed >= next.offset)
        })
    }

    fn confirm(&mut self) {
        Self::confirm(self);
    }

    fn release(&mut self) -> Result<(), SourceError> {
        let Some(leaving) = self.leaving.take() else { return Ok(()) };
        // The next owner of the partitions must find the committed offsets. Lost partitions already have a new owner.
        if !self.consumer.assignment_lost() {
            self.confirm();
        }
        let mut read = TopicPartitionList::new();
        for element in leaving.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let Some(at) = self.owned.iter().position(|owned| owned.is(topic, partition)) else { continue };
            let mut owned = self.owned.swap_remove(at);
            owned.rebuilding = false;
            owned.report_rebuild(&*self.observer);
            if owned.is_read {
                read.add_partition(topic, partition);
            }
            self.lookup.forget(&owned.position.topic, partition);
            self.discard_state(topic, partition, owned.ticket);
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
        // Closing the consumer revokes its partitions once more, when no poll follows.
        self.consumer.context().closing.store(true, Ordering::Relaxed);
        if let Some(topic) = &self.dead_letters {
            topic.stop();
        }
        if !self.confirm() {
            // Closing waits up to a minute for the last commit if there is no broker. The process ends anyway.
            std::mem::forget(self.closer.0.take());
        }
    }
}
