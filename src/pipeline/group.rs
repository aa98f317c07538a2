//! Groups of messages that are processed together.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::checkpoint::{LogTime, Position};
use crate::engine;
use crate::port::{Forwarded, Message, Origin};

/// Bytes from which no further message is added to a group. Large messages gain nothing from grouping.
const BYTES_MAX: usize = 256 * 1024;

/// Copies messages of one partition until they are enough for a group, so that the source can reuse the memory of each
/// message at once. A copy takes about 2 % of the time of decoding.
#[derive(Debug, Default)]
pub(crate) struct Group {
    bytes: Vec<u8>,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    position: Position,
    key: Option<Range<usize>>,
    payload: Range<usize>,
    logged_at: Option<LogTime>,
    replayed: bool,
    origin: Kept,
}

/// An [`Origin`] that does not borrow.
#[derive(Debug)]
enum Kept {
    Here,
    Forwarded(Forwarded),
    OtherGroup,
    Unknown(&'static str),
}

impl Group {
    /// Adds a message. Before that, passes the group to `take` if it is full or belongs to another partition.
    pub(crate) fn add(&mut self, message: &Message<'_>, take: &mut dyn FnMut(&[Message<'_>])) {
        let full = self.parts.len() >= engine::GROUP || self.bytes.len() >= BYTES_MAX;
        if full || !self.parts.first().is_none_or(|first| first.goes_with(message)) {
            self.hand_over(take);
        }
        let key = message.key.map(|key| self.copy(key));
        let payload = self.copy(message.payload);
        let &Message { logged_at, replayed, .. } = message;
        let origin = match message.origin {
            Origin::Here => Kept::Here,
            Origin::Forwarded(forwarded) => Kept::Forwarded(forwarded.clone()),
            Origin::OtherGroup => Kept::OtherGroup,
            Origin::Unknown(reason) => Kept::Unknown(reason),
        };
        self.parts.push(Part { position: message.position.clone(), key, payload, logged_at, replayed, origin });
    }

    /// Passes the messages to `take` and removes them.
    pub(crate) fn hand_over(&mut self, take: &mut dyn FnMut(&[Message<'_>])) {
        if !self.parts.is_empty() {
            take(&self.messages());
        }
        self.bytes.clear();
        self.parts.clear();
    }

    fn messages(&self) -> SmallVec<[Message<'_>; engine::GROUP]> {
        let bytes = |range: &Range<usize>| &self.bytes[range.clone()];
        let messages = self.parts.iter().map(|Part { position, key, payload, logged_at, replayed, origin }| {
            let (key, payload) = (key.as_ref().map(bytes), bytes(payload));
            let origin = match origin {
                Kept::Here => Origin::Here,
                Kept::Forwarded(forwarded) => Origin::Forwarded(forwarded),
                Kept::OtherGroup => Origin::OtherGroup,
                Kept::Unknown(reason) => Origin::Unknown(reason),
            };
            Message { position, key, payload, logged_at: *logged_at, replayed: *replayed, origin }
        });
        messages.collect()
    }

    fn copy(&mut self, text: &[u8]) -> Range<usize> {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(text);
        from..self.bytes.len()
    }
}

impl Part {
    /// Whether the message has the same partition and original topic, and is replayed, or not, in the same way.
    fn goes_with(&self, message: &Message<'_>) -> bool {
        let (one, other) = (&self.position, message.position);
        one.partition == other.partition
            && one.topic == other.topic
            && self.replayed == message.replayed
            && self.original_topic() == &message.original().topic
    }

    const fn original_topic(&self) -> &Arc<str> {
        match &self.origin {
            Kept::Forwarded(forwarded) => &forwarded.source.topic,
            Kept::Here | Kept::OtherGroup | Kept::Unknown(_) => &self.position.topic,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::LogTimeKind;

    fn logged_at(offset: i64) -> Option<LogTime> {
        (offset % 2 == 0).then_some(LogTime { millis: offset, kind: LogTimeKind::Append })
    }

    #[test]
    fn group_has_messages_of_one_partition_in_order() {
        let mut group = Group::default();
        let mut taken = Vec::new();
        let mut take = |messages: &[Message<'_>]| {
            let whole = |message: &Message<'_>| {
                assert_eq!(message.key, Some(&b"key"[..]));
                assert_eq!(message.logged_at, logged_at(message.position.offset));
                (message.position.partition, message.position.offset, message.replayed, message.payload.to_vec())
            };
            taken.push(messages.iter().map(whole).collect::<Vec<_>>());
        };
        let mut given = Vec::new();
        for offset in 0..100 {
            // Three partitions with seven messages each, then one partition with a large message.
            let partition = if offset < 21 { (offset / 7) as i32 } else { 9 };
            let replayed = offset >= 90;
            let payload = if offset == 60 { vec![b'x'; BYTES_MAX] } else { offset.to_string().into_bytes() };
            let position = Position::new("events", partition, offset);
            let logged_at = logged_at(offset);
            let message = Message {
                position: &position,
                key: Some(b"key"),
                payload: &payload,
                logged_at,
                replayed,
                origin: Origin::Here,
            };
            group.add(&message, &mut take);
            given.push((partition, offset, replayed, payload));
        }
        group.hand_over(&mut take);
        group.hand_over(&mut take);
        assert_eq!(taken.concat(), given, "each message once, in order");
        for together in &taken {
            assert!((1..=engine::GROUP).contains(&together.len()));
            assert!(together.iter().all(|one| (one.0, one.2) == (together[0].0, together[0].2)));
        }
        let large = taken.iter().find(|together| together.iter().any(|one| one.1 == 60)).expect("the large message");
        assert_eq!(large.last().map(|last| last.1), Some(60), "no message follows a large one in its group");
    }
}
