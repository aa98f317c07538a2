//! Escaping of values. `askama.toml` applies [`Html`] or [`Line`] to every value of a mail template, and a preset of a
//! channel has one [`Markup`] for all its values, so that no template can omit it.

use std::fmt::{Result, Write};

use askama::filters::Escaper;
use serde::Deserialize;

use crate::sanitize::shown;

/// For HTML templates: unsafe characters replaced as in [`crate::sanitize`], and the characters that have a meaning
/// between tags or in a quoted attribute written as entities.
#[derive(Clone, Copy)]
pub(super) struct Html;

impl Escaper for Html {
    fn write_escaped_str<W: Write>(&self, mut out: W, text: &str) -> Result {
        for character in text.chars().map(shown) {
            match character {
                '&' => out.write_str("&amp;")?,
                '<' => out.write_str("&lt;")?,
                '>' => out.write_str("&gt;")?,
                '"' => out.write_str("&quot;")?,
                '\'' => out.write_str("&#39;")?,
                other => out.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// For plain-text templates: unsafe characters replaced, line breaks included, so that a value stays on its line.
#[derive(Clone, Copy)]
pub(super) struct Line;

impl Escaper for Line {
    fn write_escaped_str<W: Write>(&self, mut out: W, text: &str) -> Result {
        text.chars().try_for_each(|character| out.write_char(shown(character)))
    }
}

/// Notation of the texts of a receiver, and how a value is written so that it stays text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Markup {
    /// The receiver shows the characters as they are.
    #[default]
    Plain,
    /// Slack: `&`, `<` and `>` begin entities, links and mentions
    /// (<https://docs.slack.dev/messaging/formatting-message-text#escaping>).
    Slack,
    /// Markdown, also the subset of Adaptive Cards: a backslash before every ASCII punctuation character (CommonMark 2.4).
    Markdown,
    /// A parameter of syslog structured data (RFC 5424 section 6.3.3).
    StructuredData,
}

impl Markup {
    /// `text` with unsafe characters replaced and escaped for this notation, line breaks included.
    ///
    /// Longer text is cut at `units_max` UTF-16 code units after escaping, between two characters and never inside an
    /// escape, and ends with an ellipsis. Receivers count characters, which are no more than the code units.
    pub(super) fn line(self, text: &str, units_max: usize) -> String {
        self.cut(text.chars().map(shown), units_max)
    }

    /// As [`Self::line`], and keeps line breaks.
    pub(super) fn lines(self, text: &str, units_max: usize) -> String {
        self.cut(text.chars().map(|character| if character == '\n' { character } else { shown(character) }), units_max)
    }

    fn cut(self, text: impl Iterator<Item = char>, units_max: usize) -> String {
        let mut out = String::new();
        // The last length that leaves room for the ellipsis, which is one code unit.
        let (mut units, mut fits) = (0, 0);
        for character in text {
            if units < units_max {
                fits = out.len();
            }
            let before = out.len();
            self.push(character, &mut out);
            units += out[before..].chars().map(char::len_utf16).sum::<usize>();
            if units > units_max {
                out.truncate(fits);
                if units_max > 0 {
                    out.push('…');
                }
                break;
            }
        }
        out
    }

    fn push(self, character: char, out: &mut String) {
        match (self, character) {
            (Self::Slack, '&') => out.push_str("&amp;"),
            (Self::Slack, '<') => out.push_str("&lt;"),
            (Self::Slack, '>') => out.push_str("&gt;"),
            (Self::Markdown, other) if other.is_ascii_punctuation() => out.extend(['\\', other]),
            (Self::StructuredData, other @ ('"' | '\\' | ']')) => out.extend(['\\', other]),
            (_, other) => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_escapes_markup_and_controls() {
        let mut out = String::new();
        Html.write_escaped_str(&mut out, "a<b a='\"'>&\u{1b}\n\u{202e}é").expect("a string takes everything");
        assert_eq!(out, "a&lt;b a=&#39;&quot;&#39;&gt;&amp;␛␊\u{fffd}é");
    }

    #[test]
    fn line_escapes_controls_and_line_breaks() {
        let mut out = String::new();
        Line.write_escaped_str(&mut out, "a<b>\r\n\u{2028}é").expect("a string takes everything");
        assert_eq!(out, "a<b>␍␊\u{fffd}é");
    }

    #[test]
    fn markup_escapes_what_has_a_meaning() {
        let text = "<!channel> & [a](b) \"x]\\\n\u{202e}";
        assert_eq!(Markup::Plain.line(text, 99), "<!channel> & [a](b) \"x]\\␊\u{fffd}");
        assert_eq!(Markup::Slack.line(text, 99), "&lt;!channel&gt; &amp; [a](b) \"x]\\␊\u{fffd}");
        assert_eq!(Markup::Markdown.line("*a* [b](c)", 99), "\\*a\\* \\[b\\]\\(c\\)");
        assert_eq!(Markup::StructuredData.line("a\"b]c\\d\n", 99), "a\\\"b\\]c\\\\d␊");
        assert_eq!(Markup::Slack.lines("a\nb<\r", 99), "a\nb&lt;␍");
    }

    #[test]
    fn cut_text_keeps_characters_and_escapes() {
        let hostile = "<&>😀é\"]\\*".repeat(40);
        for markup in [Markup::Plain, Markup::Slack, Markup::Markdown, Markup::StructuredData] {
            let whole = markup.line(&hostile, usize::MAX);
            for max in 0..60 {
                let cut = markup.line(&hostile, max);
                assert!(cut.encode_utf16().count() <= max, "{markup:?} {max}: {cut}");
                let kept = cut.trim_end_matches('…');
                // What remains is the escaped form of a prefix of the text.
                let prefix = (0..=hostile.chars().count()).map(|n| hostile.chars().take(n).collect::<String>());
                let mut prefixes = prefix.take(80).map(|prefix| markup.line(&prefix, usize::MAX));
                assert!(prefixes.any(|prefix| prefix == kept), "{markup:?} {max}: {cut}");
            }
            assert_eq!(markup.line(&hostile, whole.encode_utf16().count()), whole);
        }
        assert_eq!(Markup::Slack.line("ab<c", 4), "ab…");
        assert_eq!(Markup::Plain.line("abcd", 4), "abcd");
        assert_eq!(Markup::Plain.line("abcde", 4), "abc…");
    }

    #[test]
    fn templates_never_disable_escaping() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/notify/templates");
        let mut templates = 0;
        for entry in std::fs::read_dir(folder).expect("the templates") {
            let path = entry.expect("an entry").path();
            let text = std::fs::read_to_string(&path).expect("a template");
            for filter in ["safe", "escape", "|e ", "|e}"] {
                assert!(!text.contains(filter), "{} uses {filter}", path.display());
            }
            templates += 1;
        }
        assert_eq!(templates, 5);
    }
}
