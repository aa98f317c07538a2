//! Metrics of `/metrics` in the OpenMetrics text format.

mod snapshots;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::delivery::{Checked, Delivery};
use super::health::Health;
use super::label::Labels;
use super::memory::MemoryMetrics;
use super::notes::Notes;
use super::storage::{SnapshotMetrics, Spool, StoreState};
use crate::engine;
use crate::port::{ActionOutcome, Condition, OffsetGap};
use crate::tally::Tally;

/// All metrics of one process. The help texts define them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    messages: Counter,
    events: Family<Labels<1>, Counter>,
    skipped: Family<Labels<1>, Counter>,
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
    clock_skewed: Family<Labels<2>, Counter>,
    confirmed: Counter,
    confirmed_alarms: Counter,
    feedback_learnt: Counter,
    partitions: Gauge,
    epochs: Counter,
    store_seconds: Histogram,
    store_retries: Counter,
    spool: Spool,
    reloads: Family<Labels<1>, Counter>,
    rules_refused: Gauge,
    rules_without_file: Gauge,
    geoip_problems: Gauge,
    delivery: Delivery,
    lag: Family<Labels<2>, Gauge>,
    rebuild_left: Family<Labels<2>, Gauge>,
    memory_since: Family<Labels<1>, Gauge>,
    unready: Family<Labels<1>, Gauge>,
    degraded: Family<Labels<1>, Gauge>,
    offset_gaps: Family<Labels<2>, Counter>,
    messages_lost: Family<Labels<1>, Counter>,
    letters_dropped: Counter,
    verdicts_dropped: Counter,
    sightings_dropped: Counter,
    sightings: Family<Labels<1>, Counter>,
    snapshots: SnapshotMetrics,
    memory: MemoryMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    #[allow(clippy::too_many_lines, reason = "one or two lines per metric")]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("tokenwarden");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running build", build);
        let store_seconds = Histogram::new(exponential_buckets(0.005, 2.0, 14));
        registry.register_with_unit(
            "store_write",
            "Time to write one epoch to the store, including retries",
            Unit::Seconds,
            store_seconds.clone(),
        );
        let mut counter = |name, help| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let messages = counter("messages", "Messages read from the source");
        let duplicates = counter("duplicates", "Events delivered before: the same event id and the same content");
        let event_ids_reused = counter(
            "event_ids_reused",
            "Events whose event id was used by another event of the tenant; they are scored and stored",
        );
        let late = counter(
            "late",
            "Events older than the newest of their grant or token by more than lateness_ms_max; only detectors that need no order apply",
        );
        let dead_letters = counter("dead_letters", "Messages that could not be decoded");
        let key_mismatches = counter("key_mismatches", "Events whose message is not keyed by their subject key");
        let incidents = counter("incidents", "Incidents opened or changed");
        let withheld = counter("alerts_withheld", "Alerts and campaigns withheld because the alert budget was used up");
        let baselines_evicted = counter(
            "baselines_evicted",
            "Baselines evicted because the limit of memory, or baselines_max, was reached",
        );
        let attempts = counter("attempts", "Events whose credential was not accepted; they are scored and not learnt");
        let confirmed = counter("confirmed", "Grants and tokens whose uses were confirmed as those of their owner");
        let confirmed_alarms = counter("confirmed_alarms", "Confirmed grants and tokens that had an alert");
        let feedback_learnt = counter("feedback_learnt", "Feedback records that partitions have learnt");
        let epochs = counter("epochs", "Epochs written to the store");
        let store_retries = counter("store_retries", "Failed writes to the store that are retried");
        let letters_dropped = counter(
            "dead_letter_topic_dropped",
            "Dead letters that were not sent to their topic; the table dead_letters contains them",
        );
        let verdicts_dropped = counter("verdicts_dropped", "Verdicts that were not sent to their topic");
        let sightings_dropped =
            counter("sightings_dropped", "Appearances that were not sent to the topic of sightings");
        let mut family = |name, help| {
            let family = Family::<Labels<1>, Counter>::default();
            registry.register(name, help, family.clone());
            family
        };
        let events = family("events", "Scored events, by verdict");
        let skipped = family("skipped", "Records that do not concern a token, by reason");
        let reloads = family("rule_reloads", "Attempts to reload the rules, by result");
        let messages_lost = family("messages_lost", "Messages deleted from the log before they were read, by topic");
        let sightings = family("sightings", "Messages of the topic of sightings, by result");
        let mut gauge = |name, help| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let baselines = gauge("baselines", "Baselines in memory");
        let partitions = gauge("partitions", "Partitions that this process owns");
        let geoip_problems = gauge("geoip_problems", "GeoIP files that are missing or cannot be read");
        let rules_refused =
            gauge("rules_reload_refused", "1 while the rules in the folder are invalid and older rules remain in use");
        let rules_without_file = gauge("rules_without_file", "Rules that are disabled because they have no file");
        let clock_skewed = Family::<Labels<2>, Counter>::default();
        registry.register(
            "events_clock_skewed",
            "Events whose time differs from the stream time by more than clock_skew_ms_max, by topic and direction",
            clock_skewed.clone(),
        );
        let spool = Spool::register(&mut registry);
        let snapshots = SnapshotMetrics::register(&mut registry);
        let notes = Notes::register(&mut registry);
        let memory = MemoryMetrics::register(&mut registry);
        let delivery = Delivery::new(&mut registry);
        let lag = Family::<Labels<2>, Gauge>::default();
        registry.register("source_lag", "Unread messages, by topic and partition", lag.clone());
        let rebuild_left = Family::<Labels<2>, Gauge>::default();
        registry.register(
            "rebuild_left",
            "Messages before the committed offset that remain to be read to rebuild the state, by topic and partition",
            rebuild_left.clone(),
        );
        let memory_since = Family::<Labels<1>, Gauge>::default();
        registry.register(
            "memory_since_timestamp_seconds",
            "Time of the earliest event in the state, seconds since the epoch, by state",
            memory_since.clone(),
        );
        let offset_gaps = Family::<Labels<2>, Counter>::default();
        registry.register(
            "offset_gaps",
            "Partitions read again from their earliest message because their offset is not in the log, by topic and kind",
            offset_gaps.clone(),
        );
        let unready = Family::<Labels<1>, Gauge>::default();
        registry.register("unready", "1 while the condition makes /readyz fail, by condition", unready.clone());
        let degraded = Family::<Labels<1>, Gauge>::default();
        let help = "1 while the condition holds, which /readyz reports and which does not make it fail, by condition";
        registry.register("degraded", help, degraded.clone());
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
            feedback_learnt,
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
            rebuild_left,
            memory_since,
            unready,
            degraded,
            offset_gaps,
            messages_lost,
            letters_dropped,
            verdicts_dropped,
            sightings_dropped,
            sightings,
            snapshots,
            memory,
        }
    }

    /// All metrics as OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.memory.measure();
        // Writing to a string cannot fail, and no metric has an encoder of its own.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Sets the gauge of each condition to its state in `health` at `now`, milliseconds since the epoch.
    pub(crate) fn conditions(&self, health: &Health, now: i64) {
        for condition in Condition::ALL {
            let holds = health.holds(condition, now);
            let family = if condition.is_degradation() { &self.degraded } else { &self.unready };
            family.get_or_create(&[("condition", condition.name().into())]).set(i64::from(holds));
        }
    }

    /// Counts an epoch that is scored and whose incidents are in the outbox.
    pub(crate) fn epoch_done(&self, tally: &Tally) {
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

    /// Sets the numbers of partitions and baselines in memory.
    pub(crate) fn partitions(&self, partitions: usize, baselines: u64) {
        self.partitions.set(partitions as i64);
        self.baselines.set(baselines as i64);
    }

    /// Sets the limits of the process and of the states of its partitions, bytes.
    pub(crate) fn memory_limits(&self, process: u64, states: u64) {
        self.memory.limits(process, states);
    }

    /// Sets the bytes of a table in all states, and adds the evictions since the last report.
    pub(crate) fn memory_of_table(&self, table: &'static str, bytes: usize, evictions: u64) {
        self.memory.table(table, bytes, evictions);
    }

    /// Adds the counters of a partition of `topic` since the last report.
    pub(crate) fn states(&self, topic: &str, counters: engine::Counters) {
        self.late.inc_by(counters.late);
        self.event_ids_reused.inc_by(counters.ids_reused);
        self.baselines_evicted.inc_by(counters.baselines_evicted);
        self.attempts.inc_by(counters.attempts);
        self.confirmed.inc_by(counters.confirmed);
        self.confirmed_alarms.inc_by(counters.confirmed_alarms);
        self.feedback_learnt.inc_by(counters.feedback);
        for (direction, count) in [("ahead", counters.ahead), ("behind", counters.behind)] {
            if count > 0 {
                let labels = [("topic", topic.to_owned().into()), ("direction", direction.into())];
                self.clock_skewed.get_or_create(&labels).inc_by(count);
            }
        }
    }

    /// Counts an epoch that the store accepted after `millis`.
    pub(crate) fn store_took(&self, millis: i64) {
        self.epochs.inc();
        self.store_seconds.observe(millis as f64 / 1000.0);
    }

    pub(crate) fn store_retried(&self) {
        self.store_retries.inc();
    }

    /// Sets the state of the store.
    pub(crate) fn store_state(&self, state: StoreState) {
        for each in StoreState::ALL {
            self.spool.state.get_or_create(&[("state", each.name().into())]).set(i64::from(each == state));
        }
    }

    /// Sets the size of the spool and the age of its oldest message in milliseconds.
    pub(crate) fn spool(&self, bytes: u64, rows: usize, oldest_ms: i64) {
        self.spool.bytes.set(bytes as i64);
        self.spool.rows.set(rows as i64);
        self.spool.oldest_seconds.set(oldest_ms / 1_000);
    }

    pub(crate) fn reloaded(&self, result: &'static str) {
        self.reloads.get_or_create(&[("result", result.into())]).inc();
    }

    /// Records whether the rules in the folder are invalid, so that older rules remain in use.
    pub(crate) fn rules_refused(&self, refused: bool) {
        self.rules_refused.set(i64::from(refused));
    }

    pub(crate) fn rules_without_file(&self, count: usize) {
        self.rules_without_file.set(count as i64);
    }

    /// Sets the number of unread messages in a partition. `None` if another member owns the partition.
    pub(crate) fn lag(&self, topic: &str, partition: i32, messages: Option<i64>) {
        set_of_partition(&self.lag, topic, partition, messages);
    }

    /// Sets the number of messages that must be read to rebuild the state of a partition. `None` if there is none.
    pub(crate) fn rebuild_left(&self, topic: &str, partition: i32, messages: Option<i64>) {
        set_of_partition(&self.rebuild_left, topic, partition, messages);
    }

    /// Counts a partition that is read again from its earliest message.
    pub(crate) fn offset_gap(&self, gap: &OffsetGap) {
        let labels = [("topic", gap.topic.to_string().into()), ("kind", gap.kind.name().into())];
        self.offset_gaps.get_or_create(&labels).inc();
        self.messages_lost.get_or_create(&[("topic", gap.topic.to_string().into())]).inc_by(gap.lost());
    }

    /// Counts dead letters that were not sent to their topic.
    pub(crate) fn letters_dropped(&self, count: u64) {
        self.letters_dropped.inc_by(count);
    }

    pub(crate) fn verdicts_dropped(&self, count: u64) {
        self.verdicts_dropped.inc_by(count);
    }

    pub(crate) fn sightings_dropped(&self, count: u64) {
        self.sightings_dropped.inc_by(count);
    }

    /// Counts messages of the topic of sightings.
    pub(crate) fn sightings(&self, result: &'static str, count: u64) {
        self.sightings.get_or_create(&[("result", result.into())]).inc_by(count);
    }

    /// Counts changes of incidents that are not the result of one event.
    pub(crate) fn campaigns_changed(&self, changes: u64) {
        self.incidents.inc_by(changes);
    }

    /// Counts campaigns that the alert budget withholds.
    pub(crate) fn alerts_withheld(&self, count: u64) {
        self.withheld.inc_by(count);
    }

    pub(crate) fn geoip_problems(&self, count: usize) {
        self.geoip_problems.set(count as i64);
    }

    /// Counts an attempt to send an alert.
    pub(crate) fn delivered(&self, channel: &str, outcome: ActionOutcome) {
        self.delivery.delivered(channel, outcome);
    }

    /// Sets the numbers of silences that withhold alerts, and of refused records since the start.
    pub(crate) fn silences(&self, active: usize, refused: u64) {
        self.delivery.silences(active, refused);
    }

    /// Sets the number of stops of revocations that no person has lifted.
    pub(crate) fn breakers_stopped(&self, stops: usize) {
        self.delivery.breakers_stopped(stops);
    }

    /// Counts a check against a denylist with `entries`.
    pub(crate) fn denylist_checked(&self, checked: Checked, entries: usize) {
        self.delivery.denylist_checked(checked, entries);
    }

    /// Counts a request to the receiver of Shared Signals by the status of its answer.
    pub(crate) fn signals_answered(&self, status: u16) {
        self.delivery.signals_answered(status);
    }

    /// Counts a request to the API for users.
    pub(crate) fn user_api_answered(&self, status: u16) {
        self.delivery.user_api_answered(status);
    }

    /// Counts an attempt to revoke, or a revocation that was not requested.
    pub(crate) fn revoked(&self, outcome: ActionOutcome) {
        self.delivery.revoked(outcome);
    }

    /// Sets the number of deliveries in the outbox that wait, and that are held.
    pub(crate) fn waiting(&self, waiting: usize, held: usize) {
        self.delivery.waiting(waiting, held);
    }

    pub(crate) fn outbox_damaged(&self, lines: usize) {
        self.delivery.outbox_damaged(lines);
    }

    pub(crate) fn lane_panicked(&self, lane: &str) {
        self.delivery.lane_panicked(lane);
    }

    pub(crate) fn channel_rejecting(&self, channel: &str, rejects: bool) {
        self.delivery.channel_rejecting(channel, rejects);
    }

    pub(crate) fn breaker(&self, open: bool) {
        self.delivery.breaker(open);
    }

    pub(crate) fn paused(&self, paused: bool) {
        self.delivery.paused(paused);
    }
}

