//! Messages in, events out: every format, every fault, and no secret among them.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokenwarden::event::{Event, Kind, TokenType};
use tokenwarden::port::{Polled, Source as _};
use tokenwarden::source::file::FileSource;
use tokenwarden::token::TokenHasher;
use tokenwarden::wire::{DecodeError, Decoded, Decoder, Format};

fn decode_all(format: Format, payload: &[u8]) -> (Vec<Result<Decoded<'_>, DecodeError>>, u64) {
    let mut decoder = Decoder::new(format, TokenHasher::new(b"a key for tests"));
    let mut taken = Vec::new();
    decoder.decode(payload, &mut |record| taken.push(record));
    (taken, decoder.redactions())
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
fn a_native_event_is_read_whole() {
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
fn each_fault_is_told_by_field_reason_and_position() {
    for (message, told) in [
        (native(r#","token_type":"bearer""#), "token_type: no such token type, at line 1 column 121 (byte 120)"),
        (native(r#","user_id":42"#), "user_id: expected a string, at line 1 column"),
        (native(r#","status":-1"#), "status: negative, at line 1"),
        (native(r#","status":2e2"#), "status: expected an integer"),
        (native(r#","event_id":"e2""#), "event_id: given twice"),
        (native(r#","geo":[]"#), "geo: expected an object"),
        (native(r#","geo":{"latitude":91}"#), "geo.latitude: out of range"),
        (native(r#","scopes":{}"#), "scopes: expected an array"),
        (native(r#","attrs":"x""#), "attrs: expected an object"),
        (native(r#","user_agent":"a\u0000b""#), "user_agent: holds a NUL character"),
        (native(r#","user_agent":"\ud800""#), "not JSON: "),
        (native(r#","x":NaN"#), "not JSON: expected"),
        (native(r#","bytes_out":1e999"#), "not JSON: number out of range"),
        (r#"{"event_id":"e"}"#.to_owned(), "timestamp: missing, at line 1 column 16"),
        ("[]".to_owned(), "expected a JSON object"),
        (" \n".to_owned(), "an empty message"),
        (
            "{\n\"event_id\": \"e\",\n\"timestamp\": \"yesterday\"}".to_owned(),
            "timestamp: not an RFC 3339 time, at line 3",
        ),
        (native("").replace("192.0.2.1", "fe80::1%eth0"), "ip_address: not an IP address"),
        (native("").replace("\"192.0.2.1\"", "null"), "ip_address: missing"),
    ] {
        let fault = fault(&message);
        assert!(fault.contains(told), "{message}\n{fault}\n{told}");
    }
}

/// Real CloudTrail records, where `TOKENWARDEN_SHARED_DATA` names the folder that has them.
#[test]
fn real_cloudtrail_is_read_to_the_last_record() {
    let Some(data) = std::env::var_os("TOKENWARDEN_SHARED_DATA") else { return };
    let folder = PathBuf::from(data).join("cloudtrail");
    let ledger = drain(vec![folder.join("s3-ransomware-lab.ndjson.gz")], Format::Cloudtrail);
    assert_eq!((ledger.events, ledger.skipped, ledger.faults), (3_069, 27_408, 0));
    assert_eq!(ledger.ids.len(), 2_433);
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
    /// Everything that any event says.
    shown: String,
}

fn drain(paths: Vec<PathBuf>, format: Format) -> Ledger {
    let mut source = FileSource::open(paths, format).expect("the files open");
    let mut decoder = Decoder::new(format, TokenHasher::new(b"a key for tests"));
    let mut ledger = Ledger::default();
    while source
        .poll(1000, Duration::from_secs(1), &mut |message| {
            decoder.decode(message.payload, &mut |record| match record {
                Ok(Decoded::Event(event)) => {
                    ledger.events += 1;
                    ledger.ids.insert(event.event_id.to_string());
                    write!(ledger.shown, "{event:?}").expect("a string takes all");
                }
                Ok(Decoded::Skipped(_)) => ledger.skipped += 1,
                Err(error) => {
                    ledger.faults += 1;
                    ledger.shown += &format!("{:?}: {error}", message.position);
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
