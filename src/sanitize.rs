//! Text from outside, made safe to show: one sanitizer for the terminal, mails, webhooks, logs and verdicts.
//!
//! A name that a stranger chose may hold escape sequences that a terminal obeys, line breaks that forge a line of a log
//! or a header of a mail, and characters that are not seen and reorder or hide what is.

/// Whether `character` can steer a terminal, break a line, or reorder or hide text without being seen: control
/// characters, line and paragraph separators, bidirectional marks, zero-width characters and tags (Unicode TR 36 and
/// UTS 39, default-ignorable code points).
#[must_use]
pub const fn is_unsafe(character: char) -> bool {
    matches!(character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// `character`, or what is shown in its place, which is as wide: a picture of a control character, else U+FFFD.
#[must_use]
pub fn shown(character: char) -> char {
    match character {
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(character)).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\u{7f}' => '\u{2421}',
        other if is_unsafe(other) => char::REPLACEMENT_CHARACTER,
        other => other,
    }
}

/// `text` on one line, with nothing unsafe in it.
#[must_use]
pub fn line(text: &str) -> String {
    text.chars().map(shown).collect()
}

/// `text` with nothing unsafe in it but its line breaks.
#[must_use]
pub fn lines(text: &str) -> String {
    text.chars().map(|character| if character == '\n' { character } else { shown(character) }).collect()
}

/// JSON with every unsafe character in its strings escaped: a reader gets the text as it was, and whoever prints the
/// JSON itself is not misled. `json` has no line breaks between its tokens.
#[must_use]
pub fn json(json: &str) -> String {
    let mut escaped = Vec::with_capacity(json.len());
    json.chars().for_each(|character| put_json(&mut escaped, character));
    // Whole characters were written.
    String::from_utf8(escaped).unwrap_or_default()
}

/// Writes a character of a JSON string, as an escape where it is unsafe (RFC 8259 section 7).
pub fn put_json(out: &mut Vec<u8>, character: char) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    if !is_unsafe(character) {
        return out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    for unit in character.encode_utf16(&mut [0; 2]) {
        out.extend_from_slice(b"\\u");
        out.extend([12, 8, 4, 0].map(|shift| HEX[usize::from(*unit >> shift & 15)]));
    }
}

/// At most `chars_max` characters of `text`, without the unsafe ones: for names that are compared and stored.
#[must_use]
pub fn name(text: &str, chars_max: usize) -> Box<str> {
    text.trim().chars().filter(|&character| !is_unsafe(character)).take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_text_is_as_wide_and_safe() {
        let text = "a\u{1b}[2J\rb\tc\u{7f}\u{9b}31m\u{202e}x\u{0}\u{e0041}é\n";
        assert_eq!(line(text), "a␛[2J␍b␉c␡\u{fffd}31m\u{fffd}x␀\u{fffd}é␊");
        assert_eq!(lines(text), "a␛[2J␍b␉c␡\u{fffd}31m\u{fffd}x␀\u{fffd}é\n");
        assert_eq!(&*name(" a\u{200b}b\nc ", 2), "ab");
    }

    #[test]
    fn json_reads_back_as_it_was() {
        let text = "a\u{1b}\u{202e}b\u{e0041}é\u{7f}";
        let shown = json(&serde_json::Value::from(text).to_string());
        assert!(!shown.contains(is_unsafe), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).ok().as_deref(), Some(text));
    }

    #[test]
    fn ordinary_scripts_are_kept() {
        for text in ["São Paulo", "Київ", "東京", "دبي", "תל אביב", "मुंबई", "❤️ 😀", "naïve — “quoted” …"]
        {
            assert_eq!(line(text), text);
        }
    }

    #[test]
    fn unsafe_characters_are_all_replaced() {
        for character in (0..=0x10_ffff).filter_map(char::from_u32) {
            let control = character.is_control();
            assert!(!control || is_unsafe(character), "{character:?}");
            assert!(!is_unsafe(shown(character)), "{character:?}");
        }
    }
}
