//! The lines of the outbox's journal. Lines that an earlier version wrote stay readable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::port::{ActionRow, Notice, Revocation};
use crate::verdict::{Incident, Severity, Target, Victim};

pub(super) const HOUR_MS: i64 = 3_600_000;
pub(super) const DAY_MS: i64 = 24 * HOUR_MS;
/// The lane of revocations; every other lane is a channel and its recipient.
pub(super) const REVOKE: &str = "revoke";

/// One line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(super) enum Record {
    /// A change of an incident, or a notice, that concerns these lanes.
    Taken { key: String, at: i64, work: Work, lanes: Vec<String> },
    /// A revocation is about to be requested; it counts towards the caps whatever comes of it.
    Called {
        key: String,
        at: i64,
        #[serde(default)]
        allowance: String,
    },
    /// An attempt failed and will be repeated soon.
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
    /// The next attempt waits until its cause is gone, or for a day.
    Held {
        key: String,
        lane: String,
        attempt: u32,
        at: i64,
        due_at: i64,
        hold: Hold,
        revocation: Option<Revocation>,
        row: Option<ActionRow>,
        /// Channels that are to report the outcome of a revocation.
        channels: Vec<String>,
    },
    /// The thief goes on: a held revocation is requested again earlier.
    Nudged { key: String, at: i64 },
    /// No further attempt is made.
    Ended {
        key: String,
        lane: String,
        revocation: Option<Revocation>,
        row: Option<ActionRow>,
        #[serde(default)]
        at: i64,
        /// Channels that are to report the outcome of a revocation.
        #[serde(default)]
        channels: Vec<String>,
        /// What the channel accepted. `None`: given up, or no message.
        #[serde(default)]
        sent: Option<Sent>,
    },
    /// This many of the waiting rows are in the store.
    Written { rows: usize },
    /// A change or notice that needs nothing more. Only in a rewritten journal.
    Known { key: String },
    /// How a revocation stands. Only in a rewritten journal.
    Settled {
        key: String,
        revocation: Revocation,
        #[serde(default)]
        of: Option<Subject>,
    },
    /// An open effect of the change before it. Only in a rewritten journal of an earlier version.
    Kept { key: String, effect: Effect, lane: String },
    /// What the channels know of an incident. Only in a rewritten journal.
    Thread { incident: u64, thread: Box<Thread> },
    /// A notice that some channels do not have yet. Only in a rewritten journal.
    Notice { key: String, notice: Notice, pending: BTreeMap<String, Effect> },
    /// A revocation that is not done. Only in a rewritten journal.
    Asked { key: String, at: i64, incident: Box<Incident>, effect: Effect },
    /// A waiting row. Only in a rewritten journal.
    Row { row: ActionRow },
}

/// What a change is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Work {
    Incident(Box<Incident>),
    Notice(Notice),
}

/// One thing to do in one lane.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Effect {
    /// Attempts made.
    pub attempts: u32,
    /// Not before this; milliseconds since the epoch, wall clock.
    pub due_at: i64,
    /// It counts towards the caps already.
    pub called: bool,
    /// When the last attempt was made.
    #[serde(default)]
    pub tried_at: i64,
    /// Attempts that panicked, since the last one that did not.
    #[serde(default)]
    pub panics: u32,
    /// Times that a provider refused it.
    #[serde(default)]
    pub refusals: u32,
    #[serde(default)]
    pub hold: Option<Hold>,
}

/// Why the next attempt at an effect is put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Hold {
    /// Revocations are paused by hand: until they are resumed.
    Paused,
    /// A cap on revocations is reached: until its window has room.
    Capped,
    /// The provider refused the revocation: until `due_at`.
    Refused,
    /// The channel rejects the message, or its code panicked: until `due_at`, or until the channel accepts another.
    Rejected,
}

/// What a channel accepted of an incident.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sent {
    /// Milliseconds since the epoch, wall clock.
    pub at: i64,
    /// What else happens to the incident is reported a minute after this.
    pub spaced_from: i64,
    pub severity: Severity,
    /// Outcomes and victims up to this number of [`Thread::seq`] were in it.
    pub seq: u64,
}

/// What the channels know, and are still to be sent, of one incident.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Thread {
    /// Key of the next message: that of its last change.
    pub key: String,
    /// When it changed last; milliseconds since the epoch, wall clock.
    pub at: i64,
    /// Of threads that are due at one moment, the one that changed first goes first.
    pub number: u64,
    /// As it stands now; `None` while nothing is to be sent.
    pub incident: Option<Box<Incident>>,
    pub pending: BTreeMap<String, Effect>,
    pub sent: BTreeMap<String, Sent>,
    /// The last victims that joined, and when in terms of [`Thread::seq`].
    pub joined: Vec<(u64, Victim)>,
    pub victims_total: u32,
    /// Grows with each victim and each outcome of a revocation.
    pub seq: u64,
    /// `seq` of the last outcome that people must know at once.
    pub acted: u64,
    /// Keys of its revocations, in the order in which they were asked for.
    pub revocations: Vec<String>,
}

/// What a revocation is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Subject {
    pub incident: u64,
    pub target: Target,
    /// [`Thread::seq`] of its last outcome.
    pub seq: u64,
}

impl Sent {
    /// A notice: it has no later message.
    pub(super) const fn of_notice(at: i64) -> Self {
        Self { at, spaced_from: at, severity: Severity::Info, seq: 0 }
    }
}
