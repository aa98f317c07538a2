//! Messages of a channel that fails: other channels send them instead.

use super::deliverer::Deliverer;
use super::record::Record;
use super::routes::name_of;
use crate::port::Store;

/// Messages that one failed attempt moves to the fallback.
const REROUTED_MAX: usize = 1_000;

/// How a channel fails.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Failing {
    Rejects,
    ForSomeTime,
}

impl<S: Store> Deliverer<S> {
    /// Time for which a channel has failed when its messages go to the fallback, milliseconds.
    pub(super) fn fallback_after_ms(&self) -> i64 {
        i64::try_from(self.outbox.routes.fallback_after.as_millis()).unwrap_or(i64::MAX)
    }

    /// Whether another channel has this message and did not reject it.
    pub(super) fn others_have(&self, lane: &str, key: &str) -> bool {
        let inner = self.outbox.inner();
        let mut others = self.outbox.channels.iter().filter(|other| *other != lane);
        others.any(|other| inner.state.has_message(key, other) && !inner.state.has_rejected(key, other))
    }

    /// Lanes that send a message of `lane` instead: those of the first fallback channel that did not reject it. Without
    /// one, and if no other channel has a rejected message, all other channels that did not reject it.
    pub(super) fn stand_ins(&self, lane: &str, key: &str, failing: Failing) -> Vec<String> {
        let own = name_of(lane);
        let of = |name: &str| {
            let inner = self.outbox.inner();
            let lanes = self.outbox.channels.iter().filter(|other| name_of(other) == name && name != own);
            lanes.filter(|other| !inner.state.has_rejected(key, other)).cloned().collect::<Vec<_>>()
        };
        let fallback = &self.outbox.routes.fallback;
        if let Some(lanes) = fallback.iter().map(|name| of(name)).find(|lanes| !lanes.is_empty()) {
            let inner = self.outbox.inner();
            return lanes.into_iter().filter(|lane| !inner.state.has_message(key, lane)).collect();
        }
        if failing == Failing::ForSomeTime || self.others_have(lane, key) {
            return Vec::new();
        }
        let inner = self.outbox.inner();
        let others = self.outbox.channels.iter().filter(|other| *other != lane);
        others.filter(|other| !inner.state.has_rejected(key, other)).cloned().collect()
    }

    /// Moves the messages of a lane that has failed for some time to the fallback.
    pub(super) fn rerouted(&self, lane: &str, now: i64) -> Vec<Record> {
        if self.outbox.routes.fallback.is_empty() {
            return Vec::new();
        }
        let stuck = self.outbox.inner().state.stuck_messages(lane, now, REROUTED_MAX);
        // A message that no channel can take now is looked at again.
        let rerouted = stuck.into_iter().filter_map(|key| {
            let to = self.stand_ins(lane, &key, Failing::ForSomeTime);
            (!to.is_empty()).then(|| Record::Rerouted { key, lane: lane.to_owned(), to, at: now })
        });
        rerouted.collect()
    }
}
