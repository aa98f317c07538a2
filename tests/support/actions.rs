//! A store in memory that keeps the rows of `actions`.

use std::sync::Mutex;

use async_trait::async_trait;
use tokenwarden::checkpoint::DeadLetter;
use tokenwarden::port::{ActionRow, EventRow, Rows, Store, StoreError};
use tokenwarden::verdict::Incident;

#[derive(Default)]
pub(crate) struct ActionRows(Vec<ActionRow>);

impl Rows for ActionRows {
    fn push_event(&mut self, _: &EventRow<'_>) {}

    fn push_incident(&mut self, _: &Incident) {}

    fn push_action(&mut self, action: &ActionRow) {
        self.0.push(action.clone());
    }

    fn push_dead_letter(&mut self, _: &DeadLetter) {}

    fn len(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self) -> usize {
        size_of_val(self.0.as_slice())
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// Keeps each row once, in the order of writing, like the real store.
#[derive(Default)]
pub(crate) struct ActionStore {
    actions: Mutex<Vec<ActionRow>>,
    failures: Mutex<Vec<StoreError>>,
}

impl ActionStore {
    /// The next write fails with `error` and stores nothing. Several errors are used in order.
    pub(crate) fn fail_next(&self, error: StoreError) {
        self.failures.lock().expect("no writer panicked").push(error);
    }

    pub(crate) fn actions(&self) -> Vec<ActionRow> {
        self.actions.lock().expect("no writer panicked").clone()
    }
}

#[async_trait]
impl Store for ActionStore {
    type Rows = ActionRows;

    fn new_rows(&self) -> ActionRows {
        ActionRows::default()
    }

    async fn write(&self, rows: &ActionRows) -> Result<(), StoreError> {
        let mut failures = self.failures.lock().expect("no writer panicked");
        if !failures.is_empty() {
            return Err(failures.remove(0));
        }
        let mut actions = self.actions.lock().expect("no writer panicked");
        for row in &rows.0 {
            if !actions.contains(row) {
                actions.push(row.clone());
            }
        }
        Ok(())
    }
}
