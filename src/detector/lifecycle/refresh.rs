//! Refresh tokens that are presented again after their exchange.

use super::formula::{AT_USUAL_PLACE, CERTAIN};
use crate::memory::baseline::{Presented, Refreshes};
use crate::millis::{MINUTE_MS, SECOND_MS};

/// Concurrent requests of one client arrive within this time (leeway of identity providers).
const RACE_MS: i64 = 30 * SECOND_MS;
/// The same if address and user agent both differ.
const RACE_ELSEWHERE_MS: i64 = 5 * SECOND_MS;
/// A client retries after a lost response within this time.
const RETRY_MS: i64 = 10 * MINUTE_MS;

/// Records that `token` is presented for refreshing, and returns the evidence.
///
/// A superseded token is presented only by a copy, with two exceptions: concurrent requests, and a lost response. After a
/// lost response the successor is unused, and the same client or address retries within minutes (RFC 9700 section
/// 4.14.2; leeways of Okta, Auth0 and Curity). If address and agent are those of the first exchange, the evidence is
/// [`AT_USUAL_PLACE`]: the client may have crashed before it stored the successor. A token that is presented repeatedly
/// and never superseded does not rotate, and gives no evidence.
pub(crate) fn refresh(refreshes: &mut Refreshes, token: u64, at: i64, address: u32, agent: u32) -> f64 {
    if refreshes.before.contains(&(token as u32)) {
        // The time at which the token was superseded is not stored. It is before the time of the second latest token. An
        // earlier presentation that is delivered late may be the first one.
        let [_, earlier] = refreshes.last;
        let known_since = if earlier.at == 0 { earlier.superseded_at } else { earlier.at };
        return if at > known_since { CERTAIN } else { 0.0 };
    }
    if let Some(known) = refreshes.last.iter_mut().find(|known| known.token == token) {
        // An unknown address counts as the same.
        let same_address = known.address == address || known.address == 0 || address == 0;
        let elsewhere = known.at != 0 && !same_address && known.agent != agent;
        let evidence = if same_address && known.agent == agent { AT_USUAL_PLACE } else { CERTAIN };
        if known.at == 0 {
            // First presentation of a token whose issue is known.
            (known.at, known.address, known.agent) = (at, address, agent);
            supersede_others(refreshes, token, at);
            return 0.0;
        }
        if known.superseded_at == 0 {
            // Later presentations are compared with the first one.
            known.lasting |= at - known.at > RETRY_MS;
            known.at = at;
            return 0.0;
        }
        let since = at - known.superseded_at;
        // Comparison in event time: the event of the successor may arrive first.
        let reused = if known.used_at != 0 && known.used_at < at {
            since > if elsewhere { RACE_ELSEWHERE_MS } else { RACE_MS }
        } else {
            since > RETRY_MS || elsewhere && since > RACE_ELSEWHERE_MS
        };
        return if reused { evidence } else { 0.0 };
    }
    insert(refreshes, Presented { token, at, address, agent, ..Presented::default() });
    supersede_others(refreshes, token, at);
    0.0
}

/// State of a refresh token in its grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshToken {
    /// The provider accepts it.
    Current,
    /// It was exchanged for another one.
    Superseded,
    Unknown,
}

pub(crate) fn standing(refreshes: &Refreshes, token: u64) -> RefreshToken {
    match refreshes.last.iter().find(|known| known.token == token) {
        Some(known) if known.superseded_at == 0 => RefreshToken::Current,
        Some(_) => RefreshToken::Superseded,
        None if refreshes.before.contains(&(token as u32)) => RefreshToken::Superseded,
        None => RefreshToken::Unknown,
    }
}

/// Time of the last presentation of the refresh token, milliseconds since the epoch.
pub(crate) fn presented_at(refreshes: &Refreshes, token: u64) -> Option<i64> {
    refreshes.last.iter().find(|known| known.token == token && known.at != 0).map(|known| known.at)
}

