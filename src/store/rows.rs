//! Encodes an epoch's rows into one buffer per table.

use std::collections::HashSet;

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use super::native::{Block, Row};
use super::tables::{
    ACTIONS, DEAD_LETTERS, INCIDENTS, TOKEN_EVENTS, Table, put_action, put_dead_letter, put_event, put_incident,
};
use crate::checkpoint::DeadLetter;
use crate::port::{ActionRow, EventRow, Rows, SavedRows};
use crate::verdict::Incident;

/// Odd, with well mixed bits: the first 128 bits of the golden ratio.
const IDENTITY_FACTOR: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

/// Rows of one table, ready to send.
#[derive(Clone)]
pub(super) struct Batch {
    pub(crate) table: &'static Table,
    block: Block,
    /// Number of parts in `identity`.
    parts: u32,
    /// Hash of the content that identifies the rows, in order. Times of writing are not part of it, so that the same
    /// events have the same identity when they are read again after a crash.
    identity: u128,
}

impl Batch {
    fn new(table: &'static Table) -> Self {
        Self { table, block: Block::new(table.columns.iter().map(|(_, kind)| *kind)), parts: 0, identity: 0 }
    }

    fn push(&mut self, identity: &[&[u8]], write: impl FnOnce(&mut Row<'_>)) {
        for part in identity {
            // A polynomial over the hashes of the parts, which depends on their order and distinguishes `ab, c` from
            // `a, bc`. Hashing each part separately takes a third of the time of one incremental hash.
            self.identity = self.identity.wrapping_mul(IDENTITY_FACTOR).wrapping_add(xxh3_128(part));
        }
        self.parts = self.parts.wrapping_add(identity.len() as u32);
        self.block.row(write);
    }

    /// Adds the rows of `other`, with the identity that pushing them here would have given.
    fn append(&mut self, other: &Self) {
        self.identify(other.parts, other.identity);
        self.block.append(&other.block);
    }

    fn identify(&mut self, parts: u32, identity: u128) {
        self.identity = self.identity.wrapping_mul(IDENTITY_FACTOR.wrapping_pow(parts)).wrapping_add(identity);
        self.parts = self.parts.wrapping_add(parts);
    }

    fn save(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.parts.to_le_bytes());
        to.extend_from_slice(&self.identity.to_le_bytes());
        self.block.save(to);
    }

    /// Adds the rows at the start of `from`; returns the bytes after them.
    fn load<'a>(&mut self, from: &'a [u8]) -> Option<&'a [u8]> {
        let (parts, from) = from.split_first_chunk()?;
        let (identity, from) = from.split_first_chunk()?;
        self.identify(u32::from_le_bytes(*parts), u128::from_le_bytes(*identity));
        self.block.load(from)
    }

    fn clear(&mut self) {
        self.block.clear();
        self.parts = 0;
        self.identity = 0;
    }

    /// The messages of the rows of `token_events`, by partition.
    pub(super) fn spans(&self) -> Vec<Span> {
        let topics = self.block.texts(self.table.column("source_topic"));
        let partitions = self.block.numbers(self.table.column("source_partition")).map(i32::from_le_bytes);
        let offsets = self.block.numbers(self.table.column("source_offset")).map(i64::from_le_bytes);
        let mut spans: Vec<Span> = Vec::new();
        for ((topic, partition), offset) in topics.into_iter().zip(partitions).zip(offsets) {
            let is_same = |span: &&mut Span| span.partition == partition && span.topic.as_bytes() == topic;
            match spans.iter_mut().rfind(is_same) {
                Some(span) => {
                    span.first = span.first.min(offset);
                    span.last = span.last.max(offset);
                }
                None => spans.push(Span {
                    topic: String::from_utf8_lossy(topic).into_owned(),
                    partition,
                    first: offset,
                    last: offset,
                }),
            }
        }
        spans
    }

    /// The rows of `token_events` that are not among `known`.
    pub(super) fn without(&self, known: &HashSet<RowKey>) -> Self {
        let ids = self.block.numbers(self.table.column("row_id")).map(u64::from_le_bytes);
        let times = self.block.numbers(self.table.column("timestamp")).map(i64::from_le_bytes);
        let events = self.block.texts(self.table.column("event_id"));
        let incidents = self.block.texts(self.table.column("incident_id"));
        let rows = ids.zip(times).zip(events).zip(incidents);
        let keep: Vec<bool> =
            rows.map(|(((id, at), event), incident)| !known.contains(&RowKey::of(id, at, [event, incident]))).collect();
        let mut rest = self.clone();
        rest.block.retain(&keep);
        let kept: Vec<u8> = keep.iter().map(|keep| u8::from(*keep)).collect();
        rest.identify(1, xxh3_128(&kept));
        rest
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.block.rows() == 0
    }

    /// The rows in the format `Native`.
    pub(super) fn encoded(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.block.bytes() + self.block.bytes() / 8);
        self.block.send(self.table.columns, &mut bytes);
        bytes
    }

    /// For one token, the server stores one batch and silently drops others. The token has 128 bits, so that two
    /// batches never share one.
    pub(super) fn deduplication_token(&self) -> String {
        format!("{}-{}-{:032x}", self.table.name, self.block.rows(), self.identity)
    }
}

