//! What the detectors write to when an event is learnt: a thief teaches little.

use std::cell::OnceCell;

use super::lesson::Lesson;
use super::observation::Observation;
use crate::math::sigma;
use crate::memory::{Baseline, Cohorts, Others};

/// The least weight of a sighting: what goes on, alarms and all, and is neither taken away nor confirmed is the owner's,
/// and must not alarm for ever. A place is known after some seventeen visits of a holder, in as many hours of the clock:
/// a crowd of clients in one minute has gone on for no longer than one of them.
const OWNER_MIN: f64 = 0.03;

/// Probability by which a sighting is learnt as the owner's.
pub(crate) fn owner(log_odds: f64) -> f64 {
    Weights::of(log_odds, false).counted
}

/// Probability that an event was the owner's: for what is counted in full numbers, and for what then is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Weights {
    pub counted: f64,
    pub known: f64,
}

impl Weights {
    /// `seen_in_earlier_hour`: the holder's last event is of an earlier hour.
    fn of(log_odds: f64, seen_in_earlier_hour: bool) -> Self {
        let sure = sigma(-log_odds);
        let counted = sure.max(OWNER_MIN);
        Self { counted, known: if seen_in_earlier_hour { counted } else { sure } }
    }
}

/// One event that is learnt, and the memory that it teaches.
pub(crate) struct Teaching<'a> {
    pub observation: &'a Observation<'a>,
    pub lesson: &'a Lesson,
    pub baseline: &'a mut Baseline,
    pub others: &'a mut Others,
    weights: OnceCell<Weights>,
}

impl<'a> Teaching<'a> {
    pub(crate) const fn new(
        observation: &'a Observation<'a>,
        lesson: &'a Lesson,
        baseline: &'a mut Baseline,
        others: &'a mut Others,
    ) -> Self {
        Self { observation, lesson, baseline, others, weights: OnceCell::new() }
    }

    /// Worked out once, and only where it is needed: most events are repeats, which show nothing to be weighed.
    pub(crate) fn weights(&self) -> Weights {
        *self.weights.get_or_init(|| Weights::of(self.lesson.log_odds, self.lesson.seen_in_earlier_hour))
    }

    /// The cohorts of the event's tenant; `None` if the tenant has no seat.
    pub(crate) fn cohorts(&mut self) -> Option<&mut Cohorts> {
        self.others.cohorts.of_mut(self.observation.tenant.seat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_weight_makes_known_only_who_has_gone_on() {
        // Log-odds of 10: e^−10 for the owner.
        assert_eq!(Weights::of(10.0, true), Weights { counted: OWNER_MIN, known: OWNER_MIN });
        assert!(Weights::of(10.0, false).known < 1e-4, "a crowd of clients in one minute");
        let Weights { counted, known } = Weights::of(-7.0, false);
        assert!((counted - known).abs() < 1e-12 && known > 0.99, "an owner is learnt at once");
    }
}
