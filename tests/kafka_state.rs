//! Snapshots in a topic of a real Kafka: as storage, and by a service that is killed.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;
use support::kafka::Kafka;
use support::process::{cache, eventually, free_port, read};
use tokenwarden::lab::simulate::{Settings, Simulation};
use tokenwarden::port::Snapshots as _;
use tokenwarden::snapshot::{Extent, Marker, RECORD_BYTES_MAX};
use tokenwarden::source::kafka::{KafkaSettings, StateTopic, Topic};
use tokenwarden::wire::Format;

static KAFKA: LazyLock<Kafka> = LazyLock::new(Kafka::start);
/// Monday, 2 February 2026, 00:00 UTC.
const START: i64 = 1_769_990_400_000;

fn settings(topic: &str) -> KafkaSettings {
    KafkaSettings {
        brokers: KAFKA.brokers.clone(),
        topics: vec![Topic { topic: topic.to_owned(), feed: Format::Native.into() }],
        group_id: format!("group-of-{topic}"),
        prefix: topic.to_owned(),
        properties: BTreeMap::new(),
        allow_plaintext: false,
        remember_messages_max: 0,
        state_topic: true,
    }
}

fn marker(written_at: i64, records: usize) -> Marker {
    let extent = Extent { records: records as u32, bytes: 0, digest: 0 };
    Marker { written_at, extent, ..Marker::default() }
}

fn store(state: &StateTopic, name: &str, written_at: i64, records: &[Vec<u8>]) -> std::io::Result<u64> {
    let mut writer = state.begin(name)?;
    for record in records {
        writer.write(record.clone())?;
    }
    writer.finish(marker(written_at, records.len())).join().expect("no panic")
}

/// Time and records of the newest snapshot.
fn newest(state: &StateTopic, name: &str) -> Option<(i64, Vec<Vec<u8>>)> {
    let mut stored = state.newest(name).expect("it is read")?;
    let mut records = Vec::new();
    while let Some(record) = stored.records.next().expect("a record") {
        records.push(record);
    }
    Some((stored.marker.written_at, records))
}

#[test]
fn state_topic_returns_the_newest_complete_snapshot() {
    let topic = "state-storage";
    KAFKA.create_topic(topic, 2);
    let state = StateTopic::open(&settings(topic)).expect("the topic is created");
    assert_eq!(newest(&state, "a-0"), None);
    let large: Vec<_> = (0..40_u8).map(|number| vec![number; RECORD_BYTES_MAX]).collect();
    store(&state, "a-0", 1, &large).expect("it is stored");
    assert_eq!(newest(&state, "a-0"), Some((1, large)));
    // A smaller snapshot, then those of other states, so that the marker is not near the end.
    store(&state, "a-0", 2, &[b"small".to_vec()]).expect("it is stored");
    for number in 0..30 {
        store(&state, &format!("b-{number}"), 3, &[vec![number], vec![7]]).expect("it is stored");
    }
    assert_eq!(newest(&state, "a-0"), Some((2, vec![b"small".to_vec()])));
    assert_eq!(newest(&state, "b-29"), Some((3, vec![vec![29], vec![7]])));
    // A snapshot that is discarded, and one whose state another member has restored meanwhile.
    let mut writer = state.begin("a-0").expect("it begins");
    writer.write(b"discarded".to_vec()).expect("it is written");
    drop(writer);
    let mut zombie = state.begin("a-0").expect("it begins");
    zombie.write(b"zombie".to_vec()).expect("it is written");
    let other = StateTopic::open(&settings(topic)).expect("the topic exists");
    let fenced = eventually(Duration::from_secs(20), "the zombie is fenced", || {
        assert_eq!(newest(&other, "a-0"), Some((2, vec![b"small".to_vec()])));
        // Fails as soon as the thread of the zombie has begun its transaction and was fenced.
        std::thread::sleep(Duration::from_millis(500));
        Some(())
    });
    assert!(fenced.is_some());
    let error = zombie.finish(marker(9, 1)).join().expect("no panic").expect_err("it is fenced");
    assert_eq!(newest(&state, "a-0"), Some((2, vec![b"small".to_vec()])), "{error}");
    store(&other, "a-0", 4, &[b"later".to_vec()]).expect("the other member continues");
    assert_eq!(newest(&state, "a-0"), Some((4, vec![b"later".to_vec()])));
}

/// The service as a child process.
struct Service(Child);

impl Service {
    fn start(folder: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log file");
        let child = tokenwarden(folder).args(["run", "--config", "tokenwarden.toml"]).stderr(log).spawn();
        Self(child.expect("tokenwarden runs"))
    }

