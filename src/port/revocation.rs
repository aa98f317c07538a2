//! States of a revocation.

use serde::{Deserialize, Serialize};

use super::breaker::StoppedBy;
use super::limit::Reached;

/// State of a requested revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revocation {
    NotAsked,
    /// Shadow mode: the revocation would have been requested.
    Shadow,
    /// Alert mode: people decide.
    Proposed,
    /// No response yet, or a failure that is retried.
    Waiting(String),
    Done,
    AlreadyGone,
    /// Not requested, because a limit is reached. It is requested when the limit allows it.
    Capped(Reached),
    /// Not requested, because all actions are paused. It is requested after the pause.
    Paused,
    /// Not requested, because a breaker stopped it. It is requested when a person lifts the stop.
    Stopped(StoppedBy),
    /// Rejected by the provider, impossible, or given up.
    Failed(String),
}

impl Revocation {
    /// Whether the token does not work any more.
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self, Self::Done | Self::AlreadyGone)
    }

    /// Whether a revocation was requested, and the token still works.
    pub(crate) const fn is_not_done(&self) -> bool {
        matches!(self, Self::Waiting(_) | Self::Capped(_) | Self::Paused | Self::Stopped(_) | Self::Failed(_))
    }
}
