//! The path of an event: `decode → enrich → step → fan out`. Read this file first.
//!
//! One thread processes a few messages at a time. Everything before the fan-out is in memory only. The fan-out writes into
//! an [`Epoch`]; the [`worker`](crate::worker) publishes and stores it. An ordinary event borrows from its message and
//! allocates nothing; the events of a call share one list.

mod epoch;
mod feedback;
mod group;
mod split;

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

pub(crate) use self::epoch::Appeared;
pub use self::epoch::{Epoch, VerdictOutput};
use self::feedback::Schedule;
pub(crate) use self::feedback::{Scheduled, Start};
pub(crate) use self::group::Group;
pub(crate) use self::split::SubjectSplitter;

use crate::checkpoint::{LogTimeKind, Spot};
use crate::engine::{self, State, Step};
use crate::enrich::Enricher;
use crate::enrichment::EnrichedEvent;
use crate::event::{Event, Kind};
use crate::feed::{Feed, Feeds};
use crate::port::{FeedbackId, Forwarded, GivenFeedback, Message, Origin, Rows, Share};
use crate::rule::RuleSet;
use crate::snapshot::{self, Extent, ReadError, Unreadable};
use crate::tally::{Note, Tally};
use crate::telemetry;
use crate::token::TokenHasher;
use crate::wire::{self, Decoded, Decoder};

/// Why a message that was forwarded for another consumer group is skipped.
const OTHER_GROUP: &str = "a message forwarded for another consumer group";
/// Reason of the dead letter of a message that is too large to be forwarded.
const CUT: &str = "the message, or all its copies together, are too large to be forwarded";

/// Enricher, rules and settings that all partitions of one thread share.
pub struct Pipeline {
    pub(crate) enricher: Enricher,
    pub(crate) rules: Arc<RuleSet>,
    hasher: TokenHasher,
    settings: engine::Settings,
}

/// Decoder and state of one partition, or of several partitions that are read as one.
pub struct Partition {
    /// For messages that their producers sent to the partition.
    own: Reader,
    /// For messages that were forwarded to it, by their original topic.
    forwarded: HashMap<Arc<str>, Reader>,
    /// At least one.
    states: Vec<State>,
    schedule: Schedule,
}

/// Decoder of the messages of one topic, and their settings.
struct Reader {
    feed: Feed,
    decoder: Decoder,
}

impl Pipeline {
    /// Names are hashed with a key that is derived from the hasher's key.
    pub fn new(enricher: Enricher, rules: Arc<RuleSet>, hasher: TokenHasher, settings: engine::Settings) -> Self {
        let enricher = enricher.with_hasher(hasher.key_hasher());
        Self { enricher, rules, hasher, settings }
    }

    /// A partition with empty state for messages from `feed`.
    pub fn partition(&self, feed: impl Into<Feed>) -> Partition {
        self.partitions(feed, 1)
    }

    /// `count` partitions with empty states that are read as one. Each event is scored with the state of the partition of
    /// its subject key; results keep the order of the messages. The partitions share the alert budget evenly, rounded up.
    pub fn partitions(&self, feed: impl Into<Feed>, count: u16) -> Partition {
        self.with_feeds(&feed.into().into(), count)
    }

    /// As [`Self::partition`], for messages that may have been forwarded.
    pub(crate) fn partition_of(&self, feeds: &Feeds) -> Partition {
        self.with_feeds(feeds, 1)
    }

    fn with_feeds(&self, feeds: &Feeds, count: u16) -> Partition {
        let reader = |feed: Feed| Reader { feed, decoder: Decoder::new(feed, self.hasher.clone()) };
        let count = u32::from(count.max(1));
        let settings = self.settings.for_one_of(count);
        let states = (0..count).map(|_| State::new(settings.clone())).collect();
        let forwarded = feeds.forwarded.iter().map(|(topic, feed)| (Arc::clone(topic), reader(*feed))).collect();
        Partition { own: reader(feeds.own), forwarded, states, schedule: Schedule::default() }
    }

