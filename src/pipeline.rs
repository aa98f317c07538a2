//! The path of an event: `decode → enrich → step → fan out`. Read this file first.
//!
//! One thread processes a few messages at a time. Everything before the fan-out is in memory only. The fan-out writes into
//! an [`Epoch`]; the [`worker`](crate::worker) publishes and stores it. An ordinary event borrows from its message and
//! allocates nothing; the events of a call share one list.

mod group;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub use self::group::Group;

use crate::checkpoint::{Checkpoint, DeadLetter, LogTimeKind, Position, Spot};
use crate::engine::{self, State, Step};
use crate::enrich::Enricher;
use crate::enrichment::EnrichedEvent;
use crate::event::{Event, Kind};
use crate::feed::Feed;
use crate::port::{EventRow, Message, Rows};
use crate::rule::RuleSet;
use crate::tally::{Note, Tally};
use crate::telemetry;
use crate::token::TokenHasher;
use crate::verdict::{Incident, Outcome};
use crate::wire::{self, Decoded, Decoder};

/// Enricher, rules and settings that all partitions of one thread share.
pub struct Pipeline {
    pub enricher: Enricher,
    pub rules: Arc<RuleSet>,
    hasher: TokenHasher,
    settings: engine::Settings,
}

/// Decoder and state of one partition, or of several partitions that are read as one.
pub struct Partition {
    decoder: Decoder,
    feed: Feed,
    /// At least one.
    states: Vec<State>,
}

impl Pipeline {
    /// Names are hashed with a key that is derived from the hasher's key.
    #[must_use]
    pub fn new(enricher: Enricher, rules: Arc<RuleSet>, hasher: TokenHasher, settings: engine::Settings) -> Self {
        let enricher = enricher.with_hasher(hasher.key_hasher());
        Self { enricher, rules, hasher, settings }
    }

    /// A partition with empty state for messages from `feed`.
    #[must_use]
    pub fn partition(&self, feed: impl Into<Feed>) -> Partition {
        self.partitions(feed, 1)
    }

    /// `count` partitions with empty states that are read as one. Each event is scored with the state of the partition of
    /// its subject key; results keep the order of the messages. The partitions share the alert budget evenly, rounded up.
    #[must_use]
    pub fn partitions(&self, feed: impl Into<Feed>, count: u16) -> Partition {
        let feed = feed.into();
        let decoder = Decoder::new(feed, self.hasher.clone());
        let count = u32::from(count.max(1));
        let settings = engine::Settings { confirmed: feed.confirmed, ..self.settings.for_one_of(count) };
        Partition { decoder, feed, states: (0..count).map(|_| State::new(settings.clone())).collect() }
    }

    /// Processes messages in order and writes the results to `epoch`. Cannot fail: a message that cannot be decoded, or
    /// that causes a panic, becomes a dead letter. If the scoring of an event panics, the state is what it was before the
    /// event ([`engine::step`]). If learning or encoding panics, the event may be learnt in part. The number of messages
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
        let Partition { decoder, feed, states } = partition;
        // One allocation per call: events borrow from the messages and cannot outlive them.
        let found = Vec::with_capacity(messages.len().min(engine::GROUP));
        let mut turn = Turn { feed: *feed, states, rules, hasher, now, epoch, found, given_up: None };
        for message in messages {
            turn.epoch.tally.messages += 1;
            let mut events = 0;
            let done = catch_unwind(AssertUnwindSafe(|| {
                decoder.decode(message.payload, &mut |decoded| match decoded {
                    Ok(Decoded::Event(event)) => {
                        turn.add((message, events), event, enricher);
                        events += 1;
                    }
                    Ok(Decoded::Skipped(reason)) => turn.epoch.tally.skip(reason),
                    Err(error) => turn.found(message, Found::Unreadable(error.cause(), Some(error.at))),
                });
            }));
            if done.is_err() {
                turn.found(message, Found::Unreadable(panicked(), None));
            }
        }
        turn.judge();
        if let Some(first) = messages.first() {
            note_decoding(&mut epoch.tally, &first.position.topic, &decoder.take_notes());
        }
        for message in messages {
            epoch.checkpoint.advance(message.position);
        }
    }
}

