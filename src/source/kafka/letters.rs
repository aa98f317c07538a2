//! The topic of dead letters. A thread of its own writes to it, so that a topic that does not take them holds up nothing:
//! the table `dead_letters` has all of them.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use super::connect::misconfigured;
use super::member::{log, unpoisoned};
use super::native::describe;
use super::settings::{ANSWER_WAIT, KafkaSettings};
use crate::checkpoint::DeadLetter;
use crate::port::{Condition, SourceError, SourceObserver};
use crate::retry::RetryPolicy;

/// Letters that may wait for the topic, and their bytes; beyond either the oldest are dropped.
const LETTERS_MAX: usize = 10_000;
const LETTERS_BYTES_MAX: usize = 64 << 20;
/// Letters sent at once.
const BATCH_MAX: usize = 100;
/// A dead letter longer than this is cut in its topic: brokers and librdkafka take 1,000,000 bytes by default, its
/// headers included.
pub(super) const LETTER_BYTES_MAX: usize = 900_000;
/// A letter that is too large for the topic is cut by halves, but no shorter than this.
const LETTER_BYTES_MIN: usize = 64;
/// How long the brokers may take to acknowledge a letter.
const ACKNOWLEDGE_WAIT_MS: &str = "10000";
/// As long as that and some more.
const FLUSH_WAIT: Duration = Duration::from_secs(15);
/// Attempts to send letters that the topic did not take.
const RETRY: RetryPolicy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(60));
/// How often the topic is looked at while no letters come.
const LOOK_WAIT: Duration = Duration::from_secs(60);
/// Why a topic is not written to that belongs to others.
const FORBIDDEN: &str = "we may not write to it (ACL)";
/// How long the topic keeps letters: 30 days.
const RETENTION_MS: &str = "2592000000";
/// How long the last letters may take at a stop.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// Where messages go that cannot be decoded.
pub(super) struct DeadLetterTopic {
    queue: Arc<Queue>,
    observer: Arc<dyn SourceObserver>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    letters: VecDeque<Letter>,
    bytes: usize,
    stopped: bool,
}

struct Letter {
    letter: DeadLetter,
    /// Bytes of its payload before it was cut.
    length: usize,
}

impl DeadLetterTopic {
    /// Starts the thread, which makes the topic where it is missing and we may. Fails only for wrong settings.
    pub(super) fn open(settings: &KafkaSettings, observer: Arc<dyn SourceObserver>) -> Result<Self, SourceError> {
        let queue = Arc::new(Queue::default());
        let (alive, ended) = mpsc::channel();
        let lane = Lane {
            topic: Topic::open(settings)?,
            producer: producer(settings.client_config()?)?,
            queue: Arc::clone(&queue),
            observer: Arc::clone(&observer),
            problem: None,
            tickets: 0,
            _alive: alive,
        };
        std::thread::Builder::new()
            .name("dead-letters".to_owned())
            .spawn(move || lane.run())
            .map_err(|error| SourceError::Unavailable(format!("cannot start a thread: {error}")))?;
        Ok(Self { queue, observer, ended })
    }

    /// Takes `letters` to be sent as soon as the topic takes them.
    pub(super) fn park(&self, letters: &[DeadLetter]) {
        if letters.is_empty() {
            return;
        }
        let mut waiting = self.queue.lock();
        waiting.letters.reserve(letters.len().min(LETTERS_MAX));
        for letter in letters {
            let length = letter.payload.len();
            let mut letter = letter.clone();
            letter.payload.truncate(LETTER_BYTES_MAX);
            waiting.bytes += letter.payload.len();
            waiting.letters.push_back(Letter { letter, length });
        }
        let dropped = waiting.bound();
        drop(waiting);
        self.queue.changed.notify_one();
        if dropped > 0 {
            self.observer.letters_dropped(dropped);
        }
    }

    /// Lets the thread end once nothing waits any more.
    pub(super) fn stop(&self) {
        self.queue.lock().stopped = true;
        self.queue.changed.notify_one();
    }
}

impl Drop for DeadLetterTopic {
    fn drop(&mut self) {
        self.stop();
        // A thread that waits for a broker beyond that ends with the process.
        let _ = self.ended.recv_timeout(STOP_WAIT);
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        unpoisoned(&self.waiting)
    }

    fn is_empty(&self) -> bool {
        self.lock().letters.is_empty()
    }

