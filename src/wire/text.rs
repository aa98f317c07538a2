//! Limits of texts, and replacement of secrets in them.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::repair::{BAD_TEXT, is_broken, shown};
use crate::secret::{HASHED, is_bare, is_secret_name, looks_opaque, may_hold_secret};
use crate::token::{TokenHasher, TokenId, TokenIds};

/// Longest event id, bytes.
pub(crate) const EVENT_ID_BYTES_MAX: usize = 128;
/// Longest token id, bytes.
pub(crate) const TOKEN_ID_BYTES_MAX: usize = 256;
/// Longest other id, bytes.
pub(crate) const ID_BYTES_MAX: usize = 1024;
/// Longest user agent, bytes.
pub(crate) const USER_AGENT_BYTES_MAX: usize = 1024;
/// Longest endpoint, bytes.
pub(crate) const ENDPOINT_BYTES_MAX: usize = 2048;
/// Longest method, fingerprint, country or network name, bytes. A longer scope is cut.
pub(crate) const WORD_BYTES_MAX: usize = 256;
/// Maximum number of scopes; further ones are left out.
pub(crate) const SCOPES_MAX: usize = 128;
/// Maximum number of attributes; further ones are left out, and counted in the attribute [`ATTRS_OMITTED`].
pub(crate) const ATTRS_MAX: usize = 128;
/// Maximum length of an attribute's name, bytes; a longer one is cut.
pub(crate) const ATTR_NAME_BYTES_MAX: usize = 256;
/// Maximum length of an attribute's value, bytes; a longer one is cut.
pub(crate) const ATTR_VALUE_BYTES_MAX: usize = 4096;
/// Maximum nesting of an attribute, beyond the event's own.
pub(crate) const DEPTH_MAX: usize = 64;
/// Reason for values that nest deeper than [`DEPTH_MAX`].
pub(crate) const TOO_DEEP: &str = "nested too deeply";
/// Name of the attribute with the number of attributes left out.
pub(crate) const ATTRS_OMITTED: &str = "attrs_omitted";
/// Name of the attribute that names the unreadable fields and the reasons.
pub(crate) const UNREADABLE: &str = "unreadable_fields";

/// The tenant of an event whose tenant was given and is unreadable. No tenant has this name, and it differs from an
/// absent tenant, so such events change no other tenant's state.
pub(crate) const UNREADABLE_TENANT: &str = "\u{fffd}";
/// Reason for an id that exceeds its limit.
const TOO_LONG: &str = "too long";

/// Maximum length of a text, bytes, and the treatment of a longer text or one with unreadable characters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// The text is unreadable: a part of a name is another name, which could be looked up or revoked.
    Whole(usize),
    /// The id is repaired: U+FFFD for each unreadable character, and a hash of the whole text at the end. Two ids
    /// become equal only if they differ in unreadable characters only.
    Id(usize),
    /// A text that the client chooses is repaired: U+FFFD for each unreadable character. If it is too long, it is cut
    /// and gets a hash of the whole text, so that different texts stay different. If it counted as absent, a thief
    /// could hide it by breaking it.
    Text(usize),
}

impl Limit {
    pub(crate) const fn bytes_max(self) -> usize {
        let (Self::Whole(bytes_max) | Self::Id(bytes_max) | Self::Text(bytes_max)) = self;
        bytes_max
    }
}

/// Counts of one decoder.
#[derive(Debug, Default)]
pub struct Notes {
    /// Values replaced because they have the form of a bearer token.
    pub redactions: u64,
    /// Unreadable optional fields, and the number of records of each.
    pub(crate) unreadable: Vec<(&'static str, u64)>,
    /// Number of token ids kept, and of those in the sample that have the form of opaque secrets.
    token_ids: u32,
    pub opaque_ids: u64,
}

/// Replaces the secrets of one record and notes which of its fields cannot be read.
pub(crate) struct Screen<'s> {
    hasher: &'s TokenHasher,
    notes: &'s mut Notes,
    /// The record's bytes contain no secret, so borrowed texts contain none.
    clean: bool,
    /// Names of the unreadable fields, each once, and the reasons.
    unreadable: Vec<(&'static str, &'static str)>,
}

impl<'s> Screen<'s> {
    /// For the texts of the record `raw`.
    pub(crate) fn new(raw: &[u8], hasher: &'s TokenHasher, notes: &'s mut Notes) -> Self {
        Self { hasher, notes, clean: !may_hold_secret(raw), unreadable: Vec::new() }
    }

    /// Notes that an optional field is unreadable.
    pub(crate) fn unreadable(&mut self, field: &'static str, reason: &'static str) {
        if self.unreadable.iter().all(|(known, _)| *known != field) {
            self.unreadable.push((field, reason));
        }
    }

