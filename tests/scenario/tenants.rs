//! What one tenant, or a thief who knows the owner's events, must not do to others.

use tokenwarden::engine;
use tokenwarden::lab::simulate::Simulation;
use tokenwarden::token::TokenHasher;
use tokenwarden::verdict::Verdict;
use tokenwarden::worker::Spread;

use super::story::{Event, HOUR, MINUTE, SECOND, Story, address};
use super::{Format, pipeline_of, verdicts_of};

/// The thief gives each of 70 calls the id of an event of the owner's. All of them are judged.
#[test]
fn event_ids_of_the_owner_hide_no_theft() {
    let mut story = Story::in_town();
    let ana = story.office_worker("ana", 30);
    story.wait(15 * HOUR);
    for number in 0..70 {
        story.wait(2 * SECOND);
        let owners = story.see_as(&format!("own-{number}"), &ana);
        assert!(owners.is_some_and(|outcome| outcome.verdict < Verdict::Alert));
    }
    let thief = ana.from(address::LEIPZIG_HOST).agent("python-requests/2.31.0");
    let mut gravest = Verdict::Allow;
    for number in 0..70 {
        story.wait(20 * SECOND);
        let call = thief.clone().set("endpoint", format!("/v1/admin/secrets/{number}"));
        let outcome = story.see_as(&format!("own-{number}"), &call).expect("another event is judged");
        gravest = gravest.max(outcome.verdict);
    }
    assert!(gravest >= Verdict::Alert);
    assert_eq!((story.state().counters().ids_reused, story.state().counters().duplicates), (70, 0));
}

/// The same event again, whatever else its second copy says, is no event.
#[test]
fn event_delivered_twice_is_one_event() {
    let mut story = Story::in_town();
    let ana = story.office_worker("ana", 30);
    let line = story.send(&ana);
    assert!(story.judge(&line).is_none());
    assert!(story.judge(&line.replace("\"status\":200", "\"status\":500")).is_none(), "it is no part of its content");
    assert_eq!((story.state().counters().ids_reused, story.state().counters().duplicates), (0, 2));
    for (part, other) in [
        ("\"tenant_id\":\"acme\"", "\"tenant_id\":\"globex\""),
        ("\"token_id\":\"at-ana\"", "\"token_id\":\"at-bo\""),
        ("\"endpoint\":\"/v1/contacts\"", "\"endpoint\":\"/v1/deals\""),
        (address::BERLIN, address::SYDNEY),
        ("\"method\":\"GET\"", "\"method\":\"GET\",\"kind\":\"refreshed\""),
    ] {
        assert!(line.contains(part), "{line}");
        assert!(story.judge(&line.replace(part, other)).is_some(), "{other} makes it another event");
    }
}

/// Two installations number names differently and judge alike.
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
    assert!(one.iter().any(|line| line.contains("\"verdict\":\"alert\"")), "there is something to tell apart");
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one, other);
    }
}

/// An incident is named after the numbers of its baseline.
fn without_incident(line: &str) -> String {
    let (head, rest) = line.split_once("\"incident_id\":").expect("a verdict");
    let (_, tail) = rest.split_once(',').expect("the action follows");
    format!("{head}{tail}")
}

/// A service of client credentials gets a new access token every hour: its past is its client's.
#[test]
fn client_credentials_have_their_clients_past() {
    let mut story = Story::in_town();
    let call = Event::of("x").agent("sync/2.1").from("198.18.7.7").set("family_id", serde_json::Value::Null);
    let call = call.set("user_id", serde_json::Value::Null).set("token_type", "access").set("app_id", "sync");
    for number in 0..360 {
        story.wait(40 * MINUTE);
        let seen = story.see(&call.clone().set("token_id", format!("at-{number}")));
        assert!(seen.verdict < Verdict::Watch, "{number} {seen:#?}");
    }
    let thief = call.from(address::LEIPZIG_HOST).agent("python-requests/2.31.0").set("token_id", "at-stolen");
    let gravest = (0..12).map(|number| {
        story.wait(20 * SECOND);
        story.see(&thief.clone().set("endpoint", format!("/v1/admin/secrets/{number}"))).verdict
    });
    assert!(gravest.max() >= Some(Verdict::Alert));
}
