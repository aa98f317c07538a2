//! The whole story on real parts: events into a real Kafka, the service as a child process, rows in the ClickHouse
//! engine, a mail by a real SMTP server, a webhook, a revocation; killed in the middle, and nothing is missing.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test that cannot go on says so")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use support::kafka::Kafka;
use support::process::{cache, eventually, free_port, read};

const TOPIC: &str = "token-events";

/// The service as an operator runs it.
struct Service {
    child: Child,
    folder: PathBuf,
    log: PathBuf,
    admin: u16,
}

impl Service {
    fn start(folder: &Path, admin: u16) -> Self {
        Self::start_as(folder, "one", admin)
    }

    /// `member`: its name in the consumer group, which it keeps over restarts.
    fn start_as(folder: &Path, member: &str, admin: u16) -> Self {
        let log = folder.join(format!("log of {member}"));
        let out = std::fs::File::options().create(true).append(true).open(&log).expect("a log file");
        let child = Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
            .args(["run", "--config", "tokenwarden.toml"])
            .current_dir(folder)
            .env_clear()
            .env("TOKENWARDEN_CACHE", cache())
            .env("TOKENWARDEN__ADMIN__LISTEN", format!("127.0.0.1:{admin}"))
            .env("TOKENWARDEN__OUTBOX__DIR", format!("outbox of {member}"))
            .env("TOKENWARDEN__SOURCE__KAFKA__PROPERTIES__GROUP_INSTANCE_ID", member)
            .stderr(out)
            .spawn()
            .expect("tokenwarden runs");
        Self { child, folder: folder.to_owned(), log, admin }
    }

    fn log(&self) -> String {
        read(&self.log)
    }

    /// Waits for the page to answer with 200, and gives its text.
    fn page(&self, path: &str) -> String {
        let url = format!("http://127.0.0.1:{}{path}", self.admin);
        let ask = || {
            let answer = blocking(async { reqwest::get(&url).await?.error_for_status()?.text().await });
            answer.ok()
        };
        eventually(Duration::from_secs(30), path, ask).unwrap_or_else(|| panic!("no {path}:\n{}", self.log()))
    }

    /// The answer to `sql`, asked as an analyst does, beside the running service.
    fn sql(&self, sql: &str) -> String {
        ask_store(&self.folder, sql)
    }

    /// Waits until `sql` gives `wanted`.
    fn until(&self, sql: &str, wanted: &str) {
        let mut last = String::new();
        let found = eventually(Duration::from_secs(30), sql, || {
            last = self.sql(sql);
            (last == wanted).then_some(())
        });
        assert!(found.is_some(), "{sql}: {last} instead of {wanted}\n{}", self.log());
    }

    /// Waits until `/metrics` has `line`.
    fn until_metric(&self, line: &str) {
        let told = || self.page("/metrics").lines().any(|told| told == line).then_some(());
        eventually(Duration::from_secs(20), line, told).unwrap_or_else(|| panic!("{}", self.page("/metrics")));
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }

    fn kill(mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("it is gone");
    }

