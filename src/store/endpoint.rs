//! ClickHouse's HTTP interface over the engine in this process, as far as the `clickhouse` crate, curl and Grafana need
//! it (<https://clickhouse.com/docs/interfaces/http>). It listens on loopback only and requires one of two passwords:
//! the owner's, or the password of the analysts, which only allows reading.
//!
//! Not supported: sessions (`session_id` is ignored), compressed bodies, external tables.

mod request;
mod response;

use std::collections::BTreeMap;
use std::future::IntoFuture as _;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

use self::request::{Asked, multipart_boundary};
use self::response::{Refusal, response};
use super::engine::{Answer, Engine, Exception};
use super::statement::quoted_text;
use super::{fault, statement};

/// Maximum size of a statement, with rows inside it. Rows of an INSERT whose statement is in the URL have no limit.
const STATEMENT_BYTES_MAX: usize = 256 << 20;
/// Time that running queries get when the endpoint ends, before they are stopped; then the time to stop them.
const GRACE: Duration = Duration::from_secs(1);
/// Maximum result of one query of the owner, which is kept in memory until it is sent.
const RESULT_BYTES_MAX: &str = "1000000000";
/// Maximum size of an analyst's statement in bytes.
const READER_STATEMENT_BYTES_MAX: usize = 1 << 20;
/// Maximum number of concurrent queries of analysts.
const READERS_MAX: usize = 4;
/// Resource limits of an analyst's query, so that it does not end this process. The caller may lower them.
const READER_LIMITS: [(&str, u64); 6] = [
    ("max_memory_usage", 1_000_000_000),
    // Seconds.
    ("max_execution_time", 120),
    ("max_result_bytes", 250_000_000),
    ("max_result_rows", 10_000_000),
    ("max_temporary_data_on_disk_size_for_query", 1_000_000_000),
    ("max_threads", 4),
];
/// Settings that an analyst may choose besides lower limits. None of them names a file or lifts a limit.
const READER_SETTINGS: [&str; 16] = [
    "date_time_output_format",
    "extremes",
    "final",
    "join_use_nulls",
    "limit",
    "log_comment",
    "max_bytes_to_read",
    "max_rows_to_read",
    "offset",
    "output_format_decimal_trailing_zeros",
    "output_format_write_statistics",
    "read_overflow_mode",
    "result_overflow_mode",
    "session_timezone",
    "timeout_overflow_mode",
    "union_default_mode",
];
/// The same by prefix of the name.
const READER_SETTING_FAMILIES: [&str; 4] =
    ["output_format_csv_", "output_format_json_", "output_format_pretty_", "output_format_tsv_"];

/// Turns off ClickHouse's compilation of repeated queries. The process then needs no memory that is both writable and
/// executable, and systemd's `MemoryDenyWriteExecute=` can forbid it.
const NO_CODE_AT_RUN_TIME: [(&str, &str); 3] =
    [("compile_expressions", "0"), ("compile_aggregate_expressions", "0"), ("compile_sort_description", "0")];

/// Users of the endpoint, with their passwords.
#[derive(Debug)]
pub(super) struct Credentials {
    /// Has all rights.
    pub(crate) owner: (String, SecretString),
    /// Can only read.
    pub(crate) analyst: (String, SecretString),
}

struct Endpoint {
    engine: Engine,
    credentials: Credentials,
    /// Permits for concurrent queries of analysts.
    readers: Arc<Semaphore>,
}

/// Serves until `stop` is sent or dropped, then ends running queries and closes the engine.
pub(super) async fn serve(
    listener: TcpListener,
    engine: Engine,
    credentials: Credentials,
    stop: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let endpoint = Arc::new(Endpoint { engine, credentials, readers: Arc::new(Semaphore::new(READERS_MAX)) });
    let router = Router::new()
        .route("/ping", get(|| async { "Ok.\n" }))
        .route("/", any(answer))
        .with_state(Arc::clone(&endpoint));
    let (announce, mut announced) = tokio::sync::watch::channel(());
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
        let _ = announced.changed().await;
    });
    let stopping = async {
        // A dropped sender also means to stop.
        let _ = stop.await;
        let _ = announce.send(());
        tokio::time::sleep(GRACE).await;
        kill_all(&endpoint).await;
        // What remains then is a client that never finishes its request.
        tokio::time::sleep(GRACE).await;
        Ok(())
    };
    tokio::select! {
        served = serving.into_future() => served,
        stopped = stopping => stopped,
    }
}

