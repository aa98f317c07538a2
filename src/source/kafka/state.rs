//! Snapshots of states in a compacted topic, `<prefix>.state`.
//!
//! A snapshot is one transaction: its records with the keys `NAME/0`, `NAME/1`, …, tombstones for the records that only
//! the snapshot before it had, and at last the marker with the key `NAME/marker`. Readers see a transaction as a whole or
//! not at all. Compaction keeps the newest message of each key, so the topic does not grow with time.
//!
//! The transactional id belongs to the state. A member that restores a state thereby fences every other writer of it, and
//! ends its transaction.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::admin::{AdminClient, NewTopic, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::connect::{create_topic, misconfigured};
use super::member::{log, unpoisoned};
use super::settings::{ANSWER_WAIT, KafkaSettings, Topic};
use crate::port::{
    Incoming, Next, SnapshotError, SnapshotReader, SnapshotWriter, Snapshots, SourceError, StoredSnapshot,
    in_background,
};
use crate::snapshot::{Marker, RECORD_BYTES_MAX, state_name};

/// Size of a message that the topic must accept: a record, with room for its key and the batch.
pub(super) const MESSAGE_BYTES: usize = RECORD_BYTES_MAX + 4_096;
/// Segments of the topic. The newest segment is not compacted, so it must not be large.
const SEGMENT_BYTES: &str = "134217728";
/// Timeout of a transaction, which is open until the rows of its messages are stored. The brokers' default limit is 15
/// minutes.
const TRANSACTION_MS: &str = "600000";
/// Size of the client's queue. A whole snapshot must not wait in memory.
const QUEUE_KB: &str = "65536";
/// Time limit for the brokers to acknowledge a message.
const ACKNOWLEDGE_WAIT_MS: &str = "15000";
/// The same, with a margin, and for a commit.
const COMMIT_WAIT: Duration = Duration::from_secs(30);
/// Messages in which the newest marker is looked for first. Then more are read.
const WINDOW: i64 = 8;
const WINDOW_GROWTH: i64 = 16;
/// Interval in which the thread serves the client while it waits for the next record.
const LOOK_WAIT: Duration = Duration::from_millis(500);

/// The topic, see the module documentation.
#[derive(Clone)]
pub struct StateTopic {
    config: ClientConfig,
    group_id: String,
    topic: Arc<str>,
    partitions: u64,
    /// Number of records in the last snapshot of each state, as far as known.
    records: Arc<Mutex<HashMap<String, u32>>>,
}

/// The content of a marker message.
#[derive(Serialize, Deserialize)]
struct Located {
    /// Offset of the first record.
    first: i64,
    marker: Marker,
}

impl StateTopic {
    /// Name of the topic.
    pub(crate) fn name(settings: &KafkaSettings) -> String {
        format!("{}.state", settings.prefix)
    }

    /// Creates the topic if it is missing, with as many partitions as the source topic with the most.
    pub fn open(settings: &KafkaSettings) -> Result<Self, SourceError> {
        let admin = admin(settings)?;
        let name = Self::name(settings);
        if count(&admin, &name)? == 0 {
            create(&admin, settings).map_err(|reason| unavailable(&name, &format!("not created: {reason}")))?;
        }
        Self::existing(settings)
    }

    /// Fails if the topic does not exist.
    pub(crate) fn existing(settings: &KafkaSettings) -> Result<Self, SourceError> {
        let name = Self::name(settings);
        let partitions = count(&admin(settings)?, &name)?;
        if partitions == 0 {
            return Err(unavailable(&name, "does not exist; create it with `tokenwarden topics create`"));
        }
        Ok(Self {
            config: settings.client_config()?,
            group_id: settings.group_id.clone(),
            topic: name.into(),
            partitions: partitions as u64,
            records: Arc::default(),
        })
    }

