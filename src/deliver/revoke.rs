//! The lane of revocations: what keeps one from being asked for, the asking, and how it is told.

use tokio::sync::watch;

use super::outbox::{PAUSE_FILE, Task};
use super::state::{REVOKE, Record, Work, revocation_key};
use super::{Deliverer, HOUR_MS, Trouble};
use crate::port::{ActionRow, DeliveryError, Revocation, RevokeRequest, Revoked, Store};
use crate::verdict::{Incident, Mode};

impl<S: Store + 'static> Deliverer<S>
where
    S::Rows: 'static,
{
    pub(super) async fn revoke_all(&self, mut stop: watch::Receiver<bool>) {
        let mut changed = self.outbox.changed.subscribe();
        let mut trouble = Trouble::default();
        let mut breaker_open = false;
        while let Some(task) = self.next_task(REVOKE, &mut changed, &mut stop).await {
            let Work::Incident(incident) = &task.work else { return };
            let (Some(target), Some(key)) = (&incident.revoke, revocation_key(incident)) else { return };
            let now = self.clock.now_millis();
            if let Some(refusal) = self.refusal(&task, incident, now) {
                let row = self.row(&task, &key, now, word(&refusal), 0, said(&refusal));
                let row = revocation_row(row, incident);
                self.metrics.revoked(word(&refusal));
                let mut records = vec![ended(&task, refusal.clone(), row)];
                if let Revocation::Capped(cap) = refusal {
                    records.extend(self.capped_notice(cap, now));
                }
                self.record(records, &stop).await;
                continue;
            }
            let Some(revoker) = &self.revoker else { return };
            if !task.called {
                self.record(vec![Record::Called { key: task.key.clone(), at: now }], &stop).await;
            }
            let asked = RevokeRequest {
                target,
                tenant_id: &incident.tenant_id,
                user_id: &incident.user_id,
                app_id: &incident.app_id,
                family_id: &incident.family_id,
                token_id: &incident.token_id,
                reason: &incident.reason,
                key: &key,
            };
            let answer = revoker.revoke(asked).await;
            let (outcome, status, reason, state) = match &answer {
                Ok(Revoked::Done { status }) => ("done", *status, incident.reason.clone(), Revocation::Done),
                Ok(Revoked::AlreadyGone { status }) => {
                    ("already_gone", *status, incident.reason.clone(), Revocation::AlreadyGone)
                }
                Err(DeliveryError::Retriable { reason, status, .. }) => {
                    ("retry", *status, reason.clone(), Revocation::Waiting(reason.clone()))
                }
                Err(DeliveryError::Permanent { reason, status }) => {
                    ("failed", *status, reason.clone(), Revocation::Failed(reason.clone()))
                }
            };
            self.metrics.revoked(outcome);
            let row = revocation_row(self.row(&task, &key, now, outcome, status, reason.clone()), incident);
            let mut records = Vec::new();
            let mut wait = None;
            match answer {
                Ok(_) => {
                    trouble.over(REVOKE);
                    breaker_open = false;
                    records.push(ended(&task, state, row));
                }
                Err(DeliveryError::Permanent { .. }) => {
                    tracing::error!(revocation = key, reason, "a revocation is given up");
                    if speaks_of_provider(status) {
                        trouble.count += 1;
                    }
                    records.push(ended(&task, state, row));
                }
                Err(DeliveryError::Retriable { retry_after, .. }) => {
                    trouble.again(REVOKE, &reason);
                    let due_at = self.due_at(task.attempt, retry_after);
                    let (key, lane) = (task.key.clone(), REVOKE.to_owned());
                    records.push(Record::Tried {
                        key,
                        lane,
                        attempt: task.attempt,
                        due_at,
                        revocation: Some(state),
                        row: Some(row),
                    });
                    wait = retry_after;
                }
            }
            if task.attempt > 1 && matches!(records.first(), Some(Record::Ended { .. })) {
                // People were told that it was being tried again; now they are told how it ended.
                let key = format!("{}-ended", task.key);
                let (work, lanes) = (task.work.clone(), self.outbox.channels.clone());
                records.push(Record::Taken { key, at: now, work, lanes });
            }
            if trouble.count >= self.settings.breaker_failures {
                if !breaker_open {
                    breaker_open = true;
                    records.extend(self.breaker_notice(&reason, now));
                }
                wait = Some(wait.unwrap_or_default().max(self.settings.breaker_wait));
            }
            self.metrics.breaker(breaker_open);
            self.record(records, &stop).await;
            if let Some(wait) = wait {
                self.pause(wait, &mut stop).await;
            }
        }
    }

    /// Why the revocation is not asked for at all, if it is not.
    fn refusal(&self, task: &Task, incident: &Incident, now: i64) -> Option<Revocation> {
        let paused = self.outbox.is_paused();
        self.metrics.paused(paused);
        match incident.mode.min(self.settings.mode) {
            Mode::Shadow => return Some(Revocation::Shadow),
            Mode::Alert => return Some(Revocation::Proposed),
            Mode::Enforce => {}
        }
        if paused {
            return Some(Revocation::Paused);
        }
        match (&self.revoker, &incident.revoke) {
            (Some(revoker), Some(target)) if revoker.accepts(target) => {}
            (Some(_), Some(target)) => {
                return Some(Revocation::Failed(format!(
                    "its provider is not configured to revoke a {}",
                    target.kind()
                )));
            }
            _ => return Some(Revocation::Failed("no [revoke.http] is configured".to_owned())),
        }
        let cap = self.settings.revocations_per_hour_max;
        let made = self.outbox.inner().state.calls_within_hour(now);
        (!task.called && made >= cap as usize).then_some(Revocation::Capped(cap))
    }

    /// Once an hour at most: its key is that of the hour.
    fn capped_notice(&self, cap: u32, now: i64) -> Option<Record> {
        let text = format!(
            "{cap} revocations were asked for within an hour, which is revoke.max_per_hour. Until there are fewer, \
             incidents are only told: look whether this is an attack or a mistake, and revoke by hand."
        );
        self.notice(
            format!("capped-{}", now / HOUR_MS),
            "the cap on revocations is reached",
            text,
            now,
            self.outbox.channels.clone(),
        )
    }

    fn breaker_notice(&self, reason: &str, now: i64) -> Option<Record> {
        let text = format!(
            "{} attempts to revoke failed in a row, the last because {reason}. Revocations wait and are tried again, \
             one at a time; until one succeeds, revoke by hand.",
            self.settings.breaker_failures
        );
        self.notice(format!("breaker-{now}"), "the provider does not revoke", text, now, self.outbox.channels.clone())
    }
}

