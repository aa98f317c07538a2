//! A credential change revokes the grants that its user had before.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokenwarden::checkpoint::Position;
use tokenwarden::credentials::{CURSOR_FILE, CredentialChanges};
use tokenwarden::deliver::Outbox;
use tokenwarden::event::Kind;
use tokenwarden::port::{Clock, EventRow, Radius, Rows as _, Store as _};
use tokenwarden::store::{ClickHouse, EpochRows, Reader};
use tokenwarden::telemetry::{Condition, Health};
use tokenwarden::verdict::Mode;

use super::rows::{INGESTED, allowed, at, event, numbered, token};
use super::{embedded, row, turn};

struct At(AtomicI64);

impl Clock for At {
    fn now_millis(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// An event of a user, with a grant or without.
struct Seen {
    user: &'static str,
    tenant: &'static str,
    grant: Option<&'static str>,
    kind: Kind,
    topic: &'static str,
    at: i64,
}

const CHANGED_AT: i64 = INGESTED + 10_000;

const fn used(user: &'static str, grant: &'static str, at: i64) -> Seen {
    Seen { user, tenant: "acme", grant: Some(grant), kind: Kind::Use, topic: "gateway", at }
}

const fn changed(user: &'static str, topic: &'static str) -> Seen {
    Seen { user, tenant: "acme", grant: None, kind: Kind::CredentialChanged, topic, at: CHANGED_AT }
}

fn rows_of(all: impl IntoIterator<Item = Seen>, first: u64) -> EpochRows {
    let mut rows = EpochRows::new();
    for (number, seen) in (first..).zip(all) {
        let mut event = event(number);
        event.event.timestamp = at(seen.at);
        event.event.kind = seen.kind;
        event.event.token_id = token(&format!("token-{number}"));
        event.event.family_id = seen.grant.map(Into::into);
        event.event.user_id = Some(seen.user.into());
        event.event.tenant_id = Some(seen.tenant.into());
        let (event, outcome) = (numbered(event), allowed());
        let position = Position::new(seen.topic, 0, number as i64);
        let row = EventRow {
            event: &event,
            outcome: &outcome,
            position: &position,
            index: 0,
            scored_at: 0,
            ingested_at: seen.at,
        };
        rows.push_event(&row);
    }
    rows
}

struct Rig {
    _directories: [TempDir; 2],
    journal: std::path::PathBuf,
    changes: CredentialChanges,
    clock: Arc<At>,
}

impl Rig {
    async fn new(radius: Option<Radius>) -> Self {
        let (directory, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let settings = embedded(directory.path());
        let store = Arc::new(ClickHouse::open(&settings).await.unwrap());
        let clock = Arc::new(At(AtomicI64::new(INGESTED)));
        let time: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let outbox = Arc::new(Outbox::open(folder.path(), &[], Arc::clone(&time)).unwrap());
        let changes = CredentialChanges {
            settings,
            store,
            outbox,
            clock: time,
            health: Arc::new(Health::default()),
            radius,
            of_tokens: false,
            mode: Mode::Enforce,
            topics: vec!["idp".to_owned()],
            folder: folder.path().to_owned(),
            handled: Mutex::default(),
        };
        let journal = folder.path().join("journal.ndjson");
        Self { journal, _directories: [directory, folder], changes, clock }
    }

    /// Tenant, user and grant of each revocation in the outbox.
    fn requested(&self) -> BTreeSet<[String; 3]> {
        let journal = std::fs::read_to_string(&self.journal).unwrap();
        let records = journal.lines().filter_map(|line| {
            let record: Value = serde_json::from_str(line.split_once(' ')?.1).ok()?;
            let incident = &record["work"]["incident"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (record["lanes"] == json!(["revoke"])).then(|| {
                [text(&incident["tenant_id"]), text(&incident["user_id"]), text(&incident["revoke"]["family"])]
            })
        });
        records.collect()
    }

    async fn row(&self, sql: &str) -> Value {
        let reader = Reader::open(&self.changes.settings).await.unwrap();
        let row = row(&reader, sql).await;
        reader.close().await;
        row
    }
}

fn revocations(all: &[(&str, &str)]) -> BTreeSet<[String; 3]> {
    all.iter().map(|(user, grant)| ["acme".to_owned(), (*user).to_owned(), (*grant).to_owned()]).collect()
}

#[tokio::test]
async fn credential_change_revokes_earlier_grants_once() {
    let _turn = turn().await;
    let rig = Rig::new(None).await;
    // A change before the setting was turned on has no effect.
    rig.changes.store.write(&rows_of([Seen { at: INGESTED - 1, ..changed("old", "idp") }], 1)).await.unwrap();
    assert_eq!(rig.changes.look().await.unwrap(), 0);
    assert_eq!(std::fs::read_to_string(rig.changes.folder.join(CURSOR_FILE)).unwrap(), INGESTED.to_string());
    let hostile = "eve' OR 1 = 1 --";
    let all = [
        used("ana", "g-1", CHANGED_AT - 5_000),
        used("ana", "g-2", CHANGED_AT - 4_000),
        used("ana", "g-3", CHANGED_AT + 1),
        // A grant that events of two users name, the same user of another tenant, and a change by a stranger.
        used("bob", "g-4", CHANGED_AT - 3_000),
        used("ana", "g-4", CHANGED_AT - 2_000),
        Seen { tenant: "other", ..used("ana", "g-5", CHANGED_AT - 5_000) },
        used("cy", "g-6", CHANGED_AT - 5_000),
        used("old", "g-7", CHANGED_AT - 5_000),
        changed("ana", "idp"),
        changed("cy", "gateway"),
        changed(hostile, "idp"),
    ];
    rig.changes.store.write(&rows_of(all, 10)).await.unwrap();
    rig.clock.0.store(CHANGED_AT + 1_000, Ordering::Relaxed);
    // The store was unavailable for longer than the time for which rows of other members are awaited.
    rig.changes.health.set(Condition::Store, true);
    rig.clock.0.store(CHANGED_AT + 7_200_000, Ordering::Relaxed);
    assert_eq!(rig.changes.look().await.unwrap(), 0, "rows wait in the spool");
    rig.changes.health.set(Condition::Store, false);
    let expected = revocations(&[("ana", "g-1"), ("ana", "g-2")]);
    assert_eq!((rig.changes.look().await.unwrap(), rig.requested()), (1, expected.clone()));
    assert_eq!(rig.changes.look().await.unwrap(), 0, "handled");
    // After a restart, and at another member, which has its own outbox.
    rig.changes.handled.lock().unwrap().clear();
    std::fs::write(rig.changes.folder.join(CURSOR_FILE), INGESTED.to_string()).unwrap();
    rig.changes.look().await.unwrap();
    let waiting = rig.changes.outbox.waiting();
    assert_eq!((rig.requested(), waiting), (expected, 2), "nothing is requested twice");
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join(CURSOR_FILE), INGESTED.to_string()).unwrap();
    let other = CredentialChanges {
        settings: rig.changes.settings.clone(),
        store: Arc::clone(&rig.changes.store),
        outbox: Arc::new(Outbox::open(folder.path(), &[], Arc::clone(&rig.changes.clock)).unwrap()),
        clock: Arc::clone(&rig.changes.clock),
        health: Arc::new(Health::default()),
        radius: None,
        of_tokens: false,
        mode: Mode::Enforce,
        topics: rig.changes.topics.clone(),
        folder: folder.path().to_owned(),
        handled: Mutex::default(),
    };
    assert_eq!((other.look().await.unwrap(), other.outbox.waiting()), (0, 0), "the first member has the incident");
    let stored = rig
        .row("SELECT uniqExact(incident_id) AS incidents, any(user_id) AS user, any(mode) AS mode, any(rules) AS rules FROM incidents")
        .await;
    let rules = json!(["stale_after_credential_change"]);
    assert_eq!(stored, json!({"incidents": 1, "user": "ana", "mode": "enforce", "rules": rules}));
}

#[tokio::test]
async fn provider_that_ends_a_user_is_requested_once() {
    let _turn = turn().await;
    let rig = Rig::new(Some(Radius::User)).await;
    rig.changes.look().await.unwrap();
    let all = [used("ana", "g-1", CHANGED_AT - 5_000), used("ana", "g-2", CHANGED_AT - 4_000), changed("ana", "idp")];
    rig.changes.store.write(&rows_of(all, 10)).await.unwrap();
    rig.clock.0.store(CHANGED_AT + 1_000, Ordering::Relaxed);
    assert_eq!(rig.changes.look().await.unwrap(), 1);
    assert_eq!(rig.requested(), revocations(&[("ana", "g-2")]), "with the grant that was used last");
}
