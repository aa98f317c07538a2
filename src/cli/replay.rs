//! `tokenwarden replay`: scores past events with the same engine as the service, in event time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use tokio::sync::watch;

use super::failure::Failure;
use super::setup::{KEY_OF_REPLAYS, geo_settings, load_rules, open_state, start_runtime};
use super::terminal::{progress_of_bytes, to_stderr};
use super::{delivery, rule_diff};
use crate::campaign::{Campaign, Stage};
use crate::checkpoint::DeadLetter;
use crate::config::{Config, FileSection};
use crate::engine;
use crate::enrich::Enricher;
use crate::feed::Feed;
use crate::line;
use crate::number::{counted, grouped};
use crate::pipeline::{Epoch, Pipeline, VerdictOutput};
use crate::port::{Clock, FeedbackRecord, SavedRows, SourceError, Store};
use crate::sanitize;
use crate::source::file::{FileSource, Progress};
use crate::store::{ClickHouse, NullStore, StoreSettings};
use crate::tally::{Note, Tally, Withheld};
use crate::telemetry::{self, Health, Metrics, SystemClock};
use crate::token::TokenHasher;
use crate::wire::{self, Format};
use crate::worker::{Environment, FeedbackSource, Limits, SnapshotSettings, Spread, Worker, WorkerError};

/// Maximum time at the end for pending alerts and revocations.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(30);

/// Maximum number of dead letters that are printed. Further ones are counted.
const LETTERS_TOLD_MAX: u64 = 10;

/// Score past events with the engine of the service, in event time. Nothing is sent or revoked without --enforce.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Files of events, also .gz and .zst. - is standard input.
    #[arg(required = true, value_name = "FILE|-")]
    files: Vec<PathBuf>,
    /// Format of the events: native, ocsf, ecs, cloudtrail, okta or github [default: that of [source.file] in the
    /// configuration, or native].
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    format: Option<Format>,
    /// Configuration file (TOML). Without one, every setting has its default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of rule files, instead of the configured ones.
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// Compare with the rules in this folder, and print only the alerts that are added, removed or changed.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["verdicts", "store", "strict", "partitions", "state", "feedback", "campaigns"])]
    against: Option<PathBuf>,
    /// Simulate a topic with N partitions. Each has its own state and an equal part of the alert budget. Events of one
    /// user go to one partition.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    partitions: u16,
    /// GeoIP city file, instead of the configured ones. May be repeated.
    #[arg(long, value_name = "FILE")]
    geoip_city: Vec<PathBuf>,
    /// GeoIP network file, instead of the configured ones. May be repeated.
    #[arg(long, value_name = "FILE")]
    geoip_asn: Vec<PathBuf>,
    /// Write the verdict of each event to this file, as JSON lines. - is standard output.
    #[arg(long, value_name = "OUT.ndjson")]
    verdicts: Option<PathBuf>,
    /// Store for events and incidents [default: none; with --enforce, the configured store].
    #[arg(long, value_name = "none|embedded:DIR|URL")]
    store: Option<String>,
    /// Folder of snapshots of the memory. The replay begins with the memory that the folder contains and skips records that
    /// were read before. At the end it stores the memory there.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Learn from the feedback in this file: feedback.ndjson of a service, or the records of its topic. Feedback is learnt at
    /// the place where the service learnt it, or else at the time when it was given.
    #[arg(long, value_name = "FILE")]
    feedback: Option<PathBuf>,
    /// Search for campaigns over the users of all partitions, and write them to this file, as JSON lines. - is standard
    /// output. The file is the same for each number of partitions. Without this option, detection.campaigns in the
    /// configuration switches the search on.
    #[arg(long, value_name = "OUT.ndjson")]
    campaigns: Option<PathBuf>,
    /// Send alerts and revoke tokens, as far as the configuration allows.
    #[arg(long, requires = "config")]
    enforce: bool,
    /// Exit with status 65 if a record cannot be decoded.
    #[arg(long)]
    strict: bool,
}

