//! The ClickHouse engine inside this process: `libchdb.so` (559 MB, loaded at run time), behind a safe interface:
//! [`Engine::open`], [`Engine::session`], [`Session::query`], [`Answer`], and the drop of each.
//!
//! Only this file and `source/kafka/native.rs` contain unsafe code. The calls are those of `chdb.h` of libchdb 26.5.
//! Their conditions: a session runs one statement at a time, so [`Session::query`] takes `&mut self`; the library frees
//! its results; the last connection is closed before the process ends, because otherwise the library's teardown at exit
//! fails.

#![expect(unsafe_code, reason = "the engine is a C library; a SAFETY comment justifies every block")]

use std::error::Error as _;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::{Mutex, Once, OnceLock};

use libloading::Library;
use sha2::{Digest as _, Sha256};

use crate::lock::unpoisoned;
use crate::number::hex;

/// SHA-256 of `libchdb.so` in the npm package `@chdb/lib-linux-x64-gnu` 26.5.3, which `deploy/setup.sh` fetches.
pub(super) const SHA256: &str = "4330da79405733f7572f27c1442f46c03a08301f00859dce0368645731b1e1dc";
/// Number of bytes that are hashed at a time.
const HASHED_BYTES: usize = 1 << 20;
/// Permission bits that let the group or others write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A library that may be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LibraryFile {
    pub(super) path: PathBuf,
    /// SHA-256 of its content in lower-case hexadecimal.
    pub(super) sha256: String,
}

/// Why the engine is not available.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum EngineError {
    #[error(
        "the embedded ClickHouse engine is not at {}; run `deploy/setup.sh run` to fetch it, or set store.library, or set \
         store.url to a ClickHouse server",
        .0.display()
    )]
    Missing(PathBuf),
    #[error(
        "{} has the SHA-256 {found}, not {expected}, and is not loaded; run `deploy/setup.sh run` to fetch the right file, or \
         set store.library_sha256 = \"{found}\" to use this one",
        .library.display()
    )]
    Changed { library: PathBuf, found: String, expected: String },
    #[error("{} cannot be used as libchdb by this build: {reason}", .library.display())]
    Unusable { library: PathBuf, reason: String },
    #[error(
        "the embedded ClickHouse engine cannot open {}; it must be writable and of the same or an older version",
        .0.display()
    )]
    Refused(PathBuf),
    #[error(
        "the embedded store {} has tables in its database `default`, which must stay empty; start an earlier build and move them",
        .0.display()
    )]
    DefaultInUse(PathBuf),
    /// The library can open one directory per process.
    #[error("this process has the embedded store {} open and cannot also open {}", .open.display(), .asked.display())]
    Occupied { open: PathBuf, asked: PathBuf },
}

/// The engine's error for a statement: `Code: 62. DB::Exception: …`.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Exception(pub(crate) String);

impl LibraryFile {
    /// Opens the file if it has the expected content and only this process's user or root can change it.
    pub(super) fn open_checked(&self) -> Result<File, EngineError> {
        if !self.path.is_file() {
            return Err(EngineError::Missing(self.path.clone()));
        }
        let unusable = |reason: String| EngineError::Unusable { library: self.path.clone(), reason };
        let mut file = File::open(&self.path).map_err(|error| unusable(error.to_string()))?;
        let about = file.metadata().map_err(|error| unusable(error.to_string()))?;
        let is_ours = about.uid() == 0 || about.uid() == rustix::process::geteuid().as_raw();
        if !is_ours || about.mode() & WRITABLE_BY_OTHERS != 0 {
            let (owner, mode) = (about.uid(), about.mode() & 0o777);
            let reason = format!(
                "other users can change it (owner {owner}, mode {mode:04o}); it must belong to root or to the service's \
                 user, without write permission for group and others (`chmod go-w`)"
            );
            return Err(unusable(reason));
        }
        let mut hash = Sha256::new();
        let mut piece = vec![0; HASHED_BYTES];
        loop {
            match file.read(&mut piece).map_err(|error| unusable(error.to_string()))? {
                0 => break,
                length => hash.update(&piece[..length]),
            }
        }
        let found = hex(&hash.finalize());
        if found == self.sha256 {
            Ok(file)
        } else {
            Err(EngineError::Changed { library: self.path.clone(), found, expected: self.sha256.clone() })
        }
    }
}

