//! A revoker made of configuration: method, address, headers and body are templates; the status of the answer, and
//! where it is configured its body, decide the outcome. The presets are such templates.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::outgoing;
use crate::port::{Clock, DeliveryError, RevokeRequest, Revoked, Revoker};
use crate::verdict::Target;

/// `[revoke.http]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpRevokerSettings {
    /// Fills in what is not set below.
    #[serde(default)]
    pub preset: Preset,
    /// A template; its host is fixed. With `by_id` the id is added to it.
    pub url: String,
    pub client_id: Option<String>,
    /// With `client_id`, sent as basic authentication.
    pub client_secret: Option<SecretString>,
    /// Sent as bearer token.
    pub token: Option<SecretString>,
    pub method: Option<String>,
    #[serde(default)]
    pub headers: BTreeMap<String, SecretString>,
    /// A template.
    pub body: Option<String>,
    /// How ids are escaped in the body, and its content type.
    pub body_format: Option<BodyFormat>,
    /// What the provider can be asked to revoke: `token`, `family`.
    pub targets: Option<Vec<TargetKind>>,
    /// The one tenant whose ids the provider knows; empty: that of events without a tenant.
    pub tenant: Option<String>,
    /// Statuses that mean: it is revoked.
    pub done: Option<Vec<u16>>,
    /// What the body must hold besides, for providers that refuse with status 200.
    pub done_when: Option<BodyTest>,
    /// Statuses that mean: the provider does not know it any more.
    pub already_gone: Option<Vec<u16>>,
    /// A body that means the same, whatever the status; it is not looked at with 401 and 403.
    pub already_gone_when: Option<BodyTest>,
    /// Statuses after which another attempt may help. Any other status means to give up.
    pub retry: Option<Vec<u16>>,
    /// Whether the provider may be inside the network.
    #[serde(default)]
    pub allow_private: bool,
    /// Authorities trusted besides the system's, PEM.
    pub ca_file: Option<PathBuf>,
}

/// The templates that come with this build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Everything is set by hand.
    #[default]
    Custom,
    /// OAuth 2.0 Token Revocation: `POST`, `token=…&token_type_hint=…`.
    Rfc7009,
    /// `DELETE {url}/{id}`.
    ById,
    /// Slack's `auth.revoke`: `POST`, `token=…`; refusals have status 200 (<https://api.slack.com/methods/auth.revoke>).
    Slack,
    /// Google's revocation endpoint: `POST`, `token=…`; 400 `invalid_token` for a token that is already revoked
    /// (<https://developers.google.com/identity/protocols/oauth2/web-server#tokenrevoke>).
    Google,
    /// Twitch: `POST`, `client_id=…&token=…`; 400 `Invalid token` for a token that is already revoked
    /// (<https://dev.twitch.tv/docs/authentication/revoke-tokens>).
    Twitch,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyFormat {
    #[default]
    Json,
    Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    Token,
    Family,
}

impl TargetKind {
    const fn of(target: &Target) -> Self {
        match target {
            Target::Token(_) => Self::Token,
            Target::Family(_) => Self::Family,
        }
    }
}

/// See the module's text.
pub struct HttpRevoker {
    client: Client,
    clock: Arc<dyn Clock>,
    method: Method,
    url: Template,
    headers: HeaderMap,
    body: Option<(Template, BodyFormat)>,
    targets: Vec<TargetKind>,
    tenant: Option<String>,
    answers: Answers,
    basic: Option<(String, SecretString)>,
    bearer: Option<SecretString>,
}

