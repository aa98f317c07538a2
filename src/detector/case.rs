//! Input of the detectors for one event.

use super::lesson::Lesson;
use super::observation::Observation;
use crate::memory::{Baseline, Cohorts, Feature, Holder, Kind, Others, Review, User, Visit};
use crate::millis::DAY_MS;

/// Age of a holder up to which evidence of a new network or client counts in full, days. It counts in full again after
/// an absence of this length. An older holder that is neither reported nor confirmed is less likely to be a thief.
const NOVELTY_DAYS: f64 = 7.0;

/// One event, and the memory with which it is compared.
pub(crate) struct Case<'a> {
    pub(crate) observation: &'a Observation<'a>,
    pub(crate) baseline: &'a Baseline,
    /// The user of the event. `None` if the event continues a visit.
    pub(crate) user: Option<&'a User>,
    /// The visit before the event. `None` if the event begins one.
    pub(crate) visit: Option<&'a Visit>,
    pub(crate) others: &'a Others,
    /// The cohorts of the event's tenant.
    pub(crate) cohorts: &'a Cohorts,
    /// Token type and device class with which the baseline began, so that a thief does not choose the cohort.
    pub(crate) kind: Kind,
    /// Prior log-odds of theft.
    pub(crate) prior_log_odds: f64,
    /// Neither the token nor its user has a history, so there is nothing to compare with.
    pub(crate) blank: bool,
}

impl Case<'_> {
    /// Whether the event's position in the sequence of its baseline is known.
    pub(crate) const fn is_in_order(&self, lesson: &Lesson) -> bool {
        self.observation.timed && !lesson.late
    }

    /// Days since the holder's last event.
    pub(crate) fn days_away(&self, lesson: &Lesson) -> f64 {
        (self.observation.sighting.at - lesson.holder.last_at).max(0) as f64 / DAY_MS as f64
    }

    /// Weight of the evidence that a network or client family is new: `7/age` for a holder older than 7 days. Evidence
    /// of a new address or version within a known network or family keeps the weight 1.
    pub(crate) fn novelty_weight(&self, lesson: &Lesson, feature: Feature, key: u32) -> f64 {
        if self.baseline.seen.knows(feature, key) || self.days_away(lesson) > NOVELTY_DAYS {
            return 1.0;
        }
        NOVELTY_DAYS / lesson.holder.age_days(self.observation.sighting.at).max(NOVELTY_DAYS)
    }

    /// Whether a known place is evidence for the owner. It is none for a new holder that is not confirmed: the place
    /// became known by that holder, and a returning thief also has a known address. It is none for a confirmed thief.
    pub(crate) fn credits_place(&self, lesson: &Lesson) -> bool {
        match lesson.holder.review {
            Review::Owner => true,
            Review::Thief => false,
            Review::Unknown => !lesson.holder_is_new(self.observation.sighting.at),
        }
    }

    /// Whether a known client is evidence for the owner. For a new holder, an older holder must have the same client.
    pub(crate) fn credits_client(&self, lesson: &Lesson) -> bool {
        let holder = &lesson.holder;
        let same_client = |other: &Holder| other.family == holder.family && other.born < holder.born;
        self.credits_place(lesson) || lesson.others(self.baseline).any(|(_, other)| same_client(other))
    }
}
