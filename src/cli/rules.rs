//! `tokenwarden rules`: lists the rules, and runs the test cases in the rule files.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::setup::load_rules;
use crate::config::Config;
use crate::config::rule_file::trial::{self, Trial};
use crate::config::rule_file::{Case, Expect, LoadedRules};
use crate::rule::Status;
use crate::sanitize;
use crate::telemetry;

/// Run the test cases of the rule files, or list the rules.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the test cases of the rule files. The exit status is 78 if one fails.
    Test(From),
    /// List the rules: id, severity, mode, status, title.
    List(From),
}

/// The rules to use.
#[derive(Debug, Args)]
struct From {
    /// Folder of rule files, instead of the configured ones.
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// Configuration file (TOML). Without one, every setting has its default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the subcommand. Results go to stdout.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    telemetry::start_logging("warn");
    let (Command::Test(from) | Command::List(from)) = &arguments.command;
    let mut config = Config::load(from.config.as_deref())?;
    if let Some(rules) = &from.rules {
        config.rules_dir = Some(rules.clone());
    }
    let loaded = load_rules(&config)?;
    let mut out = std::io::stdout().lock();
    match arguments.command {
        Command::Test(_) => test(&config, &loaded, &mut out),
        Command::List(_) => list(&loaded, &mut out),
    }
}

fn test(config: &Config, loaded: &LoadedRules, out: &mut impl Write) -> Result<(), Failure> {
    let (mut passed, mut failed, mut rules) = (0_usize, 0_usize, 0_usize);
    for of_rule in &loaded.cases {
        let rule = loaded.rules.rule(of_rule.rule);
        if rule.status == Status::Disabled {
            print(out, &format!("off   {}: {} is disabled", of_rule.file.display(), rule.id))?;
            continue;
        }
        rules += 1;
        for (case, trial) in trial::run(loaded, of_rule, &config.engine_settings()) {
            let counter = if trial.passed { &mut passed } else { &mut failed };
            *counter += 1;
            print(out, &result_line(&of_rule.file, case, &trial, rule.threshold))?;
        }
    }
    let cases = passed + failed;
    let missing = match loaded.missing.len() {
        0 => String::new(),
        rules => format!("; rules without a file, disabled: {rules}"),
    };
    print(out, &format!("{cases} cases of {rules} rules from {}: {passed} passed{missing}", config.rules_origin()))?;
    if failed > 0 {
        return Err(Failure::Configuration(format!("{failed} of {cases} test cases failed")));
    }
    Ok(())
}

/// Result of a test case: `pass  rules/new_ip.toml:61: fires: NAME`.
fn result_line(file: &Path, case: &Case, trial: &Trial, threshold: f64) -> String {
    let word = if trial.passed { "pass" } else { "FAIL" };
    let expected = match case.expect {
        Expect::Fires => "fires",
        Expect::Quiet => "quiet",
    };
    let mut line = format!("{word}  {}:{}: {expected}: {}", file.display(), case.line, case.name);
    if trial.passed {
        return line;
    }
    // Writing to a `String` cannot fail.
    let _ = match (&trial.mistake, &trial.highest) {
        (Some((at, reason)), _) => write!(line, "; the event in line {at} is not valid: {reason}"),
        (None, None) => write!(line, "; the rule has no signal for any of the events"),
        (None, Some(signal)) => write!(
            line,
            "; the highest share is {:.2} (threshold {threshold}), in line {}, with log-odds {:.2}: {}",
            signal.share, signal.line, signal.log_odds, signal.reason
        ),
    };
    line
}

fn list(loaded: &LoadedRules, out: &mut impl Write) -> Result<(), Failure> {
    for rule in loaded.rules.iter() {
        let (id, severity) = (rule.id.as_str(), rule.severity.as_str());
        let (mode, status) = (rule.mode.as_str(), rule.status.as_str());
        print(out, &format!("{id:22} {severity:9} {mode:8} {status:13} {}", rule.title))?;
    }
    Ok(())
}

fn print(out: &mut impl Write, line: &str) -> Result<(), Failure> {
    writeln!(out, "{}", sanitize::lines(line)).map_err(|error| Failure::output("the result", &error))
}