    /// Counts the unreadable fields of an event, and names them in its first attribute. A client's attribute of the
    /// same name comes after it.
    pub(crate) fn name_unreadable<'a>(&mut self, attrs: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>) {
        if self.unreadable.is_empty() {
            return;
        }
        let mut named = String::new();
        for (field, reason) in self.unreadable.drain(..) {
            let separator = if named.is_empty() { "" } else { "; " };
            let _ = write!(named, "{separator}{field}: {reason}");
            match self.notes.unreadable.iter_mut().find(|(known, _)| *known == field) {
                Some((_, count)) => *count += 1,
                None => self.notes.unreadable.push((field, 1)),
            }
        }
        attrs.insert(0, (Cow::Borrowed(UNREADABLE), Cow::Owned(named)));
    }

    /// Whether the message contains no secret except values whose field name marks a secret.
    pub(crate) const fn is_clean(&self) -> bool {
        self.clean
    }

    /// `text` without its secrets.
    pub(crate) fn text<'a>(&mut self, text: Cow<'a, str>) -> Cow<'a, str> {
        if self.clean && matches!(text, Cow::Borrowed(_)) {
            return text;
        }
        let (text, replaced) = self.hasher.redact(text);
        self.notes.redactions += u64::from(replaced);
        text
    }

    /// A scope, cut to its limit.
    pub(crate) fn scope<'a>(&mut self, scope: Cow<'a, str>) -> Cow<'a, str> {
        cut(self.text(scope), WORD_BYTES_MAX)
    }

    /// An id: a text that may be a token as a whole.
    pub(crate) fn id<'a>(&mut self, text: Cow<'a, str>) -> Cow<'a, str> {
        if self.clean && matches!(text, Cow::Borrowed(_)) && !is_bare(&text) {
            return text;
        }
        let (text, replaced) = self.hasher.id(text);
        self.notes.redactions += u64::from(replaced);
        text
    }

    /// The text of a field within its limit.
    pub(crate) fn limited<'a>(
        &mut self,
        field: &'static str,
        text: Cow<'a, str>,
        limit: Limit,
    ) -> Result<Cow<'a, str>, &'static str> {
        let broken = is_broken(&text);
        let bytes_max = limit.bytes_max();
        match limit {
            Limit::Whole(_) if broken => Err(BAD_TEXT),
            Limit::Whole(_) => Some(self.id(text)).filter(|text| text.len() <= bytes_max).ok_or(TOO_LONG),
            Limit::Id(_) => {
                let text = self.id(text);
                if !broken && text.len() <= bytes_max {
                    return Ok(text);
                }
                self.unreadable(field, if broken { BAD_TEXT } else { TOO_LONG });
                Ok(self.with_hash(&text, bytes_max))
            }
            Limit::Text(_) => {
                if broken {
                    self.unreadable(field, BAD_TEXT);
                }
                let text = self.text(text);
                Ok(if text.len() <= bytes_max { shown(text) } else { self.with_hash(&text, bytes_max) })
            }
        }
    }

    /// The beginning of `text`, and a hash of all of it.
    fn with_hash<'a>(&self, text: &str, bytes_max: usize) -> Cow<'a, str> {
        let hash = self.hasher.hash(text.as_bytes());
        let head = cut(Cow::Owned(text.replace('\0', "\u{fffd}")), bytes_max.saturating_sub(hash.len() + 1));
        Cow::Owned(format!("{head}~{hash}"))
    }

    /// The id of a token. A raw token is replaced by its hash before the length is checked. The id is never repaired,
    /// because other events contain it unchanged.
    pub(crate) fn token_name<'a>(&mut self, text: Cow<'a, str>) -> Result<TokenId<'a>, &'static str> {
        if is_broken(&text) {
            return Err(BAD_TEXT);
        }
        Some(self.token(text)).filter(|token| token.as_str().len() <= TOKEN_ID_BYTES_MAX).ok_or(TOO_LONG)
    }

    /// An id for a record without one, from the digest of its contents. The key prevents guesses of the contents.
    pub(crate) fn content_id(&self, content: u128) -> String {
        let hash = self.hasher.hash(&content.to_be_bytes());
        format!("content:{}", hash.strip_prefix(HASHED).unwrap_or(&hash))
    }

    /// The name of a token.
    pub(crate) fn token<'a>(&mut self, text: Cow<'a, str>) -> TokenId<'a> {
        if self.hasher.ids() == TokenIds::AsSent {
            self.sample(&text);
            if let (true, Cow::Borrowed(text)) = (self.clean && !is_bare(&text), &text) {
                return TokenId::from_clean(text);
            }
        }
        let (name, replaced) = self.hasher.name(text);
        self.notes.redactions += u64::from(replaced);
        name
    }

    /// Checks every 64th token id for the form of an opaque secret.
    fn sample(&mut self, id: &str) {
        const EACH: u32 = 64;
        if self.notes.token_ids.is_multiple_of(EACH) && looks_opaque(id) {
            self.notes.opaque_ids += 1;
        }
        self.notes.token_ids = self.notes.token_ids.wrapping_add(1);
    }

    /// The readable part of an attribute. Attributes are not scored, so they need no exact repair.
    fn readable<'a>(&mut self, text: Cow<'a, str>) -> Cow<'a, str> {
        if is_broken(&text) {
            self.unreadable("attrs", BAD_TEXT);
        }
        shown(text)
    }

    /// An attribute, cut to its limits. A value whose name marks a secret is replaced by its hash, in any form.
    pub(crate) fn attr<'a>(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) -> (Cow<'a, str>, Cow<'a, str>) {
        let (name, value) = (self.readable(name), self.readable(value));
        let last = name.rsplit('.').next().unwrap_or_default();
        let value = if is_secret_name(last.as_bytes()) && !value.is_empty() {
            self.notes.redactions += 1;
            Cow::Owned(self.hasher.hash(value.as_bytes()))
        } else {
            cut(self.id(value), ATTR_VALUE_BYTES_MAX)
        };
        (cut(self.text(name), ATTR_NAME_BYTES_MAX), value)
    }
}

