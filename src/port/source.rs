//! The source of messages.

use std::sync::Arc;
use std::time::Duration;

use super::condition::Condition;
use super::forwarded::Origin;
use crate::checkpoint::{Bookmark, Checkpoint, DeadLetter, LogTime, Position};

/// Maximum size of a record, bytes. A source that splits a stream truncates a longer record to one byte more, so that
/// decoding rejects it once, at its position.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 20;

/// Maximum size of a message, bytes, before and after decompression. A message may contain many records.
pub(crate) const BATCH_BYTES_MAX: usize = 64 << 20;

/// One raw message and its position.
#[derive(Debug)]
pub struct Message<'a> {
    pub position: &'a Position,
    /// Kafka message key. `None` if the source has no keys.
    pub key: Option<&'a [u8]>,
    pub payload: &'a [u8],
    /// Time in the log's record. `None` if the source has none.
    pub logged_at: Option<LogTime>,
    /// The message was done before this start and is read again to rebuild the state. It has no other effect.
    pub replayed: bool,
    pub origin: Origin<'a>,
}

impl Message<'_> {
    /// Position to which its producer sent the message.
    pub(crate) const fn original(&self) -> &Position {
        match self.origin {
            Origin::Forwarded(forwarded) => &forwarded.source,
            Origin::Here | Origin::OtherGroup | Origin::Unknown(_) => self.position,
        }
    }

    /// Position in the rows of its events.
    pub(crate) const fn in_rows(&self) -> &Position {
        match self.origin {
            Origin::Forwarded(forwarded) => &forwarded.in_rows,
            Origin::Here | Origin::OtherGroup | Origin::Unknown(_) => self.position,
        }
    }
}

/// An encoded result of one event, for a topic: its verdict, or its appearance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultRecord {
    /// Position of the message that contains the event.
    pub position: Position,
    /// Index of the event in the message, from 0.
    pub index: u32,
    /// The subject key of the event; for an appearance, its network.
    pub key: String,
    /// One JSON object.
    pub json: Vec<u8>,
}

impl ResultRecord {
    /// Size in memory, bytes.
    pub(crate) const fn bytes(&self) -> usize {
        size_of::<Self>() + self.key.len() + self.json.len()
    }
}

/// Why a source cannot continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The source does not respond, or denies access.
    #[error("{0}")]
    Unavailable(String),
    /// The source responds, but its content cannot be read.
    #[error("{0}")]
    Unusable(String),
    /// The settings of the source are wrong.
    #[error("{0}")]
    Misconfigured(String),
}

/// Result of a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Number of messages, 0 if none arrived in time.
    Messages(usize),
    /// Another member waits for these partitions (topic, number). Finish their messages, commit, then call
    /// [`Source::release`].
    Revoked(Vec<(Arc<str>, i32)>),
    /// Other members have all partitions already, so that no offset may be committed any more. Discard what is not
    /// committed, then call [`Source::release`].
    Lost,
    /// The end of a file.
    End,
}

/// Why a partition cannot be read from its committed or last offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GapKind {
    /// The offset is beyond the end of the log. The log lost its end, or the offset comes from another log.
    BeyondEnd,
    /// The log begins after the offset. Messages were deleted before they were read.
    Deleted,
    /// The topic was deleted and created again.
    Recreated,
    /// The end of the log was replaced by other messages (unclean leader election).
    Truncated,
}

impl GapKind {
    /// The label in `tokenwarden_offset_gaps_total`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::BeyondEnd => "beyond_end",
            Self::Deleted => "deleted_unread",
            Self::Recreated => "recreated",
            Self::Truncated => "truncated",
        }
    }
}

/// A partition that is read again from its earliest message, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetGap {
    pub kind: GapKind,
    pub topic: Arc<str>,
    pub partition: i32,
    /// Offset at which reading should have continued.
    pub expected: i64,
    /// Offset at which reading continues.
    pub resumed: i64,
    /// End of the log.
    pub end: i64,
}

