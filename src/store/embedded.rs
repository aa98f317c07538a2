//! Whose an embedded directory is. One process owns it: holds the lock, runs the engine in it and serves it on
//! loopback; every other process finds the owner's address and passwords in a file there, readable by the same user
//! alone, and is a client like any other.
//!
//! ```text
//! DIR/lock            held (flock) by the owner, whose process number it says
//! DIR/endpoint.json   where the owner listens, and the passwords; they stay over restarts
//! DIR/clickhouse/     the engine's own
//! ```
//! A process that is killed loses its lock with its life, so what it leaves behind is never mistaken for an owner.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::endpoint::{self, Credentials};
use super::engine::{Engine, EngineError, LibraryFile};
use crate::port::StoreError;

/// Name of the owner's user, who may do everything.
const OWNER: &str = "tokenwarden";
/// Name of the user who only reads.
const ANALYST: &str = "analyst";
/// An owner that has just taken the lock needs this long, at most, to load the engine and to listen.
const START_PATIENCE: Duration = Duration::from_secs(15);

/// How to reach the engine of a directory.
#[derive(Debug)]
pub(super) struct Access {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    pub owner: (String, SecretString),
    pub analyst: (String, SecretString),
}

/// Held by the process that owns the directory. Dropping it ends the endpoint, closes the engine and only then lets
/// go of the lock.
#[derive(Debug)]
pub(super) struct Owner {
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
    directory: PathBuf,
    _lock: File,
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(serving) = self.serving.take() {
            // The thread ends by itself; what it had to say is in the log.
            let _ = serving.join();
        }
        // Nobody listens any more. Where the file cannot be written now, the lock says the same.
        let _ = read_endpoint(&self.directory)
            .and_then(|file| write_endpoint(&self.directory, &EndpointFile { url: String::new(), ..file }));
    }
}

/// Opens `directory` as its owner, or finds the owner. Blocks while the engine starts or the owner does.
///
/// With `create`, makes the directory; without, one that holds no store is an error.
pub(super) fn open(
    directory: &Path,
    library: Option<&LibraryFile>,
    listen: Option<SocketAddr>,
    create: bool,
) -> Result<(Access, Option<Owner>), StoreError> {
    let engine_directory = directory.join("clickhouse");
    if create {
        DirBuilder::new().recursive(true).mode(0o700).create(&engine_directory).map_err(|e| refused(directory, &e))?;
    } else if !engine_directory.is_dir() {
        return Err(StoreError::Permanent(format!("there is no embedded store in {}", directory.display())));
    }
    // The engine takes relative paths from where it likes.
    let engine_directory = fs::canonicalize(&engine_directory).map_err(|e| refused(directory, &e))?;

    let patience = START_PATIENCE.as_millis() / 50;
    for attempt in 0..=patience {
        match lock(directory).map_err(|e| refused(directory, &e))? {
            Some(lock) => return own(directory, &engine_directory, library, listen, lock),
            None if attempt == 0 || attempt == patience => {}
            None => std::thread::sleep(Duration::from_millis(50)),
        }
        if let Some(access) = read_endpoint(directory).ok().and_then(EndpointFile::access)
            && answers(&access.url)
        {
            return Ok((access, None));
        }
    }
    let owner = fs::read_to_string(directory.join("lock")).unwrap_or_default();
    Err(StoreError::Retriable(format!(
        "the embedded store {} belongs to process {}, which does not answer",
        directory.display(),
        owner.trim()
    )))
}

/// Takes the lock and writes our process number in; `None` where another process has it.
fn lock(directory: &Path) -> io::Result<Option<File>> {
    let path = directory.join("lock");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Some(file))
}

