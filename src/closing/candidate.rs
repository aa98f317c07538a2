//! An incident that may be closed, and the summary of what was done.

use std::fmt::Write as _;

use crate::millis::{HOUR_MS, rfc3339};
use crate::number::grouped;
use crate::verdict::IncidentId;

/// Minimum time after the last change of an incident, so that late events arrive.
const QUIET_MS: i64 = HOUR_MS;
/// Incidents with more grants and tokens are left to analysts.
const SUBJECTS_MAX: usize = 100;

/// A grant, or a token without a grant, of an incident.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RevokedGrant {
    pub(super) tenant_id: String,
    pub(super) id: GrantId,
    /// Key of its baseline, a decimal number.
    pub(super) baseline: String,
    /// Time of the last revocation, milliseconds since the epoch. `None`: it was not revoked.
    pub(super) revoked_at: Option<i64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum GrantId {
    Family(String),
    Token(String),
}

/// An incident with at least one revocation. Times are milliseconds since the epoch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) incident: IncidentId,
    pub(super) opened_at: i64,
    /// Time at which its last change was stored.
    pub(super) changed_at: i64,
    /// Of the last change of the work on it. 0 without one.
    pub(super) version: u32,
    pub(super) assignee: String,
    pub(super) grants: Vec<RevokedGrant>,
}

impl Candidate {
    /// Time of the last revocation. `None`: a grant was not revoked.
    pub(super) fn revoked_at(&self) -> Option<i64> {
        let times: Option<Vec<i64>> = self.grants.iter().map(|grant| grant.revoked_at).collect();
        times?.into_iter().max()
    }

    /// Whether every grant was revoked and the wait is over at `now`. The expiry of an access token does not shorten the
    /// wait, because a refresh token of the same grant may live longer. Rows of `actions` from before migration 11 have no
    /// tenant, so an incident of several tenants never closes.
    pub(super) fn may_close(&self, now: i64, wait_ms: i64) -> bool {
        let Some(revoked_at) = self.revoked_at() else { return false };
        let has_one_tenant = self.grants.windows(2).all(|pair| pair[0].tenant_id == pair[1].tenant_id);
        let is_over = now >= revoked_at + wait_ms && now >= self.changed_at + QUIET_MS;
        is_over && has_one_tenant && self.grants.len() <= SUBJECTS_MAX
    }

    /// What happened, when, what was done, and what was verified. It contains no value of an event.
    pub(super) fn summary(&self, now: i64) -> String {
        let revoked: Vec<i64> = self.grants.iter().filter_map(|grant| grant.revoked_at).collect();
        let (first, last) = (revoked.iter().min().copied(), revoked.iter().max().copied());
        // A token whose baseline changed has several rows.
        let same = |a: &RevokedGrant, b: &RevokedGrant| (&a.tenant_id, &a.id) == (&b.tenant_id, &b.id);
        let grants = match self.grants.chunk_by(same).count() {
            1 => "1 grant or token".to_owned(),
            count => format!("{} grants or tokens", grouped(count as u64)),
        };
        let mut text = format!("Opened {}. Revoked: {grants}", rfc3339(self.opened_at));
        if let (Some(first), Some(last)) = (first, last) {
            let _ = if first == last {
                write!(text, ", {}", rfc3339(first))
            } else {
                write!(text, ", {} to {}", rfc3339(first), rfc3339(last))
            };
        }
        let until = rfc3339(now);
        let _ = write!(text, ". Verified: the store has no accepted use of them after the revocation, as of {until}.");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::millis::DAY_MS;

    const WEEK: i64 = 7 * DAY_MS;

    fn grant(revoked_at: Option<i64>) -> RevokedGrant {
        RevokedGrant {
            tenant_id: "tenant-1".to_owned(),
            id: GrantId::Family("grant-1".to_owned()),
            baseline: "5".to_owned(),
            revoked_at,
        }
    }

    fn candidate(grants: Vec<RevokedGrant>) -> Candidate {
        Candidate {
            incident: IncidentId(0x42),
            opened_at: 0,
            changed_at: 0,
            version: 0,
            assignee: String::new(),
            grants,
        }
    }

    fn closes_at(candidate: &Candidate, at: i64) -> bool {
        !candidate.may_close(at - 1, WEEK) && candidate.may_close(at, WEEK)
    }

    #[test]
    fn incident_waits_after_last_revocation_and_change() {
        assert!(closes_at(&candidate(vec![grant(Some(1_000))]), 1_000 + WEEK));
        assert!(closes_at(&candidate(vec![grant(Some(2_000)), grant(Some(1_000))]), 2_000 + WEEK), "the last one");
        let changed = Candidate { changed_at: 20 * DAY_MS, ..candidate(vec![grant(Some(1_000))]) };
        assert!(closes_at(&changed, 20 * DAY_MS + HOUR_MS), "it has changed since");
    }

    #[test]
    fn unrevoked_grant_or_second_tenant_keeps_incident_open() {
        let of_other = RevokedGrant { tenant_id: "tenant-2".to_owned(), ..grant(Some(1_000)) };
        let (first, many) = (grant(Some(1_000)), vec![grant(Some(1_000)); SUBJECTS_MAX + 1]);
        for grants in [vec![first.clone(), grant(None)], vec![first, of_other], Vec::new(), many] {
            assert!(!candidate(grants.clone()).may_close(i64::MAX, WEEK), "{grants:?}");
        }
    }

    #[test]
    fn summary_has_times_and_numbers() {
        let id = GrantId::Token("token-2".to_owned());
        let grants = vec![grant(Some(1_000)), RevokedGrant { id, ..grant(Some(61_000)) }];
        assert_eq!(
            candidate(grants).summary(WEEK),
            "Opened 1970-01-01T00:00:00Z. Revoked: 2 grants or tokens, 1970-01-01T00:00:01Z to 1970-01-01T00:01:01Z. \
             Verified: the store has no accepted use of them after the revocation, as of 1970-01-08T00:00:00Z."
        );
    }
}
