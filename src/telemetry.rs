//! What the service reports about itself: clock, logs, metrics, health, admin endpoints.

pub mod admin;
mod health;
mod metrics;
mod notes;

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing_subscriber::EnvFilter;

pub use self::health::{Condition, Health};
pub use self::metrics::{Metrics, StoreState};
use crate::port::Clock;

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
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second call, as in tests, finds a subscriber in place and leaves it there.
    let _ = if std::io::stderr().is_terminal() {
        builder.try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
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
