//! Snapshots in a folder, one file for each state.
//!
//! `NAME.state` contains the records of the state, each compressed with zstd after its length (4 bytes, little-endian),
//! a length of 0, the marker in JSON, and a footer: the length of the marker (4 bytes), its XXH3 (8 bytes) and
//! [`FOOTER_MAGIC`]. A snapshot is written to `NAME.state.newN`, synchronized to disk, and renamed. A crash at any moment
//! therefore leaves the snapshot before it, or the new one.

use std::fs::{DirBuilder, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rustix::fs::{FlockOperation, flock};
use xxhash_rust::xxh3::xxh3_64;

use crate::line::private;
use crate::port::{
    Incoming, NamedSnapshots, Received, SnapshotError, SnapshotReader, SnapshotWriter, Snapshots, StoredSnapshot,
    in_background,
};
use crate::snapshot::{Marker, RECORD_BYTES_MAX};

/// Level of zstd: the fastest of the regular ones.
const LEVEL: i32 = 1;
/// Interval in which the thread notices that its snapshot was discarded.
const LOOK_WAIT: Duration = Duration::from_secs(1);
const FOOTER_MAGIC: [u8; 8] = *b"TW-end-1";
const FOOTER_BYTES: usize = 20;
/// Maximum size of a marker, bytes.
const MARKER_BYTES_MAX: usize = 16 << 20;
const EXTENSION: &str = ".state";
/// Extension of a snapshot that is not complete; a number follows.
const DRAFT: &str = ".state.new";
/// Characters of a name that are not encoded in the name of its file.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// The folder, see the module documentation. It is locked, so that one process writes to it.
#[derive(Debug)]
pub(crate) struct StateDir {
    folder: PathBuf,
    /// Number of snapshots begun.
    begun: AtomicU64,
    _lock: File,
}

impl StateDir {
    /// Creates the folder if it does not exist. Fails if another process uses it.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let lock = private().open(folder.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::new(ErrorKind::WouldBlock, "another process of tokenwarden uses this folder"))?;
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            // Remove drafts that a killed process left.
            if entry.file_name().to_str().is_some_and(|name| name.contains(DRAFT)) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { folder: folder.to_owned(), begun: AtomicU64::new(0), _lock: lock })
    }

    fn file(&self, name: &str) -> PathBuf {
        file_of(&self.folder, name)
    }
}

fn file_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{}{EXTENSION}", utf8_percent_encode(name, PLAIN)))
}

/// Names of the states in `folder`, each with its snapshot. Needs no lock.
pub(crate) fn list(folder: &Path) -> io::Result<NamedSnapshots> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let file = entry?.file_name();
        let Some(name) = file.to_str().and_then(|file| file.strip_suffix(EXTENSION)) else { continue };
        let name = percent_decode_str(name).decode_utf8_lossy().into_owned();
        // A file that was replaced or removed since the folder was read is not in the list.
        if let Some(snapshot) = newest(folder, &name).transpose() {
            found.push((name, snapshot));
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}

fn newest(folder: &Path, name: &str) -> Result<Option<StoredSnapshot>, SnapshotError> {
    let path = file_of(folder, name);
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let unreadable = |why: &str| SnapshotError::Unreadable(format!("{} {why}", path.display()));
    let bytes = file.metadata()?.len();
    let before_footer = bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| unreadable("is not a snapshot"))?;
    file.seek(SeekFrom::Start(before_footer))?;
    let mut footer = [0; FOOTER_BYTES];
    file.read_exact(&mut footer)?;
    let (length, rest) = footer.split_at(4);
    let (checksum, magic) = rest.split_at(8);
    if magic != FOOTER_MAGIC {
        return Err(unreadable("is not a snapshot, or not complete"));
    }
    let length = number(length) as usize;
    let from = before_footer.checked_sub(length as u64).filter(|_| length <= MARKER_BYTES_MAX);
    let from = from.ok_or_else(|| unreadable("is damaged"))?;
    file.seek(SeekFrom::Start(from))?;
    let mut marker = vec![0; length];
    file.read_exact(&mut marker)?;
    if number(checksum) != xxh3_64(&marker) {
        return Err(unreadable("is damaged"));
    }
    let marker: Marker = serde_json::from_slice(&marker)
        .map_err(|error| unreadable(&format!("has a marker that this build cannot read: {error}")))?;
    file.rewind()?;
    Ok(Some(StoredSnapshot { marker, bytes, records: Box::new(Records(BufReader::new(file))) }))
}

/// A little-endian number.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Snapshots for StateDir {
    fn begin(&self, name: &str) -> io::Result<Box<dyn SnapshotWriter>> {
        let path = self.file(name);
        // A discarded snapshot removes its file, so each has its own.
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let begun = Draft { draft: path.with_extension(format!("state.new{number}")), path };
        let file = private().truncate(true).open(&begun.draft)?;
        let folder = self.folder.clone();
        in_background(move |incoming| write(file, incoming, &begun, &folder))
    }

    fn newest(&self, name: &str) -> Result<Option<StoredSnapshot>, SnapshotError> {
        newest(&self.folder, name)
    }
}

/// A file that becomes the snapshot. Dropped earlier, it is removed.
struct Draft {
    draft: PathBuf,
    path: PathBuf,
}

