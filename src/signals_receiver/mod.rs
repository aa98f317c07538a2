//! The receiver of Shared Signals: an HTTP endpoint for pushed Security Event Tokens (RFC 8935) of one transmitter
//! (`docs/shared-signals.md`).
//!
//! A verified event becomes a token event in a source topic, in the partition of its user. Life-cycle detectors learn it
//! there, in the order of the user's other events, and again after a restart.

mod set;
mod settings;
mod subject;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, on};
use secrecy::ExposeSecret as _;
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use self::set::{Code, Rejected};
pub(crate) use self::settings::SignalsReceiverSettings;
use crate::jose::{self, TOKEN_BYTES_MAX};
use crate::jwks::Keys;
use crate::listener;
use crate::lock::unpoisoned;
use crate::millis::{MINUTE_MS, seconds_left_in_minute};
use crate::port::{Clock, EventSink, Mistake};
use crate::telemetry::Metrics;

/// Path of the endpoint.
const PATH: &str = "/events";
/// Media type of a Security Event Token, RFC 8417 section 7.2.
const MEDIA_TYPE: &str = "application/secevent+jwt";
/// Time limit of a request, with the acknowledgement of the brokers.
const REQUEST_WAIT: Duration = Duration::from_secs(20);
/// Time limit of the body.
const BODY_WAIT: Duration = Duration::from_secs(5);
/// Maximum number of requests that are handled at once, after their bodies have arrived.
const CONCURRENT_MAX: usize = 64;
/// Maximum number of requests per minute before their signatures are verified, for each of `per_minute`.
const UNVERIFIED_FOR_EACH: u32 = 20;
/// `Retry-After` of an answer 503, seconds.
const RETRY_AFTER_S: i64 = 30;

struct Receiver {
    settings: SignalsReceiverSettings,
    keys: Keys,
    sink: Arc<dyn EventSink>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    room: Semaphore,
    unverified: Mutex<MinuteCount>,
    verified: Mutex<MinuteCount>,
}

/// Number of requests in one minute.
#[derive(Default)]
struct MinuteCount {
    /// Minutes since the epoch.
    minute: i64,
    requests: u32,
}

impl MinuteCount {
    /// Counts a request at `now`, milliseconds since the epoch, unless there are `max` of them.
    fn count(&mut self, max: u32, now: i64) -> Result<(), Refusal> {
        let minute = now.div_euclid(MINUTE_MS);
        if self.minute != minute {
            *self = Self { minute, requests: 0 };
        }
        if self.requests >= max {
            return Err(Refusal::Busy(seconds_left_in_minute(now)));
        }
        self.requests += 1;
        Ok(())
    }
}

/// The receiver, ready to listen.
pub(crate) struct SignalsReceiver(Router);

impl SignalsReceiver {
    /// `sink`: the topic of the settings. The key of a mistake is one in the configuration.
    pub(crate) fn new(
        settings: &SignalsReceiverSettings,
        sink: Arc<dyn EventSink>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Mistake> {
        let keys =
            settings.keys().ok_or_else(|| Mistake::new("signals_receiver", "needs one of jwks_file and jwks_url"))?;
        let receiver = Receiver {
            settings: settings.clone(),
            keys: Keys::of(keys, Arc::clone(&clock))?,
            sink,
            clock,
            metrics,
            room: Semaphore::new(CONCURRENT_MAX),
            unverified: Mutex::default(),
            verified: Mutex::default(),
        };
        let router = Router::new()
            .route(PATH, on(MethodFilter::POST, receive))
            .fallback(async || StatusCode::NOT_FOUND)
            .with_state(Arc::new(receiver));
        Ok(Self(router))
    }

    pub(crate) async fn serve(self, address: SocketAddr) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            listener::serve(listener, self.0, listener::HEADERS_WAIT).await;
        });
        Ok(address)
    }
}

/// Why a request has another answer than 202.
enum Refusal {
    Token(Rejected),
    /// The transmitter must send the token again. An error of the service, which is logged.
    Unavailable(&'static str),
    /// The same, but anyone can cause it with a token without a valid signature.
    Later,
    TooLarge,
    /// Seconds to wait.
    Busy(i64),
}

impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Self {
        Self::Token(rejected)
    }
}

