//! Revocations: their order, the limits, and their states.

use std::collections::HashMap;

use super::data::{Asked, Call, Settled, State};
use super::keys::{Item, revocation_key};
use crate::deliver::limits::{Caps, Part, Scope, allowance};
use crate::deliver::record::{Effect, REVOKE, Subject, Thread};
use crate::millis::{DAY_MS, HOUR_MS};
use crate::port::{ActionOutcome, Confirmation, Limit, Revocation};
use crate::verdict::Incident;

/// Time after which a revocation is given up.
pub(in crate::deliver) const REVOCATION_MS_MAX: i64 = 7 * DAY_MS;
/// Maximum number of held revocations of one tenant, and of all. Beyond it, the oldest of the tenant with the most is
/// given up.
pub(super) const HELD_OF_TENANT_MAX: usize = 1_000;
const HELD_MAX: usize = 10_000;

/// New requests and repeated ones alternate, so that targets for which the provider always fails delay no new revocation,
/// and new ones delay no repetition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::deliver) enum Turn {
    #[default]
    New,
    Repeated,
}

impl Turn {
    fn of(effect: &Effect) -> Self {
        if effect.called { Self::Repeated } else { Self::New }
    }

    /// The turn after the revocation with this effect.
    pub(in crate::deliver) fn after(effect: &Effect) -> Self {
        if effect.called { Self::New } else { Self::Repeated }
    }
}

/// When a scope has room for another request, and the limit that allows it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::deliver) struct Room {
    /// Milliseconds since the epoch, wall clock. `i64::MAX`: never.
    pub(crate) at: i64,
    pub(crate) last: Limit,
}

/// The requests of the last hour, and the room that they leave in each limit.
struct Window<'a> {
    calls: Vec<&'a Call>,
    caps: Caps<'a>,
    now: i64,
    /// Time from which a limit has room, by limit and part of the scope.
    rooms: HashMap<(Limit, Part<'a>), i64>,
}

impl<'a> Window<'a> {
    fn new(calls: impl Iterator<Item = &'a Call>, caps: Caps<'a>, now: i64) -> Self {
        let calls = calls.filter(|call| now - call.at < HOUR_MS).collect();
        Self { calls, caps, now, rooms: HashMap::new() }
    }

    /// The room of `scope`. Ends at the first limit without room if `is_bound`: it is not requested earlier than then.
    fn room(&mut self, scope: &'a Scope, is_bound: bool) -> Room {
        let mut room = Room { at: self.now, last: Limit::Total };
        for limit in Limit::ALL {
            let Some(part) = scope.part(limit) else { continue };
            let cap = self.caps.of(limit, scope);
            let at = match self.rooms.get(&(limit, part)) {
                Some(at) => *at,
                None => self.room_in(limit, part, cap),
            };
            self.rooms.insert((limit, part), at);
            if at > room.at {
                room = Room { at, last: limit };
                if is_bound {
                    break;
                }
            }
        }
        room
    }

    fn room_in(&self, limit: Limit, part: Part<'_>, cap: u32) -> i64 {
        // The requests that fit beside one more, the latest first. The one before them must be an hour old.
        let mut left = i64::from(cap) - i64::from(self.caps.weight);
        if left < 0 {
            return i64::MAX;
        }
        let own = self.calls.iter().rev().filter(|call| call.scope.part(limit) == Some(part));
        let before = own.copied().find(|call| {
            left -= i64::from(call.weight);
            left < 0
        });
        before.map_or(self.now, |call| call.at + HOUR_MS)
    }
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

    /// The revocation to request next, and when: of those that are due at `now`, the first whose turn it is.
    pub(in crate::deliver) fn next_due(&self, now: i64, turn: Turn) -> Option<(i64, &str)> {
        let due = || {
            self.lanes.get(REVOKE).into_iter().flatten().filter_map(|due| match &due.item {
                Item::Revocation(key) => Some((due.at, key.as_str())),
                Item::Thread(_) | Item::Notice(_) => None,
            })
        };
        let is_next = |key: &str| self.revocations.get(key).is_some_and(|asked| Turn::of(&asked.effect) == turn);
        let of_turn = due().take_while(|(at, _)| *at <= now).find(|(_, key)| is_next(key));
        of_turn.or_else(|| due().next())
    }

    /// When `scope` has room for another request.
    pub(in crate::deliver) fn room(&self, scope: &Scope, caps: Caps<'_>, now: i64) -> Room {
        Window::new(self.calls.iter(), caps, now).room(scope, false)
    }

    /// Whether the requests of the last hour leave no room in `limit`, and later ones will.
    pub(in crate::deliver) fn is_full(&self, scope: &Scope, limit: Limit, caps: Caps<'_>, now: i64) -> bool {
        let Some(part) = scope.part(limit) else { return false };
        let room = Window::new(self.calls.iter(), caps, now).room_in(limit, part, caps.of(limit, scope));
        room > now && room < i64::MAX
    }

    /// The oldest capped revocation whose limits have room, or a time before which none has.
    pub(in crate::deliver) fn first_capped(&self, caps: Caps<'_>, now: i64) -> Result<String, i64> {
        let mut window = Window::new(self.calls.iter(), caps, now);
        let mut oldest: Option<&(u64, String)> = None;
        let mut room_at = i64::MAX;
        for (scope, waiting) in &self.capped {
            let Some(first) = waiting.first() else { continue };
            let at = window.room(scope, true).at;
            if at <= now && oldest.is_none_or(|found| first < found) {
                oldest = Some(first);
            }
            room_at = room_at.min(at);
        }
        oldest.map(|(_, key)| key.clone()).ok_or(room_at)
    }

    /// Number of revocations that are not requested yet and count towards the same part of `limit` as `scope`.
    pub(in crate::deliver) fn unrequested(&self, scope: &Scope, limit: Limit) -> usize {
        let part = scope.part(limit);
        let open = self.revocations.values().filter(|asked| !asked.effect.called);
        open.filter(|asked| Scope::of(&asked.incident).part(limit) == part).count()
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
        self.index(REVOKE, &effect, number, Item::Revocation(key.clone()), Some(&Scope::of(&incident)));
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
        Revocation::Stopped(_) => ActionOutcome::Stopped,
        Revocation::Failed(_) => ActionOutcome::Failed,
    }
}

/// Whether an outcome is reported without delay.
const fn must_be_known_at_once(revocation: &Revocation) -> bool {
    !matches!(revocation, Revocation::NotAsked | Revocation::Shadow | Revocation::Proposed | Revocation::Waiting(_))
}
