//! A partition owned by this member, and its messages while they are processed.

use std::sync::Arc;

use super::answer::{Found, Wanted};
use super::origin::{NoOrigin, Origins};
use super::results::Unacknowledged;
use super::resume::Left;
use crate::checkpoint::{LogTime, LogTimeKind, Position};
use crate::port::{Message, OffsetGap, Origin, SourceObserver};

/// A partition that this member owns.
pub(super) struct Owned {
    /// Position of the current message.
    pub(super) position: Position,
    /// The offset after the last message handed over.
    pub(super) next: i64,
    /// Messages before this offset are done.
    pub(super) live_from: i64,
    /// The partition is being read. Before that, its start offset is not known.
    pub(super) is_read: bool,
    /// Generation of the lookup in progress.
    pub(super) asked: Option<u64>,
    /// Generation of the last lookup, with which its state was restored.
    pub(super) ticket: u64,
    /// Messages before `live_from` remain to be read.
    pub(super) rebuilding: bool,
    /// The last reported number of messages from which the state must be rebuilt.
    reported_left: Option<i64>,
    /// Number of consecutive statistics in which it was not fetched.
    pub(super) idle: u32,
    /// It was restarted after a gap, and nothing has been committed since.
    pub(super) gap: bool,
    /// Offsets committed by us: the last one sent, and the last one confirmed.
    pub(super) sent: Option<i64>,
    pub(super) confirmed: Option<i64>,
    /// Results that the brokers do not have yet, and the offset to commit when they have those before it.
    pub(super) unacknowledged: Unacknowledged,
    pub(super) held: Option<i64>,
}

impl Owned {
    pub(super) fn new(position: Position) -> Self {
        Self {
            position,
            next: 0,
            live_from: 0,
            is_read: false,
            asked: None,
            ticket: 0,
            rebuilding: false,
            reported_left: None,
            idle: 0,
            gap: false,
            sent: None,
            confirmed: None,
            unacknowledged: Unacknowledged::default(),
            held: None,
        }
    }

    pub(super) fn is(&self, topic: &str, partition: i32) -> bool {
        self.position.partition == partition && *self.position.topic == *topic
    }

    /// The request for its lookup. Older answers are ignored from now on.
    pub(super) fn want(&mut self, generation: &mut u64, stalled: Option<Left>) -> Wanted {
        *generation += 1;
        self.asked = Some(*generation);
        self.ticket = *generation;
        let Position { topic, partition, .. } = &self.position;
        Wanted { topic: Arc::clone(topic), partition: *partition, generation: *generation, stalled }
    }

    /// Number of messages that must still be read to rebuild the state. `None`: it is rebuilt.
    fn rebuild_left(&self) -> Option<i64> {
        self.rebuilding.then_some(self.live_from - self.next)
    }

    /// Reports the progress of a rebuild, and its end.
    pub(super) fn report_rebuild(&mut self, observer: &dyn SourceObserver) {
        let left = self.rebuild_left();
        if left != self.reported_left {
            observer.rebuild_left(&self.position.topic, self.position.partition, left);
            self.reported_left = left;
        }
    }

    pub(super) fn log_rebuild(&self) {
        if let Some(left) = self.rebuild_left() {
            let (topic, partition) = (&*self.position.topic, self.position.partition);
            tracing::info!(topic, partition, left, "rebuilding the state from messages of the partition");
        }
    }

    /// Starts at the offset of `found`. Returns the gap, if there is one.
    pub(super) fn begin(&mut self, found: &Found) -> Option<OffsetGap> {
        let Found { left, log, resume, .. } = found;
        self.position.topic_id = log.topic_id;
        self.next = resume.from;
        self.live_from = resume.live_from;
        self.rebuilding = resume.from < resume.live_from;
        self.is_read = true;
        self.asked = None;
        self.idle = 0;
        self.gap |= resume.gap.is_some();
        // Commits for a deleted log do not apply to this one.
        (self.sent, self.confirmed, self.held) = (None, None, None);
        self.unacknowledged.clear();
        let Position { topic, partition, .. } = &self.position;
        if resume.gap.is_none() {
            let (committed, from) = (left, resume.from);
            tracing::info!(topic = &**topic, partition, committed, from, end = log.high, "partition taken over");
        }
        Some(OffsetGap {
            kind: resume.gap?,
            topic: Arc::clone(topic),
            partition: *partition,
            expected: left.unwrap_or(resume.from),
            resumed: resume.from,
            end: log.high,
        })
    }
}

/// Passes `message` to `take`. `origins`: the topics from which it may have been forwarded; `None`: it was not.
pub(super) fn hand_over(
    owned: &mut [Owned],
    origins: Option<&Origins>,
    message: &impl rdkafka::Message,
    take: &mut dyn FnMut(Message<'_>),
) {
    let mut candidates = owned.iter_mut().filter(|owned| owned.is(message.topic(), message.partition()));
    // No longer ours: the next owner reads it.
    let Some(owned) = candidates.next().filter(|owned| owned.is_read) else { return };
    owned.position.offset = message.offset();
    owned.next = message.offset() + 1;
    let replayed = message.offset() < owned.live_from;
    if owned.rebuilding {
        owned.rebuilding = owned.next < owned.live_from;
    }
    let (position, payload) = (&owned.position, message.payload().unwrap_or_default());
    let Some(origins) = origins else {
        let (key, logged_at) = (Some(message.key().unwrap_or_default()), log_time(message.timestamp()));
        return take(Message { position, key, payload, logged_at, replayed, origin: Origin::Here });
    };
    // The time of the record and its key are the forwarder's.
    match origins.read(message.headers(), position) {
        Ok((forwarded, logged_at)) => {
            take(Message { position, key: None, payload, logged_at, replayed, origin: Origin::Forwarded(&forwarded) });
        }
        Err(none) => {
            let origin = match none {
                NoOrigin::OtherGroup => Origin::OtherGroup,
                NoOrigin::Unknown(reason) => Origin::Unknown(reason),
            };
            take(Message { position, key: None, payload, logged_at: None, replayed, origin });
        }
    }
}

/// Text of a partition in reports.
pub(super) fn part(topic: &str, partition: i32) -> String {
    format!("{topic}/{partition}")
}

/// The record's timestamp; a negative one is Kafka's "none".
fn log_time(timestamp: rdkafka::Timestamp) -> Option<LogTime> {
    let (millis, kind) = match timestamp {
        rdkafka::Timestamp::NotAvailable => return None,
        rdkafka::Timestamp::CreateTime(millis) => (millis, LogTimeKind::Create),
        rdkafka::Timestamp::LogAppendTime(millis) => (millis, LogTimeKind::Append),
    };
    (millis >= 0).then_some(LogTime { millis, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_time_names_the_clock_and_is_never_negative() {
        let of = |millis, kind| Some(LogTime { millis, kind });
        assert_eq!(log_time(rdkafka::Timestamp::LogAppendTime(7)), of(7, LogTimeKind::Append));
        assert_eq!(log_time(rdkafka::Timestamp::CreateTime(7)), of(7, LogTimeKind::Create));
        assert_eq!(log_time(rdkafka::Timestamp::CreateTime(-1)), None);
        assert_eq!(log_time(rdkafka::Timestamp::NotAvailable), None);
    }
}
