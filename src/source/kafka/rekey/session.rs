//! Reads, forwards and commits until the first failure.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use smallvec::SmallVec;

use super::super::KafkaSource;
use super::super::connect::misconfigured;
use super::super::lookup::add;
use super::super::member::Role;
use super::super::origin::headers;
use super::super::own_topic::Results;
use super::super::owned::part;
use super::super::settings::{ANSWER_WAIT, KafkaSettings};
use super::super::state_log::log_of_client;
use super::refused::{FailedTransaction, Refused};
use crate::checkpoint::{Checkpoint, Position};
use crate::port::{Clock, Condition, Message, Polled, Source as _, SourceError, SourceObserver, Splitter};

/// After this time without a failure, the back-off of restarts is reset, and the forwarder counts as working.
pub(super) const RECOVERED_MS: i64 = 10_000;
/// Name of the forwarder in reports.
pub(super) const PART: &str = "rekey";
/// Age at which a transaction is committed. Its copies can be read from then on.
const TRANSACTION_AGE_MS: i64 = 100;
/// Attempts of a request for a transaction, and time limit of each.
const ATTEMPTS_MAX: u32 = 10;
const ATTEMPT_WAIT: Duration = Duration::from_secs(1);
/// Number of messages at which it is committed earlier.
const MESSAGES_MAX: usize = 20_000;
/// Time after which the brokers abort the transaction of a member that has ended. Until then, readers of the partitions
/// do not get later copies.
const TRANSACTION_MS: &str = "10000";
/// Time limit for the brokers to acknowledge a copy. At most the time limit of the transaction.
const ACKNOWLEDGE_WAIT_MS: &str = "8000";
/// Size of the client's queue, KiB.
const QUEUE_KB: &str = "262144";
/// Maximum number of messages per poll, and time that a poll waits for the first.
const POLL_MESSAGES_MAX: usize = 1_000;
const POLL_WAIT: Duration = Duration::from_millis(100);
/// Age of a failed transaction from which, and size of the copies of a message from which, the message may be the reason.
const SLOW_MS: i64 = 5_000;
const LARGE_BYTES: usize = 8 << 20;
/// Time to wait for room in the client's queue.
const QUEUE_WAIT: Duration = Duration::from_millis(100);
/// Maximum size of the payload of a message that is too large to be forwarded. Its dead letter has this part, with bearer
/// tokens replaced.
const CUT_BYTES: usize = 512;

/// The producer, and the open transaction.
pub(super) struct Transactions {
    producer: BaseProducer<Results<usize>>,
    topic: String,
    group: String,
    /// Number of partitions of the topic.
    partitions: usize,
    one_by_one: bool,
    clock: Arc<dyn Clock>,
    open: Option<Open>,
    /// Why the open transaction cannot be completed.
    failed: Option<KafkaError>,
}

struct Open {
    /// Time of its first message, wall clock.
    since: i64,
    /// The offsets after its messages.
    checkpoint: Checkpoint,
    messages: usize,
    /// Size of all copies.
    bytes: usize,
    /// Size at which it is committed.
    bytes_max: usize,
    /// The message with the largest copies, and their size.
    largest: Option<(Position, usize)>,
    /// Original position of each copy, in the order in which they were sent.
    copies: Vec<Position>,
}

