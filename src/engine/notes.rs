//! What is noted of a token without anybody using it: that it was issued, replaced, revoked or confirmed.

use super::learn;
use super::occurrence::Occurrence;
use super::state::State;
use crate::detector::lifecycle::formula::{Answer, Endpoint, Expiry};
use crate::detector::lifecycle::refresh::{self, RefreshToken};
use crate::enrichment::{EnrichedEvent, Keys};
use crate::event::{Concerns, Event, Kind, TokenType};
use crate::key::Class;
use crate::memory::ends::{EndedGrant, Ends, earlier};
use crate::memory::{Ended, Memory};

/// A provider that revokes the old refresh token at each rotation does so within this of its being presented.
const ROTATION_MS: i64 = 60_000;
/// A token that is issued so long after the end of its grant shows that the grant goes on.
const ISSUED_AFTER_MS: i64 = 30_000;

/// Takes in what happened to a token without anybody using it.
pub(crate) fn take_note(state: &mut State, event: &Event<'_>, keys: &Keys, occurrence: Occurrence) {
    let memory = &mut state.memory;
    let Occurrence { baseline, at, .. } = occurrence;
    match event.kind {
        Kind::Use | Kind::Refreshed => {}
        Kind::Issued => issued(memory, event, keys, occurrence),
        Kind::Revoked => revoked(memory, event, keys, occurrence),
        Kind::SessionEnded => match All::of(event, keys) {
            Some(all) => memory.ends.end_all_sessions(all.key(OfAll::Sessions), at),
            None => memory.ends.end_session(keys.session.unwrap_or(keys.token), at),
        },
        Kind::Confirmed => {
            if !state.settings.confirmed {
                return;
            }
            let alert_from = state.thresholds.alert_from(memory.others.tenants.get(keys.tenant));
            let Some(baseline) = memory.baselines.get_mut(baseline) else { return };
            let suspected = baseline.holders.iter().map(|holder| holder.log_odds.get()).fold(f64::MIN, f64::max);
            state.counters.confirmed += 1;
            state.counters.confirmed_alarms += u64::from(suspected >= alert_from);
            learn::confirm(baseline, at);
        }
        Kind::CredentialChanged => {
            if let Some(user) = keys.user {
                memory.users.entry(user, at).change_credential(at, state.clock.latest());
            }
        }
    }
}

fn issued(memory: &mut Memory, event: &Event<'_>, keys: &Keys, occurrence: Occurrence) {
    let Occurrence { baseline, at, timed, .. } = occurrence;
    let (token, is_refresh) = (keys.token, event.token_type == TokenType::Refresh);
    if event.facts.as_ref().is_some_and(|facts| facts.renewed) {
        end_former(&mut memory.ends, keys, at);
    }
    // With a refresh token producers often name the end of the access token beside it (`expires_in`, RFC 6749 section
    // 5.1). An expiry before its issue is a mistake, as is one by a clock that is wrong.
    if let Some(expires_at) = event.expires_at
        && !is_refresh
        && timed
        && expires_at > event.timestamp
    {
        memory.expiries.insert(token, expires_at.millis());
    }
    if let Some(family) = keys.family {
        memory.lineages.entry(token, || family);
    }
    let parent = keys.parent;
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
    refresh::succeed(refreshes, parent, token, at);
    // Its revocation may be reported before its issue.
    let revoked_at = memory.ends.of(token, i64::MAX).revoked_at;
    if revoked_at >= at && refresh::standing(refreshes, token) == RefreshToken::Current {
        memory.ends.end_grant(family, EndedGrant { at: revoked_at, by: token });
    }
}

fn revoked(memory: &mut Memory, event: &Event<'_>, keys: &Keys, occurrence: Occurrence) {
    let Occurrence { baseline, at, .. } = occurrence;
    if let Some(all) = All::of(event, keys) {
        let what = if event.token_type == TokenType::Refresh { OfAll::OauthTokens } else { OfAll::Everything };
        return memory.ends.revoke_all(all.key(what), at);
    }
    let facts = event.facts.as_deref();
    if facts.is_some_and(|facts| facts.renewed) {
        return end_former(&mut memory.ends, keys, at);
    }
    if let Some(realm) = realm(event, keys) {
        return memory.ends.revoke(keys.token ^ realm, at);
    }
    memory.ends.revoke(keys.token, at);
    if ends_grant(memory, event, keys, occurrence) {
        memory.ends.end_grant(baseline, EndedGrant { at, by: keys.token });
    }
}

/// The name of a token goes on with a new secret: what was used under it so far ends.
fn end_former(ends: &mut Ends, keys: &Keys, at: i64) {
    if let Some(former) = ends.alias(keys.token) {
        ends.revoke(former, at);
    }
}

