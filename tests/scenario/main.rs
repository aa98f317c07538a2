//! Scenarios: events of owners and thieves, and the expected verdicts.
//!
//! Each scenario runs in a town of forty other people with ordinary traffic, so that there is a population to compare
//! with. Everything is as in the service: events are JSON and decoded by the real decoder.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test that cannot go on says so")]

mod attack;
mod clock;
mod ends;
mod feedback;
mod keys;
mod refused;
mod scenario;
mod source;
mod tenants;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use scenario::{Atlas, DAY, Event, HOUR, MINUTE, SECOND, Scenario, address, fired, neighbours_call, share};
use tokenwarden::checkpoint::Position;
use tokenwarden::engine;
use tokenwarden::enrich::Enricher;
use tokenwarden::lab::simulate::{Settings, Simulation};
use tokenwarden::notify;
use tokenwarden::pipeline::{Epoch, Pipeline, VerdictOutput};
use tokenwarden::port::Message;
use tokenwarden::rule::RuleSet;
use tokenwarden::source::file::FileSource;
use tokenwarden::store::{NullRows, NullStore};
use tokenwarden::telemetry::{Health, Metrics, SystemClock};
use tokenwarden::token::TokenHasher;
use tokenwarden::verdict::RuleId::{
    AppFanout, BindingMismatch, ConcurrentUse, ImpossibleTravel, IpFanout, NewClient, NewCountry, NewIp, NewNetwork,
    RefreshReuse, UseAfterExpiry, UseAfterRevocation, UseAfterSessionEnd,
};
use tokenwarden::verdict::{Action, Outcome, Verdict};
use tokenwarden::wire::{Decoded, Decoder, Format};
use tokenwarden::worker::{Environment, Limits, Spread, Worker};

// --- Legitimate use -----------------------------------------------------------------------------------------------

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

// --- Thefts -------------------------------------------------------------------------------------------------------

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
    let outcome = scenario.see(&ana.presents(&copied).from(address::LEIPZIG_HOST).agent("okhttp/4.12.0"));
    assert!(fired(&outcome, RefreshReuse), "{outcome:#?}");
    assert!(share(&outcome, RefreshReuse) >= 13.0, "{outcome:#?}");
    assert_eq!((outcome.verdict, outcome.action), (Verdict::Revoke, Action::RevokeFamily), "{outcome:#?}");
    let incident = outcome.incident.as_deref().expect("an incident opens");
    assert!(incident.report && incident.family_id == "grant-ana" && incident.user_id == "ana", "{incident:#?}");
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

// --- Invariants ---------------------------------------------------------------------------------------------------

#[test]
fn repeated_delivery_changes_nothing() {
    let outcomes_of = |twice: bool| {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 20);
        scenario.wait(15 * HOUR);
        let mut delivered = Vec::new();
        for from in [address::BERLIN, address::LEIPZIG_HOST, address::BERLIN, address::LEIPZIG_HOST] {
            scenario.wait(MINUTE);
            delivered.push(scenario.send(&ana.from(from)));
            if twice {
                for line in &delivered {
                    assert!(scenario.score(line).is_none(), "it is known by its id");
                }
            }
        }
        scenario.last_verdicts(4)
    };
    assert_eq!(outcomes_of(false), outcomes_of(true));
}

/// Three hours of an owner and a thief in six orders: each event is scored, the thief is detected, and the owner is
/// allowed in every order.
#[test]
fn any_order_of_arrival_detects_the_thief() {
    let mut order: u64 = 1;
    for _ in 0..6 {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 30);
        let began = scenario.now();
        let thief = ana.from(address::SYDNEY).agent("curl/8.9.1").set("endpoint", "/v1/admin/secrets");
        let mut calls: Vec<(i64, bool)> =
            (0..40).map(|call| (began + call * 4 * MINUTE + call % 7 * SECOND, call % 2 == 1)).collect();
        for place in (1..calls.len()).rev() {
            order = order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            calls.swap(place, (order >> 33) as usize % (place + 1));
        }
        let mut gravest = [Verdict::Allow; 2];
        for (at, stolen) in calls {
            let outcome = scenario.see_at(at, if stolen { &thief } else { &ana });
            assert!(outcome.log_odds.is_finite() && (0.0..=1.0).contains(&outcome.p_value), "{outcome:#?}");
            let gravest = &mut gravest[usize::from(stolen)];
            *gravest = outcome.verdict.max(*gravest);
        }
        let [owner, thief] = gravest;
        assert!(thief >= Verdict::Alert && owner < Verdict::Revoke, "{gravest:?}");
    }
}

