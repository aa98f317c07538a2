//! Messages about incidents, and notices: what each channel has, and when the next message is due.

use std::collections::{BTreeMap, HashSet};

use super::data::{Pending, Settled, State};
use super::keys::{Item, item_of, revocation_key};
use crate::deliver::changes::Changes;
use crate::deliver::record::{Effect, Ending, Hold, REVOKE, Sent, Subject, Thread};
use crate::millis::MINUTE_MS;
use crate::port::{Notice, Revocation};
use crate::verdict::{Incident, Severity, Victim};

/// Number of incidents whose sent messages are kept, to space later ones.
const THREADS_MAX: usize = 10_000;
/// Maximum number of new victims that a message can name.
const JOINED_MAX: usize = 100;
/// Maximum time that the first message of an incident waits for the first attempt at its revocation.
const REVOCATION_WAIT_MS: i64 = 15_000;
/// Minimum time between a message about outcomes and the previous message of its incident, so that it names several.
const OUTCOME_SPACING_MS: i64 = 10_000;
/// Victims that join within this time are in one message.
const JOIN_WAIT_MS: i64 = 5_000;
/// Minimum time between two messages about joined victims.
const JOIN_SPACING_MS: i64 = MINUTE_MS;
/// The same after the input has ended.
const LAST_WAIT_MS: i64 = 300;
/// Minimum time before a rejected message that has changed since is sent again.
const REJECTED_WAIT_MS: i64 = 15 * MINUTE_MS;

impl State {
    /// Every waiting or held message: its key, lane and incident.
    pub(in crate::deliver) fn pending_messages(&self) -> Vec<(String, String, Option<Box<Incident>>)> {
        let threads = self.threads.values().flat_map(|thread| {
            thread.pending.keys().map(|lane| (thread.key.clone(), lane.clone(), thread.incident.clone()))
        });
        let notices = self.notices.iter();
        let notices =
            notices.flat_map(|(key, notice)| notice.lanes.keys().map(|lane| (key.clone(), lane.clone(), None)));
        threads.chain(notices).collect()
    }

    /// After the end of the input: makes postponed messages due.
    pub(in crate::deliver) fn flush(&mut self, now: i64) {
        self.is_last = true;
        self.flush_digests(now);
        let pending = self.threads.iter().flat_map(|(incident, thread)| {
            let unsent = thread.pending.iter().filter(|(lane, effect)| {
                effect.attempts == 0 && effect.hold.is_none() && thread.sent.contains_key(*lane)
            });
            unsent.map(|(lane, _)| (*incident, lane.clone()))
        });
        for (incident, lane) in pending.collect::<Vec<_>>() {
            self.update(&Item::Thread(incident), &lane, |effect| effect.due_at = effect.due_at.min(now + LAST_WAIT_MS));
        }
    }

    /// Outcomes of the incident's revocations, first those newer than `seq`.
    pub(in crate::deliver) fn outcomes(&self, incident: u64, seq: u64) -> Vec<(&Subject, &Settled)> {
        let keys = self.threads.get(&incident).map_or(&[][..], |thread| &thread.revocations);
        let mut outcomes: Vec<_> = keys
            .iter()
            .filter_map(|key| self.settled.get(key))
            .filter_map(|settled| Some((settled.of.as_ref()?, settled)))
            .collect();
        outcomes.sort_by_key(|(of, _)| of.seq <= seq);
        outcomes
    }

    /// Adds a change of an incident.
    pub(super) fn change(&mut self, key: String, at: i64, incident: Box<Incident>, lanes: Vec<String>) {
        self.known.insert(key.clone());
        self.taken += 1;
        let (id, number) = (incident.id.0, self.taken);
        let thread = self.threads.entry(id).or_insert_with(|| Thread::new(number, at));
        thread.changes.add(&incident, victim(&incident), at);
        if incident.victims_total > thread.victims_total || thread.key.is_empty() {
            thread.victims_total = thread.victims_total.max(incident.victims_total);
            thread.seq += 1;
            thread.joined.push((thread.seq, victim(&incident)));
            if thread.joined.len() > JOINED_MAX {
                thread.joined.remove(0);
            }
        }
        thread.key.clone_from(&key);
        thread.at = at;
        let asked = revocation_key(&incident).filter(|_| lanes.iter().any(|lane| lane == REVOKE));
        if let Some(asked) = &asked {
            let thread = self.threads.entry(id).or_insert_with(|| Thread::new(number, at));
            if !thread.revocations.contains(asked) {
                thread.revocations.push(asked.clone());
            }
            let of = incident.revoke.clone().map(|target| Subject { incident: id, target, seq: thread.seq });
            let revocation = Revocation::Waiting("not tried yet".to_owned());
            self.set_settled(asked.clone(), Settled { revocation, of, confirmation: None });
            let effect = Effect { due_at: at, ..Effect::default() };
            let without_victims = Incident { victims: Vec::new(), ..(*incident).clone() };
            self.ask(key, at, Box::new(without_victims), effect);
        }
        let channels: Vec<_> = lanes.into_iter().filter(|lane| lane != REVOKE).collect();
        if channels.is_empty() {
            return;
        }
        if let Some(thread) = self.threads.get_mut(&id) {
            thread.incident = Some(incident);
        }
        let opening = at + if asked.is_some() { REVOCATION_WAIT_MS } else { 0 };
        for lane in channels {
            self.request(id, &lane, at, opening);
        }
        self.forget_threads();
    }

