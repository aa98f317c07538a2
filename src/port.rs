//! The small traits through which the core and the outside meet. Each has a real driver and a twin in memory.

mod condition;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use self::condition::Condition;
use crate::checkpoint::{Checkpoint, DeadLetter, LogTime, Position};
use crate::enrichment::EnrichedEvent;
use crate::place::{Network, Place};
use crate::verdict::{Incident, Mode, Outcome, Target, Victim};

/// Wall-clock time, for what happens outside event time: ingestion stamps, retries, caps. Never for judgement.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Milliseconds since the epoch.
    fn now_millis(&self) -> i64;
    /// Waits for `wait` of this clock's time.
    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}

/// Place and network of an address, from whatever files are at hand.
pub trait GeoLookup {
    /// Absent where no file knows it.
    fn lookup(&mut self, address: IpAddr) -> (Option<Arc<Place>>, Option<Arc<Network>>);
}

/// One event with its judgement and where it came from, lent to the store for encoding.
#[derive(Debug)]
pub struct EventRow<'a> {
    pub event: &'a EnrichedEvent<'a>,
    pub outcome: &'a Outcome,
    pub position: &'a Position,
    /// Place of the event in its message, from 0.
    pub index: u32,
    /// When the event took place: its own time if that is believed, else the stream's. Milliseconds since the epoch.
    pub judged_at: i64,
    /// Milliseconds since the epoch, wall clock.
    pub ingested_at: i64,
}

/// One attempt, success, failure or refusal to act: a row of the audit trail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionRow {
    /// Constant over the retries of one effect: its idempotency key.
    pub action_id: String,
    /// Empty where a human asked without an incident.
    pub incident_id: String,
    /// Milliseconds since the epoch, wall clock.
    pub requested_at: i64,
    /// `alert_email`, `alert_webhook`, `revoke_token`, `revoke_family`.
    pub kind: String,
    /// Id of what is revoked, or the channel's address without secrets.
    pub target: String,
    pub mode: Mode,
    /// From 1.
    pub attempt: u32,
    /// `done`, `already_gone`, `retry`, `failed`, `shadow`, `proposed`, `capped`, `paused`.
    pub outcome: String,
    /// 0 where no HTTP answer came.
    pub http_status: u16,
    pub latency_ms: u32,
    /// `tokenwarden`, or who asked by hand.
    pub requested_by: String,
    pub reason: String,
}

/// An epoch's rows, encoded as they come, so that nothing outlives its message.
pub trait Rows: Send + Sync {
    fn push_event(&mut self, row: &EventRow<'_>);
    fn push_incident(&mut self, incident: &Incident);
    fn push_action(&mut self, action: &ActionRow);
    fn push_dead_letter(&mut self, letter: &DeadLetter);
    /// Rows of all kinds.
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Encoded size, bytes.
    fn bytes(&self) -> usize;
    /// Forgets the rows, keeps the memory.
    fn clear(&mut self);
}

/// Rows that can wait, in memory or on disk, until the store takes them.
pub trait SavedRows: Rows + Sized {
    /// Adds the rows of `other` after these, as if they had been pushed here.
    fn append(&mut self, other: &Self);
    /// Adds to `to` the bytes that [`Self::load`] reads. The format is for this build alone.
    fn save(&self, to: &mut Vec<u8>);
    /// Adds saved rows after these; `None` where `from` is not what was saved.
    fn load(&mut self, from: &[u8]) -> Option<()>;
}

/// Why the store did not take rows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The same rows may be written again later: down, overloaded, or the answer was lost.
    #[error("the store is unavailable: {0}")]
    Retriable(String),
    /// No retry helps: wrong credentials, a missing table, a rejected type.
    #[error("the store refused: {0}")]
    Permanent(String),
}

/// Where rows go for analysts to find.
#[async_trait]
pub trait Store: Send + Sync {
    type Rows: Rows;
    fn new_rows(&self) -> Self::Rows;
    /// Writes all the rows or reports why not. Writing the same rows again changes nothing.
    async fn write(&self, rows: &Self::Rows) -> Result<(), StoreError>;
}

/// Why an alert or a revocation did not go through. `reason` is logged, so it holds no secret and no value of an event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    #[error("will be tried again: {reason}")]
    Retriable { reason: String, status: u16, retry_after: Option<Duration> },
    #[error("given up: {reason}")]
    Permanent { reason: String, status: u16 },
    /// As `Permanent`. The receiver's own words may repeat what was sent: they are for the audit trail only.
    #[error("given up: {reason}")]
    Rejected { reason: String, words: String },
}

