//! `lifecycle`: uses that an ended, exchanged or key-bound token cannot have. The evidence is nearly certain, except at
//! the owner's usual place.

use crate::event::Answer;
use crate::math::{faded, ln};
use crate::memory::Ended;
use crate::memory::population::Habit;
use crate::millis::{DAY_MS, MINUTE_MS, SECOND_MS};
use crate::verdict::RuleId;

/// Evidence of an event that only a copy of the token explains, nats.
pub(crate) const CERTAIN: f64 = 14.0;
/// The same at the owner's usual place, where honest causes are as likely: a client crashes before it stores a token, a
/// certificate is renewed, or a server accepts expired tokens. This evidence alone does not revoke
/// (`docs/decisions/0020-life-cycle-evidence-at-usual-places.md`).
pub(crate) const AT_USUAL_PLACE: f64 = 9.2;

/// Calls that are in flight when a token is revoked end within this time.
const IN_FLIGHT_MS: i64 = 30 * SECOND_MS;
/// Half-life of the evidence of a rejected use from a new place, days.
const MOVED_DAYS: f64 = 3.0;
/// Browser tabs and background tasks continue for up to this time after the end of a session.
const SESSION_TAIL_MS: i64 = 10 * MINUTE_MS;
/// Consecutive uses of one key after which the token is bound to it.
pub(crate) const BINDING_STREAK: u8 = 3;
/// Evidence of an older expiry is limited: hardly any service accepts a token that expired longer ago.
const EXPIRED_MS_MAX: i64 = 30 * DAY_MS;
/// Tolerance for clock differences, minutes.
const SKEW_MINUTES: f64 = 1.0;

/// Properties of the caller that are new to the baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// Address is new.
    pub(crate) address: bool,
    /// Autonomous system is new.
    pub(crate) network: bool,
    /// Client family is new.
    pub(crate) client: bool,
}

/// Evidence of a use after revocation. A rejected use from a known place gives none: the owner's client may retry.
pub(crate) fn after_revocation(ended: Ended, at: i64, answer: Answer, foreign: Foreign) -> f64 {
    let Some(since) = ended.revoked_at.map(|ended| at - ended.get()).filter(|since| *since > IN_FLIGHT_MS) else {
        return 0.0;
    };
    let days = since as f64 / DAY_MS as f64;
    match answer {
        Answer::Accepted => CERTAIN,
        // The owner's client may retry for days from other places, so the evidence decays.
        Answer::Refused | Answer::Unknown if foreign.network || foreign.client => 5.0 * faded(days, MOVED_DAYS),
        Answer::Refused | Answer::Unknown if foreign.address => 2.5 * faded(days, MOVED_DAYS),
        Answer::Refused | Answer::Unknown => 0.0,
    }
}

/// Evidence of an accepted use after the end of the session.
pub(crate) fn after_session_end(ended: Ended, at: i64, answer: Answer, foreign: Foreign) -> f64 {
    match ended.session_ended_at.map(|ended| at - ended.get()) {
        Some(since) if since > IN_FLIGHT_MS && answer == Answer::Accepted => {
            if since < SESSION_TAIL_MS && !foreign.network { 5.0 } else { CERTAIN }
        }
        _ => 0.0,
    }
}

/// When a token expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// Milliseconds since the epoch.
    pub(crate) at: i64,
    /// The expiry comes from the `issued` event only. The token may have been extended since.
    pub(crate) from_issued_event: bool,
}

impl Expiry {
    /// Minutes after the expiry, minus the tolerance for clocks. Negative before the expiry.
    fn late(self, at: i64) -> f64 {
        (at - self.at) as f64 / MINUTE_MS as f64 - SKEW_MINUTES
    }

    pub(crate) fn is_over(self, at: i64) -> bool {
        self.late(at) > 0.0
    }
}

/// Evidence of an accepted use after expiry: minutes after the expiry, minus the tolerance for clocks, at most `most`.
/// `most` is [`CERTAIN`], [`AT_USUAL_PLACE`] or [`issue_expiry_max`]. The evidence is at most 2 if the visit began before
/// the expiry. It is at most [`AT_USUAL_PLACE`] if the expiry is more than 30 days ago: this may be a mistake of the
/// producer, such as 1970 for "never".
pub(crate) fn after_expiry(expiry: Expiry, most: f64, at: i64, visit_began: i64, answer: Answer) -> f64 {
    if answer != Answer::Accepted {
        return 0.0;
    }
    let most = if at - expiry.at > EXPIRED_MS_MAX { most.min(AT_USUAL_PLACE) } else { most };
    expiry.late(at).clamp(0.0, if visit_began < expiry.at { most.min(2.0) } else { most })
}

