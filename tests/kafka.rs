//! The Kafka source against a real Apache Kafka.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test that cannot go on says so")]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use support::kafka::Kafka;
use support::observer::Recorder;
use support::process::{cache, free_port, keep_one_rule};
use tokenwarden::checkpoint::{Checkpoint, DeadLetter, Position, Spot};
use tokenwarden::notify::{ChannelSettings, open_channel};
use tokenwarden::port::{Alert, DeliveryError, Message, MessageTopic, Notice, Polled, Source as _, SourceError};
use tokenwarden::rule::RuleSet;
use tokenwarden::source::kafka::{self, AlertTopic, KafkaSettings, KafkaSource, StateTopicUse, Topic};
use tokenwarden::telemetry::SystemClock;
use tokenwarden::wire::Format;

static KAFKA: LazyLock<Kafka> = LazyLock::new(Kafka::start);

fn settings(topic: &str) -> KafkaSettings {
    KafkaSettings {
        brokers: KAFKA.brokers.clone(),
        topics: vec![Topic { topic: topic.to_owned(), feed: Format::Native.into() }],
        group_id: format!("group of {topic}"),
        prefix: topic.to_owned(),
        properties: BTreeMap::new(),
        allow_plaintext: false,
        remember_messages_max: 0,
        state_topic: StateTopicUse::Never,
        verdicts_topic: false,
        rekey: false,
        sightings_topic: false,
    }
}

fn open(settings: &KafkaSettings) -> KafkaSource {
    KafkaSource::open(settings, Recorder::new()).expect("the source opens")
}

fn refusal(settings: &KafkaSettings) -> (String, Duration) {
    let began = Instant::now();
    match KafkaSource::open(settings, Recorder::new()) {
        Ok(_) => panic!("the source opened"),
        Err(SourceError::Misconfigured(reason)) => (format!("misconfigured: {reason}"), began.elapsed()),
        Err(error) => (error.to_string(), began.elapsed()),
    }
}

/// Reads until `count` messages have arrived: (partition, offset, payload, replayed).
fn read(source: &mut KafkaSource, count: usize) -> Vec<(i32, i64, String, bool)> {
    let mut read = Vec::new();
    let began = Instant::now();
    while read.len() < count && began.elapsed() < Duration::from_secs(20) {
        let polled = source.poll(count - read.len(), Duration::from_millis(100), &mut |message| {
            let payload = String::from_utf8_lossy(message.payload).into_owned();
            read.push((message.position.partition, message.position.offset, payload, message.replayed));
        });
        if let Ok(Polled::Revoked(_) | Polled::Lost) = polled {
            source.release().expect("the partitions are released");
        }
        polled.expect("the source is polled");
    }
    read
}

fn checkpoint(topic: &str, offset: i64) -> Checkpoint {
    Checkpoint { next: vec![Position::new(topic, 0, offset)] }
}

fn numbered(topic: &str, count: usize) {
    let payloads: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    KAFKA.produce(topic, payloads.iter().map(|payload| ("k", payload.as_bytes())));
}

#[test]
fn committed_messages_are_not_read_again() {
    let topic = "committed";
    KAFKA.create_topic(topic, 1);
    numbered(topic, 10);
    let mut source = open(&settings(topic));
    assert_eq!(read(&mut source, 10).len(), 10);
    source.commit(&checkpoint(topic, 7), &[]).expect("the offsets are committed");
    drop(source);
    let mut source = open(&settings(topic));
    let again: Vec<_> = read(&mut source, 3).into_iter().map(|(_, offset, ..)| offset).collect();
    assert_eq!(again, [7, 8, 9]);
}

#[test]
fn history_before_the_commit_is_read_again() {
    let topic = "remembered";
    KAFKA.create_topic(topic, 1);
    numbered(topic, 10);
    let mut remembering = settings(topic);
    remembering.remember_messages_max = 4;
    let mut source = open(&remembering);
    assert!(read(&mut source, 10).iter().all(|(.., replayed)| !replayed));
    source.commit(&checkpoint(topic, 7), &[]).expect("the offsets are committed");
    drop(source);
    let mut source = open(&remembering);
    let again: Vec<_> = read(&mut source, 7).into_iter().map(|(_, offset, _, replayed)| (offset, replayed)).collect();
    assert_eq!(again, [(3, true), (4, true), (5, true), (6, true), (7, false), (8, false), (9, false)]);
}

