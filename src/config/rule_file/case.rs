//! Test cases of a rule file: a short notation for events, expanded to the native JSON that a producer would send.

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Fields, Report, did_you_mean, quoted, read_time, type_name};
use super::places::Places;
use super::policies;
use crate::event::Timestamp;
use crate::policy::Policy;
use crate::verdict::RuleId;

/// Expected result of a test case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The rule fires for at least one of `events`.
    Fires,
    /// The rule fires for none of `events`.
    Quiet,
}

/// A test case of a rule: events, and whether the rule must fire.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub name: String,
    /// First line of the case in its file, from 1.
    pub line: usize,
    pub expect: Expect,
    /// Policies in addition to those of the rule.
    pub(crate) policies: Vec<Policy>,
    /// Earlier events. They are scored and update the baselines, but the expectation does not apply to them.
    pub history: Vec<CaseEvent>,
    pub events: Vec<CaseEvent>,
}

/// One event of a test case.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseEvent {
    /// Line of the entry from which it was expanded, from 1.
    pub line: usize,
    /// The native event, one JSON object.
    pub json: String,
}

/// Maximum number of events of a test case. A quarter of a busy token has 20,000; more is likely an error and would need
/// too much memory.
const EVENTS_MAX: usize = 100_000;

/// Maximum size of all expanded events of a file, bytes: twice that of 100,000 events of 300 bytes.
pub(super) const FILE_EVENTS_BYTES_MAX: usize = 64 << 20;

/// Default start time of a test case: Monday, 2 March 2026, 08:00 UTC.
const START_DEFAULT: i64 = 1_772_438_400_000;

const CASE_KEYS: &[&str] = &["name", "expect", "start", "base", "policies", "history", "events"];
/// Keys of an entry in addition to the fields of an event.
const ENTRY_KEYS: &[&str] = &["after", "repeat", "events"];
/// Fields of the native event, without `geo` and `attrs`: places are in `[places]`, and no rule uses attributes.
const EVENT_KEYS: &[&str] = &[
    "event_id",
    "timestamp",
    "kind",
    "token_id",
    "token_type",
    "family_id",
    "parent_token_id",
    "session_id",
    "user_id",
    "app_id",
    "tenant_id",
    "ip_address",
    "user_agent",
    "client_fingerprint",
    "method",
    "endpoint",
    "status",
    "bytes_out",
    "scopes",
    "issued_at",
    "expires_at",
    "binding",
];
const TIME_KEYS: &[&str] = &["issued_at", "expires_at"];

/// Default values of event fields: native field name to JSON value.
pub(super) type Base = Map<String, Value>;

/// Reads the table `base`. Its fields override those of `outer`.
pub(super) fn read_base(fields: &Fields<'_, '_>, outer: &Base, report: &mut Report<'_>) -> Base {
    let base = fields.value("base").and_then(|value| Fields::of_value(value, "`base`", EVENT_KEYS, report));
    base.map_or_else(|| outer.clone(), |base| inherit(outer, &base, report))
}

/// What the test cases of a file share.
pub(super) struct Shared<'f> {
    /// `None` if the id of the rule is wrong.
    pub(super) rule: Option<RuleId>,
    pub(super) base: &'f Base,
    pub(super) places: &'f Places,
}

/// Reads one `[[cases]]` table. The size of its events, at most `room` bytes, is subtracted from `room`. `None` if an error
/// was reported.
pub(super) fn read(
    value: &Spanned<DeValue<'_>>,
    shared: &Shared<'_>,
    room: &mut usize,
    report: &mut Report<'_>,
) -> Option<Case> {
    let Shared { rule, base, places } = *shared;
    let fields = Fields::of_value(value, "a case", CASE_KEYS, report)?;
    let name = fields.required_text("name", report);
    if fields.value("expect").is_none() {
        report.add(fields.span(), "a case lacks the key `expect`: \"fires\" or \"quiet\"");
    }
    let expect = fields.one_of("expect", &["fires", "quiet"], parse_expect, report);
    let policies = rule.map_or_else(Vec::new, |rule| policies::read(rule, &fields, report));
    let base = read_base(&fields, base, report);
    let start = match fields.value("start") {
        None => START_DEFAULT,
        Some(value) => read_time(value, "start", report)?,
    };
    let mut writer = Writer { places, room, report, now: start, steps: 0, counts: Vec::new(), out: Vec::new() };
    let history = writer.write_list(&fields, "history", &base)?;
    let events = writer.write_list(&fields, "events", &base)?;
    if events.is_empty() {
        report.add(fields.span(), "a case lacks `events`, on which the rule must fire or must not fire");
        return None;
    }
    let line = report.line(fields.span().start);
    Some(Case { name: name?.to_owned(), line, expect: expect?, policies, history, events })
}

