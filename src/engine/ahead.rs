//! Prefetching of the memory that the next events need.
//!
//! Few of millions of baselines are cached, and scoring one event follows about twenty dependent cache misses. Those of
//! several events are independent, so the processor overlaps them (group prefetching: Chen, Ailamaki, Gibbons and
//! Mowry, "Improving hash join performance through prefetching", ICDE 2004). Prefetching changes no state and no verdict.

use std::hint::black_box;

use smallvec::SmallVec;

use super::occurrence::baseline_key;
use super::state::{LOOKS, State};
use super::trail::trail_key;
use crate::enrichment::EnrichedEvent;
use crate::event::Kind;

/// Number of events that are prefetched together: enough to overlap misses, few enough to stay cached.
pub const GROUP: usize = 32;

/// Prefetches what scoring of `events`, each in its state, reads first.
pub fn look_ahead<'a>(events: impl Iterator<Item = (&'a State, &'a EnrichedEvent<'a>)>) {
    // Each step is done for all events before the next.
    let events: SmallVec<[_; GROUP]> = events.collect();
    let mut touched = 0;
    for (state, event) in &events {
        touched ^= state.recent.touch(event.keys.event, event.keys.event_id);
        // Expiries are read by `issued` events and by uses without `expires_at`.
        if !event.event.kind.is_sighting() || event.event.expires_at.is_none() {
            touched ^= state.memory.expiries.get(event.keys.token).map_or(0, |at| *at as u64);
        }
        if event.event.kind == Kind::Refreshed {
            touched ^= u64::from(state.memory.ends.was_exchanged(event.keys.token));
        }
    }
    let mut found: SmallVec<[_; GROUP]> = SmallVec::new();
    // The user is read at the beginning of a visit and for a new token.
    let mut users: SmallVec<[_; GROUP]> = SmallVec::new();
    for (State { memory, .. }, event) in &events {
        let key = baseline_key(&event.keys, memory);
        if let Some(index) = memory.baselines.find(key) {
            found.push((memory, event, index));
        } else if event.event.kind.is_sighting() {
            users.push((&memory.users, event.keys.user.unwrap_or(key)));
        }
    }
    for (memory, _, index) in &found {
        touched ^= memory.baselines.get(*index).touch();
    }
    let mut begin = events.len() - found.len();
    for (memory, event, index) in &found {
        let (baseline, at) = (memory.baselines.get(*index), event.event.timestamp.millis());
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
        // The family of a token is learnt for a new token, and again in each visit.
        if visit.is_none() || baseline.token != event.keys.token as u32 {
            touched ^= memory.lineages.get(event.keys.token).copied().unwrap_or_default();
        }
    }
    // A trail is written by every use.
    let follows = |(state, event): &&(&'a State, &'a EnrichedEvent<'a>)| {
        state.settings.campaigns && event.event.kind.is_sighting()
    };
    let trails: SmallVec<[_; GROUP]> = events
        .iter()
        .filter(follows)
        .map(|(State { memory, .. }, event)| (&memory.trails, memory.trails.find(trail_key(&event.keys))))
        .collect();
    for (trails, index) in trails {
        touched ^= index.map_or(0, |index| trails.touch(index));
    }
    let indexes: SmallVec<[_; GROUP]> = users.iter().map(|(users, key)| (users, users.find(*key))).collect();
    for (users, index) in indexes {
        touched ^= index.map_or(0, |index| users.touch(index));
    }
    // Only the state of the first event: more than one state occurs only if past events are read as several partitions.
    if let Some((state, _)) = events.first() {
        touched ^= state.memory.visits.touch(state.clock.watermark(), GROUP * LOOKS, begin);
    }
    black_box(touched);
}
