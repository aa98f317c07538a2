//! Alerts by e-mail. Each recipient gets a mail of their own, so that one bad address does not affect the others.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::PoolConfig;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::response::Code;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::sync::watch;
use url::Url;

use super::mail;
use super::words::section;
use crate::outgoing::is_loopback;
use crate::port::{Accepted, Alert, DeliveryError, Notifier};
use crate::rule::RuleSet;
use crate::sanitize;

/// Maximum time for the answer to one SMTP command.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which an unused connection is closed, shorter than the limit of most servers.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// `[alert.email]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailSettings {
    /// `smtps://host:465`, or `smtp://host:587`.
    pub smtp_url: String,
    /// Only with `smtp://`.
    pub starttls: Option<StartTls>,
    pub from: String,
    pub to: Vec<String>,
    pub username: Option<String>,
    pub password: Option<SecretString>,
    /// Allows the password to be sent to another machine unencrypted.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// Certificate authority that is trusted in addition to those of the system, PEM.
    pub ca_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartTls {
    #[default]
    Required,
    Opportunistic,
    None,
}

/// Sends alerts to one recipient.
pub struct Email {
    shared: Arc<Shared>,
    to: Address,
}

/// Connection and settings that all recipients share.
struct Shared {
    name: String,
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    /// All recipients, for the header `To` of each mail.
    to: Vec<Mailbox>,
    rules: watch::Receiver<Arc<RuleSet>>,
}

impl Email {
    /// One notifier per recipient. `rules` have the runbooks that mails contain. The error is the key in its section
    /// and the problem; it contains no secret.
    pub fn new(
        name: &str,
        settings: &EmailSettings,
        rules: watch::Receiver<Arc<RuleSet>>,
    ) -> Result<Vec<Self>, (&'static str, String)> {
        let mailbox = |key, text: &str| {
            text.parse::<Mailbox>().map_err(|_| (key, format!("`{}` is not a mail address", sanitize::line(text))))
        };
        let from = mailbox("from", &settings.from)?;
        let to = settings.to.iter().map(|to| mailbox("to", to)).collect::<Result<Vec<_>, _>>()?;
        if to.is_empty() {
            return Err(("to", "has no recipient".to_owned()));
        }
        let recipients: Vec<_> = to.iter().map(|mailbox| mailbox.email.clone()).collect();
        let shared = Arc::new(Shared { name: name.to_owned(), transport: transport(settings)?, from, to, rules });
        Ok(recipients.into_iter().map(|to| Self { shared: Arc::clone(&shared), to }).collect())
    }

    fn message(&self, alert: Alert<'_>, key: &str) -> Result<Message, DeliveryError> {
        let Shared { from, to, rules, .. } = &*self.shared;
        let rules = Arc::clone(&rules.borrow());
        let mail = mail::compose(alert, &rules);
        let domain = from.email.domain();
        let mut builder = Message::builder()
            .from(from.clone())
            .subject(mail.subject)
            .message_id(Some(format!("<{key}@{domain}>")))
            .raw_header(header("Auto-Submitted", "auto-generated"))
            .raw_header(header("X-Auto-Response-Suppress", "All"));
        for mailbox in to {
            builder = builder.to(mailbox.clone());
        }
        if let Alert::Incident { incident, .. } = alert {
            // All mails of an incident refer to the same root, so that mail clients show them as one thread.
            let root = format!("<{}@{domain}>", incident.id);
            builder = builder
                .in_reply_to(root.clone())
                .references(root)
                .raw_header(header("X-Tokenwarden-Incident", &incident.id.to_string()));
        }
        let envelope = lettre::address::Envelope::new(Some(from.email.clone()), vec![self.to.clone()]);
        let envelope = envelope.map_err(|error| permanent(format!("the mail cannot be addressed: {error}")))?;
        builder
            .envelope(envelope)
            .multipart(MultiPart::alternative_plain_html(mail.text, mail.html))
            .map_err(|error| permanent(format!("the mail cannot be written: {error}")))
    }
}

#[async_trait]
impl Notifier for Email {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn lane(&self) -> String {
        format!("{} {}", self.name(), self.target())
    }

    fn target(&self) -> String {
        self.to.to_string()
    }

    async fn notify(&self, alert: Alert<'_>, key: &str) -> Result<Accepted, DeliveryError> {
        let message = self.message(alert, key)?;
        match self.shared.transport.send(message).await {
            Ok(_) => Ok(Accepted::default()),
            Err(error) => Err(delivery_error(&section(&self.shared.name), &error)),
        }
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        match self.shared.transport.test_connection().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(DeliveryError::Retriable {
                reason: "the mail server does not respond".to_owned(),
                status: 0,
                retry_after: None,
            }),
            Err(error) => Err(delivery_error(&section(&self.shared.name), &error)),
        }
    }
}

