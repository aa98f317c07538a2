//! Values that a client, or a producer, writes into events to hide a theft.

use tokenwarden::checkpoint::Position;
use tokenwarden::engine;
use tokenwarden::enrich::Enricher;
use tokenwarden::feed::{Feed, Tenant};
use tokenwarden::format::Format;
use tokenwarden::notify;
use tokenwarden::pipeline::{Epoch, Pipeline, VerdictOutput};
use tokenwarden::port::{Alert, Message, Origin, Progress, Revocation};
use tokenwarden::rule::RuleSet;
use tokenwarden::sanitize::is_unsafe;
use tokenwarden::store::NullRows;
use tokenwarden::tally::Note;
use tokenwarden::token::TokenHasher;
use tokenwarden::verdict::{RuleId, Verdict};
use tokenwarden::wire::{Decoded, Decoder};

use super::scenario::{Atlas, Event, HOUR, MINUTE, SECOND, Scenario, address, share};

/// The highest verdict on a thief's twelve calls, each message changed by `write`.
fn theft(write: impl Fn(String) -> String) -> Verdict {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    scenario.wait(4 * HOUR);
    let mut gravest = Verdict::Allow;
    for number in 0..12 {
        scenario.wait(20 * SECOND);
        let call = ana.from(address::SYDNEY).agent("AGENT").set("endpoint", format!("/v1/admin/secrets/{number}"));
        let line = write(scenario.write(&call));
        gravest = gravest.max(scenario.score(&line).expect("its id is new").verdict);
    }
    gravest
}

