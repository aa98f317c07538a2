//! What detection will learn from feedback: found in the store, shown to the analyst, and appended to the log.

use std::fmt::Write as _;

use serde_json::Value;

use super::super::confirmation::Confirmation;
use super::super::explain::{field, store_error};
use super::super::failure::Failure;
use super::super::record_log;
use super::super::terminal::to_stderr;
use super::records::{self, Given};
use crate::config::Config;
use crate::format::Format;
use crate::number::counted;
use crate::port::FeedbackRecord;
use crate::sanitize;
use crate::store::Reader;

/// Maximum number of events that are printed.
const LISTED_MAX: usize = 20;

/// The rows of an incident from which detection can learn.
pub(super) struct Rows {
    events: Vec<Value>,
    counts: Option<Value>,
}

impl Rows {
    /// Reads the events up to the last change of `incident`, a row with its `event_id`. The analyst has not seen later ones.
    pub(super) async fn read(reader: &Reader, config: &Config, id: &str, incident: &Value) -> Result<Self, Failure> {
        let topics = topics_with_unclear_outcomes(config);
        let last = field(incident, "event_id");
        let values: Vec<_> = topics.iter().map(String::as_str).chain([id, &*last, id]).collect();
        let events = reader.rows(&records::events(topics.len()), &values).await.map_err(|error| store_error(&error))?;
        let counts = reader.rows(&records::counts(topics.len()), &values).await.map_err(|error| store_error(&error))?;
        Ok(Self { events, counts: counts.into_iter().next() })
    }
}

/// Sources whose format distinguishes an unclear outcome from none. The store has the status 0 for both.
fn topics_with_unclear_outcomes(config: &Config) -> Vec<String> {
    let has_unclear = |format| matches!(format, Format::Ocsf | Format::Ecs | Format::Okta);
    let topics = config.source.kafka.iter().flat_map(|kafka| kafka.names_in_rows(|feed| has_unclear(feed.format)));
    let file = config.source.file.iter().filter(|file| has_unclear(file.format));
    topics.chain(file.map(|file| file.path.to_string_lossy().into_owned())).collect()
}

/// What detection learns.
pub(super) enum Learning {
    /// The configuration has no [feedback].
    Off,
    On {
        records: Vec<FeedbackRecord>,
        left_out: LeftOut,
    },
}

/// What the records do not contain.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Places, clients and routes beyond the limits.
    beyond_limits: u64,
    /// Uses that were received after the last change of the incident.
    later: u64,
    /// Requests whose credential was not accepted, or perhaps not checked.
    unaccepted: u64,
}

impl Learning {
    /// `rows`: `None` without [feedback].
    pub(super) fn of(rows: Option<&Rows>, given: Option<&Given<'_>>) -> Self {
        let Some(rows) = rows else { return Self::Off };
        let records = given.map_or_else(Vec::new, |given| records::of(&rows.events, given));
        let count = |name| rows.counts.as_ref().and_then(|counts| counts[name].as_u64()).unwrap_or(0);
        let learnt = records.iter().map(records::len).sum::<usize>();
        let left_out = LeftOut {
            beyond_limits: count("covered").saturating_sub(learnt as u64),
            later: count("later"),
            unaccepted: count("unaccepted"),
        };
        Self::On { records, left_out }
    }

    /// Shows what is learnt, and what is left out. The operator confirms it.
    pub(super) fn confirm(&self, incident: &str, yes: Option<usize>) -> Result<(), Failure> {
        let Self::On { records, left_out } = self else { return Ok(()) };
        if records.is_empty() {
            return Ok(());
        }
        let events: Vec<_> = records.iter().flat_map(records::listed).collect();
        let mut text = format!("Detection will learn from {}:\n", self.amount());
        for event in events.iter().take(LISTED_MAX) {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "  {}", sanitize::line(event));
        }
        if let Some(more) = events.len().checked_sub(LISTED_MAX).filter(|more| *more > 0) {
            let _ = writeln!(text, "  and {more} more");
        }
        text.push_str(&left_out.text());
        to_stderr(text.trim_end());
        let refused = "nothing was stored";
        let confirmation =
            Confirmation { count: events.len(), counted: "events", id: incident, verb: "learn from them", refused };
        confirmation.obtain(yes)
    }

    /// Appends the records to the log. Returns a text about what detection learns. The row of the feedback is stored
    /// already.
    pub(super) async fn append(&self, config: &Config) -> Result<String, Failure> {
        let Self::On { records, left_out } = self else {
            return Ok("Detection does not learn from this, because the configuration has no [feedback].\n".to_owned());
        };
        if records.is_empty() {
            let missing = "Detection does not learn from this, because the store has no use of a token in the incident";
            return Ok(format!("{missing} up to its last change.\n{}", left_out.text()));
        }
        let log = record_log::open::<FeedbackRecord>(config)?;
        for record in records {
            log.append(record.clone()).await.map_err(|reason| {
                Failure::Unavailable(format!(
                    "the feedback is stored, but detection does not learn from all of it: {reason}. Run the command again"
                ))
            })?;
        }
        Ok(format!("Detection learns from {}, before their next event.\n", self.amount()))
    }

    /// Numbers of events and subjects.
    fn amount(&self) -> String {
        let Self::On { records, .. } = self else { return String::new() };
        let events = records.iter().map(records::len).sum::<usize>();
        format!("{} of {}", counted(events as u64, "event"), counted(records.len() as u64, "subject"))
    }
}

impl LeftOut {
    fn text(&self) -> String {
        let Self { beyond_limits, later, unaccepted } = *self;
        let lines = [
            (beyond_limits, "event", "beyond the limits: 64 events and 64 KiB for each subject, 100 subjects"),
            (later, "use", "received after the last change of the incident"),
            (unaccepted, "request", "whose credential was not accepted, or perhaps not checked"),
        ];
        let lines = lines.into_iter().filter(|(count, ..)| *count > 0);
        let mut text = String::new();
        for (count, what, why) in lines {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "Left out: {} {why}.", counted(count, what));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_what_is_left_out() {
        assert_eq!(LeftOut::default().text(), "");
        let text = LeftOut { beyond_limits: 0, later: 1, unaccepted: 2_000 }.text();
        let expected = "Left out: 1 use received after the last change of the incident.\n\
                        Left out: 2,000 requests whose credential was not accepted, or perhaps not checked.\n";
        assert_eq!(text, expected);
    }
}
