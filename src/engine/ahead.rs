//! Looking ahead: the memory that the next events need is asked for all at once, before the first of them is judged.
//!
//! Among millions of baselines hardly one is in a cache, and an event's way leads from one cache line to the next: it
//! would wait for memory some twenty times. The ways of several events do not depend on each other, so that the processor
//! waits for them together (group prefetching: Chen, Ailamaki, Gibbons and Mowry, "Improving hash join performance
//! through prefetching", ICDE 2004). Nothing is changed by it, and no verdict depends on it.

use std::hint::black_box;

use smallvec::SmallVec;

use super::{State, baseline_key};
use crate::enrichment::EnrichedEvent;

/// Events that are looked ahead for at a time: enough for memory to be busy, and so few that what is fetched for the
/// last is still near when its turn comes.
pub const GROUP: usize = 32;

/// Fetches what the judgement of `events`, each in its state, will touch first.
pub fn look_ahead<'a>(events: impl Iterator<Item = (&'a State, &'a EnrichedEvent<'a>)>) {
    // A step for each distance from what is at hand: all events go one step before any goes the next.
    let events: SmallVec<[_; GROUP]> = events.map(|(state, event)| (state, &event.keys)).collect();
    let mut touched = 0;
    for (state, keys) in &events {
        touched ^= state.recent.touch(keys.event);
    }
    let found: SmallVec<[_; GROUP]> = events
        .iter()
        .filter_map(|(State { memory, .. }, keys)| {
            memory.baselines.find(baseline_key(keys, memory)).map(|place| (memory, place))
        })
        .collect();
    for (memory, place) in &found {
        touched ^= memory.baselines.get(*place).touch();
    }
    for (memory, place) in &found {
        touched ^= memory.baselines.get(*place).touch_parts();
    }
    for (memory, place) in &found {
        if let Some(number) = memory.baselines.get(*place).open[0] {
            touched ^= memory.visits.get(number).touch();
        }
    }
    black_box(touched);
}
