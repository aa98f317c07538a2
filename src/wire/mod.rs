//! From bytes to events and from verdicts to bytes.

mod batch;
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
mod text;
mod time;
pub mod verdict;

use std::ops::Range;

use serde::de::IgnoredAny;

pub use decoded::Decoded;
pub use error::DecodeError;
pub use text::{Notes, UNREADABLE};

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
    /// None for the native format.
    mapper: Option<Mapper>,
    tenant: Option<Tenant>,
    hasher: TokenHasher,
    notes: Notes,
}

/// Why a Kafka message without a value is skipped.
const TOMBSTONE: &str = "a message without a value";
/// Why a wrapping is skipped that holds nothing, or nothing that can be a record.
const EMPTY: &str = "an envelope without a record";

/// What became of an object.
enum Found {
    /// It was handed on: as an event, as skipped, or as an error.
    Record,
    /// Nothing was: it may be a record that speaks of no token.
    NoToken,
    /// A wrapping with nothing of use inside.
    Empty,
    /// It is no record, and holds none; in which place of the message it lies.
    Foreign(DecodeError),
}

/// How what is read lies in its message.
struct Depth {
    /// Wrappings around it.
    levels: usize,
    /// It is one of several values that stand one behind another.
    in_a_row: bool,
    /// What may still be expanded of the message.
    budget: Budget,
}

/// Where records are handed to.
type Take<'t, 'a> = dyn FnMut(Result<Decoded<'a>, DecodeError>) + 't;

impl Decoder {
    #[must_use]
    pub fn new(feed: impl Into<Feed>, hasher: TokenHasher) -> Self {
        let Feed { format, tenant, .. } = feed.into();
        Self { format, mapper: mapping::of(format).map(Mapper::new), tenant, hasher, notes: Notes::default() }
    }

    /// What was noted since this was last called.
    pub fn take_notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }

    /// Hands everything in `payload` to `take`, in order. A record is one event as a rule. A record that is no event
    /// is handed on as an error, and the next one is read. A message may hold many records: as a JSON array, one behind
    /// another, or in the wrappings (`envelope`) in which their senders deliver them; and it may be compressed.
    pub fn decode<'a>(&mut self, payload: &'a [u8], take: &mut dyn FnMut(Result<Decoded<'a>, DecodeError>)) {
        match self.tenant {
            None => self.whole(payload, take),
            Some(tenant) => self.whole(payload, &mut |decoded| take(decoded.map(|decoded| decoded.within(tenant)))),
        }
    }

    /// Everything in `payload`, in the tenants that events name.
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

    /// What is in `payload`: a message, or what stood in another one.
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

    /// What is in `bytes`, which stood at byte `at` of `payload` in another form. Events are copied, because they outlive
    /// the bytes.
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

    /// The records in `text`, a part of `payload`.
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

    /// The one record in `text`, a part of `payload`.
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

    /// The one record in `text`, a part of `payload`, if it is JSON in all its parts.
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
            let decoded = native::decode(payload, base, text, &mut screen);
            // The reader stops at the first fault of a record, and another one may follow.
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

    /// The records that stand in an object with these `contents`, which is none itself: it was `found` to be none.
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
            // A record of another format in it says more than that the wrapping is no record.
            (Some(error), _) if contents.is_envelope && names_another_format(&error) => Found::Foreign(error),
            (_, Found::NoToken) => Found::NoToken,
            (_, _) if contents.is_envelope => Found::Empty,
            (_, found) => found,
        }
    }

    /// The records that can be read in an envelope with these `contents`, which as a whole fails with this error.
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

    /// What `part` of `payload` holds once it is repaired. It has failed with `error`, which stands where the repair
    /// does not help. Events are copied here, because they outlive the repaired text.
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

/// Hands on what an object was found to be that nothing else is to be looked for in.
fn settle(found: Found, take: &mut Take<'_, '_>) {
    match found {
        Found::Record => {}
        Found::NoToken => take(Ok(Decoded::Skipped(NO_TOKEN))),
        Found::Empty => take(Ok(Decoded::Skipped(EMPTY))),
        Found::Foreign(error) => take(Err(error)),
    }
}

/// What the object in `text` looks like, which is no record of `format`: of which format it is one.
fn foreign(format: Format, text: &str) -> Option<String> {
    let is_native = || format != Format::Native && envelope::has_any(text, native::MARKS);
    let of_mapping =
        |of: Format| mapping::of(of).is_some_and(|mapping: &Mapping| envelope::has_all(text, mapping.looks));
    let other = Format::ALL.into_iter().find(|other| *other != format && of_mapping(*other));
    let other = other.or_else(|| is_native().then_some(Format::Native))?;
    Some(format!("no {} record: {LOOKS_LIKE}{}", format.title(), other.title()))
}

const LOOKS_LIKE: &str = "looks like ";

/// Whether an error says what a foreign object looks like.
fn names_another_format(error: &DecodeError) -> bool {
    error.field.is_empty() && error.reason.contains(LOOKS_LIKE)
}

/// How often a text was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    First,
    Repaired,
}

impl Pass {
    /// A repair makes a text longer, by [`repair::GROWTH_BYTES_MAX`] at the most.
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
        // Cut by its source, and in the middle of a character.
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

/// `payload` with every bearer value in it replaced by its keyed hash, and every token id too where the operator wants
/// that: what may be kept of a message that could not be read.
#[must_use]
pub fn redact(payload: &[u8], hasher: &TokenHasher) -> Vec<u8> {
    let clean = replaced(payload, secrets(payload), hasher);
    let whole = whole_strings(&clean, hasher.ids() == TokenIds::Hashed);
    replaced(&clean, whole, hasher)
}

/// `text` with what lies in `ranges` replaced by its keyed hash.
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
