//! Events of single records of each format: one line per event with all fields that the mapping sets.

mod cloudtrail;
mod ecs;
mod ocsf;

use std::fmt::Write as _;

use tokenwarden::event::{Concerns, Event};
use tokenwarden::format::Format;
use tokenwarden::token::{TokenHasher, TokenId};
use tokenwarden::wire::{Decoded, Decoder};

/// One line per event in `record`, or the reason if there is none.
fn shown(format: Format, record: &str) -> Vec<String> {
    let mut shown = Vec::new();
    Decoder::new(format, TokenHasher::new(b"a key for tests")).decode(record.as_bytes(), &mut |decoded| {
        shown.push(match decoded {
            Ok(Decoded::Event(event)) => line(&event),
            Ok(Decoded::Skipped(reason)) => format!("skipped: {reason}"),
            Err(error) => format!("dead: {}", error.cause()),
        });
    });
    shown
}

fn line(event: &Event<'_>) -> String {
    let mut line = format!("{} {} {}", event.kind.as_str(), event.token_id.as_str(), event.token_type.as_str());
    let facts = event.facts.as_deref();
    for (name, value) in [
        ("user", event.user_id.as_deref()),
        ("app", event.app_id.as_deref()),
        ("tenant", event.tenant_id.as_deref()),
        ("family", event.family_id.as_deref()),
        ("session", event.session_id.as_deref()),
        ("parent", event.parent_token_id.as_ref().map(TokenId::as_str)),
        ("alias", facts.and_then(|facts| facts.alias.as_ref()).map(TokenId::as_str)),
        ("realm", facts.and_then(|facts| facts.realm.as_deref())),
        ("role", facts.and_then(|facts| facts.role.as_deref())),
        ("alive", facts.and_then(|facts| facts.reinstated_user.as_deref().or(facts.reinstated_role.as_deref()))),
    ] {
        if let Some(value) = value {
            let _ = write!(line, " {name}={value}");
        }
    }
    if let Some(address) = event.address {
        let _ = write!(line, " from={address}");
    }
    if let Some(status) = event.status {
        let _ = write!(line, " {status}");
    }
    let all = match facts.map(|facts| facts.concerns) {
        Some(Concerns::User) => " (all of the user)",
        Some(Concerns::App) => " (all of the application)",
        Some(Concerns::Role) => " (all of the role)",
        _ => "",
    };
    line + all
}

/// Compares the events of each record with the expected lines.
fn hold(format: Format, cases: &[(&str, String, &[&str])]) {
    let mut wrong = String::new();
    for (name, record, expected) in cases {
        let found = shown(format, record);
        if found != *expected {
            let _ = writeln!(wrong, "{name}: {record}\n  is       {found:#?}\n  should be {expected:#?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A GitHub record.
fn github(members: &str) -> String {
    format!(
        r#"{{"@timestamp":1790000000000,"_document_id":"d","business_id":5,"org_id":77,"actor_ip":"192.0.2.7",{members}}}"#
    )
}

#[test]
fn github_application_is_no_user() {
    hold(
        Format::Github,
        &[
            (
                "a bot by its mark",
                github(
                    r#""action":"git.push","actor":"renovate","actor_id":29,"actor_is_bot":true,"hashed_token":"h","programmatic_access_type":"GitHub App server-to-server token""#,
                ),
                &["use h access app=29 tenant=5 realm=77 from=192.0.2.7 200"],
            ),
            (
                "a bot by its name",
                github(r#""action":"git.push","actor":"dependabot[bot]","actor_id":49,"hashed_token":"h""#),
                &["use h other app=49 tenant=5 realm=77 from=192.0.2.7 200"],
            ),
            (
                "an application for a user",
                github(
                    r#""action":"git.push","actor":"ana","actor_id":7,"actor_is_bot":false,"hashed_token":"h","programmatic_access_type":"GitHub App user-to-server token","application_client_id":"Iv1.a""#,
                ),
                &["use h access user=7 app=Iv1.a tenant=5 realm=77 from=192.0.2.7 200"],
            ),
            (
                "a deploy key",
                github(
                    r#""action":"git.clone","actor":"ana","actor_id":7,"hashed_token":"h","programmatic_access_type":"Deploy key""#,
                ),
                &["use h api_key user=7 tenant=5 realm=77 from=192.0.2.7 200"],
            ),
            (
                "an SSH key",
                github(
                    r#""action":"git.clone","actor":"ana","actor_id":7,"hashed_token":"h","programmatic_access_type":"SSH Key""#,
                ),
                &["use h api_key user=7 tenant=5 realm=77 from=192.0.2.7 200"],
            ),
            (
                "a key's record without its hash",
                github(r#""action":"public_key.delete","actor":"ana","actor_id":7,"fingerprint":"SHA256:x""#),
                &["use 7 other user=7 tenant=5 realm=77 from=192.0.2.7 200"],
            ),
        ],
    );
}

/// An Okta record.
fn okta(event_type: &str, actor: &str, more: &str) -> String {
    format!(
        r#"{{"uuid":"u","published":"2026-09-21T10:00:00.000Z","eventType":"{event_type}","legacyEventType":"core.x","actor":{actor},"outcome":{{"result":"SUCCESS"}},"client":{{"ipAddress":"192.0.2.7"}}{more}}}"#
    )
}

#[test]
fn okta_ends_sessions_by_universal_logout() {
    let admin = r#"{"id":"00uADMIN","type":"User"}"#;
    let target = r#","authenticationContext":{"externalSessionId":"idxA"},"target":[{"id":"00uVICTIM","type":"User"}]"#;
    hold(
        Format::Okta,
        &[
            (
                "of another user",
                okta("user.authentication.universal_logout", admin, target),
                &[
                    "use idxA session user=00uADMIN session=idxA from=192.0.2.7 200",
                    "session_ended 00uVICTIM other user=00uVICTIM from=192.0.2.7 200 (all of the user)",
                ],
            ),
            (
                "by the system",
                okta(
                    "user.authentication.universal_logout",
                    r#"{"id":"00oSYS","type":"SystemPrincipal"}"#,
                    r#","target":[{"id":"00uVICTIM","type":"User"}]"#,
                ),
                &["session_ended 00uVICTIM other user=00uVICTIM from=192.0.2.7 200 (all of the user)"],
            ),
        ],
    );
}

#[test]
fn okta_token_id_stays_as_sent() {
    let record = okta(
        "user.lifecycle.create",
        r#"{"id":"00uSVC","type":"User"}"#,
        r#","transaction":{"type":"WEB","id":"W","detail":{"requestApiTokenId":"00T4k7b8c9d0e1f2g3h4"}}"#,
    );
    hold(
        Format::Okta,
        &[("an API token", record, &["use 00T4k7b8c9d0e1f2g3h4 api_key user=00uSVC from=192.0.2.7 200"])],
    );
}