/// The error of a mail. `section`: name of the section with the settings of the mail server.
pub(super) fn delivery_error(section: &str, error: &lettre::transport::smtp::Error) -> DeliveryError {
    let reply = innermost(error);
    let reason = match meaning(error.status()) {
        Meaning::Credentials => {
            format!("the mail server rejects the credentials ({reply}); correct {section}.username or its password")
        }
        // The text of a reply may contain values of the event, its codes do not.
        Meaning::Later | Meaning::Never if error.status().is_some() => {
            format!("the mail server answered {}", codes(&reply))
        }
        _ if error.is_timeout() => format!("the mail server ({section}.smtp_url) does not respond in time"),
        _ if error.is_tls() => format!("TLS with the mail server ({section}.smtp_url) failed: {reply}"),
        _ => format!("the mail server ({section}.smtp_url) cannot be reached: {reply}"),
    };
    match meaning(error.status()) {
        Meaning::Never => DeliveryError::Rejected { reason, words: reply },
        Meaning::Later | Meaning::Credentials => DeliveryError::Retriable { reason, status: 0, retry_after: None },
    }
}

pub(super) fn transport(
    settings: &EmailSettings,
) -> Result<AsyncSmtpTransport<Tokio1Executor>, (&'static str, String)> {
    let url = Url::parse(&settings.smtp_url).map_err(|error| ("smtp_url", format!("is not a URL: {error}")))?;
    let wrong = |problem: &str| Err(("smtp_url", problem.to_owned()));
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else { return wrong("has no host") };
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("contains a user or password; use `username` and `password_file`");
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return wrong("contains more than a host and a port");
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let (tls, port): (fn(TlsParameters) -> Tls, u16) = match (url.scheme(), settings.starttls) {
        ("smtps", None) => (Tls::Wrapper, 465),
        ("smtps", Some(_)) => return Err(("starttls", "is valid only with smtp://".to_owned())),
        ("smtp", Some(StartTls::Opportunistic)) => (Tls::Opportunistic, 587),
        ("smtp", Some(StartTls::None)) => (|_| Tls::None, 25),
        ("smtp", _) => (Tls::Required, 587),
        _ => return wrong("must begin with smtps:// or smtp://"),
    };
    // An attacker on the network can remove the offer of opportunistic STARTTLS and read the password.
    let may_be_plaintext = matches!(settings.starttls, Some(StartTls::Opportunistic | StartTls::None));
    if may_be_plaintext && settings.password.is_some() && !settings.allow_plaintext && !is_loopback(host) {
        let problem = "may send the password unencrypted: use \"required\", or set allow_plaintext = true";
        return Err(("starttls", problem.to_owned()));
    }
    let mut parameters = TlsParameters::builder(host.to_owned());
    if let Some(file) = &settings.ca_file {
        let pem = std::fs::read(file).map_err(|error| ("ca_file", format!("cannot be read: {error}")))?;
        let authority = Certificate::from_pem(&pem).map_err(|_| ("ca_file", "is not a PEM certificate".to_owned()))?;
        parameters = parameters.add_root_certificate(authority);
    }
    let parameters = parameters.build().map_err(|error| ("smtp_url", format!("TLS cannot be set up: {error}")))?;
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(url.port().unwrap_or(port))
        .tls(tls(parameters))
        .timeout(Some(TIMEOUT))
        .pool_config(PoolConfig::new().max_size(2).idle_timeout(IDLE_TIMEOUT));
    match (&settings.username, &settings.password) {
        (Some(user), Some(password)) => {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            builder = builder.credentials(credentials);
        }
        (None, None) => {}
        (Some(_), None) => return Err(("username", "requires `password_file`".to_owned())),
        (None, Some(_)) => return Err(("password", "requires `username`".to_owned())),
    }
    Ok(builder.build())
}

/// `name` and `value` are constants or ids of tokenwarden, in ASCII.
pub(super) fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

