//! Revocation of the grants that a user had before a credential change, if `revoke.on_credential_changed` allows it.
//!
//! ClickHouse has the `credential_changed` events and the grants, so nothing is requested without it: the events are read
//! when it is available again. Only events of trusted topics count, because a stranger could otherwise end the grants of
//! any user. The revocations are an incident in the outbox, with the limits, the pause and the rows of every revocation.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use crate::by_hand::{ACCEPTED, Grant, Moment, Scope, SearchError, Subject, Unit, search};
use crate::deliver::Outbox;
use crate::event::{BaselineId, Timestamp, TokenType};
use crate::line::private;
use crate::lock::unpoisoned;
use crate::millis::{DAY_MS, HOUR_MS};
use crate::number::grouped;
use crate::port::{Clock, Outbox as _, Radius, Rows as _, Store as _, StoreError};
use crate::store::{ClickHouse, EpochRows, Reader, StoreSettings};
use crate::telemetry::{Condition, Health};
use crate::verdict::{
    Action, CampaignId, Incident, IncidentId, Mode, RuleId, Severity, Signal, Target, VICTIMS_MAX, Verdict, Victim,
};

/// Time between two searches for events.
const LOOK_WAIT: Duration = Duration::from_secs(5);
/// Events of another member may be stored so much later than they were received.
const LATE_MS: i64 = HOUR_MS;
/// Maximum distance of an event's time from its receipt: `detection.clock_skew_ms_max` is one day by default.
const SKEW_MS: i64 = 2 * DAY_MS;
/// Maximum number of events of one search. More are no changes by single users, and nothing is requested.
const CHANGES_MAX: usize = 50_000;
/// Maximum number of grants of one user.
const GRANTS_MAX: usize = 1_000;
/// File in the folder of the outbox with the time up to which events are handled.
pub const CURSOR_FILE: &str = "credential-changes";

/// What the search needs.
pub struct CredentialChanges {
    pub settings: StoreSettings,
    pub store: Arc<ClickHouse>,
    pub outbox: Arc<Outbox>,
    pub clock: Arc<dyn Clock>,
    pub health: Arc<Health>,
    /// What one request of the provider ends.
    pub radius: Option<Radius>,
    /// Whether the provider revokes only single tokens.
    pub of_tokens: bool,
    pub mode: Mode,
    /// The topics whose events are trusted.
    pub topics: Vec<String>,
    /// Folder of the outbox.
    pub folder: PathBuf,
    /// Incidents of the events that this process has handled.
    pub handled: Mutex<HashSet<u64>>,
}

/// A credential change of a user.
struct Change {
    tenant_id: String,
    user_id: String,
    event_id: String,
    /// Event time, at most the time of receipt, milliseconds since the epoch.
    at: i64,
}

