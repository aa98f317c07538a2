//! From bytes to events and from verdicts to bytes.

mod error;
mod native;
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
use text::Screen;

/// What one record holds.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are events, and a box for each would be an allocation")]
pub enum Decoded<'a> {
    Event(Event<'a>),
    /// A record that speaks of no token, and why.
    Skipped(&'static str),
}

/// Reads messages of one format.
#[derive(Debug)]
pub struct Decoder {
    format: Format,
    hasher: TokenHasher,
    redactions: u64,
}

impl Decoder {
    #[must_use]
    pub fn new(format: Format, hasher: TokenHasher) -> Self {
        Self { format, hasher, redactions: 0 }
    }

    /// Values replaced so far because they looked like bearer tokens.
    #[must_use]
    pub const fn redactions(&self) -> u64 {
        self.redactions
    }

    /// Hands every record in `payload` to `take`, in order: one, or as many as a batch of a mapped format holds. A
    /// record that is no event is handed on as an error, and the next one is read.
    pub fn decode<'a>(&mut self, payload: &'a [u8], take: &mut dyn FnMut(Result<Decoded<'a>, DecodeError>)) {
        let text = match text_of(payload) {
            Ok(text) => text,
            Err(error) => return take(Err(error)),
        };
        take(self.record(payload, text));
    }

    /// The one record in `text`, a part of `payload`.
    fn record<'a>(&mut self, payload: &'a [u8], text: &'a str) -> Result<Decoded<'a>, DecodeError> {
        let base = error::offset_in(payload, text).unwrap_or_default();
        if text.len() > RECORD_BYTES_MAX {
            let reason = format!("a record longer than {RECORD_BYTES_MAX} bytes");
            return Err(DecodeError::new(payload, base + RECORD_BYTES_MAX, "", reason));
        }
        let mut screen = Screen::new(text.as_bytes(), &self.hasher, &mut self.redactions);
        match self.format {
            Format::Native => native::decode(payload, base, text, &mut screen).map(Decoded::Event),
            _ => Err(DecodeError::new(payload, base, "", "only the native format is read so far")),
        }
    }
}

/// A message's text, without a byte order mark.
fn text_of(payload: &[u8]) -> Result<&str, DecodeError> {
    let text = std::str::from_utf8(payload)
        .map_err(|error| DecodeError::new(payload, error.valid_up_to(), "", "not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_ascii().is_empty() { Err(DecodeError::new(payload, 0, "", "an empty message")) } else { Ok(text) }
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
