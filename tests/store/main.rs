//! Tests of the store with the real engine: rows are stored once and unchanged in all circumstances.
//!
//! The engine opens one directory per process, so tests run one after another. Tests that need two processes, or one
//! that dies, start this binary again (`child.rs`).

#![recursion_limit = "256"]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod ask;
mod by_hand;
mod child;
mod closing;
mod cluster;
mod crash;
mod evidence;
mod http;
mod incidents;
mod repeating;
mod replay;
mod rows;
mod sql;
#[path = "../support/mod.rs"]
mod support;
mod user_api;
mod views;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokenwarden::event::Timestamp;
use tokenwarden::port::{ActionOutcome, ActionRow, Confirmation, Radius, Rows as _, Store as _, StoreError};
use tokenwarden::store::{ClickHouse, EpochRows, Reader, StoreSettings, library_in};
use tokenwarden::verdict::Severity;
use tokio::sync::{Mutex, MutexGuard};

use self::rows::{NASTY, action, alarming, allowed, bare_event, dead_letter, epoch, event, full_event, incident, push};

/// Only one test at a time may use the engine.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

fn library() -> PathBuf {
    let cache = tokenwarden::config::cache_folder().expect("the environment names a home");
    let library = library_in(&cache);
    assert!(library.is_file(), "{} is missing: `make test` fetches the ClickHouse engine first", library.display());
    library
}

fn embedded(directory: &Path) -> StoreSettings {
    StoreSettings {
        url: format!("embedded:{}", directory.display()),
        library: Some(library()),
        ..StoreSettings::default()
    }
}

