//! The log of the denylist: tokens and grants that a gateway must reject although they have not expired.

use serde::{Deserialize, Serialize};

use super::record_log::{KEPT_MS, LogRecord};
use crate::verdict::Target;

/// A token or grant of one tenant. Two tenants can have grants with the same id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeniedKey {
    /// Empty for events without a tenant.
    pub tenant_id: String,
    pub target: Target,
}

/// What is recorded of a token or grant. Times are milliseconds since the epoch, wall clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denial {
    Denied {
        at: i64,
        until: i64,
    },
    /// A person has ended the denial.
    Lifted {
        at: i64,
        by: String,
        reason: String,
    },
}

/// A record of the log. A later record replaces an earlier one with the same key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenylistRecord {
    #[serde(flatten)]
    pub key: DeniedKey,
    pub denial: Denial,
}

impl LogRecord for DenylistRecord {
    type Key = DeniedKey;
    type Value = Denial;
    const NAME: &'static str = "denylist";
    const IF_LOST: &'static str = "denied tokens are accepted again";

    fn of(key: DeniedKey, denial: Denial) -> Self {
        Self { key, denial }
    }

    fn key(&self) -> &DeniedKey {
        &self.key
    }

    fn value(&self) -> &Denial {
        &self.denial
    }

    fn is_kept(&self, now: i64) -> bool {
        match self.denial {
            Denial::Denied { until, .. } => until > now,
            Denial::Lifted { at, .. } => at > now - KEPT_MS,
        }
    }
}
