//! Settings of the store.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::cluster::Cluster;
use super::engine::{self, LibraryFile};
use crate::outgoing::is_loopback;
use crate::port::StoreError;

/// Section `[store]` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSettings {
    /// `embedded:DIR`, or `http(s)://host:8123` of a ClickHouse server.
    pub url: String,
    pub database: String,
    /// Name of the cluster whose nodes have the tables. `None`: one server has them.
    pub cluster: Option<String>,
    /// User of a server; an embedded store has its own users.
    pub user: Option<String>,
    pub password: Option<SecretString>,
    /// Whether the password may be sent to another machine unencrypted.
    pub allow_plaintext: bool,
    /// Path of libchdb.so, which an embedded store needs.
    pub library: Option<PathBuf>,
    /// SHA-256 of that file in hexadecimal, if it is not the one that `deploy/setup.sh` fetches.
    pub library_sha256: Option<String>,
    /// Loopback address for ClickHouse's HTTP protocol of an embedded store; a free port if unset.
    pub listen: Option<SocketAddr>,
    /// Days for which events, dead letters and the rollup are kept after they were written; 0 keeps them without limit.
    pub retention_days: u32,
    /// Folder for rows that the store does not accept at the moment; a folder in `outbox.dir` if unset.
    pub spool_dir: Option<PathBuf>,
    /// Maximum size of these rows on disk, compressed, in bytes.
    pub spool_bytes_max: u64,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            url: "embedded:data".to_owned(),
            database: "tokenwarden".to_owned(),
            cluster: None,
            user: None,
            password: None,
            allow_plaintext: false,
            library: None,
            library_sha256: None,
            listen: None,
            retention_days: 180,
            spool_dir: None,
            spool_bytes_max: 4 << 30,
        }
    }
}

/// Path of libchdb.so in the cache folder.
pub fn library_in(cache: &Path) -> PathBuf {
    cache.join("libchdb.so")
}

/// The parsed `url`.
#[derive(Debug)]
pub(super) enum Location {
    Embedded(PathBuf),
    Server(Url),
}

impl StoreSettings {
    /// The problem with `url`, as a phrase to follow its name. `url` may contain a password and is not repeated.
    pub(crate) fn check_url(&self) -> Result<(), &'static str> {
        self.read_url().map(drop)
    }

    /// Whether `url` names a directory on this machine.
    pub(crate) fn is_embedded(&self) -> bool {
        matches!(read_url(&self.url), Ok(Location::Embedded(_)))
    }

    /// The problem with `cluster`, as a phrase to follow its name.
    pub(crate) fn check_cluster(&self) -> Result<(), &'static str> {
        let Some(name) = &self.cluster else { return Ok(()) };
        if self.is_embedded() {
            return Err("needs a ClickHouse server: set store.url to http(s)://HOST:PORT of a node, or remove it");
        }
        // Braces enclose a macro of the servers.
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '{' | '}');
        if !(1..=100).contains(&name.len()) || !name.chars().all(is_allowed) {
            return Err(
                "must be the name of a cluster in system.clusters: 1 to 100 letters, digits, `_`, `-`, `.`, or a \
                        macro such as {cluster}",
            );
        }
        Ok(())
    }

    /// The problem with `library_sha256`, as a phrase to follow its name.
    pub(crate) fn check_sha256(&self) -> Result<(), &'static str> {
        let is_digest = |text: &String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if self.library_sha256.as_ref().is_none_or(is_digest) {
            Ok(())
        } else {
            Err("must be 64 hexadecimal digits, as `sha256sum` prints them")
        }
    }

    /// Checks the engine's library in the same way as loading it; an embedded store needs it.
    pub(crate) fn check_library(&self) -> Result<(), String> {
        let library = self.library_file().ok_or("set store.library, or run deploy/setup.sh")?;
        library.open_checked().map(drop).map_err(|error| error.to_string())
    }

    pub(super) fn on_cluster(&self) -> Option<Cluster> {
        self.cluster.as_ref().map(|name| Cluster::new(name, &self.database))
    }

    pub(super) fn library_file(&self) -> Option<LibraryFile> {
        let sha256 = self.library_sha256.as_deref().unwrap_or(engine::SHA256).to_ascii_lowercase();
        self.library.clone().map(|path| LibraryFile { path, sha256 })
    }

    /// Description of opening, for errors.
    pub(super) fn opening(&self) -> String {
        format!("opening {} (store.url)", self.url)
    }

    pub(super) fn location(&self) -> Result<Location, StoreError> {
        self.read_url().map_err(|problem| StoreError::Permanent(format!("store.url {problem}")))
    }

    fn read_url(&self) -> Result<Location, &'static str> {
        let location = read_url(&self.url)?;
        if let Location::Server(url) = &location
            && url.scheme() == "http"
            && self.password.is_some()
            && !self.allow_plaintext
            && !url.host_str().is_some_and(is_loopback)
        {
            return Err("would send the password unencrypted: use https://, or set store.allow_plaintext = true");
        }
        Ok(location)
    }
}

fn read_url(text: &str) -> Result<Location, &'static str> {
    if let Some(directory) = text.strip_prefix("embedded:") {
        return match directory {
            "" => Err("must name a directory: embedded:DIR"),
            directory => Ok(Location::Embedded(directory.into())),
        };
    }
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = url.ok_or("must be embedded:DIR or http(s)://HOST:PORT")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a user or password; set store.user and store.password_file instead");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must be only http(s)://HOST:PORT; user, password and settings have their own keys");
    }
    Ok(Location::Server(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(url: &str) -> Result<Location, StoreError> {
        StoreSettings { url: url.to_owned(), ..StoreSettings::default() }.location()
    }

    #[test]
    fn location_is_a_directory_or_a_server() {
        assert!(matches!(location("embedded:some/dir"), Ok(Location::Embedded(dir)) if dir == Path::new("some/dir")));
        assert!(matches!(location("https://clickhouse.example:8443"), Ok(Location::Server(_))));
        for wrong in ["", "embedded:", "data", "tcp://host:9000", "http://"] {
            assert!(location(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn plaintext_password_needs_permission() {
        let store = |url: &str, password: Option<&str>, allow_plaintext| StoreSettings {
            url: url.to_owned(),
            password: password.map(Into::into),
            allow_plaintext,
            ..StoreSettings::default()
        };
        for url in ["http://clickhouse:8123", "http://10.0.0.7:8123", "http://localhost.example", "http://[fd00::7]"] {
            assert!(
                store(url, Some("s3cret"), false)
                    .location()
                    .is_err_and(|error| error.to_string().contains("allow_plaintext"))
            );
            assert!(
                store(url, Some("s3cret"), true).check_url().is_ok() && store(url, None, false).check_url().is_ok()
            );
        }
        for url in ["https://clickhouse:8443", "http://127.0.0.1:8123", "http://LocalHost:8123", "http://[::1]:8123"] {
            assert_eq!(store(url, Some("s3cret"), false).check_url(), Ok(()), "{url}");
        }
    }

    #[test]
    fn password_in_the_url_is_not_repeated() {
        for url in ["http://me:hunter2@host:8123", "http://host:8123/?user=me&password=hunter2", "http://host/#hunter2"]
        {
            let checked = location(url).map_err(|error| error.to_string());
            assert!(checked.is_err_and(|text| !text.contains("hunter2")), "{url}");
        }
    }
}
