//! `tokenwarden validate`: checks configuration, rules and services.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tokio::sync::watch;

use super::delivery;
use super::failure::Failure;
use super::setup::{NO_SOURCE, open_file, start_runtime};
use super::shadow;
use super::topics;
use super::user_api;
use crate::config::Config;
use crate::denylist::DENIED_ONLY;
use crate::engine::STATE_FORMAT;
use crate::enrich::Enricher;
use crate::format::Format;
use crate::number::counted;
use crate::port::{Clock, DeliveryError, StoreError};
use crate::rule::RuleSet;
use crate::sanitize;
use crate::source::kafka::{Finding, Level, StateTopicUse};
use crate::state_dir;
use crate::store::Reader;
use crate::telemetry::SystemClock;
use crate::verdict::Mode;

/// Check the configuration, the rules, the GeoIP files, and that the services answer.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Do not connect to Kafka, ClickHouse and the mail server.
    #[arg(long)]
    offline: bool,
}

/// Prints one line for each thing checked. The exit status is that of the gravest failure.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut report = Report::default();
    let config = match Config::load(Some(&arguments.config)) {
        Ok(config) => config,
        Err(error) => {
            report.failed("configuration", &error.to_string(), Kind::Configuration)?;
            return report.end();
        }
    };
    match (&config.source.kafka, &config.source.file) {
        (None, None) => report.failed("configuration", NO_SOURCE, Kind::Configuration)?,
        _ => Report::ok("configuration", &arguments.config.display().to_string())?,
    }
    for warning in &config.warnings {
        print_line(&format!("warning configuration: {warning}"))?;
    }
    report_memory(&config)?;
    hint_at_addresses(&config)?;
    check_rules(&config, &mut report)?;
    check_geoip(&config, &mut report)?;
    check_snapshots(&config)?;
    let runtime = start_runtime()?;
    runtime.block_on(check_delivery(&config, arguments.offline, &mut report))?;
    if !arguments.offline {
        check_source(&config, &mut report)?;
        runtime.block_on(check_store(&config, &mut report))?;
    }
    report.end()
}

/// The number of partitions of a member changes, so only the operator knows whether the limit suffices.
fn report_memory(config: &Config) -> Result<(), Failure> {
    let detection = &config.detection;
    let (Some(mib), Some(partitions)) = (detection.memory_mib_max, detection.partitions_max()) else {
        return Report::ok("memory", "limited by number only (detection.baselines_max for each partition)");
    };
    let partitions = counted(partitions as u64, "partition");
    Report::ok("memory", &format!("limit {mib} MiB (detection.memory_mib_max), for at most {partitions}"))
}

/// Whether addresses come with a source's events shows only once there are some.
fn hint_at_addresses(config: &Config) -> Result<(), Failure> {
    let topics = config.source.kafka.iter().flat_map(|kafka| &kafka.topics);
    let topics = topics.map(|topic| (format!("topic {}", topic.topic), topic.feed.format));
    let file = config.source.file.iter().map(|file| (file.path.display().to_string(), file.feed().format));
    for (source, format) in topics.chain(file).filter(|(_, format)| *format == Format::Github) {
        print_line(&format!("note    addresses of {source}: {}", format.address_hint()))?;
    }
    Ok(())
}

fn check_rules(config: &Config, report: &mut Report) -> Result<(), Failure> {
    match config.load_rules() {
        Ok(loaded) => {
            Report::ok("rules", &format!("{} from {}", loaded.cases.len(), config.rules_origin()))?;
            for missing in &loaded.missing {
                Report::ok("rules", &format!("{missing} has no file and is disabled"))?;
            }
        }
        Err(errors) => {
            for error in errors {
                report.failed("rules", &error.to_string(), Kind::Configuration)?;
            }
        }
    }
    Ok(())
}

fn check_geoip(config: &Config, report: &mut Report) -> Result<(), Failure> {
    if config.geoip.city.is_empty() && config.geoip.asn.is_empty() {
        return Report::ok("GeoIP", "no files are configured, so places and networks are not scored");
    }
    let enricher = Enricher::new(&config.geoip).trust_event_geo(config.detection.trust_event_geo);
    for version in enricher.versions() {
        Report::ok("GeoIP", &version)?;
    }
    for problem in enricher.problems() {
        report.failed("GeoIP", &problem, Kind::Configuration)?;
    }
    Ok(())
}