async fn ask(reader: &Reader, sql: &str) -> String {
    try_ask(reader, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

async fn try_ask(reader: &Reader, sql: &str) -> Result<String, StoreError> {
    let mut answer = reader.query(sql, "TabSeparated", &[]).await?;
    let mut text = Vec::new();
    while let Some(bytes) = answer.next().await? {
        text.extend_from_slice(&bytes);
    }
    Ok(String::from_utf8(text).expect("an answer in UTF-8").trim_end().to_owned())
}

/// Rows on disk, including those that a merge or FINAL would drop.
async fn physical_rows(reader: &Reader, table: &str) -> String {
    let sql = "SELECT sum(rows) FROM system.parts WHERE active AND database = currentDatabase() AND table = ";
    ask(reader, &format!("{sql}'{table}'")).await
}

/// One row as JSON.
async fn row(reader: &Reader, sql: &str) -> Value {
    let text = ask(reader, &format!("{sql} FORMAT JSONEachRow")).await;
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).expect("a row of JSON")
}

#[tokio::test]
async fn every_column_is_stored_unchanged() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let settings = embedded(directory.path());
    let store = ClickHouse::open(&settings).await.unwrap();
    let mut rows = EpochRows::new();
    push(&mut rows, &full_event(), &alarming(0xABC), 77);
    push(&mut rows, &bare_event(), &allowed(), 78);
    rows.push_incident(&incident(0xABC, 5, Severity::High));
    rows.push_action(&action(0xABC, 2, ActionOutcome::Retry));
    let confirmation = Confirmation {
        revoked_at: 1_710_000_000_123,
        verified_at: Some(1_710_000_002_000),
        radius: Some(Radius::User),
    };
    let confirmed = action(0xABC, 3, ActionOutcome::Done);
    rows.push_action(&ActionRow { radius: Some(Radius::User), confirmation: Some(confirmation), ..confirmed });
    rows.push_dead_letter(&dead_letter(9));
    assert_eq!(rows.len(), 6);
    store.write(&rows).await.unwrap();

    let reader = Reader::open(&settings).await.unwrap();
    let full = row(&reader, "SELECT * EXCEPT written_at, address FROM token_events WHERE source_offset = 77").await;
    let expected = json!({
        "event_id": NASTY, "timestamp": "2199-12-31 23:59:59.999", "ingested_at": "2024-03-09 16:00:00.000",
        "kind": "credential_changed", "tenant_id": NASTY, "user_id": NASTY, "app_id": NASTY, "family_id": NASTY,
        "token_id": NASTY, "token_type": "api_key", "parent_token_id": NASTY, "session_id": NASTY,
        "baseline": full_event().baseline_id().0, "ip_address": "2001:db8::1", "address": "2001:db8::1",
        "asn": u32::MAX, "as_org": NASTY, "network_class": "anonymiser", "country": "DE", "city": NASTY,
        "latitude": -52.5, "longitude": 13.25, "accuracy_km": 20, "user_agent": NASTY, "client_family": NASTY,
        "client_version": NASTY, "device": "mobile", "client_fingerprint": NASTY, "method": NASTY,
        "endpoint": NASTY, "route": tokenwarden::route::template(NASTY), "status": u16::MAX, "bytes_out": u64::MAX,
        "scopes": [NASTY, ""], "issued_at": "1970-01-01 00:00:00.000", "expires_at": "2199-12-31 23:59:59.999",
        "binding": NASTY, "verdict": "alert", "score": alarming(1).score(), "log_odds": 4.5, "p_value": 1e-4,
        "prior_log_odds": -7.5, "alert_from": 2.5, "decisive": ["new_country"], "rules": ["new_country", "unusual_time"], "reasons": [NASTY, "at night"], "signal_shares": [6.25, -0.5],
        "signal_p_values": [0.001, 0.001], "signal_fired": [true, false],
        "signal_observed": [format!("observed {NASTY}"), "observed at night"],
        "signal_expected": [format!("expected {NASTY}"), "expected at night"],
        "incident_id": "INC-0000000000000ABC", "action": "revoke_family", "mode": "alert",
        "source_topic": "token-events", "source_partition": 3, "source_offset": 77, "source_index": 0,
        "row_id": full["row_id"],
        "attrs": {NASTY: "x".repeat(300), "": NASTY},
    });
    assert_columns(&full, &expected);

    let bare = row(&reader, "SELECT * EXCEPT written_at, address FROM token_events WHERE source_offset = 78").await;
    for absent in ["family_id", "user_id", "country", "as_org", "user_agent", "endpoint", "route", "incident_id"] {
        assert_eq!(bare[absent], "", "{absent}");
    }
    for absent in ["latitude", "longitude", "accuracy_km", "issued_at", "expires_at"] {
        assert_eq!(bare[absent], Value::Null, "{absent}");
    }
    assert_eq!((&bare["ip_address"], &bare["asn"], &bare["rules"]), (&json!("::"), &json!(0), &json!([])));
    let addresses = ask(&reader, "SELECT address FROM token_events ORDER BY source_offset").await;
    assert_eq!(addresses, "2001:db8::1", "an absent address is empty");

    let incident = row(&reader, "SELECT * EXCEPT written_at FROM incidents").await;
    assert_columns(
        &incident,
        &json!({
            "incident_id": "INC-0000000000000ABC", "campaign_id": "CAM-0000000000000043", "opened_at": "2023-11-14 22:13:20.000",
            "updated_at": "2023-11-14 22:13:25.000", "severity": "high", "verdict": "alert",
            "baseline": event(5).baseline_id().0, "subject": "family-1", "tenant_id": "tenant-1",
            "token_id": "token-1", "family_id": "family-1", "user_id": "user-1", "app_id": "app-1",
            "victims": 1, "event_id": "event-5", "change_id": 5, "log_odds": 4.5, "rules": ["new_country", "unusual_time"],
            "reasons": [NASTY, "at night"], "signal_shares": [6.25, -0.5], "reason": format!("change by 5: {NASTY}"),
            "action": "revoke_family", "mode": "alert", "target": "family:family-1",
        }),
    );
    let columns = "radius, revoked_at, verified_at, outcome";
    let confirmed = row(&reader, &format!("SELECT {columns} FROM actions WHERE attempt = 3")).await;
    assert_columns(
        &confirmed,
        &json!({
            "radius": "user", "revoked_at": "2024-03-09 16:00:00.123", "verified_at": "2024-03-09 16:00:02.000",
            "outcome": "done",
        }),
    );
    let summary =
        row(&reader, "SELECT summary FROM incident_timeline WHERE what = 'action' AND outcome = 'done'").await;
    let times = "radius user, revoked at 2024-03-09 16:00:00.123, verified at 2024-03-09 16:00:02.000)";
    assert!(summary["summary"].as_str().unwrap().contains(times), "{summary}");
    let action = row(&reader, "SELECT * FROM actions WHERE attempt = 2").await;
    assert_columns(
        &action,
        &json!({
            "action_id": "revoke-2748", "incident_id": "INC-0000000000000ABC",
            "requested_at": "2024-03-09 16:00:00.002", "kind": "revoke_family", "target": "family-1",
            "mode": "enforce", "attempt": 2, "outcome": "retry", "http_status": 503, "latency_ms": 120,
            "requested_by": "tokenwarden", "reason": NASTY, "tenant_id": "tenant-1", "user_id": "user-1", "radius": "", "revoked_at": null, "verified_at": null,
        }),
    );
    let letter = row(&reader, "SELECT * EXCEPT (written_at, payload), hex(payload) AS payload FROM dead_letters").await;
    assert_columns(
        &letter,
        &json!({
            "source_topic": "token-events", "source_partition": 3, "source_offset": 9,
            "received_at": "2024-03-09 16:00:00.000", "reason": format!("not JSON at byte 9: {NASTY}"),
            "fault_byte": 70_000, "fault_line": 3, "fault_column": 9,
            "payload": (0..=255_u8).map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().concat(),
        }),
    );
    store.close().await;
}