/// Records that `child`, another refresh token, was issued in exchange for `parent`.
pub(crate) fn succeed(refreshes: &mut Refreshes, parent: u64, child: u64, at: i64) {
    refreshes.chained = true;
    if parent == child || refreshes.before.contains(&(parent as u32)) {
        return;
    }
    if !refreshes.last.iter().any(|known| known.token == parent) {
        // This event arrived before that of the presentation.
        insert(refreshes, Presented { token: parent, superseded_at: at, ..Presented::default() });
    }
    for known in refreshes.last.iter_mut().filter(|known| known.token == parent && known.superseded_at == 0) {
        known.superseded_at = at;
    }
    if !refreshes.last.iter().any(|known| known.token == child) && !refreshes.before.contains(&(child as u32)) {
        insert(refreshes, Presented { token: child, ..Presented::default() });
    }
}

/// Records the first use of an access token in the family. It proves that the response of the last exchange arrived.
pub(crate) fn successor_used(refreshes: &mut Refreshes, at: i64) {
    for known in refreshes.last.iter_mut().filter(|known| known.at != 0 && known.at < at) {
        note_use(known, at);
    }
}

/// A presented token supersedes the tokens of the family that were presented before. It also proves that the response
/// with this token arrived. A non-rotating token is not superseded.
fn supersede_others(refreshes: &mut Refreshes, token: u64, at: i64) {
    for known in refreshes.last.iter_mut().filter(|known| known.token != token && known.at != 0 && !known.lasting) {
        if known.superseded_at == 0 {
            known.superseded_at = at;
        }
        note_use(known, at);
    }
}

const fn note_use(known: &mut Presented, at: i64) {
    if known.used_at == 0 || at < known.used_at {
        known.used_at = at;
    }
}

