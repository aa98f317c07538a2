//! Messages that are forwarded to the partitions of their subjects.

use smallvec::SmallVec;

use crate::checkpoint::Position;
use crate::event::Event;

/// Where a message comes from.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// Its producer sent it to its position.
    Here,
    /// It is a copy of a message of another topic.
    Forwarded(&'a Forwarded),
    /// It was forwarded for another consumer group, which has the same topic.
    OtherGroup,
    /// It is in the topic of forwarded messages, and it is not known from where. The reason is that of its dead letter.
    Unknown(&'static str),
}

/// Origin of a forwarded message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Position of the original message.
    pub source: Position,
    /// Position of the forwarded message in the rows of its events. Its topic names both topics.
    pub in_rows: Position,
    pub share: Share,
    /// The payload is incomplete, because the topic of forwarded messages does not accept a message of its size.
    pub is_cut: bool,
}

/// The events of a message that one of its copies is for. A message is copied to each partition that has one of its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Partition of this copy.
    own: i32,
    /// Partitions of all copies.
    copies: SmallVec<[i32; 4]>,
    /// Number of partitions among which the events were distributed.
    among: usize,
}

impl Share {
    /// `None` if there is no copy in `own`, or no partition with the number of a copy.
    pub(crate) fn new(own: i32, copies: SmallVec<[i32; 4]>, among: usize) -> Option<Self> {
        let exists = |partition: &i32| usize::try_from(*partition).is_ok_and(|partition| partition < among);
        (copies.contains(&own) && copies.iter().all(exists)).then_some(Self { own, copies, among })
    }

    /// Whether this is the first copy, which is also for everything except events.
    pub(crate) fn is_first(&self) -> bool {
        self.copies.first() == Some(&self.own)
    }

    /// Whether this copy is for `event`. Each event belongs to exactly one copy, also if another build, which decodes other
    /// events, has distributed them: the first copy is for those whose partition has no copy.
    pub(crate) fn contains(&self, event: &Event<'_>) -> bool {
        if self.copies.len() == 1 {
            return true;
        }
        let partition = event.partition_among(self.among) as i32;
        partition == self.own || (self.is_first() && !self.copies.contains(&partition))
    }
}

/// Finds the partitions to which a message is forwarded.
pub trait Splitter: Send {
    /// The partitions, out of `among`, that have an event of a message of `topic`, in the order of their first events. Empty
    /// if no event can be decoded.
    fn split(&mut self, topic: &str, payload: &[u8], among: usize) -> &[i32];

    /// A payload with bearer tokens replaced. It must be complete, because a cut token is not recognised.
    fn redact(&self, payload: &[u8]) -> Vec<u8>;
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn event_belongs_to_exactly_one_copy() {
        let users: Vec<_> = (0..40).map(|number| format!("user-{number}")).collect();
        // The copies for partitions 3 and 1; another build decodes events of other partitions too.
        let copies = [3, 1].map(|own| Share::new(own, SmallVec::from_slice(&[3, 1]), 5).expect("a share"));
        assert!(copies[0].is_first() && !copies[1].is_first());
        for user in &users {
            let event = Event { user_id: Some(Cow::from(user.as_str())), ..Event::default() };
            let expected = if event.partition_among(5) == 1 { [false, true] } else { [true, false] };
            assert_eq!([0, 1].map(|copy: usize| copies[copy].contains(&event)), expected, "{user}");
        }
    }

    #[test]
    fn share_names_existing_partitions() {
        let share = |own, copies: &[i32], among| Share::new(own, SmallVec::from_slice(copies), among);
        assert!(share(1, &[0, 1], 2).is_some());
        assert_eq!(share(1, &[0], 2), None);
        assert_eq!(share(1, &[1, 2], 2), None);
        assert_eq!(share(-1, &[-1], 2), None);
        assert_eq!(share(0, &[], 0), None);
    }
}
