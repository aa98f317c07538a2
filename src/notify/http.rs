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
use self::preset::{Preset, StepSettings};
use self::template::Node;
use super::settings::{ChannelKind, ChannelSettings, required};
use crate::outgoing;
use crate::port::{Accepted, Alert, Clock, DeliveryError, Handled, HandledStep, IncidentState, Notice, Notifier};

/// Maximum number of bytes that are read of a body.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Placeholder of the id of an incident in a URL.
const INCIDENT: &str = "INC-ID";
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
    acknowledge: Option<Step>,
    resolve: Option<Step>,
    repeat: Option<Step>,
}

/// The request for a step in the work on an incident.
struct Step {
    /// With [`INCIDENT`] in place of the id.
    url: Url,
    body: Node,
    for_each_state: bool,
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
        let step = |settings: &Option<StepSettings>| {
            let Some(settings) = settings else { return Ok(None) };
            let body = Node::compile(&settings.body, &fixed).map_err(|problem| (key, problem))?;
            let url = checked(&settings.path.replace("{id}", INCIDENT))?;
            Ok(Some(Step { url, body, for_each_state: settings.for_each_state }))
        };
        let (acknowledge, resolve) = (step(&preset.acknowledge)?, step(&preset.resolve)?);
        let repeat = step(&preset.repeat)?;
        let client = outgoing::client(&url, allow_private, settings.ca_file.as_deref());
        let client =
            client.map_err(|problem| (if settings.ca_file.is_some() { "ca_file" } else { url_key }, problem))?;
        let name = name.to_owned();
        Ok(Self { name, client, clock, url, probe, headers, preset, body, acknowledge, resolve, repeat })
    }

    const fn step(&self, step: HandledStep) -> Option<&Step> {
        match step {
            HandledStep::Acknowledged => self.acknowledge.as_ref(),
            HandledStep::Resolved => self.resolve.as_ref(),
            HandledStep::Open => self.repeat.as_ref(),
        }
    }

    /// Sends a step in the work on an incident.
    async fn inform(&self, step: &Step, notice: &Notice, handled: &Handled, key: &str) -> Result<u16, DeliveryError> {
        let url = step.url.as_str().replace(INCIDENT, &handled.incident.to_string());
        let url = Url::parse(&url)
            .map_err(|error| DeliveryError::Permanent { reason: format!("no URL: {error}"), status: 0 })?;
        let states: Vec<Option<&IncidentState>> = if step.for_each_state && !handled.states.is_empty() {
            handled.states.iter().map(Some).collect()
        } else {
            vec![handled.states.first()]
        };
        let mut last = 0;
        for state in states {
            let sending = Sending { alert: Alert::Notice(notice), key, now: self.clock.now_millis(), state };
            let body = step.body.body(&sending, &self.preset, None).ok_or_else(|| self.too_large())?;
            (last, _) = self.send(&url, body).await?;
        }
        Ok(last)
    }

    fn too_large(&self) -> DeliveryError {
        let reason = format!("the message is larger than the {} bytes of its preset", self.preset.request.bytes_max);
        DeliveryError::Permanent { reason, status: 0 }
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
        if let Alert::Notice(notice) = alert
            && let Some(handled) = notice.handled()
            && let Some(step) = self.step(handled.step)
        {
            return self.inform(step, notice, handled, key).await.map(Accepted::with);
        }
        let sending = Sending { alert, key, now: self.clock.now_millis(), state: None };
        let root = match alert {
            Alert::Incident { progress, .. } => progress.root.as_deref(),
            Alert::Notice(_) => None,
        };
        let thread = self.preset.thread.as_ref();
        let in_thread = thread.and_then(|thread| Some((&*thread.key, root?)));
        let body = self.body.body(&sending, &self.preset, in_thread).ok_or_else(|| self.too_large())?;
        let (status, answer) = self.send(&self.url, body).await?;
        let root = thread.and_then(|thread| message_id(&answer, &thread.id));
        Ok(Accepted { status, root })
    }

    fn handles(&self, step: HandledStep) -> bool {
        self.step(step).is_some()
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
