//! A receiver on loopback, which verifies the tokens with the public key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::pkey::PKey;

use super::*;
use crate::jose::{Algorithm, KeySet, Signed};
use crate::notify::tests::incident;
use crate::outgoing::receiver::{At, NOW, Receiver, Seen};
use crate::port::{Confirmation, Notice};

/// A channel with a new Ed25519 key, and the key set of its receiver.
fn channel(url: &str, more: &str) -> (Signals, KeySet) {
    let key = PKey::generate_ed25519().expect("a key");
    let pem = String::from_utf8(key.private_key_to_pem_pkcs8().expect("PEM")).expect("text");
    let text = format!(
        "kind = 'shared_signals'\nurl = '{url}/events'\ntoken = 'push-t0ken'\nprivate_key = '''{pem}'''\n{more}\n[values]\n\
         issuer = 'https://warden.example'\naudience = 'https://rp.example'\nkey_id = 'k1'\n\
         subject_issuer = 'https://id.example'"
    );
    let settings: ChannelSettings = toml::from_str(&text).expect("settings");
    let x = URL_SAFE_NO_PAD.encode(key.raw_public_key().expect("a key"));
    let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": x }] });
    let keys = KeySet::parse(set.to_string().as_bytes()).expect("keys");
    (Signals::new("caep", &settings, Arc::new(At)).expect("a channel"), keys)
}

fn verified(seen: &Seen, keys: &KeySet) -> Signed {
    assert_eq!((&*seen.line, seen.header("content-type")), ("POST /events", MEDIA_TYPE));
    assert_eq!((seen.header("accept"), seen.header("authorization")), ("application/json", "Bearer push-t0ken"));
    let signed = keys.verify(&seen.body, &[Algorithm::EdDsa]).expect("a valid signature");
    assert_eq!((&*signed.kind, signed.text("iss")), (TYP, Some("https://warden.example")));
    assert!(signed.is_for("https://rp.example"));
    assert_eq!(signed.time("iat"), Some(NOW));
    signed
}

fn revoked(radius: Option<Radius>) -> Progress {
    let confirmation = Confirmation { revoked_at: 1_795_000_540_000, verified_at: None, radius };
    Progress { confirmation: Some(confirmation), ..Progress::of(Revocation::Done) }
}

#[tokio::test]
async fn revocation_and_risk_are_pushed_as_signed_events() {
    let (receiver, url) = Receiver::start().await;
    let (channel, keys) = channel(&url, "");
    let (incident, progress) = (incident(), revoked(None));
    let alert = Alert::Incident { incident: &incident, progress: &progress };
    for _ in 0..2 {
        receiver.reply(202, "");
    }
    assert_eq!(channel.notify(alert, "INC-42-a").await.expect("accepted"), Accepted::with(202));
    let seen = receiver.take();
    let [session, risk] = &seen[..] else { panic!("{seen:?}") };
    let (risk, session) = (verified(risk, &keys), verified(session, &keys));
    let subject = json!({
        "format": "complex",
        "user": { "format": "iss_sub", "iss": "https://id.example", "sub": "ana" },
        "session": { "format": "opaque", "id": "ci-deploy" },
        "tenant": { "format": "opaque", "id": "acme" },
    });
    let id = incident.id.to_string();
    for signed in [&risk, &session] {
        assert_eq!((&signed.claims["sub_id"], signed.text("txn")), (&subject, Some(id.as_str())));
        assert!(!signed.claims.contains_key("exp") && !signed.claims.contains_key("sub"), "RFC 8417 section 2.2");
    }
    assert_eq!(risk.text("jti"), Some("INC-42-a"));
    let expected = json!({ RISK_LEVEL_CHANGE: { "principal": "USER", "current_level": "HIGH",
        "risk_reason": "two holders, DE and BR, within 9 minutes", "event_timestamp": 1_795_000_530,
        "initiating_entity": "policy" } });
    assert_eq!(risk.claims["events"], expected);
    let expected = json!({ SESSION_REVOKED: { "event_timestamp": 1_795_000_540, "initiating_entity": "policy",
        "reason_admin": { "en": "two holders, DE and BR, within 9 minutes" } } });
    assert_eq!(session.claims["events"], expected);

    // A later change has another level of risk, and no other revocation.
    receiver.reply(202, "");
    channel.notify(alert, "INC-42-b").await.expect("accepted");
    assert_eq!(receiver.take().len(), 1);
    // A request that ends the user has no session as its subject.
    for _ in 0..2 {
        receiver.reply(202, "");
    }
    let progress = revoked(Some(Radius::User));
    let (channel, keys) = self::channel(&url, "");
    channel.notify(Alert::Incident { incident: &incident, progress: &progress }, "k").await.expect("accepted");
    let subject = &verified(&receiver.take()[0], &keys).claims["sub_id"];
    assert!(subject["user"].is_object() && subject["session"].is_null(), "{subject}");
}

