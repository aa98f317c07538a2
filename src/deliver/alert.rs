//! The lane of a channel. Each message is sent until the channel accepts it or it is given up.

use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::deliverer::Deliverer;
use super::lane::{Attempt, Failed, Trouble};
use super::outbox::{Message, What};
use super::record::{Hold, REVOKE, Record, Sent};
use super::routes::name_of;
use super::state::thread_of;
use crate::millis::HOUR_MS;
use crate::port::{Accepted, ActionOutcome, ActionRow, Alert, DeliveryError, Notifier, Store};
use crate::telemetry::Condition;

/// After this many panics, a message is held, so that later messages are sent.
const PANICS_MAX: u32 = 3;
/// After this many consecutive failures, a channel is reported as failed.
const FAILURES_MAX: u32 = 5;

/// Messages that one failed attempt moves to the fallback.
const REROUTED_MAX: usize = 1_000;

/// How a channel fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failing {
    Rejects,
    ForSomeTime,
}

/// What happens to a message after an attempt.
enum Fate {
    Accepted,
    Retry {
        retry_after: Option<std::time::Duration>,
    },
    /// Held, and sent again after a day.
    Keep,
    /// Not sent again, because other channels accept alerts.
    GiveUp,
}

/// Result of an attempt.
struct Answer {
    fate: Fate,
    status: u16,
    reason: String,
    /// Reply of the receiver, only for the row.
    words: String,
    panicked: bool,
    /// See [`Accepted::root`].
    root: Option<String>,
}

impl Answer {
    const fn of(fate: Fate, reason: String) -> Self {
        Self { fate, status: 0, reason, words: String::new(), panicked: false, root: None }
    }
}

