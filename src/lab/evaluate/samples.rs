//! Events and observations for tests.

use super::observation::{NONE, OURS, Observation};
use crate::enrichment::Device;
use crate::event::{BaselineId, Event, Timestamp, TokenType};
use crate::verdict::Verdict;

/// An event with only an id and a time.
pub(crate) fn event(id: &str, at: i64) -> Event<'static> {
    Event {
        event_id: id.to_owned().into(),
        timestamp: Timestamp::from_millis(at).expect("in range"),
        token_type: TokenType::Access,
        ..Event::default()
    }
}

/// Ordinary legitimate use of a baseline.
pub(crate) fn honest(baseline: u64, at: i64, score: f32) -> Observation {
    let mut scores = NONE;
    scores[OURS] = score;
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
pub(crate) fn theft(baseline: u64, at: i64, score: f32, case: u32) -> Observation {
    Observation { case: Some((case, true)), ..honest(baseline, at, score) }
}
