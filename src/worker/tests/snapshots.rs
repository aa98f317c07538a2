//! Snapshots of the state: the place they are completed, and restarts from them.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::feed::Feed;
use crate::port::{Restoration, SnapshotError, SnapshotWriter, Snapshots, StateRestorer as _, StoredSnapshot};
use crate::snapshot::{Marker, Reached};
use crate::source::file::FileSource;
use crate::state_dir::{self, StateDir};
use crate::worker::{RestoredStates, SnapshotSettings};

/// A service that reads a file, and what it stores.
pub(super) struct Rig {
    folder: TempDir,
    mode: Arc<Mutex<Mode>>,
    log: Log,
    clock: Arc<TestClock>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    key: &'static [u8],
}

impl Rig {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("events.ndjson"), b"").expect("a file");
        let clock = TestClock::default();
        clock.0.store(1_000_000, Ordering::Relaxed);
        Self {
            folder,
            mode: Arc::default(),
            log: Log::default(),
            clock: Arc::new(clock),
            metrics: Arc::default(),
            health: Arc::default(),
            key: b"test",
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("events.ndjson")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Appends uses of tokens.
    fn append(&self, numbers: std::ops::Range<u32>) {
        let mut file = OpenOptions::new().append(true).open(self.file()).expect("the file");
        for number in numbers {
            writeln!(file, "{}", use_of_token(number)).expect("a line");
        }
    }

    pub(super) fn worker(&self, runtime: &Handle) -> Worker<TestStore> {
        self.worker_of(runtime, Spread::Whole(Feed::default()))
    }

    fn worker_of(&self, runtime: &Handle, spread: Spread) -> Worker<TestStore> {
        let environment = Environment {
            store: Arc::new(TestStore {
                log: Arc::clone(&self.log),
                failures: AtomicUsize::default(),
                mode: Arc::clone(&self.mode),
            }),
            outbox: None,
            clock: Arc::clone(&self.clock) as _,
            metrics: Arc::clone(&self.metrics),
            health: Arc::clone(&self.health),
            runtime: runtime.clone(),
            limits: Limits::LIVE,
            reload: None,
        };
        let enricher = Enricher::new(&GeoSettings::default());
        let hasher = TokenHasher::new(self.key);
        let pipeline = Pipeline::new(enricher, Arc::new(RuleSet::builtin()), hasher, engine::Settings::default());
        Worker::new(pipeline, spread, VerdictOutput::None, environment)
    }

    fn restored_states(&self, snapshots: Arc<dyn Snapshots>) -> RestoredStates {
        let (clock, metrics, health) =
            (Arc::clone(&self.clock) as _, Arc::clone(&self.metrics), Arc::clone(&self.health));
        RestoredStates::new(snapshots, &TokenHasher::new(self.key), clock, metrics, health)
    }

    /// Reads the file to its end. Returns the ids of the stored events, and the digest of the state.
    fn run(&self, saved: bool) -> (Vec<String>, u64) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let mut worker = self.worker(runtime.handle());
        if saved {
            let to = Arc::new(StateDir::open(&self.state()).expect("the folder"));
            worker = worker.with_snapshots(SnapshotSettings { to, interval_ms: Some(60_000) });
        }
        let mut source = FileSource::open(vec![self.file()]).expect("the file");
        worker.run(&mut source, &AtomicBool::new(false), &mut |_| Ok(())).expect("the run succeeds");
        let digest = worker.partitions.iter().next().map_or(0, |owned| {
            owned.save(&mut |_| Ok::<_, std::convert::Infallible>(())).map_or(0, |extent| extent.digest)
        });
        (self.stored(), digest)
    }

    /// Ids of the events that were stored since the last call.
    fn stored(&self) -> Vec<String> {
        let log = std::mem::take(&mut *self.log.lock().expect("a lock"));
        log.into_iter().flat_map(|seen| if let Seen::Stored(ids) = seen { ids } else { Vec::new() }).collect()
    }

    fn marker(&self) -> Marker {
        newest(&self.state()).expect("a snapshot")
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.text().lines().any(|found| found == line)
    }
}

