//! Checks of the topics and the group against the service's requirements.

use std::collections::HashMap;
use std::sync::Arc;

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;

use super::connect::{ask, misconfigured};
use super::letters::LETTER_BYTES_MAX;
use super::lookup::{left, logs};
use super::member::Member;
use super::native::{Description, Partition, describe};
use super::own_topic::OwnTopic;
use super::resume::{First, Log, resume};
use super::settings::{ANSWER_WAIT, KafkaSettings, StateTopicUse};
use super::state::{MESSAGE_BYTES as STATE_MESSAGE_BYTES, StateTopic};
use crate::port::SourceError;

/// Result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok,
    /// The service runs, but does less or loses more than possible.
    Warning,
    /// The service does not work.
    Failed,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    pub topic: String,
    /// Subject of the check: `topic`, `membership`, `partitions`, `permission`, `timestamps`, `cleanup`, `retention`,
    /// `offsets`, `replicas`, `election`, `size`, `keys`.
    pub what: &'static str,
    pub text: String,
    /// The service repairs it at its start, if permitted.
    pub(crate) repaired_at_start: bool,
}

/// Checks every topic of `settings`, the topic of dead letters and the offsets of the group. Changes nothing, and does
/// not join the group. Fails if no broker answers or the login is refused.
pub fn check(settings: &KafkaSettings) -> Result<Vec<Finding>, SourceError> {
    let mut config = settings.client_config()?;
    config.set("group.id", &settings.group_id);
    let consumer = BaseConsumer::from_config_and_context(&config, Member::default()).map_err(misconfigured)?;
    let letters = OwnTopic::letters(settings)?;
    let mut names: Vec<&str> = settings.topics.iter().map(|topic| topic.topic.as_str()).collect();
    ask(&consumer, names.first().copied().unwrap_or(&letters.name), &settings.brokers)?;
    let rekeyed = OwnTopic::rekeyed(settings)?;
    if settings.rekey {
        names.push(&rekeyed.name);
    }
    names.push(&letters.name);
    let state = StateTopic::name(settings);
    if settings.state_topic != StateTopicUse::Never {
        names.push(&state);
    }
    let verdicts = OwnTopic::verdicts(settings)?.name;
    if settings.verdicts_topic {
        names.push(&verdicts);
    }
    let sightings = OwnTopic::sightings(settings)?.name;
    if settings.sightings_topic {
        names.push(&sightings);
    }
    let described = describe(consumer.client(), &names, ANSWER_WAIT).map_err(|code| refused(settings, code))?;
    let configs = configs(&letters, &names);
    let mut checked = Checked { findings: Vec::new(), consumer: &consumer, settings, scored_partitions: 0 };
    for (at, (name, found)) in names.iter().zip(&described).enumerate() {
        let config = configs.get(*name).ok_or("their settings may not be read (ACL: DescribeConfigs)");
        if *name == letters.name {
            checked.letters(name, found, config);
        } else if settings.rekey && *name == rekeyed.name {
            checked.rekeyed(&rekeyed, found, config);
        } else if settings.state_topic != StateTopicUse::Never && *name == state {
            checked.state(name, found, config);
        } else if (settings.verdicts_topic && *name == verdicts) || (settings.sightings_topic && *name == sightings) {
            checked.results(name, found, config);
        } else {
            checked.source(name, found, config);
            if at == 0 {
                checked.membership(name);
            }
        }
    }
    Ok(checked.findings)
}

/// Creates our own topics if they are missing.
pub fn create(settings: &KafkaSettings) -> Result<Vec<Finding>, SourceError> {
    let mut findings = vec![made(settings, OwnTopic::letters(settings)?, "30 days")?];
    if settings.rekey {
        findings.push(made(settings, OwnTopic::rekeyed(settings)?, "7 days, LogAppendTime")?);
    }
    if settings.verdicts_topic {
        findings.push(made(settings, OwnTopic::verdicts(settings)?, "7 days")?);
    }
    if settings.sightings_topic {
        findings.push(made(settings, OwnTopic::sightings(settings)?, "3 days")?);
    }
    if settings.state_topic != StateTopicUse::Never {
        let text = "exists, or was created: compacted, as many partitions as the largest source topic".to_owned();
        let (level, text) = match StateTopic::open(settings) {
            Ok(_) => (Level::Ok, text),
            Err(error) => (if_required(settings), error.to_string()),
        };
        let topic = StateTopic::name(settings);
        findings.push(Finding { level, topic, what: "topic", text, repaired_at_start: false });
    }
    Ok(findings)
}