#[test]
fn paused_partition_loses_no_message() {
    let topic = "paused";
    KAFKA.create_topic(topic, 1);
    numbered(topic, 5_000);
    let mut source = open(&settings(topic));
    let mut offsets: Vec<i64> = read(&mut source, 1_000).into_iter().map(|(_, offset, ..)| offset).collect();
    for _ in 0..10 {
        let polled = source.poll(0, Duration::from_millis(20), &mut |_| panic!("there is no room")).expect("a poll");
        assert_eq!(polled, Polled::Messages(0));
    }
    offsets.extend(read(&mut source, 4_000).into_iter().map(|(_, offset, ..)| offset));
    assert_eq!(offsets, (0..5_000).collect::<Vec<i64>>());
}

#[test]
fn second_member_waits_for_the_first() {
    let topic = "shared";
    KAFKA.create_topic(topic, 4);
    let settings = settings(topic);
    let keys: Vec<String> = (0..400).map(|number| format!("key {number}")).collect();
    let produce = |keys: &[String]| KAFKA.produce(topic, keys.iter().map(|key| (key.as_str(), key.as_bytes())));
    produce(&keys[..200]);
    let mut first = open(&settings);
    let mut done = Checkpoint::default();
    for (partition, offset, ..) in read(&mut first, 200) {
        done.advance(&Position::new(topic, partition, offset));
    }

    let mut second = open(&settings);
    let moved = poll_until_revoked(&mut first, &mut second);
    for _ in 0..10 {
        second.poll(10, Duration::from_millis(50), &mut |_| panic!("both have it")).expect("the second polls");
    }
    first.commit(&done, &[]).expect("the offsets are committed");
    first.release().expect("the partitions are released");

    produce(&keys[200..]);
    let mut seen = HashSet::new();
    let mut by_second = 0;
    let began = Instant::now();
    while seen.len() < 200 && began.elapsed() < Duration::from_secs(20) {
        let mut take = |message: Message<'_>, moved_here: bool| {
            let key = String::from_utf8_lossy(message.payload).into_owned();
            assert!(seen.insert(key.clone()), "{key} came twice");
            assert_eq!(moved.contains(&message.position.partition), moved_here);
        };
        let wait = Duration::from_millis(20);
        first.poll(100, wait, &mut |message| take(message, false)).expect("the first polls");
        second
            .poll(100, wait, &mut |message| {
                by_second += 1;
                take(message, true);
            })
            .expect("the second polls");
    }
    assert_eq!(seen, keys[200..].iter().cloned().collect());
    assert!(by_second > 0, "the second reads no message");
}

/// Polls both until partitions of `first` are revoked, and returns them.
fn poll_until_revoked(first: &mut KafkaSource, second: &mut KafkaSource) -> Vec<i32> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        let wait = Duration::from_millis(50);
        let polled = first.poll(10, wait, &mut |_| panic!("all is read")).expect("the first polls");
        if let Polled::Revoked(partitions) = polled {
            return partitions.into_iter().map(|(_, number)| number).collect();
        }
        second.poll(10, wait, &mut |_| panic!("the first has them all")).expect("the second polls");
    }
    panic!("nothing was revoked");
}

