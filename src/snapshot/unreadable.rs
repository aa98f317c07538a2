//! Why a snapshot cannot be read.

/// Why records cannot be read as a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    #[error("record {record} is not part of a snapshot")]
    Foreign { record: u32 },
    #[error("the snapshot has format {found}, and this build reads format {expected}")]
    Format { found: u32, expected: u32 },
    #[error("record {record} is damaged")]
    Damaged { record: u32 },
    #[error("the snapshot ends after record {records} of {expected}")]
    Truncated { records: u32, expected: u32 },
    #[error("the snapshot has the states of {found} partitions, not of {expected}")]
    States { found: usize, expected: usize },
    #[error("the content ends before the state is complete, or after it")]
    Length,
    #[error("the content of record {record} is not a state of this build")]
    Content { record: u32 },
}

/// Whether a build that reads the format `expected` can read a snapshot.
pub(super) fn check_format(found: u32, expected: u32) -> Result<(), Unreadable> {
    if found == expected { Ok(()) } else { Err(Unreadable::Format { found, expected }) }
}
