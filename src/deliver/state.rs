//! What the outbox holds, as a fold of its journal's records: the same records always give the same state.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::port::{ActionRow, Notice, Revocation};
use crate::verdict::Incident;

/// The lane of revocations; every other lane is a channel and its recipient.
pub(super) const REVOKE: &str = "revoke";
/// Keys remembered of what is done, so that it is not done again when its events are read again.
const KNOWN_MAX: usize = 100_000;
/// An alert waits no longer than this for the first attempt at the revocation that it is to tell of.
const REVOCATION_WAIT_MS: i64 = 15_000;
const HOUR_MS: i64 = 3_600_000;

/// One line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(super) enum Record {
    /// Something is to be told, or done, or both.
    Taken { key: String, at: i64, work: Work, lanes: Vec<String> },
    /// A revocation is about to be asked for; it counts towards the cap whatever comes of it.
    Called { key: String, at: i64 },
    /// An attempt failed and will be repeated.
    Tried {
        key: String,
        lane: String,
        attempt: u32,
        due_at: i64,
        revocation: Option<Revocation>,
        row: Option<ActionRow>,
    },
    /// No further attempt is to be made.
    Ended { key: String, lane: String, revocation: Option<Revocation>, row: Option<ActionRow> },
    /// This many of the waiting rows are in the store.
    Written { rows: usize },
    /// A change that is done with. Only in a rewritten journal.
    Known { key: String },
    /// A revocation that is decided. Only in a rewritten journal.
    Settled { key: String, revocation: Revocation },
    /// As it stood when the journal was rewritten.
    Kept { key: String, effect: Effect, lane: String },
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

/// One thing to do for a change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Effect {
    /// Attempts made.
    pub attempts: u32,
    /// Not before this; milliseconds since the epoch, wall clock.
    pub due_at: i64,
    /// It counts towards the cap already.
    pub called: bool,
}

/// A change that is not done with.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub at: i64,
    /// Of changes that are due at one moment, the one that was taken first goes first.
    number: u64,
    pub work: Work,
    pub effects: BTreeMap<String, Effect>,
}

/// When a change is due in a lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    /// Milliseconds since the epoch, wall clock.
    pub at: i64,
    number: u64,
    pub key: String,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub open: HashMap<String, Change>,
    /// By lane, when which change is due, in the order in which they are to be done.
    pub lanes: HashMap<String, BTreeSet<Due>>,
    /// Changes taken.
    taken: u64,
    known: Remembered,
    /// By incident and target: how the revocation stands.
    settled: HashMap<String, Revocation>,
    settled_order: VecDeque<String>,
    /// When revocations were first asked for, within the last hour.
    calls: VecDeque<i64>,
    pub rows: VecDeque<ActionRow>,
}

impl State {
    pub(super) fn apply(&mut self, record: Record) {
        match record {
            Record::Taken { key, at, work, lanes } => {
                let revokes = lanes.iter().any(|lane| lane == REVOKE);
                if let Work::Incident(incident) = &work
                    && revokes
                    && let Some(asked) = revocation_key(incident)
                {
                    self.set_settled(asked, Revocation::Waiting("not tried yet".to_owned()));
                }
                self.taken += 1;
                self.open.insert(key.clone(), Change { at, number: self.taken, work, effects: BTreeMap::new() });
                for lane in lanes {
                    let wait = if revokes && lane != REVOKE { REVOCATION_WAIT_MS } else { 0 };
                    self.put(&key, lane, Effect { attempts: 0, due_at: at + wait, called: false });
                }
            }
            Record::Called { key, at } => {
                self.calls.push_back(at);
                while self.calls.front().is_some_and(|first| at - first >= HOUR_MS) {
                    self.calls.pop_front();
                }
                if let Some(effect) = self.open.get_mut(&key).and_then(|change| change.effects.get_mut(REVOKE)) {
                    effect.called = true;
                }
            }
            Record::Tried { key, lane, attempt, due_at, revocation, row } => {
                if let Some(mut effect) = self.remove(&key, &lane) {
                    effect.attempts = attempt;
                    effect.due_at = due_at;
                    self.put(&key, lane, effect);
                }
                self.settle(&key, revocation);
                self.rows.extend(row);
            }
            Record::Ended { key, lane, revocation, row } => {
                self.remove(&key, &lane);
                self.settle(&key, revocation);
                self.rows.extend(row);
                if self.open.get(&key).is_some_and(|change| change.effects.is_empty()) {
                    self.open.remove(&key);
                    self.known.insert(key);
                }
            }
            Record::Written { rows } => {
                self.rows.drain(..rows.min(self.rows.len()));
            }
            Record::Known { key } => self.known.insert(key),
            Record::Settled { key, revocation } => self.set_settled(key, revocation),
            Record::Kept { key, effect, lane } => self.put(&key, lane, effect),
            Record::Row { row } => self.rows.push_back(row),
        }
    }

