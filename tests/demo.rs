//! `tokenwarden demo` with the real ClickHouse engine: it can be repeated, and its printed SQL commands work.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use tokenwarden::config::cache_folder;
use tokenwarden::store::library_in;

/// Runs with the engine and without GeoIP files, which an unoptimised build needs 20 s to read.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> Output {
    let library = library_in(&cache_folder().expect("the environment has a home folder"));
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).env("TOKENWARDEN_CACHE", folder.join("cache"));
    command.env("TOKENWARDEN__STORE__LIBRARY", library).output().expect("it runs")
}

fn tokenwarden(folder: &Path, arguments: &[&str]) -> Output {
    run(folder, env!("CARGO_BIN_EXE_tokenwarden"), arguments)
}

const DEMO: [&str; 5] = ["demo", "--data", "data", "--people", "200"];

fn stdout(output: Output) -> String {
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr, "", "no progress bar in a pipe, and no error");
    String::from_utf8(output.stdout).expect("text")
}

/// Runs a program like the systemd unit with `MemoryDenyWriteExecute=`: writable memory cannot become executable
/// (`PR_SET_MDWE`, 65, since Linux 6.3; older kernels ignore it).
const WITHOUT_WRITABLE_CODE: &str =
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])";

/// Checks planted and found thefts of each kind, and false alerts. With nine seeds the demo found 0.92 to 1.00 of 21 to 27
/// thefts, at least 4 of 6 of each kind, and had 0 or 1 false alerts.
fn check_score(shown: &str) {
    let counts = |title: &str| -> [u32; 2] {
        let line = shown.lines().find(|line| line.starts_with(title));
        let line = line.unwrap_or_else(|| panic!("{title} is missing in\n{shown}"));
        let mut numbers = line[40..].split_whitespace().map(|number| number.parse().expect("a count"));
        std::array::from_fn(|_| numbers.next().expect("a count"))
    };
    for kind in [
        "used from another continent",
        "a burst of calls by night",
        "a refresh token presented twice",
        "one app's tokens",
    ] {
        let [planted, found] = counts(kind);
        assert!(planted >= 3 && 2 * found >= planted && found <= planted, "{kind}: {found} of {planted}");
    }
    let [planted, found] = counts("all ");
    assert!(planted >= 20 && 10 * found >= 8 * planted, "{found} of {planted}\n{shown}");
    let alerts = shown.lines().find_map(|line| line.strip_prefix("false alerts: ")).expect("false alerts are counted");
    let alerts: u32 = alerts.split(' ').next().and_then(|count| count.parse().ok()).expect("a count");
    assert!(alerts <= 4, "{alerts} false alerts\n{shown}");
}

/// Checks that alerts have at most eight lines of at most 100 characters.
fn check_alerts(shown: &str) {
    let (alerts, _) = shown.split_once(" events in ").expect("the summary follows the alerts");
    assert!(alerts.lines().all(|line| line.chars().count() <= 100), "{alerts}");
    let heads: Vec<_> = (0..).zip(alerts.lines()).filter(|(_, line)| line.contains("  [INC-")).collect();
    assert!(heads.len() >= 20, "{alerts}");
    assert!(heads.windows(2).all(|pair| (3..=8).contains(&(pair[1].0 - pair[0].0))), "{alerts}");
}

/// Checks that an incident was reported and revoked at the demo provider, that the revocation was verified, and that later
/// uses were refused.
fn check_revocation(folder: &Path, shown: &str) {
    let line = shown.lines().find_map(|line| line.strip_prefix("uses of revoked grants at the demo provider: "));
    let (refused, accepted) = line.and_then(|line| line.split_once(" refused, ")).expect("the uses are counted");
    assert_eq!(accepted, "0 accepted", "{shown}");
    let refused: u32 = refused.parse().expect("a number");
    let sql = "SELECT count(), countIf(verified_at >= revoked_at), uniqExact(target), uniqExact(incident_id) \
               FROM actions WHERE kind = 'revoke_family' AND outcome = 'done'";
    let counted = tokenwarden(folder, &["sql", "--store", "embedded:data", "--output", "csv", sql]);
    let counted = String::from_utf8(counted.stdout).expect("text");
    let counts: Vec<u32> = counted.lines().last().expect("a row").split(',').filter_map(|n| n.parse().ok()).collect();
    let [done, verified, grants, _] = counts[..] else { panic!("{counted}") };
    assert!(refused >= 3 && done == verified && done == grants && grants == refused, "{refused} uses, {counted}");
    let (_, listed) = shown.split_once("demo provider, a local server of this demo:").expect("a title");
    let listed: Vec<_> = listed.lines().skip_while(|line| !line.contains("verified_at")).collect();
    assert!(listed.iter().any(|line| line.contains("alert_console")), "{listed:?}");
    assert!(listed.iter().any(|line| line.contains("revoke_family")), "{listed:?}");
}

#[test]
fn demo_runs_twice_and_its_sql_commands_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let program = env!("CARGO_BIN_EXE_tokenwarden");
    stdout(run(folder, "python3", &[&["-c", WITHOUT_WRITABLE_CODE, program], &DEMO[..]].concat()));
    let shown = stdout(tokenwarden(folder, &DEMO));
    assert!(!shown.contains('\u{1b}'), "no colour and no cursor movement in a pipe");
    check_alerts(&shown);
    let events = shown.lines().find_map(|line| line.split_once(" events in ")).expect("events are counted").0;
    check_score(&shown);
    check_revocation(folder, &shown);
    assert!(shown.contains("\nData: embedded:data\n"), "{shown}");

    let count = ["sql", "--store", "embedded:data", "--output", "csv", "SELECT count() FROM token_events"];
    let counted = String::from_utf8(tokenwarden(folder, &count).stdout).expect("text");
    assert_eq!(
        counted.lines().last(),
        Some(&*events.replace(',', "")),
        "the second demo replaces the data of the first one"
    );

    let commands: Vec<_> = shown.lines().filter(|line| line.contains(" sql --store ")).collect();
    assert_eq!(commands.len(), 4, "{shown}");
    for command in commands {
        let pasted = run(folder, "sh", &["-c", command]);
        assert!(pasted.status.success(), "{command}: {}", String::from_utf8_lossy(&pasted.stderr));
        let answer = String::from_utf8(pasted.stdout).expect("text");
        assert!(shown.contains(&format!("{command}\n{answer}")), "{command} prints\n{answer}");
    }
}
