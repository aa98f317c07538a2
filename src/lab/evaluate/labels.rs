//! What is known of the events of a labelled set: which are a thief's, and which belong to an honest hard case.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::BufRead;

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::event::{BaselineId, Event};

/// A whole theft (a campaign is one), or one instance of an honest hard case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What kind of theft or of hard case, as `foreign_host`.
    pub scenario: String,
    /// As the labels name it, or else the number of its baseline.
    pub name: String,
    pub theft: bool,
}

/// Number of a [`Case`].
pub type CaseNumber = u32;

/// Labels by event id, from a file or, where there is none, from the events' own `attrs`.
#[derive(Debug, Default)]
pub struct Labels {
    cases: Vec<Case>,
    by_name: HashMap<(bool, String, String), CaseNumber>,
    /// By the hash of the event id: a set of ten million labels meets two equal ones with odds of 1 in 100,000.
    by_event: Option<HashMap<u64, Label>>,
    /// Events whose label was found, each counted once.
    matched: usize,
}

/// What a labels file holds about one event.
#[derive(Debug)]
struct Label {
    named: Named,
    matched: bool,
}

/// A label whose case is named, or is the baseline's own within a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    Case(CaseNumber),
    PerBaseline { theft: bool, scenario: Box<str> },
}

/// Why a labels file cannot be used.
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
    /// Reads one JSON object a line: `{"event_id":"…","label":"theft"|"honest","scenario":"…","case":"…"}`. Without
    /// `case`, the events of one baseline and scenario are one case. Events that are not listed are plain honest use.
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
                return Err(wrong(format!("the event \"{}\" is labelled twice, and not alike", line.event_id)));
            }
        }
        labels.by_event = Some(by_event);
        Ok(labels)
    }

    /// Labels that the events carry themselves: `attrs.label`, `attrs.scenario` and `attrs.case`, read as in a file.
    #[must_use]
    pub fn in_attrs() -> Self {
        Self::default()
    }

    /// The case that an event is part of; `None` for plain honest use.
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

    /// Labels whose event was seen.
    #[must_use]
    pub const fn matched(&self) -> usize {
        self.matched
    }

    /// Labels in the file; `None` where the events' `attrs` carry them.
    #[must_use]
    pub fn in_file(&self) -> Option<usize> {
        self.by_event.as_ref().map(HashMap::len)
    }

    #[must_use]
    pub fn case(&self, number: CaseNumber) -> &Case {
        &self.cases[number as usize]
    }

    /// Every case met so far, by number.
    #[must_use]
    pub fn cases(&self) -> &[Case] {
        &self.cases
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
    use crate::lab::evaluate::tests::event;

    fn read(text: &str) -> Result<Labels, String> {
        Labels::read(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn events_of_one_case_meet_in_it() {
        let text = r#"{"event_id":"a","label":"theft","scenario":"campaign","case":"campaign-1"}
{"event_id":"b","label":"theft","scenario":"campaign","case":"campaign-1"}

{"event_id":"c","label":"honest","scenario":"deploy_day","case":"campaign-1"}"#;
        let mut labels = read(text).expect("the labels are right");
        let of = |labels: &mut Labels, id: &str| labels.of(&event(id, 0), BaselineId(0));
        assert_eq!([of(&mut labels, "a"), of(&mut labels, "b"), of(&mut labels, "c")], [Some(0), Some(0), Some(1)]);
        assert_eq!(of(&mut labels, "d"), None);
        let deploy = Case { scenario: "deploy_day".to_owned(), name: "campaign-1".to_owned(), theft: false };
        assert_eq!(labels.case(1), &deploy);
    }

    #[test]
    fn without_a_case_each_baseline_has_its_own() {
        let text = r#"{"event_id":"a","label":"theft"}
{"event_id":"b","label":"theft"}
{"event_id":"c","label":"theft"}"#;
        let mut labels = read(text).expect("the labels are right");
        let mut of = |id: &str, baseline| labels.of(&event(id, 0), BaselineId(baseline));
        assert_eq!([of("a", 1), of("b", 2), of("c", 1)], [Some(0), Some(1), Some(0)]);
    }

    #[test]
    fn events_may_carry_their_labels() {
        let mut labels = Labels::in_attrs();
        let mut of = |attrs: &[(&'static str, &'static str)]| {
            let mut event = event("a", 0);
            event.attrs = attrs.iter().map(|(key, text)| ((*key).into(), (*text).into())).collect();
            labels.of(&event, BaselineId(0))
        };
        assert_eq!(of(&[("label", "theft"), ("scenario", "insider"), ("case", "i1")]), Some(0));
        assert_eq!(of(&[("label", "honest"), ("scenario", "travel"), ("case", "t1")]), Some(1));
        assert_eq!(of(&[("label", "honest")]), None, "plain honest use");
        assert_eq!(of(&[("team", "theft")]), None);
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        insta::assert_snapshot!(read("\n{\"event_id\":\"a\",\"label\":\"thief\"}").expect_err("wrong"), @r#"line 2: `label` is "thief"; write "theft" or "honest""#);
        insta::assert_snapshot!(read("{\"label\":\"theft\"}").expect_err("wrong"), @"line 1: missing field `event_id` at line 1 column 17");
        let twice = "{\"event_id\":\"a\",\"label\":\"theft\"}\n{\"event_id\":\"a\",\"label\":\"honest\"}";
        insta::assert_snapshot!(read(twice).expect_err("wrong"), @r#"line 2: the event "a" is labelled twice, and not alike"#);
    }
}