/// Key of the part of the tenant that an event names.
fn realm(event: &Event<'_>, keys: &Keys) -> Option<u64> {
    let realm = event.facts.as_ref()?.realm.as_deref()?;
    Some(keys.scope.name(Class::Realm, realm.as_bytes()))
}

/// Key of the other name of an event's token: as the event has it, or as one before it had.
fn alias(ends: &Ends, event: &Event<'_>, keys: &Keys) -> Option<u64> {
    let named = event.facts.as_ref().and_then(|facts| facts.alias.as_ref());
    named.map(|alias| keys.scope.name(Class::Token, alias.as_str().as_bytes())).or_else(|| ends.alias(keys.token))
}

/// All that a user, an application or a role holds.
struct All(u64);

/// Which of it.
#[derive(Clone, Copy)]
enum OfAll {
    Everything,
    Sessions,
    OauthTokens,
}

impl All {
    /// Of whom a change takes away everything.
    fn of(event: &Event<'_>, keys: &Keys) -> Option<Self> {
        match event.facts.as_ref()?.concerns {
            Concerns::Token => None,
            Concerns::User => keys.user.map(Self::of_user),
            Concerns::App => event.app_id.as_ref().map(|_| Self::of_app(keys)),
            Concerns::Role => Self::of_role(event, keys),
        }
    }

    /// The key of the user, which is of one tenant.
    const fn of_user(user: u64) -> Self {
        Self(user)
    }

    /// The application as this tenant uses it: its key alone is the same for all tenants.
    const fn of_app(keys: &Keys) -> Self {
        Self(keys.app ^ keys.tenant.rotate_left(32))
    }

    /// Of the role whose session the event's token is.
    fn of_role(event: &Event<'_>, keys: &Keys) -> Option<Self> {
        event.facts.as_ref()?.role.as_deref().map(|role| Self::role(role, keys))
    }

    fn role(role: &str, keys: &Keys) -> Self {
        Self(keys.scope.name(Class::AllOfRole, role.as_bytes()))
    }

