//! A state that is saved and restored continues as if it had not been: the same verdicts, incidents and final state, byte
//! for byte, wherever the stream is interrupted.

#![allow(clippy::expect_used, reason = "a test that cannot go on says so")]

use std::convert::Infallible;
use std::process::Command;
use std::sync::Arc;

use tokenwarden::checkpoint::Position;
use tokenwarden::engine::{self, Counters};
use tokenwarden::enrich::{Enricher, GeoSettings};
use tokenwarden::feed::Feed;
use tokenwarden::lab::simulate::{Settings, Simulation};
use tokenwarden::pipeline::{Epoch, Partition, Pipeline, VerdictOutput};
use tokenwarden::port::{Message, Origin, Store};
use tokenwarden::rule::RuleSet;
use tokenwarden::snapshot::{Extent, RECORD_BYTES_MAX, ReadError, Unreadable};
use tokenwarden::store::NullStore;
use tokenwarden::token::TokenHasher;

/// Monday, 2 February 2026, 00:00 UTC.
const START: i64 = 1_769_990_400_000;
const SEED: u64 = 5;
/// Messages that are processed at once.
const GROUP: usize = 32;

/// A saved state.
struct Saved {
    /// Number of messages before it.
    after: usize,
    reason: &'static str,
    records: Vec<Vec<u8>>,
    extent: Extent,
}

/// Verdict lines and incidents.
#[derive(Default)]
struct Results {
    verdicts: Vec<u8>,
    incidents: Vec<String>,
}

fn events() -> Vec<Vec<u8>> {
    let mut simulation = Simulation::new(Settings::afternoon(SEED, START));
    let mut lines = Vec::new();
    while simulation.next_day(&mut lines) {}
    lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

fn pipeline(settings: engine::Settings) -> Pipeline {
    let enricher = Enricher::new(&GeoSettings::default());
    Pipeline::new(enricher, Arc::new(RuleSet::builtin()), TokenHasher::new(b"a key for tests"), settings)
}

fn feed(pipeline: &mut Pipeline, partition: &mut Partition, from: usize, events: &[Vec<u8>], into: &mut Results) {
    let mut epoch = Epoch::new(NullStore.new_rows()).with_verdicts(VerdictOutput::Lines);
    for (group, events) in events.chunks(GROUP).enumerate() {
        let first = from + group * GROUP;
        let positions: Vec<_> =
            (0..events.len()).map(|at| Position::new("events.ndjson", 0, (first + at) as i64)).collect();
        let messages: Vec<_> = positions
            .iter()
            .zip(events)
            .map(|(position, payload)| Message {
                position,
                key: None,
                payload,
                logged_at: None,
                replayed: false,
                origin: Origin::Here,
            })
            .collect();
        pipeline.process(partition, &messages, 0, &mut epoch);
    }
    into.verdicts.append(epoch.verdicts.as_mut().expect("verdicts were requested"));
    into.incidents.extend(epoch.incidents.iter().map(|incident| format!("{incident:?}")));
}

fn save(partition: &Partition) -> (Vec<Vec<u8>>, Extent) {
    let mut records = Vec::new();
    let Ok(extent) = partition.save(&mut |record| -> Result<(), Infallible> {
        records.push(record);
        Ok(())
    });
    (records, extent)
}

fn restore(
    pipeline: &Pipeline,
    partitions: u16,
    (records, extent): (&[Vec<u8>], Extent),
) -> Result<Partition, Unreadable> {
    let mut records = records.iter().cloned();
    pipeline.restored(Feed::default(), partitions, extent, &mut || Ok::<_, Infallible>(records.next())).map_err(
        |error| match error {
            ReadError::Unreadable(reason) => reason,
            ReadError::Source(never) => match never {},
        },
    )
}

fn counters(partition: &Partition) -> Counters {
    partition.states().next().expect("a state").counters()
}

/// Runs the stream undisturbed and saves the state at several places: at regular intervals, and just after a late event,
/// a duplicate and the first change of an incident in each third of the stream.
fn undisturbed(
    pipeline: &mut Pipeline,
    partition: &mut Partition,
    events: &[Vec<u8>],
) -> (Results, Vec<(Saved, usize, usize)>) {
    let mut results = Results::default();
    let mut saved: Vec<(Saved, usize, usize)> = Vec::new();
    let mut wanted = [Vec::new(), Vec::new(), Vec::new()];
    let third = events.len() / 3;
    for at in (0..3).map(|part| part * third + third / 4) {
        for places in &mut wanted {
            places.push(at);
        }
    }
    let regular = [1, 77, events.len() / 7, events.len() / 2 + 13, events.len() - 1];
    for (after, event) in (1..).zip(events.iter()) {
        let before = (counters(partition), results.incidents.len());
        feed(pipeline, partition, after - 1, std::slice::from_ref(event), &mut results);
        let now = counters(partition);
        let happened =
            [now.late > before.0.late, now.duplicates > before.0.duplicates, results.incidents.len() > before.1];
        let mut reason = regular.contains(&after).then_some("regular");
        for ((happened, places), name) in
            happened.into_iter().zip(&mut wanted).zip(["late event", "duplicate", "incident"])
        {
            if happened && places.first().is_some_and(|place| *place <= after) {
                places.remove(0);
                reason = Some(name);
            }
        }
        if let Some(reason) = reason {
            let (records, extent) = save(partition);
            saved.push((Saved { after, reason, records, extent }, results.verdicts.len(), results.incidents.len()));
        }
    }
    (results, saved)
}

#[test]
fn restored_state_continues_byte_for_byte() {
    let events = events();
    let mut pipeline = pipeline(engine::Settings::default());
    let mut partition = pipeline.partition(Feed::default());
    let (expected, saved) = undisturbed(&mut pipeline, &mut partition, &events);
    let (_, end) = save(&partition);
    assert!(expected.incidents.len() > 20, "{} incidents", expected.incidents.len());
    for reason in ["regular", "late event", "incident"] {
        assert!(saved.iter().any(|(saved, ..)| saved.reason == reason), "no state was saved after: {reason}");
    }
    for (Saved { after, reason, records, extent }, verdicts, incidents) in saved {
        assert!(records.iter().all(|record| record.len() <= RECORD_BYTES_MAX));
        let mut restored = restore(&pipeline, 1, (&records, extent)).expect("it is restored");
        assert_eq!(save(&restored).1, extent, "saved again at once, after {after} events ({reason})");
        let mut rest = Results::default();
        feed(&mut pipeline, &mut restored, after, &events[after..], &mut rest);
        assert!(rest.verdicts == expected.verdicts[verdicts..], "verdicts differ after {after} events ({reason})");
        assert_eq!(rest.incidents, expected.incidents[incidents..], "after {after} events ({reason})");
        assert_eq!(save(&restored).1, end, "the final state, restored after {after} events ({reason})");
    }
}

/// The same through the command line: two files, each read by a process of its own.
#[test]
fn replay_continues_with_the_state_of_the_one_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let events = events();
    let (before, after) = events.split_at(events.len() / 2);
    for (name, events) in [("all", &events[..]), ("before", before), ("after", after)] {
        std::fs::write(path(name), events.join(&b'\n')).expect("a file");
    }
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
            .args(arguments)
            .current_dir(folder.path())
            .env("TOKENWARDEN_CACHE", folder.path())
            .output()
            .expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        (output.stdout, stderr)
    };
    let (expected, _) = run(&["replay", "all", "--verdicts", "-"]);
    let (first, _) = run(&["replay", "before", "--state", "state", "--verdicts", "-"]);
    let (second, _) = run(&["replay", "before", "after", "--state", "state", "--verdicts", "-"]);
    assert!(first.len() < expected.len() && [first, second].concat() == expected, "verdicts differ");
    let (again, _) = run(&["replay", "before", "after", "--state", "state", "--verdicts", "-"]);
    assert!(again.is_empty(), "all records were read before");
    let (shown, _) = run(&["state", "show", "--dir", "state"]);
    let shown = String::from_utf8(shown).expect("text");
    assert!(shown.starts_with("events: ") && shown.lines().count() == 4, "{shown}");
    assert!(shown.contains(&format!("\n  before: next record {}", grouped(before.len()))), "{shown}");
}

