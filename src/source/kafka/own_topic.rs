//! A topic that tokenwarden writes and creates.

use std::sync::Mutex;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, FutureProducer, ProducerContext};
use rdkafka::util::IntoOpaque;

use super::connect::{create_topic, misconfigured};
use super::native::describe;
use super::settings::{ANSWER_WAIT, KafkaSettings};
use super::state_log::Quiet;
use crate::lock::unpoisoned;
use crate::port::{BATCH_BYTES_MAX, SourceError};

/// Time limit for the brokers to acknowledge a message that a request waits for, milliseconds.
pub(super) const ACKNOWLEDGE_WAIT_MS: &str = "10000";
/// Room for the headers of a forwarded message.
const HEADER_BYTES: usize = 64 << 10;
/// Reason if the ACL does not permit writing.
const FORBIDDEN: &str = "we may not write to it (ACL)";

/// A producer of single messages. All in-sync replicas acknowledge each within `wait_ms` milliseconds. Sends no request
/// to a broker.
pub(super) fn producer(mut config: ClientConfig, wait_ms: &str) -> Result<FutureProducer<Quiet>, SourceError> {
    config.set("acks", "all").set("message.timeout.ms", wait_ms);
    FutureProducer::from_config_and_context(&config, Quiet).map_err(misconfigured)
}

/// The topic.
pub(super) struct OwnTopic {
    pub(super) name: String,
    pub(super) admin: AdminClient<Quiet>,
    retention_ms: &'static str,
    /// It gets the messages of the sources with more headers.
    is_rekeyed: bool,
    /// The new topic gets as many partitions as the largest of these topics, and at least one.
    sources: Vec<String>,
}

impl OwnTopic {
    /// The topic of dead letters: one partition, retention 30 days.
    pub(super) fn letters(settings: &KafkaSettings) -> Result<Self, SourceError> {
        Self::open(settings, "dead-letters", "2592000000")
    }

    /// The topic of verdicts: as many partitions as the largest source topic, retention 7 days.
    pub(super) fn verdicts(settings: &KafkaSettings) -> Result<Self, SourceError> {
        let sources = settings.scored_topics();
        Ok(Self { sources, ..Self::open(settings, "verdicts", "604800000")? })
    }

    /// The topic of sightings: one partition, because appearances are rare, and retention 3 days.
    pub(super) fn sightings(settings: &KafkaSettings) -> Result<Self, SourceError> {
        Self::open(settings, "sightings", "259200000")
    }

    /// The topic of forwarded messages: as many partitions as the largest source topic, retention 7 days, the brokers' clock,
    /// and room for every message that can be decoded.
    pub(super) fn rekeyed(settings: &KafkaSettings) -> Result<Self, SourceError> {
        let sources = settings.topics.iter().map(|topic| topic.topic.clone()).collect();
        Ok(Self { sources, is_rekeyed: true, ..Self::open(settings, "rekeyed", "604800000")? })
    }

    fn open(settings: &KafkaSettings, name: &str, retention_ms: &'static str) -> Result<Self, SourceError> {
        let config = settings.client_config()?;
        let admin = AdminClient::from_config_and_context(&config, Quiet).map_err(misconfigured)?;
        Ok(Self {
            name: format!("{}.{name}", settings.prefix),
            admin,
            retention_ms,
            is_rekeyed: false,
            sources: Vec::new(),
        })
    }

    /// Whether the topic can accept messages, as far as metadata shows. Creates the topic if it is missing.
    pub(super) fn look(&self) -> Result<(), String> {
        match describe(self.admin.inner(), &[&self.name], ANSWER_WAIT).as_deref() {
            Ok([Ok(found)]) if found.may.is_some_and(|may| !may.write) => Err(FORBIDDEN.to_owned()),
            // Permission to write implies permission to describe.
            Ok([Err(RDKafkaErrorCode::TopicAuthorizationFailed)]) => Err(FORBIDDEN.to_owned()),
            Ok([Err(RDKafkaErrorCode::UnknownTopicOrPartition)]) => {
                let created = self.create().map(drop);
                created.map_err(|reason| format!("it does not exist, and was not created: {reason}"))
            }
            // Other failures show when a message is sent.
            _ => Ok(()),
        }
    }

