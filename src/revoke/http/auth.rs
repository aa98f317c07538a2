//! Authentication at the provider.

mod issuer;
mod sigv4;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use reqwest::{Request, Url};
use secrecy::ExposeSecret as _;

use self::issuer::{Age, Grant, Issuer, form_encoded};
use self::sigv4::AwsSigner;
use super::auth_settings::{AuthSettings, GithubAppSettings, HeaderSettings};
use super::preset::Preset;
use super::settings::{CLIENT_ID, HttpRevokerSettings};
use crate::outgoing;
use crate::port::{Clock, DeliveryError, Mistake};

/// The credential of tokenwarden.
pub(super) enum Auth {
    None,
    /// A constant header.
    Fixed(HeaderName, HeaderValue),
    /// Access tokens of a token endpoint.
    Issued(Box<Issuer>),
    Aws(Box<AwsSigner>, Arc<dyn Clock>),
}

/// Whether another attempt after 401 would have another credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    Possible,
    Useless,
}

impl Auth {
    /// The error is about a key in `[revoke.http]`.
    pub(super) fn new(
        settings: &HttpRevokerSettings,
        preset: &Preset,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Mistake> {
        let Some(auth) = &settings.auth else { return fixed(settings, preset) };
        if settings.client_secret.is_some() || settings.token.is_some() {
            let key = if settings.token.is_some() { "token" } else { "client_secret" };
            return Err(Mistake::new(key, "cannot be combined with [revoke.http.auth]; remove one"));
        }
        let issued = |grant: Grant, endpoint: &str, key: &'static str| {
            let url = Url::parse(endpoint).map_err(|error| Mistake::new(key, format!("is not a URL: {error}")))?;
            let client = outgoing::client(&url, settings.allow_private, settings.ca_file.as_deref());
            let client = client.map_err(Mistake::of(key))?;
            Ok(Self::Issued(Box::new(Issuer::new(client, Arc::clone(clock), url, grant))))
        };
        match auth {
            AuthSettings::Header(header) => header_of(header),
            AuthSettings::Oauth(oauth) => issued(Grant::oauth(oauth), &oauth.token_url, "auth.token_url"),
            AuthSettings::Google(google) => issued(Grant::google(google)?, &google.token_url, "auth.token_url"),
            AuthSettings::GithubApp(app) => issued(Grant::github(app)?, &installation(app)?, "auth.api_url"),
            AuthSettings::Aws(aws) => Ok(Self::Aws(Box::new(AwsSigner::new(aws)), Arc::clone(clock))),
        }
    }

    /// Adds the credential to `request`.
    pub(super) async fn sign(&self, request: &mut Request) -> Result<Renewal, DeliveryError> {
        match self {
            Self::None => {}
            Self::Fixed(name, value) => _ = request.headers_mut().insert(name, value.clone()),
            Self::Issued(issuer) => {
                let (value, age) = issuer.credential().await?;
                request.headers_mut().insert(AUTHORIZATION, value);
                if age == Age::Cached {
                    return Ok(Renewal::Possible);
                }
            }
            Self::Aws(signer, clock) => {
                let reason = "the AWS credential contains a character that a header cannot contain".to_owned();
                let result = signer.sign(request, clock.now_millis());
                result.map_err(|_| DeliveryError::Permanent { reason, status: 0 })?;
            }
        }
        Ok(Renewal::Useless)
    }

    /// Discards a cached credential, because the provider rejected it.
    pub(super) async fn forget(&self) {
        if let Self::Issued(issuer) = self {
            issuer.forget().await;
        }
    }
}

/// The credential of the keys `client_id`, `client_secret` and `token`.
fn fixed(settings: &HttpRevokerSettings, preset: &Preset) -> Result<Auth, Mistake> {
    let (key, authorization) = match (&settings.client_id, &settings.client_secret, &settings.token) {
        (_, Some(_), Some(_)) => {
            return Err(Mistake::new("token", "cannot be combined with `client_secret`; remove one"));
        }
        (Some(id), Some(secret), None) => {
            let both = format!("{}:{}", form_encoded(id), form_encoded(secret.expose_secret()));
            ("client_secret", format!("Basic {}", STANDARD.encode(both)))
        }
        (None, Some(_), None) => return Err(Mistake::new("client_secret", "requires `client_id`")),
        (_, None, Some(token)) => ("token", format!("Bearer {}", token.expose_secret())),
        (Some(_), None, None) if !preset.values.iter().any(|value| value == CLIENT_ID) => {
            return Err(Mistake::new("client_id", "requires `client_secret_file`"));
        }
        (_, None, None) => return Ok(Auth::None),
    };
    Ok(Auth::Fixed(AUTHORIZATION, secret_value(key, &authorization)?))
}

fn header_of(settings: &HeaderSettings) -> Result<Auth, Mistake> {
    let name = HeaderName::from_bytes(settings.header.as_bytes());
    let name = name.map_err(|_| Mistake::new("auth.header", format!("`{}` is not a header name", settings.header)))?;
    let token = settings.token.expose_secret();
    let value = settings.scheme.as_ref().map_or_else(|| token.to_owned(), |scheme| format!("{scheme} {token}"));
    Ok(Auth::Fixed(name, secret_value("auth.token", &value)?))
}

fn secret_value(key: &'static str, text: &str) -> Result<HeaderValue, Mistake> {
    let value = HeaderValue::from_str(text);
    let mut value = value.map_err(|_| Mistake::new(key, "contains a character that a header cannot contain"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// URL of the tokens of an installation of a GitHub App.
fn installation(settings: &GithubAppSettings) -> Result<String, Mistake> {
    let (url, id) = (settings.api_url.trim_end_matches('/'), &settings.installation_id);
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Mistake::new("auth.installation_id", "is not a number in quotes"));
    }
    Ok(format!("{url}/app/installations/{id}/access_tokens"))
}