/// A source that continues at `offset`.
pub(super) fn source(rig: &Rig, steps: Vec<PollStep>, offset: i64) -> TestSource {
    TestSource {
        steps: steps.into(),
        log: Arc::clone(&rig.log),
        stop: Arc::default(),
        clock: Some(Arc::clone(&rig.clock)),
        offset,
        open_max: 0,
        committed: 0,
        polls_without_room: 0,
        waited: 0,
    }
}

pub(super) fn newest(state: &Path) -> Option<Marker> {
    let mut listed = state_dir::list(state).expect("the folder");
    assert!(listed.len() <= 1);
    listed.pop().map(|(_, found)| found.expect("it is read").marker)
}

fn use_of_token(number: u32) -> String {
    let at = 1_790_000_000_000_i64 + i64::from(number) * 240_000;
    format!(
        r#"{{"event_id":"e{number}","timestamp":{at},"token_id":"t{}","user_id":"u{}","ip_address":"192.0.2.{}","endpoint":"/v1/{}"}}"#,
        number % 7,
        number % 7,
        number % 7,
        number % 3,
    )
}

fn ids(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("e{number}")).collect()
}

#[test]
fn restart_continues_with_memory_and_place() {
    let (interrupted, undisturbed) = (Rig::new(), Rig::new());
    interrupted.append(0..300);
    assert_eq!(interrupted.run(true).0, ids(0..300));
    assert_eq!(interrupted.run(true).0, ids(0..0), "there is nothing new");
    interrupted.append(300..500);
    let (stored, digest) = interrupted.run(true);
    assert_eq!(stored, ids(300..500), "only new events are read");
    undisturbed.append(0..500);
    assert_eq!(undisturbed.run(false), (ids(0..500), digest), "the state is that of an undisturbed run");
    assert!(interrupted.marker().baselines > 0);
    assert!(interrupted.metric("tokenwarden_snapshots_total{result=\"stored\"} 2"), "{}", interrupted.metrics.text());
}

#[test]
fn snapshot_is_complete_when_rows_are_stored() {
    let rig = Rig::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let to = Arc::new(StateDir::open(&rig.state()).expect("the folder"));
    let settings = SnapshotSettings { to, interval_ms: Some(60_000) };
    let mut worker = rig.worker(runtime.handle()).with_snapshots(settings);
    let (state, mode) = (rig.state(), Arc::clone(&rig.mode));
    let draft = state.join("events.state.new0");
    let mut polls = 0;
    let none_yet = {
        let state = state.clone();
        move |_: &Log| {
            assert_eq!(newest(&state), None, "its rows are not stored");
            polls += 1;
            polls > 50 && draft.exists()
        }
    };
    let switched = move |_: &Log| {
        *mode.lock().expect("a lock") = Mode::Works;
        true
    };
    let complete = move |_: &Log| newest(&state).is_some();
    *rig.mode.lock().expect("a lock") = Mode::IsDown;
    let steps = vec![
        events(&["a", "b"]),
        PollStep::Pass(60_000),
        PollStep::Until("the snapshot waits", Box::new(none_yet)),
        PollStep::Until("the store is switched", Box::new(switched)),
        PollStep::Until("the snapshot is complete", Box::new(complete)),
    ];
    worker.run(&mut source(&rig, steps, 0), &AtomicBool::new(false), &mut |_| Ok(())).expect("the run succeeds");
    assert_eq!(rig.marker().next, [Reached { topic: "t".to_owned(), next: 2, ..Reached::default() }]);
}

