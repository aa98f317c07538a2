//! `tokenwarden breakers`: stops of revocations, which a person lifts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::failure::Failure;
use super::setup::start_runtime;
use super::terminal::to_stdout;
use super::{operator, record_log};
use crate::config::Config;
use crate::millis::rfc3339;
use crate::port::{BreakerId, BreakerRecord, BreakerState, Clock as _, Lift, Waiting};
use crate::sanitize;
use crate::telemetry::SystemClock;

/// List and lift stops of automatic revocation, which breakers make for a rule, an application or a tenant.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the stops: what is stopped, since when and why.
    List {
        /// Also those that were lifted, for 400 days.
        #[arg(long)]
        all: bool,
    },
    /// End a stop, in every member that has stopped the same. The waiting revocations are requested within the limits.
    Lift {
        /// Id of the stop (BRK-…).
        #[arg(value_name = "STOP")]
        id: String,
        /// Do not request the waiting revocations. People decide about each.
        #[arg(long)]
        propose: bool,
        #[command(flatten)]
        author: operator::Author,
    },
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = Config::load(arguments.config.as_deref())?;
    let log = record_log::open::<BreakerRecord>(&config)?;
    let mut stops: BTreeMap<_, _> =
        record_log::read_all(&*log)?.into_iter().map(|record| (record.breaker, record.state)).collect();
    let now = SystemClock.now_millis();
    match &arguments.command {
        Command::List { all } => {
            stops.retain(|_, state| *all || state.lift(now).is_none());
            let form = if std::io::stdout().is_terminal() { Form::Lines } else { Form::Json };
            to_stdout(&text_of(&stops, form))
        }
        Command::Lift { id, propose, author } => {
            let unknown = || Failure::Usage(format!("there is no stop {}", sanitize::line(id)));
            let id = BreakerId::parse(id).ok_or_else(unknown)?;
            let scope =
                stops.get(&id).filter(|state| state.lift(now).is_none()).ok_or_else(unknown)?.stop.scope.clone();
            let (by, reason) = author.checked()?;
            let waiting = if *propose { Waiting::Proposed } else { Waiting::Requested };
            let lift = Lift { at: now, by, reason, waiting };
            stops.retain(|_, state| state.lift(now).is_none() && state.stop.scope == scope);
            let runtime = start_runtime()?;
            for (breaker, state) in stops {
                let state = BreakerState { lifted: Some(lift.clone()), ..state };
                let appended = runtime.block_on(log.append(BreakerRecord { breaker, state }));
                appended.map_err(|reason| Failure::Unavailable(format!("the lift is not written: {reason}")))?;
                to_stdout(&format!("lifted {breaker}\n"))?;
            }
            Ok(())
        }
    }
}

/// How the stops are listed.
#[derive(Clone, Copy)]
enum Form {
    /// A line of text each, for a terminal.
    Lines,
    /// A JSON object each.
    Json,
}

/// The stops. The earliest comes first.
fn text_of(stops: &BTreeMap<BreakerId, BreakerState>, form: Form) -> String {
    let mut found: Vec<_> = stops.iter().collect();
    found.sort_by_key(|(id, state)| (state.stop.at, **id));
    let mut text = String::new();
    for (id, state) in found {
        // Writing to a `String` cannot fail.
        let _ = match form {
            Form::Lines => writeln!(text, "{}", line(*id, state)),
            Form::Json => writeln!(text, "{}", sanitize::json(&json_of(*id, state).to_string())),
        };
    }
    if text.is_empty() && matches!(form, Form::Lines) { "nothing is stopped\n".to_owned() } else { text }
}

fn json_of(id: BreakerId, BreakerState { stop, member, lifted }: &BreakerState) -> Value {
    let mut line = json!({"id": id.to_string(), "state": if lifted.is_none() { "stopped" } else { "lifted" },
        "scope": stop.scope, "cause": stop.cause, "reason": stop.cause.to_string(), "at": rfc3339(stop.at),
        "member": member});
    if let Some(Lift { at, by, reason, waiting }) = lifted {
        line["lifted"] = json!({"at": rfc3339(*at), "by": by, "reason": reason, "waiting": waiting});
    }
    line
}

fn line(id: BreakerId, BreakerState { stop, member, lifted }: &BreakerState) -> String {
    let scope: Vec<_> = stop.scope.conditions().map(|(name, value)| format!("{name}={value}")).collect();
    let end = lifted
        .as_ref()
        .map_or_else(String::new, |Lift { at, by, reason, .. }| format!("  lifted {} by {by}: {reason}", rfc3339(*at)));
    let (since, scope, cause) = (rfc3339(stop.at), scope.join(" "), stop.cause);
    sanitize::line(&format!("{id}  stopped {since}  {scope}  {cause}  member {member}{end}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{BreakerCause, BreakerScope, BreakerStop};
    use crate::verdict::RuleId;

    #[test]
    fn stops_are_listed_with_hostile_values() {
        let hostile = "a\u{1b}[2J\n\u{202e}";
        let stop = |rule, at| BreakerStop {
            scope: BreakerScope { tenant: Some(hostile.to_owned()), rule, application: None },
            cause: BreakerCause::Full { hours: 6 },
            at,
        };
        let state = |stop, lifted| BreakerState { stop, member: "m1".to_owned(), lifted };
        let waiting = Waiting::Requested;
        let lift = Lift { at: 1_795_003_600_000, by: "ana".to_owned(), reason: hostile.to_owned(), waiting };
        let stops = BTreeMap::from([
            (BreakerId(2), state(stop(Some(RuleId::NewIp), 1_795_000_000_000), None)),
            (BreakerId(1), state(stop(None, 1_795_000_000_001), Some(lift))),
        ]);
        insta::assert_snapshot!(text_of(&stops, Form::Lines), @r"
        BRK-0000000000000002  stopped 2026-11-18T11:06:40Z  rule=new_ip tenant=a␛[2J␊�  its limit was reached in 6 hours of a day  member m1
        BRK-0000000000000001  stopped 2026-11-18T11:06:40Z  tenant=a␛[2J␊�  its limit was reached in 6 hours of a day  member m1  lifted 2026-11-18T12:06:40Z by ana: a␛[2J␊�
        ");
        let json = text_of(&stops, Form::Json);
        let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert!(!json.contains(['\u{1b}', '\u{202e}']), "{json:?}");
        assert_eq!((&lines[0]["id"], &lines[0]["state"]), (&"BRK-0000000000000002".into(), &"stopped".into()));
        assert_eq!((&lines[0]["scope"]["rule"], &lines[1]["lifted"]["by"]), (&"new_ip".into(), &"ana".into()));
        assert_eq!(text_of(&BTreeMap::new(), Form::Lines), "nothing is stopped\n");
    }
}
