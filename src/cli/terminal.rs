//! Messages and progress bars on the terminal.

use std::io::Write as _;

use indicatif::{ProgressBar, ProgressStyle};

use crate::sanitize;

/// Progress bar by bytes, or a spinner if the total is unknown.
pub(super) fn progress_bar(bytes_total: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes_total {
        Some(total) => (ProgressBar::new(total), "{bar:40} {percent:>3} % {msg} {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Prints text on stderr, with control characters replaced.
pub(super) fn to_stderr(text: &str) {
    // If stderr is closed, the message is lost.
    let _ = writeln!(std::io::stderr(), "{}", sanitize::lines(text));
}
