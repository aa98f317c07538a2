//! Measures detection on labelled events, which take the same path as all others.
//!
//! [`Measure`] takes the place of the store's rows: the [`pipeline`](crate::pipeline) passes every scored event to it.
//! It keeps the scores of each token-day and each case ([`ledger`]) and finally makes a [`Report`] of them.
//! `docs/evaluation.md` defines the figures.

pub mod budget;
pub mod calibration;
pub mod labels;
pub mod ledger;
pub mod peer;
pub mod report;
mod roc;
mod text;

use std::collections::HashMap;

use serde::Serialize;

use self::labels::{CaseNumber, Labels};
use self::ledger::{Ledger, NONE, Noted, Observation, Scores};
use self::peer::Peer;
pub use self::report::Report;
use crate::checkpoint::DeadLetter;
use crate::event::Event;
use crate::port::{ActionRow, EventRow, Rows};
use crate::verdict::{Incident, Signal};

/// Number of methods that score events: tokenwarden and the comparison rules.
pub const DETECTORS: usize = 1 + peer::COUNT;
/// Index of tokenwarden among the methods.
pub const OURS: usize = 0;

/// Maximum number of false revocations in the report. Further ones are only counted.
const FALSE_REVOCATIONS_TOLD_MAX: usize = 1_000;

/// Measures each event that it receives.
pub struct Measure {
    labels: Labels,
    peers: Vec<Box<dyn Peer>>,
    warmup: Warmup,
    ledger: Ledger,
    false_revocations: Vec<FalseRevocation>,
    /// For each theft, the event with the highest log-odds.
    most_telling: HashMap<CaseNumber, ToldEvent>,
    events: usize,
}

/// An event in the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ToldEvent {
    pub event_id: String,
    /// Grant or token of the baseline.
    pub subject: String,
    pub log_odds: f64,
    /// Rule, share in nats and reason of each signal.
    pub signals: Vec<String>,
}

/// A verdict of revoke on a token that was not stolen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FalseRevocation {
    #[serde(flatten)]
    pub event: ToldEvent,
    /// The hard case of the event.
    pub scenario: Option<String>,
}

impl Measure {
    /// `with_peers` runs the comparison rules too. During the first `warmup_days` of event time, they and the engine
    /// learn, and nothing is measured.
    #[must_use]
    pub fn new(labels: Labels, with_peers: bool, warmup_days: u32) -> Self {
        Self {
            labels,
            peers: if with_peers { peer::all().into() } else { Vec::new() },
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

const DAY_MS: i64 = 86_400_000;

impl Warmup {
    fn new(days: u32) -> Self {
        Self { left: i64::from(days) * DAY_MS, latest: None }
    }

    /// Whether an event that was judged at `at` is measured.
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
        let told = |signal: &Signal| format!("{} {:+.1}: {}", signal.rule, signal.share, signal.reason);
        Self {
            event_id: event.event.event_id.to_string(),
            subject: subject(&event.event).to_owned(),
            log_odds: outcome.log_odds,
            signals: outcome.signals.iter().map(told).collect(),
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
    use crate::enrichment::Device;
    use crate::event::{BaselineId, Event, Kind, Timestamp, TokenType};
    use crate::token::TokenId;
    use crate::verdict::Verdict;

    use super::ledger::{NONE, Observation};
    use super::{DAY_MS, Warmup};

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
                assert!(!warmup.is_over(day(passed) - 3_600_000), "late events add no time");
            }
            assert!(warmup.is_over(day(days.end)), "{wrong}");
        }
        let mut none = Warmup::new(0);
        assert!(none.is_over(day(400)) && none.is_over(day(0)));
    }

    /// An event with only an id and a time.
    pub(super) fn event(id: &str, at: i64) -> Event<'static> {
        Event {
            event_id: id.to_owned().into(),
            timestamp: Timestamp::from_millis(at).expect("in range"),
            kind: Kind::Use,
            token_id: TokenId::default(),
            token_type: TokenType::Access,
            family_id: None,
            parent_token_id: None,
            session_id: None,
            user_id: None,
            app_id: None,
            tenant_id: None,
            address: None,
            user_agent: None,
            client_fingerprint: None,
            method: None,
            endpoint: None,
            status: None,
            outcome_unclear: false,
            reuse_reported: false,
            bytes_out: None,
            scopes: Vec::new(),
            issued_at: None,
            expires_at: None,
            binding: None,
            geo: None,
            attrs: Vec::new(),
            facts: None,
        }
    }

    /// Ordinary legitimate use of a baseline.
    pub(super) fn honest(baseline: u64, at: i64, score: f32) -> Observation {
        let mut scores = NONE;
        scores[super::OURS] = score;
        Observation {
            baseline: BaselineId(baseline),
            at,
            case: None,
            scores,
            log_odds: f64::from(score),
            p_value: 1.0,
            verdict: Verdict::Allow,
            incident: None,
            holder: 1,
            token_type: TokenType::Access,
            device: Device::Desktop,
        }
    }

    /// A thief's use of a baseline.
    pub(super) fn theft(baseline: u64, at: i64, score: f32, case: u32) -> Observation {
        Observation { case: Some((case, true)), ..honest(baseline, at, score) }
    }
}
