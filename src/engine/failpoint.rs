//! Places where a test makes the scoring of an event panic, to check that the state stays as it was.

/// Each lies before the event is learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "tests name them"))]
pub(crate) enum Failpoint {
    /// The visit has begun, and the detectors of events are to come.
    Detectors,
    /// All detectors have run.
    Sum,
    /// The verdict is put into words.
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

    /// The next event that comes to `point` makes this thread panic.
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
