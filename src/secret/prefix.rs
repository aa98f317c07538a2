//! Secrets told by the prefix that their issuers give them.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, Input, packed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The next secret with a known prefix, at or after `from`.
pub(super) fn next(text: &[u8], from: usize) -> Option<Range<usize>> {
    let stems = FINDER.as_ref()?;
    let mut at = from;
    // Up to where no such body can begin, so that a text made of prefixes is not read once for each of them.
    let mut barren = [0; Body::KINDS];
    while let Some(start) = stems.find(text, at) {
        at = start + 1;
        if !begins_word(text, start) {
            continue;
        }
        let rest = text.get(start..)?;
        for (prefix, body) in FORMS {
            let (Some(rest), Some(barren)) = (rest.strip_prefix(prefix.as_bytes()), barren.get_mut(body.kind())) else {
                continue;
            };
            if start < *barren {
                continue;
            }
            let opened = start + prefix.len();
            match body.length(rest) {
                Ok(length) => return Some(if body.follows_scheme() { opened } else { start }..opened + length),
                Err(length) => *barren = opened + length,
            }
        }
    }
    None
}

/// How the bytes after a prefix must look for it to open a secret.
pub(super) enum Body {
    /// At least so many bytes of the alphabet.
    AtLeast(usize, Alphabet),
    /// Exactly so many, and then something else.
    Exactly(usize, Alphabet),
    /// At least so many, and among them an unbroken piece as only random text has it.
    Opaque(usize, Alphabet),
    /// Two parts in base64url with a dot between, at least (RFC 7519; RFC 7516 has five).
    Jwt,
    /// The credentials after an authentication scheme (RFC 9110 section 11.4). The scheme itself stays.
    Credentials,
    /// User and password in base64 (RFC 7617).
    UserAndPassword,
}

pub(super) type Alphabet = fn(u8) -> bool;

/// Every prefix with the body it opens. Sources: the issuers' documentation of their token formats.
pub(super) const FORMS: &[(&str, Body)] = &[
    ("eyJ", Body::Jwt),
    ("Bearer ", Body::Credentials),
    ("bearer ", Body::Credentials),
    ("BEARER ", Body::Credentials),
    ("Bearer%20", Body::Credentials),
    ("Basic ", Body::UserAndPassword),
    ("DPoP ", Body::Credentials),
    ("SSWS ", Body::Credentials),
    // GitHub.
    ("ghp_", Body::AtLeast(10, word)),
    ("gho_", Body::AtLeast(10, word)),
    ("ghu_", Body::AtLeast(10, word)),
    ("ghs_", Body::AtLeast(10, jose)),
    ("ghr_", Body::AtLeast(10, word)),
    ("github_pat_", Body::AtLeast(10, word)),
    // GitLab.
    ("glpat-", Body::AtLeast(10, jose)),
    ("glptt-", Body::AtLeast(10, jose)),
    ("gldt-", Body::AtLeast(10, jose)),
    ("glrt-", Body::AtLeast(10, jose)),
    ("glcbt-", Body::AtLeast(10, jose)),
    ("gloas-", Body::AtLeast(10, jose)),
    ("glsoat-", Body::AtLeast(10, jose)),
    // Slack.
    ("xoxa-", Body::AtLeast(8, dashed)),
    ("xoxb-", Body::AtLeast(8, dashed)),
    ("xoxc-", Body::AtLeast(8, dashed)),
    ("xoxd-", Body::AtLeast(8, base64)),
    ("xoxe-", Body::AtLeast(8, dashed)),
    ("xoxe.xox", Body::AtLeast(8, jose)),
    ("xoxo-", Body::AtLeast(8, dashed)),
    ("xoxp-", Body::AtLeast(8, dashed)),
    ("xoxr-", Body::AtLeast(8, dashed)),
    ("xoxs-", Body::AtLeast(8, dashed)),
    ("xapp-", Body::AtLeast(8, dashed)),
    // OpenAI, Anthropic and others; Stripe.
    ("sk-", Body::Opaque(16, word)),
    ("sk_live_", Body::AtLeast(10, word)),
    ("sk_test_", Body::AtLeast(10, word)),
    ("rk_live_", Body::AtLeast(10, word)),
    ("rk_test_", Body::AtLeast(10, word)),
    ("whsec_", Body::AtLeast(16, base64)),
    // Google.
    ("AIza", Body::Exactly(35, word)),
    ("ya29.", Body::AtLeast(16, jose)),
    ("1//0", Body::Opaque(24, word)),
    ("GOCSPX-", Body::AtLeast(16, word)),
    // AWS session tokens, old and new.
    ("IQoJb3JpZ2lu", Body::AtLeast(16, base64)),
    ("FwoGZXIvYXdz", Body::AtLeast(16, base64)),
    ("FQoGZXIvYXdz", Body::AtLeast(16, base64)),
    ("FQoDYXdz", Body::AtLeast(16, base64)),
    ("AgoJb3JpZ2lu", Body::AtLeast(16, base64)),
    // Others.
    ("npm_", Body::Opaque(30, word)),
    ("pypi-AgE", Body::AtLeast(16, word)),
    ("shpat_", Body::AtLeast(32, word)),
    ("dop_v1_", Body::AtLeast(32, word)),
    ("hvs.", Body::AtLeast(20, word)),
    ("dckr_pat_", Body::AtLeast(16, word)),
    ("ATATT3x", Body::AtLeast(20, base64)),
    ("v2.local.", Body::AtLeast(20, jose)),
    ("v4.local.", Body::AtLeast(20, jose)),
    ("v4.public.", Body::AtLeast(20, jose)),
];

