//! `[source.kafka]`, and the configuration of librdkafka made from it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use url::Url;

use crate::feed::{Feed, Tenant};
use crate::format::Format;
use crate::outgoing::is_loopback;
use crate::port::SourceError;

/// Time limit for a broker to answer.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// `[source.kafka]`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port`, separated by commas.
    pub brokers: String,
    #[serde(default = "topics_default")]
    pub topics: Vec<Topic>,
    #[serde(default = "name_default")]
    pub group_id: String,
    /// Prefix of our own topics, for example `<prefix>.dead-letters`.
    #[serde(default = "name_default")]
    pub prefix: String,
    /// Other properties of librdkafka, mainly for TLS and SASL.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// Whether credentials may be sent unencrypted to another machine.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// Number of messages of a partition, before the committed one, that are read again when the partition is assigned.
    /// They rebuild its baselines and have no other effect.
    #[serde(default = "remember_default")]
    pub remember_messages_max: u32,
    /// Whether the states of partitions are saved in the topic `<prefix>.state`.
    #[serde(default)]
    pub state_topic: StateTopicUse,
    /// Whether the verdict on each event is sent to the topic `<prefix>.verdicts`.
    #[serde(default)]
    pub verdicts_topic: bool,
}

/// Use of the topic of snapshots: `true`, `false`, or neither in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateTopicUse {
    /// If the topic exists or can be created, and may be used. Otherwise the service runs without snapshots.
    #[default]
    IfPermitted,
    /// The service does not start without the topic.
    Required,
    Never,
}

impl<'de> Deserialize<'de> for StateTopicUse {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bool::deserialize(deserializer).map(|is_required| if is_required { Self::Required } else { Self::Never })
    }
}

/// A topic and the settings of its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub topic: String,
    pub feed: Feed,
}

impl KafkaSettings {
    /// The settings of each topic.
    pub(crate) fn feeds(&self) -> HashMap<Arc<str>, Feed> {
        self.topics.iter().map(|topic| (topic.topic.as_str().into(), topic.feed)).collect()
    }

    /// Checks that credentials are not sent unencrypted to another machine; the error names the property.
    pub(crate) fn check_plaintext(&self) -> Result<(), String> {
        let property = |key: &str| self.properties.get(key).map_or("", String::as_str);
        if self.allow_plaintext {
            return Ok(());
        }
        let fix = "or set source.kafka.allow_plaintext = true";
        let is_far = |broker: &str| {
            let address = broker.trim().rsplit_once("://").map_or(broker.trim(), |(_, address)| address);
            !is_loopback(address.rsplit_once(':').map_or(address, |(host, _)| host))
        };
        if property("security.protocol").eq_ignore_ascii_case("sasl_plaintext") && self.brokers.split(',').any(is_far) {
            return Err(format!("`security.protocol` lets credentials be sent unencrypted: use SASL_SSL, {fix}"));
        }
        let endpoint = "sasl.oauthbearer.token.endpoint.url";
        let is_plain = |url: &Url| url.scheme() == "http" && !url.host_str().is_some_and(is_loopback);
        if Url::parse(property(endpoint)).is_ok_and(|url| is_plain(&url)) {
            return Err(format!("`{endpoint}` lets the client's secret be sent unencrypted: use https://, {fix}"));
        }
        Ok(())
    }

    pub(super) fn client_config(&self) -> Result<ClientConfig, SourceError> {
        // tokenwarden sets these. The first two have keys of their own; changing the others would lose messages.
        const OURS: [(&str, &str); 4] = [
            ("bootstrap.servers", "set source.kafka.brokers"),
            ("group.id", "set source.kafka.group_id"),
            ("enable.auto.commit", "offsets are committed only after their events are stored"),
            ("enable.auto.offset.store", "offsets are committed only after their events are stored"),
        ];
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", "tokenwarden");
        config.set_log_level(RDKafkaLogLevel::Info);
        for (key, value) in &self.properties {
            if let Some((_, why)) = OURS.iter().find(|(ours, _)| ours == key) {
                return Err(SourceError::Misconfigured(format!("source.kafka.properties may not set `{key}`: {why}")));
            }
            config.set(key, value);
        }
        Ok(config)
    }
}

impl fmt::Debug for KafkaSettings {
    /// Omits the properties' values, because they contain passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("topics", &self.topics)
            .field("group_id", &self.group_id)
            .field("prefix", &self.prefix)
            .field("properties", &self.properties.keys())
            .finish_non_exhaustive()
    }
}

impl<'de> Deserialize<'de> for Topic {
    /// `"name"`, or `{ topic = "name", format = "cloudtrail", confirmed = true, tenant = "acme" }`.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            topic: String,
            #[serde(default)]
            format: Format,
            #[serde(default)]
            confirmed: bool,
            #[serde(default)]
            tenant: Option<Tenant>,
        }
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Topic;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a topic's name, or { topic = \"…\", format = \"…\" }")
            }

            fn visit_str<E>(self, name: &str) -> Result<Topic, E> {
                Ok(Topic { topic: name.to_owned(), feed: Feed::default() })
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Topic, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                let Table { topic, format, confirmed, tenant } = table;
                Ok(Topic { topic, feed: Feed { format, confirmed, tenant } })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn topics_default() -> Vec<Topic> {
    vec![Topic { topic: "token-events".to_owned(), feed: Feed::default() }]
}

fn name_default() -> String {
    "tokenwarden".to_owned()
}

const fn remember_default() -> u32 {
    1_000_000
}
