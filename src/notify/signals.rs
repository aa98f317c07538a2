//! Alerts as Shared Signals: Security Event Tokens (RFC 8417), pushed to one receiver (RFC 8935). Events are those of CAEP
//! 1.0 (<https://openid.net/specs/openid-caep-1_0-final.html>): `session-revoked` and `risk-level-change`. A notice is a
//! verification event of the Shared Signals Framework 1.0.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_128;

use super::settings::{ChannelSettings, required};
use super::words::plain;
use crate::jose::SigningKey;
use crate::lock::unpoisoned;
use crate::outgoing;
use crate::port::{Accepted, Alert, Asked, Clock, DeliveryError, Notifier, Progress, Radius, Revocation};
use crate::verdict::{Incident, Severity, Target, Victim};

const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const RISK_LEVEL_CHANGE: &str = "https://schemas.openid.net/secevent/caep/event-type/risk-level-change";
const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";
/// Media type and `typ` of a Security Event Token, RFC 8417 section 2.3.
const MEDIA_TYPE: &str = "application/secevent+jwt";
const TYP: &str = "secevent+jwt";
/// Status of an accepted token, RFC 8935 section 2.2.
const ACCEPTED: u16 = 202;
/// Error codes of a receiver, RFC 8935 section 2.4.
const ERRORS: [&str; 6] =
    ["invalid_request", "invalid_key", "invalid_issuer", "invalid_audience", "authentication_failed", "access_denied"];
/// Maximum number of bytes that are read of an answer.
const BODY_BYTES_MAX: usize = 16 << 10;
/// Maximum number of accepted tokens that are not sent again with a later change of their incident.
const SENT_MAX: usize = 10_000;
const VALUES: [&str; 4] = ["issuer", "audience", "key_id", "subject_issuer"];

/// Pushes Security Event Tokens to one receiver.
pub(super) struct Signals {
    name: String,
    client: Client,
    url: Url,
    token: Option<SecretString>,
    key: SigningKey,
    key_id: String,
    issuer: String,
    audience: String,
    /// Issuer of the user ids of events.
    subject_issuer: String,
    clock: Arc<dyn Clock>,
    sent: Mutex<Sent>,
}

