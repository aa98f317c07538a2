//! Fast path for the native event in its most frequent form: on one line, flat, without escapes, faults and secrets.
//! Any other form gives `None` and is read again by [`native`](super::native), which reports errors. A property test
//! checks that the two agree. The fast path takes half of that reader's time.

use std::borrow::Cow;

use super::native::Field;
use super::scalar::STATUS_MAX;
use super::text::{self, Limit, Screen};
use super::time;
use crate::event::{Address, Event, Kind, Timestamp, TokenType};
use crate::secret::is_bare;

/// The event in `text`, in whose bytes `screen` found no secret.
pub(crate) fn decode<'a>(text: &'a str, screen: &mut Screen<'_>) -> Option<Event<'a>> {
    let text = text.trim_ascii_end();
    // Escapes, and control characters, which strings may not contain. They are counted rather than searched for, so
    // that the compiler generates vector instructions.
    let odd = text.bytes().filter(|&byte| byte < b' ' || byte == b'\\').count();
    if odd > 0 {
        return None;
    }
    let mut json = Cursor { text, at: 0 };
    let mut found = Found::default();
    json.token(b'{')?;
    loop {
        let name = json.string()?;
        json.token(b':')?;
        match Field::parse(name) {
            Some(field) => found.read(field, &mut json, screen)?,
            None if found.attrs.len() < text::ATTRS_MAX => {
                let value = Cow::Borrowed(json.string()?);
                found.attrs.push(screen.attr(Cow::Borrowed(name), value));
            }
            None => return None,
        }
        if !json.another(b'}')? {
            break;
        }
    }
    json.end()?;
    found.event(screen)
}

