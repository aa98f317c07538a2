//! The Kafka source with a real Apache Kafka that loses messages, replaces topics, refuses dead letters or hangs.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test that cannot go on says so")]

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use support::acl::Operation;
use support::kafka::Kafka;
use support::observer::Recorder;
use support::process::{cache, eventually, keep_one_rule};
use tokenwarden::checkpoint::{Checkpoint, DeadLetter, Position};
use tokenwarden::port::{Condition, GapKind, OffsetGap, Polled, ResultRecord, Source as _};
use tokenwarden::source::kafka::{self, KafkaSettings, KafkaSource, Level, StateTopicUse, Topic};
use tokenwarden::wire::Format;

static KAFKA: LazyLock<Kafka> = LazyLock::new(Kafka::start);

fn settings(kafka: &Kafka, topic: &str) -> KafkaSettings {
    KafkaSettings {
        brokers: kafka.brokers.clone(),
        topics: vec![Topic { topic: topic.to_owned(), feed: Format::Native.into() }],
        group_id: group(topic),
        prefix: topic.to_owned(),
        // The default would make tests wait for 30 s.
        properties: BTreeMap::from([("topic.metadata.refresh.interval.ms".to_owned(), "1000".to_owned())]),
        allow_plaintext: false,
        remember_messages_max: 0,
        state_topic: StateTopicUse::Never,
        verdicts_topic: false,
        rekey: false,
        sightings_topic: false,
    }
}

fn group(topic: &str) -> String {
    format!("group of {topic}")
}

/// A source with its reports, and the offsets of the messages that it returned.
struct Member {
    source: KafkaSource,
    observer: Arc<Recorder>,
    /// Partition, offset, and whether the message is only for rebuilding.
    read: Vec<(i32, i64, bool)>,
}

impl Member {
    fn open(settings: &KafkaSettings) -> Self {
        let observer = Recorder::new();
        let source = KafkaSource::open(settings, Arc::clone(&observer) as Arc<_>).expect("the source opens");
        Self { source, observer, read: Vec::new() }
    }

    /// Polls once for at most `max` messages.
    fn poll(&mut self, max: usize) {
        let read = &mut self.read;
        let polled = self.source.poll(max, Duration::from_millis(50), &mut |message| {
            read.push((message.position.partition, message.position.offset, message.replayed));
        });
        if let Polled::Revoked(_) | Polled::Lost = polled.expect("the source is polled") {
            self.source.release().expect("the partitions are released");
        }
    }

    /// Polls until `done`.
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let found = eventually(Duration::from_secs(40), what, || {
            self.poll(1_000);
            done(self).then_some(())
        });
        assert!(found.is_some(), "{what}: {:?}, {:?}", self.read, self.observer.gaps());
    }

    /// Reads `count` messages, and then waits to detect further ones.
    fn read(&mut self, count: usize) -> Vec<i64> {
        self.until("the messages are read", |member| member.read.len() >= count);
        for _ in 0..10 {
            self.poll(1_000);
        }
        std::mem::take(&mut self.read).into_iter().map(|(_, offset, _)| offset).collect()
    }

    fn commit(&mut self, topic: &str, offset: i64, letters: &[DeadLetter]) {
        let checkpoint = Checkpoint { next: vec![Position::new(topic, 0, offset)] };
        self.source.commit(&checkpoint, letters).expect("the offset is committed");
    }

    fn kinds(&self) -> Vec<(GapKind, i64, i64)> {
        self.observer.gaps().iter().map(|gap| (gap.kind, gap.expected, gap.resumed)).collect()
    }
}

fn produce(kafka: &Kafka, topic: &str, count: usize) {
    let payloads: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    kafka.produce(topic, payloads.iter().map(|payload| ("k", payload.as_bytes())));
}

#[test]
fn offset_beyond_the_end_resumes_at_the_earliest() {
    let topic = "beyond";
    KAFKA.create_topic(topic, 1);
    produce(&KAFKA, topic, 10);
    KAFKA.commit(&group(topic), topic, 500, "");
    let mut member = Member::open(&settings(&KAFKA, topic));
    member.until("all is read", |member| member.read.len() == 10);
    assert!(member.read.iter().all(|(.., replayed)| !replayed), "all of them are scored: {:?}", member.read);
    let gap =
        OffsetGap { kind: GapKind::BeyondEnd, topic: topic.into(), partition: 0, expected: 500, resumed: 0, end: 10 };
    assert_eq!(member.observer.gaps(), [gap]);
    assert!(member.observer.holds(Condition::OffsetGap));
    member.commit(topic, 10, &[]);
    member.until("a commit repairs the offset", |member| !member.observer.holds(Condition::OffsetGap));
    drop(member);
    assert_eq!(KAFKA.committed(&group(topic), topic), Some(10));
}

