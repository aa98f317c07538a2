//! The end of a snapshot, which describes it.

use serde::{Deserialize, Serialize};

use super::unreadable::{Unreadable, check_format};
use crate::checkpoint::{Bookmark, Position, TopicId};

/// The records of a state as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extent {
    pub records: u32,
    /// Bytes of all records.
    pub bytes: u64,
    /// XXH3 of all payloads. States with the same content have the same digest.
    pub digest: u64,
}

/// Name of the state of a partition.
pub(crate) fn state_name(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

/// The end of a snapshot: what it contains, and what wrote it. Fields that an older or newer build does not know are
/// ignored, or have their defaults, so that every build can describe the snapshots of every other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Marker {
    /// Version of the format of the state.
    pub format: u32,
    /// Version of the build that wrote it.
    pub build: String,
    /// Milliseconds since the epoch, wall clock.
    pub written_at: i64,
    pub extent: Extent,
    /// The state contains the events of all messages before these positions.
    pub next: Vec<Reached>,
    /// Where the files of the source continue.
    pub bookmarks: Vec<Bookmark>,
    pub baselines: u64,
    /// Time of the earliest event in the state, milliseconds since the epoch.
    pub memory_since: Option<i64>,
    /// Recognises the key of names ([`crate::key::KeyHasher::check`]).
    pub key: u64,
    /// XXH3 of the rules, and versions of the GeoIP files.
    pub rules: u64,
    pub geoip: Vec<String>,
}

impl Marker {
    /// Whether a build that reads `format` can read the state.
    pub(crate) fn check_format(&self, format: u32) -> Result<(), Unreadable> {
        check_format(self.format, format)
    }
}

/// The next offset of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reached {
    pub topic: String,
    /// Kafka's id of the topic; empty if it is not known.
    pub topic_id: String,
    pub partition: i32,
    pub next: i64,
}

impl Reached {
    pub(crate) fn of(next: &Position) -> Self {
        let Position { topic, topic_id, partition, offset } = next;
        let topic_id = if *topic_id == TopicId::NONE { String::new() } else { topic_id.to_string() };
        Self { topic: topic.to_string(), topic_id, partition: *partition, next: *offset }
    }

    /// Whether this is known to be another topic than that of `position`.
    pub(crate) fn is_of_other_topic(&self, position: &Position) -> bool {
        self.topic_id.parse().unwrap_or(TopicId::NONE).is_other_than(position.topic_id)
    }
}