impl HttpRevoker {
    /// The error is the key below `[revoke.http]` and what is wrong with it; it names no secret.
    pub fn new(settings: &HttpRevokerSettings, clock: Arc<dyn Clock>) -> Result<Self, (&'static str, String)> {
        let preset = settings.preset;
        let wrong = |key: &'static str| move |problem: String| (key, problem);
        let url = match preset {
            Preset::ById => format!("{}/{{id}}", settings.url.trim_end_matches('/')),
            _ => settings.url.clone(),
        };
        let url = Template::parse(&url).map_err(wrong("url"))?;
        let example = url.example().map_err(wrong("url"))?;
        let client = outgoing::client(&example, settings.allow_private, settings.ca_file.as_deref());
        let method = match (settings.method.as_deref(), preset) {
            (Some(method), _) => Method::from_bytes(method.to_uppercase().as_bytes())
                .map_err(|_| ("method", format!("`{method}` is no HTTP method")))?,
            (None, Preset::ById) => Method::DELETE,
            (None, _) => Method::POST,
        };
        // Encoded, it holds no brace that a template could take for a value.
        let twitch_body =
            format!("client_id={}&token={{id}}", form_encoded(settings.client_id.as_deref().unwrap_or_default()));
        let body = match (settings.body.as_deref(), preset) {
            (Some(body), _) => Some((body, settings.body_format.unwrap_or_default())),
            (None, Preset::Rfc7009) => Some(("token={id}&token_type_hint={hint}", BodyFormat::Form)),
            (None, Preset::Slack | Preset::Google) => Some(("token={id}", BodyFormat::Form)),
            (None, Preset::Twitch) => Some((&*twitch_body, BodyFormat::Form)),
            (None, Preset::Custom | Preset::ById) => None,
        };
        let body = match body {
            Some((text, format)) => Some((Template::parse(text).map_err(wrong("body"))?, format)),
            None => None,
        };
        let basic = match (&settings.client_id, &settings.client_secret) {
            (Some(_), None) if preset == Preset::Twitch => None,
            (None, _) if preset == Preset::Twitch => {
                return Err((
                    "client_id",
                    "is missing: Twitch revokes a token for the client that it belongs to".to_owned(),
                ));
            }
            (Some(id), Some(secret)) => Some((id.clone(), secret.clone())),
            (None, None) => None,
            (Some(_), None) => return Err(("client_id", "needs `client_secret_file` beside it".to_owned())),
            (None, Some(_)) => return Err(("client_secret", "needs `client_id` beside it".to_owned())),
        };
        if basic.is_some() && settings.token.is_some() {
            return Err(("token", "cannot go with `client_id`; keep one".to_owned()));
        }
        let targets = settings.targets.clone().unwrap_or_else(|| vec![TargetKind::Token, TargetKind::Family]);
        Ok(Self {
            client: client.map_err(wrong(if settings.ca_file.is_some() { "ca_file" } else { "url" }))?,
            clock,
            method,
            url,
            headers: headers(settings).map_err(wrong("headers"))?,
            body,
            targets,
            tenant: settings.tenant.clone(),
            answers: Answers::of(settings)?,
            basic,
            bearer: settings.token.clone(),
        })
    }

    /// Where requests go, for people.
    #[must_use]
    pub fn host(&self) -> String {
        self.url.example().ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Whether `value` is a part of the address or the body.
    fn names(&self, value: Value) -> bool {
        let body = self.body.as_ref().map(|(template, _)| template);
        [Some(&self.url), body].into_iter().flatten().any(|template| template.0.contains(&Part::Value(value)))
    }

    fn request(&self, asked: &RevokeRequest<'_>) -> Result<reqwest::RequestBuilder, DeliveryError> {
        if self.tenant.as_deref().is_some_and(|tenant| tenant != asked.tenant_id) {
            let whose = "the incident is of another tenant than the one of the provider (revoke.http.tenant)";
            return Err(refused(whose.to_owned()));
        }
        let url = self.url.fill(asked, Escape::Url).map_err(refused)?;
        let url = Url::parse(&url).map_err(|_| refused("the address is no URL once it is filled in".to_owned()))?;
        let mut request = self
            .client
            .request(self.method.clone(), url)
            .headers(self.headers.clone())
            .header("Idempotency-Key", asked.key);
        if !asked.tenant_id.is_empty() {
            // Two tenants may have grants of one id, and a preset names the id alone.
            request = request.header(TENANT_HEADER, utf8_percent_encode(asked.tenant_id, ESCAPED_IN_URLS).to_string());
        }
        if let Some((id, secret)) = &self.basic {
            request = request.basic_auth(form_encoded(id), Some(form_encoded(secret.expose_secret())));
        }
        if let Some(token) = &self.bearer {
            request = request.bearer_auth(token.expose_secret());
        }
        if let Some((template, format)) = &self.body {
            let (escape, content_type) = match format {
                BodyFormat::Json => (Escape::Json, "application/json"),
                BodyFormat::Form => (Escape::Form, "application/x-www-form-urlencoded"),
            };
            request = request.header("Content-Type", content_type).body(template.fill(asked, escape).map_err(refused)?);
        }
        Ok(request)
    }
}

#[async_trait]
impl Revoker for HttpRevoker {
    fn accepts(&self, target: &Target) -> bool {
        self.targets.contains(&TargetKind::of(target))
    }

