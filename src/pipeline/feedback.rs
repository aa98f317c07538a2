//! Feedback that a partition learns at its place among the messages.

use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::checkpoint::Position;
use crate::engine::{self, Feedback, Learnt, State};

/// Feedback and its place.
pub(crate) struct Scheduled {
    pub(crate) feedback: Feedback<'static>,
    pub(crate) start: Start,
    /// When it was given, milliseconds since the epoch, wall clock. The earlier one is learnt first.
    pub(crate) given_at: i64,
}

/// Place of feedback among the messages. Feedback is learnt between two messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Before the message at this position, or a later one.
    Before(Position),
    /// After the event with this key.
    After(NonZeroU64),
    /// After the first event at this time or later, milliseconds since the epoch.
    AfterTime(i64),
}

/// The feedback of a partition that is not learnt yet, in the order of its places.
#[derive(Default)]
pub(super) struct Schedule(Vec<Scheduled>);

impl Schedule {
    pub(super) fn add(&mut self, scheduled: Scheduled) {
        self.0.push(scheduled);
        self.0.sort_by_key(|one| (one.start.offset(), one.given_at, one.feedback.id));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Learns what is due before the message at `next`.
    pub(super) fn learn_due(&mut self, states: &mut [State], next: &Position) {
        let due = self.0.extract_if(.., |one| is_due(one, states, next)).collect::<Vec<_>>();
        for Scheduled { feedback, .. } in due {
            let Some(state) = states.get_mut(state_of(&feedback, states.len())) else { continue };
            let done = catch_unwind(AssertUnwindSafe(|| engine::learn_feedback(state, &feedback)));
            let (id, incident) = (feedback.id, feedback.incident);
            match done {
                Ok(Learnt::Now) => tracing::info!(%incident, "learnt the feedback to an incident"),
                Ok(Learnt::Before) => {}
                Err(_) => tracing::error!(%incident, id, "feedback caused a panic and is not learnt"),
            }
        }
    }
}

impl Start {
    fn offset(&self) -> i64 {
        match self {
            Self::Before(position) => position.offset,
            Self::After(_) | Self::AfterTime(_) => 0,
        }
    }
}

/// Index of the state of the subject.
pub(super) fn state_of(feedback: &Feedback<'_>, states: usize) -> usize {
    if states == 1 {
        0
    } else {
        feedback.events.first().map_or(0, |reviewed| reviewed.event.event.partition_among(states))
    }
}

fn is_due(scheduled: &Scheduled, states: &[State], next: &Position) -> bool {
    match &scheduled.start {
        Start::Before(start) => {
            let is_other = start.topic != next.topic || start.topic_id.is_other_than(next.topic_id);
            is_other || next.offset >= start.offset
        }
        Start::After(event) => states.iter().any(|state| state.last_event() == Some(*event)),
        Start::AfterTime(at) => {
            states.get(state_of(&scheduled.feedback, states.len())).is_some_and(|state| state.scored_at() >= *at)
        }
    }
}
