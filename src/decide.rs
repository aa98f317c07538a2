//! From log-odds to a verdict, an incident and an action.

pub(crate) mod budget;
pub(crate) mod incidents;
pub(crate) mod tail;
pub(crate) mod thresholds;

pub(crate) use budget::Budget;
pub(crate) use incidents::{Alert, Cause, Incidents};
pub(crate) use thresholds::Thresholds;

use crate::verdict::{LIFECYCLE_CERTAIN, Verdict};

/// Log-odds from which the verdict is at least `watch`.
const WATCH_FROM: f64 = -2.0;
/// Life-cycle evidence from which the verdict is at least `watch`, whatever the log-odds.
const WATCH_LIFECYCLE_FROM: f64 = 9.0;
/// A revocation by behaviour needs log-odds above this plus the configured margin.
const REVOKE_FROM: f64 = 5.0;
/// It also needs log-odds above this without the evidence of `fan`, and without `volume`. At the owner's place, also
/// without the evidence of routes. Otherwise a migration would be revoked for `fan`, the owner's first backfill for
/// `volume`, and a quarterly audit for `volume` and routes.
const REVOKE_ALONE_FROM: f64 = 4.0;
/// Behaviour does not revoke if this many users arrive together, unless the token's calls are unusual: a scan by the security
/// team or a migration looks like a campaign.
const REVOKE_ARRIVALS: usize = 3;
/// Evidence of unusual calls from which a token is revoked although others arrive with it.
const REVOKE_CALLS_FROM: f64 = 3.0;
/// Evidence of unusual calls from which the token of a machine on servers is revoked at other servers. A move of the machine
/// explains a new network and a new client, but not unusual calls (`docs/decisions/0050-revoking-after-a-move.md`).
const REVOKE_MOVED_CALLS_FROM: f64 = 4.0;
/// Behaviour does not revoke before this number of calls in a visit: a scan makes one call per token.
const REVOKE_CALLS: u32 = 2;
/// Behaviour does not revoke before this number of visits in the partition.
const REVOKE_VISITS: f64 = 20_000.0;

/// Inputs of a verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts about one event")]
pub(crate) struct Evidence {
    pub(crate) log_odds: f64,
    /// Life-cycle evidence if its rule fires, otherwise 0.
    pub(crate) lifecycle: f64,
    /// Life-cycle evidence if its rule does not fire, otherwise 0. It does not revoke.
    pub(crate) lifecycle_below_threshold: f64,
    /// The life-cycle evidence is the use of a revoked token.
    pub(crate) use_after_revocation: bool,
    /// The grant or token is already revoked.
    pub(crate) already_revoked: bool,
    /// Evidence of other users' tokens.
    pub(crate) fan: f64,
    /// Evidence of calls between the owner's calls, at the owner's place. It does not count towards a revocation.
    pub(crate) between: f64,
    /// Evidence of routes and areas, without `between`. A scan or a migration makes usual calls.
    pub(crate) unusual_calls: f64,
    /// Evidence of the number of calls and bytes.
    pub(crate) volume: f64,
    /// Evidence of routes and areas, at the owner's place.
    pub(crate) calls_at_usual_place: f64,
    /// A token of a machine on servers is used from an access network: an employee looks like a thief.
    pub(crate) by_hand: bool,
    /// A token of a machine on servers is used from other servers, which a move of the machine explains.
    pub(crate) moved: bool,
    /// Users who are new at the same place within two hours.
    pub(crate) arrivals: usize,
    /// Calls of the visit so far.
    pub(crate) calls: u32,
    /// The response does not show whether the credential was accepted.
    pub(crate) unchecked: bool,
}

/// Whether these log-odds and this life-cycle evidence give the verdict `allow`, whatever the other evidence.
pub(crate) fn is_quiet(log_odds: f64, lifecycle: f64) -> bool {
    log_odds < WATCH_FROM && lifecycle < WATCH_LIFECYCLE_FROM
}