    /// The newest snapshot of each partition of the source's topics, by name. Changes nothing.
    pub(crate) fn list(&self, settings: &KafkaSettings) -> Result<Vec<(String, Listed)>, SourceError> {
        let admin = admin(settings)?;
        let mut listed = Vec::new();
        for Topic { topic, .. } in &settings.topics {
            for partition in 0..count(&admin, topic)? {
                let name = state_name(topic, partition as i32);
                if let Some(found) = self.find(&name).transpose() {
                    listed.push((name, found));
                }
            }
        }
        Ok(listed)
    }

    /// Partition of the messages of a state.
    fn partition(&self, name: &str) -> i32 {
        (xxh3_64(name.as_bytes()) % self.partitions) as i32
    }

    /// A producer that fences all others of the state.
    fn producer(&self, name: &str) -> io::Result<BaseProducer<Delivered>> {
        let mut config = self.config.clone();
        config
            .set("transactional.id", format!("{}-state-{name}", self.group_id))
            .set("transaction.timeout.ms", TRANSACTION_MS)
            .set("message.timeout.ms", ACKNOWLEDGE_WAIT_MS)
            .set("compression.type", "zstd")
            .set("queue.buffering.max.kbytes", QUEUE_KB)
            .set("linger.ms", "5");
        let producer = BaseProducer::from_config_and_context(&config, Delivered::default()).map_err(failed)?;
        producer.init_transactions(ANSWER_WAIT).map_err(failed)?;
        Ok(producer)
    }

    /// The newest snapshot of a state. Does not fence its writer.
    pub(crate) fn find(&self, name: &str) -> Result<Option<StoredSnapshot>, SnapshotError> {
        let mut config = self.config.clone();
        config
            // Needed by the client, and not used, because offsets are neither read nor committed.
            .set("group.id", &self.group_id)
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error");
        let consumer = BaseConsumer::from_config_and_context(&config, Reader).map_err(failed)?;
        let partition = self.partition(name);
        let (low, high) = consumer.fetch_watermarks(&self.topic, partition, ANSWER_WAIT).map_err(failed)?;
        let log = Log { consumer, topic: Arc::clone(&self.topic), partition };
        let key = format!("{name}/marker");
        let mut window = WINDOW;
        let located = loop {
            let from = (high - window).max(low);
            let found = log.last(&key, from)?;
            if found.is_some() || from == low {
                break found;
            }
            window *= WINDOW_GROWTH;
        };
        let Some(located) = located else { return Ok(None) };
        let Located { first, marker } = serde_json::from_slice(&located)
            .map_err(|error| SnapshotError::Unreadable(format!("topic {}: marker of {name}: {error}", self.topic)))?;
        log.seek(first)?;
        let (bytes, left) = (marker.extent.bytes, marker.extent.records);
        let records = Box::new(Records { log, name: name.to_owned(), next: 0, left });
        Ok(Some(StoredSnapshot { marker, bytes, records }))
    }
}

/// A snapshot, or why it cannot be read.
type Listed = Result<StoredSnapshot, SnapshotError>;

fn admin(settings: &KafkaSettings) -> Result<AdminClient<Delivered>, SourceError> {
    let config = settings.client_config()?;
    AdminClient::from_config_and_context(&config, Delivered::default()).map_err(misconfigured)
}

fn unavailable(topic: &str, reason: &str) -> SourceError {
    SourceError::Unavailable(format!("topic `{topic}`: {reason}"))
}

/// Number of partitions of a topic; 0 if it does not exist.
fn count(admin: &AdminClient<Delivered>, topic: &str) -> Result<usize, SourceError> {
    let metadata = admin.inner().fetch_metadata(Some(topic), ANSWER_WAIT);
    let metadata = metadata.map_err(|error| unavailable(topic, &error.to_string()))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
    Ok(found.map_or(0, |topic| topic.partitions().len()))
}

