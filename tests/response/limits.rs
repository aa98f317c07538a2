//! The hourly limits of revocations.

use super::*;

/// Revocation `number` by `rule`.
pub(super) fn by(rule: RuleId, number: u64) -> Incident {
    let of_rule = incident(number, Mode::Enforce);
    let signals = of_rule.signals.iter().map(|signal| Signal { rule, ..signal.clone() }).collect();
    Incident { signals, ..of_rule }
}

/// Numbers of the grants that were requested at `api`, in order.
pub(super) fn requested(api: &Web) -> Vec<u64> {
    let requests = api.requests();
    let numbers = requests.iter().filter_map(|request| request.path.rsplit_once('-')?.1.parse().ok());
    numbers.collect()
}

#[test]
fn cap_on_revocations_outlasts_a_restart() {
    let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    let settings = Settings { limits: of_tenants(2, 100), ..quick() };
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
    let settings = Settings { limits: of_tenants(2, 100), ..quick() };
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
    let settings = Settings { limits: of_tenants(2, 5), ..quick() };
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
    let settings = Settings { limits: of_tenants(9, 100), ..quick() };
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
    let settings = Settings { limits: of_tenants(2, 5), ..quick() };
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

#[test]
fn flood_of_one_rule_leaves_room_for_others() {
    let (folder, api, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    let clock = TestClock::start();
    let start = || {
        let settings = Settings { limits: Limits::new(4, 10), ..quick() };
        let channel = || webhook(&hook);
        Rig::start_at(Arc::clone(&clock), folder.path(), channel, Some(revoker(&api, "by_id")), settings)
    };
    let rig = start();
    rig.take(&(1..=9).map(|number| by(RuleId::NewCountry, number)).collect::<Vec<_>>());
    rig.settled();
    assert_eq!(requested(&api), [1, 2], "half of the tenant's limit");
    rig.stop();
    // The counts outlast a restart, and another rule does not wait behind those that are capped.
    let rig = start();
    rig.take(&[by(RuleId::NewCountry, 10), by(RuleId::RefreshReuse, 11), by(RuleId::NewClient, 12)]);
    rig.settled();
    assert_eq!(requested(&api), [1, 2, 11, 12]);
    let reason = |grant: &str| {
        let rows = rig.store.actions().into_iter();
        rows.filter(|row| row.target == grant).map(|row| row.reason).collect::<Vec<_>>()
    };
    let of_rule = "the limit of 2 revocations per hour of this rule in one tenant (revoke.limits.rule) is reached";
    assert_eq!(reason("grant-10"), [of_rule]);
    let notices: Vec<_> = hook.requests().into_iter().map(|request| request.body).collect();
    let notices: Vec<_> = notices.iter().filter(|body| body.contains("A limit of a rule is reached")).collect();
    assert_eq!(notices.len(), 1, "one per hour");
    assert!(
        notices[0].contains("by the rule new_country in one tenant") && notices[0].contains("7 wait"),
        "{notices:?}"
    );
    // The next hour: two more of the rule, and no more than that.
    clock.advance(Duration::from_secs(3_600));
    rig.wait("two more are requested", || requested(&api).len() == 6);
    rig.settled();
    assert_eq!(requested(&api), [1, 2, 11, 12, 3, 4]);
    rig.stop();
}

#[test]
fn rule_has_one_limit_in_all_tenants() {
    let (folder, api) = (tempfile::tempdir().expect("a folder"), Web::start());
    let limits = Limits { of_rule: Some(4), of_rule_total: Some(3), ..Limits::new(4, 6) };
    let rig = Rig::start(folder.path(), Vec::new, Some(revoker(&api, "by_id")), Settings { limits, ..quick() });
    let of = |tenant: &str, incident: Incident| Incident { tenant_id: tenant.to_owned(), ..incident };
    rig.take(&[1, 2, 3, 4].map(|number| of(["a", "b"][number as usize % 2], by(RuleId::NewIp, number))));
    rig.take(&[of("c", by(RuleId::NewIp, 5)), of("c", by(RuleId::NewClient, 6)), of("d", by(RuleId::NewClient, 7))]);
    rig.settled();
    assert_eq!(requested(&api), [1, 2, 3, 6, 7]);
    rig.stop();
}

#[test]
fn application_has_the_limit_of_its_name() {
    let (folder, api, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    let limits = Limits {
        of_application: Some(2),
        applications: BTreeMap::from([("crm".to_owned(), 1), ("off".to_owned(), 0)]),
        ..of_tenants(9, 20)
    };
    let settings = Settings { limits, ..quick() };
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&api, "by_id")), settings);
    let of = |app: &str, number: u64| Incident { app_id: app.to_owned(), ..incident(number, Mode::Enforce) };
    rig.take(&[of("crm", 1), of("crm", 2), of("erp", 3), of("erp", 4), of("erp", 5), of("off", 6)]);
    rig.take(&[Incident { tenant_id: "other".to_owned(), ..of("crm", 7) }]);
    rig.settled();
    assert_eq!(requested(&api), [1, 3, 4, 7], "the applications of two tenants are two applications");
    let reason = |grant: &str| rig.store.actions().into_iter().find(|row| row.target == grant).map(|row| row.reason);
    for (grant, cap, key) in [("grant-2", 1, "applications.crm"), ("grant-5", 2, "application")] {
        let text =
            format!("the limit of {cap} revocations per hour of this application (revoke.limits.{key}) is reached");
        assert_eq!(reason(grant), Some(text));
    }
    let notices = hook.requests().into_iter().map(|request| request.body);
    let notices: Vec<_> = notices.filter(|body| body.contains("A limit of an application")).collect();
    assert_eq!(notices.len(), 1, "one for all applications per hour");
    assert!(notices[0].contains("(revoke.limits.applications.crm)"), "{notices:?}");
    rig.clock.advance(Duration::from_secs(3_600));
    rig.wait("the held ones are requested", || requested(&api).len() == 6);
    rig.settled();
    assert_eq!((requested(&api).split_off(4), rig.outbox.held()), (vec![2, 5], 1), "0 stops the application");
    rig.stop();
}
