//! Splits a stream of bytes into records: lines, JSON values over several lines, consecutive JSON values, or the
//! elements of one JSON array (also as the first member of an object, `{"Records":[…]}`). Memory is bounded by the
//! longest record, for any size of the stream.

mod json;

use std::ops::Range;

use memchr::memchr;

use self::json::{Nesting, Value};
use crate::port::{BATCH_BYTES_MAX, RECORD_BYTES_MAX};

/// Bytes per read: large enough to amortise the call, small enough for the cache.
const CHUNK_BYTES: usize = 128 * 1024;

/// Bytes enter through [`Records::room`] and [`Records::filled`]; records leave through [`Records::next`].
pub(crate) struct Records {
    buffer: Vec<u8>,
    /// The pending bytes are `start..end` of the buffer.
    start: usize,
    end: usize,
    /// Number of pending bytes already searched for the record's end.
    scanned: usize,
    layout: Layout,
    /// Number of the next record.
    number: i64,
}

/// Layout of the records in the stream.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// Not known before the first bytes.
    Unknown,
    /// One a line.
    Lines,
    /// Within a JSON value that does not end on its first line.
    Value(Value),
    /// After such a value, or in the rest of one that was too long.
    AfterValue,
    /// In the rest of a line that was too long; its beginning has been returned.
    LongLine,
    /// Between the elements of an array; `wrapped` if the array is a member of an object.
    Between { wrapped: bool },
    /// Within an element, or after the array in the object around it.
    Within { wrapped: bool, nesting: Nesting, purpose: Purpose },
}

/// Purpose of the search for the end of a nested value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To return the element.
    Element,
    /// To skip the rest of an element that was too long.
    LongElement,
    /// To skip the text after the array.
    Trailer,
}

impl Records {
    pub(crate) const fn new() -> Self {
        Self { buffer: Vec::new(), start: 0, end: 0, scanned: 0, layout: Layout::Unknown, number: 0 }
    }

    /// The buffer for the next bytes of the stream.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let wanted = self.end + CHUNK_BYTES;
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// Reports the number of bytes written to [`Self::room`].
    pub(crate) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// The next record and its number (from 0; empty lines count too), or `None` if more bytes are needed. `ended`:
    /// there are no more. A record that is too long is returned once, cut to one byte more than the limit. The limit is
    /// [`BATCH_BYTES_MAX`] for JSON, which may contain many events, and [`RECORD_BYTES_MAX`] otherwise.
    pub(crate) fn next(&mut self, ended: bool) -> Option<(i64, &[u8])> {
        loop {
            let record = match self.step(ended) {
                Step::Record(record) => record,
                Step::Again => continue,
                Step::Starved => return None,
            };
            let number = self.number;
            self.number += 1;
            if self.buffer.get(record.clone()).is_some_and(|record| !record.trim_ascii().is_empty()) {
                return self.buffer.get(record).map(|record| (number, record));
            }
        }
    }

