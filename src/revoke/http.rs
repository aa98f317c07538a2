//! The HTTP revoker. Method, URL, headers and body are templates, of a preset or of the configuration. The status of the
//! response and its body determine the outcome.

mod answer;
mod auth;
mod auth_settings;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod contract_auth;
#[cfg(test)]
mod contract_read;
#[cfg(test)]
mod contract_table;
#[cfg(test)]
mod keycloak;
mod preset;
mod request;
mod settings;
mod shipped;
mod template;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use percent_encoding::utf8_percent_encode;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Client, Request, Response, StatusCode};

use xxhash_rust::xxh3::xxh3_128;

pub(crate) use self::answer::rejects_own_credential;
use self::answer::{Answer, Answers, BODY_BYTES_MAX};
use self::auth::{Auth, Renewal};
use self::preset::{Need, Preset};
use self::request::RequestTemplate;
pub use self::settings::HttpRevokerSettings;
use self::settings::TargetKind;
use self::template::{ESCAPED_IN_URLS, Filling, Value};
use self::verify::Verify;
use crate::outgoing;
use crate::port::{Clock, DeliveryError, Mistake, Radius, RevokeRequest, Revoked, Revoker};
use crate::verdict::Target;

/// The revoker, see the module documentation.
pub struct HttpRevoker {
    client: Client,
    clock: Arc<dyn Clock>,
    preset: Preset,
    request: RequestTemplate,
    /// [`Revoker::fingerprint`]: a hash of the URL with its fixed values, and of the tenant.
    fingerprint: String,
    targets: Vec<TargetKind>,
    radius: Option<Radius>,
    tenant: Option<String>,
    answers: Answers,
    verify: Option<Verify>,
    auth: Auth,
}

/// Waits before the reads after a revocation. The read repeats as long as the token is active.
const READ_WAITS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(2)];

impl HttpRevoker {
    /// The error is about a key in `[revoke.http]`.
    pub fn new(settings: &HttpRevokerSettings, clock: Arc<dyn Clock>) -> Result<Self, Mistake> {
        let preset = Preset::of(settings)?;
        let request = preset.request.with(settings);
        let values = settings.fixed_values();
        let request = RequestTemplate::new(&request, &values)?.with_headers(settings)?;
        let url = request.example_url().map_err(Mistake::of("url"))?;
        let client = outgoing::client(&url, settings.allow_private, settings.ca_file.as_deref());
        let client = client.map_err(Mistake::of(if settings.ca_file.is_some() { "ca_file" } else { "url" }))?;
        let targets = settings.targets.clone().unwrap_or_else(|| preset.targets());
        let radius = radius(settings, &preset, &targets)?;
        let answers = Answers::of(settings.answers(), &preset.answer)?;
        let verify = Verify::of(settings, &preset, &values)?;
        let auth = Auth::new(settings, &preset, &clock)?;
        let tenant = settings.tenant.clone();
        let fingerprint = format!("{:032x}", xxh3_128(format!("{url} {tenant:?}").as_bytes()));
        Ok(Self { client, clock, preset, request, fingerprint, targets, radius, tenant, answers, verify, auth })
    }

    /// The request at `now`, milliseconds since the epoch, wall clock.
    fn request(&self, asked: &RevokeRequest<'_>, now: i64) -> Result<Request, DeliveryError> {
        if self.tenant.as_deref().is_some_and(|tenant| tenant != asked.tenant_id) {
            let whose = "the tenant is not that of the provider (revoke.http.tenant)";
            return Err(refused(whose.to_owned()));
        }
        let mut request = self.request.fill(&self.client, &Filling { asked, now }).map_err(refused)?;
        let tenant = utf8_percent_encode(asked.tenant_id, ESCAPED_IN_URLS).to_string();
        for (name, value) in [(KEY_HEADER, asked.key), (TENANT_HEADER, &tenant)] {
            // Two tenants may have grants with the same id, and a preset sends only the id.
            if !value.is_empty() {
                let value = HeaderValue::from_str(value);
                let value = value.map_err(|_| refused(format!("the header {name} cannot contain its value")))?;
                request.headers_mut().insert(name, value);
            }
        }
        Ok(request)
    }

    /// Reads whether the token is inactive, after the provider answered `status` to its revocation. `with` has the time of
    /// the revocation. Returns the time of the read that showed it. `None` if no read showed the state.
    async fn check(&self, verify: &Verify, with: &Filling<'_>, status: u16) -> Result<Option<i64>, DeliveryError> {
        for wait in READ_WAITS {
            self.clock.sleep(wait).await;
            match self.read(verify, with).await {
                Ok(Some(true)) => return Ok(Some(self.clock.now_millis())),
                Ok(Some(false)) => {}
                Ok(None) => {
                    tracing::warn!(
                        "a revocation is not verified: the answer does not show whether the token is active"
                    );
                    return Ok(None);
                }
                Err(error) => {
                    tracing::warn!(%error, "a revocation is not verified");
                    return Ok(None);
                }
            }
        }
        if verify.is_eventual {
            tracing::warn!("a revocation is not verified: the provider has not applied it yet");
            return Ok(None);
        }
        let reason = format!("the provider answered {status}, and the token is still active");
        Err(DeliveryError::Permanent { reason, status })
    }

