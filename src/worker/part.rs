//! Rows of one partition: sealed, or lent to the spool.

use crate::checkpoint::Checkpoint;

/// Number of a partition's assignment to this worker. A partition that is revoked and assigned again gets a new number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ownership(pub(super) u64);

/// Sealed rows of one partition, and the offset after their messages.
#[derive(Debug)]
pub(super) struct Part<R> {
    pub(crate) owner: Ownership,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) rows: R,
}

/// Rows of one partition to spool.
pub(super) struct Lent<'a, R> {
    pub(crate) owner: Ownership,
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) rows: &'a R,
}
