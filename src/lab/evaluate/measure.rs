//! Collects the figures of a run: takes the place of the store's rows and receives every scored event.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::labels::{CaseNumber, Labels};
use super::ledger::{Ledger, Noted};
use super::observation::{NONE, OURS, Observation, Scores};
use super::peer::Peer;
use crate::checkpoint::DeadLetter;
use crate::event::Event;
use crate::millis::DAY_MS;
use crate::port::{ActionRow, EventRow, Rows};
use crate::verdict::{Incident, Signal};

/// Maximum number of false revocations in the report. Further ones are only counted.
const FALSE_REVOCATIONS_TOLD_MAX: usize = 1_000;

/// Measures each event that it receives.
pub struct Measure {
    pub(super) labels: Labels,
    pub(super) peers: Vec<Box<dyn Peer>>,
    warmup: Warmup,
    pub(super) ledger: Ledger,
    pub(super) false_revocations: Vec<FalseRevocation>,
    /// For each theft, the event with the highest log-odds.
    pub(super) most_telling: HashMap<CaseNumber, ToldEvent>,
    pub(super) events: usize,
}

/// An event in the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToldEvent {
    pub event_id: String,
    /// Grant or token of the baseline.
    pub subject: String,
    pub log_odds: f64,
    /// Rule, share in nats and reason of each signal.
    pub signals: Vec<String>,
}

/// A verdict of revoke on a token that was not stolen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FalseRevocation {
    #[serde(flatten)]
    pub event: ToldEvent,
    /// The hard case of the event.
    pub scenario: Option<String>,
}

impl Measure {
    /// `peers`: the comparison rules to run, either none or [`all`](super::peer::all). During the first `warmup_days` of event time,
    /// they and the engine learn, and nothing is measured.
    #[must_use]
    pub fn new(labels: Labels, peers: Vec<Box<dyn Peer>>, warmup_days: u32) -> Self {
        Self {
            labels,
            peers,
            warmup: Warmup::new(warmup_days),
            ledger: Ledger::default(),
            false_revocations: Vec::new(),
            most_telling: HashMap::new(),
            events: 0,
        }
    }

    /// The labels, with the number of those that matched an event.
    #[must_use]
    pub const fn labels(&self) -> &Labels {
        &self.labels
    }

    fn observe(&mut self, row: &EventRow<'_>) {
        // The time at which the event was scored, so that a wrong clock adds no day.
        let EventRow { event, outcome, scored_at: at, .. } = *row;
        let mut scores: Scores = NONE;
        scores[OURS] = outcome.log_odds as f32;
        for (score, peer) in scores[OURS + 1..].iter_mut().zip(&mut self.peers) {
            *score = peer.score(event);
        }
        // A label of an event in the warm-up counts as matched.
        let case = self.labels.of(&event.event, event.baseline_id());
        if !self.warmup.is_over(at) {
            return;
        }
        self.events += 1;
        let address = event.event.address.map_or(0, crate::event::Address::client);
        let seen = Observation {
            baseline: event.baseline_id(),
            at,
            case: case.map(|number| (number, self.labels.case(number).theft)),
            scores,
            log_odds: outcome.log_odds,
            p_value: outcome.p_value,
            verdict: outcome.verdict,
            incident: outcome.incident_id,
            holder: address ^ u64::from(event.client.agent_key).rotate_left(32),
            token_type: event.event.token_type,
            device: event.client.device,
        };
        let noted = self.ledger.observe(&seen);
        if noted == Noted::FalseRevocation && self.false_revocations.len() < FALSE_REVOCATIONS_TOLD_MAX {
            self.false_revocations.push(FalseRevocation {
                event: ToldEvent::of(row),
                scenario: case.map(|number| self.labels.case(number).scenario.clone()),
            });
        }
        if let Some((number, true)) = seen.case
            && self.most_telling.get(&number).is_none_or(|before| outcome.log_odds > before.log_odds)
        {
            self.most_telling.insert(number, ToldEvent::of(row));
        }
    }
}

/// The start of a run, which is not measured.
///
/// Its length is event time between consecutive events. The first events may have a wrong clock, after which the stream
/// steps to another time. A step forward counts as one day at most, a step back as nothing.
#[derive(Clone, Copy, Debug)]
struct Warmup {
    /// Milliseconds.
    left: i64,
    /// The latest event time so far, milliseconds since the epoch.
    latest: Option<i64>,
}

impl Warmup {
    fn new(days: u32) -> Self {
        Self { left: i64::from(days) * DAY_MS, latest: None }
    }

    /// Whether an event scored at `at` is measured.
    fn is_over(&mut self, at: i64) -> bool {
        let latest = *self.latest.get_or_insert(at);
        if at > latest || at < latest - DAY_MS {
            self.left -= (at - latest).clamp(0, DAY_MS);
            self.latest = Some(at);
        }
        self.left <= 0
    }
}

impl ToldEvent {
    fn of(row: &EventRow<'_>) -> Self {
        let EventRow { event, outcome, .. } = row;
        let text = |signal: &Signal| format!("{} {:+.1}: {}", signal.rule, signal.share, signal.reason);
        Self {
            event_id: event.event.event_id.to_string(),
            subject: subject(&event.event).to_owned(),
            log_odds: outcome.log_odds,
            signals: outcome.signals.iter().map(text).collect(),
        }
    }
}

fn subject<'a>(event: &'a Event<'_>) -> &'a str {
    event.family_id.as_deref().unwrap_or_else(|| event.token_id.as_str())
}

/// In an ordinary run these methods encode rows. Results stay until the report is made.
impl Rows for Measure {
    fn push_event(&mut self, row: &EventRow<'_>) {
        self.observe(row);
    }

    fn push_incident(&mut self, _: &Incident) {}

    fn push_action(&mut self, _: &ActionRow) {}

    fn push_dead_letter(&mut self, _: &DeadLetter) {}

    fn len(&self) -> usize {
        self.events
    }

    fn bytes(&self) -> usize {
        0
    }

    fn clear(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::millis::HOUR_MS;

    #[test]
    fn warmup_is_counted_from_event_to_event() {
        let day = |day: i64| 20_000 * DAY_MS + day * DAY_MS;
        for wrong in [400, 29, -29, -400] {
            let mut warmup = Warmup::new(10);
            assert!(!warmup.is_over(day(wrong)) && !warmup.is_over(day(wrong) + 600), "{wrong}");
            // A step forward counts as a day.
            let days = if wrong < 0 { 0..9 } else { 0..10 };
            for passed in days.clone() {
                assert!(!warmup.is_over(day(passed)), "{wrong}: {passed}");
                assert!(!warmup.is_over(day(passed) - HOUR_MS), "late events add no time");
            }
            assert!(warmup.is_over(day(days.end)), "{wrong}");
        }
        let mut none = Warmup::new(0);
        assert!(none.is_over(day(400)) && none.is_over(day(0)));
    }
}
