//! The configured denylist: its log, its endpoint, and `tokenwarden denylist`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::failure::Failure;
use super::observe::Observer;
use super::setup::start_runtime;
use super::terminal::to_stdout;
use super::{operator, record_log};
use crate::config::{Config, DenylistSection};
use crate::denylist::{Claims, Denylist, Lifetimes};
use crate::gate::{self, Followed, Gate, TenantOf};
use crate::millis::{HOUR_MS, rfc3339};
use crate::port::{Clock, Denial, DeniedKey, DenylistRecord, RecordLog, RecordObserver};
use crate::sanitize;
use crate::telemetry::SystemClock;
use crate::token::TokenHasher;
use crate::verdict::Target;

/// Show the tokens and grants that gateways reject, or remove one.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Configuration file (TOML) with [denylist].
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the entries: what is denied, and what was lifted, by whom and why.
    List,
    /// Remove an entry, so that gateways accept the token or grant again. It does not undo the revocation at the provider.
    Lift {
        kind: TargetKind,
        /// `token_id` or `family_id` of the events.
        id: String,
        /// Tenant of the token or grant. Without it, that of events without a tenant.
        #[arg(long, value_name = "TENANT", default_value = "", hide_default_value = true)]
        tenant: String,
        #[command(flatten)]
        author: operator::Author,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TargetKind {
    Token,
    #[value(alias = "family")]
    Grant,
}

/// Opens the log. `None`: there is no denylist.
pub(super) fn open(config: &Config) -> Result<Option<Arc<dyn RecordLog<DenylistRecord>>>, Failure> {
    if config.denylist.is_some() { record_log::open(config).map(Some) } else { Ok(None) }
}

/// Times for which targets are denied.
pub(super) fn lifetimes(section: &DenylistSection) -> Lifetimes {
    let ms = |hours: u32| i64::from(hours) * HOUR_MS;
    let of_type = section.lifetime_hours.iter().map(|(token_type, hours)| (*token_type, ms(*hours))).collect();
    Lifetimes { least: ms(section.keep_hours), of_type }
}

/// Follows the log and serves the endpoint. `log`: [`open`].
pub(super) async fn serve(
    config: &Config,
    log: Option<Arc<dyn RecordLog<DenylistRecord>>>,
    hasher: &TokenHasher,
    observer: &Observer,
) -> Result<(), Failure> {
    let (Some(section), Some(log)) = (&config.denylist, log) else { return Ok(()) };
    let Observer { metrics, health, clock, .. } = observer;
    record_log::prepare::<DenylistRecord>(config, clock.now_millis())?;
    let list = Denylist::new(Arc::clone(clock));
    let followed = Arc::new(Followed { list, health: Arc::clone(health) });
    log.follow(Arc::clone(&followed) as Arc<dyn RecordObserver<DenylistRecord>>);
    tokio::spawn(gate::maintain(Arc::clone(&followed), log, Arc::clone(clock)));
    let claims = Claims {
        token: section.token_claim.clone(),
        grant: section.grant_claim.clone(),
        tenant: section.tenant_claim.clone(),
    };
    let tenant = tenant_of(config, section)?;
    let gate = Gate { followed, claims, tenant, hasher: hasher.clone(), metrics: Arc::clone(metrics) };
    gate::serve(section.listen, gate).await.map_err(|error| {
        Failure::Unavailable(format!("cannot listen on {} (denylist.listen): {error}", section.listen))
    })?;
    tracing::info!(listen = %section.listen, "the denylist endpoint is ready");
    Ok(())
}

fn tenant_of(config: &Config, section: &DenylistSection) -> Result<TenantOf, Failure> {
    if let Some(name) = &section.tenant_header {
        let wrong = |_| {
            let problem = "`denylist.tenant_header` is not the name of a header";
            Failure::Configuration(config.mistake("denylist.tenant_header", problem).to_string())
        };
        return name.parse().map(TenantOf::Header).map_err(wrong);
    }
    let fixed = TenantOf::Fixed(section.tenant.clone().unwrap_or_default());
    Ok(if section.tenant_claim.is_some() { TenantOf::Claim } else { fixed })
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = Config::load(arguments.config.as_deref())?;
    let log = open(&config)?.ok_or_else(|| {
        Failure::Configuration("there is no [denylist] in the configuration; add it to use a denylist".to_owned())
    })?;
    let entries = entries_of(record_log::read_all(&*log)?);
    match &arguments.command {
        Command::List => print(&entries),
        Command::Lift { kind, id, tenant, author } => {
            let (by, reason) = author.checked()?;
            let target = match kind {
                TargetKind::Token => Target::Token(id.clone()),
                TargetKind::Grant => Target::Family(id.clone()),
            };
            let key = DeniedKey { tenant_id: tenant.clone(), target };
            let denied = entries.iter().filter(|(_, denial)| matches!(denial, Denial::Denied { .. }));
            let denied: Vec<&DeniedKey> = denied.map(|(key, _)| key).collect();
            if !denied.contains(&&key) {
                let tenants: Vec<_> = denied
                    .iter()
                    .filter(|denied| denied.target == key.target)
                    .map(|denied| format!("`{}`", sanitize::line(&denied.tenant_id)))
                    .collect();
                let hint = if tenants.is_empty() {
                    String::new()
                } else {
                    format!("; it is on the list for the tenant {}, see --tenant", tenants.join(" and "))
                };
                let (kind, id) = (kind_of(&key.target), sanitize::line(id));
                return Err(Failure::Usage(format!("the {kind} {id} is not on the denylist{hint}")));
            }
            let runtime = start_runtime()?;
            let kind = kind_of(&key.target);
            let denial = Denial::Lifted { at: SystemClock.now_millis(), by, reason };
            let lifted = runtime.block_on(log.append(DenylistRecord { key, denial }));
            lifted.map_err(|reason| Failure::Unavailable(format!("the denylist is not written: {reason}")))?;
            to_stdout(&format!("removed the {kind} {} from the denylist\n", sanitize::line(id)))
        }
    }
}

/// The entries, the oldest first, without those that have expired.
fn entries_of(records: Vec<DenylistRecord>) -> Vec<(DeniedKey, Denial)> {
    let now = SystemClock.now_millis();
    let denials: HashMap<_, _> = records.into_iter().map(|DenylistRecord { key, denial }| (key, denial)).collect();
    let is_current =
        |(_, denial): &(DeniedKey, Denial)| !matches!(denial, Denial::Denied { until, .. } if *until <= now);
    let mut entries: Vec<_> = denials.into_iter().filter(is_current).collect();
    entries.sort_by_cached_key(|(key, denial)| {
        let (Denial::Denied { at, .. } | Denial::Lifted { at, .. }) = denial;
        (*at, key.tenant_id.clone(), key.target.id().to_owned())
    });
    entries
}

/// A table on a terminal, otherwise a JSON object per line.
fn print(entries: &[(DeniedKey, Denial)]) -> Result<(), Failure> {
    let is_terminal = std::io::stdout().is_terminal();
    let header = "SINCE                 KIND    TENANT            ID                        STATE\n";
    let mut text = if is_terminal { header.to_owned() } else { String::new() };
    for (key, denial) in entries {
        let (kind, tenant, id) = (kind_of(&key.target), &key.tenant_id, key.target.id());
        let (at, state, line) = match denial {
            Denial::Denied { at, until } => {
                let (at, until) = (rfc3339(*at), rfc3339(*until));
                let line =
                    json!({"at": at, "state": "denied", "until": until, "kind": kind, "tenant_id": tenant, "id": id});
                (at, format!("denied until {until}"), line)
            }
            Denial::Lifted { at, by, reason } => {
                let at = rfc3339(*at);
                let line = json!({"at": at, "state": "lifted", "by": by, "reason": reason, "kind": kind,
                    "tenant_id": tenant, "id": id});
                (at, format!("lifted by {by}: {reason}"), line)
            }
        };
        if is_terminal {
            let [tenant, state, id] = [tenant.as_str(), &state, id].map(sanitize::line);
            let _ = writeln!(text, "{at:<20}  {kind:<6}  {tenant:<16}  {id:<24}  {state}");
        } else {
            text += &sanitize::json(&line.to_string());
            text.push('\n');
        }
    }
    to_stdout(&text)
}

/// `token` or `grant`.
const fn kind_of(target: &Target) -> &'static str {
    match target {
        Target::Token(_) => "token",
        Target::Family(_) => "grant",
    }
}
