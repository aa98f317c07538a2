//! What the API shows: the grants of a user, and the revocations of them, from the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::caller::{BY, Caller};
use crate::by_hand::{ACCEPTED, Scope, SearchError, Subject, Unit, search};
use crate::millis::rfc3339;
use crate::port::StoreError;
use crate::store::{Reader, StoreSettings};
use crate::verdict::Target;

/// Maximum number of grants and of revocations in an answer.
const GRANTS_MAX: usize = 1_000;
const ACTIONS_MAX: usize = 200;
/// Scopes of a grant that an answer lists.
const SCOPES_MAX: usize = 100;
/// Time limit of the queries of one request.
const QUERY_WAIT: Duration = Duration::from_secs(10);

/// Reads the store, which is opened at the first request.
pub(super) struct Data {
    settings: StoreSettings,
    reader: Mutex<Option<Arc<Reader>>>,
}

/// The grants of the caller. All accepted events of a grant count, so that it is known whether it has other users.
fn grants_sql() -> String {
    let key = "family_id, if(family_id = '', token_id, '')";
    format!(
        "SELECT any(family_id) AS family, argMax(token_id, timestamp) AS token, \
         argMaxIf(app_id, timestamp, app_id != '') AS app, \
         arraySlice(arraySort(groupUniqArrayArray(scopes)), 1, {SCOPES_MAX}) AS granted, \
         toUnixTimestamp64Milli(min(timestamp)) AS first_seen, \
         toUnixTimestamp64Milli(maxIf(timestamp, kind IN ('use', 'refreshed'))) AS last_use, \
         argMaxIf(country, timestamp, country != '') AS last_country, \
         argMaxIf(city, timestamp, country != '') AS last_city, \
         toUnixTimestamp64Milli(maxIf(timestamp, kind = 'revoked')) AS revoked, \
         max(verdict != 'allow' AND timestamp > now64(3) - INTERVAL 30 DAY) AS suspect, \
         groupUniqArrayIf(20)(incident_id, incident_id != '') AS incidents, \
         uniqExactIf(user_id, user_id != '') AS users \
         FROM token_events WHERE {ACCEPTED} AND tenant_id = ? AND ({key}) GLOBAL IN \
             (SELECT {key} FROM token_events WHERE {ACCEPTED} AND tenant_id = ? AND user_id = ?) \
         GROUP BY {key} ORDER BY last_use DESC, family, token LIMIT {}",
        GRANTS_MAX + 1
    )
}

/// The incidents of the caller's events that are not resolved, or that changed since.
const INCIDENTS: &str = "SELECT latest.incident_id AS id, latest.severity AS severity, \
    toUnixTimestamp64Milli(latest.opened_at) AS opened_at \
    FROM incidents_latest AS latest \
    LEFT JOIN incident_work_latest AS work ON work.incident_id = latest.incident_id \
    WHERE latest.tenant_id = ? AND latest.incident_id GLOBAL IN \
        (SELECT incident_id FROM token_events WHERE tenant_id = ? AND user_id = ? AND incident_id != '') \
    AND (work.version = 0 OR work.status != 'resolved' OR latest.written_at > work.changed_at)";

/// Revocations of the caller's tokens, the newest first. Rows of attempt 0 are previews of commands.
fn actions_sql() -> String {
    format!(
        "SELECT toUnixTimestamp64Milli(requested_at) AS requested, kind, target, outcome, radius, requested_by, \
         toUnixTimestamp64Milli(revoked_at) AS revoked, toUnixTimestamp64Milli(verified_at) AS verified \
         FROM actions WHERE tenant_id = ? AND user_id = ? AND startsWith(kind, 'revoke_') AND attempt > 0 \
         ORDER BY requested_at DESC, action_id, attempt DESC LIMIT {ACTIONS_MAX}"
    )
}

/// The name of a grant in the API: the kind of its id, and the id in base64url, so that any id is one segment of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GrantName(pub(super) Target);

