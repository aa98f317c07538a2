//! The notice of alerts that the alert budget has withheld.

use crate::millis::{DAY_MS, HOUR_MS};
use crate::port::{Notice, Outbox};
use crate::tally::Withheld;

/// Withheld alerts are counted for this time before the first notice.
const WITHHELD_MS: i64 = HOUR_MS;

/// Counts withheld alerts, and sends a notice of them once a day.
pub(crate) struct WithheldNotice {
    /// First part of the keys.
    name: &'static str,
    /// Withheld alerts that are not reported yet, and the time of the first, milliseconds since the epoch, wall clock.
    withheld: Withheld,
    since: i64,
    /// Time of the last report.
    at: Option<i64>,
}

impl WithheldNotice {
    /// `name`: first part of the keys of the notices.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, withheld: Withheld::default(), since: 0, at: None }
    }

    /// Adds withheld alerts to the next notice.
    pub(crate) fn add(&mut self, withheld: Withheld, now: i64) {
        if self.withheld.alerts == 0 {
            self.since = now;
        }
        self.withheld.add(withheld);
    }

    pub(crate) fn is_due(&self, now: i64) -> bool {
        self.withheld.alerts > 0 && now - self.since >= WITHHELD_MS && self.at.is_none_or(|at| now - at >= DAY_MS)
    }

    /// Sends the notice, if alerts were withheld.
    pub(crate) fn send(&mut self, outbox: &dyn Outbox, now: i64) -> std::io::Result<()> {
        if self.withheld.alerts == 0 {
            return Ok(());
        }
        // A key per period, because the outbox ignores a second notice with the same key.
        let key = format!("{}-{}", self.name, self.since);
        outbox.notify(&key, notice(self.withheld, now - self.since, now))?;
        self.withheld = Withheld::default();
        self.at = Some(now);
        Ok(())
    }
}

fn notice(withheld: Withheld, period_ms: i64, now: i64) -> Notice {
    let Withheld { alerts, highest } = withheld;
    let hours = (period_ms as f64 / (HOUR_MS) as f64).ceil().max(1.0);
    let text = format!(
        "{alerts} alerts were withheld in {hours} h because the alert budget of their tenants was used up \
         (detection.alert_budget_per_day, detection.alert_budget_total_per_day). The highest log-odds among them are \
         {highest:.1}. Their events are in token_events with the verdict watch: SELECT * FROM token_events WHERE verdict = \
         'watch' ORDER BY score DESC LIMIT 100. With detection.campaigns, campaigns are counted too; the events of their \
         victims can have any verdict, and tokenwarden replay --campaigns lists them."
    );
    Notice { title: "Alerts are withheld by the alert budget".to_owned(), text, at: now, about: None }
}
