//! Effects of panics, rejected requests and group sizes.

mod appearances;
mod forwarded;

use std::net::IpAddr;

use super::*;
use crate::checkpoint::{DeadLetter, Position};
use crate::engine::failpoint::{self, Failpoint};
use crate::format::Format;
use crate::millis::MINUTE_MS;
use crate::place::{Network, Place};
use crate::port::{ActionRow, EventRow, GeoLookup, RECORD_BYTES_MAX, SourcePartition, StoredEvent};
use crate::verdict::{Incident, IncidentId, Judgement};

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
        let at = 1_790_000_000_000 + visit * 3_000_000 + call % 3 * MINUTE_MS;
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
    let settings = engine::Settings { recent_event_ids_max: 64, baselines_max: 1_000, ..engine::Settings::default() };
    let enricher = Enricher::with_lookup(Box::new(PanickingLookup));
    let hasher = TokenHasher::new(b"a key for tests");
    let mut pipeline = Pipeline::new(enricher, Arc::new(RuleSet::builtin()), hasher, settings);
    let mut partition = pipeline.partition(Format::Native);
    let mut epoch = Epoch::new(TestRows::default()).with_verdicts(VerdictOutput::Lines);
    for (place, line) in lines.iter().enumerate() {
        if let Some(point) = point.filter(|_| place == broken) {
            failpoint::arm(point);
        }
        let position = Position::new("events", 0, place as i64);
        let message = Message {
            position: &position,
            key: None,
            payload: line.as_bytes(),
            logged_at: None,
            replayed: false,
            origin: Origin::Here,
        };
        pipeline.process(&mut partition, &[message], 0, &mut epoch);
    }
    let state = format!("{:?}", partition.states().collect::<Vec<_>>());
    let verdicts = String::from_utf8(epoch.verdicts.take().unwrap_or_default()).expect("JSON is text");
    (state, verdicts, epoch.tally.dead_letters)
}

/// A message of each payload, at the position beside it.
fn messages<'a>(payloads: &'a [String], positions: &'a [Position]) -> Vec<Message<'a>> {
    let message = |(payload, position): (&'a String, &'a Position)| Message {
        position,
        key: None,
        payload: payload.as_bytes(),
        logged_at: None,
        replayed: false,
        origin: Origin::Here,
    };
    payloads.iter().zip(positions).map(message).collect()
}

