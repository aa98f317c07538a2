//! Sighting: the numbers of an event that are stored and compared, without texts.

use serde::{Deserialize, Serialize};

use crate::enrichment::{Device, EnrichedEvent, NO_ASN, NO_NETWORK};
use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};
use crate::place::{Coordinates, NetworkClass};

/// Accuracy radius of a place if the GeoIP file has none: that of a city, kilometres.
const RADIUS_KM: u16 = 50;

/// A geographic place, and the time at which the token was used there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Site {
    /// Hundredths of a degree.
    latitude: i16,
    longitude: i16,
    pub(crate) radius_km: u16,
    /// Minutes since the epoch; 0: there is none.
    minute: u32,
}

impl Site {
    pub(crate) fn new(latitude: f32, longitude: f32, radius_km: u16, at: i64) -> Self {
        // Rounded to the nearest; the cast truncates and saturates.
        let hundredths = |degrees: f32| (degrees * 100.0 + 0.5_f32.copysign(degrees)) as i16;
        Self {
            latitude: hundredths(latitude),
            longitude: hundredths(longitude),
            radius_km,
            minute: (at / MINUTE_MS) as u32,
        }
    }

    pub(crate) const fn exists(&self) -> bool {
        self.minute != 0
    }

    /// Milliseconds since the epoch, to the minute.
    pub(crate) const fn at(&self) -> i64 {
        self.minute as i64 * MINUTE_MS
    }

    /// Limits its time to `at`, milliseconds since the epoch.
    pub(super) fn limit(&mut self, at: i64) {
        self.minute = self.minute.min((at / MINUTE_MS) as u32);
    }

    /// Difference of solar time, whole hours from −12 to 12.
    pub(crate) fn hours_east_of(&self, other: &Self) -> i32 {
        let degrees = f64::from(i32::from(self.longitude) - i32::from(other.longitude)) / 100.0;
        let hours = libm::round(degrees / 15.0) as i32;
        (hours + 36) % 24 - 12
    }

    /// Distance between the centres, kilometres.
    pub(crate) fn distance_km(&self, other: &Self) -> f64 {
        let degrees = |site: &Self| (f64::from(site.latitude) / 100.0, f64::from(site.longitude) / 100.0);
        crate::math::distance_km(degrees(self), degrees(other))
    }
}

/// 0 means unknown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting {
    /// Milliseconds since the epoch.
    pub(crate) at: i64,
    pub(crate) address: u32,
    /// Whether the address is an IPv6 /64, and not a single IPv4 address.
    pub(crate) is_wide: bool,
    pub(crate) prefix: u32,
    /// AS number. If no GeoIP file knows it, a number for the wider prefix (IPv4 /16, IPv6 /32).
    pub(crate) network: u32,
    pub(crate) class: NetworkClass,
    pub(crate) country: u32,
    pub(crate) agent: u32,
    pub(crate) version: u32,
    pub(crate) family: u32,
    pub(crate) fingerprint: u32,
    pub(crate) device: Device,
    /// [`Self::site`]
    pub(crate) coordinates: Option<Coordinates>,
    pub(crate) tenant: u64,
    pub(crate) app: u64,
    /// Key of the visit: address, user agent and fingerprint.
    pub(crate) visit: u64,
}

