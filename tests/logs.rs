//! The most detailed logs contain no secret, no mail and no value of an event.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test that cannot go on says so")]

mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use support::process::{cache, eventually, free_port, keep_secret, read};
use support::smtp::{PASSWORD, Smtp, USER};
use support::web::Web;

const WEBHOOK_SECRET: &str = "webhook-s3cret-of-24-bytes";
const API_TOKEN: &str = "api-s3cret-token";
const STORE_PASSWORD: &str = "store-s3cret";
const KAFKA_PASSWORD: &str = "kafka-s3cret";

/// A grant that is revoked and used an hour later from another place.
const THEFT: &str = r#"{"event_id":"ev-end-771","timestamp":"2026-11-22T10:00:00Z","kind":"revoked","token_id":"tok-771","family_id":"grant-771","user_id":"ana-771","app_id":"app-771","tenant_id":"tenant-771"}
{"event_id":"ev-theft-771","timestamp":"2026-11-22T11:00:00Z","token_id":"tok-771","family_id":"grant-771","user_id":"ana-771","app_id":"app-771","tenant_id":"tenant-771","ip_address":"192.0.2.77","user_agent":"agent-771","method":"GET","endpoint":"/route-771","status":200}
"#;
/// Every value of those events that only the event could bring into a log.
const VALUES: [&str; 9] = [
    "ev-end-771",
    "ev-theft-771",
    "tok-771",
    "grant-771",
    "ana-771",
    "app-771",
    "192.0.2.77",
    "agent-771",
    "route-771",
];

/// The secrets, also in the encodings that are sent.
fn secrets() -> Vec<String> {
    let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let plain = [PASSWORD, WEBHOOK_SECRET, API_TOKEN, STORE_PASSWORD, KAFKA_PASSWORD];
    let mut secrets: Vec<String> = plain.iter().map(|secret| (*secret).to_owned()).collect();
    secrets.extend(plain.iter().map(|secret| encoded(secret)));
    secrets.push(encoded(&format!("\0{USER}\0{PASSWORD}")));
    secrets
}

fn assert_hushed(log: &str) {
    let secrets = secrets();
    let found: Vec<_> =
        secrets.iter().map(String::as_str).chain(VALUES).filter(|hidden| log.contains(*hidden)).collect();
    let lines: Vec<_> = log.lines().filter(|line| found.iter().any(|hidden| line.contains(hidden))).take(5).collect();
    assert!(found.is_empty(), "{found:?} in {} lines of log, as in\n{}", log.lines().count(), lines.join("\n"));
}

fn configure(folder: &Path, sections: &str) {
    let shipped = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/use_after_revocation.toml"));
    assert!(shipped.contains("mode = \"shadow\""), "{shipped}");
    std::fs::create_dir(folder.join("rules")).expect("a folder");
    let rule = shipped.replace("mode = \"shadow\"", "mode = \"enforce\"");
    std::fs::write(folder.join("rules/use_after_revocation.toml"), rule).expect("a rule");
    std::fs::write(folder.join("tokenwarden.toml"), format!("rules_dir = 'rules'\n{sections}")).expect("a file");
}

fn tokenwarden(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwarden"));
    command.args(arguments).current_dir(folder).env_clear().env("TOKENWARDEN_CACHE", cache()).env("RUST_LOG", "trace");
    command
}

