//! What the outbox holds, as a fold of its journal's records: the same records always give the same state.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use sha2::{Digest as _, Sha256};

use super::record::{Effect, Hold, REVOKE, Record, Sent, Subject, Thread, Work};
use super::{DAY_MS, HOUR_MS};
use crate::port::{ActionRow, Notice, Revocation};
use crate::verdict::{Incident, Severity, Victim};

/// Keys remembered of what is done, so that it is not done again when its events are read again.
const KNOWN_MAX: usize = 100_000;
/// Incidents whose messages are remembered, so that later ones are spaced.
const THREADS_MAX: usize = 10_000;
/// Victims that a message can name as new.
const JOINED_MAX: usize = 100;
/// The first message of an incident waits no longer than this for the first attempt at its revocation.
const REVOCATION_WAIT_MS: i64 = 15_000;
/// A message about outcomes follows the last message of its incident by at least this, and so names several.
const OUTCOME_SPACING_MS: i64 = 10_000;
/// Victims that join within this are in one message.
const JOIN_WAIT_MS: i64 = 5_000;
/// A message about victims that joined follows the last one by at least this.
const JOIN_SPACING_MS: i64 = 60_000;
/// The same once no more events come: what is to be reported together comes within this.
const LAST_WAIT_MS: i64 = 300;
/// A revocation that is asked for again is not requested again before this.
const NUDGE_WAIT_MS: i64 = 60_000;
/// A message that was rejected and has changed since is not sent again before this.
const REJECTED_WAIT_MS: i64 = 15 * 60_000;
/// A revocation is given up after this.
pub(super) const REVOCATION_MS_MAX: i64 = 7 * DAY_MS;
/// Revocations held of one tenant, and of all; beyond it the oldest of the tenant with most is given up.
const HELD_OF_TENANT_MAX: usize = 1_000;
const HELD_MAX: usize = 10_000;
/// Messages that one channel rejected and that are kept for it.
const REJECTED_MAX: usize = 5_000;

/// When something is due in a lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    /// Milliseconds since the epoch, wall clock.
    pub at: i64,
    number: u64,
    pub item: Item,
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item {
    /// A message about this incident.
    Thread(u64),
    Notice(String),
    Revocation(String),
}

/// A revocation that is not done.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub at: i64,
    number: u64,
    /// Without its list of victims.
    pub incident: Box<Incident>,
    pub effect: Effect,
    /// Its idempotency key.
    pub name: String,
}

/// A notice that some channels do not have yet.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    number: u64,
    pub notice: Notice,
    pub lanes: BTreeMap<String, Effect>,
}

/// How a revocation stands.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    pub revocation: Revocation,
    /// Absent in a journal of an earlier version.
    pub of: Option<Subject>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub threads: HashMap<u64, Thread>,
    pub notices: HashMap<String, Pending>,
    /// By key of the change that asked for it.
    pub revocations: HashMap<String, Asked>,
    /// The same key by idempotency key.
    by_name: HashMap<String, String>,
    /// By lane, what is due when, in the order in which it is to be done.
    lanes: HashMap<String, BTreeSet<Due>>,
    /// Revocations that wait for the caps, by allowance; and for their resumption; the oldest first.
    capped: BTreeMap<String, BTreeSet<(u64, String)>>,
    paused: BTreeSet<(u64, String)>,
    /// When each revocation was asked for.
    ages: BTreeSet<(i64, String)>,
    /// Effects that wait, apart from held ones; and those.
    waiting: usize,
    held: usize,
    /// Channels whose last answer was a rejection.
    rejecting: BTreeSet<String>,
    /// Changes taken.
    taken: u64,
    known: Remembered,
    /// By incident and target.
    settled: HashMap<String, Settled>,
    settled_order: VecDeque<String>,
    /// When revocations were first requested within the last hour, and whose allowance they used.
    calls: VecDeque<(i64, String)>,
    pub rows: VecDeque<ActionRow>,
    /// No more events come: nothing is put off to be reported together with later changes.
    pub is_last: bool,
    /// Changes of a journal of an earlier version, whose effects follow.
    unplaced: HashMap<String, (i64, Work)>,
}

