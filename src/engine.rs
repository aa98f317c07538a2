//! Scoring of events: the state of one partition, and the step that scores an event and learns it.

mod ahead;
mod clock;
mod counters;
mod explain;
pub(crate) mod failpoint;
mod feedback;
mod learn;
mod lifecycle_events;
mod occurrence;
mod outcome;
mod score;
mod settings;
mod state;
mod trail;
mod uses;

pub use self::ahead::{GROUP, look_ahead};
use self::clock::{Range, Voter};
pub use self::counters::Counters;
pub use self::feedback::{Feedback, FeedbackEvent, Learnt, find_thieves, learn_feedback};

use self::occurrence::{Before, Occurrence, baseline_key};
use self::outcome::quiet;
pub use self::settings::Settings;
pub(crate) use self::state::TABLES;
pub use self::state::{STATE_FORMAT, State};
use self::uses::score_use;
use crate::enrichment::EnrichedEvent;
pub(crate) use crate::memory::limits::STATE_BYTES_MIN;
use crate::rule::RuleSet;
use crate::verdict::Outcome;

/// Visits from which a baseline counts as established: its events vote on the stream time. Invented ids have none.
const ESTABLISHED_VISITS: u32 = 4;

/// Result of one event.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The event was delivered before; nothing changes and no row is written.
    Duplicate,
    Scored(Outcome),
}

/// Scores one event and learns it. Never fails: any event in any order has an outcome. The same events in the same
/// order have the same outcomes, byte for byte.
///
/// `score::score` only reads: if it panics, the state is unchanged. Before it, the step may count a vote on the time,
/// and limit stored times that are after the stream time.
pub fn step(state: &mut State, rules: &RuleSet, enriched: &EnrichedEvent<'_>) -> Step {
    let EnrichedEvent { event, keys, appended_at, .. } = enriched;
    let baseline = baseline_key(keys, &state.memory);
    // The baseline is looked up first, so that its memory arrives before it is needed.
    let index = state.memory.baselines.find(baseline);
    let is_attempt = event.is_attempt();
    let recent = if is_attempt { &state.recent_attempts } else { &state.recent };
    if recent.contains(keys.event) {
        state.counters.duplicates += 1;
        return Step::Duplicate;
    }
    let before = index.map(|index| Before::of(state.memory.baselines.get(index)));
    let voter = Voter {
        subject: keys.user.unwrap_or(baseline),
        tenant: keys.tenant,
        established: before.is_some_and(|before| before.visits >= ESTABLISHED_VISITS),
    };
    // An attempt does not advance the clock: anyone can send one.
    let tells_time = event.kind.is_sighting() && !is_attempt;
    let own_time = event.timestamp.millis();
    let mut range = state.clock.range(own_time, *appended_at);
    if range != Range::Within && tells_time {
        state.clock.consult(own_time, voter, *appended_at);
        range = state.clock.range(own_time, *appended_at);
    }
    let timed = range == Range::Within;
    let at = if timed { own_time } else { state.clock.newest().or(*appended_at).unwrap_or(own_time) };
    (state.scored_at, state.last_event) = (at, keys.event);
    let occurrence = Occurrence { baseline, index, before, at, timed, is_attempt };
    let outcome = if event.kind.is_sighting() {
        score_use(state, rules, enriched, occurrence)
    } else {
        if !is_attempt {
            lifecycle_events::apply(state, event, keys, occurrence);
        }
        let tenant = state.memory.others.tenants.get(keys.tenant);
        quiet(state, tenant)
    };
    if state.settings.campaigns && tells_time {
        trail::follow(state, enriched);
    }

    state.counters.events += 1;
    if !timed {
        state.counters.ahead += u64::from(range == Range::Ahead);
        state.counters.behind += u64::from(range == Range::Behind);
    }
    if is_attempt {
        state.counters.attempts += 1;
        state.counters.ids_reused += u64::from(state.recent_attempts.insert(keys.event, keys.event_id));
    } else {
        state.counters.ids_reused += u64::from(state.recent.insert(keys.event, keys.event_id));
        lifecycle_events::reinstate(&mut state.memory.ends, event, keys);
        if timed && tells_time {
            state.clock.take(at, voter, *appended_at);
        }
        state.end_visits();
    }
    // Indexes of baselines change.
    state.fit(keys.tenant);
    Step::Scored(outcome)
}
