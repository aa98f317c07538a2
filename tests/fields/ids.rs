//! Ids in any notation stay distinct, and are read completely or not at all.

use super::*;

/// Reads the id of an event from one of its fields.
type IdOf = fn(&Event<'static>) -> Option<String>;

/// Ids in the native format and in others. `X` is the position of the id.
const IDS: &[(Format, &str, IdOf)] = &[
    (Format::Native, r#"{"event_id":"e1","timestamp":1,"token_id":"t","user_id":X}"#, user),
    (Format::Native, r#"{"event_id":"e1","timestamp":1,"token_id":"t","tenant_id":X}"#, tenant),
    (Format::Native, r#"{"event_id":"e1","timestamp":1,"token_id":"t","session_id":X}"#, |event| {
        event.session_id.as_deref().map(str::to_owned)
    }),
    (Format::Native, r#"{"event_id":"e1","timestamp":1,"token_id":"t","app_id":X}"#, |event| {
        event.app_id.as_deref().map(str::to_owned)
    }),
    (
        Format::Github,
        r#"{"_document_id":"e1","@timestamp":1790000000000,"action":"api.request","actor_id":X,"hashed_token":"3fTqzGK3PnQEHo1vJ2o6x3bqUq8Q1rC1nQkqmQ2w4eY="}"#,
        user,
    ),
    (
        Format::Okta,
        r#"{"uuid":"e1","published":"2026-09-21T10:00:00Z","eventType":"user.session.access_admin_app","actor":{"id":X,"type":"User"},"authenticationContext":{"externalSessionId":"s1"}}"#,
        user,
    ),
    (
        Format::Ocsf,
        r#"{"class_uid":6003,"metadata":{"uid":"e1"},"time":1790000000000,"api":{"operation":"Get","token":{"uid":"t1"}},"actor":{"user":{"uid":X}}}"#,
        user,
    ),
    (
        Format::Ecs,
        r#"{"@timestamp":"2026-09-21T10:00:00Z","event":{"id":"e1","action":"get"},"labels":{"token_id":"t1"},"organization":{"id":X}}"#,
        tenant,
    ),
    (
        Format::Cloudtrail,
        r#"{"eventID":"e1","eventTime":"2026-09-21T10:00:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","userIdentity":{"type":"IAMUser","accessKeyId":"AKIA1","accountId":X}}"#,
        tenant,
    ),
];

fn user(event: &Event<'static>) -> Option<String> {
    event.user_id.as_deref().map(str::to_owned)
}

fn tenant(event: &Event<'static>) -> Option<String> {
    event.tenant_id.as_deref().map(str::to_owned)
}

#[test]
fn ids_stay_distinct_in_any_notation() {
    let long = |end: &str| format!("\"{}{end}\"", "a".repeat(2_000));
    let written = [
        r#""ana""#.to_owned(),
        r#""ANA""#.to_owned(),
        r#"" ana""#.to_owned(),
        r#""an\u00e1""#.to_owned(),
        r#""ana\u0301""#.to_owned(),
        r#""ana\u200b""#.to_owned(),
        r#""ana\u0000""#.to_owned(),
        r#""ana\ufffd""#.to_owned(),
        r#""\ud800ana""#.to_owned(),
        long("a"),
        long("b"),
        long("\\u0000"),
        "42".to_owned(),
    ];
    for (format, record, id_of) in IDS {
        let ids = written.each_ref().map(|id| {
            let [one, again] = [(); 2].map(|()| event(*format, record.replace('X', id)));
            assert_eq!(id_of(&one), id_of(&again), "{format} {id}");
            let broken = id.contains("u0000") || id.contains("ud800") || id.len() > 1_100;
            assert_eq!(unreadable(&one).is_empty(), !broken, "{format} {id}: {:?}", one.attrs);
            id_of(&one).unwrap_or_else(|| panic!("{format} {id}: no id"))
        });
        let different: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len(), "{format}: {ids:?}");
        assert!(ids.iter().all(|id| id.len() <= 1_024 && !id.contains('\0')), "{format}: {ids:?}");
        assert_eq!((ids[0].as_str(), ids[12].as_str()), ("ana", "42"), "{format}");
        assert!(ids[6].starts_with("ana\u{fffd}~"), "{format}: {}", ids[6]);
    }
}

#[test]
fn unreadable_tenant_is_not_the_unnamed_one() {
    for tenant in ["[]", "true", "1.5", r#""acme","tenant_id":"globex""#, r#"null,"tenant_id":"acme""#] {
        let event = with("tenant_id", tenant);
        assert_eq!(event.tenant_id.as_deref(), Some("\u{fffd}"), "{tenant}");
        assert!(unreadable(&event).starts_with("tenant_id: "), "{tenant}");
    }
    // The next source may name another tenant.
    let record = r#"{"eventID":"e1","eventTime":"2026-09-21T10:00:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","recipientAccountId":"2","userIdentity":{"type":"IAMUser","accessKeyId":"AKIA1","accountId":"1","accountId":"3"}}"#;
    let event = event(Format::Cloudtrail, record);
    assert_eq!(event.tenant_id.as_deref(), Some("\u{fffd}"));
    assert_eq!(unreadable(&event), "userIdentity.accountId: given twice");
}

/// The target and the cause of a revocation are read completely or not at all.
#[test]
fn family_and_binding_are_never_repaired() {
    for (field, id) in [
        ("family_id", r#""g\u0000""#),
        ("binding", r#""jkt:a\ud800""#),
        ("family_id", &format!("\"{}\"", "g".repeat(1_025))),
    ] {
        let event = with(field, id);
        assert_eq!((event.family_id.as_deref(), event.binding.as_deref()), (None, None), "{field}");
        assert!(unreadable(&event).starts_with(field), "{field}");
    }
    assert_eq!(with("family_id", "42").family_id.as_deref(), Some("42"));
}

#[test]
fn long_endpoints_stay_apart() {
    let of = |end: &str| with("endpoint", &format!("\"/v1/{}{end}\"", "a".repeat(3_000))).endpoint.expect("it is read");
    let (one, other) = (of("1"), of("2"));
    assert!(one != other && one == of("1"));
    assert!(one.starts_with("/v1/aaaa") && one.len() <= 2_048, "{one}");
    let broken = with("endpoint", r#""/v1/a\u0000/b""#);
    assert_eq!((broken.endpoint.as_deref(), unreadable(&broken).is_empty()), (Some("/v1/a\u{fffd}/b"), false));
}

/// A record without a token belongs to its principal, in any notation.
#[test]
fn unreadable_principal_is_no_skipped_record() {
    let record = r#"{"uuid":"e1","published":"2026-09-21T10:00:00Z","eventType":"user.account.x","actor":{"id":X,"type":"User"}}"#;
    for id in [r#""00u1\u0000""#.to_owned(), format!("\"{}\"", "0".repeat(300))] {
        let event = event(Format::Okta, record.replace('X', &id));
        assert!(event.token_id.as_str().contains('~'), "{:?}", event.token_id);
    }
}
