//! The outbox's file: one JSON record a line, appended and synchronised to the disk before anything counts as taken.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::state::Record;

const FILE: &str = "journal.ndjson";

/// The open file, and the lock on its folder.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    file: File,
    bytes: u64,
    /// The file may go on beyond `bytes` with what no one was promised.
    is_torn: bool,
    _lock: File,
}

impl Journal {
    /// Takes hold of `folder`, which is made where it is missing, and reads what is there. A last line that a crash
    /// has cut short was never promised to anybody and goes; any other line that cannot be read is left out, told, and
    /// kept in a copy.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Vec<Record>)> {
        std::fs::create_dir_all(folder)?;
        let lock = private().open(folder.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            io::Error::new(io::ErrorKind::ResourceBusy, "another process has it; give each process its own outbox.dir")
        })?;
        let mut file = private().open(folder.join(FILE))?;
        let mut held = Vec::new();
        file.read_to_end(&mut held)?;
        let whole = held.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < held.len() {
            tracing::warn!(bytes = held.len() - whole, "the outbox ends with half a record, which was never taken");
            file.set_len(whole as u64)?;
        }
        let mut records = Vec::new();
        let mut unreadable = 0;
        for line in held[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(record) => records.push(record),
                Err(_) => unreadable += 1,
            }
        }
        if unreadable > 0 {
            let copy = folder.join("journal.damaged");
            std::fs::copy(folder.join(FILE), &copy)?;
            tracing::error!(records = unreadable, copy = %copy.display(), "the outbox is damaged; what can be read goes on");
        }
        file.seek(SeekFrom::End(0))?;
        File::open(folder)?.sync_all()?;
        Ok((Self { folder: folder.to_owned(), file, bytes: whole as u64, is_torn: false, _lock: lock }, records))
    }

    /// Size, bytes.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All of `records` are on the disk, or none.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let lines = lines(records)?;
        self.mend()?;
        self.is_torn = true;
        let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Where that fails too, the next append does it first.
            let _ = self.mend();
            return Err(error);
        }
        self.is_torn = false;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// What was written of a failed append must not be found by the next reader.
    fn mend(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.bytes)?;
            self.file.seek(SeekFrom::Start(self.bytes))?;
            self.is_torn = false;
        }
        Ok(())
    }

    /// Puts `records` in the place of all that is there, in one step.
    pub(super) fn rewrite(&mut self, records: &[Record]) -> io::Result<()> {
        let draft = self.folder.join("journal.new");
        let lines = lines(records)?;
        let mut file = private().truncate(true).open(&draft)?;
        file.write_all(&lines)?;
        file.sync_all()?;
        std::fs::rename(&draft, self.folder.join(FILE))?;
        File::open(&self.folder)?.sync_all()?;
        self.file = file;
        self.bytes = lines.len() as u64;
        self.is_torn = false;
        Ok(())
    }
}

/// Files that only their owner may read: they name people and tokens.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

fn lines(records: &[Record]) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, record)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(key: &str) -> Record {
        Record::Known { key: key.to_owned() }
    }

    fn keys(records: &[Record]) -> Vec<&str> {
        records.iter().map(|record| if let Record::Known { key } = record { key.as_str() } else { "" }).collect()
    }

    #[test]
    fn what_the_disk_did_not_take_leaves_no_trace() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut journal, _) = Journal::open(folder.path()).expect("a journal");
        journal.append(&[known("a")]).expect("it is written");
        let writable = std::mem::replace(&mut journal.file, File::open(folder.path().join(FILE)).expect("a file"));
        journal.append(&[known("b")]).expect_err("it cannot be written");
        journal.append(&[known("b")]).expect_err("nor mended");
        journal.file = writable;
        // As a disk leaves it that was full in the middle of a record.
        journal.file.write_all(b"{\"record\":\"known\",\"key\":\"lost\"}\n{\"rec").expect("it is written");
        journal.append(&[known("c")]).expect("it is written");
        drop(journal);
        let (_, records) = Journal::open(folder.path()).expect("a journal");
        assert_eq!(keys(&records), ["a", "c"]);
    }

    #[test]
    fn half_a_record_goes_and_a_damaged_one_is_kept_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut journal, records) = Journal::open(folder.path()).expect("a journal");
        assert!(records.is_empty());
        journal.append(&[known("a"), known("b"), known("c")]).expect("it is written");
        drop(journal);
        let file = folder.path().join(FILE);
        let text = std::fs::read_to_string(&file).expect("a file");
        let damaged = format!("{}{{\"record\":\"kno", text.replace("{\"record\":\"known\",\"key\":\"b\"}", "\0\0\0"));
        std::fs::write(&file, damaged).expect("a file");
        let (mut journal, records) = Journal::open(folder.path()).expect("a journal");
        assert_eq!(keys(&records), ["a", "c"]);
        assert!(folder.path().join("journal.damaged").is_file());
        journal.append(&[known("d")]).expect("it is written");
        drop(journal);
        let (mut journal, records) = Journal::open(folder.path()).expect("a journal");
        assert_eq!(keys(&records), ["a", "c", "d"]);
        journal.rewrite(&[known("e")]).expect("it is rewritten");
        journal.append(&[known("f")]).expect("it is written");
        drop(journal);
        let (_, records) = Journal::open(folder.path()).expect("a journal");
        assert_eq!(keys(&records), ["e", "f"]);
    }
}
