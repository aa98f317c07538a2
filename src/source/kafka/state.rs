//! Snapshots of states in a compacted topic, `<prefix>.state`.
//!
//! A snapshot is one transaction: its records with the keys `GROUP/NAME/0`, `GROUP/NAME/1`, …, tombstones for the records
//! that only the snapshot before it had, and at last the marker with the key `GROUP/NAME/marker`. Readers see a transaction
//! as a whole or not at all. Compaction keeps the newest message of each key, so the topic does not grow with time.
//!
//! Two mechanisms keep a member that has lost a partition from writing its state:
//!
//! - The transactional id belongs to the state. A member that restores a state thereby fences every other writer of it,
//!   and ends its transaction.
//! - The transaction includes an offset that the member commits for the state topic, so the group coordinator refuses it
//!   if the member has left the group or has missed a rebalance ([`Membership`]). A late earlier owner can therefore
//!   interrupt a snapshot of the new owner, which is repeated, but not replace it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::admin::{AdminClient, NewTopic, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::connect::{CreateError, check_topics, create_topic, misconfigured};
use super::member::Member;
use super::membership::{Membership, left};
use super::native::describe;
use super::settings::{ANSWER_WAIT, KafkaSettings};
use super::state_log::{Log, failed, log_of_client};
use crate::kill_point::{Step, reach};
use crate::lock::unpoisoned;
use crate::port::{
    Incoming, NamedSnapshots, Received, SnapshotError, SnapshotWriter, Snapshots, SourceError, StoredSnapshot,
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
    membership: Membership,
    /// Number of records in the last snapshot of each state, as far as known.
    records: Arc<Mutex<HashMap<String, u32>>>,
}

/// Result of [`StateTopic::open_if_permitted`].
pub enum Permitted {
    Yes(StateTopic),
    /// With the reason.
    Refused(String),
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

    /// Creates the topic if it is missing, with as many partitions as the scored topic with the most.
    pub fn open(settings: &KafkaSettings) -> Result<Self, SourceError> {
        let admin = admin(settings)?;
        let name = Self::name(settings);
        if count(&admin, &name)? == 0 {
            create(&admin, settings).map_err(|error| not_created(&name, &error))?;
        }
        Self::existing(settings)
    }

    /// As [`Self::open`], but it is no error if the brokers refuse what snapshots need: the topic, reading and writing it,
    /// or transactions. Fails if they do not answer, because the topic may contain usable snapshots.
    pub fn open_if_permitted(settings: &KafkaSettings) -> Result<Permitted, SourceError> {
        // Reports brokers that do not answer and wrong topics as the source does.
        let mut config = settings.client_config()?;
        config.set("group.id", &settings.group_id);
        let consumer = BaseConsumer::from_config_and_context(&config, Member::default()).map_err(misconfigured)?;
        check_topics(&consumer, settings)?;
        let admin = admin(settings)?;
        let name = Self::name(settings);
        if count(&admin, &name)? == 0 {
            match create(&admin, settings) {
                Ok(()) => {}
                Err(error @ CreateError::Request(_)) => return Err(not_created(&name, &error)),
                Err(error) => return Ok(Permitted::Refused(format!("not created: {error}"))),
            }
        }
        let described = describe(admin.inner(), &[&name], ANSWER_WAIT);
        let described = described.map_err(|code| unavailable(&name, &code.to_string()))?;
        let may = described.into_iter().next().and_then(|found| found.ok()?.may);
        if may.is_some_and(|may| !may.read || !may.write) {
            return Ok(Permitted::Refused("we may not read and write it (ACL)".to_owned()));
        }
        let state = Self::existing(settings)?;
        // No state has this name, so no member is fenced.
        match state.producer("") {
            Ok(_) => Ok(Permitted::Yes(state)),
            Err(error) if is_refusal(&error) => Ok(Permitted::Refused(format!("transactions are refused: {error}"))),
            Err(error) => Err(unavailable(&name, &error.to_string())),
        }
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
            membership: Membership::default(),
            records: Arc::default(),
        })
    }

    /// From now on, a snapshot is completed only while `consumer` is a member of the group.
    pub(super) fn bind(&self, consumer: &Arc<BaseConsumer<Member>>) {
        self.membership.bind(consumer);
    }

    /// The newest snapshot of each partition of the scored topics, by name. Changes nothing.
    pub(crate) fn list(&self, settings: &KafkaSettings) -> Result<NamedSnapshots, SourceError> {
        let admin = admin(settings)?;
        let mut listed = Vec::new();
        for topic in settings.scored_topics() {
            for partition in 0..count(&admin, &topic)? {
                let name = state_name(&topic, partition as i32);
                if let Some(found) = self.find(&name).transpose() {
                    listed.push((name, found));
                }
            }
        }
        Ok(listed)
    }

    /// Partition of the messages of a state. The states of one topic have different partitions, so that an open transaction
    /// of one does not hide the newest snapshots of the others.
    fn partition(&self, name: &str) -> i32 {
        let numbered = name.rsplit_once('-').and_then(|(topic, number)| Some((topic, number.parse::<u64>().ok()?)));
        let (topic, number) = numbered.unwrap_or((name, 0));
        ((xxh3_64(topic.as_bytes()) % self.partitions + number) % self.partitions) as i32
    }

    /// Key of a message. Contains the group, so that groups with the same prefix have snapshots of their own. The name of a
    /// state contains no slash.
    fn key(&self, name: &str, part: &str) -> String {
        format!("{}/{name}/{part}", self.group_id)
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
        let log = Log::open(&self.config, &self.group_id, &self.topic, self.partition(name))?;
        let (low, high) = log.ends()?;
        let key = self.key(name, "marker");
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
        let (bytes, left) = (marker.extent.bytes, marker.extent.records);
        let records = Box::new(log.records(first, self.key(name, ""), left));
        Ok(Some(StoredSnapshot { marker, bytes, records }))
    }
}

