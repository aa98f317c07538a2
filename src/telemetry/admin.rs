//! The service's own door: `/metrics`, `/healthz`, `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;

use super::Metrics;
use crate::port::Clock;

/// A worker that has not come round for this long hangs.
const BEAT_MS_MAX: i64 = 60_000;

/// Whether the service lives, and whether it does its work.
#[derive(Debug, Default)]
pub struct Health {
    /// When the worker last came round, milliseconds since the epoch, wall clock; 0 before it began.
    beat_at: AtomicI64,
    store_failing: AtomicBool,
    source_failing: AtomicBool,
    outbox_failing: AtomicBool,
}

impl Health {
    /// The worker has come round.
    pub fn beat(&self, now: i64) {
        self.beat_at.store(now, Ordering::Relaxed);
    }

    pub fn store_failing(&self, failing: bool) {
        self.store_failing.store(failing, Ordering::Relaxed);
    }

    pub fn source_failing(&self, failing: bool) {
        self.source_failing.store(failing, Ordering::Relaxed);
    }

    pub fn outbox_failing(&self, failing: bool) {
        self.outbox_failing.store(failing, Ordering::Relaxed);
    }

    /// Why the process should be restarted, if it should.
    fn illness(&self, now: i64) -> Option<&'static str> {
        let beat_at = self.beat_at.load(Ordering::Relaxed);
        (beat_at != 0 && now - beat_at > BEAT_MS_MAX).then_some("the worker hangs")
    }

    /// Why the service does not do its work now, if it does not.
    fn obstacle(&self, now: i64) -> Option<&'static str> {
        if self.beat_at.load(Ordering::Relaxed) == 0 {
            return Some("starting");
        }
        if self.store_failing.load(Ordering::Relaxed) {
            return Some("the store is unavailable");
        }
        if self.source_failing.load(Ordering::Relaxed) {
            return Some("the source does not take commits");
        }
        if self.outbox_failing.load(Ordering::Relaxed) {
            return Some("the outbox cannot be written");
        }
        self.illness(now)
    }
}

/// What the pages are made of.
pub struct Pages {
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub clock: Arc<dyn Clock>,
    /// Callers must show it as `Authorization: Bearer …`.
    pub token: Option<SecretString>,
}

/// Listens on `address` and answers until the returned task is aborted.
pub async fn serve(address: SocketAddr, pages: Pages) -> std::io::Result<tokio::task::JoinHandle<()>> {
    let listener = TcpListener::bind(address).await?;
    let router = router(Arc::new(pages));
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the admin pages are gone");
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

/// Lets in who shows the token, where one is asked for.
async fn guard(State(pages): State<Arc<Pages>>, request: Request, next: Next) -> Response {
    if let Some(token) = &pages.token {
        let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if !bool::from(shown.as_bytes().ct_eq(token.expose_secret().as_bytes())) {
            return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "no\n").into_response();
        }
    }
    next.run(request).await
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], pages.metrics.text()).into_response()
}

async fn healthz(State(pages): State<Arc<Pages>>) -> Response {
    answer(pages.health.illness(pages.clock.now_millis()))
}

async fn readyz(State(pages): State<Arc<Pages>>) -> Response {
    answer(pages.health.obstacle(pages.clock.now_millis()))
}

fn answer(trouble: Option<&'static str>) -> Response {
    match trouble {
        None => "ok\n".into_response(),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    async fn readiness_waits_for_the_worker_and_the_store() {
        let health = Arc::new(Health::default());
        let base = start(Arc::clone(&health), 100_000, None).await;
        assert_eq!(status(format!("{base}/readyz")).await, 503);
        assert_eq!(status(format!("{base}/healthz")).await, 200);
        health.beat(99_000);
        assert_eq!(status(format!("{base}/readyz")).await, 200);
        health.store_failing(true);
        assert_eq!(status(format!("{base}/readyz")).await, 503);
        assert_eq!(status(format!("{base}/healthz")).await, 200);
        health.beat(1);
        assert_eq!(status(format!("{base}/healthz")).await, 503);
        assert_eq!(status(format!("{base}/metrics")).await, 200);
        assert_eq!(status(format!("{base}/other")).await, 404);
    }

    #[tokio::test]
    async fn a_configured_token_is_asked_for() {
        let base = start(Arc::default(), 0, Some("s3cret")).await;
        assert_eq!(status(format!("{base}/metrics")).await, 401);
        let ask = |token: &str| reqwest::Client::new().get(format!("{base}/metrics")).bearer_auth(token).send();
        assert_eq!(ask("s3crez").await.expect("an answer").status(), 401);
        assert_eq!(ask("s3cret").await.expect("an answer").status(), 200);
    }
}
