//! `tokenwarden sql`: a question to the store, embedded or a server, answered as a table, JSON or CSV.

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Failure;
use crate::config::Config;
use crate::port::StoreError;
use crate::sanitize;
use crate::store::{Reader, StoreSettings, names_format};

/// Ask the store a question in SQL. Nothing can be changed by it.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The store to ask, instead of the configured one: embedded:DIR, or the URL of a ClickHouse server.
    #[arg(long, value_name = "embedded:DIR|URL")]
    store: Option<String>,
    /// How to show the answer.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// The query, for example "SELECT * FROM incidents_latest". The tables and views: docs/analyst.md.
    #[arg(value_name = "SELECT …")]
    query: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people: columns in line, at most 1,000 rows.
    Table,
    /// One object a line.
    Json,
    /// With a line of names first.
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

/// ClickHouse's settings for a table that is read as text: no colours, no row numbers, no remarks beside numbers.
const TABLE_OPTIONS: [(&str, &str); 4] = [
    ("output_format_pretty_color", "0"),
    ("output_format_pretty_row_numbers", "0"),
    ("output_format_pretty_single_large_number_tip_threshold", "0"),
    ("output_format_pretty_max_rows", "1000"),
];

/// Runs the query and prints the answer to stdout.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut settings = Config::load(arguments.config.as_deref())?.store;
    if let Some(url) = &arguments.store {
        settings.url.clone_from(url);
        settings.check_url().map_err(|problem| Failure::Usage(format!("--store {problem}")))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Unavailable(format!("cannot start: {error}")))?;
    runtime.block_on(answer(&settings, &arguments.query, arguments.output, &mut std::io::stdout().lock()))
}

/// Asks the store of `settings` and writes the answer to `to` as it comes.
pub async fn answer(
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
    // What a program reads is left as it is; what people read is made safe to show.
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
    Failure::output("the answer", error)
}

/// Turns an answer into text that cannot steer a terminal, piece by piece.
///
/// Each unsafe character is replaced by one as wide, so that tables stay in line.
#[derive(Default)]
struct Screen {
    /// The first bytes of a character that the last piece ended in.
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

/// How many bytes at the end begin a character that is not complete.
fn cut_off(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    let tail = bytes.get(tail..).unwrap_or_default();
    tail.iter().rposition(|byte| *byte >= 0xc0).map_or(0, |start| {
        let length = match tail.get(start) {
            Some(0xf0..) => 4,
            Some(0xe0..) => 3,
            _ => 2,
        };
        let there = tail.len() - start;
        if there < length { there } else { 0 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        let shown = Screen::default().show("a\u{1b}[2J\rb\tc\u{7f}\u{9b}31m\u{202e}x\u{0}é\n".as_bytes());
        assert_eq!(shown, "a␛[2J␍b␉c␡\u{fffd}31m\u{fffd}x␀é\n");
    }

    #[test]
    fn a_character_may_come_in_pieces() {
        let text = "aé€😀z";
        for cut in 0..=text.len() {
            let mut screen = Screen::default();
            let (first, second) = text.as_bytes().split_at(cut);
            assert_eq!(screen.show(first) + &screen.show(second), text, "cut at {cut}");
        }
    }
}
