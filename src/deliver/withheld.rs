//! Alerts that a silence withholds: their numbers, and the message about them when the silence ends.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::number::counted;
use crate::port::{Notice, SilenceId, WithheldCount};
use crate::verdict::IncidentId;

/// Incidents of a silence that are counted once. Further ones count each of their messages as an alert.
const INCIDENTS_MAX: usize = 1_000;
/// Incidents that the message names, those with the highest log-odds.
const NAMED_MAX: usize = 50;

/// What a silence has withheld from the channels of this process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Withheld {
    /// Time of the first alert, milliseconds since the epoch, wall clock.
    pub(crate) since: i64,
    /// Number of alerts. An alert counts once, not once for each channel.
    alerts: u64,
    log_odds_max: f64,
    incidents: Vec<Named>,
    /// Number of alerts that the last message has reported.
    #[serde(default)]
    pub(crate) reported: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Named {
    incident: u64,
    log_odds: f64,
    /// Key of its last alert.
    key: String,
}

impl Withheld {
    pub(super) const fn new(since: i64) -> Self {
        Self { since, alerts: 0, log_odds_max: f64::MIN, incidents: Vec::new(), reported: 0 }
    }

    pub(super) fn add(&mut self, incident: u64, key: &str, log_odds: f64) {
        self.log_odds_max = self.log_odds_max.max(log_odds);
        let is_full = self.incidents.len() >= INCIDENTS_MAX;
        match self.incidents.iter_mut().find(|named| named.incident == incident) {
            Some(named) => {
                named.log_odds = named.log_odds.max(log_odds);
                if named.key == key {
                    return;
                }
                key.clone_into(&mut named.key);
            }
            None if is_full => {}
            None => self.incidents.push(Named { incident, log_odds, key: key.to_owned() }),
        }
        self.alerts += 1;
    }

    /// Whether it has alerts that no message has reported.
    pub(super) const fn is_unreported(&self) -> bool {
        self.alerts > self.reported
    }

    pub(super) const fn alerts(&self) -> u64 {
        self.alerts
    }

    pub(super) const fn count(&self, at: i64) -> WithheldCount {
        let incidents = self.incidents.len() as u64;
        WithheldCount { alerts: self.alerts, incidents, log_odds_max: self.log_odds_max, at }
    }

    /// Key of the message.
    pub(super) fn key(&self, silence: SilenceId) -> String {
        format!("notice-silence-{:016x}-{}", silence.0, self.alerts)
    }

    /// The message. It contains no value of an event.
    pub(super) fn notice(&self, silence: SilenceId, at: i64) -> Notice {
        let mut incidents: Vec<&Named> = self.incidents.iter().collect();
        // The sort is stable, so the earliest of equal log-odds come first.
        incidents.sort_by(|one, other| other.log_odds.total_cmp(&one.log_odds));
        let (alerts, count) = (counted(self.alerts, "alert"), counted(incidents.len() as u64, "incident"));
        let more = if incidents.len() == INCIDENTS_MAX { "at least " } else { "" };
        let mut text = format!(
            "{silence} withheld {alerts} about {more}{count}. The highest log-odds are {:.1}.\nIncidents:",
            self.log_odds_max
        );
        for Named { incident, log_odds, .. } in incidents.into_iter().take(NAMED_MAX) {
            let _ = write!(text, " {} ({log_odds:.1})", IncidentId(*incident));
        }
        let _ = write!(
            text,
            "\nAll of them: tokenwarden sql \"SELECT DISTINCT incident_id FROM actions WHERE outcome = 'silenced' AND reason \
             LIKE '%{silence}%'\"\nAuthor and reason: tokenwarden silence list --all"
        );
        Notice { title: format!("A silence has ended: it withheld {alerts}"), text, at, about: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alert_counts_once_for_all_channels() {
        let mut withheld = Withheld::new(5);
        for (incident, key, log_odds) in [(1, "a", 2.0), (1, "a", 2.0), (2, "b", 4.5), (1, "c", 3.0)] {
            withheld.add(incident, key, log_odds);
        }
        assert_eq!(withheld.count(9), WithheldCount { alerts: 3, incidents: 2, log_odds_max: 4.5, at: 9 });
        assert!(withheld.is_unreported());
        let notice = withheld.notice(SilenceId(7), 9);
        assert_eq!(notice.title, "A silence has ended: it withheld 3 alerts");
        let expected = "SIL-0000000000000007 withheld 3 alerts about 2 incidents. The highest log-odds are 4.5.\n\
                        Incidents: INC-0000000000000002 (4.5) INC-0000000000000001 (3.0)\n";
        assert!(notice.text.starts_with(expected), "{}", notice.text);
        withheld.reported = withheld.alerts();
        assert!(!withheld.is_unreported());
    }

    #[test]
    fn number_of_named_incidents_is_bounded() {
        let mut withheld = Withheld::new(0);
        for incident in 0..1_200 {
            withheld.add(incident, "key", if incident == 1_150 { 9.0 } else { 1.0 });
        }
        assert_eq!(withheld.count(0), WithheldCount { alerts: 1_200, incidents: 1_000, log_odds_max: 9.0, at: 0 });
        let text = withheld.notice(SilenceId(7), 0).text;
        assert!(text.contains("1,200 alerts about at least 1,000 incidents. The highest log-odds are 9.0."), "{text}");
        assert_eq!(text.matches("INC-").count(), NAMED_MAX);
    }
}
