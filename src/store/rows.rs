//! Encodes an epoch's rows into one buffer per table. The columns of each table are listed once, next to the code that
//! writes them in the same order. The server checks names and types at every insert.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128};

use super::row_binary as put;
use crate::checkpoint::{DeadLetter, Position};
use crate::place::NetworkClass;
use crate::port::{ActionRow, EventRow, Rows, SavedRows};
use crate::route;
use crate::verdict::{Incident, Signal};

/// A table to write: its name, and name and type of each column in the order of writing.
#[derive(Debug)]
pub(super) struct Table {
    pub name: &'static str,
    pub columns: &'static [(&'static str, &'static str)],
}

impl Table {
    /// The statement before the rows.
    pub(super) fn insert(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|(name, _)| format!("`{name}`")).collect();
        format!("INSERT INTO {} ({}) FORMAT RowBinaryWithNamesAndTypes", self.name, columns.join(", "))
    }
}

const TIME: &str = "DateTime64(3, 'UTC')";
const NULLABLE_TIME: &str = "Nullable(DateTime64(3, 'UTC'))";
const TEXT: &str = "String";
/// Type of texts with few distinct values.
const WORD: &str = "LowCardinality(String)";
const TEXTS: &str = "Array(String)";
const WORDS: &str = "Array(LowCardinality(String))";
const NUMBERS: &str = "Array(Float64)";

pub(super) static TABLES: [&Table; 4] = [&TOKEN_EVENTS, &INCIDENTS, &ACTIONS, &DEAD_LETTERS];

static TOKEN_EVENTS: Table = Table {
    name: "token_events",
    columns: &[
        ("event_id", TEXT),
        ("timestamp", TIME),
        ("ingested_at", TIME),
        ("kind", WORD),
        ("tenant_id", WORD),
        ("user_id", TEXT),
        ("app_id", WORD),
        ("family_id", TEXT),
        ("token_id", TEXT),
        ("token_type", WORD),
        ("parent_token_id", TEXT),
        ("session_id", TEXT),
        ("baseline", "UInt64"),
        ("ip_address", "IPv6"),
        ("asn", "UInt32"),
        ("as_org", WORD),
        ("network_class", WORD),
        ("country", WORD),
        ("city", WORD),
        ("latitude", "Nullable(Float32)"),
        ("longitude", "Nullable(Float32)"),
        ("accuracy_km", "Nullable(UInt16)"),
        ("user_agent", TEXT),
        ("client_family", WORD),
        ("client_version", WORD),
        ("device", WORD),
        ("client_fingerprint", TEXT),
        ("method", WORD),
        ("endpoint", TEXT),
        ("route", WORD),
        ("status", "UInt16"),
        ("bytes_out", "UInt64"),
        ("scopes", WORDS),
        ("issued_at", NULLABLE_TIME),
        ("expires_at", NULLABLE_TIME),
        ("binding", TEXT),
        ("verdict", WORD),
        ("score", "Float64"),
        ("log_odds", "Float64"),
        ("p_value", "Float64"),
        ("prior_log_odds", "Nullable(Float64)"),
        ("alert_from", "Nullable(Float64)"),
        ("rules", WORDS),
        ("reasons", TEXTS),
        ("signal_shares", NUMBERS),
        ("signal_p_values", NUMBERS),
        ("signal_fired", "Array(Bool)"),
        ("signal_observed", TEXTS),
        ("signal_expected", TEXTS),
        ("decisive", WORDS),
        ("incident_id", TEXT),
        ("action", WORD),
        ("mode", WORD),
        ("source_topic", WORD),
        ("source_partition", "Int32"),
        ("source_offset", "Int64"),
        ("source_index", "UInt32"),
        ("row_id", "UInt64"),
        ("attrs", "Map(LowCardinality(String), String)"),
    ],
};

