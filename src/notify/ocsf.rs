//! Alerts as OCSF Detection Findings (class 2004, version 1.4.0, <https://schema.ocsf.io/1.4.0/classes/detection_finding>).

use serde_json::{Value, json};

use super::{summary, words};
use crate::port::{Alert, Asked, Confirmation, Notice, Progress, Revocation};
use crate::verdict::{Incident, Severity};

/// The Detection Finding of `alert`. `key` is the same for all retries.
pub(super) fn finding(alert: Alert<'_>, key: &str) -> Value {
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
    let mut finding = common(key, activity, activity_name, severity(incident.severity), incident.updated_at.millis());
    finding["status_id"] = json!(1);
    finding["status"] = json!("New");
    let summary = format!("{}: {}", summary::account(incident, usize::MAX), summary::what(incident, usize::MAX));
    finding["message"] = json!(summary);
    finding["finding_info"] = json!({
        "uid": incident.id.to_string(),
        "title": summary,
        "desc": words::answer(incident, progress),
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
        "confirmation": progress.confirmation.map(|confirmation| of_confirmation(&confirmation)),
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
    let confirmation = asked.confirmation.map(|confirmation| of_confirmation(&confirmation));
    let revocation = revocation_word(&asked.revocation);
    json!({ "kind": kind, "id": id, "revocation": revocation, "reason": reason, "confirmation": confirmation })
}

/// Times in milliseconds since the epoch. `radius` is null if the request ended its target and no more.
fn of_confirmation(confirmation: &Confirmation) -> Value {
    let Confirmation { revoked_at, verified_at, radius } = confirmation;
    json!({ "revoked_at": revoked_at, "verified_at": verified_at, "radius": radius })
}

fn of_notice(notice: &Notice, key: &str) -> Value {
    let mut finding = common(key, 99, "Notice", (4, "High"), notice.at);
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
fn common(key: &str, activity: u32, name: &str, (severity_id, severity): (u32, &str), at: i64) -> Value {
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

pub(super) const fn revocation_word(revocation: &Revocation) -> &'static str {
    match revocation {
        Revocation::NotAsked => "none",
        Revocation::Shadow => "shadow",
        Revocation::Proposed => "proposed",
        Revocation::Waiting(_) => "waiting",
        Revocation::Done => "done",
        Revocation::AlreadyGone => "already_gone",
        Revocation::Capped(_) => "capped",
        Revocation::Paused => "paused",
        Revocation::Stopped(_) => "stopped",
        Revocation::Failed(_) => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::incident;
    use super::*;
    use crate::sanitize;

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
        let body = finding(alert, "INC-42-a");
        let info = &body["finding_info"];
        for text in [&body["message"], &info["title"], &info["desc"], &body["incident"]["reasons"][0]] {
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
        let mut body = finding(alert, "INC-42-a");
        body["metadata"]["product"]["version"] = "any".into();
        insta::assert_snapshot!(serde_json::to_string_pretty(&body).expect("JSON"));
    }
}
