//! The configuration as a tree of values that remember where they came from, so that every mistake can be told with
//! its file and line, or its environment variable.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::secret_file;

/// Environment variables that override configuration begin so: `TOKENWARDEN__STORE__URL` sets `url` of `[store]`.
const PREFIX: &str = "TOKENWARDEN__";

/// Keys that hold secrets: each may be given as `KEY_file`, and its value is never repeated in a message.
const SECRETS: [&str; 5] = ["password", "secret", "client_secret", "token", "token_key"];

/// A table whose keys are librdkafka's: all of them may be secrets, and their dots are underscores in the environment.
const PROPERTIES: &str = "properties";

/// A mistake in the configuration: where, what, and how to put it right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// `tokenwarden.toml:12`, or `environment variable TOKENWARDEN__STORE__URL`.
    pub place: String,
    /// One sentence; holds no secret.
    pub problem: String,
}

impl ConfigError {
    pub(super) fn new(place: impl fmt::Display, problem: impl Into<String>) -> Self {
        Self { place: place.to_string(), problem: problem.into() }
    }
}

/// Where a value came from.
#[derive(Clone, Debug)]
enum Origin {
    Line(usize),
    Environment(String),
}

/// Where each value came from, by its path, which is written `alert.email.to[1]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    origins: HashMap<String, Origin>,
    file: PathBuf,
}

/// Values by key, each with its place.
pub(super) struct Tree {
    root: Table,
    places: Places,
    /// Other readings of a value from the environment, which has no types of its own: tried in turn.
    readings: BTreeMap<String, Vec<Value>>,
}

impl Places {
    /// Where the value at `path`, or the nearest section around it, was given.
    pub(super) fn of(&self, path: &str) -> String {
        let mut path = path;
        loop {
            match self.origins.get(path) {
                Some(Origin::Line(line)) => return format!("{}:{line}", self.file.display()),
                Some(origin) => return origin.to_string(),
                None => match path.rfind(['.', '[']) {
                    Some(end) => path = &path[..end],
                    None => return self.file.display().to_string(),
                },
            }
        }
    }
}

