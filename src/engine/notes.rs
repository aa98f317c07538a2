//! What is noted of a token without anybody using it: that it was issued, replaced, revoked or confirmed.

use super::{State, Subject, learn};
use crate::enrichment::{EnrichedEvent, Keys};
use crate::event::{Event, Kind, TokenType};
use crate::memory::ends::{EndedGrant, Ends, earlier};
use crate::memory::{Ended, Memory};
use crate::term::lifecycle::{self, Answer, Expiry, RefreshToken};

/// A provider that revokes the old refresh token at each rotation does so within this of its being presented.
const ROTATION_MS: i64 = 60_000;
/// A token that is issued so long after the end of its grant shows that the grant goes on.
const ISSUED_AFTER_MS: i64 = 30_000;

/// Takes in what happened to a token without anybody using it.
pub fn take_note(state: &mut State, event: &Event<'_>, keys: &Keys, subject: Subject) {
    let memory = &mut state.memory;
    let Subject { baseline, at, .. } = subject;
    match event.kind {
        Kind::Use | Kind::Refreshed => {}
        Kind::Issued => issued(memory, event, keys, subject),
        Kind::Revoked => revoked(memory, event, keys, subject),
        Kind::SessionEnded => memory.ends.end_session(session_key(event, keys).unwrap_or(keys.token), at),
        Kind::Confirmed => {
            if !state.settings.confirmed {
                return;
            }
            let Some(baseline) = memory.baselines.get_mut(baseline) else { return };
            let suspected = baseline.contexts.iter().map(|holder| holder.log_odds.get()).fold(f64::MIN, f64::max);
            state.counters.confirmed += 1;
            state.counters.confirmed_alarms += u64::from(suspected >= state.budget.threshold());
            learn::confirm(baseline, at);
        }
        Kind::CredentialChanged => {
            if let Some(user) = keys.user {
                memory.users.entry(user, at).change_credential(at, state.clock.latest());
            }
        }
    }
}

fn issued(memory: &mut Memory, event: &Event<'_>, keys: &Keys, subject: Subject) {
    let Subject { baseline, at, timed, .. } = subject;
    let (token, is_refresh) = (keys.token, event.token_type == TokenType::Refresh);
    // With a refresh token producers often name the end of the access token beside it (`expires_in`, RFC 6749 section
    // 5.1). An expiry before its issue is a mistake, as is one by a clock that is wrong.
    if let Some(expires_at) = event.expires_at
        && !is_refresh
        && timed
        && expires_at > event.timestamp
    {
        memory.expiries.insert(token, expires_at.millis());
    }
    let parent = event.parent_token_id.as_ref().map(|parent| keys.scope.key(b't', parent.as_str()));
    let mut family = baseline;
    if let Some(parent) = parent
        && event.family_id.is_none()
    {
        family = memory.lineages.get(parent).copied().unwrap_or(parent);
        memory.lineages.insert(token, family);
        memory.lineages.insert(parent, family);
    }
    let ended = memory.ends.of_grant(family, i64::MAX);
    let goes_on = |end: EndedGrant| is_refresh && parent == Some(end.by) || at > end.at + ISSUED_AFTER_MS;
    if ended.is_some_and(goes_on) {
        memory.ends.revive_grant(family);
    }
    let (Some(parent), true) = (parent, is_refresh) else { return };
    memory.ends.exchange(parent);
    let Some(baseline) = memory.baselines.get_mut(family) else { return };
    let refreshes = baseline.refreshes.get_or_insert_default();
    lifecycle::succeed(refreshes, parent, token, at);
    // Its revocation may be reported before its issue.
    let revoked_at = memory.ends.of(token, i64::MAX).revoked_at;
    if revoked_at >= at && lifecycle::standing(refreshes, token) == RefreshToken::Current {
        memory.ends.end_grant(family, EndedGrant { at: revoked_at, by: token });
    }
}

fn revoked(memory: &mut Memory, event: &Event<'_>, keys: &Keys, subject: Subject) {
    let Subject { baseline, at, .. } = subject;
    memory.ends.revoke(keys.token, at);
    if ends_grant(memory, event, keys, subject) {
        memory.ends.end_grant(baseline, EndedGrant { at, by: keys.token });
    }
}

