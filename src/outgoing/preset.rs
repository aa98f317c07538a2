//! Files and templates of presets: requests as data.

use serde::de::DeserializeOwned;

/// Reads a preset in TOML. The error is the line and the problem.
pub(crate) fn parse_preset<T: DeserializeOwned>(text: &str) -> Result<T, (usize, String)> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.get(..before).map_or(1, |before| before.matches('\n').count() + 1);
        (line, error.message().replace('\n', ", "))
    })
}

/// A part of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Text(&'a str),
    /// The name of a value, without its braces.
    Name(&'a str),
}

/// Splits a template. `{word}` in lower-case letters is the name of a value. Any other brace is text, because JSON contains
/// braces.
pub(crate) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut start, mut from) = (0, 0);
    while let Some(at) = text[from..].find('{').map(|at| from + at) {
        let after = &text[at + 1..];
        let end = after.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(after.len());
        from = at + 1;
        if end > 0 && after[end..].starts_with('}') {
            pieces.push(Piece::Text(&text[start..at]));
            pieces.push(Piece::Name(&after[..end]));
            from = at + end + 2;
            start = from;
        }
    }
    pieces.push(Piece::Text(&text[start..]));
    pieces
}

/// The problem of a template with a name that is none of `known`.
pub(crate) fn unknown_name<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.map(|name| format!("{{{name}}}")).collect();
    format!("has `{{{word}}}`, which is not a known value; known values are {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_names_and_text() {
        use Piece::{Name, Text};
        assert_eq!(pieces("a{id}b{c"), [Text("a"), Name("id"), Text("b{c")]);
        assert_eq!(pieces("{\"x\":\"{user_id}\"}"), [Text("{\"x\":\""), Name("user_id"), Text("\"}")]);
        assert_eq!(pieces("{}{A}{é}{{key}"), [Text("{}{A}{é}{"), Name("key"), Text("")]);
    }
}
