//! Pushed tokens, good and forged, over HTTP.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::pkey::{PKey, Private};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::feed::{Feed, Tenant};
use crate::format::Format;
use crate::jose::SigningKey;
use crate::outgoing::receiver::NOW;

const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const CREDENTIAL_CHANGE: &str = "https://schemas.openid.net/secevent/caep/event-type/credential-change";
const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";
const BEARER: &str = "a-bearer-token-of-the-transmitter";

/// Keeps the events, or refuses them.
#[derive(Default)]
struct TestSink {
    sent: Mutex<Vec<(String, Value)>>,
    is_down: AtomicBool,
}

#[async_trait]
impl EventSink for TestSink {
    async fn send(&self, key: &str, event: &[u8]) -> Result<(), String> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err("down".to_owned());
        }
        let event = serde_json::from_slice(event).expect("JSON");
        self.sent.lock().expect("a lock").push((key.to_owned(), event));
        Ok(())
    }
}

struct Rig {
    url: String,
    sink: Arc<TestSink>,
    key: SigningKey,
    clock: Arc<TestClock>,
    folder: tempfile::TempDir,
}

/// A clock that the test moves: milliseconds after [`NOW`].
#[derive(Default)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now_millis(&self) -> i64 {
        NOW + self.0.load(Ordering::Relaxed)
    }
}

/// The public key of `pair` as a JWK Set with the key id `id`.
fn jwks(pair: &PKey<Private>, id: &str) -> String {
    let x = URL_SAFE_NO_PAD.encode(pair.raw_public_key().expect("a key"));
    json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": x }] }).to_string()
}

fn signing(pair: &PKey<Private>) -> SigningKey {
    let pem = String::from_utf8(pair.private_key_to_pem_pkcs8().expect("PEM")).expect("text");
    SigningKey::parse(&pem).expect("a key")
}

impl Rig {
    async fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let pair = PKey::generate_ed25519().expect("a key");
        let file = folder.path().join("jwks.json");
        std::fs::write(&file, jwks(&pair, "k1")).expect("a file");
        let settings = format!(
            "issuer = 'https://id.example'\naudience = 'https://tokenwarden.example'\njwks_file = '{}'\ntoken = \
             '{BEARER}'\ntopic = 'events'\ntenant = 'acme'\n{more}",
            file.display()
        );
        let settings: SignalsReceiverSettings = toml::from_str(&settings).expect("settings");
        settings.check(Some(trusted())).expect("they are correct");
        let sink = Arc::new(TestSink::default());
        let clock = Arc::new(TestClock::default());
        let metrics = Arc::new(Metrics::new());
        let receiver = SignalsReceiver::new(&settings, Arc::clone(&sink) as _, Arc::clone(&clock) as _, metrics);
        let address = receiver.expect("a receiver").serve("127.0.0.1:0".parse().expect("an address")).await;
        let url = format!("http://{}{PATH}", address.expect("a port"));
        Self { url, sink, key: signing(&pair), clock, folder }
    }

    fn signed(&self, header: &Value, claims: &Value) -> String {
        self.key.sign(header.as_object().expect("an object").clone(), claims).expect("signed")
    }

    fn token(&self, claims: &Value) -> String {
        self.signed(&json!({ "kid": "k1", "typ": "secevent+jwt" }), claims)
    }

    /// Status and error code.
    async fn push(&self, token: String) -> (u16, String) {
        self.push_as(token, MEDIA_TYPE, BEARER).await
    }

    async fn push_as(&self, token: String, media_type: &str, bearer: &str) -> (u16, String) {
        let request = reqwest::Client::new().post(&self.url).header("content-type", media_type).bearer_auth(bearer);
        let answer = request.body(token).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let body: Value = serde_json::from_str(&answer.text().await.expect("a body")).unwrap_or_default();
        assert_eq!(body.is_object(), [400, 401].contains(&status), "{status} {body}");
        (status, body["err"].as_str().unwrap_or_default().to_owned())
    }

    fn sent(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut *self.sink.sent.lock().expect("a lock"))
    }
}

