//! CloudTrail records.

use super::*;

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
