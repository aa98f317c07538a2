//! The commands, one file each, and their exit statuses.

mod alert;
pub(crate) mod breakers;
mod campaigns;
mod confirmation;
mod delivery;
pub(crate) mod demo;
pub(crate) mod denylist;
pub(crate) mod evaluate;
pub(crate) mod explain;
mod failure;
pub(crate) mod feedback;
pub(crate) mod geoip;
pub(crate) mod incidents;
mod inform;
pub(crate) mod investigate;
mod moment;
pub(crate) mod notify;
mod observe;
mod operator;
pub(crate) mod pause;
mod reading;
mod record;
mod record_log;
pub(crate) mod replay;
pub(crate) mod revoke;
mod rule_diff;
pub(crate) mod rules;
pub(crate) mod run;
mod setup;
pub(crate) mod shadow;
mod signals_receiver;
pub(crate) mod silence;
pub(crate) mod simulate;
pub(crate) mod sql;
pub(crate) mod state;
mod terminal;
pub(crate) mod topics;
mod user_api;
mod user_messages;
pub(crate) mod validate;

use clap::{CommandFactory as _, Parser, Subcommand};

pub(crate) use self::failure::Failure;
use crate::sanitize;

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
    Revoke(revoke::Arguments),
    Feedback(feedback::Arguments),
    Incidents(incidents::Arguments),
    Shadow(shadow::Arguments),
    Sql(sql::Arguments),
    Simulate(simulate::Arguments),
    State(state::Arguments),
    Notify(notify::Arguments),
    PauseActions(pause::Arguments),
    Silence(silence::Arguments),
    Breakers(breakers::Arguments),
    Denylist(denylist::Arguments),
    Topics(topics::Arguments),
    Geoip(geoip::Arguments),
}

impl Cli {
    /// Parses the command line. Prints help, version and usage errors, and exits.
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
            Command::Revoke(arguments) => revoke::run(&arguments),
            Command::Feedback(arguments) => feedback::run(&arguments),
            Command::Incidents(arguments) => incidents::run(&arguments),
            Command::Shadow(arguments) => shadow::run(&arguments),
            Command::Sql(arguments) => sql::run(&arguments),
            Command::Simulate(arguments) => simulate::run(&arguments),
            Command::State(arguments) => state::run(&arguments),
            Command::Notify(arguments) => notify::run(&arguments),
            Command::PauseActions(arguments) => pause::run(&arguments),
            Command::Silence(arguments) => silence::run(&arguments),
            Command::Breakers(arguments) => breakers::run(&arguments),
            Command::Denylist(arguments) => denylist::run(&arguments),
            Command::Topics(arguments) => topics::run(&arguments),
            Command::Geoip(arguments) => geoip::run(&arguments),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_passes_the_checks_of_clap() {
        Cli::command().debug_assert();
    }
}
