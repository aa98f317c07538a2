//! Spool: rows on disk, in order, that the store does not accept yet.
//!
//! The spool belongs to one run of the process. The offset of a message whose row is in the spool is not committed, so
//! that another process reads the message again. Files of an earlier process are therefore deleted, files are not
//! synchronized to disk, and the index of a file is only in memory.
//!
//! A file contains the rows of one seal: one zstd frame per partition. Its checksum is verified when it is read.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statvfs};
use xxhash_rust::xxh3::xxh3_64;

use super::part::{Lent, Ownership, Part};
use crate::checkpoint::Checkpoint;
use crate::line::private;
use crate::port::SavedRows;

/// Extension of the files.
const EXTENSION: &str = "rows";
/// Compresses rows to about 1/8. Higher levels are too slow for the event rate.
const ZSTD_LEVEL: i32 = 1;
/// Bytes that the spool leaves free on its disk, which may also be the disk of the outbox.
const FREE_BYTES_MIN: u64 = 256 << 20;

/// Settings of the spool.
#[derive(Clone, Debug)]
pub(crate) struct SpoolSettings {
    /// Created if missing. One process at a time uses it.
    pub(crate) dir: PathBuf,
    /// Maximum size of all files together, bytes.
    pub(crate) bytes_max: u64,
}

/// Why the spool did not accept rows.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("the spool contains {bytes} of {bytes_max} bytes")]
    Full { bytes: u64, bytes_max: u64 },
    #[error("{0}")]
    Disk(#[from] io::Error),
}

/// A file of the spool does not have the content that was written.
#[derive(Debug, thiserror::Error)]
#[error("the spool file {} is damaged: {reason}", .file.display())]
pub struct Damaged {
    file: PathBuf,
    reason: String,
}

/// The spool, see the module documentation.
#[derive(Debug)]
pub(super) struct Spool {
    settings: SpoolSettings,
    /// Lock of the folder.
    lock: Option<File>,
    files: VecDeque<Spooled>,
    next_number: u64,
    bytes: u64,
    rows: usize,
}

/// One file.
#[derive(Debug)]
struct Spooled {
    number: u64,
    bytes: u64,
    /// Time of its first message, milliseconds since the epoch, wall clock.
    taken_at: i64,
    sections: Vec<Section>,
}

/// Rows of one partition in a file.
#[derive(Debug)]
struct Section {
    owner: Ownership,
    checkpoint: Checkpoint,
    rows: usize,
    offset: u64,
    bytes: usize,
    /// Size before compression.
    saved_bytes: usize,
    checksum: u64,
}

impl Spool {
    /// A spool in `settings.dir`. If the folder cannot be used now, it is tried again when rows are spooled.
    pub(super) fn open(settings: SpoolSettings) -> Self {
        let mut spool = Self { settings, lock: None, files: VecDeque::new(), next_number: 0, bytes: 0, rows: 0 };
        if let Err(error) = spool.take_folder() {
            tracing::error!(dir = %spool.settings.dir.display(), %error, "the spool folder cannot be used");
        }
        spool
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Size of all files on disk, bytes.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) const fn bytes_max(&self) -> u64 {
        self.settings.bytes_max
    }

    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    /// Time of the oldest message in the spool, milliseconds since the epoch, wall clock.
    pub(super) fn taken_at(&self) -> Option<i64> {
        self.files.front().map(|file| file.taken_at)
    }

