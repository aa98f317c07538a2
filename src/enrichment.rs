//! An event with what can be known of it without its past: place, network, client and route.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::event::{Event, Scope};
use crate::place::{Network, Place};
use crate::route::Route;

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

/// A user agent, parsed. The keys number the texts (xxh3, truncated), so that memory need not hold them.
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

impl<'a> EnrichedEvent<'a> {
    #[must_use]
    pub fn new(
        event: Event<'a>,
        place: Option<Arc<Place>>,
        network: Option<Arc<Network>>,
        client: Arc<Client>,
        route: Route,
    ) -> Self {
        let keys = Keys::of(&event, &client);
        Self { event, place, network, client, route, keys, appended_at: None }
    }
}

/// The numbers by which memory knows what an event names: reckoned once, for they are asked for before its turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    pub scope: Scope,
    pub event: u64,
    pub token: u64,
    pub family: Option<u64>,
    pub user: Option<u64>,
    pub tenant: u64,
    /// An application is its vendor's, whichever tenants use it: a breach of it spares none of them. Tokens of no
    /// application that we know have no more than their tenant in common.
    pub app: u64,
    /// Of the client's fingerprint; 0: it has none.
    pub fingerprint: u32,
    /// Of the address and of its neighbourhood; without meaning where there is none.
    pub address: u32,
    pub prefix: u32,
    /// Of address, agent and fingerprint: what makes one visit.
    pub visit: u64,
}

impl Keys {
    fn of(event: &Event<'_>, client: &Client) -> Self {
        let scope = event.scope();
        let fingerprint = event.client_fingerprint.as_deref().map_or(0, |text| scope.key(b'j', text) as u32 | 1);
        let (address, prefix) = event.address.map_or((0, 0), |address| (address.client_key(), address.prefix_key()));
        Self {
            scope,
            event: scope.key(b'e', &event.event_id),
            token: scope.key(b't', event.token_id.as_str()),
            family: event.family_key(scope),
            user: event.user_id.as_deref().map(|user| scope.key(b'u', user)),
            tenant: scope.key(b'o', ""),
            app: match event.app_id.as_deref() {
                Some(app) => xxh3_64_with_seed(app.as_bytes(), u64::from(b'a')),
                None => scope.key(b'a', ""),
            },
            fingerprint,
            address: fold(address),
            prefix: fold(prefix),
            visit: mix(address ^ mix(u64::from(client.agent_key.max(1)) << 32 | u64::from(fingerprint))),
        }
    }
}

/// A key of 64 bits in 32, never 0.
const fn fold(key: u64) -> u32 {
    let folded = mix(key) as u32;
    if folded == 0 { 1 } else { folded }
}

/// A number whose bits depend on all of the key's.
const fn mix(key: u64) -> u64 {
    let mixed = (key ^ (key >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}
