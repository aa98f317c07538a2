//! Baseline and time of an event.

use crate::enrichment::Keys;
use crate::memory::baselines::BaselineIndex;
use crate::memory::{Baseline, Memory};

/// Baseline and time of an event.
#[derive(Clone, Copy)]
pub(super) struct Occurrence {
    /// Key and index of the baseline; `None`: it does not exist yet.
    pub(crate) baseline: u64,
    pub(crate) index: Option<BaselineIndex>,
    /// Fields of the baseline before the event.
    pub(crate) before: Option<Before>,
    /// The event time if it is accepted (`timed`), else the stream time; milliseconds since the epoch.
    pub(crate) at: i64,
    pub(crate) timed: bool,
    pub(crate) is_attempt: bool,
}

/// Fields of the baseline that a step needs outside scoring. They are read together.
#[derive(Clone, Copy)]
pub(super) struct Before {
    pub(crate) last_at: i64,
    pub(crate) visits: u32,
    pub(crate) token: u32,
}

impl Before {
    pub(super) const fn of(baseline: &Baseline) -> Self {
        Self { last_at: baseline.last_at, visits: baseline.visits, token: baseline.token }
    }
}

/// Key of the family; else of the family or chain of the token; else of the client, or the token.
pub(super) fn baseline_key(keys: &Keys, memory: &Memory) -> u64 {
    keys.family.unwrap_or_else(|| memory.lineages.get(keys.token).copied().unwrap_or(keys.baseline))
}
