//! Attackers who know how the engine learns must not weaken detection.

use tokenwarden::engine;
use tokenwarden::verdict::RuleId::{NewClient, NewCountry, NewNetwork};
use tokenwarden::verdict::Verdict;

use super::story::{DAY, Event, HOUR, MINUTE, SECOND, Story, address, fired};

/// A thief who calls with a library and uses routes that the owner never calls.
fn bold_theft(story: &mut Story, owner: &Event, from: &str) -> Verdict {
    let thief = owner.from(from).agent("python-requests/2.31.0");
    let mut gravest = Verdict::Allow;
    for number in 0..12 {
        story.wait(20 * SECOND);
        let call = thief.clone().set("endpoint", format!("/v1/admin/secrets/{number}"));
        gravest = gravest.max(story.see(&call).verdict);
    }
    gravest
}

/// One ordinary call a day with the stolen token from another country, which could be a trip of the owner. It is
/// watched at first. However much was learnt, the later misuse from that place still alerts.
#[test]
fn slow_thief_does_not_become_the_owner() {
    let mut story = Story::in_town();
    let ana = story.office_worker("ana", 30);
    for day in 0..21 {
        story.wait(4 * HOUR);
        let slow = story.see(&ana.from(address::SYDNEY));
        assert!(day > 0 || slow.verdict >= Verdict::Watch && fired(&slow, NewCountry), "{slow:#?}");
        own_day(&mut story, &ana);
    }
    assert!(bold_theft(&mut story, &ana, address::SYDNEY) >= Verdict::Alert);
}

/// Events that are more likely a theft are hardly learnt: after a week, place and client are as new as on the first
/// day.
#[test]
fn suspicious_visits_are_not_learnt() {
    let mut story = Story::in_town();
    let ana = story.office_worker("ana", 30);
    let thief = ana.from(address::LEIPZIG_HOST).agent("python-requests/2.31.0").set("endpoint", "/v1/admin/secrets");
    for day in 0..7 {
        story.wait(4 * HOUR);
        let seen = story.see(&thief);
        assert!(seen.log_odds > 1.0, "on day {day}: {seen:#?}");
        assert!(fired(&seen, NewNetwork) && fired(&seen, NewClient), "on day {day}: {seen:#?}");
        own_day(&mut story, &ana);
    }
}

/// Four calls of the owner, until a day has passed.
fn own_day(story: &mut Story, owner: &Event) {
    story.wait(11 * HOUR);
    for _ in 0..4 {
        story.wait(2 * HOUR);
        let seen = story.see(owner);
        assert!(seen.verdict < Verdict::Alert, "{seen:#?}");
    }
    story.wait(HOUR);
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
    let mut story = Story::in_town_with(settings);
    let ana = story.office_worker("ana", 30);
    story.wait(15 * HOUR);
    let (before, _) = story.state().memory();
    let call = Event::of("x").agent("curl/8.5.0").from("203.0.113.5");
    let call = story.write(&call.set("token_id", "NEW").set("family_id", "NEW").set("user_id", "NEW"));
    let (head, tail) = call.split_once("\"event_id\":\"").expect("it has an id");
    let (_, tail) = tail.split_once('"').expect("its id ends");
    for number in 0..ids {
        let event = format!("{head}\"event_id\":\"flood-{number}\"{tail}").replace("NEW", &format!("new-{number}"));
        story.judge(&event).expect("its id is new");
    }
    let (after, baselines) = story.state().memory();
    assert!(baselines <= 1_000, "{baselines}");
    assert!(after <= before + 1_000 * 1_100, "{before} bytes became {after}");
    // The owner's history is still there: home is known, another place is new.
    let home = story.see(&ana);
    assert!(home.verdict == Verdict::Allow && !fired(&home, NewNetwork), "{home:#?}");
    assert!(bold_theft(&mut story, &ana, address::LEIPZIG_HOST) >= Verdict::Alert);
}

/// The latest time that the decoder accepts, once for the same token and once for a stranger's. Later events are scored
/// as without it.
#[test]
fn event_from_the_far_future_changes_nothing() {
    const FAR: i64 = 7_258_118_399_999;
    let told = |far: bool| {
        let mut story = Story::in_town();
        let ana = story.office_worker("ana", 30);
        story.wait(15 * HOUR);
        if far {
            story.see_at(FAR, &ana);
            story.see_at(FAR, &Event::of("stranger").from("198.19.7.7"));
        }
        let mut verdicts = Vec::new();
        for _ in 0..6 {
            story.wait(HOUR);
            verdicts.push(story.see(&ana).verdict);
        }
        verdicts.push(bold_theft(&mut story, &ana, address::LEIPZIG_HOST));
        verdicts
    };
    let (spared, struck) = (told(false), told(true));
    assert!(spared[..6].iter().all(|verdict| *verdict == Verdict::Allow) && spared[6] >= Verdict::Alert, "{spared:?}");
    assert_eq!(spared, struck);
}

/// Every second event of the tenant has a time one day ahead.
#[test]
fn producer_a_day_ahead_hides_no_theft() {
    let mut story = Story::in_town();
    let ana = story.office_worker("ana", 30);
    let bo = story.phone_user("bo", 0);
    for number in 0..80_i64 {
        story.wait(3 * HOUR / 2);
        let at = story.now() + if number % 2 == 0 { DAY } else { 0 };
        let hour = story.now() % DAY / HOUR;
        if (8..18).contains(&hour) {
            let owner = story.see_at(at, &ana);
            assert!(owner.verdict < Verdict::Alert, "at {number}: {owner:#?}");
        }
        let phone = story.see_at(at + MINUTE, &bo.from(&format!("198.18.{}.{}", number % 8, 1 + number % 250)));
        assert!(phone.verdict < Verdict::Alert, "at {number}: {phone:#?}");
    }
    let thief = ana.from(address::LEIPZIG_HOST).agent("python-requests/2.31.0");
    let gravest = (0..12_i64).map(|number| {
        story.wait(20 * SECOND);
        let at = story.now() + if number % 2 == 0 { DAY } else { 0 };
        story.see_at(at, &thief.clone().set("endpoint", format!("/v1/admin/secrets/{number}"))).verdict
    });
    assert!(gravest.max() >= Some(Verdict::Alert));
}
