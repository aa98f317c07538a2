//! A full disk: alerts and revocations continue, nothing is lost or revoked twice, and the service recovers.

use std::io::Write as _;
use std::process::Stdio;

use super::denylist::run;
use super::outage::{ClickHouse, committed, until_unready};
use super::support::disk::Disk;
use super::*;

const NOTICE: &str = "The outbox cannot be written to disk";
const UNREADY: &str = "tokenwarden_unready{condition=\"outbox_disk\"} 1";

/// The service with outbox, spool, snapshots and log on `disk`.
fn start(folder: &Path, disk: &Disk, member: &str) -> Service {
    let admin = free_port();
    let mut command = Service::command(folder, member, admin);
    command.env("TOKENWARDEN__OUTBOX__DIR", disk.path().join(format!("outbox of {member}")));
    command.env("TOKENWARDEN__SNAPSHOTS__DIR", disk.path().join("state"));
    command.env("TOKENWARDEN__SNAPSHOTS__INTERVAL_MS", "1000");
    Service::spawn(&mut command, &disk.path().join("log"), admin)
}

fn until_sent(receivers: &Receivers, title: &str) {
    let sent = || receivers.hook.requests().iter().any(|asked| asked.body.contains(title)).then_some(());
    eventually(Duration::from_secs(30), "the notice is sent", sent).unwrap_or_else(|| panic!("no {title}"));
}

#[test]
fn full_disk_delays_no_alert() {
    let (folder, kafka, receivers) = staged();
    let disk = Disk::mount(64);
    let mut ledger = Ledger::default();
    let service = start(folder.path(), &disk, "one");
    assert_eq!(service.page("/readyz"), "ok\n");
    let people = ["ana", "ben", "cem"];
    for person in people {
        ledger.rotating(person);
    }
    ledger.ordinary(300);
    ledger.send(&kafka);
    let stored = |service: &Service, ledger: &Ledger| {
        service.until("SELECT uniqExact(event_id) FROM token_events", &ledger.ids.len().to_string());
    };
    stored(&service, &ledger);
    service.until_metric("tokenwarden_snapshots_total{result=\"stored\"} 1");
    let all = ledger.ids.len() as i64;
    let done = || (committed(&kafka) == all).then_some(());
    eventually(Duration::from_secs(10), "all is committed", done).expect("all is committed");

    disk.fill();
    ledger.theft("ana");
    ledger.send(&kafka);
    receivers.wait_for("ana");
    until_unready(&service, "outbox_disk: ");
    until_unready(&service, "snapshot (");
    service.until_metric(UNREADY);
    until_sent(&receivers, NOTICE);
    stored(&service, &ledger);
    assert_eq!(committed(&kafka), all, "the theft is not in the outbox on disk");

    // A killed process leaves no record of what it sent. The next one starts although the disk is full, and repeats the
    // deliveries with the same keys.
    service.kill();
    disk.fill();
    let service = start(folder.path(), &disk, "one");
    assert_eq!(service.page("/healthz"), "ok\n");
    ledger.theft("ben");
    ledger.send(&kafka);
    receivers.wait_for("ben");
    until_unready(&service, "outbox_disk: ");
    let again = || (receivers.of("ana").revocations.len() > 1).then_some(());
    eventually(Duration::from_secs(30), "the request is repeated", again).expect("a second request");

    disk.free();
    assert_eq!(service.page("/readyz"), "ok\n");
    let all = ledger.ids.len() as i64;
    let done = || (committed(&kafka) == all).then_some(());
    eventually(Duration::from_secs(10), "all is committed", done).expect("all is committed");
    service.kill();

    // What was delivered from memory is on disk, and is not repeated.
    let before = ["ana", "ben"].map(|person| receivers.of(person).revocations.len());
    let service = start(folder.path(), &disk, "one");
    assert_eq!(service.page("/healthz"), "ok\n");
    ledger.theft("cem");
    ledger.send(&kafka);
    receivers.wait_for("cem");
    stored(&service, &ledger);
    assert_eq!(["ana", "ben"].map(|person| receivers.of(person).revocations.len()), before);
    assert_eq!(service.terminate().0.code(), Some(0));
    ledger.compare(folder.path());
    for person in people {
        let theft = receivers.of(person);
        assert_eq!(theft.revocation_keys().len(), 1, "{person}: {theft:?}");
    }
}

