//! Threads that restore the states of partitions, so that a slow snapshot delays neither other partitions nor lookups.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use super::answer::{Answer, Found, Wanted};
use crate::checkpoint::Position;
use crate::lock::unpoisoned;
use crate::port::{Restoration, StateRestorer};

/// Number of threads, which is the number of snapshots that are read at once.
const THREADS: usize = 4;

/// The threads. They end when this is dropped.
pub(super) struct Restorers(Sender<Found>);

impl Restorers {
    /// Starts the threads, which send partitions with their restored states to `answers`.
    pub(super) fn start(restorer: &Arc<dyn StateRestorer>, answers: &Sender<Answer>) -> std::io::Result<Self> {
        let (sender, jobs) = mpsc::channel();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..THREADS {
            let (jobs, restorer, answers) = (Arc::clone(&jobs), Arc::clone(restorer), answers.clone());
            let thread = std::thread::Builder::new().name("kafka-restore".to_owned());
            thread.spawn(move || {
                while let Some(found) = next(&jobs) {
                    if answers.send(restored(&*restorer, found)).is_err() {
                        return;
                    }
                }
            })?;
        }
        Ok(Self(sender))
    }

    /// Restores the state of a partition, and then answers.
    pub(super) fn restore(&self, found: Found) {
        // The threads end only after this.
        let _ = self.0.send(found);
    }
}

fn next(jobs: &Mutex<Receiver<Found>>) -> Option<Found> {
    unpoisoned(jobs).recv().ok()
}

fn restored(restorer: &dyn StateRestorer, found: Found) -> Answer {
    let Wanted { topic, partition, generation, .. } = &found.wanted;
    // An earlier look-up of this assignment may have restored a state, which the messages to be read do not continue.
    let discard = || restorer.discard(topic, *partition, *generation);
    let Some(usable) = found.resume.usable_states(found.log) else {
        discard();
        return Answer::Partition(found);
    };
    let position =
        Position { topic: Arc::clone(topic), topic_id: found.log.topic_id, partition: *partition, offset: 0 };
    let restore = || restorer.restore(&position, usable, *generation);
    match catch_unwind(AssertUnwindSafe(restore)) {
        Ok(Restoration::Continue(offset)) => {
            Answer::Partition(Found { resume: found.resume.with_state_at(offset), ..found })
        }
        Ok(Restoration::Nothing) => {
            discard();
            Answer::Partition(found)
        }
        Ok(Restoration::Unavailable) => Answer::StateUnavailable(found.wanted),
        Err(_) => {
            tracing::error!(topic = &**topic, partition, "restoring the state has panicked; rebuilding it");
            discard();
            Answer::Partition(found)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;
    use std::time::Duration;

    use super::super::resume::{First, Left, Log, resume};
    use super::*;
    use crate::checkpoint::TopicId;

    /// Never answers for partition 0, panics for partition 1, has no answer for partition 2, and no state for
    /// partition 4.
    #[derive(Default)]
    struct TestRestorer {
        discarded: Mutex<Vec<(i32, u64)>>,
    }

    impl StateRestorer for TestRestorer {
        fn restore(&self, position: &Position, usable: RangeInclusive<i64>, _: u64) -> Restoration {
            assert_eq!(usable, 10..=40);
            match position.partition {
                0 => loop {
                    std::thread::park();
                },
                1 => panic!("a defect"),
                2 => Restoration::Unavailable,
                4 => Restoration::Nothing,
                _ => Restoration::Continue(30),
            }
        }

        fn discard(&self, _: &str, partition: i32, generation: u64) {
            unpoisoned(&self.discarded).push((partition, generation));
        }
    }

    fn found(partition: i32) -> Found {
        let log = Log { low: 10, high: 50, topic_id: TopicId::NONE };
        let left = Left { offset: 40, topic_id: TopicId::NONE };
        let wanted = Wanted { topic: "t".into(), partition, generation: 1, stalled: None };
        Found { wanted, left: Some(40), log, resume: resume(Some(left), log, 5, First::Earliest) }
    }

    #[test]
    fn partition_does_not_wait_for_another_snapshot() {
        let (sender, answers) = mpsc::channel();
        let restorer: Arc<dyn StateRestorer> = Arc::new(TestRestorer::default());
        let restorers = Restorers::start(&restorer, &sender).expect("threads");
        for partition in 0..4 {
            restorers.restore(found(partition));
        }
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(match answers.recv_timeout(Duration::from_secs(10)).expect("an answer") {
                Answer::Partition(found) => (found.wanted.partition, Some(found.resume.from)),
                Answer::StateUnavailable(wanted) => (wanted.partition, None),
                Answer::Topic { .. } => panic!("no topic was requested"),
            });
        }
        seen.sort_unstable();
        assert_eq!(seen, [(1, Some(35)), (2, None), (3, Some(30))]);
    }

    /// An earlier look-up of the same assignment may have restored a state that the messages to be read do not continue.
    #[test]
    fn earlier_state_is_discarded_if_it_is_not_continued() {
        let restorer = TestRestorer::default();
        for partition in [1, 3, 4] {
            restored(&restorer, found(partition));
        }
        let beyond_end = Left { offset: 99, topic_id: TopicId::NONE };
        let log = found(5).log;
        restored(&restorer, Found { resume: resume(Some(beyond_end), log, 5, First::Earliest), ..found(5) });
        assert_eq!(*unpoisoned(&restorer.discarded), [(1, 1), (4, 1), (5, 1)]);
    }
}
