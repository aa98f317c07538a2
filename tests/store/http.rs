//! The endpoint of the embedded store, used like a ClickHouse server by this program, the `clickhouse` crate, curl and
//! dashboards. Callers without permission are rejected.

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

#[tokio::test]
async fn password_is_required_and_analysts_only_read() {
    let (owner, directory, access) = owner();
    let secret = TempDir::new().unwrap();
    let (file, written) = (secret.path().join("secret"), secret.path().join("written"));
    std::fs::write(&file, "hunter2").unwrap();
    let (file, written) = (file.display(), written.display());

    for request in [
        reqwest::Client::new().post(access.text("url")).body("SELECT 1"),
        reqwest::Client::new().get(access.text("url") + "/?query=SELECT+1"),
        reqwest::Client::new().get(access.text("url") + "/?query=SELECT+1&user=tokenwarden&password="),
        reqwest::Client::new().post(access.text("url")).basic_auth("tokenwarden", Some("x")).body("SELECT 1"),
        access.request(Method::GET, "user", "analyst_password", &[("query", "SELECT 1")]),
    ] {
        let (status, said) = text(request).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{said}");
    }
    for sql in [
        "INSERT INTO token_events (event_id) VALUES ('x')".to_owned(),
        "INSERT INTO token_events (event_id) FORMAT CSV x".to_owned(),
        "DROP TABLE token_events".to_owned(),
        "KILL QUERY WHERE 1".to_owned(),
        "SET readonly = 0".to_owned(),
        "SELECT 1 SETTINGS readonly = 0".to_owned(),
        "SELECT 1; DROP TABLE token_events".to_owned(),
        format!("SELECT file('{file}')"),
        format!("SELECT `file`('{file}')"),
        format!("SELECT * FROM file('{file}', 'LineAsString')"),
        format!("DESCRIBE TABLE file('{file}', 'LineAsString')"),
        format!("SELECT 1 INTO OUTFILE '{written}'"),
        format!("SELECT 1 INTO/**/outfile '{written}'"),
        format!("INSERT INTO FUNCTION file('{written}', 'CSV') SELECT 1"),
        format!("SELECT “ ' ”, file('{file}') -- '"),
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')".to_owned(),
        "SELECT * FROM executable('x', 'TSV', 'a String')".to_owned(),
    ] {
        let post = access.request(Method::POST, "analyst_user", "analyst_password", &[("readonly", "0")]);
        for request in [access.get(&sql), post.body(sql.clone())] {
            let (status, said) = text(request).await;
            assert!(status.is_client_error() || status.is_server_error(), "{sql}: {said}");
            assert!(!said.contains("hunter2"), "{sql}: {said}");
        }
    }
    assert!(!secret.path().join("written").exists());
    // A GET cannot change data, even with the owner's password.
    let get = access.request(Method::GET, "user", "password", &[("query", "DROP TABLE tokenwarden.token_events")]);
    assert!(!text(get).await.0.is_success());
    assert_eq!(text(access.get("SELECT count() FROM token_events")).await.1, "10\n");

    // Only this user can read the passwords, which stay the same after a restart.
    let file = directory.path().join("endpoint.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    drop(owner);
    let mut again = child::start("own", directory.path(), child::PLAIN);
    assert_eq!(again.line(), "ready");
    assert_eq!(Access::of(directory.path()).text("analyst_password"), access.text("analyst_password"));
}

impl Access {
    /// A request with `sql`, the analyst's rights and these URL parameters.
    fn analyse(&self, sql: &str, query: &[(&str, &str)]) -> RequestBuilder {
        let query = [query, &[("database", "tokenwarden")]].concat();
        self.request(Method::POST, "analyst_user", "analyst_password", &query).body(sql.to_owned())
    }
}

#[tokio::test]
async fn analyst_cannot_lift_limits() {
    let (_owner, _directory, access) = owner();
    let limits = [
        ("max_memory_usage", 1_000_000_000),
        ("max_execution_time", 120),
        ("max_result_bytes", 250_000_000),
        ("max_result_rows", 10_000_000),
        ("max_temporary_data_on_disk_size_for_query", 1_000_000_000),
        ("max_threads", 4),
    ];
    for (name, max) in limits {
        let now = format!("SELECT toUInt64(getSetting('{name}'))");
        for wanted in ["0", "18446744073709551615", "-1", "1e30", "unlimited", ""] {
            let (status, said) = text(access.analyse(&now, &[(name, wanted)])).await;
            assert_eq!((status, said), (StatusCode::OK, format!("{max}\n")), "{name} = {wanted}");
        }
        let (_, said) = text(access.analyse(&now, &[(name, "3"), (name, "2")])).await;
        assert_eq!(said, "2\n", "{name} may be lowered");
        for sql in [
            format!("SELECT 1 SETTINGS {name} = 0"),
            format!("SELECT * FROM (SELECT 1 SETTINGS {name} = 0)"),
            format!("WITH (SELECT 1 SETTINGS {name} = 0) AS x SELECT x"),
            format!("SELECT 1 UNION ALL SELECT 2 SETTINGS {name} = 0"),
            format!("SET {name} = 0"),
            format!("EXPLAIN SELECT 1 SETTINGS {name} = 0"),
            format!("SELECT * FROM view(SELECT 1 SETTINGS {name} = 0)"),
        ] {
            let (status, said) = text(access.analyse(&sql, &[])).await;
            assert!(!status.is_success(), "{sql}: {said}");
        }
    }
    // Settings that are neither harmless nor limits: they name files, or allow more.
    for (name, value) in [
        ("allow_ddl", "1"),
        ("format_template_row", "/etc/passwd"),
        ("format_schema", "/etc/passwd:x"),
        ("output_format_schema", "/tmp/x"),
        ("max_memory_usage_for_user", "0"),
        ("max_bytes_ratio_before_external_sort", "0"),
        ("memory_overcommit_ratio_denominator", "0"),
        ("profile", "default"),
        ("no_such_setting", "1"),
    ] {
        let (status, said) = text(access.analyse("SELECT 1", &[(name, value)])).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{name}: {said}");
        assert!(said.contains("Cannot modify"), "{name}: {said}");
    }
    for (name, value) in [("readonly", "0"), ("final", "0"), ("output_format_json_quote_64bit_integers", "0")] {
        let (status, said) = text(access.analyse("SELECT getSetting('readonly')", &[(name, value)])).await;
        assert_eq!((status, said.as_str()), (StatusCode::OK, "1\n"), "{name}");
    }
    // The owner can set limits.
    let own = access.request(Method::POST, "user", "password", &[("max_memory_usage", "5000000000")]);
    assert_eq!(text(own.body("SELECT getSetting('max_memory_usage')")).await.1, "5000000000\n");
}

#[tokio::test]
async fn analyst_cannot_probe_files() {
    let (_owner, directory, access) = owner();
    let there = directory.path().join("endpoint.json").display().to_string();
    let not_there = directory.path().join("nothing.json").display().to_string();
    for database in ["tokenwarden", "default", "system", "information_schema"] {
        for form in [
            "EXISTS TABLE `{}`",
            "EXISTS TABLE default.`{}`",
            "EXISTS VIEW default.`{}`",
            "EXISTS DICTIONARY default.`{}`",
            "EXISTS DATABASE `{}`",
            "EXISTS `{}`",
            "SELECT * FROM `{}`",
            "SELECT * FROM default.`{}`",
            "DESCRIBE TABLE default.`{}`",
            "SHOW CREATE TABLE default.`{}`",
            "SHOW TABLES FROM default LIKE '{}'",
            "SHOW COLUMNS FROM default.`{}`",
            "EXPLAIN SELECT * FROM default.`{}`",
            "SELECT count() FROM system.tables WHERE database = 'default' AND name = '{}'",
            "SELECT count() FROM system.columns WHERE database = 'default' AND table = '{}'",
            "SELECT hasColumnInTable('default', '{}', 'x')",
        ] {
            let mut answers = Vec::new();
            for file in [&there, &not_there] {
                let request =
                    access.request(Method::POST, "analyst_user", "analyst_password", &[("database", database)]);
                let (status, said) = text(request.body(form.replace("{}", file))).await;
                assert!(!said.contains("analyst_password"), "{form}: {said}");
                answers.push((status, said.replace(file.as_str(), "FILE")));
            }
            assert_eq!(answers[0], answers[1], "{form} in {database} tells which file is there");
        }
    }
    for sql in [
        "EXPLAIN SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "EXPLAIN SYNTAX SELECT * FROM s3('http://127.0.0.1:1/x')",
        "EXPLAIN QUERY TREE SELECT * FROM FILE('/etc/passwd')",
        "EXPLAIN TABLE OVERRIDE mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
        "SELECT 1 WHERE 1 IN (SELECT * FROM sqlite('/etc/passwd', 'x'))",
        "SELECT catboostEvaluate('/etc/passwd', 1)",
        "SELECT reverseDNSQuery('192.0.2.1')",
        "SELECT 1 FORMAT CSV INTO OUTFILE '/tmp/x'",
        "CREATE DICTIONARY d (x UInt64) PRIMARY KEY x SOURCE(FILE(path '/etc/passwd' format 'CSV')) LAYOUT(FLAT()) LIFETIME(1)",
        "CREATE TABLE t (x String) ENGINE = File(CSV, '/etc/passwd')",
        "ATTACH TABLE t FROM '/etc'",
        "BACKUP DATABASE tokenwarden TO File('/tmp/x')",
    ] {
        let (status, said) = text(access.analyse(sql, &[])).await;
        assert!(said.contains("Code: 36.") && status == StatusCode::BAD_REQUEST, "{sql}: {said}");
    }
}

#[tokio::test]
async fn analyst_table_functions_reach_nothing_outside() {
    let (_owner, _directory, access) = owner();
    let harmless = [
        "format",
        "generateSeries",
        "generate_series",
        "null",
        "numbers",
        "numbers_mt",
        "primes",
        "values",
        "view",
        "zeros",
        "zeros_mt",
    ];
    let (_, names) = text(access.analyse("SELECT name FROM system.table_functions", &[])).await;
    assert!(names.lines().count() > 80, "{names}");
    for name in names.lines().filter(|name| !harmless.contains(name)) {
        for sql in
            [format!("SELECT * FROM {name}('x')"), format!("EXPLAIN SELECT * FROM {} ('x')", name.to_uppercase())]
        {
            let (_, said) = text(access.analyse(&sql, &[])).await;
            assert!(said.contains("are not allowed"), "{sql}: {said}");
        }
    }
    let (status, said) = text(access.analyse("SELECT sum(number) FROM numbers(10)", &[])).await;
    assert_eq!((status, said.as_str()), (StatusCode::OK, "45\n"));
}

#[tokio::test]
async fn analyst_cannot_take_the_service_down() {
    let (_owner, _directory, access) = owner();
    let store = ClickHouse::open(&access.settings()).await.unwrap();
    let queries = [
        "SELECT length(groupArray(number)) FROM numbers(10000000000)",
        "SELECT repeat('x', 1000000000) FROM numbers(10)",
        "SELECT number, repeat('x', 1000) FROM numbers(10000000)",
        "SELECT count() FROM (SELECT DISTINCT sipHash128(number) FROM numbers(10000000000))",
        "SELECT arrayMap(x -> range(100000000), range(100))",
        "SELECT a.number FROM numbers(100000000) a JOIN numbers(100000000) b ON a.number = b.number ORDER BY 1",
        "SELECT count() FROM numbers(1000000000000000) WHERE cityHash64(number) = 1",
        "SELECT sleepEachRow(1) FROM numbers(1000)",
    ];
    let lifting =
        [("max_memory_usage", "0"), ("max_result_bytes", "0"), ("max_execution_time", "5"), ("max_threads", "0")];
    let asked: Vec<_> = queries.iter().map(|sql| tokio::spawn(text(access.analyse(sql, &lifting)))).collect();
    let mut written = 0;
    while !asked.iter().all(tokio::task::JoinHandle::is_finished) {
        store.write(&epoch(1_000 + written * 50..1_050 + written * 50)).await.expect("rows are taken meanwhile");
        written += 1;
        assert!(written < 2_000, "the queries do not end");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut busy = 0;
    for (asked, sql) in asked.into_iter().zip(queries) {
        let (status, said) = asked.await.unwrap();
        assert!(!status.is_success(), "{sql}: {} bytes", said.len());
        busy += usize::from(said.contains("Code: 202."));
    }
    assert!((1..=4).contains(&busy), "{busy} of eight found no place");
    // One after another, each ends by its limit.
    for sql in queries {
        let (_, said) = text(access.analyse(sql, &lifting)).await;
        // Memory, time, size of a function's result, temporary disk, size of the answer, time to sleep.
        let codes = [241, 159, 128, 131, 243, 396, 160];
        assert!(codes.iter().any(|code| said.starts_with(&format!("Code: {code}."))), "{sql}: {said:.300}");
    }
    let counted = format!("{}\n", 10 + written * 50);
    assert_eq!(text(access.get("SELECT count() FROM token_events")).await.1, counted);
    let (status, _) = text(access.analyse(&format!("SELECT '{}'", "x".repeat(2 << 20)), &[])).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "a statement of 2 MiB");
}
