//! Delivery of incidents: the outbox stores them on disk, and the lanes send alerts and request revocations.
//!
//! Every delivery is made at least once, with a constant key. After a crash between a delivery and its record, the
//! delivery is repeated with the same key. Each channel has its own lane, and so has the revocation provider, so a
//! failure
//! of one does not delay the others. A lane that panics is restarted. The store gets a row for every attempt. No
//! delivery
//! waits for the store.

mod alert;
mod breaker_lane;
mod breakers;
mod changes;
mod deliverer;
mod digest;
mod fallback;
mod journal;
mod lane;
mod limits;
mod outbox;
mod record;
mod revoke;
mod routes;
mod rows;
mod silence_lane;
mod silences;
mod state;
mod task;
mod user_lane;
mod user_notices;
mod withheld;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::breaker_lane::BREAKERS;
pub use self::breakers::{BreakerSettings, Breakers};
pub use self::deliverer::{Deliverer, Settings};
pub use self::digest::DigestSettings;
pub use self::journal::DAMAGED_FILE;
pub use self::limits::Limits;
pub(crate) use self::limits::{Caps, Scope};
pub use self::outbox::{Outbox, PAUSE_FILE};
use self::record::REVOKE;
pub use self::routes::{Route, RouteOf, Routes};
use self::rows::ROWS;
use self::silence_lane::SILENCES;
pub use self::silences::Silences;
use self::user_notices::user_lane;
pub use self::user_notices::{UserLimits, UserNotices};
use crate::port::Store;

/// Interval at which [`Running::settle`] checks the outbox.
const SETTLE_LOOK: Duration = Duration::from_millis(20);

/// A running deliverer.
pub struct Running {
    outbox: Arc<Outbox>,
    stop: watch::Sender<bool>,
    lanes: Vec<JoinHandle<()>>,
}

impl Running {
    /// Stops the lanes. Waits for running attempts for at most `wait`. Other deliveries stay on disk.
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

    /// Number of held deliveries.
    pub(crate) fn held(&self) -> usize {
        self.outbox.held()
    }

    /// For the end of the input. Makes postponed messages due, and waits at most `patience` until no delivery waits.
    /// Returns
    /// the number of deliveries that are left, without held ones.
    pub async fn settle(&self, patience: Duration) -> usize {
        self.outbox.flush();
        let done = async {
            while self.outbox.waiting() > 0 || self.outbox.collects() || !self.outbox.inner().state.rows.is_empty() {
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
    /// Starts a lane for each channel, one for revocations, one for silences, one for breakers and one for rows of the store,
    /// and a lane for each channel for users.
    pub fn start(self, runtime: &Handle) -> Running {
        let outbox = Arc::clone(&self.outbox);
        let stop = watch::Sender::new(false);
        let this = Arc::new(self);
        this.metrics.outbox_damaged(outbox.damaged());
        let mut lanes = Vec::new();
        for notifier in &this.notifiers {
            let (lane, notifier) = (notifier.lane(), Arc::clone(notifier));
            let run = move |this: Arc<Self>, stop| {
                let notifier = Arc::clone(&notifier);
                async move { this.send_alerts(&*notifier, stop).await }
            };
            lanes.push(runtime.spawn(lane::supervise(Arc::clone(&this), lane, stop.subscribe(), run)));
        }
        let revoke = |this: Arc<Self>, stop| async move { this.revoke_all(stop).await };
        lanes.push(runtime.spawn(lane::supervise(Arc::clone(&this), REVOKE.to_owned(), stop.subscribe(), revoke)));
        if let Some(users) = outbox.users.clone() {
            for notifier in &users.notifiers {
                let (lane, notifier, users) = (user_lane(&**notifier), Arc::clone(notifier), Arc::clone(&users));
                let run = move |this: Arc<Self>, stop| {
                    let (users, notifier) = (Arc::clone(&users), Arc::clone(&notifier));
                    async move { this.send_to_users(users, notifier, stop).await }
                };
                lanes.push(runtime.spawn(lane::supervise(Arc::clone(&this), lane, stop.subscribe(), run)));
            }
        }
        if let Some(silences) = outbox.silences.clone() {
            let end = move |this: Arc<Self>, stop| {
                let silences = Arc::clone(&silences);
                async move { this.end_silences(silences, stop).await }
            };
            lanes.push(runtime.spawn(lane::supervise(Arc::clone(&this), SILENCES.to_owned(), stop.subscribe(), end)));
        }
        if let Some(breakers) = outbox.breakers.clone() {
            let watch = move |this: Arc<Self>, stop| {
                let breakers = Arc::clone(&breakers);
                async move { this.watch_breakers(breakers, stop).await }
            };
            lanes.push(runtime.spawn(lane::supervise(Arc::clone(&this), BREAKERS.to_owned(), stop.subscribe(), watch)));
        }
        let rows = |this: Arc<Self>, stop| async move {
            this.end_orphans();
            this.write_rows(stop).await;
        };
        lanes.push(runtime.spawn(lane::supervise(this, ROWS.to_owned(), stop.subscribe(), rows)));
        Running { outbox, stop, lanes }
    }
}
