//! What the API shows: the grants of a user, and the revocations of them, from the store.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};

use super::caller::{BY, Caller};
use crate::by_hand::{ACCEPTED, Grant, Scope, SearchError, Subject, Unit, search};
use crate::millis::{HOUR_MS, rfc3339};
use crate::port::StoreError;
use crate::store::{Reader, StoreSettings};
use crate::verdict::{Severity, Target};

/// Maximum number of grants in an answer.
const GRANTS_MAX: usize = 1_000;
/// Maximum number of revocations in an answer.
const ACTIONS_MAX: usize = 200;
/// Scopes of a grant that an answer lists.
const SCOPES_MAX: usize = 100;
/// Time limit of the queries of one request.
const QUERY_WAIT: Duration = Duration::from_secs(10);
/// Maximum number of requests that read the store at once. The others wait, within the time limit.
const READS_MAX: usize = 4;
/// A grant without events since its revocation is not revoked again within this time.
const REPEAT_MS: i64 = HOUR_MS;
/// What identifies a grant, or a token without one, within a tenant.
const KEY: &str = "family_id, if(family_id = '', token_id, '')";

/// Reads the store, which is opened at the first request.
pub(super) struct Data {
    settings: StoreSettings,
    reader: Mutex<Option<Arc<Reader>>>,
    places: Semaphore,
}

/// What a user may revoke.
#[derive(Debug, Default)]
pub(super) struct Revocable {
    /// Grants of the caller alone.
    pub(super) grants: Vec<Grant>,
    /// Grants that also belong to other users, or whose user is not known.
    pub(super) shared: Vec<Grant>,
    /// Number of grants that were revoked within [`REPEAT_MS`] and have no events since.
    pub(super) already: usize,
}

/// Whether a grant belongs to the caller alone: all its accepted events name the caller, or all that report its issue, the
/// first of which was received no later than any event that does not name the caller. Any event can name any user, so one
/// event proves nothing. A token whose other events name a grant belongs to that grant. The values are those of
/// [`own_values`].
fn own_sql() -> String {
    format!(
        "(countIf(user_id != ?) = 0 OR (countIf(kind = 'issued') > 0 AND countIf(kind = 'issued' AND user_id != ?) = 0 \
             AND minIf(ingested_at, kind = 'issued') <= minIf(ingested_at, user_id != ?))) \
         AND (any(family_id) != '' OR any(token_id) GLOBAL NOT IN \
             (SELECT token_id FROM token_events WHERE {ACCEPTED} AND tenant_id = ? AND family_id != '' AND token_id GLOBAL IN \
                 (SELECT token_id FROM token_events WHERE {ACCEPTED} AND tenant_id = ? AND user_id = ? AND family_id = '')))"
    )
}

fn own_values(caller: &Caller) -> [&str; 6] {
    let Caller { tenant, user, .. } = caller;
    [user, user, user, tenant, tenant, user]
}

/// Accepted events of the grants that an accepted event of the caller names. Its values are those of [`of_caller_values`].
fn of_caller_sql() -> String {
    format!(
        "FROM token_events WHERE {ACCEPTED} AND tenant_id = ? AND ({KEY}) GLOBAL IN \
             (SELECT {KEY} FROM token_events WHERE {ACCEPTED} AND tenant_id = ? AND user_id = ?) GROUP BY {KEY}"
    )
}

fn of_caller_values(caller: &Caller) -> [&str; 3] {
    [&caller.tenant, &caller.tenant, &caller.user]
}

/// Which grants belong to the caller alone, and the time of their last event.
fn owners_sql() -> String {
    let (own, of_caller) = (own_sql(), of_caller_sql());
    format!(
        "SELECT any(family_id) AS family, any(token_id) AS token, toUnixTimestamp64Milli(max(timestamp)) AS last_event, \
         {own} AS own {of_caller}"
    )
}

/// Tokens of the caller's grants that events of several grants name.
fn ambiguous_sql() -> String {
    format!(
        "SELECT token_id AS token FROM token_events WHERE {ACCEPTED} AND tenant_id = ? AND token_id GLOBAL IN \
             (SELECT token_id FROM token_events WHERE {ACCEPTED} AND tenant_id = ? AND ({KEY}) GLOBAL IN \
                 (SELECT {KEY} FROM token_events WHERE {ACCEPTED} AND tenant_id = ? AND user_id = ?)) \
         GROUP BY token_id HAVING uniqExactIf(family_id, family_id != '') > 1"
    )
}

