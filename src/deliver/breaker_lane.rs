//! Stops of revocations: when they begin, and the lane that writes them to their log, ends them when a person lifts them,
//! and reads which revocations people have refuted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::breakers::Breakers;
use super::deliverer::Deliverer;
use super::lane::Attempt;
use super::limits::{Scope, is_shared};
use super::record::{Hold, Record};
use super::task::ToRevoke;
use crate::millis::{MINUTE_MS, SECOND_MS};
use crate::number::random_id;
use crate::port::{
    ActionOutcome, ActionRow, BreakerCause, BreakerId, BreakerRecord, BreakerScope, BreakerState, BreakerStop, Lift,
    Limit, Refutation, Revocation, Store, StoreError, Waiting,
};
use crate::telemetry::Condition;
use crate::verdict::{IncidentId, RuleId};

/// The lane.
pub(super) const BREAKERS: &str = "breakers";
/// Interval in which a lift is noticed.
const LOOK_WAIT: Duration = Duration::from_secs(1);
/// Interval in which feedback is read.
const FEEDBACK_INTERVAL_MS: i64 = 5 * MINUTE_MS;
/// Time until it is read again after a failure.
const FEEDBACK_RETRY_MS: i64 = 10 * SECOND_MS;
/// Maximum number of stops of one tenant. A further one stops the whole tenant, so that no tenant uses up the number of all.
const STOPS_OF_TENANT_MAX: usize = 20;
/// Maximum number of stops. Beyond it, further revocations continue within their limits.
const STOPS_MAX: usize = 10_000;

