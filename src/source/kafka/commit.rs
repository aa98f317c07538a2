//! Commits of offsets, whose answers come later.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;

use super::KafkaSource;
use super::lookup::add;
use super::native::{Committed, CommittedOffset};
use super::owned::part;
use crate::port::Condition;

/// How long the last commit may take to be confirmed, before partitions are let go of and at the end.
const CONFIRM_WAIT: Duration = Duration::from_secs(2);

impl KafkaSource {
    /// Notes the answers to commits that have come.
    pub(super) fn take_commits(&mut self) {
        while let Some(answer) = self.commits.answer(Duration::ZERO) {
            self.note_commit(answer);
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
            // Offsets of partitions that have gone are no longer ours to commit.
            self.commit_failed = false;
        } else if let Some(code) = failed
            && !std::mem::replace(&mut self.commit_failed, true)
        {
            tracing::warn!(%code, "offsets not committed; trying again");
        }
    }

    /// Whether the brokers have all offsets that were sent to them.
    pub(super) fn is_confirmed(&self) -> bool {
        self.owned.iter().all(|owned| owned.sent == owned.confirmed)
    }

    /// Commits what the brokers have not confirmed.
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
            // They are their next owner's to commit.
        } else if let Err(error) = self.commits.commit(&offsets) {
            tracing::debug!(%error, "offsets not committed");
        }
    }

    /// Waits for the answers to the last commits, at most for [`CONFIRM_WAIT`]. Whether they have come.
    pub(super) fn confirm(&mut self) -> bool {
        const SLICES: u32 = 20;
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
