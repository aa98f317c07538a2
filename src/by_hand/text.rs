//! Text and JSON of previews and results. Values of events are sanitized.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::journal::JobFile;
use super::plan::{Plan, Request};
use super::search::{Grant, Scope};
use crate::millis::rfc3339;
use crate::number::{counted, grouped};
use crate::port::ActionOutcome;
use crate::sanitize;

/// Grants that a preview shows, and requests without success that a result shows on a terminal.
const SAMPLE_MAX: usize = 10;
const FAILED_SHOWN_MAX: usize = 50;

/// Numbers of a preview.
struct Summary {
    users: usize,
    apps: usize,
    last_use: Option<i64>,
    /// Grants whose events name more than one user.
    shared: usize,
}

impl Summary {
    fn of(grants: &[Grant]) -> Self {
        let distinct = |name: fn(&Grant) -> &str| {
            let named = grants.iter().filter(|grant| !name(grant).is_empty());
            named.map(|grant| (&*grant.tenant_id, name(grant))).collect::<BTreeSet<_>>().len()
        };
        Self {
            users: distinct(|grant| &grant.user_id),
            apps: distinct(|grant| &grant.app_id),
            last_use: grants.iter().filter_map(|grant| grant.last_use).max(),
            shared: grants.iter().filter(|grant| grant.users > 1).count(),
        }
    }
}

/// What the operator is to confirm. `warnings`: doubts about the configuration.
pub(crate) fn preview_text(scope: &Scope, plan: &Plan, warnings: &[&str]) -> String {
    let summary = Summary::of(&plan.found.grants);
    let mut text = String::new();
    let mut put = |name: &str, value: &str| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{name:<13} {}", sanitize::line(value));
    };
    let tenant = scope.tenant.as_ref().map_or_else(String::new, |tenant| format!(", tenant {tenant:?}"));
    put("revoke", &format!("{} {}{tenant}", scope.subject.as_str(), scope.id));
    if let Some(why) = &plan.found.unknown {
        put("NOTHING KNOWN", &format!("{why}. The id is sent to the provider as it is"));
    }
    if plan.found.unknown.is_none() {
        let last = summary.last_use.map_or_else(|| "never".to_owned(), rfc3339);
        let grants = grouped(plan.found.grants.len() as u64);
        let (users, apps) = (counted(summary.users as u64, "user"), counted(summary.apps as u64, "application"));
        put("grants", &format!("{grants}, of {users} and {apps}, last used {last}"));
    }
    put("requests", &grouped(plan.requests.len() as u64));
    let about = plan.effect.about.as_deref().unwrap_or("sends the request of [revoke.http]");
    put("one request", about);
    let radius = plan.effect.radius.map_or("the grant or token itself", |radius| radius.as_str());
    put("radius", radius);
    for limit in &plan.effect.limits {
        put("limit", limit);
    }
    for warning in warnings {
        put("WARNING", warning);
    }
    if summary.shared > 0 {
        let shared = counted(summary.shared as u64, "grant");
        put("WARNING", &format!("events of several users: {shared}; check whether the user is the owner"));
    }
    for request in plan.requests.iter().take(SAMPLE_MAX) {
        put("sample", &described(request));
    }
    if plan.requests.len() > SAMPLE_MAX {
        put("", &format!("and {} more", grouped((plan.requests.len() - SAMPLE_MAX) as u64)));
    }
    if !plan.refused.is_empty() {
        put("NOT POSSIBLE", &counted(plan.refused.len() as u64, "grant"));
    }
    for refused in plan.refused.iter().take(SAMPLE_MAX) {
        put("", &format!("{}: {}", described(&refused.request), refused.reason));
    }
    if plan.refused.len() > SAMPLE_MAX {
        put("", &format!("and {} more", grouped((plan.refused.len() - SAMPLE_MAX) as u64)));
    }
    text
}

/// The same for programs, as one line.
pub(crate) fn preview_json(scope: &Scope, plan: &Plan, warnings: &[&str]) -> String {
    let summary = Summary::of(&plan.found.grants);
    let sample = plan.requests.iter().take(SAMPLE_MAX).map(|request| fields(request, json!({})));
    let refused = plan.refused.iter().map(|refused| fields(&refused.request, json!({ "reason": refused.reason })));
    let preview = json!({
        "preview": {
            "subject": scope.subject, "id": scope.id, "tenant_id": scope.tenant,
            "grants": plan.found.grants.len(), "users": summary.users, "apps": summary.apps,
            "last_use": summary.last_use.map(rfc3339), "grants_of_several_users": summary.shared,
            "nothing_known": plan.found.unknown, "requests": plan.requests.len(),
            "radius": plan.effect.radius, "about": plan.effect.about, "limits": plan.effect.limits,
            "warnings": warnings, "sample": sample.collect::<Vec<_>>(), "refused": refused.collect::<Vec<_>>(),
        }
    });
    format!("{}\n", sanitize::json(&preview.to_string()))
}

/// The results of a job as a table.
pub(crate) fn results_text(job: &JobFile) -> String {
    let count = |outcome| job.requests.iter().filter(|r| outcome_of(job, r) == outcome).count() as u64;
    let mut text = format!("{}\n", job.job.id);
    for outcome in [Some(ActionOutcome::Done), Some(ActionOutcome::AlreadyGone), Some(ActionOutcome::Failed), None] {
        let _ = writeln!(text, "{:<13} {:>9}", outcome_name(outcome), grouped(count(outcome)));
    }
    for request in job.left().take(FAILED_SHOWN_MAX) {
        let reason = job.result(request.number).map_or("not requested", |row| &*row.reason);
        let line = format!("{}: {}: {reason}", outcome_name(outcome_of(job, request)), described(request));
        let _ = writeln!(text, "{}", sanitize::line(&line));
    }
    if job.left().count() > FAILED_SHOWN_MAX {
        let _ = writeln!(text, "and {} more", grouped((job.left().count() - FAILED_SHOWN_MAX) as u64));
    }
    text
}