#[test]
fn delivery_logs_contain_no_secret_or_value() {
    let (folder, smtp) = (tempfile::tempdir().expect("a folder"), Smtp::start("starttls"));
    let (hook, api) = (Web::start(), Web::start());
    // Each delivery fails once. The mail server and the provider repeat what they were sent.
    smtp.reject("451 4.7.1 not now: grant-771 of ana-771");
    hook.answer_body(500, "no: grant-771");
    api.answer_body(500, r#"{"error":"grant-771"}"#);
    for (file, secret) in [("smtp", PASSWORD), ("hook", WEBHOOK_SECRET), ("api", API_TOKEN)] {
        keep_secret(&folder.path().join(file), secret);
    }
    let sections = format!(
        "[alert.email]\nsmtp_url = 'smtp://localhost:{}'\nfrom = 'warden@example.com'\nto = ['sec@example.com']\n\
         username = '{USER}'\npassword_file = 'smtp'\nca_file = '{}'\n\
         [alert.webhook]\nurl = '{}/alerts'\nsecret_file = 'hook'\n\
         [revoke]\nmode = 'enforce'\n\
         [revoke.http]\nurl = '{}/grants/{{id}}'\ntoken_file = 'api'\ndone_when = 'revoked'\n",
        smtp.port,
        smtp.ca_file().display(),
        hook.url,
        api.url
    );
    configure(folder.path(), &sections);
    let log = folder.path().join("log");
    let arguments = ["replay", "-", "--enforce", "--config", "tokenwarden.toml", "--store", "embedded:data"];
    let mut child = tokenwarden(folder.path(), &arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("a log file"))
        .spawn()
        .expect("it runs");
    child.stdin.take().expect("a pipe").write_all(THEFT.as_bytes()).expect("it reads");
    let failed =
        eventually(Duration::from_secs(30), "the mail fails", || read(&log).contains("451 4.7.1").then_some(()));
    smtp.accept();
    let status = child.wait().expect("it ends");
    let log = read(&log);
    assert!(failed.is_some() && status.success(), "{log}");
    assert!(smtp.mails().iter().any(|mail| mail.contains("771")), "{log}");
    assert!(hook.requests().len() >= 2 && api.requests().len() >= 2, "{log}");
    for line in ["the webhook answered 500", "the provider answered 500", "the mail server answered 451 4.7.1"] {
        assert!(log.contains(line), "{line} is missing in\n{log}");
    }
    assert_hushed(&log);
}

#[test]
fn run_logs_once_how_to_enable_addresses() {
    let folder = tempfile::tempdir().expect("a folder");
    let use_of = |number: usize| {
        format!(
            r#"{{"@timestamp":{},"_document_id":"d{number}","action":"git.clone","actor_id":7,"hashed_token":"h"}}"#,
            1_790_000_000_000_u64 + number as u64 * 60_000
        )
    };
    let text: Vec<String> = (0..200).map(use_of).collect();
    std::fs::write(folder.path().join("audit.ndjson"), text.join("\n")).expect("a file");
    let sections = format!(
        "[admin]\nlisten = '127.0.0.1:{}'\n[store]\nurl = 'http://127.0.0.1:{}'\n\
         [source.file]\npath = 'audit.ndjson'\nformat = 'github'\n",
        free_port(),
        free_port()
    );
    configure(folder.path(), &sections);
    let log = folder.path().join("log");
    let mut child = tokenwarden(folder.path(), &["run", "--config", "tokenwarden.toml"])
        .env("RUST_LOG", "info")
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("a log file"))
        .spawn()
        .expect("it runs");
    let hint = "Enable source IP disclosure";
    let said = eventually(Duration::from_secs(30), "the hint is logged", || read(&log).contains(hint).then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    let _ = child.kill();
    let _ = child.wait();
    let log = read(&log);
    assert!(said.is_some(), "{log}");
    let lines: Vec<_> = log.lines().filter(|line| line.contains("some uses have no address")).collect();
    assert!(lines.len() == 1 && lines[0].contains(hint) && lines[0].contains("audit.ndjson"), "{log}");
}

#[test]
fn logs_of_store_and_kafka_hold_no_password() {
    let (folder, store) = (tempfile::tempdir().expect("a folder"), Web::start());
    keep_secret(&folder.path().join("store"), STORE_PASSWORD);
    let sections = format!(
        "[admin]\nlisten = '127.0.0.1:{}'\n[store]\nurl = '{}'\nuser = 'warden'\npassword_file = 'store'\n\
         [source.kafka]\nbrokers = '127.0.0.1:{}'\n\
         properties = {{ 'security.protocol' = 'SASL_PLAINTEXT', 'sasl.mechanism' = 'PLAIN', 'sasl.username' = 'warden', \
         'sasl.password' = '{KAFKA_PASSWORD}', 'debug' = 'all' }}\n",
        free_port(),
        store.url,
        free_port()
    );
    configure(folder.path(), &sections);
    let log = folder.path().join("log");
    let mut child = tokenwarden(folder.path(), &["run", "--config", "tokenwarden.toml"])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("a log file"))
        .spawn()
        .expect("it runs");
    let asked = eventually(Duration::from_secs(30), "the store is asked and Kafka is tried", || {
        let is_over = matches!(child.try_wait(), Ok(Some(_)));
        (!store.requests().is_empty() && (is_over || read(&log).contains("kafka"))).then_some(())
    });
    let _ = child.kill();
    let _ = child.wait();
    let log = read(&log);
    assert!(asked.is_some(), "{:?}\n{log}", store.requests());
    let sent = store.requests().iter().any(|request| format!("{request:?}").contains(STORE_PASSWORD));
    assert!(sent, "the password was not sent: {:?}", store.requests());
    assert_hushed(&log);
}
