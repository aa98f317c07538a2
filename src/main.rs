//! Reads the command line, starts the command, and turns how it ended into an exit status.

use std::process::ExitCode;

use tokenwarden::cli::Cli;
use tokenwarden::source::stdin;
use tokenwarden::telemetry;

fn main() -> ExitCode {
    telemetry::hush_panics();
    // A process without standard input has none to keep.
    let _ = stdin::keep();
    match Cli::read().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            ExitCode::from(failure.status())
        }
    }
}
