//! The GeoIP files of an installation: read at start, watched for changes, and replaced together between two batches.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::database::{Database, DatabaseError, Record, Role, Stamp};
use super::record::{RawNetwork, RawPlace};
use super::slots::Slots;
use crate::lock::unpoisoned;
use crate::place::{Network, Place};
use crate::port::GeoLookup;

/// Interval of the check for changes. Providers publish at most daily; a check costs one system call per file.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// 16,384 addresses, about as many as are in use at a time, so that most events need no look-up in a file.
const ADDRESS_BITS: u32 = 13;
/// 16,384 decoded places and as many networks: decoding costs ten times as much as a look-up.
const RECORD_BITS: u32 = 13;

/// `[geoip]`: files in MaxMind's format with the schemas of MaxMind, DB-IP or IPinfo. If several files contain an
/// address, the first one is used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeoSettings {
    /// Files with places.
    pub city: Vec<PathBuf>,
    /// Files with networks.
    pub asn: Vec<PathBuf>,
}

/// The files on disk, watched until the last clone is dropped. Clones share them.
#[derive(Clone)]
pub struct GeoFiles(Arc<Files>);

/// Place and network of addresses, from files, with tables of earlier results.
#[derive(Debug)]
pub(super) struct Geo {
    in_use: Arc<InUse>,
    known: Slots<IpAddr, Known>,
    places: Slots<RecordKey, Option<Arc<Place>>>,
    networks: Slots<RecordKey, Option<Arc<Network>>>,
}

/// Place and network of an address.
type Known = (Option<Arc<Place>>, Option<Arc<Network>>);

/// Index of the file in its list, and offset of the record in the file.
type RecordKey = (usize, usize);

/// State shared by the users of the files and the watching thread.
struct Files {
    /// Locked while files are read, by the watching thread or by [`GeoFiles::check`]; never by a look-up.
    watched: Mutex<Vec<Watched>>,
    current: Mutex<Arc<InUse>>,
    /// Number of the version in `current`, so that a refresh without a change takes no lock.
    number: AtomicU64,
    /// Wakes the watching thread. When the last user of the files drops it, the thread ends.
    wake: SyncSender<()>,
}

/// One file on disk.
struct Watched {
    path: PathBuf,
    role: Role,
    /// The last valid content.
    database: Option<Arc<Database>>,
    /// Stamp of the last content that was tried, valid or not.
    tried: Option<Stamp>,
    problem: Option<String>,
}

/// The files in use.
#[derive(Default)]
struct InUse {
    number: u64,
    city: Vec<Arc<Database>>,
    asn: Vec<Arc<Database>>,
    versions: Vec<String>,
    problems: Vec<String>,
}

impl GeoFiles {
    /// Reads the files in parallel and watches them. A missing or invalid file is left out, and [`Self::problems`]
    /// reports it.
    pub(crate) fn open(settings: &GeoSettings) -> Self {
        let of = |role| move |path: &PathBuf| Watched::new(path.clone(), role);
        let watched: Vec<_> =
            settings.city.iter().map(of(Role::City)).chain(settings.asn.iter().map(of(Role::Asn))).collect();
        // One pending request is enough.
        let (wake, woken) = sync_channel(1);
        let any = !watched.is_empty();
        let files = Arc::new(Files {
            watched: Mutex::new(watched),
            current: Mutex::default(),
            number: AtomicU64::new(0),
            wake,
        });
        files.check();
        if any {
            watch(Arc::downgrade(&files), woken);
        }
        Self(files)
    }

    /// Checks for changed files and reads them on the calling thread, which may take a second. The next refresh of each
    /// enricher uses them.
    pub fn check(&self) {
        self.0.check();
    }

    pub(super) fn check_soon(&self) {
        // If the channel is full, a check is pending already.
        let _ = self.0.wake.try_send(());
    }

    /// Problems with the files, one sentence each.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.0.current().problems.clone()
    }

    /// The files in use: path, type and build date of each.
    pub(crate) fn versions(&self) -> Vec<String> {
        self.0.current().versions.clone()
    }
}

impl Geo {
    pub(crate) fn over(files: &GeoFiles) -> Self {
        Self {
            in_use: files.0.current(),
            known: Slots::new(ADDRESS_BITS),
            places: Slots::new(RECORD_BITS),
            networks: Slots::new(RECORD_BITS),
        }
    }

    /// Takes over files that were read since the last call. Costs one atomic load if there are none.
    pub(crate) fn refresh(&mut self, files: &GeoFiles) {
        if files.0.number.load(Ordering::Acquire) != self.in_use.number {
            self.in_use = files.0.current();
            self.known.clear();
            self.places.clear();
            self.networks.clear();
        }
    }
}

impl GeoLookup for Geo {
    fn lookup(&mut self, address: IpAddr) -> Known {
        let Self { in_use, known, places, networks, .. } = self;
        let hash = match address {
            IpAddr::V4(v4) => xxh3_64(&v4.octets()),
            IpAddr::V6(v6) => xxh3_64(&v6.octets()),
        };
        known.get_or_make(hash, &address, || {
            if !is_somewhere(address) {
                return (None, None);
            }
            let place = first(&in_use.city, address, places, |record| {
                record.decode::<RawPlace<'_>>().ok().flatten().and_then(|raw| raw.place())
            });
            let network = first(&in_use.asn, address, networks, |record| {
                record.decode::<RawNetwork<'_>>().ok().flatten().and_then(|raw| raw.network())
            });
            (place, network)
        })
    }
}