#[test]
fn unusable_snapshot_is_replaced_after_a_rebuild() {
    let damage = |rig: &Rig| {
        let path = rig.state().join("events.state");
        let mut bytes = std::fs::read(&path).expect("the snapshot");
        bytes[40] ^= 1;
        std::fs::write(&path, bytes).expect("a file");
    };
    let cut = |rig: &Rig| std::fs::write(rig.state().join("events.state"), b"TW-state").expect("a file");
    let older = |rig: &Rig| {
        let dir = StateDir::open(&rig.state()).expect("the folder");
        let marker = Marker { format: 0, ..rig.marker() };
        dir.begin("events").expect("it begins").finish(marker).join().expect("no panic").expect("it is stored");
    };
    for change in [&damage as &dyn Fn(&Rig), &cut, &older] {
        let rig = Rig::new();
        rig.append(0..100);
        let (_, digest) = rig.run(true);
        change(&rig);
        assert_eq!(rig.run(true), (ids(0..100), digest), "the whole source is read again");
        assert_eq!(rig.run(true).0, ids(0..0), "the new snapshot is used");
    }
}

#[test]
fn snapshot_of_another_key_is_not_used() {
    let rig = Rig::new();
    rig.append(0..100);
    rig.run(true);
    let rig = Rig { key: b"another key", ..rig };
    assert_eq!(rig.run(true).0, ids(0..100));
}

/// A storage that fails.
struct FullDisk;

impl Snapshots for FullDisk {
    fn begin(&self, _: &str) -> std::io::Result<Box<dyn SnapshotWriter>> {
        Err(std::io::ErrorKind::StorageFull.into())
    }

    fn newest(&self, _: &str) -> Result<Option<StoredSnapshot>, SnapshotError> {
        Ok(None)
    }
}

#[test]
fn failed_snapshot_is_reported_and_does_not_stop() {
    let rig = Rig::new();
    rig.append(0..10);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let settings = SnapshotSettings { to: Arc::new(FullDisk), interval_ms: Some(60_000) };
    let mut worker = rig.worker(runtime.handle()).with_snapshots(settings);
    let mut source = FileSource::open(vec![rig.file()]).expect("the file");
    worker.run(&mut source, &AtomicBool::new(false), &mut |_| Ok(())).expect("the run succeeds");
    assert_eq!(rig.stored(), ids(0..10));
    assert!(rig.health.holds(Condition::Snapshot, 0));
    assert!(rig.metric("tokenwarden_snapshots_total{result=\"failed\"} 1"));
}

/// A storage that does not answer.
struct AwayStorage;

impl Snapshots for AwayStorage {
    fn begin(&self, _: &str) -> std::io::Result<Box<dyn SnapshotWriter>> {
        panic!("it may contain a good snapshot");
    }

    fn newest(&self, _: &str) -> Result<Option<StoredSnapshot>, SnapshotError> {
        Err(SnapshotError::Storage(std::io::ErrorKind::PermissionDenied.into()))
    }
}

#[test]
fn snapshot_that_cannot_be_read_is_not_replaced() {
    let rig = Rig::new();
    rig.append(0..10);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let settings = SnapshotSettings { to: Arc::new(AwayStorage), interval_ms: Some(60_000) };
    let mut worker = rig.worker(runtime.handle()).with_snapshots(settings);
    let mut source = FileSource::open(vec![rig.file()]).expect("the file");
    let done = worker.run(&mut source, &AtomicBool::new(false), &mut |_| Ok(()));
    assert!(matches!(done, Err(WorkerError::Snapshot(_))), "{done:?}");
    assert_eq!(rig.stored(), ids(0..0));
}

#[test]
fn partition_waits_while_snapshot_cannot_be_read() {
    let rig = Rig::new();
    let states = rig.restored_states(Arc::new(AwayStorage));
    let position = Position::new("t", 0, 0);
    assert_eq!(states.restore(&position, 0..=100, 1), Restoration::Unavailable);
    assert!(rig.health.holds(Condition::StateUnavailable, 0));
    states.discard("t", 0, 1);
    assert!(!rig.health.holds(Condition::StateUnavailable, 0));
}

