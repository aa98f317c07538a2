//! `tokenwarden incidents`: the incidents with status, assignee and notes, and changes of these.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::explain::{StoreArguments, field, line, store_error};
use super::failure::Failure;
use super::inform::inform;
use super::operator;
use super::record::{Record, Signature};
use super::sql::failure;
use super::terminal::to_stdout;
use crate::closing::handled;
use crate::config::Config;
use crate::number::random_id;
use crate::port::{Handled, HandledStep};
use crate::sanitize;
use crate::store::{ClickHouse, Reader, StoreSettings, WorkChange, WorkStatus};
use crate::verdict::IncidentId;

/// List incidents, and record who works on them.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List incidents, the highest severity first.
    List(List),
    /// Show the status of an incident and every change of it.
    Show(Show),
    /// Acknowledge an incident: an analyst works on it. PagerDuty is informed.
    Ack(Ack),
    /// Resolve an incident. PagerDuty, Opsgenie and Alertmanager are informed. If it changes afterwards, `list` shows it as open again.
    Resolve(Change),
    /// Add a note, and leave the status as it is.
    Note(Change),
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    store: StoreArguments,
    /// Only incidents with this status.
    #[arg(long, value_enum, default_value_t = Filter::Open)]
    status: Filter,
    /// Only incidents of this tenant. "" stands for events without a tenant.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Maximum number of incidents.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Filter {
    /// Not resolved, or changed since.
    Open,
    Acknowledged,
    Resolved,
    All,
}

impl Filter {
    const fn condition(self) -> &'static str {
        match self {
            Self::Open => "(status != 'resolved' OR changed_since)",
            Self::Acknowledged => "status = 'acknowledged'",
            Self::Resolved => "status = 'resolved'",
            Self::All => "1",
        }
    }
}

#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    store: StoreArguments,
    /// Id of the incident (INC-…).
    #[arg(value_name = "INCIDENT")]
    incident: String,
}

#[derive(Debug, Args)]
struct Ack {
    #[command(flatten)]
    change: Change,
    /// Who works on it [default: the person of --by].
    #[arg(long, value_name = "NAME")]
    assignee: Option<String>,
}

#[derive(Debug, Args)]
struct Change {
    /// Id of the incident (INC-…).
    #[arg(value_name = "INCIDENT")]
    incident: String,
    /// Change nothing if the incident has another version than this one, which `show` printed.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u32>,
    #[command(flatten)]
    record: Record,
}

/// What a change does.
enum Step {
    Acknowledge { assignee: Option<String> },
    Resolve,
    Note,
}

impl Step {
    const fn handled(&self) -> Option<HandledStep> {
        match self {
            Self::Acknowledge { .. } => Some(HandledStep::Acknowledged),
            Self::Resolve => Some(HandledStep::Resolved),
            Self::Note => None,
        }
    }
}

/// Incidents with the work on them. The clock of the store decides whether an incident changed after its resolution.
const INCIDENTS: &str = "SELECT latest.incident_id AS incident_id, latest.tenant_id AS tenant_id, \
    latest.severity AS severity, latest.verdict AS verdict, latest.opened_at AS opened_at, \
    latest.updated_at AS updated_at, latest.user_id AS user_id, latest.app_id AS app_id, \
    latest.family_id AS family_id, latest.reason AS reason, \
    if(work.version = 0, 'open', work.status) AS status, work.assignee AS assignee, work.version AS version, \
    work.version > 0 AND latest.written_at > work.changed_at AS changed_since, feedback_latest.verdict AS feedback \
    FROM incidents_latest AS latest \
    LEFT JOIN incident_work_latest AS work ON work.incident_id = latest.incident_id \
    LEFT JOIN feedback_latest ON feedback_latest.incident_id = latest.incident_id";
const HISTORY: &str = "SELECT version, changed_at, change_id, changed_by, status, assignee, note FROM incident_work \
                       WHERE incident_id = ? ORDER BY version, changed_at, change_id";
/// All columns, because a store of an earlier schema has fewer.
const REVOCATIONS: &str = "SELECT * FROM actions FINAL WHERE incident_id = ? AND startsWith(kind, 'revoke_') \
                           ORDER BY requested_at, action_id, attempt LIMIT 500";

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::List(arguments) => list(arguments),
        Command::Show(arguments) => show(arguments),
        Command::Ack(Ack { change, assignee }) => {
            let assignee = assignee.as_deref().map(|name| operator::text(name, "--assignee")).transpose()?;
            changed(change, &Step::Acknowledge { assignee })
        }
        Command::Resolve(change) => changed(change, &Step::Resolve),
        Command::Note(change) if change.record.note.is_none() => {
            Err(Failure::Usage("--note TEXT is missing".to_owned()))
        }
        Command::Note(change) => changed(change, &Step::Note),
    }
}

