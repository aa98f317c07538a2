//! The second stage of the search for campaigns, for a source with partitions: a thread that reads the topic of sightings
//! as a member of a group of its own.
//!
//! The state of a partition is a function of its last messages, so no snapshot is needed: when a partition is assigned,
//! the messages before its committed offset are read again without effects. An offset is committed when the changes of
//! incidents before it are in the outbox and their rows in the store. A repetition changes nothing, because incidents and
//! their changes are numbered by content.

mod reader;
mod services;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use self::reader::Reader;
pub(crate) use self::services::Lane;
use crate::port::{Polled, SourceError, Store};
use crate::retry::{Restarts, RetryPolicy};
use crate::telemetry::{self, Condition};

/// Name of the thread, and of the lane in metrics and health checks.
const LANE: &str = "campaigns";
/// Time that a poll waits for the first message.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// Maximum number of messages per poll.
const POLL_MESSAGES_MAX: usize = 1_000;
/// Attempts to open the topic, and restarts after a panic.
const RESTART: RetryPolicy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(60));
/// Time after which the thread counts as recovered, milliseconds.
const RECOVERED_MS: i64 = 60_000;

impl<S: Store + 'static> Lane<S>
where
    S::Rows: 'static,
{
    /// Starts the thread. It ends when `stop` is set.
    pub(crate) fn start(self, stop: Arc<AtomicBool>) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name(LANE.to_owned()).spawn(move || self.supervise(&stop))
    }

    /// Reads until a stop. After an error or a panic, everything is opened and read again.
    fn supervise(&self, stop: &AtomicBool) {
        let mut restarts = Restarts::new(RESTART, RECOVERED_MS);
        let mut logged = String::new();
        while !stop.load(Ordering::Relaxed) {
            let began = self.clock.now_millis();
            match catch_unwind(AssertUnwindSafe(|| self.read(stop))) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    let reason = error.to_string();
                    if reason != logged {
                        tracing::error!(reason, "sightings cannot be read; retrying");
                        logged = reason;
                    }
                    self.health.set_of(Condition::Campaigns, "topic", true);
                }
                Err(_) => {
                    let place = telemetry::panicked_at().unwrap_or_default();
                    tracing::error!(lane = LANE, place, "the lane panicked");
                    self.metrics.lane_panicked(LANE);
                    self.health.set_of(Condition::Lane, LANE, true);
                }
            }
            restarts.wait(self.clock.now_millis() - began, stop);
        }
    }

    fn read(&self, stop: &AtomicBool) -> Result<(), SourceError> {
        let mut source = (self.open)()?;
        let mut reader = Reader::new(self);
        while !stop.load(Ordering::Relaxed) {
            // A member that does not poll loses its partitions.
            let room = if reader.is_full() { 0 } else { POLL_MESSAGES_MAX };
            match source.poll(room, POLL_WAIT, &mut |message| reader.take(&message))? {
                Polled::Messages(_) => {
                    self.health.set_of(Condition::Campaigns, "topic", false);
                    self.health.set_of(Condition::Lane, LANE, false);
                    reader.advance(&mut *source)?;
                }
                Polled::Revoked(gone) => {
                    reader.advance(&mut *source)?;
                    reader.forget(&gone);
                    source.release()?;
                }
                Polled::Lost => {
                    reader = Reader::new(self);
                    source.release()?;
                }
                Polled::End => return Ok(()),
            }
        }
        reader.advance(&mut *source)?;
        reader.report_withheld(self.clock.now_millis());
        source.confirm();
        Ok(())
    }
}
