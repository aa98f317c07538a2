//! The hourly limits of revocations.

use super::*;

#[test]
fn cap_on_revocations_outlasts_a_restart() {
    let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    let settings = Settings { revocations_per_hour_max: 2, ..quick() };
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&web, "rfc7009")), settings.clone());
    rig.take(&[1, 2, 3].map(|number| incident(number, Mode::Enforce)));
    rig.settled();
    rig.stop();
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&web, "rfc7009")), settings);
    rig.take(&[incident(4, Mode::Enforce)]);
    let trail = rig.settled();
    assert!(trail.contains(&"revoke_family capped".to_owned()), "{trail:?}");
    assert_eq!(web.requests().len(), 2);
    let notices = hook.requests().iter().filter(|request| request.body.contains("The cap on revocations")).count();
    assert_eq!(notices, 1, "one per hour");
    rig.stop();
}

#[test]
fn capped_revocation_is_requested_later() {
    let (folder, api, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    let settings = Settings { revocations_per_hour_max: 2, ..quick() };
    let clock = TestClock::start();
    let start = || {
        let channel = || webhook(&hook);
        Rig::start_at(Arc::clone(&clock), folder.path(), channel, Some(revoker(&api, "by_id")), settings.clone())
    };
    let rig = start();
    rig.take(&[1, 2, 3, 4, 5].map(|number| incident(number, Mode::Enforce)));
    rig.settled();
    assert_eq!((api.requests().len(), rig.outbox.held()), (2, 3));
    rig.stop();
    let rig = start();
    clock.advance(Duration::from_secs(3_500));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(api.requests().len(), 2, "the hour is not over");
    clock.advance(Duration::from_secs(100));
    rig.wait("two more revocations are done", || rig.revocations() == ["grant-3 done", "grant-4 done"]);
    // A new revocation waits behind those that wait already.
    rig.take(&[incident(6, Mode::Enforce)]);
    clock.advance(Duration::from_secs(3_600));
    rig.wait("the others are done", || api.requests().len() == 6);
    rig.settled();
    let sent = messages(&hook).iter().filter(|(_, message)| message["incident_id"] == "INC-0000000000000005").count();
    assert_eq!(sent, 2, "one message for capped, one for done");
    assert_eq!(rig.outbox.held(), 0);
    rig.stop();
}

#[test]
fn cap_of_one_tenant_does_not_affect_others() {
    let (folder, api) = (tempfile::tempdir().expect("a folder"), Web::start());
    let settings = Settings { revocations_per_hour_max: 2, revocations_per_hour_total_max: 5, ..quick() };
    let rig = Rig::start(folder.path(), Vec::new, Some(revoker(&api, "by_id")), settings);
    let of = |tenant: &str, number: u64| Incident { tenant_id: tenant.to_owned(), ..incident(number, Mode::Enforce) };
    rig.take(&(1..=10).map(|number| of("attacker", number)).collect::<Vec<_>>());
    rig.take(&[of("acme", 11), of("acme", 12), of("other", 13), of("other", 14)]);
    rig.settled();
    let mut made: Vec<_> = api.requests().iter().map(|request| request.path.clone()).collect();
    made.sort();
    let expected = [1, 2, 11, 12, 13].map(|number| format!("/tokens/grant-{number}"));
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(made, expected, "two per tenant, until the total is reached");
    rig.stop();
}

#[test]
fn revocation_of_a_user_counts_as_five() {
    let (folder, api) = (tempfile::tempdir().expect("a folder"), Web::start());
    let users = format!("preset = 'google_workspace_sign_out'\nradius = 'user'\nurl = '{}'\ntoken = 'x'", api.url);
    let users: HttpRevokerSettings = toml::from_str(&users).expect("settings");
    let users = Arc::new(HttpRevoker::new(&users, clock()).expect("settings"));
    let settings = Settings { revocations_per_hour_max: 9, ..quick() };
    let rig = Rig::start(folder.path(), Vec::new, Some(users), settings);
    rig.take(&[1, 2].map(|number| incident(number, Mode::Enforce)));
    rig.settled();
    assert_eq!(rig.revocations(), ["grant-1 done", "grant-2 capped"]);
    assert_eq!(api.requests()[0].path, "/admin/directory/v1/users/ana%20%3Cb%3E/signOut");
    rig.stop();
}

#[test]
fn invented_tenants_share_one_cap() {
    let (folder, api) = (tempfile::tempdir().expect("a folder"), Web::start());
    let settings = Settings { revocations_per_hour_max: 2, revocations_per_hour_total_max: 5, ..quick() };
    let rig = Rig::start(folder.path(), Vec::new, Some(revoker(&api, "by_id")), settings);
    let invented = |number: u64| Incident {
        tenant_id: format!("invented-{number}"),
        tenant_is_new: true,
        ..incident(number, Mode::Enforce)
    };
    rig.take(&(1..=10).map(invented).collect::<Vec<_>>());
    rig.take(&[incident(11, Mode::Enforce), incident(12, Mode::Enforce)]);
    rig.settled();
    let mut made: Vec<_> = api.requests().iter().map(|request| request.path.clone()).collect();
    made.sort();
    assert_eq!(made, [1, 11, 12, 2].map(|number| format!("/tokens/grant-{number}")));
    assert_eq!(rig.outbox.held(), 8);
    rig.stop();
}
