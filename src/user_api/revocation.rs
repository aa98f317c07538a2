//! Revocations that users request: jobs as those of `tokenwarden revoke`, with a journal in the folder of the outbox.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{oneshot, watch};

use super::caller::{BY, Caller};
use super::data::{GrantName, Revocable};
use crate::by_hand::{
    Beside, Effect, Ending, Executor, Found, Job, JobError, JobFile, Origin, Pace, Plan, Refused, Request, Scope,
    Subject, Unit, plan, store_rows, unfinished,
};
use crate::deliver::PAUSE_FILE;
use crate::lock::unpoisoned;
use crate::millis::DAY_MS;
use crate::port::{Clock, Revoker, Store};
use crate::retry::RetryPolicy;
use crate::verdict::Target;

/// Maximum number of jobs that run at once.
const JOBS_MAX: usize = 64;
/// Time after which a paused job, or rows that the store did not take, are tried again.
const AGAIN: Duration = Duration::from_secs(30);
/// Time for which a request waits for its job.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(8);
/// Waits of a job that the provider's failures stopped.
const RETRY: RetryPolicy = RetryPolicy::new(AGAIN, Duration::from_secs(3_600));
/// Time after the start of a job from which it is no longer tried again.
const GIVE_UP_MS: i64 = DAY_MS;
const SHARED: &str =
    "the grant also belongs to other users, or its user is not known, so only an operator can revoke it";
const REASON: &str = "requested by the user";

/// Why no job was started.
#[derive(Debug)]
pub(super) enum NotStarted {
    Paused,
    TooMany,
    /// A job of the same user runs.
    Running(JobResult),
    /// No request to the provider can revoke the grants. The reason is that of the first.
    Impossible(String),
    Journal(JobError),
}

/// Starts and continues jobs.
pub(super) struct Revocations<S> {
    pub(super) revoker: Arc<dyn Revoker>,
    pub(super) store: Arc<S>,
    pub(super) clock: Arc<dyn Clock>,
    /// Folder of the journals and of the file that pauses revocations.
    pub(super) folder: PathBuf,
    /// The caller's tenant and user, and the job, of each job that runs.
    pub(super) running: Arc<Mutex<Running>>,
    pub(super) pace: Arc<Pace>,
}

pub(super) type Running = HashMap<(String, String), JobResult>;

/// State of a job for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum JobState {
    /// All that was requested is revoked.
    Revoked,
    /// The requests succeeded. Some grants were not requested.
    Partial,
    Failed,
    Pending,
}

/// The answer about a job.
#[derive(Clone, Debug, Serialize)]
pub(super) struct JobResult {
    /// Empty if nothing was left to request.
    pub(super) job: String,
    pub(super) state: JobState,
    pub(super) requests: usize,
    pub(super) revoked: usize,
    pub(super) failed: usize,
    /// Grants that were not requested: no request can revoke them, or they are shared.
    pub(super) not_possible: usize,
}

impl JobResult {
    fn of(job: &JobFile, state: JobState) -> Self {
        Self {
            job: job.job.id.clone(),
            state,
            requests: job.requests.len(),
            revoked: job.revoked(),
            failed: job.left().filter(|request| job.result(request.number).is_some()).count(),
            not_possible: job.job.refused,
        }
    }

    /// The result of a job whose requests have ended.
    fn ended(job: &JobFile) -> Self {
        let state = match (job.left().count(), job.job.refused) {
            (0, 0) => JobState::Revoked,
            (0, _) => JobState::Partial,
            _ => JobState::Failed,
        };
        Self::of(job, state)
    }

    pub(super) fn pending(job: &JobFile) -> Self {
        Self::of(job, JobState::Pending)
    }

    /// Every grant was revoked before.
    pub(super) const fn nothing_left() -> Self {
        Self { job: String::new(), state: JobState::Revoked, requests: 0, revoked: 0, failed: 0, not_possible: 0 }
    }
}

/// The place of a running job. Dropped, it is free.
pub(super) struct Place {
    running: Arc<Mutex<Running>>,
    of: (String, String),
}

impl Drop for Place {
    fn drop(&mut self) {
        unpoisoned(&self.running).remove(&self.of);
    }
}

impl<S> Clone for Revocations<S> {
    fn clone(&self) -> Self {
        Self {
            revoker: Arc::clone(&self.revoker),
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            folder: self.folder.clone(),
            running: Arc::clone(&self.running),
            pace: Arc::clone(&self.pace),
        }
    }
}

