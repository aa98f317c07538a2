//! A partition of the topic of snapshots, for reading.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use super::member::log;
use super::settings::ANSWER_WAIT;
use crate::port::SnapshotReader;

/// Maximum time for the next message. An error counts as [`READ_SLICE`].
const READ_WAIT: Duration = Duration::from_secs(20);
const READ_SLICE: Duration = Duration::from_secs(1);

pub(super) fn failed(error: KafkaError) -> io::Error {
    io::Error::other(error)
}

/// Context of a client that reports its errors to its caller.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_of_client(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for Quiet {}

/// Omits the warnings about properties, which other clients log at the start: the clients of this module are made again
/// and again.
pub(super) fn log_of_client(level: RDKafkaLogLevel, facility: &str, message: &str) {
    if facility != "CONFWARN" {
        log(level, facility, message);
    }
}

/// A partition of the topic, read without a group.
pub(super) struct Log {
    consumer: BaseConsumer<Quiet>,
    topic: Arc<str>,
    partition: i32,
}

impl Log {
    pub(super) fn open(config: &ClientConfig, group_id: &str, topic: &Arc<str>, partition: i32) -> io::Result<Self> {
        let mut config = config.clone();
        config
            // Needed by the client, and not used, because offsets are neither read nor committed.
            .set("group.id", group_id)
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error");
        let consumer = BaseConsumer::from_config_and_context(&config, Quiet).map_err(failed)?;
        Ok(Self { consumer, topic: Arc::clone(topic), partition })
    }

    /// The offset of the earliest message, and the one after the last.
    pub(super) fn ends(&self) -> io::Result<(i64, i64)> {
        self.consumer.fetch_watermarks(&self.topic, self.partition, ANSWER_WAIT).map_err(failed)
    }

    /// The `count` messages from the offset `first` on whose keys are `keys` with a number from 0.
    pub(super) const fn records(self, first: i64, keys: String, count: u32) -> Records {
        Records { log: self, first, keys, next: 0, left: count }
    }

    fn seek(&self, from: i64) -> io::Result<()> {
        let mut start = TopicPartitionList::new();
        start.add_partition_offset(&self.topic, self.partition, Offset::Offset(from)).map_err(failed)?;
        self.consumer.assign(&start).map_err(failed)
    }

    /// Passes messages to `take` until it returns a value, or to the end.
    fn read<T>(&self, mut take: impl FnMut(&str, Option<&[u8]>) -> Option<T>) -> io::Result<Option<T>> {
        let (mut waited, mut reason) = (Duration::ZERO, "the brokers do not answer".to_owned());
        while waited < READ_WAIT {
            match self.consumer.poll(READ_SLICE) {
                Some(Ok(message)) => {
                    waited = Duration::ZERO;
                    let key = message.key().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
                    if let Some(found) = take(key, message.payload()) {
                        return Ok(Some(found));
                    }
                    continue;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                    return Err(io::Error::new(ErrorKind::InvalidData, "its records are not in the log"));
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(failed(error)),
                // The client retries other errors.
                Some(Err(error)) => reason = error.to_string(),
                None => {}
            }
            waited += READ_SLICE;
        }
        Err(io::Error::new(ErrorKind::TimedOut, reason))
    }

    /// The payload of the last message with `key`, from an offset on.
    pub(super) fn last(&self, key: &str, from: i64) -> io::Result<Option<Vec<u8>>> {
        self.seek(from)?;
        let mut last = None;
        self.read(|found, payload| {
            if found == key {
                last = payload.map(<[u8]>::to_vec);
            }
            None::<()>
        })?;
        Ok(last)
    }
}

/// The records of a snapshot.
pub(super) struct Records {
    log: Log,
    /// Offset of the first one.
    first: i64,
    /// The beginning of their keys.
    keys: String,
    next: u32,
    left: u32,
}

impl SnapshotReader for Records {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.left == 0 {
            return Ok(None);
        }
        // Not before, because librdkafka may abort the process if a consumer is dropped just after a second assignment.
        if self.next == 0 {
            self.log.seek(self.first)?;
        }
        let key = format!("{}{}", self.keys, self.next);
        let found = self.log.read(|found, payload| if found == key { payload.map(<[u8]>::to_vec) } else { None })?;
        self.next += 1;
        self.left -= 1;
        Ok(found)
    }
}
