//! State of the service for `/readyz` and `/healthz`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::lock::unpoisoned;
use crate::millis::{MINUTE_MS, rfc3339};
use crate::port::Condition;
use crate::sanitize;

/// A worker that has not polled its source for this time counts as hung.
const BEAT_MS_MAX: i64 = MINUTE_MS;

/// The conditions that hold. All parts of the service set them.
#[derive(Debug, Default)]
pub struct Health {
    /// Time of the worker's last poll, milliseconds since the epoch, wall clock. 0 before the first poll.
    beat_at: AtomicI64,
    /// Conditions that hold, each with its part, for example a lane. The part is empty if there is only one.
    holding: Mutex<BTreeSet<(Condition, String)>>,
    /// Time of the earliest event in each state, milliseconds since the epoch.
    memory_since: Mutex<BTreeMap<String, i64>>,
}

impl Health {
    /// Records that the worker polls its source at `now`, milliseconds since the epoch.
    pub fn beat(&self, now: i64) {
        self.beat_at.store(now, Ordering::Relaxed);
    }

    /// Records whether `condition` holds.
    pub(crate) fn set(&self, condition: Condition, holds: bool) {
        self.set_of(condition, "", holds);
    }

    /// Records whether `condition` holds for one of several parts: a lane, a channel, a partition. `/readyz` shows `part`,
    /// so it must contain no secret and no value of an event.
    pub(crate) fn set_of(&self, condition: Condition, part: &str, holds: bool) {
        let mut holding = self.holding();
        if holds {
            holding.insert((condition, part.to_owned()));
        } else {
            holding.retain(|(held, of)| *held != condition || of != part);
        }
    }

    /// Records the time of the earliest event in a state, milliseconds since the epoch. `None`: there is no such state.
    pub(crate) fn set_memory_since(&self, state: &str, since: Option<i64>) {
        let mut memory = unpoisoned(&self.memory_since);
        match since {
            Some(since) => _ = memory.insert(state.to_owned(), since),
            None => _ = memory.remove(state),
        }
    }

    /// How far back each state reaches, one line per state.
    pub(crate) fn memory(&self) -> Vec<String> {
        let memory = unpoisoned(&self.memory_since);
        let line =
            |(state, since): (&String, &i64)| format!("memory ({}): since {}", sanitize::line(state), rfc3339(*since));
        memory.iter().map(line).collect()
    }

    /// Whether `condition` holds at `now`, for any part.
    pub fn holds(&self, condition: Condition, now: i64) -> bool {
        let beat_at = self.beat_at.load(Ordering::Relaxed);
        match condition {
            Condition::Starting => beat_at == 0,
            Condition::Hung => beat_at != 0 && now - beat_at > BEAT_MS_MAX,
            _ => self.holding().iter().any(|(held, _)| *held == condition),
        }
    }

    /// Conditions that do not make the service unready, one line per condition and part.
    pub fn degradations(&self) -> Vec<String> {
        let holding = self.holding();
        let held = holding.iter().filter(|(condition, _)| condition.is_degradation());
        held.map(|(condition, part)| line(*condition, part)).collect()
    }

    /// Why the service is not ready at `now`, one line per condition and part.
    pub fn unready_reasons(&self, now: i64) -> Vec<String> {
        let mut held = self.holding().clone();
        held.retain(|(condition, _)| !condition.is_degradation());
        held.extend(
            [Condition::Starting, Condition::Hung]
                .into_iter()
                .filter(|condition| self.holds(*condition, now))
                .map(|condition| (condition, String::new())),
        );
        held.iter().map(|(condition, part)| line(*condition, part)).collect()
    }

    /// Why the process should be restarted, one line per condition and part.
    pub(crate) fn restart_reasons(&self, now: i64) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.holds(Condition::Hung, now) {
            reasons.push(line(Condition::Hung, ""));
        }
        let holding = self.holding();
        let held = holding.iter().filter(|(condition, _)| condition.needs_restart());
        reasons.extend(held.map(|(condition, part)| line(*condition, part)));
        reasons
    }

    fn holding(&self) -> MutexGuard<'_, BTreeSet<(Condition, String)>> {
        unpoisoned(&self.holding)
    }
}

fn line(condition: Condition, part: &str) -> String {
    let mut line = condition.name().to_owned();
    if !part.is_empty() {
        // A name from the configuration must not start a new line.
        let _ = write!(line, " ({})", sanitize::line(part));
    }
    let _ = write!(line, ": {}", condition.text());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_lists_every_condition_that_holds() {
        let health = Health::default();
        assert_eq!(health.unready_reasons(1), ["starting: the worker has not polled its source yet"]);
        health.beat(1);
        assert_eq!(health.unready_reasons(1), Vec::<String>::new());
        health.set_of(Condition::Channel, "webhook", true);
        health.set(Condition::Store, true);
        health.set_of(Condition::Channel, "email\nstore: ok", true);
        assert_eq!(
            health.unready_reasons(1),
            [
                "store: ClickHouse is unavailable",
                "channel (email␊store: ok): the alert channel rejects alerts",
                "channel (webhook): the alert channel rejects alerts",
            ]
        );
        health.set_of(Condition::Channel, "webhook", false);
        health.set(Condition::Store, false);
        assert_eq!(health.unready_reasons(1).len(), 1, "one part recovers without the other");
    }

    #[test]
    fn healthz_fails_if_a_restart_repairs() {
        for condition in Condition::ALL {
            let health = Health::default();
            health.beat(1);
            health.set(condition, true);
            let restart = !health.restart_reasons(1).is_empty();
            assert_eq!(restart, matches!(condition, Condition::Hung | Condition::LaneEnded), "{condition:?}");
        }
        let health = Health::default();
        assert_eq!(health.restart_reasons(100_000), Vec::<String>::new(), "starting may take long");
        health.beat(1);
        assert_eq!(health.restart_reasons(60_001), Vec::<String>::new());
        assert_eq!(health.restart_reasons(60_002), ["hung: the worker has not polled its source for 60 s"]);
        assert_eq!(health.unready_reasons(60_002), health.restart_reasons(60_002));
    }
}
