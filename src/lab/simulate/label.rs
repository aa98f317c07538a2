//! Labels: whether an event belongs to a theft or to a hard case of legitimate use. Events do not contain them.

use std::collections::HashMap;
use std::io::Write as _;

/// The case of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(crate) theft: bool,
    pub(crate) scenario: &'static str,
    /// Number of the case, unique within the scenario.
    pub(crate) instance: u64,
}

/// A legitimate change that makes events look suspicious for a limited time.
#[derive(Clone, Copy, Debug)]
pub(super) struct News {
    pub(crate) label: Label,
    /// Milliseconds since the epoch.
    pub(crate) until: i64,
}

impl Label {
    pub(crate) const fn honest(scenario: &'static str, instance: u64) -> Self {
        Self { theft: false, scenario, instance }
    }

    /// Creates a [`News`] with this label until `until`.
    pub(crate) const fn until(self, until: i64) -> News {
        News { label: self, until }
    }
}

impl News {
    /// The label of an event at `at`.
    pub(crate) fn at(self, at: i64) -> Option<Label> {
        (at < self.until).then_some(self.label)
    }
}

/// Writes labels and numbers the cases of each scenario in order.
#[derive(Debug, Default)]
pub(super) struct LabelBook {
    numbers: HashMap<(&'static str, u64), u32>,
    last: HashMap<&'static str, u32>,
}

impl LabelBook {
    /// Appends one line of JSON. The texts contain no characters that need escapes.
    pub(crate) fn write(&mut self, label: Label, event_id: &str, out: &mut Vec<u8>) {
        let number = *self.numbers.entry((label.scenario, label.instance)).or_insert_with(|| {
            let last = self.last.entry(label.scenario).or_default();
            *last += 1;
            *last
        });
        let (scenario, kind) = (label.scenario, if label.theft { "theft" } else { "honest" });
        // Writing to memory cannot fail.
        let _ = writeln!(
            out,
            "{{\"event_id\":\"{event_id}\",\"label\":\"{kind}\",\"scenario\":\"{scenario}\",\"case\":\"{scenario}-{number:03}\"}}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_writer_numbers_cases_per_scenario() {
        let (mut book, mut out) = (LabelBook::default(), Vec::new());
        let theft = Label { theft: true, scenario: "foreign_host", instance: 900 };
        book.write(theft, "a", &mut out);
        book.write(Label::honest("travel", 4), "b", &mut out);
        book.write(Label { instance: 7, ..theft }, "c", &mut out);
        book.write(theft, "d", &mut out);
        let lines: Vec<&str> = std::str::from_utf8(&out).expect("text").lines().collect();
        assert_eq!(lines[0], r#"{"event_id":"a","label":"theft","scenario":"foreign_host","case":"foreign_host-001"}"#);
        assert_eq!(lines[1], r#"{"event_id":"b","label":"honest","scenario":"travel","case":"travel-001"}"#);
        assert!(
            lines[2].ends_with(r#""case":"foreign_host-002"}"#) && lines[3].ends_with(r#""case":"foreign_host-001"}"#)
        );
    }
}