/// Maximum evidence if the expiry comes from the `issued` event only: `ln(0.5/rate)` in [0, 8]. `rate` is the share of
/// the application's visits after such an expiry. Honest causes: use extends the session, or the producer states the
/// expiry of another token. This evidence alone does not revoke.
pub(crate) fn issue_expiry_max(rate: f64) -> f64 {
    ln(0.5 / rate).clamp(0.0, 8.0)
}

/// The key to which a token is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    /// 0: none.
    pub(crate) key: u32,
    /// Number of consecutive uses of the key.
    pub(crate) streak: u8,
}

/// The key of which a request proves possession.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// 0: none.
    pub(crate) key: u32,
    /// The token differs from the last one of the baseline.
    pub(crate) new_token: bool,
    /// The holder has an event in an earlier hour.
    pub(crate) seen_in_earlier_hour: bool,
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
}

/// Evidence of a habit that departs from the known key: `ln(0.9/rate)` in [0, 8], and at most 5 for a new key, because
/// two honest clients may share a grant. `rate`: share of the application's visits (for a new key: of its new tokens) with
/// the habit. 90 % of thieves are assumed not to have the key. This evidence does not revoke, because a producer may stop
/// to report keys.
#[must_use]
pub(crate) fn departed(habit: Habit, rate: f64) -> f64 {
    ln(0.9 / rate).clamp(0.0, if habit == Habit::NewKey { 5.0 } else { 8.0 })
}

/// Whether evidence of a rule counts towards a revocation. Evidence of a missing key, or of a new key of a new token, does
/// not: it is lower than that of another key.
#[must_use]
pub(crate) fn may_revoke(rule: RuleId, evidence: f64) -> bool {
    rule != RuleId::BindingMismatch || evidence >= AT_USUAL_PLACE
}