#[tokio::test]
async fn hostile_values_stay_values_of_their_claims() {
    let (receiver, url) = Receiver::start().await;
    let (channel, keys) = channel(&url, "");
    let hostile = "ana\",\"iss\":\"https://evil.example\"\r\nX-Evil: 1\u{202e}\u{0}.é";
    let incident = crate::verdict::Incident {
        user_id: hostile.to_owned(),
        tenant_id: hostile.to_owned(),
        family_id: hostile.to_owned(),
        revoke: Some(Target::Family(hostile.to_owned())),
        reason: hostile.to_owned(),
        ..incident()
    };
    let progress = revoked(None);
    for _ in 0..2 {
        receiver.reply(202, "");
    }
    channel.notify(Alert::Incident { incident: &incident, progress: &progress }, "k").await.expect("accepted");
    let seen = receiver.take();
    assert_eq!(seen.len(), 2);
    for seen in &seen {
        assert_eq!(seen.header("x-evil"), "");
        let signed = verified(seen, &keys);
        assert_eq!(signed.claims["sub_id"]["user"]["sub"], hostile, "the subject is the user, unchanged");
        assert_eq!(signed.claims.keys().filter(|key| *key == "iss").count(), 1);
    }
}

#[tokio::test]
async fn revocation_without_confirmation_is_no_signal() {
    let (receiver, url) = Receiver::start().await;
    let (channel, _) = channel(&url, "");
    let incident = incident();
    for revocation in [Revocation::Failed("no".to_owned()), Revocation::Shadow, Revocation::Paused, Revocation::Done] {
        receiver.reply(202, "");
        let progress = Progress::of(revocation);
        let key = format!("{:?}", progress.revocation);
        channel.notify(Alert::Incident { incident: &incident, progress: &progress }, &key).await.expect("accepted");
        assert_eq!(receiver.take().len(), 1, "{key}: only the level of risk");
    }
}

#[tokio::test]
async fn notice_is_a_verification_event() {
    let (receiver, url) = Receiver::start().await;
    let (channel, keys) = channel(&url, "");
    receiver.reply(202, "");
    let notice = Notice { title: "test".to_owned(), text: "secret words".to_owned(), at: 0, about: None };
    channel.notify(Alert::Notice(&notice), "notice-1").await.expect("accepted");
    let signed = verified(&receiver.take()[0], &keys);
    assert_eq!(signed.claims["events"], json!({ VERIFICATION: { "state": "notice-1" } }));
}

