//! Rules: what people configure and read about a term of the judgement. Parsing their files is `config::rule_file`'s.

use crate::policy::Policy;
use crate::verdict::{Mode, RuleId, Severity};

/// One number of a rule that people may set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter {
    pub name: &'static str,
    pub default: f64,
    pub min: f64,
    pub max: f64,
    /// What it means, with its unit.
    pub meaning: &'static str,
}

/// How settled a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Experimental,
    Stable,
    /// Its term still counts in the log-odds; the rule itself says nothing.
    Disabled,
}

impl Status {
    pub const ALL: [Self; 3] = [Self::Experimental, Self::Stable, Self::Disabled];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Experimental => "experimental",
            Self::Stable => "stable",
            Self::Disabled => "disabled",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// One rule, complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub id: RuleId,
    /// One line, "Detects …".
    pub title: String,
    pub description: String,
    pub status: Status,
    pub severity: Severity,
    /// How far this rule may go; the installation's mode is a ceiling over it.
    pub mode: Mode,
    /// MITRE ATT&CK technique ids.
    pub attack: Vec<String>,
    /// Share, in nats, from which the rule fires.
    pub threshold: f64,
    /// One value for each of [`RuleId::parameters`], in their order.
    pub values: Vec<f64>,
    /// What people want besides, whatever the log-odds.
    pub policies: Vec<Policy>,
    pub false_positives: Vec<String>,
    pub blind_spots: Vec<String>,
    /// What to do when it fires, in short imperative sentences.
    pub runbook: Vec<String>,
}

impl Rule {
    /// Whether it fires at this share, nats.
    #[must_use]
    pub fn speaks(&self, share: f64) -> bool {
        self.status != Status::Disabled && share >= self.threshold
    }
}

/// Share from which a rule fires where its file says nothing.
pub const THRESHOLD_DEFAULT: f64 = 1.5;

impl RuleId {
    /// The numbers that this rule's file may set under `[parameters]`.
    #[must_use]
    pub const fn parameters(self) -> &'static [Parameter] {
        match self {
            Self::TokenAge => &TOKEN_AGE,
            _ => &[],
        }
    }
}

/// Access tokens are to live minutes (RFC 9700 section 2.2.2), refresh tokens are to be given up after a month or so.
const TOKEN_AGE: [Parameter; 2] = [
    Parameter {
        name: "access_hours_max",
        default: 1.0,
        min: 0.1,
        max: 87_600.0,
        meaning: "an access token older than this is told, hours",
    },
    Parameter {
        name: "refresh_days_max",
        default: 30.0,
        min: 0.1,
        max: 3_650.0,
        meaning: "a refresh token older than this is told, days",
    },
];

/// All rules, one of each id, in the order of [`RuleId::ALL`].
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSet {
    rules: Vec<Rule>,
    /// Those that hold policies: hardly any, and every event asks for them.
    with_policies: Vec<RuleId>,
}

impl RuleSet {
    /// The rules with every parameter at its default, able to enforce: for tests and for an installation without
    /// rule files.
    #[must_use]
    pub fn builtin() -> Self {
        Self::new(Vec::new())
    }

    /// Takes the given rules; an id that is missing gets its defaults.
    #[must_use]
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

    #[must_use]
    pub fn rule(&self, id: RuleId) -> &Rule {
        &self.rules[id as usize]
    }

    /// These rules, with more policies in the rule `id`.
    #[must_use]
    pub fn with_policies(&self, id: RuleId, policies: &[Policy]) -> Self {
        let mut rules = self.rules.clone();
        rules[id as usize].policies.extend_from_slice(policies);
        Self::new(rules)
    }

    /// The rules that hold policies and are not disabled.
    pub fn policed(&self) -> impl Iterator<Item = &Rule> {
        self.with_policies.iter().map(|id| self.rule(*id))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }
}
