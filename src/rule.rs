//! Rules: configuration and texts of detectors, and the requirements of their policies. `config::rule_file` parses
//! their files.

use crate::enrichment::EnrichedEvent;
use crate::event::{Event, TokenType};
use crate::millis::{DAY_MS, HOUR_MS};
use crate::policy::{Finding, Policy, Time};
use crate::verdict::{Mode, RuleId, Severity, Verdict};

/// A parameter of a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) default: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Its meaning and unit.
    pub(crate) meaning: &'static str,
}

/// Maturity of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Experimental,
    Stable,
    /// The rule does not fire. Its detector still counts in the log-odds.
    Disabled,
}

impl Status {
    pub(crate) const ALL: [Self; 3] = [Self::Experimental, Self::Stable, Self::Disabled];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Experimental => "experimental",
            Self::Stable => "stable",
            Self::Disabled => "disabled",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// A rule: the configuration of one detector.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub id: RuleId,
    /// One line, "Detects …".
    pub title: String,
    pub description: String,
    pub status: Status,
    pub severity: Severity,
    /// Mode of the rule, limited by the mode of the installation.
    pub mode: Mode,
    /// MITRE ATT&CK technique ids.
    pub attack: Vec<String>,
    /// Share, in nats, from which the rule fires.
    pub threshold: f64,
    /// One value for each of [`RuleId::parameters`], in their order.
    pub values: Vec<f64>,
    /// Requirements independent of the log-odds.
    pub policies: Vec<Policy>,
    pub false_positives: Vec<String>,
    pub blind_spots: Vec<String>,
    /// What to do when it fires, in short imperative sentences.
    pub runbook: Vec<String>,
}

impl Rule {
    /// Whether the rule fires at this share, nats.
    pub(crate) fn fires(&self, share: f64) -> bool {
        self.status != Status::Disabled && share >= self.threshold
    }
}

/// Default of [`Rule::threshold`], nats.
pub(crate) const THRESHOLD_DEFAULT: f64 = 1.5;

impl RuleId {
    /// The parameters that the rule file may set under `[parameters]`.
    pub(crate) const fn parameters(self) -> &'static [Parameter] {
        match self {
            Self::TokenAge => &TOKEN_AGE,
            _ => &[],
        }
    }
}

/// Access tokens should live for minutes (RFC 9700 section 2.2.2), refresh tokens for about a month.
const TOKEN_AGE: [Parameter; 2] = [
    Parameter {
        name: "access_hours_max",
        default: 1.0,
        min: 0.1,
        max: 87_600.0,
        meaning: "maximum age of an access token, hours",
    },
    Parameter {
        name: "refresh_days_max",
        default: 30.0,
        min: 0.1,
        max: 3_650.0,
        meaning: "maximum age of a refresh token, days",
    },
];

/// All rules, one of each id, in the order of [`RuleId::ALL`].
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSet {
    rules: Vec<Rule>,
    /// Enabled rules with policies. The list is short, and is used for every event.
    with_policies: Vec<RuleId>,
}

impl RuleSet {
    /// All rules with default parameters and mode `enforce`, for tests and for installations without rule files.
    pub fn builtin() -> Self {
        Self::new(Vec::new())
    }

    /// The given rules. A rule that is missing in `given` gets its defaults.
    pub fn new(given: Vec<Rule>) -> Self {
        let mut given = given;
        let rules: Vec<Rule> = RuleId::ALL
            .iter()
            .map(|&id| match given.iter().position(|rule| rule.id == id) {
                Some(at) => given.swap_remove(at),
                None => Rule {
                    id,
                    title: id.as_str().to_owned(),
                    description: String::new(),
                    status: Status::Stable,
                    severity: Severity::Medium,
                    mode: Mode::Enforce,
                    attack: Vec::new(),
                    threshold: THRESHOLD_DEFAULT,
                    values: id.parameters().iter().map(|p| p.default).collect(),
                    policies: Vec::new(),
                    false_positives: Vec::new(),
                    blind_spots: Vec::new(),
                    runbook: Vec::new(),
                },
            })
            .collect();
        let has_policies = |rule: &&Rule| rule.status != Status::Disabled && !rule.policies.is_empty();
        let with_policies = rules.iter().filter(has_policies).map(|rule| rule.id).collect();
        Self { rules, with_policies }
    }

    pub fn rule(&self, id: RuleId) -> &Rule {
        &self.rules[id as usize]
    }

    /// A copy with further policies in the rule `id`.
    #[must_use]
    pub(crate) fn with_policies(&self, id: RuleId, policies: &[Policy]) -> Self {
        let mut rules = self.rules.clone();
        rules[id as usize].policies.extend_from_slice(policies);
        Self::new(rules)
    }

    /// Violations of policies and of the maximum age of tokens by one event, the highest verdict first. Does not
    /// allocate if there are none. `count` counts a call of the grant and returns the number of calls in its minute so
    /// far. It is called at most once.
    #[inline] // Most events have none.
    pub(crate) fn violations(
        &self,
        enriched: &EnrichedEvent<'_>,
        time: Time,
        count: &mut dyn FnMut() -> u32,
    ) -> Vec<Finding> {
        let too_old = time.known().and_then(|at| self.too_old(&enriched.event, at));
        if too_old.is_none() && self.with_policies.is_empty() {
            return Vec::new();
        }
        self.findings(too_old, enriched, time, count)
    }

    #[inline(never)]
    fn findings(
        &self,
        too_old: Option<TooOld>,
        enriched: &EnrichedEvent<'_>,
        time: Time,
        count: &mut dyn FnMut() -> u32,
    ) -> Vec<Finding> {
        let mut findings: Vec<_> = too_old.map(|too_old| too_old.finding(&enriched.event)).into_iter().collect();
        let mut calls = None;
        for rule in self.with_policies.iter().map(|id| self.rule(*id)) {
            for policy in &rule.policies {
                let mut count_once = || *calls.get_or_insert_with(&mut *count);
                findings.extend(policy.violation(rule.id, enriched, time, &mut count_once));
            }
        }
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
        findings
    }

    /// Whether a token is older than the maximum age of its type.
    #[inline]
    fn too_old(&self, event: &Event<'_>, at: i64) -> Option<TooOld> {
        let issued_at = event.issued_at?;
        let rule = self.rule(RuleId::TokenAge);
        let (unit_ms, unit, max) = match (event.token_type, rule.values.as_slice()) {
            (TokenType::Access, [access_hours_max, _]) => (HOUR_MS, "hours", *access_hours_max),
            (TokenType::Refresh, [_, refresh_days_max]) => (DAY_MS, "days", *refresh_days_max),
            _ => return None,
        };
        let age = (at - issued_at.millis()) as f64 / unit_ms as f64;
        (age > max && rule.status != Status::Disabled).then_some(TooOld { age, max, unit })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }
}

/// A token that is older than the maximum age of its type.
#[derive(Clone, Copy, Debug)]
struct TooOld {
    age: f64,
    max: f64,
    unit: &'static str,
}

impl TooOld {
    fn finding(self, event: &Event<'_>) -> Finding {
        let (Self { age, max, unit }, kind) = (self, event.token_type.as_str());
        let observed = format!("issued {age:.1} {unit} ago");
        let expected = format!("{kind} tokens at most {max} {unit} old");
        let reason = format!("the {kind} token is too old: {observed}; allowed: {max} {unit}");
        Finding { rule: RuleId::TokenAge, verdict: Verdict::Watch, observed, expected, reason }
    }
}
