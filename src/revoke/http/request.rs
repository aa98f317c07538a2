//! A request whose URL and body are templates.

use std::collections::BTreeMap;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Request, Url};
use secrecy::ExposeSecret as _;
use serde::Deserialize;

use super::settings::{BodyFormat, HttpRevokerSettings};
use super::template::{Escape, Filling, Template, Value};
use crate::port::Mistake;

/// A request in a preset.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RequestSettings {
    pub(super) method: Option<String>,
    /// Default of the key `url` in the configuration.
    pub(super) url: Option<String>,
    /// Appended to `url`. A template.
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
    /// A template.
    pub(super) body: Option<String>,
    pub(super) body_format: Option<BodyFormat>,
    /// Fields of a form, each a template. Instead of `body`.
    pub(super) form: BTreeMap<String, String>,
}

impl RequestSettings {
    /// The request of a preset with the keys of the configuration, which have precedence.
    pub(super) fn with(&self, settings: &HttpRevokerSettings) -> Self {
        Self {
            method: settings.method.clone().or_else(|| self.method.clone()),
            url: settings.url.clone().or_else(|| self.url.clone()),
            body: settings.body.clone().or_else(|| self.body.clone()),
            body_format: settings.body_format.or(self.body_format),
            form: if settings.body.is_some() { BTreeMap::new() } else { self.form.clone() },
            ..self.clone()
        }
    }
}

/// A request that is filled with the values of an incident.
pub(super) struct RequestTemplate {
    method: Method,
    url: Template,
    headers: HeaderMap,
    body: Option<Body>,
}

enum Body {
    Text(Template, BodyFormat),
    Form(Vec<(String, Template)>),
}

impl RequestTemplate {
    /// `values`: fixed values of the templates. The error is about a key of them.
    pub(super) fn new(settings: &RequestSettings, values: &BTreeMap<String, String>) -> Result<Self, Mistake> {
        let Some(base) = &settings.url else { return Err(Mistake::new("url", "is missing")) };
        if !settings.path.is_empty() && base.contains(['?', '#']) {
            return Err(Mistake::new("url", "must have no query, because the preset appends a path"));
        }
        let url = if settings.path.is_empty() { base.clone() } else { joined(base, &settings.path) };
        let url = Template::parse(&url, values).map_err(Mistake::of("url"))?;
        let method = match settings.method.as_deref() {
            Some(method) => Method::from_bytes(method.to_uppercase().as_bytes())
                .map_err(|_| Mistake::new("method", format!("`{method}` is not an HTTP method")))?,
            None => Method::POST,
        };
        let body = match &settings.body {
            Some(text) => {
                let text = Template::parse(text, values).map_err(Mistake::of("body"))?;
                Some(Body::Text(text, settings.body_format.unwrap_or_default()))
            }
            None if settings.form.is_empty() => None,
            None => {
                let fields =
                    settings.form.iter().map(|(name, text)| Ok((name.clone(), Template::parse(text, values)?)));
                Some(Body::Form(fields.collect::<Result<_, String>>().map_err(Mistake::of("preset"))?))
            }
        };
        let headers = settings.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Ok(Self { method, url, headers: headers_of(headers).map_err(Mistake::of("preset"))?, body })
    }

    /// Adds the headers of the configuration, which replace those of a preset.
    pub(super) fn with_headers(mut self, settings: &HttpRevokerSettings) -> Result<Self, Mistake> {
        let configured = settings.headers.iter().map(|(name, value)| (name.as_str(), value.expose_secret()));
        for (name, value) in headers_of(configured).map_err(Mistake::of("headers"))? {
            if let Some(name) = name {
                self.headers.insert(name, value);
            }
        }
        Ok(self)
    }

    /// The URL with example values.
    pub(super) fn example_url(&self) -> Result<Url, String> {
        self.url.example()
    }

    /// Whether the URL or the body contains `value`.
    pub(super) fn names(&self, value: Value) -> bool {
        let in_body = match &self.body {
            None => false,
            Some(Body::Text(text, _)) => text.names(value),
            Some(Body::Form(fields)) => fields.iter().any(|(_, text)| text.names(value)),
        };
        self.url.names(value) || in_body
    }

    /// The request with the values of an incident. The error contains no value.
    pub(super) fn fill(&self, client: &Client, with: &Filling<'_>) -> Result<Request, String> {
        let url = self.url.fill(with, Escape::Url)?;
        let url = Url::parse(&url).map_err(|_| "the URL is invalid with these values".to_owned())?;
        let mut request = client.request(self.method.clone(), url).headers(self.headers.clone());
        if let Some(body) = &self.body {
            let (content_type, body) = match body {
                Body::Text(text, BodyFormat::Json) => ("application/json", text.fill(with, Escape::Json)?),
                Body::Text(text, BodyFormat::Form) => {
                    ("application/x-www-form-urlencoded", text.fill(with, Escape::Form)?)
                }
                Body::Form(fields) => {
                    let mut form = url::form_urlencoded::Serializer::new(String::new());
                    for (name, text) in fields {
                        let escape = if text.is_json() { Escape::Json } else { Escape::None };
                        form.append_pair(name, &text.fill(with, escape)?);
                    }
                    ("application/x-www-form-urlencoded", form.finish())
                }
            };
            request = request.header(CONTENT_TYPE, content_type).body(body);
        }
        request.build().map_err(|_| "the request cannot be built with these values".to_owned())
    }
}

/// `base` and `path` with one slash between them.
fn joined(base: &str, path: &str) -> String {
    format!("{}{path}", base.trim_end_matches('/'))
}

fn headers_of<'a>(named: impl Iterator<Item = (&'a str, &'a str)>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in named {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a header name"))?;
        let mut value =
            HeaderValue::from_str(value).map_err(|_| format!("the value of `{name}` is not a valid header value"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}
