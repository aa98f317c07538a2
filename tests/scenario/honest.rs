//! Unusual activity of owners raises no alert.

use super::*;

#[test]
fn slow_traveller_is_allowed() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    scenario.wait(36 * HOUR);
    let arrived = scenario.see(&ana.from(address::SYDNEY));
    assert!(!fired(&arrived, ImpossibleTravel), "{arrived:#?}");
    assert!(arrived.verdict < Verdict::Alert, "{arrived:#?}");
    for _ in 0..20 {
        scenario.wait(40 * MINUTE);
        let later = scenario.see(&ana.from(address::SYDNEY));
        assert!(later.verdict < Verdict::Alert, "{later:#?}");
    }
}

#[test]
fn roaming_phone_is_one_holder() {
    let mut scenario = Scenario::in_town();
    let bo = scenario.phone_user("bo", 30);
    // Three days on a local carrier in Paris, and home again: only two changes.
    scenario.wait(8 * HOUR);
    for number in 0..12 {
        scenario.wait(2 * HOUR);
        let abroad = scenario.see(&bo.from(&format!("198.19.7.{}", number + 1)));
        assert!(!fired(&abroad, ConcurrentUse) && !fired(&abroad, ImpossibleTravel), "{abroad:#?}");
        assert!(abroad.verdict < Verdict::Alert, "{abroad:#?}");
    }
    scenario.wait(8 * HOUR);
    let home = scenario.see(&bo.from("198.18.3.77"));
    assert!(!fired(&home, ConcurrentUse), "{home:#?}");
    assert!(home.verdict < Verdict::Alert, "{home:#?}");
}

#[test]
fn changing_carrier_addresses_are_not_new() {
    let mut scenario = Scenario::in_town();
    let bo = scenario.phone_user("bo", 30);
    for number in 0..30 {
        scenario.wait(90 * MINUTE);
        let outcome = scenario.see(&bo.from(&format!("198.18.{}.{}", number % 8, 100 + number)));
        assert!(!fired(&outcome, NewIp) && !fired(&outcome, NewNetwork), "{outcome:#?}");
        assert!(outcome.verdict < Verdict::Watch, "{outcome:#?}");
    }
}

#[test]
fn ipv4_and_ipv6_of_one_line_are_one_holder() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    scenario.wait(15 * HOUR);
    for number in 0..30 {
        scenario.wait(20 * SECOND);
        let from = if number % 2 == 0 { "2001:db8:1:7::a1" } else { address::BERLIN };
        let outcome = scenario.see(&ana.from(from));
        assert!(!fired(&outcome, ConcurrentUse), "after {number}: {outcome:#?}");
        assert!(outcome.verdict < Verdict::Alert, "after {number}: {outcome:#?}");
    }
}

#[test]
fn v4_mapped_address_is_the_v4_address() {
    let outcomes_of = |prefix: &str| {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 30);
        scenario.wait(15 * HOUR);
        for from in [address::BERLIN, address::SYDNEY, address::BERLIN] {
            scenario.wait(MINUTE);
            scenario.see(&ana.from(&format!("{prefix}{from}")));
        }
        scenario.last_verdicts(3)
    };
    assert_eq!(outcomes_of(""), outcomes_of("::ffff:"));
}

#[test]
fn racing_refreshes_are_not_a_theft() {
    let mut scenario = Scenario::in_town();
    let mut ana = scenario.rotating("ana", 20);
    let used = ana.refresh_token();
    scenario.refresh(&mut ana);
    for _ in 0..3 {
        scenario.wait(8 * SECOND);
        let again = scenario.see(&ana.presents(&used).from(address::BERLIN));
        assert!(!fired(&again, RefreshReuse), "{again:#?}");
        assert!(again.verdict < Verdict::Alert, "{again:#?}");
    }
}

