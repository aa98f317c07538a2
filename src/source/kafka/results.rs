//! Topics of results: verdicts in `<prefix>.verdicts`, with the subject key of the event as key, and appearances in
//! `<prefix>.sightings`, keyed by network.
//!
//! Results are sent at least once. The offset after a message is committed only when the brokers have acknowledged the
//! results of its events ([`Unacknowledged`]). After a crash, messages that were not committed are read again, and their
//! results are sent again with the same header `verdict_id` or `sighting_id`.
//!
//! The polling thread never waits for these topics. If a topic cannot be written, its results wait in memory; beyond
//! [`WAITING_BYTES_MAX`], the oldest are dropped and counted, and their offsets can be committed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};

use super::connect::misconfigured;
use super::own_topic::{OwnTopic, Results};
use super::settings::KafkaSettings;
use super::state_log::log_of_client;
use crate::checkpoint::{Position, TopicId};
use crate::port::{Condition, ResultRecord, SourceError, SourceObserver};

/// Kind of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResultKind {
    Verdicts,
    Sightings,
}

impl ResultKind {
    const COUNT: usize = 2;

    const fn name(self) -> &'static str {
        match self {
            Self::Verdicts => "verdicts",
            Self::Sightings => "appearances",
        }
    }

    /// Name of the header that identifies a result.
    const fn id_header(self) -> &'static str {
        match self {
            Self::Verdicts => "verdict_id",
            Self::Sightings => "sighting_id",
        }
    }

    const fn condition(self) -> Condition {
        match self {
            Self::Verdicts => Condition::VerdictTopic,
            Self::Sightings => Condition::SightingTopic,
        }
    }
}

/// Maximum size of the results that are not acknowledged, in memory. The client has a copy of those that it sends.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Size of the client's queue, KiB.
const QUEUE_KB: &str = "65536";
/// Time limit for the brokers to acknowledge a result.
const ACKNOWLEDGE_WAIT_MS: &str = "10000";
/// Interval of attempts to create the topic.
const LOOK_WAIT: Duration = Duration::from_secs(60);

/// A topic, see the module documentation.
pub(super) struct ResultTopic {
    kind: ResultKind,
    name: String,
    producer: ThreadedProducer<Results<Arc<Sending>>>,
    observer: Arc<dyn SourceObserver>,
    /// Results that the client does not have, oldest first.
    waiting: VecDeque<Arc<Sending>>,
    /// Size of all results that are not acknowledged.
    bytes: usize,
    /// Number of the next result.
    next: u64,
    /// A result was refused. Nothing is sent until [`Self::try_again`].
    is_refusing: bool,
    /// Why the topic does not take results.
    problem: Option<String>,
    /// Results of looking at the topic, until it can be used.
    looked: Receiver<Option<String>>,
}

/// A result on its way.
struct Sending {
    number: u64,
    record: ResultRecord,
}

/// Results of one partition that the brokers have not acknowledged, of each kind: number and offset.
#[derive(Debug, Default)]
pub(super) struct Unacknowledged([BTreeMap<u64, i64>; ResultKind::COUNT]);

impl Unacknowledged {
    pub(super) fn add(&mut self, kind: ResultKind, number: u64, offset: i64) {
        self.0[kind as usize].insert(number, offset);
    }

    pub(super) fn remove(&mut self, kind: ResultKind, number: u64) {
        self.0[kind as usize].remove(&number);
    }

    pub(super) fn clear(&mut self) {
        self.0.iter_mut().for_each(BTreeMap::clear);
    }

    /// The offset up to `next` before which all results are acknowledged. Results of a kind are numbered in the order of
    /// their messages.
    pub(super) fn done_before(&self, next: i64) -> i64 {
        let first = self.0.iter().filter_map(BTreeMap::first_key_value).map(|(_, offset)| *offset);
        first.fold(next, i64::min)
    }
}

