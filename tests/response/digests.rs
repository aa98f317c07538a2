//! The limit of messages, and the digest of the alerts beyond it.

use super::*;

/// Titles of the digests that `web` got.
fn digests_of(web: &Web) -> Vec<String> {
    let titles = web.requests().into_iter().filter_map(|asked| {
        let body: serde_json::Value = serde_json::from_str(&asked.body).ok()?;
        body["message"].as_str().filter(|title| title.starts_with("Digest")).map(str::to_owned)
    });
    titles.collect()
}

#[test]
fn flood_becomes_one_digest_per_channel_and_interval() {
    let (folder, soc, oncall) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    let limits = BTreeMap::from([("soc".to_owned(), digest(10)), ("oncall".to_owned(), digest(5))]);
    let both = || vec![named("soc", &soc), named("oncall", &oncall)];
    let rig = Rig::limited(folder.path(), both, limits, TestClock::start());
    let collected = |kind: &str| {
        let rows = rig.store.actions();
        rows.iter().filter(|row| row.kind == kind && row.outcome == ActionOutcome::Collected).count()
    };
    for batch in 0..10 {
        let incidents: Vec<_> = (1..=1_000).map(|number| minor(batch * 1_000 + number)).collect();
        rig.take(&incidents);
        assert!(rig.outbox.waiting() <= 21_000, "{}", rig.outbox.waiting());
    }
    rig.wait("nothing waits", || rig.outbox.waiting() == 0);
    rig.wait("all are sent or collected", || collected("alert_soc") == 9_990 && collected("alert_oncall") == 9_995);
    assert_eq!((soc.requests().len(), oncall.requests().len()), (10, 5));
    // A verdict `revoke`, and an alert that is grave enough, are sent at once.
    let grave = Incident { severity: Severity::High, ..minor(20_002) };
    rig.take(&[incident(20_001, Mode::Shadow), grave]);
    soc.wait_for(12);
    oncall.wait_for(7);
    rig.wait("nothing waits", || rig.outbox.waiting() == 0);
    rig.clock.advance(Duration::from_secs(899));
    assert_eq!((digests_of(&soc).len(), digests_of(&oncall).len()), (0, 0));
    rig.clock.advance(Duration::from_secs(1));
    soc.wait_for(13);
    oncall.wait_for(8);
    assert_eq!(digests_of(&soc), ["Digest of 9,990 alerts in 15 min, highest severity: medium"]);
    assert_eq!(digests_of(&oncall), ["Digest of 9,995 alerts in 15 min, highest severity: medium"]);
    // The next interval of the same hour.
    rig.wait("nothing waits", || rig.outbox.waiting() == 0);
    rig.take(&[minor(30_001), minor(30_002)]);
    rig.wait("both are collected", || collected("alert_soc") == 9_992 && collected("alert_oncall") == 9_997);
    rig.clock.advance(Duration::from_secs(900));
    soc.wait_for(14);
    oncall.wait_for(9);
    assert_eq!(digests_of(&soc).len() + digests_of(&oncall).len(), 4);
    // After an hour, alerts are sent one by one again.
    rig.clock.advance(Duration::from_secs(3_600));
    rig.take(&[minor(40_001)]);
    soc.wait_for(15);
    assert!(incidents_of(&soc).contains(&IncidentId(40_001).to_string()));
    rig.stop();
}

#[test]
fn digest_outlasts_a_restart() {
    let (folder, soc) = (tempfile::tempdir().expect("a folder"), Web::start());
    let start = |clock| {
        let limits = BTreeMap::from([("soc".to_owned(), digest(1))]);
        Rig::limited(folder.path(), || vec![named("soc", &soc)], limits, clock)
    };
    let rig = start(TestClock::start());
    rig.take(&[minor(1), minor(2), minor(3)]);
    soc.wait_for(1);
    rig.wait("two are collected", || rig.trail().len() == 3);
    let clock = Arc::clone(&rig.clock);
    rig.stop();
    let rig = start(clock);
    rig.clock.advance(Duration::from_secs(900));
    soc.wait_for(2);
    assert_eq!(digests_of(&soc), ["Digest of 2 alerts in 15 min, highest severity: medium"]);
    // The end of the input does not wait for the interval.
    rig.take(&[minor(4), minor(5)]);
    rig.settled();
    // The first digest was a message, too, so that both are collected.
    assert_eq!(digests_of(&soc)[1..], ["Digest of 2 alerts in 1 min, highest severity: medium"]);
    rig.stop();
}

#[test]
fn flood_of_incidents_loses_nothing_and_revokes_once() {
    const REVOKED: u64 = 50;
    let (folder, soc, api) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    let limits = BTreeMap::from([("soc".to_owned(), digest(10))]);
    let settings = Settings { limits: of_tenants(20, 100), ..quick() };
    let clock = TestClock::start();
    let channels = || vec![named("soc", &soc)];
    let rig =
        Rig::open(Arc::clone(&clock), folder.path(), (channels, Some(revoker(&api, "by_id"))), settings, |outbox| {
            outbox.with_digests(limits)
        });
    // 10,000 incidents within a minute, of which 50 revoke.
    let revokes = |number: u64| number.is_multiple_of(10_000 / REVOKED);
    for batch in 0..10 {
        let number = |index: u64| batch * 1_000 + index;
        let of = |number: u64| if revokes(number) { incident(number, Mode::Enforce) } else { minor(number) };
        rig.take(&(1..=1_000).map(|index| of(number(index))).collect::<Vec<_>>());
        clock.advance(Duration::from_secs(6));
    }
    let reported = || {
        let rows = rig.store.actions();
        let rows = rows.iter().filter(|row| row.kind == "alert_soc");
        let rows = rows.filter(|row| matches!(row.outcome, ActionOutcome::Done | ActionOutcome::Collected));
        rows.map(|row| row.incident_id.clone()).filter(|id| !id.is_empty()).collect::<BTreeSet<_>>()
    };
    rig.wait("every incident is sent or collected", || reported().len() == 10_000);
    rig.wait("nothing waits", || rig.outbox.waiting() == 0);
    assert_eq!((api.requests().len(), rig.outbox.held()), (20, 30), "the limit of the tenant");
    assert_eq!(digests_of(&soc).len(), 0);
    clock.advance(Duration::from_secs(900));
    rig.wait("the digest is sent", || digests_of(&soc).len() == 1);
    for requested in [40, 50] {
        clock.advance(Duration::from_secs(3_600));
        rig.wait("the next are requested", || api.requests().len() == requested && rig.outbox.waiting() == 0);
    }
    clock.advance(Duration::from_secs(3_600));
    rig.settled();
    let requests = api.requests();
    let keys: BTreeSet<_> = requests.iter().map(|request| request.header("idempotency-key")).collect();
    assert_eq!((requests.len(), keys.len(), rig.outbox.held()), (50, 50, 0), "each is requested once");
    assert_eq!(digests_of(&soc).len(), 1);
    rig.stop();
}
