//! A log in a compacted topic, which every member reads as a whole: the denylist in `<prefix>.denylist`, and the silences
//! in `<prefix>.silences`. Key and value of a message are those of the record, in JSON.

use std::marker::PhantomData;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};

use super::check::{Finding, Level};
use super::connect::{create_topic, misconfigured};
use super::own_topic::{ACKNOWLEDGE_WAIT_MS, producer};
use super::settings::{ANSWER_WAIT, KafkaSettings};
use super::state_log::Quiet;
use crate::port::{KEPT_MS, LogRecord, RecordLog, RecordObserver, SourceError};
use crate::retry::RetryPolicy;

/// A later record of a key replaces an earlier one, so their order matters: one partition.
const PARTITION: i32 = 0;
/// Interval in which the end of the observer is noticed.
const READ_WAIT: Duration = Duration::from_millis(500);
/// After a failure to begin reading.
const BEGIN_RETRY: RetryPolicy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(30));

/// The topic.
#[derive(Clone)]
pub struct RecordTopic<R> {
    config: ClientConfig,
    topic: Arc<str>,
    producer: FutureProducer<Quiet>,
    records: PhantomData<fn() -> R>,
}

impl<R: LogRecord> RecordTopic<R> {
    /// Name of the topic.
    pub(crate) fn name(settings: &KafkaSettings) -> String {
        format!("{}.{}", settings.prefix, R::NAME)
    }

    /// Prepares clients for the topic. Sends no request to a broker, so that a revocation does not need one.
    pub fn new(settings: &KafkaSettings) -> Result<Self, SourceError> {
        let mut config = settings.client_config()?;
        // Needed by the consumer, and not used, because offsets are neither read nor committed.
        config.set("group.id", &settings.group_id).set("enable.auto.commit", "false");
        let producer = producer(config.clone(), ACKNOWLEDGE_WAIT_MS)?;
        config.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
        Ok(Self { config, topic: Self::name(settings).into(), producer, records: PhantomData })
    }

    /// Creates the topic if it does not exist.
    pub fn ensure(settings: &KafkaSettings) -> Result<(), SourceError> {
        let name = Self::name(settings);
        let admin = admin(&settings.client_config()?)?;
        if exists(&admin, &name)? {
            return Ok(());
        }
        let retention = KEPT_MS.to_string();
        let topic = NewTopic::new(&name, 1, TopicReplication::Fixed(-1))
            .set("cleanup.policy", "compact,delete")
            .set("retention.ms", &retention);
        create_topic(&admin, &topic).map_err(|reason| unavailable(&name, &format!("not created: {reason}")))
    }

    /// Creates the topic if it does not exist, and reports it.
    pub(crate) fn create(settings: &KafkaSettings) -> Result<Finding, SourceError> {
        Self::ensure(settings)?;
        Ok(Self::finding(settings, Level::Ok, "exists, or was created: 1 partition, compacted, retention 400 days"))
    }

