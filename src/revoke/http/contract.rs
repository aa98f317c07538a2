//! Contract tests: each preset against a server that checks the documented request of the vendor and gives the documented
//! answers. The sources are in the preset files.

use std::sync::Arc;

use super::contract_table::{CONTRACTS, Contract, FORM, JSON};
use super::*;
pub(super) use crate::outgoing::receiver::{At, Receiver as Provider, Seen};

/// A revoker with `keys` in `[revoke.http]`.
pub(super) fn revoker(keys: &str) -> HttpRevoker {
    let settings = toml::from_str(keys).unwrap_or_else(|error| panic!("{keys}: {error}"));
    HttpRevoker::new(&settings, Arc::new(At)).unwrap_or_else(|error| panic!("{keys}: {error:?}"))
}

/// An incident of Ana with her app, whose ids are `ids`: token, family, user, app.
pub(super) fn asked<'a>(target: &'a Target, ids: [&'a str; 4]) -> RevokeRequest<'a> {
    let [token_id, family_id, user_id, app_id] = ids;
    RevokeRequest {
        target,
        tenant_id: "acme",
        user_id,
        app_id,
        family_id,
        session_id: "",
        token_id,
        token_type: crate::event::TokenType::Other,
        expires_at: None,
        reason: "two holders",
        key: "INC-1-revoke-2",
    }
}

fn outcome(result: &Result<Revoked, DeliveryError>) -> String {
    match result {
        Ok(Revoked::Done { .. }) => "done".to_owned(),
        Ok(Revoked::AlreadyGone { .. }) => "gone".to_owned(),
        Err(DeliveryError::Retriable { retry_after: Some(wait), .. }) => format!("retry after {}", wait.as_secs()),
        Err(DeliveryError::Retriable { .. }) => "retry".to_owned(),
        Err(DeliveryError::Permanent { .. } | DeliveryError::Rejected { .. }) => "refused".to_owned(),
    }
}

impl Contract {
    fn revoker(&self, url: &str) -> HttpRevoker {
        revoker(&format!("url = '{url}'\nheaders = {{ Authorization = 'Example credential' }}\n{}", self.keys))
    }

    fn target(&self, revoker: &HttpRevoker) -> Target {
        let family = Target::Family(self.ids[1].to_owned());
        if !self.ids[1].is_empty() && revoker.accepts(&family) { family } else { Target::Token(self.ids[0].to_owned()) }
    }
}

#[tokio::test]
async fn presets_send_the_documented_requests() {
    let (provider, url) = Provider::start().await;
    for contract in CONTRACTS {
        let revoker = contract.revoker(&url);
        let target = contract.target(&revoker);
        assert!(revoker.accepts(&target), "{}", contract.keys);
        let gone = contract.gone.map(|(status, body)| (status, body, "gone"));
        for (status, body, expected) in contract.answers.iter().copied().chain(gone) {
            provider.reply(status, body);
            let got = outcome(&revoker.revoke(asked(&target, contract.ids)).await);
            assert_eq!(got, expected, "{}: {status} {body}", contract.keys);
            let seen = provider.take();
            // The read after a revocation is the second request.
            let reads = usize::from(got == "done" && revoker.verify.is_some());
            assert_eq!(seen.len(), 1 + reads, "{}", contract.keys);
            assert_eq!((&*seen[0].line, &*seen[0].body), (contract.line, contract.body), "{}", contract.keys);
            for (name, value) in contract.headers {
                assert_eq!(seen[0].header(name), *value, "{}: {name}", contract.keys);
            }
            let common = ["authorization", "idempotency-key", "tokenwarden-tenant"].map(|name| seen[0].header(name));
            assert_eq!(common, ["Example credential", "INC-1-revoke-2", "acme"], "{}", contract.keys);
        }
    }
}

#[tokio::test]
async fn presets_survive_bad_answers() {
    let (provider, url) = Provider::start().await;
    for contract in CONTRACTS {
        let revoker = contract.revoker(&url);
        let target = contract.target(&revoker);
        let gone = contract.gone.map_or(r#"{"error":"invalid_token"}"#, |(_, body)| body);
        let redirect = format!("{url}/elsewhere");
        let date = [("retry-after", "Thu, 26 Nov 2026 10:00:40 GMT")];
        for (status, headers, body, expected) in [
            (401, &[][..], gone, "refused"),
            (403, &[], gone, "refused"),
            (429, &[("retry-after", "7")], "", "retry after 7"),
            (429, &date, "", "retry after 40"),
            (403, &[("retry-after", "60")], "", "retry after 60"),
            (500, &[], "<html>", "retry"),
            (503, &[("retry-after", "100000")], "", "retry after 3600"),
            (302, &[("location", redirect.as_str())], "", "refused"),
            (307, &[("location", redirect.as_str())], "", "refused"),
            (418, &[], "\u{0}\u{7f}garbage", "refused"),
        ] {
            provider.reply_with(status, headers, body);
            let got = outcome(&revoker.revoke(asked(&target, contract.ids)).await);
            assert_eq!(got, expected, "{}: {status} {body}", contract.keys);
            assert_eq!(provider.take().len(), 1, "{}: {status} is not followed", contract.keys);
        }
    }
}

#[tokio::test]
async fn hostile_ids_send_no_other_request() {
    let (provider, url) = Provider::start().await;
    let hostile = [
        "../users/x",
        "..",
        "a/../../b",
        "..\\x",
        "x?y=z",
        "x#y",
        "%2e%2e/x",
        "a\r\nHost: b",
        "x\"}",
        "{id}",
        "\u{202e}",
    ];
    for contract in CONTRACTS {
        let revoker = contract.revoker(&url);
        let path = |line: &str| line.split('?').next().map(|path| path.matches('/').count());
        for id in hostile {
            let target = match contract.target(&revoker) {
                Target::Family(_) => Target::Family(id.to_owned()),
                Target::Token(_) => Target::Token(id.to_owned()),
            };
            provider.reply(204, "");
            let _ = revoker.revoke(asked(&target, [id; 4])).await;
            for seen in provider.take().into_iter().take(1) {
                assert_eq!(path(&seen.line), path(contract.line), "{}: {id}: {}", contract.keys, seen.line);
                assert_eq!(
                    seen.line.matches('?').count(),
                    contract.line.matches('?').count(),
                    "{}: {id}",
                    contract.keys
                );
                if contract.headers.contains(&JSON) {
                    let body: serde_json::Value = serde_json::from_str(&seen.body).expect("JSON");
                    assert_eq!(body.as_object().map(serde_json::Map::len), Some(1), "{}: {id}", contract.keys);
                }
                if contract.headers.contains(&FORM) {
                    assert_eq!(
                        seen.body.matches('&').count(),
                        contract.body.matches('&').count(),
                        "{}: {id}",
                        contract.keys
                    );
                }
            }
            provider.forget_replies();
        }
    }
}

/// Outcomes of a revocation by `keys` after these answers, and the requests.
async fn verified(keys: &str, answers: &[(u16, &str)]) -> (String, Vec<Seen>) {
    let (provider, url) = Provider::start().await;
    let revoker = revoker(&keys.replace("URL", &url));
    for (status, body) in answers {
        provider.reply(*status, body);
    }
    let target = Target::Family("grant-1".to_owned());
    let got = revoker.revoke(asked(&target, ["at-1", "grant-1", "ana", "app"])).await;
    let got = got.map_or_else(|error| error.to_string(), |revoked| outcome(&Ok(revoked)));
    (got, provider.take())
}

#[tokio::test]
async fn revocation_is_verified_by_introspection() {
    let keys = "preset = 'rfc7009'\nurl = 'URL/revoke'\nclient_id = 'w'\nclient_secret = 'x'\n[verify]\nurl = 'URL/introspect'";
    let (got, seen) = verified(keys, &[(200, ""), (200, r#"{"active":true}"#), (200, r#"{"active":false}"#)]).await;
    assert_eq!((got.as_str(), seen.len()), ("done", 3), "the second read");
    assert_eq!((&*seen[1].line, &*seen[1].body), ("POST /introspect", "token=grant-1&token_type_hint=refresh_token"));
    assert_eq!(seen[1].header("authorization"), seen[0].header("authorization"));
    // The provider says that it revoked the token, which stays active.
    let active = (200, r#"{"active":true,"scope":"x"}"#);
    let (got, seen) = verified(keys, &[(200, ""), active, active, active]).await;
    assert_eq!(got, "given up: the provider answered 200, and the token is still active");
    assert_eq!(seen.len(), 4);
    // An answer that does not show the state is no failure of the revocation.
    for answer in [(503, ""), (401, r#"{"active":false}"#), (200, "<html>")] {
        let (got, seen) = verified(keys, &[(200, ""), answer]).await;
        assert_eq!((got.as_str(), seen.len()), ("done", 2), "{answer:?}");
    }
    let (got, seen) = verified(keys, &[(503, "")]).await;
    assert_eq!((got.as_str(), seen.len()), ("will be retried: the provider answered 503", 1));
}

#[tokio::test]
async fn presets_verify_by_reading_the_grant() {
    let keycloak = "preset = 'keycloak_session'\nradius = 'session'\nvalues = { realm = 'acme' }\nurl = 'URL'";
    let other = r#"[{"id":"other","clients":{"x":"crm"}}]"#;
    let (got, seen) = verified(keycloak, &[(204, ""), (200, r#"[{"id":"grant-1"}]"#), (200, other)]).await;
    assert_eq!((got.as_str(), &*seen[2].line), ("done", "GET /admin/realms/acme/users/ana/sessions"));
    let user = keycloak.replace("keycloak_session", "keycloak_user").replace("'session'", "'user'");
    assert_eq!(verified(&user, &[(204, ""), (200, other), (200, "[]")]).await.1.len(), 3);
    let okta = "preset = 'okta_grant'\nurl = 'URL'";
    for gone in [(404, ""), (200, r#"{"id":"grant-1","status":"REVOKED"}"#)] {
        let (got, seen) = verified(okta, &[(204, ""), (200, r#"{"id":"grant-1","status":"ACTIVE"}"#), gone]).await;
        assert_eq!((got.as_str(), seen.len()), ("done", 3));
    }
    let gitlab = "preset = 'gitlab_token'\ntargets = ['family']\nurl = 'URL'";
    assert_eq!(verified(gitlab, &[(204, ""), (200, r#"{"revoked":true}"#)]).await.1.len(), 2);
}

#[tokio::test]
async fn incident_without_the_ids_sends_nothing() {
    let (provider, url) = Provider::start().await;
    for contract in CONTRACTS {
        let revoker = contract.revoker(&url);
        let target = match contract.target(&revoker) {
            Target::Family(_) => Target::Family(String::new()),
            Target::Token(_) => Target::Token(String::new()),
        };
        assert_eq!(outcome(&revoker.revoke(asked(&target, [""; 4])).await), "refused", "{}", contract.keys);
        assert!(provider.take().is_empty(), "{}", contract.keys);
    }
}

#[test]
fn every_preset_has_a_contract() {
    for name in shipped::PRESETS.iter().map(|preset| preset.name) {
        let key = format!("preset = '{name}'");
        assert!(CONTRACTS.iter().any(|contract| contract.keys.lines().next() == Some(&key)), "{name}");
    }
}
