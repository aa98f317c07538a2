//! Tokens that are used with another key than before, or without one.
//!
//! Owners replace keys: the certificate of a long-lived token is renewed, and the old key is not used again. A copy of the
//! token is used next to the owner, so that two keys alternate (`docs/decisions/0031-replaced-keys.md`).

use super::formula::{AT_USUAL_PLACE, CERTAIN};
use crate::math::ln;
use crate::memory::baseline::OtherKeys;
use crate::memory::population::Habit;
use crate::verdict::RuleId;

/// Consecutive uses of one key after which the token is bound to it.
pub(crate) const BINDING_STREAK: u8 = 3;
/// Hours of use after which another key is the known one, if the known one does not come back.
const REPLACED_HOURS: u8 = 7;
/// Requests with the old key may be in flight, or on an open connection, for this time after the first one with the new
/// key, minutes.
const IN_FLIGHT_MINUTES: u32 = 10;
/// The known key comes back so often at a familiar place, where a deployment in steps also uses both keys for a while.
const FAMILIAR_RETURNS: u8 = 6;
/// Uses of one key in sequence after which several clients with a key each are unlikely to share the token.
const LONG_STREAK: u8 = 64;

/// The key to which a token is bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Binding {
    /// 0: none.
    pub(crate) key: u32,
    /// Number of consecutive uses of the key, until another one is used.
    pub(crate) streak: u8,
    pub(crate) others: OtherKeys,
}

/// Where a key is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The owner's usual prefix and client.
    Usual,
    /// A known network and client family of the owner. Mobile carriers give a device a new address, often a new prefix,
    /// at each connection.
    Familiar,
    Foreign,
}

/// The key of which a request proves possession.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts about one request")]
pub(crate) struct Proof {
    /// 0: none.
    pub(crate) key: u32,
    /// The token differs from the last one of the baseline.
    pub(crate) new_token: bool,
    /// The token itself names its key, so that no other one can replace it: a DPoP key (RFC 9449) of a token that is not
    /// an API key or a personal token.
    pub(crate) inseparable: bool,
    /// Minutes since the epoch.
    pub(crate) minute: u32,
    /// The event is the first one of the token in its hour.
    pub(crate) begins_hour: bool,
    /// The owner is often active at this hour of the day.
    pub(crate) owners_hour: bool,
}

/// Result of comparing a key with the known one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Compared {
    /// Evidence of a copy, nats.
    pub(crate) evidence: f64,
    /// The key has replaced the known one. Evidence against its holder ends.
    pub(crate) replaced: bool,
}

impl Compared {
    const fn of(evidence: f64) -> Self {
        Self { evidence, replaced: false }
    }
}

impl Binding {
    /// The habit that a request could show, and whether it does. `None` if the key is not established.
    #[must_use]
    pub(crate) const fn departure(self, proof: Proof) -> Option<(Habit, bool)> {
        if self.streak < BINDING_STREAK {
            None
        } else if proof.key == 0 || !proof.new_token {
            Some((Habit::NoKey, proof.key == 0))
        } else {
            Some((Habit::NewKey, proof.key != self.key))
        }
    }

    /// Records the key of a request, and returns the evidence of another key. For a missing key, and a new key of a new
    /// token, see [`departed`]. `replaced`: evidence that a key of the application is not replaced, see [`replaced`].
    pub(crate) fn compare(
        &mut self,
        proof: Proof,
        place: impl FnOnce() -> Place,
        replaced: impl FnOnce() -> f64,
    ) -> Compared {
        if proof.key == 0 {
            return Compared::default();
        }
        if proof.key == self.key {
            self.come_back(proof.minute);
            return Compared::default();
        }
        if proof.new_token || self.streak < BINDING_STREAK {
            *self = Self { key: proof.key, streak: 1, others: OtherKeys::default() };
            return Compared::default();
        }
        let place = place();
        if proof.inseparable && place != Place::Usual {
            return Compared::of(CERTAIN);
        }
        let first = if proof.inseparable { AT_USUAL_PLACE } else { replaced() };
        if proof.key == self.others.previous {
            // Both keys are in use, and the event does not say whose key came first.
            (self.others.previous, self.key) = (self.key, proof.key);
            self.others = OtherKeys { hours: 0, returns: 1, ..self.others };
            return Compared::of(if place == Place::Foreign { CERTAIN } else { first });
        }
        self.use_another(proof, place, first)
    }

