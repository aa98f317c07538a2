//! One event with the numbers that the detectors read.

use super::lifecycle::formula::Expiry;
use crate::enrichment::EnrichedEvent;
use crate::memory::baselines::{BaselineIndex, Seed};
use crate::memory::templates::Resolved;
use crate::memory::{Ended, Sighting, Tenant};
use crate::millis::DAY_MS;

/// How an event is scored and learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A use of the token, or another accepted event: scored and learnt.
    Use,
    /// The credential was not accepted: scored, and not learnt.
    Attempt,
    /// The time is not believed: scored by detectors that need no time. Only its refresh token is learnt.
    Untimed,
}

/// One event, and its position in the memory.
pub(crate) struct Observation<'a> {
    pub(crate) enriched: &'a EnrichedEvent<'a>,
    /// Numbers of the event, at its own time if that is believed, otherwise at the stream time.
    pub(crate) sighting: &'a Sighting,
    /// The call, with names in its path replaced.
    pub(crate) route: Resolved,
    /// Tenant of the sighting.
    pub(crate) tenant: Tenant,
    pub(crate) standing: Standing,
    /// The sighting's time is the event's own.
    pub(crate) timed: bool,
    /// Stream time, and the latest time among the last subjects. Milliseconds since the epoch.
    pub(crate) now: i64,
    pub(crate) newest: i64,
    /// Seed of the first visit, if the token has no baseline yet.
    pub(crate) seed: Option<Seed>,
    /// Keys of the baseline and of the user.
    pub(crate) baseline: u64,
    pub(crate) user: u64,
    /// Position of the baseline. `None` if the token has none yet.
    pub(crate) index: Option<BaselineIndex>,
    /// When the token, family or session ended.
    pub(crate) ended: Ended,
    pub(crate) expiry: Option<Expiry>,
    /// For an event after the token's expiry: lead of its clock over other clocks, milliseconds.
    pub(crate) ahead: i64,
}

impl Observation<'_> {
    /// Days since the epoch, at most the day of the stream time: a clock that is ahead does not begin a day.
    pub(crate) fn day(&self) -> u32 {
        (self.sighting.at.min(self.now) / DAY_MS) as u32
    }
}
