//! Numeric keys of the names in events, so that memory stores no texts.
//!
//! A key is the 64-bit SipHash-1-3 (Aumasson and Bernstein, INDOCRYPT 2012) of a name under the installation's secret.
//! The secret prevents a search for two names with the same key. Among ten million names, the probability of an
//! accidental collision is 3 in a million.

use std::hash::Hasher as _;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use siphasher::sip::SipHasher13;

/// Kind of a name. Names of different classes have different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    Tenant = 1,
    App,
    Event,
    Content,
    Token,
    Family,
    /// An application that holds tokens without a user.
    Client,
    User,
    Session,
    /// A part of a tenant, for example an organization.
    Realm,
    Binding,
    Fingerprint,
    Address,
    Prefix,
    Network,
    Visit,
    Agent,
    AgentVersion,
    AgentFamily,
    Method,
    Route,
    Area,
    Country,
    Organisation,
    AllOfRole,
    Segment,
}

/// Length of a SipHash key in bytes.
pub(crate) const KEY_BYTES: usize = 16;

/// The first byte never occurs in UTF-8, so this label differs from every name that
/// [`TokenHasher`](crate::token::TokenHasher) hashes under the same secret.
const LABEL: &[u8] = b"\xfftokenwarden numbers of names v1";

/// The keyed hash function. All members of a consumer group need the same secret, because they exchange state by key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHasher([u64; 2]);

impl Default for KeyHasher {
    /// Under a public key: for tests, and for replays without an installation's secret.
    fn default() -> Self {
        Self::new(*b"tokenwarden, all")
    }
}

impl std::fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHasher(..)")
    }
}

impl KeyHasher {
    pub(crate) fn new(key: [u8; KEY_BYTES]) -> Self {
        let (halves, _) = key.as_chunks();
        Self([u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1])])
    }

    /// Under a key derived from `mac`, which holds the installation's secret (HMAC-SHA-256 of a label; RFC 5869 section
    /// 2.3 with one block).
    pub(crate) fn derived(mac: &Hmac<Sha256>) -> Self {
        let mut mac = mac.clone();
        mac.update(LABEL);
        mac.update(&[1]);
        let block = mac.finalize().into_bytes();
        Self::new(std::array::from_fn(|at| block[at]))
    }

    /// A number that two hashers share only if they have the same key. It does not show the key.
    pub(crate) fn check(&self) -> u64 {
        self.name(Class::Content, b"\xfftokenwarden check of the key")
    }

    /// Key of a name that has the same meaning in all tenants.
    #[inline]
    pub(crate) fn name(&self, class: Class, text: &[u8]) -> u64 {
        self.under(class as u64).hash(text)
    }

    /// Key of a list of numbers.
    #[inline]
    pub(crate) fn numbers<const COUNT: usize>(&self, class: Class, numbers: [u64; COUNT]) -> u64 {
        let mut hasher = self.under(class as u64);
        for number in numbers {
            hasher.write_u64(number);
        }
        hasher.finish()
    }

    /// Key of a number and a text.
    #[inline]
    pub(crate) fn record(&self, class: Class, number: u64, text: &[u8]) -> u64 {
        let mut hasher = self.under(class as u64);
        hasher.write_u64(number);
        hasher.hash(text)
    }

    /// Hasher for the names of one tenant.
    #[inline]
    pub(crate) fn tenant(&self, name: &str) -> Tenant {
        Tenant { number: self.name(Class::Tenant, name.as_bytes()), hasher: *self }
    }

    /// A hasher whose input begins with `first`: a whole word, so that later words stay aligned.
    #[inline]
    fn under(&self, first: u64) -> SipHasher13 {
        let [first_half, second_half] = self.0;
        let mut hasher = SipHasher13::new_with_keys(first_half, second_half);
        hasher.write_u64(first);
        hasher
    }
}

/// Hasher for the names of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tenant {
    pub(crate) number: u64,
    hasher: KeyHasher,
}

