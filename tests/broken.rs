//! A broken record does not affect other records of its message: in an array, in concatenated records, and in every
//! envelope. It is repaired if possible. Otherwise only this record is a dead letter.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use serde_json::Value;
use tokenwarden::format::Format;
use tokenwarden::token::TokenHasher;
use tokenwarden::wire::{DecodeError, Decoded, Decoder};

/// One record of each format. `%ID` is its id, `%X` a value that a client chooses.
const RECORDS: &[(Format, &str)] = &[
    (Format::Native, r#"{"event_id":"%ID","timestamp":1790000000000,"token_id":"t","user_agent":%X}"#),
    (
        Format::Cloudtrail,
        r#"{"eventID":"%ID","eventTime":"2026-09-21T10:00:00Z","eventType":"AwsApiCall","eventSource":"s3.amazonaws.com","eventName":"GetObject","userAgent":%X,"userIdentity":{"type":"IAMUser","accessKeyId":"AKIA1","arn":"arn:aws:iam::1:user/a","accountId":"1"}}"#,
    ),
    (
        Format::Okta,
        r#"{"uuid":"%ID","published":"2026-09-21T10:00:00Z","eventType":"user.session.access_admin_app","actor":{"id":"00u1","type":"User"},"client":{"userAgent":{"rawUserAgent":%X}},"outcome":{"result":"SUCCESS"},"authenticationContext":{"externalSessionId":"s1"}}"#,
    ),
    (
        Format::Github,
        r#"{"_document_id":"%ID","@timestamp":1790000000000,"action":"api.request","actor_id":7,"hashed_token":"h","user_agent":%X}"#,
    ),
    (
        Format::Ocsf,
        r#"{"class_uid":6003,"metadata":{"uid":"%ID"},"time":1790000000000,"api":{"operation":"Get","token":{"uid":"t1"}},"http_request":{"user_agent":%X}}"#,
    ),
    (
        Format::Ecs,
        r#"{"@timestamp":"2026-09-21T10:00:00Z","event":{"id":"%ID","action":"get"},"labels":{"token_id":"t1"},"user_agent":{"original":%X}}"#,
    ),
];

/// Values that are not valid JSON, which a repair replaces.
const REPAIRABLE: &[&str] =
    &["NaN", "-Infinity", "\"a\tb\"", "\"a\nb\"", "\"a\u{1}b\"", r#""a\x41b""#, r#""a\ud800b""#];
/// Values that break the structure of their record.
const FATAL: &[&str] = &[r#""a" "b""#, r#"{"a":[1}"#, "", "'a'", r#""a",,"b":1"#];

fn record(format: Format, id: &str, value: &str) -> String {
    let (_, record) = RECORDS.iter().find(|(of, _)| *of == format).expect("a record of each format");
    record.replace("%ID", id).replace("%X", value)
}

/// Whether records of `format` are sent in this envelope. An Okta event hook has a member that marks CloudTrail
/// records.
fn goes_with(format: Format, wrap: &str) -> bool {
    format != Format::Cloudtrail || wrap != "Okta event hook"
}

/// The ids of the events in `message` or the reason if there are none, and the number of dead letters.
fn read(format: Format, message: &str) -> (Vec<String>, usize) {
    let mut read = (Vec::new(), 0);
    Decoder::new(format, TokenHasher::new(b"a key for tests")).decode(
        message.as_bytes(),
        &mut |decoded| match decoded {
            Ok(Decoded::Event(event)) => read.0.push(event.event_id.into_owned()),
            Ok(Decoded::Skipped(reason)) => read.0.push(reason.to_owned()),
            Err(error) => {
                assert!(in_message(&error, message), "{error}\n{message}");
                read.1 += 1;
            }
        },
    );
    read
}

fn in_message(error: &DecodeError, message: &str) -> bool {
    error.at.byte <= message.len() && !error.cause().is_empty()
}

/// Builds one message from records.
type Wrap = fn(&[String]) -> String;

fn json(text: &str) -> String {
    Value::from(text).to_string()
}

fn each(records: &[String], form: impl Fn(&str) -> String, between: &str) -> String {
    records.iter().map(|record| form(record)).collect::<Vec<_>>().join(between)
}

/// Envelopes of several records. Those of one provider are also used for records of the others.
const WRAPS: &[(&str, Wrap)] = &[
    ("array", |records| format!("[{}]", records.join(","))),
    ("array over lines", |records| format!("[\n  {}\n]\n", records.join(",\n  "))),
    ("Records", |records| format!(r#"{{"Records":[{}],"more":1}}"#, records.join(", "))),
    ("records", |records| format!(r#"{{"records":[{}]}}"#, records.join(","))),
    ("one behind another", |records| records.concat()),
    ("lines", |records| records.join("\r\n")),
    ("text sequence", |records| each(records, |record| format!("\u{1e}{record}\n"), "")),
    ("printed", |records| {
        each(records, |record| record.replacen('{', "{\n  ", 1).replacen("\",\"", "\",\n  \"", 1), "\n")
    }),
    ("CloudWatch Logs", |records| {
        let events = each(records, |record| format!(r#"{{"id":"1","timestamp":1,"message":{}}}"#, json(record)), ",");
        format!(r#"{{"messageType":"DATA_MESSAGE","owner":"1","logGroup":"g","logEvents":[{events}]}}"#)
    }),
    ("lookup-events", |records| {
        let events = each(records, |record| format!(r#"{{"EventId":"1","CloudTrailEvent":{}}}"#, json(record)), ",");
        format!(r#"{{"Events":[{events}],"NextToken":"n"}}"#)
    }),
    ("Okta event hook", |records| {
        let events = records.join(",");
        format!(
            r#"{{"eventType":"com.okta.event_hook","cloudEventsVersion":"0.1","eventId":"h","data":{{"events":[{events}]}}}}"#
        )
    }),
    ("EventBridge", |records| {
        each(records, |record| format!(r#"{{"version":"0","detail-type":"d","source":"s","detail":{record}}}"#), "\n")
    }),
    ("EventBridge array", |records| {
        format!(
            "[{}]",
            each(records, |record| format!(r#"{{"version":"0","detail-type":"d","detail":{record}}}"#), ",")
        )
    }),
    ("SQS", |records| {
        let events = each(records, |record| format!(r#"{{"messageId":"1","body":{}}}"#, json(record)), ",");
        format!(r#"{{"Records":[{events}]}}"#)
    }),
    ("Elasticsearch", |records| {
        let hits = each(records, |record| format!(r#"{{"_index":"i","_source":{record}}}"#), ",");
        format!(r#"{{"took":1,"hits":{{"total":3,"hits":[{hits}]}}}}"#)
    }),
];

#[test]
fn broken_value_costs_no_other_record() {
    for (format, _) in RECORDS {
        for (name, wrap) in WRAPS.iter().filter(|(name, _)| goes_with(*format, name)) {
            for value in REPAIRABLE {
                let records = ["e1", "e2", "e3"].map(|id| {
                    let is_broken = id == "e2";
                    record(*format, id, if is_broken { value } else { "\"curl\"" })
                });
                let (ids, dead) = read(*format, &wrap(&records));
                assert_eq!((ids.join(" "), dead), ("e1 e2 e3".to_owned(), 0), "{format} {name} {value:?}");
            }
        }
    }
}

#[test]
fn broken_structure_costs_no_other_record() {
    for (format, _) in RECORDS {
        for (name, wrap) in WRAPS.iter().filter(|(name, _)| goes_with(*format, name)) {
            for value in FATAL {
                for broken in ["e1", "e2", "e3"] {
                    let records =
                        ["e1", "e2", "e3"].map(|id| record(*format, id, if id == broken { value } else { "\"curl\"" }));
                    let message = wrap(&records);
                    let (ids, dead) = read(*format, &message);
                    let whole = ["e1", "e2", "e3"].into_iter().filter(|id| *id != broken).collect::<Vec<_>>();
                    assert_eq!((ids.join(" "), dead), (whole.join(" "), 1), "{format} {name} {value:?}\n{message}");
                }
            }
        }
    }
}

#[test]
fn several_broken_records_are_as_many_dead_letters() {
    for (format, _) in RECORDS {
        let good = |id| record(*format, id, "\"curl\"");
        let bad = |id| record(*format, id, FATAL[0]);
        let records = [good("e1"), bad("e2"), record(*format, "e3", "NaN"), bad("e4"), good("e5")];
        for (name, wrap) in WRAPS.iter().filter(|(name, _)| goes_with(*format, name)) {
            let (ids, dead) = read(*format, &wrap(&records));
            assert_eq!((ids.join(" "), dead), ("e1 e3 e5".to_owned(), 2), "{format} {name}");
        }
    }
}

/// After a stray bracket, the rest of a record may be a client's object.
#[test]
fn object_in_a_broken_record_is_no_record() {
    for (format, _) in RECORDS {
        let forged = record(*format, "forged", "\"x\"");
        for broken in [
            record(*format, "e2", &format!("\"a\"}}, \"b\":{forged}")),
            record(*format, "e2", &format!("\"a\" {forged}")),
            record(*format, "e2", &format!(r#""a" "b","message":{forged},"payload":{forged}"#)),
            record(*format, "e2", &format!(r#""a" "b","message":{},"data":{{"events":[{forged}]}}"#, json(&forged))),
        ] {
            for records in [&[broken.clone()][..], &[record(*format, "e1", "1"), broken.clone()]] {
                for (name, wrap) in [WRAPS[0], WRAPS[2], WRAPS[4]] {
                    let (ids, dead) = read(*format, &wrap(records));
                    assert!(!ids.contains(&"forged".to_owned()) && dead > 0, "{format} {name} {broken}: {ids:?}");
                }
            }
        }
    }
}

#[test]
fn truncated_array_is_reported() {
    for (format, _) in RECORDS {
        let whole = record(*format, "e1", "\"curl\"");
        for end in ["", ",", ",{", ",{\"a\":\"", ",{\"a\":[1,2"] {
            let (ids, dead) = read(*format, &format!("[{whole}{end}"));
            assert_eq!((ids.join(" "), dead), ("e1".to_owned(), 1), "{format} {end:?}");
        }
    }
}

/// Searching back for each bracket, or parsing each array again, would take minutes here.
#[test]
fn broken_nesting_takes_linear_time() {
    const BYTES: usize = 1 << 14;
    let rows = (0..BYTES / 4).fold(String::new(), |inner, _| format!("[{inner}")) + &" {}".repeat(BYTES / 4);
    let repeated =
        ["[", "[{", "{\"hits\":", "{}{", "{\"a\":[}", "{\"data\":\"", ",]"].map(|part| part.repeat(BYTES / part.len()));
    for message in repeated.into_iter().chain([rows]) {
        for (format, _) in RECORDS {
            let mut answers = 0_u64;
            Decoder::new(*format, TokenHasher::new(b"a key for tests"))
                .decode(message.as_bytes(), &mut |_| answers += 1);
            assert!(answers > 0);
        }
    }
}

#[test]
fn message_in_base64_or_in_a_string_is_read() {
    use base64::Engine as _;
    use std::io::Write as _;
    let engine = base64::engine::general_purpose::STANDARD;
    for (format, _) in RECORDS {
        let text = record(*format, "e1", "\"curl\"");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(text.as_bytes()).expect("a vector accepts all bytes");
        let gzip = gzip.finish().expect("a vector accepts all bytes");
        let lines =
            engine.encode(&gzip).as_bytes().chunks(76).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\r\n");
        for message in [
            engine.encode(&text),
            engine.encode(&gzip),
            lines,
            json(&text),
            json(&engine.encode(&gzip)),
            engine.encode(json(&text)),
        ] {
            let (ids, dead) = read(*format, &message);
            assert_eq!((ids.join(" "), dead), ("e1".to_owned(), 0), "{format} {message}");
        }
    }
}