impl GrantName {
    /// A grant, or a token without one.
    fn of(family: &str, token: &str) -> Self {
        let is_token = family.is_empty();
        Self(if is_token { Target::Token(token.to_owned()) } else { Target::Family(family.to_owned()) })
    }

    /// `None` if `text` is no name that [`Self::text`] returns.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (kind, id) = text.split_once('.')?;
        let id = String::from_utf8(URL_SAFE_NO_PAD.decode(id).ok()?).ok().filter(|id| !id.is_empty())?;
        match kind {
            "grant" => Some(Self(Target::Family(id))),
            "token" => Some(Self(Target::Token(id))),
            _ => None,
        }
    }

    fn text(&self) -> String {
        let kind = match &self.0 {
            Target::Family(_) => "grant",
            Target::Token(_) => "token",
        };
        format!("{kind}.{}", URL_SAFE_NO_PAD.encode(self.0.id()))
    }
}

impl Data {
    pub(super) fn new(settings: StoreSettings) -> Self {
        Self { settings, reader: Mutex::default() }
    }

    /// The body of `GET /v1/grants`.
    pub(super) async fn grants(&self, caller: &Caller) -> Result<Value, StoreError> {
        let Caller { tenant, user, .. } = caller;
        let subject = [tenant.as_str(), tenant, user];
        let read = async |reader: &Reader| {
            let grants = reader.rows(&grants_sql(), &subject).await?;
            let incidents = reader.rows(INCIDENTS, &subject).await?;
            let actions = reader.rows(&actions_sql(), &subject[1..]).await?;
            Ok((grants, incidents, actions))
        };
        let (mut grants, incidents, actions) = self.read(read).await?;
        let is_truncated = grants.len() > GRANTS_MAX;
        grants.truncate(GRANTS_MAX);
        let incidents: HashMap<&str, &Value> =
            incidents.iter().filter_map(|incident| Some((incident["id"].as_str()?, incident))).collect();
        let grants: Vec<_> = grants.iter().map(|grant| shown_grant(grant, &incidents, &actions)).collect();
        Ok(json!({ "grants": grants, "truncated": is_truncated }))
    }

    /// The body of `GET /v1/history`.
    pub(super) async fn history(&self, caller: &Caller) -> Result<Value, StoreError> {
        let subject = [caller.tenant.as_str(), caller.user.as_str()];
        let actions = self.read(async |reader: &Reader| reader.rows(&actions_sql(), &subject).await).await?;
        let actions: Vec<_> = actions.iter().map(shown_action).collect();
        Ok(json!({ "actions": actions }))
    }

    /// The grants of the caller, or the one with this name. Grants that other users have, too, are left out: their
    /// revocation is for the operator.
    pub(super) async fn revocable(
        &self,
        caller: &Caller,
        one: Option<&GrantName>,
        unit: Unit,
    ) -> Result<Vec<crate::by_hand::Grant>, StoreError> {
        let scope = Scope {
            subject: Subject::User,
            id: caller.user.clone(),
            tenant: Some(caller.tenant.clone()),
            since: None,
            issued_before: None,
        };
        let found = self
            .read(async |reader: &Reader| match search(reader, &scope, unit).await {
                Ok(grants) => Ok(grants),
                Err(SearchError::Store(error)) => Err(error),
                Err(error) => Err(StoreError::Permanent(error.to_string())),
            })
            .await?;
        let is_named = |grant: &crate::by_hand::Grant| {
            one.is_none_or(|name| *name == GrantName::of(&grant.family_id, &grant.token_id))
        };
        Ok(found.into_iter().filter(|grant| grant.users <= 1 && is_named(grant)).collect())
    }

    /// Runs `work` with a reader. A reader that failed is opened again by the next request.
    async fn read<T>(&self, work: impl AsyncFnOnce(&Reader) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let late = |_| Err(StoreError::Retriable("no answer in time".to_owned()));
        let done = async {
            let reader = self.open().await?;
            let done = work(&reader).await;
            if done.is_err() {
                self.forget(&reader).await;
            }
            done
        };
        tokio::time::timeout(QUERY_WAIT, done).await.unwrap_or_else(late)
    }

