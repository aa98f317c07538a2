//! Storage of snapshots of the state.

use std::io;
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

/// The records of a snapshot in order.
pub trait SnapshotReader {
    /// `None` at the end.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>>;
}

/// Restores states when a source starts to read partitions. A source calls it on a thread that may wait.
pub trait Recall: Send + Sync {
    /// Restores the newest snapshot of a partition. Returns the offset at which the partition must be read to continue;
    /// `None` if there is no usable snapshot.
    fn load(&self, partition: &Position) -> Option<i64>;
    /// Discards a restored state, because the partition is read from another offset.
    fn forget(&self, topic: &str, partition: i32);
}

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{0}")]
    Storage(#[from] io::Error),
    /// The marker is missing or damaged. The reason names the file.
    #[error("{0}")]
    Unreadable(String),
}
