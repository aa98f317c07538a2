//! The commands `tokenwarden shadow report` and `tokenwarden feedback`, and the warning of `validate`.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokenwarden::event::Kind;
use tokenwarden::evidence::StoredRefutations;
use tokenwarden::port::{
    ActionOutcome, ActionRow, FeedbackRecord, FeedbackState, Refutation, Refutations as _, Rows as _, Store as _,
    StoredEvent,
};
use tokenwarden::store::{ClickHouse, EpochRows};
use tokenwarden::verdict::{Incident, IncidentId, Judgement, Mode, Outcome, RuleId, Severity, Target};

use super::rows::{action, allowed, at, event, incident, numbered, push, push_later};
use super::{embedded, library, turn};

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwarden"));
    command.args(arguments).args(["--config", "t.toml"]).current_dir(folder);
    command.env("TOKENWARDEN__STORE__LIBRARY", library()).output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn configure(folder: &Path, topic: &str) {
    let text =
        format!("rules_dir = 'r'\n[store]\nurl = 'embedded:data'\n[source.kafka]\nbrokers = 'x'\ntopics = [{topic}]\n");
    std::fs::write(folder.join("t.toml"), text).unwrap();
}

fn family(id: u64) -> String {
    format!("family-{id}")
}

/// Six grants that a rule in shadow mode would have revoked. The provider revokes the first, the fifth and the sixth. The
/// fifth and the sixth are revocations by tokenwarden: of the incident, and by hand. The owner of the second vouches for
/// it.
fn shadowed() -> EpochRows {
    let mut rows = EpochRows::new();
    for id in 1..=6 {
        let mut incident = incident(id, id, Severity::High);
        (incident.family_id, incident.user_id, incident.mode) = (family(id), format!("user-{}", id % 2), Mode::Shadow);
        incident.revoke = Some(Target::Family(family(id)));
        rows.push_incident(&incident);
    }
    let later = 1_700_000_060_000;
    for (id, kind) in [(1, Kind::Revoked), (2, Kind::Confirmed), (5, Kind::Revoked), (6, Kind::Revoked)] {
        let mut event = event(100 + id);
        (event.event.family_id, event.event.kind) = (Some(family(id).into()), kind);
        event.event.timestamp = at(later);
        push(&mut rows, &numbered(event), &allowed(), 100 + id as i64);
    }
    let mut revoked = action(5, 1, ActionOutcome::Done);
    revoked.target = family(5);
    rows.push_action(&revoked);
    let mut by_hand = action(6, 1, ActionOutcome::Done);
    (by_hand.incident_id, by_hand.target) = (String::new(), family(6));
    rows.push_action(&by_hand);
    rows
}

#[tokio::test]
async fn shadow_report_counts_evidence_and_feedback() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let folder = directory.path();
    let store = ClickHouse::open(&embedded(&folder.join("data"))).await.unwrap();
    store.write(&shadowed()).await.unwrap();
    let report = || {
        let report: Value =
            serde_json::from_str(&printed(&run(folder, &["shadow", "report", "--since", "2023-01-01"]))).unwrap();
        assert_eq!(report["rules"].as_array().unwrap().len(), 1, "{report}");
        report["rules"][0].clone()
    };
    // A topic that is not trusted to confirm, then one that is.
    configure(folder, "'token-events'");
    let rule = report();
    assert_eq!(
        (&rule["rule"], &rule["confirmed_theft"], &rule["refuted"]),
        (&json!("new_country"), &json!(1), &json!(0))
    );
    configure(folder, "{ topic = 'token-events', confirmed = true }");
    let rule = report();
    assert_eq!((&rule["grants"], &rule["users"], &rule["tenants"]), (&json!(6), &json!(2), &json!(1)));
    assert_eq!((&rule["confirmed_theft"], &rule["refuted"], &rule["n"]), (&json!(1), &json!(1), &json!(2)));
    assert_eq!((&rule["precision"], &rule["evidence_is_thin"]), (&json!(0.5), &json!(true)));
    assert!(rule["promote"].as_str().unwrap().ends_with("r/new_country.toml: mode = \"enforce\""), "{rule}");
    let limited = "[revoke]\nmax_per_hour = 8\n[revoke.limits]\nrules = { new_country = 2 }\n";
    configure(folder, &format!("{{ topic = 'token-events', confirmed = true }}]\n{limited}#"));
    let rule = report();
    assert_eq!((&rule["would_wait_for_caps"], &rule["would_wait_for"]), (&json!(4), &json!({"rule": 4})), "{rule}");
    configure(folder, "{ topic = 'token-events', confirmed = true }");
    let text = printed(&run(folder, &["shadow", "report", "--since", "2023-01-01", "--output", "text"]));
    assert!(text.contains("evidence is thin") && text.contains("0.500 (95 % interval 0.013 to 0.987)"), "{text}");

    // A person has precedence over the provider, and the last verdict counts.
    let give = |incident: u64, verdict: &str, note: &str| {
        let incident = format!("INC-{incident:016X}");
        run(folder, &["feedback", &incident, verdict, "--note", note, "--by", "Ana"])
    };
    assert!(printed(&give(1, "true", "seen in a paste")).contains("Detection does not learn from this"));
    let draft = printed(&give(1, "benign", "a penetration test"));
    assert!(draft.contains("[[policies.exceptions]]\nauthor = \"Ana\""), "{draft}");
    printed(&give(3, "false", "the owner travels"));
    let rule = report();
    assert_eq!((&rule["confirmed_theft"], &rule["refuted"], &rule["n"]), (&json!(0), &json!(3), &json!(3)));
    let explained: Value = serde_json::from_str(&printed(&run(folder, &["explain", "INC-0000000000000001"]))).unwrap();
    let timeline = explained["incident"]["timeline"].as_array().unwrap();
    let given: Vec<_> = timeline.iter().filter(|step| step["what"] == "feedback").collect();
    assert_eq!(given.len(), 2, "both are kept");
    assert_eq!(given[1]["summary"], "by Ana: a penetration test");

    for (incident, note) in [("INC-0000000000000009", "unknown"), ("' OR 1 = 1 --", "hostile")] {
        let output = run(folder, &["feedback", incident, "true", "--note", note]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("the store has no incident"), "{stderr}");
    }

    // A rule that revokes on thin evidence is a warning, and no failure.
    let rules = folder.join("r");
    std::fs::create_dir(&rules).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/new_country.toml");
    let rule = std::fs::read_to_string(shipped).unwrap().replace("mode = \"shadow\"", "mode = \"enforce\"");
    std::fs::write(rules.join("new_country.toml"), rule).unwrap();
    let validated = |mode: &str| {
        let text = format!(
            "rules_dir = 'r'\n[store]\nurl = 'embedded:data'\n[source.file]\npath = 't.toml'\n[revoke]\nmode = '{mode}'\n\
             [revoke.http]\nurl = 'https://id.example/{{id}}'\ntoken = 'x'\n"
        );
        std::fs::write(folder.join("t.toml"), text).unwrap();
        printed(&run(folder, &["validate"]))
    };
    let checks = validated("enforce");
    assert!(checks.contains("WARNING rules: new_country may revoke, and its evidence is thin"), "{checks}");
    assert!(!validated("shadow").contains("evidence is thin"));
    store.close().await;
}