/// The engine, open on a directory until it is dropped.
#[derive(Debug)]
pub(super) struct Engine {
    symbols: &'static Symbols,
    path_argument: CString,
}

/// The open engine of this process.
struct Open {
    directory: PathBuf,
    /// Keeps the engine running between sessions.
    anchor: Session,
}

static OPEN: Mutex<Option<Open>> = Mutex::new(None);

impl Engine {
    /// Loads the library, once per process, and opens `directory`, which must exist.
    pub(super) fn open(library: &LibraryFile, directory: &Path) -> Result<Self, EngineError> {
        let symbols = Symbols::load(library)?;
        let mut open = unpoisoned(&OPEN);
        if let Some(open) = &*open {
            return Err(EngineError::Occupied { open: open.directory.clone(), asked: directory.to_owned() });
        }
        let refused = || EngineError::Refused(directory.to_owned());
        let path = [b"--path=", directory.as_os_str().as_encoded_bytes()].concat();
        let path_argument = CString::new(path).map_err(|_| refused())?;
        // The engine would take over SIGSEGV and its like from the runtime and hang for minutes in a crash.
        // SAFETY: the call takes an int and sets a flag and signal dispositions of the process.
        unsafe { (symbols.set_signal_handlers_enabled)(0) };
        let mut anchor = Session::connect(symbols, &path_argument).ok_or_else(refused)?;
        if !anchor.replace_default().map_err(|_| refused())? {
            return Err(EngineError::DefaultInUse(directory.to_owned()));
        }
        *open = Some(Open { directory: directory.to_owned(), anchor });
        drop(open);
        end_at_exit();
        Ok(Self { symbols, path_argument })
    }

    /// A new session, whose settings and current database end with it. Costs 0.2 ms.
    pub(super) fn session(&self) -> Result<Session, Exception> {
        let open = unpoisoned(&OPEN);
        open.as_ref()
            .and_then(|_| Session::connect(self.symbols, &self.path_argument))
            .ok_or_else(|| Exception("Code: 236. DB::Exception: the embedded engine is closed. (ABORTED)".to_owned()))
    }
}

impl Drop for Engine {
    /// Caller: no session may be running a statement.
    fn drop(&mut self) {
        let open = unpoisoned(&OPEN).take();
        drop(open.map(|open| open.anchor));
    }
}

/// If the process exits with the engine open, ends it at once. Otherwise the C runtime destroys the library's objects
/// under its running threads, and the exit status becomes that of a crash. Acknowledged rows are on disk, as after
/// SIGKILL.
fn end_at_exit() {
    static REGISTERED: Once = Once::new();
    unsafe extern "C" {
        // A function of glibc: like `atexit`, with the exit status as an argument.
        fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
        fn _exit(status: c_int) -> !;
    }
    extern "C" fn end(status: c_int, _: *mut c_void) {
        if OPEN.try_lock().is_ok_and(|open| open.is_none()) {
            return;
        }
        // SAFETY: `_exit` takes any status and does not return; Rust has flushed its streams before `exit`.
        unsafe { _exit(status) };
    }
    // SAFETY: `on_exit` takes a function that lives as long as the process and does not unwind; the argument is unused.
    REGISTERED.call_once(|| _ = unsafe { on_exit(end, std::ptr::null_mut()) });
}

/// One connection to the engine.
pub(super) struct Session {
    symbols: &'static Symbols,
    connection: *mut Connection,
}

// SAFETY: a connection has no thread of its own kind: the library's calls may come from any thread, one at a time,
// and `&mut self` sees to the latter.
unsafe impl Send for Session {}
// SAFETY: nothing can be done with a `&Session`.
unsafe impl Sync for Session {}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(..)")
    }
}