impl OffsetGap {
    /// Number of messages that were deleted unread. 0 for other kinds, where the number is unknown.
    pub fn lost(&self) -> u64 {
        match self.kind {
            GapKind::Deleted => u64::try_from(self.resumed - self.expected).unwrap_or(0),
            _ => 0,
        }
    }
}

/// Receives the reports of a source. It is called from the polling thread and from other threads.
pub trait SourceObserver: Send + Sync {
    /// Number of unread messages in a partition. `None` if another member owns the partition.
    fn lag(&self, topic: &str, partition: i32, messages: Option<i64>);
    /// Number of messages before the committed offset that must still be read to rebuild the state of a partition. `None`:
    /// it is rebuilt, or another member owns the partition.
    fn rebuild_left(&self, topic: &str, partition: i32, messages: Option<i64>);
    /// Reports whether `condition` holds for `part`, see [`Condition`].
    fn condition(&self, condition: Condition, part: &str, holds: bool);
    /// Partitions of one topic that are read again from their earliest message, all for the same kind of reason.
    fn gaps(&self, gaps: &[OffsetGap]);
    /// Number of dead letters that were not sent to their topic. The table `dead_letters` contains them.
    fn letters_dropped(&self, count: u64);
    /// Number of verdicts that were not sent to their topic.
    fn verdicts_dropped(&self, count: u64);
    /// Number of appearances that were not sent to their topic.
    fn sightings_dropped(&self, count: u64);
}

/// Source of messages, polled by one thread. The default implementations are for sources without partitions, such as
/// files, and for sources that cannot continue where they stopped.
pub trait Source: Send {
    /// Passes up to `max` messages to `take`, in order within a partition. Waits up to `timeout` for the first. `max` is 0
    /// if the worker has no room: a member of a consumer group must continue to poll.
    fn poll(&mut self, max: usize, timeout: Duration, take: &mut dyn FnMut(Message<'_>))
    -> Result<Polled, SourceError>;

    /// Sends `verdicts` to the topic of verdicts, without waiting. The offsets after their messages are committed only when
    /// the brokers have the verdicts. A source without such a topic discards them.
    fn publish(&mut self, verdicts: &mut Vec<ResultRecord>) {
        verdicts.clear();
    }

    /// Sends appearances to the topic of sightings, as [`Self::publish`] does with verdicts.
    fn announce(&mut self, sightings: &mut Vec<ResultRecord>) {
        sightings.clear();
    }

    /// Commits offsets and sends `letters` to the dead-letter topic, without waiting for either. Everything before the
    /// checkpoint is done, and the table `dead_letters` contains the letters. A failure is reported to the
    /// [`SourceObserver`] and retried. After `Unavailable` the same arguments may be passed again.
    fn commit(&mut self, checkpoint: &Checkpoint, letters: &[DeadLetter]) -> Result<(), SourceError> {
        let _ = (checkpoint, letters);
        Ok(())
    }

    /// Whether it commits offsets, so that [`Self::is_committed`] waits for the outbox, too.
    fn has_commits(&self) -> bool {
        false
    }

    /// Whether all offsets of `checkpoint` are committed for good. A source without commits has none to lose.
    fn is_committed(&self, checkpoint: &Checkpoint) -> bool {
        let _ = checkpoint;
        true
    }

    /// Waits a few seconds for the confirmation of commits.
    fn confirm(&mut self) {}

    /// Where each file continues after the messages that the polls have returned. Empty for a source that commits offsets.
    fn bookmarks(&self) -> Vec<Bookmark> {
        Vec::new()
    }

    /// Continues at `bookmarks` of an earlier process. Called before the first poll.
    fn resume(&mut self, bookmarks: Vec<Bookmark>) {
        let _ = bookmarks;
    }

    /// Releases the partitions that the last poll reported as revoked or lost.
    fn release(&mut self) -> Result<(), SourceError> {
        Ok(())
    }
}
