//! Snapshots in a topic of a real Kafka: as storage, and by a service that is killed.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use support::acl::Operation;
use support::kafka::Kafka;
use support::observer::Recorder;
use support::process::{eventually, free_port, keep_secret, read};
use support::service::{Service, ask, differences, output, replayed, replayed_with, stored, tokenwarden};
use tokenwarden::checkpoint::Position;
use tokenwarden::lab::simulate::{Settings, Simulation};
use tokenwarden::port::{Polled, Restoration, Snapshots as _, Source as _, StateRestorer};
use tokenwarden::snapshot::{Extent, Marker, RECORD_BYTES_MAX};
use tokenwarden::source::kafka::{
    KafkaSettings, KafkaSource, Level, Permitted, StateTopic, StateTopicUse, Topic, check,
};
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
        state_topic: StateTopicUse::Required,
        verdicts_topic: false,
        rekey: false,
        sightings_topic: false,
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

/// Waits until a message with `payload` is in the topic, whether its transaction is committed or not.
fn await_uncommitted(topic: &str, payload: &[u8]) {
    let mut config = KAFKA.client();
    config.set("group.id", "uncommitted").set("isolation.level", "read_uncommitted");
    config.set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().expect("a client");
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).expect("the broker answers");
    let mut partitions = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        partitions.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("an offset");
    }
    consumer.assign(&partitions).expect("the topic is read");
    let found = eventually(Duration::from_secs(30), "the message is in the topic", || {
        let message = consumer.poll(Duration::from_secs(1))?.ok()?;
        (message.payload() == Some(payload)).then_some(())
    });
    found.expect("the message is in the topic");
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
    // A snapshot that is discarded, and one whose state another member restores meanwhile.
    let mut writer = state.begin("a-0").expect("it begins");
    writer.write(b"discarded".to_vec()).expect("it is written");
    await_uncommitted(&format!("{topic}.state"), b"discarded");
    drop(writer);
    let mut zombie = state.begin("a-0").expect("it begins");
    zombie.write(b"zombie".to_vec()).expect("it is written");
    // Its transaction has begun, so that the other member fences it, and not the reverse.
    await_uncommitted(&format!("{topic}.state"), b"zombie");
    let other = StateTopic::open(&settings(topic)).expect("the topic exists");
    assert_eq!(newest(&other, "a-0"), Some((2, vec![b"small".to_vec()])));
    let error = zombie.finish(marker(9, 1)).join().expect("no panic").expect_err("it is fenced");
    assert_eq!(newest(&state, "a-0"), Some((2, vec![b"small".to_vec()])), "{error}");
    store(&other, "a-0", 4, &[b"later".to_vec()]).expect("the other member continues");
    assert_eq!(newest(&state, "a-0"), Some((4, vec![b"later".to_vec()])));
}

#[test]
fn groups_with_one_prefix_have_their_own_snapshots() {
    let topic = "state-groups";
    KAFKA.create_topic(topic, 1);
    let one = settings(topic);
    let other = KafkaSettings { group_id: "another group".to_owned(), ..one.clone() };
    let (one, other) = (StateTopic::open(&one).expect("a topic"), StateTopic::open(&other).expect("a topic"));
    store(&one, "a-0", 1, &[b"one".to_vec(), b"two".to_vec()]).expect("it is stored");
    assert_eq!(newest(&other, "a-0"), None);
    store(&other, "a-0", 2, &[b"other".to_vec()]).expect("it is stored");
    assert_eq!(newest(&one, "a-0"), Some((1, vec![b"one".to_vec(), b"two".to_vec()])));
    assert_eq!(newest(&other, "a-0"), Some((2, vec![b"other".to_vec()])));
}

