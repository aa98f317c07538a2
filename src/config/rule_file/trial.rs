//! Runs the test cases of a rule file. Their events are decoded, enriched and scored like those of a producer.

use super::case::{Case, CaseEvent, Expect};
use super::{LoadedRules, RuleCases};
use crate::engine::{self, State, Step};
use crate::enrich::Enricher;
use crate::feed::Feed;
use crate::rule::RuleSet;
use crate::token::TokenHasher;
use crate::verdict::{Outcome, RuleId};
use crate::wire::{Decoded, Decoder};

/// Result of a test case.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The rule fired or not, as the case expects.
    pub passed: bool,
    /// The signal of the rule with the largest share among `events`. `None` if the rule had no signal.
    pub(crate) highest: Option<Sighted>,
    /// Line of the first invalid event, and the reason. No later event was scored.
    pub mistake: Option<(usize, String)>,
}

/// Signal of the rule for one event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sighted {
    /// Line of the entry from which the event was expanded.
    pub(crate) line: usize,
    /// Share of the rule, nats.
    pub(crate) share: f64,
    /// Log-odds of the event, nats.
    pub(crate) log_odds: f64,
    pub(crate) fired: bool,
    pub(crate) reason: String,
}

/// Test cases contain no secrets, so the key may be public.
const KEY_OF_CASES: &[u8] = b"tokenwarden, cases of rules";

/// Runs all test cases of one rule file in order, with all rules of `loaded`. Each case starts with an empty state.
/// `settings` are those of the installation.
pub fn run<'c>(loaded: &LoadedRules, cases: &'c RuleCases, settings: &engine::Settings) -> Vec<(&'c Case, Trial)> {
    let mut enricher = Enricher::with_lookup(Box::new((*cases.places).clone()));
    let mut run = |case: &Case| {
        let with_policies = (!case.policies.is_empty()).then(|| loaded.rules.with_policies(cases.rule, &case.policies));
        let mut replay = Replay {
            decoder: Decoder::new(Feed { confirmed: true, ..Feed::default() }, TokenHasher::new(KEY_OF_CASES)),
            enricher: &mut enricher,
            rules: with_policies.as_ref().unwrap_or(&loaded.rules),
            // The operator writes the cases, so `confirmed` events are trusted.
            state: State::new(engine::Settings { confirmed: true, ..settings.clone() }),
        };
        replay.run(cases.rule, case)
    };
    cases.cases.iter().map(|case| (case, run(case))).collect()
}

/// State of one test case.
struct Replay<'s> {
    decoder: Decoder,
    enricher: &'s mut Enricher,
    rules: &'s RuleSet,
    state: State,
}

impl Replay<'_> {
    fn run(&mut self, rule: RuleId, case: &Case) -> Trial {
        let mut highest: Option<Sighted> = None;
        let mut fired = false;
        let events_from = case.history.len();
        for (at, event) in case.history.iter().chain(&case.events).enumerate() {
            let outcome = match self.score(event) {
                Ok(outcome) => outcome,
                Err(reason) => return Trial { passed: false, highest, mistake: Some((event.line, reason)) },
            };
            let signal = outcome.as_ref().and_then(|outcome| sighted(rule, event.line, outcome));
            let Some(signal) = signal.filter(|_| at >= events_from) else { continue };
            fired |= signal.fired;
            if highest.as_ref().is_none_or(|before| (signal.fired, signal.share) > (before.fired, before.share)) {
                highest = Some(signal);
            }
        }
        Trial { passed: fired == (case.expect == Expect::Fires), highest, mistake: None }
    }

    /// Scores an event. `None` for a duplicate; the error states why the event is invalid.
    fn score(&mut self, event: &CaseEvent) -> Result<Option<Outcome>, String> {
        let Self { decoder, enricher, rules, state } = self;
        let mut result = Err("the record contains no event".to_owned());
        decoder.decode(event.json.as_bytes(), &mut |decoded| {
            result = match decoded {
                Ok(Decoded::Event(event)) => Ok(match engine::step(state, rules, &enricher.enrich(event)) {
                    Step::Scored(outcome) => Some(outcome),
                    Step::Duplicate => None,
                }),
                Ok(Decoded::Skipped(reason)) => Err(reason.to_owned()),
                Err(error) => Err(error.to_string()),
            };
        });
        result
    }
}

fn sighted(rule: RuleId, line: usize, outcome: &Outcome) -> Option<Sighted> {
    let of_rule = outcome.signals.iter().filter(|signal| signal.rule == rule);
    // A rule may have signals of policies, too. One that fired comes first.
    let signal = of_rule.max_by_key(|signal| signal.fired)?;
    Some(Sighted {
        line,
        share: signal.share,
        log_odds: outcome.log_odds,
        fired: signal.fired,
        reason: signal.reason.clone(),
    })
}
