//! The requests that revoke the grants of a search.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::search::{Found, Grant, Unit};
use crate::event::TokenType;
use crate::port::{Radius, RevokeRequest, Revoker};
use crate::verdict::Target;

/// What one request of the configured provider does, as it was shown to the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Effect {
    /// `None`: the target and no more.
    pub(crate) radius: Option<Radius>,
    /// Preset and what it does. `None` if only the configuration defines it.
    pub(crate) about: Option<String>,
    /// What it does not end.
    pub(crate) limits: Vec<String>,
    /// [`Revoker::fingerprint`]
    #[serde(default)]
    pub(crate) provider: Option<String>,
}

impl Effect {
    pub(crate) fn of(revoker: &dyn Revoker) -> Self {
        let limits = revoker.limits().into_iter().map(str::to_owned).collect();
        Self { radius: revoker.radius(), about: revoker.about(), limits, provider: revoker.fingerprint() }
    }

    /// The unit of a search for a provider. A provider that revokes no grants gets every token.
    pub(crate) fn unit(revoker: &dyn Revoker) -> Unit {
        let accepts_grants = revoker.accepts(&Target::Family(String::new()));
        if !accepts_grants && revoker.accepts(&Target::Token(String::new())) { Unit::Token } else { Unit::Grant }
    }
}

/// One request to the provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// From 0, part of the idempotency key.
    pub(crate) number: u32,
    pub(crate) target: Target,
    pub(crate) grant: Grant,
}

impl Request {
    /// The idempotency key, the same for all retries and after a resume.
    pub(crate) fn key(&self, job: &str) -> String {
        format!("{job}-{:06}", self.number)
    }

    pub(crate) fn asked<'a>(&'a self, key: &'a str, reason: &'a str) -> RevokeRequest<'a> {
        RevokeRequest {
            target: &self.target,
            tenant_id: &self.grant.tenant_id,
            user_id: &self.grant.user_id,
            app_id: &self.grant.app_id,
            family_id: &self.grant.family_id,
            session_id: &self.grant.session_id,
            token_id: &self.grant.token_id,
            // The store has neither, so a denial has the longest time.
            token_type: TokenType::Other,
            expires_at: None,
            reason,
            key,
        }
    }

    /// What the request ends at a provider with this radius.
    pub(crate) fn ends(&self, radius: Option<Radius>) -> Ended<'_> {
        let of_target = match self.target {
            Target::Token(_) => Radius::Token,
            Target::Family(_) => Radius::Grant,
        };
        let what = radius.filter(|radius| *radius > Radius::Grant).unwrap_or(of_target);
        let id = match what {
            Radius::User => &self.grant.user_id,
            Radius::App => &self.grant.app_id,
            Radius::Session if !self.grant.session_id.is_empty() => &self.grant.session_id,
            Radius::Token | Radius::Grant | Radius::Session | Radius::Role => self.target.id(),
        };
        Ended { what, id }
    }
}

/// What a request ends at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended<'a> {
    pub(crate) what: Radius,
    pub(crate) id: &'a str,
}

impl Ended<'_> {
    /// Kind in the table `actions`.
    pub(crate) const fn action(&self) -> &'static str {
        match self.what {
            Radius::Token => "revoke_token",
            Radius::Grant => "revoke_family",
            Radius::Session => "revoke_session",
            Radius::User => "revoke_user",
            Radius::Role => "revoke_role",
            Radius::App => "revoke_app",
        }
    }
}

/// A grant that no request can revoke, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) request: Request,
    pub(crate) reason: String,
}

/// What is to be done, before it is confirmed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) effect: Effect,
    pub(crate) requests: Vec<Request>,
    pub(crate) refused: Vec<Refused>,
    pub(crate) found: Found,
}

