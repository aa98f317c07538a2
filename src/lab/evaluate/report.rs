//! Computes the figures from a [`Measure`] after the run.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::budget::{self, Bar, Bars, Share, Thefts};
use super::calibration::{PTail, ZBin};
use super::ledger::{CaseRecord, Rise};
use super::measure::{FalseRevocation, Measure, ToldEvent};
use super::observation::OURS;
use super::peer::Peer;
use crate::millis::MINUTE_MS;
use crate::tally::Tally;
use crate::verdict::Verdict;

/// False positives per 1,000 token-days at which all methods are measured.
pub const BUDGETS: [f64; 3] = [1.0, 5.0, 20.0];
/// Budget for which times to detection are reported.
pub const BUDGET_OF_TIMES: f64 = BUDGETS[1];
/// Ends of the curves, in false positives per 1,000 token-days.
pub const CURVE_BUDGETS: (f64, f64) = (0.1, 100.0);
const CURVE_POINTS: u32 = 61;
/// Seed of the bootstrap.
const SEED: u64 = 1;

/// Settings of a run that figures depend on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Prior log-odds of scoring.
    pub prior: f64,
    /// Kinds of theft that the macro recall leaves out.
    pub controls: BTreeSet<String>,
    pub alert_budget_per_day: u32,
}

/// All figures. Serialized as the JSON of `--json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Number of measured events, without the warm-up.
    pub events: usize,
    pub duplicates: u64,
    pub dead_letters: u64,
    /// Number of UTC days with a legitimate event.
    pub days: usize,
    /// Baselines by UTC days with a legitimate event.
    pub token_days: usize,
    pub thefts: usize,
    pub hard_cases: usize,
    /// tokenwarden first, then the comparison rules.
    pub detectors: Vec<Detector>,
    pub scenarios: Vec<Scenario>,
    /// Each theft, so that missed ones can be investigated.
    pub each_theft: Vec<TheftCase>,
    pub alert: Precision,
    pub revoke: Precision,
    pub alert_budget_per_day: u32,
    /// Without the control scenarios.
    pub stolen: StolenTokens,
    pub false_revocations: Vec<FalseRevocation>,
    pub honest: Vec<HardCases>,
    pub z: Vec<ZBin>,
    pub p: Vec<PTail>,
}

/// Results of one method: tokenwarden or a comparison rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Detector {
    pub name: String,
    pub about: String,
    /// At each of [`BUDGETS`], counted by token-day.
    pub points: Vec<Point>,
    /// The same counted by cause, without true incidents and stolen tokens.
    pub by_cause: Vec<Point>,
    /// With the published threshold, if the rule has one.
    pub as_published: Option<Point>,
    /// Pairs of false positives per 1,000 token-days and macro recall.
    pub curve: Vec<(f64, f64)>,
}

/// Cost and recall of a threshold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    /// A score alerts above it; `None` if every score does.
    pub bar: Option<f32>,
    pub false_alerts: usize,
    /// False positives within a day after a theft's event on the same token.
    pub while_stolen: usize,
    pub per_1000_token_days: f64,
    pub macro_recall: Share,
}

/// One kind of theft.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scenario {
    pub scenario: String,
    /// Left out of the macro recall.
    pub control: bool,
    pub cases: usize,
    /// Recall of tokenwarden at each of [`BUDGETS`].
    pub recall: Vec<Share>,
    /// Recall of the comparison rules at each of [`BUDGETS`], by rule.
    pub peers: Vec<Vec<f64>>,
    /// Of the thefts detected at [`BUDGET_OF_TIMES`].
    pub events_to_detect: Option<Spread>,
    /// Number of times that the thief began to use the token, first or after the owner.
    pub turns_to_detect: Option<Spread>,
    pub minutes_to_detect: Option<Spread>,
    /// Share of cases with a verdict of alert or revoke.
    pub alerted: f64,
    pub revoked: f64,
}

/// One theft.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TheftCase {
    pub scenario: String,
    pub case: String,
    pub events: u32,
    /// The lowest of [`BUDGETS`] at which it is detected; `None` if it is missed at all of them.
    pub caught_at: Option<f64>,
    pub verdict: Verdict,
    /// Its event with the highest log-odds.
    pub most_telling: Option<ToldEvent>,
}

/// Median and 90th percentile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub p90: f64,
}

/// How often a verdict was correct.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Precision {
    pub right: u64,
    pub wrong: u64,
    pub wrong_per_million_token_days: f64,
    pub precision: Share,
}

/// Grants and tokens that a thief used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StolenTokens {
    pub tokens: u64,
    /// Revoked for the first time within a day after a thief's use.
    pub revoked: u64,
}

