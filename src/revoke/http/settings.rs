//! Settings of the HTTP revoker.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use super::answer::AnswerSettings;
use super::auth_settings::AuthSettings;
use super::shipped::PresetName;
use crate::outgoing::BodyTest;
use crate::port::Radius;
use crate::verdict::Target;

/// `[revoke.http]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpRevokerSettings {
    /// Defaults for the keys that are not set.
    pub(crate) preset: Option<PresetName>,
    /// A preset of the operator, in the format of the built-in ones.
    pub(crate) preset_file: Option<PathBuf>,
    /// A template with a fixed host. A preset may have a default, and appends its path.
    pub(crate) url: Option<String>,
    /// Fixed values of the templates.
    #[serde(default)]
    pub(crate) values: BTreeMap<String, String>,
    /// What one request revokes. It must be set if that is more than the token or grant of an incident.
    pub(crate) radius: Option<Radius>,
    pub(crate) client_id: Option<String>,
    /// Sent with `client_id` as HTTP Basic authentication.
    pub(crate) client_secret: Option<SecretString>,
    /// Sent as bearer token.
    pub(crate) token: Option<SecretString>,
    /// Another authentication than these.
    pub(crate) auth: Option<AuthSettings>,
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
    /// Content of the body with the same meaning.
    pub(crate) retry_when: Option<BodyTest>,
    /// Content of the body of a refusal. It has precedence over the other tests.
    pub(crate) refused_when: Option<BodyTest>,
    /// The read after a revocation.
    pub(crate) verify: Option<VerifySettings>,
    /// Allows a provider with a private address.
    #[serde(default)]
    pub(crate) allow_private: bool,
    /// Certificate authorities that are trusted in addition to those of the system, PEM.
    pub(crate) ca_file: Option<PathBuf>,
}

impl HttpRevokerSettings {
    /// The keys that classify an answer.
    pub(super) fn answers(&self) -> AnswerSettings {
        AnswerSettings {
            done: self.done.clone(),
            done_when: self.done_when.clone(),
            already_gone: self.already_gone.clone(),
            already_gone_when: self.already_gone_when.clone(),
            retry: self.retry.clone(),
            retry_when: self.retry_when.clone(),
            refused_when: self.refused_when.clone(),
        }
    }

    /// Fixed values of the templates, with `client_id`.
    pub(super) fn fixed_values(&self) -> BTreeMap<String, String> {
        let client_id = self.client_id.iter().map(|id| (CLIENT_ID.to_owned(), id.clone()));
        self.values.clone().into_iter().chain(client_id).collect()
    }
}

/// `[revoke.http.verify]`, or the same of a preset. Without `method` and `body`, the request is an introspection (RFC 7662).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct VerifySettings {
    pub(super) method: Option<String>,
    /// A template. Without it, that of the revocation.
    pub(super) url: Option<String>,
    /// Appended to `url`. A template.
    pub(super) path: String,
    pub(super) body: Option<String>,
    pub(super) body_format: Option<BodyFormat>,
    /// Fields of a form, each a template. Instead of `body`.
    pub(super) form: BTreeMap<String, String>,
    /// Statuses of an inactive token.
    pub(super) inactive: Vec<u16>,
    /// Content of the body for an inactive token. Its texts are templates, whose values are percent-encoded.
    pub(super) inactive_when: Option<BodyTest>,
    /// Content of the body for an active token, in the same form. Without it, the token is active if the body does not
    /// show that it is inactive.
    pub(super) active_when: Option<BodyTest>,
    /// A template. The token is active if the JSON body contains this text as a value.
    pub(super) listed: Option<String>,
    /// The only key whose values, texts or numbers, count for `listed`.
    pub(super) listed_key: Option<String>,
    /// Number of items in a full page. A full page without the text of `listed` does not show the state.
    pub(super) page_items: Option<usize>,
    /// JSON pointer (RFC 6901) to the time from which tokens are valid. The token is inactive if that is not before the
    /// revocation.
    pub(super) valid_from: Option<String>,
    /// Targets whose state the read shows. Without it, all.
    pub(super) targets: Option<Vec<TargetKind>>,
    /// The provider answers before the revocation takes effect, so a token that is still active is no failure.
    pub(super) eventual: bool,
}

/// Name in templates of the key with the same name.
pub(super) const CLIENT_ID: &str = "client_id";

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

    pub(super) const fn radius(self) -> Radius {
        match self {
            Self::Token => Radius::Token,
            Self::Family => Radius::Grant,
        }
    }
}
