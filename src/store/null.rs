//! The store of `--store none`, which discards all rows.

use async_trait::async_trait;

use crate::checkpoint::DeadLetter;
use crate::port::{ActionRow, EventRow, Rows, SavedRows, Store, StoreError};
use crate::verdict::Incident;

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
