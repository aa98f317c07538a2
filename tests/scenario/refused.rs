//! Requests whose credential was not accepted are scored and change no state.

use serde_json::{Value, json};
use tokenwarden::verdict::RuleId::{BindingMismatch, NewCountry, RefreshReuse};
use tokenwarden::verdict::{Outcome, Verdict};
use tokenwarden::wire::Format;

use super::scenario::{DAY, Event, HOUR, MINUTE, SECOND, Scenario, address, fired, neighbours_call};

/// A town with enough known visits for revocations by behaviour.
fn known_town() -> (Scenario, Event) {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    for _ in 0..900 {
        scenario.wait(32 * MINUTE);
        for number in 0..20 {
            scenario.see(&neighbours_call(number));
        }
    }
    (scenario, ana)
}

/// A thief uses the tokens of twenty people: three calls each, from one address. Returns the verdicts.
fn use_of_all(scenario: &mut Scenario, status: impl Into<Value>) -> Vec<Verdict> {
    let status = status.into();
    let mut verdicts = Vec::new();
    for number in 0..20 {
        let stolen = neighbours_call(number).from(&format!("11.{number}.7.9")).agent("python-requests/2.32.3");
        for call in 0..3 {
            let call =
                stolen.clone().set("status", status.clone()).set("endpoint", format!("/v1/export/secrets/list{call}"));
            verdicts.push(scenario.see_apart(&call).verdict);
        }
    }
    verdicts
}

/// A day of the same people and of the owner, and then a theft from one of the addresses.
fn day_after(scenario: &mut Scenario, ana: &Event) -> Vec<String> {
    let before = scenario.scored_count();
    for _ in 0..12 {
        scenario.wait(2 * HOUR);
        for number in 0..20 {
            scenario.see(&neighbours_call(number));
        }
        scenario.see(ana);
    }
    for call in 0..4 {
        scenario.wait(20 * SECOND);
        let thief = ana.from("11.3.7.9").agent("python-requests/2.32.3");
        scenario.see(&thief.set("endpoint", format!("/v1/export/secrets/list{call}")));
    }
    scenario.last_verdicts(scenario.scored_count() - before)
}

#[test]
fn attempts_change_no_later_verdict() {
    let (mut spared, ana) = known_town();
    let expected = day_after(&mut spared, &ana);

    let (mut scenario, ana) = known_town();
    let refused = use_of_all(&mut scenario, 401);
    assert!(refused.iter().all(|verdict| *verdict <= Verdict::Watch), "{refused:?}");
    assert!(refused.contains(&Verdict::Watch), "attempts are scored: {refused:?}");
    let bound = neighbours_call(1).from("11.1.7.9").set("status", 401).set("binding", "jkt:another");
    assert!(scenario.see_apart(&bound).verdict <= Verdict::Watch);
    assert_eq!(day_after(&mut scenario, &ana), expected);

    let (mut control, _) = known_town();
    let accepted = use_of_all(&mut control, 200);
    assert!(accepted.iter().filter(|verdict| **verdict >= Verdict::Alert).count() >= 20, "{accepted:?}");
    assert!(accepted.contains(&Verdict::Revoke), "{accepted:?}");
}

/// An outcome that is present and cannot be read may have been a rejection. It alerts and does not revoke.
#[test]
fn unreadable_status_revokes_no_behaviour() {
    for status in [json!("denied"), json!(true), json!(70_000)] {
        let (mut scenario, _) = known_town();
        let verdicts = use_of_all(&mut scenario, status.clone());
        assert_eq!(verdicts.iter().max(), Some(&Verdict::Alert), "{status}: {verdicts:?}");
    }
    let (mut scenario, _) = known_town();
    let refused = use_of_all(&mut scenario, "401 Unauthorized");
    assert!(refused.iter().all(|verdict| *verdict <= Verdict::Watch), "{refused:?}");
}

