//! The token event: one use or life-cycle change of a token, as a producer reported it.
//!
//! Texts are borrowed from the message's bytes where possible, so an event does not outlive its message.

mod address;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

pub use self::address::Address;
use crate::token::TokenId;

/// Milliseconds since 1970-01-01T00:00:00Z, from [`Self::MIN`] to [`Self::MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Earliest accepted time, 1970-01-01.
    pub const MIN: Self = Self(0);
    /// Latest accepted time, 2199-12-31T23:59:59.999Z. ClickHouse's `DateTime64(3)` clamps times after 2299.
    pub const MAX: Self = Self(7_258_118_399_999);

    /// `None` outside of [`Self::MIN`] to [`Self::MAX`].
    pub const fn from_millis(millis: i64) -> Option<Self> {
        if millis < Self::MIN.0 || millis > Self::MAX.0 { None } else { Some(Self(millis)) }
    }

    pub const fn millis(self) -> i64 {
        self.0
    }
}

/// What happened to the token. The native format writes these names in lower case (`docs/event.md`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    #[default]
    Use,
    Issued,
    Refreshed,
    Revoked,
    SessionEnded,
    CredentialChanged,
    /// The owner, or an analyst for the owner, confirms that the events so far are the owner's.
    Confirmed,
}

impl Kind {
    pub const ALL: [Self; 7] = [
        Self::Use,
        Self::Issued,
        Self::Refreshed,
        Self::Revoked,
        Self::SessionEnded,
        Self::CredentialChanged,
        Self::Confirmed,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Use => "use",
            Self::Issued => "issued",
            Self::Refreshed => "refreshed",
            Self::Revoked => "revoked",
            Self::SessionEnded => "session_ended",
            Self::CredentialChanged => "credential_changed",
            Self::Confirmed => "confirmed",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether the event is a use of the token by its holder, which is scored against the baseline.
    pub(crate) const fn is_sighting(self) -> bool {
        matches!(self, Self::Use | Self::Refreshed)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenType {
    Access,
    Refresh,
    ApiKey,
    Personal,
    Session,
    #[default]
    Other,
}

impl TokenType {
    pub const ALL: [Self; 6] = [Self::Access, Self::Refresh, Self::ApiKey, Self::Personal, Self::Session, Self::Other];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Refresh => "refresh",
            Self::ApiKey => "api_key",
            Self::Personal => "personal",
            Self::Session => "session",
            Self::Other => "other",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Place and network that the producer sent. Used only if `detection.trust_event_geo` is set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventGeo<'a> {
    /// ISO 3166-1 alpha-2 code, or an English name.
    pub country: Option<Cow<'a, str>>,
    /// Degrees north, −90 to 90.
    pub latitude: Option<f32>,
    /// Degrees east, −180 to 180.
    pub longitude: Option<f32>,
    /// Radius in kilometres.
    pub accuracy_km: Option<u16>,
    pub asn: Option<u32>,
    pub as_org: Option<Cow<'a, str>>,
}

/// Which tokens a life-cycle event ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concerns {
    /// The event's token, or its grant or session.
    #[default]
    Token,
    /// All tokens that the event's user has at that time.
    User,
    /// All tokens that the event's application has at that time.
    App,
    /// All sessions that the event's role has at that time.
    Role,
}

/// Fields that only mapped provider logs set, and `concerns`. Most events have none of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProviderFacts<'a> {
    /// The provider made the call itself on behalf of the holder. Address and client are then not the holder's.
    pub(crate) own_call: bool,
    /// Another name of the token, which the provider's life-cycle events use.
    pub alias: Option<TokenId<'a>>,
    /// The part of the tenant in which the token was used or lost its access, for example one organization of an
    /// enterprise.
    pub realm: Option<Cow<'a, str>>,
    /// The role whose session the token is. All of its sessions can be ended at once.
    pub role: Option<Cow<'a, str>>,
    pub concerns: Concerns,
    /// The token keeps its name and gets a new secret. Only uses of the old secret end.
    pub(crate) renewed: bool,
    /// The ended token of this name is valid again.
    pub(crate) reinstated_token: Option<TokenId<'a>>,
    /// All tokens that ended together with this user are valid again.
    pub reinstated_user: Option<Cow<'a, str>>,
    /// Everything that was ended with this role is valid again.
    pub reinstated_role: Option<Cow<'a, str>>,
}

/// One token event after decoding. `docs/event.md` describes the fields. The default has no optional fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event<'a> {
    pub event_id: Cow<'a, str>,
    pub timestamp: Timestamp,
    pub kind: Kind,
    pub token_id: TokenId<'a>,
    pub token_type: TokenType,
    pub family_id: Option<Cow<'a, str>>,
    pub parent_token_id: Option<TokenId<'a>>,
    pub session_id: Option<Cow<'a, str>>,
    pub user_id: Option<Cow<'a, str>>,
    pub app_id: Option<Cow<'a, str>>,
    pub tenant_id: Option<Cow<'a, str>>,
    /// If it is absent, location is not scored. Nothing is scored for a provider's own call.
    pub address: Option<Address>,
    pub user_agent: Option<Cow<'a, str>>,
    pub client_fingerprint: Option<Cow<'a, str>>,
    pub method: Option<Cow<'a, str>>,
    pub endpoint: Option<Cow<'a, str>>,
    /// HTTP status of the response. An event with 401 is an attempt, not a use.
    pub status: Option<u16>,
    /// The sent outcome cannot be read or names no known answer, so the call may have been rejected.
    pub outcome_unclear: bool,
    /// The provider reports that this refresh token was presented after it had been superseded.
    pub reuse_reported: bool,
    pub bytes_out: Option<u64>,
    pub scopes: Vec<Cow<'a, str>>,
    pub issued_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub binding: Option<Cow<'a, str>>,
    pub geo: Option<Box<EventGeo<'a>>>,
    pub attrs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub facts: Option<Box<ProviderFacts<'a>>>,
}