    /// All that must not be forgotten, as records that give this state again.
    pub(super) fn records(&self) -> Vec<Record> {
        let mut records: Vec<_> = self.known.order.iter().map(|key| Record::Known { key: key.clone() }).collect();
        records.extend(self.settled_order.iter().filter_map(|key| {
            let revocation = self.settled.get(key)?.clone();
            Some(Record::Settled { key: key.clone(), revocation })
        }));
        records.extend(self.calls.iter().map(|at| Record::Called { key: String::new(), at: *at }));
        let mut open: Vec<_> = self.open.iter().collect();
        open.sort_by_key(|(_, change)| change.number);
        for (key, change) in open {
            let (key, work) = (key.clone(), change.work.clone());
            records.push(Record::Taken { key: key.clone(), at: change.at, work, lanes: Vec::new() });
            records.extend(change.effects.iter().map(|(lane, effect)| Record::Kept {
                key: key.clone(),
                effect: effect.clone(),
                lane: lane.clone(),
            }));
        }
        records.extend(self.rows.iter().map(|row| Record::Row { row: row.clone() }));
        records
    }

    /// Whether the change is waiting or done already.
    pub(super) fn has(&self, key: &str) -> bool {
        self.open.contains_key(key) || self.known.keys.contains(key)
    }

    /// How the revocation stands that `incident` asks for; `None`: it has not been asked for.
    pub(super) fn revocation(&self, incident: &Incident) -> Option<&Revocation> {
        self.settled.get(&revocation_key(incident)?)
    }

    /// Revocations asked for in the hour before `now`.
    pub(super) fn calls_within_hour(&self, now: i64) -> usize {
        self.calls.iter().filter(|at| now - **at < HOUR_MS).count()
    }

    fn put(&mut self, key: &str, lane: String, effect: Effect) {
        if let Some(change) = self.open.get_mut(key) {
            let due = Due { at: effect.due_at, number: change.number, key: key.to_owned() };
            self.lanes.entry(lane.clone()).or_default().insert(due);
            change.effects.insert(lane, effect);
        }
    }

    fn remove(&mut self, key: &str, lane: &str) -> Option<Effect> {
        let change = self.open.get_mut(key)?;
        let effect = change.effects.remove(lane)?;
        if let Some(due) = self.lanes.get_mut(lane) {
            due.remove(&Due { at: effect.due_at, number: change.number, key: key.to_owned() });
        }
        Some(effect)
    }

    /// Notes how the revocation stands, and lets the alerts go that wait to tell it.
    fn settle(&mut self, key: &str, revocation: Option<Revocation>) {
        let Some(revocation) = revocation else { return };
        let Some(change) = self.open.get(key) else { return };
        let Work::Incident(incident) = &change.work else { return };
        let at = change.at;
        let waiting: Vec<_> = change
            .effects
            .iter()
            .filter(|(lane, effect)| *lane != REVOKE && effect.attempts == 0)
            .map(|(lane, _)| lane.clone())
            .collect();
        if let Some(settled) = revocation_key(incident) {
            self.set_settled(settled, revocation);
        }
        for lane in waiting {
            if let Some(mut effect) = self.remove(key, &lane) {
                effect.due_at = at;
                self.put(key, lane, effect);
            }
        }
    }

    fn set_settled(&mut self, key: String, revocation: Revocation) {
        if self.settled.insert(key.clone(), revocation).is_none() {
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
struct Remembered {
    keys: HashSet<String>,
    order: VecDeque<String>,
}

impl Remembered {
    fn insert(&mut self, key: String) {
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

/// Identity of one change of an incident: the event that made it. Producers choose event ids, and two events may share
/// one. It stands in headers, so it is plain.
pub(super) fn change_key(incident: &Incident) -> String {
    format!("{}-{:016x}", incident.id, incident.change)
}

/// The idempotency key of an incident's revocation: constant over its changes.
pub(super) fn revocation_key(incident: &Incident) -> Option<String> {
    let target = incident.revoke.as_ref()?;
    let name = format!("{}:{}", target.kind(), target.id());
    Some(format!("{}-revoke-{:016x}", incident.id, xxh3_64(name.as_bytes())))
}