/// Ids of accepted tokens, in order.
#[derive(Default)]
struct Sent {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

/// A token before it is signed.
struct Event {
    id: String,
    subject: Value,
    kind: &'static str,
    claims: Value,
    /// Id of the incident.
    transaction: Option<String>,
}

impl Signals {
    /// The error is the key in the section and the problem; it contains no secret.
    pub(super) fn new(
        name: &str,
        settings: &ChannelSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, (&'static str, String)> {
        let url = Url::parse(required("url", settings.url.as_ref())?);
        let url = url.map_err(|error| ("url", format!("is not a URL: {error}")))?;
        let allow_private = settings.allow_private.unwrap_or_default();
        outgoing::check_url(&url, allow_private).map_err(|problem| ("url", problem))?;
        let client = outgoing::client(&url, allow_private, settings.ca_file.as_deref());
        let client = client.map_err(|problem| ("ca_file", problem))?;
        let pem = required("private_key", settings.private_key.as_ref())?;
        let key = SigningKey::parse(pem.expose_secret()).ok_or_else(|| {
            let problem = "is not a private key in PEM format: RSA of at least 2048 bits, P-256 or Ed25519";
            ("private_key", problem.to_owned())
        })?;
        if let Some(unknown) = settings.values.keys().find(|key| !VALUES.contains(&key.as_str())) {
            let known = VALUES.join(", ");
            return Err(("values", format!("has `{unknown}`, which shared_signals does not use; known are {known}")));
        }
        let value = |name: &str| {
            let value = settings.values.get(name).filter(|value| !value.is_empty());
            value.cloned().ok_or_else(|| ("values", format!("has no `{name}`")))
        };
        let (issuer, audience, key_id) = (value("issuer")?, value("audience")?, value("key_id")?);
        let subject_issuer = value("subject_issuer").unwrap_or_else(|_| issuer.clone());
        Ok(Self {
            name: name.to_owned(),
            client,
            url,
            token: settings.token.clone(),
            key,
            key_id,
            issuer,
            audience,
            subject_issuer,
            clock,
            sent: Mutex::default(),
        })
    }

    /// The tokens for `alert`, in the order of sending.
    fn events(&self, alert: Alert<'_>, key: &str) -> Vec<Event> {
        match alert {
            Alert::Incident { incident, progress } => self.of_incident(incident, progress, key),
            // A verification event has no subject besides the stream.
            Alert::Notice(_) => vec![Event {
                id: key.to_owned(),
                subject: json!({ "format": "opaque", "id": self.audience }),
                kind: VERIFICATION,
                claims: json!({ "state": key }),
                transaction: None,
            }],
        }
    }

    fn of_incident(&self, incident: &Incident, progress: &Progress, key: &str) -> Vec<Event> {
        let own = Victim {
            token_id: incident.token_id.clone(),
            family_id: incident.family_id.clone(),
            user_id: incident.user_id.clone(),
            app_id: incident.app_id.clone(),
        };
        let transaction = Some(incident.id.to_string());
        let risk = Event {
            id: key.to_owned(),
            subject: self.subject(incident, &own, Radius::Grant),
            kind: RISK_LEVEL_CHANGE,
            claims: json!({
                "principal": if own.user_id.is_empty() { "SESSION" } else { "USER" },
                "current_level": level(incident.severity),
                "risk_reason": plain(&incident.reason),
                "event_timestamp": incident.updated_at.millis() / 1_000,
                "initiating_entity": "policy",
            }),
            transaction: transaction.clone(),
        };
        // A receiver ends sessions before it processes the level of risk.
        let mut events = Vec::new();
        let asked = incident.revoke.clone().map(|target| Asked {
            target,
            revocation: progress.revocation.clone(),
            confirmation: progress.confirmation,
        });
        let is_own = |other: &&Asked| incident.revoke.as_ref() != Some(&other.target);
        for asked in asked.iter().chain(progress.outcomes.iter().filter(is_own)) {
            let (Revocation::Done | Revocation::AlreadyGone, Some(confirmation)) =
                (&asked.revocation, asked.confirmation)
            else {
                continue;
            };
            let victims =
                std::iter::once(&own).chain(incident.victims.iter().map(|victim| &**victim)).chain(&progress.joined);
            let victim = victims.into_iter().find(|victim| is_of(victim, &asked.target));
            // A victim that the incident no longer lists is named by its target.
            let victim = victim.cloned().unwrap_or_else(|| victim_of(&asked.target));
            let radius = Radius::of(confirmation.radius, &asked.target);
            // Depends on what was revoked and when: a later change of the incident has the same id.
            let what = format!("{} {} {}", asked.target.kind(), asked.target.id(), confirmation.revoked_at);
            events.push(Event {
                id: format!("{}-revoked-{:032x}", incident.id, xxh3_128(what.as_bytes())),
                subject: self.subject(incident, &victim, radius),
                kind: SESSION_REVOKED,
                claims: json!({
                    "event_timestamp": confirmation.revoked_at / 1_000,
                    "initiating_entity": "policy",
                    "reason_admin": { "en": plain(&incident.reason) },
                }),
                transaction: transaction.clone(),
            });
        }
        events.push(risk);
        events
    }

    /// A complex subject (Shared Signals Framework 1.0 section 3.2). Without a session, all sessions of the user are meant.
    fn subject(&self, incident: &Incident, victim: &Victim, radius: Radius) -> Value {
        let mut subject = json!({ "format": "complex" });
        if !victim.user_id.is_empty() {
            subject["user"] = json!({ "format": "iss_sub", "iss": self.subject_issuer, "sub": victim.user_id });
        }
        let session = if victim.family_id.is_empty() { &victim.token_id } else { &victim.family_id };
        if radius < Radius::User || victim.user_id.is_empty() {
            subject["session"] = json!({ "format": "opaque", "id": session });
        }
        if !incident.tenant_id.is_empty() {
            subject["tenant"] = json!({ "format": "opaque", "id": incident.tenant_id });
        }
        subject
    }

    fn token(&self, event: &Event) -> Result<String, DeliveryError> {
        let header = json!({ "typ": TYP, "kid": self.key_id });
        let header = header.as_object().cloned().unwrap_or_default();
        let mut claims = json!({
            "iss": self.issuer,
            "aud": self.audience,
            "jti": event.id,
            "iat": self.clock.now_millis() / 1_000,
            "sub_id": event.subject,
            "events": Map::from_iter([(event.kind.to_owned(), event.claims.clone())]),
        });
        if let Some(transaction) = &event.transaction {
            claims["txn"] = json!(transaction);
        }
        let unsigned = |_| DeliveryError::Permanent { reason: "the token cannot be signed".to_owned(), status: 0 };
        self.key.sign(header, &claims).map_err(unsigned)
    }

    async fn push(&self, event: &Event) -> Result<(), DeliveryError> {
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, MEDIA_TYPE);
        request = request.header(ACCEPT, "application/json").body(self.token(event)?);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        let unsent = |error: reqwest::Error| DeliveryError::Retriable {
            reason: outgoing::reason(&error),
            status: 0,
            retry_after: None,
        };
        let mut answer = request.send().await.map_err(unsent)?;
        let (status, now) = (answer.status().as_u16(), self.clock.now_millis());
        let retry_after = outgoing::retry_after(answer.headers(), now);
        if status == ACCEPTED {
            return Ok(());
        }
        let body = outgoing::body(&mut answer, BODY_BYTES_MAX).await.unwrap_or_default();
        let code = error_code(&body).map_or_else(String::new, |code| format!(" ({code})"));
        let reason = format!("the receiver answered {status}{code}");
        match status {
            200..=399 | 400 | 410 | 413 | 415 | 422 => Err(DeliveryError::Permanent { reason, status }),
            _ => Err(DeliveryError::Retriable { reason, status, retry_after }),
        }
    }

