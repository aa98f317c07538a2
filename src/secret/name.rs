//! Secrets recognised by the name of their field or parameter.

use std::ops::Range;

use memchr::{memchr2_iter, memrchr2_iter};

use super::hash::is_hash;
use super::prefix::word;

/// Whether a field of this name holds a secret: `access_token`, `clientSecret`, `X-Api-Key`.
pub(crate) fn is_secret_name(name: &[u8]) -> bool {
    Folded::of(name).is_some_and(|name| SECRET_NAMES.contains(&name.as_bytes()))
}

/// Whether a member of this name holds the id of a token, in one of the formats that are read.
pub(super) fn is_token_id_name(name: &[u8]) -> bool {
    Folded::of(name).is_some_and(|name| TOKEN_ID_NAMES.contains(&name.as_bytes()))
}

/// A name in lower case, without `_` and `-`.
struct Folded {
    bytes: [u8; SECRET_NAME_MAX],
    length: usize,
}

impl Folded {
    /// `None` for a name that is longer than any name of a secret.
    fn of(name: &[u8]) -> Option<Self> {
        let mut folded = Self { bytes: [0; SECRET_NAME_MAX], length: 0 };
        for &byte in name.iter().filter(|&&byte| byte != b'_' && byte != b'-') {
            *folded.bytes.get_mut(folded.length)? = byte.to_ascii_lowercase();
            folded.length += 1;
        }
        Some(folded)
    }