    /// Waits for `until`, for a stop, or for `wait`. Whether it is stopped.
    fn wait(&self, wait: Duration, until: impl Fn(&Waiting) -> bool) -> bool {
        let waiting = self.lock();
        let done = self.changed.wait_timeout_while(waiting, wait, |waiting| !waiting.stopped && !until(waiting));
        let (waiting, _) = done.unwrap_or_else(PoisonError::into_inner);
        waiting.stopped
    }
}

impl Waiting {
    fn take(&mut self) -> Vec<Letter> {
        let count = self.letters.len().min(BATCH_MAX);
        let batch: Vec<_> = self.letters.drain(..count).collect();
        self.bytes -= batch.iter().map(|letter| letter.letter.payload.len()).sum::<usize>();
        batch
    }

    /// Puts letters back that were not sent, in front.
    fn put_back(&mut self, letters: Vec<Letter>) {
        for letter in letters.into_iter().rev() {
            self.bytes += letter.letter.payload.len();
            self.letters.push_front(letter);
        }
    }

    /// Drops the oldest letters beyond the bounds; how many.
    fn bound(&mut self) -> u64 {
        let mut dropped = 0;
        while (self.letters.len() > LETTERS_MAX || self.bytes > LETTERS_BYTES_MAX)
            && let Some(oldest) = self.letters.pop_front()
        {
            self.bytes -= oldest.letter.payload.len();
            dropped += 1;
        }
        dropped
    }
}

/// The thread that sends.
struct Lane {
    topic: Topic,
    producer: ThreadedProducer<Sender>,
    queue: Arc<Queue>,
    observer: Arc<dyn SourceObserver>,
    /// Why the topic does not take letters.
    problem: Option<String>,
    /// Letters given to the producer.
    tickets: usize,
    _alive: mpsc::Sender<()>,
}

impl Lane {
    fn run(mut self) {
        let mut failures = 0;
        loop {
            if self.problem.is_some() || self.queue.is_empty() {
                let problem = self.topic.look().err();
                // While letters wait, only their delivery shows that the topic takes them again.
                if problem.is_some() || self.queue.is_empty() {
                    self.note(problem);
                }
            }
            let batch = self.queue.lock().take();
            if !batch.is_empty() {
                let problem = self.send(batch);
                self.note(problem);
            }
            let stopped = if self.problem.is_some() {
                failures += 1;
                self.queue.wait(RETRY.wait(failures), |_| false)
            } else {
                failures = 0;
                self.queue.wait(LOOK_WAIT, |waiting| !waiting.letters.is_empty())
            };
            if stopped && (self.problem.is_some() || self.queue.is_empty()) {
                return;
            }
        }
    }

    /// Notes why the topic does not take letters, or that it does.
    fn note(&mut self, problem: Option<String>) {
        let topic = &*self.topic.name;
        match (&self.problem, &problem) {
            (before, Some(reason)) if before.as_ref() != Some(reason) => {
                tracing::error!(topic, reason, "dead letters are not sent to their topic; the table has them");
            }
            (Some(_), None) => tracing::info!(topic, "dead letters are sent to their topic again"),
            _ => {}
        }
        self.observer.condition(Condition::DeadLetterTopic, "", problem.is_some());
        self.problem = problem;
    }

