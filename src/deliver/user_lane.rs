//! The lanes of messages to users whose access was revoked: one for each channel.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::deliverer::Deliverer;
use super::lane::{Attempt, Trouble};
use super::outbox::{Message, What};
use super::record::{Record, Sent, Work};
use super::user_notices::{UserNotices, user_lane};
use crate::millis::DAY_MS;
use crate::number::hex;
use crate::port::{
    About, ActionOutcome, ActionRow, DeliveryError, Notice, Store, UserMessage, UserMessageKind, UserNotifier,
};
use crate::verdict::Incident;

/// Time after which a message that cannot be sent is given up.
const MESSAGE_MS_MAX: i64 = DAY_MS;

/// Identity of a user for the limits. Clients choose the names, so a collision-resistant hash is used.
fn user_key(message: &UserMessage) -> String {
    let mut hash = Sha256::new();
    for part in [&message.tenant_id, &message.user_id] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..16])
}

/// What happens to a message.
enum Fate {
    Sent,
    Retry,
    GivenUp(ActionOutcome),
}

impl<S: Store + 'static> Deliverer<S>
where
    S::Rows: 'static,
{
    /// The message to the user of `incident`, whose revocation `name` is done.
    pub(super) fn user_message(&self, incident: &Incident, name: &str) -> Option<Record> {
        let users = self.outbox.users.as_ref().filter(|_| !incident.user_id.is_empty())?;
        let at = self.clock.now_millis();
        let message = UserMessage {
            kind: UserMessageKind::Revoked,
            tenant_id: incident.tenant_id.clone(),
            user_id: incident.user_id.clone(),
            incident: incident.id,
            at,
        };
        let key = format!("notice-user-{name}");
        let reached = users.notifiers.iter().filter(|notifier| notifier.accepts(&message));
        let lanes: Vec<_> = reached.map(|notifier| user_lane(&**notifier)).collect();
        if lanes.is_empty() {
            let reason = "the user id is no mail address of an allowed domain (notify_users.domains)";
            return Some(Record::Row { row: self.user_row(&message, &key, (1, ActionOutcome::Failed), reason) });
        }
        let about = Some(Box::new(About::User(message)));
        let notice = Notice { title: "A message to a user".to_owned(), text: String::new(), at, about };
        Some(Record::Taken { key, at, work: Work::Notice(notice), lanes })
    }

    /// Sends the messages of one channel.
    pub(super) async fn send_to_users(
        &self,
        users: Arc<UserNotices>,
        notifier: Arc<dyn UserNotifier>,
        mut stop: watch::Receiver<bool>,
    ) {
        let lane = user_lane(&*notifier);
        let mut changed = self.outbox.changed.subscribe();
        let mut trouble = Trouble::default();
        let next = || self.outbox.next_message(&lane);
        while let Some(message) = self.next_task(&lane, next, &mut changed, &mut stop).await {
            let Some(to) = user_of(&message) else {
                let (key, lane, at) = (message.key.clone(), lane.clone(), self.clock.now_millis());
                let (revocation, row, channels) = (None, None, Vec::new());
                let ended = Record::Ended { key, lane: lane.clone(), revocation, row, at, channels, sent: None };
                self.record(&lane, vec![ended], &stop).await;
                continue;
            };
            let (fate, status, reason, mut records) = self.try_user(&users, &*notifier, to, &message).await;
            let attempt = message.effect.attempts + 1;
            let mut wait = None;
            let outcome = match fate {
                Fate::Sent => ActionOutcome::Done,
                Fate::Retry => ActionOutcome::Retry,
                Fate::GivenUp(outcome) => outcome,
            };
            self.metrics.delivered(&lane, outcome);
            let row = self.user_row(to, &message.key, (attempt, outcome), &reason);
            let (key, at) = (message.key.clone(), self.clock.now_millis());
            let row = Some(ActionRow { http_status: status, ..row });
            if let Fate::Retry = fate {
                trouble.again(&lane, &reason);
                wait = Some(self.wait(trouble.count, None));
                let due_at = self.due_at(attempt, None);
                let (lane, revocation) = (lane.clone(), None);
                records.push(Record::Tried { key, lane, attempt, due_at, revocation, row, at, panicked: false });
            } else {
                if outcome == ActionOutcome::Done {
                    trouble.over(&lane);
                    records.push(Record::UserInformed { lane: lane.clone(), user: user_key(to), at });
                }
                let sent = (outcome == ActionOutcome::Done).then(|| Sent::of_notice(at));
                let (lane, revocation, channels) = (lane.clone(), None, Vec::new());
                records.push(Record::Ended { key, lane, revocation, row, at, channels, sent });
            }
            self.record(&lane, records, &stop).await;
            if let Some(wait) = wait {
                self.pause(wait, &mut stop).await;
            }
        }
    }

    /// One attempt: what happens to the message, the status, the reason, and a report that the text of the operator cannot
    /// be used.
    async fn try_user(
        &self,
        users: &UserNotices,
        notifier: &dyn UserNotifier,
        to: &UserMessage,
        message: &Message,
    ) -> (Fate, u16, String, Vec<Record>) {
        let lane = user_lane(notifier);
        let now = self.clock.now_millis();
        let limit = self.outbox.inner().state.user_limit(&lane, &user_key(to), users.limits, now);
        if let Some(limit) = limit {
            return (Fate::GivenUp(ActionOutcome::Capped), 0, limit.to_owned(), Vec::new());
        }
        let (text, problem) = users.texts.of(to);
        let reports = problem.and_then(|problem| self.text_notice(&problem, now)).into_iter().collect();
        let answer = self.guarded(&lane, notifier.notify(to, &text, &message.key)).await;
        let error = match answer {
            Ok(accepted) => return (Fate::Sent, accepted.status, String::new(), reports),
            Err(failed) => failed.error,
        };
        match error {
            DeliveryError::Retriable { reason, status, .. } if now - to.at < MESSAGE_MS_MAX => {
                (Fate::Retry, status, reason, reports)
            }
            DeliveryError::Retriable { reason, status, .. } | DeliveryError::Permanent { reason, status } => {
                (Fate::GivenUp(ActionOutcome::Failed), status, reason, reports)
            }
            DeliveryError::Rejected { reason, words } => {
                (Fate::GivenUp(ActionOutcome::Failed), 0, format!("{reason}: {words}"), reports)
            }
        }
    }

    /// A notice that a text of the operator cannot be used, at most one per day.
    fn text_notice(&self, problem: &str, now: i64) -> Option<Record> {
        let text = format!(
            "{problem}. The text of the build is sent to users instead. Correct the file (notify_users.templates_dir)."
        );
        let key = format!("user-text-{}", now / DAY_MS);
        self.notice(key, "A text for users cannot be used", text, self.outbox.notice_lanes())
    }

    fn user_row(
        &self,
        message: &UserMessage,
        key: &str,
        (number, outcome): (u32, ActionOutcome),
        reason: &str,
    ) -> ActionRow {
        let attempt = Attempt {
            action_id: key.to_owned(),
            incident: None,
            kind: "notify_user".to_owned(),
            target: message.user_id.clone(),
            number,
            outcome,
            status: 0,
        };
        let row = self.row(attempt, self.clock.now_millis(), reason.to_owned());
        ActionRow { incident_id: message.incident.to_string(), ..row }
    }
}

impl<S: Store> Deliverer<S> {
    /// Whether `lane` sends messages to users.
    pub(super) fn is_user_lane(&self, lane: &str) -> bool {
        let users = self.outbox.users.iter();
        users.flat_map(|users| &users.notifiers).any(|notifier| user_lane(&**notifier) == lane)
    }
}

fn user_of(message: &Message) -> Option<&UserMessage> {
    match &message.what {
        What::Notice(notice) => notice.user(),
        What::Report(_) | What::Digest(_) => None,
    }
}
