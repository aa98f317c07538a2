//! Fields of the native event: their names and limits.

use crate::event::EventGeo;
use crate::wire::scalar::Scalar;
use crate::wire::text::{self, Limit, Screen};

/// Declares members with their wire names; an error prefixes them with the name of the containing object.
macro_rules! fields {
    ($fields:ident, $of:literal: $($field:ident = $name:literal $(| $alias:literal)?,)+) => {
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $fields { $($field,)+ }

        impl $fields {
            pub(crate) fn parse(name: &str) -> Option<Self> {
                match name { $($name $(| $alias)? => Some(Self::$field),)+ _ => None }
            }

            pub(crate) const fn name(self) -> &'static str {
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
    // The second is the name in OAuth (RFC 6749 section 3.3).
    Scopes = "scopes" | "scope",
    IssuedAt = "issued_at",
    ExpiresAt = "expires_at",
    Binding = "binding",
    Concerns = "concerns",
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

impl Field {
    /// Number of fields.
    pub(in crate::wire) const COUNT: usize = Self::Attrs as usize + 1;

    /// Without it, or if it is unreadable, a record is no event.
    pub(super) const fn is_required(self) -> bool {
        matches!(self, Self::EventId | Self::Timestamp | Self::TokenId)
    }

    /// Length limit of a text; `None` for a field that is not a text. A family is the target of revocations, and a
    /// wrong binding causes one, so neither is repaired.
    pub(in crate::wire) const fn limit(self) -> Option<Limit> {
        Some(match self {
            Self::EventId => Limit::Whole(text::EVENT_ID_BYTES_MAX),
            Self::TokenId | Self::ParentTokenId => Limit::Whole(text::TOKEN_ID_BYTES_MAX),
            Self::FamilyId | Self::Binding => Limit::Whole(text::ID_BYTES_MAX),
            Self::SessionId | Self::UserId | Self::AppId | Self::TenantId => Limit::Id(text::ID_BYTES_MAX),
            Self::UserAgent => Limit::Text(text::USER_AGENT_BYTES_MAX),
            Self::ClientFingerprint | Self::Method => Limit::Text(text::WORD_BYTES_MAX),
            Self::Endpoint => Limit::Text(text::ENDPOINT_BYTES_MAX),
            _ => return None,
        })
    }
}

impl GeoField {
    /// Sets the field in `geo`.
    pub(super) fn set<'a>(
        self,
        geo: &mut EventGeo<'a>,
        value: Scalar<'a>,
        screen: &mut Screen<'_>,
    ) -> Result<(), &'static str> {
        let mut word = |value: Scalar<'a>| {
            let limited = |text| screen.limited(self.name(), text, Limit::Text(text::WORD_BYTES_MAX));
            value.text()?.map(limited).transpose()
        };
        match self {
            Self::Country => geo.country = word(value)?,
            Self::AsOrg => geo.as_org = word(value)?,
            Self::Latitude => geo.latitude = value.number(-90.0, 90.0)?.map(|degrees| degrees as f32),
            Self::Longitude => geo.longitude = value.number(-180.0, 180.0)?.map(|degrees| degrees as f32),
            // No location is less certain than half the Earth's circumference.
            Self::AccuracyKm => geo.accuracy_km = value.number(0.0, 20_040.0)?.map(|km| km.ceil() as u16),
            Self::Asn => geo.asn = value.integer(u32::MAX.into())?.map(|asn| asn as u32),
        }
        Ok(())
    }
}