/// `1234` as `1,234`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let (head, tail) = digits.split_at(digits.len().saturating_sub(3));
    if head.is_empty() { tail.to_owned() } else { format!("{head},{tail}") }
}

#[test]
fn restored_partitions_continue_byte_for_byte() {
    let events = events();
    let mut pipeline = pipeline(engine::Settings::default());
    let (before, after) = events.split_at(events.len() / 3);
    let mut results = [Results::default(), Results::default()];
    let (mut whole, mut part) = (pipeline.partitions(Feed::default(), 3), pipeline.partitions(Feed::default(), 3));
    feed(&mut pipeline, &mut whole, 0, &events, &mut results[0]);
    feed(&mut pipeline, &mut part, 0, before, &mut results[1]);
    let (records, extent) = save(&part);
    let mut restored = restore(&pipeline, 3, (&records, extent)).expect("it is restored");
    feed(&mut pipeline, &mut restored, before.len(), after, &mut results[1]);
    assert!(results[0].verdicts == results[1].verdicts, "verdicts differ");
    assert_eq!(save(&restored).1, save(&whole).1);
    let Err(refused) = restore(&pipeline, 1, (&records, extent)) else { panic!("it has three states") };
    assert_eq!(refused, Unreadable::States { found: 3, expected: 1 });
}

#[test]
fn restored_state_has_the_settings_of_its_process() {
    let events = events();
    let (before, after) = events.split_at(events.len() / 2);
    let mut small = pipeline(engine::Settings { recent_event_ids_max: 1 << 12, ..engine::Settings::default() });
    let mut partition = small.partition(Feed::default());
    feed(&mut small, &mut partition, 0, before, &mut Results::default());
    let (records, extent) = save(&partition);
    let mut other = pipeline(engine::Settings {
        baselines_max: 100,
        alert_budget_per_day: 1,
        alert_budget_total_per_day: 0,
        clock_skew_ms_max: 3_600_000,
        recent_event_ids_max: 1 << 16,
        ..engine::Settings::default()
    });
    let mut restored = restore(&other, 1, (&records, extent)).expect("it is restored");
    let (baselines, duplicates) =
        (restored.states().next().expect("a state").memory().1, counters(&restored).duplicates);
    assert!((80..=100).contains(&baselines), "those above the limit are evicted: {baselines}");
    feed(&mut other, &mut restored, before.len() - 50, &before[before.len() - 50..], &mut Results::default());
    assert_eq!(counters(&restored).duplicates, duplicates + 50, "the last events are known");
    feed(&mut other, &mut restored, before.len(), after, &mut Results::default());
    let baselines = restored.states().next().expect("a state").memory().1;
    assert!((80..=100).contains(&baselines), "{baselines}");
}