#[test]
fn offset_within_the_log_is_no_gap() {
    let topic = "within";
    KAFKA.create_topic(topic, 1);
    produce(&KAFKA, topic, 10);
    for (offset, rest) in [(4, vec![4, 5, 6, 7, 8, 9]), (10, vec![])] {
        KAFKA.commit(&group(topic), topic, offset, "written by another tool");
        let mut member = Member::open(&settings(&KAFKA, topic));
        member.until("partitions are assigned", |member| !member.observer.holds(Condition::NoPartitions));
        assert_eq!(member.read(rest.len()), rest);
        assert_eq!(member.kinds(), []);
        assert!(!member.observer.has_held(Condition::OffsetGap));
    }
}

#[test]
fn messages_deleted_unread_are_counted() {
    let topic = "deleted";
    KAFKA.create_topic(topic, 1);
    produce(&KAFKA, topic, 10);
    KAFKA.commit(&group(topic), topic, 2, "");
    KAFKA.delete_records(topic, 6);
    let mut member = Member::open(&settings(&KAFKA, topic));
    assert_eq!(member.read(4), [6, 7, 8, 9]);
    assert_eq!(member.kinds(), [(GapKind::Deleted, 2, 6)]);
    assert_eq!(member.observer.gaps()[0].lost(), 4);

    // The same while the partition is paused because the worker has no room.
    for _ in 0..5 {
        member.poll(0);
    }
    produce(&KAFKA, topic, 10);
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..5 {
        member.poll(0);
    }
    KAFKA.delete_records(topic, 20);
    produce(&KAFKA, topic, 3);
    member.until("the last message is read", |member| member.read.last().is_some_and(|(_, offset, _)| *offset == 22));
    let lost: u64 = member.observer.gaps()[1..].iter().map(OffsetGap::lost).sum();
    assert_eq!(member.read.len() as u64 + lost, 13, "every message is read or counted: {:?}", member.kinds());
}

#[test]
fn offset_of_other_topic_id_resumes_at_earliest() {
    let topic = "copied";
    KAFKA.create_topic(topic, 1);
    produce(&KAFKA, topic, 10);
    // As committed for a topic of the same name, before it was deleted and created again.
    KAFKA.commit(&group(topic), topic, 5, "topic-id=AQIDBAUGBwgJCgsMDQ4PEA");
    let mut member = Member::open(&settings(&KAFKA, topic));
    assert_eq!(member.read(10), (0..10).collect::<Vec<_>>());
    assert_eq!(member.kinds(), [(GapKind::Recreated, 5, 0)]);
    member.commit(topic, 7, &[]);
    member.until("the offset is committed", |member| !member.observer.holds(Condition::OffsetGap));
    drop(member);
    // The id of this topic is committed with it.
    let mut member = Member::open(&settings(&KAFKA, topic));
    assert_eq!(member.read(3), [7, 8, 9]);
    assert_eq!(member.kinds(), []);
}

#[test]
fn recreated_topic_is_read_from_its_start() {
    for (topic, again) in [("again-shorter", 3), ("again-longer", 30)] {
        KAFKA.create_topic(topic, 1);
        produce(&KAFKA, topic, 10);
        let mut member = Member::open(&settings(&KAFKA, topic));
        assert_eq!(member.read(10).len(), 10);
        member.commit(topic, 10, &[]);
        KAFKA.delete_topic(topic);
        KAFKA.create_topic(topic, 1);
        produce(&KAFKA, topic, again);
        let all: Vec<i64> = (0..again as i64).collect();
        member.until("all of the new topic is read", |member| {
            let mut offsets: Vec<_> = member.read.iter().map(|(_, offset, _)| *offset).collect();
            offsets.sort_unstable();
            offsets.dedup();
            offsets == all
        });
        member.until("it is reported", |member| !member.observer.gaps().is_empty());
        assert!(member.observer.gaps().iter().all(|gap| gap.resumed == 0), "{:?}", member.kinds());
        member.commit(topic, again as i64, &[]);
        member.until("its offset is committed", |member| !member.observer.holds(Condition::OffsetGap));
        drop(member);
        assert_eq!(KAFKA.committed(&group(topic), topic), Some(again as i64));
    }
}

