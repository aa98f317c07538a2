//! Access tokens for tokenwarden: requested from a token endpoint, and cached until shortly before they expire.

use std::sync::Arc;

use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Client, RequestBuilder, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use crate::jose::{Algorithm, SigningKey};
use crate::millis::MINUTE_MS;
use crate::outgoing::{self, error_code, is_retriable};
use crate::port::{Clock, DeliveryError, Mistake};
use crate::revoke::http::answer::BODY_BYTES_MAX;
use crate::revoke::http::auth_settings::{ClientCredentials, GithubAppSettings, GoogleSettings, OauthSettings};

/// A token is renewed this long before it expires.
const MARGIN_MS: i64 = MINUTE_MS;
/// Validity of a token whose answer does not state one.
const VALID_MS: i64 = 5 * MINUTE_MS;
/// GitHub accepts JWTs for at most ten minutes, and recommends to date them back because of clock drift.
const GITHUB_JWT_S: i64 = 9 * 60;
const DRIFT_S: i64 = 60;
/// Google accepts JWTs for at most an hour.
const GOOGLE_JWT_S: i64 = 3_600;

/// Whether a token was just issued, so that another one would not differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    Fresh,
    Cached,
}

/// Requests and caches access tokens.
pub(in crate::revoke::http) struct Issuer {
    client: Client,
    clock: Arc<dyn Clock>,
    endpoint: Url,
    grant: Grant,
    cached: Mutex<Option<Issued>>,
}

