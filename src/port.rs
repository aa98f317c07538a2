//! Traits between the core and the outside. Each has a driver, and an implementation in memory for tests.

mod background;
mod breaker;
mod condition;
mod confirmation;
mod denylist;
mod feedback;
mod forwarded;
mod handled;
mod limit;
mod mistake;
mod radius;
mod record_log;
mod revocation;
mod silence;
mod snapshots;
mod source;
mod store_error;
mod user;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub(crate) use self::background::{Incoming, Received, in_background};
pub(crate) use self::breaker::SKEW_MS;
pub use self::breaker::{
    BreakerCause, BreakerId, BreakerRecord, BreakerScope, BreakerState, BreakerStop, Lift, Refutation, Refutations,
    StoppedBy, Waiting,
};
pub use self::condition::Condition;
pub use self::confirmation::Confirmation;
pub use self::denylist::{Denial, DeniedKey, DenylistRecord};
pub use self::feedback::{
    FeedbackId, FeedbackKey, FeedbackPlace, FeedbackRecord, FeedbackState, GivenFeedback, SourcePartition, StoredEvent,
};
pub use self::forwarded::{Forwarded, Origin, Share, Splitter};
pub(crate) use self::handled::STATES_MAX;
pub use self::handled::{Handled, HandledStep, IncidentState};
pub use self::limit::{Limit, Reached};
pub use self::mistake::Mistake;
pub use self::radius::Radius;
pub(crate) use self::record_log::KEPT_MS;
pub use self::record_log::{LogRecord, RecordLog, RecordObserver};
pub use self::revocation::Revocation;
pub use self::silence::{
    Scope, Silence, SilenceId, SilenceKey, SilenceLimits, SilenceProblem, SilenceRecord, SilenceState, Unsent,
    WithheldCount,
};
pub(crate) use self::snapshots::{NamedSnapshots, is_damage};
pub use self::snapshots::{
    Restoration, SnapshotError, SnapshotReader, SnapshotWriter, Snapshots, StateRestorer, StoredSnapshot,
};
pub(crate) use self::source::{BATCH_BYTES_MAX, RECORD_BYTES_MAX};
pub use self::source::{GapKind, Message, OffsetGap, Polled, ResultRecord, Source, SourceError, SourceObserver};
pub use self::store_error::StoreError;
pub use self::user::{Reference, UserMessage, UserMessageKind, UserText};
use crate::checkpoint::{DeadLetter, Position};
use crate::enrichment::EnrichedEvent;
use crate::event::{Timestamp, TokenType};
use crate::place::{Network, Place};
use crate::verdict::{Incident, Mode, Outcome, Target, Victim};

/// Wall-clock time, for ingestion times, retries and limits. Scoring uses event time only.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Milliseconds since the epoch.
    fn now_millis(&self) -> i64;
    /// Waits for `wait`, measured by this clock.
    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}

/// Sends events to a source topic, from which they are read again.
#[async_trait]
pub trait EventSink: Send + Sync {
    /// Sends a native event in a message with `key`, the subject key. Returns when the brokers have it. The error is the
    /// reason, without values of the event.
    async fn send(&self, key: &str, event: &[u8]) -> Result<(), String>;
}

/// Looks up place and network of an address in the installed GeoIP files.
pub trait GeoLookup {
    /// `None` if no file contains the address.
    fn lookup(&mut self, address: IpAddr) -> (Option<Arc<Place>>, Option<Arc<Network>>);
}

/// One event with its verdict and position, borrowed for encoding.
#[derive(Debug)]
pub struct EventRow<'a> {
    pub event: &'a EnrichedEvent<'a>,
    pub outcome: &'a Outcome,
    pub position: &'a Position,
    /// Index of the event in its message, from 0.
    pub index: u32,
    /// Time used for scoring: the event's own time if it is accepted, otherwise the stream time. Milliseconds since the
    /// epoch.
    pub scored_at: i64,
    /// Milliseconds since the epoch, wall clock.
    pub ingested_at: i64,
}

