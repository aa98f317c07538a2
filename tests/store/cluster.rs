//! `store.cluster`: the engine parses all statements. A cluster of one shard, which is the engine itself, also runs them,
//! without `ON CLUSTER` and replication: these need ClickHouse Keeper, which the engine does not have.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tempfile::TempDir;
use tokenwarden::port::Store as _;
use tokenwarden::store::{ClickHouse, Reader, StoreSettings, schema};

use super::child::{INSIDE, start};
use super::rows::epoch;
use super::views::theft;
use super::{ask, embedded, physical_rows, turn};

const CONFIG: &str = "<clickhouse><tcp_port>9000</tcp_port><remote_servers><blue><shard>\
                      <internal_replication>true</internal_replication>\
                      <replica><host>localhost</host><port>9000</port></replica></shard></blue></remote_servers></clickhouse>";
const VIEWS: [&str; 10] = [
    "incidents_latest",
    "incident_timeline",
    "blast_radius",
    "token_profile",
    "shared_indicators",
    "baseline_activity",
    "incident_victims",
    "campaigns",
    "feedback_latest",
    "incident_work_latest",
];

/// The engine of another process.
struct Engine {
    url: String,
    user: String,
    password: String,
}

impl Engine {
    fn of(directory: &Path) -> Self {
        let file: Value = serde_json::from_slice(&std::fs::read(directory.join("endpoint.json")).unwrap()).unwrap();
        let text = |name: &str| file[name].as_str().unwrap().to_owned();
        Self { url: text("url"), user: text("user"), password: text("password") }
    }

    async fn ask(&self, sql: String) -> (StatusCode, String) {
        let request = reqwest::Client::new().post(&self.url).basic_auth(&self.user, Some(&self.password)).body(sql);
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }
}

/// The statement without what needs ClickHouse Keeper.
fn without_keeper(sql: &str) -> String {
    sql.replace(" ON CLUSTER 'blue'", "")
        .replace("ENGINE = Replicated", "ENGINE = ")
        .replace("'/clickhouse/tables/{shard}/{database}/{table}', '{replica}', ", "")
        .replace("'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'", "")
        .replace("'/clickhouse/tables/{database}/{table}', '{shard}-{replica}'", "")
        .replace(
            "replicated_deduplication_window = 1000, replicated_deduplication_window_seconds = 604800",
            "non_replicated_deduplication_window = 1000",
        )
}

/// Passes requests on to the engine, and its answers back.
async fn pass(State(engine): State<Arc<Engine>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 64 << 20).await.unwrap();
    let body = match std::str::from_utf8(&body) {
        Ok(sql) if sql.contains(" ON CLUSTER 'blue'") => Bytes::from(without_keeper(sql)),
        _ => body,
    };
    let url = format!("{}{}", engine.url, head.uri);
    let mut sent = reqwest::Client::new().request(head.method, url).body(body);
    for (name, value) in &head.headers {
        if name != "host" && name != "content-length" && name != "transfer-encoding" {
            sent = sent.header(name, value);
        }
    }
    let answer = sent.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut response = (status, answer.bytes().await.unwrap()).into_response();
    for (name, value) in headers.iter().filter(|(name, _)| name.as_str().starts_with("x-clickhouse")) {
        response.headers_mut().insert(name, value.clone());
    }
    response
}

async fn serve(engine: Arc<Engine>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(pass).with_state(engine);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn refusal(settings: &StoreSettings) -> String {
    ClickHouse::open(settings).await.map(drop).expect_err("the tables are of another kind").to_string()
}

#[tokio::test]
async fn cluster_has_the_same_rows_and_views() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("config.xml"), CONFIG).unwrap();
    let mut owner = start("own", directory.path(), INSIDE);
    assert_eq!(owner.line(), "ready");
    let engine = Arc::new(Engine::of(directory.path()));
    let settings = StoreSettings {
        url: serve(Arc::clone(&engine)).await,
        user: Some(engine.user.clone()),
        password: Some(engine.password.clone().into()),
        database: "clustered".to_owned(),
        cluster: Some("blue".to_owned()),
        ..StoreSettings::default()
    };

    let statements = schema(&settings);
    assert!(statements.len() > schema(&embedded(directory.path())).len());
    for sql in &statements {
        assert!(sql.contains(" ON CLUSTER 'blue'"), "{sql}");
        let (status, text) = engine.ask(format!("EXPLAIN AST {sql}")).await;
        assert_eq!(status, StatusCode::OK, "{sql}\n{text}");
    }

    let store = ClickHouse::open(&settings).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    for _ in 0..2 {
        // The second insert has the deduplication token of the first.
        store.write(&epoch(1_000..1_500)).await.unwrap();
        assert_eq!(physical_rows(&reader, "token_events_local").await, "500");
    }
    // Another process reads some of the messages again.
    let next = ClickHouse::open(&settings).await.unwrap();
    next.write(&epoch(1_250..1_750)).await.unwrap();
    assert_eq!(physical_rows(&reader, "token_events_local").await, "750");
    assert_eq!(ask(&reader, "SELECT count() FROM token_events").await, "750");
    assert_eq!(ask(&reader, "SELECT sum(events) FROM baseline_activity").await, "750");
    let engines = "SELECT name, engine FROM system.tables WHERE database = 'clustered' AND name LIKE 'token_events%'";
    assert_eq!(ask(&reader, engines).await, "token_events\tDistributed\ntoken_events_local\tReplacingMergeTree");

    // The views show the same as those of a single server.
    let single = StoreSettings { database: "single".to_owned(), cluster: None, ..settings.clone() };
    let of_single = ClickHouse::open(&single).await.unwrap();
    of_single.write(&epoch(1_000..1_750)).await.unwrap();
    let reader_of_single = Reader::open(&single).await.unwrap();
    for store in [&next, &of_single] {
        store.write(&theft()).await.unwrap();
    }
    for view in VIEWS {
        // Times of writing differ.
        let columns = if view == "incidents_latest" { "* EXCEPT written_at" } else { "*" };
        let sql = format!("SELECT {columns} FROM {view} ORDER BY ALL");
        let expected = ask(&reader_of_single, &sql).await;
        assert_eq!(ask(&reader, &sql).await, expected, "{view}");
        let may_be_empty = ["campaigns", "feedback_latest", "incident_work_latest"].contains(&view);
        assert!(may_be_empty || !expected.is_empty(), "{view} shows something");
    }

    let of_single = StoreSettings { cluster: settings.cluster.clone(), ..single };
    assert!(refusal(&of_single).await.contains("database single has the tables of a single server"));
    let without = StoreSettings { cluster: None, ..settings };
    assert!(refusal(&without).await.ends_with("set store.cluster to its name"));
    owner.end();
}