/// Whether the service accepted a token that may have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted,
    Refused,
    /// The service may not have checked the token.
    Unknown,
}

/// Key of a baseline: a hash of tenant and grant, or without a grant of the client or the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BaselineId(pub u64);

/// The subject key of a tenant's subject. See [`Event::subject_key`].
pub(crate) fn key_of_subject(tenant: Option<&str>, subject: &str) -> String {
    match tenant {
        Some(tenant) => format!("{tenant}/{subject}"),
        None => subject.to_owned(),
    }
}

impl Event<'_> {
    /// A copy that borrows nothing.
    pub fn into_owned(self) -> Event<'static> {
        fn own(text: Cow<'_, str>) -> Cow<'static, str> {
            Cow::Owned(text.into_owned())
        }
        Event {
            event_id: own(self.event_id),
            token_id: self.token_id.into_owned(),
            family_id: self.family_id.map(own),
            parent_token_id: self.parent_token_id.map(TokenId::into_owned),
            session_id: self.session_id.map(own),
            user_id: self.user_id.map(own),
            app_id: self.app_id.map(own),
            tenant_id: self.tenant_id.map(own),
            user_agent: self.user_agent.map(own),
            client_fingerprint: self.client_fingerprint.map(own),
            method: self.method.map(own),
            endpoint: self.endpoint.map(own),
            scopes: self.scopes.into_iter().map(own).collect(),
            binding: self.binding.map(own),
            geo: self
                .geo
                .map(|geo| Box::new(EventGeo { country: geo.country.map(own), as_org: geo.as_org.map(own), ..*geo })),
            attrs: self.attrs.into_iter().map(|(name, value)| (own(name), own(value))).collect(),
            facts: self.facts.map(|facts| {
                let ProviderFacts { own_call, concerns, renewed, .. } = *facts;
                Box::new(ProviderFacts {
                    own_call,
                    alias: facts.alias.map(TokenId::into_owned),
                    realm: facts.realm.map(own),
                    role: facts.role.map(own),
                    concerns,
                    renewed,
                    reinstated_token: facts.reinstated_token.map(TokenId::into_owned),
                    reinstated_user: facts.reinstated_user.map(own),
                    reinstated_role: facts.reinstated_role.map(own),
                })
            }),
            timestamp: self.timestamp,
            kind: self.kind,
            token_type: self.token_type,
            address: self.address,
            status: self.status,
            outcome_unclear: self.outcome_unclear,
            reuse_reported: self.reuse_reported,
            bytes_out: self.bytes_out,
            issued_at: self.issued_at,
            expires_at: self.expires_at,
        }
    }

    /// Whether the provider made the call itself on behalf of the holder.
    pub fn is_own_call(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.own_call)
    }

    /// The key that keeps all tokens of a subject in one partition: the tenant, then the first present one of user,
    /// grant, application and token. The application counts only for an access token without user and grant.
    pub(crate) fn subject_key(&self) -> String {
        let (tenant, subject) = self.subject_parts();
        key_of_subject(tenant, subject)
    }

    /// Whether `key` is this event's subject key. Does not allocate.
    pub(crate) fn is_keyed_by(&self, key: &[u8]) -> bool {
        let (tenant, subject) = self.subject_parts();
        let rest = match tenant {
            Some(tenant) => match key.strip_prefix(tenant.as_bytes()) {
                Some([b'/', rest @ ..]) => rest,
                _ => return false,
            },
            None => key,
        };
        rest == subject.as_bytes()
    }

    /// Whether `key` is the subject key that this event would have in another tenant, or without one.
    pub(crate) fn is_keyed_in_any_tenant(&self, key: &[u8]) -> bool {
        let (_, subject) = self.subject_parts();
        matches!(key.strip_suffix(subject.as_bytes()), Some([] | [.., b'/']))
    }

    /// The partition, out of `partitions`, to which Kafka's default partitioner assigns this event's message.
    pub fn partition_among(&self, partitions: usize) -> usize {
        let (tenant, subject) = self.subject_parts();
        // Without an allocation, because a message of several subjects is distributed event by event.
        let mut key = SmallVec::<[u8; 128]>::new();
        if let Some(tenant) = tenant {
            key.extend_from_slice(tenant.as_bytes());
            key.push(b'/');
        }
        key.extend_from_slice(subject.as_bytes());
        let hash = murmur2(&key) & 0x7fff_ffff;
        hash as usize % partitions.max(1)
    }

    fn subject_parts(&self) -> (Option<&str>, &str) {
        let subject = self.user_id.as_deref().or(self.family_id.as_deref()).or_else(|| self.client());
        (self.tenant_id.as_deref(), subject.unwrap_or(self.token_id.as_str()))
    }

    /// The application of an access token that has neither user nor grant (OAuth client credentials, RFC 6749 section
    /// 4.4). Such an application usually gets a new token every hour.
    pub(crate) fn client(&self) -> Option<&str> {
        let has_no_owner = self.token_type == TokenType::Access && self.user_id.is_none() && self.family_id.is_none();
        self.app_id.as_deref().filter(|_| has_no_owner)
    }

    /// Whether the service did what was asked: a status of 2xx or 304, or none.
    pub(crate) const fn succeeded(&self) -> bool {
        matches!(self.status, None | Some(200..300 | 304))
    }

    /// Whether the credential was rejected. These statuses count: 401 (RFC 9110 section 15.5.2; RFC 6750 section 3.1),
    /// and 400 at the token endpoint (`invalid_grant`, RFC 6749 section 5.2). With 403 the credential was accepted, so
    /// the event is a use.
    pub const fn is_attempt(&self) -> bool {
        match self.status {
            Some(401) => true,
            Some(400) => matches!(self.kind, Kind::Refreshed),
            _ => false,
        }
    }

    /// Whether the outcome does not show if the credential was accepted. Services send such statuses before they check
    /// the credential: a bad request, a proxy's 407, an exceeded limit or a fault (RFC 9110 section 15, RFC 6585). A
    /// status that cannot be read counts too. Such an event is a use, but its behaviour does not revoke. An event
    /// without an outcome does not count, because many producers report accepted requests only.
    pub const fn is_unchecked(&self) -> bool {
        self.outcome_unclear
            || matches!(self.status, Some(0..200 | 400 | 407 | 408 | 413 | 414 | 421 | 425 | 429 | 431 | 500..))
    }

    /// Whether the status shows that the token still works. Some services answer 403 to an ended token. So a 403, which
    /// is a use, is no evidence that an ended token was accepted.
    pub(crate) const fn answer(&self) -> Answer {
        match self.status {
            _ if self.is_attempt() => Answer::Refused,
            Some(403) => Answer::Refused,
            Some(429 | 500..) | None => Answer::Unknown,
            Some(_) => Answer::Accepted,
        }
    }
}

