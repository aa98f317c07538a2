//! For contract tests: a server on loopback that keeps its requests and gives the queued answers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

use crate::port::Clock;

/// Thu, 26 Nov 2026 10:00:00 GMT
pub(crate) const NOW: i64 = 1_795_687_200_000;

/// A clock that stands still.
pub(crate) struct At;

impl Clock for At {
    fn now_millis(&self) -> i64 {
        NOW
    }
}

/// A request as received.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

type Reply = (u16, Vec<(&'static str, String)>, String);

/// A receiver on loopback. It gives the queued answers, then 500.
#[derive(Clone, Default)]
pub(crate) struct Receiver {
    seen: Arc<Mutex<Vec<Seen>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
}

impl Receiver {
    /// The receiver and its URL.
    pub(crate) async fn start() -> (Self, String) {
        let receiver = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().fallback(answer).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, url)
    }

    pub(crate) fn reply(&self, status: u16, body: &str) {
        self.reply_with(status, &[], body);
    }

    pub(crate) fn reply_with(&self, status: u16, headers: &[(&'static str, &str)], body: &str) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.replies.lock().expect("a lock").push_back((status, headers, body.to_owned()));
    }

    pub(crate) fn forget_replies(&self) {
        self.replies.lock().expect("a lock").clear();
    }

    /// The requests since the last call.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().expect("a lock"))
    }
}

async fn answer(State(receiver): State<Receiver>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.expect("a body");
    receiver.seen.lock().expect("a lock").push(Seen {
        line: format!("{} {}", head.method, head.uri),
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    let reply = receiver.replies.lock().expect("a lock").pop_front();
    let (status, headers, body) = reply.unwrap_or((500, Vec::new(), String::new()));
    let mut response = (StatusCode::from_u16(status).expect("a status"), body).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().expect("a value"));
    }
    response
}