fn set_of_partition(gauge: &Family<Labels<2>, Gauge>, topic: &str, partition: i32, messages: Option<i64>) {
    let labels = [("topic", topic.to_owned().into()), ("partition", partition.to_string().into())];
    match messages {
        Some(messages) => _ = gauge.get_or_create(&labels).set(messages),
        None => _ = gauge.remove(&labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_removed_with_its_partition() {
        let metrics = Metrics::new();
        metrics.lag("token-events", 3, Some(41));
        let line = "tokenwarden_source_lag{topic=\"token-events\",partition=\"3\"} 41";
        assert!(metrics.text().contains(line), "{}", metrics.text());
        metrics.lag("token-events", 3, None);
        assert!(!metrics.text().contains("token-events"), "{}", metrics.text());
    }

    #[test]
    fn epoch_is_counted_in_the_metrics() {
        let metrics = Metrics::new();
        let tally =
            Tally { messages: 9, events: 7, alerted: 2, skipped: vec![("a service call", 2)], ..Tally::default() };
        let mut tally = tally;
        tally.note(&"t".into(), crate::tally::Note::Unreadable("user_agent"), 3);
        metrics.epoch_done(&tally);
        let text = metrics.text();
        for line in [
            "tokenwarden_messages_total 9",
            "tokenwarden_events_total{verdict=\"allow\"} 5",
            "tokenwarden_events_total{verdict=\"alert\"} 2",
            "tokenwarden_skipped_total{reason=\"a service call\"} 2",
            "tokenwarden_unreadable_fields_total{topic=\"t\",field=\"user_agent\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
