//! Uses of a token: scoring, then verdict, then learning.

use super::lifecycle_events::{self, expiry};
use super::occurrence::{Before, Occurrence};
use super::outcome::{decided, quiet, weighed};
use super::state::State;
use super::{explain, learn, score};
use crate::detector::{Lesson, Observation, Score, Standing, lifecycle};
use crate::enrichment::EnrichedEvent;
use crate::event::Kind as EventKind;
use crate::memory::baselines::{BaselineIndex, Seed};
use crate::memory::{Ended, Kind, Memory, Minute, Sighting};
use crate::policy;
use crate::rule::RuleSet;
use crate::verdict::Outcome;

/// Scores a use of a token or an attempt, and learns it.
#[allow(clippy::inline_always, reason = "it is called in one place, and its outcome would be copied twice")]
#[inline(always)]
pub(super) fn score_use(
    state: &mut State,
    rules: &RuleSet,
    enriched: &EnrichedEvent<'_>,
    occurrence: Occurrence,
) -> Outcome {
    let EnrichedEvent { event, keys, .. } = enriched;
    let Occurrence { baseline, index, before, at, timed, is_attempt } = occurrence;
    let tenant = state.memory.others.tenants.get(keys.tenant);
    let Some(sighting) = Sighting::of(enriched, at) else {
        return quiet(state, tenant);
    };
    let standing = if is_attempt && !is_reuse(&state.memory, enriched, &sighting, index) {
        Standing::Attempt
    } else if timed {
        Standing::Use
    } else {
        Standing::Untimed
    };
    let latest = state.clock.latest();
    let since = || state.memory.baselines.first_seen(baseline, index);
    let found = lifecycle_events::ends(&mut state.memory.ends, enriched, occurrence, latest, since);
    let expiry = expiry(&state.memory, event, keys).filter(|_| timed);
    let ahead = if expiry.is_some_and(|expiry| expiry.at < at) { state.clock.ahead(at) } else { 0 };
    let mut observation = Observation {
        enriched,
        sighting: &sighting,
        route: state.memory.others.templates.resolve(&enriched.route),
        tenant,
        standing,
        timed,
        now: state.clock.now().unwrap_or(at),
        newest: state.clock.newest().unwrap_or(at),
        seed: None,
        baseline,
        user: keys.user.unwrap_or(baseline),
        index,
        ended: found.ended,
        expiry,
        ahead,
    };
    let mut minute = None;
    let time = if timed { policy::Time::Known(at) } else { policy::Time::Unknown(at) };
    let findings = rules.violations(enriched, time, &mut || {
        // Only accepted uses count towards a rate.
        if standing != Standing::Use {
            return 0;
        }
        let mut running = state.memory.minutes.get(baseline).copied().unwrap_or_default();
        let calls = running.count(at);
        minute = Some(running);
        calls
    });
    let (seed, is_seed) = seed(&state.memory, &observation);
    observation.seed = seed;
    if is_seed && findings.is_empty() {
        store_minute(&mut state.memory, baseline, minute);
        learn_first_visit(&mut state.memory, &mut observation);
        if standing == Standing::Use {
            lifecycle_events::learn_names(&mut state.memory.ends, enriched);
        }
        return quiet(state, tenant);
    }
    if standing == Standing::Use
        && let Some(index) = index
        && before.is_some_and(|before| before.last_at > latest)
    {
        state.memory.baselines.at(index).limit(at);
    }
    let mut lesson = None;
    let mut score = Score::nothing(state.settings.prior_log_odds);
    if !is_seed {
        score::score(&state.memory, &state.settings, &observation, &mut lesson, &mut score);
    }
    state.counters.late += u64::from(score.late);
    let weighed = weighed(state, rules, &observation, (&score, lesson.as_ref()), findings);
    match standing {
        Standing::Use => {
            store_minute(&mut state.memory, baseline, minute);
            match &mut lesson {
                Some(lesson) => learn_scored(state, &mut observation, before, lesson),
                None => learn_first_visit(&mut state.memory, &mut observation),
            }
            lifecycle_events::learn_use(&mut state.memory.ends, enriched, baseline, found);
            explain::learn_names(&mut state.memory.names, &observation, &score);
        }
        Standing::Attempt => {}
        Standing::Untimed => {
            if event.kind == EventKind::Refreshed
                && let Some(refreshes) = state.memory.baselines.refreshes_mut(baseline)
            {
                // The evidence is already in the verdict.
                let _ = lifecycle::refresh::refresh(refreshes, keys.token, at, sighting.address, sighting.agent);
            }
        }
    }
    decided(state, rules, &observation, &score, weighed)
}

