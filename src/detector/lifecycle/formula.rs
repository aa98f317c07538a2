//! `lifecycle`: uses that an ended, exchanged or key-bound token cannot have. The evidence is nearly certain, except at
//! the owner's usual place.

use crate::event::Answer;
use crate::math::{faded, ln};
use crate::memory::Ended;
use crate::millis::{DAY_MS, MINUTE_MS, SECOND_MS};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::LIFECYCLE_CERTAIN;

    const NOON: i64 = 1_790_000_000_000;
    const HOME: Foreign = Foreign { address: false, network: false, client: false };
    const ELSEWHERE: Foreign = Foreign { address: true, network: true, client: true };

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
}
