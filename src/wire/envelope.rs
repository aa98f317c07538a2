//! Records inside other objects: the envelopes of log shippers, and their contents.
//!
//! An object that is no record may contain records in certain members: as objects, in arrays, as JSON in a text (which
//! may be wrapped again), or as compressed text in base64. There are limits on the nesting ([`LEVELS_MAX`]) and on the
//! bytes of one message ([`Budget`]).

use std::borrow::Cow;
use std::fmt;
use std::io::Read;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use flate2::bufread::MultiGzDecoder;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{pieces, repair};
use crate::port::BATCH_BYTES_MAX;

/// Maximum nesting of envelopes.
pub(crate) const LEVELS_MAX: usize = 8;

/// Members that contain records, with the systems that write them. The first member with a record counts, because some
/// envelopes contain the same record twice.
const MEMBERS: &[&str] = &[
    // `aws cloudtrail lookup-events`.
    "CloudTrailEvent",
    // Amazon EventBridge, also with Okta's log streams.
    "detail",
    // CloudTrail's files, and events of AWS Lambda.
    "Records",
    "Events",
    // Azure Event Hubs, Amazon Data Firehose.
    "records",
    // CloudWatch Logs subscriptions, to Lambda and to anything else.
    "awslogs",
    "logEvents",
    // Okta event hooks, CloudEvents, Amazon Kinesis, Google Pub/Sub.
    "data",
    "data_base64",
    "events",
    // Elastic's agents and Logstash.
    "event.original",
    "original",
    "json",
    // Elasticsearch.
    "_source",
    "hits",
    // Splunk: HTTP event collector, and exports.
    "event",
    "result",
    "results",
    "_raw",
    // Amazon SNS and SQS.
    "Message",
    "Messages",
    "Sns",
    "body",
    "Body",
    "kinesis",
    // Syslog relays, container runtimes, Kafka Connect and REST proxies.
    "message",
    "@message",
    "log",
    "MESSAGE",
    "payload",
    "value",
];

/// Members of envelopes only: an object with one of them is an envelope, even without a record.
const SIGNATURES: &[&str] = &[
    "detail-type",
    "cloudEventsVersion",
    "specversion",
    "logEvents",
    "awslogs",
    "Records",
    "records",
    "Events",
    "TopicArn",
    "_index",
    "hits",
];

/// Contents of an object that is no record.
pub(crate) struct Contents<'a> {
    /// The members that may contain records, in the order in which they are tried.
    pub(crate) members: Vec<&'a str>,
    /// The object is certainly an envelope.
    pub(crate) is_envelope: bool,
}

/// The contents of the object in `text`; `None` if it is not an object.
pub(crate) fn open(text: &str) -> Option<Contents<'_>> {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut all = Members { found: Vec::new(), is_envelope: false };
    json.deserialize_map(MembersVisitor(&mut all)).ok()?;
    // Text after the object would be lost.
    json.end().ok()?;
    Some(all.into_contents())
}

/// The contents of the object in `text`, which is invalid JSON, if it is certainly an envelope: it has a member of
/// envelopes only, or no other members. In a broken record the client may have written any text.
pub(crate) fn open_broken(text: &str) -> Option<Contents<'_>> {
    let mut all = Members { found: Vec::new(), is_envelope: false };
    let mut others = 0;
    for (name, value) in pieces::members(text)? {
        others += usize::from(!MEMBERS.contains(&name));
        all.add(name, value);
    }
    (all.is_envelope || others == 0).then(|| all.into_contents())
}

/// A part that may be a record or contain some.
pub(crate) enum Part<'a> {
    /// An object, as in the message.
    Object(&'a str),
    /// Contents of a text: JSON, or compressed data.
    Bytes(Vec<u8>),
}

/// Passes the parts of the member `value` to `take`, in order.
pub(crate) fn parts<'a>(value: &'a str, take: &mut dyn FnMut(Part<'a>)) {
    match value.as_bytes().first() {
        Some(b'{') => take(Part::Object(value)),
        Some(b'[') => {
            let items = pieces::elements(value.get(1..).unwrap_or_default()).parts;
            // No known batch has an array in an array.
            items.into_iter().filter(|item| !item.starts_with('[')).for_each(|item| parts(item, take));
        }
        Some(b'"') => in_text(value).into_iter().for_each(|bytes| take(Part::Bytes(bytes))),
        _ => {}
    }
}

/// Contents of the JSON string `value`, if it is JSON or compressed.
fn in_text(value: &str) -> Option<Vec<u8>> {
    let text = serde_json::from_str::<String>(value).ok();
    let repaired = || serde_json::from_str(&repair::repair(value.as_bytes())?.text).ok();
    let text = text.or_else(repaired)?;
    let is_json = text.trim_ascii_start().starts_with(['{', '[']);
    if is_json { Some(text.into_bytes()) } else { from_base64(&text) }
}

/// Contents of a message that is one JSON string, or base64.
pub(crate) fn wrapped(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_ascii();
    match text.as_bytes().first()? {
        b'{' | b'[' => None,
        b'"' => in_text(text),
        _ => from_base64(text),
    }
}

/// Contents of base64 in `text`, if they are compressed or JSON.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    // Every record is longer.
    const BYTES_MIN: usize = 16;
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte) || byte.is_ascii_whitespace();
    if text.len() < BYTES_MIN || !text.bytes().all(is_known) {
        return None;
    }
    // Base64 may have line breaks (RFC 2045 section 6.8).
    let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bytes = ENGINE.decode(text).ok()?;
    let is_json = matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[' | b'"'));
    (is_json || Compression::of(&bytes).is_some()).then_some(bytes)
}