#[test]
fn missing_topic_is_reported_until_it_returns() {
    let topic = "away";
    KAFKA.create_topic(topic, 1);
    produce(&KAFKA, topic, 2);
    let mut member = Member::open(&settings(&KAFKA, topic));
    assert_eq!(member.read(2), [0, 1]);
    assert!(!member.observer.has_held(Condition::SourceTopic));
    KAFKA.delete_topic(topic);
    member.until("it is missed", |member| member.observer.holds(Condition::SourceTopic));
    // Its last offsets can no longer be committed. This is reported until the partition is removed.
    member.commit(topic, 2, &[]);
    KAFKA.create_topic(topic, 1);
    produce(&KAFKA, topic, 5);
    assert_eq!(member.read(5), [0, 1, 2, 3, 4]);
    member.until("it is there", |member| !member.observer.holds(Condition::SourceTopic));
    member.commit(topic, 5, &[]);
    member.until("it is committed", |member| !member.observer.holds(Condition::Commit));
    eventually(Duration::from_secs(10), "the offset is there", || {
        (KAFKA.committed(&group(topic), topic) == Some(5)).then_some(())
    })
    .expect("the offset is committed");
}

#[test]
fn added_partitions_are_read_from_their_start() {
    let topic = "grown";
    KAFKA.create_topic(topic, 1);
    let mut member = Member::open(&settings(&KAFKA, topic));
    member.until("partitions are assigned", |member| !member.observer.holds(Condition::NoPartitions));
    KAFKA.add_partitions(topic, 4);
    let keys: Vec<String> = (0..200).map(|number| format!("key {number}")).collect();
    KAFKA.produce(topic, keys.iter().map(|key| (key.as_str(), key.as_bytes())));
    member.until("all is read", |member| member.read.len() == 200);
    let last = member.read.iter().map(|(partition, ..)| *partition).max();
    assert_eq!(last, Some(3));
    assert_eq!(member.kinds(), []);
}

#[test]
fn member_without_partitions_is_ready() {
    let topic = "crowded";
    KAFKA.create_topic(topic, 1);
    produce(&KAFKA, topic, 1);
    let mut first = Member::open(&settings(&KAFKA, topic));
    assert!(first.observer.holds(Condition::NoPartitions), "nothing is assigned yet");
    first.until("the first has it", |first| !first.observer.holds(Condition::NoPartitions));
    let mut second = Member::open(&settings(&KAFKA, topic));
    assert!(second.observer.holds(Condition::NoPartitions), "nothing is assigned yet");
    let ready = eventually(Duration::from_secs(30), "both are ready", || {
        first.poll(100);
        second.poll(100);
        (!first.observer.holds(Condition::NoPartitions) && !second.observer.holds(Condition::NoPartitions))
            .then_some(())
    });
    assert!(ready.is_some());
    assert_eq!(first.read.len() + second.read.len(), 1);
}

#[test]
fn rebuilding_ends_at_the_committed_offset() {
    let topic = "rebuilt";
    KAFKA.create_topic(topic, 1);
    produce(&KAFKA, topic, 20);
    KAFKA.commit(&group(topic), topic, 20, "");
    let mut member = Member::open(&KafkaSettings { remember_messages_max: 15, ..settings(&KAFKA, topic) });
    let began = |member: &mut Member| {
        // One message per poll.
        member.poll(1);
        member.observer.holds(Condition::Rebuilding).then_some(())
    };
    eventually(Duration::from_secs(20), "it rebuilds", || began(&mut member)).expect("it rebuilds");
    while member.read.len() < 15 {
        assert!(member.observer.holds(Condition::Rebuilding), "after {} messages", member.read.len());
        member.poll(1);
    }
    assert!(!member.observer.holds(Condition::Rebuilding));
    assert!(member.read.iter().all(|(.., replayed)| *replayed));
}

#[test]
fn assignment_does_not_block_polling() {
    let topic = "hanging";
    let kafka = Kafka::start();
    kafka.create_topic(topic, 3);
    produce(&kafka, topic, 10);
    let mut member = Member::open(&settings(&kafka, topic));
    kafka.until_stable(&group(topic));
    kafka.freeze();
    // Partitions are assigned, and the brokers do not respond with their offsets.
    let mut longest = Duration::ZERO;
    for _ in 0..100 {
        let began = Instant::now();
        member.poll(100);
        longest = longest.max(began.elapsed());
        assert!(member.observer.holds(Condition::NoPartitions));
    }
    assert!(longest < Duration::from_secs(1), "a poll took {longest:?}");
    kafka.thaw();
    member.until("all is read", |member| member.read.len() == 10);
    assert!(!member.observer.holds(Condition::NoPartitions));
}

fn letter(topic: &str) -> DeadLetter {
    DeadLetter {
        position: Position::new(topic, 0, 41),
        received_at: 0,
        at: None,
        reason: "no JSON at line 1, column 1".to_owned(),
        payload: vec![b'x'; 2_000],
    }
}