fn admin(settings: &KafkaSettings) -> Result<AdminClient<Delivered>, SourceError> {
    let config = settings.client_config()?;
    AdminClient::from_config_and_context(&config, Delivered::default()).map_err(misconfigured)
}

fn unavailable(topic: &str, reason: &str) -> SourceError {
    SourceError::Unavailable(format!("topic `{topic}`: {reason}"))
}

fn not_created(topic: &str, error: &CreateError) -> SourceError {
    unavailable(topic, &format!("not created: {error}"))
}

/// Whether the brokers refuse transactions, so that a retry does not help.
fn is_refusal(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<KafkaError>());
    let Some(KafkaError::Transaction(error)) = error else { return false };
    matches!(
        error.code(),
        RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::InvalidTransactionTimeout
            | RDKafkaErrorCode::UnsupportedVersion
            | RDKafkaErrorCode::UnsupportedFeature
    )
}

/// Number of partitions of a topic; 0 if it does not exist.
fn count(admin: &AdminClient<Delivered>, topic: &str) -> Result<usize, SourceError> {
    known(admin, topic).map_err(|error| unavailable(topic, &error.to_string()))
}

fn known(admin: &AdminClient<Delivered>, topic: &str) -> Result<usize, KafkaError> {
    let metadata = admin.inner().fetch_metadata(Some(topic), ANSWER_WAIT)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
    Ok(found.map_or(0, |topic| topic.partitions().len()))
}

/// Creates the topic, with the brokers' default of replicas.
fn create(admin: &AdminClient<Delivered>, settings: &KafkaSettings) -> Result<(), CreateError> {
    let topics = settings.scored_topics();
    let counts = topics.iter().map(|topic| known(admin, topic));
    let counts: Vec<_> = counts.collect::<Result<_, _>>().map_err(CreateError::Request)?;
    let partitions = counts.into_iter().max().unwrap_or(1).max(1);
    let name = StateTopic::name(settings);
    let topic = NewTopic::new(&name, i32::try_from(partitions).unwrap_or(i32::MAX), TopicReplication::Fixed(-1))
        .set("cleanup.policy", "compact")
        .set("segment.bytes", SEGMENT_BYTES);
    create_topic(admin, &topic)?;
    wait_until_known(admin, &name)
}