    /// Creates the topic if it does not exist, and waits until the brokers describe it.
    pub(super) fn ensure(&self) -> Result<(), SourceError> {
        const SLICES: u32 = 50;
        let failed = |reason: &str| SourceError::Unavailable(format!("topic `{}`: {reason}", self.name));
        let exists = || self.exists().map_err(|code| failed(&format!("not described: {code}")));
        if exists()? {
            return Ok(());
        }
        self.create().map_err(|reason| {
            failed(&format!("it does not exist, and was not created: {reason}; run `tokenwarden topics create`"))
        })?;
        // A new topic is not known to all brokers at once.
        for _ in 0..SLICES {
            if exists()? {
                return Ok(());
            }
            std::thread::sleep(ANSWER_WAIT / SLICES);
        }
        Err(failed("it was created, but the brokers do not describe it to this client (ACL: Describe)"))
    }

    /// Whether the brokers describe the topic.
    pub(super) fn exists(&self) -> Result<bool, RDKafkaErrorCode> {
        describe(self.admin.inner(), &[&self.name], ANSWER_WAIT).map(|found| found.iter().all(Result::is_ok))
    }

    /// Creates the topic, if it is missing, with the brokers' default of replicas. Returns its number of partitions.
    pub(super) fn create(&self) -> Result<usize, String> {
        let partitions = self.partitions()?;
        let topic =
            NewTopic::new(&self.name, i32::try_from(partitions).unwrap_or(i32::MAX), TopicReplication::Fixed(-1))
                .set("cleanup.policy", "delete")
                .set("retention.ms", self.retention_ms);
        let bytes = (BATCH_BYTES_MAX + HEADER_BYTES).to_string();
        let topic = if self.is_rekeyed {
            topic.set("message.timestamp.type", "LogAppendTime").set("max.message.bytes", &bytes)
        } else {
            topic
        };
        create_topic(&self.admin, &topic).map_err(|error| error.to_string())?;
        Ok(partitions)
    }

    /// Maximum size of a message of the sources, with room for headers. `None`: the brokers do not report all.
    pub(super) fn message_bytes(&self) -> Option<usize> {
        let asked: Vec<_> = self.sources.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WAIT));
        let found = futures::executor::block_on(self.admin.describe_configs(&asked, &options)).ok()?;
        let bytes = found.into_iter().map(|config| {
            let config = config.ok()?;
            config.get("max.message.bytes")?.value.as_ref()?.parse::<usize>().ok()
        });
        Some(bytes.collect::<Option<Vec<_>>>()?.into_iter().max()? + HEADER_BYTES)
    }

    fn partitions(&self) -> Result<usize, String> {
        let mut most = 1;
        for source in &self.sources {
            let metadata = self.admin.inner().fetch_metadata(Some(source), ANSWER_WAIT);
            let metadata = metadata.map_err(|error| format!("topic {source}: {error}"))?;
            let counts = metadata.topics().iter().map(|topic| topic.partitions().len());
            most = counts.fold(most, usize::max);
        }
        Ok(most)
    }
}

/// Stores the delivery results of messages to the topic. `T` identifies a message.
pub(super) struct Results<T> {
    delivered: Mutex<Vec<(T, KafkaResult<()>)>>,
    log: fn(RDKafkaLogLevel, &str, &str),
}

impl<T> Results<T> {
    /// `log` receives level, facility and text of the client's messages.
    pub(super) fn new(log: fn(RDKafkaLogLevel, &str, &str)) -> Self {
        Self { delivered: Mutex::default(), log }
    }

    /// The results since the last call.
    pub(super) fn take(&self) -> Vec<(T, KafkaResult<()>)> {
        std::mem::take(&mut *unpoisoned(&self.delivered))
    }
}

impl<T: Send + 'static> ClientContext for Results<T> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        (self.log)(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer");
    }
}

impl<T: IntoOpaque + 'static> ProducerContext for Results<T> {
    type DeliveryOpaque = T;

    fn delivery(&self, delivered: &DeliveryResult<'_>, message: T) {
        let result = delivered.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        unpoisoned(&self.delivered).push((message, result));
    }
}
