//! A minimal detector for tests, as an example. `pipeline/toy.rs` tests that it needs no changes outside its
//! folder, `mod.rs` and `table.rs`.

use super::words::{Description, Signals, Words};
use super::{Case, Detector, DetectorId, Lesson};
use crate::memory::Nats;
use crate::verdict::RuleId;

/// Evidence of a call of [`ENDPOINT`], nats.
pub(crate) const EVIDENCE: f64 = 3.0;
pub(crate) const ENDPOINT: &str = "/toy";

pub(crate) struct Toy;

impl Detector for Toy {
    const ID: DetectorId = DetectorId::Toy;

    fn score_event(case: &Case<'_>, lesson: &mut Lesson) {
        if case.observation.enriched.event.endpoint.as_deref() == Some(ENDPOINT) {
            lesson.holder.evidence[Self::ID] = Nats::new(EVIDENCE);
            lesson.changed = true;
        }
    }

    /// Uses the rule of another detector, because each rule has a file.
    fn explain(words: &Words<'_>, signals: &mut Signals<'_>) {
        signals.add(RuleId::TokenAge, words.score.shares[Self::ID], || Description {
            p_value: None,
            observed: ENDPOINT.to_owned(),
            expected: "other endpoints".to_owned(),
            reason: "called the toy".to_owned(),
        });
    }
}
