//! The lanes of messages to users whose access was revoked: one for each channel.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::deliverer::Deliverer;
use super::lane::{Attempt, Trouble};
use super::record::{Hold, Record, Sent, Work};
use super::task::{Message, What};
use super::user_notices::{UserNotices, user_lane};
use crate::millis::DAY_MS;
use crate::number::hex;
use crate::port::{
    About, ActionOutcome, ActionRow, DeliveryError, Notice, Reference, Store, UserMessage, UserMessageKind,
    UserNotifier,
};
use crate::verdict::Incident;

/// Time after which a message that cannot be sent is given up.
const MESSAGE_MS_MAX: i64 = 2 * DAY_MS;

/// Identity of a receiver for the limits. Clients choose the names, so a collision-resistant hash is used.
fn receiver_key(receiver: &str) -> String {
    hex(&Sha256::digest(receiver)[..16])
}

/// What happens to a message.
enum Fate {
    Sent,
    Retry,
    /// A limit is reached. Sent at this time, milliseconds since the epoch, wall clock.
    Deferred(i64),
    GivenUp(ActionOutcome),
}

impl Fate {
    const fn outcome(&self) -> ActionOutcome {
        match self {
            Self::Sent => ActionOutcome::Done,
            Self::Retry => ActionOutcome::Retry,
            Self::Deferred(_) => ActionOutcome::Capped,
            Self::GivenUp(outcome) => *outcome,
        }
    }
}

/// Result of an attempt.
struct Tried {
    fate: Fate,
    status: u16,
    reason: String,
    /// Reports that the text of the operator cannot be used.
    reports: Vec<Record>,
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
            about: Reference::Incident(incident.id),
            at,
        };
        let key = format!("notice-user-{name}");
        let reached = users.notifiers.iter().filter(|notifier| notifier.receiver(&message).is_some());
        let lanes: Vec<_> = reached.map(|notifier| user_lane(&**notifier)).collect();
        if lanes.is_empty() {
            let reason = "the user id is not a mail address of an allowed domain (notify_users.domains)";
            let attempt = first_attempt(&message, &key, ActionOutcome::Failed);
            return Some(Record::Row { row: self.user_row(&message, attempt, reason) });
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
                self.record(vec![ended]);
                continue;
            };
            let receiver = receiver_key(&notifier.receiver(to).unwrap_or_default());
            let Tried { fate, status, reason, reports: mut records } =
                self.try_user(&users, &*notifier, (to, &receiver), &message).await;
            let attempt = message.effect.attempts + 1;
            let outcome = fate.outcome();
            let row = self.user_row(
                to,
                Attempt { number: attempt, status, ..first_attempt(to, &message.key, outcome) },
                &reason,
            );
            // A message that is deferred again has a row already.
            let is_counted = !(matches!(fate, Fate::Deferred(_)) && message.effect.hold == Some(Hold::Capped));
            let row = is_counted.then_some(row);
            if is_counted {
                self.metrics.delivered(&lane, outcome);
            }
            let (key, at, lane_name, revocation) = (message.key.clone(), self.clock.now_millis(), lane.clone(), None);
            let (channels, mut wait) = (Vec::new(), None);
            let record = match fate {
                Fate::Retry => {
                    trouble.again(&lane, &reason);
                    wait = Some(self.wait(trouble.count, None));
                    let due_at = self.due_at(attempt, None);
                    Record::Tried { key, lane: lane_name, attempt, due_at, revocation, row, at, panicked: false }
                }
                Fate::Deferred(due_at) => {
                    let hold = Hold::Capped;
                    Record::Held { key, lane: lane_name, attempt, at, due_at, hold, revocation, row, channels }
                }
                Fate::Sent => {
                    trouble.over(&lane);
                    records.push(Record::UserInformed { lane: lane.clone(), user: receiver, at });
                    let sent = Some(Sent::of_notice(at));
                    Record::Ended { key, lane: lane_name, revocation, row, at, channels, sent }
                }
                Fate::GivenUp(_) => Record::Ended { key, lane: lane_name, revocation, row, at, channels, sent: None },
            };
            records.push(record);
            self.record(records);
            if let Some(wait) = wait {
                self.pause(wait, &mut stop).await;
            }
        }
    }

    /// One attempt to send a message to a user, whose identity for the limits is `receiver`.
    async fn try_user(
        &self,
        users: &UserNotices,
        notifier: &dyn UserNotifier,
        (to, receiver): (&UserMessage, &str),
        message: &Message,
    ) -> Tried {
        let lane = user_lane(notifier);
        let now = self.clock.now_millis();
        let is_old = now - to.at >= MESSAGE_MS_MAX;
        let limit = self.outbox.inner().state.user_limit(&lane, receiver, users.limits, now);
        if let Some(limit) = limit {
            let fate = if is_old { Fate::GivenUp(ActionOutcome::Capped) } else { Fate::Deferred(limit.until) };
            return Tried { fate, status: 0, reason: limit.reason.to_owned(), reports: Vec::new() };
        }
        let (text, problem) = users.texts.of(to);
        let reports = problem.and_then(|problem| self.text_notice(&problem, now)).into_iter().collect();
        let answer = self.guarded(&lane, notifier.notify(to, &text, &message.key)).await;
        let failed = Fate::GivenUp(ActionOutcome::Failed);
        let (fate, status, reason) = match answer.map_err(|failed| failed.error) {
            Ok(accepted) => (Fate::Sent, accepted.status, String::new()),
            Err(DeliveryError::Retriable { reason, status, .. }) if !is_old => (Fate::Retry, status, reason),
            Err(DeliveryError::Retriable { reason, status, .. } | DeliveryError::Permanent { reason, status }) => {
                (failed, status, reason)
            }
            Err(DeliveryError::Rejected { reason, words }) => (failed, 0, format!("{reason}: {words}")),
        };
        Tried { fate, status, reason, reports }
    }

    /// A notice that a text of the operator cannot be used, at most one per day.
    fn text_notice(&self, problem: &str, now: i64) -> Option<Record> {
        let text = format!(
            "{problem}. The text of the build is sent to users instead. Correct the file (notify_users.templates_dir)."
        );
        let key = format!("user-text-{}", now / DAY_MS);
        self.notice(key, "A text for users cannot be used", text, self.outbox.notice_lanes())
    }

    fn user_row(&self, message: &UserMessage, attempt: Attempt<'_>, reason: &str) -> ActionRow {
        let row = self.row(attempt, self.clock.now_millis(), reason.to_owned());
        let UserMessage { tenant_id, user_id, about, .. } = message.clone();
        ActionRow { incident_id: about.to_string(), tenant_id, user_id, ..row }
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

/// The first attempt to send the message with this key.
fn first_attempt(message: &UserMessage, key: &str, outcome: ActionOutcome) -> Attempt<'static> {
    Attempt {
        action_id: key.to_owned(),
        incident: None,
        kind: "notify_user".to_owned(),
        target: message.user_id.clone(),
        number: 1,
        outcome,
        status: 0,
    }
}
