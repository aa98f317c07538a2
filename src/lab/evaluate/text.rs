//! The report as tables, for a terminal and for a documentation page.

use super::budget::Share;
use super::calibration::NOMINAL;
use super::observation::OURS;
use super::report::{BUDGET_OF_TIMES, BUDGETS, Point, Precision, Report, Scenario, Spread};
use super::table::{self, Table, put};

impl Report {
    /// Plain text with aligned columns.
    #[must_use]
    pub fn to_text(&self) -> String {
        table::to_text(&self.head(), &self.tables())
    }

    /// Markdown tables with headings of the third level.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        table::to_markdown(&self.head(), &self.tables())
    }

    fn head(&self) -> String {
        let mut head = format!(
            "{} events of {} days: {} token-days, {} thefts of {} kinds, {} hard cases of {} kinds.",
            self.events,
            self.days,
            self.token_days,
            self.thefts,
            self.scenarios.len(),
            self.hard_cases,
            self.honest.len()
        );
        if self.dead_letters > 0 {
            put(&mut head, format_args!(" {} records could not be decoded.", self.dead_letters));
        }
        let controls: Vec<_> = self.scenarios.iter().filter(|s| s.control).map(|s| s.scenario.as_str()).collect();
        if !controls.is_empty() {
            put(&mut head, format_args!(" Macro recall leaves out the controls: {}.", controls.join(", ")));
        }
        head
    }

    fn tables(&self) -> Vec<Table> {
        let mut tables = Vec::new();
        if self.thefts > 0 {
            tables.extend([self.comparison(), self.causes(), self.by_scenario()]);
            if self.detectors.len() > 1 {
                tables.push(self.scenarios_of_all());
            }
        }
        tables.push(self.verdicts());
        if !self.false_revocations.is_empty() {
            tables.push(self.revoked_falsely());
        }
        tables.extend([self.hard_cases(), self.log_odds(), self.p_values()]);
        tables.retain(|table| !table.rows.is_empty());
        tables
    }

    fn comparison(&self) -> Table {
        let rows = self.detectors.iter().map(|detector| {
            let mut row = vec![detector.name.clone()];
            row.extend(detector.points.iter().map(|point| interval(point.macro_recall)));
            row.push(detector.as_published.as_ref().map_or_else(|| "–".to_owned(), as_published));
            row
        });
        let mut header = vec!["method".to_owned()];
        header.extend(BUDGETS.map(|budget| format!("at {budget}")));
        header.push("as published".to_owned());
        let ours = self.detectors[OURS].points.iter();
        let stolen: Vec<_> = ours.map(|point| format!("{} of {}", point.while_stolen, point.false_alerts)).collect();
        Table {
            title: "Thefts detected at equal false positives".to_owned(),
            note: format!(
                "Macro recall with its 95 % interval, at 1, 5 and 20 false positives per 1,000 token-days. As published: \
                 recall and false positives with the published threshold of the rule. Of tokenwarden's false positives, \
                 {} were on tokens that a thief had used in the previous 24 hours.",
                stolen.join(", ")
            ),
            header,
            rows: rows.collect(),
        }
    }

    fn causes(&self) -> Table {
        let row = |detector: &super::report::Detector| {
            let shares = detector.by_cause.iter().map(|point| interval(point.macro_recall));
            std::iter::once(detector.name.clone()).chain(shares).collect()
        };
        let mut header = vec!["method".to_owned()];
        header.extend(BUDGETS.map(|budget| format!("at {budget}")));
        Table {
            title: "One false positive per cause".to_owned(),
            note:
                "Token-days of one incident count once. Token-days of an incident with an event of a thief, and of a \
                   token that a thief had used in the previous 24 hours, do not count."
                    .to_owned(),
            header,
            rows: self.detectors.iter().map(row).collect(),
        }
    }

    fn by_scenario(&self) -> Table {
        let rows = self.scenarios.iter().map(|scenario| {
            let mut row = vec![scenario.name(), scenario.cases.to_string()];
            row.extend(scenario.recall.iter().map(|share| interval(*share)));
            row.extend([scenario.events_to_detect, scenario.turns_to_detect].map(|counts| spread(counts, 0)));
            row.push(spread(scenario.minutes_to_detect, 1));
            row.extend([percent(scenario.alerted), percent(scenario.revoked)]);
            row
        });
        let mut header = vec!["theft".to_owned(), "cases".to_owned()];
        header.extend(BUDGETS.map(|budget| format!("at {budget}")));
        header.extend(["events", "turns", "minutes", "alert", "revoke"].map(str::to_owned));
        Table {
            title: "By kind of theft".to_owned(),
            note: format!(
                "Share of cases detected, with its 95 % interval (Clopper and Pearson). Events, turns and minutes: from the \
                 thief's first event to detection, at {BUDGET_OF_TIMES} false positives per 1,000 token-days (median and 90th \
                 percentile of the detected cases). A turn ends when the owner uses the token. Alert, revoke: share of \
                 cases with a verdict of alert or revoke, and of revoke, with the settings of the run."
            ),
            header,
            rows: rows.collect(),
        }
    }

    fn scenarios_of_all(&self) -> Table {
        let rows = self.scenarios.iter().map(|scenario| {
            let ours: Vec<_> = scenario.recall.iter().map(|share| share.share).collect();
            let all = std::iter::once(&ours).chain(&scenario.peers);
            let shares = all.map(|shares| shares.iter().map(|share| whole(*share)).collect::<Vec<_>>().join(" / "));
            std::iter::once(scenario.name()).chain(shares).collect()
        });
        let names = self.detectors.iter().map(|detector| detector.name.clone());
        Table {
            title: "By kind of theft, all methods".to_owned(),
            note: format!("Percentage of cases detected at {} false positives per 1,000 token-days.", budgets()),
            header: std::iter::once("theft".to_owned()).chain(names).collect(),
            rows: rows.collect(),
        }
    }

    fn verdicts(&self) -> Table {
        let row = |name: &str, unit: &str, of: Precision| {
            let Precision { right, wrong, wrong_per_million_token_days, precision } = of;
            let share = if right + wrong == 0 { "–".to_owned() } else { fine_interval(precision) };
            let rate = format!("{wrong_per_million_token_days:.1}");
            vec![name.to_owned(), unit.to_owned(), right.to_string(), wrong.to_string(), rate, share]
        };
        let is_controlled = self.scenarios.iter().any(|scenario| scenario.control);
        let controls = if is_controlled { " (without the controls)" } else { "" };
        Table {
            title: "Verdicts with the settings of the run".to_owned(),
            note: format!(
                "Correct: a thief had used the token, for alerts in the previous 24 hours. Of {} stolen tokens{controls}, \
                 {} were revoked. False alerts: {:.1} token-days per day; the alert budget is {} alerts per day.",
                self.stolen.tokens,
                self.stolen.revoked,
                self.false_alerts_per_day(),
                self.alert_budget_per_day
            ),
            header: ["verdict", "unit", "correct", "false", "false per 1,000,000 token-days", "precision"]
                .map(str::to_owned)
                .to_vec(),
            rows: vec![row("alert or revoke", "token-days", self.alert), row("revoke", "tokens", self.revoke)],
        }
    }

    fn revoked_falsely(&self) -> Table {
        let rows = self.false_revocations.iter().map(|revoked| {
            let event = &revoked.event;
            vec![
                event.event_id.clone(),
                event.subject.clone(),
                revoked.scenario.clone().unwrap_or_else(|| "–".to_owned()),
                format!("{:.1}", event.log_odds),
                event.signals.join("; "),
            ]
        });
        Table {
            title: "False revocations".to_owned(),
            note: String::new(),
            header: ["event", "grant or token", "hard case", "log-odds", "signals"].map(str::to_owned).to_vec(),
            rows: rows.collect(),
        }
    }

    fn hard_cases(&self) -> Table {
        let joined = |counts: &[usize]| counts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" / ");
        let rows = self.honest.iter().map(|hard| {
            let mut row = vec![hard.scenario.clone(), hard.cases.to_string(), joined(&hard.alerted)];
            row.extend([hard.verdict_alert, hard.verdict_revoke].map(|count| count.to_string()));
            row.extend(hard.peers.iter().map(|counts| joined(counts)));
            row
        });
        let mut header = ["hard case", "cases", "tokenwarden", "alert", "revoke"].map(str::to_owned).to_vec();
        header.extend(self.detectors[OURS + 1..].iter().map(|detector| detector.name.clone()));
        Table {
            title: "Hard cases of legitimate use".to_owned(),
            note: format!(
                "Cases with a false positive at {} per 1,000 token-days. Alert, revoke: cases with a verdict of alert or \
                 revoke, and of revoke, with the settings of the run.",
                budgets()
            ),
            header,
            rows: rows.collect(),
        }
    }

    fn log_odds(&self) -> Table {
        let last = self.z.len().saturating_sub(1);
        let rows = self.z.iter().enumerate().map(|(at, bin)| {
            let range = match at {
                0 => format!("below {}", bin.from + 1),
                _ if at == last => format!("from {}", bin.from),
                _ => format!("{} to {}", bin.from, bin.from + 1),
            };
            let [observed, expected] = [bin.observed, bin.expected].map(|share| format!("{share:.4}"));
            vec![range, bin.honest.to_string(), bin.theft.to_string(), observed, expected]
        });
        Table {
            title: "Calibration of the log-odds".to_owned(),
            note:
                "Visits by their highest log-odds. Expected: the share of thefts that follows from the log-odds, with the \
                   prior replaced by the share of thefts in this set."
                    .to_owned(),
            header: ["log-odds", "legitimate", "theft", "share of thefts", "expected"].map(str::to_owned).to_vec(),
            rows: rows.collect(),
        }
    }

    fn p_values(&self) -> Table {
        let rows = self.p.iter().map(|tail| {
            let ratios = tail.observed_over_nominal.map(|ratio| format!("{ratio:.2}"));
            [tail.cohort.clone(), tail.visits.to_string()].into_iter().chain(ratios).collect()
        });
        let mut header = vec!["cohort".to_owned(), "legitimate visits".to_owned()];
        header.extend(NOMINAL.map(|nominal| format!("at {nominal:e}")));
        Table {
            title: "Calibration of the p-value".to_owned(),
            note: "Share of legitimate visits with at most this p-value, divided by the p-value; 1 is calibrated."
                .to_owned(),
            header,
            rows: rows.collect(),
        }
    }
}

impl Scenario {
    /// The scenario, with a mark if it is a control.
    pub(super) fn name(&self) -> String {
        let mark = if self.control { " (control)" } else { "" };
        format!("{}{mark}", self.scenario)
    }
}

fn as_published(point: &Point) -> String {
    format!("{} at {:.1}", percent(point.macro_recall.share), point.per_1000_token_days)
}

fn interval(Share { share, low, high }: Share) -> String {
    format!("{} % ({}–{})", whole(share), whole(low), whole(high))
}

/// With two decimals, for shares near 1.
fn fine_interval(Share { share, low, high }: Share) -> String {
    format!("{:.2} % ({:.2}–{:.2})", share * 100.0, low * 100.0, high * 100.0)
}

fn percent(share: f64) -> String {
    format!("{} %", whole(share))
}

pub(super) fn whole(share: f64) -> String {
    format!("{:.0}", share * 100.0)
}

fn spread(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or_else(|| "–".to_owned(), |Spread { median, p90 }| format!("{median:.decimals$}, {p90:.decimals$}"))
}

pub(super) fn budgets() -> String {
    let [first, middle, last] = BUDGETS;
    format!("{first} / {middle} / {last}")
}