    async fn read(&self, verify: &Verify, with: &Filling<'_>) -> Result<Option<bool>, DeliveryError> {
        let mut answer = self.send(verify.request.fill(&self.client, with).map_err(refused)?).await?;
        let body = outgoing::body(&mut answer, BODY_BYTES_MAX).await.map_err(|error| retriable(&error))?;
        Ok(verify.is_inactive(answer.status().as_u16(), &body, with))
    }

    /// Sends `request` with tokenwarden's credential, and once more if the provider rejects a cached one.
    async fn send(&self, request: Request) -> Result<Response, DeliveryError> {
        let again = request.try_clone();
        let (answer, renewal) = self.attempt(request).await?;
        match again {
            Some(request) if answer.status() == StatusCode::UNAUTHORIZED && renewal == Renewal::Possible => {
                self.auth.forget().await;
                Ok(self.attempt(request).await?.0)
            }
            _ => Ok(answer),
        }
    }

    async fn attempt(&self, mut request: Request) -> Result<(Response, Renewal), DeliveryError> {
        let renewal = self.auth.sign(&mut request).await?;
        let answer = self.client.execute(request).await.map_err(|error| retriable(&error))?;
        Ok((answer, renewal))
    }
}

/// What a request revokes. `None`: the target and no more. If it is more than a target, the configuration must allow it.
fn radius(settings: &HttpRevokerSettings, preset: &Preset, targets: &[TargetKind]) -> Result<Option<Radius>, Mistake> {
    let Some(radius) = preset.radius.max(settings.radius) else { return Ok(None) };
    let smallest = targets.iter().map(|kind| kind.radius()).min().unwrap_or(Radius::Token);
    if radius > smallest && settings.radius.is_none_or(|allowed| allowed < radius) {
        let (all, one) = (radius.as_str(), smallest.as_str());
        let key = if settings.radius.is_some() { "radius" } else { preset_key(settings) };
        let fix = format!(
            "{}, with the radius `{all}`, for incidents about one {one}; to allow this, write `radius = \"{all}\"` in \
             [revoke.http]",
            preset.about
        );
        return Err(Mistake::new(key, fix));
    }
    Ok(Some(radius))
}

const fn preset_key(settings: &HttpRevokerSettings) -> &'static str {
    if settings.preset_file.is_some() { "preset_file" } else { "preset" }
}

#[async_trait]
impl Revoker for HttpRevoker {
    fn accepts(&self, target: &Target) -> bool {
        self.targets.contains(&TargetKind::of(target))
    }

    fn fingerprint(&self) -> Option<String> {
        Some(self.fingerprint.clone())
    }

    fn sends_token_ids(&self) -> bool {
        let names = |value| self.request.names(value);
        names(Value::TokenId) || names(Value::Id) && self.targets.contains(&TargetKind::Token)
    }

    fn tells_tenants_apart(&self) -> bool {
        self.tenant.is_some() || self.request.names(Value::TenantId)
    }

    fn radius(&self) -> Option<Radius> {
        self.radius
    }

    fn about(&self) -> Option<String> {
        let preset = &self.preset;
        (!preset.name.is_empty()).then(|| format!("{}: {}", preset.name, preset.about))
    }

    fn limits(&self) -> Vec<&str> {
        let needs_value = self.preset.needs.contains(&Need::TokenValue);
        let needs_value = needs_value.then_some(
            "the preset sends the token itself, and events have only its id; use an endpoint that accepts the id, such as \
             your own gateway",
        );
        let unverified = self.preset.unverified.as_deref().filter(|_| self.verify.is_none());
        needs_value.into_iter().chain(self.preset.limits.as_deref()).chain(unverified).collect()
    }

    fn check(&self, asked: &RevokeRequest<'_>) -> Result<(), String> {
        match self.request(asked, self.clock.now_millis()) {
            Ok(_) => Ok(()),
            Err(DeliveryError::Permanent { reason, .. }) => Err(reason),
            Err(other) => Err(other.to_string()),
        }
    }

    async fn revoke(&self, asked: RevokeRequest<'_>) -> Result<Revoked, DeliveryError> {
        let with = Filling { asked: &asked, now: self.clock.now_millis() };
        let mut answer = self.send(self.request(&asked, with.now)?).await?;
        let at = self.clock.now_millis();
        let retry_after = outgoing::retry_after(answer.headers(), at);
        let status = answer.status().as_u16();
        let body = match outgoing::body(&mut answer, BODY_BYTES_MAX).await {
            Ok(body) => body,
            Err(error) if self.answers.look_at_body() => return Err(retriable(&error)),
            // The status alone decides.
            Err(_) => Vec::new(),
        };
        let mut revoked = self.answers.classify(&Answer { status, retry_after, body: &body, at })?;
        match &mut revoked {
            Revoked::Done { status, confirmation } => {
                confirmation.radius = self.radius;
                if let Some(verify) = self.verify.as_ref().filter(|verify| verify.shows(asked.target)) {
                    confirmation.verified_at = self.check(verify, &with, *status).await?;
                }
            }
            Revoked::AlreadyGone { confirmation, .. } => confirmation.radius = self.radius,
        }
        Ok(revoked)
    }
}

