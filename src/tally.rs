//! Counts of processed messages, events and verdicts, for metrics and summaries.

use std::sync::Arc;

use crate::format::Format;
use crate::verdict::{Outcome, Verdict};

/// Alerts that were withheld by the alert budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Withheld {
    pub(crate) alerts: u64,
    /// The highest log-odds among them.
    pub(crate) highest: f64,
}

impl Default for Withheld {
    fn default() -> Self {
        Self { alerts: 0, highest: f64::NEG_INFINITY }
    }
}

impl Withheld {
    pub(crate) fn add(&mut self, other: Self) {
        self.alerts += other.alerts;
        self.highest = self.highest.max(other.highest);
    }
}

/// Numbers of messages, events and results.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    pub(crate) messages: u64,
    /// Scored events.
    pub events: u64,
    /// Events that were delivered before: the same event id and content.
    pub(crate) duplicates: u64,
    pub dead_letters: u64,
    /// Events whose message key is not their subject key. They may have been scored with the state of another partition.
    pub key_mismatches: u64,
    pub(crate) watched: u64,
    pub(crate) alerted: u64,
    pub(crate) revoked: u64,
    /// Incidents opened or changed.
    pub(crate) incidents: u64,
    pub(crate) withheld: Withheld,
    /// Records that do not concern a token, by reason.
    pub(crate) skipped: Vec<(&'static str, u64)>,
    /// Notes for the producers of a topic, with their numbers.
    pub noted: Vec<(Arc<str>, Note, u64)>,
}

/// A problem that is counted by topic, because the topic's producers can correct it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Note {
    /// An optional field that could not be read, by its name in the topic's format.
    Unreadable(&'static str),
    /// A use whose address is missing or cannot be read, in a topic of this format.
    WithoutAddress(Format),
    /// A `confirmed` event of a topic without `confirmed = true`.
    ConfirmedIgnored,
    /// A value that was replaced because it looks like a bearer token.
    Redacted,
    /// A sampled token id that is as long and as random as a secret.
    OpaqueIds,
}

impl Tally {
    /// Adds the counts of `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.events += other.events;
        self.duplicates += other.duplicates;
        self.dead_letters += other.dead_letters;
        self.key_mismatches += other.key_mismatches;
        self.watched += other.watched;
        self.alerted += other.alerted;
        self.revoked += other.revoked;
        self.incidents += other.incidents;
        self.withheld.add(other.withheld);
        for (reason, count) in &other.skipped {
            *self.skipped_for(reason) += count;
        }
        for (topic, note, count) in &other.noted {
            self.note(topic, *note, *count);
        }
    }

    /// Adds `count` to `note` of a topic.
    pub(crate) fn note(&mut self, topic: &Arc<str>, note: Note, count: u64) {
        match self.noted.iter_mut().find(|(of, known, _)| *known == note && of == topic) {
            Some((.., known)) => *known += count,
            None => self.noted.push((Arc::clone(topic), note, count)),
        }
    }

    /// Number of records that were skipped for any reason.
    pub(crate) fn skipped_total(&self) -> u64 {
        self.skipped.iter().map(|(_, count)| count).sum()
    }

    /// Counts a record that does not concern a token.
    pub(crate) fn skip(&mut self, reason: &'static str) {
        *self.skipped_for(reason) += 1;
    }

    fn skipped_for(&mut self, reason: &'static str) -> &mut u64 {
        let at = self.skipped.iter().position(|(known, _)| *known == reason).unwrap_or_else(|| {
            self.skipped.push((reason, 0));
            self.skipped.len() - 1
        });
        &mut self.skipped[at].1
    }

    /// Counts the outcome of an event.
    pub(crate) fn count(&mut self, outcome: &Outcome) {
        self.events += 1;
        match outcome.verdict {
            Verdict::Allow => {}
            Verdict::Watch => self.watched += 1,
            Verdict::Alert => self.alerted += 1,
            Verdict::Revoke => self.revoked += 1,
        }
        self.incidents += u64::from(outcome.incident.is_some());
        if outcome.withheld {
            self.withheld.add(Withheld { alerts: 1, highest: outcome.log_odds });
        }
    }
}