/// Decoded content of some messages that is not scored yet. All events of a group are decoded before the first is scored,
/// so that their memory can be prefetched together.
struct Turn<'a, 'm, R> {
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

impl<'m, R: Rows> Turn<'_, 'm, R> {
    /// `index`: index of the event in its message.
    fn add(&mut self, (message, index): (&'m Message<'m>, u32), event: Event<'m>, enricher: &mut Enricher) {
        if let Some(key) = message.key
            && !event.is_keyed_by(key)
            // A producer may use a tenant other than the one that is configured for its topic.
            && (self.feed.tenant.is_none() || !event.is_keyed_in_any_tenant(key))
        {
            self.epoch.tally.key_mismatches += 1;
        }
        if event.kind.is_sighting() && event.address.is_none() && !event.is_own_call() {
            self.epoch.tally.note(&message.position.topic, Note::WithoutAddress(self.feed.format), 1);
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
            self.judge();
        }
    }

    /// Scores the decoded events in order.
    fn judge(&mut self) {
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
                    let judged = catch_unwind(AssertUnwindSafe(|| match engine::step(state, rules, &event) {
                        Step::Duplicate => epoch.tally.duplicates += 1,
                        Step::Scored(outcome) => {
                            if event.event.kind == Kind::Confirmed && !feed.confirmed {
                                epoch.tally.note(&message.position.topic, Note::ConfirmedIgnored, 1);
                            }
                            epoch.fan_out(&event, outcome, (message.position, index), (state.scored_at(), now));
                        }
                    }));
                    if judged.is_err() {
                        epoch.park(message, now, (panicked(), None), hasher);
                        *given_up = Some(message);
                    }
                }
                Found::Unreadable(reason, at) => epoch.park(message, now, (reason, at), hasher),
            }
        }
    }
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
}

/// Results of some messages that have not left the worker yet.
pub struct Epoch<R> {
    /// Encoded rows for the store.
    pub rows: R,
    /// Incidents for the outbox.
    pub incidents: Vec<Incident>,
    /// Dead letters for the source. They are also among the rows.
    pub letters: Vec<DeadLetter>,
    /// One JSON line per event, if requested.
    pub verdicts: Option<Vec<u8>>,
    /// Offsets to commit when all results are stored.
    pub checkpoint: Checkpoint,
    pub tally: Tally,
}

impl<R: Rows> Epoch<R> {
    #[must_use]
    pub fn new(rows: R, with_verdicts: bool) -> Self {
        Self {
            rows,
            incidents: Vec::new(),
            letters: Vec::new(),
            verdicts: with_verdicts.then(Vec::new),
            checkpoint: Checkpoint::default(),
            tally: Tally::default(),
        }
    }

    /// Removes all results and keeps the buffers.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.checkpoint.next.clear();
        self.clear_published();
    }

    /// Removes what is published before the rows: everything except the rows and the checkpoint.
    pub fn clear_published(&mut self) {
        self.incidents.clear();
        self.letters.clear();
        if let Some(verdicts) = &mut self.verdicts {
            verdicts.clear();
        }
        self.tally = Tally::default();
    }

    /// No message was processed since the last [`Self::clear`].
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.tally.messages == 0
    }

    /// Size of rows, verdicts and dead letters, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let letters: usize = self.letters.iter().map(|letter| letter.payload.len()).sum();
        self.rows.bytes() + self.verdicts.as_ref().map_or(0, Vec::len) + letters
    }

    /// `index`: index of the event in the message at `position`. `scored_at`: event time; `ingested_at`: wall clock.
    fn fan_out(
        &mut self,
        event: &EnrichedEvent<'_>,
        outcome: Outcome,
        (position, index): (&Position, u32),
        (scored_at, ingested_at): (i64, i64),
    ) {
        self.tally.count(&outcome);
        self.rows.push_event(&EventRow { event, outcome: &outcome, position, index, scored_at, ingested_at });
        if let Some(verdicts) = &mut self.verdicts {
            wire::verdict::encode(verdicts, event, &outcome);
        }
        if let Some(incident) = outcome.incident {
            self.rows.push_incident(&incident);
            self.incidents.push(*incident);
        }
    }

    /// Makes the message a dead letter, with bearer tokens replaced.
    fn park(&mut self, message: &Message<'_>, now: i64, (reason, at): (String, Option<Spot>), hasher: &TokenHasher) {
        self.tally.dead_letters += 1;
        let letter = DeadLetter {
            position: message.position.clone(),
            received_at: now,
            reason,
            at,
            payload: wire::redact(message.payload, hasher),
        };
        self.rows.push_dead_letter(&letter);
        self.letters.push(letter);
    }
}