impl Draft {
    fn publish(&self) -> io::Result<()> {
        std::fs::rename(&self.draft, &self.path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = std::fs::remove_file(&self.draft);
    }
}

/// Writes what is received, until the marker. Returns the size of the file.
fn write(file: File, incoming: &Incoming, begun: &Draft, folder: &Path) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    loop {
        match incoming.next(LOOK_WAIT)? {
            Received::Nothing => {}
            Received::Record(record) => {
                let compressed = compressor.compress(&record)?;
                out.write_all(&(compressed.len() as u32).to_le_bytes())?;
                out.write_all(&compressed)?;
            }
            Received::End(marker) => {
                let marker = serde_json::to_vec(&marker)?;
                out.write_all(&0_u32.to_le_bytes())?;
                out.write_all(&marker)?;
                out.write_all(&(marker.len() as u32).to_le_bytes())?;
                out.write_all(&xxh3_64(&marker).to_le_bytes())?;
                out.write_all(&FOOTER_MAGIC)?;
                let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.sync_all()?;
                let bytes = file.metadata()?.len();
                begun.publish()?;
                File::open(folder)?.sync_all()?;
                return Ok(bytes);
            }
        }
    }
}

/// The records in a file.
struct Records(BufReader<File>);

impl SnapshotReader for Records {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 {
            return Ok(None);
        }
        if length > zstd::zstd_safe::compress_bound(RECORD_BYTES_MAX) {
            return Err(io::Error::new(ErrorKind::InvalidData, "a record is too long"));
        }
        let mut compressed = vec![0; length];
        self.0.read_exact(&mut compressed)?;
        let record = zstd::bulk::decompress(&compressed, RECORD_BYTES_MAX);
        record.map(Some).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn marker(number: i64) -> Marker {
        Marker { written_at: number, build: "1.2.3".to_owned(), ..Marker::default() }
    }

    fn write_snapshot(dir: &StateDir, name: &str, records: &[&[u8]], number: i64) -> u64 {
        let mut writer = dir.begin(name).expect("it begins");
        for record in records {
            writer.write(record.to_vec()).expect("it is written");
        }
        writer.finish(marker(number)).join().expect("no panic").expect("it is stored")
    }

    fn read_snapshot(dir: &StateDir, name: &str) -> (i64, Vec<Vec<u8>>) {
        let mut stored = dir.newest(name).expect("it is read").expect("there is one");
        let mut records = Vec::new();
        while let Some(record) = stored.records.next().expect("a record") {
            records.push(record);
        }
        (stored.marker.written_at, records)
    }

    #[test]
    fn newest_snapshot_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("state");
        let dir = StateDir::open(&folder).expect("it opens");
        assert!(dir.newest("events").expect("it is read").is_none());
        let large = vec![7; RECORD_BYTES_MAX];
        write_snapshot(&dir, "events", &[b"old"], 1);
        let bytes = write_snapshot(&dir, "events", &[b"one", &large, b""], 2);
        write_snapshot(&dir, "a/b 0", &[], 3);
        assert_eq!(read_snapshot(&dir, "events"), (2, vec![b"one".to_vec(), large, Vec::new()]));
        assert_eq!(read_snapshot(&dir, "a/b 0"), (3, Vec::new()));
        assert_eq!(std::fs::metadata(folder.join("events.state")).expect("a file").len(), bytes);
        let listed = list(&folder).expect("it is listed");
        let listed: Vec<_> =
            listed.into_iter().map(|(name, found)| (name, found.expect("a snapshot").marker)).collect();
        assert_eq!(listed, [("a/b 0".to_owned(), marker(3)), ("events".to_owned(), marker(2))]);
        let mode = |path: &Path| std::fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("events.state"))), (0o700, 0o600));
    }

    #[test]
    fn unfinished_snapshot_leaves_the_one_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = StateDir::open(folder.path()).expect("it opens");
        write_snapshot(&dir, "events", &[b"old"], 1);
        let mut writer = dir.begin("events").expect("it begins");
        writer.write(b"new".to_vec()).expect("it is written");
        assert_eq!(read_snapshot(&dir, "events"), (1, vec![b"old".to_vec()]));
        drop(writer);
        assert_eq!(read_snapshot(&dir, "events"), (1, vec![b"old".to_vec()]));
        drop(dir);
        // As after a crash.
        std::fs::write(folder.path().join("events.state.new7"), b"half").expect("a file");
        std::fs::write(folder.path().join("config.new"), b"half").expect("a file");
        let dir = StateDir::open(folder.path()).expect("it opens");
        assert!(!folder.path().join("events.state.new7").exists());
        assert!(folder.path().join("config.new").exists(), "a file of somebody else");
        write_snapshot(&dir, "events", &[b"new"], 2);
        assert_eq!(read_snapshot(&dir, "events"), (2, vec![b"new".to_vec()]));
    }

    #[test]
    fn damaged_file_is_refused_with_its_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = StateDir::open(folder.path()).expect("it opens");
        write_snapshot(&dir, "events", &[b"record"], 1);
        let path = folder.path().join("events.state");
        let whole = std::fs::read(&path).expect("the file");
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("a file");
            let Err(error) = dir.newest("events") else { panic!("it was read") };
            error.to_string().replace(&folder.path().display().to_string(), "DIR")
        };
        assert_eq!(refused(b""), "DIR/events.state is not a snapshot");
        assert_eq!(refused(&whole[..whole.len() - 1]), "DIR/events.state is not a snapshot, or not complete");
        let changed = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        };
        assert_eq!(refused(&changed(whole.len() - FOOTER_BYTES - 2)), "DIR/events.state is damaged");
        assert_eq!(refused(&changed(whole.len() - FOOTER_BYTES + 3)), "DIR/events.state is damaged");
        std::fs::write(&path, changed(2)).expect("a file");
        let mut stored = dir.newest("events").expect("the marker is read").expect("there is one");
        assert!(stored.records.next().is_err(), "the length of the record is wrong");
    }

    #[test]
    fn folder_is_locked_by_one_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let _dir = StateDir::open(folder.path()).expect("it opens");
        assert_eq!(StateDir::open(folder.path()).expect_err("it is locked").kind(), ErrorKind::WouldBlock);
    }
}
