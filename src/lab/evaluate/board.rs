//! A scoreboard: the reports of several sets side by side, to follow detection quality from change to change.

use std::collections::BTreeMap;

use super::calibration::{NOMINAL, ZBin};
use super::observation::OURS;
use super::report::{BUDGETS, Detector, Point, Precision, Report, Scenario};
use super::table::{self, Table};
use super::text::{budgets, whole};

/// Reports with the names of their sets, by group. The names of one group differ only in a number at the end.
#[derive(Debug)]
pub struct Board {
    groups: BTreeMap<String, Vec<(String, Report)>>,
}

/// The figures of a row. Without a value, there was nothing to measure.
#[derive(Clone, Debug, PartialEq)]
struct Figures {
    /// Macro recall at each of [`BUDGETS`], by token-day and by cause.
    recall: Budgeted,
    by_cause: Budgeted,
    alerts: Part,
    revocations: Part,
    stolen: Part,
    false_alerts_per_day: Option<f64>,
    alert_budget_per_day: Option<f64>,
    /// Share of thefts among visits with log-odds of at least 0, and the share that follows from the log-odds.
    thefts: Option<f64>,
    thefts_expected: Option<f64>,
    /// Observed share of p-values over the nominal one, at each of [`NOMINAL`].
    p_value: [Option<f64>; NOMINAL.len()],
}

type Budgeted = [Option<f64>; BUDGETS.len()];

/// A number of events or tokens, and how many of them have a property.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Part {
    part: u64,
    whole: u64,
}

impl Board {
    /// `reports`: each with the name of its set.
    #[must_use]
    pub fn new(reports: impl IntoIterator<Item = (String, Report)>) -> Self {
        let mut groups: BTreeMap<String, Vec<(String, Report)>> = BTreeMap::new();
        for (name, report) in reports {
            groups.entry(group(&name).to_owned()).or_default().push((name, report));
        }
        for reports in groups.values_mut() {
            // By number: without zeros in front, a longer number is higher.
            reports.sort_by_cached_key(|(name, _)| (number(name).trim_start_matches('0').len(), name.clone()));
        }
        Self { groups }
    }

    /// Plain text with aligned columns.
    #[must_use]
    pub fn to_text(&self) -> String {
        table::to_text(&self.head(), &[self.quality(), self.by_scenario()])
    }

    /// Markdown tables with headings of the third level.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        table::to_markdown(&self.head(), &[self.quality(), self.by_scenario()])
    }

    fn head(&self) -> String {
        let sets = self.groups.values().map(Vec::len).sum::<usize>();
        format!(
            "{sets} sets in {} groups. The names of a group differ only in the number at the end.",
            self.groups.len()
        )
    }

    fn quality(&self) -> Table {
        let (mut rows, mut means) = (Vec::new(), Vec::new());
        for (group, reports) in &self.groups {
            let figures: Vec<Figures> = reports.iter().map(|(_, report)| Figures::of(report)).collect();
            rows.extend(reports.iter().zip(&figures).map(|((name, _), figures)| figures.row(name.clone())));
            let mean = Figures::mean(&figures);
            if figures.len() > 1 {
                rows.push(mean.row(format!("{group}: {} sets", figures.len())));
            }
            means.push(mean);
        }
        if means.len() > 1 {
            rows.push(Figures::mean(&means).row(format!("all: {} groups", means.len())));
        }
        Table {
            title: "Detection quality".to_owned(),
            note: format!(
                "Macro recall in per cent, at {} false positives per 1,000 token-days, counted by token-day and by cause; \
                 without the controls. Correct alerts: token-days with an alert, after a thief's use in the previous 24 \
                 hours. Correct revocations: revoked tokens that a thief had used before. Stolen tokens revoked: without the controls. \
                 False alerts per day: token-days, and the alert budget. Log-odds from 0: \
                 share of thefts among these visits, and the share that follows from the log-odds, in per cent. p-value: \
                 share of legitimate visits with a p-value of at most 0.01 / 0.001 / 0.0001, divided by that number; 1 is \
                 calibrated. In the row of a group, and of all, counts are sums. Its other figures are means: over the \
                 sets of the group, and over the groups.",
                budgets()
            ),
            header: [
                "set",
                "by token-day",
                "by cause",
                "correct alerts",
                "correct revocations",
                "stolen tokens revoked",
                "false alerts per day",
                "log-odds from 0",
                "p-value",
            ]
            .map(str::to_owned)
            .to_vec(),
            rows,
        }
    }

    fn by_scenario(&self) -> Table {
        let mut rows = Vec::new();
        for (group, reports) in &self.groups {
            let mut scenarios: BTreeMap<&str, Vec<&Scenario>> = BTreeMap::new();
            for scenario in reports.iter().flat_map(|(_, report)| &report.scenarios) {
                scenarios.entry(&scenario.scenario).or_default().push(scenario);
            }
            for of_sets in scenarios.values() {
                // A control in one set is one in all, because a board compares runs with the same options.
                let name = of_sets[0].name();
                let cases: usize = of_sets.iter().map(|scenario| scenario.cases).sum();
                let mut row = vec![group.clone(), name, cases.to_string()];
                row.extend((0..BUDGETS.len()).map(|at| percent(mean(of_sets, |scenario| share(scenario, at)))));
                rows.push(row);
            }
        }
        let mut header = ["group", "theft", "cases"].map(str::to_owned).to_vec();
        header.extend(BUDGETS.map(|budget| format!("at {budget}")));
        Table {
            title: "Thefts detected by kind".to_owned(),
            note: format!(
                "Share of cases detected at {} false positives per 1,000 token-days: mean over the sets of the group that \
                 have the kind.",
                budgets()
            ),
            header,
            rows,
        }
    }
}

