//! Requests to brokers that may take seconds, on a thread of their own. The polling thread must not wait, because the
//! group would take its partitions away.

use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::answer::{Answer, Found, Wanted};
use super::member::Member;
use super::native::{Description, describe};
use super::restore::Restorers;
use super::resume::{First, Left, Log, Resume, resume};
use super::settings::ANSWER_WAIT;
use crate::checkpoint::{Position, TopicId};
use crate::port::{GapKind, StateRestorer};
use crate::retry::RetryPolicy;

/// Retries of the lookup of start offsets. The first wait must be at least one second, see [`Thread::suspected`].
const RETRY: RetryPolicy = RetryPolicy::new(Duration::from_secs(2), Duration::from_secs(5));
/// Time limit for one partition if the request for all partitions fails.
const PARTITION_WAIT: Duration = Duration::from_secs(2);
/// Prefix of the metadata of a committed offset; the topic's id follows.
const METADATA_PREFIX: &str = "topic-id=";

/// The thread and its channels. It ends when this is dropped.
pub(super) struct Lookup {
    asks: Sender<Ask>,
    answers: Receiver<Answer>,
}

/// How to answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) remember_messages_max: i64,
    pub(super) first: First,
}

enum Ask {
    Partitions(Vec<Wanted>),
    Forget(Arc<str>, i32),
    Topics(Vec<Arc<str>>),
}

impl Lookup {
    pub(super) fn start(
        consumer: &Arc<BaseConsumer<Member>>,
        policy: Policy,
        restorer: Option<&Arc<dyn StateRestorer>>,
    ) -> std::io::Result<Self> {
        let (asks, asked) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let restorers = restorer.map(|restorer| Restorers::start(restorer, &answer)).transpose()?;
        let thread = Thread {
            consumer: Arc::downgrade(consumer),
            policy,
            restorers,
            wanted: Vec::new(),
            suspected: BTreeSet::new(),
            known: HashMap::new(),
            answer,
        };
        std::thread::Builder::new().name("kafka-lookup".to_owned()).spawn(move || thread.serve(&asked))?;
        Ok(Self { asks, answers })
    }

    /// Requests the start offsets of `partitions`. Retries until each has an answer or is released.
    pub(super) fn want(&self, partitions: Vec<Wanted>) {
        // The thread ends only after this.
        let _ = self.asks.send(Ask::Partitions(partitions));
    }

    pub(super) fn forget(&self, topic: &Arc<str>, partition: i32) {
        let _ = self.asks.send(Ask::Forget(Arc::clone(topic), partition));
    }

    /// Requests once the existence, permissions and ids of `topics`.
    pub(super) fn ask_topics(&self, topics: Vec<Arc<str>>) {
        let _ = self.asks.send(Ask::Topics(topics));
    }

    /// The next answer, without waiting.
    pub(super) fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

/// Metadata of a committed offset.
pub(super) fn metadata(topic_id: TopicId) -> String {
    if topic_id == TopicId::NONE { String::new() } else { format!("{METADATA_PREFIX}{topic_id}") }
}

/// The topic of a committed offset; none for metadata of other programs.
fn topic_of(metadata: &str) -> TopicId {
    metadata.strip_prefix(METADATA_PREFIX).and_then(|id| id.parse().ok()).unwrap_or(TopicId::NONE)
}

struct Thread {
    consumer: Weak<BaseConsumer<Member>>,
    policy: Policy,
    /// `None`: states are not restored.
    restorers: Option<Restorers>,
    wanted: Vec<Wanted>,
    /// Partitions whose offset was beyond the end at the last lookup. A new leader may briefly report an end that is
    /// too low, so only the second time counts.
    suspected: BTreeSet<(Arc<str>, i32)>,
    /// The last known topic id of each partition.
    known: HashMap<(Arc<str>, i32), TopicId>,
    answer: Sender<Answer>,
}

impl Thread {
    fn serve(mut self, asked: &Receiver<Ask>) {
        let mut failures = 0;
        loop {
            let next = if self.wanted.is_empty() {
                failures = 0;
                asked.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                failures += 1;
                asked.recv_timeout(RETRY.wait(failures))
            };
            match next {
                Ok(ask) => self.take(ask),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Combine the requests of partitions that were assigned one after another.
            while let Ok(ask) = asked.try_recv() {
                self.take(ask);
            }
            if self.wanted.is_empty() {
                continue;
            }
            let Some(consumer) = self.consumer.upgrade() else { return };
            if let Err(error) = self.look_up(&consumer) {
                tracing::warn!(%error, "offsets not known yet; retrying");
            }
        }
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Partitions(partitions) => {
                for partition in partitions {
                    self.drop_wanted(&partition.topic, partition.partition);
                    self.wanted.push(partition);
                }
            }
            Ask::Forget(topic, partition) => self.drop_wanted(&topic, partition),
            Ask::Topics(topics) => self.look_at(&topics),
        }
    }

