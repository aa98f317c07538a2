//! The command `tokenwarden incidents`.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokenwarden::port::{ActionOutcome, ActionRow, Confirmation, Radius, Rows as _, Store as _};
use tokenwarden::sanitize::is_unsafe;
use tokenwarden::store::{ClickHouse, EpochRows};
use tokenwarden::verdict::{Incident, Severity};

use super::rows::{action, incident};
use super::support::web::Web;
use super::{embedded, library, turn};

const ONE: &str = "INC-0000000000000001";

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwarden"));
    command.arg("incidents").args(arguments).args(["--store", &format!("embedded:{}", directory.display())]);
    command.current_dir(directory).env("TOKENWARDEN__STORE__LIBRARY", library());
    command
}

pub(crate) fn run(directory: &Path, arguments: &[&str]) -> Output {
    command(directory, arguments).output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(text.chars().all(|c| c == '\n' || !is_unsafe(c)), "{text:?}");
    text
}

fn listed(directory: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = run(directory, &[&["list"], arguments].concat());
    let list: Value = serde_json::from_str(&printed(&output)).unwrap();
    list["incidents"].as_array().unwrap().clone()
}

/// Stores a change of incident `id`.
async fn change(store: &ClickHouse, id: u64, number: u64, severity: Severity) {
    let mut rows = EpochRows::new();
    rows.push_incident(&incident(id, number, severity));
    store.write(&rows).await.unwrap();
}

