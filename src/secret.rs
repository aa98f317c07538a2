//! Detects bearer secrets and their ranges in a text.
//!
//! A secret is recognised by the prefix that its issuer gives it (`ghp_`, `xoxb-`, `eyJ`), or by its name
//! (`access_token=…`, `"client_secret": "…"`). An id can also be recognised by its whole form. Identifiers of keys
//! (`AKIA…`) and hashes are no secrets. A random text without these marks cannot be distinguished from an id.

mod bare;
mod hash;
mod name;
mod prefix;

use std::ops::Range;

pub(crate) use bare::is_bare;
pub use bare::looks_opaque;
pub(crate) use hash::{HASH_LENGTH, HASHED, is_hash};
pub(crate) use name::is_secret_name;

/// The secrets in `text`, in order and without overlap. Ranges lie on character boundaries if `text` is UTF-8.
pub(crate) fn secrets(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    Secrets { text, at: 0, prefixed: Next::Unknown, named: Next::Unknown }
}

/// Whether a string of a message may contain a secret, by the message's raw bytes. `false` is reliable for every string
/// without escapes, except for members whose name marks a secret: see [`is_secret_name`].
pub fn may_hold_secret(raw: &[u8]) -> bool {
    prefix::next(raw, 0).is_some() || name::next_assigned(raw, 0).is_some()
}

/// The JSON strings in `text` that are tokens as a whole; the JSON may be broken. With `ids`, also the strings whose
/// member name is that of a token id.
pub(crate) fn whole_strings(text: &[u8], ids: bool) -> impl Iterator<Item = Range<usize>> {
    let mut name = 0..0;
    strings(text).filter(move |range| {
        let named = std::mem::replace(&mut name, range.clone());
        let value = text.get(range.clone()).unwrap_or_default();
        let between = text.get(named.end + 1..range.start - 1).unwrap_or_default();
        let is_member = between.trim_ascii() == b":";
        let is_id = ids && is_member && name::is_token_id_name(text.get(named).unwrap_or_default());
        std::str::from_utf8(value).is_ok_and(is_bare) || is_id && !value.is_empty() && !is_hash(value)
    })
}

/// The contents of each pair of quotes in `text`.
fn strings(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + memchr::memchr(b'"', text.get(at..)?)? + 1;
        let mut end = start;
        while let Some(byte) = text.get(end).filter(|&&byte| byte != b'"') {
            end += if *byte == b'\\' { 2 } else { 1 };
        }
        at = end + 1;
        // The text may end within the string.
        Some(start..end.min(text.len()))
    })
}

/// Merges the secrets found by prefix and by name, in order.
struct Secrets<'t> {
    text: &'t [u8],
    at: usize,
    prefixed: Next,
    named: Next,
}

/// The next find of one kind, kept until the search has passed it, so that each kind reads the text once.
#[derive(Clone)]
enum Next {
    Unknown,
    At(Range<usize>),
    None,
}

impl Next {
    fn update(&mut self, at: usize, find: impl FnOnce() -> Option<Range<usize>>) {
        let known = match self {
            Self::Unknown => false,
            Self::At(range) => range.start >= at,
            Self::None => true,
        };
        if !known {
            *self = find().map_or(Self::None, Self::At);
        }
    }
}

