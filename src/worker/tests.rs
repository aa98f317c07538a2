mod feedback;
mod memory;
mod outage;
mod outbox;
mod snapshots;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicUsize};
use std::sync::{LazyLock, Mutex};

use async_trait::async_trait;
use tokio::runtime::Handle;

use super::*;
use crate::checkpoint::{Checkpoint, DeadLetter, Position};
use crate::enrich::{Enricher, GeoSettings};
use crate::port::{ActionRow, Clock, EventRow, Notice, Origin, Outbox, Rows, StoreError};
use crate::rule::RuleSet;
use crate::telemetry::{Health, Metrics, SystemClock};
use crate::token::TokenHasher;
use crate::verdict::Incident;

/// Observed effects, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// Event ids and reasons of dead letters.
    Stored(Vec<String>),
    Committed(Vec<(i32, i64)>),
    Parked(String),
    /// The store was told that the partitions have changed.
    PartitionsChanged,
    Released,
    Observed(u64),
}

type Log = Arc<Mutex<Vec<Seen>>>;

#[derive(Default)]
struct TestRows(Vec<String>);

impl Rows for TestRows {
    fn push_event(&mut self, row: &EventRow<'_>) {
        let id = &row.event.event.event_id;
        assert_ne!(&**id, "poison", "this text must not be logged: eyJhbGciOi");
        self.0.push(id.to_string());
    }
    fn push_incident(&mut self, _: &Incident) {}
    fn push_action(&mut self, _: &ActionRow) {}
    fn push_dead_letter(&mut self, letter: &DeadLetter) {
        self.0.push(format!("dead: {}", letter.reason));
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn bytes(&self) -> usize {
        self.0.iter().map(String::len).sum()
    }
    fn clear(&mut self) {
        self.0.clear();
    }
}

impl SavedRows for TestRows {
    fn append(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    fn save(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&serde_json::to_vec(&self.0).expect("texts"));
    }

    fn load(&mut self, from: &[u8]) -> Option<()> {
        self.0.extend(serde_json::from_slice::<Vec<String>>(from).ok()?);
        Some(())
    }
}

/// Behaviour of the store.
#[derive(Clone, Copy, Debug, Default)]
enum Mode {
    #[default]
    Works,
    IsDown,
    Refuses,
    Hangs,
}

/// Fails `failures` times, then behaves as `mode`.
#[derive(Default)]
struct TestStore {
    log: Log,
    failures: AtomicUsize,
    mode: Arc<Mutex<Mode>>,
}

#[async_trait]
impl Store for TestStore {
    type Rows = TestRows;

    fn new_rows(&self) -> TestRows {
        TestRows::default()
    }

    async fn write(&self, rows: &TestRows) -> Result<(), StoreError> {
        let mode = *self.mode.lock().expect("a lock");
        match mode {
            Mode::Works => {}
            Mode::IsDown => return Err(StoreError::Retriable("down".to_owned())),
            Mode::Refuses => return Err(StoreError::Permanent("wrong password".to_owned())),
            Mode::Hangs => std::future::pending().await,
        }
        let failing = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if failing.is_ok() {
            return Err(StoreError::Retriable("down".to_owned()));
        }
        self.log.lock().expect("a lock").push(Seen::Stored(rows.0.clone()));
        Ok(())
    }

