//! An incident that may be closed, and the summary of what was done.

use std::fmt::Write as _;

use crate::millis::{HOUR_MS, rfc3339};
use crate::number::grouped;
use crate::verdict::IncidentId;

/// Minimum time between the last revocation and the closing, so that late events arrive.
const WAIT_MS_MIN: i64 = HOUR_MS;

/// A grant, or a token without a grant, of an incident. Times are milliseconds since the epoch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Subject {
    /// Time of the revocation. `None`: it was not revoked.
    pub(super) revoked: Option<i64>,
    /// Last use whose credential was not refused.
    pub(super) used: Option<i64>,
    /// The latest expiry of its tokens.
    pub(super) expires: Option<i64>,
}

/// An incident with at least one revocation, that is not resolved.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) incident: IncidentId,
    pub(super) opened_at: i64,
    /// Time at which its last change was stored.
    pub(super) changed_at: i64,
    /// Of the last change of the work on it. 0 without one.
    pub(super) version: u32,
    pub(super) assignee: String,
    pub(super) subjects: Vec<Subject>,
}

impl Candidate {
    /// Whether every grant was revoked and not used afterwards, and the wait is over. `after_ms`: the wait if the expiry is
    /// later or unknown.
    pub(super) fn may_close(&self, now: i64, after_ms: i64) -> bool {
        let is_over = |subject: &Subject| {
            let Some(revoked_at) = subject.revoked else { return false };
            let latest = revoked_at + after_ms.max(WAIT_MS_MIN);
            let expires_at = subject.expires.unwrap_or(latest).clamp(revoked_at + WAIT_MS_MIN, latest);
            subject.used.is_none_or(|used_at| used_at <= revoked_at) && now >= expires_at
        };
        !self.subjects.is_empty() && self.subjects.iter().all(is_over) && now >= self.changed_at + WAIT_MS_MIN
    }

    /// What happened, when, what was done, and what was verified. It contains no value of an event.
    pub(super) fn summary(&self, now: i64) -> String {
        let revoked: Vec<i64> = self.subjects.iter().filter_map(|subject| subject.revoked).collect();
        let (first, last) = (revoked.iter().min().copied(), revoked.iter().max().copied());
        let grants = match self.subjects.len() {
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

    fn subject() -> Subject {
        Subject { revoked: Some(1_000), used: Some(1_000), expires: None }
    }

    fn candidate(subjects: Vec<Subject>) -> Candidate {
        Candidate {
            incident: IncidentId(0x42),
            opened_at: 0,
            changed_at: 0,
            version: 0,
            assignee: String::new(),
            subjects,
        }
    }

    fn closes_at(candidate: &Candidate, at: i64) -> bool {
        !candidate.may_close(at - 1, WEEK) && candidate.may_close(at, WEEK)
    }

    #[test]
    fn incident_closes_at_the_last_expiry_or_after_a_time() {
        assert!(closes_at(&candidate(vec![subject()]), 1_000 + WEEK), "without an expiry");
        let expires = |expires_at| Subject { expires: Some(expires_at), ..subject() };
        assert!(closes_at(&candidate(vec![expires(2 * DAY_MS)]), 2 * DAY_MS));
        assert!(closes_at(&candidate(vec![expires(2 * DAY_MS), expires(3 * DAY_MS)]), 3 * DAY_MS), "the last expiry");
        assert!(closes_at(&candidate(vec![expires(5)]), 1_000 + HOUR_MS), "late events may arrive");
        assert!(closes_at(&candidate(vec![expires(90 * DAY_MS)]), 1_000 + WEEK), "the expiry is too late");
        let changed = Candidate { changed_at: 20 * DAY_MS, ..candidate(vec![subject()]) };
        assert!(closes_at(&changed, 20 * DAY_MS + HOUR_MS), "it has changed since");
    }

    #[test]
    fn incident_with_a_use_or_an_open_revocation_stays_open() {
        let used = Subject { used: Some(1_001), ..subject() };
        let not_revoked = Subject { revoked: None, ..subject() };
        for subjects in [vec![subject(), used], vec![subject(), not_revoked], Vec::new()] {
            assert!(!candidate(subjects.clone()).may_close(i64::MAX, WEEK), "{subjects:?}");
        }
        assert!(candidate(vec![Subject { used: None, ..subject() }]).may_close(i64::MAX, WEEK));
    }

    #[test]
    fn summary_has_times_and_numbers() {
        let second = Subject { revoked: Some(61_000), ..subject() };
        assert_eq!(
            candidate(vec![subject(), second]).summary(WEEK),
            "Opened 1970-01-01T00:00:00Z. Revoked: 2 grants or tokens, 1970-01-01T00:00:01Z to 1970-01-01T00:01:01Z. \
             Verified: the store has no accepted use of them after the revocation, as of 1970-01-08T00:00:00Z."
        );
    }
}
