//! Time from sending an event to the request that revokes its token, at half load.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;

use super::servers::kafka::Kafka;
use super::servers::process::{eventually, keep_secret, read};
use super::servers::web::Web;
use super::service::{Committed, Service};
use super::support::engine::Owner;
use super::{PARTITIONS, key, lines_of};

const TOPIC: &str = "latency-events";
/// Number of thefts. Each has a victim of its own.
const THEFTS: usize = 300;
/// Time after which a request counts as missing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Interval in which events are sent.
const BEAT: Duration = Duration::from_millis(5);

/// Sends `rate` events per second, with thefts among them, and prints the latency of the revocations.
pub(crate) fn measure(kafka: &Kafka, lines: &[u8], rate: f64) {
    let folder = tempfile::tempdir().expect("a folder");
    let api = Web::start();
    let engine = Owner::start(folder.path());
    kafka.create_topic(TOPIC, PARTITIONS);
    let background: Vec<(String, &[u8])> = lines_of(lines).map(|line| (key(line), line)).collect();
    let first = timestamp(background[0].1);
    let histories: Vec<_> = (0..THEFTS).flat_map(|victim| history(victim, first)).collect();
    kafka.produce(TOPIC, histories.iter().map(|(key, event)| (key.as_str(), event.as_bytes())));
    let mut service = start(folder.path(), kafka, &api);
    let committed = Committed::open(kafka, TOPIC, TOPIC, PARTITIONS);
    service.until(|_| committed.sum() == histories.len() as i64);

    let sent = send(kafka, &background, rate);
    let done = || (revoked(&api).len() >= sent.len()).then_some(());
    eventually(PATIENCE, "all thefts are revoked", done);
    let revoked = revoked(&api);
    let mut latencies: Vec<Duration> =
        sent.iter().filter_map(|(victim, at)| Some(revoked.get(victim)?.duration_since(*at))).collect();
    latencies.sort_unstable();
    let missing = sent.len() - latencies.len();
    assert!(latencies.len() * 2 > THEFTS, "{missing} of {THEFTS} thefts were not revoked:\n{}", service.log());
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share).round() as usize].as_millis();
    println!(
        "kafka: latency from sending an event to its revocation request at {rate:.0} events/s: p50 {} ms, p99 {} ms, \
         maximum {} ms of {}; {missing} without a request",
        at(0.5),
        at(0.99),
        at(1.0),
        latencies.len()
    );
    service.stop();
    drop(engine);
}

/// The service, which revokes the grant of a refresh token that is used again.
fn start(folder: &Path, kafka: &Kafka, api: &Web) -> Service {
    keep_secret(&folder.join("token"), "a token of the benchmark");
    let rules = folder.join("rules");
    std::fs::create_dir(&rules).expect("a folder");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/rules")).expect("the rules").flatten() {
        std::fs::copy(entry.path(), rules.join(entry.file_name())).expect("a rule");
    }
    let rule = rules.join("refresh_reuse.toml");
    let text = read(&rule);
    assert!(text.contains("mode = \"shadow\""), "{text}");
    std::fs::write(&rule, text.replace("mode = \"shadow\"", "mode = \"enforce\"")).expect("a rule");
    let sections = format!(
        "[detection]\nalert_budget_per_day = 1000000\nalert_budget_total_per_day = 1000000\n\
         [revoke]\nmode = 'enforce'\nmax_per_hour = 1000000\n\
         [revoke.http]\npreset = 'by_id'\nurl = '{}/grants'\ntoken_file = 'token'\n",
        api.url
    );
    Service::start(folder, kafka, [TOPIC, TOPIC], &sections)
}

/// A day of a phone that exchanges its refresh token every hour, before `end`, milliseconds since the epoch.
fn history(victim: usize, end: i64) -> Vec<(String, String)> {
    let phone = format!(r#""ip_address":"{}","user_agent":"acme-mail/3.1 (iPhone; iOS 18.3)""#, address(victim, 10));
    let mut events = Vec::new();
    for hour in 0..24 {
        let (at, next) = (end - (24 - hour) * 3_600_000, hour + 1);
        let mut add =
            |nth: i64, fields: &str| events.push(event(victim, &format!("{hour}-{nth}"), at + nth * 20, fields));
        add(0, &format!(r#""kind":"refreshed","token_type":"refresh","token_id":"rt-{victim}-{hour}",{phone}"#));
        let parent = format!(r#""parent_token_id":"rt-{victim}-{hour}""#);
        add(1, &format!(r#""kind":"issued","token_type":"refresh","token_id":"rt-{victim}-{next}",{parent}"#));
        let call = r#""method":"GET","endpoint":"/v1/messages","status":200"#;
        add(2, &format!(r#""token_type":"access","token_id":"at-{victim}-{next}",{phone},{call}"#));
    }
    events
}

fn event(victim: usize, id: &str, at: i64, fields: &str) -> (String, String) {
    let text = format!(
        r#"{{"event_id":"victim-{victim}-{id}","timestamp":{at},"user_id":"victim-{victim}","family_id":"grant-{victim}","app_id":"mail-{victim}",{fields}}}"#
    );
    (format!("victim-{victim}"), text)
}

/// An address in a network of its own.
fn address(number: usize, host: usize) -> String {
    format!("{}.{}.{}.{host}", 20 + number % 60, 10 + number / 60 * 7 % 200, number % 250)
}

fn timestamp(line: &[u8]) -> i64 {
    let event: Value = serde_json::from_slice(line).expect("an event");
    let text = event["timestamp"].as_str().expect("a time");
    text.parse::<jiff::Timestamp>().expect("RFC 3339").as_millisecond()
}

/// Sends the events at the rate, and the thefts evenly among them. Returns when each victim's theft was sent.
fn send(kafka: &Kafka, background: &[(String, &[u8])], rate: f64) -> HashMap<usize, Instant> {
    let producer: BaseProducer = kafka.client().set("linger.ms", "0").create().expect("a client");
    let append = |key: &str, payload: &[u8]| {
        let mut record = BaseRecord::to(TOPIC).key(key).payload(payload);
        while let Err((_, back)) = producer.send(record) {
            producer.poll(Duration::from_millis(1));
            record = back;
        }
    };
    let (began, mut next, mut sent) = (Instant::now(), 0, HashMap::new());
    while sent.len() < THEFTS {
        let due = ((began.elapsed().as_secs_f64() * rate) as usize).min(background.len());
        for (key, line) in &background[next..due] {
            append(key, line);
        }
        next = due;
        let victim = sent.len();
        if next > victim * background.len() / THEFTS {
            let at = timestamp(background[next - 1].1);
            let stolen = format!(r#""kind":"refreshed","token_type":"refresh","token_id":"rt-{victim}-20""#);
            let thief =
                format!(r#""ip_address":"{}","user_agent":"python-requests/2.32.3""#, address(victim + 1_000, 66));
            let (key, theft) = event(victim, "theft", at, &format!("{stolen},{thief}"));
            sent.insert(victim, Instant::now());
            append(&key, theft.as_bytes());
        }
        producer.poll(Duration::ZERO);
        std::thread::sleep(BEAT);
    }
    producer.flush(Duration::from_secs(30)).expect("the broker takes the events");
    sent
}

/// When the first request for each victim's grant arrived.
fn revoked(api: &Web) -> HashMap<usize, Instant> {
    let mut found = HashMap::new();
    for asked in api.requests() {
        let victim = asked.path.rsplit_once("grant-").and_then(|(_, victim)| victim.parse().ok());
        if let Some(victim) = victim {
            found.entry(victim).or_insert(asked.at);
        }
    }
    found
}
