//! Panics and calls without an answer in a lane, and damage of the outbox.

use super::*;

/// Failure of the test channel and revoker at incident 1.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Panic,
    Hang,
}

/// A channel and provider that fail at incident 1 only.
struct Faulty {
    fault: Fault,
    done: std::sync::Mutex<Vec<u64>>,
}

impl Faulty {
    fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self { fault, done: std::sync::Mutex::default() })
    }

    async fn act(&self, number: u64) {
        if number == 1 {
            match self.fault {
                Fault::Panic => panic!("grant-1 must not be logged"),
                Fault::Hang => std::future::pending().await,
            }
        }
        self.done.lock().expect("a lock").push(number);
    }

    fn done(&self) -> Vec<u64> {
        self.done.lock().expect("a lock").clone()
    }
}

#[async_trait]
impl Notifier for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn target(&self) -> String {
        "a test".to_owned()
    }

    async fn notify(&self, alert: Alert<'_>, _: &str) -> Result<Accepted, DeliveryError> {
        if let Alert::Incident { incident, .. } = alert {
            self.act(incident.id.0).await;
        }
        Ok(Accepted::default())
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        Ok(())
    }
}

#[async_trait]
impl Revoker for Faulty {
    fn accepts(&self, _: &Target) -> bool {
        true
    }

    async fn revoke(&self, request: RevokeRequest<'_>) -> Result<Revoked, DeliveryError> {
        let number = request.token_id.strip_prefix("at-").and_then(|number| number.parse().ok());
        self.act(number.expect("a number")).await;
        Ok(Revoked::Done { status: 200, confirmation: Confirmation::at(START) })
    }
}

#[test]
fn channel_panic_does_not_end_its_lane() {
    let (folder, hook, faulty) = (tempfile::tempdir().expect("a folder"), Web::start(), Faulty::new(Fault::Panic));
    let channels = || [webhook(&hook), vec![Arc::clone(&faulty) as _]].concat();
    let rig = Rig::start(folder.path(), channels, None, quick());
    rig.take(&[1, 2].map(|number| Incident { revoke: None, ..incident(number, Mode::Shadow) }));
    rig.wait("the lane panics", || rig.metrics.text().contains("tokenwarden_lane_panics_total{lane=\"faulty\"} 1"));
    rig.wait("the panic is reported", || {
        rig.unready() == ["lane (faulty): the delivery lane has failed and is being restarted"]
    });
    rig.until("the alert is held", |rows| {
        rows.iter().any(|row| row.kind == "alert_faulty" && row.outcome == ActionOutcome::Failed)
    });
    rig.settled();
    assert_eq!((faulty.done(), rig.outbox.held()), (vec![2], 1));
    assert!(rig.metrics.text().contains("tokenwarden_lane_panics_total{lane=\"faulty\"} 3"), "{}", rig.metrics.text());
    assert!(hook.requests().iter().any(|request| request.body.contains("faulty rejects alerts")));
    assert!(!rig.unready().iter().any(|reason| reason.starts_with("lane ")), "{:?}", rig.unready());
    rig.stop();
}

#[test]
fn revoker_panic_does_not_end_its_lane() {
    let (folder, hook, faulty) = (tempfile::tempdir().expect("a folder"), Web::start(), Faulty::new(Fault::Panic));
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(Arc::clone(&faulty) as _), quick());
    rig.take(&[1, 2].map(|number| incident(number, Mode::Enforce)));
    rig.settled();
    assert_eq!((faulty.done(), rig.outbox.held()), (vec![2], 1), "the revocation is retried later");
    let outcomes = rig.revocations();
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "grant-1 failed").count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "grant-2 done").count(), 1, "{outcomes:?}");
    let sent = messages(&hook);
    let of_first: Vec<_> =
        sent.iter().filter(|(_, m)| m["token_id"] == "at-1").map(|(_, m)| &m["revocation"]).collect();
    assert_eq!(of_first, ["waiting", "failed"]);
    rig.stop();
}

/// A store that panics at its first three writes.
#[derive(Default)]
struct Panicky {
    store: ActionStore,
    panics: std::sync::atomic::AtomicUsize,
}

#[async_trait]
impl Store for Panicky {
    type Rows = <ActionStore as Store>::Rows;

    fn new_rows(&self) -> Self::Rows {
        self.store.new_rows()
    }

    async fn write(&self, rows: &Self::Rows) -> Result<(), StoreError> {
        let before = self.panics.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert!(before >= 3, "panic while writing");
        self.store.write(rows).await
    }
}

