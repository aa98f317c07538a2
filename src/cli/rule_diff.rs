//! `tokenwarden replay --against`: compares the alerts of two rule sets on the same events.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use super::failure::Failure;
use super::reading::all_messages;
use super::setup::load_rules;
use super::terminal::to_stderr;
use crate::config::Config;
use crate::enrich::Enricher;
use crate::feed::Feed;
use crate::lab::rule_diff::{Change, Comparison};
use crate::pipeline::Pipeline;
use crate::sanitize;
use crate::source::file::FileSource;
use crate::token::TokenHasher;

/// Runs the events with both configurations, the old one first, and prints every alert that differs: as text on a
/// terminal, otherwise as JSON objects.
pub(super) fn run(
    mut source: FileSource,
    feed: Feed,
    [old, new]: [&Config; 2],
    hasher: &TokenHasher,
) -> Result<(), Failure> {
    let mut comparison = Comparison::new(pipeline(old, hasher)?, pipeline(new, hasher)?, feed);
    all_messages(&mut source, &mut |messages| comparison.process(messages))?;
    let changes = comparison.changes();
    let is_terminal = std::io::stdout().is_terminal();
    let mut stdout = std::io::stdout().lock();
    for change in &changes {
        let line = if is_terminal { Ok(sanitize::lines(&change.to_line())) } else { serde_json::to_string(change) };
        line.map_err(std::io::Error::other)
            .and_then(|line| writeln!(stdout, "{line}"))
            .map_err(|error| Failure::output("to stdout", &error))?;
    }
    let count = |which: fn(&Change<'_>) -> bool| changes.iter().filter(|change| which(change)).count();
    let [before, after] = comparison.alerts();
    to_stderr(&format!(
        "{} events: {} alerts added, {} removed, {} changed; {before} before, {after} after",
        comparison.events(),
        count(|change| matches!(change, Change::Appears { .. })),
        count(|change| matches!(change, Change::Vanishes { .. })),
        count(|change| matches!(change, Change::Changes { .. })),
    ));
    Ok(())
}

/// The pipeline of a configuration.
fn pipeline(config: &Config, hasher: &TokenHasher) -> Result<Pipeline, Failure> {
    let rules = load_rules(config)?;
    if let Some(note) = rules.missing_note() {
        to_stderr(&sanitize::lines(&format!("{}: {note}", config.rules_origin())));
    }
    let enricher = Enricher::new(&config.geoip).trust_event_geo(config.detection.trust_event_geo);
    Ok(Pipeline::new(enricher, Arc::new(rules.rules), hasher.clone(), config.engine_settings()))
}
