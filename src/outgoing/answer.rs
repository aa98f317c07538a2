//! Parts of a response body that decide its meaning.

use serde::Deserialize;

/// The error code in a JSON body, as in RFC 6749 and most APIs. Other content may be a secret or a value of an event, so
/// it is not repeated.
pub(crate) fn error_code(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let code = body.get("error")?.as_str()?;
    let is_code = !code.is_empty()
        && code.len() <= ERROR_CODE_BYTES_MAX
        && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_code.then(|| code.to_owned())
}

/// Maximum length of an error code that is repeated. A token is longer.
const ERROR_CODE_BYTES_MAX: usize = 30;

/// Required content of a response body.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "a text that the body must hold, a list of such texts, or { pointer = \"/ok\", equals = true }"
)]
pub(crate) enum BodyTest {
    /// This text. White space is ignored.
    Text(String),
    /// One of these texts. White space is ignored.
    AnyText(Vec<String>),
    /// This value at this position of a JSON body.
    Value(ValueTest),
}

/// See [`BodyTest::Value`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValueTest {
    /// A JSON pointer (RFC 6901).
    pub(crate) pointer: String,
    pub(crate) equals: serde_json::Value,
}

impl BodyTest {
    /// Rejects a test that every body would pass.
    pub(crate) fn check(&self) -> Result<(), String> {
        let texts = match self {
            Self::Text(text) => std::slice::from_ref(text),
            Self::AnyText(texts) => texts,
            Self::Value(test) if test.pointer.is_empty() || test.pointer.starts_with('/') => return Ok(()),
            Self::Value(_) => {
                return Err("has a `pointer` that does not begin with `/`; an example is \"/ok\"".to_owned());
            }
        };
        if texts.is_empty() || texts.iter().any(|text| text.trim().is_empty()) {
            return Err("is empty: every answer would match it".to_owned());
        }
        Ok(())
    }

    pub(crate) fn holds(&self, body: &[u8]) -> bool {
        match self {
            Self::Text(text) => holds_text(body, text),
            Self::AnyText(texts) => texts.iter().any(|text| holds_text(body, text)),
            Self::Value(test) => serde_json::from_slice::<serde_json::Value>(body)
                .is_ok_and(|body| body.pointer(&test.pointer) == Some(&test.equals)),
        }
    }
}

fn holds_text(body: &[u8], text: &str) -> bool {
    let without_space = |bytes: &[u8]| bytes.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect::<Vec<_>>();
    memchr::memmem::find(&without_space(body), &without_space(text.as_bytes())).is_some()
}

/// Whether a request that got this status is retried, unless the configuration says otherwise.
pub(crate) const fn is_retriable(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}
