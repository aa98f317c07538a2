//! Closes incidents whose grants were revoked and have not been used since.
//!
//! ClickHouse has the revocations and the uses, so nothing is closed without it. Each member closes the incidents whose
//! alerts are in its outbox.

mod candidate;
mod read;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use self::candidate::Candidate;
pub(crate) use self::read::handled;
use crate::deliver::Outbox;
use crate::millis::DAY_MS;
use crate::port::{About, Clock, Handled, HandledStep, Notice, StoreError};
use crate::store::{ClickHouse, Reader, StoreSettings, WorkChange, WorkStatus};

/// Time after the start, and between two looks. An hour, because an incident stays open for days.
const LOOK_WAIT: Duration = Duration::from_secs(3_600);
/// Name in `incident_work`.
const BY: &str = "tokenwarden";

/// What closing needs.
pub struct Closing {
    pub settings: StoreSettings,
    pub store: Arc<ClickHouse>,
    pub outbox: Arc<Outbox>,
    pub clock: Arc<dyn Clock>,
    /// Time after a revocation after which an incident is closed, if the expiry of its tokens is later or unknown.
    pub after_days: u32,
}

impl Closing {
    /// Closes incidents until the process ends.
    pub(crate) async fn run(self) {
        loop {
            self.clock.sleep(LOOK_WAIT).await;
            match self.close().await {
                Ok(0) => {}
                Ok(closed) => tracing::info!(closed, "incidents are closed"),
                Err(error) => tracing::warn!(%error, "incidents are not closed; retrying in an hour"),
            }
        }
    }

    /// Closes what can be closed now. Returns the number of closed incidents.
    pub async fn close(&self) -> Result<usize, StoreError> {
        let now = self.clock.now_millis();
        let reader = Reader::open(&self.settings).await?;
        let closable = self.closable(&reader, now).await;
        reader.close().await;
        let closable = closable?;
        for (candidate, handled) in &closable {
            self.close_one(candidate, handled, now).await?;
        }
        Ok(closable.len())
    }

    async fn closable(&self, reader: &Reader, now: i64) -> Result<Vec<(Candidate, Handled)>, StoreError> {
        let after_ms = i64::from(self.after_days) * DAY_MS;
        let mut closable = Vec::new();
        for candidate in read::candidates(reader).await? {
            if candidate.may_close(now, after_ms) && self.outbox.has_incident(candidate.incident) {
                let handled = handled(reader, candidate.incident, HandledStep::Resolved).await?;
                closable.push((candidate, handled));
            }
        }
        Ok(closable)
    }

    /// The message is stored before the change. If the change fails, it is repeated, and the message is not.
    async fn close_one(&self, candidate: &Candidate, handled: &Handled, now: i64) -> Result<(), StoreError> {
        let (incident, summary) = (candidate.incident, candidate.summary(now));
        let title = format!("{incident} is closed: its grants were revoked and have not been used since");
        let notice =
            Notice { title, text: summary.clone(), at: now, about: Some(Box::new(About::Handled(handled.clone()))) };
        let key = format!("closed-{incident}-{}", candidate.version);
        self.outbox
            .notify_of(&key, notice, incident)
            .map_err(|error| StoreError::Retriable(format!("the outbox cannot be written: {error}")))?;
        let change = WorkChange {
            incident_id: incident.to_string(),
            version: candidate.version + 1,
            change_id: RandomState::new().hash_one((std::process::id(), now)),
            by: BY.to_owned(),
            status: WorkStatus::Resolved,
            assignee: candidate.assignee.clone(),
            note: summary,
        };
        self.store.change_work(&change).await
    }
}