impl State {
    pub(super) fn apply(&mut self, record: Record) {
        match record {
            Record::Taken { key, at, work, lanes } if lanes.is_empty() => {
                self.unplaced.insert(key, (at, work));
            }
            Record::Taken { key, at, work: Work::Incident(incident), lanes } => self.change(key, at, incident, lanes),
            Record::Taken { key, at, work: Work::Notice(notice), lanes } => {
                let effect = Effect { due_at: at, ..Effect::default() };
                self.place_notice(key, notice, lanes.into_iter().map(|lane| (lane, effect.clone())).collect());
            }
            Record::Called { key, at, allowance } => {
                self.calls.push_back((at, allowance));
                while self.calls.front().is_some_and(|(first, _)| at - first >= HOUR_MS) {
                    self.calls.pop_front();
                }
                if let Some(asked) = self.revocations.get_mut(&key) {
                    asked.effect.called = true;
                }
            }
            Record::Tried { key, lane, attempt, due_at, revocation, row, at, panicked } => {
                self.rows.extend(row);
                let item = item_of(&lane, &key);
                self.update(&item, &lane, |effect| {
                    let panics = if panicked { effect.panics + 1 } else { 0 };
                    *effect = Effect { attempts: attempt, due_at, tried_at: at, panics, hold: None, ..effect.clone() };
                });
                self.settle(&key, at, revocation, &[]);
            }
            Record::Held { key, lane, attempt, at, due_at, hold, revocation, row, channels } => {
                self.rows.extend(row);
                let item = item_of(&lane, &key);
                self.update(&item, &lane, |effect| {
                    let refusals = effect.refusals + u32::from(hold == Hold::Refused);
                    let (called, hold) = (effect.called, Some(hold));
                    *effect = Effect { attempts: attempt, due_at, called, tried_at: at, panics: 0, refusals, hold };
                });
                if hold == Hold::Rejected {
                    self.rejecting.insert(lane);
                }
                self.settle(&key, at, revocation, &channels);
            }
            Record::Nudged { key, at } => {
                self.update(&Item::Revocation(key), REVOKE, |effect| {
                    effect.due_at = effect.due_at.min(at.max(effect.tried_at + NUDGE_WAIT_MS));
                });
            }
            Record::Ended { key, lane, revocation, row, at, channels, sent } => {
                self.rows.extend(row);
                self.settle(&key, at, revocation, &channels);
                self.end(&key, &lane, sent);
            }
            Record::Written { rows } => {
                self.rows.drain(..rows.min(self.rows.len()));
            }
            Record::Known { key } => self.known.insert(key),
            Record::Settled { key, revocation, of } => self.set_settled(key, Settled { revocation, of }),
            Record::Kept { key, effect, lane } => self.keep(&key, lane, effect),
            Record::Thread { incident, thread } => {
                self.taken = self.taken.max(thread.number);
                for (lane, effect) in &thread.pending {
                    self.index(lane, effect, thread.number, Item::Thread(incident), None);
                }
                self.threads.insert(incident, *thread);
            }
            Record::Notice { key, notice, pending } => self.place_notice(key, notice, pending),
            Record::Asked { key, at, incident, effect } => self.ask(key, at, incident, effect),
            Record::Row { row } => self.rows.push_back(row),
        }
    }

    /// All that must not be forgotten, as records that give this state again.
    pub(super) fn records(&self) -> Vec<Record> {
        let mut records: Vec<_> = self.known.order.iter().map(|key| Record::Known { key: key.clone() }).collect();
        let calls = self.calls.iter();
        records.extend(calls.map(|(at, allowance)| Record::Called {
            key: String::new(),
            at: *at,
            allowance: allowance.clone(),
        }));
        let mut threads: Vec<_> = self.threads.iter().collect();
        threads.sort_by_key(|(_, thread)| thread.number);
        records.extend(
            threads
                .into_iter()
                .map(|(incident, thread)| Record::Thread { incident: *incident, thread: Box::new(thread.clone()) }),
        );
        records.extend(self.settled_order.iter().filter_map(|key| {
            let Settled { revocation, of } = self.settled.get(key)?.clone();
            Some(Record::Settled { key: key.clone(), revocation, of })
        }));
        let mut notices: Vec<_> = self.notices.iter().collect();
        notices.sort_by_key(|(_, pending)| pending.number);
        records.extend(notices.into_iter().map(|(key, Pending { notice, lanes, .. })| Record::Notice {
            key: key.clone(),
            notice: notice.clone(),
            pending: lanes.clone(),
        }));
        let mut asked: Vec<_> = self.revocations.iter().collect();
        asked.sort_by_key(|(_, asked)| asked.number);
        records.extend(asked.into_iter().map(|(key, asked)| Record::Asked {
            key: key.clone(),
            at: asked.at,
            incident: asked.incident.clone(),
            effect: asked.effect.clone(),
        }));
        records.extend(self.rows.iter().map(|row| Record::Row { row: row.clone() }));
        records
    }

    /// Whether the change or notice is waiting or done already.
    pub(super) fn has(&self, key: &str) -> bool {
        self.known.keys.contains(key)
    }

    /// Effects that wait, without held ones.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Effects whose next attempt waits until its cause is gone.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// How the revocation under `key` stands; `None`: it has not been asked for.
    pub(super) fn settled(&self, key: &str) -> Option<&Settled> {
        self.settled.get(key)
    }

    /// The open revocation with this idempotency key, by key of the change that asked for it.
    pub(super) fn open_revocation(&self, name: &str) -> Option<(&String, &Asked)> {
        self.revocations.get_key_value(self.by_name.get(name)?)
    }

    /// What is due first in a lane.
    pub(super) fn first(&self, lane: &str) -> Option<&Due> {
        self.lanes.get(lane)?.first()
    }

    /// The oldest revocation that is held because revocations are paused.
    pub(super) fn first_paused(&self) -> Option<&str> {
        self.paused.first().map(|(_, key)| key.as_str())
    }

    /// The oldest open revocation, and when it was asked for.
    pub(super) fn oldest_revocation(&self) -> Option<(i64, &str)> {
        self.ages.first().map(|(at, key)| (*at, key.as_str()))
    }