fn parse_format(text: &str) -> Result<Format, String> {
    Format::parse(text).ok_or_else(|| "expected native, ocsf, ecs, cloudtrail, okta or github".to_owned())
}

/// Runs the replay. The summary goes to stderr.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    telemetry::start_logging("warn");
    let mut config = Config::load(arguments.config.as_deref())?;
    if let Some(rules) = &arguments.rules {
        config.rules_dir = Some(rules.clone());
    }
    let configured = arguments.config.is_some().then_some(config.geoip);
    config.geoip = geo_settings(&arguments.geoip_city, &arguments.geoip_asn, configured)?;
    let feed = feed(arguments, &config);
    if let Some(old) = &arguments.against {
        let again = Config::load(arguments.config.as_deref())?;
        let against = Config { rules_dir: Some(old.clone()), geoip: config.geoip.clone(), ..again };
        return rule_diff::run(open_files(arguments)?, feed, [&against, &config], &hasher(arguments, &config)?);
    }
    let url = match arguments.store.as_deref() {
        // Every action must be recorded in the table of actions.
        Some("none") if arguments.enforce => {
            return Err(Failure::Usage(
                "--enforce needs a store, because every action is recorded; omit --store none".to_owned(),
            ));
        }
        None if arguments.enforce => config.store.url.clone(),
        None | Some("none") => return replay(arguments, &config, "none", |_| Ok(NullStore)),
        Some(url) => url.to_owned(),
    };
    let settings = StoreSettings { url, ..config.store.clone() };
    settings.check_url().map_err(|problem| Failure::Usage(format!("--store {problem}")))?;
    let open = |runtime: &tokio::runtime::Runtime| Ok(runtime.block_on(ClickHouse::open(&settings))?);
    replay(arguments, &config, &settings.url, open)
}

