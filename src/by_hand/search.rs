//! Finds the grants of a user, an application, a session or a token in `token_events`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::port::StoreError;
use crate::store::Reader;

/// Maximum number of grants of one job. More are refused, because an operator cannot check them.
const GRANTS_MAX: usize = 200_000;
/// Maximum number of tenants that an error lists.
const TENANTS_SHOWN_MAX: usize = 20;

/// What an operator names by an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    /// A `token_id`: its grant, or the token itself if it has none.
    Token,
    /// A `family_id`.
    Grant,
    /// A `session_id`.
    Session,
    User,
    App,
}

impl Subject {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Grant => "grant",
            Self::Session => "session",
            Self::User => "user",
            Self::App => "app",
        }
    }

    /// SQL condition for its events. The question mark stands for the id.
    const fn condition(self) -> &'static str {
        match self {
            Self::Token => "token_id = ?",
            Self::Grant => "family_id = ?",
            Self::Session => "session_id = ?",
            Self::User => "user_id = ?",
            Self::App => "app_id = ?",
        }
    }
}

/// A time as the operator wrote it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// As written, for example `2h`.
    pub(crate) text: String,
    /// Milliseconds since the epoch.
    pub(crate) millis: i64,
}

/// Equal if they were written alike: `2h` names another time at each start, and is the same command.
impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// What an operator wants to revoke.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scope {
    pub(crate) subject: Subject,
    pub(crate) id: String,
    /// `None`: the only tenant that has the id. Empty: events without a tenant.
    pub(crate) tenant: Option<String>,
    /// Only grants with an accepted use at or after this time.
    pub(crate) since: Option<Moment>,
    /// Only grants that were issued before this time. A grant whose time of issue is unknown counts from its first event.
    pub(crate) issued_before: Option<Moment>,
}

/// What one row of the result stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A grant, or a token without one.
    Grant,
    /// A token, for a provider that revokes only single tokens.
    Token,
}

/// A grant or token to revoke, with the values that a request may name. Texts that are not known are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    pub(crate) tenant_id: String,
    pub(crate) user_id: String,
    pub(crate) app_id: String,
    pub(crate) family_id: String,
    /// The session that was seen last.
    #[serde(default)]
    pub(crate) session_id: String,
    /// The token that was seen last.
    pub(crate) token_id: String,
    /// The last accepted use, milliseconds since the epoch.
    pub(crate) last_use: Option<i64>,
    /// Number of stored events. 0: nothing is known.
    pub(crate) events: u64,
    /// Number of users in these events. A grant belongs to one.
    pub(crate) users: u64,
}

