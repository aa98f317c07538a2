//! `tokenwarden silence`: alerts that are not sent for some time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::failure::Failure;
use super::setup::start_runtime;
use super::terminal::to_stdout;
use super::{moment, operator, record_log};
use crate::config::Config;
use crate::millis::rfc3339;
use crate::number::{counted, random_id};
use crate::port::{
    Clock as _, RecordLog, Scope, Silence, SilenceId, SilenceKey, SilenceLimits, SilenceProblem, SilenceRecord,
    SilenceState, WithheldCount,
};
use crate::sanitize;
use crate::telemetry::SystemClock;
use crate::verdict::{IncidentId, RuleId};

/// Withhold alerts about a tenant, rule, application, user, grant or incident for some time.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Configuration file (TOML) with [silences].
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add a silence. Incidents are detected, stored and revoked as before, and only their alerts are not sent.
    Add(Box<Add>),
    /// List the active silences, and the alerts that each has withheld.
    List {
        /// Also those that have ended, for 400 days.
        #[arg(long)]
        all: bool,
    },
    /// End a silence now.
    Expire {
        /// Id of the silence (SIL-…).
        #[arg(value_name = "SILENCE")]
        id: String,
        #[command(flatten)]
        author: operator::Author,
    },
}

#[derive(Debug, Args)]
struct Add {
    /// Tenant. "" stands for events without a tenant.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Rule. May be repeated: every rule that fired must be named.
    #[arg(long, value_name = "RULE", value_parser = parse_rule)]
    rule: Vec<RuleId>,
    /// `app_id` of the events.
    #[arg(long, value_name = "ID")]
    app: Option<String>,
    /// `user_id` of the events.
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// `family_id` of the events.
    #[arg(long, value_name = "ID")]
    grant: Option<String>,
    /// Id of an incident (INC-…). The silence ends when its severity or verdict rises, or a rule is added.
    #[arg(long, value_name = "INCIDENT", value_parser = parse_incident)]
    incident: Option<IncidentId>,
    /// End: RFC 3339, or a date.
    #[arg(long, value_name = "TIME", required_unless_present = "for", conflicts_with = "for")]
    until: Option<String>,
    /// Time until the end, for example 30m, 12h or 7d.
    #[arg(long, value_name = "SPAN")]
    r#for: Option<String>,
    #[command(flatten)]
    author: operator::Author,
}

fn parse_rule(text: &str) -> Result<RuleId, String> {
    RuleId::parse(text).ok_or_else(|| "not a rule; `tokenwarden rules list` shows them".to_owned())
}

fn parse_incident(text: &str) -> Result<IncidentId, String> {
    IncidentId::parse(text).ok_or_else(|| "not the id of an incident, such as INC-0123456789ABCDEF".to_owned())
}

/// The log of silences, and their limits.
pub(super) struct Opened {
    pub(super) log: Arc<dyn RecordLog<SilenceRecord>>,
    pub(super) limits: SilenceLimits,
}

/// Opens the log of silences. `None`: there are no silences.
pub(super) fn open(config: &Config) -> Result<Option<Opened>, Failure> {
    let Some(section) = &config.silences else { return Ok(None) };
    let limits = SilenceLimits { max_days: section.max_days, has_one_tenant: config.source.has_one_tenant() };
    Ok(Some(Opened { log: record_log::open(config)?, limits }))
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = Config::load(arguments.config.as_deref())?;
    let Some(Opened { log, limits }) = open(&config)? else {
        let problem = "there is no [silences] in the configuration; add it, and restart the members";
        return Err(Failure::Configuration(problem.to_owned()));
    };
    let now = SystemClock.now_millis();
    let mut silences = Listed::of(record_log::read_all(&*log)?);
    match &arguments.command {
        Command::List { all } => {
            silences.retain(|_, listed| *all || listed.is_active(now));
            let form = if std::io::stdout().is_terminal() { Form::Lines } else { Form::Json };
            to_stdout(&text_of(&silences, now, form))
        }
        Command::Add(arguments) => {
            let silence = checked(arguments, limits, now)?;
            let id = SilenceId(random_id());
            let until = rfc3339(silence.until);
            append(&*log, id, SilenceState::Added(silence))?;
            to_stdout(&format!("added {id} until {until}\n"))
        }
        Command::Expire { id, author } => {
            let unknown = || Failure::Usage(format!("there is no active silence {}", sanitize::line(id)));
            let id = SilenceId::parse(id).ok_or_else(unknown)?;
            let listed = silences.get(&id).filter(|listed| listed.is_active(now)).ok_or_else(unknown)?;
            let (by, reason) = author.checked()?;
            append(&*log, id, SilenceState::Expired { silence: listed.silence.clone(), at: now, by, reason })?;
            to_stdout(&format!("ended {id}\n"))
        }
    }
}

