//! The time for which a revoked token or grant is denied.

use std::collections::BTreeMap;

use crate::event::{Timestamp, TokenType};
use crate::millis::DAY_MS;
use crate::verdict::Target;

/// Maximum time for which a target is denied. The topic keeps its records for longer.
const DENIED_MS_MAX: i64 = 365 * DAY_MS;

/// Times for which targets are denied, milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lifetimes {
    /// At least this time.
    pub(crate) least: i64,
    /// Tokens of these types.
    pub(crate) of_type: BTreeMap<TokenType, i64>,
}

impl Lifetimes {
    /// End of a denial that begins at `at`, both milliseconds since the epoch. A grant may have tokens of all types, and the
    /// type [`TokenType::Other`] may be any, so both have the longest time. `expires_at`, which the sender of an event
    /// chooses, can only lengthen the denial.
    pub(crate) fn until(&self, at: i64, target: &Target, token_type: TokenType, expires_at: Option<Timestamp>) -> i64 {
        let longest = || self.of_type.values().copied().max();
        let of_type = match (target, token_type) {
            (Target::Family(_), _) | (_, TokenType::Other) => longest(),
            (Target::Token(_), known) => self.of_type.get(&known).copied(),
        };
        let configured = at.saturating_add(of_type.unwrap_or(0).max(self.least));
        let learnt = expires_at.map_or(i64::MIN, Timestamp::millis);
        configured.max(learnt).min(at.saturating_add(DENIED_MS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::millis::HOUR_MS;

    #[test]
    fn denial_does_not_end_before_the_token() {
        let of_type = BTreeMap::from([(TokenType::ApiKey, 100 * HOUR_MS), (TokenType::Refresh, 9 * HOUR_MS)]);
        let lifetimes = Lifetimes { least: 2 * HOUR_MS, of_type };
        let (token, grant) = (Target::Token("t".to_owned()), Target::Family("g".to_owned()));
        let until = |target: &Target, token_type, expires_at: Option<i64>| {
            lifetimes.until(0, target, token_type, expires_at.and_then(Timestamp::from_millis)) / HOUR_MS
        };
        assert_eq!(until(&token, TokenType::Access, None), 2, "the least");
        assert_eq!(until(&token, TokenType::ApiKey, None), 100);
        assert_eq!(until(&token, TokenType::Other, None), 100, "it may be any type");
        assert_eq!(until(&grant, TokenType::Access, None), 100, "it may have tokens of any type");
        assert_eq!(until(&token, TokenType::Access, Some(HOUR_MS)), 2, "an event does not shorten it");
        assert_eq!(until(&token, TokenType::Access, Some(7 * HOUR_MS)), 7);
        assert_eq!(until(&token, TokenType::Access, Some(Timestamp::MAX.millis())), 365 * 24, "an invented expiry");
        let plain = Lifetimes { least: 2 * HOUR_MS, of_type: BTreeMap::new() };
        assert_eq!(plain.until(5, &grant, TokenType::Other, None), 5 + 2 * HOUR_MS);
        assert_eq!(plain.until(i64::MAX, &grant, TokenType::Other, None), i64::MAX);
    }
}