/// What the prefixes begin with. Every message is searched for these, so they are few and short: on the events of
/// `benches/decode.rs` they take half the time that the prefixes themselves do.
pub(super) const STEMS: &[&str] = &[
    "eyJ",
    "Bear",
    "bear",
    "BEAR",
    "Basic ",
    "DPoP ",
    "SSWS ",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glp",
    "gld",
    "glr",
    "glc",
    "glo",
    "gls",
    "xox",
    "xapp-",
    "sk-",
    "sk_",
    "rk_",
    "whsec_",
    "AIza",
    "1//0",
    "ya29.",
    "GOCSPX-",
    "IQoJ",
    "FwoG",
    "FQo",
    "AgoJ",
    "npm_",
    "pypi-",
    "shp",
    "dop_",
    "hvs.",
    "dckr_",
    "ATAT",
    "v2.l",
    "v4.",
];

/// Finds the stems: vectorised where the processor can.
pub(super) struct Stems {
    packed: Option<packed::Searcher>,
    plain: AhoCorasick,
}

/// `None` could only come of stems that make too large an automaton; a test shows that these do not.
pub(super) static FINDER: LazyLock<Option<Stems>> = LazyLock::new(|| {
    let plain = AhoCorasick::new(STEMS).ok()?;
    Some(Stems { packed: packed::Searcher::new(STEMS), plain })
});

impl Stems {
    /// Where the next stem at or after `from` begins.
    fn find(&self, text: &[u8], from: usize) -> Option<usize> {
        let found = match &self.packed {
            Some(packed) => packed.find_in(text, (from..text.len()).into()),
            None => self.plain.find(Input::new(text).span(from..text.len())),
        };
        found.map(|found| found.start())
    }
}

impl Body {
    /// The prefix is the name of an authentication scheme, and no part of the secret.
    pub(super) const fn follows_scheme(&self) -> bool {
        matches!(self, Self::Credentials | Self::UserAndPassword)
    }

    const KINDS: usize = 3;

    /// Bodies of one kind are barren together.
    const fn kind(&self) -> usize {
        match self {
            Self::Jwt => 0,
            Self::Opaque(..) => 1,
            _ => 2,
        }
    }

