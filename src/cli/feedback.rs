//! `tokenwarden feedback`: the verdict of an analyst on an incident.

mod learning;
mod records;

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::Value;

use self::learning::{Learning, Rows};
use self::records::Given;
use super::explain::{field, store_error};
use super::failure::Failure;
use super::record::{Record, Signature};
use super::sql::failure;
use super::terminal::to_stdout;
use super::user_messages::{self, Sent};
use crate::config::Config;
use crate::millis::{DAY_MS, rfc3339};
use crate::number::counted;
use crate::policy;
use crate::port::{Clock, Reference, UserMessage, UserMessageKind};
use crate::sanitize;
use crate::store::{ClickHouse, Feedback, Reader};
use crate::telemetry::SystemClock;
use crate::verdict::{IncidentId, Judgement, RuleId};

/// Record whether an incident was a theft. `shadow report` counts it, and with [feedback] detection learns from it.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Id of the incident (INC-…).
    #[arg(value_name = "INCIDENT")]
    incident: String,
    /// Verdict of the analyst.
    #[arg(value_enum)]
    verdict: Verdict,
    /// Write the draft of a policy exception to this file, too. It has no effect until it is added to a rule file.
    #[arg(long, value_name = "FILE")]
    draft: Option<PathBuf>,
    /// Learn without asking if the number of events is COUNT. Without a terminal, the command needs it if detection learns.
    #[arg(long, value_name = "COUNT")]
    yes: Option<usize>,
    #[command(flatten)]
    record: Record,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Verdict {
    /// Another party than the owner used the token.
    True,
    /// The owner used the token.
    False,
    /// Unusual, and allowed: a test, a new tool, a trip.
    Benign,
}

impl From<Verdict> for Judgement {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::True => Self::True,
            Verdict::False => Self::False,
            Verdict::Benign => Self::Benign,
        }
    }
}

const INCIDENT: &str = "SELECT tenant_id, app_id, token_id, family_id, rules, signal_shares, reason, event_id \
                        FROM incidents_latest WHERE incident_id = ?";
/// Users of the grants and tokens of an incident that tokenwarden has revoked because of it.
const REVOKED: &str = "SELECT DISTINCT incident_id, tenant_id, user_id FROM incidents \
                       WHERE incident_id = ? AND if(family_id = '', token_id, family_id) GLOBAL IN \
                           (SELECT target FROM actions WHERE incident_id = ? AND outcome = 'done' \
                            AND kind IN ('revoke_token', 'revoke_family')) \
                       ORDER BY tenant_id, user_id LIMIT 100";
/// Validity of a drafted exception.
const DRAFT_DAYS: i64 = 30;

/// Stores the verdict. Prints the draft of an exception for a verdict other than `true`.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (settings, config) = (arguments.record.store()?, arguments.record.config()?);
    let Signature { by, note } = arguments.record.signature()?;
    let judgement = Judgement::from(arguments.verdict);
    if judgement == Judgement::True && arguments.draft.is_some() {
        return Err(Failure::Usage("--draft needs the verdict false or benign".to_owned()));
    }
    let now = SystemClock.now_millis();
    let runtime = super::setup::start_runtime()?;
    let Found { incident, revoked, rows } = runtime.block_on(async {
        let reader = Reader::open(&settings).await.map_err(|error| failure(&error, Failure::Configuration))?;
        let found = find(&reader, &config, arguments).await;
        reader.close().await;
        found
    })?;
    let messages: Vec<_> = revoked.iter().filter_map(|row| message(row, now)).collect();
    let given = IncidentId::parse(&arguments.incident).map(|incident| Given { incident, judgement, by: &by, at: now });
    let learning = Learning::of(rows.as_ref(), given.as_ref());
    learning.confirm(&arguments.incident, arguments.yes)?;
    let mut text = format!("{}: {} by {by}\n", arguments.incident, judgement.as_str());
    let mut exception = None;
    if judgement != Judgement::True {
        let reason =
            if note.is_empty() { arguments.incident.clone() } else { format!("{}: {note}", arguments.incident) };
        exception = Some(draft(&incident, &by, &reason, now));
    }
    let appended = runtime.block_on(async {
        let store = ClickHouse::open(&settings).await.map_err(|error| failure(&error, Failure::Configuration))?;
        let incident_id = arguments.incident.clone();
        let given = store.give(&Feedback { incident_id, given_at: now, by, judgement, note }).await;
        store.close().await;
        given.map_err(|error| store_error(&error))?;
        Ok::<_, Failure>(learning.append(&config).await)
    })?;
    text.extend(appended.as_deref().ok());
    if let Some(Draft { place, exception }) = &exception {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{place}\n{exception}");
    }
    // A failure of one step does not prevent the others.
    let printed = to_stdout(&sanitize::lines(&text));
    let informed = if messages.is_empty() { Ok(()) } else { runtime.block_on(inform_users(&config, &messages)) };
    let written = match (&arguments.draft, &exception) {
        (Some(path), Some(draft)) => write_draft(path, &draft.exception),
        _ => Ok(()),
    };
    appended.and(printed).and(informed).and(written)
}

/// Rows of the store about an incident.
struct Found {
    incident: Value,
    /// Rows of [`REVOKED`].
    revoked: Vec<Value>,
    /// `None`: the configuration has no [feedback].
    rows: Option<Rows>,
}

