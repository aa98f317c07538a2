//! Finds the partitions of the subjects of a message.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::feed::Feed;
use crate::port::Splitter;
use crate::token::TokenHasher;
use crate::wire::{self, Decoded, Decoder};

/// Decodes messages as scoring does.
pub(crate) struct SubjectSplitter {
    decoders: HashMap<Arc<str>, Decoder>,
    found: Vec<i32>,
    hasher: TokenHasher,
}

impl SubjectSplitter {
    /// `topics`: the settings of each topic. `hasher`: that of scoring, because a token id may be a subject key.
    pub(crate) fn new(topics: impl IntoIterator<Item = (Arc<str>, Feed)>, hasher: &TokenHasher) -> Self {
        let decoders = topics.into_iter().map(|(topic, feed)| (topic, Decoder::new(feed, hasher.clone())));
        Self { decoders: decoders.collect(), found: Vec::new(), hasher: hasher.clone() }
    }
}

impl Splitter for SubjectSplitter {
    fn split(&mut self, topic: &str, payload: &[u8], among: usize) -> &[i32] {
        let Self { decoders, found, .. } = self;
        found.clear();
        if let Some(decoder) = decoders.get_mut(topic) {
            // A message that causes a panic also does so when it is scored, and becomes a dead letter there.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                decoder.decode(payload, &mut |decoded| {
                    if let Ok(Decoded::Event(event)) = decoded {
                        let partition = event.partition_among(among) as i32;
                        if !found.contains(&partition) {
                            found.push(partition);
                        }
                    }
                });
            }));
            // Scoring counts the same.
            decoder.take_notes();
        }
        found
    }

    fn redact(&self, payload: &[u8]) -> Vec<u8> {
        wire::redact(payload, &self.hasher)
    }
}
