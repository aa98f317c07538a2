//! `tokenwarden topics`: creates tokenwarden's topics, and checks all that the service reads from and writes to.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::failure::Failure;
use crate::config::Config;
use crate::pipeline::is_keyed;
use crate::port::{BreakerRecord, DenylistRecord, FeedbackRecord, LogRecord, SilenceRecord, SourceError};
use crate::sanitize;
use crate::source::kafka::{self, Finding, KafkaSettings, Level, RecordTopic, Topic};
use crate::token::TokenHasher;
use crate::wire::{Decoded, Decoder};

/// Create our own topics, or check every topic and the offsets of the group.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create our own topics if they are missing: <prefix>.dead-letters, <prefix>.rekeyed with rekey, <prefix>.state unless snapshots are elsewhere or off, <prefix>.verdicts with verdicts_topic, <prefix>.sightings with detection.campaigns, <prefix>.denylist, <prefix>.silences and <prefix>.feedback if there are [denylist], [silences] and [feedback], and <prefix>.breakers if revoke.mode is enforce.
    Create(Options),
    /// Check that topics exist, may be read or written, keep enough, and that offsets are in the log. Changes nothing.
    Check(Options),
}

#[derive(Debug, Args)]
struct Options {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Prints the findings: a table on a terminal, otherwise a line each. Fails if a finding prevents the service from
/// working.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (Command::Create(options) | Command::Check(options)) = &arguments.command;
    let config = Config::load(Some(&options.config))?;
    let kafka = settings(&config)?;
    let findings = match arguments.command {
        Command::Create(_) => create(&config, kafka)?,
        Command::Check(_) => check(&config, kafka)?,
    };
    let text = if std::io::stdout().is_terminal() { table(&findings) } else { lines(&findings) };
    write!(std::io::stdout(), "{text}").map_err(|error| Failure::output("to stdout", &error))?;
    match findings.iter().filter(|finding| finding.level == Level::Failed).count() {
        0 => Ok(()),
        1 => Err(Failure::Unavailable("one check failed".to_owned())),
        count => Err(Failure::Unavailable(format!("{count} checks failed"))),
    }
}

/// How a topic is created or checked.
type Step = fn(&KafkaSettings) -> Result<Finding, SourceError>;

/// How the topic of each configured log is created, and how it is checked.
fn logs(config: &Config) -> impl Iterator<Item = (Step, Step)> {
    fn of<R: LogRecord>(is_configured: bool) -> Option<(Step, Step)> {
        is_configured.then_some((RecordTopic::<R>::create, RecordTopic::<R>::check))
    }
    let logs = [
        of::<DenylistRecord>(config.denylist.is_some()),
        of::<SilenceRecord>(config.silences.is_some()),
        of::<FeedbackRecord>(config.feedback.is_some()),
        of::<BreakerRecord>(config.breakers().is_some()),
    ];
    logs.into_iter().flatten()
}

fn create(config: &Config, kafka: &KafkaSettings) -> Result<Vec<Finding>, SourceError> {
    let mut findings = kafka::create(kafka)?;
    for (create, _) in logs(config) {
        findings.push(create(kafka)?);
    }
    Ok(findings)
}

/// Checks every topic and the offsets of the group. Changes nothing.
pub(super) fn check(config: &Config, kafka: &KafkaSettings) -> Result<Vec<Finding>, SourceError> {
    let mut findings = kafka::check(kafka)?;
    let mut readable = Vec::new();
    for topic in &kafka.topics {
        let is_failed = |finding: &Finding| finding.topic == topic.topic && finding.level == Level::Failed;
        if !findings.iter().any(is_failed) {
            readable.push(topic);
        }
    }
    for topic in readable {
        findings.extend(keys(kafka, topic)?);
    }
    for (_, check) in logs(config) {
        findings.push(check(kafka)?);
    }
    Ok(findings)
}

/// Checks the keys of the newest messages of a topic. `None`: it has one partition, or no event was found.
fn keys(kafka: &KafkaSettings, topic: &Topic) -> Result<Option<Finding>, SourceError> {
    // Replaces bearer tokens in the events. Nothing of them is printed.
    let mut decoder = Decoder::new(topic.feed, TokenHasher::new(b"for a comparison of keys"));
    let (mut events, mut others) = (0, 0);
    kafka::sample(kafka, &topic.topic, &mut |key, payload| {
        decoder.decode(payload, &mut |decoded| {
            if let Ok(Decoded::Event(event)) = decoded {
                events += 1;
                others += usize::from(!is_keyed(&event, topic.feed, key));
            }
        });
    })?;
    let (level, text) = match (events, others) {
        (0, _) => return Ok(None),
        (_, 0) if kafka.rekey => {
            let text = format!(
                "all {events} sampled events are in messages with their subject key, so source.kafka.rekey is not needed"
            );
            (Level::Ok, text)
        }
        (_, _) if kafka.rekey => {
            let text = format!(
                "{others} of {events} sampled events are in messages with another key than their subject key; they are forwarded by subject (source.kafka.rekey)"
            );
            (Level::Ok, text)
        }
        (_, 0) => (Level::Ok, format!("all {events} sampled events are in messages with their subject key")),
        _ => {
            let text = format!(
                "{others} of {events} sampled events are in messages with another key than their subject key: if a user's \
                 events are in several partitions, each partition has a part of the user's history. Key messages by the \
                 subject key (docs/event.md, Keys), or set source.kafka.rekey = true"
            );
            (Level::Warning, text)
        }
    };
    Ok(Some(Finding { level, topic: topic.topic.clone(), what: "keys", text, repaired_at_start: false }))
}

fn settings(config: &Config) -> Result<&KafkaSettings, Failure> {
    let missing = "there is no [source.kafka], so there are no topics";
    config.source.kafka.as_ref().ok_or_else(|| Failure::Configuration(missing.to_owned()))
}

const fn name(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warning => "WARNING",
        Level::Failed => "FAILED",
    }
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().fold(String::new(), |mut lines, Finding { level, topic, what, text, .. }| {
        let line = format!("{:<8}{topic}: {what}: {text}", name(*level));
        lines += &sanitize::line(&line);
        lines.push('\n');
        lines
    })
}

fn table(findings: &[Finding]) -> String {
    let topic_width = findings.iter().map(|finding| finding.topic.chars().count()).max().unwrap_or(0).max(5);
    let mut table = format!("{:<8} {:<topic_width$} {:<10} DETAIL\n", "RESULT", "TOPIC", "CHECK");
    for Finding { level, topic, what, text, .. } in findings {
        let (topic, text) = (sanitize::line(topic), sanitize::line(text));
        let _ = writeln!(table, "{:<8} {topic:<topic_width$} {what:<10} {text}", name(*level));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_a_table_on_a_terminal_only() {
        let finding = |level, topic: &str, what, text: &str| Finding {
            level,
            topic: topic.to_owned(),
            what,
            text: text.to_owned(),
            repaired_at_start: false,
        };
        let findings = [
            finding(Level::Ok, "token-events", "topic", "3 partitions"),
            finding(Level::Failed, "t", "permission", "may not\u{1b}[2J\nread"),
        ];
        insta::assert_snapshot!(lines(&findings), @r"
        ok      token-events: topic: 3 partitions
        FAILED  t: permission: may not␛[2J␊read
        ");
        insta::assert_snapshot!(table(&findings), @r"
        RESULT   TOPIC        CHECK      DETAIL
        ok       token-events topic      3 partitions
        FAILED   t            permission may not␛[2J␊read
        ");
    }
}