#[test]
fn restored_state_is_kept_for_the_last_ticket_only() {
    let rig = Rig::new();
    member(&rig, vec![in_partitions(0..100)], 0, true);
    let states = rig.restored_states(Arc::new(StateDir::open(&rig.state()).expect("the folder")));
    let restore = |usable, ticket| states.restore(&Position::new("t", 0, 0), usable, ticket);
    assert_eq!(restore(0..=98, 1), Restoration::Nothing, "the committed offset was moved back");
    assert_eq!(restore(0..=100, 2), Restoration::Continue(99));
    states.discard("t", 0, 1);
    assert!(states.take("t", 0).is_some(), "another assignment was discarded");
    assert_eq!(restore(0..=100, 3), Restoration::Continue(99));
    states.discard("t", 0, 3);
    assert!(states.take("t", 0).is_none(), "the partition was released");
}

#[test]
fn state_is_saved_before_partition_is_handed_over() {
    let rig = Rig::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let to = Arc::new(StateDir::open(&rig.state()).expect("the folder"));
    let settings = SnapshotSettings { to, interval_ms: Some(60_000) };
    let mut worker = rig.worker_of(runtime.handle(), Spread::ByPartition(HashMap::new())).with_snapshots(settings);
    let state = rig.state();
    let only_the_other_is_left = move |_: &Log| {
        let markers = state_dir::list(&state).expect("the folder");
        let markers: Vec<_> =
            markers.into_iter().map(|(name, found)| (name, found.expect("it is read").marker)).collect();
        let [(name, marker)] = markers.as_slice() else { panic!("{markers:?}") };
        assert_eq!((name.as_str(), marker.next[0].next), ("t-1", 100));
        true
    };
    let steps = vec![
        in_partitions(0..100),
        PollStep::Revoked(1),
        PollStep::Until("the state of partition 1 is saved", Box::new(only_the_other_is_left)),
    ];
    worker.run(&mut source(&rig, steps, 0), &AtomicBool::new(false), &mut |_| Ok(())).expect("the run succeeds");
}

#[test]
fn snapshot_whose_rows_are_not_stored_is_given_up() {
    let rig = Rig::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let to = Arc::new(StateDir::open(&rig.state()).expect("the folder"));
    let mut worker = rig.worker(runtime.handle()).with_snapshots(SnapshotSettings { to, interval_ms: Some(60_000) });
    *rig.mode.lock().expect("a lock") = Mode::IsDown;
    let draft = rig.state().join("events.state.new0");
    let (written, given_up) = (draft.clone(), Arc::clone(&rig.health));
    let mode = Arc::clone(&rig.mode);
    let switched = move |_: &Log| {
        *mode.lock().expect("a lock") = Mode::Works;
        true
    };
    let steps = vec![
        events(&["a"]),
        PollStep::Pass(60_000),
        PollStep::Until("the snapshot is begun", Box::new(move |_: &Log| written.exists())),
        PollStep::Pass(300_000),
        PollStep::Until("it is given up", Box::new(move |_: &Log| given_up.holds(Condition::Snapshot, 0))),
        PollStep::Until("its draft is removed", Box::new(move |_: &Log| !draft.exists())),
        PollStep::Until("the store is switched", Box::new(switched)),
        PollStep::Pass(60_000),
        PollStep::Until("the row is stored", Box::new(|log: &Log| !log.lock().expect("a lock").is_empty())),
    ];
    worker.run(&mut source(&rig, steps, 0), &AtomicBool::new(false), &mut |_| Ok(())).expect("the run succeeds");
    assert_eq!(rig.marker().next, [Reached { topic: "t".to_owned(), next: 1, ..Reached::default() }]);
}

/// Uses of tokens in two partitions, by turns.
fn in_partitions(numbers: std::ops::Range<u32>) -> PollStep {
    PollStep::Messages(numbers.map(|number| ((number % 2) as i32, use_of_token(number))).collect())
}