#[test]
fn attempt_with_another_key_proves_no_copy() {
    let outcomes_of = |status: u16| {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 20).set("token_type", "access");
        scenario.wait(15 * HOUR);
        scenario.see_bound(&ana, "jkt:owner", 6);
        let other = ana.from(address::LEIPZIG_HOST).set("binding", "jkt:thief").set("status", status);
        let forged = scenario.see_apart(&other);
        let bound = ana.set("binding", "jkt:owner");
        let later = (0..6).map(|_| {
            scenario.wait(MINUTE);
            scenario.see(&bound)
        });
        let later: Vec<_> = later.collect();
        (forged, later, scenario.last_verdicts(6))
    };
    let (forged, later, _) = outcomes_of(401);
    assert!(fired(&forged, BindingMismatch) && forged.verdict == Verdict::Watch, "{forged:#?}");
    assert!(later.iter().all(|outcome| outcome.verdict == Verdict::Allow), "{later:#?}");
    let (control, _, _) = outcomes_of(200);
    assert_eq!(control.verdict, Verdict::Revoke, "{control:#?}");
}

/// A take-over from an address and client that were refused before: once, or every day for weeks.
#[test]
fn refused_sign_ins_make_no_take_over_familiar() {
    let take_over = |guesses: i64, status: u16| {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 30);
        let guess = ana.from(address::SYDNEY).agent("axios/1.13.2").set("status", status);
        for day in 0..35 {
            scenario.wait(DAY);
            if day >= 35 - guesses {
                let refused = scenario.see_apart(&guess);
                assert!(status != 401 || refused.verdict <= Verdict::Watch, "{refused:#?}");
            }
            scenario.see(&ana);
        }
        let verdicts: Vec<_> = (0..15)
            .map(|call| {
                scenario.wait(40 * SECOND);
                let call = ana.from(address::SYDNEY).agent("axios/1.13.2").set("endpoint", format!("/v1/files/{call}"));
                scenario.see(&call)
            })
            .collect();
        assert!(fired(&verdicts[0], NewCountry) || status == 200, "{:#?}", verdicts[0]);
        (verdicts[0].log_odds, scenario.last_verdicts(15))
    };
    let control = take_over(0, 401);
    assert!(control.0 > 2.0, "{}", control.0);
    assert_eq!(take_over(1, 401), control);
    assert_eq!(take_over(35, 401), control);
    let (accepted, _) = take_over(35, 200);
    assert!(accepted < control.0 - 2.0, "accepted sign-ins are known after weeks: {accepted}");
}

/// Attempts without a valid token fill no table that other events need.
#[test]
fn attempts_evict_no_known_event_id() {
    let settings = tokenwarden::engine::Settings { recent_event_ids_max: 1 << 10, ..Default::default() };
    let mut scenario = Scenario::in_town_with(settings);
    let ana = scenario.office_worker("ana", 5);
    let delivered = scenario.send(&ana);
    let (baselines, _) = scenario.state().memory();
    let mut first = None;
    for number in 0..20_000 {
        let forged = Event::of(&format!("nobody-{number}")).from(address::SYDNEY).set("status", 401);
        let line = scenario.write_apart(&forged);
        scenario.score(&line).expect("its id is new");
        if number == 19_990 {
            first = Some(line);
        }
    }
    assert!(scenario.score(&delivered).is_none(), "a second delivery is known");
    assert!(scenario.score(&first.expect("it was sent")).is_none(), "also of an attempt");
    assert_eq!(scenario.state().memory().0, baselines, "attempts create no baseline");
    assert_eq!(scenario.state().counters().attempts, 20_000);
}

