//! Campaigns over the partitions of a topic of a real Kafka, by two members that are killed.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use support::kafka::Kafka;
use support::process::{eventually, free_port, keep_secret, read};
use support::service::{Service, ask, output};

static KAFKA: LazyLock<Kafka> = LazyLock::new(Kafka::start);

/// Writes the configuration of a member with its own outbox and store. Returns its address.
fn configure(folder: &Path, shared: &Path, topic: &str) -> String {
    let (brokers, key, port) = (&KAFKA.brokers, shared.join("key"), free_port());
    let config = format!(
        "[source.kafka]\nbrokers = '{brokers}'\ntopics = ['{topic}']\ngroup_id = '{topic}'\nprefix = '{topic}'\n\
         state_topic = true\nproperties = {{ 'session.timeout.ms' = '6000', 'heartbeat.interval.ms' = '1000' }}\n\
         [detection]\ncampaigns = true\n[privacy]\ntoken_key_file = '{}'\n[snapshots]\ninterval_ms = 1000\n\
         [store]\nurl = 'embedded:data'\n[admin]\nlisten = '127.0.0.1:{port}'\n",
        key.display()
    );
    keep_secret(&key, "a key that all members of the group have");
    std::fs::write(folder.join("tokenwarden.toml"), config).expect("the configuration");
    format!("127.0.0.1:{port}")
}

/// Events in order, with their subject keys.
#[derive(Default)]
struct Events(Vec<(String, String)>);

impl Events {
    /// `minutes` after 2 February 2026.
    fn call(&mut self, minutes: usize, tenant: usize, user: usize, address: &str, endpoint: &str) {
        let (day, hour, minute) = (minutes / 1_440 + 2, minutes / 60 % 24, minutes % 60);
        let event = format!(
            r#"{{"event_id":"e{}","timestamp":"2026-02-{day:02}T{hour:02}:{minute:02}:00Z","token_id":"at-{tenant}-{user}","family_id":"g-{tenant}-{user}","tenant_id":"t{tenant}","user_id":"u{user}","app_id":"plugin","ip_address":"{address}","endpoint":"{endpoint}"}}"#,
            self.0.len()
        );
        self.0.push((format!("t{tenant}/u{user}"), event));
    }

    /// The owners of 24 grants in two tenants at their usual places on five days.
    fn history() -> Self {
        let mut events = Self::default();
        for day in 0..5 {
            for number in 0..24 {
                let (tenant, user) = (number % 2, number / 2);
                events.call(
                    day * 1_440 + 540 + number,
                    tenant,
                    user,
                    &format!("198.51.{tenant}.{user}"),
                    "/v1/messages",
                );
            }
        }
        events
    }

    /// Two calls of each user from one address, the second one in a new area.
    fn stolen(&mut self, minutes: usize, tenant: usize, users: &[usize], address: &str) {
        for (number, user) in users.iter().enumerate() {
            self.call(minutes + number, tenant, *user, address, "/v1/messages");
            self.call(minutes + number, tenant, *user, address, "/v2/export");
        }
    }
}

/// A campaign: its number, its tenant, its rules and its victims.
type Found = BTreeMap<String, (String, String, BTreeSet<String>, BTreeSet<String>)>;

/// The campaigns that `replay` finds in all events.
fn replayed(folder: &Path, events: &Events, partitions: &str) -> Found {
    let lines: Vec<&str> = events.0.iter().map(|(_, event)| event.as_str()).collect();
    std::fs::write(folder.join("all"), lines.join("\n")).expect("a file");
    let config = "tokenwarden.toml";
    let arguments =
        ["replay", "all", "--config", config, "--store", "none", "--partitions", partitions, "--campaigns", "-"];
    let lines = output(folder, &arguments);
    let read = |line: &str| {
        let found: Value = serde_json::from_str(line).expect("a campaign");
        let text = |field: &str| found[field].as_str().expect("text").to_owned();
        let rules = found["users"].as_object().expect("rules").keys().cloned().collect();
        let victims = found["victims"].as_array().expect("victims").iter();
        let victims = victims.map(|victim| victim["family_id"].as_str().expect("a grant").to_owned()).collect();
        (text("incident_id"), (text("campaign_id"), text("tenant_id"), rules, victims))
    };
    lines.lines().map(read).collect()
}

