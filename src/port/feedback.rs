//! Feedback to incidents as records of a log, from which every member learns.

use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::record_log::{KEPT_MS, LogRecord};
use crate::checkpoint::TopicId;
use crate::verdict::{IncidentId, Judgement};

/// Identity of the feedback about one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FeedbackId(pub u64);

impl fmt::Display for FeedbackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FB-{:016X}", self.0)
    }
}

/// A record of the log, with its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeedbackRecord {
    pub key: FeedbackKey,
    pub state: FeedbackState,
}

/// Feedback has a key without partition, and its place in the order of events one with the partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FeedbackKey {
    pub feedback: FeedbackId,
    /// The subject key of the events.
    pub subject: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<SourcePartition>,
}

/// A partition of a source topic; for a file, its path and 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourcePartition {
    pub topic: String,
    pub partition: i32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedbackState {
    /// A person gave it.
    Given(GivenFeedback),
    /// A member will learn it, or has learnt it, at this place.
    Placed(FeedbackPlace),
}

/// The verdict of a person, and what the incident has shown about the subject. Times are milliseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenFeedback {
    pub incident: IncidentId,
    pub judgement: Judgement,
    pub by: String,
    /// Wall clock.
    pub at: i64,
    /// Where the events were read.
    pub source: SourcePartition,
    /// Times of the first and the last event of the subject in the incident.
    pub since: i64,
    pub until: i64,
    /// Native events: one of each place, client and route.
    pub events: Vec<StoredEvent>,
}

/// A native event in JSON. It is decoded only by the member that learns from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoredEvent(Box<RawValue>);

impl StoredEvent {
    /// The error is that of the JSON.
    pub fn new(event: &impl Serialize) -> serde_json::Result<Self> {
        serde_json::value::to_raw_value(event).map(Self)
    }

    pub fn json(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for StoredEvent {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

/// Place in the order of events of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedbackPlace {
    /// The feedback is learnt before the message at this offset.
    pub offset: i64,
    /// `None`: the source has no ids of topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) topic_id: Option<TopicId>,
    /// Key of the last event before it, for replays, whose messages have other offsets. `None`: it is before all events.
    pub after: Option<NonZeroU64>,
    /// After `true`, the indexes of the events whose network and client family are a thief's. They are found when the
    /// first place is written: a state that is rebuilt may lack the owner's history.
    pub thieves: Vec<u32>,
    /// Milliseconds since the epoch, wall clock.
    pub at: i64,
}

impl LogRecord for FeedbackRecord {
    type Key = FeedbackKey;
    type Value = FeedbackState;
    const NAME: &'static str = "feedback";
    const IF_LOST: &'static str = "a memory that is rebuilt does not contain what was learnt from them";

    fn of(key: FeedbackKey, state: FeedbackState) -> Self {
        Self { key, state }
    }

    fn key(&self) -> &FeedbackKey {
        &self.key
    }

    fn value(&self) -> &FeedbackState {
        &self.state
    }

    fn is_kept(&self, now: i64) -> bool {
        let (FeedbackState::Given(GivenFeedback { at, .. }) | FeedbackState::Placed(FeedbackPlace { at, .. })) =
            &self.state;
        now < at + KEPT_MS
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn record_reads_back_with_hostile_values() {
        let source = SourcePartition { topic: "events".to_owned(), partition: 3 };
        let given = GivenFeedback {
            incident: IncidentId(u64::MAX),
            judgement: Judgement::Benign,
            by: "ana".to_owned(),
            at: 5,
            source: source.clone(),
            since: 1,
            until: 4,
            events: vec![StoredEvent::new(&json!({"user_id": "a\u{202e}\n\"'; DROP"})).expect("JSON")],
        };
        let key =
            FeedbackKey { feedback: FeedbackId(u64::MAX), subject: "acme/a\u{202e}\n".to_owned(), partition: None };
        let record = FeedbackRecord { key: key.clone(), state: FeedbackState::Given(given) };
        let line = serde_json::to_string(&record).expect("JSON");
        assert_eq!(serde_json::from_str::<FeedbackRecord>(&line).expect("a record"), record);
        assert!(record.is_kept(4 + KEPT_MS) && !record.is_kept(5 + KEPT_MS));
        let newer = line.replace("\"by\"", "\"scope\":1,\"by\"");
        assert!(serde_json::from_str::<FeedbackRecord>(&newer).is_err(), "{newer}");
        let key = FeedbackKey { partition: Some(source), ..key };
        for topic_id in [None, Some(TopicId([7; 16]))] {
            let place =
                FeedbackPlace { offset: 7, topic_id, after: NonZeroU64::new(u64::MAX), thieves: vec![1], at: 5 };
            let placed = FeedbackRecord { key: key.clone(), state: FeedbackState::Placed(place) };
            let line = serde_json::to_string(&placed).expect("JSON");
            assert_eq!(serde_json::from_str::<FeedbackRecord>(&line).expect("a record"), placed);
        }
    }
}
