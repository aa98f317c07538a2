//! The file of the outbox. Each line is a checksum and a record in JSON. An append returns after the lines are
//! synchronized to disk.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use xxhash_rust::xxh3::xxh3_128;

use super::record::Record;
use crate::kill_point::{Step, reach};
use crate::line::{lines, private, read, split, whole, write_new};

/// Contains the lines that could not be read. While it exists, `/readyz` reports the damage.
pub const DAMAGED_FILE: &str = "journal.damaged";

const FILE: &str = "journal.ndjson";
/// Maximum number of older damaged files that are kept.
const DAMAGED_COPIES_MAX: usize = 9;

/// Content of the file when it was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(crate) records: Vec<Record>,
    /// Number of lines that cannot be read.
    pub(crate) damaged: usize,
    /// Hash of the file's content.
    pub(crate) fingerprint: u128,
}

/// The open file, and the lock of its folder.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    file: File,
    bytes: u64,
    /// The file may contain bytes of a failed append after `bytes`.
    is_torn: bool,
    _lock: File,
}

impl Journal {
    /// Opens `folder`, which is created if missing, and reads the journal. An incomplete last line, which a crash may
    /// leave,
    /// is removed, because its append did not return. Other lines that cannot be read, or have a wrong checksum, are
    /// left
    /// out and kept in a copy of the file.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Opened)> {
        std::fs::create_dir_all(folder)?;
        let lock = private().open(folder.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            io::Error::new(io::ErrorKind::ResourceBusy, "another process has it; give each process its own outbox.dir")
        })?;
        let mut file = private().open(folder.join(FILE))?;
        let mut held = Vec::new();
        file.read_to_end(&mut held)?;
        let whole = whole(&held);
        let bytes = whole.len() as u64;
        if whole.len() < held.len() {
            tracing::warn!(
                bytes = held.len() - whole.len(),
                "the outbox ends with an incomplete record of an earlier crash, which is removed"
            );
            file.set_len(bytes)?;
        }
        let (mut records, mut damaged) = (Vec::new(), 0);
        for record in split(whole).map(read::<Record>) {
            match record {
                Some(record) => records.push(record),
                None => damaged += 1,
            }
        }
        if damaged > 0 {
            let copy = copy_of_damage(folder);
            std::fs::copy(folder.join(FILE), &copy)?;
            tracing::error!(records = damaged, copy = %copy.display(), "the outbox is damaged");
        }
        file.seek(SeekFrom::End(0))?;
        File::open(folder)?.sync_all()?;
        let journal = Self { folder: folder.to_owned(), file, bytes, is_torn: false, _lock: lock };
        Ok((journal, Opened { records, damaged, fingerprint: xxh3_128(&held) }))
    }

    /// Size in bytes.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes all of `records` to disk, or none.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let lines = lines(records)?;
        self.mend()?;
        self.is_torn = true;
        let written = self.file.write_all(&lines).and_then(|()| {
            reach(Step::InOutbox);
            self.file.sync_data()
        });
        if let Err(error) = written {
            // If this fails too, the next append repeats it.
            let _ = self.mend();
            return Err(error);
        }
        self.is_torn = false;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Removes the bytes of a failed append, so that they are not read after a restart.
    fn mend(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.bytes)?;
            self.file.seek(SeekFrom::Start(self.bytes))?;
            self.is_torn = false;
        }
        Ok(())
    }

    /// Replaces the whole content by `records`, atomically.
    pub(super) fn rewrite(&mut self, records: &[Record]) -> io::Result<()> {
        let draft = self.folder.join("journal.new");
        let lines = lines(records)?;
        let written = write_new(&draft, &lines).and_then(|file| {
            reach(Step::InRewrite);
            std::fs::rename(&draft, self.folder.join(FILE))?;
            Ok(file)
        });
        if written.is_err() {
            // A part of it would take space that the disk may not have.
            let _ = std::fs::remove_file(&draft);
        }
        // From here on, the old file has no name.
        self.file = written?;
        self.bytes = lines.len() as u64;
        self.is_torn = false;
        File::open(&self.folder)?.sync_all()
    }
}

