//! Contract tests of the authentication methods, against the provider of the other contract tests.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Verifier;
use serde_json::{Value, json};

use super::contract::{At, Provider, Seen, asked, revoker};
use super::*;

const IDS: [&str; 4] = ["at-1", "grant-1", "ana", "app"];
/// Time of the clock of the contract tests, seconds.
const NOW: i64 = 1_795_687_200;
const SECRET: &str = "s3cr&t value";

/// Revokes the grant, and returns the outcome or the reason of the failure, which must not contain a secret.
async fn revoke(revoker: &HttpRevoker) -> String {
    let target = Target::Family("grant-1".to_owned());
    match revoker.revoke(asked(&target, IDS)).await {
        Ok(Revoked::Done { status, .. }) => format!("done with {status}"),
        Ok(Revoked::AlreadyGone { status, .. }) => format!("already gone with {status}"),
        Err(error) => {
            let text = format!("{error} {error:?}");
            assert!(!text.contains("s3cr") && !text.contains("issued"), "{text}");
            error.to_string()
        }
    }
}

const DONE: &str = "done with 204";

fn lines(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|seen| seen.line.as_str()).collect()
}

fn oauth(url: &str, keys: &str) -> HttpRevoker {
    revoker(&format!(
        "preset = 'by_id'\nurl = '{url}/grants'\n[auth]\nmethod = 'oauth'\ntoken_url = '{url}/token'\nclient_id = 'war:den'\n\
         client_secret = '{SECRET}'\n{keys}"
    ))
}

