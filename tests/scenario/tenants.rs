//! Isolation of tenants, and resistance to a thief that knows the owner's events.

use tokenwarden::engine;
use tokenwarden::lab::simulate::Simulation;
use tokenwarden::token::TokenHasher;
use tokenwarden::verdict::{Outcome, RuleId, Verdict};
use tokenwarden::worker::Spread;

use super::scenario::{Event, HOUR, MINUTE, SECOND, Scenario, address, fired, neighbours_call};
use super::{Format, pipeline_of, verdicts_of};

/// The thief sends 70 calls with ids of the owner's events. All of them are scored.
#[test]
fn event_ids_of_the_owner_hide_no_theft() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    scenario.wait(15 * HOUR);
    for number in 0..70 {
        scenario.wait(2 * SECOND);
        let owners = scenario.see_as(&format!("own-{number}"), &ana);
        assert!(owners.is_some_and(|outcome| outcome.verdict < Verdict::Alert));
    }
    let thief = ana.from(address::LEIPZIG_HOST).agent("python-requests/2.31.0");
    let mut gravest = Verdict::Allow;
    for number in 0..70 {
        scenario.wait(20 * SECOND);
        let call = thief.clone().set("endpoint", format!("/v1/admin/secrets/{number}"));
        let outcome = scenario.see_as(&format!("own-{number}"), &call).expect("another event is scored");
        gravest = gravest.max(outcome.verdict);
    }
    assert!(gravest >= Verdict::Alert);
    assert_eq!((scenario.state().counters().ids_reused, scenario.state().counters().duplicates), (70, 0));
}

/// A second delivery of an event is ignored, even if fields outside its content differ.
#[test]
fn event_delivered_twice_is_one_event() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    let line = scenario.send(&ana);
    assert!(scenario.score(&line).is_none());
    assert!(
        scenario.score(&line.replace("\"status\":200", "\"status\":500")).is_none(),
        "it is no part of its content"
    );
    assert_eq!((scenario.state().counters().ids_reused, scenario.state().counters().duplicates), (0, 2));
    for (part, other) in [
        ("\"tenant_id\":\"acme\"", "\"tenant_id\":\"globex\""),
        ("\"token_id\":\"at-ana\"", "\"token_id\":\"at-bo\""),
        ("\"endpoint\":\"/v1/contacts\"", "\"endpoint\":\"/v1/deals\""),
        ("\"endpoint\":\"/v1/contacts\"", &format!("\"endpoint\":\"/v1/contacts?{}a\"", "x".repeat(3_000))),
        ("\"endpoint\":\"/v1/contacts\"", &format!("\"endpoint\":\"/v1/contacts?{}b\"", "x".repeat(3_000))),
        (address::BERLIN, address::SYDNEY),
        ("\"method\":\"GET\"", "\"method\":\"GET\",\"kind\":\"refreshed\""),
    ] {
        assert!(line.contains(part), "{line}");
        assert!(scenario.score(&line.replace(part, other)).is_some(), "{other} makes it another event");
    }
}

/// Two installations assign different numbers to names and give the same verdicts.
#[test]
fn verdicts_do_not_depend_on_the_key() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let settings = tokenwarden::lab::simulate::Settings {
        days: 6,
        ..tokenwarden::lab::simulate::Settings::afternoon(7, super::NOW)
    };
    let mut simulation = Simulation::new(settings);
    let mut lines = Vec::new();
    while simulation.next_day(&mut lines) {}
    std::fs::write(file.path(), &lines).expect("written");
    let [one, other] = [&b"one key"[..], b"another key"].map(|key| {
        let pipeline = pipeline_of(&TokenHasher::new(key), engine::Settings::default());
        let lines = verdicts_of(pipeline, file.path(), Spread::Whole(Format::Native.into()), 10_000);
        let lines = String::from_utf8(lines).expect("JSON is text");
        lines.lines().map(without_incident).collect::<Vec<_>>()
    });
    assert!(one.iter().any(|line| line.contains("\"verdict\":\"alert\"")), "some events alert");
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one, other);
    }
}

/// The incident id depends on the numbers of its baseline.
fn without_incident(line: &str) -> String {
    let (head, rest) = line.split_once("\"incident_id\":").expect("a verdict");
    let (_, tail) = rest.split_once(',').expect("the action follows");
    format!("{head}{tail}")
}

