//! `tokenwarden evaluate`: measures detection on labelled events.

use std::collections::BTreeSet;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::failure::Failure;
use super::reading::all_messages;
use super::setup::{KEY_OF_REPLAYS, geo_settings, load_rules};
use super::terminal::{to_stderr, to_stdout};
use crate::config::Config;
use crate::detector::DetectorId;
use crate::engine::{self, Counters, State};
use crate::enrich::Enricher;
use crate::lab::evaluate::board::Board;
use crate::lab::evaluate::labels::Labels;
use crate::lab::evaluate::report::{Report, Settings};
use crate::lab::evaluate::{Measure, peer};
use crate::pipeline::{Epoch, Pipeline};
use crate::port::SourceError;
use crate::sanitize;
use crate::source::file::{FileSource, contents};
use crate::tally::Tally;
use crate::telemetry;
use crate::token::TokenHasher;
use crate::wire::Format;

/// Names that the file of events may have.
const EVENT_FILES: [&str; 3] = ["events.ndjson", "events.ndjson.zst", "events.ndjson.gz"];
/// Names that the file of labels may have.
const LABEL_FILES: [&str; 3] = ["labels.ndjson", "labels.ndjson.zst", "labels.ndjson.gz"];
/// Lines of a page between which the tables are written: of one set, and of a scoreboard.
const MARKS: (&str, &str) = ("<!-- figures: begin -->", "<!-- figures: end -->");
const BOARD_MARKS: (&str, &str) = ("<!-- board: begin -->", "<!-- board: end -->");

/// Options that have no effect on a scoreboard.
const MEASURING: [&str; 12] = [
    "folder",
    "labels",
    "config",
    "rules",
    "geoip_city",
    "geoip_asn",
    "warmup",
    "without",
    "control",
    "peers",
    "json",
    "roc",
];

/// Measure detection on labelled events: recall at equal false-alert rates, time to detection, calibration.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Folder with events.ndjson and labels.ndjson (each also .zst or .gz), as `simulate` writes them.
    #[arg(value_name = "DIR", required_unless_present = "board")]
    folder: Option<PathBuf>,
    /// File of labels, if it is not in DIR. Without labels, the attributes label, scenario and case of the events are used.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Configuration file (TOML). Without one, every setting has its default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of rule files, instead of the configured ones.
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// GeoIP city file, instead of the configured ones. May be repeated.
    #[arg(long, value_name = "FILE")]
    geoip_city: Vec<PathBuf>,
    /// GeoIP network file, instead of the configured ones. May be repeated.
    #[arg(long, value_name = "FILE")]
    geoip_asn: Vec<PathBuf>,
    /// Days at the beginning, in event time, that update the baselines but are not measured.
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    warmup: u32,
    /// Leave out a detector, to measure its contribution. May be repeated.
    #[arg(long, value_name = "DETECTOR", value_parser = detectors())]
    without: Vec<DetectorId>,
    /// Leave this kind of theft out of the macro recall, as a control. It stays in the other tables. May be repeated.
    #[arg(long, value_name = "SCENARIO")]
    control: Vec<String>,
    /// Also measure the comparison rules.
    #[arg(long)]
    peers: bool,
    /// Print Markdown.
    #[arg(long)]
    markdown: bool,
    /// Measure nothing. Show the results of several `--json` files side by side: a row per file and per group of files whose
    /// names differ only in a number at the end.
    #[arg(long, value_name = "RESULTS.json", num_args = 1.., conflicts_with_all = MEASURING)]
    board: Vec<PathBuf>,
    /// Write the tables as Markdown into this page, between the lines `<!-- figures: begin -->` and `<!-- figures: end -->`
    /// (with --board: `<!-- board: begin -->` and `<!-- board: end -->`).
    #[arg(long, value_name = "PAGE.md")]
    into: Option<PathBuf>,
    /// Write all results to this file as JSON.
    #[arg(long, value_name = "OUT.json")]
    json: Option<PathBuf>,
    /// Draw macro recall over false alerts into this SVG file.
    #[arg(long, value_name = "OUT.svg")]
    roc: Option<PathBuf>,
}

