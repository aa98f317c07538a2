//! Reads the incidents that may be closed.

use std::collections::BTreeMap;

use serde_json::Value;

use super::candidate::{Candidate, GrantId, RevokedGrant};
use crate::by_hand::ACCEPTED;
use crate::port::{Handled, HandledStep, IncidentState, STATES_MAX, StoreError};
use crate::store::{Reader, WorkChange};
use crate::verdict::{IncidentId, Severity};

/// Name of the service in `incident_work`.
pub(super) const BY: &str = "tokenwarden";
/// Maximum number of grants and tokens that are read at a time. The incidents beyond it are read later.
const GRANTS_MAX: usize = 10_000;

/// A line for each grant or token of the incidents with a revocation. `which` selects the incidents by id.
fn grants_sql(which: &str) -> String {
    format!(
        "WITH \
         ended AS ( \
             SELECT incident_id, concat(if(kind = 'revoke_token', 'token:', 'family:'), target) AS subject, \
                 max(requested_at) AS revoked_at \
             FROM actions WHERE kind IN ('revoke_token', 'revoke_family') AND outcome IN ('done', 'already_gone') \
                 AND incident_id != '' AND incident_id GLOBAL {which} \
             GROUP BY incident_id, kind, target), \
         named AS ( \
             SELECT incident_id, tenant_id, baseline, \
                 if(family_id = '', concat('token:', token_id), concat('family:', family_id)) AS subject, \
                 min(opened_at) AS opened_at, max(written_at) AS changed_at \
             FROM incidents WHERE incident_id GLOBAL IN (SELECT incident_id FROM ended) \
             GROUP BY incident_id, tenant_id, baseline, subject) \
         SELECT named.incident_id AS incident_id, named.tenant_id AS tenant_id, named.subject AS subject, \
             toString(named.baseline) AS baseline, toUnixTimestamp64Milli(named.opened_at) AS opened_at, \
             toUnixTimestamp64Milli(named.changed_at) AS changed_at, \
             toUnixTimestamp64Milli(ended.revoked_at) AS revoked_at, \
             work.version AS version, work.assignee AS assignee \
         FROM named \
         LEFT JOIN ended ON ended.incident_id = named.incident_id AND ended.subject = named.subject \
         LEFT JOIN incident_work_latest AS work ON work.incident_id = named.incident_id \
         ORDER BY incident_id, tenant_id, subject, baseline LIMIT {}",
        GRANTS_MAX + 1
    )
}

const NOT_RESOLVED: &str = "NOT IN (SELECT incident_id FROM incident_work_latest WHERE status = 'resolved')";

/// Counts accepted events of a grant after its revocation (`used`), and events that link its tokens to others (`linked`).
/// `column`: `family_id` or `token_id`. An event counts from its time or its time of ingestion, the later one, because
/// clocks of producers can be slow.
///
/// The tokens of a grant are those of its events and their parents. A token that was issued from one of them, or is also of
/// another grant, may continue the grant under an id that no row connects with it. A token without a grant has such links
/// if it has a parent.
fn use_sql(column: &str) -> String {
    let tokens = format!(
        "(SELECT DISTINCT arrayJoin(arrayFilter(id -> id != '', [token_id, parent_token_id])) FROM token_events \
         WHERE tenant_id = ? AND {column} = ?)"
    );
    format!(
        "WITH tokens AS {tokens} \
         SELECT countIf(kind IN ('use', 'refreshed', 'issued') AND {ACCEPTED} AND toUnixTimestamp64Milli(greatest(timestamp, ingested_at)) > toInt64(?)) AS used, \
             countIf(parent_token_id GLOBAL IN tokens AND token_id GLOBAL NOT IN tokens \
                 OR token_id GLOBAL IN tokens AND (family_id NOT IN ('', ?) OR parent_token_id != '' AND ? = '') \
                 OR parent_token_id != '' AND parent_token_id = ?) AS linked \
         FROM token_events WHERE tenant_id = ? AND ({column} = ? OR incident_id = ? OR baseline = toUInt64(?) \
             OR token_id GLOBAL IN tokens OR parent_token_id GLOBAL IN tokens \
             OR parent_token_id != '' AND parent_token_id = ?)"
    )
}