/// A topic in the native format to which only trusted producers write.
fn trusted() -> Feed {
    Feed { confirmed: true, ..Feed::default() }
}

fn claims(event: &str, subject: &Value) -> Value {
    let details = json!({ "event_timestamp": NOW / 1_000 - 60, "change_type": "update" });
    json!({
        "iss": "https://id.example", "aud": ["https://tokenwarden.example"], "iat": NOW / 1_000, "jti": "set-1",
        "sub_id": subject, "events": { event: details },
    })
}

fn user(id: &str) -> Value {
    json!({ "format": "iss_sub", "iss": "https://id.example", "sub": id })
}

fn complex(session: &str) -> Value {
    json!({ "format": "complex", "user": user("ana"), "session": { "format": "opaque", "id": session } })
}

#[tokio::test]
async fn security_events_become_token_events() {
    let rig = Rig::start("").await;
    for (event, subject) in
        [(SESSION_REVOKED, complex("s-1")), (SESSION_REVOKED, user("ana")), (CREDENTIAL_CHANGE, user("a\u{202e}\"\n"))]
    {
        assert_eq!(rig.push(rig.token(&claims(event, &subject))).await.0, 202);
    }
    let sent = rig.sent();
    let id = sent[0].1["event_id"].clone();
    let event = |kind: &str, user: &str| {
        json!({
            "event_id": id, "timestamp": NOW - 60_000, "kind": kind, "tenant_id": "acme", "user_id": user,
            "token_id": id, "concerns": "user", "attrs": { "received_as": "shared_signals" },
        })
    };
    let mut of_session = event("session_ended", "ana");
    of_session["token_id"] = "s-1".into();
    of_session["session_id"] = "s-1".into();
    of_session.as_object_mut().expect("an object").remove("concerns");
    let mut changed = event("credential_changed", "a\u{202e}\"\n");
    changed.as_object_mut().expect("an object").remove("concerns");
    let expected = [
        ("acme/ana".to_owned(), of_session),
        ("acme/ana".to_owned(), event("session_ended", "ana")),
        ("acme/a\u{202e}\"\n".to_owned(), changed),
    ];
    assert_eq!(sent, expected);

    // The same token has the same id, and another one has another id.
    let again = claims(SESSION_REVOKED, &user("ana"));
    let mut other = again.clone();
    other["jti"] = "set-2".into();
    for claims in [&again, &other] {
        assert_eq!(rig.push(rig.token(claims)).await.0, 202);
    }
    let sent = rig.sent();
    assert!(sent[0].1["event_id"] == id && sent[1].1["event_id"] != id, "{sent:?}");
    // A verification, and events that are not supported, are accepted without an effect.
    for event in [VERIFICATION, "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change"] {
        assert_eq!(rig.push(rig.token(&claims(event, &json!({ "format": "opaque", "id": "stream" })))).await.0, 202);
    }
    assert_eq!(rig.sent(), []);
}

