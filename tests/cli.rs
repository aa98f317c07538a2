//! Commands: exit statuses, stdout and stderr, and that secrets and control characters are never printed.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

mod support;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tokenwarden::sanitize::is_unsafe;

use support::process::{free_port, keep_one_rule, keep_secret};
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

#[test]
fn configuration_errors_exit_with_78_and_a_place() {
    let folder = folder();
    let refused = |text: &str| {
        write(folder.path(), "t.toml", text);
        let output = tokenwarden(folder.path(), &["run", "--config", "t.toml"]);
        assert_eq!(status(&output), 78, "{text}: {}", stderr(&output));
        stderr(&output)
    };
    insta::assert_snapshot!(refused("[source.kafka]\nbroker = 'x'"), @"tokenwarden: t.toml:2: unknown key `source.kafka.broker`; did you mean `brokers`?");
    insta::assert_snapshot!(refused("[source.kafka]\ntopics = ['x']"), @"tokenwarden: t.toml:1: [source.kafka] needs `brokers`");
    insta::assert_snapshot!(refused("[source.kafka]\nbrokers = 'x'\ntopics = [{ topic = 'x', format = 'cloudtrial' }]"), @"tokenwarden: t.toml:3: unknown value `cloudtrial` of `source.kafka.topics[0].format`; did you mean `cloudtrail`?");
    insta::assert_snapshot!(refused("[source.kafka]\nbrokers = 'x'\n[source.kafka.properties]\n'sasl.password' = 5"), @"tokenwarden: t.toml:4: `source.kafka.properties.sasl.password` must be a string in quotes, not a value of another type");
    insta::assert_snapshot!(refused("[store]\nurl = 'embedded:data'\npasword_file = 'x'"), @"tokenwarden: t.toml:3: unknown key `store.pasword_file`; did you mean `password_file`?");
    insta::assert_snapshot!(refused("[source.file]\npath = '-'\n[source.kafka]\nbrokers = 'x'"), @"tokenwarden: t.toml:1: `source` has both kafka and file; remove one");
    insta::assert_snapshot!(refused("[store]\nurl = 'tcp://clickhouse:9000'"), @"tokenwarden: t.toml:2: `store.url` must be embedded:DIR or http(s)://HOST:PORT");
    insta::assert_snapshot!(refused("[store]\nurl = 'https://me:hunter2@clickhouse:8443'"), @"tokenwarden: t.toml:2: `store.url` contains a user or password; set store.user and store.password_file instead");
    insta::assert_snapshot!(refused("[store]\npassword_file = 'none'"), @"tokenwarden: t.toml:2: cannot read `password_file` none: No such file or directory (os error 2)");
    let open = write(folder.path(), "open", "s3cret");
    std::fs::set_permissions(open, PermissionsExt::from_mode(0o644)).expect("permissions");
    insta::assert_snapshot!(refused("[store]\npassword_file = 'open'"), @"tokenwarden: t.toml:2: cannot read `password_file` open: other users can read or change it (mode 0644); run `chmod 600 open`");
    insta::assert_snapshot!(refused("[source.kafka]\nbrokers = 'kafka:9093'\n[source.kafka.properties]\n'ssl.key.location' = 'open'"), @"tokenwarden: t.toml:3: the file of `ssl.key.location`: other users can read or change it (mode 0644); run `chmod 600 open`");
    insta::assert_snapshot!(refused("[store]\nurl = 'http://clickhouse:8123'\npassword = 's3cret'"), @"tokenwarden: t.toml:2: `store.url` would send the password unencrypted: use https://, or set store.allow_plaintext = true");
    insta::assert_snapshot!(refused("[source.kafka]\nbrokers = 'kafka:9092'\nproperties = { 'security.protocol' = 'sasl_plaintext' }"), @"tokenwarden: t.toml:3: `security.protocol` lets credentials be sent unencrypted: use SASL_SSL, or set source.kafka.allow_plaintext = true");
    insta::assert_snapshot!(refused("rules_dir = 'none'"), @"tokenwarden: none: the rules directory cannot be read: No such file or directory (os error 2)");
    insta::assert_snapshot!(refused("[admin]\nlisten = '[::]:9464'"), @"tokenwarden: t.toml:2: `admin.listen` is reachable from other machines: set `admin.token_file`, or listen on 127.0.0.1");
    let output = tokenwarden(folder.path(), &["run", "--config", "none.toml"]);
    assert_eq!(status(&output), 78);
    insta::assert_snapshot!(stderr(&output), @"tokenwarden: none.toml: cannot read the configuration: No such file or directory (os error 2)");
    let program = std::fs::read(env!("CARGO_BIN_EXE_tokenwarden")).expect("the program");
    write(folder.path(), "binary.toml", &program[..4096]);
    for (name, problem) in
        [("binary.toml", "stream did not contain valid UTF-8"), (".", "Is a directory (os error 21)")]
    {
        let error = format!("{name}: cannot read the configuration: {problem}");
        let output = tokenwarden(folder.path(), &["run", "--config", name]);
        assert_eq!((status(&output), stderr(&output)), (78, format!("tokenwarden: {error}\n")));
        let output = tokenwarden(folder.path(), &["validate", "--config", name]);
        assert_eq!((status(&output), stdout(&output)), (78, format!("FAILED  configuration: {error}\n")));
    }
}

