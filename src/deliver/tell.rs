//! A channel's lane: each alert is told until it is taken, or given up.

use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::outbox::{Task, lane_of};
use super::state::{REVOKE, Record, Work};
use super::{Deliverer, HOUR_MS, Trouble};
use crate::port::{ActionRow, Alert, DeliveryError, Notifier, Revocation, Store};

impl<S: Store + 'static> Deliverer<S>
where
    S::Rows: 'static,
{
    pub(super) async fn tell_all(&self, notifier: &dyn Notifier, mut stop: watch::Receiver<bool>) {
        let lane = lane_of(notifier);
        let mut changed = self.outbox.changed.subscribe();
        let mut trouble = Trouble::default();
        while let Some(task) = self.next_task(&lane, &mut changed, &mut stop).await {
            let alert = match &task.work {
                Work::Incident(incident) => Alert::Incident { incident, revocation: &task.revocation },
                Work::Notice(notice) => Alert::Notice(notice),
            };
            let began = self.clock.now_millis();
            let told = notifier.notify(alert, &task.key).await;
            let (outcome, status, reason) = match &told {
                Ok(status) => ("done", *status, String::new()),
                Err(DeliveryError::Retriable { reason, status, .. }) => ("retry", *status, reason.clone()),
                Err(DeliveryError::Permanent { reason, status }) => ("failed", *status, reason.clone()),
            };
            self.metrics.delivered(notifier.name(), outcome);
            let row = self.row(&task, &format!("{}/{lane}", task.key), began, outcome, status, reason.clone());
            let row = ActionRow { kind: format!("alert_{}", notifier.name()), target: notifier.target(), ..row };
            let ended = || Record::Ended {
                key: task.key.clone(),
                lane: lane.clone(),
                revocation: None,
                row: Some(row.clone()),
            };
            match told {
                Ok(_) => {
                    trouble.over(&lane);
                    self.record(vec![ended()], &stop).await;
                }
                Err(DeliveryError::Retriable { retry_after, .. }) => {
                    trouble.again(&lane, &reason);
                    let due_at = self.due_at(task.attempt, retry_after);
                    let (key, lane) = (task.key.clone(), lane.clone());
                    self.record(
                        vec![Record::Tried {
                            key,
                            lane,
                            attempt: task.attempt,
                            due_at,
                            revocation: None,
                            row: Some(row),
                        }],
                        &stop,
                    )
                    .await;
                    self.pause(self.wait(trouble.count, retry_after), &mut stop).await;
                }
                Err(DeliveryError::Permanent { .. }) => {
                    tracing::error!(channel = lane, alert = task.key, reason, "an alert is given up");
                    let mut records = vec![ended()];
                    if matches!(task.work, Work::Incident(_)) {
                        records.extend(self.silent_channel_notice(&lane, &reason, began));
                    }
                    self.record(records, &stop).await;
                }
            }
        }
    }

    /// Whom `lane` would have told does not know of it; those of the other channels can tell them. Once an hour at most.
    fn silent_channel_notice(&self, lane: &str, reason: &str, now: i64) -> Option<Record> {
        let others: Vec<_> = self.outbox.channels.iter().filter(|channel| *channel != lane).cloned().collect();
        let text = format!(
            "{lane} does not take alerts, the last because {reason}. They are given up there; the other channels have \
             them. Look in `actions` for what was missed, and mend the channel."
        );
        let key = format!("silent-{:016x}-{}", xxh3_64(lane.as_bytes()), now / HOUR_MS);
        self.notice(key, "a channel does not take alerts", text, now, others)
    }

    /// What waits for a channel that is configured no more is given up, and the trail says so.
    pub(super) fn end_orphans(&self) {
        let mut records = Vec::new();
        for (key, change) in &self.outbox.inner().state.open {
            for lane in change.effects.keys().filter(|lane| *lane != REVOKE && !self.outbox.channels.contains(lane)) {
                tracing::warn!(channel = lane, alert = key, "an alert is given up: its channel is configured no more");
                let task = Task {
                    key: key.clone(),
                    work: change.work.clone(),
                    attempt: 1,
                    called: false,
                    revocation: Revocation::NotAsked,
                };
                let reason = "the channel is configured no more".to_owned();
                let row = self.row(&task, &format!("{key}/{lane}"), self.clock.now_millis(), "failed", 0, reason);
                let (name, target) = lane.split_once(' ').unwrap_or((lane, ""));
                let row = ActionRow { kind: format!("alert_{name}"), target: target.to_owned(), ..row };
                let (key, lane) = (key.clone(), lane.clone());
                records.push(Record::Ended { key, lane, revocation: None, row: Some(row) });
            }
        }
        if records.is_empty() {
            return;
        }
        if let Err(error) = self.outbox.append(records) {
            tracing::error!(%error, "the outbox cannot be written");
        }
    }
}
