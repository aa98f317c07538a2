//! Outages of the store: alerts continue, and afterwards no row is missing or duplicated.

use tempfile::TempDir;

use super::*;
use crate::feed::Feed;
use crate::millis::MINUTE_MS;

/// A service with a spool, and the parts that tests inspect.
struct Rig {
    mode: Arc<Mutex<Mode>>,
    log: Log,
    clock: Arc<TestClock>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    notices: Arc<Mutex<Vec<(String, Notice)>>>,
    /// Incidents in the outbox with their times, milliseconds.
    alerts: Arc<Mutex<Vec<(i64, Incident)>>>,
    folder: TempDir,
    spool: SpoolSettings,
    stop: Arc<AtomicBool>,
}

impl Rig {
    fn new(mode: Mode) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = SpoolSettings { dir: folder.path().join("spool"), bytes_max: 1 << 20 };
        let clock = TestClock::default();
        // No wait is due at the start.
        clock.0.store(1_000_000, Ordering::Relaxed);
        Self {
            mode: Arc::new(Mutex::new(mode)),
            log: Log::default(),
            clock: Arc::new(clock),
            metrics: Arc::default(),
            health: Arc::default(),
            notices: Arc::default(),
            alerts: Arc::default(),
            folder,
            spool,
            stop: Arc::default(),
        }
    }

    fn play(&self, steps: Vec<PollStep>) -> RunResult {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (alerts, clock) = (Arc::clone(&self.alerts), Arc::clone(&self.clock));
        let take = move |incidents: &[Incident]| {
            let now = clock.now_millis();
            alerts.lock().expect("a lock").extend(incidents.iter().map(|incident| (now, incident.clone())));
            Ok(())
        };
        let environment = Environment {
            store: Arc::new(TestStore {
                log: Arc::clone(&self.log),
                failures: AtomicUsize::default(),
                mode: Arc::clone(&self.mode),
            }),
            outbox: Some(Arc::new(TestOutbox(take, Arc::clone(&self.notices)))),
            clock: Arc::clone(&self.clock) as _,
            metrics: Arc::clone(&self.metrics),
            health: Arc::clone(&self.health),
            runtime: runtime.handle().clone(),
            // Room for about 20 event ids.
            limits: Limits { epoch_bytes_max: 60, ..Limits::LIVE },
            reload: None,
        };
        let mut source = TestSource {
            steps: steps.into(),
            log: Arc::clone(&self.log),
            stop: Arc::clone(&self.stop),
            clock: Some(Arc::clone(&self.clock)),
            offset: 0,
            open_max: 0,
            committed: 0,
            polls_without_room: 0,
            waited: 0,
        };
        let feeds = HashMap::from([("t".into(), Feed { confirmed: true, ..Feed::default() }.into())]);
        let worker = Worker::new(pipeline(), Spread::ByPartition(feeds), VerdictOutput::None, environment);
        let mut worker = worker.with_spool(self.spool.clone());
        let done = worker.run(&mut source, &self.stop, &mut |_| Ok(()));
        drop(worker);
        runtime.shutdown_background();
        let log = self.log.lock().expect("a lock").clone();
        RunResult { log, done, source }
    }

    /// Sets the behaviour of the store.
    fn switch(&self, to: Mode) -> PollStep {
        let mode = Arc::clone(&self.mode);
        PollStep::Until(
            "the store is switched",
            Box::new(move |_| {
                *mode.lock().expect("a lock") = to;
                true
            }),
        )
    }

    fn holds(&self, condition: Condition) -> bool {
        self.health.holds(condition, self.clock.now_millis())
    }

    /// Waits until `condition` holds, or does not hold.
    fn until(&self, condition: Condition, wanted: bool) -> PollStep {
        let (health, clock) = (Arc::clone(&self.health), Arc::clone(&self.clock));
        let holds = move |_: &Log| health.holds(condition, clock.now_millis()) == wanted;
        PollStep::Until(condition.name(), Box::new(holds))
    }

    /// Runs `work`. Another thread runs `mend` when `condition` holds.
    fn once<T>(&self, condition: Condition, mend: impl FnOnce() + Send, work: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !self.holds(condition) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                mend();
            });
            work()
        })
    }

    /// Keys of the notices in the outbox.
    fn notice_keys(&self) -> Vec<String> {
        self.notices.lock().expect("a lock").iter().map(|(key, _)| key.clone()).collect()
    }

    /// Files of the spool.
    fn files(&self) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(&self.spool.dir).expect("the spool's folder").flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "rows"));
        files.sort();
        files
    }

    fn metric(&self, name: &str) -> i64 {
        let text = self.metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
    }
}

