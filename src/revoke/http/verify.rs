//! The read after a revocation: whether the token is inactive at the provider.

use std::collections::BTreeMap;

use serde_json::Value;

use super::answer::is_about_own_credential;
use super::preset::Preset;
use super::request::{RequestSettings, RequestTemplate};
use super::settings::{BodyFormat, HttpRevokerSettings, TargetKind, VerifySettings};
use super::template::{Escape, Filling, Template};
use crate::outgoing::{self, BodyTest, ValueTest};
use crate::port::Mistake;
use crate::verdict::Target;

/// The read, see the module documentation.
pub(super) struct Verify {
    pub(super) request: RequestTemplate,
    /// A token that is still active is no failure of the revocation.
    pub(super) is_eventual: bool,
    inactive: Vec<u16>,
    inactive_when: Option<Test>,
    active_when: Option<Test>,
    listed: Option<Listed>,
    valid_from: Option<String>,
    targets: Option<Vec<TargetKind>>,
}

/// A condition on the body.
enum Test {
    /// One of these texts.
    Texts(Vec<Template>),
    Value(ValueTest),
}

/// A list of active tokens, grants or sessions.
struct Listed {
    text: Template,
    key: Option<String>,
    page_items: Option<usize>,
}

/// Tolerance for a difference between the clocks of tokenwarden and the provider, milliseconds.
const CLOCKS_MS: i64 = 60_000;
/// Statuses other than 2xx whose body may show that the token is inactive.
const SHOWS_INACTIVE: [u16; 3] = [400, 404, 410];

impl Verify {
    /// `None` if neither the configuration nor the preset has a read. The error is about the key `verify`.
    pub(super) fn of(
        settings: &HttpRevokerSettings,
        preset: &Preset,
        values: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, Mistake> {
        let Some(read) = settings.verify.as_ref().or(preset.verify.as_ref()) else { return Ok(None) };
        let wrong = Mistake::of("verify");
        let is_introspection = read.method.is_none() && read.body.is_none() && read.form.is_empty();
        let introspection = || BodyTest::Value(ValueTest { pointer: "/active".to_owned(), equals: false.into() });
        let inactive_when = read.inactive_when.clone().or_else(|| is_introspection.then(introspection));
        if read.inactive.is_empty() && inactive_when.is_none() && read.listed.is_none() && read.valid_from.is_none() {
            return Err(wrong("needs `inactive`, `inactive_when`, `listed` or `valid_from`".to_owned()));
        }
        if read.inactive.iter().any(|status| is_about_own_credential(*status)) {
            return Err(wrong(
                "`inactive` must not contain 401 or 403, which reject tokenwarden's own credential".to_owned(),
            ));
        }
        if read.valid_from.as_ref().is_some_and(|pointer| !pointer.starts_with('/')) {
            return Err(wrong("`valid_from` must be a JSON pointer that begins with `/`".to_owned()));
        }
        let test = |name: &str, test: Option<BodyTest>| {
            let test = test.map(|test| Test::of(test, values));
            test.transpose().map_err(|problem| wrong(format!("`{name}` {problem}")))
        };
        let (inactive_when, active_when) =
            (test("inactive_when", inactive_when)?, test("active_when", read.active_when.clone())?);
        let request = request(read, is_introspection, settings, preset);
        let request = RequestTemplate::new(&request, values)
            .map_err(|Mistake { key, problem }| wrong(format!("`{key}` {problem}")))?;
        let request = request.with_headers(settings)?;
        let url = request.example_url().map_err(|problem| wrong(format!("`url` {problem}")))?;
        outgoing::check_url(&url, settings.allow_private).map_err(|problem| wrong(format!("`url` {problem}")))?;
        let listed = read.listed.as_ref().map(|text| Template::parse(text, values)).transpose().map_err(wrong)?;
        let (key, page_items) = (read.listed_key.clone(), read.page_items);
        Ok(Some(Self {
            request,
            is_eventual: read.eventual,
            inactive: read.inactive.clone(),
            inactive_when,
            active_when,
            listed: listed.map(|text| Listed { text, key, page_items }),
            valid_from: read.valid_from.clone(),
            targets: read.targets.clone(),
        }))
    }

    /// Whether the read shows the state of `target`.
    pub(super) fn shows(&self, target: &Target) -> bool {
        self.targets.as_ref().is_none_or(|targets| targets.contains(&TargetKind::of(target)))
    }

    /// Whether the token is inactive. `None` if the answer does not show it. `with` has the time of the revocation.
    pub(super) fn is_inactive(&self, status: u16, body: &[u8], with: &Filling<'_>) -> Option<bool> {
        if self.inactive.contains(&status) {
            return Some(true);
        }
        let is_success = (200..300).contains(&status);
        if !is_success && !SHOWS_INACTIVE.contains(&status) {
            return None;
        }
        if self.inactive_when.as_ref().is_some_and(|test| test.holds(body, with)) {
            return Some(true);
        }
        if !is_success {
            return None;
        }
        if let Some(active_when) = &self.active_when {
            return active_when.holds(body, with).then_some(false);
        }
        let body: Value = serde_json::from_slice(body).ok()?;
        if let Some(pointer) = &self.valid_from {
            let from: jiff::Timestamp = body.pointer(pointer)?.as_str()?.parse().ok()?;
            return Some(from.as_millisecond() >= with.now - CLOCKS_MS);
        }
        if let Some(listed) = &self.listed {
            return listed.lacks(&body, with);
        }
        match &self.inactive_when {
            // An error in place of the value does not show the state.
            Some(Test::Value(test)) => body.pointer(&test.pointer).map(|_| false),
            _ => Some(false),
        }
    }
}

/// The request of the read.
fn request(
    read: &VerifySettings,
    is_introspection: bool,
    settings: &HttpRevokerSettings,
    preset: &Preset,
) -> RequestSettings {
    let base = settings.url.as_ref().or(preset.request.url.as_ref());
    RequestSettings {
        method: read.method.clone(),
        url: read.url.as_ref().or(base).cloned(),
        path: read.path.clone(),
        headers: preset.request.headers.clone(),
        body: if is_introspection { Some(INTROSPECTION.to_owned()) } else { read.body.clone() },
        body_format: if is_introspection { Some(BodyFormat::Form) } else { read.body_format },
        form: read.form.clone(),
    }
}

/// RFC 7662 section 2.1.
const INTROSPECTION: &str = "token={id}&token_type_hint={hint}";

impl Test {
    fn of(test: BodyTest, values: &BTreeMap<String, String>) -> Result<Self, String> {
        test.check()?;
        let texts = match test {
            BodyTest::Text(one) => vec![one],
            BodyTest::AnyText(texts) => texts,
            BodyTest::Value(test) => return Ok(Self::Value(test)),
        };
        texts.iter().map(|text| Template::parse(text, values)).collect::<Result<_, _>>().map(Self::Texts)
    }