#[test]
fn topics_check_covers_the_state_topic() {
    let topic = "state-check";
    KAFKA.create_topic(topic, 3);
    KAFKA.create_topic_with(&format!("{topic}.state"), 1, &[("cleanup.policy", "compact")]);
    let findings = check(&settings(topic)).expect("the broker answers");
    let level = |what: &str| findings.iter().find(|found| found.what == what).map(|found| found.level);
    assert_eq!(level("partitions"), Some(Level::Warning), "{findings:?}");
    assert_eq!(level("membership"), Some(Level::Ok), "{findings:?}");
    let range = BTreeMap::from([("partition.assignment.strategy".to_owned(), "range".to_owned())]);
    let findings = check(&KafkaSettings { properties: range, ..settings(topic) }).expect("the broker answers");
    let membership = findings.iter().find(|found| found.what == "membership");
    assert_eq!(membership.map(|found| found.level), Some(Level::Warning), "{findings:?}");
}

/// Settings with the user that [`Kafka::deny`] restricts.
fn guarded(topic: &str) -> KafkaSettings {
    let login = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "tokenwarden"),
        ("sasl.password", "right"),
    ];
    let properties = login.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    KafkaSettings {
        brokers: KAFKA.guarded.clone(),
        properties,
        state_topic: StateTopicUse::IfPermitted,
        ..settings(topic)
    }
}

/// Why the brokers do not permit snapshots.
fn refusal(topic: &str) -> Option<String> {
    match StateTopic::open_if_permitted(&guarded(topic)).expect("the broker answers") {
        Permitted::Yes(_) => None,
        Permitted::Refused(reason) => Some(reason),
    }
}

#[test]
fn refused_state_topic_is_no_error() {
    let (create, write) = (Operation::RD_KAFKA_ACL_OPERATION_CREATE, Operation::RD_KAFKA_ACL_OPERATION_WRITE);
    let topic = "state-refused";
    let state = format!("{topic}.state");
    KAFKA.create_topic(topic, 2);
    KAFKA.deny_creation(&state);
    let reason = refusal(topic).expect("the topic cannot be created");
    assert!(reason.starts_with("not created: ") && reason.contains("uthorization"), "{reason}");
    let findings = check(&guarded(topic)).expect("the broker answers");
    let found = findings.iter().find(|found| found.topic == state).expect("the topic is checked");
    assert_eq!(found.level, Level::Warning, "{findings:?}");

    KAFKA.deny(create, &state, false);
    assert_eq!(refusal(topic), None, "it is created");
    let describe = Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE;
    KAFKA.deny(write, &state, true);
    KAFKA.allow(describe, &state, true);
    assert_eq!(refusal(topic).as_deref(), Some("we may not read and write it (ACL)"));
    KAFKA.deny(write, &state, false);
    KAFKA.allow(describe, &state, false);
    KAFKA.deny_transactions(&format!("group-of-{topic}-state-"));
    let reason = refusal(topic).expect("transactions are refused");
    assert!(reason.starts_with("transactions are refused: "), "{reason}");
}

/// Polls until a message arrives. Returns whether it was replayed.
fn read_one(source: &mut KafkaSource) -> Option<bool> {
    let began = Instant::now();
    let mut read = None;
    while read.is_none() && began.elapsed() < Duration::from_secs(30) {
        let polled = source.poll(1, Duration::from_millis(100), &mut |message| read = Some(message.replayed));
        if let Polled::Revoked(_) | Polled::Lost = polled.expect("the source is polled") {
            source.release().expect("the partitions are released");
        }
    }
    read
}