/// Commits with a dead letter, waits until the offset is committed and the topic is reported, repairs it by `repair`, and
/// waits until the letter is there.
fn refused(topic: &str, settings: &KafkaSettings, repair: impl Fn()) {
    let mut member = Member::open(settings);
    assert_eq!(member.read(1), [0]);
    let began = Instant::now();
    member.commit(topic, 1, &[letter(topic)]);
    assert!(began.elapsed() < Duration::from_millis(500), "the commit took {:?}", began.elapsed());
    let committed = || (KAFKA.committed(&group(topic), topic) == Some(1)).then_some(());
    eventually(Duration::from_secs(5), "the offset is committed", committed).expect("the offset is committed");
    member.observer.until(Condition::DeadLetterTopic, true);
    produce(&KAFKA, topic, 1);
    assert_eq!(member.read(1), [1], "later messages are read");
    repair();
    member.observer.until(Condition::DeadLetterTopic, false);
    let read = KAFKA.consume(&format!("{topic}.dead-letters"), 1);
    assert!(read[0].payload.starts_with(b"xxx"), "the dead letter is sent");
    assert_eq!(member.observer.dropped(), 0);
}

#[test]
fn too_large_dead_letter_blocks_nothing() {
    let topic = "tiny";
    KAFKA.create_topic(topic, 1);
    KAFKA.create_topic_with("tiny.dead-letters", 1, &[("max.message.bytes", "100")]);
    produce(&KAFKA, topic, 1);
    refused(topic, &settings(&KAFKA, topic), || {
        KAFKA.configure_topic("tiny.dead-letters", "max.message.bytes", "1000000");
    });
}

/// Settings with the user that [`Kafka::deny`] restricts.
fn guarded(topic: &str) -> KafkaSettings {
    let mut guarded = settings(&KAFKA, topic);
    guarded.brokers.clone_from(&KAFKA.guarded);
    for (key, value) in [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "tokenwarden"),
        ("sasl.password", "right"),
    ] {
        guarded.properties.insert(key.to_owned(), value.to_owned());
    }
    guarded
}

#[test]
fn forbidden_dead_letter_blocks_nothing() {
    let topic = "denied";
    KAFKA.create_topic(topic, 1);
    KAFKA.create_topic("denied.dead-letters", 1);
    let deny = |denied| KAFKA.deny(Operation::RD_KAFKA_ACL_OPERATION_WRITE, "denied.dead-letters", denied);
    deny(true);
    produce(&KAFKA, topic, 1);
    refused(topic, &guarded(topic), || deny(false));
}

#[test]
fn forbidden_verdict_delays_only_the_commit() {
    let (topic, verdicts) = ("judged", "judged.verdicts");
    KAFKA.create_topic(topic, 2);
    let settings = KafkaSettings { verdicts_topic: true, ..guarded(topic) };
    let text = |findings: &[kafka::Finding], what: &str| {
        let found = findings.iter().find(|finding| finding.topic == verdicts && finding.what == what);
        found.map(|finding| (finding.level, finding.text.clone())).expect("the topic is checked")
    };
    let (level, missing) = text(&kafka::check(&settings).expect("the broker answers"), "topic");
    assert!(level == Level::Failed && missing.starts_with("does not exist"), "{missing}");
    let (level, created) = text(&kafka::create(&settings).expect("the broker answers"), "topic");
    assert!(level == Level::Ok && created.starts_with("created: 2 partitions, retention 7 days"), "{created}");
    let deny = |denied| {
        KAFKA.deny(Operation::RD_KAFKA_ACL_OPERATION_WRITE, verdicts, denied);
        KAFKA.allow(Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE, verdicts, denied);
    };
    deny(true);
    let (level, denied) = text(&kafka::check(&settings).expect("the broker answers"), "permission");
    assert_eq!((level, denied.as_str()), (Level::Failed, "we may not write to it (ACL)"));

    let produce = |count| {
        let payloads: Vec<String> = (0..count).map(|number: u8| number.to_string()).collect();
        KAFKA.produce_to(topic, 0, payloads.iter().map(String::as_bytes));
    };
    produce(3);
    let mut member = Member::open(&settings);
    assert_eq!(member.read(3), [0, 1, 2]);
    let record = |offset, index| ResultRecord {
        position: Position::new(topic, 0, offset),
        index,
        key: "user-1".to_owned(),
        json: format!("{{\"event_id\":\"{offset}-{index}\"}}").into_bytes(),
    };
    let began = Instant::now();
    member.source.publish(&mut vec![record(1, 0), record(1, 1)]);
    member.commit(topic, 3, &[letter(topic)]);
    assert!(began.elapsed() < Duration::from_millis(500), "it took {:?}", began.elapsed());
    assert_eq!(KAFKA.consume("judged.dead-letters", 1).len(), 1, "the dead letter does not wait");
    produce(1);
    assert_eq!(member.read(1), [3], "later messages are read");
    member.until("the topic is reported", |member| member.observer.holds(Condition::VerdictTopic));
    let committed = || KAFKA.committed(&group(topic), topic);
    member.until("the message without a verdict is committed", |_| committed() == Some(1));
    let position = Position::new(topic, 0, 3);
    assert!(!member.source.is_committed(&Checkpoint { next: vec![position.clone()] }));

    deny(false);
    member.until("all is committed", |member| member.source.is_committed(&Checkpoint { next: vec![position.clone()] }));
    assert_eq!(committed(), Some(3));
    assert!(!member.observer.holds(Condition::VerdictTopic));
    let read = KAFKA.consume(verdicts, 2);
    for (index, read) in read.iter().enumerate() {
        assert_eq!(read.payload, format!("{{\"event_id\":\"1-{index}\"}}").as_bytes());
        let headers = [
            ("verdict_id", format!("{topic}/0/1/{index}")),
            ("source_topic", topic.to_owned()),
            ("source_partition", "0".to_owned()),
            ("source_offset", "1".to_owned()),
            ("source_index", index.to_string()),
        ];
        assert_eq!(read.headers, headers.map(|(key, value)| (key.to_owned(), value)));
    }
    assert_eq!((read.len(), member.observer.verdicts_dropped()), (2, 0));
}

