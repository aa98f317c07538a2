//! What the detectors read to score one event.

use super::lesson::Lesson;
use super::observation::Observation;
use crate::memory::{Baseline, Cohorts, Feature, Holder, Kind, Others, User, Visit};

const DAY_MS: f64 = 86_400_000.0;
/// For so long the place and the client of a holder are news, and again after so long an absence. A holder who has gone on
/// for longer, and whom nobody has reported or confirmed, is less and less likely to be a thief. Days.
const NOVELTY_DAYS: f64 = 7.0;

/// One event, and the memory that it is compared with.
pub(crate) struct Case<'a> {
    pub observation: &'a Observation<'a>,
    pub baseline: &'a Baseline,
    /// The event's user; `None` if a visit goes on.
    pub user: Option<&'a User>,
    /// The visit before the event; `None` if the event begins one.
    pub visit: Option<&'a Visit>,
    pub others: &'a Others,
    /// The kind of token and device with which the baseline began: a thief does not choose with whom they are compared.
    pub kind: Kind,
    /// Log-odds of theft before looking.
    pub prior_log_odds: f64,
    /// Neither the token nor its user has a past: there is nothing to compare with.
    pub blank: bool,
}

impl Case<'_> {
    /// The cohorts of the event's tenant.
    pub(crate) fn cohorts(&self) -> &Cohorts {
        self.others.cohorts.of(self.observation.tenant.seat)
    }

    /// Whether the event's place among those of its baseline is known.
    pub(crate) const fn is_in_order(&self, lesson: &Lesson) -> bool {
        self.observation.timed && !lesson.late
    }

    /// Days since the holder's last event.
    pub(crate) fn days_away(&self, lesson: &Lesson) -> f64 {
        (self.observation.sighting.at - lesson.holder.last_at).max(0) as f64 / DAY_MS
    }

    /// How much of the evidence of a new network or client family counts. Only what makes this a holder of its own is
    /// old news; what is new within the owner's network, or program, is not.
    pub(crate) fn novelty_weight(&self, lesson: &Lesson, feature: Feature, key: u32) -> f64 {
        if self.baseline.seen.knows(feature, key) || self.days_away(lesson) > NOVELTY_DAYS {
            return 1.0;
        }
        NOVELTY_DAYS / lesson.holder.age_days(self.observation.sighting.at).max(NOVELTY_DAYS)
    }

    /// Whether the place became known by another holder than this one. A returning thief has a known address, just as an
    /// owner who has moved.
    pub(crate) fn credits_place(&self, lesson: &Lesson) -> bool {
        !lesson.holder_is_new(self.observation.sighting.at) || lesson.holder.confirmed
    }

    /// The same of the client.
    pub(crate) fn credits_client(&self, lesson: &Lesson) -> bool {
        let holder = &lesson.holder;
        let same_client = |other: &Holder| other.family == holder.family && other.born < holder.born;
        self.credits_place(lesson) || lesson.others(self.baseline).any(|(_, other)| same_client(other))
    }
}
