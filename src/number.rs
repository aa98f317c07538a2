//! Text of numbers and bytes, and random numbers for ids.

use std::hash::{BuildHasher as _, RandomState};

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 alert`, `1,234 alerts`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// Bytes in hexadecimal, with lower-case letters.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| DIGITS[usize::from(digit)]).collect()
}

/// A random number for an id. It is not secret.
pub(crate) fn random_id() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// The number of an id in a text: `prefix` and 16 hexadecimal digits.
pub(crate) fn id_of(text: &str, prefix: &str) -> Option<u64> {
    let digits = text.strip_prefix(prefix).filter(|digits| digits.len() == 16)?;
    // The parser of numbers accepts a sign.
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u64::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_has_two_digits_per_byte() {
        assert_eq!(hex(&[0, 0x0a, 0x9f, 0xff]), "000a9fff");
    }

    #[test]
    fn random_ids_differ() {
        assert_ne!(random_id(), random_id());
    }

    #[test]
    fn counted_has_a_plural() {
        assert_eq!([0, 1, 1_234].map(|count| counted(count, "alert")), ["0 alerts", "1 alert", "1,234 alerts"]);
    }

    #[test]
    fn grouped_separates_thousands() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn id_has_a_prefix_and_16_digits() {
        assert_eq!(id_of("INC-0123456789ABCDEF", "INC-"), Some(0x0123_4567_89ab_cdef));
        for wrong in [
            "0123456789ABCDEF",
            "INC-0123456789ABCDE",
            "INC-+123456789ABCDEF",
            "INC-0123456789ABCDEG",
            "SIL-0123456789ABCDEF",
        ] {
            assert_eq!(id_of(wrong, "INC-"), None, "{wrong}");
        }
    }
}
