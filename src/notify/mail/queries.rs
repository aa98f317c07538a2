//! The queries that a mail offers to the analyst, as commands for a shell.

use crate::number::hex;
use crate::verdict::Incident;

pub(super) struct Query {
    pub(crate) title: &'static str,
    pub(crate) command: String,
}

pub(super) fn queries(incident: &Incident) -> Vec<Query> {
    let id = incident.id;
    let (column, name) = match (&*incident.family_id, &*incident.token_id) {
        ("", token) => ("token_id", token),
        (family, _) => ("family_id", family),
    };
    let query = |title, sql: String| Query { title, command: format!("tokenwarden sql --config FILE \"{sql}\"") };
    let mut queries = Vec::new();
    if incident.victims_total > 1 {
        queries.push(query(
            "All grants and tokens",
            format!(
                "SELECT family_id, token_id, user_id, app_id, min(timestamp), count() FROM token_events WHERE \
                 incident_id = '{id}' GROUP BY ALL ORDER BY 5"
            ),
        ));
        queries.push(query(
            "All revocations",
            format!(
                "SELECT requested_at, kind, target, outcome, reason FROM actions WHERE incident_id = '{id}' AND kind \
                 LIKE 'revoke%' ORDER BY 1"
            ),
        ));
    }
    queries.extend([
        query(
            "Timeline of the incident",
            format!("SELECT at, what, outcome, summary FROM incident_timeline WHERE incident_id = '{id}' ORDER BY at"),
        ),
        query(
            "Calls from the suspect addresses",
            format!(
                "SELECT method, route, suspect_calls, suspect_bytes_out FROM blast_radius WHERE incident_id = '{id}' \
                 ORDER BY 3 DESC"
            ),
        ),
        query(
            if column == "token_id" { "Last uses of the token" } else { "Last uses of the grant" },
            format!(
                "SELECT timestamp, ip_address, country, as_org, method, endpoint, verdict FROM token_events WHERE \
                 {column} = {} ORDER BY timestamp DESC LIMIT 50",
                literal(name)
            ),
        ),
    ]);
    queries
}

/// `text` as an SQL string that also has no meaning to a shell inside double quotes: letters, digits and some marks are
/// kept, any other text is written in hexadecimal.
fn literal(text: &str) -> String {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/@+=".contains(&byte)) {
        return format!("'{text}'");
    }
    format!("unhex('{}')", hex(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_has_no_meaning_to_sql_or_shell() {
        assert_eq!(literal("ci-deploy.v2@x"), "'ci-deploy.v2@x'");
        assert_eq!(literal("a'; DROP"), "unhex('61273b2044524f50')");
        assert_eq!(literal("$`\\\""), "unhex('24605c22')");
    }
}
