//! Events of single records of each format: one line per event with all fields that the mapping sets.

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

/// A CloudTrail record.
fn cloudtrail(source: &str, name: &str, identity: &str, more: &str) -> String {
    format!(
        r#"{{"eventVersion":"1.11","eventID":"e","eventTime":"2026-09-21T10:00:00Z","eventType":"AwsApiCall","eventSource":"{source}.amazonaws.com","eventName":"{name}","sourceIPAddress":"192.0.2.7","userIdentity":{identity}{more}}}"#
    )
}

const ADMIN: &str = r#"{"type":"IAMUser","principalId":"AIDAADMIN","arn":"arn:aws:iam::111122223333:user/admin","accountId":"111122223333","accessKeyId":"AKIAADMIN","userName":"admin"}"#;

/// A session of a role.
fn session(name: &str, more: &str) -> String {
    format!(
        r#"{{"type":"AssumedRole","principalId":"AROAROLE:{name}","arn":"arn:aws:sts::111122223333:assumed-role/Export/{name}","accountId":"111122223333","accessKeyId":"ASIAROLE","sessionContext":{{"sessionIssuer":{{"type":"Role","principalId":"AROAROLE","arn":"arn:aws:iam::111122223333:role/jobs/Export","accountId":"111122223333","userName":"Export"}}}}{more}}}"#
    )
}

#[test]
fn cloudtrail_session_has_its_user() {
    use Format::Cloudtrail;
    let call = |identity: &str| cloudtrail("s3", "ListBuckets", identity, "");
    let person =
        r#","onBehalfOf":{"userId":"94482488-1111","identityStoreArn":"arn:aws:identitystore::1:identitystore/d-1"}"#;
    hold(
        Cloudtrail,
        &[
            (
                "a name that a person chose",
                call(&session("ana@example.com", person)),
                &[
                    "use ASIAROLE session user=arn:aws:sts::111122223333:assumed-role/Export/ana@example.com tenant=111122223333 family=arn:aws:iam::111122223333:role/jobs/Export/ana@example.com session=AROAROLE:ana@example.com role=111122223333/Export from=192.0.2.7 200",
                ],
            ),
            (
                "a name that a program made",
                call(&session("botocore-session-1790028800", "")),
                &[
                    "use ASIAROLE session user=arn:aws:iam::111122223333:role/jobs/Export tenant=111122223333 family=arn:aws:iam::111122223333:role/jobs/Export session=AROAROLE:botocore-session-1790028800 role=111122223333/Export from=192.0.2.7 200",
                ],
            ),
            (
                "a person behind a name that a program made",
                call(&session("botocore-session-1790028800", person)),
                &[
                    "use ASIAROLE session user=94482488-1111 tenant=111122223333 family=arn:aws:iam::111122223333:role/jobs/Export/94482488-1111 session=AROAROLE:botocore-session-1790028800 role=111122223333/Export from=192.0.2.7 200",
                ],
            ),
            (
                "an execution of a state machine",
                call(&session(
                    "RFXrVnPMKcIAkRlZUeIKvXILiVXHYLyD",
                    r#","inScopeOf":{"issuerType":"AWS::Lambda::Function","credentialsIssuedTo":"arn:aws:lambda:x"}"#,
                )),
                &[
                    "use ASIAROLE session user=arn:aws:iam::111122223333:role/jobs/Export tenant=111122223333 family=arn:aws:iam::111122223333:role/jobs/Export session=AROAROLE:RFXrVnPMKcIAkRlZUeIKvXILiVXHYLyD role=111122223333/Export from=192.0.2.7 200",
                ],
            ),
        ],
    );
}