#[test]
fn forbidden_sighting_delays_only_the_commit() {
    let (topic, sightings) = ("sighted", "sighted.sightings");
    KAFKA.create_topic(topic, 1);
    let settings = KafkaSettings { sightings_topic: true, ..guarded(topic) };
    let findings = kafka::create(&settings).expect("the broker answers");
    let created = findings.iter().find(|finding| finding.topic == sightings).expect("the topic is created");
    assert!(created.text.starts_with("created: 1 partition, retention 3 days"), "{}", created.text);
    let deny = |denied| KAFKA.deny(Operation::RD_KAFKA_ACL_OPERATION_WRITE, sightings, denied);
    deny(true);
    produce(&KAFKA, topic, 3);
    let mut member = Member::open(&settings);
    assert_eq!(member.read(3), [0, 1, 2]);
    let record =
        ResultRecord { position: Position::new(topic, 0, 1), index: 0, key: "60781".to_owned(), json: b"{}".to_vec() };
    member.source.announce(&mut vec![record]);
    member.commit(topic, 3, &[]);
    member.until("the topic is reported", |member| member.observer.holds(Condition::SightingTopic));
    let committed = || KAFKA.committed(&group(topic), topic);
    member.until("the message without a sighting is committed", |_| committed() == Some(1));
    deny(false);
    member.until("all is committed", |_| committed() == Some(3));
    assert!(!member.observer.holds(Condition::SightingTopic));
    let read = KAFKA.consume(sightings, 1);
    assert_eq!((read[0].key.as_slice(), read[0].payload.as_slice()), (&b"60781"[..], &b"{}"[..]));
    assert_eq!(read[0].headers[0], ("sighting_id".to_owned(), format!("{topic}/0/1/0")));
    assert_eq!(member.observer.sightings_dropped(), 0);
}

#[test]
fn dead_letter_without_topic_blocks_nothing() {
    let topic = "absent";
    KAFKA.create_topic(topic, 1);
    let deny = |denied| KAFKA.deny(Operation::RD_KAFKA_ACL_OPERATION_CREATE, "absent.dead-letters", denied);
    deny(true);
    produce(&KAFKA, topic, 1);
    refused(topic, &guarded(topic), || deny(false));
}

#[test]
fn refused_commit_is_reported_and_retried() {
    let topic = "uncommitted";
    KAFKA.create_topic(topic, 1);
    produce(&KAFKA, topic, 3);
    let mut guarded = guarded(topic);
    // Otherwise the partition would be removed before the commit is retried.
    guarded.properties.insert("topic.metadata.refresh.interval.ms".to_owned(), "600000".to_owned());
    let mut member = Member::open(&guarded);
    assert_eq!(member.read(3), [0, 1, 2]);
    member.commit(topic, 1, &[]);
    // A paused partition is not fetched, so only the commit finds the missing permission.
    let until = |member: &mut Member, failed: bool| {
        eventually(Duration::from_secs(20), "the commit is answered", || {
            member.poll(0);
            (member.observer.holds(Condition::Commit) == failed).then_some(())
        })
        .unwrap_or_else(|| panic!("the commit has not failed: {failed}"));
    };
    for _ in 0..20 {
        member.poll(0);
    }
    assert!(!member.observer.has_held(Condition::Commit));
    let deny = |denied| KAFKA.deny(Operation::RD_KAFKA_ACL_OPERATION_READ, topic, denied);
    deny(true);
    member.commit(topic, 3, &[]);
    until(&mut member, true);
    assert_eq!(KAFKA.committed(&group(topic), topic), Some(1));
    deny(false);
    until(&mut member, false);
    assert_eq!(KAFKA.committed(&group(topic), topic), Some(3), "it is committed without another message");
}