    /// The name at the end of `text`; its letters may be percent-encoded. `None` if it is too long.
    fn last(text: &[u8]) -> Option<Self> {
        // Room for an escape (`\\u0026`, `\\n`) directly before the name.
        const ESCAPE_BYTES_MAX: usize = 5;
        let mut name = [0; SECRET_NAME_MAX + ESCAPE_BYTES_MAX];
        let mut first = name.len();
        let mut rest = text;
        while let Some((byte, length)) = last_character(rest).filter(|(byte, _)| word(*byte)) {
            if byte != b'_' && byte != b'-' {
                first = first.checked_sub(1)?;
                *name.get_mut(first)? = byte;
            }
            rest = rest.get(..rest.len() - length)?;
        }
        let name = name.get(first..)?;
        Self::of(match (rest.last(), name.first()) {
            (Some(b'\\'), Some(b'u')) => name.get(ESCAPE_BYTES_MAX..)?,
            (Some(b'\\'), Some(_)) => name.get(1..)?,
            _ => name,
        })
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The last character of `text`, and its length: `%5F` is one, and so is `%255F`.
fn last_character(text: &[u8]) -> Option<(u8, usize)> {
    for depth in 0..ENCODINGS_MAX {
        let length = 3 + 2 * depth;
        let Some([b'%', nested @ .., high, low]) = text.len().checked_sub(length).and_then(|at| text.get(at..)) else {
            continue;
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        if nested.chunks(2).all(|code| code == b"25")
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            return Some(((high << 4 | low) as u8, length));
        }
    }
    text.last().map(|byte| (*byte, 1))
}

/// Kind of a parameter's value, by the parameter's name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parameter {
    Secret,
    /// A `code`: a secret only as the authorization code of OAuth (RFC 6749 section 4.1.2).
    Code,
    Other,
}

impl Parameter {
    /// The parameter whose name is at the end of `text`.
    fn before(text: &[u8]) -> Self {
        let Some(name) = Folded::last(text) else { return Self::Other };
        let name = name.as_bytes();
        if SECRET_NAMES.contains(&name) || SECRET_PARAMETERS.contains(&name) {
            Self::Secret
        } else if name == b"code" {
            Self::Code
        } else {
            Self::Other
        }
    }
}

/// The value of the next `name=value` with the name of a secret, as in a query string, at or after `from`.
pub(super) fn next_assigned(text: &[u8], from: usize) -> Option<Range<usize>> {
    memchr2_iter(b'=', b'%', text.get(from..)?).find_map(|at| assigned(text, from + at))
}

/// The next value with the name of a secret, in any notation, at or after `from`.
pub(super) fn next(text: &[u8], from: usize) -> Option<Range<usize>> {
    let marks = text.get(from..)?.iter().enumerate();
    marks.filter(|(_, byte)| matches!(byte, b'=' | b':' | b'%' | b'\\')).find_map(|(at, byte)| {
        let at = from + at;
        if *byte == b':' { member(text, at) } else { assigned(text, at) }
    })
}

/// The value after the `=` at `equals`, which may be escaped, if the name before it marks a secret.
fn assigned(text: &[u8], equals: usize) -> Option<Range<usize>> {
    const DELIMITERS: &[u8] = b"&#;, \"'<>\\)]}";
    let (before, rest) = (text.get(..equals)?, text.get(equals..)?);
    let (length, depth) = equals_sign(rest)?;
    let parameter = Parameter::before(before);
    if parameter == Parameter::Other {
        return None;
    }
    let quoted = matches!(rest.get(length), Some(b'"' | b'\''));
    let start = equals + length + usize::from(quoted);
    let value = text.get(start..)?;
    // A matrix parameter ends where the query begins: `;jsessionid=…?q=1`.
    let is_matrix = before.iter().rev().find(|&&byte| !word(byte)) == Some(&b';');
    let ends = |(at, &byte): (usize, &u8)| {
        byte < b' '
            || DELIMITERS.contains(&byte)
            || byte == b'?' && is_matrix
            || byte == b'%' && value.get(at..).is_some_and(|rest| delimiter_depth(rest).is_some_and(|at| at <= depth))
    };
    let length = value.iter().enumerate().position(ends).unwrap_or(value.len());
    let found = is_secret(value.get(..length)?) && (parameter == Parameter::Secret || is_of_oauth(text, equals));
    found.then_some(start..start + length)
}

/// Length of the `=` at the start of `text`, and how often it is percent-encoded.
fn equals_sign(text: &[u8]) -> Option<(usize, usize)> {
    match text {
        [b'=', ..] => Some((1, 0)),
        [b'\\', b'u', b'0', b'0', b'3', b'd' | b'D', ..] => Some((6, 0)),
        [b'%', ..] => percent_encoded(text, |code| matches!(code, [b'3', b'd' | b'D'])),
        _ => None,
    }
}

/// How often the `&`, `#` or `;` at the start of `text` is percent-encoded.
fn delimiter_depth(text: &[u8]) -> Option<usize> {
    percent_encoded(text, |code| matches!(code, b"26" | b"23" | [b'3', b'b' | b'B'])).map(|(_, depth)| depth)
}

/// Length and depth of the percent-encoding at the start of `text`: `%3D`, or `%253D` if it is encoded twice.
fn percent_encoded(text: &[u8], is_code: impl Fn(&[u8]) -> bool) -> Option<(usize, usize)> {
    let mut rest = text.strip_prefix(b"%")?;
    for depth in 1..=ENCODINGS_MAX {
        if rest.get(..2).is_some_and(&is_code) {
            return Some((text.len() - rest.len() + 2, depth));
        }
        rest = rest.strip_prefix(b"25")?;
    }
    None
}

/// Whether another parameter of an OAuth request or redirect is near the `code` before `equals`.
fn is_of_oauth(text: &[u8], equals: usize) -> bool {
    let breaks = |byte: &u8| *byte <= b' ' || b"\"'<>".contains(byte);
    let before = text.get(equals.saturating_sub(QUERY_WINDOW_BYTES)..equals).unwrap_or_default();
    let before = before.rsplit(breaks).next().unwrap_or_default();
    let after = text.get(equals..text.len().min(equals + QUERY_WINDOW_BYTES)).unwrap_or_default();
    let after = after.split(breaks).next().unwrap_or_default();
    let named = |query: &[u8], at: usize| {
        let name = query.get(at..).and_then(equals_sign).and_then(|_| Folded::last(query.get(..at)?));
        name.map(|name| OAUTH_PARAMETERS.contains(&name.as_bytes()))
    };
    // Only the nearest few, so that the time is linear for a text of many codes.
    let earlier = memrchr2_iter(b'=', b'%', before).filter_map(|at| named(before, at)).take(PARAMETERS_MAX);
    let later = memchr2_iter(b'=', b'%', after).skip(1).filter_map(|at| named(after, at)).take(PARAMETERS_MAX);
    earlier.chain(later).any(|is_of_oauth| is_of_oauth)
}

/// The text after the `:` at `colon`, if it is a member of a JSON object, escaped or not, whose name marks a secret.
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

/// Whether a value with a secret's name is a secret, and not the hash that replaced one.
fn is_secret(value: &[u8]) -> bool {
    let hashed = is_hash(value);
    value.len() >= NAMED_BYTES_MIN && !hashed
}

/// The last word of `text`. It has at most the length of a secret's name with separators, and excludes an escape
/// (`%3F`, `\\u0026`, `\\n`) at its start.
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

/// Longest of [`SECRET_NAMES`] and [`SECRET_PARAMETERS`].
const SECRET_NAME_MAX: usize = 22;

/// Maximum depth of percent-encoding: a URL in a URL in a URL.
const ENCODINGS_MAX: usize = 3;
/// Bytes on either side of a `code=` in which they are searched.
const QUERY_WINDOW_BYTES: usize = 512;

/// Maximum number of parameters that are checked on either side of a `code`.
const PARAMETERS_MAX: usize = 4;

/// Parameters that accompany an authorization code (RFC 6749 sections 4.1.2 and 4.1.3, RFC 7636, RFC 9207).
const OAUTH_PARAMETERS: &[&[u8]] = &[b"state", b"granttype", b"redirecturi", b"codeverifier", b"sessionstate", b"iss"];

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
    b"sharedaccesssignature",
    b"subscriptionkey",
    b"ocpapimsubscriptionkey",
    b"passphrase",
    b"newpassword",
    b"oldpassword",
    b"assertion",
    b"codeverifier",
    b"idtokenhint",
    // Okta: tokens of a sign-in, recovery or activation under way (Authentication API, Identity Engine).
    b"statetoken",
    b"statehandle",
    b"recoverytoken",
    b"activationtoken",
    b"resettoken",
    b"logintoken",
    b"interactionhandle",
    b"interactioncode",
    b"oktakey",
    b"devicecode",
    b"devicesecret",
    b"devicetoken",
    // Of servlet containers and PHP.
    b"jsessionid",
    b"phpsessid",
];

/// Names of secrets in the query of a URL that are often something else as the name of a field.
const SECRET_PARAMETERS: &[&[u8]] = &[
    b"usercode",
    b"passcode",
    b"otp",
    b"totp",
    b"pwd",
    b"authcode",
    b"authorizationcode",
    b"verificationcode",
    b"csrftoken",
    b"xsrftoken",
    b"sessionid",
    b"ssotoken",
    b"magictoken",
    b"invitetoken",
    b"logouttoken",
    b"accesskey",
];

/// Names of token ids, in lower case, without `_` and `-`.
const TOKEN_ID_NAMES: &[&[u8]] = &[
    b"tokenid",
    b"parenttokenid",
    b"jti",
    b"accesskeyid",
    b"credentialid",
    b"credentialuid",
    b"externalsessionid",
    b"rootsessionid",
    b"requestapitokenid",
    b"dthash",
    b"hashedtoken",
];

/// Minimum length of a secret under a secret name; shorter values are flags and counts.
const NAMED_BYTES_MIN: usize = 6;
