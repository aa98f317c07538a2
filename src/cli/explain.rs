//! `tokenwarden explain`: the reasons of a verdict, and the history of an incident, from the store.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::failure::Failure;
use super::sql::failure;
use crate::config::Config;
use crate::sanitize;
use crate::store::{Reader, StoreSettings};

/// Show the reasons of an event's verdict, or the history of an incident.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) store: StoreArguments,
    /// Id of an event, or of an incident (INC-…).
    #[arg(value_name = "EVENT_ID|INCIDENT_ID")]
    id: String,
}

/// The store to query, and the output format.
#[derive(Debug, Args)]
pub(super) struct StoreArguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Store to query, instead of the configured one: embedded:DIR, or the URL of a ClickHouse server.
    #[arg(long, value_name = "embedded:DIR|URL")]
    store: Option<String>,
    /// Output format [default: text on a terminal, otherwise json].
    #[arg(long, value_enum)]
    output: Option<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Looks up the event or incident and prints it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = Config::load(arguments.store.config())?;
    let prior = config.detection.prior_log_odds;
    arguments.store.answer(config.store, text, async |reader| {
        let incident = reader.rows(INCIDENT, &[&arguments.id]).await.map_err(|error| store_error(&error))?;
        let events = reader.rows(EVENT, &[&arguments.id]).await.map_err(|error| store_error(&error))?;
        let Some(found) = incident.into_iter().next() else {
            if events.is_empty() {
                return Err(Failure::Usage(format!("the store has no event or incident {}", arguments.id)));
            }
            let explained: Vec<_> = events.iter().map(|event| explained(event, prior)).collect();
            let of = events.first().map(|event| field(event, "incident_id")).unwrap_or_default();
            let incident = if of.is_empty() { Value::Null } else { incident_of(reader, &of).await? };
            return Ok(json!({ "events": explained, "incident": incident }));
        };
        let opening = reader.rows(OPENING, &[&arguments.id]).await.map_err(|error| store_error(&error))?;
        let explained: Vec<_> = opening.iter().map(|event| explained(event, prior)).collect();
        let id = field(&found, "incident_id");
        Ok(json!({ "events": explained, "incident": incident_of(reader, &id).await? }))
    })
}

impl StoreArguments {
    pub(super) fn config(&self) -> Option<&std::path::Path> {
        self.config.as_deref()
    }

    /// Opens the store and prints the result of `look`: as JSON, or as `text` formats it.
    pub(super) fn answer(
        &self,
        mut settings: StoreSettings,
        text: fn(&Value) -> String,
        look: impl AsyncFnOnce(&Reader) -> Result<Value, Failure>,
    ) -> Result<(), Failure> {
        use std::io::{IsTerminal as _, Write as _};
        if let Some(url) = &self.store {
            settings.url.clone_from(url);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::Unavailable(format!("cannot start: {error}")))?;
        let answer = runtime.block_on(async {
            let reader = Reader::open(&settings).await.map_err(|error| failure(&error, Failure::Configuration))?;
            let answer = look(&reader).await;
            reader.close().await;
            answer
        })?;
        let mut stdout = std::io::stdout().lock();
        let for_eyes = self.output.map_or_else(|| stdout.is_terminal(), |output| output == Output::Text);
        let shown = if for_eyes { text(&answer) } else { format!("{}\n", sanitize::json(&answer.to_string())) };
        stdout.write_all(shown.as_bytes()).map_err(|error| Failure::output("the answer", &error))
    }
}

/// Several events may have the same id, because producers choose it. The most suspicious ones come first.
const EVENT: &str = "SELECT * FROM token_events WHERE event_id = ? ORDER BY log_odds DESC, timestamp LIMIT 10";
const INCIDENT: &str = "SELECT * FROM incidents_latest WHERE incident_id = ?";
/// The event of the incident with the highest log-odds.
const OPENING: &str = "SELECT * FROM token_events WHERE incident_id = ? ORDER BY log_odds DESC, timestamp LIMIT 1";
const TIMELINE: &str = "SELECT at, what, id, outcome, summary FROM incident_timeline WHERE incident_id = ? ORDER BY at, what, id LIMIT 500";
/// All columns, because a store of an earlier schema has fewer.
const ACTIONS: &str =
    "SELECT * FROM actions FINAL WHERE incident_id = ? ORDER BY requested_at, action_id, attempt LIMIT 500";

async fn incident_of(reader: &Reader, id: &str) -> Result<Value, Failure> {
    let Some(mut incident) =
        reader.rows(INCIDENT, &[id]).await.map_err(|error| store_error(&error))?.into_iter().next()
    else {
        return Ok(Value::Null);
    };
    incident["timeline"] = reader.rows(TIMELINE, &[id]).await.map_err(|error| store_error(&error))?.into();
    incident["actions"] = reader.rows(ACTIONS, &[id]).await.map_err(|error| store_error(&error))?.into();
    Ok(incident)
}

