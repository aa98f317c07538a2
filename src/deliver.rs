//! What touches the outside: incidents are stored in an outbox on disk, and from there reported and acted upon.
//!
//! Every effect is done at least once, with a key that stays the same: a crash between its success and our note of it
//! repeats it under the same key. Each channel, and the provider that revokes, has a lane of its own, so that one that
//! is down holds up no other. A lane that panics is restarted. The store gets a row for every attempt when it can;
//! nothing waits for it.

mod alert;
mod journal;
mod lane;
mod outbox;
mod record;
mod revoke;
mod state;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::journal::DAMAGED_FILE;
pub use self::outbox::{Outbox, PAUSE_FILE};
use self::record::{REVOKE, Record};
use self::state::Caps;
use crate::port::{ActionRow, Clock, Notifier, Revoker, Rows as _, Store, StoreError};
use crate::telemetry::{Condition, Health, Metrics};
use crate::verdict::Mode;

/// Some notices are sent once in so long.
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Rows written to the store at once.
const ROWS_MAX: usize = 1_000;
/// Rows that wait on a store that is down; beyond it, attempts that will be repeated get none.
const ROWS_WAITING_MAX: usize = 100_000;
/// The lane of the store's rows.
const ROWS: &str = "rows";
/// How often the outbox is looked at while its last deliveries are waited for.
const SETTLE_LOOK: Duration = Duration::from_millis(20);
/// How often the damaged copy of the journal is looked for, so that `/readyz` recovers when it is removed.
const DAMAGE_LOOK: Duration = Duration::from_secs(10);

/// Timing and limits of deliveries.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The ceiling over every incident's own mode.
    pub mode: Mode,
    /// Revocations of one tenant within an hour.
    pub revocations_per_hour_max: u32,
    /// Revocations of all tenants within an hour.
    pub revocations_per_hour_total_max: u32,
    /// Waiting times between two attempts double from the first to the second of these.
    pub retry_wait: (Duration, Duration),
    /// The same for a revocation that its provider refused.
    pub refused_wait: (Duration, Duration),
    /// After so many failed attempts in a row no revocation is requested during `breaker_wait`.
    pub breaker_failures: u32,
    pub breaker_wait: Duration,
    /// A call that takes longer than this has failed.
    pub call_wait: Duration,
    /// Rows are collected for this long before they are written.
    pub rows_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Shadow,
            revocations_per_hour_max: 20,
            revocations_per_hour_total_max: 100,
            retry_wait: (Duration::from_secs(2), Duration::from_secs(300)),
            refused_wait: (Duration::from_secs(900), Duration::from_secs(86_400)),
            breaker_failures: 5,
            breaker_wait: Duration::from_secs(120),
            call_wait: Duration::from_secs(60),
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

    /// Deliveries that wait until their cause is gone.
    #[must_use]
    pub fn held(&self) -> usize {
        self.outbox.held()
    }

    /// No more events come: reports what was put off, and waits for at most `patience` until nothing waits. Returns the
    /// deliveries that are left, without held ones.
    pub async fn settle(&self, patience: Duration) -> usize {
        self.outbox.flush();
        let done = async {
            while self.outbox.waiting() > 0 || !self.outbox.inner().state.rows.is_empty() {
                tokio::time::sleep(SETTLE_LOOK).await;
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
        this.metrics.outbox_damaged(outbox.damaged());
        let mut lanes = Vec::new();
        for notifier in &this.notifiers {
            let (lane, notifier) = (outbox::lane_of(&**notifier), Arc::clone(notifier));
            let run = move |this: Arc<Self>, stop| {
                let notifier = Arc::clone(&notifier);
                async move { this.send_alerts(&*notifier, stop).await }
            };
            lanes.push(runtime.spawn(lane::supervise(Arc::clone(&this), lane, stop.subscribe(), run)));
        }
        let revoke = |this: Arc<Self>, stop| async move { this.revoke_all(stop).await };
        lanes.push(runtime.spawn(lane::supervise(Arc::clone(&this), REVOKE.to_owned(), stop.subscribe(), revoke)));
        let rows = |this: Arc<Self>, stop| async move {
            this.end_orphans();
            this.write_rows(stop).await;
        };
        lanes.push(runtime.spawn(lane::supervise(this, ROWS.to_owned(), stop.subscribe(), rows)));
        Running { outbox, stop, lanes }
    }

    /// Brings the waiting rows to the store, for as long as it takes, and watches over the damaged copy of the journal.
    async fn write_rows(&self, mut stop: watch::Receiver<bool>) {
        let mut changed = self.outbox.changed.subscribe();
        let mut failures = 0;
        loop {
            changed.borrow_and_update();
            let is_damaged = self.outbox.keeps_damage();
            self.health.set(Condition::OutboxDamaged, is_damaged);
            let waiting: Vec<ActionRow> = self.outbox.inner().state.rows.iter().take(ROWS_MAX).cloned().collect();
            let stopped = *stop.borrow();
            if waiting.is_empty() {
                if stopped {
                    return;
                }
                self.lane_works(ROWS);
                tokio::select! {
                    _ = changed.changed() => self.pause(self.settings.rows_wait, &mut stop).await,
                    () = self.clock.sleep(DAMAGE_LOOK), if is_damaged => {}
                    _ = stop.changed() => {}
                }
                continue;
            }
            let mut rows = self.store.new_rows();
            for row in &waiting {
                rows.push_action(row);
            }
            let written = tokio::select! {
                written = self.store.write(&rows) => written,
                () = self.clock.sleep(self.settings.call_wait) => {
                    Err(StoreError::Retriable(format!("no answer within {} s", self.settings.call_wait.as_secs())))
                }
            };
            match written {
                Ok(()) => {
                    failures = 0;
                    self.record(ROWS, vec![Record::Written { rows: waiting.len() }], &stop).await;
                }
                Err(error) => {
                    failures += 1;
                    match error {
                        StoreError::Retriable(reason) => tracing::warn!(reason, "rows of actions wait for the store"),
                        StoreError::Permanent(reason) => tracing::error!(reason, "rows of actions wait for the store"),
                    }
                    if stopped {
                        return;
                    }
                    self.pause(self.wait(failures, None), &mut stop).await;
                }
            }
        }
    }

    const fn caps(&self) -> Caps {
        Caps { of_tenant: self.settings.revocations_per_hour_max, total: self.settings.revocations_per_hour_total_max }
    }
}
