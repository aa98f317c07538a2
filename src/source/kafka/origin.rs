//! Headers of forwarded messages, which name the original message.
//!
//! | header | content |
//! |---|---|
//! | `source_topic`, `source_partition`, `source_offset` | position of the original message |
//! | `source_topic_id` | id of its topic, if the brokers have ids |
//! | `source_append_time` or `source_create_time` | time of its record, milliseconds since the epoch |
//! | `group` | the consumer group for which it was forwarded. Groups with the same prefix have one topic |
//! | `copies` | the partitions to which it was forwarded, separated by commas |
//! | `partitions` | the number of partitions among which its events were distributed |
//! | `cut_from_bytes` | only if the payload is incomplete: the original length |

use std::str::FromStr;
use std::sync::Arc;

use rdkafka::message::{Header, Headers, OwnedHeaders};
use smallvec::SmallVec;

use super::settings::KafkaSettings;
use crate::checkpoint::{LogTime, LogTimeKind, Position, TopicId};
use crate::port::{Forwarded, Share};

const TOPIC: &str = "source_topic";
const TOPIC_ID: &str = "source_topic_id";
const PARTITION: &str = "source_partition";
const OFFSET: &str = "source_offset";
const APPEND_TIME: &str = "source_append_time";
const CREATE_TIME: &str = "source_create_time";
const GROUP: &str = "group";
const COPIES: &str = "copies";
const PARTITIONS: &str = "partitions";
const CUT: &str = "cut_from_bytes";

/// Why a message of the topic is a dead letter.
const NOT_FORWARDED: &str = "the message was not forwarded by tokenwarden: its headers are missing or wrong";
const NOT_CONFIGURED: &str = "the message was forwarded from a topic that is not in source.kafka.topics";

/// Topics from which messages are forwarded for a group.
pub(super) struct Origins {
    group: String,
    known: Vec<Known>,
}

/// Why a message has no origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoOrigin {
    OtherGroup,
    /// The reason of a dead letter.
    Unknown(&'static str),
}

struct Known {
    topic: Arc<str>,
    /// Topic in rows.
    in_rows: Arc<str>,
}

impl Origins {
    pub(super) fn new(settings: &KafkaSettings) -> Self {
        let known = settings.topics.iter().map(|topic| {
            let in_rows = settings.forwarded_in_rows(&topic.topic).into();
            Known { topic: topic.topic.as_str().into(), in_rows }
        });
        Self { group: settings.group_id.clone(), known: known.collect() }
    }

    /// Origin of the message at the position `at`, and the time of its original record.
    pub(super) fn read(
        &self,
        headers: Option<&impl Headers>,
        at: &Position,
    ) -> Result<(Forwarded, Option<LogTime>), NoOrigin> {
        let found = headers.and_then(Found::in_headers).ok_or(NoOrigin::Unknown(NOT_FORWARDED))?;
        match found.group {
            None => return Err(NoOrigin::Unknown(NOT_FORWARDED)),
            Some(group) if group != self.group => return Err(NoOrigin::OtherGroup),
            Some(_) => {}
        }
        let known = self.known.iter().find(|known| found.topic == Some(&*known.topic));
        let Known { topic, in_rows } = known.ok_or(NoOrigin::Unknown(NOT_CONFIGURED))?;
        let forwarded = || {
            Some(Forwarded {
                source: Position {
                    topic: Arc::clone(topic),
                    topic_id: found.topic_id,
                    partition: found.partition?,
                    offset: found.offset?,
                },
                in_rows: Position {
                    topic: Arc::clone(in_rows),
                    topic_id: at.topic_id,
                    partition: at.partition,
                    offset: at.offset,
                },
                share: Share::new(at.partition, found.copies, found.partitions?)?,
                is_cut: found.is_cut,
            })
        };
        Ok((forwarded().ok_or(NoOrigin::Unknown(NOT_FORWARDED))?, found.time))
    }
}

/// Values of headers.
#[derive(Default)]
struct Found<'h> {
    group: Option<&'h str>,
    topic: Option<&'h str>,
    topic_id: TopicId,
    partition: Option<i32>,
    offset: Option<i64>,
    time: Option<LogTime>,
    copies: SmallVec<[i32; 4]>,
    partitions: Option<usize>,
    is_cut: bool,
}

impl<'h> Found<'h> {
    /// `None`: a value cannot be read.
    fn in_headers(headers: &'h impl Headers) -> Option<Self> {
        let mut found = Self::default();
        for Header { key, value } in headers.iter() {
            let value = std::str::from_utf8(value?).ok()?;
            let time = |kind| Some(LogTime { millis: number(value)?, kind });
            match key {
                TOPIC => found.topic = Some(value),
                TOPIC_ID => found.topic_id = value.parse().ok()?,
                PARTITION => found.partition = Some(number(value)?),
                OFFSET => found.offset = Some(number(value)?),
                APPEND_TIME => found.time = Some(time(LogTimeKind::Append)?),
                CREATE_TIME => found.time = Some(time(LogTimeKind::Create)?),
                GROUP => found.group = Some(value),
                COPIES => found.copies = value.split(',').map(number).collect::<Option<_>>()?,
                PARTITIONS => found.partitions = Some(number(value)?),
                CUT => found.is_cut = true,
                _ => {}
            }
        }
        Some(found)
    }
}

