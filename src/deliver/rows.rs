//! The lane that writes rows of actions to the store.

use std::time::Duration;

use tokio::sync::watch;

use super::deliverer::Deliverer;
use super::record::Record;
use crate::kill_point::{Step, reach};
use crate::port::{ActionRow, Rows as _, Store, StoreError};
use crate::telemetry::Condition;

/// The lane of rows.
pub(super) const ROWS: &str = "rows";
/// Maximum number of rows per write.
const ROWS_MAX: usize = 1_000;
/// Interval at which the damaged copy of the journal is checked, so that `/readyz` recovers when it is removed.
const DAMAGE_LOOK: Duration = Duration::from_secs(10);

impl<S: Store + 'static> Deliverer<S>
where
    S::Rows: 'static,
{
    /// Writes waiting rows to the store, retrying without limit, and checks for a damaged copy of the journal.
    pub(super) async fn write_rows(&self, mut stop: watch::Receiver<bool>) {
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
            match self.answer_of_store(self.store.write(&rows)).await {
                Ok(()) => {
                    reach(Step::AfterActionRows);
                    failures = 0;
                    self.record(vec![Record::Written { rows: waiting.len() }]);
                }
                Err(error) => {
                    failures += 1;
                    match error {
                        StoreError::Retriable(reason) => {
                            tracing::warn!(reason, "the store accepts no rows of actions; they wait in the outbox");
                        }
                        StoreError::Permanent(reason) => {
                            tracing::error!(reason, "the store accepts no rows of actions; they wait in the outbox");
                        }
                    }
                    if stopped {
                        return;
                    }
                    self.pause(self.wait(failures, None), &mut stop).await;
                }
            }
        }
    }
}