fn append(log: &dyn RecordLog<SilenceRecord>, silence: SilenceId, state: SilenceState) -> Result<(), Failure> {
    let key = SilenceKey { silence, member: String::new() };
    let appended = start_runtime()?.block_on(log.append(SilenceRecord { key, state }));
    appended.map_err(|reason| Failure::Unavailable(format!("the silence is not written: {reason}")))
}

/// The silence of the arguments. Refuses one that matches every incident, or that lasts too long.
fn checked(arguments: &Add, limits: SilenceLimits, now: i64) -> Result<Silence, Failure> {
    let Add { tenant, rule, app, user, grant, incident, until, r#for, author } = arguments;
    let scope = Scope {
        tenant: tenant.clone(),
        rules: rule.iter().copied().collect(),
        app: app.clone(),
        user: user.clone(),
        grant: grant.clone(),
        incident: *incident,
    };
    let until = match (until, r#for) {
        (Some(until), _) => moment::parse(until, now, "--until")?,
        (None, span) => now.saturating_add(moment::span(span.as_deref().unwrap_or_default(), "--for")?),
    };
    if until <= now {
        return Err(Failure::Usage("the end of the silence is in the past".to_owned()));
    }
    let (by, reason) = author.checked()?;
    let silence = Silence { scope, by, reason, at: now, until };
    silence.check(limits, now).map_err(|problem| {
        let needed = "give at least one of --rule, --app, --user, --grant and --incident";
        Failure::Usage(match problem {
            SilenceProblem::Unlimited => format!("{problem}; {needed}, or --tenant"),
            SilenceProblem::TenantOnly => format!("{problem}; {needed}"),
            _ => problem.to_string(),
        })
    })?;
    Ok(silence)
}

/// The early end of a silence by a person.
#[derive(Clone, Debug, PartialEq)]
struct Expiry {
    /// Milliseconds since the epoch, wall clock.
    at: i64,
    by: String,
    reason: String,
}

/// How the silences are listed.
#[derive(Clone, Copy)]
enum Form {
    /// A line of text each, for a terminal.
    Lines,
    /// A JSON object each.
    Json,
}

/// A silence with the counts of all members.
#[derive(Clone, Debug, PartialEq)]
struct Listed {
    silence: Silence,
    expired: Option<Expiry>,
    alerts: u64,
    incidents: u64,
    log_odds_max: Option<f64>,
}

impl Listed {
    /// The silences of the records.
    fn of(records: Vec<SilenceRecord>) -> BTreeMap<SilenceId, Self> {
        let mut silences = BTreeMap::new();
        let mut counts: BTreeMap<(SilenceId, String), WithheldCount> = BTreeMap::new();
        for SilenceRecord { key, state } in records {
            let (silence, expired) = match state {
                SilenceState::Added(silence) => (silence, None),
                SilenceState::Expired { silence, at, by, reason } => (silence, Some(Expiry { at, by, reason })),
                SilenceState::Withheld(count) => {
                    counts.insert((key.silence, key.member), count);
                    continue;
                }
            };
            silences.insert(key.silence, Self { silence, expired, alerts: 0, incidents: 0, log_odds_max: None });
        }
        for ((silence, _), count) in counts {
            if let Some(listed) = silences.get_mut(&silence) {
                listed.alerts += count.alerts;
                listed.incidents += count.incidents;
                let highest = listed.log_odds_max.map_or(count.log_odds_max, |max| max.max(count.log_odds_max));
                listed.log_odds_max = Some(highest);
            }
        }
        silences
    }

    fn is_active(&self, now: i64) -> bool {
        self.expired.is_none() && self.silence.until > now
    }

    fn json(&self, id: SilenceId, now: i64) -> Value {
        let Silence { scope, by, reason, at, until } = &self.silence;
        let mut line = json!({"id": id.to_string(), "state": if self.is_active(now) { "active" } else { "ended" },
            "scope": conditions(scope).into_iter().collect::<BTreeMap<_, _>>(), "by": by, "reason": reason,
            "at": rfc3339(*at), "until": rfc3339(*until), "alerts": self.alerts, "incidents": self.incidents,
            "log_odds_max": self.log_odds_max});
        if let Some(Expiry { at, by, reason }) = &self.expired {
            line["expired"] = json!({"at": rfc3339(*at), "by": by, "reason": reason});
        }
        line
    }

    fn line(&self, id: SilenceId, now: i64) -> String {
        let Silence { scope, by, reason, until, .. } = &self.silence;
        let scope: Vec<_> = conditions(scope).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let end = match &self.expired {
            Some(Expiry { at, by, reason }) => format!("ended {} by {by}: {reason}", rfc3339(*at)),
            None if self.is_active(now) => format!("until {}", rfc3339(*until)),
            None => format!("ended {}", rfc3339(*until)),
        };
        let highest = self.log_odds_max.map_or_else(String::new, |max| format!(", log-odds up to {max:.1}"));
        let (alerts, incidents) = (counted(self.alerts, "alert"), counted(self.incidents, "incident"));
        let withheld = format!("{alerts} about {incidents} withheld{highest}");
        sanitize::line(&format!("{id}  {end}  {}  {withheld}  by {by}: {reason}", scope.join(" ")))
    }
}

/// Names and values of the conditions.
fn conditions(scope: &Scope) -> Vec<(&'static str, String)> {
    let rules: Vec<_> = scope.rules.iter().map(|rule| rule.as_str()).collect();
    let rules = (!rules.is_empty()).then(|| rules.join(","));
    let found = [
        ("tenant", scope.tenant.clone()),
        ("rule", rules),
        ("app", scope.app.clone()),
        ("user", scope.user.clone()),
        ("grant", scope.grant.clone()),
        ("incident", scope.incident.map(|id| id.to_string())),
    ];
    found.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// The silences. The earliest end comes first.
fn text_of(silences: &BTreeMap<SilenceId, Listed>, now: i64, form: Form) -> String {
    let mut found: Vec<_> = silences.iter().collect();
    found.sort_by_key(|(id, listed)| (listed.silence.until, **id));
    let mut text = String::new();
    for (id, listed) in found {
        // Writing to a `String` cannot fail.
        let _ = match form {
            Form::Lines => writeln!(text, "{}", listed.line(*id, now)),
            Form::Json => writeln!(text, "{}", sanitize::json(&listed.json(*id, now).to_string())),
        };
    }
    if text.is_empty() && matches!(form, Form::Lines) { "no silences\n".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::millis::DAY_MS;

    const NOW: i64 = 1_795_000_000_000;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn add(options: &[&str]) -> Result<Silence, String> {
        let given = [&["silence", "add", "--reason", "a test", "--by", "ana"], options].concat();
        let line = Line::try_parse_from(given).map_err(|error| error.to_string())?;
        let Command::Add(arguments) = line.arguments.command else { return Err("another command".to_owned()) };
        checked(&arguments, SilenceLimits::default(), NOW).map_err(|error| error.to_string())
    }

    #[test]
    fn silence_has_scope_end_author_and_reason() {
        let silence = add(&["--user", "ana", "--rule", "new_ip", "--rule", "new_client", "--for", "12h"]);
        let silence = silence.expect("a silence");
        assert_eq!((silence.at, silence.until), (NOW, NOW + DAY_MS / 2));
        assert_eq!((&*silence.by, &*silence.reason), ("ana", "a test"));
        assert_eq!(conditions(&silence.scope), [("rule", "new_ip,new_client".to_owned()), ("user", "ana".to_owned())]);
        assert_eq!(add(&["--user", "ana", "--until", "2026-11-20"]).expect("a silence").until, 1_795_132_800_000);
        for (wrong, problem) in [
            (&["--for", "1h"][..], "would match every incident"),
            (&["--tenant", "", "--for", "1h"], "names a tenant only"),
            (&["--user", "", "--for", "1h"], "--user is empty"),
            (&["--user", "ana"], "--until"),
            (&["--user", "ana", "--for", "31d"], "at most 30 days (silences.max_days)"),
            (&["--user", "ana", "--until", "2026-11-01"], "in the past"),
            (&["--user", "ana", "--for", "soon"], "--for `soon` is not a span such as 30m, 12h or 7d"),
            (&["--user", "ana", "--for", "0m"], "in the past"),
            (&["--rule", "new_ipp", "--for", "1h"], "not a rule"),
            (&["--incident", "INC-1", "--for", "1h"], "not the id of an incident"),
        ] {
            let error = add(wrong).expect_err(problem);
            assert!(error.contains(problem), "{error}");
        }
    }

    fn record(id: u64, member: &str, state: SilenceState) -> SilenceRecord {
        SilenceRecord { key: SilenceKey { silence: SilenceId(id), member: member.to_owned() }, state }
    }

    #[test]
    fn list_sums_the_counts_of_all_members() {
        let hostile = "a\u{1b}[2J\n\u{202e}";
        let silence = |until| {
            let scope = Scope { user: Some(hostile.to_owned()), ..Scope::default() };
            Silence { scope, by: hostile.to_owned(), reason: "r".to_owned(), at: 0, until }
        };
        let count =
            |alerts, log_odds_max| SilenceState::Withheld(WithheldCount { alerts, incidents: 1, log_odds_max, at: 0 });
        let expired =
            SilenceState::Expired { silence: silence(50), at: 7, by: "bea".to_owned(), reason: "x".to_owned() };
        let listed = Listed::of(vec![
            record(1, "", SilenceState::Added(silence(100))),
            record(2, "", SilenceState::Added(silence(50))),
            record(1, "m1", count(1, 3.0)),
            record(1, "m1", count(2, 3.0)),
            record(1, "m2", count(5, 4.5)),
            record(9, "m2", count(5, 4.5)),
            record(2, "", expired),
        ]);
        let active: BTreeMap<_, _> = listed.clone().into_iter().filter(|(_, listed)| listed.is_active(10)).collect();
        let text = text_of(&active, 10, Form::Lines);
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("7 alerts about 2 incidents withheld, log-odds up to 4.5"), "{text}");
        assert!(text.chars().all(|c| c == '\n' || !sanitize::is_unsafe(c)), "{text:?}");
        let json = text_of(&listed, 10, Form::Json);
        assert!(json.chars().all(|c| c == '\n' || !sanitize::is_unsafe(c)), "{json:?}");
        let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["state"], &lines[0]["expired"]["by"]), (&json!("ended"), &json!("bea")));
        assert_eq!((&lines[1]["state"], &lines[1]["scope"]["user"]), (&json!("active"), &json!(hostile)));
        assert_eq!(text_of(&BTreeMap::new(), 200, Form::Lines), "no silences\n");
    }
}