fn replay<S: Store + 'static>(
    arguments: &Arguments,
    config: &Config,
    stored: &str,
    open: impl FnOnce(&tokio::runtime::Runtime) -> Result<S, Failure>,
) -> Result<(), Failure>
where
    S::Rows: SavedRows + 'static,
{
    let rules = load_rules(config)?;
    let state = arguments.state.as_deref().map(open_state).transpose()?;
    let feedback = arguments.feedback.as_deref().map(read_feedback).transpose()?;
    let enricher = Enricher::new(&config.geoip).trust_event_geo(config.detection.trust_event_geo);
    let feed = feed(arguments, config);
    let mut source = open_files(arguments)?;
    let mut verdicts =
        arguments.verdicts.as_deref().map(|out| OutputFile::create(out, "verdicts", &arguments.files)).transpose()?;
    let campaigns =
        arguments.campaigns.as_deref().map(|out| OutputFile::create(out, "campaigns", &arguments.files)).transpose()?;
    let searches = campaigns.is_some() || config.detection.campaigns;
    let runtime = start_runtime()?;
    let store = Arc::new(open(&runtime)?);

    let mut summary = Summary::new(config, &enricher, source.progress());
    summary.parts.extend(rules.missing_note());
    let rules = Arc::new(rules.rules);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::default()));
    let (outbox, deliverer) = if arguments.enforce {
        let (_, newest) = watch::channel(Arc::clone(&rules));
        let _inside = runtime.enter();
        let delivery = delivery::open(config, &newest, &clock)?;
        for warning in delivery.warnings(config) {
            summary.print(&warning);
        }
        let (outbox, running) = delivery.start(&store, &clock, &metrics, &health, runtime.handle());
        (Some(outbox), Some(running))
    } else {
        (None, None)
    };
    let settings = engine::Settings { campaigns: searches, ..config.engine_settings() };
    let search = Stage::new(settings.mode, settings.campaign_budget());
    let pipeline = Pipeline::new(enricher, rules, hasher(arguments, config)?, settings);
    let outside = Environment {
        store,
        outbox,
        clock,
        metrics,
        health,
        runtime: runtime.handle().clone(),
        limits: Limits::REPLAY,
        reload: None,
    };
    let output = if verdicts.is_some() { VerdictOutput::Lines } else { VerdictOutput::None };
    let mut worker = Worker::new(pipeline, Spread::BySubject(feed, arguments.partitions), output, outside);
    if let Some(feedback) = feedback {
        worker = worker.with_feedback(FeedbackSource::Past(feedback));
    }
    if searches {
        worker = worker.with_campaigns(search);
    }
    if let Some(to) = state {
        worker = worker.with_snapshots(SnapshotSettings { to: Arc::new(to), interval_ms: None });
    }
    let done = worker.run(&mut source, &AtomicBool::new(false), &mut |epoch| {
        if let (Some(file), Some(lines)) = (&mut verdicts, &epoch.verdicts) {
            file.out.write_all(lines)?;
        }
        summary.epoch(epoch);
        Ok(())
    });
    let (left, held) = deliverer.map_or((0, 0), |deliverer| {
        runtime.block_on(async {
            let left = deliverer.settle(DELIVERY_PATIENCE).await;
            let held = deliverer.held();
            deliverer.stop(Duration::from_secs(1)).await;
            (left, held)
        })
    });
    let flushed = verdicts.as_mut().map_or(Ok(()), |file| file.out.flush());
    let tally = match done {
        Ok(tally) => tally,
        Err(WorkerError::Output(error)) => return Err(Failure::output("the verdicts", &error)),
        Err(error) => return Err(error.into()),
    };
    flushed.map_err(|error| Failure::output("the verdicts", &error))?;
    let found = worker.campaigns();
    if let Some(file) = campaigns {
        file.write_campaigns(&found).map_err(|error| Failure::output("the campaigns", &error))?;
    }
    let counters = worker.counters();
    for fault in worker.faults() {
        summary.print(&format!("unreadable: {fault}"));
    }
    summary.finish(&tally, counters, stored);
    if searches {
        summary.campaigns(&found);
    }
    if arguments.feedback.is_some() {
        let (learnt, left) = (counted(counters.feedback, "record"), worker.feedback_left());
        summary.print(&format!("feedback: {learnt} learnt, {left} not learnt because their place is not in the files"));
    }
    summary.undelivered(left, held, &config.outbox.dir);
    match summary.first_fault(worker.faults()) {
        Some(fault) if arguments.strict => Err(Failure::Input(fault)),
        _ => Ok(()),
    }
}

/// Settings of the files: those of `[source.file]`, with the format of the command line.
fn feed(arguments: &Arguments, config: &Config) -> Feed {
    let configured = config.source.file.as_ref().map(FileSection::feed).unwrap_or_default();
    Feed { format: arguments.format.unwrap_or(configured.format), ..configured }
}

fn open_files(arguments: &Arguments) -> Result<FileSource, Failure> {
    FileSource::open(arguments.files.clone()).map_err(|error| match error {
        SourceError::Misconfigured(problem) => Failure::Usage(problem),
        other => other.into(),
    })
}

/// The records in a file. A line that cannot be read is an error: the result would differ from that of the service.
fn read_feedback(path: &Path) -> Result<Vec<FeedbackRecord>, Failure> {
    let name = path.display();
    let text = std::fs::read(path).map_err(|error| Failure::Usage(format!("cannot read {name}: {error}")))?;
    let lines = text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    let read = |(number, line): (usize, &[u8])| {
        let problem = || Failure::Usage(format!("{name}:{}: not a record of feedback, or damaged", number + 1));
        line::read(line).ok_or_else(problem)
    };
    lines.map(read).collect()
}