#[test]
fn late_earlier_owner_does_not_replace_the_snapshot() {
    let topic = "state-late-owner";
    KAFKA.create_topic(topic, 1);
    KAFKA.produce(topic, [("key", b"{}".as_slice())]);
    // The group gives the partitions of a member away that has not polled for 6 s.
    let short = [("session.timeout.ms", "6000"), ("max.poll.interval.ms", "6000")];
    let properties = short.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let settings = KafkaSettings { properties, ..settings(topic) };
    let open = || {
        let state = StateTopic::open(&settings).expect("the topic of snapshots");
        let source = KafkaSource::restoring(&settings, Recorder::new(), None, Some(&state)).expect("the source opens");
        (state, source)
    };
    let name = format!("{topic}-0");
    let (of_first, mut first) = open();
    assert!(read_one(&mut first).is_some());
    store(&of_first, &name, 1, &[b"first".to_vec()]).expect("the owner stores a snapshot");
    let mut late = of_first.begin(&name).expect("it begins");
    late.write(b"late".to_vec()).expect("it is written");
    let (of_second, mut second) = open();
    assert!(read_one(&mut second).is_some(), "the second member is the owner now");
    // The transaction is not fenced, because the second member has not restored the state.
    late.finish(marker(9, 1)).join().expect("no panic").expect_err("the first member is no longer the owner");
    assert_eq!(newest(&of_second, &name), Some((1, vec![b"first".to_vec()])));
    store(&of_first, &name, 9, &[b"later".to_vec()]).expect_err("the first member knows now");
    store(&of_second, &name, 2, &[b"second".to_vec()]).expect("the owner stores a snapshot");
    assert_eq!(newest(&of_first, &name), Some((2, vec![b"second".to_vec()])));
}

/// A storage that answers at the third request.
#[derive(Default)]
struct LateStorage(Mutex<Vec<u64>>);

impl StateRestorer for LateStorage {
    fn restore(&self, _: &Position, usable: RangeInclusive<i64>, ticket: u64) -> Restoration {
        let mut tickets = self.0.lock().expect("a lock");
        tickets.push(ticket);
        if tickets.len() < 3 { Restoration::Unavailable } else { Restoration::Continue(*usable.start()) }
    }

    fn discard(&self, _: &str, _: i32, _: u64) {}
}

#[test]
fn partition_is_read_once_its_snapshot_is_read() {
    let topic = "state-late-storage";
    KAFKA.create_topic(topic, 1);
    KAFKA.produce(topic, [("key", b"1".as_slice()), ("key", b"2")]);
    let settings = settings(topic);
    KAFKA.commit(&settings.group_id, topic, 2, "");
    let storage = Arc::new(LateStorage::default());
    let restorer = Arc::clone(&storage) as Arc<dyn StateRestorer>;
    let mut source = KafkaSource::restoring(&settings, Recorder::new(), Some(restorer), None).expect("it opens");
    assert_eq!(read_one(&mut source), Some(true), "it continues with the restored state");
    let tickets = storage.0.lock().expect("a lock").clone();
    assert!(tickets.len() == 3 && tickets.is_sorted_by(|one, next| one < next), "{tickets:?}");
}

#[test]
fn rebuild_reports_its_progress() {
    let topic = "state-progress";
    KAFKA.create_topic(topic, 1);
    KAFKA.produce(topic, (0..1_000).map(|_| ("key", b"{}".as_slice())));
    let settings = KafkaSettings { remember_messages_max: 800, ..settings(topic) };
    KAFKA.commit(&settings.group_id, topic, 1_000, "");
    let recorder = Recorder::new();
    let mut source = KafkaSource::open(&settings, Arc::clone(&recorder) as _).expect("it opens");
    assert_eq!(read_one(&mut source), Some(true));
    let mut read = |count| source.poll(count, Duration::from_millis(100), &mut |_| {}).expect("the source is polled");
    let left = eventually(Duration::from_secs(20), "progress is reported", || {
        read(1);
        recorder.rebuild_left().first().copied().flatten()
    });
    assert!(left.is_some_and(|left| (1..800).contains(&left)), "{left:?}");
    let end = eventually(Duration::from_secs(20), "the end is reported", || {
        read(1_000);
        recorder.rebuild_left().contains(&None).then_some(())
    });
    assert!(end.is_some());
}

