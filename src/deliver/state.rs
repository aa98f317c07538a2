//! State of the outbox, computed from the records of its journal. The same records always give the same state.

mod breakers;
mod data;
mod digests;
mod keys;
mod messages;
mod queue;
mod revocations;
#[cfg(test)]
mod tests;
mod users;

use std::collections::BTreeMap;

use self::data::{Call, Informed, Pending};
pub(super) use self::data::{Settled, State};
pub(super) use self::keys::{Due, Item, change_key, revocation_key};
use self::keys::{item_of, thread_of};
use self::queue::Done;
pub(super) use self::revocations::{REVOCATION_MS_MAX, Turn, outcome};
use super::limits::Scope;
use super::record::{Effect, Hold, REVOKE, Record, Subject, Work};
use crate::millis::{HOUR_MS, MINUTE_MS};
use crate::port::Revocation;

/// Minimum time between two requests of a held revocation when the incident continues.
const NUDGE_WAIT_MS: i64 = MINUTE_MS;

impl State {
    pub(super) fn apply(&mut self, record: Record) {
        match record {
            Record::Taken { key, at, work, lanes } if lanes.is_empty() => {
                self.unplaced.insert(key, (at, work));
            }
            Record::Taken { key, at, work: Work::Incident(incident), lanes } => self.change(key, at, incident, lanes),
            Record::Taken { key, at, work: Work::Notice(notice), lanes } => {
                let effect = Effect { due_at: at, ..Effect::default() };
                let pending = lanes.into_iter().map(|lane| (lane, effect.clone())).collect();
                self.place_notice(key, notice, pending, BTreeMap::new());
            }
            Record::Called { key, at, allowance, rule, application, weight } => {
                self.calls.push_back(Call { at, scope: Scope { allowance, rule, application }, weight });
                while self.calls.front().is_some_and(|first| at - first.at >= HOUR_MS) {
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
                    *effect = Effect {
                        attempts: attempt,
                        due_at,
                        called,
                        tried_at: at,
                        panics: 0,
                        refusals,
                        hold,
                        rerouted: effect.rerouted,
                    };
                });
                if hold == Hold::Rejected {
                    self.rejecting.insert(lane);
                }
                self.settle(&key, at, revocation, &channels);
            }
            Record::Rerouted { key, lane, to, at } => self.reroute(&key, &lane, &to, at),
            Record::Collected { lane, at, due_at, alerts } => self.collect(&lane, at, due_at, &alerts),
            Record::Digested { lane } => _ = self.digests.remove(&lane),
            Record::Digest { lane, digest } => _ = self.digests.insert(lane, digest),
            Record::Silenced { key, lane, at, silence, log_odds, sent, row } => {
                self.rows.push_back(row);
                self.withhold(silence, &key, log_odds, at);
                self.end(&key, &lane, Done::Withheld(sent));
            }
            Record::Summarized { silence, alerts } => {
                if let Some(withheld) = self.withheld.get_mut(&silence) {
                    withheld.reported = alerts;
                }
            }
            Record::Withheld { silence, withheld } => _ = self.withheld.insert(silence, withheld),
            Record::UserInformed { lane, user, at } => self.inform(Informed { lane, user, at }),
            Record::Full { .. } | Record::Stopped { .. } | Record::Lifted { .. } => self.apply_breaker(record),
            // The first one counts, if two lanes choose a name at once.
            Record::Member { member } => _ = self.member.get_or_insert(member),
            Record::Nudged { key, at } => {
                self.update(&Item::Revocation(key), REVOKE, |effect| {
                    effect.due_at = effect.due_at.min(at.max(effect.tried_at + NUDGE_WAIT_MS));
                });
            }
            Record::Ended { key, lane, revocation, row, at, channels, sent } => {
                let confirmation = row.as_ref().and_then(|row| row.confirmation);
                self.rows.extend(row);
                self.settle(&key, at, revocation, &channels);
                self.confirm(&key, confirmation);
                self.end(&key, &lane, sent.map_or(Done::GivenUp, Done::Accepted));
            }
            Record::Written { rows } => {
                self.rows.drain(..rows.min(self.rows.len()));
            }
            Record::Known { key } => self.known.insert(key),
            Record::Settled { key, revocation, of, confirmation } => {
                self.set_settled(key, Settled { revocation, of, confirmation });
            }
            Record::Kept { key, effect, lane } => self.keep(&key, lane, effect),
            Record::Thread { incident, thread } => {
                self.taken = self.taken.max(thread.number);
                for (lane, effect) in &thread.pending {
                    self.index(lane, effect, thread.number, Item::Thread(incident), None);
                }
                self.threads.insert(incident, *thread);
            }
            Record::Notice { key, notice, pending, ended } => self.place_notice(key, notice, pending, ended),
            Record::Asked { key, at, incident, effect } => self.ask(key, at, incident, effect),
            Record::Row { row } => self.rows.push_back(row),
        }
    }

    /// The state as records. Applying them gives the same state.
    pub(super) fn records(&self) -> Vec<Record> {
        let mut records: Vec<_> = self.known.order.iter().map(|key| Record::Known { key: key.clone() }).collect();
        // Before the revocations: a stop changes those that exist.
        records.extend(self.breaker_records());
        let calls = self.calls.iter().cloned();
        records.extend(calls.map(|Call { at, scope, weight }| {
            let Scope { allowance, rule, application } = scope;
            Record::Called { key: String::new(), at, allowance, rule, application, weight }
        }));
        let mut threads: Vec<_> = self.threads.iter().collect();
        threads.sort_by_key(|(_, thread)| thread.number);
        records.extend(
            threads
                .into_iter()
                .map(|(incident, thread)| Record::Thread { incident: *incident, thread: Box::new(thread.clone()) }),
        );
        records.extend(self.settled_order.iter().filter_map(|key| {
            let Settled { revocation, of, confirmation } = self.settled.get(key)?.clone();
            Some(Record::Settled { key: key.clone(), revocation, of, confirmation })
        }));
        let mut notices: Vec<_> = self.notices.iter().collect();
        notices.sort_by_key(|(_, pending)| pending.number);
        records.extend(notices.into_iter().map(|(key, Pending { notice, lanes, ended, .. })| Record::Notice {
            key: key.clone(),
            notice: notice.clone(),
            pending: lanes.clone(),
            ended: ended.clone(),
        }));
        let mut asked: Vec<_> = self.revocations.iter().collect();
        asked.sort_by_key(|(_, asked)| asked.number);
        records.extend(asked.into_iter().map(|(key, asked)| Record::Asked {
            key: key.clone(),
            at: asked.at,
            incident: asked.incident.clone(),
            effect: asked.effect.clone(),
        }));
        let digests = self.digests.iter();
        records.extend(digests.map(|(lane, digest)| Record::Digest { lane: lane.clone(), digest: digest.clone() }));
        let withheld = self.withheld.iter();
        records.extend(
            withheld.map(|(silence, withheld)| Record::Withheld { silence: *silence, withheld: withheld.clone() }),
        );
        let informed = self.informed.iter().cloned();
        records.extend(informed.map(|Informed { lane, user, at }| Record::UserInformed { lane, user, at }));
        records.extend(self.member.clone().map(|member| Record::Member { member }));
        records.extend(self.rows.iter().map(|row| Record::Row { row: row.clone() }));
        records
    }

    /// Whether the change or notice is in the outbox, or was.
    pub(super) fn has(&self, key: &str) -> bool {
        self.known.keys.contains(key)
    }

    /// Number of deliveries that wait, without held ones.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Number of held deliveries.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// State of the revocation with this idempotency key. `None` if it was not requested.
    pub(super) fn settled(&self, key: &str) -> Option<&Settled> {
        self.settled.get(key)
    }

    /// Adds a delivery of a change of an earlier version.
    fn keep(&mut self, key: &str, lane: String, effect: Effect) {
        let Some((at, work)) = self.unplaced.get(key).cloned() else { return };
        match work {
            Work::Incident(incident) if lane == REVOKE => {
                let asked = revocation_key(&incident);
                let subject = incident.revoke.clone().map(|target| Subject { incident: incident.id.0, target, seq: 0 });
                if let Some(asked) = asked {
                    let revocation = self.settled.get(&asked).map(|settled| settled.revocation.clone());
                    let revocation = revocation.unwrap_or_else(|| Revocation::Waiting("not tried yet".to_owned()));
                    self.set_settled(asked, Settled { revocation, of: subject, confirmation: None });
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
                self.place_notice(key.to_owned(), notice, pending, BTreeMap::new());
            }
        }
    }
}