/// Runs a member with two partitions from `offset`, continued from its snapshots if `saved`. Returns the digests of its
/// states.
fn member(rig: &Rig, steps: Vec<PollStep>, offset: i64, saved: bool) -> Vec<(String, u64)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut worker = rig.worker_of(runtime.handle(), Spread::ByPartition(HashMap::new()));
    if saved {
        let to = Arc::new(StateDir::open(&rig.state()).expect("the folder"));
        let restored = Arc::new(rig.restored_states(Arc::clone(&to) as _));
        for partition in 0..2 {
            let found = restored.restore(&Position::new("t", partition, 0), 0..=i64::MAX, 1);
            let expected = match offset {
                0 => Restoration::Nothing,
                offset => Restoration::Continue(offset - 1 + i64::from(partition)),
            };
            assert_eq!(found, expected);
        }
        worker = worker.with_snapshots(SnapshotSettings { to, interval_ms: Some(60_000) }).with_restored(restored);
    }
    worker.run(&mut source(rig, steps, offset), &AtomicBool::new(false), &mut |_| Ok(())).expect("the run succeeds");
    let digest = |owned| {
        let digest = worker.partitions.iter().nth(owned).expect("a partition");
        let name = worker.partitions.name(digest);
        let Ok(extent) = digest.save(&mut |_| Ok::<_, std::convert::Infallible>(()));
        (name, extent.digest)
    };
    let mut digests = vec![digest(0), digest(1)];
    digests.sort();
    digests
}

#[test]
fn partitions_continue_with_their_memory() {
    let (interrupted, undisturbed) = (Rig::new(), Rig::new());
    let complete = {
        let state = interrupted.state();
        move |_: &Log| state_dir::list(&state).expect("the folder").len() == 2
    };
    let steps = vec![
        in_partitions(0..100),
        PollStep::Pass(1),
        PollStep::Pass(60_000),
        PollStep::Until("both states are saved", Box::new(complete)),
        in_partitions(100..300),
    ];
    member(&interrupted, steps, 0, true);
    assert!(interrupted.metric("tokenwarden_snapshots_total{result=\"stored\"} 4"), "{}", interrupted.metrics.text());
    // Of the messages at 0 to 299, the last of partition 0 is at 298.
    let steps = vec![in_partitions(300..500)];
    let digests = member(&interrupted, steps, 300, true);
    let since = "tokenwarden_memory_since_timestamp_seconds{state=\"t-0\"} 17900";
    let since = |rig: &Rig| rig.metrics.text().lines().find(|line| line.starts_with(since)).map(str::to_owned);
    assert!(since(&interrupted).is_some(), "{}", interrupted.metrics.text());
    assert_eq!(digests, member(&undisturbed, vec![in_partitions(0..500)], 0, false));
    assert_eq!(since(&interrupted), since(&undisturbed), "the memory reaches back as far");
    assert_eq!(digests.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["t-0", "t-1"]);
    let mut stored = interrupted.stored();
    stored.sort_by_key(|id| id[1..].parse::<u32>().expect("a number"));
    assert_eq!(stored, ids(0..500));
}

#[test]
fn failed_snapshot_of_a_lost_partition_is_forgotten() {
    let rig = Rig::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let settings = SnapshotSettings { to: Arc::new(FullDisk), interval_ms: Some(60_000) };
    let worker = rig.worker_of(runtime.handle(), Spread::ByPartition(HashMap::new()));
    let (health, until) = (Arc::clone(&rig.health), Arc::clone(&rig.health));
    let failed = move |_: &Log| until.holds(Condition::Snapshot, 0);
    let repaired = move |_: &Log| !health.holds(Condition::Snapshot, 0);
    let steps = vec![
        in_partitions(0..10),
        PollStep::Pass(1),
        PollStep::Pass(60_000),
        PollStep::Until("the snapshot fails", Box::new(failed)),
        PollStep::Lost,
        PollStep::Until("the condition ends", Box::new(repaired)),
    ];
    let mut worker = worker.with_snapshots(settings);
    worker.run(&mut source(&rig, steps, 0), &AtomicBool::new(false), &mut |_| Ok(())).expect("the run succeeds");
}
