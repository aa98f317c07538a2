//! Meaning of a receiver's answer.

use std::time::Duration;

use serde::Deserialize;

use crate::outgoing::{BodyTest, error_code};
use crate::port::DeliveryError;

/// The answer to a request.
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    /// The first bytes of the body.
    pub(super) body: &'a [u8],
}

/// The keys of a preset that classify an answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AnswerSettings {
    /// Statuses of an accepted message. The default is every 2xx.
    accepted: Option<Vec<u16>>,
    /// Content of the body that an accepted message has as well.
    pub(super) accepted_when: Option<BodyTest>,
    /// Statuses of a message that no retry delivers.
    rejected: Option<Vec<u16>>,
    pub(super) rejected_when: Option<BodyTest>,
    /// Content of a body after which a retry may succeed, whatever the status.
    pub(super) retry_when: Option<BodyTest>,
}

/// Statuses that reject the message itself, unless the preset has others: RFC 9110 section 15.5.
const REJECTED: [u16; 5] = [400, 410, 413, 415, 422];

impl AnswerSettings {
    /// Whether the receiver accepted the message.
    ///
    /// Every failure that an operator can remove, such as a wrong token, is retried, so that no alert is lost. Redirects,
    /// and what the receiver rejects in the message itself, are permanent. The error repeats nothing of the body except
    /// an error code.
    pub(super) fn classify(&self, answer: &Answer<'_>) -> Result<(), DeliveryError> {
        let Answer { status, retry_after, body } = *answer;
        let holds = |test: &Option<BodyTest>| test.as_ref().is_some_and(|test| test.holds(body));
        let lists = |statuses: &Option<Vec<u16>>| statuses.as_ref().map(|statuses| statuses.contains(&status));
        let code = error_code(body).map_or_else(String::new, |code| format!(" ({code})"));
        let reason = format!("the channel answered {status}{code}");
        if holds(&self.retry_when) {
            return Err(DeliveryError::Retriable { reason, status, retry_after });
        }
        if holds(&self.rejected_when) {
            return Err(DeliveryError::Permanent { reason, status });
        }
        if lists(&self.accepted).unwrap_or((200..300).contains(&status)) {
            return match &self.accepted_when {
                Some(test) if !test.holds(body) => {
                    let reason = format!("{reason}, and the body does not confirm the message");
                    Err(DeliveryError::Retriable { reason, status, retry_after })
                }
                _ => Ok(()),
            };
        }
        if (300..400).contains(&status) {
            let reason = format!("{reason}; redirects are not followed");
            return Err(DeliveryError::Permanent { reason, status });
        }
        if lists(&self.rejected).unwrap_or_else(|| REJECTED.contains(&status)) {
            return Err(DeliveryError::Permanent { reason, status });
        }
        Err(DeliveryError::Retriable { reason, status, retry_after })
    }
}
