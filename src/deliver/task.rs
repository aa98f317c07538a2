//! The tasks of the lanes: what is to be sent or requested next.

use super::digest::Digest;
use super::record::{Effect, Sent, Subject};
use super::state::{Settled, State, revocation_key};
use crate::port::{Asked, Notice, Progress, Revocation, Unsent};
use crate::verdict::Incident;

/// Maximum number of outcomes that a message names. The others are counted.
const OUTCOMES_MAX: usize = 100;

/// The next task of a lane.
pub(super) enum Next<T> {
    Now(Box<T>),
    At(i64),
    Nothing,
}

/// One attempt to send a message.
pub(super) struct Message {
    pub key: String,
    pub(crate) effect: Effect,
    pub(crate) what: What,
}

pub(super) enum What {
    Report(Box<Report>),
    Notice(Notice),
    /// The digest of the lane is due.
    Digest(Box<Digest>),
}

/// An incident, with its state for one channel.
pub(super) struct Report {
    pub(crate) incident: Box<Incident>,
    pub(crate) progress: Progress,
    /// State of the channel after it accepts the message.
    pub(crate) sent: Sent,
    /// Changes that the channel has no message about.
    pub(crate) unsent: Unsent,
    /// A revocation was done, capped, paused, stopped or failed, and the channel has no message about it.
    pub(crate) has_new_outcome: bool,
}

/// One attempt to revoke.
pub(super) struct ToRevoke {
    /// Key of the change that requested it.
    pub(crate) key: String,
    /// The idempotency key.
    pub(crate) name: String,
    pub(crate) incident: Box<Incident>,
    pub(crate) effect: Effect,
    pub(crate) is_paused: bool,
    /// It has been open for longer than [`REVOCATION_MS_MAX`](super::state::REVOCATION_MS_MAX).
    pub(crate) is_expired: bool,
}

/// The incident with its state for one lane. `None` if the lane has no message about it.
pub(super) fn report(state: &State, id: u64, lane: &str, now: i64) -> Option<Report> {
    let thread = state.threads.get(&id)?;
    thread.pending.get(lane)?;
    let incident = thread.incident.clone()?;
    let since = thread.sent.get(lane).map_or(0, |sent| sent.seq);
    let unsent = thread.changes.since(thread.sent.get(lane).map_or(0, |sent| sent.change));
    let outcomes = state.outcomes(id, since);
    let settled = revocation_key(&incident).and_then(|name| state.settled(&name));
    let progress = Progress {
        revocation: settled.map_or(Revocation::NotAsked, |settled| settled.revocation.clone()),
        confirmation: settled.and_then(|settled| settled.confirmation),
        revoked: outcomes.iter().filter(|(_, settled)| settled.revocation.is_done()).count(),
        not_revoked: outcomes.iter().filter(|(_, settled)| settled.revocation.is_not_done()).count(),
        outcomes_total: outcomes.len(),
        outcomes: outcomes.into_iter().take(OUTCOMES_MAX).map(asked).collect(),
        joined: thread.joined_since(lane),
        root: thread.sent.get(lane).and_then(|sent| sent.root.clone()),
    };
    let sent = thread.sent_by(lane, incident.severity, now);
    Some(Report { incident, progress, sent, unsent, has_new_outcome: thread.acted > since })
}

fn asked((of, settled): (&Subject, &Settled)) -> Asked {
    let Settled { revocation, confirmation, .. } = settled.clone();
    Asked { target: of.target.clone(), revocation, confirmation }
}
