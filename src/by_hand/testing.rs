//! Grants, plans, jobs and a provider for the tests of this module.

use std::path::Path;

use async_trait::async_trait;

use super::journal::{Beside, Job, JobError, JobFile, Origin};
use super::plan::{Plan, plan};
use super::search::{Found, Grant, Scope, Subject};
use crate::port::{Confirmation, DeliveryError, Radius, RevokeRequest, Revoked, Revoker};
use crate::verdict::Target;

/// A provider with a radius that accepts these kinds of targets.
pub(super) struct Toy {
    pub(super) radius: Option<Radius>,
    pub(super) accepts: &'static [&'static str],
}

#[async_trait]
impl Revoker for Toy {
    fn accepts(&self, target: &Target) -> bool {
        self.accepts.contains(&target.kind())
    }

    fn radius(&self) -> Option<Radius> {
        self.radius
    }

    fn check(&self, request: &RevokeRequest<'_>) -> Result<(), String> {
        if request.app_id == "forbidden" { Err("the application is forbidden".to_owned()) } else { Ok(()) }
    }

    async fn revoke(&self, _: RevokeRequest<'_>) -> Result<Revoked, DeliveryError> {
        Ok(Revoked::Done { status: 200, confirmation: Confirmation::at(0) })
    }
}

pub(super) fn grant(user: &str, family: &str, token: &str) -> Grant {
    Grant {
        tenant_id: "acme".into(),
        user_id: user.into(),
        app_id: "crm".into(),
        family_id: family.into(),
        session_id: String::new(),
        token_id: token.into(),
        last_use: Some(1_795_000_000_000),
        events: 1,
        users: 1,
    }
}

pub(super) fn planned(grants: Vec<Grant>, toy: &Toy) -> Plan {
    plan(Found { grants, unknown: None }, toy, "test")
}

pub(super) fn scope(id: &str) -> Scope {
    Scope { subject: Subject::User, id: id.to_owned(), tenant: None, since: None, issued_before: None }
}

pub(super) fn plan_of(count: usize) -> Plan {
    let grants = (0..count).map(|number| grant("ana", &format!("g{number}"), "t")).collect();
    planned(grants, &Toy { radius: None, accepts: &["family"] })
}

pub(super) fn create(folder: &Path, id: &str, plan: &Plan) -> Result<JobFile, JobError> {
    let job = Job {
        refused: plan.refused.len(),
        id: id.to_owned(),
        scope: scope("ana"),
        reason: "stolen laptop".to_owned(),
        by: "root".to_owned(),
        started_at: 1_795_000_000_000,
        effect: plan.effect.clone(),
        origin: Origin::Command,
    };
    JobFile::create(folder, None, job, plan, Beside::Refused)
}
