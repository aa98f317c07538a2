//! Sealed rows that are not stored yet, in order: first those that are being written, then those in the spool.
//!
//! Each write is one attempt. The worker's thread starts the next attempt when it is due. Rows that were sealed together
//! are sent together at each attempt, so that the store can deduplicate them.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::error::WorkerError;
use super::outage::{Outage, Trouble};
use super::part::{Lent, Ownership, Part};
use super::spool::{Refused, Spool};
use crate::kill_point::{Step, reach};
use crate::port::{Rows as _, SavedRows, Store, StoreError};
use crate::retry::{Retries, RetryPolicy};
use crate::telemetry::{Condition, Health, Metrics, StoreState};

/// Writes to the store.
const STORE_RETRY: RetryPolicy = RetryPolicy::new(Duration::from_millis(100), Duration::from_secs(5));
/// If an attempt takes longer, the store is reported as unavailable.
const SLOW_MS: i64 = 10_000;
/// Timeout of an attempt, in addition to the timeouts of the store.
const ATTEMPT_WAIT: Duration = Duration::from_secs(120);
/// Writes to the spool.
const SPOOL_RETRY: RetryPolicy = RetryPolicy::every(Duration::from_secs(1));

/// The backlog, see the module documentation.
pub(super) struct Backlog<S: Store> {
    store: Arc<S>,
    runtime: Handle,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// Time for which a write is retried. `None`: without limit, also after permanent errors.
    wait_ms_max: Option<i64>,
    head: Option<Head<S::Rows>>,
    /// `None`: only one epoch at a time can wait for the store.
    spool: Option<Spool>,
    spool_retries: Retries,
    store_trouble: Option<Trouble>,
    spool_trouble: Option<Trouble>,
}

/// The rows that are being written.
struct Head<R> {
    parts: Vec<Arc<Part<R>>>,
    /// The rows are also in the spool.
    is_spooled: bool,
    /// Time of the first attempt, milliseconds since the epoch, wall clock.
    began: i64,
    retries: Retries,
    /// Start of the current attempt, wall clock, and the attempt.
    attempt: Option<(i64, JoinHandle<Result<(), StoreError>>)>,
}

