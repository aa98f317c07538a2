//! `sibling`: another suspicious holder of the same baseline within a day. Scored at every event. The rule of `switch`
//! reports it.

pub(crate) mod formula;

use super::{Case, Detector, DetectorId, Lesson};
use crate::memory::level::NetLevel;
use crate::millis::DAY_MS;

pub(crate) struct Sibling;

impl Detector for Sibling {
    const ID: DetectorId = DetectorId::Sibling;
    const OF_IDENTITY: bool = true;

    /// Takes the most suspicious other holder of the last 24 hours that is at least as old and has another network.
    /// Several clients of one network are usually programs of one user.
    #[inline]
    fn score_event(case: &Case<'_>, lesson: &mut Lesson) {
        let own = &lesson.holder;
        if case.blank || own.level < NetLevel::KnownNetwork {
            return;
        }
        let at = case.observation.sighting.at;
        let others = lesson.others(case.baseline).filter(|(_, other)| {
            other.network != own.network && other.born <= own.born && (at - lesson.last_at_of(other)).abs() < DAY_MS
        });
        let evidence = others.map(|(_, other)| formula::evidence(other.log_odds.get(), case.prior_log_odds));
        lesson.sibling = evidence.fold(0.0, f64::max);
    }

    #[inline]
    fn evidence(lesson: &Lesson) -> f64 {
        lesson.sibling
    }
}
