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
use serde_json::{Value, json};
use sha2::Sha256;

use super::{summary, words};
use crate::millis::HOUR_MS;
use crate::outgoing;
use crate::port::{Alert, Asked, Clock, DeliveryError, Notice, Notifier, Progress, Revocation};
use crate::sanitize;
use crate::verdict::{Incident, Severity};

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

/// Sends alerts to one URL.
pub struct Webhook {
    client: Client,
    url: Url,
    keys: Vec<Hmac<Sha256>>,
    clock: Arc<dyn Clock>,
    /// Nothing is sent before this time, because the receiver answered 410. Milliseconds since the epoch, wall clock.
    gone_until: AtomicI64,
}

impl Webhook {
    /// The error is the key in `[alert.webhook]` and the problem; it contains no secret.
    pub fn new(settings: &WebhookSettings, clock: Arc<dyn Clock>) -> Result<Self, (&'static str, String)> {
        let url = Url::parse(&settings.url).map_err(|error| ("url", format!("is not a URL: {error}")))?;
        outgoing::check_url(&url, settings.allow_private).map_err(|problem| ("url", problem))?;
        let client = outgoing::client(&url, settings.allow_private, settings.ca_file.as_deref())
            .map_err(|problem| ("ca_file", problem))?;
        let keys = keys(settings.secret.expose_secret()).map_err(|problem| ("secret", problem.to_owned()))?;
        Ok(Self { client, url, keys, clock, gone_until: AtomicI64::new(0) })
    }
}

