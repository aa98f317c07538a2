//! An outbox that refuses incidents.

use super::snapshots::{Rig, newest, source};
use super::*;
use crate::port::INCIDENTS_AT_ONCE;
use crate::state_dir::StateDir;
use crate::worker::SnapshotSettings;

#[test]
fn outbox_failure_pauses_the_source() {
    let ids: Vec<String> = (0..50).map(|number| format!("e{number}")).collect();
    let steps = vec![theft("v"), events(&ids.iter().map(String::as_str).collect::<Vec<_>>())];
    let kept = TestStore::default();
    let (log, attempts) = (Arc::clone(&kept.log), Arc::new(AtomicUsize::new(0)));
    let outbox = {
        let attempts = Arc::clone(&attempts);
        TestOutbox::new(move |incidents: &[Incident]| {
            assert_eq!(incidents.len(), 1);
            assert_eq!(*log.lock().expect("a lock"), [], "no part of the epoch is published yet");
            match attempts.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Err(std::io::ErrorKind::StorageFull.into()),
                _ => Ok(()),
            }
        })
    };
    let result = play_into(Some(Arc::new(outbox)), steps, Limits { epoch_messages_max: 10, ..Limits::REPLAY }, kept);
    assert_eq!(result.done.expect("the run succeeds").events, 52);
    assert_eq!(attempts.load(Ordering::Relaxed), 3);
    assert!(result.source.open_max <= 20, "{} messages were in memory", result.source.open_max);
    assert!(result.source.polls_without_room > 0, "the source was polled without room");
    assert_eq!(result.log.iter().filter(|seen| matches!(seen, Seen::Stored(_))).count(), 6);
}

/// More incidents than an outbox takes at once would otherwise be refused for ever, and their partition would stop.
#[test]
fn incidents_of_one_epoch_are_taken_in_parts() {
    let messages = |number: usize| match theft(&format!("v{number}")) {
        PollStep::Messages(messages) => messages,
        _ => unreachable!("theft returns messages"),
    };
    let steps = vec![PollStep::Messages((0..INCIDENTS_AT_ONCE + 200).flat_map(messages).collect())];
    let taken = Arc::new(AtomicUsize::new(0));
    let outbox = {
        let taken = Arc::clone(&taken);
        TestOutbox::new(move |incidents: &[Incident]| {
            if incidents.len() > INCIDENTS_AT_ONCE {
                return Err(std::io::ErrorKind::QuotaExceeded.into());
            }
            taken.fetch_add(incidents.len(), Ordering::Relaxed);
            Ok(())
        })
    };
    let limits = Limits { wait_ms_max: Some(0), epoch_messages_max: 10_000, ..Limits::REPLAY };
    let result = play_into(Some(Arc::new(outbox)), steps, limits, TestStore::default());
    assert!(result.done.is_ok());
    assert_eq!(taken.load(Ordering::Relaxed), INCIDENTS_AT_ONCE + 200);
}

#[test]
fn full_outbox_ends_a_replay_without_commit() {
    let outbox = TestOutbox::new(|_: &[Incident]| Err(std::io::ErrorKind::StorageFull.into()));
    let limits = Limits { wait_ms_max: Some(0), ..Limits::REPLAY };
    let result = play_into(Some(Arc::new(outbox)), vec![theft("v")], limits, TestStore::default());
    assert!(result.done.is_err_and(|error| matches!(error, WorkerError::Outbox(_))));
    assert_eq!(result.log, []);
}

/// An outbox whose disk accepts writes if the flag is set.
struct Disk(Arc<AtomicBool>);

impl Outbox for Disk {
    fn take(&self, _: &[Incident]) -> std::io::Result<()> {
        Ok(())
    }

    fn notify(&self, _: &str, _: Notice) -> std::io::Result<()> {
        Ok(())
    }

    fn persist(&self) -> std::io::Result<()> {
        if self.0.load(Ordering::Relaxed) { Ok(()) } else { Err(std::io::ErrorKind::StorageFull.into()) }
    }
}

/// A source without commits continues from its snapshot. It must not skip messages whose incidents are in memory only.
#[test]
fn snapshot_waits_until_the_outbox_is_on_disk() {
    let rig = Rig::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let to = Arc::new(StateDir::open(&rig.state()).expect("the folder"));
    let settings = SnapshotSettings { to, interval_ms: Some(60_000) };
    let mut worker = rig.worker(runtime.handle()).with_snapshots(settings);
    let is_writable = Arc::new(AtomicBool::new(false));
    worker.environment.outbox = Some(Arc::new(Disk(Arc::clone(&is_writable))));
    let (state, draft) = (rig.state(), rig.state().join("events.state.new0"));
    let mut polls = 0;
    let none_yet = {
        let state = state.clone();
        move |_: &Log| {
            assert!(newest(&state).is_none(), "the outbox is not on disk");
            polls += 1;
            polls > 50 && draft.exists()
        }
    };
    let written = move |_: &Log| {
        is_writable.store(true, Ordering::Relaxed);
        true
    };
    let steps = vec![
        events(&["a", "b"]),
        PollStep::Pass(60_000),
        PollStep::Until("the snapshot waits", Box::new(none_yet)),
        PollStep::Until("the disk accepts writes", Box::new(written)),
        PollStep::Until("the snapshot is complete", Box::new(move |_: &Log| newest(&state).is_some())),
    ];
    worker.run(&mut source(&rig, steps, 0), &AtomicBool::new(false), &mut |_| Ok(())).expect("the run succeeds");
}