fn put_event(to: &mut Vec<u8>, row: &EventRow<'_>) {
    let enriched = row.event;
    let event = &enriched.event;
    let outcome = row.outcome;

    put::text(to, &event.event_id);
    put::i64(to, event.timestamp.millis());
    put::i64(to, row.ingested_at);
    put::text(to, event.kind.as_str());
    put::optional_text(to, event.tenant_id.as_deref());
    put::optional_text(to, event.user_id.as_deref());
    put::optional_text(to, event.app_id.as_deref());
    put::optional_text(to, event.family_id.as_deref());
    put::text(to, event.token_id.as_str());
    put::text(to, event.token_type.as_str());
    put::text(to, event.parent_token_id.as_ref().map_or("", |parent| parent.as_str()));
    put::optional_text(to, event.session_id.as_deref());
    put::u64(to, enriched.baseline_id().0);

    put::ipv6(to, event.address.map_or(std::net::Ipv6Addr::UNSPECIFIED, crate::event::Address::to_ipv6));
    match enriched.network.as_deref() {
        Some(network) => {
            put::u32(to, network.asn);
            put::text(to, &network.org);
            put::text(to, network_class(network.class));
        }
        None => to.extend_from_slice(&[0; 6]),
    }
    match enriched.place.as_deref() {
        Some(place) => {
            put::text(to, place.country.as_str());
            put::text(to, &place.city);
            put::nullable(to, place.coordinates.map(|at| at.latitude), put::f32);
            put::nullable(to, place.coordinates.map(|at| at.longitude), put::f32);
            put::nullable(to, place.coordinates.and_then(|at| at.accuracy_km), put::u16);
        }
        None => to.extend_from_slice(&[0, 0, 1, 1, 1]),
    }

    put::optional_text(to, event.user_agent.as_deref());
    put::text(to, &enriched.client.family);
    put::text(to, &enriched.client.version);
    put::text(to, enriched.client.device.as_str());
    put::optional_text(to, event.client_fingerprint.as_deref());
    put::optional_text(to, event.method.as_deref());
    let endpoint = event.endpoint.as_deref().unwrap_or_default();
    put::text(to, endpoint);
    put::text(to, &route::template(endpoint));
    put::u16(to, event.status.unwrap_or_default());
    put::u64(to, event.bytes_out.unwrap_or_default());
    put::array(to, event.scopes.iter(), |to, scope| put::text(to, scope));
    put::nullable(to, event.issued_at, |to, at| put::i64(to, at.millis()));
    put::nullable(to, event.expires_at, |to, at| put::i64(to, at.millis()));
    put::optional_text(to, event.binding.as_deref());

    put::text(to, outcome.verdict.as_str());
    put::f64(to, outcome.score());
    put::f64(to, outcome.log_odds);
    put::f64(to, outcome.p_value);
    put::nullable(to, Some(outcome.prior_log_odds), put::f64);
    put::nullable(to, Some(outcome.alert_from), put::f64);
    put_signals(to, &outcome.signals);
    let decisive: smallvec::SmallVec<[_; 8]> = outcome.decisive().collect();
    put::array(to, decisive.iter(), |to, rule| put::text(to, rule.as_str()));
    match outcome.incident_id {
        // Few events belong to an incident.
        Some(id) => put::text(to, &id.to_string()),
        None => put::text(to, ""),
    }
    put::text(to, outcome.action.as_str());
    put::text(to, outcome.mode.as_str());

    put::text(to, &row.position.topic);
    put::i32(to, row.position.partition);
    put::i64(to, row.position.offset);
    put::u32(to, row.index);
    put::u64(to, row_id(row.position, row.index));
    put::length(to, event.attrs.len());
    for (name, value) in &event.attrs {
        put::text(to, name);
        put::text(to, value);
    }
}

/// Identifies the event: equal if the event is read again, different for every other one, whatever id the producer
/// chose.
fn row_id(position: &Position, index: u32) -> u64 {
    let Position { topic, topic_id, partition, offset } = position;
    let place = u128::from(*partition as u32) << 96 | u128::from(index) << 64 | u128::from(*offset as u64);
    // A topic that was deleted and created again has the same offsets with other messages.
    let topic = xxh3_64_with_seed(&topic_id.0, xxh3_64(topic.as_bytes()));
    xxh3_64_with_seed(&place.to_le_bytes(), topic)
}

/// The columns `rules` to `signal_expected`.
fn put_signals(to: &mut Vec<u8>, signals: &[Signal]) {
    if signals.is_empty() {
        // Seven empty arrays: most events have no signal.
        return to.extend_from_slice(&[0; 7]);
    }
    put_rules(to, signals);
    put::array(to, signals.iter(), |to, signal| put::f64(to, signal.p_value));
    put::array(to, signals.iter(), |to, signal| put::flag(to, signal.fired));
    put::array(to, signals.iter(), |to, signal| put::text(to, &signal.observed));
    put::array(to, signals.iter(), |to, signal| put::text(to, &signal.expected));
}

/// The columns `rules`, `reasons` and `signal_shares`.
fn put_rules(to: &mut Vec<u8>, signals: &[Signal]) {
    put::array(to, signals.iter(), |to, signal| put::text(to, signal.rule.as_str()));
    put::array(to, signals.iter(), |to, signal| put::text(to, &signal.reason));
    put::array(to, signals.iter(), |to, signal| put::f64(to, signal.share));
}

