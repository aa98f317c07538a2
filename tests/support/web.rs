//! A web server that stores its requests: the receiver of webhooks, and the API for revocations.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use hmac::{KeyInit as _, Mac as _};

use super::process::eventually;

/// One request as received.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub at: Instant,
    /// Status of the response. `None`: not sent yet.
    pub answered: Option<u16>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether it is signed with `secret` (Standard Webhooks 1.0).
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let header = |name| self.header(name).unwrap_or_default();
        let signed = format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), self.body);
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
        mac.update(signed.as_bytes());
        let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
        header("webhook-signature") == format!("v1,{signature}")
    }
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Asked>>,
    /// Statuses of the next responses, in order; then 200.
    answers: Mutex<VecDeque<Answer>>,
    /// Status of all responses without one in `answers`.
    refusal: Mutex<Option<u16>>,
    held: AtomicBool,
}

#[derive(Default)]
struct Answer {
    status: u16,
    retry_after: Option<String>,
    location: Option<String>,
    body: String,
}

pub(crate) struct Web {
    _runtime: tokio::runtime::Runtime,
    seen: Arc<Seen>,
    /// `http://127.0.0.1:port`
    pub url: String,
}

impl Web {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let seen = Arc::new(Seen::default());
        let router = Router::new().fallback(keep).with_state(Arc::clone(&seen));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { _runtime: runtime, seen, url }
    }

    /// Answers the next requests with these statuses.
    pub(crate) fn answer(&self, statuses: &[u16]) {
        let answers = statuses.iter().map(|status| Answer { status: *status, ..Answer::default() });
        self.seen.answers.lock().expect("a lock").extend(answers);
    }

    /// Answers the next request with 429 and `Retry-After` in seconds.
    pub(crate) fn answer_come_again(&self, seconds: u32) {
        self.answer_come_again_at(&seconds.to_string());
    }

    /// Answers the next request with 429 and this `Retry-After`.
    pub(crate) fn answer_come_again_at(&self, retry_after: &str) {
        let answer = Answer { status: 429, retry_after: Some(retry_after.to_owned()), ..Answer::default() };
        self.seen.answers.lock().expect("a lock").push_back(answer);
    }

    /// Answers the next request with this status and body.
    pub(crate) fn answer_body(&self, status: u16, body: &str) {
        let answer = Answer { status, body: body.to_owned(), ..Answer::default() };
        self.seen.answers.lock().expect("a lock").push_back(answer);
    }

    /// Answers the next request with a redirect.
    pub(crate) fn answer_elsewhere(&self, url: &str) {
        let answer = Answer { status: 302, location: Some(url.to_owned()), ..Answer::default() };
        self.seen.answers.lock().expect("a lock").push_back(answer);
    }

    /// While held, requests are stored and get no response.
    pub(crate) fn hold(&self, held: bool) {
        self.seen.held.store(held, Ordering::Relaxed);
    }

    /// Answers all requests with this status, until it is called with `None`.
    pub(crate) fn refuse(&self, status: Option<u16>) {
        *self.seen.refusal.lock().expect("a lock") = status;
    }

    /// The requests that were answered with 200.
    pub(crate) fn accepted(&self) -> Vec<Asked> {
        self.requests().into_iter().filter(|asked| asked.answered == Some(200)).collect()
    }

    pub(crate) fn requests(&self) -> Vec<Asked> {
        self.seen.requests.lock().expect("a lock").clone()
    }

    /// Waits for at least `count` requests.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Asked> {
        let enough = || Some(self.requests()).filter(|requests| requests.len() >= count);
        eventually(Duration::from_secs(30), "the requests arrive", enough)
            .unwrap_or_else(|| panic!("{} requests came", self.requests().len()))
    }
}

async fn keep(State(seen): State<Arc<Seen>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let asked = Asked {
        answered: None,
        method: head.method.to_string(),
        path: head.uri.to_string(),
        at: Instant::now(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let number = {
        let mut requests = seen.requests.lock().expect("a lock");
        requests.push(asked);
        requests.len() - 1
    };
    while seen.held.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = seen.answers.lock().expect("a lock").pop_front();
    let usual = seen.refusal.lock().expect("a lock").unwrap_or(200);
    let answer = answer.unwrap_or(Answer { status: usual, ..Answer::default() });
    seen.requests.lock().expect("a lock")[number].answered = Some(answer.status);
    let status = StatusCode::from_u16(answer.status).expect("a status");
    let mut response = (status, answer.body).into_response();
    for (name, value) in [(header::RETRY_AFTER, answer.retry_after), (header::LOCATION, answer.location)] {
        if let Some(value) = value {
            response.headers_mut().insert(name, value.parse().expect("a header value"));
        }
    }
    response
}
