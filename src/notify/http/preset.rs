//! Presets: channels of known receivers, as data.

use std::collections::BTreeMap;
use std::path::Path;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use super::answer::AnswerSettings;
use super::fields::{FIELDS, Field};
use crate::notify::escape::Markup;
use crate::notify::settings::ChannelSettings;
use crate::notify::shipped::PresetName;
use crate::outgoing::{BodyTest, Piece, parse_preset, pieces, unknown_name};
use crate::verdict::Severity;

/// A preset.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Preset {
    /// Keys that the configuration must have.
    #[serde(default)]
    pub(super) needs: Vec<Need>,
    /// Names in `values` that the configuration must have.
    #[serde(default)]
    pub(super) values: Vec<String>,
    /// Notation of all texts.
    #[serde(default)]
    pub(super) markup: Markup,
    /// Maximum lengths of values, UTF-16 code units.
    #[serde(default)]
    pub(super) limits: BTreeMap<String, usize>,
    /// The receiver's words for severities. The default are our own.
    #[serde(default)]
    pub(super) severity: BTreeMap<Severity, String>,
    pub(super) request: RequestSettings,
    #[serde(default)]
    pub(super) answer: AnswerSettings,
    pub(super) thread: Option<ThreadSettings>,
    /// Requests for steps in the work on an incident.
    pub(super) acknowledge: Option<StepSettings>,
    pub(super) resolve: Option<StepSettings>,
    /// Sent each hour while the incident is open.
    pub(super) repeat: Option<StepSettings>,
    pub(super) probe: Option<ProbeSettings>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Need {
    Url,
    WebhookUrl,
    Token,
}

/// The request for one alert.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestSettings {
    /// Used unless the configuration has one.
    pub(super) url: Option<String>,
    /// Appended to the URL.
    #[serde(default)]
    pub(super) path: String,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    /// JSON. Each string in it is a template.
    pub(super) body: Value,
    /// Maximum size of the body, bytes.
    #[serde(default = "body_bytes_max")]
    pub(super) bytes_max: usize,
}

const fn body_bytes_max() -> usize {
    100_000
}

/// How messages of one incident form a thread.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ThreadSettings {
    /// JSON pointer (RFC 6901) to the id of the message in the answer.
    pub(super) id: String,
    /// Key of the body of later messages that refers to the first one.
    pub(super) key: String,
}

/// The request for a step in the work on an incident. It gets the same answer test as a message.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepSettings {
    /// Appended to the URL. May contain `{id}`, the id of the incident.
    pub(super) path: String,
    /// JSON. Each string in it is a template.
    pub(super) body: Value,
    /// One request for each distinct set of severity, tenant, user and application in the messages about the incident,
    /// because the receiver identifies an alert by them.
    #[serde(default)]
    pub(super) for_each_state: bool,
}

/// A request without side effects that tests the credential. It gets the same answer test as a message.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProbeSettings {
    pub(super) path: String,
}

impl Preset {
    pub(super) fn shipped(preset: PresetName) -> Result<Self, (&'static str, String)> {
        let name = preset.name();
        Self::parse(preset.text())
            .map_err(|(line, problem)| ("kind", format!("has an error in {name}.toml:{line}: {problem}")))
    }

    pub(super) fn read(file: &Path) -> Result<Self, (&'static str, String)> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| ("preset_file", format!("cannot be read: {}: {error}", file.display())))?;
        Self::parse(&text)
            .map_err(|(line, problem)| ("preset_file", format!("has an error: {}:{line}: {problem}", file.display())))
    }

    /// The error is the line and the problem.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let preset: Self = parse_preset(text)?;
        let known = || FIELDS.iter().map(|(name, _)| *name);
        if let Some(name) = preset.limits.keys().find(|name| known().all(|known| known != *name)) {
            return Err((
                1,
                format!(
                    "`limits` has `{name}`, which is no value; values are {}",
                    known().collect::<Vec<_>>().join(", ")
                ),
            ));
        }
        if let Some(thread) = &preset.thread
            && !(thread.id.starts_with('/') && preset.request.body.is_object())
        {
            return Err((1, "`thread` needs a pointer such as \"/ts\", and a body that is an object".to_owned()));
        }
        let answer = &preset.answer;
        for test in [&answer.accepted_when, &answer.retry_when, &answer.rejected_when].into_iter().flatten() {
            BodyTest::check(test).map_err(|problem| (1, format!("a body test {problem}")))?;
        }
        Ok(preset)
    }

    /// Fixed values of templates, by name. The error is the key and the problem.
    pub(super) fn fixed(
        &self,
        settings: &ChannelSettings,
        token: Option<&str>,
    ) -> Result<BTreeMap<String, String>, (&'static str, String)> {
        for need in &self.needs {
            let (key, is_set) = match need {
                Need::Url => ("url", settings.url.is_some()),
                Need::WebhookUrl => ("webhook_url", settings.webhook_url.is_some()),
                Need::Token => ("token", token.is_some()),
            };
            if !is_set {
                return Err((key, "is missing: channels of this kind require it".to_owned()));
            }
        }
        if let Some(missing) = self.values.iter().find(|value| !settings.values.contains_key(*value)) {
            return Err(("values", format!("has no `{missing}`, which channels of this kind require")));
        }
        let mut fixed = settings.values.clone();
        if let Some(token) = token {
            fixed.insert("token".to_owned(), token.to_owned());
        }
        Ok(fixed)
    }

    /// The headers, with their fixed values. The error contains no secret.
    pub(super) fn headers(&self, fixed: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, template) in &self.request.headers {
            let mut text = String::new();
            for piece in pieces(template) {
                text.push_str(match piece {
                    Piece::Text(text) => text,
                    Piece::Name(word) => {
                        fixed.get(word).ok_or_else(|| unknown_name(word, fixed.keys().map(String::as_str)))?
                    }
                });
            }
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a header name"))?;
            let value = HeaderValue::from_str(&text);
            let mut value = value.map_err(|_| format!("the value of `{name}` is not a valid header value"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }

    /// Maximum length of a value.
    pub(super) fn units_max(&self, field: Field) -> usize {
        let name = FIELDS.iter().find(|(_, known)| *known == field).map_or("", |(name, _)| name);
        self.limits.get(name).copied().unwrap_or(field.units_max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::shipped::PRESETS;

    #[test]
    fn shipped_presets_are_valid_and_cite_their_source() {
        for preset in PRESETS {
            let name = preset.name();
            assert!(Preset::parse(preset.text()).is_ok(), "{name}");
            assert!(preset.text().starts_with("# Source: "), "{name} names the page of the vendor");
        }
    }

    #[test]
    fn preset_error_has_its_line() {
        let error = |text: &str| Preset::parse(text).map(|_| ()).expect_err(text);
        let (line, problem) = error("[request]\nbody = {}\nulr = 'x'");
        assert!(line == 3 && problem.contains("ulr"), "{line} {problem}");
        let (_, problem) = error("limits = { headlin = 5 }\n[request]\nbody = {}");
        assert!(problem.contains("headlin"), "{problem}");
        assert!(error("[request]\nbody = []\n[thread]\nid = '/ts'\nkey = 'x'").1.contains("thread"));
        assert!(error("[request]\nbody = {}\n[answer]\nretry_when = ' '").1.contains("empty"));
    }
}