    fn kill(mut self) {
        self.0.kill().expect("kill -9");
        self.0.wait().expect("it is gone");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tokenwarden(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwarden"));
    command.current_dir(folder).env_clear().env("TOKENWARDEN_CACHE", cache());
    command
}

fn output(folder: &Path, arguments: &[&str]) -> String {
    let output = tokenwarden(folder).args(arguments).output().expect("tokenwarden runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Verdict and score of each event, by id.
type Verdicts = HashMap<String, (String, f64)>;

fn replayed(folder: &Path, file: &str) -> Verdicts {
    let arguments = ["replay", file, "--config", "tokenwarden.toml", "--store", "none", "--verdicts", "-"];
    let lines = output(folder, &arguments);
    lines
        .lines()
        .map(|line| {
            let verdict: Value = serde_json::from_str(line).expect("a verdict");
            let text = |field: &str| verdict[field].as_str().expect("text").to_owned();
            (text("event_id"), (text("verdict"), verdict["score"].as_f64().expect("a score")))
        })
        .collect()
}

fn stored(folder: &Path) -> Verdicts {
    let sql = "SELECT event_id, verdict, score FROM token_events FINAL";
    let rows = output(folder, &["sql", "--config", "tokenwarden.toml", "--output", "csv", sql]);
    let rows = rows.lines().skip(1).map(|row| {
        let fields: Vec<_> = row.split(',').map(|field| field.trim_matches('"').to_owned()).collect();
        (fields[0].clone(), (fields[1].clone(), fields[2].parse().expect("a score")))
    });
    rows.collect()
}

/// Events whose verdict or score differs.
fn differences(one: &Verdicts, other: &Verdicts) -> Vec<String> {
    let differ = |id: &&String| {
        let ((verdict, score), found) = (&one[*id], other.get(*id));
        found.is_none_or(|(other, of_other)| verdict != other || (score - of_other).abs() > 1e-4 * (1.0 + score))
    };
    one.keys().filter(differ).cloned().collect()
}

#[test]
fn killed_service_continues_with_its_memory() {
    let topic = "state-service";
    KAFKA.create_topic(topic, 1);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let config = format!(
        "[source.kafka]\nbrokers = '{}'\ntopics = ['{topic}']\ngroup_id = '{topic}'\nprefix = '{topic}'\n\
         state_topic = true\nremember_messages_max = 0\n\
         properties = {{ 'group.instance.id' = 'one' }}\n[snapshots]\ninterval_ms = 1000\n[store]\n\
         url = 'embedded:data'\n[admin]\nlisten = '127.0.0.1:{}'\n",
        KAFKA.brokers,
        free_port()
    );
    std::fs::write(folder.join("tokenwarden.toml"), config).expect("the configuration");
    let mut lines = Vec::new();
    let mut simulation = Simulation::new(Settings::afternoon(5, START));
    while simulation.next_day(&mut lines) {}
    let events: Vec<&[u8]> = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let (before, after) = events.split_at(events.len() / 2);
    std::fs::write(folder.join("all"), events.join(&b'\n')).expect("a file");
    std::fs::write(folder.join("after"), after.join(&b'\n')).expect("a file");

    KAFKA.produce(topic, before.iter().map(|event| ("key", *event)));
    let service = Service::start(folder);
    let offset = format!("  {topic} 0: next offset ");
    let shown = || {
        let shown = output(folder, &["state", "show", "--config", "tokenwarden.toml"]);
        shown.contains(&offset).then_some(shown)
    };
    eventually(Duration::from_secs(60), "a snapshot is stored", shown)
        .unwrap_or_else(|| panic!("{}", read(&folder.join("log"))));
    service.kill();

    KAFKA.produce(topic, after.iter().map(|event| ("key", *event)));
    let service = Service::start(folder);
    let expected = replayed(folder, "all");
    let done = eventually(Duration::from_secs(60), "all events are stored", || {
        let found = stored(folder);
        (found.len() == expected.len()).then_some(found)
    });
    let log = read(&folder.join("log"));
    let found = done.unwrap_or_else(|| panic!("{log}"));
    assert!(log.contains("read a snapshot of the state"), "{log}");
    assert!(!log.contains(r#""level":"ERROR""#), "{log}");
    // Logged by the producer of dead letters at both starts, not with every snapshot.
    assert_eq!(log.matches("ignored by this producer").count(), 2, "{log}");
    let different = differences(&expected, &found);
    assert!(
        different.is_empty(),
        "{} of {} events differ, for example {:?}\n{log}",
        different.len(),
        expected.len(),
        different.first()
    );
    let without_memory = differences(&replayed(folder, "after"), &found);
    assert!(without_memory.len() > 100, "memory makes a difference: {}", without_memory.len());
    drop(service);
}