    const fn key(&self, what: OfAll) -> u64 {
        self.0 ^ (what as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Keys under which a token of this type ends with all others.
    fn keys(&self, token_type: TokenType) -> [Option<u64>; 2] {
        let narrow = match token_type {
            TokenType::Session => Some(OfAll::Sessions),
            TokenType::Access | TokenType::Refresh => Some(OfAll::OauthTokens),
            _ => None,
        };
        [Some(self.key(OfAll::Everything)), narrow.map(|what| self.key(what))]
    }
}

/// Takes in that what was ended is alive again.
pub(crate) fn reinstate(ends: &mut Ends, event: &Event<'_>, keys: &Keys) {
    let Some(facts) = &event.facts else { return };
    if let Some(token) = &facts.reinstated_token {
        ends.reinstate(keys.scope.name(Class::Token, token.as_str().as_bytes()));
    }
    let user = facts.reinstated_user.as_deref().map(|user| All::of_user(keys.scope.name(Class::User, user.as_bytes())));
    let role = facts.reinstated_role.as_deref().map(|role| All::role(role, keys));
    for all in [user, role].into_iter().flatten() {
        for what in [OfAll::Everything, OfAll::Sessions, OfAll::OauthTokens] {
            ends.reinstate_all(all.key(what));
        }
    }
}

/// When all that the event's user, application or role held was taken away, if its token was there by then.
fn ended_with_all(
    ends: &mut Ends,
    enriched: &EnrichedEvent<'_>,
    latest: i64,
    since: impl FnOnce() -> Option<i64>,
) -> Ended {
    let EnrichedEvent { event, keys, .. } = enriched;
    let mut ended = Ended::default();
    if !ends.has_all() {
        return ended;
    }
    let Some(since) = event.issued_at.map(crate::event::Timestamp::millis).or_else(since) else { return ended };
    let user = keys.user.map(All::of_user);
    let app = event.app_id.as_ref().map(|_| All::of_app(keys));
    let role = All::of_role(event, keys);
    for all in [user, app, role].into_iter().flatten() {
        for key in all.keys(event.token_type).into_iter().flatten() {
            let found = ends.of_all(key, latest);
            let by_then = |at: i64| if since < at { at } else { 0 };
            ended.revoked_at = earlier(ended.revoked_at, by_then(found.revoked_at));
            ended.session_ended_at = earlier(ended.session_ended_at, by_then(found.session_ended_at));
        }
    }
    ended
}

/// Whether the revocation of a token ends its grant: that of its current refresh token does (RFC 7009 section 2.1). The
/// one of an access token, or of a refresh token that was exchanged, ends nothing but that token.
fn ends_grant(memory: &Memory, event: &Event<'_>, keys: &Keys, Occurrence { baseline, at, .. }: Occurrence) -> bool {
    let refreshes = memory.baselines.find(baseline).and_then(|place| memory.baselines.get(place).refreshes.as_deref());
    let standing = refreshes.map_or(RefreshToken::Unknown, |refreshes| refresh::standing(refreshes, keys.token));
    match standing {
        RefreshToken::Superseded => false,
        RefreshToken::Current => {
            // Where its successor is not reported, it is the provider that takes away what was exchanged.
            let presented_at = refreshes.and_then(|refreshes| refresh::presented_at(refreshes, keys.token));
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

/// When what an event names was ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    /// The event's token, grant or session, whichever came first of each.
    pub ended: Ended,
    /// The grant was taken for ended, and this event shows that it is not.
    pub revives_grant: bool,
}

/// When the event's token, grant or session was ended.
///
/// `since`: when the token was seen first, if it was.
pub(crate) fn ends(
    ends: &mut Ends,
    enriched: &EnrichedEvent<'_>,
    occurrence: Occurrence,
    latest: i64,
    since: impl FnOnce() -> Option<i64>,
) -> Found {
    if ends.is_empty() {
        return Found::default();
    }
    let EnrichedEvent { event, keys, .. } = enriched;
    let mut ended = ended_with_all(ends, enriched, latest, since);
    let realm = realm(event, keys);
    for name in [Some(keys.token), alias(ends, event, keys)].into_iter().flatten() {
        for key in [Some(name), realm.map(|realm| name ^ realm)].into_iter().flatten() {
            let found = ends.of(key, latest);
            ended.revoked_at = earlier(ended.revoked_at, found.revoked_at);
            ended.session_ended_at = earlier(ended.session_ended_at, found.session_ended_at);
        }
    }
    if let Some(session) = keys.session {
        ended.session_ended_at = earlier(ended.session_ended_at, ends.of(session, latest).session_ended_at);
    }
    let Some(grant) = ends.of_grant(occurrence.baseline, latest) else { return Found { ended, revives_grant: false } };
    // A provider that exchanges another refresh token of the grant has not ended it; nor has one that revokes each as it
    // is exchanged.
    let is_exchange = event.kind == Kind::Refreshed && Answer::of(event.status, Endpoint::Token) != Answer::Refused;
    let revives_grant = is_exchange && (keys.token != grant.by || (occurrence.at - grant.at).abs() <= ROTATION_MS);
    if !revives_grant {
        ended.revoked_at = earlier(ended.revoked_at, grant.at);
    }
    Found { ended, revives_grant }
}

/// Takes in what a use shows of the life of its grant.
pub(crate) fn learn_use(ends: &mut Ends, enriched: &EnrichedEvent<'_>, baseline: u64, found: Found) {
    if found.revives_grant {
        ends.revive_grant(baseline);
    }
    if enriched.event.kind == Kind::Refreshed {
        ends.exchange(enriched.keys.token);
    }
    learn_names(ends, enriched);
}

/// Takes in which family a token is of, for later events of it that name none: a thief who can make the family of an event
/// unreadable must not get a baseline of their own. The first family stays, and requests without an accepted credential
/// name none.
#[inline]
pub(crate) fn learn_family(memory: &mut Memory, enriched: &EnrichedEvent<'_>) {
    let Keys { token, family, .. } = enriched.keys;
    if let Some(family) = family
        && !enriched.event.is_unchecked()
    {
        memory.lineages.entry(token, || family);
    }
}

/// Takes in that a token has two names.
#[inline]
pub(crate) fn learn_names(ends: &mut Ends, enriched: &EnrichedEvent<'_>) {
    if let Some(alias) = enriched.event.facts.as_ref().and_then(|facts| facts.alias.as_ref()) {
        ends.join(enriched.keys.token, enriched.keys.scope.name(Class::Token, alias.as_str().as_bytes()));
    }
}

/// Whether what a revocation would end, the grant or else the token, was ended by `at`.
pub(crate) fn is_dead(ends: &mut Ends, enriched: &EnrichedEvent<'_>, at: i64) -> bool {
    let Keys { family, token, .. } = enriched.keys;
    let ended_at = match family {
        Some(family) => ends.of_grant(family, i64::MAX).map_or(0, |ended| ended.at),
        None => ends.of(token, i64::MAX).revoked_at,
    };
    ended_at != 0 && ended_at <= at
}

/// When the event's token expires: as the event says, or else as was said when the token was issued.
pub(crate) fn expiry(memory: &Memory, event: &Event<'_>, keys: &Keys) -> Option<Expiry> {
    if let Some(at) = event.expires_at {
        return Some(Expiry { at: at.millis(), from_issued_event: false });
    }
    // What is exchanged is a refresh token, whatever the producer calls it.
    if memory.expiries.is_empty() || event.kind == Kind::Refreshed {
        return None;
    }
    memory.expiries.get(keys.token).map(|at| Expiry { at: *at, from_issued_event: true })
}
