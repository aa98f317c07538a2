//! What the service reports about itself: clock, logs, metrics, health, admin endpoints.

pub mod admin;
mod health;
mod metrics;
mod notes;

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing_subscriber::EnvFilter;

pub use self::health::Health;
pub use self::metrics::{Metrics, StoreState};
pub use crate::port::Condition;

use crate::port::Clock;
use crate::sanitize;

/// The wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now_millis(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
    }
}

/// Sends logs to stderr: lines for people on a terminal, JSON elsewhere. `RUST_LOG` chooses what is logged.
pub fn start_logging(default_level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_level));
    // Colours would be escape sequences, of which none passes.
    let builder = tracing_subscriber::fmt().with_ansi(false).with_target(false);
    let builder = builder.with_env_filter(filter).with_writer(|| LogLines(std::io::stderr()));
    // A second call, as in tests, finds a subscriber in place and leaves it there.
    let _ = if std::io::stderr().is_terminal() {
        builder.try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
}

/// Writes log entries, each on one line that cannot steer a terminal. The subscriber writes an entry at once.
struct LogLines<W>(W);

impl<W: std::io::Write> std::io::Write for LogLines<W> {
    fn write(&mut self, entry: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(entry);
        let line = sanitize::line(text.strip_suffix('\n').unwrap_or(&text));
        self.0.write_all(format!("{line}\n").as_bytes())?;
        Ok(entry.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

thread_local! {
    static PANICKED_AT: Cell<Option<String>> = const { Cell::new(None) };
}

/// Makes panics tell where they were and nothing else: a panic's own message may quote the text that caused it, and
/// that text may hold a token.
pub fn hush_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
        if tracing::dispatcher::has_been_set() {
            tracing::error!(place, "the program panicked");
        } else {
            let _ = writeln!(std::io::stderr(), "tokenwarden: the program panicked at {place}; please report it");
        }
        PANICKED_AT.set(Some(place));
    }));
}

/// Where in our code the last panic of this thread was, told once.
#[must_use]
pub fn panicked_at() -> Option<String> {
    PANICKED_AT.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_cannot_be_forged() {
        let mut written = Vec::new();
        LogLines(&mut written).write_all("WARN a\nERROR b\u{1b}[2J\u{202e}c\n".as_bytes()).expect("a vector takes all");
        assert_eq!(String::from_utf8_lossy(&written), "WARN a␊ERROR b␛[2J\u{fffd}c\n");
    }
}
