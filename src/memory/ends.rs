//! Ends of tokens, grants and sessions, as reported by providers.

use std::num::NonZeroI64;

use serde::{Deserialize, Serialize};

use super::generations::Generations;
use super::limits::Limits;
use super::usage::Usage;

const TOKENS_MAX: usize = 1 << 20;
const ALL_MAX: usize = 1 << 18;
const GRANTS_MAX: usize = 1 << 18;
const ALIASES_MAX: usize = 1 << 20;
const EXCHANGED_MAX: usize = 1 << 20;

/// Times of revocation and end of session, milliseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) revoked_at: Option<NonZeroI64>,
    pub(crate) session_ended_at: Option<NonZeroI64>,
}

impl Ended {
    pub(crate) const fn revoked(at: i64) -> Self {
        Self { revoked_at: NonZeroI64::new(at), session_ended_at: None }
    }

    pub(crate) const fn session_ended(at: i64) -> Self {
        Self { revoked_at: None, session_ended_at: NonZeroI64::new(at) }
    }

    /// The earlier revocation and the earlier end of a session.
    pub(crate) fn earlier(self, other: Self) -> Self {
        self.with(other, |one, other| one.into_iter().chain(other).min())
    }

    /// The later revocation and the later end of a session.
    fn later(self, other: Self) -> Self {
        self.with(other, Ord::max)
    }

    fn with(self, other: Self, choose: impl Fn(Option<NonZeroI64>, Option<NonZeroI64>) -> Option<NonZeroI64>) -> Self {
        Self {
            revoked_at: choose(self.revoked_at, other.revoked_at),
            session_ended_at: choose(self.session_ended_at, other.session_ended_at),
        }
    }

    /// The ends after `since`.
    pub(crate) fn after(self, since: i64) -> Self {
        let after = |at: Option<NonZeroI64>| at.filter(|at| since < at.get());
        Self { revoked_at: after(self.revoked_at), session_ended_at: after(self.session_ended_at) }
    }

    fn no_later_than(self, latest: i64) -> Self {
        let limited = |at: Option<NonZeroI64>| at.and_then(|at| NonZeroI64::new(at.get().min(latest)));
        Self { revoked_at: limited(self.revoked_at), session_ended_at: limited(self.session_ended_at) }
    }
}

/// End of a grant by revocation of its refresh token (RFC 7009 section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndedGrant {
    /// Milliseconds since the epoch.
    pub(crate) at: i64,
    /// Key of the refresh token that was revoked.
    pub(crate) by: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ends {
    /// Ends of tokens and of sessions, by key.
    tokens: Generations<Ended>,
    /// Ends of all tokens or all sessions of a user or an application, by key.
    all: Generations<Ended>,
    /// Ends of grants, by key of the baseline.
    grants: Generations<EndedGrant>,
    /// The other name of a token if its provider uses two, in both directions.
    aliases: Generations<u64>,
    /// Refresh tokens that were exchanged. The grant itself stores only the last ten.
    exchanged: Generations<()>,
}

impl Default for Ends {
    fn default() -> Self {
        Self {
            tokens: Generations::new(TOKENS_MAX),
            all: Generations::new(ALL_MAX),
            grants: Generations::new(GRANTS_MAX),
            aliases: Generations::new(ALIASES_MAX),
            exchanged: Generations::new(EXCHANGED_MAX),
        }
    }
}

impl Ends {
    /// Upper limit of the bytes of all tables.
    pub(crate) const BYTES_MAX: usize = Generations::<Ended>::bytes_of(TOKENS_MAX)
        + Generations::<Ended>::bytes_of(ALL_MAX)
        + Generations::<EndedGrant>::bytes_of(GRANTS_MAX)
        + Generations::<u64>::bytes_of(ALIASES_MAX)
        + Generations::<()>::bytes_of(EXCHANGED_MAX);

    /// Changes the maximum of each table.
    pub(crate) fn limit(&mut self, limits: &Limits) {
        self.tokens.limit(limits.scaled(TOKENS_MAX));
        self.all.limit(limits.scaled(ALL_MAX));
        self.grants.limit(limits.scaled(GRANTS_MAX));
        self.aliases.limit(limits.scaled(ALIASES_MAX));
        self.exchanged.limit(limits.scaled(EXCHANGED_MAX));
    }

    pub(crate) fn usage(&self) -> Usage {
        let Self { tokens, all, grants, aliases, exchanged } = self;
        Usage::of_all([tokens.usage(), all.usage(), grants.usage(), aliases.usage(), exchanged.usage()])
    }

