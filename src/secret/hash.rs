//! Form of the keyed hash that replaces a secret.

/// A replaced secret begins with this. A hash of [`HASH_LENGTH`] characters follows.
pub const HASHED: &str = "hmac:";
/// 24 bytes in base64url.
pub const HASH_LENGTH: usize = 32;

/// Whether `text` is a replaced secret.
#[must_use]
pub fn is_hash(text: &[u8]) -> bool {
    text.strip_prefix(HASHED.as_bytes()).is_some_and(|hash| hash.len() == HASH_LENGTH)
}
