//! Messages that commands send to users. The limits of `[notify_users]` do not apply, because a person has decided.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::delivery;
use super::failure::Failure;
use crate::config::Config;
use crate::number::hex;
use crate::port::{Clock, UserMessage};
use crate::telemetry::SystemClock;

/// Results of messages.
#[derive(Default)]
pub(super) struct Sent {
    /// A line for each message and channel, and for each problem.
    pub(super) lines: Vec<String>,
    pub(super) accepted: usize,
    pub(super) failed: usize,
}

/// Sends each message by all channels that reach its user. Nothing is sent without `[notify_users]`.
pub(super) async fn send(config: &Config, messages: &[UserMessage]) -> Result<Sent, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut sent = Sent::default();
    let Some(users) = delivery::users(config, &clock)? else { return Ok(sent) };
    for message in messages {
        let (text, problem) = users.texts.of(message);
        sent.lines.extend(problem.map(|problem| format!("the text of the build is used: {problem}")));
        let mut reached = users.notifiers.iter().filter(|notifier| notifier.receiver(message).is_some()).peekable();
        let user = &message.user_id;
        if reached.peek().is_none() {
            sent.lines.push(format!("{user}: no message, because the id is not a mail address of an allowed domain"));
        }
        for notifier in reached {
            let result = match notifier.notify(message, &text, &key(message)).await {
                Ok(_) => {
                    sent.accepted += 1;
                    "informed".to_owned()
                }
                Err(error) => {
                    sent.failed += 1;
                    error.to_string()
                }
            };
            sent.lines.push(format!("{user} by {}: {result}", notifier.name()));
        }
    }
    Ok(sent)
}

/// The idempotency key of a message: the same in each run. Clients choose the names, so a collision-resistant hash is used.
fn key(message: &UserMessage) -> String {
    let UserMessage { kind, tenant_id, user_id, about, .. } = message;
    let user = Sha256::digest(format!("{} {tenant_id} {user_id}", tenant_id.len()));
    format!("notice-user-{about}-{}-{}", kind.as_str(), hex(&user[..16]))
}
