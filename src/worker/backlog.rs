//! Sealed rows on their way to the store, in order: those that are being written, and behind them those in the spool.
//!
//! Each write is one attempt; the worker's thread starts the next one when it is due. What was sealed together is sent
//! together at each attempt, so that the store recognizes a repetition.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::WorkerError;
use super::notices::Outage;
use super::partitions::{Ownership, Part};
use super::spool::{Lent, Refused, Spool};
use crate::port::{Rows as _, SavedRows, Store, StoreError};
use crate::telemetry::{Condition, Health, Metrics, StoreState};

/// Waiting times between two attempts to write to the store double from the first to the second of these.
const RETRY_WAIT_MS: (i64, i64) = (100, 5_000);
/// A store that takes longer for one attempt is reported as unavailable.
const SLOW_MS: i64 = 10_000;
/// An attempt is given up after this, whatever the store's own timeouts.
const ATTEMPT_WAIT: Duration = Duration::from_secs(120);
/// How long the spool is left alone when it did not take rows.
const SPOOL_RETRY_MS: i64 = 1_000;
/// Trouble that lasts is logged once in so long.
const REPORT_EVERY_MS: i64 = 60_000;

/// See the module's text.
pub(super) struct Backlog<S: Store> {
    store: Arc<S>,
    runtime: Handle,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// How long a write is tried again; `None` is for ever, whatever the store answers.
    wait_ms_max: Option<i64>,
    head: Option<Head<S::Rows>>,
    /// `None`: only one epoch at a time may be on its way.
    spool: Option<Spool>,
    /// Not to be spooled to before this; wall clock.
    spool_at: i64,
    store_trouble: Option<Trouble>,
    spool_trouble: Option<Trouble>,
}

/// The rows that are being written.
struct Head<R> {
    parts: Vec<Arc<Part<R>>>,
    /// They are in the spool too.
    is_spooled: bool,
    /// When the first attempt was made; milliseconds since the epoch, wall clock.
    began: i64,
    failures: u32,
    step: Step,
}

enum Step {
    /// Since when; wall clock.
    Writing(i64, JoinHandle<Result<(), StoreError>>),
    /// Not before this; wall clock.
    Waiting(i64),
}

