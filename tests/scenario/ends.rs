//! The end of one token and its effect on other tokens of the grant.

use tokenwarden::verdict::RuleId::{UseAfterRevocation, UseAfterSessionEnd};
use tokenwarden::verdict::Verdict;

use super::scenario::{Event, HOUR, MINUTE, Rotating, SECOND, Scenario, address, fired};

/// Six calls of the owner, ten minutes apart, all allowed.
fn assert_goes_on(scenario: &mut Scenario, call: &Event, after: &str) {
    for _ in 0..6 {
        scenario.wait(10 * MINUTE);
        let outcome = scenario.see(&call.from(address::BERLIN).set("status", 200));
        assert_eq!(outcome.verdict, Verdict::Allow, "after {after}: {outcome:#?}");
    }
}

fn assert_has_ended(scenario: &mut Scenario, call: &Event, after: &str) {
    scenario.wait(10 * MINUTE);
    let outcome = scenario.see(&call.from(address::BERLIN).set("status", 200));
    assert!(fired(&outcome, UseAfterRevocation) && outcome.verdict == Verdict::Revoke, "after {after}: {outcome:#?}");
}

fn revoked(grant: &Rotating, token: &str, token_type: &str) -> Event {
    grant.presents(token).kind("revoked").set("token_type", token_type)
}

/// The refresh token of `rotations` exchanges ago.
fn of_rotations_ago(grant: &Rotating, rotations: u32) -> String {
    format!("rt-ana-{}", grant.number() - rotations)
}

#[test]
fn revoked_superseded_refresh_token_ends_no_grant() {
    for rotations in [1, 2, 7, 15] {
        let mut scenario = Scenario::in_town();
        let ana = scenario.rotating("ana", 20);
        scenario.see(&revoked(&ana, &of_rotations_ago(&ana, rotations), "refresh"));
        assert_goes_on(&mut scenario, &ana.uses(), &format!("the end of the token of {rotations} rotations ago"));
    }
}

#[test]
fn revoked_current_refresh_token_ends_its_grant() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.rotating("ana", 20);
    scenario.see(&revoked(&ana, &ana.refresh_token(), "refresh"));
    assert_has_ended(&mut scenario, &ana.uses(), "the end of the current one");
}

#[test]
fn revoked_access_token_leaves_its_grant_alone() {
    let mut scenario = Scenario::in_town();
    let mut ana = scenario.rotating("ana", 20);
    let old = ana.uses();
    scenario.refresh(&mut ana);
    scenario.see(&old.kind("revoked"));
    assert_goes_on(&mut scenario, &ana.uses(), "the end of the last access token");
    assert_has_ended(&mut scenario, &old, "its own end");
}

/// Some providers revoke each refresh token when it is exchanged, and report that before or after the new tokens.
#[test]
fn revocation_at_each_rotation_ends_no_grant() {
    for order in [[0, 1, 2], [1, 0, 2], [0, 2, 1], [1, 2, 0]] {
        let mut scenario = Scenario::in_town();
        let mut ana = scenario.rotating("ana", 20);
        for _ in 0..4 {
            scenario.wait(HOUR);
            let old = ana.refresh_token();
            let [presented, refresh, access] = ana.exchange();
            let end = revoked(&ana, &old, "refresh");
            let at = scenario.now();
            let reports = [vec![presented], vec![end], vec![refresh, access]];
            for (delay, report) in (0..).zip(order.iter().flat_map(|place| &reports[*place])) {
                scenario.see_at(at + 15 * delay, report);
            }
            assert_goes_on(&mut scenario, &ana.uses(), &format!("a rotation reported as {order:?}"));
        }
        scenario.see(&revoked(&ana, &ana.refresh_token(), "refresh"));
        assert_has_ended(&mut scenario, &ana.uses(), "the end of the current one");
    }
}

/// The same without `issued` events.
#[test]
fn rotation_without_issued_events_ends_no_grant() {
    for revoked_first in [false, true] {
        let mut scenario = Scenario::in_town();
        let mut ana = scenario.rotating("ana", 0);
        for _ in 0..12 {
            scenario.wait(HOUR);
            let presented = ana.presents(&ana.refresh_token()).from(address::BERLIN);
            let end = revoked(&ana, &ana.refresh_token(), "refresh");
            let mut reports = [presented, end];
            if revoked_first {
                reports.reverse();
            }
            for report in reports {
                scenario.see(&report);
                scenario.wait(20);
            }
            let _ = ana.exchange();
            assert_goes_on(&mut scenario, &ana.uses(), "a rotation of which only the end is reported");
        }
        // First a token of many rotations ago, then the token that was never presented.
        scenario.see(&revoked(&ana, &of_rotations_ago(&ana, 11), "refresh"));
        assert_goes_on(&mut scenario, &ana.uses(), "the end of one of long ago");
        scenario.see(&revoked(&ana, &ana.refresh_token(), "refresh"));
        assert_has_ended(&mut scenario, &ana.uses(), "the end of the current one");
    }
}

