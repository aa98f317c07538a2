//! Tests of the detector that exists only for tests: a new detector needs its folder and a line in `mod.rs` and `table.rs`.

use crate::detector::DetectorId;
use crate::detector::toy::{ENDPOINT, EVIDENCE};
use crate::engine::{self, Settings, State, Step};
use crate::enrich::{Enricher, GeoSettings};
use crate::millis::DAY_MS;
use crate::rule::RuleSet;
use crate::token::TokenHasher;
use crate::verdict::{Outcome, RuleId};
use crate::wire::{Decoded, Decoder, Format};

/// The last of five daily visits, which calls [`ENDPOINT`], scored without some detectors; and an event after it.
fn scored(without: Vec<DetectorId>) -> [Outcome; 2] {
    let mut state = State::new(Settings { without, ..Settings::default() });
    let (mut enricher, rules) = (Enricher::new(&GeoSettings::default()).trust_event_geo(true), RuleSet::builtin());
    let mut decoder = Decoder::new(Format::Native, TokenHasher::new(b"a key for tests"));
    let mut outcomes = Vec::new();
    for (number, endpoint) in ["/v1/items"; 4].into_iter().chain([ENDPOINT, "/v1/items"]).enumerate() {
        let at = 1_790_000_000_000 + number as i64 * DAY_MS;
        let line = format!(
            r#"{{"event_id":"e{number}","timestamp":{at},"kind":"use","token_id":"t","family_id":"f","user_id":"u","ip_address":"198.51.100.1","user_agent":"curl/8.5","endpoint":"{endpoint}","status":200}}"#
        );
        decoder.decode(line.as_bytes(), &mut |decoded| {
            let Ok(Decoded::Event(event)) = decoded else { panic!("no event: {line}") };
            let Step::Scored(outcome) = engine::step(&mut state, &rules, &enricher.enrich(event)) else {
                panic!("the event is new: {line}")
            };
            outcomes.push(outcome);
        });
    }
    [outcomes.swap_remove(4), outcomes.swap_remove(4)]
}

#[test]
fn new_detector_is_scored_decayed_and_explained() {
    let ([with, later], [without, later_without]) = (scored(Vec::new()), scored(vec![DetectorId::Toy]));
    let share = |with: &Outcome, without: &Outcome| with.log_odds - without.log_odds;
    assert!((share(&with, &without) - EVIDENCE).abs() < 1e-9, "its share is in the sum");
    let signal = |outcome: &Outcome| outcome.signals.iter().find(|signal| signal.rule == RuleId::TokenAge).cloned();
    assert!(
        signal(&with).is_some_and(|signal| (signal.share - EVIDENCE).abs() < 1e-9 && signal.observed == ENDPOINT),
        "and explained"
    );
    assert!(signal(&without).is_none());
    assert!((share(&later, &later_without) - EVIDENCE / 2.0).abs() < 0.05, "it fades by half in a day");
}