#[cfg(test)]
mod toy;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::engine::failpoint::{self, Failpoint};
    use crate::format::Format;
    use crate::place::{Network, Place};
    use crate::port::{ActionRow, GeoLookup};

    /// Finds no place, and panics at one address.
    struct PanickingLookup;

    impl GeoLookup for PanickingLookup {
        fn lookup(&mut self, address: IpAddr) -> (Option<Arc<Place>>, Option<Arc<Network>>) {
            assert_ne!(address, IpAddr::from([192, 0, 2, 66]), "panic while decoding");
            (None, None)
        }
    }

    /// Event ids and reasons in order.
    #[derive(Default)]
    struct TestRows(Vec<String>);

    impl Rows for TestRows {
        fn push_event(&mut self, row: &EventRow<'_>) {
            assert_ne!(row.event.event.event_id, "poison", "panic while encoding");
            self.0.push(format!("{} at {}", row.event.event.event_id, row.position.offset));
        }
        fn push_incident(&mut self, _: &Incident) {}
        fn push_action(&mut self, _: &ActionRow) {}
        fn push_dead_letter(&mut self, letter: &DeadLetter) {
            let reason = letter.reason.split(" at src").next().unwrap_or_default();
            self.0.push(format!("{}: {reason}", letter.position.offset));
        }
        fn len(&self) -> usize {
            self.0.len()
        }
        fn bytes(&self) -> usize {
            0
        }
        fn clear(&mut self) {
            self.0.clear();
        }
    }

    fn pipeline() -> Pipeline {
        let enricher = Enricher::with_lookup(Box::new(PanickingLookup));
        let hasher = TokenHasher::new(b"a key for tests");
        Pipeline::new(enricher, Arc::new(RuleSet::builtin()), hasher, engine::Settings::default())
    }

    /// Messages of five users over ten days.
    fn messages_of_five_users() -> Vec<String> {
        let mut lines = Vec::new();
        for call in 0..400_i64 {
            let (person, visit) = (call % 5, call / 5);
            let at = 1_790_000_000_000 + visit * 3_000_000 + call % 3 * 60_000;
            let kind = if visit % 10 == 9 { "refreshed" } else { "use" };
            lines.push(format!(
                r#"{{"event_id":"e{call}","timestamp":{at},"kind":"{kind}","token_id":"t{person}-{}","family_id":"f{person}","user_id":"u{person}","tenant_id":"acme","app_id":"crm","ip_address":"198.51.100.{}","user_agent":"curl/8.{}","endpoint":"/v1/{}","binding":"jkt:{person}","status":200,"bytes_out":{}}}"#,
                visit / 10,
                person * 20 + visit % 7,
                visit % 3,
                visit % 13,
                1_000 << (visit % 9),
            ));
        }
        lines
    }

    /// State, verdict lines and number of dead letters after `lines`. The scoring of the message at `broken` panics at
    /// `point`.
    fn scored(lines: &[String], broken: usize, point: Option<Failpoint>) -> (String, String, u64) {
        let settings =
            engine::Settings { recent_event_ids_max: 64, baselines_max: 1_000, ..engine::Settings::default() };
        let enricher = Enricher::with_lookup(Box::new(PanickingLookup));
        let hasher = TokenHasher::new(b"a key for tests");
        let mut pipeline = Pipeline::new(enricher, Arc::new(RuleSet::builtin()), hasher, settings);
        let mut partition = pipeline.partition(Format::Native);
        let mut epoch = Epoch::new(TestRows::default(), true);
        for (place, line) in lines.iter().enumerate() {
            if let Some(point) = point.filter(|_| place == broken) {
                failpoint::arm(point);
            }
            let position = Position::new("events", 0, place as i64);
            let message =
                Message { position: &position, key: None, payload: line.as_bytes(), logged_at: None, replayed: false };
            pipeline.process(&mut partition, &[message], 0, &mut epoch);
        }
        let state = format!("{:?}", partition.states().collect::<Vec<_>>());
        let verdicts = String::from_utf8(epoch.verdicts.take().unwrap_or_default()).expect("JSON is text");
        (state, verdicts, epoch.tally.dead_letters)
    }

    #[test]
    fn panic_in_scoring_restores_the_state() {
        let lines = messages_of_five_users();
        // A visit that continues, a visit that begins in a new hour, a refresh, and a new token.
        let new = lines[333].replace("f3", "f-new").replace("t3-", "t-new-");
        for (broken, line) in [(301, None), (300, None), (395, None), (333, Some(new)), (2, None)] {
            let mut lines = lines.clone();
            if let Some(line) = line {
                lines[broken] = line;
            }
            let mut unread = lines.clone();
            unread[broken] = "no JSON".to_owned();
            let expected = scored(&unread, broken, None);
            assert_ne!(scored(&lines, broken, None).0, expected.0, "the message at {broken} changes the state");
            for point in [Failpoint::Detectors, Failpoint::Sum, Failpoint::Words] {
                let result = scored(&lines, broken, Some(point));
                assert_eq!(result.2, 1, "the message is a dead letter");
                assert!(result.1 == expected.1, "verdicts differ after a panic at {point:?} of {broken}");
                assert!(result.0 == expected.0, "the state differs after a panic at {point:?} of {broken}");
            }
        }
    }

    /// A rejected request is scored and does not change the state.
    #[test]
    fn attempt_does_not_change_the_state() {
        let lines = messages_of_five_users();
        let (expected, verdicts, _) = scored(&lines, 0, None);
        let without = |state: String| {
            // Only the ids and the number of attempts may differ.
            let from = state.find("recent_attempts").expect("the state has attempts");
            let until = state[from..].find("clock: ").expect("the clock follows");
            let counters = state.find("memory: ").expect("the state has a memory");
            [&state[counters..from], &state[from + until..]].concat()
        };
        for (place, from) in [(301, "203.0.113.7"), (300, "203.0.113.7"), (333, "198.51.100.61"), (395, "203.0.113.7")]
        {
            let address = lines[place].split("\"ip_address\":\"").nth(1).and_then(|rest| rest.split('"').next());
            let refused = lines[place]
                .replace(address.expect("the event has an address"), from)
                .replace("\"status\":200", "\"status\":401")
                .replace("\"event_id\":\"e", "\"event_id\":\"refused-")
                .replace("jkt:", "jkt:another-");
            let new = refused.replace("\"f", "\"f-new").replace("\"t", "\"t-new").replace("\"u", "\"u-new");
            for refused in [refused, new.replace("\"t-new", "\"t")] {
                let mut more = lines.clone();
                (0..3)
                    .for_each(|number| more.insert(place, refused.replace("refused-", &format!("refused-{number}-"))));
                let (state, text, letters) = scored(&more, 0, None);
                assert_eq!(letters, 0, "{refused}");
                let lines: Vec<_> = text.lines().filter(|line| !line.contains("refused-")).collect();
                assert!(lines.into_iter().eq(verdicts.lines()), "verdicts differ after attempts at {place}");
                assert!(without(state) == without(expected.clone()), "the state differs after attempts at {place}");
            }
        }
    }

    #[test]
    fn panicking_message_becomes_one_dead_letter() {
        let record = |id: &str, address: &str| {
            format!(
                r#"{{"eventID":"{id}","eventTime":"2026-09-21T10:00:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","sourceIPAddress":"{address}","userIdentity":{{"type":"IAMUser","accessKeyId":"AKIA1","userName":"ana","accountId":"1"}}}}"#
            )
        };
        // More records than one group before the record that panics.
        let many: Vec<String> = (0..50).map(|number| record(&format!("r{number}"), "192.0.2.7")).collect();
        let broken = |id, address| format!(r#"{{"Records":[{},{},{}]}}"#, many.join(","), record(id, address), many[0]);
        let payloads = [
            broken("poison", "192.0.2.7"),
            broken("fine", "192.0.2.66"),
            format!(r#"{{"Records":[{}]}}"#, record("last", "192.0.2.7")),
        ];
        let positions: Vec<_> = (0..3).map(|offset| Position::new("t", 0, offset)).collect();
        let messages: Vec<_> = payloads
            .iter()
            .zip(&positions)
            .map(|(payload, position)| Message {
                position,
                key: None,
                payload: payload.as_bytes(),
                logged_at: None,
                replayed: false,
            })
            .collect();
        let mut pipeline = pipeline();
        let mut partition = pipeline.partition(Format::Cloudtrail);
        let mut epoch = Epoch::new(TestRows::default(), false);
        pipeline.process(&mut partition, &messages, 0, &mut epoch);
        let rows = &epoch.rows.0;
        assert_eq!(
            (epoch.tally.dead_letters, epoch.tally.duplicates),
            (2, 50),
            "the second message repeats the records of the first: {rows:?}"
        );
        assert!(rows[49].starts_with("r49 at 0") && rows[50].starts_with("0: this message caused"), "{rows:?}");
        assert!(rows[51].starts_with("1: this message caused") && rows[52] == "last at 2", "{rows:?}");
        assert_eq!(epoch.checkpoint.next[0].offset, 3);
    }

    #[test]
    fn results_do_not_depend_on_group_size() {
        let event = |id: &str, address: &str| {
            format!(r#"{{"event_id":"{id}","timestamp":1790000000000,"token_id":"t","ip_address":"{address}"}}"#)
        };
        let mut payloads: Vec<String> = (0..40).map(|number| event(&format!("e{number}"), "192.0.2.7")).collect();
        payloads[3] = event("broken", "192.0.2.66");
        payloads[5] = event("poison", "192.0.2.7");
        payloads[6] = "no event".to_owned();
        payloads[8] = event("e7", "192.0.2.7");
        let positions: Vec<_> = (0..40).map(|offset| Position::new("t", 0, offset)).collect();
        let messages: Vec<_> = payloads
            .iter()
            .zip(&positions)
            .map(|(payload, position)| Message {
                position,
                key: None,
                payload: payload.as_bytes(),
                logged_at: None,
                replayed: false,
            })
            .collect();
        let taken = |at_a_time: usize| {
            let mut pipeline = pipeline();
            let mut partition = pipeline.partition(Format::Native);
            let mut epoch = Epoch::new(TestRows::default(), false);
            for messages in messages.chunks(at_a_time) {
                pipeline.process(&mut partition, messages, 0, &mut epoch);
            }
            (epoch.rows.0, epoch.tally, epoch.checkpoint)
        };
        let (rows, tally, checkpoint) = taken(40);
        assert_eq!((tally.messages, tally.events, tally.duplicates, tally.dead_letters), (40, 37, 1, 3));
        assert_eq!(rows[2..6].iter().map(|row| &row[..2]).collect::<Vec<_>>(), ["e2", "3:", "e4", "5:"]);
        assert_eq!(checkpoint.next[0].offset, 40);
        for at_a_time in [1, 7] {
            assert_eq!(taken(at_a_time), (rows.clone(), tally.clone(), checkpoint.clone()));
        }
    }
}
