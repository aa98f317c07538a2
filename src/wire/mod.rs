//! Decoding of messages into events, and encoding of verdicts.

mod batch;
pub(crate) mod campaign;
mod decoded;
mod envelope;
mod error;
mod flat;
mod mapped;
mod mapping;
mod native;
mod pieces;
mod plain;
mod repair;
mod scalar;
mod shape;
pub(crate) mod sighting;
mod text;
mod time;
pub mod verdict;

use std::ops::Range;

use serde::de::IgnoredAny;

pub use decoded::Decoded;
pub use error::DecodeError;
pub use text::Notes;

pub use crate::format::Format;

use crate::feed::{Feed, Tenant};
use crate::port::{BATCH_BYTES_MAX, RECORD_BYTES_MAX};
use crate::secret::{secrets, whole_strings};
use crate::token::{TokenHasher, TokenIds};

use envelope::{Budget, Compression, Contents, Part};
use error::offset_in;
use mapped::{Mapper, NO_TOKEN, Unread};
use mapping::table::Mapping;
use repair::Repaired;
use text::Screen;

/// Reads messages of one format.
#[derive(Debug)]
pub struct Decoder {
    format: Format,
    /// `None` for the native format.
    mapper: Option<Mapper>,
    tenant: Option<Tenant>,
    confirmed: bool,
    hasher: TokenHasher,
    notes: Notes,
}

/// Why a Kafka message without a value is skipped.
const TOMBSTONE: &str = "a message without a value";
/// Why an envelope without records is skipped.
const EMPTY: &str = "an envelope without a record";

/// Result of reading an object.
enum Found {
    /// It was passed on as an event, as skipped, or as an error.
    Record,
    /// Nothing was passed on. It may be a record without a token.
    NoToken,
    /// An envelope without records.
    Empty,
    /// Neither a record nor an envelope of records. The error has its position in the message.
    Foreign(DecodeError),
}

/// Nesting of the text that is being read.
struct Depth {
    /// Number of envelopes around it.
    levels: usize,
    /// It is one of several consecutive values.
    in_a_row: bool,
    /// Bytes to which the message may still expand.
    budget: Budget,
}

