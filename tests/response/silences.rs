//! Silences withhold alerts, and nothing else.

use std::sync::{Mutex, Weak};

use tokenwarden::deliver::Silences;
use tokenwarden::port::{
    RecordLog, RecordObserver, Scope, Silence, SilenceId, SilenceKey, SilenceLimits, SilenceRecord, SilenceState,
    WithheldCount,
};

use super::*;

/// A log in memory, that all members of a test share.
#[derive(Default)]
struct Log {
    records: Mutex<Vec<SilenceRecord>>,
    observers: Mutex<Vec<Weak<dyn RecordObserver<SilenceRecord>>>>,
    /// The log cannot be read.
    fails: bool,
}

impl Log {
    fn put(&self, record: &SilenceRecord) {
        self.records.lock().expect("a lock").push(record.clone());
        for observer in self.observers.lock().expect("a lock").iter().filter_map(Weak::upgrade) {
            observer.record(record.clone());
        }
    }

    fn silence(&self, id: u64, scope: Scope, until: i64) {
        self.silence_at(id, scope, START, until);
    }

    fn silence_at(&self, id: u64, scope: Scope, at: i64, until: i64) {
        let silence = Silence { scope, by: "ana".to_owned(), reason: "a test".to_owned(), at, until };
        self.state(id, SilenceState::Added(silence));
    }

    fn state(&self, id: u64, state: SilenceState) {
        self.put(&SilenceRecord { key: SilenceKey { silence: SilenceId(id), member: String::new() }, state });
    }

    /// The last count of each member.
    fn counts(&self) -> BTreeMap<String, WithheldCount> {
        let records = self.records.lock().expect("a lock");
        let counts = records.iter().filter_map(|record| match record.state {
            SilenceState::Withheld(count) => Some((record.key.member.clone(), count)),
            _ => None,
        });
        counts.collect()
    }
}

#[async_trait]
impl RecordLog<SilenceRecord> for Log {
    async fn append(&self, record: SilenceRecord) -> Result<(), String> {
        self.put(&record);
        Ok(())
    }

    async fn remove(&self, _: &SilenceKey) -> Result<(), String> {
        Ok(())
    }

    fn follow(&self, observer: Arc<dyn RecordObserver<SilenceRecord>>) {
        if self.fails {
            return observer.read_failed();
        }
        for record in self.records.lock().expect("a lock").iter() {
            observer.record(record.clone());
        }
        observer.all_read();
        self.observers.lock().expect("a lock").push(Arc::downgrade(&observer));
    }
}

fn rig(folder: &Path, hook: &Web, log: &Arc<Log>, revoker: Option<Arc<dyn Revoker>>) -> Rig {
    let clock = TestClock::start();
    let silences = Silences::follow(Arc::clone(log) as _, Arc::clone(&clock) as _, SilenceLimits::default());
    Rig::open(clock, folder, (|| webhook(hook), revoker), quick(), |outbox| outbox.with_silences(Some(silences)))
}

/// An end that members accept.
const LATEST: i64 = START + 30 * 86_400_000;

fn of_rule(rule: RuleId) -> Scope {
    Scope { rules: [rule].into(), ..Scope::default() }
}

/// The incident, whose last event fired `rule`.
fn fired(rule: RuleId, incident: Incident) -> Incident {
    Incident { signals: vec![Signal { rule, ..incident.signals[0].clone() }], ..incident }
}

/// A minor incident that grant number `victim` joins.
fn minor_joined(number: u64, victim: u64) -> Incident {
    let Incident { severity, verdict, action, revoke, .. } = minor(number);
    Incident { severity, verdict, action, revoke, ..joined(number, victim, Mode::Alert) }
}

