//! The newest messages of a topic, for a check of their keys.

use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::{Offset, TopicPartitionList};

use super::connect::misconfigured;
use super::settings::{ANSWER_WAIT, KafkaSettings};
use super::state_log::Quiet;
use crate::port::SourceError;

/// Messages per partition, and partitions per topic.
const MESSAGES_MAX: i64 = 20;
const PARTITIONS_MAX: usize = 16;
/// Time limit for the next message.
const READ_WAIT: Duration = Duration::from_secs(2);

/// Passes key and payload of the newest messages of `topic` to `take`. Reads at most [`MESSAGES_MAX`] messages of each of
/// [`PARTITIONS_MAX`] partitions, and nothing if the topic has one partition. Joins no group and commits nothing. Returns
/// the number of messages.
pub(crate) fn sample(
    settings: &KafkaSettings,
    topic: &str,
    take: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<usize, SourceError> {
    let failed = |error: KafkaError| SourceError::Unavailable(format!("topic `{topic}`: {error}"));
    let mut config = settings.client_config()?;
    // The client needs a group, which is not used: no offset is read or committed.
    config.set("group.id", &settings.group_id).set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
    let consumer = BaseConsumer::from_config_and_context(&config, Quiet).map_err(misconfigured)?;
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_WAIT).map_err(failed)?;
    let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
    let partitions: Vec<i32> = partitions.map(MetadataPartition::id).collect();
    let mut from = TopicPartitionList::new();
    if partitions.len() > 1 {
        for partition in partitions.into_iter().take(PARTITIONS_MAX) {
            let (low, high) = consumer.fetch_watermarks(topic, partition, ANSWER_WAIT).map_err(failed)?;
            if high > low {
                let start = Offset::Offset((high - MESSAGES_MAX).max(low));
                from.add_partition_offset(topic, partition, start).map_err(failed)?;
            }
        }
    }
    let (mut unread, mut count) = (from.count(), 0);
    if unread == 0 {
        return Ok(0);
    }
    consumer.assign(&from).map_err(failed)?;
    let most = unread * MESSAGES_MAX as usize;
    while unread > 0 && count < most {
        match consumer.poll(READ_WAIT) {
            Some(Ok(message)) => {
                take(message.key().unwrap_or_default(), message.payload().unwrap_or_default());
                count += 1;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => unread -= 1,
            // The check reports what was read.
            Some(Err(_)) | None => break,
        }
    }
    Ok(count)
}