impl ResultTopic {
    /// Starts a thread that creates the topic if it is missing and the ACL permits it. Fails only for invalid settings.
    pub(super) fn open(
        kind: ResultKind,
        settings: &KafkaSettings,
        observer: Arc<dyn SourceObserver>,
    ) -> Result<Self, SourceError> {
        let topic = match kind {
            ResultKind::Verdicts => OwnTopic::verdicts(settings)?,
            ResultKind::Sightings => OwnTopic::sightings(settings)?,
        };
        let name = topic.name.clone();
        let mut config = settings.client_config()?;
        // A repeated result has the same id. Sequence numbers would prevent repetition, but can break the producer.
        config.set("enable.idempotence", "false").set("acks", "all");
        // One request at a time keeps the order of a partition if the client repeats a request.
        config.set("max.in.flight.requests.per.connection", "1").set("linger.ms", "5");
        config.set("message.timeout.ms", ACKNOWLEDGE_WAIT_MS).set("request.timeout.ms", "5000");
        config.set("topic.metadata.propagation.max.ms", "5000").set("queue.buffering.max.kbytes", QUEUE_KB);
        // The partitioner of the Java client: if both topics have the same number of partitions, a verdict is in the
        // partition with the number of its event's partition.
        config.set("partitioner", "murmur2_random");
        let producer =
            ThreadedProducer::from_config_and_context(&config, Results::new(log_of_client)).map_err(misconfigured)?;
        let (results, looked) = mpsc::channel();
        std::thread::Builder::new()
            .name(format!("{}-topic", kind.name()))
            .spawn(move || look(&topic, &results))
            .map_err(|error| SourceError::Unavailable(format!("cannot start a thread: {error}")))?;
        let (waiting, problem) = (VecDeque::new(), None);
        Ok(Self { kind, name, producer, observer, waiting, bytes: 0, next: 0, is_refusing: false, problem, looked })
    }

    pub(super) const fn kind(&self) -> ResultKind {
        self.kind
    }

    /// Queues a result. Returns its number.
    pub(super) fn queue(&mut self, record: ResultRecord) -> u64 {
        let number = self.next;
        self.next += 1;
        self.bytes += record.bytes();
        self.waiting.push_back(Arc::new(Sending { number, record }));
        number
    }

