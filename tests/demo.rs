//! The demo as people meet it: on the real engine, into a folder of its own, twice, and its SQL as it is printed.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test that cannot go on says so")]

use std::path::Path;
use std::process::{Command, Output};

use tokenwarden::config::cache_folder;
use tokenwarden::store::library_in;

/// Runs with the engine and without GeoIP files: an unoptimised build looks through those for a third of a minute.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> Output {
    let library = library_in(&cache_folder().expect("the environment names a home"));
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).env("TOKENWARDEN_CACHE", folder.join("cache"));
    command.env("TOKENWARDEN__STORE__LIBRARY", library).output().expect("it runs")
}

fn tokenwarden(folder: &Path, arguments: &[&str]) -> Output {
    run(folder, env!("CARGO_BIN_EXE_tokenwarden"), arguments)
}

fn demo(folder: &Path) -> String {
    let output = tokenwarden(folder, &["demo", "--data", "data", "--people", "200"]);
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{said}");
    assert_eq!(said, "", "a pipe shows no bar, and nothing went wrong");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_demo_works_twice_and_its_sql_may_be_pasted() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    demo(folder);
    let told = demo(folder);
    assert!(!told.contains('\u{1b}'), "no colour in a pipe");
    let events = told.lines().find_map(|line| line.split_once(" events in ")).expect("events are counted").0;
    for title in ["used from another continent", "one app's tokens from one new network", "raised falsely"] {
        assert!(told.contains(title), "{title} is missing from\n{told}");
    }
    assert!(told.contains("\nthe data: embedded:data\n"), "{told}");

    let count = ["sql", "--store", "embedded:data", "--output", "csv", "SELECT count() FROM token_events"];
    let counted = String::from_utf8(tokenwarden(folder, &count).stdout).expect("text");
    assert_eq!(counted.lines().last(), Some(&*events.replace(',', "")), "the second demo begins anew");

    let commands: Vec<_> = told.lines().filter(|line| line.contains(" sql --store ")).collect();
    assert_eq!(commands.len(), 3, "{told}");
    for command in commands {
        let pasted = run(folder, "sh", &["-c", command]);
        assert!(pasted.status.success(), "{command}: {}", String::from_utf8_lossy(&pasted.stderr));
        let answer = String::from_utf8(pasted.stdout).expect("text");
        assert!(told.contains(&format!("{command}\n{answer}")), "{command} answers\n{answer}");
    }
}