    fn drop_wanted(&mut self, topic: &Arc<str>, partition: i32) {
        self.wanted.retain(|wanted| wanted.partition != partition || wanted.topic != *topic);
        self.suspected.remove(&(Arc::clone(topic), partition));
    }

    /// Reports the existence and permissions of the topics. If the brokers do not answer, there is no report.
    fn look_at(&self, topics: &[Arc<str>]) {
        let Some(consumer) = self.consumer.upgrade() else { return };
        let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        match describe(consumer.client(), &names, ANSWER_WAIT) {
            Ok(found) => {
                for (topic, found) in topics.iter().zip(found) {
                    let found = found.and_then(|found| match found.may {
                        Some(may) if !may.read => Err(RDKafkaErrorCode::TopicAuthorizationFailed),
                        _ => Ok(found.id),
                    });
                    let _ = self.answer.send(Answer::Topic { topic: Arc::clone(topic), found });
                }
            }
            Err(error) => tracing::debug!(%error, "topics not described"),
        }
    }

    /// One attempt for all requests. Found ones are answered, the others remain.
    fn look_up(&mut self, consumer: &BaseConsumer<Member>) -> KafkaResult<()> {
        let ids = self.topic_ids(consumer)?;
        let mut partitions = TopicPartitionList::with_capacity(self.wanted.len());
        for wanted in self.wanted.iter().filter(|wanted| ids.contains_key(&wanted.topic)) {
            partitions.add_partition(&wanted.topic, wanted.partition);
        }
        if partitions.count() == 0 {
            return Ok(());
        }
        let committed = consumer.committed_offsets(partitions.clone(), ANSWER_WAIT)?;
        let logs = logs(consumer, &partitions, &ids);
        let mut still = Vec::new();
        for wanted in std::mem::take(&mut self.wanted) {
            let log = logs.get(&(Arc::clone(&wanted.topic), wanted.partition)).copied();
            let left = match wanted.stalled {
                Some(left) => Ok(Some(left)),
                None => left(&committed, &wanted.topic, wanted.partition),
            };
            match (log, left) {
                (Some(log), Ok(left)) => still.extend(self.decide(wanted, log, left)),
                _ => still.push(wanted),
            }
        }
        self.wanted = still;
        Ok(())
    }

    /// Answers `wanted`, or returns it for another lookup.
    fn decide(&mut self, wanted: Wanted, log: Log, left: Option<Left>) -> Option<Wanted> {
        let mut resume = resume(left, log, self.policy.remember_messages_max, self.policy.first);
        let partition = (Arc::clone(&wanted.topic), wanted.partition);
        if resume.gap == Some(GapKind::BeyondEnd) && self.suspected.insert(partition.clone()) {
            return Some(wanted);
        }
        self.suspected.remove(&partition);
        let before = self.known.insert(partition, log.topic_id).unwrap_or_default();
        if left.is_none() && before.is_other_than(log.topic_id) {
            // The group's offsets were deleted with the topic.
            resume = Resume::anew(log, Some(GapKind::Recreated));
        }
        if wanted.stalled.is_some() {
            // The client cannot continue from an offset inside the log, because different messages follow it than
            // before.
            let gap = resume.gap.unwrap_or(GapKind::Truncated);
            resume = Resume::anew(log, Some(gap));
        }
        let left = left.map(|left| left.offset);
        let found = Found { wanted, left, log, resume };
        match &self.restorers {
            Some(restorers) if found.wanted.stalled.is_none() => restorers.restore(found),
            _ => _ = self.answer.send(Answer::Partition(found)),
        }
        None
    }

