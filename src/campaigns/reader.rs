//! The partitions of the topic of sightings, and the results that are not stored yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::services::Lane;
use crate::campaign::Stage;
use crate::checkpoint::Checkpoint;
use crate::millis::MINUTE_MS;
use crate::port::{INCIDENTS_AT_ONCE, Message, Rows as _, Source, SourceError, Store};
use crate::retry::{Retries, RetryPolicy};
use crate::telemetry::Condition;
use crate::verdict::Incident;
use crate::wire::sighting::{self, Refused};
use crate::worker::WithheldNotice;

/// Number of changes that wait for the outbox, from which no further messages are read.
const CHANGES_MAX: usize = 1_000;
/// Number of changes that wait for the store. Beyond it, the first ones are dropped from the table `incidents`; their
/// alerts are in the outbox.
const ROWS_MAX: usize = 10_000;
/// Writes to the outbox, and to the store.
const OUTBOX_RETRY: RetryPolicy = RetryPolicy::every(Duration::from_secs(1));
const STORE_RETRY: RetryPolicy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(30));
/// Time limit of a write to the store, in which the group is not polled.
const STORE_WAIT: Duration = Duration::from_secs(10);
/// Time after the last sighting with another key for which this is reported.
const OTHER_KEY_MS: i64 = 10 * MINUTE_MS;

/// The partitions, see the module documentation.
pub(super) struct Reader<'l, S> {
    lane: &'l Lane<S>,
    stages: BTreeMap<(Arc<str>, i32), Stage>,
    /// Changes that are not in the outbox.
    changes: Vec<Incident>,
    /// Changes that are in the outbox and not in the store.
    rows: Vec<Incident>,
    /// Offsets of the messages that were read and are not committed.
    read: Checkpoint,
    outbox_retries: Retries,
    store_retries: Retries,
    withheld: WithheldNotice,
    /// Time of the last sighting with another key.
    other_key_at: Option<i64>,
}