/// Receives the records.
type Take<'t, 'a> = dyn FnMut(Result<Decoded<'a>, DecodeError>) + 't;

impl Decoder {
    pub fn new(feed: impl Into<Feed>, hasher: TokenHasher) -> Self {
        let Feed { format, tenant, confirmed } = feed.into();
        Self {
            format,
            mapper: mapping::of(format).map(Mapper::new),
            tenant,
            confirmed,
            hasher,
            notes: Notes::default(),
        }
    }

    /// Returns the notes since the last call, and clears them.
    pub fn take_notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }

    /// Decodes the records in `payload` and passes each result to `take`, in order. Most records are one event. A record
    /// that is no event is passed on as an error, and the next one is read. A message may contain many records: in a
    /// JSON array, as consecutive values, or in the envelopes of their senders (`envelope`). It may be compressed.
    pub fn decode<'a>(&mut self, payload: &'a [u8], take: &mut dyn FnMut(Result<Decoded<'a>, DecodeError>)) {
        match self.tenant {
            None => self.whole(payload, take),
            Some(tenant) => self.whole(payload, &mut |decoded| take(decoded.map(|decoded| decoded.within(tenant)))),
        }
    }

    /// Decodes `payload`; the events keep their tenants.
    fn whole<'a>(&mut self, payload: &'a [u8], take: &mut Take<'_, 'a>) {
        if payload.is_empty() {
            return take(Ok(Decoded::Skipped(TOMBSTONE)));
        }
        if payload.len() > BATCH_BYTES_MAX {
            return take(Err(too_long(payload, 0, BATCH_BYTES_MAX)));
        }
        let mut depth = Depth { levels: 0, in_a_row: false, budget: Budget::new() };
        let found = self.message(payload, &mut depth, take);
        settle(found, take);
    }

    /// Decodes `payload`: a message, or the contents of an envelope.
    fn message<'a>(&mut self, payload: &'a [u8], depth: &mut Depth, take: &mut Take<'_, 'a>) -> Found {
        if let Some(compression) = Compression::of(payload) {
            return match compression.expand(payload, &mut depth.budget) {
                Ok(bytes) => self.inside(payload, 0, &bytes, depth, take),
                Err(reason) => {
                    take(Err(DecodeError::new(payload, 0, "", reason)));
                    Found::Record
                }
            };
        }
        match text_of(payload, envelope::without_schema_number(payload)) {
            Ok(text) => match envelope::wrapped(text) {
                Some(bytes) => self.inside(payload, 0, &bytes, depth, take),
                None => self.records(payload, text, Pass::First, depth, take),
            },
            Err(error) if error.is_syntax() => self.repaired(payload, payload, error, depth, take),
            Err(error) => {
                take(Err(error));
                Found::Record
            }
        }
    }

    /// Decodes `bytes`, which were compressed or escaped at byte `at` of `payload`. Events are copied, because they
    /// outlive the bytes.
    fn inside(&mut self, payload: &[u8], at: usize, bytes: &[u8], depth: &mut Depth, take: &mut Take<'_, '_>) -> Found {
        if depth.levels >= envelope::LEVELS_MAX {
            take(Err(DecodeError::new(payload, at, "", "too many envelopes in one another")));
            return Found::Record;
        }
        depth.levels += 1;
        let in_a_row = std::mem::replace(&mut depth.in_a_row, false);
        let mut owned = |decoded: Result<Decoded<'_>, DecodeError>| {
            take(decoded.map(Decoded::into_owned).map_err(|error| error.moved_to(payload, at)));
        };
        let found = self.message(bytes, depth, &mut owned);
        depth.levels -= 1;
        depth.in_a_row = in_a_row;
        match found {
            Found::Foreign(error) => Found::Foreign(error.moved_to(payload, at)),
            found => found,
        }
    }

    /// Decodes the records in `text`, a part of `payload`.
    fn records<'a>(
        &mut self,
        payload: &'a [u8],
        text: &'a str,
        pass: Pass,
        depth: &mut Depth,
        take: &mut Take<'_, 'a>,
    ) -> Found {
        let Some(records) = batch::of(text) else { return self.record(payload, text, pass, depth, take) };
        let mut each = |record| {
            let found = self.record(payload, record, pass, depth, take);
            settle(found, take);
        };
        match batch::each(payload, records, &mut each) {
            Ok(0) => return Found::Empty,
            Ok(_) => {}
            Err(error) => take(Err(error)),
        }
        Found::Record
    }

    /// Decodes the one record in `text`, a part of `payload`.
    fn record<'a>(
        &mut self,
        payload: &'a [u8],
        text: &'a str,
        pass: Pass,
        depth: &mut Depth,
        take: &mut Take<'_, 'a>,
    ) -> Found {
        let mut failed = None;
        let found = if text.len() > pass.record_bytes_max() {
            let base = offset_in(payload, text).unwrap_or_default();
            Found::Foreign(too_long(payload, base, RECORD_BYTES_MAX))
        } else {
            self.strict(payload, text, &mut |decoded| match decoded {
                Err(error) if error.is_syntax() => failed = Some(error),
                decoded => take(decoded),
            })
        };
        match (failed, found) {
            (Some(error), _) => match batch::in_a_row(text).filter(|_| !depth.in_a_row) {
                Some(records) => {
                    depth.in_a_row = true;
                    for record in records {
                        let found = self.records(payload, record, pass, depth, take);
                        settle(found, take);
                    }
                    depth.in_a_row = false;
                    Found::Record
                }
                None if pass == Pass::First => self.repaired(payload, text.as_bytes(), error, depth, take),
                None => {
                    if let Some(contents) = envelope::open_broken(text) {
                        return self.broken(payload, contents, (pass, error), depth, take);
                    }
                    take(Err(error));
                    Found::Record
                }
            },
            (None, found @ (Found::Foreign(_) | Found::NoToken)) => match envelope::open(text) {
                Some(contents) => self.unwrapped(payload, contents, (pass, found), depth, take),
                None => found,
            },
            (None, found) => found,
        }
    }

    /// Decodes the one record in `text`, a part of `payload`, if it is valid JSON.
    fn strict<'a>(&mut self, payload: &'a [u8], text: &'a str, take: &mut Take<'_, 'a>) -> Found {
        let base = offset_in(payload, text).unwrap_or_default();
        let mut screen = Screen::new(text.as_bytes(), &self.hasher, &mut self.notes);
        let Some(mapper) = &self.mapper else {
            if screen.is_clean()
                && let Some(event) = plain::decode(text, &mut screen)
            {
                take(Ok(Decoded::Event(event)));
                return Found::Record;
            }
            let decoded = native::decode(payload, base, text, self.confirmed, &mut screen);
            // The reader stops at the first fault of a record; a syntax error may follow.
            let decoded = decoded.map_err(|error| whole(payload, base, text).err().unwrap_or(error));
            return match decoded {
                Err(error) if !error.is_syntax() && !envelope::has_any(text, native::MARKS) => Found::Foreign(
                    foreign(self.format, text).map_or(error, |reason| DecodeError::new(payload, base, "", reason)),
                ),
                decoded => {
                    take(decoded.map(Decoded::Event));
                    Found::Record
                }
            };
        };
        match mapper.decode(payload, text, &mut screen, take) {
            Ok(()) => Found::Record,
            Err(Unread::NoToken) => Found::NoToken,
            Err(Unread::Foreign) => {
                let reason = foreign(self.format, text).unwrap_or_else(|| format!("no {} record", self.format.title()));
                Found::Foreign(DecodeError::new(payload, base, "", reason))
            }
        }
    }

    /// Decodes the records in an object with these `contents`. `found` is the result for the object as a record.
    fn unwrapped<'a>(
        &mut self,
        payload: &'a [u8],
        contents: Contents<'a>,
        (pass, found): (Pass, Found),
        depth: &mut Depth,
        take: &mut Take<'_, 'a>,
    ) -> Found {
        if depth.levels >= envelope::LEVELS_MAX {
            return found;
        }
        depth.levels += 1;
        let mut foreign = None;
        for member in contents.members {
            let at = offset_in(payload, member).unwrap_or_default();
            let mut any = false;
            envelope::parts(member, &mut |part| {
                let inner = match part {
                    Part::Object(text) => self.record(payload, text, pass, depth, take),
                    Part::Bytes(bytes) => self.inside(payload, at, &bytes, depth, take),
                };
                match inner {
                    Found::Record => any = true,
                    Found::NoToken => {
                        take(Ok(Decoded::Skipped(NO_TOKEN)));
                        any = true;
                    }
                    Found::Empty => {}
                    Found::Foreign(error) => foreign = foreign.take().or(Some(error)),
                }
            });
            if any {
                depth.levels -= 1;
                return Found::Record;
            }
        }
        depth.levels -= 1;
        match (foreign, found) {
            // A record of another format inside is the more useful error.
            (Some(error), _) if contents.is_envelope && names_another_format(&error) => Found::Foreign(error),
            (_, Found::NoToken) => Found::NoToken,
            (_, _) if contents.is_envelope => Found::Empty,
            (_, found) => found,
        }
    }

    /// Decodes the readable records in a damaged envelope with these `contents`. Without any, passes on the error.
    fn broken<'a>(
        &mut self,
        payload: &'a [u8],
        contents: Contents<'a>,
        (pass, error): (Pass, DecodeError),
        depth: &mut Depth,
        take: &mut Take<'_, 'a>,
    ) -> Found {
        let found = self.unwrapped(payload, contents, (pass, Found::Empty), depth, take);
        if !matches!(found, Found::Record) {
            take(Err(error));
        }
        Found::Record
    }

    /// Decodes `part` of `payload` after a repair. If the repair does not help, passes on `error`, the error without
    /// it. Events are copied, because they outlive the repaired text.
    fn repaired<'a>(
        &mut self,
        payload: &'a [u8],
        part: &'a [u8],
        error: DecodeError,
        depth: &mut Depth,
        take: &mut Take<'_, 'a>,
    ) -> Found {
        let repaired = repair::repair(part);
        let is_whole = |repaired: &Repaired| serde_json::from_str::<IgnoredAny>(&repaired.text).is_ok();
        if !repaired.as_ref().is_some_and(is_whole)
            && let Ok(text) = std::str::from_utf8(part)
            && let Some(contents) = envelope::open_broken(text)
        {
            return self.broken(payload, contents, (Pass::First, error), depth, take);
        }
        let Some(repaired) = repaired else {
            take(Err(error));
            return Found::Record;
        };
        let base = offset_in(payload, part).unwrap_or_default();
        let bytes = repaired.text.as_bytes();
        let mut error = Some(error);
        let mut take = |decoded: Result<Decoded<'_>, DecodeError>| match decoded {
            Ok(decoded) => take(Ok(decoded.into_owned())),
            Err(again) => {
                let byte = base + repaired.origin(again.at.byte);
                // The first error has the place where the message breaks.
                let first = error.take_if(|_| again.is_syntax());
                take(Err(first.unwrap_or_else(|| again.moved_to(payload, byte))));
            }
        };
        match text_of(bytes, bytes) {
            Ok(text) => match self.records(bytes, text, Pass::Repaired, depth, &mut take) {
                Found::Foreign(error) => {
                    let byte = base + repaired.origin(error.at.byte);
                    Found::Foreign(error.moved_to(payload, byte))
                }
                found => found,
            },
            Err(error) => {
                take(Err(error));
                Found::Record
            }
        }
    }
}