/// A snapshot that cannot be used is no failure, because the memory is then rebuilt.
fn check_snapshots(config: &Config) -> Result<(), Failure> {
    match config.source.kafka.as_ref().map(|kafka| kafka.state_topic) {
        Some(StateTopicUse::Required) => return Report::ok("snapshots", "in a topic"),
        Some(StateTopicUse::IfPermitted) => return Report::ok("snapshots", "in a topic, if the brokers permit it"),
        Some(StateTopicUse::Never) | None => {}
    }
    let Some(dir) = &config.snapshots.dir else {
        return Report::ok("snapshots", "none are configured, so a restart rebuilds the memory from the source");
    };
    match state_dir::list(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Report::warning("snapshots", &format!("cannot read {}: {error}", dir.display()))
        }
        Err(_) => Report::ok("snapshots", &format!("in {}; there is none yet", dir.display())),
        Ok(listed) => {
            Report::ok("snapshots", &format!("in {}", dir.display()))?;
            for (name, found) in listed {
                let problem = match found {
                    Ok(found) => {
                        found.marker.check_format(STATE_FORMAT).err().map(|reason| format!("{name}: {reason}"))
                    }
                    Err(error) => Some(error.to_string()),
                };
                if let Some(problem) = problem {
                    Report::warning("snapshots", &format!("{problem}; the next start rebuilds the memory"))?;
                }
            }
            Ok(())
        }
    }
}

/// Checks that channels and revoker can be created and, unless offline, that receivers accept the credentials, if they
/// have a request without an effect. Providers are not tested, because a request to them has an effect.
async fn check_delivery(config: &Config, offline: bool, report: &mut Report) -> Result<(), Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (_, rules) = watch::channel(Arc::new(RuleSet::builtin()));
    match delivery::notifiers(config, &rules, &clock) {
        Ok(none) if none.is_empty() => Report::ok("alerts", "no channel is configured, so alerts are not sent")?,
        Ok(notifiers) => {
            for notifier in notifiers {
                let what = format!("{} to {}", notifier.name(), notifier.target());
                match if offline { Ok(()) } else { notifier.probe().await } {
                    Ok(()) => Report::ok("alerts", &what)?,
                    Err(
                        DeliveryError::Retriable { reason, .. }
                        | DeliveryError::Permanent { reason, .. }
                        | DeliveryError::Rejected { reason, .. },
                    ) => {
                        report.failed("alerts", &format!("{what}: {reason}"), Kind::Unavailable)?;
                    }
                }
            }
        }
        Err(error) => report.failed("alerts", &error.to_string(), Kind::Configuration)?,
    }
    match delivery::users(config, &clock) {
        Ok(Some(users)) => {
            for notifier in &users.notifiers {
                Report::ok("messages to users", notifier.name())?;
            }
        }
        Ok(None) => {}
        Err(error) => report.failed("messages to users", &error.to_string(), Kind::Configuration)?,
    }
    if let Some(denylist) = &config.denylist {
        Report::ok("denylist", &format!("for gateways at http://{}/check", denylist.listen))?;
    }
    if let Some(api) = &config.user_api {
        Report::ok("user API", &format!("at http://{}, described at /openapi.json", api.listen))?;
    }
    if let Some(receiver) = &config.signals_receiver {
        let text = format!("at http://{}/events, for the topic {}", receiver.listen, receiver.topic);
        Report::ok("security events", &text)?;
    }
    match (delivery::provider(config, &clock), config.revoke.mode) {
        (Ok(Some(revoker)), mode) => {
            for warning in delivery::doubts(config, &*revoker) {
                Report::warning("revocation", warning)?;
            }
            if let Some(warning) = delivery::small_margin(config, &*revoker) {
                Report::warning("revocation", &warning)?;
            }
            if let Err(error) = user_api::check(config, &*revoker) {
                report.failed("user API", &error.to_string(), Kind::Configuration)?;
            }
            for limit in revoker.limits() {
                print_line(&format!("note    revocation: {limit}"))?;
            }
            let about = revoker.about().map_or_else(String::new, |about| format!("; {about}"));
            Report::ok("revocation", &format!("in mode {}{about}", mode.as_str()))
        }
        (Ok(None), Mode::Enforce) if config.denylist.is_some() => Report::warning("revocation", DENIED_ONLY),
        (Ok(None), Mode::Enforce) => {
            let reason = "revoke.mode is enforce, and there is no [revoke.http] or [denylist] to revoke with";
            report.failed("revocation", reason, Kind::Configuration)
        }
        (Ok(None), _) => Report::ok("revocation", "no provider is configured"),
        (Err(error), _) => report.failed("revocation", &error.to_string(), Kind::Configuration),
    }
}

