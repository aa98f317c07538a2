//! From bytes to events and from verdicts to bytes.

mod batch;
mod error;
mod flat;
mod mapped;
mod mapping;
mod native;
mod plain;
mod scalar;
mod text;
mod time;
pub mod verdict;

pub use error::DecodeError;

pub use crate::format::Format;

use crate::event::Event;
use crate::port::RECORD_BYTES_MAX;
use crate::secret::secrets;
use crate::token::TokenHasher;

use error::offset_in;
use mapped::Mapper;
use text::Screen;

/// What one record holds.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are events, and a box for each would be an allocation")]
pub enum Decoded<'a> {
    Event(Event<'a>),
    /// A record that speaks of no token, and why.
    Skipped(&'static str),
}

/// Longest message that holds a batch of records, bytes.
pub const BATCH_BYTES_MAX: usize = 64 << 20;

/// Reads messages of one format.
#[derive(Debug)]
pub struct Decoder {
    /// None for the native format.
    mapper: Option<Mapper>,
    hasher: TokenHasher,
    redactions: u64,
}

impl Decoder {
    #[must_use]
    pub fn new(format: Format, hasher: TokenHasher) -> Self {
        Self { mapper: mapping::of(format).map(Mapper::new), hasher, redactions: 0 }
    }

    /// Values replaced so far because they looked like bearer tokens.
    #[must_use]
    pub const fn redactions(&self) -> u64 {
        self.redactions
    }

    /// Hands everything in `payload` to `take`, in order. A record is one event as a rule. A record that is no event
    /// is handed on as an error, and the next one is read. A message of a mapped format may hold many records: as a
    /// JSON array, or as CloudTrail's `{"Records":[…]}`.
    pub fn decode<'a>(&mut self, payload: &'a [u8], take: &mut dyn FnMut(Result<Decoded<'a>, DecodeError>)) {
        let bytes_max = if self.mapper.is_some() { BATCH_BYTES_MAX } else { RECORD_BYTES_MAX };
        if payload.len() > bytes_max {
            return take(Err(too_long(payload, 0, bytes_max)));
        }
        let text = match text_of(payload) {
            Ok(text) => text,
            Err(error) => return take(Err(error)),
        };
        match self.mapper.as_ref().and_then(|mapper| batch::of(text, mapper.batch())) {
            None => self.record(payload, text, take),
            Some(records) => {
                if let Err(error) = batch::each(payload, records, &mut |record| self.record(payload, record, take)) {
                    take(Err(error));
                }
            }
        }
    }

    /// The one record in `text`, a part of `payload`.
    fn record<'a>(&mut self, payload: &'a [u8], text: &'a str, take: &mut dyn FnMut(Result<Decoded<'a>, DecodeError>)) {
        let base = offset_in(payload, text).unwrap_or_default();
        if text.len() > RECORD_BYTES_MAX {
            return take(Err(too_long(payload, base, RECORD_BYTES_MAX)));
        }
        let mut screen = Screen::new(text.as_bytes(), &self.hasher, &mut self.redactions);
        match &self.mapper {
            None => {
                if screen.is_clean()
                    && let Some(event) = plain::decode(text, &mut screen)
                {
                    return take(Ok(Decoded::Event(event)));
                }
                take(native::decode(payload, base, text, &mut screen).map(Decoded::Event));
            }
            Some(mapper) => mapper.decode(payload, base, text, &mut screen, take),
        }
    }
}

/// A message's text, without a byte order mark.
fn text_of(payload: &[u8]) -> Result<&str, DecodeError> {
    let text = std::str::from_utf8(payload).map_err(|error| match error.error_len() {
        // Cut by its source, and in the middle of a character.
        None if payload.len() > RECORD_BYTES_MAX => too_long(payload, 0, RECORD_BYTES_MAX),
        _ => DecodeError::new(payload, error.valid_up_to(), "", "not UTF-8"),
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_ascii().is_empty() { Err(DecodeError::new(payload, 0, "", "an empty message")) } else { Ok(text) }
}

fn too_long(payload: &[u8], byte: usize, bytes_max: usize) -> DecodeError {
    DecodeError::new(payload, byte, "", format!("longer than {bytes_max} bytes"))
}

/// `payload` with every bearer value in it replaced by its keyed hash: what may be kept of a message that could not be
/// read.
#[must_use]
pub fn redact(payload: &[u8], hasher: &TokenHasher) -> Vec<u8> {
    let mut clean = Vec::with_capacity(payload.len());
    let mut copied = 0;
    for secret in secrets(payload) {
        clean.extend_from_slice(payload.get(copied..secret.start).unwrap_or_default());
        clean.extend_from_slice(hasher.hash(payload.get(secret.clone()).unwrap_or_default()).as_bytes());
        copied = secret.end;
    }
    clean.extend_from_slice(payload.get(copied..).unwrap_or_default());
    clean
}