#[test]
fn verdicts_do_not_depend_on_batches() {
    let mut simulation = Simulation::new(Settings {
        people: 50,
        services: 8,
        build_jobs: 4,
        plugin_users: 6,
        ..Settings::fortnight(NOW)
    });
    let mut events = Vec::new();
    while simulation.next_day(&mut events) {}
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &events).expect("written");
    let outcomes_of = |spread, batch| verdicts(file.path(), spread, batch);
    let ten_thousand = outcomes_of(Spread::Whole(Format::Native.into()), 10_000);
    assert!(ten_thousand.split(|byte| *byte == b'\n').count() > 10_000);
    // The compared bytes include shares, observed and expected values and reasons.
    let signals =
        ten_thousand.split(|byte| *byte == b'\n').filter(|line| line.windows(9).any(|at| at == b"expected\""));
    assert!(signals.count() > 100, "many events have signals");
    assert!(
        ten_thousand == outcomes_of(Spread::Whole(Format::Native.into()), 10_000),
        "the second run gives other verdicts"
    );
    assert!(ten_thousand == outcomes_of(Spread::Whole(Format::Native.into()), 1), "batches of one give other verdicts");
    assert!(
        ten_thousand == outcomes_of(Spread::BySubject(Format::Native.into(), 1), 10_000),
        "one partition gives the verdicts of all"
    );

    // Three partitions give each user's events the same verdicts as each partition alone, in the order of the input.
    let together = outcomes_of(Spread::BySubject(Format::Native.into(), 3), 10_000);
    assert!(together != ten_thousand, "each partition has its own population");
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    let mut order = Vec::new();
    let mut decoder = Decoder::new(Format::Native, TokenHasher::new(b"a key for stories"));
    for line in events.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        decoder.decode(line, &mut |decoded| {
            let Ok(Decoded::Event(event)) = decoded else { panic!("made-up events are events") };
            let part = event.partition_among(3);
            parts[part].extend_from_slice(line);
            parts[part].push(b'\n');
            order.push((part, event.event_id.to_string()));
        });
    }
    let settings =
        engine::Settings { alert_budget_per_day: 7, alert_budget_total_per_day: 7, ..engine::Settings::default() };
    let mut alone = parts.map(|part| {
        std::fs::write(file.path(), &part).expect("written");
        let lines =
            verdicts_of(pipeline_with(settings.clone()), file.path(), Spread::Whole(Format::Native.into()), 10_000);
        String::from_utf8(lines).expect("JSON is text").lines().rev().map(str::to_owned).collect::<Vec<_>>()
    });
    let mut merged = String::new();
    for (part, id) in order {
        let starts = format!("{{\"event_id\":\"{id}\"");
        // A repeated delivery has no verdict.
        if let Some(line) = alone[part].pop_if(|line| line.starts_with(&starts)) {
            merged += &line;
            merged.push('\n');
        }
    }
    assert!(merged.as_bytes() == together, "other partitions change the verdicts of a partition");
}