    /// Length of the body at the start of `rest`; or, where it is none, the length of what need not be looked at again
    /// for a body of this kind.
    fn length(&self, rest: &[u8]) -> Result<usize, usize> {
        match *self {
            Self::AtLeast(min, alphabet) => {
                let opens = rest.len() >= min && rest.iter().take(min).all(|&byte| alphabet(byte));
                if opens { Ok(run(rest, alphabet)) } else { Err(0) }
            }
            Self::Exactly(length, alphabet) => {
                let window = rest.get(..length + 1).unwrap_or(rest);
                if run(window, alphabet) == length { Ok(length) } else { Err(0) }
            }
            Self::Opaque(min, alphabet) => {
                let opaque = |piece: &[u8]| {
                    piece.len() >= 16
                        && piece.iter().any(u8::is_ascii_digit)
                        && piece.iter().any(u8::is_ascii_alphabetic)
                };
                let length = run(rest, alphabet);
                let mut pieces = rest.get(..length).unwrap_or_default().split(|&byte| byte == b'-' || byte == b'_');
                if length >= min && pieces.any(opaque) { Ok(length) } else { Err(length) }
            }
            Self::Jwt => {
                let header = run(rest, word);
                let claims = rest.get(header + 1..).map_or(0, |rest| run(rest, word));
                let found = header >= 8 && rest.get(header) == Some(&b'.') && claims >= 8;
                if found { Ok(run(rest, jose)) } else { Err(header) }
            }
            Self::Credentials => {
                const WINDOW: usize = 20;
                let length = run(rest.get(..WINDOW).unwrap_or(rest), token68);
                let inner = rest.get(1..length).unwrap_or_default();
                let mixed = inner.iter().any(u8::is_ascii_uppercase) && inner.iter().any(u8::is_ascii_lowercase);
                let found = length >= WINDOW || length >= 8 && (mixed || inner.iter().any(u8::is_ascii_digit));
                if found { Ok(run(rest, token68)) } else { Err(0) }
            }
            Self::UserAndPassword => {
                let length = run(rest, base64);
                let decoded = STANDARD.decode(rest.get(..length).unwrap_or_default()).unwrap_or_default();
                if decoded.contains(&b':') { Ok(length) } else { Err(0) }
            }
        }
    }
}

/// Length of the run of `alphabet` that `text` begins with; a backslash that escapes what follows is no part of it.
fn run(text: &[u8], alphabet: Alphabet) -> usize {
    let length = text.iter().position(|&byte| !alphabet(byte)).unwrap_or(text.len());
    let escapes = text.iter().take(length).rev().take_while(|&&byte| byte == b'\\').count();
    length - escapes
}

fn dashed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// Of base64url and of most issuers' tokens.
pub(super) fn word(byte: u8) -> bool {
    dashed(byte) || byte == b'_'
}

/// Of the compact forms of JOSE: base64url parts with dots between.
fn jose(byte: u8) -> bool {
    word(byte) || byte == b'.'
}

/// Of credentials in a header (RFC 9110 section 11.2).
fn token68(byte: u8) -> bool {
    jose(byte) || matches!(byte, b'~' | b'+' | b'/' | b'=' | b'%')
}

/// Of base64, as it is or escaped for a URL (`%2B`) or within JSON (`\/`, `\u002b`).
fn base64(byte: u8) -> bool {
    word(byte) || matches!(byte, b'+' | b'/' | b'=' | b'%' | b'\\')
}

/// Whether a word can begin at `at`: after anything but a letter or digit, or after an escape (`\n`, `\u003d`, `%3D`).
fn begins_word(text: &[u8], at: usize) -> bool {
    let before = |distance: usize| at.checked_sub(distance).and_then(|at| text.get(at)).copied();
    !before(1).is_some_and(|byte| byte.is_ascii_alphanumeric())
        || before(2) == Some(b'\\')
        || before(3) == Some(b'%')
        || (before(6), before(5)) == (Some(b'\\'), Some(b'u'))
}
