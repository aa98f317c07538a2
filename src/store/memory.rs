//! Stores without ClickHouse: one that discards rows, for `--store none`, and one that keeps them, for tests.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::checkpoint::{DeadLetter, Position};
use crate::event::Timestamp;
use crate::port::{ActionRow, EventRow, Rows, SavedRows, Store, StoreError};
use crate::verdict::{Incident, Outcome};

/// Accepts and discards all rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullStore;

/// A count of rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullRows(usize);

impl Rows for NullRows {
    fn push_event(&mut self, _: &EventRow<'_>) {
        self.0 += 1;
    }

    fn push_incident(&mut self, _: &Incident) {
        self.0 += 1;
    }

    fn push_action(&mut self, _: &ActionRow) {
        self.0 += 1;
    }

    fn push_dead_letter(&mut self, _: &DeadLetter) {
        self.0 += 1;
    }

    fn len(&self) -> usize {
        self.0
    }

    fn bytes(&self) -> usize {
        0
    }

    fn clear(&mut self) {
        self.0 = 0;
    }
}

impl SavedRows for NullRows {
    fn append(&mut self, other: &Self) {
        self.0 += other.0;
    }

    fn save(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.0.to_le_bytes());
    }

    fn load(&mut self, from: &[u8]) -> Option<()> {
        self.0 += usize::from_le_bytes(from.try_into().ok()?);
        Some(())
    }
}

#[async_trait]
impl Store for NullStore {
    type Rows = NullRows;

    fn new_rows(&self) -> NullRows {
        NullRows::default()
    }

    async fn write(&self, _: &NullRows) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Fields of an event's row for assertions.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEvent {
    pub event_id: String,
    pub token_id: String,
    pub timestamp: Timestamp,
    pub outcome: Outcome,
    pub position: Position,
}

/// An epoch's rows, owned.
#[derive(Clone, Debug, Default)]
pub struct MemoryRows {
    events: Vec<StoredEvent>,
    incidents: Vec<Incident>,
    actions: Vec<ActionRow>,
    dead_letters: Vec<DeadLetter>,
}

impl Rows for MemoryRows {
    fn push_event(&mut self, row: &EventRow<'_>) {
        let event = &row.event.event;
        self.events.push(StoredEvent {
            event_id: event.event_id.to_string(),
            token_id: event.token_id.as_str().to_owned(),
            timestamp: event.timestamp,
            outcome: row.outcome.clone(),
            position: row.position.clone(),
        });
    }

    fn push_incident(&mut self, incident: &Incident) {
        self.incidents.push(incident.clone());
    }

    fn push_action(&mut self, action: &ActionRow) {
        self.actions.push(action.clone());
    }

    fn push_dead_letter(&mut self, letter: &DeadLetter) {
        self.dead_letters.push(letter.clone());
    }

    fn len(&self) -> usize {
        self.events.len() + self.incidents.len() + self.actions.len() + self.dead_letters.len()
    }

    fn bytes(&self) -> usize {
        self.len() * size_of::<StoredEvent>()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Keeps each row once, in the order of writing, like the real store.
#[derive(Debug, Default)]
pub struct MemoryStore {
    rows: Mutex<MemoryRows>,
    known_events: Mutex<HashSet<(String, Timestamp)>>,
    failures: Mutex<Vec<StoreError>>,
}

impl MemoryStore {
    /// The next write fails with `error` and stores nothing. Several errors are used in order.
    pub fn fail_next(&self, error: StoreError) {
        held(&self.failures).push(error);
    }

    pub fn events(&self) -> Vec<StoredEvent> {
        held(&self.rows).events.clone()
    }

    pub fn incidents(&self) -> Vec<Incident> {
        held(&self.rows).incidents.clone()
    }

    pub fn actions(&self) -> Vec<ActionRow> {
        held(&self.rows).actions.clone()
    }

    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        held(&self.rows).dead_letters.clone()
    }
}

#[async_trait]
impl Store for MemoryStore {
    type Rows = MemoryRows;

    fn new_rows(&self) -> MemoryRows {
        MemoryRows::default()
    }

    async fn write(&self, rows: &MemoryRows) -> Result<(), StoreError> {
        let mut failures = held(&self.failures);
        if !failures.is_empty() {
            return Err(failures.remove(0));
        }
        let mut kept = held(&self.rows);
        let mut known = held(&self.known_events);
        kept.events.extend(
            rows.events.iter().filter(|event| known.insert((event.event_id.clone(), event.timestamp))).cloned(),
        );
        add_new(&mut kept.incidents, &rows.incidents, PartialEq::eq);
        add_new(&mut kept.actions, &rows.actions, PartialEq::eq);
        add_new(&mut kept.dead_letters, &rows.dead_letters, |a, b| {
            a.position == b.position && a.reason == b.reason && a.at == b.at && a.payload == b.payload
        });
        Ok(())
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add_new<T: Clone>(kept: &mut Vec<T>, new: &[T], same: impl Fn(&T, &T) -> bool) {
    for row in new {
        if !kept.iter().any(|known| same(known, row)) {
            kept.push(row.clone());
        }
    }
}
