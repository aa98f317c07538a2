//! Open incidents are sent again to receivers whose alerts expire, until they are resolved.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tokenwarden::deliver::{Deliverer, DigestSettings, Outbox, Running, Settings};
use tokenwarden::port::{
    Accepted, Alert, Clock, DeliveryError, HandledStep, Notifier, Outbox as _, Rows as _, Store as _,
};
use tokenwarden::repeating::Repeating;
use tokenwarden::store::{ClickHouse, EpochRows};
use tokenwarden::telemetry::{Health, Metrics, SystemClock};
use tokenwarden::verdict::{Incident, Severity};

use super::rows::incident;
use super::{embedded, incidents, turn};

/// A channel that stores the titles of what it gets.
struct Channel {
    name: &'static str,
    expires: bool,
    seen: Mutex<Vec<String>>,
}

impl Channel {
    fn new(name: &'static str, expires: bool) -> Arc<Self> {
        Arc::new(Self { name, expires, seen: Mutex::default() })
    }

    fn take(&self) -> Vec<String> {
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.sort();
        seen
    }
}

#[async_trait]
impl Notifier for Channel {
    fn name(&self) -> &str {
        self.name
    }

    fn target(&self) -> String {
        String::new()
    }

    async fn notify(&self, alert: Alert<'_>, _: &str) -> Result<Accepted, DeliveryError> {
        let title = match alert {
            Alert::Incident { incident, .. } => incident.id.to_string(),
            Alert::Notice(notice) => notice.title.clone(),
        };
        self.seen.lock().unwrap().push(title);
        Ok(Accepted::default())
    }

    fn handles(&self, step: HandledStep) -> bool {
        self.expires && step == HandledStep::Open
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        Ok(())
    }
}

/// A store, an outbox and its deliverer, with a channel whose alerts expire and another one.
struct Rig {
    directories: [TempDir; 2],
    store: Arc<ClickHouse>,
    expiring: Arc<Channel>,
    other: Arc<Channel>,
    repeating: Repeating,
    running: Running,
}

impl Rig {
    async fn start(with: impl FnOnce(Outbox) -> Outbox) -> Self {
        let directories = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let settings = embedded(directories[0].path());
        let store = Arc::new(ClickHouse::open(&settings).await.unwrap());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (expiring, other) = (Channel::new("alertmanager", true), Channel::new("pages", false));
        let notifiers: Vec<Arc<dyn Notifier>> = vec![Arc::clone(&expiring) as _, Arc::clone(&other) as _];
        let outbox = Outbox::open(directories[1].path(), &notifiers, Arc::clone(&clock)).unwrap();
        let outbox = Arc::new(with(outbox));
        let deliverer = Deliverer {
            outbox: Arc::clone(&outbox),
            notifiers,
            revoker: None,
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            metrics: Arc::new(Metrics::new()),
            health: Arc::new(Health::default()),
            settings: Settings::default(),
        };
        let running = deliverer.start(&tokio::runtime::Handle::current());
        let repeating = Repeating { settings, outbox, notifiers: vec![Arc::clone(&expiring) as _], clock };
        Self { directories, store, expiring, other, repeating, running }
    }

    async fn store(&self, incidents: &[Incident]) {
        let mut rows = EpochRows::new();
        for incident in incidents {
            rows.push_incident(incident);
        }
        self.store.write(&rows).await.unwrap();
    }

    async fn take(&self, incidents: &[Incident]) {
        self.repeating.outbox.take(incidents).unwrap();
        assert_eq!(self.running.settle(Duration::from_secs(30)).await, 0);
    }
}

fn reported(id: u64, number: u64, reason: &str) -> Incident {
    Incident { reason: reason.to_owned(), ..incident(id, number, Severity::High) }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_incident_is_repeated_until_it_is_resolved() {
    let _turn = turn().await;
    let rig = Rig::start(|outbox| outbox).await;
    let all = [reported(1, 1, "reason 1"), reported(2, 2, "reason 2"), reported(3, 3, "reason 3")];
    rig.store(&all).await;
    // The third incident is that of another member.
    rig.take(&all[..2]).await;
    assert_eq!((rig.expiring.take().len(), rig.other.take().len()), (2, 2));

    assert_eq!(rig.repeating.repeat().await.unwrap(), 2);
    assert_eq!(rig.expiring.take(), ["reason 1", "reason 2"]);
    let resolve = ["resolve", "INC-0000000000000001", "--by", "Ana"];
    assert!(incidents::run(rig.directories[0].path(), &resolve).status.success());
    assert_eq!(rig.repeating.repeat().await.unwrap(), 1);
    assert_eq!(rig.expiring.take(), ["reason 2"]);
    // A resolved incident that changes is open again.
    rig.store(&[reported(1, 11, "again")]).await;
    assert_eq!(rig.repeating.repeat().await.unwrap(), 2);
    assert_eq!(rig.expiring.take(), ["again", "reason 2"]);
    assert!(rig.other.take().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_in_a_digest_is_not_repeated() {
    let _turn = turn().await;
    let digest =
        DigestSettings { messages_per_hour_max: 0, below: Severity::Critical, interval: Duration::from_secs(3_600) };
    let rig = Rig::start(|outbox| outbox.with_digests([("alertmanager".to_owned(), digest)].into())).await;
    // An incident with a revocation is in no digest.
    let reported = Incident { revoke: None, ..reported(1, 1, "reason 1") };
    rig.store(std::slice::from_ref(&reported)).await;
    rig.take(&[reported]).await;
    let sent = rig.expiring.take();
    assert!(sent.len() == 1 && sent[0].starts_with("Digest of 1 alert"), "{sent:?}");
    assert_eq!(rig.repeating.repeat().await.unwrap(), 0);
    assert!(rig.expiring.take().is_empty());
}