fn permanent(reason: String) -> DeliveryError {
    DeliveryError::Permanent { reason, status: 0 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// A retry may succeed.
    Later,
    /// A retry may succeed after the operator has corrected the password.
    Credentials,
    /// No retry succeeds.
    Never,
}

/// Meaning of a reply code for the mail (RFC 5321 section 4.2.1, RFC 4954 section 6). `None`: there was no reply.
fn meaning(code: Option<Code>) -> Meaning {
    match code.map(u16::from) {
        Some(530 | 534 | 535 | 538) => Meaning::Credentials,
        Some(500..) => Meaning::Never,
        _ => Meaning::Later,
    }
}

/// The codes at the start of a reply: the reply code and, if present, the enhanced status code (RFC 3463).
fn codes(reply: &str) -> String {
    let is_code = |word: &&str| word.len() <= 9 && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    reply.split(' ').take(2).take_while(is_code).collect::<Vec<_>>().join(" ")
}

/// The innermost cause on one line, without unsafe characters, because a server chooses its text.
fn innermost(error: &lettre::transport::smtp::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    if let Some(code) = error.status() {
        text = format!("{code} {text}");
    }
    super::words::shortened(&super::words::plain(&text), 200)
}

#[cfg(test)]
mod tests {
    use super::super::tests::incident;
    use super::*;
    use crate::port::{Progress, Revocation};

    fn settings(toml: &str) -> EmailSettings {
        let common = "from = 'Warden <w@example.com>'\nto = ['a@example.com', 'b@example.org']\n";
        toml::from_str(&format!("{common}{toml}")).expect("settings")
    }

    fn emails(toml: &str) -> Result<Vec<Email>, (&'static str, String)> {
        let (_, rules) = watch::channel(Arc::new(RuleSet::builtin()));
        Email::new("email", &settings(toml), rules)
    }

    fn code(code: u16) -> Code {
        let reply = format!("{code} x\r\n");
        reply.parse::<lettre::transport::smtp::response::Response>().expect("a reply").code()
    }

    #[test]
    fn meaning_of_replies_follows_the_rfcs() {
        for (reply, expected) in [
            (None, Meaning::Later),
            (Some(code(421)), Meaning::Later),
            (Some(code(451)), Meaning::Later),
            (Some(code(550)), Meaning::Never),
            (Some(code(554)), Meaning::Never),
            (Some(code(535)), Meaning::Credentials),
            (Some(code(530)), Meaning::Credentials),
        ] {
            assert_eq!(meaning(reply), expected, "{reply:?}");
        }
    }

    #[test]
    fn codes_contain_no_text_of_the_reply() {
        assert_eq!(codes("550 5.1.1 <ana@example.com> unknown"), "550 5.1.1");
        assert_eq!(codes("554 ana is unknown"), "554");
        assert_eq!(codes("451"), "451");
    }

    #[test]
    fn settings_error_has_the_key_and_no_secret() {
        let mistake = |toml: &str| emails(toml).map(|_| ()).expect_err(toml);
        assert_eq!(mistake("smtp_url = 'https://h'").0, "smtp_url");
        assert_eq!(mistake("smtp_url = 'smtps://h:465'\nstarttls = 'required'").0, "starttls");
        assert_eq!(mistake("smtp_url = 'smtp://h'\nusername = 'u'").0, "username");
        assert_eq!(mistake("smtp_url = 'smtp://h'\nca_file = '/none'").0, "ca_file");
        let (key, problem) = mistake("smtp_url = 'smtp://me:s3cret@h'");
        assert_eq!(key, "smtp_url");
        assert!(!problem.contains("s3cret"), "{problem}");
    }

    #[tokio::test]
    async fn mails_of_one_incident_form_a_thread() {
        let emails = emails("smtp_url = 'smtp://127.0.0.1:2525'").expect("settings");
        assert_eq!(emails.len(), 2, "one per recipient");
        let mut incident = incident();
        incident.reason = "x\r\nBcc: thief@example.net\r\n\r\nbody".to_owned();
        let headers = |email: &Email, key: &str| {
            let alert = Alert::Incident { incident: &incident, progress: &Progress::of(Revocation::Done) };
            let mail = String::from_utf8(email.message(alert, key).expect("a mail").formatted()).expect("UTF-8");
            let head = mail.split("\r\n\r\n").next().expect("a head").replace("\r\n ", " ");
            head.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let (first, second) = (headers(&emails[0], "INC-42-a"), headers(&emails[1], "INC-42-b"));
        let has = |head: &[String], line: &str| head.iter().any(|found| found == line);
        assert!(has(&first, "Message-ID: <INC-42-a@example.com>"), "{first:?}");
        assert!(has(&second, "Message-ID: <INC-42-b@example.com>"), "{second:?}");
        for head in [&first, &second] {
            assert!(has(head, "References: <INC-0000000000000042@example.com>"), "{head:?}");
            assert!(has(head, "In-Reply-To: <INC-0000000000000042@example.com>"), "{head:?}");
            assert!(has(head, "Auto-Submitted: auto-generated"), "{head:?}");
            assert!(!head.iter().any(|line| line.starts_with("Bcc")), "{head:?}");
        }
    }
}
