//! An event with the attributes that need no history: place, network, client and route.

use std::sync::Arc;

use crate::event::{Address, BaselineId, Event};
use crate::key::{Class, KeyHasher, Tenant, half};
use crate::place::{Network, Place};
use crate::route::Route;
use crate::token::TokenId;

/// Kind of device that the user agent indicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    Desktop,
    Mobile,
    /// An HTTP library, a command-line tool, an SDK or a bot.
    Machine,
    Unknown,
}

impl Device {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Desktop => "desktop",
            Self::Mobile => "mobile",
            Self::Machine => "machine",
            Self::Unknown => "unknown",
        }
    }
}

/// A parsed user agent. Memory stores the keys ([`crate::key`]) instead of the texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// `Chrome`, `curl`, `python-requests`, …; `unknown` without a user agent.
    pub family: Box<str>,
    pub version: Box<str>,
    pub device: Device,
    pub family_key: u32,
    /// Key of family and version.
    pub version_key: u32,
    /// Key of the whole string.
    pub agent_key: u32,
}

/// An event and its enrichment: the complete input of scoring.
#[derive(Clone, Debug)]
pub struct EnrichedEvent<'a> {
    pub event: Event<'a>,
    /// `None` if the event has no address, or no GeoIP file contains it.
    pub place: Option<Arc<Place>>,
    pub network: Option<Arc<Network>>,
    pub client: Arc<Client>,
    pub route: Route,
    pub(crate) keys: Keys,
    /// Time at which the log appended the record, in milliseconds since the epoch. Producers cannot set this clock.
    pub(crate) appended_at: Option<i64>,
}

/// Attributes of an event's origin and of its call.
#[derive(Clone, Debug)]
pub struct Surroundings {
    pub place: Option<Arc<Place>>,
    pub network: Option<Arc<Network>>,
    pub client: Arc<Client>,
    pub route: Route,
}

impl<'a> EnrichedEvent<'a> {
    pub fn new(event: Event<'a>, surroundings: Surroundings, hasher: &KeyHasher) -> Self {
        let keys = Keys::of(&event, &surroundings, hasher);
        let Surroundings { place, network, client, route } = surroundings;
        Self { event, place, network, client, route, keys, appended_at: None }
    }

    /// The baseline of the event. Aliases and chains of tokens are not resolved yet.
    pub const fn baseline_id(&self) -> BaselineId {
        BaselineId(self.keys.baseline)
    }
}

/// Set in the key of a network whose autonomous system no file contains. AS numbers of private use (RFC 6996) are
/// smaller in practice, so the two kinds of keys do not collide.
pub(crate) const NO_ASN: u32 = 1 << 31;

/// The network of an event without an address.
pub(crate) const NO_NETWORK: u32 = 0;

/// Keys of the names in an event, computed once because look-ahead needs them before the event is scored.
///
/// A key of 32 bits is compared within one baseline only, or its name has the same meaning in every tenant (an address,
/// a network, a fingerprint). Names of the second kind are not specific to a tenant, and a producer can send those of
/// another tenant anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    /// The tenant of these names.
    pub(crate) scope: Tenant,
    /// The event, by id and content: token, time, kind, address and endpoint.
    pub(crate) event: u64,
    /// The event's id without its content.
    pub(crate) event_id: u64,
    pub(crate) token: u64,
    pub(crate) family: Option<u64>,
    /// The baseline: that of the grant, otherwise of the client, otherwise of the token.
    pub(crate) baseline: u64,
    pub(crate) user: Option<u64>,
    pub(crate) session: Option<u64>,
    /// The refresh token that was exchanged for this one.
    pub(crate) parent: Option<u64>,
    pub(crate) tenant: u64,
    /// The application. Its key is the same in all tenants, because a breach of an application affects all of them.
    /// Without an application the key is that of the tenant.
    pub(crate) app: u64,
    /// The key that the request proved possession of; 0 without one.
    pub(crate) binding: u32,
    /// The client's fingerprint; 0 without one.
    pub(crate) fingerprint: u32,
    /// The address and its prefix; 0 without an address.
    pub(crate) address: u32,
    pub(crate) prefix: u32,
    /// The AS number. If no file contains it: [`NO_ASN`] and a key of the wider prefix (IPv4 /16, IPv6 /32).
    pub(crate) network: u32,
    /// Address (IPv6 with its country), user agent and fingerprint, which together identify a visit.
    pub(crate) visit: u64,
}

