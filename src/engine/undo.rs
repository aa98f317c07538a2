//! What an event has changed before it counts, so that it can be put back: a refused request counts for nothing, and
//! where our own code fails half-way the state is as it was before.

use std::num::NonZeroU32;

use crate::memory::baseline::KeptBaseline;
use crate::memory::baselines::Place;
use crate::memory::visit::KeptVisit;
use crate::memory::{Baseline, Memory, Visit};

/// The terms change one baseline and one of its visits, and nothing else. Both are kept in room that is used again for
/// every event.
#[derive(Default)]
pub struct Undo {
    changed: Option<Changed>,
    baseline: KeptBaseline,
    visit: KeptVisit,
}

impl std::fmt::Debug for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is kept of events that are over is no part of the state.
        self.changed.fmt(f)
    }
}

#[derive(Clone, Copy, Debug)]
struct Changed {
    place: Place,
    /// The baseline was made for the event.
    is_new: bool,
    visit: Option<Opened>,
}

#[derive(Clone, Copy, Debug)]
struct Opened {
    number: NonZeroU32,
    /// The visit was begun for the event.
    is_new: bool,
}

impl Undo {
    /// `baseline`, at `place`, is going to be changed by an event at `at`.
    pub fn keep_baseline(&mut self, place: Place, baseline: &Baseline, at: i64, for_refresh: bool) {
        self.baseline.keep(baseline, at, for_refresh);
        self.changed = Some(Changed { place, is_new: false, visit: None });
    }

    /// The baseline at `place` was just made.
    pub const fn made_baseline(&mut self, place: Place) {
        self.changed = Some(Changed { place, is_new: true, visit: None });
    }

    /// `visit` is going to be changed.
    pub fn keep_visit(&mut self, number: NonZeroU32, visit: &Visit) {
        self.visit.keep(visit);
        self.note(Opened { number, is_new: false });
    }

    /// The visit of `number` was just opened.
    pub const fn opened_visit(&mut self, number: NonZeroU32) {
        self.note(Opened { number, is_new: true });
    }

    const fn note(&mut self, opened: Opened) {
        if let Some(changed) = &mut self.changed {
            changed.visit = Some(opened);
        }
    }

    /// The event counts from here on.
    pub const fn accept(&mut self) {
        self.changed = None;
    }

    /// Puts everything back that an event has changed and that was not accepted.
    pub fn put_back(&mut self, memory: &mut Memory) {
        let Some(Changed { place, is_new, visit }) = self.changed.take() else { return };
        match visit {
            Some(Opened { number, is_new: true }) => memory.visits.take_back(number),
            Some(Opened { number, is_new: false }) => self.visit.put_back(memory.visits.get_mut(number)),
            None => {}
        }
        if is_new {
            memory.baselines.take_back();
        } else {
            self.baseline.put_back(memory.baselines.at(place));
        }
    }
}
