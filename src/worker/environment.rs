//! The services and limits of a worker.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::limits::Limits;
use crate::port::{Clock, Outbox};
use crate::rule::RuleSet;
use crate::telemetry::{Health, Metrics};

/// The services and limits that a worker uses.
pub struct Environment<S> {
    pub store: Arc<S>,
    /// `None`: no alert is sent and no token is revoked.
    pub outbox: Option<Arc<dyn Outbox>>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub runtime: Handle,
    pub limits: Limits,
    /// `None`: rules and GeoIP files are not reloaded.
    pub reload: Option<Reload>,
}

/// Sources of newer rules and GeoIP files, which are loaded between two polls.
pub struct Reload {
    pub(crate) rules: watch::Receiver<Arc<RuleSet>>,
    /// If set, the GeoIP files are checked at once, in addition to the regular checks.
    pub(crate) look_at_files: Arc<AtomicBool>,
}
