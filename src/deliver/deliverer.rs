//! The deliverer: what all lanes share, and their settings.

use std::sync::Arc;
use std::time::Duration;

use super::outbox::Outbox;
use super::state::Caps;
use crate::port::{Clock, Notifier, Revoker, Store};
use crate::retry::RetryPolicy;
use crate::telemetry::{Health, Metrics};
use crate::verdict::Mode;

const DAY: Duration = Duration::from_secs(86_400);

/// Timing and limits of deliveries.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The ceiling over every incident's own mode.
    pub mode: Mode,
    /// Revocations of one tenant within an hour.
    pub revocations_per_hour_max: u32,
    /// Revocations of all tenants within an hour.
    pub revocations_per_hour_total_max: u32,
    /// Of alerts, revocations and rows that failed.
    pub retry: RetryPolicy,
    /// Of a revocation that its provider refused.
    pub refused_retry: RetryPolicy,
    /// Of a message that its channel rejected and that no other channel has. After 410 a webhook is silent for 23 hours.
    pub rejected_retry: RetryPolicy,
    /// After so many failed attempts in a row no revocation is requested during `breaker_wait`.
    pub breaker_failures: u32,
    pub breaker_wait: Duration,
    /// A call that takes longer than this has failed.
    pub call_wait: Duration,
    /// Rows are collected for this long before they are written.
    pub rows_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Shadow,
            revocations_per_hour_max: 20,
            revocations_per_hour_total_max: 100,
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

/// Works through an outbox until it is stopped.
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
    pub(super) const fn caps(&self) -> Caps {
        Caps { of_tenant: self.settings.revocations_per_hour_max, total: self.settings.revocations_per_hour_total_max }
    }
}