/// A service with client credentials gets a new access token every hour. Its history is that of its client.
#[test]
fn client_credentials_have_their_clients_past() {
    let mut scenario = Scenario::in_town();
    let call = Event::of("x").agent("sync/2.1").from("198.18.7.7").set("family_id", serde_json::Value::Null);
    let call = call.set("user_id", serde_json::Value::Null).set("token_type", "access").set("app_id", "sync");
    for number in 0..360 {
        scenario.wait(40 * MINUTE);
        let seen = scenario.see(&call.clone().set("token_id", format!("at-{number}")));
        assert!(seen.verdict < Verdict::Watch, "{number} {seen:#?}");
    }
    let thief = call.from(address::LEIPZIG_HOST).agent("python-requests/2.31.0").set("token_id", "at-stolen");
    let gravest = (0..12).map(|number| {
        scenario.wait(20 * SECOND);
        scenario.see(&thief.clone().set("endpoint", format!("/v1/admin/secrets/{number}"))).verdict
    });
    assert!(gravest.max() >= Some(Verdict::Alert));
}

/// Routes that the thieves in these scenarios call.
const LOOT: [&str; 3] = ["/v1/admin/secrets/7", "/v1/export/members", "/v1/billing/cards"];

/// Calls of a thief with the owner's token, and later calls of the owner.
fn theft_and_after(scenario: &mut Scenario, owner: &Event) -> Vec<Outcome> {
    let thief =
        owner.from(address::LEIPZIG_HOST).agent("python-requests/2.31.0").set("client_fingerprint", "ja4-thief");
    let mut outcomes = Vec::new();
    for number in 0..9 {
        scenario.wait(20 * SECOND);
        outcomes.push(scenario.see(&thief.clone().set("endpoint", LOOT[number % LOOT.len()])));
    }
    outcomes
}

/// How other tenants fill the partition with events like those of a thief.
#[derive(Clone, Copy, Debug)]
enum Flood {
    /// No events for the same time.
    None,
    /// Many users of one tenant, who have no history.
    ManyUsers,
    /// One user of one tenant.
    OneUser,
    /// Users with a history at home, so that their later calls have high scores.
    HighScores,
    /// A new tenant with each event.
    Invented,
    /// Many calls for each of a few unknown tenants.
    FewInvented,
    /// One known tenant, and new tenants.
    Both,
}

const FLOOD_EVENTS: u32 = 15_000;

/// Twenty hours of other tenants' events: from the thief's network, with the thief's client, at the thief's routes.
fn flood(scenario: &mut Scenario, flood: Flood) {
    let call = Event::of("x").from(address::LEIPZIG_HOST).agent("python-requests/2.31.0");
    let call = call.set("client_fingerprint", "ja4-thief");
    for number in 0..FLOOD_EVENTS {
        scenario.wait(4_800);
        let invented = |number: u32| format!("invented-{number}");
        let (tenant, user) = match flood {
            Flood::None => continue,
            Flood::ManyUsers => ("globex".to_owned(), number % 2_000),
            Flood::OneUser => ("globex".to_owned(), 0),
            Flood::HighScores => ("globex".to_owned(), number % 500),
            Flood::FewInvented => (invented(number % 40), number % 400),
            Flood::Both if number % 2 == 0 => ("globex".to_owned(), number % 2_000),
            Flood::Invented | Flood::Both => (invented(number), number),
        };
        let at_home = matches!(flood, Flood::HighScores) && number < FLOOD_EVENTS / 2;
        let from = if at_home { "198.18.7.7".to_owned() } else { format!("203.0.113.{}", 1 + user % 250) };
        let call = if at_home { Event::of("x").from(&from) } else { call.from(&from) };
        let call = call.set("tenant_id", tenant).set("user_id", format!("guest-{user}"));
        let call = call.set("token_id", format!("at-guest-{user}")).set("family_id", format!("grant-guest-{user}"));
        let endpoint = if at_home { "/v1/contacts" } else { LOOT[number as usize % LOOT.len()] };
        scenario.see_apart(&call.set("endpoint", endpoint));
    }
}

/// Asserts that log-odds and threshold in `after` equal those in `before`.
fn assert_alike(before: &[Outcome], after: &[Outcome], what: &str) {
    for (number, (before, after)) in before.iter().zip(after).enumerate() {
        let differ = after.log_odds - before.log_odds;
        assert!(differ.abs() < 0.5, "{what}, {number}: {differ} {before:#?} {after:#?}");
        assert!(after.alert_from < before.alert_from + 0.5, "{what}, {number}: {before:#?} {after:#?}");
    }
}

