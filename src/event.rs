//! The token event: one sighting of a token, as the outside reported it.
//!
//! Every text is borrowed from the message's bytes where it can be, so an event never outlives its message.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::token::TokenId;

/// Milliseconds since 1970-01-01T00:00:00Z, in the range that every part of the system can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(i64);

impl Timestamp {
    /// First instant accepted, 1970-01-01.
    pub const MIN: Self = Self(0);
    /// Last instant accepted, 2199-12-31T23:59:59.999Z: safely inside `DateTime64(3)`, which clamps past 2299.
    pub const MAX: Self = Self(7_258_118_399_999);

    /// `None` outside [`Self::MIN`], [`Self::MAX`].
    #[must_use]
    pub const fn from_millis(millis: i64) -> Option<Self> {
        if millis < Self::MIN.0 || millis > Self::MAX.0 { None } else { Some(Self(millis)) }
    }

    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }
}

/// What happened to the token. The names on the wire are the lower-case ones of the event contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    #[default]
    Use,
    Issued,
    Refreshed,
    Revoked,
    SessionEnded,
    CredentialChanged,
    /// The owner, or an analyst for them, confirms that the uses so far are theirs.
    Confirmed,
}

impl Kind {
    pub const ALL: [Self; 7] = [
        Self::Use,
        Self::Issued,
        Self::Refreshed,
        Self::Revoked,
        Self::SessionEnded,
        Self::CredentialChanged,
        Self::Confirmed,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Use => "use",
            Self::Issued => "issued",
            Self::Refreshed => "refreshed",
            Self::Revoked => "revoked",
            Self::SessionEnded => "session_ended",
            Self::CredentialChanged => "credential_changed",
            Self::Confirmed => "confirmed",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// A sighting is somebody holding the token in their hand: it has an address and is judged against the baseline.
    #[must_use]
    pub const fn is_sighting(self) -> bool {
        matches!(self, Self::Use | Self::Refreshed)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TokenType {
    Access,
    Refresh,
    ApiKey,
    Personal,
    Session,
    #[default]
    Other,
}

impl TokenType {
    pub const ALL: [Self; 6] = [Self::Access, Self::Refresh, Self::ApiKey, Self::Personal, Self::Session, Self::Other];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Refresh => "refresh",
            Self::ApiKey => "api_key",
            Self::Personal => "personal",
            Self::Session => "session",
            Self::Other => "other",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// An IP address in canonical form: an IPv6 address that is only another notation of an IPv4 address, or a translator's
/// for one, is the IPv4 address. These are v4-mapped and v4-compatible addresses (RFC 4291 section 2.5.5), NAT64's
/// well-known prefix (RFC 6052), its prefix for networks' own use (RFC 8215) where the last 32 bits hold the IPv4 address,
/// and 6to4 (RFC 3056). Other NAT64 prefixes of a network's own cannot be told from other addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(IpAddr);

impl Address {
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        match address {
            IpAddr::V6(v6) => Self(v4_within(v6).map_or(address, IpAddr::V4)),
            IpAddr::V4(_) => Self(address),
        }
    }

    /// The address whose place is that of the client: of a Teredo address (RFC 4380 section 4) the client's own IPv4
    /// address behind the relay, which the address holds inverted; of a link-local ISATAP address (RFC 5214 section 6.1)
    /// the IPv4 address in it; else the address itself.
    #[must_use]
    pub const fn located(self) -> IpAddr {
        let IpAddr::V6(v6) = self.0 else { return self.0 };
        match v6.octets() {
            [0x20, 0x01, 0, 0, .., a, b, c, d] => IpAddr::V4(Ipv4Addr::new(!a, !b, !c, !d)),
            // Under another prefix the address has the prefix's place, and the IPv4 address is its network's own.
            [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0 | 2, 0, 0x5e, 0xfe, a, b, c, d] => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            _ => self.0,
        }
    }

    #[must_use]
    pub const fn ip(self) -> IpAddr {
        self.0
    }

    /// Sixteen bytes in network order, IPv4 as v4-mapped: the store's `IPv6` column.
    #[must_use]
    pub fn to_ipv6(self) -> Ipv6Addr {
        match self.0 {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        }
    }

    /// One client: the IPv4 address, or the IPv6 /64 (RFC 8981 privacy addresses change inside it).
    #[must_use]
    pub fn client(self) -> u64 {
        self.leading(32, 64)
    }

    /// The neighbourhood: IPv4 /24, IPv6 /48 (RFC 6177).
    #[must_use]
    pub fn prefix(self) -> u64 {
        self.leading(24, 48)
    }

    /// The wider neighbourhood, IPv4 /16, IPv6 /32: what one holder was given, mostly.
    #[must_use]
    pub fn wide(self) -> u64 {
        self.leading(16, 32)
    }

    /// The leading bits, at most 64. That of an IPv4 address is marked by a prefix of the first eight bits 0, which no
    /// IPv6 address in use has.
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

/// The IPv4 address that `v6` is another notation of.
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

/// A place named by the producer. Used for judgement only where the operator trusts it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventGeo<'a> {
    /// ISO 3166-1 alpha-2 code, or a name where the producer knows only that.
    pub country: Option<Cow<'a, str>>,
    /// Degrees north.
    pub latitude: Option<f32>,
    /// Degrees east.
    pub longitude: Option<f32>,
    /// Radius, kilometres.
    pub accuracy_km: Option<u16>,
    pub asn: Option<u32>,
    pub as_org: Option<Cow<'a, str>>,
}

/// What a change of tokens is one of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concerns {
    /// The event's token, or its family or session.
    #[default]
    Token,
    /// All tokens of the event's user that there are by then.
    User,
    /// All tokens of the event's application that there are by then.
    App,
    /// All sessions of the event's role that there are by then.
    Role,
}

/// What only providers' own logs say. Most events have none of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProviderFacts<'a> {
    /// The provider made the call itself, on behalf of the token's holder: neither the place nor the client is the
    /// holder's.
    pub own_call: bool,
    /// Another name of the token: the one by which the provider's life-cycle events call it.
    pub alias: Option<TokenId<'a>>,
    /// The part of the tenant in which the token was used or lost its access, as an organization of an enterprise.
    pub realm: Option<Cow<'a, str>>,
    /// The role whose session the token is: what can be ended at once, whoever uses it.
    pub role: Option<Cow<'a, str>>,
    pub concerns: Concerns,
    /// The name of the token goes on with a new secret: only what was used under it so far ends.
    pub renewed: bool,
    /// The token of this name, which was ended, is alive again.
    pub reinstated_token: Option<TokenId<'a>>,
    /// All that was ended with this user is alive again.
    pub reinstated_user: Option<Cow<'a, str>>,
    /// All that was ended with this role is alive again.
    pub reinstated_role: Option<Cow<'a, str>>,
}

/// One token event after decoding. Field meanings: `docs/event.md`.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'a> {
    pub event_id: Cow<'a, str>,
    pub timestamp: Timestamp,
    pub kind: Kind,
    pub token_id: TokenId<'a>,
    pub token_type: TokenType,
    pub family_id: Option<Cow<'a, str>>,
    pub parent_token_id: Option<TokenId<'a>>,
    pub session_id: Option<Cow<'a, str>>,
    pub user_id: Option<Cow<'a, str>>,
    pub app_id: Option<Cow<'a, str>>,
    pub tenant_id: Option<Cow<'a, str>>,
    /// Where it is absent, all but the place is judged; of a provider's own call nothing is.
    pub address: Option<Address>,
    pub user_agent: Option<Cow<'a, str>>,
    pub client_fingerprint: Option<Cow<'a, str>>,
    pub method: Option<Cow<'a, str>>,
    pub endpoint: Option<Cow<'a, str>>,
    /// HTTP status of the answer: with 401 the event is an attempt, not a use.
    pub status: Option<u16>,
    /// The provider itself reports that this refresh token was presented after it had been superseded.
    pub reuse_reported: bool,
    pub bytes_out: Option<u64>,
    pub scopes: Vec<Cow<'a, str>>,
    pub issued_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub binding: Option<Cow<'a, str>>,
    pub geo: Option<Box<EventGeo<'a>>>,
    pub attrs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub facts: Option<Box<ProviderFacts<'a>>>,
}