#[test]
fn late_issue_event_revives_the_grant() {
    let mut scenario = Scenario::in_town();
    let mut ana = scenario.rotating("ana", 20);
    scenario.wait(HOUR);
    let (old, rotated_at) = (ana.refresh_token(), scenario.now());
    let [presented, refresh, access] = ana.exchange();
    scenario.wait(3 * MINUTE);
    scenario.see(&revoked(&ana, &old, "refresh"));
    scenario.wait(5 * SECOND);
    for report in [presented, refresh, access] {
        scenario.see_at(rotated_at, &report);
    }
    assert_goes_on(&mut scenario, &ana.uses(), "an exchange that was reported after it");
}

#[test]
fn revocation_before_the_issue_ends_the_grant() {
    let mut scenario = Scenario::in_town();
    let mut ana = scenario.rotating("ana", 20);
    scenario.wait(HOUR);
    let issued_at = scenario.now();
    let [presented, refresh, access] = ana.exchange();
    scenario.see_at(issued_at, &presented);
    scenario.see_at(issued_at + 20 * MINUTE, &revoked(&ana, &ana.refresh_token(), "refresh"));
    scenario.see_at(issued_at + 20, &refresh);
    scenario.see_at(issued_at + 40, &access);
    scenario.wait(20 * MINUTE);
    assert_has_ended(&mut scenario, &ana.uses(), "the end of the current one, reported first");
}

/// Tokens without a family are one grant through the chain of their issues.
#[test]
fn revoked_first_token_of_a_chain_ends_itself() {
    let mut scenario = Scenario::in_town();
    let token = |name: &str, token_type: &str| {
        let call = Event::of("ana").set("token_id", name).set("token_type", token_type);
        call.set("family_id", serde_json::Value::Null)
    };
    let issued = |name: &str, token_type: &str, parent: &str| {
        token(name, token_type).kind("issued").set("parent_token_id", parent)
    };
    for rotation in 0..6 {
        let [parent, next] = [rotation, rotation + 1].map(|number| format!("rt-{number}"));
        scenario.see(&token(&parent, "refresh").kind("refreshed"));
        scenario.see(&issued(&next, "refresh", &parent));
        scenario.see(&issued(&format!("at-{rotation}"), "access", &parent));
        for _ in 0..5 {
            scenario.wait(10 * MINUTE);
            scenario.see(&token(&format!("at-{rotation}"), "access"));
        }
    }
    scenario.see(&token("rt-0", "refresh").kind("revoked"));
    assert_goes_on(&mut scenario, &token("at-5", "access"), "the end of the first");
    scenario.see(&token("rt-6", "refresh").kind("revoked"));
    assert_has_ended(&mut scenario, &token("at-5", "access"), "the end of the current one");
}

/// Whether `use_after_session_end` and `use_after_revocation` fire for later sessions of a user after a life-cycle event
/// that names only the user. The last: for the session of another user.
fn after_end_of_all(mut scenario: Scenario, kind: &str) -> [bool; 3] {
    let session = |person: &str| Event::of(person).set("token_type", "session");
    for _ in 0..6 {
        scenario.wait(10 * MINUTE);
        for person in ["ana", "bob"] {
            assert!(!fired(&scenario.see(&session(person)), UseAfterSessionEnd));
        }
    }
    scenario.wait(MINUTE);
    scenario.see(&Event::of("ana").kind(kind).set("token_id", "ssf-1").set("concerns", "user"));
    scenario.wait(10 * MINUTE);
    let late = scenario.see(&session("ana"));
    let other = scenario.see(&session("bob"));
    [fired(&late, UseAfterSessionEnd), fired(&late, UseAfterRevocation), fired(&other, UseAfterSessionEnd)]
}

/// As a receiver of Shared Signals reports it, without the id of a session.
#[test]
fn end_of_all_sessions_of_a_user_is_learnt() {
    assert_eq!(after_end_of_all(Scenario::in_town_confirmed(), "session_ended"), [true, false, false]);
}

#[test]
fn stranger_ends_no_token_that_it_does_not_name() {
    for kind in ["session_ended", "revoked"] {
        assert_eq!(after_end_of_all(Scenario::in_town(), kind), [false; 3], "{kind}");
    }
    assert_eq!(after_end_of_all(Scenario::in_town_confirmed(), "revoked"), [false; 3], "only sessions end together");
}
