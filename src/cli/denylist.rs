//! The configured denylist: its log, its endpoint, and `tokenwarden denylist`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::failure::Failure;
use super::setup::start_runtime;
use crate::config::{Config, DenylistSection};
use crate::denylist::{Claims, Denylist, FileLog};
use crate::gate::{self, Followed, Gate, TenantOf};
use crate::lock::unpoisoned;
use crate::millis::HOUR_MS;
use crate::port::{Clock, Denial, DeniedKey, DenylistLog, DenylistObserver, DenylistRecord};
use crate::sanitize;
use crate::source::kafka::DenylistTopic;
use crate::telemetry::{Health, Metrics, SystemClock};
use crate::token::TokenHasher;
use crate::verdict::Target;

/// Time limit for reading the whole log.
const READ_WAIT: Duration = Duration::from_secs(30);
const READ_LOOK: Duration = Duration::from_millis(20);

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
    /// List the entries that have not expired.
    List,
    /// Remove an entry, so that gateways accept the token or grant again. It does not undo the revocation at the provider.
    Lift {
        kind: TargetKind,
        /// `token_id` or `family_id` of the events.
        id: String,
        /// Tenant of the token or grant. Without it, that of events without a tenant.
        #[arg(long, value_name = "TENANT", default_value = "", hide_default_value = true)]
        tenant: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TargetKind {
    Token,
    #[value(alias = "grant")]
    Family,
}

/// Opens the log: a topic if the source is Kafka, otherwise a file in the outbox folder. `None`: there is no denylist.
pub(super) fn open(config: &Config) -> Result<Option<Arc<dyn DenylistLog>>, Failure> {
    if config.denylist.is_none() {
        return Ok(None);
    }
    if let Some(kafka) = &config.source.kafka {
        return Ok(Some(Arc::new(DenylistTopic::open(kafka)?)));
    }
    Ok(Some(Arc::new(open_file(config)?)))
}

fn open_file(config: &Config) -> Result<FileLog, Failure> {
    let dir = &config.outbox.dir;
    FileLog::open(dir)
        .map_err(|error| Failure::Unavailable(format!("cannot write the denylist in {}: {error}", dir.display())))
}

/// Milliseconds for which a target is denied.
pub(super) fn keep_ms(section: &DenylistSection) -> i64 {
    i64::from(section.keep_hours) * HOUR_MS
}

/// Follows the log and serves the endpoint.
pub(super) async fn serve(
    config: &Config,
    hasher: &TokenHasher,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
) -> Result<(), Failure> {
    let (Some(section), Some(log)) = (&config.denylist, open(config)?) else { return Ok(()) };
    if config.source.kafka.is_none() {
        open_file(config)?.compact(clock.now_millis()).map_err(|error| {
            Failure::Unavailable(format!("cannot write the denylist in {}: {error}", config.outbox.dir.display()))
        })?;
    }
    let list = Denylist::new(Arc::clone(clock));
    let followed = Arc::new(Followed { list, health: Arc::clone(health) });
    log.follow(Arc::clone(&followed) as Arc<dyn DenylistObserver>);
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
    let entries = read_all(&*log)?;
    match &arguments.command {
        Command::List => print(&entries),
        Command::Lift { kind, id, tenant } => {
            let target = match kind {
                TargetKind::Token => Target::Token(id.clone()),
                TargetKind::Family => Target::Family(id.clone()),
            };
            let key = DeniedKey { tenant_id: tenant.clone(), target };
            if !entries.iter().any(|(denied, _)| *denied == key) {
                let tenants: Vec<_> = entries
                    .iter()
                    .filter(|(denied, _)| denied.target == key.target)
                    .map(|(denied, _)| format!("`{}`", sanitize::line(&denied.tenant_id)))
                    .collect();
                let hint = if tenants.is_empty() {
                    String::new()
                } else {
                    format!("; it is on the list for the tenant {}, see --tenant", tenants.join(" and "))
                };
                let (kind, id) = (key.target.kind(), sanitize::line(id));
                return Err(Failure::Usage(format!("the {kind} {id} is not on the denylist{hint}")));
            }
            let runtime = start_runtime()?;
            let kind = key.target.kind();
            let lifted = runtime.block_on(log.append(DenylistRecord { key, denial: None }));
            lifted.map_err(|reason| Failure::Unavailable(format!("the denylist is not written: {reason}")))?;
            writeln!(std::io::stdout(), "removed the {kind} {} from the denylist", sanitize::line(id))
                .map_err(|error| Failure::output("to stdout", &error))
        }
    }
}

/// The entries of the log.
#[derive(Default)]
struct Collected {
    denials: Mutex<HashMap<DeniedKey, Denial>>,
    is_complete: AtomicBool,
}

impl DenylistObserver for Collected {
    fn record(&self, DenylistRecord { key, denial }: DenylistRecord) {
        let mut denials = unpoisoned(&self.denials);
        match denial {
            Some(denial) => _ = denials.insert(key, denial),
            None => _ = denials.remove(&key),
        }
    }

    fn is_complete(&self) {
        self.is_complete.store(true, Ordering::Release);
    }

    fn unreadable(&self, _: bool) {}
}

/// The entries that have not expired, the oldest first.
fn read_all(log: &dyn DenylistLog) -> Result<Vec<(DeniedKey, Denial)>, Failure> {
    let collected = Arc::new(Collected::default());
    log.follow(Arc::clone(&collected) as Arc<dyn DenylistObserver>);
    let mut waited = Duration::ZERO;
    while !collected.is_complete.load(Ordering::Acquire) {
        if waited >= READ_WAIT {
            let reason = format!("the denylist cannot be read within {} s", READ_WAIT.as_secs());
            return Err(Failure::Unavailable(reason));
        }
        std::thread::sleep(READ_LOOK);
        waited += READ_LOOK;
    }
    let now = SystemClock.now_millis();
    let denials = std::mem::take(&mut *unpoisoned(&collected.denials));
    let mut entries: Vec<_> = denials.into_iter().filter(|(_, denial)| denial.until > now).collect();
    entries.sort_by(|(one, first), (other, second)| {
        let text = |key: &DeniedKey| (key.tenant_id.clone(), key.target.id().to_owned());
        first.at.cmp(&second.at).then_with(|| text(one).cmp(&text(other)))
    });
    Ok(entries)
}

/// A table on a terminal, otherwise a JSON object per line.
fn print(entries: &[(DeniedKey, Denial)]) -> Result<(), Failure> {
    let mut text = String::new();
    let is_terminal = std::io::stdout().is_terminal();
    if is_terminal {
        text += "SINCE                 UNTIL                 KIND    TENANT            ID\n";
    }
    for (key, Denial { at, until }) in entries {
        let (at, until) = (time(*at), time(*until));
        let (kind, id) = (key.target.kind(), key.target.id());
        if is_terminal {
            let (tenant, id) = (sanitize::line(&key.tenant_id), sanitize::line(id));
            let _ = writeln!(text, "{at:<20}  {until:<20}  {kind:<6}  {tenant:<16}  {id}");
        } else {
            let line = json!({"at": at, "until": until, "kind": kind, "tenant_id": key.tenant_id, "id": id});
            text += &sanitize::json(&line.to_string());
            text.push('\n');
        }
    }
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output("to stdout", &error))
}

/// A time in RFC 3339, whole seconds.
fn time(millis: i64) -> String {
    let time = jiff::Timestamp::from_second(millis.div_euclid(1_000));
    time.map_or_else(|_| millis.to_string(), |time| time.to_string())
}