/// Number of a baseline: of the family within its tenant; where there is no family, of the client or of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BaselineId(pub u64);

impl Event<'_> {
    /// The same event, borrowed from nothing.
    #[must_use]
    pub fn into_owned(self) -> Event<'static> {
        fn own(text: Cow<'_, str>) -> Cow<'static, str> {
            Cow::Owned(text.into_owned())
        }
        Event {
            event_id: own(self.event_id),
            token_id: self.token_id.into_owned(),
            family_id: self.family_id.map(own),
            parent_token_id: self.parent_token_id.map(TokenId::into_owned),
            session_id: self.session_id.map(own),
            user_id: self.user_id.map(own),
            app_id: self.app_id.map(own),
            tenant_id: self.tenant_id.map(own),
            user_agent: self.user_agent.map(own),
            client_fingerprint: self.client_fingerprint.map(own),
            method: self.method.map(own),
            endpoint: self.endpoint.map(own),
            scopes: self.scopes.into_iter().map(own).collect(),
            binding: self.binding.map(own),
            geo: self
                .geo
                .map(|geo| Box::new(EventGeo { country: geo.country.map(own), as_org: geo.as_org.map(own), ..*geo })),
            attrs: self.attrs.into_iter().map(|(name, value)| (own(name), own(value))).collect(),
            facts: self.facts.map(|facts| {
                let ProviderFacts { own_call, concerns, renewed, .. } = *facts;
                Box::new(ProviderFacts {
                    own_call,
                    alias: facts.alias.map(TokenId::into_owned),
                    realm: facts.realm.map(own),
                    role: facts.role.map(own),
                    concerns,
                    renewed,
                    reinstated_token: facts.reinstated_token.map(TokenId::into_owned),
                    reinstated_user: facts.reinstated_user.map(own),
                    reinstated_role: facts.reinstated_role.map(own),
                })
            }),
            timestamp: self.timestamp,
            kind: self.kind,
            token_type: self.token_type,
            address: self.address,
            status: self.status,
            reuse_reported: self.reuse_reported,
            bytes_out: self.bytes_out,
            issued_at: self.issued_at,
            expires_at: self.expires_at,
        }
    }

    /// The provider made the call itself, on behalf of the token's holder.
    #[must_use]
    pub fn is_own_call(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.own_call)
    }

    /// The text that groups all of a user's tokens on one partition: the first present of user, family, for an access token
    /// without either the application, then token, prefixed by the tenant.
    #[must_use]
    pub fn subject_key(&self) -> String {
        let (tenant, subject) = self.subject_parts();
        match tenant {
            Some(tenant) => format!("{tenant}/{subject}"),
            None => subject.to_owned(),
        }
    }

    /// Whether `key` is this event's subject key. Allocates nothing.
    #[must_use]
    pub fn is_keyed_by(&self, key: &[u8]) -> bool {
        let (tenant, subject) = self.subject_parts();
        let rest = match tenant {
            Some(tenant) => match key.strip_prefix(tenant.as_bytes()) {
                Some([b'/', rest @ ..]) => rest,
                _ => return false,
            },
            None => key,
        };
        rest == subject.as_bytes()
    }

    /// Whether `key` is the subject key that this event would have in another tenant or in none.
    #[must_use]
    pub fn is_keyed_in_any_tenant(&self, key: &[u8]) -> bool {
        let (_, subject) = self.subject_parts();
        matches!(key.strip_suffix(subject.as_bytes()), Some([] | [.., b'/']))
    }

    /// The partition among so many that a Kafka producer's usual partitioner puts this event's message on.
    #[must_use]
    pub fn partition_among(&self, partitions: usize) -> usize {
        let hash = murmur2(self.subject_key().as_bytes()) & 0x7fff_ffff;
        hash as usize % partitions.max(1)
    }

    fn subject_parts(&self) -> (Option<&str>, &str) {
        let subject = self.user_id.as_deref().or(self.family_id.as_deref()).or_else(|| self.client());
        (self.tenant_id.as_deref(), subject.unwrap_or(self.token_id.as_str()))
    }

    /// The application that holds an access token of neither a user nor a grant (OAuth client credentials, RFC 6749
    /// section 4.4): it gets a new one every hour.
    #[must_use]
    pub fn client(&self) -> Option<&str> {
        let nobodys = self.token_type == TokenType::Access && self.user_id.is_none() && self.family_id.is_none();
        self.app_id.as_deref().filter(|_| nobodys)
    }

    /// Whether the credential was not accepted: 401 (RFC 9110 section 15.5.2; RFC 6750 section 3.1), or at the token
    /// endpoint 400 (`invalid_grant`, RFC 6749 section 5.2). A 403 refuses a call of an accepted credential: a use.
    #[must_use]
    pub const fn is_attempt(&self) -> bool {
        match self.status {
            Some(401) => true,
            Some(400) => matches!(self.kind, Kind::Refreshed),
            _ => false,
        }
    }
}

