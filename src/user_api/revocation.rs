//! Revocations that users request: jobs as those of `tokenwarden revoke`, with a journal in the folder of the outbox.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::caller::{BY, Caller};
use super::data::GrantName;
use crate::by_hand::{
    Beside, Effect, Ending, Executor, Found, Grant, Job, JobError, JobFile, Origin, PER_MINUTE, Plan, Scope, Subject,
    Unit, plan, store_rows, unfinished,
};
use crate::deliver::PAUSE_FILE;
use crate::port::{Clock, Revoker, Store};
use crate::verdict::Target;

/// Maximum number of jobs that run at once.
const JOBS_MAX: usize = 64;
/// Time after which a paused job, or rows that the store did not take, are tried again.
const AGAIN: Duration = Duration::from_secs(30);
/// Time for which a request waits for its job.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(8);
const REASON: &str = "requested by the user";

/// Why no job was started.
#[derive(Debug)]
pub(super) enum NotStarted {
    Paused,
    TooMany,
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
    pub(super) running: Arc<AtomicUsize>,
}

impl<S> Clone for Revocations<S> {
    fn clone(&self) -> Self {
        Self {
            revoker: Arc::clone(&self.revoker),
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            folder: self.folder.clone(),
            running: Arc::clone(&self.running),
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

    /// Writes a job for `grants` to disk.
    pub(super) async fn start(
        &self,
        caller: &Caller,
        one: Option<&GrantName>,
        grants: Vec<Grant>,
    ) -> Result<JobFile, NotStarted> {
        if self.is_paused() {
            return Err(NotStarted::Paused);
        }
        if self.running.load(Ordering::Relaxed) >= JOBS_MAX {
            return Err(NotStarted::TooMany);
        }
        let plan = plan(Found { grants, unknown: None }, &*self.revoker, REASON);
        if plan.requests.is_empty() {
            let reason = plan.refused.into_iter().next().map(|refused| refused.reason);
            return Err(NotStarted::Impossible(reason.unwrap_or_else(|| "there is no grant".to_owned())));
        }
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
        self.create(job, plan).await.map_err(NotStarted::Journal)
    }

    async fn create(&self, job: Job, plan: Plan) -> Result<JobFile, JobError> {
        let folder = self.folder.clone();
        let created =
            tokio::task::spawn_blocking(move || JobFile::create(&folder, None, job, &plan, Beside::Allowed)).await;
        created.map_err(|error| JobError::File(std::io::Error::other(error)))?
    }

    /// Executes `job` in the background, until its requests have ended and its rows are in the store. The result of the
    /// requests is sent to the returned channel.
    pub(super) fn execute(&self, mut job: JobFile) -> tokio::sync::oneshot::Receiver<Value> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let this = self.clone();
        this.running.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let is_done = this.request_all(&mut job).await;
            // The caller may have gone.
            let _ = sender.send(summary(&job));
            if is_done {
                this.store_and_remove(job).await;
            }
            this.running.fetch_sub(1, Ordering::Relaxed);
        });
        receiver
    }

    /// Whether every request has ended. A paused job waits for the end of the pause.
    async fn request_all(&self, job: &mut JobFile) -> bool {
        // A stop of the process ends the task. The journal is then continued at the next start.
        let (_stop, stopped) = watch::channel(false);
        let executor = Executor {
            revoker: &*self.revoker,
            store: &*self.store,
            clock: &*self.clock,
            per_minute: PER_MINUTE,
            pause_file: Some(self.folder.join(PAUSE_FILE)),
            stop: stopped,
        };
        loop {
            match executor.run(job, &mut |_| {}).await {
                Ending::Paused => self.clock.sleep(AGAIN).await,
                Ending::Journal(error) => {
                    tracing::error!(job = job.job.id, %error, "the journal of a revocation cannot be written");
                    return false;
                }
                ending => {
                    if job.left().next().is_some() {
                        tracing::error!(job = job.job.id, ?ending, "a revocation that a user requested has failed");
                    }
                    return true;
                }
            }
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
                    drop(self.execute(job));
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

/// The result of a job for its caller.
fn summary(job: &JobFile) -> Value {
    let left = job.left().count();
    json!({
        "job": job.job.id,
        "state": if left == 0 { "revoked" } else { "failed" },
        "requests": job.requests.len(),
        "revoked": job.revoked(),
        "failed": left,
        "not_possible": job.job.refused,
    })
}

/// The answer while the job runs.
pub(super) fn pending(id: &str, requests: usize) -> Value {
    json!({ "job": id, "state": "pending", "requests": requests })
}
