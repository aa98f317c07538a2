//! The lane of revocations: checks before a request, the request, and the report of its outcome.

use std::time::Duration;

use tokio::sync::watch;

use super::deliverer::Deliverer;
use super::lane::{Attempt, Trouble};
use super::limits::Scope;
use super::outbox::PAUSE_FILE;
use super::record::{Hold, REVOKE, Record};
use super::state::{self, REVOCATION_MS_MAX};
use super::task::ToRevoke;
use crate::kill_point::{Step, reach};
use crate::millis::{DAY_MS, HOUR_MS};
use crate::number::grouped;
use crate::port::{
    ActionRow, Confirmation, DeliveryError, Limit, Radius, Reached, Revocation, RevokeRequest, Revoked, Revoker, Store,
};
use crate::verdict::{Incident, Mode, RuleId, Target};

/// After this many panics, a revocation counts as refused, so that later ones are requested.
const PANICS_MAX: u32 = 3;

/// What happens to a revocation.
enum Fate {
    /// No further attempt.
    Final,
    /// Requested again after a temporary failure.
    Retry {
        retry_after: Option<Duration>,
        panicked: bool,
    },
    Hold(Hold),
}

/// State of a revocation after an attempt or a refusal, and the reason for the row.
struct Progress {
    state: Revocation,
    fate: Fate,
    status: u16,
    reason: String,
    confirmation: Option<Confirmation>,
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
                (None, Some(revoker)) => self.request(&**revoker, &task, began).await,
                (None, None) => return,
            };
            self.metrics.revoked(state::outcome(&progress.state));
            let full = self.full(&task, (!is_request).then_some(&progress.state), began);
            let mut records = self.capped_notice(&progress.state, &task.incident).into_iter().collect::<Vec<_>>();
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
                        tracing::error!(
                            revocation = task.name,
                            reason = progress.reason,
                            "the provider refused a revocation"
                        );
                        if is_about_provider(progress.status) {
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
            // A stop makes the waiting revocations due, this one too.
            records.extend(full);
            self.record(records);
            self.give_up_oldest();
            if let Some(wait) = wait {
                self.pause(wait, &mut stop).await;
            }
        }
    }

    /// Requests the revocation.
    async fn request(&self, revoker: &dyn Revoker, task: &ToRevoke, now: i64) -> Progress {
        let incident = &*task.incident;
        let Some(target) = &incident.revoke else {
            return Progress::refused("the incident has no target to revoke".to_owned(), 0);
        };
        if !task.effect.called {
            let Scope { allowance, rule, application } = Scope::of(incident);
            let (key, weight) = (task.key.clone(), self.caps().weight);
            let called = Record::Called { key, at: now, allowance, rule, application, weight };
            self.record(vec![called]);
        }
        let asked = RevokeRequest {
            target,
            tenant_id: &incident.tenant_id,
            user_id: &incident.user_id,
            app_id: &incident.app_id,
            family_id: &incident.family_id,
            session_id: &incident.session_id,
            token_id: &incident.token_id,
            token_type: incident.token_type,
            expires_at: incident.expires_at,
            reason: &incident.reason,
            key: &task.name,
        };
        reach(Step::BeforeRevocation);
        let answer = self.guarded(REVOKE, revoker.revoke(asked)).await;
        reach(Step::AfterRevocation);
        let failed = match answer {
            Ok(done) => return Progress::done(done, incident),
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
                confirmation: None,
            },
        }
    }

    /// Why the revocation is not requested now. `None` if it is requested.
    fn refusal(&self, task: &ToRevoke, now: i64) -> Option<Progress> {
        let incident = &*task.incident;
        if task.is_expired {
            let reason = format!("given up after {} days", REVOCATION_MS_MAX / DAY_MS);
            return Some(Progress { fate: Fate::Final, ..Progress::refused(reason, 0) });
        }
        let progress =
            |state, fate, reason: String| Some(Progress { state, fate, status: 0, reason, confirmation: None });
        match incident.mode.min(self.settings.mode) {
            Mode::Shadow => return progress(Revocation::Shadow, Fate::Final, String::new()),
            Mode::Alert => return progress(Revocation::Proposed, Fate::Final, String::new()),
            Mode::Enforce => {}
        }
        if task.is_paused {
            let reason = format!("revocations are paused by the file {PAUSE_FILE}");
            return progress(Revocation::Paused, Fate::Hold(Hold::Paused), reason);
        }
        match (&self.revoker, &incident.revoke) {
            (Some(revoker), Some(target)) if revoker.accepts(target) => {}
            (Some(_), Some(target)) => {
                let reason = format!("the provider is not configured to revoke a {}", target.kind());
                return Some(Progress::refused(reason, 0));
            }
            _ => return Some(Progress::refused("no [revoke.http] or [denylist] is configured".to_owned(), 0)),
        }
        if let Some(stopped) = self.outbox.stop_of(incident) {
            return progress(Revocation::Stopped(stopped), Fate::Hold(Hold::Stopped), stopped.to_string());
        }
        if task.effect.called {
            return None;
        }
        let caps = self.caps();
        let inner = self.outbox.inner();
        let scope = Scope::of(incident);
        let room = inner.state.room(&scope, caps, now);
        if room.at > now {
            let (limit, cap) = (room.last, caps.of(room.last, &scope));
            let (of, key) = (limit.in_words(), caps.key(limit, &scope));
            let reason = format!("the limit of {cap} revocations per hour {of} ({key}) is reached");
            return progress(Revocation::Capped(Reached { limit, cap }), Fate::Hold(Hold::Capped), reason);
        }
        None
    }

    /// The records of an attempt.
    fn note(&self, task: &ToRevoke, progress: Progress, began: i64) -> Vec<Record> {
        let Progress { state, fate, status, reason, confirmation } = progress;
        let attempt = task.effect.attempts + 1;
        let incident = &*task.incident;
        let row = self.row(
            Attempt {
                action_id: task.name.clone(),
                incident: Some(incident),
                kind: incident.revoke.as_ref().map_or("", |target| target.action().as_str()).to_owned(),
                target: incident.revoke.as_ref().map_or("", Target::id).to_owned(),
                number: attempt,
                outcome: state::outcome(&state),
                status,
            },
            began,
            reason,
        );
        let own = self.revoker.as_ref().and_then(|revoker| revoker.radius());
        let radius = incident.revoke.as_ref().map(|target| Radius::of(own, target));
        let row = ActionRow { radius, confirmation, ..row };
        let (key, lane, at) = (task.key.clone(), REVOKE.to_owned(), self.clock.now_millis());
        let channels = self.outbox.lanes_of(&self.outbox.inner().state, incident);
        let to_user = (state == Revocation::Done).then(|| self.user_message(incident, &task.name)).flatten();
        let (revocation, row) = (Some(state), Some(row));
        let record = match fate {
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
        };
        std::iter::once(record).chain(to_user).collect()
    }

    /// The records of the revocation of the change `key`, which is left to people.
    pub(super) fn propose(&self, key: &str, now: i64) -> Vec<Record> {
        let Some(task) = self.task_of(key) else { return Vec::new() };
        let (state, reason) =
            (Revocation::Proposed, "the stop was lifted with --propose; an operator must decide".to_owned());
        self.note(&task, Progress { state, fate: Fate::Final, status: 0, reason, confirmation: None }, now)
    }

    /// The revocation of the change `key`, which is not to be requested.
    fn task_of(&self, key: &str) -> Option<ToRevoke> {
        let inner = self.outbox.inner();
        let (key, asked) = inner.state.revocations.get_key_value(key)?;
        Some(ToRevoke {
            key: key.clone(),
            name: asked.name.clone(),
            incident: asked.incident.clone(),
            effect: asked.effect.clone(),
            is_paused: false,
            is_expired: false,
        })
    }

    /// Gives up a held revocation if more are held than allowed.
    fn give_up_oldest(&self) {
        let now = self.clock.now_millis();
        let oldest = self.outbox.inner().state.too_many_held();
        if let Some(task) = oldest.and_then(|key| self.task_of(&key)) {
            let reason = "given up: too many revocations of its tenant wait".to_owned();
            let progress = Progress { fate: Fate::Final, ..Progress::refused(reason, 0) };
            let records = self.note(&task, progress, now);
            self.record(records);
        }
    }

    /// A notice about a limit that is reached: at most once an hour for each rule, for applications, and for the others,
    /// because the hour is in its key. It contains no value of an event.
    fn capped_notice(&self, state: &Revocation, incident: &Incident) -> Option<Record> {
        let Revocation::Capped(Reached { limit, cap }) = *state else { return None };
        let caps = self.caps();
        let (scope, incident_id) = (Scope::of(incident), incident.id);
        let key = caps.key(limit, &scope);
        let rule = scope.rule.map_or("", RuleId::as_str);
        let (of, of_what, title) = match limit {
            Limit::Rule => (rule, format!("by the rule {rule} in one tenant"), "A limit of a rule is reached"),
            Limit::RuleTotal => (rule, format!("by the rule {rule} in all tenants"), "A limit of a rule is reached"),
            Limit::Application => {
                let of_what = format!("of one application of a tenant (that of {incident_id})");
                ("application", of_what, "A limit of an application is reached")
            }
            Limit::Tenant => ("", "of one tenant".to_owned(), "The cap on revocations is reached"),
            Limit::Total => ("", "of all tenants".to_owned(), "The cap on revocations is reached"),
        };
        let hour = self.clock.now_millis() / HOUR_MS;
        let notice_key = if of.is_empty() { format!("capped-{hour}") } else { format!("capped-{of}-{hour}") };
        let waiting = {
            let state = &self.outbox.inner().state;
            if state.has(&notice_key) {
                return None;
            }
            grouped(state.unrequested(&scope, limit) as u64)
        };
        let counts = match caps.weight {
            1 => String::new(),
            weight => format!(" Each request counts as {weight} revocations, because it revokes more than a grant."),
        };
        let text = format!(
            "{cap} revocations {of_what} ({key}) are allowed within an hour, and as many were requested.{counts} {waiting} \
             wait now. They are requested when fewer were requested within the last hour. Others continue if their own \
             limits allow it. Check whether this is an attack or a mistake. Revoke urgent grants and tokens at the provider."
        );
        self.notice(notice_key, title, text, self.outbox.notice_lanes())
    }

    fn breaker_notice(&self, reason: &str, now: i64) -> Option<Record> {
        let text = format!(
            "{} revocation requests failed consecutively. The last reason: {reason}. Revocations wait and are retried one \
             at a time. Until one succeeds, revoke at the provider.",
            self.settings.breaker_failures
        );
        self.notice(format!("breaker-{now}"), "Revocation requests fail", text, self.outbox.notice_lanes())
    }
}

impl Progress {
    fn done(done: Revoked, incident: &Incident) -> Self {
        let (state, status) = match done {
            Revoked::Done { status, .. } => (Revocation::Done, status),
            Revoked::AlreadyGone { status, .. } => (Revocation::AlreadyGone, status),
        };
        let confirmation = Some(done.confirmation());
        Self { state, fate: Fate::Final, status, reason: incident.reason.clone(), confirmation }
    }

    fn refused(reason: String, status: u16) -> Self {
        Self {
            state: Revocation::Failed(reason.clone()),
            fate: Fate::Hold(Hold::Refused),
            status,
            reason,
            confirmation: None,
        }
    }
}

/// Whether a refusal with this status concerns the provider or the credentials, not only this target. Status 0 is a
/// request that could not be built for this target. 404 and 410 are answers about a user or grant that the provider does
/// not know: events with invented ids must not delay the revocations of others.
const fn is_about_provider(status: u16) -> bool {
    !matches!(status, 0 | 200..=299 | 400 | 404 | 409 | 410 | 422)
}
