//! Stores the conditions that a source reports.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokenwarden::port::{Condition, OffsetGap, SourceObserver};

use super::process::eventually;

#[derive(Default)]
pub(crate) struct Recorder {
    conditions: Mutex<BTreeSet<(Condition, String)>>,
    /// Every condition that was ever reported.
    ever: Mutex<BTreeSet<Condition>>,
    gaps: Mutex<Vec<OffsetGap>>,
    dropped: Mutex<u64>,
    verdicts_dropped: Mutex<u64>,
    sightings_dropped: Mutex<u64>,
    /// Reported numbers of messages to rebuild states from.
    rebuild_left: Mutex<Vec<Option<i64>>>,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn holds(&self, condition: Condition) -> bool {
        self.conditions.lock().expect("a lock").iter().any(|(held, _)| *held == condition)
    }

    pub(crate) fn has_held(&self, condition: Condition) -> bool {
        self.ever.lock().expect("a lock").contains(&condition)
    }

    /// Waits, without polling, until `condition` has the value `holds`.
    pub(crate) fn until(&self, condition: Condition, holds: bool) {
        eventually(Duration::from_secs(40), condition.name(), || (self.holds(condition) == holds).then_some(()))
            .unwrap_or_else(|| panic!("{condition:?} is {}", !holds));
    }

    pub(crate) fn gaps(&self) -> Vec<OffsetGap> {
        self.gaps.lock().expect("a lock").clone()
    }

    pub(crate) fn rebuild_left(&self) -> Vec<Option<i64>> {
        self.rebuild_left.lock().expect("a lock").clone()
    }

    pub(crate) fn verdicts_dropped(&self) -> u64 {
        *self.verdicts_dropped.lock().expect("a lock")
    }

    pub(crate) fn sightings_dropped(&self) -> u64 {
        *self.sightings_dropped.lock().expect("a lock")
    }

    pub(crate) fn dropped(&self) -> u64 {
        *self.dropped.lock().expect("a lock")
    }
}

impl SourceObserver for Recorder {
    fn lag(&self, _: &str, _: i32, _: Option<i64>) {}

    fn rebuild_left(&self, _: &str, _: i32, messages: Option<i64>) {
        self.rebuild_left.lock().expect("a lock").push(messages);
    }

    fn condition(&self, condition: Condition, part: &str, holds: bool) {
        let mut conditions = self.conditions.lock().expect("a lock");
        let held = (condition, part.to_owned());
        if holds {
            self.ever.lock().expect("a lock").insert(condition);
            conditions.insert(held);
        } else {
            conditions.remove(&held);
        }
    }

    fn gaps(&self, gaps: &[OffsetGap]) {
        self.gaps.lock().expect("a lock").extend_from_slice(gaps);
    }

    fn letters_dropped(&self, count: u64) {
        *self.dropped.lock().expect("a lock") += count;
    }

    fn verdicts_dropped(&self, count: u64) {
        *self.verdicts_dropped.lock().expect("a lock") += count;
    }

    fn sightings_dropped(&self, count: u64) {
        *self.sightings_dropped.lock().expect("a lock") += count;
    }
}
