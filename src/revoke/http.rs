//! A revoker made of configuration: method, address, headers and body are templates, and the status of the answer
//! says how it went. The presets are such templates.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

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
    /// What the provider can be asked to revoke: `token`, `family`, `app`.
    pub targets: Option<Vec<TargetKind>>,
    /// Statuses that mean: it is revoked.
    pub done: Option<Vec<u16>>,
    /// Statuses that mean: the provider does not know it any more.
    pub already_gone: Option<Vec<u16>>,
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
    statuses: Statuses,
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
        let body = match (settings.body.as_deref(), preset) {
            (Some(body), _) => Some((body, settings.body_format.unwrap_or_default())),
            (None, Preset::Rfc7009) => Some(("token={id}&token_type_hint={hint}", BodyFormat::Form)),
            (None, _) => None,
        };
        let body = match body {
            Some((text, format)) => Some((Template::parse(text).map_err(wrong("body"))?, format)),
            None => None,
        };
        let basic = match (&settings.client_id, &settings.client_secret) {
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
            statuses: Statuses::of(settings),
            basic,
            bearer: settings.token.clone(),
        })
    }

    /// Where requests go, for people.
    #[must_use]
    pub fn host(&self) -> String {
        self.url.example().ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }

    fn request(&self, asked: &RevokeRequest<'_>) -> Result<reqwest::RequestBuilder, DeliveryError> {
        let url = self.url.fill(asked, Escape::Url).map_err(refused)?;
        let url = Url::parse(&url).map_err(|_| refused("the address is no URL once it is filled in".to_owned()))?;
        let mut request = self
            .client
            .request(self.method.clone(), url)
            .headers(self.headers.clone())
            .header("Idempotency-Key", asked.key);
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

    async fn revoke(&self, asked: RevokeRequest<'_>) -> Result<Revoked, DeliveryError> {
        let answer = self.request(&asked)?.send().await.map_err(|error| DeliveryError::Retriable {
            reason: outgoing::reason(&error),
            status: 0,
            retry_after: None,
        })?;
        let wait = outgoing::retry_after(answer.headers(), self.clock.now_millis());
        self.statuses.judge(answer.status().as_u16(), wait)
    }
}

/// What an answer's status means.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Statuses {
    done: Option<Vec<u16>>,
    already_gone: Vec<u16>,
    retry: Option<Vec<u16>>,
}

impl Statuses {
    fn of(settings: &HttpRevokerSettings) -> Self {
        // To RFC 7009 an unknown token is a success: 404 can only mean that the address is wrong.
        let gone = if settings.preset == Preset::Rfc7009 { Vec::new() } else { vec![404, 410] };
        Self {
            done: settings.done.clone(),
            already_gone: settings.already_gone.clone().unwrap_or(gone),
            retry: settings.retry.clone(),
        }
    }

    /// Done, already gone, worth another attempt, or to be given up.
    fn judge(&self, status: u16, retry_after: Option<std::time::Duration>) -> Result<Revoked, DeliveryError> {
        let done = self.done.as_ref().map_or((200..300).contains(&status), |done| done.contains(&status));
        let retry =
            self.retry.as_ref().map_or(matches!(status, 408 | 425 | 429 | 500..=599), |retry| retry.contains(&status));
        if done {
            Ok(Revoked::Done { status })
        } else if self.already_gone.contains(&status) {
            Ok(Revoked::AlreadyGone { status })
        } else if retry {
            Err(DeliveryError::Retriable { reason: format!("the provider answered {status}"), status, retry_after })
        } else {
            Err(DeliveryError::Permanent { reason: format!("the provider answered {status}"), status })
        }
    }
}

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
    use std::time::Duration;

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
            match Statuses::of(&settings).judge(status, Some(Duration::from_secs(9))) {
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
}
