//! Errors of decoding.

use std::borrow::Cow;
use std::fmt;

use super::shape;
use crate::checkpoint::Spot;

/// Reason for a field that a record contains twice.
pub(crate) const TWICE: &str = "given twice";

/// Reason and position of a decoding error. Contains no part of the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The field at fault, by its name in the message's format; empty if the error concerns the whole message.
    pub(crate) field: Cow<'static, str>,
    /// The same text for the same error at every position, so that dead letters can be grouped by it.
    pub(crate) reason: Cow<'static, str>,
    pub at: Spot,
    /// The message is not JSON.
    is_syntax: bool,
}

impl DecodeError {
    /// A fault at byte `byte` of `payload`.
    pub(crate) fn new(
        payload: &[u8],
        byte: usize,
        field: impl Into<Cow<'static, str>>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { field: field.into(), reason: reason.into(), at: spot(payload, byte), is_syntax: false }
    }

    /// The JSON reader's `error` on `text`, a part of `payload` that begins at byte `base`. `fault` is the fault for
    /// which our visitor stopped the reader.
    pub(crate) fn json(
        payload: &[u8],
        base: usize,
        text: &str,
        error: &serde_json::Error,
        fault: Option<Fault>,
    ) -> Self {
        let line_start = match error.line() {
            0 | 1 => 0,
            line => memchr::memchr_iter(b'\n', text.as_bytes()).nth(line - 2).map_or(text.len(), |at| at + 1),
        };
        let at = base + (line_start + error.column().saturating_sub(1)).min(text.len());
        if !error.is_data() {
            return Self { is_syntax: true, ..Self::new(payload, at, "", not_json(text, error)) };
        }
        let Fault { field, reason } = fault.unwrap_or(Fault { field: "", reason: "expected a JSON object" });
        Self::new(payload, at, field, reason)
    }

    /// The message is not UTF-8 from byte `at` on, and therefore not JSON.
    pub(crate) fn not_utf8(payload: &[u8], at: usize) -> Self {
        let reason = format!("not UTF-8: looks like {}", shape::of(payload));
        Self { is_syntax: true, ..Self::new(payload, at, "", reason) }
    }

    pub(crate) const fn is_syntax(&self) -> bool {
        self.is_syntax
    }

    /// The same fault at byte `byte` of `payload`.
    pub(crate) fn moved_to(self, payload: &[u8], byte: usize) -> Self {
        Self { at: spot(payload, byte), ..self }
    }

    /// Field and reason, without the position: the same text for the same fault.
    pub fn cause(&self) -> String {
        let Self { field, reason, .. } = self;
        if field.is_empty() { reason.to_string() } else { format!("{field}: {reason}") }
    }
}

/// Why `text` is not JSON. If it does not begin as JSON, the reason names its probable format.
fn not_json(text: &str, error: &serde_json::Error) -> String {
    if !text.trim_ascii_start().starts_with(['{', '[']) {
        return format!("not JSON: looks like {}", shape::of(text.as_bytes()));
    }
    if error.is_eof() {
        return "not JSON: looks like truncated JSON".to_owned();
    }
    // The reader's syntax errors are fixed texts; its data errors would quote the data.
    let words = error.to_string();
    let reason = words.rsplit_once(" at line ").map_or(words.as_str(), |(reason, _)| reason);
    format!("not JSON: {reason}")
}

/// Position of byte `byte` in `payload`, or of its end.
fn spot(payload: &[u8], byte: usize) -> Spot {
    let before = payload.get(..byte).unwrap_or(payload);
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
    Spot {
        byte: before.len(),
        line: memchr::memchr_iter(b'\n', before).count() + 1,
        column: before.len() - line_start + 1,
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at {}", self.cause(), self.at)
    }
}

impl std::error::Error for DecodeError {}

/// Error in a field, before its position is known.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) field: &'static str,
    pub(crate) reason: &'static str,
}

/// Offset of `part` in `whole`, if it was borrowed from it.
pub(crate) fn offset_in(whole: &[u8], part: impl AsRef<[u8]>) -> Option<usize> {
    let part = part.as_ref();
    let at = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    (at + part.len() <= whole.len()).then_some(at)
}
