//! Calls of librdkafka that `rdkafka` does not provide: the description of topics with their ids, and commits with
//! asynchronous results. (`rdkafka` 0.39 has a callback for commits, but does not enable it in librdkafka.)

#![expect(unsafe_code, reason = "librdkafka is a C library; every block states why it is sound")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;

use super::member::Member;
use crate::checkpoint::TopicId;

/// Description of a topic by the brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Description {
    /// [`TopicId::NONE`] for brokers without topic ids (before Kafka 2.8).
    pub(super) id: TopicId,
    /// Our read and write permissions; `None` if the broker does not report them (no authorizer, or before Kafka 2.3).
    pub(super) may: Option<May>,
    pub(super) partitions: Vec<Partition>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct May {
    pub(super) read: bool,
    pub(super) write: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) number: i32,
    pub(super) has_leader: bool,
    pub(super) replicas: usize,
    pub(super) in_sync_replicas: usize,
}

/// Requests the description of `topics` from the brokers with a `timeout`; a result for each topic, in the order given.
pub(super) fn describe<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    timeout: Duration,
) -> Result<Vec<Result<Description, RDKafkaErrorCode>>, RDKafkaErrorCode> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(*topic).ok()).collect();
    if names.len() != topics.len() {
        // The name of a topic cannot contain a NUL.
        return Err(RDKafkaErrorCode::InvalidTopic);
    }
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    let rk = client.native_ptr();
    // SAFETY: `rk` is valid while `client` is borrowed; the queue and the options belong to it and are destroyed, by
    // their guards, before this function returns. The names live until then too, and librdkafka copies them.
    unsafe {
        let queue = Queue(NonNull::new(sys::rd_kafka_queue_new(rk)).ok_or(RDKafkaErrorCode::Fail)?);
        let options = sys::rd_kafka_AdminOptions_new(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let options = Options(NonNull::new(options).ok_or(RDKafkaErrorCode::Fail)?);
        let mut reason: [c_char; 128] = [0; 128];
        sys::rd_kafka_AdminOptions_set_request_timeout(
            options.0.as_ptr(),
            timeout_ms,
            reason.as_mut_ptr(),
            reason.len(),
        );
        let refused = sys::rd_kafka_AdminOptions_set_include_authorized_operations(options.0.as_ptr(), 1);
        if !refused.is_null() {
            sys::rd_kafka_error_destroy(refused);
        }
        let wanted = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let wanted = Wanted(NonNull::new(wanted).ok_or(RDKafkaErrorCode::Fail)?);
        sys::rd_kafka_DescribeTopics(rk, wanted.0.as_ptr(), options.0.as_ptr(), queue.0.as_ptr());
        // The request times out by itself; one second more is the allowance for its error to arrive.
        let event = sys::rd_kafka_queue_poll(queue.0.as_ptr(), timeout_ms.saturating_add(1_000));
        let event = Event(NonNull::new(event).ok_or(RDKafkaErrorCode::OperationTimedOut)?);
        match failure(sys::rd_kafka_event_error(event.0.as_ptr())) {
            Some(error) => Err(error),
            None => Ok(read(&event, topics)),
        }
    }
}

/// Commits of offsets, and the queue of their results.
pub(super) struct Commits {
    // Dropped before its consumer.
    queue: Queue,
    consumer: Arc<BaseConsumer<Member>>,
    outstanding: usize,
}

/// Result of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) error: Option<RDKafkaErrorCode>,
    pub(super) offsets: Vec<CommittedOffset>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommittedOffset {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) error: Option<RDKafkaErrorCode>,
}

impl Commits {
    pub(super) fn new(consumer: Arc<BaseConsumer<Member>>) -> Option<Self> {
        // SAFETY: the client is valid while `consumer` lives.
        let queue = unsafe { sys::rd_kafka_queue_new(consumer.client().native_ptr()) };
        Some(Self { queue: Queue(NonNull::new(queue)?), consumer, outstanding: 0 })
    }

    /// Sends a commit of `offsets` and does not wait.
    pub(super) fn commit(&mut self, offsets: &TopicPartitionList) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: client and queue are valid; librdkafka copies the offsets; there is no callback.
        let error = unsafe {
            sys::rd_kafka_commit_queue(
                self.consumer.client().native_ptr(),
                offsets.ptr(),
                self.queue.0.as_ptr(),
                None,
                ptr::null_mut(),
            )
        };
        if let Some(code) = failure(error) {
            return Err(code);
        }
        self.outstanding += 1;
        Ok(())
    }

    /// Number of commits without a result so far.
    pub(super) const fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// The next result; waits at most `wait`.
    pub(super) fn answer(&mut self, wait: Duration) -> Option<Committed> {
        let wait_ms = c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the event is ours, and lives until its guard is dropped; the list belongs to it, and has `cnt`
        // elements, each with a text as its topic.
        unsafe {
            let event = Event(NonNull::new(sys::rd_kafka_queue_poll(self.queue.0.as_ptr(), wait_ms))?);
            self.outstanding = self.outstanding.saturating_sub(1);
            let error = failure(sys::rd_kafka_event_error(event.0.as_ptr()));
            let list = sys::rd_kafka_event_topic_partition_list(event.0.as_ptr());
            let elements = match list.as_ref() {
                Some(list) => array(list.elems.cast_const(), usize::try_from(list.cnt).unwrap_or(0)),
                None => &[],
            };
            let offset = |element: &sys::rd_kafka_topic_partition_t| CommittedOffset {
                topic: CStr::from_ptr(element.topic).to_string_lossy().into_owned(),
                partition: element.partition,
                offset: element.offset,
                error: failure(element.err),
            };
            Some(Committed { error, offsets: elements.iter().map(offset).collect() })
        }
    }
}

