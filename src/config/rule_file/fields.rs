//! Reads the keys of TOML tables one by one, and collects all errors with their lines instead of stopping at the first.

use std::ops::Range;
use std::path::{Path, PathBuf};

use jiff::Timestamp as Instant;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::event::Timestamp;
use crate::sanitize;

/// An error in a rule file: its place, the problem and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {message}", .file.display(), line_text(*.line))]
pub struct RuleFileError {
    pub file: PathBuf,
    /// Line number from 1. 0 if the error concerns the whole file.
    pub line: usize,
    pub message: String,
}

fn line_text(line: usize) -> String {
    if line == 0 { String::new() } else { format!(":{line}") }
}

/// The errors found so far in one file.
pub(super) struct Report<'t> {
    file: &'t Path,
    line_starts: Vec<usize>,
    errors: Vec<RuleFileError>,
}

impl<'t> Report<'t> {
    pub(crate) fn new(file: &'t Path, text: &[u8]) -> Self {
        let after_newline = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        Self { file, line_starts: std::iter::once(0).chain(after_newline).collect(), errors: Vec::new() }
    }

    /// Line number, from 1, of a byte offset.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    pub(crate) fn add(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.add_at_line(self.line(span.start), message);
    }

    /// `line` counts from 1. 0 means the whole file.
    pub(crate) fn add_at_line(&mut self, line: usize, message: impl Into<String>) {
        self.errors.push(RuleFileError { file: self.file.to_owned(), line, message: message.into() });
    }

    pub(crate) const fn len(&self) -> usize {
        self.errors.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// The errors, ordered by line.
    pub(crate) fn into_errors(mut self) -> Vec<RuleFileError> {
        self.errors.sort_by_key(|error| error.line);
        self.errors
    }
}

/// A table whose keys are read by name. A required key that is missing, or a value of a wrong type, is reported and gives
/// `None`.
#[derive(Clone)]
pub(super) struct Fields<'a, 'i> {
    table: &'a DeTable<'i>,
    span: Range<usize>,
    /// Name of the table in messages: `the rule`, `a case`.
    what: &'static str,
}

impl<'a, 'i> Fields<'a, 'i> {
    /// Reports each key of the table that is not in `known`, with the most similar known key.
    pub(crate) fn new(
        table: &'a DeTable<'i>,
        span: Range<usize>,
        what: &'static str,
        known: &[&str],
        report: &mut Report<'_>,
    ) -> Self {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let message = format!("{what} has no key {}{}", quoted(name), did_you_mean(name, known));
                report.add(&key.span(), message);
            }
        }
        Self { table, span, what }
    }

    /// As [`Self::new`], for a value that must be a table.
    pub(crate) fn of_value(
        value: &'a Spanned<DeValue<'i>>,
        what: &'static str,
        known: &[&str],
        report: &mut Report<'_>,
    ) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(Self::new(table, value.span(), what, known, report)),
            other => {
                report.add(&value.span(), format!("{what} must be a table, not {}", type_name(other)));
                None
            }
        }
    }

    pub(crate) const fn span(&self) -> &Range<usize> {
        &self.span
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a str, &'a Spanned<DeValue<'i>>)> + use<'a, 'i> {
        self.table.iter().map(|(key, value)| (key.get_ref().as_ref(), value))
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.table.get(key)
    }

    pub(crate) fn text(&self, key: &str, report: &mut Report<'_>) -> Option<&'a str> {
        let value = self.value(key)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            wrong_type(key, value, "a string", report);
        }
        text
    }

    /// A string that must be present and not blank.
    pub(crate) fn required_text(&self, key: &str, report: &mut Report<'_>) -> Option<&'a str> {
        if self.value(key).is_none() {
            report.add(&self.span, format!("{} lacks the key `{key}`", self.what));
        }
        let text = self.text(key, report)?;
        if text.trim().is_empty() {
            report.add(&self.span_of(key), format!("`{key}` is empty"));
            return None;
        }
        Some(text)
    }

    /// A string of a fixed set. `None` if the key is absent.
    pub(crate) fn one_of<T>(
        &self,
        key: &str,
        names: &[&str],
        parse: impl Fn(&str) -> Option<T>,
        report: &mut Report<'_>,
    ) -> Option<T> {
        let text = self.text(key, report)?;
        let parsed = parse(text);
        if parsed.is_none() {
            let near = nearest(text, names).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
            let message = format!("`{key}` is {}, but must be one of {}{near}", quoted(text), names.join(", "));
            report.add(&self.span_of(key), message);
        }
        parsed
    }

    /// A finite number, integer or float, within `min..=max`.
    pub(crate) fn number(&self, key: &str, min: f64, max: f64, report: &mut Report<'_>) -> Option<f64> {
        let value = self.value(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|i| i as f64),
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            _ => {
                wrong_type(key, value, "a number", report);
                return None;
            }
        };
        let within = number.filter(|number| (min..=max).contains(number));
        if within.is_none() {
            report.add(&value.span(), format!("`{key}` must be between {min} and {max}"));
        }
        within
    }

    /// A whole number within `min..=max`.
    pub(crate) fn whole_number(&self, key: &str, min: u32, max: u32, report: &mut Report<'_>) -> Option<u32> {
        let number = self.number(key, f64::from(min), f64::from(max), report)?;
        if number.fract() != 0.0 {
            report.add(&self.span_of(key), format!("`{key}` must be a whole number"));
            return None;
        }
        Some(number as u32)
    }

    /// An array. Empty if the key is absent.
    pub(crate) fn array(&self, key: &str, report: &mut Report<'_>) -> &'a [Spanned<DeValue<'i>>] {
        let Some(value) = self.value(key) else { return &[] };
        let array = value.get_ref().as_array();
        if array.is_none() {
            wrong_type(key, value, "an array", report);
        }
        array.map_or(&[], |array| array)
    }

    /// The strings of an array. Blank strings are reported. Empty if the key is absent.
    pub(crate) fn texts(&self, key: &str, report: &mut Report<'_>) -> Vec<String> {
        let mut texts = Vec::new();
        for item in self.array(key, report) {
            match item.get_ref().as_str() {
                Some(text) if !text.trim().is_empty() => texts.push(text.to_owned()),
                Some(_) => report.add(&item.span(), format!("`{key}` contains an empty string")),
                None => wrong_type(key, item, "an array of strings", report),
            }
        }
        texts
    }

    pub(crate) fn span_of(&self, key: &str) -> Range<usize> {
        self.value(key).map_or_else(|| self.span.clone(), Spanned::span)
    }
}