/// The requests for the grants in `found`. If a request ends more than a grant, grants that it ends together get one
/// request: that of the grant that was used last.
pub(crate) fn plan(found: Found, revoker: &dyn Revoker, reason: &str) -> Plan {
    let effect = Effect::of(revoker);
    let unit = Effect::unit(revoker);
    let (mut requests, mut refused, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for grant in &found.grants {
        let target = match unit {
            Unit::Grant if !grant.family_id.is_empty() => Target::Family(grant.family_id.clone()),
            Unit::Grant | Unit::Token => Target::Token(grant.token_id.clone()),
        };
        let number = u32::try_from(requests.len()).unwrap_or(u32::MAX);
        let request = Request { number, target, grant: grant.clone() };
        match problem(&request, &effect, revoker, reason) {
            Some(reason) => refused.push(Refused { request, reason }),
            None if seen.insert(together(&request, effect.radius)) => requests.push(request),
            None => {}
        }
    }
    Plan { effect, requests, refused, found }
}

/// What identifies the requests that end the same.
fn together(request: &Request, radius: Option<Radius>) -> (String, Radius, String) {
    let Ended { what, id } = request.ends(radius);
    (request.grant.tenant_id.clone(), what, id.to_owned())
}

/// Why `request` cannot be sent.
fn problem(request: &Request, effect: &Effect, revoker: &dyn Revoker, reason: &str) -> Option<String> {
    if !revoker.accepts(&request.target) {
        let mut problem = format!("the provider is not configured to revoke a {}", request.target.kind());
        if request.target.id().is_empty() {
            problem.push_str(", and no other id is known");
        }
        return Some(problem);
    }
    let ended = request.ends(effect.radius);
    if ended.id.is_empty() {
        return Some(format!("the request revokes a {}, whose id is not known", ended.what.as_str()));
    }
    revoker.check(&request.asked(&request.key("JOB"), reason)).err()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Toy, grant, planned};
    use super::*;

    fn targets(plan: &Plan) -> Vec<&str> {
        plan.requests.iter().map(|request| request.ends(plan.effect.radius).id).collect()
    }

    const BOTH: &[&str] = &["token", "family"];

    #[test]
    fn grants_without_family_are_revoked_by_token() {
        let plan = planned(vec![grant("u", "g", "t"), grant("u", "", "k")], &Toy { radius: None, accepts: BOTH });
        assert_eq!(plan.requests[0].target, Target::Family("g".into()));
        assert_eq!(plan.requests[1].target, Target::Token("k".into()));
        assert_eq!(plan.requests.iter().map(|r| r.key("J")).collect::<Vec<_>>(), ["J-000000", "J-000001"]);
    }

    #[test]
    fn user_gets_one_request_per_tenant() {
        let mut other = grant("ana", "g4", "t4");
        other.tenant_id = "other".into();
        let grants = vec![grant("ana", "g1", "t1"), grant("ana", "g2", "t2"), grant("bob", "g3", "t3"), other];
        let plan = planned(grants, &Toy { radius: Some(Radius::User), accepts: BOTH });
        assert_eq!(targets(&plan), ["ana", "bob", "ana"]);
        assert_eq!(plan.requests[0].grant.family_id, "g1", "the grant that was used last");
        assert!(plan.refused.is_empty());
    }

    #[test]
    fn grants_that_no_request_can_name_are_refused() {
        let mut forbidden = grant("bob", "g3", "t3");
        forbidden.app_id = "forbidden".into();
        let plan = planned(
            vec![grant("", "g1", "t1"), grant("ana", "", "t2"), forbidden, grant("ana", "g4", "t4")],
            &Toy { radius: Some(Radius::User), accepts: &["family"] },
        );
        assert_eq!(targets(&plan), ["ana"]);
        let reasons: Vec<_> = plan.refused.iter().map(|refused| &*refused.reason).collect();
        assert_eq!(
            reasons,
            [
                "the request revokes a user, whose id is not known",
                "the provider is not configured to revoke a token",
                "the application is forbidden",
            ]
        );
    }

    #[test]
    fn provider_of_tokens_gets_every_token() {
        let toy = Toy { radius: Some(Radius::Token), accepts: &["token"] };
        assert_eq!(Effect::unit(&toy), Unit::Token);
        let plan = planned(vec![grant("u", "g", "t1"), grant("u", "g", "t2")], &toy);
        assert_eq!(targets(&plan), ["t1", "t2"]);
    }
}
