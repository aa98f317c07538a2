//! The HTTP revoker. Method, URL, headers and body are configured templates. The status of the response, and its body
//! if
//! configured, determine the outcome. The presets are such templates.

mod answer;
mod settings;
mod template;

use std::sync::Arc;

use async_trait::async_trait;
use percent_encoding::utf8_percent_encode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Url};
use secrecy::{ExposeSecret as _, SecretString};

use self::answer::{Answer, Answers, BODY_BYTES_MAX};
pub use self::settings::HttpRevokerSettings;
pub(crate) use self::settings::{BodyFormat, Preset, TargetKind};
use self::template::{ESCAPED_IN_URLS, Escape, Part, Template, Value};
use crate::outgoing;
use crate::port::{Clock, DeliveryError, RevokeRequest, Revoked, Revoker};
use crate::verdict::Target;

/// The revoker, see the module documentation.
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
    /// The error is the key in `[revoke.http]` and the problem; it contains no secret.
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
                .map_err(|_| ("method", format!("`{method}` is not an HTTP method")))?,
            (None, Preset::ById) => Method::DELETE,
            (None, _) => Method::POST,
        };
        // The encoded id contains no brace that the template parser would take for a value.
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
                    "is missing: the preset `twitch` requires the client id of the token".to_owned(),
                ));
            }
            (Some(id), Some(secret)) => Some((id.clone(), secret.clone())),
            (None, None) => None,
            (Some(_), None) => return Err(("client_id", "requires `client_secret_file`".to_owned())),
            (None, Some(_)) => return Err(("client_secret", "requires `client_id`".to_owned())),
        };
        if basic.is_some() && settings.token.is_some() {
            return Err(("token", "cannot be combined with `client_id`; remove one".to_owned()));
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

    /// Whether the URL or the body contains `value`.
    fn names(&self, value: Value) -> bool {
        let body = self.body.as_ref().map(|(template, _)| template);
        [Some(&self.url), body].into_iter().flatten().any(|template| template.0.contains(&Part::Value(value)))
    }

    fn request(&self, asked: &RevokeRequest<'_>) -> Result<reqwest::RequestBuilder, DeliveryError> {
        if self.tenant.as_deref().is_some_and(|tenant| tenant != asked.tenant_id) {
            let whose = "the tenant of the incident is not that of the provider (revoke.http.tenant)";
            return Err(refused(whose.to_owned()));
        }
        let url = self.url.fill(asked, Escape::Url).map_err(refused)?;
        let url =
            Url::parse(&url).map_err(|_| refused("the URL is invalid with the values of the incident".to_owned()))?;
        let mut request = self
            .client
            .request(self.method.clone(), url)
            .headers(self.headers.clone())
            .header("Idempotency-Key", asked.key);
        if !asked.tenant_id.is_empty() {
            // Two tenants may have grants with the same id, and a preset sends only the id.
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
        self.answers.classify(&Answer { status, retry_after, body: &body })
    }
}

/// Header with the tenant of the target, percent-encoded. Absent if the target has no tenant.
const TENANT_HEADER: &str = "Tokenwarden-Tenant";

fn refused(reason: String) -> DeliveryError {
    DeliveryError::Permanent { reason, status: 0 }
}

fn headers(settings: &HttpRevokerSettings) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a header name"))?;
        let mut value = HeaderValue::from_str(value.expose_secret())
            .map_err(|_| format!("the value of `{name}` is not a valid header value"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// RFC 6749 section 2.3.1: id and secret are form-encoded for HTTP Basic.
fn form_encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::template::asked;
    use super::*;

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
    fn settings_error_has_the_key() {
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
    fn targets_limit_the_accepted_revocations() {
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
        assert!(app.is_err(), "no incident requests the revocation of an app");
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
    fn body_test_that_always_passes_is_rejected() {
        let mistake = |line: &str| revoker(&format!("url = 'https://h.example/'\n{line}")).map(|_| ()).expect_err(line);
        assert_eq!(mistake("done_when = ' '").0, "done_when");
        assert_eq!(mistake("already_gone_when = []").0, "already_gone_when");
        assert_eq!(mistake("done_when = { pointer = 'ok', equals = true }").0, "done_when");
    }
}
