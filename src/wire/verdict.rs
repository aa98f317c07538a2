//! A verdict as one line of JSON, for verdict files and the verdicts topic.

use crate::enrichment::EnrichedEvent;
use crate::sanitize;
use crate::verdict::{Outcome, Signal, Verdict};

use super::time;

/// Appends the verdict on `event` as one JSON object and a newline. The same verdict gives the same bytes on every
/// machine: numbers are rounded to six significant digits and written as the shortest text that parses to the same
/// number.
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
    out.push(b'"');
    if outcome.verdict >= Verdict::Alert {
        measure(out, outcome);
    }
    out.extend_from_slice(b"}\n");
}

/// Writes the thresholds and decisive rules of an alert, which show what would have prevented it.
fn measure(out: &mut Vec<u8>, outcome: &Outcome) {
    out.extend_from_slice(b",\"prior_log_odds\":");
    number(out, outcome.prior_log_odds);
    out.extend_from_slice(b",\"alert_from\":");
    number(out, outcome.alert_from);
    out.extend_from_slice(b",\"decisive\":[");
    for (at, rule) in outcome.decisive().enumerate() {
        out.extend_from_slice(if at > 0 { b",\"" } else { b"\"" });
        out.extend_from_slice(rule.as_str().as_bytes());
        out.push(b'"');
    }
    out.push(b']');
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

/// A number rounded to six significant digits. Scores are finite; any other number becomes null, because JSON has none.
fn number(out: &mut Vec<u8>, number: f64) {
    let rounded = round(number);
    // Writing to a Vec cannot fail.
    let _ = serde_json::to_writer(out, &rounded);
}

/// Powers of ten that a double represents exactly, so that a division by one of them rounds only once.
const TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// `number` rounded to six significant digits and at most 22 decimals.
fn round(number: f64) -> f64 {
    let size = number.abs();
    if size >= 1e6 || !size.is_finite() || size == 0.0 {
        return number.round() + 0.0;
    }
    // The first power that makes the number at least 100,000 gives six digits before the point.
    let power = TENS.iter().find(|&&ten| size * ten >= 1e5).unwrap_or(&TENS[22]);
    (number * power).round() / power + 0.0
}

/// Writes a string. In addition to JSON's required escapes, every character is escaped that can control a terminal or
/// mislead a reader.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if text.as_bytes().iter().all(plain) {
        out.extend_from_slice(text.as_bytes());
    } else {
        text.chars().for_each(|character| put_character(out, character));
    }
    out.push(b'"');
}