/// Compares column by column, so that a failure names the column.
fn assert_columns(found: &Value, expected: &Value) {
    let (found, expected) = (found.as_object().expect("a row"), expected.as_object().expect("a row"));
    for (column, value) in found {
        assert_eq!(Some(value), expected.get(column), "column {column}");
    }
    let missing: Vec<_> =
        expected.keys().filter(|column| !found.contains_key(*column) && *column != "address").collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn repeated_rows_change_nothing() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let settings = embedded(directory.path());
    let mut rows = epoch(0..1000);
    rows.push_incident(&incident(1, 5, Severity::High));
    rows.push_action(&action(1, 1, ActionOutcome::Done));
    rows.push_dead_letter(&dead_letter(9));

    let store = ClickHouse::open(&settings).await.unwrap();
    for _ in 0..3 {
        store.write(&rows).await.unwrap();
    }
    store.close().await;
    // As after a crash between insert and commit: another process, the same epoch.
    let store = ClickHouse::open(&settings).await.unwrap();
    store.write(&rows).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    for (table, count) in [("token_events", "1000"), ("incidents", "1"), ("actions", "1"), ("dead_letters", "1")] {
        assert_eq!(physical_rows(&reader, table).await, count, "{table}");
    }
    assert_eq!(ask(&reader, "SELECT sum(events) FROM baseline_activity").await, "1000");

    // The same events in other epochs: only the new rows are written.
    store.write(&epoch(0..300)).await.unwrap();
    store.write(&epoch(300..1200)).await.unwrap();
    assert_eq!(physical_rows(&reader, "token_events").await, "1200");
    assert_eq!(ask(&reader, "SELECT count(), uniqExact(event_id) FROM token_events").await, "1200\t1200");
    assert_eq!(ask(&reader, "SELECT sum(events) FROM baseline_activity").await, "1200");
    store.close().await;
}

#[tokio::test]
async fn different_rows_are_never_deduplicated() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let settings = embedded(directory.path());
    let store = ClickHouse::open(&settings).await.unwrap();
    let mut rows = store.new_rows();
    for (event_id, offset) in [("ab", 1), ("a", 1), ("ab", 2)] {
        let mut event = event(0);
        event.event.event_id = event_id.into();
        rows.clear();
        push(&mut rows, &event, &allowed(), offset);
        store.write(&rows).await.unwrap();
    }
    for attempt in 1..=3 {
        rows.clear();
        rows.push_action(&action(1, attempt, ActionOutcome::Retry));
        store.write(&rows).await.unwrap();
    }
    let reader = Reader::open(&settings).await.unwrap();
    assert_eq!(physical_rows(&reader, "token_events").await, "3");
    assert_eq!(physical_rows(&reader, "actions").await, "3");
    store.close().await;
}

#[tokio::test]
async fn replay_of_decades_fits_in_one_insert() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let settings = embedded(directory.path());
    let store = ClickHouse::open(&settings).await.unwrap();
    let mut rows = store.new_rows();
    for month in 0..1000 {
        let mut event = event(month);
        event.event.timestamp = Timestamp::from_millis(month as i64 * 31 * 86_400_000).unwrap();
        push(&mut rows, &event, &allowed(), month as i64);
    }
    store.write(&rows).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    let years = ask(&reader, "SELECT count(), min(toYear(timestamp)), max(toYear(timestamp)) FROM token_events").await;
    assert_eq!(years, "1000\t1970\t2054");
    let hours = ask(&reader, "SELECT count(), min(hour) FROM baseline_activity").await;
    assert_eq!(hours, "1000\t1970-01-01 00:00:00.000");
    store.close().await;
}

#[tokio::test]
async fn retention_follows_the_settings() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let mut settings = embedded(directory.path());
    for (days, shown) in [(180, "1\t0"), (30, "0\t1"), (0, "0\t0"), (180, "1\t0")] {
        settings.retention_days = days;
        let store = ClickHouse::open(&settings).await.unwrap();
        let reader = Reader::open(&settings).await.unwrap();
        let sql = "SELECT create_table_query LIKE '%toIntervalDay(180)%', create_table_query LIKE '%toIntervalDay(30)%' \
                   FROM system.tables WHERE database = currentDatabase() AND name = 'token_events'";
        assert_eq!(ask(&reader, sql).await, shown, "{days} days");
        store.close().await;
    }
}