/// Messages of one partition from which a batch has rows: the first and the last offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) first: i64,
    pub(super) last: i64,
}

/// Hash of what distinguishes a row of `token_events`. The id of a row is not enough: a file can be replaced by another
/// one with the same name. A row with another incident is another judgement of the same event, and replaces the earlier
/// row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RowKey(u64);

impl RowKey {
    /// `texts`: event id and incident id.
    pub(super) fn of(row_id: u64, timestamp: i64, texts: [&[u8]; 2]) -> Self {
        let of_row = xxh3_64_with_seed(&timestamp.to_le_bytes(), row_id);
        Self(texts.into_iter().fold(of_row, |hash, text| xxh3_64_with_seed(text, hash)))
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows of {}", self.block.rows(), self.table.name)
    }
}

/// An epoch's rows, one batch per table.
#[derive(Debug)]
pub struct EpochRows {
    events: Batch,
    incidents: Batch,
    actions: Batch,
    dead_letters: Batch,
}

impl EpochRows {
    pub fn new() -> Self {
        Self {
            events: Batch::new(&TOKEN_EVENTS),
            incidents: Batch::new(&INCIDENTS),
            actions: Batch::new(&ACTIONS),
            dead_letters: Batch::new(&DEAD_LETTERS),
        }
    }

    /// In the order of writing: rows that an incident refers to are written before it.
    pub(super) const fn batches(&self) -> [&Batch; 4] {
        [&self.events, &self.incidents, &self.actions, &self.dead_letters]
    }

    const fn batches_mut(&mut self) -> [&mut Batch; 4] {
        [&mut self.events, &mut self.incidents, &mut self.actions, &mut self.dead_letters]
    }
}

impl Default for EpochRows {
    fn default() -> Self {
        Self::new()
    }
}

impl Rows for EpochRows {
    fn push_event(&mut self, row: &EventRow<'_>) {
        let position = row.position;
        let numbers =
            (i128::from(position.partition) << 96) | i128::from(row.index) << 64 | i128::from(position.offset as u64);
        let identity = [
            row.event.event.event_id.as_bytes(),
            position.topic.as_bytes(),
            &position.topic_id.0,
            &numbers.to_le_bytes(),
        ];
        self.events.push(&identity, |to| put_event(to, row));
    }

    fn push_incident(&mut self, incident: &Incident) {
        let identity = [
            &incident.id.0.to_le_bytes(),
            &incident.updated_at.millis().to_le_bytes(),
            incident.event_id.as_bytes(),
            &incident.change.to_le_bytes(),
            incident.severity.as_str().as_bytes(),
            incident.action.as_str().as_bytes(),
            incident.reason.as_bytes(),
        ];
        self.incidents.push(&identity, |to| put_incident(to, incident));
    }

