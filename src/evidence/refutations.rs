//! Reads the incidents whose revocations people have refuted.

use async_trait::async_trait;
use serde_json::Value;

use crate::port::{Refutation, Refutations, StoreError};
use crate::store::{Reader, StoreSettings};
use crate::verdict::RuleId;

/// Maximum number of refutations that are read, the newest first.
const REFUTATIONS_MAX: usize = 10_000;
/// Stored events from which a tenant is known.
const KNOWN_TENANT_EVENTS: u32 = 1_000;

/// A user, or an incident without one, counts for each tenant and rule whose grant or token the service has revoked because of it. The rule is that
/// of the first change that names the target. Feedback of a clock that is ahead counts when its time is over.
fn statement() -> String {
    format!(
        "WITH \
         judged AS ( \
             SELECT incident_id, given_at FROM feedback_latest WHERE verdict IN ('false', 'benign') \
                 AND given_at > now64(3) - INTERVAL 30 DAY AND given_at <= now64(3) + INTERVAL 5 MINUTE), \
         revoked AS ( \
             SELECT incident_id, tenant_id, concat(if(kind = 'revoke_token', 'token:', 'family:'), target) AS subject, \
                 if(any(user_id) = '', concat('incident ', incident_id), concat('user ', any(user_id))) AS owner \
             FROM actions WHERE kind IN ('revoke_token', 'revoke_family') AND outcome = 'done' \
                 AND requested_by = 'tokenwarden' AND incident_id GLOBAL IN (SELECT incident_id FROM judged) \
             GROUP BY incident_id, tenant_id, subject), \
         caused AS ( \
             SELECT incident_id, tenant_id, target AS subject, argMin(rules[1], updated_at) AS rule \
             FROM incidents WHERE target != '' AND notEmpty(rules) \
                 AND incident_id GLOBAL IN (SELECT incident_id FROM judged) \
             GROUP BY incident_id, tenant_id, subject), \
         known AS ( \
             SELECT tenant_id FROM token_events WHERE tenant_id GLOBAL IN (SELECT tenant_id FROM revoked) \
             GROUP BY tenant_id HAVING count() >= {KNOWN_TENANT_EVENTS}) \
         SELECT revoked.tenant_id AS tenant, caused.rule AS rule, revoked.owner AS owner, \
             max(toUnixTimestamp64Milli(judged.given_at)) AS at, \
             tenant GLOBAL IN (SELECT tenant_id FROM known) AS is_known \
         FROM revoked \
         INNER JOIN caused ON caused.incident_id = revoked.incident_id AND caused.tenant_id = revoked.tenant_id \
             AND caused.subject = revoked.subject \
         INNER JOIN judged ON judged.incident_id = revoked.incident_id \
         GROUP BY tenant, rule, owner ORDER BY at DESC, tenant, rule, owner LIMIT {REFUTATIONS_MAX}"
    )
}

/// The refutations in a store.
#[derive(Debug)]
pub struct StoredRefutations {
    settings: StoreSettings,
}

impl StoredRefutations {
    /// Of the store of `settings`, which is opened for each reading.
    #[must_use]
    pub const fn new(settings: StoreSettings) -> Self {
        Self { settings }
    }
}

#[async_trait]
impl Refutations for StoredRefutations {
    async fn read(&self) -> Result<Vec<Refutation>, StoreError> {
        let reader = Reader::open(&self.settings).await?;
        let rows = reader.rows(&statement(), &[]).await;
        reader.close().await;
        Ok(rows?.iter().filter_map(refutation).collect())
    }
}

/// `None` for a rule of another build.
fn refutation(row: &Value) -> Option<Refutation> {
    Some(Refutation {
        tenant: row["tenant"].as_str()?.to_owned(),
        rule: RuleId::parse(row["rule"].as_str()?)?,
        at: row["at"].as_i64()?,
        is_of_known_tenant: row["is_known"].as_bool().unwrap_or_else(|| row["is_known"].as_u64() == Some(1)),
    })
}
