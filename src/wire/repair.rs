//! Makes a message readable that contains texts or numbers that a JSON reader refuses.
//!
//! A client chooses most of an event's contents, so a lone surrogate in its user agent must not make the event
//! unreadable. Each such place is replaced by the escape of NUL. [`Screen`](super::text::Screen) recognises the NUL in
//! the text of a field. Errors in the structure of a message are not repaired.

use std::borrow::Cow;

/// Why a text field is unreadable. All of these have one reason, because the repair replaces each by NUL.
pub(crate) const BAD_TEXT: &str = "holds a NUL, a lone surrogate or bytes that are not UTF-8";

/// Maximum number of bytes by which a repair may lengthen a message; otherwise there is no repair.
pub(crate) const GROWTH_BYTES_MAX: usize = 1 << 20;

/// Replaces one unreadable character.
const MARK: &str = "\\u0000";
/// Replaces one unreadable value.
const MARKED_VALUE: &str = "\"\\u0000\"";

/// A message after its repair.
pub(crate) struct Repaired {
    pub(crate) text: String,
    /// Positions in `text`, in order, and the number of bytes by which the text before them is longer than the message.
    growth: Vec<(usize, usize)>,
}

impl Repaired {
    /// Position in the message of byte `at` of the text.
    pub(crate) fn origin(&self, at: usize) -> usize {
        let growth = self.growth.iter().rev().find(|(from, _)| *from <= at).map_or(0, |(_, growth)| *growth);
        at.saturating_sub(growth)
    }
}

/// `message` with all repairable places replaced, `None` if there are none.
pub(crate) fn repair(message: &[u8]) -> Option<Repaired> {
    let start = message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message).trim_ascii_start();
    if !matches!(start, [b'{' | b'[' | b'"', ..]) {
        return None;
    }
    let mut out = Repaired { text: String::with_capacity(message.len() + 64), growth: Vec::new() };
    let (mut in_string, mut found) = (false, false);
    for chunk in message.utf8_chunks() {
        let text = chunk.valid();
        let mut at = 0;
        while let Some(&byte) = text.as_bytes().get(at) {
            let part = if in_string { in_text(text, at) } else { in_structure(text, at) };
            let length = part.length;
            in_string ^= byte == b'"';
            match part.instead {
                Some(instead) => {
                    found = true;
                    out.put(instead, length);
                }
                None => out.text.push_str(text.get(at..at + length).unwrap_or_default()),
            }
            at += length;
            if out.growth() > GROWTH_BYTES_MAX {
                return None;
            }
        }
        if !chunk.invalid().is_empty() {
            found = true;
            out.put(if in_string { MARK } else { "\u{fffd}" }, chunk.invalid().len());
            if out.growth() > GROWTH_BYTES_MAX {
                return None;
            }
        }
    }
    found.then_some(out)
}

/// Whether `text` contains an unreadable character, marked by a NUL. Only an escape gives a NUL, and a text with an
/// escape is never borrowed.
#[expect(clippy::ptr_arg, reason = "the check depends on whether the text is borrowed")]
pub(crate) fn is_broken(text: &Cow<'_, str>) -> bool {
    matches!(text, Cow::Owned(text) if text.contains('\0'))
}