/// Whether `text`, which begins at byte `base` of `payload`, is one JSON value and nothing else.
fn whole(payload: &[u8], base: usize, text: &str) -> Result<(), DecodeError> {
    let valid = serde_json::from_str::<IgnoredAny>(text);
    valid.map(|_| ()).map_err(|error| DecodeError::json(payload, base, text, &error, None))
}

/// Passes on the result for an object in which no further records are searched.
fn settle(found: Found, take: &mut Take<'_, '_>) {
    match found {
        Found::Record => {}
        Found::NoToken => take(Ok(Decoded::Skipped(NO_TOKEN))),
        Found::Empty => take(Ok(Decoded::Skipped(EMPTY))),
        Found::Foreign(error) => take(Err(error)),
    }
}

/// The error for an object that is no record of `format` but has the members of another format.
fn foreign(format: Format, text: &str) -> Option<String> {
    let is_native = || format != Format::Native && envelope::has_any(text, native::MARKS);
    let of_mapping =
        |of: Format| mapping::of(of).is_some_and(|mapping: &Mapping| envelope::has_all(text, mapping.looks));
    let other = Format::ALL.into_iter().find(|other| *other != format && of_mapping(*other));
    let other = other.or_else(|| is_native().then_some(Format::Native))?;
    Some(format!("no {} record: {LOOKS_LIKE}{}", format.title(), other.title()))
}

