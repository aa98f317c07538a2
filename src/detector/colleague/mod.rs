//! `colleague`: reduction of evidence if an employee may be using the token of a machine by hand.

pub(crate) mod formula;

use super::{Detector, DetectorId, Lesson, Score, Setting};

pub(crate) struct Colleague;

impl Detector for Colleague {
    const ID: DetectorId = DetectorId::Colleague;

    fn evidence(_: &Lesson) -> f64 {
        0.0
    }

    /// Reduces the identity evidence that `fan` has not explained.
    fn adjust(score: &mut Score) {
        if score.setting == Setting::ByHand {
            let evidence = score.of_identity + score.together;
            score.shares[Self::ID] = formula::explained(evidence) - evidence;
        }
    }
}
