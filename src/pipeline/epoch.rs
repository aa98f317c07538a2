//! Results of messages between their processing and their way out.

use crate::appearance::Appearance;
use crate::checkpoint::{Checkpoint, DeadLetter, Position, Spot};
use crate::enrichment::EnrichedEvent;
use crate::port::{EventRow, Message, ResultRecord, Rows};
use crate::tally::Tally;
use crate::token::TokenHasher;
use crate::verdict::{Incident, Outcome};
use crate::wire;

/// Form in which an epoch collects verdicts, besides the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerdictOutput {
    #[default]
    None,
    /// Lines of JSON, for a file.
    Lines,
    /// A record for each event, for a topic.
    Records,
}

/// An appearance and the place of its event.
#[derive(Debug)]
pub(crate) struct Appeared {
    /// Position of the message that contains the event, and the event's index in it.
    pub(crate) position: Position,
    pub(crate) index: u32,
    pub(crate) appearance: Box<Appearance>,
}

/// Results of some messages that have not left the worker yet.
pub struct Epoch<R> {
    /// Encoded rows for the store.
    pub rows: R,
    /// Incidents for the outbox.
    pub incidents: Vec<Incident>,
    /// Dead letters for the source. They are also among the rows.
    pub letters: Vec<DeadLetter>,
    /// One JSON line per event, if requested.
    pub verdicts: Option<Vec<u8>>,
    /// One record per event, if requested.
    pub(crate) records: Option<Vec<ResultRecord>>,
    /// With [`crate::engine::Settings::campaigns`].
    pub(crate) appearances: Vec<Appeared>,
    /// Offsets to commit when all results are stored.
    pub(crate) checkpoint: Checkpoint,
    pub tally: Tally,
}

impl<R: Rows> Epoch<R> {
    pub fn new(rows: R) -> Self {
        Self {
            rows,
            incidents: Vec::new(),
            letters: Vec::new(),
            verdicts: None,
            records: None,
            appearances: Vec::new(),
            checkpoint: Checkpoint::default(),
            tally: Tally::default(),
        }
    }

    /// The same epoch, which collects verdicts as `output`.
    #[must_use]
    pub fn with_verdicts(self, output: VerdictOutput) -> Self {
        let verdicts = (output == VerdictOutput::Lines).then(Vec::new);
        let records = (output == VerdictOutput::Records).then(Vec::new);
        Self { verdicts, records, ..self }
    }

    /// Removes all results and keeps the buffers.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.checkpoint.next.clear();
        self.clear_published();
    }

    /// Removes what is published before the rows: everything except the rows and the checkpoint.
    pub(crate) fn clear_published(&mut self) {
        self.incidents.clear();
        self.letters.clear();
        self.appearances.clear();
        if let Some(verdicts) = &mut self.verdicts {
            verdicts.clear();
        }
        if let Some(records) = &mut self.records {
            records.clear();
        }
        self.tally = Tally::default();
    }

    /// Size of rows, verdicts and dead letters, bytes.
    pub(crate) fn bytes(&self) -> usize {
        let letters: usize = self.letters.iter().map(|letter| letter.payload.len()).sum();
        let records: usize = self.records.iter().flatten().map(ResultRecord::bytes).sum();
        self.rows.bytes() + self.verdicts.as_ref().map_or(0, Vec::len) + records + letters
    }

    /// `index`: index of the event in `message`. `scored_at`: event time; `ingested_at`: wall clock.
    pub(super) fn fan_out(
        &mut self,
        event: &EnrichedEvent<'_>,
        outcome: Outcome,
        (message, index): (&Message<'_>, u32),
        (scored_at, ingested_at): (i64, i64),
    ) {
        self.tally.count(&outcome);
        let position = message.in_rows();
        self.rows.push_event(&EventRow { event, outcome: &outcome, position, index, scored_at, ingested_at });
        if let Some(verdicts) = &mut self.verdicts {
            wire::verdict::encode(verdicts, event, &outcome);
        }
        if let Some(records) = &mut self.records {
            let mut json = Vec::new();
            wire::verdict::encode(&mut json, event, &outcome);
            // The line feed.
            json.pop();
            let key = event.event.subject_key();
            records.push(ResultRecord { position: message.position.clone(), index, key, json });
        }
        if let Some(incident) = outcome.incident {
            self.rows.push_incident(&incident);
            self.incidents.push(*incident);
        }
    }

    /// Adds a change of an incident that is not the result of one event.
    pub(crate) fn add_incident(&mut self, incident: Incident) {
        self.tally.incidents += 1;
        self.rows.push_incident(&incident);
        self.incidents.push(incident);
    }

    /// Makes the message a dead letter, with bearer tokens replaced.
    pub(super) fn park(
        &mut self,
        message: &Message<'_>,
        now: i64,
        (reason, at): (String, Option<Spot>),
        hasher: &TokenHasher,
    ) {
        self.tally.dead_letters += 1;
        let letter = DeadLetter {
            position: message.original().clone(),
            received_at: now,
            reason,
            at,
            payload: wire::redact(message.payload, hasher),
        };
        self.rows.push_dead_letter(&letter);
        self.letters.push(letter);
    }
}