async fn receive(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    let done = match tokio::time::timeout(REQUEST_WAIT, receiver.take(request)).await {
        Ok(done) => done,
        Err(_) => Err(Refusal::Unavailable("the request took too long")),
    };
    let mut response = match done {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(Refusal::Token(Rejected(code, description))) => {
            let status =
                if code == Code::AuthenticationFailed { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
            (status, json!({ "err": code.as_str(), "description": description }).to_string()).into_response()
        }
        Err(Refusal::Unavailable(description)) => {
            tracing::error!(description, "a Security Event Token is not accepted");
            later(StatusCode::SERVICE_UNAVAILABLE, RETRY_AFTER_S)
        }
        Err(Refusal::Later) => later(StatusCode::SERVICE_UNAVAILABLE, RETRY_AFTER_S),
        Err(Refusal::Busy(seconds)) => later(StatusCode::TOO_MANY_REQUESTS, seconds),
        Err(Refusal::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static("en"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    receiver.metrics.signals_answered(response.status().as_u16());
    response
}

fn later(status: StatusCode, seconds: i64) -> Response {
    let mut response = status.into_response();
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response
}

impl Receiver {
    /// Verifies the token of a request, and sends its events.
    async fn take(&self, request: Request) -> Result<(), Refusal> {
        self.authenticate(request.headers())?;
        let per_minute = self.settings.per_minute;
        let unverified_max = per_minute.saturating_mul(UNVERIFIED_FOR_EACH);
        unpoisoned(&self.unverified).count(unverified_max, self.clock.now_millis())?;
        let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !media_type.is_some_and(|value| value.trim().eq_ignore_ascii_case(MEDIA_TYPE)) {
            return Err(Rejected(Code::InvalidRequest, "the media type must be application/secevent+jwt").into());
        }
        let body = tokio::time::timeout(BODY_WAIT, to_bytes(request.into_body(), TOKEN_BYTES_MAX)).await;
        let body = body.map_err(|_| Refusal::Later)?.map_err(|_| Refusal::TooLarge)?;
        let _place = self.room.try_acquire().map_err(|_| Refusal::Later)?;
        let malformed =
            Rejected(Code::InvalidRequest, "the body is not a signed token in compact form with a key id (kid)");
        let token = std::str::from_utf8(&body).map_err(|_| malformed)?.trim();
        let id = jose::key_id(token).map_err(|_| malformed)?;
        let keys = self.keys.with(&id).await;
        let keys = keys.map_err(|_| Refusal::Later)?;
        let signed = keys.verify(token, &self.settings.algorithms).map_err(|problem| match problem {
            jose::Rejected::Malformed => malformed,
            jose::Rejected::Algorithm => {
                Rejected(Code::InvalidKey, "the algorithm is not allowed, or not that of the key")
            }
            jose::Rejected::UnknownKey => Rejected(Code::InvalidKey, "the key id (kid) is unknown"),
            jose::Rejected::Signature => Rejected(Code::InvalidKey, "the signature is wrong"),
        })?;
        unpoisoned(&self.verified).count(per_minute, self.clock.now_millis())?;
        for native in set::events(&signed, &self.settings, self.clock.now_millis())? {
            let sent = self.sink.send(&native.key, native.event.to_string().as_bytes()).await;
            sent.map_err(|reason| {
                tracing::error!(reason, "a security event cannot be sent to its topic");
                Refusal::Unavailable("the brokers have not acknowledged the event")
            })?;
        }
        Ok(())
    }

    /// Checks the bearer token of the transmitter.
    fn authenticate(&self, headers: &HeaderMap) -> Result<(), Rejected> {
        let Some(wanted) = &self.settings.token else { return Ok(()) };
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let value = values.next().and_then(|value| value.to_str().ok()).and_then(|value| value.split_once(' '));
        let token =
            value.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map_or("", |(_, token)| token.trim());
        if values.next().is_none() && bool::from(token.as_bytes().ct_eq(wanted.expose_secret().as_bytes())) {
            return Ok(());
        }
        Err(Rejected(Code::AuthenticationFailed, "the bearer token is missing or wrong"))
    }
}

#[cfg(test)]
mod tests;
