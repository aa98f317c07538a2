//! The store on the real engine: what goes in comes out, once, whatever happens in between.
//!
//! The engine opens one directory a process, so that the tests take turns; what needs two processes, or one that
//! dies, starts this binary again ([`in_child`]).

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tokenwarden::checkpoint::Position;
use tokenwarden::enrichment::{Client, Device, EnrichedEvent};
use tokenwarden::event::{Address, Event, Kind, Timestamp, TokenType};
use tokenwarden::port::{EventRow, Rows as _, Store as _, StoreError};
use tokenwarden::route::Route;
use tokenwarden::store::{ClickHouse, EpochRows, Reader, StoreSettings, library_in};
use tokenwarden::token::TokenHasher;
use tokenwarden::verdict::{Action, Mode, Outcome, Verdict};
use tokio::sync::{Mutex, MutexGuard};

/// One test at a time has the engine.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

fn library() -> PathBuf {
    let cache = std::env::var_os("TOKENWARDEN_CACHE").map(PathBuf::from).or_else(|| {
        let xdg = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        xdg.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).map(|dir| dir.join("tokenwarden"))
    });
    let library = library_in(&cache.expect("HOME is set"));
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

fn event(number: u64) -> EnrichedEvent<'static> {
    let hasher = TokenHasher::new(b"test");
    EnrichedEvent {
        event: Event {
            event_id: format!("event-{number}").into(),
            timestamp: Timestamp::from_millis(1_700_000_000_000 + number as i64 * 1000).expect("in range"),
            kind: Kind::Use,
            token_id: hasher.name(Cow::Borrowed("token-1")).0,
            token_type: TokenType::Access,
            family_id: Some("family-1".into()),
            parent_token_id: None,
            session_id: None,
            user_id: Some("user-1".into()),
            app_id: Some("app-1".into()),
            tenant_id: Some("tenant-1".into()),
            address: Some(Address::new(IpAddr::from([192, 0, 2, 7]))),
            user_agent: Some("curl/8.5.0".into()),
            client_fingerprint: None,
            method: Some("GET".into()),
            endpoint: Some("/v1/users/42/keys".into()),
            status: Some(200),
            bytes_out: Some(512),
            scopes: Vec::new(),
            issued_at: None,
            expires_at: None,
            binding: None,
            geo: None,
            attrs: Vec::new(),
        },
        place: None,
        network: None,
        client: Arc::new(Client {
            family: "curl".into(),
            version: "8.5.0".into(),
            device: Device::Machine,
            family_key: 1,
            version_key: 2,
            agent_key: 3,
        }),
        route: Route::default(),
    }
}

fn allowed() -> Outcome {
    Outcome {
        verdict: Verdict::Allow,
        log_odds: -7.0,
        p_value: 1.0,
        signals: Vec::new(),
        incident_id: None,
        incident: None,
        action: Action::None,
        mode: Mode::Shadow,
    }
}

fn position(offset: i64) -> Position {
    Position { topic: "token-events".into(), partition: 3, offset }
}

/// Rows of the events `numbers`, all allowed.
fn epoch(numbers: std::ops::Range<u64>) -> EpochRows {
    let mut rows = EpochRows::new();
    for number in numbers {
        rows.push_event(&EventRow {
            event: &event(number),
            outcome: &allowed(),
            position: &position(number as i64),
            ingested_at: 1_764_000_000_000,
        });
    }
    rows
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

#[tokio::test]
async fn the_same_rows_written_again_change_nothing() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let settings = embedded(directory.path());
    let store = ClickHouse::open(&settings).await.unwrap();
    store.write(&epoch(0..1000)).await.unwrap();
    store.write(&epoch(0..1000)).await.unwrap();
    store.write(&epoch(1000..1500)).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    assert_eq!(ask(&reader, "SELECT count(), uniq(event_id) FROM token_events").await, "1500\t1500");
    store.close().await;
}