fn check_source(config: &Config, report: &mut Report) -> Result<(), Failure> {
    if let Some(kafka) = &config.source.kafka {
        match topics::check(config, kafka) {
            Ok(findings) => report_topics(&kafka.brokers, &findings, report)?,
            Err(error) => report.failed("Kafka", &error.to_string(), Kind::of(&error.into()))?,
        }
    }
    if let Some(file) = &config.source.file {
        match open_file(config, file) {
            Ok(_) => Report::ok("source", &file.path.display().to_string())?,
            Err(error) => report.failed("source", &error.to_string(), Kind::of(&error))?,
        }
    }
    Ok(())
}

/// Reports problems of `topics check`, and one line for each topic without problems.
fn report_topics(brokers: &str, findings: &[Finding], report: &mut Report) -> Result<(), Failure> {
    for alike in findings.chunk_by(|one, other| one.topic == other.topic) {
        let mut usable = true;
        for Finding { level, topic, what, text, repaired_at_start } in alike {
            let problem = format!("{topic}: {what}: {text}");
            match level {
                Level::Ok => {}
                Level::Failed if !repaired_at_start => {
                    usable = false;
                    report.failed("Kafka", &problem, Kind::Unavailable)?;
                }
                Level::Failed | Level::Warning => {
                    usable &= !repaired_at_start;
                    Report::warning("Kafka", &problem)?;
                }
            }
        }
        if let Some(Finding { topic, .. }) = alike.first().filter(|_| usable) {
            Report::ok("Kafka", &format!("{brokers} has {topic}"))?;
        }
    }
    Ok(())
}

/// Checks without changes: the service creates its database at its first start.
async fn check_store(config: &Config, report: &mut Report) -> Result<(), Failure> {
    let settings = &config.store;
    if let Some(directory) = settings.url.strip_prefix("embedded:")
        && !Path::new(directory).exists()
    {
        return match settings.check_library() {
            Ok(()) => Report::ok("store", &format!("{directory} will be made")),
            Err(reason) => report.failed("store", &reason, Kind::Configuration),
        };
    }
    match Reader::open(settings).await {
        Ok(reader) => {
            let warnings = shadow::thin_evidence(config, &reader).await;
            reader.close().await;
            Report::ok("store", &settings.url)?;
            warnings.iter().try_for_each(|warning| Report::warning("rules", warning))
        }
        Err(StoreError::Permanent(reason)) if reason.starts_with("there is no database") => {
            Report::ok("store", &format!("{}; the database will be made", settings.url))
        }
        Err(error) => report.failed("store", &error.to_string(), Kind::Unavailable),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Configuration,
    Unavailable,
}

impl Kind {
    fn of(failure: &Failure) -> Self {
        if matches!(failure, Failure::Unavailable(_)) { Self::Unavailable } else { Self::Configuration }
    }
}

/// Results of the checks so far.
#[derive(Default)]
struct Report {
    worst: Option<Kind>,
    failures: usize,
}

impl Report {
    fn ok(what: &str, detail: &str) -> Result<(), Failure> {
        print_line(&format!("ok      {what}: {detail}"))
    }

    /// A setting that works and is probably a mistake.
    fn warning(what: &str, reason: &str) -> Result<(), Failure> {
        print_line(&format!("WARNING {what}: {reason}"))
    }

    fn failed(&mut self, what: &str, reason: &str, kind: Kind) -> Result<(), Failure> {
        self.failures += 1;
        if self.worst != Some(Kind::Configuration) {
            self.worst = Some(kind);
        }
        print_line(&format!("FAILED  {what}: {reason}"))
    }

    fn end(self) -> Result<(), Failure> {
        let said = match self.failures {
            1 => "one check failed".to_owned(),
            count => format!("{count} checks failed"),
        };
        match self.worst {
            None => Ok(()),
            Some(Kind::Configuration) => Err(Failure::Configuration(said)),
            Some(Kind::Unavailable) => Err(Failure::Unavailable(said)),
        }
    }
}

fn print_line(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{}", sanitize::lines(line)).map_err(|error| Failure::output("to stdout", &error))
}