impl CredentialChanges {
    /// Handles events until the process ends.
    pub(crate) async fn run(self) {
        loop {
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "credential changes are not handled; retrying");
            }
            self.clock.sleep(LOOK_WAIT).await;
        }
    }

    /// Handles the events since the last call. The first call of all only notes the time. Returns the number of
    /// incidents that were put into the outbox.
    pub async fn look(&self) -> Result<usize, SearchFailure> {
        let now = self.clock.now_millis();
        let cursor = std::fs::read_to_string(self.cursor_file()).ok().and_then(|text| text.parse().ok());
        let Some(cursor) = cursor else {
            tracing::info!("credential changes from now on revoke earlier grants");
            self.note(now)?;
            return Ok(0);
        };
        // Rows of events that were received long ago may wait in the spool.
        if self.health.holds(Condition::Store, now) {
            return Ok(0);
        }
        let reader = Reader::open(&self.settings).await?;
        let done = self.look_in(&reader, cursor).await;
        reader.close().await;
        let incidents = done?;
        self.note(cursor.max(now - LATE_MS))?;
        Ok(incidents)
    }

    async fn look_in(&self, reader: &Reader, cursor: i64) -> Result<usize, SearchFailure> {
        let (mut incidents, mut seen) = (0, HashSet::new());
        for change in self.changes(reader, cursor).await? {
            let id = change.incident();
            seen.insert(id.0);
            if unpoisoned(&self.handled).contains(&id.0) {
                continue;
            }
            if self.outbox.has_incident(id) || !is_stored(reader, id).await? {
                match self.handle(reader, &change).await {
                    Ok(has_grants) => incidents += usize::from(has_grants),
                    Err(SearchFailure::TooMany) => {
                        tracing::error!(incident = %id, "too many grants of a user; no revocation is requested");
                    }
                    Err(error) => return Err(error),
                }
            }
            unpoisoned(&self.handled).insert(id.0);
        }
        unpoisoned(&self.handled).retain(|id| seen.contains(id));
        Ok(incidents)
    }

    async fn changes(&self, reader: &Reader, cursor: i64) -> Result<Vec<Change>, StoreError> {
        let sql = format!(
            "SELECT tenant_id, user_id, event_id, \
                 toUnixTimestamp64Milli(least(min(timestamp), min(ingested_at))) AS at FROM token_events \
             WHERE {ACCEPTED} AND kind = 'credential_changed' AND user_id != '' AND source_topic IN ({}) \
                 AND timestamp >= fromUnixTimestamp64Milli(toInt64(?)) \
                 AND ingested_at >= fromUnixTimestamp64Milli(toInt64(?)) \
             GROUP BY tenant_id, user_id, event_id ORDER BY min(ingested_at) LIMIT {}",
            vec!["?"; self.topics.len()].join(", "),
            CHANGES_MAX + 1
        );
        let (earliest, cursor) = ((cursor - SKEW_MS).to_string(), cursor.to_string());
        let bound = self.topics.iter().map(String::as_str).chain([&*earliest, &*cursor]);
        let rows = reader.rows(&sql, &bound.collect::<Vec<_>>()).await?;
        if rows.len() > CHANGES_MAX {
            let problem = format!("more than {CHANGES_MAX} credential changes within {} h", LATE_MS / HOUR_MS);
            return Err(StoreError::Permanent(problem));
        }
        Ok(rows.iter().map(change).collect())
    }

    /// Puts the incident of a change into the outbox. Returns whether the user has grants to revoke.
    async fn handle(&self, reader: &Reader, change: &Change) -> Result<bool, SearchFailure> {
        let scope = Scope {
            subject: Subject::User,
            id: change.user_id.clone(),
            tenant: Some(change.tenant_id.clone()),
            since: None,
            issued_before: Some(Moment { text: String::new(), millis: change.at }),
        };
        let unit = if self.of_tokens { Unit::Token } else { Unit::Grant };
        let mut grants = search(reader, &scope, unit).await?;
        let found = grants.len();
        // An event of one user that names the grant of another must not end that grant.
        grants.retain(|grant| grant.users <= 1);
        grants.truncate(GRANTS_MAX);
        if self.radius.is_some_and(|radius| radius >= Radius::User) {
            // One request ends all grants of the user.
            grants.truncate(1);
        }
        let left = found - grants.len();
        if left > 0 {
            tracing::warn!(incident = %change.incident(), left, "grants are not requested after a credential change");
        }
        let incidents = self.incidents(change, &grants);
        if incidents.is_empty() {
            return Ok(false);
        }
        self.outbox.take(&incidents)?;
        let mut rows = EpochRows::new();
        for incident in &incidents {
            rows.push_incident(incident);
        }
        self.store.write(&rows).await?;
        Ok(true)
    }

    /// One change of the incident for each grant.
    fn incidents(&self, change: &Change, grants: &[Grant]) -> Vec<Incident> {
        let at = Timestamp::from_millis(change.at).unwrap_or_default();
        let id = change.incident();
        let victims: Vec<Victim> = grants.iter().take(VICTIMS_MAX).map(victim).collect();
        let reason = format!(
            "the credential of the user changed; {} issued before",
            if grants.len() == 1 {
                "1 grant was".to_owned()
            } else {
                format!("{} grants were", grouped(grants.len() as u64))
            }
        );
        let signal = Signal {
            rule: RuleId::StaleAfterCredentialChange,
            share: 0.0,
            p_value: 1.0,
            fired: true,
            observed: "a credential_changed event of a trusted topic".to_owned(),
            expected: String::new(),
            reason: reason.clone(),
        };
        let incident = |(number, grant): (u32, &Grant)| {
            let is_token = self.of_tokens || grant.family_id.is_empty();
            let target =
                if is_token { Target::Token(grant.token_id.clone()) } else { Target::Family(grant.family_id.clone()) };
            Incident {
                id,
                opened_at: at,
                updated_at: at,
                severity: Severity::Medium,
                verdict: Verdict::Revoke,
                baseline: BaselineId(id.0),
                subject: target.id().to_owned(),
                tenant_id: change.tenant_id.clone(),
                token_id: grant.token_id.clone(),
                family_id: grant.family_id.clone(),
                user_id: change.user_id.clone(),
                app_id: grant.app_id.clone(),
                token_type: TokenType::Other,
                expires_at: None,
                event_id: change.event_id.clone(),
                change: hash(&[&id.to_string(), target.kind(), target.id()]),
                campaign_id: CampaignId(id.0),
                victims: victims.clone(),
                victims_total: number + 1,
                tenant_is_new: false,
                log_odds: 0.0,
                signals: vec![signal.clone()],
                reason: reason.clone(),
                action: if is_token { Action::RevokeToken } else { Action::RevokeFamily },
                mode: self.mode,
                report: true,
                revoke: Some(target),
            }
        };
        (0..).zip(grants).map(incident).collect()
    }

    fn cursor_file(&self) -> PathBuf {
        self.folder.join(CURSOR_FILE)
    }

    fn note(&self, cursor: i64) -> std::io::Result<()> {
        let draft = self.folder.join(format!("{CURSOR_FILE}.new"));
        let mut file = private().truncate(true).open(&draft)?;
        file.write_all(cursor.to_string().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(draft, self.cursor_file())
    }
}