fn parse_expect(text: &str) -> Option<Expect> {
    match text {
        "fires" => Some(Expect::Fires),
        "quiet" => Some(Expect::Quiet),
        _ => None,
    }
}

/// Expands entries to events, with a clock that advances from entry to entry.
struct Writer<'w, 'r> {
    places: &'w Places,
    room: &'w mut usize,
    report: &'w mut Report<'r>,
    /// Time of the previous event, milliseconds since the epoch.
    now: i64,
    /// Number of expanded entries with repeats, so that nested repeats without events end, too.
    steps: usize,
    /// Repeats around the current entry, outermost first: name and count, from 1.
    counts: Vec<(String, u32)>,
    out: Vec<CaseEvent>,
}

impl Writer<'_, '_> {
    /// `None` if an error was reported. Later entries would repeat it.
    fn write_list(&mut self, fields: &Fields<'_, '_>, key: &str, base: &Base) -> Option<Vec<CaseEvent>> {
        fields.array(key, self.report).iter().try_for_each(|entry| self.write_entry(entry, base))?;
        Some(std::mem::take(&mut self.out))
    }

    fn write_entry(&mut self, entry: &Spanned<DeValue<'_>>, base: &Base) -> Option<()> {
        let known: Vec<&str> = ENTRY_KEYS.iter().chain(EVENT_KEYS).copied().collect();
        let before = self.report.len();
        let fields = Fields::of_value(entry, "an event", &known, self.report)?;
        let event = inherit(base, &fields, self.report);
        if let Some(value) = fields.value("timestamp") {
            self.now = read_time(value, "timestamp", self.report)?;
        }
        self.now = self.now.saturating_add(self.duration(&fields, "after")?.unwrap_or(0));
        let repeat = self.repeat(&fields)?;
        if self.report.len() > before {
            return None;
        }
        let start = self.now;
        for count in 1..=repeat.times {
            self.steps += 1;
            if self.steps > EVENTS_MAX {
                let message = format!("the case has more than {EVENTS_MAX} events; reduce `times`");
                self.report.add(fields.span(), message);
                return None;
            }
            self.now = start.saturating_add(i64::from(count - 1).saturating_mul(repeat.every));
            if let Some(name) = &repeat.name {
                self.counts.push((name.clone(), count));
            }
            let written = match fields.value("events") {
                Some(_) => fields.array("events", self.report).iter().try_for_each(|e| self.write_entry(e, &event)),
                None => self.write_event(&fields, &event),
            };
            if repeat.name.is_some() {
                self.counts.pop();
            }
            written?;
        }
        Some(())
    }

    fn write_event(&mut self, fields: &Fields<'_, '_>, event: &Base) -> Option<()> {
        let Some(at) = Timestamp::from_millis(self.now) else {
            self.report.add(fields.span(), "the time of the event must be in the years 1970 to 2199");
            return None;
        };
        let mut json = Map::new();
        for (key, value) in event {
            let value = match value {
                Value::String(text) if TIME_KEYS.contains(&key.as_str()) => self.time_value(fields, key, text)?,
                Value::String(text) => Value::String(self.fill(fields, key, text)?),
                other => other.clone(),
            };
            json.insert(key.clone(), value);
        }
        json.insert("timestamp".to_owned(), at.millis().into());
        let number = self.steps.to_string();
        json.entry("event_id").or_insert_with(|| Value::String(number));
        if let Some(Value::String(address)) = json.get("ip_address")
            && let Err(message) = self.places.check(address)
        {
            self.report.add(&fields.span_of("ip_address"), message);
            return None;
        }
        let json = Value::Object(json).to_string();
        let Some(room) = self.room.checked_sub(json.len()) else {
            let message =
                format!("the events of the file have more than {FILE_EVENTS_BYTES_MAX} bytes; reduce `times`");
            self.report.add(fields.span(), message);
            return None;
        };
        *self.room = room;
        let line = self.report.line(fields.span().start);
        self.out.push(CaseEvent { line, json });
        Some(())
    }

    /// A time as RFC 3339, or relative to the time of the event: `+1h`, `-5m`.
    fn time_value(&mut self, fields: &Fields<'_, '_>, key: &str, text: &str) -> Option<Value> {
        let (sign, distance) = match text.as_bytes().first() {
            Some(b'+') => (1, text.get(1..)?),
            Some(b'-') => (-1, text.get(1..)?),
            _ => return Some(Value::String(text.to_owned())),
        };
        let millis = parse_duration(distance);
        if millis.is_none() {
            self.report.add(&fields.span_of(key), format!("`{key}` is {}: {DURATION_FORM}", quoted(text)));
        }
        Some(self.now.saturating_add(sign * millis?).into())
    }

