//! Events that tokenwarden itself sends to a source topic.

use async_trait::async_trait;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use super::own_topic::{ACKNOWLEDGE_WAIT_MS, producer};
use super::settings::KafkaSettings;
use super::state_log::Quiet;
use crate::port::{EventSink, SourceError};

/// A source topic.
pub struct EventTopic {
    topic: String,
    producer: FutureProducer<Quiet>,
}

impl EventTopic {
    /// Prepares a client. Sends no request to a broker.
    pub fn new(settings: &KafkaSettings, topic: &str) -> Result<Self, SourceError> {
        let mut config = settings.client_config()?;
        // The partitioner of the Java client, as docs/event.md requires of producers.
        config.set("partitioner", "murmur2_random");
        Ok(Self { topic: topic.to_owned(), producer: producer(config, ACKNOWLEDGE_WAIT_MS)? })
    }
}

#[async_trait]
impl EventSink for EventTopic {
    async fn send(&self, key: &str, event: &[u8]) -> Result<(), String> {
        let message = FutureRecord::to(&self.topic).key(key).payload(event);
        match self.producer.send(message, Timeout::Never).await {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(format!("topic `{}`: {error}", self.topic)),
        }
    }
}
