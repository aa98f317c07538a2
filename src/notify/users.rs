//! Messages to users: by mail to those whose user id is a mail address of an allowed domain, and by webhook.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::{Address, AsyncTransport as _, Message};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

use super::email::{EmailSettings, StartTls, delivery_error, header, transport};
use super::webhook::{Endpoint, WebhookSettings};
use crate::millis::rfc3339;
use crate::port::{Accepted, Clock, DeliveryError, Mistake, UserMessage, UserNotifier, UserText};
use crate::sanitize;

/// Longest mail address, bytes (RFC 5321 section 4.5.3.1.3, without the angle brackets).
const ADDRESS_BYTES_MAX: usize = 254;

/// `[notify_users]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserNoticeSettings {
    /// Domains of mail addresses to which mail is sent.
    pub domains: Vec<String>,
    /// Messages to one user within 24 hours.
    pub per_user_per_day: u32,
    /// Messages to all users within an hour.
    pub max_per_hour: u32,
    /// Folder with the files `revoked.txt` and `revoked_by_mistake.txt`, which replace the texts of the build.
    pub templates_dir: Option<PathBuf>,
    pub email: Option<UserEmailSettings>,
    pub webhook: Option<WebhookSettings>,
}

impl Default for UserNoticeSettings {
    fn default() -> Self {
        Self {
            domains: Vec::new(),
            per_user_per_day: 1,
            max_per_hour: 50,
            templates_dir: None,
            email: None,
            webhook: None,
        }
    }
}

impl UserNoticeSettings {
    /// Checks what the types do not ensure. The error is the key and the problem of its value.
    pub(crate) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if self.email.is_none() && self.webhook.is_none() {
            return Err(("notify_users", "has neither email nor webhook; add [notify_users.email]"));
        }
        if self.email.is_some() && self.domains.is_empty() {
            return Err(("notify_users.domains", "is empty, so no mail would be sent; list the domains of your users"));
        }
        let is_domain = |domain: &String| !domain.is_empty() && !domain.contains(['@', '*', ' ']);
        if !self.domains.iter().all(is_domain) {
            return Err(("notify_users.domains", "has an entry that is not a domain such as \"example.com\""));
        }
        if !(1..=24).contains(&self.per_user_per_day) {
            return Err(("notify_users.per_user_per_day", "must be between 1 and 24"));
        }
        if !(1..=10_000).contains(&self.max_per_hour) {
            return Err(("notify_users.max_per_hour", "must be between 1 and 10000"));
        }
        Ok(())
    }
}

/// `[notify_users.email]`: as `[alert.email]`, without recipients.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserEmailSettings {
    pub smtp_url: String,
    pub starttls: Option<StartTls>,
    pub from: String,
    pub username: Option<String>,
    pub password: Option<SecretString>,
    #[serde(default)]
    pub allow_plaintext: bool,
    pub ca_file: Option<PathBuf>,
}

/// The channels for messages to users.
pub fn open_users(settings: &UserNoticeSettings, clock: Arc<dyn Clock>) -> Result<Vec<Arc<dyn UserNotifier>>, Mistake> {
    let mut notifiers: Vec<Arc<dyn UserNotifier>> = Vec::new();
    if let Some(email) = &settings.email {
        notifiers.push(Arc::new(UserEmail::new(email, &settings.domains)?));
    }
    if let Some(webhook) = &settings.webhook {
        notifiers.push(Arc::new(UserWebhook::new(webhook, clock)?));
    }
    Ok(notifiers)
}

/// Mail to users.
struct UserEmail {
    /// A connection for each mail, because there are few. The pool of a transport that is kept must be dropped inside a
    /// runtime, and the outbox, which keeps this, may be dropped outside of one.
    connection: EmailSettings,
    from: Mailbox,
    /// In lower case.
    domains: BTreeSet<String>,
}

impl UserEmail {
    fn new(settings: &UserEmailSettings, domains: &[String]) -> Result<Self, (&'static str, String)> {
        let from = settings.from.parse::<Mailbox>();
        let from =
            from.map_err(|_| ("email.from", format!("`{}` is not a mail address", sanitize::line(&settings.from))))?;
        let connection = EmailSettings {
            smtp_url: settings.smtp_url.clone(),
            starttls: settings.starttls,
            from: String::new(),
            to: Vec::new(),
            username: settings.username.clone(),
            password: settings.password.clone(),
            allow_plaintext: settings.allow_plaintext,
            ca_file: settings.ca_file.clone(),
        };
        drop(transport(&connection).map_err(|(key, problem)| (in_email(key), problem))?);
        Ok(Self { connection, from, domains: domains.iter().map(|domain| domain.to_lowercase()).collect() })
    }

    /// The address in a user id. Clients may choose user ids, so only plain addresses of an allowed domain count. Mail
    /// servers interpret other characters of RFC 5322 section 3.2.3: `%` and `!` as relays, `|` and `/` as commands and
    /// files, and a leading `-` as an option.
    fn address(&self, user_id: &str) -> Option<Address> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-'@".contains(&byte);
        let is_first = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let is_safe = user_id.bytes().all(is_plain) && user_id.as_bytes().first().is_some_and(is_first);
        if user_id.len() > ADDRESS_BYTES_MAX || !is_safe {
            return None;
        }
        let address: Address = user_id.parse().ok()?;
        self.domains.contains(&address.domain().to_lowercase()).then_some(address)
    }
}