/// Creates the topic, with the brokers' default of replicas.
fn create(admin: &AdminClient<Delivered>, settings: &KafkaSettings) -> Result<(), String> {
    let counts = settings.topics.iter().map(|topic| count(admin, &topic.topic));
    let counts: Vec<_> = counts.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let partitions = counts.into_iter().max().unwrap_or(1).max(1);
    let name = StateTopic::name(settings);
    let topic = NewTopic::new(&name, i32::try_from(partitions).unwrap_or(i32::MAX), TopicReplication::Fixed(-1))
        .set("cleanup.policy", "compact")
        .set("segment.bytes", SEGMENT_BYTES);
    create_topic(admin, &topic)?;
    wait_until_known(admin, &name)
}

/// A new topic is not known to all brokers at once.
fn wait_until_known(admin: &AdminClient<Delivered>, topic: &str) -> Result<(), String> {
    const SLICES: u32 = 50;
    for _ in 0..SLICES {
        if count(admin, topic).map_err(|error| error.to_string())? > 0 {
            return Ok(());
        }
        std::thread::sleep(ANSWER_WAIT / SLICES);
    }
    Err("the brokers do not know it yet".to_owned())
}

fn failed(error: KafkaError) -> io::Error {
    io::Error::other(error)
}

impl Snapshots for StateTopic {
    fn begin(&self, name: &str) -> io::Result<Box<dyn SnapshotWriter>> {
        let this = self.clone();
        let name = name.to_owned();
        in_background(move |incoming| {
            let producer = this.producer(&name)?;
            let writing = Writing { producer, state: &this, name: &name };
            writing.producer.begin_transaction().map_err(failed)?;
            let written = writing.write(incoming);
            if written.is_err() {
                let _ = writing.producer.abort_transaction(ANSWER_WAIT);
            }
            written
        })
    }

    /// Fences the writers of the state first, so that none of them replaces the snapshot that is read.
    fn newest(&self, name: &str) -> Result<Option<StoredSnapshot>, SnapshotError> {
        drop(self.producer(name)?);
        let found = self.find(name)?;
        if let Some(found) = &found {
            unpoisoned(&self.records).insert(name.to_owned(), found.marker.extent.records);
        }
        Ok(found)
    }
}

/// A transaction.
struct Writing<'a> {
    producer: BaseProducer<Delivered>,
    state: &'a StateTopic,
    name: &'a str,
}

impl Writing<'_> {
    /// Writes the snapshot and commits it.
    fn write(&self, incoming: &Incoming) -> io::Result<u64> {
        let (mut records, mut bytes) = (0_u32, 0);
        let marker = loop {
            match incoming.next(LOOK_WAIT)? {
                Next::Nothing => {
                    self.producer.poll(Duration::ZERO);
                }
                Next::Record(record) => {
                    bytes += record.len() as u64;
                    self.send(&records.to_string(), Some(&record))?;
                    records += 1;
                }
                Next::End(marker) => break *marker,
            }
        };
        let before = unpoisoned(&self.state.records).get(self.name).copied().unwrap_or(0);
        for gone in records..before {
            self.send(&gone.to_string(), None)?;
        }
        self.flush()?;
        let first = self.producer.context().first()?;
        let located = serde_json::to_vec(&Located { first, marker })?;
        self.send("marker", Some(&located))?;
        self.flush()?;
        self.producer.commit_transaction(COMMIT_WAIT).map_err(failed)?;
        unpoisoned(&self.state.records).insert(self.name.to_owned(), records);
        Ok(bytes)
    }

    fn send(&self, key: &str, payload: Option<&[u8]>) -> io::Result<()> {
        let key = format!("{}/{key}", self.name);
        let mut record: BaseRecord<'_, str, [u8]> =
            BaseRecord::to(&self.state.topic).partition(self.state.partition(self.name)).key(&key);
        if let Some(payload) = payload {
            record = record.payload(payload);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => {
                    self.producer.poll(Duration::ZERO);
                    return Ok(());
                }
                // Messages leave the queue when they are acknowledged, or after `message.timeout.ms`.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), full)) => {
                    self.producer.poll(LOOK_WAIT);
                    record = full;
                }
                Err((error, _)) => return Err(failed(error)),
            }
        }
    }

    /// Waits until all messages are acknowledged.
    fn flush(&self) -> io::Result<()> {
        self.producer.flush(COMMIT_WAIT).map_err(failed)?;
        self.producer.context().check()
    }
}

