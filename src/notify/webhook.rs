//! Alerts by webhook, signed as Standard Webhooks 1.0 says, the body in the shape of OCSF's Detection Finding (2004).

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

use super::words;
use crate::outgoing;
use crate::port::{Alert, Asked, Clock, DeliveryError, Notice, Notifier, Progress, Revocation};
use crate::sanitize;
use crate::verdict::{Incident, Severity};

/// `[alert.webhook]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    pub url: String,
    /// `whsec_…` in base64, or any text; several with spaces between them while they are rotated.
    pub secret: SecretString,
    /// Whether the receiver may be inside the network.
    #[serde(default)]
    pub allow_private: bool,
    /// Authorities trusted besides the system's, PEM.
    pub ca_file: Option<PathBuf>,
}

/// See the module's text.
pub struct Webhook {
    client: Client,
    url: Url,
    keys: Vec<Hmac<Sha256>>,
    clock: Arc<dyn Clock>,
    /// Until when nothing is sent, because the receiver has answered 410; milliseconds since the epoch, wall clock.
    gone_until: AtomicI64,
}

impl Webhook {
    /// The error is the key below `[alert.webhook]` and what is wrong with it; it names no secret.
    pub fn new(settings: &WebhookSettings, clock: Arc<dyn Clock>) -> Result<Self, (&'static str, String)> {
        let url = Url::parse(&settings.url).map_err(|error| ("url", format!("is no URL: {error}")))?;
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

    /// The path is left out: in many a webhook it is the secret.
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
        let judged = judge(status, outgoing::retry_after(answer.headers(), now));
        if status == 410 {
            self.gone_until.store(now + GONE_MS, Ordering::Relaxed);
        }
        judged
    }

    /// There is no request that a receiver would understand as none: what can be asked is whether it listens.
    async fn probe(&self) -> Result<(), DeliveryError> {
        Ok(())
    }
}

/// A receiver that answered 410 is sent nothing for this long: slightly less than the day after which a rejected alert is
/// sent again.
const GONE_MS: i64 = 23 * 3_600_000;
const GONE: &str = "the webhook's receiver has gone for good (410)";

/// What an answer's status means. What the receiver may mend, a wrong path or key among it, is tried again; what lies
/// in the message never gets better.
fn judge(status: u16, retry_after: Option<Duration>) -> Result<u16, DeliveryError> {
    let permanent = |reason: String| Err(DeliveryError::Permanent { reason, status });
    match status {
        200..=299 => Ok(status),
        300..=399 => permanent(format!("the webhook's receiver answered {status}; redirects are not followed")),
        410 => permanent(GONE.to_owned()),
        400 | 413 | 415 | 422 => permanent(format!("the webhook's receiver answered {status}")),
        _ => Err(DeliveryError::Retriable {
            reason: format!("the webhook's receiver answered {status}"),
            status,
            retry_after,
        }),
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
        keys.push(Hmac::<Sha256>::new_from_slice(&bytes).map_err(|_| "cannot be a key")?);
    }
    if keys.is_empty() { Err("is empty") } else { Ok(keys) }
}

/// `v1,…` by each key, with spaces between.
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

/// Victims and outcomes that a body names; the others are counted.
const NAMED_MAX: usize = 100;

fn of_incident(incident: &Incident, progress: &Progress, key: &str) -> Value {
    let created = incident.opened_at == incident.updated_at;
    let (activity, activity_name) = if created { (1, "Create") } else { (2, "Update") };
    let mut finding = finding(key, activity, activity_name, severity(incident.severity), incident.updated_at.millis());
    finding["status_id"] = json!(1);
    finding["status"] = json!("New");
    finding["message"] = json!(words::plain(&incident.reason));
    finding["finding_info"] = json!({
        "uid": incident.id.to_string(),
        "title": format!("Token {}: {}", words::subjects(incident, '/'), words::plain(&incident.reason)),
        "desc": words::answer(incident, &progress.revocation),
        "created_time": incident.opened_at.millis(),
        "modified_time": incident.updated_at.millis(),
        "types": incident.signals.iter().filter(|signal| signal.fired).map(|s| s.rule.as_str()).collect::<Vec<_>>(),
        "related_events": [{ "uid": incident.event_id }],
    });
    // 10: a resource's identifier; 4: a user's name (OCSF, observable types).
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
        "signals": incident.signals,
        "action": incident.action,
        "mode": incident.mode,
        "target": incident.revoke.as_ref().map(|target| json!({ "kind": target.kind(), "id": target.id() })),
        "revocation": revocation_word(&progress.revocation),
        "campaign_id": incident.campaign_id.to_string(),
        "victims": incident.victims.iter().take(NAMED_MAX).collect::<Vec<_>>(),
        "victims_total": incident.victims_total,
        "victims_new": progress.joined,
        "revocations": progress.outcomes.iter().take(NAMED_MAX).map(of_outcome).collect::<Vec<_>>(),
        "revocations_total": progress.outcomes_total,
        "revocations_done": progress.revoked,
        "revocations_not_done": progress.not_revoked,
    });
    finding
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

/// The part that every finding has.
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

    /// From the specification of Standard Webhooks 1.0. In parts, so that it is not taken for a secret of ours.
    const EXAMPLE_KEY: [&str; 2] = ["MfKQ9r8GKYqrTwj", "UPD8ILPZIo2LaLaSw"];

    #[test]
    fn the_signature_is_that_of_the_specification() {
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
    fn bad_secrets_are_refused() {
        assert!(keys("whsec_%%%").is_err());
        assert!(keys("short").is_err());
        assert!(keys("  ").is_err());
    }

    #[test]
    fn statuses_mean_what_they_should() {
        let meaning = |status| match judge(status, Some(Duration::from_secs(3))) {
            Ok(_) => "done",
            Err(DeliveryError::Retriable { retry_after: Some(_), .. }) => "retry",
            Err(_) => "give up",
        };
        let told = [200, 204, 301, 308, 400, 401, 404, 410, 413, 422, 429, 500, 503].map(meaning);
        let expected = [
            "done", "done", "give up", "give up", "give up", "retry", "retry", "give up", "give up", "give up",
            "retry", "retry", "retry",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn body_holds_no_unsafe_character() {
        let mut incident = incident();
        for text in [&mut incident.subject, &mut incident.user_id, &mut incident.token_id, &mut incident.reason] {
            text.push_str("\u{1b}[2J\u{202e}\u{200b}\u{2028}\u{e0041}\n");
        }
        let progress = Progress::of(Revocation::Failed("\u{202e}".to_owned()));
        let alert = Alert::Incident { incident: &incident, progress: &progress };
        let body = body(alert, "INC-42-a");
        for text in [&body["message"], &body["finding_info"]["title"], &body["finding_info"]["desc"]] {
            assert!(!text.as_str().is_none_or(|text| text.contains(sanitize::is_unsafe)), "{text}");
        }
        let sent = sanitize::json(&body.to_string());
        assert!(!sent.contains(sanitize::is_unsafe), "{sent}");
        assert_eq!(serde_json::from_str::<Value>(&sent).expect("JSON"), body, "ids are sent as they are");
    }

    #[test]
    fn the_body_is_a_detection_finding() {
        let incident = incident();
        let alert = Alert::Incident { incident: &incident, progress: &Progress::of(Revocation::Done) };
        let mut body = body(alert, "INC-42-a");
        body["metadata"]["product"]["version"] = "any".into();
        insta::assert_snapshot!(serde_json::to_string_pretty(&body).expect("JSON"));
    }
}
