//! The changes of an incident, so that a silence is compared with each change that a channel has no message about.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::port::Unsent;
use crate::verdict::{Incident, RuleId, Severity, Verdict, Victim};

/// Different grants, tokens or sets of rules that are kept.
const KEPT_MAX: usize = 100;

/// The changes of an incident. Each has a number, which increases.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Changes {
    last: u64,
    victims: Recent<Victim>,
    /// Rules that fired in each change.
    rules: Recent<BTreeSet<RuleId>>,
    /// All rules that fired.
    known_rules: BTreeSet<RuleId>,
    gravest: Option<(Severity, Verdict)>,
    /// Time at which the severity or verdict last rose or a rule was added, milliseconds since the epoch, wall clock.
    graver_at: i64,
}

impl Changes {
    /// Adds a change that was taken at `at`.
    pub(super) fn add(&mut self, incident: &Incident, victim: Victim, at: i64) {
        self.last += 1;
        let fired: BTreeSet<_> = incident.fired().collect();
        let (severity, verdict) = self.gravest.unwrap_or((incident.severity, incident.verdict));
        let is_graver = self.gravest.is_none() || incident.severity > severity || incident.verdict > verdict;
        if is_graver || !fired.is_subset(&self.known_rules) {
            self.graver_at = at;
        }
        self.gravest = Some((incident.severity.max(severity), incident.verdict.max(verdict)));
        self.known_rules.extend(&fired);
        self.rules.add(self.last, fired);
        self.victims.add(self.last, victim);
    }

    /// Number of the last change.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// The changes after number `sent`.
    pub(super) fn since(&self, sent: u64) -> Unsent {
        Unsent { victims: self.victims.since(sent), rules: self.rules.since(sent), graver_at: self.graver_at }
    }
}

/// Different values, each with the number of its last change, in that order.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Recent<T> {
    values: Vec<(u64, T)>,
    /// Number of the last change whose value is not kept.
    forgotten: u64,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { values: Vec::new(), forgotten: 0 }
    }
}

impl<T: Clone + PartialEq> Recent<T> {
    fn add(&mut self, number: u64, value: T) {
        self.values.retain(|(_, kept)| *kept != value);
        self.values.push((number, value));
        if self.values.len() > KEPT_MAX {
            self.forgotten = self.values.remove(0).0;
        }
    }

    /// `None`: one of them is not kept.
    fn since(&self, sent: u64) -> Option<Vec<T>> {
        let values = self.values.iter().filter(|(number, _)| *number > sent);
        (self.forgotten <= sent).then(|| values.map(|(_, value)| value.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_value_makes_the_list_incomplete() {
        let mut recent = Recent::default();
        for number in 1..=KEPT_MAX as u64 + 1 {
            recent.add(number, number);
        }
        assert_eq!(recent.since(0), None);
        assert!(recent.since(1).is_some_and(|values| values.len() == KEPT_MAX));
        recent.add(200, 5);
        assert_eq!(recent.since(101), Some(vec![5]), "a value is kept once, with its last number");
        assert!(recent.since(1).is_some_and(|values| values.len() == KEPT_MAX));
    }
}
