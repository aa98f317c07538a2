//! Assigned partitions: their start offsets, and their statistics.

use std::sync::Arc;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaSource;
use super::answer::{Answer, Wanted};
use super::connect::misconfigured;
use super::member::GroupStatus;
use super::owned::{Owned, part};
use super::results::ResultTopic;
use super::resume::Left;
use crate::checkpoint::{Position, TopicId};
use crate::port::{Condition, OffsetGap, SourceError};

/// Interval of topic checks, in statistics: every 10 s.
const TOPICS_INTERVAL: u32 = 5;

/// Interval of log lines about the progress of a rebuild, in statistics: every 10 s.
const PROGRESS_INTERVAL: u32 = 5;

impl KafkaSource {
    /// Accepts newly assigned partitions and requests their start offsets. Reading begins when these are known.
    pub(super) fn accept(&mut self, partitions: &TopicPartitionList) -> Result<(), SourceError> {
        let none = TopicPartitionList::new();
        let done =
            if self.is_incremental() { self.consumer.incremental_assign(&none) } else { self.consumer.assign(&none) };
        done.map_err(|error| self.unavailable(&error))?;
        for element in partitions.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let topic = self.topics.iter().find(|known| ***known == *topic).map_or_else(|| topic.into(), Arc::clone);
            self.owned.retain(|owned| !owned.is(&topic, partition));
            self.owned.push(Owned::new(Position::new(topic, partition, 0)));
        }
        self.joined = true;
        self.ask();
        Ok(())
    }

    /// Requests the start offset of each partition that is not read yet.
    pub(super) fn ask(&mut self) {
        let mut wanted = Vec::new();
        for owned in self.owned.iter_mut().filter(|owned| !owned.is_read && owned.asked.is_none()) {
            wanted.push(owned.want(&mut self.generation, None));
        }
        if !wanted.is_empty() {
            self.lookup.want(wanted);
        }
    }

    pub(super) fn discard_state(&self, topic: &str, partition: i32, ticket: u64) {
        if let Some(restorer) = &self.restorer {
            restorer.discard(topic, partition, ticket);
        }
    }

    /// Processes the answers of the lookups, and starts to read those partitions.
    pub(super) fn take_answers(&mut self) -> Result<(), SourceError> {
        if self.leaving.is_some() || self.consumer.context().is_rebalancing() || self.consumer.assignment_lost() {
            return Ok(());
        }
        let (mut started, mut again) = (TopicPartitionList::new(), TopicPartitionList::new());
        let mut gaps = Vec::new();
        while let Some(answer) = self.lookup.answer() {
            match answer {
                Answer::Topic { topic, found } => self.look_at_topic(&topic, found),
                Answer::StateUnavailable(Wanted { topic, partition, generation, .. }) => {
                    match self.owned.iter_mut().find(|owned| owned.asked == Some(generation)) {
                        // Requested again with the next statistics.
                        Some(owned) => owned.asked = None,
                        None => self.discard_state(&topic, partition, generation),
                    }
                }
                Answer::Partition(found) => {
                    let Wanted { topic, partition, generation, .. } = &found.wanted;
                    let Some(owned) = self.owned.iter_mut().find(|owned| owned.asked == Some(*generation)) else {
                        self.discard_state(topic, *partition, *generation);
                        continue;
                    };
                    if owned.is_read {
                        again.add_partition(topic, *partition);
                        self.stray.take_if(|stray| stray.topic() == &**topic && stray.partition() == *partition);
                    }
                    gaps.extend(owned.begin(&found));
                    started
                        .add_partition_offset(topic, *partition, Offset::Offset(found.resume.from))
                        .map_err(misconfigured)?;
                }
            }
        }
        self.report_gaps(gaps);
        if started.count() == 0 {
            return Ok(());
        }
        self.read_from(&started, &again).map_err(|error| self.unavailable(&error))
    }

    /// Reads `started` from their offsets; those in `again` are already being read.
    pub(super) fn read_from(&self, started: &TopicPartitionList, again: &TopicPartitionList) -> KafkaResult<()> {
        if self.is_incremental() {
            if again.count() > 0 {
                self.consumer.incremental_unassign(again)?;
            }
            self.consumer.incremental_assign(started)?;
        } else {
            let mut all = started.clone();
            for owned in self.owned.iter().filter(|owned| owned.is_read) {
                let (topic, partition) = (&owned.position.topic, owned.position.partition);
                if started.find_partition(topic, partition).is_none() {
                    all.add_partition_offset(topic, partition, Offset::Offset(owned.next))?;
                }
            }
            self.consumer.assign(&all)?;
        }
        if self.paused { self.consumer.pause(&self.consumer.assignment()?) } else { Ok(()) }
    }

    /// Logs and reports partitions that restart after a gap, grouped by topic and kind.
    pub(super) fn report_gaps(&self, mut gaps: Vec<OffsetGap>) {
        gaps.sort_by(|one, other| {
            (&one.topic, one.kind, one.partition).cmp(&(&other.topic, other.kind, other.partition))
        });
        for gap in &gaps {
            let OffsetGap { kind, topic, partition, expected, resumed, end } = gap;
            let (topic, kind, lost) = (&**topic, kind.name(), gap.lost());
            tracing::error!(
                topic,
                partition,
                kind,
                expected,
                resumed,
                end,
                lost,
                "read from the earliest message again"
            );
            self.observer.condition(Condition::OffsetGap, &part(topic, *partition), true);
        }
        for alike in gaps.chunk_by(|one, other| one.topic == other.topic && one.kind == other.kind) {
            self.observer.gaps(alike);
        }
    }

    /// Detects topics that were deleted or recreated since their partitions were assigned.
    pub(super) fn look_at_topic(&mut self, topic: &Arc<str>, found: Result<TopicId, RDKafkaErrorCode>) {
        if let Err(code) = found {
            tracing::debug!(topic = &**topic, %code, "topic not described");
        }
        self.observer.condition(Condition::SourceTopic, topic, found.is_err());
        let Ok(id) = found else { return };
        let mut wanted = Vec::new();
        for owned in &mut self.owned {
            let position = &owned.position;
            if owned.is_read && owned.asked.is_none() && position.topic == *topic && position.topic_id.is_other_than(id)
            {
                let left = Left { offset: owned.next, topic_id: position.topic_id };
                wanted.push(owned.want(&mut self.generation, Some(left)));
            }
        }
        if !wanted.is_empty() {
            self.lookup.want(wanted);
        }
    }

    /// Processes librdkafka's statistics.
    pub(super) fn look_at(&mut self, status: &GroupStatus) {
        self.statistics_seen = self.statistics_seen.wrapping_add(1);
        self.joined |= status.steady;
        let mut wanted = Vec::new();
        for owned in &mut self.owned {
            let fetching = status.partitions.iter().find(|fetching| owned.is(&fetching.topic, fetching.partition));
            let Some(fetching) = fetching.filter(|_| owned.is_read) else { continue };
            // The last messages before `live_from` may be missing: compacted, or transaction markers.
            owned.rebuilding &= fetching.handed_over < owned.live_from;
            owned.report_rebuild(&*self.observer);
            if self.statistics_seen.is_multiple_of(PROGRESS_INTERVAL) {
                owned.log_rebuild();
            }
            // A partition that was just assigned is briefly not fetched either.
            owned.idle = if fetching.idle { owned.idle + 1 } else { 0 };
            if self.looking_for_stalled > 0 && owned.idle >= 2 && owned.asked.is_none() {
                let left = Left { offset: owned.next, topic_id: owned.position.topic_id };
                wanted.push(owned.want(&mut self.generation, Some(left)));
            }
        }
        if !self.owned.iter().any(|owned| owned.idle > 0) {
            self.looking_for_stalled = self.looking_for_stalled.saturating_sub(1);
        }
        if !wanted.is_empty() {
            self.lookup.want(wanted);
        }
        self.ask();
        if self.statistics_seen.is_multiple_of(TOPICS_INTERVAL) {
            self.lookup.ask_topics(self.topics.clone());
        }
        if self.commit_failed {
            self.commit_again();
        }
        self.results.iter_mut().for_each(ResultTopic::try_again);
    }
}
