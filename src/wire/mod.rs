//! From bytes to events and from verdicts to bytes.

mod batch;
mod error;
mod flat;
mod mapped;
mod mapping;
mod native;
mod plain;
mod repair;
mod scalar;
mod shape;
mod text;
mod time;
pub mod verdict;

use std::borrow::Cow;

pub use error::DecodeError;
pub use text::{Notes, UNREADABLE};

pub use crate::format::Format;

use crate::event::Event;
use crate::feed::{Feed, Tenant};
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
    tenant: Option<Tenant>,
    hasher: TokenHasher,
    notes: Notes,
}

impl Decoder {
    #[must_use]
    pub fn new(feed: impl Into<Feed>, hasher: TokenHasher) -> Self {
        let Feed { format, tenant, .. } = feed.into();
        Self { mapper: mapping::of(format).map(Mapper::new), tenant, hasher, notes: Notes::default() }
    }

    /// What was noted since this was last called.
    pub fn take_notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }

    /// Hands everything in `payload` to `take`, in order. A record is one event as a rule. A record that is no event
    /// is handed on as an error, and the next one is read. A message of a mapped format may hold many records: as a
    /// JSON array, or as CloudTrail's `{"Records":[…]}`.
    pub fn decode<'a>(&mut self, payload: &'a [u8], take: &mut dyn FnMut(Result<Decoded<'a>, DecodeError>)) {
        match self.tenant {
            None => self.message(payload, take),
            Some(tenant) => self.message(payload, &mut |decoded| take(decoded.map(|decoded| decoded.within(tenant)))),
        }
    }

    /// Everything in `payload`, in the tenants that events name.
    fn message<'a>(&mut self, payload: &'a [u8], take: &mut dyn FnMut(Result<Decoded<'a>, DecodeError>)) {
        let bytes_max = if self.mapper.is_some() { BATCH_BYTES_MAX } else { RECORD_BYTES_MAX };
        if payload.len() > bytes_max {
            return take(Err(too_long(payload, 0, bytes_max)));
        }
        match text_of(payload) {
            Ok(text) => self.records(payload, text, Pass::First, take),
            Err(error) if error.is_syntax() => self.repaired(payload, payload, error, take),
            Err(error) => take(Err(error)),
        }
    }

    /// The records in `text`, a part of `payload`.
    fn records<'a>(
        &mut self,
        payload: &'a [u8],
        text: &'a str,
        pass: Pass,
        take: &mut dyn FnMut(Result<Decoded<'a>, DecodeError>),
    ) {
        match self.mapper.as_ref().and_then(|mapper| batch::of(text, mapper.batch())) {
            None => self.record(payload, text, pass, take),
            Some(records) => {
                let mut each = |record| self.record(payload, record, pass, take);
                if let Err(error) = batch::each(payload, records, &mut each) {
                    take(Err(error));
                }
            }
        }
    }

    /// The one record in `text`, a part of `payload`.
    fn record<'a>(
        &mut self,
        payload: &'a [u8],
        text: &'a str,
        pass: Pass,
        take: &mut dyn FnMut(Result<Decoded<'a>, DecodeError>),
    ) {
        if text.len() > pass.record_bytes_max() {
            let base = offset_in(payload, text).unwrap_or_default();
            return take(Err(too_long(payload, base, RECORD_BYTES_MAX)));
        }
        let mut failed = None;
        self.strict(payload, text, &mut |decoded| match decoded {
            Err(error) if error.is_syntax() && pass == Pass::First => failed = Some(error),
            decoded => take(decoded),
        });
        if let Some(error) = failed {
            self.repaired(payload, text.as_bytes(), error, take);
        }
    }

    /// The one record in `text`, a part of `payload`, if it is JSON in all its parts.
    fn strict<'a>(&mut self, payload: &'a [u8], text: &'a str, take: &mut dyn FnMut(Result<Decoded<'a>, DecodeError>)) {
        let base = offset_in(payload, text).unwrap_or_default();
        let mut screen = Screen::new(text.as_bytes(), &self.hasher, &mut self.notes);
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

    /// What `part` of `payload` holds once it is repaired. It has failed with `error`, which stands where the repair
    /// does not help. Events are copied here, because they outlive the repaired text.
    fn repaired<'a>(
        &mut self,
        payload: &'a [u8],
        part: &[u8],
        error: DecodeError,
        take: &mut dyn FnMut(Result<Decoded<'a>, DecodeError>),
    ) {
        let Some(repaired) = repair::repair(part) else { return take(Err(error)) };
        let base = offset_in(payload, part).unwrap_or_default();
        let bytes = repaired.text.as_bytes();
        let mut error = Some(error);
        let mut take = |decoded: Result<Decoded<'_>, DecodeError>| match decoded {
            Ok(decoded) => take(Ok(decoded.into_owned())),
            Err(again) if again.is_syntax() => {
                // The first error has the place where the message breaks, and is handed on once.
                if let Some(error) = error.take() {
                    take(Err(error));
                }
            }
            Err(again) => {
                let byte = base + repaired.origin(again.at.byte);
                take(Err(again.moved_to(payload, byte)));
            }
        };
        match text_of(bytes) {
            Ok(text) => self.records(bytes, text, Pass::Repaired, &mut take),
            Err(error) => take(Err(error)),
        }
    }
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

impl Decoded<'_> {
    /// The same in the tenant that the operator names. What the event says of its tenant is kept as an attribute.
    fn within(mut self, tenant: Tenant) -> Self {
        if let Self::Event(event) = &mut self {
            let sent = event.tenant_id.replace(Cow::Borrowed(tenant.as_str()));
            if let Some(sent) = sent.filter(|sent| sent != tenant.as_str()) {
                event.attrs.push((Cow::Borrowed("tenant_id"), sent));
            }
        }
        self
    }

    fn into_owned(self) -> Decoded<'static> {
        match self {
            Self::Event(event) => Decoded::Event(event.into_owned()),
            Self::Skipped(reason) => Decoded::Skipped(reason),
        }
    }
}

/// A message's text, without a byte order mark.
fn text_of(payload: &[u8]) -> Result<&str, DecodeError> {
    let text = std::str::from_utf8(payload).map_err(|error| match error.error_len() {
        // Cut by its source, and in the middle of a character.
        None if payload.len() > RECORD_BYTES_MAX => too_long(payload, 0, RECORD_BYTES_MAX),
        _ => DecodeError::not_utf8(payload, error.valid_up_to()),
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
