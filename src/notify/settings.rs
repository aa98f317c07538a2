//! `[alert.channel.NAME]`: settings of named channels. A kind is a preset in `presets/`, or one of the kinds with code of
//! its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::email::{EmailSettings, StartTls};
use super::shipped::{PRESETS, PresetName};
use super::webhook::WebhookSettings;

/// `[alert.channel.NAME]`. Which keys are allowed depends on `kind`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelSettings {
    pub kind: ChannelKind,
    /// Address of the receiver.
    pub url: Option<String>,
    /// Address of the receiver. It is a secret, because it permits sending.
    pub webhook_url: Option<SecretString>,
    /// The receiver's credential: a bot token, routing key or API key.
    pub token: Option<SecretString>,
    /// Values that a preset requires, for example the Slack channel.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// With `kind = "http"`: a preset of the operator.
    pub preset_file: Option<PathBuf>,
    /// With `kind = "ocsf_file"`: the file.
    pub path: Option<PathBuf>,
    /// With `kind = "ocsf_kafka"`: the topic.
    pub topic: Option<String>,
    pub allow_private: Option<bool>,
    pub ca_file: Option<PathBuf>,
    // The keys of [alert.email] and [alert.webhook].
    pub secret: Option<SecretString>,
    /// With `kind = "shared_signals"`: the key that signs, PEM.
    pub private_key: Option<SecretString>,
    pub smtp_url: Option<String>,
    pub starttls: Option<StartTls>,
    pub from: Option<String>,
    pub to: Option<Vec<String>>,
    pub username: Option<String>,
    pub password: Option<SecretString>,
    pub allow_plaintext: Option<bool>,
}

/// Kind of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    Email,
    Webhook,
    /// Syslog over TLS, or over TCP to this machine.
    Syslog,
    /// OCSF Detection Findings, one per line of a file.
    OcsfFile,
    /// OCSF Detection Findings, one per message of a Kafka topic.
    OcsfKafka,
    /// Security Event Tokens of the Shared Signals Framework.
    SharedSignals,
    /// A preset of the operator.
    Http,
    /// A preset of the build.
    Preset(PresetName),
}

const CODED: [(&str, ChannelKind); 7] = [
    ("email", ChannelKind::Email),
    ("webhook", ChannelKind::Webhook),
    ("syslog", ChannelKind::Syslog),
    ("ocsf_file", ChannelKind::OcsfFile),
    ("ocsf_kafka", ChannelKind::OcsfKafka),
    ("shared_signals", ChannelKind::SharedSignals),
    ("http", ChannelKind::Http),
];

impl ChannelKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Preset(preset) => preset.name(),
            kind => CODED.iter().find(|(_, coded)| *coded == kind).map_or("", |(name, _)| name),
        }
    }

    /// Whether people read each message. Machines group alerts themselves.
    pub(crate) fn is_for_people(self) -> bool {
        matches!(self.as_str(), "email" | "slack" | "slack_webhook" | "teams")
    }

    /// Keys that this kind uses.
    pub(super) const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Email => {
                &["smtp_url", "starttls", "from", "to", "username", "password", "allow_plaintext", "ca_file"]
            }
            Self::Webhook => &["url", "secret", "allow_private", "ca_file"],
            Self::Syslog => &["url", "values", "allow_private", "ca_file"],
            Self::OcsfFile => &["path"],
            Self::OcsfKafka => &["topic"],
            Self::SharedSignals => &["url", "private_key", "values", "token", "allow_private", "ca_file"],
            Self::Http => &["preset_file", "url", "webhook_url", "token", "values", "allow_private", "ca_file"],
            Self::Preset(_) => &["url", "webhook_url", "token", "values", "allow_private", "ca_file"],
        }
    }
}

impl<'de> Deserialize<'de> for ChannelKind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// For the error, in the order of [`CODED`] and [`PRESETS`].
        static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
            CODED.iter().map(|(name, _)| *name).chain(PRESETS.iter().map(|preset| preset.name())).collect()
        });
        let name = String::deserialize(from)?;
        let coded = CODED.iter().find(|(coded, _)| *coded == name).map(|(_, kind)| *kind);
        let preset = || PRESETS.iter().find(|preset| preset.name() == name).map(|preset| Self::Preset(*preset));
        coded.or_else(preset).ok_or_else(|| D::Error::unknown_variant(&name, &NAMES))
    }
}

impl ChannelSettings {
    /// The first key that is set and that the kind does not use.
    pub(super) fn superfluous(&self) -> Option<&'static str> {
        let keys = [
            ("url", self.url.is_some()),
            ("webhook_url", self.webhook_url.is_some()),
            ("token", self.token.is_some()),
            ("values", !self.values.is_empty()),
            ("preset_file", self.preset_file.is_some()),
            ("path", self.path.is_some()),
            ("topic", self.topic.is_some()),
            ("allow_private", self.allow_private.is_some()),
            ("ca_file", self.ca_file.is_some()),
            ("secret", self.secret.is_some()),
            ("private_key", self.private_key.is_some()),
            ("smtp_url", self.smtp_url.is_some()),
            ("starttls", self.starttls.is_some()),
            ("from", self.from.is_some()),
            ("to", self.to.is_some()),
            ("username", self.username.is_some()),
            ("password", self.password.is_some()),
            ("allow_plaintext", self.allow_plaintext.is_some()),
        ];
        let used = self.kind.keys();
        keys.iter().find(|(key, is_set)| *is_set && !used.contains(key)).map(|(key, _)| *key)
    }

    pub(super) fn email(&self) -> Result<EmailSettings, (&'static str, String)> {
        Ok(EmailSettings {
            smtp_url: required("smtp_url", self.smtp_url.as_ref())?.clone(),
            starttls: self.starttls,
            from: required("from", self.from.as_ref())?.clone(),
            to: required("to", self.to.as_ref())?.clone(),
            username: self.username.clone(),
            password: self.password.clone(),
            allow_plaintext: self.allow_plaintext.unwrap_or_default(),
            ca_file: self.ca_file.clone(),
        })
    }

    pub(super) fn webhook(&self) -> Result<WebhookSettings, (&'static str, String)> {
        Ok(WebhookSettings {
            url: required("url", self.url.as_ref())?.clone(),
            secret: required("secret", self.secret.as_ref())?.clone(),
            allow_private: self.allow_private.unwrap_or_default(),
            ca_file: self.ca_file.clone(),
        })
    }
}

/// The value of a key that the kind requires.
pub(super) fn required<'a, T>(key: &'static str, value: Option<&'a T>) -> Result<&'a T, (&'static str, String)> {
    value.ok_or_else(|| (key, "is missing".to_owned()))
}
