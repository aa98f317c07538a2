//! Thefts raise an alert, and revoke where the evidence is a fact about the token.

use super::*;

#[test]
fn company_key_scan_is_one_cause() {
    let scan = |app: Option<&str>| {
        let mut scenario = Scenario::in_town();
        let app = app.map_or(serde_json::Value::Null, Into::into);
        let keys: Vec<Event> =
            (0..9).map(|number| Event::of(&format!("key-{number}")).set("app_id", app.clone())).collect();
        for _ in 0..12 {
            for key in &keys {
                scenario.wait(MINUTE);
                scenario.see(key);
                scenario.wait(5 * SECOND);
                scenario.see(&key.clone().set("endpoint", "/v1/deals"));
            }
            scenario.wait(DAY);
        }
        let mut log_odds = Vec::new();
        for key in &keys {
            scenario.wait(2 * SECOND);
            log_odds.push(scenario.see(&key.from(address::SYDNEY).agent("axios/1.13.2")).log_odds);
        }
        log_odds
    };
    // A breach of one application, or its migration.
    let of_one_application = scan(Some("crm"));
    assert!(of_one_application[0] > 0.0, "the first are suspicious: {of_one_application:?}");
    let fan_min = 3.0;
    assert!(of_one_application[8] > of_one_application[0] - fan_min - 2.0, "{of_one_application:?}");
    let of_no_application = scan(None);
    assert!(of_no_application[0] > 0.0, "the first are suspicious: {of_no_application:?}");
    assert!(of_no_application[8] < of_no_application[0] - 3.0, "the last are not: {of_no_application:?}");
}

/// Tokens of eight users of one application are used from a new network with a new client, once each. The last outcome.
fn eight_users_elsewhere(call: impl Fn(Event) -> Event) -> Outcome {
    let mut scenario = Scenario::in_town();
    let users: Vec<Event> = (0..8).map(|number| scenario.office_worker(&format!("user-{number}"), 30)).collect();
    scenario.wait(15 * HOUR);
    let outcomes = users.iter().map(|user| {
        scenario.wait(2 * MINUTE);
        scenario.see(&call(user.from(address::LEIPZIG_HOST).agent("python-requests/2.31.0")))
    });
    outcomes.last().expect("eight users")
}

#[test]
fn moved_application_is_no_campaign() {
    let last = eight_users_elsewhere(|call| call);
    assert!(!fired(&last, AppFanout) && !fired(&last, IpFanout), "{last:#?}");
}

#[test]
fn campaign_calls_what_the_users_do_not_call() {
    let last = eight_users_elsewhere(|call| call.set("endpoint", "/v1/admin/secrets"));
    assert!(fired(&last, AppFanout) && last.verdict >= Verdict::Alert, "{last:#?}");
}

#[test]
fn revoked_grant_is_not_revoked_again() {
    let worst = |revoked: &dyn Fn(&Event) -> Event| {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 20);
        // Below 20,000 visits, behaviour revokes nothing.
        for round in 0..900 {
            scenario.wait(32 * MINUTE);
            for number in 0..20 {
                scenario.see(&neighbours_call(number));
            }
            if round % 15 == 0 {
                scenario.see(&ana);
            }
        }
        scenario.see(&revoked(&ana));
        scenario.wait(HOUR);
        let thief = ana.from(address::SYDNEY).agent("python-requests/2.32.3").set("status", 403);
        let calls = (0..8).map(|call| {
            scenario.wait(20 * SECOND);
            scenario.see(&thief.clone().set("endpoint", format!("/v1/export/secrets/list{call}"))).verdict
        });
        calls.max()
    };
    let grant = |ana: &Event| ana.kind("revoked").set("token_id", "rt-ana").set("token_type", "refresh");
    assert_eq!(worst(&grant), Some(Verdict::Alert), "it alerts, and no further revocation is requested");
    assert_eq!(worst(&|ana| ana.kind("revoked")), Some(Verdict::Revoke), "the grant has other tokens");
    assert_eq!(worst(&|ana| ana.kind("session_ended").set("session_id", "s-9")), Some(Verdict::Revoke));
}

