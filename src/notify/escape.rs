//! Escaping of values in the mail templates. `askama.toml` applies it to every value, so that no template can omit it.

use std::fmt::{Result, Write};

use askama::filters::Escaper;

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
