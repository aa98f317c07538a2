//! The service as a child process, and its verdicts.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command};

use serde_json::Value;

use super::process::cache;

/// The service as a child process.
pub(crate) struct Service(pub Child);

impl Service {
    pub(crate) fn start(folder: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log file");
        let child = tokenwarden(folder).args(["run", "--config", "tokenwarden.toml"]).stderr(log).spawn();
        Self(child.expect("tokenwarden runs"))
    }

    /// Stops it as an operator does, and waits for its end.
    pub(crate) fn stop(mut self) {
        let signal = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        assert!(signal.expect("kill runs").success());
        self.0.wait().expect("it is gone");
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().expect("kill -9");
        self.0.wait().expect("it is gone");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn tokenwarden(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwarden"));
    command.current_dir(folder).env_clear().env("TOKENWARDEN_CACHE", cache());
    command
}

pub(crate) fn output(folder: &Path, arguments: &[&str]) -> String {
    let output = tokenwarden(folder).args(arguments).output().expect("tokenwarden runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Verdict and score of each event, by id.
pub(crate) type Verdicts = HashMap<String, (String, f64)>;

pub(crate) fn replayed(folder: &Path, file: &str) -> Verdicts {
    replayed_with(folder, file, &[])
}

pub(crate) fn replayed_with(folder: &Path, file: &str, options: &[&str]) -> Verdicts {
    let arguments = ["replay", file, "--config", "tokenwarden.toml", "--store", "none", "--verdicts", "-"];
    let lines = output(folder, &[&arguments, options].concat());
    lines
        .lines()
        .map(|line| {
            let verdict: Value = serde_json::from_str(line).expect("a verdict");
            let text = |field: &str| verdict[field].as_str().expect("text").to_owned();
            (text("event_id"), (text("verdict"), verdict["score"].as_f64().expect("a score")))
        })
        .collect()
}

pub(crate) fn stored(folder: &Path) -> Verdicts {
    let sql = "SELECT event_id, verdict, score FROM token_events FINAL";
    let rows = output(folder, &["sql", "--config", "tokenwarden.toml", "--output", "csv", sql]);
    let rows = rows.lines().skip(1).map(|row| {
        let fields: Vec<_> = row.split(',').map(|field| field.trim_matches('"').to_owned()).collect();
        (fields[0].clone(), (fields[1].clone(), fields[2].parse().expect("a score")))
    });
    rows.collect()
}

/// Events whose verdict or score differs.
pub(crate) fn differences(one: &Verdicts, other: &Verdicts) -> Vec<String> {
    let differ = |id: &&String| {
        let ((verdict, score), found) = (&one[*id], other.get(*id));
        found.is_none_or(|(other, of_other)| verdict != other || (score - of_other).abs() > 1e-4 * (1.0 + score))
    };
    one.keys().filter(differ).cloned().collect()
}

/// The response of the service's HTTP server.
pub(crate) fn ask(listen: &str, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(listen).expect("the service listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {listen}\r\nConnection: close\r\n\r\n").expect("it is sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a response");
    text
}
