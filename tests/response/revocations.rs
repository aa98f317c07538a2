//! Requests to the provider, their outcomes, the mode and the pause.

use super::*;

#[test]
fn breaker_opens_on_rejected_credentials_only() {
    for (status, opens) in [(400, false), (404, false), (401, true)] {
        let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
        web.answer(&[status; 5]);
        let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&web, "rfc7009")), quick());
        rig.take(&(1..=5).map(|number| incident(number, Mode::Enforce)).collect::<Vec<_>>());
        let trail = rig.settled();
        assert_eq!(trail.iter().filter(|line| *line == "revoke_family failed").count(), 5, "{trail:?}");
        assert_eq!(rig.outbox.held(), 5, "the revocations are retried later");
        let sent = hook.requests().iter().any(|asked| asked.body.contains("Revocation requests fail"));
        assert_eq!(sent, opens, "{status}");
        rig.stop();
    }
}

#[test]
fn provider_down_for_hours_revokes_each_grant_once_afterwards() {
    let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    web.answer(&[503; 60]);
    let settings = Settings { mode: Mode::Enforce, ..Settings::default() };
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&web, "by_id")), settings);
    rig.take(&(1..=8).map(|number| incident(number, Mode::Enforce)).collect::<Vec<_>>());
    let done = eventually(PATIENCE, "every grant is revoked", || {
        rig.clock.advance(Duration::from_secs(30));
        (rig.trail().iter().filter(|line| *line == "revoke_family done").count() == 8).then_some(())
    });
    assert!(done.is_some(), "{:?}", rig.trail());
    assert!(rig.clock.now_millis() - START > 3_600_000, "{}", rig.clock.now_millis() - START);
    let mut accepted: Vec<_> = web.requests().split_off(60).into_iter().map(|request| request.path).collect();
    accepted.sort();
    assert_eq!(accepted, (1..=8).map(|number| format!("/tokens/grant-{number}")).collect::<Vec<_>>());
    let notices = hook.requests().into_iter().filter(|request| request.body.contains("Revocation requests fail"));
    assert_eq!(notices.count(), 1, "one notice until the provider answers again");
    rig.stop();
}

#[test]
fn revocation_is_retried_with_its_key_until_done() {
    let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    // The alert is sent in the meantime.
    web.answer_come_again(2);
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&web, "rfc7009")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.settled();
    // A later change of the same incident requests the same revocation.
    rig.take(&[changed(incident(7, Mode::Enforce), 8)]);
    let trail = rig.settled();
    assert_eq!(
        trail.iter().filter(|line| line.starts_with("revoke")).collect::<Vec<_>>(),
        ["revoke_family retry", "revoke_family done"]
    );
    let requests = web.requests();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/tokens"));
        assert_eq!(request.body, "token=grant-7&token_type_hint=refresh_token");
        assert_eq!(request.header("idempotency-key"), requests[0].header("idempotency-key"));
        assert!(request.header("authorization").is_some_and(|value| value.starts_with("Basic ")));
    }
    let sent: Vec<String> = hook
        .requests()
        .iter()
        .map(|request| {
            let body: serde_json::Value = serde_json::from_str(&request.body).expect("JSON");
            body["incident"]["revocation"].as_str().expect("a string").to_owned()
        })
        .collect();
    assert_eq!(sent, ["waiting", "done", "done"], "waiting, the outcome, the later change");
    rig.stop();
}