#[tokio::test]
async fn database_name_is_quoted() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let settings = StoreSettings { database: r#"o`dd "na'me\ 😀"#.to_owned(), ..embedded(directory.path()) };
    let store = ClickHouse::open(&settings).await.unwrap();
    store.write(&epoch(0..3)).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    assert_eq!(ask(&reader, "SELECT count() FROM token_events").await, "3");
    store.close().await;
}

#[tokio::test]
async fn schema_mismatch_is_an_error_at_open() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let settings = embedded(directory.path());
    ClickHouse::open(&settings).await.unwrap().close().await;

    change(&settings, "INSERT INTO tokenwarden.schema_migrations (version, name) VALUES (9999, 'later')").await;
    let told = ClickHouse::open(&settings).await.expect_err("the schema is newer").to_string();
    assert!(told.contains("schema 9999 of a newer tokenwarden"), "{told}");

    change(&settings, "TRUNCATE TABLE tokenwarden.schema_migrations").await;
    ClickHouse::open(&settings).await.expect("migrations may be repeated").close().await;

    change(&settings, "ALTER TABLE tokenwarden.token_events MODIFY COLUMN asn String").await;
    let told = ClickHouse::open(&settings).await.expect_err("a column was changed").to_string();
    assert!(told.contains("column token_events.asn is String; this build needs UInt32"), "{told}");
}

#[tokio::test]
async fn earlier_schema_keeps_its_rows() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let settings = embedded(directory.path());
    let store = ClickHouse::open(&settings).await.unwrap();
    store.write(&epoch(0..3)).await.unwrap();
    store.close().await;
    let columns = "DROP COLUMN prior_log_odds, DROP COLUMN alert_from, DROP COLUMN decisive";
    change(&settings, &format!("ALTER TABLE tokenwarden.token_events {columns}")).await;
    change(&settings, "ALTER TABLE tokenwarden.schema_migrations DELETE WHERE version > 3 SETTINGS mutations_sync = 2")
        .await;

    let store = ClickHouse::open(&settings).await.expect("the schema is updated");
    store.write(&epoch(3..5)).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    let told = "SELECT countIf(prior_log_odds IS NULL AND decisive = []), countIf(prior_log_odds < 0) FROM token_events FORMAT CSV";
    assert_eq!(ask(&reader, told).await, "3,2");
    store.close().await;
}

/// Runs a statement with the owner's rights, as an administrator could.
async fn change(settings: &StoreSettings, sql: &str) {
    let directory = Path::new(settings.url.trim_start_matches("embedded:"));
    // An open reader keeps the engine open.
    let reader = Reader::open(settings).await.unwrap();
    let access = http::Access::of(directory);
    let answer = access.post(sql).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    reader.close().await;
}

#[tokio::test]
async fn unusable_directory_is_one_clear_error() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let open = |settings: StoreSettings| async move {
        let error = ClickHouse::open(&settings).await.expect_err("it cannot be opened");
        assert!(matches!(error, StoreError::Permanent(_)), "{error}");
        error.to_string()
    };

    let told = open(embedded(&file.join("below"))).await;
    assert!(told.contains("cannot be used: Not a directory"), "{told}");
    let told = open(embedded(Path::new("/proc/tokenwarden"))).await;
    assert!(told.contains("/proc/tokenwarden cannot be used: "), "{told}");

    let fresh = directory.path().join("fresh");
    let told = open(StoreSettings { library: None, ..embedded(&fresh) }).await;
    assert!(told.contains("set store.library"), "{told}");
    let told = open(StoreSettings { library: Some("/nonexistent/libchdb.so".into()), ..embedded(&fresh) }).await;
    assert!(told.contains("not at /nonexistent/libchdb.so; run `deploy/setup.sh run` to fetch it"), "{told}");
    // A file that is not a library is refused by its digest, and by the loader if the operator configures that digest.
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let other = StoreSettings { library: Some(file.clone()), ..embedded(&fresh) };
    let told = open(other.clone()).await;
    assert!(told.contains("is not loaded") && told.contains("store.library_sha256 = \""), "{told}");
    let found = told.rsplit('"').nth(1).unwrap().to_uppercase();
    let vouched = StoreSettings { library_sha256: Some(found), ..other };
    let told = open(vouched.clone()).await;
    assert!(told.contains("cannot be used as libchdb by this build: dlopen failed: /proc/self/fd/"), "{told}");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o620)).unwrap();
    let told = open(vouched).await;
    assert!(told.contains("other users can change it (owner ") && told.contains("mode 0620"), "{told}");
    let told = open(StoreSettings { listen: Some(([192, 0, 2, 1], 8123).into()), ..embedded(&fresh) }).await;
    assert!(told.contains("only on loopback"), "{told}");
}