impl Figures {
    fn of(report: &Report) -> Self {
        let ours = report.detectors.get(OURS).filter(|_| report.scenarios.iter().any(|scenario| !scenario.control));
        let recall = |points: fn(&Detector) -> &[Point]| {
            std::array::from_fn(|at| Some(points(ours?).get(at)?.macro_recall.share))
        };
        let alerts = |of: Precision| Part { part: of.right, whole: of.right + of.wrong };
        let [thefts, thefts_expected] = share_from_0(&report.z);
        Self {
            recall: recall(|ours| &ours.points),
            by_cause: recall(|ours| &ours.by_cause),
            alerts: alerts(report.alert),
            revocations: alerts(report.revoke),
            stolen: Part { part: report.stolen.revoked, whole: report.stolen.tokens },
            false_alerts_per_day: Some(report.false_alerts_per_day()),
            alert_budget_per_day: Some(f64::from(report.alert_budget_per_day)),
            thefts,
            thefts_expected,
            // The first cohort has all visits.
            p_value: std::array::from_fn(|at| report.p.first().map(|all| all.observed_over_nominal[at])),
        }
    }

    /// Sums of the counts and means of the other figures.
    fn mean(all: &[Self]) -> Self {
        let sum = |part: fn(&Self) -> Part| {
            all.iter()
                .map(part)
                .fold(Part::default(), |sum, one| Part { part: sum.part + one.part, whole: sum.whole + one.whole })
        };
        Self {
            recall: std::array::from_fn(|at| mean(all, |one| one.recall[at])),
            by_cause: std::array::from_fn(|at| mean(all, |one| one.by_cause[at])),
            alerts: sum(|one| one.alerts),
            revocations: sum(|one| one.revocations),
            stolen: sum(|one| one.stolen),
            false_alerts_per_day: mean(all, |one| one.false_alerts_per_day),
            alert_budget_per_day: mean(all, |one| one.alert_budget_per_day),
            thefts: mean(all, |one| one.thefts),
            thefts_expected: mean(all, |one| one.thefts_expected),
            p_value: std::array::from_fn(|at| mean(all, |one| one.p_value[at])),
        }
    }

    fn row(&self, name: String) -> Vec<String> {
        let joined = |figures: &[Option<f64>], text: fn(f64) -> String| {
            figures.iter().map(|figure| figure.map_or_else(none, text)).collect::<Vec<_>>().join(" / ")
        };
        vec![
            name,
            joined(&self.recall, whole),
            joined(&self.by_cause, whole),
            self.alerts.text(),
            self.revocations.text(),
            self.stolen.text(),
            format!(
                "{} of {}",
                joined(&[self.false_alerts_per_day], |rate| format!("{rate:.1}")),
                joined(&[self.alert_budget_per_day], |rate| format!("{rate:.0}"))
            ),
            joined(&[self.thefts, self.thefts_expected], whole),
            joined(&self.p_value, |ratio| format!("{ratio:.2}")),
        ]
    }
}

