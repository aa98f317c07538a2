//! Messages that are forwarded to the partitions of their subjects, through a real Kafka.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use support::kafka::{Kafka, Read};
use support::process::{eventually, free_port, keep_secret, read};
use support::service::{Service, ask, differences, output, replayed_with, stored};
use tokenwarden::lab::simulate::{Settings, Simulation};

static KAFKA: LazyLock<Kafka> = LazyLock::new(Kafka::start);
/// Monday, 2 February 2026, 00:00 UTC.
const START: i64 = 1_769_990_400_000;
const PARTITIONS: i32 = 4;

/// Configures a member that forwards the messages of `topics`, a TOML array. Returns its configuration.
fn configure(folder: &Path, name: &str, topics: &str, properties: &str) -> String {
    configure_member(folder, folder, name, topics, properties)
}

/// As [`configure`]. Members share the store and the key in `shared`.
fn configure_member(folder: &Path, shared: &Path, name: &str, topics: &str, properties: &str) -> String {
    let (brokers, port, at) = (&KAFKA.brokers, free_port(), shared.display());
    let config = format!(
        "[source.kafka]\nbrokers = '{brokers}'\ntopics = {topics}\ngroup_id = '{name}'\nprefix = '{name}'\nrekey = true\n\
         state_topic = true\nremember_messages_max = 0\nproperties = {{ {properties} }}\n\
         [privacy]\ntoken_key_file = '{at}/key'\n[snapshots]\ninterval_ms = 1000\n\
         [store]\nurl = 'embedded:{at}/data'\n[admin]\nlisten = '127.0.0.1:{port}'\n"
    );
    keep_secret(&shared.join("key"), "a key that all members of the group have");
    std::fs::write(folder.join("tokenwarden.toml"), &config).expect("the configuration");
    config
}

/// The first events of an afternoon.
fn simulated(count: usize) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let mut simulation = Simulation::new(Settings::afternoon(5, START));
    while simulation.next_day(&mut lines) {}
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.take(count).map(<[u8]>::to_vec).collect()
}

/// Sends `events` without keys, the events of each user to all partitions.
fn produce_unkeyed(topic: &str, events: &[Vec<u8>]) {
    let producer: BaseProducer = KAFKA.client().set("linger.ms", "5").create().expect("a client");
    for (place, event) in events.iter().enumerate() {
        let partition = place as i32 % PARTITIONS;
        let mut record = BaseRecord::<(), _>::to(topic).partition(partition).payload(event);
        while let Err((_, back)) = producer.send(record) {
            producer.poll(Duration::from_millis(10));
            record = back;
        }
    }
    producer.flush(Duration::from_secs(30)).expect("the broker takes the messages");
}

/// Waits until the store has `count` rows, and returns the log of the service if that takes too long.
fn await_rows(folder: &Path, count: usize) {
    let done = eventually(Duration::from_secs(120), "all events are stored", || (rows(folder) >= count).then_some(()));
    done.unwrap_or_else(|| panic!("{} of {count} rows\n{}", rows(folder), read(&folder.join("log"))));
}

/// Number of rows, with repeated ones.
fn rows(folder: &Path) -> usize {
    query(folder, "SELECT count() FROM token_events").first().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Lines of the result of a query, without the names of the columns.
fn query(folder: &Path, sql: &str) -> Vec<String> {
    let text = output(folder, &["sql", "--config", "tokenwarden.toml", "--output", "csv", sql]);
    text.lines().skip(1).map(|line| line.replace('"', "")).collect()
}

fn forwarded(name: &str) -> Vec<Vec<Read>> {
    (0..PARTITIONS).map(|partition| KAFKA.read_partition(&format!("{name}.rekeyed"), partition)).collect()
}

fn header<'r>(message: &'r Read, key: &str) -> Option<&'r str> {
    let mut found = message.headers.iter().filter(|(name, _)| name == key);
    let value = found.next().map(|(_, value)| value.as_str());
    assert!(found.next().is_none(), "the header {key} is there once");
    value
}

/// Original partition and offset.
fn source(message: &Read) -> (i32, i64) {
    let number = |key| header(message, key).expect("a header").parse::<i64>().expect("a number");
    (number("source_partition") as i32, number("source_offset"))
}