#[test]
fn cloudtrail_revokes_the_sessions_of_a_role() {
    use Format::Cloudtrail;
    let iam = |name: &str, more: &str| cloudtrail("iam", name, ADMIN, &format!(r#","requestParameters":{{{more}}}"#));
    let used = "use AKIAADMIN api_key user=arn:aws:iam::111122223333:user/admin tenant=111122223333 session=AIDAADMIN from=192.0.2.7 200";
    let revoked = "revoked arn:aws:iam::111122223333:role/Export session tenant=111122223333 role=111122223333/Export from=192.0.2.7 200 (all of the role)";
    hold(
        Cloudtrail,
        &[
            (
                "the policy by which the console does it",
                iam(
                    "PutRolePolicy",
                    r#""roleName":"Export","policyName":"AWSRevokeOlderSessions","policyDocument":"{}""#,
                ),
                &[used, revoked],
            ),
            (
                "another policy",
                iam("PutRolePolicy", r#""roleName":"Export","policyName":"Read","policyDocument":"{}""#),
                &[used],
            ),
            ("the role itself", iam("DeleteRole", r#""roleName":"Export""#), &[used, revoked]),
            (
                "the policy's end",
                iam("DeleteRolePolicy", r#""roleName":"Export","policyName":"AWSRevokeOlderSessions""#),
                &[
                    "use AKIAADMIN api_key user=arn:aws:iam::111122223333:user/admin tenant=111122223333 session=AIDAADMIN alive=111122223333/Export from=192.0.2.7 200",
                ],
            ),
            (
                "a call that failed",
                cloudtrail(
                    "iam",
                    "DeleteRole",
                    ADMIN,
                    r#","errorCode":"AccessDenied","requestParameters":{"roleName":"Export"}"#,
                ),
                &[
                    "use AKIAADMIN api_key user=arn:aws:iam::111122223333:user/admin tenant=111122223333 session=AIDAADMIN from=192.0.2.7 403",
                ],
            ),
        ],
    );
}

#[test]
fn cloudtrail_issues_keys_for_certificates() {
    use Format::Cloudtrail;
    let answer = r#","recipientAccountId":"111122223333","requestParameters":{"roleArn":"arn:aws:iam::111122223333:role/Export","profileArn":"p","trustAnchorArn":"t","cert":"MII"},"responseElements":{"subjectArn":"arn:aws:rolesanywhere:eu-central-1:111122223333:subject/s","credentialSet":[{"assumedRoleUser":{"arn":"arn:aws:sts::111122223333:assumed-role/Export/NAME","assumedRoleId":"AROAROLE:NAME"},"credentials":{"accessKeyId":"ASIANEW","expiration":"2026-09-21T11:00:00Z","sessionToken":"HIDDEN_DUE_TO_SECURITY_REASONS"},"roleArn":"arn:aws:iam::111122223333:role/Export","sourceIdentity":"CN=host-1"}]}"#;
    let serial = "2a9902119721ab7b5c19a878c4c66af705895b42";
    for identity in [
        r#"{"type":"AWSService","invokedBy":"rolesanywhere.amazonaws.com"}"#,
        r#"{"type":"Unknown","accountId":"111122223333"}"#,
    ] {
        let call = |name: &str| cloudtrail("rolesanywhere", "CreateSession", identity, &answer.replace("NAME", name));
        let by_role = format!(
            "issued ASIANEW session user=arn:aws:iam::111122223333:role/Export tenant=111122223333 family=arn:aws:iam::111122223333:role/Export session=AROAROLE:{serial} from=192.0.2.7 200"
        );
        hold(
            Cloudtrail,
            &[
                ("a certificate's number", call(serial), &[&by_role]),
                (
                    "a name",
                    call("billing"),
                    &[
                        "issued ASIANEW session user=arn:aws:sts::111122223333:assumed-role/Export/billing tenant=111122223333 family=arn:aws:iam::111122223333:role/Export/billing session=AROAROLE:billing from=192.0.2.7 200",
                    ],
                ),
            ],
        );
    }
}

#[test]
fn cloudtrail_ssh_key_and_root_are_life_cycle() {
    use Format::Cloudtrail;
    let used = "use AKIAADMIN api_key user=arn:aws:iam::111122223333:user/admin tenant=111122223333 session=AIDAADMIN from=192.0.2.7 200";
    let root = r#"{"type":"Root","principalId":"111122223333","arn":"arn:aws:iam::111122223333:root","accountId":"111122223333","accessKeyId":""}"#;
    hold(
        Cloudtrail,
        &[
            (
                "an SSH key",
                cloudtrail(
                    "iam",
                    "UploadSSHPublicKey",
                    ADMIN,
                    r#","requestParameters":{"userName":"dev"},"responseElements":{"sSHPublicKey":{"sSHPublicKeyId":"APKA1","userName":"dev"}}"#,
                ),
                &[
                    used,
                    "issued APKA1 api_key user=arn:aws:iam::111122223333:user/dev tenant=111122223333 from=192.0.2.7 200",
                ],
            ),
            (
                "an SSH key's end",
                cloudtrail(
                    "iam",
                    "DeleteSSHPublicKey",
                    ADMIN,
                    r#","requestParameters":{"userName":"dev","sSHPublicKeyId":"APKA1"}"#,
                ),
                &[
                    used,
                    "revoked APKA1 api_key user=arn:aws:iam::111122223333:user/dev tenant=111122223333 from=192.0.2.7 200",
                ],
            ),
            (
                "the root user's password",
                cloudtrail("signin", "PasswordUpdated", root, ""),
                &[
                    "credential_changed arn:aws:iam::111122223333:root other user=arn:aws:iam::111122223333:root tenant=111122223333 from=192.0.2.7 200",
                ],
            ),
        ],
    );
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

/// A record of Elastic's Okta integration.
fn ecs_okta(event_type: &str, actor_type: &str, more: &str) -> String {
    format!(
        r#"{{"@timestamp":"2026-09-21T10:00:00Z","event":{{"id":"e","action":"{event_type}","category":["authentication"],"outcome":"success","dataset":"okta.system"}},"okta":{{"event_type":"{event_type}","actor":{{"id":"ACTOR","type":"{actor_type}"}}{more}}},"user":{{"id":"ACTOR"}},"source":{{"ip":"192.0.2.7"}}}}"#
    )
}

#[test]
fn ecs_of_okta_equals_okta() {
    hold(
        Format::Ecs,
        &[
            (
                "an application",
                ecs_okta(
                    "app.oauth2.token.introspect",
                    "PublicClientApp",
                    r#","authentication_context":{"external_session_id":"trs1"}"#,
                ),
                &["use trs1 session app=ACTOR session=trs1 from=192.0.2.7 200"],
            ),
            (
                "a session",
                ecs_okta(
                    "policy.evaluate_sign_on",
                    "User",
                    r#","authentication_context":{"external_session_id":"idx1","root_session_id":"root1"}"#,
                ),
                &["use idx1 session user=ACTOR family=root1 session=idx1 from=192.0.2.7 200"],
            ),
            (
                "all tokens of a user",
                ecs_okta("app.oauth2.token.revoke.implicit.user", "User", r#","target":[{"id":"00uV","type":"User"}]"#),
                &["revoked 00uV refresh user=00uV from=192.0.2.7 200 (all of the user)"],
            ),
            (
                "all tokens of an application",
                ecs_okta(
                    "app.oauth2.client.lifecycle.delete",
                    "User",
                    r#","target":[{"id":"0oaAPP","type":"PublicClientApp"}]"#,
                ),
                &["revoked 0oaAPP refresh app=0oaAPP from=192.0.2.7 200 (all of the application)"],
            ),
            (
                "a token",
                ecs_okta(
                    "app.oauth2.as.token.revoke",
                    "User",
                    r#","target":[{"id":"oar1","type":"refresh_token"},{"id":"00uV","type":"User"}]"#,
                ),
                &["revoked oar1 refresh user=00uV from=192.0.2.7 200"],
            ),
            (
                "an unsuspended user",
                ecs_okta("user.lifecycle.unsuspend", "User", r#","target":[{"id":"00uV","type":"User"}]"#),
                &["use ACTOR other user=ACTOR alive=00uV from=192.0.2.7 200"],
            ),
        ],
    );
}

#[test]
fn ecs_names_may_have_dots() {
    let nested = ecs_okta("user.session.start", "User", r#","authentication_context":{"external_session_id":"idx1"}"#);
    let dotted = r#"{"@timestamp":"2026-09-21T10:00:00Z","event.id":"e","event.action":"user.session.start","event.category":["authentication"],"event.outcome":"success","event.dataset":"okta.system","okta.event_type":"user.session.start","okta.actor.id":"ACTOR","okta.actor":{"type":"User"},"okta.authentication_context.external_session_id":"idx1","user.id":"ACTOR","source":{"ip":"192.0.2.7"}}"#;
    assert_eq!(shown(Format::Ecs, dotted), shown(Format::Ecs, &nested));
    assert_eq!(shown(Format::Ecs, &nested), ["use idx1 session user=ACTOR session=idx1 from=192.0.2.7 200"]);
}

#[test]
fn ecs_of_github_equals_github() {
    let record = |action: &str, user: &str, more: &str| {
        format!(
            r#"{{"@timestamp":"2026-09-21T10:00:00Z","event":{{"id":"e","action":"{action}","category":["configuration"],"dataset":"github.audit"}},"github":{{"org_id":"77"{more}}},"user":{user},"source":{{"ip":"192.0.2.7"}}}}"#
        )
    };
    let ana = r#"{"id":"7","name":"ana"}"#;
    hold(
        Format::Ecs,
        &[
            (
                "a bot",
                record(
                    "git.push",
                    r#"{"id":"29","name":"renovate[bot]"}"#,
                    r#","hashed_token":"h","programmatic_access_type":"GitHub App server-to-server token""#,
                ),
                &["use h access app=29 realm=77 from=192.0.2.7 200"],
            ),
            (
                "a suspended user",
                record("user.suspend", ana, r#","user_id":"8""#),
                &["revoked 8 other user=8 from=192.0.2.7 200 (all of the user)"],
            ),
            (
                "the sessions of a user",
                record("org.revoke_sso_session", ana, r#","user_id":"8""#),
                &["session_ended 8 other user=8 from=192.0.2.7 200 (all of the user)"],
            ),
            (
                "an unsuspended user",
                record("user.unsuspend", ana, r#","user_id":"8""#),
                &["use 7 other user=7 realm=77 alive=8 from=192.0.2.7 200"],
            ),
        ],
    );
}

/// An OCSF record of a class.
fn ocsf(class: u32, activity: u32, members: &str) -> String {
    format!(
        r#"{{"class_uid":{class},"category_uid":{},"activity_id":{activity},"type_uid":{},"time":1790000000000,"status_id":1,"src_endpoint":{{"ip":"192.0.2.7"}},{members}}}"#,
        class / 1000,
        class * 100 + activity
    )
}

#[test]
fn ocsf_of_okta_equals_okta() {
    let target = r#""unmapped":{"target":[{"id":"oar1","type":"refresh_token"},{"id":"AT.1","type":"access_token"},{"id":"00uV","type":"User"}]}"#;
    let of = |code: &str, more: &str| {
        ocsf(
            6003,
            99,
            &format!(r#""metadata":{{"uid":"m","event_code":"{code}"}},"actor":{{"user":{{"uid":"00uA"}}}},{more}"#),
        )
    };
    hold(
        Format::Ocsf,
        &[
            (
                "tokens that are revoked",
                of("app.oauth2.as.token.revoke", target),
                &[
                    "revoked AT.1 access user=00uV from=192.0.2.7 200",
                    "revoked oar1 refresh user=00uV from=192.0.2.7 200",
                ],
            ),
            (
                "all tokens of a user",
                of("app.oauth2.as.consent.revoke.user", target),
                &["revoked 00uV refresh user=00uV from=192.0.2.7 200 (all of the user)"],
            ),
            (
                "a deactivated user",
                of("user.lifecycle.deactivate", r#""user":{"uid":"00uV"}"#),
                &["revoked 00uV other user=00uV from=192.0.2.7 200 (all of the user)"],
            ),
            (
                "an unsuspended user",
                of("user.lifecycle.unsuspend", r#""user":{"uid":"00uV"}"#),
                &["use 00uA other user=00uA alive=00uV from=192.0.2.7 200"],
            ),
        ],
    );
}

#[test]
fn ocsf_versions_give_the_same_events() {
    let resources = r#""resources":[{"uid":"arn:aws:s3:::b","type":"AWS::S3::Bucket"},{"uid":"2"}]"#;
    hold(
        Format::Ocsf,
        &[
            (
                "1.1",
                ocsf(
                    6003,
                    2,
                    &format!(
                        r#""metadata":{{"uid":"m","version":"1.1.0"}},"api":{{"operation":"ListBuckets"}},"actor":{{"user":{{"uid":"AIDA1","credential_uid":"AKIA1","account":{{"uid":"111122223333"}}}}}},{resources}"#
                    ),
                ),
                &["use AKIA1 api_key user=AIDA1 tenant=111122223333 from=192.0.2.7 200"],
            ),
            (
                "1.5",
                ocsf(
                    6003,
                    2,
                    &format!(
                        r#""metadata":{{"original_event_uid":"m","version":"1.5.0"}},"api":{{"operation":"ListBuckets"}},"actor":{{"user":{{"uid":"AIDA1","programmatic_credentials":[{{"uid":"AKIA1"}}],"account":{{"uid":"111122223333"}}}}}},{resources}"#
                    ),
                ),
                &["use AKIA1 api_key user=AIDA1 tenant=111122223333 from=192.0.2.7 200"],
            ),
            (
                "a person by name alone",
                ocsf(3002, 1, r#""metadata":{"uid":"m"},"user":{"name":"ana@example.com"}"#),
                &["use ana@example.com other user=ana@example.com from=192.0.2.7 200"],
            ),
            (
                "a machine by name alone",
                ocsf(3002, 1, r#""metadata":{"uid":"m"},"user":{"name":"HOST-1$"}"#),
                &["skipped: no token and no principal"],
            ),
        ],
    );
}