/// Runs the evaluation. The tables go to stdout.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    telemetry::start_logging("warn");
    let Some(folder) = &arguments.folder else {
        let board = Board::new(arguments.board.iter().map(|file| read_report(file)).collect::<Result<Vec<_>, _>>()?);
        return print(arguments, &board.to_text(), &board.to_markdown(), BOARD_MARKS);
    };
    let mut config = Config::load(arguments.config.as_deref())?;
    if let Some(rules) = &arguments.rules {
        config.rules_dir = Some(rules.clone());
    }
    let configured = arguments.config.is_some().then_some(config.geoip);
    config.geoip = geo_settings(&arguments.geoip_city, &arguments.geoip_asn, configured)?;
    let labels = read_labels(arguments, folder)?;
    let (measure, tally) = measure(arguments, folder, &config, labels)?;
    check_labels(measure.labels())?;
    let settings = Settings {
        prior: config.detection.prior_log_odds,
        controls: controls(arguments, measure.labels()),
        alert_budget_per_day: config.detection.alert_budget_per_day,
    };
    let report = Report::new(measure, &settings, &tally);
    if let Some(out) = &arguments.json {
        let mut text = serde_json::to_vec_pretty(&report)
            .map_err(|error| Failure::Unavailable(format!("cannot write the results: {error}")))?;
        text.push(b'\n');
        write(out, &text)?;
    }
    if let Some(out) = &arguments.roc {
        write(out, report.roc_svg().as_bytes())?;
    }
    print(arguments, &report.to_text(), &report.to_markdown(), MARKS)
}

/// Writes the tables to stdout, and into the page of `--into`.
fn print(arguments: &Arguments, text: &str, markdown: &str, marks: (&str, &str)) -> Result<(), Failure> {
    if let Some(page) = &arguments.into {
        fill(page, markdown, marks)?;
    }
    to_stdout(&sanitize::lines(if arguments.markdown { markdown } else { text }))
}

fn measure(arguments: &Arguments, folder: &Path, config: &Config, labels: Labels) -> Result<(Measure, Tally), Failure> {
    let rules = load_rules(config)?;
    if let Some(note) = rules.missing_note() {
        to_stderr(&note);
    }
    let mut source = open_events(folder)?;
    let enricher = Enricher::new(&config.geoip).trust_event_geo(config.detection.trust_event_geo);
    for problem in enricher.problems() {
        to_stderr(&format!("GeoIP file not used: {problem}"));
    }
    // Labelled events belong to no installation, so the key may be public.
    let hasher = TokenHasher::new(KEY_OF_REPLAYS);
    let settings = engine::Settings { without: arguments.without.clone(), ..config.engine_settings() };
    let mut pipeline = Pipeline::new(enricher, Arc::new(rules.rules), hasher, settings);
    let mut partition = pipeline.partition(Format::Native);
    let peers = if arguments.peers { peer::all().into() } else { Vec::new() };
    let mut epoch = Epoch::new(Measure::new(labels, peers, arguments.warmup));
    all_messages(&mut source, &mut |messages| {
        pipeline.process(&mut partition, messages, 0, &mut epoch);
        // Nothing is reported.
        epoch.incidents.clear();
        epoch.letters.clear();
    })?;
    let counters = partition.states().map(State::counters).fold(Counters::default(), Counters::plus);
    for (count, direction) in [(counters.ahead, "ahead of"), (counters.behind, "behind")] {
        if count > 0 {
            to_stderr(&format!("{count} events have a time far {direction} the stream; they are scored without it"));
        }
    }
    Ok((epoch.rows, epoch.tally))
}

fn detectors() -> impl TypedValueParser<Value = DetectorId> {
    PossibleValuesParser::new(DetectorId::all().map(DetectorId::name)).try_map(|name| {
        DetectorId::all().find(|id| id.name() == name).ok_or_else(|| format!("unknown detector {name}"))
    })
}

