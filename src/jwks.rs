//! The public keys of an issuer, from a file or URL, read again when they may have changed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Client;

use crate::jose::KeySet;
use crate::lock::unpoisoned;
use crate::millis::{MINUTE_MS, SECOND_MS};
use crate::outgoing;
use crate::port::{Clock, Mistake};

/// Keys are read again after this time, so that a removed key is no longer accepted.
const KEEP_MS: i64 = 10 * MINUTE_MS;
/// Keys that cannot be read again are used for this time at most.
const STALE_MS: i64 = 60 * MINUTE_MS;
/// Minimum time between two reads. An unknown key id causes one, and anyone can send it.
const READ_WAIT_MS: i64 = 30 * SECOND_MS;
/// Maximum wait for the read of another request.
const OTHER_READ_WAIT: Duration = Duration::from_secs(10);
/// Maximum size of a set of keys, bytes.
const BYTES_MAX: usize = 256 << 10;

/// The place of the keys: one of a file and a URL, with the key of the configuration.
#[derive(Clone, Debug)]
pub(crate) enum KeysPlace {
    File {
        key: &'static str,
        path: PathBuf,
    },
    /// `ca_file`: certificate authorities besides those of the system. `allow_private`: allows a private address.
    Url {
        key: &'static str,
        url: String,
        ca_file: Option<PathBuf>,
        allow_private: bool,
    },
}

impl KeysPlace {
    /// `file` or `url`, each with its key of the configuration. `None`: not exactly one is set.
    pub(crate) fn one_of(
        file: (&'static str, Option<&PathBuf>),
        url: (&'static str, Option<&String>),
        ca_file: Option<&PathBuf>,
        allow_private: bool,
    ) -> Option<Self> {
        match (file, url) {
            ((key, Some(path)), (_, None)) => Some(Self::File { key, path: path.clone() }),
            ((_, None), (key, Some(url))) => {
                Some(Self::Url { key, url: url.clone(), ca_file: ca_file.cloned(), allow_private })
            }
            _ => None,
        }
    }
}

#[derive(Clone)]
enum Place {
    File(PathBuf),
    Url(Client, String),
}

/// The keys, with the times of reading them, milliseconds since the epoch.
#[derive(Default)]
struct Known {
    set: Arc<KeySet>,
    read_at: Option<i64>,
    tried_at: Option<i64>,
}

/// The keys cannot be read.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the keys of the issuer cannot be read")]
pub(crate) struct KeysUnavailable;

pub(crate) struct Keys {
    /// The key of the configuration that has the place.
    key: &'static str,
    place: Place,
    clock: Arc<dyn Clock>,
    known: Arc<Mutex<Known>>,
    /// Held during a read.
    reading: Arc<tokio::sync::Mutex<()>>,
}

impl Keys {
    /// Reads the file once. The error is the key of the configuration and the problem.
    pub(crate) fn of(place: KeysPlace, clock: Arc<dyn Clock>) -> Result<Self, Mistake> {
        let (key, place) = match place {
            KeysPlace::File { key, path } => {
                read_file(&path).map_err(Mistake::of(key))?;
                (key, Place::File(path))
            }
            KeysPlace::Url { key, url: text, ca_file, allow_private } => {
                let url = url::Url::parse(&text).map_err(|error| Mistake::new(key, error.to_string()))?;
                let client = outgoing::client(&url, allow_private, ca_file.as_deref());
                (key, Place::Url(client.map_err(Mistake::of(key))?, text))
            }
        };
        Ok(Self { key, place, clock, known: Arc::default(), reading: Arc::default() })
    }

    /// The keys, read again if they are old or do not have `id`. A request whose key is known does not wait for the read
    /// of another one, the others wait. An error, if a read is due that failed or must wait: `id` may be a new key then.
    pub(crate) async fn with(&self, id: &str) -> Result<Arc<KeySet>, KeysUnavailable> {
        let reading = if let Ok(reading) = Arc::clone(&self.reading).try_lock_owned() {
            reading
        } else {
            if let Some(set) = self.with_key(id, self.clock.now_millis()) {
                return Ok(set);
            }
            let reading = tokio::time::timeout(OTHER_READ_WAIT, Arc::clone(&self.reading).lock_owned()).await;
            reading.map_err(|_| KeysUnavailable)?
        };
        let now = self.clock.now_millis();
        if !self.is_to_read(id, now) {
            return self.with_key(id, now).ok_or(KeysUnavailable);
        }
        let (key, place, known) = (self.key, self.place.clone(), Arc::clone(&self.known));
        // A task of its own reads, so that a client that disconnects does not cancel it.
        let read = tokio::spawn(async move {
            let _reading = reading;
            match place.read().await {
                Ok(set) => {
                    let set = Arc::new(set);
                    let mut known = unpoisoned(&known);
                    (known.set, known.read_at) = (Arc::clone(&set), Some(now));
                    Some(set)
                }
                Err(problem) => {
                    tracing::error!(key, problem, "the keys of an issuer cannot be read");
                    None
                }
            }
        });
        // A panic of the task leaves the known keys as they are.
        let read = read.await.ok().flatten();
        read.or_else(|| self.with_key(id, now)).ok_or(KeysUnavailable)
    }

    /// The known keys, if they have `id` and are not too old.
    fn with_key(&self, id: &str, now: i64) -> Option<Arc<KeySet>> {
        let known = unpoisoned(&self.known);
        (is_within(known.read_at, STALE_MS, now) && known.set.has(id)).then(|| Arc::clone(&known.set))
    }

    fn is_to_read(&self, id: &str, now: i64) -> bool {
        let mut known = unpoisoned(&self.known);
        let is_fresh = is_within(known.read_at, KEEP_MS, now) && known.set.has(id);
        if is_fresh || is_within(known.tried_at, READ_WAIT_MS, now) {
            return false;
        }
        known.tried_at = Some(now);
        true
    }
}

impl Place {
    async fn read(&self) -> Result<KeySet, String> {
        match self {
            Place::File(file) => {
                let file = file.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&file)).await;
                read.map_err(|error| error.to_string())?
            }
            Place::Url(client, url) => {
                let answer = client.get(url).send().await;
                let mut answer = answer.map_err(|error| outgoing::reason(&error))?;
                if !answer.status().is_success() {
                    return Err(format!("the server answered {}", answer.status().as_u16()));
                }
                let body = outgoing::body(&mut answer, BYTES_MAX).await.map_err(|error| outgoing::reason(&error))?;
                KeySet::parse(&body).map_err(|problem| format!("the answer {problem}"))
            }
        }
    }
}

/// Whether `at` is at most `wait` milliseconds before `now`.
fn is_within(at: Option<i64>, wait: i64, now: i64) -> bool {
    at.is_some_and(|at| (0..wait).contains(&(now - at)))
}

fn read_file(file: &std::path::Path) -> Result<KeySet, String> {
    let text = std::fs::read(file).map_err(|error| format!("cannot be read ({}): {error}", file.display()))?;
    KeySet::parse(&text).map_err(|problem| format!("{}: {problem}", file.display()))
}
