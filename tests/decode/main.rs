//! Decoding of messages into events: every format, every error, and no secret in any event.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod generated;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tokenwarden::event::{Address, Event, Kind, Timestamp, TokenType};
use tokenwarden::port::{Polled, Source as _};
use tokenwarden::source::file::FileSource;
use tokenwarden::token::{TokenHasher, looks_like_bearer};
use tokenwarden::wire::{self, DecodeError, Decoded, Decoder, Format};

fn decode_all(format: Format, payload: &[u8]) -> (Vec<Result<Decoded<'_>, DecodeError>>, u64) {
    let mut decoder = Decoder::new(format, TokenHasher::new(b"a key for tests"));
    let mut taken = Vec::new();
    decoder.decode(payload, &mut |record| taken.push(record));
    (taken, decoder.take_notes().redactions)
}

/// The one event in `payload`.
fn event(format: Format, payload: &str) -> Event<'_> {
    let (mut taken, _) = decode_all(format, payload.as_bytes());
    assert_eq!(taken.len(), 1, "{taken:?}");
    match taken.remove(0) {
        Ok(Decoded::Event(event)) => event,
        other => panic!("no event: {other:?}"),
    }
}

fn fault(payload: impl AsRef<[u8]>) -> String {
    let (taken, _) = decode_all(Format::Native, payload.as_ref());
    match taken.as_slice() {
        [Err(error)] => error.to_string(),
        other => panic!("no fault: {other:?}"),
    }
}

/// A native event with `members` after the required ones.
fn native(members: &str) -> String {
    format!(
        r#"{{"event_id":"e1","timestamp":"2026-11-22T10:15:30.123Z","token_id":"at-1","ip_address":"192.0.2.1"{members}}}"#
    )
}

#[test]
fn native_event_is_decoded_completely() {
    let text = r#"{"event_id":"01JD8Z","timestamp":1795342530123,"kind":"refreshed","token_id":"rt-9","token_type":"refresh",
        "family_id":"grant-77","parent_token_id":"rt-8","session_id":"s-1","user_id":"u-42","app_id":"crm","tenant_id":"acme",
        "ip_address":"::ffff:192.0.2.10","user_agent":"Mozilla/5.0","client_fingerprint":"t13d1516h2","method":"GET",
        "endpoint":"/v1/contacts/991","status":200,"bytes_out":5120,"scopes":["read","write"],
        "issued_at":"2026-11-22T10:00:00Z","expires_at":1795346130123,"binding":"jkt:abc",
        "geo":{"country":"DE","latitude":52.5,"longitude":13.4,"accuracy_km":20,"asn":3320,"as_org":"DTAG","city":"Berlin"},
        "attrs":{"a":"b","n":1},"extra":{"x": [1, 2.50]},"flag":true,"note":"caf\u00e9"}"#;
    let event = event(Format::Native, text);
    assert_eq!((event.kind, event.token_type), (Kind::Refreshed, TokenType::Refresh));
    assert_eq!(event.timestamp.millis(), 1_795_342_530_123);
    assert_eq!(event.token_id.as_str(), "rt-9");
    assert_eq!(event.address.map(|address| address.to_string()).as_deref(), Some("192.0.2.10"));
    assert_eq!(event.scopes, ["read", "write"]);
    let geo = event.geo.as_deref().expect("a place");
    assert_eq!((geo.asn, geo.accuracy_km, geo.country.as_deref()), (Some(3320), Some(20), Some("DE")));
    let attrs: Vec<_> = event.attrs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
    assert_eq!(
        attrs,
        [
            ("geo.city", "Berlin"),
            ("a", "b"),
            ("n", "1"),
            ("extra", r#"{"x":[1,2.50]}"#),
            ("flag", "true"),
            ("note", "café")
        ]
    );
}