    /// Whether nothing has ended yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.all.is_empty()
    }

    /// All tokens or sessions of some user or application have ended.
    pub(crate) fn has_all(&self) -> bool {
        !self.all.is_empty()
    }

    /// End of the token or session of `key`. An end after `latest` was stored under a wrong clock and is limited to
    /// `latest`.
    pub(crate) fn of(&mut self, key: u64, latest: i64) -> Ended {
        limited(&mut self.tokens, key, latest)
    }

    /// The last end of all tokens or sessions of the user or application of `key`, limited likewise.
    pub(crate) fn of_all(&mut self, key: u64, latest: i64) -> Ended {
        limited(&mut self.all, key, latest)
    }

    /// End of the grant of `key`.
    pub(crate) fn of_grant(&mut self, key: u64, latest: i64) -> Option<EndedGrant> {
        let found = self.grants.get(key)?;
        let ended = EndedGrant { at: found.at.min(latest), ..*found };
        if *found != ended {
            self.grants.insert(key, ended);
        }
        Some(ended)
    }

    /// Records the revocation of the token of `key`. The earliest time counts.
    pub(crate) fn revoke(&mut self, key: u64, at: i64) {
        let ended = self.tokens.entry(key, Ended::default);
        *ended = ended.earlier(Ended::revoked(at));
    }

    /// Records the end of the session of `key`. The earliest time counts.
    pub(crate) fn end_session(&mut self, key: u64, at: i64) {
        let ended = self.tokens.entry(key, Ended::default);
        *ended = ended.earlier(Ended::session_ended(at));
    }

    /// Records the revocation of all tokens that the user or application of `key` has at that time. The latest time
    /// counts: tokens issued since an earlier one end with it.
    pub(crate) fn revoke_all(&mut self, key: u64, at: i64) {
        let ended = self.all.entry(key, Ended::default);
        *ended = ended.later(Ended::revoked(at));
    }

    /// Records the end of all sessions that the user or application of `key` has at that time. The latest time counts.
    pub(crate) fn end_all_sessions(&mut self, key: u64, at: i64) {
        let ended = self.all.entry(key, Ended::default);
        *ended = ended.later(Ended::session_ended(at));
    }

    /// Removes the end under `key`: the provider has reinstated it.
    pub(crate) fn reinstate(&mut self, key: u64) {
        self.tokens.remove(key);
    }

    /// Removes the end of all tokens and sessions of the user or application of `key`.
    pub(crate) fn reinstate_all(&mut self, key: u64) {
        self.all.remove(key);
    }

    /// Records that two keys belong to one token. The last pair counts.
    pub(crate) fn join(&mut self, key: u64, alias: u64) {
        if self.alias(key) != Some(alias) {
            self.aliases.insert(key, alias);
        }
        if self.alias(alias) != Some(key) {
            self.aliases.insert(alias, key);
        }
    }

    /// Returns the other key of a token.
    pub(crate) fn alias(&self, key: u64) -> Option<u64> {
        self.aliases.get(key).copied()
    }

    /// Records the end of the grant of `key`. The earliest time counts.
    pub(crate) fn end_grant(&mut self, key: u64, end: EndedGrant) {
        let ended = self.grants.entry(key, || end);
        if end.at < ended.at {
            *ended = end;
        }
    }

    /// Removes the end of the grant of `key`.
    pub(crate) fn revive_grant(&mut self, key: u64) {
        self.grants.remove(key);
    }

    /// Records that the refresh token of `key` was presented, or that another one was issued for it.
    pub(crate) fn exchange(&mut self, key: u64) {
        self.exchanged.insert(key, ());
    }

    pub(crate) fn was_exchanged(&self, key: u64) -> bool {
        self.exchanged.get(key).is_some()
    }
}

/// The end of `key`, with times after `latest` limited to it.
fn limited(ends: &mut Generations<Ended>, key: u64, latest: i64) -> Ended {
    let Some(found) = ends.get(key) else { return Ended::default() };
    let ended = found.no_later_than(latest);
    if *found != ended {
        ends.insert(key, ended);
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_counts_from_its_earliest_report() {
        let mut ends = Ends::default();
        for at in [30, 20, 40] {
            ends.revoke(1, at);
            ends.end_session(2, at);
            ends.end_grant(3, EndedGrant { at, by: at as u64 });
        }
        assert_eq!(ends.of(1, i64::MAX), Ended::revoked(20));
        assert_eq!(ends.of(2, i64::MAX), Ended::session_ended(20));
        assert_eq!(ends.of_grant(3, i64::MAX), Some(EndedGrant { at: 20, by: 20 }));
        ends.revive_grant(3);
        assert_eq!(ends.of_grant(3, i64::MAX), None);
    }

    #[test]
    fn end_of_all_sessions_counts_from_its_latest_report() {
        let mut ends = Ends::default();
        for at in [20, 40, 30] {
            ends.end_all_sessions(1, at);
            ends.revoke_all(2, at);
        }
        assert_eq!(ends.of_all(1, i64::MAX), Ended::session_ended(40));
        assert_eq!(ends.of_all(2, i64::MAX), Ended::revoked(40));
        assert_eq!(ends.of(1, i64::MAX), Ended::default(), "a session with the same key");
        ends.reinstate_all(2);
        assert_eq!(ends.of_all(2, i64::MAX), Ended::default());
    }

    #[test]
    fn end_ahead_of_the_clock_is_no_later_than_the_clock() {
        let mut ends = Ends::default();
        ends.revoke(1, 900);
        ends.end_grant(1, EndedGrant { at: 900, by: 7 });
        assert_eq!(ends.of(1, 100), Ended::revoked(100));
        assert_eq!(ends.of(1, 500), Ended::revoked(100), "the limited time is stored");
        assert_eq!(ends.of_grant(1, 100), Some(EndedGrant { at: 100, by: 7 }));
    }
}
