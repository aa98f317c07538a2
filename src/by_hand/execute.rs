//! Sends the requests of a job: paced, with retries, and stopped when the provider fails.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;

use super::journal::JobFile;
use super::plan::Request;
use crate::lock::unpoisoned;
use crate::millis::MINUTE_MS;
use crate::port::{
    ActionOutcome, ActionRow, Clock, DeliveryError, Radius, Revoked, Revoker, Rows as _, Store, StoreError,
};
use crate::retry::RetryPolicy;
use crate::revoke::rejects_own_credential;
use crate::verdict::Mode;

/// Default number of requests per minute.
pub(crate) const PER_MINUTE: u32 = 60;
/// Maximum number of attempts of a request before it counts as failed.
pub(crate) const ATTEMPTS_MAX: u32 = 5;
/// The job stops when more than this share of its answered requests failed, from [`REQUESTS_MIN`] requests on.
pub(crate) const FAILED_PERCENT_MAX: u32 = 20;
pub(crate) const REQUESTS_MIN: u32 = 10;
const RETRY: RetryPolicy = RetryPolicy::new(Duration::from_secs(2), Duration::from_secs(60));
/// While the job waits, it checks this often whether it is to stop.
const LOOK_MS: i64 = 1_000;
/// Rows are written to the store whenever this many wait, and at the end.
const ROWS_WAITING: usize = 200;
/// Time limit of a write to the store. An embedded store is opened first.
const STORE_WAIT: Duration = Duration::from_secs(60);
const TOO_MANY_REQUESTS: u16 = 429;

/// Why the job ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// Every request has ended.
    Complete,
    /// `pause-actions` is in force.
    Paused,
    /// SIGINT or SIGTERM.
    Interrupted,
    /// The provider rejects the credential of `[revoke.http]`.
    CredentialRejected(String),
    /// Too many requests failed.
    TooManyFailures { failed: u32, requests: u32, last: String },
    /// The journal cannot be written, so that results would be lost.
    Journal(io::Error),
}

/// A request that waits.
#[derive(Clone, Copy)]
struct Waiting {
    /// Position in the job.
    at: usize,
    /// Attempts of this run.
    attempts: u32,
    due_at: i64,
}

/// One attempt of a request.
struct Attempt {
    /// Milliseconds since the epoch, wall clock.
    began: i64,
    /// Number of attempts in this run, from 1.
    of_run: u32,
}

/// The pace of requests to the provider. Jobs that run at once may share one.
pub(crate) struct Pace {
    between_ms: i64,
    /// Time before which no request is allowed, milliseconds since the epoch, wall clock.
    open_at: Mutex<i64>,
}

impl Pace {
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { between_ms: MINUTE_MS / i64::from(per_minute.max(1)), open_at: Mutex::new(i64::MIN) }
    }

    fn open_at(&self) -> i64 {
        *unpoisoned(&self.open_at)
    }

    /// Whether a request may be sent at `now`. If so, it delays the next one.
    fn take(&self, now: i64) -> bool {
        let mut open_at = unpoisoned(&self.open_at);
        let is_open = *open_at <= now;
        if is_open {
            *open_at = now + self.between_ms;
        }
        is_open
    }

    fn delay_until(&self, at: i64) {
        let mut open_at = unpoisoned(&self.open_at);
        *open_at = at.max(*open_at);
    }
}

