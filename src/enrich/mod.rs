//! Place, network, client and route of an event.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use crate::enrichment::{Client, Device, EnrichedEvent};
use crate::event::Event;
use crate::route::Route;

/// `[geoip]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeoSettings {
    pub city: Vec<PathBuf>,
    pub asn: Vec<PathBuf>,
}

/// Adds to events what can be known of them without their past.
#[derive(Debug)]
pub struct Enricher {
    files: Vec<PathBuf>,
    client: Arc<Client>,
}

impl Enricher {
    #[must_use]
    pub fn new(settings: &GeoSettings, _trust_event_geo: bool) -> Self {
        let files = settings.city.iter().chain(&settings.asn).cloned().collect();
        let client = Client {
            family: "unknown".into(),
            version: "".into(),
            device: Device::Unknown,
            family_key: 0,
            version_key: 0,
            agent_key: 0,
        };
        Self { files, client: Arc::new(client) }
    }

    pub fn enrich<'a>(&mut self, event: Event<'a>) -> EnrichedEvent<'a> {
        let route =
            Route::of(event.method.as_deref().unwrap_or_default(), event.endpoint.as_deref().unwrap_or_default());
        EnrichedEvent { event, place: None, network: None, client: Arc::clone(&self.client), route }
    }

    pub fn refresh(&mut self) {}

    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.files.iter().map(|file| format!("{}: GeoIP files are not read yet", file.display())).collect()
    }

    #[must_use]
    pub fn versions(&self) -> Vec<String> {
        Vec::new()
    }
}
