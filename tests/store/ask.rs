//! The commands `tokenwarden explain` and `tokenwarden investigate`.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokenwarden::port::Store as _;
use tokenwarden::store::ClickHouse;

use super::views::theft;
use super::{embedded, library, turn};

fn ask(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
        .args(arguments)
        .args(["--store", &format!("embedded:{}", directory.display())])
        .current_dir(directory)
        .env("TOKENWARDEN__STORE__LIBRARY", library())
        .output()
        .unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn read(output: &Output) -> Value {
    serde_json::from_str(&printed(output)).unwrap()
}

fn close_to(value: &Value, expected: f64) -> bool {
    value.as_f64().is_some_and(|value| (value - expected).abs() < 1e-9)
}

#[tokio::test]
async fn explain_and_investigate_show_a_theft() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let store = ClickHouse::open(&embedded(directory.path())).await.unwrap();
    store.write(&theft()).await.unwrap();
    store.close().await;
    let directory = directory.path();

    // 4.5 in total: prior −7.5, 6.25 and −0.5 listed, the rest too small to list. 4.5 − 6.25 is below the threshold.
    let event = read(&ask(directory, &["explain", "event-11"]));
    let explained = &event["events"][0];
    let signals = explained["signals"].as_array().unwrap();
    assert_eq!(signals.iter().map(|signal| &signal["rule"]).collect::<Vec<_>>(), ["new_country", "unusual_time"]);
    for (value, expected) in [
        (&signals[0]["share"], 6.25),
        (&explained["before_looking"], -7.5),
        (&explained["alert_from"], 2.5),
        (&explained["unlisted"], 4.5 + 7.5 - 6.25 + 0.5),
        (&explained["log_odds"], 4.5),
    ] {
        assert!(close_to(value, expected), "{value} is not {expected}");
    }
    assert_eq!(explained["would_not_have_alerted_without"], json!(["new_country"]));
    assert_eq!(event["incident"]["severity"], "critical");

    // By its id, the incident contains the same, with all its steps and actions in order.
    let incident = read(&ask(directory, &["explain", "INC-0000000000000001"]));
    let timeline = incident["incident"]["timeline"].as_array().unwrap();
    let times: Vec<_> = timeline.iter().map(|step| step["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let count = |what: &str| timeline.iter().filter(|step| step["what"] == what).count();
    assert_eq!((count("event"), count("incident"), count("action")), (4, 2, 2));
    let outcomes: Vec<_> = incident["incident"]["actions"].as_array().unwrap().iter().map(|a| &a["outcome"]).collect();
    assert_eq!(outcomes, ["retry", "done"]);

    // An ordinary event has a result without signals.
    let ordinary = read(&ask(directory, &["explain", "event-3"]));
    assert_eq!((&ordinary["events"][0]["signals"], &ordinary["incident"]), (&json!([]), &Value::Null));
    assert_eq!(ordinary["events"][0]["would_not_have_alerted_without"], json!([]));

    // As text: values of events contain no terminal control and no line breaks.
    let shown = printed(&ask(directory, &["explain", "event-11", "--output", "text"]));
    assert!(shown.contains("+6.25  new_country") && shown.contains("decisive: new_country"), "{shown}");
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{shown:?}");

    let token = read(&ask(directory, &["investigate", "token", "token-1"]));
    assert_eq!(token["summary"]["events"], 15);
    assert_eq!((&token["summary"]["alerted"], &token["summary"]["refused"]), (&json!(4), &json!(1)));
    assert_eq!(
        (&token["places"][0]["address"], &token["places"][0]["suspect_calls"]),
        (&json!("192.0.2.200"), &json!(4))
    );
    assert_eq!((&token["routes"][0]["route"], &token["routes"][0]["accepted"]), (&json!("/v1/export"), &json!(3)));
    assert_eq!(token["incidents"][0]["incident_id"], "INC-0000000000000001");
    // The address also used another user's token.
    for address in ["192.0.2.200", "::ffff:192.0.2.200"] {
        let address = read(&ask(directory, &["investigate", "ip", address]));
        assert_eq!(address["tokens"].as_array().unwrap().len(), 2, "{address}");
    }
    for (kind, id, events) in [("user", "user-2", 1), ("token", "family-1", 15), ("app", "app-1", 16)] {
        assert_eq!(read(&ask(directory, &["investigate", kind, id]))["summary"]["events"], events, "{kind} {id}");
    }
    let shown = printed(&ask(directory, &["investigate", "token", "token-1", "--output", "text"]));
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{shown:?}");

    // An id is data, whatever it contains.
    for arguments in [
        ["explain", "x' OR 1 = 1 --"].as_slice(),
        &["explain", "\\' OR 1 = 1 --"],
        &["investigate", "user", "?' OR '1' = '1"],
        &["investigate", "token", "token-9"],
        &["investigate", "ip", "192.0.2.7') OR (1 = 1"],
    ] {
        let output = ask(directory, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}
