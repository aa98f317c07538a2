//! Positions of messages in their source, checkpoints, and dead letters.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Position of one message in its source. For a file, `topic` is its path, `partition` is 0, and `offset` is the number
/// of the line, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub(crate) topic: Arc<str>,
    /// Distinguishes topics of the same name, because an offset is valid in one of them only.
    pub(crate) topic_id: TopicId,
    pub partition: i32,
    pub offset: i64,
}

impl Position {
    /// A position in a source without topic ids.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32, offset: i64) -> Self {
        Self { topic: topic.into(), topic_id: TopicId::NONE, partition, offset }
    }
}

/// Kafka's id of a topic. A topic that is deleted and created again with the same name gets another id (KIP-516).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TopicId(pub(crate) [u8; 16]);

impl TopicId {
    /// Value for files and for brokers before Kafka 2.8.
    pub(crate) const NONE: Self = Self([0; 16]);

    /// Whether the two are known to be different topics.
    pub(crate) fn is_other_than(self, other: Self) -> bool {
        self != other && self != Self::NONE && other != Self::NONE
    }
}

impl fmt::Display for TopicId {
    /// As in the tools of Kafka: 22 characters of URL-safe base64.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl Serialize for TopicId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TopicId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl FromStr for TopicId {
    type Err = base64::DecodeSliceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 16];
        match BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes)? {
            16 => Ok(Self(bytes)),
            short => Err(base64::DecodeError::InvalidLength(short).into()),
        }
    }
}

/// Time of a message in the log's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTime {
    /// Milliseconds since the epoch.
    pub millis: i64,
    pub kind: LogTimeKind,
}

/// Clock of a [`LogTime`]: Kafka's `message.timestamp.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTimeKind {
    /// `LogAppendTime`: the broker's clock, when it appended the message.
    Append,
    /// `CreateTime`: the producer chooses the time.
    Create,
}

/// The next offset to read of each topic and partition. The rows of all messages before it are in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub next: Vec<Position>,
}

impl Checkpoint {
    /// Records that the message at `position` is done. Messages of a partition arrive in order. An earlier offset after a
    /// later one comes from a log that has lost or replaced its end, and therefore replaces it.
    pub fn advance(&mut self, position: &Position) {
        self.reach(position, position.offset + 1);
    }

    /// Records that everything before `other`, a checkpoint of later messages, is done.
    pub(crate) fn merge(&mut self, other: &Self) {
        for position in &other.next {
            self.reach(position, position.offset);
        }
    }

    /// Whether everything before `position` is done.
    pub(crate) fn contains(&self, position: &Position) -> bool {
        let same = |next: &&Position| next.partition == position.partition && next.topic == position.topic;
        self.next.iter().find(same).is_some_and(|next| next.offset >= position.offset)
    }

    fn reach(&mut self, position: &Position, offset: i64) {
        match self.next.iter_mut().find(|p| p.partition == position.partition && p.topic == position.topic) {
            Some(known) => {
                known.offset = offset;
                known.topic_id = position.topic_id;
            }
            None => self.next.push(Position { offset, ..position.clone() }),
        }
    }
}

/// Where a file continues, and how to recognise the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bookmark {
    pub(crate) path: String,
    /// Number of the next record, from 0.
    pub(crate) next: i64,
    /// Another file with the same path begins with another record.
    pub(crate) first: FirstRecord,
}

/// The first record of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FirstRecord {
    /// Number of the record, from 0. Empty lines before it count.
    pub(crate) number: i64,
    /// XXH3 of the record.
    pub(crate) hash: u64,
}

/// Position of an error in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// From 0.
    pub byte: usize,
    /// From 1.
    pub line: usize,
    /// In bytes, from 1.
    pub column: usize,
}

impl std::fmt::Display for Spot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {} column {} (byte {})", self.line, self.column, self.byte)
    }
}

/// A message that could not be decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    pub position: Position,
    /// Milliseconds since the epoch, wall clock.
    pub received_at: i64,
    /// The error. The text is the same for the same error and contains no part of the message.
    pub reason: String,
    /// Position of the error. `None` if it concerns the whole message.
    pub at: Option<Spot>,
    /// The original bytes, with bearer tokens replaced.
    pub payload: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoint_is_the_offset_after_the_last_message() {
        let at = |partition, offset| Position::new("t", partition, offset);
        let mut checkpoint = Checkpoint::default();
        for position in [at(0, 4), at(1, 9), at(0, 5)] {
            checkpoint.advance(&position);
        }
        assert_eq!(checkpoint.next, vec![at(0, 6), at(1, 10)]);
        checkpoint.merge(&Checkpoint { next: vec![at(1, 12), at(0, 8), at(2, 5)] });
        assert_eq!(checkpoint.next, vec![at(0, 8), at(1, 12), at(2, 5)]);
    }

    #[test]
    fn checkpoint_follows_a_recreated_log() {
        let old = Position { topic_id: TopicId([1; 16]), ..Position::new("t", 0, 99) };
        let new = Position { topic_id: TopicId([2; 16]), offset: 0, ..old.clone() };
        let mut checkpoint = Checkpoint::default();
        checkpoint.advance(&old);
        checkpoint.advance(&new);
        assert_eq!(checkpoint.next, vec![Position { offset: 1, ..new }]);
    }

    #[test]
    fn topic_id_has_the_text_of_kafkas_tools() {
        let id = TopicId([0xfb, 0xff, 0xfe, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
        assert_eq!(id.to_string(), "-__-AQIDBAUGBwgJCgsMDQ");
        assert_eq!("-__-AQIDBAUGBwgJCgsMDQ".parse(), Ok(id));
        for wrong in ["", "-__-", "-__-AQIDBAUGBwgJCgsMDQ==", "-__-AQIDBAUGBwgJCgsMDQ0", "not an id"] {
            assert!(wrong.parse::<TopicId>().is_err(), "{wrong}");
        }
    }
}
