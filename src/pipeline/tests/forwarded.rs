//! Messages that were forwarded from several topics.

use smallvec::SmallVec;

use super::*;
use crate::port::Splitter;

const AMONG: usize = 3;

fn topics() -> HashMap<Arc<str>, Feed> {
    let trusted = Feed { confirmed: true, ..Feed::default() };
    HashMap::from([("trusted".into(), trusted), ("other".into(), Feed::default())])
}

fn forwarded(topic: &str, own: i32, copies: &[i32]) -> Forwarded {
    Forwarded {
        source: Position::new(topic, 7, 70),
        in_rows: Position::new(format!("tw.rekeyed/{topic}"), own, 5),
        share: Share::new(own, SmallVec::from_slice(copies), AMONG).expect("a share"),
        is_cut: false,
    }
}

/// The results of `payload` in partition `own`.
fn process_one(
    (pipeline, partition): (&mut Pipeline, &mut Partition),
    payload: &str,
    own: i32,
    origin: Origin<'_>,
) -> Epoch<TestRows> {
    let position = Position::new("tw.rekeyed", own, 5);
    let payload = payload.as_bytes();
    let message = Message { position: &position, key: None, payload, logged_at: None, replayed: false, origin };
    let mut epoch = Epoch::new(TestRows::default());
    pipeline.process(partition, &[message], 0, &mut epoch);
    epoch
}

fn event(user: &str, kind: &str, id: &str) -> String {
    format!(
        r#"{{"event_id":"{id}","timestamp":1790000000000,"kind":"{kind}","token_id":"t-{user}","family_id":"f-{user}","user_id":"{user}","ip_address":"192.0.2.1"}}"#
    )
}

#[test]
fn copies_score_each_event_of_a_message_once() {
    let mut pipeline = pipeline();
    let feeds = Feeds { own: Feed::default(), forwarded: topics() };
    let events: Vec<_> = (0..20).map(|number| event(&format!("u{number}"), "use", &format!("e{number}"))).collect();
    let wrong = r#"{"event_id":"wrong","status":"x"}"#;
    let with_note = events[0].replace('{', r#"{"status":"x","#);
    let payload = format!("[{with_note},{wrong},{}]", events[1..].join(","));
    let mut splitter = SubjectSplitter::new(topics(), &TokenHasher::new(b"a key for tests"));
    let copies = splitter.split("other", payload.as_bytes(), AMONG).to_vec();
    assert_eq!(copies.len(), AMONG);
    let (mut rows, mut tally) = (Vec::new(), Tally::default());
    for own in &copies {
        let mut partition = pipeline.partition_of(&feeds);
        let forwarded = forwarded("other", *own, &copies);
        let origin = Origin::Forwarded(&forwarded);
        let epoch = process_one((&mut pipeline, &mut partition), &payload, *own, origin);
        assert_eq!(epoch.checkpoint.next, [Position::new("tw.rekeyed", *own, 6)]);
        assert!(epoch.letters.iter().all(|letter| letter.position == forwarded.source));
        tally.add(&epoch.tally);
        rows.extend(epoch.rows.0);
    }
    assert_eq!((tally.events, tally.dead_letters, tally.key_mismatches), (20, 1, 0));
    assert_eq!(rows.len(), 21, "{rows:?}");
    let unreadable = tally.noted.iter().filter(|(_, note, _)| matches!(note, Note::Unreadable("status")));
    let expected = ("other".into(), Note::Unreadable("status"), 1);
    assert_eq!(unreadable.collect::<Vec<_>>(), [&expected], "notes are counted with the first copy");
}

#[test]
fn confirmed_event_is_believed_by_its_original_topic() {
    let mut pipeline = pipeline();
    let feeds = Feeds { own: Feed::default(), forwarded: topics() };
    let mut partition = pipeline.partition_of(&feeds);
    let mut confirmed = |topic: &str, payload: &str| {
        let forwarded = forwarded(topic, 0, &[0]);
        process_one((&mut pipeline, &mut partition), payload, 0, Origin::Forwarded(&forwarded));
        partition.states().map(|state| state.counters().confirmed).sum::<u64>()
    };
    // A grant gets a baseline after some visits.
    for use_of_a_grant in messages_of_five_users().iter().filter(|line| line.contains("\"u1\"")) {
        assert_eq!(confirmed("other", use_of_a_grant), 0);
    }
    let of = |id: &str| {
        let fields = r#""timestamp":1796000000000,"kind":"confirmed","token_id":"t1-5","family_id":"f1""#;
        format!(r#"{{"event_id":"{id}",{fields},"user_id":"u1","tenant_id":"acme"}}"#)
    };
    assert_eq!(confirmed("other", &of("first")), 0);
    assert_eq!(confirmed("trusted", &of("second")), 1);
    assert_eq!(confirmed("other", &of("third")), 1);
}

#[test]
fn message_without_an_origin_is_not_scored() {
    let mut pipeline = pipeline();
    let mut partition = pipeline.partition_of(&Feeds { own: Feed::default(), forwarded: topics() });
    let payload = event("ann", "use", "e");
    let mut process = |origin| process_one((&mut pipeline, &mut partition), &payload, 0, origin).rows.0;
    assert_eq!(process(Origin::Unknown("no headers")), ["5: no headers"]);
    assert_eq!(process(Origin::OtherGroup), [""; 0]);
    let mut cut = forwarded("other", 0, &[0]);
    cut.is_cut = true;
    assert_eq!(process(Origin::Forwarded(&cut)), [format!("70: {CUT}")]);
    assert_eq!(process(Origin::Forwarded(&forwarded("other", 0, &[0]))), ["e at 5"]);
}