    async fn open(&self) -> Result<Arc<Reader>, StoreError> {
        let mut slot = self.reader.lock().await;
        if let Some(reader) = &*slot {
            return Ok(Arc::clone(reader));
        }
        let reader = Arc::new(Reader::open(&self.settings).await?);
        *slot = Some(Arc::clone(&reader));
        Ok(reader)
    }

    async fn forget(&self, failed: &Arc<Reader>) {
        let mut slot = self.reader.lock().await;
        if slot.as_ref().is_some_and(|reader| Arc::ptr_eq(reader, failed)) {
            *slot = None;
        }
    }
}

/// `None` for the epoch, which stands for no time, and for null.
fn time(value: &Value) -> Option<i64> {
    value.as_i64().filter(|millis| *millis > 0)
}

fn text(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_default().to_owned()
}

fn shown_grant(grant: &Value, incidents: &HashMap<&str, &Value>, actions: &[Value]) -> Value {
    let (family, token) = (text(grant, "family"), text(grant, "token"));
    let name = GrantName::of(&family, &token);
    let open = grant["incidents"].as_array().into_iter().flatten().filter_map(|id| incidents.get(id.as_str()?));
    // Ordered as `Severity`.
    let rank = |incident: &&&Value| {
        let severities = ["info", "low", "medium", "high", "critical"];
        severities.iter().position(|severity| incident["severity"] == *severity)
    };
    let open = open.max_by_key(rank);
    let risk = match open {
        Some(incident) => text(incident, "severity"),
        None if grant["suspect"].as_u64() == Some(1) || grant["suspect"] == true => "watch".to_owned(),
        None => "none".to_owned(),
    };
    let first_seen = time(&grant["first_seen"]);
    let is_of_grant = |action: &&Value| {
        let is_target = action["target"] == name.0.id() || action["radius"] == "user";
        is_target && time(&action["revoked"]) >= first_seen
    };
    let by_us = actions.iter().filter(is_of_grant).filter_map(|action| time(&action["revoked"])).max();
    json!({
        "id": name.text(),
        "application": text(grant, "app"),
        "scopes": grant["granted"],
        "first_seen": first_seen.map(rfc3339),
        "last_use": time(&grant["last_use"]).map(rfc3339),
        "last_place": { "country": grant["last_country"], "city": grant["last_city"] },
        "risk": risk,
        "open_incident": open.map(|incident| json!({
            "id": incident["id"], "severity": incident["severity"],
            "opened_at": time(&incident["opened_at"]).map(rfc3339),
        })),
        "revoked_at": by_us.max(time(&grant["revoked"])).map(rfc3339),
        "revocable": grant["users"].as_u64().is_some_and(|users| users <= 1),
    })
}

fn shown_action(action: &Value) -> Value {
    let by = action["requested_by"].as_str().unwrap_or_default();
    let by = match by {
        "tokenwarden" => "tokenwarden",
        by if by.starts_with(BY) => "user",
        // Names of operators are not shown.
        _ => "operator",
    };
    json!({
        "requested_at": time(&action["requested"]).map(rfc3339),
        "kind": action["kind"],
        "target": action["target"],
        "outcome": action["outcome"],
        "radius": action["radius"],
        "revoked_at": time(&action["revoked"]).map(rfc3339),
        "verified_at": time(&action["verified"]).map(rfc3339),
        "requested_by": by,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_a_grant_is_one_path_segment() {
        for id in ["g-1", "../../v1/history", "a/b?c#d", "\u{202e}\n", "%2e%2e"] {
            for name in [GrantName::of(id, "t"), GrantName::of("", id)] {
                let text = name.text();
                assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)), "{text}");
                assert_eq!(GrantName::parse(&text), Some(name));
            }
        }
        for text in ["", ".", "..", "grant.", "grant", "user.Zy0x", "grant.!", "grant._w", "grant.Zy0x="] {
            assert_eq!(GrantName::parse(text), None, "{text}");
        }
    }
}
