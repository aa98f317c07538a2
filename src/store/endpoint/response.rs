//! Responses of the endpoint: results, and errors in the format of ClickHouse.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::store::engine::{Answer, Exception};
use crate::store::fault;

/// An error response in ClickHouse's format.
pub(super) struct Refusal {
    status: StatusCode,
    code: u32,
    text: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: u32, reason: &str) -> Self {
        Self { status, code, text: format!("Code: {code}. DB::Exception: {reason}\n") }
    }

    pub(super) fn body(error: &dyn std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 3, &format!("the body is incomplete: {error}"))
    }

    pub(super) fn memory(error: &std::io::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, 241, &format!("no memory for the rows: {error}"))
    }
}

impl From<Exception> for Refusal {
    fn from(Exception(text): Exception) -> Self {
        let code = fault::code(&text).unwrap_or(1002);
        // HTTP status as in the server's `exceptionCodeToHTTPStatus`, for the codes that clients distinguish.
        let status = match code {
            164 | 497 | 516 => StatusCode::FORBIDDEN,
            27 | 36 | 38 | 41 | 43 | 53 | 62 | 72 | 117 | 349 | 457 => StatusCode::BAD_REQUEST,
            16 | 46 | 47 | 50 | 60 | 73 | 81 | 115 => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, code, text: text + "\n" }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = HeaderValue::from(self.code);
        let plain = HeaderValue::from_static("text/plain; charset=UTF-8");
        let mut response = (self.status, self.text).into_response();
        response.headers_mut().insert("x-clickhouse-exception-code", code);
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        response
    }
}

pub(super) fn response(answer: Answer, format: &str, query_id: Option<&str>) -> Response {
    let elapsed = (answer.seconds() * 1e9) as u64;
    let summary = format!(
        r#"{{"read_rows":"{}","read_bytes":"{}","elapsed_ns":"{elapsed}"}}"#,
        answer.rows_read(),
        answer.bytes_read()
    );
    let mut response = Body::from(Bytes::from_owner(answer)).into_response();
    let mut put = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(header::HeaderName::from_static(name), value);
        }
    };
    put("content-type", content_type(format));
    put("x-clickhouse-format", format);
    put("x-clickhouse-server-display-name", "tokenwarden");
    put("x-clickhouse-timezone", "UTC");
    put("x-clickhouse-summary", &summary);
    put("x-clickhouse-query-id", query_id.unwrap_or_default());
    response
}

fn content_type(format: &str) -> &'static str {
    match format {
        "JSON" | "JSONCompact" | "JSONStrings" => "application/json; charset=UTF-8",
        "JSONEachRow" | "JSONLines" | "NDJSON" => "application/x-ndjson; charset=UTF-8",
        "CSV" => "text/csv; charset=UTF-8; header=absent",
        "CSVWithNames" => "text/csv; charset=UTF-8; header=present",
        "TabSeparated" | "TSV" | "TabSeparatedWithNames" | "TSVWithNames" => "text/tab-separated-values; charset=UTF-8",
        name if name.starts_with("Pretty") || name == "Vertical" => "text/plain; charset=UTF-8",
        _ => "application/octet-stream",
    }
}
