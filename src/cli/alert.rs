//! Updates alerts on a terminal in place.

use clap::builder::styling::{AnsiColor, Style};
use console::measure_text_width;

use crate::verdict::{IncidentId, Severity};

/// Colour of an alert's first line.
pub(super) fn colour(severity: Severity) -> Style {
    let colour = match severity {
        Severity::Critical => AnsiColor::BrightRed,
        Severity::High => AnsiColor::Red,
        Severity::Medium => AnsiColor::Yellow,
        Severity::Low | Severity::Info => return Style::new(),
    };
    colour.on_default()
}

/// The alerts printed last, from which a change of an incident finds the rows that it replaces.
#[derive(Default)]
pub(super) struct Shown {
    alerts: Vec<ShownAlert>,
}

/// One printed alert.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ShownAlert {
    pub(super) id: IncidentId,
    /// Style of the first line.
    pub(super) style: Style,
    /// Lines without control characters.
    pub(super) text: String,
}

impl ShownAlert {
    /// Rows of a terminal with `columns` columns. A longer line wraps.
    fn rows(&self, columns: usize) -> usize {
        self.text.lines().map(|line| measure_text_width(line).div_ceil(columns.max(1)).max(1)).sum()
    }
}

impl Shown {
    /// Adds `alert`, or puts it in the place of an earlier alert of its incident.
    ///
    /// Returns how many rows the cursor must move up first, and the alerts to print from there. `size` is that of the
    /// terminal in rows and columns. An earlier alert that scrolled out of view is left there.
    pub(super) fn put(&mut self, alert: ShownAlert, size: (u16, u16)) -> (usize, &[ShownAlert]) {
        let (rows, columns) = (usize::from(size.0), usize::from(size.1));
        let earlier = self.alerts.iter().position(|shown| shown.id == alert.id);
        let up = |from: usize| self.alerts[from..].iter().map(|shown| shown.rows(columns)).sum::<usize>();
        // The cursor is in the row below the last alert.
        match earlier.map(|at| (at, up(at))) {
            Some((at, up)) if up < rows => {
                self.alerts[at] = alert;
                return (up, &self.alerts[at..]);
            }
            // Those above are out of view, too.
            Some((at, _)) => drop(self.alerts.drain(..=at)),
            None => {}
        }
        self.alerts.push(alert);
        let last = self.alerts.len() - 1;
        (0, &self.alerts[last..])
    }

    /// Clears the alerts on the screen, because other text was printed below them.
    pub(super) fn clear(&mut self) {
        self.alerts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(id: u64, lines: usize) -> ShownAlert {
        ShownAlert { id: IncidentId(id), style: Style::new(), text: vec!["x".repeat(30); lines].join("\n") }
    }

    #[test]
    fn changed_alert_is_replaced_in_place() {
        let mut all = Shown::default();
        let size = (24, 80);
        assert_eq!(all.put(shown(1, 3), size), (0, &[shown(1, 3)][..]));
        assert_eq!(all.put(shown(2, 4), size), (0, &[shown(2, 4)][..]));
        assert_eq!(all.put(shown(1, 5), size), (7, &[shown(1, 5), shown(2, 4)][..]), "the alert below moves down");
        assert_eq!(all.put(shown(2, 2), size), (4, &[shown(2, 2)][..]));
        all.clear();
        assert_eq!(all.put(shown(2, 3), size), (0, &[shown(2, 3)][..]), "other output is not overwritten");
    }

    #[test]
    fn changed_alert_out_of_view_is_printed_again() {
        let mut all = Shown::default();
        for id in 1..=3 {
            all.put(shown(id, 4), (12, 80));
        }
        assert_eq!(all.put(shown(1, 4), (12, 80)), (0, &[shown(1, 4)][..]), "12 rows and the row of the cursor");
        assert_eq!(all.put(shown(1, 4), (12, 80)), (4, &[shown(1, 4)][..]));
        assert_eq!(all.put(shown(1, 4), (12, 15)), (8, &[shown(1, 4)][..]), "each line wraps into two rows");
        assert_eq!(all.put(shown(3, 1), (8, 80)), (0, &[shown(3, 1)][..]));
        assert_eq!(all.put(shown(2, 4), (12, 80)), (0, &[shown(2, 4)][..]), "alert 2 was above alert 3");
    }
}
