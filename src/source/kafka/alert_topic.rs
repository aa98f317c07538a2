//! A topic that gets the messages of an alert channel.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::util::Timeout;

use super::native::describe;
use super::own_topic::producer;
use super::settings::KafkaSettings;
use super::state_log::Quiet;
use crate::port::{DeliveryError, MessageTopic, SourceError};

/// Time limit for the brokers to acknowledge a message. Shorter than that of the delivery lane, which retries.
const ACKNOWLEDGE_WAIT_MS: &str = "30000";
/// Time limit for the description of the topic.
const DESCRIBE_WAIT: Duration = Duration::from_secs(10);

/// The topic, with a producer of its own.
pub struct AlertTopic {
    name: Arc<str>,
    producer: FutureProducer<Quiet>,
}

impl AlertTopic {
    /// Sends no request to a broker, so that the service starts without one. The error contains no secret.
    pub fn new(settings: &KafkaSettings, name: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > 249 || !name.bytes().all(plain) {
            return Err("is not the name of a topic: 1 to 249 letters, digits, `.`, `_` and `-`".to_owned());
        }
        if settings.topics.iter().any(|topic| topic.topic == name) {
            return Err(
                "is a topic of source.kafka.topics: alerts would be read as events; name another topic".to_owned()
            );
        }
        if name.strip_prefix(&*settings.prefix).is_some_and(|rest| rest.starts_with('.')) {
            let prefix = &settings.prefix;
            return Err(format!("begins with `{prefix}.`, as the topics that tokenwarden reads; name another topic"));
        }
        let reason = |error: SourceError| format!("cannot be used: {error}");
        let producer =
            settings.client_config().and_then(|config| producer(config, ACKNOWLEDGE_WAIT_MS)).map_err(reason)?;
        Ok(Self { name: name.into(), producer })
    }

    fn failed(&self, error: &KafkaError) -> DeliveryError {
        let reason = format!("topic `{}`: {error}", self.name);
        match error {
            KafkaError::MessageProduction(
                RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize,
            ) => DeliveryError::Permanent { reason, status: 0 },
            _ => DeliveryError::Retriable { reason, status: 0, retry_after: None },
        }
    }
}

#[async_trait]
impl MessageTopic for AlertTopic {
    fn name(&self) -> &str {
        &self.name
    }

    async fn send(&self, key: &str, value: &str) -> Result<(), DeliveryError> {
        let message = FutureRecord::to(&self.name).key(key).payload(value);
        let sent = self.producer.send(message, Timeout::Never).await;
        sent.map(|_| ()).map_err(|(error, _)| self.failed(&error))
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        let (producer, name) = (self.producer.clone(), Arc::clone(&self.name));
        let described = tokio::task::spawn_blocking(move || describe(producer.client(), &[&name], DESCRIBE_WAIT)).await;
        let problem = match described.ok().map(|described| described.map(|mut found| found.pop())) {
            Some(Ok(Some(Ok(found)))) if found.may.is_some_and(|may| !may.write) => {
                "we may not write to it (ACL)".to_owned()
            }
            Some(Ok(Some(Ok(_)))) => return Ok(()),
            Some(Ok(Some(Err(code))) | Err(code)) => code.to_string(),
            Some(Ok(None)) | None => "the brokers do not describe it".to_owned(),
        };
        let reason = format!("topic `{}`: {problem}", self.name);
        Err(DeliveryError::Retriable { reason, status: 0, retry_after: None })
    }
}
