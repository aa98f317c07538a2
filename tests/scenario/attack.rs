//! Attackers that know how the engine learns must not weaken detection.

use tokenwarden::engine;
use tokenwarden::verdict::RuleId::{NewClient, NewCountry, NewEndpoint, NewNetwork};
use tokenwarden::verdict::Verdict;

use super::scenario::{DAY, Event, HOUR, MINUTE, SECOND, Scenario, address, fired, share};

/// A thief with a library as client, on routes that the owner never calls.
fn bold_theft(scenario: &mut Scenario, owner: &Event, from: &str) -> Verdict {
    let thief = owner.from(from).agent("python-requests/2.31.0");
    let mut gravest = Verdict::Allow;
    for number in 0..12 {
        scenario.wait(20 * SECOND);
        let call = thief.clone().set("endpoint", format!("/v1/admin/secrets/{number}"));
        gravest = gravest.max(scenario.see(&call).verdict);
    }
    gravest
}

/// One ordinary call a day with the stolen token from another country, which could be a trip of the owner. It is
/// watched at first. After many days, misuse from that place still alerts.
#[test]
fn slow_thief_is_not_learnt_as_owner() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    for day in 0..21 {
        scenario.wait(4 * HOUR);
        let slow = scenario.see(&ana.from(address::SYDNEY));
        assert!(day > 0 || fired(&slow, NewCountry), "{slow:#?}");
        own_day(&mut scenario, &ana);
    }
    assert!(bold_theft(&mut scenario, &ana, address::SYDNEY) >= Verdict::Alert);
}

/// Events that are more likely a theft are hardly learnt. After a week, place and client are as new as on the first
/// day.
#[test]
fn suspicious_visits_are_not_learnt() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    let thief = ana.from(address::LEIPZIG_HOST).agent("python-requests/2.31.0").set("endpoint", "/v1/admin/secrets");
    for day in 0..7 {
        scenario.wait(4 * HOUR);
        let seen = scenario.see(&thief);
        assert!(seen.log_odds > 1.0, "on day {day}: {seen:#?}");
        assert!(fired(&seen, NewNetwork) && fired(&seen, NewClient), "on day {day}: {seen:#?}");
        own_day(&mut scenario, &ana);
    }
}

/// Four calls of the owner, until a day has passed.
fn own_day(scenario: &mut Scenario, owner: &Event) {
    scenario.wait(11 * HOUR);
    for _ in 0..4 {
        scenario.wait(2 * HOUR);
        let seen = scenario.see(owner);
        assert!(seen.verdict < Verdict::Alert, "{seen:#?}");
    }
    scenario.wait(HOUR);
}

#[test]
fn flood_of_ids_evicts_no_baseline() {
    flood(20_000);
}

#[test]
#[ignore = "slow: a million events"]
fn flood_of_a_million_ids_evicts_no_baseline() {
    flood(1_000_000);
}

/// New ids, each used once, in a partition with room for a thousand.
fn flood(ids: u32) {
    let settings =
        engine::Settings { baselines_max: 1_000, recent_event_ids_max: 1 << 12, ..engine::Settings::default() };
    let mut scenario = Scenario::in_town_with(settings);
    let ana = scenario.office_worker("ana", 30);
    scenario.wait(15 * HOUR);
    let (before, _) = scenario.state().memory();
    let call = Event::of("x").agent("curl/8.5.0").from("203.0.113.5");
    let call = scenario.write(&call.set("token_id", "NEW").set("family_id", "NEW").set("user_id", "NEW"));
    let (head, tail) = call.split_once("\"event_id\":\"").expect("it has an id");
    let (_, tail) = tail.split_once('"').expect("its id ends");
    for number in 0..ids {
        let event = format!("{head}\"event_id\":\"flood-{number}\"{tail}").replace("NEW", &format!("new-{number}"));
        scenario.score(&event).expect("its id is new");
    }
    let (after, baselines) = scenario.state().memory();
    assert!(baselines <= 1_000, "{baselines}");
    assert!(after <= before + 1_000 * 1_100, "{before} bytes became {after}");
    // The owner's history is still there: home is known, another place is new.
    let home = scenario.see(&ana);
    assert!(home.verdict == Verdict::Allow && !fired(&home, NewNetwork), "{home:#?}");
    assert!(bold_theft(&mut scenario, &ana, address::LEIPZIG_HOST) >= Verdict::Alert);
}

