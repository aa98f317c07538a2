//! Why a worker ends early.

use super::spool::Damaged;
use crate::port::{SourceError, StoreError};

/// Why a worker ended before the end of its source or a stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the outbox does not accept incidents, or cannot be written to disk: {0}")]
    Outbox(std::io::Error),
    #[error("the snapshot of the state cannot be read: {0}")]
    Snapshot(String),
    /// The messages of the damaged rows are read again after a restart.
    #[error(transparent)]
    Spool(#[from] Damaged),
    /// The observer cannot write results.
    #[error("{0}")]
    Output(std::io::Error),
    #[error("internal error: {0}")]
    Broken(String),
}