/// Checks that each message of the source was forwarded once, that the messages of a source partition are in order, and that
/// the rows are those of a replay of the forwarded messages.
fn assert_forwarded_once(folder: &Path, name: &str, count: usize) {
    let done = eventually(Duration::from_secs(90), "all messages are forwarded", || {
        (forwarded_count(name) >= count).then_some(())
    });
    done.unwrap_or_else(|| panic!("{} of {count}\n{}", forwarded_count(name), read(&folder.join("log"))));
    let forwarded = forwarded(name);
    let mut sources = BTreeSet::new();
    for partition in &forwarded {
        let mut last = BTreeMap::new();
        for message in partition {
            let (number, offset) = source(message);
            assert!(sources.insert((number, offset)), "{number}/{offset} was forwarded twice");
            assert!(last.insert(number, offset).is_none_or(|before| before < offset), "{number}/{offset} is late");
        }
    }
    assert_eq!(sources.len(), count, "every message is forwarded");
    assert!(forwarded.iter().all(|partition| !partition.is_empty()));
    let all: Vec<_> = forwarded.iter().flatten().map(|message| message.payload.as_slice()).collect();
    std::fs::write(folder.join("all"), all.join(&b'\n')).expect("a file");
    let expected = replayed_with(folder, "all", &["--partitions", &PARTITIONS.to_string()]);
    await_rows(folder, expected.len());
    assert_eq!(rows(folder), expected.len(), "each row is stored once");
    let different = differences(&expected, &stored(folder));
    assert!(
        different.is_empty(),
        "{} of {} events differ\n{}",
        different.len(),
        expected.len(),
        read(&folder.join("log"))
    );
}

#[test]
fn unkeyed_topic_gets_the_verdicts_of_a_keyed_topic() {
    let name = "rekey-verdicts";
    KAFKA.create_topic(name, PARTITIONS);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let config = configure(folder, name, &format!("['{name}']"), "");
    let created = output(folder, &["topics", "create", "--config", "tokenwarden.toml"]);
    assert!(created.contains(&format!("{name}.rekeyed: topic: created: 4 partitions, retention 7 days")), "{created}");
    let events = simulated(6_000);
    produce_unkeyed(name, &events);
    // A broker that has just started is not the coordinator of the group yet.
    let checked = eventually(Duration::from_secs(60), "topics check succeeds", || {
        let checked = output(folder, &["topics", "check", "--config", "tokenwarden.toml"]);
        (!checked.contains("FAILED")).then_some(checked)
    });
    let checked = checked.expect("topics check succeeds");
    assert!(checked.contains("they are forwarded by subject (source.kafka.rekey)"), "{checked}");
    assert!(checked.contains(&format!("{name}.rekeyed: permission: ")), "{checked}");
    assert!(!checked.contains(&format!("WARNING {name}.rekeyed")), "{checked}");

    let service = Service::start(folder);
    assert_forwarded_once(folder, name, events.len());
    let topics = query(folder, "SELECT DISTINCT source_topic FROM token_events");
    assert_eq!(topics, [format!("{name}.rekeyed/{name}")]);
    // The offset after each partition's last message is committed for the source topic, in the same group.
    assert_eq!(KAFKA.committed(name, name), Some(events.len() as i64 / i64::from(PARTITIONS)));
    let listen = config.split("listen = '").nth(1).and_then(|rest| rest.split('\'').next()).expect("an address");
    let ready = eventually(Duration::from_secs(30), "the service is ready", || {
        let ready = ask(listen, "/readyz");
        ready.starts_with("HTTP/1.1 200 ").then_some(ready)
    });
    ready.unwrap_or_else(|| panic!("{}", ask(listen, "/readyz")));
    let metrics = ask(listen, "/metrics");
    assert!(metrics.contains("tokenwarden_key_mismatches_total 0\n"), "{metrics}");
    for partition in 0..PARTITIONS {
        let lag = format!("tokenwarden_source_lag{{topic=\"{name}\",partition=\"{partition}\"}} 0\n");
        assert!(metrics.contains(&lag), "{lag}{metrics}");
    }
    let shown = || output(folder, &["state", "show", "--config", "tokenwarden.toml"]);
    let saved = eventually(Duration::from_secs(60), "the states are saved", || {
        let shown = shown();
        (0..PARTITIONS).all(|number| shown.contains(&format!("  {name}.rekeyed {number}: next offset "))).then_some(())
    });
    saved.unwrap_or_else(|| panic!("{}{}", shown(), read(&folder.join("log"))));
    service.stop();

    // A stopped service has left nothing behind, and the next one repeats nothing.
    let service = Service::start(folder);
    let more = simulated(6_400).split_off(6_000);
    produce_unkeyed(name, &more);
    assert_forwarded_once(folder, name, events.len() + more.len());
    drop(service);
}