// SAFETY: librdkafka's queues and clients may be used from any thread (`INTRODUCTION.md`, "Threads and callbacks").
unsafe impl Send for Commits {}

fn failure(error: RDKafkaRespErr) -> Option<RDKafkaErrorCode> {
    (error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| error.into())
}

/// The topics in `event`, in the order of `wanted`.
fn read(event: &Event, wanted: &[&str]) -> Vec<Result<Description, RDKafkaErrorCode>> {
    let mut found: Vec<_> = wanted.iter().map(|_| Err(RDKafkaErrorCode::UnknownTopicOrPartition)).collect();
    // SAFETY: everything reached from the event's result lives as long as the event, which is borrowed; each array has
    // as many elements as its count says, and may be null where that is 0.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0.as_ptr());
        if result.is_null() {
            return found;
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        for topic in array(topics.cast_const(), count) {
            let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(*topic)).to_string_lossy();
            let Some(at) = wanted.iter().position(|wanted| *wanted == name) else { continue };
            let error = sys::rd_kafka_TopicDescription_error(*topic);
            let error = if error.is_null() { None } else { failure(sys::rd_kafka_error_code(error)) };
            found[at] = error.map_or_else(
                || Ok(Description { id: topic_id(*topic), may: permissions(*topic), partitions: partitions(*topic) }),
                Err,
            );
        }
    }
    found
}

/// # Safety
/// `topic` must be of an event that lives.
unsafe fn topic_id(topic: *const sys::rd_kafka_TopicDescription_t) -> TopicId {
    // SAFETY: as the caller promises; the id belongs to the topic and is only read.
    unsafe {
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        if id.is_null() {
            return TopicId::NONE;
        }
        let high = sys::rd_kafka_Uuid_most_significant_bits(id).to_be_bytes();
        let low = sys::rd_kafka_Uuid_least_significant_bits(id).to_be_bytes();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high);
        bytes[8..].copy_from_slice(&low);
        TopicId(bytes)
    }
}

/// # Safety
/// `topic` must be of an event that lives.
unsafe fn permissions(topic: *const sys::rd_kafka_TopicDescription_t) -> Option<May> {
    use sys::rd_kafka_AclOperation_t as Operation;
    // SAFETY: as the caller promises. The operations are C enumerators, so integers, and read as such: a value that the
    // bindings do not know would not be a valid `Operation`.
    let operations = unsafe {
        let mut count = 0;
        let operations = sys::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut count);
        array(operations.cast::<c_int>(), count)
    };
    if operations.is_empty() {
        return None;
    }
    let may = |operation: Operation| {
        operations.contains(&(operation as c_int))
            || operations.contains(&(Operation::RD_KAFKA_ACL_OPERATION_ALL as c_int))
    };
    Some(May { read: may(Operation::RD_KAFKA_ACL_OPERATION_READ), write: may(Operation::RD_KAFKA_ACL_OPERATION_WRITE) })
}

/// # Safety
/// `topic` must be of an event that lives.
unsafe fn partitions(topic: *const sys::rd_kafka_TopicDescription_t) -> Vec<Partition> {
    // SAFETY: as the caller promises; as in `read` for the array.
    unsafe {
        let mut count = 0;
        let partitions = sys::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
        let partitions = array(partitions.cast_const(), count).iter();
        partitions
            .map(|partition| {
                let (mut replicas, mut in_sync_replicas) = (0, 0);
                sys::rd_kafka_TopicPartitionInfo_replicas(*partition, &raw mut replicas);
                sys::rd_kafka_TopicPartitionInfo_isr(*partition, &raw mut in_sync_replicas);
                Partition {
                    number: sys::rd_kafka_TopicPartitionInfo_partition(*partition),
                    has_leader: !sys::rd_kafka_TopicPartitionInfo_leader(*partition).is_null(),
                    replicas,
                    in_sync_replicas,
                }
            })
            .collect()
    }
}

/// # Safety
/// `first` must be null, or the first of `count` elements that live for `'a`.
unsafe fn array<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { std::slice::from_raw_parts(first, count) }
}

macro_rules! destroyed {
    ($($name:ident($type:ty) by $destroy:path;)*) => {$(
        struct $name(NonNull<$type>);

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: it was made by librdkafka, is ours, and is used no more.
                unsafe { $destroy(self.0.as_ptr()) }
            }
        }
    )*};
}

destroyed! {
    Queue(sys::rd_kafka_queue_t) by sys::rd_kafka_queue_destroy;
    Options(sys::rd_kafka_AdminOptions_t) by sys::rd_kafka_AdminOptions_destroy;
    Wanted(sys::rd_kafka_TopicCollection_t) by sys::rd_kafka_TopicCollection_destroy;
    Event(sys::rd_kafka_event_t) by sys::rd_kafka_event_destroy;
}
