//! Explanations: signals, and texts of places, numbers and times.

use super::lesson::Lesson;
use super::observation::Observation;
use super::score::Score;
use crate::enrichment::EnrichedEvent;
use crate::math::exp;
use crate::memory::{Baseline, Cohorts, Generations};
use crate::millis::MINUTE_MS;
use crate::number::grouped;
use crate::rule::{RuleSet, Status};
use crate::verdict::{RuleId, Signal};

/// Minimum share, in nats, of a listed signal.
pub(crate) const LISTED_FROM: f64 = 0.5;

/// Key of a network in the table of names.
pub(crate) const fn network_name(network: u32) -> u64 {
    network as u64
}

/// Key of a client family in the table of names.
pub(crate) const fn family_name(family: u32) -> u64 {
    1 << 32 | family as u64
}

/// The explanation of a rule for one event.
pub(crate) struct Description {
    /// The owner's probability of an observation at least as unusual, if the detector computes one.
    pub(crate) p_value: Option<f64>,
    pub(crate) observed: String,
    pub(crate) expected: String,
    /// One sentence.
    pub(crate) reason: String,
}

/// The signals of one event.
pub(crate) struct Signals<'a> {
    rules: &'a RuleSet,
    list: Vec<Signal>,
}

impl<'a> Signals<'a> {
    pub(crate) const fn new(rules: &'a RuleSet) -> Self {
        Self { rules, list: Vec::new() }
    }

    /// Adds the signal of a rule that is not disabled, if its share is at least 0.5 nats.
    #[inline]
    pub(super) fn add(&mut self, rule: RuleId, share: f64, describe: impl FnOnce() -> Description) {
        if share < LISTED_FROM {
            return;
        }
        self.list(rule, share, describe);
    }

    /// Adds the signal of a rule that is not disabled. Few shares are listed, so the texts are not part of the code that
    /// compares the shares.
    #[cold]
    #[inline(never)]
    fn list(&mut self, rule: RuleId, share: f64, describe: impl FnOnce() -> Description) {
        let configured = self.rules.rule(rule);
        if configured.status == Status::Disabled {
            return;
        }
        let Description { p_value, observed, expected, reason } = describe();
        // By Markov's inequality, a likelihood ratio of e^share has a probability of at most e^−share for the owner.
        let p_value = p_value.unwrap_or_else(|| exp(-share));
        let fired = configured.fires(share);
        self.list.push(Signal { rule, share, p_value, fired, observed, expected, reason });
    }

    /// The largest share first.
    pub(crate) fn sorted(self) -> Vec<Signal> {
        let mut list = self.list;
        list.sort_by(|one, other| other.share.total_cmp(&one.share));
        list
    }
}

/// Input of the detectors to explain an event.
pub(crate) struct Words<'a> {
    pub(crate) observation: &'a Observation<'a>,
    pub(crate) score: &'a Score,
    /// Part of the identity evidence that `fan` does not explain.
    pub(crate) unexplained: f64,
    pub(crate) baseline: &'a Baseline,
    pub(crate) lesson: &'a Lesson,
    pub(crate) names: &'a Generations<Box<str>>,
    pub(crate) cohorts: &'a Cohorts,
}

impl Words<'_> {
    /// Place and network of the event: `Sydney, AU, AS1221 Telstra`.
    pub(super) fn here(&self) -> String {
        place_text(self.observation.enriched)
    }
}

/// Place and network of an event: `Sydney, AU, AS1221 Telstra`.
pub(crate) fn place_text(enriched: &EnrichedEvent<'_>) -> String {
    let (city, country) = enriched.place.as_ref().map_or(("", ""), |place| (&*place.city, place.country.as_str()));
    let comma = |text: &str| if text.is_empty() { "" } else { ", " };
    let mut digits = itoa::Buffer::new();
    let address;
    let (by, number, name) = match (&enriched.network, enriched.event.address) {
        (Some(network), _) => ("AS", digits.format(network.asn), &*network.org),
        (None, Some(found)) => {
            address = found.to_string();
            ("", address.as_str(), "")
        }
        (None, None) => ("", "", ""),
    };
    let space = if name.is_empty() { "" } else { " " };
    [city, comma(city), country, comma(country), by, number, space, name].concat()
}

/// Rounds to the nearest integer. Formatting an integer takes a tenth of the time of a float.
pub(super) fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// Both texts with a space between them, or the one that is not empty.
pub(super) fn both(one: &str, other: &str) -> String {
    let (one, other) = (one.trim(), other.trim());
    let between = if one.is_empty() || other.is_empty() { "" } else { " " };
    [one, between, other].concat()
}

/// `08:00 to 17:00 UTC`
pub(super) fn hours_text(from: usize, to: usize) -> String {
    let (mut first, mut last) = (itoa::Buffer::new(), itoa::Buffer::new());
    let zero = |hour: usize| if hour < 10 { "0" } else { "" };
    [zero(from), first.format(from), ":00 to ", zero(to), last.format(to), ":00 UTC"].concat()
}

/// `0.07`
pub(super) fn hundredths(number: f64) -> String {
    let hundredths = (number * 100.0).round() as u64;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// `15,900`: rounded to 100 km, because GeoIP coordinates are not more accurate.
pub(super) fn kilometres(km: f64) -> String {
    grouped((km / 100.0).round() as u64 * 100)
}

/// `41 min`, `3 h`, `2 days`.
pub(super) fn span(millis: i64) -> String {
    let minutes = millis / MINUTE_MS;
    match minutes {
        ..1 => format!("{} s", millis / 1_000),
        1..120 => format!("{minutes} min"),
        120..2_880 => format!("{} h", minutes / 60),
        _ => format!("{} days", minutes / 1_440),
    }
}
