//! `tokenwarden validate`: is everything in place before the service starts?

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::{Failure, printable};
use crate::config::Config;

/// Check the configuration, the rules, the GeoIP files, and that the services answer.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Do not ask whether Kafka, ClickHouse and the mail server answer.
    #[arg(long)]
    offline: bool,
}

/// Prints one line for each thing checked. The exit status is that of the gravest failure.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut report = Report::default();
    let config = match Config::load(Some(&arguments.config)) {
        Ok(config) => {
            report.ok("configuration", &arguments.config.display().to_string())?;
            config
        }
        Err(error) => {
            report.failed("configuration", &error.to_string(), Kind::Configuration)?;
            return report.end();
        }
    };
    match config.load_rules() {
        Ok(loaded) => report.ok("rules", &format!("{} from {}", loaded.cases.len(), config.rules_origin()))?,
        Err(errors) => {
            for error in errors {
                report.failed("rules", &error.to_string(), Kind::Configuration)?;
            }
        }
    }
    report.end()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Configuration,
    Unavailable,
}

/// The lines told so far, and whether all was well.
#[derive(Default)]
struct Report {
    worst: Option<Kind>,
    failures: usize,
}

impl Report {
    fn ok(&mut self, what: &str, detail: &str) -> Result<(), Failure> {
        tell(&format!("ok      {what}: {detail}"))
    }

    fn failed(&mut self, what: &str, reason: &str, kind: Kind) -> Result<(), Failure> {
        self.failures += 1;
        if self.worst != Some(Kind::Configuration) {
            self.worst = Some(kind);
        }
        tell(&format!("FAILED  {what}: {reason}"))
    }

    fn end(self) -> Result<(), Failure> {
        let said = match self.failures {
            1 => "one check failed".to_owned(),
            count => format!("{count} checks failed"),
        };
        match self.worst {
            None => Ok(()),
            Some(Kind::Configuration) => Err(Failure::Configuration(said)),
            Some(Kind::Unavailable) => Err(Failure::Unavailable(said)),
        }
    }
}

fn tell(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{}", printable(line)).map_err(|error| Failure::output("to stdout", &error))
}
