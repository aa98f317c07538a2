//! The body of a request: JSON whose strings are templates. Values are escaped for the notation of the preset here, and for
//! JSON by the serializer, so that no preset can omit it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{FIELDS, Field, Sending};
use super::preset::Preset;
use crate::outgoing::{Piece, pieces, unknown_name};
use crate::sanitize;

/// Key of an object in a list that is repeated for each line of the details.
const FOR_EACH_LINE: &str = "for_each_line";
/// The name of that line.
const LINE: &str = "line";
/// Lines that are repeated. The last one holds the number of the others.
const LINES_MAX: usize = 40;
/// Shortest length to which the details are cut so that a body holds its limit, UTF-16 code units.
const DETAILS_UNITS_MIN: usize = 100;

/// A body.
pub(super) enum Node {
    /// Not a template.
    Fixed(Value),
    Text(Vec<Part>),
    Finding,
    List(Vec<Node>),
    Lines(Box<Node>),
    Map(Vec<(String, Node)>),
}

pub(super) enum Part {
    Text(String),
    Field(Field),
    Line,
}

impl Node {
    /// The error contains no secret.
    pub(super) fn compile(value: &Value, fixed: &BTreeMap<String, String>) -> Result<Self, String> {
        Ok(match value {
            Value::String(text) if text == "{finding}" => Self::Finding,
            Value::String(text) => Self::Text(parts(text, fixed)?),
            Value::Array(items) => {
                Self::List(items.iter().map(|item| Self::compile(item, fixed)).collect::<Result<_, _>>()?)
            }
            Value::Object(fields) => match fields.get(FOR_EACH_LINE) {
                Some(repeated) if fields.len() == 1 => Self::Lines(Box::new(Self::compile(repeated, fixed)?)),
                _ => {
                    let fields = fields.iter().map(|(key, value)| Ok((key.clone(), Self::compile(value, fixed)?)));
                    Self::Map(fields.collect::<Result<_, String>>()?)
                }
            },
            other => Self::Fixed(other.clone()),
        })
    }

    fn fill(&self, with: &Filling<'_>, line: &str) -> Value {
        match self {
            Self::Fixed(value) => value.clone(),
            Self::Finding => with.sending.finding(),
            Self::Text(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Text(fixed) => text.push_str(fixed),
                        Part::Line => text.push_str(line),
                        Part::Field(field) => text.push_str(&with.value(*field)),
                    }
                }
                Value::String(text)
            }
            Self::List(items) => {
                let mut list = Vec::new();
                for item in items {
                    match item {
                        Self::Lines(repeated) => list.extend(with.lines().iter().map(|line| repeated.fill(with, line))),
                        item => list.push(item.fill(with, line)),
                    }
                }
                Value::Array(list)
            }
            Self::Lines(repeated) => repeated.fill(with, line),
            Self::Map(fields) => fields.iter().map(|(key, node)| (key.clone(), node.fill(with, line))).collect(),
        }
    }

    /// The body for an alert, in JSON without unsafe characters. The details are cut until it holds the limit of the
    /// receiver. `None` if it does not even then.
    pub(super) fn body(&self, sending: &Sending<'_>, preset: &Preset, thread: Option<(&str, &str)>) -> Option<String> {
        let mut details_max = preset.units_max(Field::Details);
        loop {
            let mut body = self.fill(&Filling { sending, preset, details_max }, "");
            if let (Some((key, root)), Value::Object(fields)) = (thread, &mut body) {
                fields.insert(key.to_owned(), root.into());
            }
            let json = sanitize::json(&body.to_string());
            if json.len() <= preset.request.bytes_max {
                return Some(json);
            }
            if details_max <= DETAILS_UNITS_MIN {
                return None;
            }
            details_max = (details_max * 3 / 4).max(DETAILS_UNITS_MIN);
        }
    }
}

/// The values of one body.
struct Filling<'a> {
    sending: &'a Sending<'a>,
    preset: &'a Preset,
    details_max: usize,
}

impl Filling<'_> {
    fn value(&self, field: Field) -> String {
        let Self { sending, preset, details_max } = self;
        match field {
            Field::Severity => {
                let severity = sending.severity();
                let word = preset.severity.get(&severity).map(String::as_str);
                word.map_or_else(|| crate::notify::summary::severity(severity).to_ascii_lowercase(), str::to_owned)
            }
            Field::Details => preset.markup.lines(&field.text(sending), *details_max),
            field => preset.markup.line(&field.text(sending), preset.units_max(field)),
        }
    }

    /// The lines of the details, each escaped.
    fn lines(&self) -> Vec<String> {
        let text = self.value(Field::Details);
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        if lines.len() > LINES_MAX {
            let left = lines.len() - (LINES_MAX - 1);
            lines.truncate(LINES_MAX - 1);
            lines.push(format!("{left} more lines"));
        }
        lines
    }
}

fn parts(text: &str, fixed: &BTreeMap<String, String>) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    for piece in pieces(text) {
        let word = match piece {
            Piece::Text(text) => {
                parts.push(Part::Text(text.to_owned()));
                continue;
            }
            Piece::Name(word) => word,
        };
        let field = FIELDS.iter().find(|(name, _)| *name == word).map(|(_, field)| *field);
        parts.push(match (fixed.get(word), field) {
            (Some(value), _) => Part::Text(value.clone()),
            (None, Some(Field::Finding)) => {
                return Err("has `{finding}` inside a text; it must be the whole value".to_owned());
            }
            (None, Some(field)) => Part::Field(field),
            (None, None) if word == LINE => Part::Line,
            (None, None) => {
                let known = FIELDS.iter().map(|(name, _)| *name).chain(fixed.keys().map(String::as_str));
                return Err(unknown_name(word, known.chain([LINE])));
            }
        });
    }
    Ok(parts)
}
