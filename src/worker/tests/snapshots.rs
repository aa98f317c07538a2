//! Snapshots of the state: the place they are completed, and restarts from them.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::feed::Feed;
use crate::port::{SnapshotError, SnapshotWriter, Snapshots, StoredSnapshot};
use crate::snapshot::Marker;
use crate::source::file::FileSource;
use crate::state_dir::{self, StateDir};
use crate::worker::SnapshotSettings;

/// A service that reads a file, and what it stores.
struct Rig {
    folder: TempDir,
    mode: Arc<Mutex<Mode>>,
    log: Log,
    clock: Arc<TestClock>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    key: &'static [u8],
}

impl Rig {
    fn new() -> Self {
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

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Appends uses of tokens.
    fn append(&self, numbers: std::ops::Range<u32>) {
        let mut file = OpenOptions::new().append(true).open(self.file()).expect("the file");
        for number in numbers {
            let at = 1_790_000_000_000_i64 + i64::from(number) * 240_000;
            writeln!(
                file,
                r#"{{"event_id":"e{number}","timestamp":{at},"token_id":"t{}","user_id":"u{}","ip_address":"192.0.2.{}","endpoint":"/v1/{}"}}"#,
                number % 7,
                number % 7,
                number % 7,
                number % 3,
            )
            .expect("a line");
        }
    }

    fn worker(&self, runtime: &Handle) -> Worker<TestStore> {
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
        Worker::new(pipeline, Spread::Whole(Feed::default()), false, environment)
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
        let digest = worker.partitions.whole().map_or(0, |owned| {
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

fn newest(state: &Path) -> Option<Marker> {
    let mut listed = state_dir::list(state).expect("the folder");
    assert!(listed.len() <= 1);
    listed.pop().map(|(_, found)| found.expect("it is read").marker)
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
    let draft = state.join("events.state.new");
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
    let mut source = TestSource {
        steps: steps.into(),
        log: Arc::clone(&rig.log),
        stop: Arc::default(),
        clock: Some(Arc::clone(&rig.clock)),
        offset: 0,
        open_max: 0,
        committed: 0,
        polls_without_room: 0,
        waited: 0,
    };
    worker.run(&mut source, &AtomicBool::new(false), &mut |_| Ok(())).expect("the run succeeds");
    assert_eq!(rig.marker().next, [("t".to_owned(), 0, 2)]);
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