    /// When `allowance` has room for another revocation; `i64::MAX`: never.
    pub(super) fn room_at(&self, allowance: &str, caps: Caps, now: i64) -> i64 {
        let room = |calls: Vec<i64>, cap: u32| match cap as usize {
            0 => i64::MAX,
            cap if calls.len() < cap => now,
            cap => calls[calls.len() - cap] + HOUR_MS,
        };
        let within = self.calls.iter().filter(|(at, _)| now - at < HOUR_MS);
        let all: Vec<i64> = within.clone().map(|(at, _)| *at).collect();
        let own: Vec<i64> = within.filter(|(_, whose)| whose == allowance).map(|(at, _)| *at).collect();
        room(all, caps.total).max(room(own, caps.of_tenant))
    }

    /// The oldest capped revocation whose allowance has room, or when one has.
    pub(super) fn first_capped(&self, caps: Caps, now: i64) -> Result<String, i64> {
        let mut oldest: Option<&(u64, String)> = None;
        let mut room_at = i64::MAX;
        for (allowance, waiting) in &self.capped {
            let Some(first) = waiting.first() else { continue };
            let at = self.room_at(allowance, caps, now);
            if at <= now && oldest.is_none_or(|found| first < found) {
                oldest = Some(first);
            }
            room_at = room_at.min(at);
        }
        oldest.map(|(_, key)| key.clone()).ok_or(room_at)
    }

    /// Whether revocations of `allowance` wait for the caps.
    pub(super) fn is_capped(&self, allowance: &str) -> bool {
        self.capped.get(allowance).is_some_and(|waiting| !waiting.is_empty())
    }

    /// A held revocation that is to be given up because too many are held.
    pub(super) fn too_many_held(&self) -> Option<String> {
        let mut of_tenant: HashMap<&str, (usize, &str, u64)> = HashMap::new();
        let held: Vec<_> = self.revocations.iter().filter(|(_, asked)| asked.effect.hold.is_some()).collect();
        for (key, asked) in &held {
            let entry = of_tenant.entry(allowance(&asked.incident)).or_insert((0, key, asked.number));
            entry.0 += 1;
            if asked.number < entry.2 {
                (entry.1, entry.2) = (key, asked.number);
            }
        }
        let (count, oldest, _) = of_tenant.into_values().max_by_key(|(count, _, number)| (*count, *number))?;
        (count > HELD_OF_TENANT_MAX || held.len() > HELD_MAX).then(|| oldest.to_owned())
    }

    /// Every message that waits or is held: its key, its lane, and the incident that it is about.
    pub(super) fn pending_messages(&self) -> Vec<(String, String, Option<Box<Incident>>)> {
        let threads = self.threads.values().flat_map(|thread| {
            thread.pending.keys().map(|lane| (thread.key.clone(), lane.clone(), thread.incident.clone()))
        });
        let notices = self.notices.iter();
        let notices =
            notices.flat_map(|(key, notice)| notice.lanes.keys().map(|lane| (key.clone(), lane.clone(), None)));
        threads.chain(notices).collect()
    }

    /// Whether `channel` rejected the last message that it was sent.
    pub(super) fn is_rejecting(&self, channel: &str) -> bool {
        self.rejecting.contains(channel)
    }

    /// Whether `lane` keeps as many rejected messages as it may.
    pub(super) fn keeps_enough(&self, lane: &str) -> bool {
        self.lanes.get(lane).is_some_and(|due| {
            due.len() >= REJECTED_MAX && due.iter().filter(|due| self.is_held(lane, &due.item)).count() >= REJECTED_MAX
        })
    }

    /// Makes all that is held for a refusal or rejection due at `now`: the configuration may have changed.
    pub(super) fn try_again(&mut self, now: i64) {
        self.rejecting.clear();
        let lanes: Vec<String> = self.lanes.keys().cloned().collect();
        for lane in lanes {
            self.release(&lane, now);
        }
    }

