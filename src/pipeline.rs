//! The way of an event, whole and in order: `decode → enrich → step → fan out`. Read this file first.
//!
//! One thread drives it, message by message. Everything before the fan-out is memory only; the fan-out writes into
//! an [`Epoch`], and nothing of an epoch is visible outside before it is closed, by the [`worker`](crate::worker).
//! An ordinary event is borrowed from its message from end to end and allocates nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, DeadLetter, Position};
use crate::engine::{self, State, Step};
use crate::enrich::Enricher;
use crate::enrichment::EnrichedEvent;
use crate::port::{EventRow, Message, Rows};
use crate::rule::RuleSet;
use crate::telemetry;
use crate::token::TokenHasher;
use crate::verdict::{Incident, Outcome, Verdict};
use crate::wire::{self, Decoded, Decoder, Format};

/// What all partitions of one thread share.
pub struct Pipeline {
    pub enricher: Enricher,
    pub rules: Arc<RuleSet>,
    hasher: TokenHasher,
    settings: engine::Settings,
}

/// What one partition owns, and nobody else touches: its decoder and its state; or what several own that are read as
/// one.
pub struct Partition {
    decoder: Decoder,
    /// At least one.
    states: Vec<State>,
}

impl Pipeline {
    #[must_use]
    pub fn new(enricher: Enricher, rules: Arc<RuleSet>, hasher: TokenHasher, settings: engine::Settings) -> Self {
        Self { enricher, rules, hasher, settings }
    }

    /// A partition that remembers nothing yet, of messages in `format`.
    #[must_use]
    pub fn partition(&self, format: Format) -> Partition {
        self.partitions(format, 1)
    }

    /// So many partitions that remember nothing yet and are read as one: each event meets the state of the partition
    /// that its subject key belongs to, and results keep the order of the messages. They share the alert budget evenly,
    /// rounded up.
    #[must_use]
    pub fn partitions(&self, format: Format, count: u16) -> Partition {
        let decoder = Decoder::new(format, self.hasher.clone());
        let count = u32::from(count.max(1));
        let settings = self.settings.for_one_of(count);
        Partition { decoder, states: (0..count).map(|_| State::new(settings.clone())).collect() }
    }

    /// Takes one message all the way into `epoch`. Total: a message that cannot be read, or that makes our own code
    /// panic, becomes a dead letter and the next one is taken as if nothing had been.
    ///
    /// `now`: milliseconds since the epoch, wall clock; stamped on rows, never judged.
    pub fn process<R: Rows>(
        &mut self,
        partition: &mut Partition,
        message: &Message<'_>,
        now: i64,
        epoch: &mut Epoch<R>,
    ) {
        let taken = catch_unwind(AssertUnwindSafe(|| self.take(partition, message, now, epoch)));
        if taken.is_err() {
            let place = telemetry::panicked_at().map_or_else(String::new, |place| format!(" at {place}"));
            epoch.park(message, now, format!("this message made the program panic{place}"), &self.hasher);
        }
        epoch.checkpoint.advance(message.position);
    }

    fn take<R: Rows>(&mut self, partition: &mut Partition, message: &Message<'_>, now: i64, epoch: &mut Epoch<R>) {
        let Partition { decoder, states } = partition;
        epoch.tally.messages += 1;
        decoder.decode(message.payload, &mut |decoded| {
            let event = match decoded {
                Ok(Decoded::Event(event)) => event,
                Ok(Decoded::Skipped(reason)) => return epoch.tally.skip(reason),
                Err(error) => return epoch.park(message, now, error.to_string(), &self.hasher),
            };
            if let Some(key) = message.key
                && !event.is_keyed_by(key)
            {
                epoch.tally.key_mismatches += 1;
            }
            let event = self.enricher.enrich(event);
            let state = match states.as_mut_slice() {
                [only] => only,
                several => &mut several[event.event.partition_among(several.len())],
            };
            match engine::step(state, &self.rules, &event) {
                Step::Duplicate => epoch.tally.duplicates += 1,
                Step::Judged(outcome) => epoch.fan_out(&event, outcome, message.position, now),
            }
        });
    }
}

impl Partition {
    pub fn states(&self) -> impl Iterator<Item = &State> {
        self.states.iter()
    }

    /// Bearer values that the decoder has replaced so far.
    #[must_use]
    pub fn redactions(&self) -> u64 {
        self.decoder.redactions()
    }
}