#[tokio::test]
async fn refutations_of_own_revocations_are_read() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let folder = directory.path();
    let settings = embedded(&folder.join("data"));
    let store = ClickHouse::open(&settings).await.unwrap();
    configure(folder, "'token-events'");
    let mut rows = EpochRows::new();
    let of = |tenant: &str, id: u64, grant: u64| Incident {
        tenant_id: tenant.to_owned(),
        family_id: family(grant),
        revoke: Some(Target::Family(family(grant))),
        ..incident(id, grant, Severity::High)
    };
    let ended = |tenant: &str, id: u64, grant: u64, outcome: ActionOutcome| ActionRow {
        action_id: format!("{id}-{grant}"),
        tenant_id: tenant.to_owned(),
        target: family(grant),
        ..action(id, 1, outcome)
    };
    // Three grants of one user count once. Then: a theft, a revocation that waits, one by hand, and none.
    for grant in 1..=3 {
        rows.push_incident(&of("tenant-1", 1, grant));
        rows.push_action(&ended("tenant-1", 1, grant, ActionOutcome::Done));
    }
    for id in 4..=8 {
        rows.push_incident(&of("small", id, id));
    }
    rows.push_action(&ended("small", 4, 4, ActionOutcome::Done));
    rows.push_action(&ended("small", 5, 5, ActionOutcome::Stopped));
    rows.push_action(&ActionRow { requested_by: "ana".to_owned(), ..ended("small", 6, 6, ActionOutcome::Done) });
    rows.push_action(&ended("small", 7, 7, ActionOutcome::Done));
    // The row of another tenant with the id of the incident, and another grant.
    rows.push_action(&ended("stranger", 8, 9, ActionOutcome::Done));
    for number in 0..1_000 {
        push(&mut rows, &numbered(event(number)), &allowed(), number as i64);
    }
    store.write(&rows).await.unwrap();
    let read = || async { StoredRefutations::new(settings.clone()).read().await.unwrap() };
    assert_eq!(read().await, []);
    for (id, verdict) in [(1, "false"), (4, "true"), (5, "false"), (6, "false"), (7, "benign"), (8, "false")] {
        printed(&run(folder, &["feedback", &IncidentId(id).to_string(), verdict]));
    }
    let mut found: Vec<_> = read().await;
    found.sort_by_key(|refutation| refutation.at);
    let expected = |tenant: &str, is_of_known_tenant, at| {
        let tenant = tenant.to_owned();
        Refutation { tenant, rule: RuleId::NewCountry, at, is_of_known_tenant }
    };
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found, [expected("tenant-1", true, found[0].at), expected("small", false, found[1].at)]);
    // The last feedback counts.
    printed(&run(folder, &["feedback", "INC-0000000000000007", "true"]));
    assert_eq!(read().await.len(), 1);
    store.close().await;
    let gone = StoredRefutations::new(embedded(&folder.join("nothing")));
    assert!(gone.read().await.is_err());
}

