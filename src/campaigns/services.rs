//! The services and settings of the lane.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::port::{Clock, Outbox, Source, SourceError};
use crate::rule::RuleSet;
use crate::telemetry::{Health, Metrics};
use crate::verdict::Mode;

/// Opens the topic and joins its group.
pub(crate) type OpenSource = dyn Fn() -> Result<Box<dyn Source>, SourceError> + Send;

/// The services that the lane uses.
pub(crate) struct Lane<S> {
    pub(crate) open: Box<OpenSource>,
    /// Recognises the key of the names in sightings.
    pub(crate) key: u64,
    /// Upper limit of the mode of every rule.
    pub(crate) mode: Mode,
    /// As for [`Stage::new`](crate::campaign::Stage::new).
    pub(crate) budget: (u32, u32),
    pub(crate) rules: watch::Receiver<Arc<RuleSet>>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) store: Arc<S>,
    pub(crate) runtime: Handle,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
}