    /// Sends `batch` and puts back what the topic did not take. The reason, if there is one.
    fn send(&mut self, batch: Vec<Letter>) -> Option<String> {
        let first = self.tickets;
        let mut results: Vec<Option<KafkaResult<()>>> = batch.iter().map(|_| None).collect();
        for (letter, result) in batch.iter().zip(&mut results) {
            let ticket = self.tickets;
            self.tickets += 1;
            if let Err(error) = self.give(letter, ticket) {
                *result = Some(Err(error));
            }
        }
        let flushed = self.producer.flush(FLUSH_WAIT);
        for (ticket, result) in unpoisoned(&self.producer.context().delivered).drain(..) {
            // An earlier ticket is of a letter that has been sent again.
            if let Some(slot) = ticket.checked_sub(first).and_then(|at| results.get_mut(at)) {
                *slot = Some(result);
            }
        }
        let mut problem = None;
        let mut left = Vec::new();
        for (mut letter, result) in batch.into_iter().zip(results) {
            let error = match result {
                Some(Ok(())) => continue,
                Some(Err(error)) => error,
                None => flushed.clone().err().unwrap_or(KafkaError::Flush(RDKafkaErrorCode::MessageTimedOut)),
            };
            let length = letter.letter.payload.len();
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) && length > LETTER_BYTES_MIN {
                letter.letter.payload.truncate((length / 2).max(LETTER_BYTES_MIN));
            } else {
                problem = Some(error.to_string());
            }
            left.push(letter);
        }
        if !left.is_empty() {
            let mut waiting = self.queue.lock();
            waiting.put_back(left);
            let dropped = waiting.bound();
            drop(waiting);
            if dropped > 0 {
                self.observer.letters_dropped(dropped);
            }
        }
        problem
    }

    fn give(&self, letter: &Letter, ticket: usize) -> KafkaResult<()> {
        let Letter { letter: DeadLetter { position, reason, at, payload, .. }, length } = letter;
        let place = at.map_or_else(String::new, |at| at.to_string());
        let (partition, offset) = (position.partition.to_string(), position.offset.to_string());
        let mut headers = [
            ("source_topic", position.topic.as_bytes()),
            ("source_partition", partition.as_bytes()),
            ("source_offset", offset.as_bytes()),
            ("reason", reason.as_bytes()),
            ("place", place.as_bytes()),
        ]
        .into_iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        if payload.len() < *length {
            headers = headers.insert(Header { key: "cut_from_bytes", value: Some(&length.to_string()) });
        }
        let key = format!("{}/{partition}/{offset}", position.topic);
        let record = BaseRecord::with_opaque_to(&self.topic.name, ticket).key(&key).payload(payload).headers(headers);
        self.producer.send(record).map_err(|(error, _)| error)
    }
}

fn producer(mut config: ClientConfig) -> Result<ThreadedProducer<Sender>, SourceError> {
    // A letter that comes twice has the same key; sequence numbers, which would prevent it, can break the producer.
    config.set("enable.idempotence", "false").set("acks", "all").set("linger.ms", "5");
    config.set("message.timeout.ms", ACKNOWLEDGE_WAIT_MS).set("request.timeout.ms", "5000");
    // librdkafka tries again for as long as `message.timeout.ms`, and the reason is lost; the thread tries again too.
    config.set("retries", "1").set("topic.metadata.propagation.max.ms", "5000");
    ThreadedProducer::from_config_and_context(&config, Sender::default()).map_err(misconfigured)
}

/// The topic itself.
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) admin: AdminClient<Sender>,
}

impl Topic {
    pub(super) fn open(settings: &KafkaSettings) -> Result<Self, SourceError> {
        let name = format!("{}.dead-letters", settings.prefix);
        let config = settings.client_config()?;
        let admin = AdminClient::from_config_and_context(&config, Sender::default()).map_err(misconfigured)?;
        Ok(Self { name, admin })
    }

    /// Whether letters can be sent, as far as can be seen without sending one; makes the topic where it is missing.
    fn look(&self) -> Result<(), String> {
        match describe(self.admin.inner(), &[&self.name], ANSWER_WAIT).as_deref() {
            Ok([Ok(found)]) if found.may.is_some_and(|may| !may.write) => Err(FORBIDDEN.to_owned()),
            // Who may write may describe.
            Ok([Err(RDKafkaErrorCode::TopicAuthorizationFailed)]) => Err(FORBIDDEN.to_owned()),
            Ok([Err(RDKafkaErrorCode::UnknownTopicOrPartition)]) => {
                self.create().map_err(|reason| format!("it does not exist, and was not created: {reason}"))
            }
            // What cannot be asked now shows when a letter is sent.
            _ => Ok(()),
        }
    }

    /// Makes the topic, if it is missing: one partition, with the brokers' default of replicas.
    pub(super) fn create(&self) -> Result<(), String> {
        let topic = NewTopic::new(&self.name, 1, TopicReplication::Fixed(-1))
            .set("cleanup.policy", "delete")
            .set("retention.ms", RETENTION_MS);
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WAIT));
        let results = futures::executor::block_on(self.admin.create_topics([&topic], &options));
        for result in results.map_err(|error| error.to_string())? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(code.to_string()),
            }
        }
        Ok(())
    }
}

/// Notes what became of the letters.
#[derive(Default)]
pub(super) struct Sender {
    delivered: Mutex<Vec<(usize, KafkaResult<()>)>>,
}

impl ClientContext for Sender {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Sender {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivered: &DeliveryResult<'_>, ticket: usize) {
        let result = delivered.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        unpoisoned(&self.delivered).push((ticket, result));
    }
}