#[test]
fn errors_found_by_adapters_state_the_place() {
    let folder = folder();
    keep_secret(&folder.path().join("secret"), "short");
    let refused = |text: &str| {
        write(folder.path(), "t.toml", format!("[source.file]\npath = 'events'\n{text}"));
        let output = tokenwarden(folder.path(), &["validate", "--offline", "--config", "t.toml"]);
        assert_eq!(status(&output), 78, "{text}: {}", stdout(&output));
        let failed = stdout(&output).lines().find(|line| line.starts_with("FAILED")).map(str::to_owned);
        failed.expect("something failed")
    };
    write(folder.path(), "events", events(1));
    let mail = "[alert.email]\nsmtp_url = 'smtps://mail.example:465'\nfrom = 'w@example.com'\n";
    insta::assert_snapshot!(refused(&format!("{mail}to = []")), @"FAILED  alerts: t.toml:6: `alert.email.to` has no recipient");
    insta::assert_snapshot!(refused(&mail.replace("smtps", "imap").replace("'\nfrom", "'\nto = ['a@example.com']\nfrom")), @"FAILED  alerts: t.toml:4: `alert.email.smtp_url` must begin with smtps:// or smtp://");
    let plain =
        format!("{mail}to = ['a@example.com']\nusername = 'me'\npassword = 's3cret'\n").replace("smtps", "smtp");
    for starttls in ["none", "opportunistic"] {
        let text = format!("{plain}starttls = '{starttls}'");
        insta::allow_duplicates! {
            insta::assert_snapshot!(refused(&text), @r#"FAILED  alerts: t.toml:9: `alert.email.starttls` may send the password unencrypted: use "required", or set allow_plaintext = true"#);
        }
        for (from, to) in [("smtp://mail.example", "smtp://127.0.0.1"), ("to = ", "allow_plaintext = true\nto = ")] {
            write(folder.path(), "t.toml", format!("[source.file]\npath = 'events'\n{}", text.replace(from, to)));
            let output = tokenwarden(folder.path(), &["validate", "--offline", "--config", "t.toml"]);
            assert_eq!(status(&output), 0, "{to}: {}", stdout(&output));
        }
    }
    insta::assert_snapshot!(refused("[alert.webhook]\nurl = 'https://hooks.example/x'\nsecret_file = 'secret'"), @"FAILED  alerts: t.toml:5: `alert.webhook.secret` is shorter than 16 bytes");
    let channel = |keys: &str| refused(&format!("[alert.channel.oncall]\n{keys}"));
    insta::assert_snapshot!(channel("kind = 'slack'\ntoken_file = 'secret'"), @"FAILED  alerts: t.toml:3: `alert.channel.oncall.values` has no `channel`, which channels of this kind require");
    insta::assert_snapshot!(channel("kind = 'pagerduty'\nsmtp_url = 'x'"), @"FAILED  alerts: t.toml:5: `alert.channel.oncall.smtp_url` is not used by channels of kind `pagerduty`; remove it. This kind uses url, webhook_url, token, values, allow_private, ca_file");
    insta::assert_snapshot!(refused("[alert.channel.email]\nkind = 'teams'"), @"FAILED  alerts: t.toml:4: `alert.channel.email.kind` belongs to a channel with the reserved name `email`; choose another name");
    insta::assert_snapshot!(refused("[revoke.http]\nurl = 'https://id.example/revoke'\nclient_id = 'me'"), @"FAILED  revocation: t.toml:5: `revoke.http.client_id` requires `client_secret_file`");
    let okta = "[revoke.http]\npreset = 'okta_sessions'\nurl = 'https://acme.okta.com'";
    insta::assert_snapshot!(refused(okta), @r#"FAILED  revocation: t.toml:4: `revoke.http.preset` revokes all Okta sessions of a user, with the OAuth tokens, with the radius `user`, for incidents about one token; to allow this, write `radius = "user"` in [revoke.http]"#);
    let few = format!("[revoke]\nmax_per_hour = 3\n{okta}\nradius = 'user'");
    insta::assert_snapshot!(refused(&few), @"FAILED  revocation: t.toml:4: `revoke.max_per_hour` is 3, and a revocation with the radius `user` counts as 5, so none would be requested; set at least 5");
    insta::assert_snapshot!(refused("[revoke.http]\npreset = 'okta_sesions'"), @"FAILED  configuration: t.toml:4: unknown value `okta_sesions` of `revoke.http.preset`; did you mean `okta_sessions`?");
}

#[test]
fn validate_prints_a_line_for_each_part() {
    let folder = folder();
    write(folder.path(), "right.toml", "[source.kafka]\nbrokers = 'kafka.example:9092'");
    let output = tokenwarden(folder.path(), &["validate", "--offline", "--config", "right.toml"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    insta::assert_snapshot!(stdout(&output), @r"
    ok      configuration: right.toml
    ok      rules: 21 from this build
    ok      GeoIP: no files are configured, so places and networks are not scored
    ok      snapshots: in a topic, if the brokers permit it
    ok      alerts: no channel is configured, so alerts are not sent
    ok      revocation: no provider is configured
    ");
    write(folder.path(), "wrong.toml", "[geoip]\ncity = ['none.mmdb']\n[source.kafka]\nbrokers = 'kafka.example:9092'");
    let output = tokenwarden(folder.path(), &["validate", "--offline", "--config", "wrong.toml"]);
    assert_eq!(status(&output), 78);
    insta::assert_snapshot!(stdout(&output), @r"
    ok      configuration: wrong.toml
    ok      rules: 21 from this build
    FAILED  GeoIP: none.mmdb cannot be read: No such file or directory (os error 2); its places or networks are missing; geoip/README.md describes where to get files
    ok      snapshots: in a topic, if the brokers permit it
    ok      alerts: no channel is configured, so alerts are not sent
    ok      revocation: no provider is configured
    ");
}

#[test]
fn validate_connects_to_the_services() {
    let folder = folder();
    let text = format!("[source.kafka]\nbrokers = '127.0.0.1:{0}'\n[store]\nurl = 'http://127.0.0.1:{0}'", free_port());
    write(folder.path(), "t.toml", text);
    let output = tokenwarden(folder.path(), &["validate", "--config", "t.toml"]);
    assert_eq!(status(&output), 69);
    let shown = stdout(&output);
    let failed: Vec<_> = shown.lines().filter(|line| line.starts_with("FAILED")).collect();
    assert_eq!(failed.len(), 2, "{shown}");
    assert!(failed[0].contains(" (source.kafka.brokers): ") && failed[1].contains(" (store.url): "), "{shown}");
    keep_one_rule(folder.path());
    for (path, message) in [("none", "none: there is no such file"), (".", ". is a directory: name the files in it")] {
        write(
            folder.path(),
            "t.toml",
            format!("rules_dir = 'rules'\n[source.file]\npath = '{path}'\n[store]\nurl = 'http://127.0.0.1:1'"),
        );
        let output = tokenwarden(folder.path(), &["validate", "--config", "t.toml"]);
        assert_eq!(status(&output), 78, "a configuration error has precedence over an unavailable service");
        let shown = stdout(&output);
        assert!(shown.contains(&format!("FAILED  source: t.toml:3: `source.file.path`: {message}\n")), "{shown}");
    }
}

#[test]
fn replay_of_a_missing_file_is_a_usage_error() {
    let folder = folder();
    for (name, message) in [("none.ndjson", "there is no such file"), (".", "is a directory: name the files in it")] {
        let output = tokenwarden(folder.path(), &["replay", name]);
        assert_eq!(status(&output), 2, "{name}");
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    }
}

#[test]
fn bad_record_is_a_dead_letter_of_its_own() {
    let folder = folder();
    keep_one_rule(folder.path());
    let with = |from: &str, to: &str| event(0).replace(from, to).into_bytes();
    let bad: [(Vec<u8>, &str); 8] = [
        (b"event_id=e0 token_id=tok".to_vec(), "not JSON: looks like key=value pairs, at line 1 column 1 (byte 0)"),
        (event(0).into_bytes()[..60].to_vec(), "not JSON: looks like truncated JSON, at line 1 column "),
        (with("\"u\"", &format!("\"{}\"", "u".repeat(1 << 20))), "longer than 1048576 bytes, at line 1 column "),
        (with("\"tok\"", "42"), "token_id: expected a string, at line 1 column "),
        (
            [&event(0).as_bytes()[..1], b"\xff\xfe", &event(0).as_bytes()[1..]].concat(),
            "not UTF-8: looks like damaged JSON, at line 1 column 2",
        ),
        (with("2026-11-22", "9999-12-31"), "timestamp: a time outside the years 1970 to 2199, at line 1 column "),
        (with("2026-11-22", "2026-02-30"), "timestamp: not an RFC 3339 time, at line 1 column "),
        (with("\"tok\"", "null"), "token_id: missing, at line 1 column "),
    ];
    let mut bytes = event(1).into_bytes();
    for (number, (bad, _)) in bad.iter().enumerate() {
        bytes = [bytes, b"\n".to_vec(), bad.clone(), b"\n".to_vec(), event(number + 2).into_bytes()].concat();
    }
    write(folder.path(), "bad.ndjson", bytes);
    let output = tokenwarden(folder.path(), &["replay", "--rules", "rules", "bad.ndjson", "--verdicts", "-"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let judged: Vec<String> = stdout(&output).lines().filter_map(|line| line.get(..19)).map(str::to_owned).collect();
    let expected: Vec<_> =
        (1..=9).map(|number| format!(r#"{{"event_id":"e{number}","token"#)[..19].to_owned()).collect();
    assert_eq!(judged, expected, "the events before, between and after the bad records");
    let shown = stderr(&output);
    let letters: Vec<_> = shown.lines().filter(|line| line.starts_with("dead letter: ")).collect();
    assert_eq!(letters.len(), bad.len(), "{shown}");
    for (number, (letter, (_, reason))) in letters.iter().zip(&bad).enumerate() {
        let expected = format!("dead letter: bad.ndjson:{}: {reason}", 2 * number + 2);
        assert!(letter.starts_with(&expected), "{letter}\n{expected}");
    }
    assert!(shown.contains("9 events") && shown.contains("8 dead letters"), "{shown}");
}

#[test]
fn replay_summary_counts_unreadable_fields() {
    let folder = folder();
    let with = |number, from: &str, to: &str| event(number).replace(from, to) + "\n";
    let text = [
        with(0, "192.0.2.7", "192.0.2.256"),
        with(1, "\"u\"", "42"),
        with(2, "\"u\"", "[]"),
        with(3, r#","ip_address":"192.0.2.7""#, ""),
        with(4, "\"u\"", r#""a\ud800""#),
    ];
    write(folder.path(), "odd.ndjson", text.concat());
    let output = tokenwarden(folder.path(), &["replay", "odd.ndjson"]);
    let shown = stderr(&output);
    assert!(shown.contains("5 events") && shown.contains("0 dead letters"), "{shown}");
    for line in [
        "  not readable as sent, repaired or absent: user_id in 2 events",
        "  not readable as sent, repaired or absent: ip_address in 1 events",
        "  without an address: 2 uses",
    ] {
        assert!(shown.lines().any(|found| found == line), "{line} is not in\n{shown}");
    }
}

/// Uses in GitHub's format, without addresses.
const WITHOUT_ADDRESS: &str = r#"{"@timestamp":1790000000000,"_document_id":"d1","action":"git.clone","actor_id":7,"hashed_token":"h","user_agent":"git/2.47.0"}
{"@timestamp":1790000060000,"_document_id":"d2","action":"git.push","actor_id":7,"hashed_token":"h","user_agent":"git/2.47.0"}
"#;
const ENABLE_ADDRESSES: &str = "GitHub sends actor_ip only after an owner of the enterprise has enabled it: Settings, \
                                Audit log, Settings, \"Enable source IP disclosure\"";

#[test]
fn replay_states_how_to_enable_addresses() {
    let folder = folder();
    write(folder.path(), "github.ndjson", WITHOUT_ADDRESS);
    let shown = stderr(&tokenwarden(folder.path(), &["replay", "--format", "github", "github.ndjson"]));
    let hint = format!("    their places and networks are not scored; {ENABLE_ADDRESSES}");
    assert!(shown.contains("  without an address: 2 uses\n") && shown.lines().any(|line| line == hint), "{shown}");
    let with = WITHOUT_ADDRESS.replace("\"actor_id\"", "\"actor_ip\":\"192.0.2.7\",\"actor_id\"");
    write(folder.path(), "github.ndjson", with);
    let shown = stderr(&tokenwarden(folder.path(), &["replay", "--format", "github", "github.ndjson"]));
    assert!(!shown.contains("address"), "{shown}");
}

#[test]
fn validate_states_how_to_enable_addresses() {
    let folder = folder();
    let topics = "topics = ['a', { topic = 'audit', format = 'github' }, { topic = 'b', format = 'okta' }]";
    write(folder.path(), "t.toml", format!("[source.kafka]\nbrokers = 'kafka.example:9092'\n{topics}\n"));
    let shown = stdout(&tokenwarden(folder.path(), &["validate", "--offline", "--config", "t.toml"]));
    let notes: Vec<_> = shown.lines().filter(|line| line.starts_with("note ")).collect();
    assert_eq!(notes, [format!("note    addresses of topic audit: {ENABLE_ADDRESSES}")]);
}

#[test]
fn validate_warns_of_hashed_ids_for_revocation() {
    let folder = folder();
    let warns = |ids: &str, http: &str| {
        let text = format!(
            "[source.kafka]\nbrokers = 'kafka.example:9092'\n[privacy]\ntoken_ids = '{ids}'\n[revoke.http]\n{http}"
        );
        write(folder.path(), "t.toml", text);
        let output = tokenwarden(folder.path(), &["validate", "--offline", "--config", "t.toml"]);
        assert_eq!(status(&output), 0, "{http}: {}", stdout(&output));
        stdout(&output)
            .contains("WARNING revocation: [revoke.http] sends token ids, and privacy.token_ids is \"hashed\"")
    };
    let url = "url = 'https://id.example/revoke'";
    for (http, needs_ids) in [
        (format!("{url}\npreset = 'rfc7009'"), true),
        (format!("{url}\npreset = 'by_id'"), true),
        (format!("{url}\npreset = 'by_id'\ntargets = ['family']"), false),
        (format!("{url}\nbody = '{{\"user\":\"{{user_id}}\"}}'"), false),
        (format!("{url}\nbody = '{{\"token\":\"{{token_id}}\"}}'\ntargets = ['family']"), true),
        ("url = 'https://id.example/tokens/{id}'".to_owned(), true),
    ] {
        assert_eq!((warns("hashed", &http), warns("as_sent", &http)), (needs_ids, false), "{http}");
    }
}

#[test]
fn validate_warns_of_a_request_without_tenant() {
    let folder = folder();
    let warns = |topics: &str, http: &str| {
        let text = format!(
            "[source.kafka]\nbrokers = 'kafka.example:9092'\ntopics = [{topics}]\n[revoke.http]\n\
             url = 'https://id.example/revoke'\n{http}"
        );
        write(folder.path(), "t.toml", text);
        let output = tokenwarden(folder.path(), &["validate", "--offline", "--config", "t.toml"]);
        assert_eq!(status(&output), 0, "{http}: {}", stdout(&output));
        stdout(&output).contains("WARNING revocation: [revoke.http] sends the tenant only in the header")
    };
    let acme = |topic: &str| format!("{{ topic = '{topic}', tenant = 'acme' }}");
    for (topics, http, warned) in [
        ("'a'".to_owned(), "preset = 'by_id'", true),
        ("'a'".to_owned(), "preset = 'rfc7009'", true),
        (format!("{}, 'b'", acme("a")), "preset = 'by_id'", true),
        (format!("{}, {}", acme("a"), acme("b").replace("acme", "other")), "preset = 'by_id'", true),
        (format!("{}, {}", acme("a"), acme("b")), "preset = 'by_id'", false),
        ("'a'".to_owned(), "preset = 'by_id'\ntenant = 'acme'", false),
        ("'a'".to_owned(), "body = '{\"tenant\":\"{tenant_id}\",\"id\":\"{id}\"}'", false),
    ] {
        assert_eq!(warns(&topics, http), warned, "{topics} {http}");
    }
}

#[test]
fn replay_hashes_token_ids_if_configured() {
    let folder = folder();
    write(folder.path(), "events.ndjson", events(3));
    for (ids, kept) in [("as_sent", true), ("hashed", false)] {
        write(folder.path(), "t.toml", format!("[privacy]\ntoken_key = 'a key for the tests'\ntoken_ids = '{ids}'\n"));
        let arguments = ["replay", "--config", "t.toml", "events.ndjson", "--verdicts", "-"];
        let output = tokenwarden(folder.path(), &arguments);
        let verdicts = stdout(&output);
        assert_eq!(verdicts.lines().count(), 3, "{}", stderr(&output));
        assert_eq!((verdicts.contains(r#""token_id":"tok""#), verdicts.contains("hmac:")), (kept, !kept), "{verdicts}");
    }
}

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
fn replay_takes_confirmed_and_tenant_from_config() {
    let folder = folder();
    let confirmed = event(1).replace('{', r#"{"kind":"confirmed","#);
    write(folder.path(), "events.ndjson", format!("{}\n{confirmed}\n", event(0)));
    for (config, ignored) in [("", true), ("confirmed = true\ntenant = 'acme'", false)] {
        write(folder.path(), "t.toml", format!("[source.file]\npath = '-'\n{config}\n"));
        let output = tokenwarden(folder.path(), &["replay", "--config", "t.toml", "events.ndjson"]);
        let shown = stderr(&output);
        assert!(shown.contains("2 events"), "{shown}");
        assert_eq!(shown.contains("  ignored: 1 `confirmed` events"), ignored, "{shown}");
    }
    write(folder.path(), "okta.toml", "[source.file]\npath = '-'\nformat = 'okta'\n");
    let format = |more: &[&str]| {
        let arguments = [&["replay", "--config", "okta.toml", "events.ndjson"], more].concat();
        stderr(&tokenwarden(folder.path(), &arguments)).contains("2 events")
    };
    assert!(!format(&[]) && format(&["--format", "native"]), "the command line overrides the configuration");
}

#[test]
fn truncated_file_is_read_up_to_the_cut() {
    let folder = folder();
    keep_one_rule(folder.path());
    let text = events(5_000);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(text.as_bytes()).expect("gzip");
    let mut zst = zstd::Encoder::new(Vec::new(), 1).expect("zstd");
    // A flush ends a block, and the decoder returns only complete blocks.
    for piece in text.as_bytes().chunks(50_000) {
        zst.write_all(piece).and_then(|()| zst.flush()).expect("zstd");
    }
    write(folder.path(), "after.ndjson", event(9_999));
    for (name, whole) in [("cut.gz", gz.finish().expect("gzip")), ("cut.zst", zst.finish().expect("zstd"))] {
        let cut = whole.len() / 2;
        write(folder.path(), name, &whole[..cut]);
        let output =
            tokenwarden(folder.path(), &["replay", "--rules", "rules", name, "after.ndjson", "--verdicts", "-"]);
        let shown = stderr(&output);
        assert_eq!(status(&output), 0, "{shown}");
        let judged = stdout(&output).lines().map(str::to_owned).collect::<Vec<_>>();
        assert!(judged.len() > 1_000 && judged.len() < 4_900, "{name}: {} events", judged.len());
        for (number, line) in judged[..judged.len() - 1].iter().enumerate() {
            assert!(line.starts_with(&format!(r#"{{"event_id":"e{number}","#)), "{name}: {line}");
        }
        assert!(judged[judged.len() - 1].starts_with(r#"{"event_id":"e9999","#), "{name}: the next file is read");
        let place = format!("{name}: unreadable from byte {cut} on, near record ");
        let faults: Vec<_> = shown.lines().filter(|line| line.starts_with("unreadable: ")).collect();
        assert!(faults.len() == 1 && faults[0].starts_with(&format!("unreadable: {place}")), "{shown}");
        let output = tokenwarden(folder.path(), &["replay", "--rules", "rules", name, "--strict"]);
        assert_eq!(status(&output), 65);
        let shown = stderr(&output);
        let last = shown.lines().last().unwrap_or_default();
        assert!(last.starts_with(&format!("tokenwarden: {place}")), "{shown}");
    }
}

#[test]
fn strict_replay_fails_at_bad_records() {
    let folder = folder();
    let mut bytes = events(3).into_bytes();
    bytes.extend_from_slice(b"\xff\xfe\x00\x01 no text\n{\"event_id\":\n");
    bytes.extend_from_slice(event(3).as_bytes());
    write(folder.path(), "mixed.ndjson", bytes);
    let output = tokenwarden(folder.path(), &["replay", "mixed.ndjson", "--verdicts", "-"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 4, "the valid records are scored");
    let shown = stderr(&output);
    assert!(shown.contains("mixed.ndjson:4: ") && shown.contains("mixed.ndjson:5: "), "{shown}");
    assert!(shown.contains("4 events") && shown.contains("2 dead letters"), "{shown}");
    let output = tokenwarden(folder.path(), &["replay", "mixed.ndjson", "--strict"]);
    assert_eq!(status(&output), 65);
    let shown = stderr(&output);
    let last = shown.lines().last().unwrap_or_default();
    assert!(last.starts_with("tokenwarden: mixed.ndjson:4: ") && last.ends_with(", and 1 more"), "{shown}");
}

#[test]
fn replay_accepts_empty_and_binary_files() {
    let folder = folder();
    keep_one_rule(folder.path());
    write(folder.path(), "empty", "");
    let output = tokenwarden(folder.path(), &["replay", "empty", "--strict"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("0 events"));
    let program = std::fs::read(env!("CARGO_BIN_EXE_tokenwarden")).expect("the program");
    write(folder.path(), "binary", &program[..1 << 20]);
    let output = tokenwarden(folder.path(), &["replay", "binary", "--strict"]);
    assert_eq!(status(&output), 65);
    let shown = stderr(&output);
    assert!(shown.bytes().all(|byte| byte == b'\n' || byte >= b' '), "control characters reach the terminal");
    assert!(shown.lines().count() < 30, "a binary file floods the terminal");
    write(folder.path(), "e.ndjson", event(7));
    let output = tokenwarden(folder.path(), &["replay", "--rules", "rules", "binary", "e.ndjson", "--verdicts", "-"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let shown = stdout(&output);
    assert!(shown.lines().count() == 1 && shown.starts_with(r#"{"event_id":"e7","#), "{shown}");
}

#[test]
fn verdicts_do_not_depend_on_compression() {
    let folder = folder();
    let text = events(500);
    write(folder.path(), "e.ndjson", &text);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(text.as_bytes()).expect("gzip");
    write(folder.path(), "e.gz", gz.finish().expect("gzip"));
    write(folder.path(), "e.zst", zstd::encode_all(text.as_bytes(), 1).expect("zstd"));
    let verdicts = |input: &str| {
        let output = tokenwarden(folder.path(), &["replay", input, "--verdicts", "v.ndjson"]);
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        std::fs::read(folder.path().join("v.ndjson")).expect("verdicts")
    };
    let first = verdicts("e.ndjson");
    assert_eq!(first.split(|byte| *byte == b'\n').count() - 1, 500);
    for input in ["e.ndjson", "e.gz", "e.zst"] {
        assert!(verdicts(input) == first, "{input} gives different verdicts");
    }
    let mut child = command(folder.path(), &["replay", "-", "--verdicts", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("tokenwarden runs");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("events");
    assert!(child.wait_with_output().expect("it ends").stdout == first, "standard input gives different verdicts");
}

#[test]
fn verdicts_never_overwrite_their_input() {
    let folder = folder();
    let file = write(folder.path(), "e.ndjson", events(1));
    let output = tokenwarden(folder.path(), &["replay", "e.ndjson", "--verdicts", "./e.ndjson"]);
    assert_eq!(status(&output), 2);
    assert_eq!(std::fs::read_to_string(file).expect("the input"), events(1));
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
