//! An event with what can be known of it without its past: place, network, client and route.

use std::sync::Arc;

use crate::event::Event;
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
}