#[tokio::test]
async fn forged_and_wrong_tokens_are_rejected() {
    let rig = Rig::start("").await;
    let good = claims(SESSION_REVOKED, &user("ana"));
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        rig.token(&claims)
    };
    let token = rig.token(&good);
    let parts: Vec<_> = token.split('.').collect();
    let forged = |header: Value| format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), parts[1], parts[2]);
    let now = NOW / 1_000;
    for (token, code) in [
        (forged(json!({ "alg": "none", "kid": "k1", "typ": "secevent+jwt" })), "invalid_key"),
        (forged(json!({ "alg": "HS256", "kid": "k1", "typ": "secevent+jwt" })), "invalid_key"),
        (format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(good.to_string() + " "), parts[2]), "invalid_key"),
        (rig.signed(&json!({ "kid": "k1", "typ": "JWT" }), &good), "invalid_request"),
        (rig.signed(&json!({ "kid": "k1" }), &good), "invalid_request"),
        ("x".to_owned(), "invalid_request"),
        (String::new(), "invalid_request"),
        (with("iss", json!("https://other.example")), "invalid_issuer"),
        (with("aud", json!("https://other.example")), "invalid_audience"),
        (with("iat", json!(now + 600)), "invalid_request"),
        (with("iat", json!(now - 8 * 86_400)), "invalid_request"),
        (with("iat", Value::Null), "invalid_request"),
        (with("exp", json!(now - 600)), "invalid_request"),
        (with("jti", json!("")), "invalid_request"),
        (with("events", json!({})), "invalid_request"),
        (with("sub_id", json!({ "format": "email", "email": "ana@example.com" })), "invalid_request"),
        (
            with("sub_id", json!({ "format": "iss_sub", "iss": "https://other.example", "sub": "ana" })),
            "invalid_request",
        ),
        (
            with("sub_id", json!({ "format": "iss_sub", "iss": "https://id.example", "sub": "x".repeat(257) })),
            "invalid_request",
        ),
        (with("sub_id", json!({ "format": "opaque", "id": "s-1" })), "invalid_request"),
    ] {
        assert_eq!(rig.push(token.clone()).await, (400, code.to_owned()), "{token}");
    }
    assert_eq!(rig.push("x".repeat(TOKEN_BYTES_MAX + 1)).await.0, 413);
    assert_eq!(rig.push_as(token.clone(), "application/jwt", BEARER).await, (400, "invalid_request".to_owned()));
    assert_eq!(rig.push_as(token.clone(), MEDIA_TYPE, "wrong").await, (401, "authentication_failed".to_owned()));
    assert_eq!(rig.sent(), []);
    assert_eq!(rig.push(token).await.0, 202, "the unchanged token is accepted");
}

#[tokio::test]
async fn token_waits_for_the_acknowledgement_of_its_event() {
    let rig = Rig::start("per_minute = 2\n").await;
    let token = rig.token(&claims(CREDENTIAL_CHANGE, &user("ana")));
    rig.sink.is_down.store(true, Ordering::Relaxed);
    assert_eq!(rig.push(token.clone()).await.0, 503);
    rig.sink.is_down.store(false, Ordering::Relaxed);
    assert_eq!(rig.push(token.clone()).await.0, 202);
    assert_eq!(rig.sent().len(), 1);
    assert_eq!(rig.push(token).await.0, 429, "the limit per minute");
}

#[tokio::test]
async fn token_with_a_new_key_is_not_lost() {
    let mut rig = Rig::start("").await;
    let claims = claims(CREDENTIAL_CHANGE, &user("ana"));
    // The first one reads the keys, the others wait for it.
    let pushed = futures::future::join_all((0..8).map(|_| rig.push(rig.token(&claims)))).await;
    assert!(pushed.iter().all(|(status, _)| *status == 202), "{pushed:?}");
    let pair = PKey::generate_ed25519().expect("a key");
    std::fs::write(rig.folder.path().join("jwks.json"), jwks(&pair, "k2")).expect("a file");
    rig.key = signing(&pair);
    let token = rig.signed(&json!({ "kid": "k2", "typ": "secevent+jwt" }), &claims);
    assert_eq!(rig.push(token.clone()).await.0, 503, "the keys were read a moment ago");
    rig.clock.0.store(31_000, Ordering::Relaxed);
    assert_eq!(rig.push(token).await.0, 202);
    rig.clock.0.store(62_000, Ordering::Relaxed);
    let unknown = rig.signed(&json!({ "kid": "k3", "typ": "secevent+jwt" }), &claims);
    assert_eq!(rig.push(unknown.clone()).await, (400, "invalid_key".to_owned()), "the current keys do not have it");
    std::fs::write(rig.folder.path().join("jwks.json"), "{").expect("a file");
    rig.clock.0.store(93_000, Ordering::Relaxed);
    assert_eq!(rig.push(unknown).await.0, 503, "the keys cannot be read");
}

