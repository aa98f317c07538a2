//! `tokenwarden run` as a child process.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use tokenwarden::store::Reader;

use super::servers::kafka::Kafka;
use super::servers::process::{free_port, keep_secret, read};
use super::support::engine::{Owner, cpu_seconds, number, runtime, settings};
use super::support::geo;
use super::{PARTITIONS, TOPIC};

/// Maximum time of one measurement.
const PATIENCE: Duration = Duration::from_secs(1_200);
/// Interval in which CPU times are read.
const SAMPLE: Duration = Duration::from_millis(20);
/// Number of samples per request for the committed offsets.
const SAMPLES_PER_LOOK: usize = 3;

/// Whether snapshots are written into their topic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Snapshots {
    Off,
    /// Every 10 s. The default is a minute, in which a measurement would end.
    On,
}

impl Snapshots {
    fn keys(self) -> &'static str {
        match self {
            Self::Off => "state_topic = false\n[snapshots]\n",
            Self::On => "state_topic = true\n[snapshots]\ninterval_ms = 10000\n",
        }
    }
}

/// The running service.
pub(crate) struct Service {
    child: Child,
    folder: PathBuf,
}

impl Service {
    /// `group`: consumer group, and prefix of the topics of the service. `sections`: the configuration from the last keys
    /// of `[source.kafka]` on.
    pub(crate) fn start(folder: &Path, kafka: &Kafka, [topic, group]: [&str; 2], sections: &str) -> Self {
        let geo = geo();
        let list = |files: &[PathBuf]| {
            let quoted: Vec<_> = files.iter().map(|file| format!("'{}'", file.display())).collect();
            quoted.join(", ")
        };
        let rules = if folder.join("rules").is_dir() { "rules_dir = 'rules'\n" } else { "" };
        let config = format!(
            "{rules}[geoip]\ncity = [{}]\nasn = [{}]\n[store]\nurl = 'embedded:data'\n[admin]\nlisten = '127.0.0.1:{}'\n\
             [privacy]\ntoken_key_file = 'key'\n\
             [source.kafka]\nbrokers = '{}'\ntopics = ['{topic}']\ngroup_id = '{group}'\nprefix = '{group}'\n{sections}",
            list(&geo.city),
            list(&geo.asn),
            free_port(),
            kafka.brokers,
        );
        keep_secret(&folder.join("key"), "a key of the benchmark, long enough");
        std::fs::write(folder.join("tokenwarden.toml"), config).expect("the configuration");
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwarden"));
        let child = command.args(["run", "--config", "tokenwarden.toml"]).current_dir(folder).stderr(log).spawn();
        Self { child: child.expect("tokenwarden runs"), folder: folder.to_owned() }
    }

    pub(crate) fn log(&self) -> String {
        read(&self.folder.join("log"))
    }

    fn cpu_seconds(&self) -> f64 {
        cpu_seconds(&self.child.id().to_string())
    }

    /// Calls `look` until it is true.
    pub(crate) fn until(&mut self, mut look: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !look(self) {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "the service did not finish:\n{}", self.log());
            std::thread::sleep(SAMPLE);
        }
    }

    /// Stops it as an operator does, and waits for its end.
    pub(crate) fn stop(mut self) {
        let signal = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(signal.expect("kill runs").success());
        self.child.wait().expect("it is gone");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Result of the service.
pub(crate) struct Measured {
    pub(crate) events_per_s: f64,
    /// Events per CPU-second of the service.
    pub(crate) per_cpu: f64,
    /// Events per CPU-second of the engine.
    per_engine_cpu: f64,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events_per_s, per_cpu, per_engine_cpu } = self;
        write!(
            f,
            "{events_per_s:.0} events/s, {per_cpu:.0} per CPU-second, {per_engine_cpu:.0} per CPU-second of ClickHouse"
        )
    }
}

/// CPU seconds at a time.
struct Sample {
    /// Milliseconds since the epoch.
    at: i64,
    own: f64,
    engine: f64,
}

/// Measures the service from its first poll with messages until the rows of all messages are stored and committed.
pub(crate) fn measure(kafka: &Kafka, events: usize, snapshots: Snapshots) -> Measured {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Owner::start(folder.path());
    let group = format!("service-{}", now());
    let mut service = Service::start(folder.path(), kafka, [TOPIC, &group], snapshots.keys());
    let committed = Committed::open(kafka, &group, TOPIC, PARTITIONS);
    let mut samples = Vec::new();
    service.until(|service| {
        samples.push(Sample { at: now(), own: service.cpu_seconds(), engine: engine.cpu_seconds() });
        samples.len() % SAMPLES_PER_LOOK == 0 && committed.sum() == events as i64
    });
    let settings = settings(folder.path());
    let began_at = runtime().block_on(async {
        let reader = Reader::open(&settings).await.expect("the store opens");
        let stored = number(&reader, "SELECT count() FROM token_events").await;
        assert!((stored - events as f64).abs() < 0.5, "{stored} of {events} events are stored");
        let began_at = number(&reader, "SELECT min(toUnixTimestamp64Milli(ingested_at)) FROM token_events").await;
        reader.close().await;
        began_at as i64
    });
    let end = samples.last().expect("a sample");
    let begin = samples.iter().rev().find(|sample| sample.at <= began_at).expect("a sample before the first event");
    service.stop();
    let rate = |seconds: f64| events as f64 / seconds;
    Measured {
        events_per_s: rate((end.at - began_at) as f64 / 1_000.0),
        per_cpu: rate(end.own - begin.own),
        per_engine_cpu: rate(end.engine - begin.engine),
    }
}

/// The offsets that a group has committed.
pub(crate) struct Committed {
    consumer: BaseConsumer,
    partitions: TopicPartitionList,
}

impl Committed {
    pub(crate) fn open(kafka: &Kafka, group: &str, topic: &str, partitions: i32) -> Self {
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition(topic, partition);
        }
        Self { consumer: kafka.client().set("group.id", group).create().expect("a client"), partitions: list }
    }

    /// Sum of the offsets of all partitions. 0 while the group has no coordinator.
    pub(crate) fn sum(&self) -> i64 {
        let found = self.consumer.committed_offsets(self.partitions.clone(), Duration::from_secs(30));
        let offset = |offset: Offset| if let Offset::Offset(offset) = offset { offset } else { 0 };
        found.map_or(0, |found| found.elements().iter().map(|element| offset(element.offset())).sum())
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis() as i64
}
