//! Documented requests and answers of the vendors, for the contract tests. The sources are in the preset files.

/// The contract of one preset.
pub(super) struct Contract {
    /// `preset` and what it requires, beside `url` and the credential.
    pub(super) keys: &'static str,
    /// Token, family, user and app of the incident.
    pub(super) ids: [&'static str; 4],
    /// Method, path and query of the request.
    pub(super) line: &'static str,
    pub(super) headers: &'static [(&'static str, &'static str)],
    pub(super) body: &'static str,
    /// Documented answers with their outcomes.
    pub(super) answers: &'static [(u16, &'static str, &'static str)],
    /// The answer for a token that is already gone, if the vendor documents one that is clear.
    pub(super) gone: Option<(u16, &'static str)>,
}

pub(super) const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
pub(super) const JSON: (&str, &str) = ("content-type", "application/json");
const ACCEPT_JSON: (&str, &str) = ("accept", "application/json");
const GITHUB: [(&str, &str); 3] =
    [JSON, ("accept", "application/vnd.github+json"), ("x-github-api-version", "2022-11-28")];
const IDS: [&str; 4] = ["tok/1", "grant 2", "auth0|ana", "app&3"];

pub(super) const CONTRACTS: &[Contract] = &[
    Contract {
        keys: "preset = 'rfc7009'",
        ids: IDS,
        line: "POST /",
        headers: &[FORM],
        body: "token=grant+2&token_type_hint=refresh_token",
        answers: &[
            (200, "", "done"),
            (400, r#"{"error":"unsupported_token_type"}"#, "refused"),
            (400, r#"{"error":"invalid_client"}"#, "refused"),
        ],
        gone: None,
    },
    Contract {
        keys: "preset = 'by_id'",
        ids: IDS,
        line: "DELETE /grant%202",
        headers: &[],
        body: "",
        answers: &[(200, "", "done"), (204, "", "done"), (410, "", "gone")],
        gone: Some((404, "")),
    },
    Contract {
        keys: "preset = 'google'\nradius = 'grant'",
        ids: IDS,
        line: "POST /",
        headers: &[FORM],
        body: "token=grant+2",
        answers: &[
            (200, "{}", "done"),
            (400, r#"{"error":"invalid_request"}"#, "refused"),
            (400, r#"{"error":"invalid_token","error_description":"Token expired or revoked"}"#, "refused"),
        ],
        gone: None,
    },
    Contract {
        keys: "preset = 'slack'",
        ids: IDS,
        line: "POST /",
        headers: &[FORM],
        body: "token=grant+2",
        answers: &[
            (200, r#"{"ok":true,"revoked":true}"#, "done"),
            (200, r#"{"ok":false,"error":"invalid_auth"}"#, "refused"),
            (200, r#"{"ok":false,"error":"internal_error"}"#, "retry"),
            (200, "<html>", "refused"),
        ],
        gone: Some((200, r#"{"ok":false,"error":"token_revoked"}"#)),
    },
    Contract {
        keys: "preset = 'twitch'\nclient_id = 'a&b'",
        ids: IDS,
        line: "POST /",
        headers: &[FORM],
        body: "client_id=a%26b&token=grant+2",
        answers: &[
            (200, "", "done"),
            (404, r#"{"status":404,"message":"client does not exist"}"#, "refused"),
            (400, r#"{"status":400,"message":"Invalid token"}"#, "refused"),
        ],
        gone: None,
    },
    Contract {
        keys: "preset = 'global_token_revocation'\nradius = 'user'\nvalues = { issuer = 'https://id.example/' }",
        ids: IDS,
        line: "POST /",
        headers: &[JSON],
        body: r#"{"sub_id":{"format":"iss_sub","iss":"https://id.example/","sub":"auth0|ana"}}"#,
        answers: &[(204, "", "done"), (400, "", "refused"), (404, "", "refused"), (422, "", "refused")],
        gone: None,
    },
    Contract {
        keys: "preset = 'okta_grant'",
        ids: ["at1", "oag3ih1zrm1cBFOiq0h6", "00ub0oNGTSWTBKOLGLNR", "app"],
        line: "DELETE /api/v1/users/00ub0oNGTSWTBKOLGLNR/grants/oag3ih1zrm1cBFOiq0h6",
        headers: &[ACCEPT_JSON],
        body: "",
        answers: &[(204, "", "done"), (404, "<html>", "refused"), (200, "<html>", "refused")],
        gone: Some((
            404,
            r#"{"errorCode":"E0000007","errorSummary":"Not found: Resource not found: oag3 (OAuth2ScopeConsentGrant)"}"#,
        )),
    },
    Contract {
        keys: "preset = 'okta_sessions'\nradius = 'user'",
        ids: IDS,
        line: "DELETE /api/v1/users/auth0%7Cana/sessions?oauthTokens=true",
        headers: &[ACCEPT_JSON],
        body: "",
        answers: &[
            (204, "", "done"),
            (404, "<html>", "refused"),
            (404, r#"{"errorCode":"E0000007","errorSummary":"Not found: Resource not found: x (User)"}"#, "refused"),
        ],
        gone: None,
    },
    Contract {
        keys: "preset = 'okta_universal_logout'\nradius = 'user'",
        ids: ["at1", "g", "00u1dnq5S0CfjlkpABCD", "app"],
        line: "POST /oauth2/v1/global-token-revocation",
        headers: &[JSON, ACCEPT_JSON],
        body: r#"{"sub_id":{"format":"opaque","id":"00u1dnq5S0CfjlkpABCD"}}"#,
        answers: &[
            (204, "", "done"),
            (400, r#"{"errorCode":"E0000001"}"#, "refused"),
            (404, r#"{"errorCode":"E0000007","errorSummary":"Not found"}"#, "refused"),
        ],
        gone: None,
    },
    Contract {
        keys: "preset = 'auth0_grant'",
        ids: ["at1", "cgr_1", "auth0|ana", "app"],
        line: "DELETE /api/v2/grants/cgr_1",
        headers: &[],
        body: "",
        answers: &[
            (204, "", "done"),
            (200, "<html>", "refused"),
            (404, r#"{"statusCode":404,"error":"Not Found"}"#, "refused"),
        ],
        gone: None,
    },
    Contract {
        keys: "preset = 'auth0_refresh_token'",
        ids: ["at1", "rt_1", "auth0|ana", "app"],
        line: "DELETE /api/v2/refresh-tokens/rt_1",
        headers: &[],
        body: "",
        answers: &[
            (202, "", "done"),
            (200, "<html>", "refused"),
            (404, r#"{"statusCode":404,"error":"Not Found"}"#, "refused"),
        ],
        gone: None,
    },
    Contract {
        keys: "preset = 'auth0_sessions'\nradius = 'user'",
        ids: IDS,
        line: "DELETE /api/v2/users/auth0%7Cana/sessions",
        headers: &[],
        body: "",
        answers: &[
            (202, "", "done"),
            (200, "<html>", "refused"),
            (404, r#"{"statusCode":404,"error":"Not Found"}"#, "refused"),
        ],
        gone: None,
    },
    Contract {
        keys: "preset = 'keycloak_session'\nradius = 'session'\nvalues = { realm = 'a/b' }",
        ids: IDS,
        line: "DELETE /admin/realms/a%2Fb/sessions/grant%202",
        headers: &[],
        body: "",
        answers: &[(204, "", "done"), (404, r#"{"error":"Realm not found."}"#, "refused"), (200, "<html>", "refused")],
        gone: Some((404, r#"{"error":"Sesssion not found"}"#)),
    },
    Contract {
        keys: "preset = 'keycloak_user'\nradius = 'user'\nvalues = { realm = 'acme' }",
        ids: ["at1", "s", "7b1e", "app"],
        line: "POST /admin/realms/acme/users/7b1e/logout",
        headers: &[],
        body: "",
        answers: &[
            (204, "", "done"),
            (404, r#"{"error":"Realm not found."}"#, "refused"),
            (404, r#"{"error":"User not found"}"#, "refused"),
        ],
        gone: None,
    },
    Contract {
        keys: "preset = 'keycloak_consent'\nvalues = { realm = 'acme' }\ntargets = ['family']",
        ids: ["at1", "s", "7b1e", "crm/web"],
        line: "DELETE /admin/realms/acme/users/7b1e/consents/crm%2Fweb",
        headers: &[],
        body: "",
        answers: &[(204, "", "done"), (404, r#"{"error":"User not found"}"#, "refused")],
        gone: Some((404, r#"{"error":"Consent nor offline token not found"}"#)),
    },
    Contract {
        keys: "preset = 'entra_sessions'\nradius = 'user'",
        ids: ["at1", "g", "ana@example.com", "app"],
        line: "POST /v1.0/users/ana%40example.com/revokeSignInSessions",
        headers: &[],
        body: "",
        answers: &[
            (200, r#"{"@odata.context":"x","value":true}"#, "done"),
            (204, "", "done"),
            (200, r#"{"value":false}"#, "refused"),
            (
                404,
                r#"{"error":{"code":"Request_ResourceNotFound","message":"Resource 'x' does not exist"}}"#,
                "refused",
            ),
        ],
        gone: None,
    },
    Contract {
        keys: "preset = 'google_workspace_token'\ntargets = ['family']",
        ids: ["at1", "g", "ana@example.com", "1234.apps.googleusercontent.com"],
        line: "DELETE /admin/directory/v1/users/ana%40example.com/tokens/1234.apps.googleusercontent.com",
        headers: &[],
        body: "",
        answers: &[
            (204, "", "done"),
            (200, "", "done"),
            (403, r#"{"error":{"code":403,"errors":[{"reason":"userRateLimitExceeded"}]}}"#, "retry"),
            (403, r#"{"error":{"code":403,"errors":[{"reason":"forbidden"}]}}"#, "refused"),
            (404, r#"{"error":{"code":404,"errors":[{"domain":"global","reason":"notFound"}]}}"#, "refused"),
        ],
        gone: None,
    },
    Contract {
        keys: "preset = 'google_workspace_sign_out'\nradius = 'user'",
        ids: ["at1", "g", "ana@example.com", "app"],
        line: "POST /admin/directory/v1/users/ana%40example.com/signOut",
        headers: &[],
        body: "",
        answers: &[(204, "", "done"), (404, r#"{"error":{"code":404,"errors":[{"reason":"notFound"}]}}"#, "refused")],
        gone: None,
    },
    Contract {
        keys: "preset = 'github_fine_grained'\nvalues = { org = 'acme' }",
        ids: ["25381", "", "ana", "app"],
        line: "POST /orgs/acme/personal-access-tokens/25381",
        headers: &GITHUB,
        body: r#"{"action":"revoke"}"#,
        answers: &[
            (204, "", "done"),
            (404, "{}", "refused"),
            (422, "{}", "refused"),
            (500, "{}", "retry"),
            (200, "", "refused"),
        ],
        gone: None,
    },
    Contract {
        keys: "preset = 'github_oauth_token'\nclient_id = 'Iv1.8a61'",
        ids: ["example\"value", "", "ana", "app"],
        line: "DELETE /applications/Iv1.8a61/token",
        headers: &GITHUB,
        body: r#"{"access_token":"example\"value"}"#,
        answers: &[(204, "", "done"), (404, "{}", "refused"), (422, "{}", "refused")],
        gone: None,
    },
    Contract {
        keys: "preset = 'github_oauth_grant'\nclient_id = 'Iv1.8a61'\nradius = 'grant'",
        ids: ["example", "", "ana", "app"],
        line: "DELETE /applications/Iv1.8a61/grant",
        headers: &GITHUB,
        body: r#"{"access_token":"example"}"#,
        answers: &[(204, "", "done"), (404, "{}", "refused"), (422, "{}", "refused")],
        gone: None,
    },
    Contract {
        keys: "preset = 'gitlab_token'",
        ids: ["25", "", "ana", ""],
        line: "DELETE /api/v4/personal_access_tokens/25",
        headers: &[],
        body: "",
        answers: &[(204, "", "done"), (400, "{}", "refused"), (404, r#"{"error":"404 Not Found"}"#, "refused")],
        gone: Some((404, r#"{"message":"404 Personal Access Token Not Found"}"#)),
    },
    Contract {
        keys: "preset = 'slack_sessions'\nradius = 'user'",
        ids: ["at1", "g", "W123&4", "app"],
        line: "POST /api/admin.users.session.reset",
        headers: &[FORM],
        body: "user_id=W123%264",
        answers: &[
            (200, r#"{"ok":true}"#, "done"),
            (200, r#"{"ok":false,"error":"user_not_found"}"#, "refused"),
            (200, r#"{"ok":false,"error":"ratelimited"}"#, "retry"),
            (200, "<html>", "refused"),
        ],
        gone: None,
    },
    Contract {
        keys: "preset = 'aws_access_key'\nvalues = { account = '111122223333' }",
        ids: ["AKIAIOSFODNN7EXAMPLE", "", "arn:aws:iam::111122223333:user/eu/ana+x", ""],
        line: "POST /",
        headers: &[FORM],
        body: "AccessKeyId=AKIAIOSFODNN7EXAMPLE&Action=UpdateAccessKey&Status=Inactive&UserName=ana%2Bx&Version=2010-05-08",
        answers: &[
            (200, "<UpdateAccessKeyResponse xmlns=\"x\"><ResponseMetadata/></UpdateAccessKeyResponse>", "done"),
            (200, "<html>", "refused"),
            (400, "<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>", "retry"),
            (404, "<ErrorResponse><Error><Code>NoSuchEntity</Code></Error></ErrorResponse>", "refused"),
        ],
        gone: Some((
            404,
            "<ErrorResponse><Error><Code>NoSuchEntity</Code><Message>The Access Key with id AKIAIOSFODNN7EXAMPLE cannot be \
             found.</Message></Error></ErrorResponse>",
        )),
    },
    Contract {
        keys: "preset = 'aws_role_sessions'\nradius = 'role'\nvalues = { account = '111122223333' }",
        ids: ["ASIA1", "arn:aws:iam::111122223333:role/deploy", "arn:aws:iam::111122223333:role/deploy", ""],
        line: "POST /",
        headers: &[FORM],
        body: "Action=PutRolePolicy&PolicyDocument=%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A\
               %22Deny%22%2C%22Action%22%3A%5B%22*%22%5D%2C%22Resource%22%3A%5B%22*%22%5D%2C%22Condition%22%3A%7B\
               %22DateLessThan%22%3A%7B%22aws%3ATokenIssueTime%22%3A%222026-11-26T10%3A00%3A00Z%22%7D%7D%7D%5D%7D\
               &PolicyName=AWSRevokeOlderSessions&RoleName=deploy&Version=2010-05-08",
        answers: &[
            (200, "<PutRolePolicyResponse xmlns=\"x\"/>", "done"),
            (200, "<html>", "refused"),
            (404, "<ErrorResponse><Error><Code>NoSuchEntity</Code></Error></ErrorResponse>", "refused"),
        ],
        gone: None,
    },
];