/// The results of a job for programs: one line per request, and a line with the totals.
pub(crate) fn results_json(job: &JobFile) -> String {
    let mut text = String::new();
    let count = |outcome| job.requests.iter().filter(|r| outcome_of(job, r) == outcome).count();
    let lines = job.requests.iter().map(|request| {
        let row = job.result(request.number);
        let confirmation = row.and_then(|row| row.confirmation);
        let result = json!({
            "key": request.key(&job.job.id), "outcome": outcome_name(outcome_of(job, request)),
            "http_status": row.map(|row| row.http_status), "attempts": row.map(|row| row.attempt),
            "reason": row.map(|row| &row.reason), "radius": row.and_then(|row| row.radius),
            "revoked_at": confirmation.map(|confirmation| rfc3339(confirmation.revoked_at)),
            "verified_at": confirmation.and_then(|confirmation| confirmation.verified_at).map(rfc3339),
        });
        fields(request, result)
    });
    let totals = json!({
        "job": job.job.id, "requests": job.requests.len(), "done": count(Some(ActionOutcome::Done)),
        "already_gone": count(Some(ActionOutcome::AlreadyGone)), "failed": count(Some(ActionOutcome::Failed)),
        "left": count(None), "rows_waiting": job.waiting_rows().len(),
    });
    for line in lines.chain([totals]) {
        let _ = writeln!(text, "{}", sanitize::json(&line.to_string()));
    }
    text
}

/// `None` if it has not ended.
fn outcome_of(job: &JobFile, request: &Request) -> Option<ActionOutcome> {
    job.result(request.number).map(|row| row.outcome)
}

fn outcome_name(outcome: Option<ActionOutcome>) -> &'static str {
    outcome.map_or("left", ActionOutcome::as_str)
}

/// `tenant acme, user ana, app crm, family g-1, last used …`, without absent values.
fn described(request: &Request) -> String {
    let grant = &request.grant;
    let target = (request.target.kind(), request.target.id());
    let named = [("tenant", &*grant.tenant_id), ("user", &grant.user_id), ("app", &grant.app_id), target];
    let named = named.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name} {value}"));
    let used = grant.last_use.map(|at| format!("last used {}", rfc3339(at)));
    named.chain(used).collect::<Vec<_>>().join(", ")
}

/// The ids of a request, and `more`.
fn fields(request: &Request, more: Value) -> Value {
    let grant = &request.grant;
    let mut fields = json!({
        "target": format!("{}:{}", request.target.kind(), request.target.id()), "tenant_id": grant.tenant_id,
        "user_id": grant.user_id, "app_id": grant.app_id, "family_id": grant.family_id, "token_id": grant.token_id,
        "last_use": grant.last_use.map(rfc3339),
    });
    if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
        fields.extend(more);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Toy, create, grant, planned, scope};
    use super::*;
    use crate::port::Radius;

    const HOSTILE: &str = "ana\u{1b}[2J\u{202e}\n\"' OR 1=1 --";

    fn hostile_plan() -> Plan {
        let toy = Toy { radius: Some(Radius::Grant), accepts: &["family"] };
        let mut shared = grant(HOSTILE, HOSTILE, HOSTILE);
        shared.users = 2;
        planned(vec![shared, grant("bob", "", HOSTILE)], &toy)
    }

    fn is_safe(text: &str) -> bool {
        text.chars().all(|character| character == '\n' || !sanitize::is_unsafe(character))
    }

    #[test]
    fn preview_shows_numbers_and_no_control_characters() {
        let text = preview_text(&scope(HOSTILE), &hostile_plan(), &["a warning"]);
        insta::assert_snapshot!(text, @r#"
        revoke        user ana␛[2J�␊"' OR 1=1 --
        grants        2, of 2 users and 1 application, last used 2026-11-18T11:06:40Z
        requests      1
        one request   sends the request of [revoke.http]
        radius        grant
        WARNING       a warning
        WARNING       events of several users: 1 grant; check whether the user is the owner
        sample        tenant acme, user ana␛[2J�␊"' OR 1=1 --, app crm, family ana␛[2J�␊"' OR 1=1 --, last used 2026-11-18T11:06:40Z
        NOT POSSIBLE  1 grant
                      tenant acme, user bob, app crm, token ana␛[2J�␊"' OR 1=1 --, last used 2026-11-18T11:06:40Z: the provider is not configured to revoke a token
        "#);
        let json = preview_json(&scope(HOSTILE), &hostile_plan(), &[]);
        assert!(is_safe(&json) && json.lines().count() == 1, "{json}");
        let read: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(read["preview"]["sample"][0]["user_id"], HOSTILE);
        assert_eq!(read["preview"]["refused"][0]["reason"], "the provider is not configured to revoke a token");
    }

    #[test]
    fn results_name_every_request() {
        let folder = tempfile::tempdir().expect("a folder");
        let job = create(folder.path(), "J1", &hostile_plan()).expect("a job");
        let text = results_text(&job);
        assert!(is_safe(&text) && text.contains("left                  1") && text.contains("not requested"), "{text}");
        let json = results_json(&job);
        let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert!(is_safe(&json));
        assert_eq!((lines.len(), &lines[0]["outcome"], &lines[1]["left"]), (2, &json!("left"), &json!(1)));
    }
}