fn own(
    directory: &Path,
    engine_directory: &Path,
    library: Option<&LibraryFile>,
    listen: Option<SocketAddr>,
    lock: File,
) -> Result<(Access, Option<Owner>), StoreError> {
    let library = library.ok_or_else(|| {
        StoreError::Permanent("the embedded store needs the ClickHouse engine: set store.library".to_owned())
    })?;
    let file = match read_endpoint(directory) {
        // The address is of an owner who is gone; whoever listens there now must not be told the password.
        Ok(file) => EndpointFile { url: String::new(), ..file },
        Err(_) => EndpointFile::new().map_err(|e| refused(directory, &e))?,
    };
    write_endpoint(directory, &file).map_err(|e| refused(directory, &e))?;

    let address = listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    if !address.ip().is_loopback() {
        let told = format!("store.listen is {address}: the embedded store listens on loopback alone");
        return Err(StoreError::Permanent(told));
    }
    let (listener, address) = std::net::TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .and_then(|listener| listener.local_addr().map(|at| (listener, at)))
        .map_err(|error| StoreError::Permanent(format!("the embedded store cannot listen on {address}: {error}")))?;

    let engine = Engine::open(library, engine_directory).map_err(|error| match error {
        EngineError::Occupied { .. } => StoreError::Retriable(error.to_string()),
        _ => StoreError::Permanent(error.to_string()),
    })?;
    let file = EndpointFile { url: format!("http://{address}"), ..file };
    let credentials = file.credentials();
    let (stop, stopped) = oneshot::channel();
    // A thread and a runtime of its own: the engine is closed whatever becomes of the caller's runtime.
    let serving = std::thread::Builder::new()
        .name("store-endpoint".to_owned())
        .spawn(move || serve(listener, engine, credentials, stopped))
        .map_err(|error| refused(directory, &error))?;
    let owner = Owner { stop: Some(stop), serving: Some(serving), directory: directory.to_owned(), _lock: lock };
    write_endpoint(directory, &file).map_err(|e| refused(directory, &e))?;
    let access = file.access().ok_or_else(|| StoreError::Permanent("the endpoint has no address".to_owned()))?;
    Ok((access, Some(owner)))
}

fn serve(listener: std::net::TcpListener, engine: Engine, credentials: Credentials, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            endpoint::serve(listener, engine, credentials, stopped).await
        })
    });
    if let Err(error) = served {
        tracing::error!(%error, "the embedded store's endpoint ended");
    }
}

/// Whether somebody listens there. Sends nothing: the passwords go out with queries only.
fn answers(url: &str) -> bool {
    let address = url.strip_prefix("http://").and_then(|address| address.parse().ok());
    address.is_some_and(|address: SocketAddr| {
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
    })
}

/// `endpoint.json`.
#[derive(Clone, Serialize, Deserialize)]
struct EndpointFile {
    /// Empty while nobody listens.
    url: String,
    user: String,
    password: String,
    analyst_user: String,
    analyst_password: String,
}

impl EndpointFile {
    fn new() -> io::Result<Self> {
        Ok(Self {
            url: String::new(),
            user: OWNER.to_owned(),
            password: random_password()?,
            analyst_user: ANALYST.to_owned(),
            analyst_password: random_password()?,
        })
    }

    fn credentials(&self) -> Credentials {
        Credentials {
            owner: (self.user.clone(), self.password.clone().into()),
            analyst: (self.analyst_user.clone(), self.analyst_password.clone().into()),
        }
    }

    fn access(self) -> Option<Access> {
        let Credentials { owner, analyst } = self.credentials();
        let usable = !self.url.is_empty() && !owner.1.expose_secret().is_empty();
        usable.then_some(Access { url: self.url, owner, analyst })
    }
}

/// 24 bytes of the system's randomness, in base64url.
fn random_password() -> io::Result<String> {
    let mut bytes = [0; 24];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn read_endpoint(directory: &Path) -> io::Result<EndpointFile> {
    Ok(serde_json::from_slice(&fs::read(directory.join("endpoint.json"))?)?)
}

/// Replaces the file at once, so that nobody reads half of it.
fn write_endpoint(directory: &Path, file: &EndpointFile) -> io::Result<()> {
    let partial = directory.join("endpoint.json.partial");
    // One that a killed process left may have other rights.
    let _ = fs::remove_file(&partial);
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    serde_json::to_writer_pretty(&mut to, file)?;
    to.sync_all()?;
    fs::rename(partial, directory.join("endpoint.json"))
}

/// The directory cannot be used, and why: not writable, no space, not a directory.
fn refused(directory: &Path, error: &io::Error) -> StoreError {
    let told = format!("the embedded store {} cannot be used: {error}", directory.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Retriable(told),
        _ => StoreError::Permanent(told),
    }
}