    /// [`Self::partitions`] with the states that [`Partition::save`] wrote, from the records that `next` returns in order.
    /// Limits and budgets are those of this pipeline.
    pub fn restored<E>(
        &self,
        feed: impl Into<Feed>,
        count: u16,
        extent: Extent,
        next: &mut dyn FnMut() -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Partition, ReadError<E>> {
        let stored: Vec<State> = snapshot::read(engine::STATE_FORMAT, extent, next)?;
        let found = stored.len();
        self.continued(&feed.into().into(), count, stored)
            .ok_or(Unreadable::States { found, expected: count.into() }.into())
    }

    /// [`Self::partitions`] with restored states. `None`: their number is another.
    pub(crate) fn continued(&self, feeds: &Feeds, count: u16, stored: Vec<State>) -> Option<Partition> {
        let mut partition = self.with_feeds(feeds, count);
        if stored.len() != partition.states.len() {
            return None;
        }
        for (state, stored) in partition.states.iter_mut().zip(stored) {
            *state = stored.with_settings(state.settings().clone());
        }
        Some(partition)
    }

    /// Feedback with its events enriched, as a partition learns it. Events that cannot be decoded are left out. `thieves`:
    /// the indexes of events that its place contains.
    pub(crate) fn feedback(
        &mut self,
        id: FeedbackId,
        given: &GivenFeedback,
        thieves: Option<Vec<u32>>,
    ) -> engine::Feedback<'static> {
        let GivenFeedback { incident, judgement, since, until, .. } = *given;
        let mut decoder = Decoder::new(Feed::default(), self.hasher.clone());
        let mut events = Vec::new();
        for (index, event) in (0..).zip(&given.events) {
            decoder.decode(event.json().as_bytes(), &mut |decoded| match decoded {
                Ok(Decoded::Event(event)) => {
                    let event = self.enricher.enrich(event.into_owned());
                    events.push(engine::FeedbackEvent { index, event });
                }
                Ok(Decoded::Skipped(_)) | Err(_) => {
                    tracing::error!(feedback = %id, "an event of feedback cannot be read and is not learnt");
                }
            });
        }
        engine::Feedback { id: id.0, incident, judgement, since, until, events, thieves }
    }

    /// Limit of the states of all partitions, bytes.
    pub(crate) const fn memory_max(&self) -> Option<usize> {
        self.settings.memory_bytes_max
    }

    /// Recognises the key of the names in a state.
    pub(crate) fn key_check(&self) -> u64 {
        self.hasher.key_hasher().check()
    }

    /// A number that is the same for the same rules.
    pub(crate) fn rules_version(&self) -> u64 {
        xxh3_64(format!("{:?}", self.rules).as_bytes())
    }

