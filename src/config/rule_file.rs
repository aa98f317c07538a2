//! Rule files: one TOML file per rule, with texts, threshold, parameters and test cases. See `docs/rules.md`.

mod case;
mod fields;
mod places;
mod policies;
pub mod trial;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

pub use case::Case;
pub use case::{CaseEvent, Expect};
pub use fields::RuleFileError;
pub use places::Places;

use crate::rule::{Rule, RuleSet, Status, THRESHOLD_DEFAULT};
use crate::verdict::{Mode, RuleId, Severity};
use fields::{Fields, Report, did_you_mean, quoted};

/// The rules of a directory of rule files.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedRules {
    pub rules: RuleSet,
    pub cases: Vec<RuleCases>,
    /// Rules without a file. They are disabled. A reload that would add to them is refused.
    pub missing: Vec<RuleId>,
}

impl LoadedRules {
    /// A text with the rules that are disabled because they have no file, if there are any.
    pub(crate) fn missing_note(&self) -> Option<String> {
        let names: Vec<_> = self.missing.iter().map(|id| id.as_str()).collect();
        (!names.is_empty()).then(|| format!("rules without a file, disabled: {}", names.join(", ")))
    }
}

/// The test cases of one rule file, and the places of their addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleCases {
    pub rule: RuleId,
    pub file: PathBuf,
    pub cases: Vec<Case>,
    pub places: Arc<Places>,
}

/// Reads every `*.toml` in `dir`.
///
/// # Errors
/// Returns all errors of all files, and no rules, so that a reload with an error changes nothing.
pub fn load(dir: &Path) -> Result<LoadedRules, Vec<RuleFileError>> {
    let whole = |file: &Path, message: String| RuleFileError { file: file.to_owned(), line: 0, message };
    let entries = std::fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut files: Vec<PathBuf> = match entries {
        Ok(entries) => entries.iter().map(std::fs::DirEntry::path).collect(),
        Err(error) => return Err(vec![whole(dir, format!("the rules directory cannot be read: {error}"))]),
    };
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    if files.is_empty() {
        return Err(vec![whole(dir, "the directory has no rule file (*.toml)".to_owned())]);
    }
    let texts = files.into_iter().map(|file| {
        let text = match std::fs::metadata(&file) {
            Ok(about) if about.len() > FILE_BYTES_MAX => Err(format!("is larger than {FILE_BYTES_MAX} bytes")),
            Ok(_) => std::fs::read(&file).map_err(|error| format!("cannot be read: {error}")),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
        (file, text)
    });
    assemble(texts)
}

/// The rules that are part of the build.
pub fn shipped() -> Result<LoadedRules, Vec<RuleFileError>> {
    assemble(SHIPPED.iter().map(|(name, text)| (Path::new("rules").join(name), Ok(text.as_bytes().to_vec()))))
}

/// Parses one rule file. The name of `file` must be that of the rule. Any input gives a rule or errors.
pub fn parse(file: &Path, text: impl AsRef<[u8]>) -> Result<(Rule, RuleCases), Vec<RuleFileError>> {
    let bytes = text.as_ref();
    let mut report = Report::new(file, bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = error.valid_up_to();
            report.add(&(at..at), "is not UTF-8 text");
            return Err(report.into_errors());
        }
    };
    let parsed = read_rule(file, text, &mut report);
    match parsed {
        Some(parsed) if report.is_empty() => Ok(parsed),
        _ => Err(report.into_errors()),
    }
}

/// Maximum size of a rule file. Shipped files have less than 1 % of it, and parsing this size is fast.
const FILE_BYTES_MAX: u64 = 1 << 20;

macro_rules! shipped_files {
    ($($id:literal)+) => { &[$((concat!($id, ".toml"), include_str!(concat!("../../rules/", $id, ".toml"))),)+] };
}

const SHIPPED: &[(&str, &str)] = shipped_files! {
    "new_country" "impossible_travel" "new_ip" "new_network" "unusual_time" "volume_spike" "bytes_spike" "new_client"
    "new_endpoint" "sensitive_endpoint" "enumeration" "concurrent_use" "refresh_reuse" "use_after_revocation"
    "use_after_session_end" "use_after_expiry" "stale_after_credential_change" "binding_mismatch" "token_age"
    "app_fanout" "ip_fanout"
};