impl Transactions {
    /// Ends the transaction of an earlier producer with the same id.
    pub(super) fn open(
        settings: &KafkaSettings,
        transactional_id: &str,
        one_by_one: bool,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SourceError> {
        let topic = settings.rekeyed();
        let mut config = settings.client_config()?;
        if config.get("compression.type").is_none() {
            config.set("compression.type", "zstd");
        }
        config
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", TRANSACTION_MS)
            .set("message.timeout.ms", ACKNOWLEDGE_WAIT_MS)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // The limit of the topic applies.
            .set("message.max.bytes", "1000000000")
            .set("queue.buffering.max.kbytes", QUEUE_KB);
        if one_by_one {
            config.set("batch.num.messages", "1");
        }
        let producer: BaseProducer<Results<usize>> =
            BaseProducer::from_config_and_context(&config, Results::new(log_of_client)).map_err(misconfigured)?;
        let unavailable = |error: KafkaError| SourceError::Unavailable(format!("topic `{topic}`: {error}"));
        producer.init_transactions(ANSWER_WAIT).map_err(unavailable)?;
        let metadata = producer.client().fetch_metadata(Some(&topic), ANSWER_WAIT).map_err(unavailable)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        let partitions = found.map_or(0, |topic| topic.partitions().len());
        if partitions == 0 {
            return Err(SourceError::Unavailable(format!("topic `{topic}` does not exist")));
        }
        let group = settings.group_id.clone();
        Ok(Self { producer, topic, group, partitions, one_by_one, clock, open: None, failed: None })
    }

    /// Sends the copies of a message in the open transaction, or in a new one.
    fn forward(&mut self, message: &Message<'_>, splitter: &mut dyn Splitter, refused: &Refused) {
        if self.failed.is_none()
            && let Err(error) = self.try_forward(message, splitter, refused)
        {
            self.failed = Some(error);
        }
    }

    fn try_forward(
        &mut self,
        message: &Message<'_>,
        splitter: &mut dyn Splitter,
        refused: &Refused,
    ) -> KafkaResult<()> {
        let Self { producer, topic, group, partitions, clock, open, .. } = self;
        if open.is_none() {
            producer.begin_transaction()?;
        }
        let open = open.get_or_insert_with(|| Open {
            since: clock.now_millis(),
            checkpoint: Checkpoint::default(),
            messages: 0,
            bytes: 0,
            bytes_max: refused.bytes_max(),
            largest: None,
            copies: Vec::new(),
        });
        let &Message { position, payload, logged_at, .. } = message;
        let found = splitter.split(&position.topic, payload, *partitions);
        // A message without an event is counted or parked by the partition that it is sent to.
        let any = [(position.partition.unsigned_abs() as usize % *partitions) as i32];
        let copies = if found.is_empty() { &any } else { found };
        let cut = refused.contains(position);
        let copies = SmallVec::<[i32; 4]>::from_slice(if cut { &copies[..1] } else { copies });
        let mut sent = Cow::Borrowed(payload);
        if cut {
            // Before the cut, because a cut token is not recognised.
            let mut clean = splitter.redact(payload);
            clean.truncate(CUT_BYTES);
            sent = Cow::Owned(clean);
        }
        let headers = headers(group, position, logged_at, &copies, *partitions, cut.then_some(payload.len()));
        let bytes = sent.len() * copies.len();
        if open.largest.as_ref().is_none_or(|(_, largest)| bytes > *largest) {
            open.largest = Some((position.clone(), bytes));
        }
        for partition in copies {
            let mut record: BaseRecord<'_, (), [u8], usize> =
                BaseRecord::with_opaque_to(topic, open.copies.len()).partition(partition).payload(&sent);
            record = record.headers(headers.clone());
            while let Err((error, refused)) = producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(error);
                }
                // Copies leave the queue when they are acknowledged, or after `message.timeout.ms`.
                producer.poll(QUEUE_WAIT);
                record = refused;
            }
            open.copies.push(position.clone());
        }
        open.bytes += bytes;
        open.checkpoint.advance(position);
        open.messages += 1;
        Ok(())
    }

    /// Whether the open transaction takes no further message.
    fn is_full(&self) -> bool {
        self.failed.is_some()
            || self.open.as_ref().is_some_and(|open| open.messages >= MESSAGES_MAX || open.bytes >= open.bytes_max)
    }

    /// Time until the open transaction is due.
    fn due_in(&self) -> Option<Duration> {
        let open = self.open.as_ref()?;
        let age = self.clock.now_millis() - open.since;
        // A clock that was set back delays nothing.
        let is_due = !(0..TRANSACTION_AGE_MS).contains(&age) || self.is_full();
        Some(if is_due { Duration::ZERO } else { Duration::from_millis((TRANSACTION_AGE_MS - age) as u64) })
    }

    /// Commits the open transaction with the offsets of its messages, which `source` has read.
    fn commit(&mut self, source: &mut KafkaSource, refused: &mut Refused) -> KafkaResult<()> {
        let failed = self.failed.take();
        let Some(open) = self.open.take() else { return failed.map_or(Ok(()), Err) };
        let flushed = self.producer.flush(ANSWER_WAIT);
        let results = self.producer.context().take();
        let sent = failed.map_or(Ok(()), Err);
        let done = self.complete(source, &open, (sent, flushed), &results);
        if let Err(error) = &done {
            let too_large =
                results.iter().find_map(|(copy, result)| is_too_large(result).then(|| open.copies.get(*copy)));
            match too_large.flatten() {
                Some(position) => self.note_refused(position, refused),
                None => self.note_failed(&open, &results, refused),
            }
            tracing::debug!(%error, messages = open.messages, bytes = open.bytes, "a transaction has failed");
        } else {
            refused.succeeded(&open.copies);
        }
        done
    }

    /// Whether the copies were passed to the client, and to the brokers. `results`: the answers.
    fn complete(
        &self,
        source: &mut KafkaSource,
        open: &Open,
        (sent, flushed): (KafkaResult<()>, KafkaResult<()>),
        results: &[(usize, KafkaResult<()>)],
    ) -> KafkaResult<()> {
        // A refused copy fails the transaction, so that later calls fail with another reason.
        let refused = |too_large| {
            let mut results =
                results.iter().map(|(_, result)| result).filter(move |result| is_too_large(result) == too_large);
            results.find_map(|result| result.clone().err())
        };
        refused(true).map_or(Ok(()), Err)?;
        sent?;
        refused(false).map_or(flushed, Err)?;
        source.commit_in(&open.checkpoint, &self.producer)?;
        retried(&self.producer, || self.producer.commit_transaction(ATTEMPT_WAIT))
    }

    /// Notes the failure of a transaction that may be too large for the brokers.
    fn note_failed(&self, open: &Open, results: &[(usize, KafkaResult<()>)], refused: &mut Refused) {
        let Some((position, bytes)) = &open.largest else { return };
        // A slow transaction with some accepted copies of a large message indicates the size. Other failures end earlier, or
        // no copy is accepted.
        let is_slow = self.clock.now_millis() - open.since >= SLOW_MS;
        let is_copy = |copy: usize| open.copies.get(copy) == Some(position);
        let is_accepted = results.iter().any(|(copy, result)| result.is_ok() && is_copy(*copy));
        let by_size = is_slow && is_accepted && *bytes >= LARGE_BYTES;
        if refused.failed(&FailedTransaction { bytes: open.bytes, largest: position }, by_size) {
            let (to, topic) = (&*self.topic, &*position.topic);
            let Position { partition, offset, .. } = position;
            tracing::error!(
                to,
                topic,
                partition,
                offset,
                bytes,
                "the brokers do not accept all copies of a message in the time of a transaction; it becomes a dead letter"
            );
        }
    }

    fn note_refused(&self, position: &Position, refused: &mut Refused) {
        let Position { topic, partition, offset, .. } = position;
        let to = &*self.topic;
        if self.one_by_one {
            refused.insert(position);
            tracing::error!(
                to,
                topic = &**topic,
                partition,
                offset,
                "a message is larger than max.message.bytes of the topic of forwarded messages, and becomes a dead letter"
            );
        } else {
            refused.one_by_one = true;
            tracing::error!(
                to,
                topic = &**topic,
                partition,
                offset,
                "the topic of forwarded messages refuses a batch; from now on each message is sent alone, which is slow. \
                 Raise its max.message.bytes (`tokenwarden topics check`) and restart"
            );
        }
    }

    /// Aborts the open transaction: its copies are never read, and its messages are forwarded again.
    fn abort(&mut self) -> KafkaResult<()> {
        (self.open, self.failed) = (None, None);
        let aborted = retried(&self.producer, || self.producer.abort_transaction(ATTEMPT_WAIT));
        self.producer.context().take();
        aborted
    }
}

