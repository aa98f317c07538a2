//! Syslog against real listeners that parse the frames: TLS with OpenSSL, and TCP.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_native_tls::TlsAcceptor;
use tokio_native_tls::native_tls::{Identity, TlsAcceptor as Acceptor};

use super::super::tests::incident;
use super::*;
use crate::port::{Notice, Progress, Revocation};
use crate::sanitize;
use crate::verdict::Incident;

/// A message as a receiver parses it.
#[derive(Debug)]
struct Parsed {
    priority: u8,
    header: Vec<String>,
    params: Vec<(String, String)>,
    text: String,
    bytes: usize,
}

/// Parses frames with octet counting (RFC 5425 section 4.3). Panics if `bytes` does not end with a frame.
fn frames(mut bytes: &[u8]) -> Vec<Parsed> {
    let mut parsed = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').expect("MSG-LEN and a space");
        let length: usize = std::str::from_utf8(&bytes[..space]).expect("digits").parse().expect("a number");
        let message = &bytes[space + 1..space + 1 + length];
        parsed.push(message_of(std::str::from_utf8(message).expect("UTF-8")));
        bytes = &bytes[space + 1 + length..];
    }
    parsed
}

/// Parses RFC 5424 section 6.
fn message_of(message: &str) -> Parsed {
    let (priority, rest) = message.strip_prefix('<').expect("PRI").split_once('>').expect("PRI");
    let mut words = rest.splitn(7, ' ');
    let header: Vec<String> = words.by_ref().take(6).map(str::to_owned).collect();
    let data = words.next().expect("structured data");
    let mut chars = data.char_indices().skip(1);
    let (mut params, mut name, mut value) = (Vec::new(), String::new(), None::<String>);
    let end = loop {
        let (at, character) = chars.next().expect("the end of the structured data");
        match (&mut value, character) {
            (None, ']') => break at + 1,
            (None, '=') => assert_eq!(chars.next().map(|(_, c)| c), Some('"')),
            (None, '"') => panic!("a quote outside of a value"),
            (Some(_), ']') => panic!("a bracket in a value must be escaped"),
            (None, ' ') => name.clear(),
            (None, other) => name.push(other),
            (Some(text), '\\') => text.push(chars.next().expect("an escaped character").1),
            (Some(_), '"') => params.push((name.clone(), value.take().unwrap_or_default())),
            (Some(text), other) => text.push(other),
        }
        if character == '=' && value.is_none() {
            value = Some(String::new());
        }
    };
    let text = data[end..].strip_prefix(" \u{feff}").expect("a byte order mark").to_owned();
    Parsed { priority: priority.parse().expect("a number"), header, params, text, bytes: message.len() }
}

fn param<'a>(parsed: &'a Parsed, name: &str) -> &'a str {
    parsed.params.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
}

/// Accepts connections and sends what each received.
async fn listener(tls: Option<TlsAcceptor>) -> (u16, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let (seen, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = Vec::new();
            match &tls {
                None => _ = stream.read_to_end(&mut bytes).await,
                Some(tls) => {
                    if let Ok(mut stream) = tls.accept(stream).await {
                        let _ = stream.read_to_end(&mut bytes).await;
                        let _ = stream.shutdown().await;
                    }
                }
            }
            if seen.send(bytes).is_err() {
                return;
            }
        }
    });
    (port, received)
}

/// A TLS acceptor for `localhost`, and its certificate in PEM.
fn acceptor() -> (TlsAcceptor, String) {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let pem = key.cert.pem();
    let identity = Identity::from_pkcs8(pem.as_bytes(), key.signing_key.serialize_pem().as_bytes());
    let acceptor = Acceptor::new(identity.expect("an identity")).expect("an acceptor");
    (TlsAcceptor::from(acceptor), pem)
}

fn syslog(keys: &str) -> Result<Syslog, (&'static str, String)> {
    Syslog::new("soc", &toml::from_str(&format!("kind = 'syslog'\n{keys}")).expect("settings"))
}

fn hostile() -> Incident {
    let hostile = "a\"] [evil x=\"\\y\u{1b}[2J\r\n<1>1 - - - - - forged\u{202e}\u{200b}é😀".repeat(40);
    let mut incident = incident();
    for text in [&mut incident.user_id, &mut incident.app_id, &mut incident.tenant_id, &mut incident.token_id] {
        text.clone_from(&hostile);
    }
    incident.signals = vec![incident.signals[0].clone(); 9];
    incident.signals.iter_mut().for_each(|signal| signal.reason.clone_from(&hostile));
    incident
}

