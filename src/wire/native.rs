//! Reads the token event of `docs/event.md` in one pass, into fields that borrow from the message.
//!
//! Only `event_id`, `timestamp` and `token_id` are required. Any other unreadable field is repaired
//! ([`Limit`](text::Limit)) or counts as absent. It is named in the attribute [`text::UNREADABLE`] and counted. The
//! client chooses most of these fields, and must not be able to prevent the scoring of its own use. A field given twice
//! with different values is unreadable, because two readers may choose different ones. Unknown fields are kept as
//! attributes; there the same name may occur twice.

mod field;

use std::borrow::Cow;
use std::fmt;
use std::mem::swap;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

pub(super) use self::field::Field;
use self::field::GeoField;
use super::error::{DecodeError, Fault, TWICE};
use super::repair::{BAD_TEXT, is_broken, repair};
use super::scalar::Scalar;
use super::text::{self, Screen};
use crate::event::{Concerns, Event, EventGeo, Kind, Timestamp, TokenType};
use crate::token::TokenId;

/// Members that every event has.
pub(crate) const MARKS: &[&str] = &["event_id", "token_id"];

/// Decodes the one event in `text`, which begins at byte `base` of `payload`. `confirmed`: that of the source.
pub(crate) fn decode<'a>(
    payload: &[u8],
    base: usize,
    text: &'a str,
    confirmed: bool,
    screen: &mut Screen<'_>,
) -> Result<Event<'a>, DecodeError> {
    let mut fault = None;
    let mut json = serde_json::Deserializer::from_str(text);
    let event = json.deserialize_map(EventVisitor { screen, fault: &mut fault, confirmed });
    event
        .and_then(|event| json.end().map(|()| event))
        .map_err(|error| DecodeError::json(payload, base, text, &error, fault))
}

/// A member's name, of the event or of `geo`.
enum Name<'a, F> {
    Known(F),
    Unknown(Cow<'a, str>),
}

struct NameSeed<F>(fn(&str) -> Option<F>);

impl<'de, F> DeserializeSeed<'de> for NameSeed<F> {
    type Value = Name<'de, F>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, F> Visitor<'de> for NameSeed<F> {
    type Value = Name<'de, F>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok((self.0)(name).map_or(Name::Unknown(Cow::Borrowed(name)), Name::Known))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok((self.0)(name).map_or_else(|| Name::Unknown(Cow::Owned(name.to_owned())), Name::Known))
    }
}

struct EventVisitor<'v, 's> {
    screen: &'v mut Screen<'s>,
    fault: &'v mut Option<Fault>,
    confirmed: bool,
}

impl<'de> Visitor<'de> for EventVisitor<'_, '_> {
    type Value = Event<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Event<'de>, A::Error> {
        let Self { screen, fault, confirmed } = self;
        let mut draft = Draft::new();
        let mut seen = 0_u32;
        while let Some(name) = members.next_key_seed(NameSeed(Field::parse))? {
            let field = match name {
                // The event names a user, not the sessions that end. A stranger could end those of any user.
                Name::Known(field @ Field::Concerns) if !confirmed => {
                    draft.attr(Cow::Borrowed(field.name()), members.next_value()?, screen);
                    continue;
                }
                Name::Known(field) => field,
                Name::Unknown(name) => {
                    draft.attr(name, members.next_value()?, screen);
                    continue;
                }
            };
            let bit = 1 << field as u32;
            let first = (seen & bit != 0).then(|| draft.take(field));
            seen |= bit;
            let mut read = match field {
                Field::Scopes | Field::Geo | Field::Attrs => {
                    members.next_value_seed(Within { field, draft: &mut draft, screen })?
                }
                _ => {
                    let value: Scalar<'_> = members.next_value()?;
                    let read = draft.set(field, value.clone(), screen);
                    if read.is_err() && first.is_none() {
                        draft.keep_sent(field, value, screen);
                    }
                    read
                }
            };
            // Of two values, two readers may choose different ones, so the sender could mislead one of them.
            if let Some(first) = first {
                let mut second = draft.take(field);
                if first == second {
                    draft.swap(field, &mut second);
                } else {
                    read = read.and(Err(TWICE));
                }
            }
            match read {
                Ok(()) => {}
                Err(reason) if field.is_required() => return Err(stop(fault, field.name())(reason)),
                Err(reason) => {
                    screen.unreadable(field.name(), reason);
                    draft.give_up(field);
                }
            }
        }
        draft.finish(screen).map_err(|missing| stop(fault, missing.name())("missing"))
    }
}

