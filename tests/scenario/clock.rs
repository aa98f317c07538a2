//! Wrong clocks: wrong event times of one producer do not hide thefts from others.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use tokenwarden::checkpoint::{LogTime, LogTimeKind, Position};
use tokenwarden::engine;
use tokenwarden::lab::simulate::{Settings, Simulation};
use tokenwarden::pipeline::{Epoch, Partition, Pipeline, VerdictOutput};
use tokenwarden::port::{Message, Origin};
use tokenwarden::store::NullRows;
use tokenwarden::verdict::RuleId::{ConcurrentUse, UseAfterExpiry, UseAfterRevocation};
use tokenwarden::verdict::Verdict;
use tokenwarden::wire::Format;

use super::pipeline;
use super::scenario::{DAY, HOUR, MINUTE, SECOND, Scenario, address, fired, neighbours_call};

/// Ten days of a small simulation, by line, and the case of each event of a theft.
struct World {
    lines: Vec<Value>,
    thefts: HashMap<String, String>,
}

impl World {
    fn new() -> Self {
        let mut simulation = Simulation::new(Settings {
            people: 70,
            services: 20,
            build_jobs: 15,
            plugin_users: 12,
            ..Settings::afternoon(7_701, super::NOW)
        });
        let (mut events, mut labels) = (Vec::new(), Vec::new());
        while simulation.next_day(&mut events) {
            labels.extend(simulation.take_labels());
        }
        let parsed = |bytes: &[u8]| -> Vec<Value> {
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect()
        };
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let thefts = parsed(&labels).into_iter().filter(|label| label["label"] == "theft");
        let thefts = thefts.map(|label| (text(&label["event_id"]), text(&label["case"]))).collect();
        Self { lines: parsed(&events), thefts }
    }

    /// The lines, with 600 forged ones before the line at `from`. They are copies of the events after it, changed by
    /// `wrong`.
    fn with_from(&self, from: usize, wrong: &dyn Fn(usize, &mut Value)) -> Vec<(Value, bool)> {
        let forged = self.lines[from..].iter().filter(|line| line["kind"] != "issued").take(600).enumerate();
        let forged = forged.map(|(number, line)| {
            let mut line = line.clone();
            line["event_id"] = format!("forged-{number}").into();
            wrong(number, &mut line);
            (line, true)
        });
        let forged: Vec<_> = forged.collect();
        let honest = |lines: &[Value]| lines.iter().map(|line| (line.clone(), false)).collect::<Vec<_>>();
        [honest(&self.lines[..from]), forged, honest(&self.lines[from..])].concat()
    }

    /// Cases of theft with an event of alert or more, and the counters of wrong times.
    fn found(&self, lines: &[(Value, bool)], logged: Option<LogTimeKind>) -> (usize, engine::Counters) {
        let mut pipeline = pipeline();
        let mut partition = pipeline.partition(Format::Native);
        let mut epoch = Epoch::new(NullRows::default()).with_verdicts(VerdictOutput::Lines);
        for (offset, (line, forged)) in (0..).zip(lines) {
            take(&mut pipeline, &mut partition, &mut epoch, (offset, line, logged, *forged));
        }
        let verdicts = String::from_utf8(epoch.verdicts.take().unwrap_or_default()).expect("JSON is text");
        let mut cases = BTreeMap::new();
        for line in verdicts.lines() {
            let verdict: Value = serde_json::from_str(line).expect("a verdict");
            if let Some(case) = verdict["event_id"].as_str().and_then(|id| self.thefts.get(id)) {
                *cases.entry(case).or_insert(false) |= verdict["verdict"] == "alert" || verdict["verdict"] == "revoke";
            }
        }
        let found = cases.values().filter(|found| **found).count();
        (found, partition.states().next().expect("there is one").counters())
    }
}