/// A new topic is not known to all brokers at once.
fn wait_until_known(admin: &AdminClient<Delivered>, topic: &str) -> Result<(), CreateError> {
    const SLICES: u32 = 50;
    for _ in 0..SLICES {
        if known(admin, topic).map_err(CreateError::Request)? > 0 {
            return Ok(());
        }
        std::thread::sleep(ANSWER_WAIT / SLICES);
    }
    Err(CreateError::Hidden)
}

impl Snapshots for StateTopic {
    fn begin(&self, name: &str) -> io::Result<Box<dyn SnapshotWriter>> {
        self.membership.check()?;
        let this = self.clone();
        let name = name.to_owned();
        let member: Arc<Mutex<Option<ConsumerGroupMetadata>>> = Arc::default();
        let of_thread = Arc::clone(&member);
        let inner = in_background(move |incoming| {
            let producer = this.producer(&name)?;
            let writing = Writing { producer, state: &this, name: &name, member: &of_thread };
            writing.producer.begin_transaction().map_err(failed)?;
            let written = writing.write(incoming);
            if written.is_err() {
                let _ = writing.producer.abort_transaction(ANSWER_WAIT);
            }
            written
        })?;
        Ok(Box::new(OfMember { inner, membership: self.membership.clone(), member }))
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

/// A snapshot that only a member of the group completes.
struct OfMember {
    inner: Box<dyn SnapshotWriter>,
    membership: Membership,
    /// Receives the membership at the end of the snapshot.
    member: Arc<Mutex<Option<ConsumerGroupMetadata>>>,
}

impl SnapshotWriter for OfMember {
    fn write(&mut self, record: Vec<u8>) -> io::Result<()> {
        self.inner.write(record)
    }

    /// Called by the polling thread, which still owns the partition: another member gets it only in a later generation.
    fn finish(self: Box<Self>, marker: Marker) -> JoinHandle<io::Result<u64>> {
        *unpoisoned(&self.member) = self.membership.now();
        self.inner.finish(marker)
    }
}

/// A transaction.
struct Writing<'a> {
    producer: BaseProducer<Delivered>,
    state: &'a StateTopic,
    name: &'a str,
    member: &'a Mutex<Option<ConsumerGroupMetadata>>,
}

impl Writing<'_> {
    /// Writes the snapshot and commits it.
    fn write(&self, incoming: &Incoming) -> io::Result<u64> {
        let (mut records, mut bytes) = (0_u32, 0);
        let marker = loop {
            match incoming.next(LOOK_WAIT)? {
                Received::Nothing => {
                    self.producer.poll(Duration::ZERO);
                }
                Received::Record(record) => {
                    bytes += record.len() as u64;
                    self.send(&records.to_string(), Some(&record))?;
                    records += 1;
                }
                Received::End(marker) => break *marker,
            }
        };
        let before = unpoisoned(&self.state.records).get(self.name).copied().unwrap_or(0);
        for gone in records..before {
            self.send(&gone.to_string(), None)?;
        }
        self.flush()?;
        reach(Step::InTransaction);
        let first = self.producer.context().first()?;
        let located = serde_json::to_vec(&Located { first, marker })?;
        self.send("marker", Some(&located))?;
        self.flush()?;
        self.prove_membership(first)?;
        reach(Step::BeforeTransactionEnd);
        self.producer.commit_transaction(COMMIT_WAIT).map_err(failed)?;
        reach(Step::AfterTransaction);
        unpoisoned(&self.state.records).insert(self.name.to_owned(), records);
        Ok(bytes)
    }

    /// Commits `offset` for the partition of the state topic in the transaction. Nothing reads this offset. The group
    /// coordinator accepts it only from a member of the current generation.
    fn prove_membership(&self, offset: i64) -> io::Result<()> {
        let Some(member) = unpoisoned(self.member).take() else {
            return if self.state.membership.is_bound() { Err(left()) } else { Ok(()) };
        };
        let mut offsets = TopicPartitionList::new();
        let partition = self.state.partition(self.name);
        offsets.add_partition_offset(&self.state.topic, partition, Offset::Offset(offset)).map_err(failed)?;
        self.producer.send_offsets_to_transaction(&offsets, &member, COMMIT_WAIT).map_err(failed)
    }

    fn send(&self, part: &str, payload: Option<&[u8]>) -> io::Result<()> {
        let key = self.state.key(self.name, part);
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
