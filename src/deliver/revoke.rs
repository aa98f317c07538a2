//! The lane of revocations: what keeps one from being requested, the request, and how its outcome is reported.

use std::time::Duration;

use tokio::sync::watch;

use super::deliverer::Deliverer;
use super::lane::{Attempt, Trouble};
use super::outbox::{PAUSE_FILE, ToRevoke};
use super::record::{DAY_MS, HOUR_MS, Hold, REVOKE, Record};
use super::state::{self, REVOCATION_MS_MAX, allowance};
use crate::port::{DeliveryError, Revocation, RevokeRequest, Revoked, Revoker, Store};
use crate::verdict::{Incident, Mode, Target};

/// A revocation whose requests panicked this often counts as refused, so that the next ones are requested.
const PANICS_MAX: u32 = 3;

/// What becomes of a revocation.
enum Fate {
    /// Nothing more is to be done.
    Final,
    /// Requested again after a failure that passes.
    Retry {
        retry_after: Option<Duration>,
        panicked: bool,
    },
    Hold(Hold),
}

/// How a revocation stands after an attempt or a refusal, and what the row says of it.
struct Progress {
    state: Revocation,
    fate: Fate,
    status: u16,
    reason: String,
}

impl<S: Store + 'static> Deliverer<S>
where
    S::Rows: 'static,
{
    pub(super) async fn revoke_all(&self, mut stop: watch::Receiver<bool>) {
        let mut changed = self.outbox.changed.subscribe();
        let mut trouble = Trouble::default();
        let mut breaker_open = false;
        let next = || self.outbox.next_revocation(self.caps());
        while let Some(task) = self.next_task(REVOKE, next, &mut changed, &mut stop).await {
            self.metrics.paused(task.is_paused);
            let began = self.clock.now_millis();
            let refusal = self.refusal(&task, began);
            let is_request = refusal.is_none();
            let progress = match (refusal, &self.revoker) {
                (Some(progress), _) => progress,
                (None, Some(revoker)) => self.request(&**revoker, &task, began, &stop).await,
                (None, None) => return,
            };
            self.metrics.revoked(state::kind(&progress.state));
            let mut records = self.capped_notice(&progress.state).into_iter().collect::<Vec<_>>();
            let mut wait = None;
            if is_request {
                match &progress.fate {
                    Fate::Final => {
                        trouble.over(REVOKE);
                        breaker_open = false;
                    }
                    Fate::Retry { retry_after, .. } => {
                        trouble.again(REVOKE, &progress.reason);
                        wait = *retry_after;
                    }
                    Fate::Hold(_) => {
                        tracing::error!(revocation = task.name, reason = progress.reason, "a revocation was refused");
                        if speaks_of_provider(progress.status) {
                            trouble.count += 1;
                        }
                    }
                }
                if trouble.count >= self.settings.breaker_failures {
                    if !breaker_open {
                        breaker_open = true;
                        records.extend(self.breaker_notice(&progress.reason, began));
                    }
                    wait = Some(wait.unwrap_or_default().max(self.settings.breaker_wait));
                }
                self.metrics.breaker(breaker_open);
            }
            records.extend(self.note(&task, progress, began));
            self.record(REVOKE, records, &stop).await;
            self.give_up_oldest(&stop).await;
            if let Some(wait) = wait {
                self.pause(wait, &mut stop).await;
            }
        }
    }

    /// Requests the revocation.
    async fn request(
        &self,
        revoker: &dyn Revoker,
        task: &ToRevoke,
        now: i64,
        stop: &watch::Receiver<bool>,
    ) -> Progress {
        let incident = &*task.incident;
        let Some(target) = &incident.revoke else { return Progress::refused("it has no target".to_owned(), 0) };
        if !task.effect.called {
            let called = Record::Called { key: task.key.clone(), at: now, allowance: allowance(incident).to_owned() };
            self.record(REVOKE, vec![called], stop).await;
        }
        let asked = RevokeRequest {
            target,
            tenant_id: &incident.tenant_id,
            user_id: &incident.user_id,
            app_id: &incident.app_id,
            family_id: &incident.family_id,
            token_id: &incident.token_id,
            reason: &incident.reason,
            key: &task.name,
        };
        let failed = match self.guarded(REVOKE, revoker.revoke(asked)).await {
            Ok(Revoked::Done { status }) => return Progress::done(Revocation::Done, status, incident),
            Ok(Revoked::AlreadyGone { status }) => return Progress::done(Revocation::AlreadyGone, status, incident),
            Err(failed) => failed,
        };
        match failed.error {
            DeliveryError::Permanent { reason, status } => Progress::refused(reason, status),
            DeliveryError::Rejected { reason, .. } => Progress::refused(reason, 0),
            DeliveryError::Retriable { reason, status, .. }
                if failed.panicked && task.effect.panics + 1 >= PANICS_MAX =>
            {
                Progress::refused(reason, status)
            }
            DeliveryError::Retriable { reason, status, retry_after } => Progress {
                state: Revocation::Waiting(reason.clone()),
                fate: Fate::Retry { retry_after, panicked: failed.panicked },
                status,
                reason,
            },
        }
    }

    /// Why the revocation is not requested now, if it is not.
    fn refusal(&self, task: &ToRevoke, now: i64) -> Option<Progress> {
        let incident = &*task.incident;
        if task.is_expired {
            let reason = format!("given up after {} days", REVOCATION_MS_MAX / DAY_MS);
            return Some(Progress { fate: Fate::Final, ..Progress::refused(reason, 0) });
        }
        let progress = |state: Revocation, fate: Fate| {
            let reason = reason_of(&state);
            Some(Progress { state, fate, status: 0, reason })
        };
        match incident.mode.min(self.settings.mode) {
            Mode::Shadow => return progress(Revocation::Shadow, Fate::Final),
            Mode::Alert => return progress(Revocation::Proposed, Fate::Final),
            Mode::Enforce => {}
        }
        if task.is_paused {
            return progress(Revocation::Paused, Fate::Hold(Hold::Paused));
        }
        match (&self.revoker, &incident.revoke) {
            (Some(revoker), Some(target)) if revoker.accepts(target) => {}
            (Some(_), Some(target)) => {
                let reason = format!("its provider is not configured to revoke a {}", target.kind());
                return Some(Progress::refused(reason, 0));
            }
            _ => return Some(Progress::refused("no [revoke.http] is configured".to_owned(), 0)),
        }
        if task.effect.called {
            return None;
        }
        let caps = self.caps();
        let inner = self.outbox.inner();
        let allowance = allowance(incident);
        // Those that wait already go first.
        let others_wait = task.effect.hold != Some(Hold::Capped) && inner.state.is_capped(allowance);
        if others_wait || inner.state.room_at(allowance, caps, now) > now {
            return progress(Revocation::Capped(caps.of_tenant), Fate::Hold(Hold::Capped));
        }
        None
    }

    /// The record of what became of a revocation.
    fn note(&self, task: &ToRevoke, progress: Progress, began: i64) -> Vec<Record> {
        let Progress { state, fate, status, reason } = progress;
        let attempt = task.effect.attempts + 1;
        let incident = &*task.incident;
        let row = self.row(
            Attempt {
                action_id: task.name.clone(),
                incident: Some(incident),
                kind: incident.revoke.as_ref().map_or("", |target| target.action().as_str()).to_owned(),
                target: incident.revoke.as_ref().map_or("", Target::id).to_owned(),
                number: attempt,
                outcome: state::kind(&state),
                status,
            },
            began,
            reason,
        );
        let (key, lane, at) = (task.key.clone(), REVOKE.to_owned(), self.clock.now_millis());
        let (revocation, row, channels) = (Some(state), Some(row), self.outbox.channels.clone());
        vec![match fate {
            Fate::Final => Record::Ended { key, lane, revocation, row, at, channels, sent: None },
            Fate::Retry { retry_after, panicked } => {
                let due_at = self.due_at(attempt, retry_after);
                Record::Tried { key, lane, attempt, due_at, revocation, row, at, panicked }
            }
            Fate::Hold(hold) => {
                let wait = self.settings.refused_retry.wait(task.effect.refusals + 1);
                let due_at = at + wait.as_millis() as i64;
                Record::Held { key, lane, attempt, at, due_at, hold, revocation, row, channels }
            }
        }]
    }

    /// Gives up a held revocation where more are held than may be.
    async fn give_up_oldest(&self, stop: &watch::Receiver<bool>) {
        let now = self.clock.now_millis();
        let oldest = {
            let inner = self.outbox.inner();
            let asked = inner.state.too_many_held().and_then(|key| inner.state.revocations.get_key_value(&key));
            asked.map(|(key, asked)| ToRevoke {
                key: key.clone(),
                name: asked.name.clone(),
                incident: asked.incident.clone(),
                effect: asked.effect.clone(),
                is_paused: false,
                is_expired: true,
            })
        };
        if let Some(task) = oldest {
            let reason = "given up: too many revocations of its tenant wait".to_owned();
            let progress = Progress { fate: Fate::Final, ..Progress::refused(reason, 0) };
            let records = self.note(&task, progress, now);
            self.record(REVOKE, records, stop).await;
        }
    }

    /// Once an hour at most: its key is that of the hour.
    fn capped_notice(&self, state: &Revocation) -> Option<Record> {
        if !matches!(state, Revocation::Capped(_)) {
            return None;
        }
        let caps = self.caps();
        let text = format!(
            "{} revocations of one tenant (revoke.max_per_hour), or {} of all (revoke.max_per_hour_total), were \
             requested within an hour. Further ones wait until there are fewer. Check whether this is an attack or a \
             mistake; revoke by hand what cannot wait.",
            caps.of_tenant, caps.total
        );
        let hour = self.clock.now_millis() / HOUR_MS;
        self.notice(format!("capped-{hour}"), "the cap on revocations is reached", text, self.outbox.channels.clone())
    }

    fn breaker_notice(&self, reason: &str, now: i64) -> Option<Record> {
        let text = format!(
            "{} requests to revoke failed in a row. The last reason: {reason}. Revocations wait and are requested \
             again, one at a time; until one succeeds, revoke by hand.",
            self.settings.breaker_failures
        );
        self.notice(format!("breaker-{now}"), "the provider does not revoke", text, self.outbox.channels.clone())
    }
}

impl Progress {
    fn done(state: Revocation, status: u16, incident: &Incident) -> Self {
        Self { state, fate: Fate::Final, status, reason: incident.reason.clone() }
    }

    fn refused(reason: String, status: u16) -> Self {
        Self { state: Revocation::Failed(reason.clone()), fate: Fate::Hold(Hold::Refused), status, reason }
    }
}

/// Whether a refusal with this status tells of the provider, or our way to it, and not of the one target: a refused
/// credential, an address that is not there. 0: the request could not even be written for this target.
const fn speaks_of_provider(status: u16) -> bool {
    !matches!(status, 0 | 200..=299 | 400 | 409 | 422)
}

fn reason_of(revocation: &Revocation) -> String {
    match revocation {
        Revocation::Failed(reason) | Revocation::Waiting(reason) => reason.clone(),
        Revocation::Capped(_) => "as many revocations as may be were requested within the hour".to_owned(),
        Revocation::Paused => format!("the file {PAUSE_FILE} stops all revocations"),
        _ => String::new(),
    }
}