const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Header with the tenant of the target, percent-encoded. Absent if the target has no tenant.
const TENANT_HEADER: HeaderName = HeaderName::from_static("tokenwarden-tenant");

fn refused(reason: String) -> DeliveryError {
    DeliveryError::Permanent { reason, status: 0 }
}

fn retriable(error: &reqwest::Error) -> DeliveryError {
    DeliveryError::Retriable { reason: outgoing::reason(error), status: 0, retry_after: None }
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

    fn revoker(toml: &str) -> Result<HttpRevoker, Mistake> {
        HttpRevoker::new(&toml::from_str(toml).expect("settings"), Arc::new(At))
    }

    #[test]
    fn settings_error_has_the_key() {
        let mistake = |toml: &str| revoker(toml).map(|_| ()).expect_err(toml);
        assert_eq!(mistake("url = 'https://{tenant_id}.example/x'").key, "url");
        assert_eq!(mistake("url = 'https://{tenant_id}:x@h.example/x'").key, "url");
        assert_eq!(mistake("url = 'http://id.example/revoke'").key, "url");
        assert_eq!(mistake("url = 'https://h.example/{uid}'").key, "url");
        assert_eq!(mistake("url = 'https://h.example/'\nclient_id = 'x'").key, "client_id");
        assert_eq!(mistake("url = 'https://h.example/'\nheaders = { 'a b' = 'x' }").key, "headers");
        assert_eq!(mistake("url = 'https://h.example/'\nca_file = '/none'").key, "ca_file");
        assert_eq!(
            mistake("url = 'https://h.example/'\ntoken = 'x'\nclient_id = 'x'\nclient_secret = 'x'").key,
            "token"
        );
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
        let request = twitch.request(&asked(&target, "t&u"), 0).expect("a request");
        let body = request.body().and_then(reqwest::Body::as_bytes).expect("a body");
        assert_eq!(String::from_utf8_lossy(body), "client_id=a%7Bid%7D%26b&token=t");
        assert!(matches!(twitch.auth, Auth::None));
        assert_eq!(
            revoker("preset = 'twitch'\nurl = 'https://h.example/'").map(|_| ()).expect_err("a key").key,
            "client_id"
        );
    }

    #[test]
    fn larger_radius_must_be_allowed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("sessions.toml");
        std::fs::write(
            &file,
            "about = 'revokes all'\nneeds = ['user']\nradius = 'user'\n[request]\npath = '/{user_id}'",
        )
        .expect("a file");
        let preset = |keys: &str| {
            revoker(&format!("preset_file = '{}'\nurl = 'https://h.example'\n{keys}", file.display()))
                .map(|revoker| revoker.radius())
        };
        let Mistake { key, problem } = preset("").expect_err("it is not allowed");
        assert_eq!(key, "preset_file");
        assert!(problem.contains("write `radius = \"user\"` in [revoke.http]"), "{problem}");
        assert_eq!(preset("radius = 'grant'").expect_err("it is too small").key, "radius");
        assert_eq!(preset("radius = 'user'"), Ok(Some(Radius::User)));
        // The operator states the radius of an own template.
        let own = revoker("url = 'https://h.example/{user_id}'\nradius = 'user'").expect("a revoker");
        assert_eq!(own.radius(), Some(Radius::User));
        assert_eq!(revoker("url = 'https://h.example/{id}'").expect("a revoker").radius(), None);
    }

    #[test]
    fn preset_may_have_its_own_url() {
        let google = revoker("preset = 'google'\nradius = 'grant'").expect("a revoker");
        let target = Target::Token("t".to_owned());
        assert_eq!(
            google.request(&asked(&target, "t"), 0).expect("a request").url().as_str(),
            "https://oauth2.googleapis.com/revoke"
        );
        assert_eq!(revoker("preset = 'rfc7009'").map(|_| ()).expect_err("no URL").key, "url");
        assert_eq!(
            revoker("preset = 'by_id'\nurl = 'https://h.example/x?a=b'").map(|_| ()).expect_err("a query").key,
            "url"
        );
    }

    #[test]
    fn body_test_that_always_passes_is_rejected() {
        let mistake = |line: &str| revoker(&format!("url = 'https://h.example/'\n{line}")).map(|_| ()).expect_err(line);
        assert_eq!(mistake("done_when = ' '").key, "done_when");
        assert_eq!(mistake("already_gone_when = []").key, "already_gone_when");
        assert_eq!(mistake("done_when = { pointer = 'ok', equals = true }").key, "done_when");
    }
}