/// The time until which the rows of every partition are stored. Partitions without rows since a time are ignored. Only
/// events with a plausible time count.
const STORED_UNTIL: &str = "SELECT ifNull(min(until), 0) AS until FROM ( \
     SELECT toUnixTimestamp64Milli(maxIf(timestamp, abs(toUnixTimestamp64Milli(timestamp) - toUnixTimestamp64Milli(ingested_at)) <= 3600000)) AS until \
     FROM token_events WHERE toUnixTimestamp64Milli(ingested_at) >= toInt64(?) GROUP BY source_topic, source_partition)";

const LAST_CHANGE: &str = "SELECT toString(change_id) AS change_id FROM incident_work_latest WHERE incident_id = ?";

const STATES: &str = "SELECT severity, tenant_id, user_id, app_id, toUnixTimestamp64Milli(min(opened_at)) AS opened_at \
     FROM incidents WHERE incident_id = ? GROUP BY severity, tenant_id, user_id, app_id ORDER BY min(written_at)";

/// Unresolved incidents with a revocation.
pub(super) async fn unresolved(reader: &Reader) -> Result<Vec<Candidate>, StoreError> {
    candidates(reader, NOT_RESOLVED).await
}

/// Incidents that the service resolved in the last `days`, and that have no later change of their work. The clock of the store
/// counts.
pub(super) async fn closed(reader: &Reader, days: u32) -> Result<Vec<Candidate>, StoreError> {
    let which = format!(
        "IN (SELECT incident_id FROM incident_work_latest WHERE status = 'resolved' AND changed_by = '{BY}' \
         AND changed_at > now64(3) - INTERVAL {days} DAY)"
    );
    candidates(reader, &which).await
}

async fn candidates(reader: &Reader, which: &str) -> Result<Vec<Candidate>, StoreError> {
    let rows = reader.rows(&grants_sql(which), &[]).await?;
    Ok(candidates_of(&rows, GRANTS_MAX))
}

/// The candidates of `rows`. If there are more than `max` rows, the last incident may be incomplete and is left out.
fn candidates_of(rows: &[Value], max: usize) -> Vec<Candidate> {
    let number = |row: &Value, name: &str| row[name].as_i64().unwrap_or_default();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let mut candidates: BTreeMap<u64, Candidate> = BTreeMap::new();
    let mut last = None;
    for row in rows {
        let Some(incident) = IncidentId::parse(row["incident_id"].as_str().unwrap_or_default()) else { continue };
        last = Some(incident.0);
        let candidate = candidates.entry(incident.0).or_insert_with(|| Candidate {
            incident,
            opened_at: number(row, "opened_at"),
            changed_at: 0,
            version: u32::try_from(number(row, "version")).unwrap_or_default(),
            assignee: text(row, "assignee"),
            grants: Vec::new(),
        });
        candidate.opened_at = candidate.opened_at.min(number(row, "opened_at"));
        candidate.changed_at = candidate.changed_at.max(number(row, "changed_at"));
        let subject = text(row, "subject");
        let id = match subject.strip_prefix("family:") {
            Some(family) => GrantId::Family(family.to_owned()),
            None => GrantId::Token(subject.strip_prefix("token:").unwrap_or_default().to_owned()),
        };
        candidate.grants.push(RevokedGrant {
            tenant_id: text(row, "tenant_id"),
            id,
            baseline: text(row, "baseline"),
            revoked_at: Some(number(row, "revoked_at")).filter(|at| *at > 0),
        });
    }
    if rows.len() > max
        && let Some(last) = last
    {
        candidates.remove(&last);
    }
    candidates.into_values().collect()
}