/// One kind of hard case of legitimate use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HardCases {
    pub scenario: String,
    pub cases: usize,
    /// Cases with an alert of tokenwarden at each of [`BUDGETS`].
    pub alerted: Vec<usize>,
    /// Cases with a verdict of alert or revoke, and with a verdict of revoke.
    pub verdict_alert: usize,
    pub verdict_revoke: usize,
    /// Cases with an alert at each of [`BUDGETS`], by comparison rule.
    pub peers: Vec<Vec<usize>>,
}

impl Report {
    /// `tally`: counts of messages.
    #[must_use]
    pub fn new(mut measure: Measure, settings: &Settings, tally: &Tally) -> Self {
        measure.ledger.calibration.finish();
        let Measure { labels, peers, ledger, .. } = &measure;
        let by_scenario = |theft: bool| {
            let mut scenarios: BTreeMap<&str, Vec<&CaseRecord>> = BTreeMap::new();
            for (number, record) in ledger.cases() {
                let case = labels.case(number);
                if case.theft == theft {
                    scenarios.entry(&case.scenario).or_default().push(record);
                }
            }
            scenarios
        };
        let (thefts, honest) = (by_scenario(true), by_scenario(false));
        let controls = &settings.controls;
        let mut counted = thefts.clone();
        counted.retain(|scenario, _| !controls.contains(*scenario));
        let scored: Vec<Scored<'_>> =
            (0..=peers.len()).map(|detector| Scored::new(&measure, detector, &counted)).collect();
        let scenarios = thefts.iter().map(|(scenario, cases)| Scenario::new(scenario, cases, controls, &scored));
        let detectors =
            scored.iter().map(|scored| scored.summary(peers.get(scored.detector.wrapping_sub(1)).map(AsRef::as_ref)));
        let token_days = scored[OURS].bars.token_days();
        Self {
            events: measure.events,
            duplicates: tally.duplicates,
            dead_letters: tally.dead_letters,
            days: ledger.days(),
            token_days,
            thefts: thefts.values().map(Vec::len).sum(),
            hard_cases: honest.values().map(Vec::len).sum(),
            detectors: detectors.collect(),
            scenarios: scenarios.collect(),
            each_theft: TheftCase::all(&measure, &scored[OURS]),
            alert: Precision::new(ledger.alerts(), token_days),
            revoke: Precision::new(ledger.revocations(), token_days),
            alert_budget_per_day: settings.alert_budget_per_day,
            stolen: StolenTokens::new(&measure, controls),
            false_revocations: measure.false_revocations.clone(),
            honest: honest.iter().map(|(scenario, cases)| HardCases::new(scenario, cases, &scored)).collect(),
            z: ledger.calibration.z(settings.prior),
            p: ledger.calibration.p(),
        }
    }

    /// Token-days with a false alert, per day.
    #[must_use]
    pub fn false_alerts_per_day(&self) -> f64 {
        self.alert.wrong as f64 / self.days.max(1) as f64
    }
}

/// Scores of one method, sorted for look-ups.
struct Scored<'a> {
    detector: usize,
    bars: Bars,
    by_cause: Bars,
    /// Maxima that came while the token was stolen.
    while_stolen: Bars,
    /// Without the control scenarios.
    thefts: Thefts<'a>,
}

impl<'a> Scored<'a> {
    fn new(measure: &Measure, detector: usize, thefts: &BTreeMap<&'a str, Vec<&CaseRecord>>) -> Self {
        let ledger = &measure.ledger;
        let maxima: Vec<f32> = ledger.token_days().map(|day| day.maxima[detector]).collect();
        let stolen = ledger.token_days().filter(|day| day.while_stolen[detector]).map(|day| day.maxima[detector]);
        let token_days = maxima.len();
        let highest = |cases: &Vec<&CaseRecord>| cases.iter().map(|case| case.highest(detector)).collect();
        Self {
            detector,
            bars: Bars::new(maxima, token_days),
            by_cause: Bars::new(ledger.false_causes(detector), token_days),
            while_stolen: Bars::new(stolen.collect(), token_days),
            thefts: thefts.iter().map(|(scenario, cases)| (*scenario, highest(cases))).collect(),
        }
    }

    fn bar(&self, budget: f64) -> f32 {
        self.bars.at_budget(budget).score
    }

    /// Number of `cases` above the threshold for a budget.
    fn caught(&self, cases: &[&CaseRecord], budget: f64) -> usize {
        let bar = self.bar(budget);
        cases.iter().filter(|case| case.highest(self.detector) > bar).count()
    }

    fn summary(&self, peer: Option<&dyn Peer>) -> Detector {
        let (from, to) = CURVE_BUDGETS;
        let curve = (0..CURVE_POINTS).map(|step| {
            let budget = from * (to / from).powf(f64::from(step) / f64::from(CURVE_POINTS - 1));
            (budget, budget::macro_recall(&self.thefts, self.bar(budget)))
        });
        let at = |bars: &Bars, bar: Bar| self.point(bars, bar);
        Detector {
            name: peer.map_or("tokenwarden", |peer| peer.name()).to_owned(),
            about: peer
                .map_or("log-odds that a party other than the owner holds the token", |peer| peer.about())
                .to_owned(),
            points: BUDGETS.iter().map(|budget| at(&self.bars, self.bars.at_budget(*budget))).collect(),
            by_cause: BUDGETS.iter().map(|budget| at(&self.by_cause, self.by_cause.at_budget(*budget))).collect(),
            as_published: peer.and_then(Peer::own_bar).map(|bar| at(&self.bars, self.bars.at(bar))),
            curve: curve.collect(),
        }
    }

