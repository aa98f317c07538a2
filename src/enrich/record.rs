//! Decodes records of GeoIP files, in the schemas in use, into places and networks.
//!
//! | schema | place | network |
//! |---|---|---|
//! | MaxMind (nested) | `country.iso_code`, `city.names.en`, `location.{latitude, longitude, accuracy_radius}` | `autonomous_system_number`, `autonomous_system_organization` |
//! | DB-IP as flat files | `country_code`, `city`, `latitude`, `longitude` | as MaxMind |
//! | IPinfo | `country` or `country_code`, `city`, `lat`, `lng` or `loc` = `"lat,lng"`, `radius` | `asn` = `"AS3320"`, `as_name` or `name`, `as_domain`, `type` |
//!
//! A field of an unexpected type counts as absent; the rest of the record is used.

use std::fmt;

use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::country;
use super::network_class;
use crate::place::{Coordinates, Country, Network, NetworkClass, Place};
use crate::sanitize;

/// Names in files are cut after this number of characters.
const NAME_CHARS_MAX: usize = 100;

/// Fields of a city record in any of the schemas.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawPlace<'a> {
    #[serde(borrow)]
    country: Field<'a>,
    #[serde(borrow)]
    country_code: Field<'a>,
    #[serde(borrow)]
    city: Field<'a>,
    #[serde(borrow)]
    location: Field<'a>,
    #[serde(borrow)]
    latitude: Field<'a>,
    #[serde(borrow)]
    longitude: Field<'a>,
    #[serde(borrow)]
    lat: Field<'a>,
    #[serde(borrow)]
    lng: Field<'a>,
    #[serde(borrow)]
    loc: Field<'a>,
    #[serde(borrow)]
    accuracy_radius: Field<'a>,
    #[serde(borrow)]
    radius: Field<'a>,
}

/// Fields of a network record in any of the schemas.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawNetwork<'a> {
    #[serde(borrow)]
    autonomous_system_number: Field<'a>,
    #[serde(borrow)]
    autonomous_system_organization: Field<'a>,
    #[serde(borrow)]
    asn: Field<'a>,
    #[serde(borrow)]
    as_name: Field<'a>,
    #[serde(borrow)]
    name: Field<'a>,
    #[serde(borrow)]
    as_domain: Field<'a>,
    #[serde(borrow)]
    domain: Field<'a>,
    #[serde(borrow)]
    as_type: Field<'a>,
    #[serde(borrow, rename = "type")]
    kind: Field<'a>,
}

impl RawPlace<'_> {
    /// `None` if the record has no country.
    pub(crate) fn place(&self) -> Option<Place> {
        let country = self.country_code.text().or(self.country.text()).and_then(country::of_code_or_name)?;
        Some(place(country, self.city.text().unwrap_or_default(), self.coordinates()))
    }

    fn coordinates(&self) -> Option<Coordinates> {
        if let Field::Point { latitude, longitude, accuracy_km } = self.location {
            return coordinates(latitude, longitude, accuracy_km);
        }
        let apart = || self.latitude.number().or(self.lat.number()).zip(self.longitude.number().or(self.lng.number()));
        let joined = || {
            let (latitude, longitude) = self.loc.text()?.split_once(',')?;
            latitude.trim().parse().ok().zip(longitude.trim().parse().ok())
        };
        let (latitude, longitude) = apart().or_else(joined)?;
        coordinates(latitude, longitude, self.accuracy_radius.number().or(self.radius.number()))
    }
}

impl RawNetwork<'_> {
    /// `None` if the record has no AS number.
    pub(crate) fn network(&self) -> Option<Network> {
        let asn = self.autonomous_system_number.asn().or_else(|| self.asn.asn())?;
        let named = [&self.autonomous_system_organization, &self.as_name, &self.name, &self.as_domain, &self.domain];
        let org = named.into_iter().find_map(Field::text).unwrap_or_default();
        let mut network = network(asn, org);
        // IPinfo states what a network is used for. That takes precedence over the words of its name.
        if network.class == NetworkClass::Access && self.as_type.text().or(self.kind.text()) == Some("hosting") {
            network.class = NetworkClass::Hosting;
        }
        Some(network)
    }
}

/// Builds a place.
pub(super) fn place(country: Country, city: &str, coordinates: Option<Coordinates>) -> Place {
    Place { country, city: sanitize::name(city, NAME_CHARS_MAX), coordinates }
}

/// Builds a network, classified by its name.
pub(super) fn network(asn: u32, org: &str) -> Network {
    Network { asn, org: sanitize::name(org, NAME_CHARS_MAX), class: network_class::of(org) }
}

/// `None` for a point that does not exist, and for 0, 0, which means "unknown".
pub(super) fn coordinates(latitude: f64, longitude: f64, accuracy_km: Option<f64>) -> Option<Coordinates> {
    let on_earth = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
    (on_earth && (latitude, longitude) != (0.0, 0.0)).then_some(Coordinates {
        latitude: latitude as f32,
        longitude: longitude as f32,
        // A radius of 0 means that none is given.
        accuracy_km: accuracy_km.filter(|&km| km > 0.0).map(|km| km.ceil() as u16),
    })
}

/// A field that is a text, a number or one of MaxMind's maps. A map with `iso_code` or `names` is read as the code or
/// the English name, a location as its point.
#[derive(Clone, Copy, Debug, Default)]
enum Field<'a> {
    #[default]
    Absent,
    Text(&'a str),
    Number(f64),
    Point {
        latitude: f64,
        longitude: f64,
        accuracy_km: Option<f64>,
    },
}

impl<'a> Field<'a> {
    /// `None` if empty.
    fn text(&self) -> Option<&'a str> {
        match *self {
            Self::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match *self {
            Self::Number(number) => Some(number),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Absent | Self::Point { .. } => None,
        }
    }

    /// `3320` or `"AS3320"`; AS 0 is reserved (RFC 7607).
    fn asn(&self) -> Option<u32> {
        let asn = match *self {
            Self::Number(number) if (1.0..=f64::from(u32::MAX)).contains(&number) => number as u32,
            Self::Text(text) => text.trim_start_matches(['A', 'S', 'a', 's']).parse().ok()?,
            _ => return None,
        };
        (asn != 0).then_some(asn)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Field::Text(text))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Field::Number(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Field::Number(number as f64))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Field::Number(number as f64))
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<Self::Value, E> {
        Ok(Field::Absent)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Field::Absent)
    }

    fn visit_bytes<E: de::Error>(self, _: &[u8]) -> Result<Self::Value, E> {
        Ok(Field::Absent)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut named = Field::Absent;
        let (mut latitude, mut longitude, mut radius) = (Field::Absent, Field::Absent, Field::Absent);
        while let Some(key) = map.next_key::<&str>()? {
            match key {
                "iso_code" | "names" | "en" => named = map.next_value()?,
                "latitude" => latitude = map.next_value()?,
                "longitude" => longitude = map.next_value()?,
                "accuracy_radius" => radius = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(match latitude.number().zip(longitude.number()) {
            Some((latitude, longitude)) => Field::Point { latitude, longitude, accuracy_km: radius.number() },
            None => named,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        while values.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Absent)
    }
}