/// The result of the first file that contains the address.
fn first<T>(
    databases: &[Arc<Database>],
    address: IpAddr,
    decoded: &mut Slots<RecordKey, Option<Arc<T>>>,
    decode: impl Fn(&Record<'_>) -> Option<T>,
) -> Option<Arc<T>> {
    databases.iter().enumerate().find_map(|(number, database)| {
        let record = database.find(address)?;
        let key = (number, record.offset()?);
        // Offsets differ in few bits and share some. Multiplying by an odd constant (2^64 over the golden ratio)
        // spreads them into the upper bits.
        let hash = ((key.1 as u64) << 4 | number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        decoded.get_or_make(hash, &key, || decode(&record).map(Arc::new))
    })
}

/// Whether the address can have a place. Private, shared (RFC 6598), loopback, link-local, multicast and reserved
/// addresses have none, even if a file contains them.
fn is_somewhere(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            let reserved = v4.octets()[0] >= 240 || v4.octets()[0] == 0;
            !(v4.is_private() || shared || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || reserved)
                && v4 != Ipv4Addr::UNSPECIFIED
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast())
                && v6 != Ipv6Addr::UNSPECIFIED
        }
    }
}

/// Checks the files at intervals until they have no user any more.
fn watch(files: Weak<Files>, woken: Receiver<()>) {
    let watching = std::thread::Builder::new().name("geoip".to_owned()).spawn(move || {
        while woken.recv_timeout(CHECK_INTERVAL) != Err(RecvTimeoutError::Disconnected) {
            let Some(files) = files.upgrade() else { break };
            files.check();
        }
    });
    if let Err(error) = watching {
        tracing::warn!(%error, "GeoIP files are not watched; restart to load a changed file");
    }
}

impl Files {
    fn current(&self) -> Arc<InUse> {
        Arc::clone(&unpoisoned(&self.current))
    }

    /// Reads changed files. The next refresh uses those that are valid.
    fn check(&self) {
        let mut watched = unpoisoned(&self.watched);
        let mut changed = false;
        std::thread::scope(|scope| {
            let checks: Vec<_> = watched.iter_mut().map(|file| scope.spawn(|| file.check())).collect();
            for check in checks {
                changed |= check.join().unwrap_or(false);
            }
        });
        if changed {
            let mut current = unpoisoned(&self.current);
            let number = current.number + 1;
            *current = Arc::new(InUse::of(number, &watched));
            self.number.store(number, Ordering::Release);
        }
    }
}

impl Watched {
    fn new(path: PathBuf, role: Role) -> Self {
        Self { path, role, database: None, tried: None, problem: None }
    }

    /// Reads the file if it changed; returns whether its content or its problem is different now.
    fn check(&mut self) -> bool {
        let stamp = match Stamp::of(&self.path) {
            Ok(stamp) if self.tried == Some(stamp) => return false,
            Ok(stamp) => stamp,
            Err(error) => {
                self.tried = None;
                return self.keep_old(&error);
            }
        };
        match Database::open(&self.path, self.role) {
            Ok(database) => {
                self.tried = Some(stamp);
                self.problem = None;
                tracing::info!(file = %self.path.display(), version = database.version(), "GeoIP file loaded");
                self.database = Some(Arc::new(database));
                true
            }
            Err(error) => {
                // A file that was being written is tried again at once; an invalid one only after a change.
                self.tried = (!matches!(error, DatabaseError::Changing)).then_some(stamp);
                self.keep_old(&error)
            }
        }
    }

    fn keep_old(&mut self, error: &DatabaseError) -> bool {
        let consequence = match self.database {
            Some(_) => "the previous version stays in use",
            None => "its places or networks are missing; geoip/README.md describes where to get files",
        };
        let problem = format!("{} {error}; {consequence}", self.path.display());
        if self.problem.as_ref() == Some(&problem) {
            return false;
        }
        tracing::warn!(problem, "GeoIP file not loaded");
        self.problem = Some(problem);
        true
    }
}

impl InUse {
    fn of(number: u64, watched: &[Watched]) -> Self {
        let of = |role| watched.iter().filter(move |file| file.role == role).filter_map(|file| file.database.clone());
        let version = |file: &Watched| Some(format!("{}: {}", file.path.display(), file.database.as_ref()?.version()));
        Self {
            number,
            city: of(Role::City).collect(),
            asn: of(Role::Asn).collect(),
            versions: watched.iter().filter_map(version).collect(),
            problems: watched.iter().filter_map(|file| file.problem.clone()).collect(),
        }
    }
}

impl std::fmt::Debug for GeoFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("GeoFiles").field(&self.versions()).finish()
    }
}

impl std::fmt::Debug for InUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InUse").field("versions", &self.versions).finish_non_exhaustive()
    }
}
