//! Evaluates the sources and conditions of a table for one record.

use std::borrow::Cow;

use crate::wire::flat::{Flat, NESTED};
use crate::wire::mapping::lasting::is_lasting;
use crate::wire::mapping::table::{Change, Field, Reinstatement, Skip, Source, Test, matches};
use crate::wire::repair::{BAD_TEXT, is_broken};
use crate::wire::text::{self, Limit};

/// Whether a test holds. On an unreadable field no test holds.
fn holds((path, patterns): &Test, record: &Flat<'_, '_>) -> bool {
    record.fault(path).is_none()
        && record.texts(path).iter().any(|text| patterns.iter().any(|pattern| matches(pattern, text)))
}

impl Change {
    pub(super) fn applies(&self, record: &Flat<'_, '_>) -> bool {
        self.when.iter().all(|test| holds(test, record)) && !self.unless.iter().any(|test| holds(test, record))
    }
}

impl Reinstatement {
    pub(super) fn applies(&self, record: &Flat<'_, '_>) -> bool {
        self.when.iter().all(|test| holds(test, record))
    }
}

impl Skip {
    pub(super) fn applies(&self, record: &Flat<'_, '_>) -> bool {
        self.when.iter().all(|test| holds(test, record)) && !self.unless.iter().any(|test| holds(test, record))
    }
}

impl Field {
    /// Without it, or if it is unreadable, a record is no event.
    pub(super) const fn is_required(self) -> bool {
        matches!(self, Self::EventId | Self::Timestamp | Self::TokenId)
    }

    /// Length limit of a text, as in the native format; `None` for a field that is not a text.
    pub(super) const fn limit(self) -> Option<Limit> {
        Some(match self {
            Self::EventId => Limit::Whole(text::EVENT_ID_BYTES_MAX),
            Self::PrincipalId => Limit::Id(text::TOKEN_ID_BYTES_MAX),
            Self::FamilyId => Limit::Whole(text::ID_BYTES_MAX),
            Self::SessionId | Self::UserId | Self::AppId | Self::TenantId | Self::Realm | Self::Role => {
                Limit::Id(text::ID_BYTES_MAX)
            }
            Self::UserAgent => Limit::Text(text::USER_AGENT_BYTES_MAX),
            Self::Endpoint => Limit::Text(text::ENDPOINT_BYTES_MAX),
            Self::ClientFingerprint | Self::Method | Self::GeoCountry | Self::AsOrg => {
                Limit::Text(text::WORD_BYTES_MAX)
            }
            _ => return None,
        })
    }

    /// Whether a text with unreadable characters is kept without them.
    const fn is_repaired(self) -> bool {
        matches!(self.limit(), Some(Limit::Id(_) | Limit::Text(_)))
    }
}

impl Source {
    /// The text of this source in a record.
    pub(super) fn text<'a>(&self, record: &Flat<'_, 'a>) -> Option<Cow<'a, str>> {
        match *self {
            Self::Path(path) => record.text(path).cloned(),
            Self::Except(path, patterns) => {
                let is_other = |text: &Cow<'_, str>| patterns.iter().any(|pattern| matches(pattern, text));
                record.text(path).filter(|text| is_broken(text) || !is_other(text)).cloned()
            }
            Self::Head(path, after) => record.text(path).and_then(|text| slice(text, 0..text.rfind(after)?)),
            Self::Part(path, between, number) => record.text(path).and_then(|text| {
                let part = text.split(between).nth(number).filter(|part| !part.is_empty())?;
                let start = part.as_ptr().addr() - text.as_ptr().addr();
                slice(text, start..start + part.len())
            }),
            Self::Name(path, before) => record.text(path).and_then(|text| {
                let start = text.rfind(before)? + before.len_utf8();
                slice(text, start..text.len()).filter(|name| !name.is_empty() && is_lasting(name))
            }),
            Self::Named(path, before) => {
                let is_named = |text: &&Cow<'_, str>| text.rsplit_once(before).is_none_or(|(_, name)| is_lasting(name));
                record.text(path).filter(is_named).cloned()
            }
            Self::When(tests, source) => {
                tests.iter().all(|test| holds(test, record)).then(|| source.text(record)).flatten()
            }
            Self::Unless(tests, source) => {
                (!tests.iter().any(|test| holds(test, record))).then(|| source.text(record)).flatten()
            }
            Self::Joined(parts, between) => {
                let mut joined = String::new();
                for (at, part) in parts.iter().enumerate() {
                    joined.push_str(if at > 0 { between } else { "" });
                    joined.push_str(&part.text(record)?);
                }
                Some(Cow::Owned(joined))
            }
            Self::Words(path, words) => {
                let text = record.text(path)?;
                words.iter().find(|(pattern, _)| matches(pattern, text)).map(|(_, word)| Cow::Borrowed(*word))
            }
            Self::Typed { array, kind, member } => record.typed(array, kind, member).cloned(),
            Self::Text(text) => Some(Cow::Borrowed(text)),
        }
    }

    /// The text of the first of `sources` that has one.
    pub(super) fn first_of<'a>(sources: &[Self], record: &Flat<'_, 'a>) -> Option<Cow<'a, str>> {
        sources.iter().find_map(|source| source.text(record))
    }

    /// The path that makes this source unreadable for `field`, and the reason. For a required field, an object counts
    /// as absent. A text with unreadable characters is repaired if it is used as a whole; it matches no pattern.
    pub(super) fn fault(&self, record: &Flat<'_, '_>, field: Field) -> Option<(&'static str, &'static str)> {
        match self {
            Self::When(tests, _) if !tests.iter().all(|test| holds(test, record)) => return None,
            Self::Unless(tests, _) if tests.iter().any(|test| holds(test, record)) => return None,
            _ => {}
        }
        let repaired = field.is_repaired() && !self.is_of_words();
        let ignored = |reason| field.is_required() && reason == NESTED || repaired && reason == BAD_TEXT;
        let mut found = None;
        self.value_paths(&mut |path| {
            let fault = record.fault(path).filter(|reason| !ignored(*reason));
            found = found.or(fault.map(|reason| (path, reason)));
        });
        found
    }

    /// Whether the source gives a mapped word instead of the text.
    fn is_of_words(&self) -> bool {
        match self {
            Self::Words(..) => true,
            Self::When(_, source) | Self::Unless(_, source) => source.is_of_words(),
            Self::Joined(parts, _) => parts.iter().any(Self::is_of_words),
            _ => false,
        }
    }

    /// The last of the paths that this source reads.
    pub(super) fn last_path(&self) -> &'static str {
        let mut last = "";
        self.value_paths(&mut |path| last = path);
        last
    }

    /// Marks the texts of this source as used by a field.
    pub(super) fn mark_used(&self, record: &mut Flat<'_, '_>) {
        match self {
            Self::Path(path) | Self::Except(path, _) | Self::Named(path, _) => record.mark_used(path),
            Self::Joined(parts, _) => parts.iter().for_each(|part| part.mark_used(record)),
            Self::When(_, source) | Self::Unless(_, source) => source.mark_used(record),
            // A part of the text is not in the field, so the text stays an attribute.
            Self::Head(..) | Self::Part(..) | Self::Name(..) | Self::Words(..) | Self::Typed { .. } | Self::Text(_) => {
            }
        }
    }
}

/// A part of `text`, borrowed if the whole is.
fn slice<'a>(text: &Cow<'a, str>, part: std::ops::Range<usize>) -> Option<Cow<'a, str>> {
    Some(match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(part)?),
        Cow::Owned(text) => Cow::Owned(text.get(part)?.to_owned()),
    })
}