/// Makes the reader stop, and stores the fault for [`decode`].
fn stop<E: Error>(fault: &mut Option<Fault>, field: &'static str) -> impl FnOnce(&'static str) -> E {
    move |reason| {
        *fault = Some(Fault { field, reason });
        E::custom(reason)
    }
}

/// An event under construction.
#[derive(PartialEq)]
struct Draft<'a> {
    event: Event<'a>,
    event_id: Option<Cow<'a, str>>,
    token_id: Option<TokenId<'a>>,
    parent_token_id: Option<TokenId<'a>>,
    timestamp: Option<Timestamp>,
    concerns: Concerns,
    attrs_omitted: u64,
}

impl<'a> Draft<'a> {
    fn new() -> Self {
        Self {
            event: Event::default(),
            event_id: None,
            token_id: None,
            parent_token_id: None,
            timestamp: None,
            concerns: Concerns::Token,
            attrs_omitted: 0,
        }
    }

    /// The place for the text of a field; `None` for a field that is not a text.
    fn text(&mut self, field: Field) -> Option<&mut Option<Cow<'a, str>>> {
        let event = &mut self.event;
        Some(match field {
            Field::EventId => &mut self.event_id,
            Field::FamilyId => &mut event.family_id,
            Field::SessionId => &mut event.session_id,
            Field::UserId => &mut event.user_id,
            Field::AppId => &mut event.app_id,
            Field::TenantId => &mut event.tenant_id,
            Field::Binding => &mut event.binding,
            Field::UserAgent => &mut event.user_agent,
            Field::ClientFingerprint => &mut event.client_fingerprint,
            Field::Method => &mut event.method,
            Field::Endpoint => &mut event.endpoint,
            _ => return None,
        })
    }

    fn set(&mut self, field: Field, value: Scalar<'a>, screen: &mut Screen<'_>) -> Result<(), &'static str> {
        if let Some((limit, slot)) = field.limit().zip(self.text(field)) {
            let text = if field.is_required() { value.text()? } else { value.text_or_digits()? };
            *slot = text.map(|text| screen.limited(field.name(), text, limit)).transpose()?;
            return Ok(());
        }
        let event = &mut self.event;
        match field {
            Field::TokenId => self.token_id = value.text()?.map(|text| screen.token_name(text)).transpose()?,
            Field::ParentTokenId => {
                self.parent_token_id = value.text_or_digits()?.map(|text| screen.token_name(text)).transpose()?;
            }
            Field::Timestamp => self.timestamp = value.timestamp()?,
            Field::IssuedAt => event.issued_at = value.timestamp()?,
            Field::ExpiresAt => event.expires_at = value.timestamp()?,
            Field::IpAddress => event.address = value.address()?,
            Field::Status => event.status = value.status()?,
            Field::BytesOut => event.bytes_out = value.integer(u64::MAX)?,
            Field::Kind => {
                if let Some(kind) = value.text()? {
                    event.kind = Kind::parse(&kind.to_ascii_lowercase()).ok_or("no such kind")?;
                }
            }
            Field::Concerns => match value.text()?.as_deref() {
                None | Some("token") => {}
                Some("user") => self.concerns = Concerns::User,
                Some(_) => return Err("expected token or user"),
            },
            Field::TokenType => {
                if let Some(kind) = value.text()? {
                    event.token_type = TokenType::parse(&kind.to_ascii_lowercase()).ok_or("no such token type")?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Removes a field and returns it. Attributes stay, because they are not scored and may have the same name twice.
    fn take(&mut self, field: Field) -> Self {
        let mut taken = Self::new();
        self.swap(field, &mut taken);
        taken
    }

    fn swap(&mut self, field: Field, other: &mut Self) {
        if let (Some(one), Some(other)) = (self.text(field), other.text(field)) {
            return swap(one, other);
        }
        let (event, others) = (&mut self.event, &mut other.event);
        match field {
            Field::TokenId => swap(&mut self.token_id, &mut other.token_id),
            Field::ParentTokenId => swap(&mut self.parent_token_id, &mut other.parent_token_id),
            Field::Timestamp => swap(&mut self.timestamp, &mut other.timestamp),
            Field::IssuedAt => swap(&mut event.issued_at, &mut others.issued_at),
            Field::ExpiresAt => swap(&mut event.expires_at, &mut others.expires_at),
            Field::IpAddress => swap(&mut event.address, &mut others.address),
            Field::Status => swap(&mut event.status, &mut others.status),
            Field::BytesOut => swap(&mut event.bytes_out, &mut others.bytes_out),
            Field::Kind => swap(&mut event.kind, &mut others.kind),
            Field::TokenType => swap(&mut event.token_type, &mut others.token_type),
            Field::Concerns => swap(&mut self.concerns, &mut other.concerns),
            Field::Scopes => swap(&mut event.scopes, &mut others.scopes),
            Field::Geo => swap(&mut event.geo, &mut others.geo),
            _ => {}
        }
    }

    /// Sets the value of an unreadable field that does not count as absent.
    fn give_up(&mut self, field: Field) {
        match field {
            Field::Status => self.event.outcome_unclear = true,
            Field::TenantId => self.event.tenant_id = Some(Cow::Borrowed(text::UNREADABLE_TENANT)),
            _ => {}
        }
    }

    /// Keeps a value that its field did not accept as an attribute, for readers of the event.
    fn keep_sent(&mut self, field: Field, value: Scalar<'a>, screen: &mut Screen<'_>) {
        // The name of a token could be the token.
        if field != Field::ParentTokenId
            && let Some(sent) = value.shown()
        {
            self.attr_text(Cow::Borrowed(field.name()), sent, screen);
        }
    }

    /// Keeps a value without a field as an attribute.
    fn attr(&mut self, name: Cow<'a, str>, value: &'a RawValue, screen: &mut Screen<'_>) {
        let raw = value.get();
        let plain = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"'));
        let value = match plain {
            Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
            Some(_) => Cow::Owned(unescaped(raw)),
            None => match text::compact(raw) {
                Ok(compact) => compact,
                Err(reason) => return screen.unreadable(Field::Attrs.name(), reason),
            },
        };
        self.attr_text(name, value, screen);
    }

    fn attr_text(&mut self, name: Cow<'a, str>, value: Cow<'a, str>, screen: &mut Screen<'_>) {
        if self.event.attrs.len() >= text::ATTRS_MAX {
            self.attrs_omitted += 1;
        } else {
            self.event.attrs.push(screen.attr(name, value));
        }
    }

    /// The event, or the required field that is missing.
    fn finish(mut self, screen: &mut Screen<'_>) -> Result<Event<'a>, Field> {
        if self.concerns == Concerns::User {
            if self.event.kind == Kind::SessionEnded {
                self.event.facts.get_or_insert_default().concerns = self.concerns;
            } else {
                self.attr_text(Cow::Borrowed(Field::Concerns.name()), Cow::Borrowed("user"), screen);
            }
        }
        let Self { mut event, event_id, token_id, parent_token_id, timestamp, attrs_omitted, .. } = self;
        event.event_id = event_id.ok_or(Field::EventId)?;
        event.timestamp = timestamp.ok_or(Field::Timestamp)?;
        event.token_id = token_id.ok_or(Field::TokenId)?;
        event.parent_token_id = parent_token_id;
        if attrs_omitted > 0 {
            event.attrs.push((Cow::Borrowed(text::ATTRS_OMITTED), Cow::Owned(attrs_omitted.to_string())));
        }
        screen.name_unreadable(&mut event.attrs);
        Ok(event)
    }
}

/// The text of a JSON string, which may contain invalid escapes.
fn unescaped(raw: &str) -> String {
    serde_json::from_str(raw).unwrap_or_else(|_| {
        let repaired = repair(raw.as_bytes()).and_then(|repaired| serde_json::from_str(&repaired.text).ok());
        repaired.unwrap_or_default()
    })
}

/// The value of a field that contains several values: unreadable, or read as far as possible.
struct Within<'v, 'a, 's> {
    field: Field,
    draft: &'v mut Draft<'a>,
    screen: &'v mut Screen<'s>,
}

impl Within<'_, '_, '_> {
    const fn wrong_type(&self) -> Result<(), &'static str> {
        Err(match self.field {
            Field::Scopes => "expected an array or a string",
            _ => "expected an object",
        })
    }
}

