//! A verdict as one line of JSON: the form that verdict files and the verdicts topic have.

use crate::enrichment::EnrichedEvent;
use crate::verdict::{Outcome, Signal};

use super::time;

/// Appends the verdict on `event` as one JSON object and a newline. The same verdict gives the same bytes on every
/// machine: numbers are rounded to six significant digits, of which the shortest text that reads back the same is
/// written.
pub fn encode(out: &mut Vec<u8>, event: &EnrichedEvent<'_>, outcome: &Outcome) {
    let EnrichedEvent { event, .. } = event;
    out.extend_from_slice(b"{\"event_id\":");
    text(out, &event.event_id);
    out.extend_from_slice(b",\"token_id\":");
    text(out, event.token_id.as_str());
    out.extend_from_slice(b",\"timestamp\":\"");
    time::write(out, event.timestamp);
    out.extend_from_slice(b"\",\"verdict\":\"");
    out.extend_from_slice(outcome.verdict.as_str().as_bytes());
    out.extend_from_slice(b"\",\"score\":");
    number(out, outcome.score());
    out.extend_from_slice(b",\"log_odds\":");
    number(out, outcome.log_odds);
    out.extend_from_slice(b",\"p_value\":");
    number(out, outcome.p_value);
    out.extend_from_slice(b",\"signals\":[");
    for (at, found) in outcome.signals.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        signal(out, found);
    }
    out.extend_from_slice(b"],\"incident_id\":");
    match outcome.incident_id {
        Some(id) => text(out, &id.to_string()),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"action\":\"");
    out.extend_from_slice(outcome.action.as_str().as_bytes());
    out.extend_from_slice(b"\",\"mode\":\"");
    out.extend_from_slice(outcome.mode.as_str().as_bytes());
    out.extend_from_slice(b"\"}\n");
}

fn signal(out: &mut Vec<u8>, signal: &Signal) {
    out.extend_from_slice(b"{\"rule\":\"");
    out.extend_from_slice(signal.rule.as_str().as_bytes());
    out.extend_from_slice(b"\",\"group\":\"");
    out.extend_from_slice(signal.rule.group().as_str().as_bytes());
    out.extend_from_slice(b"\",\"share\":");
    number(out, signal.share);
    out.extend_from_slice(b",\"p_value\":");
    number(out, signal.p_value);
    out.extend_from_slice(b",\"observed\":");
    text(out, &signal.observed);
    out.extend_from_slice(b",\"expected\":");
    text(out, &signal.expected);
    out.extend_from_slice(b",\"reason\":");
    text(out, &signal.reason);
    out.push(b'}');
}

/// A number rounded to six significant digits. Judgement gives finite ones; others could not be written in JSON and
/// become null.
fn number(out: &mut Vec<u8>, number: f64) {
    let rounded = round(number);
    // A Vec takes every byte, so nothing can fail here.
    let _ = serde_json::to_writer(out, &rounded);
}

/// Powers of ten that a double holds exactly: division by one of them rounds but once.
const TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// `number` to six significant digits, and to no more than 22 decimals.
fn round(number: f64) -> f64 {
    let size = number.abs();
    if size >= 1e6 || !size.is_finite() || size == 0.0 {
        return number.round() + 0.0;
    }
    // Six digits before the point are reached by the first power that makes the number 100,000 or more.
    let power = TENS.iter().find(|&&ten| size * ten >= 1e5).unwrap_or(&TENS[22]);
    (number * power).round() / power + 0.0
}

/// A string. Besides what JSON demands, control characters that a terminal might obey are escaped: DEL and U+0080 to
/// U+009F.
fn text(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        // The second byte of a C1 control character follows 0xC2, which is copied last.
        let c1 = matches!(byte, 0x80..=0x9f) && at > 0 && bytes.get(at - 1) == Some(&0xc2);
        if !(byte < b' ' || byte == b'"' || byte == b'\\' || byte == 0x7f || c1) {
            continue;
        }
        out.extend_from_slice(bytes.get(copied..at - usize::from(c1)).unwrap_or_default());
        copied = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(bytes.get(copied..).unwrap_or_default());
    out.push(b'"');
}
