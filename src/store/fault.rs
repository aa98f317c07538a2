//! Classifies failed requests: whether the same rows may be sent again, and the error text.

use clickhouse::error::Error;

use crate::outgoing::is_retriable;
use crate::port::StoreError;
use crate::sanitize;

/// Kind of failure of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// ClickHouse refused or failed, with this error code (`src/Common/ErrorCodes.cpp` of ClickHouse).
    Exception(u32),
    /// A proxy or load balancer responded with this HTTP status.
    Status(u16),
    /// No response, or an invalid one: it is unknown whether the rows arrived.
    Network,
    /// The request could not be sent.
    Local,
}

impl Fault {
    /// Whether a retry can succeed. Unknown codes are retried: rows are kept, and the operator sees the error.
    pub(super) const fn is_retriable(self) -> bool {
        match self {
            Self::Exception(code) => !is_final(code),
            Self::Status(status) => is_retriable(status),
            Self::Network => true,
            Self::Local => false,
        }
    }

    /// Classifies the client's error.
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::BadResponse(text) => Self::of_response(text),
            Error::Network(_) | Error::TimedOut | Error::Decompression(_) => Self::Network,
            Error::Other(inner) if inner.downcast_ref::<std::io::Error>().is_some() => Self::Network,
            _ => Self::Local,
        }
    }

    /// `Code: 252. DB::Exception: …`, or `503 Service Unavailable` if the body was empty.
    fn of_response(text: &str) -> Self {
        if let Some(code) = code(text) {
            return Self::Exception(code);
        }
        let status = text.get(..3).and_then(|digits| digits.parse().ok()).filter(|status| *status >= 300);
        status.map_or(Self::Network, Self::Status)
    }
}

/// The error code in an exception's text.
pub(super) fn code(text: &str) -> Option<u32> {
    let digits = text.split_once("Code:")?.1.trim_start();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end)?.parse().ok()
}

/// Codes that a retry cannot change, because the rows, the statement, the rights or the schema are wrong.
const fn is_final(code: u32) -> bool {
    matches!(
        code,
        6 | 8
            | 10
            | 16
            | 20
            | 26
            | 27
            | 33
            | 36
            | 38
            | 41
            | 42
            | 43
            | 44
            | 46
            | 47
            | 48
            | 50
            | 53
            | 60
            | 62
            | 63
            | 70
            | 72
            | 73
            | 80
            | 81
            | 82
            | 115
            | 117
            | 131
            | 164
            | 192
            | 193
            | 194
            | 291
            | 349
            | 441
            | 452
            | 457
            | 469
            | 497
            | 516
    )
}

/// The error for the rest of the system. `what` describes the operation and its target, without secrets.
pub(super) fn store_error(what: &str, error: &Error) -> StoreError {
    let fault = Fault::of(error);
    let text = format!("{what}: {}", describe(fault, error));
    if fault.is_retriable() { StoreError::Retriable(text) } else { StoreError::Permanent(text) }
}

fn describe(fault: Fault, error: &Error) -> String {
    match (fault, error) {
        (Fault::Exception(194 | 516 | 192 | 193), _) => {
            "user or password is wrong (store.user, store.password)".to_owned()
        }
        (Fault::Exception(_), Error::BadResponse(text)) => brief(text),
        (Fault::Status(401 | 403), _) => "user or password is wrong (store.user, store.password)".to_owned(),
        _ => brief(&chain(error)),
    }
}

/// The error and its causes. The client's own text of a network error does not contain the cause.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// One line of at most 400 characters, without control characters that could affect a terminal or forge a log line.
pub(super) fn brief(text: &str) -> String {
    const CHARS_MAX: usize = 400;
    // The engine nests exceptions. The innermost text is complete, including the code's name in capitals.
    let text = text.trim().rsplit("DB::Exception: ").next().unwrap_or(text);
    let line: String = text.chars().take(CHARS_MAX).map(sanitize::shown).collect();
    if text.chars().nth(CHARS_MAX).is_some() { format!("{line}…") } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(text: &str) -> Fault {
        Fault::of(&Error::BadResponse(text.to_owned()))
    }

    #[test]
    fn fault_of_a_busy_server_is_retriable() {
        for (text, why) in [
            ("Code: 252. DB::Exception: Too many parts (300). (TOO_MANY_PARTS)", "back-pressure"),
            ("Code: 241. DB::Exception: Memory limit (total) exceeded", "memory"),
            ("Code: 242. DB::Exception: Table is in readonly mode", "a replica without its keeper"),
            ("Code: 243. DB::Exception: Cannot reserve 1.00 MiB", "disk full"),
            ("Code: 202. DB::Exception: Too many simultaneous queries", "busy"),
            ("Code: 159. DB::Exception: Timeout exceeded", "slow"),
            ("Code: 319. DB::Exception: Unknown status", "the response was lost"),
            ("Code: 99999. DB::Exception: from the future", "unknown code"),
            ("503 Service Unavailable", "a proxy"),
            ("429 Too Many Requests", "a proxy"),
            ("502 Bad Gateway", "a proxy"),
            ("<html>gateway</html>", "not a response of ClickHouse"),
        ] {
            assert!(response(text).is_retriable(), "{why}");
        }
        assert!(Fault::of(&Error::TimedOut).is_retriable());
        assert!(Fault::of(&Error::Network("connection reset".into())).is_retriable());
    }

    #[test]
    fn fault_that_a_retry_cannot_fix_is_final() {
        for (text, why) in [
            ("Code: 516. DB::Exception: tw: Authentication failed", "password"),
            ("Code: 497. DB::Exception: tw: Not enough privileges", "rights"),
            ("Code: 60. DB::Exception: Unknown table", "table"),
            ("Code: 81. DB::Exception: Database x does not exist", "database"),
            ("Code: 16. DB::Exception: No such column", "column"),
            ("Code: 117. DB::Exception: Type of 'asn' must be UInt32, not String", "type"),
            ("Code: 164. DB::Exception: Cannot execute query in readonly mode", "a read-only user"),
            ("Code: 62. DB::Exception: Syntax error", "statement"),
            ("404 Not Found", "another server"),
            ("413 Payload Too Large", "a proxy's limit"),
        ] {
            assert!(!response(text).is_retriable(), "{why}");
        }
        assert!(!Fault::of(&Error::InvalidParams("bad url".into())).is_retriable());
    }

    #[test]
    fn store_error_is_one_line_without_controls() {
        let text = brief(&format!("Code: 1. DB::Exception: Code: 36. DB::Exception: \x1b[31m\r\n{}", "é".repeat(1000)));
        assert!(text.starts_with("␛[31m␍␊é"), "{text}");
        assert_eq!(text.chars().count(), 401);
        assert!(!text.contains(char::is_control));
    }
}
