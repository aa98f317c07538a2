//! A log in a file of the outbox folder, for a source that is a file: the denylist in `denylist.ndjson`, and the silences
//! in `silences.ndjson`. Each line is a checksum and a record in JSON. Several processes may append to it: the service, and
//! commands.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::{FlockOperation, flock};

use crate::line::{self, lines, private, split, whole, write_new};
use crate::port::{LogRecord, RecordLog, RecordObserver};

/// Interval in which lines of other processes are noticed.
const LOOK_WAIT: Duration = Duration::from_millis(500);

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct RecordFile<R> {
    folder: PathBuf,
    records: PhantomData<fn() -> R>,
}

impl<R: LogRecord> RecordFile<R> {
    /// Uses the file in `folder`, which is created if it does not exist.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { folder: folder.to_owned(), records: PhantomData })
    }

    /// Creates the file, or removes replaced and old records. `now`: milliseconds since the epoch.
    ///
    /// The service calls it at its start, so that the file belongs to its user, not to that of a command.
    pub(crate) fn compact(&self, now: i64) -> io::Result<()> {
        let _lock = self.lock()?;
        let mut text = Vec::new();
        match File::open(self.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            file => file?.read_to_end(&mut text)?,
        };
        // The keys in their order of text, so that the result depends on the records only.
        let mut last = BTreeMap::new();
        for record in split(&text).filter_map(read::<R>) {
            last.insert(serde_json::to_vec(record.key())?, record);
        }
        let kept: Vec<_> = last.into_values().filter(|record| record.is_kept(now)).collect();
        let draft = self.folder.join(format!("{}.new", R::NAME));
        let written = write_new(&draft, &lines(&kept)?).and_then(|_| std::fs::rename(&draft, self.path()));
        if written.is_err() {
            // A part of it would take space that the disk may not have.
            let _ = std::fs::remove_file(&draft);
        }
        written?;
        File::open(&self.folder)?.sync_all()
    }

    /// Whether the file exists.
    pub(crate) fn exists(&self) -> bool {
        self.path().is_file()
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.ndjson", R::NAME))
    }

    /// A lock against writers in other processes.
    fn lock(&self) -> io::Result<File> {
        let lock = private().open(self.folder.join(format!("{}.lock", R::NAME)))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        Ok(lock)
    }

    fn write(&self, record: &R) -> io::Result<()> {
        let mut line = lines(std::slice::from_ref(record))?;
        let _lock = self.lock()?;
        let mut file = private().append(true).open(self.path())?;
        let bytes = file.metadata()?.len();
        // A crash may have left a line without its end.
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(-1)).is_ok() {
            file.read_exact(&mut last)?;
        }
        if last != *b"\n" {
            line.insert(0, b'\n');
        }
        let written = file.write_all(&line).and_then(|()| file.sync_all());
        if written.is_err() {
            // The command reports that the record has no effect. If this fails, its line has none either, unless it is whole.
            let _ = file.set_len(bytes);
        }
        written
    }
}

/// The record in a line. `None`, with a message in the log, if it is damaged.
fn read<R: LogRecord>(line: &[u8]) -> Option<R> {
    let record = line::read(line);
    if record.is_none() {
        tracing::error!(file = R::NAME, bytes = line.len(), "a line cannot be read and has no effect");
    }
    record
}

#[async_trait]
impl<R: LogRecord> RecordLog<R> for RecordFile<R> {
    async fn append(&self, record: R) -> Result<(), String> {
        let log = self.clone();
        let written = tokio::task::spawn_blocking(move || log.write(&record)).await;
        written.map_err(|error| error.to_string())?.map_err(|error| format!("{}: {error}", self.path().display()))
    }

    /// A file keeps its records until [`Self::compact`].
    async fn remove(&self, _key: &R::Key) -> Result<(), String> {
        Ok(())
    }

    fn follow(&self, observer: Arc<dyn RecordObserver<R>>) {
        let (path, observer) = (self.path(), Arc::downgrade(&observer));
        std::thread::spawn(move || follow(&path, &observer));
    }
}

/// Reads the file and what is appended to it while `observer` exists.
fn follow<R: LogRecord>(path: &Path, observer: &Weak<dyn RecordObserver<R>>) {
    let mut reader = Reader::default();
    while let Some(observer) = observer.upgrade() {
        match reader.read(path, &*observer) {
            Ok(()) => {
                observer.read_succeeded();
                observer.all_read();
            }
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "the file cannot be read");
                observer.read_failed();
            }
        }
        drop(observer);
        std::thread::sleep(LOOK_WAIT);
    }
}

/// Position in the file.
#[derive(Default)]
struct Reader {
    /// Number of the file in its file system: another one after [`RecordFile::compact`].
    inode: u64,
    /// End of the last whole line, bytes.
    offset: u64,
}