#[test]
fn unreadable_fields_do_not_hide_a_theft() {
    let member = |member: &str| {
        let member = member.to_owned();
        move |line: String| line.replacen('{', &format!("{{{member},"), 1)
    };
    let agent = |agent: &str| {
        let agent = agent.to_owned();
        move |line: String| line.replace("\"AGENT\"", &agent)
    };
    let value = |name: &str, sent: &str, written: &str| {
        let [sent, written] = [sent, written].map(|value| format!("\"{name}\":{value}"));
        move |line: String| {
            assert!(line.contains(&sent), "{line}");
            line.replace(&sent, &written)
        }
    };
    assert!(theft(|line| line) >= Verdict::Alert, "the control");
    for (what, verdict) in [
        ("NUL", theft(agent(r#""python\u0000""#))),
        ("lone surrogate", theft(agent(r#""python\ud800""#))),
        ("control character", theft(agent("\"python\u{1}\""))),
        ("invalid escape", theft(agent(r#""python\x00""#))),
        ("number", theft(agent("7"))),
        ("given twice", theft(agent(r#""python","user_agent":"curl""#))),
        ("negative bytes", theft(member(r#""bytes_out":-1"#))),
        ("status as text", theft(member(r#""status":"200""#))),
        ("scope as text", theft(member(r#""scope":"read write""#))),
        ("huge number", theft(member(r#""bytes_out":1e999"#))),
        ("deep nesting", theft(member(&format!(r#""x":{}{}"#, "[".repeat(5_000), "]".repeat(5_000))))),
        ("unknown kind", theft(member(r#""kind":"ignore""#))),
        ("unknown token type", theft(member(r#""token_type":"ignore""#))),
        ("surrogate in a name", theft(member(r#""\udc00":1"#))),
        ("unreadable outcome", theft(value("status", "200", "true"))),
        ("two outcomes", theft(value("status", "200", r#"200,"status":401"#))),
    ] {
        assert!(verdict >= Verdict::Alert, "{what}: {verdict:?}");
    }
}

/// A token is identified by its id, whatever other ids the thief sends.
#[test]
fn unreadable_ids_do_not_hide_a_theft() {
    for id in [r#""ana\u0000""#, r#""ana\ud800""#, "[]", "true", r#""ana","X":"bo""#, "\"LONG\"", "null"] {
        let write = |line: String| {
            let mut line = line;
            for (name, sent) in [("user_id", "\"ana\""), ("family_id", "\"grant-ana\"")] {
                let id = id.replace('X', name).replace("LONG", &"ana".repeat(400));
                line = line.replace(&format!("\"{name}\":{sent}"), &format!("\"{name}\":{id}"));
            }
            assert!(!line.contains("grant-ana"), "{line}");
            line
        };
        let verdict = theft(write);
        assert!(verdict >= Verdict::Alert, "{id}: {verdict:?}");
    }
}

/// Other spellings of a user are other users. The grant stays the same.
#[test]
fn other_spellings_of_a_user_do_not_hide_a_theft() {
    for user in ["ANA", "an\u{e0}", "ana\u{300}", "ana\u{200b}", " ana"] {
        let verdict = theft(|line| line.replace("\"user_id\":\"ana\"", &format!("\"user_id\":\"{user}\"")));
        assert!(verdict >= Verdict::Alert, "{user:?}: {verdict:?}");
    }
}

/// The endpoint of a thief is scored although no part of it can be read as sent.
#[test]
fn unreadable_endpoint_keeps_the_evidence_of_routes() {
    let share_of = |endpoint: &str| {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 30);
        scenario.wait(4 * HOUR);
        let call = scenario.write(&ana.set("endpoint", "ENDPOINT")).replace("ENDPOINT", endpoint);
        share(&scenario.score(&call).expect("its id is new"), RuleId::NewEndpoint)
    };
    let control = share_of("/v1/admin/secrets");
    assert!(control > 0.0);
    for endpoint in ["/v1/admin/secrets?\\u0000".to_owned(), format!("/v1/admin/secrets?{}", "x".repeat(3_000))] {
        assert!((share_of(&endpoint) - control).abs() < 1e-9, "{endpoint}: {} and {control}", share_of(&endpoint));
    }
    assert!(share_of("/v1/admin\\ud800/secrets") > 0.0);
}

/// An event with an unreadable tenant is not scored or learnt with the events of another tenant.
#[test]
fn unreadable_tenant_is_no_other_tenant() {
    for tenant in [r#""acme\u0000""#, r#""acme\ud800""#, "[]", "true", r#""acme","tenant_id":"globex""#, "\"LONG\""] {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 30);
        scenario.wait(4 * HOUR);
        let (_, known) = scenario.state().memory();
        let line = scenario.write(&ana.from(address::SYDNEY).agent("curl/8.9.1"));
        let tenant = tenant.replace("LONG", &"acme".repeat(400));
        let line = line.replace(r#""tenant_id":"acme""#, &format!("\"tenant_id\":{tenant}"));
        let outcome = scenario.score(&line).expect("its id is new");
        assert!(outcome.verdict == Verdict::Allow && outcome.signals.is_empty(), "{tenant}: {outcome:#?}");
        assert_eq!(scenario.state().memory().1, known, "{tenant}");
    }
}

/// The verdict on a thief's calls after a `confirmed` event, and without one as a control.
fn confirmed_theft(mut scenario: Scenario) -> (Verdict, Verdict) {
    let ana = scenario.office_worker("ana", 30);
    let thief = ana.from(address::LEIPZIG_HOST).agent("curl/8.9.1");
    scenario.wait(HOUR);
    let before = scenario.see(&thief).verdict;
    for _ in 0..3 {
        scenario.wait(MINUTE);
        scenario.see(&ana.kind("confirmed"));
    }
    scenario.wait(HOUR);
    (before, scenario.see(&thief).verdict)
}

#[test]
fn confirmed_of_another_source_is_ignored() {
    let (before, after) = confirmed_theft(Scenario::in_town());
    assert!(before >= Verdict::Alert && after >= Verdict::Alert, "{before:?} {after:?}");
    let (before, after) = confirmed_theft(Scenario::in_town_confirmed());
    assert!(before >= Verdict::Alert && after == Verdict::Allow, "the control: {before:?} {after:?}");
}

/// `confirmed` events before the theft are not learnt either, so the thief's place stays new.
#[test]
fn confirmed_of_another_source_is_not_learnt() {
    let verdict = |vouched: bool| {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 30);
        for _ in 0..20 {
            scenario.wait(MINUTE);
            if vouched {
                scenario.see(&ana.from(address::SYDNEY).agent("curl/8.9.1").kind("confirmed"));
            }
        }
        scenario.wait(HOUR);
        scenario.see(&ana.from(address::SYDNEY).agent("curl/8.9.1"))
    };
    let (vouched, control) = (verdict(true), verdict(false));
    assert!((vouched.log_odds - control.log_odds).abs() < 1e-9, "{} {}", vouched.log_odds, control.log_odds);
    assert!(control.verdict >= Verdict::Alert);
}

/// Rows and counts of some messages of one topic.
fn process(feed: Feed, messages: &[(Option<&str>, String)]) -> Epoch<NullRows> {
    let enricher = Enricher::with_lookup(Box::new(Atlas));
    let hasher = TokenHasher::new(b"a key for sources");
    let rules = RuleSet::builtin().into();
    let mut pipeline = Pipeline::new(enricher, rules, hasher, engine::Settings::default());
    let mut partition = pipeline.partition(feed);
    let mut epoch = Epoch::new(NullRows::default()).with_verdicts(VerdictOutput::Lines);
    for (offset, (key, line)) in (0..).zip(messages) {
        let position = Position::new("events", 0, offset);
        let payload = line.as_bytes();
        let message = Message {
            position: &position,
            key: key.map(str::as_bytes),
            payload,
            logged_at: None,
            replayed: false,
            origin: Origin::Here,
        };
        pipeline.process(&mut partition, &[message], 0, &mut epoch);
    }
    epoch
}

fn event(id: &str, members: &str) -> String {
    format!(r#"{{"event_id":"{id}","timestamp":"2026-11-22T10:15:30Z","token_id":"t","user_id":"u"{members}}}"#)
}

/// Verdicts, terminal line, mails and reasons of a theft with hostile characters in every text.
#[test]
fn outputs_contain_no_unsafe_character() {
    const NASTY: &str = "\u{1b}[2J\u{9b}31m\u{202e}\u{2066}\u{200b}\u{2028}\u{e0041}\u{ad}\r\n";
    let mut scenario = Scenario::empty();
    let ana = Event::of(&format!("ana{NASTY}"))
        .set("app_id", format!("crm{NASTY}"))
        .set("tenant_id", format!("acme{NASTY}"))
        .set("endpoint", format!("/v1/{NASTY}"));
    let mut lines = vec![(None, format!("{{\"{NASTY}"))];
    for _ in 0..200 {
        lines.push((None, scenario.write(&ana)));
        scenario.wait(HOUR);
    }
    lines.push((None, scenario.write(&ana.kind("revoked"))));
    for _ in 0..5 {
        scenario.wait(2 * MINUTE);
        lines.push((None, scenario.write(&ana.from(address::SYDNEY).agent(&format!("curl/{NASTY}")))));
    }
    let epoch = process(Feed::default(), &lines);
    assert!(!epoch.incidents.is_empty() && epoch.letters.len() == 1);
    let mut shown = String::from_utf8(epoch.verdicts.unwrap_or_default()).expect("JSON is text");
    for incident in &epoch.incidents {
        let progress = Progress::of(Revocation::Failed(NASTY.to_owned()));
        let mail = notify::compose(Alert::Incident { incident, progress: &progress }, &RuleSet::builtin());
        assert!(!mail.subject.contains(is_unsafe), "{:?}", mail.subject);
        shown += &[notify::block(incident), mail.subject, mail.text, mail.html].join("\n");
    }
    shown.extend(epoch.letters.iter().map(|letter| letter.reason.as_str()));
    let found: Vec<_> = shown.chars().filter(|&character| character != '\n' && is_unsafe(character)).collect();
    assert!(shown.contains("Sydney") && found.is_empty(), "{found:?} in {shown}");
}

#[test]
fn confirmed_of_another_source_is_stored_and_counted() {
    let messages = [(None, event("e1", r#","kind":"confirmed""#)), (None, event("e2", r#","kind":"confirmed""#))];
    let count = |confirmed| {
        let epoch = process(Feed { confirmed, ..Feed::default() }, &messages);
        assert_eq!((epoch.tally.events, epoch.tally.dead_letters), (2, 0));
        let noted = epoch.tally.noted.iter().find(|(_, note, _)| *note == Note::ConfirmedIgnored);
        noted.map_or(0, |(topic, _, count)| {
            assert_eq!(&**topic, "events");
            *count
        })
    };
    assert_eq!((count(false), count(true)), (2, 0));
}

#[test]
fn fixed_tenant_replaces_the_tenant_of_events() {
    let feed = Feed { tenant: Tenant::new("acme"), ..Feed::default() };
    let messages = [
        (Some("u"), event("e1", "")),
        (Some("globex/u"), event("e2", r#","tenant_id":"globex""#)),
        (Some("acme/u"), event("e3", r#","tenant_id":"acme""#)),
        (Some("someone"), event("e4", r#","tenant_id":7"#)),
    ];
    let tenants = |feed: Feed| messages.each_ref().map(|(_, line)| tenant_and_attrs(feed, line).0);
    assert_eq!(tenants(feed), ["acme"; 4]);
    assert_eq!(tenants(Feed::default()), ["", "globex", "acme", "7"], "the control");
    let epoch = process(feed, &messages);
    assert_eq!(epoch.tally.key_mismatches, 1, "a producer may use another tenant");
}

/// Tenant and attributes of the one event in `line`.
fn tenant_and_attrs(feed: Feed, line: &str) -> (String, Vec<(String, String)>) {
    let mut found = None;
    Decoder::new(feed, TokenHasher::new(b"a key for sources")).decode(line.as_bytes(), &mut |decoded| {
        let Ok(Decoded::Event(event)) = decoded else { panic!("no event: {line}") };
        let attrs = event.attrs.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned()));
        found = Some((event.tenant_id.unwrap_or_default().into_owned(), attrs.collect()));
    });
    found.expect("there is an event")
}

#[test]
fn fixed_tenant_keeps_the_sent_tenant() {
    let feed = Feed { tenant: Tenant::new("acme"), ..Feed::default() };
    let (_, attrs) = tenant_and_attrs(feed, &event("e1", r#","tenant_id":"globex","attrs":{"a":"b"}"#));
    let attrs: Vec<_> = attrs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(attrs, [("a", "b"), ("tenant_id", "globex")]);
}

/// An event without an address is stored and counted.
#[test]
fn use_without_address_is_counted() {
    let ip = |address: &str| format!(r#","ip_address":{address}"#);
    let messages = [
        (None, event("e1", "")),
        (None, event("e2", &ip("\"not an address\""))),
        (None, event("e3", &ip("\"192.0.2.1\""))),
        (None, event("e4", r#","kind":"revoked""#)),
    ];
    let epoch = process(Feed::default(), &messages);
    assert_eq!((epoch.tally.events, epoch.tally.dead_letters), (4, 0));
    let noted = |note| epoch.tally.noted.iter().find(|(_, known, _)| *known == note).map(|(.., count)| *count);
    assert_eq!(noted(Note::WithoutAddress(Format::Native)), Some(2));
    assert_eq!(noted(Note::Unreadable("ip_address")), Some(1));
}