const fn network_class(class: NetworkClass) -> &'static str {
    match class {
        NetworkClass::Access => "access",
        NetworkClass::Hosting => "hosting",
        NetworkClass::Anonymiser => "anonymiser",
    }
}

static INCIDENTS: Table = Table {
    name: "incidents",
    columns: &[
        ("incident_id", TEXT),
        ("campaign_id", TEXT),
        ("opened_at", TIME),
        ("updated_at", TIME),
        ("severity", WORD),
        ("verdict", WORD),
        ("baseline", "UInt64"),
        ("subject", TEXT),
        ("tenant_id", WORD),
        ("token_id", TEXT),
        ("family_id", TEXT),
        ("user_id", TEXT),
        ("app_id", WORD),
        ("victims", "UInt32"),
        ("event_id", TEXT),
        ("change_id", "UInt64"),
        ("log_odds", "Float64"),
        ("rules", WORDS),
        ("reasons", TEXTS),
        ("signal_shares", NUMBERS),
        ("reason", TEXT),
        ("action", WORD),
        ("mode", WORD),
        ("target", TEXT),
    ],
};

fn put_incident(to: &mut Vec<u8>, incident: &Incident) {
    put::text(to, &incident.id.to_string());
    put::text(to, &incident.campaign_id.to_string());
    put::i64(to, incident.opened_at.millis());
    put::i64(to, incident.updated_at.millis());
    put::text(to, incident.severity.as_str());
    put::text(to, incident.verdict.as_str());
    put::u64(to, incident.baseline.0);
    put::text(to, &incident.subject);
    put::text(to, &incident.tenant_id);
    put::text(to, &incident.token_id);
    put::text(to, &incident.family_id);
    put::text(to, &incident.user_id);
    put::text(to, &incident.app_id);
    put::u32(to, incident.victims_total);
    put::text(to, &incident.event_id);
    put::u64(to, incident.change);
    put::f64(to, incident.log_odds);
    put_rules(to, &incident.signals);
    put::text(to, &incident.reason);
    put::text(to, incident.action.as_str());
    put::text(to, incident.mode.as_str());
    match &incident.revoke {
        Some(target) => put::text(to, &format!("{}:{}", target.kind(), target.id())),
        None => put::text(to, ""),
    }
}

static ACTIONS: Table = Table {
    name: "actions",
    columns: &[
        ("action_id", TEXT),
        ("incident_id", TEXT),
        ("requested_at", TIME),
        ("kind", WORD),
        ("target", TEXT),
        ("mode", WORD),
        ("attempt", "UInt32"),
        ("outcome", WORD),
        ("http_status", "UInt16"),
        ("latency_ms", "UInt32"),
        ("requested_by", WORD),
        ("reason", TEXT),
    ],
};

fn put_action(to: &mut Vec<u8>, action: &ActionRow) {
    put::text(to, &action.action_id);
    put::text(to, &action.incident_id);
    put::i64(to, action.requested_at);
    put::text(to, &action.kind);
    put::text(to, &action.target);
    put::text(to, action.mode.as_str());
    put::u32(to, action.attempt);
    put::text(to, &action.outcome);
    put::u16(to, action.http_status);
    put::u32(to, action.latency_ms);
    put::text(to, &action.requested_by);
    put::text(to, &action.reason);
}

static DEAD_LETTERS: Table = Table {
    name: "dead_letters",
    columns: &[
        ("source_topic", WORD),
        ("source_partition", "Int32"),
        ("source_offset", "Int64"),
        ("received_at", TIME),
        ("reason", TEXT),
        ("fault_byte", "UInt64"),
        ("fault_line", "UInt32"),
        ("fault_column", "UInt32"),
        ("payload", TEXT),
    ],
};

fn put_dead_letter(to: &mut Vec<u8>, letter: &DeadLetter) {
    put::text(to, &letter.position.topic);
    put::i32(to, letter.position.partition);
    put::i64(to, letter.position.offset);
    put::i64(to, letter.received_at);
    put::text(to, &letter.reason);
    // Lines count from 1, so 0 stands for the whole message.
    let (byte, line, column) = letter.at.map_or((0, 0, 0), |at| (at.byte, at.line, at.column));
    put::u64(to, byte as u64);
    put::u32(to, u32::try_from(line).unwrap_or(u32::MAX));
    put::u32(to, u32::try_from(column).unwrap_or(u32::MAX));
    put::bytes(to, &letter.payload);
}

