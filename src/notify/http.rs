//! Channels by HTTP. URL, headers, body and the meaning of answers are data, of a preset of the build or of the operator.

mod answer;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod contract_table;
mod fields;
mod preset;
mod template;

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use self::answer::Answer;
use self::fields::Sending;
use self::preset::Preset;
use self::template::Node;
use super::settings::{ChannelKind, ChannelSettings, required};
use crate::outgoing;
use crate::port::{Accepted, Alert, Clock, DeliveryError, Notifier};

/// Maximum number of bytes that are read of a body.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Maximum length of a message's id in the receiver's system.
const ROOT_BYTES_MAX: usize = 100;

/// A channel by HTTP.
pub(super) struct HttpChannel {
    name: String,
    client: Client,
    clock: Arc<dyn Clock>,
    url: Url,
    probe: Option<Url>,
    headers: HeaderMap,
    preset: Preset,
    body: Node,
}

impl HttpChannel {
    /// The error is the key in the section and the problem; it contains no secret.
    pub(super) fn new(
        name: &str,
        settings: &ChannelSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, (&'static str, String)> {
        let preset = match settings.kind {
            ChannelKind::Preset(preset) => Preset::shipped(preset)?,
            _ => Preset::read(required("preset_file", settings.preset_file.as_ref())?)?,
        };
        let key = if settings.preset_file.is_some() { "preset_file" } else { "kind" };
        let token = settings.token.as_ref().map(SecretString::expose_secret);
        let fixed = preset.fixed(settings, token)?;
        let body = Node::compile(&preset.request.body, &fixed).map_err(|problem| (key, problem))?;
        let mut headers = preset.headers(&fixed).map_err(|problem| (key, problem))?;
        if let Some(token) = token
            && !preset.needs.contains(&preset::Need::Token)
        {
            let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
            let mut bearer = bearer.map_err(|_| ("token", "is not a valid header value".to_owned()))?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let (url_key, base) = match (&settings.url, &settings.webhook_url) {
            (Some(_), Some(_)) => return Err(("webhook_url", "cannot be combined with `url`; remove one".to_owned())),
            (Some(url), None) => ("url", url.as_str()),
            (None, Some(url)) => ("webhook_url", url.expose_secret()),
            (None, None) => {
                let of_preset = preset.request.url.as_deref();
                ("url", of_preset.ok_or_else(|| ("url", "is missing".to_owned()))?)
            }
        };
        let allow_private = settings.allow_private.unwrap_or_default();
        let checked = |path: &str| {
            // The error of the parser does not repeat the URL, which may be a secret.
            let url = Url::parse(base).map_err(|error| (url_key, format!("is not a URL: {error}")))?;
            outgoing::check_url(&url, allow_private).map_err(|problem| (url_key, problem))?;
            if path.is_empty() {
                return Ok(url);
            }
            if url.query().is_some() || url.fragment().is_some() {
                return Err((url_key, "must have no query, because a path is appended".to_owned()));
            }
            let whole = format!("{}{path}", base.trim_end_matches('/'));
            Url::parse(&whole).map_err(|error| (url_key, format!("is not a URL: {error}")))
        };
        let url = checked(&preset.request.path)?;
        let probe = preset.probe.as_ref().map(|probe| checked(&probe.path)).transpose()?;
        let client = outgoing::client(&url, allow_private, settings.ca_file.as_deref());
        let client =
            client.map_err(|problem| (if settings.ca_file.is_some() { "ca_file" } else { url_key }, problem))?;
        Ok(Self { name: name.to_owned(), client, clock, url, probe, headers, preset, body })
    }

    /// Sends a request. Returns the status and the body of an accepted one.
    async fn send(&self, url: &Url, body: String) -> Result<(u16, Vec<u8>), DeliveryError> {
        let request = self.client.post(url.clone()).headers(self.headers.clone()).body(body);
        let mut answer = request.send().await.map_err(|error| retriable(&error))?;
        let retry_after = outgoing::retry_after(answer.headers(), self.clock.now_millis());
        let status = answer.status().as_u16();
        let body = outgoing::body(&mut answer, BODY_BYTES_MAX).await.map_err(|error| retriable(&error))?;
        self.preset.answer.classify(&Answer { status, retry_after, body: &body })?;
        Ok((status, body))
    }
}

#[async_trait]
impl Notifier for HttpChannel {
    fn name(&self) -> &str {
        &self.name
    }

    /// Without the path, which contains a secret in many URLs.
    fn target(&self) -> String {
        self.url[..url::Position::BeforePath].to_owned()
    }

    async fn notify(&self, alert: Alert<'_>, key: &str) -> Result<Accepted, DeliveryError> {
        let sending = Sending { alert, key, now: self.clock.now_millis() };
        let root = match alert {
            Alert::Incident { progress, .. } => progress.root.as_deref(),
            Alert::Notice(_) => None,
        };
        let thread = self.preset.thread.as_ref();
        let in_thread = thread.and_then(|thread| Some((&*thread.key, root?)));
        let Some(body) = self.body.body(&sending, &self.preset, in_thread) else {
            let reason =
                format!("the message is larger than the {} bytes of its preset", self.preset.request.bytes_max);
            return Err(DeliveryError::Permanent { reason, status: 0 });
        };
        let (status, answer) = self.send(&self.url, body).await?;
        let root = thread.and_then(|thread| message_id(&answer, &thread.id));
        Ok(Accepted { status, root })
    }

    /// Without a request that has no side effect, nothing is sent.
    async fn probe(&self) -> Result<(), DeliveryError> {
        match &self.probe {
            Some(url) => self.send(url, "{}".to_owned()).await.map(|_| ()),
            None => Ok(()),
        }
    }
}

/// The id of a message in the answer, if it is a short word.
fn message_id(answer: &[u8], pointer: &str) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let id = answer.pointer(pointer)?.as_str()?;
    let is_word = !id.is_empty() && id.len() <= ROOT_BYTES_MAX && id.bytes().all(|byte| byte.is_ascii_graphic());
    is_word.then(|| id.to_owned())
}

fn retriable(error: &reqwest::Error) -> DeliveryError {
    DeliveryError::Retriable { reason: outgoing::reason(error), status: 0, retry_after: None }
}