#[test]
#[ignore = "slow: the embedded engine is started twice"]
fn full_disk_keeps_silences_and_feedback() {
    let (folder, disk, receivers) = (tempfile::tempdir().expect("a folder"), Disk::mount(16), Receivers::start());
    let at = folder.path();
    configure_from(at, "[source.file]\npath = '-'\n[silences]\nmax_days = 1\n[feedback]\n");
    receivers.configure(at);
    let file = at.join("tokenwarden.toml");
    // For the command, which reads no variables of the service.
    let outbox = disk.path().join("outbox of one");
    keep_secret(&file, &format!("{}[outbox]\ndir = '{}'\n", read(&file), outbox.display()));
    let start = || {
        let admin = free_port();
        let mut command = Service::command(at, "one", admin);
        command.env_remove("TOKENWARDEN__SOURCE__KAFKA__PROPERTIES__GROUP_INSTANCE_ID");
        command.env_remove("TOKENWARDEN__OUTBOX__DIR").stdin(Stdio::piped());
        Service::spawn(&mut command, &at.join("log of one"), admin)
    };
    let add = |user: &str| run(at, "silence", &["add", "--user", user, "--for", "1h", "--reason", "a test"]);
    let service = start();
    assert_eq!(service.page("/readyz"), "ok\n");
    let added = add("ann");
    assert!(added.starts_with("added SIL-"), "{added}");

    disk.fill();
    let log = read(&outbox.join("silences.ndjson"));
    for number in 0..30 {
        // The last page of the file may have room for a few lines.
        let refused = add(&format!("bea-{number}"));
        if !refused.starts_with("added SIL-") {
            assert!(refused.contains("No space left on device"), "{refused}");
            let left = read(&outbox.join("silences.ndjson"));
            assert!(left.starts_with(&log) && left.ends_with('\n'), "half a line is removed");
            break;
        }
        assert!(number < 29, "the disk is not full");
    }
    service.kill();
    disk.fill();
    let mut service = start();
    assert_eq!(service.page("/healthz"), "ok\n");
    // Its silences are those before.
    let active = || service.page("/metrics").contains("\ntokenwarden_silences_active ").then_some(());
    eventually(Duration::from_secs(20), "the silences are read", active).expect("the silences are read");
    assert!(!service.page("/metrics").contains("\ntokenwarden_silences_active 0"), "{}", service.log());
    let mut ledger = Ledger::default();
    ledger.rotating("cem");
    ledger.theft("cem");
    let lines: Vec<_> = ledger.messages.iter().map(|(_, text)| text.as_str()).collect();
    let lines = lines.join("\n") + "\n";
    service.child.stdin.as_mut().expect("a pipe").write_all(lines.as_bytes()).expect("it reads");
    receivers.wait_for("cem");
    until_unready(&service, "outbox_disk: ");

    disk.free();
    assert_eq!(service.page("/readyz"), "ok\n");
    let added = add("dan");
    assert!(added.starts_with("added SIL-"), "{added}");
    assert_eq!(service.terminate().0.code(), Some(0));
    assert_eq!(std::fs::read_dir(&outbox).expect("a folder").flatten().filter(is_draft).count(), 0);
}

/// Whether the file is an incomplete new version of another one.
fn is_draft(entry: &std::fs::DirEntry) -> bool {
    entry.path().extension().is_some_and(|extension| extension == "new")
}

#[test]
#[ignore = "slow: 80 MB of rows wait for ClickHouse"]
fn full_disk_of_the_spool_pauses_until_there_is_space() {
    let (folder, kafka, receivers) = staged();
    let mut server = ClickHouse::prepared();
    server.configure(folder.path());
    // The spool leaves 256 MiB free.
    let disk = Disk::mount(400);
    let mut ledger = Ledger::default();
    ledger.rotating("ana");
    let padding: Vec<String> = (0..10).map(|at| format!(r#""padding {at}":"{}""#, "x".repeat(4_000))).collect();
    let padding = padding.join(",");
    for number in 0..2_000 {
        let id = format!("big-{number}");
        let text = format!(
            r#"{{"event_id":"{id}","timestamp":1790090000000,"token_id":"t","user_id":"u","ip_address":"192.0.2.1","attrs":{{{padding}}}}}"#
        );
        ledger.messages.push(("u".to_owned(), text));
        ledger.ids.insert(id);
    }
    let service = start(folder.path(), &disk, "one");
    assert_eq!(service.page("/healthz"), "ok\n");
    disk.fill();
    ledger.send(&kafka);
    let is_full = || super::outage::readiness(&service).contains("spool_full: ").then_some(());
    // Not before 32 MiB of rows are in memory.
    eventually(Duration::from_secs(600), "rows wait", is_full).unwrap_or_else(|| panic!("{}", service.log()));
    until_unready(&service, "store: ");
    service.until_metric("tokenwarden_unready{condition=\"spool_full\"} 1");
    until_sent(&receivers, "Detection is paused: rows cannot be stored");
    assert_eq!(committed(&kafka), 0, "nothing is stored");

    disk.free();
    let goes_on = || (!super::outage::readiness(&service).contains("spool_full: ")).then_some(());
    eventually(Duration::from_secs(60), "the spool has room", goes_on).unwrap_or_else(|| panic!("{}", service.log()));
    ledger.theft("ana");
    ledger.send(&kafka);
    // After the large events.
    let is_revoked = || (!receivers.of("ana").revocations.is_empty()).then_some(());
    eventually(Duration::from_secs(180), "the grant is revoked", is_revoked)
        .unwrap_or_else(|| panic!("{}", service.log()));
    server.start();
    let count = ledger.ids.len();
    let counts = format!("{count},{count}");
    let all = || (service.sql("SELECT count(), uniqExact(event_id) FROM token_events") == counts).then_some(());
    eventually(Duration::from_secs(120), "all rows are stored", all).unwrap_or_else(|| panic!("{}", service.log()));
    assert_eq!(service.page("/readyz"), "ok\n");
    assert_eq!(service.terminate().0.code(), Some(0));
    assert_eq!(receivers.heard()[2], 1, "one revocation");
}
