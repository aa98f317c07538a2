//! Memory that learning writes to, and the weight with which it learns an event.

use std::cell::OnceCell;

use super::lesson::Lesson;
use super::observation::Observation;
use crate::math::sigma;
use crate::memory::{Baseline, Bursts, Cohorts, Fleets, Others, Population, Review, Templates, Tenants};

/// Minimum weight of an event (`docs/decisions/0012-learning-floor.md`). A holder that continues and is neither revoked
/// nor confirmed is assumed to be the owner, so that its alerts end. A place becomes known after about 17 visits, each
/// in another hour.
const OWNER_MIN: f64 = 0.03;

/// Visits of a baseline after which others learn from it what is new to an owner.
const SETTLED_VISITS: u32 = 3;

/// Weight with which an event is learnt: probability that it was the owner's.
pub(crate) fn owner(log_odds: f64) -> f64 {
    sigma(-log_odds).max(OWNER_MIN)
}

/// Probability that an event was the owner's: for counts, and for values that become known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Weights {
    pub(crate) counted: f64,
    pub(crate) known: f64,
}

impl Weights {
    /// `seen_in_earlier_hour`: the holder has an event in an earlier hour.
    fn of(log_odds: f64, seen_in_earlier_hour: bool) -> Self {
        let sure = sigma(-log_odds);
        let counted = sure.max(OWNER_MIN);
        Self { counted, known: if seen_in_earlier_hour { counted } else { sure } }
    }
}

/// One event that is learnt, and the memory that stores it.
pub(crate) struct Teaching<'a> {
    pub(crate) observation: &'a Observation<'a>,
    pub(crate) lesson: &'a Lesson,
    pub(crate) baseline: &'a mut Baseline,
    /// The cohorts of the event's tenant; `None` if the tenant has no seat.
    pub(crate) cohorts: Option<&'a mut Cohorts>,
    pub(crate) population: &'a mut Population,
    pub(crate) tenants: &'a mut Tenants,
    pub(crate) templates: &'a mut Templates,
    pub(crate) fleets: &'a mut Fleets,
    pub(crate) bursts: &'a mut Bursts,
    weights: OnceCell<Weights>,
}

impl<'a> Teaching<'a> {
    pub(crate) fn new(
        observation: &'a Observation<'a>,
        lesson: &'a Lesson,
        baseline: &'a mut Baseline,
        others: &'a mut Others,
    ) -> Self {
        let Others { tenants, population, cohorts, fleets, bursts, templates } = others;
        let cohorts = cohorts.of_mut(observation.tenant.seat);
        let weights = OnceCell::new();
        Self { observation, lesson, baseline, cohorts, population, tenants, templates, fleets, bursts, weights }
    }

    /// Computed once, and only if a detector needs it, because most events are repeats. Events of a holder whom a person
    /// has reported as a thief are not learnt.
    pub(crate) fn weights(&self) -> Weights {
        *self.weights.get_or_init(|| match self.lesson.holder.review {
            Review::Thief => Weights { counted: 0.0, known: 0.0 },
            Review::Owner | Review::Unknown => Weights::of(self.lesson.log_odds, self.lesson.seen_in_earlier_hour),
        })
    }

    /// Whether the baseline has a history from which its cohort and others learn what is new.
    pub(crate) const fn is_settled(&self) -> bool {
        self.baseline.visits > SETTLED_VISITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimum_weight_applies_after_an_hour() {
        // Log-odds of 10: e^−10 for the owner.
        assert_eq!(Weights::of(10.0, true), Weights { counted: OWNER_MIN, known: OWNER_MIN });
        assert!(Weights::of(10.0, false).known < 1e-4, "many clients within one hour");
        let Weights { counted, known } = Weights::of(-7.0, false);
        assert!((counted - known).abs() < 1e-12 && known > 0.99, "an event of the owner");
    }
}
