//! Restoration of a partition with a million baselines from the topic of snapshots.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use serde_json::Value;
use tokenwarden::engine::{self, STATE_FORMAT, State};
use tokenwarden::enrich::{Enricher, GeoSettings};
use tokenwarden::event::{Address, Event, Timestamp};
use tokenwarden::port::Snapshots as _;
use tokenwarden::rule::RuleSet;
use tokenwarden::snapshot::{Marker, write};
use tokenwarden::source::kafka::{KafkaSettings, StateTopic, StateTopicUse, Topic};
use tokenwarden::token::TokenHasher;
use tokenwarden::wire::{Decoded, Decoder, Format};

use super::key;
use super::servers::kafka::Kafka;
use super::service::{Committed, Service};
use super::support::engine::Owner;

const TOPIC: &str = "restored-events";
const BASELINES: u64 = 1_000_000;
/// Uses of each token, on consecutive days. Each is a visit.
const VISITS: u64 = 4;
const DAY_MS: i64 = 86_400_000;
/// Monday, 2 February 2026, 00:00 UTC.
const START: i64 = 1_769_990_400_000;
/// A call from a common browser; other fields differ by token.
const CALL: &[u8] = br#"{"event_id":"e","timestamp":"2026-02-02T00:00:00Z","token_id":"t","user_id":"u","app_id":"crm","tenant_id":"acme","ip_address":"192.0.2.1","user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/144.0.0.0 Safari/537.36","method":"GET","endpoint":"/v1/contacts","status":200}"#;

/// Replaces the snapshot of a stopped service by one with [`BASELINES`] baselines, starts the service again, and prints
/// how long the restoration takes. Then prints the pause of the next snapshot.
pub(crate) fn measure(kafka: &Kafka) {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Owner::start(folder.path());
    kafka.create_topic(TOPIC, 1);
    let committed = Committed::open(kafka, TOPIC, TOPIC, 1);
    let start = || {
        let sections = "state_topic = true\n[snapshots]\ninterval_ms = 5000\n";
        Service::start(folder.path(), kafka, [TOPIC, TOPIC], sections)
    };
    kafka.produce(TOPIC, [(key(CALL).as_str(), CALL)]);
    let mut service = start();
    service.until(|_| committed.sum() == 1);
    // Writes a snapshot, whose marker has what the service expects.
    service.stop();
    replace(kafka);

    let began = Instant::now();
    let mut service = start();
    let again = String::from_utf8_lossy(CALL).replace(r#""event_id":"e""#, r#""event_id":"f""#);
    kafka.produce(TOPIC, [(key(CALL).as_str(), again.as_bytes())]);
    service.until(|_| committed.sum() == 2);
    let whole = began.elapsed();
    let log = service.log();
    let mut restored = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let restored = restored.find(|line| line["baselines"] == BASELINES && line["took_ms"].is_number());
    let restored = restored.unwrap_or_else(|| panic!("the state was not restored:\n{log}"));
    println!(
        "kafka: {BASELINES} baselines of one partition restored in {:.1} s; {:.1} s from the start of the process to the \
         first commit",
        restored["took_ms"].as_f64().expect("a time") / 1_000.0,
        whole.as_secs_f64()
    );
    service.stop();
    drop(engine);
}

fn replace(kafka: &Kafka) {
    let settings = KafkaSettings {
        brokers: kafka.brokers.clone(),
        topics: vec![Topic { topic: TOPIC.to_owned(), feed: Format::Native.into() }],
        group_id: TOPIC.to_owned(),
        prefix: TOPIC.to_owned(),
        properties: std::collections::BTreeMap::new(),
        allow_plaintext: false,
        remember_messages_max: 0,
        state_topic: StateTopicUse::Required,
        verdicts_topic: false,
        rekey: false,
        sightings_topic: false,
    };
    let name = format!("{TOPIC}-0");
    let topic = StateTopic::open(&settings).expect("the topic of snapshots");
    let marker = topic.newest(&name).expect("the topic is read").expect("the service has written a snapshot").marker;
    let states = vec![state()];
    let began = Instant::now();
    let mut writer = topic.begin(&name).expect("a snapshot begins");
    let extent = write(&states, STATE_FORMAT, &mut |record| writer.write(record)).expect("the state is written");
    let marker = Marker { extent, baselines: states[0].memory().1 as u64, ..marker };
    let bytes = writer.finish(marker).join().expect("no panic").expect("the snapshot is complete");
    println!("kafka: a snapshot of {} MiB written to Kafka in {:.1} s", bytes >> 20, began.elapsed().as_secs_f64());
}

/// A state with [`BASELINES`] baselines.
fn state() -> State {
    let mut state = State::new(engine::Settings::default());
    let mut enricher = Enricher::new(&GeoSettings::default());
    let rules = RuleSet::builtin();
    let mut decoder = Decoder::new(Format::Native, TokenHasher::new(b"a key for the bench"));
    decoder.decode(CALL, &mut |decoded| {
        let Ok(Decoded::Event(call)) = decoded else { unreachable!("the call is an event") };
        for number in 0..BASELINES * VISITS {
            let at = i64::try_from(u128::from(number) * DAY_MS as u128 / u128::from(BASELINES)).expect("some days");
            engine::step(&mut state, &rules, &enricher.enrich(called(&call, number % BASELINES, at)));
        }
    });
    state
}

fn called<'a>(call: &Event<'a>, token: u64, at: i64) -> Event<'a> {
    let mut event = call.clone();
    event.event_id = format!("{at}-{token}").into();
    event.family_id = Some(format!("grant-{token}").into());
    event.user_id = Some(format!("user-{token}").into());
    event.address = Some(Address::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | token as u32))));
    event.timestamp = Timestamp::from_millis(START + at).expect("before the year 2200");
    event
}
