//! IP addresses of clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address in canonical form. An IPv6 address that embeds an IPv4 address is stored as that IPv4 address. These
/// forms are recognised: v4-mapped and v4-compatible (RFC 4291 section 2.5.5), NAT64's well-known prefix (RFC 6052),
/// NAT64's local-use prefix (RFC 8215) if the last 32 bits are the IPv4 address, and 6to4 (RFC 3056). Other NAT64
/// prefixes are chosen by a network and cannot be recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(IpAddr);

impl Address {
    pub fn new(address: IpAddr) -> Self {
        match address {
            IpAddr::V6(v6) => Self(v4_within(v6).map_or(address, IpAddr::V4)),
            IpAddr::V4(_) => Self(address),
        }
    }

    /// The address to look up in GeoIP files. For a Teredo address (RFC 4380 section 4) it is the client's IPv4
    /// address, which the address contains inverted. For a link-local ISATAP address (RFC 5214 section 6.1) it is the
    /// embedded IPv4 address. Otherwise it is the address itself.
    pub(crate) const fn located(self) -> IpAddr {
        let IpAddr::V6(v6) = self.0 else { return self.0 };
        match v6.octets() {
            [0x20, 0x01, 0, 0, .., a, b, c, d] => IpAddr::V4(Ipv4Addr::new(!a, !b, !c, !d)),
            // Under another prefix, the location is that of the prefix, and the embedded IPv4 address may be private.
            [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0 | 2, 0, 0x5e, 0xfe, a, b, c, d] => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            _ => self.0,
        }
    }

    pub const fn ip(self) -> IpAddr {
        self.0
    }

    /// Sixteen bytes in network order, an IPv4 address as v4-mapped: the `IPv6` column of the store.
    pub(crate) fn to_ipv6(self) -> Ipv6Addr {
        match self.0 {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        }
    }

    /// Key of one client: the IPv4 address, or the IPv6 /64 (RFC 8981 privacy addresses change inside it).
    pub(crate) fn client(self) -> u64 {
        self.leading(32, 64)
    }

    /// Key of the prefix: IPv4 /24, IPv6 /48 (RFC 6177).
    pub(crate) fn prefix(self) -> u64 {
        self.leading(24, 48)
    }

    /// Key of the wider prefix: IPv4 /16, IPv6 /32, the usual size of one provider's allocation.
    pub(crate) fn wide(self) -> u64 {
        self.leading(16, 32)
    }

    /// The leading bits, at most 64. The first eight bits are 0 for an IPv4 address; no assigned IPv6 address begins
    /// with them.
    fn leading(self, v4_bits: u32, v6_bits: u32) -> u64 {
        match self.0 {
            IpAddr::V4(v4) => u64::from(v4.to_bits() & (u32::MAX << (32 - v4_bits))),
            IpAddr::V6(v6) => ((v6.to_bits() >> 64) as u64) & (u64::MAX << (64 - v6_bits)),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The IPv4 address that `v6` embeds.
const fn v4_within(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let (a, b, c, d) = match v6.octets() {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
        | [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        | [0x20, 0x02, a, b, c, d, ..] => (a, b, c, d),
        // 0.0.0.0/8 holds no host (RFC 1122), and `::1` is the loopback address. A translator with a longer part of the
        // prefix for its network's own use (RFC 6052 section 2.2) has zeros in the last octets.
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        | [0, 0x64, 0xff, 0x9b, 0, 1, _, _, 0, 0, 0, 0, a, b, c, d]
            if a != 0 =>
        {
            (a, b, c, d)
        }
        _ => return None,
    };
    Some(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::new(text.parse().expect("a test address parses"))
    }

    #[test]
    fn address_is_the_ipv4_address_it_embeds() {
        for text in [
            "::ffff:192.0.2.7",
            "::192.0.2.7",
            "64:ff9b::192.0.2.7",
            "64:ff9b:1::192.0.2.7",
            "64:ff9b:1:abcd::192.0.2.7",
            "2002:c000:207::1",
            "2002:c000:207:9::",
        ] {
            assert_eq!(address(text).to_string(), "192.0.2.7", "{text}");
        }
        for text in [
            "::1",
            "::",
            "::7:1",
            "64:ff9b:1:c000:2:700::",
            "64:ff9b:1::1:c000:207",
            "64:ff9b:2::c000:207",
            "64:ff9b::1:0:1:c000:207",
            "2003:c000:207::1",
        ] {
            assert!(address(text).ip().is_ipv6(), "{text}");
        }
    }

    #[test]
    fn teredo_address_is_located_by_its_client() {
        // 192.0.2.45 inverted is 3fff:fdd2.
        let teredo = address("2001:0:4136:e378:8000:63bf:3fff:fdd2");
        assert!(teredo.ip().is_ipv6(), "the stored address is unchanged");
        assert_eq!(teredo.located().to_string(), "192.0.2.45");
        for text in ["2001:db8::7", "2001:1::1", "192.0.2.7"] {
            assert_eq!(address(text).located(), address(text).ip(), "{text}");
        }
    }

    #[test]
    fn isatap_address_is_located_by_its_ipv4_address() {
        for text in ["fe80::5efe:192.0.2.45", "fe80::200:5efe:192.0.2.45"] {
            assert!(address(text).ip().is_ipv6(), "the stored address is unchanged");
            assert_eq!(address(text).located().to_string(), "192.0.2.45", "{text}");
        }
        for text in ["2001:db8::5efe:10.0.0.1", "fe80::1:5efe:192.0.2.45", "fe80::7"] {
            assert_eq!(address(text).located(), address(text).ip(), "{text}");
        }
    }

    #[test]
    fn ipv6_client_is_the_64_and_prefix_the_48() {
        assert_eq!(address("2001:db8:1:2::1").client(), address("2001:db8:1:2:ffff::9").client());
        assert_ne!(address("2001:db8:1:2::1").client(), address("2001:db8:1:3::1").client());
        assert_eq!(address("2001:db8:1:2::1").prefix(), address("2001:db8:1:3::1").prefix());
        assert_ne!(address("2001:db8:1:2::1").prefix(), address("2001:db8:2:2::1").prefix());
    }

    #[test]
    fn ipv4_client_is_the_address_and_prefix_the_24() {
        assert_ne!(address("192.0.2.7").client(), address("192.0.2.8").client());
        assert_eq!(address("192.0.2.7").prefix(), address("192.0.2.8").prefix());
        assert_ne!(address("192.0.2.7").prefix(), address("192.0.3.7").prefix());
    }
}
