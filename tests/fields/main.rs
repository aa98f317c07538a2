//! An optional field that cannot be read never discards its event, in any format. It is repaired or counts as absent, is
//! named in `attrs` and is counted.

mod ids;

use tokenwarden::event::{Concerns, Event, Kind, TokenType};
use tokenwarden::feed::Feed;
use tokenwarden::format::Format;
use tokenwarden::token::TokenHasher;
use tokenwarden::wire::{DecodeError, Decoded, Decoder};

/// Name of the attribute that names the unreadable fields.
const UNREADABLE: &str = "unreadable_fields";

fn decode(format: Format, payload: &[u8]) -> Vec<Result<Decoded<'_>, DecodeError>> {
    let mut taken = Vec::new();
    Decoder::new(format, TokenHasher::new(b"a key for tests")).decode(payload, &mut |record| taken.push(record));
    taken
}

/// The one event in `payload`, owned.
fn event(format: Format, payload: impl AsRef<[u8]>) -> Event<'static> {
    let shown = String::from_utf8_lossy(payload.as_ref()).into_owned();
    let mut taken = decode(format, payload.as_ref());
    assert_eq!(taken.len(), 1, "{shown}\n{taken:?}");
    match taken.remove(0) {
        Ok(Decoded::Event(event)) => event.into_owned(),
        other => panic!("{shown}\n{other:?}"),
    }
}

fn fault(format: Format, payload: impl AsRef<[u8]>) -> String {
    match decode(format, payload.as_ref()).as_slice() {
        [Err(error)] => error.to_string(),
        other => panic!("no fault: {other:?}"),
    }
}

/// The unreadable fields in `attrs`.
fn unreadable<'e>(event: &'e Event<'_>) -> &'e str {
    attr(event, UNREADABLE)
}

fn attr<'e>(event: &'e Event<'_>, wanted: &str) -> &'e str {
    event.attrs.iter().find(|(name, _)| name == wanted).map_or("", |(_, value)| value.as_ref())
}

