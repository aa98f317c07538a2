//! Requests for the start offsets of partitions, and the answers.

use std::sync::Arc;

use rdkafka::error::RDKafkaErrorCode;

use super::resume::{Left, Log, Resume};
use crate::checkpoint::TopicId;

/// A partition whose start offset is requested.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    /// Returned with the answer.
    pub(super) generation: u64,
    /// Where reading of the partition stalled; `None`: start at the committed offset.
    pub(super) stalled: Option<Left>,
}

/// Answers of the brokers.
pub(super) enum Answer {
    Partition(Found),
    /// The snapshot of the partition cannot be read now.
    StateUnavailable(Wanted),
    Topic {
        topic: Arc<str>,
        found: Result<TopicId, RDKafkaErrorCode>,
    },
}

/// Start of a partition.
pub(super) struct Found {
    pub(super) wanted: Wanted,
    /// The committed offset, if there is one.
    pub(super) left: Option<i64>,
    pub(super) log: Log,
    pub(super) resume: Resume,
}