    /// A text with a value that is not known does not hold.
    fn holds(&self, body: &[u8], with: &Filling<'_>) -> bool {
        match self {
            Self::Texts(texts) => {
                let mut filled = texts.iter().filter_map(|text| text.fill(with, Escape::Url).ok());
                filled.any(|text| BodyTest::Text(text).holds(body))
            }
            Self::Value(test) => BodyTest::Value(test.clone()).holds(body),
        }
    }
}

impl Listed {
    /// Whether the text is not in the list: an array, or an object with an array. `None` if the list is not whole, or is
    /// none.
    fn lacks(&self, body: &Value, with: &Filling<'_>) -> Option<bool> {
        let has_list = body.is_array() || body.as_object().is_some_and(|object| object.values().any(Value::is_array));
        if !has_list || body.get("error").is_some() {
            return None;
        }
        let text = self.text.fill(with, Escape::None).ok()?;
        if contains(body, &text, self.key.as_deref()) {
            return Some(false);
        }
        let is_full = self.page_items.zip(body.as_array()).is_some_and(|(full, items)| items.len() >= full);
        (!is_full).then_some(true)
    }
}

/// Whether a text in `value` is `text`. With `key`, only the texts and numbers of this key count.
fn contains(value: &Value, text: &str, key: Option<&str>) -> bool {
    match value {
        Value::String(string) => key.is_none() && string == text,
        Value::Array(items) => items.iter().any(|item| contains(item, text, key)),
        Value::Object(members) => members.iter().any(|(name, member)| match member {
            Value::String(string) if key == Some(name) => string == text,
            Value::Number(number) if key == Some(name) => number.to_string() == text,
            member => contains(member, text, key),
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
