//! The state of one partition.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::clock::Clock;
use super::counters::Counters;
use super::settings::Settings;
use crate::decide::{Budget, Incidents, Thresholds};
use crate::memory::{Generations, Memory, Recent};

/// Open visits checked for their end per event.
pub(super) const LOOKS: usize = 2;

/// Divisor: the capacity for ids of attempts, as a part of that for events.
const ATTEMPTS_PART: usize = 8;

/// Number of feedback records whose repetition is recognised.
const FEEDBACK_MAX: usize = 1 << 16;

/// Version of the format in which a state is stored. Raise it if a stored state would be read as another one: if the
/// layout changes (a test fails then), or the meaning of a field or of a key.
pub const STATE_FORMAT: u32 = 4;

/// State of one partition. All of it is stored in snapshots, without the settings.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// A restored state has the default ones until [`Self::with_settings`].
    #[serde(skip)]
    pub(super) settings: Settings,
    pub(super) counters: Counters,
    pub(super) memory: Memory,
    pub(super) thresholds: Thresholds,
    pub(super) budget: Budget,
    pub(super) incidents: Incidents,
    /// Ids of the last events. Attempts, which anyone can send, have their own table, so that they do not evict events.
    pub(super) recent: Recent,
    pub(super) recent_attempts: Recent,
    pub(super) clock: Clock,
    /// Feedback that was learnt.
    pub(super) feedback: Generations<()>,
    /// Time with which the last event was scored.
    pub(super) scored_at: i64,
    /// Key of the last event that was scored.
    pub(super) last_event: u64,
}

impl State {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            counters: Counters::default(),
            memory: Memory::new(settings.baselines_max),
            thresholds: Thresholds::new(settings.alert_budget_per_day),
            budget: Budget::new(settings.alert_budget_per_day, settings.alert_budget_total_per_day),
            incidents: Incidents::default(),
            recent: Recent::new(settings.recent_event_ids_max),
            recent_attempts: Recent::new(settings.recent_event_ids_max / ATTEMPTS_PART),
            clock: Clock::new(settings.clock_skew_ms_max),
            feedback: Generations::new(FEEDBACK_MAX),
            scored_at: 0,
            last_event: 0,
            settings,
        }
    }

    /// Gives a restored state the settings of its process. A lower limit of baselines does not remove any: the table stays
    /// at its size. A changed alert budget is full again.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.memory.baselines.limit(settings.baselines_max);
        self.memory.users.limit(settings.baselines_max);
        self.thresholds.set_budget(settings.alert_budget_per_day);
        self.budget.set(settings.alert_budget_per_day, settings.alert_budget_total_per_day);
        self.recent.resize(settings.recent_event_ids_max);
        self.recent_attempts.resize(settings.recent_event_ids_max / ATTEMPTS_PART);
        self.clock.set_skew(settings.clock_skew_ms_max);
        Self { settings, ..self }
    }

    pub(crate) const fn settings(&self) -> &Settings {
        &self.settings
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        let baselines = &self.memory.baselines;
        Counters { baselines: baselines.len() as u64, baselines_evicted: baselines.evicted(), ..self.counters }
    }

    /// Bytes of the baselines and their index, and their number: for the metric of bytes per baseline.
    #[must_use]
    pub fn memory(&self) -> (usize, usize) {
        (self.memory.baselines.bytes(), self.memory.baselines.len())
    }

    /// Time with which the last event was scored, milliseconds since the epoch: the event time if it is accepted, else
    /// the stream time.
    #[must_use]
    pub(crate) const fn scored_at(&self) -> i64 {
        self.scored_at
    }

    /// Key of the last event that was scored: of its id and content. `None`: none was.
    #[must_use]
    pub(crate) const fn last_event(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.last_event)
    }

    /// Whether the feedback with this id was learnt.
    #[must_use]
    pub(crate) fn has_learnt(&self, feedback: u64) -> bool {
        self.feedback.get(feedback).is_some()
    }

    /// Closes ended visits, and counts their log-odds in the distribution of legitimate visits.
    pub(super) fn end_visits(&mut self) {
        self.thresholds.pass_time(self.clock.watermark());
        for _ in 0..LOOKS {
            if !self.memory.visits.is_due(self.clock.watermark()) {
                return;
            }
            let Some(number) = self.memory.visits.next_ended(self.clock.watermark()) else { continue };
            let visit = self.memory.visits.get(number);
            let (tenant, log_odds) = (visit.tenant, f64::from(visit.log_odds_max));
            if log_odds.is_finite() {
                self.thresholds.learn(self.memory.others.tenants.get(tenant), log_odds);
            }
            self.memory.visits.close(number);
        }
    }
}

#[cfg(test)]
mod layout;
