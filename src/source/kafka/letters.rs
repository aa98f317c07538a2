//! The topic of dead letters. A separate thread writes to it, so that an unavailable topic delays nothing. The table
//! `dead_letters` contains all dead letters.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};

use super::connect::misconfigured;
use super::member::log;
use super::own_topic::{OwnTopic, Results};
use super::settings::KafkaSettings;
use crate::checkpoint::DeadLetter;
use crate::lock::unpoisoned;
use crate::port::{Condition, SourceError, SourceObserver};
use crate::retry::RetryPolicy;

/// Maximum number of waiting letters, and of their bytes. Beyond either, the oldest are dropped.
const LETTERS_MAX: usize = 10_000;
const LETTERS_BYTES_MAX: usize = 64 << 20;
/// Letters per batch.
const BATCH_MAX: usize = 100;
/// A longer dead letter is cut in its topic: brokers and librdkafka accept 1,000,000 bytes by default, including
/// headers.
pub(super) const LETTER_BYTES_MAX: usize = 900_000;
/// A letter that is too large for the topic is halved, down to this length.
const LETTER_BYTES_MIN: usize = 64;
/// Time limit for the brokers to acknowledge a letter.
const ACKNOWLEDGE_WAIT_MS: &str = "10000";
/// The same, with a margin.
const FLUSH_WAIT: Duration = Duration::from_secs(15);
/// Retries of letters that the topic refused.
const RETRY: RetryPolicy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(60));
/// Interval of checks of the topic while there are no letters.
const LOOK_WAIT: Duration = Duration::from_secs(60);
/// Time limit for the last letters at a stop.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// Receives messages that cannot be decoded.
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
    /// Length of its payload before it was cut, bytes.
    length: usize,
}

impl DeadLetterTopic {
    /// Starts the thread, which creates the topic if it is missing and the ACL permits it. Fails only for invalid
    /// settings.
    pub(super) fn open(settings: &KafkaSettings, observer: Arc<dyn SourceObserver>) -> Result<Self, SourceError> {
        let queue = Arc::new(Queue::default());
        let (alive, ended) = mpsc::channel();
        let lane = Lane {
            topic: OwnTopic::letters(settings)?,
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

    /// Queues `letters` for the topic.
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

    /// Lets the thread end when the queue is empty.
    pub(super) fn stop(&self) {
        self.queue.lock().stopped = true;
        self.queue.changed.notify_one();
    }
}

impl Drop for DeadLetterTopic {
    fn drop(&mut self) {
        self.stop();
        // A thread that waits longer for a broker ends with the process.
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

    /// Waits for `until`, a stop, or at most `wait`. Returns whether it is stopped.
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

    /// Puts unsent letters back at the front.
    fn put_back(&mut self, letters: Vec<Letter>) {
        for letter in letters.into_iter().rev() {
            self.bytes += letter.letter.payload.len();
            self.letters.push_front(letter);
        }
    }

    /// Drops the oldest letters beyond the limits; returns their number.
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

/// The sending thread.
struct Lane {
    topic: OwnTopic,
    producer: ThreadedProducer<Results<usize>>,
    queue: Arc<Queue>,
    observer: Arc<dyn SourceObserver>,
    /// Why the topic refuses letters.
    problem: Option<String>,
    /// Number of letters passed to the producer.
    tickets: usize,
    _alive: mpsc::Sender<()>,
}

impl Lane {
    fn run(mut self) {
        let mut failures = 0;
        loop {
            if self.problem.is_some() || self.queue.is_empty() {
                let problem = self.topic.look().err();
                // While letters wait, only a delivery shows that the topic accepts them again.
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

    /// Records whether the topic accepts letters.
    fn note(&mut self, problem: Option<String>) {
        let topic = &*self.topic.name;
        match (&self.problem, &problem) {
            (before, Some(reason)) if before.as_ref() != Some(reason) => {
                tracing::error!(
                    topic,
                    reason,
                    "dead letters are not sent to their topic; the table dead_letters has them"
                );
            }
            (Some(_), None) => tracing::info!(topic, "dead letters are sent to their topic again"),
            _ => {}
        }
        self.observer.condition(Condition::DeadLetterTopic, "", problem.is_some());
        self.problem = problem;
    }

    /// Sends `batch` and puts back refused letters. Returns the reason, if there is one.
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
        for (ticket, result) in self.producer.context().take() {
            // An earlier ticket belongs to a letter that was sent again.
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

fn producer(mut config: ClientConfig) -> Result<ThreadedProducer<Results<usize>>, SourceError> {
    // A repeated letter has the same key. Sequence numbers would prevent repetition, but can break the producer.
    config.set("enable.idempotence", "false").set("acks", "all").set("linger.ms", "5");
    config.set("message.timeout.ms", ACKNOWLEDGE_WAIT_MS).set("request.timeout.ms", "5000");
    // librdkafka retries for `message.timeout.ms` and loses the reason, so this thread retries instead.
    config.set("retries", "1").set("topic.metadata.propagation.max.ms", "5000");
    ThreadedProducer::from_config_and_context(&config, Results::new(log)).map_err(misconfigured)
}
