//! `tokenwarden state`: describes the snapshots of the memory.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::failure::Failure;
use crate::config::Config;
use crate::engine::STATE_FORMAT;
use crate::number::grouped;
use crate::port::{Clock as _, NamedSnapshots, SnapshotError, StoredSnapshot};
use crate::sanitize;
use crate::snapshot::{Marker, Reached};
use crate::source::kafka::{StateTopic, StateTopicUse};
use crate::state_dir;
use crate::telemetry::SystemClock;

/// Show the snapshots of the memory.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print size, age and positions of each snapshot. Changes nothing.
    Show(Options),
}

#[derive(Debug, Args)]
struct Options {
    /// Configuration file (TOML), for the place of the snapshots.
    #[arg(long, value_name = "FILE", required_unless_present = "dir")]
    config: Option<PathBuf>,
    /// Folder of the snapshots, instead of the configured one.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints a paragraph for each snapshot. Fails if one of them cannot be used by this build.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Command::Show(Options { config, dir }) = &arguments.command;
    let listed = match dir {
        Some(dir) => in_folder(dir)?,
        None => configured(&Config::load(config.as_deref())?)?,
    };
    if listed.is_empty() {
        return Err(Failure::Unavailable("there is no snapshot yet".to_owned()));
    }
    let now = SystemClock.now_millis();
    let mut text = String::new();
    let mut unusable = 0;
    for (name, found) in &listed {
        let (lines, is_usable) = describe(name, found, now);
        text += &lines;
        unusable += usize::from(!is_usable);
    }
    write!(std::io::stdout(), "{text}").map_err(|error| Failure::output("to stdout", &error))?;
    match unusable {
        0 => Ok(()),
        count => Err(Failure::Unavailable(format!("{count} of {} snapshots cannot be used", listed.len()))),
    }
}

fn in_folder(dir: &Path) -> Result<NamedSnapshots, Failure> {
    state_dir::list(dir)
        .map_err(|error| Failure::Unavailable(format!("cannot read the snapshots in {}: {error}", dir.display())))
}

/// The snapshots where the configuration stores them.
fn configured(config: &Config) -> Result<NamedSnapshots, Failure> {
    if let Some(kafka) = config.source.kafka.as_ref().filter(|kafka| kafka.state_topic != StateTopicUse::Never) {
        return Ok(StateTopic::existing(kafka)?.list(kafka)?);
    }
    let missing = "no snapshots are configured; set snapshots.dir or source.kafka.state_topic, or use --dir";
    in_folder(config.snapshots.dir.as_deref().ok_or_else(|| Failure::Configuration(missing.to_owned()))?)
}

/// Lines about one snapshot, and whether this build can use it.
fn describe(name: &str, found: &Result<StoredSnapshot, SnapshotError>, now: i64) -> (String, bool) {
    let name = sanitize::line(name);
    let (marker, bytes) = match found {
        Ok(StoredSnapshot { marker, bytes, .. }) => (marker, *bytes),
        Err(error) => return (format!("{name}: {}\n", sanitize::line(&error.to_string())), false),
    };
    let Marker { build, written_at, extent, baselines, next, bookmarks, .. } = marker;
    let readable = marker.check_format(STATE_FORMAT);
    let mut text = format!(
        "{name}: {} baselines, {} bytes ({} uncompressed, {} records), written {} s ago by version {}",
        grouped(*baselines),
        grouped(bytes),
        grouped(extent.bytes),
        grouped(extent.records.into()),
        grouped(u64::try_from((now - written_at) / 1_000).unwrap_or(0)),
        sanitize::line(build),
    );
    if let Err(reason) = &readable {
        let _ = write!(text, "; {reason}");
    }
    text.push('\n');
    for Reached { topic, partition, next, .. } in next {
        let _ = writeln!(text, "  {} {partition}: next offset {}", sanitize::line(topic), grouped(*next as u64));
    }
    for bookmark in bookmarks {
        let next = grouped(bookmark.next as u64);
        let _ = writeln!(text, "  {}: next record {next}", sanitize::line(&bookmark.path));
    }
    (text, readable.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Bookmark, FirstRecord};
    use crate::port::SnapshotReader;
    use crate::snapshot::Extent;

    struct NoRecords;

    impl SnapshotReader for NoRecords {
        fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
            Ok(None)
        }
    }

    fn stored(format: u32) -> StoredSnapshot {
        let marker = Marker {
            format,
            build: "1.2.3".to_owned(),
            written_at: 1_000_000,
            extent: Extent { records: 9, bytes: 4_500_000, digest: 1 },
            next: vec![Reached { topic: "token-events".to_owned(), partition: 3, next: 70_000, ..Reached::default() }],
            bookmarks: vec![Bookmark {
                path: "logs/a\u{1b}[2J.ndjson".to_owned(),
                next: 1_234,
                first: FirstRecord { number: 0, hash: 1 },
            }],
            baselines: 5_000,
            ..Marker::default()
        };
        StoredSnapshot { marker, bytes: 1_200_000, records: Box::new(NoRecords) }
    }

    #[test]
    fn snapshot_is_described_by_size_age_and_positions() {
        let (text, is_usable) = describe("events", &Ok(stored(STATE_FORMAT)), 1_061_500);
        assert!(is_usable);
        insta::assert_snapshot!(text, @r"
        events: 5,000 baselines, 1,200,000 bytes (4,500,000 uncompressed, 9 records), written 61 s ago by version 1.2.3
          token-events 3: next offset 70,000
          logs/a␛[2J.ndjson: next record 1,234
        ");
    }

    #[test]
    fn unusable_snapshot_is_described_with_the_reason() {
        let (text, is_usable) = describe("events", &Ok(stored(99)), 1_061_500);
        assert!(!is_usable && text.contains("; the snapshot has format 99, and this build reads format "), "{text}");
        let unreadable = Err(SnapshotError::Unreadable("state/events.state is damaged".to_owned()));
        assert_eq!(describe("events", &unreadable, 0), ("events: state/events.state is damaged\n".to_owned(), false));
    }
}
