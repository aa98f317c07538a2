//! Cuts records out of a stream of bytes: lines, or the elements of one JSON array, bare or as CloudTrail delivers it
//! (`{"Records":[…]}`). Memory stays within the longest record, whatever the stream's size.

use std::ops::Range;

use memchr::{memchr, memchr2};

use crate::port::RECORD_BYTES_MAX;

/// Bytes asked for at a time: large enough that a call costs nothing, small enough to stay in the cache.
const CHUNK_BYTES: usize = 128 * 1024;

/// Takes bytes in through [`Records::room`] and [`Records::filled`], gives records out through [`Records::next`].
pub struct Records {
    buffer: Vec<u8>,
    /// What has been read and not yet given out lies at `start..end` of the buffer.
    start: usize,
    end: usize,
    /// Bytes of that which have been looked at without finding the record's end.
    scanned: usize,
    layout: Layout,
    /// Number of the next record.
    number: i64,
    /// `{"Records":[…]}` is an array, and no record.
    wrapping: bool,
}

/// How records lie in the stream.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// The first bytes will tell.
    Unknown,
    /// One a line.
    Lines,
    /// The rest of a line that was too long, which has been given out already, cut.
    LongLine,
    /// Between the elements of an array; `wrapped` where the array is a member of an object.
    Between { wrapped: bool },
    /// Within an element, or behind the array in the object around it.
    Within { wrapped: bool, nesting: Nesting, purpose: Purpose },
}

/// What the end of a nested text is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To give the element out.
    Element,
    /// To pass over the rest of an element that was too long.
    LongElement,
    /// To pass over what follows the array.
    Trailer,
}

impl Records {
    /// `wrapping`: whether `{"Records":[…]}` is an array of records, and not a record.
    pub fn new(wrapping: bool) -> Self {
        Self { buffer: Vec::new(), start: 0, end: 0, scanned: 0, layout: Layout::Unknown, number: 0, wrapping }
    }

    /// Where to put more bytes of the stream.
    pub fn room(&mut self) -> &mut [u8] {
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

    /// So many bytes have been put there.
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// The next record and its number (from 0; lines count even where they are empty), or `None` until there are more
    /// bytes. `ended`: there will be none. A record longer than [`RECORD_BYTES_MAX`] comes once, cut to one byte more.
    pub fn next(&mut self, ended: bool) -> Option<(i64, &[u8])> {
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
            Layout::Unknown => match Opening::of(pending, self.wrapping) {
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
                Some(at) => self.give(self.scanned + at, 1),
                None => self.give_long_or_last(ended, Layout::LongLine),
            },
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
                    // No array of objects after all: what is left is handed on by lines, for decoding to refuse.
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

    /// Gives out `length` pending bytes, cut to the limit, and passes over them and `after` more.
    fn give(&mut self, length: usize, after: usize) -> Step {
        let record = self.start..self.start + length.min(RECORD_BYTES_MAX + 1);
        self.start += length + after;
        self.scanned = 0;
        Step::Record(record)
    }

    /// The record's end is not among the pending bytes: they are too many already, or the last, or more are needed.
    fn give_long_or_last(&mut self, ended: bool, rest: Layout) -> Step {
        self.scanned = self.end - self.start;
        if self.scanned > RECORD_BYTES_MAX {
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
    /// Where in the buffer it lies.
    Record(Range<usize>),
    Again,
    Starved,
}

/// What the first bytes of a stream, or of what follows an array in it, say of its layout.
enum Opening {
    /// So many bytes lead up to the first element.
    Array {
        length: usize,
        wrapped: bool,
    },
    Lines,
    /// Too few bytes to tell.
    Unfinished,
}

impl Opening {
    /// `wrapping`: an array may be the first member, `Records`, of an object. An array of anything but objects is a
    /// line like another.
    fn of(bytes: &[u8], wrapping: bool) -> Self {
        let forms: [(&[&[u8]], _, _); 3] = [
            (&[b"{", b"\"Records\"", b":", b"["], 0, true),
            // The first element, or the array's end, is for later.
            (&[b"[", b"{"], 1, false),
            (&[b"[", b"]"], 1, false),
        ];
        for (tokens, stays, wrapped) in forms {
            match lead(bytes, tokens) {
                _ if wrapped && !wrapping => {}
                Lead::Length(length) => return Self::Array { length: length - stays, wrapped },
                // A stream that opens with so much white space is none of these.
                Lead::Unfinished if bytes.len() < CHUNK_BYTES => return Self::Unfinished,
                Lead::Unfinished | Lead::Other => {}
            }
        }
        Self::Lines
    }
}

/// Whether bytes begin with certain tokens.
enum Lead {
    /// They do, and the tokens with the space before and between them have this length.
    Length(usize),
    /// They end too early to tell.
    Unfinished,
    Other,
}

fn lead(bytes: &[u8], tokens: &[&[u8]]) -> Lead {
    let mut rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
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

/// How deep in a JSON text we are.
#[derive(Clone, Copy, Debug)]
struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Reads on through `bytes` to the end of what is nested: the number of bytes up to it.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.escaped {
                self.escaped = false;
            } else if self.in_string {
                at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
                self.in_string = bytes.get(at) != Some(&b'"');
                self.escaped = self.in_string;
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
            }
            at += 1;
        }
        None
    }
}
