//! What touches the outside: incidents are taken into an outbox on disk, and from there told and acted upon.
//!
//! Every effect is done at least once, with a key that stays the same: a crash between its success and our note of it
//! repeats it under the same key. Each channel, and the provider that revokes, has a lane of its own, so that one that
//! is down holds up no other. The store is told of every attempt when it can be; nothing waits for it.

mod journal;
mod outbox;
mod revoke;
mod state;
mod tell;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::outbox::{Next, Task};
pub use self::outbox::{Outbox, PAUSE_FILE};
use self::state::{Record, Work};
use crate::port::{ActionRow, Clock, Notice, Notifier, Revoker, Rows as _, Store, StoreError};
use crate::telemetry::{Condition, Health, Metrics};
use crate::verdict::Mode;

/// Some things are told once in so long.
const HOUR_MS: i64 = 3_600_000;
/// Rows written to the store at once.
const ROWS_MAX: usize = 1_000;
/// Rows that wait on a store that is down; beyond it, attempts that will be repeated get none.
const ROWS_WAITING_MAX: usize = 100_000;

/// How the deliverer goes about it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The ceiling over every incident's own mode.
    pub mode: Mode,
    pub revocations_per_hour_max: u32,
    /// Waiting times between two attempts double from the first to the second of these.
    pub retry_wait: (Duration, Duration),
    /// After so many failed attempts in a row no revocation is asked for during `breaker_wait`.
    pub breaker_failures: u32,
    pub breaker_wait: Duration,
    /// Rows are collected for this long before they are written.
    pub rows_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Shadow,
            revocations_per_hour_max: 20,
            retry_wait: (Duration::from_secs(2), Duration::from_secs(300)),
            breaker_failures: 5,
            breaker_wait: Duration::from_secs(120),
            rows_wait: Duration::from_secs(1),
        }
    }
}

/// Works through an outbox until it is stopped.
pub struct Deliverer<S> {
    pub outbox: Arc<Outbox>,
    pub notifiers: Vec<Arc<dyn Notifier>>,
    pub revoker: Option<Arc<dyn Revoker>>,
    pub store: Arc<S>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub settings: Settings,
}

/// A deliverer at work.
pub struct Running {
    outbox: Arc<Outbox>,
    stop: watch::Sender<bool>,
    lanes: Vec<JoinHandle<()>>,
}

impl Running {
    /// Lets what is under way end, for at most `wait`; the rest stays on disk.
    pub async fn stop(mut self, wait: Duration) {
        self.stop.send_replace(true);
        let all = async {
            for lane in &mut self.lanes {
                let _ = lane.await;
            }
        };
        if tokio::time::timeout(wait, all).await.is_err() {
            self.lanes.iter().for_each(JoinHandle::abort);
        }
    }