/// How a token is requested.
pub(super) enum Grant {
    Client { id: String, secret: SecretString, credentials: ClientCredentials, more: Vec<(&'static str, String)> },
    Google { key: SigningKey, email: String, scope: String, subject: Option<String> },
    Github { key: SigningKey, app_id: String },
}

struct Issued {
    /// `Bearer …`
    value: HeaderValue,
    /// Milliseconds since the epoch.
    until: i64,
}

impl Grant {
    pub(super) fn oauth(settings: &OauthSettings) -> Self {
        let more = [("scope", &settings.scope), ("audience", &settings.audience)];
        Self::Client {
            id: settings.client_id.clone(),
            secret: settings.client_secret.clone(),
            credentials: settings.credentials,
            more: more.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect(),
        }
    }

    /// The error is about a key in `[revoke.http]`.
    pub(super) fn google(settings: &GoogleSettings) -> Result<Self, Mistake> {
        let text = settings.private_key.expose_secret();
        let file: Option<Value> = serde_json::from_str(text).ok();
        let of_file = |name: &str| file.as_ref().and_then(|file| file.get(name)?.as_str());
        let Some(email) = settings.email.as_deref().or(of_file("client_email")) else {
            let problem = "is missing, and the private key is not a key file of a service account";
            return Err(Mistake::new("auth.email", problem));
        };
        Ok(Self::Google {
            key: key(of_file("private_key").unwrap_or(text))?,
            email: email.to_owned(),
            scope: settings.scope.clone(),
            subject: settings.subject.clone(),
        })
    }

    pub(super) fn github(settings: &GithubAppSettings) -> Result<Self, Mistake> {
        Ok(Self::Github { key: key(settings.private_key.expose_secret())?, app_id: settings.app_id.clone() })
    }

    /// The request for a token. `now`: seconds since the epoch.
    fn request(&self, client: &Client, endpoint: &Url, now: i64) -> Result<RequestBuilder, String> {
        let request = client.post(endpoint.clone());
        let signed = |key: &SigningKey, claims: &Value| {
            let header = Map::from_iter([("typ".to_owned(), Value::from("JWT"))]);
            key.sign(header, claims).map_err(|_| "a JWT cannot be signed".to_owned())
        };
        match self {
            Self::Client { id, secret, credentials, more } => {
                let mut fields = vec![("grant_type", "client_credentials")];
                fields.extend(more.iter().map(|(name, value)| (*name, value.as_str())));
                let secret = secret.expose_secret();
                let request = match credentials {
                    ClientCredentials::Basic => request.basic_auth(form_encoded(id), Some(form_encoded(secret))),
                    ClientCredentials::Body => {
                        fields.extend([("client_id", id.as_str()), ("client_secret", secret)]);
                        request
                    }
                };
                Ok(with_form(request, &fields))
            }
            Self::Google { key, email, scope, subject } => {
                let mut claims = json!({ "iss": email, "scope": scope, "aud": endpoint.as_str(),
                    "iat": now, "exp": now + GOOGLE_JWT_S });
                if let Some(subject) = subject {
                    claims["sub"] = Value::from(subject.as_str());
                }
                let assertion = signed(key, &claims)?;
                let grant_type = "urn:ietf:params:oauth:grant-type:jwt-bearer";
                Ok(with_form(request, &[("grant_type", grant_type), ("assertion", &assertion)]))
            }
            Self::Github { key, app_id } => {
                let claims = json!({ "iss": app_id, "iat": now - DRIFT_S, "exp": now + GITHUB_JWT_S });
                Ok(request.bearer_auth(signed(key, &claims)?).header(ACCEPT, "application/vnd.github+json"))
            }
        }
    }
}

impl Issuer {
    pub(super) fn new(client: Client, clock: Arc<dyn Clock>, endpoint: Url, grant: Grant) -> Self {
        Self { client, clock, endpoint, grant, cached: Mutex::default() }
    }

    /// The value of `Authorization`.
    pub(super) async fn credential(&self) -> Result<(HeaderValue, Age), DeliveryError> {
        let mut cached = self.cached.lock().await;
        if let Some(issued) = cached.as_ref().filter(|issued| issued.until > self.clock.now_millis()) {
            return Ok((issued.value.clone(), Age::Cached));
        }
        let issued = self.issue().await?;
        let value = issued.value.clone();
        *cached = Some(issued);
        Ok((value, Age::Fresh))
    }

    /// Discards the cached token, because the provider rejected it.
    pub(super) async fn forget(&self) {
        *self.cached.lock().await = None;
    }

    async fn issue(&self) -> Result<Issued, DeliveryError> {
        let now = self.clock.now_millis();
        let failed = |reason: String| DeliveryError::Retriable { reason, status: 0, retry_after: None };
        let request = self.grant.request(&self.client, &self.endpoint, now / 1_000).map_err(failed)?;
        let unreachable = |error: reqwest::Error| failed(format!("the token endpoint: {}", outgoing::reason(&error)));
        let mut answer = request.send().await.map_err(unreachable)?;
        let retry_after = outgoing::retry_after(answer.headers(), now);
        let status = answer.status();
        let body = outgoing::body(&mut answer, BODY_BYTES_MAX).await.map_err(unreachable)?;
        if !status.is_success() {
            let code = error_code(&body).map_or_else(String::new, |code| format!(" ({code})"));
            let reason = format!("the token endpoint answered {}{code}", status.as_u16());
            if is_retriable(status.as_u16()) {
                return Err(DeliveryError::Retriable { reason, status: status.as_u16(), retry_after });
            }
            // Any other answer rejects tokenwarden's own credential, as 401 does at the provider.
            return Err(DeliveryError::Permanent { reason, status: 401 });
        }
        issued(&body, now).ok_or_else(|| failed("the answer of the token endpoint contains no token".to_owned()))
    }
}

/// The token in an answer of RFC 6749 section 5.1 or of GitHub.
fn issued(body: &[u8], now: i64) -> Option<Issued> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let token = answer.get("access_token").or_else(|| answer.get("token"))?.as_str()?;
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    let seconds = answer.get("expires_in").and_then(Value::as_i64);
    let at: Option<jiff::Timestamp> = answer.get("expires_at").and_then(|at| at.as_str()?.parse().ok());
    let expires = match (seconds, at) {
        (Some(seconds), _) => now.saturating_add(seconds.saturating_mul(1_000)),
        (None, Some(at)) => at.as_millisecond(),
        (None, None) => now + VALID_MS,
    };
    Some(Issued { value, until: expires - MARGIN_MS })
}

fn key(pem: &str) -> Result<SigningKey, Mistake> {
    let key = SigningKey::parse(pem).filter(|key| key.algorithm() == Algorithm::Rs256);
    let problem = "is not a private RSA key of at least 2048 bits in PEM format";
    key.ok_or_else(|| Mistake::new("auth.private_key", problem))
}

fn with_form(request: RequestBuilder, fields: &[(&str, &str)]) -> RequestBuilder {
    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    request
        .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json")
        .body(form)
}

/// RFC 6749 section 2.3.1: id and secret are form-encoded for HTTP Basic.
pub(super) fn form_encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_cached_until_a_minute_before_its_end() {
        let until = |body: &str| issued(body.as_bytes(), 1_000_000).map(|issued| issued.until);
        assert_eq!(until(r#"{"access_token":"x","expires_in":3600}"#), Some(1_000_000 + 3_540_000));
        assert_eq!(until(r#"{"token":"x","expires_at":"1970-01-01T00:30:00Z"}"#), Some(1_740_000));
        assert_eq!(until(r#"{"access_token":"x"}"#), Some(1_000_000 + 240_000));
        assert_eq!(until(r#"{"access_token":"x","expires_in":9223372036854775807}"#), Some(i64::MAX - MARGIN_MS));
        for body in ["", "<html>", "{}", r#"{"access_token":7}"#, "{\"access_token\":\"a\\nb\"}"] {
            assert_eq!(until(body), None, "{body}");
        }
    }
}
