//! Forwards reports of the source (lag, conditions, offset gaps) to metrics, health checks and notices.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::millis::HOUR_MS;
use crate::port::{Clock, Condition, GapKind, Notice, OffsetGap, Outbox, SourceObserver};
use crate::telemetry::{Health, Metrics};

/// Maximum number of partitions in a notice.
const PARTITIONS_NAMED_MAX: usize = 5;

/// Observer of the source.
#[derive(Clone)]
pub(super) struct Observer {
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Arc<Health>,
    pub(super) outbox: Arc<dyn Outbox>,
    pub(super) clock: Arc<dyn Clock>,
}

impl SourceObserver for Observer {
    fn lag(&self, topic: &str, partition: i32, messages: Option<i64>) {
        self.metrics.lag(topic, partition, messages);
    }

    fn rebuild_left(&self, topic: &str, partition: i32, messages: Option<i64>) {
        self.metrics.rebuild_left(topic, partition, messages);
    }

    fn condition(&self, condition: Condition, part: &str, holds: bool) {
        self.health.set_of(condition, part, holds);
    }

    fn gaps(&self, gaps: &[OffsetGap]) {
        for gap in gaps {
            self.metrics.offset_gap(gap);
        }
        let Some(OffsetGap { kind, topic, .. }) = gaps.first() else { return };
        let now = self.clock.now_millis();
        // At most one notice an hour about gaps of one kind in a topic.
        let key = format!("offsets-{}-{}-{topic}", kind.name(), now / HOUR_MS);
        let (title, text) = notice_text(*kind, topic, gaps);
        if let Err(error) = self.outbox.notify(&key, Notice { title, text, at: now, about: None }) {
            tracing::error!(%error, "cannot write a notice to the outbox");
        }
    }

    fn letters_dropped(&self, count: u64) {
        self.metrics.letters_dropped(count);
    }

    fn verdicts_dropped(&self, count: u64) {
        self.metrics.verdicts_dropped(count);
    }

    fn sightings_dropped(&self, count: u64) {
        self.metrics.sightings_dropped(count);
    }
}

/// Observer of the topic of sightings. Its conditions do not concern the events.
#[derive(Clone)]
pub(super) struct SightingsObserver(pub(super) Observer);

impl SourceObserver for SightingsObserver {
    fn lag(&self, topic: &str, partition: i32, messages: Option<i64>) {
        self.0.lag(topic, partition, messages);
    }

    fn rebuild_left(&self, topic: &str, partition: i32, messages: Option<i64>) {
        self.0.rebuild_left(topic, partition, messages);
    }

    fn condition(&self, condition: Condition, _: &str, holds: bool) {
        // Sightings have no dead letters. A member without partitions, or one that rebuilds them, does its work.
        let is_trouble = !matches!(
            condition,
            Condition::DeadLetterTopic | Condition::NoPartitions | Condition::Rebuilding | Condition::OffsetGap
        );
        if is_trouble {
            self.0.health.set_of(Condition::Campaigns, condition.name(), holds);
        }
    }

    fn gaps(&self, gaps: &[OffsetGap]) {
        self.0.gaps(gaps);
    }

    fn letters_dropped(&self, _: u64) {}

    fn verdicts_dropped(&self, _: u64) {}

    fn sightings_dropped(&self, _: u64) {}
}

/// Title and text of a notice.
fn notice_text(kind: GapKind, topic: &str, gaps: &[OffsetGap]) -> (String, String) {
    let again = "All messages that are now in the log are read. Events that were already processed are recognised as duplicates.";
    let (title, why) = match kind {
        GapKind::BeyondEnd => (
            format!("Offsets of topic {topic} are beyond the end of its log"),
            format!(
                "The end of the log was lost, the log was restored, or the offsets come from another log. {again} Messages \
                 that the log lost before they were read were not scored."
            ),
        ),
        GapKind::Deleted => {
            let lost: u64 = gaps.iter().map(OffsetGap::lost).sum();
            (
                format!("Messages of topic {topic} were deleted before they were read"),
                format!(
                    "{lost} messages were not scored. Thefts in them were not detected. Increase the retention of the topic. \
                     If the consumer group cannot keep up, add members to it."
                ),
            )
        }
        GapKind::Recreated => (
            format!("Topic {topic} was deleted and created again"),
            format!("{again} Unread messages of the old topic were not scored."),
        ),
        GapKind::Truncated => (
            format!("The end of the log of topic {topic} was replaced"),
            format!(
                "A replica that lacked messages became leader (unclean leader election). {again} Messages that the log \
                 lost before they were read were not scored."
            ),
        ),
    };
    let mut text = why;
    text.push_str("\n\n");
    for gap in gaps.iter().take(PARTITIONS_NAMED_MAX) {
        let OffsetGap { partition, expected, resumed, end, .. } = gap;
        let _ = writeln!(
            text,
            "Partition {partition}: expected offset {expected}, resumed at {resumed}, end of the log {end}."
        );
    }
    if gaps.len() > PARTITIONS_NAMED_MAX {
        let _ = writeln!(text, "{} more partitions are affected.", gaps.len() - PARTITIONS_NAMED_MAX);
    }
    (title, text)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::verdict::Incident;

    #[derive(Default)]
    struct TestOutbox(Mutex<Vec<(String, Notice)>>);

    impl Outbox for TestOutbox {
        fn take(&self, _: &[Incident]) -> std::io::Result<()> {
            Ok(())
        }

        fn notify(&self, key: &str, notice: Notice) -> std::io::Result<()> {
            self.0.lock().expect("a lock").push((key.to_owned(), notice));
            Ok(())
        }

        fn persist(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    struct At(i64);

    impl Clock for At {
        fn now_millis(&self) -> i64 {
            self.0
        }
    }

    #[test]
    fn gaps_of_a_topic_make_one_notice() {
        let outbox = Arc::new(TestOutbox::default());
        let metrics = Arc::new(Metrics::new());
        let observer = Observer {
            metrics: Arc::clone(&metrics),
            health: Arc::default(),
            outbox: Arc::clone(&outbox) as Arc<dyn Outbox>,
            clock: Arc::new(At(2 * HOUR_MS)),
        };
        let gap = |partition| OffsetGap {
            kind: GapKind::Deleted,
            topic: "t".into(),
            partition,
            expected: 10,
            resumed: 30,
            end: 50,
        };
        observer.gaps(&(0..7).map(gap).collect::<Vec<_>>());
        let notices = outbox.0.lock().expect("a lock");
        let [(key, notice)] = notices.as_slice() else { panic!("{notices:?}") };
        assert_eq!(key, "offsets-deleted_unread-2-t");
        assert!(notice.text.starts_with("140 messages were not scored"), "{}", notice.text);
        assert!(
            notice.text.contains("Partition 4: expected offset 10, resumed at 30, end of the log 50."),
            "{}",
            notice.text
        );
        assert!(notice.text.ends_with("2 more partitions are affected.\n"), "{}", notice.text);
        let text = metrics.text();
        for line in [
            "tokenwarden_offset_gaps_total{topic=\"t\",kind=\"deleted_unread\"} 7",
            "tokenwarden_messages_lost_total{topic=\"t\"} 140",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