    /// Records a use of the known key.
    fn come_back(&mut self, minute: u32) {
        let others = &mut self.others;
        if others.hours > 0 {
            if minute >= others.since + IN_FLIGHT_MINUTES {
                (others.hours, others.returns) = (0, others.returns.saturating_add(1));
            }
        } else if others.returns == 0 {
            self.streak = self.streak.saturating_add(1);
        }
    }

    /// Records a use of another key. It replaces the known one if it is used in several hours and the known one is not.
    fn use_another(&mut self, proof: Proof, place: Place, first: f64) -> Compared {
        let others = &mut self.others;
        let counts = match place {
            Place::Usual => true,
            Place::Familiar => proof.owners_hour,
            Place::Foreign => false,
        };
        if others.hours == 0 {
            (others.hours, others.since) = (1, proof.minute);
        } else if counts && proof.begins_hour {
            others.hours += 1;
        }
        if others.hours > REPLACED_HOURS {
            let others = OtherKeys { previous: self.key, ..OtherKeys::default() };
            *self = Self { key: proof.key, streak: BINDING_STREAK, others };
            return Compared { evidence: 0.0, replaced: true };
        }
        let alternates = match place {
            Place::Usual => false,
            Place::Familiar => others.returns >= FAMILIAR_RETURNS && self.streak >= LONG_STREAK,
            Place::Foreign => others.returns > 0,
        };
        if alternates {
            return Compared::of(CERTAIN);
        }
        let waited = if place == Place::Foreign { 0 } else { others.hours - 1 };
        Compared::of(first * (1.0 - f64::from(waited) / f64::from(REPLACED_HOURS)))
    }
}

/// Evidence of a habit that departs from the known key: `ln(0.9/rate)` in [0, 8], and at most 5 for a new key, because
/// two honest clients may share a grant. `rate`: share of the application's visits (for a new key: of its new tokens) with
/// the habit. 90 % of thieves are assumed not to have the key.
#[must_use]
pub(crate) fn departed(habit: Habit, rate: f64) -> f64 {
    ln(0.9 / rate).clamp(0.0, if habit == Habit::NewKey { 5.0 } else { 8.0 })
}

/// Evidence of another key of the same token: `ln(0.9/rate)` in [0, 9.2]. `rate`: how often, per visit, a key of the
/// application was replaced.
#[must_use]
pub(crate) fn replaced(rate: f64) -> f64 {
    ln(0.9 / rate).clamp(0.0, AT_USUAL_PLACE)
}

