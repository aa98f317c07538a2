//! Outcome of an event from its score: verdict, signals, incident and action.

use super::explain;
use super::failpoint::{Failpoint, failpoint};
use super::lifecycle_events::{expiry, is_revoked};
use super::settings::Settings;
use super::state::State;
use crate::decide::{self, Alert, Cause};
use crate::detector::lifecycle::key::may_revoke;
use crate::detector::{DetectorId, Lesson, Observation, Score, Setting, Standing};
use crate::enrichment::EnrichedEvent;
use crate::event::Event;
use crate::memory::{NetLevel, Sighting, Tenant};
use crate::policy::Finding;
use crate::rule::RuleSet;
use crate::verdict::{Action, Incident, IncidentId, Mode, Outcome, RuleId, Severity, Signal, Target, Verdict, Victim};

/// Outcome of an event that is not scored.
pub(super) fn quiet(state: &State, tenant: Tenant) -> Outcome {
    let Settings { prior_log_odds, mode, .. } = state.settings;
    Outcome::quiet(prior_log_odds, state.thresholds.alert_from(tenant), mode)
}

/// Verdict by the log-odds, with signals and policy findings.
pub(super) struct Weighed {
    by_odds: Verdict,
    signals: Vec<Signal>,
    findings: Vec<Finding>,
}

/// Derives it from the score.
pub(super) fn weighed(
    state: &mut State,
    rules: &RuleSet,
    observation: &Observation<'_>,
    (score, lesson): (&Score, Option<&Lesson>),
    findings: Vec<Finding>,
) -> Weighed {
    failpoint(Failpoint::Words);
    let lifecycle = score.evidence[DetectorId::Lifecycle].get();
    let by_odds = if decide::is_quiet(score.log_odds, lifecycle) {
        Verdict::Allow
    } else {
        by_odds(state, rules, observation, score)
    };
    let explained = score.changed || by_odds >= Verdict::Watch;
    let signals = lesson
        .filter(|_| explained)
        .map_or_else(Vec::new, |lesson| explain::signals(&state.memory, rules, observation, (score, lesson)));
    Weighed { by_odds, signals, findings }
}

fn by_odds(state: &mut State, rules: &RuleSet, observation: &Observation<'_>, score: &Score) -> Verdict {
    let lifecycle = score.evidence[DetectorId::Lifecycle].get();
    let fires =
        score.lifecycle_rule.is_some_and(|rule| may_revoke(rule, lifecycle) && rules.rule(rule).fires(lifecycle));
    let evidence = decide::Evidence {
        log_odds: score.log_odds,
        lifecycle: if fires { lifecycle } else { 0.0 },
        lifecycle_below_threshold: if fires { 0.0 } else { lifecycle },
        use_after_revocation: score.lifecycle_rule == Some(RuleId::UseAfterRevocation),
        already_revoked: observation.ended.revoked_at.is_some()
            && is_revoked(&mut state.memory.ends, observation.enriched, observation.sighting.at),
        fan: score.app_fan.max(0.0) + score.ip_fan.max(0.0),
        between: score.between,
        unusual_calls: score.shares[DetectorId::Route] + score.shares[DetectorId::Area] - score.between,
        volume: score.shares[DetectorId::Volume],
        calls_at_usual_place: if score.setting == Setting::Usual {
            score.shares[DetectorId::Route].max(0.0) + score.shares[DetectorId::Area].max(0.0) - score.between
        } else {
            0.0
        },
        by_hand: score.setting == Setting::ByHand,
        moved: score.setting == Setting::Moved,
        arrivals: score.arrivals,
        calls: score.visit_calls,
        unchecked: observation.enriched.event.is_unchecked(),
    };
    let (thresholds, margin) = (&state.thresholds, state.settings.revoke_margin);
    decide::verdict(evidence, thresholds.alert_from(observation.tenant), margin, thresholds.visits(observation.tenant))
}

