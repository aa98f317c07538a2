//! Parses the command line, runs the command, and returns its exit status.

use std::process::ExitCode;

use tokenwarden::cli::Cli;
use tokenwarden::source::stdin;
use tokenwarden::telemetry;

fn main() -> ExitCode {
    telemetry::hush_panics();
    // Fails only if the process has no standard input.
    let _ = stdin::keep();
    match Cli::read().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.status())
        }
    }
}
