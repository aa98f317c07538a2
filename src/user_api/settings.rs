//! `[user_api]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::jose::Algorithm;
use crate::outgoing::check_url;

/// Shortest key of the signed header, bytes.
const SECRET_BYTES_MIN: usize = 16;

/// Listener, callers and limits of the API for users.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UserApiSettings {
    pub(crate) listen: SocketAddr,
    /// Allows an address that is reachable from other machines. Requests contain tokens and are not encrypted.
    pub(crate) allow_plaintext: bool,
    /// Users that send a JWT of the operator's identity provider.
    pub(crate) jwt: Option<JwtSettings>,
    /// The operator's own account page, which names the user in a signed header.
    pub(crate) account_page: Option<AccountPageSettings>,
    /// Maximum number of requests per minute of one user, and of all.
    pub(crate) per_minute_of_user: u32,
    pub(crate) per_minute: u32,
}

impl Default for UserApiSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9466),
            allow_plaintext: false,
            jwt: None,
            account_page: None,
            per_minute_of_user: 30,
            per_minute: 600,
        }
    }
}

/// Tokens of an identity provider, and their keys.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JwtSettings {
    /// Required values of the claims `iss` and `aud`.
    pub(crate) issuer: String,
    pub(crate) audience: String,
    /// The keys of the issuer (JWK Set): one of a file and a URL.
    pub(crate) jwks_file: Option<PathBuf>,
    pub(crate) jwks_url: Option<String>,
    /// Certificate authorities of `jwks_url`, besides those of the system.
    pub(crate) ca_file: Option<PathBuf>,
    /// Allows a private address in `jwks_url`.
    #[serde(default)]
    pub(crate) allow_private: bool,
    #[serde(default = "all")]
    pub(crate) algorithms: Vec<Algorithm>,
    /// Claim with the `user_id` of the events.
    #[serde(default = "sub")]
    pub(crate) user_claim: String,
    /// Claim with the `tenant_id` of the events. Without it, `tenant`.
    pub(crate) tenant_claim: Option<String>,
    /// The tenant of all users. Empty: that of events without `tenant_id`.
    pub(crate) tenant: Option<String>,
    /// Maximum time since `iat`, seconds.
    #[serde(default = "hour")]
    pub(crate) max_age_s: u32,
}

fn all() -> Vec<Algorithm> {
    Algorithm::ALL.to_vec()
}

const fn hour() -> u32 {
    3_600
}

fn sub() -> String {
    "sub".to_owned()
}

/// Credentials of the account page.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccountPageSettings {
    /// Bearer token of the page.
    pub(crate) token: SecretString,
    /// Key of the header that names the user.
    pub(crate) secret: SecretString,
}

impl UserApiSettings {
    /// Checks what the types do not ensure. The error is the key and the problem of its value.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let wrong = |key, problem: &str| Err((key, problem.to_owned()));
        if !self.listen.ip().is_loopback() && !self.allow_plaintext {
            let problem = "is reachable from other machines, and requests contain tokens: listen on 127.0.0.1 behind a \
                           TLS proxy, or set `user_api.allow_plaintext = true` in a network that encrypts";
            return wrong("user_api.listen", problem);
        }
        if self.jwt.is_none() && self.account_page.is_none() {
            return wrong("user_api", "has no callers: add [user_api.jwt] or [user_api.account_page]");
        }
        if self.per_minute_of_user == 0 || self.per_minute / 4 < self.per_minute_of_user {
            let problem = "must be at least 4 times `per_minute_of_user`, which must be at least 1";
            return wrong("user_api.per_minute", problem);
        }
        if let Some(jwt) = &self.jwt {
            jwt.check()?;
        }
        if let Some(page) = &self.account_page {
            if page.token.expose_secret().len() < SECRET_BYTES_MIN {
                return wrong("user_api.account_page.token", "must have at least 16 bytes; use a random value");
            }
            if page.secret.expose_secret().len() < SECRET_BYTES_MIN {
                return wrong("user_api.account_page.secret", "must have at least 16 bytes; use a random value");
            }
        }
        Ok(())
    }
}

