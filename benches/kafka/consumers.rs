//! The two consumers with which the service is compared. Each runs in a process of its own.

#![expect(
    unsafe_code,
    reason = "librdkafka's batch call has no safe interface in `rdkafka`; every block states why it is sound"
)]

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::process::Command;
use std::ptr;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::support::engine::{RESULT, cpu_seconds};
use super::{PARTITIONS, TOPIC};

/// Parts of the two processes.
pub(crate) const BARE: &str = "bare";
pub(crate) const NAIVE: &str = "naive";
/// Variable with the task of a process.
const TASK: &str = "TOKENWARDEN_BENCH_TASK";
/// Messages per batch of the bare consumer.
const BATCH: usize = 1_000;

#[derive(Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) brokers: String,
    pub(crate) events: usize,
    /// Name of the consumer group, and of the topic of verdicts.
    pub(crate) name: String,
}

impl Task {
    pub(crate) fn hand_to(&self, command: &mut Command) {
        command.env(TASK, serde_json::to_string(self).expect("JSON"));
    }

    pub(crate) fn received() -> Self {
        serde_json::from_str(&std::env::var(TASK).expect("a task")).expect("a task")
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("group.id", &self.name).set("auto.offset.reset", "earliest");
        config
    }
}

/// Time and CPU time from the first message on.
struct Clock(Option<(Instant, f64)>);

impl Clock {
    fn start(&mut self) {
        self.0.get_or_insert_with(|| (Instant::now(), cpu_seconds("self")));
    }

    fn print(&self) {
        let (began, cpu) = self.0.expect("a message arrived");
        println!("{RESULT}{} {}", began.elapsed().as_secs_f64(), cpu_seconds("self") - cpu);
    }
}

/// Reads all messages in batches, and nothing else.
pub(crate) fn bare(task: &Task) {
    let consumer: BaseConsumer = task.client().set("enable.auto.commit", "false").create().expect("a consumer");
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset(TOPIC, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&partitions).expect("the partitions");
    // SAFETY: the consumer lives until the end of this function, and the queue is destroyed before.
    let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
    let (mut clock, mut read, mut bytes) = (Clock(None), 0, 0);
    let mut batch = [ptr::null_mut(); BATCH];
    while read < task.events {
        // SAFETY: `batch` has room for `BATCH` pointers.
        let count = unsafe { sys::rd_kafka_consume_batch_queue(queue, 100, batch.as_mut_ptr(), BATCH) };
        for message in &batch[..usize::try_from(count).expect("no error")] {
            // SAFETY: librdkafka has written the first `count` pointers. Each message is destroyed once.
            unsafe {
                if (**message).err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                    read += 1;
                    bytes += (**message).len;
                }
                sys::rd_kafka_message_destroy(*message);
            }
        }
        if read > 0 {
            clock.start();
        }
    }
    black_box(bytes);
    clock.print();
    // SAFETY: the queue is not used again.
    unsafe { sys::rd_kafka_queue_destroy(queue) };
}

/// A consumer as it is often written: `StreamConsumer`, `serde_json::Value`, a map of addresses by token, and a verdict
/// per event to another topic.
pub(crate) fn naive(task: &Task) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let consumer: StreamConsumer = task.client().create().expect("a consumer");
        consumer.subscribe(&[TOPIC]).expect("the topic");
        let producer: FutureProducer = task.client().set("linger.ms", "5").create().expect("a producer");
        let verdicts = format!("verdicts-of-{}", task.name);
        let mut addresses: HashMap<String, HashSet<String>> = HashMap::new();
        let (mut clock, mut read) = (Clock(None), 0);
        while read < task.events {
            let message = consumer.recv().await.expect("a message");
            clock.start();
            read += 1;
            let event: Value = serde_json::from_slice(message.payload().unwrap_or_default()).expect("JSON");
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            let known = addresses.entry(text("token_id")).or_default();
            let is_new = !known.is_empty() && !known.contains(&text("ip_address"));
            known.insert(text("ip_address"));
            let verdict = json!({
                "event_id": event["event_id"], "token_id": event["token_id"], "timestamp": event["timestamp"],
                "verdict": if is_new { "watch" } else { "allow" }, "score": if is_new { 1.0 } else { 0.1 },
                "signals": if is_new { json!([{ "rule": "new_ip", "observed": event["ip_address"] }]) } else { json!([]) },
            });
            let verdict = verdict.to_string();
            let mut record = FutureRecord::to(&verdicts).key(message.key().unwrap_or_default()).payload(&verdict);
            while let Err((error, back)) = producer.send_result(record) {
                assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
                tokio::time::sleep(Duration::from_millis(1)).await;
                record = back;
            }
        }
        producer.flush(Duration::from_secs(60)).expect("the verdicts are sent");
        consumer.commit_consumer_state(CommitMode::Sync).expect("the offsets are committed");
        clock.print();
    });
}
