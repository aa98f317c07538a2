//! Commands: exit statuses, stdout and stderr, and that secrets and control characters are never printed.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

mod memory;
mod replay;
#[path = "../support/mod.rs"]
mod support;
mod validate;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokenwarden::sanitize::is_unsafe;

use support::process::{free_port, keep_secret};
use support::web::Web;

/// Runs tokenwarden in `folder` without environment variables that change its behaviour.
fn tokenwarden(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().expect("tokenwarden runs")
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwarden"));
    command.args(arguments).current_dir(folder).env_clear().env("TOKENWARDEN_CACHE", folder.join("no cache"));
    command
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("the process was not killed by a signal")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let file = folder.join(name);
    std::fs::write(&file, text).expect("a file");
    file
}

fn event(number: usize) -> String {
    format!(
        r#"{{"event_id":"e{number}","timestamp":"2026-11-22T10:15:{:02}Z","token_id":"tok","user_id":"u","ip_address":"192.0.2.7"}}"#,
        number % 60
    )
}

fn events(count: usize) -> String {
    (0..count).map(|number| event(number) + "\n").collect()
}

#[test]
fn usage_errors_exit_with_2() {
    let folder = folder();
    for arguments in [&[][..], &["no-such-command"], &["replay"], &["run"], &["replay", "x", "--format", "xml"]] {
        let output = tokenwarden(folder.path(), arguments);
        assert_eq!(status(&output), 2, "{arguments:?}");
        assert!(!stderr(&output).is_empty() && stdout(&output).is_empty(), "{arguments:?}");
    }
    for arguments in [&["--version"][..], &["--help"], &["replay", "--help"]] {
        assert_eq!(status(&tokenwarden(folder.path(), arguments)), 0, "{arguments:?}");
    }
}

const ENABLE_ADDRESSES: &str = "GitHub sends actor_ip only after an owner of the enterprise has enabled it: Settings, \
                                Audit log, Settings, \"Enable source IP disclosure\"";

#[test]
fn terminal_shows_no_unsafe_character() {
    let folder = folder();
    let nasty = "a\u{1b}[2J\u{202e}\u{2066}\u{200b}\u{e0041}";
    write(folder.path(), nasty, "{");
    write(folder.path(), "t.toml", format!("[source.file]\npath = '{}'\nx = 1\n", &nasty[5..]));
    for arguments in [
        &["replay", nasty][..],
        &["replay", nasty, "--strict"],
        &["replay", "missing\u{202e}"],
        &["validate", "--config", "t.toml"],
        &["replay", "--config", "none\u{202e}.toml", nasty],
        &["replay", "--verdicts", nasty, nasty],
        &[nasty],
        &["--", nasty],
        &["replay", &format!("--{nasty}")],
        &["replay", "a", &format!("--verdicts={nasty}"), &format!("--format={nasty}")],
        &["evaluate", ".", "--warmup", nasty],
        &["evaluate", ".", "--without", nasty],
        &["evaluate", ".", "--labels"],
        &["simulate", "--start", nasty],
        &["topics", nasty],
    ] {
        let output = tokenwarden(folder.path(), arguments);
        let shown = stdout(&output) + &stderr(&output);
        assert!(!shown.is_empty() && !shown.contains(|c| c != '\n' && is_unsafe(c)), "{arguments:?}: {shown:?}");
    }
    // Usage errors contain the argument with control characters replaced.
    let output = tokenwarden(folder.path(), &["evaluate", ".", "--warmup", "1\u{1b}[2J\u{202e}\nok"]);
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("invalid value '1␛[2J\u{fffd}␊ok' for '--warmup <DAYS>'"), "{}", stderr(&output));
    assert_eq!(status(&tokenwarden(folder.path(), &["replay", "--help"])), 0);
}

