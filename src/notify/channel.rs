//! Named channels: `[alert.channel.NAME]`.

use std::sync::Arc;

use tokio::sync::watch;

use super::email::Email;
use super::http::HttpChannel;
use super::ocsf_file::OcsfFile;
use super::ocsf_kafka::OcsfKafka;
use super::settings::{ChannelKind, ChannelSettings, required};
use super::signals::Signals;
use super::syslog::Syslog;
use super::webhook::Webhook;
use crate::port::{Clock, MessageTopic, Notifier};
use crate::rule::RuleSet;

/// Longest name of a channel, bytes.
const NAME_BYTES_MAX: usize = 40;
/// Names that sections, or queues of the outbox, have already.
const RESERVED: [&str; 7] = ["email", "webhook", "revoke", "rows", "silences", "breakers", "users"];

/// Opens a topic by its name. The error is the problem of the name or of the brokers.
pub type OpenTopic<'a> = &'a dyn Fn(&str) -> Result<Arc<dyn MessageTopic>, String>;

/// Creates the channel `name`: one notifier, or one for each recipient of mail. The error is the key in its section and
/// the problem; it contains no secret.
pub fn open_channel(
    name: &str,
    settings: &ChannelSettings,
    rules: watch::Receiver<Arc<RuleSet>>,
    clock: Arc<dyn Clock>,
    open_topic: OpenTopic<'_>,
) -> Result<Vec<Arc<dyn Notifier>>, (&'static str, String)> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        let problem = format!("belongs to a channel whose name is not 1 to {NAME_BYTES_MAX} of a-z, 0-9, `_` and `-`");
        return Err(("kind", problem));
    }
    if RESERVED.contains(&name) {
        return Err(("kind", format!("belongs to a channel with the reserved name `{name}`; choose another name")));
    }
    if let Some(key) = settings.superfluous() {
        let kind = settings.kind.as_str();
        let used = settings.kind.keys().join(", ");
        return Err((key, format!("is not used by channels of kind `{kind}`; remove it. This kind uses {used}")));
    }
    let one = |notifier: Arc<dyn Notifier>| vec![notifier];
    Ok(match settings.kind {
        ChannelKind::Email => {
            let emails = Email::new(name, &settings.email()?, rules)?;
            emails.into_iter().map(|email| Arc::new(email) as Arc<dyn Notifier>).collect()
        }
        ChannelKind::Webhook => one(Arc::new(Webhook::new(name, &settings.webhook()?, clock)?)),
        ChannelKind::Syslog => one(Arc::new(Syslog::new(name, settings)?)),
        ChannelKind::SharedSignals => one(Arc::new(Signals::new(name, settings, clock)?)),
        ChannelKind::OcsfKafka => {
            let topic =
                open_topic(required("topic", settings.topic.as_ref())?).map_err(|problem| ("topic", problem))?;
            one(Arc::new(OcsfKafka::new(name, topic)))
        }
        ChannelKind::OcsfFile => one(Arc::new(OcsfFile::new(name, settings)?)),
        ChannelKind::Http | ChannelKind::Preset(_) => one(Arc::new(HttpChannel::new(name, settings, clock)?)),
    })
}
