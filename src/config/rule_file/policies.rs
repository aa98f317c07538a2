//! Policies of a rule file: requirements for some or all tokens, independent of the log-odds.

use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Fields, Report, quoted, read_time};
use crate::place::{Country, Prefix};
use crate::policy::{self, ALL_WEEK, Exception, List, NetworkRange, Policy, Selector, Times, WEEKDAYS, Wants};
use crate::sanitize::is_unsafe;
use crate::verdict::{RuleId, Verdict};

/// Maximum number of policies of a rule. Each is checked for every event.
const POLICIES_MAX: usize = 256;
const EXCEPTIONS_MAX: usize = 256;
/// Maximum length of a name, which is part of a sentence in alerts.
const NAME_CHARS_MAX: usize = 80;

const EXCEPTION_KEYS: &[&str] = &["author", "reason", "until", "tenant", "app", "token"];

/// Reads the key `policies` of a rule or a test case. Policies with errors are reported and skipped.
pub(super) fn read(id: RuleId, fields: &Fields<'_, '_>, report: &mut Report<'_>) -> Vec<Policy> {
    let tables = fields.array("policies", report);
    if tables.is_empty() {
        return Vec::new();
    }
    if !policy::RULES.contains(&id) {
        let names: Vec<&str> = policy::RULES.iter().map(|id| id.as_str()).collect();
        let message = format!("the rule `{id}` does not support policies; rules that do: {}", names.join(", "));
        report.add(&fields.span_of("policies"), message);
        return Vec::new();
    }
    if tables.len() > POLICIES_MAX {
        report.add(&fields.span_of("policies"), format!("`policies` has more than {POLICIES_MAX} entries"));
        return Vec::new();
    }
    let mut policies: Vec<Policy> = Vec::new();
    for table in tables {
        let Some(policy) = read_policy(id, table, report) else { continue };
        if policies.iter().any(|before| before.name == policy.name) {
            report.add(&table.span(), format!("there is another policy with the name {}", quoted(&policy.name)));
        }
        policies.push(policy);
    }
    policies
}

/// Allowed keys in a policy of this rule.
fn keys(id: RuleId) -> Vec<&'static str> {
    let wants: &[&str] = match id {
        RuleId::UnusualTime => &["hours", "weekdays"],
        RuleId::VolumeSpike => &["calls_per_minute_max"],
        _ => &["allow", "deny"],
    };
    ["name", "verdict", "tenant", "app", "token", "exceptions"].iter().chain(wants).copied().collect()
}

fn read_policy(id: RuleId, table: &Spanned<DeValue<'_>>, report: &mut Report<'_>) -> Option<Policy> {
    let before = report.len();
    let fields = Fields::of_value(table, "a policy", &keys(id), report)?;
    let name = fields.required_text("name", report);
    if name.is_some_and(|name| name.chars().count() > NAME_CHARS_MAX || name.chars().any(is_unsafe)) {
        let message = format!("`name` must be one line of at most {NAME_CHARS_MAX} characters");
        report.add(&fields.span_of("name"), message);
    }
    if fields.value("verdict").is_none() {
        report.add(fields.span(), "a policy lacks the key `verdict`: \"watch\", \"alert\" or \"revoke\"");
    }
    let verdict = fields.one_of("verdict", &["watch", "alert", "revoke"], parse_verdict, report);
    let of = read_selector(&fields, report);
    let wants = match id {
        RuleId::NewCountry => read_list(&fields, parse_country, report).map(Wants::Countries),
        RuleId::NewNetwork => read_list(&fields, parse_network, report).map(Wants::Networks),
        RuleId::UnusualTime => read_times(&fields, report).map(Wants::Times),
        RuleId::VolumeSpike => read_ceiling(&fields, report),
        _ => read_list(&fields, |text| Ok(text.to_owned()), report).map(Wants::Clients),
    };
    let tables = fields.array("exceptions", report);
    if tables.len() > EXCEPTIONS_MAX {
        report.add(&fields.span_of("exceptions"), format!("`exceptions` has more than {EXCEPTIONS_MAX} entries"));
        return None;
    }
    let exceptions = tables.iter().filter_map(|table| read_exception(table, report)).collect();
    if report.len() > before {
        return None;
    }
    Some(Policy { name: name?.to_owned(), verdict: verdict?, of, wants: wants?, exceptions })
}

fn parse_verdict(text: &str) -> Option<Verdict> {
    [Verdict::Watch, Verdict::Alert, Verdict::Revoke].into_iter().find(|verdict| verdict.as_str() == text)
}

fn read_selector(fields: &Fields<'_, '_>, report: &mut Report<'_>) -> Selector {
    let mut text = |key| {
        let text = fields.text(key, report)?;
        if text.is_empty() {
            report.add(&fields.span_of(key), format!("`{key}` is empty; omit the key to match any value"));
        }
        Some(text.to_owned())
    };
    Selector { tenant: text("tenant"), app: text("app"), token: text("token") }
}

