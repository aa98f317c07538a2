//! Names of tokens. A bearer value is replaced by its keyed hash.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::Sha256;

use crate::key::KeyHasher;
use crate::secret;

/// The name of a token: a `jti`, a provider's id or a hash. It never contains a bearer value, because only
/// [`TokenHasher`] and a check that found no secret create one.
///
/// The default is the empty name, which identifies no token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenId<'a>(Cow<'a, str>);

impl<'a> TokenId<'a> {
    /// Takes over `text` from a message in which [`secret::may_hold_secret`] and [`secret::is_bare`] found nothing.
    pub(crate) const fn from_clean(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn into_owned(self) -> TokenId<'static> {
        TokenId(Cow::Owned(self.0.into_owned()))
    }
}

/// `privacy.token_ids`: whether token ids without the form of a secret are hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenIds {
    /// They are kept unchanged.
    #[default]
    AsSent,
    /// They are replaced by keyed hashes, because an opaque token cannot be distinguished from an id.
    Hashed,
}

/// Replaces bearer values by `hmac:` and the first 24 bytes of HMAC-SHA-256 (RFC 2104) in base64url, under the
/// installation's key. A token always gets the same name. Guesses can be tested only with the key.
#[derive(Clone)]
pub struct TokenHasher {
    mac: Hmac<Sha256>,
    ids: TokenIds,
}

impl std::fmt::Debug for TokenHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHasher(..)")
    }
}

impl TokenHasher {
    /// `key` may have any length; use at least 16 random bytes.
    pub fn new(key: &[u8]) -> Self {
        // HMAC accepts keys of every length (RFC 2104 section 2), so the error cannot occur.
        let mac = Hmac::<Sha256>::new_from_slice(key)
            .unwrap_or_else(|_| Hmac::<Sha256>::new(&hmac::digest::Key::<Hmac<Sha256>>::default()));
        Self { mac, ids: TokenIds::AsSent }
    }

    /// The hasher of names under a key derived from this one, so that all members with the same secret compute the same
    /// keys.
    pub(crate) fn key_hasher(&self) -> KeyHasher {
        KeyHasher::derived(&self.mac)
    }

    /// The same key with another rule for token ids.
    #[must_use]
    pub fn with_ids(self, ids: TokenIds) -> Self {
        Self { ids, ..self }
    }

    pub(crate) const fn ids(&self) -> TokenIds {
        self.ids
    }

    /// The name for `text`, and whether it was replaced because it has the form of a secret.
    pub fn name<'a>(&self, text: Cow<'a, str>) -> (TokenId<'a>, bool) {
        let (text, replaced) = self.id(text);
        if self.ids == TokenIds::AsSent || text.is_empty() || secret::is_hash(text.as_bytes()) {
            return (TokenId(text), replaced);
        }
        // Configured by the operator; costs one allocation per token id.
        (TokenId(Cow::Owned(self.hash(text.as_bytes()))), replaced)
    }

    /// The id `text`, or its keyed hash if the whole text is a secret; and whether it was replaced.
    pub(crate) fn id<'a>(&self, text: Cow<'a, str>) -> (Cow<'a, str>, bool) {
        if secret::is_bare(&text) {
            return (Cow::Owned(self.hash(text.as_bytes())), true);
        }
        self.redact(text)
    }

    /// `text` with each bearer value in it replaced by its keyed hash; and whether there was one.
    pub fn redact<'a>(&self, text: Cow<'a, str>) -> (Cow<'a, str>, bool) {
        let mut clean = String::new();
        let mut copied = 0;
        for secret in secret::secrets(text.as_bytes()) {
            clean.push_str(text.get(copied..secret.start).unwrap_or_default());
            clean.push_str(&self.hash(text.as_bytes().get(secret.clone()).unwrap_or_default()));
            copied = secret.end;
        }
        if copied == 0 {
            return (text, false);
        }
        clean.push_str(text.get(copied..).unwrap_or_default());
        (Cow::Owned(clean), true)
    }

    /// The keyed hash of `secret`. About 1 in 400,000 hashes has the form of a secret and would be replaced when it is
    /// read again. Such a hash is replaced by its own hash.
    pub(crate) fn hash(&self, secret: &[u8]) -> String {
        let mut hash = self.digest(secret);
        while looks_like_bearer(&hash) {
            hash = self.digest(hash.as_bytes());
        }
        hash
    }

    fn digest(&self, text: &[u8]) -> String {
        let mut mac = self.mac.clone();
        mac.update(text);
        let mut digest = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        digest.truncate(secret::HASH_LENGTH);
        digest.insert_str(0, secret::HASHED);
        digest
    }
}

/// Whether `text` is, or contains, a bearer secret.
pub fn looks_like_bearer(text: &str) -> bool {
    secret::is_bare(text) || secret::secrets(text.as_bytes()).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_never_has_the_form_of_a_secret() {
        let hasher = TokenHasher::new(b"a key for a test");
        // Found by search: the digests of these numbers contain `sk-` and then the form of a key.
        for number in [824_066, 923_283, 1_267_638, 1_589_185] {
            let text = format!("secret-{number}");
            let plain = hasher.digest(text.as_bytes());
            assert!(looks_like_bearer(&plain), "{plain}");
            let hash = hasher.hash(text.as_bytes());
            assert!(!looks_like_bearer(&hash), "{hash}");
            let (again, replaced) = hasher.redact(Cow::Borrowed(&hash));
            assert!(!replaced && again == hash && hash != plain, "{hash} is replaced by {again}");
        }
        assert_eq!(hasher.hash(b"another"), hasher.digest(b"another"), "other hashes are unchanged");
    }
}