    fn push_action(&mut self, action: &ActionRow) {
        let identity = [
            action.action_id.as_bytes(),
            &action.attempt.to_le_bytes(),
            &action.requested_at.to_le_bytes(),
            action.outcome.as_str().as_bytes(),
        ];
        self.actions.push(&identity, |to| put_action(to, action));
    }

    fn push_dead_letter(&mut self, letter: &DeadLetter) {
        let byte = letter.at.map_or(0, |at| at.byte as u64);
        let identity = [
            letter.position.topic.as_bytes(),
            &letter.position.topic_id.0,
            &letter.position.partition.to_le_bytes(),
            &letter.position.offset.to_le_bytes(),
            letter.reason.as_bytes(),
            &byte.to_le_bytes(),
            &letter.payload,
        ];
        self.dead_letters.push(&identity, |to| put_dead_letter(to, letter));
    }

    fn len(&self) -> usize {
        self.batches().iter().map(|batch| batch.block.rows()).sum()
    }

    fn bytes(&self) -> usize {
        self.batches().iter().map(|batch| batch.block.bytes()).sum()
    }

    fn clear(&mut self) {
        self.batches_mut().into_iter().for_each(Batch::clear);
    }
}

impl SavedRows for EpochRows {
    fn append(&mut self, other: &Self) {
        for (to, from) in self.batches_mut().into_iter().zip(other.batches()) {
            to.append(from);
        }
    }

    fn save(&self, to: &mut Vec<u8>) {
        self.batches().into_iter().for_each(|batch| batch.save(to));
    }

    fn load(&mut self, from: &[u8]) -> Option<()> {
        let rest = self.batches_mut().into_iter().try_fold(from, |from, batch| batch.load(from))?;
        rest.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tables::row_id;

    fn letter(offset: i64) -> DeadLetter {
        let position = crate::checkpoint::Position::new("t", 0, offset);
        let payload = vec![0xff; offset as usize];
        DeadLetter { position, received_at: 7, reason: "unreadable".to_owned(), at: None, payload }
    }

    fn rows(offsets: std::ops::Range<i64>) -> EpochRows {
        let mut rows = EpochRows::new();
        offsets.for_each(|offset| rows.push_dead_letter(&letter(offset)));
        rows
    }

    #[test]
    fn recreated_topic_gives_other_row_ids() {
        let old = crate::checkpoint::Position::new("t", 0, 5);
        let new = crate::checkpoint::Position { topic_id: crate::checkpoint::TopicId([1; 16]), ..old.clone() };
        assert_eq!(row_id(&old, 0), row_id(&old.clone(), 0));
        assert_ne!(row_id(&old, 0), row_id(&new, 0));
        assert_ne!(row_id(&old, 0), row_id(&old, 1));
        let token = |position| {
            let mut rows = EpochRows::new();
            rows.push_dead_letter(&DeadLetter { position, ..letter(5) });
            sent(&rows).into_iter().map(|(token, _)| token).collect::<Vec<_>>()
        };
        assert_eq!(token(old.clone()), token(old.clone()));
        assert_ne!(token(old), token(new), "with one token ClickHouse would drop the rows");
    }

    fn sent(rows: &EpochRows) -> Vec<(String, Vec<u8>)> {
        rows.batches().iter().map(|batch| (batch.deduplication_token(), batch.encoded())).collect()
    }

    #[test]
    fn saved_rows_are_sent_as_if_pushed() {
        let (first, second) = (rows(0..20), rows(20..33));
        let mut appended = rows(0..0);
        appended.append(&first);
        appended.append(&second);
        let mut loaded = rows(0..0);
        for part in [&first, &second] {
            let mut saved = Vec::new();
            part.save(&mut saved);
            loaded.load(&saved).expect("what was saved");
            for length in 0..saved.len() {
                assert!(rows(0..0).load(&saved[..length]).is_none(), "cut at {length}");
            }
        }
        for together in [&appended, &loaded] {
            assert_eq!(together.len(), 33);
            assert_eq!(sent(together), sent(&rows(0..33)));
        }
        let mut other_order = second;
        other_order.append(&first);
        assert_ne!(sent(&other_order), sent(&appended));
    }
}
