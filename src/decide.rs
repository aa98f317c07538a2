//! From log-odds to a verdict, an incident and an action.

pub mod budget;
pub mod incidents;
pub mod tail;

pub use budget::Budget;
pub use incidents::{Alarm, Cause, Incidents, Joined};
pub use tail::Tail;

use crate::verdict::{LIFECYCLE_CERTAIN, Verdict};

/// Watched from here on, whatever the budget; and from such evidence of the life cycle, whatever else speaks for the
/// owner.
const WATCH_FROM: f64 = -2.0;
const WATCH_LIFECYCLE_FROM: f64 = 9.0;
/// A revocation by behaviour needs this, and the margin that is set besides.
const REVOKE_FROM: f64 = 7.0;
/// And this without what others' tokens do, and without how much was called, and where the owner is also without what was
/// called: a fan-out alone would revoke an application's migration, a volume alone the owner's first backfill, and new
/// calls in numbers their quarterly audit.
const REVOKE_ALONE_FROM: f64 = 4.0;
/// Nor where so many users' tokens turn up together: a scan by one's own people or an application's move looks like a
/// campaign, and one question to one person tells them apart.
const REVOKE_COMPANY: usize = 3;
/// Nor before the suspect has called so often in a visit: whoever tries a company's tokens, one call each, is asked first.
const REVOKE_CALLS: u32 = 3;
/// Visits of the population without which only the life cycle revokes.
const REVOKE_VISITS: u64 = 20_000;
/// What a verdict is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    pub log_odds: f64,
    /// The part that comes of the life cycle, where its rule speaks, and where it may not: then it takes no token away.
    pub lifecycle: f64,
    pub unspoken: f64,
    /// It is that the token was revoked already, and works.
    pub revoked_already: bool,
    /// What would be revoked has been already.
    pub dead: bool,
    /// The part that comes of others' tokens.
    pub fan: f64,
    /// The part that comes of calls amid the owner's own, where the owner is: nobody is shut out by revoking there.
    pub amid: f64,
    /// The part that comes of how much was called and answered.
    pub volume: f64,
    /// The part that comes of what was called by a holder who sits where the owner does.
    pub calls_at_home: f64,
    /// The token of a machine on servers is used where people are: a colleague's hands look like a thief's.
    pub in_hands: bool,
    /// Users whose tokens came new to the same place within two hours.
    pub company: usize,
    /// Calls of the visit so far.
    pub calls: u32,
}

/// The verdict on one event, before the alert budget.
#[must_use]
pub fn verdict(evidence: Evidence, threshold: f64, margin: f64, visits: u64) -> Verdict {
    let Evidence { log_odds, lifecycle, unspoken, fan, amid, volume, calls_at_home, company, calls, .. } = evidence;
    let behaviour = log_odds - unspoken - amid;
    let in_company = company >= REVOKE_COMPANY;
    let alone = behaviour - fan.max(volume + calls_at_home) > REVOKE_ALONE_FROM && !in_company;
    // What is dead is not killed again for what is done with it in vain.
    let asked_first = calls < REVOKE_CALLS || evidence.in_hands || evidence.dead;
    let by_behaviour = behaviour > REVOKE_FROM + margin && alone && !asked_first && visits >= REVOKE_VISITS;
    // Whoever tries all tokens of their company finds one that should not work, and nothing is lost by asking them.
    let certain = lifecycle >= LIFECYCLE_CERTAIN && !(evidence.revoked_already && in_company);
    if certain || by_behaviour {
        Verdict::Revoke
    } else if log_odds >= threshold {
        Verdict::Alert
    } else if log_odds >= WATCH_FROM || lifecycle >= WATCH_LIFECYCLE_FROM {
        Verdict::Watch
    } else {
        Verdict::Allow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(log_odds: f64) -> Evidence {
        Evidence {
            log_odds,
            lifecycle: 0.0,
            unspoken: 0.0,
            revoked_already: false,
            dead: false,
            fan: 0.0,
            amid: 0.0,
            volume: 0.0,
            calls_at_home: 0.0,
            in_hands: false,
            company: 1,
            calls: 3,
        }
    }

    #[test]
    fn a_verdict_is_as_grave_as_its_evidence() {
        let at = |log_odds| verdict(evidence(log_odds), 1.0, 3.0, 1_000_000);
        assert_eq!([-7.0, -2.0, 1.0, 9.9, 10.1].map(at), {
            use Verdict::{Alert, Allow, Revoke, Watch};
            [Allow, Watch, Alert, Alert, Revoke]
        });
    }

    #[test]
    fn behaviour_revokes_only_among_a_known_population_and_not_by_company_alone() {
        assert_eq!(verdict(evidence(12.0), 1.0, 3.0, 100), Verdict::Alert);
        let campaign = Evidence { fan: 9.0, ..evidence(12.0) };
        assert_eq!(verdict(campaign, 1.0, 3.0, 1_000_000), Verdict::Alert);
        let backfill = Evidence { volume: 9.0, ..evidence(12.0) };
        assert_eq!(verdict(backfill, 1.0, 3.0, 1_000_000), Verdict::Alert);
        let audit = Evidence { volume: 4.5, calls_at_home: 4.5, ..evidence(12.0) };
        assert_eq!(verdict(audit, 1.0, 3.0, 1_000_000), Verdict::Alert, "what is called and how much, at home");
        let guest = Evidence { amid: 3.0, ..evidence(12.0) };
        assert_eq!(verdict(guest, 1.0, 3.0, 1_000_000), Verdict::Alert);
        let scan = Evidence { company: 3, ..evidence(20.0) };
        assert_eq!(verdict(scan, 1.0, 3.0, 1_000_000), Verdict::Alert);
        let colleague = Evidence { in_hands: true, ..evidence(20.0) };
        assert_eq!(verdict(colleague, 1.0, 3.0, 1_000_000), Verdict::Alert, "who took the service's key home");
        let silenced = Evidence { unspoken: 14.0, ..evidence(15.0) };
        assert_eq!(verdict(silenced, 1.0, 3.0, 1_000_000), Verdict::Alert, "its rule is disabled");
        let dead = Evidence { dead: true, lifecycle: 5.0, ..evidence(20.0) };
        assert_eq!(verdict(dead, 1.0, 3.0, 1_000_000), Verdict::Alert, "and refused");
        let tried = Evidence { calls: 2, ..evidence(20.0) };
        assert_eq!(verdict(tried, 1.0, 3.0, 1_000_000), Verdict::Alert);
        let at_home = Evidence { lifecycle: 10.0, ..evidence(-4.0) };
        assert_eq!(verdict(at_home, 1.0, 3.0, 1_000_000), Verdict::Watch, "a key that is new at home");
        let copy = Evidence { lifecycle: 14.0, ..evidence(7.0) };
        assert_eq!(verdict(copy, 1.0, 3.0, 0), Verdict::Revoke);
        let found = Evidence { revoked_already: true, ..copy };
        assert_eq!(verdict(found, 1.0, 3.0, 0), Verdict::Revoke);
        assert_eq!(verdict(Evidence { company: 3, ..found }, 1.0, 3.0, 0), Verdict::Alert);
        assert_eq!(verdict(Evidence { company: 3, ..copy }, 1.0, 3.0, 0), Verdict::Revoke);
    }
}