fn user() -> Scope {
    Scope { user: Some("ana <b>".to_owned()), ..Scope::default() }
}

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn silence_withholds_alerts_until_its_end() {
    let (folder, hook, log) = (tempfile::tempdir().expect("a folder"), Web::start(), Arc::new(Log::default()));
    log.silence(7, user(), START + 3_600_000);
    let silenced = rig(folder.path(), &hook, &log, None);
    let other = Incident { user_id: "bob".to_owned(), ..minor(3) };
    silenced.take(&[minor(1), minor(2), other, changed(minor(1), 9)]);
    silenced.notify("caps", "the caps are reached");
    let withheld = |rig: &Rig| rig.trail().iter().filter(|line| *line == "alert_webhook silenced").count();
    silenced.wait("the alerts are withheld", || withheld(&silenced) == 2);
    silenced.wait("others are sent", || hook.requests().len() == 2);
    assert_eq!(incidents_of(&hook), ids(&[3]), "another user, and a notice");
    let row = silenced.store.actions().into_iter().find(|row| row.outcome == ActionOutcome::Silenced).expect("a row");
    assert_eq!(row.reason, "withheld by the silence SIL-0000000000000007");
    assert!(silenced.metrics.text().contains("tokenwarden_silences_active 1"));
    assert!(silenced.metrics.text().contains("tokenwarden_alerts_total{channel=\"webhook\",outcome=\"silenced\"} 2"));
    silenced.until("the count is written", |_| log.counts().len() == 1);
    silenced.stop();

    // The outbox has the count after a restart.
    let silenced = rig(folder.path(), &hook, &log, None);
    silenced.take(&[minor(4)]);
    silenced.wait("the alert is withheld", || withheld(&silenced) == 1);
    silenced.clock.advance(HOUR);
    silenced.take(&[minor(5)]);
    silenced.wait("the end is reported, and alerts are sent", || hook.requests().len() == 4);
    assert_eq!(incidents_of(&hook), ids(&[3, 5]));
    let summaries: Vec<_> = hook.requests().into_iter().filter(|asked| asked.body.contains("SIL-")).collect();
    assert_eq!(summaries.len(), 1);
    let text = "SIL-0000000000000007 withheld 3 alerts about 3 incidents. The highest log-odds are 8.1.";
    assert!(summaries[0].body.contains(text), "{}", summaries[0].body);
    silenced.until("the count is written", |_| log.counts().values().any(|count| count.alerts == 3));
    assert_eq!(log.counts().len(), 1, "the name of the outbox outlasts a restart");
    silenced.clock.advance(HOUR);
    silenced.settled();
    assert_eq!(hook.requests().len(), 4, "the end is reported once");
    silenced.stop();
}

#[test]
fn silence_is_compared_with_every_unsent_change() {
    let (folder, hook, log) = (tempfile::tempdir().expect("a folder"), Web::start(), Arc::new(Log::default()));
    log.silence(7, of_rule(RuleId::NewIp), LATEST);
    let rig = rig(folder.path(), &hook, &log, None);
    // Another rule fired for the first victim. Both changes are due in one message.
    let theft = fired(RuleId::RefreshReuse, minor_joined(1, 1));
    rig.take(&[theft, fired(RuleId::NewIp, minor_joined(1, 2))]);
    rig.settled();
    assert_eq!(incidents_of(&hook), ids(&[1]), "the rule of the last change does not hide that of the first");
    // Once a message was sent, only later changes count.
    rig.take(&[fired(RuleId::NewIp, minor_joined(1, 3))]);
    rig.settled();
    assert_eq!(incidents_of(&hook), ids(&[1]));
    rig.take(&[fired(RuleId::NewClient, minor_joined(1, 4))]);
    rig.settled();
    assert_eq!(incidents_of(&hook), ids(&[1, 1]));
    let last = hook.requests().pop().expect("a request").body;
    let body: serde_json::Value = serde_json::from_str(&last).expect("JSON");
    let new = body["incident"]["victims_new"].as_array().expect("a list").iter();
    let grants: Vec<_> = new.map(|victim| victim["family_id"].as_str().expect("a grant")).collect();
    assert_eq!(grants, ["grant-3", "grant-4"], "a withheld victim is in the next message");
    rig.stop();
}

#[test]
fn change_of_another_user_is_not_hidden_by_a_later_one() {
    let (folder, hook, log) = (tempfile::tempdir().expect("a folder"), Web::start(), Arc::new(Log::default()));
    log.silence(7, user(), LATEST);
    let rig = rig(folder.path(), &hook, &log, None);
    // The grant was first seen with the user of the silence, so the list of victims names only this user.
    let of_other = Incident { user_id: "bob".to_owned(), ..changed(minor(1), 9) };
    rig.take(&[minor(1), of_other, changed(minor(1), 10)]);
    rig.settled();
    assert_eq!(incidents_of(&hook), ids(&[1]));
    rig.stop();
}

