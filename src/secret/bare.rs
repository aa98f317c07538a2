//! Tokens without a known prefix, recognised by their whole form if the value is an id.

use super::prefix::{self, word};

/// Whether the id `text` is a token as a whole. These forms are too short or too common to search texts for.
pub(crate) fn is_bare(text: &str) -> bool {
    // All forms are at least this long, and nearly all ids are shorter.
    const BYTES_MIN: usize = 24;
    let bytes = text.as_bytes();
    bytes.len() >= BYTES_MIN
        && (is_okta(bytes)
            || is_telegram(bytes)
            || is_discord(bytes)
            || is_salesforce(bytes)
            || is_entra_secret(bytes)
            || is_terraform(bytes)
            || prefix::is_id_form(bytes))
}

/// Whether the id `text` has as many random characters as a secret of 160 bits; an id has up to 128. Hashes in their
/// usual forms (64 hexadecimal digits or 44 characters of base64) do not count.
pub fn looks_opaque(text: &str) -> bool {
    const HEX_MIN: usize = 40;
    const MIXED_MIN: usize = 32;
    // Random texts of the shortest lengths have about 15 different digits, and 25 different characters.
    const DIFFERENT_MIN: [u32; 2] = [10, 16];
    let bytes = text.as_bytes();
    let is_hash = bytes.len() == 64 || bytes.len() == 44 && bytes.ends_with(b"=");
    let different = bytes.iter().fold(0_u128, |seen, byte| seen | 1 << (byte & 0x7f)).count_ones();
    if bytes.iter().all(u8::is_ascii_hexdigit) {
        return bytes.len() >= HEX_MIN && different >= DIFFERENT_MIN[0] && !is_hash;
    }
    let opaque = |byte: &u8| word(*byte) || matches!(byte, b'.' | b'~' | b'+' | b'/' | b'=');
    bytes.len() >= MIXED_MIN
        && !is_hash
        && different >= DIFFERENT_MIN[1]
        && bytes.iter().all(opaque)
        && bytes.iter().any(u8::is_ascii_digit)
        && bytes.iter().any(u8::is_ascii_uppercase)
        && bytes.iter().any(u8::is_ascii_lowercase)
}

/// Okta API tokens and refresh tokens: `00` and 40 characters of base64url (gitleaks). Okta's ids, including those of
/// its API tokens (`00T…`), have 20 characters.
fn is_okta(text: &[u8]) -> bool {
    text.len() == 42
        && text.starts_with(b"00")
        && text.iter().all(|&byte| word(byte))
        && text.iter().any(u8::is_ascii_uppercase)
        && text.iter().any(u8::is_ascii_lowercase)
}

/// Salesforce access tokens: the organization's id of 15 or 18 characters, `!`, and 80 characters or more (Nosey Parker).
fn is_salesforce(text: &[u8]) -> bool {
    let Some(at) = text.iter().position(|&byte| byte == b'!').filter(|at| matches!(at, 15 | 18)) else { return false };
    let (organization, secret) = text.split_at(at);
    let is_secret = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
    organization.starts_with(b"00")
        && organization.iter().all(u8::is_ascii_alphanumeric)
        && secret.len() > 80
        && secret.iter().skip(1).all(is_secret)
}

/// Secrets of Microsoft Entra ID applications: three characters, a digit, `Q~` and 31 to 34 characters (gitleaks).
fn is_entra_secret(text: &[u8]) -> bool {
    let is_secret = |byte: &u8| word(*byte) || matches!(byte, b'.' | b'~');
    (37..=40).contains(&text.len())
        && text.get(3).is_some_and(u8::is_ascii_digit)
        && text.get(4..6) == Some(b"Q~")
        && text.iter().all(is_secret)
}

/// HCP Terraform: 14 characters, `.atlasv1.`, and 60 to 70 characters (gitleaks).
fn is_terraform(text: &[u8]) -> bool {
    let Some((id, rest)) = text.split_at_checked(14) else { return false };
    id.iter().all(u8::is_ascii_alphanumeric)
        && rest.strip_prefix(b".atlasv1.").is_some_and(|secret| secret.len() >= 60 && secret.iter().all(|&b| word(b)))
}

/// Telegram: "Bot API", `ID:` of 8 to 10 digits, and 35 characters of base64url.
fn is_telegram(text: &[u8]) -> bool {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = text.get(digits..).unwrap_or_default();
    (8..=10).contains(&digits)
        && matches!(rest, [b':', secret @ ..] if secret.len() == 35 && secret.iter().all(|&byte| word(byte)))
}

/// Discord bot tokens, without a published format: the bot's id in base64, a time of 6 characters, and a code.
fn is_discord(text: &[u8]) -> bool {
    let mut parts = text.split(|&byte| byte == b'.');
    let (Some(id), Some(time), Some(code), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    // Digits in base64 begin with one of these.
    matches!(id, [b'M' | b'N' | b'O', ..])
        && (24..=28).contains(&id.len())
        && time.len() == 6
        && (27..=45).contains(&code.len())
        && [id, time, code].iter().all(|part| part.iter().all(|&byte| word(byte)))
}