#[test]
fn new_context_becomes_known_after_weeks() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    let stranger = ana.from(address::SYDNEY).agent("axios/1.13.2");
    let first = scenario.see(&stranger);
    let mut last = first.clone();
    for _ in 0..21 {
        scenario.wait(DAY);
        scenario.see(&ana);
        last = scenario.see(&stranger);
    }
    assert!(fired(&first, NewCountry) && first.verdict >= Verdict::Alert, "{first:#?}");
    assert!(last.log_odds < first.log_odds - 3.0, "{} and then {}", first.log_odds, last.log_odds);

    // One call, and none for weeks, does not become known.
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    let first = scenario.see(&stranger);
    for _ in 0..21 {
        scenario.wait(DAY);
        scenario.see(&ana);
    }
    let last = scenario.see(&stranger);
    assert!(last.log_odds > first.log_odds - 2.0, "{} and then {}", first.log_odds, last.log_odds);
}

#[test]
fn confirmed_uses_are_the_owners() {
    let suspect = |scenario: &mut Scenario, ana: &Event| {
        scenario.wait(HOUR);
        scenario.see(&ana.from(address::LEIPZIG_HOST).agent("curl/8.9.1"))
    };
    let (mut asked, mut unasked) = (Scenario::in_town_confirmed(), Scenario::in_town_confirmed());
    let ana = asked.office_worker("ana", 30);
    unasked.office_worker("ana", 30);
    assert!(suspect(&mut asked, &ana).verdict >= Verdict::Alert);
    suspect(&mut unasked, &ana);
    asked.wait(MINUTE);
    asked.see(&ana.kind("confirmed"));
    assert_eq!((asked.state().counters().confirmed, asked.state().counters().confirmed_alarms), (1, 1));
    let (confirmed, alarming) = (suspect(&mut asked, &ana), suspect(&mut unasked, &ana));
    assert!(alarming.verdict >= Verdict::Alert, "{alarming:#?}");
    assert_eq!(confirmed.verdict, Verdict::Allow, "{confirmed:#?}");
    assert!(!fired(&confirmed, NewClient) && !fired(&confirmed, NewNetwork), "{confirmed:#?}");
    // Another place is as new as before, and a confirmation for another grant has no effect.
    let mut elsewhere = asked.see(&ana.from(address::SYDNEY).agent("axios/1.13.2"));
    assert!(elsewhere.verdict >= Verdict::Alert, "{elsewhere:#?}");
    asked.see(&ana.kind("confirmed").set("family_id", "grant-of-nobody").set("token_id", "at-of-nobody"));
    elsewhere = asked.see(&ana.from(address::SYDNEY).agent("axios/1.13.2"));
    assert!(elsewhere.verdict >= Verdict::Alert, "{elsewhere:#?}");
}

#[test]
fn lost_response_is_retried_by_the_same_phone() {
    let mut scenario = Scenario::in_town();
    let mut ana = scenario.rotating("ana", 20);
    let used = ana.refresh_token();
    // The response is lost: the issued token is never used.
    scenario.refresh(&mut ana);
    scenario.wait(3 * MINUTE);
    let again = scenario.see(&ana.presents(&used).from(address::BERLIN));
    assert!(!fired(&again, RefreshReuse), "{again:#?}");
}

#[test]
fn crashed_client_keeps_its_grant() {
    let mut scenario = Scenario::in_town();
    let mut ana = scenario.rotating("ana", 20);
    let kept = ana.refresh_token();
    scenario.refresh(&mut ana);
    scenario.see(&ana.uses().from(address::BERLIN));
    scenario.wait(2 * HOUR);
    let again = scenario.see(&ana.presents(&kept).from(address::BERLIN));
    assert!(share(&again, RefreshReuse) >= 9.0, "{again:#?}");
    assert!((Verdict::Watch..Verdict::Revoke).contains(&again.verdict), "{again:#?}");
}

#[test]
fn renewed_certificate_in_a_long_visit_is_allowed() {
    let mut scenario = Scenario::in_town();
    let sensor = Event::of("sensor").from("198.18.7.7").agent("sensor-fw/3.1").set("binding", "x5t#S256:old");
    for _ in 0..5 * 144 {
        scenario.wait(10 * MINUTE);
        scenario.see(&sensor);
    }
    let renewed = scenario.see(&sensor.clone().set("binding", "x5t#S256:new"));
    assert!(share(&renewed, BindingMismatch) >= 9.0, "{renewed:#?}");
    assert!(renewed.verdict < Verdict::Revoke, "{renewed:#?}");
}

