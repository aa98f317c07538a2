//! The topic of dead letters, and the producer that writes to it.

use std::sync::Mutex;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};

use super::member::{log, unpoisoned};
use super::settings::KafkaSettings;
use super::{ANSWER_WAIT, misconfigured};
use crate::checkpoint::DeadLetter;
use crate::port::SourceError;

/// How long dead letters may take to be acknowledged before they are sent again.
const LETTERS_WAIT: Duration = Duration::from_secs(5);
/// A dead letter longer than this is cut in its topic: brokers and librdkafka take 1,000,000 bytes by default, its
/// headers included.
const LETTER_BYTES_MAX: usize = 900_000;

/// Where messages go that cannot be decoded.
pub(super) struct DeadLetterTopic {
    producer: ThreadedProducer<Sender>,
    name: String,
}

impl DeadLetterTopic {
    /// Makes the topic where it is missing and we may.
    pub(super) fn open(settings: &KafkaSettings) -> Result<Self, SourceError> {
        let name = format!("{}.dead-letters", settings.prefix);
        let mut config = settings.client_config()?;
        let admin = AdminClient::from_config_and_context(&config, Sender::default()).map_err(misconfigured)?;
        let topic = NewTopic::new(&name, 1, TopicReplication::Fixed(-1));
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WAIT));
        match futures::executor::block_on(admin.create_topics([&topic], &options)) {
            Ok(results) => {
                for result in results {
                    match result {
                        Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                        Err((name, code)) => tracing::warn!(topic = name, %code, "topic not created; make it by hand"),
                    }
                }
            }
            Err(error) => tracing::warn!(topic = name, %error, "topic not created; make it by hand"),
        }
        config.set("enable.idempotence", "true").set("message.timeout.ms", "30000").set("linger.ms", "5");
        let producer = ThreadedProducer::from_config_and_context(&config, Sender::default()).map_err(misconfigured)?;
        Ok(Self { producer, name })
    }

    /// Returns once the brokers have all of them.
    pub(super) fn send(&self, letters: &[DeadLetter]) -> Result<(), SourceError> {
        let unavailable = |reason: String| SourceError::Unavailable(format!("topic `{}`: {reason}", self.name));
        for letter in letters {
            let (partition, offset) = (letter.position.partition.to_string(), letter.position.offset.to_string());
            let place = letter.at.map_or_else(String::new, |at| at.to_string());
            let mut headers = [
                ("source_topic", letter.position.topic.as_bytes()),
                ("source_partition", partition.as_bytes()),
                ("source_offset", offset.as_bytes()),
                ("reason", letter.reason.as_bytes()),
                ("place", place.as_bytes()),
            ]
            .into_iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
            let mut payload = letter.payload.as_slice();
            if let Some(kept) = payload.get(..LETTER_BYTES_MAX) {
                headers = headers.insert(Header { key: "cut_from_bytes", value: Some(&payload.len().to_string()) });
                payload = kept;
            }
            let key = format!("{}/{partition}/{offset}", letter.position.topic);
            let mut record = BaseRecord::to(&self.name).key(&key).payload(payload).headers(headers);
            // The producer's queue is bounded: where it is full, wait for it to empty.
            while let Err((error, back)) = self.producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(unavailable(error.to_string()));
                }
                self.producer.flush(LETTERS_WAIT).map_err(|error| unavailable(error.to_string()))?;
                record = back;
            }
        }
        if letters.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.producer.flush(LETTERS_WAIT) {
            // They will all be sent again.
            self.producer.purge(PurgeConfig::default().queue().inflight());
            return Err(unavailable(error.to_string()));
        }
        match unpoisoned(&self.producer.context().failed).take() {
            Some(error) => Err(unavailable(error.to_string())),
            None => Ok(()),
        }
    }
}

/// Notes deliveries that failed.
#[derive(Default)]
struct Sender {
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Sender {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Sender {
    type DeliveryOpaque = ();

    fn delivery(&self, delivered: &rdkafka::producer::DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = delivered {
            *unpoisoned(&self.failed) = Some(error.clone());
        }
    }
}
