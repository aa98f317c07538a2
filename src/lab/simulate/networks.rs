//! Real networks for simulated people: prefixes of known providers in known cities, which GeoIP files contain. The
//! table was taken from DB-IP's city data and the routing table of June 2026. Real users of these addresses are
//! unrelated to the simulated events.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp as Instant;
use jiff::tz::TimeZone;

use super::label::News;
use super::random::Random;

/// Use of a network's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Access networks of homes and offices.
    Home,
    /// A mobile carrier's gateways: many phones share an address, and change it.
    Mobile,
    Cloud,
    /// Hosted runners of a build service.
    Ci,
    /// Exits of commercial VPNs.
    Vpn,
    /// Small rented servers.
    Rented,
    /// Homes in other places, as residential proxies offer them.
    Abroad,
}

/// Addresses of one provider in one city.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(crate) purpose: Purpose,
    pub(crate) country: &'static str,
    pub(crate) city: &'static str,
    pub(crate) zone: Zone,
    pub asn: u32,
    v4: Vec<[u8; 3]>,
    v6: Vec<[u16; 3]>,
}

/// A time zone as a POSIX rule, so that the result does not depend on the machine's zone table.
#[derive(Clone, Debug)]
pub(super) struct Zone(TimeZone);

impl Zone {
    /// Local time minus UTC at `at`; both in milliseconds.
    pub(crate) fn offset_ms(&self, at: i64) -> i64 {
        let instant = Instant::from_millisecond(at).unwrap_or(Instant::UNIX_EPOCH);
        i64::from(self.0.to_offset(instant).seconds()) * 1_000
    }
}

/// All networks of the table.
pub(super) fn all() -> Vec<Network> {
    include_str!("networks.tsv").lines().filter_map(read).collect()
}

fn read(line: &'static str) -> Option<Network> {
    let mut columns = line.split('\t');
    let purpose = match columns.next()? {
        "home" => Purpose::Home,
        "mobile" => Purpose::Mobile,
        "cloud" => Purpose::Cloud,
        "ci" => Purpose::Ci,
        "vpn" => Purpose::Vpn,
        "rented" => Purpose::Rented,
        "abroad" => Purpose::Abroad,
        _ => return None,
    };
    let (country, city) = (columns.next()?, columns.next()?);
    let zone = Zone(TimeZone::posix(columns.next()?).ok()?);
    let asn = columns.next()?.parse().ok()?;
    let _holder = columns.next()?;
    let v4 = columns.next()?.split_whitespace().map(read_v4).collect::<Option<_>>()?;
    let v6 = columns.next()?.split_whitespace().map(read_v6).collect::<Option<_>>()?;
    Some(Network { purpose, country, city, zone, asn, v4, v6 })
}

fn read_v4(text: &str) -> Option<[u8; 3]> {
    let [a, b, c, _] = format!("{text}.0").parse::<Ipv4Addr>().ok()?.octets();
    Some([a, b, c])
}

fn read_v6(text: &str) -> Option<[u16; 3]> {
    let [a, b, c, ..] = format!("{text}::").parse::<Ipv6Addr>().ok()?.segments();
    Some([a, b, c])
}

impl Network {
    pub(crate) fn random_v4(&self, random: &mut Random) -> IpAddr {
        let [a, b, c] = *random.pick(&self.v4);
        IpAddr::V4(Ipv4Addr::new(a, b, c, random.within(1..255) as u8))
    }

    /// Whether `address` belongs to this row of the table.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                self.v4.contains(&[a, b, c])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, ..] = v6.segments();
                self.v6.contains(&[a, b, c])
            }
        }
    }

    /// The /64 of one household or phone, if the network has IPv6.
    fn random_64(&self, random: &mut Random) -> Option<[u16; 4]> {
        if self.v6.is_empty() {
            return None;
        }
        let [a, b, c] = *random.pick(&self.v6);
        Some([a, b, c, random.bits() as u16])
    }
}

fn in_64(prefix: [u16; 4], host: u64) -> Ipv6Addr {
    let network = prefix.into_iter().fold(0_u128, |bits, group| (bits << 16) | u128::from(group));
    Ipv6Addr::from_bits((network << 64) | u128::from(host))
}