/// A TOML time with its offset, an RFC 3339 string, or milliseconds since the epoch.
pub(super) fn read_time(value: &Spanned<DeValue<'_>>, key: &str, report: &mut Report<'_>) -> Option<i64> {
    let millis = match value.get_ref() {
        DeValue::Datetime(time) => time.to_string().parse::<Instant>().ok().map(Instant::as_millisecond),
        DeValue::String(text) => text.parse::<Instant>().ok().map(Instant::as_millisecond),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok(),
        _ => None,
    };
    let within = millis.and_then(Timestamp::from_millis).map(Timestamp::millis);
    if within.is_none() {
        let message =
            format!("`{key}` must be a time with UTC offset, such as 2026-03-02T08:00:00Z, in the years 1970 to 2199");
        report.add(&value.span(), message);
    }
    within
}

fn wrong_type(key: &str, value: &Spanned<DeValue<'_>>, wanted: &str, report: &mut Report<'_>) {
    report.add(&value.span(), format!("`{key}` must be {wanted}, not {}", type_name(value.get_ref())));
}

pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Text from the file in backquotes, with control characters replaced, and cut after 60 characters.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let shown: String = text.chars().take(SHOWN_MAX).map(sanitize::shown).collect();
    let more = if text.chars().nth(SHOWN_MAX).is_some() { "…" } else { "" };
    format!("`{shown}{more}`")
}

/// `; did you mean …?`, or the list of known names if none is similar.
pub(super) fn did_you_mean(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("; did you mean `{near}`?"),
        None if known.is_empty() => "; no keys are allowed here".to_owned(),
        None => format!("; expected one of {}", known.join(", ")),
    }
}

/// The most similar known name, if one is similar enough. A Jaro-Winkler similarity of 0.8 allows for a missing ending or
/// a few wrong letters. In short names it misses two swapped letters, so an edit distance of 1 is accepted as well.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    const SIMILARITY_MIN: f64 = 0.8;
    // The time of both measures grows with the product of the lengths. All known names are shorter.
    const LENGTH_MAX: usize = 100;
    if name.len() > LENGTH_MAX {
        return None;
    }
    let one_edit = |known: &str| name.len() > 2 && strsim::damerau_levenshtein(name, known) == 1;
    known
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), *known))
        .filter(|(similarity, known)| *similarity >= SIMILARITY_MIN || one_edit(known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}