impl Keys {
    fn of(event: &Event<'_>, surroundings: &Surroundings, hasher: &KeyHasher) -> Self {
        let tenant = hasher.tenant(event.tenant_id.as_deref().unwrap_or_default());
        let name = |class, text: Option<&str>| text.map(|text| tenant.name(class, text.as_bytes()));
        let fingerprint = name(Class::Fingerprint, event.client_fingerprint.as_deref()).map_or(0, half);
        let token = tenant.name(Class::Token, event.token_id.as_str().as_bytes());
        let family = name(Class::Family, event.family_id.as_deref());
        let event_id = tenant.name(Class::Event, event.event_id.as_bytes());
        let address = event.address.map_or(0, |address| hasher.numbers(Class::Address, [address.client()]));
        let prefix = event.address.map_or(0, |address| hasher.numbers(Class::Prefix, [address.prefix()]));
        let agent = u64::from(surroundings.client.agent_key);
        Self {
            scope: tenant,
            event: identity(event, event_id, token, &tenant),
            event_id,
            token,
            family,
            baseline: family.or_else(|| name(Class::Client, event.client())).unwrap_or(token),
            user: name(Class::User, event.user_id.as_deref()),
            session: name(Class::Session, event.session_id.as_deref()),
            parent: name(Class::Token, event.parent_token_id.as_ref().map(TokenId::as_str)),
            tenant: tenant.number,
            app: match event.app_id.as_deref() {
                Some(app) => hasher.name(Class::App, app.as_bytes()),
                None => tenant.name(Class::App, b""),
            },
            binding: name(Class::Binding, event.binding.as_deref()).map_or(0, half),
            fingerprint,
            address: event.address.map_or(0, |_| half(address)),
            prefix: event.address.map_or(0, |_| half(prefix)),
            network: network(event.address, surroundings.network.as_deref(), hasher),
            visit: hasher
                .numbers(Class::Visit, [address ^ country(event, surroundings), agent << 32 | u64::from(fingerprint)]),
        }
    }
}

/// Two records are the same event if id and content agree. Other fields may differ in a second delivery.
fn identity(event: &Event<'_>, event_id: u64, token: u64, tenant: &Tenant) -> u64 {
    let address = event.address.map_or(0, |address| address.to_ipv6().to_bits());
    let numbers =
        [event_id, token, event.timestamp.millis() as u64, event.kind as u64, (address >> 64) as u64, address as u64];
    tenant.record(Class::Content, numbers, event.endpoint.as_deref().unwrap_or_default().as_bytes())
}

/// Number of the country that an IPv6 address lies in, where it is known: one /64 of a relay spans several. Else 0.
fn country(event: &Event<'_>, surroundings: &Surroundings) -> u64 {
    match (event.address, &surroundings.place) {
        (Some(address), Some(place)) if address.ip().is_ipv6() => {
            let [a, b] = place.country.bytes();
            u64::from(a) << 8 | u64::from(b)
        }
        _ => 0,
    }
}

fn network(address: Option<Address>, network: Option<&Network>, hasher: &KeyHasher) -> u32 {
    match (network, address) {
        (Some(network), _) => network.asn.max(1),
        (None, Some(address)) => NO_ASN | (hasher.numbers(Class::Network, [address.wide()]) as u32 >> 1),
        (None, None) => NO_NETWORK,
    }
}
