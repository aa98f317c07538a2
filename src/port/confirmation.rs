//! The confirmation of a revocation by its provider.

use serde::{Deserialize, Serialize};

use super::radius::Radius;

/// When a provider confirmed a revocation, and what the revocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// Time of the answer that confirmed it, milliseconds since the epoch, wall clock.
    pub revoked_at: i64,
    /// Time at which a later read found the token inactive, milliseconds since the epoch, wall clock. `None` if the
    /// provider has no such read, or if the read did not show the state.
    #[serde(default)]
    pub verified_at: Option<i64>,
    /// `None`: the target and no more.
    #[serde(default)]
    pub radius: Option<Radius>,
}

impl Confirmation {
    /// A confirmation at `revoked_at`, which is not verified, for the target and no more.
    pub const fn at(revoked_at: i64) -> Self {
        Self { revoked_at, verified_at: None, radius: None }
    }
}