    /// Adds a message about the incident to a lane. `opening`: time at which the first message is due.
    pub(super) fn request(&mut self, incident: u64, lane: &str, at: i64, opening: i64) {
        let is_last = self.is_last;
        let Some(thread) = self.threads.get(&incident) else { return };
        let due_at = if thread.sent.contains_key(lane) { thread.due_at(lane, at, is_last) } else { opening };
        let number = thread.number;
        if thread.pending.contains_key(lane) {
            self.update(&Item::Thread(incident), lane, |effect| {
                effect.due_at = match effect.hold {
                    // The channel may accept the message after its content has changed.
                    Some(_) => effect.due_at.min(due_at.max(effect.tried_at + REJECTED_WAIT_MS)),
                    None if effect.attempts == 0 => effect.due_at.min(due_at),
                    // The back-off of a failing lane is kept.
                    None => effect.due_at,
                };
            });
            return;
        }
        let effect = Effect { due_at, ..Effect::default() };
        self.index(lane, &effect, number, Item::Thread(incident), None);
        if let Some(thread) = self.threads.get_mut(&incident) {
            thread.pending.insert(lane.to_owned(), effect);
        }
    }

    /// Adds a message of `lane` to the lanes `to` that do not have it.
    pub(super) fn reroute(&mut self, key: &str, lane: &str, to: &[String], at: i64) {
        let item = item_of(lane, key);
        self.update(&item, lane, |effect| effect.rerouted = true);
        for lane in to.iter().filter(|lane| !self.has_message(key, lane)).cloned().collect::<Vec<_>>() {
            match &item {
                Item::Thread(id) => self.request(*id, &lane, at, at),
                Item::Notice(key) => {
                    let effect = Effect { due_at: at, ..Effect::default() };
                    let Some(notice) = self.notices.get_mut(key) else { continue };
                    notice.lanes.insert(lane.clone(), effect.clone());
                    let number = notice.number;
                    self.index(&lane, &effect, number, item.clone(), None);
                }
                Item::Revocation(_) => {}
            }
        }
    }

    /// Whether `lane` has sent the incident or notice of this message, or is to send it.
    pub(in crate::deliver) fn has_message(&self, key: &str, lane: &str) -> bool {
        match item_of(lane, key) {
            Item::Thread(id) => self
                .threads
                .get(&id)
                .is_some_and(|thread| thread.pending.contains_key(lane) || thread.sent.contains_key(lane)),
            Item::Notice(key) => self.notices.get(&key).is_some_and(|notice| {
                notice.lanes.contains_key(lane) || notice.ended.get(lane) == Some(&Ending::Accepted)
            }),
            Item::Revocation(_) => false,
        }
    }

    /// Whether `lane` rejected this message. One rejected message does not affect others: an attacker chooses values in
    /// messages, and could otherwise stop a channel.
    pub(in crate::deliver) fn has_rejected(&self, key: &str, lane: &str) -> bool {
        let is_held = |effect: &Effect| effect.hold == Some(Hold::Rejected);
        match item_of(lane, key) {
            Item::Thread(id) => self.threads.get(&id).is_some_and(|thread| {
                thread.pending.get(lane).is_some_and(is_held)
                    || thread.given_up.get(lane).is_some_and(|given_up| given_up == key)
            }),
            Item::Notice(key) => self.notices.get(&key).is_some_and(|notice| {
                notice.lanes.get(lane).is_some_and(is_held) || notice.ended.get(lane) == Some(&Ending::GivenUp)
            }),
            Item::Revocation(_) => false,
        }
    }

