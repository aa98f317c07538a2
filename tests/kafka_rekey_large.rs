//! Messages whose copies are large, forwarded through a real Kafka.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use support::kafka::{Kafka, Read};
use support::process::{eventually, free_port, keep_secret, read};
use support::service::{Service, output};

static KAFKA: LazyLock<Kafka> = LazyLock::new(Kafka::start);

/// Creates both topics and configures a member.
fn configure(folder: &Path, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    KAFKA.create_topic_with(name, 1, &[("max.message.bytes", "20000000")]);
    KAFKA.create_topic_with(&format!("{name}.rekeyed"), partitions, settings);
    let (brokers, port) = (&KAFKA.brokers, free_port());
    let config = format!(
        "[source.kafka]\nbrokers = '{brokers}'\ntopics = ['{name}']\ngroup_id = '{name}'\nprefix = '{name}'\nrekey = true\n\
         state_topic = false\nremember_messages_max = 0\nproperties = {{ 'compression.type' = 'none' }}\n\
         [privacy]\ntoken_key_file = 'key'\n[store]\nurl = 'embedded:data'\n[admin]\nlisten = '127.0.0.1:{port}'\n"
    );
    keep_secret(&folder.join("key"), "a key that all members of the group have");
    std::fs::write(folder.join("tokenwarden.toml"), &config).expect("the configuration");
}

fn produce(topic: &str, messages: &[String]) {
    let mut client = KAFKA.client();
    client.set("message.max.bytes", "20000000");
    let producer: BaseProducer = client.create().expect("a client");
    for message in messages {
        let record = BaseRecord::<(), _>::to(topic).partition(0).payload(message);
        producer.send(record).map_err(|(error, _)| error).expect("room");
    }
    producer.flush(Duration::from_secs(60)).expect("the broker takes the messages");
}

fn use_of(user: &str, padding: &str) -> String {
    format!(
        r#"{{"event_id":"e-{user}","timestamp":1769990400000,"token_id":"at-{user}","user_id":"{user}","ip_address":"192.0.2.10","attrs":{{"padding":"{padding}"}}}}"#
    )
}

/// A message with one event of each of `users` users, of about `bytes` bytes.
fn message_of(number: usize, users: usize, bytes: usize) -> String {
    let padding = "x".repeat(bytes / users);
    let events: Vec<_> = (0..users).map(|user| use_of(&format!("u{number}-{user}"), &padding)).collect();
    format!("[{}]", events.join(","))
}

fn query(folder: &Path, sql: &str) -> Vec<String> {
    let text = output(folder, &["sql", "--config", "tokenwarden.toml", "--output", "csv", sql]);
    text.lines().skip(1).map(|line| line.replace('"', "")).collect()
}

fn await_rows(folder: &Path, count: usize, wait: Duration) {
    let rows = || query(folder, "SELECT count() FROM token_events").first().and_then(|count| count.parse().ok());
    let done = eventually(wait, "all events are stored", || (rows().unwrap_or(0) >= count).then_some(()));
    done.unwrap_or_else(|| panic!("{:?} of {count} rows\n{}", rows(), read(&folder.join("log"))));
}

/// Waits until the messages before this offset are forwarded.
fn await_forwarded(folder: &Path, name: &str, offset: i64) {
    let consumer: BaseConsumer = KAFKA.client().set("group.id", name).create().expect("a client");
    let mut asked = TopicPartitionList::new();
    asked.add_partition(name, 0);
    let is_done = || {
        let committed = consumer.committed_offsets(asked.clone(), Duration::from_secs(10)).ok()?;
        (committed.elements()[0].offset() == Offset::Offset(offset)).then_some(())
    };
    let done = eventually(Duration::from_secs(180), "the messages are forwarded", is_done);
    done.unwrap_or_else(|| panic!("{}", read(&folder.join("log"))));
}

fn forwarded(name: &str, partitions: i32) -> Vec<Vec<Read>> {
    (0..partitions).map(|partition| KAFKA.read_partition(&format!("{name}.rekeyed"), partition)).collect()
}