impl<S: Store + 'static> Backlog<S>
where
    S::Rows: SavedRows + 'static,
{
    pub(super) fn new(
        store: Arc<S>,
        runtime: Handle,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        wait_ms_max: Option<i64>,
    ) -> Self {
        Self {
            store,
            runtime,
            metrics,
            health,
            wait_ms_max,
            head: None,
            spool: None,
            spool_retries: Retries::new(SPOOL_RETRY),
            store_trouble: None,
            spool_trouble: None,
        }
    }

    pub(super) fn spool_to(&mut self, spool: Spool) {
        self.spool = Some(spool);
    }

    pub(super) const fn has_spool(&self) -> bool {
        self.spool.is_some()
    }

    /// Whether no rows wait, so that new rows can be written at once.
    pub(super) fn is_idle(&self) -> bool {
        self.head.is_none() && self.spool.as_ref().is_none_or(Spool::is_empty)
    }

    pub(super) const fn is_store_away(&self) -> bool {
        self.store_trouble.is_some()
    }

    /// Whether new rows have to wait for other rows or for the store.
    pub(super) fn is_behind(&self) -> bool {
        self.is_store_away() || self.spool.as_ref().is_some_and(|spool| !spool.is_empty())
    }

    pub(super) fn outage(&self) -> Outage {
        Outage {
            outbox: None,
            store: self.store_trouble,
            spool: self.spool_trouble,
            spool_bytes: self.spool.as_ref().map_or(0, Spool::bytes),
            spool_bytes_max: self.spool.as_ref().map_or(0, Spool::bytes_max),
        }
    }

    /// Starts to write `parts`. No other rows may be waiting.
    pub(super) fn write(&mut self, parts: Vec<Part<S::Rows>>, now: i64) {
        self.head = Some(Head {
            parts: parts.into_iter().map(Arc::new).collect(),
            is_spooled: false,
            began: now,
            retries: Retries::new(STORE_RETRY),
            attempt: None,
        });
    }

    /// Adds rows at the end of the spool. Returns `false` if that is not possible now.
    pub(super) fn spool<'a>(&mut self, parts: impl Iterator<Item = Lent<'a, S::Rows>>, taken_at: i64, now: i64) -> bool
    where
        S::Rows: 'a,
    {
        let Some(spool) = &mut self.spool else { return false };
        if !self.spool_retries.is_due(now) {
            return false;
        }
        match spool.push(parts, taken_at) {
            Ok(()) => {
                self.spool_retries.succeeded();
                self.spool_goes_on();
                true
            }
            Err(refused) => {
                self.spool_retries.failed(now);
                if Trouble::note(&mut self.spool_trouble, matches!(refused, Refused::Disk(_)), now) {
                    self.health.set(Condition::SpoolFull, true);
                    tracing::error!(reason = %refused, "the spool is full or its disk fails; partitions are paused");
                }
                false
            }
        }
    }

    /// Continues as far as possible without waiting. Returns the rows that the store has accepted.
    pub(super) fn advance(&mut self, now: i64) -> Result<Vec<Part<S::Rows>>, WorkerError> {
        let stored = self.look_at_write(now)?;
        if self.is_idle() {
            self.spool_goes_on();
        }
        if self.head.is_none()
            && let Some(spool) = &self.spool
            && let Some(parts) = spool.front(|| self.store.new_rows())?
        {
            self.write(parts, now);
            self.head.iter_mut().for_each(|head| head.is_spooled = true);
        }
        self.start_write(now);
        if let Some(spool) = &self.spool {
            let oldest = spool.taken_at().map_or(0, |taken_at| now - taken_at);
            self.metrics.spool(spool.bytes(), spool.rows(), oldest);
        }
        Ok(stored)
    }

    /// Records that rows can be spooled or stored again.
    fn spool_goes_on(&mut self) {
        if self.spool_trouble.take().is_some() {
            tracing::info!("rows can be spooled again; partitions continue");
            self.health.set(Condition::SpoolFull, false);
        }
    }

    /// Waits until the current write ends, at most for `wait`.
    pub(super) fn wait(&mut self, wait: Duration) {
        let runtime = self.runtime.clone();
        runtime.block_on(async {
            match self.head.as_mut().and_then(|head| head.attempt.as_mut()) {
                Some((_, task)) => {
                    let until_done = async {
                        while !task.is_finished() {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    };
                    let _ = tokio::time::timeout(wait, until_done).await;
                }
                None => tokio::time::sleep(wait).await,
            }
        });
    }

    /// Discards rows of partitions that another member owns now.
    pub(super) fn retain(&mut self, is_owned: impl Fn(Ownership) -> bool) {
        if let Some(spool) = &mut self.spool {
            spool.retain(&is_owned);
        }
        if let Some(head) = &mut self.head
            && head.parts.iter().any(|part| !is_owned(part.owner))
        {
            if let Some((_, task)) = head.attempt.take() {
                task.abort();
            }
            head.parts.retain(|part| is_owned(part.owner));
            // The other rows of the spool file are read from it again.
            if head.is_spooled || head.parts.is_empty() {
                self.head = None;
            }
        }
    }

    fn look_at_write(&mut self, now: i64) -> Result<Vec<Part<S::Rows>>, WorkerError> {
        let Some(head) = &mut self.head else { return Ok(Vec::new()) };
        let Some((since, task)) = &mut head.attempt else { return Ok(Vec::new()) };
        if !task.is_finished() {
            let waited = now - *since;
            if waited >= SLOW_MS {
                self.failing(&format!("no answer for {} s", waited / 1_000), false, now);
            }
            return Ok(Vec::new());
        }
        let written = self.runtime.block_on(task).map_err(|error| WorkerError::Broken(error.to_string()))?;
        let Err(error) = written else { return Ok(self.written(now)) };
        let is_permanent = !matches!(error, StoreError::Retriable(_));
        if self.wait_ms_max.is_some_and(|max| is_permanent || now - head.began >= max) {
            return Err(error.into());
        }
        head.attempt = None;
        head.retries.failed(now);
        self.metrics.store_retried();
        self.failing(&error.to_string(), is_permanent, now);
        Ok(Vec::new())
    }

    /// Removes the rows that were written, and returns them.
    fn written(&mut self, now: i64) -> Vec<Part<S::Rows>> {
        let Some(head) = self.head.take() else { return Vec::new() };
        if head.is_spooled
            && let Some(spool) = &mut self.spool
        {
            spool.pop();
        }
        self.metrics.store_took(now - head.began);
        self.metrics.store_state(StoreState::Ok);
        if let Some(trouble) = self.store_trouble.take() {
            tracing::info!(seconds = (now - trouble.since) / 1_000, "the store accepts rows again");
            self.health.set(Condition::Store, false);
        }
        let take = |part: Arc<Part<S::Rows>>| {
            // The task has ended, so that this is the only reference.
            Arc::try_unwrap(part).unwrap_or_else(|shared| Part {
                owner: shared.owner,
                checkpoint: shared.checkpoint.clone(),
                rows: self.store.new_rows(),
            })
        };
        head.parts.into_iter().map(take).collect()
    }

    fn failing(&mut self, reason: &str, is_permanent: bool, now: i64) {
        if Trouble::note(&mut self.store_trouble, is_permanent, now) {
            self.health.set(Condition::Store, true);
            self.metrics.store_state(if is_permanent { StoreState::Refusing } else { StoreState::Unavailable });
            tracing::error!(reason, "the store accepts no rows; detection continues and rows wait");
        }
    }

    fn start_write(&mut self, now: i64) {
        let Some(head) = &mut self.head else { return };
        if head.attempt.is_some() || !head.retries.is_due(now) {
            return;
        }
        let (store, parts) = (Arc::clone(&self.store), head.parts.clone());
        let attempt = async move {
            reach(Step::BeforeInsert);
            let written = tokio::time::timeout(ATTEMPT_WAIT, write(&*store, &parts)).await;
            reach(Step::AfterInsert);
            let late = || StoreError::Retriable(format!("no answer within {} s", ATTEMPT_WAIT.as_secs()));
            written.unwrap_or_else(|_| Err(late()))
        };
        head.attempt = Some((now, self.runtime.spawn(attempt)));
    }
}

/// Writes the rows of all parts in one call. Does not call the store if there are no rows.
async fn write<S: Store>(store: &S, parts: &[Arc<Part<S::Rows>>]) -> Result<(), StoreError>
where
    S::Rows: SavedRows,
{
    match parts.iter().filter(|part| !part.rows.is_empty()).collect::<Vec<_>>().as_slice() {
        [] => Ok(()),
        [one] => store.write(&one.rows).await,
        many => {
            let mut all = store.new_rows();
            for part in many {
                all.append(&part.rows);
            }
            store.write(&all).await
        }
    }
}
