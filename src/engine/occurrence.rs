//! Where and when an event counts.

use crate::enrichment::Keys;
use crate::memory::baselines::Place;
use crate::memory::{Baseline, Memory};

/// Where and when an event counts: its baseline and its time.
#[derive(Clone, Copy)]
pub(super) struct Occurrence {
    /// Key of the baseline, and where it is; `None`: there is none yet.
    pub baseline: u64,
    pub place: Option<Place>,
    /// Of the baseline, as it was before the event.
    pub before: Option<Before>,
    /// The event's own time where that is believed (`timed`), else the stream's; milliseconds since the epoch.
    pub at: i64,
    pub timed: bool,
    pub is_attempt: bool,
}

/// What a step needs of a baseline besides its score: read at once.
#[derive(Clone, Copy)]
pub(super) struct Before {
    pub last_at: i64,
    pub visits: u32,
    pub token: u32,
}

impl Before {
    pub(super) const fn of(baseline: &Baseline) -> Self {
        Self { last_at: baseline.last_at, visits: baseline.visits, token: baseline.token }
    }
}

/// Key of the baseline: the family's; if the event names none, that of the family or chain of tokens in which the token is
/// known; else that of the client whose tokens are nobody else's, or the token's own.
pub(super) fn baseline_key(keys: &Keys, memory: &Memory) -> u64 {
    keys.family.unwrap_or_else(|| memory.lineages.get(keys.token).copied().unwrap_or(keys.baseline))
}
