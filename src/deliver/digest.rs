//! Digests: beyond a limit of messages per hour, alerts of a channel below a severity are collected into one message.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::millis::{HOUR_MS, MINUTE_MS, rfc3339};
use crate::number::grouped;
use crate::port::{Notice, Progress, Revocation};
use crate::verdict::{Incident, IncidentId, Severity, Verdict};

/// Incidents that a digest names, those of the highest severity. The others are counted.
const NAMED_MAX: usize = 50;

/// When the alerts of a channel are collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestSettings {
    /// Messages per hour and recipient that are sent one by one.
    pub messages_per_hour_max: usize,
    /// Alerts of this or a higher severity are never collected.
    pub below: Severity,
    /// Time from the first collected alert to the digest.
    pub interval: Duration,
}

impl DigestSettings {
    /// Whether the alert may be collected. A verdict `revoke` and the outcome of an action never are.
    pub(super) fn may_collect(&self, incident: &Incident, progress: &Progress) -> bool {
        incident.severity < self.below
            && incident.verdict != Verdict::Revoke
            && incident.revoke.is_none()
            && progress.outcomes_total == 0
            && matches!(progress.revocation, Revocation::NotAsked)
    }
}

/// Messages that a recipient accepted within the last hour.
#[derive(Debug, Default)]
pub(super) struct Spent(VecDeque<i64>);

impl Spent {
    pub(super) fn add(&mut self, at: i64) {
        self.0.push_back(at);
    }

    /// Whether the recipient got as many messages as `settings` allow.
    pub(super) fn is_over(&mut self, settings: &DigestSettings, now: i64) -> bool {
        while self.0.front().is_some_and(|at| now - at >= HOUR_MS) {
            self.0.pop_front();
        }
        self.0.len() >= settings.messages_per_hour_max
    }
}

/// The beginning of the keys of digests.
const KEY: &str = "notice-digest-";

/// One collected alert.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Collected {
    pub(crate) key: String,
    pub(crate) incident: u64,
    pub(crate) severity: Severity,
}

/// The collected alerts of one recipient.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Digest {
    /// Time of the first collected alert, milliseconds since the epoch, wall clock.
    pub(crate) since: i64,
    pub(crate) due_at: i64,
    counts: BTreeMap<Severity, u64>,
    /// Incidents with their highest severity, each once.
    named: Vec<Named>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Named {
    incident: u64,
    severity: Severity,
}

impl Digest {
    pub(super) const fn new(since: i64, due_at: i64) -> Self {
        Self { since, due_at, counts: BTreeMap::new(), named: Vec::new() }
    }

    pub(super) fn add(&mut self, alert: &Collected) {
        *self.counts.entry(alert.severity).or_default() += 1;
        let Collected { incident, severity, .. } = *alert;
        match self.named.iter_mut().find(|named| named.incident == incident) {
            Some(named) => named.severity = named.severity.max(severity),
            None => self.named.push(Named { incident, severity }),
        }
        // The sort is stable, so the earliest of a severity stay.
        self.named.sort_by_key(|named| std::cmp::Reverse(named.severity));
        self.named.truncate(NAMED_MAX);
    }

    fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Key of the message of `lane`.
    pub(super) fn key(&self, lane: &str) -> String {
        format!("{KEY}{:016x}-{}", xxh3_64(lane.as_bytes()), self.since)
    }

    /// The message for the channel `name` at `now`. It contains no value of an event.
    pub(super) fn notice(&self, name: &str, settings: Option<DigestSettings>, now: i64) -> Notice {
        let (total, minutes) = (grouped(self.total()), (now - self.since + MINUTE_MS - 1).max(MINUTE_MS) / MINUTE_MS);
        let worst = self.counts.keys().max().map_or("", |worst| worst.as_str());
        let counts =
            self.counts.iter().rev().map(|(severity, count)| format!("{} {}", grouped(*count), severity.as_str()));
        let counts = counts.collect::<Vec<_>>().join(", ");
        let limit = settings.map_or_else(String::new, |settings| {
            format!(
                " The channel got {} messages within an hour (alert.digest.{name}).",
                settings.messages_per_hour_max
            )
        });
        let mut text = format!("{total} alerts were collected: {counts}.{limit}\nIncidents:");
        for Named { incident, severity } in &self.named {
            let _ = write!(text, " {} ({})", IncidentId(*incident), severity.as_str());
        }
        let since = rfc3339(self.since).replace('T', " ").replace('Z', "");
        let _ = write!(
            text,
            "\nAll of them: tokenwarden sql \"SELECT DISTINCT incident_id FROM actions WHERE kind = 'alert_{name}' AND \
             outcome = 'collected' AND requested_at >= '{since}'\""
        );
        let title = format!("Digest of {total} alerts in {minutes} min, highest severity: {worst}");
        Notice { title, text, at: now, about: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spent_messages_expire_after_an_hour() {
        let settings = DigestSettings { messages_per_hour_max: 2, below: Severity::Critical, interval: Duration::ZERO };
        let mut spent = Spent::default();
        spent.add(0);
        assert!(!spent.is_over(&settings, 0));
        spent.add(1_000);
        assert!(spent.is_over(&settings, HOUR_MS - 1) && !spent.is_over(&settings, HOUR_MS));
    }

    #[test]
    fn digest_counts_alerts_and_names_incidents() {
        let mut digest = Digest::new(1_795_000_000_000, 0);
        for incident in 0..1_200 {
            let severity = if incident == 700 { Severity::High } else { Severity::Low };
            digest.add(&Collected { key: String::new(), incident, severity });
        }
        let notice = digest.notice("soc", None, 1_795_000_060_001);
        assert_eq!(notice.title, "Digest of 1,200 alerts in 2 min, highest severity: high");
        assert!(notice.text.starts_with(
            "1,200 alerts were collected: 1 high, 1,199 low.\nIncidents: INC-00000000000002BC (high) INC-"
        ));
        assert_eq!(notice.text.matches("INC-").count(), NAMED_MAX);
        assert!(notice.text.contains("requested_at >= '2026-11-18 11:06:40'"), "{}", notice.text);
    }
}