    /// Checks that the topic exists and keeps the entries. Changes nothing.
    pub(crate) fn check(settings: &KafkaSettings) -> Result<Finding, SourceError> {
        let name = Self::name(settings);
        let admin = admin(&settings.client_config()?)?;
        if !exists(&admin, &name)? {
            let missing =
                Finding { repaired_at_start: true, ..Self::finding(settings, Level::Failed, "does not exist") };
            return Ok(missing);
        }
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WAIT));
        let asked = [ResourceSpecifier::Topic(&name)];
        let found = futures::executor::block_on(admin.describe_configs(&asked, &options));
        let found = found.ok().and_then(|mut found| found.pop()?.ok());
        let Some(found) = found else {
            return Ok(Self::finding(settings, Level::Warning, "its settings may not be read (ACL: DescribeConfigs)"));
        };
        let value = |key: &str| found.get(key).and_then(|entry| entry.value.clone()).unwrap_or_default();
        let retention = value("retention.ms").parse::<i64>().unwrap_or(0);
        Ok(if !value("cleanup.policy").contains("compact") {
            let lost = format!("set cleanup.policy=compact,delete: entries are deleted early, and {}", R::IF_LOST);
            Self::finding(settings, Level::Failed, &lost)
        } else if value("cleanup.policy").contains("delete") && (0..KEPT_MS).contains(&retention) {
            let lost = "set retention.ms=34560000000 (400 days): entries may be deleted before they expire";
            Self::finding(settings, Level::Warning, lost)
        } else {
            Self::finding(settings, Level::Ok, "exists and keeps its entries")
        })
    }

    fn finding(settings: &KafkaSettings, level: Level, text: &str) -> Finding {
        let topic = Self::name(settings);
        Finding { level, topic, what: "topic", text: text.to_owned(), repaired_at_start: false }
    }

    fn consumer(&self) -> Result<BaseConsumer<Quiet>, KafkaError> {
        let consumer = BaseConsumer::from_config_and_context(&self.config, Quiet)?;
        let mut start = TopicPartitionList::new();
        start.add_partition_offset(&self.topic, PARTITION, Offset::Beginning)?;
        consumer.assign(&start)?;
        Ok(consumer)
    }

    fn read_all(&self, observer: &Weak<dyn RecordObserver<R>>) {
        let mut failures = 0;
        let consumer = loop {
            let Some(observer) = observer.upgrade() else { return };
            match self.consumer() {
                Ok(consumer) => break consumer,
                Err(error) => {
                    tracing::error!(%error, topic = &*self.topic, "the topic cannot be read");
                    observer.read_failed();
                }
            }
            drop(observer);
            failures += 1;
            std::thread::sleep(BEGIN_RETRY.wait(failures));
        };
        while let Some(observer) = observer.upgrade() {
            match consumer.poll(READ_WAIT) {
                None => {}
                Some(Ok(message)) => {
                    observer.read_succeeded();
                    match read::<R>(&message) {
                        Some(Read::Record(record)) => observer.record(record),
                        Some(Read::Removed(key)) => observer.removed(key),
                        None => {
                            let (topic, offset) = (&*self.topic, message.offset());
                            tracing::error!(topic, offset, "a record cannot be read and has no effect");
                        }
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    observer.read_succeeded();
                    observer.all_read();
                }
                // The client retries.
                Some(Err(error)) => {
                    tracing::warn!(%error, topic = &*self.topic, "the records are not up to date");
                    observer.read_failed();
                }
            }
        }
    }
}

impl<R: LogRecord> RecordTopic<R> {
    /// Sends a message. Without a value, compaction removes the record of the key.
    async fn send(&self, key: &R::Key, value: Option<&[u8]>) -> Result<(), String> {
        let key = serde_json::to_vec(key).map_err(|error| error.to_string())?;
        let message = FutureRecord { payload: value, ..FutureRecord::to(&self.topic) };
        match self.producer.send(message.partition(PARTITION).key(&key), Timeout::Never).await {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(format!("topic `{}`: {error}", self.topic)),
        }
    }
}

fn admin(config: &ClientConfig) -> Result<AdminClient<Quiet>, SourceError> {
    AdminClient::from_config_and_context(config, Quiet).map_err(misconfigured)
}

fn exists(admin: &AdminClient<Quiet>, name: &str) -> Result<bool, SourceError> {
    let found = admin.inner().fetch_metadata(Some(name), ANSWER_WAIT);
    let found = found.map_err(|error| unavailable(name, &error.to_string()))?;
    Ok(found.topics().iter().any(|topic| topic.name() == name && topic.error().is_none()))
}

fn unavailable(name: &str, reason: &str) -> SourceError {
    SourceError::Unavailable(format!("topic `{name}`: {reason}"))
}

/// Content of a message.
enum Read<R: LogRecord> {
    Record(R),
    /// The message has no value: it removes the record of its key.
    Removed(R::Key),
}

fn read<R: LogRecord>(message: &BorrowedMessage<'_>) -> Option<Read<R>> {
    let key = serde_json::from_slice(message.key()?).ok()?;
    let Some(value) = message.payload() else { return Some(Read::Removed(key)) };
    Some(Read::Record(R::of(key, serde_json::from_slice(value).ok()?)))
}

#[async_trait]
impl<R: LogRecord> RecordLog<R> for RecordTopic<R> {
    async fn append(&self, record: R) -> Result<(), String> {
        let value = serde_json::to_vec(record.value()).map_err(|error| error.to_string())?;
        self.send(record.key(), Some(&value)).await
    }

    async fn remove(&self, key: &R::Key) -> Result<(), String> {
        self.send(key, None).await
    }

    fn follow(&self, observer: Arc<dyn RecordObserver<R>>) {
        let (topic, observer) = (self.clone(), Arc::downgrade(&observer));
        std::thread::spawn(move || topic.read_all(&observer));
    }
}
