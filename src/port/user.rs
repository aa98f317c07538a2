//! Messages to the users whose access was revoked.

use serde::{Deserialize, Serialize};

use crate::verdict::IncidentId;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserMessageKind {
    /// Access of the user was revoked.
    Revoked,
    /// It was revoked although the user had used it.
    RevokedByMistake,
}

impl UserMessageKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::RevokedByMistake => "revoked_by_mistake",
        }
    }
}

/// A message to one user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserMessage {
    pub kind: UserMessageKind,
    pub tenant_id: String,
    pub user_id: String,
    pub incident: IncidentId,
    /// Time of the revocation, or of the feedback, milliseconds since the epoch, wall clock.
    pub at: i64,
}

/// The text of a message. It contains no value of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserText {
    pub subject: String,
    pub body: String,
}