/// A missing key is a reason of an alert. Another key at the same place and with the same client revokes.
#[test]
fn missing_key_elsewhere_alerts_and_another_key_revokes() {
    let last = |key: Option<&str>| {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 20);
        scenario.wait(15 * HOUR);
        scenario.see_bound(&ana, "jkt:owner", 12);
        scenario.wait(HOUR);
        let elsewhere = ana.from(address::LEIPZIG_HOST).agent("python-requests/2.31.0");
        let elsewhere = key.map_or_else(|| elsewhere.clone(), |key| elsewhere.clone().set("binding", key));
        let outcomes = [0; 3].map(|_| {
            scenario.wait(MINUTE);
            scenario.see(&elsewhere)
        });
        outcomes.into_iter().next_back().expect("three calls")
    };
    let missing = last(None);
    assert!(fired(&missing, BindingMismatch) && share(&missing, BindingMismatch) >= 2.0, "{missing:#?}");
    assert_eq!(missing.verdict, Verdict::Alert, "{missing:#?}");
    let other = last(Some("jkt:thief"));
    assert_eq!(other.verdict, Verdict::Revoke, "{other:#?}");
}

#[test]
fn impossible_travel_alerts_within_forty_minutes() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    scenario.wait(15 * HOUR);
    scenario.see(&ana);
    scenario.wait(40 * MINUTE);
    let outcome = scenario.see(&ana.from(address::SYDNEY).agent("curl/8.9.1"));
    assert!(share(&outcome, ImpossibleTravel) >= 1.0 && fired(&outcome, NewCountry), "{outcome:#?}");
    assert!(fired(&outcome, NewClient), "{outcome:#?}");
    assert!(outcome.verdict >= Verdict::Alert, "{outcome:#?}");
    let reason = &outcome.signals.iter().find(|signal| signal.rule == ImpossibleTravel).expect("it fired").reason;
    assert!(reason.contains("km") && reason.contains("40 min"), "{reason}");
}

#[test]
fn impossible_travel_needs_no_order_of_arrival() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    scenario.wait(15 * HOUR);
    scenario.see(&ana);
    scenario.wait(45 * MINUTE);
    scenario.see(&ana.from(address::SYDNEY));
    // The earlier use from Berlin arrives after it.
    let berlin = scenario.see_at(scenario.now() - 4 * MINUTE, &ana);
    assert!(berlin.verdict < Verdict::Alert, "she is at home: {berlin:#?}");
    scenario.wait(MINUTE);
    let sydney = scenario.see(&ana.from(address::SYDNEY));
    assert!(share(&sydney, ImpossibleTravel) >= 1.0 && fired(&sydney, NewCountry), "{sydney:#?}");
    assert!(sydney.verdict >= Verdict::Watch, "{sydney:#?}");
}

#[test]
fn two_holders_alert_within_three_changes() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    scenario.wait(15 * HOUR);
    scenario.see(&ana);
    let thief = ana.from(address::LEIPZIG_HOST);
    let mut caught = None;
    for turn in 1..=3 {
        scenario.wait(70 * SECOND);
        let by_thief = scenario.see(&thief);
        scenario.wait(50 * SECOND);
        let by_owner = scenario.see(&ana);
        let both = [by_thief, by_owner];
        if both.iter().any(|outcome| fired(outcome, ConcurrentUse) && outcome.verdict >= Verdict::Alert) {
            caught = Some(turn);
            break;
        }
    }
    assert!(caught.is_some(), "{}", scenario.last_verdicts(6).join(""));
}

#[test]
fn reused_refresh_token_revokes_the_family() {
    let mut scenario = Scenario::in_town();
    let mut ana = scenario.rotating("ana", 20);
    let copied = ana.refresh_token();
    scenario.refresh(&mut ana);
    scenario.wait(5 * SECOND);
    scenario.see(&ana.uses().from(address::BERLIN));
    scenario.wait(20 * MINUTE);
    let reuse = ana.presents(&copied).from(address::LEIPZIG_HOST).agent("okhttp/4.12.0");
    let outcome = scenario.see(&reuse.set("session_id", "s-1"));
    assert!(fired(&outcome, RefreshReuse), "{outcome:#?}");
    assert!(share(&outcome, RefreshReuse) >= 13.0, "{outcome:#?}");
    assert_eq!((outcome.verdict, outcome.action), (Verdict::Revoke, Action::RevokeFamily), "{outcome:#?}");
    let incident = outcome.incident.as_deref().expect("an incident opens");
    assert!(incident.report && incident.family_id == "grant-ana" && incident.user_id == "ana", "{incident:#?}");
    assert_eq!(incident.session_id, "s-1", "a provider revokes the session of the event");
}