fn made(settings: &KafkaSettings, topic: OwnTopic, retention: &str) -> Result<Finding, SourceError> {
    let (level, text) = if topic.exists().map_err(|code| refused(settings, code))? {
        (Level::Ok, "exists already".to_owned())
    } else {
        match topic.create() {
            Ok(count) => {
                let unit = if count == 1 { "partition" } else { "partitions" };
                let text = format!("created: {count} {unit}, retention {retention}, the brokers' default of replicas");
                (Level::Ok, text)
            }
            Err(reason) => (Level::Failed, format!("not created: {reason}")),
        }
    };
    Ok(Finding { level, topic: topic.name, what: "topic", text, repaired_at_start: false })
}

/// The level of a finding that prevents snapshots. Without `state_topic = true`, the service then runs without them.
fn if_required(settings: &KafkaSettings) -> Level {
    if settings.state_topic == StateTopicUse::Required { Level::Failed } else { Level::Warning }
}

fn refused(settings: &KafkaSettings, code: RDKafkaErrorCode) -> SourceError {
    SourceError::Unavailable(format!("Kafka at {} does not describe its topics: {code}", settings.brokers))
}

/// The settings of each topic for which they may be read.
fn configs(letters: &OwnTopic, names: &[&str]) -> HashMap<String, ConfigResource> {
    let asked: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WAIT));
    let found = futures::executor::block_on(letters.admin.describe_configs(&asked, &options)).unwrap_or_default();
    names.iter().zip(found).filter_map(|(name, config)| Some(((*name).to_owned(), config.ok()?))).collect()
}

struct Checked<'c> {
    findings: Vec<Finding>,
    consumer: &'c BaseConsumer<Member>,
    settings: &'c KafkaSettings,
    /// Number of partitions of the largest topic that is scored.
    scored_partitions: usize,
}

