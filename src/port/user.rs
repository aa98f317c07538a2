//! Messages to the users whose access was revoked.

use std::fmt;

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

/// What a user can name when asking about a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reference {
    Incident(IncidentId),
    /// A job of `tokenwarden revoke`.
    Job(String),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incident(incident) => incident.fmt(f),
            Self::Job(job) => f.write_str(job),
        }
    }
}

/// A message to one user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserMessage {
    pub kind: UserMessageKind,
    pub tenant_id: String,
    pub user_id: String,
    /// Earlier versions stored the incident under its name.
    #[serde(alias = "incident")]
    pub about: Reference,
    /// Time of the revocation, or of the feedback, milliseconds since the epoch, wall clock.
    pub at: i64,
}

/// The text of a message. It contains no value of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserText {
    pub subject: String,
    pub body: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_of_an_earlier_version_is_read() {
        let message = UserMessage {
            kind: UserMessageKind::Revoked,
            tenant_id: "acme".to_owned(),
            user_id: "ana".to_owned(),
            about: Reference::Incident(IncidentId(0x42)),
            at: 7,
        };
        let text = serde_json::to_string(&message).expect("JSON");
        assert_eq!(
            serde_json::from_str::<UserMessage>(&text.replace("about", "incident")).expect("a message"),
            message
        );
        let of_job = UserMessage { about: Reference::Job("HAND-1".to_owned()), ..message };
        let text = serde_json::to_string(&of_job).expect("JSON");
        assert_eq!(serde_json::from_str::<UserMessage>(&text).expect("a message"), of_job);
    }
}