/// The parts of an event's log-odds, in nats: prior, listed signals, and the rest, which are smaller signals and evidence
/// of other contexts. `prior` is the configured one, for rows that do not have their own.
fn explained(event: &Value, prior: f64) -> Value {
    let log_odds = event["log_odds"].as_f64().unwrap_or_default();
    let column = |name: &str, at: usize| event[name].get(at).cloned().unwrap_or(Value::Null);
    let count = event["rules"].as_array().map_or(0, Vec::len);
    let signals: Vec<Value> = (0..count)
        .map(|at| {
            json!({
                "rule": column("rules", at), "share": column("signal_shares", at),
                "p_value": column("signal_p_values", at), "fired": column("signal_fired", at),
                "observed": column("signal_observed", at), "expected": column("signal_expected", at),
                "reason": column("reasons", at),
            })
        })
        .collect();
    let share = |signal: &Value| signal["share"].as_f64().unwrap_or_default();
    let listed: f64 = signals.iter().map(share).sum();
    // Rows of earlier schemas do not have the column.
    let prior = event["prior_log_odds"].as_f64().unwrap_or(prior);
    json!({
        "event": event, "before_looking": prior, "signals": signals, "unlisted": log_odds - prior - listed,
        "log_odds": log_odds, "alert_from": event["alert_from"], "would_not_have_alerted_without": event["decisive"],
    })
}

fn text(answer: &Value) -> String {
    let mut text = String::new();
    for explained in answer["events"].as_array().into_iter().flatten() {
        event_text(&mut text, explained);
    }
    let incident = &answer["incident"];
    if !incident.is_null() {
        line(
            &mut text,
            &[
                "incident ",
                &field(incident, "incident_id"),
                ": ",
                &field(incident, "severity"),
                ", ",
                &field(incident, "verdict"),
            ],
        );
        line(&mut text, &["  ", &field(incident, "reason")]);
        for step in incident["timeline"].as_array().into_iter().flatten() {
            let [at, what, outcome, summary] = ["at", "what", "outcome", "summary"].map(|name| field(step, name));
            line(&mut text, &["  ", &at, "  ", &format!("{what:<8} {outcome:<8} "), &summary]);
        }
    }
    text
}

fn event_text(text: &mut String, explained: &Value) {
    let event = &explained["event"];
    let [id, at, verdict, kind, method, endpoint] =
        ["event_id", "timestamp", "verdict", "kind", "method", "endpoint"].map(|name| field(event, name));
    line(text, &["event ", &id, " at ", &at, ": ", &verdict]);
    let [address, city, country, org] = ["address", "city", "country", "as_org"].map(|name| field(event, name));
    line(text, &["  ", &kind, " ", &method, " ", &endpoint, " from ", &address, " ", &city, " ", &country, " ", &org]);
    let number = |name: &str| explained[name].as_f64().unwrap_or_default();
    line(text, &[&format!("  {:+7.2}  prior", number("before_looking"))]);
    for signal in explained["signals"].as_array().into_iter().flatten() {
        let [rule, observed, expected, reason] =
            ["rule", "observed", "expected", "reason"].map(|name| field(signal, name));
        let fired = if signal["fired"].as_bool() == Some(true) { "" } else { " (below its threshold)" };
        let share = signal["share"].as_f64().unwrap_or_default();
        line(text, &[&format!("  {share:+7.2}  "), &rule, fired, ": ", &reason]);
        line(text, &["           observed ", &observed, "; expected ", &expected]);
    }
    line(text, &[&format!("  {:+7.2}  other evidence", number("unlisted"))]);
    line(text, &[&format!("  {:+7.2}  log-odds", number("log_odds"))]);
    if explained["alert_from"].is_number() {
        line(text, &[&format!("  {:+7.2}  alert threshold", number("alert_from"))]);
    }
    let needed = &explained["would_not_have_alerted_without"];
    let needed: Vec<String> = needed.as_array().into_iter().flatten().map(plain).collect();
    if !needed.is_empty() {
        line(text, &["  decisive: ", &needed.join(", ")]);
    }
}

/// Appends a line, with control characters and line breaks replaced.
pub(super) fn line(text: &mut String, parts: &[&str]) {
    text.push_str(&sanitize::line(&parts.concat()));
    text.push('\n');
}

pub(super) fn field(row: &Value, name: &str) -> String {
    plain(&row[name])
}

fn plain(value: &Value) -> String {
    let mut plain = String::new();
    // Writing to a `String` cannot fail.
    let _ = match value {
        Value::Null => Ok(()),
        Value::String(text) => plain.write_str(text),
        other => write!(plain, "{other}"),
    };
    plain
}

pub(super) fn store_error(error: &crate::port::StoreError) -> Failure {
    failure(error, Failure::Unavailable)
}