fn put_character(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        other => sanitize::put_json(out, other),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::enrichment::{Client, Device, Surroundings};
    use crate::event::{Event, Timestamp};
    use crate::key::KeyHasher;
    use crate::route::Route;
    use crate::token::TokenHasher;
    use crate::verdict::{IncidentId, Mode, RuleId};

    fn enriched(event_id: &str) -> EnrichedEvent<'_> {
        let event = Event {
            event_id: Cow::Borrowed(event_id),
            token_id: TokenHasher::new(b"a key for tests").name(Cow::Borrowed("at-1")).0,
            timestamp: Timestamp::from_millis(1_795_342_530_123).expect("in range"),
            ..Event::default()
        };
        let client = Client {
            family: "curl".into(),
            version: "8".into(),
            device: Device::Machine,
            family_key: 1,
            version_key: 2,
            agent_key: 3,
        };
        let surroundings =
            Surroundings { place: None, network: None, client: Arc::new(client), route: Route::default() };
        EnrichedEvent::new(event, surroundings, &KeyHasher::default())
    }

    fn outcome(log_odds: f64, signals: Vec<Signal>) -> Outcome {
        Outcome { log_odds, signals, ..Outcome::quiet(-7.0, 2.0, Mode::Shadow) }
    }

    fn line(event_id: &str, outcome: &Outcome) -> String {
        let mut out = Vec::new();
        encode(&mut out, &enriched(event_id), outcome);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn verdict_is_one_line_with_ordered_fields() {
        assert_eq!(
            line("e1", &outcome(-7.0, Vec::new())),
            "{\"event_id\":\"e1\",\"token_id\":\"at-1\",\"timestamp\":\"2026-11-22T10:15:30.123Z\",\"verdict\":\"allow\",\
             \"score\":0.000911466,\"log_odds\":-7.0,\"p_value\":1.0,\"signals\":[],\"incident_id\":null,\"action\":\"none\",\
             \"mode\":\"shadow\"}\n"
        );
    }

    #[test]
    fn verdict_has_whole_signals_and_the_incident_id() {
        let signal = Signal {
            rule: RuleId::ImpossibleTravel,
            share: 2.600_000_4,
            p_value: 2e-3,
            fired: true,
            observed: "Sydney, AU, AS1221".to_owned(),
            expected: "Berlin, DE, AS3320 (412 of 413 sightings)".to_owned(),
            reason: "15,900 km in 41 min".to_owned(),
        };
        let mut outcome = outcome(2.5, vec![signal.clone(), signal]);
        outcome.incident_id = Some(IncidentId(42));
        let signal = "{\"rule\":\"impossible_travel\",\"group\":\"place\",\"share\":2.6,\"p_value\":0.002,\
                      \"observed\":\"Sydney, AU, AS1221\",\"expected\":\"Berlin, DE, AS3320 (412 of 413 sightings)\",\
                      \"reason\":\"15,900 km in 41 min\"}";
        let line = line("e1", &outcome);
        let end = format!("\"signals\":[{signal},{signal}],\"incident_id\":\"{}\",", IncidentId(42));
        assert!(line.contains(&end), "{line}");
        assert!(!line.contains("decisive"), "it is not an alert: {line}");
    }

    #[test]
    fn alert_line_has_threshold_and_decisive_rules() {
        let signal = |rule, share| Signal {
            rule,
            share,
            p_value: 1e-3,
            fired: true,
            observed: String::new(),
            expected: String::new(),
            reason: String::new(),
        };
        let signals = vec![signal(RuleId::NewClient, 6.0), signal(RuleId::NewNetwork, 4.5), signal(RuleId::NewIp, 1.0)];
        let mut alarm = outcome(5.25, signals);
        alarm.verdict = Verdict::Alert;
        let end = |alarm: &Outcome| {
            let line = line("e1", alarm);
            line.split_once("\"shadow\"").expect("it has a mode").1.to_owned()
        };
        let expected = ",\"prior_log_odds\":-7.0,\"alert_from\":2.0,\"decisive\":[\"new_client\",\"new_network\"]}\n";
        assert_eq!(end(&alarm), expected);
        alarm.log_odds = 9.0;
        assert!(end(&alarm).ends_with("\"decisive\":[]}\n"), "no single signal is decisive");
        alarm.log_odds = 5.25;
        alarm.by_policy = true;
        assert!(end(&alarm).ends_with("\"decisive\":[]}\n"), "a policy requested it as well");
        alarm.by_policy = false;
        alarm.log_odds = 15.0;
        alarm.signals.insert(0, signal(RuleId::RefreshReuse, 14.0));
        assert!(end(&alarm).ends_with("\"decisive\":[\"refresh_reuse\"]}\n"), "the life-cycle signal is certain");
    }

    #[test]
    fn verdict_line_escapes_terminal_controls() {
        let line = line("a\u{1b}[2J\u{7f}\u{9b}31m\u{85}\n\"\\é\u{a0}\u{202e}\u{e0041}", &outcome(0.0, Vec::new()));
        assert!(line.starts_with(r#"{"event_id":"a\u001b[2J\u007f\u009b31m\u0085\n\"\\é"#), "{line}");
        assert!(line.contains("\u{a0}\\u202e\\udb40\\udc41\""), "{line}");
        assert!(line.trim_end().chars().all(|c| !c.is_control()));
    }

    #[test]
    fn verdict_numbers_keep_six_digits() {
        for (given, kept) in [
            (0.0, 0.0),
            (-0.0, 0.0),
            (-7.000_000_1, -7.0),
            (123_456.789, 123_457.0),
            (1_234_567.8, 1_234_568.0),
            (9.999_999_9, 10.0),
            (0.001_234_567_8, 0.001_234_57),
            (3.333_333_333e-9, 3.333_33e-9),
        ] {
            assert_eq!(round(given).to_bits(), f64::to_bits(kept), "{given}");
        }
    }

    proptest! {
        #[test]
        fn verdict_is_json_that_reads_back(
            id in "\\PC{0,20}|[\\x00-\\x7f\u{80}-\u{ff}]{0,20}",
            log_odds in -1e3..1e3_f64,
            p_value in 0.0..1.0_f64,
        ) {
            let mut outcome = outcome(log_odds, Vec::new());
            outcome.p_value = p_value;
            let line = line(&id, &outcome);
            let read: Value = serde_json::from_str(&line).expect("JSON");
            prop_assert_eq!(read["event_id"].as_str(), Some(id.as_str()));
            for (name, exact) in [("log_odds", log_odds), ("score", outcome.score()), ("p_value", p_value)] {
                let read = read[name].as_f64().expect("a number");
                prop_assert!((read - exact).abs() <= exact.abs() * 5.1e-6 + 1e-22, "{name}: {read} for {exact}");
            }
            prop_assert_eq!(line.matches('\n').count(), 1);
        }
    }
}