#[test]
fn fault_of_a_record_has_field_reason_and_place() {
    for (message, told) in [
        (native(r#","event_id":"e2""#), "event_id: given twice, at line 1 column 115 (byte 114)"),
        (native(r#","x":nul"#).replace(r#""e1""#, "42"), "event_id: expected a string, at line 1"),
        (r#"{"event_id":"e"}"#.to_owned(), "timestamp: missing, at line 1 column 16"),
        ("3".to_owned(), "expected a JSON object"),
        (" \n".to_owned(), "an empty message"),
        (
            "{\n\"event_id\": \"e\",\n\"timestamp\": \"yesterday\"}".to_owned(),
            "timestamp: not an RFC 3339 time, at line 3",
        ),
        (native("").trim_end_matches('}').to_owned(), "not JSON: looks like truncated JSON, at line 1 column"),
        (native(r#" "x":1"#), "not JSON: expected `,` or `}`"),
        ("<html>".to_owned(), "not JSON: looks like HTML, at line 1 column 1"),
    ] {
        let fault = fault(&message);
        assert!(fault.contains(told), "{message}\n{fault}\n{told}");
    }
}

#[test]
fn hostile_message_gives_one_result() {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    for (message, told) in [
        (deep("[", "]"), "expected a JSON object"),
        ("x".repeat(10 << 20), "longer than 1048576 bytes"),
        (native("").replace("\"e1\"", "\"\""), "event_id: missing"),
        (native("").replace("\"at-1\"", "null"), "token_id: missing"),
        (native("").replace("\"e1\"", &format!("\"{}\"", "e".repeat(129))), "event_id: too long"),
        (native("").replace("\"at-1\"", &format!("\"{}\"", "t".repeat(4096))), "token_id: too long"),
        (native("").replace("2026-", "0000-"), "timestamp: a time outside the years 1970 to 2199"),
        (native("").replace("2026-", "9999-"), "timestamp: a time outside the years 1970 to 2199"),
        (native("").replace("2026-", "292277-"), "timestamp: not an RFC 3339 time"),
        (native("").replace("\"2026-11-22T10:15:30.123Z\"", "-1"), "timestamp: a time outside"),
        (native("").replace("\"2026-11-22T10:15:30.123Z\"", "1e300"), "timestamp: a time outside"),
        ("\0".to_owned(), "not JSON: looks like Avro, Protobuf or JSON behind a schema registry's prefix"),
        (native("").replace("at-1", "at\0"), "token_id: holds a NUL"),
    ] {
        let fault = fault(&message);
        assert!(fault.contains(told), "{told}\n{fault}");
        for format in Format::ALL {
            let _ = decode_all(format, message.as_bytes());
        }
    }
    assert!(
        fault([native("").as_bytes(), b"\xff"].concat()).starts_with("not UTF-8: looks like damaged JSON, at line 1")
    );
    assert!(fault(b"\x1f\x8b\x08\0\0").starts_with("damaged compressed data"));
}

#[test]
fn client_chosen_text_is_truncated() {
    let long = "é".repeat(5000);
    let text = native(&format!(r#","user_agent":"{long}","endpoint":"{long}","method":"{long}","x":"{long}""#));
    let event = event(Format::Native, &text);
    let lengths = [&event.user_agent, &event.endpoint, &event.method].map(|text| text.as_deref().map_or(0, str::len));
    assert_eq!(lengths, [1024, 2048, 256]);
    assert_eq!(event.attrs[0].1.len(), 4096);
    let many = (0..500).map(|number| format!(r#","x{number}":"""#)).collect::<Vec<_>>().concat();
    let text = native(&many);
    let event = self::event(Format::Native, &text);
    assert_eq!(event.attrs.len(), 129);
    assert_eq!(event.attrs[128], ("attrs_omitted".into(), "372".into()));
}

#[test]
fn address_is_optional_for_every_kind() {
    for kind in Kind::ALL {
        let text = native(&format!(r#","kind":"{}""#, kind.as_str())).replace("\"192.0.2.1\"", "\"\"");
        assert_eq!(event(Format::Native, &text).address, None, "{kind:?}");
    }
}

/// The result of every record of a format's samples, to be compared with the mapping.
#[test]
fn mapped_formats_follow_their_tables() {
    for format in [Format::Cloudtrail, Format::Okta, Format::Github, Format::Ocsf, Format::Ecs] {
        let text = sample(format);
        let mut shown = String::new();
        for line in text.lines() {
            let (taken, _) = decode_all(format, line.as_bytes());
            for record in taken {
                match record {
                    Ok(Decoded::Event(event)) => shown += &show(&event),
                    Ok(Decoded::Skipped(reason)) => {
                        writeln!(shown, "skipped: {reason}").expect("a String accepts all text");
                    }
                    Err(error) => writeln!(shown, "error: {error}").expect("a String accepts all text"),
                }
            }
        }
        insta::assert_snapshot!(format!("mapped_{format}"), shown);
    }
}

/// The samples contain made-up secrets in bodies, queries, headers and messages.
#[test]
fn sample_secrets_reach_no_event() {
    for format in Format::ALL.into_iter().filter(|format| *format != Format::Native) {
        for line in sample(format).lines() {
            let (taken, _) = decode_all(format, line.as_bytes());
            let shown = format!("{taken:?}");
            for secret in ["IQoJb3JpZ2lu", "x/Y+1a2B", "hunter2", "abcdef0123456789", "0123456789abcdef"] {
                assert!(!shown.contains(secret), "{secret} in {shown}");
            }
        }
    }
}

#[test]
fn token_in_any_field_of_a_sample_is_redacted() {
    let token = format!("ghp_{}", "a7Bq2".repeat(7));
    for format in Format::ALL.into_iter().filter(|format| *format != Format::Native) {
        for line in sample(format).lines() {
            let record: Value = serde_json::from_str(line).expect("a sample is JSON");
            for at in 0.. {
                let mut planted = record.clone();
                let mut left = at;
                if !plant(&mut planted, &mut left, &token) {
                    break;
                }
                let text = planted.to_string();
                let (decoded, _) = decode_all(format, text.as_bytes());
                assert!(!format!("{decoded:?}").contains(&token), "{text}\n{decoded:?}");
            }
        }
    }
}

/// Replaces the text at index `left` by `token`.
fn plant(value: &mut Value, left: &mut usize, token: &str) -> bool {
    match value {
        Value::String(text) if *left == 0 => {
            *text = format!("{text} {token}");
            true
        }
        Value::String(_) => {
            *left -= 1;
            false
        }
        Value::Array(items) => items.iter_mut().any(|item| plant(item, left, token)),
        Value::Object(members) => members.values_mut().any(|member| plant(member, left, token)),
        _ => false,
    }
}

#[test]
fn batch_yields_each_record() {
    let records: Vec<String> = sample(Format::Cloudtrail).lines().map(str::to_owned).collect();
    let single: usize = records.iter().map(|record| decode_all(Format::Cloudtrail, record.as_bytes()).0.len()).sum();
    for batch in [
        format!("{{\"Records\":[{}]}}", records.join(",")),
        format!(" {{ \"Records\" : [\n{}\n], \"more\": {{}} }}\n", records.join(",\n")),
        format!("[{}]", records.join(" , ")),
    ] {
        let (taken, _) = decode_all(Format::Cloudtrail, batch.as_bytes());
        assert_eq!(taken.len(), single);
        assert!(taken.iter().all(Result::is_ok));
    }
    // One record has an invalid value. The batch breaks off after three records.
    let bad = records[1].replace("2026-11-22T10:15:30Z", "soon");
    let batch = format!("{{\"Records\":[{},\n{bad},{},{{\"a\":", records[0], records[7]);
    let (taken, _) = decode_all(Format::Cloudtrail, batch.as_bytes());
    let faults: Vec<_> = taken.iter().filter_map(|record| record.as_ref().err().map(ToString::to_string)).collect();
    assert_eq!(taken.len(), 4);
    assert!(faults[0].starts_with("eventTime: not an RFC 3339 time, at line 2 column "), "{faults:?}");
    assert!(faults[1].starts_with("not JSON: looks like truncated JSON"), "{faults:?}");
}

fn sample(format: Format) -> String {
    let path = format!("{}/tests/data/formats/{format}.ndjson", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("the samples are there")
}

/// The fields of an event, one per line, without empty ones.
fn show(event: &Event<'_>) -> String {
    let mut out = format!("{} {} at {}\n", event.event_id, event.kind.as_str(), event.timestamp.millis());
    let mut field = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            writeln!(out, "  {name}: {value}").expect("a String accepts all text");
        }
    };
    let text = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
    field("token_id", Some(format!("{} ({})", event.token_id.as_str(), event.token_type.as_str())));
    field("parent_token_id", event.parent_token_id.as_ref().map(|id| id.as_str().to_owned()));
    for (name, value) in [
        ("family_id", &event.family_id),
        ("session_id", &event.session_id),
        ("user_id", &event.user_id),
        ("app_id", &event.app_id),
        ("tenant_id", &event.tenant_id),
        ("user_agent", &event.user_agent),
        ("method", &event.method),
        ("endpoint", &event.endpoint),
    ] {
        field(name, text(value));
    }
    field("address", event.address.map(|address| address.to_string()));
    field("status", event.status.map(|status| status.to_string()));
    field("bytes_out", event.bytes_out.map(|bytes| bytes.to_string()));
    field("scopes", (!event.scopes.is_empty()).then(|| event.scopes.join(" ")));
    field("issued_at", event.issued_at.map(|time| time.millis().to_string()));
    field("expires_at", event.expires_at.map(|time| time.millis().to_string()));
    field("geo", event.geo.as_ref().map(|geo| format!("{geo:?}")));
    for (name, value) in &event.attrs {
        field(&format!("[{name}]"), Some(value.to_string()));
    }
    out
}

/// Real CloudTrail records, in the folder that `TOKENWARDEN_SHARED_DATA` names.
#[test]
#[ignore = "needs real records in the folder of TOKENWARDEN_SHARED_DATA"]
fn real_cloudtrail_is_read_completely() {
    let Some(data) = std::env::var_os("TOKENWARDEN_SHARED_DATA") else { return };
    let folder = PathBuf::from(data).join("cloudtrail");
    // One record, `CreateAccessKey`, gives two events: a use, and the issue of a key.
    let ledger = drain(vec![folder.join("s3-ransomware-lab.ndjson.gz")], Format::Cloudtrail);
    assert_eq!((ledger.events, ledger.skipped, ledger.faults), (3_070, 27_408, 0));
    assert_eq!(ledger.ids.len(), 2_434);
    let tokens = session_tokens(&folder.join("s3-ransomware-lab.ndjson.gz"));
    assert_eq!(tokens.len(), 93);
    for token in &tokens {
        assert!(!ledger.shown.contains(token.as_str()) && !ledger.shown.contains(&token[..60]));
    }
    let delivered = std::fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let delivered: Vec<_> = delivered.filter(|path| path.to_string_lossy().ends_with(".json.gz")).collect();
    let ledger = drain(delivered, Format::Cloudtrail);
    assert_eq!((ledger.events, ledger.skipped, ledger.faults), (361 + 607 + 566, 9 + 15 + 7, 0));
}

#[derive(Default)]
struct Ledger {
    events: usize,
    skipped: usize,
    faults: usize,
    ids: BTreeSet<String>,
    /// Debug output of all events.
    shown: String,
}

fn drain(paths: Vec<PathBuf>, format: Format) -> Ledger {
    let mut source = FileSource::open(paths).expect("the files open");
    let mut decoder = Decoder::new(format, TokenHasher::new(b"a key for tests"));
    let mut ledger = Ledger::default();
    while source
        .poll(1000, Duration::from_secs(1), &mut |message| {
            decoder.decode(message.payload, &mut |record| match record {
                Ok(Decoded::Event(event)) => {
                    ledger.events += 1;
                    ledger.ids.insert(event.event_id.to_string());
                    write!(ledger.shown, "{event:?}").expect("a String accepts all text");
                }
                Ok(Decoded::Skipped(_)) => ledger.skipped += 1,
                Err(error) => {
                    ledger.faults += 1;
                    write!(ledger.shown, "{:?}: {error}", message.position).expect("a String accepts all text");
                }
            });
        })
        .expect("the files are whole")
        != Polled::End
    {}
    ledger
}

/// The values of every `sessionToken` in a file of lines.
fn session_tokens(path: &Path) -> BTreeSet<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).expect("the file opens");
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).expect("the file is text");
    let values = text.split("\"sessionToken\":\"").skip(1);
    values.map(|rest| rest.split('"').next().unwrap_or_default().to_owned()).collect()
}
