//! Settings of the authentication at the provider.

use secrecy::SecretString;
use serde::Deserialize;

/// `[revoke.http.auth]`.
#[derive(Debug, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub(crate) enum AuthSettings {
    /// A constant header.
    Header(HeaderSettings),
    /// OAuth 2.0 client credentials (RFC 6749 section 4.4).
    Oauth(OauthSettings),
    /// A JWT of a Google service account, exchanged for an access token (RFC 7523).
    Google(GoogleSettings),
    /// A JWT of a GitHub App, exchanged for an installation token.
    GithubApp(GithubAppSettings),
    /// AWS Signature Version 4.
    Aws(AwsSettings),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderSettings {
    /// Name of the header.
    pub(crate) header: String,
    /// Word before the token, such as `SSWS`.
    pub(crate) scheme: Option<String>,
    pub(crate) token: SecretString,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OauthSettings {
    pub(crate) token_url: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: SecretString,
    #[serde(default)]
    pub(crate) credentials: ClientCredentials,
    pub(crate) scope: Option<String>,
    pub(crate) audience: Option<String>,
}

/// Where a client sends its id and secret (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientCredentials {
    #[default]
    Basic,
    Body,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GoogleSettings {
    /// The key file of the service account as Google delivers it, or its private key as PEM.
    pub(crate) private_key: SecretString,
    /// Address of the service account. Without it, that of the key file.
    pub(crate) email: Option<String>,
    pub(crate) scope: String,
    /// The administrator for whom the service account acts (domain-wide delegation).
    pub(crate) subject: Option<String>,
    #[serde(default = "google_token_url")]
    pub(crate) token_url: String,
}

fn google_token_url() -> String {
    "https://oauth2.googleapis.com/token".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GithubAppSettings {
    /// Id or client id of the app.
    pub(crate) app_id: String,
    pub(crate) installation_id: String,
    /// PEM.
    pub(crate) private_key: SecretString,
    #[serde(default = "github_url")]
    pub(crate) api_url: String,
}

fn github_url() -> String {
    "https://api.github.com".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AwsSettings {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: SecretString,
    /// For temporary credentials.
    pub(crate) session_token: Option<SecretString>,
    #[serde(default = "iam_region")]
    pub(crate) region: String,
    #[serde(default = "iam")]
    pub(crate) service: String,
}

fn iam_region() -> String {
    "us-east-1".to_owned()
}

fn iam() -> String {
    "iam".to_owned()
}
