//! Parts that all lanes share: supervision, waiting, guarded calls, and records.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::watch;

use super::deliverer::Deliverer;
use super::record::Record;
use super::task::Next;
use crate::millis::MINUTE_MS;
use crate::number::random_id;
use crate::port::{ActionOutcome, ActionRow, DeliveryError, Notice, Store, StoreError};
use crate::retry::RetryPolicy;
use crate::telemetry::{self, Condition};

/// Restarts of a lane that panicked.
const RESTART: RetryPolicy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(60));
/// After this time without a panic, the back-off of a lane is reset.
const RECOVERED_MS: i64 = MINUTE_MS;

/// Maximum number of rows that wait for the store. Beyond it, attempts that will be retried get no row.
const ROWS_WAITING_MAX: usize = 100_000;

/// Runs a lane until it is stopped. A lane that panics is counted, reported and restarted after a back-off. A lane that
/// ends without a stop is reported.
pub(super) async fn supervise<S, R, F>(
    deliverer: Arc<Deliverer<S>>,
    lane: String,
    mut stop: watch::Receiver<bool>,
    run: R,
) where
    S: Store + 'static,
    S::Rows: 'static,
    R: Fn(Arc<Deliverer<S>>, watch::Receiver<bool>) -> F,
    F: Future<Output = ()>,
{
    let mut failures = 0;
    loop {
        let began = deliverer.clock.now_millis();
        let ended = AssertUnwindSafe(run(Arc::clone(&deliverer), stop.clone())).catch_unwind().await;
        if ended.is_ok() {
            deliverer.health.set_of(Condition::LaneEnded, &lane, !*stop.borrow());
            return;
        }
        failures = if deliverer.clock.now_millis() - began >= RECOVERED_MS { 1 } else { failures + 1 };
        deliverer.lane_panicked(&lane);
        deliverer.pause(RESTART.wait(failures), &mut stop).await;
        if *stop.borrow() {
            return;
        }
    }
}

/// Failure of a call to a channel or provider.
pub(super) struct Failed {
    pub(crate) error: DeliveryError,
    pub(crate) panicked: bool,
}