#[tokio::test]
async fn killed_process_keeps_acknowledged_rows() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    for acknowledged_min in [3, 8] {
        let mut writer = child::start("write", directory.path(), child::PLAIN);
        let mut acknowledged = 0;
        while acknowledged < acknowledged_min {
            acknowledged = writer.line().parse().unwrap();
        }
        writer.signal("KILL");
        drop(writer);

        // The owner's endpoint file still exists, its lock does not.
        let settings = embedded(directory.path());
        let store = ClickHouse::open(&settings).await.unwrap();
        let reader = Reader::open(&settings).await.unwrap();
        let count: u64 = ask(&reader, "SELECT uniqExact(event_id) FROM token_events").await.parse().unwrap();
        assert!(count >= acknowledged * child::EPOCH, "{count} rows of {acknowledged} epochs");
        assert_eq!(count % child::EPOCH, 0, "each epoch is stored completely or not at all");
        // The epoch in transit is sent again; stored epochs are not duplicated.
        for number in 0..=count / child::EPOCH {
            store.write(&epoch(number * child::EPOCH..(number + 1) * child::EPOCH)).await.unwrap();
        }
        assert_eq!(physical_rows(&reader, "token_events").await, (count + child::EPOCH).to_string());
        store.close().await;
    }
}

#[tokio::test]
async fn second_process_is_a_client_of_the_first() {
    let directory = TempDir::new().unwrap();
    let mut owner = child::start("own", directory.path(), child::PLAIN);
    assert_eq!(owner.line(), "ready");
    let mut visitor = child::start("visit", directory.path(), child::PLAIN);
    assert_eq!(visitor.line(), "30");
    assert_eq!(visitor.end(), Some(3));

    // The client needs no engine.
    let settings = StoreSettings { library: None, ..embedded(directory.path()) };
    let store = ClickHouse::open(&settings).await.unwrap();
    store.write(&epoch(30..40)).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    assert_eq!(ask(&reader, "SELECT count() FROM token_events").await, "40");
    assert_eq!(owner.end(), Some(3));

    // The owner has ended: the write can be retried, and no row is lost.
    let error = store.write(&epoch(40..50)).await.expect_err("no process listens");
    assert!(matches!(error, StoreError::Retriable(_)), "{error}");
}

#[tokio::test]
async fn client_takes_over_when_the_owner_has_ended() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let mut owner = child::start("own", directory.path(), child::PLAIN);
    assert_eq!(owner.line(), "ready");
    let settings = embedded(directory.path());
    let store = ClickHouse::open(&settings).await.unwrap();
    store.write(&epoch(10..20)).await.unwrap();
    owner.signal("KILL");
    assert_eq!(owner.end(), None);
    let lost = store.write(&epoch(20..30)).await;
    assert!(matches!(lost, Err(StoreError::Retriable(_))), "{lost:?}");
    store.write(&epoch(20..30)).await.expect("this process owns the directory");
    let reader = Reader::open(&settings).await.unwrap();
    assert_eq!(ask(&reader, "SELECT count() FROM token_events").await, "30");
    reader.close().await;
    store.close().await;
}

#[tokio::test]
async fn process_ends_in_order_in_every_case() {
    let directory = TempDir::new().unwrap();
    let leaver = child::start("leave", directory.path(), child::PLAIN);
    assert_eq!(leaver.end(), Some(7), "without closing anything");
    let mut waiter = child::start("wait", directory.path(), child::PLAIN);
    assert_eq!(waiter.line(), "ready");
    waiter.signal("TERM");
    assert_eq!(waiter.end(), Some(3), "SIGTERM reaches the program, not the engine");
}

#[tokio::test]
async fn full_disk_is_reported_and_survived() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    // No file may grow beyond 1 MiB, and the attempt is an error instead of a signal.
    let mut writer = child::start("overfill", directory.path(), r#"trap '' XFSZ; ulimit -f 1024; exec "$@""#);
    let told = writer.line();
    assert!(told.starts_with("the store is unavailable: writing to token_events: "), "{told}");
    assert_eq!(writer.end(), Some(3));

    let settings = embedded(directory.path());
    let store = ClickHouse::open(&settings).await.unwrap();
    store.write(&epoch(0..10)).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    assert_eq!(ask(&reader, "SELECT count() FROM token_events").await, "10", "no row of the failed epoch");
    store.close().await;
}