/// Number of transactions with copies in a partition: each has a marker behind its copies.
fn transactions(name: &str, partition: i32, messages: usize) -> i64 {
    let consumer: BaseConsumer = KAFKA.client().create().expect("a client");
    let topic = format!("{name}.rekeyed");
    let (low, high) =
        consumer.fetch_watermarks(&topic, partition, Duration::from_secs(10)).expect("the broker answers");
    high - low - messages as i64
}

#[test]
fn cut_message_has_no_readable_secret() {
    let name = "rekey-secret";
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    configure(folder, name, 2, &[("max.message.bytes", "20000")]);
    let secret = format!("AIza{}", "a7Bq2".repeat(7));
    let before = r#"{"note":""#;
    // The first 512 bytes end in the secret, one character before its end.
    let note = "y".repeat(512 - before.len() - (secret.len() - 1) - 9);
    let rest = use_of("eve", &"x".repeat(100_000));
    let large = format!(r#"{before}{note}","key":"{secret}",{}"#, &rest[1..]);
    assert!(large[..512].ends_with(&secret[..38]) && !large[..512].ends_with(&secret), "{}", &large[..512]);
    produce(name, &[large, use_of("ann", "")]);
    let service = Service::start(folder);
    await_rows(folder, 1, Duration::from_secs(120));
    let letters = || {
        let found = query(folder, "SELECT payload FROM dead_letters FINAL");
        (!found.is_empty()).then_some(found)
    };
    let mut found = eventually(Duration::from_secs(60), "the dead letter is stored", letters).expect("a dead letter");
    let sent = || Some(KAFKA.read_all(&format!("{name}.dead-letters"))).filter(|sent| !sent.is_empty());
    let sent = eventually(Duration::from_secs(30), "the dead letter is sent", sent).expect("a dead letter");
    let copies = forwarded(name, 2).into_iter().flatten();
    let payloads = sent.into_iter().chain(copies).map(|message| String::from_utf8_lossy(&message.payload).into_owned());
    found.extend(payloads);
    assert!(found.len() >= 4, "{found:?}");
    assert!(found.iter().all(|payload| !payload.contains("AIza")), "{found:?}");
    drop(service);
}

#[test]
fn transaction_of_large_messages_is_bounded() {
    let (name, partitions) = ("rekey-bounded", 48);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    configure(folder, name, partitions, &[]);
    // The copies of each message have about 12 MB: 300 kB in about 42 partitions.
    let messages: Vec<_> = (0..8).map(|number| message_of(number, 100, 300_000)).collect();
    produce(name, &messages);
    let service = Service::start(folder);
    await_forwarded(folder, name, 8);
    let copies = forwarded(name, partitions);
    let most = copies.iter().zip(0..).map(|(copies, partition)| transactions(name, partition, copies.len())).max();
    // 32 MiB are three messages.
    assert!(most.is_some_and(|most| most >= 3), "{most:?} transactions");
    drop(service);
}

/// Ends the limit of the producers, also if a test fails.
struct Limit;

impl Drop for Limit {
    fn drop(&mut self) {
        KAFKA.limit_producers(1_000_000_000);
    }
}

/// The brokers throttle the producer. All copies of one message take more than the time limit of a transaction.
#[test]
fn message_with_too_many_copies_stops_no_partition() {
    let (name, partitions) = ("rekey-copies", 48);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    configure(folder, name, partitions, &[]);
    let mut messages: Vec<_> = (0..20).map(|number| use_of(&format!("before-{number}"), "")).collect();
    messages.push(message_of(0, 100, 1_000_000));
    messages.extend((0..20).map(|number| use_of(&format!("after-{number}"), "")));
    produce(name, &messages);
    KAFKA.limit_producers(1_000_000);
    let limit = Limit;
    let service = Service::start(folder);
    await_rows(folder, 40, Duration::from_secs(300));
    let users: BTreeSet<_> = query(folder, "SELECT user_id FROM token_events").into_iter().collect();
    assert_eq!(users.len(), 40, "each other message is scored");
    let letters = || {
        let found = query(folder, "SELECT source_topic, source_offset, reason FROM dead_letters FINAL");
        (!found.is_empty()).then_some(found)
    };
    let letters = eventually(Duration::from_secs(60), "the dead letter is stored", letters).expect("a dead letter");
    assert!(letters.len() == 1 && letters[0].starts_with(&format!("{name},20,")), "{letters:?}");
    drop((limit, service));
}
