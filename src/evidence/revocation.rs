//! A revocation of a rule.

use crate::deliver::Scope;
use crate::verdict::RuleId;

/// What became known about a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Nothing,
    /// A person confirmed the theft, or the provider revoked the grant itself.
    Theft,
    /// A person refuted the theft, or the owner vouched for the grant.
    Owner,
}

/// A grant or token that a rule revoked or would have revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requested {
    /// The rule with the largest share.
    pub(super) rule: String,
    pub(super) tenant: String,
    pub(super) user: String,
    pub(super) application: String,
    pub(super) target: String,
    /// Time of the event, milliseconds since the epoch.
    pub(super) at: i64,
    pub(super) known: Known,
    /// Whether the incident was in mode `enforce`.
    pub(super) enforced: bool,
    pub(super) outcomes: Outcomes,
}

/// What happened to a request in mode `enforce`, as recorded in `actions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    /// A limit of `[revoke]` held it back.
    pub(super) was_capped: bool,
    /// A breaker held it back.
    pub(super) was_stopped: bool,
    pub(super) has_failed: bool,
}

impl Requested {
    /// What its request counts towards. Every tenant has its own allowance here.
    pub(super) fn scope(&self) -> Scope {
        Scope { allowance: self.tenant.clone(), rule: RuleId::parse(&self.rule), application: self.application.clone() }
    }
}