impl Iterator for Secrets<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let Self { text, at, .. } = *self;
        self.prefixed.update(at, || prefix::next(text, at));
        self.named.update(at, || name::next(text, at));
        let found = match (self.prefixed.clone(), self.named.clone()) {
            (Next::At(prefixed), Next::At(named)) if prefixed.start < named.start => prefixed,
            (_, Next::At(named)) => named,
            (Next::At(prefixed), _) => prefixed,
            _ => return None,
        };
        self.at = found.end;
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::prefix::{Body, FINDER, FORMS, STEMS};
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        secrets(text.as_bytes()).map(|range| &text[range]).collect()
    }

    /// `length` characters of the form of random tokens, the same each time. Tests build their secrets from these, so
    /// that the source contains none.
    fn noise(length: usize) -> String {
        "a7Bq2".chars().cycle().take(length).collect()
    }

    #[test]
    fn prefix_has_a_stem_and_opens_a_secret() {
        assert!(FINDER.is_some());
        assert!(STEMS.len() <= 64, "vectorised search supports 64 patterns");
        for (prefix, body) in FORMS {
            assert!(STEMS.iter().any(|stem| prefix.contains(stem)), "{prefix}");
            let rest = match body {
                Body::AtLeast(min, alphabet) => noise_of(*min, *alphabet),
                Body::Opaque(min, _) | Body::Mixed(min, _) => noise(*min),
                Body::Dotted(first, min, _) => format!("{}.{}", noise(*first), noise(*min)),
                Body::Exactly(length, alphabet) => noise_of(*length, *alphabet),
                Body::Jwt => format!("{}.{}.{}", noise(20), noise(30), noise(43)),
                Body::Credentials => noise(16),
                Body::UserAndPassword => STANDARD.encode("user:pass"),
            };
            let secret = if body.follows_scheme() { rest.clone() } else { format!("{prefix}{rest}") };
            for around in ["", " ", "\"", "=", "/", "%3D"] {
                let text = format!("{around}{prefix}{rest}\"");
                assert_eq!(found(&text), [&secret], "{text}");
                assert!(may_hold_secret(text.as_bytes()), "{text}");
            }
        }
    }

    /// `length` characters of an alphabet.
    fn noise_of(length: usize, alphabet: fn(u8) -> bool) -> String {
        noise(4 * length).chars().filter(|&character| alphabet(character as u8)).take(length).collect()
    }

    #[test]
    fn secrets_are_found_by_name() {
        let secret = noise(24);
        for text in [
            format!("/v1/me?access_token={secret}&limit=10"),
            format!("/cb#id_token={secret}"),
            format!("https://h/x?a=b&X-Amz-Signature={secret}"),
            format!(r#"{{"client_secret" : "{secret}"}}"#),
            format!(r#"{{"body":"{{\"refreshToken\":\"{secret}\"}}""#),
            format!(r#"{{"headers":{{"Authorization":["{secret}"]"#),
            format!(r#"{{"password":"{secret}"#),
            format!("/login?next=https%3A%2F%2Fapp.example%2Fcb%3Faccess_token%3D{secret}%26state%3D1"),
            format!(r#""uri":"/cb?a=1\u0026access_token\u003d{secret}\u0026b=2""#),
            format!(r"first\ntoken={secret}\n"),
        ] {
            assert_eq!(found(&text), [&secret], "{text}");
        }
        for (text, hidden) in [
            ("/login/token/redirect?stateToken=02.id.{}", "02.id.{}"),
            ("/login?STATETOKEN={}&x=1", "{}"),
            ("/x?%73tateToken={}", "{}"),
            ("/x?%2573tate%5FToken={}", "{}"),
            ("/oauth2/v1/token?device_code={}", "{}"),
            ("/activate?user%5Fcode={}", "{}"),
            ("/app/x;jsessionid={}?q=1", "{}"),
            ("/app/x;JSESSIONID={}", "{}"),
            ("/cb?code={}&state=abc", "{}"),
            ("/cb#state=abc&code={}", "{}"),
            ("/token?grant_type=authorization_code&Code={}", "{}"),
            ("/in?next=%2Fcb%3Fcode%3D{}%26state%3D1&lang=de", "{}"),
            ("/in?next=%252Fcb%253FstateToken%253D{}%2526x%253D1%26y%3D2", "{}"),
            ("/a?u=%25252Fb%25253FrecoveryToken%25253D{}%252526z", "{}"),
            ("Referer: https://h/login?otp={}", "{}"),
        ] {
            let (text, hidden) = (text.replace("{}", &secret), hidden.replace("{}", &secret));
            assert_eq!(found(&text), [&hidden], "{text}");
            assert!(may_hold_secret(text.as_bytes()), "{text}");
        }
        for name in
            ["access_token", "Access-Token", "clientSecret", "X-Api-Key", "sessionToken", "AWS_SECRET_ACCESS_KEY"]
        {
            assert!(is_secret_name(name.as_bytes()), "{name}");
        }
        for name in ["token_id", "hashed_token", "token_type", "next_token", "page_token", "keys", "", "accessKeyId"] {
            assert!(!is_secret_name(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn secrets_are_found_in_order() {
        let (first, second) = (format!("ghp_{}", noise(36)), format!("xoxb-{}", noise(30)));
        assert_eq!(found(&format!("a {first}, token={second} and ghp_")), [&first, &second]);
        assert_eq!(found(&format!("Bearer {first}")), [&first]);
    }

    #[test]
    fn text_without_secret_is_kept() {
        for text in [
            "5f0c8a1e-7b32-4d7e-9a41-0123456789ab",
            "arn:aws:iam::111122223333:user/sk-production-eu-1",
            "sk-us-east-1-production-worker-0001",
            "sk-5f0c8a1e-7b32-4d7e-9a41-0123456789ab",
            "AKIAIOSFODNN7EXAMPLE",
            "ASIAIOSFODNN7EXAMPLE",
            "3fTqzGK3PnQEHo1vJ2o6x3bqUq8Q1rC1nQkqXQ2w4eY=",
            "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "hmac:LX2Qoyi8dnJYYsJH-OxmqMzyxSnrLz43",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
            "Mozilla/4.0 (compatible; Visual Basic 6.0; MS Web Services)",
            "Basic authentication failed",
            "Bearer authentication",
            "a bearer of news",
            "/v1/x?code=abcdefghijkl&limit=10000000",
            "/v1/x?country_code=abcdefghijkl&state=abcdefghijkl&q=abcdefghijkl",
            "/v1/x?zip%5Fcode=abcdefghijkl&client_id=abcdefghijkl",
            "code=abcdefghijkl in the state of 2026",
            "/v1/tasks/desk-1234567890abcdef12345?page_token=abcdefghijkl&cursor=eyJpZCI6MTIzNDU2Nzg5MH0",
            "/oauth2/token",
            "token=short",
            "eyJ.a.b",
            "https://github.com/acme/ghp_tools",
            "npm_config_registry",
            "jkt:0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
            "t13d1516h2_8daaf6152771_b186095e22b6",
        ] {
            assert_eq!(found(text), Vec::<&str>::new(), "{text}");
        }
    }

    #[test]
    fn search_time_is_linear_in_the_text() {
        // A quadratic search takes minutes here.
        for stem in [
            "sk-",
            "eyJ-",
            "ghp_ ",
            "Bearer ",
            "token=",
            "\"token\":",
            "\"token\":\"\\",
            "code=abcdef&",
            "%25",
            "%253D",
        ] {
            let text = stem.repeat((1 << 20) / stem.len());
            let _ = secrets(text.as_bytes()).count();
        }
    }

    proptest! {
        #[test]
        fn identifiers_are_no_secrets(
            text in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|arn:aws:[a-z0-9]{2,6}::[0-9]{12}:[a-z]{4,8}(/[A-Za-z0-9_-]{1,15}){1,3}|\
                [a-z]{2,8}(-[a-z0-9]{1,12}){1,6}|(/[a-z0-9]{1,12}){1,6}|[A-Za-z0-9.]{1,20}@[a-z]{3,12}\\.com|[A-Za-z0-9+/]{43}="
        ) {
            // A name that begins with a vendor's prefix cannot be distinguished from a secret.
            prop_assume!(FORMS.iter().all(|form| !text.contains(form.0)));
            prop_assert_eq!(found(&text), Vec::<&str>::new());
        }

        #[test]
        fn ranges_are_ordered_on_char_boundaries(
            parts in prop::collection::vec(prop_oneof![
                "\\PC{0,8}",
                (0..FORMS.len()).prop_map(|at| FORMS[at].0.to_owned()),
                "[A-Za-z0-9_./+-]{0,40}",
                "(access_token|password|sig)(=|\":\"|\\\\\":\\\\\")",
            ], 0..12)
        ) {
            let text = parts.concat();
            let mut end = 0;
            for range in secrets(text.as_bytes()) {
                prop_assert!(end <= range.start && range.start < range.end);
                prop_assert!(text.get(range.clone()).is_some());
                end = range.end;
            }
        }

        #[test]
        fn secrets_accepts_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = secrets(&bytes).count();
        }
    }
}
