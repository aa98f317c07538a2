//! One JSON value that is not an array or object, borrowed from its message if possible.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::repair::shown;
use super::time;
use crate::event::{Address, Timestamp};

/// Largest HTTP status, three digits (RFC 9110 section 15).
pub(crate) const STATUS_MAX: u64 = 999;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    /// Also integers beyond 64 bits.
    Float(f64),
    Text(Cow<'a, str>),
    /// An array or an object, skipped.
    Nested,
}

impl<'a> Scalar<'a> {
    /// `None` for null and for an empty text, which producers use for absent values.
    pub(crate) fn text(self) -> Result<Option<Cow<'a, str>>, &'static str> {
        match self {
            Self::Null => Ok(None),
            Self::Text(text) => Ok((!text.is_empty()).then_some(text)),
            _ => Err("expected a string"),
        }
    }

    /// Like [`Self::text`], or the digits of an integer. A number with a fraction or beyond 64 bits is refused, because
    /// two different ones can have the same digits here.
    pub(crate) fn text_or_digits(self) -> Result<Option<Cow<'a, str>>, &'static str> {
        match self {
            Self::Unsigned(number) => Ok(Some(Cow::Owned(number.to_string()))),
            Self::Negative(number) => Ok(Some(Cow::Owned(number.to_string()))),
            other => other.text(),
        }
    }

    /// An HTTP status, optionally with a reason: `401 Unauthorized` (RFC 9112 section 4). A list of statuses is
    /// refused, because the client's status is then unknown.
    pub(crate) fn status(self) -> Result<Option<u16>, &'static str> {
        let code = match &self {
            Self::Text(text) => Scalar::Text(Cow::Borrowed(without_reason(text))).integer(STATUS_MAX),
            _ => self.integer(STATUS_MAX),
        };
        Ok(code?.map(|status| status as u16))
    }

    /// The value as sent, for readers of the event; `None` if it is null or nested.
    pub(crate) fn shown(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Null | Self::Nested => None,
            Self::Bool(value) => Some(Cow::Borrowed(if value { "true" } else { "false" })),
            Self::Unsigned(number) => Some(Cow::Owned(number.to_string())),
            Self::Negative(number) => Some(Cow::Owned(number.to_string())),
            Self::Float(number) => Some(Cow::Owned(number.to_string())),
            Self::Text(text) => Some(shown(text)),
        }
    }

    /// An integer from 0 to `max`, as a number or as its digits in a text.
    pub(crate) fn integer(self, max: u64) -> Result<Option<u64>, &'static str> {
        const EXPECTED: &str = "expected an integer";
        // Integers up to here are exact as floating-point numbers (IEEE 754).
        const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
        let number = match self {
            Self::Null => return Ok(None),
            Self::Unsigned(number) => number,
            Self::Negative(_) => return Err("negative"),
            Self::Float(number) if number < 0.0 => return Err("negative"),
            Self::Float(number) if number > EXACT_MAX => return Err("too large"),
            Self::Float(number) if number.fract() == 0.0 => number as u64,
            Self::Text(text) if text.is_empty() => return Ok(None),
            Self::Text(text) => digits(&text)?.ok_or(EXPECTED)?,
            Self::Float(_) | Self::Bool(_) | Self::Nested => return Err(EXPECTED),
        };
        if number <= max { Ok(Some(number)) } else { Err("too large") }
    }

    /// A number from `min` to `max`.
    pub(crate) fn number(self, min: f64, max: f64) -> Result<Option<f64>, &'static str> {
        let number = match self {
            Self::Null => return Ok(None),
            Self::Unsigned(number) => number as f64,
            Self::Negative(number) => number as f64,
            Self::Float(number) => number,
            _ => return Err("expected a number"),
        };
        if (min..=max).contains(&number) { Ok(Some(number)) } else { Err("out of range") }
    }

    /// An RFC 3339 text or integer milliseconds since the epoch.
    pub(crate) fn timestamp(self) -> Result<Option<Timestamp>, &'static str> {
        let millis = match self {
            Self::Text(text) if text.is_empty() => return Ok(None),
            Self::Text(text) => match digits(&text) {
                Ok(Some(millis)) => i64::try_from(millis).unwrap_or(i64::MAX),
                Ok(None) => return time::parse(&text).map(Some),
                Err(_) => i64::MAX,
            },
            Self::Null => return Ok(None),
            Self::Unsigned(millis) => i64::try_from(millis).unwrap_or(i64::MAX),
            Self::Negative(millis) => millis,
            // The cast saturates; values out of range are refused below.
            Self::Float(millis) if millis.fract() == 0.0 => millis as i64,
            Self::Float(_) => return Err("expected whole milliseconds"),
            Self::Bool(_) | Self::Nested => return Err("expected an RFC 3339 time or integer milliseconds"),
        };
        if time::LIKE_SECONDS.contains(&millis) {
            return Err(time::SECONDS);
        }
        Timestamp::from_millis(millis).map(Some).ok_or(time::OUT_OF_RANGE)
    }

    /// An IPv4 or IPv6 address, optionally with a port or zone. A list of addresses is refused: only the producer knows
    /// which one is the client's, and the client may have written the first.
    pub(crate) fn address(self) -> Result<Option<Address>, &'static str> {
        let Some(text) = self.text()? else { return Ok(None) };
        let ip = text.parse().ok().or_else(|| beside_port_or_zone(&text));
        ip.map(|ip| Some(Address::new(ip))).ok_or("not an IP address")
    }
}

/// The address in `192.0.2.7:443`, `[2001:db8::7]:443`, `[2001:db8::7]` or `fe80::7%eth0` (RFC 3986 section 3.2.2, RFC
/// 4007 section 11).
fn beside_port_or_zone(text: &str) -> Option<IpAddr> {
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    let inside = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']')?;
            let is_known = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
            is_known.then_some(inside)?
        }
        None if text.contains('%') => text,
        None => {
            let (address, port) = text.split_once(':')?;
            return is_port(port).then(|| address.parse().ok().map(IpAddr::V4)).flatten();
        }
    };
    let (address, zone) = inside.split_once('%').map_or((inside, None), |(address, zone)| (address, Some(zone)));
    let is_zone = |zone: &str| !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_graphic());
    zone.is_none_or(is_zone).then(|| address.parse().ok().map(IpAddr::V6)).flatten()
}

/// The code at the end of a status line, without the reason.
fn without_reason(text: &str) -> &str {
    let is_reason =
        |rest: &str| rest.starts_with(|c: char| !c.is_alphanumeric()) && !rest.contains(|c: char| c.is_ascii_digit());
    text.split_at_checked(3).filter(|(_, rest)| is_reason(rest)).map_or(text, |(code, _)| code)
}

/// The number of a text of decimal digits, `None` for any other text.
fn digits(text: &str) -> Result<Option<u64>, &'static str> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| "too large")
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Unsigned(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Negative(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Float(number))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar<'de>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Scalar<'de>, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nested)
    }
}
