//! The lane of a channel. Each message is sent until the channel accepts it or it is given up.

use std::time::Duration;

use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::deliverer::Deliverer;
use super::digest::{Digest, DigestSettings, Spent};
use super::fallback::Failing;
use super::lane::{Attempt, Failed, Trouble};
use super::record::{Hold, REVOKE, Record, Sent, Work};
use super::routes::name_of;
use super::task::{Message, What};
use crate::kill_point::{Step, reach};
use crate::millis::HOUR_MS;
use crate::port::{Accepted, ActionOutcome, ActionRow, Alert, DeliveryError, Notifier, Store};
use crate::telemetry::Condition;

/// After this many panics, a message is held, so that later messages are sent.
const PANICS_MAX: u32 = 3;
/// After this many consecutive failures, a channel is reported as failed.
const FAILURES_MAX: u32 = 5;

/// A channel, and how it does.
struct Channel<'a> {
    notifier: &'a dyn Notifier,
    lane: String,
    trouble: Trouble,
    /// Time of the first of its consecutive failures, milliseconds since the epoch, wall clock.
    failing_since: Option<i64>,
    spent: Spent,
}

impl<'a> Channel<'a> {
    fn of(notifier: &'a dyn Notifier) -> Self {
        Self {
            notifier,
            lane: notifier.lane(),
            trouble: Trouble::default(),
            failing_since: None,
            spent: Spent::default(),
        }
    }
}

/// What happens to a message after an attempt.
enum Fate {
    Accepted,
    Retry {
        retry_after: Option<Duration>,
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
        let mut channel = Channel::of(notifier);
        let lane = channel.lane.clone();
        let mut changed = self.outbox.changed.subscribe();
        if let Some(silences) = &self.outbox.silences {
            tokio::select! {
                () = silences.read(&*self.clock) => {}
                _ = stop.changed() => {}
            }
        }
        let next = || self.outbox.next_message(&lane);
        while let Some(message) = self.next_task(&lane, next, &mut changed, &mut stop).await {
            if let Some(records) = self.instead(&mut channel, &message) {
                self.record(records);
                continue;
            }
            let alert = match &message.what {
                What::Report(report) => Alert::Incident { incident: &report.incident, progress: &report.progress },
                What::Notice(notice) => Alert::Notice(notice),
                What::Digest(_) => continue,
            };
            let began = self.clock.now_millis();
            reach(Step::BeforeAlert);
            let answer = self.guarded(&lane, notifier.notify(alert, &message.key)).await;
            reach(Step::AfterAlert);
            let answer = self.classify(&lane, &message, answer);
            let (records, wait) = self.concluded(&mut channel, message, answer, began);
            self.record(records);
            if let Some(wait) = wait {
                self.pause(wait, &mut stop).await;
            }
        }
    }

    /// What happens to a message instead of an attempt to send it: a silence withholds an alert, an alert beyond the limit
    /// is collected, and a digest becomes a notice.
    fn instead(&self, channel: &mut Channel<'_>, message: &Message) -> Option<Vec<Record>> {
        let now = self.clock.now_millis();
        let limit = self.outbox.digest_of(&channel.lane);
        match &message.what {
            What::Notice(_) => None,
            What::Digest(digest) => Some(self.digest(&channel.lane, &message.key, digest)),
            What::Report(report) => {
                if let Some(silence) = self.outbox.silence_of(report) {
                    return Some(vec![self.silenced(channel.notifier, message, report, silence)]);
                }
                let limit = limit.filter(|limit| limit.may_collect(&report.incident, &report.progress))?;
                let is_new = message.effect.attempts == 0;
                (is_new && channel.spent.is_over(&limit, now)).then(|| self.collected(channel.notifier, &limit))
            }
        }
    }

    /// Moves alerts from the queue of `notifier` to its digest, with a row for each.
    fn collected(&self, notifier: &dyn Notifier, limit: &DigestSettings) -> Vec<Record> {
        let (lane, at) = (notifier.lane(), self.clock.now_millis());
        let mut alerts = Vec::new();
        let mut records = Vec::new();
        for (alert, incident) in self.outbox.collectable(&lane, limit) {
            let attempt = Attempt {
                action_id: format!("{}/{lane}", alert.key),
                incident: Some(&incident),
                kind: format!("alert_{}", notifier.name()),
                target: notifier.target(),
                number: 1,
                outcome: ActionOutcome::Collected,
                status: 0,
            };
            let row = self.row(attempt, at, "collected for the next digest of the channel".to_owned());
            self.metrics.delivered(notifier.name(), ActionOutcome::Collected);
            records.push(Record::Row { row });
            alerts.push(alert);
        }
        let due_at = at + limit.interval.as_millis() as i64;
        records.push(Record::Collected { lane, at, due_at, alerts });
        records
    }

