//! The limits of revocations within an hour, and the requests that count towards each.

use std::collections::BTreeMap;

use crate::port::Limit;
use crate::verdict::{Incident, RuleId};

/// Allowance of all new tenants. Ids contain no control characters.
const NEW_TENANTS: &str = "\0new";

/// The allowance that an incident's revocations count towards: the tenant's own, or one that all new tenants share,
/// because a client can invent tenants.
pub(super) fn allowance(incident: &Incident) -> &str {
    if is_shared(incident) { NEW_TENANTS } else { &incident.tenant_id }
}

/// Whether other tenants use the same allowance.
pub(super) const fn is_shared(incident: &Incident) -> bool {
    incident.tenant_is_new
}

/// Maximum numbers of revocations within an hour. Further ones wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one tenant.
    pub of_tenant: u32,
    /// Of all tenants.
    pub total: u32,
    /// Of one rule in a tenant. `None`: half of the tenant's limit, so that a faulty rule leaves room for the others.
    pub of_rule: Option<u32>,
    /// Of one rule in all tenants. `None`: half of `total`.
    pub of_rule_total: Option<u32>,
    /// Of one application of a tenant. `None`: the tenant's limit.
    pub of_application: Option<u32>,
    /// Of these tenants, instead of `of_tenant`.
    pub tenants: BTreeMap<String, u32>,
    /// Of these rules in a tenant, instead of `of_rule`.
    pub rules: BTreeMap<RuleId, u32>,
    /// Of these applications of a tenant, instead of `of_application`.
    pub applications: BTreeMap<String, u32>,
}

impl Limits {
    /// Limits of a tenant and of all, with the defaults for rules and applications.
    #[must_use]
    pub const fn new(of_tenant: u32, total: u32) -> Self {
        Self {
            of_tenant,
            total,
            of_rule: None,
            of_rule_total: None,
            of_application: None,
            tenants: BTreeMap::new(),
            rules: BTreeMap::new(),
            applications: BTreeMap::new(),
        }
    }
}

/// The limits, and the revocations as which one request counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) weight: u32,
}

impl Caps<'_> {
    /// The number of revocations that `limit` allows to `scope` within an hour.
    pub(crate) fn of(self, limit: Limit, scope: &Scope) -> u32 {
        if let Some((cap, ..)) = self.by_name(limit, scope) {
            return cap;
        }
        let limits = self.limits;
        let of_tenant = || self.of(Limit::Tenant, scope);
        // One request must fit, unless the whole limit is smaller.
        let half = |whole: u32| whole.div_ceil(2).max(self.weight).min(whole);
        match limit {
            Limit::Application => limits.of_application.unwrap_or_else(of_tenant),
            Limit::Rule => limits.of_rule.unwrap_or_else(|| half(of_tenant())),
            Limit::Tenant => limits.of_tenant,
            Limit::RuleTotal => limits.of_rule_total.unwrap_or_else(|| half(limits.total)),
            Limit::Total => limits.total,
        }
    }

    /// The key of the configuration that sets `limit` for `scope`. It contains no value of an event: a name in it is one
    /// of the configuration.
    pub(crate) fn key(self, limit: Limit, scope: &Scope) -> String {
        match self.by_name(limit, scope) {
            Some((_, table, name)) => format!("revoke.limits.{table}.{name}"),
            None if limit == Limit::Application && self.limits.of_application.is_none() => {
                self.key(Limit::Tenant, scope)
            }
            None => limit.key().to_owned(),
        }
    }

    /// The limit that replaces the default, with its table and name in the configuration.
    fn by_name(self, limit: Limit, scope: &Scope) -> Option<(u32, &'static str, &str)> {
        let limits = self.limits;
        match limit {
            Limit::Application => {
                limits.applications.get(&scope.application).map(|cap| (*cap, "applications", &*scope.application))
            }
            Limit::Rule => {
                let rule = scope.rule?;
                limits.rules.get(&rule).map(|cap| (*cap, "rules", rule.as_str()))
            }
            Limit::Tenant => limits.tenants.get(&scope.allowance).map(|cap| (*cap, "tenants", &*scope.allowance)),
            Limit::RuleTotal | Limit::Total => None,
        }
    }
}

