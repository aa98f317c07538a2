//! A real Apache Kafka of one node or three.

use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::acl::{self, Operation, Permission, Resource};
use super::broker::{Broker, Ports, java};
use super::process::{eventually, read};

const DENY: Permission = Permission::RD_KAFKA_ACL_PERMISSION_TYPE_DENY;

pub(crate) struct Kafka {
    nodes: Vec<Broker>,
    /// Open to all.
    pub brokers: String,
    /// SASL PLAIN, user `tokenwarden`, password `right`.
    pub guarded: String,
}

/// A message as a test reads it back.
pub(crate) struct Read {
    pub key: Vec<u8>,
    pub payload: Vec<u8>,
    pub headers: Vec<(String, String)>,
}

impl Kafka {
    pub(crate) fn start() -> Self {
        Self::of(1)
    }

    /// Three nodes. Topics have three replicas, and a write needs two of them.
    pub(crate) fn start_three() -> Self {
        Self::of(3)
    }

    fn of(count: usize) -> Self {
        let ports: Vec<Ports> = (0..count).map(|_| Ports::free()).collect();
        let nodes = (1..=count).map(|id| Broker::new(id, &ports)).collect();
        let list = |port: fn(&Ports) -> u16| {
            let addresses: Vec<_> = ports.iter().map(|ports| format!("127.0.0.1:{}", port(ports))).collect();
            addresses.join(",")
        };
        let mut kafka = Self { nodes, brokers: list(|ports| ports.open), guarded: list(|ports| ports.guarded) };
        kafka.resume();
        kafka
    }

    /// Kills all brokers; what they have acknowledged stays on disk.
    pub(crate) fn stop(&mut self) {
        self.nodes.iter_mut().for_each(Broker::kill);
    }

    /// Kills the broker that leads the partition.
    pub(crate) fn stop_leader(&mut self, topic: &str, partition: i32) {
        let leader = self.leader(topic, partition).expect("a leader");
        self.nodes[leader as usize - 1].kill();
    }