    /// The ids of all existing topics of the requests; none if the brokers do not support ids.
    fn topic_ids(&self, consumer: &BaseConsumer<Member>) -> KafkaResult<HashMap<Arc<str>, TopicId>> {
        let topics: BTreeSet<Arc<str>> = self.wanted.iter().map(|wanted| Arc::clone(&wanted.topic)).collect();
        let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        match describe(consumer.client(), &names, ANSWER_WAIT) {
            Ok(found) => {
                let known = topics.iter().cloned().zip(found);
                Ok(known
                    .filter_map(|(topic, found)| Some((topic, found.map(|Description { id, .. }| id).ok()?)))
                    .collect())
            }
            Err(RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion) => {
                Ok(topics.into_iter().map(|topic| (topic, TopicId::NONE)).collect())
            }
            Err(error) => Err(KafkaError::MetadataFetch(error)),
        }
    }
}

/// The offset committed for a partition, if there is one.
pub(super) fn left(committed: &TopicPartitionList, topic: &str, partition: i32) -> KafkaResult<Option<Left>> {
    let element = committed.find_partition(topic, partition);
    let element = element.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition))?;
    element.error()?;
    Ok(match element.offset() {
        Offset::Offset(offset) => Some(Left { offset, topic_id: topic_of(element.metadata()) }),
        _ => None,
    })
}

/// The logs of those `partitions` that the brokers report.
pub(super) fn logs(
    consumer: &BaseConsumer<Member>,
    partitions: &TopicPartitionList,
    ids: &HashMap<Arc<str>, TopicId>,
) -> HashMap<(Arc<str>, i32), Log> {
    // As a time, −2 means the earliest offset and −1 the one after the last. librdkafka uses the same numbers for
    // `Beginning` and `End`.
    let at = |which| {
        let mut asked = partitions.clone();
        asked.set_all_offsets(which)?;
        consumer.offsets_for_times(asked, ANSWER_WAIT)
    };
    let ends = at(Offset::Beginning).and_then(|low| Ok((low, at(Offset::End)?)));
    let mut logs = HashMap::new();
    for partition in partitions.elements() {
        let (topic, number) = (partition.topic(), partition.partition());
        let Some((topic, id)) = ids.get_key_value(topic) else { continue };
        let offset = |list: &TopicPartitionList| {
            let element = list.find_partition(topic, number)?;
            element.error().ok()?;
            if let Offset::Offset(offset) = element.offset() { Some(offset) } else { None }
        };
        let ends = match &ends {
            Ok((low, high)) => offset(low).zip(offset(high)),
            // One partition without a leader makes the request for all fail.
            Err(_) => consumer.fetch_watermarks(topic, number, PARTITION_WAIT).ok(),
        };
        if let Some((low, high)) = ends {
            logs.insert((Arc::clone(topic), number), Log { low, high: high.max(low), topic_id: *id });
        }
    }
    logs
}

/// Adds the offset to be committed, with its topic's id as metadata.
pub(super) fn add(offsets: &mut TopicPartitionList, position: &Position, offset: i64) -> KafkaResult<()> {
    let mut element = offsets.add_partition(&position.topic, position.partition);
    element.set_offset(Offset::Offset(offset))?;
    element.set_metadata(metadata(position.topic_id));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_of_others_names_no_topic() {
        let id = TopicId([7; 16]);
        assert_eq!(topic_of(&metadata(id)), id);
        assert_eq!(metadata(TopicId::NONE), "");
        for other in ["", "x", "topic-id=", "topic-id=short", "{\"topic-id\":1}", "topic-id=\u{1b}[31m"] {
            assert_eq!(topic_of(other), TopicId::NONE, "{other}");
        }
    }
}