fn read_exception(table: &Spanned<DeValue<'_>>, report: &mut Report<'_>) -> Option<Exception> {
    let fields = Fields::of_value(table, "an exception", EXCEPTION_KEYS, report)?;
    let author = fields.required_text("author", report);
    let reason = fields.required_text("reason", report);
    if fields.value("until").is_none() {
        report.add(fields.span(), "an exception lacks the key `until`: its end, such as 2026-12-31T00:00:00Z");
    }
    let until = fields.value("until").and_then(|value| read_time(value, "until", report));
    let of = read_selector(&fields, report);
    Some(Exception { author: author?.to_owned(), reason: reason?.to_owned(), until: until?, of })
}

/// The list of `allow` or `deny`, with an element for each string.
fn read_list<T>(
    fields: &Fields<'_, '_>,
    parse: impl Fn(&str) -> Result<T, String>,
    report: &mut Report<'_>,
) -> Option<List<T>> {
    let key = match (fields.value("allow"), fields.value("deny")) {
        (Some(_), None) => "allow",
        (None, Some(_)) => "deny",
        _ => {
            report.add(fields.span(), "a policy needs either `allow` or `deny`; for both, use two policies");
            return None;
        }
    };
    let before = report.len();
    let texts = fields.texts(key, report);
    if texts.is_empty() && report.len() == before {
        report.add(&fields.span_of(key), format!("`{key}` is empty"));
    }
    let mut items = Vec::new();
    for text in &texts {
        match parse(text) {
            Ok(item) => items.push(item),
            Err(message) => report.add(&fields.span_of(key), message),
        }
    }
    Some(if key == "allow" { List::Allow(items) } else { List::Deny(items) })
}

fn parse_country(text: &str) -> Result<Country, String> {
    Country::parse(text).ok_or_else(|| format!("{} is not a two-letter country code", quoted(text)))
}

fn parse_network(text: &str) -> Result<NetworkRange, String> {
    let asn = text.strip_prefix("AS").and_then(|number| number.parse().ok()).filter(|asn| *asn > 0);
    let range = asn.map(NetworkRange::Asn).or_else(|| Prefix::parse(text).map(NetworkRange::Prefix));
    range.ok_or_else(|| format!("{} is not a network, such as \"AS3320\" or \"192.0.2.0/24\"", quoted(text)))
}

fn read_times(fields: &Fields<'_, '_>, report: &mut Report<'_>) -> Option<Times> {
    if fields.value("hours").is_none() && fields.value("weekdays").is_none() {
        report.add(fields.span(), "a policy needs `hours` or `weekdays`");
        return None;
    }
    let (mut from, mut to) = (0, 0);
    if let Some(text) = fields.text("hours", report) {
        match text.split_once('-').and_then(|(from, to)| Some((parse_clock(from)?, parse_clock(to)?))) {
            Some(hours) if hours.0 != hours.1 => (from, to) = (hours.0 % MIDNIGHT, hours.1 % MIDNIGHT),
            _ => {
                let message = format!("`hours` is {}: expected a range in UTC, such as \"07:00-19:30\"", quoted(text));
                report.add(&fields.span_of("hours"), message);
            }
        }
    }
    let days = fields.texts("weekdays", report);
    let mut weekdays = if fields.value("weekdays").is_none() { ALL_WEEK } else { 0 };
    for text in &days {
        if let Some(day) = WEEKDAYS.iter().position(|day| day == text) {
            weekdays |= 1 << day;
        } else {
            let message = format!("{} is not a weekday; expected one of {}", quoted(text), WEEKDAYS.join(", "));
            report.add(&fields.span_of("weekdays"), message);
        }
    }
    if fields.value("weekdays").is_some() && days.is_empty() {
        report.add(&fields.span_of("weekdays"), "`weekdays` is empty");
    }
    Some(Times { from, to, weekdays })
}

/// Minutes per day.
const MIDNIGHT: u16 = 24 * 60;

/// Minutes since midnight of `07:30`. `24:00` is the end of the day.
fn parse_clock(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two_digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !two_digits(hour) || !two_digits(minute) {
        return None;
    }
    let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
    let minutes = hour * 60 + minute;
    (minute < 60 && minutes <= MIDNIGHT).then_some(minutes)
}

fn read_ceiling(fields: &Fields<'_, '_>, report: &mut Report<'_>) -> Option<Wants> {
    if fields.value("calls_per_minute_max").is_none() {
        report.add(fields.span(), "a policy lacks the key `calls_per_minute_max`");
    }
    fields.whole_number("calls_per_minute_max", 1, 1_000_000, report).map(Wants::CallsPerMinuteMax)
}
