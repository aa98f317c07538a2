//! Reads the incidents that may be closed.

use std::collections::BTreeMap;

use serde_json::Value;

use super::candidate::{Candidate, Subject};
use crate::port::{Handled, HandledStep, IncidentState, STATES_MAX, StoreError};
use crate::store::Reader;
use crate::verdict::{IncidentId, Severity};

/// Maximum number of grants and tokens that are read at a time. The incidents beyond it are read later.
const SUBJECTS_MAX: usize = 10_000;

/// A line for each grant or token of an unresolved incident with a revocation. A refused credential (401) is no use.
const SUBJECTS: &str = "WITH \
     ended AS ( \
         SELECT incident_id, concat(if(kind = 'revoke_token', 'token:', 'family:'), target) AS subject, \
             target, max(requested_at) AS revoked_at \
         FROM actions WHERE kind IN ('revoke_token', 'revoke_family') AND outcome IN ('done', 'already_gone') \
             AND incident_id != '' AND incident_id GLOBAL NOT IN \
                 (SELECT incident_id FROM incident_work_latest WHERE status = 'resolved') \
         GROUP BY incident_id, kind, target), \
     named AS ( \
         SELECT incident_id, tenant_id, if(family_id = '', concat('token:', token_id), concat('family:', family_id)) AS subject, \
             min(opened_at) AS opened_at, max(written_at) AS changed_at \
         FROM incidents WHERE incident_id GLOBAL IN (SELECT incident_id FROM ended) \
         GROUP BY incident_id, tenant_id, subject), \
     used AS ( \
         SELECT tenant_id, if(family_id = '', concat('token:', token_id), concat('family:', family_id)) AS subject, \
             maxIf(timestamp, kind IN ('use', 'refreshed') AND status != 401) AS used_at, max(expires_at) AS expires_at \
         FROM token_events WHERE family_id GLOBAL IN (SELECT target FROM ended) \
             OR (family_id = '' AND token_id GLOBAL IN (SELECT target FROM ended)) \
         GROUP BY tenant_id, subject) \
     SELECT named.incident_id AS incident_id, toUnixTimestamp64Milli(named.opened_at) AS opened_at, \
         toUnixTimestamp64Milli(named.changed_at) AS changed_at, \
         toUnixTimestamp64Milli(ended.revoked_at) AS revoked_at, toUnixTimestamp64Milli(used.used_at) AS used_at, \
         ifNull(toUnixTimestamp64Milli(used.expires_at), 0) AS expires_at, \
         work.version AS version, work.assignee AS assignee \
     FROM named \
     LEFT JOIN ended ON ended.incident_id = named.incident_id AND ended.subject = named.subject \
     LEFT JOIN used ON used.tenant_id = named.tenant_id AND used.subject = named.subject \
     LEFT JOIN incident_work_latest AS work ON work.incident_id = named.incident_id \
     ORDER BY named.incident_id, named.tenant_id, named.subject";

const STATES: &str = "SELECT severity, tenant_id, user_id, app_id, toUnixTimestamp64Milli(min(opened_at)) AS opened_at \
     FROM incidents WHERE incident_id = ? GROUP BY severity, tenant_id, user_id, app_id ORDER BY min(written_at)";

/// Unresolved incidents with a revocation.
pub(super) async fn candidates(reader: &Reader) -> Result<Vec<Candidate>, StoreError> {
    let rows = reader.rows(&format!("{SUBJECTS} LIMIT {}", SUBJECTS_MAX + 1), &[]).await?;
    Ok(grouped(&rows, SUBJECTS_MAX))
}

/// The candidates of `rows`. If there are more than `max` rows, the last incident may be incomplete and is left out.
fn grouped(rows: &[Value], max: usize) -> Vec<Candidate> {
    let number = |row: &Value, name: &str| row[name].as_i64().unwrap_or_default();
    let time = |row: &Value, name: &str| Some(number(row, name)).filter(|at| *at > 0);
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
            assignee: row["assignee"].as_str().unwrap_or_default().to_owned(),
            subjects: Vec::new(),
        });
        candidate.opened_at = candidate.opened_at.min(number(row, "opened_at"));
        candidate.changed_at = candidate.changed_at.max(number(row, "changed_at"));
        candidate.subjects.push(Subject {
            revoked: time(row, "revoked_at"),
            used: time(row, "used_at"),
            expires: time(row, "expires_at"),
        });
    }
    if rows.len() > max
        && let Some(last) = last
    {
        candidates.remove(&last);
    }
    candidates.into_values().collect()
}

/// The step of an incident, with the values of its messages.
pub(crate) async fn handled(reader: &Reader, incident: IncidentId, step: HandledStep) -> Result<Handled, StoreError> {
    let rows = reader.rows(&format!("{STATES} LIMIT {STATES_MAX}"), &[&incident.to_string()]).await?;
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let states = rows.iter().map(|row| IncidentState {
        severity: Severity::parse(&text(row, "severity")).unwrap_or(Severity::High),
        tenant_id: text(row, "tenant_id"),
        user_id: text(row, "user_id"),
        app_id: text(row, "app_id"),
    });
    let states = states.collect();
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
            json!({"incident_id": incident, "opened_at": 5, "changed_at": revoked_at, "revoked_at": revoked_at,
                "used_at": 0, "expires_at": 0, "version": 3, "assignee": "ana"})
        };
        let rows = [row("INC-0000000000000001", 7), row("INC-0000000000000001", 0), row("INC-0000000000000002", 8)];
        let found = grouped(&rows, 3);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].version, found[0].changed_at, &*found[0].assignee), (3, 7, "ana"));
        let subject = |revoked| Subject { revoked, used: None, expires: None };
        assert_eq!(found[0].subjects, [subject(Some(7)), subject(None)]);
        assert_eq!(grouped(&rows, 2).len(), 1, "the last one may be incomplete");
    }
}
