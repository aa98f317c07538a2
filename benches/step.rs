//! Scoring alone, with warm state: cost of `engine::step` per event, absolute and relative to decoding the same events
//! in turn, and memory per baseline. Run with `cargo bench --bench step`.
//!
//! Ten thousand baselines are warmed up for four days; then five more days are timed. An event is scored soon after it
//! was decoded and enriched, as in the pipeline, so the event is in a cache and its baseline may not be.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a bench measures time")]

#[path = "wall/bare.rs"]
mod bare;
mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use support::geo;
use tokenwarden::engine::{self, State, Step};
use tokenwarden::enrich::Enricher;
use tokenwarden::event::Event;
use tokenwarden::lab::simulate::{Settings, Simulation};
use tokenwarden::rule::RuleSet;
use tokenwarden::token::TokenHasher;
use tokenwarden::verdict::Verdict;
use tokenwarden::wire::{Decoded, Decoder, Format};

const WARMING_DAYS: u32 = 4;
const DAYS: u32 = 9;
/// Number of events that are decoded and enriched before they are scored and timed.
const BATCH: usize = engine::GROUP;

fn main() {
    // The first day is a Monday, so the timed days are Friday to Tuesday and include the weekend.
    let settings = Settings {
        days: DAYS,
        people: 4_400,
        services: 400,
        build_jobs: 300,
        plugin_users: 150,
        ..Settings::fortnight(1_790_000_000_000)
    };
    let mut simulation = Simulation::new(settings);
    let mut enricher = Enricher::new(&geo());
    let mut state = State::new(engine::Settings::default());
    let (mut each, mut shares) = (Vec::new(), Vec::new());
    for day in 1..=DAYS {
        let mut lines = Vec::new();
        simulation.next_day(&mut lines);
        let timed = measure(&mut state, &mut enricher, &lines);
        println!("step: day {day}: {timed}");
        if day > WARMING_DAYS {
            each.push(timed.each());
            shares.push(timed.took.as_secs_f64() / bare::decode(&lines).as_secs_f64());
        }
    }
    let (bytes, baselines) = state.memory();
    let [each, share] = [each, shares].map(|mut days| {
        days.sort_by(f64::total_cmp);
        days[days.len() / 2]
    });
    println!(
        "step: {each:.0} ns an event, {share:.2} times bare decode (medians of {} days), {baselines} baselines of {} bytes on \
         average",
        DAYS - WARMING_DAYS,
        bytes / baselines.max(1)
    );
}

/// Time and results of scoring some events.
#[derive(Default)]
struct Timed {
    took: Duration,
    events: usize,
    told: usize,
    alarms: usize,
}

impl Timed {
    fn each(&self) -> f64 {
        self.took.as_nanos() as f64 / self.events as f64
    }
}

impl std::fmt::Display for Timed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { events, told, alarms, .. } = self;
        write!(f, "{:.0} ns an event; {events} events, {told} with signals, {alarms} alarms", self.each())
    }
}

fn measure(state: &mut State, enricher: &mut Enricher, lines: &[u8]) -> Timed {
    let rules = RuleSet::builtin();
    let mut decoder = Decoder::new(Format::Native, TokenHasher::new(b"a key for the bench"));
    let mut timed = Timed::default();
    let mut batch = Vec::with_capacity(BATCH);
    let mut lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).peekable();
    while lines.peek().is_some() {
        batch.extend(lines.by_ref().take(BATCH).map(|line| enricher.enrich(decoded(&mut decoder, line))));
        let began = Instant::now();
        for group in batch.chunks(engine::GROUP) {
            engine::look_ahead(group.iter().map(|event| (&*state, event)));
            for event in group {
                if let Step::Scored(outcome) = black_box(&engine::step(state, &rules, event)) {
                    timed.told += usize::from(!outcome.signals.is_empty());
                    timed.alarms += usize::from(outcome.verdict >= Verdict::Alert);
                }
            }
        }
        timed.took += began.elapsed();
        timed.events += batch.len();
        batch.clear();
    }
    timed
}

fn decoded<'a>(decoder: &mut Decoder, line: &'a [u8]) -> Event<'a> {
    let mut found = None;
    decoder.decode(line, &mut |decoded| {
        let Ok(Decoded::Event(event)) = decoded else { unreachable!("all generated events are valid") };
        found = Some(event);
    });
    found.expect("each line is an event")
}