fn ids(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("e{number}")).collect()
}

/// Events in polls of ten, alternately from each of `partitions`.
fn stream(range: std::ops::Range<usize>, partitions: i32) -> Vec<PollStep> {
    let message = |number: usize| (number as i32 % partitions, event(&format!("e{number}")));
    let numbers = range.collect::<Vec<_>>();
    numbers.chunks(10).map(|chunk| PollStep::Messages(chunk.iter().copied().map(message).collect())).collect()
}

fn all_stored(log: &[Seen]) -> Vec<String> {
    log.iter().flat_map(|seen| if let Seen::Stored(ids) = seen { ids.clone() } else { Vec::new() }).collect()
}

/// Waits until the store has `count` rows.
fn until_stored(count: usize) -> PollStep {
    PollStep::Until("all is stored", Box::new(move |log| all_stored(&log.lock().expect("a lock")).len() >= count))
}

fn until_committed(offset: i64) -> PollStep {
    let committed = move |log: &Log| {
        let committed = |seen: &Seen| matches!(seen, Seen::Committed(next) if next.iter().any(|next| next.1 == offset));
        log.lock().expect("a lock").iter().any(committed)
    };
    PollStep::Until("offsets are committed", Box::new(committed))
}

#[test]
fn incident_reaches_outbox_during_any_outage() {
    for mode in [Mode::IsDown, Mode::Refuses, Mode::Hangs] {
        let rig = Rig::new(mode);
        let alerts = Arc::clone(&rig.alerts);
        let until_alerts = |count| {
            let alerts = Arc::clone(&alerts);
            PollStep::Until(
                "the incident is in the outbox",
                Box::new(move |_| alerts.lock().expect("a lock").len() == count),
            )
        };
        // The second theft happens after a long outage.
        let mut steps = vec![theft("one"), until_alerts(1), PollStep::Pass(600_000), theft("two"), until_alerts(2)];
        steps.extend([PollStep::Pass(15_000), rig.until(Condition::Store, true), PollStep::Stop]);
        let result = rig.play(steps);
        assert_eq!(result.done.expect("the run succeeds").events, 4, "{mode:?}");
        assert_eq!(result.log, [], "{mode:?}: no row is stored and no offset committed");
        let times: Vec<i64> = alerts.lock().expect("a lock").iter().map(|(at, _)| *at - 1_000_000).collect();
        assert!(times[0] <= 1_000 && times[1] - times[0] - 600_000 <= 1_000, "{mode:?}: {times:?}");
        assert!(rig.holds(Condition::Store), "{mode:?}");
    }
}

#[test]
fn rows_wait_on_disk_and_are_stored_once_in_order() {
    let rig = Rig::new(Mode::IsDown);
    let mut steps = stream(0..400, 3);
    steps.push(rig.until(Condition::Store, true));
    let (metrics, log) = (Arc::clone(&rig.metrics), Arc::clone(&rig.log));
    let spooled = move |_: &Log| {
        let text = metrics.text();
        assert_eq!(*log.lock().expect("a lock"), [], "no offset is committed");
        text.lines().any(|line| line.strip_prefix("tokenwarden_spool_rows ").is_some_and(|rows| rows != "0"))
    };
    steps.push(PollStep::Until("rows are on disk", Box::new(spooled)));
    steps.push(rig.switch(Mode::Works));
    steps.push(until_stored(400));
    steps.push(until_committed(400));
    let result = rig.play(steps);
    assert_eq!(result.done.expect("the run succeeds").events, 400);
    assert_eq!(result.source.polls_without_room, 0, "the source never pauses");
    let stored = all_stored(&result.log);
    assert_eq!(stored.iter().collect::<std::collections::BTreeSet<_>>().len(), stored.len(), "no row is duplicated");
    for partition in 0..3 {
        let of = |ids: &[String]| -> Vec<String> {
            ids.iter().filter(|id| id[1..].parse::<i32>().expect("a number") % 3 == partition).cloned().collect()
        };
        assert_eq!(of(&stored), of(&ids(0..400)), "partition {partition}");
    }
    // At each commit, all rows before its offsets are stored.
    let mut stored = 0;
    for seen in &result.log {
        match seen {
            Seen::Stored(ids) => stored += ids.len() as i64,
            Seen::Committed(next) => assert!(next.iter().all(|next| next.1 <= stored), "{next:?} of {stored}"),
            _ => {}
        }
    }
    assert_eq!((rig.files(), rig.metric("tokenwarden_spool_rows")), (Vec::new(), 0));
    assert_eq!((rig.metric("tokenwarden_spool_bytes"), rig.holds(Condition::Store)), (0, false));
}