    /// Keys of at most `max` messages of `lane` that are due at `now` and that no other channel was asked to send.
    pub(in crate::deliver) fn stuck_messages(&self, lane: &str, now: i64, max: usize) -> Vec<String> {
        let due = self.lanes.get(lane).into_iter().flatten().filter(|due| due.at <= now);
        due.filter_map(|due| match &due.item {
            Item::Thread(id) => {
                let thread = self.threads.get(id)?;
                thread.pending.get(lane).filter(|effect| !effect.rerouted).map(|_| thread.key.clone())
            }
            Item::Notice(key) => {
                self.notices.get(key)?.lanes.get(lane).filter(|effect| !effect.rerouted).map(|_| key.clone())
            }
            Item::Revocation(_) => None,
        })
        .take(max)
        .collect()
    }

    pub(super) fn place_notice(
        &mut self,
        key: String,
        notice: Notice,
        pending: BTreeMap<String, Effect>,
        ended: BTreeMap<String, Ending>,
    ) {
        self.known.insert(key.clone());
        self.taken += 1;
        if let Some(old) = self.notices.remove(&key) {
            for (lane, effect) in &old.lanes {
                self.unindex(lane, effect, old.number, Item::Notice(key.clone()), None);
            }
        }
        for (lane, effect) in &pending {
            self.index(lane, effect, self.taken, Item::Notice(key.clone()), None);
        }
        if !pending.is_empty() {
            self.notices.insert(key, Pending { number: self.taken, notice, lanes: pending, ended });
        }
    }

    /// Removes the incidents that changed longest ago and have no message to send.
    pub(super) fn forget_threads(&mut self) {
        if self.threads.len() <= THREADS_MAX {
            return;
        }
        let open: HashSet<u64> = self.revocations.values().map(|asked| asked.incident.id.0).collect();
        let idle = self.threads.iter().filter(|(id, thread)| thread.pending.is_empty() && !open.contains(id));
        let mut idle: Vec<_> = idle.map(|(id, thread)| (thread.at, *id)).collect();
        idle.sort_unstable();
        for (_, id) in idle.into_iter().take(THREADS_MAX / 10) {
            self.threads.remove(&id);
        }
    }
}

impl Thread {
    pub(super) fn new(number: u64, at: i64) -> Self {
        Self {
            key: String::new(),
            at,
            number,
            incident: None,
            pending: BTreeMap::new(),
            sent: BTreeMap::new(),
            given_up: BTreeMap::new(),
            joined: Vec::new(),
            victims_total: 0,
            seq: 0,
            acted: 0,
            revocations: Vec::new(),
            changes: Changes::default(),
        }
    }

    /// Time at which a change at `at` is reported in a lane that has reported the incident before.
    pub(super) fn due_at(&self, lane: &str, at: i64, is_last: bool) -> i64 {
        let Some(sent) = self.sent.get(lane) else { return at };
        if self.incident.as_ref().is_some_and(|incident| incident.severity > sent.severity) {
            return at;
        }
        if is_last {
            return at + LAST_WAIT_MS;
        }
        if self.acted > sent.seq {
            return at.max(sent.at + OUTCOME_SPACING_MS);
        }
        (at + JOIN_WAIT_MS).max(sent.spaced_from + JOIN_SPACING_MS)
    }

    /// State of `lane` after it accepts a message at `at`.
    pub(in crate::deliver) fn sent_by(&self, lane: &str, severity: Severity, at: i64) -> Sent {
        // The first message does not count for the spacing, so the next victim is reported soon.
        let spaced_from = if self.sent.contains_key(lane) { at } else { at - JOIN_SPACING_MS };
        let root = self.sent.get(lane).and_then(|sent| sent.root.clone());
        Sent { at, spaced_from, severity, seq: self.seq, change: self.changes.last(), root, is_withheld: false }
    }

    /// State of `lane` after a silence withholds a message. Its content stays unsent, so the next message reports it.
    pub(super) fn withheld_by(&self, lane: &str, withheld: &Sent) -> Sent {
        let accepted = self.sent.get(lane);
        let (seq, change) = accepted.map_or((0, 0), |sent| (sent.seq, sent.change));
        Sent { seq, change, root: accepted.and_then(|sent| sent.root.clone()), is_withheld: true, ..*withheld }
    }

    /// Victims that joined since the last message of `lane`.
    pub(in crate::deliver) fn joined_since(&self, lane: &str) -> Vec<Victim> {
        let seq = self.sent.get(lane).map_or(0, |sent| sent.seq);
        self.joined.iter().filter(|(joined, _)| *joined > seq).map(|(_, victim)| victim.clone()).collect()
    }
}

fn victim(incident: &Incident) -> Victim {
    Victim {
        token_id: incident.token_id.clone(),
        family_id: incident.family_id.clone(),
        user_id: incident.user_id.clone(),
        app_id: incident.app_id.clone(),
    }
}
