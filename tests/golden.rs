//! Compares the verdicts of a simulated stream with stored ones. A change of structure must not change a verdict.
//!
//! Compared are verdict, rules and log-odds (to 1e-6) of each event with a signal, and the sum of the log-odds of each
//! thousand events. Texts are not compared. A change of the model is expected to fail here: the failure names the file
//! to store instead.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test that cannot go on says so")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const STORED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/golden/afternoon-11.tsv.zst");
/// Largest difference between two log-odds that are equal.
const TOLERANCE: f64 = 1e-6;
/// Events per sum.
const EVENTS_PER_SUM: usize = 1_000;

#[test]
fn verdicts_of_a_simulated_stream_are_as_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let stream = folder.path().join("stream");
    run(folder.path(), &["simulate", "--size", "afternoon", "--seed", "11", "--out", path(&stream)]);
    let events = stream.join("events.ndjson");
    let found = summary(&run(folder.path(), &["replay", path(&events), "--verdicts", "-"]));
    let stored = std::fs::read(STORED).map(|bytes| zstd::decode_all(&*bytes).expect("zstd")).unwrap_or_default();
    let stored = String::from_utf8(stored).expect("text");
    if let Some(difference) = difference(&stored, &found) {
        let other = Path::new(env!("CARGO_TARGET_TMPDIR")).join("afternoon-11.tsv.zst");
        std::fs::write(&other, zstd::encode_all(found.as_bytes(), 19).expect("zstd")).expect("a file");
        panic!("{difference}\nIf the model was changed on purpose, copy {} to {STORED}", other.display());
    }
}

#[test]
fn difference_finds_each_change() {
    let line = "e1\talert\t1.500000\tnew_ip,new_client\n";
    assert_eq!(difference(line, line), None);
    assert_eq!(difference(line, &line.replace("1.500000", "1.5000009")), None);
    for (from, to) in [("alert", "watch"), (",new_client", ""), ("1.500000", "1.500002"), ("e1", "e2")] {
        assert!(difference(line, &line.replace(from, to)).is_some(), "{from} {to}");
    }
    assert!(difference(line, "").is_some() && difference("", line).is_some());
}

/// One line per event with a signal, and one per [`EVENTS_PER_SUM`] events.
fn summary(verdicts: &str) -> String {
    let mut lines = String::new();
    let mut sum = 0.0;
    for (number, verdict) in verdicts.lines().enumerate() {
        let verdict: Value = serde_json::from_str(verdict).expect("a verdict");
        let log_odds = verdict["log_odds"].as_f64().expect("log-odds");
        let text = |field: &str| verdict[field].as_str().expect("text").to_owned();
        let mut rules: Vec<&str> =
            verdict["signals"].as_array().into_iter().flatten().filter_map(|signal| signal["rule"].as_str()).collect();
        rules.sort_unstable();
        if !rules.is_empty() {
            writeln!(lines, "{}\t{}\t{log_odds:.6}\t{}", text("event_id"), text("verdict"), rules.join(","))
                .expect("text");
        }
        sum += log_odds;
        if (number + 1) % EVENTS_PER_SUM == 0 {
            writeln!(lines, "sum {number}\t-\t{sum:.6}\t").expect("text");
            sum = 0.0;
        }
    }
    lines
}

/// The first lines that differ.
fn difference(stored: &str, found: &str) -> Option<String> {
    let (mut stored, mut found) = (stored.lines(), found.lines());
    loop {
        let (one, other) = (stored.next(), found.next());
        match (one, other) {
            (None, None) => return None,
            (Some(one), Some(other)) if are_equal(one, other) => {}
            _ => {
                let line = |line: Option<&str>| line.unwrap_or("nothing").to_owned();
                return Some(format!("stored: {}\nfound:  {}", line(one), line(other)));
            }
        }
    }
}

fn are_equal(one: &str, other: &str) -> bool {
    let fields = |line: &str| {
        let mut fields = line.split('\t').map(str::to_owned);
        let name = (fields.next(), fields.next());
        let log_odds = fields.next().and_then(|text| text.parse::<f64>().ok()).expect("log-odds");
        (name, fields.next(), log_odds)
    };
    let ((name, rules, log_odds), (other_name, other_rules, other_log_odds)) = (fields(one), fields(other));
    // A sum may differ by the differences of its parts.
    let tolerance = if one.starts_with("sum ") { TOLERANCE * EVENTS_PER_SUM as f64 } else { TOLERANCE };
    name == other_name && rules == other_rules && (log_odds - other_log_odds).abs() <= tolerance
}

/// Standard output of a run without GeoIP files.
fn run(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("TOKENWARDEN_CACHE", folder.join("no cache"))
        .output()
        .expect("tokenwarden runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
