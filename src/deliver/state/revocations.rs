//! Revocations: their order, the caps, and their states.

use std::collections::HashMap;

use super::data::{Asked, Call, Settled, State};
use super::keys::{Item, allowance, revocation_key};
use crate::deliver::record::{Effect, REVOKE, Subject, Thread};
use crate::millis::{DAY_MS, HOUR_MS};
use crate::port::{ActionOutcome, Confirmation, Revocation};
use crate::verdict::Incident;

/// Time after which a revocation is given up.
pub(in crate::deliver) const REVOCATION_MS_MAX: i64 = 7 * DAY_MS;
/// Maximum number of held revocations of one tenant, and of all. Beyond it, the oldest of the tenant with the most is
/// given up.
pub(super) const HELD_OF_TENANT_MAX: usize = 1_000;
const HELD_MAX: usize = 10_000;

/// Maximum numbers of revocations that are requested within an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::deliver) struct Caps {
    pub(crate) of_tenant: u32,
    pub(crate) total: u32,
    /// Revocations as which one request counts.
    pub(crate) weight: u32,
}

impl State {
    /// The open revocation with this idempotency key, and the key of the change that requested it.
    pub(in crate::deliver) fn open_revocation(&self, name: &str) -> Option<(&String, &Asked)> {
        self.revocations.get_key_value(self.by_name.get(name)?)
    }

    /// The oldest paused revocation.
    pub(in crate::deliver) fn first_paused(&self) -> Option<&str> {
        self.paused.first().map(|(_, key)| key.as_str())
    }

    /// The oldest open revocation, and the time at which it was requested.
    pub(in crate::deliver) fn oldest_revocation(&self) -> Option<(i64, &str)> {
        self.ages.first().map(|(at, key)| (*at, key.as_str()))
    }

    /// Time at which `allowance` has room for another request. `i64::MAX` if never.
    pub(in crate::deliver) fn room_at(&self, allowance: &str, caps: Caps, now: i64) -> i64 {
        let room = |calls: Vec<&Call>, cap: u32| {
            // The requests that fit beside one more, the latest first. The one before them must be an hour old.
            let mut left = i64::from(cap) - i64::from(caps.weight);
            if left < 0 {
                return i64::MAX;
            }
            let before = calls.into_iter().rev().find(|call| {
                left -= i64::from(call.weight);
                left < 0
            });
            before.map_or(now, |call| call.at + HOUR_MS)
        };
        let within = self.calls.iter().filter(|call| now - call.at < HOUR_MS);
        let all = within.clone().collect();
        let own = within.filter(|call| call.allowance == allowance).collect();
        room(all, caps.total).max(room(own, caps.of_tenant))
    }

    /// The oldest capped revocation whose allowance has room, or the time at which one has.
    pub(in crate::deliver) fn first_capped(&self, caps: Caps, now: i64) -> Result<String, i64> {
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

    /// Whether revocations of `allowance` are capped.
    pub(in crate::deliver) fn is_capped(&self, allowance: &str) -> bool {
        self.capped.get(allowance).is_some_and(|waiting| !waiting.is_empty())
    }

    /// A held revocation to give up, if too many are held.
    pub(in crate::deliver) fn too_many_held(&self) -> Option<String> {
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

    pub(super) fn ask(&mut self, key: String, at: i64, incident: Box<Incident>, effect: Effect) {
        let Some(name) = revocation_key(&incident) else { return };
        self.taken += 1;
        let number = self.taken;
        self.ages.insert((at, key.clone()));
        self.index(REVOKE, &effect, number, Item::Revocation(key.clone()), Some(allowance(&incident)));
        self.by_name.insert(name.clone(), key.clone());
        self.revocations.insert(key, Asked { at, number, incident, effect, name });
    }

    /// Records the state of the revocation that the change `key` requested. `channels` report it if it has an outcome.
    pub(super) fn settle(&mut self, key: &str, at: i64, revocation: Option<Revocation>, channels: &[String]) {
        let Some(revocation) = revocation else { return };
        let Some(asked) = self.revocations.get(key) else { return };
        let (incident, name) = (asked.incident.clone(), asked.name.clone());
        // A record of an earlier version has no time.
        let (id, number, at) = (incident.id.0, asked.number, if at == 0 { asked.at } else { at });
        let old = self.settled.get(&name).map(|old| &old.revocation);
        let is_waiting = matches!(revocation, Revocation::Waiting(_));
        if is_waiting && old.is_some_and(|old| !matches!(old, Revocation::Waiting(_))) {
            // A retry changes nothing that was reported.
            return;
        }
        let is_same = old.is_some_and(|old| outcome(old) == outcome(&revocation));
        let thread = self.threads.entry(id).or_insert_with(|| Thread::new(number, at));
        if !is_same && !is_waiting {
            thread.seq += 1;
            if must_be_known_at_once(&revocation) {
                thread.acted = thread.seq;
            }
        }
        let (seq, outcome) = (thread.seq, outcome(&revocation));
        let old = self.settled.get(&name).and_then(|old| old.of.as_ref().map(|of| of.seq));
        let seq = if is_same || is_waiting { old.unwrap_or(seq) } else { seq };
        let of = incident.revoke.clone().map(|target| Subject { incident: id, target, seq });
        self.set_settled(name, Settled { revocation, of, confirmation: None });
        // The first message of the incident waits for this state.
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
            thread.key = format!("{key}-{}-{at}", outcome.as_str());
            thread.at = at;
            thread.incident.get_or_insert(incident);
        }
        for lane in channels {
            self.request(id, lane, at, at);
        }
    }

    /// Records the confirmation of the revocation that the change `key` requested.
    pub(super) fn confirm(&mut self, key: &str, confirmation: Option<Confirmation>) {
        let settled = self.revocations.get(key).and_then(|asked| self.settled.get_mut(&asked.name));
        if let Some(settled) = settled.filter(|_| confirmation.is_some()) {
            settled.confirmation = confirmation;
        }
    }
}

/// The outcome in the audit trail. The same outcome is reported once.
pub(in crate::deliver) const fn outcome(revocation: &Revocation) -> ActionOutcome {
    match revocation {
        Revocation::NotAsked | Revocation::Shadow => ActionOutcome::Shadow,
        Revocation::Proposed => ActionOutcome::Proposed,
        Revocation::Waiting(_) => ActionOutcome::Retry,
        Revocation::Done => ActionOutcome::Done,
        Revocation::AlreadyGone => ActionOutcome::AlreadyGone,
        Revocation::Capped(_) => ActionOutcome::Capped,
        Revocation::Paused => ActionOutcome::Paused,
        Revocation::Failed(_) => ActionOutcome::Failed,
    }
}

/// Whether an outcome is reported without delay.
const fn must_be_known_at_once(revocation: &Revocation) -> bool {
    !matches!(revocation, Revocation::NotAsked | Revocation::Shadow | Revocation::Proposed | Revocation::Waiting(_))
}