/// Executes a job.
pub(crate) struct Executor<'a, S> {
    pub(crate) revoker: &'a dyn Revoker,
    pub(crate) store: &'a S,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) pace: &'a Pace,
    /// While this file exists, nothing is requested. `None`: the operator revokes despite the pause.
    pub(crate) pause_file: Option<PathBuf>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl<S: Store> Executor<'_, S> {
    /// Sends every request of `job` that has not succeeded. `progress` is called after each answer.
    pub(crate) async fn run(&self, job: &mut JobFile, progress: &mut (dyn FnMut(&JobFile) + Send)) -> Ending {
        let left = job.left().map(|request| request.number as usize);
        let mut queue: VecDeque<_> = left.map(|at| Waiting { at, attempts: 0, due_at: i64::MIN }).collect();
        let (mut requests, mut failed, mut last) = (0, 0, String::new());
        let mut store_answers = true;
        while let Some(first) = queue.iter().map(|waiting| waiting.due_at).min() {
            if let Some(ending) = self.is_to_stop() {
                return ending;
            }
            let now = self.clock.now_millis();
            let ready_at = first.max(self.pace.open_at());
            if ready_at > now {
                self.clock.sleep(Duration::from_millis((ready_at - now).min(LOOK_MS) as u64)).await;
                continue;
            }
            // Another job may have taken this turn.
            let turn = self.pace.take(now).then(|| queue.iter().position(|waiting| waiting.due_at <= now)).flatten();
            let Some(mut waiting) = turn.and_then(|at| queue.remove(at)) else { continue };
            waiting.attempts += 1;
            let request = job.requests[waiting.at].clone();
            let (number, key) = (request.number, request.key(&job.job.id));
            let answer = self.revoker.revoke(request.asked(&key, &job.job.reason)).await;
            requests += 1;
            let row = self.row(job, &request, Attempt { began: now, of_run: waiting.attempts }, &answer);
            if let Err(error) = &answer {
                last = reason_of(error);
            }
            let written = match answer {
                Ok(_) => job.ended(number, row),
                Err(error) if rejects_own_credential(&error) => {
                    return match job.tried(number, row) {
                        Ok(()) => Ending::CredentialRejected(last),
                        Err(error) => Ending::Journal(error),
                    };
                }
                Err(DeliveryError::Retriable { status, retry_after, .. }) => {
                    let after = self.clock.now_millis();
                    let wait = RETRY.wait(waiting.attempts).max(retry_after.unwrap_or_default());
                    if let Some(wait) = retry_after {
                        tracing::warn!(status, seconds = wait.as_secs(), "the provider asks to wait");
                        self.pace.delay_until(after + wait.as_millis() as i64);
                    }
                    // An exceeded rate limit is no failure of the provider.
                    failed += u32::from(status != TOO_MANY_REQUESTS);
                    if row.outcome == ActionOutcome::Retry {
                        waiting.due_at = after + wait.as_millis() as i64;
                        queue.push_back(waiting);
                        job.tried(number, row)
                    } else {
                        job.ended(number, row)
                    }
                }
                Err(_) => {
                    failed += 1;
                    job.ended(number, row)
                }
            };
            if let Err(error) = written {
                return Ending::Journal(error);
            }
            progress(job);
            if requests >= REQUESTS_MIN && failed * 100 > requests * FAILED_PERCENT_MAX && !queue.is_empty() {
                return Ending::TooManyFailures { failed, requests, last };
            }
            if store_answers && job.waiting_rows().len() >= ROWS_WAITING {
                store_answers = store_rows(self.store, job).await.is_ok();
            }
        }
        Ending::Complete
    }

    /// Records every request that has not ended as failed, so that the history and the table `actions` have it.
    pub(crate) fn give_up(&self, job: &mut JobFile, why: &str) -> io::Result<()> {
        let left: Vec<_> = job.left().filter(|request| job.result(request.number).is_none()).cloned().collect();
        for request in left {
            let failed = Err(DeliveryError::Permanent { reason: why.to_owned(), status: 0 });
            let attempt = Attempt { began: self.clock.now_millis(), of_run: ATTEMPTS_MAX };
            let row = self.row(job, &request, attempt, &failed);
            job.ended(request.number, row)?;
        }
        Ok(())
    }

    fn is_to_stop(&self) -> Option<Ending> {
        if *self.stop.borrow() {
            return Some(Ending::Interrupted);
        }
        self.pause_file.as_ref().is_some_and(|file| file.exists()).then_some(Ending::Paused)
    }

    fn row(
        &self,
        job: &JobFile,
        request: &Request,
        Attempt { began, of_run }: Attempt,
        answer: &Result<Revoked, DeliveryError>,
    ) -> ActionRow {
        let attempt = job.attempts(request.number) + 1;
        let (outcome, http_status) = match answer {
            Ok(Revoked::Done { status, .. }) => (ActionOutcome::Done, *status),
            Ok(Revoked::AlreadyGone { status, .. }) => (ActionOutcome::AlreadyGone, *status),
            Err(DeliveryError::Retriable { status, .. }) if of_run < ATTEMPTS_MAX => (ActionOutcome::Retry, *status),
            Err(DeliveryError::Retriable { status, .. } | DeliveryError::Permanent { status, .. }) => {
                (ActionOutcome::Failed, *status)
            }
            Err(DeliveryError::Rejected { .. }) => (ActionOutcome::Failed, 0),
        };
        let reason = match answer {
            Ok(_) => job.job.reason.clone(),
            Err(error) => format!("{}: {}", job.job.reason, reason_of(error)),
        };
        let ended = request.ends(job.job.effect.radius);
        ActionRow {
            action_id: request.key(&job.job.id),
            incident_id: String::new(),
            requested_at: began,
            kind: ended.action().to_owned(),
            target: ended.id.to_owned(),
            mode: Mode::Enforce,
            attempt,
            outcome,
            http_status,
            latency_ms: u32::try_from(self.clock.now_millis() - began).unwrap_or(0),
            requested_by: job.job.by.clone(),
            reason,
            tenant_id: request.grant.tenant_id.clone(),
            user_id: request.grant.user_id.clone(),
            radius: Some(Radius::of(job.job.effect.radius, &request.target)),
            confirmation: answer.as_ref().ok().map(Revoked::confirmation),
        }
    }
}