fn take(
    pipeline: &mut Pipeline,
    partition: &mut Partition,
    epoch: &mut Epoch<NullRows>,
    (offset, line, logged, forged): (i64, &Value, Option<LogTimeKind>, bool),
) {
    let payload = line.to_string();
    let position = Position::new("events", 0, offset);
    let own = time(line);
    // The broker's clock is right; a producer's clock equals the times of its events.
    let millis = if forged && logged == Some(LogTimeKind::Append) { own - 400 * DAY } else { own };
    let logged_at = logged.map(|kind| LogTime { millis, kind });
    let message = Message {
        position: &position,
        key: None,
        payload: payload.as_bytes(),
        logged_at,
        replayed: false,
        origin: Origin::Here,
    };
    pipeline.process(partition, &[message], super::NOW, epoch);
}

fn time(line: &Value) -> i64 {
    line["timestamp"].as_i64().unwrap_or_else(|| {
        let text = line["timestamp"].as_str().expect("a time");
        text.parse::<jiff::Timestamp>().expect("RFC 3339").as_millisecond()
    })
}

fn shift(line: &mut Value, by: i64) {
    line["timestamp"] = (time(line) + by).into();
}

fn invent(number: usize, line: &mut Value) {
    for field in ["user_id", "family_id", "token_id"] {
        line[field] = format!("nobody-{number}").into();
    }
}

/// One way in which 600 consecutive events are wrong: a name, the change to each event, the clock of the log, and
/// whether they are the first events.
type Wrong = (&'static str, fn(usize, &mut Value), Option<LogTimeKind>, bool);

fn assert_no_theft_is_lost(wrongs: &[Wrong]) {
    let world = World::new();
    let plain: Vec<_> = world.lines.iter().map(|line| (line.clone(), false)).collect();
    let (expected, counted) = world.found(&plain, None);
    assert!(expected >= 10, "thefts are found: {expected}");
    assert_eq!((counted.ahead, counted.behind), (0, 0), "no honest event is taken for a wrong one");
    for (what, wrong, logged, is_first) in wrongs {
        let from = if *is_first { 0 } else { world.lines.len() / 2 };
        let (found, counted) = world.found(&world.with_from(from, wrong), *logged);
        assert!(found + 1 >= expected, "{what}: {found} of {expected} thefts are found");
        let counted = counted.ahead + counted.behind;
        assert!((if *is_first { 1 } else { 600 }..=1_200).contains(&counted), "{what}: {counted} are counted");
    }
}

fn invented_400_days_ahead(number: usize, line: &mut Value) {
    invent(number, line);
    shift(line, 400 * DAY);
}

#[test]
fn wrong_clock_lowers_no_thefts_found() {
    assert_no_theft_is_lost(&[
        ("29 days ahead", |_, line| shift(line, 29 * DAY), Some(LogTimeKind::Create), false),
        ("of invented names", invented_400_days_ahead, None, false),
    ]);
}

#[test]
#[ignore = "slow: five worlds"]
fn wrong_clocks_of_all_kinds_lower_no_thefts_found() {
    assert_no_theft_is_lost(&[
        ("400 days ahead", |_, line| shift(line, 400 * DAY), None, false),
        ("400 days behind", |_, line| shift(line, -400 * DAY), None, false),
        (
            "of one token",
            |number, line| {
                invent(0, line);
                line["event_id"] = format!("one-{number}").into();
                shift(line, 400 * DAY);
            },
            Some(LogTimeKind::Create),
            false,
        ),
        ("first of all", invented_400_days_ahead, None, true),
        ("by the broker's clock", |_, line| shift(line, 400 * DAY), Some(LogTimeKind::Append), false),
    ]);
}

/// Scores of an owner and a thief after a wrong time was reported by a stranger or by their own producer.
#[test]
fn wrong_time_neither_silences_nor_revokes() {
    for (kind, days) in ["revoked", "session_ended", "credential_changed", "issued", "use"]
        .into_iter()
        .flat_map(|kind| [400, 29, -400].map(|days| (kind, days)))
    {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 20).set("session_id", "s-1");
        let other = neighbours_call(2).set("session_id", "s-2");
        scenario.wait(15 * HOUR);
        scenario.see(&other);
        let at = scenario.now() + days * DAY;
        scenario.see_at(at, &other.kind(kind).set("expires_at", at + HOUR));
        for _ in 0..4 {
            scenario.wait(HOUR);
            let outcome = scenario.see(&ana);
            assert_eq!(outcome.verdict, Verdict::Allow, "{kind} {days}: {outcome:#?}");
        }
        scenario.wait(40 * MINUTE);
        let thief = scenario.see(&ana.from(address::SYDNEY).agent("curl/8.9.1"));
        assert!(thief.verdict >= Verdict::Alert, "{kind} {days}: {thief:#?}");
        let counters = scenario.state().counters();
        assert_eq!(counters.ahead + counters.behind, 1, "{kind} {days}");
        // The end takes effect when it is read, whatever its reported time.
        let ended = scenario.see(&other.set("status", 200));
        assert_eq!(fired(&ended, UseAfterRevocation), kind == "revoked", "{kind} {days}: {ended:#?}");
    }
}