    /// Makes a message of the collected alerts.
    fn digest(&self, lane: &str, key: &str, digest: &Digest) -> Vec<Record> {
        let at = self.clock.now_millis();
        let notice = digest.notice(name_of(lane), self.outbox.digest_of(lane), at);
        tracing::warn!(channel = lane, "{}", notice.title);
        let lanes = vec![lane.to_owned()];
        let taken = Record::Taken { key: key.to_owned(), at, work: Work::Notice(notice), lanes };
        vec![taken, Record::Digested { lane: lane.to_owned() }]
    }

    /// Records of an attempt that began at `began`, and how long the lane then waits.
    fn concluded(
        &self,
        channel: &mut Channel<'_>,
        message: Message,
        answer: Answer,
        began: i64,
    ) -> (Vec<Record>, Option<Duration>) {
        let row = self.row_of(channel, &message, &answer, began);
        let Answer { fate, reason, panicked, root, .. } = answer;
        let Channel { lane, trouble, .. } = channel;
        let (key, at, row) = (message.key.clone(), self.clock.now_millis(), Some(row));
        let attempt = message.effect.attempts + 1;
        let mut records = Vec::new();
        let mut wait = None;
        match fate {
            Fate::Accepted => {
                trouble.over(lane);
                channel.failing_since = None;
                channel.spent.add(at);
                self.channel_works(lane, true);
                let sent = match message.what {
                    What::Report(report) => Sent { root: report.sent.root.clone().or(root), ..report.sent },
                    What::Notice(_) | What::Digest(_) => Sent::of_notice(at),
                };
                records.push(ended(key, lane, row, Some(sent), at));
            }
            Fate::Retry { retry_after } => {
                trouble.again(lane, &reason);
                if trouble.count >= FAILURES_MAX && !self.others_accept(lane) {
                    self.channel_works(lane, false);
                }
                wait = Some(self.wait(trouble.count, retry_after));
                if at - *channel.failing_since.get_or_insert(began) >= self.fallback_after_ms() {
                    records.extend(self.rerouted(lane, at));
                }
                let (lane, due_at) = (lane.clone(), self.due_at(attempt, retry_after));
                records.push(Record::Tried { key, lane, attempt, due_at, revocation: None, row, at, panicked });
            }
            Fate::Keep => {
                let what = "the channel rejects a message, which is sent again after a day";
                tracing::error!(channel = lane, alert = key, reason, "{what}");
                self.channel_works(lane, false);
                records.extend(self.silent_channel_notice(lane, &reason, &message));
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
                self.metrics.channel_rejecting(lane, true);
                records.extend(self.silent_channel_notice(lane, &reason, &message));
                let to = self.stand_ins(lane, &message.key, Failing::Rejects);
                if !to.is_empty() {
                    records.push(Record::Rerouted { key: key.clone(), lane: lane.clone(), to, at });
                }
                records.push(ended(key, lane, row, None, at));
            }
        }
        (records, wait)
    }

    /// The row of an attempt, which is counted.
    fn row_of(&self, channel: &Channel<'_>, message: &Message, answer: &Answer, began: i64) -> ActionRow {
        let Channel { notifier, lane, .. } = channel;
        let outcome = match answer.fate {
            Fate::Accepted => ActionOutcome::Done,
            Fate::Retry { .. } => ActionOutcome::Retry,
            Fate::Keep | Fate::GiveUp => ActionOutcome::Failed,
        };
        self.metrics.delivered(notifier.name(), outcome);
        let attempt = Attempt {
            action_id: format!("{}/{lane}", message.key),
            incident: if let What::Report(report) = &message.what { Some(&report.incident) } else { None },
            kind: format!("alert_{}", notifier.name()),
            target: notifier.target(),
            number: message.effect.attempts + 1,
            outcome,
            status: answer.status,
        };
        let Answer { reason, words, .. } = answer;
        self.row(attempt, began, if words.is_empty() { reason.clone() } else { format!("{reason}: {words}") })
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
            if lane == REVOKE || self.outbox.channels.contains(&lane) || self.is_user_lane(&lane) {
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
        let collected: Vec<String> = self.outbox.inner().state.digests.keys().cloned().collect();
        let gone = collected.into_iter().filter(|lane| !self.outbox.channels.contains(lane));
        records.extend(gone.map(|lane| Record::Digested { lane }));
        if records.is_empty() {
            return;
        }
        self.outbox.append(records);
    }
}

fn ended(key: String, lane: &str, row: Option<ActionRow>, sent: Option<Sent>, at: i64) -> Record {
    Record::Ended { key, lane: lane.to_owned(), revocation: None, row, at, channels: Vec::new(), sent }
}
