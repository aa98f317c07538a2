//! The queues of the lanes: due deliveries, and held ones.

use super::data::State;
use super::keys::{Due, Item, item_of};
use crate::deliver::limits::Scope;
use crate::deliver::record::{Effect, Ending, Hold, Sent};

/// Maximum number of rejected messages that are held for one channel.
const REJECTED_MAX: usize = 5_000;

/// How a delivery ends.
pub(super) enum Done {
    /// The channel has the message.
    Accepted(Sent),
    /// A silence withheld the message. Later messages are spaced like those after a sent one.
    Withheld(Sent),
    GivenUp,
}

impl State {
    /// The first due item of a lane.
    pub(in crate::deliver) fn first(&self, lane: &str) -> Option<&Due> {
        self.lanes.get(lane)?.first()
    }

    /// Whether `channel` rejected its last message.
    pub(in crate::deliver) fn is_rejecting(&self, channel: &str) -> bool {
        self.rejecting.contains(channel)
    }

    /// Whether `lane` holds the maximum number of rejected messages.
    pub(in crate::deliver) fn keeps_enough(&self, lane: &str) -> bool {
        self.lanes.get(lane).is_some_and(|due| {
            due.len() >= REJECTED_MAX && due.iter().filter(|due| self.is_held(lane, &due.item)).count() >= REJECTED_MAX
        })
    }

    /// Makes all refused, rejected or stopped deliveries due at `now`, because the configuration may have changed.
    pub(in crate::deliver) fn try_again(&mut self, now: i64) {
        self.rejecting.clear();
        self.release_stopped(now, |_| true);
        let lanes: Vec<String> = self.lanes.keys().cloned().collect();
        for lane in lanes {
            self.release(&lane, now);
        }
    }

    /// Makes the refused or rejected deliveries of `lane` due at `now`.
    pub(super) fn release(&mut self, lane: &str, now: i64) {
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

    pub(super) fn is_held(&self, lane: &str, item: &Item) -> bool {
        self.effect(item, lane).is_some_and(|(effect, ..)| effect.hold.is_some())
    }

    /// Changes a delivery, if it exists.
    pub(super) fn update(&mut self, item: &Item, lane: &str, change: impl FnOnce(&mut Effect)) {
        let Some((mut effect, number, whose)) = self.effect(item, lane) else { return };
        self.unindex(lane, &effect, number, item.clone(), whose.as_ref());
        change(&mut effect);
        self.index(lane, &effect, number, item.clone(), whose.as_ref());
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

    /// The delivery of `item` in `lane`, its number and its scope.
    pub(super) fn effect(&self, item: &Item, lane: &str) -> Option<(Effect, u64, Option<Scope>)> {
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
                Some((asked.effect.clone(), asked.number, Some(Scope::of(&asked.incident))))
            }
        }
    }

    pub(super) fn end(&mut self, key: &str, lane: &str, done: Done) {
        let item = item_of(lane, key);
        let Some((effect, number, whose)) = self.effect(&item, lane) else { return };
        match (&item, &done) {
            (_, Done::Accepted(sent)) if self.rejecting.remove(lane) => self.release(lane, sent.at),
            (Item::Revocation(_), _) | (_, Done::Accepted(_) | Done::Withheld(_)) => {}
            (_, Done::GivenUp) => _ = self.rejecting.insert(lane.to_owned()),
        }
        // The incident changed after the message was sent.
        let is_stale = matches!(&item, Item::Thread(id) if self.threads.get(id).is_some_and(|now| now.key != key));
        let ending = if matches!(done, Done::GivenUp) { Ending::GivenUp } else { Ending::Accepted };
        if let Item::Thread(id) = &item
            && let Some(thread) = self.threads.get_mut(id)
        {
            match done {
                Done::Accepted(sent) => _ = thread.sent.insert(lane.to_owned(), sent),
                Done::Withheld(sent) => {
                    let sent = thread.withheld_by(lane, &sent);
                    thread.sent.insert(lane.to_owned(), sent);
                }
                Done::GivenUp => _ = thread.given_up.insert(lane.to_owned(), key.to_owned()),
            }
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
        self.unindex(lane, &effect, number, item.clone(), whose.as_ref());
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
                    notice.ended.insert(lane.to_owned(), ending);
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

    pub(super) fn index(&mut self, lane: &str, effect: &Effect, number: u64, item: Item, whose: Option<&Scope>) {
        *if effect.hold.is_some() { &mut self.held } else { &mut self.waiting } += 1;
        match (effect.hold, item, whose) {
            (Some(Hold::Capped), Item::Revocation(key), Some(scope)) => {
                _ = self.capped.entry(scope.clone()).or_default().insert((number, key));
            }
            (Some(Hold::Paused), Item::Revocation(key), _) => _ = self.paused.insert((number, key)),
            (Some(Hold::Stopped), Item::Revocation(key), _) => _ = self.stopped.insert((number, key)),
            (_, item, _) => {
                let due = Due { at: effect.due_at, number, item };
                self.lanes.entry(lane.to_owned()).or_default().insert(due);
            }
        }
    }

    pub(super) fn unindex(&mut self, lane: &str, effect: &Effect, number: u64, item: Item, whose: Option<&Scope>) {
        *if effect.hold.is_some() { &mut self.held } else { &mut self.waiting } -= 1;
        match (effect.hold, item, whose) {
            (Some(Hold::Capped), Item::Revocation(key), Some(scope)) => {
                if let Some(waiting) = self.capped.get_mut(scope) {
                    waiting.remove(&(number, key));
                    if waiting.is_empty() {
                        self.capped.remove(scope);
                    }
                }
            }
            (Some(Hold::Paused), Item::Revocation(key), _) => _ = self.paused.remove(&(number, key)),
            (Some(Hold::Stopped), Item::Revocation(key), _) => _ = self.stopped.remove(&(number, key)),
            (_, item, _) => {
                if let Some(due) = self.lanes.get_mut(lane) {
                    due.remove(&Due { at: effect.due_at, number, item });
                }
            }
        }
    }
}
