//! Parameters of a request, from its URL or form.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};

use super::response::Refusal;

/// The parsed URL of a request.
#[derive(Default)]
pub(super) struct Asked {
    pub(crate) query: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) default_format: Option<String>,
    pub(crate) query_id: Option<String>,
    compressed: bool,
    pub(crate) parameters: Vec<(String, String)>,
    /// All other parameters are settings, as on a server.
    pub(crate) settings: BTreeMap<String, String>,
}

impl Asked {
    pub(super) fn from_query(query: &str) -> Self {
        let mut asked = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            asked.take(&name, value.into_owned());
        }
        asked
    }

    fn take(&mut self, name: &str, value: String) {
        match name {
            "query" => self.query.get_or_insert_default().push_str(&value),
            "database" => self.database = Some(value).filter(|name| !name.is_empty()),
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "default_format" => self.default_format = Some(value),
            "query_id" => self.query_id = Some(value),
            "compress" | "decompress" => self.compressed |= value == "1",
            // Settings of features that do not exist here: sessions, buffering, roles, the native protocol.
            "session_id"
            | "session_timeout"
            | "session_check"
            | "quota_key"
            | "role"
            | "wait_end_of_query"
            | "buffer_size"
            | "client_protocol_version"
            | "stacktrace"
            | "http_write_exception_in_output_format"
            | "enable_http_compression"
            | "send_progress_in_http_headers" => {}
            _ => match name.strip_prefix("param_") {
                Some(parameter) => self.parameters.push((parameter.to_owned(), value)),
                None => drop(self.settings.insert(name.to_owned(), value)),
            },
        }
    }

    pub(super) fn default_format(&self) -> &str {
        self.default_format.as_deref().unwrap_or("TabSeparated")
    }

    pub(super) fn refuse_unserved(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.compressed || headers.contains_key(header::CONTENT_ENCODING) {
            let problem = "the embedded store does not support compressed bodies; turn compression off";
            return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, 48, problem));
        }
        Ok(())
    }

    /// A form with one statement and its parameters, which clients use for long ones.
    pub(super) fn take_multipart(&mut self, body: &Bytes, boundary: &str, text: &mut Vec<u8>) -> Result<(), Refusal> {
        let malformed = || Refusal::new(StatusCode::BAD_REQUEST, 36, "the multipart form is malformed");
        let body = std::str::from_utf8(body).map_err(|_| malformed())?;
        let delimiter = format!("--{boundary}");
        let mut parts = body.split(&delimiter);
        parts.next().filter(|preamble| preamble.is_empty()).ok_or_else(malformed)?;
        for part in parts {
            if part.starts_with("--") {
                return Ok(());
            }
            let (head, value) = part.split_once("\r\n\r\n").ok_or_else(malformed)?;
            let value = value.strip_suffix("\r\n").ok_or_else(malformed)?;
            let name = head.split_once("name=\"").and_then(|(_, rest)| rest.split_once('"')).ok_or_else(malformed)?.0;
            match name {
                "query" => text.extend_from_slice(value.as_bytes()),
                name if name.starts_with("param_") => self.take(name, value.to_owned()),
                _ => return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, 48, "external tables are not supported")),
            }
        }
        Err(malformed())
    }
}

pub(super) fn multipart_boundary(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let boundary = kind.strip_prefix("multipart/form-data")?.split_once("boundary=")?.1;
    Some(boundary.trim_matches('"').to_owned())
}
