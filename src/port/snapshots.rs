//! Storage of snapshots of the state.

use std::io::{self, ErrorKind};
use std::ops::RangeInclusive;
use std::thread::JoinHandle;

use crate::checkpoint::Position;
use crate::snapshot::Marker;

/// Storage of snapshots. Each state has a name. Only the newest complete snapshot of a state is kept.
pub trait Snapshots: Send + Sync {
    /// Begins a snapshot of the state `name`. Until it is finished, [`Self::newest`] returns the one before it.
    fn begin(&self, name: &str) -> io::Result<Box<dyn SnapshotWriter>>;
    /// The newest complete snapshot of the state `name`. `None`: there is none.
    fn newest(&self, name: &str) -> Result<Option<StoredSnapshot>, SnapshotError>;
}

/// A snapshot that is being written. If it is dropped, it is discarded.
pub trait SnapshotWriter: Send {
    /// Takes the next record. Waits if the storage is slower than the caller.
    fn write(&mut self, record: Vec<u8>) -> io::Result<()>;
    /// Completes the snapshot on a thread. The result is its size in the storage, bytes.
    fn finish(self: Box<Self>, marker: Marker) -> JoinHandle<io::Result<u64>>;
}

/// A complete snapshot.
pub struct StoredSnapshot {
    pub marker: Marker,
    /// Size in the storage, bytes.
    pub bytes: u64,
    pub records: Box<dyn SnapshotReader>,
}

/// The newest snapshots by name, or why one of them cannot be read.
pub(crate) type NamedSnapshots = Vec<(String, Result<StoredSnapshot, SnapshotError>)>;

/// The records of a snapshot in order.
pub trait SnapshotReader {
    /// `None` at the end. An error for which [`is_damage`] is false may pass.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>>;
}

/// Whether stored bytes are wrong, so that reading them again does not help.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
}

/// Restores states when a source starts to read partitions. A source calls it on threads that may wait, for several
/// partitions at once.
pub trait StateRestorer: Send + Sync {
    /// Restores the newest snapshot of the partition of `position`, if it ends in the range `usable`. The state is kept
    /// under `ticket`. A later request for the same partition has a higher ticket and replaces it.
    fn restore(&self, position: &Position, usable: RangeInclusive<i64>, ticket: u64) -> Restoration;
    /// Discards what [`Self::restore`] keeps under `ticket` or a lower one and no message has reached.
    fn discard(&self, topic: &str, partition: i32, ticket: u64);
}

/// Result of [`StateRestorer::restore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restoration {
    /// The state is restored. It continues with the message at this offset.
    Continue(i64),
    /// There is no snapshot, or it cannot be used.
    Nothing,
    /// The storage does not answer. There may be a snapshot, so the caller must try again.
    Unavailable,
}

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The storage does not answer, or refuses access.
    #[error("{0}")]
    Storage(#[from] io::Error),
    /// The marker is missing or damaged. The reason names the file.
    #[error("{0}")]
    Unreadable(String),
}
