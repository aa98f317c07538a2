//! The first requests to the brokers, and error texts for their failures.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::types::RDKafkaConfRes;

use super::member::Member;
use super::settings::{ANSWER_WAIT, KafkaSettings};
use crate::port::SourceError;

/// Why a topic is not created.
#[derive(Debug, thiserror::Error)]
pub(super) enum CreateError {
    /// The request failed.
    #[error("{0}")]
    Request(KafkaError),
    #[error("{0}")]
    Refused(RDKafkaErrorCode),
    /// It exists now or has existed before.
    #[error("it exists, but we may not see it (ACL: Describe)")]
    Hidden,
}

/// Creates a topic, if it is missing.
pub(super) fn create_topic<C: ClientContext>(admin: &AdminClient<C>, topic: &NewTopic<'_>) -> Result<(), CreateError> {
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WAIT));
    let results = futures::executor::block_on(admin.create_topics([topic], &options));
    for result in results.map_err(CreateError::Request)? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(CreateError::Refused(code)),
        }
    }
    Ok(())
}

/// Whether a retry cannot help. A topic that we may no longer read is reported, and the others continue.
pub(super) fn is_final(error: &KafkaError) -> bool {
    match error {
        KafkaError::MessageConsumptionFatal(_) => true,
        KafkaError::MessageConsumption(code) => matches!(
            code,
            RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::Fatal
        ),
        _ => false,
    }
}

pub(super) fn misconfigured(error: KafkaError) -> SourceError {
    let reason = match error {
        // librdkafka's reason contains the value, which may be a secret.
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_INVALID, _, key, _) => {
            format!("source.kafka.properties, `{key}`: librdkafka refuses its value")
        }
        KafkaError::ClientConfig(_, reason, key, _) => format!("source.kafka.properties, `{key}`: {reason}"),
        other => other.to_string(),
    };
    SourceError::Misconfigured(reason)
}

/// Requests the metadata of every topic that is scored, to report a wrong name, address or password at once. Returns the number of
/// partitions of all topics.
pub(super) fn check_topics(consumer: &BaseConsumer<Member>, settings: &KafkaSettings) -> Result<u32, SourceError> {
    let mut partitions = 0;
    if settings.topics.is_empty() {
        return Err(SourceError::Misconfigured("source.kafka.topics is empty; name at least one topic".to_owned()));
    }
    for topic in &settings.scored_topics() {
        let metadata = ask(consumer, topic, &settings.brokers)?;
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        partitions += found.map_or(0, |topic| topic.partitions().len() as u32);
        let error = found.and_then(MetadataTopic::error);
        match error.map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Err(SourceError::Unavailable(format!(
                    "Kafka at {} has no topic `{topic}`; create it or correct source.kafka.topics",
                    settings.brokers
                )));
            }
            Some(code) => {
                return Err(SourceError::Unavailable(format!("Kafka refuses topic `{topic}`: {code}")));
            }
        }
    }
    Ok(partitions)
}

/// Metadata of `topic`, or an error. A refused login is reported without waiting for the timeout.
pub(super) fn ask(consumer: &BaseConsumer<Member>, topic: &str, brokers: &str) -> Result<Metadata, SourceError> {
    let slice = Duration::from_secs(1);
    let mut waited = Duration::ZERO;
    loop {
        match consumer.fetch_metadata(Some(topic), slice) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => {
                // Polling returns errors and their reasons, after log lines and statistics.
                while consumer.poll(Duration::from_millis(50)).is_some() {}
                waited += slice;
                let context = consumer.context();
                let refused = context.refused.load(Ordering::Relaxed);
                if refused || waited >= ANSWER_WAIT {
                    let what = if refused {
                        "refuses the login (source.kafka.properties)"
                    } else {
                        "does not answer (source.kafka.brokers)"
                    };
                    let error = context.explained(&error.to_string());
                    return Err(SourceError::Unavailable(format!("Kafka at {brokers} {what}: {error}")));
                }
            }
        }
    }
}
