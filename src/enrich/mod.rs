//! Place, network, client and route of an event.
//!
//! [`Enricher`] is the whole of it; what it knows of addresses comes from GeoIP files ([`geo`]), what it knows of
//! programs from their user agents ([`client`]). Everything decoded or parsed is kept in small bounded tables, so that
//! an event whose address and agent were seen before costs two look-ups and no allocation.

mod client;
mod country;
mod database;
mod event_geo;
mod geo;
pub mod network_class;
mod record;
mod slots;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use self::client::Clients;
use self::event_geo::EventPlaces;
use self::geo::Geo;
pub use self::geo::GeoFiles;
use crate::enrichment::{EnrichedEvent, Surroundings};
use crate::event::Event;
use crate::key::KeyHasher;
use crate::place::{Network, Place};
use crate::port::GeoLookup;
use crate::route::Route;

/// `[geoip]`: files in MaxMind's format, in the schemas of MaxMind, DB-IP or IPinfo; of several, the first that knows
/// an address wins.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeoSettings {
    /// Files that know places.
    pub city: Vec<PathBuf>,
    /// Files that know networks.
    pub asn: Vec<PathBuf>,
}

/// Adds to events what can be known of them without their past.
#[derive(Debug)]
pub struct Enricher {
    files: GeoFiles,
    places: Places,
    event_places: Option<EventPlaces>,
    clients: Clients,
    hasher: KeyHasher,
}

/// Where places and networks come from.
enum Places {
    Files(Geo),
    Given(Box<dyn GeoLookup + Send>),
}

impl Enricher {
    /// Reads the files and watches them from now on. One that is missing or corrupt is done without, and told by
    /// [`Self::problems`]. With `trust_event_geo`, what an event says of its own place goes before the files.
    #[must_use]
    pub fn new(settings: &GeoSettings, trust_event_geo: bool) -> Self {
        Self::over(GeoFiles::open(settings), trust_event_geo)
    }

    /// Over files that others use too: one enricher a thread, one copy of the files.
    #[must_use]
    pub fn over(files: GeoFiles, trust_event_geo: bool) -> Self {
        let places = Places::Files(Geo::over(&files));
        let event_places = trust_event_geo.then(EventPlaces::default);
        let hasher = KeyHasher::default();
        Self { files, places, event_places, clients: Clients::new(hasher), hasher }
    }

    /// With places from elsewhere than files.
    #[must_use]
    pub fn with_lookup(lookup: Box<dyn GeoLookup + Send>) -> Self {
        Self { places: Places::Given(lookup), ..Self::new(&GeoSettings::default(), false) }
    }

    /// Numbers names by `hasher`, and not as all others do.
    #[must_use]
    pub fn with_hasher(self, hasher: KeyHasher) -> Self {
        Self { clients: Clients::new(hasher), hasher, ..self }
    }

    pub fn enrich<'a>(&mut self, event: Event<'a>) -> EnrichedEvent<'a> {
        let (mut place, mut network) = match event.address {
            Some(address) => self.places.lookup(address.located()),
            None => (None, None),
        };
        if let (Some(trusted), Some(geo)) = (&mut self.event_places, &event.geo) {
            place = trusted.place(geo, &self.hasher).or(place);
            network = trusted.network(geo, &self.hasher).or(network);
        }
        let client = self.clients.of(event.user_agent.as_deref());
        let (method, endpoint) = (event.method.as_deref(), event.endpoint.as_deref());
        let route = Route::of(method.unwrap_or_default(), endpoint.unwrap_or_default(), &self.hasher);
        EnrichedEvent::new(event, Surroundings { place, network, client, route }, &self.hasher)
    }

    /// Swaps in the files that were read anew since the last call: for batch boundaries, costs one atomic load where
    /// there are none.
    pub fn refresh(&mut self) {
        if let Places::Files(geo) = &mut self.places {
            geo.refresh(&self.files);
        }
    }

    /// Asks for a look at the files at once, on the thread that watches them: for a signal from the operator. A later
    /// [`Self::refresh`] swaps in what it finds.
    pub fn check_files(&self) {
        self.files.check_soon();
    }

    /// The files, to be shared with other threads' enrichers.
    #[must_use]
    pub const fn files(&self) -> &GeoFiles {
        &self.files
    }

    /// What is wrong with the files, one sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.files.problems()
    }

    /// The files in use: path, type and build date of each.
    #[must_use]
    pub fn versions(&self) -> Vec<String> {
        self.files.versions()
    }
}

impl Places {
    fn lookup(&mut self, address: IpAddr) -> (Option<Arc<Place>>, Option<Arc<Network>>) {
        match self {
            Self::Files(geo) => geo.lookup(address),
            Self::Given(given) => given.lookup(address),
        }
    }
}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Files(geo) => geo.fmt(f),
            Self::Given(_) => f.write_str("Given(..)"),
        }
    }
}
