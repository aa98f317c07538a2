//! A pushed Security Event Token ends a session: its later use is reported.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use serde_json::{Value, json};

use super::*;

/// Signs `claims` with Ed25519.
fn signed(key: &PKey<Private>, claims: &Value) -> String {
    let header = json!({ "alg": "EdDSA", "kid": "k1", "typ": "secevent+jwt" });
    let text = [&header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let mut signer = Signer::new_without_digest(key).expect("a signer");
    let signature = signer.sign_oneshot_to_vec(text.as_bytes()).expect("a signature");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn pushed_end_of_a_session_is_learnt() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let kafka = Kafka::start();
    kafka.create_topic(TOPIC, 3);
    configure(folder, &kafka);
    let key = PKey::generate_ed25519().expect("a key");
    let x = URL_SAFE_NO_PAD.encode(key.raw_public_key().expect("a key"));
    let jwks = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": x }] });
    keep_secret(&folder.join("jwks.json"), &jwks.to_string());
    let (file, port) = (folder.join("tokenwarden.toml"), free_port());
    let section = format!(
        "[signals_receiver]\nlisten = '127.0.0.1:{port}'\nissuer = 'https://id.example'\naudience = 'warden'\n\
         jwks_file = 'jwks.json'\ntopic = '{TOPIC}'\ntenant = 'acme'\n"
    );
    let topics = format!("topics = [{{ topic = '{TOPIC}', confirmed = true }}]");
    let text = read(&file).replace(&format!("topics = ['{TOPIC}']"), &topics);
    assert!(text.contains(&topics), "{text}");
    keep_secret(&file, &(text + &section));
    let service = Service::start(folder, free_port());
    assert_eq!(service.page("/readyz"), "ok\n");

    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    let used = |id: &str, at: i64| {
        let event = json!({
            "event_id": id, "timestamp": at, "tenant_id": "acme", "user_id": "ann", "session_id": "s-1",
            "token_id": "cookie-1", "token_type": "session", "ip_address": "192.0.2.7", "user_agent": "curl/8.5.0",
            "method": "GET", "endpoint": "/v1/items", "status": 200,
        });
        kafka.produce_with("murmur2_random", TOPIC, "acme/ann", event.to_string().as_bytes());
    };
    for hour in (2..30).rev() {
        used(&format!("use-{hour}"), now - hour * 3_600_000);
    }
    service.until("SELECT count() FROM token_events WHERE kind = 'use'", "28");
    let claims = json!({
        "iss": "https://id.example", "aud": "warden", "iat": now / 1_000, "jti": "set-1",
        "sub_id": {
            "format": "complex", "user": { "format": "iss_sub", "iss": "https://id.example", "sub": "ann" },
            "session": { "format": "opaque", "id": "s-1" },
        },
        "events": { "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {
            "event_timestamp": now / 1_000 - 3_600
        } },
    });
    let push = |token: String| {
        let request = reqwest::Client::new().post(format!("http://127.0.0.1:{port}/events"));
        let request = request.header("content-type", "application/secevent+jwt").body(token);
        blocking(request.send()).expect("an answer").status().as_u16()
    };
    let stranger = PKey::generate_ed25519().expect("a key");
    assert_eq!(push(signed(&stranger, &claims)), 400);
    // A repetition has no effect.
    for _ in 0..2 {
        assert_eq!(push(signed(&key, &claims)), 202, "{}", service.log());
    }
    let ended = "SELECT count(), any(session_id), any(user_id) FROM token_events WHERE kind = 'session_ended'";
    service.until(ended, "1,\"s-1\",\"ann\"");
    used("late", now - 60_000);
    let rules = "SELECT has(rules, 'use_after_session_end') FROM token_events WHERE event_id = 'late'";
    service.until(rules, "1");
    assert_eq!(service.sql(ended), "1,\"s-1\",\"ann\"", "the repetition is not stored");
    let places = "SELECT uniqExact(source_partition) FROM token_events";
    assert_eq!(service.sql(places), "1", "the event is in the partition of its user");
    service.until_metric("tokenwarden_signals_requests_total{status=\"202\"} 2");
    assert_eq!(service.terminate().0.code(), Some(0));
}
