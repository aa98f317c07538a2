//! Text of a verdict: the signals of an event, and the summary of an incident.

use std::fmt::Write as _;

use crate::detector::words::{LISTED_FROM, Signals, family_name, network_name};
use crate::detector::{self, Lesson, Observation, Score, Words};
use crate::memory::{Generations, Memory};
use crate::rule::RuleSet;
use crate::verdict::{Signal, decisive};

/// Stores the names of network and client family when a visit begins. Later reasons show them as usual values.
pub(crate) fn learn_names(names: &mut Generations<Box<str>>, observation: &Observation<'_>, score: &Score) {
    if score.visit_calls != 1 {
        return;
    }
    let sighting = observation.sighting;
    if let Some(network) = &observation.enriched.network {
        names.entry(network_name(sighting.network), || format!("AS{} {}", network.asn, network.org).into());
    }
    names.entry(family_name(sighting.family), || observation.enriched.client.family.clone());
}

/// Signals of all rules that are not disabled and have a share of at least 0.5 nats, the largest share first.
pub(crate) fn signals(
    memory: &Memory,
    rules: &RuleSet,
    observation: &Observation<'_>,
    (score, lesson): (&Score, &Lesson),
) -> Vec<Signal> {
    let Memory { baselines, names, others, .. } = memory;
    let Some(baseline) = lesson.baseline(baselines, observation.index) else { return Vec::new() };
    let cohorts = others.cohorts.of(observation.tenant.seat);
    let unexplained = score.unexplained();
    let words = Words { observation, score, unexplained, baseline, lesson, names, cohorts };
    let mut signals = Signals::new(rules);
    detector::explain(&words, &mut signals);
    signals.sorted()
}

/// Maximum number of reasons in a sentence.
const REASONS_MAX: usize = 4;

/// Numbers of the summary of an incident.
pub(crate) struct Sum {
    pub(crate) log_odds: f64,
    pub(crate) prior: f64,
    /// Log-odds from which an alert is raised.
    pub(crate) threshold: f64,
    /// A policy requested the alert, whatever the log-odds.
    pub(crate) by_policy: bool,
    /// Number of grants or tokens in the incident.
    pub(crate) baselines: u32,
}

/// Summary of an incident: the reasons with their shares in nats, the sum, and the first decisive rule.
pub(crate) fn sentence(signals: &[Signal], sum: &Sum) -> String {
    let mut text = String::new();
    if sum.baselines > 1 {
        let _ = write!(text, "{} tokens with one cause: ", sum.baselines);
    }
    if signals.is_empty() {
        text.push_str("several small deviations, or evidence of disabled rules only");
    }
    for (index, signal) in signals.iter().take(REASONS_MAX).enumerate() {
        let separator = if index == 0 { "" } else { "; " };
        let _ = write!(text, "{separator}{}", signal.reason);
        // A policy has no share in the log-odds.
        if signal.share > 0.0 {
            let _ = write!(text, " ({:+.1})", signal.share);
        }
    }
    let listed: f64 = signals.iter().take(REASONS_MAX).map(|signal| signal.share).sum();
    let rest = sum.log_odds - sum.prior - listed;
    let _ = write!(text, ". Log-odds {:.1} (prior {:.1}", sum.log_odds, sum.prior);
    if rest.abs() >= LISTED_FROM {
        let _ = write!(text, ", other evidence {rest:+.1}");
    }
    text.push_str(").");
    if sum.by_policy {
        text.push_str(" Requested by a policy.");
    } else if let Some(leading) = decisive(signals, sum.log_odds, sum.threshold).next() {
        let _ = write!(text, " Without {} there would be no alert.", leading.rule);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentence_without_signals_states_the_log_odds() {
        let sum = Sum { log_odds: 2.4, prior: -7.0, threshold: 1.0, by_policy: false, baselines: 1 };
        assert_eq!(
            sentence(&[], &sum),
            "several small deviations, or evidence of disabled rules only. Log-odds 2.4 (prior -7.0, other evidence +9.4)."
        );
    }
}