/// The campaigns in the tables of a member. Each victim has a row.
fn stored(folder: &Path) -> Found {
    let sql = "SELECT incident_id, campaign_id, tenant_id, arrayStringConcat(rules, ' '), family_id FROM incidents FINAL \
               WHERE hasAny(rules, ['app_fanout', 'ip_fanout']) AND hasAll(['app_fanout', 'ip_fanout'], rules) AND \
               action = 'alert'";
    let rows = output(folder, &["sql", "--config", "tokenwarden.toml", "--output", "csv", sql]);
    let mut found = Found::new();
    for row in rows.lines().skip(1) {
        let fields: Vec<_> = row.split(',').map(|field| field.trim_matches('"').to_owned()).collect();
        let entry = found.entry(fields[0].clone()).or_default();
        (entry.0, entry.1) = (fields[1].clone(), fields[2].clone());
        entry.2.extend(fields[3].split(' ').map(str::to_owned));
        entry.3.insert(fields[4].clone());
    }
    found
}

fn merged(one: Found, other: Found) -> Found {
    let mut all = one;
    for (id, (campaign, tenant, rules, victims)) in other {
        let entry = all.entry(id).or_default();
        (entry.0, entry.1) = (campaign, tenant);
        entry.2.extend(rules);
        entry.3.extend(victims);
    }
    all
}

/// Sends messages to the partitions of their keys, as the Java client does.
fn produce<'m>(topic: &str, messages: impl IntoIterator<Item = (&'m str, &'m [u8])>) {
    let producer: BaseProducer = KAFKA.client().set("partitioner", "murmur2_random").create().expect("a client");
    for (key, payload) in messages {
        producer.send(BaseRecord::to(topic).key(key).payload(payload)).map_err(|(error, _)| error).expect("room");
    }
    producer.flush(Duration::from_secs(30)).expect("the broker takes the messages");
}

/// Number of messages that the group of this name has committed in all four partitions.
fn committed_in_all(topic: &str) -> i64 {
    let consumer: BaseConsumer = KAFKA.client().set("group.id", topic).create().expect("a client");
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(topic, 0, 3);
    let committed = consumer.committed_offsets(asked, Duration::from_secs(10));
    let offset = |offset| if let Offset::Offset(offset) = offset { offset } else { 0 };
    committed.map_or(0, |found| found.elements().iter().map(|element| offset(element.offset())).sum())
}

