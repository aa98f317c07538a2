//! Messages that cannot be forwarded whole, and the size of transactions, kept over sessions.

use std::collections::HashSet;
use std::sync::Arc;

use crate::checkpoint::Position;

/// Size of the copies of a transaction.
const BYTES_MAX: usize = 32 << 20;
/// Size after one that has succeeded after a failure.
const BYTES_MIN: usize = 64 << 10;
/// Number of failures after which a message is cut.
const FAILURES_MAX: u32 = 3;

/// Original topic, partition and offset.
type Key = (Arc<str>, i32, i64);

/// Messages that the brokers did not accept because of their size.
pub(super) struct Refused {
    /// A batch was refused. Each message is sent in a batch of its own from now on, to find the ones that are too large.
    pub(super) one_by_one: bool,
    /// Their payloads are cut.
    messages: HashSet<Key>,
    bytes_max: usize,
    /// The largest message of the last failed transactions, and their number.
    suspected: Option<(Key, u32)>,
}

/// A transaction that has failed.
pub(super) struct FailedTransaction<'a> {
    /// Size of its copies.
    pub(super) bytes: usize,
    /// The message with the largest copies.
    pub(super) largest: &'a Position,
}

impl Default for Refused {
    fn default() -> Self {
        Self { one_by_one: false, messages: HashSet::new(), bytes_max: BYTES_MAX, suspected: None }
    }
}

impl Refused {
    /// Size at which a transaction is committed. After a failure it has one message, and then grows again.
    pub(super) const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether the payload of the message is cut.
    pub(super) fn contains(&self, position: &Position) -> bool {
        !self.messages.is_empty() && self.messages.contains(&key(position))
    }

    pub(super) fn insert(&mut self, position: &Position) {
        self.messages.insert(key(position));
    }

    /// Notes a transaction with the messages at these original positions.
    pub(super) fn succeeded(&mut self, messages: &[Position]) {
        self.bytes_max = (self.bytes_max * 2).clamp(BYTES_MIN, BYTES_MAX);
        let is_forwarded = |suspected: &Key| messages.iter().any(|message| key(message) == *suspected);
        if self.suspected.as_ref().is_some_and(|(suspected, _)| is_forwarded(suspected)) {
            self.suspected = None;
        }
        if !self.messages.is_empty() {
            for message in messages {
                self.messages.remove(&key(message));
            }
        }
    }

    /// Notes a failed transaction. `by_size`: its largest message may be the reason. Returns whether that message is cut
    /// from now on.
    pub(super) fn failed(&mut self, failed: &FailedTransaction<'_>, by_size: bool) -> bool {
        self.bytes_max = if failed.bytes > BYTES_MIN { 1 } else { self.bytes_max };
        if !by_size {
            return false;
        }
        let largest = key(failed.largest);
        let before = self.suspected.take().filter(|(suspected, _)| *suspected == largest);
        let failures = before.map_or(0, |(_, failures)| failures) + 1;
        if failures < FAILURES_MAX {
            self.suspected = Some((largest, failures));
            return false;
        }
        self.messages.insert(largest);
        true
    }
}

fn key(position: &Position) -> Key {
    (Arc::clone(&position.topic), position.partition, position.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Position {
        Position::new("audit", 0, offset)
    }

    #[test]
    fn message_that_fails_three_transactions_is_cut() {
        let mut refused = Refused::default();
        let (message, other) = (at(7), at(8));
        let failed = |refused: &mut Refused, largest, by_size| {
            refused.failed(&FailedTransaction { bytes: 1 << 30, largest }, by_size)
        };
        assert!(!failed(&mut refused, &message, true) && !failed(&mut refused, &message, true));
        assert!(!failed(&mut refused, &other, true), "another message");
        assert!(!failed(&mut refused, &message, true) && !failed(&mut refused, &message, true));
        refused.succeeded(std::slice::from_ref(&message));
        assert!(!failed(&mut refused, &message, true) && !failed(&mut refused, &message, true), "it was forwarded");
        refused.succeeded(&[at(3)]);
        for _ in 0..10 {
            assert!(!failed(&mut refused, &message, false), "an outage");
        }
        assert!(failed(&mut refused, &message, true));
        assert!(refused.contains(&message) && !refused.contains(&other));
        refused.succeeded(std::slice::from_ref(&message));
        assert!(!refused.contains(&message), "it is forwarded");
    }

    #[test]
    fn transactions_grow_again_after_a_failure() {
        let mut refused = Refused::default();
        assert_eq!(refused.bytes_max(), BYTES_MAX);
        refused.failed(&FailedTransaction { bytes: BYTES_MAX, largest: &at(7) }, false);
        assert_eq!(refused.bytes_max(), 1, "one message");
        refused.succeeded(&[at(7)]);
        assert_eq!(refused.bytes_max(), BYTES_MIN);
        (0..20).for_each(|_| refused.succeeded(&[]));
        assert_eq!(refused.bytes_max(), BYTES_MAX);
    }
}
