//! Outages of ClickHouse and other services: alerts and revocations continue, no row is lost, and the service stops in time.

use std::io::Write as _;
use std::process::{ChildStdin, Stdio};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::support::process::{keep_one_rule, wait_for_port};
use super::*;

/// A ClickHouse server: a process with the embedded engine and its HTTP endpoint.
pub(super) struct ClickHouse {
    folder: tempfile::TempDir,
    port: u16,
    process: Option<(Child, ChildStdin)>,
}

impl ClickHouse {
    /// A server that is down. It has run once, so that it has a password.
    pub(super) fn prepared() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let text = format!(
            "rules_dir = 'rules'\n[source.file]\npath = '-'\n[store]\nurl = 'embedded:data'\n\
             listen = '127.0.0.1:{port}'\n[admin]\nlisten = '127.0.0.1:{}'\n",
            free_port()
        );
        std::fs::write(folder.path().join("tokenwarden.toml"), text).expect("a configuration");
        keep_one_rule(folder.path());
        let mut server = Self { folder, port, process: None };
        server.start();
        server.kill();
        server
    }

    pub(super) fn start(&mut self) {
        let log = self.folder.path().join("log");
        let out = std::fs::File::options().create(true).append(true).open(&log).expect("a log file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
            .args(["run", "--config", "tokenwarden.toml"])
            .current_dir(self.folder.path())
            .env_clear()
            .env("TOKENWARDEN_CACHE", cache())
            .stdin(Stdio::piped())
            .stderr(out)
            .spawn()
            .expect("tokenwarden runs");
        let events = child.stdin.take().expect("a pipe");
        self.process = Some((child, events));
        wait_for_port(self.port, &log);
        let started = || read(&log).contains("\"started\"").then_some(());
        eventually(Duration::from_secs(60), "the server starts", started).unwrap_or_else(|| panic!("{}", read(&log)));
    }

    fn kill(&mut self) {
        if let Some((mut child, _)) = self.process.take() {
            child.kill().expect("kill -9");
            child.wait().expect("it is gone");
        }
    }

    /// Suspends the process: the system accepts connections, and there is no response until [`Self::answer`].
    fn hang(&self) {
        self.signal("-STOP");
    }

    fn answer(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let (child, _) = self.process.as_ref().expect("it runs");
        let sent = Command::new("kill").args([name, &child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }

    /// Writes the section `[store]` of a service that uses the server.
    pub(super) fn configure(&self, folder: &Path) {
        let endpoint = read(&self.folder.path().join("data/endpoint.json"));
        let endpoint: serde_json::Value = serde_json::from_str(&endpoint).expect("JSON");
        keep_secret(&folder.join("store.password"), endpoint["password"].as_str().expect("a password"));
        let file = folder.join("tokenwarden.toml");
        let section =
            format!("url = 'http://127.0.0.1:{}'\nuser = 'tokenwarden'\npassword_file = 'store.password'\n", self.port);
        let text = read(&file).replace("url = 'embedded:data'\n", &section);
        assert!(text.contains(&section));
        std::fs::write(file, text).expect("a configuration");
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        self.kill();
    }
}

/// First line of `/readyz`, with any status.
pub(super) fn readiness(service: &Service) -> String {
    let url = format!("http://127.0.0.1:{}/readyz", service.admin);
    blocking(async { reqwest::get(&url).await?.text().await }).unwrap_or_default()
}

pub(super) fn until_unready(service: &Service, condition: &str) {
    let found = eventually(Duration::from_secs(60), condition, || {
        readiness(service).lines().any(|line| line.starts_with(condition)).then_some(())
    });
    assert!(found.is_some(), "{}\n{}", readiness(service), service.log());
}

/// Sum of the committed offsets of all partitions.
pub(super) fn committed(kafka: &Kafka) -> i64 {
    let consumer: BaseConsumer = kafka.client().set("group.id", "tokenwarden").create().expect("a client");
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range(TOPIC, 0, 2);
    let offsets = consumer.committed_offsets(partitions, Duration::from_secs(10)).expect("an answer");
    offsets
        .elements()
        .iter()
        .filter_map(|element| element.offset().to_raw().filter(|_| element.offset() != Offset::Invalid))
        .sum()
}

/// Waits until the incident of `person` is in the outbox. Returns the time waited.
fn until_in_outbox(service: &Service, person: &str) -> Duration {
    let began = Instant::now();
    let journal = service.folder.join("outbox of one/journal.ndjson");
    let found = eventually(Duration::from_secs(20), "the incident is in the outbox", || {
        read(&journal).contains(&format!("grant-{person}")).then_some(())
    });
    assert!(found.is_some(), "{person}: {}", service.log());
    began.elapsed()
}

#[test]
fn clickhouse_outage_delays_no_alert() {
    let (folder, kafka, receivers) = staged();
    let mut server = ClickHouse::prepared();
    server.configure(folder.path());
    let mut ledger = Ledger::default();
    for person in ["ana", "ben", "cem"] {
        ledger.rotating(person);
    }
    let strike = |ledger: &mut Ledger, service: &Service, person: &str| {
        ledger.theft(person);
        ledger.send(&kafka);
        let took = until_in_outbox(service, person);
        // An idle machine takes 0.5 s. A wait for the store would take much longer.
        assert!(took < Duration::from_secs(5), "{person}: {took:?}");
        receivers.wait_for(person);
    };

    // Down at the start.
    let service = Service::start(folder.path(), free_port());
    assert_eq!(service.page("/healthz"), "ok\n");
    ledger.ordinary(500);
    ledger.send(&kafka);
    strike(&mut ledger, &service, "ana");
    until_unready(&service, "store: ");
    assert_eq!(committed(&kafka), 0, "nothing is stored, so nothing is done");
    // Killed while all rows wait in the spool.
    service.kill();
    let service = Service::start(folder.path(), free_port());
    server.start();
    let all = "SELECT count(), uniqExact(event_id) FROM token_events";
    let stored = |service: &Service, ledger: &Ledger| {
        let count = ledger.ids.len();
        service.until(all, &format!("{count},{count}"));
        let done = eventually(Duration::from_secs(10), "offsets", || (committed(&kafka) == count as i64).then_some(()));
        assert!(done.is_some(), "{} of {count}", committed(&kafka));
        assert_eq!(service.page("/readyz"), "ok\n");
    };
    stored(&service, &ledger);

    // ClickHouse hangs: it accepts connections and does not respond.
    server.hang();
    ledger.ordinary(500);
    ledger.send(&kafka);
    strike(&mut ledger, &service, "ben");
    until_unready(&service, "store: ");
    server.answer();
    stored(&service, &ledger);

    // ClickHouse is killed and restarted.
    server.kill();
    ledger.ordinary(500);
    strike(&mut ledger, &service, "cem");
    server.start();
    stored(&service, &ledger);
    assert_eq!(service.terminate().0.code(), Some(0));
    ledger.compare(folder.path());
    assert_eq!(receivers.heard(), [3, 3, 3], "each theft once, also those that are scored again after the kill");
}

/// Outage while the service is stopped.
#[derive(Clone, Copy, Debug)]
enum Outage {
    StoreDown,
    StoreHangs,
    SpoolFull,
    BrokersGone,
    DeadLettersRefused,
    MailHangs,
    RevokerHangs,
    Rebuilding,
}

#[test]
#[ignore = "slow: eight services are started and stopped"]
fn sigterm_stops_within_10_s_in_every_outage() {
    for outage in [
        Outage::StoreDown,
        Outage::StoreHangs,
        Outage::SpoolFull,
        Outage::BrokersGone,
        Outage::DeadLettersRefused,
        Outage::MailHangs,
        Outage::RevokerHangs,
        Outage::Rebuilding,
    ] {
        stop_during(outage);
    }
}

#[test]
fn sigterm_ends_the_service_while_clickhouse_hangs() {
    stop_during(Outage::StoreHangs);
}

fn stop_during(outage: Outage) {
    let (folder, mut kafka, receivers) = staged();
    let mut server = ClickHouse::prepared();
    server.configure(folder.path());
    if !matches!(outage, Outage::StoreDown | Outage::SpoolFull) {
        server.start();
    }
    if let Outage::DeadLettersRefused = outage {
        let admin: AdminClient<DefaultClientContext> = kafka.client().create().expect("a client");
        let letters = NewTopic::new("tokenwarden.dead-letters", 1, TopicReplication::Fixed(1));
        let letters = letters.set("max.message.bytes", "1");
        let made = futures::executor::block_on(admin.create_topics([&letters], &AdminOptions::new()));
        assert!(made.is_ok_and(|made| made.iter().all(Result::is_ok)));
    }
    if let Outage::SpoolFull = outage {
        let file = folder.path().join("tokenwarden.toml");
        let text = read(&file).replace("[store]\n", "[store]\nspool_bytes_max = 1\n");
        std::fs::write(file, text).expect("a configuration");
    }
    let mut ledger = Ledger::default();
    let mut service = Service::start(folder.path(), free_port());
    assert_eq!(service.page("/healthz"), "ok\n");
    ledger.ordinary(500);
    ledger.rotating("ana");
    ledger.send(&kafka);
    match outage {
        Outage::StoreDown => until_unready(&service, "store: "),
        Outage::StoreHangs => {
            service.until("SELECT uniqExact(event_id) FROM token_events", &ledger.ids.len().to_string());
            server.hang();
            // Stopped before the outage is detected.
            ledger.ordinary(500);
            ledger.send(&kafka);
            std::thread::sleep(Duration::from_secs(2));
        }
        Outage::SpoolFull => {
            let padding: Vec<String> = (0..10).map(|at| format!(r#""padding {at}":"{}""#, "x".repeat(4_000))).collect();
            let padding = padding.join(",");
            let event = |number: u32| {
                format!(
                    r#"{{"event_id":"big-{number}","timestamp":1790090000000,"token_id":"t","user_id":"u","ip_address":"192.0.2.1","attrs":{{{padding}}}}}"#
                )
            };
            let events: Vec<String> = (0..2_000).map(event).collect();
            kafka.produce(TOPIC, events.iter().map(|event| ("u", event.as_bytes())));
            until_unready(&service, "spool_full: ");
        }
        Outage::BrokersGone => kafka.stop(),
        Outage::DeadLettersRefused => {
            kafka.produce(TOPIC, [("k", b"no event".as_slice())]);
            service.until("SELECT count() FROM dead_letters", "1");
        }
        Outage::MailHangs | Outage::RevokerHangs => {
            if let Outage::MailHangs = outage {
                receivers.smtp.hold();
            } else {
                receivers.api.hold(true);
            }
            ledger.theft("ana");
            ledger.send(&kafka);
            let asked = || Some(()).filter(|()| !receivers.of("ana").revocations.is_empty());
            eventually(Duration::from_secs(30), "the provider is asked", asked).expect("a revocation");
        }
        Outage::Rebuilding => {
            ledger.ordinary(60_000);
            ledger.send(&kafka);
            let whole = ledger.ids.len() as i64;
            eventually(Duration::from_secs(120), "all is done", || (committed(&kafka) >= whole).then_some(()))
                .expect("all is committed");
            service.kill();
            service = Service::start(folder.path(), free_port());
            assert_eq!(service.page("/healthz"), "ok\n");
        }
    }
    let (status, took) = service.terminate();
    assert_eq!(status.code(), Some(0), "{outage:?}: {}", read(&folder.path().join("log of one")));
    assert!(took < Duration::from_secs(10), "{outage:?}: {took:?}");
    writeln!(std::io::stderr(), "{outage:?}: stopped within {took:?}").expect("stderr");
    if let Some((child, _)) = &server.process {
        let _ = Command::new("kill").args(["-CONT", &child.id().to_string()]).status();
    }
}
