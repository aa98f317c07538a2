//! What the source reports besides messages, brought to the metrics, the health endpoints and people.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::port::{Clock, Condition, GapKind, Notice, OffsetGap, Outbox, SourceObserver};
use crate::telemetry::{Health, Metrics};

/// People are told of a topic's gaps of one kind once in so long.
const HOUR_MS: i64 = 3_600_000;
/// Partitions that a notice names.
const PARTITIONS_NAMED_MAX: usize = 5;

/// See the module's text.
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

    fn condition(&self, condition: Condition, part: &str, holds: bool) {
        self.health.set_of(condition, part, holds);
    }

    fn gaps(&self, gaps: &[OffsetGap]) {
        for gap in gaps {
            self.metrics.offset_gap(gap);
        }
        let Some(OffsetGap { kind, topic, .. }) = gaps.first() else { return };
        let now = self.clock.now_millis();
        let key = format!("offsets-{}-{}-{topic}", kind.name(), now / HOUR_MS);
        let (title, text) = words(*kind, topic, gaps);
        if let Err(error) = self.outbox.notify(&key, Notice { title, text, at: now }) {
            tracing::error!(%error, "the outbox does not take a notice; the log has what it is about");
        }
    }

    fn letters_dropped(&self, count: u64) {
        self.metrics.letters_dropped(count);
    }
}

/// A notice's title and text.
fn words(kind: GapKind, topic: &str, gaps: &[OffsetGap]) -> (String, String) {
    let again = "All messages that the log has now are read. Events seen before are recognised as duplicates.";
    let (title, why) = match kind {
        GapKind::BeyondEnd => (
            format!("Offsets of topic {topic} lie beyond the end of its log"),
            format!(
                "The log lost its end, was restored, or the offsets come from another log. {again} Messages that the log \
                 lost before they were read were not judged."
            ),
        ),
        GapKind::Deleted => {
            let lost: u64 = gaps.iter().map(OffsetGap::lost).sum();
            (
                format!("Messages of topic {topic} were deleted before they were read"),
                format!(
                    "{lost} messages were not judged: a theft in them was not noticed. Raise the topic's retention, or add \
                     members to the consumer group if it cannot keep up."
                ),
            )
        }
        GapKind::Recreated => (
            format!("Topic {topic} was deleted and created again"),
            format!("{again} Messages of the old topic that had not been read were not judged."),
        ),
        GapKind::Truncated => (
            format!("The end of the log of topic {topic} was replaced"),
            format!(
                "A replica that lacked messages became leader (unclean leader election). {again} Messages that the log \
                 lost before they were read were not judged."
            ),
        ),
    };
    let mut text = why;
    text.push_str("\n\n");
    for gap in gaps.iter().take(PARTITIONS_NAMED_MAX) {
        let OffsetGap { partition, expected, resumed, end, .. } = gap;
        let _ = writeln!(text, "Partition {partition}: offset {expected}, read from {resumed}, end of the log {end}.");
    }
    if gaps.len() > PARTITIONS_NAMED_MAX {
        let _ = writeln!(text, "And {} more partitions.", gaps.len() - PARTITIONS_NAMED_MAX);
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
    }

    struct At(i64);

    impl Clock for At {
        fn now_millis(&self) -> i64 {
            self.0
        }
    }

    #[test]
    fn gaps_of_a_topic_are_one_notice_and_counted() {
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
        assert!(notice.text.starts_with("140 messages were not judged"), "{}", notice.text);
        assert!(notice.text.contains("Partition 4: offset 10, read from 30, end of the log 50."), "{}", notice.text);
        assert!(notice.text.ends_with("And 2 more partitions.\n"), "{}", notice.text);
        let text = metrics.text();
        for line in [
            "tokenwarden_offset_gaps_total{topic=\"t\",kind=\"deleted_unread\"} 7",
            "tokenwarden_messages_lost_total{topic=\"t\"} 140",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
