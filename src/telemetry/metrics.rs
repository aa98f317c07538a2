//! The numbers that `/metrics` tells, in the text format of Prometheus.

mod delivery;

use std::borrow::Cow;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use self::delivery::Delivery;
use super::notes::Notes;
use super::{Condition, Health};
use crate::engine;
use crate::pipeline::Tally;
use crate::port::OffsetGap;

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
    event_ids_reused: Counter,
    late: Counter,
    dead_letters: Counter,
    key_mismatches: Counter,
    incidents: Counter,
    withheld: Counter,
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
    spool: Spool,
    reloads: Family<Label, Counter>,
    rules_refused: Gauge,
    rules_without_file: Gauge,
    geoip_problems: Gauge,
    delivery: Delivery,
    lag: Family<[(&'static str, Cow<'static, str>); 2], Gauge>,
    unready: Family<Label, Gauge>,
    offset_gaps: Family<[(&'static str, Cow<'static, str>); 2], Counter>,
    messages_lost: Family<Label, Counter>,
    letters_dropped: Counter,
}

/// Whether the store takes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreState {
    Ok,
    /// It does not answer, or asks for another attempt.
    Unavailable,
    /// It rejects the rows or the credentials.
    Refusing,
}

impl StoreState {
    const ALL: [Self; 3] = [Self::Ok, Self::Unavailable, Self::Refusing];

    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unavailable => "unavailable",
            Self::Refusing => "refusing",
        }
    }
}

/// The store's state, and what waits for it on disk.
#[derive(Debug, Default)]
struct Spool {
    state: Family<Label, Gauge>,
    bytes: Gauge,
    rows: Gauge,
    oldest_seconds: Gauge,
}

impl Spool {
    fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register("store_state", "1 for the state that the store is in", this.state.clone());
        registry.register("spool_bytes", "Bytes on disk that wait for the store", this.bytes.clone());
        registry.register("spool_rows", "Rows on disk that wait for the store", this.rows.clone());
        let help = "Seconds since the first message was taken whose rows wait on disk";
        registry.register("spool_oldest_seconds", help, this.oldest_seconds.clone());
        this
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    #[must_use]
    #[allow(clippy::too_many_lines, reason = "a line or two for each metric")]
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
        let duplicates = counter("duplicates", "Events delivered before: the same event id and the same content");
        let event_ids_reused =
            counter("event_ids_reused", "Events whose event id another event of their tenant had: judged and stored");
        let late = counter(
            "late",
            "Events older than the newest of their grant or token by more than lateness_ms_max, judged with what needs no order",
        );
        let dead_letters = counter("dead_letters", "Messages that could not be decoded");
        let key_mismatches = counter("key_mismatches", "Events whose message is not keyed by their subject key");
        let incidents = counter("incidents", "Incidents opened or changed");
        let withheld = counter("alerts_withheld", "Alerts withheld because a tenant's alert budget was spent");
        let baselines_evicted = counter("baselines_evicted", "Baselines forgotten for want of room");
        let attempts = counter("attempts", "Events whose credential was not accepted: judged, not learnt");
        let confirmed = counter("confirmed", "Grants and tokens whose uses were confirmed as their owner's");
        let confirmed_alarms = counter("confirmed_alarms", "Those of them that were suspected enough for an alert");
        let epochs = counter("epochs", "Epochs whose rows are in the store");
        let store_retries = counter("store_retries", "Writes to the store that failed and were tried again");
        let letters_dropped =
            counter("dead_letter_topic_dropped", "Dead letters never sent to their topic; the table has them");
        let mut family = |name, help| {
            let family = Family::<Label, Counter>::default();
            registry.register(name, help, family.clone());
            family
        };
        let events = family("events", "Events judged, by verdict");
        let skipped = family("skipped", "Records that speak of no token, by reason");
        let reloads = family("rule_reloads", "Attempts to reload the rules, by result");
        let messages_lost = family("messages_lost", "Messages deleted from the log before they were read, by topic");
        let mut gauge = |name, help| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let baselines = gauge("baselines", "Baselines in memory");
        let partitions = gauge("partitions", "Partitions that this process owns");
        let geoip_problems = gauge("geoip_problems", "GeoIP files that are missing or cannot be read");
        let rules_refused =
            gauge("rules_reload_refused", "1 while the rules in the folder are refused, older ones are in force");
        let rules_without_file = gauge("rules_without_file", "Rules that are disabled because they have no file");
        let clock_skewed = Family::<[(&'static str, Cow<'static, str>); 2], Counter>::default();
        registry.register(
            "events_clock_skewed",
            "Events whose time lies farther than clock_skew_ms_max from the stream's, by topic and direction",
            clock_skewed.clone(),
        );
        let spool = Spool::register(&mut registry);
        let notes = Notes::register(&mut registry);
        let delivery = Delivery::new(&mut registry);
        let lag = Family::<[(&'static str, Cow<'static, str>); 2], Gauge>::default();
        registry.register("source_lag", "Messages still to be read, by topic and partition", lag.clone());
        let offset_gaps = Family::<[(&'static str, Cow<'static, str>); 2], Counter>::default();
        registry.register(
            "offset_gaps",
            "Partitions read from their earliest message again because their offset left the log, by topic and kind",
            offset_gaps.clone(),
        );
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
            event_ids_reused,
            late,
            dead_letters,
            key_mismatches,
            incidents,
            withheld,
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
            spool,
            reloads,
            rules_refused,
            rules_without_file,
            geoip_problems,
            delivery,
            lag,
            unready,
            offset_gaps,
            messages_lost,
            letters_dropped,
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

