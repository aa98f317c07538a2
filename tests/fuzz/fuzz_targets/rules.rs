//! Any bytes as a rule file give rules or errors with positions; loaded rules can score an event.

#![no_main]

use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use tokenwarden::config::rule_file::{self, LoadedRules, trial};
use tokenwarden::engine::{self, State};
use tokenwarden::enrich::Enricher;
use tokenwarden::rule::RuleSet;
use tokenwarden::token::TokenHasher;
use tokenwarden::verdict::RuleId;
use tokenwarden::wire::{Decoded, Decoder, Format};

/// Rule files whose cases have more events than this are not run, to save time for other files.
const EVENTS_RUN_MAX: usize = 300;

/// An event on a Saturday night, from an unusual country.
const EVENT: &[u8] = br#"{"event_id":"e","timestamp":"2026-03-07T03:00:00Z","token_id":"t","token_type":"access",
    "tenant_id":"acme","app_id":"crm","ip_address":"198.51.100.9","user_agent":"curl/8.5.0","endpoint":"/v1/export",
    "issued_at":"2026-03-01T00:00:00Z","geo":{"country":"AU","asn":1221,"as_org":"Telstra"}}"#;

fuzz_target!(|input: &[u8]| {
    let file = file_of(input);
    let parsed = rule_file::parse(&file, input);
    assert_eq!(parsed, rule_file::parse(&file, input));
    match parsed {
        Ok((rule, cases)) => {
            let loaded = LoadedRules { rules: RuleSet::new(vec![rule]), cases: vec![cases], missing: Vec::new() };
            score_with(&loaded.rules);
            run_cases(&loaded);
        }
        Err(errors) => {
            let lines = input.iter().filter(|byte| **byte == b'\n').count() + 1;
            assert!(!errors.is_empty());
            for error in errors {
                assert_eq!(error.file, file);
                assert!((1..=lines).contains(&error.line), "{error}");
                assert!(!error.message.trim().is_empty() && !error.message.contains(char::is_control), "{error:?}");
            }
        }
    }
});

/// The required file name of the rule in `input`, so that the content is parsed.
fn file_of(input: &[u8]) -> PathBuf {
    let text = String::from_utf8_lossy(input);
    let id = text.lines().find_map(|line| RuleId::parse(line.strip_prefix("id = \"")?.strip_suffix('"')?));
    PathBuf::from(format!("{}.toml", id.unwrap_or(RuleId::NewCountry)))
}

fn score_with(rules: &RuleSet) {
    let mut state = State::new(engine::Settings::default());
    let mut enricher = Enricher::new(&tokenwarden::enrich::GeoSettings::default()).trust_event_geo(true);
    Decoder::new(Format::Native, TokenHasher::new(b"a key for fuzzing")).decode(EVENT, &mut |decoded| {
        let Ok(Decoded::Event(event)) = decoded else { panic!("{decoded:?}") };
        let engine::Step::Scored(outcome) = engine::step(&mut state, rules, &enricher.enrich(event)) else {
            panic!("no event before");
        };
        assert!(outcome.log_odds.is_finite());
        assert!(outcome.signals.iter().all(|signal| !signal.reason.is_empty()));
    });
}

fn run_cases(loaded: &LoadedRules) {
    for cases in &loaded.cases {
        let events = cases.cases.iter().map(|case| case.history.len() + case.events.len());
        if events.sum::<usize>() <= EVENTS_RUN_MAX {
            for (case, trial) in trial::run(loaded, cases, &engine::Settings::default()) {
                assert!(case.line > 0 && !case.events.is_empty());
                assert!(trial.mistake.is_none_or(|(line, reason)| line > 0 && !reason.is_empty()));
            }
        }
    }
}
