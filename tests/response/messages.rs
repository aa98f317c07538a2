//! The messages about one incident: when, and with what content.

use super::*;

#[test]
fn victims_that_join_are_reported_once_a_minute() {
    let (folder, hook) = (tempfile::tempdir().expect("a folder"), Web::start());
    let clock = TestClock::start();
    let channel = || webhook_at(&hook, Arc::clone(&clock) as _);
    let rig = Rig::start_at(Arc::clone(&clock), folder.path(), channel, None, quick());
    let join = |victim| {
        let alert = joined(7, victim, Mode::Shadow);
        rig.take(&[Incident { revoke: None, action: Action::Alert, ..alert }]);
    };
    join(1);
    hook.wait_for(1);
    rig.wait("the delivery is recorded", || rig.outbox.waiting() == 0);
    join(2);
    clock.advance(Duration::from_secs(5));
    hook.wait_for(2);
    rig.wait("the delivery is recorded", || rig.outbox.waiting() == 0);
    // 48 more, one per second. The minute since the last message ends at second 65.
    for victim in 3..=50 {
        clock.advance(Duration::from_secs(1));
        join(victim);
    }
    clock.advance(Duration::from_secs(11));
    std::thread::sleep(Duration::from_millis(100));
    clock.advance(Duration::from_secs(1));
    hook.wait_for(3);
    rig.wait("the delivery is recorded", || rig.outbox.waiting() == 0);
    let messages = messages(&hook);
    assert_eq!(messages.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 5, 65], "50 victims make 3 messages");
    let new = |message: usize| grants(&messages[message].1, "victims_new", "family_id");
    assert_eq!((new(0), new(1)), (vec!["grant-1".to_owned()], vec!["grant-2".to_owned()]));
    assert_eq!(new(2), (3..=50).map(|victim| format!("grant-{victim}")).collect::<Vec<_>>());
    assert_eq!(messages[2].1["victims_total"], 50);
    rig.stop();
}

#[test]
fn severity_that_rises_is_reported_at_once() {
    let (folder, hook) = (tempfile::tempdir().expect("a folder"), Web::start());
    let rig = Rig::start(folder.path(), || webhook(&hook), None, quick());
    let alert = Incident { revoke: None, ..incident(7, Mode::Shadow) };
    rig.take(std::slice::from_ref(&alert));
    hook.wait_for(1);
    rig.wait("the delivery is recorded", || rig.outbox.waiting() == 0);
    rig.take(&[Incident { severity: Severity::Critical, ..changed(alert, 8) }]);
    hook.wait_for(2);
    rig.stop();
}

#[test]
fn outcome_of_each_revocation_is_reported() {
    let (folder, api, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    api.answer(&[200, 404, 403, 200]);
    let clock = TestClock::start();
    let channel = || webhook_at(&hook, Arc::clone(&clock) as _);
    let settings = Settings { limits: of_tenants(4, 100), ..quick() };
    let rig = Rig::start_at(Arc::clone(&clock), folder.path(), channel, Some(revoker(&api, "by_id")), settings);
    rig.take(&[joined(7, 1, Mode::Enforce)]);
    hook.wait_for(1);
    for victim in 2..=5 {
        rig.take(&[joined(7, victim, Mode::Enforce)]);
    }
    rig.wait("all revocations have an outcome", || rig.revocations().len() == 5);
    clock.advance(Duration::from_secs(10));
    rig.wait("all outcomes are reported", || rig.outbox.waiting() == 0);
    let messages = messages(&hook);
    assert_eq!(messages.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 10]);
    let last = &messages[1].1;
    let mut outcomes: Vec<_> = grants(last, "revocations", "id")
        .into_iter()
        .zip(grants(last, "revocations", "revocation"))
        .map(|(id, outcome)| format!("{id} {outcome}"))
        .collect();
    assert_eq!(outcomes.pop().as_deref(), Some("grant-1 done"), "the outcome was reported before");
    assert_eq!(outcomes, ["grant-2 already_gone", "grant-3 failed", "grant-4 done", "grant-5 capped"]);
    assert_eq!((&last["revocations_done"], &last["revocations_not_done"]), (&3.into(), &2.into()));
    let notices = hook.requests().len() - messages.len();
    assert_eq!(notices, 1, "one notice about the limit");
    rig.stop();
}

#[test]
fn incident_does_not_delay_another_tenant() {
    let (folder, hook) = (tempfile::tempdir().expect("a folder"), Web::start());
    let rig = Rig::start(folder.path(), || webhook(&hook), None, quick());
    for victim in 1..=20 {
        let decoy = Incident { tenant_id: "decoys".to_owned(), revoke: None, ..joined(6, victim, Mode::Shadow) };
        rig.take(&[decoy]);
    }
    rig.take(&[Incident { revoke: None, ..incident(7, Mode::Shadow) }]);
    let found = eventually(PATIENCE, "both are reported", || {
        let tenants: Vec<_> = messages(&hook).iter().map(|(_, message)| message["tenant_id"].clone()).collect();
        tenants.contains(&"acme".into()).then_some(tenants.len())
    });
    assert_eq!(found, Some(2), "the clock is not advanced");
    rig.stop();
}
