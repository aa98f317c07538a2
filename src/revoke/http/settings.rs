//! Settings of the HTTP revoker.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use crate::verdict::Target;

/// `[revoke.http]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpRevokerSettings {
    /// Defaults for the keys that are not set.
    #[serde(default)]
    pub(crate) preset: Preset,
    /// A template with a fixed host. The preset `by_id` appends the id.
    pub(crate) url: String,
    pub(crate) client_id: Option<String>,
    /// Sent with `client_id` as HTTP Basic authentication.
    pub(crate) client_secret: Option<SecretString>,
    /// Sent as bearer token.
    pub(crate) token: Option<SecretString>,
    pub(crate) method: Option<String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, SecretString>,
    /// A template.
    pub(crate) body: Option<String>,
    /// Escaping of ids in the body, and its content type.
    pub(crate) body_format: Option<BodyFormat>,
    /// Targets that the provider can revoke: `token`, `family`.
    pub(crate) targets: Option<Vec<TargetKind>>,
    /// The only tenant whose ids the provider has. Empty for events without a tenant.
    pub(crate) tenant: Option<String>,
    /// Statuses of a successful revocation.
    pub(crate) done: Option<Vec<u16>>,
    /// Required content of the body for a success, for providers that refuse with status 200.
    pub(crate) done_when: Option<BodyTest>,
    /// Statuses if the provider no longer has the token or grant.
    pub(crate) already_gone: Option<Vec<u16>>,
    /// Content of the body with the same meaning, for every status except 401 and 403.
    pub(crate) already_gone_when: Option<BodyTest>,
    /// Statuses that are retried. Any other status is permanent.
    pub(crate) retry: Option<Vec<u16>>,
    /// Allows a provider with a private address.
    #[serde(default)]
    pub(crate) allow_private: bool,
    /// Certificate authorities that are trusted in addition to those of the system, PEM.
    pub(crate) ca_file: Option<PathBuf>,
}

/// The built-in templates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Preset {
    /// No defaults.
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
pub(crate) enum BodyFormat {
    #[default]
    Json,
    Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TargetKind {
    Token,
    Family,
}

impl TargetKind {
    pub(super) const fn of(target: &Target) -> Self {
        match target {
            Target::Token(_) => Self::Token,
            Target::Family(_) => Self::Family,
        }
    }
}

/// Required content of a response body.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "a text that the body must hold, a list of such texts, or { pointer = \"/ok\", equals = true }"
)]
pub(crate) enum BodyTest {
    /// This text. White space is ignored.
    Text(String),
    /// One of these texts. White space is ignored.
    AnyText(Vec<String>),
    /// This value at this position of a JSON body.
    Value(ValueTest),
}

/// See [`BodyTest::Value`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValueTest {
    /// A JSON pointer (RFC 6901).
    pub(crate) pointer: String,
    pub(crate) equals: serde_json::Value,
}