impl JwtSettings {
    fn check(&self) -> Result<(), (&'static str, String)> {
        let wrong = |key, problem: &str| Err((key, problem.to_owned()));
        for (key, value) in [
            ("user_api.jwt.issuer", &self.issuer),
            ("user_api.jwt.audience", &self.audience),
            ("user_api.jwt.user_claim", &self.user_claim),
        ] {
            if value.is_empty() {
                return wrong(key, "is empty");
            }
        }
        if self.algorithms.is_empty() {
            return wrong("user_api.jwt.algorithms", "is empty; add RS256, ES256 or EdDSA");
        }
        match (&self.tenant, &self.tenant_claim) {
            (Some(_), Some(_)) => return wrong("user_api.jwt", "has both tenant and tenant_claim; remove one"),
            (None, None) => {
                let problem =
                    "has no tenant: add tenant_claim, or tenant; `tenant = \"\"` stands for events without tenant_id";
                return wrong("user_api.jwt", problem);
            }
            _ => {}
        }
        if self.max_age_s == 0 {
            return wrong("user_api.jwt.max_age_s", "must be at least 1 second");
        }
        match (&self.jwks_file, &self.jwks_url) {
            (Some(_), None) => Ok(()),
            (None, Some(url)) => {
                let url = url::Url::parse(url).map_err(|error| ("user_api.jwt.jwks_url", error.to_string()))?;
                check_url(&url, self.allow_private).map_err(|problem| ("user_api.jwt.jwks_url", problem))
            }
            _ => wrong("user_api.jwt", "needs one of jwks_file and jwks_url"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(text: &str) -> (&'static str, String) {
        let settings: UserApiSettings = toml::from_str(text).expect("settings");
        settings.check().expect_err(text)
    }

    #[test]
    fn settings_error_has_the_key() {
        let jwt = "[jwt]\ntenant = ''\nissuer = 'https://id.example'\naudience = 'x'\n";
        let file = format!("{jwt}jwks_file = 'k.json'\n");
        let good: UserApiSettings = toml::from_str(&file).expect("settings");
        assert!(good.check().is_ok());
        assert_eq!(mistake(&format!("listen = '0.0.0.0:1'\n{file}")).0, "user_api.listen");
        assert_eq!(mistake("").0, "user_api");
        assert_eq!(mistake(&format!("per_minute = 119\n{file}")).0, "user_api.per_minute");
        assert_eq!(mistake(&file.replace("'x'", "''")).0, "user_api.jwt.audience");
        assert_eq!(mistake(&format!("{file}algorithms = []")).0, "user_api.jwt.algorithms");
        assert_eq!(mistake(&format!("{file}tenant_claim = 'b'")).0, "user_api.jwt");
        let (key, problem) = mistake(&file.replace("tenant = ''\n", ""));
        assert!(key == "user_api.jwt" && problem.contains("has no tenant"), "{key} {problem}");
        assert_eq!(mistake(&format!("{file}max_age_s = 0")).0, "user_api.jwt.max_age_s");
        for keys in ["", "jwks_file = 'k'\njwks_url = 'https://id.example/k'"] {
            assert_eq!(mistake(&format!("{jwt}{keys}")).0, "user_api.jwt", "{keys}");
        }
        for url in ["http://id.example/k", "https://10.0.0.1/k", "x"] {
            assert_eq!(mistake(&format!("{jwt}jwks_url = '{url}'")).0, "user_api.jwt.jwks_url", "{url}");
        }
        let (key, problem) = mistake("[account_page]\ntoken = 'short-one'\nsecret = 'x'");
        assert!(key == "user_api.account_page.token" && !problem.contains("short-one"), "{problem}");
        let none = toml::from_str::<UserApiSettings>(&format!("{file}algorithms = ['none']"));
        assert!(none.is_err() && toml::from_str::<UserApiSettings>(&format!("{file}algorithms = ['HS256']")).is_err());
    }
}