/// Whether the revocation of a token ends its grant: that of its current refresh token does (RFC 7009 section 2.1). The
/// one of an access token, or of a refresh token that was exchanged, ends nothing but that token.
fn ends_grant(memory: &Memory, event: &Event<'_>, keys: &Keys, Subject { baseline, at, .. }: Subject) -> bool {
    let refreshes = memory.baselines.find(baseline).and_then(|place| memory.baselines.get(place).refreshes.as_deref());
    let standing = refreshes.map_or(RefreshToken::Unknown, |refreshes| lifecycle::standing(refreshes, keys.token));
    match standing {
        RefreshToken::Superseded => false,
        RefreshToken::Current => {
            // Where its successor is not reported, it is the provider that takes away what was exchanged.
            let presented_at = refreshes.and_then(|refreshes| lifecycle::presented_at(refreshes, keys.token));
            presented_at.is_none_or(|presented| (at - presented).abs() > ROTATION_MS)
        }
        // Where successors are reported, one that is not known is older than what is remembered, or its report is still to
        // come.
        RefreshToken::Unknown => {
            event.token_type == TokenType::Refresh
                && !memory.ends.was_exchanged(keys.token)
                && !refreshes.is_some_and(|refreshes| refreshes.chained)
        }
    }
}

fn session_key(event: &Event<'_>, keys: &Keys) -> Option<u64> {
    event.session_id.as_deref().map(|session| keys.scope.key(b's', session))
}

/// When what an event names was ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// The event's token, grant or session, whichever came first of each.
    pub ended: Ended,
    /// The grant was taken for ended, and this event shows that it is not.
    pub revives_grant: bool,
}

/// When the event's token, grant or session was ended.
pub fn ends(ends: &mut Ends, enriched: &EnrichedEvent<'_>, subject: Subject, latest: i64) -> Found {
    if ends.is_empty() {
        return Found::default();
    }
    let EnrichedEvent { event, keys, .. } = enriched;
    let mut ended = ends.of(keys.token, latest);
    if let Some(session) = session_key(event, keys) {
        ended.session_ended_at = earlier(ended.session_ended_at, ends.of(session, latest).session_ended_at);
    }
    let Some(grant) = ends.of_grant(subject.baseline, latest) else { return Found { ended, revives_grant: false } };
    // A provider that exchanges another refresh token of the grant has not ended it; nor has one that revokes each as it
    // is exchanged.
    let is_exchange = event.kind == Kind::Refreshed && Answer::of(event.status, true) != Answer::Refused;
    let revives_grant = is_exchange && (keys.token != grant.by || (subject.at - grant.at).abs() <= ROTATION_MS);
    if !revives_grant {
        ended.revoked_at = earlier(ended.revoked_at, grant.at);
    }
    Found { ended, revives_grant }
}

/// Takes in what a use shows of the life of its grant.
pub fn learn_use(ends: &mut Ends, enriched: &EnrichedEvent<'_>, baseline: u64, found: Found) {
    if found.revives_grant {
        ends.revive_grant(baseline);
    }
    if enriched.event.kind == Kind::Refreshed {
        ends.exchange(enriched.keys.token);
    }
}

/// Whether what a revocation would end, the grant or else the token, was ended by `at`.
pub fn is_dead(ends: &mut Ends, enriched: &EnrichedEvent<'_>, at: i64) -> bool {
    let Keys { family, token, .. } = enriched.keys;
    let ended_at = match family {
        Some(family) => ends.of_grant(family, i64::MAX).map_or(0, |ended| ended.at),
        None => ends.of(token, i64::MAX).revoked_at,
    };
    ended_at != 0 && ended_at <= at
}

/// When the event's token expires: as the event says, or else as was said when the token was issued.
pub fn expiry(memory: &Memory, event: &Event<'_>, keys: &Keys) -> Option<Expiry> {
    if let Some(at) = event.expires_at {
        return Some(Expiry { at: at.millis(), said_at_issue: false });
    }
    // What is exchanged is a refresh token, whatever the producer calls it.
    if memory.expiries.is_empty() || event.kind == Kind::Refreshed {
        return None;
    }
    memory.expiries.get(keys.token).map(|at| Expiry { at: *at, said_at_issue: true })
}
