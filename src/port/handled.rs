//! Steps in the work on an incident, for receivers that keep a state of it.

use serde::{Deserialize, Serialize};

use crate::verdict::{IncidentId, Severity};

/// Maximum number of [`IncidentState`]s.
pub(crate) const STATES_MAX: usize = 20;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandledStep {
    /// An analyst works on the incident.
    Acknowledged,
    Resolved,
    /// The incident is open. For receivers whose alerts expire.
    Open,
}

/// Values of an incident in one of its messages. Some receivers identify an alert by them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentState {
    pub severity: Severity,
    pub tenant_id: String,
    pub user_id: String,
    pub app_id: String,
}

/// A step in the work on an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handled {
    pub incident: IncidentId,
    pub step: HandledStep,
    /// Time of the first event, milliseconds since the epoch.
    pub opened_at: i64,
    /// The distinct ones, at most [`STATES_MAX`].
    pub states: Vec<IncidentState>,
}
