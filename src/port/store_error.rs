//! Errors of the store.

/// Why the store did not accept rows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A retry with the same rows may succeed: the store is down or overloaded, or its response was lost.
    #[error("the store is unavailable: {0}")]
    Retriable(String),
    /// No retry succeeds: wrong credentials, a missing table, a rejected type.
    #[error("the store rejected the request: {0}")]
    Permanent(String),
}