impl<'l, S: Store> Reader<'l, S> {
    pub(super) fn new(lane: &'l Lane<S>) -> Self {
        Self {
            lane,
            stages: BTreeMap::new(),
            changes: Vec::new(),
            rows: Vec::new(),
            read: Checkpoint::default(),
            outbox_retries: Retries::new(OUTBOX_RETRY),
            store_retries: Retries::new(STORE_RETRY),
            withheld: WithheldNotice::new("campaigns-withheld"),
            other_key_at: None,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.changes.len() >= CHANGES_MAX
    }

    /// Adds a sighting. A replayed one only changes the state.
    pub(super) fn take(&mut self, message: &Message<'_>) {
        let (lane, position) = (self.lane, message.position);
        let result = match sighting::decode(message.payload, lane.key) {
            Ok(appearance) => {
                let partition = (Arc::clone(&position.topic), position.partition);
                let stage = self.stages.entry(partition).or_insert_with(|| Stage::new(lane.mode, lane.budget));
                let rules = Arc::clone(&lane.rules.borrow());
                let (_, before) = stage.appearances();
                let now = lane.clock.now_millis();
                let logged_at = message.logged_at.map_or(now, |logged| logged.millis);
                // Replayed sightings use the allowances of their times.
                let found = stage.add(&rules, appearance, if message.replayed { logged_at.min(now) } else { now });
                let withheld = stage.take_withheld();
                if !message.replayed {
                    lane.metrics.sightings("dropped", stage.appearances().1 - before);
                    lane.metrics.alerts_withheld(withheld.alerts);
                    self.withheld.add(withheld, now);
                    self.changes.extend(found);
                }
                if message.replayed { "replayed" } else { "read" }
            }
            Err(Refused::Unreadable) => {
                let (topic, partition, offset) = (&*position.topic, position.partition, position.offset);
                tracing::error!(topic, partition, offset, "a sighting cannot be read and has no effect");
                "unreadable"
            }
            Err(Refused::OtherKey) => {
                if !message.replayed {
                    self.note_other_key();
                }
                "other_key"
            }
        };
        lane.metrics.sightings(result, 1);
        if !message.replayed {
            self.read.advance(position);
        }
    }

    fn note_other_key(&mut self) {
        if self.other_key_at.is_none() {
            tracing::error!(
                "a member hashes names with another key, so its sightings are not used: set the same \
                 privacy.token_key_file for all members and restart them"
            );
            self.lane.health.set_of(Condition::Campaigns, "key", true);
        }
        self.other_key_at = Some(self.lane.clock.now_millis());
    }

    /// Writes changes to the outbox, then to the store, and commits the offsets if nothing is left.
    pub(super) fn advance(&mut self, source: &mut dyn Source) -> Result<(), SourceError> {
        let now = self.lane.clock.now_millis();
        if self.other_key_at.is_some_and(|at| now - at > OTHER_KEY_MS) {
            self.other_key_at = None;
            self.lane.health.set_of(Condition::Campaigns, "key", false);
        }
        self.publish(now);
        self.store(now);
        if self.withheld.is_due(now) && self.outbox_retries.is_due(now) {
            self.report_withheld(now);
        }
        if !self.changes.is_empty() || !self.rows.is_empty() || self.read.next.is_empty() {
            return Ok(());
        }
        if self.lane.outbox.persist().is_err() {
            // The worker reports it. A restart reads the sightings again.
            return Ok(());
        }
        match source.commit(&self.read, &[]) {
            Ok(()) => self.read.next.clear(),
            Err(SourceError::Unavailable(reason)) => {
                tracing::debug!(reason, "offsets of sightings are not committed; retrying");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn publish(&mut self, now: i64) {
        if self.changes.is_empty() || !self.outbox_retries.is_due(now) {
            return;
        }
        while !self.changes.is_empty() {
            let count = self.changes.len().min(INCIDENTS_AT_ONCE);
            if let Err(error) = self.lane.outbox.take(&self.changes[..count]) {
                tracing::error!(%error, "the outbox takes no incidents, because too many deliveries wait; sightings wait");
                self.lane.health.set_of(Condition::Campaigns, "outbox", true);
                self.outbox_retries.failed(now);
                return;
            }
            self.lane.metrics.campaigns_changed(count as u64);
            self.rows.extend(self.changes.drain(..count));
        }
        self.lane.health.set_of(Condition::Campaigns, "outbox", false);
        self.outbox_retries.succeeded();
    }

    /// Reports withheld campaigns now, also at the end.
    pub(super) fn report_withheld(&mut self, now: i64) {
        if let Err(error) = self.withheld.send(&*self.lane.outbox, now) {
            tracing::error!(%error, "the outbox takes no notice, because too many deliveries wait; the notice of withheld campaigns waits");
            self.outbox_retries.failed(now);
        }
    }

    fn store(&mut self, now: i64) {
        let surplus = self.rows.len().saturating_sub(ROWS_MAX);
        if surplus > 0 {
            tracing::error!(surplus, "changes of campaigns are not in the table incidents: the store is unavailable");
            self.rows.drain(..surplus);
        }
        if self.rows.is_empty() || !self.store_retries.is_due(now) {
            return;
        }
        let mut rows = self.lane.store.new_rows();
        self.rows.iter().for_each(|incident| rows.push_incident(incident));
        let write = async { tokio::time::timeout(STORE_WAIT, self.lane.store.write(&rows)).await };
        let written = self.lane.runtime.block_on(write);
        if matches!(written, Ok(Ok(()))) {
            self.rows.clear();
            self.store_retries.succeeded();
        } else {
            // The worker reports the state of the store.
            self.store_retries.failed(now);
        }
    }

    /// Forgets partitions that another member gets. It reads again what is not committed.
    pub(super) fn forget(&mut self, gone: &[(Arc<str>, i32)]) {
        self.stages.retain(|partition, _| !gone.contains(partition));
        self.read
            .next
            .retain(|next| !gone.iter().any(|(topic, number)| next.topic == *topic && next.partition == *number));
    }
}