impl<S: Store + 'static> Revocations<S>
where
    S::Rows: 'static,
{
    pub(super) fn unit(&self) -> Unit {
        Effect::unit(&*self.revoker)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.folder.join(PAUSE_FILE).exists()
    }

    /// Writes a job for the grants to disk. Shared ones are recorded, and not requested.
    pub(super) async fn start(
        &self,
        caller: &Caller,
        one: Option<&GrantName>,
        found: Revocable,
    ) -> Result<(JobFile, Place), NotStarted> {
        if self.is_paused() {
            return Err(NotStarted::Paused);
        }
        let mut plan = plan(Found { grants: found.grants, unknown: None }, &*self.revoker, REASON);
        if plan.requests.is_empty() {
            let reason = plan.refused.into_iter().next().map(|refused| refused.reason);
            return Err(NotStarted::Impossible(reason.unwrap_or_else(|| "there is no grant".to_owned())));
        }
        plan.refused.extend(found.shared.into_iter().map(|grant| {
            let target = GrantName::of(&grant.family_id, &grant.token_id).0;
            Refused { request: Request { number: 0, target, grant }, reason: SHARED.to_owned() }
        }));
        let (subject, id) = match one.map(|name| &name.0) {
            None => (Subject::User, &caller.user),
            Some(Target::Family(id)) => (Subject::Grant, id),
            Some(Target::Token(id)) => (Subject::Token, id),
        };
        let scope =
            Scope { subject, id: id.clone(), tenant: Some(caller.tenant.clone()), since: None, issued_before: None };
        let now = self.clock.now_millis();
        let job = Job {
            id: Job::new_id(now, &scope),
            scope,
            reason: format!("{REASON} by {}", caller.via.as_str()),
            by: format!("{BY}{}", caller.user),
            started_at: now,
            effect: plan.effect.clone(),
            refused: plan.refused.len(),
            origin: Origin::UserApi,
        };
        let place = self.place(caller, &job.id)?;
        let job = self.create(job, plan).await.map_err(NotStarted::Journal)?;
        unpoisoned(&self.running).insert(place.of.clone(), JobResult::pending(&job));
        Ok((job, place))
    }

    /// Takes the place of a job of `caller`, of which there is one.
    fn place(&self, caller: &Caller, job: &str) -> Result<Place, NotStarted> {
        let mut running = unpoisoned(&self.running);
        let of = (caller.tenant.clone(), caller.user.clone());
        if let Some(other) = running.get(&of) {
            return Err(NotStarted::Running(other.clone()));
        }
        if running.len() >= JOBS_MAX {
            return Err(NotStarted::TooMany);
        }
        let starting = JobResult { job: job.to_owned(), state: JobState::Pending, ..JobResult::nothing_left() };
        running.insert(of.clone(), starting);
        Ok(Place { running: Arc::clone(&self.running), of })
    }

    async fn create(&self, job: Job, plan: Plan) -> Result<JobFile, JobError> {
        let folder = self.folder.clone();
        let created =
            tokio::task::spawn_blocking(move || JobFile::create(&folder, None, job, &plan, Beside::Allowed)).await;
        created.map_err(|error| JobError::File(std::io::Error::other(error)))?
    }

    /// Executes `job` in the background, until its requests have ended and its rows are in the store. The result of the
    /// requests is sent to the returned channel. `place`: `None` for a job of an earlier process.
    pub(super) fn execute(&self, mut job: JobFile, place: Option<Place>) -> oneshot::Receiver<JobResult> {
        let (sender, receiver) = oneshot::channel();
        let this = self.clone();
        tokio::spawn(async move {
            let is_done = this.request_all(&mut job).await;
            // The rows may wait for the store for hours.
            drop(place);
            // The caller may have gone.
            let _ = sender.send(JobResult::ended(&job));
            if is_done {
                this.store_and_remove(job).await;
            }
        });
        receiver
    }

    /// Whether every request has ended. A job waits for the end of a pause. A job that the provider's failures stopped is
    /// tried again until [`GIVE_UP_MS`]. Its journal is kept meanwhile.
    async fn request_all(&self, job: &mut JobFile) -> bool {
        // A stop of the process ends the task. The journal is then continued at the next start.
        let (_stop, stopped) = watch::channel(false);
        let executor = Executor {
            revoker: &*self.revoker,
            store: &*self.store,
            clock: &*self.clock,
            pace: &self.pace,
            pause_file: Some(self.folder.join(PAUSE_FILE)),
            stop: stopped,
        };
        let mut stops = 0;
        loop {
            let ending = executor.run(job, &mut |_| {}).await;
            let given_up = match ending {
                Ending::Paused => {
                    self.clock.sleep(AGAIN).await;
                    continue;
                }
                Ending::CredentialRejected(_) | Ending::TooManyFailures { .. } => {
                    stops += 1;
                    tracing::error!(
                        job = job.job.id,
                        ?ending,
                        "the provider stopped a revocation that a user requested"
                    );
                    if self.clock.now_millis() - job.job.started_at < GIVE_UP_MS {
                        self.clock.sleep(RETRY.wait(stops)).await;
                        continue;
                    }
                    executor.give_up(job, "given up a day after the request")
                }
                Ending::Journal(error) => Err(error),
                Ending::Complete | Ending::Interrupted => Ok(()),
            };
            if let Err(error) = given_up {
                tracing::error!(job = job.job.id, %error, "the journal of a revocation cannot be written");
                return false;
            }
            let failed = job.left().count();
            if failed > 0 {
                tracing::error!(job = job.job.id, failed, "a revocation that a user requested has failed");
            }
            return true;
        }
    }

    /// Writes the rows of an ended job to the store, and removes its journal.
    async fn store_and_remove(&self, mut job: JobFile) {
        while let Err(error) = store_rows(&*self.store, &mut job).await {
            tracing::warn!(job = job.job.id, %error, "rows of a revocation wait for the store");
            self.clock.sleep(AGAIN).await;
        }
        if let Err(error) = std::fs::remove_file(&job.path) {
            tracing::warn!(job = job.job.id, %error, "the journal of a revocation cannot be removed");
        }
    }

    /// Continues the jobs of an earlier process.
    pub(super) fn resume(&self) {
        let ids = match unfinished(&self.folder, Origin::UserApi) {
            Ok(ids) => ids,
            Err(error) => return tracing::error!(%error, "journals of revocations cannot be read"),
        };
        for id in ids {
            match JobFile::open(&self.folder, None, &id) {
                Ok(job) if job.job.effect == Effect::of(&*self.revoker) => {
                    tracing::info!(
                        job = id,
                        left = job.left().count(),
                        "continuing a revocation that a user requested"
                    );
                    drop(self.execute(job, None));
                }
                Ok(_) => tracing::error!(
                    job = id,
                    "[revoke.http] has changed, so a revocation that a user requested is not continued; run `tokenwarden \
                     revoke --resume JOB` with the earlier configuration, or delete its journal"
                ),
                Err(error) => tracing::error!(job = id, %error, "a revocation that a user requested is not continued"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