    /// Processes messages of one original topic in order and writes the results to `epoch`. Cannot fail: a message that cannot be decoded, or
    /// that causes a panic, becomes a dead letter. If the scoring of an event panics, the event is not learnt. Only a vote
    /// on the stream time, and limits of stored times that lie in the future, may remain ([`engine::step`]). If learning or encoding panics, the event may be learnt in part. The number of messages
    /// per call affects only the speed.
    ///
    /// `now`: milliseconds since the epoch, wall clock. It is the ingestion time of rows and does not affect verdicts.
    pub fn process<R: Rows>(
        &mut self,
        partition: &mut Partition,
        messages: &[Message<'_>],
        now: i64,
        epoch: &mut Epoch<R>,
    ) {
        let Self { enricher, rules, hasher, .. } = self;
        let Partition { own, forwarded, states, schedule } = partition;
        let Some(first) = messages.first() else { return };
        let topic = &first.original().topic;
        let Reader { feed, decoder } = forwarded.get_mut(topic).unwrap_or(own);
        for state in &mut *states {
            state.believe(feed.confirmed);
        }
        // One allocation per call: events borrow from the messages and cannot outlive them.
        let found = Vec::with_capacity(messages.len().min(engine::GROUP));
        let mut batch = Batch { feed: *feed, states, rules, hasher, now, epoch, found, given_up: None };
        for message in messages {
            if !schedule.is_empty() {
                batch.score();
                schedule.learn_due(batch.states, message.position);
            }
            batch.epoch.tally.messages += 1;
            let share = match share(message) {
                Ok(share) => share,
                Err(Unscored::Skipped(reason)) => {
                    batch.epoch.tally.skip(reason);
                    continue;
                }
                Err(Unscored::Unreadable(reason)) => {
                    batch.found(message, Found::Unreadable(reason.to_owned(), None));
                    continue;
                }
            };
            // Faulty and skipped records, and notes, are counted with the first copy of a message.
            let is_first = share.is_none_or(Share::is_first);
            if !is_first {
                note_decoding(&mut batch.epoch.tally, topic, &decoder.take_notes());
            }
            let mut events = 0;
            let done = catch_unwind(AssertUnwindSafe(|| {
                decoder.decode(message.payload, &mut |decoded| match decoded {
                    Ok(Decoded::Event(event)) => {
                        if share.is_none_or(|share| share.contains(&event)) {
                            batch.add((message, events), event, enricher);
                        }
                        events += 1;
                    }
                    Ok(Decoded::Skipped(reason)) if is_first => batch.epoch.tally.skip(reason),
                    Err(error) if is_first => {
                        batch.found(message, Found::Unreadable(error.cause(), Some(error.at)));
                    }
                    Ok(Decoded::Skipped(_)) | Err(_) => {}
                });
            }));
            if !is_first {
                decoder.take_notes();
            }
            // Enriching the events of one copy can panic, so each copy has its dead letter.
            if done.is_err() {
                batch.found(message, Found::Unreadable(panicked(), None));
            }
        }
        batch.score();
        note_decoding(&mut epoch.tally, topic, &decoder.take_notes());
        for message in messages {
            epoch.checkpoint.advance(message.position);
        }
    }
}

/// Decoded content of some messages that is not scored yet. All events of a group are decoded before the first is scored,
/// so that their memory can be prefetched together.
struct Batch<'a, 'm, R> {
    feed: Feed,
    states: &'a mut [State],
    rules: &'a RuleSet,
    hasher: &'a TokenHasher,
    now: i64,
    epoch: &'a mut Epoch<R>,
    found: Vec<(&'m Message<'m>, Found<'m>)>,
    /// The message that became a dead letter as a whole. Its remaining records are skipped.
    given_up: Option<&'m Message<'m>>,
}

/// Content of a message.
#[allow(clippy::large_enum_variant, reason = "nearly all values are events")]
enum Found<'m> {
    Event {
        /// Index of the partition's state.
        state: usize,
        /// Index in the message.
        index: u32,
        event: EnrichedEvent<'m>,
    },
    /// The error, and its position in the message.
    Unreadable(String, Option<Spot>),
}

impl<'m, R: Rows> Batch<'_, 'm, R> {
    /// `index`: index of the event in its message.
    fn add(&mut self, (message, index): (&'m Message<'m>, u32), event: Event<'m>, enricher: &mut Enricher) {
        if message.key.is_some_and(|key| !is_keyed(&event, self.feed, key)) {
            self.epoch.tally.key_mismatches += 1;
        }
        if event.kind.is_sighting() && event.address.is_none() && !event.is_own_call() {
            self.epoch.tally.note(&message.original().topic, Note::WithoutAddress(self.feed.format), 1);
        }
        let state = if self.states.len() == 1 { 0 } else { event.partition_among(self.states.len()) };
        let mut event = enricher.enrich(event);
        // The append time of the broker is used, because a producer chooses the create time.
        event.appended_at = message.logged_at.filter(|at| at.kind == LogTimeKind::Append).map(|at| at.millis);
        self.found(message, Found::Event { state, index, event });
    }

    fn found(&mut self, message: &'m Message<'m>, found: Found<'m>) {
        self.found.push((message, found));
        // The number of records in a message is not limited.
        if self.found.len() >= engine::GROUP {
            self.score();
        }
    }

    /// Scores the decoded events in order.
    fn score(&mut self) {
        let Self { feed, states, rules, hasher, now, epoch, found, given_up } = self;
        let (rules, now) = (*rules, *now);
        let ahead = found.iter().filter_map(|(_, found)| match found {
            Found::Event { state, event, .. } => Some((&states[*state], event)),
            Found::Unreadable(..) => None,
        });
        // Prefetching has no effect on results.
        let _ = catch_unwind(AssertUnwindSafe(|| engine::look_ahead(ahead)));
        for (message, found) in found.drain(..) {
            if given_up.is_some_and(|given_up| std::ptr::eq(given_up, message)) {
                continue;
            }
            match found {
                Found::Event { state, index, event } => {
                    let state = &mut states[state];
                    let scored = catch_unwind(AssertUnwindSafe(|| match engine::step(state, rules, &event) {
                        Step::Duplicate => epoch.tally.duplicates += 1,
                        Step::Scored(outcome) => {
                            if event.event.kind == Kind::Confirmed && !feed.confirmed {
                                epoch.tally.note(&message.original().topic, Note::ConfirmedIgnored, 1);
                            }
                            epoch.fan_out(&event, outcome, (message, index), (state.scored_at(), now));
                            if let Some(appearance) = state.take_appearance() {
                                let position = message.position.clone();
                                epoch.appearances.push(Appeared { position, index, appearance });
                            }
                        }
                    }));
                    if scored.is_err() {
                        // It would be that of the next event.
                        let _ = state.take_appearance();
                        epoch.park(message, now, (panicked(), None), hasher);
                        *given_up = Some(message);
                    }
                }
                Found::Unreadable(reason, at) => epoch.park(message, now, (reason, at), hasher),
            }
        }
    }
}