/// The tenant, rule and application whose limits a revocation counts towards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Scope {
    /// See [`allowance`].
    pub(crate) allowance: String,
    /// The rule with the largest share. `None`: the limits of rules do not apply.
    pub(crate) rule: Option<RuleId>,
    /// Empty for incidents without an application.
    pub(crate) application: String,
}

/// The part of a scope that a limit is about. An absent field stands for all of its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Part<'a> {
    allowance: Option<&'a str>,
    rule: Option<RuleId>,
    application: Option<&'a str>,
}

impl Scope {
    pub(super) fn of(incident: &Incident) -> Self {
        Self {
            allowance: allowance(incident).to_owned(),
            rule: incident.signals.first().map(|signal| signal.rule),
            application: incident.app_id.clone(),
        }
    }

    /// The part of the scope that `limit` is about. Requests count together if their parts are equal. `None`: the limit
    /// does not apply.
    pub(crate) fn part(&self, limit: Limit) -> Option<Part<'_>> {
        let of_tenant = Part { allowance: Some(&self.allowance), ..Part::default() };
        match limit {
            Limit::Application => Some(Part { application: Some(&self.application), ..of_tenant }),
            Limit::Rule => self.rule.map(|rule| Part { rule: Some(rule), ..of_tenant }),
            Limit::Tenant => Some(of_tenant),
            Limit::RuleTotal => self.rule.map(|rule| Part { rule: Some(rule), ..Part::default() }),
            Limit::Total => Some(Part::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_by_name_replace_the_defaults() {
        let limits = Limits {
            tenants: BTreeMap::from([("acme".to_owned(), 60)]),
            rules: BTreeMap::from([(RuleId::NewCountry, 3)]),
            applications: BTreeMap::from([("crm".to_owned(), 4)]),
            ..Limits::new(21, 100)
        };
        let scope = |tenant: &str, rule, application: &str| Scope {
            allowance: tenant.to_owned(),
            rule: Some(rule),
            application: application.to_owned(),
        };
        let all = |scope: &Scope, weight| Limit::ALL.map(|limit| Caps { limits: &limits, weight }.of(limit, scope));
        assert_eq!(all(&scope("other", RuleId::NewIp, "erp"), 1), [100, 21, 50, 11, 21]);
        assert_eq!(all(&scope("acme", RuleId::NewIp, "erp"), 1), [100, 60, 50, 30, 60]);
        assert_eq!(all(&scope("other", RuleId::NewCountry, "crm"), 1), [100, 21, 50, 3, 4]);
        assert_eq!(all(&scope("other", RuleId::NewIp, "erp"), 20), [100, 21, 50, 20, 21], "one request fits");
        let key = |scope: &Scope| Limit::ALL.map(|limit| Caps { limits: &limits, weight: 1 }.key(limit, scope));
        let keys = key(&scope("acme", RuleId::NewCountry, "crm"));
        let named =
            ["tenants.acme", "rules.new_country", "applications.crm"].map(|name| format!("revoke.limits.{name}"));
        assert_eq!([&keys[1], &keys[3], &keys[4]], [&named[0], &named[1], &named[2]]);
        let keys = key(&scope("acme", RuleId::NewIp, "erp"));
        assert_eq!(
            [&*keys[0], &*keys[2], &*keys[3]],
            ["revoke.max_per_hour_total", "revoke.limits.rule_total", "revoke.limits.rule"]
        );
        assert_eq!(keys[4], named[0], "the limit of the tenant");
        assert_eq!(key(&scope("other", RuleId::NewIp, "erp"))[4], "revoke.max_per_hour");
        assert_eq!(Caps { limits: &Limits::new(0, 0), weight: 5 }.of(Limit::Rule, &scope("", RuleId::NewIp, "")), 0);
    }
}
