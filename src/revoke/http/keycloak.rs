//! The presets for Keycloak against a real Keycloak. `deploy/setup.sh slow` fetches it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::contract::{asked, revoker};
use super::*;

const REALM: &str = include_str!("../../../tests/keycloak/acme-realm.json");
/// Keycloak starts within half a minute on an idle machine.
const STARTS_MAX: u32 = 600;

/// A running Keycloak with the realm `acme`. It is stopped when it is dropped.
struct Keycloak {
    child: Child,
    _folder: tempfile::TempDir,
    url: String,
    client: Client,
}

impl Drop for Keycloak {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Keycloak {
    async fn start() -> Self {
        let cached = std::env::var_os("TOKENWARDEN_CACHE").map(|cache| std::path::Path::new(&cache).join("keycloak"));
        let cached = cached.filter(|cached| cached.exists()).expect("TOKENWARDEN_CACHE with Keycloak, as in make slow");
        let folder = tempfile::tempdir().expect("a folder");
        // Keycloak writes into its own folder.
        let copied = Command::new("cp").arg("-r").arg(&cached).arg(folder.path()).status().expect("cp runs");
        assert!(copied.success());
        let home = folder.path().join("keycloak");
        std::fs::create_dir_all(home.join("data/import")).expect("a folder");
        std::fs::write(home.join("data/import/acme-realm.json"), REALM).expect("a file");
        let port = free_port();
        let child = Command::new(home.join("bin/kc.sh"))
            .args(["start-dev", "--import-realm", "--http-host=127.0.0.1", &format!("--http-port={port}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Keycloak starts");
        let url = format!("http://127.0.0.1:{port}");
        let keycloak = Self { child, _folder: folder, url, client: Client::new() };
        for _ in 0..STARTS_MAX {
            let answer = keycloak.client.get(format!("{}/realms/acme", keycloak.url)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return keycloak;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("Keycloak does not answer");
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Value {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.client.post(format!("{}/realms/acme/protocol/openid-connect/{path}", self.url));
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        let text = request.send().await.expect("an answer").text().await.expect("a body");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The tokens of a new session of Ana.
    async fn sign_in(&self) -> Value {
        let fields = [("grant_type", "password"), ("username", "ana"), ("password", "example-password")];
        let client = [("client_id", "crm"), ("client_secret", "example-crm"), ("scope", "openid")];
        self.post("token", &[&fields[..], &client[..]].concat()).await
    }

    /// What the introspection (RFC 7662) of a token answers.
    async fn introspected(&self, tokens: &Value) -> Value {
        let token = tokens["access_token"].as_str().expect("a token");
        let client = [("client_id", "crm"), ("client_secret", "example-crm")];
        self.post("token/introspect", &[&[("token", token)][..], &client[..]].concat()).await
    }

    fn revoker(&self, realm: &str, keys: &str) -> HttpRevoker {
        let token_url = format!("{}/realms/acme/protocol/openid-connect/token", self.url);
        revoker(&format!(
            "url = '{}'\nvalues = {{ realm = '{realm}' }}\n{keys}\n[auth]\nmethod = 'oauth'\ntoken_url = '{token_url}'\n\
             client_id = 'tokenwarden'\nclient_secret = 'example-warden'",
            self.url
        ))
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

async fn revoke(revoker: &HttpRevoker, session: &str, user: &str) -> Result<Revoked, String> {
    let target = Target::Family(session.to_owned());
    revoker.revoke(asked(&target, ["at-1", session, user, "crm"])).await.map_err(|error| error.to_string())
}

#[tokio::test]
#[ignore = "starts Keycloak, which takes a minute"]
async fn keycloak_sessions_are_revoked() {
    let keycloak = Keycloak::start().await;
    let [first, second] = [keycloak.sign_in().await, keycloak.sign_in().await];
    let about = keycloak.introspected(&first).await;
    let (session, user) = (about["sid"].as_str().expect("a session"), about["sub"].as_str().expect("a user"));
    assert_eq!(about["active"], true);

    // One session ends, the other continues.
    let sessions = keycloak.revoker("acme", "preset = 'keycloak_session'\nradius = 'session'");
    assert!(matches!(revoke(&sessions, session, user).await, Ok(Revoked::Done { status: 204, .. })));
    assert_eq!(keycloak.introspected(&first).await["active"], false);
    assert_eq!(keycloak.introspected(&second).await["active"], true);
    assert!(matches!(revoke(&sessions, session, user).await, Ok(Revoked::AlreadyGone { status: 404, .. })));

    // An id that points to another resource, and an unknown realm, are no success.
    assert!(revoke(&sessions, &format!("../users/{user}"), user).await.is_err());
    let other = keycloak.revoker("none", "preset = 'keycloak_session'\nradius = 'session'");
    assert!(revoke(&other, session, user).await.is_err());

    // All sessions of the user end.
    let users = keycloak.revoker("acme", "preset = 'keycloak_user'\nradius = 'user'");
    assert!(matches!(revoke(&users, session, user).await, Ok(Revoked::Done { status: 204, .. })));
    assert_eq!(keycloak.introspected(&second).await["active"], false);
    assert!(revoke(&users, session, "nobody").await.is_err());

    let consents = keycloak.revoker("acme", "preset = 'keycloak_consent'\ntargets = ['family']");
    assert!(matches!(revoke(&consents, session, user).await, Ok(Revoked::AlreadyGone { status: 404, .. })));
}