/// Applies policies, budget and incidents.
pub(super) fn decided(
    state: &mut State,
    rules: &RuleSet,
    observation: &Observation<'_>,
    score: &Score,
    weighed: Weighed,
) -> Outcome {
    let Weighed { by_odds, mut signals, findings } = weighed;
    if by_odds == Verdict::Allow && signals.is_empty() && findings.is_empty() {
        // Most events: no incident, no budget, no action.
        let log_odds = score.log_odds;
        let (alert_from, p_value) = state.thresholds.alert_from_and_p_value(observation.tenant, log_odds);
        let prior = state.settings.prior_log_odds;
        return Outcome { log_odds, p_value, ..Outcome::quiet(prior, alert_from, Mode::Shadow) };
    }
    let most = if observation.standing == Standing::Attempt { Verdict::Watch } else { Verdict::Revoke };
    let by_odds = by_odds.min(most);
    let settings = &state.settings;
    let wanted = findings.first().map_or(Verdict::Allow, |finding| finding.verdict).min(most);
    let mut verdict = by_odds.max(wanted);
    let mode_of = |rule: RuleId| rules.rule(rule).mode;
    // The mode is the highest among the rules and policies that have this verdict.
    let modes = [
        signals.iter().find(|signal| signal.fired).filter(|_| by_odds == verdict).map(|signal| mode_of(signal.rule)),
        findings
            .iter()
            .filter(|finding| finding.verdict.min(most) == verdict)
            .map(|finding| mode_of(finding.rule))
            .max(),
    ];
    let mode = modes.into_iter().flatten().max().unwrap_or(Mode::Shadow).min(settings.mode);
    if !findings.is_empty() {
        // The deciding reason is first.
        let index = if wanted > by_odds { 0 } else { signals.len() };
        signals.splice(index..index, findings.into_iter().map(Finding::signal));
    }
    let fired = signals.iter().filter(|signal| signal.fired);
    let severity = fired.clone().map(|signal| rules.rule(signal.rule).severity).max().unwrap_or(Severity::Medium);
    let alert = Alert {
        baseline: observation.baseline,
        causes: causes(observation, score),
        at: observation.sighting.at,
        severity: if verdict == Verdict::Revoke { severity.max(Severity::High) } else { severity },
        verdict,
        rules: fired.fold(0, |rules, signal| rules | 1 << signal.rule as u32),
        acts: verdict == Verdict::Revoke,
    };
    // Alerts of an open incident, revocations and policy alerts do not use the budget.
    let tenant = observation.sighting.tenant;
    let known = || state.memory.others.tenants.is_known(tenant).then_some(tenant);
    let withheld = verdict == Verdict::Alert
        && wanted < Verdict::Alert
        && !state.incidents.is_known(&alert)
        && !state.budget.spend(known(), observation.now, score.log_odds);
    if withheld {
        verdict = Verdict::Watch;
    }
    let by_policy = wanted >= Verdict::Alert;
    let (incident_id, incident) = if verdict >= Verdict::Alert {
        let (id, incident) = state.join(observation, score, &alert, &signals, (by_policy, mode));
        (Some(id), incident)
    } else if verdict == Verdict::Watch {
        // Events without a finding are not part of it.
        let open = state.incidents.of_baseline(observation.baseline, observation.sighting.at);
        (open.map(|open| open.id), None)
    } else {
        (None, None)
    };
    let (alert_from, p_value) = state.thresholds.alert_from_and_p_value(observation.tenant, score.log_odds);
    Outcome {
        verdict,
        log_odds: score.log_odds,
        prior_log_odds: state.settings.prior_log_odds,
        alert_from,
        by_policy,
        withheld,
        p_value,
        signals,
        incident_id,
        incident,
        action: action(verdict, observation.enriched),
        mode,
    }
}