/// The key in `[notify_users.email]`.
fn in_email(key: &str) -> &'static str {
    match key {
        "starttls" => "email.starttls",
        "ca_file" => "email.ca_file",
        "username" => "email.username",
        "password" => "email.password",
        _ => "email.smtp_url",
    }
}

#[async_trait]
impl UserNotifier for UserEmail {
    fn name(&self) -> &'static str {
        "email"
    }

    /// The address in lower case, without a subaddress (RFC 5233). Users of several tenants may have the same mailbox.
    fn receiver(&self, message: &UserMessage) -> Option<String> {
        let address = self.address(&message.user_id)?;
        let mailbox = address.user().split('+').next().unwrap_or_default();
        Some(format!("{mailbox}@{}", address.domain()).to_lowercase())
    }

    async fn notify(&self, message: &UserMessage, text: &UserText, key: &str) -> Result<Accepted, DeliveryError> {
        let permanent = |reason: &str| DeliveryError::Permanent { reason: reason.to_owned(), status: 0 };
        let to = self.address(&message.user_id);
        let to = to.ok_or_else(|| permanent("the user id is not a mail address of an allowed domain"))?;
        let mail = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(text.subject.clone())
            .message_id(Some(format!("<{key}@{}>", self.from.email.domain())))
            .raw_header(header("Auto-Submitted", "auto-generated"))
            .raw_header(header("X-Auto-Response-Suppress", "All"))
            .header(ContentType::TEXT_PLAIN)
            .body(text.body.clone())
            .map_err(|_| permanent("the mail cannot be written"))?;
        let transport = transport(&self.connection).map_err(|(_, problem)| permanent(&problem))?;
        match transport.send(mail).await {
            Ok(_) => Ok(Accepted::default()),
            Err(error) => Err(delivery_error("notify_users.email", &error)),
        }
    }
}

/// Requests about users to one URL, signed as in Standard Webhooks 1.0.
struct UserWebhook {
    endpoint: Endpoint,
    clock: Arc<dyn Clock>,
}

impl UserWebhook {
    fn new(settings: &WebhookSettings, clock: Arc<dyn Clock>) -> Result<Self, (&'static str, String)> {
        let endpoint = Endpoint::new(settings).map_err(|(key, problem)| (in_webhook(key), problem))?;
        Ok(Self { endpoint, clock })
    }
}

/// The key in `[notify_users.webhook]`.
fn in_webhook(key: &str) -> &'static str {
    match key {
        "ca_file" => "webhook.ca_file",
        "secret" => "webhook.secret",
        _ => "webhook.url",
    }
}

#[async_trait]
impl UserNotifier for UserWebhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    /// Tenant and user, with the length of the first, so that no two pairs are equal.
    fn receiver(&self, message: &UserMessage) -> Option<String> {
        let UserMessage { tenant_id, user_id, .. } = message;
        (!user_id.is_empty()).then(|| format!("{} {tenant_id} {user_id}", tenant_id.len()))
    }

    async fn notify(&self, message: &UserMessage, text: &UserText, key: &str) -> Result<Accepted, DeliveryError> {
        let now = self.clock.now_millis();
        let body = json!({
            "type": message.kind.as_str(), "user_id": message.user_id, "tenant_id": message.tenant_id,
            "incident_id": message.about.to_string(), "at": rfc3339(message.at),
            "subject": text.subject, "text": text.body,
        });
        self.endpoint.post(key, sanitize::json(&body.to_string()), now).await.map(Accepted::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_plain_addresses_of_allowed_domains_get_mail() {
        let settings = "smtp_url = 'smtps://m.example'\nfrom = 'Security <security@example.com>'";
        let settings = toml::from_str(settings).expect("settings");
        let email = UserEmail::new(&settings, &["Example.com".to_owned()]).expect("a channel");
        let accepted = |user: &str| email.address(user).map(|address| address.to_string());
        assert_eq!(accepted("ana@example.com").as_deref(), Some("ana@example.com"));
        assert!(accepted("Ana.B+x@EXAMPLE.com").is_some());
        for user in [
            "",
            "ana",
            "ana@example.org",
            "ana@sub.example.com",
            "ana@example.com.evil.org",
            "ana@evil.org,bob@example.com",
            "ana@evil.org@example.com",
            "\"ana\"@example.com",
            "ana@example.com\r\nBcc: x@evil.org",
            "<ana@example.com>",
            "ana b@example.com",
            "an\u{e4}@example.com",
            "@example.com",
            "bob%evil.org@example.com",
            "evil.org!bob@example.com",
            "|sh@example.com",
            "/tmp/x@example.com",
            "-oQ@example.com",
            &format!("{}@example.com", "a".repeat(250)),
        ] {
            assert_eq!(accepted(user), None, "{user:?}");
        }
    }
}
