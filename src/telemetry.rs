//! Clock, logs, metrics, health and admin endpoints of the service.

pub(crate) mod admin;
mod delivery;
#[cfg(test)]
mod deployed;
mod health;
mod label;
mod memory;
mod metrics;
mod notes;
mod storage;

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

pub(crate) use self::delivery::Checked;
pub use self::health::Health;
pub use self::metrics::Metrics;
pub(crate) use self::storage::StoreState;
pub use crate::port::Condition;

use crate::port::Clock;
use crate::sanitize;

/// The wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "only this place reads the clock")]
    fn now_millis(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
    }
}

/// Sends logs to stderr: text on a terminal, otherwise JSON. `RUST_LOG` sets the level, within `may_be_logged`.
pub(crate) fn start_logging(default_level: &str) {
    let chosen = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_level));
    let filter = chosen.and(filter_fn(may_be_logged));
    // Without colours, because [`LogLines`] replaces escape sequences.
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_target(false);
    let lines = lines.with_writer(|| LogLines(std::io::stderr()));
    // A second call, as in tests, keeps the first subscriber.
    let _ = if std::io::stderr().is_terminal() {
        tracing_subscriber::registry().with(lines.with_filter(filter)).try_init()
    } else {
        tracing_subscriber::registry().with(lines.json().flatten_event(true).with_filter(filter)).try_init()
    };
}

/// Writes each log entry on one line without unsafe characters. The subscriber writes an entry with one call.
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

/// Whether an entry may be logged, independently of `RUST_LOG`. Below [`LIBRARY_LEVEL_MAX`], libraries log what they send
/// and receive: passwords, mails and values of events.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_own = target.split("::").next() == Some(env!("CARGO_CRATE_NAME"));
    is_own || *metadata.level() <= LIBRARY_LEVEL_MAX
}

/// Most detailed level of libraries.
const LIBRARY_LEVEL_MAX: Level = Level::INFO;

thread_local! {
    static PANICKED_AT: Cell<Option<String>> = const { Cell::new(None) };
}

/// Makes panics report only their position. The message of a panic may contain the text that caused it, with a token.
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

/// Position of the last panic of this thread. Returned once.
pub(crate) fn panicked_at() -> Option<String> {
    PANICKED_AT.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_entry_is_one_safe_line() {
        let mut written = Vec::new();
        LogLines(&mut written)
            .write_all("WARN a\nERROR b\u{1b}[2J\u{202e}c\n".as_bytes())
            .expect("a vector accepts all bytes");
        assert_eq!(String::from_utf8_lossy(&written), "WARN a␊ERROR b␛[2J\u{fffd}c\n");
    }
}