    fn step(&mut self, ended: bool) -> Step {
        let pending = self.buffer.get(self.start..self.end).unwrap_or_default();
        let fresh = pending.get(self.scanned..).unwrap_or_default();
        match self.layout {
            Layout::Unknown => match Opening::of(pending) {
                Opening::Array { length, wrapped } => {
                    self.start += length;
                    self.layout = Layout::Between { wrapped };
                    Step::Again
                }
                Opening::Unfinished if !ended => Step::Starved,
                Opening::Unfinished | Opening::Lines => {
                    self.layout = Layout::Lines;
                    Step::Again
                }
            },
            Layout::Lines => match memchr(b'\n', fresh) {
                Some(at) if goes_on(pending.get(..self.scanned + at).unwrap_or_default()) => {
                    self.pass(0, Layout::Value(Value::default()))
                }
                Some(at) => self.give(self.scanned + at, 1),
                // A stream of values without line breaks, or one long value.
                None if is_json(pending) && (ended || pending.len() > RECORD_BYTES_MAX) => {
                    self.pass(0, Layout::Value(Value::default()))
                }
                None if is_json(pending) => self.starve(),
                None => self.give_long_or_last(ended, Layout::LongLine),
            },
            Layout::Value(mut value) => {
                if let Some(end) = value.end(fresh) {
                    self.layout = Layout::AfterValue;
                    self.give(self.scanned + end, 0)
                } else {
                    self.layout = Layout::Value(value);
                    self.give_long_or_last(ended, Layout::AfterValue)
                }
            }
            Layout::AfterValue => {
                let passed = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b',');
                match pending.iter().position(|byte| !passed(byte)) {
                    Some(at) if pending.get(at) == Some(&b'\n') => self.pass(at + 1, Layout::Lines),
                    Some(at) => self.pass(at, Layout::Lines),
                    None => self.pass_all(),
                }
            }
            Layout::LongLine => match memchr(b'\n', fresh) {
                Some(at) => self.pass(at + 1, Layout::Lines),
                None => self.pass_all(),
            },
            Layout::Between { wrapped } => {
                let Some(at) = pending.iter().position(|byte| !byte.is_ascii_whitespace() && *byte != b',') else {
                    return self.pass_all();
                };
                let within = |depth, purpose| {
                    let nesting = Nesting { depth, in_string: false, escaped: false };
                    Layout::Within { wrapped, nesting, purpose }
                };
                match pending.get(at) {
                    Some(b'{') => self.pass(at, within(0, Purpose::Element)),
                    Some(b']') if wrapped => self.pass(at + 1, within(1, Purpose::Trailer)),
                    Some(b']') => self.pass(at + 1, Layout::Unknown),
                    // Not an array of objects: the rest is returned by lines, and decoding refuses them.
                    _ => self.pass(at, Layout::Lines),
                }
            }
            Layout::Within { wrapped, mut nesting, purpose } => match (nesting.end(fresh), purpose) {
                (Some(end), Purpose::Element) => {
                    self.layout = Layout::Between { wrapped };
                    self.give(self.scanned + end, 0)
                }
                (Some(end), Purpose::LongElement) => self.pass(end, Layout::Between { wrapped }),
                (Some(end), Purpose::Trailer) => self.pass(end, Layout::Unknown),
                (None, Purpose::Element) => {
                    self.layout = Layout::Within { wrapped, nesting, purpose };
                    self.give_long_or_last(ended, Layout::Within { wrapped, nesting, purpose: Purpose::LongElement })
                }
                (None, _) => {
                    self.layout = Layout::Within { wrapped, nesting, purpose };
                    self.pass_all()
                }
            },
        }
    }

    /// Returns `length` pending bytes, cut to the limit, and skips them and `after` more.
    fn give(&mut self, length: usize, after: usize) -> Step {
        let record = self.start..self.start + length.min(self.bytes_max() + 1);
        self.start += length + after;
        self.scanned = 0;
        Step::Record(record)
    }

    /// Maximum length of a pending record.
    fn bytes_max(&self) -> usize {
        let pending = self.buffer.get(self.start..self.end).unwrap_or_default();
        if is_json(pending) { BATCH_BYTES_MAX } else { RECORD_BYTES_MAX }
    }

    /// More bytes are needed to tell where the record ends.
    fn starve(&mut self) -> Step {
        self.scanned = self.end - self.start;
        Step::Starved
    }

    /// The record's end is not pending. Returns the pending bytes if they exceed the limit or are the last ones.
    fn give_long_or_last(&mut self, ended: bool, rest: Layout) -> Step {
        self.scanned = self.end - self.start;
        if self.scanned > self.bytes_max() {
            self.layout = rest;
            self.give(self.scanned, 0)
        } else if ended && self.scanned > 0 {
            self.give(self.scanned, 0)
        } else {
            Step::Starved
        }
    }

    fn pass(&mut self, length: usize, layout: Layout) -> Step {
        self.start += length;
        self.scanned = 0;
        self.layout = layout;
        Step::Again
    }

    fn pass_all(&mut self) -> Step {
        self.start = self.end;
        self.scanned = 0;
        Step::Starved
    }
}

enum Step {
    /// Range of the record in the buffer.
    Record(Range<usize>),
    Again,
    Starved,
}

/// Layout of a stream by its first bytes, or of the text after an array.
enum Opening {
    /// Number of bytes before the first element.
    Array {
        length: usize,
        wrapped: bool,
    },
    Lines,
    /// Too few bytes to decide.
    Unfinished,
}

impl Opening {
    /// An array of other values than objects is read as a line.
    fn of(bytes: &[u8]) -> Self {
        let forms: [(&[&[u8]], _, _); 5] = [
            // CloudTrail's files, the response of `lookup-events`, and the batches of Azure and Firehose.
            (&[b"{", b"\"Records\"", b":", b"["], 0, true),
            (&[b"{", b"\"Events\"", b":", b"["], 0, true),
            (&[b"{", b"\"records\"", b":", b"["], 0, true),
            // The first element, or the array's end, is read later.
            (&[b"[", b"{"], 1, false),
            (&[b"[", b"]"], 1, false),
        ];
        for (tokens, stays, wrapped) in forms {
            match lead(bytes, tokens) {
                Lead::Length(length) => return Self::Array { length: length - stays, wrapped },
                // A stream with this much white space at its start is none of these.
                Lead::Unfinished if bytes.len() < CHUNK_BYTES => return Self::Unfinished,
                Lead::Unfinished | Lead::Other => {}
            }
        }
        Self::Lines
    }
}

