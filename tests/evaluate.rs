//! `tokenwarden evaluate` and `replay --against` as scripts use them.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test that cannot go on says so")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Forty tokens used once a day for thirty days, each from its own address. The third token travels on day fifteen. A
/// thief uses the first on the last day, and two more in a campaign.
fn labelled(folder: &Path, labels: &str) {
    let mut events = String::new();
    let mut put = |id: &str, day: usize, hour: usize, token: usize, address: &str, attrs: &str| {
        let at = format!("2026-06-{:02}T{hour:02}:00:00Z", day + 1);
        writeln!(
            events,
            r#"{{"event_id":"{id}","timestamp":"{at}","token_id":"t{token}","ip_address":"{address}"{attrs}}}"#
        )
        .expect("text");
    };
    for day in 0..30 {
        for token in 0..40 {
            put(&format!("e{day}-{token}"), day, 10, token, &format!("192.0.2.{token}"), "");
        }
        if day == 14 {
            put("travel", day, 11, 3, "198.51.100.3", r#","attrs":{"label":"honest","scenario":"travel","case":"t"}"#);
        }
    }
    put("theft", 29, 11, 0, "198.51.100.1", r#","attrs":{"label":"theft","scenario":"foreign_host","case":"f"}"#);
    for token in [1, 2] {
        let attrs = r#","attrs":{"label":"theft","scenario":"campaign","case":"c"}"#;
        put(&format!("campaign-{token}"), 29, 12, token, "198.51.100.2", attrs);
    }
    std::fs::write(folder.join("events.ndjson.zst"), zstd::encode_all(events.as_bytes(), 1).expect("zstd"))
        .expect("a file");
    if !labels.is_empty() {
        std::fs::write(folder.join("labels.ndjson"), labels).expect("a file");
    }
}

const LABELS: &str = r#"{"event_id":"theft","label":"theft","scenario":"foreign_host","case":"f"}
{"event_id":"campaign-1","label":"theft","scenario":"campaign","case":"c"}
{"event_id":"campaign-2","label":"theft","scenario":"campaign","case":"c"}
{"event_id":"travel","label":"honest","scenario":"travel","case":"t"}
"#;

fn tokenwarden(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("TOKENWARDEN_CACHE", folder.join("no cache"))
        .output()
        .expect("tokenwarden runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn figures(folder: &Path, arguments: &[&str]) -> Value {
    let arguments = [&["evaluate", ".", "--json", "figures.json"], arguments].concat();
    let output = tokenwarden(folder, &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&std::fs::read(folder.join("figures.json")).expect("figures")).expect("JSON")
}

#[test]
fn evaluate_measures_a_labelled_set() {
    let folder = tempfile::tempdir().expect("a folder");
    labelled(folder.path(), LABELS);
    let report = figures(folder.path(), &["--peers", "--roc", "roc.svg"]);
    assert_eq!((&report["events"], &report["token_days"]), (&Value::from(1_204), &Value::from(1_200)));
    assert_eq!((&report["thefts"], &report["hard_cases"]), (&Value::from(2), &Value::from(1)));
    let [theft, campaign] = [0, 1].map(|number| &report["each_theft"][number]);
    assert_eq!((&theft["case"], &theft["caught_at"]), (&"f".into(), &1.0.into()));
    let said = theft["most_telling"]["signals"][0].as_str().expect("a reason");
    assert!(said.starts_with("new_network +3.0: used from a new network: 198.51.100.1"), "{said}");
    // The second event of a campaign is slightly less suspicious.
    assert_eq!(campaign["most_telling"]["event_id"], "campaign-1");
    let peers = report["detectors"].as_array().expect("detectors");
    let new_address = peers.iter().find(|peer| peer["name"] == "new address").expect("the rule");
    // One false positive in 1,200 token-days is within the budget: the traveller, who is less suspicious than the
    // thefts.
    assert_eq!(new_address["points"][0]["false_alerts"], 1);
    assert_eq!(new_address["points"][0]["macro_recall"]["share"], 1.0);
    let travel = report["honest"][0]["peers"].as_array().expect("by rule");
    assert_eq!(travel[2], Value::from(vec![1, 1, 1]));
    let svg = std::fs::read_to_string(folder.path().join("roc.svg")).expect("a picture");
    assert!(svg.starts_with("<svg ") && svg.contains(">likelihood ratio</text>"));

    // From the eleventh day on.
    let report = figures(folder.path(), &["--warmup", "10"]);
    assert_eq!((&report["events"], &report["token_days"]), (&Value::from(804), &Value::from(800)));
    assert_eq!(report["detectors"].as_array().map(Vec::len), Some(1), "the rules run only if requested");
}

/// Events of one producer with a wrong clock, before all others.
fn forge(folder: &Path, days: i64) {
    let file = folder.join("events.ndjson.zst");
    let events = zstd::decode_all(std::fs::read(&file).expect("the events").as_slice()).expect("zstd");
    let mut forged = String::new();
    for number in 0..600_i64 {
        let at = 1_780_308_000_000 + days * 86_400_000 + number;
        writeln!(
            forged,
            r#"{{"event_id":"forged-{number}","timestamp":{at},"token_id":"forged-{number}","ip_address":"203.0.113.7"}}"#
        )
        .expect("text");
    }
    let all = [forged.as_bytes(), &events].concat();
    std::fs::write(file, zstd::encode_all(all.as_slice(), 1).expect("zstd")).expect("a file");
}

#[test]
fn warmup_ignores_a_wrong_clock_at_the_start() {
    for days in [400, 29, -400] {
        let folder = tempfile::tempdir().expect("a folder");
        labelled(folder.path(), LABELS);
        forge(folder.path(), days);
        // The stream's time is corrected after 256 events of others; 400 events are of the ten days.
        let report = figures(folder.path(), &["--warmup", "10"]);
        let events = report["events"].as_u64().expect("a count");
        assert!((450..=850).contains(&events), "{days}: {events} events are measured");
        assert_eq!(report["thefts"], 2, "{days}");
        // Without a warm-up, all events are measured, on the days of the stream.
        let report = figures(folder.path(), &[]);
        assert_eq!(report["events"], 1_804, "{days}");
        let output = tokenwarden(folder.path(), &["evaluate", "."]);
        let told = text(&output.stderr);
        assert!(told.contains(" events have a time far "), "{days}: {told}");
    }
}

/// Macro recall of tokenwarden at one false positive per 1,000 token-days.
fn recall(report: &Value) -> f64 {
    report["detectors"][0]["points"][0]["macro_recall"]["share"].as_f64().expect("a share")
}

#[test]
fn without_option_leaves_out_a_detector() {
    let folder = tempfile::tempdir().expect("a folder");
    labelled(folder.path(), LABELS);
    let whole = recall(&figures(folder.path(), &[]));
    assert!(whole > 0.9, "{whole}");
    // Only the address is suspicious in these thefts.
    assert!(recall(&figures(folder.path(), &["--without", "net", "--without", "fan"])) < 0.1);
    assert!((recall(&figures(folder.path(), &["--without", "client"])) - whole).abs() < 1e-9);
    let output = tokenwarden(folder.path(), &["evaluate", ".", "--without", "weather"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("possible values: net, client, hour,"), "{}", text(&output.stderr));
}

#[test]
fn control_option_leaves_out_a_scenario() {
    let folder = tempfile::tempdir().expect("a folder");
    labelled(folder.path(), LABELS);
    let report = figures(folder.path(), &["--control", "campaign"]);
    assert_eq!(report["scenarios"][0]["control"], true);
    assert_eq!(report["scenarios"][1]["control"], false);
    assert_eq!((&report["thefts"], recall(&report) > 0.9), (&Value::from(2), true));
    let report = figures(folder.path(), &["--control", "foreign_host", "--control", "campaign"]);
    assert!(recall(&report) < 1e-9, "no scenario is left");
    let output = tokenwarden(folder.path(), &["evaluate", ".", "--control", "absent", "--control", "travel"]);
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!(text(&output.stderr), @r"
    no theft has the scenario absent of --control
    no theft has the scenario travel of --control
    ");
}

#[test]
fn labels_in_events_give_the_same_figures() {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    labelled(folder.path(), LABELS);
    labelled(other.path(), "");
    assert_eq!(figures(folder.path(), &["--peers"]), figures(other.path(), &["--peers"]));
}

#[test]
fn compressed_labels_are_found_beside_the_events() {
    // One theft, although the attributes of the events name two.
    let labels = LABELS.lines().next().expect("a label");
    let plain = tempfile::tempdir().expect("a folder");
    labelled(plain.path(), labels);
    let expected = figures(plain.path(), &[]);
    assert_eq!(expected["thefts"], 1);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(labels.as_bytes()).expect("gzip");
    let zstd = zstd::encode_all(labels.as_bytes(), 1).expect("zstd");
    for (name, bytes) in [("labels.ndjson.gz", gzip.finish().expect("gzip")), ("labels.ndjson.zst", zstd)] {
        let folder = tempfile::tempdir().expect("a folder");
        labelled(folder.path(), "");
        std::fs::write(folder.path().join(name), &bytes).expect("a file");
        assert_eq!(figures(folder.path(), &[]), expected, "{name}");
        std::fs::write(folder.path().join("labels.ndjson"), labels).expect("a file");
        let output = tokenwarden(folder.path(), &["evaluate", "."]);
        assert_eq!(output.status.code(), Some(2), "two files of labels");
        std::fs::rename(folder.path().join(name), folder.path().join("elsewhere")).expect("moved");
        assert_eq!(figures(folder.path(), &["--labels", "elsewhere"]), expected, "{name}");
    }
}

#[test]
fn labels_without_an_event_are_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let ends = |status: i32, arguments: &[&str]| {
        let output = tokenwarden(folder.path(), &[&["evaluate", "."], arguments].concat());
        assert_eq!(output.status.code(), Some(status), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let other = "{\"event_id\":\"other\",\"label\":\"theft\"}\n";
    labelled(folder.path(), other);
    insta::assert_snapshot!(ends(65, &[]), @"tokenwarden: none of the 1 labels matches an event; compare the `event_id` of both files");
    labelled(folder.path(), &format!("{LABELS}{other}"));
    insta::assert_snapshot!(ends(0, &[]), @"1 of the 5 labels match no event");
    // The thefts are on the last day, the traveller's label is on day fifteen.
    assert_eq!(ends(0, &["--warmup", "20"]), "1 of the 5 labels match no event\n");
    std::fs::remove_file(folder.path().join("labels.ndjson")).expect("removed");
    let events = (0..3).map(|number| {
        format!("{{\"event_id\":\"e{number}\",\"timestamp\":{number},\"token_id\":\"t\",\"attrs\":{{\"label\":\"stolen\"}}}}\n")
    });
    std::fs::remove_file(folder.path().join("events.ndjson.zst")).expect("removed");
    std::fs::write(folder.path().join("events.ndjson"), events.collect::<String>()).expect("a file");
    insta::assert_snapshot!(ends(65, &[]), @r#"tokenwarden: no labels: there is no labels.ndjson or labels.ndjson.zst or labels.ndjson.gz beside the events, and no event has an attribute `label` with the value "theft" or "honest""#);
}

#[test]
fn tables_go_to_stdout_and_into_a_page() {
    let folder = tempfile::tempdir().expect("a folder");
    labelled(folder.path(), LABELS);
    let page = folder.path().join("page.md");
    std::fs::write(&page, "before\n<!-- figures: begin -->\nstale\n<!-- figures: end -->\nafter\n").expect("a page");
    for _ in 0..2 {
        let output = tokenwarden(folder.path(), &["evaluate", ".", "--into", "page.md"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(
            text(&output.stdout)
                .starts_with("1204 events of 30 days: 1200 token-days, 2 thefts of 2 kinds, 1 hard cases")
        );
        let filled = std::fs::read_to_string(&page).expect("a page");
        assert!(filled.starts_with("before\n<!-- figures: begin -->\n\n1204 events"), "{filled}");
        assert!(filled.ends_with("\n<!-- figures: end -->\nafter\n") && !filled.contains("stale"), "{filled}");
        assert_eq!(filled.matches("### By kind of theft").count(), 1);
    }
}

#[test]
fn board_compares_results_of_several_sets() {
    let folder = tempfile::tempdir().expect("a folder");
    labelled(folder.path(), LABELS);
    for (name, option) in [("set-1.json", "--warmup=0"), ("set-2.json", "--warmup=10"), ("other.json", "--without=net")]
    {
        let output = tokenwarden(folder.path(), &["evaluate", ".", "--json", name, "--control", "campaign", option]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    let page = folder.path().join("page.md");
    std::fs::write(&page, "before\n<!-- board: begin -->\nstale\n<!-- board: end -->\nafter\n").expect("a page");
    let results = ["other.json", "set-1.json", "set-2.json"];
    let board = [&["evaluate", "--into", "page.md", "--board"][..], &results].concat();
    let output = tokenwarden(folder.path(), &board);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("3 sets in 2 groups."), "{}", text(&output.stdout));
    let filled = std::fs::read_to_string(&page).expect("a page");
    assert!(filled.starts_with("before\n<!-- board: begin -->\n\n3 sets"), "{filled}");
    assert!(filled.ends_with("\n<!-- board: end -->\nafter\n") && !filled.contains("stale"), "{filled}");
    // In 800 token-days no false positive is allowed at 1, but the traveller is one.
    assert!(filled.contains("\n| set-1 | 100 / 100 / 100 | "), "{filled}");
    assert!(filled.contains("\n| set-2 | 0 / 100 / 100 | "), "{filled}");
    assert!(filled.contains("\n| set: 2 sets | 50 / 100 / 100 | "), "{filled}");
    assert!(filled.contains("\n| set | campaign (control) | 2 | 50 % | 100 % | 100 % |\n"), "{filled}");

    let ends = |status: i32, arguments: &[&str]| {
        let output = tokenwarden(folder.path(), &[&["evaluate"], arguments].concat());
        assert_eq!(output.status.code(), Some(status), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    insta::assert_snapshot!(ends(2, &["--board", "none.json"]), @"tokenwarden: cannot read the results none.json: No such file or directory (os error 2)");
    std::fs::write(folder.path().join("empty.json"), "{}").expect("a file");
    insta::assert_snapshot!(ends(65, &["--board", "empty.json"]), @"tokenwarden: cannot read the results empty.json: missing field `events` at line 1 column 2");
    assert!(ends(2, &[".", "--board", "other.json"]).contains("cannot be used with"));
    assert!(ends(2, &[]).contains("<DIR>"));
}

#[test]
fn unusable_input_is_one_line_of_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let ends = |status: i32, arguments: &[&str]| {
        let output = tokenwarden(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(status), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    insta::assert_snapshot!(ends(2, &["evaluate", "."]), @"tokenwarden: no events.ndjson or events.ndjson.zst or events.ndjson.gz in .");
    labelled(folder.path(), "{\"event_id\":\"theft\",\"label\":\"stolen\"}\n");
    insta::assert_snapshot!(ends(65, &["evaluate", "."]), @r#"tokenwarden: cannot read the labels ./labels.ndjson: line 1: `label` is "stolen"; write "theft" or "honest""#);
    insta::assert_snapshot!(ends(2, &["evaluate", ".", "--labels", "none"]), @"tokenwarden: cannot read the labels none: No such file or directory (os error 2)");
    std::fs::write(folder.path().join("labels.ndjson"), LABELS).expect("a file");
    std::fs::write(folder.path().join("page.md"), "nothing").expect("a page");
    insta::assert_snapshot!(ends(2, &["evaluate", ".", "--into", "page.md"]), @"tokenwarden: page.md: has no lines <!-- figures: begin --> and <!-- figures: end -->");
    insta::assert_snapshot!(ends(78, &["evaluate", ".", "--rules", "none"]), @"tokenwarden: none: the rules directory cannot be read: No such file or directory (os error 2)");
    std::fs::write(folder.path().join("events.ndjson"), "").expect("a file");
    insta::assert_snapshot!(ends(2, &["evaluate", "."]), @"tokenwarden: . has more than one of events.ndjson, events.ndjson.zst, events.ndjson.gz; keep one");
}

#[test]
fn rules_against_themselves_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    labelled(folder.path(), "");
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let rules = rules.to_str().expect("a path");
    let output = tokenwarden(folder.path(), &["replay", "events.ndjson.zst", "--rules", rules, "--against", rules]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    assert!(
        text(&output.stderr).starts_with("1204 events: 0 alerts added, 0 removed, 0 changed"),
        "{}",
        text(&output.stderr)
    );
    let output = tokenwarden(folder.path(), &["replay", "events.ndjson.zst", "--rules", rules, "--against", "none"]);
    assert_eq!(output.status.code(), Some(78));
    let output = tokenwarden(folder.path(), &["replay", "events.ndjson.zst", "--against", rules, "--verdicts", "-"]);
    assert_eq!(output.status.code(), Some(2));
}
