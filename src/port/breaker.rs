//! Breakers: automatic revocation of a rule, application or tenant is stopped until a person lifts the stop.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::limit::Limit;
use super::record_log::{KEPT_MS, LogRecord};
use super::store_error::StoreError;
use crate::millis::MINUTE_MS;
use crate::number::{counted, id_of};
use crate::verdict::{Incident, RuleId};

/// Largest accepted difference between the clocks of the command and of a member.
pub(crate) const SKEW_MS: i64 = 5 * MINUTE_MS;

/// Identity of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BreakerId(pub u64);

impl BreakerId {
    /// The id in a text such as `BRK-0123456789ABCDEF`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        id_of(text, "BRK-").map(Self)
    }
}

impl fmt::Display for BreakerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BRK-{:016X}", self.0)
    }
}

/// The revocations that are stopped: those with every given value. Of the tenant, the id counts, not the allowance: new
/// tenants share limits, and each has its own stops.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerScope {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
}

impl BreakerScope {
    /// The part of `incident` that `limit` is about. `None` if no requests can stop it: a party that sends events of several
    /// tenants could reach a limit of all tenants.
    pub(crate) fn of_limit(incident: &Incident, limit: Limit) -> Option<Self> {
        let of_tenant = Self { tenant: Some(incident.tenant_id.clone()), ..Self::default() };
        match limit {
            Limit::Tenant => Some(of_tenant),
            Limit::Rule => Some(Self { rule: Some(rule_of(incident)?), ..of_tenant }),
            Limit::Application => Some(Self { application: Some(incident.app_id.clone()), ..of_tenant }),
            Limit::RuleTotal | Limit::Total => None,
        }
    }

    /// The limit that is about the same.
    pub(crate) const fn limit(&self) -> Limit {
        match (&self.tenant, self.rule, &self.application) {
            (Some(_), _, Some(_)) => Limit::Application,
            (Some(_), Some(_), None) => Limit::Rule,
            (Some(_), None, None) => Limit::Tenant,
            (None, Some(_), _) => Limit::RuleTotal,
            (None, None, _) => Limit::Total,
        }
    }

    /// Names and values of the conditions. The values are of events.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let rule = self.rule.map(RuleId::as_str);
        let found = [("rule", rule), ("tenant", self.tenant.as_deref()), ("application", self.application.as_deref())];
        found.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }

    /// Whether each incident in `other` is also in this scope.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        (self.tenant.is_none() || self.tenant == other.tenant)
            && (self.rule.is_none() || self.rule == other.rule)
            && (self.application.is_none() || self.application == other.application)
    }

    pub(crate) fn contains(&self, incident: &Incident) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| *tenant == incident.tenant_id)
            && self.rule.is_none_or(|rule| rule_of(incident) == Some(rule))
            && self.application.as_ref().is_none_or(|application| *application == incident.app_id)
    }
}

/// The rule that a revocation counts for: that with the largest share.
fn rule_of(incident: &Incident) -> Option<RuleId> {
    incident.signals.first().map(|signal| signal.rule)
}

/// Why revocations are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerCause {
    /// Revocations waited for the limit in this number of hours of a day.
    Full { hours: u32 },
    /// People refuted revocations for this number of users. An incident without a user counts as one.
    Refuted { users: u32 },
    /// People refuted revocations in this number of tenants.
    RefutedIn { tenants: u32 },
}

impl fmt::Display for BreakerCause {
    /// The end of "… is stopped, because".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { hours } => write!(f, "its limit was reached in {hours} hours of a day"),
            Self::Refuted { users } => {
                write!(f, "people refuted its revocations for {}", counted((*users).into(), "user"))
            }
            Self::RefutedIn { tenants } => {
                write!(f, "people refuted its revocations in {}", counted((*tenants).into(), "tenant"))
            }
        }
    }
}

/// A stop of revocations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerStop {
    pub scope: BreakerScope,
    pub cause: BreakerCause,
    /// Milliseconds since the epoch, wall clock of the member.
    pub at: i64,
}

/// The stop because of which a revocation is not requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedBy {
    pub breaker: BreakerId,
    /// What the scope of the stop is about.
    pub scope: Limit,
    pub cause: BreakerCause,
}

impl fmt::Display for StoppedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { breaker, scope, cause } = self;
        write!(f, "automatic revocation {} is stopped ({breaker}), because {cause}", scope.in_words())
    }
}

/// What happens to the revocations that wait when a person lifts a stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waiting {
    /// They are requested within the limits.
    #[default]
    Requested,
    /// People decide. They are not requested.
    Proposed,
}

/// The end of a stop by a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lift {
    /// Milliseconds since the epoch, wall clock of the command.
    pub at: i64,
    pub by: String,
    pub reason: String,
    #[serde(default)]
    pub waiting: Waiting,
}

impl Lift {
    /// Why it has no effect at `now`, without a value of it.
    pub(crate) fn problem(&self, now: i64) -> Option<&'static str> {
        if self.by.trim().is_empty() || self.reason.trim().is_empty() {
            return Some("the author or the reason is empty");
        }
        (self.at > now.saturating_add(SKEW_MS)).then_some("its time is in the future; check the clock of the command")
    }
}

/// A stop of one member, and its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerState {
    #[serde(flatten)]
    pub stop: BreakerStop,
    /// Name of the outbox of the member.
    pub member: String,
    /// `None`: a person has not lifted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifted: Option<Lift>,
}

impl BreakerState {
    /// The lift, if it has an effect at `now`, milliseconds since the epoch.
    pub(crate) fn lift(&self, now: i64) -> Option<&Lift> {
        self.lifted.as_ref().filter(|lift| lift.problem(now).is_none())
    }
}

/// A record of the log of stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerRecord {
    pub breaker: BreakerId,
    pub state: BreakerState,
}

impl LogRecord for BreakerRecord {
    type Key = BreakerId;
    type Value = BreakerState;
    const NAME: &'static str = "breakers";
    const IF_LOST: &'static str = "a member that has not read the log may still apply lifted stops";

    fn of(breaker: BreakerId, state: BreakerState) -> Self {
        Self { breaker, state }
    }

    fn key(&self) -> &BreakerId {
        &self.breaker
    }

    fn value(&self) -> &BreakerState {
        &self.state
    }

    fn is_kept(&self, now: i64) -> bool {
        self.state.lifted.as_ref().is_none_or(|lift| lift.at > now - KEPT_MS)
    }
}

/// A user for whom a person has refuted a revocation with `tokenwarden feedback`, within the last 30 days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refutation {
    pub tenant: String,
    pub rule: RuleId,
    /// Time of the last feedback, milliseconds since the epoch.
    pub at: i64,
    /// Whether the tenant has enough events that it counts for the stop of the rule in all tenants.
    pub is_of_known_tenant: bool,
}

/// Reads refutations.
#[async_trait]
pub trait Refutations: Send + Sync {
    /// Those of the last 30 days, one for each tenant, rule and user, or incident without a user.
    async fn read(&self) -> Result<Vec<Refutation>, StoreError>;
}
