//! `replay`: input files, dead letters, and what its options change.

use std::io::Write as _;
use std::process::Stdio;

use super::support::process::keep_one_rule;
use super::{ENABLE_ADDRESSES, command, event, events, folder, status, stderr, stdout, tokenwarden, write};

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

/// Five days of ten users in two tenants, and on the sixth day calls of some of them from other places.
fn days_and_a_campaign() -> String {
    let mut lines = Vec::new();
    let mut call = |minutes: i64, tenant: usize, user: usize, address: &str, endpoint: &str| {
        let (day, hour, minute) = (minutes / 1_440 + 10, minutes / 60 % 24, minutes % 60);
        lines.push(format!(
            r#"{{"event_id":"e{}","timestamp":"2026-11-{day}T{hour:02}:{minute:02}:00Z","token_id":"at-{tenant}-{user}","family_id":"g-{tenant}-{user}","tenant_id":"t{tenant}","user_id":"u{user}","app_id":"plugin","ip_address":"{address}","endpoint":"{endpoint}"}}"#,
            lines.len()
        ));
    };
    for day in 0..5 {
        for number in 0..20 {
            let (tenant, user) = (number % 2, number / 2);
            let minutes = day * 1_440 + 540 + number as i64;
            call(minutes, tenant, user, &format!("198.51.{tenant}.{user}"), "/v1/messages");
        }
    }
    let begin = 5 * 1_440 + 540;
    for user in 0..10 {
        // The whole tenant moves to another office, with the usual calls.
        call(begin + user as i64, 1, user, "203.0.113.5", "/v1/messages");
    }
    for user in [1, 4, 6, 8] {
        call(begin + 60 + user as i64, 0, user, "192.0.2.9", "/v1/messages");
        call(begin + 60 + user as i64, 0, user, "192.0.2.9", "/v2/export");
    }
    lines.join("\n")
}

#[test]
fn campaigns_are_equal_for_each_number_of_partitions() {
    let folder = folder();
    write(folder.path(), "events.ndjson", days_and_a_campaign());
    let replay = |partitions: &str| {
        let out = format!("campaigns-{partitions}.ndjson");
        let output =
            tokenwarden(folder.path(), &["replay", "events.ndjson", "--partitions", partitions, "--campaigns", &out]);
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        assert!(stderr(&output).contains("campaigns: 1 incident with 4 victims"), "{}", stderr(&output));
        std::fs::read_to_string(folder.path().join(out)).expect("the file of campaigns")
    };
    let whole = replay("1");
    assert_eq!(whole.lines().count(), 1, "{whole}");
    let found: serde_json::Value = serde_json::from_str(&whole).expect("JSON");
    assert_eq!(found["tenant_id"], "t0");
    let users: Vec<_> = found["victims"].as_array().expect("victims").iter().map(|one| &one["user_id"]).collect();
    assert_eq!(users, ["u1", "u4", "u6", "u8"]);
    assert_eq!(found["users"], serde_json::json!({"app_fanout": 4, "ip_fanout": 4}));
    for partitions in ["2", "4", "7", "64"] {
        assert_eq!(replay(partitions), whole, "{partitions} partitions");
    }
}

#[test]
fn campaigns_are_not_searched_for_by_default() {
    let folder = folder();
    write(folder.path(), "events.ndjson", days_and_a_campaign());
    let output = tokenwarden(folder.path(), &["replay", "events.ndjson", "--campaigns", "events.ndjson"]);
    assert_eq!(status(&output), 2, "the output is an input");
    let output = tokenwarden(folder.path(), &["replay", "events.ndjson"]);
    assert!(!stderr(&output).contains("campaigns"), "{}", stderr(&output));
    write(folder.path(), "on.toml", "[detection]\ncampaigns = true");
    let output = tokenwarden(folder.path(), &["replay", "events.ndjson", "--config", "on.toml"]);
    assert!(stderr(&output).contains("campaigns: 1 incident with 4 victims"), "{}", stderr(&output));
}
