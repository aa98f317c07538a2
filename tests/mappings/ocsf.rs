//! OCSF records.

use super::*;

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
