//! Splits invalid JSON at its brackets, quotes and commas, so that a broken record does not affect the other records of
//! its message. Valid JSON is split like by a JSON reader.

/// The record separator that precedes each value of a JSON text sequence (RFC 7464).
pub(crate) const RECORD_SEPARATOR: char = '\u{1e}';

/// Contents of an array.
pub(crate) struct Elements<'a> {
    /// The non-empty texts between the commas, without surrounding white space.
    pub(crate) parts: Vec<&'a str>,
    /// The closing bracket is present.
    pub(crate) closed: bool,
    /// The last part is truncated: a bracket or quote in it is not closed.
    pub(crate) breaks_off: bool,
}

/// The elements in `text`, which begins after the opening bracket of an array, or after one of its elements.
pub(crate) fn elements(text: &str) -> Elements<'_> {
    let mut found = Elements { parts: Vec::new(), closed: false, breaks_off: false };
    let mut cursor = Cursor::new(text);
    let mut start = 0;
    loop {
        let at = cursor.at;
        match cursor.next() {
            Some(b',') if cursor.is_outside() => {
                found.push(text.get(start..at));
                start = cursor.at;
            }
            Some(b']') if cursor.has_left() => {
                found.push(text.get(start..at));
                found.closed = true;
                return found;
            }
            Some(_) => {}
            None => {
                let broken = !cursor.is_outside();
                found.breaks_off = found.push(text.get(start..)) && broken;
                return found;
            }
        }
    }
}

impl<'a> Elements<'a> {
    fn push(&mut self, part: Option<&'a str>) -> bool {
        let part = part.unwrap_or_default().trim_ascii();
        if !part.is_empty() {
            self.parts.push(part);
        }
        !part.is_empty()
    }
}

/// The consecutive objects and arrays in `text`. `None` if they are separated by anything but white space, commas and
/// record separators.
pub(crate) fn values(text: &str) -> Option<Vec<&str>> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ',' || c == RECORD_SEPARATOR);
        if rest.is_empty() {
            return Some(found);
        }
        if !rest.starts_with(['{', '[']) {
            return None;
        }
        let (value, after) = rest.split_at_checked(value_length(rest))?;
        found.push(value);
        rest = after;
    }
}

/// The members of the object in `text`: the names as written, and the values. `None` if it is not an object.
pub(crate) fn members(text: &str) -> Option<Vec<(&str, &str)>> {
    let inside = text.trim_ascii_start().strip_prefix('{')?;
    let mut found = Vec::new();
    let mut cursor = Cursor::new(inside);
    let (mut start, mut colon) = (0, None);
    loop {
        let at = cursor.at;
        let byte = cursor.next();
        let ends = match byte {
            Some(b':') if cursor.is_outside() && colon.is_none() => {
                colon = Some(at);
                false
            }
            Some(b',') => cursor.is_outside(),
            Some(b'}') => cursor.has_left(),
            Some(_) => false,
            None => true,
        };
        if ends {
            let member = colon.and_then(|colon| {
                let name = inside.get(start..colon)?.trim_ascii();
                let name = name.strip_prefix('"')?.strip_suffix('"')?;
                Some((name, inside.get(colon + 1..at)?.trim_ascii()))
            });
            found.extend(member);
            (start, colon) = (cursor.at, None);
            if byte != Some(b',') {
                return Some(found);
            }
        }
    }
}

/// Length of the object or array at the start of `text`, or of all of `text` if it does not end.
fn value_length(text: &str) -> usize {
    let mut cursor = Cursor::new(text);
    while cursor.next().is_some() {
        if cursor.is_outside() {
            break;
        }
    }
    cursor.at
}

/// Reads the structure of a text byte by byte; only the opening quote of a string is returned.
struct Cursor<'t> {
    text: &'t [u8],
    at: usize,
    /// The open brackets.
    open: Vec<u8>,
    /// Number of braces among them.
    braces: usize,
    in_string: bool,
    /// A closing bracket without an opening one was read.
    left: bool,
}

impl<'t> Cursor<'t> {
    const fn new(text: &'t str) -> Self {
        Self { text: text.as_bytes(), at: 0, open: Vec::new(), braces: 0, in_string: false, left: false }
    }

    const fn is_outside(&self) -> bool {
        self.open.is_empty() && !self.in_string
    }

    const fn has_left(&self) -> bool {
        self.left
    }

