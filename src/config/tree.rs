//! The configuration as a tree of values with their origins, so that every error states file and line, or the environment
//! variable.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::secret_file;

/// Prefix of environment variables that override the configuration: `TOKENWARDEN__STORE__URL` sets `url` of `[store]`.
const PREFIX: &str = "TOKENWARDEN__";

/// Keys of secrets. Each may be given as `KEY_file`. Messages never contain their values.
const SECRETS: [&str; 9] = [
    "password",
    "secret",
    "client_secret",
    "token",
    "token_key",
    "private_key",
    "secret_access_key",
    "session_token",
    "webhook_url",
];

/// Table of librdkafka properties. Each may be a secret. In the environment their dots are written as underscores.
const PROPERTIES: &str = "properties";

/// An error in the configuration: its place, the problem and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub(crate) struct ConfigError {
    /// `tokenwarden.toml:12`, or `environment variable TOKENWARDEN__STORE__URL`.
    pub(crate) place: String,
    /// One sentence without secrets.
    pub(crate) problem: String,
}

impl ConfigError {
    pub(super) fn new(place: impl fmt::Display, problem: impl Into<String>) -> Self {
        Self { place: place.to_string(), problem: problem.into() }
    }
}

/// Origin of a value.
#[derive(Clone, Debug)]
enum Origin {
    Line(usize),
    Environment(String),
}

/// Origin of each value, by its key path, for example `alert.email.to[1]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    origins: HashMap<String, Origin>,
    file: PathBuf,
}

/// Values by key, with their origins.
pub(super) struct Tree {
    root: Table,
    places: Places,
    /// Further interpretations of values from the environment, which has no types. They are tried in order.
    readings: BTreeMap<String, Vec<Value>>,
}

impl Places {
    /// Place of the value at `path`, or of the innermost section around it.
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
    /// Parses TOML. Messages contain the name `file`.
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

    /// Overrides values of the file by those of `environment`.
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
                    "has no key; use the form TOKENWARDEN__SECTION__KEY",
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
            // A secret from the environment replaces both forms of it, `KEY` and `KEY_file`.
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

    /// Names of the sections in the section `path`.
    pub(super) fn sections_in(&self, path: &[&str]) -> Vec<String> {
        let section = path.iter().try_fold(&self.root, |table, key| table.get(*key)?.as_table());
        section.map(|section| section.keys().cloned().collect()).unwrap_or_default()
    }

    /// Replaces the string, or each string of the array, at the key `path` by what `relative` returns for it. Values from the
    /// environment stay as they are.
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

