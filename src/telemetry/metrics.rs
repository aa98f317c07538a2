//! The numbers that `/metrics` tells, in the text format of Prometheus.

use std::borrow::Cow;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::notes::Notes;
use super::{Condition, Health};
use crate::engine;
use crate::pipeline::Tally;

/// One label: its name and value.
type Label = [(&'static str, Cow<'static, str>); 1];

/// All numbers of one process. Counters never fall; what they count is said in their help texts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    messages: Counter,
    events: Family<Label, Counter>,
    skipped: Family<Label, Counter>,
    duplicates: Counter,
    late: Counter,
    dead_letters: Counter,
    key_mismatches: Counter,
    incidents: Counter,
    notes: Notes,
    baselines: Gauge,
    baselines_evicted: Counter,
    attempts: Counter,
    clock_skewed: Family<[(&'static str, Cow<'static, str>); 2], Counter>,
    confirmed: Counter,
    confirmed_alarms: Counter,
    partitions: Gauge,
    epochs: Counter,
    store_seconds: Histogram,
    store_retries: Counter,
    reloads: Family<Label, Counter>,
    geoip_problems: Gauge,
    outbox_waiting: Gauge,
    breaker_open: Gauge,
    revocations_paused: Gauge,
    alerts: Family<[(&'static str, Cow<'static, str>); 2], Counter>,
    revocations: Family<Label, Counter>,
    lag: Family<[(&'static str, Cow<'static, str>); 2], Gauge>,
    unready: Family<Label, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("tokenwarden");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running build", build);
        let store_seconds = Histogram::new(exponential_buckets(0.005, 2.0, 14));
        registry.register_with_unit(
            "store_write",
            "Time that an epoch took to reach the store, retries included",
            Unit::Seconds,
            store_seconds.clone(),
        );
        let mut counter = |name, help| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let messages = counter("messages", "Messages taken from the source");
        let duplicates = counter("duplicates", "Events seen before under the same event id");
        let late = counter(
            "late",
            "Events older than the newest of their grant or token by more than lateness_ms_max, judged with what needs no order",
        );
        let dead_letters = counter("dead_letters", "Messages that could not be decoded");
        let key_mismatches = counter("key_mismatches", "Events whose message is not keyed by their subject key");
        let incidents = counter("incidents", "Incidents opened or changed");
        let baselines_evicted = counter("baselines_evicted", "Baselines forgotten for want of room");
        let attempts = counter("attempts", "Events whose credential was not accepted: judged, not learnt");
        let confirmed = counter("confirmed", "Grants and tokens whose uses were confirmed as their owner's");
        let confirmed_alarms = counter("confirmed_alarms", "Those of them that were suspected enough for an alert");
        let epochs = counter("epochs", "Epochs stored and committed");
        let store_retries = counter("store_retries", "Writes to the store that failed and were tried again");
        let mut family = |name, help| {
            let family = Family::<Label, Counter>::default();
            registry.register(name, help, family.clone());
            family
        };
        let events = family("events", "Events judged, by verdict");
        let skipped = family("skipped", "Records that speak of no token, by reason");
        let reloads = family("rule_reloads", "Attempts to reload the rules, by result");
        let revocations = family("revocations", "Attempts, and refusals, to revoke, by outcome");
        let mut gauge = |name, help| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let baselines = gauge("baselines", "Baselines in memory");
        let partitions = gauge("partitions", "Partitions that this process owns");
        let geoip_problems = gauge("geoip_problems", "GeoIP files that are missing or cannot be read");
        let outbox_waiting = gauge("outbox_waiting", "Changes of incidents that wait to be told or acted upon");
        let breaker_open = gauge("revocation_breaker_open", "1 while the provider fails and is left alone");
        let revocations_paused = gauge("revocations_paused", "1 while all revocations are stopped by hand");
        let clock_skewed = Family::<[(&'static str, Cow<'static, str>); 2], Counter>::default();
        registry.register(
            "events_clock_skewed",
            "Events whose time lies farther than clock_skew_ms_max from the stream's, by topic and direction",
            clock_skewed.clone(),
        );
        let alerts = Family::<[(&'static str, Cow<'static, str>); 2], Counter>::default();
        registry.register("alerts", "Attempts to tell people, by channel and outcome", alerts.clone());
        let notes = Notes::register(&mut registry);
        let lag = Family::<[(&'static str, Cow<'static, str>); 2], Gauge>::default();
        registry.register("source_lag", "Messages still to be read, by topic and partition", lag.clone());
        let unready = Family::<Label, Gauge>::default();
        registry.register(
            "unready",
            "1 while the condition keeps /readyz from being 200, by condition",
            unready.clone(),
        );
        Self {
            registry,
            messages,
            events,
            skipped,
            duplicates,
            late,
            dead_letters,
            key_mismatches,
            incidents,
            notes,
            baselines,
            baselines_evicted,
            attempts,
            clock_skewed,
            confirmed,
            confirmed_alarms,
            partitions,
            epochs,
            store_seconds,
            store_retries,
            reloads,
            geoip_problems,
            outbox_waiting,
            breaker_open,
            revocations_paused,
            alerts,
            revocations,
            lag,
            unready,
        }
    }

    /// The whole as OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only where a metric's own encoder does; what was written by then is told.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Sets the gauge of each condition from `health`, as it is at `now`, milliseconds since the epoch.
    pub fn conditions(&self, health: &Health, now: i64) {
        for condition in Condition::ALL {
            let holds = health.holds(condition, now);
            self.unready.get_or_create(&[("condition", condition.name().into())]).set(i64::from(holds));
        }
    }

    /// An epoch is stored and committed.
    pub fn epoch_done(&self, tally: &Tally) {
        self.epochs.inc();
        self.messages.inc_by(tally.messages);
        self.duplicates.inc_by(tally.duplicates);
        self.dead_letters.inc_by(tally.dead_letters);
        self.key_mismatches.inc_by(tally.key_mismatches);
        self.incidents.inc_by(tally.incidents);
        let allowed = tally.events - tally.watched - tally.alerted - tally.revoked;
        let verdicts =
            [("allow", allowed), ("watch", tally.watched), ("alert", tally.alerted), ("revoke", tally.revoked)];
        for (verdict, count) in verdicts {
            self.events.get_or_create(&[("verdict", verdict.into())]).inc_by(count);
        }
        for (reason, count) in &tally.skipped {
            self.skipped.get_or_create(&[("reason", (*reason).into())]).inc_by(*count);
        }
        self.notes.count(tally);
    }

    /// What the partitions' states hold now, and what they did since they were last counted.
    pub fn states(&self, partitions: usize, now: engine::Counters, before: engine::Counters) {
        self.partitions.set(partitions as i64);
        self.baselines.set(now.baselines as i64);
        self.late.inc_by(now.late.saturating_sub(before.late));
        self.baselines_evicted.inc_by(now.baselines_evicted.saturating_sub(before.baselines_evicted));
        self.attempts.inc_by(now.attempts.saturating_sub(before.attempts));
        self.confirmed.inc_by(now.confirmed.saturating_sub(before.confirmed));
        self.confirmed_alarms.inc_by(now.confirmed_alarms.saturating_sub(before.confirmed_alarms));
    }

    /// So many events of `topic` had a time that is not believed, by `direction`: `ahead` or `behind`.
    pub fn clock_skewed(&self, topic: &str, direction: &'static str, count: u64) {
        let labels = [("topic", topic.to_owned().into()), ("direction", direction.into())];
        self.clock_skewed.get_or_create(&labels).inc_by(count);
    }

    pub fn store_took(&self, millis: i64) {
        self.store_seconds.observe(millis as f64 / 1000.0);
    }

    pub fn store_retried(&self) {
        self.store_retries.inc();
    }

    pub fn reloaded(&self, result: &'static str) {
        self.reloads.get_or_create(&[("result", result.into())]).inc();
    }

    /// Messages that are still to be read in a partition; `None` where it is not ours to read, or not any more.
    pub fn lag(&self, topic: &str, partition: i32, messages: Option<i64>) {
        let labels = [("topic", topic.to_owned().into()), ("partition", partition.to_string().into())];
        match messages {
            Some(messages) => _ = self.lag.get_or_create(&labels).set(messages),
            None => _ = self.lag.remove(&labels),
        }
    }

    /// An attempt to tell people came to this.
    pub fn delivered(&self, channel: &'static str, outcome: &'static str) {
        self.alerts.get_or_create(&[("channel", channel.into()), ("outcome", outcome.into())]).inc();
    }

    /// An attempt to revoke, or the refusal to make one, came to this.
    pub fn revoked(&self, outcome: &'static str) {
        self.revocations.get_or_create(&[("outcome", outcome.into())]).inc();
    }

    pub fn waiting(&self, changes: usize) {
        self.outbox_waiting.set(changes as i64);
    }

    pub fn breaker(&self, open: bool) {
        self.breaker_open.set(i64::from(open));
    }

    pub fn paused(&self, paused: bool) {
        self.revocations_paused.set(i64::from(paused));
    }

    pub fn geoip_problems(&self, count: usize) {
        self.geoip_problems.set(count as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_of_a_partition_goes_with_it() {
        let metrics = Metrics::new();
        metrics.lag("token-events", 3, Some(41));
        let line = "tokenwarden_source_lag{topic=\"token-events\",partition=\"3\"} 41";
        assert!(metrics.text().contains(line), "{}", metrics.text());
        metrics.lag("token-events", 3, None);
        assert!(!metrics.text().contains("token-events"), "{}", metrics.text());
    }

    #[test]
    fn an_epoch_is_told_in_the_text_that_prometheus_reads() {
        let metrics = Metrics::new();
        let tally =
            Tally { messages: 9, events: 7, alerted: 2, skipped: vec![("a service call", 2)], ..Tally::default() };
        let mut tally = tally;
        tally.note(&"t".into(), crate::pipeline::Note::Unreadable("user_agent"), 3);
        metrics.epoch_done(&tally);
        let text = metrics.text();
        for line in [
            "tokenwarden_messages_total 9",
            "tokenwarden_events_total{verdict=\"allow\"} 5",
            "tokenwarden_events_total{verdict=\"alert\"} 2",
            "tokenwarden_skipped_total{reason=\"a service call\"} 2",
            "tokenwarden_unreadable_fields_total{topic=\"t\",field=\"user_agent\"} 3",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is missing in\n{text}");
        }
    }
}