/// A member is killed while it forwards and scores, also in the middle of a transaction.
#[test]
fn killed_member_loses_and_repeats_nothing() {
    let name = "rekey-killed";
    KAFKA.create_topic(name, PARTITIONS);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let config = configure(folder, name, &format!("['{name}']"), "'session.timeout.ms' = '6000'");
    // A member that is killed before its first snapshot leaves none.
    let config = config.replace("remember_messages_max = 0\n", "");
    std::fs::write(folder.join("tokenwarden.toml"), config).expect("the configuration");
    let events = simulated(12_000);
    let mut sent = 0;
    for (round, wait) in [1_500, 300, 700].into_iter().enumerate() {
        let service = Service::start(folder);
        // The offsets of an open transaction are pending for up to 20 s.
        let sends_until = Instant::now() + Duration::from_secs(90);
        let seen = forwarded_count(name);
        // Messages arrive all the time, so that a transaction is open when the member is killed.
        let mut killed_at = None;
        while Instant::now() < sends_until && killed_at.is_none_or(|at| Instant::now() < at) {
            let next = (sent + 25).min(events.len());
            produce_unkeyed(name, &events[sent..next]);
            sent = next;
            if killed_at.is_none() && forwarded_count(name) > seen {
                killed_at = Some(Instant::now() + Duration::from_millis(wait));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(killed_at.is_some(), "round {round}: nothing was forwarded\n{}", read(&folder.join("log")));
        service.kill();
    }
    produce_unkeyed(name, &events[sent..sent + 1_000]);
    sent += 1_000;
    let service = Service::start(folder);
    assert_forwarded_once(folder, name, sent);
    drop(service);
}

/// Two members share the partitions of both topics. One is killed and comes back.
#[test]
fn members_share_partitions_and_survive_a_kill() {
    let name = "rekey-members";
    KAFKA.create_topic(name, PARTITIONS);
    let shared = tempfile::tempdir().expect("a folder");
    let folders = ["one", "two"].map(|member| shared.path().join(member));
    for folder in &folders {
        std::fs::create_dir(folder).expect("a folder");
        let topics = format!("['{name}']");
        let config = configure_member(folder, shared.path(), name, &topics, "'session.timeout.ms' = '6000'");
        let config = config.replace("remember_messages_max = 0\n", "");
        std::fs::write(folder.join("tokenwarden.toml"), config).expect("the configuration");
    }
    let [one, two] = &folders;
    let events = simulated(8_000);
    let mut sent = 0;
    let mut send_until = |done: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !done() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{}\n{}",
                read(&one.join("log")),
                read(&two.join("log"))
            );
            produce_unkeyed(name, &events[sent..sent + 8]);
            sent += 8;
            std::thread::sleep(Duration::from_millis(40));
        }
    };
    let has_taken = |folder: &Path, topic: &str| {
        read(&folder.join("log")).contains(&format!("\"partition taken over\",\"topic\":\"{topic}\""))
    };
    let copies = format!("{name}.rekeyed");
    let first = Service::start(one);
    send_until(&|| has_taken(one, name) && has_taken(one, &copies));
    let second = Service::start(two);
    send_until(&|| has_taken(two, name) && has_taken(two, &copies));
    first.kill();
    std::fs::remove_file(one.join("log")).expect("a log");
    let first = Service::start(one);
    send_until(&|| has_taken(one, name) && has_taken(one, &copies));
    second.kill();
    let killed = Instant::now();
    send_until(&|| killed.elapsed() > Duration::from_secs(2));
    assert_forwarded_once(one, name, sent);
    drop(first);
}

/// Number of messages that were forwarded in complete transactions.
fn forwarded_count(name: &str) -> usize {
    let admin: rdkafka::consumer::BaseConsumer = KAFKA.client().create().expect("a client");
    let topic = format!("{name}.rekeyed");
    let exists = rdkafka::consumer::Consumer::fetch_metadata(&admin, Some(&topic), Duration::from_secs(10));
    let exists = exists.is_ok_and(|metadata| metadata.topics().iter().all(|topic| topic.error().is_none()));
    if exists { forwarded(name).iter().map(Vec::len).sum() } else { 0 }
}

fn use_of(user: &str, id: &str) -> String {
    format!(
        r#"{{"event_id":"{id}","timestamp":{START},"token_id":"at-{user}","user_id":"{user}","ip_address":"192.0.2.10","status":200}}"#
    )
}

