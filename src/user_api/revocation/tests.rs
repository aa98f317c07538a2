//! Jobs of users with a provider whose answers the test chooses.

use async_trait::async_trait;

use super::super::caller::Via;
use super::*;
use crate::by_hand::Grant;
use crate::port::{Confirmation, DeliveryError, RevokeRequest, Revoked};
use crate::store::NullStore;

/// A clock that a sleep advances at once.
struct Jumping(Mutex<i64>);

#[async_trait]
impl Clock for Jumping {
    fn now_millis(&self) -> i64 {
        *unpoisoned(&self.0)
    }

    async fn sleep(&self, wait: Duration) {
        *unpoisoned(&self.0) += wait.as_millis() as i64;
        tokio::task::yield_now().await;
    }
}

/// A provider that rejects the credential of its first requests, and stores their targets.
struct Provider {
    rejected: usize,
    seen: Mutex<Vec<String>>,
}

#[async_trait]
impl Revoker for Provider {
    fn accepts(&self, _: &Target) -> bool {
        true
    }

    async fn revoke(&self, asked: RevokeRequest<'_>) -> Result<Revoked, DeliveryError> {
        let mut seen = unpoisoned(&self.seen);
        seen.push(asked.target.id().to_owned());
        if seen.len() > self.rejected {
            return Ok(Revoked::Done { status: 204, confirmation: Confirmation::at(7) });
        }
        Err(DeliveryError::Permanent { reason: "the provider answered 401".to_owned(), status: 401 })
    }
}

fn revocations(folder: &std::path::Path, rejected: usize) -> (Revocations<NullStore>, Arc<Provider>) {
    let provider = Arc::new(Provider { rejected, seen: Mutex::default() });
    let revocations = Revocations {
        revoker: Arc::clone(&provider) as Arc<dyn Revoker>,
        store: Arc::new(NullStore),
        clock: Arc::new(Jumping(Mutex::new(0))),
        folder: folder.to_owned(),
        running: Arc::default(),
        pace: Arc::new(Pace::new(60)),
    };
    (revocations, provider)
}

fn caller(user: &str) -> Caller {
    Caller::new("acme".to_owned(), user.to_owned(), Via::Jwt).expect("a caller")
}

fn grant(family: &str) -> Grant {
    Grant { tenant_id: "acme".into(), user_id: "ana".into(), family_id: family.into(), ..Grant::default() }
}

fn found(families: &[&str]) -> Revocable {
    Revocable { grants: families.iter().map(|family| grant(family)).collect(), ..Revocable::default() }
}

#[tokio::test]
async fn job_continues_after_a_rejected_credential() {
    let folder = tempfile::tempdir().expect("a folder");
    let (revocations, provider) = revocations(folder.path(), 1);
    let (job, place) = revocations.start(&caller("ana"), None, found(&["g-1", "g-2"])).await.expect("a job");
    let result = revocations.execute(job, Some(place)).await.expect("a result");
    assert_eq!((result.state, result.revoked, result.failed), (JobState::Revoked, 2, 0));
    assert_eq!(*unpoisoned(&provider.seen), ["g-1", "g-1", "g-2"]);
}

#[tokio::test]
async fn job_that_is_given_up_has_a_failed_row_for_each_grant() {
    let folder = tempfile::tempdir().expect("a folder");
    let (revocations, provider) = revocations(folder.path(), usize::MAX);
    let (mut job, _place) = revocations.start(&caller("ana"), None, found(&["g-1", "g-2"])).await.expect("a job");
    assert!(revocations.request_all(&mut job).await);
    let rows: Vec<_> = job.waiting_rows().iter().filter(|row| row.reason.contains("given up a day after")).collect();
    assert_eq!(rows.iter().map(|row| &*row.target).collect::<Vec<_>>(), ["g-1", "g-2"]);
    assert!(rows.iter().all(|row| row.outcome == crate::port::ActionOutcome::Failed && row.user_id == "ana"));
    let result = JobResult::ended(&job);
    assert_eq!((result.state, result.failed), (JobState::Failed, 2));
    let count = unpoisoned(&provider.seen).len();
    assert!((24..80).contains(&count), "growing waits up to an hour for a day: {count}");
    assert!(revocations.clock.now_millis() >= GIVE_UP_MS);
}

#[tokio::test]
async fn user_has_one_job_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (revocations, _) = revocations(folder.path(), 0);
    let (job, place) = revocations.start(&caller("ana"), None, found(&["g-1"])).await.expect("a job");
    let second = revocations.start(&caller("ana"), None, found(&["g-2"])).await;
    assert!(matches!(second, Err(NotStarted::Running(other)) if other.job == job.job.id));
    assert!(revocations.start(&caller("bob"), None, found(&["g-3"])).await.is_ok(), "another user");
    revocations.execute(job, Some(place)).await.expect("a result");
    assert!(revocations.start(&caller("ana"), None, found(&["g-2"])).await.is_ok());
}

#[tokio::test]
async fn job_of_an_earlier_process_is_continued() {
    let folder = tempfile::tempdir().expect("a folder");
    let (earlier, _) = revocations(folder.path(), 0);
    let (job, place) = earlier.start(&caller("ana"), None, found(&["g-1", "g-2"])).await.expect("a job");
    let journal = job.path.clone();
    drop((job, place));
    let (revocations, provider) = revocations(folder.path(), 0);
    revocations.resume();
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(*unpoisoned(&provider.seen), ["g-1", "g-2"]);
    assert!(!journal.exists(), "the rows are stored, and the journal is removed");
}

#[tokio::test]
async fn shared_grants_are_recorded_and_not_requested() {
    let folder = tempfile::tempdir().expect("a folder");
    let (revocations, provider) = revocations(folder.path(), 0);
    let found = Revocable { shared: vec![grant("g-2")], ..found(&["g-1"]) };
    let (job, place) = revocations.start(&caller("ana"), None, found).await.expect("a job");
    let is_recorded = job.waiting_rows().iter().any(|row| row.target == "g-2" && row.reason.contains(SHARED));
    assert!(is_recorded, "{:?}", job.waiting_rows());
    let result = revocations.execute(job, Some(place)).await.expect("a result");
    assert_eq!((result.state, result.revoked, result.not_possible), (JobState::Partial, 1, 1));
    assert_eq!(*unpoisoned(&provider.seen), ["g-1"]);
}