/// Evidence that needs no time detects a theft at a producer with a wrong clock.
#[test]
fn lifecycle_needs_no_clock() {
    for days in [400, -400] {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 20);
        scenario.wait(15 * HOUR);
        scenario.see_bound(&ana, "jkt:owner", 6);
        scenario.see(&ana.kind("revoked"));
        scenario.wait(HOUR);
        // Events of others set the stream's time.
        scenario.see(&neighbours_call(1));
        let at = scenario.now() + days * DAY;
        let used = ana.from(address::LEIPZIG_HOST).set("status", 200).set("expires_at", at - 90 * DAY);
        let outcome = scenario.see_at(at, &used);
        assert!(fired(&outcome, UseAfterRevocation), "{outcome:#?}");
        assert_eq!(outcome.verdict, Verdict::Revoke, "{outcome:#?}");
        assert!(!fired(&outcome, UseAfterExpiry), "that needs a clock: {outcome:#?}");
    }
}

#[test]
fn expiry_far_in_the_past_revokes_nothing() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 20);
    scenario.wait(15 * HOUR);
    for expires_at in [0, scenario.now() - 40 * DAY] {
        let used = ana.from(address::LEIPZIG_HOST).set("status", 200).set("expires_at", expires_at);
        let outcome = scenario.see(&used);
        assert!(outcome.verdict < Verdict::Revoke, "{outcome:#?}");
        scenario.wait(MINUTE);
    }
}

/// An event older than the newest of its grant by more than `lateness_ms_max` gives no evidence about change of
/// networks.
#[test]
fn late_event_is_scored_without_order() {
    let turns = |lateness_ms_max: i64| {
        let mut scenario = Scenario::in_town_with(engine::Settings { lateness_ms_max, ..Default::default() });
        let ana = scenario.office_worker("ana", 30);
        scenario.wait(15 * HOUR);
        scenario.see(&ana);
        let began = scenario.now();
        scenario.wait(2 * HOUR);
        scenario.see(&ana);
        let before = scenario.state().counters().late;
        let thief = ana.from(address::LEIPZIG_HOST);
        let fired_rules = (0..8_i64).map(|turn| {
            // Events of others set the stream's time.
            scenario.see(&neighbours_call(turn));
            let at = began + turn * 90 * SECOND;
            let outcome = scenario.see_at(at, if turn % 2 == 0 { &thief } else { &ana });
            fired(&outcome, ConcurrentUse)
        });
        let fired_rules = fired_rules.filter(|fired| *fired).count();
        (fired_rules, scenario.state().counters().late - before)
    };
    assert_eq!(turns(15 * MINUTE), (0, 8));
    let (_, late) = turns(3 * HOUR);
    assert_eq!(late, 0, "within what is allowed");
}