impl Sighting {
    /// The sighting of an event at `at`, which may differ from the event's own time. `None` for a provider's own call,
    /// whose place and client are not the holder's. Without an address, everything except the place is scored.
    #[inline] // Otherwise the result is returned through memory, for every event.
    pub(crate) fn of(enriched: &EnrichedEvent<'_>, at: i64) -> Option<Self> {
        if enriched.event.is_own_call() {
            return None;
        }
        let network = enriched.keys.network;
        let class = enriched.network.as_ref().map_or(NetworkClass::Access, |network| network.class);
        let located = if network == NO_NETWORK { None } else { enriched.place.as_ref() };
        let country = located.map_or(0, |place| {
            let [a, b] = place.country.bytes();
            u32::from(a) << 8 | u32::from(b)
        });
        Some(Self {
            at,
            address: enriched.keys.address,
            is_wide: enriched.event.address.is_some_and(|address| address.ip().is_ipv6()),
            prefix: enriched.keys.prefix,
            network,
            class,
            country,
            agent: enriched.client.agent_key.max(1),
            version: enriched.client.version_key.max(1),
            family: enriched.client.family_key.max(1),
            fingerprint: enriched.keys.fingerprint,
            device: enriched.client.device,
            coordinates: located.and_then(|place| place.coordinates),
            tenant: enriched.keys.tenant,
            app: enriched.keys.app,
            visit: enriched.keys.visit,
        })
    }

    /// Key of the address in the baseline. A relay's /64 can span countries, so its key includes the country.
    pub(crate) const fn address_in(&self, country: u32) -> u32 {
        if self.is_wide { in_country(self.address, country) } else { self.address }
    }

    /// Key of the prefix in the baseline, with the country.
    pub(crate) const fn prefix_in(&self, country: u32) -> u32 {
        in_country(self.prefix, country)
    }

    /// Whether the place is known, at least the network.
    pub(crate) const fn has_place(&self) -> bool {
        self.network != NO_NETWORK
    }

    /// The geographic place. Only the beginning of a visit reads it, so not every event computes it.
    pub(crate) fn site(&self) -> Site {
        self.coordinates.map_or_else(Site::default, |found| {
            Site::new(found.latitude, found.longitude, found.accuracy_km.unwrap_or(RADIUS_KM), self.at)
        })
    }

    /// Minutes since the epoch.
    pub(crate) const fn minute(&self) -> u32 {
        (self.at / MINUTE_MS) as u32
    }

    /// Days since the epoch.
    pub(crate) const fn day(&self) -> u32 {
        (self.at / DAY_MS) as u32
    }

    /// Hours since the epoch.
    pub(crate) const fn hour_number(&self) -> u32 {
        (self.at / HOUR_MS) as u32
    }

    /// Hour of the day, UTC.
    pub(crate) const fn hour(&self) -> usize {
        (self.hour_number() % 24) as usize
    }

    /// Saturday or Sunday, UTC; the epoch was a Thursday.
    pub(crate) const fn is_weekend(&self) -> bool {
        matches!((self.day() + 4) % 7, 0 | 6)
    }

    /// The AS number, if the network is one.
    pub(crate) const fn asn(network: u32) -> Option<u32> {
        if network & NO_ASN == 0 { Some(network) } else { None }
    }
}

/// 0 stands for none, in any country.
const fn in_country(key: u32, country: u32) -> u32 {
    if key == 0 { 0 } else { crate::key::half((key ^ country.wrapping_mul(0x9e37_79b1)) as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weekend_is_saturday_and_sunday() {
        let at = |day: i64| {
            let mut sighting = crate::memory::tests::sighting();
            sighting.at = day * DAY_MS;
            sighting.is_weekend()
        };
        // 2026-11-21 was a Saturday, day 20,778 of the epoch.
        assert_eq!([20_777, 20_778, 20_779, 20_780].map(at), [false, true, true, false]);
    }

    #[test]
    fn site_is_exact_to_a_kilometre() {
        let (berlin, sydney) = (Site::new(52.52, 13.40, 20, HOUR_MS), Site::new(-33.87, 151.21, 20, HOUR_MS));
        assert!((berlin.distance_km(&sydney) - 16_090.0).abs() < 30.0);
        assert_eq!(berlin.at(), HOUR_MS);
        let apia = Site::new(-13.83, -171.77, 20, HOUR_MS);
        assert_eq!((sydney.hours_east_of(&berlin), berlin.hours_east_of(&sydney)), (9, -9));
        assert_eq!(apia.hours_east_of(&sydney), 2, "across the date line");
        assert!(berlin.exists() && !Site::default().exists());
    }
}
