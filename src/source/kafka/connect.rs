//! The first questions to the brokers, and how their refusals are told.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::types::RDKafkaConfRes;

use super::member::Member;
use super::settings::{ANSWER_WAIT, KafkaSettings};
use crate::port::SourceError;

/// Whether waiting cannot help. A topic that we may not read any more is reported, and the others go on.
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
        // The reason repeats the value, which may be a secret.
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_INVALID, _, key, _) => {
            format!("source.kafka.properties, `{key}`: librdkafka does not take its value")
        }
        KafkaError::ClientConfig(_, reason, key, _) => format!("source.kafka.properties, `{key}`: {reason}"),
        other => other.to_string(),
    };
    SourceError::Misconfigured(reason)
}

/// Asks for every topic, so that a wrong name, address or password is told at once and clearly. Returns the number of
/// their partitions.
pub(super) fn check_topics(consumer: &BaseConsumer<Member>, settings: &KafkaSettings) -> Result<u32, SourceError> {
    let mut partitions = 0;
    if settings.topics.is_empty() {
        return Err(SourceError::Misconfigured("source.kafka.topics is empty; name at least one topic".to_owned()));
    }
    for topic in &settings.topics {
        let metadata = ask(consumer, &topic.topic, &settings.brokers)?;
        let found = metadata.topics().iter().find(|t| t.name() == topic.topic);
        partitions += found.map_or(0, |topic| topic.partitions().len() as u32);
        let error = found.and_then(MetadataTopic::error);
        match error.map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Err(SourceError::Unavailable(format!(
                    "Kafka at {} has no topic `{}`; create it or correct source.kafka.topics",
                    settings.brokers, topic.topic
                )));
            }
            Some(code) => {
                return Err(SourceError::Unavailable(format!("Kafka refuses topic `{}`: {code}", topic.topic)));
            }
        }
    }
    Ok(partitions)
}

/// Metadata of `topic`, or why there is none: a refused login is told without waiting for the whole time.
pub(super) fn ask(consumer: &BaseConsumer<Member>, topic: &str, brokers: &str) -> Result<Metadata, SourceError> {
    let slice = Duration::from_secs(1);
    let mut waited = Duration::ZERO;
    loop {
        match consumer.fetch_metadata(Some(topic), slice) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => {
                // Errors, with their reasons, come by polling, behind log lines and statistics.
                while consumer.poll(Duration::from_millis(50)).is_some() {}
                waited += slice;
                let context = consumer.context();
                let refused = context.refused.load(Ordering::Relaxed);
                if refused || waited >= ANSWER_WAIT {
                    let what = if refused {
                        "does not let us in (source.kafka.properties)"
                    } else {
                        "does not answer (source.kafka.brokers)"
                    };
                    let told = context.told(&error.to_string());
                    return Err(SourceError::Unavailable(format!("Kafka at {brokers} {what}: {told}")));
                }
            }
        }
    }
}
