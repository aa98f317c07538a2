//! The admin endpoints: `/metrics`, `/healthz`, `/readyz`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;

use super::{Health, Metrics};
use crate::port::Clock;

/// State and settings of the endpoints.
pub(crate) struct Pages {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) clock: Arc<dyn Clock>,
    /// If set, callers must send it as `Authorization: Bearer …`.
    pub(crate) token: Option<SecretString>,
    pub(crate) hosts: Hosts,
}

/// Accepted values of the header `Host`, against DNS rebinding: a web page whose name resolves to the address of the
/// service sends its own name, and is rejected.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    listen: IpAddr,
    /// Lower case, without a trailing dot.
    names: Vec<String>,
}

impl Hosts {
    /// Accepts the names of loopback, the listening address, and `names` (`admin.hosts`).
    pub(crate) fn new(listen: SocketAddr, names: &[String]) -> Self {
        let names = names.iter().map(|name| bare(name).to_ascii_lowercase()).collect();
        Self { listen: listen.ip(), names }
    }

    /// Whether `host`, with or without a port, is accepted. Every port is, because ports may be forwarded.
    fn allow(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let name = bare(authority.host()).to_ascii_lowercase();
        match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            // If the service listens on all addresses, the caller may use any of them. A browser sends an address only
            // if the page was loaded from that address.
            Ok(address) => address.is_loopback() || address == self.listen || self.listen.is_unspecified(),
            Err(_) => name == "localhost" || self.names.contains(&name),
        }
    }
}

/// A host name without the final dot of a fully qualified name.
fn bare(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Listens on `address` and serves the endpoints until the returned task is aborted.
pub(crate) async fn serve(address: SocketAddr, pages: Pages) -> std::io::Result<tokio::task::JoinHandle<()>> {
    let listener = TcpListener::bind(address).await?;
    let router = router(Arc::new(pages));
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the admin endpoints have stopped");
        }
    }))
}

fn router(pages: Arc<Pages>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .layer(middleware::from_fn_with_state(Arc::clone(&pages), guard))
        .with_state(pages)
}

/// Rejects other values of `Host` and, if a token is configured, callers without it.
async fn guard(State(pages): State<Arc<Pages>>, request: Request, next: Next) -> Response {
    let mut hosts = request.headers().get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let target = request.uri().authority().map(Authority::as_str);
    let one_of_ours = hosts.next().is_some_and(|host| pages.hosts.allow(host)) && hosts.next().is_none();
    if !one_of_ours || target.is_some_and(|target| !pages.hosts.allow(target)) {
        return (StatusCode::MISDIRECTED_REQUEST, "unknown host; see admin.hosts\n").into_response();
    }
    if let Some(token) = &pages.token {
        let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if !bool::from(shown.as_bytes().ct_eq(token.expose_secret().as_bytes())) {
            return (
                StatusCode::UNAUTHORIZED,
                [(header::WWW_AUTHENTICATE, "Bearer")],
                "missing or wrong bearer token; see admin.token_file\n",
            )
                .into_response();
        }
    }
    next.run(request).await
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    pages.metrics.conditions(&pages.health, pages.clock.now_millis());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], pages.metrics.text()).into_response()
}

async fn healthz(State(pages): State<Arc<Pages>>) -> Response {
    answer(&pages.health.restart_reasons(pages.clock.now_millis()), &[])
}

/// Degradations follow the reasons, and with the query `verbose` lines about the memory.
async fn readyz(State(pages): State<Arc<Pages>>, RawQuery(query): RawQuery) -> Response {
    let mut notes = pages.health.degradations();
    if query.as_deref() == Some("verbose") {
        notes.extend(pages.health.memory());
    }
    answer(&pages.health.unready_reasons(pages.clock.now_millis()), &notes)
}

