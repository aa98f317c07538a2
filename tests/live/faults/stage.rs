//! The parts of `make faults`: brokers, engine, disk, receivers and the configuration of the members.

use std::process::Stdio;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use tokenwarden::kill_point::VARIABLE;

use super::super::support::disk::Disk;
use super::super::support::proxy::Proxy;
use super::super::*;
use super::{PARTITIONS, PATIENCE, Random};

/// Size of the disk of the outboxes, MiB.
const DISK_MIB: u32 = 64;
/// A GeoIP file of places, and one of networks, both with the addresses of the events.
pub(super) const GEOIP_FILES: [&str; 2] = ["maxmind-city.mmdb", "asn-ipv4.mmdb"];

/// The process that owns the ClickHouse engine: `tokenwarden run` with an idle source.
pub(super) struct Engine {
    pub(super) folder: PathBuf,
    child: Child,
}

impl Engine {
    pub(super) fn start(folder: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log of engine"));
        let child = Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
            .args(["run", "--config", "engine.toml"])
            .current_dir(folder)
            .env_clear()
            .env("TOKENWARDEN_CACHE", cache())
            .stdin(Stdio::piped())
            .stderr(log.expect("a log file"))
            .spawn();
        let engine = Self { folder: folder.to_owned(), child: child.expect("tokenwarden runs") };
        let ready = eventually(Duration::from_secs(60), "the engine listens", || {
            let file = serde_json::from_str::<serde_json::Value>(&read(&folder.join("data/endpoint.json"))).ok()?;
            let address = file["url"].as_str()?.strip_prefix("http://")?.parse().ok()?;
            std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()
        });
        assert!(ready.is_some(), "{}", read(&folder.join("log of engine")));
        engine
    }