impl Tenant {
    /// Key of a name that is specific to the tenant.
    #[inline]
    pub(crate) fn name(&self, class: Class, text: &[u8]) -> u64 {
        self.hasher.under(self.number ^ class as u64).hash(text)
    }

    /// Key of numbers and a text that are specific to the tenant.
    #[inline]
    pub(crate) fn record<const COUNT: usize>(&self, class: Class, numbers: [u64; COUNT], text: &[u8]) -> u64 {
        let mut hasher = self.hasher.under(self.number ^ class as u64);
        for number in numbers {
            hasher.write_u64(number);
        }
        hasher.hash(text)
    }
}

/// The lower 32 bits, and never 0, which means absent. 32 bits suffice to distinguish the few dozen names of one
/// baseline.
pub(crate) const fn half(number: u64) -> u32 {
    let half = number as u32;
    if half == 0 { 1 } else { half }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::token::TokenHasher;

    #[test]
    fn key_hasher_is_siphash_1_3_of_class_and_text() {
        let key: [u8; KEY_BYTES] = std::array::from_fn(|at| at as u8);
        let hasher = KeyHasher::new(key);
        let mut message = (Class::Token as u64).to_le_bytes().to_vec();
        message.extend_from_slice(b"at-7f21");
        assert_eq!(hasher.name(Class::Token, b"at-7f21"), SipHasher13::new_with_key(&key).hash(&message));
        let mut message = (Class::Visit as u64).to_le_bytes().to_vec();
        message.extend_from_slice(&7_u64.to_le_bytes());
        message.extend_from_slice(&9_u64.to_le_bytes());
        assert_eq!(hasher.numbers(Class::Visit, [7, 9]), SipHasher13::new_with_key(&key).hash(&message));
    }

    #[test]
    fn key_hasher_depends_on_the_secret() {
        let check = |secret: &[u8]| TokenHasher::new(secret).key_hasher().check();
        assert_eq!(check(b"one secret"), check(b"one secret"));
        assert_ne!(check(b"one secret"), check(b"another"));
        let number = |secret: &[u8]| TokenHasher::new(secret).key_hasher().name(Class::User, b"ana");
        assert_eq!(number(b"one secret"), number(b"one secret"));
        assert_ne!(number(b"one secret"), number(b"another"));
    }

    /// Pairs of user names that collide under an unkeyed hash are found in seconds. Under the key they must differ.
    #[test]
    fn key_hasher_separates_known_collisions() {
        use xxhash_rust::xxh3::xxh3_64_with_seed;
        // A search over some ten thousand names finds a pair that collides in 24 bits of an unkeyed hash.
        let unkeyed = |name: &str| xxh3_64_with_seed(name.as_bytes(), 0) as u32 & 0xff_ffff;
        let mut seen = std::collections::HashMap::new();
        let (one, other) = (0..)
            .find_map(|number| {
                let name = format!("user-{number}");
                seen.insert(unkeyed(&name), name.clone()).map(|before| (before, name))
            })
            .expect("a pair");
        let acme = KeyHasher::default().tenant("acme");
        let number = |name: &str| acme.name(Class::User, name.as_bytes()) as u32 & 0xff_ffff;
        assert_eq!(unkeyed(&one), unkeyed(&other));
        assert_ne!(number(&one), number(&other));
    }

    proptest! {
        #[test]
        fn names_of_other_tenants_and_classes_differ(name in ".{0,40}", one in ".{0,20}", other in ".{0,20}") {
            let hasher = KeyHasher::default();
            let [a, b] = [&one, &other].map(|tenant| hasher.tenant(tenant));
            let text = name.as_bytes();
            prop_assert_eq!(a.name(Class::User, text) == b.name(Class::User, text), one == other);
            prop_assert_ne!(a.name(Class::User, text), a.name(Class::Token, text));
            prop_assert_ne!(a.name(Class::User, text), hasher.name(Class::User, text));
        }
    }
}
