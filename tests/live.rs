//! The service as a child process with a Kafka broker, the ClickHouse engine, an SMTP server, a webhook receiver and a
//! revocation API. It is killed during its work, and no event, alert or revocation may be missing.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

#[path = "live/breakers.rs"]
mod breakers;
#[path = "live/denylist.rs"]
mod denylist;
#[path = "live/disk.rs"]
mod disk;
#[path = "live/faults.rs"]
mod faults;
#[path = "live/kills.rs"]
mod kills;
#[path = "live/outage.rs"]
mod outage;
#[path = "live/readiness.rs"]
mod readiness;
#[path = "live/receivers.rs"]
mod receivers;
#[path = "live/service.rs"]
mod service;
#[path = "live/signals.rs"]
mod signals;
#[path = "live/silences.rs"]
mod silences;
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use receivers::Receivers;
use service::Service;
use support::kafka::Kafka;
use support::process::{cache, eventually, free_port, keep_secret, read};
use support::smtp::{PASSWORD, Smtp, USER};
use support::web::{Asked, Web};

const TOPIC: &str = "token-events";
const WEBHOOK_SECRET: &str = "a-secret-of-more-than-16-bytes";

fn blocking<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn ask_store(folder: &Path, sql: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
        .args(["sql", "--config", "tokenwarden.toml", "--output", "csv", sql])
        .current_dir(folder)
        .env_clear()
        .env("TOKENWARDEN_CACHE", cache())
        .output()
        .expect("tokenwarden runs");
    let text = String::from_utf8_lossy(&output.stdout);
    // The first line has the column names. Without a store there is no output.
    text.lines().skip(1).collect::<Vec<_>>().join("\n")
}

/// Ids of all sent events. Each must be stored once.
#[derive(Default)]
struct Ledger {
    ids: BTreeSet<String>,
    messages: Vec<(String, String)>,
}

impl Ledger {
    /// Ordinary uses of tokens.
    fn ordinary(&mut self, count: usize) {
        for _ in 0..count {
            let number = self.ids.len();
            let user = number % 40;
            let id = format!("ordinary-{number}");
            let at = 1_790_000_000_000_u64 + number as u64 * 1_000;
            let text = format!(
                r#"{{"event_id":"{id}","timestamp":{at},"token_id":"tok-{user}","user_id":"user-{user}","ip_address":"192.0.2.{user}","user_agent":"curl/8.5.0","method":"GET","endpoint":"/v1/items/{number}","status":200}}"#
            );
            self.messages.push((format!("user-{user}"), text));
            self.ids.insert(id);
        }
    }

