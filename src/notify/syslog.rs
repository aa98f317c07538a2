//! Alerts by syslog: RFC 5424 messages over TLS (RFC 5425), or over TCP to this machine with the same framing (RFC 6587
//! section 3.4.1, octet counting).

use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_native_tls::TlsConnector;
use tokio_native_tls::native_tls::{Certificate, Protocol, TlsConnector as Builder};
use url::Url;

use super::escape::Markup;
use super::settings::{ChannelSettings, required};
use super::{brief, ocsf, summary};
use crate::millis::rfc3339;
use crate::outgoing;
use crate::port::{Accepted, Alert, DeliveryError, Notifier};
use crate::verdict::Severity;

/// Port of syslog over TLS (RFC 5425 section 4.1).
const PORT: u16 = 6514;
/// Facility `authpriv` (RFC 5424 table 1: security/authorization messages).
const FACILITY: u8 = 10;
/// Largest message, bytes. Receivers should process this size (RFC 5425 section 4.3.1).
const MESSAGE_BYTES_MAX: usize = 8_192;
/// Longest parameter of the structured data and longest headline, UTF-16 code units.
const PARAM_UNITS_MAX: usize = 120;
const HEADLINE_UNITS_MAX: usize = 300;
/// Name of the structured data. 32473 is the enterprise number of RFC 5612 for examples.
const SD_ID: &str = "tokenwarden@32473";
const SD_ID_BYTES_MAX: usize = 32;
/// Time limit for the handshake, the message and the end of the connection.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the receiver to close the connection, and so to confirm that it has read the message.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// Longest host name (RFC 5424 section 6).
const HOST_BYTES_MAX: usize = 255;

/// Sends alerts to one receiver, each in a connection of its own.
pub(super) struct Syslog {
    name: String,
    /// With its scheme, for the audit trail.
    target: String,
    host: String,
    port: u16,
    /// `None`: TCP to this machine.
    tls: Option<TlsConnector>,
    allow_private: bool,
    hostname: String,
    sd_id: String,
}