impl<'de> DeserializeSeed<'de> for Within<'_, 'de, '_> {
    type Value = Result<(), &'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within<'_, 'de, '_> {
    type Value = Result<(), &'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or an object")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Ok(()))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(self.wrong_type())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(self.wrong_type())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(self.wrong_type())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(self.wrong_type())
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        if self.field != Field::Scopes {
            return Ok(self.wrong_type());
        }
        let Self { draft, screen, .. } = self;
        draft.event.scopes.extend(text::scopes(text).map(|scope| screen.scope(Cow::Borrowed(scope))));
        Ok(Ok(()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if self.field != Field::Scopes {
            return Ok(self.wrong_type());
        }
        if text.contains('\0') {
            return Ok(Err(BAD_TEXT));
        }
        let Self { draft, screen, .. } = self;
        draft.event.scopes.extend(text::scopes(text).map(|scope| screen.scope(Cow::Owned(scope.to_owned()))));
        Ok(Ok(()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut read = if self.field == Field::Scopes { Ok(()) } else { self.wrong_type() };
        let Self { field, draft, screen } = self;
        let scopes = &mut draft.event.scopes;
        while let Some(item) = items.next_element::<Scalar<'_>>()? {
            match item.text() {
                Ok(Some(scope)) if is_broken(&scope) => read = read.and(Err(BAD_TEXT)),
                Ok(Some(scope)) if read.is_ok() && scopes.len() < text::SCOPES_MAX => {
                    scopes.push(screen.scope(scope));
                }
                Ok(_) => {}
                Err(reason) => read = read.and(Err(reason)),
            }
        }
        if field == Field::Scopes && read.is_err() {
            scopes.clear();
        }
        Ok(read)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let wrong_type = self.wrong_type();
        let Self { field, draft, screen } = self;
        match field {
            Field::Attrs => {
                while let Some(Name::Unknown(name)) = members.next_key_seed(NameSeed(|_| None::<Field>))? {
                    draft.attr(name, members.next_value()?, screen);
                }
                Ok(Ok(()))
            }
            Field::Geo => {
                let mut geo = Box::<EventGeo<'_>>::default();
                let mut seen = 0_u8;
                while let Some(name) = members.next_key_seed(NameSeed(GeoField::parse))? {
                    let field = match name {
                        Name::Known(field) => field,
                        Name::Unknown(name) => {
                            draft.attr(Cow::Owned(format!("geo.{name}")), members.next_value()?, screen);
                            continue;
                        }
                    };
                    let value: Scalar<'_> = members.next_value()?;
                    let bit = 1 << field as u8;
                    let first = (seen & bit != 0).then(|| geo.clone());
                    seen |= bit;
                    let mut read = field.set(&mut geo, value, screen);
                    if first.is_some_and(|first| first != geo) {
                        let _ = field.set(&mut geo, Scalar::Null, screen);
                        read = Err(TWICE);
                    }
                    if let Err(reason) = read {
                        screen.unreadable(field.name(), reason);
                    }
                }
                draft.event.geo = Some(geo);
                Ok(Ok(()))
            }
            _ => {
                while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(wrong_type)
            }
        }
    }
}