impl Session {
    fn connect(symbols: &'static Symbols, path_argument: &CStr) -> Option<Self> {
        let mut arguments = [c"clickhouse".as_ptr().cast_mut(), path_argument.as_ptr().cast_mut()];
        // SAFETY: `arguments` holds two NUL-terminated strings that outlive the call, which copies and does not write
        // them.
        let connection = unsafe { (symbols.connect)(2, arguments.as_mut_ptr()) };
        // SAFETY: a pointer that is not null was made by `chdb_connect` and is open, so it may be read.
        let usable = !connection.is_null() && !unsafe { *connection }.is_null();
        usable.then_some(Self { symbols, connection })
    }

    /// Replaces the database `default` by an empty one. In `default`, file names act as tables, so a query could find
    /// out which files exist. Returns `false` if it has tables.
    fn replace_default(&mut self) -> Result<bool, Exception> {
        let tables = self.query(b"SELECT count() FROM system.tables WHERE database = 'default'", "TSV", &[])?;
        if tables.as_ref() != b"0\n" {
            return Ok(false);
        }
        self.query(b"DROP DATABASE default", "Null", &[])?;
        self.query(b"CREATE DATABASE default ENGINE = Memory", "Null", &[])?;
        Ok(true)
    }

    /// Runs one statement; `format` applies if the statement names none. `parameters` are names and values of
    /// `{name:Type}` placeholders, the values in ClickHouse's escaped text form.
    pub(super) fn query(
        &mut self,
        statement: &[u8],
        format: &str,
        parameters: &[(String, String)],
    ) -> Result<Answer, Exception> {
        let names: Vec<*const c_char> = parameters.iter().map(|(name, _)| name.as_ptr().cast()).collect();
        let name_lengths: Vec<usize> = parameters.iter().map(|(name, _)| name.len()).collect();
        let values: Vec<*const c_char> = parameters.iter().map(|(_, value)| value.as_ptr().cast()).collect();
        let value_lengths: Vec<usize> = parameters.iter().map(|(_, value)| value.len()).collect();
        // SAFETY: the connection is open until drop; statement, format and the four arrays are live over the call,
        // each with its length.
        let result = unsafe {
            (self.symbols.query)(
                *self.connection,
                statement.as_ptr().cast(),
                statement.len(),
                format.as_ptr().cast(),
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                parameters.len(),
            )
        };
        if result.is_null() {
            return Err(Exception("Code: 1001. DB::Exception: the embedded engine gave no result".to_owned()));
        }
        let answer = Answer { symbols: self.symbols, result };
        // SAFETY: `result` is live until `answer` is dropped; the error text, if any, is NUL-terminated and belongs
        // to it.
        let error = unsafe {
            let error = (self.symbols.result_error)(result);
            (!error.is_null()).then(|| CStr::from_ptr(error).to_string_lossy().into_owned())
        };
        error.map_or(Ok(answer), |text| Err(Exception(text)))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: `chdb_connect` made the connection, it is closed once, and results do not need it.
        unsafe { (self.symbols.close)(self.connection) };
    }
}

/// A result in the library's memory.
pub(super) struct Answer {
    symbols: &'static Symbols,
    result: *mut ResultHandle,
}

// SAFETY: a finished result is memory that nothing writes to any more, and may be freed from any thread.
unsafe impl Send for Answer {}
// SAFETY: as above; `&Answer` only reads.
unsafe impl Sync for Answer {}

impl Answer {
    pub(super) fn rows_read(&self) -> u64 {
        // SAFETY: the result is live until drop.
        unsafe { (self.symbols.rows_read)(self.result) }
    }

    pub(super) fn bytes_read(&self) -> u64 {
        // SAFETY: the result is live until drop.
        unsafe { (self.symbols.bytes_read)(self.result) }
    }