#[test]
fn silence_of_an_incident_ends_when_it_gets_graver() {
    let rises: [fn(Incident) -> Incident; 3] = [
        |incident| Incident { severity: Severity::High, ..incident },
        |incident| Incident { verdict: Verdict::Revoke, ..incident },
        |incident| fired(RuleId::RefreshReuse, incident),
    ];
    for rise in rises {
        let (folder, hook, log) = (tempfile::tempdir().expect("a folder"), Web::start(), Arc::new(Log::default()));
        let rig = rig(folder.path(), &hook, &log, None);
        rig.take(&[minor_joined(1, 1)]);
        rig.settled();
        assert_eq!(hook.requests().len(), 1);
        let at = rig.clock.now_millis();
        log.silence_at(8, Scope { incident: Some(IncidentId(1)), ..Scope::default() }, at, at + 3_600_000);
        rig.clock.advance(Duration::from_secs(1));
        rig.take(&[minor_joined(1, 2)]);
        rig.settled();
        assert_eq!(hook.requests().len(), 1, "{:?}", rig.trail());
        rig.take(&[rise(minor_joined(1, 3))]);
        rig.settled();
        assert_eq!(incidents_of(&hook), ids(&[1, 1]));
        rig.stop();
    }
}

#[test]
fn members_refuse_silences_that_the_command_refuses() {
    let (folder, hook, log) = (tempfile::tempdir().expect("a folder"), Web::start(), Arc::new(Log::default()));
    let added = |scope: Scope, at: i64, until: i64| {
        let (by, reason) = ("ana".to_owned(), "a test".to_owned());
        Silence { scope, by, reason, at, until }
    };
    let whole = |tenant: &str| Scope { tenant: Some(tenant.to_owned()), ..Scope::default() };
    let day = 86_400_000;
    let wrong = [
        added(user(), START, i64::MAX),
        added(user(), i64::MAX - day, i64::MAX),
        added(user(), START + day, START + 2 * day),
        added(user(), i64::MIN, START + day),
        added(whole(""), START, START + day),
        added(Scope { user: Some(String::new()), ..user() }, START, START + day),
        Silence { by: String::new(), ..added(user(), START, START + day) },
        Silence { reason: " ".to_owned(), ..added(user(), START, START + day) },
    ];
    for (id, silence) in wrong.iter().enumerate() {
        log.state(id as u64, SilenceState::Added(silence.clone()));
    }
    let key = SilenceKey { silence: SilenceId(90), member: "m".to_owned() };
    log.put(&SilenceRecord { key, state: SilenceState::Added(added(user(), START, START + day)) });
    let rig = rig(folder.path(), &hook, &log, None);
    rig.take(&[Incident { tenant_id: String::new(), ..minor(1) }, minor(2)]);
    rig.settled();
    assert_eq!(incidents_of(&hook), ids(&[1, 2]));
    let refused = format!("tokenwarden_silences_refused {}", wrong.len() + 1);
    rig.until("the refused records are counted", |_| rig.metrics.text().contains(&refused));
    log.silence(7, user(), LATEST);
    rig.take(&[minor(3)]);
    rig.settled();
    assert_eq!(incidents_of(&hook), ids(&[1, 2]), "a correct one has effect");
    rig.stop();
}

#[test]
fn silence_that_a_person_ends_is_reported() {
    let (folder, hook, log) = (tempfile::tempdir().expect("a folder"), Web::start(), Arc::new(Log::default()));
    log.silence(7, user(), START + 3_600_000);
    log.silence(8, user(), START + 3_600_000);
    let rig = rig(folder.path(), &hook, &log, None);
    rig.take(&[minor(1)]);
    rig.wait("the alert is withheld", || rig.trail() == ["alert_webhook silenced"]);
    let silence = Silence { scope: user(), by: String::new(), reason: String::new(), at: START, until: i64::MAX };
    for id in [7, 8] {
        let (silence, by, reason) = (silence.clone(), "bea".to_owned(), "done".to_owned());
        log.state(id, SilenceState::Expired { silence, at: START, by, reason });
    }
    rig.until("the end is reported", |_| !hook.requests().is_empty());
    rig.take(&[minor(2)]);
    rig.settled();
    assert_eq!(incidents_of(&hook), ids(&[2]));
    assert_eq!(hook.requests().len(), 2, "a silence that withheld nothing is not reported");
    rig.stop();
}

