//! An event with what can be known of it without its past: place, network, client and route.

use std::sync::Arc;

use crate::event::{Address, BaselineId, Event};
use crate::key::{Class, KeyHasher, Tenant, half};
use crate::place::{Network, Place};
use crate::route::Route;
use crate::token::TokenId;

/// What kind of thing the user agent runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    Desktop,
    Mobile,
    /// An HTTP library, a command-line tool, an SDK, a robot.
    Machine,
    Unknown,
}

impl Device {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Desktop => "desktop",
            Self::Mobile => "mobile",
            Self::Machine => "machine",
            Self::Unknown => "unknown",
        }
    }
}

/// A user agent, parsed. The keys number the texts ([`crate::key`]), so that memory need not hold them.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// `Chrome`, `curl`, `python-requests`, …; `unknown` where there is no agent.
    pub family: Box<str>,
    pub version: Box<str>,
    pub device: Device,
    pub family_key: u32,
    /// Of family and version.
    pub version_key: u32,
    /// Of the whole string.
    pub agent_key: u32,
}

/// An event and its enrichment: all that judgement sees.
#[derive(Clone, Debug)]
pub struct EnrichedEvent<'a> {
    pub event: Event<'a>,
    /// `None`: no address, an address no file knows, or no file.
    pub place: Option<Arc<Place>>,
    pub network: Option<Arc<Network>>,
    pub client: Arc<Client>,
    pub route: Route,
    pub keys: Keys,
    /// When the log appended the record, by a clock that no producer can choose; milliseconds since the epoch.
    pub appended_at: Option<i64>,
}

/// What is known of an event's origin and of its call.
#[derive(Clone, Debug)]
pub struct Surroundings {
    pub place: Option<Arc<Place>>,
    pub network: Option<Arc<Network>>,
    pub client: Arc<Client>,
    pub route: Route,
}

impl<'a> EnrichedEvent<'a> {
    #[must_use]
    pub fn new(event: Event<'a>, surroundings: Surroundings, hasher: &KeyHasher) -> Self {
        let keys = Keys::of(&event, &surroundings, hasher);
        let Surroundings { place, network, client, route } = surroundings;
        Self { event, place, network, client, route, keys, appended_at: None }
    }

    /// Whose past the event is held against, as far as it says itself.
    #[must_use]
    pub const fn baseline_id(&self) -> BaselineId {
        BaselineId(self.keys.baseline)
    }
}

/// Set in the number that stands for a network where no file knows its autonomous system. AS numbers of private use
/// (RFC 6996) end before it, so that the two do not meet in practice.
pub const NO_ASN: u32 = 1 << 31;

/// The network of an event without an address.
pub const NO_NETWORK: u32 = 0;

/// The numbers by which memory knows what an event names: computed once, for they are asked for before its turn comes.
///
/// Numbers of 32 bits are compared within one baseline only, or stand for names that mean the same for every tenant (an
/// address, a network, a fingerprint): a producer who wants those of another tenant can name them as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Where the event's names are names.
    pub scope: Tenant,
    /// The event, by its id and content: token, time, kind, address and endpoint.
    pub event: u64,
    /// Its id alone.
    pub event_id: u64,
    pub token: u64,
    pub family: Option<u64>,
    /// Whose past the event is held against: the family's, or the client's, or else the token's own.
    pub baseline: u64,
    pub user: Option<u64>,
    pub session: Option<u64>,
    /// The refresh token that was exchanged for this one.
    pub parent: Option<u64>,
    pub tenant: u64,
    /// An application is its vendor's, whichever tenants use it: a breach of it spares none of them. Tokens of no
    /// application that we know have no more than their tenant in common.
    pub app: u64,
    /// Of the key that the request proved possession of; 0: of none.
    pub binding: u32,
    /// Of the client's fingerprint; 0: it has none.
    pub fingerprint: u32,
    /// Of the address and of its neighbourhood; 0: it has none.
    pub address: u32,
    pub prefix: u32,
    /// The AS number, or where no file knows it [`NO_ASN`] and a number for the wider prefix (IPv4 /16, IPv6 /32).
    pub network: u32,
    /// Of address, agent and fingerprint: what makes one visit.
    pub visit: u64,
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
            visit: hasher.numbers(Class::Visit, [address, agent << 32 | u64::from(fingerprint)]),
        }
    }
}

/// Two records are one event if they agree in id and content; what else they say may come of a second delivery.
fn identity(event: &Event<'_>, event_id: u64, token: u64, tenant: &Tenant) -> u64 {
    let address = event.address.map_or(0, |address| address.to_ipv6().to_bits());
    let numbers =
        [event_id, token, event.timestamp.millis() as u64, event.kind as u64, (address >> 64) as u64, address as u64];
    tenant.record(Class::Content, numbers, event.endpoint.as_deref().unwrap_or_default().as_bytes())
}

fn network(address: Option<Address>, network: Option<&Network>, hasher: &KeyHasher) -> u32 {
    match (network, address) {
        (Some(network), _) => network.asn.max(1),
        (None, Some(address)) => NO_ASN | (hasher.numbers(Class::Network, [address.wide()]) as u32 >> 1),
        (None, None) => NO_NETWORK,
    }
}
