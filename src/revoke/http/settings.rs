//! The settings of the HTTP revoker.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

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
    pub(super) const fn of(target: &Target) -> Self {
        match target {
            Target::Token(_) => Self::Token,
            Target::Family(_) => Self::Family,
        }
    }
}

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