/// A native event with `members` after the required ones.
fn native(members: &str) -> String {
    format!(r#"{{"event_id":"e1","timestamp":"2026-11-22T10:15:30.123Z","token_id":"at-1"{members}}}"#)
}

#[test]
fn optional_field_unreadable_keeps_the_event() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    for (members, named) in [
        (r#","user_agent":"a\u0000b""#, "user_agent: holds a NUL"),
        (r#","user_agent":"a\ud800b""#, "user_agent: holds a NUL, a lone surrogate"),
        (r#","user_agent":"\udc00\ud800""#, "user_agent: "),
        (r#","user_agent":"a\x22b""#, "user_agent: "),
        (r#","user_agent":["a"]"#, "user_agent: expected a string"),
        (r#","user_agent":"a","user_agent":"b""#, "user_agent: given twice"),
        (r#","method":{"a":1}"#, "method: expected a string"),
        (r#","endpoint":"/\u0000""#, "endpoint: "),
        (r#","client_fingerprint":false"#, "client_fingerprint: "),
        (r#","user_agent":"a","user_agent":"b","user_agent":"a""#, "user_agent: given twice"),
        (r#","user_id":true"#, "user_id: expected a string"),
        (r#","user_id":18446744073709551616"#, "user_id: expected a string"),
        (r#","family_id":"a","family_id":"b""#, "family_id: given twice"),
        (r#","tenant_id":[]"#, "tenant_id: "),
        (r#","session_id":"\u0000""#, "session_id: "),
        (r#","app_id":1.5"#, "app_id: "),
        (r#","binding":{}"#, "binding: "),
        (r#","parent_token_id":"a\u0000""#, "parent_token_id: "),
        (r#","scopes":["a",1]"#, "scopes: expected a string"),
        (r#","status":-1"#, "status: negative"),
        (r#","status":1000"#, "status: too large"),
        (r#","status":"OK""#, "status: expected an integer"),
        (r#","status":200,"status":401"#, "status: given twice"),
        (r#","status":1e999"#, "status: "),
        (r#","status":NaN"#, "status: "),
        (r#","bytes_out":-5"#, "bytes_out: negative"),
        (r#","bytes_out":12.5"#, "bytes_out: expected an integer"),
        (r#","bytes_out":99999999999999999999"#, "bytes_out: too large"),
        (r#","ip_address":"192.0.2.256""#, "ip_address: not an IP address"),
        (r#","ip_address":"192.0.2.1, 198.51.100.7""#, "ip_address: not an IP address"),
        (r#","ip_address":"192.0.2.1:65536""#, "ip_address: not an IP address"),
        (r#","ip_address":"192.0.2.0/24""#, "ip_address: not an IP address"),
        (r#","ip_address":3221225985"#, "ip_address: "),
        (r#","issued_at":"yesterday""#, "issued_at: not an RFC 3339 time"),
        (r#","expires_at":"0000-01-01T00:00:00Z""#, "expires_at: a time outside"),
        (r#","expires_at":1.5"#, "expires_at: "),
        (r#","expires_at":1790000000"#, "expires_at: looks like seconds, where milliseconds are expected"),
        (r#","issued_at":"1790000000""#, "issued_at: looks like seconds, where milliseconds are expected"),
        (r#","kind":"introspected""#, "kind: no such kind"),
        (r#","token_type":"bearer""#, "token_type: no such token type"),
        (r#","scopes":{}"#, "scopes: expected an array or a string"),
        (r#","scopes":["a"],"scope":"b""#, "scopes: given twice"),
        (r#","geo":[]"#, "geo: expected an object"),
        (r#","geo":{"latitude":91}"#, "geo.latitude: out of range"),
        (r#","geo":{"latitude":1e999}"#, "geo.latitude: "),
        (r#","geo":{"asn":1,"asn":2}"#, "geo.asn: given twice"),
        (r#","attrs":"x""#, "attrs: expected an object"),
        (r#","attrs":{"x":"\ud800"}"#, "attrs: "),
        (r#","x":"a\ud800b""#, "attrs: "),
        (r#","x\ud800":"a""#, "attrs: "),
    ] {
        for ip in ["", r#","ip_address":"192.0.2.1""#] {
            if !ip.is_empty() && members.contains("ip_address") {
                continue;
            }
            let event = event(Format::Native, native(&format!("{ip}{members}")));
            let found = unreadable(&event);
            assert!(found.starts_with(named), "{members}: {found:?}");
            assert_eq!(event.event_id, "e1");
            assert_eq!(event.address.is_some(), !ip.is_empty());
        }
    }
    for members in
        [format!(r#","user_agent":{deep}"#), format!(r#","attrs":{{"x":{deep}}}"#), format!(r#","x":{deep}"#)]
    {
        assert!(!unreadable(&event(Format::Native, native(&members))).is_empty());
    }
}

#[test]
fn optional_field_unreadable_leaves_the_rest() {
    let members =
        r#","user_agent":"a\ud800b","status":-1,"kind":"revoked","family_id":"g","endpoint":"/v1","bytes_out":7"#;
    let event = event(Format::Native, native(members));
    assert_eq!((event.kind, event.status, event.bytes_out), (Kind::Revoked, None, Some(7)));
    assert_eq!((event.user_agent.as_deref(), event.family_id.as_deref()), (Some("a\u{fffd}b"), Some("g")));
    assert!(unreadable(&event).contains("user_agent: ") && unreadable(&event).contains("; status: negative"));
    assert_eq!((attr(&event, "user_agent"), attr(&event, "status")), ("", "-1"), "the sent values are kept");
}

#[test]
fn invalid_utf8_costs_only_its_field() {
    let payload = |members: &[u8]| [&br#"{"event_id":"e1","timestamp":1,"token_id":"t""#[..], members, b"}"].concat();
    for (members, named) in [
        (&b",\"user_agent\":\"a\xffb\""[..], "user_agent: "),
        (b",\"user_agent\":\"\xe2\x82\"", "user_agent: "),
        (b",\"user_agent\":\"tab\there\"", "user_agent: "),
        (b",\"user_agent\":\"nul\0here\"", "user_agent: "),
        (b",\"x\":\"\xff\"", "attrs: "),
        (b",\"\xff\":\"x\"", "attrs: "),
        (b",\"attrs\":{\"x\":\"\xff\"}", "attrs: "),
    ] {
        let event = event(Format::Native, payload(members));
        assert!(unreadable(&event).starts_with(named), "{members:?}: {:?}", event.attrs);
    }
    // An unreadable required field, and a broken structure, are errors of the record.
    let shown = fault(Format::Native, b"{\"event_id\":\"e\xff\",\"timestamp\":1,\"token_id\":\"t\"}");
    assert!(
        shown.starts_with("event_id: holds a NUL, a lone surrogate or bytes that are not UTF-8, at line 1"),
        "{shown}"
    );
    let shown = fault(Format::Native, [native("").as_bytes(), b"\xff"].concat());
    assert!(shown.starts_with("not UTF-8: looks like") && shown.contains("column 75 (byte 74)"), "{shown}");
}

#[test]
fn unreadable_fields_cannot_be_forged() {
    let members = r#","attrs":{"unreadable_fields":"nothing"},"status":-1"#;
    let event = event(Format::Native, native(members));
    assert_eq!(unreadable(&event), "status: negative", "the decoder's attribute is first");
}

#[test]
fn required_field_given_twice_differently_is_fault() {
    for (members, field) in [
        (r#","event_id":"e2""#, "event_id"),
        (r#","token_id":"at-2""#, "token_id"),
        (r#","timestamp":1"#, "timestamp"),
        (r#","event_id":null"#, "event_id"),
    ] {
        let shown = fault(Format::Native, native(members));
        assert!(shown.starts_with(&format!("{field}: given twice")), "{shown}");
    }
    let event = event(Format::Native, native(r#","event_id":"e1","token_id":"at-1","timestamp":1795342530123"#));
    assert_eq!(event.token_id.as_str(), "at-1");
}

#[test]
fn required_field_missing_is_fault() {
    for field in ["event_id", "timestamp", "token_id"] {
        for value in ["null", "\"\"", "true", "\"\\u0000\"", "\"\\ud800\"", "[]"] {
            let text = native(r#","ip_address":"192.0.2.1""#);
            let start = text.find(&format!("\"{field}\":")).expect("the field is there") + field.len() + 3;
            let end = start + text[start..].find(&[',', '}'][..]).expect("its value ends");
            let text = format!("{}{value}{}", &text[..start], &text[end..]);
            let shown = fault(Format::Native, &text);
            assert!(shown.starts_with(&format!("{field}: ")), "{text}\n{shown}");
        }
    }
}

#[test]
fn native_time_in_another_unit_is_fault() {
    let at = |time: &str| native("").replace("\"2026-11-22T10:15:30.123Z\"", time);
    for time in ["1790000000", "\"1790000000\"", "946684800", "4102444799"] {
        let shown = fault(Format::Native, at(time));
        assert!(shown.starts_with("timestamp: looks like seconds, where milliseconds are expected"), "{time}: {shown}");
    }
    for time in ["1790000000000000", "\"1790000000000000\"", "1790000000000000000"] {
        let shown = fault(Format::Native, at(time));
        assert!(shown.starts_with("timestamp: a time outside the years 1970 to 2199"), "{time}: {shown}");
    }
    for time in ["0", "1", "86400000", "5000000000", "1790000000000"] {
        assert_eq!(event(Format::Native, at(time)).event_id, "e1", "{time}");
    }
}

#[test]
fn harmless_variants_are_read() {
    for status in ["200", "\"200\"", "200.0", "2e2", "\"200 OK\"", "\"200: ok\"", "200,\"status\":\"200\""] {
        let event = event(Format::Native, native(&format!(r#","status":{status}"#)));
        assert_eq!((event.status, unreadable(&event)), (Some(200), ""), "{status}");
    }
    let bytes = event(Format::Native, native(r#","bytes_out":"5120""#));
    assert_eq!(bytes.bytes_out, Some(5120));
    for scopes in [
        r#""scopes":["read","write:all"]"#,
        r#""scopes":"read write:all""#,
        r#""scope":"read  write:all ""#,
        r#""scope":["read","write:all"]"#,
        r#""scope":"read\u0020write:all""#,
    ] {
        let event = event(Format::Native, native(&format!(",{scopes}")));
        assert_eq!((&event.scopes[..], unreadable(&event)), (&["read".into(), "write:all".into()][..], ""), "{scopes}");
    }
    let time = event(Format::Native, native("").replace("\"2026-11-22T10:15:30.123Z\"", "\"1795342530123\""));
    assert_eq!(time.timestamp.millis(), 1_795_342_530_123);
    for (sent, read) in [
        ("192.0.2.7:443", "192.0.2.7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[::ffff:192.0.2.7]:1", "192.0.2.7"),
        ("fe80::7%eth0", "fe80::7"),
        ("[fe80::7%25eth0]:443", "fe80::7"),
    ] {
        let event = event(Format::Native, native(&format!(r#","ip_address":"{sent}""#)));
        let address = event.address.map(|address| address.to_string());
        assert_eq!((address.as_deref(), unreadable(&event)), (Some(read), ""), "{sent}");
    }
    let words = event(Format::Native, native(r#","kind":"REVOKED","token_type":"Refresh""#));
    assert_eq!((words.kind, words.token_type, unreadable(&words)), (Kind::Revoked, TokenType::Refresh, ""));
    let empty = event(Format::Native, native(r#","ip_address":"","status":null,"scopes":"","user_agent":null"#));
    assert_eq!(unreadable(&empty), "", "null and the empty text are absent");
}

/// The kind counts as absent, so the event is a use. Otherwise a client that injects a kind into a log line could keep
/// its
/// use from being scored.
#[test]
fn unknown_kind_is_use_and_named() {
    let event = event(Format::Native, native(r#","kind":"introspected""#));
    assert_eq!((event.kind, attr(&event, "kind")), (Kind::Use, "introspected"));
    assert_eq!(unreadable(&event), "kind: no such kind");
}

/// One record of each mapped format, `X` where a client chooses the text.
const RECORDS: &[(Format, &str, &str)] = &[
    (
        Format::Cloudtrail,
        "userAgent",
        r#"{"eventID":"e1","eventTime":"2026-09-21T10:00:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","sourceIPAddress":"192.0.2.1","userAgent":X,"userIdentity":{"type":"IAMUser","accessKeyId":"AKIA1","arn":"arn:aws:iam::1:user/a","accountId":"1"}}"#,
    ),
    (
        Format::Okta,
        "client.userAgent.rawUserAgent",
        r#"{"uuid":"e1","published":"2026-09-21T10:00:00Z","eventType":"user.session.access_admin_app","actor":{"id":"00u1","type":"User"},"client":{"ipAddress":"192.0.2.1","userAgent":{"rawUserAgent":X}},"outcome":{"result":"SUCCESS"},"authenticationContext":{"externalSessionId":"s1"}}"#,
    ),
    (
        Format::Github,
        "user_agent",
        r#"{"_document_id":"e1","@timestamp":1790000000000,"action":"api.request","actor":"ana","actor_id":7,"actor_ip":"192.0.2.1","hashed_token":"3fTqzGK3PnQEHo1vJ2o6x3bqUq8Q1rC1nQkqmQ2w4eY=","user_agent":X}"#,
    ),
    (
        Format::Ocsf,
        "http_request.user_agent",
        r#"{"class_uid":6003,"metadata":{"uid":"e1"},"time":1790000000000,"api":{"operation":"Get","token":{"uid":"t1"}},"actor":{"user":{"uid":"u1"}},"src_endpoint":{"ip":"192.0.2.1"},"http_request":{"user_agent":X}}"#,
    ),
    (
        Format::Ecs,
        "user_agent.original",
        r#"{"@timestamp":"2026-09-21T10:00:00Z","event":{"id":"e1","action":"get"},"labels":{"token_id":"t1"},"user":{"id":"u1"},"source":{"ip":"192.0.2.1"},"user_agent":{"original":X}}"#,
    ),
];

#[test]
fn mapped_field_unreadable_keeps_the_event() {
    for (format, path, record) in RECORDS {
        let good = event(*format, record.replace('X', "\"curl/8\""));
        assert_eq!((good.user_agent.as_deref(), unreadable(&good)), (Some("curl/8"), ""), "{format}");
        let name = path.rsplit('.').next().expect("a name");
        for (value, read) in [
            (r#""a\u0000b""#.to_owned(), Some("a\u{fffd}b")),
            (r#""a\ud800b""#.to_owned(), Some("a\u{fffd}b")),
            ("\"a\tb\"".to_owned(), Some("a\u{fffd}b")),
            (r#"{"a":1}"#.to_owned(), None),
            ("1e999".to_owned(), Some("\u{fffd}")),
            (format!(r#""a","{name}":"b""#), None),
        ] {
            let event = event(*format, record.replace('X', &value));
            assert!(unreadable(&event).starts_with(&format!("{path}: ")), "{format} {value}: {:?}", event.attrs);
            assert_eq!((event.user_agent.as_deref(), event.event_id.as_ref()), (read, "e1"), "{format} {value}");
            assert_eq!((event.address, event.timestamp), (good.address, good.timestamp), "{format} {value}");
        }
        let (before, after) = record.split_once('X').expect("a place");
        let invalid = event(*format, [before.as_bytes(), b"\"a\xffb\"", after.as_bytes()].concat());
        assert!(unreadable(&invalid).starts_with(&format!("{path}: ")), "{format}: {:?}", invalid.attrs);
        let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
        let deep = event(*format, record.replace('X', &format!(r#""curl/8","deep":{deep}"#)));
        assert!(unreadable(&deep).contains("attrs: nested too deeply"), "{format}: {:?}", deep.attrs);
        let address = event(*format, record.replace('X', "\"curl/8\"").replace("192.0.2.1", "192.0.2.300"));
        assert!(unreadable(&address).contains("not an IP address"), "{format}: {:?}", address.attrs);
        assert_eq!(address.address, None);
    }
}

/// The event with `value` as the native `field`.
fn with(field: &str, value: &str) -> Event<'static> {
    event(Format::Native, native(&format!(",\"{field}\":{value}")))
}

#[test]
fn unreadable_outcome_is_unclear() {
    for status in
        ["\"OK\"", "true", "70000", "-1", "\"\\u0000\"", "[401]", "\"200, 401\"", "\"401 200\"", "200,\"status\":401"]
    {
        let event = with("status", status);
        assert_eq!((event.status, event.is_unchecked(), event.is_attempt()), (None, true, false), "{status}");
    }
    for (status, read) in
        [("401", 401), ("\"401 Unauthorized\"", 401), ("\"401 UNAUTHORIZED\"", 401), ("\"403-x\"", 403)]
    {
        let event = with("status", status);
        assert_eq!((event.status, event.is_unchecked()), (Some(read), false), "{status}");
    }
    for absent in ["null", "\"\""] {
        assert!(!with("status", absent).is_unchecked(), "{absent}");
    }
}

#[test]
fn unreadable_outcome_of_a_provider_is_unclear() {
    let with = |format: Format, sent: &str, written: &str| {
        let (.., record) = RECORDS.iter().find(|(of, ..)| *of == format).expect("there is a record");
        let record = record.replace('X', "\"curl/8\"");
        assert!(record.contains(sent), "{record}");
        event(format, record.replace(sent, written))
    };
    for (format, sent, written) in [
        (Format::Okta, r#"{"result":"SUCCESS"}"#, r#"{"result":"UNKNOWN"}"#),
        (Format::Okta, r#"{"result":"SUCCESS"}"#, r#"{"result":true}"#),
        (Format::Okta, r#"{"result":"SUCCESS"}"#, r#"{"result":{"a":1}}"#),
        (Format::Okta, r#"{"result":"SUCCESS"}"#, r#"{"result":"SUCCESS\u0000"}"#),
        (Format::Okta, r#"{"result":"SUCCESS"}"#, r#"{"result":"SUCCESS","result":"DENY"}"#),
        (Format::Github, r#""action""#, r#""status_code":"x","action""#),
        (Format::Ocsf, r#""time""#, r#""http_response":{"code":"x"},"time""#),
        (Format::Ocsf, r#""time""#, r#""status_id":99,"time""#),
        (Format::Ecs, r#""user""#, r#""http":{"response":{"status_code":{}}},"user""#),
        (Format::Ecs, r#""action":"get""#, r#""action":"get","outcome":"partial""#),
        (Format::Cloudtrail, r#""eventName""#, r#""errorCode":{"a":1},"eventName""#),
        (Format::Cloudtrail, r#""eventName""#, r#""errorCode":"AccessDenied\u0000","eventName""#),
    ] {
        let event = with(format, sent, written);
        assert!(event.is_unchecked() && !event.is_attempt(), "{format} {written}: {event:#?}");
    }
    for (format, sent, written) in [
        (Format::Okta, "SUCCESS", "SUCCESS"),
        (Format::Github, r#""action""#, r#""status_code":"200 OK","action""#),
        (Format::Ocsf, r#""time""#, r#""http_response":{"code":"200 OK"},"status_id":99,"time""#),
        (Format::Ecs, r#""action":"get""#, r#""action":"get","outcome":"success""#),
        (Format::Cloudtrail, "curl/8", "curl/8"),
    ] {
        let event = with(format, sent, written);
        assert_eq!((event.status, event.is_unchecked()), (Some(200), false), "{format} {written}: {event:#?}");
    }
}

#[test]
fn one_value_given_twice_is_read() {
    let twice = |members: &str| {
        let one = event(Format::Native, native(members));
        let two = event(Format::Native, native(&members.repeat(2)));
        assert_eq!(one, two, "{members}");
    };
    for members in [
        r#","user_id":"ana""#,
        r#","user_id":"a\u006ea""#,
        r#","ip_address":"192.0.2.1""#,
        r#","status":401"#,
        r#","kind":"refreshed""#,
        r#","token_type":"refresh""#,
        r#","parent_token_id":"p""#,
        r#","bytes_out":7"#,
        r#","expires_at":1795342530123"#,
        r#","scopes":["a","b"]"#,
        r#","geo":{"asn":1,"asn":1}"#,
    ] {
        twice(members);
    }
    for (format, path, record) in RECORDS {
        let name = path.rsplit('.').next().expect("a name");
        let one = event(*format, record.replace('X', "\"curl/8\""));
        let two = event(*format, record.replace('X', &format!("\"curl/8\",\"{name}\":\"curl/8\"")));
        assert_eq!(one, two, "{format}");
    }
    // The first value may be repeated. A different value makes the field ambiguous.
    let many = format!("{}{}", r#""a","user_agent":"#.repeat(300), r#""b""#);
    let two = event(Format::Github, RECORDS[2].2.replace('X', &many));
    assert_eq!((two.user_agent.as_deref(), unreadable(&two)), (None, "user_agent: given twice"));
}

#[test]
fn unreadable_text_matches_no_pattern() {
    let record = RECORDS[0].2.replace('X', "\"curl/8\"").replace("192.0.2.1", r"x\u0000.amazonaws.com");
    let event = event(Format::Cloudtrail, record);
    assert!(!event.is_own_call() && unreadable(&event).starts_with("sourceIPAddress: "), "{event:#?}");
}

#[test]
fn mapped_objects_given_twice_are_unreadable() {
    let record = RECORDS[0].2.replace('X', "\"curl/8\"");
    let twice = record
        .replace(r#""sourceIPAddress":"192.0.2.1""#, r#""sourceIPAddress":"192.0.2.1","sourceIPAddress":"192.0.2.2""#);
    let event = event(Format::Cloudtrail, twice);
    assert_eq!((event.address, unreadable(&event)), (None, "sourceIPAddress: given twice"));
    let twice = record.replace(r#""userIdentity":{"#, r#""userIdentity":{"accessKeyId":"AKIA2"},"userIdentity":{"#);
    let shown = fault(Format::Cloudtrail, twice);
    assert!(shown.starts_with("userIdentity.accessKeyId: given twice"), "{shown}");
    // A second value must not make a record one without a token.
    let twice = record.replace(r#""type":"IAMUser""#, r#""type":"AWSService","type":"IAMUser""#);
    assert_eq!(self::event(Format::Cloudtrail, twice).token_id.as_str(), "AKIA1");
}

#[test]
fn provider_service_name_is_no_unreadable_address() {
    for name in ["cloudformation.amazonaws.com", "AWS Internal"] {
        let record = RECORDS[0].2.replace('X', "\"curl/8\"").replace("192.0.2.1", name);
        let event = event(Format::Cloudtrail, record);
        assert_eq!((event.address, unreadable(&event)), (None, ""), "{name}");
    }
}

#[test]
fn invalid_utf8_in_one_record_keeps_the_batch() {
    let record = RECORDS[0].2;
    let (before, after) = record.split_once('X').expect("a place");
    let good = record.replace('X', "\"curl/8\"");
    let bad = [before.as_bytes(), b"\"a\xffb\"", after.as_bytes()].concat();
    let batch = [b"{\"Records\":[", good.as_bytes(), b",", &bad, b",", good.as_bytes(), b"]}"].concat();
    let taken = decode(Format::Cloudtrail, &batch);
    assert_eq!(taken.len(), 3);
    assert!(taken.iter().all(Result::is_ok), "{taken:?}");
}

#[test]
fn concerns_counts_with_an_ended_session_of_a_trusted_source() {
    let read = |confirmed: bool, members: &str| {
        let mut found = None;
        let feed = Feed { confirmed, ..Feed::default() };
        Decoder::new(feed, TokenHasher::new(b"a key for tests")).decode(native(members).as_bytes(), &mut |decoded| {
            let Ok(Decoded::Event(event)) = decoded else { panic!("no event: {members}") };
            found = Some(event.into_owned());
        });
        let event = found.expect("there is an event");
        let concerns = event.facts.as_ref().map(|facts| facts.concerns);
        (concerns, attr(&event, "concerns").to_owned(), unreadable(&event).to_owned())
    };
    let kept = |value: &str| (None, value.to_owned(), String::new());
    let ended = |concerns: &str| format!(r#","kind":"session_ended"{concerns}"#);
    assert_eq!(read(true, &ended("")), kept(""));
    assert_eq!(read(true, &ended(r#","concerns":"token""#)), kept(""));
    let all = r#","concerns":"user","kind":"session_ended""#;
    assert_eq!(read(true, all), (Some(Concerns::User), String::new(), String::new()));
    assert_eq!(read(false, all), kept("user"), "a stranger");
    for kind in ["revoked", "use"] {
        assert_eq!(read(true, &format!(r#","concerns":"user","kind":"{kind}""#)), kept("user"), "{kind}");
    }
    for wrong in [r#""all""#, "7", r#""user","concerns":"token""#] {
        let (concerns, _, named) = read(true, &ended(&format!(r#","concerns":{wrong}"#)));
        assert!(concerns.is_none() && named.starts_with("concerns: "), "{wrong}: {named}");
        let (concerns, _, named) = read(false, &ended(&format!(r#","concerns":{wrong}"#)));
        assert!(concerns.is_none() && named.is_empty(), "{wrong}: {named}");
    }
}
