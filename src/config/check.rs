//! Checks of the configuration that the types do not ensure.

use std::path::Path;

use super::memory::MEMORY_MIB_MIN;
use super::sections::{DenylistSection, Detection, SilencesSection};
use super::{Config, secret_file};
use crate::notify::UserNoticeSettings;
use crate::source::kafka::StateTopicUse;

/// Properties of librdkafka whose values are files with private keys.
const KAFKA_SECRET_FILES: [&str; 3] = ["ssl.key.location", "ssl.keystore.location", "sasl.kerberos.keytab"];

impl Config {
    /// Checks what the types do not ensure. The error is the key and the problem of its value.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let detection = &self.detection;
        let wrong = |key, problem: &str| Err((key, format!("`{key}` {problem}")));
        if self.source.kafka.is_some() && self.source.file.is_some() {
            return wrong("source", "has both kafka and file; remove one");
        }
        if let Some(kafka) = &self.source.kafka {
            kafka.check_topics().or_else(|problem| wrong("source.kafka.topics", problem))?;
        }
        if let Some(kafka) = &self.source.kafka {
            if let Err(problem) = kafka.check_plaintext() {
                return Err(("source.kafka.properties", problem));
            }
            for key in KAFKA_SECRET_FILES {
                let file = kafka.properties.get(key).map(Path::new);
                // librdkafka reports a missing file.
                let exposed = file.and_then(|file| secret_file::exposure(&file.metadata().ok()?, file));
                if let Some(problem) = exposed {
                    return Err(("source.kafka.properties", format!("the file of `{key}`: {problem}")));
                }
            }
        }
        self.check_campaigns()?;
        if let Err(problem) = self.store.check_cluster() {
            return wrong("store.cluster", problem);
        }
        if let Err(problem) = self.store.check_url() {
            return wrong("store.url", problem);
        }
        if let Err(problem) = self.store.check_sha256() {
            return wrong("store.library_sha256", problem);
        }
        if !(-20.0..=0.0).contains(&detection.prior_log_odds) {
            return wrong("detection.prior_log_odds", "must be between -20 and 0; -7 is one stolen token in 1,100");
        }
        if !(0.0..=50.0).contains(&detection.revoke_margin) {
            return wrong("detection.revoke_margin", "must be between 0 and 50");
        }
        if !(0..=86_400_000).contains(&detection.lateness_ms_max) {
            return wrong("detection.lateness_ms_max", "must be between 0 and 86400000 (1 day)");
        }
        if !(3_600_000..=2_592_000_000).contains(&detection.clock_skew_ms_max) {
            let problem = "must be between 3600000 (1 hour) and 2592000000 (30 days)";
            return wrong("detection.clock_skew_ms_max", problem);
        }
        if detection.baselines_max == 0 {
            return wrong("detection.baselines_max", "must be at least 1");
        }
        if detection.recent_event_ids_max == 0 {
            return wrong("detection.recent_event_ids_max", "must be at least 1");
        }
        if detection.memory_mib_max.is_some_and(|mib| mib < MEMORY_MIB_MIN) {
            let problem = format!(
                "must be at least {MEMORY_MIB_MIN}, which is enough for one partition; each further one needs {} more",
                Detection::memory_mib_for(2) - Detection::memory_mib_for(1)
            );
            return wrong("detection.memory_mib_max", &problem);
        }
        let state_topic = self.source.kafka.as_ref().map(|kafka| kafka.state_topic);
        if self.snapshots.dir.is_some() && state_topic == Some(StateTopicUse::Required) {
            return wrong("snapshots.dir", "and source.kafka.state_topic are both set; remove one");
        }
        if !(1_000..=86_400_000).contains(&self.snapshots.interval_ms) {
            return wrong("snapshots.interval_ms", "must be between 1000 (1 s) and 86400000 (1 day)");
        }
        if let Some(Err((key, problem))) = self.notify_users.as_ref().map(UserNoticeSettings::check) {
            return wrong(key, problem);
        }
        if self.incidents.close_after_days > 365 {
            return wrong("incidents.close_after_days", "must be at most 365; 0 closes no incident");
        }
        if let Some(Err((key, problem))) = self.silences.as_ref().map(SilencesSection::check) {
            return wrong(key, problem);
        }
        if let Some(Err((key, problem))) = self.denylist.as_ref().map(DenylistSection::check) {
            return wrong(key, problem);
        }
        if let Some(api) = &self.user_api {
            api.check().map_err(|(key, problem)| (key, format!("`{key}` {problem}")))?;
            if self.revoke.http.is_none() && self.denylist.is_none() {
                return wrong("user_api", "has nothing to revoke with: add [revoke.http] or [denylist]");
            }
        }
        if let Some(receiver) = &self.signals_receiver {
            let mut topics = self.source.kafka.iter().flat_map(|kafka| &kafka.topics);
            let topic = topics.find(|topic| *topic.topic == *receiver.topic);
            let checked = receiver.check(topic.map(|topic| topic.feed));
            checked.map_err(|(key, problem)| (key, format!("`{key}` {problem}")))?;
        }
        if !self.admin.listen.ip().is_loopback() && self.admin.token.is_none() {
            return wrong(
                "admin.listen",
                "is reachable from other machines: set `admin.token_file`, or listen on 127.0.0.1",
            );
        }
        Ok(())
    }

    /// Members compare names by hashes under their key.
    fn check_campaigns(&self) -> Result<(), (&'static str, String)> {
        if self.detection.campaigns && self.source.kafka.is_some() && self.privacy.token_key.is_none() {
            let problem = "with source.kafka needs `privacy.token_key_file`, the same for all members: they compare names by \
                           hashes under this key";
            return Err(("detection.campaigns", format!("`detection.campaigns` {problem}")));
        }
        Ok(())
    }
}