#[test]
fn forbidden_topic_does_not_stop_others() {
    let (topic, other) = ("forbidden", "permitted");
    for topic in [topic, other] {
        KAFKA.create_topic(topic, 1);
        produce(&KAFKA, topic, 2);
    }
    let mut both = guarded(topic);
    both.topics.push(Topic { topic: other.to_owned(), feed: Format::Native.into() });
    let mut member = Member::open(&both);
    assert_eq!(member.read(4).len(), 4);
    let deny = |denied| KAFKA.deny(Operation::RD_KAFKA_ACL_OPERATION_READ, topic, denied);
    deny(true);
    member.until("it is reported", |member| member.observer.holds(Condition::SourceTopic));
    produce(&KAFKA, topic, 3);
    produce(&KAFKA, other, 1);
    assert_eq!(member.read(1), [2], "the other topic is read");
    deny(false);
    member.until("it is read again", |member| !member.observer.holds(Condition::SourceTopic));
    member.until("nothing is missing", |member| member.read.iter().any(|(_, offset, _)| *offset == 4));
}

#[test]
fn dead_letter_is_cut_to_the_topic_limit() {
    let topic = "small";
    KAFKA.create_topic(topic, 1);
    KAFKA.create_topic_with("small.dead-letters", 1, &[("max.message.bytes", "1000")]);
    produce(&KAFKA, topic, 1);
    let mut member = Member::open(&settings(&KAFKA, topic));
    assert_eq!(member.read(1), [0]);
    member.commit(topic, 1, &[letter(topic)]);
    let read = KAFKA.consume("small.dead-letters", 1);
    assert_eq!(read[0].payload.len(), 500);
    assert!(read[0].headers.contains(&("cut_from_bytes".to_owned(), "2000".to_owned())), "{:?}", read[0].headers);
    assert!(!member.observer.has_held(Condition::DeadLetterTopic));
}

#[test]
#[ignore = "slow: a broker is missed only after 15 s"]
fn hanging_broker_is_reported() {
    let topic = "silent";
    let kafka = Kafka::start();
    kafka.create_topic(topic, 1);
    produce(&kafka, topic, 3);
    let mut member = Member::open(&settings(&kafka, topic));
    assert_eq!(member.read(3), [0, 1, 2]);
    for _ in 0..20 {
        member.poll(10);
    }
    assert!(!member.observer.holds(Condition::Broker));
    kafka.freeze();
    let began = Instant::now();
    member.commit(topic, 3, &[]);
    member.until("it is missed", |member| member.observer.holds(Condition::Broker));
    assert!(began.elapsed() > Duration::from_secs(13), "{:?}", began.elapsed());
    kafka.thaw();
    member.until("it answers", |member| !member.observer.holds(Condition::Broker));
    let committed = || (kafka.committed(&group(topic), topic) == Some(3)).then_some(());
    eventually(Duration::from_secs(20), "the offset is committed", committed).expect("the offset is committed");

    // A stop does not wait for missing responses.
    kafka.freeze();
    member.commit(topic, 3, &[letter(topic)]);
    let began = Instant::now();
    drop(member);
    assert!(began.elapsed() < Duration::from_secs(6), "it took {:?}", began.elapsed());
    kafka.thaw();
}

/// The findings of `topics check` about `topic`: the level and text of each check.
fn checked(settings: &KafkaSettings, topic: &str) -> BTreeMap<&'static str, (Level, String)> {
    let findings = kafka::check(settings).expect("the broker answers");
    let of_topic = findings.into_iter().filter(|finding| finding.topic == topic);
    of_topic.map(|finding| (finding.what, (finding.level, finding.text))).collect()
}

#[test]
fn topics_check_finds_nothing_wrong_with_good_topics() {
    let topic = "good";
    KAFKA.create_topic_with(topic, 2, &[("message.timestamp.type", "LogAppendTime")]);
    produce(&KAFKA, topic, 10);
    KAFKA.commit(&group(topic), topic, 0, "");
    let settings = guarded(topic);
    let [made] = kafka::create(&settings).expect("the broker answers").try_into().expect("one topic");
    assert_eq!((made.level, made.topic.as_str()), (Level::Ok, "good.dead-letters"));
    let [again] = kafka::create(&settings).expect("the broker answers").try_into().expect("one topic");
    assert_eq!((again.level, again.text.as_str()), (Level::Ok, "exists already"));
    let findings = kafka::check(&settings).expect("the broker answers");
    assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:?}");
    let text = |what| findings.iter().find(|found| found.what == what).map(|found| found.text.as_str());
    assert_eq!(text("topic"), Some("2 partitions"));
    assert_eq!(text("permission"), Some("we may read it"));
    assert_eq!(text("offsets"), Some("group `group of good`: 1 of 2 committed, all in the log"));
    assert_eq!(text("replicas"), Some("1 in sync, 1 needed"));
}