impl Part {
    fn text(self) -> String {
        let Self { part, whole } = self;
        if whole == 0 {
            return none();
        }
        format!("{:.1} % ({part} of {whole})", part as f64 * 100.0 / whole as f64)
    }
}

/// The number at the end of a name.
fn number(name: &str) -> &str {
    &name[name.trim_end_matches(|c: char| c.is_ascii_digit()).len()..]
}

/// The name without the number at its end, and without the separator before the number.
fn group(name: &str) -> &str {
    let group = name[..name.len() - number(name).len()].trim_end_matches(['-', '_', '.', ' ']);
    if group.is_empty() { "numbered" } else { group }
}

/// Observed and expected share of thefts among visits with log-odds of at least 0.
fn share_from_0(bins: &[ZBin]) -> [Option<f64>; 2] {
    let visits = |bin: &ZBin| (bin.honest + bin.theft) as f64;
    let certain: Vec<&ZBin> = bins.iter().filter(|bin| bin.from >= 0).collect();
    let all: f64 = certain.iter().map(|bin| visits(bin)).sum();
    let share = |of: fn(&ZBin) -> f64| {
        let thefts: f64 = certain.iter().map(|bin| of(bin) * visits(bin)).sum();
        (all > 0.0).then_some(thefts / all)
    };
    [share(|bin| bin.observed), share(|bin| bin.expected)]
}

fn share(scenario: &Scenario, at: usize) -> Option<f64> {
    scenario.recall.get(at).map(|recall| recall.share)
}