    fn point(&self, bars: &Bars, bar: Bar) -> Point {
        Point {
            bar: bar.score.is_finite().then_some(bar.score),
            false_alerts: bar.false_alerts,
            while_stolen: self.while_stolen.at(bar.score).false_alerts,
            per_1000_token_days: bars.rate(bar),
            macro_recall: budget::macro_recall_interval(&self.thefts, bar.score, SEED),
        }
    }
}

impl Scenario {
    fn new(name: &str, cases: &[&CaseRecord], controls: &BTreeSet<String>, scored: &[Scored<'_>]) -> Self {
        let share = |wanted: Verdict| share(cases.iter().filter(|case| case.verdict >= wanted).count(), cases.len());
        let bar = scored[OURS].bar(BUDGET_OF_TIMES);
        let detected: Vec<_> = cases.iter().filter_map(|case| Some((case, case.detected(OURS, bar)?))).collect();
        let spread = |figure: fn(&CaseRecord, Rise) -> f64| {
            Spread::of(detected.iter().map(|(case, rise)| figure(case, *rise)).collect())
        };
        Self {
            scenario: name.to_owned(),
            control: controls.contains(name),
            cases: cases.len(),
            recall: BUDGETS.map(|budget| budget::proportion(scored[OURS].caught(cases, budget), cases.len())).to_vec(),
            peers: scored[OURS + 1..]
                .iter()
                .map(|peer| BUDGETS.map(|budget| self::share(peer.caught(cases, budget), cases.len())).to_vec())
                .collect(),
            events_to_detect: spread(|_, rise| f64::from(rise.events)),
            turns_to_detect: spread(|_, rise| f64::from(rise.turns)),
            minutes_to_detect: spread(|case, rise| (rise.at - case.first_at) as f64 / MINUTE_MS as f64),
            alerted: share(Verdict::Alert),
            revoked: share(Verdict::Revoke),
        }
    }
}

impl TheftCase {
    fn all(measure: &Measure, ours: &Scored<'_>) -> Vec<Self> {
        let labelled = measure.ledger.cases().map(|(number, record)| (number, measure.labels.case(number), record));
        let thefts = labelled.filter(|(_, case, _)| case.theft).map(|(number, case, record)| Self {
            scenario: case.scenario.clone(),
            case: case.name.clone(),
            events: record.events,
            caught_at: BUDGETS.into_iter().find(|budget| record.highest(OURS) > ours.bar(*budget)),
            verdict: record.verdict,
            most_telling: measure.most_telling.get(&number).cloned(),
        });
        thefts.collect()
    }
}

impl HardCases {
    fn new(name: &str, cases: &[&CaseRecord], scored: &[Scored<'_>]) -> Self {
        let alerted = |scored: &Scored<'_>| BUDGETS.map(|budget| scored.caught(cases, budget)).to_vec();
        let with = |wanted: Verdict| cases.iter().filter(|case| case.verdict >= wanted).count();
        Self {
            scenario: name.to_owned(),
            cases: cases.len(),
            alerted: alerted(&scored[OURS]),
            verdict_alert: with(Verdict::Alert),
            verdict_revoke: with(Verdict::Revoke),
            peers: scored[OURS + 1..].iter().map(alerted).collect(),
        }
    }
}

impl Precision {
    fn new((right, wrong): (u64, u64), token_days: usize) -> Self {
        let wrong_per_million_token_days = wrong as f64 * 1e6 / token_days.max(1) as f64;
        Self {
            right,
            wrong,
            wrong_per_million_token_days,
            precision: budget::proportion(right as usize, (right + wrong) as usize),
        }
    }
}

impl StolenTokens {
    fn new(measure: &Measure, controls: &BTreeSet<String>) -> Self {
        let all = measure.ledger.stolen_tokens();
        let counted = all.filter(|(case, _)| !controls.contains(&measure.labels.case(*case).scenario));
        counted.fold(Self { tokens: 0, revoked: 0 }, |sum, (_, revoked)| Self {
            tokens: sum.tokens + 1,
            revoked: sum.revoked + u64::from(revoked),
        })
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        Some(Self { median: budget::percentile(&values, 0.5)?, p90: budget::percentile(&values, 0.9)? })
    }
}

fn share(count: usize, total: usize) -> f64 {
    count as f64 / total.max(1) as f64
}

#[cfg(test)]
mod tests;