const LOOKS_LIKE: &str = "looks like ";

/// Whether the error names the format of a foreign object.
fn names_another_format(error: &DecodeError) -> bool {
    error.field.is_empty() && error.reason.contains(LOOKS_LIKE)
}

/// Number of attempts to read a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    First,
    Repaired,
}

impl Pass {
    /// A repair makes a text longer by at most [`repair::GROWTH_BYTES_MAX`].
    const fn record_bytes_max(self) -> usize {
        match self {
            Self::First => RECORD_BYTES_MAX,
            Self::Repaired => RECORD_BYTES_MAX + repair::GROWTH_BYTES_MAX,
        }
    }
}

/// The text of `body`, the end of a message, without a byte order mark.
fn text_of<'a>(payload: &[u8], body: &'a [u8]) -> Result<&'a str, DecodeError> {
    let text = std::str::from_utf8(body).map_err(|error| match error.error_len() {
        // The source cut it in the middle of a character.
        None if payload.len() > RECORD_BYTES_MAX => too_long(payload, 0, RECORD_BYTES_MAX),
        _ => DecodeError::not_utf8(payload, error.valid_up_to()),
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.strip_prefix(pieces::RECORD_SEPARATOR).unwrap_or(text);
    if text.trim_ascii().is_empty() { Err(DecodeError::new(payload, 0, "", "an empty message")) } else { Ok(text) }
}

fn too_long(payload: &[u8], byte: usize, bytes_max: usize) -> DecodeError {
    DecodeError::new(payload, byte, "", format!("longer than {bytes_max} bytes"))
}

/// `payload` with every bearer value replaced by its keyed hash, for a dead letter. With [`TokenIds::Hashed`], token
/// ids are replaced too. If a source has cut the payload, the last word is removed, because a cut token is not recognised.
pub fn redact(payload: &[u8], hasher: &TokenHasher) -> Vec<u8> {
    let is_cut = [RECORD_BYTES_MAX + 1, BATCH_BYTES_MAX + 1].contains(&payload.len());
    let payload = if is_cut { without_last_word(payload) } else { payload };
    let clean = replaced(payload, secrets(payload), hasher);
    let whole = whole_strings(&clean, hasher.ids() == TokenIds::Hashed);
    replaced(&clean, whole, hasher)
}

/// `text` up to the last byte that is in no token and no percent-encoded value, except in its first part.
fn without_last_word(text: &[u8]) -> &[u8] {
    const WORD_BYTES_MAX: usize = 64 << 10;
    let is_between = |byte: &u8| byte.is_ascii_control() || b" \"',;&?<>()[]{}|".contains(byte);
    let (kept, last) = text.split_at(text.len().saturating_sub(WORD_BYTES_MAX));
    let end = last.iter().rposition(is_between).map_or(0, |at| at + 1);
    text.get(..kept.len() + end).unwrap_or_default()
}

/// `text` with the contents of each of `ranges` replaced by a keyed hash.
fn replaced(text: &[u8], ranges: impl Iterator<Item = Range<usize>>, hasher: &TokenHasher) -> Vec<u8> {
    let mut clean = Vec::with_capacity(text.len());
    let mut copied = 0;
    for range in ranges {
        clean.extend_from_slice(text.get(copied..range.start).unwrap_or_default());
        clean.extend_from_slice(hasher.hash(text.get(range.clone()).unwrap_or_default()).as_bytes());
        copied = range.end;
    }
    clean.extend_from_slice(text.get(copied..).unwrap_or_default());
    clean
}