#[test]
fn lane_that_panics_is_restarted_with_back_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (clock, store) = (TestClock::start(), Arc::new(Panicky::default()));
    let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::default()));
    let time: Arc<dyn Clock> = Arc::clone(&clock) as _;
    let outbox = Arc::new(Outbox::open(folder.path(), &[], Arc::clone(&time)).expect("an outbox"));
    let deliverer = Deliverer {
        outbox: Arc::clone(&outbox),
        notifiers: Vec::new(),
        revoker: None,
        store: Arc::clone(&store),
        clock: time,
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        settings: quick(),
    };
    let running = deliverer.start(runtime.handle());
    outbox.take(&[incident(7, Mode::Shadow)]).expect("the item is stored");
    let panics = |count: usize| format!("tokenwarden_lane_panics_total{{lane=\"rows\"}} {count}");
    let is_unready = || health.holds(Condition::Lane, clock.now_millis());
    for count in 1..=3 {
        let panicked =
            eventually(PATIENCE, "the lane panics", || metrics.text().contains(&panics(count)).then_some(()));
        assert!(panicked.is_some() && is_unready(), "{count}");
        std::thread::sleep(Duration::from_millis(50));
        assert!(metrics.text().contains(&panics(count)), "the lane is not restarted before its back-off");
        clock.advance(Duration::from_secs(4));
    }
    let written = eventually(PATIENCE, "the row is written", || (!store.store.actions().is_empty()).then_some(()));
    assert!(written.is_some());
    let recovered = eventually(PATIENCE, "the lane has recovered", || (!is_unready()).then_some(()));
    assert!(recovered.is_some());
    runtime.block_on(running.stop(Duration::from_secs(5)));
}

#[test]
fn hanging_call_fails_after_its_timeout() {
    let (folder, faulty) = (tempfile::tempdir().expect("a folder"), Faulty::new(Fault::Hang));
    let settings = Settings { call_wait: Duration::from_secs(6), ..quick() };
    let rig = Rig::start(folder.path(), || vec![Arc::clone(&faulty) as _], Some(Arc::clone(&faulty) as _), settings);
    rig.take(&[1, 2].map(|number| incident(number, Mode::Enforce)));
    rig.until("the other alert is sent", |rows| {
        rows.iter().any(|row| row.kind == "alert_faulty" && row.outcome == ActionOutcome::Done)
    });
    assert_eq!(faulty.done(), [2, 2], "the revocation and the message of incident 2");
    let rows = rig.store.actions();
    let failed = rows.iter().find(|row| row.outcome == ActionOutcome::Retry).expect("a row");
    assert_eq!(failed.reason, "no answer within 6 s");
    rig.stop();
}

#[test]
fn damaged_outbox_is_reported_once() {
    let (folder, hook) = (tempfile::tempdir().expect("a folder"), Web::start());
    hook.hold(true);
    let rig = Rig::start(folder.path(), || webhook(&hook), None, quick());
    rig.take(&[1, 2, 3].map(|number| Incident { revoke: None, ..incident(number, Mode::Shadow) }));
    rig.stop();
    let journal = folder.path().join("journal.ndjson");
    let text = std::fs::read_to_string(&journal).expect("a journal");
    assert_eq!(text.matches("\"reason\":\"two holders, DE and BR\"").count(), 3, "{text}");
    std::fs::write(&journal, text.replacen("two holders, DE", "two holders, US", 1)).expect("a journal");
    hook.hold(false);
    let sent_before = hook.requests().len();
    for start in 1..=2 {
        let rig = Rig::start(folder.path(), || webhook(&hook), None, quick());
        rig.settled();
        let text = rig.metrics.text();
        assert_eq!(text.contains("tokenwarden_outbox_damaged 1"), start == 1, "{text}");
        let reason = "outbox_damaged: lines of the outbox are damaged; alerts or revocations may be lost";
        rig.wait("the damage is reported", || rig.unready() == [reason]);
        if start == 2 {
            std::fs::remove_file(folder.path().join(DAMAGED_FILE)).expect("a copy");
            rig.clock.advance(Duration::from_secs(10));
            rig.wait("the condition is cleared", || rig.unready().is_empty());
        }
        rig.stop();
    }
    let requests = hook.requests().split_off(sent_before);
    let notices = requests.iter().filter(|request| request.body.contains("The outbox is damaged")).count();
    assert_eq!((notices, requests.len()), (1, 3), "one notice, and the two readable incidents");
}

#[test]
fn outbox_is_locked_by_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = Outbox::open(folder.path(), &[], clock()).expect("an outbox");
    let error = Outbox::open(folder.path(), &[], clock()).err().expect("the outbox is in use");
    assert!(error.to_string().contains("another process has it"), "{error}");
}
