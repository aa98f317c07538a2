//! Labels of a set: which events are a thief's, and which belong to a hard case of legitimate use.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::BufRead;

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::event::{BaselineId, Event};

/// One theft (a campaign is one), or one instance of a hard case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Kind of theft or of hard case, for example `foreign_host`.
    pub scenario: String,
    /// The name in the labels, otherwise the key of the baseline.
    pub name: String,
    pub theft: bool,
}

/// Index of a [`Case`].
pub type CaseNumber = u32;

/// Labels by event id, from a file or from the events' own `attrs`.
#[derive(Debug, Default)]
pub struct Labels {
    cases: Vec<Case>,
    by_name: HashMap<(bool, String, String), CaseNumber>,
    /// By the hash of the event id. In a set of ten million labels, the probability of a collision is 1 in 100,000.
    by_event: Option<HashMap<u64, Label>>,
    /// Events with a label, each counted once.
    matched: usize,
}

/// Content of a labels file for one event.
#[derive(Debug)]
struct Label {
    named: Named,
    matched: bool,
}

/// Identity of a case: its name, or without one its baseline in a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    Case(CaseNumber),
    PerBaseline { theft: bool, scenario: Box<str> },
}

/// Why a labels file cannot be used. Lines count from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    #[error("line {line}: {reason}")]
    Wrong { line: usize, reason: String },
    #[error("line {line}: {error}")]
    Unreadable { line: usize, error: std::io::Error },
}

/// One line of a labels file.
#[derive(Deserialize)]
struct Line {
    event_id: String,
    label: String,
    #[serde(default)]
    scenario: String,
    #[serde(default)]
    case: String,
}

impl Labels {
    /// Reads one JSON object per line: `{"event_id":"…","label":"theft"|"honest","scenario":"…","case":"…"}`. Without
    /// `case`, the events of one baseline and scenario are one case. Events without a label are ordinary legitimate
    /// use.
    pub fn read(input: impl BufRead) -> Result<Self, LabelError> {
        let mut labels = Self::default();
        let mut by_event = HashMap::new();
        for (index, line) in input.lines().enumerate() {
            let number = index + 1;
            let wrong = |reason: String| LabelError::Wrong { line: number, reason };
            let line = line.map_err(|error| LabelError::Unreadable { line: number, error })?;
            if line.trim().is_empty() {
                continue;
            }
            let line: Line = serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?;
            let theft = is_theft(&line.label)
                .ok_or_else(|| wrong(format!("`label` is \"{}\"; write \"theft\" or \"honest\"", line.label)))?;
            let named = labels.name(theft, line.scenario, line.case);
            let label = Label { named: named.clone(), matched: false };
            let before = by_event.insert(xxh3_64(line.event_id.as_bytes()), label);
            if before.is_some_and(|before| before.named != named) {
                return Err(wrong(format!("the event \"{}\" has two different labels", line.event_id)));
            }
        }
        labels.by_event = Some(by_event);
        Ok(labels)
    }

    /// Labels in the events: `attrs.label`, `attrs.scenario` and `attrs.case`, with the meaning of a file's fields.
    #[must_use]
    pub fn in_attrs() -> Self {
        Self::default()
    }

    /// The case of an event; `None` for ordinary legitimate use.
    pub fn of(&mut self, event: &Event<'_>, baseline: BaselineId) -> Option<CaseNumber> {
        let named = match &mut self.by_event {
            Some(by_event) => {
                let label = by_event.get_mut(&xxh3_64(event.event_id.as_bytes()))?;
                self.matched += usize::from(!label.matched);
                label.matched = true;
                label.named.clone()
            }
            None => self.carried_by(event)?,
        };
        Some(match named {
            Named::Case(number) => number,
            Named::PerBaseline { theft, scenario } => {
                let BaselineId(baseline) = baseline;
                self.number(theft, scenario.into(), format!("{baseline:016x}"))
            }
        })
    }

    /// Number of labels whose event was seen.
    #[must_use]
    pub const fn matched(&self) -> usize {
        self.matched
    }

    /// Number of labels in the file; `None` if the labels are in the events.
    #[must_use]
    pub fn in_file(&self) -> Option<usize> {
        self.by_event.as_ref().map(HashMap::len)
    }

    #[must_use]
    pub fn case(&self, number: CaseNumber) -> &Case {
        &self.cases[number as usize]
    }

    /// Whether a case seen so far is a theft of this kind.
    #[must_use]
    pub fn has_theft(&self, scenario: &str) -> bool {
        self.cases.iter().any(|case| case.theft && case.scenario == scenario)
    }

