//! The endpoint of the embedded store, used like a ClickHouse server by this program, the `clickhouse` crate, curl and
//! dashboards. Callers without permission are rejected.

mod analyst;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clickhouse::Row;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokenwarden::port::{Store as _, StoreError};
use tokenwarden::store::{ClickHouse, Reader, StoreSettings};

use super::rows::{NASTY, epoch};
use super::{child, physical_rows, try_ask};

/// Content of `endpoint.json`.
pub(crate) struct Access(Value);

impl Access {
    pub(crate) fn of(directory: &Path) -> Self {
        let text = std::fs::read(directory.join("endpoint.json")).unwrap();
        Self(serde_json::from_slice(&text).unwrap())
    }

    fn text(&self, key: &str) -> String {
        self.0[key].as_str().expect(key).to_owned()
    }

    /// A request with `sql` in the body and the owner's rights.
    pub(crate) fn post(&self, sql: &str) -> RequestBuilder {
        self.request(Method::POST, "user", "password", &[]).body(sql.to_owned())
    }

    /// A request with `sql` in the URL and the analyst's rights.
    fn get(&self, sql: &str) -> RequestBuilder {
        self.request(Method::GET, "analyst_user", "analyst_password", &[("query", sql), ("database", "tokenwarden")])
    }

    fn request(&self, method: Method, user: &str, password: &str, query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = url::Url::parse(&self.text("url")).unwrap();
        url.query_pairs_mut().extend_pairs(query);
        reqwest::Client::new()
            .request(method, url)
            .header("X-ClickHouse-User", self.text(user))
            .header("X-ClickHouse-Key", self.text(password))
    }

    /// Settings as for a server.
    fn settings(&self) -> StoreSettings {
        StoreSettings {
            url: self.text("url"),
            user: Some(self.text("user")),
            password: Some(self.text("password").into()),
            ..StoreSettings::default()
        }
    }
}

