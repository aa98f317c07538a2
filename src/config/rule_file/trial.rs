//! Running the cases of a rule file: decoded, placed and judged as if they had come from a producer.

use super::case::{Case, CaseEvent, Expect};
use super::{LoadedRules, RuleCases};
use crate::engine::{self, State, Step};
use crate::enrich::Enricher;
use crate::format::Format;
use crate::rule::RuleSet;
use crate::token::TokenHasher;
use crate::verdict::{Outcome, RuleId};
use crate::wire::{Decoded, Decoder};

/// How a case went.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The rule did as the case expects.
    pub passed: bool,
    /// The question's event with the rule's largest share; `None` where the rule found nothing worth a word.
    pub highest: Option<Sighted>,
    /// An event of the case that is none, and why: then nothing was judged.
    pub mistake: Option<(usize, String)>,
}

/// What a rule said of one event.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighted {
    /// Line of the entry that the event was written out from.
    pub line: usize,
    /// The rule's part of the log-odds, nats.
    pub share: f64,
    /// The whole log-odds that somebody else holds the token, nats.
    pub log_odds: f64,
    pub fired: bool,
    pub reason: String,
}

/// Cases hold no secrets, so that any key serves.
const KEY_OF_CASES: &[u8] = b"tokenwarden, cases of rules";

/// Runs every case of one rule file under all the rules of `loaded`, each from an empty memory, in the order of the
/// file. `settings` are what the installation decides about judgement.
#[must_use]
pub fn run<'c>(loaded: &LoadedRules, cases: &'c RuleCases, settings: &engine::Settings) -> Vec<(&'c Case, Trial)> {
    let mut enricher = Enricher::with_lookup(Box::new((*cases.places).clone()));
    let mut judge = |case: &Case| {
        let with_policies = (!case.policies.is_empty()).then(|| loaded.rules.with_policies(cases.rule, &case.policies));
        let mut stage = Stage {
            decoder: Decoder::new(Format::Native, TokenHasher::new(KEY_OF_CASES)),
            enricher: &mut enricher,
            rules: with_policies.as_ref().unwrap_or(&loaded.rules),
            // The operator writes the cases.
            state: State::new(engine::Settings { confirmed: true, ..settings.clone() }),
        };
        stage.play(cases.rule, case)
    };
    cases.cases.iter().map(|case| (case, judge(case))).collect()
}

/// Where one case is played.
struct Stage<'s> {
    decoder: Decoder,
    enricher: &'s mut Enricher,
    rules: &'s RuleSet,
    state: State,
}

impl Stage<'_> {
    fn play(&mut self, rule: RuleId, case: &Case) -> Trial {
        let mut highest: Option<Sighted> = None;
        let mut fired = false;
        let question_from = case.history.len();
        for (at, event) in case.history.iter().chain(&case.events).enumerate() {
            let outcome = match self.judge(event) {
                Ok(outcome) => outcome,
                Err(reason) => return Trial { passed: false, highest, mistake: Some((event.line, reason)) },
            };
            let said = outcome.as_ref().and_then(|outcome| sighted(rule, event.line, outcome));
            let Some(said) = said.filter(|_| at >= question_from) else { continue };
            fired |= said.fired;
            if highest.as_ref().is_none_or(|before| (said.fired, said.share) > (before.fired, before.share)) {
                highest = Some(said);
            }
        }
        Trial { passed: fired == (case.expect == Expect::Fires), highest, mistake: None }
    }

    /// `None` for an event that was delivered before.
    fn judge(&mut self, event: &CaseEvent) -> Result<Option<Outcome>, String> {
        let Self { decoder, enricher, rules, state } = self;
        let mut judged = Err("the case's event holds no event".to_owned());
        decoder.decode(event.json.as_bytes(), &mut |decoded| {
            judged = match decoded {
                Ok(Decoded::Event(event)) => Ok(match engine::step(state, rules, &enricher.enrich(event)) {
                    Step::Judged(outcome) => Some(outcome),
                    Step::Duplicate => None,
                }),
                Ok(Decoded::Skipped(reason)) => Err(reason.to_owned()),
                Err(error) => Err(error.to_string()),
            };
        });
        judged
    }
}

fn sighted(rule: RuleId, line: usize, outcome: &Outcome) -> Option<Sighted> {
    let of_rule = outcome.signals.iter().filter(|signal| signal.rule == rule);
    // Besides its share of the log-odds a rule may have policies to speak for.
    let signal = of_rule.max_by_key(|signal| signal.fired)?;
    Some(Sighted {
        line,
        share: signal.share,
        log_odds: outcome.log_odds,
        fired: signal.fired,
        reason: signal.reason.clone(),
    })
}