#[test]
fn topics_check_finds_offsets_outside_the_log() {
    let topic = "outside";
    KAFKA.create_topic(topic, 1);
    produce(&KAFKA, topic, 10);
    let settings = KafkaSettings { remember_messages_max: 100, ..settings(&KAFKA, topic) };
    KAFKA.commit(&group(topic), topic, 500, "");
    let found = checked(&settings, topic);
    assert_eq!(found["timestamps"].0, Level::Warning, "{found:?}");
    assert_eq!(found["retention"].0, Level::Ok, "nothing was deleted yet: {found:?}");
    assert_eq!(found["offsets"].0, Level::Failed);
    assert!(found["offsets"].1.contains("committed 500, log 0 to 10 (beyond_end)"), "{found:?}");
    KAFKA.commit(&group(topic), topic, 2, "");
    KAFKA.delete_records(topic, 4);
    let found = checked(&settings, topic);
    assert!(found["offsets"].1.contains("committed 2, log 4 to 10 (deleted_unread)"), "{found:?}");
    assert_eq!(found["retention"].0, Level::Warning, "{found:?}");
    assert!(found["retention"].1.contains("holds 6 messages; rebuilding reads up to 100"), "{found:?}");
    KAFKA.commit(&group(topic), topic, 5, "topic-id=AQIDBAUGBwgJCgsMDQ4PEA");
    let found = checked(&settings, topic);
    assert!(found["offsets"].1.contains("(recreated)"), "{found:?}");
    KAFKA.commit(&group(topic), topic, 5, "");
    assert_eq!(checked(&settings, topic)["offsets"].0, Level::Ok);
}

#[test]
fn topics_check_finds_topics_that_cannot_be_used() {
    let (topic, letters) = ("unusable", "unusable.dead-letters");
    let settings = guarded(topic);
    let found = |topic: &str| checked(&settings, topic);
    assert_eq!(found(topic)["topic"].0, Level::Failed, "{:?}", found(topic));
    assert!(found(topic)["topic"].1.contains("does not exist"), "{:?}", found(topic));
    assert!(found(letters)["topic"].1.contains("topics create"), "{:?}", found(letters));

    let source =
        [("cleanup.policy", "compact"), ("min.insync.replicas", "2"), ("unclean.leader.election.enable", "true")];
    KAFKA.create_topic_with(topic, 1, &source);
    let small = [("max.message.bytes", "1000"), ("min.insync.replicas", "2")];
    KAFKA.create_topic_with(letters, 1, &small);
    assert_eq!(found(topic)["cleanup"].0, Level::Warning, "{:?}", found(topic));
    assert_eq!(found(topic)["election"].0, Level::Warning, "{:?}", found(topic));
    assert_eq!(found(topic)["replicas"].0, Level::Failed, "{:?}", found(topic));
    assert!(found(topic)["replicas"].1.starts_with("min.insync.replicas is 2, and there are 1 replicas"));
    assert_eq!(found(letters)["size"].0, Level::Warning, "{:?}", found(letters));
    assert_eq!(found(letters)["replicas"].0, Level::Failed, "{:?}", found(letters));
    assert_eq!(found(letters)["permission"].0, Level::Ok, "{:?}", found(letters));

    for topic in [topic, letters] {
        KAFKA.deny(Operation::RD_KAFKA_ACL_OPERATION_READ, topic, true);
        let found = found(topic);
        assert!(found.values().any(|(level, _)| *level == Level::Failed), "{topic}: {found:?}");
    }
}