impl Tree {
    /// Reads TOML; `file` is named in messages.
    pub(super) fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let line_of = |offset: usize| text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1;
        let place = |error: &toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(span.start));
            ConfigError::new(format_args!("{}:{line}", file.display()), error.message().replace('\n', ", "))
        };
        let spans = DeTable::parse(text).map_err(|error| place(&error))?;
        let root: Table = toml::from_str(text).map_err(|error| place(&error))?;
        let mut origins = HashMap::new();
        note_lines(spans.get_ref(), "", &line_of, &mut origins);
        Ok(Self { root, places: Places { origins, file: file.to_owned() }, readings: BTreeMap::new() })
    }

    /// Sets every value that `environment` gives over the one in the file.
    pub(super) fn override_from(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        let mut given: Vec<_> = environment.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        given.sort();
        for (name, text) in given {
            let keys = keys_of(&name);
            let path = keys.join(".");
            if keys.iter().any(String::is_empty) {
                return Err(ConfigError::new(
                    Origin::Environment(name),
                    "names no key: write TOKENWARDEN__SECTION__KEY",
                ));
            }
            let mut table = &mut self.root;
            let mut walked = String::new();
            let (last, sections) = keys.split_last().unwrap_or((&path, &[]));
            for section in sections {
                join(&mut walked, section);
                self.places.origins.entry(walked.clone()).or_insert_with(|| Origin::Environment(name.clone()));
                let entry = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
                let Value::Table(inner) = entry else {
                    return Err(ConfigError::new(Origin::Environment(name), format!("`{walked}` is not a section")));
                };
                table = inner;
            }
            // The environment's form of a secret replaces the file's, whichever of the two forms each has.
            match last.strip_suffix("_file") {
                Some(plain) => table.remove(plain),
                None => table.remove(&format!("{last}_file")),
            };
            let mut readings = readings(&text);
            table.insert(last.clone(), readings.remove(0));
            self.readings.insert(path.clone(), readings);
            self.places.origins.insert(path, Origin::Environment(name));
        }
        Ok(())
    }

    /// Takes relative paths in the file at `path`, a text or an array of texts, as relative to the file.
    pub(super) fn resolve(&mut self, path: &str, relative: impl Fn(&str) -> Option<String>) {
        if !matches!(self.places.origins.get(path), Some(Origin::Line(_))) {
            return;
        }
        match self.get_mut(path) {
            Some(Value::String(text)) => *text = relative(text).unwrap_or_else(|| text.clone()),
            Some(Value::Array(items)) => {
                for item in items {
                    if let Value::String(text) = item {
                        *text = relative(text).unwrap_or_else(|| text.clone());
                    }
                }
            }
            _ => {}
        }
    }

    /// Puts the contents of every `KEY_file` that holds a secret at `KEY`. `base`: what relative names in the
    /// configuration file are relative to.
    pub(super) fn read_secrets(&mut self, base: &Path) -> Result<(), ConfigError> {
        let mut found = Vec::new();
        find_secret_files(&self.root, "", false, &mut found);
        for (section, file_key) in found {
            let section_path = section.join(".");
            let mut path = section_path.clone();
            join(&mut path, &file_key);
            let origin = self.places.origins.get(&path).cloned();
            let fail = |problem: String| Err(ConfigError::new(self.places.of(&path), problem));
            let Some(table) = section.iter().try_fold(&self.root, |table, key| table.get(key)?.as_table()) else {
                continue;
            };
            let Some(Value::String(name)) = table.get(&file_key) else {
                return fail(format!("`{path}` must be the name of a file"));
            };
            let key = file_key.trim_end_matches("_file").to_owned();
            if table.contains_key(&key) {
                return fail(format!("both `{key}` and `{file_key}` are given; keep one"));
            }
            let name = if matches!(origin, Some(Origin::Line(_))) { base.join(name) } else { PathBuf::from(name) };
            let contents = match secret_file::read(&name) {
                Ok(contents) => contents,
                Err(error) => return fail(format!("cannot read `{file_key}` {}: {error}", name.display())),
            };
            let Ok(text) = String::from_utf8(contents) else {
                return fail(format!("`{file_key}` {} is not UTF-8 text", name.display()));
            };
            let secret = text.trim_end_matches(['\r', '\n']).to_owned();
            if secret.is_empty() {
                return fail(format!("`{file_key}` {} is empty", name.display()));
            }
            if let Some(table) = self.table_mut(&section) {
                table.remove(&file_key);
                table.insert(key.clone(), Value::String(secret));
            }
            let mut secret_path = section_path;
            join(&mut secret_path, &key);
            if let Some(origin) = origin {
                self.places.origins.insert(secret_path, origin);
            }
        }
        Ok(())
    }

    /// The path of the first secret that stands in the file itself. Properties of librdkafka count if their name says so.
    pub(super) fn secret_in_file(&mut self) -> Option<String> {
        let origins = self.places.origins.iter().filter(|(_, origin)| matches!(origin, Origin::Line(_)));
        let mut paths: Vec<String> = origins.map(|(path, _)| path.clone()).filter(|path| names_secret(path)).collect();
        paths.sort();
        // A variable of the environment may have taken the value away.
        paths.into_iter().find(|path| self.get_mut(path).is_some_and(|value| value.is_str()))
    }

    /// Where its values came from, for mistakes that only those who use them can see.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// The tree as `T`, or the first mistake in it.
    pub(super) fn deserialize<T: DeserializeOwned>(&mut self) -> Result<T, ConfigError> {
        let mut first: Option<(String, ConfigError)> = None;
        loop {
            let error = match serde_path_to_error::deserialize(Value::Table(self.root.clone())) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let path = error.path().to_string();
            // Where no reading of a variable fits, the mistake is told of its first one, the text as it was written.
            let told = match first {
                Some((seen, told)) if path.starts_with(&seen) => told,
                _ => self.explain(&path, error.inner().message()),
            };
            if !self.read_otherwise(&path) {
                return Err(told);
            }
            first = Some((path, told));
        }
    }

    /// Takes the next reading of the environment's value at `path` or of what holds it; whether there was one.
    fn read_otherwise(&mut self, path: &str) -> bool {
        let mut path = path;
        loop {
            if let Some(rest) = self.readings.get_mut(path) {
                if rest.is_empty() {
                    return false;
                }
                let next = rest.remove(0);
                if let Some(value) = self.get_mut(path) {
                    *value = next;
                }
                return true;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return false,
            }
        }
    }

    fn explain(&self, path: &str, message: &str) -> ConfigError {
        let key = path.rsplit('.').next().unwrap_or(path);
        if let Some((unknown, known)) = unknown_and_known(message) {
            let what = if message.starts_with("unknown field") { "key" } else { "value" };
            // For an unknown key the path may name the section or the key itself, as the deserialiser saw it.
            let full = match what {
                "key" if key != unknown && !path.is_empty() && path != "." => format!("{path}.{unknown}"),
                "key" => path.trim_start_matches('.').to_owned(),
                _ => path.to_owned(),
            };
            let full = if full.is_empty() { unknown.clone() } else { full };
            let shown = if what == "key" { full.clone() } else { unknown.clone() };
            // Every secret has a second key, which the settings' types do not know.
            let files: Vec<_> =
                known.iter().filter(|key| SECRETS.contains(&key.as_str())).map(|key| format!("{key}_file")).collect();
            let known = if unknown.ends_with("_file") { [files, known].concat() } else { known };
            let hint = match nearest(&unknown, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            let of = if what == "key" { String::new() } else { format!(" of `{path}`") };
            return ConfigError::new(self.places.of(&full), format!("unknown {what} `{shown}`{of}; {hint}"));
        }
        if let Some(missing) = message.strip_prefix("missing field ") {
            let section = if path == "." { "the file".to_owned() } else { format!("[{path}]") };
            return ConfigError::new(self.places.of(path), format!("{section} needs {missing}"));
        }
        // serde repeats the value that it found; a secret of the wrong type must not be shown.
        let problem = match message.split_once(", expected ") {
            Some((found, expected)) => {
                let found = found.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
                let found = if is_secret(path) { "something else" } else { found };
                format!("`{path}` must be {}, not {found}", in_words(expected))
            }
            None if is_secret(path) => format!("`{path}` is not a text"),
            None => format!("`{path}`: {}", in_words(message)),
        };
        ConfigError::new(self.places.of(path), problem)
    }

    fn table_mut(&mut self, section: &[String]) -> Option<&mut Table> {
        section.iter().try_fold(&mut self.root, |table, key| table.get_mut(key)?.as_table_mut())
    }

    fn get_mut(&mut self, path: &str) -> Option<&mut Value> {
        // Keys of `properties` hold dots, so the path is matched key by key, not split.
        let mut table = &mut self.root;
        let mut rest = path;
        loop {
            let key = table
                .keys()
                .filter(|key| rest.strip_prefix(key.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('.')))
                .max_by_key(|key| key.len())?
                .clone();
            rest = rest.get(key.len()..)?.trim_start_matches('.');
            let value = table.get_mut(&key)?;
            if rest.is_empty() {
                return Some(value);
            }
            table = value.as_table_mut()?;
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// Whether the value at `path` must not be repeated to people.
fn is_secret(path: &str) -> bool {
    let key = path.rsplit('.').next().unwrap_or(path);
    SECRETS.contains(&key) || path.contains(".properties.")
}

/// Whether the value at `path` is a secret, as far as its name says.
fn names_secret(path: &str) -> bool {
    let key = path.rsplit('.').next().unwrap_or(path);
    match path.split_once(".properties.") {
        Some((_, property)) => {
            !property.ends_with("_file") && ["password", "secret", "key.pem"].iter().any(|word| property.contains(word))
        }
        None => SECRETS.contains(&key),
    }
}

/// The keys that a variable's name stands for.
fn keys_of(name: &str) -> Vec<String> {
    let mut keys: Vec<String> = name.trim_start_matches(PREFIX).split("__").map(str::to_lowercase).collect();
    if let Some(at) = keys.iter().position(|key| key == PROPERTIES)
        && at + 1 < keys.len()
    {
        let property = keys.split_off(at + 1).join(".");
        // `sasl.password_file` keeps its last underscore: it is ours, not librdkafka's.
        keys.push(match property.strip_suffix("_file") {
            Some(plain) => format!("{}_file", plain.replace('_', ".")),
            None => property.replace('_', "."),
        });
    }
    keys
}

/// What a text from the environment can mean: a TOML value, the text itself, a list of texts.
fn readings(text: &str) -> Vec<Value> {
    let mut readings = Vec::new();
    if let Ok(mut table) = format!("value = {text}").parse::<Table>()
        && table.len() == 1
        && let Some(value) = table.remove("value")
    {
        readings.push(value);
    }
    readings.push(Value::String(text.to_owned()));
    readings.push(Value::Array(text.split(',').map(|item| Value::String(item.trim().to_owned())).collect()));
    readings
}

fn note_lines(
    table: &DeTable<'_>,
    path: &str,
    line_of: &impl Fn(usize) -> usize,
    origins: &mut HashMap<String, Origin>,
) {
    for (key, value) in table {
        let mut path = path.to_owned();
        join(&mut path, key.get_ref());
        origins.insert(path.clone(), Origin::Line(line_of(key.span().start)));
        note_value(value, &path, line_of, origins);
    }
}

fn note_value(
    value: &Spanned<DeValue<'_>>,
    path: &str,
    line_of: &impl Fn(usize) -> usize,
    origins: &mut HashMap<String, Origin>,
) {
    match value.get_ref() {
        DeValue::Table(inner) => note_lines(inner, path, line_of, origins),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                origins.insert(path.clone(), Origin::Line(line_of(item.span().start)));
                note_value(item, &path, line_of, origins);
            }
        }
        _ => {}
    }
}

/// Section and key of every `KEY_file` whose `KEY` is a secret.
fn find_secret_files(table: &Table, section: &str, properties: bool, found: &mut Vec<(Vec<String>, String)>) {
    for (key, value) in table {
        if let Some(plain) = key.strip_suffix("_file")
            && (properties || SECRETS.contains(&plain))
        {
            let keys = section.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect();
            found.push((keys, key.clone()));
        } else if let Value::Table(inner) = value {
            let mut path = section.to_owned();
            join(&mut path, key);
            find_secret_files(inner, &path, key == PROPERTIES, found);
        }
    }
}

fn join(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

/// What serde calls a type, as people call it.
fn in_words(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0",
        "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "a text in quotes",
        "a sequence" => "a list in [ ]",
        "invalid socket address syntax" => "write ADDRESS:PORT, as 127.0.0.1:9464",
        _ if expected.starts_with("struct ") || expected == "a map" => "a section",
        _ => expected,
    }
}

/// Splits serde's "unknown field `x`, expected one of `a`, `b`" (or "unknown variant …") into `x` and `[a, b]`.
fn unknown_and_known(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `"))?;
    let (unknown, expected) = rest.split_once('`')?;
    let known = expected.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((unknown.to_owned(), known))
}

/// The one of `known` that `unknown` was most likely meant to be.
pub(super) fn nearest<'a>(unknown: &str, known: &'a [String]) -> Option<&'a str> {
    known
        .iter()
        .map(|key| (strsim::normalized_damerau_levenshtein(unknown, key), key.as_str()))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}
