//! The consumer's callbacks: they note what happens, for the thread that polls to serve.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;

use super::LagReport;

/// What the callbacks leave for the thread that polls.
#[derive(Default)]
pub(super) struct Member {
    rebalances: Mutex<Vec<Rebalance>>,
    last_error: Mutex<Option<String>>,
    /// The broker refused our credentials.
    pub(super) refused: AtomicBool,
    pub(super) closing: AtomicBool,
    lag: Option<LagReport>,
}

pub(super) enum Rebalance {
    Assigned(TopicPartitionList),
    Revoked(TopicPartitionList),
    Lost(TopicPartitionList),
}

impl Member {
    pub(super) fn reporting(lag: LagReport) -> Self {
        Self { lag: Some(lag), ..Self::default() }
    }

    pub(super) fn take_rebalance(&self) -> Option<Rebalance> {
        let mut rebalances = unpoisoned(&self.rebalances);
        (!rebalances.is_empty()).then(|| rebalances.remove(0))
    }

    pub(super) fn put_back(&self, rebalance: Rebalance) {
        unpoisoned(&self.rebalances).insert(0, rebalance);
    }

    /// `error`, and what was said before it if that tells more.
    pub(super) fn told(&self, error: &str) -> String {
        match &*unpoisoned(&self.last_error) {
            Some(reason) => reason.clone(),
            None => error.to_owned(),
        }
    }
}

pub(super) fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(RDKafkaErrorCode::Authentication) = error.rdkafka_error_code() {
            self.refused.store(true, Ordering::Relaxed);
        }
        // "all brokers down" follows upon a reason and says less than it.
        if !matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AllBrokersDown)) {
            *unpoisoned(&self.last_error) = Some(reason.to_owned());
        }
    }

    fn stats(&self, statistics: Statistics) {
        let Some(lag) = &self.lag else { return };
        for (name, topic) in &statistics.topics {
            // The number −1 stands for messages that have no partition yet.
            for partition in topic.partitions.values().filter(|partition| partition.partition >= 0) {
                let is_ours = partition.fetch_state == "active" && partition.consumer_lag >= 0;
                lag(name, partition.partition, is_ours.then_some(partition.consumer_lag));
            }
        }
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

/// librdkafka's own log lines, which hold names and addresses but no message.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, said: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(facility, said, "kafka");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(facility, said, "kafka"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, said, "kafka"),
        RDKafkaLogLevel::Debug => tracing::debug!(facility, said, "kafka"),
    }
}
