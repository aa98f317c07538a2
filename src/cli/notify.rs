//! `tokenwarden notify test`: sends one test alert through a channel.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::sync::watch;

use super::delivery;
use super::failure::Failure;
use super::setup::start_runtime;
use crate::config::{Config, channel_hint};
use crate::port::{Accepted, Alert, Clock, DeliveryError, Notice, Notifier};
use crate::rule::RuleSet;
use crate::sanitize;
use crate::telemetry::SystemClock;

/// Time limit for one channel.
const WAIT: Duration = Duration::from_secs(60);

/// Test the alert channels.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send one marked test notice, and print the answer of the receiver. It is neither stored nor retried.
    Test(Options),
}

#[derive(Debug, Args)]
struct Options {
    /// The channel: `email`, `webhook`, or NAME of a section [alert.channel.NAME].
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    channel: Option<String>,
    /// Test all channels.
    #[arg(long)]
    all: bool,
    /// Configuration file (TOML) with the channels.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Prints one line for each recipient. The exit status is 69 if one did not accept the alert.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Command::Test(options) = &arguments.command;
    let config = Config::load(options.config.as_deref())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (_, rules) = watch::channel(Arc::new(RuleSet::builtin()));
    let runtime = start_runtime()?;
    let _inside = runtime.enter();
    let notifiers = delivery::notifiers(&config, &rules, &clock)?;
    let chosen = chosen(&notifiers, options.channel.as_deref())?;
    let mut failed = 0;
    for notifier in &chosen {
        let (result, what) = (runtime.block_on(send(&***notifier, clock.now_millis())), describe(&***notifier));
        failed += usize::from(result.is_err());
        let line = match result {
            Ok(Accepted { status: 0, .. }) => format!("ok      {what}: accepted"),
            Ok(Accepted { status, .. }) => format!("ok      {what}: accepted with status {status}"),
            Err(error) => format!("FAILED  {what}: {}", problem(&error)),
        };
        writeln!(std::io::stdout(), "{}", sanitize::line(&line))
            .map_err(|error| Failure::output("the result", &error))?;
    }
    match failed {
        0 => Ok(()),
        failed => Err(Failure::Unavailable(format!("{failed} of {} did not accept the test alert", chosen.len()))),
    }
}

/// The notifiers of `channel`, or all.
fn chosen<'a>(
    notifiers: &'a [Arc<dyn Notifier>],
    channel: Option<&str>,
) -> Result<Vec<&'a Arc<dyn Notifier>>, Failure> {
    let chosen: Vec<_> =
        notifiers.iter().filter(|notifier| channel.is_none_or(|channel| notifier.name() == channel)).collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    let mut known: Vec<String> = notifiers.iter().map(|notifier| notifier.name().to_owned()).collect();
    known.dedup();
    let Some(channel) = channel else {
        return Err(Failure::Configuration("no alert channel is configured".to_owned()));
    };
    Err(Failure::Usage(format!("unknown channel `{channel}`; {}", channel_hint(channel, &known))))
}

/// A notice, because a receiver may act on an incident.
async fn send(notifier: &dyn Notifier, now: i64) -> Result<Accepted, DeliveryError> {
    let name = notifier.name();
    let notice = Notice {
        title: format!("Test of the alert channel {name}"),
        text: "This is a test, sent by `tokenwarden notify test`. No token is affected. Nothing has to be done."
            .to_owned(),
        at: now,
        about: None,
    };
    let key = format!("notice-test-{now}");
    let late = DeliveryError::Retriable {
        reason: format!("no answer within {} s", WAIT.as_secs()),
        status: 0,
        retry_after: None,
    };
    tokio::time::timeout(WAIT, notifier.notify(Alert::Notice(&notice), &key)).await.unwrap_or(Err(late))
}

pub(super) fn describe(notifier: &dyn Notifier) -> String {
    format!("{} to {}", notifier.name(), notifier.target())
}

/// The reason, and what the receiver wrote.
pub(super) fn problem(error: &DeliveryError) -> String {
    match error {
        DeliveryError::Retriable { reason, retry_after: Some(wait), .. } => {
            format!("{reason}; it accepts requests again in {} s", wait.as_secs())
        }
        DeliveryError::Retriable { reason, .. } | DeliveryError::Permanent { reason, .. } => reason.clone(),
        DeliveryError::Rejected { reason, words } => format!("{reason}: {words}"),
    }
}