async fn kill_all(endpoint: &Arc<Endpoint>) {
    let endpoint = Arc::clone(endpoint);
    let _ = tokio::task::spawn_blocking(move || {
        endpoint.engine.session()?.query(b"KILL QUERY WHERE query NOT LIKE 'KILL%' ASYNC", "Null", &[]).map(drop)
    })
    .await;
}

async fn answer(State(endpoint): State<Arc<Endpoint>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut asked = Asked::from_query(parts.uri.query().unwrap_or_default());
    match answer_to(&endpoint, &parts.method, &parts.headers, &mut asked, body).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn answer_to(
    endpoint: &Arc<Endpoint>,
    method: &Method,
    headers: &HeaderMap,
    asked: &mut Asked,
    body: Body,
) -> Result<Response, Refusal> {
    if method == Method::GET && asked.query.is_none() {
        return Ok("Ok.\n".into_response());
    }
    let role = endpoint.credentials.role(headers, asked)?;
    asked.refuse_unserved(headers)?;
    let read_only = role == Role::Analyst || method != Method::POST;
    let permit = if role == Role::Analyst {
        let busy = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, 202, "too many concurrent queries of analysts");
        Some(Arc::clone(&endpoint.readers).try_acquire_owned().map_err(|_| busy())?)
    } else {
        None
    };

    // The statement may be in the URL, in the body, or begin in the URL and continue in the body.
    let in_url = asked.query.take().unwrap_or_default();
    let work = if let Some(insert) = statement::insert(in_url.as_bytes()).filter(|_| !read_only) {
        let mut rows = Rows::new()?;
        rows.write(insert.rows)?;
        rows.receive(body).await?;
        Work::Insert { statement: rows.insert(&insert), rows }
    } else {
        let mut text = in_url.into_bytes();
        let bytes_max = if read_only { READER_STATEMENT_BYTES_MAX } else { STATEMENT_BYTES_MAX };
        let body = axum::body::to_bytes(body, bytes_max).await.map_err(|error| Refusal::body(&error))?;
        if !text.is_empty() && !body.is_empty() {
            text.push(b'\n');
        }
        match multipart_boundary(headers) {
            Some(boundary) => asked.take_multipart(&body, &boundary, &mut text)?,
            None => text.extend_from_slice(&body),
        }
        if let Some(insert) = statement::insert(&text).filter(|_| !read_only) {
            let mut rows = Rows::new()?;
            rows.write(insert.rows)?;
            Work::Insert { statement: rows.insert(&insert), rows }
        } else {
            Work::Statement(text)
        }
    };

    let checked = if read_only { statement::check_read_only(work.text()) } else { statement::check(work.text()) };
    checked.map_err(|reason| Refusal::new(StatusCode::BAD_REQUEST, 36, reason))?;
    let asked = std::mem::take(asked);
    let format = statement::format(work.text()).map_or_else(|| asked.default_format().to_owned(), str::to_owned);
    let endpoint = Arc::clone(endpoint);
    let query_id = asked.query_id.clone();
    let answer = tokio::task::spawn_blocking(move || {
        let answer = endpoint.run(&asked, &work, read_only);
        drop(permit);
        answer
    });
    let answer = answer.await;
    let answer =
        answer.map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, 1001, "the query's thread failed"))??;
    Ok(response(answer, &format, query_id.as_deref()))
}

