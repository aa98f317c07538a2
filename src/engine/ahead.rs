//! Looking ahead: the memory that the next events need is asked for all at once, before the first of them is scored.
//!
//! Among millions of baselines hardly one is in a cache, and an event's way leads from one cache line to the next: it
//! would wait for memory some twenty times. The ways of several events do not depend on each other, so that the processor
//! waits for them together (group prefetching: Chen, Ailamaki, Gibbons and Mowry, "Improving hash join performance
//! through prefetching", ICDE 2004). Nothing is changed by it, and no verdict depends on it.

use std::hint::black_box;

use smallvec::SmallVec;

use super::occurrence::baseline_key;
use super::state::{LOOKS, State};
use crate::enrichment::EnrichedEvent;
use crate::event::Kind;

/// Events that are looked ahead for at a time: enough for memory to be busy, and so few that what is fetched for the
/// last is still near when its turn comes.
pub const GROUP: usize = 32;

/// Fetches what the judgement of `events`, each in its state, will touch first.
pub fn look_ahead<'a>(events: impl Iterator<Item = (&'a State, &'a EnrichedEvent<'a>)>) {
    // All events go a step before any goes the next, and hardly a step depends on what another one has fetched.
    let events: SmallVec<[_; GROUP]> = events.collect();
    let mut touched = 0;
    for (state, event) in &events {
        touched ^= state.recent.touch(event.keys.event, event.keys.event_id);
        // What is issued notes its expiry, and a use that does not tell its own asks for it.
        if !event.event.kind.is_sighting() || event.event.expires_at.is_none() {
            touched ^= state.memory.expiries.get(event.keys.token).map_or(0, |at| *at as u64);
        }
        if event.event.kind == Kind::Refreshed {
            touched ^= u64::from(state.memory.ends.was_exchanged(event.keys.token));
        }
    }
    let mut found: SmallVec<[_; GROUP]> = SmallVec::new();
    // A user is asked for where a visit begins, and where a token is new.
    let mut users: SmallVec<[_; GROUP]> = SmallVec::new();
    for (State { memory, .. }, event) in &events {
        let key = baseline_key(&event.keys, memory);
        if let Some(place) = memory.baselines.find(key) {
            found.push((memory, event, place));
        } else if event.event.kind.is_sighting() {
            users.push((&memory.users, event.keys.user.unwrap_or(key)));
        }
    }
    for (memory, _, place) in &found {
        touched ^= memory.baselines.get(*place).touch();
    }
    let mut begin = events.len() - found.len();
    for (memory, event, place) in &found {
        let (baseline, at) = (memory.baselines.get(*place), event.event.timestamp.millis());
        touched ^= baseline.touch_holders();
        if event.event.kind == Kind::Refreshed {
            touched ^= baseline.touch_refreshes();
        }
        let visit = baseline.visits_of(event.keys.visit, at).next();
        if visit.is_none() || baseline.begins_hour(at) {
            touched ^= baseline.touch_habits();
        }
        if let Some(visit) = visit {
            touched ^= memory.visits.get(visit).touch();
        } else {
            begin += 1;
            users.push((&memory.users, event.keys.user.unwrap_or(baseline.key)));
        }
    }
    let places: SmallVec<[_; GROUP]> = users.iter().map(|(users, key)| (users, users.find(*key))).collect();
    for (users, place) in places {
        touched ^= place.map_or(0, |place| users.touch(place));
    }
    // Of the first one's state: only past events that are read as several partitions have more than one.
    if let Some((state, _)) = events.first() {
        touched ^= state.memory.visits.touch(state.clock.watermark(), GROUP * LOOKS, begin);
    }
    black_box(touched);
}