    fn carried_by(&mut self, event: &Event<'_>) -> Option<Named> {
        let attr = |name| event.attrs.iter().find(|(key, _)| key == name).map(|(_, text)| text.to_string());
        let theft = is_theft(&attr("label")?)?;
        self.matched += 1;
        let (scenario, case) = (attr("scenario").unwrap_or_default(), attr("case").unwrap_or_default());
        let plain = !theft && scenario.is_empty() && case.is_empty();
        (!plain).then(|| self.name(theft, scenario, case))
    }

    fn name(&mut self, theft: bool, mut scenario: String, case: String) -> Named {
        if scenario.is_empty() {
            scenario.push_str("unnamed");
        }
        if case.is_empty() {
            return Named::PerBaseline { theft, scenario: scenario.into() };
        }
        Named::Case(self.number(theft, scenario, case))
    }

    fn number(&mut self, theft: bool, scenario: String, case: String) -> CaseNumber {
        match self.by_name.entry((theft, scenario, case)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let (theft, scenario, name) = new.key().clone();
                self.cases.push(Case { scenario, name, theft });
                *new.insert((self.cases.len() - 1) as CaseNumber)
            }
        }
    }
}

fn is_theft(label: &str) -> Option<bool> {
    match label {
        "theft" => Some(true),
        "honest" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::evaluate::samples::event;

    fn read(text: &str) -> Result<Labels, String> {
        Labels::read(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn label_joins_events_of_one_case() {
        let text = r#"{"event_id":"a","label":"theft","scenario":"campaign","case":"campaign-1"}
{"event_id":"b","label":"theft","scenario":"campaign","case":"campaign-1"}

{"event_id":"c","label":"honest","scenario":"deploy_day","case":"campaign-1"}"#;
        let mut labels = read(text).expect("the labels are right");
        let of = |labels: &mut Labels, id: &str| labels.of(&event(id, 0), BaselineId(0));
        assert_eq!([of(&mut labels, "a"), of(&mut labels, "b"), of(&mut labels, "c")], [Some(0), Some(0), Some(1)]);
        assert_eq!(of(&mut labels, "d"), None);
        assert!(labels.has_theft("campaign") && !labels.has_theft("deploy_day"));
        let deploy = Case { scenario: "deploy_day".to_owned(), name: "campaign-1".to_owned(), theft: false };
        assert_eq!(labels.case(1), &deploy);
    }

    #[test]
    fn label_without_case_uses_the_baseline() {
        let text = r#"{"event_id":"a","label":"theft"}
{"event_id":"b","label":"theft"}
{"event_id":"c","label":"theft"}"#;
        let mut labels = read(text).expect("the labels are right");
        let mut of = |id: &str, baseline| labels.of(&event(id, 0), BaselineId(baseline));
        assert_eq!([of("a", 1), of("b", 2), of("c", 1)], [Some(0), Some(1), Some(0)]);
    }

    #[test]
    fn labels_may_be_in_the_events() {
        let mut labels = Labels::in_attrs();
        let mut of = |attrs: &[(&'static str, &'static str)]| {
            let mut event = event("a", 0);
            event.attrs = attrs.iter().map(|(key, text)| ((*key).into(), (*text).into())).collect();
            labels.of(&event, BaselineId(0))
        };
        assert_eq!(of(&[("label", "theft"), ("scenario", "insider"), ("case", "i1")]), Some(0));
        assert_eq!(of(&[("label", "honest"), ("scenario", "travel"), ("case", "t1")]), Some(1));
        assert_eq!(of(&[("label", "honest")]), None, "ordinary legitimate use");
        assert_eq!(of(&[("team", "theft")]), None);
    }

    #[test]
    fn label_errors_contain_the_line() {
        insta::assert_snapshot!(read("\n{\"event_id\":\"a\",\"label\":\"thief\"}").expect_err("wrong"), @r#"line 2: `label` is "thief"; write "theft" or "honest""#);
        insta::assert_snapshot!(read("{\"label\":\"theft\"}").expect_err("wrong"), @"line 1: missing field `event_id` at line 1 column 17");
        let twice = "{\"event_id\":\"a\",\"label\":\"theft\"}\n{\"event_id\":\"a\",\"label\":\"honest\"}";
        insta::assert_snapshot!(read(twice).expect_err("wrong"), @r#"line 2: the event "a" has two different labels"#);
    }
}
