//! Incidents whose grants were revoked and have not been used since are closed, and reopened at a later use.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokenwarden::checkpoint::Position;
use tokenwarden::closing::Closing;
use tokenwarden::deliver::Outbox;
use tokenwarden::event::Kind;
use tokenwarden::port::{
    Accepted, ActionOutcome, ActionRow, Alert, Clock, DeliveryError, EventRow, Notifier, Outbox as _, Rows as _,
    Store as _,
};
use tokenwarden::store::{ClickHouse, EpochRows, Reader};
use tokenwarden::telemetry::{Health, SystemClock};
use tokenwarden::verdict::{Incident, Severity};

use super::rows::{INGESTED, action, allowed, at, event, incident, numbered, token};
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

/// Time after the end of the wait of all revocations, which are at [`INGESTED`].
const LATER: i64 = INGESTED + WEEK + 60_000;

/// Incident `id` about the grant `grant-ID`.
fn of_grant(id: u64) -> Incident {
    let family_id = format!("grant-{id}");
    Incident { subject: family_id.clone(), family_id, ..incident(id, id, Severity::High) }
}

/// Incident `id` about the token `token-ID` without a grant.
fn of_token(id: u64) -> Incident {
    let token_id = format!("token-{id}");
    Incident { subject: token_id.clone(), token_id, family_id: String::new(), ..incident(id, id, Severity::High) }
}

/// A row of `token_events`: an accepted use of `token-ID` before the revocations.
struct Used {
    token: u64,
    family: Option<u64>,
    parent: Option<u64>,
    at: i64,
    ingested_at: i64,
    kind: Kind,
    status: u16,
    partition: i32,
}

impl Used {
    const fn of(token: u64, family: Option<u64>) -> Self {
        let at = INGESTED - 1_000;
        Self { token, family, parent: None, at, ingested_at: at, kind: Kind::Use, status: 200, partition: 3 }
    }

    const fn at(self, at: i64) -> Self {
        Self { at, ingested_at: at, ..self }
    }
}

fn rows_of(all: impl IntoIterator<Item = Used>, first: u64) -> EpochRows {
    let mut rows = EpochRows::new();
    for (number, used) in (first..).zip(all) {
        let mut event = event(number);
        event.event.timestamp = at(used.at);
        event.event.token_id = token(&format!("token-{}", used.token));
        event.event.family_id = used.family.map(|id| format!("grant-{id}").into());
        event.event.parent_token_id = used.parent.map(|id| token(&format!("token-{id}")));
        (event.event.kind, event.event.status) = (used.kind, Some(used.status));
        let (event, outcome) = (numbered(event), allowed());
        let position = Position::new("token-events", used.partition, number as i64);
        let ingested_at = used.ingested_at;
        rows.push_event(&EventRow {
            event: &event,
            outcome: &outcome,
            position: &position,
            index: 0,
            scored_at: 0,
            ingested_at,
        });
    }
    rows
}

/// An open store with an outbox that has all incidents but 4.
struct Rig {
    _directories: [TempDir; 2],
    journal: std::path::PathBuf,
    outbox: Arc<Outbox>,
    closing: Closing,
}