/// `text` with U+FFFD in place of each NUL.
pub(crate) fn shown(text: Cow<'_, str>) -> Cow<'_, str> {
    if is_broken(&text) { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { text }
}

impl Repaired {
    fn growth(&self) -> usize {
        self.growth.last().map_or(0, |(_, growth)| *growth)
    }

    fn put(&mut self, instead: &str, length: usize) {
        self.text.push_str(instead);
        let before = self.growth();
        let growth = (before + instead.len()).saturating_sub(length);
        if growth != before {
            self.growth.push((self.text.len(), growth));
        }
    }
}

/// Whole characters of the message, and their replacement.
struct Part {
    length: usize,
    instead: Option<&'static str>,
}

/// The part of a string at `at`.
fn in_text(text: &str, at: usize) -> Part {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    match *rest {
        [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => Part { length: 2, instead: None },
        [b'\\', b'u', ..] => match unit(rest) {
            Some(0xd800..=0xdbff) if matches!(rest.get(6..).and_then(unit), Some(0xdc00..=0xdfff)) => {
                Part { length: 12, instead: None }
            }
            Some(0xd800..=0xdfff) => Part { length: 6, instead: Some(MARK) },
            Some(_) => Part { length: 6, instead: None },
            None => Part { length: 2, instead: Some(MARK) },
        },
        // An escape that JSON does not have, such as nginx's `\x22`, or the end of the readable text.
        [b'\\', next, ..] if next.is_ascii() => Part { length: 2, instead: Some(MARK) },
        [b'\\', ..] => Part { length: 1, instead: Some(MARK) },
        [byte, ..] if byte < b' ' => Part { length: 1, instead: Some(MARK) },
        _ => Part { length: character(text, at), instead: None },
    }
}

/// The part outside strings at `at`: a literal or number as a whole.
fn in_structure(text: &str, at: usize) -> Part {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    let length =
        rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')).count();
    let Some(word) = text.get(at..at + length).filter(|word| !word.is_empty()) else {
        return Part { length: character(text, at), instead: None };
    };
    let known = matches!(word, "true" | "false" | "null") || serde_json::from_str::<f64>(word).is_ok();
    Part { length, instead: (!known).then_some(MARKED_VALUE) }
}

/// The UTF-16 unit of the escape at the start of `text`.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    let digits =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}

/// Length of the character at `at`.
fn character(text: &str, at: usize) -> usize {
    text.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn repaired(message: impl AsRef<[u8]>) -> Option<String> {
        repair(message.as_ref()).map(|repaired| repaired.text)
    }

    #[test]
    fn repair_marks_unreadable_texts_and_numbers() {
        for (message, expected) in [
            (&br#"{"a":"x\ud800y"}"#[..], r#"{"a":"x\u0000y"}"#),
            (br#"{"a":"\udc00\ud800"}"#, r#"{"a":"\u0000\u0000"}"#),
            (br#"{"a":"\ud800\u0041"}"#, r#"{"a":"\u0000\u0041"}"#),
            (br#"{"\ud800":1}"#, r#"{"\u0000":1}"#),
            (b"{\"a\":\"x\xffy\"}", r#"{"a":"x\u0000y"}"#),
            (b"{\"a\":\"\xe2\x82\"}", r#"{"a":"\u0000"}"#),
            (b"{\"a\":\"x\ty\"}", r#"{"a":"x\u0000y"}"#),
            (br#"{"a":"\x22b"}"#, r#"{"a":"\u000022b"}"#),
            (br#"{"a":"\u12"}"#, r#"{"a":"\u000012"}"#),
            (
                br#"{"a":1e999,"b":NaN,"c":-Infinity,"d":00}"#,
                r#"{"a":"\u0000","b":"\u0000","c":"\u0000","d":"\u0000"}"#,
            ),
        ] {
            assert_eq!(repaired(message).as_deref(), Some(expected), "{}", String::from_utf8_lossy(message));
        }
    }

    #[test]
    fn repair_leaves_readable_messages_alone() {
        for message in [
            r#"{"a":"caf\u00e9 \ud83d\ude00 \u0000 \" \\ 😀","b":[1,-2.5e3,true,null],"c":{}}"#,
            r#"{"a":"#,
            "",
            r#"{"a" 1}}"#,
        ] {
            assert_eq!(repaired(message), None, "{message}");
        }
    }

    #[test]
    fn repair_keeps_positions_of_the_message() {
        let message = b"{\"a\":\"\xff\xff\",\"b\":NaN,\"c\":x}";
        let repaired = repair(message).expect("there is something to repair");
        for name in ["\"b\"", "\"c\""] {
            let at = repaired.text.find(name).expect("the name is kept");
            let origin = message.windows(3).position(|window| window == name.as_bytes());
            assert_eq!(Some(repaired.origin(at)), origin);
        }
    }

    proptest! {
        #[test]
        fn repair_is_done_once(message in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(text) = repaired(&message) {
                // Invalid bytes outside of strings remain invalid after the repair.
                prop_assert!(repaired(&text).is_none(), "{}", text);
            }
        }
    }
}
