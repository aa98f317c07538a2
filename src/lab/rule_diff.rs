//! Compares the alerts of two rule sets on the same events. An alert is the highest verdict of a baseline in a UTC day.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::checkpoint::DeadLetter;
use crate::event::BaselineId;
use crate::feed::Feed;
use crate::millis::DAY_MS;
use crate::pipeline::{Epoch, Partition, Pipeline};
use crate::port::{ActionRow, EventRow, Message, Rows};
use crate::verdict::{Incident, RuleId, Verdict};

/// Two runs over the same events.
pub(crate) struct Comparison {
    old: Run,
    new: Run,
}

/// One of the two runs.
struct Run {
    pipeline: Pipeline,
    partition: Partition,
    epoch: Epoch<Alerts>,
}

impl Comparison {
    /// Compares the pipeline with the new rules with the one with the old rules on messages of `feed`.
    pub(crate) fn new(old: Pipeline, new: Pipeline, feed: Feed) -> Self {
        Self { old: Run::new(old, feed), new: Run::new(new, feed) }
    }

    /// Scores messages with both pipelines.
    pub(crate) fn process(&mut self, messages: &[Message<'_>]) {
        for run in [&mut self.old, &mut self.new] {
            run.pipeline.process(&mut run.partition, messages, 0, &mut run.epoch);
            run.epoch.incidents.clear();
            run.epoch.letters.clear();
        }
    }

    /// The alerts that differ, ordered by day and baseline.
    pub(crate) fn changes(&self) -> Vec<Change<'_>> {
        changes(&self.old.epoch.rows.by_day, &self.new.epoch.rows.by_day)
    }

    /// Number of scored events.
    pub(crate) const fn events(&self) -> u64 {
        self.new.epoch.tally.events
    }

    /// Numbers of alerts with the old and with the new rules.
    pub(crate) fn alerts(&self) -> [usize; 2] {
        [&self.old, &self.new].map(|run| run.epoch.rows.by_day.len())
    }
}

impl Run {
    fn new(pipeline: Pipeline, feed: Feed) -> Self {
        let partition = pipeline.partition(feed);
        Self { pipeline, partition, epoch: Epoch::new(Alerts::default()) }
    }
}

/// Alerts by UTC day and baseline.
type ByDay = BTreeMap<(i64, BaselineId), Alert>;

/// Stores the alert of each day and baseline.
#[derive(Default)]
struct Alerts {
    by_day: ByDay,
}

/// The first event with the highest verdict of a baseline's day.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Alert {
    pub(crate) event_id: String,
    pub(crate) verdict: Verdict,
    pub(crate) log_odds: f64,
    /// The rules that fired.
    pub(crate) rules: Vec<RuleId>,
    pub(crate) reason: String,
    /// Family or token of the baseline.
    pub(crate) subject: String,
}

impl Rows for Alerts {
    fn push_event(&mut self, row: &EventRow<'_>) {
        let (event, outcome) = (&row.event.event, row.outcome);
        if outcome.verdict < Verdict::Alert {
            return;
        }
        let day = (event.timestamp.millis().div_euclid(DAY_MS), row.event.baseline_id());
        if self.by_day.get(&day).is_some_and(|known| known.verdict >= outcome.verdict) {
            return;
        }
        let alert = Alert {
            event_id: event.event_id.to_string(),
            verdict: outcome.verdict,
            log_odds: outcome.log_odds,
            rules: outcome.signals.iter().filter(|signal| signal.fired).map(|signal| signal.rule).collect(),
            reason: outcome.signals.first().map_or_else(String::new, |signal| signal.reason.clone()),
            subject: event.family_id.as_deref().unwrap_or_else(|| event.token_id.as_str()).to_owned(),
        };
        self.by_day.insert(day, alert);
    }

    fn push_incident(&mut self, _: &Incident) {}

    fn push_action(&mut self, _: &ActionRow) {}