/// One attempt to alert or revoke, or the decision not to: a row of the audit trail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionRow {
    /// The idempotency key, the same for all retries.
    pub action_id: String,
    /// Empty if an operator requested the action without an incident.
    pub incident_id: String,
    /// Milliseconds since the epoch, wall clock.
    pub requested_at: i64,
    /// `alert_` and the name of the channel, `revoke_token`, `revoke_family`.
    pub kind: String,
    /// Id of the revoked token or grant, or the address of the channel without secrets.
    pub target: String,
    pub mode: Mode,
    /// From 1.
    pub attempt: u32,
    pub outcome: ActionOutcome,
    /// 0 if there was no HTTP response.
    pub http_status: u16,
    pub latency_ms: u32,
    /// `tokenwarden`, or the operator that requested the action.
    pub requested_by: String,
    pub reason: String,
    /// Tenant and user of the incident or grant; empty if unknown.
    #[serde(default)]
    pub tenant_id: String,
    #[serde(default)]
    pub user_id: String,
    /// What the request of a revocation ends, or would end. `None` for alerts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub radius: Option<Radius>,
    /// `None` if no provider confirmed a revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmation: Option<Confirmation>,
}

/// Outcome of an attempt to alert or revoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionOutcome {
    Done,
    AlreadyGone,
    Retry,
    Failed,
    /// The action was not requested: shadow mode.
    Shadow,
    /// The action was not requested: people decide.
    Proposed,
    Capped,
    Paused,
    /// A breaker stopped it.
    Stopped,
    /// The alert is in a digest of its channel.
    Collected,
    /// The alert was not sent because of a silence.
    Silenced,
}

impl ActionOutcome {
    /// The name in the table `actions` and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::AlreadyGone => "already_gone",
            Self::Retry => "retry",
            Self::Failed => "failed",
            Self::Shadow => "shadow",
            Self::Proposed => "proposed",
            Self::Capped => "capped",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Collected => "collected",
            Self::Silenced => "silenced",
        }
    }
}

/// Rows of one epoch. Each is encoded when it is pushed, so that no row borrows from its message.
pub trait Rows: Send + Sync {
    fn push_event(&mut self, row: &EventRow<'_>);
    fn push_incident(&mut self, incident: &Incident);
    fn push_action(&mut self, action: &ActionRow);
    fn push_dead_letter(&mut self, letter: &DeadLetter);
    /// Number of rows of all kinds.
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Encoded size in bytes.
    fn bytes(&self) -> usize;
    /// Removes the rows and keeps the buffers.
    fn clear(&mut self);
}

/// Rows that can be stored on disk until the store accepts them.
pub trait SavedRows: Rows + Sized {
    /// Appends the rows of `other`, as if they had been pushed here.
    fn append(&mut self, other: &Self);
    /// Appends to `to` the bytes that [`Self::load`] reads. The format is not stable between builds.
    fn save(&self, to: &mut Vec<u8>);
    /// Appends saved rows. `None` if `from` was not written by [`Self::save`].
    fn load(&mut self, from: &[u8]) -> Option<()>;
}

/// Database for the rows.
#[async_trait]
pub trait Store: Send + Sync {
    type Rows: Rows;
    fn new_rows(&self) -> Self::Rows;
    /// Writes all rows, or returns why not. A repeated write of the same rows has no effect.
    async fn write(&self, rows: &Self::Rows) -> Result<(), StoreError>;
    /// The partitions of this process have changed: other processes may have written rows of those it gets.
    fn partitions_changed(&self) {}
}

/// Why an alert or a revocation failed. `reason` is logged, so it contains no secret and no value of an event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    #[error("will be retried: {reason}")]
    Retriable { reason: String, status: u16, retry_after: Option<Duration> },
    #[error("given up: {reason}")]
    Permanent { reason: String, status: u16 },
    /// As `Permanent`. `words`, the receiver's reply, may contain values of the event. It is only for the audit trail.
    #[error("given up: {reason}")]
    Rejected { reason: String, words: String },
}

