//! What bearer secrets look like, and where they lie in a text.
//!
//! Two marks give a secret away: the prefix that its issuer puts there to be recognised by (`ghp_`, `xoxb-`, `eyJ`), and
//! the name that it is given (`access_token=…`, `"client_secret": "…"`). Identifiers of keys (`AKIA…`) and hashes are
//! no secrets.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, Input, packed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::{memchr_iter, memchr2_iter};

/// The secrets in `text`, in order, apart from one another. Ranges lie on character boundaries where `text` is UTF-8.
pub fn secrets(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    Secrets { text, at: 0, prefixed: Next::Unknown, named: Next::Unknown }
}

/// Whether a string of a message may hold a secret, told from the message's raw bytes: `false` holds for every string
/// in it that has no escapes, save those under a name of their own, which is [`is_secret_name`]'s to judge.
#[must_use]
pub fn may_hold_secret(raw: &[u8]) -> bool {
    next_prefixed(raw, 0).is_some() || next_assigned(raw, 0).is_some()
}

/// Whether a field of this name holds a secret: `access_token`, `clientSecret`, `X-Api-Key`.
#[must_use]
pub fn is_secret_name(name: &[u8]) -> bool {
    let mut folded = [0; SECRET_NAME_MAX];
    let mut length = 0;
    for &byte in name.iter().filter(|&&byte| byte != b'_' && byte != b'-') {
        let Some(slot) = folded.get_mut(length) else { return false };
        *slot = byte.to_ascii_lowercase();
        length += 1;
    }
    folded.get(..length).is_some_and(|folded| SECRET_NAMES.contains(&folded))
}

/// Longest of [`SECRET_NAMES`].
const SECRET_NAME_MAX: usize = 18;

/// Names of secrets, in lower case, without `_` and `-`.
const SECRET_NAMES: &[&[u8]] = &[
    b"token",
    b"accesstoken",
    b"actortoken",
    b"apitoken",
    b"authtoken",
    b"bearertoken",
    b"idtoken",
    b"jobtoken",
    b"oauthtoken",
    b"privatetoken",
    b"refreshtoken",
    b"securitytoken",
    b"sessiontoken",
    b"subjecttoken",
    b"usertoken",
    b"awssessiontoken",
    b"xamzsecuritytoken",
    b"secret",
    b"clientsecret",
    b"appsecret",
    b"sharedsecret",
    b"secretkey",
    b"secretaccesskey",
    b"awssecretaccesskey",
    b"apikey",
    b"xapikey",
    b"accountkey",
    b"privatekey",
    b"password",
    b"passwd",
    b"authorization",
    b"proxyauthorization",
    b"clientassertion",
    b"samlresponse",
    b"cookie",
    b"setcookie",
    b"sig",
    b"signature",
    b"xamzsignature",
    b"xgoogsignature",
];

/// A value under a secret name is a secret from this length: shorter ones are flags and counts.
const NAMED_BYTES_MIN: usize = 6;