    /// Messages are judged, and their incidents are in the outbox.
    pub fn epoch_done(&self, tally: &Tally) {
        self.messages.inc_by(tally.messages);
        self.duplicates.inc_by(tally.duplicates);
        self.dead_letters.inc_by(tally.dead_letters);
        self.key_mismatches.inc_by(tally.key_mismatches);
        self.incidents.inc_by(tally.incidents);
        self.withheld.inc_by(tally.withheld.alerts);
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

    /// What is in memory now.
    pub fn partitions(&self, partitions: usize, baselines: u64) {
        self.partitions.set(partitions as i64);
        self.baselines.set(baselines as i64);
    }

    /// What the states of a partition of `topic` counted since they were last reported.
    pub fn states(&self, topic: &str, counters: engine::Counters) {
        self.late.inc_by(counters.late);
        self.event_ids_reused.inc_by(counters.ids_reused);
        self.baselines_evicted.inc_by(counters.baselines_evicted);
        self.attempts.inc_by(counters.attempts);
        self.confirmed.inc_by(counters.confirmed);
        self.confirmed_alarms.inc_by(counters.confirmed_alarms);
        for (direction, count) in [("ahead", counters.ahead), ("behind", counters.behind)] {
            if count > 0 {
                let labels = [("topic", topic.to_owned().into()), ("direction", direction.into())];
                self.clock_skewed.get_or_create(&labels).inc_by(count);
            }
        }
    }

    /// The store has taken the rows of an epoch, after so long.
    pub fn store_took(&self, millis: i64) {
        self.epochs.inc();
        self.store_seconds.observe(millis as f64 / 1000.0);
    }

    pub fn store_retried(&self) {
        self.store_retries.inc();
    }

    /// Whether the store takes rows.
    pub fn store_state(&self, state: StoreState) {
        for each in StoreState::ALL {
            self.spool.state.get_or_create(&[("state", each.name().into())]).set(i64::from(each == state));
        }
    }

    /// What waits on disk for the store: its bytes and rows, and how long ago the oldest of its messages was taken.
    pub fn spool(&self, bytes: u64, rows: usize, oldest_ms: i64) {
        self.spool.bytes.set(bytes as i64);
        self.spool.rows.set(rows as i64);
        self.spool.oldest_seconds.set(oldest_ms / 1_000);
    }

    pub fn reloaded(&self, result: &'static str) {
        self.reloads.get_or_create(&[("result", result.into())]).inc();
    }

    /// Whether the rules in the folder are refused, so that older ones are in force.
    pub fn rules_refused(&self, refused: bool) {
        self.rules_refused.set(i64::from(refused));
    }

    pub fn rules_without_file(&self, count: usize) {
        self.rules_without_file.set(count as i64);
    }

    /// Messages that are still to be read in a partition; `None` where it is not ours to read, or not any more.
    pub fn lag(&self, topic: &str, partition: i32, messages: Option<i64>) {
        let labels = [("topic", topic.to_owned().into()), ("partition", partition.to_string().into())];
        match messages {
            Some(messages) => _ = self.lag.get_or_create(&labels).set(messages),
            None => _ = self.lag.remove(&labels),
        }
    }

    /// A partition is read from its earliest message again.
    pub fn offset_gap(&self, gap: &OffsetGap) {
        let labels = [("topic", gap.topic.to_string().into()), ("kind", gap.kind.name().into())];
        self.offset_gaps.get_or_create(&labels).inc();
        self.messages_lost.get_or_create(&[("topic", gap.topic.to_string().into())]).inc_by(gap.lost());
    }

    /// Dead letters that their topic did not take were given up.
    pub fn letters_dropped(&self, count: u64) {
        self.letters_dropped.inc_by(count);
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
