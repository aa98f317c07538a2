//! The data of the outbox: [`State`] and what it holds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use super::keys::Due;
use crate::deliver::record::{Effect, Subject, Thread, Work};
use crate::port::{ActionRow, Notice, Revocation};
use crate::verdict::Incident;

/// Keys remembered of what is done, so that it is not done again when its events are read again.
const KNOWN_MAX: usize = 100_000;

/// A revocation that is not done.
#[derive(Clone, Debug)]
pub(in crate::deliver) struct Asked {
    pub at: i64,
    pub(super) number: u64,
    /// Without its list of victims.
    pub incident: Box<Incident>,
    pub effect: Effect,
    /// Its idempotency key.
    pub name: String,
}

/// A notice that some channels do not have yet.
#[derive(Clone, Debug)]
pub(in crate::deliver) struct Pending {
    pub(super) number: u64,
    pub notice: Notice,
    pub lanes: BTreeMap<String, Effect>,
}

/// How a revocation stands.
#[derive(Clone, Debug)]
pub(in crate::deliver) struct Settled {
    pub revocation: Revocation,
    /// Absent in a journal of an earlier version.
    pub of: Option<Subject>,
}

/// What the outbox holds, see the documentation of the module `state`.
#[derive(Debug, Default)]
pub(in crate::deliver) struct State {
    pub threads: HashMap<u64, Thread>,
    pub notices: HashMap<String, Pending>,
    /// By key of the change that asked for it.
    pub revocations: HashMap<String, Asked>,
    /// The same key by idempotency key.
    pub(super) by_name: HashMap<String, String>,
    /// By lane, what is due when, in the order in which it is to be done.
    pub(super) lanes: HashMap<String, BTreeSet<Due>>,
    /// Revocations that wait for the caps, by allowance; and for their resumption; the oldest first.
    pub(super) capped: BTreeMap<String, BTreeSet<(u64, String)>>,
    pub(super) paused: BTreeSet<(u64, String)>,
    /// When each revocation was asked for.
    pub(super) ages: BTreeSet<(i64, String)>,
    /// Effects that wait, apart from held ones; and those.
    pub(super) waiting: usize,
    pub(super) held: usize,
    /// Channels whose last answer was a rejection.
    pub(super) rejecting: BTreeSet<String>,
    /// Changes taken.
    pub(super) taken: u64,
    pub(super) known: Remembered,
    /// By incident and target.
    pub(super) settled: HashMap<String, Settled>,
    pub(super) settled_order: VecDeque<String>,
    /// When revocations were first requested within the last hour, and whose allowance they used.
    pub(super) calls: VecDeque<(i64, String)>,
    pub rows: VecDeque<ActionRow>,
    /// No more events come: nothing is put off to be reported together with later changes.
    pub is_last: bool,
    /// Changes of a journal of an earlier version, whose effects follow.
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

/// The last keys of what is done.
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
