//! Places in events, for installations that trust the producer, for example a CDN.

use std::sync::Arc;

use super::country;
use super::record;
use super::slots::Slots;
use crate::event::EventGeo;
use crate::key::{Class, KeyHasher};
use crate::place::{Country, Network, Place};

/// 2,048 places and as many networks: a producer's edges and the cities of its users repeat.
const TABLE_BITS: u32 = 10;

/// Places and networks of earlier events, kept so that the same place does not allocate again.
#[derive(Debug)]
pub(super) struct EventPlaces {
    places: Slots<PlaceKey, Option<Arc<Place>>>,
    networks: Slots<(u32, u64), Arc<Network>>,
}

/// Key of a place: hash of its texts, and the bits of latitude, longitude and accuracy.
type PlaceKey = (u64, Option<u32>, Option<u32>, Option<u16>);

impl Default for EventPlaces {
    fn default() -> Self {
        Self { places: Slots::new(TABLE_BITS), networks: Slots::new(TABLE_BITS) }
    }
}

impl EventPlaces {
    /// `None` if the event has no country code or name that is known.
    pub(crate) fn place(&mut self, geo: &EventGeo<'_>, hasher: &KeyHasher) -> Option<Arc<Place>> {
        let country = geo.country.as_deref()?;
        let key = (
            hasher.name(Class::Country, country.as_bytes()),
            geo.latitude.map(f32::to_bits),
            geo.longitude.map(f32::to_bits),
            geo.accuracy_km,
        );
        let [latitude, longitude, accuracy] =
            [key.1, key.2, key.3.map(u32::from)].map(|number| number.map_or(u64::MAX, u64::from));
        let hash = hasher.numbers(Class::Country, [key.0, latitude, longitude, accuracy]);
        self.places.get_or_make(hash, &key, || {
            let country = country::of_code_or_name(country)?;
            Some(Arc::new(of_event(country, geo)))
        })
    }

    /// `None` if the event has no AS number.
    pub(crate) fn network(&mut self, geo: &EventGeo<'_>, hasher: &KeyHasher) -> Option<Arc<Network>> {
        let asn = geo.asn.filter(|&asn| asn != 0)?;
        let org = geo.as_org.as_deref().unwrap_or_default();
        let hash = hasher.record(Class::Organisation, asn.into(), org.as_bytes());
        Some(self.networks.get_or_make(hash, &(asn, hash), || Arc::new(record::network(asn, org))))
    }
}

fn of_event(country: Country, geo: &EventGeo<'_>) -> Place {
    let coordinates = geo.latitude.zip(geo.longitude).and_then(|(latitude, longitude)| {
        record::coordinates(latitude.into(), longitude.into(), geo.accuracy_km.map(f64::from))
    });
    record::place(country, "", coordinates)
}
