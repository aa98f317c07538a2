//! Records of the outbox journal. Records of earlier versions stay readable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::changes::Changes;
use super::digest::{Collected, Digest};
use super::withheld::Withheld;
use crate::port::{ActionRow, BreakerId, BreakerScope, BreakerStop, Confirmation, Notice, Revocation, SilenceId};
use crate::verdict::{Incident, RuleId, Severity, Target, Victim};

/// Lane of revocations. Every other lane is a channel with its recipient.
pub(super) const REVOKE: &str = "revoke";

/// One record, a line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(super) enum Record {
    /// A change of an incident, or a notice, for these lanes.
    Taken { key: String, at: i64, work: Work, lanes: Vec<String> },
    /// A revocation is about to be requested. It counts towards the limits, whatever its outcome.
    Called {
        key: String,
        at: i64,
        #[serde(default)]
        allowance: String,
        #[serde(default)]
        rule: Option<RuleId>,
        #[serde(default)]
        application: String,
        /// Revocations as which it counts.
        #[serde(default = "one")]
        weight: u32,
    },
    /// An attempt failed and will be retried.
    Tried {
        key: String,
        lane: String,
        attempt: u32,
        due_at: i64,
        revocation: Option<Revocation>,
        row: Option<ActionRow>,
        #[serde(default)]
        at: i64,
        #[serde(default)]
        panicked: bool,
    },
    /// The next attempt waits until its cause ends, or for a day.
    Held {
        key: String,
        lane: String,
        attempt: u32,
        at: i64,
        due_at: i64,
        hold: Hold,
        revocation: Option<Revocation>,
        row: Option<ActionRow>,
        /// Channels that report the outcome of a revocation.
        channels: Vec<String>,
    },
    /// The lane fails, so other channels send this message too.
    Rerouted { key: String, lane: String, to: Vec<String>, at: i64 },
    /// Alerts of a lane that are in its next digest instead of in messages of their own.
    Collected { lane: String, at: i64, due_at: i64, alerts: Vec<Collected> },
    /// The digest of a lane was made.
    Digested { lane: String },
    /// A digest that is not due yet. Only in a rewritten journal.
    Digest { lane: String, digest: Digest },
    /// The incident continues, so a held revocation is requested again earlier.
    Nudged { key: String, at: i64 },
    /// No further attempt is made.
    Ended {
        key: String,
        lane: String,
        revocation: Option<Revocation>,
        row: Option<ActionRow>,
        #[serde(default)]
        at: i64,
        /// Channels that report the outcome of a revocation.
        #[serde(default)]
        channels: Vec<String>,
        /// Content that the channel accepted. `None` if the message was given up, or for a revocation.
        #[serde(default)]
        sent: Option<Sent>,
    },
    /// Number of waiting rows that are now in the store.
    Written { rows: usize },
    /// A change or notice whose deliveries are finished. Only in a rewritten journal.
    Known { key: String },
    /// State of a revocation. Only in a rewritten journal.
    Settled {
        key: String,
        revocation: Revocation,
        #[serde(default)]
        of: Option<Subject>,
        #[serde(default)]
        confirmation: Option<Confirmation>,
    },
    /// An open delivery of the change before it. Only in a rewritten journal of an earlier version.
    Kept { key: String, effect: Effect, lane: String },
    /// What the channels have of an incident. Only in a rewritten journal.
    Thread { incident: u64, thread: Box<Thread> },
    /// A notice that some channels do not have yet. Only in a rewritten journal.
    Notice {
        key: String,
        notice: Notice,
        pending: BTreeMap<String, Effect>,
        #[serde(default)]
        ended: BTreeMap<String, Ending>,
    },
    /// A revocation that is not finished. Only in a rewritten journal.
    Asked { key: String, at: i64, incident: Box<Incident>, effect: Effect },
    /// A message is not sent because of a silence. `sent` has its time and severity.
    Silenced { key: String, lane: String, at: i64, silence: SilenceId, log_odds: f64, sent: Sent, row: ActionRow },
    /// A message reports so many alerts that a silence withheld.
    Summarized { silence: SilenceId, alerts: u64 },
    /// What a silence has withheld. Only in a rewritten journal.
    Withheld { silence: SilenceId, withheld: Withheld },
    /// A message was sent to a user.
    UserInformed { lane: String, user: String, at: i64 },
    /// Revocations waited for the limit of this scope at this time.
    Full { scope: BreakerScope, at: i64 },
    /// Revocations are stopped.
    Stopped { breaker: BreakerId, stop: BreakerStop },
    /// A person has lifted the stop.
    Lifted { breaker: BreakerId, at: i64 },
    /// Name of this outbox among those of all members.
    Member { member: String },
    /// A waiting row.
    Row { row: ActionRow },
}

