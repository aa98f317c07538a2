//! Cost of storing an event: CPU time of the ClickHouse engine per event, inserts and merges included, and bytes on
//! disk. Run with `make bench-store`, or `cargo bench --bench store -- [EVENTS] [--against BINARY]`.
//!
//! Simulated events go through the worker, as in `replay`, into an embedded store that another process owns. The result
//! is the CPU time of that process, from the first insert until no merge runs. `--against` names this benchmark of
//! another build. The two then run in turn, and the ratios of the turns are printed, because machines are noisy.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints its result, and stops if it cannot go on"
)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use support::engine::{FOLDER, OWN, Owner, PART, RESULT, child, cpu_seconds, number, own, runtime, settings, simulate};
use support::{environment, geo};
use tokenwarden::engine;
use tokenwarden::enrich::Enricher;
use tokenwarden::pipeline::{Pipeline, VerdictOutput};
use tokenwarden::port::Source;
use tokenwarden::rule::RuleSet;
use tokenwarden::source::file::FileSource;
use tokenwarden::store::{ClickHouse, Reader};
use tokenwarden::token::TokenHasher;
use tokenwarden::wire::Format;
use tokenwarden::worker::{Spread, Worker};

const EVENTS: usize = 1_000_000;
/// Turns with `--against`.
const TURNS: usize = 3;
/// The engine is idle if no merge runs for this time.
const IDLE: Duration = Duration::from_secs(4);
/// Name of the file of events in the folder.
const EVENTS_FILE: &str = "events.ndjson";
/// The results that are compared between builds.
const COMPARED: [&str; 3] = ["engine_us", "insert_us", "disk_bytes"];

fn main() {
    match (std::env::var(PART).as_deref(), std::env::var_os(FOLDER)) {
        (Ok(OWN), Some(folder)) => own(Path::new(&folder)),
        (Ok("measure"), Some(folder)) => measure(Path::new(&folder)),
        _ => compare(),
    }
}

/// Measures this build, and the build of `--against` in turn with it.
fn compare() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut events, mut against) = (EVENTS, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--against" => against = Some(PathBuf::from(arguments.next().expect("--against BINARY"))),
            number => events = number.parse().expect("the number of events"),
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let lines = simulate(events);
    std::fs::write(folder.path().join(EVENTS_FILE), &lines).expect("the events are written");
    println!("store: {events} simulated events, {} bytes on average", lines.len() / events);
    drop(lines);

    let this = std::env::current_exe().expect("this file");
    let mut ratios: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for turn in 1..=against.as_ref().map_or(1, |_| TURNS) {
        let own = run("this build", &this, folder.path());
        let Some(other) = &against else { break };
        let other = run("other build", other, folder.path());
        for name in COMPARED {
            let ratio = own[name] / other[name];
            println!("store: turn {turn}: {name}: {ratio:.3} of the other build");
            ratios.entry(name).or_default().push(ratio);
        }
    }
    for (name, mut ratios) in ratios {
        ratios.sort_by(f64::total_cmp);
        println!("store: {name}: {:.3} of the other build (median of {TURNS})", ratios[ratios.len() / 2]);
    }
}

/// Runs the benchmark `binary` once in a process of its own, and prints and returns its results.
fn run(title: &str, binary: &Path, folder: &Path) -> BTreeMap<String, f64> {
    let output = child(binary, "measure", folder).stdout(Stdio::piped()).output().expect("the benchmark runs");
    assert!(output.status.success(), "{} failed", binary.display());
    let text = String::from_utf8(output.stdout).expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(RESULT)).expect("a result");
    println!("store: {title}: {line}");
    let pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

/// Stores all events through the worker into a store that a child process owns, and prints the result.
fn measure(folder: &Path) {
    let owner = Owner::start(folder);
    let runtime = runtime();
    let settings = settings(folder);
    let store = runtime.block_on(ClickHouse::open(&settings)).expect("the store opens");
    let reader = runtime.block_on(Reader::open(&settings)).expect("the store opens");
    let ask = |sql: &str| runtime.block_on(number(&reader, sql));
    std::thread::sleep(IDLE);

    let (before, began) = (owner.cpu_seconds(), Instant::now());
    let own_before = cpu_seconds("self");
    work(store, &folder.join(EVENTS_FILE), &runtime);
    let (inserted, taken) = (owner.cpu_seconds(), began.elapsed());
    let own = cpu_seconds("self") - own_before;
    let mut busy = Instant::now();
    while busy.elapsed() < IDLE {
        std::thread::sleep(Duration::from_millis(250));
        if ask("SELECT count() FROM system.merges") > 0.0 {
            busy = Instant::now();
        }
    }
    let done = owner.cpu_seconds();

    let stored = ask("SELECT count() FROM token_events");
    let on_disk = |tables: &str| {
        let sql = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase()";
        ask(&format!("{sql} AND {tables}")) / stored
    };
    let rollup = on_disk("table = 'baseline_hours'");
    let disk = on_disk("table NOT IN ('incidents', 'actions', 'dead_letters', 'feedback', 'schema_migrations')");
    let each = |seconds: f64| seconds * 1e6 / stored;
    let line = format!(
        "{RESULT}engine_us={:.2} insert_us={:.2} merge_us={:.2} disk_bytes={disk:.1} rollup_bytes={rollup:.1} \
         worker_us={:.2} events_per_s={:.0} rows={stored}",
        each(done - before),
        each(inserted - before),
        each(done - inserted),
        each(own),
        stored / taken.as_secs_f64(),
    );
    println!("{line}");
}

/// Reads the file and stores its rows, as `replay` does.
fn work(store: ClickHouse, file: &Path, runtime: &tokio::runtime::Runtime) {
    let key = TokenHasher::new(b"a key for the bench");
    let pipeline = Pipeline::new(Enricher::new(&geo()), Arc::new(RuleSet::builtin()), key, engine::Settings::default());
    let environment = environment(store, runtime);
    let mut source: Box<dyn Source> = Box::new(FileSource::open(vec![file.to_owned()]).expect("the file opens"));
    let mut worker = Worker::new(pipeline, Spread::Whole(Format::Native.into()), VerdictOutput::None, environment);
    worker.run(&mut *source, &AtomicBool::new(false), &mut |_| Ok(())).expect("the events are stored");
}