    fn terminate(mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        self.signal("-TERM");
        let status = eventually(Duration::from_secs(15), "it ends", || self.child.try_wait().expect("a child"));
        (status.unwrap_or_else(|| panic!("it does not end:\n{}", self.log())), began.elapsed())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn blocking<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn ask_store(folder: &Path, sql: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
        .args(["sql", "--config", "tokenwarden.toml", "--output", "csv", sql])
        .current_dir(folder)
        .env_clear()
        .env("TOKENWARDEN_CACHE", cache())
        .output()
        .expect("tokenwarden runs");
    let text = String::from_utf8_lossy(&output.stdout);
    // The first line names the columns; a store that is not there yet answers nothing.
    text.lines().skip(1).collect::<Vec<_>>().join("\n")
}

/// What the producer sent: every id must be found again, once.
#[derive(Default)]
struct Ledger {
    ids: BTreeSet<String>,
    messages: Vec<(String, String)>,
}

impl Ledger {
    /// An ordinary minute of a person's token.
    fn ordinary(&mut self, count: usize) {
        for _ in 0..count {
            let number = self.ids.len();
            let user = number % 40;
            let id = format!("ordinary-{number}");
            let at = 1_790_000_000_000_u64 + number as u64 * 1_000;
            let text = format!(
                r#"{{"event_id":"{id}","timestamp":{at},"token_id":"tok-{user}","user_id":"user-{user}","ip_address":"192.0.2.{user}","user_agent":"curl/8.5.0","method":"GET","endpoint":"/v1/items/{number}","status":200}}"#
            );
            self.messages.push((format!("user-{user}"), text));
            self.ids.insert(id);
        }
    }

    /// Every event is in the store, and no other.
    fn compare(&self, folder: &Path) {
        let found = ask_store(folder, "SELECT event_id FROM token_events");
        let found: BTreeSet<String> = found.lines().map(|line| line.trim_matches('"').to_owned()).collect();
        assert!(found == self.ids, "{} of {} events are stored", found.len(), self.ids.len());
    }

    fn send(&mut self, kafka: &Kafka) {
        kafka.produce(TOPIC, self.messages.iter().map(|(key, text)| (key.as_str(), text.as_bytes())));
        self.messages.clear();
    }
}

fn configure(folder: &Path, kafka: &Kafka) {
    let mut text = String::new();
    let _ = write!(
        text,
        "rules_dir = 'rules'\n[source.kafka]\nbrokers = '{}'\ntopics = ['{TOPIC}']\n\
         properties = {{ 'session.timeout.ms' = '6000' }}\n[store]\nurl = 'embedded:data'\n",
        kafka.brokers
    );
    std::fs::write(folder.join("tokenwarden.toml"), text).expect("a configuration");
    let rules = folder.join("rules");
    std::fs::create_dir(&rules).expect("a folder");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/rules")).expect("the rules").flatten() {
        std::fs::copy(entry.path(), rules.join(entry.file_name())).expect("a rule");
    }
}

#[test]
fn a_theft_is_caught_told_and_ended_and_a_kill_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let kafka = Kafka::start();
    kafka.create_topic(TOPIC, 3);
    let admin = free_port();
    configure(folder.path(), &kafka);
    let mut ledger = Ledger::default();

    let service = Service::start(folder.path(), admin);
    assert_eq!(service.page("/readyz"), "ok\n");
    ledger.ordinary(2_000);
    ledger.send(&kafka);
    let bad: [&[u8]; 3] = [b"{\"event_id\":", b"\xff\xfe\x00", b"{\"event_id\":\"x\",\"timestamp\":\"never\"}"];
    kafka.produce(TOPIC, bad.iter().map(|payload| ("user-1", *payload)));
    service.until("SELECT count() FROM token_events", "2000");
    service.until("SELECT count() FROM dead_letters", "3");

    // Rules with a mistake in them change nothing; mended, they are taken.
    let rule = folder.path().join("rules/new_country.toml");
    let right = std::fs::read_to_string(&rule).expect("a rule");
    std::fs::write(&rule, format!("severiti = 'high'\n{right}")).expect("a rule");
    service.signal("-HUP");
    service.until_metric("tokenwarden_rule_reloads_total{result=\"refused\"} 1");
    assert!(service.log().contains("did you mean `severity`?"), "{}", service.log());
    std::fs::write(&rule, right).expect("a rule");
    service.until_metric("tokenwarden_rule_reloads_total{result=\"done\"} 1");

    // Killed while the next ones are on their way.
    ledger.ordinary(20_000);
    ledger.send(&kafka);
    eventually(Duration::from_secs(30), "some are stored", || {
        service.sql("SELECT count() > 2000 FROM token_events").contains('1').then_some(())
    });
    service.kill();

    ledger.ordinary(500);
    ledger.send(&kafka);
    let service = Service::start(folder.path(), admin);
    assert_eq!(service.page("/readyz"), "ok\n");
    service.until("SELECT count() FROM token_events", "22500");
    service.until("SELECT uniqExact(event_id) FROM token_events", "22500");
    let metrics = service.page("/metrics");
    assert!(metrics.contains("tokenwarden_partitions 3"), "{metrics}");