/// 200 if there is no reason, otherwise 503 with one reason per line. The notes follow.
fn answer(reasons: &[String], notes: &[String]) -> Response {
    let is_ok = reasons.is_empty();
    let first = is_ok.then_some("ok");
    let lines = first.into_iter().chain(reasons.iter().chain(notes).map(String::as_str));
    let text = lines.fold(String::new(), |text, line| text + line + "\n");
    (if is_ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::telemetry::Condition;

    struct At(i64);

    impl Clock for At {
        fn now_millis(&self) -> i64 {
            self.0
        }
    }

    async fn start(health: Arc<Health>, now: i64, token: Option<&str>) -> String {
        let pages = Pages {
            metrics: Arc::new(Metrics::new()),
            health,
            clock: Arc::new(At(now)),
            token: token.map(SecretString::from),
            hosts: Hosts::new("192.0.2.7:9464".parse().expect("an address"), &["Metrics.example.".to_owned()]),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router(Arc::new(pages))).await });
        base
    }

    async fn status(url: String) -> u16 {
        reqwest::get(url).await.expect("an answer").status().as_u16()
    }

    #[tokio::test]
    async fn readyz_waits_for_the_worker_and_the_store() {
        let health = Arc::new(Health::default());
        let base = start(Arc::clone(&health), 100_000, None).await;
        assert_eq!(status(format!("{base}/readyz")).await, 503);
        assert_eq!(status(format!("{base}/healthz")).await, 200);
        health.beat(99_000);
        assert_eq!(status(format!("{base}/readyz")).await, 200);
        health.set(Condition::Store, true);
        health.set(Condition::Store, false);
        health.set_of(Condition::SnapshotsOff, "t.state", true);
        let degraded = reqwest::get(format!("{base}/readyz")).await.expect("an answer");
        assert_eq!(degraded.status(), 200);
        let text = degraded.text().await.expect("a text");
        assert!(text.starts_with("ok\nsnapshots_off (t.state): the topic of snapshots cannot be used"), "{text}");
        health.set_of(Condition::SnapshotsOff, "t.state", false);
        health.set(Condition::Store, true);
        health.set_memory_since("t-0", Some(1_769_990_400_000));
        let verbose = reqwest::get(format!("{base}/readyz?verbose")).await.expect("an answer");
        let expected = "store: ClickHouse is unavailable\nmemory (t-0): since 2026-02-02T00:00:00Z\n";
        assert_eq!(verbose.text().await.expect("a text"), expected);
        health.set_of(Condition::Lane, "email", true);
        let answer = reqwest::get(format!("{base}/readyz")).await.expect("an answer");
        assert_eq!(answer.status(), 503);
        let text = answer.text().await.expect("a text");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.starts_with("store: ") && text.contains("\nlane (email): "), "{text}");
        assert_eq!(status(format!("{base}/healthz")).await, 200);
        health.beat(1);
        assert_eq!(status(format!("{base}/healthz")).await, 503);
        assert_eq!(status(format!("{base}/metrics")).await, 200);
        assert_eq!(status(format!("{base}/other")).await, 404);
    }

    #[tokio::test]
    async fn configured_token_is_required() {
        let base = start(Arc::default(), 0, Some("s3cret")).await;
        assert_eq!(status(format!("{base}/metrics")).await, 401);
        let ask = |token: &str| reqwest::Client::new().get(format!("{base}/metrics")).bearer_auth(token).send();
        assert_eq!(ask("s3crez").await.expect("an answer").status(), 401);
        assert_eq!(ask("s3cret").await.expect("an answer").status(), 200);
    }

    /// Status of a request with `lines` as request line and headers.
    async fn raw(base: &str, lines: &str) -> u16 {
        let mut stream = TcpStream::connect(base.trim_start_matches("http://")).await.expect("a connection");
        stream.write_all(format!("{lines}Connection: close\r\n\r\n").as_bytes()).await.expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }

    #[tokio::test]
    async fn admin_rejects_unknown_hosts() {
        let base = start(Arc::default(), 0, None).await;
        for ours in [
            "localhost",
            "LocalHost:9464",
            "localhost.",
            "127.0.0.1:9464",
            "127.8.8.8",
            "[::1]:1",
            "192.0.2.7:9464",
            "metrics.EXAMPLE:80",
        ] {
            let answer = raw(&base, &format!("GET /metrics HTTP/1.1\r\nHost: {ours}\r\n")).await;
            assert_eq!(answer, 200, "{ours}");
        }
        for other in [
            "rebound.example",
            "localhost.rebound.example",
            "127.0.0.1.rebound.example",
            "metrics.example.rebound.example",
            "localhost@rebound.example",
            "rebound.example@localhost",
            "192.0.2.8",
            "0.0.0.0",
            "",
            "localhost, rebound.example",
        ] {
            for path in ["/metrics", "/healthz", "/readyz", "/other"] {
                let answer = raw(&base, &format!("GET {path} HTTP/1.1\r\nHost: {other}\r\n")).await;
                assert_eq!(answer, 421, "{other}");
            }
        }
        let two = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: rebound.example\r\n";
        assert_eq!(raw(&base, two).await, 421);
        let whole = "GET http://rebound.example/metrics HTTP/1.1\r\nHost: localhost\r\n";
        assert_eq!(raw(&base, whole).await, 421);
        assert_eq!(raw(&base, "GET /metrics HTTP/1.0\r\n").await, 421, "no host");
    }

    #[test]
    fn admin_on_all_addresses_rejects_unknown_names() {
        let hosts = Hosts::new("0.0.0.0:9464".parse().expect("an address"), &[]);
        assert!(hosts.allow("198.51.100.4:9464") && hosts.allow("[2001:db8::1]:9464"));
        assert!(!hosts.allow("rebound.example:9464") && !hosts.allow("198.51.100.4.example"));
    }
}