/// Learns a use of a token that has a baseline, or gets one.
fn learn_scored(state: &mut State, observation: &mut Observation<'_>, before: Option<Before>, lesson: &mut Lesson) {
    let memory = &mut state.memory;
    if before.map(|before| before.token) != Some(lesson.token) || lesson.begins_visit() || lesson.refreshes.is_some() {
        lifecycle_events::learn_family(memory, observation.enriched);
    }
    let tenants = &mut memory.others.tenants;
    observation.tenant = tenants.admit(observation.tenant);
    if lesson.begins_visit() {
        tenants.count_visit(observation.sighting.tenant, state.thresholds.days());
    }
    learn::learn(memory, observation, lesson);
}

/// Whether the attempt re-uses a refresh token; then it is scored whatever its status.
fn is_reuse(memory: &Memory, enriched: &EnrichedEvent<'_>, sighting: &Sighting, index: Option<BaselineIndex>) -> bool {
    if enriched.event.reuse_reported {
        return true;
    }
    let refreshes = index.and_then(|index| memory.baselines.get(index).refreshes.as_deref());
    let (EventKind::Refreshed, Some(refreshes)) = (enriched.event.kind, refreshes) else { return false };
    lifecycle::refresh::refresh(
        &mut refreshes.clone(),
        enriched.keys.token,
        sighting.at,
        sighting.address,
        sighting.agent,
    ) > 0.0
}

/// The seed after this event, and whether the token stays a seed: first visit, unknown user, plain use. A flood of new
/// ids therefore needs little memory and evicts no baselines.
fn seed(memory: &Memory, observation: &Observation<'_>) -> (Option<Seed>, bool) {
    let event = &observation.enriched.event;
    if observation.index.is_some() {
        return (None, false);
    }
    let mut seed = memory.baselines.seeds.get(observation.baseline).copied();
    let expired = observation.expiry.is_some_and(|expiry| expiry.at < observation.sighting.at);
    let is_plain = event.kind == EventKind::Use
        && !event.reuse_reported
        && event.binding.is_none()
        && !expired
        && observation.ended == Ended::default();
    if !is_plain {
        return (seed, false);
    }
    if let Some(seed) = &mut seed {
        let goes_on = seed.goes_on(observation.sighting);
        return (Some(*seed), goes_on);
    }
    let is_known = memory.users.known(observation.user).is_known();
    let kind = Kind::new(event.token_type, observation.sighting.device);
    let begins = (!is_known).then(|| Seed::new(kind, observation.sighting));
    (begins, !is_known)
}

/// Stores the calls of the running minute if a policy counts them.
fn store_minute(memory: &mut Memory, baseline: u64, minute: Option<Minute>) {
    if let Some(minute) = minute {
        memory.minutes.insert(baseline, minute);
    }
}

/// Learns a use in the first visit of a token.
fn learn_first_visit(memory: &mut Memory, observation: &mut Observation<'_>) {
    let Some(seed) = observation.seed.filter(|_| observation.standing == Standing::Use) else { return };
    lifecycle_events::learn_family(memory, observation.enriched);
    observation.tenant = memory.others.tenants.admit(observation.tenant);
    if !memory.baselines.seeds.insert(observation.baseline, seed) {
        let user = memory.users.entry(observation.user, observation.sighting.at.min(observation.now));
        learn::learn_user(user, &mut memory.others.population, observation, seed.kind, 1.0);
    }
}