    pub(super) fn seconds(&self) -> f64 {
        // SAFETY: the result is live until drop.
        unsafe { (self.symbols.elapsed)(self.result) }
    }
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the result is live until drop.
        let (buffer, length) =
            unsafe { ((self.symbols.result_buffer)(self.result), (self.symbols.result_length)(self.result)) };
        if buffer.is_null() || length == 0 {
            return &[];
        }
        // SAFETY: the library gives `length` initialised bytes at `buffer`, valid and unchanged until the result is
        // destroyed, which the borrow of `self` outlives.
        unsafe { slice::from_raw_parts(buffer.cast(), length) }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: the result came from the library and is destroyed once.
        unsafe { (self.symbols.destroy_result)(self.result) };
    }
}

/// `chdb_connection`, opaque.
type Connection = *mut c_void;
/// `chdb_result`, opaque.
type ResultHandle = c_void;

/// The library's functions in use, with the signatures of `chdb.h`.
struct Symbols {
    set_signal_handlers_enabled: unsafe extern "C" fn(c_int),
    connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut Connection,
    close: unsafe extern "C" fn(*mut Connection),
    query: unsafe extern "C" fn(
        Connection,
        *const c_char,
        usize,
        *const c_char,
        usize,
        *const *const c_char,
        *const usize,
        *const *const c_char,
        *const usize,
        usize,
    ) -> *mut ResultHandle,
    result_buffer: unsafe extern "C" fn(*mut ResultHandle) -> *const c_char,
    result_length: unsafe extern "C" fn(*mut ResultHandle) -> usize,
    result_error: unsafe extern "C" fn(*mut ResultHandle) -> *const c_char,
    rows_read: unsafe extern "C" fn(*mut ResultHandle) -> u64,
    bytes_read: unsafe extern "C" fn(*mut ResultHandle) -> u64,
    elapsed: unsafe extern "C" fn(*mut ResultHandle) -> f64,
    destroy_result: unsafe extern "C" fn(*mut ResultHandle),
}

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("libchdb")
    }
}

impl Symbols {
    /// The library stays loaded until the process ends, because its threads outlive every connection.
    fn load(library: &LibraryFile) -> Result<&'static Self, EngineError> {
        static LOADED: OnceLock<(LibraryFile, Symbols)> = OnceLock::new();
        if let Some((_, symbols)) = LOADED.get().filter(|(loaded, _)| loaded == library) {
            return Ok(symbols);
        }
        let symbols = Self::load_first(library)?;
        Ok(&LOADED.get_or_init(|| (library.clone(), symbols)).1)
    }

    fn load_first(file: &LibraryFile) -> Result<Self, EngineError> {
        let unusable = |error: libloading::Error| EngineError::Unusable {
            library: file.path.clone(),
            // The cause contains the loader's text: not a library, another architecture, a missing symbol.
            reason: error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")),
        };
        // Loaded by the descriptor that was hashed, so that another file with the same name is not loaded. The
        // descriptor stays open, because the library opens itself for the symbols of a stack trace.
        let opened: &'static File = Box::leak(Box::new(file.open_checked()?));
        let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
        // SAFETY: loading runs the library's initialisers, which are those of the ClickHouse engine: the contents have
        // the digest of the build that `chdb.h` comes with, or the one that the operator vouches for.
        let library = unsafe { Library::new(path) }.map_err(unusable)?;
        let library: &'static Library = Box::leak(Box::new(library));
        /// The function `name`, with the type of its field.
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: `chdb.h` declares the function with the signature of the field, and the library is never
                // unloaded, so that the pointer may be kept.
                *unsafe { library.get($name) }.map_err(unusable)?
            };
        }
        Ok(Self {
            set_signal_handlers_enabled: symbol!("chdb_set_signal_handlers_enabled"),
            connect: symbol!("chdb_connect"),
            close: symbol!("chdb_close_conn"),
            query: symbol!("chdb_query_with_params_n"),
            result_buffer: symbol!("chdb_result_buffer"),
            result_length: symbol!("chdb_result_length"),
            result_error: symbol!("chdb_result_error"),
            rows_read: symbol!("chdb_result_rows_read"),
            bytes_read: symbol!("chdb_result_bytes_read"),
            elapsed: symbol!("chdb_result_elapsed"),
            destroy_result: symbol!("chdb_destroy_query_result"),
        })
    }
}
