//! Records of Elastic's integrations.

use super::*;

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
