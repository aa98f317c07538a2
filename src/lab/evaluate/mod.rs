//! How good the judgement is, measured on labelled events that go the same way as all others.
//!
//! [`Measure`] stands where the rows of a store would: the [`pipeline`](crate::pipeline) hands it every judged event.
//! It keeps what each token-day and each case reached ([`ledger`]), from which a [`Report`] is made in the end. How to
//! read that: `docs/evaluation.md`.

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

/// Everything that scores: we, and the comparison rules after us.
pub const DETECTORS: usize = 1 + peer::COUNT;
/// Our own place among the detectors.
pub const OURS: usize = 0;

/// False revocations told one by one; the rest are only counted.
const FALSE_REVOCATIONS_TOLD_MAX: usize = 1_000;

/// Measures every event that it is given.
pub struct Measure {
    labels: Labels,
    peers: Vec<Box<dyn Peer>>,
    /// Milliseconds of event time that pass, from the first event, before anything is measured.
    warmup_ms: i64,
    first_at: Option<i64>,
    ledger: Ledger,
    false_revocations: Vec<FalseRevocation>,
    /// Of each theft the event with the highest log-odds.
    most_telling: HashMap<CaseNumber, ToldEvent>,
    events: usize,
}

/// An event that is worth looking at by itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ToldEvent {
    pub event_id: String,
    /// The family or token that the baseline belongs to.
    pub subject: String,
    pub log_odds: f64,
    /// Rule, share in nats and reason of each signal.
    pub signals: Vec<String>,
}

/// A token of which judgement was sure that it is stolen, and it was not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FalseRevocation {
    #[serde(flatten)]
    pub event: ToldEvent,
    /// The honest hard case that it is part of.
    pub scenario: Option<String>,
}

impl Measure {
    /// With `with_peers`, the comparison rules too. They and judgement learn during the first `warmup_days` of event
    /// time, and nothing is measured.
    #[must_use]
    pub fn new(labels: Labels, with_peers: bool, warmup_days: u32) -> Self {
        Self {
            labels,
            peers: if with_peers { peer::all().into() } else { Vec::new() },
            warmup_ms: i64::from(warmup_days) * 86_400_000,
            first_at: None,
            ledger: Ledger::default(),
            false_revocations: Vec::new(),
            most_telling: HashMap::new(),
            events: 0,
        }
    }

    /// The labels, with a count of those that matched an event.
    #[must_use]
    pub const fn labels(&self) -> &Labels {
        &self.labels
    }

    fn observe(&mut self, row: &EventRow<'_>) {
        let EventRow { event, outcome, .. } = row;
        let at = event.event.timestamp.millis();
        let mut scores: Scores = NONE;
        scores[OURS] = outcome.log_odds as f32;
        for (score, peer) in scores[OURS + 1..].iter_mut().zip(&mut self.peers) {
            *score = peer.score(event);
        }
        let first_at = *self.first_at.get_or_insert(at);
        // A label of an event in the warm-up counts as matched.
        let case = self.labels.of(&event.event, event.baseline_id());
        if at - first_at < self.warmup_ms {
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

/// Where an ordinary run would encode rows. What is measured stays until the report is made.
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

    /// A plain event with nothing but an id and a time.
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

    /// Plain honest use of a baseline.
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
