//! Breakers: revocations of a rule, an application or a tenant stop until a person lifts the stop.

use std::sync::{Mutex, Weak};

use tokenwarden::deliver::{BreakerSettings, Breakers};
use tokenwarden::port::{
    BreakerCause, BreakerId, BreakerRecord, BreakerState, Lift, RecordLog, RecordObserver, Refutation, Refutations,
    Waiting,
};

use super::limits::{by, requested};
use super::*;

/// A log in memory, that all members of a test share.
#[derive(Default)]
struct Log {
    records: Mutex<BTreeMap<BreakerId, BreakerState>>,
    observers: Mutex<Vec<Weak<dyn RecordObserver<BreakerRecord>>>>,
}

impl Log {
    fn put(&self, record: &BreakerRecord) {
        self.records.lock().expect("a lock").insert(record.breaker, record.state.clone());
        for observer in self.observers.lock().expect("a lock").iter().filter_map(Weak::upgrade) {
            observer.record(record.clone());
        }
    }

    /// The stops that no person has lifted.
    fn stops(&self) -> Vec<(BreakerId, BreakerState)> {
        let records = self.records.lock().expect("a lock").clone();
        records.into_iter().filter(|(_, state)| state.lifted.is_none()).collect()
    }

    fn lift(&self, at: i64, waiting: Waiting) {
        for (breaker, state) in self.stops() {
            let lift = Lift { at, by: "ana".to_owned(), reason: "the rule is corrected".to_owned(), waiting };
            self.put(&BreakerRecord { breaker, state: BreakerState { lifted: Some(lift), ..state } });
        }
    }
}

#[async_trait]
impl RecordLog<BreakerRecord> for Log {
    async fn append(&self, record: BreakerRecord) -> Result<(), String> {
        self.put(&record);
        Ok(())
    }

    async fn remove(&self, _: &BreakerId) -> Result<(), String> {
        Ok(())
    }

    fn follow(&self, observer: Arc<dyn RecordObserver<BreakerRecord>>) {
        for (breaker, state) in self.records.lock().expect("a lock").clone() {
            observer.record(BreakerRecord { breaker, state });
        }
        observer.all_read();
        self.observers.lock().expect("a lock").push(Arc::downgrade(&observer));
    }
}

/// Feedback that a test gives. `None`: it cannot be read.
#[derive(Default)]
struct Given(Mutex<Option<Vec<Refutation>>>);

#[async_trait]
impl Refutations for Given {
    async fn read(&self) -> Result<Vec<Refutation>, StoreError> {
        let given = self.0.lock().expect("a lock").clone();
        given.ok_or_else(|| StoreError::Retriable("ClickHouse is away".to_owned()))
    }
}

/// One revocation of a rule in a tenant per hour, and a stop after three hours or three refutations.
struct Case {
    folder: tempfile::TempDir,
    api: Web,
    hook: Web,
    log: Arc<Log>,
    given: Arc<Given>,
    clock: Arc<TestClock>,
    settings: BreakerSettings,
    limits: Limits,
}

impl Case {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            api: Web::start(),
            hook: Web::start(),
            log: Arc::default(),
            given: Arc::default(),
            clock: TestClock::start(),
            settings: BreakerSettings { full_hours: 3, refuted: 3, has_one_tenant: false },
            limits: Limits { of_rule: Some(1), of_rule_total: Some(2), ..Limits::new(20, 100) },
        }
    }

    fn start(&self) -> Rig {
        let settings = Settings { limits: self.limits.clone(), ..quick() };
        let (log, given) = (Arc::clone(&self.log) as _, Arc::clone(&self.given) as _);
        let breakers = Breakers::follow(log, Arc::clone(&self.clock) as _, Some(given), self.settings);
        let parts = (|| webhook(&self.hook), Some(revoker(&self.api, "by_id")));
        let with = |outbox: Outbox| outbox.with_breakers(Some(breakers));
        Rig::open(Arc::clone(&self.clock), self.folder.path(), parts, settings, with)
    }

    /// Advances the clock by hours, and waits each time until `count` more revocations are requested.
    fn pass(&self, rig: &Rig, hours: usize, count: usize) {
        for _ in 0..hours {
            let made = self.api.requests().len();
            self.clock.advance(HOUR);
            rig.wait("the next ones are requested", || self.api.requests().len() == made + count);
            rig.settled();
        }
    }

    fn notices(&self) -> Vec<String> {
        let bodies = self.hook.requests().into_iter().map(|request| request.body);
        bodies.filter(|body| body.contains("Automatic revocation is stopped")).collect()
    }
}

