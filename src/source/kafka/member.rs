//! Callbacks of the consumer. They record events for the polling thread.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;

use crate::lock::unpoisoned;
use crate::port::{Condition, SourceObserver};

/// Brokers that have sent nothing for this long, in microseconds, count as unavailable.
const SILENCE_US_MAX: i64 = 15_000_000;

/// What a member of the group does with messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Scorer,
    /// Forwards them, and commits their offsets in transactions.
    Forwarder,
}

/// Events for the polling thread.
#[derive(Default)]
pub(super) struct Member {
    rebalances: Mutex<Vec<Rebalance>>,
    status: Mutex<Option<GroupStatus>>,
    last_error: Mutex<Option<String>>,
    /// The broker refused our credentials.
    pub(super) refused: AtomicBool,
    pub(super) closing: AtomicBool,
    /// When a broker last sent data, in microseconds of librdkafka's clock; 0 before the first statistics.
    answered_at: AtomicI64,
    observer: Option<Arc<dyn SourceObserver>>,
    /// Its offsets are committed by a producer, so that the client does not know them.
    is_forwarder: bool,
}

/// librdkafka's statistics of the group and its partitions.
#[derive(Default)]
pub(super) struct GroupStatus {
    /// The last rebalance is complete.
    pub(super) steady: bool,
    pub(super) partitions: Vec<Fetching>,
}

pub(super) struct Fetching {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// The partition is not being fetched.
    pub(super) idle: bool,
    /// All messages before this offset have been processed.
    pub(super) handed_over: i64,
}

pub(super) enum Rebalance {
    Assigned(TopicPartitionList),
    Revoked(TopicPartitionList),
    Lost(TopicPartitionList),
}

impl Member {
    pub(super) fn reporting(observer: Arc<dyn SourceObserver>, role: Role) -> Self {
        Self { observer: Some(observer), is_forwarder: role == Role::Forwarder, ..Self::default() }
    }

    pub(super) fn take_rebalance(&self) -> Option<Rebalance> {
        let mut rebalances = unpoisoned(&self.rebalances);
        (!rebalances.is_empty()).then(|| rebalances.remove(0))
    }

    /// Whether a rebalance is pending.
    pub(super) fn is_rebalancing(&self) -> bool {
        !unpoisoned(&self.rebalances).is_empty()
    }

    pub(super) fn take_status(&self) -> Option<GroupStatus> {
        unpoisoned(&self.status).take()
    }

    /// The last error that the client reported, which is more specific; otherwise `error`.
    pub(super) fn explained(&self, error: &str) -> String {
        match &*unpoisoned(&self.last_error) {
            Some(reason) => reason.clone(),
            None => error.to_owned(),
        }
    }
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(RDKafkaErrorCode::Authentication) = error.rdkafka_error_code() {
            self.refused.store(true, Ordering::Relaxed);
        }
        // "all brokers down" follows a more specific error.
        if !matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AllBrokersDown)) {
            *unpoisoned(&self.last_error) = Some(reason.to_owned());
        }
    }

    fn stats(&self, statistics: Statistics) {
        let Some(observer) = &self.observer else { return };
        let idle = statistics.brokers.values().map(|broker| broker.rxidle).filter(|idle| *idle >= 0).min();
        let before = match self.answered_at.load(Ordering::Relaxed) {
            0 => statistics.ts,
            before => before,
        };
        let answered_at = idle.map_or(before, |idle| before.max(statistics.ts - idle));
        self.answered_at.store(answered_at, Ordering::Relaxed);
        observer.condition(Condition::Broker, "", statistics.ts - answered_at > SILENCE_US_MAX);
        let steady = statistics.cgrp.as_ref().is_some_and(|group| group.join_state == "steady");
        let mut status = GroupStatus { steady, partitions: Vec::new() };
        for (name, topic) in &statistics.topics {
            // The number −1 stands for messages without a partition.
            for partition in topic.partitions.values().filter(|partition| partition.partition >= 0) {
                // Fetched messages that are still queued are not handed over.
                let handed_over = if partition.fetchq_cnt == 0 { partition.next_offset } else { 0 };
                let lag = if self.is_forwarder {
                    partition.ls_offset - handed_over.max(partition.app_offset)
                } else {
                    partition.consumer_lag
                };
                let is_ours = partition.fetch_state == "active" && lag >= 0;
                observer.lag(name, partition.partition, is_ours.then_some(lag));
                status.partitions.push(Fetching {
                    topic: name.clone(),
                    partition: partition.partition,
                    idle: partition.fetch_state == "none",
                    handed_over,
                });
            }
        }
        *unpoisoned(&self.status) = Some(status);
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let assigned = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Relaxed) {
            let _ = match consumer.rebalance_protocol() {
                RebalanceProtocol::Cooperative if assigned => Ok(()),
                RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
                _ => consumer.unassign(),
            };
            return;
        }
        let partitions = partitions.clone();
        unpoisoned(&self.rebalances).push(if assigned {
            Rebalance::Assigned(partitions)
        } else if consumer.assignment_lost() {
            Rebalance::Lost(partitions)
        } else {
            Rebalance::Revoked(partitions)
        });
    }
}

/// librdkafka's log lines, which contain names and addresses but no message. Its debug contexts are omitted, because
/// they trace authentication and requests.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, said: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(facility, said, "kafka");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(facility, said, "kafka"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, said, "kafka"),
        RDKafkaLogLevel::Debug => {}
    }
}