/// Stores a token as the latest one. It replaces a token that was issued and never presented, for example after a lost
/// response. Otherwise the second latest token moves to the list of earlier names.
fn insert(refreshes: &mut Refreshes, presented: Presented) {
    if let Some(unused) =
        refreshes.last.iter().position(|known| known.token != 0 && known.at == 0 && known.superseded_at == 0)
    {
        refreshes.last[unused] = presented;
        refreshes.last[..=unused].rotate_right(1);
        return;
    }
    let [_, leaving] = refreshes.last;
    if leaving.token != 0 && leaving.superseded_at != 0 {
        refreshes.before.rotate_right(1);
        refreshes.before[0] = leaving.token as u32;
    }
    refreshes.last = [presented, refreshes.last[0]];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::millis::HOUR_MS;

    const NOON: i64 = 1_790_000_000_000;

    /// A family that has exchanged token 1 for 2, at noon, from address 1 with agent 1.
    fn exchanged(used: bool) -> Refreshes {
        let mut family = Refreshes::default();
        assert!(refresh(&mut family, 1, NOON, 1, 1) < 1.0);
        succeed(&mut family, 1, 2, NOON);
        if used {
            successor_used(&mut family, NOON + SECOND_MS);
        }
        family
    }

    #[test]
    fn superseded_token_presented_again_is_a_copy() {
        for (used, after, address, agent, expected) in [
            (true, 10 * SECOND_MS, 1, 1, 0.0),
            (true, 40 * SECOND_MS, 2, 1, CERTAIN),
            (true, 40 * SECOND_MS, 1, 2, CERTAIN),
            (true, 10 * SECOND_MS, 2, 2, CERTAIN),
            (true, 10 * SECOND_MS, 2, 1, 0.0),
            (false, 5 * MINUTE_MS, 1, 1, 0.0),
            (false, 5 * MINUTE_MS, 2, 1, 0.0),
            (false, 5 * MINUTE_MS, 2, 2, CERTAIN),
            (false, 11 * MINUTE_MS, 2, 1, CERTAIN),
            // Same address and agent: the client may have crashed.
            (true, 40 * SECOND_MS, 1, 1, AT_USUAL_PLACE),
            (false, 11 * MINUTE_MS, 1, 1, AT_USUAL_PLACE),
        ] {
            let evidence = refresh(&mut exchanged(used), 1, NOON + after, address, agent);
            assert!(
                (evidence - expected).abs() < 1e-12,
                "used {used}, {after} ms later, from {address} with {agent}: {evidence}"
            );
        }
    }

    #[test]
    fn copy_presented_early_is_not_a_crashed_client() {
        // Without `issued` events: the copy is presented before and after the owner's next token.
        let mut family = Refreshes::default();
        for (token, after, place, expected) in [(1, 0, 1, 0.0), (1, 5, 2, 0.0), (2, 60, 1, 0.0), (1, 70, 2, CERTAIN)] {
            let evidence = refresh(&mut family, token, NOON + after * MINUTE_MS, place, place);
            assert!((evidence - expected).abs() < 1e-12, "{after} minutes after: {evidence}");
        }
    }

    #[test]
    fn old_superseded_tokens_are_still_detected() {
        let mut family = Refreshes::default();
        for number in 1..6_u64 {
            let at = NOON + number as i64 * HOUR_MS;
            assert!(refresh(&mut family, number, at, 1, 1) < 1.0);
            succeed(&mut family, number, number + 1, at);
            successor_used(&mut family, at + SECOND_MS);
        }
        for old in 1..5 {
            assert!(refresh(&mut family.clone(), old, NOON + 600 * MINUTE_MS, 1, 1) >= CERTAIN, "{old}");
        }
        assert!(refresh(&mut family, 6, NOON + 600 * MINUTE_MS, 9, 9) < 1.0, "the current token, from any place");
    }

    #[test]
    fn presented_token_supersedes_without_issued_events() {
        let mut family = Refreshes::default();
        refresh(&mut family, 1, NOON, 1, 1);
        refresh(&mut family, 2, NOON + HOUR_MS, 1, 1);
        assert!(refresh(&mut family, 1, NOON + 61 * MINUTE_MS, 2, 1) >= CERTAIN);
    }

    #[test]
    fn retried_exchange_may_issue_two_tokens() {
        let mut family = exchanged(false);
        succeed(&mut family, 1, 3, NOON + 10 * SECOND_MS);
        assert!(refresh(&mut family, 1, NOON + 10 * SECOND_MS, 1, 1) < 1.0, "a retry after a lost response");
        assert!(refresh(&mut family, 3, NOON + HOUR_MS, 1, 1) < 1.0);
        assert!(refresh(&mut family, 1, NOON + 61 * MINUTE_MS, 2, 1) >= CERTAIN);
    }

    #[test]
    fn refresh_evidence_ignores_order_of_arrival() {
        let mut family = Refreshes::default();
        // The first response arrives before its request, and the use of the second response before the second request.
        succeed(&mut family, 1, 2, NOON + 20);
        assert!(refresh(&mut family, 1, NOON, 1, 1) < 1.0);
        succeed(&mut family, 1, 3, NOON + MINUTE_MS);
        successor_used(&mut family, NOON + MINUTE_MS + 100);
        assert!(refresh(&mut family, 1, NOON + MINUTE_MS - 20, 1, 1) < 1.0, "a retry before the successor is used");
        assert!(
            refresh(&mut family, 1, NOON + 3 * MINUTE_MS, 2, 1) >= CERTAIN,
            "presented again after the use of the successor"
        );
    }

    #[test]
    fn non_rotating_token_gives_no_evidence() {
        let mut family = Refreshes::default();
        for hour in 0..50 {
            assert!(refresh(&mut family, 1, NOON + hour * HOUR_MS, hour as u32, hour as u32) < 1.0);
        }
        // A token of another device of the grant does not supersede a token that does not rotate.
        assert!(refresh(&mut family, 2, NOON + 51 * HOUR_MS, 1, 1) < 1.0);
        assert!(refresh(&mut family, 1, NOON + 52 * HOUR_MS, 1, 1) < 1.0);
    }

    #[test]
    fn late_event_of_first_presentation_is_no_reuse() {
        let mut refreshes = Refreshes::default();
        let hour = HOUR_MS;
        // The presentation of the first token arrives last. Until then it is known as the parent of the second.
        succeed(&mut refreshes, 1, 2, NOON);
        for (round, token) in (1..4).zip(2..) {
            assert!(refresh(&mut refreshes, token, NOON + round * hour, 1, 1) < 1.0);
            succeed(&mut refreshes, token, token + 1, NOON + round * hour + 20);
        }
        assert!(refreshes.before.contains(&1));
        assert!(refresh(&mut refreshes, 1, NOON - 20, 1, 1) < 1.0, "late");
        assert!(refresh(&mut refreshes, 1, NOON + 5 * hour, 2, 2) > 13.0, "a copy");
    }
}