/// Causes by which other alerts join: application and network, or address.
fn causes(observation: &Observation<'_>, score: &Score) -> [Cause; 2] {
    let &Sighting { tenant, app, network, address, .. } = observation.sighting;
    if score.net_level < NetLevel::KnownNetwork {
        return [Cause::default(); 2];
    }
    [app ^ u64::from(network) << 8 ^ 1, u64::from(address) << 8 ^ 2]
        .map(|of_all| Cause { of_tenant: (of_all ^ tenant.rotate_left(32)).max(1), of_all })
}

/// Revocation target: the grant, else the token. Revoking one token of a grant would let the thief refresh.
fn target(enriched: &EnrichedEvent<'_>) -> Target {
    match &enriched.event.family_id {
        Some(family) => Target::Family(family.to_string()),
        None => Target::Token(enriched.event.token_id.as_str().to_owned()),
    }
}

fn action(verdict: Verdict, enriched: &EnrichedEvent<'_>) -> Action {
    match verdict {
        Verdict::Allow | Verdict::Watch => Action::None,
        Verdict::Alert => Action::Alert,
        Verdict::Revoke if enriched.event.family_id.is_some() => Action::RevokeFamily,
        Verdict::Revoke => Action::RevokeToken,
    }
}

impl State {
    /// Joins an alert to its incident; returns the incident if it must be reported.
    fn join(
        &mut self,
        observation: &Observation<'_>,
        score: &Score,
        alert: &Alert,
        signals: &[Signal],
        (by_policy, mode): (bool, Mode),
    ) -> (IncidentId, Option<Box<Incident>>) {
        let event = &observation.enriched.event;
        let text = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().unwrap_or_default().to_owned();
        let joined = self.incidents.join(alert, || Victim {
            token_id: event.token_id.as_str().to_owned(),
            family_id: text(&event.family_id),
            user_id: text(&event.user_id),
            app_id: text(&event.app_id),
        });
        self.counters.incidents += u64::from(joined.report);
        let id = joined.open.id;
        if !joined.report {
            return (id, None);
        }
        let revokes = alert.verdict == Verdict::Revoke;
        let target = target(observation.enriched);
        let incident = Incident {
            id,
            opened_at: timestamp(joined.open.opened_at, event),
            updated_at: timestamp(joined.open.updated_at, event),
            severity: joined.open.severity(),
            verdict: joined.open.verdict(),
            baseline: crate::event::BaselineId(observation.baseline),
            subject: target.id().to_owned(),
            tenant_id: text(&event.tenant_id),
            token_id: event.token_id.as_str().to_owned(),
            family_id: text(&event.family_id),
            user_id: text(&event.user_id),
            app_id: text(&event.app_id),
            session_id: text(&event.session_id),
            token_type: event.token_type,
            expires_at: expiry(&self.memory, event, &observation.enriched.keys)
                .and_then(|expiry| crate::event::Timestamp::from_millis(expiry.at)),
            event_id: event.event_id.to_string(),
            change: observation.enriched.keys.event,
            campaign_id: joined.open.campaign,
            victims: self.incidents.victims(id).to_vec(),
            victims_total: joined.open.baselines(),
            tenant_is_new: !self.memory.others.tenants.is_known(observation.sighting.tenant),
            log_odds: score.log_odds,
            reason: explain::sentence(
                signals,
                &explain::Sum {
                    log_odds: score.log_odds,
                    prior: self.settings.prior_log_odds,
                    threshold: self.thresholds.alert_from(observation.tenant),
                    by_policy,
                    baselines: joined.open.baselines(),
                },
            ),
            signals: signals.to_vec(),
            action: action(alert.verdict, observation.enriched),
            mode,
            report: joined.report,
            revoke: revokes.then_some(target),
        };
        (id, Some(Box::new(incident)))
    }
}

fn timestamp(millis: i64, event: &Event<'_>) -> crate::event::Timestamp {
    crate::event::Timestamp::from_millis(millis).unwrap_or(event.timestamp)
}
