//! Feedback is learnt at a place that the log has, and at the same place after a restart.

use std::sync::Weak;

use super::*;
use crate::port::{
    FeedbackId, FeedbackKey, FeedbackPlace, FeedbackRecord, FeedbackState, GivenFeedback, RecordLog, RecordObserver,
    SourcePartition, StoredEvent,
};
use crate::verdict::{IncidentId, Judgement};

/// A log in memory.
#[derive(Default)]
struct TestLog {
    records: Mutex<Vec<FeedbackRecord>>,
    observers: Mutex<Vec<Weak<dyn RecordObserver<FeedbackRecord>>>>,
    /// Number of appends that fail first.
    failures: AtomicUsize,
    /// Number of appends that fail first, although they are stored.
    lost_answers: AtomicUsize,
    /// Number of appends that are answered only together. 0: each is answered at once.
    together: AtomicUsize,
    appends: AtomicUsize,
}

impl TestLog {
    fn put(&self, record: &FeedbackRecord) {
        self.records.lock().expect("a lock").push(record.clone());
        for observer in self.observers.lock().expect("a lock").iter().filter_map(Weak::upgrade) {
            observer.record(record.clone());
        }
    }

    fn give(&self, partition: i32) {
        self.give_as(7, "t", partition);
    }

    fn give_as(&self, id: u64, topic: &str, partition: i32) {
        let source = SourcePartition { topic: topic.to_owned(), partition };
        let key = FeedbackKey { feedback: FeedbackId(id), subject: "u0".to_owned(), partition: None };
        let event: serde_json::Value = serde_json::from_str(&use_of(0)).expect("JSON");
        let events = vec![StoredEvent::new(&event).expect("JSON")];
        let (by, judgement) = ("ana".to_owned(), Judgement::Benign);
        let given =
            GivenFeedback { incident: IncidentId(1), judgement, by, at: 5, source, since: 0, until: i64::MAX, events };
        self.put(&FeedbackRecord { key, state: FeedbackState::Given(given) });
    }

    fn places(&self) -> Vec<FeedbackPlace> {
        let records = self.records.lock().expect("a lock");
        let place = |record: &FeedbackRecord| match &record.state {
            FeedbackState::Placed(place) => Some(place.clone()),
            FeedbackState::Given(_) => None,
        };
        records.iter().filter_map(place).collect()
    }
}