/// `text`, at most `bytes_max` long.
pub(crate) fn cut(text: Cow<'_, str>, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return text;
    }
    let end = char_boundary(&text, bytes_max);
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(..end).unwrap_or_default()),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Cow::Owned(text)
        }
    }
}

/// The scopes in a text, separated by spaces (RFC 6749 section 3.3) or commas, up to [`SCOPES_MAX`]. They are not cut to their
/// limit, because a cut secret is not recognised.
pub(crate) fn scopes(text: &str) -> impl Iterator<Item = &str> {
    let scopes = text.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|scope| !scope.is_empty());
    scopes.take(SCOPES_MAX)
}

/// The last boundary between characters at or before byte `most`.
pub(crate) fn char_boundary(text: &str, most: usize) -> usize {
    (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or_default()
}

/// `raw` without the spaces between its tokens and with as few escapes as possible, so that secrets in it are found.
/// `raw` must be valid JSON. Fails if it nests deeper than [`DEPTH_MAX`].
pub(crate) fn compact(raw: &str) -> Result<Cow<'_, str>, &'static str> {
    let bytes = raw.as_bytes();
    let (mut out, mut copied) = (String::new(), 0);
    let (mut depth, mut in_string, mut at) = (0_usize, false, 0);
    while let Some(&byte) = bytes.get(at) {
        let (mut length, mut instead) = (1, None);
        match byte {
            b'"' => in_string = !in_string,
            b'\\' => {
                let plain;
                (length, plain) = escape(bytes.get(at..).unwrap_or_default());
                instead = plain.map(Some);
            }
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ if byte.is_ascii_whitespace() => instead = Some(None),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(TOO_DEEP);
        }
        if let Some(instead) = instead {
            out.push_str(raw.get(copied..at).unwrap_or_default());
            out.extend(instead);
            copied = at + length;
        }
        at += length;
    }
    if copied == 0 {
        return Ok(Cow::Borrowed(raw));
    }
    out.push_str(raw.get(copied..).unwrap_or_default());
    Ok(Cow::Owned(out))
}

/// Length of the escape at the start of `text`, and its character if JSON permits it unescaped: printable ASCII other
/// than `"` and `\`.
fn escape(text: &[u8]) -> (usize, Option<char>) {
    match text {
        [_, b'/', ..] => (2, Some('/')),
        [_, b'u', digits @ ..] => {
            let code =
                digits.get(..4).and_then(|digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
            let plain = code.and_then(char::from_u32).filter(|&c| matches!(c, ' '..='~') && c != '"' && c != '\\');
            (6, plain)
        }
        _ => (2, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_scope_has_no_readable_secret() {
        let secret = format!("AIza{}", "a7Bq2".repeat(7));
        let hasher = TokenHasher::new(b"a key for tests");
        for kept in [1, 30, 38, 39] {
            let listed = format!("read {}:{secret}", "x".repeat(WORD_BYTES_MAX - kept - 1));
            let mut notes = Notes::default();
            let mut screen = Screen::new(listed.as_bytes(), &hasher, &mut notes);
            let found: Vec<_> = scopes(&listed).map(|scope| screen.scope(Cow::Borrowed(scope))).collect();
            assert_eq!((found.len(), &*found[0]), (2, "read"));
            assert!(found[1].len() <= WORD_BYTES_MAX && !found[1].contains("AIza"), "{}", found[1]);
        }
    }
}