impl Reader {
    /// Passes the whole lines after the position.
    fn read<R: LogRecord>(&mut self, path: &Path, observer: &dyn RecordObserver<R>) -> io::Result<()> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        let about = file.metadata()?;
        if about.ino() != self.inode || about.len() < self.offset {
            (self.inode, self.offset) = (about.ino(), 0);
        }
        if about.len() == self.offset {
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let whole = whole(&text);
        for record in split(whole).filter_map(read::<R>) {
            observer.record(record);
        }
        self.offset += whole.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::lock::unpoisoned;
    use crate::millis::DAY_MS;
    use crate::port::{Denial, DeniedKey, DenylistRecord};
    use crate::verdict::Target;

    type FileLog = RecordFile<DenylistRecord>;

    #[derive(Default)]
    struct Seen(Mutex<Vec<DenylistRecord>>);

    impl RecordObserver<DenylistRecord> for Seen {
        fn record(&self, record: DenylistRecord) {
            unpoisoned(&self.0).push(record);
        }

        fn all_read(&self) {}

        fn read_failed(&self) {}

        fn read_succeeded(&self) {}
    }

    fn token(id: &str, until: i64) -> DenylistRecord {
        let key = DeniedKey { tenant_id: "acme".to_owned(), target: Target::Token(id.to_owned()) };
        DenylistRecord { key, denial: Denial::Denied { at: 0, until } }
    }

    fn seen(log: &FileLog, reader: &mut Reader) -> Vec<DenylistRecord> {
        let seen = Seen::default();
        reader.read(&log.path(), &seen).expect("the file is readable");
        seen.0.into_inner().expect("no panic")
    }

    #[test]
    fn follower_reads_each_line_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = FileLog::open(folder.path()).expect("a log");
        let mut reader = Reader::default();
        assert_eq!(seen(&log, &mut reader), []);
        log.write(&token("a\n\u{202e}\"", 10)).expect("it is written");
        assert_eq!(seen(&log, &mut reader), [token("a\n\u{202e}\"", 10)]);
        assert_eq!(seen(&log, &mut reader), []);
        log.write(&token("b", 10)).expect("it is written");
        log.write(&token("c", 10)).expect("it is written");
        assert_eq!(seen(&log, &mut reader), [token("b", 10), token("c", 10)]);
    }

    #[test]
    fn torn_line_costs_no_other_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = FileLog::open(folder.path()).expect("a log");
        log.write(&token("a", 10)).expect("it is written");
        let mut file = private().append(true).open(log.path()).expect("a file");
        file.write_all(b"{\"tenant_id\":\"ac").expect("it is written");
        let mut reader = Reader::default();
        assert_eq!(seen(&log, &mut reader), [token("a", 10)]);
        log.write(&token("b", 10)).expect("it is written");
        assert_eq!(seen(&log, &mut reader), [token("b", 10)]);
    }

    #[test]
    fn damaged_line_has_no_effect() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = FileLog::open(folder.path()).expect("a log");
        for id in ["a", "b"] {
            log.write(&token(id, 10)).expect("it is written");
        }
        let text = std::fs::read_to_string(log.path()).expect("a file");
        // The line is still JSON of another token.
        std::fs::write(log.path(), text.replace("\"a\"", "\"c\"")).expect("it is written");
        assert_eq!(seen(&log, &mut Reader::default()), [token("b", 10)]);
        // A line of an earlier version has no checksum.
        let old = serde_json::to_string(&token("old", 10)).expect("JSON");
        std::fs::write(log.path(), format!("{old}\n")).expect("it is written");
        log.write(&token("new", 10)).expect("it is written");
        assert_eq!(seen(&log, &mut Reader::default()), [token("old", 10), token("new", 10)]);
    }

    #[test]
    fn compaction_keeps_what_is_denied() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = FileLog::open(folder.path()).expect("a log");
        log.compact(0).expect("there is no file");
        assert!(log.path().is_file(), "commands of other users must not create it");
        let denial = Denial::Lifted { at: 1, by: "ana".to_owned(), reason: "a false alarm".to_owned() };
        let lifted = DenylistRecord { denial, ..token("lifted", 0) };
        for record in [token("a", 10), token("lifted", 90), token("expired", 20), token("a", 90), lifted.clone()] {
            log.write(&record).expect("it is written");
        }
        let mut reader = Reader::default();
        assert_eq!(seen(&log, &mut reader).len(), 5);
        log.compact(20).expect("it is compacted");
        assert_eq!(seen(&log, &mut reader), [token("a", 90), lifted], "the follower reads the new file");
        log.compact(1 + 400 * DAY_MS).expect("it is compacted");
        assert_eq!(seen(&log, &mut reader), []);
        log.write(&token("b", 90)).expect("it is written");
        assert_eq!(seen(&log, &mut reader), [token("b", 90)]);
    }
}