    /// Adds all of `parts` at the end, or none.
    pub(super) fn push<'a, R: SavedRows + 'a>(
        &mut self,
        parts: impl Iterator<Item = Lent<'a, R>>,
        taken_at: i64,
    ) -> Result<(), Refused> {
        let full = Refused::Full { bytes: self.bytes, bytes_max: self.settings.bytes_max };
        if self.bytes >= self.settings.bytes_max {
            return Err(full);
        }
        self.take_folder()?;
        let (mut sections, mut frames, mut saved) = (Vec::new(), Vec::new(), Vec::new());
        for Lent { owner, checkpoint, rows } in parts {
            saved.clear();
            rows.save(&mut saved);
            let frame = zstd::bulk::compress(&saved, ZSTD_LEVEL)?;
            sections.push(Section {
                owner,
                checkpoint: checkpoint.clone(),
                rows: rows.len(),
                offset: frames.len() as u64,
                bytes: frame.len(),
                saved_bytes: saved.len(),
                checksum: xxh3_64(&frame),
            });
            frames.extend_from_slice(&frame);
        }
        let bytes = frames.len() as u64;
        if self.bytes + bytes > self.settings.bytes_max {
            return Err(full);
        }
        let disk = statvfs(&self.settings.dir).map_err(io::Error::from)?;
        if disk.f_bavail * disk.f_frsize < bytes + FREE_BYTES_MIN {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        let number = self.next_number;
        let path = self.path(number);
        if let Err(error) = write(&path, &frames) {
            // An incomplete file cannot be read.
            let _ = fs::remove_file(path);
            return Err(error.into());
        }
        self.next_number += 1;
        self.bytes += bytes;
        self.rows += sections.iter().map(|section| section.rows).sum::<usize>();
        self.files.push_back(Spooled { number, bytes, taken_at, sections });
        Ok(())
    }

    /// The oldest rows. They remain in the spool until [`Self::pop`].
    pub(super) fn front<R: SavedRows>(&self, new_rows: impl Fn() -> R) -> Result<Option<Vec<Part<R>>>, Damaged> {
        let Some(file) = self.files.front() else { return Ok(None) };
        let path = self.path(file.number);
        let damaged = |reason: String| Damaged { file: path.clone(), reason };
        let mut from = File::open(&path).map_err(|error| damaged(error.to_string()))?;
        let mut parts = Vec::with_capacity(file.sections.len());
        for section in &file.sections {
            let mut frame = vec![0; section.bytes];
            from.seek(SeekFrom::Start(section.offset)).map_err(|error| damaged(error.to_string()))?;
            from.read_exact(&mut frame).map_err(|error| damaged(error.to_string()))?;
            if xxh3_64(&frame) != section.checksum {
                return Err(damaged("wrong checksum".to_owned()));
            }
            let saved = zstd::bulk::decompress(&frame, section.saved_bytes).map_err(|e| damaged(e.to_string()))?;
            let mut rows = new_rows();
            rows.load(&saved).ok_or_else(|| damaged("not rows".to_owned()))?;
            parts.push(Part { owner: section.owner, checkpoint: section.checkpoint.clone(), rows });
        }
        Ok(Some(parts))
    }

    /// Deletes the oldest rows, which the store has.
    pub(super) fn pop(&mut self) {
        if let Some(file) = self.files.pop_front() {
            self.rows -= file.sections.iter().map(|section| section.rows).sum::<usize>();
            self.delete(&file);
        }
    }

    /// Deletes rows of partitions that another member owns now.
    pub(super) fn retain(&mut self, is_owned: impl Fn(Ownership) -> bool) {
        for mut file in std::mem::take(&mut self.files) {
            let gone = file.sections.extract_if(.., |section| !is_owned(section.owner));
            self.rows -= gone.map(|section| section.rows).sum::<usize>();
            if file.sections.is_empty() {
                self.delete(&file);
            } else {
                self.files.push_back(file);
            }
        }
    }

    fn delete(&mut self, file: &Spooled) {
        self.bytes -= file.bytes;
        if let Err(error) = fs::remove_file(self.path(file.number)) {
            tracing::warn!(%error, "a spool file cannot be deleted");
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.settings.dir.join(format!("{number:012}.{EXTENSION}"))
    }

    /// Creates and locks the folder and deletes the files of an earlier process. Has no effect if the lock is held.
    fn take_folder(&mut self) -> io::Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        let dir = &self.settings.dir;
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let lock = private().open(dir.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            let reason = "another process uses it; set another store.spool_dir for each process";
            io::Error::new(io::ErrorKind::ResourceBusy, reason)
        })?;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                fs::remove_file(path)?;
            }
        }
        self.lock = Some(lock);
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        while !self.is_empty() {
            self.pop();
        }
    }
}