/// A number that is not negative.
fn number<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Headers of the copies of the message at `source` for `group`.
pub(super) fn headers(
    group: &str,
    source: &Position,
    time: Option<LogTime>,
    copies: &[i32],
    partitions: usize,
    cut_from: Option<usize>,
) -> OwnedHeaders {
    let copies = copies.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let time = time.map(|LogTime { millis, kind }| match kind {
        LogTimeKind::Append => (APPEND_TIME, millis.to_string()),
        LogTimeKind::Create => (CREATE_TIME, millis.to_string()),
    });
    let id = (source.topic_id != TopicId::NONE).then(|| (TOPIC_ID, source.topic_id.to_string()));
    let cut = cut_from.map(|bytes| (CUT, bytes.to_string()));
    let always = [
        (TOPIC, source.topic.to_string()),
        (PARTITION, source.partition.to_string()),
        (OFFSET, source.offset.to_string()),
        (GROUP, group.to_owned()),
        (COPIES, copies),
        (PARTITIONS, partitions.to_string()),
    ];
    let all = always.into_iter().chain(time).chain(id).chain(cut);
    all.fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(&value) }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::settings::{StateTopicUse, Topic};
    use super::*;
    use crate::feed::Feed;

    fn origins() -> Origins {
        let topic = |name: &str| Topic { topic: name.to_owned(), feed: Feed::default() };
        Origins::new(&KafkaSettings {
            brokers: String::new(),
            topics: vec![topic("audit"), topic("edge")],
            group_id: "g".to_owned(),
            prefix: "tw".to_owned(),
            properties: BTreeMap::new(),
            allow_plaintext: false,
            remember_messages_max: 0,
            state_topic: StateTopicUse::Never,
            verdicts_topic: false,
            sightings_topic: false,
            rekey: true,
        })
    }

    fn source() -> Position {
        Position { topic_id: TopicId([3; 16]), ..Position::new("edge", 7, 41) }
    }

    #[test]
    fn headers_name_the_original_message() {
        let at = Position { topic_id: TopicId([9; 16]), ..Position::new("tw.rekeyed", 2, 1_000) };
        for time in [
            None,
            Some(LogTime { millis: 5, kind: LogTimeKind::Append }),
            Some(LogTime { millis: 6, kind: LogTimeKind::Create }),
        ] {
            for cut in [None, Some(9)] {
                let headers = headers("g", &source(), time, &[4, 2], 5, cut);
                let (forwarded, found) = origins().read(Some(&headers), &at).expect("they are right");
                assert_eq!(found, time);
                assert_eq!(forwarded.source, source());
                assert_eq!(forwarded.in_rows, Position { topic: "tw.rekeyed/edge".into(), ..at.clone() });
                assert_eq!(Some(forwarded.share), Share::new(2, SmallVec::from_slice(&[4, 2]), 5));
                assert_eq!(forwarded.is_cut, cut.is_some());
            }
        }
    }

    #[test]
    fn wrong_headers_are_refused() {
        let at = Position::new("tw.rekeyed", 2, 1_000);
        let read = |headers: Option<&OwnedHeaders>| origins().read(headers, &at).err();
        let not_forwarded = Some(NoOrigin::Unknown(NOT_FORWARDED));
        assert_eq!(read(None), not_forwarded);
        let right = headers("g", &source(), None, &[2], 5, None);
        assert_eq!(read(Some(&right)), None);
        for (key, value) in [
            (PARTITION, "-1"),
            (OFFSET, "x"),
            (OFFSET, "+1"),
            (OFFSET, "99999999999999999999"),
            (TOPIC_ID, "short"),
            (COPIES, ""),
            (COPIES, "1"),
            (COPIES, "2,5"),
            (PARTITIONS, "2"),
            (APPEND_TIME, "-5"),
        ] {
            let wrong = right.clone().insert(Header { key, value: Some(value) });
            assert_eq!(read(Some(&wrong)), not_forwarded, "{key}={value}");
        }
        let elsewhere = headers("g", &Position::new("other", 0, 0), None, &[2], 5, None);
        assert_eq!(read(Some(&elsewhere)), Some(NoOrigin::Unknown(NOT_CONFIGURED)));
        assert_eq!(read(Some(&OwnedHeaders::new())), not_forwarded);
        let of_others = headers("h", &source(), None, &[2], 5, None);
        assert_eq!(read(Some(&of_others)), Some(NoOrigin::OtherGroup));
    }
}
