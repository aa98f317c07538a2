//! The service with a real Kafka and the ClickHouse engine in another process, beside a bare and a naive consumer of the
//! same topic. Run with `make bench-kafka`, or `cargo bench --bench kafka -- [EVENTS] [--turns N] [--only PART]`.
//!
//! | part | measures |
//! |---|---|
//! | `throughput` | in turn on one topic: a bare batch consumer, the naive consumer, and `tokenwarden run` without and with snapshots |
//! | `latency` | the time from sending an event to the request that revokes its token, at half of the measured throughput |
//! | `restore` | the restoration of a partition with a million baselines from the topic of snapshots |
//!
//! All processes share the machine with the broker. Times therefore vary, and the ratios of the turns count.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints its result, and stops if it cannot go on"
)]

mod consumers;
mod latency;
mod restore;
#[path = "../../tests/support/mod.rs"]
mod servers;
mod service;
#[path = "../support/mod.rs"]
mod support;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use serde::Deserialize;

use self::consumers::{BARE, NAIVE, Task};
use self::servers::kafka::Kafka;
use self::service::{Snapshots, measure};
use self::support::engine::{FOLDER, OWN, PART, RESULT, child, own, simulate};

const EVENTS: usize = 1_000_000;
const TURNS: usize = 3;
const TOPIC: &str = "token-events";
const PARTITIONS: i32 = 4;

fn main() {
    match (std::env::var(PART).as_deref(), std::env::var_os(FOLDER)) {
        (Ok(OWN), Some(folder)) => own(Path::new(&folder)),
        (Ok(BARE), _) => consumers::bare(&Task::received()),
        (Ok(NAIVE), _) => consumers::naive(&Task::received()),
        _ => run(&Arguments::parse()),
    }
}

struct Arguments {
    events: usize,
    turns: usize,
    /// `None`: all parts.
    only: Option<String>,
}

impl Arguments {
    fn parse() -> Self {
        let mut parsed = Self { events: EVENTS, turns: TURNS, only: None };
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--turns" => parsed.turns = number(arguments.next().as_deref()),
                "--only" => parsed.only = arguments.next(),
                events => parsed.events = number(Some(events)),
            }
        }
        parsed
    }

    fn includes(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }
}

fn number(argument: Option<&str>) -> usize {
    argument.and_then(|argument| argument.parse().ok()).expect("[EVENTS] [--turns N] [--only PART]")
}

fn run(arguments: &Arguments) {
    let kafka = Kafka::start();
    let mut rate = None;
    if arguments.includes("throughput") || arguments.includes("latency") {
        let lines = simulate(arguments.events);
        kafka.create_topic(TOPIC, PARTITIONS);
        produce(&kafka, TOPIC, lines_of(&lines));
        println!(
            "kafka: {} simulated events, {} bytes on average, {PARTITIONS} partitions",
            arguments.events,
            lines.len() / arguments.events
        );
        if arguments.includes("throughput") {
            rate = Some(throughput(&kafka, arguments));
        }
        if arguments.includes("latency") {
            let rate = rate.unwrap_or_else(|| measure(&kafka, arguments.events, Snapshots::Off).events_per_s);
            latency::measure(&kafka, &lines, rate / 2.0);
        }
    }
    if arguments.includes("restore") {
        restore::measure(&kafka);
    }
}

/// Prints the throughput of all processes in turn, and the medians of the ratios. Returns the events per second of the
/// service with snapshots.
fn throughput(kafka: &Kafka, arguments: &Arguments) -> f64 {
    let mut ratios: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut rates = Vec::new();
    for turn in 1..=arguments.turns {
        let bare = consumer(kafka, arguments.events, BARE, turn);
        let naive = consumer(kafka, arguments.events, NAIVE, turn);
        let off = measure(kafka, arguments.events, Snapshots::Off);
        println!("kafka: turn {turn}: tokenwarden, no snapshots: {off}");
        let on = measure(kafka, arguments.events, Snapshots::On);
        println!("kafka: turn {turn}: tokenwarden, snapshots every 10 s: {on}");
        for (name, ratio) in [
            ("tokenwarden to the naive consumer, events/s", on.events_per_s / naive.events_per_s),
            ("tokenwarden to the naive consumer, events per CPU-second of the process", on.per_cpu / naive.per_cpu),
            ("naive consumer to the bare one, events/s", naive.events_per_s / bare.events_per_s),
            ("with snapshots to without, events/s", on.events_per_s / off.events_per_s),
            ("with snapshots to without, events per CPU-second", on.per_cpu / off.per_cpu),
        ] {
            ratios.entry(name).or_default().push(ratio);
        }
        rates.push(on.events_per_s);
    }
    for (name, ratios) in &mut ratios {
        println!("kafka: {name}: {:.3} (median of {})", median(ratios), ratios.len());
    }
    median(&mut rates)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Throughput of a consumer.
struct Rate {
    events_per_s: f64,
    /// Events per CPU-second of the process.
    per_cpu: f64,
}

/// Runs a consumer in a process of its own, and prints and returns its result.
fn consumer(kafka: &Kafka, events: usize, part: &str, turn: usize) -> Rate {
    let name = format!("{part}-{turn}");
    kafka.create_topic(&format!("verdicts-of-{name}"), PARTITIONS);
    let task = Task { brokers: kafka.brokers.clone(), events, name };
    let this = std::env::current_exe().expect("this file");
    let mut command = child(&this, part, Path::new("."));
    task.hand_to(&mut command);
    let output = command.stdout(Stdio::piped()).output().expect("the consumer runs");
    assert!(output.status.success(), "the {part} consumer failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(RESULT)).expect("a result");
    let mut values = line.split(' ').map(|value| value.parse::<f64>().expect("a number"));
    let (seconds, cpu) = (values.next().expect("seconds"), values.next().expect("CPU-seconds"));
    let rate = Rate { events_per_s: events as f64 / seconds, per_cpu: events as f64 / cpu };
    let Rate { events_per_s, per_cpu } = rate;
    println!("kafka: turn {turn}: {part} consumer: {events_per_s:.0} events/s, {per_cpu:.0} per CPU-second");
    rate
}

fn lines_of(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// Fields of which the subject key is made.
#[derive(Deserialize)]
struct Subject<'a> {
    #[serde(borrow)]
    user_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    family_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    app_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tenant_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    token_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    token_id: Cow<'a, str>,
}

/// The subject key of an event (docs/event.md).
fn key(line: &[u8]) -> String {
    let subject: Subject<'_> = serde_json::from_slice(line).expect("an event");
    let client = subject.app_id.filter(|_| subject.token_type.as_deref() == Some("access"));
    let subject_id = subject.user_id.or(subject.family_id).or(client).unwrap_or(subject.token_id);
    subject.tenant_id.map_or_else(|| subject_id.to_string(), |tenant| format!("{tenant}/{subject_id}"))
}

fn produce<'l>(kafka: &Kafka, topic: &str, lines: impl Iterator<Item = &'l [u8]>) {
    let keyed: Vec<_> = lines.map(|line| (key(line), line)).collect();
    kafka.produce(topic, keyed.iter().map(|(key, line)| (key.as_str(), *line)));
}
