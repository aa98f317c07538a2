//! Ownership of an embedded directory. One process owns it: it holds the lock, runs the engine and serves it on
//! loopback. Every other process reads the owner's address and passwords from a file in the directory, which only the
//! same user can read, and is an ordinary client.
//!
//! ```text
//! DIR/lock            locked (flock) by the owner; contains its process number
//! DIR/endpoint.json   address of the owner, and the passwords, which stay the same over restarts
//! DIR/clickhouse/     data of the engine
//! ```
//! The lock ends with the process, so files of a killed owner are not taken for a running one.

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

/// User of the owner, with all rights.
const OWNER: &str = "tokenwarden";
/// User that can only read.
const ANALYST: &str = "analyst";
/// Maximum time in which an owner that holds the lock loads the engine and begins to listen.
const START_PATIENCE: Duration = Duration::from_secs(15);

/// Address and passwords of a directory's engine.
#[derive(Debug)]
pub(super) struct Access {
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    pub(crate) owner: (String, SecretString),
    pub(crate) analyst: (String, SecretString),
}

/// Held by the process that owns the directory. Dropping it ends the endpoint, closes the engine and then releases the
/// lock.
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
            // The thread ends by itself and logs its errors.
            let _ = serving.join();
        }
        // No process listens now. If the file cannot be written, the free lock shows the same.
        let _ = read_endpoint(&self.directory)
            .and_then(|file| write_endpoint(&self.directory, &EndpointFile { url: String::new(), ..file }));
    }
}

/// Opens `directory` as its owner, or finds the owner. Blocks while the engine or the owner starts.
///
/// With `create` the directory is created; otherwise a directory without a store is an error.
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
    // The engine resolves relative paths against another directory.
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

/// Takes the lock and writes the process number into it; `None` if another process holds it.
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
        // The address belongs to an owner that has ended. Another process may listen there now and must not receive the
        // password.
        Ok(file) => EndpointFile { url: String::new(), ..file },
        Err(_) => EndpointFile::new().map_err(|e| refused(directory, &e))?,
    };
    write_endpoint(directory, &file).map_err(|e| refused(directory, &e))?;

    let address = listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    if !address.ip().is_loopback() {
        let problem = format!("store.listen is {address}: the embedded store listens only on loopback");
        return Err(StoreError::Permanent(problem));
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
    // The endpoint has a thread and a runtime of its own, so that the engine is closed even if the caller's runtime
    // ends.
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
        tracing::error!(%error, "the endpoint of the embedded store ended");
    }
}

/// Whether a process listens at `url`. Sends nothing: passwords are sent with queries only.
fn answers(url: &str) -> bool {
    let address = url.strip_prefix("http://").and_then(|address| address.parse().ok());
    address.is_some_and(|address: SocketAddr| {
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
    })
}

/// Content of `endpoint.json`.
#[derive(Clone, Serialize, Deserialize)]
struct EndpointFile {
    /// Empty while no process listens.
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

/// 24 random bytes of the operating system, in base64url.
fn random_password() -> io::Result<String> {
    let mut bytes = [0; 24];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn read_endpoint(directory: &Path) -> io::Result<EndpointFile> {
    Ok(serde_json::from_slice(&fs::read(directory.join("endpoint.json"))?)?)
}

/// Replaces the file atomically, so that a reader never sees a part of it.
fn write_endpoint(directory: &Path, file: &EndpointFile) -> io::Result<()> {
    let partial = directory.join("endpoint.json.partial");
    // A file left by a killed process may have other permissions.
    let _ = fs::remove_file(&partial);
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    serde_json::to_writer_pretty(&mut to, file)?;
    to.sync_all()?;
    fs::rename(partial, directory.join("endpoint.json"))
}

/// The error for a directory that cannot be used, with its cause.
fn refused(directory: &Path, error: &io::Error) -> StoreError {
    let problem = format!("the embedded store {} cannot be used: {error}", directory.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Retriable(problem),
        _ => StoreError::Permanent(problem),
    }
}
