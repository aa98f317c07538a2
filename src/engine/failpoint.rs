//! Fail points: a test makes the scoring of an event panic, to check that the state does not change.

/// Position of a panic. All positions are before the event is learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "tests name them"))]
pub(crate) enum Failpoint {
    /// After the detectors of visits, before those of events.
    Detectors,
    /// After all detectors.
    Sum,
    /// While the texts of the verdict are made.
    Words,
}

#[cfg(not(test))]
pub(crate) const fn failpoint(_: Failpoint) {}

#[cfg(test)]
pub(crate) use armed::{arm, failpoint};

#[cfg(test)]
mod armed {
    use std::cell::Cell;

    use super::Failpoint;

    thread_local! {
        static ARMED: Cell<Option<Failpoint>> = const { Cell::new(None) };
    }

    /// Makes this thread panic when the next event reaches `point`.
    pub(crate) fn arm(point: Failpoint) {
        ARMED.set(Some(point));
    }

    pub(crate) fn failpoint(point: Failpoint) {
        if ARMED.get() == Some(point) {
            ARMED.set(None);
            panic!("failpoint {point:?}");
        }
    }
}