/// What the store has of the grants of an incident after their revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// No accepted event.
    Unused,
    /// No accepted event, but their tokens are linked to others, whose events may belong to them.
    Unclear,
    Used,
}

pub(super) async fn activity(reader: &Reader, candidate: &Candidate) -> Result<Activity, StoreError> {
    let incident = candidate.incident.to_string();
    let mut activity = Activity::Unused;
    for RevokedGrant { tenant_id, id, baseline, revoked_at } in &candidate.grants {
        let Some(revoked_at) = revoked_at else { return Ok(Activity::Unclear) };
        let (column, id, family, token) = match id {
            GrantId::Family(id) => ("family_id", id, id.as_str(), ""),
            GrantId::Token(id) => ("token_id", id, "", id.as_str()),
        };
        let revoked_at = revoked_at.to_string();
        let bound = [tenant_id, id, &revoked_at, family, family, token, tenant_id, id, &incident, baseline, token];
        let rows = reader.rows(&use_sql(column), &bound).await?;
        let count = |name: &str| rows.first().and_then(|row| row[name].as_u64());
        match (count("used"), count("linked")) {
            (Some(0), Some(0)) => {}
            (Some(0), _) => activity = Activity::Unclear,
            _ => return Ok(Activity::Used),
        }
    }
    Ok(activity)
}

/// The time until which every partition that has rows since `since` is stored, milliseconds since the epoch.
pub(super) async fn stored_until(reader: &Reader, since: i64) -> Result<i64, StoreError> {
    let rows = reader.rows(STORED_UNTIL, &[&since.to_string()]).await?;
    Ok(rows.first().and_then(|row| row["until"].as_i64()).unwrap_or_default())
}

/// Whether `change` is the last one of its incident. Of two with one version, the first counts.
pub(super) async fn is_in_force(reader: &Reader, change: &WorkChange) -> Result<bool, StoreError> {
    let rows = reader.rows(LAST_CHANGE, &[&change.incident_id]).await?;
    Ok(rows.first().is_some_and(|row| row["change_id"].as_str() == Some(change.change_id.to_string().as_str())))
}

/// The values of an incident in a row with their columns.
pub(crate) fn state_of(row: &Value) -> IncidentState {
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    IncidentState {
        severity: Severity::parse(&text("severity")).unwrap_or(Severity::High),
        tenant_id: text("tenant_id"),
        user_id: text("user_id"),
        app_id: text("app_id"),
    }
}

/// The step of an incident, with the values of its messages.
pub(crate) async fn handled(reader: &Reader, incident: IncidentId, step: HandledStep) -> Result<Handled, StoreError> {
    let rows = reader.rows(&format!("{STATES} LIMIT {STATES_MAX}"), &[&incident.to_string()]).await?;
    let states = rows.iter().map(state_of).collect();
    let opened_at = rows.iter().filter_map(|row| row["opened_at"].as_i64()).min().unwrap_or_default();
    Ok(Handled { incident, step, opened_at, states })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_of_one_incident_are_one_candidate() {
        let row = |incident: &str, revoked_at: i64| {
            json!({"incident_id": incident, "tenant_id": "t", "subject": "token:family:1", "baseline": "9",
                "opened_at": 5, "changed_at": revoked_at, "revoked_at": revoked_at, "version": 3, "assignee": "ana"})
        };
        let rows = [row("INC-0000000000000001", 7), row("INC-0000000000000001", 0), row("INC-0000000000000002", 8)];
        let found = candidates_of(&rows, 3);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].version, found[0].changed_at, &*found[0].assignee), (3, 7, "ana"));
        let grant = |revoked_at| RevokedGrant {
            tenant_id: "t".to_owned(),
            id: GrantId::Token("family:1".to_owned()),
            baseline: "9".to_owned(),
            revoked_at,
        };
        assert_eq!(found[0].grants, [grant(Some(7)), grant(None)]);
        assert_eq!(candidates_of(&rows, 2).len(), 1, "the last one may be incomplete");
    }
}
