//! Incidents whose grants were revoked and have not been used since are closed.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokenwarden::closing::Closing;
use tokenwarden::deliver::Outbox;
use tokenwarden::event::Kind;
use tokenwarden::port::{
    Accepted, ActionOutcome, Alert, Clock, DeliveryError, Notifier, Outbox as _, Rows as _, Store as _,
};
use tokenwarden::store::{ClickHouse, EpochRows, Reader};
use tokenwarden::telemetry::SystemClock;
use tokenwarden::verdict::{Incident, Severity};

use super::rows::{INGESTED, action, allowed, at, event, incident, numbered, push};
use super::{embedded, row, turn};

const WEEK: i64 = 7 * 86_400_000;

/// A week after the rows of the tests are stored.
struct InAWeek;

impl Clock for InAWeek {
    fn now_millis(&self) -> i64 {
        SystemClock.now_millis() + WEEK
    }
}

/// A channel that is never called, because no deliverer runs.
struct Channel;

#[async_trait]
impl Notifier for Channel {
    fn name(&self) -> &'static str {
        "oncall"
    }

    fn target(&self) -> String {
        String::new()
    }

    async fn notify(&self, _: Alert<'_>, _: &str) -> Result<Accepted, DeliveryError> {
        Ok(Accepted::default())
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        Ok(())
    }
}

/// Incident `id` about one grant, which is not that of other incidents.
fn of_grant(id: u64) -> Incident {
    let family_id = format!("grant-{id}");
    Incident { subject: family_id.clone(), family_id, ..incident(id, id, Severity::High) }
}

#[tokio::test]
async fn unused_revoked_grants_close_their_incident() {
    let _turn = turn().await;
    let (directory, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let settings = embedded(directory.path());
    let store = Arc::new(ClickHouse::open(&settings).await.unwrap());
    let mut rows = EpochRows::new();
    let mut used = |number: u64, id: u64, millis: i64, kind: Kind, status: u16| {
        let mut event = event(number);
        event.event.timestamp = at(millis);
        event.event.family_id = Some(format!("grant-{id}").into());
        (event.event.kind, event.event.status) = (kind, Some(status));
        push(&mut rows, &numbered(event), &allowed(), number as i64);
    };
    // All revocations are at `INGESTED`. The first grant was used before, and a refused credential is no use.
    used(1, 1, INGESTED - 1_000, Kind::Use, 200);
    used(2, 1, INGESTED + 60_000, Kind::Use, 401);
    // The second was used afterwards. The third was not revoked. The fourth is not in this outbox.
    used(3, 2, INGESTED + 60_000, Kind::Use, 200);
    used(4, 3, INGESTED - 1_000, Kind::Use, 200);
    used(5, 4, INGESTED - 1_000, Kind::Use, 200);
    for id in 1..=4 {
        rows.push_incident(&of_grant(id));
        let outcome = if id == 3 { ActionOutcome::Failed } else { ActionOutcome::Done };
        rows.push_action(&tokenwarden::port::ActionRow { target: format!("grant-{id}"), ..action(id, 0, outcome) });
    }
    store.write(&rows).await.unwrap();

    let clock: Arc<dyn Clock> = Arc::new(InAWeek);
    let notifiers: Vec<Arc<dyn Notifier>> = vec![Arc::new(Channel)];
    let outbox = Arc::new(Outbox::open(folder.path(), &notifiers, Arc::clone(&clock)).unwrap());
    outbox.take(&[of_grant(1), of_grant(2), of_grant(3)]).unwrap();
    let waiting = outbox.waiting();
    let closing = |after_days| Closing {
        settings: settings.clone(),
        store: Arc::clone(&store),
        outbox: Arc::clone(&outbox),
        clock: Arc::clone(&clock),
        after_days,
    };
    assert_eq!(closing(7).close().await.unwrap(), 1);
    assert_eq!(closing(7).close().await.unwrap(), 0, "it is closed once");
    assert_eq!(outbox.waiting(), waiting + 1, "one message");
    let journal = std::fs::read_to_string(folder.path().join("journal.ndjson")).unwrap();
    let line = journal.lines().find(|line| line.contains("notice-closed-INC-0000000000000001-0")).expect("a notice");
    let record: Value = serde_json::from_str(line.split_once(' ').expect("a checksum").1).unwrap();
    let notice = &record["work"]["notice"];
    assert_eq!(notice["about"]["handled"]["step"], "resolved");
    let state = json!({"severity": "high", "tenant_id": "tenant-1", "user_id": "user-1", "app_id": "app-1"});
    assert_eq!(notice["about"]["handled"]["states"], json!([state]));
    let text = notice["text"].as_str().unwrap();
    assert!(text.contains("Revoked: 1 grant or token, 2024-03-09T16:00:00Z. Verified: the store has no"), "{text}");

    let reader = Reader::open(&settings).await.unwrap();
    let work = row(&reader, "SELECT incident_id, version, status, changed_by, note FROM incident_work").await;
    assert_eq!(
        (&work["incident_id"], &work["version"], &work["status"], &work["changed_by"]),
        (&json!("INC-0000000000000001"), &json!(1), &json!("resolved"), &json!("tokenwarden"))
    );
    assert_eq!(work["note"], notice["text"]);
    reader.close().await;
}