impl Checked<'_> {
    fn add(&mut self, level: Level, topic: &str, what: &'static str, text: impl Into<String>) {
        let (topic, text) = (topic.to_owned(), text.into());
        self.findings.push(Finding { level, topic, what, text, repaired_at_start: false });
    }

    /// Checks that the topic exists with all its partitions.
    fn exists<'d>(
        &mut self,
        name: &str,
        found: &'d Result<Description, RDKafkaErrorCode>,
        missing: &str,
    ) -> Option<&'d Description> {
        match found {
            Ok(found) => {
                let leaderless = found.partitions.iter().filter(|partition| !partition.has_leader).count();
                let count = found.partitions.len();
                if leaderless == 0 {
                    self.add(Level::Ok, name, "topic", format!("{count} partitions"));
                } else {
                    self.add(
                        Level::Failed,
                        name,
                        "topic",
                        format!("{leaderless} of {count} partitions have no leader"),
                    );
                }
                Some(found)
            }
            Err(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                self.add(Level::Failed, name, "topic", missing);
                None
            }
            Err(code) => {
                self.add(Level::Failed, name, "topic", code.to_string());
                None
            }
        }
    }

    fn permission(&mut self, name: &str, may: Option<bool>, verb: &str) {
        match may {
            Some(true) => self.add(Level::Ok, name, "permission", format!("we may {verb} it")),
            Some(false) => self.add(Level::Failed, name, "permission", format!("we may not {verb} it (ACL)")),
            None => self.add(Level::Ok, name, "permission", "the brokers do not report permissions"),
        }
    }

    /// Checks the topic of snapshots.
    fn state(
        &mut self,
        name: &str,
        found: &Result<Description, RDKafkaErrorCode>,
        config: Result<&ConfigResource, &'static str>,
    ) {
        let missing = "does not exist; the service creates it if the ACL permits it, or run `topics create`";
        let level = if_required(self.settings);
        let Some(found) = self.exists(name, found, missing) else {
            if let Some(finding) = self.findings.last_mut() {
                (finding.level, finding.repaired_at_start) = (level, true);
            }
            return;
        };
        let (count, of_sources) = (found.partitions.len(), self.scored_partitions);
        if count < of_sources {
            let why = format!(
                "{count} partitions, and the largest scored topic has {of_sources}: an open snapshot of one partition hides \
                 newer ones of others. Create it again with {of_sources} partitions; more partitions would orphan snapshots"
            );
            self.add(Level::Warning, name, "partitions", why);
        }
        self.permission(name, found.may.map(|may| may.read && may.write), "read and write");
        if let Some(finding) = self.findings.last_mut().filter(|finding| finding.level == Level::Failed) {
            finding.level = level;
        }
        match config {
            Ok(config) if value(config, "cleanup.policy") == "compact" => {
                self.add(Level::Ok, name, "cleanup", "compact");
                let bytes: Option<usize> = value(config, "max.message.bytes").parse().ok();
                if bytes.is_some_and(|bytes| bytes < STATE_MESSAGE_BYTES) {
                    let why = format!("set max.message.bytes to at least {STATE_MESSAGE_BYTES}");
                    self.add(Level::Failed, name, "size", why);
                }
                self.replicas(name, found, config, "snapshots are refused", Level::Warning);
            }
            Ok(_) => {
                let why =
                    "set cleanup.policy=compact: otherwise snapshots are deleted, or the topic grows without limit";
                self.add(Level::Failed, name, "cleanup", why);
            }
            Err(reason) => self.add(Level::Warning, name, "cleanup", reason),
        }
    }

    /// Checks how members share the partitions; reported with the first topic.
    fn membership(&mut self, name: &str) {
        let property = |key| self.settings.properties.get(key).map(String::as_str);
        let instance = property("group.instance.id");
        let strategy = property("partition.assignment.strategy").unwrap_or("cooperative-sticky");
        if strategy.contains("cooperative") {
            let text = match instance {
                Some(_) => "cooperative, static: a restart within session.timeout.ms moves no partition",
                None => "cooperative, without group.instance.id: each restart moves partitions",
            };
            self.add(Level::Ok, name, "membership", text);
        } else {
            let why = format!(
                "partition.assignment.strategy is `{strategy}`: each rebalance takes all partitions from all members, and \
                 each state is restored again. Remove it; the default is cooperative-sticky"
            );
            self.add(Level::Warning, name, "membership", why);
        }
    }

    fn source(
        &mut self,
        name: &str,
        found: &Result<Description, RDKafkaErrorCode>,
        config: Result<&ConfigResource, &'static str>,
    ) {
        let missing = "does not exist; create it or correct source.kafka.topics";
        let Some(found) = self.exists(name, found, missing) else { return };
        if !self.settings.rekey {
            self.scored_partitions = self.scored_partitions.max(found.partitions.len());
        }
        self.permission(name, found.may.map(|may| may.read), "read");
        match config {
            Ok(config) => {
                if value(config, "message.timestamp.type") == "LogAppendTime" {
                    self.add(Level::Ok, name, "timestamps", "LogAppendTime");
                } else {
                    let why = "set message.timestamp.type=LogAppendTime: with CreateTime, producers choose the times of \
                               their events, and nothing contradicts a wrong clock";
                    self.add(Level::Warning, name, "timestamps", why);
                }
                let policy = value(config, "cleanup.policy");
                if policy.contains("compact") {
                    let why = "set cleanup.policy=delete: compaction deletes events that were not read yet";
                    self.add(Level::Warning, name, "cleanup", why);
                }
                let why = "messages of producers with acks=all are refused";
                self.replicas(name, found, config, why, Level::Warning);
                if value(config, "unclean.leader.election.enable") == "true" {
                    let why = "set unclean.leader.election.enable=false: a replica that lags may become the leader, and \
                               messages that were acknowledged are lost, unnoticed if others take their offsets while \
                               no member runs";
                    self.add(Level::Warning, name, "election", why);
                }
            }
            Err(reason) => self.add(Level::Warning, name, "timestamps", reason),
        }
        let is_rebuilt_from_it = !self.settings.rekey;
        self.offsets(name, found, if is_rebuilt_from_it { self.settings.remember_messages_max } else { 0 });
    }

    /// Checks the topic of forwarded messages.
    fn rekeyed(
        &mut self,
        topic: &OwnTopic,
        found: &Result<Description, RDKafkaErrorCode>,
        config: Result<&ConfigResource, &'static str>,
    ) {
        let name = &*topic.name;
        let missing = "does not exist; `tokenwarden topics create` makes it, and so does `run` if it may";
        let is_missing = matches!(found, Err(RDKafkaErrorCode::UnknownTopicOrPartition));
        let Some(found) = self.exists(name, found, missing) else {
            if let Some(finding) = self.findings.last_mut().filter(|_| is_missing) {
                finding.repaired_at_start = true;
            }
            return;
        };
        self.scored_partitions = found.partitions.len();
        self.permission(name, found.may.map(|may| may.read && may.write), "read and write");
        match config {
            Ok(config) => {
                if value(config, "cleanup.policy").contains("compact") {
                    let why = "set cleanup.policy=delete: a compacted topic refuses messages without a key";
                    self.add(Level::Failed, name, "cleanup", why);
                }
                if value(config, "message.timestamp.type") != "LogAppendTime" {
                    let why = "set message.timestamp.type=LogAppendTime: the retention then uses the brokers' clock";
                    self.add(Level::Warning, name, "timestamps", why);
                }
                let needed = topic.message_bytes();
                let bytes: Option<usize> = value(config, "max.message.bytes").parse().ok();
                if let (Some(bytes), Some(needed)) = (bytes, needed)
                    && bytes < needed
                {
                    let why = format!(
                        "max.message.bytes is {bytes}: larger messages of the source topics become dead letters. Set it to at \
                         least {needed}"
                    );
                    self.add(Level::Warning, name, "size", why);
                }
                self.replicas(name, found, config, "no message is forwarded", Level::Failed);
            }
            Err(reason) => self.add(Level::Warning, name, "cleanup", reason),
        }
        self.offsets(name, found, self.settings.remember_messages_max);
    }

    /// Checks that the log accepts messages. `few`: the level if replicas are missing at present.
    fn replicas(&mut self, name: &str, found: &Description, config: &ConfigResource, then: &str, few: Level) {
        let needed: usize = value(config, "min.insync.replicas").parse().unwrap_or(1);
        let least = |count: fn(&Partition) -> usize| found.partitions.iter().map(count).min().unwrap_or(0);
        let (in_sync, all) = (least(|partition| partition.in_sync_replicas), least(|partition| partition.replicas));
        if all < needed {
            let text = format!("min.insync.replicas is {needed}, and there are {all} replicas: {then}, always");
            self.add(Level::Failed, name, "replicas", text);
        } else if in_sync < needed {
            let text = format!("{in_sync} in sync, {needed} needed (min.insync.replicas): {then}");
            self.add(few, name, "replicas", text);
        } else {
            self.add(Level::Ok, name, "replicas", format!("{in_sync} in sync, {needed} needed"));
        }
    }

    /// Checks that the log retains `remember` messages for rebuilding, and that the committed offsets are in it.
    fn offsets(&mut self, name: &str, found: &Description, remember: u32) {
        let mut partitions = TopicPartitionList::with_capacity(found.partitions.len());
        for partition in &found.partitions {
            partitions.add_partition(name, partition.number);
        }
        let topic: Arc<str> = name.into();
        let ids = HashMap::from([(Arc::clone(&topic), found.id)]);
        let logs = logs(self.consumer, &partitions, &ids);
        let committed = match self.consumer.committed_offsets(partitions, ANSWER_WAIT) {
            Ok(committed) => committed,
            Err(error) => return self.add(Level::Failed, name, "offsets", error.to_string()),
        };
        let remember = i64::from(remember);
        let (mut outside, mut none, mut least) = (Vec::new(), 0, None::<(i64, i32)>);
        for partition in &found.partitions {
            let number = partition.number;
            let Some(log) = logs.get(&(Arc::clone(&topic), number)).copied() else {
                outside.push(format!("partition {number}: its log is not known"));
                continue;
            };
            let Log { low, high, .. } = log;
            let kept = high - low;
            // A log that has not deleted anything yet does not show its retention.
            if low > 0 && kept < remember {
                least = Some(least.map_or((kept, number), |least| least.min((kept, number))));
            }
            match left(&committed, name, number) {
                Ok(None) => none += 1,
                Ok(Some(left)) => {
                    if let Some(kind) = resume(Some(left), log, 0, First::Earliest).gap {
                        let (offset, kind) = (left.offset, kind.name());
                        outside.push(format!("partition {number}: committed {offset}, log {low} to {high} ({kind})"));
                    }
                }
                Err(error) => outside.push(format!("partition {number}: {error}")),
            }
        }
        match least {
            None => self.add(Level::Ok, name, "retention", "contains the messages needed for rebuilding"),
            Some((kept, number)) => {
                let text = format!(
                    "partition {number} holds {kept} messages; rebuilding reads up to {remember} \
                     (source.kafka.remember_messages_max). Raise retention.ms or retention.bytes"
                );
                self.add(Level::Warning, name, "retention", text);
            }
        }
        let group = &self.settings.group_id;
        if outside.is_empty() {
            let read = found.partitions.len() - none;
            let text = format!("group `{group}`: {read} of {} committed, all in the log", found.partitions.len());
            self.add(Level::Ok, name, "offsets", text);
        } else {
            let text = format!("group `{group}`: {}", outside.join("; "));
            self.add(Level::Failed, name, "offsets", text);
        }
    }

    fn letters(
        &mut self,
        name: &str,
        found: &Result<Description, RDKafkaErrorCode>,
        config: Result<&ConfigResource, &'static str>,
    ) {
        let Some((found, config)) = self.written(name, found, config) else { return };
        self.replicas(name, found, config, "letters are refused", Level::Failed);
        let bytes: usize = value(config, "max.message.bytes").parse().unwrap_or(usize::MAX);
        if bytes < LETTER_BYTES_MAX {
            let text =
                format!("max.message.bytes is {bytes}: longer letters are cut, and refused if that is not enough");
            self.add(Level::Warning, name, "size", text);
        }
    }

    fn results(
        &mut self,
        name: &str,
        found: &Result<Description, RDKafkaErrorCode>,
        config: Result<&ConfigResource, &'static str>,
    ) {
        let Some((found, config)) = self.written(name, found, config) else { return };
        self.replicas(name, found, config, "messages are refused", Level::Failed);
        if value(config, "cleanup.policy").contains("compact") {
            let why = "set cleanup.policy=delete: compaction keeps only the last message of each key";
            self.add(Level::Warning, name, "cleanup", why);
        }
    }

    /// Checks that a topic exists, or is created at the start, and that it may be written. Returns its settings, if they may
    /// be read.
    fn written<'d>(
        &mut self,
        name: &str,
        found: &'d Result<Description, RDKafkaErrorCode>,
        config: Result<&'d ConfigResource, &'static str>,
    ) -> Option<(&'d Description, &'d ConfigResource)> {
        let missing = "does not exist; `tokenwarden topics create` makes it, and so does `run` if it may";
        let is_missing = matches!(found, Err(RDKafkaErrorCode::UnknownTopicOrPartition));
        let Some(found) = self.exists(name, found, missing) else {
            if let Some(finding) = self.findings.last_mut().filter(|_| is_missing) {
                finding.repaired_at_start = true;
            }
            return None;
        };
        self.permission(name, found.may.map(|may| may.write), "write to");
        match config {
            Ok(config) => Some((found, config)),
            Err(reason) => {
                self.add(Level::Warning, name, "replicas", reason);
                None
            }
        }
    }
}

/// The value of a topic's setting; empty where the brokers do not give it.
fn value<'c>(config: &'c ConfigResource, key: &str) -> &'c str {
    config.get(key).and_then(|entry| entry.value.as_deref()).unwrap_or_default()
}