/// Stores the delivery results.
#[derive(Default)]
struct Delivered(Mutex<Outcome>);

#[derive(Default)]
struct Outcome {
    /// Offset of the first message.
    first: Option<i64>,
    failed: Option<KafkaError>,
}

impl Delivered {
    fn first(&self) -> io::Result<i64> {
        unpoisoned(&self.0).first.ok_or_else(|| io::Error::other("no record was acknowledged"))
    }

    fn check(&self) -> io::Result<()> {
        unpoisoned(&self.0).failed.clone().map_or(Ok(()), |error| Err(failed(error)))
    }
}

impl ClientContext for Delivered {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_of_client(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, delivered: &DeliveryResult<'_>, (): ()) {
        let mut outcome = unpoisoned(&self.0);
        match delivered {
            Ok(message) => _ = outcome.first.get_or_insert(message.offset()),
            Err((error, _)) => _ = outcome.failed.get_or_insert(error.clone()),
        }
    }
}

/// Context of a reader, for which the end of the partition is no error.
struct Reader;

impl ClientContext for Reader {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_of_client(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka consumer");
    }
}

impl ConsumerContext for Reader {}

/// Omits the warnings about properties, which other clients log at the start: the clients of this module are made again
/// and again.
fn log_of_client(level: RDKafkaLogLevel, facility: &str, message: &str) {
    if facility != "CONFWARN" {
        log(level, facility, message);
    }
}

/// A partition of the topic.
struct Log {
    consumer: BaseConsumer<Reader>,
    topic: Arc<str>,
    partition: i32,
}

impl Log {
    fn seek(&self, from: i64) -> io::Result<()> {
        let mut start = TopicPartitionList::new();
        start.add_partition_offset(&self.topic, self.partition, Offset::Offset(from)).map_err(failed)?;
        self.consumer.assign(&start).map_err(failed)
    }

    /// Passes messages to `take` until it returns a value, or to the end.
    fn read<T>(&self, mut take: impl FnMut(&str, Option<&[u8]>) -> Option<T>) -> io::Result<Option<T>> {
        loop {
            match self.consumer.poll(COMMIT_WAIT) {
                Some(Ok(message)) => {
                    let key = message.key().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
                    if let Some(found) = take(key, message.payload()) {
                        return Ok(Some(found));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                // The client retries other errors.
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(failed(error)),
                Some(Err(error)) => tracing::debug!(%error, "kafka"),
                None => return Err(io::Error::new(io::ErrorKind::TimedOut, "the brokers do not answer")),
            }
        }
    }

    /// The payload of the last message with `key`, from an offset on.
    fn last(&self, key: &str, from: i64) -> io::Result<Option<Vec<u8>>> {
        self.seek(from)?;
        let mut last = None;
        self.read(|found, payload| {
            if found == key {
                last = payload.map(<[u8]>::to_vec);
            }
            None::<()>
        })?;
        Ok(last)
    }
}

/// The records of a snapshot.
struct Records {
    log: Log,
    name: String,
    next: u32,
    left: u32,
}

impl SnapshotReader for Records {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.left == 0 {
            return Ok(None);
        }
        let key = format!("{}/{}", self.name, self.next);
        let found = self.log.read(|found, payload| if found == key { payload.map(<[u8]>::to_vec) } else { None })?;
        self.next += 1;
        self.left -= 1;
        Ok(found)
    }
}