    let letters = kafka.consume("tokenwarden.dead-letters", 3);
    let payloads: BTreeSet<&[u8]> = letters.iter().map(|letter| letter.payload.as_slice()).collect();
    assert_eq!(payloads, bad.into_iter().collect());

    let (status, took) = service.terminate();
    assert_eq!(status.code(), Some(0), "{}", read(&folder.path().join("log of one")));
    assert!(took < Duration::from_secs(10), "it took {took:?} to stop");
    ledger.compare(folder.path());
}

#[test]
#[ignore = "slow: the broker is away for most of a minute"]
fn a_broker_that_goes_and_comes_back_is_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut kafka = Kafka::start();
    kafka.create_topic(TOPIC, 3);
    let admin = free_port();
    configure(folder.path(), &kafka);
    let mut ledger = Ledger::default();
    let service = Service::start(folder.path(), admin);
    assert_eq!(service.page("/readyz"), "ok\n");
    ledger.ordinary(1_000);
    ledger.send(&kafka);
    service.until("SELECT uniqExact(event_id) FROM token_events", "1000");
    kafka.stop();
    std::thread::sleep(Duration::from_secs(40));
    assert_eq!(service.page("/healthz"), "ok\n");
    kafka.resume();
    ledger.ordinary(1_000);
    ledger.send(&kafka);
    service.until("SELECT uniqExact(event_id) FROM token_events", "2000");
    kafka.stop();
    let (status, took) = service.terminate();
    assert_eq!(status.code(), Some(0), "{}", read(&folder.path().join("log of one")));
    assert!(took < Duration::from_secs(10), "it took {took:?} to stop without a broker");
}

#[test]
#[ignore = "slow: killed a dozen times"]
fn killed_at_any_moment_nothing_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let kafka = Kafka::start();
    kafka.create_topic(TOPIC, 3);
    configure(folder.path(), &kafka);
    let mut ledger = Ledger::default();
    let admin = free_port();
    for round in 0..12 {
        let service = Service::start(folder.path(), admin);
        assert_eq!(service.page("/readyz"), "ok\n");
        ledger.ordinary(8_000);
        ledger.send(&kafka);
        // From reading the first to storing the last: spread over what an epoch takes.
        std::thread::sleep(Duration::from_millis(150 * round));
        service.kill();
    }
    let service = Service::start(folder.path(), admin);
    assert_eq!(service.page("/readyz"), "ok\n");
    service.until("SELECT uniqExact(event_id) FROM token_events", &ledger.ids.len().to_string());
    assert_eq!(service.terminate().0.code(), Some(0));
    ledger.compare(folder.path());
}

#[test]
#[ignore = "slow: members wait for each other"]
fn members_take_over_from_each_other_and_nothing_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let kafka = Kafka::start();
    kafka.create_topic(TOPIC, 6);
    configure(folder.path(), &kafka);
    let mut ledger = Ledger::default();
    let mut send = |count: usize| {
        ledger.ordinary(count);
        ledger.send(&kafka);
        ledger.ids.len().to_string()
    };
    let stored = "SELECT uniqExact(event_id) FROM token_events";

    let one = Service::start_as(folder.path(), "one", free_port());
    assert_eq!(one.page("/readyz"), "ok\n");
    send(5_000);
    let two = Service::start_as(folder.path(), "two", free_port());
    assert_eq!(two.page("/readyz"), "ok\n");
    one.until_metric("tokenwarden_partitions 3");
    one.until(stored, &send(5_000));
    two.until_metric("tokenwarden_partitions 3");

    // Stopped like a virtual machine that is moved: its partitions go to the other, and when it wakes up it has lost
    // them.
    two.signal("-STOP");
    one.until(stored, &send(5_000));
    two.signal("-CONT");
    one.until(stored, &send(5_000));

    // Killed while it works. It owns the embedded store no more, so that the other takes that over too.
    let all = send(5_000);
    one.kill();
    two.until(stored, &all);
    let all = send(5_000);
    two.until(stored, &all);
    assert_eq!(two.terminate().0.code(), Some(0));
    ledger.compare(folder.path());
}