#[test]
fn validate_finds_what_topics_check_finds() {
    let topic = "validated";
    KAFKA.create_topic(topic, 1);
    produce(&KAFKA, topic, 10);
    let folder = tempfile::tempdir().expect("a folder");
    keep_one_rule(folder.path());
    let text = format!(
        "rules_dir = 'rules'\n[source.kafka]\nbrokers = '{}'\ntopics = ['{topic}']\ngroup_id = '{}'\n\
         prefix = '{topic}'\n[store]\nurl = 'embedded:data'\n",
        KAFKA.brokers,
        group(topic)
    );
    std::fs::write(folder.path().join("t.toml"), text).expect("a configuration");
    let validate = || {
        let output = Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
            .args(["validate", "--config", "t.toml"])
            .current_dir(folder.path())
            .env_clear()
            .env("TOKENWARDEN_CACHE", cache())
            .output()
            .expect("tokenwarden runs");
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = lines.lines().filter(|line| line.contains(" Kafka: ")).map(str::to_owned);
        (output.status.code(), lines.collect::<Vec<_>>())
    };
    let (status, lines) = validate();
    assert_eq!(status, Some(0), "the service creates its topics: {lines:#?}");
    let starts = [
        "WARNING Kafka: validated: timestamps: set message.timestamp.type=LogAppendTime".to_owned(),
        format!("ok      Kafka: {} has validated", KAFKA.brokers),
        "WARNING Kafka: validated.dead-letters: topic: does not exist".to_owned(),
        "WARNING Kafka: validated.state: topic: does not exist".to_owned(),
    ];
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    assert!(lines.iter().zip(&starts).all(|(line, start)| line.starts_with(start)), "{lines:#?}");

    KAFKA.commit(&group(topic), topic, 500, "");
    let (status, lines) = validate();
    assert_eq!(status, Some(69), "{lines:#?}");
    let found = "FAILED  Kafka: validated: offsets: group `group of validated`: partition 0: committed 500";
    assert!(lines.iter().any(|line| line.starts_with(found)), "{lines:#?}");
}

#[test]
fn topics_check_samples_the_message_keys() {
    let event = |user: usize| {
        format!(r#"{{"event_id":"{user}","timestamp":1790000000000,"token_id":"t","user_id":"u{user}"}}"#)
    };
    let events: Vec<(String, String)> = (0..6).map(|user| (format!("u{user}"), event(user))).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let check = |topic: &str| {
        let text = format!("[source.kafka]\nbrokers = '{}'\ntopics = ['{topic}']\nprefix = '{topic}'\n", KAFKA.brokers);
        std::fs::write(folder.path().join("t.toml"), text).expect("a configuration");
        let output = Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
            .args(["topics", "check", "--config", "t.toml"])
            .current_dir(folder.path())
            .env_clear()
            .output()
            .expect("tokenwarden runs");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        out.lines().find(|line| line.contains(": keys: ")).map(str::to_owned)
    };
    let send = |topic: &str, events: &[(String, String)]| {
        KAFKA.produce(topic, events.iter().map(|(key, event)| (key.as_str(), event.as_bytes())));
    };
    KAFKA.create_topic("keyed", 3);
    assert_eq!(check("keyed"), None, "the topic is empty");
    send("keyed", &events);
    let line = check("keyed").expect("a line");
    assert_eq!(line, "ok      keyed: keys: all 6 sampled events are in messages with their subject key");
    send("keyed", &[("another".to_owned(), event(7)), (String::new(), event(8)), ("u9".to_owned(), "{".to_owned())]);
    let line = check("keyed").expect("a line");
    assert!(line.starts_with("WARNING keyed: keys: 2 of 8 sampled events are in messages with another key"), "{line}");
    KAFKA.create_topic("one-log", 1);
    send("one-log", &[("another".to_owned(), event(1))]);
    assert_eq!(check("one-log"), None, "all events are in one partition");
}

#[test]
fn topics_commands_end_with_the_documented_status() {
    let topic = "statuses";
    KAFKA.create_topic_with(topic, 1, &[("message.timestamp.type", "LogAppendTime")]);
    let folder = tempfile::tempdir().expect("a folder");
    let run = |command: &str, text: &str| {
        std::fs::write(folder.path().join("t.toml"), text).expect("a configuration");
        let output = Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
            .args(["topics", command, "--config", "t.toml"])
            .current_dir(folder.path())
            .env_clear()
            .output()
            .expect("tokenwarden runs");
        let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (output.status.code(), out, err)
    };
    let good = format!("[source.kafka]\nbrokers = '{}'\ntopics = ['{topic}']\nprefix = '{topic}'\n", KAFKA.brokers);
    let (status, out, err) = run("check", &good);
    assert_eq!(status, Some(69), "{out}{err}");
    assert!(out.contains("FAILED  statuses.dead-letters: topic: does not exist"), "{out}");
    assert!(err.contains("one check failed"), "{err}");
    let (status, out, err) = run("create", &good);
    assert_eq!(status, Some(0), "{out}{err}");
    assert!(out.starts_with("ok      statuses.dead-letters: topic: created"), "{out}");
    let (status, out, err) = run("check", &good);
    assert_eq!(status, Some(0), "{out}{err}");
    assert!(out.lines().all(|line| line.starts_with("ok      ")), "{out}");
    let (status, out, err) = run("check", &good.replace(&KAFKA.brokers, "127.0.0.1:9"));
    assert_eq!((status, out.as_str()), (Some(69), ""), "{err}");
    assert_eq!(run("check", "[source.kafka]\nbroker = 'x'\n").0, Some(78));
    assert_eq!(run("create", "").0, Some(78));
}