#[tokio::test]
async fn oauth_token_is_cached_and_renewed_on_401() {
    let (provider, url) = Provider::start().await;
    let revoker = oauth(&url, "scope = 'revoke all'\naudience = 'https://api.example/'");
    provider.reply(200, r#"{"access_token":"issued-1","token_type":"Bearer","expires_in":3600}"#);
    provider.reply(204, "");
    provider.reply(204, "");
    assert_eq!([revoke(&revoker).await, revoke(&revoker).await], [DONE, DONE]);
    let seen = provider.take();
    assert_eq!(lines(&seen), ["POST /token", "DELETE /grants/grant-1", "DELETE /grants/grant-1"]);
    assert_eq!(seen[0].body, "grant_type=client_credentials&scope=revoke+all&audience=https%3A%2F%2Fapi.example%2F");
    assert_eq!(seen[0].header("content-type"), "application/x-www-form-urlencoded");
    let basic = format!("Basic {}", STANDARD.encode("war%3Aden:s3cr%26t+value"));
    assert_eq!(seen[0].header("authorization"), basic);
    assert_eq!(seen[2].header("authorization"), "Bearer issued-1");
    // The provider has ended the cached token. A new one is used in the same attempt.
    provider.reply(401, r#"{"error":"invalid_token"}"#);
    provider.reply(200, r#"{"access_token":"issued-2","expires_in":3600}"#);
    provider.reply(204, "");
    assert_eq!(revoke(&revoker).await, DONE);
    let seen = provider.take();
    assert_eq!(lines(&seen), ["DELETE /grants/grant-1", "POST /token", "DELETE /grants/grant-1"]);
    assert_eq!(seen[2].header("authorization"), "Bearer issued-2");
    assert_eq!(seen[0].header("idempotency-key"), seen[2].header("idempotency-key"));
    // A new token is not renewed again.
    provider.reply(401, "");
    provider.reply(200, r#"{"access_token":"issued-3","expires_in":3600}"#);
    provider.reply(401, "");
    assert!(revoke(&revoker).await.contains("401"));
    assert_eq!(provider.take().len(), 3);
}

#[tokio::test]
async fn token_that_is_about_to_expire_is_not_cached() {
    let (provider, url) = Provider::start().await;
    let revoker = oauth(&url, "credentials = 'body'");
    for _ in 0..2 {
        provider.reply(200, r#"{"access_token":"issued-1","expires_in":60}"#);
        provider.reply(204, "");
        assert_eq!(revoke(&revoker).await, DONE);
    }
    let seen = provider.take();
    assert_eq!(lines(&seen), ["POST /token", "DELETE /grants/grant-1", "POST /token", "DELETE /grants/grant-1"]);
    assert_eq!(seen[0].body, "grant_type=client_credentials&client_id=war%3Aden&client_secret=s3cr%26t+value");
    assert_eq!(seen[0].header("authorization"), "");
}

#[tokio::test]
async fn failing_token_endpoint_is_no_outcome_of_the_revocation() {
    let (provider, url) = Provider::start().await;
    let revoker = oauth(&url, "");
    for (status, body, expected) in [
        (401, r#"{"error":"invalid_client"}"#, "given up: the token endpoint answered 401 (invalid_client)"),
        (400, r#"{"error":"invalid_scope"}"#, "given up: the token endpoint answered 400 (invalid_scope)"),
        (404, "", "given up: the token endpoint answered 404"),
        (302, "", "given up: the token endpoint answered 302"),
        (429, "", "will be retried: the token endpoint answered 429"),
        (503, "issued", "will be retried: the token endpoint answered 503"),
        (200, "<html>issued", "will be retried: the answer of the token endpoint contains no token"),
    ] {
        provider.reply(status, body);
        assert_eq!(revoke(&revoker).await, expected);
        assert_eq!(lines(&provider.take()), ["POST /token"], "{status}");
    }
    let nobody = oauth("http://127.0.0.1:1", "");
    assert!(revoke(&nobody).await.starts_with("will be retried: the token endpoint: cannot connect"));
}

fn key() -> (PKey<Private>, String) {
    let key = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
    let pem = String::from_utf8(key.private_key_to_pem_pkcs8().expect("PEM")).expect("text");
    (key, pem)
}

/// The claims of a JWT with a valid signature.
fn claims(token: &str, key: &PKey<Private>) -> Value {
    let (signed, signature) = token.rsplit_once('.').expect("a signature");
    let mut verifier = Verifier::new(MessageDigest::sha256(), key).expect("a verifier");
    verifier.update(signed.as_bytes()).expect("text");
    assert!(verifier.verify(&URL_SAFE_NO_PAD.decode(signature).expect("base64")).expect("a check"));
    let (_, claims) = signed.split_once('.').expect("claims");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("JSON")
}

#[tokio::test]
async fn google_service_account_exchanges_a_jwt() {
    let (provider, url) = Provider::start().await;
    let (key, pem) = key();
    let file = json!({ "type": "service_account", "client_email": "warden@acme.example", "private_key": pem });
    let auth = |private_key: &str, more: &str| {
        revoker(&format!(
            "preset = 'google_workspace_token'\ntargets = ['family']\nurl = '{url}'\n[auth]\nmethod = 'google'\n\
             token_url = '{url}/token'\nscope = 'https://www.googleapis.com/auth/admin.directory.user.security'\n\
             private_key = '''{private_key}'''\n{more}"
        ))
    };
    for (revoker, subject) in [
        (auth(&file.to_string(), "subject = 'admin@acme.example'"), json!("admin@acme.example")),
        (auth(&pem, "email = 'warden@acme.example'"), Value::Null),
    ] {
        provider.reply(200, r#"{"access_token":"issued-1","expires_in":3599,"token_type":"Bearer"}"#);
        provider.reply(204, "");
        provider.reply(404, "");
        assert_eq!(revoke(&revoker).await, DONE);
        let seen = provider.take();
        let path = "/admin/directory/v1/users/ana/tokens/app";
        assert_eq!(lines(&seen), ["POST /token", &format!("DELETE {path}"), &format!("GET {path}")]);
        let fields: std::collections::HashMap<_, _> =
            url::form_urlencoded::parse(seen[0].body.as_bytes()).into_owned().collect();
        assert_eq!(fields["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
        let claims = claims(&fields["assertion"], &key);
        assert_eq!(claims["iss"], "warden@acme.example");
        assert_eq!(claims["aud"], format!("{url}/token"));
        assert_eq!(claims["scope"], "https://www.googleapis.com/auth/admin.directory.user.security");
        assert_eq!((&claims["iat"], &claims["exp"]), (&json!(NOW), &json!(NOW + 3_600)));
        assert_eq!(claims["sub"], subject);
        assert_eq!(seen[1].header("authorization"), "Bearer issued-1");
    }
}

#[tokio::test]
async fn github_app_exchanges_a_jwt() {
    let (provider, url) = Provider::start().await;
    let (key, pem) = key();
    let revoker = revoker(&format!(
        "preset = 'github_fine_grained'\nurl = '{url}'\nvalues = {{ org = 'acme' }}\ntargets = ['family']\n[auth]\n\
         method = 'github_app'\napp_id = 'Iv23'\ninstallation_id = '42'\napi_url = '{url}'\nprivate_key = '''{pem}'''"
    ));
    provider.reply(201, r#"{"token":"issued-1","expires_at":"2026-11-26T11:00:00Z"}"#);
    for _ in 0..2 {
        provider.reply(204, "");
        provider.reply(200, "[]");
    }
    assert_eq!([revoke(&revoker).await, revoke(&revoker).await], [DONE, DONE]);
    let seen = provider.take();
    let (path, list) =
        ("POST /orgs/acme/personal-access-tokens/grant-1", "GET /orgs/acme/personal-access-tokens?per_page=100");
    assert_eq!(lines(&seen), ["POST /app/installations/42/access_tokens", path, list, path, list]);
    let token = seen[0].header("authorization").strip_prefix("Bearer ").expect("a token");
    assert_eq!(claims(token, &key), json!({ "iss": "Iv23", "iat": NOW - 60, "exp": NOW + 540 }));
    assert_eq!(seen[0].header("accept"), "application/vnd.github+json");
    assert_eq!(seen[2].header("authorization"), "Bearer issued-1");
}

#[tokio::test]
async fn aws_and_header_credentials_are_sent() {
    let (provider, url) = Provider::start().await;
    let aws = revoker(&format!(
        "preset = 'aws_access_key'\nurl = '{url}/'\ntargets = ['family']\n\
         values = {{ account = '111122223333' }}\n[auth]\nmethod = 'aws'\naccess_key_id = 'AKIDEXAMPLE'\n\
         secret_access_key = '{SECRET}'\nsession_token = 'session'"
    ));
    provider.reply(200, "<UpdateAccessKeyResponse/>");
    assert_eq!(revoke(&aws).await, "done with 200");
    let seen = provider.take().remove(0);
    let start = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261126/us-east-1/iam/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature=";
    assert!(seen.header("authorization").starts_with(start), "{}", seen.header("authorization"));
    assert_eq!((seen.header("x-amz-date"), seen.header("x-amz-security-token")), ("20261126T100000Z", "session"));
    let okta = revoker(&format!(
        "preset = 'okta_grant'\nurl = '{url}'\n[auth]\nmethod = 'header'\nheader = 'Authorization'\nscheme = 'SSWS'\ntoken = 'issued'"
    ));
    provider.reply(204, "");
    assert_eq!(revoke(&okta).await, DONE);
    assert_eq!(provider.take()[0].header("authorization"), "SSWS issued");
}

#[test]
fn auth_settings_error_has_the_key() {
    let mistake = |keys: &str| {
        let settings =
            toml::from_str(&format!("preset = 'by_id'\nurl = 'https://h.example'\n{keys}")).expect("settings");
        let Mistake { key, problem } = HttpRevoker::new(&settings, Arc::new(At)).map(|_| ()).expect_err(keys);
        assert!(!problem.contains("s3cr"), "{problem}");
        key
    };
    let oauth =
        |url: &str| format!("[auth]\nmethod = 'oauth'\ntoken_url = '{url}'\nclient_id = 'w'\nclient_secret = 's3cr'");
    for url in [
        "token",
        "http://id.example/token",
        "https://10.0.0.1/token",
        "https://me:s3cr@id.example/",
        "file:///etc/passwd",
    ] {
        assert_eq!(mistake(&oauth(url)), "auth.token_url", "{url}");
    }
    let with = |more: &str| mistake(&format!("{more}\n{}", oauth("https://id.example/token")));
    assert_eq!(with("token = 's3cr'"), "token");
    assert_eq!(with("client_id = 'w'\nclient_secret = 's3cr'"), "client_secret");
    assert_eq!(mistake("[auth]\nmethod = 'google'\nscope = 'x'\nprivate_key = 's3cr'"), "auth.email");
    assert_eq!(
        mistake("[auth]\nmethod = 'google'\nscope = 'x'\nemail = 'w'\nprivate_key = 's3cr'"),
        "auth.private_key"
    );
    let github = |id: &str| {
        format!("[auth]\nmethod = 'github_app'\napp_id = '1'\ninstallation_id = '{id}'\nprivate_key = 's3cr'")
    };
    assert_eq!(mistake(&github("42")), "auth.private_key");
    assert_eq!(mistake("[auth]\nmethod = 'header'\nheader = 'a b'\ntoken = 's3cr'"), "auth.header");
    assert_eq!(mistake("[auth]\nmethod = 'header'\nheader = 'X'\ntoken = \"s3cr\\n\""), "auth.token");
    let (_, pem) = key();
    assert_eq!(
        mistake(&format!(
            "[auth]\nmethod = 'github_app'\napp_id = '1'\ninstallation_id = '../x'\nprivate_key = '''{pem}'''"
        )),
        "auth.installation_id"
    );
}