impl<S: Store + 'static> Deliverer<S>
where
    S::Rows: 'static,
{
    /// The records of limits for which revocations wait. `outcome`: `None` if the revocation of `task` is requested.
    pub(super) fn full(&self, task: &ToRevoke, outcome: Option<&Revocation>, now: i64) -> Vec<Record> {
        let Some(breakers) = self.outbox.breakers.as_ref().filter(|breakers| breakers.settings.full_hours > 0) else {
            return Vec::new();
        };
        let incident = &*task.incident;
        // New tenants share their limits, so another tenant may have reached them.
        if is_shared(incident) && !breakers.settings.has_one_tenant {
            return Vec::new();
        }
        let waits = matches!(outcome, Some(Revocation::Capped(_)));
        let waited = outcome.is_none() && task.effect.hold == Some(Hold::Capped);
        if !waits && !waited {
            return Vec::new();
        }
        let limits = [Limit::Tenant, Limit::Rule, Limit::Application].into_iter();
        let full: Vec<(BreakerScope, u32)> = {
            let (state, caps, scope) = (&self.outbox.inner().state, self.caps(), Scope::of(incident));
            // A limit that is not below that of the tenant stops nothing before it.
            let is_own =
                |limit: &Limit| *limit == Limit::Tenant || caps.of(*limit, &scope) < caps.of(Limit::Tenant, &scope);
            let full = limits.filter(is_own).filter_map(|limit| {
                let of = BreakerScope::of_limit(incident, limit)?;
                let hours = state.full_hours(&of, now)?;
                let is_full =
                    state.is_full(&scope, limit, caps, now) && (waits || state.another_waits(&task.key, &scope, limit));
                is_full.then_some((of, hours))
            });
            full.collect()
        };
        let mut records = Vec::new();
        for (scope, hours) in full {
            records.push(Record::Full { scope: scope.clone(), at: now });
            if hours >= breakers.settings.full_hours {
                records.extend(self.stop(scope, BreakerCause::Full { hours }, Some(incident.id), now));
            }
        }
        records
    }

    /// The records of a stop: none if its scope is stopped already.
    fn stop(&self, scope: BreakerScope, cause: BreakerCause, last: Option<IncidentId>, now: i64) -> Vec<Record> {
        let scope = {
            let state = &self.outbox.inner().state;
            let of_tenant = state.stops.values().filter(|stop| stop.scope.tenant == scope.tenant).count();
            let is_wide = scope.tenant.is_none() || of_tenant < STOPS_OF_TENANT_MAX;
            let scope = if is_wide { scope } else { BreakerScope { tenant: scope.tenant, ..BreakerScope::default() } };
            if state.is_stopped(&scope) {
                return Vec::new();
            }
            if state.stops.len() >= STOPS_MAX {
                tracing::error!(STOPS_MAX, "too many revocations are stopped; others continue within their limits");
                return Vec::new();
            }
            scope
        };
        let breaker = BreakerId(random_id());
        let row =
            self.breaker_row(breaker, &scope, ActionOutcome::Stopped, format!("revocations stop, because {cause}"));
        // Members that read the same feedback stop the same. One of them reports it.
        let is_reported = self.outbox.breakers.as_ref().is_some_and(|breakers| breakers.is_stopped(&scope, now));
        let is_reported = is_reported && !matches!(cause, BreakerCause::Full { .. });
        let notice = if is_reported { None } else { self.stop_notice(breaker, &scope, cause, last) };
        let stop = BreakerStop { scope, cause, at: now };
        [Record::Stopped { breaker, stop }, Record::Row { row }].into_iter().chain(notice).collect()
    }

    /// A notice about a stop. It contains no value of an event.
    fn stop_notice(
        &self,
        breaker: BreakerId,
        scope: &BreakerScope,
        cause: BreakerCause,
        last: Option<IncidentId>,
    ) -> Option<Record> {
        let rule = scope.rule.map_or("", RuleId::as_str);
        let of_what = match scope.limit() {
            Limit::Rule => format!("by the rule {rule} in one tenant"),
            Limit::RuleTotal => format!("by the rule {rule} in all tenants"),
            Limit::Application => "of one application of a tenant".to_owned(),
            Limit::Tenant | Limit::Total => "of one tenant".to_owned(),
        };
        let last = last.map_or_else(String::new, |incident| format!(" The last incident is {incident}."));
        let text = format!(
            "Automatic revocation {of_what} is stopped ({breaker}), because {cause}.{last} These revocations wait. Each is \
             given up after 7 days. Other revocations continue. Check whether this is an attack or a mistake. `tokenwarden breakers \
             list` shows the tenant and the application. `tokenwarden breakers lift {breaker}` requests these \
             revocations, and with `--propose` leaves them for review. Until then, revoke urgent grants with `tokenwarden revoke`."
        );
        self.notice(format!("breaker-{breaker}"), "Automatic revocation is stopped", text, self.outbox.notice_lanes())
    }

    /// The row of a stop or of its end.
    fn breaker_row(
        &self,
        breaker: BreakerId,
        scope: &BreakerScope,
        outcome: ActionOutcome,
        reason: String,
    ) -> ActionRow {
        let attempt = Attempt {
            action_id: breaker.to_string(),
            incident: None,
            kind: if outcome == ActionOutcome::Stopped { "breaker_stop" } else { "breaker_lift" }.to_owned(),
            target: conditions(scope),
            number: 1,
            outcome,
            status: 0,
        };
        let row = self.row(attempt, self.clock.now_millis(), reason);
        ActionRow { tenant_id: scope.tenant.clone().unwrap_or_default(), ..row }
    }

    /// Ends stops that a person lifts, writes new ones to the log, and reads the feedback, until it is stopped.
    pub(super) async fn watch_breakers(&self, breakers: Arc<Breakers>, mut stop: watch::Receiver<bool>) {
        let mut read_at = i64::MIN;
        let (mut is_reported, mut is_unread) = (false, false);
        loop {
            let now = self.clock.now_millis();
            self.lane_works(BREAKERS);
            self.health.set(Condition::Breakers, breakers.is_unreadable());
            let records = self.lifted(&breakers, now);
            if !records.is_empty() {
                self.record(records);
            }
            let written = self.write_stops(&breakers).await;
            if let Err(reason) = &written
                && !is_reported
            {
                tracing::warn!(reason, "a stop of revocations is not in its log; retrying");
            }
            is_reported = written.is_err();
            // Without the log, a refutation could count again after a person has lifted the stop.
            if breakers.settings.refuted > 0 && now >= read_at && breakers.is_complete() {
                let refuted = self.refuted(&breakers, now).await;
                read_at = now + if refuted.is_ok() { FEEDBACK_INTERVAL_MS } else { FEEDBACK_RETRY_MS };
                if let Err(error) = &refuted
                    && !is_unread
                {
                    tracing::warn!(%error, "the feedback on revocations cannot be read; breakers continue without it");
                }
                is_unread = refuted.is_err();
                let records = refuted.unwrap_or_default();
                if !records.is_empty() {
                    self.record(records);
                }
            }
            self.metrics.breakers_stopped(self.outbox.inner().state.stops.len());
            if *stop.borrow() {
                return;
            }
            self.pause(LOOK_WAIT, &mut stop).await;
        }
    }

    /// The ends of stops that a person has lifted.
    fn lifted(&self, breakers: &Breakers, now: i64) -> Vec<Record> {
        let stops = self.outbox.inner().state.stops.clone();
        let mut records = Vec::new();
        for (breaker, stop) in stops {
            let Some(Lift { by, reason, waiting, .. }) = breakers.lift_of(breaker, now) else { continue };
            if waiting == Waiting::Proposed {
                let waiting = self.outbox.inner().state.unrequested_within(&stop.scope);
                records.extend(waiting.iter().flat_map(|key| self.propose(key, now)));
            }
            let row = self.breaker_row(breaker, &stop.scope, ActionOutcome::Done, reason);
            let row = ActionRow { requested_by: by, ..row };
            records.extend([Record::Lifted { breaker, at: now }, Record::Row { row }]);
        }
        records
    }

    /// Writes the stops to the log that it does not have.
    async fn write_stops(&self, breakers: &Breakers) -> Result<(), String> {
        if !breakers.is_complete() {
            return Ok(());
        }
        let stops = self.outbox.inner().state.stops.clone();
        for (breaker, of) in stops.into_iter().filter(|(breaker, _)| !breakers.has(*breaker)) {
            let member = self.member();
            breakers.append(BreakerRecord { breaker, state: BreakerState { stop: of, member, lifted: None } }).await?;
        }
        Ok(())
    }

    /// Stops because of refuted revocations. If the feedback cannot be read, no stop begins or ends.
    async fn refuted(&self, breakers: &Breakers, now: i64) -> Result<Vec<Record>, StoreError> {
        let Some(refutations) = &breakers.refutations else { return Ok(Vec::new()) };
        let refuted = self.answer_of_store(refutations.read()).await?;
        let stops = stops_of(&refuted, breakers.settings.refuted, |scope| breakers.lifted_at(scope, now));
        Ok(stops.into_iter().flat_map(|(scope, cause)| self.stop(scope, cause, None, now)).collect())
    }
}

