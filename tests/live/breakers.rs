//! A breaker of one member: people refute a revocation, the rule stops, and another member's command lifts the stop.

use super::denylist::run;
use super::*;

#[test]
fn lift_reaches_the_member_that_stopped() {
    let (folders, kafka, receivers) = two_members();
    for folder in &folders {
        let file = folder.path().join("tokenwarden.toml");
        keep_secret(&file, &(read(&file) + "[revoke.breakers]\nrefuted = 1\n"));
    }
    let one = Service::start_as(folders[0].path(), "one", free_port());
    assert_eq!(one.page("/readyz"), "ok\n");
    let checked = run(folders[0].path(), "topics", &["check"]);
    assert!(checked.contains("tokenwarden.breakers: topic: exists and keeps its entries"), "{checked}");
    let mut ledger = Ledger::default();
    ledger.rotating("ann");
    ledger.rotating("bea");
    ledger.theft("ann");
    ledger.send(&kafka);
    receivers.wait_for("ann");
    let done = "SELECT DISTINCT incident_id FROM actions WHERE kind = 'revoke_family' AND outcome = 'done'";
    let incident =
        eventually(Duration::from_secs(30), "the row", || Some(one.sql(done)).filter(|rows| !rows.is_empty()));
    let incident = incident.expect("a row").trim_matches('"').to_owned();
    let given = run(folders[0].path(), "feedback", &[&incident, "false", "--by", "ana"]);
    assert!(given.starts_with(&format!("{incident}: false by ana")), "{given}");
    // Feedback is read at the start, and then every five minutes.
    assert_eq!(one.terminate().0.code(), Some(0));
    let one = Service::start_as(folders[0].path(), "one", free_port());
    let stopped = || one.page("/metrics").contains("tokenwarden_breakers_stopped 1\n").then_some(());
    // A reading that fails at the start is repeated after ten seconds.
    eventually(Duration::from_secs(60), "the rule is stopped", stopped).unwrap_or_else(|| panic!("{}", one.log()));
    let two = Service::start_as(folders[1].path(), "two", free_port());
    assert_eq!(two.page("/readyz"), "ok\n");

    ledger.theft("bea");
    ledger.send(&kafka);
    let reported = || {
        let hooks = receivers.of("bea").hooks.into_iter();
        hooks.map(|hook| hook.body).find(|body| body.contains("\"revocation\":\"stopped\""))
    };
    eventually(Duration::from_secs(30), "the alert states the stop", reported)
        .unwrap_or_else(|| panic!("{:?}\n{}", receivers.of("bea"), one.log()));
    assert_eq!(receivers.of("bea").revocations.len(), 0);
    let breakers = |folder: usize, arguments: &[&str]| run(folders[folder].path(), "breakers", arguments);
    let stop = || serde_json::from_str::<serde_json::Value>(&breakers(1, &["list"])).ok();
    let stop = eventually(Duration::from_secs(30), "the stop is in the log", stop).expect("a stop");
    assert_eq!(stop["scope"], serde_json::json!({"tenant": "", "rule": "refresh_reuse"}), "{stop}");
    assert_eq!(stop["reason"], "people refuted its revocations for 1 user");
    let id = stop["id"].as_str().expect("an id");
    assert_eq!(breakers(1, &["lift", "BRK-\u{202e}", "--reason", "r"]), "tokenwarden: there is no stop BRK-\u{fffd}\n");
    let lifted = breakers(1, &["lift", id, "--reason", "the rule is right", "--by", "cid"]);
    assert_eq!(lifted, format!("lifted {id}\n"));
    receivers.wait_for("bea");
    one.until_metric("tokenwarden_breakers_stopped 0");
    let row = "SELECT target, requested_by, reason FROM actions WHERE kind = 'breaker_lift'";
    one.until(row, "\"rule=refresh_reuse tenant=\",\"cid\",\"the rule is right\"");
    assert_eq!(breakers(0, &["list"]), "");
    assert!(breakers(0, &["list", "--all"]).contains("\"state\":\"lifted\""));
    for member in [one, two] {
        assert_eq!(member.terminate().0.code(), Some(0));
    }
}