/// Configures a member in `folder`. Members share the store and the key in `shared`.
fn configure(folder: &Path, shared: &Path, topic: &str, interval_ms: u32, properties: &str) {
    let (brokers, at, port) = (&KAFKA.brokers, shared.display(), free_port());
    let config = format!(
        "[source.kafka]\nbrokers = '{brokers}'\ntopics = ['{topic}']\ngroup_id = '{topic}'\nprefix = '{topic}'\n\
         state_topic = true\nremember_messages_max = 0\nproperties = {{ {properties} }}\n\
         [privacy]\ntoken_key_file = '{at}/key'\n[snapshots]\ninterval_ms = {interval_ms}\n\
         [store]\nurl = 'embedded:{at}/data'\n[admin]\nlisten = '127.0.0.1:{port}'\n"
    );
    keep_secret(&shared.join("key"), "a key that all members of the group have");
    std::fs::write(folder.join("tokenwarden.toml"), config).expect("the configuration");
}

fn simulated() -> Vec<u8> {
    let mut lines = Vec::new();
    let mut simulation = Simulation::new(Settings::afternoon(5, START));
    while simulation.next_day(&mut lines) {}
    lines
}

#[test]
fn stopped_member_hands_its_memory_to_another() {
    let topic = "state-handover";
    KAFKA.create_topic(topic, 1);
    let shared = tempfile::tempdir().expect("a folder");
    let folders = ["one", "two"].map(|name| shared.path().join(name));
    for folder in &folders {
        std::fs::create_dir(folder).expect("a folder");
        // Only the stop writes a snapshot.
        configure(folder, shared.path(), topic, 86_400_000, "");
    }
    let [one, two] = &folders;
    let lines = simulated();
    let events: Vec<&[u8]> = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let (before, after) = events.split_at(events.len() / 2);
    std::fs::write(one.join("all"), events.join(&b'\n')).expect("a file");
    KAFKA.produce(topic, before.iter().map(|event| ("key", *event)));
    let first = Service::start(one);
    let committed = eventually(Duration::from_secs(60), "the first half is committed", || {
        (KAFKA.committed(topic, topic)? == before.len() as i64).then_some(())
    });
    committed.unwrap_or_else(|| panic!("{}", read(&one.join("log"))));
    let second = Service::start(two);
    first.stop();
    KAFKA.produce(topic, after.iter().map(|event| ("key", *event)));
    let expected = replayed(one, "all");
    let done = eventually(Duration::from_secs(90), "all events are stored", || {
        let found = stored(two);
        (found.len() == expected.len()).then_some(found)
    });
    let log = read(&two.join("log"));
    let found = done.unwrap_or_else(|| panic!("{log}"));
    assert!(log.contains(&format!(r#""offset":{}"#, before.len())), "{log}");
    let different = differences(&expected, &found);
    assert!(different.is_empty(), "{} of {} events differ\n{log}", different.len(), expected.len());
    drop(second);
}

/// Configures the service as a user whose permissions can be denied. `topics`: the lines about own topics. Returns
/// the configuration.
fn configure_guarded(folder: &Path, topic: &str, topics: &str) -> String {
    let login = "'security.protocol' = 'SASL_PLAINTEXT', 'sasl.mechanism' = 'PLAIN', 'sasl.username' = 'tokenwarden', \
                 'sasl.password' = 'right'";
    configure(folder, folder, topic, 1_000, login);
    let file = folder.join("tokenwarden.toml");
    let config = read(&file).replace("state_topic = true\n", topics).replace(&KAFKA.brokers, &KAFKA.guarded);
    keep_secret(&file, &config);
    config
}

/// Without the key `state_topic`, the service starts although its user may not create the topic of snapshots.
#[test]
fn service_without_permission_for_snapshots_starts() {
    let topic = "state-forbidden";
    KAFKA.create_topic(topic, 1);
    KAFKA.deny_creation(&format!("{topic}.state"));
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let config = configure_guarded(folder, topic, "");
    KAFKA.produce(topic, [("key", b"{}".as_slice())]);
    let service = Service::start(folder);
    let done = eventually(Duration::from_secs(60), "the message is processed", || {
        (KAFKA.committed(topic, topic)? == 1).then_some(())
    });
    let log = read(&folder.join("log"));
    done.unwrap_or_else(|| panic!("{log}"));
    let listen = config.split("listen = '").nth(1).and_then(|rest| rest.split('\'').next()).expect("an address");
    let ready = ask(listen, "/readyz");
    let (head, body) = ready.split_once("\r\n\r\n").expect("a body");
    assert!(head.starts_with("HTTP/1.1 200 "), "{ready}");
    assert!(body.starts_with(&format!("ok\nsnapshots_off ({topic}.state): ")), "{ready}");
    assert!(ask(listen, "/metrics").contains("tokenwarden_degraded{condition=\"snapshots_off\"} 1\n"));
    assert!(log.contains("snapshots are off: a restart rebuilds the memory"), "{log}");
    assert!(log.contains("\"remember_messages_max\":0"), "{log}");
    service.stop();

    // With `state_topic = true` it does not start.
    keep_secret(&folder.join("tokenwarden.toml"), &config.replace("prefix = ", "state_topic = true\nprefix = "));
    let refused = tokenwarden(folder).args(["run", "--config", "tokenwarden.toml"]).output().expect("it runs");
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(69), "{reason}");
    assert!(reason.contains("state-forbidden.state`: not created"), "{reason}");
}

#[test]
fn killed_service_continues_with_its_memory() {
    let topic = "state-service";
    KAFKA.create_topic(topic, 1);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    configure(folder, folder, topic, 1_000, "'group.instance.id' = 'one'");
    // Snapshots are on by default.
    let file = folder.join("tokenwarden.toml");
    std::fs::write(&file, read(&file).replace("state_topic = true\n", "")).expect("a file");
    let lines = simulated();
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

/// A use of a token by its owner, or with curl from another network, which a policy reports.
fn use_of_ann(id: &str, hours: i64, with: &str, from: &str) -> String {
    let at = START + hours * 3_600_000;
    format!(
        r#"{{"event_id":"{id}","timestamp":{at},"token_id":"at-ann","family_id":"grant-ann","user_id":"ann","ip_address":"{from}","user_agent":"{with}","method":"GET","endpoint":"/v1/items","status":200}}"#
    )
}

/// The feedback of a person changes the score of the next event. After the service is killed, and in a replay, it does so at
/// the same place.
#[test]
fn killed_service_learns_feedback_at_its_place() {
    let topic = "state-feedback";
    KAFKA.create_topic(topic, 1);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    configure(folder, folder, topic, 1_000, "'group.instance.id' = 'one'");
    let file = folder.join("tokenwarden.toml");
    keep_secret(&file, &format!("rules_dir = 'rules'\n{}[feedback]\n", read(&file)));
    std::fs::create_dir(folder.join("rules")).expect("a folder");
    let rule = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/new_client.toml"));
    let policy = "\n[[policies]]\nname = \"no curl\"\ndeny = [\"curl\"]\nverdict = \"alert\"\n";
    keep_secret(&folder.join("rules/new_client.toml"), &(rule + policy));
    let created = output(folder, &["topics", "create", "--config", "tokenwarden.toml"]);
    assert!(created.contains(&format!("{topic}.feedback: topic: exists, or was created")), "{created}");
    let service = Service::start(folder);
    let ask = |sql: &str| output(folder, &["sql", "--config", "tokenwarden.toml", "--output", "csv", sql]);
    let mut all = Vec::new();
    let mut send = |lines: Vec<String>| {
        KAFKA.produce(topic, lines.iter().map(|line| ("key", line.as_bytes())));
        all.extend(lines);
        let count = format!("SELECT count() = {} FROM token_events FINAL", all.len());
        let stored = || ask(&count).lines().nth(1).is_some_and(|line| line == "1" || line == "true").then_some(());
        eventually(Duration::from_secs(60), "all events are stored", stored)
            .unwrap_or_else(|| panic!("{}", read(&folder.join("log"))));
        std::fs::write(folder.join("all"), all.join("\n")).expect("a file");
    };
    let owner = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    let mut lines: Vec<_> = (0..60).map(|n| use_of_ann(&format!("own-{n}"), n * 8, owner, "192.0.2.10")).collect();
    lines.push(use_of_ann("curl", 481, "curl/8.5.0", "203.0.113.9"));
    send(lines);
    let found = ask("SELECT incident_id FROM token_events WHERE event_id = 'curl'");
    let incident = found.lines().nth(1).unwrap_or_else(|| panic!("{found}")).trim_matches('"');
    let arguments = ["feedback", incident, "benign", "--note", "a test", "--yes", "1", "--config", "tokenwarden.toml"];
    let printed = output(folder, &arguments);
    assert!(printed.contains("Detection learns from 1 event of 1 subject"), "{printed}");

    send(vec![use_of_ann("again-1", 500, "curl/8.5.0", "203.0.113.9")]);
    service.kill();
    let service = Service::start(folder);
    send(vec![use_of_ann("again-2", 501, "curl/8.5.0", "203.0.113.9")]);
    let records = KAFKA.read_all(&format!("{topic}.feedback")).into_iter().map(|read| {
        let text = |bytes| String::from_utf8(bytes).expect("JSON");
        format!("{{\"key\":{},\"state\":{}}}\n", text(read.key), text(read.payload))
    });
    let records = records.collect::<String>();
    assert!(records.lines().count() == 2 && records.contains(r#""placed":{"offset":61,"#), "{records}");
    keep_secret(&folder.join("feedback"), &records);
    let found = stored(folder);
    let with = differences(&replayed_with(folder, "all", &["--feedback", "feedback"]), &found);
    assert!(with.is_empty(), "{with:?}\n{}", read(&folder.join("log")));
    let mut without = differences(&replayed(folder, "all"), &found);
    without.sort();
    assert_eq!(without, ["again-1", "again-2"], "the feedback changes their scores");
    drop(service);
}

/// Payload of each message of the topic of verdicts, by the header `verdict_id`. A repeated message has the same payload.
fn sent_verdicts(topic: &str) -> BTreeMap<String, String> {
    let mut verdicts = BTreeMap::new();
    for read in KAFKA.read_all(topic) {
        let id = read.headers.iter().find(|(key, _)| key == "verdict_id").map(|(_, value)| value.clone());
        let payload = String::from_utf8(read.payload).expect("JSON");
        let before = verdicts.insert(id.expect("a header"), payload.clone());
        assert!(before.is_none_or(|before| before == payload), "two verdicts with one id");
    }
    verdicts
}

/// The topic of verdicts refuses those of the second half. The service is killed before it accepts them.
#[test]
fn killed_service_sends_the_verdict_on_each_event() {
    let (topic, verdicts) = ("state-verdicts", "state-verdicts.verdicts");
    KAFKA.create_topic(topic, 1);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let config = configure_guarded(folder, topic, "state_topic = true\nverdicts_topic = true\n");
    let lines = simulated();
    let events: Vec<&[u8]> = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let events = &events[..4_000];
    let (before, after) = events.split_at(events.len() / 2);
    std::fs::write(folder.join("all"), events.join(&b'\n')).expect("a file");
    let arguments = ["replay", "all", "--config", "tokenwarden.toml", "--store", "none", "--verdicts", "-"];
    let mut expected: Vec<_> = output(folder, &arguments).lines().map(str::to_owned).collect();
    let ids = replayed(folder, "all").len();

    KAFKA.produce(topic, before.iter().map(|event| ("key", *event)));
    let service = Service::start(folder);
    let offset = format!("  {topic} 0: next offset 2,000\n");
    let saved = || output(folder, &["state", "show", "--config", "tokenwarden.toml"]).contains(&offset).then_some(());
    eventually(Duration::from_secs(60), "a snapshot of the first half is stored", saved)
        .unwrap_or_else(|| panic!("{}", read(&folder.join("log"))));
    let sent = sent_verdicts(verdicts).len();
    KAFKA.deny(Operation::RD_KAFKA_ACL_OPERATION_WRITE, verdicts, true);
    KAFKA.produce(topic, after.iter().map(|event| ("key", *event)));
    let all_stored = || (stored(folder).len() == ids).then_some(());
    eventually(Duration::from_secs(60), "all rows are stored", all_stored)
        .unwrap_or_else(|| panic!("{}", read(&folder.join("log"))));
    let listen = config.split("listen = '").nth(1).and_then(|rest| rest.split('\'').next()).expect("an address");
    let reported = || ask(listen, "/readyz").contains("\nverdict_topic: ").then_some(());
    eventually(Duration::from_secs(30), "the topic is reported", reported).expect("the topic is reported");
    assert_eq!(KAFKA.committed(topic, topic), Some(before.len() as i64));
    assert_eq!(sent_verdicts(verdicts).len(), sent);
    service.kill();

    KAFKA.deny(Operation::RD_KAFKA_ACL_OPERATION_WRITE, verdicts, false);
    let service = Service::start(folder);
    let committed = || (KAFKA.committed(topic, topic) == Some(events.len() as i64)).then_some(());
    eventually(Duration::from_secs(60), "all events are committed", committed)
        .unwrap_or_else(|| panic!("{}", read(&folder.join("log"))));
    let mut found: Vec<_> = sent_verdicts(verdicts).into_values().collect();
    expected.sort();
    found.sort();
    assert_eq!(found.len(), expected.len());
    assert!(found == expected, "the verdicts are those of `replay`");
    assert!(sent > 0 && found.len() > sent, "{sent} of {} before the kill", found.len());
    drop(service);
}

/// User and system time of a process.
fn cpu_seconds(process: &Child) -> f64 {
    let stat = read(Path::new(&format!("/proc/{}/stat", process.id())));
    let times = stat.rsplit(')').next().expect("fields").split_whitespace().skip(11).take(2);
    times.map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

/// CPU seconds of a service with `setting` that reads the whole topic.
fn cost(topic: &str, run: &str, messages: usize, setting: &str) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    configure(folder, folder, topic, 1_000, "");
    let file = folder.join("tokenwarden.toml");
    let config = read(&file);
    let config = config.replace(&format!("group_id = '{topic}'"), &format!("group_id = '{run}'"));
    let config = config.replace(&format!("prefix = '{topic}'"), &format!("prefix = '{run}'"));
    std::fs::write(&file, config.replace("state_topic = true", setting)).expect("a file");
    let service = Service::start(folder);
    let done = eventually(Duration::from_secs(900), "all events are stored", || {
        (KAFKA.committed(run, topic)? == messages as i64).then_some(())
    });
    done.unwrap_or_else(|| panic!("{}", read(&folder.join("log"))));
    cpu_seconds(&service.0)
}

/// Prints the cost of snapshots at the shortest interval, and compares it with the same work without snapshots.
#[test]
#[ignore = "a measurement of several minutes"]
#[allow(clippy::print_stdout, reason = "the figures are the result")]
fn snapshots_cost_less_than_a_tenth() {
    let topic = "state-cost";
    KAFKA.create_topic(topic, 1);
    let mut lines = Vec::new();
    let mut simulation = Simulation::new(Settings::fortnight(START));
    while simulation.next_day(&mut lines) {}
    let events: Vec<&[u8]> = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    KAFKA.produce(topic, events.iter().map(|event| ("key", *event)));
    let mut sums = [0.0; 2];
    for round in 0..3 {
        for (at, setting) in ["state_topic = false", "state_topic = true"].into_iter().enumerate() {
            let cpu = cost(topic, &format!("{topic}-{round}-{at}"), events.len(), setting);
            println!("{} events, {setting}: {cpu:.1} s of CPU", events.len());
            sums[at] += cpu;
        }
    }
    let ratio = sums[1] / sums[0];
    println!("CPU time with snapshots every second, to without: {ratio:.3}");
    assert!(ratio < 1.1, "{ratio}");
}
