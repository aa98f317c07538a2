//! Membership in the consumer group, as proof that a partition is owned.

use std::io;
use std::sync::{Arc, OnceLock, Weak};

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata};

use super::member::Member;

/// The membership of a consumer. Without a consumer, for example in a tool, nothing is checked.
#[derive(Clone, Default)]
pub(super) struct Membership(Arc<OnceLock<Weak<BaseConsumer<Member>>>>);

impl Membership {
    /// Binds this to `consumer`. Only the first call has an effect.
    pub(super) fn bind(&self, consumer: &Arc<BaseConsumer<Member>>) {
        let _ = self.0.set(Arc::downgrade(consumer));
    }

    /// Fails if the consumer knows that the group has assigned its partitions to other members.
    pub(super) fn check(&self) -> io::Result<()> {
        let Some(consumer) = self.0.get() else { return Ok(()) };
        match consumer.upgrade() {
            Some(consumer) if !consumer.assignment_lost() => Ok(()),
            _ => Err(left()),
        }
    }

    pub(super) fn is_bound(&self) -> bool {
        self.0.get().is_some()
    }

    /// Member id and generation at this time. `None`: there is no consumer.
    pub(super) fn now(&self) -> Option<ConsumerGroupMetadata> {
        self.0.get()?.upgrade()?.group_metadata()
    }
}

/// The error of a process that is not a member of the group any more.
pub(super) fn left() -> io::Error {
    io::Error::other("this process has left the consumer group")
}
