//! The log of stops of all members, and the settings of breakers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::lock::unpoisoned;
use crate::port::{
    BreakerCause, BreakerId, BreakerRecord, BreakerScope, BreakerState, Clock, Lift, RecordLog, RecordObserver,
    Refutations, SKEW_MS,
};

/// Maximum number of stops of all members that are kept. Beyond it, the one that was lifted first is dropped.
const KNOWN_MAX: usize = 100_000;

/// When revocations are stopped until a person lifts the stop. 0: never, and existing stops have no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Hours within a day in which revocations wait for the limit of a rule in a tenant, an application or a tenant.
    pub full_hours: u32,
    /// Users of a tenant, or tenants, for whom people refute revocations of one rule within 30 days.
    pub refuted: u32,
    /// All events have the same tenant, so a new tenant shares its limits with no other.
    pub has_one_tenant: bool,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { full_hours: 6, refuted: 3, has_one_tenant: false }
    }
}

impl BreakerSettings {
    /// Whether a stop with this cause has effect.
    pub(super) const fn applies(self, cause: BreakerCause) -> bool {
        match cause {
            BreakerCause::Full { .. } => self.full_hours > 0,
            BreakerCause::Refuted { .. } | BreakerCause::RefutedIn { .. } => self.refuted > 0,
        }
    }
}

/// The breakers, which follow the log of stops. The stops of this member are in its outbox.
pub struct Breakers {
    pub(super) settings: BreakerSettings,
    /// `None`: feedback is not read.
    pub(super) refutations: Option<Arc<dyn Refutations>>,
    log: Arc<dyn RecordLog<BreakerRecord>>,
    clock: Arc<dyn Clock>,
    known: Mutex<BTreeMap<BreakerId, BreakerState>>,
    is_complete: AtomicBool,
    is_unreadable: AtomicBool,
}

impl Breakers {
    /// Reads the stops of `log`, and new ones until the caller drops it.
    pub fn follow(
        log: Arc<dyn RecordLog<BreakerRecord>>,
        clock: Arc<dyn Clock>,
        refutations: Option<Arc<dyn Refutations>>,
        settings: BreakerSettings,
    ) -> Arc<Self> {
        let breakers = Arc::new(Self {
            settings,
            refutations,
            log,
            clock,
            known: Mutex::default(),
            is_complete: AtomicBool::new(false),
            is_unreadable: AtomicBool::new(false),
        });
        breakers.log.follow(Arc::clone(&breakers) as Arc<dyn RecordObserver<BreakerRecord>>);
        breakers
    }

    /// Whether the log is read, so that a lift of an earlier stop is known.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire) && !self.is_unreadable()
    }

    pub(super) fn is_unreadable(&self) -> bool {
        self.is_unreadable.load(Ordering::Relaxed)
    }

    /// Whether the log has the stop.
    pub(super) fn has(&self, breaker: BreakerId) -> bool {
        unpoisoned(&self.known).contains_key(&breaker)
    }

    /// Whether a member has a stop of this scope that no person has lifted.
    pub(super) fn is_stopped(&self, scope: &BreakerScope, now: i64) -> bool {
        unpoisoned(&self.known).values().any(|known| known.lift(now).is_none() && known.stop.scope == *scope)
    }

    /// The lift of the stop by a person.
    pub(super) fn lift_of(&self, breaker: BreakerId, now: i64) -> Option<Lift> {
        unpoisoned(&self.known).get(&breaker)?.lift(now).cloned()
    }

    /// The last time at which a person lifted a stop that covers this scope in any member, milliseconds since the epoch.
    /// At least [`SKEW_MS`] after the stop, because clocks differ: the causes of the stop must not count as later.
    pub(super) fn lifted_at(&self, scope: &BreakerScope, now: i64) -> i64 {
        let known = unpoisoned(&self.known);
        let covering = known.values().filter(|known| known.stop.scope.covers(scope));
        let lifts = covering.filter_map(|known| Some((known.lift(now)?.at, known.stop.at)));
        lifts.map(|(lifted, stopped)| lifted.max(stopped.saturating_add(SKEW_MS))).max().unwrap_or(i64::MIN)
    }

    /// Appends a record to the log.
    pub(super) async fn append(&self, record: BreakerRecord) -> Result<(), String> {
        self.log.append(record).await
    }
}