#[tokio::test]
async fn concurrent_changes_of_one_incident_do_not_overwrite_each_other() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    let store = ClickHouse::open(&embedded(directory)).await.unwrap();
    change(&store, 1, 1, Severity::Medium).await;
    let operators: Vec<_> = (0..4)
        .map(|number| {
            let by = format!("operator-{number}");
            let arguments = ["ack", ONE, "--by", &by, "--if-version", "0"];
            command(directory, &arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let ended: Vec<_> = operators.into_iter().map(|operator| operator.wait_with_output().unwrap()).collect();
    let refused: Vec<_> = ended.iter().filter(|output| !output.status.success()).collect();
    assert_eq!(refused.len(), 3, "{ended:?}");
    assert!(refused.iter().all(|output| output.status.code() == Some(69)), "{refused:?}");
    let shown: Value = serde_json::from_slice(&run(directory, &["show", ONE]).stdout).unwrap();
    assert_eq!(shown["version"], json!(1), "{shown}");
    let winner = ended.iter().position(|output| output.status.success()).unwrap();
    assert_eq!(shown["assignee"], json!(format!("operator-{winner}")));
}

#[tokio::test]
async fn incidents_have_status_assignee_and_history() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let store = ClickHouse::open(&embedded(directory.path())).await.unwrap();
    change(&store, 1, 1, Severity::Medium).await;
    let mut rows = EpochRows::new();
    let confirmation = Confirmation {
        revoked_at: 1_710_000_000_123,
        verified_at: Some(1_710_000_002_000),
        radius: Some(Radius::Session),
    };
    let done = action(1, 1, ActionOutcome::Done);
    let reason = "automatic revocation of this tenant is stopped (BRK-1)".to_owned();
    rows.push_action(&ActionRow { reason, ..action(1, 0, ActionOutcome::Stopped) });
    rows.push_action(&ActionRow { radius: Some(Radius::Session), confirmation: Some(confirmation), ..done });
    rows.push_action(&ActionRow { kind: "alert_email".to_owned(), ..action(1, 2, ActionOutcome::Done) });
    store.write(&rows).await.unwrap();
    change(&store, 2, 2, Severity::Critical).await;
    let directory = directory.path();

    let ids =
        |incidents: &[Value]| incidents.iter().map(|incident| incident["incident_id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&listed(directory, &[])), ["INC-0000000000000002", ONE], "the gravest first");
    assert!(listed(directory, &["--tenant", "other"]).is_empty());

    let text = printed(&run(directory, &["ack", ONE, "--by", "Ana", "--note", "calling the owner"]));
    assert!(
        text.contains("status acknowledged, version 1") && text.contains("by Ana, assignee Ana: calling"),
        "{text}"
    );
    // Ben has seen version 0.
    let late = run(directory, &["resolve", ONE, "--by", "Ben", "--if-version", "0"]);
    let stderr = String::from_utf8_lossy(&late.stderr).into_owned();
    assert_eq!(late.status.code(), Some(69), "{stderr}");
    assert!(stderr.contains("has version 1, not 0; nothing was changed") && stderr.contains("by Ana"), "{stderr}");
    printed(&run(directory, &["note", ONE, "--by", "Ben", "--note", "x'); DROP TABLE incident_work"]));
    printed(&run(directory, &["resolve", ONE, "--by", "Ben", "--if-version", "2"]));
    let shown = run(directory, &["show", ONE]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(
        (&shown["status"], &shown["assignee"], &shown["version"]),
        (&json!("resolved"), &json!("Ana"), &json!(3))
    );
    let revocations = shown["revocations"].as_array().unwrap();
    assert_eq!((revocations.len(), &revocations[1]["verified_at"]), (2, &json!("2024-03-09 16:00:02.000")));
    let text = printed(&run(directory, &["show", ONE, "--output", "text"]));
    let times =
        "family-1: done, radius session, revoked at 2024-03-09 16:00:00.123, verified at 2024-03-09 16:00:02.000";
    assert!(text.contains(times), "{text}");
    assert!(text.contains("family-1: stopped (automatic revocation of this tenant is stopped (BRK-1))"), "{text}");
    let history = shown["history"].as_array().unwrap();
    let steps: Vec<_> = history.iter().map(|change| (&change["changed_by"], &change["status"])).collect();
    let expected = [("Ana", "acknowledged"), ("Ben", "acknowledged"), ("Ben", "resolved")];
    assert_eq!(
        steps,
        expected.map(|(by, status)| (json!(by), json!(status))).each_ref().map(|(by, status)| (by, status))
    );
    assert_eq!(history[1]["note"], "x'); DROP TABLE incident_work");

    assert_eq!(ids(&listed(directory, &[])), ["INC-0000000000000002"]);
    assert_eq!(ids(&listed(directory, &["--status", "resolved"])), [ONE]);
    // A resolved incident that changes is open again.
    change(&store, 1, 3, Severity::High).await;
    assert_eq!(listed(directory, &[]).len(), 2);
    let text = printed(&run(directory, &["list", "--output", "text"]));
    assert!(text.contains("resolved, changed since (Ana)"), "{text}");

    for arguments in [&["ack", "INC-9"][..], &["show", "' OR 1 = 1 --"], &["note", ONE], &["ack", ONE, "--by", "a\nb"]]
    {
        let output = run(directory, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    store.close().await;
}

#[tokio::test]
async fn receivers_are_informed_of_a_resolution() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let web = tokio::task::spawn_blocking(Web::start).await.unwrap();
    let settings = embedded(&directory.path().join("data"));
    let store = ClickHouse::open(&settings).await.unwrap();
    change(&store, 1, 1, Severity::Medium).await;
    change(&store, 1, 2, Severity::High).await;
    let text = format!(
        "[store]\nurl = 'embedded:data'\n\
         [alert.channel.oncall]\nkind = 'pagerduty'\nurl = '{0}/pd'\ntoken = 's3cret-key'\n\
         [alert.channel.am]\nkind = 'alertmanager'\nurl = '{0}/am'\n\
         [alert.channel.chat]\nkind = 'slack_webhook'\nwebhook_url = '{0}/chat'\n",
        web.url
    );
    std::fs::write(directory.path().join("t.toml"), text).unwrap();
    let incidents = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwarden"));
        command.arg("incidents").args(arguments).args(["--config", "t.toml"]).current_dir(directory.path());
        command.env("TOKENWARDEN__STORE__LIBRARY", library()).output().unwrap()
    };
    web.answer(&[202]);
    let text = printed(&incidents(&["ack", ONE, "--by", "Ana"]));
    assert!(text.contains("status acknowledged") && text.ends_with(": acknowledged\n"), "{text}");
    let requests = web.requests();
    assert_eq!(requests.len(), 1, "only PagerDuty has this step");
    let body: Value = serde_json::from_str(&requests[0].body).unwrap();
    assert_eq!(body, json!({"routing_key": "s3cret-key", "event_action": "acknowledge", "dedup_key": ONE}));

    // Alertmanager has an alert for each severity.
    web.answer(&[200, 200, 202]);
    let text = printed(&incidents(&["resolve", ONE, "--by", "Ana"]));
    assert_eq!(text.matches(": resolved\n").count(), 2, "{text}");
    let paths: Vec<_> = web.requests()[1..].iter().map(|asked| asked.path.clone()).collect();
    assert_eq!(paths, ["/am/api/v2/alerts", "/am/api/v2/alerts", "/pd/v2/enqueue"]);

    web.answer(&[200, 200, 500]);
    let failed = incidents(&["resolve", ONE, "--by", "Ana"]);
    let stderr = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(69), "{stderr}");
    let problem = format!("{ONE} is resolved in the store, and not at every receiver; run the command again");
    assert!(stderr.contains(&problem) && stderr.contains("500") && !stderr.contains("s3cret"), "{stderr}");
    // A note is not a step.
    printed(&incidents(&["note", ONE, "--note", "x"]));
    assert_eq!(web.requests().len(), 7);
    store.close().await;
    tokio::task::spawn_blocking(move || drop(web)).await.unwrap();
}

#[tokio::test]
async fn feedback_false_informs_the_users() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let web = tokio::task::spawn_blocking(Web::start).await.unwrap();
    let store = ClickHouse::open(&embedded(&directory.path().join("data"))).await.unwrap();
    let mut rows = EpochRows::new();
    // Two victims, of which one was revoked.
    let hostile = "bea\n\u{202e}@example.com";
    for (number, user) in [(1, hostile), (2, "dan")] {
        let family_id = format!("grant-{number}");
        let about = Incident { user_id: user.to_owned(), family_id, ..incident(1, number, Severity::High) };
        rows.push_incident(&about);
        let outcome = if number == 1 { ActionOutcome::Done } else { ActionOutcome::Failed };
        rows.push_action(&ActionRow { target: about.family_id, ..action(1, number as u32, outcome) });
    }
    store.write(&rows).await.unwrap();
    let text = format!(
        "[store]\nurl = 'embedded:data'\n\
         [notify_users.webhook]\nurl = '{}/users'\nsecret = 'a-secret-of-more-than-16-bytes'\n",
        web.url
    );
    std::fs::write(directory.path().join("t.toml"), text).unwrap();
    let feedback = |verdict: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwarden"));
        command.args(["feedback", ONE, verdict, "--config", "t.toml"]).current_dir(directory.path());
        command.env("TOKENWARDEN__STORE__LIBRARY", library()).output().unwrap()
    };
    for verdict in ["true", "benign"] {
        printed(&feedback(verdict));
    }
    assert!(web.requests().is_empty(), "only a wrong revocation is reported");
    let text = printed(&feedback("false"));
    assert!(text.contains("bea␊\u{fffd}@example.com by webhook: informed\n"), "{text}");
    let requests = web.requests();
    assert_eq!(requests.len(), 1);
    let body: Value = serde_json::from_str(&requests[0].body).unwrap();
    assert_eq!(
        (&body["type"], &body["user_id"], &body["incident_id"]),
        (&json!("revoked_by_mistake"), &json!(hostile), &json!(ONE))
    );
    web.answer(&[500]);
    let failed = feedback("false");
    assert_eq!(failed.status.code(), Some(69));
    let stderr = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(stderr.contains("the feedback is stored, and 1 message could not be sent"), "{stderr}");
    let ids: Vec<_> = web.requests().iter().map(|asked| asked.header("webhook-id").map(str::to_owned)).collect();
    assert!(ids.len() == 2 && ids[0].is_some() && ids[0] == ids[1], "a repeated message has the same id: {ids:?}");
    store.close().await;
    tokio::task::spawn_blocking(move || drop(web)).await.unwrap();
}