#[test]
fn grave_alerts_and_outcomes_are_not_silenced() {
    let (folder, hook, web) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    let log = Arc::new(Log::default());
    log.silence(7, user(), LATEST);
    log.silence(8, Scope { grant: Some("grant-2".to_owned()), ..Scope::default() }, LATEST);
    let rig = rig(folder.path(), &hook, &log, Some(revoker(&web, "by_id")));
    // The severity of the first rises. The others have the verdict `revoke`, one of them for the grant of a silence.
    rig.take(&[minor(1)]);
    rig.wait("the alert is withheld", || rig.trail() == ["alert_webhook silenced"]);
    rig.take(&[Incident { severity: Severity::Critical, ..changed(minor(1), 9) }]);
    rig.wait("the change is sent", || incidents_of(&hook) == ids(&[1]));
    rig.take(&[incident(2, Mode::Alert), incident(3, Mode::Alert)]);
    rig.wait("the verdict `revoke` is sent", || incidents_of(&hook).len() == 3);
    // A silence that names the incident withholds new victims, but no outcome.
    let at = rig.clock.now_millis();
    log.silence_at(9, Scope { incident: Some(IncidentId(2)), ..Scope::default() }, at, LATEST);
    rig.take(&[joined(2, 4, Mode::Alert)]);
    rig.until("the alert is withheld", |_| {
        rig.trail().iter().filter(|line| *line == "alert_webhook silenced").count() == 2
    });
    rig.take(&[joined(2, 5, Mode::Enforce)]);
    rig.until("the revocation is done", |rows| {
        rows.iter().any(|row| row.outcome == ActionOutcome::Done && row.kind == "revoke_family")
    });
    rig.settled();
    let sent = hook.requests();
    let last: serde_json::Value = serde_json::from_str(&sent[sent.len() - 1].body).expect("JSON");
    assert_eq!((sent.len(), &last["incident"]["revocation"]), (4, &"done".into()), "the outcome is sent");
    rig.stop();
}

#[test]
fn silenced_alert_is_in_no_digest() {
    let (folder, hook, log) = (tempfile::tempdir().expect("a folder"), Web::start(), Arc::new(Log::default()));
    log.silence(7, user(), LATEST);
    let clock = TestClock::start();
    let silences = Silences::follow(Arc::clone(&log) as _, Arc::clone(&clock) as _, SilenceLimits::default());
    let limits = BTreeMap::from([("webhook".to_owned(), digest(1))]);
    let with = |outbox: Outbox| outbox.with_silences(Some(silences)).with_digests(limits);
    let rig = Rig::open(clock, folder.path(), (|| webhook(&hook), None), quick(), with);
    let other = |number| Incident { user_id: "bob".to_owned(), ..minor(number) };
    rig.take(&[other(1), other(2), minor(3), other(4), minor(5)]);
    let trail = rig.settled();
    let count = |outcome: &str| trail.iter().filter(|line| line.ends_with(outcome)).count();
    assert_eq!((count("silenced"), count("collected")), (2, 2), "{trail:?}");
    rig.stop();
}

#[test]
fn alerts_are_sent_if_silences_cannot_be_read() {
    let (folder, hook) = (tempfile::tempdir().expect("a folder"), Web::start());
    let log = Arc::new(Log { fails: true, ..Log::default() });
    log.silence(7, user(), LATEST);
    let rig = rig(folder.path(), &hook, &log, None);
    rig.take(&[minor(1)]);
    rig.until("the alert is sent", |_| incidents_of(&hook) == ids(&[1]));
    assert!(rig.health.holds(Condition::Silences, START));
    assert_eq!(rig.unready(), Vec::<String>::new(), "the service works");
    rig.stop();
}