/// Whether bytes begin with given tokens.
enum Lead {
    /// Length of the tokens with the space before and between them.
    Length(usize),
    /// Too few bytes to decide.
    Unfinished,
    Other,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn lead(bytes: &[u8], tokens: &[&[u8]]) -> Lead {
    if bytes.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(bytes) {
        return Lead::Unfinished;
    }
    let mut rest = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    for token in tokens {
        rest = rest.trim_ascii_start();
        rest = match rest.strip_prefix(*token) {
            Some(rest) => rest,
            None if token.starts_with(rest) => return Lead::Unfinished,
            None => return Lead::Other,
        };
    }
    Lead::Length(bytes.len() - rest.len())
}

/// Whether `bytes` begin with a JSON object or array.
fn is_json(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Whether a line begins a JSON value that continues on the next lines, as printed with indentation.
fn goes_on(line: &[u8]) -> bool {
    is_json(line) && matches!(line.trim_ascii_end().last(), Some(b'{' | b'[' | b',' | b':'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The records of `bytes`, read in pieces of `piece` bytes.
    fn cut(bytes: &[u8], piece: usize) -> Vec<(i64, String)> {
        let mut records = Records::new();
        let mut found = Vec::new();
        let mut pieces = bytes.chunks(piece.max(1));
        loop {
            let next = pieces.next();
            if let Some(piece) = next {
                records.room()[..piece.len()].copy_from_slice(piece);
                records.filled(piece.len());
            }
            while let Some((number, record)) = records.next(next.is_none()) {
                found.push((number, String::from_utf8_lossy(record).into_owned()));
            }
            if next.is_none() {
                return found;
            }
        }
    }

    fn records(bytes: &str) -> Vec<(i64, String)> {
        let whole = cut(bytes.as_bytes(), usize::MAX);
        for piece in [1, 2, 7] {
            assert_eq!(cut(bytes.as_bytes(), piece), whole, "{bytes} by {piece}");
        }
        whole
    }

    fn numbered(records: &[(i64, &str)]) -> Vec<(i64, String)> {
        records.iter().map(|(number, record)| (*number, (*record).to_owned())).collect()
    }

    #[test]
    fn empty_lines_are_counted() {
        assert_eq!(records("a\n\n b\r\n{\"x\":1}"), numbered(&[(0, "a"), (2, " b\r"), (3, "{\"x\":1}")]));
        assert_eq!(records(""), []);
        assert_eq!(records("\n \n"), []);
        assert_eq!(records("{\"Recorder\":[1]}\n[1]\n"), numbered(&[(0, "{\"Recorder\":[1]}"), (1, "[1]")]));
    }

    #[test]
    fn array_yields_its_elements() {
        let elements = numbered(&[(0, r#"{"a":"]}\"{"}"#), (1, r#"{"b":[{}]}"#)]);
        for text in [
            r#"{"Records":[{"a":"]}\"{"},{"b":[{}]}]}"#,
            "\u{feff} {\n \"Records\" : [ {\"a\":\"]}\\\"{\"} ,\n {\"b\":[{}]} ],\"x\":[{\"y\":\"]\"}] }\n",
            r#"[{"a":"]}\"{"} , {"b":[{}]}]"#,
            "{\"Records\":[{\"a\":\"]}\\\"{\"}]}\n{\"Records\":[]}\n{\"Records\":[{\"b\":[{}]}]}\n",
            "{\n  \"Events\": [\n    {\"a\":\"]}\\\"{\"},\n    {\"b\":[{}]}\n  ],\n  \"NextToken\": \"x\"\n}\n",
            r#"{"records":[{"a":"]}\"{"},{"b":[{}]}]}"#,
        ] {
            assert_eq!(records(text), elements, "{text}");
        }
    }

    #[test]
    fn truncated_and_other_values_are_returned_too() {
        assert_eq!(records(r#"[{"a":1},{"b":"#), numbered(&[(0, r#"{"a":1}"#), (1, r#"{"b":"#)]));
        assert_eq!(records("[{\"a\":1},2]\nx\n"), numbered(&[(0, r#"{"a":1}"#), (1, "2]"), (2, "x")]));
    }

    #[test]
    fn value_over_several_lines_is_one_record() {
        let value = "{\n  \"a\": {\n    \"b\": [\n      1,\n      2\n    ]\n  },\n  \"c\": \"} {\"\n}";
        assert_eq!(records(value), numbered(&[(0, value)]));
        let several = format!("{value}\n{{\"x\":1}}\n{value},\n{value}{{\"y\":2}}\n[1,\n2]\n");
        let expected = [(0, value), (1, r#"{"x":1}"#), (2, value), (3, value), (4, r#"{"y":2}"#), (5, "[1,\n2]")];
        assert_eq!(records(&several), numbered(&expected));
        assert_eq!(records("\u{feff}{\n\"a\":1}\n"), numbered(&[(0, "\u{feff}{\n\"a\":1}")]));
    }

    #[test]
    fn broken_value_affects_at_most_its_neighbour() {
        for (text, expected) in [
            ("{\n\"a\": \"x\n{\"b\":1}\n", &["{\n\"a\": \"x", "{\"b\":1}"][..]),
            ("{\n\"a\": 1\n{\"b\":1}\n{\"c\":1}\n", &["{\n\"a\": 1\n", "{\"b\":1}", "{\"c\":1}"]),
            ("{\"a\":1,\n{\"b\":1}\n{\"c\":1}\n", &["{\"a\":1,\n", "{\"b\":1}", "{\"c\":1}"]),
            ("{\"a\":\n{\"b\":1}\n", &["{\"a\":\n", "{\"b\":1}"]),
            ("{\"a\":{\n{\"b\":1}\n", &["{\"a\":{\n", "{\"b\":1}"]),
            ("{\"a\":[{\"c\":1,\n{\"b\":1}\n", &["{\"a\":[{\"c\":1,\n", "{\"b\":1}"]),
            ("{\"a\":[\n{\"c\":1},\n{\"b\":1}\n]}\n", &["{\"a\":[\n{\"c\":1},\n{\"b\":1}\n]}"]),
            ("{\"a\":\n {\"b\":1}\n}\n", &["{\"a\":\n {\"b\":1}\n}"]),
            ("{\"a\":\n", &["{\"a\":\n"]),
        ] {
            let found: Vec<_> = records(text).into_iter().map(|(_, record)| record).collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn values_without_line_breaks_are_separate() {
        assert_eq!(
            records(r#"{"a":1}{"b":2} {"c":3}"#),
            numbered(&[(0, r#"{"a":1}"#), (1, r#"{"b":2}"#), (2, r#"{"c":3}"#)])
        );
    }

    #[test]
    fn too_long_record_is_returned_once_and_cut() {
        let long = "x".repeat(RECORD_BYTES_MAX * 3);
        let text = format!("a\n{long}\nb\n");
        let lengths: Vec<_> = cut(text.as_bytes(), 100_000).iter().map(|(at, record)| (*at, record.len())).collect();
        assert_eq!(lengths, [(0, 1), (1, RECORD_BYTES_MAX + 1), (2, 1)]);
        let long = "x".repeat(BATCH_BYTES_MAX + 9);
        let text = format!("[{{\"a\":1}},{{\"b\":\"{long}\"}},{{\"c\":1}}]");
        let lengths: Vec<_> = cut(text.as_bytes(), 100_000).iter().map(|(at, record)| (*at, record.len())).collect();
        assert_eq!(lengths, [(0, 7), (1, BATCH_BYTES_MAX + 1), (2, 7)]);
        let just = format!("{}\nb", "x".repeat(RECORD_BYTES_MAX));
        assert_eq!(cut(just.as_bytes(), 100_000).len(), 2);
    }

    proptest! {
        #[test]
        fn records_do_not_depend_on_the_read_size(text in "[\\[\\]{}\",:\\\\ \nRa1]{0,60}|\\{\"(Records|Events)\":\\[[\\[\\]{}\",:\\\\ \na1]{0,60}", piece in 1..9_usize) {
            prop_assert_eq!(cut(text.as_bytes(), piece), cut(text.as_bytes(), usize::MAX));
        }

        #[test]
        fn records_keep_every_line(lines in prop::collection::vec("([a-z{}]{0,20}[a-z])?", 0..20), piece in 1..50_usize) {
            let text = lines.join("\n") + "\n";
            let expected = lines.iter().enumerate().filter(|(_, line)| !line.is_empty());
            let expected: Vec<_> = expected.map(|(at, line)| (at as i64, line.clone())).collect();
            prop_assert_eq!(cut(text.as_bytes(), piece), expected);
        }
    }
}