/// The record after the prefix of the Confluent Schema Registry's serializers: a zero byte and the schema's number in
/// four bytes (Confluent documentation, "Wire format").
pub(crate) fn without_schema_number(payload: &[u8]) -> &[u8] {
    match payload {
        [0, _, _, _, _, rest @ ..] if matches!(rest.trim_ascii_start().first(), Some(b'{' | b'[')) => rest,
        _ => payload,
    }
}

/// Compressions of whole messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    Zstd,
}

/// Error for unreadable compressed data.
pub(crate) const DAMAGED: &str = "damaged compressed data";
/// Error for compressed data beyond the budget.
pub(crate) const BOMB: &str = "compressed data that expands to too many bytes";

impl Compression {
    /// Detected by the first bytes (RFC 1952, RFC 8878).
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The decompressed `bytes`.
    pub(crate) fn expand(self, bytes: &[u8], budget: &mut Budget) -> Result<Vec<u8>, &'static str> {
        match self {
            Self::Gzip => budget.read(bytes.len(), MultiGzDecoder::new(bytes)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(|_| DAMAGED)?;
                // A large window would allocate memory before there is any output.
                decoder.window_log_max(BATCH_BYTES_MAX.ilog2()).map_err(|_| DAMAGED)?;
                budget.read(bytes.len(), decoder)
            }
        }
    }
}

/// Remaining bytes to which one message may expand.
pub(crate) struct Budget(usize);

impl Budget {
    /// The budget of one message.
    pub(crate) const fn new() -> Self {
        Self(BATCH_BYTES_MAX)
    }

    /// Logs compress 10 to 30 times. A ratio of 200 indicates a decompression bomb.
    const RATIO_MAX: usize = 200;
    /// Minimum budget, for small messages.
    const BYTES_MIN: usize = 1 << 20;

    fn read(&mut self, compressed: usize, from: impl Read) -> Result<Vec<u8>, &'static str> {
        let most = self.0.min(compressed.saturating_mul(Self::RATIO_MAX).max(Self::BYTES_MIN));
        let mut out = Vec::new();
        from.take(most as u64 + 1).read_to_end(&mut out).map_err(|_| DAMAGED)?;
        if out.len() > most {
            return Err(BOMB);
        }
        self.0 -= out.len();
        Ok(out)
    }
}

/// Whether the object in `text` has one of these members. Dots in a name lead into nested objects.
pub(crate) fn has_any(text: &str, paths: &[&str]) -> bool {
    paths.iter().any(|path| has(text, path))
}

/// Whether it has all of these members.
pub(crate) fn has_all(text: &str, paths: &[&str]) -> bool {
    paths.iter().all(|path| has(text, path))
}

fn has(text: &str, path: &str) -> bool {
    let find = |name| {
        let mut json = serde_json::Deserializer::from_str(text);
        json.deserialize_map(MemberVisitor(name)).ok().flatten()
    };
    let is_something = |value: &RawValue| !matches!(value.get(), "null" | "\"\"");
    if find(path).is_some_and(is_something) {
        return true;
    }
    path.split_once('.').is_some_and(|(first, rest)| find(first).is_some_and(|value| has(value.get(), rest)))
}

struct Members<'a> {
    found: Vec<(usize, &'a str)>,
    is_envelope: bool,
}

impl<'a> Members<'a> {
    fn add(&mut self, name: &str, value: &'a str) {
        self.is_envelope |= SIGNATURES.contains(&name);
        if let Some(priority) = MEMBERS.iter().position(|member| *member == name) {
            self.found.push((priority, value));
        }
    }

    fn into_contents(mut self) -> Contents<'a> {
        self.found.sort_by_key(|(priority, _)| *priority);
        Contents { members: self.found.into_iter().map(|(_, value)| value).collect(), is_envelope: self.is_envelope }
    }
}

struct MembersVisitor<'m, 'a>(&'m mut Members<'a>);

impl<'de> Visitor<'de> for MembersVisitor<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        while let Some(name) = members.next_key::<Cow<'de, str>>()? {
            let value = members.next_value::<&RawValue>()?;
            self.0.add(&name, value.get());
        }
        Ok(())
    }
}

struct MemberVisitor<'n>(&'n str);

impl<'de> Visitor<'de> for MemberVisitor<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = members.next_key::<Cow<'de, str>>()? {
            if found.is_none() && name == self.0 {
                found = Some(members.next_value()?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("a vector takes all");
        encoder.finish().expect("a vector takes all")
    }

    #[test]
    fn compressed_data_expands_within_its_budget() {
        let text = b"{\"event_id\":\"e\"}".repeat(100);
        for (compression, bytes) in
            [(Compression::Gzip, gzip(&text)), (Compression::Zstd, zstd::encode_all(&text[..], 3).expect("zstd"))]
        {
            assert_eq!(Compression::of(&bytes), Some(compression));
            assert_eq!(compression.expand(&bytes, &mut Budget::new()).as_deref(), Ok(&text[..]));
            assert_eq!(compression.expand(&bytes, &mut Budget(100)), Err(BOMB));
            assert_eq!(compression.expand(&bytes[..bytes.len() - 9], &mut Budget::new()), Err(DAMAGED));
        }
        let bomb = gzip(&vec![b' '; 8 << 20]);
        assert_eq!(Compression::Gzip.expand(&bomb, &mut Budget::new()), Err(BOMB));
    }

    #[test]
    fn members_are_found_at_any_depth() {
        let text = r#"{"a":{"b":{"c":1}},"d.e":2,"f":null,"g":""}"#;
        for (path, expected) in
            [("a", true), ("a.b.c", true), ("a.c", false), ("d.e", true), ("d", false), ("f", false), ("g", false)]
        {
            assert_eq!(has_any(text, &[path]), expected, "{path}");
        }
        assert!(!has_any("[1]", &["a"]));
    }
}
