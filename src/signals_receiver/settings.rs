//! `[signals_receiver]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::feed::Feed;
use crate::format::Format;
use crate::jose::Algorithm;
use crate::jwks::KeysPlace;
use crate::outgoing::check_url;

/// Shortest bearer token of the transmitter, bytes.
const TOKEN_BYTES_MIN: usize = 16;

/// Listener, transmitter and destination of received Security Event Tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignalsReceiverSettings {
    #[serde(default = "listen")]
    pub(crate) listen: SocketAddr,
    /// Allows an address that is reachable from other machines. Requests are not encrypted.
    #[serde(default)]
    pub(crate) allow_plaintext: bool,
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
    /// Bearer token that the transmitter sends, if it sends one.
    pub(crate) token: Option<SecretString>,
    /// Topic of `source.kafka.topics` to which the events are sent.
    pub(crate) topic: String,
    /// Tenant of all events. Empty: events without a tenant.
    pub(crate) tenant: String,
    /// Identifier of a subject that is the `user_id` of events.
    #[serde(default)]
    pub(crate) user: UserIdentifier,
    /// Issuer of identifiers of the format `iss_sub`. Without it, `issuer`.
    pub(crate) subject_issuer: Option<String>,
    /// Maximum age of a token, hours.
    #[serde(default = "max_age_hours")]
    pub(crate) max_age_hours: u32,
    /// Maximum number of tokens with a valid signature per minute.
    #[serde(default = "per_minute")]
    pub(crate) per_minute: u32,
}

/// Identifiers of subjects (RFC 9493 section 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UserIdentifier {
    #[default]
    IssSub,
    Email,
    Opaque,
}

const fn listen() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9467)
}

fn all() -> Vec<Algorithm> {
    Algorithm::ALL.to_vec()
}

const fn max_age_hours() -> u32 {
    168
}

const fn per_minute() -> u32 {
    600
}

impl SignalsReceiverSettings {
    /// Checks what the types do not ensure. `feed`: of the source topic `topic`. The error is the key and the problem of
    /// its value.
    pub(crate) fn check(&self, feed: Option<Feed>) -> Result<(), (&'static str, String)> {
        let wrong = |key, problem: &str| Err((key, problem.to_owned()));
        if !self.listen.ip().is_loopback() && !self.allow_plaintext {
            let problem = "is reachable from other machines, and requests are not encrypted: listen on 127.0.0.1 behind a \
                           TLS proxy, or set `signals_receiver.allow_plaintext = true` in a network that encrypts";
            return wrong("signals_receiver.listen", problem);
        }
        for (key, value) in [("signals_receiver.issuer", &self.issuer), ("signals_receiver.audience", &self.audience)] {
            if value.is_empty() {
                return wrong(key, "is empty");
            }
        }
        if self.algorithms.is_empty() {
            return wrong("signals_receiver.algorithms", "is empty; add RS256, ES256 or EdDSA");
        }
        if self.token.as_ref().is_some_and(|token| token.expose_secret().len() < TOKEN_BYTES_MIN) {
            return wrong("signals_receiver.token", "must have at least 16 bytes; use a random value");
        }
        let Some(feed) = feed.filter(|feed| feed.format == Format::Native) else {
            let problem = "must be one of source.kafka.topics, with the format native: the events go through Kafka to the \
                           partition of their user";
            return wrong("signals_receiver.topic", problem);
        };
        if !feed.confirmed {
            let problem = "must have `confirmed = true` in source.kafka.topics: without it, the end of all sessions of a \
                           user has no effect. Only trusted producers may write to such a topic";
            return wrong("signals_receiver.topic", problem);
        }
        if feed.tenant.is_some_and(|tenant| tenant.as_str() != self.tenant) {
            let problem = "must be the `tenant` of the topic in source.kafka.topics, which replaces that of the events";
            return wrong("signals_receiver.tenant", problem);
        }
        if self.max_age_hours == 0 || self.per_minute == 0 {
            return wrong("signals_receiver", "max_age_hours and per_minute must be at least 1");
        }
        match self.keys() {
            Some(KeysPlace::Url { key, url, allow_private, .. }) => {
                let url = url::Url::parse(&url).map_err(|error| (key, error.to_string()))?;
                check_url(&url, allow_private).map_err(|problem| (key, problem))
            }
            Some(KeysPlace::File { .. }) => Ok(()),
            None => wrong("signals_receiver", "needs one of jwks_file and jwks_url"),
        }
    }

    /// The place of the keys. `None`: not exactly one is set.
    pub(super) fn keys(&self) -> Option<KeysPlace> {
        KeysPlace::one_of(
            ("signals_receiver.jwks_file", self.jwks_file.as_ref()),
            ("signals_receiver.jwks_url", self.jwks_url.as_ref()),
            self.ca_file.as_ref(),
            self.allow_private,
        )
    }
}
