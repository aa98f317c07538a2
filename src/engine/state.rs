//! The state of one partition.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::clock::Clock;
use super::counters::Counters;
use super::settings::Settings;
use crate::appearance::Appearance;
use crate::decide::{Budget, Incidents, Thresholds};
use crate::memory::{Costs, Generations, Limits, Memory, Recent, Trails, Usage};

/// Open visits checked for their end per event.
pub(super) const LOOKS: usize = 2;

/// Number of groups of tables of [`State::usage`].
pub(crate) const TABLES: usize = 9;

/// Divisor: the capacity for ids of attempts, as a part of that for events.
const ATTEMPTS_PART: usize = 8;

/// Number of feedback records whose repetition is recognised.
const FEEDBACK_MAX: usize = 1 << 16;

/// Version of the format in which a state is stored. Raise it if a stored state would be read as another one: if the
/// layout changes (a test fails then), or the meaning of a field or of a key.
pub const STATE_FORMAT: u32 = 7;

/// State of one partition. All of it is stored in snapshots, without the settings.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// A restored state has the default ones until [`Self::with_settings`].
    #[serde(skip)]
    pub(super) settings: Settings,
    /// The appearance of the last event, until it is taken.
    #[serde(skip)]
    pub(super) appearance: Option<Box<Appearance>>,
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
        let limits = limits(&settings);
        let mut incidents = Incidents::default();
        incidents.limit(&limits);
        Self {
            appearance: None,
            counters: Counters::default(),
            memory: Memory::new(&limits),
            thresholds: Thresholds::new(settings.alert_budget_per_day),
            budget: Budget::new(settings.alert_budget_per_day, settings.alert_budget_total_per_day),
            incidents,
            recent: Recent::new(limits.recent),
            recent_attempts: Recent::new(limits.recent / ATTEMPTS_PART),
            clock: Clock::new(settings.clock_skew_ms_max),
            feedback: Generations::new(FEEDBACK_MAX),
            scored_at: 0,
            last_event: 0,
            settings,
        }
    }

    /// Gives a restored state the settings of its process. What is above lower limits is evicted. A changed alert budget is
    /// full again.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.thresholds.set_budget(settings.alert_budget_per_day);
        self.budget.set(settings.alert_budget_per_day, settings.alert_budget_total_per_day);
        self.clock.set_skew(settings.clock_skew_ms_max);
        self.settings = settings;
        self.limit();
        self
    }

    /// Changes the limit of the bytes of the state. What is above a lower limit is evicted: about a second for a million
    /// baselines.
    pub(crate) fn set_memory_max(&mut self, bytes: Option<usize>) {
        if bytes != self.settings.memory_bytes_max {
            self.settings.memory_bytes_max = bytes;
            self.limit();
        }
    }

    fn limit(&mut self) {
        let limits = limits(&self.settings);
        let Self { memory, incidents, .. } = self;
        memory.limit(&limits, self.scored_at, &|baseline| incidents.has(baseline));
        incidents.limit(&limits);
        self.recent.resize(limits.recent);
        self.recent_attempts.resize(limits.recent / ATTEMPTS_PART);
    }

    /// Evicts a baseline or two if there are too many, after an event of `tenant`.
    #[inline]
    pub(super) fn fit(&mut self, tenant: u64) {
        if self.memory.baselines.is_over() {
            self.evict(tenant);
        }
    }

    #[cold]
    #[inline(never)]
    fn evict(&mut self, tenant: u64) {
        let Self { memory: Memory { baselines, others, .. }, incidents, scored_at, .. } = self;
        baselines.fit(others.tenants.pool(tenant), *scored_at, &|baseline| incidents.has(baseline));
    }

    /// Sets whether the next events may confirm uses. The messages of a partition can come from several topics.
    pub(crate) const fn believe(&mut self, confirmed: bool) {
        self.settings.confirmed = confirmed;
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
        (self.memory.baselines.usage().bytes, self.memory.baselines.len())
    }

    /// Use of each group of tables. Takes no time that depends on the number of entries.
    #[must_use]
    pub fn usage(&self) -> [(&'static str, Usage); TABLES] {
        let [baselines, seeds, users, visits, tokens, population, groups] = self.memory.usage();
        let incidents = ("incidents", self.incidents.usage());
        let recent = ("recent", self.recent.usage().plus(self.recent_attempts.usage()));
        [baselines, seeds, users, visits, tokens, population, groups, incidents, recent]
    }

    /// Time with which the last event was scored, milliseconds since the epoch: the event time if it is accepted, else
    /// the stream time.
    #[must_use]
    pub(crate) const fn scored_at(&self) -> i64 {
        self.scored_at
    }

    /// The appearance of the event that was scored last, once. `None`: the event is none.
    #[inline]
    pub(crate) const fn take_appearance(&mut self) -> Option<Box<Appearance>> {
        self.appearance.take()
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

/// Limits of all tables.
fn limits(settings: &Settings) -> Limits {
    let by_number = Limits::by_number(settings.baselines_max, settings.recent_event_ids_max);
    let trail = if settings.campaigns { Trails::BYTES_EACH } else { 0 };
    let (tables, user) = (Memory::COSTS.tables + Incidents::BYTES_MAX, Memory::COSTS.user + trail);
    let costs = Costs { tables, user, ..Memory::COSTS };
    settings.memory_bytes_max.map_or(by_number, |bytes| by_number.within(bytes, &costs))
}

#[cfg(test)]
mod layout;
