//! One scored event with its label, and the methods that score it.

use super::labels::CaseNumber;
use super::peer;
use crate::enrichment::Device;
use crate::event::{BaselineId, TokenType};
use crate::verdict::{IncidentId, Verdict};

/// Number of methods that score events: tokenwarden and the comparison rules.
pub const DETECTORS: usize = 1 + peer::COUNT;
/// Index of tokenwarden among the methods.
pub const OURS: usize = 0;

/// One score per method, higher is more suspicious: [`OURS`] first, then the comparison rules.
pub type Scores = [f32; DETECTORS];

/// Below every score: there was no event, or the method did not run.
pub const NONE: Scores = [f32::NEG_INFINITY; DETECTORS];

/// One scored event with its label.
#[derive(Clone, Debug)]
pub struct Observation {
    pub baseline: BaselineId,
    /// Event time in milliseconds since the epoch.
    pub at: i64,
    /// The case of the event, and whether it is a theft.
    pub case: Option<(CaseNumber, bool)>,
    pub scores: Scores,
    /// Log-odds of theft, in nats.
    pub log_odds: f64,
    pub p_value: f64,
    pub verdict: Verdict,
    pub incident: Option<IncidentId>,
    /// Key of address and user agent, to distinguish visits.
    pub holder: u64,
    pub token_type: TokenType,
    pub device: Device,
}

impl Observation {
    /// Whether the event is a thief's.
    #[must_use]
    pub fn is_theft(&self) -> bool {
        self.case.is_some_and(|(_, theft)| theft)
    }
}