    /// Number of the broker that leads the partition, as the others report it.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        let consumer: BaseConsumer = self.client().create().expect("a client");
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).ok()?;
        let partitions = metadata.topics().first()?.partitions();
        partitions.iter().find(|found| found.id() == partition).map(MetadataPartition::leader).filter(|id| *id > 0)
    }

    /// Starts the brokers that do not run, and waits until they answer and have all messages.
    pub(crate) fn resume(&mut self) {
        self.nodes.iter_mut().for_each(Broker::start);
        self.nodes.iter().for_each(Broker::wait);
        let consumer: BaseConsumer = self.client().create().expect("a client");
        // A broker that is still starting can close the connection.
        let answers = || {
            let metadata = consumer.fetch_metadata(None, Duration::from_secs(30)).ok()?;
            let mut partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
            let is_whole = metadata.brokers().len() == self.nodes.len();
            (is_whole && partitions.all(|found| found.isr().len() == found.replicas().len())).then_some(())
        };
        eventually(Duration::from_secs(180), "the brokers answer", answers).unwrap_or_else(|| {
            let logs: Vec<_> = self.nodes.iter().map(|node| read(&node.log())).collect();
            panic!("the brokers do not answer:\n{}", logs.join("\n"))
        });
    }

    /// Stops the brokers' processes where they are; their connections stay open.
    pub(crate) fn freeze(&self) {
        self.nodes.iter().for_each(|node| node.signal("-STOP"));
    }

    pub(crate) fn thaw(&self) {
        self.nodes.iter().for_each(|node| node.signal("-CONT"));
    }

    pub(crate) fn create_topic(&self, name: &str, partitions: i32) {
        self.create_topic_with(name, partitions, &[]);
    }

    pub(crate) fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin = self.admin();
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(self.nodes.len() as i32));
        let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let results = futures::executor::block_on(admin.create_topics([&topic], &AdminOptions::new()));
        for result in results.expect("the broker answers") {
            result.expect("the topic is made");
        }
    }

    /// Deletes the topic and waits until it is gone.
    pub(crate) fn delete_topic(&self, name: &str) {
        let results = futures::executor::block_on(self.admin().delete_topics(&[name], &AdminOptions::new()));
        for result in results.expect("the broker answers") {
            result.expect("the topic is deleted");
        }
        eventually(Duration::from_secs(20), "the topic is gone", || {
            let consumer: BaseConsumer = self.client().create().expect("a client");
            let metadata = consumer.fetch_metadata(Some(name), Duration::from_secs(10)).ok()?;
            metadata.topics().first().is_none_or(|topic| topic.error().is_some()).then_some(())
        })
        .expect("the topic is gone");
    }

    /// Limits the bytes per second of each producer.
    pub(crate) fn limit_producers(&self, bytes: u64) {
        let limit = format!("producer_byte_rate={bytes}");
        let arguments = ["kafka.admin.ConfigCommand", "--bootstrap-server", &self.brokers, "--alter", "--add-config"];
        let of_all = ["--entity-type", "clients", "--entity-default"];
        let done = java().args(arguments).arg(limit).args(of_all).output().expect("java runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    pub(crate) fn add_partitions(&self, name: &str, count: usize) {
        let more = NewPartitions::new(name, count);
        let results = futures::executor::block_on(self.admin().create_partitions([&more], &AdminOptions::new()));
        for result in results.expect("the broker answers") {
            result.expect("the partitions are made");
        }
        eventually(Duration::from_secs(20), "the partitions are there", || {
            let consumer: BaseConsumer = self.client().create().expect("a client");
            let metadata = consumer.fetch_metadata(Some(name), Duration::from_secs(10)).ok()?;
            (metadata.topics().first()?.partitions().len() == count).then_some(())
        })
        .expect("the partitions are there");
    }

    /// Sets `key` of the topic, and all its other settings to their defaults.
    pub(crate) fn configure_topic(&self, name: &str, key: &str, value: &str) {
        let config = AlterConfig::new(ResourceSpecifier::Topic(name)).set(key, value);
        let results = futures::executor::block_on(self.admin().alter_configs([&config], &AdminOptions::new()));
        for result in results.expect("the broker answers") {
            result.expect("the topic is configured");
        }
    }

    /// Deletes the messages of partition 0 before `offset`.
    pub(crate) fn delete_records(&self, topic: &str, offset: i64) {
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(topic, 0, Offset::Offset(offset)).expect("an offset");
        let deleted = futures::executor::block_on(self.admin().delete_records(&before, &AdminOptions::new()));
        deleted.expect("the broker answers");
    }

    /// Commits `offset` of partition 0 for a group without members, as tools do that copy offsets.
    pub(crate) fn commit(&self, group: &str, topic: &str, offset: i64, metadata: &str) {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().expect("a client");
        let mut offsets = TopicPartitionList::new();
        let mut element = offsets.add_partition(topic, 0);
        element.set_offset(Offset::Offset(offset)).expect("an offset");
        element.set_metadata(metadata);
        consumer.commit(&offsets, CommitMode::Sync).expect("the offset is committed");
    }

    /// What the group has committed for partition 0.
    pub(crate) fn committed(&self, group: &str, topic: &str) -> Option<i64> {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().expect("a client");
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, 0);
        // A broker that has just started is not the coordinator of the group yet.
        let committed = eventually(Duration::from_secs(20), "the broker answers", || {
            consumer.committed_offsets(asked.clone(), Duration::from_secs(10)).ok()
        });
        match committed.expect("the broker answers").elements()[0].offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    /// A member of the group that has all partitions of `topic`, and gives none of them up until it is dropped: it does
    /// not poll any more.
    pub(crate) fn hold_group(&self, group: &str, topic: &str) -> BaseConsumer {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", group)
            .set("partition.assignment.strategy", "range")
            .set("session.timeout.ms", "6000")
            .set("max.poll.interval.ms", "120000")
            .create()
            .expect("a client");
        consumer.subscribe(&[topic]).expect("the topic");
        eventually(Duration::from_secs(30), "the partitions are assigned", || {
            let _ = consumer.poll(Duration::from_millis(100));
            consumer.assignment().is_ok_and(|assigned| assigned.count() > 0).then_some(())
        })
        .expect("the partitions are assigned");
        consumer
    }

    /// Waits until the group has a member with partitions, as the brokers see it.
    pub(crate) fn until_stable(&self, group: &str) {
        let consumer: BaseConsumer = self.client().create().expect("a client");
        eventually(Duration::from_secs(20), "the group is stable", || {
            let groups = consumer.fetch_group_list(Some(group), Duration::from_secs(5)).ok()?;
            groups.groups().iter().any(|group| group.state() == "Stable").then_some(())
        })
        .expect("the group is stable");
    }

    /// Forbids the user of [`Self::guarded`] an operation on a topic, or no longer.
    pub(crate) fn deny(&self, operation: Operation, topic: &str, denied: bool) {
        self.set_rule((DENY, operation), (Resource::RD_KAFKA_RESOURCE_TOPIC, topic), denied);
    }

    /// Permits the user of [`Self::guarded`] an operation on a topic that has other rules.
    pub(crate) fn allow(&self, operation: Operation, topic: &str, allowed: bool) {
        let rule = (Permission::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW, operation);
        self.set_rule(rule, (Resource::RD_KAFKA_RESOURCE_TOPIC, topic), allowed);
    }

    /// Forbids the user of [`Self::guarded`] to create the topic.
    pub(crate) fn deny_creation(&self, topic: &str) {
        let create = Operation::RD_KAFKA_ACL_OPERATION_CREATE;
        // A user may create a topic with a permission for the topic or for the cluster.
        self.set_rule((DENY, create), (Resource::RD_KAFKA_RESOURCE_BROKER, "kafka-cluster"), true);
        self.deny(create, topic, true);
    }

    /// Forbids the user of [`Self::guarded`] a transactional id.
    pub(crate) fn deny_transactions(&self, id: &str) {
        let write = Operation::RD_KAFKA_ACL_OPERATION_WRITE;
        self.set_rule((DENY, write), (Resource::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID, id), true);
    }

    fn set_rule(&self, rule: (Permission, Operation), of: (Resource, &str), exists: bool) {
        acl::set(&self.admin(), rule, of, exists);
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("a client")
    }

    /// Sends (key, payload) pairs in order and waits until the broker has them.
    pub(crate) fn produce<'m>(&self, topic: &str, messages: impl IntoIterator<Item = (&'m str, &'m [u8])>) {
        let producer: BaseProducer = self.client().set("linger.ms", "5").create().expect("a client");
        for (key, payload) in messages {
            let mut record = BaseRecord::to(topic).key(key).payload(payload);
            while let Err((_, back)) = producer.send(record) {
                producer.poll(Duration::from_millis(10));
                record = back;
            }
        }
        producer.flush(Duration::from_secs(30)).expect("the broker takes the messages");
    }

    /// Sends a message with another partitioner than the client's default, and waits until the broker has it.
    pub(crate) fn produce_with(&self, partitioner: &str, topic: &str, key: &str, payload: &[u8]) {
        let producer: BaseProducer = self.client().set("partitioner", partitioner).create().expect("a client");
        let record = BaseRecord::to(topic).key(key).payload(payload);
        producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
        producer.flush(Duration::from_secs(30)).expect("the broker takes the message");
    }

    /// All messages of partition 0 that are in the topic now.
    pub(crate) fn read_all(&self, topic: &str) -> Vec<Read> {
        self.read_partition(topic, 0)
    }

    /// All messages of a partition that can be read now, without those of open and aborted transactions.
    pub(crate) fn read_partition(&self, topic: &str, partition: i32) -> Vec<Read> {
        let mut config = self.client();
        config.set("group.id", format!("reader of all of {topic}")).set("enable.partition.eof", "true");
        // The result of a commit ends a poll.
        config.set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().expect("a client");
        let mut start = TopicPartitionList::new();
        start.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
        consumer.assign(&start).expect("the topic is read");
        let mut all = Vec::new();
        loop {
            match consumer.poll(Duration::from_secs(20)).expect("the broker answers") {
                Ok(message) => all.push(read_message(&message)),
                Err(KafkaError::PartitionEOF(_)) => return all,
                Err(error) => panic!("{topic}: {error}"),
            }
        }
    }

    /// Sends payloads to one partition in order, and waits until the broker has them.
    pub(crate) fn produce_to<'m>(&self, topic: &str, partition: i32, payloads: impl IntoIterator<Item = &'m [u8]>) {
        let producer: BaseProducer = self.client().create().expect("a client");
        for payload in payloads {
            let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(payload);
            producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
        }
        producer.flush(Duration::from_secs(30)).expect("the broker takes the messages");
    }

    /// The first `count` messages of `topic`, or as many as come within ten seconds.
    pub(crate) fn consume(&self, topic: &str, count: usize) -> Vec<Read> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", format!("reader of {topic}"))
            .set("auto.offset.reset", "earliest")
            .create()
            .expect("a client");
        consumer.subscribe(&[topic]).expect("the topic");
        let mut read = Vec::new();
        for _ in 0..100 {
            while let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                read.push(read_message(&message));
                if read.len() == count {
                    return read;
                }
            }
        }
        read
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }
}