#[test]
fn closed_pipe_exits_with_0() {
    let folder = folder();
    write(folder.path(), "e.ndjson", events(20_000));
    let mut child = command(folder.path(), &["replay", "e.ndjson", "--verdicts", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tokenwarden runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((status(&output), stderr(&output).as_str()), (0, ""));
}

#[test]
fn bearer_values_are_never_printed() {
    let folder = folder();
    let token = ["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "eyJzdWIiOiIxMjM0NTY3ODkwIn0", "c2lnbmF0dXJlLXNpZ25hdHVyZQ"];
    let token = token.join(".");
    let right = event(1).replace("\"tok\"", &format!("\"{token}\""));
    let wrong = format!("{{\"token_id\":\"{token}\",");
    write(folder.path(), "e.ndjson", format!("{right}\n{wrong}\n"));
    let output = tokenwarden(folder.path(), &["replay", "e.ndjson", "--verdicts", "-"]);
    assert_eq!(stdout(&output).lines().count(), 1);
    assert!(stdout(&output).contains("\"token_id\":\"hmac:"), "{}", stdout(&output));
    for piece in token.split('.') {
        assert!(!stdout(&output).contains(piece) && !stderr(&output).contains(piece));
    }
}

#[test]
fn free_port_stays_reserved_for_a_server() {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let other = tokio::net::TcpSocket::new_v4().expect("a socket");
    other.bind(address).expect_err("it has no SO_REUSEADDR, like a socket for which the system chooses a port");
    assert!(std::net::TcpStream::connect(address).is_err(), "nothing listens");
    std::net::TcpListener::bind(address).expect("a server");
}

#[test]
fn unavailable_store_exits_with_69() {
    let folder = folder();
    write(folder.path(), "e.ndjson", events(1));
    let store = format!("http://127.0.0.1:{}", free_port());
    let output = tokenwarden(folder.path(), &["replay", "e.ndjson", "--store", &store]);
    assert_eq!(status(&output), 69, "{}", stderr(&output));
}

#[test]
fn invalid_store_url_is_a_usage_error() {
    let folder = folder();
    write(folder.path(), "e.ndjson", events(1));
    for arguments in [&["replay", "e.ndjson"][..], &["sql", "SELECT 1"]] {
        let output =
            tokenwarden(folder.path(), &[arguments, &["--store", "tcp://me:hunter2@clickhouse:9000"]].concat());
        let message = "tokenwarden: --store must be embedded:DIR or http(s)://HOST:PORT\n";
        assert_eq!((status(&output), stderr(&output).as_str()), (2, message));
    }
}

#[test]
fn failed_test_cases_exit_with_78() {
    let folder = folder();
    let shipped =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/new_ip.toml")).expect("a rule");
    let (rule, _) = shipped.split_once("[[cases]]").expect("the rule has cases");
    let case = |name: &str, expect: &str| {
        format!("[[cases]]\nname = \"{name}\"\nexpect = \"{expect}\"\nevents = [{{ after = \"1h\" }}]\n")
    };
    let only = |cases: &[String]| {
        std::fs::create_dir_all(folder.path().join("rules")).expect("a folder");
        write(&folder.path().join("rules"), "new_ip.toml", format!("{rule}{}", cases.concat()));
        tokenwarden(folder.path(), &["rules", "test", "--rules", "rules"])
    };
    let output = only(&[case("the first event of all", "quiet")]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let line = rule.lines().count() + 1;
    let expected = format!(
        "pass  rules/new_ip.toml:{line}: quiet: the first event of all\n1 cases of 1 rules from rules: 1 passed; rules without a file, disabled: 20\n"
    );
    assert_eq!(stdout(&output), expected);
    let output = only(&[case("the first event of all", "fires"), case("again", "quiet")]);
    assert_eq!(status(&output), 78);
    let shown = stdout(&output);
    assert!(shown.starts_with(&format!("FAIL  rules/new_ip.toml:{line}: fires: the first event of all; ")), "{shown}");
    assert!(shown.contains("\npass  rules/new_ip.toml:"), "{shown}");
    insta::assert_snapshot!(stderr(&output), @"tokenwarden: 1 of 2 test cases failed");
}

#[test]
fn pause_actions_needs_an_outbox() {
    let folder = folder();
    write(folder.path(), "t.toml", "[outbox]\ndir = 'box'\n");
    let output = tokenwarden(folder.path(), &["pause-actions", "--config", "t.toml"]);
    assert_eq!(status(&output), 78);
    assert!(stderr(&output).contains("no outbox in box"), "{}", stderr(&output));
    let switch = folder.path().join("box/pause-actions");
    std::fs::create_dir(folder.path().join("box")).expect("a folder");
    for (more, is_paused, message) in [
        (&["--config", "t.toml"][..], true, "revocations paused: box/pause-actions\n"),
        (&["--outbox", "box"], true, "revocations paused: box/pause-actions\n"),
        (&["--resume", "--config", "t.toml"], false, "revocations resumed: box/pause-actions\n"),
        (&["--resume", "--outbox", "box"], false, "revocations resumed: box/pause-actions\n"),
    ] {
        let output = tokenwarden(folder.path(), &[&["pause-actions"], more].concat());
        assert_eq!((status(&output), stdout(&output).as_str()), (0, message), "{}", stderr(&output));
        assert_eq!(switch.exists(), is_paused);
    }
    // The option --outbox works without a valid configuration.
    write(folder.path(), "t.toml", "[outbox");
    let output = tokenwarden(folder.path(), &["pause-actions", "--config", "t.toml"]);
    assert_eq!(status(&output), 78);
    assert!(stderr(&output).contains("pause-actions --outbox DIR"), "{}", stderr(&output));
}

#[test]
fn demo_refuses_a_folder_with_other_contents() {
    let folder = folder();
    write(folder.path(), "mine", "precious");
    let output = tokenwarden(folder.path(), &["demo", "--data", "."]);
    assert_eq!(status(&output), 2);
    insta::assert_snapshot!(stderr(&output), @"tokenwarden: . has contents that no demo created; give another folder");
    assert!(folder.path().join("mine").exists());
}

#[test]
fn notify_test_sends_one_marked_alert() {
    let folder = folder();
    let web = Web::start();
    keep_secret(&folder.path().join("secret"), "0123456789abcdef");
    let text = format!(
        "[outbox]\ndir = 'box'\n[alert.webhook]\nurl = '{0}/hook'\nsecret_file = 'secret'\n\
         [alert.channel.oncall]\nkind = 'pagerduty'\nurl = '{0}'\ntoken_file = 'secret'",
        web.url
    );
    write(folder.path(), "t.toml", text);
    let notify = |arguments: &[&str]| {
        let output = tokenwarden(folder.path(), &[&["notify", "test"], arguments, &["--config", "t.toml"]].concat());
        (status(&output), stdout(&output).replace(&web.url, "URL"), stderr(&output))
    };
    web.answer(&[202]);
    let expected = "ok      oncall to URL: accepted with status 202\n";
    assert_eq!(notify(&["oncall"]), (0, expected.to_owned(), String::new()));
    let requests = web.requests();
    assert_eq!((requests.len(), &*requests[0].path), (1, "/v2/enqueue"));
    assert!(requests[0].body.contains("[tokenwarden] Test of the alert channel oncall"), "{}", requests[0].body);
    // The webhook comes first. Both are tested, and the second one rejects the alert.
    web.answer(&[204, 400]);
    let (status, shown, error) = notify(&["--all"]);
    insta::assert_snapshot!(shown, @r"
    ok      webhook to URL: accepted with status 204
    FAILED  oncall to URL: the channel answered 400
    ");
    assert_eq!((status, &*error), (69, "tokenwarden: 1 of 2 did not accept the test alert\n"));
    web.answer_come_again(7);
    let (status, shown, _) = notify(&["oncall"]);
    insta::assert_snapshot!(shown, @"FAILED  oncall to URL: the channel answered 429; it accepts requests again in 7 s");
    assert_eq!((status, web.requests().len()), (69, 4), "a failed test is not retried");
    assert!(!folder.path().join("box").exists(), "a test is stored nowhere");
    let (status, _, error) = notify(&["oncal"]);
    assert_eq!((status, &*error), (2, "tokenwarden: unknown channel `oncal`; did you mean `oncall`?\n"));
    assert_eq!(notify(&[]).0, 2, "a channel or --all is needed");
    write(folder.path(), "t.toml", "");
    assert_eq!(notify(&["--all"]).0, 78);
}

#[test]
fn notify_test_pushes_an_event_that_openssl_verifies() {
    let folder = folder();
    let web = Web::start();
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(folder.path()).output();
        let output = output.expect("the program openssl");
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    };
    openssl(&["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "key.pem"]);
    openssl(&["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"]);
    let key = std::fs::read_to_string(folder.path().join("key.pem")).expect("a key");
    keep_secret(&folder.path().join("key.pem"), &key);
    let text = format!(
        "[alert.channel.caep]\nkind = 'shared_signals'\nurl = '{}/events'\nprivate_key_file = 'key.pem'\n\
         values = {{ issuer = 'https://warden.example', audience = 'https://rp.example', key_id = 'k1' }}",
        web.url
    );
    write(folder.path(), "t.toml", text);
    web.answer(&[202]);
    let output = tokenwarden(folder.path(), &["notify", "test", "caep", "--config", "t.toml"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let request = web.requests().remove(0);
    assert_eq!(request.header("content-type"), Some("application/secevent+jwt"));
    let (signed, signature) = request.body.rsplit_once('.').expect("a signature");
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64url");
    std::fs::write(folder.path().join("signed"), signed).expect("written");
    std::fs::write(folder.path().join("signature"), decode(signature)).expect("written");
    openssl(&["dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "signed"]);
    let (header, claims) = signed.split_once('.').expect("claims");
    let [header, claims] =
        [header, claims].map(|part| -> serde_json::Value { serde_json::from_slice(&decode(part)).expect("JSON") });
    assert_eq!(header, serde_json::json!({ "alg": "RS256", "kid": "k1", "typ": "secevent+jwt" }));
    assert_eq!(claims["aud"], "https://rp.example");
    let kind = "https://schemas.openid.net/secevent/ssf/event-type/verification";
    assert!(claims["events"][kind]["state"].is_string(), "{claims}");
}