fn open_events(folder: &Path) -> Result<FileSource, Failure> {
    let file = only_file(folder, EVENT_FILES)?
        .ok_or_else(|| Failure::Usage(format!("no {} in {}", EVENT_FILES.join(" or "), folder.display())))?;
    FileSource::open(vec![file]).map_err(|error| match error {
        SourceError::Misconfigured(problem) => Failure::Usage(problem),
        other => other.into(),
    })
}

fn read_labels(arguments: &Arguments, folder: &Path) -> Result<Labels, Failure> {
    let file = match &arguments.labels {
        Some(file) => file.clone(),
        None => match only_file(folder, LABEL_FILES)? {
            Some(file) => file,
            None => return Ok(Labels::in_attrs()),
        },
    };
    let unreadable = |error: &dyn std::fmt::Display| format!("cannot read the labels {}: {error}", file.display());
    let input = contents(&file).map_err(|error| Failure::Usage(unreadable(&error)))?;
    Labels::read(BufReader::new(input)).map_err(|error| Failure::Input(unreadable(&error)))
}

/// A report of `--json`, with the name of its file.
fn read_report(file: &Path) -> Result<(String, Report), Failure> {
    let unreadable = |error: &dyn std::fmt::Display| format!("cannot read the results {}: {error}", file.display());
    let bytes = std::fs::read(file).map_err(|error| Failure::Usage(unreadable(&error)))?;
    let report = serde_json::from_slice(&bytes).map_err(|error| Failure::Input(unreadable(&error)))?;
    Ok((file.file_stem().unwrap_or_default().to_string_lossy().into_owned(), report))
}

/// The file in `folder` that has one of `names`, if there is one. Several are an error.
fn only_file(folder: &Path, names: [&str; 3]) -> Result<Option<PathBuf>, Failure> {
    let mut files = names.iter().map(|name| folder.join(name)).filter(|file| file.is_file());
    let first = files.next();
    if files.next().is_some() {
        let problem = format!("{} has more than one of {}; keep one", folder.display(), names.join(", "));
        return Err(Failure::Usage(problem));
    }
    Ok(first)
}

/// Fails if no label matches an event, because every theft would then count as honest use.
fn check_labels(labels: &Labels) -> Result<(), Failure> {
    match (labels.matched(), labels.in_file()) {
        (0, Some(count)) => Err(Failure::Input(format!(
            "none of the {count} labels matches an event; compare the `event_id` of both files"
        ))),
        (0, None) => Err(Failure::Input(format!(
            "no labels: there is no {} beside the events, and no event has an attribute `label` with the value \"theft\" \
             or \"honest\"",
            LABEL_FILES.join(" or ")
        ))),
        (matched, Some(count)) if matched < count => {
            to_stderr(&format!("{} of the {count} labels match no event", count - matched));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The scenarios of `--control`. One that no theft has is only noted, so that one command works for several sets.
fn controls(arguments: &Arguments, labels: &Labels) -> BTreeSet<String> {
    let controls: BTreeSet<String> = arguments.control.iter().cloned().collect();
    for control in &controls {
        if !labels.has_theft(control) {
            to_stderr(&format!("no theft has the scenario {control} of --control"));
        }
    }
    controls
}

/// Replaces the text between the marks of `page` by `tables`.
fn fill(page: &Path, tables: &str, (begin, end): (&str, &str)) -> Result<(), Failure> {
    let wrong = |problem: String| Failure::Usage(format!("{}: {problem}", page.display()));
    let text = std::fs::read_to_string(page).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let parts = text.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let Some((before, after)) = parts else {
        return Err(wrong(format!("has no lines {begin} and {end}")));
    };
    write(page, format!("{before}{begin}\n\n{tables}\n{end}{after}").as_bytes())
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(file, bytes).map_err(|error| Failure::Usage(format!("cannot write {}: {error}", file.display())))
}