/// The owner's day, then a theft, with and without a flood before them.
fn outcomes_in_flood(scenario: &mut Scenario, owner: &Event, kind: Flood) -> (Vec<Outcome>, Vec<Outcome>) {
    flood(scenario, kind);
    let mut honest = Vec::new();
    for _ in 0..4 {
        scenario.wait(HOUR);
        honest.push(scenario.see(owner));
        scenario.wait(MINUTE);
        honest.push(scenario.see(&owner.clone().set("endpoint", "/v1/deals")));
        scenario.wait(MINUTE);
        // A new place of the owner.
        honest.push(scenario.see(&owner.from("198.18.9.9").set("endpoint", "/v1/contacts")));
    }
    let theft = theft_and_after(scenario, owner);
    (honest, theft)
}

fn assert_flood_changes_nothing(kind: Flood) {
    let town = |kind| {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 30);
        outcomes_in_flood(&mut scenario, &ana, kind)
    };
    // An unknown tenant with a single user, in addition to the town's tenant and another known one.
    let small = |kind| {
        let mut scenario = Scenario::in_town();
        scenario.office_worker("ana", 30);
        let eve = Event::of("eve").set("tenant_id", "initech");
        for _ in 0..80 {
            scenario.wait(6 * HOUR);
            scenario.see(&eve);
            scenario.wait(MINUTE);
            scenario.see(&eve.clone().set("endpoint", "/v1/deals"));
            for number in 0..40 {
                let neighbour = neighbours_call(number).set("tenant_id", "umbra");
                scenario.see(&neighbour.set("endpoint", if number % 2 == 0 { "/v1/contacts" } else { "/v1/deals" }));
            }
        }
        outcomes_in_flood(&mut scenario, &eve, kind)
    };
    for (whose, life) in [("known", &town as &dyn Fn(Flood) -> _), ("small", &small)] {
        let (honest_before, theft_before): (Vec<Outcome>, Vec<Outcome>) = life(Flood::None);
        let (honest, theft) = life(kind);
        let gravest = |outcomes: &[Outcome]| outcomes.iter().map(|outcome| outcome.verdict).max();
        assert!(gravest(&theft_before) >= Some(Verdict::Alert), "a theft alerts: {whose}");
        assert!(gravest(&honest) < Some(Verdict::Revoke), "{whose}: {honest:#?}");
        assert_alike(&honest_before, &honest, whose);
        assert_alike(&theft_before, &theft, whose);
        let quieter = theft_before.iter().zip(&theft).find(|(before, after)| after.verdict < before.verdict);
        assert!(quieter.is_none(), "{whose}: {quieter:#?}");
    }
}

#[test]
fn flood_of_one_tenants_users_blunts_no_theft() {
    assert_flood_changes_nothing(Flood::ManyUsers);
}

#[test]
fn flood_of_one_user_blunts_no_theft() {
    assert_flood_changes_nothing(Flood::OneUser);
}

#[test]
fn flood_of_high_scores_raises_no_threshold() {
    assert_flood_changes_nothing(Flood::HighScores);
}

#[test]
fn flood_of_invented_tenants_blunts_no_theft() {
    assert_flood_changes_nothing(Flood::Invented);
    assert_flood_changes_nothing(Flood::FewInvented);
}

#[test]
fn flood_of_several_kinds_blunts_no_theft() {
    assert_flood_changes_nothing(Flood::Both);
}

/// The /64 of a relay, and a /24, can span countries. A known prefix in one country is new in another.
#[test]
fn known_prefix_abroad_fires_new_country() {
    let country = |code: &str, latitude: f64, longitude: f64| serde_json::json!({"country": code, "latitude": latitude, "longitude": longitude, "asn": 36183, "as_org": "Akamai"});
    let (home, abroad) = (country("DE", 52.5, 13.4), country("AU", -33.9, 151.2));
    let places =
        [("2001:db8:7:1::a", "2001:db8:7:1::b", "2001:db8:7:1::b"), ("203.0.113.5", "203.0.113.6", "203.0.113.7")];
    for (own, near, far) in places {
        let mut scenario = Scenario::located_by_events();
        let ana = Event::of("ana").from(own).set("geo", home.clone());
        for _ in 0..60 {
            scenario.wait(8 * HOUR);
            scenario.see(&ana);
        }
        // A minute later, within a visit of the owner.
        scenario.wait(MINUTE);
        let neighbour = scenario.see(&ana.from(near));
        assert!(neighbour.verdict == Verdict::Allow, "{own}: {neighbour:#?}");
        let thief = scenario.see(&ana.from(far).set("geo", abroad.clone()));
        assert!(fired(&thief, RuleId::NewCountry), "{own}: {thief:#?}");
        assert!(thief.log_odds > neighbour.log_odds + 1.0, "{own}: {thief:#?}");
    }
}