/// A thief's session with a token that the producer wrongly sends unhashed: no output contains it.
#[test]
fn outputs_contain_no_raw_token() {
    const JWT: [&str; 3] = ["eyJhbGciOiJSUzI1NiJ9", "eyJzdWIiOiJhbmEtb2YtYWNtZSJ9", "c2lnbmF0dXJlLW9mLWFuYQ"];
    let (jwt, personal) = (JWT.join("."), ["ghp", "0123456789abcdefghijABCDEFGHIJ012345"].join("_"));
    let mut scenario = Scenario::empty();
    let ana =
        Event::of("ana").set("token_id", &*jwt).set("family_id", &*personal).set("endpoint", format!("/v1/{jwt}"));
    let mut lines = vec![format!("{{\"event_id\":\"broken\",\"token_id\":\"{jwt}\"")];
    for _ in 0..200 {
        lines.push(scenario.write(&ana));
        scenario.wait(HOUR);
    }
    lines.push(scenario.write(&ana.kind("revoked")));
    for _ in 0..5 {
        scenario.wait(2 * MINUTE);
        lines.push(scenario.write(&ana.from(address::SYDNEY).agent(&personal)));
    }

    let mut pipeline = pipeline();
    let mut partition = pipeline.partition(Format::Native);
    let mut epoch = Epoch::new(NullRows::default()).with_verdicts(VerdictOutput::Lines);
    for (offset, line) in (0..).zip(&lines) {
        let position = Position::new("events", 0, offset);
        let message =
            Message { position: &position, key: None, payload: line.as_bytes(), logged_at: None, replayed: false };
        pipeline.process(&mut partition, &[message], NOW, &mut epoch);
    }
    assert_eq!((epoch.tally.events, epoch.tally.dead_letters), (206, 1));
    assert!(!epoch.incidents.is_empty(), "a theft opens an incident");
    let mut out = String::from_utf8(epoch.verdicts.take().unwrap_or_default()).expect("JSON is text");
    for incident in &epoch.incidents {
        out += &notify::block(incident);
        out += &serde_json::to_string(incident).expect("an incident is JSON");
    }
    for letter in &epoch.letters {
        out += &String::from_utf8_lossy(&letter.payload);
    }
    write!(out, "{:?}{:?}", epoch.rows, epoch.letters).expect("a String accepts all text");
    assert!(out.contains("hmac:"), "the token is named by its hash");
    for piece in JWT.iter().chain(&[&*personal]) {
        assert!(!out.contains(piece), "{piece}");
    }
}

/// Milliseconds since the epoch, a Monday.
const NOW: i64 = 1_790_000_000_000;

fn pipeline() -> Pipeline {
    pipeline_with(engine::Settings::default())
}

fn pipeline_with(settings: engine::Settings) -> Pipeline {
    pipeline_of(&TokenHasher::new(b"a key for stories"), settings)
}

fn pipeline_of(hasher: &TokenHasher, settings: engine::Settings) -> Pipeline {
    let enricher = Enricher::with_lookup(Box::new(Atlas));
    let rules = Arc::new(RuleSet::builtin());
    Pipeline::new(enricher, rules, hasher.clone(), settings)
}

/// The verdict lines of a file, in epochs of `epoch_messages_max`.
fn verdicts(file: &std::path::Path, spread: Spread, epoch_messages_max: u64) -> Vec<u8> {
    verdicts_of(pipeline(), file, spread, epoch_messages_max)
}

fn verdicts_of(pipeline: Pipeline, file: &std::path::Path, spread: Spread, epoch_messages_max: u64) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let environment = Environment {
        store: Arc::new(NullStore),
        outbox: None,
        clock: Arc::new(SystemClock),
        metrics: Arc::new(Metrics::new()),
        health: Arc::new(Health::default()),
        runtime: runtime.handle().clone(),
        limits: Limits { epoch_messages_max, ..Limits::REPLAY },
        reload: None,
    };
    let mut source = FileSource::open(vec![file.to_owned()]).expect("the file opens");
    let mut worker = Worker::new(pipeline, spread, VerdictOutput::Lines, environment);
    let mut lines = Vec::new();
    let done = worker.run(&mut source, &AtomicBool::new(false), &mut |epoch| {
        lines.extend_from_slice(epoch.verdicts.as_deref().unwrap_or_default());
        Ok(())
    });
    assert_eq!(done.expect("the file is read").dead_letters, 0);
    lines
}
