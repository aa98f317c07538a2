//! Why a message is no event.

use std::borrow::Cow;
use std::fmt;

/// What is wrong with a message, and where. Holds and shows no part of the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The field at fault, by its name in the message's format; empty where it is the message as a whole.
    pub field: Cow<'static, str>,
    pub reason: Cow<'static, str>,
    /// Where the fault was noticed: byte of the message, from 0.
    pub byte: usize,
    /// From 1.
    pub line: usize,
    /// In bytes, from 1.
    pub column: usize,
}

impl DecodeError {
    /// A fault at byte `byte` of `payload`.
    pub(crate) fn new(
        payload: &[u8],
        byte: usize,
        field: impl Into<Cow<'static, str>>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        let before = payload.get(..byte).unwrap_or(payload);
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
        Self {
            field: field.into(),
            reason: reason.into(),
            byte: before.len(),
            line: memchr::memchr_iter(b'\n', before).count() + 1,
            column: before.len() - line_start + 1,
        }
    }

    /// What the JSON reader says of `text`, a part of `payload` that begins at byte `base`. `fault` is what we
    /// made the reader stop for.
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
            // The reader's words about syntax are fixed; its words about data would quote the data.
            let words = error.to_string();
            let reason = words.rsplit_once(" at line ").map_or(words.as_str(), |(reason, _)| reason);
            return Self::new(payload, at, "", format!("not JSON: {reason}"));
        }
        let Fault { field, reason } = fault.unwrap_or(Fault { field: "", reason: "expected a JSON object" });
        Self::new(payload, at, field, reason)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, reason, byte, line, column } = self;
        let separator = if field.is_empty() { "" } else { ": " };
        write!(f, "{field}{separator}{reason}, at line {line} column {column} (byte {byte})")
    }
}

impl std::error::Error for DecodeError {}

/// A field's fault, before its position is known.
#[derive(Debug)]
pub(crate) struct Fault {
    pub field: &'static str,
    pub reason: &'static str,
}

/// Where `part` lies in `whole`, if it was borrowed from it.
pub(crate) fn offset_in(whole: &[u8], part: &str) -> Option<usize> {
    let at = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    (at + part.len() <= whole.len()).then_some(at)
}
