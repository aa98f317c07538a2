//! Limits of revocations within an hour.

use serde::{Deserialize, Serialize};

/// What a limit of revocations within an hour is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// All tenants.
    Total,
    /// One tenant.
    Tenant,
    /// One rule in all tenants.
    RuleTotal,
    /// One rule in a tenant.
    Rule,
    /// One application of a tenant.
    Application,
}

impl Limit {
    /// The widest first: if several have room at the same time, the first is reported.
    pub(crate) const ALL: [Self; 5] = [Self::Total, Self::Tenant, Self::RuleTotal, Self::Rule, Self::Application];

    /// The name in reports.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Rule => "rule",
            Self::Tenant => "tenant",
            Self::RuleTotal => "rule_total",
            Self::Total => "total",
        }
    }

    /// The key of the default in the configuration. A limit by name replaces it.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Application => "revoke.limits.application",
            Self::Rule => "revoke.limits.rule",
            Self::Tenant => "revoke.max_per_hour",
            Self::RuleTotal => "revoke.limits.rule_total",
            Self::Total => "revoke.max_per_hour_total",
        }
    }

    /// The end of "The limit of 20 revocations per hour …".
    pub(crate) const fn in_words(self) -> &'static str {
        match self {
            Self::Application => "of this application",
            Self::Rule => "of this rule in one tenant",
            Self::Tenant => "of this tenant",
            Self::RuleTotal => "of this rule in all tenants",
            Self::Total => "of all tenants",
        }
    }
}

/// A limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Reached {
    pub limit: Limit,
    /// Revocations within an hour.
    pub cap: u32,
}

/// The forms in the files of the outbox. Earlier versions stored the number only.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Number(u32),
    Whole { limit: Limit, cap: u32 },
}

impl From<Stored> for Reached {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Number(cap) => Self { limit: Limit::Tenant, cap },
            Stored::Whole { limit, cap } => Self { limit, cap },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_of_an_earlier_version_is_read() {
        let read = |text: &str| serde_json::from_str::<Reached>(text).expect("a limit");
        assert_eq!(read("20"), Reached { limit: Limit::Tenant, cap: 20 });
        let rule = Reached { limit: Limit::Rule, cap: 3 };
        assert_eq!(read(&serde_json::to_string(&rule).expect("JSON")), rule);
    }
}