    /// A day of a phone: every hour the refresh token is exchanged and the access token used.
    fn rotating(&mut self, person: &str) {
        for hour in 0..24 {
            let at = 1_790_000_000_000_u64 + hour * 3_600_000;
            let next = hour + 1;
            let phone = r#""ip_address":"198.51.100.10","user_agent":"acme-mail/3.1 (iPhone; iOS 18.3)""#;
            let refresh = format!(
                r#""token_type":"refresh","token_id":"rt-{person}-{next}","parent_token_id":"rt-{person}-{hour}""#
            );
            let access = format!(r#""token_type":"access","token_id":"at-{person}-{next}""#);
            self.of(
                person,
                &format!("{person}-asks-{hour}"),
                at,
                &format!(r#""kind":"refreshed","token_type":"refresh","token_id":"rt-{person}-{hour}",{phone}"#),
            );
            self.of(person, &format!("{person}-gets-{hour}"), at + 20, &format!(r#""kind":"issued",{refresh}"#));
            self.of(
                person,
                &format!("{person}-uses-{hour}"),
                at + 900,
                &format!(r#"{access},{phone},"method":"GET","endpoint":"/v1/messages","status":200"#),
            );
        }
    }

    /// A thief presents a refresh token that was exchanged hours ago. Returns the id of the event.
    fn theft(&mut self, person: &str) -> String {
        // An address per thief, because thefts from one address would be one campaign and one incident.
        let host = person.as_bytes().first().copied().unwrap_or_default();
        self.theft_from(person, &format!("203.0.113.{host}"))
    }

    /// The same from `address`.
    fn theft_from(&mut self, person: &str, address: &str) -> String {
        let id = format!("{person}-theft");
        let at = 1_790_000_000_000_u64 + 23 * 3_600_000 + 1_200_000;
        self.of(person, &id, at, &format!(r#""kind":"refreshed","token_type":"refresh","token_id":"rt-{person}-20","ip_address":"{address}","user_agent":"python-requests/2.32.3""#));
        id
    }

    /// An event of the person's grant.
    fn of(&mut self, person: &str, id: &str, at: u64, rest: &str) {
        let text = format!(
            r#"{{"event_id":"{id}","timestamp":{at},"user_id":"{person}","family_id":"grant-{person}","app_id":"mail-of-{person}",{rest}}}"#
        );
        self.messages.push((person.to_owned(), text));
        self.ids.insert(id.to_owned());
    }

    /// Asserts that exactly the sent events are stored.
    fn compare(&self, folder: &Path) {
        let found = ask_store(folder, "SELECT event_id FROM token_events");
        let found: BTreeSet<String> = found.lines().map(|line| line.trim_matches('"').to_owned()).collect();
        assert!(found == self.ids, "{} of {} events are stored", found.len(), self.ids.len());
    }

    fn send(&mut self, kafka: &Kafka) {
        kafka.produce(TOPIC, self.messages.iter().map(|(key, text)| (key.as_str(), text.as_bytes())));
        self.messages.clear();
    }
}

fn configure(folder: &Path, kafka: &Kafka) {
    let source = format!(
        "[source.kafka]\nbrokers = '{}'\ntopics = ['{TOPIC}']\nproperties = {{ 'session.timeout.ms' = '6000' }}\n",
        kafka.brokers
    );
    configure_from(folder, &source);
}

/// The configured folders of two members, with a Kafka and receivers.
fn two_members() -> ([tempfile::TempDir; 2], Kafka, Receivers) {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let kafka = Kafka::start();
    kafka.create_topic(TOPIC, 1);
    let receivers = Receivers::start();
    for folder in &folders {
        configure(folder.path(), &kafka);
        receivers.configure(folder.path());
    }
    (folders, kafka, receivers)
}

fn configure_from(folder: &Path, source: &str) {
    let text = format!("rules_dir = 'rules'\n{source}[store]\nurl = 'embedded:data'\n");
    std::fs::write(folder.join("tokenwarden.toml"), text).expect("a configuration");
    let rules = folder.join("rules");
    std::fs::create_dir(&rules).expect("a folder");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/rules")).expect("the rules").flatten() {
        std::fs::copy(entry.path(), rules.join(entry.file_name())).expect("a rule");
    }
}

#[test]
fn events_survive_dead_letters_bad_rules_and_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let kafka = Kafka::start();
    kafka.create_topic(TOPIC, 3);
    let admin = free_port();
    configure(folder.path(), &kafka);
    let mut ledger = Ledger::default();

    let service = Service::start(folder.path(), admin);
    assert_eq!(service.page("/readyz"), "ok\n");
    ledger.ordinary(2_000);
    ledger.send(&kafka);
    let deep = format!("{{\"event_id\":\"x\",\"timestamp\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let bad: [(&[u8], &str); 6] = [
        (b"{\"event_id\":", "not JSON: looks like truncated JSON"),
        (b"\xff\xfe\x00", "not UTF-8: looks like UTF-16"),
        (deep.as_bytes(), "timestamp: expected an RFC 3339 time or integer milliseconds"),
        (b"{\"event_id\":5}", "event_id: expected a string"),
        (b"{\"event_id\":\"x\",\"timestamp\":\"never\"}", "timestamp: not an RFC 3339 time"),
        (b"{\"event_id\":\"x\",\"ip_address\":\"1.2.3\"}", "timestamp: missing"),
    ];
    // One key, so that the messages are consecutive in one partition.
    kafka.produce(TOPIC, bad.iter().map(|(payload, _)| ("user-1", *payload)));
    service.until("SELECT count() FROM token_events", "2000");
    service.until("SELECT count(), uniqExact(source_offset) FROM dead_letters", "6,6");
    let places =
        "SELECT DISTINCT source_topic, max(source_offset) OVER () - min(source_offset) OVER () FROM dead_letters";
    assert_eq!(service.sql(places), format!("\"{TOPIC}\",5"));
    let letters = service.sql("SELECT reason, hex(payload) FROM dead_letters ORDER BY source_offset");
    for (letter, (payload, reason)) in letters.lines().zip(bad) {
        let bytes = payload.iter().fold(String::new(), |bytes, byte| bytes + &format!("{byte:02X}"));
        assert!(letter.starts_with(&format!("\"{reason}\",")) && letter.ends_with(&format!("\"{bytes}\"")), "{letter}");
    }

    // Invalid rules are rejected. The corrected rules are loaded.
    let rule = folder.path().join("rules/new_country.toml");
    let right = std::fs::read_to_string(&rule).expect("a rule");
    std::fs::write(&rule, format!("severiti = 'high'\n{right}")).expect("a rule");
    service.signal("-HUP");
    service.until_metric("tokenwarden_rule_reloads_total{result=\"refused\"} 1");
    assert!(service.log().contains("did you mean `severity`?"), "{}", service.log());
    std::fs::write(&rule, right).expect("a rule");
    service.until_metric("tokenwarden_rules_reload_refused 0");
    // A folder without a rule that is in use is rejected too.
    std::fs::rename(&rule, folder.path().join("new_country.toml")).expect("moved");
    service.signal("-HUP");
    service.until_metric("tokenwarden_rules_reload_refused 1");
    assert!(service.log().contains("new_country.toml is missing"), "{}", service.log());
    assert_eq!(service.page("/readyz"), "ok\n");
    std::fs::rename(folder.path().join("new_country.toml"), &rule).expect("moved back");
    service.until_metric("tokenwarden_rules_reload_refused 0");

    // Killed while the next events are processed.
    ledger.ordinary(20_000);
    ledger.send(&kafka);
    eventually(Duration::from_secs(30), "some events are stored", || {
        service.sql("SELECT count() > 2000 FROM token_events").contains('1').then_some(())
    });
    service.kill();

    ledger.ordinary(500);
    ledger.send(&kafka);
    let service = Service::start(folder.path(), admin);
    assert_eq!(service.page("/readyz"), "ok\n");
    service.until("SELECT count() FROM token_events", "22500");
    service.until("SELECT uniqExact(event_id) FROM token_events", "22500");
    let metrics = service.page("/metrics");
    assert!(metrics.contains("tokenwarden_partitions 3"), "{metrics}");

    let letters = kafka.consume("tokenwarden.dead-letters", bad.len());
    let payloads: BTreeSet<&[u8]> = letters.iter().map(|letter| letter.payload.as_slice()).collect();
    assert_eq!(payloads, bad.iter().map(|(payload, _)| *payload).collect());

    let (status, took) = service.terminate();
    assert_eq!(status.code(), Some(0), "{}", read(&folder.path().join("log of one")));
    assert!(took < Duration::from_secs(10), "it took {took:?} to stop");
    ledger.compare(folder.path());
}

/// A folder with a configuration, a broker with the topic, and the receivers.
fn staged() -> (tempfile::TempDir, Kafka, Receivers) {
    let folder = tempfile::tempdir().expect("a folder");
    let (kafka, receivers) = (Kafka::start(), Receivers::start());
    kafka.create_topic(TOPIC, 3);
    configure(folder.path(), &kafka);
    receivers.configure(folder.path());
    (folder, kafka, receivers)
}

#[test]
fn theft_is_stored_reported_and_revoked() {
    let (folder, kafka, receivers) = staged();
    kafka.create_topic("findings", 2);
    let file = folder.path().join("tokenwarden.toml");
    keep_secret(&file, &(read(&file) + "[alert.channel.siem]\nkind = 'ocsf_kafka'\ntopic = 'findings'\n"));
    let mut ledger = Ledger::default();
    let service = Service::start(folder.path(), free_port());
    assert_eq!(service.page("/readyz"), "ok\n");
    ledger.ordinary(1_000);
    ledger.rotating("ana");
    ledger.send(&kafka);
    service.until("SELECT uniqExact(event_id) FROM token_events", &ledger.ids.len().to_string());
    assert_eq!(receivers.heard(), [0, 0, 0], "no alert for ordinary uses");

    let event = ledger.theft("ana");
    ledger.send(&kafka);
    let theft = receivers.wait_for("ana");
    let [mail] = theft.mails.as_slice() else { panic!("{theft:?}") };
    for line in [
        "X-Tls: True",
        "X-Auth: True",
        "X-To: security@example.com",
        "[CRITICAL] ana mail-of-ana: refresh token reused",
        "REVOKED",
        " CRITICAL ana mail-of-ana: refresh token reused",
        "User         ana",
        "App          mail-of-ana",
        "Revoked: the grant grant-ana.",
        "  +14.0  a refresh token was presented again",
        "  refresh_reuse",
    ] {
        assert!(mail.contains(line), "no {line} in\n{mail}");
    }
    let [hook] = theft.hooks.as_slice() else { panic!("{theft:?}") };
    assert!(hook.is_signed_with(WEBHOOK_SECRET) && !hook.is_signed_with("another-secret-of-16-bytes"), "{hook:?}");
    let finding: serde_json::Value = serde_json::from_str(&hook.body).expect("JSON");
    assert_eq!((&finding["class_uid"], &finding["incident"]["revocation"]), (&2004.into(), &"done".into()));
    let [revocation] = theft.revocations.as_slice() else { panic!("{theft:?}") };
    assert_eq!((revocation.method.as_str(), revocation.path.as_str()), ("DELETE", "/grants/grant-ana"));
    assert_eq!(revocation.header("authorization"), Some("Bearer api-s3cret"));
    assert!(revocation.header("idempotency-key").is_some_and(|key| key.starts_with("INC-")), "{revocation:?}");

    let judged = format!(
        "SELECT verdict, has(rules, 'refresh_reuse'), incident_id != '' FROM token_events WHERE event_id = '{event}'"
    );
    service.until(&judged, "\"revoke\",1,1");
    service.until("SELECT count() FROM token_events WHERE verdict = 'revoke'", "1");
    service.until(
        "SELECT uniqExact(incident_id), any(user_id), any(action), any(verdict) FROM incidents",
        "1,\"ana\",\"revoke_family\",\"revoke\"",
    );
    service.until(
        "SELECT kind, target, outcome, http_status, incident_id IN (SELECT incident_id FROM incidents) FROM actions ORDER BY kind",
        &format!(
            "\"alert_email\",\"security@example.com\",\"done\",0,1\n\"alert_siem\",\"topic findings\",\"done\",0,1\n\"alert_webhook\",\"{}\",\"done\",200,1\n\
             \"revoke_family\",\"grant-ana\",\"done\",200,1",
            receivers.hook.url
        ),
    );
    let [message] = &kafka.consume("findings", 1)[..] else { panic!("one message") };
    let sent: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
    assert_eq!(sent, finding, "as the webhook");
    for secret in [PASSWORD, WEBHOOK_SECRET, "api-s3cret"] {
        assert!(!service.log().contains(secret) && !mail.contains(secret), "{secret}");
    }
    assert_eq!(service.terminate().0.code(), Some(0));
    ledger.compare(folder.path());
    assert_eq!(receivers.heard(), [1, 1, 1]);
}

#[test]
fn replay_sends_and_revokes_with_enforce_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let receivers = Receivers::start();
    configure_from(folder.path(), "");
    receivers.configure(folder.path());
    let mut ledger = Ledger::default();
    ledger.rotating("ana");
    ledger.theft("ana");
    let lines: Vec<_> = ledger.messages.iter().map(|(_, text)| text.as_str()).collect();
    std::fs::write(folder.path().join("past.ndjson"), lines.join("\n")).expect("a file");
    let replay = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
            .args(["replay", "past.ndjson", "--config", "tokenwarden.toml"])
            .args(more)
            .current_dir(folder.path())
            .env_clear()
            .env("TOKENWARDEN_CACHE", cache())
            .output()
            .expect("tokenwarden runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains("1 revoke"), "{text}");
    };
    replay(&[]);
    assert_eq!(receivers.heard(), [0, 0, 0]);
    replay(&["--enforce", "--store", "embedded:data"]);
    let theft = receivers.of("ana");
    assert!(theft.mails[0].contains("REVOKED") && theft.hooks[0].is_signed_with(WEBHOOK_SECRET), "{theft:?}");
    assert_eq!(theft.revocations[0].path, "/grants/grant-ana");
    assert_eq!(receivers.heard(), [1, 1, 1]);
    let done = ask_store(folder.path(), "SELECT kind, outcome FROM actions ORDER BY kind");
    assert_eq!(done, "\"alert_email\",\"done\"\n\"alert_webhook\",\"done\"\n\"revoke_family\",\"done\"");
    // A second replay does not repeat the deliveries.
    replay(&["--enforce"]);
    assert_eq!(receivers.heard(), [1, 1, 1]);
}

#[test]
#[ignore = "slow: the broker is unavailable for most of a minute"]
fn service_waits_for_an_unavailable_broker() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut kafka = Kafka::start();
    kafka.create_topic(TOPIC, 3);
    let admin = free_port();
    configure(folder.path(), &kafka);
    let mut ledger = Ledger::default();
    let service = Service::start(folder.path(), admin);
    assert_eq!(service.page("/readyz"), "ok\n");
    ledger.ordinary(1_000);
    ledger.send(&kafka);
    service.until("SELECT uniqExact(event_id) FROM token_events", "1000");
    kafka.stop();
    std::thread::sleep(Duration::from_secs(40));
    assert_eq!(service.page("/healthz"), "ok\n");
    kafka.resume();
    ledger.ordinary(1_000);
    ledger.send(&kafka);
    service.until("SELECT uniqExact(event_id) FROM token_events", "2000");
    kafka.stop();
    let (status, took) = service.terminate();
    assert_eq!(status.code(), Some(0), "{}", read(&folder.path().join("log of one")));
    assert!(took < Duration::from_secs(10), "it took {took:?} to stop without a broker");
}