    fn partitions_changed(&self) {
        self.log.lock().expect("a lock").push(Seen::PartitionsChanged);
    }
}

/// Behaviour of a poll of the test source.
enum PollStep {
    /// Partition, payload.
    Messages(Vec<(i32, String)>),
    Replayed(Vec<(i32, String)>),
    Revoked(i32),
    Lost,
    /// No message, and the service is stopped.
    Stop,
    /// No message, while this many milliseconds pass.
    Pass(i64),
    /// No message, until the function returns true. It is called at each poll.
    Until(&'static str, Box<dyn FnMut(&Log) -> bool + Send>),
}

/// A clock that the test source advances.
#[derive(Default)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now_millis(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct TestSource {
    steps: VecDeque<PollStep>,
    log: Log,
    stop: Arc<AtomicBool>,
    clock: Option<Arc<TestClock>>,
    offset: i64,
    /// Maximum number of messages that were polled and not committed.
    open_max: i64,
    committed: i64,
    polls_without_room: usize,
    /// Polls since the last step ended.
    waited: usize,
}

impl Source for TestSource {
    fn poll(&mut self, max: usize, _: Duration, take: &mut dyn FnMut(Message<'_>)) -> Result<Polled, SourceError> {
        if let Some(PollStep::Until(what, holds)) = self.steps.front_mut() {
            let what = *what;
            if holds(&self.log) {
                self.steps.pop_front();
            }
            self.waited += 1;
            assert!(self.waited < 5_000, "{what}: {:?}", self.log.lock().expect("a lock"));
            // Lets other threads write.
            std::thread::sleep(Duration::from_millis(1));
            self.clock.iter().for_each(|clock| _ = clock.0.fetch_add(1, Ordering::Relaxed));
            return Ok(Polled::Messages(0));
        }
        self.waited = 0;
        if let Some(PollStep::Pass(ms)) = self.steps.front() {
            self.clock.iter().for_each(|clock| _ = clock.0.fetch_add(*ms, Ordering::Relaxed));
            self.steps.pop_front();
            return Ok(Polled::Messages(0));
        }
        if max == 0 {
            self.polls_without_room += 1;
            self.clock.iter().for_each(|clock| _ = clock.0.fetch_add(10, Ordering::Relaxed));
            return Ok(Polled::Messages(0));
        }
        let (mut messages, replayed) = match self.steps.pop_front() {
            None => return Ok(Polled::End),
            Some(PollStep::Revoked(partition)) => return Ok(Polled::Revoked(vec![("t".into(), partition)])),
            Some(PollStep::Lost) => return Ok(Polled::Lost),
            Some(PollStep::Stop) => {
                self.stop.store(true, Ordering::Relaxed);
                return Ok(Polled::Messages(0));
            }
            Some(PollStep::Messages(messages)) => (messages, false),
            Some(PollStep::Replayed(messages)) => (messages, true),
            Some(PollStep::Pass(_) | PollStep::Until(..)) => return Ok(Polled::Messages(0)),
        };
        if messages.len() > max {
            let rest = messages.split_off(max);
            self.steps.push_front(if replayed { PollStep::Replayed(rest) } else { PollStep::Messages(rest) });
        }
        for (partition, payload) in &messages {
            let position = Position::new("t", *partition, self.offset);
            self.offset += 1;
            take(Message {
                position: &position,
                key: None,
                payload: payload.as_bytes(),
                logged_at: None,
                replayed,
                origin: Origin::Here,
            });
        }
        self.open_max = self.open_max.max(self.offset - self.committed);
        Ok(Polled::Messages(messages.len()))
    }

    fn commit(&mut self, checkpoint: &Checkpoint, letters: &[DeadLetter]) -> Result<(), SourceError> {
        let mut log = self.log.lock().expect("a lock");
        log.extend(letters.iter().map(|letter| Seen::Parked(String::from_utf8_lossy(&letter.payload).into_owned())));
        if checkpoint.next.is_empty() {
            return Ok(());
        }
        log.push(Seen::Committed(checkpoint.next.iter().map(|next| (next.partition, next.offset)).collect()));
        self.committed = checkpoint.next.iter().map(|next| next.offset).max().unwrap_or(self.committed);
        Ok(())
    }

    fn release(&mut self) -> Result<(), SourceError> {
        self.log.lock().expect("a lock").push(Seen::Released);
        Ok(())
    }
}

fn pipeline() -> Pipeline {
    static RULES: LazyLock<Arc<RuleSet>> = LazyLock::new(|| Arc::new(RuleSet::builtin()));
    let enricher = Enricher::new(&GeoSettings::default());
    Pipeline::new(enricher, Arc::clone(&RULES), TokenHasher::new(b"test"), engine::Settings::default())
}

/// One use of a token.
fn event(id: &str) -> String {
    format!(
        r#"{{"event_id":"{id}","timestamp":"2026-11-22T10:15:30Z","token_id":"tok","ip_address":"192.0.2.7","user_id":"u"}}"#
    )
}

fn events(ids: &[&str]) -> PollStep {
    PollStep::Messages(ids.iter().map(|id| (0, event(id))).collect())
}

struct RunResult {
    log: Vec<Seen>,
    done: Result<Tally, WorkerError>,
    source: TestSource,
}

/// Runs a worker on `steps`, with epochs of at most `epoch_messages_max` messages.
fn play(steps: Vec<PollStep>, epoch_messages_max: u64, store: TestStore) -> RunResult {
    play_into(None, steps, Limits { epoch_messages_max, ..Limits::REPLAY }, store)
}

/// An outbox that calls a function, and stores notices.
struct TestOutbox<F>(F, Arc<Mutex<Vec<(String, Notice)>>>);

impl<F> TestOutbox<F> {
    fn new(take: F) -> Self {
        Self(take, Arc::default())
    }
}

impl<F: Fn(&[Incident]) -> std::io::Result<()> + Send + Sync> Outbox for TestOutbox<F> {
    fn take(&self, incidents: &[Incident]) -> std::io::Result<()> {
        self.0(incidents)
    }

