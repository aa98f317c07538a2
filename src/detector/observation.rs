//! One event as the detectors see it.

use super::lifecycle::formula::Expiry;
use crate::enrichment::EnrichedEvent;
use crate::memory::baselines::{Place, Seed};
use crate::memory::{Ended, Sighting, Tenant};

const DAY_MS: i64 = 86_400_000;

/// What a sighting counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A use of the token, or what counts like one: it is learnt.
    Use,
    /// Its credential was not accepted: it is scored and leaves no trace.
    Attempt,
    /// Its time is not believed: it is scored by what needs no time, and teaches nothing but its refresh token.
    Untimed,
}

/// One sighting, in its numbers.
pub(crate) struct Observation<'a> {
    pub enriched: &'a EnrichedEvent<'a>,
    /// At the event's own time where that is believed, else at the stream's.
    pub sighting: &'a Sighting,
    /// The sighting's.
    pub tenant: Tenant,
    pub standing: Standing,
    /// The sighting's time is the event's own.
    pub timed: bool,
    /// The stream's time, and the latest of those that spoke last; milliseconds since the epoch.
    pub now: i64,
    pub newest: i64,
    /// Of the first visit, where the token has no baseline yet.
    pub seed: Option<Seed>,
    /// Keys of its baseline and user.
    pub baseline: u64,
    pub user: u64,
    /// Where the baseline is; `None`: it has none yet.
    pub place: Option<Place>,
    /// When its token, family or session was ended.
    pub ended: Ended,
    pub expiry: Option<Expiry>,
    /// Of an event after its token's expiry: by how much its clock is ahead of others, milliseconds.
    pub ahead: i64,
}

impl Observation<'_> {
    /// Days since the epoch, for what is counted of many baselines together: a clock that is ahead begins no day.
    pub(crate) fn day(&self) -> u32 {
        (self.sighting.at.min(self.now) / DAY_MS) as u32
    }
}
