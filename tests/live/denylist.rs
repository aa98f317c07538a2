//! The denylist of two members: every gateway rejects a grant that one member has revoked.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::support::process::{Tied, wait_for_port};
use super::*;

/// A member with its own store and a denylist endpoint.
struct Guarded {
    service: Service,
    /// `http://127.0.0.1:port/check`
    check: String,
}

impl Guarded {
    fn start(folder: &Path, member: &str) -> Self {
        let port = free_port();
        let file = folder.join("tokenwarden.toml");
        let text = read(&file);
        let before = text.split("[denylist]").next().unwrap_or_default();
        keep_secret(&file, &format!("{before}[denylist]\nlisten = '127.0.0.1:{port}'\n"));
        let service = Service::start_as(folder, member, free_port());
        let guarded = Self { service, check: format!("http://127.0.0.1:{port}/check") };
        guarded.until(200, "nobody");
        guarded
    }

    /// Status for a JWT of the grant of `person`, or 0 if the endpoint does not answer.
    fn status(&self, person: &str) -> u16 {
        let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"jti":"any","sid":"grant-{person}"}}"#));
        let token = format!("eyJhbGciOiJub25lIn0.{claims}.c2ln");
        let asked = blocking(reqwest::Client::new().get(&self.check).bearer_auth(token).send());
        asked.map_or(0, |answer| answer.status().as_u16())
    }

    fn until(&self, status: u16, person: &str) {
        let found = || (self.status(person) == status).then_some(());
        eventually(Duration::from_secs(30), "the endpoint answers", found)
            .unwrap_or_else(|| panic!("{person}: {}\n{}", self.status(person), self.service.log()));
    }
}

fn denylist(folder: &Path, arguments: &[&str]) -> String {
    run(folder, "denylist", arguments)
}

