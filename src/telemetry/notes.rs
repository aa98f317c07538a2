//! Metrics of problems that a topic's producers can correct, labelled by topic.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::label::Labels;
use crate::tally::{Note, Tally};

/// Counters of each [`Note`].
#[derive(Debug)]
pub(super) struct Notes {
    unreadable: Family<Labels<2>, Counter>,
    without_address: Family<Labels<1>, Counter>,
    confirmed_ignored: Family<Labels<1>, Counter>,
    redactions: Family<Labels<1>, Counter>,
    opaque_ids: Family<Labels<1>, Counter>,
}

impl Notes {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let unreadable = Family::default();
        registry.register(
            "unreadable_fields",
            "Optional fields that could not be read and count as absent, by topic and field",
            Family::clone(&unreadable),
        );
        let mut family = |name, help| {
            let family = Family::default();
            registry.register(name, help, Family::clone(&family));
            family
        };
        Self {
            unreadable,
            without_address: family(
                "events_without_address",
                "Uses whose address is missing or cannot be read, by topic",
            ),
            confirmed_ignored: family(
                "confirmed_ignored",
                "Confirmed events that were ignored because their source has no confirmed = true, by topic",
            ),
            redactions: family("redactions", "Bearer tokens replaced by their hash, by topic"),
            opaque_ids: family("opaque_token_ids", "Sampled token ids that look like opaque secrets, by topic"),
        }
    }

    pub(super) fn count(&self, tally: &Tally) {
        for (topic, note, count) in &tally.noted {
            let topic = ("topic", topic.to_string().into());
            match *note {
                Note::Unreadable(field) => self.unreadable.get_or_create(&[topic, ("field", field.into())]),
                Note::WithoutAddress(_) => self.without_address.get_or_create(&[topic]),
                Note::ConfirmedIgnored => self.confirmed_ignored.get_or_create(&[topic]),
                Note::Redacted => self.redactions.get_or_create(&[topic]),
                Note::OpaqueIds => self.opaque_ids.get_or_create(&[topic]),
            }
            .inc_by(*count);
        }
    }
}