impl Rig {
    async fn new(incidents: &[Incident]) -> Self {
        let (directory, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let settings = embedded(directory.path());
        let store = Arc::new(ClickHouse::open(&settings).await.unwrap());
        let mut rows = EpochRows::new();
        for incident in incidents {
            rows.push_incident(incident);
            let id = incident.id.0;
            let outcome = if id == 3 { ActionOutcome::Failed } else { ActionOutcome::Done };
            let kind = if incident.family_id.is_empty() { "revoke_token" } else { "revoke_family" };
            let (kind, target) = (kind.to_owned(), incident.subject.clone());
            rows.push_action(&ActionRow { kind, target, ..action(id, 0, outcome) });
        }
        store.write(&rows).await.unwrap();
        let clock: Arc<dyn Clock> = Arc::new(InAWeek);
        let notifiers: Vec<Arc<dyn Notifier>> = vec![Arc::new(Channel)];
        let outbox = Arc::new(Outbox::open(folder.path(), &notifiers, Arc::clone(&clock)).unwrap());
        let known: Vec<_> = incidents.iter().filter(|incident| incident.id.0 != 4).cloned().collect();
        outbox.take(&known).unwrap();
        let closing = Closing {
            settings,
            store,
            outbox: Arc::clone(&outbox),
            clock,
            health: Arc::new(Health::default()),
            after_days: 7,
        };
        Self { journal: folder.path().join("journal.ndjson"), _directories: [directory, folder], outbox, closing }
    }

    async fn store(&self, all: impl IntoIterator<Item = Used>, first: u64) {
        self.closing.store.write(&rows_of(all, first)).await.unwrap();
    }

    /// The notices whose line in the journal contains `text`.
    fn notices(&self, text: &str) -> Vec<Value> {
        let journal = std::fs::read_to_string(&self.journal).unwrap();
        let lines = journal.lines().filter(|line| line.contains("notice-work-") && line.contains(text));
        let records =
            lines.map(|line| serde_json::from_str::<Value>(line.split_once(' ').expect("a checksum").1).unwrap());
        records.map(|record| record["work"]["notice"].clone()).filter(|notice| !notice.is_null()).collect()
    }

    async fn row(&self, sql: &str) -> Value {
        let reader = Reader::open(&self.closing.settings).await.unwrap();
        let row = row(&reader, sql).await;
        reader.close().await;
        row
    }
}

#[tokio::test]
async fn unused_revoked_grants_close_their_incident() {
    let _turn = turn().await;
    let rig = Rig::new(&[of_grant(1), of_grant(2), of_grant(3), of_grant(4)]).await;
    let after = INGESTED + 60_000;
    // A refused credential is no use. The second grant was used after the revocation. The third was not revoked. The fourth
    // is not in this outbox.
    rig.store(
        [
            Used::of(1, Some(1)),
            Used { status: 401, ..Used::of(1, Some(1)).at(after) },
            Used { status: 400, kind: Kind::Refreshed, ..Used::of(1, Some(1)).at(after) },
            Used::of(2, Some(2)).at(after),
            Used::of(3, Some(3)),
            Used { partition: 4, ..Used::of(4, Some(4)) },
        ],
        1,
    )
    .await;
    let waiting = rig.outbox.waiting();
    assert_eq!(rig.closing.close().await.unwrap(), 0, "later rows are missing");
    rig.store([Used::of(90, Some(90)).at(LATER)], 10).await;
    assert_eq!(rig.closing.close().await.unwrap(), 0, "those of one partition are missing");
    rig.store([Used { partition: 4, ..Used::of(91, Some(91)).at(LATER) }], 11).await;
    assert_eq!(rig.closing.close().await.unwrap(), 1);
    assert_eq!(rig.closing.close().await.unwrap(), 0, "it is closed once");
    assert_eq!(rig.outbox.waiting(), waiting + 1, "one message");
    let notices = rig.notices("INC-0000000000000001");
    let notice = notices.first().expect("a notice");
    assert_eq!(notice["about"]["handled"]["step"], "resolved");
    let state = json!({"severity": "high", "tenant_id": "tenant-1", "user_id": "user-1", "app_id": "app-1"});
    assert_eq!(notice["about"]["handled"]["states"], json!([state]));
    let text = notice["text"].as_str().unwrap();
    assert!(text.contains("Revoked: 1 grant or token, 2024-03-09T16:00:00Z. Verified: the store has no"), "{text}");
    let work = rig.row("SELECT incident_id, version, status, changed_by, note FROM incident_work").await;
    assert_eq!(
        (&work["incident_id"], &work["version"], &work["status"], &work["changed_by"]),
        (&json!("INC-0000000000000001"), &json!(1), &json!("resolved"), &json!("tokenwarden"))
    );
    assert_eq!(work["note"], notice["text"]);

    assert_eq!(rig.closing.reopen().await.unwrap(), 0, "it is not used");
    rig.store([Used::of(1, Some(1)).at(LATER)], 20).await;
    assert_eq!(rig.closing.reopen().await.unwrap(), 1, "a use after the closing");
    assert_eq!(rig.closing.reopen().await.unwrap(), 0, "it is reopened once");
    assert_eq!(rig.closing.close().await.unwrap(), 0, "it stays open");
    assert_eq!(rig.notices("INC-0000000000000001 is open again").len(), 1);
    let work = rig.row("SELECT version, status FROM incident_work_latest").await;
    assert_eq!((&work["version"], &work["status"]), (&json!(2), &json!("open")));
}

#[tokio::test]
async fn use_under_other_ids_keeps_incident_open() {
    let _turn = turn().await;
    let after = INGESTED + 60_000;
    let of_other_baseline = Used::of(16, Some(60)).at(after);
    let baseline = {
        let mut event = event(0);
        event.event.family_id = Some("grant-60".into());
        numbered(event).baseline_id()
    };
    let incidents = [
        of_grant(11),
        of_token(12),
        of_token(13),
        of_token(14),
        of_grant(15),
        Incident { baseline, ..of_grant(16) },
        of_token(17),
        of_grant(18),
    ];
    let rig = Rig::new(&incidents).await;
    rig.store(
        [
            // The event of an API names the token and no grant.
            Used::of(11, Some(11)),
            Used::of(11, None).at(after),
            // A token was issued from the revoked one, or has the same parent, or is also of a grant.
            Used { parent: Some(12), kind: Kind::Issued, ..Used::of(30, None) },
            Used { parent: Some(31), kind: Kind::Issued, ..Used::of(13, None) },
            Used::of(14, Some(14)),
            // The clock of the producer is slow.
            Used { ingested_at: after, ..Used::of(15, Some(15)) },
            of_other_baseline,
            // No link and no use: these are closed.
            Used::of(17, None),
            Used::of(18, Some(18)),
            Used { parent: Some(18), kind: Kind::Refreshed, ..Used::of(40, Some(18)) },
            Used::of(90, Some(90)).at(LATER),
        ],
        1,
    )
    .await;
    assert_eq!(rig.closing.close().await.unwrap(), 2);
    let closed = rig.row("SELECT arraySort(groupArray(incident_id)) AS ids FROM incident_work").await;
    assert_eq!(closed["ids"], json!(["INC-0000000000000011", "INC-0000000000000012"]), "17 and 18, hexadecimal");
}