    /// Records an accepted token.
    fn accepted(&self, id: String) {
        let mut sent = unpoisoned(&self.sent);
        if sent.ids.insert(id.clone()) {
            sent.order.push_back(id);
        }
        if sent.order.len() > SENT_MAX
            && let Some(oldest) = sent.order.pop_front()
        {
            sent.ids.remove(&oldest);
        }
    }
}

/// The code of an error body, RFC 8935 section 2.3. Codes of a receiver's own are not repeated.
fn error_code(body: &[u8]) -> Option<&'static str> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let code = body.get("err")?.as_str()?;
    ERRORS.into_iter().find(|known| *known == code)
}

/// A level of CAEP 1.0 section 3.8.
const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Info | Severity::Low => "LOW",
        Severity::Medium => "MEDIUM",
        Severity::High | Severity::Critical => "HIGH",
    }
}

fn is_of(victim: &Victim, target: &Target) -> bool {
    match target {
        Target::Token(id) => victim.token_id == *id,
        Target::Family(id) => victim.family_id == *id,
    }
}

fn victim_of(target: &Target) -> Victim {
    match target {
        Target::Token(id) => Victim { token_id: id.clone(), ..Victim::default() },
        Target::Family(id) => Victim { family_id: id.clone(), ..Victim::default() },
    }
}

#[async_trait]
impl Notifier for Signals {
    fn name(&self) -> &str {
        &self.name
    }

    /// Without the path, which may contain a secret.
    fn target(&self) -> String {
        self.url[..url::Position::BeforePath].to_owned()
    }

    /// Pushes every event, whatever the receiver answers to the others. The error is the first that can be retried, else
    /// the first.
    async fn notify(&self, alert: Alert<'_>, key: &str) -> Result<Accepted, DeliveryError> {
        let mut failed = None;
        for event in self.events(alert, key) {
            let is_sent = unpoisoned(&self.sent).ids.contains(&event.id);
            if is_sent {
                continue;
            }
            let Err(error) = self.push(&event).await else {
                self.accepted(event.id);
                continue;
            };
            let can_retry = |error: &DeliveryError| matches!(error, DeliveryError::Retriable { .. });
            if failed.as_ref().is_none_or(|first| !can_retry(first) && can_retry(&error)) {
                failed = Some(error);
            }
        }
        failed.map_or_else(|| Ok(Accepted::with(ACCEPTED)), Err)
    }

    /// Sends no request, because a receiver would process any token.
    async fn probe(&self) -> Result<(), DeliveryError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
