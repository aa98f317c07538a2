//! Messages from Kafka: a member of a consumer group that commits only what is done.
//!
//! All calls happen on the thread that polls, rebalances included: a rebalance is noted by the callback and served
//! by the next poll, so that a partition is let go of only after its work has been committed.

mod letters;
mod member;
mod settings;

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::types::RDKafkaConfRes;
use rdkafka::{Offset, TopicPartitionList};

use self::letters::DeadLetterTopic;
use self::member::{Member, Rebalance};
pub use self::settings::{KafkaSettings, Topic};
use crate::checkpoint::{Checkpoint, DeadLetter, LogTime, LogTimeKind, Position};
use crate::port::{Message, Polled, Source, SourceError};

/// How long a broker may take to answer before it counts as absent.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Bytes of messages after which a poll ends, so that large ones do not flood an epoch.
const POLL_BYTES_MAX: usize = 8 << 20;
/// How long the last commit may take to be confirmed, before partitions are let go of and at the end.
const CONFIRM_WAIT: Duration = Duration::from_secs(2);

/// Called now and then with a topic, a partition and how many messages are still to be read in it; `None`: it is not ours.
pub type LagReport = Box<dyn Fn(&str, i32, Option<i64>) + Send + Sync>;

/// A member of the consumer group.
pub struct KafkaSource {
    consumer: Arc<BaseConsumer<Member>>,
    dead_letters: DeadLetterTopic,
    owned: Vec<Owned>,
    /// Revoked or lost, and still to be released.
    leaving: Option<TopicPartitionList>,
    paused: bool,
    /// The last commit made, whose answer nobody waited for.
    unconfirmed: Option<TopicPartitionList>,
    /// Came although the partitions are paused; the first to be handed over.
    stray: Option<OwnedMessage>,
    remember_messages_max: i64,
    /// Of all topics, when it was opened.
    partitions: u32,
}

/// A partition that this member owns.
struct Owned {
    /// Of the message being handed over.
    position: Position,
    /// Messages before this offset are done.
    live_from: i64,
}

impl KafkaSource {
    /// Joins the group. Fails where no broker answers, ours are not let in, or a topic does not exist.
    pub fn open(settings: &KafkaSettings, lag: LagReport) -> Result<Self, SourceError> {
        let mut config = settings.client_config()?;
        config.set("group.id", &settings.group_id);
        for (key, value) in [("auto.offset.reset", "earliest"), ("partition.assignment.strategy", "cooperative-sticky")]
        {
            if config.get(key).is_none() {
                config.set(key, value);
            }
        }
        // Offsets are committed by us alone, and only after everything they stand for is done.
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("statistics.interval.ms", "10000");
        let consumer = BaseConsumer::from_config_and_context(&config, Member::reporting(lag)).map_err(misconfigured)?;
        let partitions = check_topics(&consumer, settings)?;
        let dead_letters = DeadLetterTopic::open(settings)?;
        let topics: Vec<_> = settings.topics.iter().map(|topic| topic.topic.as_str()).collect();
        consumer.subscribe(&topics).map_err(misconfigured)?;
        Ok(Self {
            consumer: Arc::new(consumer),
            dead_letters,
            owned: Vec::new(),
            leaving: None,
            paused: false,
            unconfirmed: None,
            stray: None,
            remember_messages_max: settings.remember_messages_max.into(),
            partitions,
        })
    }

    /// Partitions of all topics together, whoever of the group owns them, as they were when it was opened.
    #[must_use]
    pub const fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Whether the brokers answer, let us in and have the topics; joins no group.
    pub fn probe(settings: &KafkaSettings) -> Result<(), SourceError> {
        let config = settings.client_config()?;
        let consumer = BaseConsumer::from_config_and_context(&config, Member::default()).map_err(misconfigured)?;
        check_topics(&consumer, settings).map(drop)
    }

    /// Starts to read newly assigned partitions, each from far enough back to remember.
    fn assign(&mut self, partitions: &TopicPartitionList) -> Result<(), SourceError> {
        let mut assigned = partitions.clone();
        let committed =
            self.consumer.committed_offsets(assigned.clone(), ANSWER_WAIT).map_err(|error| self.unavailable(&error))?;
        for element in committed.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let mut live_from = 0;
            if let Offset::Offset(offset) = element.offset() {
                let (low, _) = self
                    .consumer
                    .fetch_watermarks(topic, partition, ANSWER_WAIT)
                    .map_err(|error| self.unavailable(&error))?;
                if offset < low {
                    tracing::error!(topic, partition, from = offset, until = low, "messages were deleted unread");
                }
                let from = (offset - self.remember_messages_max).max(low);
                assigned.set_partition_offset(topic, partition, Offset::Offset(from)).map_err(misconfigured)?;
                live_from = offset;
                tracing::info!(topic, partition, committed = offset, from, "partition taken over");
            } else {
                tracing::info!(topic, partition, "partition taken over, nothing committed yet");
            }
            self.owned.retain(|owned| !owned.is(topic, partition));
            let position = Position { topic: topic.into(), partition, offset: live_from };
            self.owned.push(Owned { position, live_from });
        }
        let done = match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_assign(&assigned),
            _ => self.consumer.assign(&assigned),
        };
        done.map_err(|error| self.unavailable(&error))?;
        if self.paused {
            self.consumer.pause(&assigned).map_err(|error| self.unavailable(&error))?;
        }
        Ok(())
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

    /// Waits until the last commit has arrived, by making it once more: a commit's answer can be had only by blocking,
    /// and without a broker that would be for minutes. The thread that then still blocks keeps the consumer from being
    /// closed, which would block too; both end with the process.
    fn confirm(&mut self) {
        let Some(offsets) = self.unconfirmed.take() else { return };
        let consumer = Arc::clone(&self.consumer);
        let (answer, answered) = mpsc::channel();
        std::thread::spawn(move || answer.send(consumer.commit(&offsets, CommitMode::Sync)));
        match answered.recv_timeout(CONFIRM_WAIT) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last offsets were not committed; they will be read again"),
            Err(_) => tracing::warn!("the last offsets were not confirmed; they may be read again"),
        }
    }

    /// The error with what librdkafka said last, which often is the cause.
    fn unavailable(&self, error: &KafkaError) -> SourceError {
        SourceError::Unavailable(self.consumer.context().told(&error.to_string()))
    }
}