#[tokio::test]
async fn unsigned_requests_use_up_no_limit() {
    let rig = Rig::start("per_minute = 4\n").await;
    let token = rig.token(&claims(CREDENTIAL_CHANGE, &user("ana")));
    let forged = token.rsplit_once('.').expect("a signature").0.to_owned() + ".AAAA";
    for _ in 0..5 {
        assert_eq!(rig.push(forged.clone()).await, (400, "invalid_key".to_owned()));
    }
    let address = rig.url.trim_start_matches("http://").trim_end_matches(PATH);
    let mut slow = Vec::new();
    for _ in 0..CONCURRENT_MAX {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {BEARER}\r\ncontent-type: {MEDIA_TYPE}\r\n\
             content-length: 9\r\n\r\nx"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        slow.push(stream);
    }
    assert_eq!(rig.push(token).await.0, 202);

    // They have a limit of their own.
    let rig = Rig::start("per_minute = 1\n").await;
    for _ in 0..UNVERIFIED_FOR_EACH {
        assert_eq!(rig.push(forged.clone()).await.0, 400);
    }
    assert_eq!(rig.push(forged).await.0, 429);
}

#[test]
fn user_is_found_by_the_configured_identifier() {
    let found = |user: &str, identifier: Value| {
        let settings =
            format!("issuer = 'i'\naudience = 'a'\ntopic = 't'\ntenant = ''\nuser = '{user}'\nsubject_issuer = 's'");
        subject::Subject::of(&identifier, &toml::from_str(&settings).expect("settings")).user
    };
    let email = json!({ "format": "email", "email": "ana@example.com" });
    let subject = json!({ "format": "iss_sub", "iss": "s", "sub": "ana" });
    let aliases = json!({ "format": "aliases", "identifiers": [email, subject, { "format": "aliases" }] });
    assert_eq!(found("email", email.clone()).as_deref(), Some("ana@example.com"));
    assert_eq!(found("iss_sub", subject.clone()).as_deref(), Some("ana"));
    assert_eq!(found("iss_sub", aliases.clone()).as_deref(), Some("ana"));
    assert_eq!(found("email", aliases).as_deref(), Some("ana@example.com"));
    assert_eq!(found("opaque", json!({ "format": "opaque", "id": "7" })).as_deref(), Some("7"));
    for other in [email, json!({ "format": "iss_sub", "iss": "i", "sub": "ana" }), json!({ "sub": "ana" }), json!(7)] {
        assert_eq!(found("iss_sub", other), None);
    }
    assert_eq!(found("opaque", json!({ "format": "opaque", "id": "" })), None);
}

#[test]
fn settings_error_has_the_key() {
    let mistake = |text: &str| {
        let settings: SignalsReceiverSettings = toml::from_str(text).expect("settings");
        settings.check(Some(trusted())).expect_err(text)
    };
    let good = "issuer = 'i'\naudience = 'a'\njwks_file = 'k'\ntopic = 'events'\ntenant = ''\n";
    let settings: SignalsReceiverSettings = toml::from_str(good).expect("settings");
    let problem = |feed| settings.check(feed).err().map(|(key, _)| key);
    assert_eq!(problem(Some(trusted())), None);
    assert_eq!(problem(None), Some("signals_receiver.topic"));
    assert_eq!(problem(Some(Feed { format: Format::Okta, ..trusted() })), Some("signals_receiver.topic"));
    assert_eq!(problem(Some(Feed::default())), Some("signals_receiver.topic"), "strangers may write to it");
    let of_acme = Feed { tenant: Tenant::new("acme"), ..trusted() };
    assert_eq!(problem(Some(of_acme)), Some("signals_receiver.tenant"), "the events have no tenant");
    for (text, key) in [
        (format!("listen = '0.0.0.0:1'\n{good}"), "signals_receiver.listen"),
        (good.replace("'i'", "''"), "signals_receiver.issuer"),
        (format!("{good}algorithms = []"), "signals_receiver.algorithms"),
        (format!("{good}token = 'short'"), "signals_receiver.token"),
        (format!("{good}per_minute = 0"), "signals_receiver"),
        (format!("{good}jwks_url = 'https://id.example/k'"), "signals_receiver"),
        (good.replace("jwks_file = 'k'", "jwks_url = 'http://id.example/k'"), "signals_receiver.jwks_url"),
    ] {
        assert_eq!(mistake(&text).0, key, "{text}");
    }
}
