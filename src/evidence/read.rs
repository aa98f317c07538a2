//! Reads the revocations of each rule, and what became known about them.

use serde_json::Value;

use super::revocation::{Known, Outcomes, Requested};
use crate::config::Config;
use crate::port::StoreError;
use crate::store::Reader;

/// Time after an incident within which the provider's own revocation counts as a confirmation.
const REVOKED_WITHIN_DAYS: u32 = 7;
/// Maximum number of revocations that are read.
const REVOCATIONS_MAX: usize = 500_000;

/// The topics whose `confirmed` events are believed. A producer of another topic could vouch for a theft.
pub(crate) fn confirming_topics(config: &Config) -> Vec<String> {
    config.source.kafka.iter().flat_map(|kafka| kafka.names_in_rows(|feed| feed.confirmed)).collect()
}

/// Reads the revocations since `since`, milliseconds since the epoch, in event time. Fails if there are more than
/// [`REVOCATIONS_MAX`], because a part of them would give a wrong precision.
pub(crate) async fn read(reader: &Reader, since: i64, topics: &[String]) -> Result<Vec<Requested>, StoreError> {
    let (sql, bound) = statement(since, topics);
    let rows = reader.rows(&sql, &bound.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    if rows.len() > REVOCATIONS_MAX {
        let problem = format!("the period has more than {REVOCATIONS_MAX} revocations; choose a shorter one");
        return Err(StoreError::Permanent(problem));
    }
    Ok(rows.iter().map(requested).collect())
}

/// A grant is identified by tenant and target. The first incident that names it counts.
fn statement(since: i64, topics: &[String]) -> (String, Vec<String>) {
    let confirming = if topics.is_empty() {
        // No topic has `confirmed = true`.
        "0".to_owned()
    } else {
        format!("kind = 'confirmed' AND source_topic IN ({})", vec!["?"; topics.len()].join(", "))
    };
    let sql = format!(
        "WITH \
         wanted AS ( \
             SELECT tenant_id, target, argMin(rules[1], updated_at) AS rule, argMin(user_id, updated_at) AS user, \
                 argMin(app_id, updated_at) AS application, \
                 argMin(incident_id, updated_at) AS incident, min(updated_at) AS first, \
                 max(mode = 'enforce') AS enforced \
             FROM incidents WHERE target != '' AND notEmpty(rules) AND updated_at >= fromUnixTimestamp64Milli(toInt64(?)) \
             GROUP BY tenant_id, target), \
         marks AS ( \
             SELECT tenant_id, if(family_id = '', concat('token:', token_id), concat('family:', family_id)) AS target, \
                 kind, timestamp \
             FROM token_events WHERE (kind = 'revoked' OR ({confirming})) \
                 AND timestamp >= fromUnixTimestamp64Milli(toInt64(?))), \
         asked AS ( \
             SELECT incident_id, target, max(outcome IN ('done', 'already_gone')) AS done, \
                 max(outcome = 'capped') AS capped, max(outcome = 'stopped') AS stopped, \
                 max(outcome = 'failed') AS failed \
             FROM actions WHERE startsWith(kind, 'revoke_') GROUP BY incident_id, target), \
         ended AS ( \
             SELECT kind, target FROM actions \
             WHERE startsWith(kind, 'revoke_') AND target != '' AND outcome IN ('done', 'already_gone') \
             GROUP BY kind, target) \
         SELECT wanted.rule AS rule, wanted.tenant_id AS tenant, wanted.user AS user, wanted.application AS application, wanted.target AS target, \
             substring(wanted.target, position(wanted.target, ':') + 1) AS target_id, \
             toUnixTimestamp64Milli(wanted.first) AS at, wanted.enforced AS enforced, any(feedback_latest.verdict) AS verdict, \
             any(asked.done) OR target_id GLOBAL IN (SELECT target FROM ended WHERE kind != 'revoke_user') \
                 OR user GLOBAL IN (SELECT target FROM ended WHERE kind = 'revoke_user') AS done, any(asked.capped) AS capped, any(asked.stopped) AS stopped, any(asked.failed) AS failed, \
             countIf(marks.kind = 'confirmed' AND marks.timestamp >= wanted.first) AS confirmed, \
             countIf(marks.kind = 'revoked' AND marks.timestamp >= wanted.first \
                 AND marks.timestamp < wanted.first + INTERVAL {REVOKED_WITHIN_DAYS} DAY) AS revoked \
         FROM wanted \
         LEFT JOIN marks ON marks.tenant_id = wanted.tenant_id AND marks.target = wanted.target \
         LEFT JOIN feedback_latest ON feedback_latest.incident_id = wanted.incident \
         LEFT JOIN asked ON asked.incident_id = wanted.incident \
             AND asked.target = substring(wanted.target, position(wanted.target, ':') + 1) \
         GROUP BY rule, tenant, user, application, target, target_id, at, enforced ORDER BY at, tenant, target LIMIT {}",
        REVOCATIONS_MAX + 1
    );
    let since = since.to_string();
    let bound = [vec![since.clone()], topics.to_vec(), vec![since]].concat();
    (sql, bound)
}

fn requested(row: &Value) -> Requested {
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| row[name].as_u64().unwrap_or_default();
    let is = |name: &str| number(name) > 0;
    // A person has precedence. A revocation by tokenwarden itself is no confirmation.
    let known = match &*text("verdict") {
        "true" | "theft" => Known::Theft,
        "false" | "benign" => Known::Owner,
        _ if is("confirmed") => Known::Owner,
        _ if is("revoked") && !is("done") => Known::Theft,
        _ => Known::Nothing,
    };
    Requested {
        rule: text("rule"),
        tenant: text("tenant"),
        user: text("user"),
        application: text("application"),
        target: text("target"),
        at: row["at"].as_i64().unwrap_or_default(),
        known,
        enforced: is("enforced"),
        outcomes: Outcomes { was_capped: is("capped"), was_stopped: is("stopped"), has_failed: is("failed") },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_person_has_precedence_over_events() {
        let known = |row: Value| requested(&row).known;
        assert_eq!(known(json!({"verdict": "true", "confirmed": 1})), Known::Theft);
        assert_eq!(known(json!({"verdict": "benign", "revoked": 1})), Known::Owner);
        assert_eq!(known(json!({"verdict": "", "confirmed": 1, "revoked": 1})), Known::Owner);
        assert_eq!(known(json!({"verdict": "unsure", "revoked": 1})), Known::Theft);
        assert_eq!(known(json!({"verdict": "", "revoked": 1, "done": 1})), Known::Nothing, "revoked by tokenwarden");
        assert_eq!(known(json!({})), Known::Nothing);
    }

    #[test]
    fn confirmations_of_untrusted_topics_do_not_count() {
        let (sql, bound) = statement(7, &[]);
        assert!(!sql.contains("confirmed' AND source_topic"), "{sql}");
        assert_eq!((sql.matches('?').count(), bound), (2, vec!["7".to_owned(), "7".to_owned()]));
        let (sql, bound) = statement(7, &["a'b".to_owned(), "c".to_owned()]);
        assert!(sql.contains("source_topic IN (?, ?)") && !sql.contains("a'b"), "{sql}");
        assert_eq!(bound, ["7", "a'b", "c", "7"]);
    }
}