#[test]
fn dead_letters_keep_bytes_position_and_reason() {
    let topic = "dead";
    KAFKA.create_topic(topic, 1);
    let mut source = open(&settings(topic));
    let letter = DeadLetter {
        position: Position::new(topic, 0, 41),
        received_at: 0,
        reason: "not JSON: looks like gzip".to_owned(),
        at: Some(Spot { byte: 4, line: 1, column: 5 }),
        payload: vec![0xff, 0x00, b'x'],
    };
    let large = DeadLetter { payload: vec![b'x'; 3_000_000], ..letter.clone() };
    source.commit(&Checkpoint::default(), &[letter, large]).expect("the letters are sent");
    let read = KAFKA.consume("dead.dead-letters", 2);
    assert_eq!(read[0].payload, [0xff, 0x00, b'x']);
    let header = |name: &str| read[0].headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!(header("source_topic"), Some(topic));
    assert_eq!(header("source_partition"), Some("0"));
    assert_eq!(header("source_offset"), Some("41"));
    assert_eq!(header("reason"), Some("not JSON: looks like gzip"));
    assert_eq!(header("place"), Some("line 1 column 5 (byte 4)"));
    assert_eq!(read[1].payload.len(), 900_000);
    assert!(read[1].headers.contains(&("cut_from_bytes".to_owned(), "3000000".to_owned())));
}

#[test]
fn connection_errors_name_the_cause() {
    let (said, _) = refusal(&settings("no-such-topic"));
    assert!(said.contains("has no topic `no-such-topic`; create it or correct source.kafka.topics"), "{said}");

    KAFKA.create_topic("refused", 1);
    let mut wrong = settings("refused");
    wrong.brokers = "127.0.0.1:9".to_owned();
    let (said, took) = refusal(&wrong);
    assert!(said.contains("127.0.0.1:9") && said.contains("refused"), "{said}");
    assert!(took < Duration::from_secs(15), "{took:?}");

    let mut wrong = settings("refused");
    wrong.brokers = KAFKA.guarded.clone();
    let sasl = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "tokenwarden"),
        ("sasl.password", "right"),
    ];
    wrong.properties = sasl.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    kafka::check(&wrong).expect("the right password opens");
    wrong.properties.insert("sasl.password".to_owned(), "wr0ng-secret".to_owned());
    let (said, took) = refusal(&wrong);
    assert!(said.contains("uthentication failed"), "{said}");
    assert!(!said.contains("wr0ng-secret"), "{said}");
    assert!(took < Duration::from_secs(5), "{took:?}");

    let mut wrong = settings("refused");
    wrong.properties.insert("sasl.pasword".to_owned(), "x".to_owned());
    let (said, _) = refusal(&wrong);
    assert!(said.starts_with("misconfigured") && said.contains("sasl.pasword"), "{said}");
    let mut wrong = settings("refused");
    wrong.properties.insert("enable.auto.commit".to_owned(), "true".to_owned());
    let (said, _) = refusal(&wrong);
    assert!(said.contains("may not set `enable.auto.commit`"), "{said}");
}

#[test]
fn commands_end_with_one_line_naming_the_key() {
    KAFKA.create_topic("commands", 1);
    let sasl = "'security.protocol' = 'SASL_PLAINTEXT'\n'sasl.mechanism' = 'PLAIN'\n'sasl.username' = 'tokenwarden'\n\
                'sasl.password' = 'wr0ng-secret'\n";
    let absent = format!("127.0.0.1:{}", free_port());
    let no_topic = "no-such-topic: topic: does not exist; create it or correct source.kafka.topics";
    let cases = [
        (
            &KAFKA.brokers,
            "no-such-topic",
            "",
            "has no topic `no-such-topic`; create it or correct source.kafka.topics",
            Some(no_topic),
        ),
        (&absent, "commands", "", "does not answer (source.kafka.brokers): ", None),
        (&KAFKA.guarded, "commands", sasl, "refuses the login (source.kafka.properties): ", None),
    ];
    let began = Instant::now();
    // All at once, because most of them wait for a timeout.
    let running = cases.map(|(brokers, topic, properties, told, of_topic)| {
        let folder = tempfile::tempdir().expect("a folder");
        keep_one_rule(folder.path());
        let text = format!("rules_dir = 'rules'\n[source.kafka]\nbrokers = '{brokers}'\ntopics = ['{topic}']\n[source.kafka.properties]\n");
        std::fs::write(folder.path().join("t.toml"), text + properties).expect("a configuration");
        let start = |command: &str| {
            Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
                .args([command, "--config", "t.toml"])
                .current_dir(folder.path())
                .env_clear()
                .env("TOKENWARDEN_CACHE", cache())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("tokenwarden runs")
        };
        let told = format!("Kafka at {brokers} {told}");
        let checked = of_topic.map_or_else(|| told.clone(), str::to_owned);
        (start("validate"), checked, start("run"), told, folder)
    });
    for (validate, checked, run, told, _folder) in running {
        let end = |child: Child| {
            let output = child.wait_with_output().expect("it ends");
            let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
            assert_eq!(output.status.code(), Some(69), "{said:?}");
            assert!(!said.concat().contains("wr0ng-secret"), "{said:?}");
            said
        };
        let [checks, _] = end(validate);
        let failed: Vec<_> = checks.lines().filter(|line| line.starts_with("FAILED")).collect();
        assert!(failed.len() == 1 && failed[0].starts_with(&format!("FAILED  Kafka: {checked}")), "{checks}");
        let [_, said] = end(run);
        let (ends, logged): (Vec<_>, Vec<_>) = said.lines().partition(|line| line.starts_with("tokenwarden: "));
        assert!(ends.len() == 1 && ends[0].starts_with(&format!("tokenwarden: {told}")), "{said}");
        // The remaining lines are the log: one JSON object each, without repeated keys.
        for line in logged {
            let object = serde_json::from_str::<BTreeMap<String, serde_json::Value>>(line).expect("JSON");
            assert_eq!(line.matches("\"message\":").count(), 1, "{object:?}");
        }
    }
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
}

