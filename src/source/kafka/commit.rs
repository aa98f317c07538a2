//! Asynchronous commits of offsets.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;

use super::KafkaSource;
use super::lookup::add;
use super::native::{Committed, CommittedOffset};
use super::owned::part;
use crate::port::Condition;

/// Time limit for the confirmation of the last commit, before partitions are released and at the end.
const CONFIRM_WAIT: Duration = Duration::from_secs(2);

impl KafkaSource {
    /// Processes the results of commits that have arrived.
    pub(super) fn take_commits(&mut self) {
        while let Some(answer) = self.commits.answer(Duration::ZERO) {
            self.note_commit(answer);
        }
    }

    /// Sends results, and commits the offsets that waited for their acknowledgements.
    pub(super) fn send_results(&mut self) {
        let Self { results, owned, .. } = self;
        if results.is_empty() {
            return;
        }
        for topic in results {
            let kind = topic.kind();
            topic.advance(&mut |position, number| {
                if let Some(owned) = owned.iter_mut().find(|owned| owned.is(&position.topic, position.partition)) {
                    owned.unacknowledged.remove(kind, number);
                }
            });
        }
        let mut offsets = TopicPartitionList::new();
        for owned in owned {
            let acknowledged = |held: &mut i64| owned.unacknowledged.done_before(*held) == *held;
            let Some(held) = owned.held.take_if(acknowledged) else { continue };
            owned.sent = Some(held);
            if let Err(error) = add(&mut offsets, &owned.position, held) {
                tracing::error!(%error, "an offset cannot be committed");
            }
        }
        if offsets.count() > 0
            && !self.consumer.assignment_lost()
            && let Err(error) = self.commits.commit(&offsets)
        {
            tracing::debug!(%error, "offsets not committed");
            self.commit_failed = true;
        }
    }

    pub(super) fn note_commit(&mut self, Committed { error, offsets }: Committed) {
        let mut failed = error;
        for CommittedOffset { topic, partition, offset, error: refused } in offsets {
            let Some(owned) = self.owned.iter_mut().find(|owned| owned.is(&topic, partition)) else { continue };
            failed = failed.or(refused);
            if error.is_none() && refused.is_none() {
                owned.confirmed = Some(offset);
                if std::mem::take(&mut owned.gap) {
                    self.observer.condition(Condition::OffsetGap, &part(&topic, partition), false);
                }
            }
        }
        if self.is_confirmed() {
            // Offsets of released partitions are no longer ours to commit.
            self.commit_failed = false;
        } else if let Some(code) = failed
            && !std::mem::replace(&mut self.commit_failed, true)
        {
            tracing::warn!(%code, "offsets not committed; trying again");
        }
    }

    /// Whether the brokers confirmed all offsets that were sent.
    pub(super) fn is_confirmed(&self) -> bool {
        self.owned.iter().all(|owned| owned.sent == owned.confirmed)
    }

    /// Repeats the commits that the brokers did not confirm.
    pub(super) fn commit_again(&mut self) {
        let mut offsets = TopicPartitionList::new();
        for owned in self.owned.iter().filter(|owned| owned.sent != owned.confirmed) {
            if let Some(offset) = owned.sent
                && let Err(error) = add(&mut offsets, &owned.position, offset)
            {
                tracing::error!(%error, "an offset cannot be committed");
            }
        }
        if offsets.count() == 0 {
            self.commit_failed = false;
        } else if self.consumer.assignment_lost() {
            // Their next owner commits them.
        } else if let Err(error) = self.commits.commit(&offsets) {
            tracing::debug!(%error, "offsets not committed");
        }
    }

    /// Waits at most [`CONFIRM_WAIT`] for the last results, and as long for the results of the last commits. Returns whether all arrived.
    pub(super) fn confirm(&mut self) -> bool {
        const SLICES: u32 = 20;
        if !self.results.is_empty() && self.owned.iter().any(|owned| owned.held.is_some()) {
            let wait = CONFIRM_WAIT / self.results.len() as u32;
            self.results.iter().for_each(|topic| topic.flush(wait));
            self.send_results();
        }
        for _ in 0..SLICES {
            if self.commits.outstanding() == 0 {
                return true;
            }
            if let Some(answer) = self.commits.answer(CONFIRM_WAIT / SLICES) {
                self.note_commit(answer);
            }
        }
        tracing::warn!("the last offsets were not confirmed; messages may be read again");
        false
    }
}