/// What people are told.
#[derive(Clone, Copy, Debug)]
pub enum Alert<'a> {
    /// An incident was opened or changed, or one of its revocations has an outcome.
    Incident { incident: &'a Incident, progress: &'a Progress },
    /// Our own answer to incidents has changed: revocations are capped, or their provider fails.
    Notice(&'a Notice),
}

/// What has happened to an incident besides its last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How the revocation stands that the incident's last change asks for.
    pub revocation: Revocation,
    /// All revocations of the incident, those first that the receiver does not know of. Bounded.
    pub outcomes: Vec<Asked>,
    /// Of all revocations of the incident: those after which the token no longer works, and those that were to be made
    /// and are not.
    pub revoked: usize,
    pub not_revoked: usize,
    /// All of them.
    pub outcomes_total: usize,
    /// Victims that the receiver does not know of. Bounded.
    pub joined: Vec<Victim>,
}

impl Progress {
    /// Of an incident with one victim.
    #[must_use]
    pub const fn of(revocation: Revocation) -> Self {
        Self { revocation, outcomes: Vec::new(), revoked: 0, not_revoked: 0, outcomes_total: 0, joined: Vec::new() }
    }
}

/// A revocation that was asked for, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub target: Target,
    pub revocation: Revocation,
}

/// What people must know that belongs to no single incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Half a line.
    pub title: String,
    /// What it means and what to do.
    pub text: String,
    /// Milliseconds since the epoch, wall clock.
    pub at: i64,
}

/// Where the event path hands over what people are to be told and what is to be revoked.
pub trait Outbox: Send + Sync {
    /// Stores `incidents` on disk before it returns, all or none. Incidents that are stored already change nothing.
    fn take(&self, incidents: &[Incident]) -> std::io::Result<()>;
    /// Stores `notice` on disk before it returns; it is then sent on every channel. A second notice under the same
    /// `key` changes nothing. The key and the texts must hold no value of an event.
    fn notify(&self, key: &str, notice: Notice) -> std::io::Result<()>;
}

/// How far the revocation has come that an incident asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revocation {
    NotAsked,
    /// In shadow: it would have been made.
    Shadow,
    /// In alert: people are asked to make it.
    Proposed,
    /// Not answered yet, or answered with something that another attempt may mend.
    Waiting(String),
    Done,
    AlreadyGone,
    /// Not requested: this many were requested within the hour. It will be, once the cap has room.
    Capped(u32),
    /// Not requested: somebody has paused all actions. It will be, once they are resumed.
    Paused,
    /// Refused by the provider, impossible, or given up.
    Failed(String),
}

/// A channel through which people are told.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// `email`, `webhook`: as in the configuration and the `actions` table.
    fn name(&self) -> &'static str;
    /// Whom it reaches, for the audit trail; no secret in it.
    fn target(&self) -> String;
    /// Tells `alert`. `key` is constant over retries, so that the receiver can drop a repetition.
    /// Returns the HTTP status, 0 where the protocol has none.
    async fn notify(&self, alert: Alert<'_>, key: &str) -> Result<u16, DeliveryError>;
    /// Whether the channel answers and accepts our credentials, without telling anybody anything.
    async fn probe(&self) -> Result<(), DeliveryError>;
}

/// How a revocation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    Done {
        status: u16,
    },
    /// The provider no longer knows it.
    AlreadyGone {
        status: u16,
    },
}

/// What a provider is asked to take away, with the names that its address and body may be built of.
#[derive(Clone, Copy, Debug)]
pub struct RevokeRequest<'a> {
    pub target: &'a Target,
    pub tenant_id: &'a str,
    pub user_id: &'a str,
    pub app_id: &'a str,
    pub family_id: &'a str,
    pub token_id: &'a str,
    pub reason: &'a str,
    /// Constant over retries, sent as `Idempotency-Key`.
    pub key: &'a str,
}