#[test]
fn full_spool_pauses_the_source() {
    let mut rig = Rig::new(Mode::IsDown);
    rig.spool.bytes_max = 300;
    let mut steps = stream(0..400, 2);
    steps.push(until_stored(400));
    let result = rig.once(Condition::SpoolFull, || *rig.mode.lock().expect("a lock") = Mode::Works, || rig.play(steps));
    assert_eq!(result.done.expect("the run succeeds").events, 400);
    assert!(result.source.polls_without_room > 0, "the source pauses");
    assert!(!rig.holds(Condition::SpoolFull));
    assert_eq!(rig.notice_keys(), ["spool-0"]);
    let mut stored = all_stored(&result.log);
    stored.sort_by_key(|id| id[1..].parse::<u32>().expect("a number"));
    assert_eq!(stored, ids(0..400));
}

#[test]
fn spool_disk_failure_pauses_the_source() {
    let mut rig = Rig::new(Mode::IsDown);
    let in_the_way = rig.folder.path().join("file");
    std::fs::write(&in_the_way, "").expect("a file");
    rig.spool.dir = in_the_way.join("spool");
    let mut steps = stream(0..200, 1);
    steps.extend([rig.until(Condition::SpoolFull, false), rig.switch(Mode::Works), until_stored(200)]);
    let mend = || std::fs::remove_file(&in_the_way).expect("the file exists");
    let result = rig.once(Condition::SpoolFull, mend, || rig.play(steps));
    assert!(result.source.polls_without_room > 0, "the source pauses");
    assert_eq!(all_stored(&result.log), ids(0..200));
}

#[test]
fn released_partition_leaves_the_spool() {
    let rig = Rig::new(Mode::IsDown);
    let mut steps = stream(0..200, 2);
    steps.extend([rig.until(Condition::Store, true), PollStep::Revoked(0)]);
    steps.extend([rig.switch(Mode::Works), until_stored(100), until_committed(200)]);
    let result = rig.play(steps);
    assert!(result.done.is_ok(), "a hand-over during an outage succeeds");
    assert!(result.log.starts_with(&[Seen::PartitionsChanged, Seen::Released]), "the hand-over is immediate");
    let odd: Vec<String> = ids(0..200).into_iter().skip(1).step_by(2).collect();
    assert_eq!(all_stored(&result.log), odd);
    let of_gone = |seen: &Seen| matches!(seen, Seen::Committed(next) if next.iter().any(|next| next.0 == 0));
    assert!(!result.log.iter().any(of_gone), "{:?}", result.log);
}

