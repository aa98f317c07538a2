//! Open incidents are sent again to receivers that forget an alert, until they are resolved.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tokenwarden::deliver::{Deliverer, Outbox, Settings};
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
    forgets: bool,
    seen: Mutex<Vec<String>>,
}

impl Channel {
    fn new(name: &'static str, forgets: bool) -> Arc<Self> {
        Arc::new(Self { name, forgets, seen: Mutex::default() })
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
        self.forgets && step == HandledStep::Open
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_incident_is_repeated_until_it_is_resolved() {
    let _turn = turn().await;
    let (directory, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let settings = embedded(directory.path());
    let store = Arc::new(ClickHouse::open(&settings).await.unwrap());
    let of = |id: u64| Incident { reason: format!("reason {id}"), ..incident(id, id, Severity::High) };
    let reported = [of(1), of(2), of(3)];
    let mut rows = EpochRows::new();
    for incident in &reported {
        rows.push_incident(incident);
    }
    store.write(&rows).await.unwrap();

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (forgetful, other) = (Channel::new("alertmanager", true), Channel::new("pages", false));
    let notifiers: Vec<Arc<dyn Notifier>> = vec![Arc::clone(&forgetful) as _, Arc::clone(&other) as _];
    let outbox = Arc::new(Outbox::open(folder.path(), &notifiers, Arc::clone(&clock)).unwrap());
    let deliverer = Deliverer {
        outbox: Arc::clone(&outbox),
        notifiers: notifiers.clone(),
        revoker: None,
        store: Arc::clone(&store),
        clock: Arc::clone(&clock),
        metrics: Arc::new(Metrics::new()),
        health: Arc::new(Health::default()),
        settings: Settings::default(),
    };
    let running = deliverer.start(&tokio::runtime::Handle::current());
    // The third incident is that of another member.
    outbox.take(&reported[..2]).unwrap();
    assert_eq!(running.settle(Duration::from_secs(30)).await, 0);
    assert_eq!((forgetful.take().len(), other.take().len()), (2, 2));

    let repeating = Repeating { settings, outbox, notifiers: vec![Arc::clone(&forgetful) as _], clock };
    assert_eq!(repeating.repeat().await.unwrap(), 2);
    assert_eq!(forgetful.take(), ["reason 1", "reason 2"]);
    let resolve = ["resolve", "INC-0000000000000001", "--by", "Ana"];
    assert!(incidents::run(directory.path(), &resolve).status.success());
    assert_eq!(repeating.repeat().await.unwrap(), 1);
    assert_eq!(forgetful.take(), ["reason 2"]);
    // A resolved incident that changes is open again.
    let mut rows = EpochRows::new();
    rows.push_incident(&Incident { reason: "again".to_owned(), ..incident(1, 11, Severity::High) });
    store.write(&rows).await.unwrap();
    assert_eq!(repeating.repeat().await.unwrap(), 2);
    assert_eq!(forgetful.take(), ["again", "reason 2"]);
    assert!(other.take().is_empty());
}