    fn sends_token_ids(&self) -> bool {
        self.names(Value::TokenId) || self.names(Value::Id) && self.targets.contains(&TargetKind::Token)
    }

    fn tells_tenants_apart(&self) -> bool {
        self.tenant.is_some() || self.names(Value::TenantId)
    }

    async fn revoke(&self, asked: RevokeRequest<'_>) -> Result<Revoked, DeliveryError> {
        let failed = |error: &reqwest::Error| DeliveryError::Retriable {
            reason: outgoing::reason(error),
            status: 0,
            retry_after: None,
        };
        let mut answer = self.request(&asked)?.send().await.map_err(|error| failed(&error))?;
        let retry_after = outgoing::retry_after(answer.headers(), self.clock.now_millis());
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        if self.answers.look_at_body() {
            while let Some(part) = answer.chunk().await.map_err(|error| failed(&error))? {
                let room = BODY_BYTES_MAX - body.len();
                body.extend_from_slice(&part[..part.len().min(room)]);
                if part.len() >= room {
                    break;
                }
            }
        }
        self.answers.judge(&Answer { status, retry_after, body: &body })
    }
}

/// The tenant of the target, percent-encoded; absent where it has none.
const TENANT_HEADER: &str = "Tokenwarden-Tenant";

/// An answer's body is read up to here, bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What a provider answered.
struct Answer<'a> {
    status: u16,
    retry_after: Option<Duration>,
    /// Its first [`BODY_BYTES_MAX`] bytes; empty where no test of the body is configured.
    body: &'a [u8],
}

impl Answer<'_> {
    /// The error code in a JSON body, as RFC 6749 and most APIs give it. Anything else in a body may be a secret or a
    /// value of an event, and is repeated nowhere.
    fn error_code(&self) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(self.body).ok()?;
        let code = body.get("error")?.as_str()?;
        let is_code = !code.is_empty()
            && code.len() <= ERROR_CODE_BYTES_MAX
            && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        is_code.then(|| code.to_owned())
    }

    fn reason(&self, verb: &str) -> String {
        let code = self.error_code().map_or_else(String::new, |code| format!(" ({code})"));
        format!("the provider {verb} {}{code}", self.status)
    }
}

/// Longest error code that is repeated; a token is longer.
const ERROR_CODE_BYTES_MAX: usize = 30;

/// What the body of an answer must hold.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "a text that the body must hold, a list of such texts, or { pointer = \"/ok\", equals = true }"
)]
pub enum BodyTest {
    /// This text, white space aside.
    Text(String),
    /// One of these texts, white space aside.
    AnyText(Vec<String>),
    /// In JSON, this value at this place.
    Value(ValueTest),
}

/// See [`BodyTest::Value`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueTest {
    /// A JSON pointer (RFC 6901).
    pub pointer: String,
    pub equals: serde_json::Value,
}

impl BodyTest {
    /// What is wrong with it, if anything: an empty text would be held by every body.
    fn check(&self) -> Result<(), String> {
        let texts = match self {
            Self::Text(text) => std::slice::from_ref(text),
            Self::AnyText(texts) => texts,
            Self::Value(test) if test.pointer.is_empty() || test.pointer.starts_with('/') => return Ok(()),
            Self::Value(_) => return Err("has a `pointer` that does not begin with `/`, as \"/ok\"".to_owned()),
        };
        if texts.is_empty() || texts.iter().any(|text| text.trim().is_empty()) {
            return Err("is empty: every answer would match it".to_owned());
        }
        Ok(())
    }

    fn holds(&self, body: &[u8]) -> bool {
        match self {
            Self::Text(text) => holds_text(body, text),
            Self::AnyText(texts) => texts.iter().any(|text| holds_text(body, text)),
            Self::Value(test) => serde_json::from_slice::<serde_json::Value>(body)
                .is_ok_and(|body| body.pointer(&test.pointer) == Some(&test.equals)),
        }
    }
}

