//! `tokenwarden sql`: a read-only query of the store, with the result as a table, JSON or CSV.

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::failure::Failure;
use super::record::chosen_store;
use crate::port::StoreError;
use crate::sanitize;
use crate::store::{Reader, StoreSettings, names_format};

/// Run a read-only SQL query in the store.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Store to query, instead of the configured one: embedded:DIR, or the URL of a ClickHouse server.
    #[arg(long, value_name = "embedded:DIR|URL")]
    store: Option<String>,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// The query, for example "SELECT * FROM incidents_latest". docs/analyst.md lists tables and views.
    #[arg(value_name = "SELECT …")]
    query: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Aligned columns, at most 1,000 rows.
    Table,
    /// One JSON object per line.
    Json,
    /// CSV with a header line.
    Csv,
}

impl Output {
    const fn format(self) -> &'static str {
        match self {
            Self::Table => "PrettyCompactMonoBlock",
            Self::Json => "JSONEachRow",
            Self::Csv => "CSVWithNames",
        }
    }
}

/// ClickHouse settings for tables: no colours, no row numbers, no remarks beside numbers.
const TABLE_OPTIONS: [(&str, &str); 4] = [
    ("output_format_pretty_color", "0"),
    ("output_format_pretty_row_numbers", "0"),
    ("output_format_pretty_single_large_number_tip_threshold", "0"),
    ("output_format_pretty_max_rows", "1000"),
];

/// Runs the query and prints the result to stdout.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let settings = chosen_store(arguments.config.as_deref(), arguments.store.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Unavailable(format!("cannot start: {error}")))?;
    runtime.block_on(answer(&settings, &arguments.query, arguments.output, &mut std::io::stdout().lock()))
}

/// Runs `query` in the store of `settings` and streams the result to `to`.
pub(crate) async fn answer(
    settings: &StoreSettings,
    query: &str,
    output: Output,
    to: &mut (impl Write + ?Sized),
) -> Result<(), Failure> {
    let reader = Reader::open(settings).await.map_err(|error| failure(&error, Failure::Configuration))?;
    let options: &[_] = if output == Output::Table { &TABLE_OPTIONS } else { &[] };
    let mut answer = match reader.query(query, output.format(), options).await {
        Ok(answer) => answer,
        Err(error) => {
            reader.close().await;
            return Err(failure(&error, Failure::Usage));
        }
    };
    // Only output for a terminal is sanitized. Programs get the bytes unchanged.
    let shown = std::io::stdout().is_terminal() || (output == Output::Table && !names_format(query));
    let mut screen = Screen::default();
    let mut printed = Ok(());
    while printed.is_ok() {
        printed = match answer.next().await {
            Ok(Some(bytes)) if shown => to.write_all(screen.show(&bytes).as_bytes()).map_err(|e| output_failed(&e)),
            Ok(Some(bytes)) => to.write_all(&bytes).map_err(|e| output_failed(&e)),
            Ok(None) => break,
            Err(error) => Err(failure(&error, Failure::Usage)),
        };
    }
    drop(answer);
    reader.close().await;
    printed.and_then(|()| to.flush().map_err(|error| output_failed(&error)))
}

pub(super) fn failure(error: &StoreError, permanent: impl FnOnce(String) -> Failure) -> Failure {
    match error {
        StoreError::Retriable(_) => Failure::Unavailable(error.to_string()),
        _ => permanent(error.to_string()),
    }
}

fn output_failed(error: &std::io::Error) -> Failure {
    Failure::output("the result", error)
}

/// Replaces control characters in a stream of bytes.
///
/// Each one is replaced by a character of the same width, so that columns stay aligned.
#[derive(Default)]
struct Screen {
    /// First bytes of a character that continues in the next piece.
    pending: Vec<u8>,
}

impl Screen {
    fn show(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let whole = self.pending.len() - cut_off(&self.pending);
        let rest = self.pending.split_off(whole);
        let text = sanitize::lines(&String::from_utf8_lossy(&self.pending));
        self.pending = rest;
        text
    }
}

/// Number of bytes at the end that belong to an incomplete UTF-8 character.
fn cut_off(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    let tail = bytes.get(tail..).unwrap_or_default();
    tail.iter().rposition(|byte| *byte >= 0xc0).map_or(0, |start| {
        let length = match tail.get(start) {
            Some(0xf0..) => 4,
            Some(0xe0..) => 3,
            _ => 2,
        };
        let present = tail.len() - start;
        if present < length { present } else { 0 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screen_replaces_control_characters() {
        let shown = Screen::default().show("a\u{1b}[2J\rb\tc\u{7f}\u{9b}31m\u{202e}x\u{0}é\n".as_bytes());
        assert_eq!(shown, "a␛[2J␍b␉c␡\u{fffd}31m\u{fffd}x␀é\n");
    }

    #[test]
    fn screen_joins_characters_cut_in_two() {
        let text = "aé€😀z";
        for cut in 0..=text.len() {
            let mut screen = Screen::default();
            let (first, second) = text.as_bytes().split_at(cut);
            assert_eq!(screen.show(first) + &screen.show(second), text, "cut at {cut}");
        }
    }
}
