//! A record of each format in nested envelopes is decoded, and no other record. Any further content of an envelope does
//! not affect the record.
//!
//! The first byte chooses the format, the second the number of envelopes, the next ones their types. The remaining
//! bytes are next to the record in the innermost envelope.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tokenwarden::token::TokenHasher;
use tokenwarden::wire::{Decoded, Decoder, Format};

fuzz_target!(|input: &[u8]| {
    let [choice, count, rest @ ..] = input else { return };
    let format = Format::ALL[usize::from(*choice) % Format::ALL.len()];
    let (choices, beside) = rest.split_at(usize::from(count % 7).min(rest.len()));
    let beside = String::from_utf8_lossy(beside);
    let mut value = record(format);
    for (level, choice) in choices.iter().enumerate() {
        let text = value.to_string();
        value = match choice % 8 {
            0 => json!({"version": "0", "detail-type": "x", "detail": value}),
            1 => json!({"Records": [value]}),
            2 => json!({"Type": "Notification", "Message": text}),
            3 => json!({"message": text}),
            4 => json!([value]),
            5 => json!({"messageType": "DATA_MESSAGE", "logEvents": [{"id": "1", "timestamp": 1, "message": text}]}),
            6 => json!({"_raw": text}),
            _ => json!({"event": value, "sourcetype": "x"}),
        };
        if let (0, Some(members)) = (level, value.as_object_mut()) {
            members.insert("beside".to_owned(), Value::String(beside.clone().into_owned()));
        }
    }
    let message = value.to_string().into_bytes();
    let mut decoder = Decoder::new(format, TokenHasher::new(b"a key for fuzzing"));
    let mut found = 0;
    decoder.decode(&message, &mut |record| match record {
        Ok(Decoded::Event(event)) => {
            assert_eq!(event.event_id, "the-id");
            found += 1;
        }
        Ok(Decoded::Skipped(reason)) => assert!(!reason.is_empty()),
        Err(error) => assert!(error.at.byte <= message.len() && error.at.line > 0 && error.at.column > 0),
    });
    assert!(found <= 1);
    assert!(found == 1 || choices.len() > 1, "{}", String::from_utf8_lossy(&message));
});

fn record(format: Format) -> Value {
    match format {
        Format::Native => json!({"event_id": "the-id", "timestamp": 1_790_000_000_000_i64, "token_id": "t"}),
        Format::Cloudtrail => json!({"eventVersion": "1.11", "eventID": "the-id", "eventTime": "2026-09-21T14:13:20Z",
            "eventType": "AwsApiCall", "eventSource": "s3.amazonaws.com", "eventName": "ListBuckets",
            "sourceIPAddress": "192.0.2.1", "userIdentity": {"type": "IAMUser", "principalId": "AIDAEXAMPLE",
            "arn": "arn:aws:iam::111122223333:user/u", "accountId": "111122223333", "accessKeyId": "AKIAEXAMPLE"}}),
        Format::Okta => json!({"uuid": "the-id", "published": "2026-09-21T14:13:20.000Z", "eventType": "user.session.start",
            "actor": {"id": "00u1", "type": "User"}, "outcome": {"result": "SUCCESS"},
            "authenticationContext": {"externalSessionId": "s1"}, "client": {"ipAddress": "192.0.2.1"}}),
        Format::Github => json!({"_document_id": "the-id", "@timestamp": 1_790_000_000_000_i64, "action": "git.clone",
            "actor_id": 1, "hashed_token": "h"}),
        Format::Ocsf => json!({"class_uid": 6003, "category_uid": 6, "type_uid": 600_301, "time": 1_790_000_000_000_i64,
            "metadata": {"uid": "the-id"}, "actor": {"user": {"uid": "u", "credential_uid": "AKIAEXAMPLE"}},
            "api": {"operation": "ListBuckets"}, "src_endpoint": {"ip": "192.0.2.1"}}),
        Format::Ecs => json!({"@timestamp": "2026-09-21T14:13:20Z", "event": {"id": "the-id", "action": "a",
            "category": ["web"], "outcome": "success"}, "labels": {"token_id": "t"}, "source": {"ip": "192.0.2.1"}}),
    }
}