/// Why the events of a message are not scored.
enum Unscored {
    Skipped(&'static str),
    /// The reason of its dead letter.
    Unreadable(&'static str),
}

/// The events that a message is for; `None`: all.
const fn share<'m>(message: &Message<'m>) -> Result<Option<&'m Share>, Unscored> {
    match message.origin {
        Origin::Here => Ok(None),
        Origin::Forwarded(Forwarded { is_cut: true, .. }) => Err(Unscored::Unreadable(CUT)),
        Origin::Forwarded(forwarded) => Ok(Some(&forwarded.share)),
        Origin::OtherGroup => Err(Unscored::Skipped(OTHER_GROUP)),
        Origin::Unknown(reason) => Err(Unscored::Unreadable(reason)),
    }
}

/// Whether `key` is the subject key of an event from `feed`.
pub(crate) fn is_keyed(event: &Event<'_>, feed: Feed, key: &[u8]) -> bool {
    // A producer may use a tenant other than the one that is configured for its topic.
    event.is_keyed_by(key) || (feed.tenant.is_some() && event.is_keyed_in_any_tenant(key))
}

/// Adds to `tally` what the decoder noted in messages of `topic`.
fn note_decoding(tally: &mut Tally, topic: &Arc<str>, notes: &wire::Notes) {
    if notes.redactions > 0 {
        tally.note(topic, Note::Redacted, notes.redactions);
    }
    if notes.opaque_ids > 0 {
        tally.note(topic, Note::OpaqueIds, notes.opaque_ids);
    }
    for (field, count) in &notes.unreadable {
        tally.note(topic, Note::Unreadable(field), *count);
    }
}

/// Reason of a dead letter whose message caused a panic.
fn panicked() -> String {
    let place = telemetry::panicked_at().map_or_else(String::new, |place| format!(" at {place}"));
    format!("this message caused a panic{place}")
}

impl Partition {
    pub fn states(&self) -> impl Iterator<Item = &State> {
        self.states.iter()
    }

    /// Changes the limit of the states together, bytes.
    pub(crate) fn set_memory_max(&mut self, bytes: Option<usize>) {
        let each = bytes.map(|bytes| bytes / self.states.len().max(1));
        self.states.iter_mut().for_each(|state| state.set_memory_max(each));
    }

    /// Learns feedback at its place.
    pub(crate) fn schedule(&mut self, scheduled: Scheduled) {
        self.schedule.add(scheduled);
    }

    /// Removes all feedback that was not learnt yet.
    pub(crate) fn unschedule(&mut self) {
        self.schedule.clear();
    }

    /// Number of feedback records that were not learnt yet.
    pub(crate) const fn scheduled(&self) -> usize {
        self.schedule.len()
    }

    pub(crate) fn has_learnt(&self, feedback: u64) -> bool {
        self.states.iter().any(|state| state.has_learnt(feedback))
    }

    /// Key of the last event of the first state. `None`: none was scored.
    pub(crate) fn last_event(&self) -> Option<NonZeroU64> {
        self.states.first().and_then(State::last_event)
    }

    /// Indexes of the events of `feedback` whose network and client family are a thief's.
    pub(crate) fn find_thieves(&self, feedback: &engine::Feedback<'_>) -> Vec<u32> {
        let state = self.states.get(self::feedback::state_of(feedback, self.states.len()));
        state.map_or_else(Vec::new, |state| engine::find_thieves(state, feedback))
    }

    /// Writes the states in records, each of which `take` receives. Stops at the first error of `take`.
    pub fn save<E>(&self, take: &mut dyn FnMut(Vec<u8>) -> Result<(), E>) -> Result<Extent, E> {
        snapshot::write(&self.states, engine::STATE_FORMAT, take)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod toy;