impl Endpoint {
    /// Runs the work in a session of its own, so that settings and database end with it.
    fn run(&self, asked: &Asked, work: &Work, read_only: bool) -> Result<Answer, Exception> {
        let mut session = self.engine.session()?;
        if let Some(database) = &asked.database {
            session.query(format!("USE {}", quoted_name(database)).as_bytes(), "Null", &[])?;
        }
        let mut settings = asked.settings.clone();
        settings.entry("session_timezone".to_owned()).or_insert_with(|| "UTC".to_owned());
        if read_only {
            limit(&mut settings)?;
        } else {
            settings.entry("max_result_bytes".to_owned()).or_insert_with(|| RESULT_BYTES_MAX.to_owned());
        }
        for (name, value) in NO_CODE_AT_RUN_TIME {
            settings.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        let mut set: Vec<String> =
            settings.iter().map(|(name, value)| format!("{} = {}", quoted_name(name), quoted_text(value))).collect();
        // This setting comes last, because no setting can be changed after it. The value 1 also forbids table functions
        // that read files.
        set.extend(read_only.then(|| "readonly = 1".to_owned()));
        session.query(format!("SET {}", set.join(", ")).as_bytes(), "Null", &[])?;
        session.query(work.text(), asked.default_format(), &asked.parameters)
    }
}

/// Restricts the settings of an analyst's query to [`READER_LIMITS`] and [`READER_SETTINGS`].
fn limit(settings: &mut BTreeMap<String, String>) -> Result<(), Exception> {
    // Always set to 1 later.
    settings.remove("readonly");
    let is_free = |name: &String| {
        READER_LIMITS.iter().any(|(limited, _)| limited == name)
            || READER_SETTINGS.contains(&name.as_str())
            || READER_SETTING_FAMILIES.iter().any(|family| name.starts_with(family))
    };
    if let Some(other) = settings.keys().find(|name| !is_free(name)) {
        let name = fault::brief(other);
        return Err(Exception(format!(
            "Code: 164. DB::Exception: Cannot modify '{name}' setting in readonly mode. (READONLY)"
        )));
    }
    for (name, max) in READER_LIMITS {
        let asked = settings.get(name).and_then(|value| value.parse().ok()).filter(|value| (1..=max).contains(value));
        settings.insert(name.to_owned(), asked.unwrap_or(max).to_string());
    }
    // A row that was written twice counts once.
    settings.entry("final".to_owned()).or_insert_with(|| "1".to_owned());
    Ok(())
}

/// Statement to run.
enum Work {
    Statement(Vec<u8>),
    Insert {
        statement: String,
        /// Kept open until the engine has read the rows.
        #[expect(dead_code, reason = "the statement names its file descriptor")]
        rows: Rows,
    },
}

impl Work {
    fn text(&self) -> &[u8] {
        match self {
            Self::Statement(text) => text,
            Self::Insert { statement, .. } => statement.as_bytes(),
        }
    }
}

/// Rows of an INSERT in an in-memory file, which the engine reads by its path. After a statement's own text the engine
/// accepts only what comes before the first newline, in every format.
struct Rows(std::fs::File);

impl Rows {
    fn new() -> Result<Self, Refusal> {
        let file = rustix::fs::memfd_create("tokenwarden-rows", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(|error| Refusal::memory(&error.into()))?;
        Ok(Self(file.into()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.0.write_all(bytes).map_err(|error| Refusal::memory(&error))
    }

    async fn receive(&mut self, body: Body) -> Result<(), Refusal> {
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            // An incomplete body must not be inserted.
            self.write(&chunk.map_err(|error| Refusal::body(&error))?)?;
        }
        Ok(())
    }

    /// The statement that reads the rows from this file.
    fn insert(&self, insert: &statement::Insert<'_>) -> String {
        format!("{} SELECT * FROM file('/proc/self/fd/{}', '{}')", insert.head, self.0.as_raw_fd(), insert.format)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Owner,
    Analyst,
}

impl Credentials {
    /// Checks user and password, which may be in ClickHouse's headers, in HTTP Basic or in the URL.
    fn role(&self, headers: &HeaderMap, asked: &Asked) -> Result<Role, Refusal> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::to_owned);
        let basic = text("authorization").and_then(|value| {
            let decoded = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
            let (user, password) =
                String::from_utf8(decoded).ok()?.split_once(':').map(|(a, b)| (a.into(), b.into()))?;
            Some((Some(user), Some(password)))
        });
        let (user, password) = basic.unwrap_or_else(|| {
            let user = text("x-clickhouse-user").or_else(|| asked.user.clone());
            (user, text("x-clickhouse-key").or_else(|| asked.password.clone()))
        });
        let (user, password) = (user.unwrap_or_else(|| "default".to_owned()), password.unwrap_or_default());
        for (role, (name, secret)) in [(Role::Owner, &self.owner), (Role::Analyst, &self.analyst)] {
            let same: bool = secret.expose_secret().as_bytes().ct_eq(password.as_bytes()).into();
            if same && *name == user {
                return Ok(role);
            }
        }
        let problem =
            format!("{}: Authentication failed: password is incorrect, or there is no such user", fault::brief(&user));
        Err(Refusal::new(StatusCode::FORBIDDEN, 516, &problem))
    }
}

fn quoted_name(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}