/// A message to people.
#[derive(Clone, Copy, Debug)]
pub enum Alert<'a> {
    /// An incident was opened or changed, or one of its revocations has an outcome.
    Incident { incident: &'a Incident, progress: &'a Progress },
    /// The state of the service changed, for example because revocations are capped or their provider fails.
    Notice(&'a Notice),
}

/// Revocations and new victims of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// State of the revocation that the incident's last change requests.
    pub(crate) revocation: Revocation,
    pub(crate) confirmation: Option<Confirmation>,
    /// Revocations of the incident, first those that are new to the channel. Bounded.
    pub(crate) outcomes: Vec<Asked>,
    /// Number of revocations that succeeded, and of those that were requested and did not succeed.
    pub(crate) revoked: usize,
    pub(crate) not_revoked: usize,
    /// Number of all revocations.
    pub(crate) outcomes_total: usize,
    /// Victims that are new to the channel. Bounded.
    pub(crate) joined: Vec<Victim>,
    /// The receiver's id of the channel's first message about the incident, see [`Accepted::root`].
    pub(crate) root: Option<String>,
}

impl Progress {
    /// For an incident with one victim.
    pub const fn of(revocation: Revocation) -> Self {
        Self {
            revocation,
            confirmation: None,
            outcomes: Vec::new(),
            revoked: 0,
            not_revoked: 0,
            outcomes_total: 0,
            joined: Vec::new(),
            root: None,
        }
    }
}

/// A requested revocation and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) target: Target,
    pub(crate) revocation: Revocation,
    pub(crate) confirmation: Option<Confirmation>,
}

/// A message about the service that does not belong to one incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// At most half a line.
    pub title: String,
    /// What happened, and what the operator can do.
    pub text: String,
    /// Milliseconds since the epoch, wall clock.
    pub at: i64,
    /// `None`: it is about the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<Box<About>>,
}

/// Subject of a notice that is not about the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// The work on an incident.
    Handled(Handled),
    /// It is for a user, on the channels for users.
    User(UserMessage),
}

impl Notice {
    /// The step in the work on an incident.
    pub(crate) fn handled(&self) -> Option<&Handled> {
        match self.about.as_deref() {
            Some(About::Handled(handled)) => Some(handled),
            _ => None,
        }
    }

    /// The message to a user.
    pub(crate) fn user(&self) -> Option<&UserMessage> {
        match self.about.as_deref() {
            Some(About::User(message)) => Some(message),
            _ => None,
        }
    }
}

/// Number of incidents that an outbox takes at once.
pub(crate) const INCIDENTS_AT_ONCE: usize = 1_000;

/// Stores alerts and revocations until they are delivered.
pub trait Outbox: Send + Sync {
    /// Takes over `incidents`, all or none, and writes them to disk before it returns, if the disk accepts them
    /// ([`Self::persist`]). Incidents that it has are ignored. Fails if too many deliveries wait. A
    /// call with more than [`INCIDENTS_AT_ONCE`] incidents may fail each time.
    fn take(&self, incidents: &[Incident]) -> std::io::Result<()>;
    /// Takes over `notice` in the same way, to be sent on every channel. A second notice with the same `key` is ignored.
    /// The key and the texts must contain no value of an event.
    fn notify(&self, key: &str, notice: Notice) -> std::io::Result<()>;
    /// Writes to disk what could not be written before, at intervals. Succeeds if everything is on disk. Until then,
    /// deliveries continue, and what was taken is lost if the process ends. The caller therefore must not commit the
    /// messages of the incidents.
    fn persist(&self) -> std::io::Result<()>;
}

/// The receiver accepted an alert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The HTTP status, or 0 if the protocol has none.
    pub status: u16,
    /// The receiver's id of this message, if later messages about the incident refer to it.
    pub root: Option<String>,
}

impl Accepted {
    pub const fn with(status: u16) -> Self {
        Self { status, root: None }
    }
}