/// Whether evidence of a rule counts towards a revocation. Of a key, only evidence that nothing but a copy explains does:
/// owners replace keys together with network and client, and a producer may stop to report keys.
#[must_use]
pub(crate) fn may_revoke(rule: RuleId, evidence: f64) -> bool {
    rule != RuleId::BindingMismatch || evidence > AT_USUAL_PLACE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::LIFECYCLE_CERTAIN;

    const HOUR: u32 = 60;

    /// A request with the same token, the first one of an hour in which the owner is often active.
    const fn proof(key: u32, minute: u32) -> Proof {
        Proof { key, new_token: false, inseparable: false, minute, begins_hour: true, owners_hour: true }
    }

    const fn bound(streak: u8) -> Binding {
        Binding { key: 7, streak, others: OtherKeys { previous: 0, since: 0, hours: 0, returns: 0 } }
    }

    /// Evidence of a use of `key`, where keys are hardly ever replaced.
    fn seen(known: &mut Binding, key: u32, minute: u32, place: Place) -> f64 {
        known.compare(proof(key, minute), || place, || replaced(1e-9)).evidence
    }

    #[test]
    fn first_use_of_another_key_does_not_revoke() {
        for place in [Place::Usual, Place::Familiar, Place::Foreign] {
            let evidence = seen(&mut bound(200), 8, 0, place);
            assert!((evidence - AT_USUAL_PLACE).abs() < 1e-9, "{place:?}: {evidence}");
            assert!(!may_revoke(RuleId::BindingMismatch, evidence));
        }
        assert!(may_revoke(RuleId::BindingMismatch, CERTAIN) && may_revoke(RuleId::RefreshReuse, AT_USUAL_PLACE));
        assert!((replaced(0.003) - 300.0_f64.ln()).abs() < 1e-9 && replaced(0.95) <= 0.0, "where keys often change");
    }

    #[test]
    fn key_is_established_after_three_uses() {
        let mut known = Binding::default();
        let keys = [7, 0, 7, 8, 8, 8, 0, 9, 8];
        let evidence = keys.map(|key| seen(&mut known, key, 0, Place::Foreign) > 1.0);
        assert_eq!(evidence, [false, false, false, false, false, false, false, true, false]);
    }

    #[test]
    fn keys_that_alternate_are_a_copy() {
        let mut known = bound(30);
        assert!(seen(&mut known, 8, 0, Place::Foreign) < LIFECYCLE_CERTAIN);
        assert!(seen(&mut known, 7, 30, Place::Usual) < 1.0, "the owner goes on");
        // A thief may use a key of its own for each request.
        assert!(seen(&mut known.clone(), 8, 31, Place::Foreign) >= CERTAIN);
        assert!(seen(&mut known, 9, 31, Place::Foreign) >= CERTAIN);
        assert!(seen(&mut known, 7, 32, Place::Usual) < 1.0, "no evidence against the owner");
        assert!(seen(&mut known, 8, 60 * 24 * HOUR, Place::Foreign) >= CERTAIN, "after two months");
    }

    #[test]
    fn requests_in_flight_are_no_alternation() {
        let mut known = bound(30);
        for minute in 0..5 {
            assert!(seen(&mut known, 8, 2 * minute, Place::Foreign) < LIFECYCLE_CERTAIN);
            assert!(seen(&mut known, 7, 2 * minute + 1, Place::Foreign) < 1.0);
        }
        assert_eq!(known.others.returns, 0);
    }

    #[test]
    fn late_event_of_the_known_key_is_no_alternation() {
        let mut known = bound(30);
        seen(&mut known, 8, 1_000, Place::Foreign);
        assert!(seen(&mut known, 7, 998, Place::Usual) < 1.0);
        assert_eq!(known.others.returns, 0, "its event is older than the first one with the other key");
        assert!(seen(&mut known, 8, 1_001, Place::Foreign) < LIFECYCLE_CERTAIN);
        // 65,536 minutes later, which 16 bits would not tell from the same minute.
        seen(&mut known, 7, 1_000 + (1 << 16), Place::Usual);
        assert_eq!(known.others.returns, 1);
    }

    #[test]
    fn alternation_at_a_familiar_place_revokes_after_an_hour_or_more() {
        let certain_after = |streak: u8, place: Place| {
            let mut known = bound(streak);
            (0..30).position(|round| {
                let evidence = seen(&mut known, 8, 20 * round, place);
                seen(&mut known, 7, 20 * round + 10, Place::Usual);
                evidence >= LIFECYCLE_CERTAIN
            })
        };
        assert_eq!(certain_after(200, Place::Familiar), Some(6));
        assert_eq!(certain_after(20, Place::Familiar), None, "several clients with a key each");
        assert_eq!(certain_after(200, Place::Usual), None);
    }

    #[test]
    fn key_that_is_not_contested_replaces_the_known_one() {
        for place in [Place::Usual, Place::Familiar] {
            let mut known = bound(200);
            let evidence: Vec<f64> = (0..10).map(|hour| seen(&mut known, 8, hour * HOUR, place)).collect();
            assert_eq!(evidence.iter().filter(|evidence| **evidence > 0.0).count(), 7, "{evidence:?}");
            assert!(evidence.is_sorted_by(|a, b| a >= b) && known.key == 8, "{evidence:?}");
            let mut thief = known;
            assert!(seen(&mut thief, 7, 900, Place::Foreign) >= CERTAIN, "from elsewhere, the old key is a copy");
            // The old key comes back at the owner's place: a failed renewal. If both go on, there are two holders.
            let evidence = seen(&mut known, 7, 900, place);
            assert!(evidence > 9.0 && evidence < LIFECYCLE_CERTAIN, "{evidence}");
            assert!(seen(&mut known, 7, 960, place) < 1.0);
            assert!(seen(&mut known, 8, 961, Place::Foreign) >= CERTAIN);
        }
    }

    #[test]
    fn key_of_a_thief_is_not_accepted() {
        let waits = |place: Place, hours: u32, change: fn(&mut Proof)| {
            let mut known = bound(200);
            for hour in 0..hours {
                let mut proof = proof(8, hour * HOUR);
                change(&mut proof);
                let compared = known.compare(proof, || place, || AT_USUAL_PLACE);
                assert!(compared.evidence > 1.0 && !compared.replaced, "hour {hour}");
            }
            assert_eq!(known.key, 7);
        };
        waits(Place::Foreign, 1_000, |_| ());
        waits(Place::Familiar, 1_000, |proof| proof.owners_hour = false);
        waits(Place::Usual, 1_000, |proof| proof.begins_hour = false);
        waits(Place::Familiar, 1_000, |proof| proof.inseparable = true);
        // While the owner goes on.
        let mut known = bound(200);
        for hour in 0..100 {
            assert!(seen(&mut known, 8, hour * HOUR, Place::Usual) > 9.0);
            seen(&mut known, 7, hour * HOUR + 30, Place::Usual);
        }
        assert_eq!(known.key, 7);
    }

    #[test]
    fn keys_that_change_every_hour_are_accepted() {
        let mut known = bound(200);
        let replaced = (0..24).filter(|hour| {
            known.compare(proof(100 + hour, hour * HOUR), || Place::Familiar, || AT_USUAL_PLACE).replaced
        });
        assert_eq!(replaced.count(), 3);
    }

    #[test]
    fn same_token_with_another_dpop_key_is_a_copy() {
        let copy = Proof { inseparable: true, ..proof(8, 0) };
        for place in [Place::Familiar, Place::Foreign] {
            assert!(bound(3).compare(copy, || place, || 0.0).evidence >= CERTAIN, "{place:?}");
        }
        let usual = bound(3).compare(copy, || Place::Usual, || 0.0).evidence;
        assert!((usual - AT_USUAL_PLACE).abs() < 1e-9, "{usual}");
    }

    #[test]
    fn next_token_may_have_another_key() {
        let mut known = bound(30);
        let renewed = Proof { new_token: true, ..proof(8, 0) };
        assert!(known.compare(renewed, || Place::Foreign, || AT_USUAL_PLACE).evidence < 1.0);
        for minute in 0..3 {
            assert!(seen(&mut known, 8, minute, Place::Foreign) < 1.0);
        }
        assert!(seen(&mut known, 7, 3, Place::Foreign) > 9.0, "a copy");
    }

    #[test]
    fn missing_key_counts_where_it_is_rare() {
        let known = bound(3);
        assert_eq!(bound(2).departure(proof(0, 0)), None, "the key is not established");
        assert_eq!(known.departure(proof(0, 0)), Some((Habit::NoKey, true)));
        assert_eq!(known.departure(proof(7, 0)), Some((Habit::NoKey, false)));
        let new = |key| Proof { new_token: true, ..proof(key, 0) };
        assert_eq!(known.departure(new(8)), Some((Habit::NewKey, true)));
        assert_eq!(known.departure(new(7)), Some((Habit::NewKey, false)));
        assert!((departed(Habit::NoKey, 0.001) - 900.0_f64.ln()).abs() < 1e-9);
        let most = [Habit::NoKey, Habit::NewKey].map(|habit| departed(habit, 1e-9));
        assert!(most.iter().all(|evidence| !may_revoke(RuleId::BindingMismatch, *evidence)));
        assert!((departed(Habit::NewKey, 0.001) - 5.0).abs() < 1e-9 && departed(Habit::NoKey, 0.95).abs() < 1e-9);
    }
}