fn of(tenant: &str, incident: Incident) -> Incident {
    Incident { tenant_id: tenant.to_owned(), ..incident }
}

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn rule_that_fills_its_limit_for_hours_stops() {
    let case = Case::new();
    let rig = case.start();
    rig.take(&(1..=6).map(|number| by(RuleId::NewCountry, number)).collect::<Vec<_>>());
    rig.settled();
    case.pass(&rig, 2, 1);
    assert_eq!(requested(&case.api), [1, 2, 3]);
    rig.wait("the others are stopped", || rig.revocations().iter().filter(|row| row.ends_with("stopped")).count() == 3);
    rig.settled();
    let notices = case.notices();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].contains("by the rule new_country in one tenant is stopped (BRK-"), "{notices:?}");
    assert!(notices[0].contains("because its limit was reached in 3 hours of a day"), "{notices:?}");
    rig.stop();

    // A restart lifts nothing. Other rules, and the same rule in another tenant, continue.
    let rig = case.start();
    rig.take(&[by(RuleId::NewCountry, 7), by(RuleId::NewIp, 8), of("other", by(RuleId::NewCountry, 9))]);
    rig.settled();
    case.clock.advance(HOUR);
    rig.settled();
    assert_eq!(requested(&case.api), [1, 2, 3, 8, 9]);
    let stopped = messages(&case.hook).into_iter().map(|(_, message)| message);
    let stopped: Vec<_> = stopped.filter(|message| message["incident_id"] == "INC-0000000000000007").collect();
    assert_eq!(stopped[0]["revocation"], "stopped", "{stopped:?}");
    let row = rig.store.actions().into_iter().find(|row| row.target == "grant-7").expect("a row");
    let reason = "automatic revocation of this rule in one tenant is stopped (BRK-";
    assert!(row.outcome == ActionOutcome::Stopped && row.reason.starts_with(reason), "{row:?}");
    rig.until("the stop is in its log", |_| case.log.stops().len() == 1);
    rig.until("it is counted", |_| rig.metrics.text().contains("tokenwarden_breakers_stopped 1"));

    // A person lifts it. The waiting ones are requested within the limits.
    case.log.lift(case.clock.now_millis(), Waiting::Requested);
    rig.until("one more is requested", |_| requested(&case.api).len() == 6);
    rig.settled();
    assert_eq!((requested(&case.api).split_off(5), rig.outbox.held()), (vec![4], 3));
    let row = rig.store.actions().into_iter().find(|row| row.kind == "breaker_lift").expect("a row");
    assert_eq!((&*row.requested_by, &*row.reason, &*row.tenant_id), ("ana", "the rule is corrected", "acme"));
    assert_eq!(row.target, "rule=new_country tenant=acme");
    assert_eq!(case.notices().len(), 1);
    rig.stop();
}

