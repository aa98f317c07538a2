//! The public keys of the identity provider, from a file or URL, read again when they may have changed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use reqwest::Client;

use super::caller::Denied;
use super::settings::JwtSettings;
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
/// Maximum size of a set of keys, bytes.
const BYTES_MAX: usize = 256 << 10;

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

pub(super) struct Keys {
    place: Place,
    clock: Arc<dyn Clock>,
    known: Arc<Mutex<Known>>,
}

impl Keys {
    /// The error is the key in `[user_api]` and the problem.
    pub(super) fn of(settings: &JwtSettings, clock: Arc<dyn Clock>) -> Result<Self, Mistake> {
        let place = match (&settings.jwks_file, &settings.jwks_url) {
            (Some(file), _) => {
                read_file(file).map_err(Mistake::of("jwt.jwks_file"))?;
                Place::File(file.clone())
            }
            (None, Some(text)) => {
                let url = url::Url::parse(text).map_err(|error| Mistake::new("jwt.jwks_url", error.to_string()))?;
                let client = outgoing::client(&url, settings.allow_private, settings.ca_file.as_deref());
                Place::Url(client.map_err(Mistake::of("jwt.jwks_url"))?, text.clone())
            }
            (None, None) => return Err(Mistake::new("jwt", "needs one of jwks_file and jwks_url")),
        };
        Ok(Self { place, clock, known: Arc::default() })
    }

    /// The keys, read again if they are old or do not have `id`. Other requests do not wait for a read. A task of its own
    /// reads, so that a client that disconnects does not cancel it.
    pub(super) async fn with(&self, id: &str) -> Result<Arc<KeySet>, Denied> {
        let now = self.clock.now_millis();
        if self.is_to_read(id, now) {
            let (place, known) = (self.place.clone(), Arc::clone(&self.known));
            let reading = tokio::spawn(async move {
                match place.read().await {
                    Ok(set) => {
                        let mut known = unpoisoned(&known);
                        (known.set, known.read_at) = (Arc::new(set), Some(now));
                    }
                    Err(problem) => tracing::error!(problem, "the keys of user_api.jwt cannot be read"),
                }
            });
            // A panic of the task leaves the known keys as they are.
            let _ = reading.await;
        }
        let known = unpoisoned(&self.known);
        if is_within(known.read_at, STALE_MS, now) {
            return Ok(Arc::clone(&known.set));
        }
        Err(Denied::Unavailable("the keys of the identity provider cannot be read"))
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
