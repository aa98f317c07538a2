//! An appearance as a message of the topic of sightings.

use serde::{Deserialize, Serialize};

use crate::appearance::Appearance;
use crate::event::Timestamp;

/// Version of the messages. A member ignores messages of other versions.
const FORMAT: u32 = 1;

/// Why a sighting is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is no sighting of this version.
    Unreadable,
    /// Its names are hashed with another key.
    OtherKey,
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    key: u64,
    appearance: &'a Appearance,
}

#[derive(Deserialize)]
struct Read {
    format: u32,
    key: u64,
    appearance: Appearance,
}

/// The message. `key` recognises the key of the names.
pub(crate) fn encode(appearance: &Appearance, key: u64) -> Vec<u8> {
    // Fails only for maps with other keys than text.
    serde_json::to_vec(&Written { format: FORMAT, key, appearance }).unwrap_or_default()
}

/// The appearance in a message of a member with the same key.
pub(crate) fn decode(message: &[u8], key: u64) -> Result<Appearance, Refused> {
    let read: Read = serde_json::from_slice(message).map_err(|_| Refused::Unreadable)?;
    let has_times = |at: Timestamp| Timestamp::from_millis(at.millis()).is_some();
    if read.format != FORMAT || !has_times(read.appearance.at) || !read.appearance.expires_at.is_none_or(has_times) {
        return Err(Refused::Unreadable);
    }
    if read.key == key { Ok(read.appearance) } else { Err(Refused::OtherKey) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TokenType;
    use crate::verdict::Victim;

    fn appearance() -> Appearance {
        Appearance {
            at: Timestamp::from_millis(1_769_990_400_123).expect("a time"),
            event: u64::MAX,
            tenant: 2,
            user: 3,
            app: None,
            network: 60_781,
            address: 5,
            grant: u64::MAX - 1,
            tenant_is_known: true,
            tenant_id: "acme".to_owned(),
            victim: Victim { token_id: "t".to_owned(), ..Victim::default() }.into(),
            token_type: TokenType::Refresh,
            expires_at: Timestamp::from_millis(7),
            event_id: "e".to_owned(),
            place: "NL".to_owned(),
            from: "192.0.2.1".to_owned(),
        }
    }

    #[test]
    fn sighting_reads_back() {
        assert_eq!(decode(&encode(&appearance(), 9), 9), Ok(appearance()));
    }

    #[test]
    fn sighting_with_another_key_is_refused() {
        assert_eq!(decode(&encode(&appearance(), 9), 8), Err(Refused::OtherKey));
    }

    #[test]
    fn other_content_is_unreadable() {
        let text = String::from_utf8(encode(&appearance(), 9)).expect("text");
        for wrong in [
            String::new(),
            "{}".to_owned(),
            text.replacen("\"format\":1", "\"format\":2", 1),
            text.replacen("1769990400123", "-9223372036854775808", 1),
            text.replacen("1769990400123", "9223372036854775807", 1),
            text[..text.len() - 1].to_owned(),
        ] {
            assert_eq!(decode(wrong.as_bytes(), 9), Err(Refused::Unreadable), "{wrong}");
        }
    }
}