#[test]
fn flood_of_a_tenant_stops_nothing_elsewhere() {
    let case = Case::new();
    let rig = case.start();
    // A thief fills the limits of his tenant and, with an ally, that of the rule in all tenants. Others invent tenants.
    let invented = |number: u64| Incident {
        tenant_is_new: true,
        ..of(&format!("invented-{number}"), by(RuleId::NewClient, number))
    };
    let floods = (1..=8).flat_map(|number| {
        let of_rule = |tenant, number| of(tenant, by(RuleId::NewIp, number));
        [of_rule("thief", number), of_rule("ally", 100 + number), invented(200 + number)]
    });
    rig.take(&floods.collect::<Vec<_>>());
    rig.settled();
    case.pass(&rig, 2, 3);
    rig.until("a rule is stopped in a tenant of theirs", |_| !case.log.stops().is_empty());
    let stops = case.log.stops();
    let tenants: BTreeSet<_> = stops.iter().map(|(_, state)| state.stop.scope.tenant.as_deref()).collect();
    assert!(tenants.is_subset(&[Some("thief"), Some("ally")].into()), "{stops:?}");
    rig.take(&[of("acme", by(RuleId::NewIp, 301))]);
    case.clock.advance(HOUR);
    rig.wait("the rule revokes in another tenant", || requested(&case.api).contains(&301));
    assert!(!rig.revocations().iter().any(|row| row.starts_with("grant-2") && row.ends_with("stopped")));
    rig.stop();
}

#[test]
fn refuted_revocations_stop_their_rule() {
    let case = Case::new();
    let rig = case.start();
    let refuted = |tenant: &str, at: i64| Refutation {
        tenant: tenant.to_owned(),
        rule: RuleId::NewCountry,
        at: START + at,
        is_of_known_tenant: true,
    };
    // Feedback that cannot be read stops nothing.
    case.clock.advance(HOUR);
    rig.take(&[by(RuleId::NewCountry, 1)]);
    rig.settled();
    assert_eq!(requested(&case.api), [1]);
    // Many refutations in one tenant stop the rule there only.
    *case.given.0.lock().expect("a lock") = Some((0..9).map(|at| refuted("acme", at)).collect());
    case.clock.advance(HOUR);
    rig.until("the rule is stopped", |_| case.log.stops().len() == 1);
    case.clock.advance(HOUR);
    rig.take(&[by(RuleId::NewCountry, 2), of("other", by(RuleId::NewCountry, 3))]);
    rig.settled();
    assert_eq!((requested(&case.api), rig.outbox.held()), (vec![1, 3], 1));
    assert!(case.notices()[0].contains("because people refuted its revocations for 9 users"), "{:?}", case.notices());
    // Feedback that cannot be read lifts nothing either.
    *case.given.0.lock().expect("a lock") = None;
    case.clock.advance(HOUR);
    rig.settled();
    assert_eq!((case.log.stops().len(), rig.outbox.held()), (1, 1));
    // The same refutations stop nothing after a person has lifted the stop.
    case.log.lift(case.clock.now_millis(), Waiting::Requested);
    *case.given.0.lock().expect("a lock") = Some((0..9).map(|at| refuted("acme", at)).collect());
    rig.until("it is requested", |_| requested(&case.api) == [1, 3, 2]);
    case.clock.advance(HOUR);
    rig.settled();
    assert_eq!(case.log.stops(), []);
    // Refutations in three known tenants stop the rule everywhere.
    *case.given.0.lock().expect("a lock") = Some(["a", "b", "c"].map(|tenant| refuted(tenant, 0)).into());
    case.clock.advance(HOUR);
    rig.until("the rule is stopped in all tenants", |_| case.log.stops().len() == 1);
    assert_eq!(case.log.stops()[0].1.stop.cause, BreakerCause::RefutedIn { tenants: 3 });
    rig.take(&[of("other", by(RuleId::NewCountry, 4)), of("other", by(RuleId::NewIp, 5))]);
    rig.settled();
    assert_eq!(requested(&case.api), [1, 3, 2, 5]);
    rig.stop();
}