/// Runs a command; returns its output.
pub(super) fn run(folder: &Path, command: &str, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
        .arg(command)
        .args(arguments)
        .args(["--config", "tokenwarden.toml"])
        .current_dir(folder)
        .env_clear()
        .env("TOKENWARDEN_CACHE", cache())
        .output()
        .expect("tokenwarden runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// The entries: id, and kind, tenant, state and reason.
fn entries(folder: &Path) -> BTreeMap<String, String> {
    let listed = denylist(folder, &["list"]);
    let entry = |line: &str| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{listed}"));
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        (text("id"), format!("{} of '{}' {} {}", text("kind"), text("tenant_id"), text("state"), text("reason")))
    };
    listed.lines().map(entry).collect()
}

/// Whether the topic of the denylist has a message with `key` and without a value.
fn has_tombstone(kafka: &Kafka, key: &str) -> bool {
    let consumer: BaseConsumer = kafka.client().set("group.id", "tombstones").create().expect("a client");
    let mut start = TopicPartitionList::new();
    start.add_partition_offset("tokenwarden.denylist", 0, Offset::Beginning).expect("a partition");
    consumer.assign(&start).expect("it is assigned");
    while let Some(Ok(message)) = consumer.poll(Duration::from_secs(2)) {
        if message.key() == Some(key.as_bytes()) && message.payload().is_none() {
            return true;
        }
    }
    false
}

#[test]
fn revoked_grant_is_denied_by_all_members() {
    let (folders, kafka, receivers) = two_members();
    let [one, two] = [("one", &folders[0]), ("two", &folders[1])].map(|(name, dir)| Guarded::start(dir.path(), name));

    // The provider does not answer, and the grant is denied nevertheless.
    receivers.api.hold(true);
    let mut ledger = Ledger::default();
    ledger.rotating("ann");
    ledger.rotating("bea");
    ledger.theft("ann");
    ledger.send(&kafka);
    for member in [&one, &two] {
        member.until(401, "ann");
        assert_eq!(member.status("bea"), 200);
    }
    receivers.api.hold(false);
    assert_eq!(receivers.wait_for("ann").revocation_keys().len(), 1);
    let grant = |state: &str| BTreeMap::from([("grant-ann".to_owned(), format!("grant of '' {state}"))]);
    assert_eq!(entries(folders[1].path()), grant("denied "));

    // A member that starts later has the entries of before, and removes those that have expired.
    one.service.kill();
    let expired = r#"{"tenant_id":"","target":{"family":"grant-old"}}"#;
    kafka.produce("tokenwarden.denylist", [(expired, &br#"{"denied":{"at":1,"until":2}}"#[..])]);
    let one = Guarded::start(folders[0].path(), "one");
    one.until(401, "ann");

    eventually(Duration::from_secs(30), "a tombstone", || has_tombstone(&kafka, expired).then_some(()))
        .unwrap_or_else(|| panic!("{}", one.service.log()));
    one.until(401, "ann");
    assert_eq!(entries(folders[1].path()), grant("denied "));

    let checked = run(folders[0].path(), "topics", &["check"]);
    assert!(checked.contains("tokenwarden.denylist: topic: exists and keeps its entries"), "{checked}");
    let lifted = denylist(folders[0].path(), &["lift", "grant", "grant-\u{202e}bea", "--reason", "r"]);
    assert_eq!(lifted.trim_end(), "tokenwarden: the grant grant-\u{fffd}bea is not on the denylist");
    let lifted =
        denylist(folders[0].path(), &["lift", "grant", "grant-ann", "--reason", "a false alarm", "--by", "bea"]);
    assert_eq!(lifted, "removed the grant grant-ann from the denylist\n");
    for member in [&one, &two] {
        member.until(200, "ann");
    }
    assert_eq!(entries(folders[0].path()), grant("lifted a false alarm"));
    for member in [one, two] {
        assert_eq!(member.service.terminate().0.code(), Some(0));
    }
}

/// The example in `deploy/gateways`, with the real nginx.
#[test]
#[ignore = "needs nginx, see `make slow`"]
fn nginx_rejects_a_denied_grant() {
    let folder = tempfile::tempdir().expect("a folder");
    let kafka = Kafka::start();
    kafka.create_topic(TOPIC, 1);
    let receivers = Receivers::start();
    configure(folder.path(), &kafka);
    receivers.configure(folder.path());
    let member = Guarded::start(folder.path(), "one");
    let api = Web::start();
    let port = free_port();
    let example = read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/gateways/nginx.conf")));
    let address = |url: &str| url.trim_start_matches("http://").trim_end_matches("/check").to_owned();
    let mut text = example.clone();
    for (from, to) in [
        ("127.0.0.1:8080", format!("127.0.0.1:{port}")),
        ("127.0.0.1:8081", address(&api.url)),
        ("127.0.0.1:9465", address(&member.check)),
        // The machine of the test may be busy.
        ("200ms", "10s".to_owned()),
        ("500ms", "10s".to_owned()),
    ] {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, &to);
    }
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, format!("daemon off;\nmaster_process off;\npid nginx.pid;\n{text}")).expect("a file");
    let log = folder.path().join("nginx.log");
    let prefix = format!("{}/", folder.path().display());
    let file = file.display().to_string();
    let arguments = ["-e", "stderr", "-p", &prefix, "-c", &file];
    let nginx = Tied::start("nginx", &arguments, &log);
    wait_for_port(port, &log);
    let through = Guarded { service: member.service, check: format!("http://127.0.0.1:{port}/v1/items?page=2") };
    assert_eq!(through.status("ann"), 200);
    let mut ledger = Ledger::default();
    ledger.rotating("ann");
    ledger.theft("ann");
    ledger.send(&kafka);
    through.until(401, "ann");
    assert_eq!(through.status("bea"), 200);
    let before = api.requests().len();
    let token = "eyJhbGciOiJub25lIn0.eyJzaWQiOiJncmFudC1hbm4ifQ.c2ln";
    let answer = blocking(reqwest::Client::new().post(&through.check).bearer_auth(token).body("a body").send());
    let answer = answer.expect("an answer");
    let reason = answer.headers().get("www-authenticate").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(reason.contains("invalid_token"), "{reason:?}");
    assert_eq!((answer.status().as_u16(), api.requests().len()), (401, before), "the API has no request");
    // Without an answer of the denylist, requests are rejected.
    through.service.kill();
    let other = blocking(reqwest::Client::new().get(&through.check).bearer_auth("abc").send());
    assert_eq!(other.expect("an answer").status(), 500);
    drop(nginx);
}
