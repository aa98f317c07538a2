//! Complete processing of an event on one core, from a file's bytes to the stored row's bytes and the verdict line, as
//! a ratio to `serde_json` decoding the same bytes. Run with `cargo bench --bench pipeline`.
//!
//! The two are measured in turn because machines are noisy; the result is the median ratio. The parts are measured one
//! after another on all events. Their sum differs from the total, in which an event stays in the cache.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test that cannot go on says so"
)]

#[path = "wall/bare.rs"]
mod bare;
mod support;

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use support::{environment, geo};
use tokenwarden::checkpoint::Position;
use tokenwarden::engine::{self, State, Step};
use tokenwarden::enrich::Enricher;
use tokenwarden::lab::simulate::{Settings, Simulation};
use tokenwarden::pipeline::{Pipeline, VerdictOutput};
use tokenwarden::port::{self, EventRow, Rows as _};
use tokenwarden::rule::RuleSet;
use tokenwarden::source::file::FileSource;
use tokenwarden::store::{EpochRows, NullStore};
use tokenwarden::tally::Tally;
use tokenwarden::token::TokenHasher;
use tokenwarden::wire::{self, Decoded, Decoder, Format};
use tokenwarden::worker::{Spread, Worker};

const TURNS: usize = 7;
const KEY: &[u8] = b"a key for the bench";

fn main() {
    let events = fortnight();
    let lines = events.split(|byte| *byte == b'\n').count() - 1;
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&events).expect("the events are written");
    println!("{lines} events of {} bytes on average", events.len() / lines);
    let mut ratios = Vec::new();
    for _ in 0..TURNS {
        let bare = bare::decode(&events);
        let (whole, tally) = whole(file.path());
        assert_eq!(tally.dead_letters, 0, "all generated events are valid");
        let each = |took: Duration| took.as_nanos() as f64 / lines as f64;
        let ratio = bare.as_secs_f64() / whole.as_secs_f64();
        println!("bare decode {:.0} ns, file to verdict {:.0} ns an event: {ratio:.3} of it", each(bare), each(whole));
        ratios.push(ratio);
    }
    let mut parts: [(&str, Vec<f64>); 4] = ["decode", "enrich", "step", "encode"].map(|name| (name, Vec::new()));
    for _ in 0..TURNS {
        let bare = bare::decode(&events);
        for (part, took) in parts.iter_mut().zip(parts_of(&events)) {
            part.1.push(took.as_secs_f64() / bare.as_secs_f64());
        }
    }
    for (name, mut shares) in parts {
        shares.sort_by(f64::total_cmp);
        println!("{name} alone: {:.3} times bare decode (median of {TURNS})", shares[TURNS / 2]);
    }
    ratios.sort_by(f64::total_cmp);
    println!("pipeline: {:.3} of bare decode (median of {TURNS}; to be at least 0.25)", ratios[TURNS / 2]);
}

/// Time of decoding, enriching, scoring, and encoding of row and verdict, each alone.
fn parts_of(events: &[u8]) -> [Duration; 4] {
    let mut decoder = Decoder::new(Format::Native, TokenHasher::new(KEY));
    let mut enricher = Enricher::new(&geo());
    let (rules, mut state) = (RuleSet::builtin(), State::new(engine::Settings::default()));
    let (mut rows, mut verdicts) = (EpochRows::new(), Vec::new());
    let position = Position::new("events", 0, 0);

    let began = Instant::now();
    let mut read = Vec::new();
    for line in events.split(|byte| *byte == b'\n') {
        decoder.decode(line, &mut |event| read.extend(event));
    }
    let decoding = began.elapsed();

    let began = Instant::now();
    let known: Vec<_> = read
        .into_iter()
        .filter_map(|decoded| match decoded {
            Decoded::Event(event) => Some(enricher.enrich(event)),
            Decoded::Skipped(_) => None,
        })
        .collect();
    let enriching = began.elapsed();

    let began = Instant::now();
    let steps: Vec<_> = known.iter().map(|event| engine::step(&mut state, &rules, event)).collect();
    let judging = began.elapsed();

    let began = Instant::now();
    for (event, step) in known.iter().zip(&steps) {
        let Step::Scored(outcome) = step else { unreachable!("no generated event is repeated") };
        rows.push_event(&EventRow { event, outcome, position: &position, index: 0, scored_at: 0, ingested_at: 0 });
        wire::verdict::encode(&mut verdicts, event, outcome);
        if rows.bytes() > 1 << 20 {
            black_box((&rows, &verdicts));
            rows.clear();
            verdicts.clear();
        }
    }
    [decoding, enriching, judging, began.elapsed()]
}

fn fortnight() -> Vec<u8> {
    let mut simulation = Simulation::new(Settings::fortnight(1_790_000_000_000));
    let mut events = Vec::new();
    while simulation.next_day(&mut events) {}
    events
}

/// One thread does everything, as in `replay --verdicts`.
fn whole(file: &std::path::Path) -> (Duration, Tally) {
    let enricher = Enricher::new(&geo());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let pipeline =
        Pipeline::new(enricher, Arc::new(RuleSet::builtin()), TokenHasher::new(KEY), engine::Settings::default());
    let environment = environment(NullStore, &runtime);
    let mut source: Box<dyn port::Source> = Box::new(FileSource::open(vec![file.to_owned()]).expect("the file opens"));
    let mut worker = Worker::new(pipeline, Spread::Whole(Format::Native.into()), VerdictOutput::Lines, environment);
    let began = Instant::now();
    let tally = worker.run(&mut *source, &AtomicBool::new(false), &mut |epoch| {
        black_box(&epoch.verdicts);
        Ok(())
    });
    (began.elapsed(), tally.expect("the events are taken"))
}