/// How the bytes after a prefix must look for it to open a secret.
enum Body {
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

type Alphabet = fn(u8) -> bool;

/// Every prefix with the body it opens. Sources: the issuers' documentation of their token formats.
const FORMS: &[(&str, Body)] = &[
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
const STEMS: &[&str] = &[
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
struct Stems {
    packed: Option<packed::Searcher>,
    plain: AhoCorasick,
}

/// `None` could only come of stems that make too large an automaton; a test shows that these do not.
static FINDER: LazyLock<Option<Stems>> = LazyLock::new(|| {
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

/// The next secret with a known prefix, at or after `from`.
fn next_prefixed(text: &[u8], from: usize) -> Option<Range<usize>> {
    let stems = FINDER.as_ref()?;
    let mut at = from;
    while let Some(start) = stems.find(text, at) {
        if begins_word(text, start) {
            let found = FORMS.iter().find_map(|(prefix, body)| {
                let rest = text.get(start..)?.strip_prefix(prefix.as_bytes())?;
                let end = start + prefix.len() + body.length(rest)?;
                Some(if body.follows_scheme() { start + prefix.len()..end } else { start..end })
            });
            if found.is_some() {
                return found;
            }
        }
        at = start + 1;
    }
    None
}

impl Body {
    /// The prefix is the name of an authentication scheme, and no part of the secret.
    const fn follows_scheme(&self) -> bool {
        matches!(self, Self::Credentials | Self::UserAndPassword)
    }

    /// Length of the body at the start of `rest`, if it is one. Looks at a bounded number of bytes before it decides,
    /// so that a text made of prefixes costs no more than any other.
    fn length(&self, rest: &[u8]) -> Option<usize> {
        const WINDOW: usize = 2048;
        let window = rest.get(..WINDOW).unwrap_or(rest);
        match *self {
            Self::AtLeast(min, alphabet) => {
                let opens = window.len() >= min && window.iter().take(min).all(|&byte| alphabet(byte));
                opens.then(|| run(rest, alphabet))
            }
            Self::Exactly(length, alphabet) => (run(window, alphabet) == length).then_some(length),
            Self::Opaque(min, alphabet) => {
                let opaque = |piece: &[u8]| {
                    piece.len() >= 16
                        && piece.iter().any(u8::is_ascii_digit)
                        && piece.iter().any(u8::is_ascii_alphabetic)
                };
                let length = run(window, alphabet);
                let found =
                    length >= min && window.get(..length)?.split(|&byte| byte == b'-' || byte == b'_').any(opaque);
                found.then(|| run(rest, alphabet))
            }
            Self::Jwt => {
                let header = run(window, word);
                let claims = window.get(header + 1..).map_or(0, |rest| run(rest, word));
                let found = header >= 8 && window.get(header) == Some(&b'.') && claims >= 8;
                found.then(|| run(rest, jose))
            }
            Self::Credentials => {
                let length = run(window, token68);
                let inner = window.get(1..length)?;
                let mixed = inner.iter().any(u8::is_ascii_uppercase) && inner.iter().any(u8::is_ascii_lowercase);
                let found = length >= 20 || length >= 8 && (mixed || inner.iter().any(u8::is_ascii_digit));
                found.then(|| run(rest, token68))
            }
            Self::UserAndPassword => {
                let length = run(window, base64);
                let decoded = STANDARD.decode(window.get(..length)?).ok()?;
                decoded.contains(&b':').then_some(length)
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
fn word(byte: u8) -> bool {
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

/// The value of the next `name=value` with the name of a secret, as in a query string, at or after `from`.
fn next_assigned(text: &[u8], from: usize) -> Option<Range<usize>> {
    memchr_iter(b'=', text.get(from..)?).find_map(|at| assigned(text, from + at))
}

/// The next value with the name of a secret, in whichever notation, at or after `from`.
fn next_named(text: &[u8], from: usize) -> Option<Range<usize>> {
    memchr2_iter(b'=', b':', text.get(from..)?).find_map(|at| {
        let at = from + at;
        if text.get(at) == Some(&b'=') { assigned(text, at) } else { member(text, at) }
    })
}

/// The value after the `=` at `equals`, if the name before it is a secret's.
fn assigned(text: &[u8], equals: usize) -> Option<Range<usize>> {
    const DELIMITERS: &[u8] = b"&#;, \"'<>\\)]}";
    if !is_secret_name(last_word(text.get(..equals)?)) {
        return None;
    }
    let quoted = matches!(text.get(equals + 1), Some(b'"' | b'\''));
    let start = equals + 1 + usize::from(quoted);
    let value = text.get(start..)?;
    let length = value.iter().position(|&byte| byte < b' ' || DELIMITERS.contains(&byte)).unwrap_or(value.len());
    (length >= NAMED_BYTES_MIN).then(|| start..start + length)
}

/// The text after the `:` at `colon`, if it is a member of an object in JSON, escaped or not, and named as secrets are.
fn member(text: &[u8], colon: usize) -> Option<Range<usize>> {
    let before = text.get(..colon)?.trim_ascii_end();
    let name = before.strip_suffix(b"\"")?;
    let name = &name[..name.len() - name.iter().rev().take_while(|&&byte| byte == b'\\').count()];
    if !is_secret_name(last_word(name)) {
        return None;
    }
    let mut start = colon + 1;
    let mut escaped = false;
    loop {
        match *text.get(start)? {
            b'"' => break,
            b'\\' => escaped = true,
            b' ' | b'\t' | b'\n' | b'\r' | b'[' => {}
            _ => return None,
        }
        start += 1;
    }
    start += 1;
    let mut end = start;
    while let Some(&byte) = text.get(end) {
        match byte {
            b'\\' if escaped => break,
            b'\\' => end += 1,
            b'"' => break,
            _ => {}
        }
        end += 1;
    }
    let end = end.min(text.len());
    (end - start >= NAMED_BYTES_MIN).then_some(start..end)
}

/// The word that `text` ends with: no longer than a secret's name with its separators can be.
fn last_word(text: &[u8]) -> &[u8] {
    const WORD_BYTES_MAX: usize = 2 * SECRET_NAME_MAX;
    let length = text.iter().rev().take(WORD_BYTES_MAX + 1).take_while(|&&byte| word(byte)).count();
    &text[text.len() - length..]
}

/// Merges what prefixes and names give away, in order.
struct Secrets<'t> {
    text: &'t [u8],
    at: usize,
    prefixed: Next,
    named: Next,
}

/// The next find of one kind, kept until it is passed, so that each kind reads the text once.
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
        self.prefixed.update(at, || next_prefixed(text, at));
        self.named.update(at, || next_named(text, at));
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
