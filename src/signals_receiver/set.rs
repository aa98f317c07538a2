//! Security Event Tokens (RFC 8417): their checks, and their events as token events.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::settings::SignalsReceiverSettings;
use super::subject::Subject;
use crate::event::{Kind, key_of_subject};
use crate::jose::Signed;
use crate::millis::{HOUR_MS, MINUTE_MS};
use crate::number::hex;

const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const CREDENTIAL_CHANGE: &str = "https://schemas.openid.net/secevent/caep/event-type/credential-change";
/// `typ` of a Security Event Token, RFC 8417 section 2.3.
const TYP: &str = "secevent+jwt";
/// Accepted difference of clocks.
const LEEWAY_MS: i64 = 5 * MINUTE_MS;
/// Maximum number of events of a token. The Shared Signals Framework sends one.
const EVENTS_MAX: usize = 8;

/// Error codes of RFC 8935 section 2.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    InvalidRequest,
    InvalidKey,
    InvalidIssuer,
    InvalidAudience,
    AuthenticationFailed,
}

impl Code {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidKey => "invalid_key",
            Self::InvalidIssuer => "invalid_issuer",
            Self::InvalidAudience => "invalid_audience",
            Self::AuthenticationFailed => "authentication_failed",
        }
    }
}

/// Why a token is rejected. Contains no value of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rejected(pub(super) Code, pub(super) &'static str);

/// A token event for Kafka.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Native {
    /// The subject key.
    pub(super) key: String,
    pub(super) event: Value,
}

/// The token events of a verified token. Events of other types, such as a verification, have none.
pub(super) fn events(signed: &Signed, settings: &SignalsReceiverSettings, now: i64) -> Result<Vec<Native>, Rejected> {
    let kind = signed.kind.to_ascii_lowercase();
    if kind.strip_prefix("application/").unwrap_or(&kind) != TYP {
        return Err(Rejected(Code::InvalidRequest, "the token has another type (typ) than secevent+jwt"));
    }
    if signed.text("iss") != Some(settings.issuer.as_str()) {
        return Err(Rejected(Code::InvalidIssuer, "the token has another issuer (iss)"));
    }
    if !signed.is_for(&settings.audience) {
        return Err(Rejected(Code::InvalidAudience, "the token is for another audience (aud)"));
    }
    let issued = signed.time("iat").ok_or(Rejected(Code::InvalidRequest, "the token has no time of issue (iat)"))?;
    let age = now.saturating_sub(issued);
    if !(-LEEWAY_MS..=i64::from(settings.max_age_hours) * HOUR_MS + LEEWAY_MS).contains(&age) {
        return Err(Rejected(
            Code::InvalidRequest,
            "the token is too old, or its time of issue (iat) is in the future",
        ));
    }
    // Not recommended in a Security Event Token (RFC 8417 section 2.2.4).
    let has_expired = |expiry: i64| expiry.saturating_add(LEEWAY_MS) <= now;
    if signed.claims.contains_key("exp") && signed.time("exp").is_none_or(has_expired) {
        return Err(Rejected(Code::InvalidRequest, "the token has expired (exp)"));
    }
    let id = signed.text("jti").ok_or(Rejected(Code::InvalidRequest, "the token has no id (jti)"))?;
    let events = signed.claims.get("events").and_then(Value::as_object);
    let events = events.filter(|events| !events.is_empty() && events.len() <= EVENTS_MAX);
    let events = events.ok_or(Rejected(Code::InvalidRequest, "the token has no events, or too many"))?;
    let context = Context { signed, settings, issued, id: &event_id(&settings.issuer, id) };
    let mut found = Vec::new();
    for (number, (kind, event)) in events.iter().enumerate() {
        found.extend(context.native(kind, event, number)?);
    }
    Ok(found)
}

/// Id of the events of a token. The same token has the same id, so that a repetition is recognised.
fn event_id(issuer: &str, id: &str) -> String {
    let digest = Sha256::digest(format!("{} {issuer} {id}", issuer.len()));
    format!("ssf-{}", hex(&digest[..16]))
}

struct Context<'a> {
    signed: &'a Signed,
    settings: &'a SignalsReceiverSettings,
    issued: i64,
    id: &'a str,
}

impl Context<'_> {
    fn native(&self, kind: &str, event: &Value, number: usize) -> Result<Option<Native>, Rejected> {
        let kind = match kind {
            SESSION_REVOKED => Kind::SessionEnded,
            CREDENTIAL_CHANGE => Kind::CredentialChanged,
            _ => return Ok(None),
        };
        // `subject` is the name before CAEP 1.0.
        let identifier = self.signed.claims.get("sub_id").or_else(|| event.get("subject"));
        let subject = identifier.map(|identifier| Subject::of(identifier, self.settings)).unwrap_or_default();
        let Some(user) = subject.user else {
            let problem = "the subject has no user that events can have; see signals_receiver.user";
            return Err(Rejected(Code::InvalidRequest, problem));
        };
        let id = format!("{}-{number}", self.id);
        let mut native = Map::new();
        native.insert("event_id".to_owned(), id.clone().into());
        native.insert("timestamp".to_owned(), self.happened(event).into());
        native.insert("kind".to_owned(), kind.as_str().into());
        native.insert("user_id".to_owned(), user.clone().into());
        let tenant = &self.settings.tenant;
        if !tenant.is_empty() {
            native.insert("tenant_id".to_owned(), tenant.clone().into());
        }
        let session = subject.session.filter(|_| kind == Kind::SessionEnded);
        native.insert("token_id".to_owned(), session.clone().unwrap_or(id).into());
        if let Some(session) = session {
            native.insert("session_id".to_owned(), session.into());
        } else if kind == Kind::SessionEnded {
            native.insert("concerns".to_owned(), "user".into());
        }
        native.insert("attrs".to_owned(), json!({ "received_as": "shared_signals" }));
        let key = key_of_subject(Some(tenant.as_str()).filter(|tenant| !tenant.is_empty()), &user);
        Ok(Some(Native { key, event: native.into() }))
    }

    /// When the event happened, milliseconds since the epoch: by the event, else the token, unless that is implausible.
    fn happened(&self, event: &Value) -> i64 {
        let stated = event.get("event_timestamp").and_then(Value::as_f64).map(|seconds| (seconds * 1_000.0) as i64);
        let stated = stated.or_else(|| self.signed.time("toe"));
        let earliest = self.issued - i64::from(self.settings.max_age_hours) * HOUR_MS;
        // Compared with the time of issue, not with the clock, so that a repeated token has the same time.
        let is_plausible = |at: &i64| (earliest..=self.issued + LEEWAY_MS).contains(at);
        stated.filter(is_plausible).unwrap_or(self.issued)
    }
}