fn assemble(
    texts: impl Iterator<Item = (PathBuf, Result<Vec<u8>, String>)>,
) -> Result<LoadedRules, Vec<RuleFileError>> {
    let (mut rules, mut cases, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for (file, text) in texts {
        let parsed = match text {
            Ok(text) => parse(&file, &text),
            Err(message) => Err(vec![RuleFileError { file: file.clone(), line: 0, message }]),
        };
        match parsed {
            Ok((rule, rule_cases)) => {
                rules.push(rule);
                cases.push(rule_cases);
            }
            Err(found) => errors.extend(found),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let missing: Vec<RuleId> =
        RuleId::ALL.iter().copied().filter(|id| rules.iter().all(|rule: &Rule| rule.id != *id)).collect();
    let builtin = RuleSet::builtin();
    rules.extend(missing.iter().map(|id| Rule { status: Status::Disabled, ..builtin.rule(*id).clone() }));
    Ok(LoadedRules { rules: RuleSet::new(rules), cases, missing })
}

const RULE_KEYS: &[&str] = &[
    "id",
    "title",
    "description",
    "status",
    "severity",
    "mode",
    "attack",
    "threshold",
    "parameters",
    "false_positives",
    "blind_spots",
    "runbook",
    "policies",
    "places",
    "base",
    "cases",
];

/// Maximum threshold. No share reaches it, so a rule with a higher threshold would never fire.
const THRESHOLD_MAX: f64 = 20.0;

fn read_rule(file: &Path, text: &str, report: &mut Report<'_>) -> Option<(Rule, RuleCases)> {
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    for error in &syntax_errors {
        report.add(&error.span().unwrap_or(0..0), error.message());
    }
    if !report.is_empty() {
        // After a syntax error, further errors would be misleading.
        return None;
    }
    let rule = Fields::new(document.get_ref(), 0..0, "the rule", RULE_KEYS, report);
    let id = read_id(file, &rule, report);

    let title = rule.required_text("title", report);
    if title.is_some_and(|title| !title.starts_with("Detects ") || title.contains('\n')) {
        report.add(&rule.span_of("title"), "`title` must be one line that begins with \"Detects \"");
    }
    let description = rule.required_text("description", report);
    let status = rule.one_of("status", &Status::ALL.map(Status::as_str), Status::parse, report);
    let severity = rule.one_of("severity", &Severity::ALL.map(Severity::as_str), Severity::parse, report);
    let mode = rule.one_of("mode", &Mode::ALL.map(Mode::as_str), Mode::parse, report);
    for (key, fix) in [
        ("status", "\"stable\", \"experimental\" or \"disabled\""),
        ("severity", "\"info\", \"low\", \"medium\", \"high\" or \"critical\""),
        ("mode", "\"shadow\", \"alert\" or \"enforce\""),
    ] {
        if rule.value(key).is_none() {
            report.add(rule.span(), format!("the rule lacks the key `{key}`: {fix}"));
        }
    }
    let threshold = rule.number("threshold", 0.0, THRESHOLD_MAX, report).unwrap_or(THRESHOLD_DEFAULT);
    let attack = read_attack(&rule, report);
    let values = id.map(|id| read_parameters(id, &rule, report));
    let policies = id.map(|id| policies::read(id, &rule, report));
    let mut notes = |key| {
        let texts = rule.texts(key, report);
        if rule.value(key).is_none_or(|value| value.get_ref().as_array().is_some_and(|array| array.is_empty())) {
            report.add(&rule.span_of(key), format!("the rule lacks `{key}`: an array of sentences"));
        }
        texts
    };
    let (false_positives, blind_spots, runbook) = (notes("false_positives"), notes("blind_spots"), notes("runbook"));
    let places = Places::read(rule.value("places"), report);
    let base = case::read_base(&rule, &case::Base::new(), report);
    let mut room = case::FILE_EVENTS_BYTES_MAX;
    let cases = rule.array("cases", report).iter();
    let shared = case::Shared { rule: id, base: &base, places: &places };
    let cases = cases.filter_map(|value| case::read(value, &shared, &mut room, report));
    let cases: Vec<Case> = cases.collect();
    for (at, case) in cases.iter().enumerate() {
        if cases.iter().take(at).any(|before| before.name == case.name) {
            report.add_at_line(case.line, format!("there is another case with the name {}", quoted(&case.name)));
        }
    }

    let id = id?;
    let rule = Rule {
        id,
        title: title?.to_owned(),
        description: description?.trim().to_owned(),
        status: status?,
        severity: severity?,
        mode: mode?,
        attack,
        threshold,
        values: values?,
        policies: policies?,
        false_positives,
        blind_spots,
        runbook,
    };
    Some((rule, RuleCases { rule: id, file: file.to_owned(), cases, places: Arc::new(places) }))
}

/// Reads the id. The file must have the same name, so that two files cannot define one rule.
fn read_id(file: &Path, rule: &Fields<'_, '_>, report: &mut Report<'_>) -> Option<RuleId> {
    let names: Vec<&str> = RuleId::ALL.iter().map(|id| id.as_str()).collect();
    let text = rule.required_text("id", report)?;
    let Some(id) = RuleId::parse(text) else {
        report.add(&rule.span_of("id"), format!("unknown rule {}{}", quoted(text), did_you_mean(text, &names)));
        return None;
    };
    if file.file_stem().is_none_or(|stem| stem != id.as_str()) {
        report.add(&rule.span_of("id"), format!("the file of the rule `{id}` must be named {id}.toml"));
    }
    Some(id)
}

/// Technique ids of MITRE ATT&CK: `T1528`, `T1550.001`.
fn read_attack(rule: &Fields<'_, '_>, report: &mut Report<'_>) -> Vec<String> {
    let techniques = rule.texts("attack", report);
    for technique in &techniques {
        let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        let valid = technique.strip_prefix('T').is_some_and(|number| match number.split_once('.') {
            Some((main, sub)) => digits(main, 4) && digits(sub, 3),
            None => digits(number, 4),
        });
        if !valid {
            let message =
                format!("{} is not an ATT&CK technique, such as \"T1528\" or \"T1550.001\"", quoted(technique));
            report.add(&rule.span_of("attack"), message);
        }
    }
    techniques
}

/// The value of each parameter of the rule. A parameter that is not in the file has its default.
fn read_parameters(id: RuleId, rule: &Fields<'_, '_>, report: &mut Report<'_>) -> Vec<f64> {
    let known = id.parameters();
    let names: Vec<&str> = known.iter().map(|parameter| parameter.name).collect();
    let fields = rule.value("parameters").and_then(|value| Fields::of_value(value, "`parameters`", &names, report));
    known
        .iter()
        .map(|parameter| {
            fields
                .as_ref()
                .and_then(|fields| fields.number(parameter.name, parameter.min, parameter.max, report))
                .unwrap_or(parameter.default)
        })
        .collect()
}
