//! The token event of `docs/event.md`, read in one pass into fields that borrow from the message.
//!
//! A field given twice is an error: two readers that take different ones of them see different events, and a thief
//! could choose which. Unknown fields are kept as attributes, and there the same name may come twice.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{DecodeError, Fault};
use super::scalar::Scalar;
use super::text::{self, Screen, blank, cut};
use crate::event::{Event, EventGeo, Kind, Timestamp, TokenType};

/// Decodes the one event in `text`, which begins at byte `base` of `payload`.
pub fn decode<'a>(
    payload: &[u8],
    base: usize,
    text: &'a str,
    screen: &mut Screen<'_>,
) -> Result<Event<'a>, DecodeError> {
    let mut fault = None;
    let mut json = serde_json::Deserializer::from_str(text);
    let event = json.deserialize_map(EventVisitor { screen, fault: &mut fault });
    event
        .and_then(|event| json.end().map(|()| event))
        .map_err(|error| DecodeError::json(payload, base, text, &error, fault))
}

/// Declares members by their names on the wire; an error names them after what they are members of.
macro_rules! fields {
    ($fields:ident, $of:literal: $($field:ident = $name:literal,)+) => {
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub(super) enum $fields { $($field,)+ }

        impl $fields {
            pub(super) fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$field),)+ _ => None }
            }

            const fn name(self) -> &'static str {
                match self { $(Self::$field => concat!($of, $name),)+ }
            }
        }
    };
}

fields! { Field, "":
    EventId = "event_id",
    Timestamp = "timestamp",
    Kind = "kind",
    TokenId = "token_id",
    TokenType = "token_type",
    FamilyId = "family_id",
    ParentTokenId = "parent_token_id",
    SessionId = "session_id",
    UserId = "user_id",
    AppId = "app_id",
    TenantId = "tenant_id",
    IpAddress = "ip_address",
    UserAgent = "user_agent",
    ClientFingerprint = "client_fingerprint",
    Method = "method",
    Endpoint = "endpoint",
    Status = "status",
    BytesOut = "bytes_out",
    Scopes = "scopes",
    IssuedAt = "issued_at",
    ExpiresAt = "expires_at",
    Binding = "binding",
    Geo = "geo",
    Attrs = "attrs",
}

fields! { GeoField, "geo.":
    Country = "country",
    Latitude = "latitude",
    Longitude = "longitude",
    AccuracyKm = "accuracy_km",
    Asn = "asn",
    AsOrg = "as_org",
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
}

impl<'de> Visitor<'de> for EventVisitor<'_, '_> {
    type Value = Event<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Event<'de>, A::Error> {
        let Self { screen, fault } = self;
        let mut draft = Draft {
            event: blank(),
            event_id: None,
            token_id: None,
            parent_token_id: None,
            timestamp: None,
            attrs_omitted: 0,
        };
        let mut seen = 0_u32;
        while let Some(name) = members.next_key_seed(NameSeed(Field::parse))? {
            let field = match name {
                Name::Known(field) => field,
                Name::Unknown(name) => {
                    draft.attr(name, members.next_value()?, screen).map_err(stop(fault, "attrs"))?;
                    continue;
                }
            };
            if seen & (1 << field as u32) != 0 {
                return Err(stop(fault, field.name())("given twice"));
            }
            seen |= 1 << field as u32;
            let read = if let Some((limit, slot)) = field.limit().zip(draft.text(field)) {
                members.next_value_seed(TextSeed { slot, limit, screen: &mut *screen, field, fault: &mut *fault })
            } else if matches!(field, Field::Scopes | Field::Geo | Field::Attrs) {
                let draft = &mut draft;
                members.next_value_seed(Within { field, draft, screen: &mut *screen, fault: &mut *fault })
            } else {
                draft.set(field, members.next_value()?).map_err(stop(fault, field.name()))
            };
            if let Err(error) = read {
                // The value is of another type than the field's.
                fault.get_or_insert(Fault { field: field.name(), reason: field.expected() });
                return Err(error);
            }
        }
        draft.finish(screen).map_err(|missing| stop(fault, missing.name())("missing"))
    }
}

/// Makes the reader stop, and keeps what was wrong where [`decode`] finds it.
fn stop<E: Error>(fault: &mut Option<Fault>, field: &'static str) -> impl FnOnce(&'static str) -> E {
    move |reason| {
        *fault = Some(Fault { field, reason });
        E::custom(reason)
    }
}

