//! Start offset of a partition.

use std::ops::RangeInclusive;

use crate::checkpoint::TopicId;
use crate::port::GapKind;

/// The log of a partition, by the brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Log {
    /// The offset of the earliest message.
    pub(super) low: i64,
    /// The offset after the last message.
    pub(super) high: i64,
    pub(super) topic_id: TopicId,
}

/// The committed offset of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) offset: i64,
    /// [`TopicId::NONE`] if the commit does not name the topic.
    pub(super) topic_id: TopicId,
}

/// Start of a partition without a committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    Earliest,
    Latest,
}

/// Start of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resume {
    pub(super) from: i64,
    /// Messages before this offset only rebuild baselines.
    pub(super) live_from: i64,
    pub(super) gap: Option<GapKind>,
}

impl Resume {
    /// Starts at the earliest message. All messages count as new.
    pub(super) const fn anew(log: Log, gap: Option<GapKind>) -> Self {
        Self { from: log.low, live_from: log.low, gap }
    }

    /// Range of the offsets at which a restored state can continue: the log must have all messages from there to the
    /// committed offset. A state after the committed offset is not used, because the offset was moved back to read messages
    /// again. `None`: the messages before are not known to be done.
    pub(super) fn usable_states(self, log: Log) -> Option<RangeInclusive<i64>> {
        (self.gap.is_none() && log.low <= self.live_from).then_some(log.low..=self.live_from)
    }

    /// Continues a restored state at `offset`.
    pub(super) const fn with_state_at(self, offset: i64) -> Self {
        Self { from: offset, ..self }
    }
}

/// Starts at `left`, or up to `remember_max` messages before it to rebuild baselines. If `left` is not an offset of
/// `log`, the whole log counts as new; messages seen before are recognised as duplicates.
pub(super) fn resume(left: Option<Left>, log: Log, remember_max: i64, first: First) -> Resume {
    let anew = |gap| Resume::anew(log, gap);
    let Some(left) = left else {
        return match first {
            First::Earliest => anew(None),
            First::Latest => Resume { from: log.high, live_from: log.high, gap: None },
        };
    };
    if left.topic_id.is_other_than(log.topic_id) {
        return anew(Some(GapKind::Recreated));
    }
    if left.offset > log.high {
        return anew(Some(GapKind::BeyondEnd));
    }
    if left.offset < log.low {
        return anew(Some(GapKind::Deleted));
    }
    let from = left.offset.saturating_sub(remember_max).max(log.low);
    Resume { from, live_from: left.offset, gap: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: TopicId = TopicId([1; 16]);
    const NEW: TopicId = TopicId([2; 16]);

    const fn left(offset: i64, topic_id: TopicId) -> Left {
        Left { offset, topic_id }
    }

    #[test]
    fn resume_outside_the_log_starts_over() {
        let log = Log { low: 10, high: 50, topic_id: NEW };
        let anew = |kind| Resume::anew(log, Some(kind));
        let at = |from, live_from| Resume { from, live_from, gap: None };
        let resume = |left| resume(Some(left), log, 5, First::Earliest);
        assert_eq!(resume(left(51, NEW)), anew(GapKind::BeyondEnd));
        assert_eq!(resume(left(9, NEW)), anew(GapKind::Deleted));
        assert_eq!(resume(left(30, OLD)), anew(GapKind::Recreated));
        assert_eq!(resume(left(51, OLD)), anew(GapKind::Recreated));
        assert_eq!(resume(left(30, NEW)), at(25, 30));
        assert_eq!(resume(left(30, TopicId::NONE)), at(25, 30));
        assert_eq!(resume(left(12, NEW)), at(10, 12));
        assert_eq!(resume(left(50, NEW)), at(45, 50), "all is read");
        assert_eq!(resume(left(10, NEW)), at(10, 10));
    }

    #[test]
    fn resume_without_commits_uses_the_setting() {
        let log = Log { low: 10, high: 50, topic_id: NEW };
        let at = |from| Resume { from, live_from: from, gap: None };
        assert_eq!(resume(None, log, 5, First::Earliest), at(10));
        assert_eq!(resume(None, log, 5, First::Latest), at(50));
    }

    #[test]
    fn restored_state_continues_up_to_committed_offset() {
        let log = Log { low: 10, high: 50, topic_id: NEW };
        let committed = resume(Some(left(40, NEW)), log, 5, First::Earliest);
        assert_eq!(committed.usable_states(log), Some(10..=40));
        assert_eq!(committed.with_state_at(30), Resume { from: 30, live_from: 40, gap: None });
        assert_eq!(Resume::anew(log, Some(GapKind::Recreated)).usable_states(log), None);
    }

    proptest! {
        #[test]
        fn resume_stays_within_the_log_and_skips_nothing(
            offset in 0_i64..=i64::MAX,
            low in 0_i64..1_000,
            length in 0_i64..1_000,
            remember in 0_i64..=i64::MAX,
            same in any::<bool>(),
        ) {
            let log = Log { low, high: low + length, topic_id: NEW };
            let resumed = resume(Some(left(offset, if same { NEW } else { OLD })), log, remember, First::Latest);
            prop_assert!((log.low..=log.high).contains(&resumed.from));
            prop_assert!(resumed.from <= resumed.live_from);
            if same && (log.low..=log.high).contains(&offset) {
                prop_assert_eq!(resumed.live_from, offset);
                prop_assert_eq!(resumed.gap, None);
            } else {
                prop_assert_eq!((resumed.from, resumed.live_from), (log.low, log.low));
                prop_assert!(resumed.gap.is_some());
            }
        }
    }
}