/// Hashes bearer values with the key of the installation, or without a configuration with the public key of replays.
fn hasher(arguments: &Arguments, config: &Config) -> Result<TokenHasher, Failure> {
    if arguments.config.is_some() || config.privacy.token_key.is_some() {
        return Ok(config.token_hasher()?);
    }
    Ok(TokenHasher::new(KEY_OF_REPLAYS).with_ids(config.privacy.token_ids))
}

/// Output for verdicts or campaigns.
struct OutputFile {
    out: Box<dyn Write>,
}

impl OutputFile {
    /// `what`: the name of the option.
    fn create(path: &Path, what: &str, inputs: &[PathBuf]) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self { out: Box::new(BufWriter::new(std::io::stdout())) });
        }
        let same = |input: &PathBuf| matches!((std::fs::canonicalize(input), std::fs::canonicalize(path)), (Ok(one), Ok(other)) if one == other);
        if inputs.iter().any(same) {
            return Err(Failure::Usage(format!("--{what} would overwrite the input {}", path.display())));
        }
        let file = File::create(path)
            .map_err(|error| Failure::Usage(format!("cannot write the {what} to {}: {error}", path.display())))?;
        Ok(Self { out: Box::new(BufWriter::new(file)) })
    }

    fn write_campaigns(mut self, campaigns: &[Campaign]) -> std::io::Result<()> {
        let mut lines = Vec::new();
        for campaign in campaigns {
            wire::campaign::encode(&mut lines, campaign);
        }
        self.out.write_all(&lines)?;
        self.out.flush()
    }
}

/// Messages on stderr, during the run and at the end.
struct Summary {
    /// Present if stderr is a terminal.
    bar: Option<ProgressBar>,
    read: Progress,
    total: u64,
    letters: u64,
    first_letter: Option<String>,
    parts: Vec<String>,
}

impl Summary {
    fn new(config: &Config, enricher: &Enricher, read: Progress) -> Self {
        let mut parts = vec![format!("rules: {}", config.rules_origin())];
        match enricher.versions() {
            none if none.is_empty() => parts.push("GeoIP: no files; places and networks are unknown".to_owned()),
            files => parts.extend(files.iter().map(|file| format!("GeoIP: {file}"))),
        }
        parts.extend(enricher.problems().iter().map(|problem| format!("GeoIP file not used: {problem}")));
        let bar = std::io::stderr().is_terminal().then(|| progress_of_bytes(read.bytes_total()));
        Self { bar, read, total: 0, letters: 0, first_letter: None, parts }
    }