#[test]
fn many_stops_of_a_tenant_stop_the_tenant() {
    let limits = Limits { of_rule: Some(90), of_rule_total: Some(90), of_application: Some(1), ..Limits::new(90, 100) };
    let settings = BreakerSettings { full_hours: 1, ..BreakerSettings::default() };
    let case = Case { settings, limits, ..Case::new() };
    let rig = case.start();
    // Two revocations of each of 22 applications.
    let of_app = |number: u64| Incident { app_id: format!("app-{}", number / 2), ..incident(number, Mode::Enforce) };
    rig.take(&(2..46).map(of_app).collect::<Vec<_>>());
    rig.settled();
    rig.until("the stops are in their log", |_| case.log.stops().len() == 21);
    let scopes: Vec<_> = case.log.stops().into_iter().map(|(_, state)| state.stop.scope).collect();
    assert_eq!(scopes.iter().filter(|scope| scope.application.is_none()).count(), 1, "{scopes:?}");
    // The tenant was stopped after one request for the last application.
    rig.take(&[incident(100, Mode::Enforce), of("other", incident(101, Mode::Enforce))]);
    rig.settled();
    let made = requested(&case.api);
    assert!(made.contains(&101) && !made.contains(&100), "{made:?}");
    rig.stop();
}

#[test]
fn lift_leaves_waiting_revocations_to_people() {
    for lifted in [true, false] {
        let case = Case::new();
        let rig = case.start();
        rig.take(&(1..=5).map(|number| by(RuleId::NewCountry, number)).collect::<Vec<_>>());
        rig.settled();
        case.pass(&rig, 2, 1);
        assert_eq!(rig.outbox.held(), 2);
        let rig = if lifted {
            rig.until("the stop is in its log", |_| case.log.stops().len() == 1);
            case.log.lift(case.clock.now_millis(), Waiting::Proposed);
            rig
        } else {
            // Without a lift: a restart in the mode alert.
            rig.stop();
            let parts = (|| webhook(&case.hook), Some(revoker(&case.api, "by_id")));
            let settings = Settings { mode: Mode::Alert, ..quick() };
            Rig::open(Arc::clone(&case.clock), case.folder.path(), parts, settings, |outbox| outbox)
        };
        let proposed = |rows: &[ActionRow]| rows.iter().filter(|row| row.outcome == ActionOutcome::Proposed).count();
        rig.until("the others are proposed", |rows| proposed(rows) == 2);
        case.clock.advance(HOUR);
        rig.settled();
        assert_eq!((requested(&case.api), rig.outbox.held()), (vec![1, 2, 3], 0));
        if lifted {
            rig.take(&[by(RuleId::NewCountry, 6)]);
            rig.settled();
            assert_eq!(requested(&case.api), [1, 2, 3, 6]);
        }
        rig.stop();
    }
}

#[test]
fn lift_of_a_wrong_clock_has_no_effect() {
    let case = Case::new();
    let rig = case.start();
    rig.take(&(1..=5).map(|number| by(RuleId::NewCountry, number)).collect::<Vec<_>>());
    rig.settled();
    case.pass(&rig, 2, 1);
    rig.until("the stop is in its log", |_| case.log.stops().len() == 1);
    case.log.lift(case.clock.now_millis() + 86_400_000, Waiting::Requested);
    // The limit has room, and the lift is still in the future.
    case.clock.advance(HOUR);
    rig.settled();
    assert_eq!((requested(&case.api).len(), rig.outbox.held()), (3, 2));
    assert!(!rig.store.actions().iter().any(|row| row.kind == "breaker_lift"));
    rig.stop();
}

#[test]
fn breaker_that_is_turned_off_stops_nothing() {
    let mut case = Case::new();
    let rig = case.start();
    rig.take(&(1..=5).map(|number| by(RuleId::NewCountry, number)).collect::<Vec<_>>());
    rig.settled();
    case.pass(&rig, 2, 1);
    assert_eq!(rig.outbox.held(), 2);
    rig.stop();
    case.settings.full_hours = 0;
    let rig = case.start();
    case.pass(&rig, 2, 1);
    assert_eq!(requested(&case.api), [1, 2, 3, 4, 5]);
    rig.stop();
}