/// Mean of the known figures.
fn mean<T>(all: &[T], figure: impl Fn(&T) -> Option<f64>) -> Option<f64> {
    let (sum, count) = all.iter().filter_map(figure).fold((0.0, 0_u32), |(sum, count), one| (sum + one, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(none, |share| format!("{} %", whole(share)))
}

fn none() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::labels::Labels;
    use super::super::measure::Measure;
    use super::super::observation::Observation;
    use super::super::report::Settings;
    use super::super::samples::{honest, theft};
    use super::*;
    use crate::tally::Tally;
    use crate::verdict::Verdict;

    /// Ten legitimate token-days with scores from 0 to 9, of which the highest is an alert; a theft of each of two kinds,
    /// and of one control, on a token of its own. With `caught`, the first theft is detected and its token revoked.
    fn report(caught: bool) -> Report {
        let labels = r#"{"event_id":"a","label":"theft","scenario":"insider","case":"1"}
{"event_id":"b","label":"theft","scenario":"campaign","case":"2"}
{"event_id":"c","label":"theft","scenario":"matched","case":"3"}"#;
        let mut measure = Measure::new(Labels::read(labels.as_bytes()).expect("the labels are right"), Vec::new(), 0);
        for number in 0..10_u64 {
            let verdict = if number == 9 { Verdict::Alert } else { Verdict::Allow };
            measure.ledger.observe(&Observation { verdict, ..honest(number, 0, number as f32) });
        }
        let (verdict, score) = if caught { (Verdict::Revoke, 20.0) } else { (Verdict::Allow, -7.0) };
        measure.ledger.observe(&Observation { verdict, ..theft(100, 0, score, 0) });
        measure.ledger.observe(&theft(101, 0, -7.0, 1));
        measure.ledger.observe(&theft(102, 0, -7.0, 2));
        let controls = BTreeSet::from(["matched".to_owned()]);
        Report::new(measure, &Settings { prior: -7.0, controls, alert_budget_per_day: 20 }, &Tally::default())
    }

    fn named(reports: &[(&str, bool)]) -> Board {
        Board::new(reports.iter().map(|(name, caught)| ((*name).to_owned(), report(*caught))))
    }

    #[test]
    fn board_shows_sets_groups_and_all() {
        let board = named(&[("world-2", false), ("other", true), ("world-10", true)]);
        let markdown = board.to_markdown();
        let tables: Vec<_> = markdown.lines().filter(|line| line.starts_with(['#', '|'])).collect();
        insta::assert_snapshot!(tables.join("\n"), @r"
        ### Detection quality
        | set | by token-day | by cause | correct alerts | correct revocations | stolen tokens revoked | false alerts per day | log-odds from 0 | p-value |
        | --- | --: | --: | --: | --: | --: | --: | --: | --: |
        | other | 50 / 50 / 50 | 50 / 50 / 50 | 50.0 % (1 of 2) | 100.0 % (1 of 1) | 50.0 % (1 of 2) | 1.0 of 20 | 9 / 100 | 0.00 / 0.00 / 0.00 |
        | world-2 | 0 / 0 / 0 | 0 / 0 / 0 | 0.0 % (0 of 1) | – | 0.0 % (0 of 2) | 1.0 of 20 | 0 / 100 | 0.00 / 0.00 / 0.00 |
        | world-10 | 50 / 50 / 50 | 50 / 50 / 50 | 50.0 % (1 of 2) | 100.0 % (1 of 1) | 50.0 % (1 of 2) | 1.0 of 20 | 9 / 100 | 0.00 / 0.00 / 0.00 |
        | world: 2 sets | 25 / 25 / 25 | 25 / 25 / 25 | 33.3 % (1 of 3) | 100.0 % (1 of 1) | 25.0 % (1 of 4) | 1.0 of 20 | 5 / 100 | 0.00 / 0.00 / 0.00 |
        | all: 2 groups | 38 / 38 / 38 | 38 / 38 / 38 | 40.0 % (2 of 5) | 100.0 % (2 of 2) | 33.3 % (2 of 6) | 1.0 of 20 | 7 / 100 | 0.00 / 0.00 / 0.00 |
        ### Thefts detected by kind
        | group | theft | cases | at 1 | at 5 | at 20 |
        | --- | --- | --: | --: | --: | --: |
        | other | campaign | 1 | 0 % | 0 % | 0 % |
        | other | insider | 1 | 100 % | 100 % | 100 % |
        | other | matched (control) | 1 | 0 % | 0 % | 0 % |
        | world | campaign | 2 | 0 % | 0 % | 0 % |
        | world | insider | 2 | 50 % | 50 % | 50 % |
        | world | matched (control) | 2 | 0 % | 0 % | 0 % |
        ");
    }

    #[test]
    fn board_of_one_set_has_one_row() {
        let quality = named(&[("world-1", true)]).quality();
        assert_eq!(quality.rows.len(), 1);
        assert!(named(&[]).to_text().starts_with("0 sets in 0 groups."));
    }

    #[test]
    fn group_is_the_name_without_its_number() {
        for (name, expected) in [
            ("code-hosting-21", "code-hosting"),
            ("simulator 7701", "simulator"),
            ("v2_final", "v2_final"),
            ("world7", "world"),
            ("21", "numbered"),
        ] {
            assert_eq!(group(name), expected);
        }
    }

    #[test]
    fn figures_without_a_measurement_are_left_out() {
        let empty = Measure::new(Labels::in_attrs(), Vec::new(), 0);
        let settings = Settings { prior: -7.0, controls: BTreeSet::new(), alert_budget_per_day: 20 };
        let empty = Report::new(empty, &settings, &Tally::default());
        let cells = Figures::of(&empty).row("empty".to_owned());
        assert_eq!(cells[1..7], ["– / – / –", "– / – / –", "–", "–", "–", "0.0 of 20"]);
        let all = Figures::mean(&[Figures::of(&empty), Figures::of(&report(true))]);
        assert_eq!(all.recall, Figures::of(&report(true)).recall);
    }

    #[test]
    fn log_odds_from_0_are_weighted_by_visits() {
        let bin = |from, honest, theft, observed, expected| ZBin { from, honest, theft, observed, expected };
        let bins = [bin(-1, 90, 10, 0.1, 0.1), bin(0, 3, 0, 0.0, 0.4), bin(1, 0, 1, 1.0, 0.8)];
        let [observed, expected] = share_from_0(&bins).map(|share| share.expect("visits"));
        assert!((observed - 0.25).abs() < 1e-9 && (expected - 0.5).abs() < 1e-9);
        assert_eq!(share_from_0(&bins[..1]), [None, None]);
    }

    #[test]
    fn board_is_the_same_from_json() {
        let json = serde_json::to_vec(&report(true)).expect("JSON");
        let read: Report = serde_json::from_slice(&json).expect("a report");
        let board = |report| Board::new([("a".to_owned(), report)]).to_text();
        assert_eq!(board(read), board(report(true)));
    }
}