#[async_trait]
impl RecordLog<FeedbackRecord> for TestLog {
    async fn append(&self, record: FeedbackRecord) -> Result<(), String> {
        self.appends.fetch_add(1, Ordering::Relaxed);
        let failing = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if failing.is_ok() {
            return Err("down".to_owned());
        }
        self.put(&record);
        let is_lost = self.lost_answers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if is_lost.is_ok() {
            return Err("no answer".to_owned());
        }
        while self.appends.load(Ordering::Relaxed) < self.together.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn remove(&self, _: &FeedbackKey) -> Result<(), String> {
        Err("feedback is not removed".to_owned())
    }

    fn follow(&self, observer: Arc<dyn RecordObserver<FeedbackRecord>>) {
        for record in self.records.lock().expect("a lock").iter() {
            observer.record(record.clone());
        }
        observer.all_read();
        self.observers.lock().expect("a lock").push(Arc::downgrade(&observer));
    }
}

fn use_of(number: i64) -> String {
    let (at, user) = (1_790_000_000_000 + number * 60_000, number % 3);
    format!(
        r#"{{"event_id":"e{number}","timestamp":{at},"token_id":"t{user}","user_id":"u{user}","ip_address":"192.0.2.7","endpoint":"/v1/x"}}"#
    )
}

fn uses(range: std::ops::Range<i64>) -> Vec<(i32, String)> {
    range.map(|number| (0, use_of(number))).collect()
}

/// A step in which `done` is called once, between two polls.
fn once(done: impl FnOnce() + Send + 'static) -> PollStep {
    let mut done = Some(done);
    PollStep::Until(
        "it is done",
        Box::new(move |_| {
            done.take().into_iter().for_each(|done| done());
            true
        }),
    )
}

/// Digest of the state after the steps, and the number of feedback records that were learnt since the start.
fn run(log: &Arc<TestLog>, steps: Vec<PollStep>) -> (u64, u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let clock = Arc::new(TestClock::default());
    let health = Arc::new(Health::default());
    let environment = Environment {
        store: Arc::new(TestStore::default()),
        outbox: None,
        clock: Arc::clone(&clock) as _,
        metrics: Arc::new(Metrics::new()),
        health: Arc::clone(&health),
        runtime: runtime.handle().clone(),
        limits: Limits::LIVE,
        reload: None,
    };
    let mut source = TestSource {
        steps: steps.into(),
        log: Log::default(),
        stop: Arc::default(),
        clock: Some(clock),
        offset: 0,
        open_max: 0,
        committed: 0,
        polls_without_room: 0,
        waited: 0,
    };
    let feedback = FeedbackLog::follow(Arc::clone(log) as _, health);
    assert!(runtime.block_on(feedback.read(Duration::from_secs(5))));
    let worker = Worker::new(pipeline(), Spread::ByPartition(HashMap::new()), VerdictOutput::None, environment);
    let mut worker = worker.with_feedback(FeedbackSource::Log(feedback));
    worker.run(&mut source, &AtomicBool::new(false), &mut |_| Ok(())).expect("the run succeeds");
    let owned = worker.partitions.iter().next().expect("a partition");
    let Ok(extent) = owned.save(&mut |_| Ok::<_, std::convert::Infallible>(()));
    (extent.digest, worker.counters().feedback)
}

#[test]
fn restart_learns_feedback_at_its_place() {
    let log = Arc::new(TestLog::default());
    let given = Arc::clone(&log);
    let steps = vec![PollStep::Messages(uses(0..10)), once(move || given.give(0)), PollStep::Messages(uses(10..20))];
    let undisturbed = run(&log, steps);
    assert_eq!(undisturbed.1, 1);
    assert_eq!(log.places().iter().map(|place| place.offset).collect::<Vec<_>>(), [10]);

    // Its memory is lost: messages are read again, some of which were committed before.
    for replayed in [0, 5, 10, 15] {
        let steps = vec![PollStep::Replayed(uses(0..replayed)), PollStep::Messages(uses(replayed..20))];
        assert_eq!(run(&log, steps), undisturbed, "{replayed} messages are replayed");
    }
    assert_eq!(log.places().len(), 1, "it has a place already");
    let (without, _) = run(&Arc::default(), vec![PollStep::Messages(uses(0..20))]);
    assert_ne!(without, undisturbed.0);
}

#[test]
fn feedback_of_another_partition_is_ignored() {
    let log = Arc::new(TestLog::default());
    log.give(1);
    assert_eq!(run(&log, vec![PollStep::Messages(uses(0..20))]).1, 0);
    assert_eq!(log.places(), []);
}

/// Rows of forwarded messages name the topic of the partition and, after a slash, the original topic.
#[test]
fn feedback_to_forwarded_events_is_learnt() {
    for (topic, learnt) in [("t/audit", 1), ("other/t", 0), ("tt", 0), ("", 0)] {
        let log = Arc::new(TestLog::default());
        log.give_as(7, topic, 0);
        assert_eq!(run(&log, vec![PollStep::Messages(uses(0..20))]).1, learnt, "{topic}");
        assert_eq!(log.places().len() as u64, learnt);
    }
}

#[test]
fn feedback_waits_until_the_log_has_its_place() {
    let log = Arc::new(TestLog::default());
    log.give(0);
    log.failures.store(1, Ordering::Relaxed);
    let steps = vec![
        PollStep::Messages(uses(0..5)),
        PollStep::Messages(uses(5..10)),
        PollStep::Pass(60_000),
        PollStep::Messages(uses(10..20)),
    ];
    assert_eq!(run(&log, steps).1, 1);
    assert_eq!(log.places().iter().map(|place| place.offset).collect::<Vec<_>>(), [10]);
    assert_eq!(log.appends.load(Ordering::Relaxed), 2, "it is not tried with every message");
}

/// The brokers stored the place, and their answer was lost. The feedback is learnt later than at this place.
#[test]
fn passed_place_of_feedback_is_written_anew() {
    let log = Arc::new(TestLog::default());
    log.give(0);
    log.lost_answers.store(1, Ordering::Relaxed);
    let steps = vec![
        PollStep::Messages(uses(0..5)),
        PollStep::Messages(uses(5..10)),
        PollStep::Pass(60_000),
        PollStep::Messages(uses(10..20)),
    ];
    let undisturbed = run(&log, steps);
    assert_eq!(undisturbed.1, 1);
    assert_eq!(log.places().iter().map(|place| place.offset).collect::<Vec<_>>(), [0, 10]);
    let steps = vec![PollStep::Replayed(uses(0..15)), PollStep::Messages(uses(15..20))];
    assert_eq!(run(&log, steps), undisturbed, "a restart learns it at the second place");
}

#[test]
fn places_of_feedback_are_written_at_once() {
    let log = Arc::new(TestLog::default());
    (0..50).for_each(|id| log.give_as(id, "t", 0));
    log.together.store(50, Ordering::Relaxed);
    assert_eq!(run(&log, vec![PollStep::Messages(uses(0..20))]).1, 50);
    assert!(log.places().iter().all(|place| place.offset == 0));
}

/// The brokers do not answer. Messages are processed after a second, and no other place is written meanwhile.
#[test]
fn detection_waits_a_second_for_places_of_feedback() {
    let log = Arc::new(TestLog::default());
    log.give(0);
    log.together.store(usize::MAX, Ordering::Relaxed);
    let released = Arc::clone(&log);
    let steps = vec![
        PollStep::Messages(uses(0..5)),
        PollStep::Pass(60_000),
        PollStep::Messages(uses(5..10)),
        once(move || {
            assert_eq!(released.places().len(), 1);
            released.together.store(0, Ordering::Relaxed);
        }),
    ];
    assert_eq!(run(&log, steps).1, 0);
    // The next process finds that the place was passed.
    let steps = vec![PollStep::Messages(uses(0..20))];
    assert_eq!(run(&log, steps).1, 1);
}
