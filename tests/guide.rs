//! The commands of the guide docs/response.md work as pasted into a terminal, and their output contains what the guide shows.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

const GUIDE: &str = include_str!("../docs/response.md");
/// Precedes the output of each block of commands, with the number of the block.
const MARK: &str = "=====block ";

/// A block of commands, and lines that the guide shows of its output.
struct Block {
    commands: &'static str,
    shown: Vec<&'static str>,
}

/// The blocks of the guide, without the first one, which compiles.
fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for block in GUIDE.split("\n```").skip(1).step_by(2) {
        let (language, text) = block.split_once('\n').expect("a block has lines");
        match language {
            "sh" => blocks.push(Block { commands: text, shown: Vec::new() }),
            "text" => blocks.last_mut().expect("output follows commands").shown.extend(text.lines()),
            other => panic!("the language {other} is neither sh nor text"),
        }
    }
    let build = blocks.remove(0);
    assert!(build.commands.starts_with("make demo\n") && build.shown.is_empty(), "{}", build.commands);
    blocks
}

/// Copies the files of a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
    }
}

#[test]
fn guide_commands_work_as_shown() {
    let (folder, blocks) = (tempfile::tempdir().expect("a folder"), blocks());
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("rules"), &folder.path().join("rules"));
    let mut script = "set -eu\nstty cols 250\n".to_owned();
    for (number, block) in blocks.iter().enumerate() {
        writeln!(script, "echo '{MARK}{number}'\n{}", block.commands).expect("a string");
    }
    let file = folder.path().join("script");
    fs::write(&file, script).expect("written");
    let program = Path::new(env!("CARGO_BIN_EXE_tokenwarden")).parent().expect("a folder");
    let path = format!("{}:{}", program.display(), std::env::var("PATH").expect("a path"));
    // A terminal, as the reader of the guide has.
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", "bash script", "/dev/null"]).current_dir(folder.path());
    terminal.env("PATH", path).env("TERM", "dumb").env("NO_COLOR", "1");
    terminal.env("TOKENWARDEN__ADMIN__LISTEN", "127.0.0.1:0").env("TOKENWARDEN__DENYLIST__LISTEN", "127.0.0.1:0");
    let output = terminal.output().expect("`script` of util-linux is installed");
    let written = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert!(output.status.success(), "{written}\n{}", String::from_utf8_lossy(&output.stderr));
    let outputs: Vec<&str> = written.split(MARK).skip(1).collect();
    assert_eq!(outputs.len(), blocks.len(), "{written}");
    let mut missing = String::new();
    for (block, output) in blocks.iter().zip(outputs) {
        for line in block.shown.iter().filter(|line| !output.contains(line.trim())) {
            writeln!(missing, "`{line}` is missing in the output of\n{}\n{output}", block.commands).expect("a string");
        }
    }
    assert!(missing.is_empty(), "{missing}");
    let shown: usize = blocks.iter().map(|block| block.shown.len()).sum();
    assert!(blocks.len() > 15 && shown > 20, "the guide has commands and shows output");
}
