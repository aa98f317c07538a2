//! Warnings about what producers send.

use std::collections::HashSet;
use std::sync::Arc;

use crate::tally::{Note, Tally};

/// Logs each note once per topic, so that no producer fills the log.
#[derive(Default)]
pub(super) struct Warnings {
    logged: HashSet<(Arc<str>, Note)>,
    /// Topics with messages that are not keyed by the subject key.
    other_keys: HashSet<Arc<str>>,
}

impl Warnings {
    /// `topic`: that of the messages of `tally`.
    pub(super) fn log(&mut self, topic: &Arc<str>, tally: &Tally) {
        if tally.key_mismatches > 0 && self.other_keys.insert(Arc::clone(topic)) {
            let topic = &**topic;
            tracing::warn!(
                topic,
                "messages are not keyed by the subject key of their events (docs/event.md, Keys): if a user's events are in \
                 several partitions, each partition has a part of the user's history"
            );
        }
        for (topic, note, _) in &tally.noted {
            if !self.logged.insert((Arc::clone(topic), *note)) {
                continue;
            }
            let topic = &**topic;
            match note {
                Note::Unreadable(field) => {
                    tracing::warn!(
                        topic,
                        field,
                        "a field of some events cannot be read as sent: it is repaired or counts as absent"
                    );
                }
                Note::WithoutAddress(format) => tracing::warn!(
                    topic,
                    hint = format.address_hint(),
                    "some uses have no address; detectors of places and networks do not apply to them"
                ),
                Note::ConfirmedIgnored => tracing::warn!(
                    topic,
                    "`confirmed` events are stored but ignored; to accept them, set confirmed = true for this source"
                ),
                Note::OpaqueIds => tracing::warn!(
                    topic,
                    "token ids look like opaque secrets; if a producer sends tokens, set privacy.token_ids = \"hashed\""
                ),
                Note::Redacted => tracing::warn!(
                    topic,
                    "a producer sends bearer tokens instead of ids; they are replaced by keyed hashes"
                ),
            }
        }
    }
}