fn list(arguments: &List) -> Result<(), Failure> {
    let settings = Config::load(arguments.store.config())?.store;
    let tenant = if arguments.tenant.is_some() { "tenant_id = ?" } else { "1" };
    let sql = format!(
        "SELECT * FROM ({INCIDENTS}) WHERE {} AND {tenant} \
         ORDER BY indexOf(['critical', 'high', 'medium', 'low', 'info'], severity), updated_at DESC, incident_id LIMIT {}",
        arguments.status.condition(),
        arguments.limit
    );
    let bound: Vec<&str> = arguments.tenant.as_deref().into_iter().collect();
    arguments.store.answer(settings, list_text, async |reader| {
        let incidents = reader.rows(&sql, &bound).await.map_err(|error| work_error(&error))?;
        Ok(json!({ "incidents": incidents }))
    })
}

fn list_text(answer: &Value) -> String {
    let mut text = String::new();
    for incident in answer["incidents"].as_array().into_iter().flatten() {
        let [id, severity, status, assignee, updated, reason] =
            ["incident_id", "severity", "status", "assignee", "updated_at", "reason"].map(|name| field(incident, name));
        let status = if is_reopened(incident) { format!("{status}, changed since") } else { status };
        let assignee = if assignee.is_empty() { String::new() } else { format!(" ({assignee})") };
        line(&mut text, &[&id, "  ", &format!("{severity:<8}  "), &updated, "  ", &status, &assignee, "  ", &reason]);
    }
    if text.is_empty() { "no incidents\n".to_owned() } else { text }
}

/// Whether a resolved incident has changed since. A value of the store is a number or a boolean.
fn is_reopened(incident: &Value) -> bool {
    let since = &incident["changed_since"];
    field(incident, "status") == "resolved" && (since.as_u64() == Some(1) || since.as_bool() == Some(true))
}

fn show(arguments: &Show) -> Result<(), Failure> {
    let settings = Config::load(arguments.store.config())?.store;
    arguments.store.answer(settings, show_text, async |reader| found(reader, &arguments.incident).await)
}

/// The incident with its history.
async fn found(reader: &Reader, id: &str) -> Result<Value, Failure> {
    let sql = format!("SELECT * FROM ({INCIDENTS}) WHERE incident_id = ?");
    let incident = reader.rows(&sql, &[id]).await.map_err(|error| work_error(&error))?.into_iter().next();
    let mut incident = incident.ok_or_else(|| Failure::Usage(format!("the store has no incident {id}")))?;
    incident["history"] = reader.rows(HISTORY, &[id]).await.map_err(|error| work_error(&error))?.into();
    incident["revocations"] = reader.rows(REVOCATIONS, &[id]).await.map_err(|error| work_error(&error))?.into();
    Ok(incident)
}

fn show_text(incident: &Value) -> String {
    let mut text = String::new();
    line(
        &mut text,
        &[&field(incident, "incident_id"), ": ", &field(incident, "severity"), ", ", &field(incident, "reason")],
    );
    let reopened = if is_reopened(incident) { ", and the incident has changed since" } else { "" };
    line(&mut text, &["  status ", &field(incident, "status"), reopened, ", version ", &field(incident, "version")]);
    for name in ["assignee", "feedback", "tenant_id", "user_id", "app_id", "family_id", "opened_at", "updated_at"] {
        let value = field(incident, name);
        if !value.is_empty() {
            line(&mut text, &["  ", &name.replace('_', " "), " ", &value]);
        }
    }
    for change in incident["history"].as_array().into_iter().flatten() {
        let [version, at, by, status, assignee, note] =
            ["version", "changed_at", "changed_by", "status", "assignee", "note"].map(|name| field(change, name));
        let assignee = if assignee.is_empty() { String::new() } else { format!(", assignee {assignee}") };
        let note = if note.is_empty() { note } else { format!(": {note}") };
        line(&mut text, &["  ", &version, "  ", &at, "  ", &status, " by ", &by, &assignee, &note]);
    }
    for row in incident["revocations"].as_array().into_iter().flatten() {
        let [at, kind, target, outcome] = ["requested_at", "kind", "target", "outcome"].map(|name| field(row, name));
        let mut proof = String::new();
        for (name, words) in
            [("radius", ", radius "), ("revoked_at", ", revoked at "), ("verified_at", ", verified at ")]
        {
            let value = field(row, name);
            if !value.is_empty() {
                proof.push_str(words);
                proof.push_str(&value);
            }
        }
        // The reason of a revocation that is done is that of the incident.
        let is_revoked = matches!(&*outcome, "done" | "already_gone");
        let reason = field(row, "reason");
        let why = if is_revoked || reason.is_empty() { String::new() } else { format!(" ({reason})") };
        line(&mut text, &["  ", &at, "  ", &kind, " ", &target, ": ", &outcome, &proof, &why]);
    }
    text
}

