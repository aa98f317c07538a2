//! Where in its source a message stood, and how far everything before it is done.

use std::sync::Arc;

/// Place of one message in its source. For a file, `topic` is its path, `partition` 0 and `offset` the line's number
/// (from 0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
}

/// When a log took a message, by the log's own record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTime {
    /// Milliseconds since the epoch.
    pub millis: i64,
    pub kind: LogTimeKind,
}

/// Whose clock a [`LogTime`] is of: Kafka's `message.timestamp.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTimeKind {
    /// `LogAppendTime`: the broker's, when it appended the message.
    Append,
    /// `CreateTime`: the producer's, who may choose it.
    Create,
}

/// The offsets to read next, one a topic and partition: everything before them has reached the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub next: Vec<Position>,
}

impl Checkpoint {
    /// Notes that the message at `position` is done.
    pub fn advance(&mut self, position: &Position) {
        self.reach(position, position.offset + 1);
    }

    /// Notes that everything before `other` is done too.
    pub fn merge(&mut self, other: &Self) {
        for position in &other.next {
            self.reach(position, position.offset);
        }
    }

    fn reach(&mut self, position: &Position, offset: i64) {
        match self.next.iter_mut().find(|p| p.partition == position.partition && p.topic == position.topic) {
            Some(known) => known.offset = known.offset.max(offset),
            None => self.next.push(Position { offset, ..position.clone() }),
        }
    }
}

/// Place of a fault within a message.
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

/// A message that could not be decoded, kept whole where people can find it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    pub position: Position,
    /// Milliseconds since the epoch, wall clock.
    pub received_at: i64,
    /// What was wrong: the same text for the same fault. Holds no part of the message.
    pub reason: String,
    /// Where in the message it was noticed; `None` where it is the message as a whole.
    pub at: Option<Spot>,
    /// The original bytes, with bearer values replaced.
    pub payload: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_the_offset_after_the_last_done_one() {
        let at = |partition, offset| Position { topic: "t".into(), partition, offset };
        let mut checkpoint = Checkpoint::default();
        for position in [at(0, 4), at(1, 9), at(0, 5), at(0, 3)] {
            checkpoint.advance(&position);
        }
        assert_eq!(checkpoint.next, vec![at(0, 6), at(1, 10)]);
        checkpoint.merge(&Checkpoint { next: vec![at(1, 12), at(0, 2), at(2, 5)] });
        assert_eq!(checkpoint.next, vec![at(0, 6), at(1, 12), at(2, 5)]);
    }
}
