//! Form of the keyed hash that replaces a secret.

/// A replaced secret begins with this. A hash of [`HASH_LENGTH`] characters follows.
pub(crate) const HASHED: &str = "hmac:";
/// 24 bytes in base64url.
pub(crate) const HASH_LENGTH: usize = 32;

/// Whether `text` is a replaced secret.
pub(crate) fn is_hash(text: &[u8]) -> bool {
    text.strip_prefix(HASHED.as_bytes()).is_some_and(|hash| hash.len() == HASH_LENGTH)
}