/// A source cuts a record that is too long, in any place.
#[test]
fn cut_record_has_no_readable_secret() {
    let secret = format!("AIza{}", "a7Bq2".repeat(7));
    for kept in [1, 20, 34, 38, 39] {
        let key = format!(r#" "key": "{}"#, &secret[..kept]);
        let record = [format!("{}{key}", "x".repeat(RECORD_BYTES_MAX + 1 - key.len()))];
        let positions = [Position::new("events", 0, 0)];
        let mut pipeline = pipeline();
        let mut partition = pipeline.partition(Format::Native);
        let mut epoch = Epoch::new(TestRows::default());
        pipeline.process(&mut partition, &messages(&record, &positions), 0, &mut epoch);
        let payload = String::from_utf8_lossy(&epoch.letters[0].payload);
        assert!(!payload.contains("AIza"), "{kept}: {}", &payload[payload.len() - 50..]);
    }
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
    for (place, from) in [(301, "203.0.113.7"), (300, "203.0.113.7"), (333, "198.51.100.61"), (395, "203.0.113.7")] {
        let address = lines[place].split("\"ip_address\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let refused = lines[place]
            .replace(address.expect("the event has an address"), from)
            .replace("\"status\":200", "\"status\":401")
            .replace("\"event_id\":\"e", "\"event_id\":\"refused-")
            .replace("jkt:", "jkt:another-");
        let new = refused.replace("\"f", "\"f-new").replace("\"t", "\"t-new").replace("\"u", "\"u-new");
        for refused in [refused, new.replace("\"t-new", "\"t")] {
            let mut more = lines.clone();
            (0..3).for_each(|number| more.insert(place, refused.replace("refused-", &format!("refused-{number}-"))));
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
    let messages = messages(&payloads, &positions);
    let mut pipeline = pipeline();
    let mut partition = pipeline.partition(Format::Cloudtrail);
    let mut epoch = Epoch::new(TestRows::default());
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
    let messages = messages(&payloads, &positions);
    let taken = |at_a_time: usize| {
        let mut pipeline = pipeline();
        let mut partition = pipeline.partition(Format::Native);
        let mut epoch = Epoch::new(TestRows::default());
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

/// Feedback about the first user.
fn given(lines: &[String]) -> GivenFeedback {
    let source = SourcePartition { topic: "events".to_owned(), partition: 0 };
    let event: serde_json::Value = serde_json::from_str(&lines[35]).expect("JSON");
    let events = vec![StoredEvent::new(&event).expect("JSON")];
    let (since, until) = (0, 1_800_000_000_000);
    let judgement = Judgement::Benign;
    GivenFeedback { incident: IncidentId(1), judgement, by: "ana".to_owned(), at: 0, source, since, until, events }
}

/// Processes the messages `from..to` in calls of seven messages. The offset of each is higher by `shift`.
fn process(pipeline: &mut Pipeline, partition: &mut Partition, lines: &[String], range: (usize, usize), shift: i64) {
    let mut epoch = Epoch::new(TestRows::default());
    let (from, to) = range;
    let positions: Vec<_> = (from..to).map(|place| Position::new("events", 0, place as i64 + shift)).collect();
    for messages in messages(&lines[from..to], &positions).chunks(7) {
        pipeline.process(partition, messages, 0, &mut epoch);
    }
}

fn saved(partition: &Partition) -> (Vec<Vec<u8>>, Extent) {
    let mut records = Vec::new();
    let Ok(extent) = partition.save(&mut |record| -> Result<(), std::convert::Infallible> {
        records.push(record);
        Ok(())
    });
    (records, extent)
}

/// After a restart from a snapshot before or after its place, and in a replay with other offsets, the state is the same.
#[test]
fn feedback_is_learnt_at_the_same_place_again() {
    let lines = messages_of_five_users();
    let place = 200;
    let mut pipeline = pipeline();
    let scheduled = |pipeline: &mut Pipeline, start| {
        let feedback = pipeline.feedback(FeedbackId(7), &given(&lines), None);
        assert_eq!(feedback.events.len(), 1);
        Scheduled { feedback, start, given_at: 0 }
    };
    let at_place = || Start::Before(Position::new("events", 0, place as i64));
    let mut undisturbed = pipeline.partition(Format::Native);
    undisturbed.schedule(scheduled(&mut pipeline, at_place()));
    process(&mut pipeline, &mut undisturbed, &lines, (0, lines.len()), 0);
    assert!(undisturbed.has_learnt(7) && undisturbed.scheduled() == 0);
    let expected = saved(&undisturbed).1.digest;

    let mut without = pipeline.partition(Format::Native);
    process(&mut pipeline, &mut without, &lines, (0, lines.len()), 0);
    assert_ne!(saved(&without).1.digest, expected, "the feedback makes a difference");

    for cut in [150, 199, 200, 201, 250] {
        let mut before = pipeline.partition(Format::Native);
        before.schedule(scheduled(&mut pipeline, at_place()));
        process(&mut pipeline, &mut before, &lines, (0, cut), 0);
        let (records, extent) = saved(&before);
        let mut records = records.into_iter();
        let mut next = || Ok::<_, std::convert::Infallible>(records.next());
        let mut restored = pipeline.restored(Format::Native, 1, extent, &mut next).expect("it is read");
        assert_eq!(restored.has_learnt(7), cut > place, "{cut}");
        if !restored.has_learnt(7) {
            restored.schedule(scheduled(&mut pipeline, at_place()));
        }
        process(&mut pipeline, &mut restored, &lines, (cut, lines.len()), 0);
        assert_eq!(saved(&restored).1.digest, expected, "restarted at {cut}");
    }

    let mut until_place = pipeline.partition(Format::Native);
    process(&mut pipeline, &mut until_place, &lines, (0, place), 0);
    let after = Start::After(until_place.last_event().expect("an event"));
    let mut replayed = pipeline.partition(Format::Native);
    replayed.schedule(scheduled(&mut pipeline, after));
    process(&mut pipeline, &mut replayed, &lines, (0, lines.len()), 5_000);
    assert_eq!(saved(&replayed).1.digest, expected, "replayed");
}

#[test]
fn feedback_of_the_past_is_learnt_by_its_time() {
    let lines = messages_of_five_users();
    let mut pipeline = pipeline();
    let mut learnt_before = |at: i64| {
        let mut partition = pipeline.partition(Format::Native);
        let feedback = pipeline.feedback(FeedbackId(7), &given(&lines), None);
        partition.schedule(Scheduled { feedback, start: Start::AfterTime(at), given_at: at });
        (0..lines.len()).find(|place| {
            process(&mut pipeline, &mut partition, &lines, (*place, place + 1), 0);
            partition.has_learnt(7)
        })
    };
    assert_eq!(learnt_before(i64::MIN), Some(0));
    // The 30th visits of the five users begin 30 × 50 min after the first.
    assert_eq!(learnt_before(1_790_000_000_000 + 30 * 3_000_000), Some(151));
    assert_eq!(learnt_before(i64::MAX), None);
}
