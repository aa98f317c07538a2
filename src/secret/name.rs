//! Secrets told by the names that they are given.

use std::ops::Range;

use memchr::memchr2_iter;

use super::prefix::word;
use super::{HASH_LENGTH, HASHED};

/// Whether a field of this name holds a secret: `access_token`, `clientSecret`, `X-Api-Key`.
#[must_use]
pub fn is_secret_name(name: &[u8]) -> bool {
    let mut folded = [0; SECRET_NAME_MAX];
    let mut length = 0;
    for &byte in name.iter().filter(|&&byte| byte != b'_' && byte != b'-') {
        let Some(slot) = folded.get_mut(length) else { return false };
        *slot = byte.to_ascii_lowercase();
        length += 1;
    }
    folded.get(..length).is_some_and(|folded| SECRET_NAMES.contains(&folded))
}

/// The value of the next `name=value` with the name of a secret, as in a query string, at or after `from`.
pub(super) fn next_assigned(text: &[u8], from: usize) -> Option<Range<usize>> {
    memchr2_iter(b'=', b'%', text.get(from..)?).find_map(|at| assigned(text, from + at))
}

/// The next value with the name of a secret, in whichever notation, at or after `from`.
pub(super) fn next(text: &[u8], from: usize) -> Option<Range<usize>> {
    let marks = text.get(from..)?.iter().enumerate();
    marks.filter(|(_, byte)| matches!(byte, b'=' | b':' | b'%' | b'\\')).find_map(|(at, byte)| {
        let at = from + at;
        if *byte == b':' { member(text, at) } else { assigned(text, at) }
    })
}

/// The value after the `=` at `equals`, which may be escaped, if the name before it is a secret's.
fn assigned(text: &[u8], equals: usize) -> Option<Range<usize>> {
    const DELIMITERS: &[u8] = b"&#;, \"'<>\\)]}";
    let rest = text.get(equals..)?;
    let mark = ["=", "%3D", "%3d", "\\u003d", "\\u003D"].into_iter().find(|mark| rest.starts_with(mark.as_bytes()))?;
    if !is_secret_name(last_word(text.get(..equals)?)) {
        return None;
    }
    let quoted = matches!(rest.get(mark.len()), Some(b'"' | b'\''));
    let start = equals + mark.len() + usize::from(quoted);
    let value = text.get(start..)?;
    let ends = |(at, &byte): (usize, &u8)| {
        byte < b' ' || DELIMITERS.contains(&byte) || value.get(at..).is_some_and(|rest| rest.starts_with(b"%26"))
    };
    let length = value.iter().enumerate().position(ends).unwrap_or(value.len());
    is_secret(value.get(..length)?).then(|| start..start + length)
}

/// The text after the `:` at `colon`, if it is a member of an object in JSON, escaped or not, and named as secrets are.
fn member(text: &[u8], colon: usize) -> Option<Range<usize>> {
    let before = text.get(..colon)?.trim_ascii_end();
    let name = before.strip_suffix(b"\"")?;
    let backslashes = name.iter().rev().take_while(|&&byte| byte == b'\\').count();
    let name = name.get(..name.len() - backslashes)?;
    if !is_secret_name(last_word(name)) {
        return None;
    }
    let mut start = colon + 1;
    let mut escaped = false;
    loop {
        match *text.get(start)? {
            b'"' => break,
            b'\\' => escaped = true,
            b' ' | b'\t' | b'\n' | b'\r' | b'[' => {}
            _ => return None,
        }
        start += 1;
    }
    start += 1;
    let mut end = start;
    while let Some(&byte) = text.get(end) {
        match byte {
            b'\\' if escaped => break,
            b'\\' => end += 1,
            b'"' => break,
            _ => {}
        }
        end += 1;
    }
    let end = end.min(text.len());
    is_secret(text.get(start..end)?).then_some(start..end)
}

/// Whether a value under a secret name is a secret, and not the hash that one has been replaced by.
fn is_secret(value: &[u8]) -> bool {
    let hashed = value.strip_prefix(HASHED.as_bytes()).is_some_and(|hash| hash.len() == HASH_LENGTH);
    value.len() >= NAMED_BYTES_MIN && !hashed
}

/// The word that `text` ends with: no longer than a secret's name with its separators can be, and without the escape
/// (`%3F`, `\\u0026`, `\\n`) that it may begin with.
fn last_word(text: &[u8]) -> &[u8] {
    const WORD_BYTES_MAX: usize = 2 * SECRET_NAME_MAX;
    let length = text.iter().rev().take(WORD_BYTES_MAX).take_while(|&&byte| word(byte)).count();
    let (before, word) = text.split_at_checked(text.len() - length).unwrap_or((text, &[]));
    let escape = match (before.last(), word.first()) {
        (Some(b'%'), _) => 2,
        (Some(b'\\'), Some(b'u')) => 5,
        (Some(b'\\'), _) => 1,
        _ => 0,
    };
    word.get(escape..).unwrap_or_default()
}

/// Longest of [`SECRET_NAMES`].
const SECRET_NAME_MAX: usize = 18;

/// Names of secrets, in lower case, without `_` and `-`.
const SECRET_NAMES: &[&[u8]] = &[
    b"token",
    b"accesstoken",
    b"actortoken",
    b"apitoken",
    b"authtoken",
    b"bearertoken",
    b"idtoken",
    b"jobtoken",
    b"oauthtoken",
    b"privatetoken",
    b"refreshtoken",
    b"securitytoken",
    b"sessiontoken",
    b"subjecttoken",
    b"usertoken",
    b"awssessiontoken",
    b"xamzsecuritytoken",
    b"secret",
    b"clientsecret",
    b"appsecret",
    b"sharedsecret",
    b"secretkey",
    b"secretaccesskey",
    b"awssecretaccesskey",
    b"apikey",
    b"xapikey",
    b"accountkey",
    b"privatekey",
    b"password",
    b"passwd",
    b"authorization",
    b"proxyauthorization",
    b"clientassertion",
    b"samlresponse",
    b"cookie",
    b"setcookie",
    b"sig",
    b"signature",
    b"xamzsignature",
    b"xgoogsignature",
];

/// A value under a secret name is a secret from this length: shorter ones are flags and counts.
const NAMED_BYTES_MIN: usize = 6;