fn holds_text(body: &[u8], text: &str) -> bool {
    let without_space = |bytes: &[u8]| bytes.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect::<Vec<_>>();
    memchr::memmem::find(&without_space(body), &without_space(text.as_bytes())).is_some()
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq)]
struct Answers {
    done: Option<Vec<u16>>,
    done_when: Option<BodyTest>,
    already_gone: Vec<u16>,
    already_gone_when: Option<BodyTest>,
    retry: Option<Vec<u16>>,
}

impl Answers {
    /// The error is a key below `[revoke.http]` and what is wrong with it.
    fn of(settings: &HttpRevokerSettings) -> Result<Self, (&'static str, String)> {
        let gone = match settings.preset {
            Preset::Custom | Preset::ById => vec![404, 410],
            // To RFC 7009 an unknown token is a success, and the others have statuses and texts of their own: 404 can
            // only mean that the address or the client is wrong.
            Preset::Rfc7009 | Preset::Slack | Preset::Google | Preset::Twitch => Vec::new(),
        };
        let value = |pointer: &str, equals: serde_json::Value| {
            Some(BodyTest::Value(ValueTest { pointer: pointer.to_owned(), equals }))
        };
        let texts = |texts: &[&str]| Some(BodyTest::AnyText(texts.iter().map(|text| (*text).to_owned()).collect()));
        let (done_when, already_gone_when) = match settings.preset {
            Preset::Custom | Preset::Rfc7009 | Preset::ById => (None, None),
            Preset::Slack => (value("/ok", true.into()), texts(&SLACK_GONE)),
            Preset::Google => (None, value("/error", "invalid_token".into())),
            Preset::Twitch => (None, value("/message", "Invalid token".into())),
        };
        let answers = Self {
            done: settings.done.clone(),
            done_when: settings.done_when.clone().or(done_when),
            already_gone: settings.already_gone.clone().unwrap_or(gone),
            already_gone_when: settings.already_gone_when.clone().or(already_gone_when),
            retry: settings.retry.clone(),
        };
        for (key, test) in [("done_when", &answers.done_when), ("already_gone_when", &answers.already_gone_when)] {
            test.as_ref().map_or(Ok(()), BodyTest::check).map_err(|problem| (key, problem))?;
        }
        Ok(answers)
    }

    const fn look_at_body(&self) -> bool {
        self.done_when.is_some() || self.already_gone_when.is_some()
    }

    /// Done, already gone, worth another attempt, or refused.
    fn judge(&self, answer: &Answer<'_>) -> Result<Revoked, DeliveryError> {
        let Answer { status, retry_after, body } = *answer;
        let holds = |test: &Option<BodyTest>| test.as_ref().map(|test| test.holds(body));
        // These statuses refuse our own credentials; an `invalid_token` beside them is not the one to be revoked.
        let speaks_of_us = matches!(status, 401 | 403);
        if !speaks_of_us && holds(&self.already_gone_when) == Some(true) {
            return Ok(Revoked::AlreadyGone { status });
        }
        let done = self.done.as_ref().map_or((200..300).contains(&status), |done| done.contains(&status));
        let retry =
            self.retry.as_ref().map_or(matches!(status, 408 | 425 | 429 | 500..=599), |retry| retry.contains(&status));
        if done {
            return match holds(&self.done_when) {
                Some(false) => Err(DeliveryError::Permanent { reason: answer.reason("refused with status"), status }),
                Some(true) | None => Ok(Revoked::Done { status }),
            };
        }
        if self.already_gone.contains(&status) {
            Ok(Revoked::AlreadyGone { status })
        } else if retry {
            Err(DeliveryError::Retriable { reason: answer.reason("answered"), status, retry_after })
        } else {
            Err(DeliveryError::Permanent { reason: answer.reason("answered"), status })
        }
    }
}

/// Errors of Slack's `auth.revoke` that say that the token no longer works.
const SLACK_GONE: [&str; 3] =
    [r#""error":"token_revoked""#, r#""error":"token_expired""#, r#""error":"account_inactive""#];

fn refused(reason: String) -> DeliveryError {
    DeliveryError::Permanent { reason, status: 0 }
}

fn headers(settings: &HttpRevokerSettings) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header's name"))?;
        let mut value = HeaderValue::from_str(value.expose_secret())
            .map_err(|_| format!("the value of `{name}` cannot stand in a header"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// RFC 6749, 2.3.1: id and secret are form-encoded before they become user and password.
fn form_encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Text with `{name}` in the places of values.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Value),
}

/// What a template can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// The target's.
    Id,
    /// `token`, `family` or `app`.
    Kind,
    /// `token_type_hint` of RFC 7009: a family is revoked by its refresh token.
    Hint,
    TokenId,
    FamilyId,
    AppId,
    UserId,
    TenantId,
    Reason,
    Key,
}