#[async_trait]
impl Notifier for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    /// Without the path, which contains a secret in many webhook URLs.
    fn target(&self) -> String {
        self.url[..url::Position::BeforePath].to_owned()
    }

    async fn notify(&self, alert: Alert<'_>, key: &str) -> Result<u16, DeliveryError> {
        let now = self.clock.now_millis();
        if now < self.gone_until.load(Ordering::Relaxed) {
            return Err(DeliveryError::Permanent { reason: GONE.to_owned(), status: 410 });
        }
        let seconds = now / 1000;
        let body = sanitize::json(&body(alert, key).to_string());
        let sent = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", key)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature(&self.keys, key, seconds, &body))
            .body(body)
            .send()
            .await;
        let answer = sent.map_err(|error| DeliveryError::Retriable {
            reason: outgoing::reason(&error),
            status: 0,
            retry_after: None,
        })?;
        let status = answer.status().as_u16();
        let result = outcome(status, outgoing::retry_after(answer.headers(), now));
        if status == 410 {
            self.gone_until.store(now + GONE_MS, Ordering::Relaxed);
        }
        result
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

fn body(alert: Alert<'_>, key: &str) -> Value {
    match alert {
        Alert::Incident { incident, progress } => of_incident(incident, progress, key),
        Alert::Notice(notice) => of_notice(notice, key),
    }
}

/// Victims and outcomes that a body lists. The others are counted.
const LISTED_MAX: usize = 100;

fn of_incident(incident: &Incident, progress: &Progress, key: &str) -> Value {
    let created = incident.opened_at == incident.updated_at;
    let (activity, activity_name) = if created { (1, "Create") } else { (2, "Update") };
    let mut finding = finding(key, activity, activity_name, severity(incident.severity), incident.updated_at.millis());
    finding["status_id"] = json!(1);
    finding["status"] = json!("New");
    let summary = format!("{}: {}", summary::account(incident, usize::MAX), summary::what(incident, usize::MAX));
    finding["message"] = json!(summary);
    finding["finding_info"] = json!({
        "uid": incident.id.to_string(),
        "title": summary,
        "desc": words::answer(incident, &progress.revocation),
        "created_time": incident.opened_at.millis(),
        "modified_time": incident.updated_at.millis(),
        "types": incident.signals.iter().filter(|signal| signal.fired).map(|s| s.rule.as_str()).collect::<Vec<_>>(),
        "related_events": [{ "uid": incident.event_id }],
    });
    // OCSF observable types: 10 is a resource UID, 4 a user name.
    let observables = [
        ("token.uid", 10, &incident.token_id),
        ("token.family.uid", 10, &incident.family_id),
        ("app.uid", 10, &incident.app_id),
        ("user.name", 4, &incident.user_id),
    ];
    finding["observables"] = observables
        .iter()
        .filter(|(_, _, value)| !value.is_empty())
        .map(|(name, kind, value)| json!({ "name": name, "type_id": kind, "value": value }))
        .collect();
    finding["metadata"]["tenant_uid"] = json!(incident.tenant_id);
    finding["incident"] = json!({
        "incident_id": incident.id.to_string(),
        "severity": incident.severity,
        "verdict": incident.verdict,
        "tenant_id": incident.tenant_id,
        "user_id": incident.user_id,
        "app_id": incident.app_id,
        "family_id": incident.family_id,
        "token_id": incident.token_id,
        "event_id": incident.event_id,
        "log_odds": incident.log_odds,
        "reason": incident.reason,
        "reasons": reasons(incident),
        "signals": incident.signals,
        "action": incident.action,
        "mode": incident.mode,
        "target": incident.revoke.as_ref().map(|target| json!({ "kind": target.kind(), "id": target.id() })),
        "revocation": revocation_word(&progress.revocation),
        "campaign_id": incident.campaign_id.to_string(),
        "victims": incident.victims.iter().take(LISTED_MAX).collect::<Vec<_>>(),
        "victims_total": incident.victims_total,
        "victims_new": progress.joined,
        "revocations": progress.outcomes.iter().take(LISTED_MAX).map(of_outcome).collect::<Vec<_>>(),
        "revocations_total": progress.outcomes_total,
        "revocations_done": progress.revoked,
        "revocations_not_done": progress.not_revoked,
    });
    finding
}

/// One line per reason, as in the terminal: its share of the log-odds, and the reason.
fn reasons(incident: &Incident) -> Vec<String> {
    let (signals, _) = summary::reasons(incident, usize::MAX);
    signals.iter().map(|signal| format!("{} {}", summary::share(signal), words::plain(&signal.reason))).collect()
}

fn of_outcome(asked: &Asked) -> Value {
    let reason = match &asked.revocation {
        Revocation::Failed(reason) | Revocation::Waiting(reason) => reason.as_str(),
        _ => "",
    };
    let (kind, id) = (asked.target.kind(), asked.target.id());
    json!({ "kind": kind, "id": id, "revocation": revocation_word(&asked.revocation), "reason": reason })
}

fn of_notice(notice: &Notice, key: &str) -> Value {
    let mut finding = finding(key, 99, "Notice", (4, "High"), notice.at);
    finding["message"] = json!(notice.title);
    finding["finding_info"] = json!({
        "uid": key,
        "title": notice.title,
        "desc": notice.text,
        "created_time": notice.at,
    });
    finding
}

/// The fields that all findings have.
fn finding(key: &str, activity: u32, name: &str, (severity_id, severity): (u32, &str), at: i64) -> Value {
    json!({
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "category_uid": 2,
        "category_name": "Findings",
        "activity_id": activity,
        "activity_name": name,
        "type_uid": 200_400 + activity,
        "time": at,
        "severity_id": severity_id,
        "severity": severity,
        "metadata": {
            "version": "1.4.0",
            "uid": key,
            "product": { "name": "tokenwarden", "version": env!("CARGO_PKG_VERSION") },
        },
    })
}

const fn severity(severity: Severity) -> (u32, &'static str) {
    match severity {
        Severity::Info => (1, "Informational"),
        Severity::Low => (2, "Low"),
        Severity::Medium => (3, "Medium"),
        Severity::High => (4, "High"),
        Severity::Critical => (5, "Critical"),
    }
}

const fn revocation_word(revocation: &Revocation) -> &'static str {
    match revocation {
        Revocation::NotAsked => "none",
        Revocation::Shadow => "shadow",
        Revocation::Proposed => "proposed",
        Revocation::Waiting(_) => "waiting",
        Revocation::Done => "done",
        Revocation::AlreadyGone => "already_gone",
        Revocation::Capped(_) => "capped",
        Revocation::Paused => "paused",
        Revocation::Failed(_) => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::incident;
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

    #[test]
    fn body_contains_no_unsafe_character() {
        let mut incident = incident();
        let signal = &mut incident.signals[0].reason;
        for text in [&mut incident.subject, &mut incident.user_id, &mut incident.token_id, &mut incident.reason, signal]
        {
            text.push_str("\u{1b}[2J\u{202e}\u{200b}\u{2028}\u{e0041}\n");
        }
        let progress = Progress::of(Revocation::Failed("\u{202e}".to_owned()));
        let alert = Alert::Incident { incident: &incident, progress: &progress };
        let body = body(alert, "INC-42-a");
        let finding = &body["finding_info"];
        for text in [&body["message"], &finding["title"], &finding["desc"], &body["incident"]["reasons"][0]] {
            assert!(!text.as_str().is_none_or(|text| text.contains(sanitize::is_unsafe)), "{text}");
        }
        let sent = sanitize::json(&body.to_string());
        assert!(!sent.contains(sanitize::is_unsafe), "{sent}");
        assert_eq!(serde_json::from_str::<Value>(&sent).expect("JSON"), body, "ids are sent as they are");
    }

    #[test]
    fn body_is_a_detection_finding() {
        let incident = incident();
        let alert = Alert::Incident { incident: &incident, progress: &Progress::of(Revocation::Done) };
        let mut body = body(alert, "INC-42-a");
        body["metadata"]["product"]["version"] = "any".into();
        insta::assert_snapshot!(serde_json::to_string_pretty(&body).expect("JSON"));
    }
}