/// The grants of the caller.
fn grants_sql() -> String {
    let (own, of_caller) = (own_sql(), of_caller_sql());
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
         {own} AS own {of_caller} ORDER BY last_use DESC, family, token LIMIT {}",
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
    pub(super) fn of(family: &str, token: &str) -> Self {
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
        Self { settings, reader: Mutex::default(), places: Semaphore::new(READS_MAX) }
    }

    /// The body of `GET /v1/grants`.
    pub(super) async fn grants(&self, caller: &Caller) -> Result<Value, StoreError> {
        let Caller { tenant, user, .. } = caller;
        let subject = [tenant.as_str(), tenant, user];
        let read = async |reader: &Reader| {
            let values = [&own_values(caller)[..], &of_caller_values(caller)].concat();
            let grants = reader.rows(&grants_sql(), &values).await?;
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

    /// The grants of the caller, or the one with this name, at `now` in milliseconds since the epoch.
    pub(super) async fn revocable(
        &self,
        caller: &Caller,
        one: Option<&GrantName>,
        unit: Unit,
        now: i64,
    ) -> Result<Revocable, StoreError> {
        let scope = Scope {
            subject: Subject::User,
            id: caller.user.clone(),
            tenant: Some(caller.tenant.clone()),
            since: None,
            issued_before: None,
        };
        let read = async |reader: &Reader| {
            let found = match search(reader, &scope, unit).await {
                Ok(grants) => grants,
                Err(SearchError::Store(error)) => return Err(error),
                Err(error) => return Err(StoreError::Permanent(error.to_string())),
            };
            let of_caller = of_caller_values(caller);
            let owners = reader.rows(&owners_sql(), &[&own_values(caller)[..], &of_caller].concat()).await?;
            let ambiguous = reader.rows(&ambiguous_sql(), &[&of_caller[..1], &of_caller].concat()).await?;
            let actions = reader.rows(&actions_sql(), &of_caller[1..]).await?;
            Ok((found, owners, ambiguous, actions))
        };
        let (found, owners, ambiguous, actions) = self.read(read).await?;
        let last_events: HashMap<_, _> = owners
            .iter()
            .filter(|row| is_true(&row["own"]))
            .map(|row| (GrantName::of(&text(row, "family"), &text(row, "token")).text(), time(&row["last_event"])))
            .collect();
        let ambiguous: HashSet<_> = ambiguous.iter().map(|row| text(row, "token")).collect();
        let mut revocable = Revocable::default();
        for grant in found {
            let name = GrantName::of(&grant.family_id, &grant.token_id);
            if one.is_some_and(|one| *one != name) {
                continue;
            }
            match last_events.get(&name.text()) {
                Some(last) if !ambiguous.contains(&grant.token_id) => {
                    let ids = [&*grant.token_id, name.0.id()];
                    let since = (*last).max(Some(now - REPEAT_MS));
                    if is_revoked_since(&actions, &ids[usize::from(unit == Unit::Grant)..], since) {
                        revocable.already += 1;
                    } else {
                        revocable.grants.push(grant);
                    }
                }
                _ => revocable.shared.push(grant),
            }
        }
        Ok(revocable)
    }

    /// Runs `work` with a reader. A reader that failed is opened again by the next request.
    async fn read<T>(&self, work: impl AsyncFnOnce(&Reader) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let late = |_| Err(StoreError::Retriable("no answer in time".to_owned()));
        let done = async {
            let closed = |_| StoreError::Permanent("no more queries are accepted".to_owned());
            let _place = self.places.acquire().await.map_err(closed)?;
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

/// Whether the provider confirmed a revocation of one of `ids`, or of the whole user, after `since`.
fn is_revoked_since(actions: &[Value], ids: &[&str], since: Option<i64>) -> bool {
    actions.iter().any(|action| {
        let is_target = action["radius"] == "user" || action["target"].as_str().is_some_and(|id| ids.contains(&id));
        is_target && time(&action["revoked"]).is_some_and(|revoked| Some(revoked) > since)
    })
}

/// A truth value of the store, which sends numbers or booleans.
fn is_true(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_u64() == Some(1))
}

fn shown_grant(grant: &Value, incidents: &HashMap<&str, &Value>, actions: &[Value]) -> Value {
    let (family, token) = (text(grant, "family"), text(grant, "token"));
    let name = GrantName::of(&family, &token);
    if !is_true(&grant["own"]) {
        return json!({ "id": name.text(), "shared": true, "revocable": false });
    }
    let open = grant["incidents"].as_array().into_iter().flatten().filter_map(|id| incidents.get(id.as_str()?));
    let rank = |incident: &&&Value| incident["severity"].as_str().and_then(Severity::parse);
    let open = open.max_by_key(rank);
    let risk = match open {
        Some(incident) => text(incident, "severity"),
        None if is_true(&grant["suspect"]) => "watch".to_owned(),
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
        "shared": false,
        "revocable": true,
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