    fn push_dead_letter(&mut self, _: &DeadLetter) {}

    fn len(&self) -> usize {
        self.by_day.len()
    }

    fn bytes(&self) -> usize {
        0
    }

    fn clear(&mut self) {
        self.by_day.clear();
    }
}

/// An alert that differs between the rule sets.
#[derive(Debug, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub(crate) enum Change<'a> {
    Appears {
        new: &'a Alert,
    },
    Vanishes {
        old: &'a Alert,
    },
    /// The verdict or the set of fired rules differs.
    Changes {
        old: &'a Alert,
        new: &'a Alert,
    },
}

/// Differences, ordered by day and baseline.
fn changes<'a>(old: &'a ByDay, new: &'a ByDay) -> Vec<Change<'a>> {
    let days: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let change = |day| match (old.get(day), new.get(day)) {
        (None, Some(new)) => Some(Change::Appears { new }),
        (Some(old), None) => Some(Change::Vanishes { old }),
        (Some(old), Some(new)) if old.verdict != new.verdict || old.rules != new.rules => {
            Some(Change::Changes { old, new })
        }
        _ => None,
    };
    days.into_iter().filter_map(change).collect()
}

impl Change<'_> {
    /// One line of text: `+` for an added alert, `-` for a removed one, `~` for a changed one.
    pub(crate) fn to_line(&self) -> String {
        let verdict = |alert: &Alert| {
            let rules: Vec<_> = alert.rules.iter().map(|rule| rule.as_str()).collect();
            format!("{} {:.1} ({})", alert.verdict.as_str(), alert.log_odds, rules.join(", "))
        };
        let (sign, alert, verdicts) = match self {
            Self::Appears { new } => ('+', new, verdict(new)),
            Self::Vanishes { old } => ('-', old, verdict(old)),
            Self::Changes { old, new } => ('~', new, format!("{} → {}", verdict(old), verdict(new))),
        };
        format!("{sign} {}: {verdicts}; event {}: {}", alert.subject, alert.event_id, alert.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(subject: &str, verdict: Verdict, rules: &[RuleId]) -> Alert {
        Alert {
            event_id: format!("e-{subject}"),
            verdict,
            log_odds: 2.0,
            rules: rules.to_vec(),
            reason: "15,900 km in 41 min".to_owned(),
            subject: subject.to_owned(),
        }
    }

    #[test]
    fn changes_lists_alerts_that_differ() {
        let travel = [RuleId::ImpossibleTravel];
        let key = |day: i64, number: u64| (day, BaselineId(number));
        let old = ByDay::from([
            (key(1, 1), alert("gone", Verdict::Alert, &travel)),
            (key(1, 2), alert("same", Verdict::Alert, &travel)),
            (key(3, 3), alert("graver", Verdict::Alert, &travel)),
            (key(3, 4), alert("other", Verdict::Alert, &travel)),
        ]);
        let new = ByDay::from([
            (key(1, 2), Alert { log_odds: 2.5, ..alert("same", Verdict::Alert, &travel) }),
            (key(2, 1), alert("come", Verdict::Alert, &travel)),
            (key(3, 3), alert("graver", Verdict::Revoke, &travel)),
            (key(3, 4), alert("other", Verdict::Alert, &[RuleId::NewClient])),
        ]);
        let lines: Vec<_> = changes(&old, &new).iter().map(Change::to_line).collect();
        assert_eq!(
            lines,
            [
                "- gone: alert 2.0 (impossible_travel); event e-gone: 15,900 km in 41 min",
                "+ come: alert 2.0 (impossible_travel); event e-come: 15,900 km in 41 min",
                "~ graver: alert 2.0 (impossible_travel) → revoke 2.0 (impossible_travel); event e-graver: \
                 15,900 km in 41 min",
                "~ other: alert 2.0 (impossible_travel) → alert 2.0 (new_client); event e-other: 15,900 km in 41 min",
            ]
        );
    }
}