/// A provider's way to take tokens away.
#[async_trait]
pub trait Revoker: Send + Sync {
    /// Whether this provider can be asked to revoke such a target.
    fn accepts(&self, target: &Target) -> bool;
    /// Whether its requests carry token ids, so that it cannot do with their hashes.
    fn sends_token_ids(&self) -> bool {
        false
    }
    /// Whether it revokes nothing of another tenant that has the same id, whatever the provider does with what it need
    /// not read.
    fn tells_tenants_apart(&self) -> bool {
        true
    }
    async fn revoke(&self, request: RevokeRequest<'_>) -> Result<Revoked, DeliveryError>;
}

/// Longest record that is read, bytes. A source that cuts records out of a stream cuts a longer one to one byte more,
/// so that decoding refuses it once, at its position.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// Longest message that is read, bytes: it may hold many records. The same for what a compressed one expands to.
pub const BATCH_BYTES_MAX: usize = 64 << 20;

/// One raw record and where it stood.
#[derive(Debug)]
pub struct Message<'a> {
    pub position: &'a Position,
    /// What the producer keyed it by; `None` where the source has no keys.
    pub key: Option<&'a [u8]>,
    pub payload: &'a [u8],
    /// When the log took it; `None` where the source has no such record.
    pub logged_at: Option<LogTime>,
    /// Done before this start, and read again only to remember: it changes the state and nothing else.
    pub replayed: bool,
}

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// It does not answer, or refuses us.
    #[error("{0}")]
    Unavailable(String),
    /// It answers, and what it holds cannot be read.
    #[error("{0}")]
    Unusable(String),
    /// Our settings for it are wrong.
    #[error("{0}")]
    Misconfigured(String),
}

/// What a poll brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// This many messages were handed over (0: none came in time).
    Messages(usize),
    /// These partitions (topic, number) go to another member, who waits: finish them, commit, then
    /// [`Source::release`].
    Revoked(Vec<(Arc<str>, i32)>),
    /// All partitions have gone to others already: nothing that is not committed may be committed any more. Forget
    /// it, then [`Source::release`].
    Lost,
    /// The source has ended; only files do.
    End,
}

/// Why the messages of a partition do not go on where the last ones were committed, or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GapKind {
    /// The offset lies beyond the end of the log: the log lost its end, or the offset comes from another log.
    BeyondEnd,
    /// The log begins after the offset: messages were deleted before they were read.
    Deleted,
    /// The topic was deleted and created again.
    Recreated,
    /// The log's end was replaced by other messages (unclean leader election).
    Truncated,
}

impl GapKind {
    /// The label in `tokenwarden_offset_gaps_total`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeyondEnd => "beyond_end",
            Self::Deleted => "deleted_unread",
            Self::Recreated => "recreated",
            Self::Truncated => "truncated",
        }
    }
}

/// A partition that is read from its earliest message again, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetGap {
    pub kind: GapKind,
    pub topic: Arc<str>,
    pub partition: i32,
    /// Where reading was to go on.
    pub expected: i64,
    /// Where it goes on.
    pub resumed: i64,
    /// The end of the log.
    pub end: i64,
}

impl OffsetGap {
    /// Messages known to be lost: those deleted unread. How many a log lost by the other kinds cannot be known.
    #[must_use]
    pub fn lost(&self) -> u64 {
        match self.kind {
            GapKind::Deleted => u64::try_from(self.resumed - self.expected).unwrap_or(0),
            _ => 0,
        }
    }
}

/// Receives what a source reports besides messages. It is called from the thread that polls and from others.
pub trait SourceObserver: Send + Sync {
    /// Messages still to be read in a partition; `None`: it is not ours, or not any more.
    fn lag(&self, topic: &str, partition: i32, messages: Option<i64>);
    /// Whether `condition` holds for `part`, see [`Condition`].
    fn condition(&self, condition: Condition, part: &str, holds: bool);
    /// Partitions of one topic that are read from their earliest message again, all for the same kind of reason.
    fn gaps(&self, gaps: &[OffsetGap]);
    /// Dead letters that their topic did not take, given up: the table `dead_letters` has them.
    fn letters_dropped(&self, count: u64);
}

/// Where messages come from. Polled by one thread. Only Kafka moves partitions about; a file may leave the last two
/// as they are.
pub trait Source: Send {
    /// Hands up to `max` messages to `take`, in order within a partition; waits up to `timeout` for the first.
    /// `max` is 0 while there is no room: a group's member must go on polling to remain one.
    fn poll(&mut self, max: usize, timeout: Duration, take: &mut dyn FnMut(Message<'_>))
    -> Result<Polled, SourceError>;

    /// Everything before the checkpoint is done, and the table `dead_letters` has the letters. Offsets are committed, and
    /// letters sent to where their producers look for them, without waiting for either; a failure is reported to the
    /// [`SourceObserver`] and tried again. After `Unavailable` the same may be committed again.
    fn commit(&mut self, checkpoint: &Checkpoint, letters: &[DeadLetter]) -> Result<(), SourceError> {
        let _ = (checkpoint, letters);
        Ok(())
    }

    /// Lets go of the partitions that the last poll announced as revoked or lost.
    fn release(&mut self) -> Result<(), SourceError> {
        Ok(())
    }
}