#[test]
fn revocation_of_unknown_token_is_already_gone() {
    let (folder, web) = (tempfile::tempdir().expect("a folder"), Web::start());
    web.answer(&[404]);
    let rig = Rig::start(folder.path(), Vec::new, Some(revoker(&web, "by_id")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    assert_eq!(rig.settled(), ["revoke_family already_gone"]);
    let request = web.requests().remove(0);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("DELETE", "/tokens/grant-7"));
    rig.stop();
}

/// A revoker whose revocations are verified by introspection.
fn verified(web: &Web, clock: Arc<dyn Clock>) -> Arc<dyn Revoker> {
    let text = format!(
        "preset = 'rfc7009'\nurl = '{0}/tokens'\nclient_id = 'warden'\nclient_secret = 'x'\n[verify]\nurl = '{0}/introspect'",
        web.url
    );
    let settings: HttpRevokerSettings = toml::from_str(&text).expect("settings");
    Arc::new(HttpRevoker::new(&settings, clock).expect("settings"))
}

#[test]
fn verified_revocation_has_its_times_in_row_and_alert() {
    let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    web.answer_body(200, "");
    web.answer_body(200, r#"{"active":true}"#);
    web.answer_body(200, r#"{"active":false}"#);
    let clock = TestClock::start();
    let revoker = verified(&web, Arc::clone(&clock) as _);
    let rig = Rig::start_at(clock, folder.path(), || webhook(&hook), Some(revoker), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.settled();
    let rows = rig.store.actions();
    let row = rows.iter().find(|row| row.kind == "revoke_family").expect("a row");
    let confirmation = row.confirmation.expect("a confirmation");
    assert!(confirmation.revoked_at >= START, "{row:?}");
    // The second read is half a second after the first.
    assert!(confirmation.verified_at.is_some_and(|at| at >= confirmation.revoked_at + 500), "{row:?}");
    assert_eq!(row.radius, Some(Radius::Grant));
    let last = hook.requests().pop().expect("an alert");
    let body: serde_json::Value = serde_json::from_str(&last.body).expect("JSON");
    assert_eq!(body["incident"]["confirmation"]["verified_at"], serde_json::json!(confirmation.verified_at));
    assert!(
        body["finding_info"]["desc"].as_str().is_some_and(|text| text.contains("found the token inactive")),
        "{body}"
    );
    rig.stop();
}

#[test]
fn revocation_that_leaves_the_token_active_is_reported() {
    let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    web.answer_body(200, "");
    for _ in 0..3 {
        web.answer_body(200, r#"{"active":true}"#);
    }
    let clock = TestClock::start();
    let revoker = verified(&web, Arc::clone(&clock) as _);
    let rig = Rig::start_at(clock, folder.path(), || webhook(&hook), Some(revoker), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.until("the failure is reported", |_| hook.requests().iter().any(|request| request.body.contains("\"failed\"")));
    let rows = rig.store.actions();
    let row = rows.iter().find(|row| row.kind == "revoke_family").expect("a row");
    assert_eq!((row.outcome, row.http_status, row.confirmation), (ActionOutcome::Failed, 200, None));
    assert_eq!(row.reason, "the provider answered 200, and the token is still active");
    let last = hook.requests().pop().expect("an alert");
    assert!(
        last.body.contains("NOT revoked: the grant grant-7 (the provider answered 200, and the token is still active)")
    );
    rig.stop();
}

#[test]
fn revocation_needs_enforce_mode_without_pause() {
    let web = Web::start();
    for (mode, ceiling, paused, outcome) in [
        (Mode::Shadow, Mode::Enforce, false, "revoke_family shadow"),
        (Mode::Alert, Mode::Enforce, false, "revoke_family proposed"),
        (Mode::Enforce, Mode::Shadow, false, "revoke_family shadow"),
        (Mode::Enforce, Mode::Enforce, true, "revoke_family paused"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        if paused {
            std::fs::write(folder.path().join(PAUSE_FILE), "").expect("a file");
        }
        let settings = Settings { mode: ceiling, ..quick() };
        let rig = Rig::start(folder.path(), Vec::new, Some(revoker(&web, "rfc7009")), settings);
        rig.take(&[incident(7, mode)]);
        assert_eq!(rig.settled(), [outcome]);
        assert_eq!(rig.outbox.held(), usize::from(paused));
        rig.stop();
    }
    assert_eq!(web.requests().len(), 0);
}

#[test]
fn failing_provider_is_reported_once() {
    let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    web.answer(&[500; 6]);
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&web, "rfc7009")), quick());
    rig.take(&[incident(1, Mode::Enforce)]);
    rig.until("the notice is sent", |_| hook.requests().iter().any(|r| r.body.contains("Revocation requests fail")));
    assert!(rig.metrics.text().contains("tokenwarden_revocation_breaker_open 1"), "{}", rig.metrics.text());
    let trail = rig.settled();
    assert_eq!(trail.iter().filter(|line| *line == "revoke_family done").count(), 1);
    assert!(rig.metrics.text().contains("tokenwarden_revocation_breaker_open 0"));
    let notices = hook.requests().iter().filter(|r| r.body.contains("Revocation requests fail")).count();
    assert_eq!(notices, 1);
    rig.stop();
}

#[test]
fn revocation_without_outcome_is_retried() {
    let (folder, web) = (tempfile::tempdir().expect("a folder"), Web::start());
    let rig = Rig::start(folder.path(), Vec::new, Some(revoker(&web, "rfc7009")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.settled();
    rig.stop();
    // The journal as after a crash: without the outcome.
    let journal = folder.path().join("journal.ndjson");
    let text = std::fs::read_to_string(&journal).expect("a journal");
    let kept: Vec<_> = text.lines().take_while(|line| !line.contains(r#""record":"ended""#)).collect();
    assert!(kept.iter().any(|line| line.contains(r#""record":"called""#)), "{text}");
    std::fs::write(&journal, format!("{}\n0123456789abcdef {{\"record\":\"end", kept.join("\n"))).expect("a journal");
    let rig = Rig::start(folder.path(), Vec::new, Some(revoker(&web, "rfc7009")), quick());
    rig.settled();
    let requests = web.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].header("idempotency-key"), requests[1].header("idempotency-key"));
    rig.stop();
}

#[test]
fn paused_revocation_is_requested_after_the_pause() {
    let (folder, api, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    std::fs::write(folder.path().join(PAUSE_FILE), "").expect("a file");
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&api, "by_id")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.settled();
    std::fs::remove_file(folder.path().join(PAUSE_FILE)).expect("the pause file exists");
    rig.clock.advance(Duration::from_secs(30));
    rig.wait("the revocation is done", || rig.revocations() == ["grant-7 paused", "grant-7 done"]);
    rig.settled();
    let outcomes: Vec<_> = messages(&hook).iter().map(|(_, message)| message["revocation"].clone()).collect();
    assert_eq!(outcomes, ["paused", "done"]);
    rig.stop();
}

#[test]
fn rejected_revocation_is_retried() {
    let (folder, api, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    api.answer(&[403, 403, 403, 200]);
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&api, "by_id")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.settled();
    rig.clock.advance(Duration::from_secs(900));
    api.wait_for(2);
    rig.wait("the delivery is recorded", || rig.revocations().len() == 2);
    // Another use by the thief changes the incident, which requests the same revocation.
    rig.take(&[changed(incident(7, Mode::Enforce), 8)]);
    rig.clock.advance(Duration::from_secs(60));
    api.wait_for(3);
    rig.wait("the delivery is recorded", || rig.revocations().len() == 3);
    rig.clock.advance(Duration::from_secs(3_600));
    rig.wait("the revocation is done", || rig.revocations().last().is_some_and(|last| last == "grant-7 done"));
    rig.settled();
    let outcomes: Vec<_> = messages(&hook).iter().map(|(_, message)| message["revocation"].clone()).collect();
    assert_eq!(outcomes, ["failed", "failed", "done"], "the outcome, the later change, the last outcome");
    let keys: std::collections::BTreeSet<_> =
        api.requests().iter().map(|request| request.header("idempotency-key").map(str::to_owned)).collect();
    assert_eq!(keys.len(), 1);
    rig.stop();
}

#[test]
fn revocation_is_given_up_after_a_week() {
    let (folder, api, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    api.answer(&[403; 100]);
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&api, "by_id")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.settled();
    for hour in 0..7 * 24 {
        let before = rig.revocations().len();
        rig.clock.advance(Duration::from_secs(3_600));
        if hour < 2 {
            rig.wait("the revocation is retried", || rig.revocations().len() > before);
        }
    }
    rig.wait("the revocation is given up", || rig.outbox.held() == 0);
    rig.settled();
    let row = rig.store.actions().into_iter().rfind(|row| row.kind == "revoke_family").expect("a row");
    assert_eq!((row.outcome, &*row.reason), (ActionOutcome::Failed, "given up after 7 days"));
    rig.stop();
}

#[test]
fn error_in_the_body_of_a_200_is_a_failure() {
    for (keys, status, body, outcome) in [
        ("done_when = '\"ok\":true'", 200, r#"{"ok":false,"error":"not_authed"}"#, "failed"),
        ("already_gone_when = 'token_revoked'", 200, r#"{"ok":false,"error":"token_revoked"}"#, "already_gone"),
        ("done_when = '\"ok\":true'", 200, r#"{"ok":true,"revoked":true}"#, "done"),
        (
            "preset = 'rfc7009'\nalready_gone_when = 'invalid_token'",
            400,
            r#"{"error":"invalid_token"}"#,
            "already_gone",
        ),
        ("preset = 'rfc7009'\nalready_gone_when = 'invalid_token'", 400, r#"{"error":"invalid_request"}"#, "failed"),
    ] {
        let (folder, api, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
        api.answer_body(status, body);
        let settings = format!("url = '{}/revoke'\ntoken = 'example'\n{keys}", api.url);
        let settings: HttpRevokerSettings = toml::from_str(&settings).expect("settings");
        let revoker = Arc::new(HttpRevoker::new(&settings, clock()).expect("settings"));
        let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker), quick());
        rig.take(&[incident(7, Mode::Enforce)]);
        rig.settled();
        assert_eq!(rig.revocations(), [format!("grant-7 {outcome}")], "{body}");
        let sent = messages(&hook);
        assert_eq!(sent[0].1["revocation"], outcome, "{body}");
        rig.stop();
    }
}

/// Two tenants with a grant of the same id.
fn of_two_tenants() -> [Incident; 2] {
    let acme = Incident { revoke: Some(Target::Family("grant-1".to_owned())), ..incident(7, Mode::Enforce) };
    let other =
        Incident { tenant_id: "Ünion / b".to_owned(), revoke: acme.revoke.clone(), ..incident(8, Mode::Enforce) };
    [acme, other]
}

#[test]
fn revocation_request_carries_the_tenant() {
    for preset in ["by_id", "rfc7009", "slack", "google", "twitch"] {
        let (folder, api) = (tempfile::tempdir().expect("a folder"), Web::start());
        let rig = Rig::start(
            folder.path(),
            Vec::new,
            Some(tenants_revoker(&api, &format!("preset = '{preset}'\nradius = 'grant'"))),
            quick(),
        );
        let none = Incident { tenant_id: String::new(), ..incident(9, Mode::Enforce) };
        rig.take(&of_two_tenants());
        rig.take(&[none]);
        let asked = api.wait_for(3);
        let mut tenants: Vec<_> = asked.iter().map(|asked| asked.header("tokenwarden-tenant")).collect();
        tenants.sort_unstable();
        assert_eq!(tenants, [None, Some("%C3%9Cnion%20%2F%20b"), Some("acme")], "{preset}");
        rig.stop();
    }
}

#[test]
fn grant_of_another_tenant_is_not_revoked() {
    for (tenant, expected) in [
        ("tenant = 'acme'", [vec!["grant-1 done"], vec!["grant-1 failed"]]),
        ("tenant = ''", [vec!["grant-1 failed"], vec!["grant-1 failed"]]),
        ("", [vec!["grant-1 done"], vec!["grant-1 done"]]),
    ] {
        let (folder, api) = (tempfile::tempdir().expect("a folder"), Web::start());
        let settings = format!("preset = 'by_id'\n{tenant}");
        let rig = Rig::start(folder.path(), Vec::new, Some(tenants_revoker(&api, &settings)), quick());
        let of_incident = |incident: Incident| {
            let before = rig.revocations().len();
            rig.take(&[incident]);
            rig.settled();
            rig.revocations().split_off(before)
        };
        assert_eq!(of_two_tenants().map(of_incident), expected, "{tenant}");
        let requests = expected.concat().iter().filter(|outcome| outcome.ends_with("done")).count();
        assert_eq!(api.requests().len(), requests, "{tenant}");
        rig.stop();
    }
}

fn tenants_revoker(web: &Web, settings: &str) -> Arc<dyn Revoker> {
    let text = format!("url = '{}/grants'\nclient_id = 'w'\nclient_secret = 'w'\n{settings}", web.url);
    let settings: HttpRevokerSettings = toml::from_str(&text).expect("settings");
    Arc::new(HttpRevoker::new(&settings, clock()).expect("settings"))
}

#[test]
fn keycloak_session_of_the_incident_ends_and_is_verified() {
    let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    web.answer_body(204, "");
    // Another session of the user has the id of the grant.
    web.answer_body(200, r#"[{"id":"session-7"},{"id":"grant-7"}]"#);
    web.answer_body(200, r#"[{"id":"grant-7"}]"#);
    let text = format!(
        "preset = 'keycloak_session'\nradius = 'session'\nvalues = {{ realm = 'acme' }}\nurl = '{}'\ntoken = 'x'",
        web.url
    );
    let clock = TestClock::start();
    let settings: HttpRevokerSettings = toml::from_str(&text).expect("settings");
    let revoker = Arc::new(HttpRevoker::new(&settings, Arc::clone(&clock) as _).expect("settings"));
    let rig = Rig::start_at(clock, folder.path(), || webhook(&hook), Some(revoker), quick());
    rig.take(&[Incident { user_id: "7b1e".to_owned(), ..incident(7, Mode::Enforce) }]);
    rig.settled();
    let rows = rig.store.actions();
    let row = rows.iter().find(|row| row.kind == "revoke_family").expect("a row");
    assert!(row.confirmation.is_some_and(|confirmation| confirmation.verified_at.is_some()), "{row:?}");
    assert_eq!((row.outcome.as_str(), row.radius), ("done", Some(Radius::Session)));
    let sent = web.requests().into_iter().map(|request| format!("{} {}", request.method, request.path));
    let read = "GET /admin/realms/acme/users/7b1e/sessions".to_owned();
    assert_eq!(
        sent.collect::<Vec<_>>(),
        ["DELETE /admin/realms/acme/sessions/session-7".to_owned(), read.clone(), read]
    );
    rig.stop();
}