    /// Waits until nothing waits any more, at most for `patience`; returns the changes that are left.
    pub async fn settle(&self, patience: Duration) -> usize {
        let done = async {
            while self.outbox.waiting() > 0 || !self.outbox.inner().state.rows.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(patience, done).await;
        self.outbox.waiting()
    }
}

impl<S: Store + 'static> Deliverer<S>
where
    S::Rows: 'static,
{
    /// Starts a lane for each channel, one for revocations and one for the store's rows.
    pub fn start(self, runtime: &Handle) -> Running {
        let outbox = Arc::clone(&self.outbox);
        let stop = watch::Sender::new(false);
        let this = Arc::new(self);
        let mut lanes = Vec::new();
        for notifier in &this.notifiers {
            let (this, notifier, stop) = (Arc::clone(&this), Arc::clone(notifier), stop.subscribe());
            lanes.push(runtime.spawn(async move { this.tell_all(&*notifier, stop).await }));
        }
        let (revoking, revoke_stop) = (Arc::clone(&this), stop.subscribe());
        lanes.push(runtime.spawn(async move { revoking.revoke_all(revoke_stop).await }));
        let store_stop = stop.subscribe();
        lanes.push(runtime.spawn(async move {
            this.end_orphans();
            this.write_all(store_stop).await;
        }));
        Running { outbox, stop, lanes }
    }

    fn notice(&self, key: String, title: &str, text: String, now: i64, lanes: Vec<String>) -> Option<Record> {
        tracing::error!("{title}: {text}");
        if lanes.is_empty() || self.outbox.inner().state.has(&key) {
            return None;
        }
        let work = Work::Notice(Notice { title: title.to_owned(), text, at: now });
        Some(Record::Taken { key, at: now, work, lanes })
    }

    fn row(
        &self,
        task: &Task,
        action_id: &str,
        began: i64,
        outcome: &str,
        http_status: u16,
        reason: String,
    ) -> ActionRow {
        let (incident_id, mode) = match &task.work {
            Work::Incident(incident) => (incident.id.to_string(), incident.mode.min(self.settings.mode)),
            Work::Notice(_) => (String::new(), self.settings.mode),
        };
        ActionRow {
            action_id: action_id.to_owned(),
            incident_id,
            requested_at: began,
            kind: String::new(),
            target: String::new(),
            mode,
            attempt: task.attempt,
            outcome: outcome.to_owned(),
            http_status,
            latency_ms: u32::try_from(self.clock.now_millis() - began).unwrap_or(0),
            requested_by: "tokenwarden".to_owned(),
            reason,
        }
    }

    /// Brings the waiting rows to the store, for as long as it takes.
    async fn write_all(&self, mut stop: watch::Receiver<bool>) {
        let mut changed = self.outbox.changed.subscribe();
        let mut failures = 0;
        loop {
            changed.borrow_and_update();
            let waiting: Vec<ActionRow> = self.outbox.inner().state.rows.iter().take(ROWS_MAX).cloned().collect();
            let stopped = *stop.borrow();
            if waiting.is_empty() {
                if stopped {
                    return;
                }
                tokio::select! {
                    _ = changed.changed() => self.pause(self.settings.rows_wait, &mut stop).await,
                    _ = stop.changed() => {}
                }
                continue;
            }
            let mut rows = self.store.new_rows();
            for row in &waiting {
                rows.push_action(row);
            }
            match self.store.write(&rows).await {
                Ok(()) => {
                    failures = 0;
                    self.record(vec![Record::Written { rows: waiting.len() }], &stop).await;
                }
                Err(error) => {
                    failures += 1;
                    match error {
                        StoreError::Retriable(reason) => tracing::warn!(reason, "what was done waits for the store"),
                        StoreError::Permanent(reason) => tracing::error!(reason, "what was done waits for the store"),
                    }
                    if stopped {
                        return;
                    }
                    self.pause(self.wait(failures, None), &mut stop).await;
                }
            }
        }
    }

    /// The lane's next task when it is due; `None` once it is to stop.
    async fn next_task(
        &self,
        lane: &str,
        changed: &mut watch::Receiver<()>,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<Task> {
        loop {
            if *stop.borrow_and_update() {
                return None;
            }
            changed.borrow_and_update();
            let wait = match self.outbox.next(lane) {
                Next::Now(task) => return Some(*task),
                Next::At(at) => Duration::from_millis(u64::try_from(at - self.clock.now_millis()).unwrap_or(0)),
                Next::Nothing => Duration::from_secs(3_600),
            };
            tokio::select! {
                _ = changed.changed() => {}
                _ = stop.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Notes what was done. While the disk does not take it, the lane waits: to go on would be to forget it.
    async fn record(&self, mut records: Vec<Record>, stop: &watch::Receiver<bool>) {
        if self.outbox.inner().state.rows.len() > ROWS_WAITING_MAX {
            for record in &mut records {
                if let Record::Tried { row, .. } = record {
                    *row = None;
                }
            }
        }
        loop {
            match self.outbox.append(records.clone()) {
                Ok(()) => {
                    self.health.set(Condition::Outbox, false);
                    self.metrics.waiting(self.outbox.waiting());
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "the outbox cannot be written; trying again");
                    self.health.set(Condition::Outbox, true);
                }
            }
            if *stop.borrow() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn due_at(&self, attempt: u32, retry_after: Option<Duration>) -> i64 {
        self.clock.now_millis() + self.wait(attempt, retry_after).as_millis() as i64
    }

    /// How long to wait after so many failures.
    fn wait(&self, failures: u32, retry_after: Option<Duration>) -> Duration {
        let (first, last) = self.settings.retry_wait;
        let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(last);
        doubled.max(retry_after.unwrap_or_default())
    }

    async fn pause(&self, wait: Duration, stop: &mut watch::Receiver<bool>) {
        if !*stop.borrow() {
            let _ = tokio::time::timeout(wait, stop.changed()).await;
        }
    }
}

/// A lane's failures in a row, told once as long as they have one reason.
#[derive(Default)]
struct Trouble {
    count: u32,
    reason: String,
}

impl Trouble {
    fn again(&mut self, lane: &str, reason: &str) {
        self.count += 1;
        if self.reason != reason {
            reason.clone_into(&mut self.reason);
            tracing::error!(lane, reason, "it will be tried again");
        }
    }

    fn over(&mut self, lane: &str) {
        if self.count > 0 {
            tracing::info!(lane, failures = self.count, "it works again");
        }
        *self = Self::default();
    }
}