    /// Passes queued results to the client, and processes its answers. `done` receives the position and number of each result
    /// that is acknowledged or dropped.
    pub(super) fn advance(&mut self, done: &mut dyn FnMut(&Position, u64)) {
        self.take_results(done);
        while !self.is_refusing
            && let Some(sending) = self.waiting.pop_front()
        {
            match self.give(&sending) {
                Ok(()) => {}
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => {
                    self.waiting.push_front(sending);
                    break;
                }
                Err(error) => {
                    self.waiting.push_front(sending);
                    self.refused(error.to_string());
                }
            }
        }
        let mut dropped = 0;
        while self.bytes > WAITING_BYTES_MAX
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.bytes -= oldest.record.bytes();
            done(&oldest.record.position, oldest.number);
            dropped += 1;
        }
        if dropped > 0 {
            self.dropped(dropped);
        }
    }

    /// Sends refused results again.
    pub(super) const fn try_again(&mut self) {
        self.is_refusing = false;
    }

    /// Waits at most `wait` until the brokers have all results, unless the topic does not take them.
    pub(super) fn flush(&self, wait: Duration) {
        if self.problem.is_none() {
            // The results show what was not sent.
            let _ = self.producer.flush(wait);
        }
    }

    fn take_results(&mut self, done: &mut dyn FnMut(&Position, u64)) {
        let results = self.producer.context().take();
        let (mut refused, mut reason, mut too_large) = (Vec::new(), None, 0);
        let is_empty = results.is_empty();
        for (sending, result) in results {
            let error = match result {
                Ok(()) => None,
                // It would be refused again.
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    too_large += 1;
                    None
                }
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                reason = Some(error.to_string());
                refused.push(sending);
            } else {
                self.bytes -= sending.record.bytes();
                done(&sending.record.position, sending.number);
            }
        }
        if too_large > 0 {
            tracing::error!(
                topic = self.name,
                results = too_large,
                kind = self.kind.name(),
                "the topic refuses results: larger than max.message.bytes"
            );
            self.dropped(too_large);
        }
        refused.sort_by_key(|sending| sending.number);
        for sending in refused.into_iter().rev() {
            self.waiting.push_front(sending);
        }
        match reason {
            Some(reason) => self.refused(reason),
            None if !is_empty => self.note(None),
            None => {}
        }
        if let Ok(problem) = self.looked.try_recv()
            && (problem.is_some() || self.bytes == 0)
        {
            self.note(problem);
        }
    }

    fn refused(&mut self, reason: String) {
        self.is_refusing = true;
        self.note(Some(reason));
    }

    fn dropped(&self, count: u64) {
        match self.kind {
            ResultKind::Verdicts => self.observer.verdicts_dropped(count),
            ResultKind::Sightings => self.observer.sightings_dropped(count),
        }
    }

    /// Records whether the topic accepts results.
    fn note(&mut self, problem: Option<String>) {
        let (topic, kind) = (&*self.name, self.kind.name());
        match (&self.problem, &problem) {
            (before, Some(reason)) if before.as_ref() != Some(reason) => {
                tracing::error!(topic, reason, "{kind} are not sent to their topic; they wait in memory");
            }
            (Some(_), None) => tracing::info!(topic, "{kind} are sent to their topic again"),
            _ => {}
        }
        if self.problem.is_some() != problem.is_some() {
            self.observer.condition(self.kind.condition(), "", problem.is_some());
        }
        self.problem = problem;
    }

    fn give(&self, sending: &Arc<Sending>) -> KafkaResult<()> {
        let ResultRecord { position, index, key, json } = &sending.record;
        let Position { topic, topic_id, partition, offset } = position;
        // The name, for brokers without topic ids.
        let log = if *topic_id == TopicId::NONE { topic.to_string() } else { topic_id.to_string() };
        let headers = [
            (self.kind.id_header(), format!("{log}/{partition}/{offset}/{index}")),
            ("source_topic", topic.to_string()),
            ("source_partition", partition.to_string()),
            ("source_offset", offset.to_string()),
            ("source_index", index.to_string()),
        ]
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        let record =
            BaseRecord::with_opaque_to(&self.name, Arc::clone(sending)).key(key).payload(json).headers(headers);
        self.producer.send(record).map_err(|(error, _)| error)
    }
}

/// Looks at the topic until it can be used, or its owner has ended.
fn look(topic: &OwnTopic, results: &mpsc::Sender<Option<String>>) {
    loop {
        let problem = topic.look().err();
        let is_usable = problem.is_none();
        if results.send(problem).is_err() || is_usable {
            return;
        }
        std::thread::sleep(LOOK_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_waits_for_earlier_results() {
        let mut waiting = Unacknowledged::default();
        assert_eq!(waiting.done_before(7), 7, "no message before it has a result");
        // Two events in the message at 4.
        for (number, offset) in [(10, 3), (11, 4), (12, 4), (13, 9)] {
            waiting.add(ResultKind::Verdicts, number, offset);
        }
        waiting.remove(ResultKind::Verdicts, 11);
        assert_eq!(waiting.done_before(7), 3);
        waiting.remove(ResultKind::Verdicts, 10);
        assert_eq!(waiting.done_before(7), 4, "the second verdict of the message is missing");
        waiting.add(ResultKind::Sightings, 0, 6);
        waiting.remove(ResultKind::Verdicts, 12);
        assert_eq!(waiting.done_before(7), 6, "an appearance is missing");
        waiting.remove(ResultKind::Sightings, 0);
        assert_eq!(waiting.done_before(7), 7);
    }
}
