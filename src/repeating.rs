//! Sends open incidents again to receivers whose alerts expire, such as Alertmanager, until the incidents are resolved.
//!
//! ClickHouse has the state of the work on an incident, so nothing is repeated without it. A failed repetition is not
//! retried before the next one, because the receiver keeps an alert for a day.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::closing::state_of;
use crate::deliver::Outbox;
use crate::millis::HOUR_MS;
use crate::port::{About, Alert, Clock, DeliveryError, Handled, HandledStep, Notice, Notifier, StoreError};
use crate::store::{Reader, StoreSettings};
use crate::verdict::IncidentId;

/// Time after the start, and between two repetitions.
const WAIT: Duration = Duration::from_secs(3_600);
/// Incidents that one channel gets in a repetition, those with the latest messages.
const INCIDENTS_MAX: usize = 1_000;

/// Incidents whose status is read at a time, so that an incident that was resolved meanwhile is rarely sent.
const READ_AT_ONCE: usize = 50;

/// The last states of the incidents of a list, separated by commas, that are not resolved or have changed since.
const OPEN: &str = "SELECT latest.incident_id AS incident_id, latest.reason AS reason, latest.severity AS severity, \
         latest.tenant_id AS tenant_id, latest.user_id AS user_id, latest.app_id AS app_id, \
         toUnixTimestamp64Milli(latest.opened_at) AS opened_at FROM incidents_latest AS latest \
     LEFT JOIN incident_work_latest AS work ON work.incident_id = latest.incident_id \
     WHERE latest.incident_id IN (SELECT arrayJoin(splitByChar(',', ?))) \
         AND (work.version = 0 OR work.status != 'resolved' OR latest.written_at > work.changed_at)";

/// What repetitions need.
pub struct Repeating {
    pub settings: StoreSettings,
    pub outbox: Arc<Outbox>,
    /// Channels to receivers whose alerts expire.
    pub notifiers: Vec<Arc<dyn Notifier>>,
    pub clock: Arc<dyn Clock>,
}

impl Repeating {
    /// `None`: the alerts of no receiver expire.
    pub(crate) fn new(
        settings: StoreSettings,
        outbox: Arc<Outbox>,
        notifiers: &[Arc<dyn Notifier>],
        clock: Arc<dyn Clock>,
    ) -> Option<Self> {
        let forgetful = notifiers.iter().filter(|notifier| notifier.handles(HandledStep::Open));
        let notifiers: Vec<_> = forgetful.cloned().collect();
        (!notifiers.is_empty()).then_some(Self { settings, outbox, notifiers, clock })
    }

    /// Repeats until the process ends.
    pub(crate) async fn run(self) {
        loop {
            self.clock.sleep(WAIT).await;
            if let Err(error) = self.repeat().await {
                tracing::warn!(%error, "open incidents are not sent again; retrying in an hour");
            }
        }
    }

    /// Sends each open incident once. Returns the number of accepted messages.
    pub async fn repeat(&self) -> Result<usize, StoreError> {
        let reader = Reader::open(&self.settings).await?;
        let mut accepted = Ok(0);
        for notifier in &self.notifiers {
            let sent = self.repeat_on(&**notifier, &reader).await;
            accepted = accepted.and_then(|before| Ok(before + sent?));
        }
        reader.close().await;
        accepted
    }

    async fn repeat_on(&self, notifier: &dyn Notifier, reader: &Reader) -> Result<usize, StoreError> {
        let mut accepted = 0;
        for some in self.outbox.incidents_of(&notifier.lane(), INCIDENTS_MAX).chunks(READ_AT_ONCE) {
            let list = some.iter().map(IncidentId::to_string).collect::<Vec<_>>().join(",");
            for row in reader.rows(OPEN, &[&list]).await? {
                let at = self.clock.now_millis();
                let Some((incident, notice)) = notice_of(&row, at) else { continue };
                let key = format!("notice-open-{incident}-{}", at / HOUR_MS);
                let name = notifier.name();
                match notifier.notify(Alert::Notice(&notice), &key).await {
                    Ok(_) => accepted += 1,
                    Err(error @ DeliveryError::Retriable { .. }) => {
                        tracing::warn!(channel = name, %error, "open incidents are not sent again; retrying in an hour");
                        return Ok(accepted);
                    }
                    // The answer is about this incident, so the others follow.
                    Err(error) => {
                        tracing::warn!(channel = name, %incident, %error, "an open incident is not sent again");
                    }
                }
            }
        }
        Ok(accepted)
    }
}

/// The message about a row of [`OPEN`]. The receiver has the alerts of earlier states until they end.
fn notice_of(row: &Value, at: i64) -> Option<(IncidentId, Notice)> {
    let text = |name: &str| row[name].as_str().map(str::to_owned).unwrap_or_default();
    let incident = IncidentId::parse(&text("incident_id"))?;
    let opened_at = row["opened_at"].as_i64().unwrap_or_default();
    let handled = Handled { incident, step: HandledStep::Open, opened_at, states: vec![state_of(row)] };
    let about = Some(Box::new(About::Handled(handled)));
    Some((incident, Notice { title: text("reason"), text: "The incident is open.".to_owned(), at, about }))
}
