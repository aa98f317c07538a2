//! Judgement, whole: the state of one partition and the step that takes it from event to event.

use crate::enrichment::EnrichedEvent;
use crate::rule::RuleSet;
use crate::verdict::{Action, Mode, Outcome, Verdict};

/// What the operator decides about judgement.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// π: log-odds of theft before looking (natural log); −7 is 1 token in 1,100.
    pub prior_log_odds: f64,
    pub alert_budget_per_day: u32,
    /// Events later than this behind the watermark are judged only with what needs no order.
    pub lateness_ms_max: i64,
    /// Ceiling over every rule's own mode.
    pub mode: Mode,
    /// Added to the log-odds that a behavioural revocation needs.
    pub revoke_margin: f64,
    /// Baselines kept; beyond it the least recently used goes, counted.
    pub baselines_max: usize,
    /// Recent event ids kept to recognise duplicate deliveries.
    pub recent_event_ids_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prior_log_odds: -7.0,
            alert_budget_per_day: 20,
            lateness_ms_max: 900_000,
            mode: Mode::Shadow,
            revoke_margin: 3.0,
            baselines_max: 10_000_000,
            recent_event_ids_max: 1 << 20,
        }
    }
}

/// Counters of what judgement did, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub events: u64,
    pub duplicates: u64,
    pub late: u64,
    pub baselines: u64,
    pub baselines_evicted: u64,
    pub incidents: u64,
}

/// Everything one partition remembers.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    counters: Counters,
}

/// What became of one event.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The event's id was seen before: nothing changed, nothing is to be written.
    Duplicate,
    Judged(Outcome),
}

impl State {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, counters: Counters::default() }
    }

    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Bytes held by baselines alone, and their number: for the figure of bytes a baseline.
    #[must_use]
    pub fn memory(&self) -> (usize, usize) {
        (0, 0)
    }
}

/// Judges one event and learns from it. Total: any event in any order has an outcome; the same events in the same
/// order have the same outcomes, byte for byte.
pub fn step(state: &mut State, rules: &RuleSet, event: &EnrichedEvent<'_>) -> Step {
    let _ = (rules, event);
    Step::Judged(Outcome {
        verdict: Verdict::Allow,
        log_odds: state.settings.prior_log_odds,
        p_value: 1.0,
        signals: Vec::new(),
        incident_id: None,
        incident: None,
        action: Action::None,
        mode: state.settings.mode,
    })
}
