//! The read after a revocation: whether the token is inactive at the provider.

use std::collections::BTreeMap;

use serde_json::Value;

use super::answer::is_about_own_credential;
use super::preset::Preset;
use super::request::{RequestSettings, RequestTemplate};
use super::settings::{BodyFormat, HttpRevokerSettings};
use super::template::{Escape, Filling, Template};
use crate::outgoing::{self, BodyTest, ValueTest};
use crate::port::Mistake;

/// The read, see the module documentation.
pub(super) struct Verify {
    pub(super) request: RequestTemplate,
    inactive: Vec<u16>,
    inactive_when: Option<BodyTest>,
    listed: Option<Template>,
}

impl Verify {
    /// `None` if neither the configuration nor the preset has a read. The error is about the key `verify`.
    pub(super) fn of(
        settings: &HttpRevokerSettings,
        preset: &Preset,
        values: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, Mistake> {
        let Some(read) = settings.verify.as_ref().or(preset.verify.as_ref()) else { return Ok(None) };
        let wrong = Mistake::of("verify");
        let is_introspection = read.method.is_none() && read.body.is_none();
        let introspection = || BodyTest::Value(ValueTest { pointer: "/active".to_owned(), equals: false.into() });
        let inactive_when = read.inactive_when.clone().or_else(|| is_introspection.then(introspection));
        if read.inactive.is_empty() && inactive_when.is_none() && read.listed.is_none() {
            return Err(wrong("needs `inactive`, `inactive_when` or `listed`".to_owned()));
        }
        if read.inactive.iter().any(|status| is_about_own_credential(*status)) {
            return Err(wrong(
                "`inactive` must not contain 401 or 403, which reject tokenwarden's own credential".to_owned(),
            ));
        }
        inactive_when
            .as_ref()
            .map_or(Ok(()), BodyTest::check)
            .map_err(|problem| wrong(format!("`inactive_when` {problem}")))?;
        let base = settings.url.as_ref().or(preset.request.url.as_ref());
        let request = RequestSettings {
            method: read.method.clone(),
            url: read.url.as_ref().or(base).cloned(),
            path: read.path.clone(),
            headers: preset.request.headers.clone(),
            body: if is_introspection { Some(INTROSPECTION.to_owned()) } else { read.body.clone() },
            body_format: if is_introspection { Some(BodyFormat::Form) } else { read.body_format },
            form: BTreeMap::new(),
        };
        let request = RequestTemplate::new(&request, values)
            .map_err(|Mistake { key, problem }| wrong(format!("`{key}` {problem}")))?;
        let request = request.with_headers(settings)?;
        let url = request.example_url().map_err(|problem| wrong(format!("`url` {problem}")))?;
        outgoing::check_url(&url, settings.allow_private).map_err(|problem| wrong(format!("`url` {problem}")))?;
        let listed = read.listed.as_ref().map(|text| Template::parse(text, values)).transpose().map_err(wrong)?;
        Ok(Some(Self { request, inactive: read.inactive.clone(), inactive_when, listed }))
    }

    /// Whether the token is inactive. `None` if the answer does not show it.
    pub(super) fn is_inactive(&self, status: u16, body: &[u8], with: &Filling<'_>) -> Option<bool> {
        if self.inactive.contains(&status) {
            return Some(true);
        }
        if !(200..300).contains(&status) {
            return None;
        }
        if self.inactive_when.as_ref().is_some_and(|test| test.holds(body)) {
            return Some(true);
        }
        let body: Value = serde_json::from_slice(body).ok()?;
        let Some(listed) = &self.listed else { return Some(false) };
        let text = listed.fill(with, Escape::None).ok()?;
        Some(!contains(&body, &text))
    }
}

/// RFC 7662 section 2.1.
const INTROSPECTION: &str = "token={id}&token_type_hint={hint}";

/// Whether a string in `value` is `text`.
fn contains(value: &Value, text: &str) -> bool {
    match value {
        Value::String(string) => string == text,
        Value::Array(items) => items.iter().any(|item| contains(item, text)),
        Value::Object(members) => members.values().any(|member| contains(member, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