    fn notify(&self, key: &str, notice: Notice) -> std::io::Result<()> {
        self.1.lock().expect("a lock").push((key.to_owned(), notice));
        Ok(())
    }

    fn persist(&self) -> std::io::Result<()> {
        Ok(())
    }
}

fn play_into(outbox: Option<Arc<dyn Outbox>>, steps: Vec<PollStep>, limits: Limits, store: TestStore) -> RunResult {
    let log = Arc::clone(&store.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let environment = Environment {
        store: Arc::new(store),
        outbox,
        clock: Arc::new(SystemClock),
        metrics: Arc::new(Metrics::new()),
        health: Arc::new(Health::default()),
        runtime: runtime.handle().clone(),
        limits,
        reload: None,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let mut source = TestSource {
        steps: steps.into(),
        log: Arc::clone(&log),
        stop: Arc::clone(&stop),
        clock: None,
        offset: 0,
        open_max: 0,
        committed: 0,
        polls_without_room: 0,
        waited: 0,
    };
    let mut worker = Worker::new(pipeline(), Spread::ByPartition(HashMap::new()), VerdictOutput::None, environment);
    let done = worker.run(&mut source, &stop, &mut |epoch| {
        log.lock().expect("a lock").push(Seen::Observed(epoch.tally.messages));
        Ok(())
    });
    let log = log.lock().expect("a lock").clone();
    RunResult { log, done, source }
}

fn stored(ids: &[&str]) -> Seen {
    Seen::Stored(ids.iter().map(|id| (*id).to_owned()).collect())
}

#[test]
fn epoch_is_observed_then_stored_then_committed() {
    let result = play(vec![events(&["a", "b", "c"])], 2, TestStore::default());
    assert_eq!(
        result.log,
        [
            Seen::Observed(2),
            stored(&["a", "b"]),
            Seen::Committed(vec![(0, 2)]),
            Seen::Observed(1),
            stored(&["c"]),
            Seen::Committed(vec![(0, 3)]),
        ]
    );
    assert_eq!(result.done.expect("the run succeeds").events, 3);
}

#[test]
fn store_outage_pauses_the_source() {
    let ids: Vec<String> = (0..100).map(|number| format!("e{number}")).collect();
    let steps = vec![events(&ids.iter().map(String::as_str).collect::<Vec<_>>())];
    let result = play(steps, 10, TestStore { failures: AtomicUsize::new(3), ..TestStore::default() });
    assert_eq!(result.done.expect("the run succeeds").events, 100);
    assert!(result.source.open_max <= 20, "{} messages were in memory", result.source.open_max);
    assert!(result.source.polls_without_room > 0, "the source was polled without room");
    let all: Vec<String> = result
        .log
        .iter()
        .flat_map(|seen| if let Seen::Stored(ids) = seen { ids.clone() } else { Vec::new() })
        .collect();
    assert_eq!(all, ids);
}

#[test]
fn replay_ends_if_the_store_rejects_rows() {
    let mode = Arc::new(Mutex::new(Mode::Refuses));
    let result = play(vec![events(&["a"])], 10, TestStore { mode, ..TestStore::default() });
    assert!(result.done.is_err_and(|error| error.to_string().contains("wrong password")));
    assert_eq!(result.log, [Seen::Observed(1)]);
}

/// A token of `user` that is revoked and used an hour later: one incident.
fn theft(user: &str) -> PollStep {
    let event = |id: &str, at: &str, rest: &str| {
        let event = format!(
            r#"{{"event_id":"{id} {user}","timestamp":"2026-11-22T{at}Z","token_id":"stolen {user}","user_id":"{user}",{rest}}}"#
        );
        (0, event)
    };
    // An address per thief, because one address would make one campaign.
    let host = user.bytes().next().unwrap_or_default();
    let place = format!(r#""ip_address":"198.51.100.{host}","status":200"#);
    PollStep::Messages(vec![event("end", "10:00:00", r#""kind":"revoked""#), event("theft", "11:00:00", &place)])
}

/// Messages that were done before a start have no effect a second time, and later messages are scored as without a restart.
#[test]
fn replayed_messages_change_only_the_state() {
    let PollStep::Messages(mut before) = theft("v") else { unreachable!("theft returns messages") };
    before.push((0, "no JSON".to_owned()));
    before.push((0, event("seen")));
    let incidents = Arc::new(AtomicUsize::new(0));
    let outbox = {
        let incidents = Arc::clone(&incidents);
        TestOutbox::new(move |taken: &[Incident]| {
            incidents.fetch_add(taken.len(), Ordering::Relaxed);
            Ok(())
        })
    };
    let again = theft_again();
    let steps = vec![PollStep::Replayed(before), events(&["seen", "new"]), again];
    let result = play_into(Some(Arc::new(outbox)), steps, Limits::REPLAY, TestStore::default());
    let tally = result.done.expect("the run succeeds");
    assert_eq!((tally.messages, tally.events, tally.duplicates, tally.dead_letters), (3, 2, 1, 0));
    assert_eq!(result.log, [Seen::Observed(3), stored(&["new", "again v"]), Seen::Committed(vec![(0, 7)])]);
    assert_eq!(incidents.load(Ordering::Relaxed), 0, "the incident was reported before");
}

/// Another use by the thief of [`theft`], after the incident was reported.
fn theft_again() -> PollStep {
    let PollStep::Messages(mut messages) = theft("v") else { unreachable!("theft returns messages") };
    let (partition, last) = messages.pop().expect("the theft");
    PollStep::Messages(vec![(partition, last.replace("theft v", "again v").replace("11:00:00", "11:01:00"))])
}

#[test]
fn stop_stores_and_commits_messages() {
    let result = play(vec![events(&["a"]), PollStep::Stop, events(&["never"])], 10, TestStore::default());
    assert_eq!(result.log, [Seen::Observed(1), stored(&["a"]), Seen::Committed(vec![(0, 1)])]);
}

#[test]
fn partition_is_released_after_its_commit() {
    let steps = vec![events(&["a"]), PollStep::Revoked(0), events(&["a"])];
    let result = play(steps, 10, TestStore::default());
    // The state is removed with the partition, so that the same event is not a duplicate afterwards.
    assert_eq!(
        result.log,
        [
            Seen::Observed(1),
            stored(&["a"]),
            Seen::Committed(vec![(0, 1)]),
            Seen::PartitionsChanged,
            Seen::Released,
            Seen::Observed(1),
            stored(&["a"]),
            Seen::Committed(vec![(0, 2)]),
        ]
    );
}

#[test]
fn lost_partition_is_not_stored_or_committed() {
    let result = play(vec![events(&["a"]), PollStep::Lost], 10, TestStore::default());
    assert_eq!(result.log, [Seen::PartitionsChanged, Seen::Released]);
}

#[test]
fn panicking_message_becomes_a_dead_letter() {
    let result = play(vec![events(&["a", "poison", "b"])], 10, TestStore::default());
    let result = result.log;
    assert!(result.contains(&Seen::Parked(event("poison"))), "{result:?}");
    let dead = "dead: this message caused a panic";
    assert!(result.contains(&stored(&["a", dead, "b"])), "{result:?}");
    assert_eq!(result.last(), Some(&Seen::Committed(vec![(0, 3)])));
}