/// What came of some messages: all that the outside is to see of them, and nothing that it sees yet.
pub struct Epoch<R> {
    /// For the store, encoded as they came.
    pub rows: R,
    /// For the outbox.
    pub incidents: Vec<Incident>,
    /// For the source's dead letters; they are among the rows too.
    pub letters: Vec<DeadLetter>,
    /// One JSON line an event, where verdicts are wanted.
    pub verdicts: Option<Vec<u8>>,
    /// Where to go on once all of this is done.
    pub checkpoint: Checkpoint,
    pub tally: Tally,
}

impl<R: Rows> Epoch<R> {
    #[must_use]
    pub fn new(rows: R, with_verdicts: bool) -> Self {
        Self {
            rows,
            incidents: Vec::new(),
            letters: Vec::new(),
            verdicts: with_verdicts.then(Vec::new),
            checkpoint: Checkpoint::default(),
            tally: Tally::default(),
        }
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.incidents.clear();
        self.letters.clear();
        if let Some(verdicts) = &mut self.verdicts {
            verdicts.clear();
        }
        self.checkpoint.next.clear();
        self.tally = Tally::default();
    }

    /// Nothing was taken since it began.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.tally.messages == 0
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let letters: usize = self.letters.iter().map(|letter| letter.payload.len()).sum();
        self.rows.bytes() + self.verdicts.as_ref().map_or(0, Vec::len) + letters
    }

    fn fan_out(&mut self, event: &EnrichedEvent<'_>, outcome: Outcome, position: &Position, now: i64) {
        self.tally.judge(&outcome);
        self.rows.push_event(&EventRow { event, outcome: &outcome, position, ingested_at: now });
        if let Some(verdicts) = &mut self.verdicts {
            wire::verdict::encode(verdicts, event, &outcome);
        }
        if let Some(incident) = outcome.incident {
            self.rows.push_incident(&incident);
            self.incidents.push(*incident);
        }
    }

    /// Keeps the whole message, bearer values replaced, where people can find it.
    fn park(&mut self, message: &Message<'_>, now: i64, reason: String, hasher: &TokenHasher) {
        self.tally.dead_letters += 1;
        let letter = DeadLetter {
            position: message.position.clone(),
            received_at: now,
            reason,
            payload: wire::redact(message.payload, hasher),
        };
        self.rows.push_dead_letter(&letter);
        self.letters.push(letter);
    }
}

/// Counts of what became of messages and events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub messages: u64,
    /// Judged and handed on.
    pub events: u64,
    /// Seen before under the same event id.
    pub duplicates: u64,
    pub dead_letters: u64,
    /// Events whose message is not keyed by their subject key: they may have met a stranger's partition.
    pub key_mismatches: u64,
    pub watched: u64,
    pub alerted: u64,
    pub revoked: u64,
    /// Incidents opened or changed.
    pub incidents: u64,
    /// Records that speak of no token, by reason.
    pub skipped: Vec<(&'static str, u64)>,
}

impl Tally {
    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.events += other.events;
        self.duplicates += other.duplicates;
        self.dead_letters += other.dead_letters;
        self.key_mismatches += other.key_mismatches;
        self.watched += other.watched;
        self.alerted += other.alerted;
        self.revoked += other.revoked;
        self.incidents += other.incidents;
        for (reason, count) in &other.skipped {
            *self.skipped_for(reason) += count;
        }
    }

    /// Records skipped for any reason.
    #[must_use]
    pub fn skipped_total(&self) -> u64 {
        self.skipped.iter().map(|(_, count)| count).sum()
    }

    fn skip(&mut self, reason: &'static str) {
        *self.skipped_for(reason) += 1;
    }

    fn skipped_for(&mut self, reason: &'static str) -> &mut u64 {
        let at = self.skipped.iter().position(|(known, _)| *known == reason).unwrap_or_else(|| {
            self.skipped.push((reason, 0));
            self.skipped.len() - 1
        });
        &mut self.skipped[at].1
    }

    fn judge(&mut self, outcome: &Outcome) {
        self.events += 1;
        match outcome.verdict {
            Verdict::Allow => {}
            Verdict::Watch => self.watched += 1,
            Verdict::Alert => self.alerted += 1,
            Verdict::Revoke => self.revoked += 1,
        }
        self.incidents += u64::from(outcome.incident.is_some());
    }
}
