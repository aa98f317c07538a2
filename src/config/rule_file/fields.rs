//! Reads the keys of TOML tables one by one, and notes every mistake with its line instead of stopping at the first.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::sanitize;

/// One mistake in a rule file, with where it stands and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {message}", .file.display(), line_text(*.line))]
pub struct RuleFileError {
    pub file: PathBuf,
    /// From 1; 0 where the mistake is the file's as a whole.
    pub line: usize,
    pub message: String,
}

fn line_text(line: usize) -> String {
    if line == 0 { String::new() } else { format!(":{line}") }
}

/// The mistakes found so far in one file.
pub(super) struct Report<'t> {
    file: &'t Path,
    line_starts: Vec<usize>,
    errors: Vec<RuleFileError>,
}

impl<'t> Report<'t> {
    pub fn new(file: &'t Path, text: &[u8]) -> Self {
        let after_newline = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        Self { file, line_starts: std::iter::once(0).chain(after_newline).collect(), errors: Vec::new() }
    }

    /// Line, from 1, of a byte offset.
    pub fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    pub fn add(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.add_at_line(self.line(span.start), message);
    }

    /// `line` from 1; 0 speaks of the whole file.
    pub fn add_at_line(&mut self, line: usize, message: impl Into<String>) {
        self.errors.push(RuleFileError { file: self.file.to_owned(), line, message: message.into() });
    }

    pub const fn len(&self) -> usize {
        self.errors.len()
    }

    pub const fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// The mistakes in the order of their lines.
    pub fn into_errors(mut self) -> Vec<RuleFileError> {
        self.errors.sort_by_key(|error| error.line);
        self.errors
    }
}

/// A table whose keys are read by name. A missing or wrongly typed key is reported and reads as `None`.
#[derive(Clone)]
pub(super) struct Fields<'a, 'i> {
    table: &'a DeTable<'i>,
    span: Range<usize>,
    /// What the table is called in messages: `the rule`, `a case`.
    what: &'static str,
}

impl<'a, 'i> Fields<'a, 'i> {
    /// Takes the table and reports each key that is not in `known`, with the nearest one that is.
    pub fn new(
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
    pub fn of_value(
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

    pub const fn span(&self) -> &Range<usize> {
        &self.span
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a Spanned<DeValue<'i>>)> + use<'a, 'i> {
        self.table.iter().map(|(key, value)| (key.get_ref().as_ref(), value))
    }

    pub fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.table.get(key)
    }

    pub fn text(&self, key: &str, report: &mut Report<'_>) -> Option<&'a str> {
        let value = self.value(key)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            wrong_type(key, value, "a string", report);
        }
        text
    }

    /// A string that must be there and say something.
    pub fn required_text(&self, key: &str, report: &mut Report<'_>) -> Option<&'a str> {
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

    /// A string out of a fixed set, or `None` where the key is absent.
    pub fn one_of<T>(
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
            let message = format!("`{key}` is {}, must be one of {}{near}", quoted(text), names.join(", "));
            report.add(&self.span_of(key), message);
        }
        parsed
    }

    /// A finite number, integer or float, within `min..=max`.
    pub fn number(&self, key: &str, min: f64, max: f64, report: &mut Report<'_>) -> Option<f64> {
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
    pub fn whole_number(&self, key: &str, min: u32, max: u32, report: &mut Report<'_>) -> Option<u32> {
        let number = self.number(key, f64::from(min), f64::from(max), report)?;
        if number.fract() != 0.0 {
            report.add(&self.span_of(key), format!("`{key}` must be a whole number"));
            return None;
        }
        Some(number as u32)
    }

    /// An array, empty where the key is absent.
    pub fn array(&self, key: &str, report: &mut Report<'_>) -> &'a [Spanned<DeValue<'i>>] {
        let Some(value) = self.value(key) else { return &[] };
        let array = value.get_ref().as_array();
        if array.is_none() {
            wrong_type(key, value, "an array", report);
        }
        array.map_or(&[], |array| array)
    }

    /// Strings of an array, none of them empty; empty where the key is absent.
    pub fn texts(&self, key: &str, report: &mut Report<'_>) -> Vec<String> {
        let mut texts = Vec::new();
        for item in self.array(key, report) {
            match item.get_ref().as_str() {
                Some(text) if !text.trim().is_empty() => texts.push(text.to_owned()),
                Some(_) => report.add(&item.span(), format!("`{key}` holds an empty string")),
                None => wrong_type(key, item, "an array of strings", report),
            }
        }
        texts
    }

    pub fn span_of(&self, key: &str) -> Range<usize> {
        self.value(key).map_or_else(|| self.span.clone(), Spanned::span)
    }
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

/// Text from the file, fit for a terminal, long ones cut.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let shown: String = text.chars().take(SHOWN_MAX).map(sanitize::shown).collect();
    let more = if text.chars().nth(SHOWN_MAX).is_some() { "…" } else { "" };
    format!("`{shown}{more}`")
}

/// `; did you mean …?`, or the known names where none is near.
pub(super) fn did_you_mean(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("; did you mean `{near}`?"),
        None if known.is_empty() => "; it takes none".to_owned(),
        None => format!("; it may have {}", known.join(", ")),
    }
}

/// The known name that `name` was most likely meant to be. Jaro-Winkler above .8 forgives a missing ending or a few
/// letters; in names of three or four letters it misses the plain swap of two, which the edit distance sees. Below that
/// a suggestion misleads more than it helps.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    const SIMILARITY_MIN: f64 = 0.8;
    // Both measures take time in the product of the lengths, and no name of ours is this long.
    const LENGTH_MAX: usize = 100;
    if name.len() > LENGTH_MAX {
        return None;
    }
    let one_slip = |known: &str| name.len() > 2 && strsim::damerau_levenshtein(name, known) == 1;
    known
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), *known))
        .filter(|(similarity, known)| *similarity >= SIMILARITY_MIN || one_slip(known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}