/// The latest time that the decoder accepts, for the same token and for a stranger's. Later events are scored as
/// without
/// it.
#[test]
fn event_from_the_far_future_changes_nothing() {
    const FAR: i64 = 7_258_118_399_999;
    let outcome_of = |far: bool| {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 30);
        scenario.wait(15 * HOUR);
        if far {
            scenario.see_at(FAR, &ana);
            scenario.see_at(FAR, &Event::of("stranger").from("198.19.7.7"));
        }
        let mut verdicts = Vec::new();
        for _ in 0..6 {
            scenario.wait(HOUR);
            verdicts.push(scenario.see(&ana).verdict);
        }
        verdicts.push(bold_theft(&mut scenario, &ana, address::LEIPZIG_HOST));
        verdicts
    };
    let (spared, struck) = (outcome_of(false), outcome_of(true));
    assert!(spared[..6].iter().all(|verdict| *verdict == Verdict::Allow) && spared[6] >= Verdict::Alert, "{spared:?}");
    assert_eq!(spared, struck);
}

/// Every second event of the tenant has a time one day ahead.
#[test]
fn producer_a_day_ahead_hides_no_theft() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    let bo = scenario.phone_user("bo", 0);
    for number in 0..80_i64 {
        scenario.wait(3 * HOUR / 2);
        let at = scenario.now() + if number % 2 == 0 { DAY } else { 0 };
        let hour = scenario.now() % DAY / HOUR;
        if (8..18).contains(&hour) {
            let owner = scenario.see_at(at, &ana);
            assert!(owner.verdict < Verdict::Alert, "at {number}: {owner:#?}");
        }
        let phone = scenario.see_at(at + MINUTE, &bo.from(&format!("198.18.{}.{}", number % 8, 1 + number % 250)));
        assert!(phone.verdict < Verdict::Alert, "at {number}: {phone:#?}");
    }
    let thief = ana.from(address::LEIPZIG_HOST).agent("python-requests/2.31.0");
    let gravest = (0..12_i64).map(|number| {
        scenario.wait(20 * SECOND);
        let at = scenario.now() + if number % 2 == 0 { DAY } else { 0 };
        scenario.see_at(at, &thief.clone().set("endpoint", format!("/v1/admin/secrets/{number}"))).verdict
    });
    assert!(gravest.max() >= Some(Verdict::Alert));
}

#[test]
fn known_areas_do_not_hide_new_ones() {
    // Highest share of unusual calls in a visit that calls 16 new areas after `known` areas of the owner.
    let highest = |known: u8| {
        let mut scenario = Scenario::in_town();
        let call = |name: &str, number: u8| {
            Event::of("ana").set("endpoint", format!("/v1/{name}{}/items", char::from(b'a' + number)))
        };
        for day in 0..30 {
            scenario.wait(23 * HOUR);
            for number in 0..20 {
                scenario.wait(10 * SECOND);
                scenario.see(&call("part", (number + day) % 20));
            }
        }
        scenario.wait(23 * HOUR);
        let calls = (0..known).map(|number| call("part", number)).chain((0..16).map(|number| call("other", number)));
        let shares = calls.map(|call| {
            scenario.wait(10 * SECOND);
            share(&scenario.see(&call), NewEndpoint)
        });
        shares.fold(0.0, f64::max)
    };
    let (alone, hidden) = (highest(0), highest(16));
    // The usual calls favour the owner. The new areas are worth 2 nats.
    assert!(alone > 11.0 && hidden > 7.5, "{alone} {hidden}");
}