impl Field {
    /// Number of fields.
    pub(super) const COUNT: usize = Self::Attrs as usize + 1;

    /// How long a text may be; `None` for a field that is no text.
    pub(super) const fn limit(self) -> Option<Limit> {
        Some(match self {
            Self::EventId => Limit::Whole(text::EVENT_ID_BYTES_MAX),
            Self::TokenId | Self::ParentTokenId => Limit::Whole(text::TOKEN_ID_BYTES_MAX),
            Self::FamilyId | Self::SessionId | Self::UserId | Self::AppId | Self::TenantId | Self::Binding => {
                Limit::Whole(text::ID_BYTES_MAX)
            }
            Self::UserAgent => Limit::Cut(text::USER_AGENT_BYTES_MAX),
            Self::ClientFingerprint | Self::Method => Limit::Cut(text::WORD_BYTES_MAX),
            Self::Endpoint => Limit::Cut(text::ENDPOINT_BYTES_MAX),
            _ => return None,
        })
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Scopes => "expected an array",
            Self::Geo | Self::Attrs => "expected an object",
            _ => "expected a string",
        }
    }
}

/// What becomes of a text that is too long.
#[derive(Clone, Copy)]
pub(super) enum Limit {
    /// An error: half an id is another id.
    Whole(usize),
    /// Cut there: the client has a hand in it.
    Cut(usize),
}

/// Reads a text into its place.
struct TextSeed<'v, 'a, 's> {
    slot: &'v mut Option<Cow<'a, str>>,
    limit: Limit,
    screen: &'v mut Screen<'s>,
    field: Field,
    fault: &'v mut Option<Fault>,
}