    /// Replaces `{name}`, `{name+1}` and `{name-1}` by counts.
    fn fill(&mut self, fields: &Fields<'_, '_>, key: &str, text: &str) -> Option<String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, (inside, after))) =
            rest.split_once('{').and_then(|(before, tail)| Some((before, tail.split_once('}')?)))
        {
            filled.push_str(before);
            let Some(count) = self.count(inside) else {
                let names: Vec<&str> = self.counts.iter().map(|(name, _)| name.as_str()).collect();
                let name = inside.split(['+', '-']).next().unwrap_or_default();
                let message = if names.is_empty() {
                    format!("`{key}` uses the count {}, but is not inside a `repeat`", quoted(inside))
                } else {
                    format!("`{key}` uses the unknown count {}{}", quoted(inside), did_you_mean(name, &names))
                };
                self.report.add(&fields.span_of(key), message);
                return None;
            };
            filled.push_str(&count.to_string());
            rest = after;
        }
        filled.push_str(rest);
        Some(filled)
    }

    fn count(&self, inside: &str) -> Option<i64> {
        let (name, offset) = match inside.find(['+', '-']) {
            Some(at) => (inside.get(..at)?, inside.get(at..)?.parse::<i32>().ok()?),
            None => (inside, 0),
        };
        let (_, count) = self.counts.iter().rev().find(|(known, _)| known == name)?;
        Some(i64::from(*count) + i64::from(offset))
    }

    fn repeat(&mut self, fields: &Fields<'_, '_>) -> Option<Repeat> {
        let Some(value) = fields.value("repeat") else { return Some(Repeat { name: None, every: 0, times: 1 }) };
        let repeat = Fields::of_value(value, "`repeat`", &["every", "times", "as"], self.report)?;
        for key in ["every", "times"] {
            if repeat.value(key).is_none() {
                self.report.add(repeat.span(), format!("`repeat` lacks the key `{key}`"));
            }
        }
        let times = repeat.whole_number("times", 1, EVENTS_MAX as u32, self.report);
        let every = self.duration(&repeat, "every")?;
        let name = match repeat.value("as") {
            Some(_) => repeat.required_text("as", self.report)?,
            None => "n",
        };
        Some(Repeat { name: Some(name.to_owned()), every: every?, times: times? })
    }

    /// `Some(None)` if the key is absent, `None` if an error was reported.
    #[expect(clippy::option_option, reason = "an absent key differs from an invalid one")]
    fn duration(&mut self, fields: &Fields<'_, '_>, key: &str) -> Option<Option<i64>> {
        if fields.value(key).is_none() {
            return Some(None);
        }
        let text = fields.text(key, self.report)?;
        let millis = parse_duration(text);
        if millis.is_none() {
            self.report.add(&fields.span_of(key), format!("`{key}` is {}: {DURATION_FORM}", quoted(text)));
        }
        millis.map(Some)
    }
}

struct Repeat {
    /// Name of its count in `{…}`. `None` for an entry that does not repeat.
    name: Option<String>,
    /// Milliseconds from one start to the next.
    every: i64,
    times: u32,
}

/// `base`, overridden by the event fields of `fields`.
fn inherit(base: &Base, fields: &Fields<'_, '_>, report: &mut Report<'_>) -> Base {
    let mut event = base.clone();
    for (key, value) in fields.iter().filter(|(key, _)| EVENT_KEYS.contains(key) && *key != "timestamp") {
        match to_json(value.get_ref()) {
            Some(json) => {
                event.insert(key.to_owned(), json);
            }
            None => report.add(&value.span(), format!("`{key}` cannot be {}", type_name(value.get_ref()))),
        }
    }
    event
}

fn to_json(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::String(text.as_ref().to_owned())),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(Value::from),
        DeValue::Datetime(time) => Some(Value::String(time.to_string())),
        DeValue::Array(items) => items.iter().map(|item| to_json(item.get_ref())).collect(),
        DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Table(_) => None,
    }
}

const DURATION_FORM: &str = "expected a duration such as 90s, 45m, 1h30m or 2d";

/// Milliseconds of `1h30m`, `200ms`, `2d`. A day has 24 hours.
fn parse_duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut millis = 0_i64;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let scale = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        millis = millis.checked_add(number.parse::<i64>().ok()?.checked_mul(scale)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_parses_units_and_refuses_others() {
        assert_eq!(parse_duration("90s"), Some(90_000));
        assert_eq!(parse_duration("1h30m"), Some(5_400_000));
        assert_eq!(parse_duration("2d"), Some(172_800_000));
        assert_eq!(parse_duration("250ms"), Some(250));
        for wrong in ["", "5", "h", "1 h", "1y", "-1h", "9223372036854775807d", "99999999999999999999s", "1hé"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}