#[tokio::test]
async fn answers_of_the_receiver_are_classified() {
    let (receiver, url) = Receiver::start().await;
    let (channel, _) = channel(&url, "");
    let notice = Notice { title: String::new(), text: String::new(), at: 0, about: None };
    let invalid = r#"{"err":"invalid_audience","description":"\u001b[2J"}"#;
    for (status, body, expected) in [
        (202, "", "accepted"),
        (200, "", "given up: the receiver answered 200"),
        (302, "", "given up: the receiver answered 302"),
        (400, invalid, "given up: the receiver answered 400 (invalid_audience)"),
        (400, r#"{"err":"own\u001b[2J"}"#, "given up: the receiver answered 400"),
        (400, "<html>", "given up: the receiver answered 400"),
        (410, "", "given up: the receiver answered 410"),
        (
            401,
            r#"{"err":"authentication_failed"}"#,
            "will be retried: the receiver answered 401 (authentication_failed)",
        ),
        (429, "", "will be retried: the receiver answered 429"),
        (500, "", "will be retried: the receiver answered 500"),
    ] {
        receiver.reply_with(status, &[("retry-after", "7")], body);
        let key = format!("{status} {body}");
        let got = channel.notify(Alert::Notice(&notice), &key).await;
        let got = got.map_or_else(|error| error.to_string(), |_| "accepted".to_owned());
        assert_eq!(got, expected, "{status} {body}");
    }
}

#[tokio::test]
async fn accepted_event_is_not_pushed_again_by_a_retry() {
    let (receiver, url) = Receiver::start().await;
    let (channel, _) = channel(&url, "");
    let (incident, progress) = (incident(), revoked(None));
    let alert = Alert::Incident { incident: &incident, progress: &progress };
    receiver.reply(202, "");
    receiver.reply(503, "");
    assert!(channel.notify(alert, "k").await.is_err());
    assert_eq!(receiver.take().len(), 2);
    receiver.reply(202, "");
    assert!(channel.notify(alert, "k").await.is_ok());
    assert_eq!(receiver.take().len(), 1, "the event that failed");
}

#[tokio::test]
async fn rejected_event_does_not_suppress_the_others() {
    let (receiver, url) = Receiver::start().await;
    let (channel, keys) = channel(&url, "");
    let (incident, progress) = (incident(), revoked(None));
    let alert = Alert::Incident { incident: &incident, progress: &progress };
    for statuses in [[202, 400], [400, 202]] {
        let (channel, _) = self::channel(&url, "");
        for status in statuses {
            receiver.reply(status, "");
        }
        let error = channel.notify(alert, "k").await.expect_err("one event is rejected");
        assert!(matches!(error, DeliveryError::Permanent { status: 400, .. }), "{error}");
        assert_eq!(receiver.take().len(), 2, "both events are pushed");
    }
    receiver.reply(400, "");
    receiver.reply(503, "");
    let error = channel.notify(alert, "k").await.expect_err("both fail");
    assert!(matches!(error, DeliveryError::Retriable { status: 503, .. }), "{error}");
    let session = verified(&receiver.take()[0], &keys);
    assert!(session.claims["events"].get(SESSION_REVOKED).is_some(), "the revocation is first");
}

#[test]
fn settings_error_has_the_key() {
    let mistake = |text: &str| {
        let settings: ChannelSettings = toml::from_str(&format!("kind = 'shared_signals'\n{text}")).expect("settings");
        Signals::new("caep", &settings, Arc::new(At)).map(|_| ()).expect_err(text)
    };
    assert_eq!(mistake("").0, "url");
    assert_eq!(mistake("url = 'http://rp.example/x'").0, "url");
    assert_eq!(mistake("url = 'https://rp.example/x'").0, "private_key");
    let (key, problem) = mistake("url = 'https://rp.example/x'\nprivate_key = 's3cret'");
    assert!(key == "private_key" && !problem.contains("s3cret"), "{problem}");
    let key = PKey::generate_ed25519().expect("a key").private_key_to_pem_pkcs8().expect("PEM");
    let key = format!("url = 'https://rp.example/x'\nprivate_key = '''{}'''\n", String::from_utf8_lossy(&key));
    assert_eq!(mistake(&format!("{key}values = {{ issuer = 'a', audience = 'b' }}")).1, "has no `key_id`");
    assert!(mistake(&format!("{key}values = {{ isuer = 'a' }}")).1.contains("has `isuer`"));
}