/// MurmurHash2 (Appleby 2008) with the seed that Kafka's `DefaultPartitioner` has.
fn murmur2(bytes: &[u8]) -> u32 {
    const MIX: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ bytes.len() as u32;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let word = u32::from_le_bytes(*word).wrapping_mul(MIX);
        hash = hash.wrapping_mul(MIX) ^ (word ^ word >> 24).wrapping_mul(MIX);
    }
    if !rest.is_empty() {
        let rest = rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ rest).wrapping_mul(MIX);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(MIX);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::new(text.parse().expect("a test address parses"))
    }

    #[test]
    fn address_that_holds_an_ipv4_address_is_that() {
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
        assert!(teredo.ip().is_ipv6(), "the address stays what it is");
        assert_eq!(teredo.located().to_string(), "192.0.2.45");
        for text in ["2001:db8::7", "2001:1::1", "192.0.2.7"] {
            assert_eq!(address(text).located(), address(text).ip(), "{text}");
        }
    }

    #[test]
    fn isatap_address_is_located_by_its_ipv4_address() {
        for text in ["fe80::5efe:192.0.2.45", "fe80::200:5efe:192.0.2.45"] {
            assert!(address(text).ip().is_ipv6(), "the address stays what it is");
            assert_eq!(address(text).located().to_string(), "192.0.2.45", "{text}");
        }
        for text in ["2001:db8::5efe:10.0.0.1", "fe80::1:5efe:192.0.2.45", "fe80::7"] {
            assert_eq!(address(text).located(), address(text).ip(), "{text}");
        }
    }

    #[test]
    fn an_ipv6_client_is_its_64_and_its_prefix_the_48() {
        assert_eq!(address("2001:db8:1:2::1").client(), address("2001:db8:1:2:ffff::9").client());
        assert_ne!(address("2001:db8:1:2::1").client(), address("2001:db8:1:3::1").client());
        assert_eq!(address("2001:db8:1:2::1").prefix(), address("2001:db8:1:3::1").prefix());
        assert_ne!(address("2001:db8:1:2::1").prefix(), address("2001:db8:2:2::1").prefix());
    }

    #[test]
    fn an_ipv4_client_is_its_address_and_its_prefix_the_24() {
        assert_ne!(address("192.0.2.7").client(), address("192.0.2.8").client());
        assert_eq!(address("192.0.2.7").prefix(), address("192.0.2.8").prefix());
        assert_ne!(address("192.0.2.7").prefix(), address("192.0.3.7").prefix());
    }

    /// The values of Kafka's own `UtilsTest`.
    #[test]
    fn keys_are_hashed_as_kafka_hashes_them() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn times_outside_the_range_are_refused() {
        assert_eq!(Timestamp::from_millis(-1), None);
        assert_eq!(Timestamp::from_millis(i64::MAX), None);
        assert_eq!(Timestamp::from_millis(0), Some(Timestamp::MIN));
    }
}
