//! Sanitizer for text from events: one for the terminal, mails, webhooks, logs and verdicts.
//!
//! A name in an event may contain escape sequences for a terminal. It may contain line breaks that forge a log entry or
//! a mail header, and invisible characters that reorder or hide text.

/// Whether `character` can control a terminal, break a line, or invisibly reorder or hide text. These are control
/// characters, line and paragraph separators, bidirectional marks, zero-width characters and tags (Unicode TR 36 and
/// UTS 39, default-ignorable code points).
pub const fn is_unsafe(character: char) -> bool {
    matches!(character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// `character` if it is safe. Otherwise its replacement of the same width: the control picture, or U+FFFD.
pub(crate) fn shown(character: char) -> char {
    match character {
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(character)).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\u{7f}' => '\u{2421}',
        other if is_unsafe(other) => char::REPLACEMENT_CHARACTER,
        other => other,
    }
}

/// `text` on one line, with unsafe characters replaced.
pub(crate) fn line(text: &str) -> String {
    text.chars().map(shown).collect()
}

/// `text` with unsafe characters replaced, except line breaks.
pub(crate) fn lines(text: &str) -> String {
    text.chars().map(|character| if character == '\n' { character } else { shown(character) }).collect()
}

/// JSON with every unsafe character in its strings escaped. Parsers read the original text, and the JSON itself can be
/// printed. `json` must have no line breaks between its tokens.
pub(crate) fn json(json: &str) -> String {
    let mut escaped = Vec::with_capacity(json.len());
    json.chars().for_each(|character| put_json(&mut escaped, character));
    // Only whole characters are written, so that this cannot fail.
    String::from_utf8(escaped).unwrap_or_default()
}

/// Appends a character of a JSON string, escaped if it is unsafe (RFC 8259 section 7).
pub(crate) fn put_json(out: &mut Vec<u8>, character: char) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    if !is_unsafe(character) {
        return out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    for unit in character.encode_utf16(&mut [0; 2]) {
        out.extend_from_slice(b"\\u");
        out.extend([12, 8, 4, 0].map(|shift| HEX[usize::from(*unit >> shift & 15)]));
    }
}

/// The first `chars_max` safe characters of `text`, for names that are compared and stored.
pub(crate) fn name(text: &str, chars_max: usize) -> Box<str> {
    text.trim().chars().filter(|&character| !is_unsafe(character)).take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_text_has_the_same_width() {
        let text = "a\u{1b}[2J\rb\tc\u{7f}\u{9b}31m\u{202e}x\u{0}\u{e0041}é\n";
        assert_eq!(line(text), "a␛[2J␍b␉c␡\u{fffd}31m\u{fffd}x␀\u{fffd}é␊");
        assert_eq!(lines(text), "a␛[2J␍b␉c␡\u{fffd}31m\u{fffd}x␀\u{fffd}é\n");
        assert_eq!(&*name(" a\u{200b}b\nc ", 2), "ab");
    }

    #[test]
    fn json_parses_to_the_original_text() {
        let text = "a\u{1b}\u{202e}b\u{e0041}é\u{7f}";
        let shown = json(&serde_json::Value::from(text).to_string());
        assert!(!shown.contains(is_unsafe), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).ok().as_deref(), Some(text));
    }

    #[test]
    fn text_of_ordinary_scripts_is_kept() {
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