fn is_too_large(result: &KafkaResult<()>) -> bool {
    let code = result.as_ref().err().and_then(KafkaError::rdkafka_error_code);
    code == Some(RDKafkaErrorCode::MessageSizeTooLarge)
}

/// Repeats a call that may succeed then. Between the calls, the results of copies are taken, for which aborting waits.
fn retried(producer: &BaseProducer<Results<usize>>, call: impl Fn() -> KafkaResult<()>) -> KafkaResult<()> {
    let mut attempt = 1;
    loop {
        match call() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && attempt < ATTEMPTS_MAX => {
                attempt += 1;
                producer.poll(Duration::ZERO);
            }
            done => return done,
        }
    }
}

/// A member of the group with its producer.
pub(super) struct Session {
    // Dropped before the source, so that the group is left after the last transaction.
    transactions: Transactions,
    source: KafkaSource,
    observer: Arc<dyn SourceObserver>,
    clock: Arc<dyn Clock>,
}

impl Session {
    pub(super) fn open(
        settings: &KafkaSettings,
        transactions: Transactions,
        observer: Arc<dyn SourceObserver>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SourceError> {
        let source = KafkaSource::join(&settings.of_forwarder(), Role::Forwarder, Arc::clone(&observer), None, None)?;
        Ok(Self { transactions, source, observer, clock })
    }

    /// Forwards until a stop or a failure.
    pub(super) fn run(
        mut self,
        splitter: &mut dyn Splitter,
        refused: &mut Refused,
        stop: &AtomicBool,
    ) -> Result<(), SourceError> {
        let done = self.forward(splitter, refused, stop);
        if done.is_err() && self.transactions.open.is_some() {
            // If this fails too, the next producer with the same id or the brokers end the transaction.
            let _ = self.transactions.abort();
        }
        done
    }

    fn forward(
        &mut self,
        splitter: &mut dyn Splitter,
        refused: &mut Refused,
        stop: &AtomicBool,
    ) -> Result<(), SourceError> {
        let began = self.clock.now_millis();
        let mut is_reported = true;
        while !stop.load(Ordering::Relaxed) {
            let Self { transactions, source, .. } = self;
            let wait = transactions.due_in().unwrap_or(POLL_WAIT);
            let polled = source.poll_while(POLL_MESSAGES_MAX, wait, &mut |message| {
                transactions.forward(&message, splitter, refused);
                if transactions.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            match polled {
                Polled::Messages(_) | Polled::End => {
                    if self.transactions.failed.is_some() || self.transactions.due_in() == Some(Duration::ZERO) {
                        self.commit(refused)?;
                        self.recovered(&mut is_reported);
                    } else if is_reported && self.clock.now_millis() - began >= RECOVERED_MS {
                        self.recovered(&mut is_reported);
                    }
                }
                Polled::Revoked(_) => {
                    self.commit(refused)?;
                    self.source.release()?;
                }
                Polled::Lost => {
                    if self.transactions.open.is_some() {
                        self.transactions.abort().map_err(|error| self.failed(&error))?;
                    }
                    self.source.release()?;
                }
            }
        }
        self.commit(refused)
    }

    fn commit(&mut self, refused: &mut Refused) -> Result<(), SourceError> {
        let Self { transactions, source, .. } = self;
        if let Err(error) = transactions.commit(source, refused) {
            let _ = transactions.abort();
            return Err(self.failed(&error));
        }
        Ok(())
    }

    /// Reports once that messages are forwarded.
    fn recovered(&self, is_reported: &mut bool) {
        if std::mem::take(is_reported) {
            self.observer.condition(Condition::Forwarder, PART, false);
        }
    }

    fn failed(&self, error: &KafkaError) -> SourceError {
        SourceError::Unavailable(format!("topic `{}`: {error}", self.transactions.topic))
    }
}

impl KafkaSource {
    /// Adds the offsets of `checkpoint` to the transaction. The group coordinator refuses them if this member has missed a
    /// rebalance, because other members then own its partitions.
    fn commit_in(&mut self, checkpoint: &Checkpoint, producer: &BaseProducer<Results<usize>>) -> KafkaResult<()> {
        let mut offsets = TopicPartitionList::with_capacity(checkpoint.next.len());
        for next in &checkpoint.next {
            add(&mut offsets, next, next.offset)?;
        }
        let member = self.consumer.group_metadata();
        let member = member.ok_or(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownMemberId))?;
        retried(producer, || producer.send_offsets_to_transaction(&offsets, &member, ATTEMPT_WAIT))?;
        for next in &checkpoint.next {
            let Some(owned) = self.owned.iter_mut().find(|owned| owned.is(&next.topic, next.partition)) else {
                continue;
            };
            if std::mem::take(&mut owned.gap) {
                self.observer.condition(Condition::OffsetGap, &part(&next.topic, next.partition), false);
            }
        }
        Ok(())
    }
}
