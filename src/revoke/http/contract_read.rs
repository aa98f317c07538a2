//! The reads after a revocation: each preset's documented request, and documented answers of the vendor. The sources are in
//! the preset files.

use super::contract::{At, Provider, asked, revoker};
use super::*;

/// The read of one preset.
struct Read {
    /// `preset` and what it requires, beside `url`.
    keys: &'static str,
    /// Token, family, user and app of the incident.
    ids: [&'static str; 4],
    /// Status of the answer to the revocation, and its body.
    done: (u16, &'static str),
    line: &'static str,
    body: &'static str,
    /// Answers with the state that they show: `inactive`, `active` or `unknown`.
    states: &'static [(u16, &'static str, &'static str)],
    /// A token that stays active is no failure.
    is_eventual: bool,
}

const USER: &str = "auth0|ana";
const KEYS_OF_USER: &str = "<ListAccessKeysResponse><ListAccessKeysResult><UserName>ana</UserName><AccessKeyMetadata><member>\
     <UserName>ana</UserName><AccessKeyId>AKIAOTHER</AccessKeyId><Status>Active</Status></member>\n<member>\
     <UserName>ana</UserName>\n<AccessKeyId>AKIA1</AccessKeyId>\n<Status>Inactive</Status></member></AccessKeyMetadata>";
const KEY_IS_ACTIVE: &str = "<ListAccessKeysResponse><member><AccessKeyId>AKIAOTHER</AccessKeyId><Status>Inactive</Status>\
     </member><member><AccessKeyId>AKIA1</AccessKeyId><Status>Active</Status></member></ListAccessKeysResponse>";

const READS: &[Read] = &[
    Read {
        keys: "preset = 'auth0_grant'",
        ids: ["at", "cgr_1", USER, "app"],
        done: (204, ""),
        line: "GET /api/v2/grants?user_id=auth0%7Cana",
        body: "",
        states: &[
            (
                200,
                r#"[{"id":"cgr_1","clientID":"crm","user_id":"auth0|ana","audience":"x","scope":["read"]}]"#,
                "active",
            ),
            (
                200,
                r#"[{"id":"cgr_2","clientID":"cgr_1","user_id":"auth0|ana","audience":"x","scope":["cgr_1"]}]"#,
                "inactive",
            ),
            (200, "[]", "inactive"),
            (403, r#"{"statusCode":403,"error":"Forbidden","errorCode":"insufficient_scope"}"#, "unknown"),
        ],
        is_eventual: false,
    },
    Read {
        keys: "preset = 'auth0_refresh_token'",
        ids: ["at", "rt_1", USER, "app"],
        done: (202, ""),
        line: "GET /api/v2/refresh-tokens/rt_1",
        body: "",
        states: &[
            (404, r#"{"statusCode":404,"error":"Not Found"}"#, "inactive"),
            (200, r#"{"id":"rt_1","user_id":"auth0|ana"}"#, "active"),
        ],
        is_eventual: true,
    },
    Read {
        keys: "preset = 'auth0_sessions'\nradius = 'user'",
        ids: ["at", "g", USER, "app"],
        done: (202, ""),
        line: "GET /api/v2/users/auth0%7Cana/sessions",
        body: "",
        states: &[
            (200, r#"{"sessions":[]}"#, "inactive"),
            (200, r#"{"sessions":[{"id":"s-1","user_id":"auth0|ana"}],"next":"x"}"#, "active"),
            (404, r#"{"statusCode":404,"error":"Not Found"}"#, "unknown"),
        ],
        is_eventual: true,
    },
    Read {
        keys: "preset = 'aws_access_key'\nvalues = { account = '111122223333' }",
        ids: ["AKIA1", "", "arn:aws:iam::111122223333:user/ana", ""],
        done: (200, "<UpdateAccessKeyResponse/>"),
        line: "POST /",
        body: "Action=ListAccessKeys&UserName=ana&Version=2010-05-08",
        states: &[
            (200, KEYS_OF_USER, "inactive"),
            (200, KEY_IS_ACTIVE, "active"),
            (200, "<ListAccessKeysResponse/>", "unknown"),
            (404, "<ErrorResponse><Error><Code>NoSuchEntity</Code></Error></ErrorResponse>", "unknown"),
        ],
        is_eventual: true,
    },
    Read {
        keys: "preset = 'aws_role_sessions'\nradius = 'role'\nvalues = { account = '111122223333' }",
        ids: ["ASIA1", "arn:aws:iam::111122223333:role/deploy", "u", ""],
        done: (200, "<PutRolePolicyResponse/>"),
        line: "POST /",
        body: "Action=GetRolePolicy&PolicyName=AWSRevokeOlderSessions&RoleName=deploy&Version=2010-05-08",
        states: &[
            (
                200,
                "<GetRolePolicyResponse><PolicyDocument>%7B%22Condition%22%3A%7B%22DateLessThan%22%3A%7B%22\
                 aws%3ATokenIssueTime%22%3A%222026-11-26T10%3A00%3A00Z%22%7D%7D</PolicyDocument></GetRolePolicyResponse>",
                "inactive",
            ),
            (
                200,
                "<GetRolePolicyResponse><PolicyDocument>%7B%22aws%3ATokenIssueTime%22%3A%222026-11-25T10%3A00%3A00Z%22\
                 </PolicyDocument></GetRolePolicyResponse>",
                "active",
            ),
            (404, "<ErrorResponse><Error><Code>NoSuchEntity</Code></Error></ErrorResponse>", "unknown"),
        ],
        is_eventual: true,
    },
    Read {
        keys: "preset = 'entra_sessions'\nradius = 'user'",
        ids: ["at", "g", "ana@example.com", "app"],
        done: (200, r#"{"value":true}"#),
        line: "GET /v1.0/users/ana%40example.com?$select=signInSessionsValidFromDateTime",
        body: "",
        states: &[
            (200, r#"{"@odata.context":"x","signInSessionsValidFromDateTime":"2026-11-26T10:00:01Z"}"#, "inactive"),
            // The clocks differ by some seconds.
            (200, r#"{"signInSessionsValidFromDateTime":"2026-11-26T09:59:30Z"}"#, "inactive"),
            (200, r#"{"signInSessionsValidFromDateTime":"2026-11-20T10:00:00Z"}"#, "active"),
            (200, r#"{"signInSessionsValidFromDateTime":null}"#, "unknown"),
            (403, r#"{"error":{"code":"Authorization_RequestDenied"}}"#, "unknown"),
        ],
        is_eventual: true,
    },
    Read {
        keys: "preset = 'github_fine_grained'\nvalues = { org = 'acme' }",
        ids: ["25381", "", "ana", "app"],
        done: (204, ""),
        line: "GET /orgs/acme/personal-access-tokens?per_page=100",
        body: "",
        states: &[
            (200, "[]", "inactive"),
            (200, r#"[{"id":7,"token_id":25381,"owner":{"login":"ana","id":1}}]"#, "inactive"),
            (200, r#"[{"id":25381,"token_id":9,"owner":{"login":"ana","id":1}}]"#, "active"),
            (404, r#"{"message":"Not Found"}"#, "unknown"),
        ],
        is_eventual: false,
    },
    Read {
        keys: "preset = 'github_oauth_token'\nclient_id = 'Iv1.8a61'",
        ids: ["example\"value", "", "ana", "app"],
        done: (204, ""),
        line: "POST /applications/Iv1.8a61/token",
        body: r#"{"access_token":"example\"value"}"#,
        states: GITHUB_CHECK,
        is_eventual: false,
    },
    Read {
        keys: "preset = 'github_oauth_grant'\nclient_id = 'Iv1.8a61'\nradius = 'grant'",
        ids: ["example", "", "ana", "app"],
        done: (204, ""),
        line: "POST /applications/Iv1.8a61/token",
        body: r#"{"access_token":"example"}"#,
        states: GITHUB_CHECK,
        is_eventual: false,
    },
    Read {
        keys: "preset = 'gitlab_token'",
        ids: ["25", "", "ana", ""],
        done: (204, ""),
        line: "GET /api/v4/personal_access_tokens/25",
        body: "",
        states: &[
            (200, r#"{"id":25,"revoked":true,"active":false}"#, "inactive"),
            (200, r#"{"id":25,"revoked":false,"active":true}"#, "active"),
            (200, r#"{"message":"maintenance"}"#, "unknown"),
            (404, r#"{"message":"404 Personal Access Token Not Found"}"#, "unknown"),
        ],
        is_eventual: false,
    },
    Read {
        keys: "preset = 'google_workspace_token'\ntargets = ['family']",
        ids: ["at", "g", "ana@example.com", "1234.apps.googleusercontent.com"],
        done: (204, ""),
        line: "GET /admin/directory/v1/users/ana%40example.com/tokens/1234.apps.googleusercontent.com",
        body: "",
        states: &[
            (404, r#"{"error":{"code":404,"errors":[{"reason":"notFound"}]}}"#, "inactive"),
            (200, r#"{"clientId":"1234.apps.googleusercontent.com","scopes":["x"]}"#, "active"),
            (403, r#"{"error":{"code":403}}"#, "unknown"),
        ],
        is_eventual: false,
    },
    Read {
        keys: "preset = 'keycloak_consent'\nvalues = { realm = 'acme' }\ntargets = ['family']",
        ids: ["at", "s", "7b1e", "crm"],
        done: (204, ""),
        line: "GET /admin/realms/acme/users/7b1e/consents",
        body: "",
        states: &[
            (200, "[]", "inactive"),
            (200, r#"[{"clientId":"web","grantedClientScopes":["crm"],"additionalGrants":[]}]"#, "inactive"),
            (200, r#"[{"clientId":"crm","grantedClientScopes":["email"],"createdDate":1}]"#, "active"),
            (404, r#"{"error":"User not found"}"#, "unknown"),
        ],
        is_eventual: false,
    },
    Read {
        keys: "preset = 'keycloak_session'\nradius = 'session'\nvalues = { realm = 'acme' }",
        ids: ["at", "s-1", "7b1e", "crm"],
        done: (204, ""),
        line: "GET /admin/realms/acme/users/7b1e/sessions",
        body: "",
        states: &[
            (200, "[]", "inactive"),
            (200, r#"[{"id":"s-2","username":"s-1","clients":{"x":"s-1"}}]"#, "inactive"),
            (200, r#"[{"id":"s-1","username":"ana"}]"#, "active"),
            (404, r#"{"error":"User not found"}"#, "unknown"),
        ],
        is_eventual: false,
    },
    Read {
        keys: "preset = 'keycloak_user'\nradius = 'user'\nvalues = { realm = 'acme' }",
        ids: ["at", "s", "7b1e", "crm"],
        done: (204, ""),
        line: "GET /admin/realms/acme/users/7b1e/sessions",
        body: "",
        states: &[
            (200, "[]", "inactive"),
            (200, r#"[{"id":"s-1"}]"#, "active"),
            (403, r#"{"error":"HTTP 403 Forbidden"}"#, "unknown"),
        ],
        is_eventual: false,
    },
    Read {
        keys: "preset = 'okta_grant'",
        ids: ["at", "oag3", "00u1", "app"],
        done: (204, ""),
        line: "GET /api/v1/users/00u1/grants/oag3",
        body: "",
        states: &[
            (404, r#"{"errorCode":"E0000007"}"#, "inactive"),
            (200, r#"{"id":"oag3","status":"REVOKED"}"#, "inactive"),
            (200, r#"{"id":"oag3","status":"ACTIVE"}"#, "active"),
            (200, "<html>", "unknown"),
        ],
        is_eventual: false,
    },
];

/// Reads that docs/revocation.md shows for presets without one.
const CONFIGURED: &[Read] = &[
    Read {
        keys: "preset = 'by_id'\n[verify]\nmethod = 'GET'\npath = '/{id}'\ninactive = [404]",
        ids: ["at", "g-1", "ana", "app"],
        done: (204, ""),
        line: "GET /g-1",
        body: "",
        states: &[(404, "", "inactive"), (200, "{}", "active"), (405, "", "unknown")],
        is_eventual: false,
    },
    Read {
        keys: "preset = 'slack_sessions'\nradius = 'user'\n[verify]\nmethod = 'POST'\n\
               path = '/api/admin.users.session.list'\nform = { user_id = '{user_id}', team_id = 'T1' }\n\
               inactive_when = { pointer = '/active_sessions', equals = [] }",
        ids: ["at", "g-1", "W1", "app"],
        done: (200, r#"{"ok":true}"#),
        line: "POST /api/admin.users.session.list",
        body: "team_id=T1&user_id=W1",
        states: &[
            (200, r#"{"ok":true,"active_sessions":[],"response_metadata":{"next_cursor":""}}"#, "inactive"),
            (200, r#"{"ok":true,"active_sessions":[{"user_id":"W1","session_id":7}]}"#, "active"),
            (200, r#"{"ok":false,"error":"missing_scope"}"#, "unknown"),
        ],
        is_eventual: false,
    },
];

const GITHUB_CHECK: &[(u16, &str, &str)] = &[
    (404, r#"{"message":"Not Found","documentation_url":"https://docs.github.com/rest","status":"404"}"#, "inactive"),
    (200, r#"{"id":1,"token":"x","app":{"client_id":"Iv1.8a61"},"user":{"login":"ana"}}"#, "active"),
    // A gateway without this endpoint.
    (404, r#"{"message":"Not Found"}"#, "unknown"),
    (422, r#"{"message":"Validation Failed"}"#, "unknown"),
];

/// The time of [`At`], at which waits end at once.
struct WithoutWaits;

#[async_trait]
impl Clock for WithoutWaits {
    fn now_millis(&self) -> i64 {
        At.now_millis()
    }

    async fn sleep(&self, _: Duration) {}
}

/// A preset and its provider.
struct Reading<'a> {
    read: &'a Read,
    provider: Provider,
    revoker: HttpRevoker,
}

impl<'a> Reading<'a> {
    async fn start(read: &'a Read) -> Self {
        let (provider, url) = Provider::start().await;
        let keys = format!("url = '{url}'\nheaders = {{ Authorization = 'Example credential' }}\n{}", read.keys);
        let settings = toml::from_str(&keys).expect("settings");
        let revoker = HttpRevoker::new(&settings, Arc::new(WithoutWaits)).expect("a revoker");
        Self { read, provider, revoker }
    }

    /// The state that the revoker reads from one answer.
    async fn state(&self, status: u16, body: &str) -> &'static str {
        let Self { read, provider, revoker } = self;
        provider.forget_replies();
        provider.reply(read.done.0, read.done.1);
        for _ in READ_WAITS {
            provider.reply(status, body);
        }
        let family = Target::Family(read.ids[1].to_owned());
        let is_family = !read.ids[1].is_empty() && revoker.accepts(&family);
        let target = if is_family { family } else { Target::Token(read.ids[0].to_owned()) };
        let result = revoker.revoke(asked(&target, read.ids)).await;
        let seen = provider.take();
        assert!(seen.len() > 1, "{}: {result:?}", read.keys);
        assert_eq!((&*seen[1].line, &*seen[1].body), (read.line, read.body), "{}", read.keys);
        assert_eq!(seen[1].header("authorization"), "Example credential", "{}", read.keys);
        match (result, seen.len() - 1) {
            (Ok(Revoked::Done { confirmation, .. }), 1) if confirmation.verified_at.is_some() => "inactive",
            (Ok(Revoked::Done { confirmation, .. }), 1) if confirmation.verified_at.is_none() => "unknown",
            (Ok(Revoked::Done { confirmation, .. }), 3) if confirmation.verified_at.is_none() && read.is_eventual => {
                "active"
            }
            (Err(DeliveryError::Permanent { .. }), 3) if !read.is_eventual => "active",
            (other, reads) => panic!("{}: {status} {body}: {other:?} after {reads} reads", read.keys),
        }
    }
}

#[tokio::test]
async fn presets_read_the_documented_states() {
    for read in READS.iter().chain(CONFIGURED) {
        let reading = Reading::start(read).await;
        for (status, body, expected) in read.states {
            assert_eq!(reading.state(*status, body).await, *expected, "{}: {status} {body}", read.keys);
        }
    }
}

#[test]
fn every_preset_has_a_read_or_the_reason() {
    for preset in shipped::PRESETS {
        let (name, key) = (preset.name, format!("preset = '{}'", preset.name));
        let has_contract = READS.iter().any(|read| read.keys.lines().next() == Some(&key));
        let preset = Preset::parse(name, preset.text).expect(name);
        assert_eq!(preset.verify.is_some(), has_contract, "{name}");
        assert_eq!(preset.unverified.is_none(), has_contract, "{name} states why it is not verified");
    }
}

#[tokio::test]
async fn session_of_the_event_is_revoked() {
    let (provider, url) = Provider::start().await;
    let keycloak = revoker(&format!(
        "url = '{url}'\npreset = 'keycloak_session'\nradius = 'session'\nvalues = {{ realm = 'acme' }}"
    ));
    for target in [Target::Token("at".to_owned()), Target::Family("g-1".to_owned())] {
        assert!(keycloak.accepts(&target), "{target:?}");
        provider.reply(204, "");
        provider.reply(200, r#"[{"id":"g-1"}]"#);
        let family = if matches!(target, Target::Family(_)) { "g-1" } else { "" };
        let request = RevokeRequest { session_id: "s-1", ..asked(&target, ["at", family, "7b1e", "crm"]) };
        let Ok(Revoked::Done { confirmation, .. }) = keycloak.revoke(request).await else { panic!("it is done") };
        assert!(confirmation.verified_at.is_some(), "another session with the id of the grant is active");
        assert_eq!(provider.take()[0].line, "DELETE /admin/realms/acme/sessions/s-1");
    }
    // Without a session, the grant is the session, and a token without a grant has none.
    let target = Target::Token("at".to_owned());
    assert!(Revoker::check(&keycloak, &asked(&target, ["at", "", "7b1e", "crm"])).is_err());
}

#[tokio::test]
async fn full_page_does_not_show_the_state() {
    let read = READS.iter().find(|read| read.keys.contains("github_fine_grained")).expect("the preset");
    let reading = Reading::start(read).await;
    let page = |items: usize| {
        let items = (0..items).map(|id| format!(r#"{{"id":{id}}}"#)).collect::<Vec<_>>();
        format!("[{}]", items.join(","))
    };
    assert_eq!(reading.state(200, &page(99)).await, "inactive");
    assert_eq!(reading.state(200, &page(100)).await, "unknown");
}