/// Continent of the countries in the table.
pub(super) fn continent(country: &str) -> &'static str {
    match country {
        "US" | "CA" => "North America",
        "BR" | "PE" => "South America",
        "IN" | "JP" | "VN" | "ID" | "MY" => "Asia",
        "AU" => "Australia",
        "NG" | "EG" | "ZA" => "Africa",
        _ => "Europe",
    }
}

/// How the address of a line changes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Habit {
    Fixed,
    /// A new address after this number of milliseconds, as with providers that reconnect every night.
    Changing(i64),
    /// Sometimes another address of the pool, as behind a carrier's gateways.
    Pool,
}

/// One internet connection of a home, an office or a phone.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(crate) network: usize,
    habit: Habit,
    v4: IpAddr,
    changed_at: i64,
    /// The line's /64, and the share of visits over IPv6.
    v6: Option<([u16; 4], f64)>,
    /// Why visits over this line are a hard case.
    pub(crate) news: Option<News>,
}

impl Line {
    pub(crate) fn new(networks: &[Network], network: usize, habit: Habit, random: &mut Random) -> Self {
        let line = &networks[network];
        let dual_stack = matches!(line.purpose, Purpose::Home | Purpose::Mobile) && random.chance(0.45);
        let v6 =
            if dual_stack { line.random_64(random).map(|prefix| (prefix, 0.4 + 0.5 * random.unit())) } else { None };
        Self { network, habit, v4: line.random_v4(random), changed_at: i64::MIN, v6, news: None }
    }

    /// Sets the news of all visits over this line.
    pub(crate) fn with(self, news: News) -> Self {
        Self { news: Some(news), ..self }
    }

    /// The address of a visit at `at`.
    pub(crate) fn address(&mut self, networks: &[Network], at: i64, random: &mut Random) -> IpAddr {
        let network = &networks[self.network];
        let changes = match self.habit {
            Habit::Fixed => false,
            Habit::Changing(every) => at.saturating_sub(self.changed_at) >= every,
            Habit::Pool => random.chance(0.6),
        };
        if changes {
            let renumbered = self.changed_at != i64::MIN || matches!(self.habit, Habit::Pool);
            self.changed_at = match self.habit {
                // The first change is at a random moment of the period, so that lines do not change together at the
                // start.
                Habit::Changing(every) if !renumbered => at - random.within(0..every),
                _ => at,
            };
            if renumbered {
                self.v4 = network.random_v4(random);
                if let Some((prefix, _)) = &mut self.v6
                    && let Some(fresh) = network.random_64(random)
                {
                    *prefix = fresh;
                }
            }
        }
        match self.v6 {
            // Privacy extensions: another interface identifier each time (RFC 8981).
            Some((prefix, share)) if random.chance(share) => IpAddr::V6(in_64(prefix, random.bits())),
            _ => self.v4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::millis::HOUR_MS;

    #[test]
    fn network_table_has_valid_rows() {
        let rows = include_str!("networks.tsv").lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(all().len(), rows);
    }

    #[test]
    fn zone_follows_its_summer_time_rule() {
        let networks = all();
        let tenths_of_hours = |city: &str, at: &str| {
            let network = networks.iter().find(|network| network.city == city).expect("a city of the table");
            let at = at.parse::<Instant>().expect("RFC 3339").as_millisecond();
            network.zone.offset_ms(at) * 10 / HOUR_MS
        };
        assert_eq!(tenths_of_hours("Berlin", "2026-10-25T00:59:59Z"), 20);
        assert_eq!(tenths_of_hours("Berlin", "2026-10-25T01:00:00Z"), 10);
        assert_eq!(tenths_of_hours("New York", "2026-10-31T12:00:00Z"), -40);
        assert_eq!(tenths_of_hours("New York", "2026-11-01T06:00:00Z"), -50);
        assert_eq!(tenths_of_hours("Sydney", "2026-10-03T15:59:00Z"), 100);
        assert_eq!(tenths_of_hours("Sydney", "2026-10-03T16:00:00Z"), 110);
        assert_eq!(tenths_of_hours("Bengaluru", "2026-07-01T00:00:00Z"), 55);
    }

    #[test]
    fn city_with_homes_has_a_carrier() {
        let networks = all();
        for home in networks.iter().filter(|network| network.purpose == Purpose::Home) {
            let served = |network: &Network| network.purpose == Purpose::Mobile && network.city == home.city;
            assert!(networks.iter().any(served), "{}", home.city);
        }
    }
}
