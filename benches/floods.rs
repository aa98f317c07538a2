//! Memory of a state in floods of events, by group of tables. `cargo bench --bench floods` uses two million events for each
//! flood and no limit of bytes; `cargo bench --bench floods -- 20000000 1024` uses the given number, and a limit in MiB.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a bench prints its result")]

#[path = "../tests/support/flood.rs"]
mod flood;

use std::time::{Duration, Instant};

use flood::Flood;
use tokenwarden::engine::{self, State};
use tokenwarden::enrich::{Enricher, GeoSettings};
use tokenwarden::rule::RuleSet;
use tokenwarden::token::TokenHasher;
use tokenwarden::wire::{Decoded, Decoder, Format};

const EVENTS: u64 = 2_000_000;

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let events = numbers.next().unwrap_or(EVENTS);
    let limit = numbers.next().map(|mib| (mib << 20) as usize);
    for flood in Flood::ALL {
        measure(flood, events, limit);
    }
}

fn measure(flood: Flood, events: u64, limit: Option<usize>) {
    let settings = engine::Settings { memory_bytes_max: limit, ..engine::Settings::default() };
    let (mut enricher, rules, mut state) =
        (Enricher::new(&GeoSettings::default()), RuleSet::builtin(), State::new(settings));
    let mut decoder = Decoder::new(Format::Native, TokenHasher::new(b"a key for the bench"));
    let (mut line, mut spent, mut longest) = (String::new(), Duration::ZERO, Duration::ZERO);
    for number in 0..events {
        line.clear();
        flood.write(number, events, &mut line);
        decoder.decode(line.as_bytes(), &mut |decoded| {
            let Ok(Decoded::Event(event)) = decoded else { unreachable!("the line is an event") };
            let event = enricher.enrich(event);
            let began = Instant::now();
            engine::step(&mut state, &rules, &event);
            let took = began.elapsed();
            spent += took;
            longest = longest.max(took);
        });
    }
    let tables = state.usage();
    let all: usize = tables.iter().map(|(_, usage)| usage.bytes).sum();
    println!(
        "floods: {flood:?}: {events} events, {} MiB of tables, {} bytes an event; {} ns a step, at most {} ms",
        all >> 20,
        all as u64 / events,
        spent.as_nanos() / u128::from(events),
        longest.as_millis()
    );
    for (name, usage) in tables.iter().filter(|(_, usage)| usage.bytes >> 20 > 0) {
        println!("floods:     {name}: {} MiB, {} evicted", usage.bytes >> 20, usage.evicted);
    }
}