/// The verdict on one event, before the alert budget.
pub(crate) fn verdict(evidence: Evidence, threshold: f64, margin: f64, visits: f64) -> Verdict {
    let Evidence {
        log_odds,
        lifecycle,
        lifecycle_below_threshold,
        fan,
        between,
        volume,
        calls_at_usual_place,
        arrivals,
        calls,
        ..
    } = evidence;
    let behaviour = log_odds - lifecycle_below_threshold - between;
    let in_company = arrivals >= REVOKE_ARRIVALS;
    let explained = in_company && evidence.unusual_calls < REVOKE_CALLS_FROM
        || evidence.moved && evidence.unusual_calls < REVOKE_MOVED_CALLS_FROM;
    let alone = behaviour - fan.max(volume + calls_at_usual_place) > REVOKE_ALONE_FROM && !explained;
    // A revoked grant is not revoked again because of rejected calls. Requests that anyone can send without the
    // credential do not revoke a grant.
    let needs_review = calls < REVOKE_CALLS || evidence.by_hand || evidence.already_revoked || evidence.unchecked;
    let by_behaviour = behaviour > REVOKE_FROM + margin && alone && !needs_review && visits >= REVOKE_VISITS;
    // A security team that tests all tokens of a company may use revoked ones.
    let certain = lifecycle >= LIFECYCLE_CERTAIN && !(evidence.use_after_revocation && in_company);
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
            lifecycle_below_threshold: 0.0,
            use_after_revocation: false,
            already_revoked: false,
            fan: 0.0,
            between: 0.0,
            unusual_calls: 0.0,
            volume: 0.0,
            calls_at_usual_place: 0.0,
            by_hand: false,
            moved: false,
            arrivals: 1,
            calls: 3,
            unchecked: false,
        }
    }

    #[test]
    fn behaviour_revokes_by_checked_credentials_only() {
        let with = |lifecycle, unchecked| verdict(Evidence { lifecycle, unchecked, ..evidence(15.0) }, 1.0, 3.0, 1e6);
        assert_eq!([with(0.0, false), with(0.0, true)], [Verdict::Revoke, Verdict::Alert]);
        assert_eq!(with(LIFECYCLE_CERTAIN, true), Verdict::Revoke, "life-cycle evidence revokes without a status");
    }

    #[test]
    fn verdict_rises_with_the_log_odds() {
        let at = |log_odds| verdict(evidence(log_odds), 1.0, 3.0, 1e6);
        assert_eq!([-7.0, -2.0, 1.0, 7.9, 8.1].map(at), {
            use Verdict::{Alert, Allow, Revoke, Watch};
            [Allow, Watch, Alert, Alert, Revoke]
        });
    }

    #[test]
    fn behaviour_alone_raises_an_alert_in_unclear_cases() {
        assert_eq!(verdict(evidence(12.0), 1.0, 3.0, 100.0), Verdict::Alert);
        let campaign = Evidence { fan: 9.0, ..evidence(12.0) };
        assert_eq!(verdict(campaign, 1.0, 3.0, 1e6), Verdict::Alert);
        let backfill = Evidence { volume: 9.0, ..evidence(12.0) };
        assert_eq!(verdict(backfill, 1.0, 3.0, 1e6), Verdict::Alert);
        let audit = Evidence { volume: 4.5, calls_at_usual_place: 4.5, ..evidence(12.0) };
        assert_eq!(verdict(audit, 1.0, 3.0, 1e6), Verdict::Alert, "volume and routes at the usual place");
        let guest = Evidence { between: 5.0, ..evidence(12.0) };
        assert_eq!(verdict(guest, 1.0, 3.0, 1e6), Verdict::Alert);
        let scan = Evidence { arrivals: 3, ..evidence(20.0) };
        assert_eq!(verdict(scan, 1.0, 3.0, 1e6), Verdict::Alert);
        let theft = Evidence { unusual_calls: 3.0, ..scan };
        assert_eq!(verdict(theft, 1.0, 3.0, 1e6), Verdict::Revoke, "calls that the user does not make");
        let moved = Evidence { moved: true, unusual_calls: 3.9, ..evidence(20.0) };
        assert_eq!(verdict(moved, 1.0, 3.0, 1e6), Verdict::Alert, "a machine moves to other servers");
        let elsewhere = Evidence { unusual_calls: 4.0, ..moved };
        assert_eq!(verdict(elsewhere, 1.0, 3.0, 1e6), Verdict::Revoke, "calls that the machine does not make");
        let colleague = Evidence { by_hand: true, ..evidence(20.0) };
        assert_eq!(verdict(colleague, 1.0, 3.0, 1e6), Verdict::Alert, "an employee with a service's token");
        let disabled = Evidence { lifecycle_below_threshold: 14.0, ..evidence(15.0) };
        assert_eq!(verdict(disabled, 1.0, 3.0, 1e6), Verdict::Alert, "its rule is disabled");
        let revoked = Evidence { already_revoked: true, lifecycle: 5.0, ..evidence(20.0) };
        assert_eq!(verdict(revoked, 1.0, 3.0, 1e6), Verdict::Alert, "the grant is revoked already");
        let tried = Evidence { calls: 1, ..evidence(20.0) };
        assert_eq!(verdict(tried, 1.0, 3.0, 1e6), Verdict::Alert);
        let usual_place = Evidence { lifecycle: 10.0, ..evidence(-4.0) };
        assert_eq!(verdict(usual_place, 1.0, 3.0, 1e6), Verdict::Watch, "a new key at the usual place");
        let copy = Evidence { lifecycle: 14.0, ..evidence(7.0) };
        assert_eq!(verdict(copy, 1.0, 3.0, 0.0), Verdict::Revoke);
        let found = Evidence { use_after_revocation: true, ..copy };
        assert_eq!(verdict(found, 1.0, 3.0, 0.0), Verdict::Revoke);
        assert_eq!(verdict(Evidence { arrivals: 3, ..found }, 1.0, 3.0, 0.0), Verdict::Alert);
        assert_eq!(verdict(Evidence { arrivals: 3, ..copy }, 1.0, 3.0, 0.0), Verdict::Revoke);
    }
}