/// Only the owner may read the file, because rows contain personal data.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::EpochRows;

    /// Operation on a spool.
    #[derive(Clone, Debug)]
    enum Step {
        /// Partitions, with the number of rows of each.
        Push(Vec<(u64, usize)>),
        Pop,
        Gone(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => prop::collection::vec((0..4_u64, 0..5_usize), 1..4).prop_map(Step::Push),
            2 => Just(Step::Pop),
            1 => (0..4_u64).prop_map(Step::Gone),
        ]
    }

    fn rows(count: usize, mark: u64) -> EpochRows {
        let mut rows = EpochRows::new();
        for number in 0..count {
            let position = crate::checkpoint::Position::new("t", 0, number as i64);
            let reason = format!("{mark}");
            let letter =
                crate::checkpoint::DeadLetter { position, received_at: 0, reason, at: None, payload: b"x".to_vec() };
            crate::port::Rows::push_dead_letter(&mut rows, &letter);
        }
        rows
    }

    /// The bytes of the rows.
    fn saved(rows: &EpochRows) -> Vec<u8> {
        let mut bytes = Vec::new();
        rows.save(&mut bytes);
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn spool_returns_owned_rows_in_order(steps in prop::collection::vec(step(), 1..40)) {
            let folder = tempfile::tempdir().expect("a folder");
            let settings = SpoolSettings { dir: folder.path().join("spool"), bytes_max: 1 << 30 };
            let mut spool = Spool::open(settings);
            let mut model: VecDeque<Vec<(Ownership, Vec<u8>)>> = VecDeque::new();
            for (mark, step) in (0..).zip(steps) {
                match step {
                    Step::Push(parts) => {
                        let parts: Vec<_> = parts.iter().map(|(owner, count)| (Ownership(*owner), rows(*count, mark))).collect();
                        let checkpoint = Checkpoint::default();
                        let lent = parts.iter().map(|(owner, rows)| Lent { owner: *owner, checkpoint: &checkpoint, rows });
                        spool.push(lent, mark as i64).expect("there is room");
                        model.push_back(parts.iter().map(|(owner, rows)| (*owner, saved(rows))).collect());
                    }
                    Step::Pop => {
                        spool.pop();
                        model.pop_front();
                    }
                    Step::Gone(gone) => {
                        spool.retain(|owner| owner != Ownership(gone));
                        for parts in &mut model {
                            parts.retain(|(owner, _)| *owner != Ownership(gone));
                        }
                        model.retain(|parts| !parts.is_empty());
                    }
                }
                let front = spool.front(EpochRows::new).expect("the file can be read");
                let front = front.map(|parts| parts.iter().map(|part| (part.owner, saved(&part.rows))).collect::<Vec<_>>());
                prop_assert_eq!(front.as_ref(), model.front());
                let files = fs::read_dir(folder.path().join("spool")).expect("a folder").flatten();
                let sizes = files.filter(|file| file.file_name() != "lock").map(|file| file.metadata().expect("a size").len());
                prop_assert_eq!(spool.bytes(), sizes.sum::<u64>());
                prop_assert_eq!(spool.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn push_is_all_or_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("spool");
        let mut spool = Spool::open(SpoolSettings { dir: dir.clone(), bytes_max: 10 });
        let (checkpoint, rows) = (Checkpoint::default(), rows(50, 7));
        let lent = Lent { owner: Ownership(1), checkpoint: &checkpoint, rows: &rows };
        assert!(matches!(spool.push([lent].into_iter(), 0), Err(Refused::Full { bytes: 0, bytes_max: 10 })));
        assert!(spool.is_empty() && spool.rows() == 0 && fs::read_dir(dir).expect("a folder").count() == 1);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(folder.path().join("spool")).expect("a folder").permissions(),
        );
        assert_eq!(mode & 0o777, 0o700, "rows contain personal data");
    }
}
