//! The state of one partition.

use super::clock::Clock;
use super::counters::Counters;
use super::settings::Settings;
use crate::decide::{Budget, Incidents, Thresholds};
use crate::memory::{Memory, Recent};

/// Open visits looked at, whether they are over, at each event: no fewer than need it, and no event pays for many.
pub(super) const LOOKS: usize = 2;

/// Room for ids of attempts, as a part of that for events.
const ATTEMPTS_PART: usize = 8;

/// Everything one partition remembers.
#[derive(Debug)]
pub struct State {
    pub(super) settings: Settings,
    pub(super) counters: Counters,
    pub(super) memory: Memory,
    pub(super) thresholds: Thresholds,
    pub(super) budget: Budget,
    pub(super) incidents: Incidents,
    /// The last events, by identity; attempts have room of their own, so that those who have no token push out no other.
    pub(super) recent: Recent,
    pub(super) recent_attempts: Recent,
    pub(super) clock: Clock,
    /// When the last event took place, as it was scored.
    pub(super) scored_at: i64,
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
            scored_at: 0,
            settings,
        }
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        let baselines = &self.memory.baselines;
        Counters { baselines: baselines.len() as u64, baselines_evicted: baselines.evicted(), ..self.counters }
    }

    /// Bytes held by baselines and what finds them, and their number: for the figure of bytes a baseline.
    #[must_use]
    pub fn memory(&self) -> (usize, usize) {
        (self.memory.baselines.bytes(), self.memory.baselines.len())
    }

    /// When the last event took place, milliseconds since the epoch: by its own time if that is believed, else by the
    /// stream's.
    #[must_use]
    pub const fn scored_at(&self) -> i64 {
        self.scored_at
    }

    /// Ends the visits that are over, and counts their log-odds in the distribution of legitimate visits.
    pub(super) fn end_visits(&mut self) {
        self.thresholds.pass_time(self.clock.watermark());
        for _ in 0..LOOKS {
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