#[test]
fn lost_partitions_leave_the_spool() {
    let rig = Rig::new(Mode::IsDown);
    let mut steps = stream(0..200, 2);
    steps.extend([
        rig.until(Condition::Store, true),
        PollStep::Lost,
        rig.switch(Mode::Works),
        PollStep::Pass(MINUTE_MS),
    ]);
    // The same messages after the partitions are assigned again.
    steps.extend(stream(0..20, 2));
    steps.push(until_stored(20));
    let result = rig.play(steps);
    assert!(result.log.starts_with(&[Seen::PartitionsChanged, Seen::Released]));
    assert_eq!(all_stored(&result.log).len(), 20, "{:?}", result.log);
    assert_eq!(rig.files(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn store_that_rejects_rows_is_retried() {
    let rig = Rig::new(Mode::Refuses);
    let mut steps = stream(0..100, 1);
    steps.extend([
        rig.until(Condition::Store, true),
        PollStep::Pass(600_000),
        rig.switch(Mode::Works),
        until_stored(100),
    ]);
    let result = rig.play(steps);
    assert_eq!(all_stored(&result.log), ids(0..100));
    assert!(result.done.is_ok() && !rig.holds(Condition::Store));
    assert_eq!(rig.notice_keys(), ["store-0"]);
}

#[test]
fn store_outage_is_reported_once_a_day() {
    let rig = Rig::new(Mode::IsDown);
    let until_notices = |count| {
        let notices = Arc::clone(&rig.notices);
        PollStep::Until("a notice", Box::new(move |_| notices.lock().expect("a lock").len() == count))
    };
    let mut steps = stream(0..100, 1);
    steps.extend([
        rig.until(Condition::Store, true),
        PollStep::Pass(4 * MINUTE_MS),
        until_notices(0),
        PollStep::Pass(2 * MINUTE_MS),
        until_notices(1),
    ]);
    steps.extend([
        PollStep::Pass(120 * MINUTE_MS),
        until_notices(1),
        PollStep::Pass(23 * 60 * MINUTE_MS),
        until_notices(2),
        rig.switch(Mode::Works),
    ]);
    steps.push(until_stored(100));
    assert!(rig.play(steps).done.is_ok());
    assert_eq!(rig.notice_keys(), ["store-0", "store-1"]);
    let notices = rig.notices.lock().expect("a lock");
    let (title, text) = (&notices[0].1.title, &notices[0].1.text);
    assert!(title.contains("ClickHouse is unavailable") && text.contains("for 6 minutes"), "{title}: {text}");
    assert!(text.contains("continue") && text.contains("of 1048576 bytes"), "{text}");
}

#[test]
fn store_that_hangs_is_reported() {
    let rig = Rig::new(Mode::Hangs);
    let mut steps = stream(0..10, 1);
    steps.extend([
        PollStep::Pass(1_500),
        PollStep::Until(
            "an attempt begins",
            Box::new({
                let mut polls = 0;
                move |_| {
                    polls += 1;
                    polls > 3
                }
            }),
        ),
    ]);
    let health = Arc::clone(&rig.health);
    steps.push(PollStep::Until("the store is not reported yet", Box::new(move |_| !health.holds(Condition::Store, 0))));
    steps.extend([PollStep::Pass(10_500), rig.until(Condition::Store, true), PollStep::Stop]);
    assert!(rig.play(steps).done.is_ok());
    assert_eq!(rig.metric("tokenwarden_store_state{state=\"unavailable\"}"), 1);
}

#[test]
fn stop_does_not_wait_for_a_hanging_store() {
    let rig = Rig::new(Mode::Hangs);
    let mut steps = stream(0..10, 1);
    steps.push(PollStep::Stop);
    let began = rig.clock.now_millis();
    std::thread::scope(|scope| {
        let clock = Arc::clone(&rig.clock);
        let (ended, end) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            while end.recv_timeout(Duration::from_millis(2)).is_err() {
                clock.0.fetch_add(100, Ordering::Relaxed);
            }
        });
        assert!(rig.play(steps).done.is_ok());
        ended.send(()).expect("the clock thread runs");
    });
    let took = rig.clock.now_millis() - began;
    assert!((STOP_WAIT_MS..STOP_WAIT_MS + 10_000).contains(&took), "{took}");
}

#[test]
fn damaged_spool_file_ends_the_worker() {
    let rig = Rig::new(Mode::IsDown);
    let mut steps = stream(0..200, 1);
    let dir = rig.spool.dir.clone();
    let damage = move |_: &Log| {
        for entry in std::fs::read_dir(&dir).expect("the spool's folder").flatten() {
            let mut bytes = std::fs::read(entry.path()).expect("a file");
            if let Some(byte) = bytes.last_mut() {
                *byte ^= 1;
                std::fs::write(entry.path(), &bytes).expect("a file");
                return true;
            }
        }
        false
    };
    steps.extend([PollStep::Until("a file is damaged", Box::new(damage)), rig.switch(Mode::Works), until_stored(200)]);
    let result = rig.play(steps);
    let error = result.done.expect_err("rows cannot be read").to_string();
    assert!(error.contains("wrong checksum"), "{error}");
    assert_eq!(rig.files(), Vec::<std::path::PathBuf>::new(), "the files are deleted");
}

#[test]
fn spool_of_an_earlier_process_is_deleted() {
    let rig = Rig::new(Mode::Works);
    std::fs::create_dir(&rig.spool.dir).expect("a folder");
    std::fs::write(rig.spool.dir.join("000000000007.rows"), "left").expect("a file");
    std::fs::write(rig.spool.dir.join("notes.txt"), "other").expect("a file");
    let mut steps = stream(0..10, 1);
    steps.push(until_stored(10));
    assert!(rig.play(steps).done.is_ok());
    assert_eq!(rig.files(), Vec::<std::path::PathBuf>::new());
    assert!(rig.spool.dir.join("notes.txt").exists());
}

#[test]
fn metrics_do_not_count_replayed_messages() {
    let past = |round: &str| -> Vec<(i32, String)> {
        let event = |id: &str, at: &str, rest: &str| {
            let event = format!(r#"{{"event_id":"{id} {round}","timestamp":"2026-{at}:00Z","token_id":"t",{rest}}}"#);
            (0, event)
        };
        let place = r#""ip_address":"192.0.2.7""#;
        vec![
            event("a", "11-22T10:15", place),
            event("a", "11-22T10:15", place),
            event("late", "11-22T09:00", place),
            event("confirmed", "11-22T10:16", r#""kind":"confirmed","ip_address":"192.0.2.7""#),
            event("bearer", "11-22T10:17", r#""session_id":"ghp_0123456789abcdefghijABCDEFGHIJ012345""#),
            (0, "no event".to_owned()),
        ]
    };
    let counted = |steps| {
        let rig = Rig::new(Mode::Works);
        assert!(rig.play(steps).done.is_ok());
        let text = rig.metrics.text();
        let is_total = |line: &&str| line.contains("_total") && !line.starts_with('#') && !line.contains("epochs");
        text.lines().filter(is_total).map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let live = counted(vec![PollStep::Messages(past("today")), until_committed(6)]);
    for name in ["late", "confirmed", "redactions", "dead_letters", "duplicates", "messages"] {
        let is_counted =
            live.iter().any(|line| line.starts_with(&format!("tokenwarden_{name}_total")) && !line.ends_with(" 0"));
        assert!(is_counted, "{name} does not count: {live:?}");
    }
    let replayed = vec![PollStep::Replayed(past("yesterday")), PollStep::Messages(past("today")), until_committed(12)];
    assert_eq!(counted(replayed), live);
}

/// An outbox whose disk is full for the first `failures` attempts.
struct FullDisk {
    failures: usize,
    attempts: AtomicUsize,
}

impl Outbox for FullDisk {
    fn take(&self, _: &[Incident]) -> std::io::Result<()> {
        Ok(())
    }

    fn notify(&self, _: &str, _: Notice) -> std::io::Result<()> {
        Ok(())
    }

    fn persist(&self) -> std::io::Result<()> {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        if attempt < self.failures { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

#[test]
fn offsets_wait_until_the_outbox_is_on_disk() {
    let play_with = |failures, wait_ms_max| {
        let outbox = Arc::new(FullDisk { failures, attempts: AtomicUsize::new(0) });
        let limits = Limits { wait_ms_max, ..Limits::REPLAY };
        let result = play_into(Some(Arc::clone(&outbox) as _), vec![theft("v")], limits, TestStore::default());
        let committed = result.log.iter().any(|seen| matches!(seen, Seen::Committed(_)));
        let stored = result.log.iter().any(|seen| matches!(seen, Seen::Stored(_)));
        (result.done, stored, committed, outbox.attempts.load(Ordering::Relaxed))
    };
    let (done, stored, committed, attempts) = play_with(20, Some(600_000));
    assert!(done.is_ok() && stored && committed && attempts > 20, "{attempts} attempts");
    let (done, _, committed, _) = play_with(usize::MAX, Some(0));
    assert!(done.is_err_and(|error| matches!(error, WorkerError::Outbox(_))) && !committed);
}