impl<S: Store + 'static> Deliverer<S>
where
    S::Rows: 'static,
{
    /// Counts and reports a panic. Logs its position, but not its message, which may quote text with a token.
    fn lane_panicked(&self, lane: &str) {
        let place = telemetry::panicked_at().unwrap_or_default();
        tracing::error!(lane, place, "a delivery lane panicked");
        self.metrics.lane_panicked(lane);
        self.health.set_of(Condition::Lane, lane, true);
    }

    /// Records that the lane made an attempt without a panic, or has no task.
    pub(super) fn lane_works(&self, lane: &str) {
        self.health.set_of(Condition::Lane, lane, false);
    }

    /// Makes a call of a lane. A panic or a timeout is a failed attempt.
    pub(super) async fn guarded<T>(
        &self,
        lane: &str,
        call: impl Future<Output = Result<T, DeliveryError>>,
    ) -> Result<T, Failed> {
        let retriable = |reason: String| DeliveryError::Retriable { reason, status: 0, retry_after: None };
        let wait = self.settings.call_wait;
        let answer = tokio::select! {
            answer = AssertUnwindSafe(call).catch_unwind() => answer,
            () = self.clock.sleep(wait) => Ok(Err(retriable(format!("no answer within {} s", wait.as_secs())))),
        };
        if let Ok(answer) = answer {
            self.lane_works(lane);
            return answer.map_err(|error| Failed { error, panicked: false });
        }
        self.lane_panicked(lane);
        Err(Failed { error: retriable("the program panicked".to_owned()), panicked: true })
    }

    /// Makes a call to the store. A timeout is a failed attempt.
    pub(super) async fn answer_of_store<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let wait = self.settings.call_wait;
        tokio::select! {
            answer = call => answer,
            () = self.clock.sleep(wait) => {
                Err(StoreError::Retriable(format!("no answer within {} s", wait.as_secs())))
            }
        }
    }

    /// Waits until the lane's next task is due. `None` if the lane is to stop.
    pub(super) async fn next_task<T>(
        &self,
        lane: &str,
        next: impl Fn() -> Next<T>,
        changed: &mut watch::Receiver<()>,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<T> {
        loop {
            if *stop.borrow_and_update() {
                return None;
            }
            changed.borrow_and_update();
            let wait = match next() {
                Next::Now(task) => return Some(*task),
                Next::At(at) => Some(Duration::from_millis(u64::try_from(at - self.clock.now_millis()).unwrap_or(0))),
                Next::Nothing => None,
            };
            self.lane_works(lane);
            tokio::select! {
                _ = changed.changed() => {}
                _ = stop.changed() => {}
                () = self.clock.sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }

    /// Writes records to the outbox.
    pub(super) fn record(&self, mut records: Vec<Record>) {
        if self.outbox.inner().state.rows.len() > ROWS_WAITING_MAX {
            for record in &mut records {
                if let Record::Tried { row, .. } = record {
                    *row = None;
                }
            }
        }
        self.outbox.append(records);
        self.metrics.waiting(self.outbox.waiting(), self.outbox.held());
    }

    /// Name of this outbox among those of all members.
    pub(super) fn member(&self) -> String {
        let known = self.outbox.inner().state.member.clone();
        known.unwrap_or_else(|| {
            let member = format!("{:016x}", random_id());
            self.record(vec![Record::Member { member: member.clone() }]);
            member
        })
    }

    pub(super) async fn pause(&self, wait: Duration, stop: &mut watch::Receiver<bool>) {
        if *stop.borrow() {
            return;
        }
        tokio::select! {
            _ = stop.changed() => {}
            () = self.clock.sleep(wait) => {}
        }
    }

    pub(super) fn due_at(&self, attempt: u32, retry_after: Option<Duration>) -> i64 {
        self.clock.now_millis() + self.wait(attempt, retry_after).as_millis() as i64
    }

    /// Time to wait after this many failures.
    pub(super) fn wait(&self, failures: u32, retry_after: Option<Duration>) -> Duration {
        self.settings.retry.wait(failures).max(retry_after.unwrap_or_default())
    }

    /// A notice for `channels`, once per key. Its texts are logged, so they must not contain values of an event.
    pub(super) fn notice(&self, key: String, title: &str, text: String, channels: Vec<String>) -> Option<Record> {
        if self.outbox.inner().state.has(&key) {
            return None;
        }
        tracing::error!("{title}: {text}");
        let at = self.clock.now_millis();
        let work = super::record::Work::Notice(Notice { title: title.to_owned(), text, at, about: None });
        if channels.is_empty() {
            return Some(Record::Known { key });
        }
        Some(Record::Taken { key, at, work, lanes: channels })
    }

    /// The row of an attempt that began at `began`.
    pub(super) fn row(&self, attempt: Attempt<'_>, began: i64, reason: String) -> ActionRow {
        ActionRow {
            action_id: attempt.action_id,
            incident_id: attempt.incident.map_or_else(String::new, |incident| incident.id.to_string()),
            requested_at: began,
            kind: attempt.kind,
            target: attempt.target,
            mode: attempt.incident.map_or(self.settings.mode, |incident| incident.mode.min(self.settings.mode)),
            attempt: attempt.number,
            outcome: attempt.outcome,
            http_status: attempt.status,
            latency_ms: u32::try_from(self.clock.now_millis() - began).unwrap_or(0),
            requested_by: "tokenwarden".to_owned(),
            reason,
            tenant_id: attempt.incident.map_or_else(String::new, |incident| incident.tenant_id.clone()),
            user_id: attempt.incident.map_or_else(String::new, |incident| incident.user_id.clone()),
            radius: None,
            confirmation: None,
        }
    }
}

/// Fields of the row of an attempt.
pub(super) struct Attempt<'a> {
    pub(crate) action_id: String,
    pub(crate) incident: Option<&'a crate::verdict::Incident>,
    pub(crate) kind: String,
    pub(crate) target: String,
    pub(crate) number: u32,
    pub(crate) outcome: ActionOutcome,
    pub(crate) status: u16,
}

/// Consecutive failures of a lane. A reason is logged once until it changes.
#[derive(Default)]
pub(super) struct Trouble {
    pub(crate) count: u32,
    reason: String,
}

impl Trouble {
    pub(super) fn again(&mut self, lane: &str, reason: &str) {
        self.count += 1;
        if self.reason != reason {
            reason.clone_into(&mut self.reason);
            tracing::error!(lane, reason, "a delivery failed and is retried");
        }
    }

    pub(super) fn over(&mut self, lane: &str) {
        if self.count > 0 {
            tracing::info!(lane, failures = self.count, "the delivery lane works again");
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::deliverer::Settings;
    use crate::deliver::outbox::Outbox;
    use crate::port::Clock;
    use crate::store::NullStore;
    use crate::telemetry::SystemClock;

    #[tokio::test]
    async fn lane_that_ends_without_a_stop_is_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let outbox = Outbox::open(folder.path(), &[], Arc::clone(&clock)).expect("an outbox");
        let deliverer = Arc::new(Deliverer {
            outbox: Arc::new(outbox),
            notifiers: Vec::new(),
            revoker: None,
            store: Arc::new(NullStore),
            clock,
            metrics: Arc::default(),
            health: Arc::default(),
            settings: Settings::default(),
        });
        let stop = watch::Sender::new(false);
        for stopped in [false, true] {
            stop.send_replace(stopped);
            supervise(Arc::clone(&deliverer), "test".to_owned(), stop.subscribe(), |_, _| async {}).await;
            assert_eq!(deliverer.health.holds(Condition::LaneEnded, 0), !stopped);
        }
    }
}
