//! A web server that keeps what it is asked: the webhook's receiver, and the API that revokes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;

use super::process::eventually;

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Asked>>,
    /// Statuses to answer with, in order; 200 once they are used up.
    answers: Mutex<VecDeque<u16>>,
}

pub struct Web {
    _runtime: tokio::runtime::Runtime,
    seen: Arc<Seen>,
    /// `http://127.0.0.1:port`
    pub url: String,
}

impl Web {
    pub fn start() -> Self {
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
    pub fn answer(&self, statuses: &[u16]) {
        self.seen.answers.lock().expect("a lock").extend(statuses);
    }

    pub fn requests(&self) -> Vec<Asked> {
        self.seen.requests.lock().expect("a lock").clone()
    }

    /// Waits for at least `count` requests.
    pub fn wait_for(&self, count: usize) -> Vec<Asked> {
        let enough = || Some(self.requests()).filter(|requests| requests.len() >= count);
        eventually(Duration::from_secs(30), "the requests arrive", enough)
            .unwrap_or_else(|| panic!("{} requests came", self.requests().len()))
    }
}

async fn keep(State(seen): State<Arc<Seen>>, request: Request) -> StatusCode {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    seen.requests.lock().expect("a lock").push(Asked {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    let status = seen.answers.lock().expect("a lock").pop_front().unwrap_or(200);
    StatusCode::from_u16(status).expect("a status")
}
