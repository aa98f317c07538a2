//! Adds place, network, client and route to an event.
//!
//! [`Enricher`] reads places and networks from GeoIP files (`geo`) and parses user agents (`client`). Results are
//! kept in small bounded tables, so an event with a known address and user agent costs two look-ups and no allocation.

mod client;
mod country;
mod database;
mod event_geo;
mod geo;
pub(crate) mod network_class;
mod record;
mod slots;

use std::net::IpAddr;
use std::sync::Arc;

use self::client::Clients;
use self::event_geo::EventPlaces;
use self::geo::Geo;
pub use self::geo::{GeoFiles, GeoSettings};
use crate::enrichment::{EnrichedEvent, Surroundings};
use crate::event::Event;
use crate::key::KeyHasher;
use crate::place::{Network, Place};
use crate::port::GeoLookup;
use crate::route::Route;

/// Adds to events the attributes that need no history.
#[derive(Debug)]
pub struct Enricher {
    files: GeoFiles,
    places: Places,
    event_places: Option<EventPlaces>,
    clients: Clients,
    hasher: KeyHasher,
}

/// Source of places and networks.
enum Places {
    Files(Geo),
    Given(Box<dyn GeoLookup + Send>),
}

impl Enricher {
    /// Reads the files and watches them. A missing or invalid file is left out, and [`Self::problems`] reports it.
    pub fn new(settings: &GeoSettings) -> Self {
        Self::over(GeoFiles::open(settings))
    }

    /// Over shared files: one enricher per thread, one copy of the files.
    pub fn over(files: GeoFiles) -> Self {
        let places = Places::Files(Geo::over(&files));
        let hasher = KeyHasher::default();
        Self { files, places, event_places: None, clients: Clients::new(hasher), hasher }
    }

    /// If `trusted`, place and network in the event take precedence over the files.
    #[must_use]
    pub fn trust_event_geo(self, trusted: bool) -> Self {
        Self { event_places: trusted.then(EventPlaces::default), ..self }
    }

    /// With places from `lookup` instead of files.
    pub fn with_lookup(lookup: Box<dyn GeoLookup + Send>) -> Self {
        Self { places: Places::Given(lookup), ..Self::new(&GeoSettings::default()) }
    }

    /// Computes keys of names with `hasher` instead of the public default key.
    #[must_use]
    pub(crate) fn with_hasher(self, hasher: KeyHasher) -> Self {
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

    /// Takes over files that were read since the last call. Call it between batches; it costs one atomic load if there
    /// are none.
    pub fn refresh(&mut self) {
        if let Places::Files(geo) = &mut self.places {
            geo.refresh(&self.files);
        }
    }

    /// Starts a check of the files on the watching thread, for a signal from the operator. A later [`Self::refresh`]
    /// takes over the result.
    pub fn check_files(&self) {
        self.files.check_soon();
    }

    /// The files, for enrichers of other threads.
    pub const fn files(&self) -> &GeoFiles {
        &self.files
    }

    /// Problems with the files, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        self.files.problems()
    }

    /// The files in use: path, type and build date of each.
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
