//! `tokenwarden replay --against`: compares the alerts of two rule sets on the same events.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use serde::Serialize;

use super::failure::Failure;
use super::reading::all_messages;
use super::setup::load_rules;
use super::terminal::to_stderr;
use crate::checkpoint::DeadLetter;
use crate::config::Config;
use crate::enrich::Enricher;
use crate::event::BaselineId;
use crate::feed::Feed;
use crate::pipeline::{Epoch, Partition, Pipeline};
use crate::port::{ActionRow, EventRow, Rows};
use crate::sanitize;
use crate::source::file::FileSource;
use crate::token::TokenHasher;
use crate::verdict::{Incident, RuleId, Verdict};

const DAY_MS: i64 = 86_400_000;

/// Runs the events with both configurations, the old one first, and prints every alert that differs: as text on a
/// terminal, otherwise as JSON objects. An alert is the highest verdict of a baseline in a UTC day.
pub(super) fn run(
    mut source: FileSource,
    feed: Feed,
    configs: [&Config; 2],
    hasher: &TokenHasher,
) -> Result<(), Failure> {
    let [mut old, mut new] = [Side::new(configs[0], feed, hasher)?, Side::new(configs[1], feed, hasher)?];
    all_messages(&mut source, &mut |messages| {
        for side in [&mut old, &mut new] {
            side.pipeline.process(&mut side.partition, messages, 0, &mut side.epoch);
            side.epoch.incidents.clear();
            side.epoch.letters.clear();
        }
    })?;
    let events = new.epoch.tally.events;
    let (old, new) = (old.epoch.rows.by_day, new.epoch.rows.by_day);
    let changes = changes(&old, &new);
    let is_terminal = std::io::stdout().is_terminal();
    let mut stdout = std::io::stdout().lock();
    for change in &changes {
        let line = if is_terminal { Ok(sanitize::lines(&change.to_line())) } else { serde_json::to_string(change) };
        line.map_err(std::io::Error::other)
            .and_then(|line| writeln!(stdout, "{line}"))
            .map_err(|error| Failure::output("to stdout", &error))?;
    }
    let count = |which: fn(&Change<'_>) -> bool| changes.iter().filter(|change| which(change)).count();
    to_stderr(&format!(
        "{events} events: {} alerts added, {} removed, {} changed; {} before, {} after",
        count(|change| matches!(change, Change::Appears { .. })),
        count(|change| matches!(change, Change::Vanishes { .. })),
        count(|change| matches!(change, Change::Changes { .. })),
        old.len(),
        new.len()
    ));
    Ok(())
}

/// One of the two runs.
struct Side {
    pipeline: Pipeline,
    partition: Partition,
    epoch: Epoch<Alerts>,
}

impl Side {
    fn new(config: &Config, feed: Feed, hasher: &TokenHasher) -> Result<Self, Failure> {
        let rules = load_rules(config)?;
        if let Some(note) = rules.missing_note() {
            to_stderr(&sanitize::lines(&format!("{}: {note}", config.rules_origin())));
        }
        let enricher = Enricher::new(&config.geoip, config.detection.trust_event_geo);
        let pipeline = Pipeline::new(enricher, Arc::new(rules.rules), hasher.clone(), config.engine_settings());
        let partition = pipeline.partition(feed);
        Ok(Self { pipeline, partition, epoch: Epoch::new(Alerts::default(), false) })
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
struct Alert {
    event_id: String,
    verdict: Verdict,
    log_odds: f64,
    /// The rules that fired.
    rules: Vec<RuleId>,
    reason: String,
    /// Family or token of the baseline.
    subject: String,
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
enum Change<'a> {
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
    fn to_line(&self) -> String {
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
