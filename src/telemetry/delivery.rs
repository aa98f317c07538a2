//! Metrics of the delivery of alerts and revocations.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::label::Labels;
use crate::port::ActionOutcome;

/// The help texts define the metrics.
#[derive(Debug)]
pub(super) struct Delivery {
    outbox_waiting: Gauge,
    outbox_held: Gauge,
    outbox_damaged: Gauge,
    lane_panics: Family<Labels<1>, Counter>,
    channel_rejecting: Family<Labels<1>, Gauge>,
    breaker_open: Gauge,
    revocations_paused: Gauge,
    alerts: Family<Labels<2>, Counter>,
    revocations: Family<Labels<1>, Counter>,
    denylist_checks: Family<Labels<1>, Counter>,
    user_api_requests: Family<Labels<1>, Counter>,
    signals_requests: Family<Labels<1>, Counter>,
    denylist_entries: Gauge,
    silences_active: Gauge,
    silences_refused: Gauge,
    breakers_stopped: Gauge,
}

/// Result of a check against the denylist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// The token is not on the denylist.
    Accepted,
    Denied,
    /// The request has no token.
    NoToken,
    /// The denylist is not read yet.
    NotReady,
    /// The tenant of the request is not clear.
    Ambiguous,
}

impl Checked {
    const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Denied => "denied",
            Self::NoToken => "no_token",
            Self::NotReady => "not_ready",
            Self::Ambiguous => "ambiguous",
        }
    }
}

impl Delivery {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let mut gauge = |name, help| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let outbox_waiting = gauge("outbox_waiting", "Messages and revocations that are not delivered yet");
        let outbox_held = gauge(
            "outbox_held",
            "Messages that their channel rejected, messages to users beyond a limit, and revocations that are capped, paused, stopped or rejected; they are retried later",
        );
        let outbox_damaged = gauge("outbox_damaged", "Lines of the outbox file that could not be read at the start");
        let breaker_open = gauge(
            "revocation_breaker_open",
            "1 while requests to the revocation provider are suspended because they fail",
        );
        let revocations_paused = gauge("revocations_paused", "1 while all revocations are paused by an operator");
        let denylist_entries =
            gauge("denylist_entries", "Tokens and grants on the denylist, of which some may have expired");
        let silences_active = gauge("silences_active", "Silences that withhold alerts now");
        let silences_refused = gauge(
            "silences_refused",
            "Records of silences without effect since the start, because the command would refuse them",
        );
        let breakers_stopped =
            gauge("breakers_stopped", "Stops of revocations that breakers made and no person has lifted");
        let mut family = |name, help| {
            let family = Family::<Labels<1>, Counter>::default();
            registry.register(name, help, family.clone());
            family
        };
        let revocations = family("revocations", "Revocations requested or not requested, by outcome");
        let denylist_checks = family("denylist_checks", "Requests of gateways to the denylist endpoint, by result");
        let user_api_requests = family("user_api_requests", "Requests to the API for users, by status");
        let signals_requests = family("signals_requests", "Requests to the receiver of Shared Signals, by status");
        let lane_panics = family("lane_panics", "Panics in the delivery of alerts and revocations, by lane");
        let channel_rejecting = Family::<Labels<1>, Gauge>::default();
        let help = "1 while a channel rejects alerts or fails repeatedly";
        registry.register("channel_rejecting", help, channel_rejecting.clone());
        let alerts = Family::<Labels<2>, Counter>::default();
        registry.register("alerts", "Attempts to send an alert, by channel and outcome", alerts.clone());
        Self {
            outbox_waiting,
            outbox_held,
            outbox_damaged,
            lane_panics,
            channel_rejecting,
            breaker_open,
            revocations_paused,
            alerts,
            revocations,
            denylist_checks,
            user_api_requests,
            signals_requests,
            denylist_entries,
            silences_active,
            silences_refused,
            breakers_stopped,
        }
    }

    /// Counts an attempt to send an alert.
    pub(super) fn delivered(&self, channel: &str, outcome: ActionOutcome) {
        self.alerts
            .get_or_create(&[("channel", channel.to_owned().into()), ("outcome", outcome.as_str().into())])
            .inc();
    }

    /// Counts a check against a denylist with `entries`.
    pub(super) fn denylist_checked(&self, checked: Checked, entries: usize) {
        self.denylist_checks.get_or_create(&[("result", checked.name().into())]).inc();
        self.denylist_entries.set(entries as i64);
    }

    /// Counts a request to the receiver of Shared Signals.
    pub(super) fn signals_answered(&self, status: u16) {
        self.signals_requests.get_or_create(&[("status", status.to_string().into())]).inc();
    }

    /// Counts a request to the API for users.
    pub(super) fn user_api_answered(&self, status: u16) {
        self.user_api_requests.get_or_create(&[("status", status.to_string().into())]).inc();
    }

    /// Counts an attempt to revoke, or a revocation that was not requested.
    pub(super) fn revoked(&self, outcome: ActionOutcome) {
        self.revocations.get_or_create(&[("outcome", outcome.as_str().into())]).inc();
    }

    /// Sets the number of deliveries in the outbox that wait, and that are held.
    pub(super) fn waiting(&self, waiting: usize, held: usize) {
        self.outbox_waiting.set(waiting as i64);
        self.outbox_held.set(held as i64);
    }

    pub(super) fn outbox_damaged(&self, lines: usize) {
        self.outbox_damaged.set(lines as i64);
    }

    pub(super) fn lane_panicked(&self, lane: &str) {
        self.lane_panics.get_or_create(&[("lane", lane.to_owned().into())]).inc();
    }

    pub(super) fn channel_rejecting(&self, channel: &str, rejects: bool) {
        let labels = [("channel", channel.to_owned().into())];
        self.channel_rejecting.get_or_create(&labels).set(i64::from(rejects));
    }

    pub(super) fn silences(&self, active: usize, refused: u64) {
        self.silences_active.set(active as i64);
        self.silences_refused.set(refused as i64);
    }

    pub(super) fn breakers_stopped(&self, stops: usize) {
        self.breakers_stopped.set(stops as i64);
    }

    pub(super) fn breaker(&self, open: bool) {
        self.breaker_open.set(i64::from(open));
    }

    pub(super) fn paused(&self, paused: bool) {
        self.revocations_paused.set(i64::from(paused));
    }
}