async fn find(reader: &Reader, config: &Config, arguments: &Arguments) -> Result<Found, Failure> {
    let id = &*arguments.incident;
    let found = reader.rows(INCIDENT, &[id]).await.map_err(|error| store_error(&error))?;
    let incident = found.into_iter().next();
    let incident = incident.ok_or_else(|| Failure::Usage(format!("the store has no incident {id}")))?;
    let revoked = match arguments.verdict {
        Verdict::False if config.notify_users.is_some() => {
            reader.rows(REVOKED, &[id, id]).await.map_err(|error| store_error(&error))?
        }
        _ => Vec::new(),
    };
    let rows = match config.feedback {
        Some(_) => Some(Rows::read(reader, config, id, &incident).await?),
        None => None,
    };
    Ok(Found { incident, revoked, rows })
}

/// Writes a new file.
fn write_draft(path: &Path, exception: &str) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(exception.as_bytes()));
    written.map_err(|error| {
        Failure::Usage(format!("the feedback is stored, but --draft {} cannot be written: {error}", path.display()))
    })
}

/// The message to a user whose access was revoked by mistake. A row of [`REVOKED`] without a user has none.
fn message(row: &Value, at: i64) -> Option<UserMessage> {
    let (tenant_id, user_id) = (field(row, "tenant_id"), field(row, "user_id"));
    let incident = IncidentId::parse(&field(row, "incident_id"))?;
    let kind = UserMessageKind::RevokedByMistake;
    (!user_id.is_empty()).then_some(UserMessage { kind, tenant_id, user_id, about: Reference::Incident(incident), at })
}

/// Sends the messages, and prints a line for each. Fails if one was not accepted.
async fn inform_users(config: &Config, messages: &[UserMessage]) -> Result<(), Failure> {
    let Sent { lines, failed, .. } = user_messages::send(config, messages).await?;
    let text = lines.iter().fold(String::new(), |text, line| text + &sanitize::line(line) + "\n");
    to_stdout(&text)?;
    if failed == 0 {
        return Ok(());
    }
    let failed = counted(failed as u64, "message");
    Err(Failure::Unavailable(format!(
        "the feedback is stored, and {failed} could not be sent. Another run sends all messages again, with the same ids"
    )))
}

/// The draft of an exception, and a text about its place.
struct Draft {
    place: String,
    exception: String,
}

/// The draft of an exception for the policies of the incident's rules.
fn draft(incident: &Value, by: &str, reason: &str, now: i64) -> Draft {
    let until = rfc3339((now / DAY_MS + DRAFT_DAYS) * DAY_MS);
    let mut exception =
        format!("[[policies.exceptions]]\nauthor = {}\nreason = {}\nuntil = {until}\n", quoted(by), quoted(reason));
    for (key, name) in [("tenant", "tenant_id"), ("app", "app_id"), ("token", "token_id")] {
        let value = field(incident, name);
        if !value.is_empty() {
            // Writing to a `String` cannot fail.
            let _ = writeln!(exception, "{key} = {}", quoted(&value));
        }
    }
    let rules = policies(incident);
    let place = if rules.is_empty() {
        "No policy raised this incident, and an exception only limits policies. Detectors learn from uses and from \
         `confirmed` events. The draft fits a policy that you add to a rule:\n"
            .to_owned()
    } else {
        let files: Vec<_> = rules.iter().map(|rule| format!("rules/{rule}.toml")).collect();
        format!("Draft of an exception, for the policy in {} that raised this incident:\n", files.join(", "))
    };
    Draft { place, exception }
}

/// The rules whose policies raised the incident: their signals have a share of 0.
fn policies(incident: &Value) -> Vec<&str> {
    let list = |name: &str| incident[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let rules = list("rules").iter().zip(list("signal_shares"));
    let raised = rules.filter(|(_, share)| share.as_f64() == Some(0.0)).filter_map(|(rule, _)| rule.as_str());
    raised.filter(|rule| policy::RULES.iter().map(|id: &RuleId| id.as_str()).any(|id| id == *rule)).collect()
}

/// A TOML basic string. Unsafe characters are escaped, so that the string can be printed and has the original value.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            // Writing to a `String` cannot fail.
            other if sanitize::is_unsafe(other) => drop(write!(quoted, "\\U{:08X}", u32::from(other))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn draft_is_an_exception_with_author_reason_and_end() {
        let hostile = "t\"\n[[policies]]\u{1b}[2J";
        let incident = json!({
            "tenant_id": "acme", "app_id": "", "token_id": hostile, "rules": ["new_country", "new_ip"],
            "signal_shares": [0.0, 2.5],
        });
        let Draft { place, exception } = draft(&incident, "Ana", "INC-1: a \"trip\"", 1_795_000_000_000);
        assert!(place.contains("rules/new_country.toml") && !place.contains("new_ip"), "{place}");
        let read: toml::Table = exception.parse().expect("TOML");
        let read = &read["policies"]["exceptions"][0];
        assert_eq!(read["author"].as_str(), Some("Ana"));
        assert_eq!(read["reason"].as_str(), Some("INC-1: a \"trip\""));
        assert_eq!(read["until"].to_string(), "2026-12-18T00:00:00Z");
        assert_eq!(read["tenant"].as_str(), Some("acme"));
        assert_eq!(read["token"].as_str(), Some(hostile));
        assert!(exception.chars().all(|c| c == '\n' || !sanitize::is_unsafe(c)), "{exception:?}");
        assert!(read.get("app").is_none());
        let none = draft(&json!({"rules": ["new_ip"], "signal_shares": [2.5]}), "Ana", "r", 0);
        assert!(none.place.starts_with("No policy raised this incident"), "{}", none.place);
    }
}