impl Syslog {
    /// The error is the key in the section and the problem.
    pub(super) fn new(name: &str, settings: &ChannelSettings) -> Result<Self, (&'static str, String)> {
        let wrong = |problem: &str| ("url", problem.to_owned());
        let text = required("url", settings.url.as_ref())?;
        let (is_tls, rest) = match text.split_once("://") {
            Some(("tls", rest)) => (true, rest),
            Some(("tcp", rest)) => (false, rest),
            _ => return Err(wrong("must begin with tls:// or tcp://, for example tls://logs.example:6514")),
        };
        // `https` has the same notation of hosts.
        let url = Url::parse(&format!("https://{rest}")).map_err(|error| wrong(&format!("is not a URL: {error}")))?;
        let allow_private = settings.allow_private.unwrap_or_default();
        outgoing::check_url(&url, allow_private).map_err(|problem| ("url", problem))?;
        if url.path() != "/" || url.query().is_some() {
            return Err(wrong("contains more than a host and a port"));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        if !is_tls && !outgoing::is_loopback(&host) {
            return Err(wrong("must be tls://, except on loopback"));
        }
        let port = rest.trim_end_matches('/').rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(PORT);
        let sd_id = settings.values.get("sd_id").map_or(SD_ID, String::as_str).to_owned();
        if let Some(unknown) = settings.values.keys().find(|key| *key != "sd_id") {
            return Err(("values", format!("has `{unknown}`, which syslog does not use; the known value is `sd_id`")));
        }
        let is_plain = sd_id.bytes().all(|byte| byte.is_ascii_graphic() && !b"=]\"".contains(&byte));
        if sd_id.is_empty() || sd_id.len() > SD_ID_BYTES_MAX || !is_plain {
            return Err(("values", "has a `sd_id` that is not of the form NAME@ENTERPRISE-NUMBER".to_owned()));
        }
        let tls = is_tls.then(|| connector(settings.ca_file.as_deref())).transpose()?;
        let target = format!("{}://{host}:{port}", if is_tls { "tls" } else { "tcp" });
        Ok(Self { name: name.to_owned(), target, host, port, tls, allow_private, hostname: hostname(), sd_id })
    }

    async fn send(&self, frame: &[u8]) -> io::Result<()> {
        let stream = outgoing::connect(&self.host, self.port, self.allow_private).await?;
        match &self.tls {
            None => deliver(stream, frame).await,
            Some(tls) => {
                let host = self.host.trim_start_matches('[').trim_end_matches(']');
                deliver(tls.connect(host, stream).await.map_err(io::Error::other)?, frame).await
            }
        }
    }

    /// Sends `frame`, which may be empty.
    async fn attempt(&self, frame: &[u8]) -> Result<(), DeliveryError> {
        let sent = tokio::time::timeout(TIMEOUT, self.send(frame)).await;
        let reason = match sent {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => format!("the syslog receiver cannot be reached: {error}"),
            Err(_) => "the syslog receiver does not respond in time".to_owned(),
        };
        Err(DeliveryError::Retriable { reason, status: 0, retry_after: None })
    }

    /// The message of RFC 5424 section 6, at most [`MESSAGE_BYTES_MAX`] bytes.
    fn message(&self, alert: Alert<'_>, key: &str) -> String {
        let (severity, at, kind) = match alert {
            Alert::Incident { incident, .. } => (incident.severity, incident.updated_at.millis(), "incident"),
            Alert::Notice(notice) => (Severity::High, notice.at, "notice"),
        };
        let priority = FACILITY * 8 + level(severity);
        let mut text = format!("<{priority}>1 {} {} tokenwarden - {kind} [{}", rfc3339(at), self.hostname, self.sd_id);
        for (name, value) in parameters(alert, key) {
            if !value.is_empty() {
                let value = Markup::StructuredData.line(&value, PARAM_UNITS_MAX);
                let _ = write!(text, " {name}=\"{value}\"");
            }
        }
        let (headline, details) = match alert {
            Alert::Incident { incident, progress } => {
                (brief::headline(incident, progress), brief::details(incident, progress))
            }
            Alert::Notice(notice) => (notice.title.clone(), notice.text.clone()),
        };
        // The byte order mark states that the text is UTF-8 (RFC 5424 section 6.4).
        let _ = write!(text, "] \u{feff}{}", Markup::Plain.line(&headline, HEADLINE_UNITS_MAX));
        for line in details.lines() {
            let _ = write!(text, " | {}", Markup::Plain.line(line, usize::MAX));
        }
        let mut end = text.len().min(MESSAGE_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text
    }
}

/// Parameters of the structured data. Those that are empty are left out.
fn parameters(alert: Alert<'_>, key: &str) -> Vec<(&'static str, String)> {
    let mut parameters = vec![("key", key.to_owned())];
    if let Alert::Incident { incident, progress } = alert {
        let fired = incident.signals.iter().filter(|signal| signal.fired);
        parameters.extend([
            ("incident", incident.id.to_string()),
            ("severity", summary::severity(incident.severity).to_ascii_lowercase()),
            ("tenant", incident.tenant_id.clone()),
            ("user", incident.user_id.clone()),
            ("app", incident.app_id.clone()),
            ("grant", incident.family_id.clone()),
            ("token", incident.token_id.clone()),
            ("rules", fired.map(|signal| signal.rule.as_str()).collect::<Vec<_>>().join(",")),
            ("revocation", ocsf::revocation_word(&progress.revocation).to_owned()),
        ]);
    }
    parameters
}

#[async_trait]
impl Notifier for Syslog {
    fn name(&self) -> &str {
        &self.name
    }

    fn target(&self) -> String {
        self.target.clone()
    }

    /// Syslog has no answers. The message counts as accepted if the connection ends without an error.
    async fn notify(&self, alert: Alert<'_>, key: &str) -> Result<Accepted, DeliveryError> {
        let message = self.message(alert, key);
        let frame = format!("{} {message}", message.len());
        self.attempt(frame.as_bytes()).await.map(|()| Accepted::default())
    }

    /// Connects, with the TLS handshake.
    async fn probe(&self) -> Result<(), DeliveryError> {
        self.attempt(b"").await
    }
}

/// Level of a severity (RFC 5424 table 2).
const fn level(severity: Severity) -> u8 {
    match severity {
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Low => 5,
        Severity::Info => 6,
    }
}

fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, (&'static str, String)> {
    let mut builder = Builder::builder();
    // RFC 5425 section 4.2, as updated by RFC 9662.
    builder.min_protocol_version(Some(Protocol::Tlsv12));
    if let Some(file) = ca_file {
        let pem = std::fs::read(file).map_err(|error| ("ca_file", format!("cannot be read: {error}")))?;
        let authority = Certificate::from_pem(&pem).map_err(|_| ("ca_file", "is not a PEM certificate".to_owned()))?;
        builder.add_root_certificate(authority);
    }
    builder.build().map(TlsConnector::from).map_err(|error| ("url", format!("TLS cannot be set up: {error}")))
}

/// Writes `frame`, ends the connection, and waits shortly for the receiver's end of it.
async fn deliver(mut stream: impl AsyncRead + AsyncWrite + Unpin, frame: &[u8]) -> io::Result<()> {
    stream.write_all(frame).await?;
    stream.flush().await?;
    stream.shutdown().await?;
    let end = async {
        let mut ignored = [0; 256];
        while stream.read(&mut ignored).await? > 0 {}
        io::Result::Ok(())
    };
    match tokio::time::timeout(CLOSE_WAIT, end).await {
        // The receiver has closed the connection before it had read everything.
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Err(error),
        // Some receivers close without the TLS message that ends a connection, or keep it open.
        _ => Ok(()),
    }
}

/// Name of this machine, or the nil value of RFC 5424.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let is_plain = !name.is_empty() && name.len() <= HOST_BYTES_MAX && name.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain { name.to_owned() } else { "-".to_owned() }
}

#[cfg(test)]
mod tests;