impl<'a> TextSeed<'_, 'a, '_> {
    fn put<E: Error>(self, text: Cow<'a, str>) -> Result<(), E> {
        let text = self.screen.text(text);
        *self.slot = match self.limit {
            Limit::Whole(bytes_max) if text.len() > bytes_max => {
                return Err(stop(self.fault, self.field.name())("too long"));
            }
            _ if text.is_empty() => None,
            Limit::Whole(_) => Some(text),
            Limit::Cut(bytes_max) => Some(cut(text, bytes_max)),
        };
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for TextSeed<'_, 'de, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TextSeed<'_, 'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        self.put(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        // Only an escape can stand for NUL, and a text with an escape is never borrowed.
        if text.contains('\0') {
            return Err(stop(self.fault, self.field.name())("holds a NUL character"));
        }
        self.put(Cow::Owned(text.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// An event in the making.
struct Draft<'a> {
    event: Event<'a>,
    event_id: Option<Cow<'a, str>>,
    token_id: Option<Cow<'a, str>>,
    parent_token_id: Option<Cow<'a, str>>,
    timestamp: Option<Timestamp>,
    attrs_omitted: u64,
}

impl<'a> Draft<'a> {
    /// Where the text of a field goes; `None` for a field that is no text.
    fn text(&mut self, field: Field) -> Option<&mut Option<Cow<'a, str>>> {
        let event = &mut self.event;
        Some(match field {
            Field::EventId => &mut self.event_id,
            Field::TokenId => &mut self.token_id,
            Field::ParentTokenId => &mut self.parent_token_id,
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

    fn set(&mut self, field: Field, value: Scalar<'a>) -> Result<(), &'static str> {
        let event = &mut self.event;
        match field {
            Field::Timestamp => self.timestamp = value.timestamp()?,
            Field::IssuedAt => event.issued_at = value.timestamp()?,
            Field::ExpiresAt => event.expires_at = value.timestamp()?,
            Field::IpAddress => event.address = value.address()?,
            Field::Status => event.status = value.integer(999)?.map(|status| status as u16),
            Field::BytesOut => event.bytes_out = value.integer(u64::MAX)?,
            Field::Kind => {
                if let Some(kind) = value.text()? {
                    event.kind = Kind::parse(&kind).ok_or("no such kind")?;
                }
            }
            Field::TokenType => {
                if let Some(kind) = value.text()? {
                    event.token_type = TokenType::parse(&kind).ok_or("no such token type")?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Keeps what has no field of its own.
    fn attr(&mut self, name: Cow<'a, str>, value: &'a RawValue, screen: &mut Screen<'_>) -> Result<(), &'static str> {
        if self.event.attrs.len() >= text::ATTRS_MAX {
            self.attrs_omitted += 1;
            return Ok(());
        }
        let raw = value.get();
        let plain = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"'));
        let value = match plain {
            Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
            Some(_) => Cow::Owned(serde_json::from_str(raw).map_err(|_| "a string with an impossible escape")?),
            None => text::compact(raw)?,
        };
        self.event.attrs.push(screen.attr(name, value));
        Ok(())
    }

    /// The event, or the field it cannot do without.
    fn finish(self, screen: &mut Screen<'_>) -> Result<Event<'a>, Field> {
        let Self { mut event, event_id, token_id, parent_token_id, timestamp, attrs_omitted } = self;
        event.event_id = event_id.ok_or(Field::EventId)?;
        event.timestamp = timestamp.ok_or(Field::Timestamp)?;
        event.token_id = screen.token(token_id.ok_or(Field::TokenId)?);
        event.parent_token_id = parent_token_id.map(|id| screen.token(id));
        if event.kind.is_sighting() && event.address.is_none() {
            return Err(Field::IpAddress);
        }
        if attrs_omitted > 0 {
            event.attrs.push((Cow::Borrowed(text::ATTRS_OMITTED), Cow::Owned(attrs_omitted.to_string())));
        }
        Ok(event)
    }
}

/// A text that the client has a hand in: cut where it is too long.
fn word<'a>(
    value: Scalar<'a>,
    bytes_max: usize,
    screen: &mut Screen<'_>,
) -> Result<Option<Cow<'a, str>>, &'static str> {
    Ok(value.text()?.map(|text| cut(screen.text(text), bytes_max)))
}

/// The value of a field that holds more than one.
struct Within<'v, 'a, 's> {
    field: Field,
    draft: &'v mut Draft<'a>,
    screen: &'v mut Screen<'s>,
    fault: &'v mut Option<Fault>,
}

impl<'de> DeserializeSeed<'de> for Within<'_, 'de, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within<'_, 'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or an object")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if self.field != Field::Scopes {
            return Err(A::Error::custom("an array"));
        }
        let scopes = &mut self.draft.event.scopes;
        while let Some(item) = items.next_element::<Scalar<'_>>()? {
            let Some(scope) = item.text().map_err(stop(self.fault, "scopes"))? else { continue };
            if scopes.len() < text::SCOPES_MAX {
                scopes.push(cut(self.screen.text(scope), text::WORD_BYTES_MAX));
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { field, draft, screen, fault } = self;
        match field {
            Field::Attrs => {
                while let Some(Name::Unknown(name)) = members.next_key_seed(NameSeed(|_| None::<Field>))? {
                    draft.attr(name, members.next_value()?, screen).map_err(stop(fault, field.name()))?;
                }
                Ok(())
            }
            Field::Geo => {
                let geo = &mut *draft.event.geo.insert(Box::default());
                let mut unknown = Vec::new();
                let mut seen = 0_u8;
                while let Some(name) = members.next_key_seed(NameSeed(GeoField::parse))? {
                    match name {
                        Name::Known(field) if seen & (1 << field as u8) != 0 => {
                            return Err(stop(fault, field.name())("given twice"));
                        }
                        Name::Known(field) => {
                            seen |= 1 << field as u8;
                            set_geo(geo, field, members.next_value()?, screen).map_err(stop(fault, field.name()))?;
                        }
                        Name::Unknown(name) => unknown.push((name, members.next_value()?)),
                    }
                }
                for (name, value) in unknown {
                    let name = Cow::Owned(format!("geo.{name}"));
                    draft.attr(name, value, screen).map_err(stop(fault, field.name()))?;
                }
                Ok(())
            }
            _ => Err(A::Error::custom("an object")),
        }
    }
}

fn set_geo<'a>(
    geo: &mut EventGeo<'a>,
    field: GeoField,
    value: Scalar<'a>,
    screen: &mut Screen<'_>,
) -> Result<(), &'static str> {
    match field {
        GeoField::Country => geo.country = word(value, text::WORD_BYTES_MAX, screen)?,
        GeoField::AsOrg => geo.as_org = word(value, text::WORD_BYTES_MAX, screen)?,
        GeoField::Latitude => geo.latitude = value.number(-90.0, 90.0)?.map(|degrees| degrees as f32),
        GeoField::Longitude => geo.longitude = value.number(-180.0, 180.0)?.map(|degrees| degrees as f32),
        // No place is known worse than half the globe's girth.
        GeoField::AccuracyKm => geo.accuracy_km = value.number(0.0, 20_040.0)?.map(|km| km.ceil() as u16),
        GeoField::Asn => geo.asn = value.integer(u32::MAX.into())?.map(|asn| asn as u32),
    }
    Ok(())
}