#[tokio::test]
async fn syslog_over_tls_sends_counted_frames() {
    let (tls, pem) = acceptor();
    let (port, mut received) = listener(Some(tls)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, pem).expect("a file");
    let syslog = syslog(&format!("url = 'tls://localhost:{port}'\nca_file = '{}'", ca.display())).expect("a channel");
    assert_eq!(syslog.target(), format!("tls://localhost:{port}"));
    syslog.probe().await.expect("the handshake succeeds");
    assert_eq!(received.recv().await, Some(Vec::new()), "a probe sends no message");
    for incident in [incident(), hostile()] {
        let progress = Progress::of(Revocation::Done);
        syslog
            .notify(Alert::Incident { incident: &incident, progress: &progress }, "INC-42-a")
            .await
            .expect("accepted");
        let bytes = received.recv().await.expect("a connection");
        let frames = frames(&bytes);
        let [message] = frames.as_slice() else { panic!("one frame: {frames:?}") };
        assert_eq!(message.priority, 83, "authpriv, error");
        assert_eq!((&*message.header[0], &*message.header[3], &*message.header[5]), ("1", "tokenwarden", "incident"));
        assert!(message.header[1].parse::<jiff::Timestamp>().is_ok(), "{:?}", message.header);
        assert_eq!((param(message, "key"), param(message, "revocation")), ("INC-42-a", "done"));
        assert!(message.bytes <= 8_192, "{}", message.bytes);
        assert_eq!(message.params.len(), 10, "{:?}", message.params);
        let all = message.params.iter().map(|(_, value)| value).chain([&message.text]);
        all.for_each(|text| assert!(!text.contains(sanitize::is_unsafe), "{text}"));
        if incident.user_id == "ana" {
            assert_eq!(param(message, "user"), "ana");
            assert!(message.text.starts_with("[HIGH] acme/ana crm: two holders"), "{}", message.text);
        } else {
            assert!(param(message, "user").starts_with("a\"] [evil x=\"\\y␛[2J␍␊<1>1 -"), "{}", param(message, "user"));
        }
    }
}

#[tokio::test]
async fn syslog_rejects_an_unknown_certificate() {
    let (tls, _) = acceptor();
    let (port, _received) = listener(Some(tls)).await;
    let syslog = syslog(&format!("url = 'tls://localhost:{port}'")).expect("a channel");
    let error = syslog.probe().await.expect_err("the certificate is not trusted");
    assert!(matches!(&error, DeliveryError::Retriable { reason, .. } if reason.contains("certificate")), "{error}");
}

#[tokio::test]
async fn syslog_over_tcp_sends_notices_to_this_machine() {
    let (port, mut received) = listener(None).await;
    let syslog =
        syslog(&format!("url = 'tcp://127.0.0.1:{port}'\nvalues = {{ sd_id = 'warden@41058' }}")).expect("a channel");
    let notice = Notice { title: "Caps".to_owned(), text: "One.\nTwo.".to_owned(), at: 1_795_000_000_000, about: None };
    syslog.notify(Alert::Notice(&notice), "notice-caps").await.expect("accepted");
    let bytes = received.recv().await.expect("a connection");
    let expected = format!(
        "<83>1 2026-11-18T11:06:40Z {} tokenwarden - notice [warden@41058 key=\"notice-caps\"] \u{feff}Caps | One. | Two.",
        hostname()
    );
    assert_eq!(String::from_utf8(bytes).expect("UTF-8"), format!("{} {expected}", expected.len()));
}

#[tokio::test]
async fn syslog_failure_is_retried() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("an address").port();
    let syslog = Arc::new(syslog(&format!("url = 'tcp://127.0.0.1:{closed}'")).expect("a channel"));
    assert!(matches!(syslog.probe().await, Err(DeliveryError::Retriable { .. })));
}

#[test]
fn syslog_settings_error_has_the_key() {
    let mistake = |keys: &str| syslog(keys).map(|_| ()).expect_err(keys);
    assert_eq!(mistake("").0, "url");
    assert!(mistake("url = 'https://logs.example'").1.contains("tls://"));
    assert!(mistake("url = 'tcp://logs.example:514'").1.contains("except on loopback"));
    assert!(mistake("url = 'tls://10.0.0.7:6514'").1.contains("allow_private"));
    assert!(mistake("url = 'tls://logs.example/x'").1.contains("more than a host"));
    assert_eq!(mistake("url = 'tls://logs.example'\nca_file = '/none'").0, "ca_file");
    assert_eq!(mistake("url = 'tls://logs.example'\nvalues = { sd_id = 'a]b' }").0, "values");
    assert_eq!(mistake("url = 'tls://logs.example'\nvalues = { sdid = 'a' }").0, "values");
    let port = |url: &str| syslog(&format!("url = '{url}'")).map(|syslog| syslog.port);
    assert_eq!(
        [port("tls://logs.example"), port("tls://logs.example:443"), port("tls://[2a00:1450::1]:99")],
        [Ok(6514), Ok(443), Ok(99)]
    );
}