    /// The next byte of the structure.
    fn next(&mut self) -> Option<u8> {
        let byte = *self.text.get(self.at)?;
        self.at += 1;
        match byte {
            b'"' => self.string(),
            b'{' => {
                self.open.push(byte);
                self.braces += 1;
            }
            b'[' => self.open.push(byte),
            b'}' => self.close(b'{'),
            b']' => self.close(b'['),
            _ => {}
        }
        Some(byte)
    }

    /// Skips a string up to its closing quote.
    fn string(&mut self) {
        self.in_string = true;
        while let Some(found) = self.text.get(self.at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
            self.at += found;
            if self.text.get(self.at) == Some(&b'"') {
                self.at += 1;
                self.in_string = false;
                return;
            }
            self.at = (self.at + 2).min(self.text.len());
        }
        self.at = self.text.len();
    }

    /// Closes the innermost `opening` and all brackets opened after it.
    fn close(&mut self, opening: u8) {
        let there = if opening == b'{' { self.braces } else { self.open.len() - self.braces };
        self.left = self.open.is_empty();
        if there == 0 {
            return;
        }
        while let Some(closed) = self.open.pop() {
            self.braces -= usize::from(closed == b'{');
            if closed == opening {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn elements_are_cut_at_commas_outside_brackets() {
        for (text, parts, closed, breaks_off) in [
            (r#"{"a":1},{"b":"],"}] tail"#, &[r#"{"a":1}"#, r#"{"b":"],"}"#][..], true, false),
            ("]", &[], true, false),
            (" , ,1]", &["1"], true, false),
            (r#"{"a":NaN},{"b":[1,2]}"#, &[r#"{"a":NaN}"#, r#"{"b":[1,2]}"#], false, false),
            (r#"{"a":[1},{"b":2}]"#, &[r#"{"a":[1}"#, r#"{"b":2}"#], true, false),
            (r#"{"a":1}} x {"b":2},{"c":3}]"#, &[r#"{"a":1}} x {"b":2}"#, r#"{"c":3}"#], true, false),
            (r#"{"a":1},{"b":"#, &[r#"{"a":1}"#, r#"{"b":"#], false, true),
            (r#"{"a":1},{"b":"\"#, &[r#"{"a":1}"#, r#"{"b":"\"#], false, true),
            ("\"a\tb\\\"c\",2]", &["\"a\tb\\\"c\"", "2"], true, false),
        ] {
            let found = elements(text);
            assert_eq!((&found.parts[..], found.closed, found.breaks_off), (parts, closed, breaks_off), "{text}");
        }
    }

    #[test]
    fn values_are_consecutive_objects_and_arrays() {
        assert_eq!(values("{\"a\":NaN}\n\u{1e}[1]{}").as_deref(), Some(&["{\"a\":NaN}", "[1]", "{}"][..]));
        assert_eq!(values(r#"{"a":1} x {"b":1}"#), None);
        assert_eq!(values(r#"{"a":1},"b":{"c":1}"#), None, "text after a stray bracket is not a separate value");
    }

    #[test]
    fn members_are_cut_at_commas_outside_brackets() {
        let text = r#" {"a" : {"b":1,"c":2} , "d:e":"x,y", "f":[1,{"g":2}], h:1, "i":}"#;
        let expected = [("a", r#"{"b":1,"c":2}"#), ("d:e", r#""x,y""#), ("f", r#"[1,{"g":2}]"#), ("i", "")];
        assert_eq!(members(text).as_deref(), Some(&expected[..]));
        assert_eq!(members("[1]"), None);
    }

    #[test]
    fn cut_of_brackets_takes_time_in_proportion() {
        // A search of all open brackets for each closing one takes minutes here.
        let text = "[".repeat(1 << 20) + &"}".repeat(1 << 20);
        assert_eq!(elements(&text).parts.len(), 1);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[\\PC\"\\\\{}\\[\\],:]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[\\PC\"\\\\{}\\[\\],:]{0,6}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn pieces_of_valid_json_equal_a_json_readers(items in prop::collection::vec(json(), 0..5), pretty in any::<bool>()) {
            let array = Value::from(items);
            let text = if pretty { format!("{array:#}") } else { array.to_string() };
            let strict: Vec<&RawValue> = serde_json::from_str(&text).expect("valid");
            let strict: Vec<&str> = strict.into_iter().map(RawValue::get).collect();
            let found = elements(text.strip_prefix('[').expect("an array"));
            prop_assert_eq!(found.parts, strict);
            prop_assert!(found.closed && !found.breaks_off);
        }

        #[test]
        fn pieces_accept_any_text(text in "[\\PC{}\\[\\],:\"\\\\\\n]{0,60}") {
            let _ = (elements(&text), values(&text), members(&text));
        }
    }
}
