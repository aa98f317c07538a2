//! The signed header with which the operator's account page names the user.
//!
//! The signature is that of Standard Webhooks 1.0 (<https://www.standardwebhooks.com>): HMAC-SHA-256 of
//! `ID.TIMESTAMP.CONTENT`. The content is `METHOD PATH SUBJECT`, so that a header serves one request only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, Method};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sha2::Sha256;

use super::caller::{Caller, Denied, Via};
use crate::lock::unpoisoned;
use crate::millis::{MINUTE_MS, SECOND_MS};
use crate::port::Clock;

/// Maximum age of a signature, and maximum difference of a clock that is ahead.
const TOLERANCE_MS: i64 = 5 * MINUTE_MS;
/// Maximum length of the id of a signature, bytes.
const ID_BYTES_MAX: usize = 128;
/// Maximum number of ids that are kept until their signatures are too old.
const IDS_MAX: usize = 200_000;

/// The tenant and user, in base64url without padding.
const SUBJECT: &str = "tokenwarden-subject";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedUser {
    /// Required, so that a page that does not send it names no user of events without a tenant. Those have an empty one.
    tenant: String,
    user: String,
}

/// Verifies signed headers, each once.
pub(super) struct SignedHeaders {
    secret: SecretString,
    clock: Arc<dyn Clock>,
    /// Start of the process, milliseconds since the epoch, without the part of a second. The ids of earlier signatures
    /// are not known.
    started_at: i64,
    /// Ids of the signatures that were used, and the time from which each is too old, milliseconds since the epoch.
    used: Mutex<HashMap<String, i64>>,
}

impl SignedHeaders {
    pub(super) fn new(secret: SecretString, clock: Arc<dyn Clock>) -> Self {
        let now = clock.now_millis();
        Self { secret, clock, started_at: now - now.rem_euclid(SECOND_MS), used: Mutex::default() }
    }

    /// The user that the headers of this request name.
    pub(super) fn caller(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Caller, Denied> {
        let one = |name: &str| {
            let mut values = headers.get_all(name).iter();
            match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
                (Some(value), None) => Ok(value),
                _ => Err(Denied::credential(format!("the request needs one header {name}"))),
            }
        };
        let (id, timestamp) = (one("webhook-id")?, one("webhook-timestamp")?);
        let (signatures, subject) = (one("webhook-signature")?, one(SUBJECT)?);
        let is_id = !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(|byte| byte.is_ascii_graphic());
        let at = timestamp.parse::<i64>().ok().and_then(|seconds| seconds.checked_mul(SECOND_MS));
        let (true, Some(at)) = (is_id, at) else {
            return Err(Denied::credential("webhook-id or webhook-timestamp is malformed"));
        };
        let content = format!("{id}.{timestamp}.{method} {path} {subject}");
        if !signatures.split(' ').any(|signature| self.is_signature(signature, &content)) {
            return Err(Denied::credential("webhook-signature does not match"));
        }
        let now = self.clock.now_millis();
        if now.saturating_sub(at).saturating_abs() > TOLERANCE_MS {
            return Err(Denied::credential("webhook-timestamp is more than 5 minutes from now"));
        }
        if at < self.started_at {
            return Err(Denied::credential("webhook-timestamp is before the start of the service"));
        }
        self.use_once(id, at + TOLERANCE_MS + SECOND_MS, now)?;
        let decoded = URL_SAFE_NO_PAD.decode(subject).ok();
        let subject: Option<SignedUser> = decoded.and_then(|json| serde_json::from_slice(&json).ok());
        subject
            .and_then(|subject| Caller::new(subject.tenant, subject.user, Via::AccountPage))
            .ok_or_else(|| Denied::credential(format!("{SUBJECT} is not base64url of {{\"tenant\":…,\"user\":…}}")))
    }

    fn is_signature(&self, signature: &str, content: &str) -> bool {
        let given = signature.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
        let key = Hmac::<Sha256>::new_from_slice(self.secret.expose_secret().as_bytes());
        let (Some(given), Ok(mut mac)) = (given, key) else { return false };
        mac.update(content.as_bytes());
        mac.verify_slice(&given).is_ok()
    }

    /// Refuses an id that was used before.
    fn use_once(&self, id: &str, until: i64, now: i64) -> Result<(), Denied> {
        let mut used = unpoisoned(&self.used);
        if used.len() >= IDS_MAX {
            used.retain(|_, until| *until > now);
        }
        if used.len() >= IDS_MAX {
            return Err(Denied::Unavailable("too many signed headers were used within 5 minutes"));
        }
        if used.get(id).is_some_and(|until| *until > now) {
            return Err(Denied::credential("webhook-id was used before; each request needs its own"));
        }
        used.insert(id.to_owned(), until);
        Ok(())
    }
}
