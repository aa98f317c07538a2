//! Place and network of an address.

use std::net::IpAddr;

/// ISO 3166-1 alpha-2 code in upper case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

impl Country {
    /// `None` unless `code` is two ASCII letters.
    pub fn parse(code: &str) -> Option<Self> {
        match code.as_bytes() {
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Some(Self([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => None,
        }
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(crate) const fn bytes(self) -> [u8; 2] {
        self.0
    }
}

impl std::fmt::Display for Country {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A point on the WGS 84 ellipsoid with its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coordinates {
    /// Degrees north, −90 to 90.
    pub latitude: f32,
    /// Degrees east, −180 to 180.
    pub longitude: f32,
    /// Accuracy radius in kilometres; `None` if the file has none.
    pub accuracy_km: Option<u16>,
}

/// Location of an address.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub country: Country,
    /// Empty if only the country is known.
    pub city: Box<str>,
    pub coordinates: Option<Coordinates>,
}

/// Kind of a network, derived from its name and from lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetworkClass {
    /// Access networks: homes, offices, mobile carriers.
    Access,
    /// Hosting: clouds and server providers.
    Hosting,
    /// Listed relays and anonymisers: their place is not that of the client.
    Anonymiser,
}

/// The autonomous system that announces the address.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    pub asn: u32,
    pub org: Box<str>,
    pub class: NetworkClass,
}

/// An address prefix, such as `192.0.2.0/24`. A v4-mapped prefix is stored as the IPv4 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// Parses `address/bits` or a single address; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().ok()?.to_canonical();
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(longest);
        (bits <= longest).then_some(Self { address, bits })
    }

    pub(crate) const fn bits(self) -> u8 {
        self.bits
    }

    pub(crate) fn covers(self, address: IpAddr) -> bool {
        let bits = u32::from(self.bits);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(prefix), IpAddr::V4(address)) => {
                (prefix.to_bits() ^ address.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(prefix), IpAddr::V6(address)) => {
                (prefix.to_bits() ^ address.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_covers_its_addresses() {
        for (prefix, address, covers) in [
            ("0.0.0.0/0", "192.0.2.1", true),
            ("198.51.100.0/24", "198.51.100.8", true),
            ("198.51.100.0/24", "198.51.101.8", false),
            ("198.51.100.7", "198.51.100.7", true),
            ("198.51.100.7", "198.51.100.8", false),
            ("198.51.100.0/24", "::ffff:198.51.100.7", true),
            ("2001:db8::/32", "2001:db8:9::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "192.0.2.1", false),
        ] {
            let parsed = Prefix::parse(prefix).expect("a prefix");
            assert_eq!(parsed.covers(address.parse().expect("an address")), covers, "{prefix} {address}");
        }
    }

    #[test]
    fn prefix_refuses_invalid_text() {
        for wrong in ["", "here", "192.0.2.0/33", "2001:db8::/129", "192.0.2.0/-1", "192.0.2.0/24/8", "1.2.3"] {
            assert_eq!(Prefix::parse(wrong), None, "{wrong}");
        }
    }
}