const fn one() -> u32 {
    1
}

/// Content of a change.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Work {
    Incident(Box<Incident>),
    Notice(Notice),
}

/// One delivery in one lane.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Effect {
    /// Number of attempts.
    pub(crate) attempts: u32,
    /// Earliest time of the next attempt, milliseconds since the epoch, wall clock.
    pub(crate) due_at: i64,
    /// It is already counted towards the limits.
    pub(crate) called: bool,
    /// Time of the last attempt.
    #[serde(default)]
    pub(crate) tried_at: i64,
    /// Number of consecutive panics.
    #[serde(default)]
    pub(crate) panics: u32,
    /// Number of refusals by the provider.
    #[serde(default)]
    pub(crate) refusals: u32,
    #[serde(default)]
    pub(crate) hold: Option<Hold>,
    /// Another channel was asked to send the same message.
    #[serde(default)]
    pub(crate) rerouted: bool,
}

/// Why the next attempt of a delivery is postponed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Hold {
    /// An operator paused revocations. Held until they are resumed.
    Paused,
    /// A limit of revocations is reached. Held until the window has room.
    Capped,
    /// A breaker stopped the revocation. Held until a person lifts the stop.
    Stopped,
    /// The provider refused the revocation. Held until `due_at`.
    Refused,
    /// The channel rejected the message or panicked. Held until `due_at`, or until the channel accepts another message.
    Rejected,
}

/// How the delivery of a notice in one lane ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    Accepted,
    GivenUp,
}

/// Content of an incident that a channel accepted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sent {
    /// Milliseconds since the epoch, wall clock.
    pub(crate) at: i64,
    /// The next message about joined victims follows at least one minute after this.
    pub(crate) spaced_from: i64,
    pub(crate) severity: Severity,
    /// Value of [`Thread::seq`] up to which outcomes and victims were in the message.
    pub(crate) seq: u64,
    /// Number of the last change of the incident that the message contained.
    #[serde(default)]
    pub(crate) change: u64,
    /// The receiver's id of the first message about the incident.
    #[serde(default)]
    pub(crate) root: Option<String>,
    /// The last message was withheld by a silence, or is in a digest.
    #[serde(default)]
    pub(crate) is_withheld: bool,
}

/// The messages about one incident: what each channel has, and what is still to be sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Thread {
    /// Key of the next message: the key of the last change.
    pub(crate) key: String,
    /// Time of the last change, milliseconds since the epoch, wall clock.
    pub(crate) at: i64,
    /// Order of threads that are due at the same time: the smallest first.
    pub(crate) number: u64,
    /// Latest state. `None` while no message is to be sent.
    pub(crate) incident: Option<Box<Incident>>,
    pub(crate) pending: BTreeMap<String, Effect>,
    pub(crate) sent: BTreeMap<String, Sent>,
    /// The last message that a lane gave up, by its key.
    #[serde(default)]
    pub(crate) given_up: BTreeMap<String, String>,
    /// The last victims that joined, with [`Thread::seq`] at that time.
    pub(crate) joined: Vec<(u64, Victim)>,
    pub(crate) victims_total: u32,
    /// Increases with each victim and each outcome of a revocation.
    pub(crate) seq: u64,
    /// `seq` of the last outcome that is reported without delay.
    pub(crate) acted: u64,
    /// Keys of its revocations, in the order of their requests.
    pub(crate) revocations: Vec<String>,
    #[serde(default)]
    pub(crate) changes: Changes,
}

/// Target of a revocation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Subject {
    pub(crate) incident: u64,
    pub(crate) target: Target,
    /// [`Thread::seq`] of its last outcome.
    pub(crate) seq: u64,
}

impl Sent {
    /// For a notice, which has no later message.
    pub(super) const fn of_notice(at: i64) -> Self {
        Self { at, spaced_from: at, severity: Severity::Info, seq: 0, change: 0, root: None, is_withheld: false }
    }
}