#[tokio::test]
async fn feedback_is_appended_to_the_log() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let folder = directory.path();
    let store = ClickHouse::open(&embedded(&folder.join("data"))).await.unwrap();
    let mut rows = EpochRows::new();
    rows.push_incident(&incident(1, 7, Severity::High));
    let outcome = Outcome { incident_id: Some(IncidentId(1)), ..allowed() };
    push(&mut rows, &numbered(event(7)), &outcome, 7);
    push(&mut rows, &numbered(event(8)), &allowed(), 8);
    // Requests whose credential was not accepted, or not checked.
    for (number, status) in (20..).zip([401, 400, 407, 429, 500, 503]) {
        let mut refused = event(number);
        refused.event.status = Some(status);
        push(&mut rows, &numbered(refused), &outcome, number as i64);
    }
    let mut unclear = event(30);
    unclear.event.status = None;
    unclear.event.attrs = vec![("unreadable_fields".into(), "status: not a number".into())];
    push(&mut rows, &numbered(unclear), &outcome, 30);
    // The thief comes after the last change of the incident, with a forged time, and again with the id of its event.
    let mut later = event(7);
    (later.event.timestamp, later.event.user_agent) = (at(1_600_000_000_000), Some("python".into()));
    push_later(&mut rows, &numbered(later), &outcome, 31);
    store.write(&rows).await.unwrap();
    let configure = |section: &str| {
        let text = format!("[store]\nurl = 'embedded:data'\n[source.file]\npath = '-'\n[outbox]\ndir = 'o'\n{section}");
        std::fs::write(folder.join("t.toml"), text).unwrap();
    };
    let give = |options: &[&str]| run(folder, &[&["feedback", "INC-0000000000000001"], options].concat());
    configure("");
    let text = printed(&give(&["benign", "--by", "Ana"]));
    assert!(text.contains("because the configuration has no [feedback]"), "{text}");
    assert!(!folder.join("o/feedback.ndjson").exists());
    configure("[feedback]\n");
    for (options, problem) in [
        (&["benign"][..], "no terminal to confirm on; nothing was stored. To confirm, add --yes 1"),
        (&["benign", "--yes", "2"], "--yes 2, but the number of events is 1; nothing was stored"),
    ] {
        let output = give(options);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && stderr.contains(problem), "{stderr}");
        assert!(output.stdout.is_empty() && !folder.join("o/feedback.ndjson").exists());
    }
    let output = give(&["benign", "--by", "Ana", "--yes", "1", "--draft", "draft.toml"]);
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = "Detection will learn from 1 event of 1 subject:\n  tenant-1/user-1, ::ffff:192.0.2.7, curl/8.5.0, GET, \
                    /v1/keys\nLeft out: 1 use received after the last change of the incident.\nLeft out: 7 requests whose \
                    credential was not accepted, or perhaps not checked.\n";
    assert!(shown.contains(expected), "{shown}");
    let text = printed(&output);
    assert!(text.contains("Detection learns from 1 event of 1 subject"), "{text}");
    let draft = std::fs::read_to_string(folder.join("draft.toml")).unwrap();
    assert!(draft.starts_with("[[policies.exceptions]]\nauthor = \"Ana\"\n") && text.ends_with(&draft), "{draft}");
    let log = std::fs::read_to_string(folder.join("o/feedback.ndjson")).unwrap();
    let record: FeedbackRecord = serde_json::from_str(&log[17..]).unwrap();
    let FeedbackState::Given(given) = record.state else { panic!("{log}") };
    assert_eq!((given.incident, given.judgement, &*given.by), (IncidentId(1), Judgement::Benign, "Ana"));
    let id = |event: &StoredEvent| serde_json::from_str::<Value>(event.json()).unwrap()["event_id"].clone();
    let expected = event(7).event.event_id.to_string();
    assert_eq!(given.events.iter().map(id).collect::<Vec<_>>(), [json!(expected)]);
    for (options, reason) in [
        (&["benign", "--yes", "1", "--draft", "draft.toml"][..], "--draft draft.toml cannot be written"),
        (&["true", "--draft", "other.toml"], "--draft needs the verdict false or benign"),
    ] {
        let output = give(options);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && stderr.contains(reason), "{stderr}");
    }
    let log = std::fs::read_to_string(folder.join("o/feedback.ndjson")).unwrap();
    assert_eq!(log.lines().count(), 2, "detection learns although the draft cannot be written");
    // A folder in place of the log: the output does not contain what detection does not learn.
    std::fs::remove_file(folder.join("o/feedback.ndjson")).unwrap();
    std::fs::create_dir(folder.join("o/feedback.ndjson")).unwrap();
    let output = give(&["true", "--yes", "1"]);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    assert!(
        !stdout.contains("Detection learns") && stderr.contains("detection does not learn from all of it"),
        "{stdout}"
    );
    store.close().await;
}