/// Path for a copy of a damaged file. Copies of earlier damage are renamed.
fn copy_of_damage(folder: &Path) -> PathBuf {
    let earlier = (1..=DAMAGED_COPIES_MAX).map(|number| folder.join(format!("{DAMAGED_FILE}.{number}")));
    let last = folder.join(DAMAGED_FILE);
    if last.exists()
        && let Some(free) = earlier.into_iter().find(|path| !path.exists())
    {
        // The newest copy has the plain name. If the previous one cannot be renamed, it is replaced.
        let _ = std::fs::rename(&last, free);
    }
    last
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
    fn journal_drops_a_failed_append() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut journal, _) = Journal::open(folder.path()).expect("a journal");
        journal.append(&[known("a")]).expect("it is written");
        let writable = std::mem::replace(&mut journal.file, File::open(folder.path().join(FILE)).expect("a file"));
        journal.append(&[known("b")]).expect_err("it cannot be written");
        journal.append(&[known("b")]).expect_err("nor mended");
        journal.file = writable;
        // The state after a disk was full in the middle of a record.
        journal.file.write_all(b"{\"record\":\"known\",\"key\":\"lost\"}\n{\"rec").expect("it is written");
        journal.append(&[known("c")]).expect("it is written");
        drop(journal);
        let (_, opened) = Journal::open(folder.path()).expect("a journal");
        assert_eq!((keys(&opened.records), opened.damaged), (vec!["a", "c"], 0));
    }

    #[test]
    fn journal_drops_a_partial_record_and_keeps_damage() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut journal, opened) = Journal::open(folder.path()).expect("a journal");
        assert!(opened.records.is_empty());
        journal.append(&[known("a"), known("b"), known("c")]).expect("it is written");
        drop(journal);
        let file = folder.path().join(FILE);
        let text = std::fs::read_to_string(&file).expect("a file");
        let damaged = format!("{}0123456789abcdef {{\"record\":\"kno", text.replace("\"b\"", "\"B\""));
        std::fs::write(&file, damaged).expect("a file");
        let (mut journal, opened) = Journal::open(folder.path()).expect("a journal");
        assert_eq!((keys(&opened.records), opened.damaged), (vec!["a", "c"], 1), "it still reads as JSON");
        assert!(folder.path().join(DAMAGED_FILE).is_file());
        journal.append(&[known("d")]).expect("it is written");
        drop(journal);
        let (mut journal, opened) = Journal::open(folder.path()).expect("a journal");
        assert_eq!(keys(&opened.records), ["a", "c", "d"]);
        journal.rewrite(&[known("e")]).expect("it is rewritten");
        journal.append(&[known("f")]).expect("it is written");
        drop(journal);
        let (_, opened) = Journal::open(folder.path()).expect("a journal");
        assert_eq!((keys(&opened.records), opened.damaged), (vec!["e", "f"], 0));
    }

    #[test]
    fn damaged_files_are_all_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        for number in 0..3 {
            std::fs::write(folder.path().join(FILE), format!("damage {number}\n")).expect("a file");
            let (_, opened) = Journal::open(folder.path()).expect("a journal");
            assert_eq!(opened.damaged, 1);
        }
        let kept = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a copy");
        assert_eq!(kept("journal.damaged"), "damage 2\n");
        assert_eq!((kept("journal.damaged.1"), kept("journal.damaged.2")), ("damage 0\n".into(), "damage 1\n".into()));
    }

    #[test]
    fn journal_reads_lines_without_checksum() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(FILE), "{\"record\":\"known\",\"key\":\"old\"}\n").expect("a file");
        let (mut journal, opened) = Journal::open(folder.path()).expect("a journal");
        assert_eq!((keys(&opened.records), opened.damaged), (vec!["old"], 0));
        journal.append(&[known("new")]).expect("it is written");
        let text = std::fs::read_to_string(folder.path().join(FILE)).expect("a file");
        assert!(text.lines().nth(1).is_some_and(|line| !line.starts_with('{')), "{text}");
    }
}