const VALUES: [(&str, Value); 10] = [
    ("id", Value::Id),
    ("kind", Value::Kind),
    ("hint", Value::Hint),
    ("token_id", Value::TokenId),
    ("family_id", Value::FamilyId),
    ("app_id", Value::AppId),
    ("user_id", Value::UserId),
    ("tenant_id", Value::TenantId),
    ("reason", Value::Reason),
    ("key", Value::Key),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    Url,
    Json,
    Form,
}

/// All but the unreserved characters of RFC 3986.
const ESCAPED_IN_URLS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Template {
    /// `{word}` is a value; any other brace is text, as JSON needs it.
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, after) = rest.split_at(at);
            literal.push_str(before);
            let word_end =
                after[1..].find(|c: char| !c.is_ascii_lowercase() && c != '_').map_or(after.len(), |e| e + 1);
            let word = &after[1..word_end];
            if word.is_empty() || !after[word_end..].starts_with('}') {
                literal.push('{');
                rest = &after[1..];
                continue;
            }
            let Some((_, value)) = VALUES.iter().find(|(name, _)| *name == word) else {
                let known: Vec<_> = VALUES.iter().map(|(name, _)| format!("{{{name}}}")).collect();
                return Err(format!("has `{{{word}}}`, which stands for nothing; known are {}", known.join(", ")));
            };
            parts.push(Part::Text(std::mem::take(&mut literal)));
            parts.push(Part::Value(*value));
            rest = &after[word_end + 1..];
        }
        literal.push_str(rest);
        parts.push(Part::Text(literal));
        Ok(Self(parts))
    }

    /// The address with values in place, to be checked before any is known. The host must not depend on them.
    fn example(&self) -> Result<Url, String> {
        let filled = |value: &str| {
            let text: String = self
                .0
                .iter()
                .map(|part| match part {
                    Part::Text(text) => text.as_str(),
                    Part::Value(_) => value,
                })
                .collect();
            Url::parse(&text).map_err(|error| format!("is no URL: {error}"))
        };
        let (one, other) = (filled("a")?, filled("b")?);
        if one[..url::Position::BeforePath] != other[..url::Position::BeforePath] {
            return Err("must have a fixed host: ids may stand in its path and query".to_owned());
        }
        Ok(one)
    }

    /// The error says what the incident lacks: an empty id would make another request of it, to delete a whole
    /// collection at worst.
    fn fill(&self, asked: &RevokeRequest<'_>, escape: Escape) -> Result<String, String> {
        let mut filled = String::new();
        for part in &self.0 {
            let value = match part {
                Part::Text(text) => {
                    filled.push_str(text);
                    continue;
                }
                Part::Value(value) => value,
            };
            let text = value.of(asked);
            let name = VALUES.iter().find(|(_, known)| known == value).map_or("", |(name, _)| name);
            if text.is_empty() {
                return Err(format!("the request needs `{name}`, and the incident has none"));
            }
            match escape {
                // Even written as %2E, a segment of dots is taken as a step up.
                Escape::Url if text == "." || text == ".." => {
                    return Err(format!("`{name}` is `{text}`, which cannot stand in an address"));
                }
                Escape::Url => filled.extend(utf8_percent_encode(text, ESCAPED_IN_URLS)),
                Escape::Form => filled.extend(url::form_urlencoded::byte_serialize(text.as_bytes())),
                Escape::Json => {
                    let quoted = serde_json::Value::from(text).to_string();
                    filled.push_str(&quoted[1..quoted.len() - 1]);
                }
            }
        }
        Ok(filled)
    }
}