fn ended(task: &Task, revocation: Revocation, row: ActionRow) -> Record {
    Record::Ended { key: task.key.clone(), lane: REVOKE.to_owned(), revocation: Some(revocation), row: Some(row) }
}

fn revocation_row(row: ActionRow, incident: &Incident) -> ActionRow {
    let Some(target) = &incident.revoke else { return row };
    ActionRow { kind: target.action().as_str().to_owned(), target: target.id().to_owned(), ..row }
}

/// Whether a revocation given up with this status tells of the provider, or our way to it, and not of the one target: a
/// refused credential, an address that is not there. 0: the request could not even be written for this target.
const fn speaks_of_provider(status: u16) -> bool {
    !matches!(status, 0 | 400 | 409 | 422)
}

/// The outcome in the audit trail.
const fn word(revocation: &Revocation) -> &'static str {
    match revocation {
        Revocation::NotAsked | Revocation::Shadow => "shadow",
        Revocation::Proposed => "proposed",
        Revocation::Waiting(_) => "retry",
        Revocation::Done => "done",
        Revocation::AlreadyGone => "already_gone",
        Revocation::Capped(_) => "capped",
        Revocation::Paused => "paused",
        Revocation::Failed(_) => "failed",
    }
}

fn said(revocation: &Revocation) -> String {
    match revocation {
        Revocation::Failed(reason) | Revocation::Waiting(reason) => reason.clone(),
        Revocation::Capped(cap) => format!("{cap} revocations were made within the hour"),
        Revocation::Paused => format!("the file {PAUSE_FILE} stops all revocations"),
        _ => String::new(),
    }
}
