//! Events that tokenwarden itself sends to a source topic.

use async_trait::async_trait;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use super::connect::misconfigured;
use super::settings::KafkaSettings;
use super::state_log::Quiet;
use crate::port::{EventSink, SourceError};

/// Time limit for the brokers to acknowledge an event.
const ACKNOWLEDGE_WAIT_MS: &str = "10000";

/// A source topic.
pub struct EventTopic {
    topic: String,
    producer: FutureProducer<Quiet>,
}

impl EventTopic {
    /// Prepares a client. Sends no request to a broker.
    pub fn new(settings: &KafkaSettings, topic: &str) -> Result<Self, SourceError> {
        let mut config = settings.client_config()?;
        config.set("acks", "all").set("message.timeout.ms", ACKNOWLEDGE_WAIT_MS);
        // The partitioner of the Java client, as docs/event.md requires of producers.
        config.set("partitioner", "murmur2_random");
        let producer = FutureProducer::from_config_and_context(&config, Quiet).map_err(misconfigured)?;
        Ok(Self { topic: topic.to_owned(), producer })
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