#[test]
fn two_members_find_the_campaigns_of_replay() {
    let topic = "campaigns";
    KAFKA.create_topic(topic, 4);
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().expect("a folder")).collect();
    let [shared, one, two] = [0, 1, 2].map(|number: usize| folders[number].path());
    let addresses = [one, two].map(|folder| configure(folder, shared, topic));
    let created = output(one, &["topics", "create", "--config", "tokenwarden.toml"]);
    assert!(created.contains("campaigns.sightings: topic: created: 1 partition, retention 3 days"), "{created}");

    let mut events = Events::history();
    let mut produced = 0;
    let mut send = |events: &Events| {
        let messages = events.0[produced..].iter().map(|(key, event)| (&**key, event.as_bytes()));
        produce(topic, messages);
        produced = events.0.len();
    };
    let log = || format!("{}\n---\n{}", read(&one.join("log")), read(&two.join("log")));
    let committed = |count: usize| {
        let done = || (committed_in_all(topic) == count as i64).then_some(());
        eventually(Duration::from_secs(90), "all events are committed", done).unwrap_or_else(|| panic!("{}", log()));
    };
    send(&events);
    let (first, second) = (Service::start(one), Service::start(two));
    committed(events.0.len());

    // Two of four users, so that nothing is found yet. The third and fourth come after a kill.
    events.stolen(5 * 1_440 + 600, 0, &[1, 4], "192.0.2.9");
    // A campaign over tenants, at another place.
    events.stolen(5 * 1_440 + 700, 1, &[0, 1, 2, 3], "203.0.113.5");
    send(&events);
    committed(events.0.len());
    first.kill();
    events.stolen(5 * 1_440 + 660, 0, &[6, 8], "192.0.2.9");
    // The second half of the third campaign comes after the other member is killed.
    events.stolen(5 * 1_440 + 800, 0, &[0, 2], "192.0.3.77");
    send(&events);
    committed(events.0.len());
    let first = Service::start(one);
    let started = || read(&one.join("log")).matches("partition taken over").count() > 2;
    eventually(Duration::from_secs(60), "the member is back", || started().then_some(()))
        .unwrap_or_else(|| panic!("{}", log()));
    second.kill();
    events.stolen(5 * 1_440 + 850, 0, &[3, 5, 7], "192.0.3.77");
    send(&events);
    committed(events.0.len());

    let expected = replayed(one, &events, "1");
    assert_eq!(expected.values().map(|found| found.3.len()).collect::<BTreeSet<_>>(), [4, 9].into(), "{expected:?}");
    for partitions in ["2", "4", "7"] {
        assert_eq!(replayed(one, &events, partitions), expected, "{partitions} partitions");
    }
    let second = Service::start(two);
    let all = || (merged(stored(one), stored(two)) == expected).then_some(());
    eventually(Duration::from_secs(90), "both members have found all campaigns", all)
        .unwrap_or_else(|| panic!("{:#?}\nexpected {expected:#?}\n{}", merged(stored(one), stored(two)), log()));

    // Sightings of a member with another key, and what is none.
    let sightings = KAFKA.read_all("campaigns.sightings");
    let mut foreign: Value = serde_json::from_slice(&sightings[0].payload).expect("a sighting");
    foreign["key"] = 7.into();
    let foreign = foreign.to_string();
    KAFKA.produce("campaigns.sightings", [("1", foreign.as_bytes()), ("1", b"not a sighting")]);
    let reported = || {
        let text = log();
        (text.contains("set the same privacy.token_key_file for all members")
            && text.contains("a sighting cannot be read"))
        .then_some(())
    };
    eventually(Duration::from_secs(60), "refused sightings are reported", reported)
        .unwrap_or_else(|| panic!("{}", log()));
    let ready = || {
        std::net::TcpStream::connect(&addresses[1]).ok()?;
        ask(&addresses[1], "/readyz").starts_with("HTTP/1.1 200").then_some(())
    };
    eventually(Duration::from_secs(60), "the service is ready", ready).unwrap_or_else(|| panic!("{}", log()));
    let owner = addresses.iter().map(|address| ask(address, "/readyz")).find(|text| text.contains("campaigns"));
    assert!(owner.is_some_and(|text| text.starts_with("HTTP/1.1 200")), "reported, and ready");
    drop((first, second));
}

/// More sightings than a stage keeps, most of which it drops.
#[test]
fn flood_before_a_restart_hides_no_campaign() {
    let (topic, flood) = ("flooded", 70_000);
    KAFKA.create_topic(topic, 4);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    configure(folder, folder, topic);
    output(folder, &["topics", "create", "--config", "tokenwarden.toml"]);
    let log = || read(&folder.join("log"));
    let mut events = Events::history();
    events.stolen(5 * 1_440 + 600, 0, &[1, 4], "192.0.2.9");
    let messages = |events: &[(String, String)]| {
        produce(topic, events.iter().map(|(key, event)| (&**key, event.as_bytes())));
    };
    messages(&events.0);
    let service = Service::start(folder);
    let done = || (committed_in_all(topic) == events.0.len() as i64).then_some(());
    eventually(Duration::from_secs(90), "all events are committed", done).unwrap_or_else(|| panic!("{}", log()));
    let sightings = KAFKA.read_all("flooded.sightings");
    assert_eq!(sightings.len(), 2);
    KAFKA.produce("flooded.sightings", (0..flood).map(|_| ("1", &*sightings[0].payload)));
    let consumer: BaseConsumer = KAFKA.client().set("group.id", "flooded-sightings").create().expect("a client");
    let mut asked = TopicPartitionList::new();
    asked.add_partition("flooded.sightings", 0);
    let all_read = || {
        let committed = consumer.committed_offsets(asked.clone(), Duration::from_secs(10)).ok()?;
        (committed.elements()[0].offset() == Offset::Offset(flood + 2)).then_some(())
    };
    eventually(Duration::from_secs(120), "the flood is read", all_read).unwrap_or_else(|| panic!("{}", log()));
    service.kill();
    let before = events.0.len();
    events.stolen(5 * 1_440 + 660, 0, &[6, 8], "192.0.2.9");
    messages(&events.0[before..]);
    let service = Service::start(folder);
    let found = || stored(folder).values().any(|found| found.3.len() == 4).then_some(());
    eventually(Duration::from_secs(120), "the campaign is found", found)
        .unwrap_or_else(|| panic!("{:?}\n{}", stored(folder), log()));
    drop(service);
}