impl<S: Store + 'static> Deliverer<S>
where
    S::Rows: 'static,
{
    pub(super) async fn send_alerts(&self, notifier: &dyn Notifier, mut stop: watch::Receiver<bool>) {
        let lane = notifier.lane();
        let mut changed = self.outbox.changed.subscribe();
        let mut trouble = Trouble::default();
        let mut failing_since = None;
        let next = || self.outbox.next_message(&lane);
        while let Some(message) = self.next_task(&lane, next, &mut changed, &mut stop).await {
            let alert = match &message.what {
                What::Report(report) => Alert::Incident { incident: &report.incident, progress: &report.progress },
                What::Notice(notice) => Alert::Notice(notice),
            };
            let began = self.clock.now_millis();
            let answer = self.guarded(&lane, notifier.notify(alert, &message.key)).await;
            let Answer { fate, status, reason, words, panicked, root } = self.classify(&lane, &message, answer);
            let outcome = match fate {
                Fate::Accepted => ActionOutcome::Done,
                Fate::Retry { .. } => ActionOutcome::Retry,
                Fate::Keep | Fate::GiveUp => ActionOutcome::Failed,
            };
            self.metrics.delivered(notifier.name(), outcome);
            let attempt = message.effect.attempts + 1;
            let row = self.row(
                Attempt {
                    action_id: format!("{}/{lane}", message.key),
                    incident: if let What::Report(report) = &message.what { Some(&report.incident) } else { None },
                    kind: format!("alert_{}", notifier.name()),
                    target: notifier.target(),
                    number: attempt,
                    outcome,
                    status,
                },
                began,
                if words.is_empty() { reason.clone() } else { format!("{reason}: {words}") },
            );
            let (key, at, row) = (message.key.clone(), self.clock.now_millis(), Some(row));
            let mut records = Vec::new();
            let mut wait = None;
            match fate {
                Fate::Accepted => {
                    trouble.over(&lane);
                    failing_since = None;
                    self.channel_works(&lane, true);
                    let sent = match message.what {
                        What::Report(report) => Sent { root: report.sent.root.clone().or(root), ..report.sent },
                        What::Notice(_) => Sent::of_notice(at),
                    };
                    records.push(ended(key, &lane, row, Some(sent), at));
                }
                Fate::Retry { retry_after } => {
                    trouble.again(&lane, &reason);
                    if trouble.count >= FAILURES_MAX && !self.others_accept(&lane) {
                        self.channel_works(&lane, false);
                    }
                    let due_at = self.due_at(attempt, retry_after);
                    let fails_for = at - *failing_since.get_or_insert(began);
                    if fails_for >= self.outbox.routes.fallback_after.as_millis() as i64 {
                        records.extend(self.rerouted(&lane, at));
                    }
                    let lane = lane.clone();
                    records.push(Record::Tried { key, lane, attempt, due_at, revocation: None, row, at, panicked });
                    wait = Some(self.wait(trouble.count, retry_after));
                }
                Fate::Keep => {
                    tracing::error!(
                        channel = lane,
                        alert = key,
                        reason,
                        "the channel rejects a message, which is sent again after a day"
                    );
                    self.channel_works(&lane, false);
                    records.extend(self.silent_channel_notice(&lane, &reason, &message));
                    records.push(Record::Held {
                        key,
                        lane: lane.clone(),
                        attempt,
                        at,
                        due_at: at + self.settings.rejected_retry.wait(1).as_millis() as i64,
                        hold: Hold::Rejected,
                        revocation: None,
                        row,
                        channels: Vec::new(),
                    });
                }
                Fate::GiveUp => {
                    tracing::error!(
                        channel = lane,
                        alert = key,
                        reason,
                        "the channel rejects a message, which is given up"
                    );
                    self.metrics.channel_rejecting(&lane, true);
                    records.extend(self.silent_channel_notice(&lane, &reason, &message));
                    let to = self.stand_ins(&lane, &message.key, Failing::Rejects);
                    if !to.is_empty() && !message.effect.rerouted {
                        records.push(Record::Rerouted { key: key.clone(), lane: lane.clone(), to, at });
                    }
                    records.push(ended(key, &lane, row, None, at));
                }
            }
            self.record(&lane, records, &stop).await;
            if let Some(wait) = wait {
                self.pause(wait, &mut stop).await;
            }
        }
    }

    fn classify(&self, lane: &str, message: &Message, answer: Result<Accepted, Failed>) -> Answer {
        let Failed { error, panicked } = match answer {
            Ok(Accepted { status, root }) => {
                return Answer { status, root, ..Answer::of(Fate::Accepted, String::new()) };
            }
            Err(failed) => failed,
        };
        let rejected = || {
            let is_elsewhere = self.others_have(lane, &message.key)
                || !self.stand_ins(lane, &message.key, Failing::Rejects).is_empty()
                || self.outbox.inner().state.keeps_enough(lane);
            if is_elsewhere { Fate::GiveUp } else { Fate::Keep }
        };
        match error {
            DeliveryError::Retriable { reason, status, .. } if panicked && message.effect.panics + 1 >= PANICS_MAX => {
                Answer { status, panicked, ..Answer::of(Fate::Keep, reason) }
            }
            DeliveryError::Retriable { reason, status, retry_after } => {
                Answer { status, panicked, ..Answer::of(Fate::Retry { retry_after }, reason) }
            }
            DeliveryError::Permanent { reason, status } => Answer { status, ..Answer::of(rejected(), reason) },
            DeliveryError::Rejected { reason, words } => Answer { words, ..Answer::of(rejected(), reason) },
        }
    }

    /// Whether another channel that accepts alerts has this message.
    fn others_have(&self, lane: &str, key: &str) -> bool {
        let inner = self.outbox.inner();
        let is_notice = thread_of(key).is_none();
        let mut others = self.outbox.channels.iter().filter(|other| *other != lane && !inner.state.is_rejecting(other));
        others
            .any(|other| is_notice && self.outbox.notice_lanes().contains(other) || inner.state.has_message(key, other))
    }

    /// Lanes that send a message of `lane` instead: those of the first fallback channel that accepts alerts. Without one,
    /// and if nobody else has a rejected message, all other channels that accept alerts.
    fn stand_ins(&self, lane: &str, key: &str, failing: Failing) -> Vec<String> {
        let own = name_of(lane);
        let of = |name: &str| {
            let inner = self.outbox.inner();
            let lanes = self.outbox.channels.iter().filter(|other| name_of(other) == name && name != own);
            let open = lanes.filter(|other| !inner.state.is_rejecting(other)).cloned().collect::<Vec<_>>();
            open
        };
        let fallback = &self.outbox.routes.fallback;
        if let Some(lanes) = fallback.iter().map(|name| of(name)).find(|lanes| !lanes.is_empty()) {
            let inner = self.outbox.inner();
            return lanes.into_iter().filter(|lane| !inner.state.has_message(key, lane)).collect();
        }
        if failing == Failing::ForSomeTime || self.others_have(lane, key) {
            return Vec::new();
        }
        let inner = self.outbox.inner();
        let others = self.outbox.channels.iter().filter(|other| *other != lane);
        others.filter(|other| !inner.state.is_rejecting(other)).cloned().collect()
    }

    /// Asks the fallback to send what waits in a lane that has failed for some time.
    fn rerouted(&self, lane: &str, now: i64) -> Vec<Record> {
        if self.outbox.routes.fallback.is_empty() {
            return Vec::new();
        }
        let stuck = self.outbox.inner().state.stuck_messages(lane, now, REROUTED_MAX);
        let rerouted = stuck.into_iter().map(|key| {
            let to = self.stand_ins(lane, &key, Failing::ForSomeTime);
            Record::Rerouted { key, lane: lane.to_owned(), to, at: now }
        });
        rerouted.collect()
    }

    /// Whether another channel accepts alerts.
    fn others_accept(&self, lane: &str) -> bool {
        let inner = self.outbox.inner();
        self.outbox.channels.iter().any(|channel| channel != lane && !inner.state.is_rejecting(channel))
    }

    fn channel_works(&self, lane: &str, works: bool) {
        self.metrics.channel_rejecting(lane, !works);
        self.health.set_of(Condition::Channel, lane, !works);
    }

    /// A notice to the other channels that `lane` rejects alerts. At most one per hour. `None` if the rejected message
    /// is a
    /// notice.
    fn silent_channel_notice(&self, lane: &str, reason: &str, message: &Message) -> Option<Record> {
        if matches!(message.what, What::Notice(_)) {
            return None;
        }
        let others: Vec<_> = self.outbox.channels.iter().filter(|channel| *channel != lane).cloned().collect();
        let text = format!(
            "{lane} rejects alerts. The last reason: {reason}. The other channels have the alerts. Repair the channel. The \
             table `actions` lists the alerts that it rejected."
        );
        let hour = self.clock.now_millis() / HOUR_MS;
        self.notice(
            format!("silent-{:016x}-{hour}", xxh3_64(lane.as_bytes())),
            "An alert channel rejects alerts",
            text,
            others,
        )
    }

    /// Gives up the messages of channels that are no longer configured, with a row for each.
    pub(super) fn end_orphans(&self) {
        let mut records = Vec::new();
        let began = self.clock.now_millis();
        for (key, lane, incident) in self.outbox.inner().state.pending_messages() {
            if lane == REVOKE || self.outbox.channels.contains(&lane) {
                continue;
            }
            tracing::warn!(
                channel = lane,
                alert = key,
                "a message is given up because its channel is no longer configured"
            );
            let (name, target) = lane.split_once(' ').unwrap_or((&lane, ""));
            let attempt = Attempt {
                action_id: format!("{key}/{lane}"),
                incident: incident.as_deref(),
                kind: format!("alert_{name}"),
                target: target.to_owned(),
                number: 1,
                outcome: ActionOutcome::Failed,
                status: 0,
            };
            let row = self.row(attempt, began, "the channel is no longer configured".to_owned());
            records.push(ended(key, &lane, Some(row), None, began));
        }
        if records.is_empty() {
            return;
        }
        if let Err(error) = self.outbox.append(records) {
            tracing::error!(%error, "the outbox cannot be written");
        }
    }
}

fn ended(key: String, lane: &str, row: Option<ActionRow>, sent: Option<Sent>, at: i64) -> Record {
    Record::Ended { key, lane: lane.to_owned(), revocation: None, row, at, channels: Vec::new(), sent }
}