    /// Sets `KEY` of every secret to the contents of its `KEY_file`. Relative paths in the configuration file are relative to
    /// `base`.
    pub(super) fn read_secrets(&mut self, base: &Path) -> Result<(), ConfigError> {
        let mut found = Vec::new();
        find_secret_files(&self.root, "", &|key| SECRETS.contains(&key), &mut found);
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
                return fail(format!("`{path}` must be the path of a file"));
            };
            let key = file_key.trim_end_matches("_file").to_owned();
            if table.contains_key(&key) {
                return fail(format!("both `{key}` and `{file_key}` are set; remove one"));
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

    /// Key path of the first secret whose value is in the file itself. The names of librdkafka properties show which are
    /// secrets.
    pub(super) fn secret_in_file(&mut self) -> Option<String> {
        let origins = self.places.origins.iter().filter(|(_, origin)| matches!(origin, Origin::Line(_)));
        let mut paths: Vec<String> = origins.map(|(path, _)| path.clone()).filter(|path| names_secret(path)).collect();
        paths.sort();
        // An environment variable may have removed the value.
        paths.into_iter().find(|path| self.get_mut(path).is_some_and(|value| value.is_str()))
    }

    /// Origins of the values, for errors that are found when a value is used.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// Deserializes the tree as `T`, or returns the first error.
    pub(super) fn deserialize<T: DeserializeOwned>(&mut self) -> Result<T, ConfigError> {
        let mut first: Option<(String, ConfigError)> = None;
        loop {
            let error = match serde_path_to_error::deserialize(Value::Table(self.root.clone())) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            // `?` is a key of a map that is not valid.
            let path = error.path().to_string().trim_end_matches(".?").to_owned();
            // If no interpretation of a variable is valid, the error is that of the first one.
            let error = match first {
                Some((seen, earlier)) if path.starts_with(&seen) => earlier,
                _ => self.explain(&path, error.inner().message()),
            };
            if !self.read_otherwise(&path) {
                return Err(error);
            }
            first = Some((path, error));
        }
    }

    /// Uses the next interpretation of the environment variable for `path` or for a section around it. Returns whether there
    /// was one.
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
            // For an unknown key, the deserializer reports the path of the section or of the key.
            let full = match what {
                "key" if key != unknown && !path.is_empty() && path != "." => format!("{path}.{unknown}"),
                "key" => path.trim_start_matches('.').to_owned(),
                _ => path.to_owned(),
            };
            let full = if full.is_empty() { unknown.clone() } else { full };
            let shown = if what == "key" { full.clone() } else { unknown.clone() };
            // The settings types do not have the second key of each secret.
            let files: Vec<_> =
                known.iter().filter(|key| SECRETS.contains(&key.as_str())).map(|key| format!("{key}_file")).collect();
            let known = if unknown.ends_with("_file") { [files, known].concat() } else { known };
            let hint = match nearest(&unknown, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("expected one of {}", known.join(", ")),
            };
            let of = if what == "key" { String::new() } else { format!(" of `{path}`") };
            return ConfigError::new(self.places.of(&full), format!("unknown {what} `{shown}`{of}; {hint}"));
        }
        if let Some(missing) = message.strip_prefix("missing field ") {
            let section = if path == "." { "the file".to_owned() } else { format!("[{path}]") };
            return ConfigError::new(self.places.of(path), format!("{section} needs {missing}"));
        }
        // The message of serde contains the value, which may be a secret.
        let problem = match message.split_once(", expected ") {
            Some((found, expected)) => {
                let found = found.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
                let found = if is_secret(path) { "a value of another type" } else { found };
                format!("`{path}` must be {}, not {found}", in_words(expected))
            }
            None if is_secret(path) => format!("`{path}` is not a string"),
            None => format!("`{path}`: {}", in_words(message)),
        };
        ConfigError::new(self.places.of(path), problem)
    }

    fn table_mut(&mut self, section: &[String]) -> Option<&mut Table> {
        section.iter().try_fold(&mut self.root, |table, key| table.get_mut(key)?.as_table_mut())
    }

    fn get_mut(&mut self, path: &str) -> Option<&mut Value> {
        // Keys of `properties` contain dots, so the path is matched key by key.
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

/// Whether the value at `path` must not appear in messages.
fn is_secret(path: &str) -> bool {
    let key = path.rsplit('.').next().unwrap_or(path);
    SECRETS.contains(&key) || path.contains(".properties.")
}

/// Whether the value at `path` is a secret, according to its name.
fn names_secret(path: &str) -> bool {
    let key = path.rsplit('.').next().unwrap_or(path);
    match path.split_once(".properties.") {
        Some((_, property)) => {
            !property.ends_with("_file") && ["password", "secret", "key.pem"].iter().any(|word| property.contains(word))
        }
        None => SECRETS.contains(&key),
    }
}

/// Key path of an environment variable.
fn keys_of(name: &str) -> Vec<String> {
    let mut keys: Vec<String> = name.trim_start_matches(PREFIX).split("__").map(str::to_lowercase).collect();
    if let Some(at) = keys.iter().position(|key| key == PROPERTIES)
        && at + 1 < keys.len()
    {
        let property = keys.split_off(at + 1).join(".");
        // The suffix `_file` of `sasl.password_file` keeps its underscore, because it is not part of librdkafka's name.
        keys.push(match property.strip_suffix("_file") {
            Some(plain) => format!("{}_file", plain.replace('_', ".")),
            None => property.replace('_', "."),
        });
    }
    keys
}

/// Interpretations of a value from the environment: a TOML value, a string, a list of strings.
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
fn find_secret_files(
    table: &Table,
    section: &str,
    is_secret: &dyn Fn(&str) -> bool,
    found: &mut Vec<(Vec<String>, String)>,
) {
    for (key, value) in table {
        if let Some(plain) = key.strip_suffix("_file")
            && is_secret(plain)
        {
            let keys = section.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect();
            found.push((keys, key.clone()));
        } else if let Value::Table(inner) = value {
            let mut path = section.to_owned();
            join(&mut path, key);
            // Any property may be a secret.
            let is_secret = |name: &str| key == PROPERTIES || SECRETS.contains(&name);
            find_secret_files(inner, &path, &is_secret, found);
        }
    }
}

fn join(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

/// Readable form of serde's name for a type.
fn in_words(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0",
        "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "a string in quotes",
        "a sequence" => "a list in [ ]",
        "invalid socket address syntax" => "expected ADDRESS:PORT, for example 127.0.0.1:9464",
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

/// The end of an error about an unknown channel: the most similar one, or all.
pub(crate) fn channel_hint(unknown: &str, known: &[String]) -> String {
    match nearest(unknown, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "no alert channel is configured".to_owned(),
        None => format!("channels are {}", known.join(", ")),
    }
}

/// The element of `known` that is most similar to `unknown`, if one is similar.
fn nearest<'a>(unknown: &str, known: &'a [String]) -> Option<&'a str> {
    known
        .iter()
        .map(|key| (strsim::normalized_damerau_levenshtein(unknown, key), key.as_str()))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}
