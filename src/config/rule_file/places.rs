//! Places of the addresses in a rule file's test cases. They are part of the file, so the cases need no GeoIP data.

use std::net::IpAddr;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Fields, Report, quoted};
use crate::enrich::network_class;
use crate::place::{Coordinates, Country, Network, Place, Prefix};
use crate::port::GeoLookup;

/// The table `[places]` of a rule file: place and network by address or prefix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Places {
    entries: Vec<Entry>,
    /// The table has an error, so a missing place is not reported as another one.
    incomplete: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    prefix: Prefix,
    place: Option<Arc<Place>>,
    network: Option<Arc<Network>>,
}

const PLACE_KEYS: &[&str] = &["country", "city", "latitude", "longitude", "accuracy_km", "asn", "org"];

impl Places {
    /// Reads the table. Entries with errors are reported and skipped.
    pub(super) fn read(value: Option<&Spanned<DeValue<'_>>>, report: &mut Report<'_>) -> Self {
        let mut places = Self::default();
        let Some(value) = value else { return places };
        let before = report.len();
        let DeValue::Table(table) = value.get_ref() else {
            report.add(&value.span(), "`places` must be a table of addresses");
            return places;
        };
        for (key, value) in table {
            let Some(prefix) = Prefix::parse(key.get_ref()) else {
                let message = format!(
                    "{} is not an address or prefix, such as \"192.0.2.7\" or \"2001:db8::/48\"",
                    quoted(key.get_ref())
                );
                report.add(&key.span(), message);
                continue;
            };
            if let Some(fields) = Fields::of_value(value, "a place", PLACE_KEYS, report) {
                let place = read_place(&fields, report);
                let network = read_network(&fields, report);
                places.entries.push(Entry { prefix, place, network });
            }
        }
        places.incomplete = report.len() > before;
        places
    }

    /// Checks that the address of a case has an entry, because a missing place would weaken the case unnoticed.
    pub(super) fn check(&self, address: &str) -> Result<(), String> {
        let Ok(parsed) = address.parse::<IpAddr>() else {
            return Err(format!("{} is not an IP address", quoted(address)));
        };
        match self.entry(parsed) {
            Some(_) => Ok(()),
            None if self.incomplete => Ok(()),
            None => {
                Err(format!("no place for {}; add it to [places], or {{}} if its place is unknown", quoted(address)))
            }
        }
    }

    /// The longest prefix that covers `address`.
    fn entry(&self, address: IpAddr) -> Option<&Entry> {
        self.entries.iter().filter(|entry| entry.prefix.covers(address)).max_by_key(|entry| entry.prefix.bits())
    }
}

impl GeoLookup for Places {
    fn lookup(&mut self, address: IpAddr) -> (Option<Arc<Place>>, Option<Arc<Network>>) {
        self.entry(address).map_or((None, None), |entry| (entry.place.clone(), entry.network.clone()))
    }
}

fn read_place(fields: &Fields<'_, '_>, report: &mut Report<'_>) -> Option<Arc<Place>> {
    let code = fields.text("country", report);
    let country = code.and_then(Country::parse);
    if let Some(code) = code.filter(|_| country.is_none()) {
        report.add(&fields.span_of("country"), format!("{} is not a two-letter country code", quoted(code)));
    }
    if code.is_none() && (fields.value("city").is_some() || fields.value("latitude").is_some()) {
        report.add(fields.span(), "a place with a city or coordinates needs its `country`");
    }
    let latitude = fields.number("latitude", -90.0, 90.0, report);
    let longitude = fields.number("longitude", -180.0, 180.0, report);
    if fields.value("latitude").is_some() != fields.value("longitude").is_some() {
        report.add(fields.span(), "`latitude` and `longitude` must be set together");
    }
    let accuracy_km = fields.whole_number("accuracy_km", 0, 20_000, report).map(|km| km as u16);
    let coordinates = latitude.zip(longitude).map(|(latitude, longitude)| Coordinates {
        latitude: latitude as f32,
        longitude: longitude as f32,
        accuracy_km,
    });
    let city = fields.text("city", report).unwrap_or_default().into();
    Some(Arc::new(Place { country: country?, city, coordinates }))
}

fn read_network(fields: &Fields<'_, '_>, report: &mut Report<'_>) -> Option<Arc<Network>> {
    let org = fields.text("org", report);
    if org.is_some() && fields.value("asn").is_none() {
        report.add(fields.span(), "a place with an `org` needs its `asn`");
    }
    let asn = fields.whole_number("asn", 1, u32::MAX, report)?;
    let org = org.unwrap_or_default();
    Some(Arc::new(Network { asn, org: org.into(), class: network_class::of(org) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_uses_the_longest_prefix() {
        let (mut places, mut asn) = (Places::default(), 0);
        for text in ["0.0.0.0/0", "198.51.100.0/24", "198.51.100.7", "2001:db8::/32"] {
            let prefix = Prefix::parse(text).expect("a test prefix parses");
            asn += 1;
            let network = Network { asn, org: "".into(), class: crate::place::NetworkClass::Access };
            places.entries.push(Entry { prefix, place: None, network: Some(Arc::new(network)) });
        }
        let mut asn_of = |text: &str| places.lookup(text.parse().expect("parses")).1.map(|network| network.asn);
        assert_eq!(asn_of("192.0.2.1"), Some(1));
        assert_eq!(asn_of("198.51.100.8"), Some(2));
        assert_eq!(asn_of("198.51.100.7"), Some(3));
        assert_eq!(asn_of("::ffff:198.51.100.7"), Some(3));
        assert_eq!(asn_of("2001:db8:9::1"), Some(4));
        assert_eq!(asn_of("2001:db9::1"), None);
    }
}
