//! The data of the outbox.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use super::keys::Due;
use crate::deliver::digest::Digest;
use crate::deliver::limits::Scope;
use crate::deliver::record::{Effect, Ending, Subject, Thread, Work};
use crate::deliver::withheld::Withheld;
use crate::port::{ActionRow, BreakerId, BreakerScope, BreakerStop, Confirmation, Notice, Revocation, SilenceId};
use crate::verdict::Incident;

/// Number of keys of finished changes that are kept, so that events that are read again cause no second delivery.
const KNOWN_MAX: usize = 100_000;

/// A revocation that is not finished.
#[derive(Clone, Debug)]
pub(in crate::deliver) struct Asked {
    pub(crate) at: i64,
    pub(super) number: u64,
    /// Without its list of victims.
    pub(crate) incident: Box<Incident>,
    pub(crate) effect: Effect,
    /// The idempotency key.
    pub(crate) name: String,
}

/// A notice that some channels do not have yet.
#[derive(Clone, Debug)]
pub(in crate::deliver) struct Pending {
    pub(super) number: u64,
    pub(crate) notice: Notice,
    pub(crate) lanes: BTreeMap<String, Effect>,
    /// Lanes that are done with it.
    pub(super) ended: BTreeMap<String, Ending>,
}

/// State of a revocation.
#[derive(Clone, Debug)]
pub(in crate::deliver) struct Settled {
    pub(crate) revocation: Revocation,
    /// `None` if the record is of an earlier version.
    pub(crate) of: Option<Subject>,
    pub(crate) confirmation: Option<Confirmation>,
}

/// First request of a revocation.
#[derive(Clone, Debug)]
pub(in crate::deliver) struct Call {
    pub(super) at: i64,
    pub(super) scope: Scope,
    /// Revocations as which it counts.
    pub(super) weight: u32,
}

/// The data of the outbox, see the documentation of the module `state`.
#[derive(Debug, Default)]
pub(in crate::deliver) struct State {
    pub(crate) threads: HashMap<u64, Thread>,
    pub(crate) notices: HashMap<String, Pending>,
    /// By key of the change that requested the revocation.
    pub(crate) revocations: HashMap<String, Asked>,
    /// The same key by idempotency key.
    pub(super) by_name: HashMap<String, String>,
    /// Due deliveries of each lane, in order.
    pub(super) lanes: HashMap<String, BTreeSet<Due>>,
    /// Revocations that are capped, by scope, and revocations that are paused or stopped. The oldest first.
    pub(super) capped: BTreeMap<Scope, BTreeSet<(u64, String)>>,
    pub(super) paused: BTreeSet<(u64, String)>,
    pub(super) stopped: BTreeSet<(u64, String)>,
    /// The stops that no person has lifted.
    pub(crate) stops: BTreeMap<BreakerId, BreakerStop>,
    /// Times within the last day at which revocations waited for the limit of a scope, one for each hour of the clock.
    pub(super) full: BTreeMap<BreakerScope, VecDeque<i64>>,
    /// Time at which each revocation was requested.
    pub(super) ages: BTreeSet<(i64, String)>,
    /// Number of deliveries that wait, and of held ones.
    pub(super) waiting: usize,
    pub(super) held: usize,
    /// Channels that rejected their last message. For reports, and to try again: which channel sends a message depends on
    /// the message only, see [`State::has_rejected`].
    pub(super) rejecting: BTreeSet<String>,
    /// Number of changes taken.
    pub(super) taken: u64,
    pub(super) known: Remembered,
    /// By incident and target.
    pub(super) settled: HashMap<String, Settled>,
    pub(super) settled_order: VecDeque<String>,
    /// First requests of revocations within the last hour.
    pub(super) calls: VecDeque<Call>,
    pub(crate) rows: VecDeque<ActionRow>,
    /// Collected alerts, by lane.
    pub(crate) digests: BTreeMap<String, Digest>,
    /// What silences have withheld.
    pub(crate) withheld: BTreeMap<SilenceId, Withheld>,
    /// Messages to users within the last day, the oldest first.
    pub(super) informed: VecDeque<Informed>,
    /// Name of this outbox among those of all members.
    pub(crate) member: Option<String>,
    /// The input has ended, so no message is postponed to be combined with later changes.
    pub(crate) is_last: bool,
    /// Changes of a journal of an earlier version. Their deliveries are in later records.
    pub(super) unplaced: HashMap<String, (i64, Work)>,
}

impl State {
    pub(super) fn set_settled(&mut self, key: String, settled: Settled) {
        if self.settled.insert(key.clone(), settled).is_none() {
            self.settled_order.push_back(key);
            if self.settled_order.len() > KNOWN_MAX
                && let Some(oldest) = self.settled_order.pop_front()
            {
                self.settled.remove(&oldest);
            }
        }
    }
}

/// A message to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Informed {
    pub(super) lane: String,
    pub(super) user: String,
    pub(super) at: i64,
}

/// The most recent keys of finished changes.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    pub(super) keys: HashSet<String>,
    pub(super) order: VecDeque<String>,
}

impl Remembered {
    pub(super) fn insert(&mut self, key: String) {
        if self.keys.insert(key.clone()) {
            self.order.push_back(key);
        }
        if self.order.len() > KNOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }
}
