//! Forwards messages to the partitions of their subjects, through the topic `<prefix>.rekeyed`.
//!
//! A member of the consumer group reads the source topics on a thread of its own. It copies each message to the partitions
//! that have one of its events, with the origin of the message in headers ([`origin`](super::origin)). Copies and offsets are
//! one transaction, so each message is forwarded once, in the order of its partition. Another member of the same group, the
//! [`KafkaSource`](super::KafkaSource) of the worker, reads the copies.

mod refused;
mod session;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::BaseConsumer;

use self::refused::Refused;
use self::session::{PART, RECOVERED_MS, Session, Transactions};
use super::connect::{check_topics, misconfigured};
use super::member::Member;
use super::own_topic::OwnTopic;
use super::settings::KafkaSettings;
use crate::number::random_id;
use crate::port::{Clock, Condition, OffsetGap, SourceError, SourceObserver, Splitter};
use crate::retry::{Restarts, RetryPolicy};

/// Restarts after a failure.
const RESTART: RetryPolicy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(30));
/// Time that a stop waits for the last transaction.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// Checks the source topics, and creates the topic of forwarded messages if it is missing.
pub fn ensure_topic(settings: &KafkaSettings) -> Result<(), SourceError> {
    let mut config = settings.client_config()?;
    config.set("group.id", &settings.group_id);
    let consumer = BaseConsumer::from_config_and_context(&config, Member::default()).map_err(misconfigured)?;
    check_topics(&consumer, &settings.of_forwarder())?;
    OwnTopic::rekeyed(settings)?.ensure()
}

/// The thread that forwards messages.
pub struct Forwarder {
    stop: Arc<AtomicBool>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

impl Forwarder {
    /// Joins the group and starts the thread. Fails if a topic does not exist, or the brokers refuse transactions. Later
    /// failures are reported, and forwarding begins again at the committed offsets.
    pub fn start(
        settings: &KafkaSettings,
        splitter: Box<dyn Splitter>,
        observer: Arc<dyn SourceObserver>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SourceError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (alive, ended) = mpsc::channel();
        let transactional_id = transactional_id(settings);
        let (settings, observer) = (settings.clone(), Arc::new(Reports(observer)));
        let refused = Refused::default();
        let mut lane = Lane { settings, transactional_id, splitter, observer, clock, stop: Arc::clone(&stop), refused };
        let first = lane.open()?;
        std::thread::Builder::new()
            .name("kafka-rekey".to_owned())
            .spawn(move || {
                lane.run(first);
                drop(alive);
            })
            .map_err(|error| SourceError::Unavailable(format!("cannot start a thread: {error}")))?;
        Ok(Self { stop, ended })
    }
}

impl Drop for Forwarder {
    /// Completes the open transaction and leaves the group. Waits at most [`STOP_WAIT`].
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.ended.recv_timeout(STOP_WAIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the last messages were not forwarded in time; they are forwarded after the next start");
        }
    }
}

/// The supervised work of the thread.
struct Lane {
    settings: KafkaSettings,
    transactional_id: String,
    splitter: Box<dyn Splitter>,
    observer: Arc<Reports>,
    clock: Arc<dyn Clock>,
    stop: Arc<AtomicBool>,
    refused: Refused,
}

/// With the id of a static member, a restarted member ends the open transaction of its predecessor at once.
fn transactional_id(settings: &KafkaSettings) -> String {
    let group = &settings.group_id;
    match settings.properties.get("group.instance.id") {
        Some(instance) => format!("{group}-rekey-{instance}"),
        None => format!("{group}-rekey-{:016x}", random_id()),
    }
}

impl Lane {
    fn open(&self) -> Result<Session, SourceError> {
        let transactions = Transactions::open(
            &self.settings,
            &self.transactional_id,
            self.refused.one_by_one,
            Arc::clone(&self.clock),
        )?;
        let observer: Arc<dyn SourceObserver> = Arc::clone(&self.observer) as _;
        Session::open(&self.settings, transactions, observer, Arc::clone(&self.clock))
    }

    /// Forwards until a stop. Begins again after a failure or a panic.
    fn run(&mut self, first: Session) {
        let (mut session, mut restarts) = (Some(first), Restarts::new(RESTART, RECOVERED_MS));
        while !self.stop.load(Ordering::Relaxed) {
            let began = self.clock.now_millis();
            let ended = catch_unwind(AssertUnwindSafe(|| {
                let session = match session.take() {
                    Some(session) => session,
                    None => self.open()?,
                };
                session.run(&mut *self.splitter, &mut self.refused, &self.stop)
            }));
            let reason = match ended {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                // The panic is logged with its place.
                Err(_) => "a panic".to_owned(),
            };
            tracing::error!(reason, "messages are not forwarded; beginning again at the committed offsets");
            self.observer.condition(Condition::Forwarder, PART, true);
            restarts.wait(self.clock.now_millis() - began, &self.stop);
        }
    }
}

/// Passes the reports of the forwarder on. Conditions that the member which scores messages reports too get a name.
struct Reports(Arc<dyn SourceObserver>);

impl SourceObserver for Reports {
    fn lag(&self, topic: &str, partition: i32, messages: Option<i64>) {
        self.0.lag(topic, partition, messages);
    }

    fn rebuild_left(&self, topic: &str, partition: i32, messages: Option<i64>) {
        self.0.rebuild_left(topic, partition, messages);
    }

    fn condition(&self, condition: Condition, part: &str, holds: bool) {
        let is_shared = matches!(condition, Condition::NoPartitions | Condition::Broker | Condition::Commit);
        self.0.condition(condition, if is_shared { PART } else { part }, holds);
    }

    fn gaps(&self, gaps: &[OffsetGap]) {
        self.0.gaps(gaps);
    }

    fn letters_dropped(&self, count: u64) {
        self.0.letters_dropped(count);
    }

    fn verdicts_dropped(&self, count: u64) {
        self.0.verdicts_dropped(count);
    }

    fn sightings_dropped(&self, count: u64) {
        self.0.sightings_dropped(count);
    }
}