/// Odd, with well mixed bits: the first 128 bits of the golden ratio.
const IDENTITY_FACTOR: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

/// Rows of one table, ready to send.
pub(super) struct Batch {
    pub table: &'static Table,
    /// Names and types, then the rows: `RowBinaryWithNamesAndTypes`.
    buffer: Vec<u8>,
    header_bytes: usize,
    rows: usize,
    /// Number of parts in `identity`.
    parts: u32,
    /// Hash of the content that identifies the rows, in order. Times of writing are not part of it, so that the same
    /// events have the same identity when they are read again after a crash.
    identity: u128,
}

impl Batch {
    fn new(table: &'static Table) -> Self {
        let mut buffer = Vec::new();
        put::length(&mut buffer, table.columns.len());
        table.columns.iter().for_each(|(name, _)| put::text(&mut buffer, name));
        table.columns.iter().for_each(|(_, kind)| put::text(&mut buffer, kind));
        Self { table, header_bytes: buffer.len(), buffer, rows: 0, parts: 0, identity: 0 }
    }

    fn push(&mut self, identity: &[&[u8]], write: impl FnOnce(&mut Vec<u8>)) {
        for part in identity {
            // A polynomial over the hashes of the parts, which depends on their order and distinguishes `ab, c` from
            // `a, bc`. Hashing each part separately takes a third of the time of one incremental hash.
            self.identity = self.identity.wrapping_mul(IDENTITY_FACTOR).wrapping_add(xxh3_128(part));
        }
        self.parts = self.parts.wrapping_add(identity.len() as u32);
        self.rows += 1;
        write(&mut self.buffer);
    }

    /// Adds rows that were encoded elsewhere, with the identity that pushing them here would have given.
    fn extend(&mut self, rows: usize, parts: u32, identity: u128, body: &[u8]) {
        self.identity = self.identity.wrapping_mul(IDENTITY_FACTOR.wrapping_pow(parts)).wrapping_add(identity);
        self.parts = self.parts.wrapping_add(parts);
        self.rows += rows;
        self.buffer.extend_from_slice(body);
    }

    /// The rows without the header.
    fn body(&self) -> &[u8] {
        self.buffer.get(self.header_bytes..).unwrap_or_default()
    }

    fn save(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&(self.rows as u64).to_le_bytes());
        to.extend_from_slice(&self.parts.to_le_bytes());
        to.extend_from_slice(&self.identity.to_le_bytes());
        to.extend_from_slice(&(self.body().len() as u64).to_le_bytes());
        to.extend_from_slice(self.body());
    }

    /// Adds the rows at the start of `from`; returns the bytes after them.
    fn load<'a>(&mut self, from: &'a [u8]) -> Option<&'a [u8]> {
        let (rows, from) = from.split_first_chunk()?;
        let (parts, from) = from.split_first_chunk()?;
        let (identity, from) = from.split_first_chunk()?;
        let (length, from) = from.split_first_chunk()?;
        let (body, rest) = from.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let rows = usize::try_from(u64::from_le_bytes(*rows)).ok()?;
        self.extend(rows, u32::from_le_bytes(*parts), u128::from_le_bytes(*identity), body);
        Some(rest)
    }

    fn clear(&mut self) {
        self.buffer.truncate(self.header_bytes);
        self.rows = 0;
        self.parts = 0;
        self.identity = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Header and rows.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// For one token, the server stores one batch and silently drops others. The token has 128 bits, so that two
    /// batches never share one.
    pub(super) fn deduplication_token(&self) -> String {
        format!("{}-{}-{:032x}", self.table.name, self.rows, self.identity)
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows of {}", self.rows, self.table.name)
    }
}

/// An epoch's rows in `RowBinary`, one batch per table.
#[derive(Debug)]
pub struct EpochRows {
    events: Batch,
    incidents: Batch,
    actions: Batch,
    dead_letters: Batch,
}

impl EpochRows {
    #[must_use]
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
            action.outcome.as_bytes(),
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
        self.batches().iter().map(|batch| batch.rows).sum()
    }

    fn bytes(&self) -> usize {
        self.batches().iter().map(|batch| batch.body().len()).sum()
    }

    fn clear(&mut self) {
        self.batches_mut().into_iter().for_each(Batch::clear);
    }
}

impl SavedRows for EpochRows {
    fn append(&mut self, other: &Self) {
        for (to, from) in self.batches_mut().into_iter().zip(other.batches()) {
            to.extend(from.rows, from.parts, from.identity, from.body());
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
        rows.batches().iter().map(|batch| (batch.deduplication_token(), batch.bytes().to_vec())).collect()
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