    fn epoch<R>(&mut self, epoch: &Epoch<R>) {
        self.total += epoch.tally.messages;
        for letter in &epoch.letters {
            self.letter(letter);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.read.bytes_read());
            bar.set_message(format!("{} records", grouped(self.total)));
        }
    }

    fn letter(&mut self, letter: &DeadLetter) {
        self.letters += 1;
        // Offsets of files begin at 0, line numbers at 1.
        let place = letter.at.map_or_else(String::new, |at| format!(", at {at}"));
        let text = format!("{}:{}: {}{place}", letter.position.topic, letter.position.offset + 1, letter.reason);
        if self.letters <= LETTERS_TOLD_MAX {
            self.print(&format!("dead letter: {text}"));
        }
        self.first_letter.get_or_insert(text);
    }

    /// The first file that could not be read to its end, otherwise the first dead letter, with the number of further ones.
    /// The file comes first, because the record in which it was cut off is a consequence.
    fn first_fault(&self, files: &[String]) -> Option<String> {
        let first = files.first().or(self.first_letter.as_ref())?;
        let more = self.letters + files.len() as u64 - 1;
        Some(if more > 0 { format!("{first}, and {more} more") } else { first.clone() })
    }

    /// `left`, `held`: numbers of deliveries that wait and that are held in the folder `outbox`.
    fn undelivered(&self, left: usize, held: usize, outbox: &Path) {
        let outbox = outbox.display();
        if left > 0 {
            self.print(&format!("{left} alerts or revocations wait in {outbox}; the next run delivers them"));
        }
        if held > 0 {
            self.print(&format!(
                "{held} alerts or revocations are held in {outbox} (rejected, capped, paused, stopped or refused); the next run \
                 retries them"
            ));
        }
    }

    fn campaigns(&self, found: &[Campaign]) {
        let victims = found.iter().map(|campaign| campaign.victims.len() as u64).sum();
        let (incidents, victims) = (counted(found.len() as u64, "incident"), counted(victims, "victim"));
        self.print(&format!("campaigns: {incidents} with {victims}"));
    }

    fn finish(&self, tally: &Tally, counters: engine::Counters, store: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seen = tally.events + tally.duplicates;
        self.print(&format!(
            "{} events, {} of them duplicates; {} records without a token; {} dead letters",
            grouped(seen),
            grouped(tally.duplicates),
            grouped(tally.skipped_total()),
            grouped(tally.dead_letters)
        ));
        if counters.ids_reused > 0 {
            let count = grouped(counters.ids_reused);
            self.print(&format!(
                "  {count} events had the id of another event with different content; they were scored too"
            ));
        }
        let mut skipped = tally.skipped.clone();
        skipped.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        for (reason, count) in skipped {
            self.print(&format!("  without a token: {}: {reason}", grouped(count)));
        }
        for line in remarks(tally) {
            self.print(&line);
        }
        let allowed = tally.events - tally.watched - tally.alerted - tally.revoked;
        self.print(&format!(
            "verdicts: {} allow, {} watch, {} alert, {} revoke; {} events were late",
            grouped(allowed),
            grouped(tally.watched),
            grouped(tally.alerted),
            grouped(tally.revoked),
            grouped(counters.late)
        ));
        if counters.attempts > 0 {
            self.print(&format!("{} attempts (the credential was not accepted)", grouped(counters.attempts)));
        }
        for (count, direction) in [(counters.ahead, "ahead of"), (counters.behind, "behind")] {
            if count > 0 {
                self.print(&format!(
                    "{} events with a time more than detection.clock_skew_ms_max {direction} the stream: scored without \
                     detectors that need the time",
                    grouped(count)
                ));
            }
        }
        let Withheld { alerts, highest } = tally.withheld;
        if alerts > 0 {
            let alerts = grouped(alerts);
            self.print(&format!("  withheld by the alert budget: {alerts} alerts, highest log-odds {highest:.1}"));
        }
        for part in &self.parts {
            self.print(part);
        }
        self.print(&format!("store: {store}"));
    }

    fn print(&self, line: &str) {
        let line = sanitize::lines(line);
        match &self.bar {
            Some(bar) => bar.suspend(|| to_stderr(&line)),
            None => to_stderr(&line),
        }
    }
}

/// Remarks about the data for their producers, totals over all files.
fn remarks(tally: &Tally) -> Vec<String> {
    let mut counts = BTreeMap::new();
    for (_, note, count) in &tally.noted {
        *counts.entry(note).or_insert(0) += count;
    }
    let lines = |(note, count): (&Note, u64)| {
        let count = grouped(count);
        match note {
            Note::Unreadable(field) => {
                vec![format!("  not readable as sent, repaired or absent: {field} in {count} events")]
            }
            Note::WithoutAddress(format) => vec![
                format!("  without an address: {count} uses"),
                format!("    their places and networks are not scored; {}", format.address_hint()),
            ],
            Note::ConfirmedIgnored => {
                vec![format!(
                    "  ignored: {count} `confirmed` events, because the source does not have confirmed = true"
                )]
            }
            Note::Redacted => vec![format!("  bearer values replaced by their hash: {count}")],
            Note::OpaqueIds => vec![format!("  token ids that look like opaque secrets: {count} of the sample")],
        }
    };
    counts.into_iter().flat_map(lines).collect()
}