impl RecordObserver<BreakerRecord> for Breakers {
    fn record(&self, BreakerRecord { breaker, mut state }: BreakerRecord) {
        if let Some(problem) = state.lifted.as_ref().and_then(|lift| lift.problem(self.clock.now_millis())) {
            tracing::error!(%breaker, problem, "the lift of a stop has no effect");
        }
        let mut known = unpoisoned(&self.known);
        // A late repetition of the stop does not remove its lift.
        state.lifted = state.lifted.or_else(|| known.get(&breaker)?.lifted.clone());
        known.insert(breaker, state);
        if known.len() > KNOWN_MAX {
            let lifted = known.iter().filter_map(|(id, known)| Some((known.lifted.as_ref()?.at, *id)));
            let first = lifted.min().map_or(breaker, |(_, first)| first);
            known.remove(&first);
        }
    }

    fn all_read(&self) {
        self.is_complete.store(true, Ordering::Release);
    }

    fn read_failed(&self) {
        self.is_unreadable.store(true, Ordering::Relaxed);
    }

    fn read_succeeded(&self) {
        self.is_unreadable.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::port::{BreakerStop, Waiting};
    use crate::telemetry::SystemClock;
    use crate::verdict::RuleId;

    /// A log whose records the test passes to the observer.
    struct Silent;

    #[async_trait]
    impl RecordLog<BreakerRecord> for Silent {
        async fn append(&self, _: BreakerRecord) -> Result<(), String> {
            Ok(())
        }

        async fn remove(&self, _: &BreakerId) -> Result<(), String> {
            Ok(())
        }

        fn follow(&self, _: Arc<dyn RecordObserver<BreakerRecord>>) {}
    }

    fn record(scope: &BreakerScope, at: i64, lifted_at: Option<i64>) -> BreakerRecord {
        let stop = BreakerStop { scope: scope.clone(), cause: BreakerCause::Refuted { users: 3 }, at };
        let (by, reason) = ("ana".to_owned(), "looked at".to_owned());
        let lifted = lifted_at.map(|at| Lift { at, by, reason, waiting: Waiting::default() });
        BreakerRecord { breaker: BreakerId(7), state: BreakerState { stop, member: "m".to_owned(), lifted } }
    }

    fn breakers() -> Arc<Breakers> {
        Breakers::follow(Arc::new(Silent), Arc::new(SystemClock), None, BreakerSettings::default())
    }

    #[test]
    fn late_repetition_of_a_stop_keeps_its_lift() {
        let (breakers, scope) =
            (breakers(), BreakerScope { tenant: Some("acme".to_owned()), ..BreakerScope::default() });
        breakers.record(record(&scope, 1_000, None));
        assert!(breakers.is_stopped(&scope, 10_000));
        breakers.record(record(&scope, 1_000, Some(5_000)));
        breakers.record(record(&scope, 1_000, None));
        assert!(!breakers.is_stopped(&scope, 10_000));
        assert_eq!(breakers.lift_of(BreakerId(7), 10_000).map(|lift| lift.at), Some(5_000));
    }

    #[test]
    fn lift_of_a_fast_clock_lifts_nothing() {
        let (breakers, scope) =
            (breakers(), BreakerScope { tenant: Some("acme".to_owned()), ..BreakerScope::default() });
        let now = 1_795_000_000_000;
        breakers.record(record(&scope, now, Some(now + SKEW_MS + 1)));
        assert!(breakers.lift_of(BreakerId(7), now).is_none() && breakers.is_stopped(&scope, now));
        assert_eq!(breakers.lifted_at(&scope, now), i64::MIN);
        assert!(breakers.lift_of(BreakerId(7), now + 1).is_some() && !breakers.is_stopped(&scope, now + 1));
    }

    #[test]
    fn lift_counts_for_narrower_scopes_and_after_the_causes() {
        let of_tenant = BreakerScope { tenant: Some("acme".to_owned()), ..BreakerScope::default() };
        let of_rule = BreakerScope { rule: Some(RuleId::NewIp), ..of_tenant.clone() };
        let other = BreakerScope { tenant: Some("other".to_owned()), ..of_rule.clone() };
        let breakers = breakers();
        let (stopped, now) = (1_795_000_000_000, 1_795_000_900_000);
        // The clock of the command is slow.
        breakers.record(record(&of_tenant, stopped, Some(stopped - 60_000)));
        assert_eq!(breakers.lifted_at(&of_rule, now), stopped + SKEW_MS);
        assert_eq!(breakers.lifted_at(&other, now), i64::MIN);
        breakers.record(record(&of_tenant, stopped, Some(stopped + SKEW_MS + 1)));
        assert_eq!(breakers.lifted_at(&of_tenant, now), stopped + SKEW_MS + 1);
    }
}
