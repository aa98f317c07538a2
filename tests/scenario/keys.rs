//! Tokens that are bound to a key: replaced keys, and copies without the key.

use tokenwarden::verdict::RuleId::BindingMismatch;
use tokenwarden::verdict::Verdict;

use super::scenario::{Event, HOUR, MINUTE, Scenario, address, fired, share};

/// An API key on a phone that has proved possession of a certificate for three days.
fn tracker(scenario: &mut Scenario) -> Event {
    let tracker = scenario.phone_user("bo", 30).set("token_type", "api_key");
    for day in 0..3 {
        scenario.wait(10 * HOUR);
        for hour in 0..14 {
            scenario.wait(HOUR);
            scenario.see(&on_carrier(&tracker, day * 14 + hour).set("binding", "x5t#S256:old"));
        }
    }
    scenario.wait(10 * HOUR);
    tracker
}

/// From an address in a /24 of the carrier in which the device was not yet.
fn on_carrier(tracker: &Event, number: usize) -> Event {
    tracker.from(&format!("198.18.{}.{}", 10 + number % 90, 1 + number))
}

#[test]
fn renewed_certificate_on_a_carrier_is_not_revoked() {
    let mut scenario = Scenario::in_town();
    let tracker = tracker(&mut scenario);
    let mut alerts = Vec::new();
    for day in 0..3 {
        for hour in 0..14 {
            scenario.wait(HOUR);
            let call = on_carrier(&tracker, 42 + day * 14 + hour).set("binding", "x5t#S256:new");
            let outcome = scenario.see(&call);
            assert!(outcome.verdict < Verdict::Revoke, "{outcome:#?}");
            if outcome.verdict == Verdict::Alert {
                alerts.push((day, hour));
            }
            if day + hour == 0 {
                assert!(share(&outcome, BindingMismatch) > 9.0, "{outcome:#?}");
            }
            assert!(day < 2 || share(&outcome, BindingMismatch) < 1.0, "{day} {hour}: {outcome:#?}");
        }
        scenario.wait(10 * HOUR);
    }
    assert!(alerts.iter().all(|(day, hour)| *day == 0 && *hour < 8), "old news: {alerts:?}");
    // The old key is no longer the owner's.
    let copy = scenario.see(&tracker.from(address::LEIPZIG_HOST).set("binding", "x5t#S256:old"));
    assert_eq!(copy.verdict, Verdict::Revoke, "{copy:#?}");
}

#[test]
fn key_of_a_thief_next_to_the_owners_revokes() {
    let mut scenario = Scenario::in_town();
    let tracker = tracker(&mut scenario);
    let thief = tracker.from(address::LEIPZIG_HOST);
    // A thief may use a key of its own for each request.
    let first = scenario.see(&thief.clone().set("binding", "x5t#S256:thief"));
    assert!(fired(&first, BindingMismatch) && first.verdict >= Verdict::Alert, "{first:#?}");
    scenario.wait(15 * MINUTE);
    let owner = scenario.see(&on_carrier(&tracker, 42).set("binding", "x5t#S256:old"));
    assert!(owner.verdict < Verdict::Revoke, "{owner:#?}");
    scenario.wait(MINUTE);
    let again = scenario.see(&thief.set("binding", "x5t#S256:thief-2"));
    assert_eq!(again.verdict, Verdict::Revoke, "{again:#?}");
}

#[test]
fn thief_who_waits_for_a_sleeping_owner_is_not_accepted() {
    let mut scenario = Scenario::in_town();
    let tracker = tracker(&mut scenario);
    let thief = tracker.from(address::LEIPZIG_HOST).set("binding", "x5t#S256:thief");
    for hour in 0..9 * 24 {
        scenario.wait(HOUR);
        let outcome = scenario.see(&thief);
        assert!(share(&outcome, BindingMismatch) > 9.0, "after {hour} hours: {outcome:#?}");
        assert!(hour > 0 || outcome.verdict == Verdict::Alert, "{outcome:#?}");
    }
    scenario.wait(HOUR);
    let owner = scenario.see(&on_carrier(&tracker, 42).set("binding", "x5t#S256:old"));
    assert!(owner.verdict < Verdict::Revoke, "{owner:#?}");
    scenario.wait(MINUTE);
    let again = scenario.see(&thief);
    assert_eq!(again.verdict, Verdict::Revoke, "{again:#?}");
}

#[test]
fn same_token_with_another_dpop_key_is_revoked_at_once() {
    for (token_type, verdict) in
        [("access", Verdict::Revoke), ("session", Verdict::Revoke), ("api_key", Verdict::Alert)]
    {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 20).set("token_type", token_type);
        scenario.wait(15 * HOUR);
        scenario.see_bound(&ana, "jkt:owner", 12);
        scenario.wait(2 * MINUTE);
        let copy = scenario.see(&ana.from(address::LEIPZIG_HOST).set("binding", "jkt:thief"));
        assert!(fired(&copy, BindingMismatch), "{token_type}: {copy:#?}");
        assert_eq!(copy.verdict, verdict, "{token_type}: {copy:#?}");
    }
}

#[test]
fn renewed_certificate_at_home_revokes_nothing() {
    let mut scenario = Scenario::in_town();
    let sensor = scenario.office_worker("ana", 20);
    scenario.wait(15 * HOUR);
    scenario.see_bound(&sensor, "x5t#S256:old", 12);
    let shares = [0; 8].map(|_| {
        scenario.wait(12 * HOUR);
        let outcome = scenario.see(&sensor.clone().set("binding", "x5t#S256:new"));
        assert!(outcome.verdict < Verdict::Alert, "{outcome:#?}");
        share(&outcome, BindingMismatch)
    });
    assert!(shares[0] > 9.0 && shares[7] < 1.0, "watched, and then old news: {shares:?}");
    let thief = sensor.from(address::LEIPZIG_HOST).set("binding", "x5t#S256:thief");
    let copy = scenario.see(&thief);
    assert_eq!(copy.verdict, Verdict::Alert, "{copy:#?}");
    scenario.wait(15 * MINUTE);
    scenario.see(&sensor.clone().set("binding", "x5t#S256:new"));
    let copy = scenario.see(&thief);
    assert_eq!(copy.verdict, Verdict::Revoke, "{copy:#?}");
}