/// Alerts in a topic: the topic and the brokers of the source, at least once.
#[tokio::test]
async fn findings_are_sent_to_a_topic() {
    let name = "findings-of-alerts";
    KAFKA.create_topic(name, 1);
    KAFKA.create_topic_with("findings-too-small", 1, &[("max.message.bytes", "200")]);
    let (_, rules) = tokio::sync::watch::channel(Arc::new(RuleSet::builtin()));
    let open = |topic: &str| {
        let open_topic = |topic: &str| -> Result<Arc<dyn MessageTopic>, String> {
            Ok(Arc::new(AlertTopic::new(&settings("token-events"), topic)?))
        };
        let section: ChannelSettings =
            toml::from_str(&format!("kind = 'ocsf_kafka'\ntopic = '{topic}'")).expect("settings");
        open_channel("siem", &section, rules.clone(), Arc::new(SystemClock), &open_topic)
            .map(|mut opened| opened.remove(0))
    };
    let notice = |title: &str| Notice { title: title.to_owned(), text: "x".to_owned(), at: 5, about: None };
    let channel = open(name).expect("a channel");
    channel.probe().await.expect("the topic exists");
    for title in ["first", "second \u{202e}\u{1b}[2J"] {
        channel.notify(Alert::Notice(&notice(title)), &format!("key of {title}")).await.expect("it is accepted");
    }
    let raw = KAFKA.consume(name, 2);
    let sent: Vec<serde_json::Value> =
        raw.iter().map(|read| serde_json::from_slice(&read.payload).expect("JSON")).collect();
    assert_eq!((&sent[0]["class_uid"], &sent[0]["metadata"]["uid"]), (&2004.into(), &"key of first".into()));
    assert_eq!(sent[1]["metadata"]["uid"], "key of second \u{202e}\u{1b}[2J");
    let text = String::from_utf8_lossy(&raw[1].payload);
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "escaped: {text}");
    let small = open("findings-too-small").expect("a channel");
    let refused = small.notify(Alert::Notice(&notice("first")), "key").await;
    assert!(matches!(refused, Err(DeliveryError::Permanent { .. })), "it stays too large: {refused:?}");
    let missing = open("findings-missing").expect("a channel").probe().await;
    assert!(matches!(missing, Err(DeliveryError::Retriable { .. })), "{missing:?}");
    for (topic, problem) in [
        ("token-events", "is a topic of source.kafka.topics"),
        ("token-events.denylist", "begins with `token-events.`"),
        ("a/b", "is not the name of a topic"),
    ] {
        let (key, found) = open(topic).err().expect("a mistake");
        assert!(key == "topic" && found.starts_with(problem), "{topic}: {found}");
    }
}