/// The result of a search.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    /// The last used first.
    pub(crate) grants: Vec<Grant>,
    /// Why nothing is known, if the search was not possible or found nothing and the id alone is used.
    pub(crate) unknown: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SearchError {
    #[error("the id occurs in {tenants} tenants: {list}. Choose one with --tenant (\"\" for events without a tenant)")]
    Ambiguous { tenants: usize, list: String },
    #[error("more than {GRANTS_MAX} grants match; narrow them down with --since, --issued-before or --tenant")]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Finds the grants of `scope`. Refuses an id that several tenants have.
pub(crate) async fn search(reader: &Reader, scope: &Scope, unit: Unit) -> Result<Vec<Grant>, SearchError> {
    let condition = scope.subject.condition();
    if scope.tenant.is_none() {
        let tenants =
            format!("SELECT DISTINCT tenant_id FROM token_events WHERE {ACCEPTED} AND {condition} ORDER BY tenant_id");
        let tenants = reader.rows(&tenants, &[&scope.id]).await?;
        if tenants.len() > 1 {
            let shown = tenants.iter().take(TENANTS_SHOWN_MAX).map(|row| format!("{:?}", text(row, "tenant_id")));
            let mut list = shown.collect::<Vec<_>>().join(", ");
            if tenants.len() > TENANTS_SHOWN_MAX {
                list.push_str(", …");
            }
            return Err(SearchError::Ambiguous { tenants: tenants.len(), list });
        }
    }
    let (sql, bound) = statement(scope, unit);
    let rows = reader.rows(&sql, &bound.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    if rows.len() > GRANTS_MAX {
        return Err(SearchError::TooMany);
    }
    Ok(rows.iter().map(|row| grant(row, scope)).collect())
}

/// The id alone, for an operator who must revoke while nothing is known about it. `None` if the subject needs a search,
/// or if the scope has a condition that only a search can check.
pub(crate) fn unknown(scope: &Scope, why: String) -> Option<Found> {
    if scope.since.is_some() || scope.issued_before.is_some() {
        return None;
    }
    let mut grant = Grant { tenant_id: scope.tenant.clone().unwrap_or_default(), ..Grant::default() };
    match scope.subject {
        Subject::Token => grant.token_id.clone_from(&scope.id),
        Subject::Grant => grant.family_id.clone_from(&scope.id),
        Subject::Session | Subject::User | Subject::App => return None,
    }
    Some(Found { grants: vec![grant], unknown: Some(why) })
}

/// Condition for events whose credential was accepted ([`crate::event::Event::is_attempt`]). Anyone can send a rejected
/// credential with the ids of others, so that attempts must not choose what is revoked.
pub(crate) const ACCEPTED: &str = "status != 401 AND NOT (status = 400 AND kind = 'refreshed')";

/// Condition for accepted events whose status shows that the service has checked the credential
/// ([`crate::event::Event::is_unchecked`]). Anyone can cause the other statuses without a credential.
pub(crate) const CHECKED: &str = "NOT (status BETWEEN 1 AND 199 OR status >= 500 \
    OR status IN (400, 407, 408, 413, 414, 421, 425, 429, 431) \
    OR status = 0 AND position(attrs['unreadable_fields'], 'status: ') > 0)";

/// The query and its bound values. A token belongs to its grant. All accepted events of a grant count, also those that do
/// not name the subject, so that the user and the last use are known.
fn statement(scope: &Scope, unit: Unit) -> (String, Vec<String>) {
    let key = match unit {
        Unit::Grant => "tenant_id, family_id, if(family_id = '', token_id, '')",
        Unit::Token => "tenant_id, token_id",
    };
    let mut bound = vec![scope.id.clone()];
    let mut condition = scope.subject.condition().to_owned();
    if let Some(tenant) = &scope.tenant {
        condition.push_str(" AND tenant_id = ?");
        bound.push(tenant.clone());
    }
    let mut having = Vec::new();
    if let Some(since) = &scope.since {
        having.push("last_use >= toInt64(?)");
        bound.push(since.millis.to_string());
    }
    if let Some(before) = &scope.issued_before {
        having.push("issued < toInt64(?)");
        bound.push(before.millis.to_string());
    }
    let having = if having.is_empty() { String::new() } else { format!("HAVING {} ", having.join(" AND ")) };
    let sql = format!(
        "SELECT tenant_id, anyIf(family_id, family_id != '') AS family, argMax(token_id, timestamp) AS token, \
         argMaxIf(user_id, timestamp, user_id != '') AS user, argMaxIf(app_id, timestamp, app_id != '') AS app, \
         argMaxIf(session_id, timestamp, session_id != '') AS session, \
         toUnixTimestamp64Milli(maxIf(timestamp, kind IN ('use', 'refreshed'))) AS last_use, \
         toUnixTimestamp64Milli(min(ifNull(issued_at, timestamp))) AS issued, count() AS events, \
         uniqExactIf(user_id, user_id != '') AS users \
         FROM token_events WHERE {ACCEPTED} AND ({key}) GLOBAL IN \
             (SELECT {key} FROM token_events WHERE {ACCEPTED} AND {condition}) \
         GROUP BY {key} {having}ORDER BY last_use DESC, tenant_id, family, token LIMIT {}",
        GRANTS_MAX + 1
    );
    (sql, bound)
}

/// The user, application or session of the scope has precedence over those in the events of the grant, so that a request
/// about a user never names another one.
fn grant(row: &Value, scope: &Scope) -> Grant {
    let known = |subject: Subject, name: &str| {
        if scope.subject == subject { scope.id.clone() } else { text(row, name) }
    };
    Grant {
        tenant_id: text(row, "tenant_id"),
        user_id: known(Subject::User, "user"),
        app_id: known(Subject::App, "app"),
        family_id: text(row, "family"),
        session_id: known(Subject::Session, "session"),
        token_id: text(row, "token"),
        // The maximum of no uses is the epoch.
        last_use: row["last_use"].as_i64().filter(|millis| *millis > 0),
        events: row["events"].as_u64().unwrap_or_default(),
        users: row["users"].as_u64().unwrap_or_default(),
    }
}

fn text(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_id_needs_no_search_only_without_conditions() {
        let scope = |subject| Scope { subject, id: "x".into(), tenant: None, since: None, issued_before: None };
        let found = |scope: &Scope| unknown(scope, "away".into()).map(|found| found.grants);
        let named = |token: &str, family: &str| {
            Some(vec![Grant { token_id: token.into(), family_id: family.into(), ..Grant::default() }])
        };
        assert_eq!(found(&scope(Subject::Token)), named("x", ""));
        assert_eq!(found(&scope(Subject::Grant)), named("", "x"));
        for subject in [Subject::Session, Subject::User, Subject::App] {
            assert_eq!(found(&scope(subject)), None, "{subject:?}");
        }
        let since = Some(Moment { text: "2h".into(), millis: 0 });
        assert_eq!(found(&Scope { since, ..scope(Subject::Token) }), None);
    }

    #[test]
    fn ids_are_bound_and_never_part_of_the_statement() {
        let hostile = "x' OR 1 = 1 -- ?";
        let moment = |text: &str, millis| Some(Moment { text: text.to_owned(), millis });
        let scope = Scope {
            subject: Subject::User,
            id: hostile.to_owned(),
            tenant: Some(hostile.to_owned()),
            since: moment("2h", 5),
            issued_before: moment("1h", 6),
        };
        for unit in [Unit::Grant, Unit::Token] {
            let (sql, bound) = statement(&scope, unit);
            assert!(!sql.contains("OR 1"), "{sql}");
            assert_eq!(sql.matches('?').count(), bound.len());
            assert_eq!(bound, [hostile, hostile, "5", "6"]);
        }
    }

    #[test]
    fn relative_times_written_alike_are_the_same_command() {
        let moment = |text: &str, millis| Moment { text: text.to_owned(), millis };
        assert_eq!(moment("2h", 1), moment("2h", 2));
        assert_ne!(moment("2h", 1), moment("3h", 1));
    }
}
