//! Failures of commands, and their exit statuses.

use std::io::Write as _;

use crate::config::ConfigError;
use crate::port::{SourceError, StoreError};
use crate::sanitize;
use crate::worker::WorkerError;

/// Why a command failed. Each kind has its own exit status, as in `sysexits.h`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The arguments are wrong or contradict each other. Exit status 2.
    #[error("{0}")]
    Usage(String),
    /// The input cannot be read or decoded as requested. Exit status 65.
    #[error("{0}")]
    Input(String),
    /// A required service is unavailable or refuses the request. Exit status 69.
    #[error("{0}")]
    Unavailable(String),
    /// The configuration, a rule file or another configured file is wrong. Exit status 78.
    #[error("{0}")]
    Configuration(String),
    /// The reader of the output closed it, as `head` does. This is no error: exit status 0.
    #[error("the output was closed")]
    Closed,
}

impl Failure {
    /// The process's exit status.
    pub const fn status(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Usage(_) => 2,
            Self::Input(_) => 65,
            Self::Unavailable(_) => 69,
            Self::Configuration(_) => 78,
        }
    }

    /// Writes the error to stderr.
    pub fn print(&self) {
        if !matches!(self, Self::Closed) {
            // If stderr is closed, the exit status remains.
            let _ = writeln!(std::io::stderr(), "tokenwarden: {}", sanitize::lines(&self.to_string()));
        }
    }

    /// Failure to write a result; `what` names the result or the file.
    pub(crate) fn output(what: &str, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Unavailable(format!("cannot write {what}: {error}")),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Configuration(error.to_string())
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        let text = error.to_string();
        match error {
            SourceError::Unusable(_) => Self::Input(text),
            SourceError::Misconfigured(_) => Self::Configuration(text),
            SourceError::Unavailable(_) => Self::Unavailable(text),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<WorkerError> for Failure {
    fn from(error: WorkerError) -> Self {
        match error {
            WorkerError::Source(error) => error.into(),
            other => Self::Unavailable(other.to_string()),
        }
    }
}
