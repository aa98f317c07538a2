//! Applies life-cycle events: issued, revoked, session ended, confirmed, credential changed.

use std::num::NonZeroI64;

use super::learn;
use super::occurrence::Occurrence;
use super::state::State;
use crate::detector::lifecycle::formula::Expiry;
use crate::detector::lifecycle::refresh::{self, RefreshToken};
use crate::enrichment::{EnrichedEvent, Keys};
use crate::event::{Answer, Concerns, Event, Kind, TokenType};
use crate::key::Class;
use crate::memory::ends::{EndedGrant, Ends};
use crate::memory::{Ended, Memory};
use crate::millis::MINUTE_MS;

/// Time after a presentation within which providers revoke the old refresh token (rotation).
const ROTATION_MS: i64 = MINUTE_MS;
/// Time after the end of a grant from which a newly issued token revives it.
const ISSUED_AFTER_MS: i64 = 30_000;

/// Applies a life-cycle event.
pub(crate) fn apply(state: &mut State, event: &Event<'_>, keys: &Keys, occurrence: Occurrence) {
    let memory = &mut state.memory;
    let Occurrence { baseline, at, .. } = occurrence;
    match event.kind {
        Kind::Use | Kind::Refreshed => {}
        Kind::Issued => issued(memory, event, keys, occurrence),
        Kind::Revoked => revoked(memory, event, keys, occurrence),
        Kind::SessionEnded => match Owner::of(event, keys) {
            Some(owner) => memory.ends.end_all_sessions(owner.key(Tokens::Sessions), at),
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
    // With a refresh token, producers often send the access token's expiry (`expires_in`, RFC 6749 section 5.1). An
    // expiry before the issue or by a wrong clock is an error.
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
    let continues = |end: EndedGrant| is_refresh && parent == Some(end.by) || at > end.at + ISSUED_AFTER_MS;
    if ended.is_some_and(continues) {
        memory.ends.revive_grant(family);
    }
    let (Some(parent), true) = (parent, is_refresh) else { return };
    memory.ends.exchange(parent);
    let Some(refreshes) = memory.baselines.refreshes_mut(family) else { return };
    refresh::succeed(refreshes, parent, token, at);
    // The revocation may be reported before the issue.
    if let Some(revoked_at) = memory.ends.of(token, i64::MAX).revoked_at
        && revoked_at.get() >= at
        && refresh::standing(refreshes, token) == RefreshToken::Current
    {
        memory.ends.end_grant(family, EndedGrant { at: revoked_at.get(), by: token });
    }
}

fn revoked(memory: &mut Memory, event: &Event<'_>, keys: &Keys, occurrence: Occurrence) {
    let Occurrence { baseline, at, .. } = occurrence;
    if let Some(owner) = Owner::of(event, keys) {
        let tokens = if event.token_type == TokenType::Refresh { Tokens::Oauth } else { Tokens::All };
        return memory.ends.revoke_all(owner.key(tokens), at);
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

/// A token name with a new secret: earlier uses end.
fn end_former(ends: &mut Ends, keys: &Keys, at: i64) {
    if let Some(former) = ends.alias(keys.token) {
        ends.revoke(former, at);
    }
}

/// Key of the realm of the event, a part of its tenant.
fn realm(event: &Event<'_>, keys: &Keys) -> Option<u64> {
    let realm = event.facts.as_ref()?.realm.as_deref()?;
    Some(keys.scope.name(Class::Realm, realm.as_bytes()))
}

/// Key of the alias of the token: of the event, else of an earlier event.
fn alias(ends: &Ends, event: &Event<'_>, keys: &Keys) -> Option<u64> {
    let named = event.facts.as_ref().and_then(|facts| facts.alias.as_ref());
    named.map(|alias| keys.scope.name(Class::Token, alias.as_str().as_bytes())).or_else(|| ends.alias(keys.token))
}

/// A user, application or role whose tokens end together.
struct Owner(u64);

/// The tokens of the owner that end.
#[derive(Clone, Copy)]
enum Tokens {
    All,
    Sessions,
    Oauth,
}

impl Owner {
    /// The owner whose tokens the event ends.
    fn of(event: &Event<'_>, keys: &Keys) -> Option<Self> {
        match event.facts.as_ref()?.concerns {
            Concerns::Token => None,
            Concerns::User => keys.user.map(Self::of_user),
            Concerns::App => event.app_id.as_ref().map(|_| Self::of_app(keys)),
            Concerns::Role => Self::of_role(event, keys),
        }
    }

    /// The key of a user belongs to one tenant.
    const fn of_user(user: u64) -> Self {
        Self(user)
    }

    /// The application within the tenant: its key alone is the same for all tenants.
    const fn of_app(keys: &Keys) -> Self {
        Self(keys.app ^ keys.tenant.rotate_left(32))
    }

    /// The role whose session the token is.
    fn of_role(event: &Event<'_>, keys: &Keys) -> Option<Self> {
        event.facts.as_ref()?.role.as_deref().map(|role| Self::role(role, keys))
    }

    fn role(role: &str, keys: &Keys) -> Self {
        Self(keys.scope.name(Class::AllOfRole, role.as_bytes()))
    }

    const fn key(&self, tokens: Tokens) -> u64 {
        self.0 ^ (tokens as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Keys under which tokens of this type end together.
    fn keys(&self, token_type: TokenType) -> [Option<u64>; 2] {
        let narrow = match token_type {
            TokenType::Session => Some(Tokens::Sessions),
            TokenType::Access | TokenType::Refresh => Some(Tokens::Oauth),
            _ => None,
        };
        [Some(self.key(Tokens::All)), narrow.map(|tokens| self.key(tokens))]
    }
}

/// Reinstates tokens that a provider has restored.
pub(crate) fn reinstate(ends: &mut Ends, event: &Event<'_>, keys: &Keys) {
    let Some(facts) = &event.facts else { return };
    if let Some(token) = &facts.reinstated_token {
        ends.reinstate(keys.scope.name(Class::Token, token.as_str().as_bytes()));
    }
    let user =
        facts.reinstated_user.as_deref().map(|user| Owner::of_user(keys.scope.name(Class::User, user.as_bytes())));
    let role = facts.reinstated_role.as_deref().map(|role| Owner::role(role, keys));
    for owner in [user, role].into_iter().flatten() {
        for tokens in [Tokens::All, Tokens::Sessions, Tokens::Oauth] {
            ends.reinstate_all(owner.key(tokens));
        }
    }
}

/// End of all tokens of the event's user, application or role, if this token existed before it.
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
    let user = keys.user.map(Owner::of_user);
    let app = event.app_id.as_ref().map(|_| Owner::of_app(keys));
    let role = Owner::of_role(event, keys);
    for owner in [user, app, role].into_iter().flatten() {
        for key in owner.keys(event.token_type).into_iter().flatten() {
            ended = ended.earlier(ends.of_all(key, latest).after(since));
        }
    }
    ended
}

/// Whether the revocation of a token ends its grant: that of the current refresh token does (RFC 7009 section 2.1). The
/// revocation of an access token or of an exchanged refresh token ends only that token.
fn ends_grant(memory: &Memory, event: &Event<'_>, keys: &Keys, Occurrence { baseline, at, .. }: Occurrence) -> bool {
    let refreshes = memory.baselines.find(baseline).and_then(|index| memory.baselines.get(index).refreshes.as_deref());
    let standing = refreshes.map_or(RefreshToken::Unknown, |refreshes| refresh::standing(refreshes, keys.token));
    match standing {
        RefreshToken::Superseded => false,
        RefreshToken::Current => {
            // If the successor is not reported, this may be the provider's rotation of an exchanged token.
            let presented_at = refreshes.and_then(|refreshes| refresh::presented_at(refreshes, keys.token));
            presented_at.is_none_or(|presented| (at - presented).abs() > ROTATION_MS)
        }
        // If successors are reported, an unknown token is older than the stored ones, or its report is pending.
        RefreshToken::Unknown => {
            event.token_type == TokenType::Refresh
                && !memory.ends.was_exchanged(keys.token)
                && !refreshes.is_some_and(|refreshes| refreshes.chained)
        }
    }
}

/// Ends of the event's token, grant and session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    /// The earliest revocation and the earliest end of a session.
    pub(crate) ended: Ended,
    /// The grant is stored as ended, and this event proves that it is active.
    pub(crate) revives_grant: bool,
}

/// Finds the ends of the event's token, grant and session.
///
/// `since`: time of the first event of the token.
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
            ended = ended.earlier(ends.of(key, latest));
        }
    }
    if let Some(session) = keys.session {
        ended = ended.earlier(Ended { revoked_at: None, ..ends.of(session, latest) });
    }
    let Some(grant) = ends.of_grant(occurrence.baseline, latest) else { return Found { ended, revives_grant: false } };
    // A provider that exchanges another refresh token of the grant has not ended the grant. The same holds if it
    // revokes each token at its exchange.
    let is_exchange = event.kind == Kind::Refreshed && event.answer() != Answer::Refused;
    let revives_grant = is_exchange && (keys.token != grant.by || (occurrence.at - grant.at).abs() <= ROTATION_MS);
    if !revives_grant {
        ended = ended.earlier(Ended::revoked(grant.at));
    }
    Found { ended, revives_grant }
}

/// Learns the life-cycle changes that a use implies.
pub(crate) fn learn_use(ends: &mut Ends, enriched: &EnrichedEvent<'_>, baseline: u64, found: Found) {
    if found.revives_grant {
        ends.revive_grant(baseline);
    }
    if enriched.event.kind == Kind::Refreshed {
        ends.exchange(enriched.keys.token);
    }
    learn_names(ends, enriched);
}

/// Learns the family of a token for later events without one, so that a token whose grant is unreadable cannot start a
/// new baseline. The first family stays. Requests without an accepted credential are ignored.
#[inline]
pub(crate) fn learn_family(memory: &mut Memory, enriched: &EnrichedEvent<'_>) {
    let Keys { token, family, .. } = enriched.keys;
    if let Some(family) = family
        && !enriched.event.is_unchecked()
    {
        memory.lineages.entry(token, || family);
    }
}

/// Learns the alias of a token.
#[inline]
pub(crate) fn learn_names(ends: &mut Ends, enriched: &EnrichedEvent<'_>) {
    if let Some(alias) = enriched.event.facts.as_ref().and_then(|facts| facts.alias.as_ref()) {
        ends.join(enriched.keys.token, enriched.keys.scope.name(Class::Token, alias.as_str().as_bytes()));
    }
}

/// Whether the revocation target has ended by `at`.
pub(crate) fn is_revoked(ends: &mut Ends, enriched: &EnrichedEvent<'_>, at: i64) -> bool {
    let Keys { family, token, .. } = enriched.keys;
    let ended_at = match family {
        Some(family) => ends.of_grant(family, i64::MAX).map(|ended| ended.at),
        None => ends.of(token, i64::MAX).revoked_at.map(NonZeroI64::get),
    };
    ended_at.is_some_and(|ended_at| ended_at <= at)
}

/// Expiry of the token: of the event, else of its `issued` event.
pub(crate) fn expiry(memory: &Memory, event: &Event<'_>, keys: &Keys) -> Option<Expiry> {
    if let Some(at) = event.expires_at {
        return Some(Expiry { at: at.millis(), from_issued_event: false });
    }
    // An exchanged token is a refresh token, whatever its `token_type`.
    if memory.expiries.is_empty() || event.kind == Kind::Refreshed {
        return None;
    }
    memory.expiries.get(keys.token).map(|at| Expiry { at: *at, from_issued_event: true })
}