/// Appends a change, and prints the incident afterwards.
fn changed(arguments: &Change, step: &Step) -> Result<(), Failure> {
    let (settings, signature) = (arguments.record.store()?, arguments.record.signature()?);
    let (config, by) = (arguments.record.config()?, signature.by.clone());
    let runtime = super::setup::start_runtime()?;
    let informed = runtime.block_on(async {
        let store = ClickHouse::open(&settings).await.map_err(|error| failure(&error, Failure::Configuration))?;
        let changed = apply(&store, &settings, (arguments, step), signature).await;
        store.close().await;
        let (incident, handled) = changed?;
        to_stdout(&sanitize::lines(&show_text(&incident)))?;
        match handled {
            Some(handled) => inform(&config, handled, &by).await,
            None => Ok(String::new()),
        }
    })?;
    to_stdout(&sanitize::lines(&informed))
}

async fn apply(
    store: &ClickHouse,
    settings: &StoreSettings,
    (arguments, step): (&Change, &Step),
    Signature { by, note }: Signature,
) -> Result<(Value, Option<Handled>), Failure> {
    let reader = Reader::open(settings).await.map_err(|error| failure(&error, Failure::Configuration))?;
    let outcome = async {
        let before = found(&reader, &arguments.incident).await?;
        let version = before["version"].as_u64().and_then(|version| u32::try_from(version).ok()).unwrap_or_default();
        if let Some(seen) = arguments.if_version.filter(|seen| *seen != version) {
            return Err(conflict(
                &before,
                &format!("the incident has version {version}, not {seen}; nothing was changed"),
            ));
        }
        let change = WorkChange {
            incident_id: arguments.incident.clone(),
            version: version + 1,
            change_id: random_id(),
            status: match step {
                Step::Acknowledge { .. } => WorkStatus::Acknowledged,
                Step::Resolve => WorkStatus::Resolved,
                Step::Note => WorkStatus::parse(&field(&before, "status")),
            },
            assignee: match step {
                Step::Acknowledge { assignee } => assignee.clone().unwrap_or_else(|| by.clone()),
                Step::Resolve | Step::Note => field(&before, "assignee"),
            },
            by,
            note,
        };
        store.change_work(&change).await.map_err(|error| store_error(&error))?;
        let after = found(&reader, &arguments.incident).await?;
        if !is_first(&after, &change) {
            let problem = "another change was made at the same time and counts; yours is in the history";
            return Err(conflict(&after, problem));
        }
        let handled = match (step.handled(), IncidentId::parse(&arguments.incident)) {
            (Some(step), Some(id)) => Some(handled(&reader, id, step).await.map_err(|error| store_error(&error))?),
            _ => None,
        };
        Ok((after, handled))
    }
    .await;
    reader.close().await;
    outcome
}

/// Whether `change` is the first with its version. Only that one counts.
fn is_first(incident: &Value, change: &WorkChange) -> bool {
    let history = incident["history"].as_array().into_iter().flatten();
    let mut of_version = history.filter(|row| row["version"].as_u64() == Some(u64::from(change.version)));
    of_version.next().is_some_and(|row| row["change_id"].as_u64() == Some(change.change_id))
}

fn conflict(incident: &Value, problem: &str) -> Failure {
    Failure::Unavailable(format!("{problem}\n{}", show_text(incident).trim_end()))
}

/// A store of an earlier version has no table of work.
fn work_error(error: &crate::port::StoreError) -> Failure {
    let text = error.to_string();
    if text.contains("incident_work") && text.contains("UNKNOWN_TABLE") {
        let problem = "the store has no table incident_work yet; `tokenwarden run` or `incidents ack` creates it";
        return Failure::Unavailable(problem.to_owned());
    }
    store_error(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_change_of_a_version_counts() {
        let change = |change_id| WorkChange {
            incident_id: "INC-1".into(),
            version: 2,
            change_id,
            by: "Ana".into(),
            status: WorkStatus::Resolved,
            assignee: String::new(),
            note: String::new(),
        };
        let incident = json!({ "history": [
            { "version": 1, "change_id": 5 }, { "version": 2, "change_id": u64::MAX }, { "version": 2, "change_id": 6 },
        ] });
        assert!(is_first(&incident, &change(u64::MAX)));
        assert!(!is_first(&incident, &change(6)) && !is_first(&incident, &change(7)));
    }

    #[test]
    fn resolved_incident_that_changed_is_marked() {
        let incident = |status: &str, since: Value| json!({ "incident_id": "INC-1", "status": status, "changed_since": since, "reason": "a\u{1b}[2J\nb" });
        let text =
            list_text(&json!({ "incidents": [incident("resolved", json!(1)), incident("acknowledged", json!(true))] }));
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines.len() == 2 && lines[0].contains("resolved, changed since") && lines[0].contains("a␛[2J␊b"),
            "{text}"
        );
        assert!(!lines[1].contains("changed since"), "{text}");
        assert_eq!(list_text(&json!({ "incidents": [] })), "no incidents\n");
    }
}
