//! `tokenwarden replay` into the store: which parts of a file are stored, and which are not.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokenwarden::store::Reader;

use super::{embedded, library, turn};

/// A session token as AWS issues it, placed in three fields of each record where AWS writes tokens.
const SESSION_TOKEN: &str = "IQoJb3JpZ2luX2VjEMv7kq0WmT2xRb9LrYd4NhZs8uPf3GcVa6EoJtKi5wQy1BnXp0SdMhRzUgCe7AvLk";

fn tokenwarden(folder: &Path, arguments: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
        .args(arguments)
        .current_dir(folder)
        // No GeoIP files: reading them would take longer than the test.
        .env("TOKENWARDEN_CACHE", folder)
        .env("TOKENWARDEN__STORE__LIBRARY", library())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, told)
}

/// A call of an assumed role, with its key.
fn call(id: &str, time: &str) -> Value {
    json!({
        "eventVersion": "1.09", "eventID": id, "eventTime": time, "eventSource": "s3.amazonaws.com",
        "eventName": "GetObject", "sourceIPAddress": "198.51.100.7", "userAgent": "[aws-cli/2.17.0]",
        "userIdentity": {
            "type": "AssumedRole", "principalId": "AROAEXAMPLE0000000001:deploy-77", "accessKeyId": "ASIAEXAMPLE000000001",
            "arn": "arn:aws:sts::111122223333:assumed-role/deploy/deploy-77",
            "sessionContext": {"sessionIssuer": {"arn": "arn:aws:iam::111122223333:role/ci/deploy"}}
        },
        "requestParameters": {"bucketName": "reports", "X-Amz-Security-Token": SESSION_TOKEN},
        "responseElements": {"credentials": {"sessionToken": SESSION_TOKEN}},
        "errorMessage": format!("The security token {SESSION_TOKEN} has expired"),
        "recipientAccountId": "111122223333"
    })
}

/// Replays `text` as a CloudTrail file. Returns what the command printed to stdout and stderr.
fn replay(folder: &Path, text: &str) -> (String, String) {
    let file = std::fs::File::create(folder.join("delivery.json.gz")).unwrap();
    let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    gz.write_all(text.as_bytes()).and_then(|()| gz.finish()).unwrap();
    let arguments =
        ["replay", "delivery.json.gz", "--format", "cloudtrail", "--store", "embedded:data", "--verdicts", "-"];
    let (output, told) = tokenwarden(folder, &arguments);
    assert!(output.status.success(), "{told}");
    (String::from_utf8(output.stdout).unwrap(), told)
}

#[tokio::test]
async fn replay_reads_standard_input_before_the_engine() {
    let _turn = turn().await;
    let folder = TempDir::new().unwrap();
    let at = |number: i64| 1_790_000_000_000 + number * 1_000;
    let event = |n: i64| {
        json!({"event_id": format!("e{n}"), "timestamp": at(n), "token_id": "t", "ip_address": "192.0.2.1"}).to_string()
    };
    let events = (0..50).map(event).collect::<Vec<_>>().join("\n");
    // The whole input is in the pipe when the engine opens and creates its tables.
    let mut child = Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
        .args(["replay", "-", "--store", "embedded:data"])
        .current_dir(folder.path())
        .env("TOKENWARDEN_CACHE", folder.path())
        .env("TOKENWARDEN__STORE__LIBRARY", library())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(events.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let counted = sql(folder.path(), "SELECT toString((uniqExact(event_id), count())) FROM token_events");
    assert!(counted.contains("(50,50)"), "{counted}");
}

fn sql(folder: &Path, query: &str) -> String {
    let (output, told) = tokenwarden(folder, &["sql", "--store", "embedded:data", "--output", "json", query]);
    assert!(output.status.success(), "{query}: {told}");
    // Aggregate states are binary.
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every column of every row of every table and view.
fn dump(folder: &Path) -> String {
    let tables = sql(folder, "SELECT name FROM system.tables WHERE database = currentDatabase()");
    let name = |line: &str| serde_json::from_str::<Value>(line).unwrap()["name"].as_str().unwrap().to_owned();
    let tables: Vec<String> = tables.lines().map(name).collect();
    for table in ["token_events", "incidents", "actions", "dead_letters"] {
        assert!(tables.iter().any(|found| found == table), "{tables:?}");
    }
    tables.iter().map(|table| sql(folder, &format!("SELECT * FROM `{table}`"))).collect()
}

#[tokio::test]
async fn replay_stores_no_cloudtrail_session_token() {
    let _turn = turn().await;
    let folder = TempDir::new().unwrap();
    let mut issued = call("ct-2", "2026-11-22T10:16:00Z");
    issued["eventSource"] = "sts.amazonaws.com".into();
    issued["eventName"] = "AssumeRole".into();
    issued["responseElements"]["credentials"]["accessKeyId"] = "ASIAEXAMPLE000000002".into();
    let mut service = call("ct-3", "2026-11-22T10:17:00Z");
    service["userIdentity"] = json!({"type": "AWSService", "invokedBy": "cloudtrail.amazonaws.com"});
    let (first, last) = (call("ct-1", "2026-11-22T10:15:00Z"), call("ct-4", "2026-11-22T10:18:00Z"));
    let records = json!({"Records": [first, issued, service, first, last]});

    let (verdicts, told) = replay(folder.path(), &records.to_string());
    assert!(told.contains("5 events, 1 of them duplicates; 1 records without a token; 0 dead letters\n"), "{told}");
    assert_eq!(verdicts.lines().count(), 4, "the call that issues a key is also a call of its caller");

    // Unreadable records are stored too, without the token, even if they end in the middle of it.
    let mut cut = call("ct-6", "2026-11-22T10:19:00Z").to_string();
    cut.truncate(cut.rfind(SESSION_TOKEN).unwrap() + 50);
    let (more, told_more) = replay(folder.path(), &format!("{}\n{cut}", call("ct-5", "soon")));
    assert!(told_more.contains("0 events, 0 of them duplicates; 0 records without a token; 2 dead letters\n"));

    // While one process has the engine open, the others query it, which is faster than opening it each time.
    let reader = Reader::open(&embedded(&folder.path().join("data"))).await.unwrap();
    let dumped = dump(folder.path());
    let counts = "SELECT count() AS n, uniqExact(event_id) AS ids FROM token_events";
    assert_eq!(sql(folder.path(), counts), "{\"n\":4,\"ids\":4}\n");
    assert_eq!(sql(folder.path(), "SELECT count() AS n FROM dead_letters"), "{\"n\":2}\n");
    reader.close().await;
    let ids = ["ct-1", "ct-2", "ct-4", "ct-5", "ct-6"];
    for kept in [&ids[..], &["ASIAEXAMPLE000000001", "ASIAEXAMPLE000000002", "The security token "]].concat() {
        assert!(dumped.contains(kept), "{kept} is not in\n{dumped}");
    }
    for (what, text) in
        [("tables", dumped), ("verdicts", verdicts + &more), ("what the terminal shows", told + &told_more)]
    {
        for piece in [&SESSION_TOKEN[..20], &SESSION_TOKEN[30..50], &SESSION_TOKEN[60..]] {
            assert!(!text.contains(piece), "{what}: {piece} in\n{text}");
        }
    }
}