#[test]
fn accepted_use_after_revocation_is_detected() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 20);
    scenario.wait(15 * HOUR);
    scenario.see(&ana.kind("revoked"));
    scenario.wait(5 * MINUTE);
    let outcome = scenario.see(&ana.clone().set("status", 200));
    assert!(fired(&outcome, UseAfterRevocation), "{outcome:#?}");
    assert_eq!(outcome.verdict, Verdict::Revoke, "{outcome:#?}");
}

#[test]
fn refused_use_after_revocation_elsewhere_alerts() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 20);
    scenario.wait(15 * HOUR);
    scenario.see(&ana.kind("revoked"));
    scenario.wait(5 * MINUTE);
    let outcome = scenario.see(&ana.from(address::LEIPZIG_HOST).agent("curl/8.9.1").set("status", 401));
    assert!(fired(&outcome, UseAfterRevocation), "{outcome:#?}");
}

#[test]
fn use_after_session_end_is_detected() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 20).set("session_id", "s-1");
    scenario.wait(15 * HOUR);
    scenario.see(&ana);
    scenario.wait(MINUTE);
    scenario.see(&ana.kind("session_ended"));
    scenario.wait(20 * MINUTE);
    let outcome = scenario.see(&ana.clone().set("status", 200));
    assert!(fired(&outcome, UseAfterSessionEnd), "{outcome:#?}");
    assert_eq!(outcome.verdict, Verdict::Revoke, "{outcome:#?}");
}

#[test]
fn use_long_after_expiry_is_detected() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 20);
    scenario.wait(15 * HOUR);
    // Events of others set the stream's time.
    for number in 0..9 {
        scenario.wait(20 * SECOND);
        scenario.see(&neighbours_call(number));
    }
    let expired = ana.clone().set("status", 200).set("expires_at", scenario.now() - 20 * MINUTE);
    let at_home = scenario.see(&expired);
    assert!(fired(&at_home, UseAfterExpiry), "{at_home:#?}");
    assert_eq!(at_home.verdict, Verdict::Watch, "the server is lax, and the owner is at the usual place: {at_home:#?}");
    let outcome = scenario.see(&expired.from(address::LEIPZIG_HOST));
    assert!(fired(&outcome, UseAfterExpiry), "{outcome:#?}");
    assert_eq!(outcome.verdict, Verdict::Revoke, "{outcome:#?}");
}

#[test]
fn expiry_from_the_issue_event_is_stored() {
    let late = |token_type: &str| {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 20);
        let token = ana.clone().set("token_id", "at-new").set("token_type", token_type);
        scenario.see(&token.kind("issued").set("expires_at", scenario.now() + HOUR));
        scenario.wait(15 * HOUR);
        for number in 0..9 {
            scenario.wait(20 * SECOND);
            scenario.see(&neighbours_call(number));
        }
        scenario.see(&token)
    };
    let outcome = late("access");
    assert!(fired(&outcome, UseAfterExpiry), "{outcome:#?}");
    // The expiry may have been extended, so an analyst must decide.
    assert!(outcome.verdict < Verdict::Revoke, "{outcome:#?}");
    // For a refresh token it is often the expiry of the access token issued with it.
    assert!(!fired(&late("refresh"), UseAfterExpiry));
}

#[test]
fn bound_token_with_another_key_is_detected() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 20);
    scenario.wait(15 * HOUR);
    scenario.see_bound(&ana, "jkt:owner", 4);
    scenario.wait(2 * MINUTE);
    let outcome = scenario.see(&ana.from(address::LEIPZIG_HOST).set("binding", "jkt:thief"));
    assert!(fired(&outcome, BindingMismatch), "{outcome:#?}");
    assert_eq!(outcome.verdict, Verdict::Revoke, "{outcome:#?}");
}