    pub(super) fn port(&self) -> u16 {
        let file: serde_json::Value =
            serde_json::from_str(&read(&self.folder.join("data/endpoint.json"))).expect("the engine's file");
        let url = file["url"].as_str().expect("an address");
        url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("it is gone");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything around the service.
pub(super) struct Stage {
    pub(super) folder: tempfile::TempDir,
    pub(super) kafka: Kafka,
    pub(super) engine: Engine,
    pub(super) disk: Disk,
    pub(super) proxy: Proxy,
    pub(super) ledger: Ledger,
    pub(super) receivers: Receivers,
    /// Proxies before the mail server and the revocation API.
    pub(super) gates: [Proxy; 2],
    /// Connections of the gate of the present fault, before it began.
    pub(super) accepted: usize,
    pub(super) random: Random,
    admin: [u16; 2],
}

impl Stage {
    pub(super) fn start(seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (kafka, receivers, port) = (Kafka::start_three(), Receivers::start(), free_port());
        kafka.create_topic(TOPIC, PARTITIONS);
        let at = folder.path();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR"));
        let rules = at.join("rules");
        std::fs::create_dir(&rules).expect("a folder");
        for rule in ["refresh_reuse.toml", "new_ip.toml"] {
            let text = read(&shipped.join("rules").join(rule)).replace("mode = \"shadow\"", "mode = \"enforce\"");
            std::fs::write(rules.join(rule), text).expect("a rule");
        }
        for file in GEOIP_FILES {
            std::fs::copy(shipped.join("geoip/test").join(file), at.join(file)).expect("a GeoIP file");
        }
        let config = format!(
            "rules_dir = 'rules'\n[source.file]\npath = '-'\n[store]\nurl = 'embedded:data'\nlisten = '127.0.0.1:{port}'\n\
             [outbox]\ndir = 'outbox of engine'\n[admin]\nlisten = '127.0.0.1:{}'\n",
            free_port()
        );
        std::fs::write(at.join("engine.toml"), config).expect("a configuration");
        keep_secret(&at.join("key"), "a key that all members have");
        let engine = Engine::start(at);
        let proxy = Proxy::start(([127, 0, 0, 1], port).into());
        let (ledger, random, disk) = (Ledger::default(), Random(seed), Disk::mount(DISK_MIB));
        let admin = [free_port(), free_port()];
        let gates = ports(&receivers).map(|port| Proxy::start(([127, 0, 0, 1], port).into()));
        let stage = Self { folder, kafka, engine, disk, proxy, ledger, receivers, gates, accepted: 0, random, admin };
        stage.configure("faulty", stage.proxy.port, &stage.receivers, [stage.gates[0].port, stage.gates[1].port]);
        stage
    }

    /// Writes the configuration of the members of the group `name`, which is also the name of their database.
    /// `mail` and `api`: ports of the mail server and the revocation API.
    pub(super) fn configure(&self, name: &str, store: u16, receivers: &Receivers, [mail, api]: [u16; 2]) {
        let at = self.folder.path();
        let file: serde_json::Value =
            serde_json::from_str(&read(&at.join("data/endpoint.json"))).expect("the engine's file");
        let text = |key: &str| file[key].as_str().expect("text");
        keep_secret(&at.join("store.password"), text("password"));
        keep_secret(&at.join("api.token"), "api-s3cret");
        keep_secret(&at.join("webhook.secret"), WEBHOOK_SECRET);
        keep_secret(&at.join("smtp.password"), PASSWORD);
        let [city, asn] = GEOIP_FILES;
        // As many incidents as rounds, each reported by a mail of its own.
        let config = format!(
            "rules_dir = 'rules'\n[geoip]\ncity = ['{city}']\nasn = ['{asn}']\n\
             [source.kafka]\nbrokers = '{}'\ntopics = ['{TOPIC}']\ngroup_id = '{name}'\n\
             prefix = '{name}'\nproperties = {{ 'session.timeout.ms' = '6000' }}\n[snapshots]\ninterval_ms = 1000\n\
             [detection]\nalert_budget_per_day = 100000\nalert_budget_total_per_day = 100000\n\
             [privacy]\ntoken_key_file = 'key'\n[store]\nurl = 'http://127.0.0.1:{store}'\ndatabase = '{name}'\n\
             user = '{}'\npassword_file = 'store.password'\n[alert.email]\n\
             smtp_url = 'smtps://localhost:{mail}'\nfrom = 'warden@example.com'\nto = ['security@example.com']\n\
             username = '{USER}'\npassword_file = 'smtp.password'\nca_file = '{}'\n\
             [alert.digest.email]\nmax_per_hour = 0\n[alert.webhook]\nurl = '{}/alerts'\n\
             secret_file = 'webhook.secret'\n[revoke]\nmode = 'enforce'\nmax_per_hour = 10000\nmax_per_hour_total = 10000\n\
             [revoke.http]\npreset = 'by_id'\nurl = 'http://127.0.0.1:{api}/grants'\ntoken_file = 'api.token'\n",
            self.kafka.brokers,
            text("user"),
            receivers.smtp.ca_file().display(),
            receivers.hook.url
        );
        keep_secret(&at.join("tokenwarden.toml"), &config);
    }

    /// Starts the member `number`, which keeps its outbox on the disk.
    pub(super) fn member(&self, number: usize) -> Service {
        self.member_with(number, None)
    }

    /// The same. `kill_at`: step and count at which the process kills itself.
    pub(super) fn member_with(&self, number: usize, kill_at: Option<&str>) -> Service {
        let (name, admin) = (["one", "two"][number], self.admin[number]);
        let mut command = Service::command(self.folder.path(), name, admin);
        command.env("TOKENWARDEN__OUTBOX__DIR", self.disk.path().join(name));
        command.envs(kill_at.map(|step| (VARIABLE, step)));
        Service::spawn(&mut command, &self.folder.path().join(format!("log of {name}")), admin)
    }

    /// Sends ordinary uses, a theft and a message that is no event. Returns the victim.
    pub(super) fn send(&mut self, round: u64) -> String {
        let person = format!("{}{round}", char::from(b'a' + (round % 26) as u8));
        self.ledger.ordinary(300);
        self.ledger.rotating(&person);
        // A network per thief, because thefts from one network would be one campaign and one incident.
        self.ledger.theft_from(&person, &format!("{}.{}.7.7", 60 + round / 200, round % 200));
        self.ledger.messages.push((person.clone(), "{\"event_id\":5}".to_owned()));
        self.ledger.send(&self.kafka);
        person
    }

    /// Sends ordinary uses until there is a snapshot of a state.
    pub(super) fn warm_up(&mut self, service: &Service) {
        let stored =
            |text: &str| text.lines().any(|line| line.starts_with("tokenwarden_snapshots_total{result=\"stored\"}"));
        let found = eventually(PATIENCE, "a snapshot is stored", || {
            self.ledger.ordinary(100);
            self.ledger.send(&self.kafka);
            std::thread::sleep(Duration::from_secs(1));
            stored(&service.page("/metrics")).then_some(())
        });
        assert!(found.is_some(), "{}", service.log());
    }

    /// Number of messages in each partition.
    pub(super) fn ends(&self) -> Vec<i64> {
        let consumer: BaseConsumer = self.kafka.client().create().expect("a client");
        let end = |partition| consumer.fetch_watermarks(TOPIC, partition, Duration::from_secs(10));
        (0..PARTITIONS).map(|partition| end(partition).expect("the broker answers").1).collect()
    }

    /// Waits until the group has committed all messages.
    pub(super) fn until_committed(&self, group: &str, service: &Service) {
        let consumer: BaseConsumer = self.kafka.client().set("group.id", group).create().expect("a client");
        let ends = self.ends();
        // For many messages in one go.
        let patience = PATIENCE + Duration::from_millis(ends.iter().sum::<i64>() as u64);
        let mut last = Vec::new();
        let done = eventually(patience, "all messages are committed", || {
            let mut partitions = TopicPartitionList::new();
            partitions.add_partition_range(TOPIC, 0, PARTITIONS - 1);
            let found = consumer.committed_offsets(partitions, Duration::from_secs(10)).ok()?;
            let offset = |offset| if let Offset::Offset(offset) = offset { offset } else { 0 };
            last = found.elements().iter().map(|element| offset(element.offset())).collect();
            (last == ends).then_some(())
        });
        assert!(done.is_some(), "{group}: committed {last:?} of {ends:?}\n{}", service.log());
    }

    /// Rows of a query on a database, sorted.
    pub(super) fn rows(&self, database: &str, columns: &str, table: &str) -> Vec<String> {
        let sql = format!("SELECT {columns} FROM {database}.{table} ORDER BY ALL");
        ask_store(self.folder.path(), &sql).lines().map(str::to_owned).collect()
    }
}

/// Ports of the mail server and the revocation API.
pub(super) fn ports(receivers: &Receivers) -> [u16; 2] {
    let api = receivers.api.url.rsplit(':').next().and_then(|port| port.parse().ok());
    [receivers.smtp.port, api.expect("a port")]
}
