//! Messages and progress bars on the terminal.

use std::io::Write as _;

use indicatif::{ProgressBar, ProgressStyle};

use super::failure::Failure;
use crate::sanitize;

/// Template of a progress bar in percent.
pub(super) const PERCENT: &str = "{bar:40} {percent:>3} % {msg} {eta}";

/// Progress bar on stderr. It is hidden if stderr is not a terminal.
pub(super) fn progress_bar(total: u64, template: &str) -> ProgressBar {
    with_template(ProgressBar::new(total), template)
}

/// Progress bar by bytes, or a spinner if the total is unknown.
pub(super) fn progress_of_bytes(total: Option<u64>) -> ProgressBar {
    match total {
        Some(total) => progress_bar(total, PERCENT),
        None => with_template(ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
    }
}

fn with_template(bar: ProgressBar, template: &str) -> ProgressBar {
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Prints text on stderr, with control characters replaced.
pub(super) fn to_stderr(text: &str) {
    // If stderr is closed, the message is lost.
    let _ = writeln!(std::io::stderr(), "{}", sanitize::lines(text));
}

/// Writes the result of a command, which is sanitized, to stdout.
pub(super) fn to_stdout(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output("the result", &error))
}