impl Change {
    /// The same at every member and after a restart.
    fn incident(&self) -> IncidentId {
        IncidentId(hash(&["credential", &self.tenant_id, &self.user_id, &self.event_id, &self.at.to_string()]))
    }
}

/// Why credential changes are not handled.
#[derive(Debug, thiserror::Error)]
pub enum SearchFailure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Disk(#[from] std::io::Error),
    #[error("more grants match than a search returns")]
    TooMany,
}

impl From<SearchError> for SearchFailure {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Store(error) => Self::Store(error),
            SearchError::Ambiguous { .. } | SearchError::TooMany => Self::TooMany,
        }
    }
}

/// Whether a member has handled the change: it stores the incident after its outbox has it.
async fn is_stored(reader: &Reader, id: IncidentId) -> Result<bool, StoreError> {
    let rows = reader.rows("SELECT 1 FROM incidents WHERE incident_id = ? LIMIT 1", &[&id.to_string()]).await?;
    Ok(!rows.is_empty())
}

fn change(row: &Value) -> Change {
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let at = row["at"].as_i64().unwrap_or_default();
    Change { tenant_id: text("tenant_id"), user_id: text("user_id"), event_id: text("event_id"), at }
}

fn victim(grant: &Grant) -> Victim {
    Victim {
        token_id: grant.token_id.clone(),
        family_id: grant.family_id.clone(),
        user_id: grant.user_id.clone(),
        app_id: grant.app_id.clone(),
    }
}

/// Hash of texts of which none can continue in the next.
fn hash(parts: &[&str]) -> u64 {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part.as_bytes());
    }
    xxh3_64(&bytes)
}