/// Something that does not work now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    /// Milliseconds since the epoch, wall clock.
    pub since: i64,
    /// No retry can be expected to help before an operator does something.
    pub is_permanent: bool,
    reported_at: i64,
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
            spool_at: 0,
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

    /// Whether rows can be written at once.
    pub(super) fn is_idle(&self) -> bool {
        self.head.is_none() && self.spool.as_ref().is_none_or(Spool::is_empty)
    }

    pub(super) const fn is_store_away(&self) -> bool {
        self.store_trouble.is_some()
    }

    /// Whether rows will have to wait: behind others, or for the store.
    pub(super) fn is_behind(&self) -> bool {
        self.is_store_away() || self.spool.as_ref().is_some_and(|spool| !spool.is_empty())
    }

    pub(super) fn outage(&self) -> Outage {
        Outage {
            store: self.store_trouble,
            spool: self.spool_trouble,
            spool_bytes: self.spool.as_ref().map_or(0, Spool::bytes),
            spool_bytes_max: self.spool.as_ref().map_or(0, Spool::bytes_max),
        }
    }

    /// Starts to write `parts`; nothing may be on its way.
    pub(super) fn write(&mut self, parts: Vec<Part<S::Rows>>, now: i64) {
        self.head = Some(Head {
            parts: parts.into_iter().map(Arc::new).collect(),
            is_spooled: false,
            began: now,
            failures: 0,
            step: Step::Waiting(now),
        });
    }

    /// Spools rows behind all others; `false` where that is not possible now.
    pub(super) fn spool<'a>(&mut self, parts: impl Iterator<Item = Lent<'a, S::Rows>>, taken_at: i64, now: i64) -> bool
    where
        S::Rows: 'a,
    {
        let Some(spool) = &mut self.spool else { return false };
        if now < self.spool_at {
            return false;
        }
        match spool.push(parts, taken_at) {
            Ok(()) => {
                self.spool_goes_on();
                true
            }
            Err(refused) => {
                self.spool_at = now + SPOOL_RETRY_MS;
                if note(&mut self.spool_trouble, matches!(refused, Refused::Disk(_)), now) {
                    self.health.set(Condition::SpoolFull, true);
                    tracing::error!(reason = %refused, "the spool takes no rows; partitions are paused");
                }
                false
            }
        }
    }

    /// Goes on as far as it can without waiting. Returns the rows that the store has taken.
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

    /// Rows have a way out again.
    fn spool_goes_on(&mut self) {
        if self.spool_trouble.take().is_some() {
            tracing::info!("rows can be spooled again; partitions go on");
            self.health.set(Condition::SpoolFull, false);
        }
    }

    /// Waits until the write under way ends, at most for `wait`.
    pub(super) fn wait(&mut self, wait: Duration) {
        let runtime = self.runtime.clone();
        runtime.block_on(async {
            match self.head.as_mut().map(|head| &mut head.step) {
                Some(Step::Writing(_, task)) => {
                    let until_done = async {
                        while !task.is_finished() {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    };
                    let _ = tokio::time::timeout(wait, until_done).await;
                }
                _ => tokio::time::sleep(wait).await,
            }
        });
    }

    /// Forgets the rows of partitions that are owned no more.
    pub(super) fn retain(&mut self, is_owned: impl Fn(Ownership) -> bool, now: i64) {
        if let Some(spool) = &mut self.spool {
            spool.retain(&is_owned);
        }
        if let Some(head) = &mut self.head
            && head.parts.iter().any(|part| !is_owned(part.owner))
        {
            if let Step::Writing(_, task) = &head.step {
                task.abort();
            }
            head.step = Step::Waiting(now);
            head.parts.retain(|part| is_owned(part.owner));
            // What is left of rows from the spool is read from there again.
            if head.is_spooled || head.parts.is_empty() {
                self.head = None;
            }
        }
    }

    fn look_at_write(&mut self, now: i64) -> Result<Vec<Part<S::Rows>>, WorkerError> {
        let Some(head) = &mut self.head else { return Ok(Vec::new()) };
        let Step::Writing(since, task) = &mut head.step else { return Ok(Vec::new()) };
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
        let (first, last) = RETRY_WAIT_MS;
        head.step = Step::Waiting(now + (first << head.failures.min(10)).min(last));
        head.failures += 1;
        self.metrics.store_retried();
        self.failing(&error.to_string(), is_permanent, now);
        Ok(Vec::new())
    }

    /// The store has the rows of the head.
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
            tracing::info!(seconds = (now - trouble.since) / 1_000, "the store takes rows again");
            self.health.set(Condition::Store, false);
        }
        let take = |part: Arc<Part<S::Rows>>| {
            // The task has ended, so that nobody else holds them.
            Arc::try_unwrap(part).unwrap_or_else(|shared| Part {
                owner: shared.owner,
                checkpoint: shared.checkpoint.clone(),
                rows: self.store.new_rows(),
            })
        };
        head.parts.into_iter().map(take).collect()
    }

    fn failing(&mut self, reason: &str, is_permanent: bool, now: i64) {
        if note(&mut self.store_trouble, is_permanent, now) {
            self.health.set(Condition::Store, true);
            self.metrics.store_state(if is_permanent { StoreState::Refusing } else { StoreState::Unavailable });
            tracing::error!(reason, "the store takes no rows; detection goes on and rows wait");
        }
    }

    fn start_write(&mut self, now: i64) {
        let Some(head) = &mut self.head else { return };
        if !matches!(head.step, Step::Waiting(at) if now >= at) {
            return;
        }
        let (store, parts) = (Arc::clone(&self.store), head.parts.clone());
        let attempt = async move {
            let written = tokio::time::timeout(ATTEMPT_WAIT, write(&*store, &parts)).await;
            let late = || StoreError::Retriable(format!("no answer within {} s", ATTEMPT_WAIT.as_secs()));
            written.unwrap_or_else(|_| Err(late()))
        };
        head.step = Step::Writing(now, self.runtime.spawn(attempt));
    }
}

/// Notes trouble, new or not; whether it is to be reported now.
fn note(trouble: &mut Option<Trouble>, is_permanent: bool, now: i64) -> bool {
    let since = trouble.map_or(now, |known| known.since);
    let is_news =
        trouble.is_none_or(|known| known.is_permanent != is_permanent || now - known.reported_at >= REPORT_EVERY_MS);
    if is_news {
        *trouble = Some(Trouble { since, is_permanent, reported_at: now });
    }
    is_news
}

/// Writes the rows of all parts in one go. Rows that there are none of need no store.
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