/// The scopes with at least `max` refutations after `lifted_at`, the last end of a stop of the scope by a person. A rule
/// stops in all tenants if as many known tenants have one. Each tenant counts once, so that no tenant stops the rule of
/// others.
fn stops_of(
    refuted: &[Refutation],
    max: u32,
    lifted_at: impl Fn(&BreakerScope) -> i64,
) -> Vec<(BreakerScope, BreakerCause)> {
    let mut of_tenant: BTreeMap<(RuleId, &str), Vec<&Refutation>> = BTreeMap::new();
    for refutation in refuted {
        of_tenant.entry((refutation.rule, &refutation.tenant)).or_default().push(refutation);
    }
    let mut tenants: BTreeMap<RuleId, u32> = BTreeMap::new();
    let mut stops = Vec::new();
    for ((rule, tenant), refutations) in of_tenant {
        let of_rule = BreakerScope { rule: Some(rule), ..BreakerScope::default() };
        let lifted = lifted_at(&of_rule);
        if refutations.iter().any(|refutation| refutation.is_of_known_tenant && refutation.at > lifted) {
            *tenants.entry(rule).or_default() += 1;
        }
        let scope = BreakerScope { tenant: Some(tenant.to_owned()), ..of_rule };
        let lifted = lifted_at(&scope);
        let users = refutations.iter().filter(|refutation| refutation.at > lifted).count();
        let users = u32::try_from(users).unwrap_or(u32::MAX);
        if users >= max {
            stops.push((scope, BreakerCause::Refuted { users }));
        }
    }
    let in_all = tenants.into_iter().filter(|(_, tenants)| *tenants >= max);
    stops.extend(in_all.map(|(rule, tenants)| {
        (BreakerScope { rule: Some(rule), ..BreakerScope::default() }, BreakerCause::RefutedIn { tenants })
    }));
    stops
}

/// The conditions of a scope as a text.
fn conditions(scope: &BreakerScope) -> String {
    scope.conditions().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refutation(tenant: &str, rule: RuleId, at: i64) -> Refutation {
        Refutation { tenant: tenant.to_owned(), rule, at, is_of_known_tenant: true }
    }

    #[test]
    fn rule_stops_in_all_tenants_by_refutations_in_several() {
        let scopes = |refuted: &[Refutation], lifted: i64| -> Vec<String> {
            stops_of(refuted, 3, |_| lifted)
                .iter()
                .map(|(scope, cause)| format!("{}: {cause}", conditions(scope)))
                .collect()
        };
        let of = |tenants: &[&str]| -> Vec<_> {
            tenants.iter().map(|tenant| refutation(tenant, RuleId::NewIp, 5)).collect()
        };
        assert_eq!(scopes(&of(&["a", "a", "b", "b"]), 0), Vec::<String>::new());
        let many = of(&["thief"; 50]);
        assert_eq!(scopes(&many, 0), ["rule=new_ip tenant=thief: people refuted its revocations for 50 users"]);
        assert_eq!(scopes(&many, 5), Vec::<String>::new(), "a person has lifted the stop since");
        let mut three = of(&["a", "b", "c"]);
        assert_eq!(scopes(&three, 4), ["rule=new_ip: people refuted its revocations in 3 tenants"]);
        three[0].is_of_known_tenant = false;
        assert_eq!(scopes(&three, 0), Vec::<String>::new(), "an invented tenant does not count");
        three[0] = refutation("a", RuleId::NewClient, 5);
        assert_eq!(scopes(&three, 0), Vec::<String>::new(), "another rule");
    }
}