/// The endpoint answers 400 (`invalid_grant`), but the event still shows that two parties hold the token.
#[test]
fn refused_superseded_refresh_token_counts() {
    let mut scenario = Scenario::in_town();
    let mut ana = scenario.rotating("ana", 20);
    let (copied, current) = (ana.refresh_token(), {
        scenario.refresh(&mut ana);
        ana.refresh_token()
    });
    scenario.wait(5 * SECOND);
    scenario.see(&ana.uses().from(address::BERLIN));
    scenario.wait(20 * MINUTE);
    let elsewhere = |token: &str| ana.presents(token).from(address::LEIPZIG_HOST).agent("okhttp/4.12.0");
    for status in [400, 401] {
        let guess = scenario.see_apart(&elsewhere(&current).set("status", status));
        assert!(guess.verdict <= Verdict::Watch && !fired(&guess, RefreshReuse), "{guess:#?}");
    }
    let outcome = scenario.see(&elsewhere(&copied).set("status", 400));
    assert!(fired(&outcome, RefreshReuse) && outcome.verdict == Verdict::Revoke, "{outcome:#?}");
    assert!(outcome.incident.is_some_and(|incident| incident.report));
}

/// A record of Okta about a refresh token of `user`.
fn okta(scenario: &mut Scenario, what: (&str, &str), user: &str, from: &str) -> Outcome {
    let (event_type, result) = what;
    let at = jiff::Timestamp::from_millisecond(scenario.now()).expect("a time");
    let record = serde_json::json!({
        "uuid": format!("{event_type}-{result}-{at}"), "published": at.to_string(), "eventType": event_type,
        "outcome": {"result": result},
        "actor": {"id": "0oaSpaExample000001", "type": "PublicClientApp"},
        "client": {"id": "0oaSpaExample000001", "ipAddress": from, "userAgent": {"rawUserAgent": "okta-sdk-python/2.9"}},
        "target": [{"id": format!("00u{user}"), "type": "User"}, {"id": format!("oar-{user}"), "type": "refresh_token"}],
    });
    scenario.score_in(Format::Okta, &record.to_string()).expect("its id is new")
}

/// The provider refuses the token and reports its re-use.
#[test]
fn reuse_reported_by_the_provider_revokes() {
    let reported = |event_type: &str, result: &str| {
        let mut scenario = Scenario::in_town();
        scenario.office_worker("ana", 20);
        for _ in 0..20 {
            scenario.wait(HOUR);
            okta(&mut scenario, ("app.oauth2.as.token.grant.refresh_token", "SUCCESS"), "ana", address::BERLIN);
        }
        scenario.wait(20 * MINUTE);
        okta(&mut scenario, (event_type, result), "ana", address::LEIPZIG_HOST)
    };
    for result in ["FAILURE", "DENY", "SUCCESS"] {
        let outcome = reported("app.oauth2.as.token.detect_reuse", result);
        assert!(fired(&outcome, RefreshReuse) && outcome.verdict == Verdict::Revoke, "{result}: {outcome:#?}");
        assert!(outcome.incident.is_some_and(|incident| incident.report && incident.revoke.is_some()), "{result}");
    }
    // Control: the same refusal without that report.
    let outcome = reported("app.oauth2.as.token.grant.refresh_token", "FAILURE");
    assert!(!fired(&outcome, RefreshReuse) && outcome.verdict <= Verdict::Watch, "{outcome:#?}");
}

/// A refused request had no effect.
#[test]
fn refused_revocation_ends_nothing() {
    for kind in ["revoked", "session_ended", "credential_changed", "issued"] {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 20).set("session_id", "s-1");
        scenario.wait(15 * HOUR);
        scenario.see(&ana);
        scenario.see(&ana.kind(kind).set("status", 401));
        scenario.wait(20 * MINUTE);
        let outcome = scenario.see(&ana);
        assert_eq!(outcome.verdict, Verdict::Allow, "after {kind}: {outcome:#?}");
    }
}

#[test]
fn forbidden_call_of_an_accepted_token_is_a_use() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 20);
    scenario.wait(15 * HOUR);
    scenario.see_bound(&ana, "jkt:owner", 6);
    let copy = ana.from(address::LEIPZIG_HOST).set("binding", "jkt:thief").set("status", 403);
    let outcome = scenario.see(&copy);
    assert_eq!(outcome.verdict, Verdict::Revoke, "{outcome:#?}");
}
