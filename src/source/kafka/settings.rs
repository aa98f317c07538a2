//! `[source.kafka]`, and the configuration of librdkafka made from it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use url::Url;

use crate::feed::{Feed, Feeds, Tenant};
use crate::format::Format;
use crate::outgoing::is_loopback;
use crate::port::SourceError;

/// Time limit for a broker to answer.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// `[source.kafka]`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "each is a key of the configuration")]
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
    /// Whether messages are forwarded to the partitions of their subjects in the topic `<prefix>.rekeyed`, and scored from
    /// there.
    #[serde(default)]
    pub rekey: bool,
    /// Whether appearances are sent to the topic `<prefix>.sightings`: the value of `detection.campaigns`.
    #[serde(skip)]
    pub sightings_topic: bool,
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

    /// The settings of each topic whose messages are scored.
    pub(crate) fn scored_feeds(&self) -> HashMap<Arc<str>, Feeds> {
        let feeds = self.feeds();
        if self.rekey {
            return HashMap::from([(self.rekeyed().into(), Feeds { own: Feed::default(), forwarded: feeds })]);
        }
        feeds.into_iter().map(|(topic, feed)| (topic, feed.into())).collect()
    }

    /// Name of the topic of forwarded messages.
    pub(crate) fn rekeyed(&self) -> String {
        format!("{}.rekeyed", self.prefix)
    }

    /// The topics whose messages are scored.
    pub(crate) fn scored_topics(&self) -> Vec<String> {
        if self.rekey {
            return vec![self.rekeyed()];
        }
        self.topics.iter().map(|topic| topic.topic.clone()).collect()
    }

    /// Name in rows for the events of `topic` that were forwarded. Not the name of a topic, because it contains a slash.
    pub(crate) fn forwarded_in_rows(&self, topic: &str) -> String {
        format!("{}/{topic}", self.rekeyed())
    }

    /// The names in rows for the events of those topics whose settings `is_wanted` accepts, forwarded or not.
    pub(crate) fn names_in_rows(&self, is_wanted: impl Fn(Feed) -> bool) -> Vec<String> {
        let wanted = self.topics.iter().filter(|topic| is_wanted(topic.feed));
        wanted.flat_map(|Topic { topic, .. }| [topic.clone(), self.forwarded_in_rows(topic)]).collect()
    }

    /// Settings of the member that forwards messages. It is in the group of the member that scores them, so that the group
    /// has one offset for each partition of a source topic, whether its messages are forwarded or scored.
    pub(super) fn of_forwarder(&self) -> Self {
        let mut settings = Self {
            rekey: false,
            verdicts_topic: false,
            sightings_topic: false,
            remember_messages_max: 0,
            ..self.clone()
        };
        if let Some(instance) = settings.properties.get_mut("group.instance.id") {
            instance.push_str("-rekey");
        }
        settings
    }

    /// Checks the list of topics.
    pub(crate) fn check_topics(&self) -> Result<(), &'static str> {
        if self.topics.is_empty() {
            return Err("is empty; add at least one topic");
        }
        let again = |at: usize| self.topics[..at].iter().any(|before| before.topic == self.topics[at].topic);
        if (0..self.topics.len()).any(again) {
            return Err("contains a topic twice");
        }
        if self.rekey && self.topics.iter().any(|topic| topic.topic == self.rekeyed()) {
            return Err("contains the topic to which source.kafka.rekey forwards; remove it");
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rekeying_reads_one_topic_with_the_settings_of_all() {
        let text = "brokers = 'x'\nprefix = 'tw'\nrekey = true\nverdicts_topic = true\n\
                    topics = ['a', { topic = 'b', format = 'okta', confirmed = true }]\n\
                    properties = { 'group.instance.id' = 'one' }";
        let settings: KafkaSettings = toml::from_str(text).expect("settings");
        assert_eq!(settings.scored_topics(), ["tw.rekeyed"]);
        let feeds = settings.scored_feeds();
        assert_eq!(feeds.len(), 1);
        let feeds = &feeds["tw.rekeyed"];
        assert_eq!((feeds.own, &feeds.forwarded), (Feed::default(), &settings.feeds()));
        // Rows from before rekeying was switched on have the other name.
        assert_eq!(settings.names_in_rows(|feed| feed.confirmed), ["b", "tw.rekeyed/b"]);
        let forwarder = settings.of_forwarder();
        assert_eq!(forwarder.scored_topics(), ["a", "b"]);
        assert_eq!((forwarder.rekey, forwarder.verdicts_topic), (false, false));
        assert_eq!(forwarder.group_id, settings.group_id);
        assert_eq!(forwarder.properties["group.instance.id"], "one-rekey");
    }
}
