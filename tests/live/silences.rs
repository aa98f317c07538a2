//! A silence of two members: neither sends the alerts that it matches.

use super::denylist::run;
use super::*;

fn silence(folder: &Path, arguments: &[&str]) -> String {
    run(folder, "silence", arguments)
}

#[test]
fn silence_holds_for_all_members() {
    let (folders, kafka, receivers) = two_members();
    for folder in &folders {
        let file = folder.path().join("tokenwarden.toml");
        // Without a revocation, whose outcome would be reported.
        keep_secret(
            &file,
            &(read(&file).replace("mode = 'enforce'", "mode = 'shadow'") + "[silences]\nmax_days = 1\n"),
        );
        // A policy, because a silence of a grant does not withhold the verdict `revoke`.
        let rule = folder.path().join("rules/new_client.toml");
        let policy = "\n[[policies]]\nname = \"no curl\"\ndeny = [\"curl\"]\nverdict = \"alert\"\n";
        keep_secret(&rule, &(read(&rule) + policy));
    }
    let one = Service::start_as(folders[0].path(), "one", free_port());
    assert_eq!(one.page("/readyz"), "ok\n");
    let checked = run(folders[0].path(), "topics", &["check"]);
    assert!(checked.contains("tokenwarden.silences: topic: exists and keeps its entries"), "{checked}");

    // The member that has no partition adds it, and the other one withholds the alert.
    let two = Service::start_as(folders[1].path(), "two", free_port());
    assert_eq!(two.page("/readyz"), "ok\n");
    let add = |options: &[&str]| {
        silence(folders[1].path(), &[&["add", "--reason", "a \"test\"", "--by", "bea"], options].concat())
    };
    let hostile = add(&["--user", "ann\u{1b}[2J\u{202e}", "--for", "1h"]);
    assert!(hostile.starts_with("added SIL-"), "{hostile}");
    let long = add(&["--user", "ann", "--for", "25h"]);
    assert_eq!(long, "tokenwarden: a silence may last at most 1 day (silences.max_days)\n");
    let added = add(&["--grant", "grant-ann", "--for", "1h"]);
    let id = added.strip_prefix("added ").and_then(|rest| rest.split(' ').next()).unwrap_or_else(|| panic!("{added}"));
    for member in [&one, &two] {
        member.until_metric("tokenwarden_silences_active 2");
    }
    let mut ledger = Ledger::default();
    for person in ["ann", "bea"] {
        ledger.rotating(person);
        let at = 1_790_000_000_000 + 24 * 3_600_000;
        // An address per person, because alerts from one address would be one incident.
        let host = person.as_bytes()[0];
        let used = format!(
            r#""token_type":"access","token_id":"at-{person}-24","ip_address":"203.0.113.{host}","user_agent":"curl/8.5.0","method":"GET","endpoint":"/v1/messages","status":200"#
        );
        ledger.of(person, &format!("{person}-calls"), at, &used);
    }
    ledger.send(&kafka);
    let reported = |person: &str| {
        let sent = receivers.of(person);
        (!sent.mails.is_empty() && !sent.hooks.is_empty()).then_some(())
    };
    eventually(Duration::from_secs(30), "the other alert is sent", || reported("bea"))
        .unwrap_or_else(|| panic!("{}\n{}", one.log(), two.log()));
    let listed = || -> serde_json::Value {
        let text = silence(folders[1].path(), &["list"]);
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{text}")));
        lines.into_iter().find(|line: &serde_json::Value| line["id"] == id).unwrap_or_else(|| panic!("{text}"))
    };
    let counted = || Some(listed()).filter(|line| line["alerts"] == 1);
    let line = eventually(Duration::from_secs(30), "the alert is counted", counted).unwrap_or_else(listed);
    assert_eq!((&line["alerts"], &line["incidents"], &line["by"]), (&1.into(), &1.into(), &"bea".into()), "{line}");
    assert_eq!(line["scope"], serde_json::json!({"grant": "grant-ann"}));
    assert!(reported("ann").is_none(), "{:?}", receivers.of("ann"));

    let unknown = silence(folders[0].path(), &["expire", "SIL-\u{202e}", "--reason", "r"]);
    assert_eq!(unknown, "tokenwarden: there is no active silence SIL-\u{fffd}\n");
    let ended = silence(folders[0].path(), &["expire", id, "--reason", "done"]);
    assert_eq!(ended, format!("ended {id}\n"));
    let summary = || receivers.hook.requests().into_iter().find(|asked| asked.body.contains(id));
    let summary = eventually(Duration::from_secs(30), "the end is reported", summary).expect("a message");
    assert!(summary.body.contains("withheld 1 alert about 1 incident"), "{}", summary.body);
    for member in [one, two] {
        assert_eq!(member.terminate().0.code(), Some(0));
    }
}