/// A reader of what is appended to `topic` from now on.
pub(crate) fn end_reader(client: &ClientConfig, topic: &str, partitions: i32) -> BaseConsumer {
    let consumer: BaseConsumer = client
        .clone()
        .set("group.id", "reader of the end")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a client");
    let mut ends = TopicPartitionList::new();
    for partition in 0..partitions {
        let (_, end) =
            consumer.fetch_watermarks(topic, partition, Duration::from_secs(10)).expect("the broker answers");
        ends.add_partition_offset(topic, partition, Offset::Offset(end)).expect("an offset");
    }
    consumer.assign(&ends).expect("the topic is read");
    consumer
}

/// Milliseconds from the appending of each original message to now, when its copy is read.
pub(crate) fn delays(consumer: &BaseConsumer, count: usize) -> Vec<i64> {
    let mut delays = Vec::new();
    while delays.len() < count {
        let message = consumer.poll(Duration::from_secs(20)).expect("a message");
        // The client retries.
        let Ok(message) = message else { continue };
        let read = read_message(&message);
        let appended = read.headers.iter().find(|(key, _)| key == "source_append_time").map(|(_, value)| value.parse());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_millis();
        delays.push(now as i64 - appended.expect("a header").unwrap_or(0_i64));
    }
    delays
}

fn read_message(message: &BorrowedMessage<'_>) -> Read {
    let headers = message.headers().map(|headers| {
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
    });
    let bytes = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
    Read { key: bytes(message.key()), payload: bytes(message.payload()), headers: headers.unwrap_or_default() }
}