impl Value {
    fn of<'a>(self, asked: &RevokeRequest<'a>) -> &'a str {
        match self {
            Self::Id => asked.target.id(),
            Self::Kind => asked.target.kind(),
            Self::Hint if matches!(asked.target, Target::Family(_)) => "refresh_token",
            Self::Hint => "access_token",
            Self::TokenId => asked.token_id,
            Self::FamilyId => asked.family_id,
            Self::AppId => asked.app_id,
            Self::UserId => asked.user_id,
            Self::TenantId => asked.tenant_id,
            Self::Reason => asked.reason,
            Self::Key => asked.key,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked<'a>(target: &'a Target, id: &'a str) -> RevokeRequest<'a> {
        RevokeRequest {
            target,
            tenant_id: "acme",
            user_id: id,
            app_id: "crm",
            family_id: "",
            token_id: id,
            reason: "two \"holders\"",
            key: "k-1",
        }
    }

    fn fill(template: &str, id: &str, escape: Escape) -> Result<String, String> {
        let target = Target::Token(id.to_owned());
        Template::parse(template)?.fill(&asked(&target, id), escape)
    }

    #[test]
    fn values_are_escaped_for_the_place_they_stand_in() {
        let id = "a/../b?c=d&e=f#g h{id}\"\\é";
        assert_eq!(
            fill("https://h/t/{id}?u={user_id}", id, Escape::Url).as_deref(),
            Ok(
                "https://h/t/a%2F..%2Fb%3Fc%3Dd%26e%3Df%23g%20h%7Bid%7D%22%5C%C3%A9?u=a%2F..%2Fb%3Fc%3Dd%26e%3Df%23g%20h%7Bid%7D%22%5C%C3%A9"
            )
        );
        assert_eq!(fill("token={id}&a={app_id}", "a&b=c d", Escape::Form).as_deref(), Ok("token=a%26b%3Dc+d&a=crm"));
        assert_eq!(
            fill(r#"{"id":"{id}","why":"{reason}"}"#, "a\"}\n", Escape::Json).as_deref(),
            Ok(r#"{"id":"a\"}\n","why":"two \"holders\""}"#)
        );
    }

    #[test]
    fn an_id_that_would_make_another_request_of_it_is_refused() {
        assert!(fill("https://h/t/{family_id}", "x", Escape::Url).is_err_and(|said| said.contains("`family_id`")));
        assert!(fill("https://h/t/{id}", "", Escape::Url).is_err());
        for dots in [".", ".."] {
            assert!(fill("https://h/t/{id}", dots, Escape::Url).is_err(), "{dots}");
        }
        assert!(Template::parse("https://h/{tokenid}").is_err_and(|said| said.contains("{token_id}")));
    }

    proptest! {
        #[test]
        fn whatever_the_id_the_path_keeps_its_shape(id in "\\PC{1,40}|[./%?#\\\\]{1,6}") {
            if let Ok(filled) = fill("https://h.example/tokens/{id}/sessions", &id, Escape::Url) {
                let url = Url::parse(&filled).expect("a URL");
                let segments: Vec<_> = url.path_segments().expect("segments").collect();
                prop_assert_eq!(segments.len(), 3);
                prop_assert_eq!((segments[0], segments[2]), ("tokens", "sessions"));
                prop_assert_eq!(
                    percent_encoding::percent_decode_str(segments[1]).decode_utf8().expect("UTF-8"), id.as_str()
                );
                prop_assert_eq!((url.host_str(), url.query(), url.fragment()), (Some("h.example"), None, None));
            } else {
                prop_assert!(id == "." || id == "..");
            }
        }

        #[test]
        fn whatever_the_id_a_json_body_keeps_its_shape(id in ".{1,40}") {
            let filled = fill(r#"{"token":"{id}","app":"{app_id}"}"#, &id, Escape::Json).expect("it is filled");
            let read: serde_json::Value = serde_json::from_str(&filled).expect("JSON");
            prop_assert_eq!(read, serde_json::json!({ "token": id, "app": "crm" }));
        }
    }

    struct At;

    impl Clock for At {
        fn now_millis(&self) -> i64 {
            0
        }
    }

    fn revoker(toml: &str) -> Result<HttpRevoker, (&'static str, String)> {
        HttpRevoker::new(&toml::from_str(toml).expect("settings"), Arc::new(At))
    }

    #[test]
    fn mistakes_are_told_by_key() {
        let mistake = |toml: &str| revoker(toml).map(|_| ()).expect_err(toml);
        assert_eq!(mistake("url = 'https://{tenant_id}.example/x'").0, "url");
        assert_eq!(mistake("url = 'https://{tenant_id}:x@h.example/x'").0, "url");
        assert_eq!(mistake("url = 'http://id.example/revoke'").0, "url");
        assert_eq!(mistake("url = 'https://h.example/{uid}'").0, "url");
        assert_eq!(mistake("url = 'https://h.example/'\nclient_id = 'x'").0, "client_id");
        assert_eq!(mistake("url = 'https://h.example/'\nheaders = { 'a b' = 'x' }").0, "headers");
        assert_eq!(mistake("url = 'https://h.example/'\nca_file = '/none'").0, "ca_file");
        assert_eq!(mistake("url = 'https://h.example/'\ntoken = 'x'\nclient_id = 'x'\nclient_secret = 'x'").0, "token");
    }

    #[test]
    fn targets_limit_what_is_accepted() {
        let accepted = |toml: &str| {
            let revoker = revoker(&format!("url = 'https://h.example/x'\n{toml}")).expect("a revoker");
            let target = [Target::Token("a".to_owned()), Target::Family("a".to_owned())];
            target.map(|target| revoker.accepts(&target))
        };
        for preset in ["", "preset = 'rfc7009'", "preset = 'by_id'"] {
            assert_eq!(accepted(preset), [true, true], "{preset}");
        }
        assert_eq!(accepted("targets = ['family']"), [false, true]);
        let app = toml::from_str::<HttpRevokerSettings>("url = 'https://h.example/x'\ntargets = ['app']");
        assert!(app.is_err(), "nothing asks for the revocation of an app yet");
    }

    #[test]
    fn statuses_mean_what_the_protocol_says() {
        let meaning = |toml: &str, status: u16| {
            let settings: HttpRevokerSettings = toml::from_str(toml).expect("settings");
            let answer = Answer { status, retry_after: Some(Duration::from_secs(9)), body: b"" };
            match Answers::of(&settings).expect("settings").judge(&answer) {
                Ok(Revoked::Done { .. }) => "done",
                Ok(Revoked::AlreadyGone { .. }) => "gone",
                Err(DeliveryError::Retriable { retry_after: Some(_), .. }) => "retry",
                Err(_) => "give up",
            }
        };
        let told = |toml: &str| [200, 204, 302, 400, 401, 404, 410, 429, 500, 503].map(|status| meaning(toml, status));
        let rfc7009 = "preset = 'rfc7009'\nurl = 'https://h.example/'";
        assert_eq!(
            told(rfc7009),
            ["done", "done", "give up", "give up", "give up", "give up", "give up", "retry", "retry", "retry"]
        );
        let by_id = "preset = 'by_id'\nurl = 'https://h.example/'";
        assert_eq!(
            told(by_id),
            ["done", "done", "give up", "give up", "give up", "gone", "gone", "retry", "retry", "retry"]
        );
        let own = "url = 'https://h.example/'\ndone = [302]\nalready_gone = [400]\nretry = [401]";
        assert_eq!(
            told(own),
            ["give up", "give up", "done", "gone", "retry", "give up", "give up", "give up", "give up", "give up"]
        );
    }

    fn outcome(toml: &str, status: u16, body: &str) -> Result<&'static str, String> {
        let settings: HttpRevokerSettings = toml::from_str(toml).expect("settings");
        let answers = Answers::of(&settings).expect("settings");
        match answers.judge(&Answer { status, retry_after: None, body: body.as_bytes() }) {
            Ok(Revoked::Done { .. }) => Ok("done"),
            Ok(Revoked::AlreadyGone { .. }) => Ok("already_gone"),
            Err(DeliveryError::Retriable { .. }) => Ok("retry"),
            Err(DeliveryError::Permanent { reason, .. } | DeliveryError::Rejected { reason, .. }) => Err(reason),
        }
    }

    #[test]
    fn body_of_an_answer_decides_where_configured() {
        let own = "url = 'https://h.example/'\ndone_when = '\"ok\":true'\nalready_gone_when = 'token_revoked'";
        let refused = |code: &str| Err(format!("the provider refused with status 200 ({code})"));
        assert_eq!(outcome(own, 200, r#"{"ok":false,"error":"not_authed"}"#), refused("not_authed"));
        assert_eq!(outcome(own, 200, r#"{"ok":false,"error":"token_revoked"}"#), Ok("already_gone"));
        assert_eq!(outcome(own, 200, "{\n  \"ok\" : true, \"revoked\": true}"), Ok("done"), "white space aside");
        assert_eq!(outcome(own, 200, ""), Err("the provider refused with status 200".to_owned()));
        assert_eq!(outcome(own, 500, r#"{"ok":true}"#), Ok("retry"), "the status comes first");
        let rfc7009 = "preset = 'rfc7009'\nurl = 'https://h.example/'\nalready_gone_when = 'invalid_token'";
        assert_eq!(outcome(rfc7009, 400, r#"{"error":"invalid_token"}"#), Ok("already_gone"));
        let said = "the provider answered 400 (invalid_request)".to_owned();
        assert_eq!(outcome(rfc7009, 400, r#"{"error":"invalid_request"}"#), Err(said));
        for status in [401, 403] {
            let said = format!("the provider answered {status} (invalid_token)");
            assert_eq!(outcome(rfc7009, status, r#"{"error":"invalid_token"}"#), Err(said), "our own token");
        }
        let value = "url = 'https://h.example/'\ndone_when = { pointer = '/result/ok', equals = true }";
        assert_eq!(outcome(value, 200, r#"{"result":{"ok":true}}"#), Ok("done"));
        assert!(outcome(value, 200, r#"{"result":{"ok":"true"}}"#).is_err());
        assert!(outcome(value, 200, r#"{"result":{"ok":true"#).is_err(), "cut short");
    }

    #[test]
    fn body_of_an_answer_is_not_repeated() {
        let own = "url = 'https://h.example/'\ndone_when = 'yes'";
        for body in [r#"{"error":"xoxb-1-2-abcdefghij"}"#, r#"{"error":"user ana@example.com"}"#, "secret", "{"] {
            assert_eq!(outcome(own, 200, body), Err("the provider refused with status 200".to_owned()), "{body}");
        }
    }

    #[test]
    fn presets_know_what_their_vendors_answer() {
        let preset = |name: &str| format!("preset = '{name}'\nclient_id = 'c'\nurl = 'https://h.example/'");
        let (slack, google, twitch) = (preset("slack"), preset("google"), preset("twitch"));
        assert_eq!(outcome(&slack, 200, r#"{"ok": true, "revoked": true}"#), Ok("done"));
        assert_eq!(outcome(&slack, 200, r#"{"ok": false, "error": "token_revoked"}"#), Ok("already_gone"));
        assert!(outcome(&slack, 200, r#"{"ok": false, "error": "invalid_auth"}"#).is_err());
        assert_eq!(outcome(&slack, 429, ""), Ok("retry"));
        assert_eq!(outcome(&google, 200, ""), Ok("done"));
        assert_eq!(outcome(&google, 400, r#"{"error": "invalid_token"}"#), Ok("already_gone"));
        assert!(outcome(&google, 400, r#"{"error": "invalid_request"}"#).is_err());
        assert_eq!(outcome(&twitch, 400, r#"{"status": 400, "message": "Invalid token"}"#), Ok("already_gone"));
        assert!(outcome(&twitch, 404, r#"{"status": 404, "message": "client does not exist"}"#).is_err());
    }

    #[test]
    fn twitch_preset_sends_the_client_in_the_body() {
        let twitch =
            revoker("preset = 'twitch'\nclient_id = 'a{id}&b'\nurl = 'https://h.example/'").expect("a revoker");
        let target = Target::Token("t".to_owned());
        let (template, _) = twitch.body.as_ref().expect("a body");
        let body = template.fill(&asked(&target, "t&u"), Escape::Form);
        assert_eq!(body.as_deref(), Ok("client_id=a%7Bid%7D%26b&token=t"));
        assert!(twitch.basic.is_none());
        assert_eq!(
            revoker("preset = 'twitch'\nurl = 'https://h.example/'").map(|_| ()).expect_err("a key").0,
            "client_id"
        );
    }

    #[test]
    fn body_test_that_every_answer_passes_is_refused() {
        let mistake = |line: &str| revoker(&format!("url = 'https://h.example/'\n{line}")).map(|_| ()).expect_err(line);
        assert_eq!(mistake("done_when = ' '").0, "done_when");
        assert_eq!(mistake("already_gone_when = []").0, "already_gone_when");
        assert_eq!(mistake("done_when = { pointer = 'ok', equals = true }").0, "done_when");
    }
}
