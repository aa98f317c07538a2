//! Alerts by webhook: signed as in Standard Webhooks 1.0, with an OCSF Detection Finding (class 2004) as body.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Client, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sha2::Sha256;

use super::ocsf;
use crate::millis::HOUR_MS;
use crate::outgoing;
use crate::port::{Accepted, Alert, Clock, DeliveryError, Notifier};
use crate::sanitize;

/// `[alert.webhook]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    pub url: String,
    /// `whsec_` and base64, or any text of at least 16 bytes. Several are separated by spaces, for rotation.
    pub secret: SecretString,
    /// Allows a receiver with a private address.
    #[serde(default)]
    pub allow_private: bool,
    /// Certificate authorities that are trusted in addition to those of the system, PEM.
    pub ca_file: Option<PathBuf>,
}

/// A URL that receives signed requests.
pub(super) struct Endpoint {
    client: Client,
    url: Url,
    keys: Vec<Hmac<Sha256>>,
}

impl Endpoint {
    /// The error is the key in its section and the problem; it contains no secret.
    pub(super) fn new(settings: &WebhookSettings) -> Result<Self, (&'static str, String)> {
        let url = Url::parse(&settings.url).map_err(|error| ("url", format!("is not a URL: {error}")))?;
        outgoing::check_url(&url, settings.allow_private).map_err(|problem| ("url", problem))?;
        let client = outgoing::client(&url, settings.allow_private, settings.ca_file.as_deref())
            .map_err(|problem| ("ca_file", problem))?;
        let keys = keys(settings.secret.expose_secret()).map_err(|problem| ("secret", problem.to_owned()))?;
        Ok(Self { client, url, keys })
    }

    /// Sends `body`, JSON, with the id `key` at `now`, milliseconds since the epoch. Returns the status.
    pub(super) async fn post(&self, key: &str, body: String, now: i64) -> Result<u16, DeliveryError> {
        let seconds = now / 1000;
        let request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", key)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature(&self.keys, key, seconds, &body))
            .body(body);
        let answer = request.send().await.map_err(|error| DeliveryError::Retriable {
            reason: outgoing::reason(&error),
            status: 0,
            retry_after: None,
        })?;
        outcome(answer.status().as_u16(), outgoing::retry_after(answer.headers(), now))
    }
}

/// Sends alerts to one URL.
pub struct Webhook {
    name: String,
    endpoint: Endpoint,
    clock: Arc<dyn Clock>,
    /// Nothing is sent before this time, because the receiver answered 410. Milliseconds since the epoch, wall clock.
    gone_until: AtomicI64,
}

impl Webhook {
    /// The error is the key in its section and the problem; it contains no secret.
    pub fn new(name: &str, settings: &WebhookSettings, clock: Arc<dyn Clock>) -> Result<Self, (&'static str, String)> {
        let endpoint = Endpoint::new(settings)?;
        Ok(Self { name: name.to_owned(), endpoint, clock, gone_until: AtomicI64::new(0) })
    }
}

#[async_trait]
impl Notifier for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    /// Without the path, which contains a secret in many webhook URLs.
    fn target(&self) -> String {
        self.endpoint.url[..url::Position::BeforePath].to_owned()
    }

    async fn notify(&self, alert: Alert<'_>, key: &str) -> Result<Accepted, DeliveryError> {
        let now = self.clock.now_millis();
        if now < self.gone_until.load(Ordering::Relaxed) {
            return Err(DeliveryError::Permanent { reason: GONE.to_owned(), status: 410 });
        }
        let body = sanitize::json(&ocsf::finding(alert, key).to_string());
        let result = self.endpoint.post(key, body, now).await;
        if matches!(result, Err(DeliveryError::Permanent { status: 410, .. })) {
            self.gone_until.store(now + GONE_MS, Ordering::Relaxed);
        }
        result.map(Accepted::with)
    }

    /// Sends no request, because a receiver would treat any request as an alert.
    async fn probe(&self) -> Result<(), DeliveryError> {
        Ok(())
    }
}

/// Time without requests after an answer 410: slightly less than the day after which a rejected alert is sent again.
const GONE_MS: i64 = 23 * HOUR_MS;
const GONE: &str = "the webhook answered 410 (gone)";

/// Meaning of an HTTP status. Errors that the receiver may repair, such as a wrong path or key, are retried. Errors in the
/// message are permanent.
fn outcome(status: u16, retry_after: Option<Duration>) -> Result<u16, DeliveryError> {
    let permanent = |reason: String| Err(DeliveryError::Permanent { reason, status });
    match status {
        200..=299 => Ok(status),
        300..=399 => permanent(format!("the webhook answered {status}; redirects are not followed")),
        410 => permanent(GONE.to_owned()),
        400 | 413 | 415 | 422 => permanent(format!("the webhook answered {status}")),
        _ => Err(DeliveryError::Retriable { reason: format!("the webhook answered {status}"), status, retry_after }),
    }
}

/// The signing keys in `secret`, the current one first.
fn keys(secret: &str) -> Result<Vec<Hmac<Sha256>>, &'static str> {
    let mut keys = Vec::new();
    for secret in secret.split_whitespace() {
        let bytes = match secret.strip_prefix("whsec_") {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| "is not base64 after `whsec_`")?,
            None => secret.as_bytes().to_vec(),
        };
        if bytes.len() < 16 {
            return Err("is shorter than 16 bytes");
        }
        keys.push(Hmac::<Sha256>::new_from_slice(&bytes).map_err(|_| "is not a valid key")?);
    }
    if keys.is_empty() { Err("is empty") } else { Ok(keys) }
}

/// One signature `v1,…` per key, separated by spaces.
fn signature(keys: &[Hmac<Sha256>], id: &str, seconds: i64, body: &str) -> String {
    let sign = |key: &Hmac<Sha256>| {
        let mut mac = key.clone();
        mac.update(format!("{id}.{seconds}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    keys.iter().map(sign).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the specification of Standard Webhooks 1.0. In two parts, so that scanners do not report it as a secret.
    const EXAMPLE_KEY: [&str; 2] = ["MfKQ9r8GKYqrTwj", "UPD8ILPZIo2LaLaSw"];

    #[test]
    fn signature_equals_that_of_the_specification() {
        let secret = format!("whsec_{}", EXAMPLE_KEY.concat());
        let sign = |secret: &str| {
            let keys = keys(secret).expect("keys");
            signature(&keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#)
        };
        let published = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(&secret), published);
        let rotated = sign(&format!("{secret} another-secret-of-24-bytes\n"));
        let (first, second) = rotated.split_once(' ').expect("two signatures");
        assert_eq!(first, published);
        assert!(second.starts_with("v1,") && second != published);
    }

    #[test]
    fn bad_secrets_are_rejected() {
        assert!(keys("whsec_%%%").is_err());
        assert!(keys("short").is_err());
        assert!(keys("  ").is_err());
    }

    #[test]
    fn outcome_depends_on_the_status() {
        let meaning = |status| match outcome(status, Some(Duration::from_secs(3))) {
            Ok(_) => "done",
            Err(DeliveryError::Retriable { retry_after: Some(_), .. }) => "retry",
            Err(_) => "permanent",
        };
        let outcomes = [200, 204, 301, 308, 400, 401, 404, 410, 413, 422, 429, 500, 503].map(meaning);
        let expected = [
            "done",
            "done",
            "permanent",
            "permanent",
            "permanent",
            "retry",
            "retry",
            "permanent",
            "permanent",
            "permanent",
            "retry",
            "retry",
            "retry",
        ];
        assert_eq!(outcomes, expected);
    }
}