/// Records the key of a request, and returns the evidence of another key: a copy of the token without its key. For a
/// missing key, and a new key of a new token, see [`departed`]. At the usual place, a key that is used in several hours
/// replaces the old one.
pub(crate) fn binding(known: &mut Binding, proof: Proof, at_usual_place: impl FnOnce() -> bool) -> f64 {
    if proof.key == 0 {
        return 0.0;
    }
    if known.key == proof.key {
        known.streak = known.streak.saturating_add(1);
        return 0.0;
    }
    if known.streak >= BINDING_STREAK && !proof.new_token {
        if !at_usual_place() {
            return CERTAIN;
        }
        if proof.seen_in_earlier_hour {
            known.streak /= 2;
        }
        return AT_USUAL_PLACE;
    }
    *known = Binding { key: proof.key, streak: 1 };
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::LIFECYCLE_CERTAIN;

    const NOON: i64 = 1_790_000_000_000;
    const HOME: Foreign = Foreign { address: false, network: false, client: false };
    const ELSEWHERE: Foreign = Foreign { address: true, network: true, client: true };

    /// A request with an earlier token, of a holder with an event in an earlier hour.
    const fn proof(key: u32) -> Proof {
        Proof { key, new_token: false, seen_in_earlier_hour: true }
    }

    #[test]
    fn revoked_token_that_is_accepted_is_a_copy() {
        let revoked = Ended::revoked(NOON);
        let at = |after, answer, foreign| after_revocation(revoked, NOON + after, answer, foreign);
        assert!(at(20 * SECOND_MS, Answer::Accepted, ELSEWHERE) < 1.0, "in flight");
        assert!(at(MINUTE_MS, Answer::Accepted, HOME) >= CERTAIN);
        assert!(at(MINUTE_MS, Answer::Refused, HOME) < 1.0);
        assert!((at(MINUTE_MS, Answer::Refused, ELSEWHERE) - 5.0).abs() < 1e-2);
        assert!((at(3 * DAY_MS, Answer::Refused, ELSEWHERE) - 2.5).abs() < 1e-9, "days later");
        assert!((at(MINUTE_MS, Answer::Refused, Foreign { address: true, ..HOME }) - 2.5).abs() < 1e-2);
        assert!(after_revocation(Ended::default(), NOON, Answer::Accepted, ELSEWHERE) < 1.0);
    }

    #[test]
    fn session_end_allows_10_minutes_on_known_networks() {
        let ended = Ended::session_ended(NOON);
        let at = |after, answer, foreign| after_session_end(ended, NOON + after, answer, foreign);
        assert!((at(5 * MINUTE_MS, Answer::Accepted, HOME) - 5.0).abs() < 1e-12);
        assert!(at(5 * MINUTE_MS, Answer::Accepted, ELSEWHERE) >= CERTAIN);
        assert!(at(20 * MINUTE_MS, Answer::Accepted, HOME) >= CERTAIN);
        assert!(at(20 * MINUTE_MS, Answer::Refused, ELSEWHERE) < 1.0);
    }

    #[test]
    fn expiry_evidence_grows_per_minute() {
        let noon = Expiry { at: NOON, from_issued_event: false };
        let at = |late, began| after_expiry(noon, CERTAIN, NOON + late, began, Answer::Accepted);
        assert!(at(MINUTE_MS, NOON + 1) < 1e-9);
        assert!((at(4 * MINUTE_MS, NOON + 1) - 3.0).abs() < 1e-9);
        assert!((at(400 * MINUTE_MS, NOON + 1) - 14.0).abs() < 1e-9);
        assert!((at(400 * MINUTE_MS, NOON - 1) - 2.0).abs() < 1e-9);
        assert!(after_expiry(noon, CERTAIN, NOON + 400 * MINUTE_MS, NOON + 1, Answer::Refused) < 1e-9);
    }

    #[test]
    fn issue_expiry_max_depends_on_other_visits() {
        // 2 of 1,000 visits: ln 250. At half of all visits or more, sessions are extended.
        assert!((issue_expiry_max(0.002) - 250.0_f64.ln()).abs() < 1e-12);
        assert!(issue_expiry_max(1e-9) < LIFECYCLE_CERTAIN && issue_expiry_max(0.7) < 1e-12);
        let noon = Expiry { at: NOON, from_issued_event: true };
        let most = issue_expiry_max(0.002);
        let late = after_expiry(noon, most, NOON + 400 * MINUTE_MS, NOON + 1, Answer::Accepted);
        assert!((late - most).abs() < 1e-12);
    }

    #[test]
    fn binding_mismatch_after_three_uses_is_a_copy() {
        let mut known = Binding { key: 0, streak: 0 };
        let evidence: Vec<bool> =
            [7, 0, 7, 8, 8, 8, 0, 9, 8].iter().map(|key| binding(&mut known, proof(*key), || false) > 1.0).collect();
        assert_eq!(evidence, [false, false, false, false, false, false, false, true, false]);
    }

    #[test]
    fn binding_mismatch_ignores_renewed_certificate() {
        let mut known = Binding { key: 7, streak: 30 };
        let renewed = Proof { new_token: true, ..proof(8) };
        assert!(binding(&mut known, renewed, || false) < 1.0, "a renewed certificate");
        for _ in 0..3 {
            assert!(binding(&mut known, proof(8), || false) < 1.0);
        }
        assert!(binding(&mut known, proof(7), || false) > 1.0, "a copy");
    }

    #[test]
    fn new_key_at_usual_place_is_accepted_after_hours() {
        let mut known = Binding { key: 7, streak: 200 };
        let same_hour = Proof { seen_in_earlier_hour: false, ..proof(8) };
        let quick: Vec<f64> = (0..99).map(|_| binding(&mut known, same_hour, || true)).collect();
        assert!(
            quick.iter().all(|evidence| *evidence > 0.0) && known.key == 7,
            "uses within one hour do not replace the key"
        );
        let evidence: Vec<f64> = (0..10).map(|_| binding(&mut known, proof(8), || true)).collect();
        // 200, 100, 50, 25, 12, 6, 3: seven hours.
        assert_eq!(evidence.iter().filter(|evidence| **evidence > 0.0).count(), 7);
        assert!(evidence.iter().all(|evidence| *evidence < LIFECYCLE_CERTAIN) && known.key == 8);
        assert!(binding(&mut known, proof(7), || false) >= CERTAIN, "from another place, the old key is a copy");
    }

    #[test]
    fn missing_key_counts_where_it_is_rare() {
        let known = Binding { key: 7, streak: 3 };
        assert_eq!(Binding { streak: 2, ..known }.departure(proof(0)), None, "the key is not established");
        assert_eq!(known.departure(proof(0)), Some((Habit::NoKey, true)));
        assert_eq!(known.departure(proof(7)), Some((Habit::NoKey, false)));
        let new = |key| Proof { new_token: true, ..proof(key) };
        assert_eq!(known.departure(new(8)), Some((Habit::NewKey, true)));
        assert_eq!(known.departure(new(7)), Some((Habit::NewKey, false)));
        assert!((departed(Habit::NoKey, 0.001) - 900.0_f64.ln()).abs() < 1e-9);
        assert!(departed(Habit::NoKey, 1e-9) < AT_USUAL_PLACE, "it does not revoke");
        let most = [Habit::NoKey, Habit::NewKey].map(|habit| departed(habit, 1e-9));
        assert!(most.iter().all(|evidence| !may_revoke(RuleId::BindingMismatch, *evidence)));
        assert!(may_revoke(RuleId::BindingMismatch, CERTAIN) && may_revoke(RuleId::RefreshReuse, most[0]));
        assert!((departed(Habit::NewKey, 0.001) - 5.0).abs() < 1e-9 && departed(Habit::NoKey, 0.95).abs() < 1e-9);
    }
}