/// The values read so far.
#[derive(Default)]
struct Found<'a> {
    /// One bit for each field.
    seen: u32,
    /// By field number; texts only.
    texts: [Option<&'a str>; Field::COUNT],
    kind: Kind,
    token_type: TokenType,
    timestamp: Option<Timestamp>,
    issued_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    address: Option<Address>,
    status: Option<u16>,
    bytes_out: Option<u64>,
    scopes: Vec<Cow<'a, str>>,
    attrs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Found<'a> {
    fn read(&mut self, field: Field, json: &mut Cursor<'a>, screen: &mut Screen<'_>) -> Option<()> {
        let bit = 1 << field as u32;
        if self.seen & bit != 0 {
            return None;
        }
        self.seen |= bit;
        match field {
            Field::Timestamp => self.timestamp = Some(json.timestamp()?),
            Field::IssuedAt => self.issued_at = Some(json.timestamp()?),
            Field::ExpiresAt => self.expires_at = Some(json.timestamp()?),
            Field::IpAddress => self.address = Some(Address::new(json.string()?.parse().ok()?)),
            Field::Status => self.status = Some(json.integer().filter(|status| *status <= STATUS_MAX)? as u16),
            Field::BytesOut => self.bytes_out = Some(json.integer()?),
            Field::Kind => self.kind = Kind::parse(json.string()?)?,
            Field::TokenType => self.token_type = TokenType::parse(json.string()?)?,
            Field::Scopes if json.peek()? == b'"' => {
                let listed = json.string()?;
                self.scopes
                    .extend(text::scopes(listed).map(|scope| text::cut(Cow::Borrowed(scope), text::WORD_BYTES_MAX)));
            }
            Field::Scopes => {
                json.token(b'[')?;
                loop {
                    let scope = json.string().filter(|scope| (1..=text::WORD_BYTES_MAX).contains(&scope.len()))?;
                    self.scopes.push(Cow::Borrowed(scope));
                    if !json.another(b']')? {
                        break;
                    }
                }
                if self.scopes.len() > text::SCOPES_MAX {
                    return None;
                }
            }
            Field::Attrs => {
                json.token(b'{')?;
                loop {
                    let name = Cow::Borrowed(json.string()?);
                    json.token(b':')?;
                    self.attrs.push(screen.attr(name, Cow::Borrowed(json.string()?)));
                    if !json.another(b'}')? {
                        break;
                    }
                }
                if self.attrs.len() > text::ATTRS_MAX {
                    return None;
                }
            }
            Field::Geo => return None,
            _ => {
                // Empty and too long texts are handled by `native`.
                let limit = field.limit()?;
                let value = json.string().filter(|text| (1..=limit.bytes_max()).contains(&text.len()))?;
                if !matches!(limit, Limit::Text(_)) && is_bare(value) {
                    return None;
                }
                *self.texts.get_mut(field as usize)? = Some(value);
            }
        }
        Some(())
    }

    fn event(self, screen: &mut Screen<'_>) -> Option<Event<'a>> {
        let text = |field: Field| self.texts.get(field as usize).copied().flatten();
        let owned = |field: Field| text(field).map(Cow::Borrowed);
        Some(Event {
            event_id: owned(Field::EventId)?,
            timestamp: self.timestamp?,
            kind: self.kind,
            token_id: screen.token(owned(Field::TokenId)?),
            token_type: self.token_type,
            family_id: owned(Field::FamilyId),
            parent_token_id: owned(Field::ParentTokenId).map(|id| screen.token(id)),
            session_id: owned(Field::SessionId),
            user_id: owned(Field::UserId),
            app_id: owned(Field::AppId),
            tenant_id: owned(Field::TenantId),
            address: self.address,
            user_agent: owned(Field::UserAgent),
            client_fingerprint: owned(Field::ClientFingerprint),
            method: owned(Field::Method),
            endpoint: owned(Field::Endpoint),
            status: self.status,
            outcome_unclear: false,
            reuse_reported: false,
            bytes_out: self.bytes_out,
            scopes: self.scopes,
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            binding: owned(Field::Binding),
            geo: None,
            attrs: self.attrs,
            facts: None,
        })
    }
}

/// A position in a JSON text.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The next byte that is not a space; other white space does not occur.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            if byte != b' ' {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn token(&mut self, token: u8) -> Option<()> {
        let found = self.peek()? == token;
        self.at += 1;
        found.then_some(())
    }

    /// Whether a comma follows, and therefore another element, rather than the `end`.
    fn another(&mut self, end: u8) -> Option<bool> {
        let byte = self.peek()?;
        self.at += 1;
        if byte == b',' { Some(true) } else { (byte == end).then_some(false) }
    }

    /// `None` unless only white space is left.
    fn end(&mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    /// A string. The text has no escapes, so it ends at the next quote.
    fn string(&mut self) -> Option<&'a str> {
        self.token(b'"')?;
        let bytes = self.text.as_bytes();
        let start = self.at;
        // Sixteen bytes at a time: most strings end within them, and one branch less saves more than the extra bytes
        // cost. Mycroft's test for a zero byte. The lowest bit found is exact, because borrows go upwards only.
        while let Some(chunk) = bytes.get(self.at..).and_then(|rest| rest.first_chunk::<16>()) {
            const ONES: u128 = u128::from_le_bytes([1; 16]);
            let zero_at_quote = u128::from_le_bytes(*chunk) ^ (ONES * u128::from(b'"'));
            let quotes = zero_at_quote.wrapping_sub(ONES) & !zero_at_quote & (ONES * 0x80);
            self.at += quotes.trailing_zeros() as usize / 8;
            if quotes != 0 {
                break;
            }
        }
        while *bytes.get(self.at)? != b'"' {
            self.at += 1;
        }
        let end = self.at;
        self.at += 1;
        self.text.get(start..end)
    }

    /// A number of digits only.
    fn integer(&mut self) -> Option<u64> {
        // This many digits always fit into 64 bits.
        const DIGITS_MAX: usize = 19;
        self.peek()?;
        let rest = self.text.as_bytes().get(self.at..)?;
        let length = rest.iter().take(DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
        let plain = match rest {
            [b'0', ..] => length == 1,
            _ => (1..=DIGITS_MAX).contains(&length),
        };
        if !plain || !matches!(rest.get(length)?, b',' | b'}' | b' ') {
            return None;
        }
        self.at += length;
        Some(rest.iter().take(length).fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
    }

    fn timestamp(&mut self) -> Option<Timestamp> {
        if self.peek()? == b'"' {
            time::parse(self.string()?).ok()
        } else {
            let millis = i64::try_from(self.integer()?).ok()?;
            if time::LIKE_SECONDS.contains(&millis) { None } else { Timestamp::from_millis(millis) }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::token::TokenHasher;
    use crate::wire::Notes;
    use crate::wire::native;

    /// The result of both readers on one text; of the fast path only if its precondition holds.
    fn both(text: &str) -> (Option<Event<'_>>, Option<Event<'_>>) {
        let hasher = TokenHasher::new(b"a key for tests");
        let mut notes = Notes::default();
        let mut screen = Screen::new(text.as_bytes(), &hasher, &mut notes);
        let short = if screen.is_clean() { decode(text, &mut screen) } else { None };
        let long = native::decode(text.as_bytes(), 0, text, true, &mut screen).ok();
        (short, long)
    }

    #[test]
    fn ordinary_event_uses_the_fast_path() {
        for text in [
            r#"{"event_id":"e","timestamp":"2026-11-22T10:15:30.123Z","token_id":"t","ip_address":"192.0.2.1","status":200}"#,
            r#" { "event_id" : "é" , "timestamp" : 0 , "kind" : "revoked" , "token_id" : "t" , "scopes" : [ "a" , "b" ] , "attrs" : { "k" : "v" } , "x" : "y" } "#,
        ] {
            let (short, long) = both(text);
            assert!(short.is_some());
            assert_eq!(short, long);
        }
    }

    /// A valid or invalid member of an event.
    fn member() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            8 => prop::sample::select(vec![
                "event_id", "timestamp", "kind", "token_id", "token_type", "family_id", "parent_token_id", "user_id",
                "tenant_id", "ip_address", "user_agent", "method", "endpoint", "status", "bytes_out", "scopes", "issued_at",
                "expires_at", "attrs", "geo", "binding", "scope",
            ]).prop_map(str::to_owned),
            1 => "[a-z\\\\ ]{0,6}",
        ];
        let value = prop_oneof![
            8 => prop::sample::select(vec![
                "\"e1\"", "\"\"", "\"2026-11-22T10:15:30Z\"", "\"192.0.2.1\"", "\"::1\"", "\"use\"", "\"revoked\"", "\"access\"", "0",
                "200", "\"200\"", "\"read write\"", "12.5", "1795342530123", "18446744073709551615", "9999999999999999999", "00", "-1", "1.0", "1e2", "null", "true",
                "[]", "[\"a\"]", "[\"a\",\"\"]", "[1]", "{}", "{\"k\":\"v\"}", "{\"k\":1}", "{\"asn\":1}", "\"a\\u0000\"", "\"\\u0041\"", "\"\t\"",
            ]).prop_map(str::to_owned),
            2 => "\"\\PC{0,40}\"",
            1 => "\"[a-z]{0,300}\"",
        ];
        (name, value, "[ ]{0,1}")
            .prop_map(|(name, value, space)| format!("{space}\"{name}\"{space}:{space}{value}{space}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn plain_reader_agrees_with_native_reader(members in prop::collection::vec(member(), 0..8), whole in any::<bool>(), end in "[}]{0,2}[ \n]?") {
            let required = r#""event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1""#;
            let mut members = members;
            if whole {
                members.insert(0, required.to_owned());
            }
            let text = format!("{{{}{end}", members.join(","));
            let (short, long) = both(&text);
            if short.is_some() {
                prop_assert_eq!(short, long, "{}", text);
            }
        }
    }
}
