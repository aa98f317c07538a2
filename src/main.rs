//! Reads the command line, starts the command, and turns how it ended into an exit status.

use std::process::ExitCode;

use clap::Parser as _;
use tokenwarden::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            ExitCode::from(failure.status())
        }
    }
}