impl Source for KafkaSource {
    fn poll(
        &mut self,
        max: usize,
        timeout: Duration,
        take: &mut dyn FnMut(Message<'_>),
    ) -> Result<Polled, SourceError> {
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
                    // The client goes on trying by itself, and its log has told why.
                    tracing::debug!(%error, "kafka");
                    break;
                }
                None => break,
            }
        }
        match self.consumer.context().take_rebalance() {
            Some(Rebalance::Assigned(partitions)) => {
                if let Err(error) = self.assign(&partitions) {
                    tracing::warn!(%error, "partitions not taken over yet; trying again");
                    self.consumer.context().put_back(Rebalance::Assigned(partitions));
                }
            }
            Some(Rebalance::Revoked(partitions)) => {
                let names = partitions.elements().iter().map(|e| (e.topic().into(), e.partition())).collect();
                self.leaving = Some(partitions);
                return Ok(Polled::Revoked(names));
            }
            Some(Rebalance::Lost(partitions)) => {
                tracing::warn!("the group gave our partitions to others; what was not committed is theirs to do");
                self.leaving = Some(partitions);
                return Ok(Polled::Lost);
            }
            None => {}
        }
        Ok(Polled::Messages(count))
    }

    fn commit(&mut self, checkpoint: &Checkpoint, letters: &[DeadLetter]) -> Result<(), SourceError> {
        self.dead_letters.send(letters)?;
        let mut offsets = TopicPartitionList::with_capacity(checkpoint.next.len());
        for next in &checkpoint.next {
            offsets
                .add_partition_offset(&next.topic, next.partition, Offset::Offset(next.offset))
                .map_err(misconfigured)?;
        }
        if checkpoint.next.is_empty() {
            return Ok(());
        }
        // Not waited for: that would take most of a minute without a broker. What fails is in librdkafka's log, and
        // is done by the next commit or read again.
        self.consumer.commit(&offsets, CommitMode::Async).map_err(|error| self.unavailable(&error))?;
        self.unconfirmed = Some(offsets);
        Ok(())
    }

    fn release(&mut self) -> Result<(), SourceError> {
        let Some(leaving) = self.leaving.take() else { return Ok(()) };
        if self.consumer.assignment_lost() {
            // A commit that comes late, under a membership that has ended, fences a static member for good.
            self.unconfirmed = None;
        }
        // Whoever gets the partitions must find what we have committed.
        self.confirm();
        for element in leaving.elements() {
            tracing::info!(topic = element.topic(), partition = element.partition(), "partition released");
            self.owned.retain(|owned| !owned.is(element.topic(), element.partition()));
        }
        if let Some(stray) = &self.stray
            && leaving.find_partition(stray.topic(), stray.partition()).is_some()
        {
            self.stray = None;
        }
        let done = match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_unassign(&leaving),
            _ => self.consumer.unassign(),
        };
        done.map_err(|error| self.unavailable(&error))
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        // Closing the consumer revokes its partitions once more, with nobody left to serve that.
        self.consumer.context().closing.store(true, Ordering::Relaxed);
        self.confirm();
    }
}

impl Owned {
    fn is(&self, topic: &str, partition: i32) -> bool {
        self.position.partition == partition && *self.position.topic == *topic
    }
}

fn hand_over(owned: &mut Vec<Owned>, message: &impl rdkafka::Message, take: &mut dyn FnMut(Message<'_>)) {
    let at = owned.iter().position(|owned| owned.is(message.topic(), message.partition())).unwrap_or_else(|| {
        let position = Position { topic: message.topic().into(), partition: message.partition(), offset: 0 };
        owned.push(Owned { position, live_from: 0 });
        owned.len() - 1
    });
    let Owned { position, live_from } = &mut owned[at];
    position.offset = message.offset();
    take(Message {
        position,
        key: Some(message.key().unwrap_or_default()),
        payload: message.payload().unwrap_or_default(),
        logged_at: log_time(message.timestamp()),
        replayed: message.offset() < *live_from,
    });
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

/// Whether waiting cannot help.
fn is_final(error: &KafkaError) -> bool {
    match error {
        KafkaError::MessageConsumptionFatal(_) => true,
        KafkaError::MessageConsumption(code) => matches!(
            code,
            RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
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
                // Errors, with their reasons, come by polling.
                while consumer.poll(Duration::ZERO).is_some() {}
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