/// MurmurHash2 (Appleby 2008) with the seed of Kafka's `DefaultPartitioner`.
fn murmur2(bytes: &[u8]) -> u32 {
    const MIX: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ bytes.len() as u32;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let word = u32::from_le_bytes(*word).wrapping_mul(MIX);
        hash = hash.wrapping_mul(MIX) ^ (word ^ word >> 24).wrapping_mul(MIX);
    }
    if !rest.is_empty() {
        let rest = rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ rest).wrapping_mul(MIX);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(MIX);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values are those of Kafka's `UtilsTest`.
    #[test]
    fn murmur2_matches_kafka() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn timestamp_refuses_times_out_of_range() {
        assert_eq!(Timestamp::from_millis(-1), None);
        assert_eq!(Timestamp::from_millis(i64::MAX), None);
        assert_eq!(Timestamp::from_millis(0), Some(Timestamp::MIN));
    }

    #[test]
    fn status_decides_between_use_and_attempt() {
        let of = |kind, status| {
            let event = Event { kind, status, ..Event::default() };
            (event.is_attempt(), event.is_unchecked(), event.answer())
        };
        for (status, expected) in [
            (Some(200), (false, false, Answer::Accepted)),
            (Some(400), (false, true, Answer::Accepted)),
            (Some(401), (true, false, Answer::Refused)),
            (Some(403), (false, false, Answer::Refused)),
            (Some(404), (false, false, Answer::Accepted)),
            (Some(429), (false, true, Answer::Unknown)),
            (Some(503), (false, true, Answer::Unknown)),
            (None, (false, false, Answer::Unknown)),
        ] {
            assert_eq!(of(Kind::Use, status), expected, "{status:?}");
        }
        assert_eq!(of(Kind::Refreshed, Some(400)), (true, true, Answer::Refused));
    }
}