/// A channel for alerts.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// `email`, `webhook`, or the name of a section `[alert.channel.NAME]`, as in the table `actions`.
    fn name(&self) -> &str;
    /// Name of the channel's queue in the outbox. A channel with several recipients has one for each.
    fn lane(&self) -> String {
        self.name().to_owned()
    }
    /// Address of the receiver for the audit trail, without secrets.
    fn target(&self) -> String;
    /// Sends `alert`. `key` is the same for all retries, so that the receiver can deduplicate.
    async fn notify(&self, alert: Alert<'_>, key: &str) -> Result<Accepted, DeliveryError>;
    /// Whether its receiver keeps a state of incidents that this step changes.
    fn handles(&self, _step: HandledStep) -> bool {
        false
    }
    /// Tests whether the channel responds and accepts the credentials. Sends no message.
    async fn probe(&self) -> Result<(), DeliveryError>;
}

/// A topic for the messages of a channel.
#[async_trait]
pub trait MessageTopic: Send + Sync {
    fn name(&self) -> &str;
    /// Returns when the brokers have the message. Messages with the same `key` keep their order.
    async fn send(&self, key: &str, value: &str) -> Result<(), DeliveryError>;
    /// Tests whether the topic exists and may be written. Sends no message.
    async fn probe(&self) -> Result<(), DeliveryError>;
}

/// A channel for messages to users.
#[async_trait]
pub trait UserNotifier: Send + Sync {
    /// `email` or `webhook`.
    fn name(&self) -> &'static str;
    /// Identity of the receiver for the limits: equal for all spellings that reach the same person. `None`: it cannot
    /// reach the user.
    fn receiver(&self, message: &UserMessage) -> Option<String>;
    /// Sends a message. `key` is the same for all retries.
    async fn notify(&self, message: &UserMessage, text: &UserText, key: &str) -> Result<Accepted, DeliveryError>;
}

/// Result of a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    Done {
        status: u16,
        confirmation: Confirmation,
    },
    /// The provider no longer has the token or grant.
    AlreadyGone {
        status: u16,
        confirmation: Confirmation,
    },
}

impl Revoked {
    pub(crate) const fn confirmation(&self) -> Confirmation {
        let (Self::Done { confirmation, .. } | Self::AlreadyGone { confirmation, .. }) = self;
        *confirmation
    }
}

/// A revocation, with the values that its URL and body may contain.
#[derive(Clone, Copy, Debug)]
pub struct RevokeRequest<'a> {
    pub(crate) target: &'a Target,
    pub(crate) tenant_id: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) app_id: &'a str,
    pub(crate) family_id: &'a str,
    pub(crate) session_id: &'a str,
    pub token_id: &'a str,
    /// Type and expiry of the token, as far as they are known.
    pub token_type: TokenType,
    pub expires_at: Option<Timestamp>,
    pub(crate) reason: &'a str,
    /// The same for all retries, sent as `Idempotency-Key`.
    pub(crate) key: &'a str,
}

/// Revokes tokens and grants at a provider.
#[async_trait]
pub trait Revoker: Send + Sync {
    /// Whether this provider can revoke `target`.
    fn accepts(&self, target: &Target) -> bool;
    /// Whether its requests contain token ids. It then cannot use hashes of token ids.
    fn sends_token_ids(&self) -> bool {
        false
    }
    /// Whether it cannot revoke a token or grant of another tenant that has the same id, even if the provider ignores
    /// optional fields.
    fn tells_tenants_apart(&self) -> bool {
        true
    }
    /// What one request revokes. `None`: the target and no more.
    fn radius(&self) -> Option<Radius> {
        None
    }
    /// What the requests do, for people. `None` if only the configuration defines it.
    fn about(&self) -> Option<String> {
        None
    }
    /// Identifies the provider and its tenant, so that a job is not continued at another one. Contains no secret.
    fn fingerprint(&self) -> Option<String> {
        None
    }
    /// What the requests do not end, or what the operator must know.
    fn limits(&self) -> Vec<&str> {
        Vec::new()
    }
    /// Whether the request can be built from the values of `request`. Sends nothing. The error contains no value.
    fn check(&self, _request: &RevokeRequest<'_>) -> Result<(), String> {
        Ok(())
    }
    async fn revoke(&self, request: RevokeRequest<'_>) -> Result<Revoked, DeliveryError>;
}