/// Writes the waiting rows of `job` to the store. They stay in the journal if that fails.
pub(crate) async fn store_rows<S: Store>(store: &S, job: &mut JobFile) -> Result<(), StoreError> {
    if job.waiting_rows().is_empty() {
        return Ok(());
    }
    let mut rows = store.new_rows();
    job.waiting_rows().iter().for_each(|row| rows.push_action(row));
    let late = |_| StoreError::Retriable(format!("no answer within {} s", STORE_WAIT.as_secs()));
    tokio::time::timeout(STORE_WAIT, store.write(&rows)).await.map_err(late)??;
    // If this fails, the same rows are written again, which has no effect.
    job.stored().map_err(|error| StoreError::Retriable(format!("cannot write {}: {error}", job.path.display())))
}

fn reason_of(error: &DeliveryError) -> String {
    match error {
        DeliveryError::Retriable { reason, .. }
        | DeliveryError::Permanent { reason, .. }
        | DeliveryError::Rejected { reason, .. } => reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::super::testing::{create, plan_of};
    use super::*;
    use crate::port::{Confirmation, RevokeRequest};
    use crate::store::NullStore;
    use crate::verdict::Target;

    /// A clock that a sleep advances at once.
    struct Jumping(Mutex<i64>);

    #[async_trait]
    impl Clock for Jumping {
        fn now_millis(&self) -> i64 {
            *self.0.lock().expect("a clock")
        }

        async fn sleep(&self, wait: Duration) {
            *self.0.lock().expect("a clock") += wait.as_millis() as i64;
        }
    }

    type Answer = fn(u32) -> Result<Revoked, DeliveryError>;

    /// A provider that records key and time of each request, and answers by its number.
    struct Provider<'a> {
        clock: &'a Jumping,
        seen: Mutex<Vec<(String, i64)>>,
        answer: Answer,
    }

    #[async_trait]
    impl Revoker for Provider<'_> {
        fn accepts(&self, _: &Target) -> bool {
            true
        }

        async fn revoke(&self, asked: RevokeRequest<'_>) -> Result<Revoked, DeliveryError> {
            let mut seen = self.seen.lock().expect("a list");
            seen.push((asked.key.to_owned(), self.clock.now_millis()));
            (self.answer)(u32::try_from(seen.len()).expect("few"))
        }
    }

    struct Ran {
        ending: Ending,
        job: JobFile,
        seen: Vec<(String, i64)>,
        _folder: tempfile::TempDir,
    }

    async fn run(count: usize, answer: Answer) -> Ran {
        let folder = tempfile::tempdir().expect("a folder");
        let mut job = create(folder.path(), "J", &plan_of(count)).expect("a job");
        let (ending, seen) = again(&mut job, answer, None).await;
        Ran { ending, job, seen, _folder: folder }
    }

    async fn again(job: &mut JobFile, answer: Answer, pause_file: Option<PathBuf>) -> (Ending, Vec<(String, i64)>) {
        let clock = Jumping(Mutex::new(0));
        let provider = Provider { clock: &clock, seen: Mutex::default(), answer };
        let (_stop, stopped) = watch::channel(false);
        let executor = Executor {
            revoker: &provider,
            store: &NullStore,
            clock: &clock,
            pace: &Pace::new(60),
            pause_file,
            stop: stopped,
        };
        let ending = executor.run(job, &mut |_| {}).await;
        (ending, provider.seen.into_inner().expect("a list"))
    }

    #[expect(clippy::unnecessary_wraps, reason = "one of several answers")]
    fn done(_: u32) -> Result<Revoked, DeliveryError> {
        Ok(Revoked::Done { status: 204, confirmation: Confirmation::at(7) })
    }

    fn retriable(status: u16, seconds: Option<u64>) -> Result<Revoked, DeliveryError> {
        let retry_after = seconds.map(Duration::from_secs);
        Err(DeliveryError::Retriable { reason: format!("the provider answered {status}"), status, retry_after })
    }

    fn refused(status: u16) -> Result<Revoked, DeliveryError> {
        Err(DeliveryError::Permanent { reason: format!("the provider answered {status}"), status })
    }

    #[tokio::test]
    async fn requests_are_paced() {
        let ran = run(5, done).await;
        assert!(matches!(ran.ending, Ending::Complete));
        assert_eq!(ran.seen.iter().map(|(_, at)| *at).collect::<Vec<_>>(), [0, 1_000, 2_000, 3_000, 4_000]);
        assert_eq!((ran.job.revoked(), ran.job.left().count()), (5, 0));
    }

    #[tokio::test]
    async fn retry_after_delays_all_requests() {
        let ran = run(2, |number| if number == 1 { retriable(429, Some(30)) } else { done(number) }).await;
        assert!(matches!(ran.ending, Ending::Complete));
        let expected = [("J-000000", 0), ("J-000001", 30_000), ("J-000000", 31_000)];
        assert_eq!(ran.seen.iter().map(|(key, at)| (&**key, *at)).collect::<Vec<_>>(), expected);
        assert_eq!(ran.job.result(0).map(|row| (row.attempt, row.outcome)), Some((2, ActionOutcome::Done)));
    }

    #[tokio::test]
    async fn failing_request_is_given_up_and_repeated_by_a_resume() {
        let mut ran = run(1, |_| retriable(503, None)).await;
        assert!(matches!(ran.ending, Ending::Complete));
        assert_eq!(ran.seen.len(), ATTEMPTS_MAX as usize);
        assert_eq!(ran.job.result(0).map(|row| row.outcome), Some(ActionOutcome::Failed));
        let (ending, seen) = again(&mut ran.job, done, None).await;
        assert!(matches!(ending, Ending::Complete));
        assert_eq!((seen.len(), &*seen[0].0, ran.job.revoked()), (1, "J-000000", 1));
        assert_eq!(ran.job.result(0).map(|row| row.attempt), Some(ATTEMPTS_MAX + 1));
    }

    #[tokio::test]
    async fn failures_stop_the_job_from_ten_requests_on() {
        // Two of the first ten are refused, then every one.
        let answer = |number| if matches!(number, 3 | 4) || number > 10 { refused(400) } else { done(number) };
        let ran = run(40, answer).await;
        let Ending::TooManyFailures { failed, requests, last } = ran.ending else { panic!("{:?}", ran.ending) };
        assert_eq!((failed, requests, &*last), (3, 11, "the provider answered 400"));
        assert_eq!((ran.seen.len(), ran.job.left().count()), (11, 32));
        let limits = run(12, |number| if number < 12 { retriable(429, None) } else { done(number) }).await;
        assert!(matches!(limits.ending, Ending::Complete), "an exceeded rate limit is no failure");
    }

    #[tokio::test]
    async fn rejected_credential_stops_at_once_and_can_be_resumed() {
        let mut ran = run(3, |number| if number == 2 { refused(401) } else { done(number) }).await;
        assert!(matches!(&ran.ending, Ending::CredentialRejected(why) if why.contains("401")), "{:?}", ran.ending);
        assert_eq!((ran.seen.len(), ran.job.left().count()), (2, 2));
        let (ending, seen) = again(&mut ran.job, done, None).await;
        assert!(matches!(ending, Ending::Complete));
        assert_eq!(seen.iter().map(|(key, _)| &**key).collect::<Vec<_>>(), ["J-000001", "J-000002"]);
    }

    #[tokio::test]
    async fn pause_stops_before_the_next_request() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut job = create(folder.path(), "J", &plan_of(2)).expect("a job");
        let file = folder.path().join("pause-actions");
        std::fs::write(&file, "").expect("written");
        let (ending, seen) = again(&mut job, done, Some(file)).await;
        assert!(matches!(ending, Ending::Paused) && seen.is_empty(), "{ending:?}");
    }
}