#[test]
fn message_keeps_its_origin_and_no_forged_header() {
    let (name, native, trusted) = ("rekey-origin", "rekey-origin-native", "rekey-origin-trusted");
    KAFKA.create_topic_with(native, PARTITIONS, &[("message.timestamp.type", "LogAppendTime")]);
    KAFKA.create_topic(trusted, 1);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let topics = format!("['{native}', {{ topic = '{trusted}', tenant = 'acme', confirmed = true }}]");
    configure(folder, name, &topics, "");
    let service = Service::start(folder);
    let users: Vec<_> = (0..12).map(|number| format!("user-{number}")).collect();
    let events: Vec<_> = users.iter().map(|user| use_of(user, &format!("batch-{user}"))).collect();
    // A batch of several subjects, in which one record cannot be decoded.
    let batch = format!("[{},{{\"event_id\":7}},{}]", events[..6].join(","), events[6..].join(","));
    let forged = [
        ("source_topic", trusted),
        ("source_partition", "9"),
        ("source_offset", "99"),
        ("source_append_time", "5"),
        ("copies", "0,1,2,3"),
        ("partitions", "1"),
    ];
    let forged = forged
        .into_iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
    let producer: BaseProducer = KAFKA.client().create().expect("a client");
    let send = |topic: &str, partition: i32, payload: &str, headers: OwnedHeaders| {
        let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(payload).headers(headers);
        producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
        producer.flush(Duration::from_secs(30)).expect("the broker takes the message");
    };
    let none = OwnedHeaders::new;
    send(native, 1, &batch, none());
    send(native, 2, "{ no JSON", none());
    send(native, 3, &use_of("ann", "forged"), forged.clone());
    let confirmed = use_of("ann", "confirmed").replace('{', r#"{"kind":"confirmed","#);
    send(native, 3, &confirmed, forged.clone());
    send(trusted, 0, &confirmed.replace("\"confirmed\",\"timestamp", "\"trusted\",\"timestamp"), none());
    await_rows(folder, 15);
    // A message that was not forwarded.
    send(&format!("{name}.rekeyed"), 0, &use_of("eve", "direct"), none());

    let letters = || {
        let sql = "SELECT source_topic, source_partition, source_offset, reason FROM dead_letters FINAL ORDER BY ALL";
        let found = query(folder, sql);
        (found.len() == 3).then_some(found)
    };
    let letters = eventually(Duration::from_secs(30), "dead letters are stored", letters);
    let letters = letters.unwrap_or_else(|| panic!("{}", read(&folder.join("log"))));
    assert!(letters[0].starts_with(&format!("{native},1,0,")), "{letters:#?}");
    assert!(letters[1].starts_with(&format!("{native},2,0,")), "{letters:#?}");
    assert!(letters[2].starts_with(&format!("{name}.rekeyed,0,")), "{letters:#?}");
    assert!(letters[2].contains("was not forwarded by tokenwarden"), "{letters:#?}");
    let parked = || {
        let parked = KAFKA.read_all(&format!("{name}.dead-letters"));
        (parked.len() >= 3).then_some(parked)
    };
    let parked = eventually(Duration::from_secs(30), "dead letters are sent", parked).expect("they are sent");
    let of: BTreeSet<_> = parked.iter().filter_map(|letter| header(letter, "source_topic")).collect();
    assert_eq!(of, BTreeSet::from([native, &format!("{name}.rekeyed")]));

    assert_eq!(rows(folder), 15, "no event is scored twice");
    let found = query(folder, "SELECT event_id, tenant_id, source_topic FROM token_events ORDER BY event_id");
    let expected = |id: &str, tenant: &str, topic: &str| format!("{id},{tenant},{name}.rekeyed/{topic}");
    for line in [
        expected("forged", "", native),
        expected("confirmed", "", native),
        expected("trusted", "acme", trusted),
        expected("batch-user-3", "", native),
    ] {
        assert!(found.contains(&line), "{line} is missing in {found:#?}");
    }
    let all: Vec<_> = forwarded(name).into_iter().flatten().collect();
    let copies = all.iter().filter(|message| message.payload == batch.as_bytes()).collect::<Vec<_>>();
    assert!(copies.len() > 1, "the batch has subjects of several partitions");
    let one =
        all.iter().find(|message| message.payload == use_of("ann", "forged").as_bytes()).expect("it is forwarded");
    assert_eq!((header(one, "source_topic"), source(one)), (Some(native), (3, 0)));
    assert!(header(one, "source_append_time").expect("a time").len() > 10, "{:?}", one.headers);
    let created = all.iter().find(|message| header(message, "source_topic") == Some(trusted)).expect("it is forwarded");
    assert!(header(created, "source_create_time").is_some() && header(created, "source_append_time").is_none());
    drop(service);
}

/// The topic of forwarded messages accepts smaller messages than the source topic.
#[test]
fn message_too_large_to_forward_is_a_dead_letter() {
    let name = "rekey-large";
    KAFKA.create_topic(name, PARTITIONS);
    KAFKA.create_topic_with(&format!("{name}.rekeyed"), PARTITIONS, &[("max.message.bytes", "20000")]);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    configure(folder, name, &format!("['{name}']"), "'compression.type' = 'none'");
    let large = use_of("eve", "large").replace('{', &format!(r#"{{"endpoint":"/{}","#, "x".repeat(100_000)));
    let mut events: Vec<_> = (0..400).map(|number| use_of(&format!("u-{number}"), &number.to_string())).collect();
    events.insert(200, large);
    produce_unkeyed(name, &events.into_iter().map(String::into_bytes).collect::<Vec<_>>());
    let checked = output(folder, &["topics", "check", "--config", "tokenwarden.toml"]);
    assert!(checked.contains(&format!("WARNING {name}.rekeyed: size: ")), "{checked}");
    let service = Service::start(folder);
    await_rows(folder, 400);
    let letters = || {
        let found =
            query(folder, "SELECT source_topic, source_partition, source_offset, reason FROM dead_letters FINAL");
        (!found.is_empty()).then_some(found)
    };
    let letters = eventually(Duration::from_secs(30), "the dead letter is stored", letters).expect("a dead letter");
    let reason = "the message, or all its copies together, are too large to be forwarded";
    assert_eq!(letters, [format!("{name},0,50,{reason}")]);
    assert_eq!(rows(folder), 400);
    drop(service);
}

/// Prints the time from a message in the source topic to its copy, and for how long an open transaction hides later
/// messages.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, reason = "the figures are the result")]
fn measure_delay_of_forwarding() {
    let name = "rekey-delay";
    let copies = format!("{name}.rekeyed");
    KAFKA.create_topic_with(name, PARTITIONS, &[("message.timestamp.type", "LogAppendTime")]);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    configure(folder, name, &format!("['{name}']"), "'session.timeout.ms' = '6000'");
    let service = Service::start(folder);
    let events = simulated(usize::MAX);
    produce_unkeyed(name, &events[..1]);
    let first = || (forwarded_count(name) == 1).then_some(());
    eventually(Duration::from_secs(60), "it is forwarded", first).expect("it is forwarded");
    // Sends `rate` messages per second.
    let send = |rate: usize, count: usize| {
        let batch: Vec<_> = events.iter().cycle().take(count).cloned().collect();
        std::thread::spawn(move || {
            let began = Instant::now();
            let each = (rate / 20).max(1);
            for (number, some) in batch.chunks(each).enumerate() {
                produce_unkeyed(name, some);
                let due = Duration::from_secs_f64((number + 1) as f64 * each as f64 / rate as f64);
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
        })
    };
    for (rate, count) in [(10, 200), (1_000, 20_000)] {
        let consumer = support::kafka::end_reader(&KAFKA.client(), &copies, PARTITIONS);
        let sender = send(rate, count);
        let mut delays = support::kafka::delays(&consumer, count);
        sender.join().expect("no panic");
        delays.sort_unstable();
        let at = |part: f64| delays[((delays.len() - 1) as f64 * part) as usize];
        println!("{rate}/s: {} messages, p50 {} ms, p99 {} ms, max {} ms", delays.len(), at(0.5), at(0.99), at(1.0));
    }
    drop(service);
    // A producer with the time limit of the forwarder, which ends with an open transaction.
    for round in 0..3 {
        let mut config = KAFKA.client();
        config.set("transactional.id", format!("{name}-killed-{round}")).set("transaction.timeout.ms", "10000");
        let killed: BaseProducer = config.create().expect("a client");
        killed.init_transactions(Duration::from_secs(30)).expect("the broker answers");
        killed.begin_transaction().expect("a transaction");
        let record = BaseRecord::<(), _>::to(&copies).partition(0).payload("open");
        killed.send(record).map_err(|(error, _)| error).expect("the queue has room");
        killed.flush(Duration::from_secs(30)).expect("the broker takes the message");
        let consumer = support::kafka::end_reader(&KAFKA.client(), &copies, PARTITIONS);
        std::mem::forget(killed);
        let began = Instant::now();
        KAFKA.produce_to(&copies, 0, [b"later".as_slice()]);
        let later = || {
            let message = consumer.poll(Duration::from_secs(1))?.ok()?;
            (rdkafka::Message::payload(&message) == Some(b"later")).then_some(())
        };
        eventually(Duration::from_secs(60), "the message is read", later).expect("the message is read");
        println!("open transaction {round}: later messages are read after {} ms", began.elapsed().as_millis());
    }
}
