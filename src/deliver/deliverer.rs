//! The deliverer: the state that all lanes share, and its settings.

use std::sync::Arc;
use std::time::Duration;

use super::limits::{Caps, Limits};
use super::outbox::Outbox;
use crate::port::{Clock, Notifier, Radius, Revoker, Store};
use crate::retry::RetryPolicy;
use crate::telemetry::{Health, Metrics};
use crate::verdict::Mode;

const DAY: Duration = Duration::from_secs(86_400);

/// Timing and limits of deliveries.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Upper limit of the mode of every incident.
    pub mode: Mode,
    pub limits: Limits,
    /// For failed alerts, revocations and rows.
    pub retry: RetryPolicy,
    /// For a revocation that the provider refused.
    pub refused_retry: RetryPolicy,
    /// For a message that its channel rejected and no other channel accepts. After 410, a webhook sends nothing for 23
    /// hours.
    pub rejected_retry: RetryPolicy,
    /// Number of consecutive failures after which no revocation is requested during `breaker_wait`.
    pub breaker_failures: u32,
    pub breaker_wait: Duration,
    /// Timeout of a call.
    pub call_wait: Duration,
    /// Time for which rows are collected before a write.
    pub rows_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Shadow,
            limits: Limits::new(20, 100),
            retry: RetryPolicy::new(Duration::from_secs(2), Duration::from_secs(300)),
            refused_retry: RetryPolicy::new(Duration::from_secs(900), DAY),
            rejected_retry: RetryPolicy::exact(DAY),
            breaker_failures: 5,
            breaker_wait: Duration::from_secs(120),
            call_wait: Duration::from_secs(60),
            rows_wait: Duration::from_secs(1),
        }
    }
}

/// Delivers the contents of an outbox until it is stopped.
pub struct Deliverer<S> {
    pub outbox: Arc<Outbox>,
    pub notifiers: Vec<Arc<dyn Notifier>>,
    pub revoker: Option<Arc<dyn Revoker>>,
    pub store: Arc<S>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub settings: Settings,
}

impl<S: Store> Deliverer<S> {
    pub(super) fn caps(&self) -> Caps<'_> {
        let radius = self.revoker.as_ref().and_then(|revoker| revoker.radius());
        Caps { limits: &self.settings.limits, weight: radius.map_or(1, Radius::weight) }
    }
}