#[test]
fn one_quiet_visit_is_no_usual_place() {
    // From a new network, and from the owner's provider.
    for place in ["198.18.9.9", "192.0.77.10"] {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 20);
        scenario.wait(15 * HOUR);
        scenario.see_bound(&ana, "jkt:owner", 6);
        scenario.wait(HOUR);
        scenario.see(&ana.from(place));
        scenario.wait(HOUR);
        let copy = scenario.see(&ana.from(place).set("binding", "jkt:thief"));
        assert_eq!(copy.verdict, Verdict::Revoke, "from {place}: {copy:#?}");
    }
}

#[test]
fn refresh_token_without_rotation_is_reusable() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.rotating("ana", 1);
    let forever = ana.refresh_token();
    for _ in 0..50 {
        scenario.wait(HOUR);
        let outcome = scenario.see(&ana.presents(&forever).from(address::BERLIN));
        assert!(!fired(&outcome, RefreshReuse), "{outcome:#?}");
    }
}

#[test]
fn next_token_of_a_family_has_its_history() {
    let mut scenario = Scenario::in_town();
    let mut ana = scenario.rotating("ana", 40);
    for _ in 0..5 {
        scenario.wait(HOUR);
        scenario.refresh(&mut ana);
        let outcome = scenario.see(&ana.uses().from(address::BERLIN));
        assert!(outcome.signals.iter().all(|signal| !signal.fired), "{outcome:#?}");
        assert_eq!(outcome.verdict, Verdict::Allow);
    }
}

#[test]
fn calls_in_transit_at_revocation_are_allowed() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 20);
    scenario.wait(15 * HOUR);
    scenario.see(&ana.clone().set("status", 200));
    scenario.see(&ana.kind("revoked"));
    scenario.wait(10 * SECOND);
    let outcome = scenario.see(&ana.clone().set("status", 200));
    assert!(!fired(&outcome, UseAfterRevocation), "{outcome:#?}");
}

#[test]
fn client_calling_after_revocation_is_allowed() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 20);
    scenario.wait(15 * HOUR);
    scenario.see(&ana.kind("revoked"));
    for _ in 0..10 {
        scenario.wait(5 * MINUTE);
        let outcome = scenario.see(&ana.clone().set("status", 401));
        assert!(!fired(&outcome, UseAfterRevocation), "{outcome:#?}");
        assert!(outcome.verdict < Verdict::Alert, "{outcome:#?}");
    }
}

#[test]
fn clock_difference_expires_no_token() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 20);
    scenario.wait(15 * HOUR);
    let outcome = scenario.see(&ana.clone().set("status", 200).set("expires_at", scenario.now() - 40 * SECOND));
    assert!(!fired(&outcome, UseAfterExpiry), "{outcome:#?}");
}

#[test]
fn missing_binding_is_no_mismatch() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 20);
    scenario.wait(15 * HOUR);
    for number in 0..12 {
        scenario.wait(2 * MINUTE);
        let bound = if number % 3 == 2 { ana.clone() } else { ana.clone().set("binding", "jkt:owner") };
        let outcome = scenario.see(&bound);
        assert!(!fired(&outcome, BindingMismatch), "{outcome:#?}");
        assert!(outcome.verdict < Verdict::Alert, "{outcome:#?}");
    }
}

#[test]
fn clock_ahead_makes_no_token_expired() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 20);
    for number in 0..9 {
        scenario.wait(20 * SECOND);
        scenario.see(&neighbours_call(number));
    }
    // The owner's producer is 65 minutes ahead, and the issuer's clock is right: ten minutes remain.
    let expires_at = scenario.now() + 10 * MINUTE;
    let ahead = scenario.now() + 65 * MINUTE;
    let outcome = scenario.see_at(ahead, &ana.set("status", 200).set("expires_at", expires_at));
    assert!(!fired(&outcome, UseAfterExpiry) && outcome.verdict < Verdict::Alert, "{outcome:#?}");
}
