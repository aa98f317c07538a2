//! Closes incidents whose grants were revoked and have not been used since, and reopens them at a later use.
//!
//! ClickHouse has the revocations and the uses, so nothing is closed without it, or while it lacks rows of a partition.
//! Each member closes the incidents whose alerts are in its outbox. In doubt, an incident stays open.

mod candidate;
mod read;

use std::sync::Arc;
use std::time::Duration;

use self::candidate::Candidate;
use self::read::{Activity, BY};
pub(crate) use self::read::{handled, state_of};
use crate::deliver::Outbox;
use crate::millis::DAY_MS;
use crate::number::random_id;
use crate::port::{About, Clock, HandledStep, Notice, StoreError};
use crate::store::{ClickHouse, Reader, StoreSettings, WorkChange, WorkStatus};
use crate::telemetry::{Condition, Health};

/// Time after the start, and between two checks. An hour, because an incident stays open for days.
const CHECK_WAIT: Duration = Duration::from_secs(3_600);

/// What closing needs.
pub struct Closing {
    pub settings: StoreSettings,
    pub store: Arc<ClickHouse>,
    pub outbox: Arc<Outbox>,
    pub clock: Arc<dyn Clock>,
    pub health: Arc<Health>,
    /// Wait in days after the last revocation, and time after the closing in which a use reopens the incident.
    pub after_days: u32,
}

impl Closing {
    /// Closes and reopens incidents until the process ends.
    pub(crate) async fn run(self) {
        loop {
            self.clock.sleep(CHECK_WAIT).await;
            match self.close().await {
                Ok(0) => {}
                Ok(closed) => tracing::info!(closed, "incidents are closed"),
                Err(error) => tracing::warn!(%error, "closing of incidents failed; retrying in an hour"),
            }
            match self.reopen().await {
                Ok(0) => {}
                Ok(reopened) => {
                    tracing::warn!(reopened, "closed incidents are open again, because their grants were used");
                }
                Err(error) => tracing::warn!(%error, "closed incidents are not checked; retrying in an hour"),
            }
        }
    }

    /// Closes what can be closed now. Returns the number of closed incidents.
    pub async fn close(&self) -> Result<usize, StoreError> {
        let now = self.clock.now_millis();
        // Rows that wait in the spool may contain uses.
        if self.health.holds(Condition::Store, now) {
            return Ok(0);
        }
        let reader = Reader::open(&self.settings).await?;
        let closed = self.close_all(&reader, now).await;
        reader.close().await;
        closed
    }

    async fn close_all(&self, reader: &Reader, now: i64) -> Result<usize, StoreError> {
        let wait_ms = self.wait_ms();
        let mut candidates = read::unresolved(reader).await?;
        candidates
            .retain(|candidate| candidate.may_close(now, wait_ms) && self.outbox.has_incident(candidate.incident));
        let Some(first) = candidates.iter().filter_map(Candidate::revoked_at).min() else { return Ok(0) };
        let until = read::stored_until(reader, first - wait_ms).await?;
        let mut closed = 0;
        for candidate in candidates {
            let is_stored = candidate.revoked_at().is_some_and(|revoked_at| until >= revoked_at + wait_ms);
            if is_stored && read::activity(reader, &candidate).await? == Activity::Unused {
                closed += usize::from(self.close_one(reader, &candidate, now).await?);
            }
        }
        Ok(closed)
    }

    /// Returns whether the change counts: an analyst or another member may have made one at the same time.
    async fn close_one(&self, reader: &Reader, candidate: &Candidate, now: i64) -> Result<bool, StoreError> {
        let incident = candidate.incident;
        let handled = handled(reader, incident, HandledStep::Resolved).await?;
        let notice = Notice {
            title: format!("{incident} is closed: its grants were revoked and have not been used since"),
            text: candidate.summary(now),
            at: now,
            about: Some(Box::new(About::Handled(handled))),
        };
        self.change(reader, candidate, WorkStatus::Resolved, notice).await
    }

    /// Reopens incidents that the service closed, if the store now has an accepted event after a revocation. Returns their
    /// number.
    pub async fn reopen(&self) -> Result<usize, StoreError> {
        let reader = Reader::open(&self.settings).await?;
        let reopened = self.reopen_all(&reader).await;
        reader.close().await;
        reopened
    }

    async fn reopen_all(&self, reader: &Reader) -> Result<usize, StoreError> {
        let mut reopened = 0;
        for candidate in read::closed(reader, self.after_days).await? {
            if read::activity(reader, &candidate).await? == Activity::Used {
                let notice = Notice {
                    title: format!("{} is open again: a revoked grant is used", candidate.incident),
                    text: "The incident was closed because its grants were revoked and not used. The store now has an accepted \
                           event of one of them after the revocation. Check whether the revocation took effect."
                        .to_owned(),
                    at: self.clock.now_millis(),
                    about: None,
                };
                reopened += usize::from(self.change(reader, &candidate, WorkStatus::Open, notice).await?);
            }
        }
        Ok(reopened)
    }

    /// Changes the status and sends the notice. The change is stored first, and the notice is sent only if the change
    /// counts, so that a receiver never resolves what an analyst has just reopened.
    async fn change(
        &self,
        reader: &Reader,
        candidate: &Candidate,
        status: WorkStatus,
        notice: Notice,
    ) -> Result<bool, StoreError> {
        let incident = candidate.incident;
        let change = WorkChange {
            incident_id: incident.to_string(),
            version: candidate.version + 1,
            change_id: random_id(),
            by: BY.to_owned(),
            status,
            assignee: candidate.assignee.clone(),
            note: notice.text.clone(),
        };
        self.store.change_work(&change).await?;
        if !read::is_in_force(reader, &change).await? {
            return Ok(false);
        }
        let key = format!("work-{incident}-{:016x}", change.change_id);
        self.outbox.notify_of(&key, notice, incident).map_err(|error| {
            let status = status.as_str();
            StoreError::Retriable(format!("{incident} is {status} in the store, and its notice is not sent: {error}"))
        })?;
        Ok(true)
    }

    fn wait_ms(&self) -> i64 {
        i64::from(self.after_days) * DAY_MS
    }
}
