//! Limits of a worker.

/// Limits of epochs, and the patience with the store.
#[derive(Clone, Debug)]
pub struct Limits {
    pub epoch_messages_max: u64,
    pub epoch_bytes_max: usize,
    /// `None`: epochs end by count and size only, so that the same input gives the same inserts.
    pub epoch_age_ms_max: Option<i64>,
    /// Time for which a write to the store or the outbox is retried. `None`: without limit.
    pub wait_ms_max: Option<i64>,
}

impl Limits {
    /// For the service.
    pub(crate) const LIVE: Self = Self {
        epoch_messages_max: 50_000,
        epoch_bytes_max: 32 << 20,
        epoch_age_ms_max: Some(1_000),
        wait_ms_max: None,
    };
    /// For the replay of past events.
    pub const REPLAY: Self =
        Self { epoch_bytes_max: 64 << 20, epoch_age_ms_max: None, wait_ms_max: Some(30_000), ..Self::LIVE };
}
