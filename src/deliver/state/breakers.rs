//! Breakers: the hours in which limits were reached, and the stops of revocations.

use super::data::State;
use super::keys::Item;
use crate::deliver::limits::Scope;
use crate::deliver::record::{Effect, REVOKE, Record};
use crate::millis::{DAY_MS, HOUR_MS};
use crate::port::{BreakerCause, BreakerId, BreakerScope, BreakerStop, Limit, StoppedBy};
use crate::verdict::Incident;

/// Maximum number of scopes whose full hours are kept. Beyond it, the scope that was full longest ago is dropped.
const FULL_MAX: usize = 10_000;

impl State {
    /// The stop that contains `incident`, of those whose cause `applies`.
    pub(in crate::deliver) fn stop_of(
        &self,
        incident: &Incident,
        applies: impl Fn(BreakerCause) -> bool,
    ) -> Option<StoppedBy> {
        let mut stops = self.stops.iter().filter(|(_, stop)| applies(stop.cause));
        let (breaker, stop) = stops.find(|(_, stop)| stop.scope.contains(incident))?;
        Some(StoppedBy { breaker: *breaker, scope: stop.scope.limit(), cause: stop.cause })
    }

    /// Whether a stop has exactly this scope.
    pub(in crate::deliver) fn is_stopped(&self, scope: &BreakerScope) -> bool {
        self.stops.values().any(|stop| stop.scope == *scope)
    }

    /// The revocations within `scope` that are not requested yet, whatever they wait for, by the key of the change that
    /// requested them. A start makes held ones due for a moment.
    pub(in crate::deliver) fn unrequested_within(&self, scope: &BreakerScope) -> Vec<String> {
        let waiting = self.revocations.iter().filter(|(_, asked)| !asked.effect.called);
        waiting.filter(|(_, asked)| scope.contains(&asked.incident)).map(|(key, _)| key.clone()).collect()
    }

    /// The number of hours within the last day in which revocations waited for the limit of `scope`, if they wait at `now`.
    /// `None`: the current hour is counted already.
    pub(in crate::deliver) fn full_hours(&self, scope: &BreakerScope, now: i64) -> Option<u32> {
        let earlier = self.full.get(scope).into_iter().flatten().filter(|at| now - **at < DAY_MS);
        let is_counted = earlier.clone().any(|at| at.div_euclid(HOUR_MS) == now.div_euclid(HOUR_MS));
        if is_counted { None } else { u32::try_from(earlier.count() + 1).ok() }
    }

    /// Whether a revocation other than that of the change `key` waits, and counts towards the same part of `limit`.
    pub(in crate::deliver) fn another_waits(&self, key: &str, scope: &Scope, limit: Limit) -> bool {
        let part = scope.part(limit);
        let capped = self.capped.iter().filter(|(other, _)| other.part(limit) == part);
        capped.flat_map(|(_, keys)| keys).any(|(_, other)| other != key)
    }

    /// Applies a record of a breaker.
    pub(super) fn apply_breaker(&mut self, record: Record) {
        match record {
            Record::Full { scope, at } => self.fill(scope, at),
            Record::Stopped { breaker, stop } => self.stop(breaker, stop),
            Record::Lifted { breaker, at } => self.lift(breaker, at),
            _ => {}
        }
    }

    fn fill(&mut self, scope: BreakerScope, at: i64) {
        self.full.retain(|_, full| full.back().is_some_and(|last| at - last < DAY_MS));
        let full = self.full.entry(scope).or_default();
        full.retain(|earlier| at - earlier < DAY_MS);
        full.push_back(at);
        if self.full.len() > FULL_MAX {
            let oldest = self.full.iter().min_by_key(|(_, full)| full.back().copied()).map(|(scope, _)| scope.clone());
            oldest.map(|scope| self.full.remove(&scope));
        }
    }

    fn stop(&mut self, breaker: BreakerId, stop: BreakerStop) {
        // Those that wait for a limit get the reason why they are not requested when the limit allows them.
        let capped = self.capped.values().flatten().map(|(_, key)| key);
        let capped: Vec<_> = capped.filter(|key| self.is_within(key, &stop.scope)).cloned().collect();
        for key in capped {
            self.make_due(key, stop.at);
        }
        self.stops.insert(breaker, stop);
    }

    fn lift(&mut self, breaker: BreakerId, at: i64) {
        let Some(stop) = self.stops.remove(&breaker) else { return };
        self.full.retain(|scope, _| !stop.scope.covers(scope));
        self.release_stopped(at, |incident| stop.scope.contains(incident));
    }

    /// Makes the stopped revocations of the incidents that `are` selects due at `at`. They are stopped again if another
    /// stop contains them.
    pub(super) fn release_stopped(&mut self, at: i64, are: impl Fn(&Incident) -> bool) {
        let selected = |key: &String| self.revocations.get(key).is_some_and(|asked| are(&asked.incident));
        let keys: Vec<_> = self.stopped.iter().map(|(_, key)| key).filter(|key| selected(key)).cloned().collect();
        for key in keys {
            self.make_due(key, at);
        }
    }

    fn make_due(&mut self, key: String, at: i64) {
        self.update(&Item::Revocation(key), REVOKE, |effect| {
            *effect = Effect { due_at: at, hold: None, ..effect.clone() };
        });
    }

    fn is_within(&self, key: &str, scope: &BreakerScope) -> bool {
        self.revocations.get(key).is_some_and(|asked| scope.contains(&asked.incident))
    }

    /// The breakers as records.
    pub(super) fn breaker_records(&self) -> impl Iterator<Item = Record> {
        let full = self.full.iter().flat_map(|(scope, full)| full.iter().map(move |at| (scope.clone(), *at)));
        let mut full: Vec<_> = full.collect();
        // In the order of time, so that none is dropped as old by a later one.
        full.sort_by_key(|(_, at)| *at);
        let full = full.into_iter().map(|(scope, at)| Record::Full { scope, at });
        let stops = self.stops.iter();
        full.chain(stops.map(|(breaker, stop)| Record::Stopped { breaker: *breaker, stop: stop.clone() }))
    }
}