async fn text(request: RequestBuilder) -> (StatusCode, String) {
    let response = request.send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

/// A process that owns a fresh directory with ten events in it.
fn owner() -> (child::Running, TempDir, Access) {
    let directory = TempDir::new().unwrap();
    let mut owner = child::start("own", directory.path(), child::PLAIN);
    assert_eq!(owner.line(), "ready");
    let access = Access::of(directory.path());
    (owner, directory, access)
}

#[tokio::test]
async fn url_store_works_like_a_directory() {
    let (_owner, _directory, access) = owner();
    let settings = StoreSettings { database: "elsewhere".to_owned(), ..access.settings() };
    let error = Reader::open(&settings).await.err().expect("there is no such database yet");
    assert!(error.to_string().contains("there is no database elsewhere"), "{error}");

    let store = ClickHouse::open(&settings).await.unwrap();
    store.write(&epoch(0..200)).await.unwrap();
    store.write(&epoch(0..200)).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    assert_eq!(physical_rows(&reader, "token_events").await, "200");
    let error = try_ask(&reader, "TRUNCATE TABLE token_events").await.expect_err("a reader only reads");
    assert!(matches!(error, StoreError::Permanent(_)), "{error}");
    reader.close().await;
    store.close().await;
}

#[tokio::test]
async fn wrong_password_is_reported_not_repeated() {
    let (_owner, _directory, access) = owner();
    for (user, password) in [(Some("tokenwarden"), Some("hunter2")), (Some("nobody"), None), (None, None)] {
        let settings =
            StoreSettings { user: user.map(str::to_owned), password: password.map(Into::into), ..access.settings() };
        let error = ClickHouse::open(&settings).await.expect_err("the password is wrong");
        assert!(matches!(error, StoreError::Permanent(_)), "{error}");
        assert!(error.to_string().contains("user or password is wrong"), "{error}");
        assert!(!format!("{error} {settings:?}").contains("hunter2"), "{error}");
    }
    // A process that listens on a port and is not ClickHouse.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = StoreSettings { url: format!("http://{}", listener.local_addr().unwrap()), ..access.settings() };
    drop(listener);
    let error = ClickHouse::open(&settings).await.expect_err("nobody listens");
    assert!(matches!(error, StoreError::Retriable(_)), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn wrong_password_error_is_one_line_and_names_keys() {
    let (_owner, directory, access) = owner();
    let url = access.text("url");
    let password = directory.path().join("password");
    std::fs::write(&password, "wr0ng-secret").unwrap();
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).unwrap();
    let config = directory.path().join("tokenwarden.toml");
    let text = "[source.file]\npath = 'password'\n[store]\nuser = 'tokenwarden'\npassword_file = 'password'\n";
    std::fs::write(&config, format!("{text}url = '{url}'\n")).unwrap();
    let told = format!(
        "the store rejected the request: opening {url} (store.url): user or password is wrong (store.user, store.password)"
    );
    let tokenwarden = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tokenwarden"));
        command.args(arguments).current_dir(directory.path());
        command
    };
    let refused = |arguments: &[&str]| {
        let output = tokenwarden(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(69), "{output:?}");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(!said.concat().contains("wr0ng-secret"), "{said:?}");
        said
    };
    let config = config.display().to_string();
    let output = tokenwarden(&["sql", "--config", &config, "SELECT 1"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("tokenwarden: {told}\n"));
    let [checks, _] = refused(&["validate", "--config", &config]);
    let failed: Vec<_> = checks.lines().filter(|line| line.starts_with("FAILED")).collect();
    assert_eq!(failed, [format!("FAILED  store: {told}")]);

    // The service does not need the store: it logs the error and continues.
    let log = directory.path().join("log");
    let mut service = tokenwarden(&["run", "--config", &config])
        .env("TOKENWARDEN__ADMIN__LISTEN", "127.0.0.1:0")
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut said = String::new();
    for _ in 0..600 {
        said = std::fs::read_to_string(&log).unwrap();
        if said.contains("the store accepts no rows") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(said.contains(&told) && said.contains("detection continues"), "{said}");
    assert!(!said.contains("wr0ng-secret"), "{said}");
    assert!(std::process::Command::new("kill").arg(service.id().to_string()).status().unwrap().success());
    assert_eq!(service.wait().unwrap().code(), Some(0), "{}", std::fs::read_to_string(&log).unwrap());
}

#[derive(Debug, PartialEq, Row, Serialize, Deserialize)]
struct Note {
    number: u32,
    text: String,
    list: Vec<String>,
}

#[tokio::test]
async fn clickhouse_crate_works_with_the_endpoint() {
    let (_owner, _directory, access) = owner();
    // With the client's default validation, and with its default compression.
    let client = clickhouse::Client::default()
        .with_url(access.text("url"))
        .with_user(access.text("user"))
        .with_password(access.text("password"))
        .with_database("tokenwarden")
        .with_compression(clickhouse::Compression::None);
    let create =
        "CREATE TABLE notes (number UInt32, text String, list Array(String)) ENGINE = MergeTree ORDER BY number";
    client.query(create).execute().await.unwrap();
    let notes: Vec<Note> = (0..3)
        .map(|number| Note { number, text: NASTY.to_owned(), list: vec![NASTY.to_owned(); number as usize] })
        .collect();
    let mut insert = client.insert::<Note>("notes").await.unwrap();
    for note in &notes {
        insert.write(note).await.unwrap();
    }
    insert.end().await.unwrap();
    let found: Vec<Note> = client.query("SELECT ?fields FROM notes ORDER BY number").fetch_all().await.unwrap();
    assert_eq!(found, notes);
    // Named parameters are sent as a form.
    let named = client.query("SELECT number FROM notes WHERE text = {text:String} AND number = {number:UInt32}");
    assert_eq!(named.param("text", NASTY).param("number", 2).fetch_all::<u32>().await.unwrap(), [2]);
    let error = client.query("SELECT nothing FROM notes").fetch_all::<u32>().await.expect_err("no such column");
    assert!(error.to_string().contains("UNKNOWN_IDENTIFIER"), "{error}");
}

#[tokio::test]
async fn curl_inserts_and_queries_in_any_format() {
    let (_owner, _directory, access) = owner();
    let own = |query: &[(&str, &str)]| {
        access.request(Method::POST, "user", "password", &[query, &[("database", "tokenwarden")]].concat())
    };
    let (status, said) = text(own(&[]).body("CREATE TABLE t (a UInt8, b String) ENGINE = MergeTree ORDER BY a")).await;
    assert_eq!((status, said.as_str()), (StatusCode::OK, ""));
    // Rows in the body, in the statement, and after it in the body. Columns in another order, by name.
    for (query, body) in [
        ("INSERT INTO t FORMAT JSONEachRow", "{\"a\":1,\"b\":\"x\"}\n{\"b\":\"y\",\"a\":2}\n"),
        ("INSERT INTO t (a, b) FORMAT CSV", "3,\"line\nbreak\"\n4,z\n"),
        ("", "INSERT INTO t FORMAT TSV\n5\tv\n6\tw\n"),
        ("", "INSERT INTO t VALUES (7, 'FORMAT CSV'), (8, '; \n')"),
        ("INSERT INTO t (a, b) FORMAT CSVWithNames", "b,a\nu,9\n"),
        ("INSERT INTO t", "SELECT 10, 'select'"),
        ("INSERT INTO t (b, a) FORMAT RowBinary", "\x02\n\n\x0b\x01q\x0c"),
    ] {
        let query: &[_] = if query.is_empty() { &[] } else { &[("query", query)] };
        let (status, said) = text(own(query).body(body)).await;
        assert_eq!((status, said.as_str()), (StatusCode::OK, ""), "{query:?} {body}");
    }
    let (_, found) = text(access.get("SELECT a, b FROM t ORDER BY a FORMAT JSONCompactEachRow")).await;
    let found: Vec<Value> = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = json!([
        [1, "x"],
        [2, "y"],
        [3, "line\nbreak"],
        [4, "z"],
        [5, "v"],
        [6, "w"],
        [7, "FORMAT CSV"],
        [8, "; \n"],
        [9, "u"],
        [10, "select"],
        [11, "\n\n"],
        [12, "q"]
    ]);
    assert_eq!(Value::from(found), expected);

    let asked =
        [("query", "SELECT {x:String} AS x, getSetting('max_threads')"), ("param_x", "it's"), ("max_threads", "3")];
    let response = own(&asked).query_id("abc").send().await.unwrap();
    let headers = response.headers().clone();
    assert_eq!(response.text().await.unwrap(), "it\\'s\t3\n");
    assert_eq!(headers["x-clickhouse-format"], "TabSeparated");
    assert_eq!(headers["content-type"], "text/tab-separated-values; charset=UTF-8");
    assert!(headers["x-clickhouse-summary"].to_str().unwrap().contains("read_rows"));

    let basic =
        reqwest::Client::new().post(access.text("url")).basic_auth(access.text("user"), Some(access.text("password")));
    assert_eq!(text(basic.body("SELECT 1 FORMAT JSONEachRow")).await.1, "{\"1\":1}\n");
    assert_eq!(text(reqwest::Client::new().get(access.text("url") + "/ping")).await.1, "Ok.\n");
}

trait QueryId {
    fn query_id(self, id: &str) -> Self;
}

impl QueryId for RequestBuilder {
    fn query_id(self, id: &str) -> Self {
        self.header("X-Request-Id", id)
    }
}

#[tokio::test]
async fn error_has_status_and_code() {
    let (_owner, _directory, access) = owner();
    for (sql, status, code) in [
        ("SELEC 1", 400, "62"),
        ("SELECT * FROM nowhere", 404, "60"),
        ("SELECT nothing", 404, "47"),
        ("SELECT throwIf(1)", 500, "395"),
        ("SELECT 1 SETTINGS no_such_setting = 1", 404, "115"),
        ("SELECT 1; SELECT 2", 400, "36"),
    ] {
        let response = access.post(sql).send().await.unwrap();
        assert_eq!(response.status(), status, "{sql}");
        assert_eq!(response.headers()["x-clickhouse-exception-code"], code, "{sql}");
        assert!(response.text().await.unwrap().starts_with(&format!("Code: {code}. DB::Exception: ")), "{sql}");
    }
    let compressed = access.request(Method::POST, "user", "password", &[("decompress", "1")]).body("SELECT 1");
    assert_eq!(compressed.send().await.unwrap().status(), 501);
}

impl Access {
    /// A request with `sql`, the analyst's rights and these URL parameters.
    fn analyse(&self, sql: &str, query: &[(&str, &str)]) -> RequestBuilder {
        let query = [query, &[("database", "tokenwarden")]].concat();
        self.request(Method::POST, "analyst_user", "analyst_password", &query).body(sql.to_owned())
    }
}