    /// Reports what was put off, now that no more events come.
    pub(super) fn flush(&mut self, now: i64) {
        self.is_last = true;
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

    /// Outcomes of the incident's revocations: those that are newer than `seq` first, then the others.
    pub(super) fn outcomes(&self, incident: u64, seq: u64) -> Vec<(&Subject, &Revocation)> {
        let keys = self.threads.get(&incident).map_or(&[][..], |thread| &thread.revocations);
        let mut outcomes: Vec<_> = keys
            .iter()
            .filter_map(|key| self.settled.get(key))
            .filter_map(|settled| Some((settled.of.as_ref()?, &settled.revocation)))
            .collect();
        outcomes.sort_by_key(|(of, _)| of.seq <= seq);
        outcomes
    }

    /// A change of an incident.
    fn change(&mut self, key: String, at: i64, incident: Box<Incident>, lanes: Vec<String>) {
        self.known.insert(key.clone());
        self.taken += 1;
        let (id, number) = (incident.id.0, self.taken);
        let thread = self.threads.entry(id).or_insert_with(|| Thread::new(number, at));
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
            self.set_settled(asked.clone(), Settled { revocation, of });
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

    /// Puts a message about the incident into a lane. `opening`: when the first one is due.
    fn request(&mut self, incident: u64, lane: &str, at: i64, opening: i64) {
        let is_last = self.is_last;
        let Some(thread) = self.threads.get(&incident) else { return };
        let due_at = if thread.sent.contains_key(lane) { thread.due_at(lane, at, is_last) } else { opening };
        let number = thread.number;
        if thread.pending.contains_key(lane) {
            self.update(&Item::Thread(incident), lane, |effect| {
                effect.due_at = match effect.hold {
                    // What was rejected may be accepted once it reads otherwise.
                    Some(_) => effect.due_at.min(due_at.max(effect.tried_at + REJECTED_WAIT_MS)),
                    None if effect.attempts == 0 => effect.due_at.min(due_at),
                    // A lane that fails keeps its back-off.
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

    /// An effect of an earlier version's change.
    fn keep(&mut self, key: &str, lane: String, effect: Effect) {
        let Some((at, work)) = self.unplaced.get(key).cloned() else { return };
        match work {
            Work::Incident(incident) if lane == REVOKE => {
                let asked = revocation_key(&incident);
                let subject = incident.revoke.clone().map(|target| Subject { incident: incident.id.0, target, seq: 0 });
                if let Some(asked) = asked {
                    let revocation = self.settled.get(&asked).map(|settled| settled.revocation.clone());
                    let revocation = revocation.unwrap_or_else(|| Revocation::Waiting("not tried yet".to_owned()));
                    self.set_settled(asked, Settled { revocation, of: subject });
                }
                self.known.insert(key.to_owned());
                self.ask(key.to_owned(), at, incident, effect);
            }
            Work::Incident(incident) => {
                let due_at = effect.due_at;
                self.change(key.to_owned(), at, incident, vec![lane.clone()]);
                if let Some(item) = thread_of(key).map(Item::Thread) {
                    self.update(&item, &lane, |kept| *kept = Effect { due_at, ..effect });
                }
            }
            Work::Notice(notice) => {
                let mut pending = self.notices.get(key).map(|kept| kept.lanes.clone()).unwrap_or_default();
                pending.insert(lane, effect);
                self.place_notice(key.to_owned(), notice, pending);
            }
        }
    }

    fn place_notice(&mut self, key: String, notice: Notice, pending: BTreeMap<String, Effect>) {
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
            self.notices.insert(key, Pending { number: self.taken, notice, lanes: pending });
        }
    }

    fn ask(&mut self, key: String, at: i64, incident: Box<Incident>, effect: Effect) {
        let Some(name) = revocation_key(&incident) else { return };
        self.taken += 1;
        let number = self.taken;
        self.ages.insert((at, key.clone()));
        self.index(REVOKE, &effect, number, Item::Revocation(key.clone()), Some(allowance(&incident)));
        self.by_name.insert(name.clone(), key.clone());
        self.revocations.insert(key, Asked { at, number, incident, effect, name });
    }

    /// Changes an effect in its place, if there is such an effect.
    fn update(&mut self, item: &Item, lane: &str, change: impl FnOnce(&mut Effect)) {
        let Some((mut effect, number, whose)) = self.effect(item, lane) else { return };
        self.unindex(lane, &effect, number, item.clone(), whose.as_deref());
        change(&mut effect);
        self.index(lane, &effect, number, item.clone(), whose.as_deref());
        match item {
            Item::Thread(id) => {
                if let Some(thread) = self.threads.get_mut(id) {
                    thread.pending.insert(lane.to_owned(), effect);
                }
            }
            Item::Notice(key) => {
                if let Some(notice) = self.notices.get_mut(key) {
                    notice.lanes.insert(lane.to_owned(), effect);
                }
            }
            Item::Revocation(key) => {
                if let Some(asked) = self.revocations.get_mut(key) {
                    asked.effect = effect;
                }
            }
        }
    }

    /// The effect of `item` in `lane`, its number, and whose allowance it uses.
    fn effect(&self, item: &Item, lane: &str) -> Option<(Effect, u64, Option<String>)> {
        match item {
            Item::Thread(id) => {
                let thread = self.threads.get(id)?;
                Some((thread.pending.get(lane)?.clone(), thread.number, None))
            }
            Item::Notice(key) => {
                let notice = self.notices.get(key)?;
                Some((notice.lanes.get(lane)?.clone(), notice.number, None))
            }
            Item::Revocation(key) => {
                let asked = self.revocations.get(key)?;
                Some((asked.effect.clone(), asked.number, Some(allowance(&asked.incident).to_owned())))
            }
        }
    }

    fn is_held(&self, lane: &str, item: &Item) -> bool {
        self.effect(item, lane).is_some_and(|(effect, ..)| effect.hold.is_some())
    }

    /// Makes what is held in `lane` for a refusal or rejection due at `now`.
    fn release(&mut self, lane: &str, now: i64) {
        let due: Vec<Item> =
            self.lanes.get(lane).map(|due| due.iter().map(|due| due.item.clone()).collect()).unwrap_or_default();
        for item in due {
            self.update(&item, lane, |effect| {
                if matches!(effect.hold, Some(Hold::Refused | Hold::Rejected)) {
                    effect.due_at = effect.due_at.min(now);
                }
            });
        }
    }

    fn end(&mut self, key: &str, lane: &str, sent: Option<Sent>) {
        let item = item_of(lane, key);
        let Some((effect, number, whose)) = self.effect(&item, lane) else { return };
        match (&item, &sent) {
            (_, Some(sent)) if self.rejecting.remove(lane) => self.release(lane, sent.at),
            (Item::Revocation(_), _) | (_, Some(_)) => {}
            (_, None) => _ = self.rejecting.insert(lane.to_owned()),
        }
        // It changed in the meantime: the message that was sent is not the last one.
        let is_stale = matches!(&item, Item::Thread(id) if self.threads.get(id).is_some_and(|now| now.key != key));
        if let (Item::Thread(id), Some(sent)) = (&item, sent)
            && let Some(thread) = self.threads.get_mut(id)
        {
            thread.sent.insert(lane.to_owned(), sent);
        }
        if is_stale {
            let Item::Thread(id) = &item else { return };
            let is_last = self.is_last;
            let due_at = self.threads.get(id).map(|thread| thread.due_at(lane, thread.at, is_last));
            self.update(&item, lane, |effect| {
                *effect = Effect { due_at: due_at.unwrap_or(effect.due_at), ..Effect::default() };
            });
            return;
        }
        let effect = self.effect(&item, lane).map_or(effect, |(effect, ..)| effect);
        self.unindex(lane, &effect, number, item.clone(), whose.as_deref());
        match item {
            Item::Thread(id) => {
                if let Some(thread) = self.threads.get_mut(&id) {
                    thread.pending.remove(lane);
                    if thread.pending.is_empty() {
                        thread.incident = None;
                    }
                }
            }
            Item::Notice(key) => {
                if let Some(notice) = self.notices.get_mut(&key) {
                    notice.lanes.remove(lane);
                    if notice.lanes.is_empty() {
                        self.notices.remove(&key);
                    }
                }
            }
            Item::Revocation(key) => {
                if let Some(asked) = self.revocations.remove(&key) {
                    self.by_name.remove(&asked.name);
                    self.ages.remove(&(asked.at, key));
                }
            }
        }
    }

    /// Notes how the revocation asked for by the change `key` stands, and has it reported by `channels` where people
    /// must know.
    fn settle(&mut self, key: &str, at: i64, revocation: Option<Revocation>, channels: &[String]) {
        let Some(revocation) = revocation else { return };
        let Some(asked) = self.revocations.get(key) else { return };
        let (incident, name) = (asked.incident.clone(), asked.name.clone());
        // A record of an earlier version has no time.
        let (id, number, at) = (incident.id.0, asked.number, if at == 0 { asked.at } else { at });
        let old = self.settled.get(&name).map(|old| &old.revocation);
        let is_waiting = matches!(revocation, Revocation::Waiting(_));
        if is_waiting && old.is_some_and(|old| !matches!(old, Revocation::Waiting(_))) {
            // That it is tried again changes nothing of what was reported.
            return;
        }
        let is_same = old.is_some_and(|old| kind(old) == kind(&revocation));
        let thread = self.threads.entry(id).or_insert_with(|| Thread::new(number, at));
        if !is_same && !is_waiting {
            thread.seq += 1;
            if must_be_known_at_once(&revocation) {
                thread.acted = thread.seq;
            }
        }
        let (seq, word) = (thread.seq, kind(&revocation));
        let old = self.settled.get(&name).and_then(|old| old.of.as_ref().map(|of| of.seq));
        let seq = if is_same || is_waiting { old.unwrap_or(seq) } else { seq };
        let of = incident.revoke.clone().map(|target| Subject { incident: id, target, seq });
        self.set_settled(name, Settled { revocation, of });
        // The first message of the incident waits for this.
        let waiting: Vec<String> = self.threads.get(&id).map_or_else(Vec::new, |thread| {
            let unsent = thread.pending.iter().filter(|(lane, effect)| {
                effect.attempts == 0 && effect.hold.is_none() && !thread.sent.contains_key(*lane)
            });
            unsent.map(|(lane, _)| lane.clone()).collect()
        });
        for lane in waiting {
            self.update(&Item::Thread(id), &lane, |effect| effect.due_at = effect.due_at.min(at));
        }
        if is_same || is_waiting || channels.is_empty() {
            return;
        }
        if let Some(thread) = self.threads.get_mut(&id) {
            thread.key = format!("{key}-{word}-{at}");
            thread.at = at;
            thread.incident.get_or_insert(incident);
        }
        for lane in channels {
            self.request(id, lane, at, at);
        }
    }

    fn set_settled(&mut self, key: String, settled: Settled) {
        if self.settled.insert(key.clone(), settled).is_none() {
            self.settled_order.push_back(key);
            if self.settled_order.len() > KNOWN_MAX
                && let Some(oldest) = self.settled_order.pop_front()
            {
                self.settled.remove(&oldest);
            }
        }
    }

    /// Forgets the incidents that changed longest ago and of which nothing is to be sent.
    fn forget_threads(&mut self) {
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

    fn index(&mut self, lane: &str, effect: &Effect, number: u64, item: Item, whose: Option<&str>) {
        *if effect.hold.is_some() { &mut self.held } else { &mut self.waiting } += 1;
        match (effect.hold, item) {
            (Some(Hold::Capped), Item::Revocation(key)) => {
                _ = self.capped.entry(whose.unwrap_or_default().to_owned()).or_default().insert((number, key));
            }
            (Some(Hold::Paused), Item::Revocation(key)) => _ = self.paused.insert((number, key)),
            (_, item) => {
                let due = Due { at: effect.due_at, number, item };
                self.lanes.entry(lane.to_owned()).or_default().insert(due);
            }
        }
    }

    fn unindex(&mut self, lane: &str, effect: &Effect, number: u64, item: Item, whose: Option<&str>) {
        *if effect.hold.is_some() { &mut self.held } else { &mut self.waiting } -= 1;
        match (effect.hold, item) {
            (Some(Hold::Capped), Item::Revocation(key)) => {
                let whose = whose.unwrap_or_default();
                if let Some(waiting) = self.capped.get_mut(whose) {
                    waiting.remove(&(number, key));
                    if waiting.is_empty() {
                        self.capped.remove(whose);
                    }
                }
            }
            (Some(Hold::Paused), Item::Revocation(key)) => _ = self.paused.remove(&(number, key)),
            (_, item) => {
                if let Some(due) = self.lanes.get_mut(lane) {
                    due.remove(&Due { at: effect.due_at, number, item });
                }
            }
        }
    }
}

impl Thread {
    const fn new(number: u64, at: i64) -> Self {
        Self {
            key: String::new(),
            at,
            number,
            incident: None,
            pending: BTreeMap::new(),
            sent: BTreeMap::new(),
            joined: Vec::new(),
            victims_total: 0,
            seq: 0,
            acted: 0,
            revocations: Vec::new(),
        }
    }

    /// When a change at `at` is to be reported in a lane that has reported the incident before.
    fn due_at(&self, lane: &str, at: i64, is_last: bool) -> i64 {
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

    /// What `lane` has accepted when it accepts a message at `at`.
    pub(super) fn sent_by(&self, lane: &str, severity: Severity, at: i64) -> Sent {
        // The first message takes no part in the spacing: the victim after the first is reported soon.
        let spaced_from = if self.sent.contains_key(lane) { at } else { at - JOIN_SPACING_MS };
        Sent { at, spaced_from, severity, seq: self.seq }
    }

    /// The victims that joined since the last message of `lane`.
    pub(super) fn joined_since(&self, lane: &str) -> Vec<Victim> {
        let seq = self.sent.get(lane).map_or(0, |sent| sent.seq);
        self.joined.iter().filter(|(joined, _)| *joined > seq).map(|(_, victim)| victim.clone()).collect()
    }
}

/// Revocations that may be requested within an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caps {
    pub of_tenant: u32,
    pub total: u32,
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

/// Whose allowance of revocations an incident uses: its tenant's, or the one that all new tenants share, for anyone can
/// invent a tenant.
pub(super) fn allowance(incident: &Incident) -> &str {
    if incident.tenant_is_new { NEW_TENANTS } else { &incident.tenant_id }
}

/// No id has a control character.
const NEW_TENANTS: &str = "\0new";

/// The outcome in the audit trail. Outcomes of one kind are reported once.
pub(super) const fn kind(revocation: &Revocation) -> &'static str {
    match revocation {
        Revocation::NotAsked | Revocation::Shadow => "shadow",
        Revocation::Proposed => "proposed",
        Revocation::Waiting(_) => "retry",
        Revocation::Done => "done",
        Revocation::AlreadyGone => "already_gone",
        Revocation::Capped(_) => "capped",
        Revocation::Paused => "paused",
        Revocation::Failed(_) => "failed",
    }
}

/// Whether an outcome is reported without waiting for others of its incident.
const fn must_be_known_at_once(revocation: &Revocation) -> bool {
    !matches!(revocation, Revocation::NotAsked | Revocation::Shadow | Revocation::Proposed | Revocation::Waiting(_))
}

fn victim(incident: &Incident) -> Victim {
    Victim {
        token_id: incident.token_id.clone(),
        family_id: incident.family_id.clone(),
        user_id: incident.user_id.clone(),
        app_id: incident.app_id.clone(),
    }
}

fn item_of(lane: &str, key: &str) -> Item {
    match thread_of(key) {
        _ if lane == REVOKE => Item::Revocation(key.to_owned()),
        Some(incident) => Item::Thread(incident),
        None => Item::Notice(key.to_owned()),
    }
}

/// The incident whose change or message has this key: `INC-` and 16 hexadecimal digits begin it.
fn thread_of(key: &str) -> Option<u64> {
    u64::from_str_radix(key.strip_prefix("INC-")?.get(..16)?, 16).ok()
}

/// Identity of one change of an incident: the event that made it, by tenant, id and content. Producers choose event
/// ids, and two events may share one. It stands in headers, so it is plain.
pub(super) fn change_key(incident: &Incident) -> String {
    format!("{}-{:016x}", incident.id, incident.change)
}

/// The idempotency key of an incident's revocation of one target in one tenant: constant over its changes. The names are
/// chosen by strangers, so the hash is one for which nobody can find two texts.
pub(super) fn revocation_key(incident: &Incident) -> Option<String> {
    use std::fmt::Write as _;

    let target = incident.revoke.as_ref()?;
    let mut hash = Sha256::new();
    for part in [&*incident.tenant_id, target.kind(), target.id()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut key = format!("{}-revoke-", incident.id);
    for byte in &hash.finalize()[..16] {
        let _ = write!(key, "{byte:02x}");
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{BaselineId, Timestamp};
    use crate::verdict::{Action, CampaignId, IncidentId, Mode, Target, Verdict};

    const CAPS: Caps = Caps { of_tenant: 2, total: 3 };

    fn incident(id: u64, victim: u32) -> Incident {
        let at = Timestamp::from_millis(1_795_000_000_000).expect("a time");
        Incident {
            id: IncidentId(id),
            opened_at: at,
            updated_at: at,
            severity: if victim > 3 { Severity::Critical } else { Severity::High },
            verdict: Verdict::Revoke,
            baseline: BaselineId(id),
            subject: "s".to_owned(),
            tenant_id: format!("t-{}", id % 2),
            token_id: format!("at-{victim}"),
            family_id: String::new(),
            user_id: String::new(),
            app_id: String::new(),
            event_id: "e".to_owned(),
            change: u64::from(victim),
            campaign_id: CampaignId(1),
            victims: Vec::new(),
            victims_total: victim,
            tenant_is_new: false,
            log_odds: 8.0,
            signals: Vec::new(),
            reason: "r".to_owned(),
            action: Action::RevokeToken,
            mode: Mode::Enforce,
            tell: true,
            revoke: Some(Target::Token(format!("at-{victim}"))),
        }
    }

    fn taken(incident: Incident, at: i64, lanes: &[&str]) -> Record {
        let key = change_key(&incident);
        let lanes = lanes.iter().map(|lane| (*lane).to_owned()).collect();
        Record::Taken { key, at, work: Work::Incident(Box::new(incident)), lanes }
    }

    /// All that can be observed of a state.
    fn view(state: &State) -> impl PartialEq + std::fmt::Debug {
        let dues = |lane: &str| {
            let due = state.lanes.get(lane).into_iter().flatten();
            due.map(|due| (due.at, due.item.clone())).collect::<Vec<_>>()
        };
        let mut settled: Vec<_> = state.settled.iter().map(|(key, settled)| format!("{key} {settled:?}")).collect();
        settled.sort();
        let mut threads: Vec<_> = state.threads.iter().map(|(id, thread)| format!("{id} {thread:?}")).collect();
        threads.sort();
        let mut open: Vec<_> =
            state.revocations.iter().map(|(key, asked)| format!("{key} {} {:?}", asked.at, asked.effect)).collect();
        open.sort();
        (
            [dues("a"), dues("b"), dues(REVOKE)],
            (state.waiting(), state.held(), state.known.order.clone()),
            (settled, threads, open),
            state.first_capped(CAPS, 0),
            state.first_paused().map(str::to_owned),
            state.oldest_revocation().map(|(at, key)| (at, key.to_owned())),
        )
    }

    /// One thing that happens to a random incident.
    #[derive(Clone, Copy, Debug)]
    enum Op {
        Change { id: u64, victim: u32, revokes: bool },
        Message { id: u64, lane: &'static str, accepted: Option<bool> },
        Revocation { id: u64, victim: u32, to: u8 },
    }

    fn op() -> impl Strategy<Value = Op> {
        let (id, victim) = (1_u64..4, 1_u32..6);
        prop_oneof![
            (id.clone(), victim.clone(), any::<bool>()).prop_map(|(id, victim, revokes)| Op::Change {
                id,
                victim,
                revokes
            }),
            (id.clone(), prop_oneof![Just("a"), Just("b")], any::<Option<bool>>())
                .prop_map(|(id, lane, accepted)| Op::Message { id, lane, accepted }),
            (id, victim, 0_u8..7).prop_map(|(id, victim, to)| Op::Revocation { id, victim, to }),
        ]
    }

    fn record(state: &State, op: Op, at: i64) -> Option<Record> {
        match op {
            Op::Change { id, victim, revokes } => {
                let incident = incident(id, victim);
                let is_known = state.has(&change_key(&incident));
                let lanes: &[&str] = if revokes { &["a", "b", REVOKE] } else { &["a", "b"] };
                (!is_known).then(|| taken(incident, at, lanes))
            }
            Op::Message { id, lane, accepted } => {
                let thread = state.threads.get(&id)?;
                let (key, lane) = (thread.key.clone(), lane.to_owned());
                let (revocation, row) = (None, None);
                Some(match accepted {
                    Some(true) => {
                        let sent = Some(thread.sent_by(&lane, Severity::High, at));
                        Record::Ended { key, lane, revocation, row, at, channels: Vec::new(), sent }
                    }
                    Some(false) => {
                        let (due_at, panicked) = (at + 9, false);
                        Record::Tried { key, lane, attempt: 1, due_at, revocation, row, at, panicked }
                    }
                    None => {
                        let (due_at, hold) = (at + 99, Hold::Rejected);
                        let channels = Vec::new();
                        Record::Held { key, lane, attempt: 1, at, due_at, hold, revocation, row, channels }
                    }
                })
            }
            Op::Revocation { id, victim, to } => {
                let key = change_key(&incident(id, victim));
                let asked = state.revocations.get(&key)?;
                let (lane, row, channels) = (REVOKE.to_owned(), None, vec!["a".to_owned(), "b".to_owned()]);
                let held = |hold, revocation| Record::Held {
                    key: key.clone(),
                    lane: REVOKE.to_owned(),
                    attempt: 1,
                    at,
                    due_at: at + 99,
                    hold,
                    revocation: Some(revocation),
                    row: None,
                    channels: vec!["a".to_owned(), "b".to_owned()],
                };
                Some(match to {
                    0 => Record::Called { key, at, allowance: allowance(&asked.incident).to_owned() },
                    1 => held(Hold::Capped, Revocation::Capped(2)),
                    2 => held(Hold::Paused, Revocation::Paused),
                    3 => held(Hold::Refused, Revocation::Failed("x".to_owned())),
                    4 => Record::Nudged { key, at },
                    5 => {
                        let (due_at, revocation) = (at + 9, Some(Revocation::Waiting("x".to_owned())));
                        Record::Tried { key, lane, attempt: 1, due_at, revocation, row, at, panicked: true }
                    }
                    _ => {
                        let revocation = Some(Revocation::Done);
                        Record::Ended { key, lane, revocation, row, at, channels, sent: None }
                    }
                })
            }
        }
    }

    proptest! {
        #[test]
        fn state_of_its_own_records_is_the_same(ops in proptest::collection::vec(op(), 1..60)) {
            let mut state = State::default();
            for (step, op) in ops.into_iter().enumerate() {
                if let Some(record) = record(&state, op, step as i64 * 1_000) {
                    state.apply(record);
                }
                let mut again = State::default();
                for record in state.records() {
                    let line = serde_json::to_string(&record).expect("JSON");
                    again.apply(serde_json::from_str(&line).expect("a record"));
                }
                prop_assert_eq!(view(&again), view(&state));
            }
            // What waits is what is due in some lane, or held.
            let due: usize = state.lanes.values().map(BTreeSet::len).sum();
            let aside = state.paused.len() + state.capped.values().map(BTreeSet::len).sum::<usize>();
            prop_assert_eq!(due + aside, state.waiting() + state.held());
        }
    }

    #[test]
    fn journal_of_an_earlier_version_is_read() {
        let mut old = serde_json::to_value(incident(7, 1)).expect("JSON");
        let fields = old.as_object_mut().expect("an object");
        for field in ["change", "campaign_id", "victims", "victims_total"] {
            fields.remove(field);
        }
        let key = "INC-0000000000000007-00000000000000aa";
        let other = "INC-0000000000000007-00000000000000bb";
        let lines = [
            serde_json::json!({"record": "settled", "key": "INC-x-revoke-y", "revocation": "done"}),
            serde_json::json!({"record": "taken", "key": key, "at": 5, "work": {"incident": old}, "lanes": []}),
            serde_json::json!({"record": "kept", "key": key, "lane": "a",
                "effect": {"attempts": 2, "due_at": 9, "called": false}}),
            serde_json::json!({"record": "kept", "key": key, "lane": "revoke",
                "effect": {"attempts": 1, "due_at": 8, "called": true}}),
            serde_json::json!({"record": "called", "key": key, "at": 6}),
            serde_json::json!({"record": "taken", "key": other, "at": 7, "work": {"incident": old}, "lanes": ["a", "b"]}),
            serde_json::json!({"record": "ended", "key": key, "lane": "a", "revocation": null, "row": null}),
            serde_json::json!({"record": "ended", "key": other, "lane": "b", "revocation": null, "row": null}),
            serde_json::json!({"record": "taken", "key": "capped-1", "at": 7,
                "work": {"notice": {"title": "t", "text": "x", "at": 7}}, "lanes": ["b"]}),
        ];
        let mut state = State::default();
        for line in lines {
            state.apply(serde_json::from_value(line).expect("a record"));
        }
        let due = |lane| state.first(lane).map(|due| (due.at, due.item.clone()));
        assert_eq!(due("a"), Some((7, Item::Thread(7))), "the later change is not sent yet");
        assert_eq!(due("b"), Some((7, Item::Notice("capped-1".to_owned()))));
        assert_eq!(due(REVOKE), Some((8, Item::Revocation(key.to_owned()))));
        assert!(state.revocations[key].effect.called);
        assert_eq!(state.waiting(), 3);
    }

    #[test]
    fn revocation_keys_are_of_one_tenant_and_target() {
        let incident = incident(7, 1);
        let key = |incident: &Incident| revocation_key(incident).expect("a key");
        let variants = [
            Incident { tenant_id: "other".to_owned(), ..incident.clone() },
            Incident { id: IncidentId(8), ..incident.clone() },
            Incident { revoke: Some(Target::Family("at-1".to_owned())), ..incident.clone() },
            // The same letters, cut elsewhere.
            Incident {
                tenant_id: "t-1token".to_owned(),
                revoke: Some(Target::Token("at-1".to_owned())),
                ..incident.clone()
            },
        ];
        for other in &variants {
            assert_ne!(key(other), key(&incident), "{other:?}");
        }
        let again = Incident { change: 99, event_id: "f".to_owned(), ..incident.clone() };
        assert_eq!(key(&again), key(&incident), "constant over the changes of an incident");
    }

    #[test]
    fn held_revocations_are_bounded_by_tenant() {
        let mut state = State::default();
        for number in 0..=HELD_OF_TENANT_MAX as u64 {
            let incident = Incident { tenant_id: "attacker".to_owned(), ..incident(number, 1) };
            let key = change_key(&incident);
            state.apply(taken(incident, 0, &[REVOKE]));
            let (lane, revocation) = (REVOKE.to_owned(), Some(Revocation::Capped(2)));
            let (row, channels, hold) = (None, Vec::new(), Hold::Capped);
            state.apply(Record::Held { key, lane, attempt: 1, at: 0, due_at: 0, hold, revocation, row, channels });
            let expected = (number == HELD_OF_TENANT_MAX as u64).then(|| change_key(&super::tests::incident(0, 1)));
            assert_eq!(state.too_many_held(), expected, "{number}");
        }
    }
}
